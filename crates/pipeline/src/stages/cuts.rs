//! Where the units lie in `positions`: found in one pass, so that no more than one unit is ever held in memory.

mod meaning;

use super::plan::kept;
use crate::config::Run;
use crate::failure;
use crate::fingerprint;
use crate::inputs::Inputs;
use crate::tables::{POSITIONS, RowReader, Slices};
use anyhow::{Context, Result, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, RecordBatch};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Which of a corpus' planned sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    All,
    /// Those of its contrast.
    Contrast,
    /// The others.
    Plain,
}

/// The sequences of one unit.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// Rows of `positions` that hold them, and perhaps others.
    rows: Range<u64>,
    /// How many they are.
    pub(super) n: u64,
    /// The first training index among them.
    pub(super) first: u32,
    /// The SHA-256 of their training indices, each as four bytes, little-endian.
    pub(super) digest: String,
}

/// An open table `positions`, cut into units.
#[expect(clippy::struct_field_names, reason = "they are what they are called")]
pub(crate) struct Cuts {
    path: PathBuf,
    reader: RowReader,
    /// Whether this program wrote the table.
    ours: bool,
    cuts: BTreeMap<(String, Which), Vec<Cut>>,
}

impl Cuts {
    /// Reads what the stage `plan` left, or a program in its place.
    ///
    /// # Errors
    ///
    /// When the table is missing, damaged, or not sorted, or lacks a corpus.
    pub(crate) fn open(run: &Run, path: &Path) -> Result<Self> {
        let path = path.to_owned();
        if !path.exists() {
            return Err(failure::failed(
                format_args!("there are no positions at `{}`", path.display()),
                "run the stage `plan` first, or all of them without `--only`",
            ));
        }
        let (reader, ours) = RowReader::verified(&path, &POSITIONS).map_err(|error| {
            failure::failed(
                format_args!("the positions cannot be read: {error:#}"),
                failure::of_system(&error)
                    .unwrap_or("run the stage `plan` again: it writes them anew"),
            )
        })?;
        let cuts = cut(run, &reader).with_context(|| format!("reading `{}`", path.display()))?;
        let has = |name: &str| cuts.keys().any(|(corpus, _)| corpus == name);
        if let Some(corpus) = run.corpora.iter().find(|corpus| !has(&corpus.name)) {
            return Err(failure::failed(
                format_args!(
                    "the positions `{}` hold no sequence of the corpus `{}`",
                    path.display(),
                    corpus.name
                ),
                "write them anew with `--only plan`, or leave the corpus out of the run file",
            ));
        }
        Ok(Self {
            path,
            reader,
            ours,
            cuts,
        })
    }

    /// The table, as it was held against its checksum.
    ///
    /// # Errors
    ///
    /// When the system opens no more files.
    pub(super) fn table(&self) -> Result<Slices> {
        Slices::of(&self.path, self.reader.file()?)
    }

    /// Refuses the positions of another run. Those of another program are held to the corpora, row by row,
    /// whatever they say of themselves.
    ///
    /// # Errors
    ///
    /// When they are of other inputs or settings, or a value is not the corpus' own.
    pub(super) fn check(&self, run: &Run, inputs: &Inputs) -> Result<()> {
        if !self.ours {
            return meaning::check(run, inputs, &self.reader, &self.path);
        }
        let footer = self.reader.footer().0;
        if footer.get(kept::KEY) != Some(&kept::of_positions(run, inputs)?) {
            return Err(failure::failed(
                format_args!(
                    "the positions `{}` were made by another run: other inputs or settings",
                    self.path.display()
                ),
                "run the stage `plan` again; or discard the old output with `--fresh`, or name another folder with `--out`",
            ));
        }
        Ok(())
    }

    /// The units of a corpus.
    pub(super) fn of(&self, corpus: &str, which: Which) -> &[Cut] {
        let cuts = self.cuts.get(&(corpus.to_owned(), which));
        cuts.map(Vec::as_slice).unwrap_or_default()
    }

    /// The training indices of a unit, ascending.
    ///
    /// # Errors
    ///
    /// When the table cannot be read.
    pub(super) fn training_indices(&self, cut: &Cut, which: Which) -> Result<Vec<u32>> {
        let read = || -> Result<Vec<u32>> {
            let mut indices = Vec::new();
            let batches = self
                .reader
                .read(&["training_index", "contrast"], cut.rows.clone())?;
            for batch in batches {
                let batch = batch?;
                let rows = Rows::of(&batch)?;
                let all = rows.training_index.iter().zip(rows.contrast.values());
                indices.extend(
                    all.filter(|(_, contrast)| which.holds(*contrast))
                        .map(|(index, _)| *index),
                );
            }
            Ok(indices)
        };
        read().with_context(|| format!("reading training indices in `{}`", self.path.display()))
    }
}

impl Which {
    fn holds(self, contrast: bool) -> bool {
        match self {
            Self::All => true,
            Self::Contrast => contrast,
            Self::Plain => !contrast,
        }
    }
}

