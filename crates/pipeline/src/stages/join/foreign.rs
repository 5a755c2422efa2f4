//! Verdicts that another program found: any parquet file with `training_index`, `checkpoint` and
//! `n_prefix_matched` or `surprisal`. A file is read once, for all probe sets of its model.

mod columns;
mod coverage;

use crate::door::{Asked, Batch, Cells, ParquetFile, Verdict, Wanted};
use crate::failure;
use crate::stages::sets::ProbeSet;
use crate::tables::VERDICTS;
use anyhow::{Result, bail};
use columns::{Judged, Rows};
pub(crate) use coverage::check_coverage;
use polars::prelude::{Column, DataFrame};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Columns that say what a row is about, and those that say what was found.
const KEYS: [&str; 3] = ["corpus", "checkpoint", "training_index"];
/// In the order in which a row is put together.
const MEASURES: [(&str, Measure); 8] = [
    ("n_prefix_matched", Measure::Count),
    ("memorized", Measure::Flag),
    ("margin", Measure::Real),
    ("near_tie", Measure::Flag),
    ("n_matched", Measure::Count),
    ("surprisal", Measure::Real),
    ("logp_suffix", Measure::Real),
    ("n_top1", Measure::Count),
];

#[derive(Clone, Copy)]
enum Measure {
    Count,
    Real,
    Flag,
}

/// The verdicts of one file on the probe sets of its model.
#[derive(Debug)]
pub(crate) struct ForeignVerdicts {
    path: PathBuf,
    /// By corpus and checkpoint.
    sets: BTreeMap<(String, u32), Judged>,
    left_out: LeftOut,
}

/// Rows about what the run does not ask.
#[derive(Debug, Default)]
struct LeftOut {
    n_rows: u64,
    checkpoints: BTreeSet<u32>,
    n_of_corpora: u64,
}