/// The columns of some rows.
struct Rows<'a> {
    corpus: Option<&'a arrow_array::StringArray>,
    training_index: &'a [u32],
    contrast: &'a arrow_array::BooleanArray,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let without_nulls = batch
            .columns()
            .iter()
            .all(|column| column.null_count() == 0);
        ensure!(without_nulls, "a value is null");
        let column = |name: &str| batch.column_by_name(name);
        let training_index = column("training_index").context("no training index")?;
        let contrast = column("contrast").context("no contrast")?;
        Ok(Self {
            corpus: column("corpus").map(AsArray::as_string),
            training_index: training_index.as_primitive::<UInt32Type>().values(),
            contrast: contrast.as_boolean(),
        })
    }

    /// The corpora, each with its rows; `constant` where the column was not read.
    fn runs(&'a self, constant: Option<&'a str>) -> Vec<(&'a str, Range<usize>)> {
        let n_rows = self.training_index.len();
        let Some(corpora) = self.corpus else {
            return vec![(constant.unwrap_or_default(), 0..n_rows)];
        };
        let mut runs: Vec<(&str, Range<usize>)> = Vec::new();
        for row in 0..n_rows {
            let corpus = corpora.value(row);
            match runs.last_mut() {
                Some((last, rows)) if *last == corpus => rows.end = row + 1,
                _ => runs.push((corpus, row..row + 1)),
            }
        }
        runs
    }
}

/// One pass over the table.
fn cut(run: &Run, reader: &RowReader) -> Result<BTreeMap<(String, Which), Vec<Cut>>> {
    let mut cutters: Vec<CorpusCutter> = Vec::new();
    let mut row = 0;
    for group in reader.row_groups() {
        // Nearly every row group is of one corpus, and its statistics say so.
        let constant = reader.constant("corpus", &group);
        let columns: &[&str] = match constant {
            Some(_) => &["training_index", "contrast"],
            None => &["corpus", "training_index", "contrast"],
        };
        for batch in reader.read(columns, group.rows.clone())? {
            let batch = batch?;
            let rows = Rows::of(&batch)?;
            let mut sorted = true;
            for (corpus, range) in rows.runs(constant.as_deref()) {
                if cutters.last().is_none_or(|last| last.corpus != corpus) {
                    sorted &= cutters.iter().all(|cutter| cutter.corpus != corpus);
                    cutters.push(CorpusCutter::new(run, corpus));
                }
                let Some(cutter) = cutters.last_mut() else {
                    continue;
                };
                for place in range {
                    let contrast = rows.contrast.value(place);
                    sorted &= cutter.push(row, rows.training_index[place], contrast);
                    row += 1;
                }
            }
            ensure!(
                sorted,
                "the rows before row {row} are not sorted by corpus and training index"
            );
        }
    }
    let mut cuts = BTreeMap::new();
    for cutter in cutters {
        for (which, kind) in cutter.kinds {
            cuts.insert((cutter.corpus.clone(), which), kind.finish());
        }
    }
    Ok(cuts)
}

/// Cuts the sequences of one corpus in every way that is asked for.
struct CorpusCutter {
    corpus: String,
    last: Option<u32>,
    kinds: Vec<(Which, Cutter)>,
}

/// Cuts them in one way.
struct Cutter {
    /// Sequences in a unit.
    size: usize,
    /// The training indices of the unit at hand.
    bytes: Vec<u8>,
    rows: Range<u64>,
    /// Its first training index.
    first: u32,
    cuts: Vec<Cut>,
}

impl CorpusCutter {
    fn new(run: &Run, corpus: &str) -> Self {
        let contrast = run
            .corpus(corpus)
            .is_some_and(|corpus| corpus.contrast.is_some());
        let kinds: &[Which] = if contrast {
            &[Which::All, Which::Contrast, Which::Plain]
        } else {
            &[Which::All]
        };
        let cutter = |which: &Which| {
            let cutter = Cutter {
                size: run.probe.part_size as usize,
                bytes: Vec::new(),
                rows: 0..0,
                first: 0,
                cuts: Vec::new(),
            };
            (*which, cutter)
        };
        Self {
            corpus: corpus.to_owned(),
            last: None,
            kinds: kinds.iter().map(cutter).collect(),
        }
    }

    /// Takes the next sequence; whether it is one.
    fn push(&mut self, row: u64, index: u32, contrast: bool) -> bool {
        for (which, cutter) in &mut self.kinds {
            if which.holds(contrast) {
                cutter.push(row, index);
            }
        }
        let last = self.last.replace(index);
        last.is_none_or(|last| last < index)
    }
}

impl Cutter {
    fn push(&mut self, row: u64, index: u32) {
        if self.bytes.is_empty() {
            self.rows.start = row;
            self.first = index;
        }
        self.rows.end = row + 1;
        self.bytes.extend_from_slice(&index.to_le_bytes());
        if self.bytes.len() == 4 * self.size {
            self.end_unit();
        }
    }

    fn end_unit(&mut self) {
        self.cuts.push(Cut {
            rows: self.rows.clone(),
            n: self.bytes.len() as u64 / 4,
            first: self.first,
            digest: fingerprint::hex(&Sha256::digest(&self.bytes)),
        });
        self.bytes.clear();
    }

    fn finish(mut self) -> Vec<Cut> {
        if !self.bytes.is_empty() {
            self.end_unit();
        }
        self.cuts
    }
}