impl ForeignVerdicts {
    /// Reads the verdicts at `path` on `sets`, which are all of the one model. `corpora` are those
    /// of the run: a row on another corpus is a mistake. Without a column `corpus` all rows are on
    /// the corpus that the model was trained on.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, lacks a column, holds a value that does not fit or contradicts
    /// its neighbours, or nothing on one of the sets.
    pub(crate) fn read(
        path: &Path,
        sets: &[&ProbeSet<'_>],
        corpora: &[&str],
        l: u16,
    ) -> Result<Self> {
        let file = ParquetFile::open(path)?;
        check_columns(&file, path, sets)?;
        let asked = asked(&file);
        let own = sets.iter().find(|set| set.own);
        let mut reader = Reader {
            names: asked.iter().map(|column| column.name).collect(),
            own: own.map(|set| set.corpus.name.as_str()),
            corpora,
            l,
            sets: sets
                .iter()
                .map(|set| {
                    (
                        (set.corpus.name.as_str(), set.checkpoint.steps),
                        Rows::default(),
                    )
                })
                .collect(),
            asked_about: sets.iter().map(|set| set.corpus.name.as_str()).collect(),
            left_out: LeftOut::default(),
        };
        let mut batches = file.read(asked)?;
        while let Some(batch) = batches.next() {
            let batch = batch?;
            reader
                .take(&batch)
                .map_err(|(row, (problem, cure))| batches.wrong(row, problem, cure))?;
        }
        let Reader {
            names,
            sets: found,
            left_out,
            ..
        } = reader;
        let mut sets = BTreeMap::new();
        for ((corpus, checkpoint), rows) in found {
            if rows.is_empty() {
                return Err(failure::failed(
                    format_args!(
                        "`{}` holds nothing on `{corpus}` at the checkpoint {checkpoint}",
                        path.display()
                    ),
                    "leave the checkpoint out of the run file",
                ));
            }
            let judged = rows.sorted(&names).map_err(|error| match error {
                columns::Unsorted::Twice { index, row, before } => batches.wrong(
                    row,
                    format_args!(
                        "the training index {index} of `{corpus}` at the checkpoint {checkpoint} stands there twice: in row {before}, too"
                    ),
                    "drop duplicates",
                ),
                columns::Unsorted::Polars(error) => error.into(),
            })?;
            sets.insert((corpus.to_owned(), checkpoint), judged);
        }
        Ok(Self {
            path: path.to_owned(),
            sets,
            left_out,
        })
    }

    /// The verdicts on a set, ascending by training index, with the columns of `verdicts`; null
    /// where the file does not say.
    ///
    /// # Errors
    ///
    /// When the set was not asked for.
    pub(in crate::stages) fn of(&self, set: &ProbeSet<'_>) -> Result<DataFrame> {
        let key = (set.corpus.name.clone(), set.checkpoint.steps);
        let Some(judged) = self.sets.get(&key) else {
            bail!("the verdicts on {} were not read", set.name());
        };
        let columns = VERDICTS.columns.iter();
        let columns = columns.filter(|column| column.name != "corpus");
        let columns = columns.map(|column| {
            let found = judged.frame.column(column.name).ok().cloned();
            found.unwrap_or_else(|| {
                let (name, n) = (column.name.into(), judged.frame.height());
                Column::full_null(name, n, &column.kind.polars_type())
            })
        });
        Ok(DataFrame::new(judged.frame.height(), columns.collect())?)
    }
}

/// Refuses a file that lacks a column that the sets of its model need.
fn check_columns(file: &ParquetFile, path: &Path, sets: &[&ProbeSet<'_>]) -> Result<()> {
    let unfit = |what: &str| {
        failure::failed(
            format_args!("`{}` {what}", path.display()),
            "verdicts need `training_index`, `checkpoint` and `n_prefix_matched` or `surprisal`",
        )
    };
    for name in ["training_index", "checkpoint"] {
        if !file.has(name) {
            return Err(unfit(&format!("has no column `{name}`")));
        }
    }
    if !file.has("n_prefix_matched") && !file.has("surprisal") {
        return Err(unfit(
            "has neither a column `n_prefix_matched` nor `surprisal`",
        ));
    }
    match sets.iter().find(|set| !set.own) {
        Some(set) if !file.has("corpus") => Err(failure::failed(
            format_args!(
                "`{}` has no column `corpus`, so that its rows may be of another one than `{}`, which `{}` was not trained on",
                path.display(),
                set.corpus.name,
                set.model.name
            ),
            "say in a column `corpus` whose probe each row is about",
        )),
        _ => Ok(()),
    }
}

/// The columns of the file that are read.
fn asked(file: &ParquetFile) -> Vec<Asked> {
    let u32 = || Wanted::Whole(0..=u32::MAX.into());
    let keys = KEYS.into_iter().map(|name| {
        let wanted = if name == "corpus" {
            Wanted::Text
        } else {
            u32()
        };
        Asked { name, wanted }
    });
    let measures = MEASURES.into_iter().map(|(name, measure)| Asked {
        name,
        wanted: match measure {
            Measure::Count => Wanted::Whole(0..=u16::MAX.into()),
            Measure::Real => Wanted::Real,
            Measure::Flag => Wanted::Flag,
        },
    });
    let all = keys.chain(measures);
    all.filter(|column| file.has(column.name)).collect()
}

/// Takes rows to the sets that they are about.
struct Reader<'a> {
    /// The columns of a batch.
    names: Vec<&'static str>,
    /// The corpus that the model was trained on, where it is asked about it.
    own: Option<&'a str>,
    corpora: &'a [&'a str],
    l: u16,
    sets: BTreeMap<(&'a str, u32), Rows>,
    /// The corpora of the sets.
    asked_about: BTreeSet<&'a str>,
    left_out: LeftOut,
}

/// A row that is refused, and why.
type Refused = (u64, (String, String));

impl<'a> Reader<'a> {
    fn take(&mut self, batch: &Batch) -> Result<(), Refused> {
        let column = |name: &str| {
            let place = self.names.iter().position(|found| *found == name)?;
            batch.columns.get(place)
        };
        let columns = Columns {
            corpus: column("corpus"),
            checkpoint: column("checkpoint"),
            training_index: column("training_index"),
            measures: MEASURES.map(|(name, _)| column(name)),
        };
        // Rows of a set mostly follow one another.
        let mut last: Option<(&'a str, u32)> = None;
        for row in 0..batch.n_rows {
            let refused = |problem: (String, String)| (batch.first + row as u64, problem);
            let corpus = self.corpus(&columns, row, last).map_err(refused)?;
            let checkpoint = key(columns.checkpoint, row, "checkpoint").map_err(refused)?;
            let index = key(columns.training_index, row, "training_index").map_err(refused)?;
            let Some(corpus) = corpus else {
                self.left_out.n_of_corpora += 1;
                continue;
            };
            last = Some((corpus, checkpoint));
            let Some(rows) = self.sets.get_mut(&(corpus, checkpoint)) else {
                if self.asked_about.contains(corpus) {
                    self.left_out.n_rows += 1;
                    self.left_out.checkpoints.insert(checkpoint);
                } else {
                    self.left_out.n_of_corpora += 1;
                }
                continue;
            };
            let verdict = columns.verdict(row, self.l);
            if verdict.n_prefix_matched.is_none() && verdict.surprisal.is_none() {
                return Err(refused((
                    "there is neither `n_prefix_matched` nor `surprisal`".to_owned(),
                    "leave out probes without a verdict".to_owned(),
                )));
            }
            verdict
                .check(self.l)
                .map_err(|(problem, cure)| refused((problem, cure.to_owned())))?;
            rows.push(batch.first + row as u64, index, &verdict);
        }
        Ok(())
    }

    /// The corpus of a row: one of the run's; nothing where the run asks the model of no corpus
    /// that the file could mean.
    fn corpus(
        &self,
        columns: &Columns<'_>,
        row: usize,
        last: Option<(&'a str, u32)>,
    ) -> Result<Option<&'a str>, (String, String)> {
        let Some(Cells::Text(texts)) = columns.corpus else {
            return Ok(self.own);
        };
        let known = || format!("the corpora of the run file: {}", self.corpora.join(", "));
        let Some(text) = texts.get(row).and_then(Option::as_ref) else {
            return Err(("`corpus` is null".to_owned(), known()));
        };
        if let Some((corpus, _)) = last.filter(|(corpus, _)| corpus.as_bytes() == text.data()) {
            return Ok(Some(corpus));
        }
        let found = self.corpora.iter();
        let mut found = found.filter(|corpus| corpus.as_bytes() == text.data());
        found.next().copied().map(Some).ok_or_else(|| {
            let text = String::from_utf8_lossy(text.data());
            (
                format!("`corpus` is `{text}`, which the run file does not name"),
                known(),
            )
        })
    }
}

/// The columns of a batch, by name.
struct Columns<'a> {
    corpus: Option<&'a Cells>,
    checkpoint: Option<&'a Cells>,
    training_index: Option<&'a Cells>,
    measures: [Option<&'a Cells>; MEASURES.len()],
}

impl Columns<'_> {
    fn verdict(&self, row: usize, l: u16) -> Verdict {
        let count = |place: usize| match self.measures[place] {
            // In range: it was asked for.
            Some(Cells::Whole(values)) => values
                .get(row)
                .copied()
                .flatten()
                .and_then(|value| u16::try_from(value).ok()),
            _ => None,
        };
        let real = |place: usize| match self.measures[place] {
            Some(Cells::Real(values)) => values.get(row).copied().flatten(),
            _ => None,
        };
        let flag = |place: usize| match self.measures[place] {
            Some(Cells::Flag(values)) => values.get(row).copied().flatten(),
            _ => None,
        };
        let n_prefix_matched = count(0);
        Verdict {
            n_prefix_matched,
            memorized: flag(1).or(n_prefix_matched.map(|matched| matched == l)),
            margin: real(2),
            near_tie: flag(3),
            n_matched: count(4),
            surprisal: real(5),
            logp_suffix: real(6),
            n_top1: count(7),
        }
    }
}

/// A key of a row, which may not be null.
fn key(column: Option<&Cells>, row: usize, name: &str) -> Result<u32, (String, String)> {
    let value = match column {
        Some(Cells::Whole(values)) => values.get(row).copied().flatten(),
        _ => None,
    };
    let value = value.and_then(|value| u32::try_from(value).ok());
    value.ok_or_else(|| {
        (
            format!("`{name}` is null"),
            "every row must say which probe and checkpoint it is about: fill it in, or leave the row out".to_owned(),
        )
    })
}
