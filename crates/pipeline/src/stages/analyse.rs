//! `analyse`: is a sequence met late more likely to be memorized? From `memorization` alone, without corpus or model.

mod block;
mod by_time;
mod contrast;
mod dataset;
mod group;
mod meaning;
mod provenance;
mod source;
mod strata;
mod surprisal;
mod table_rows;

use crate::config::Analysis;
use crate::failure;
use crate::mark::Mark;
use crate::progress;
use crate::tables::{
    BatchWriter, CORPUS_CONTRAST, Column, Footer, MEMORIZATION_BY_TIME, Pending, QUANTILES,
    SURPRISAL_TREND, Staged, TREND, Table, UNIFORMITY, stage,
};
use anyhow::Result;
use arrow_array::ArrayRef;
pub(crate) use dataset::is_dataset;
use group::{Group, IN_ORDER, Key, SEEN};
use meaning::Facts;
use pipeline::statistics::{StepCount, q_values};
pub(crate) use provenance::CorpusFacts;
use provenance::Provenance;
use rayon::prelude::*;
use source::{CURE, Source};
use std::collections::BTreeMap;
use std::path::Path;
use strata::{QuantileRow, TrendRow, UniformityRow};

/// The tables of the stage, in the order in which they are written.
pub(crate) const ANALYSED: [&Table; 6] = [
    &MEMORIZATION_BY_TIME,
    &TREND,
    &SURPRISAL_TREND,
    &CORPUS_CONTRAST,
    &UNIFORMITY,
    &QUANTILES,
];

/// What the stage found.
pub(crate) struct Analysed {
    /// Rows of each table of [`ANALYSED`].
    pub(crate) n_rows: [u64; 6],
    pub(crate) rates: Vec<Rates>,
    /// A line for each model and corpus: at its last checkpoint, among what it had seen.
    pub(crate) conclusions: Vec<Conclusion>,
}

/// One corpus, model and checkpoint, for a person to read.
pub(crate) struct Rates {
    pub(crate) key: Key,
    /// Memorized and all.
    pub(crate) all: (u64, u64),
    /// The same among the seen ones of the first half of the steps trained so far; nothing where
    /// the model was trained on another corpus.
    pub(crate) early: Option<(u64, u64)>,
    /// The same for the second half.
    pub(crate) late: Option<(u64, u64)>,
}

/// The answer for one model.
pub(crate) struct Conclusion {
    pub(crate) key: Key,
    pub(crate) rate_ratio: Option<f64>,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) sentence: String,
}

/// Reads `memorization` at `source`, a file or a folder, and makes the tables of [`ANALYSED`] for the folder `out`. `analysis` takes
/// the place of what the table says of it. The tables take their places when all of them are whole.
///
/// # Errors
///
/// When the table is missing, damaged, not of this program, or holds rows out of order or twice; when a table cannot be
/// written.
pub(crate) fn analyse(
    source: &Path,
    out: &Path,
    analysis: Option<&Analysis>,
    pending: &mut Pending,
) -> Result<Analysed> {
    progress::during("analysing", None, |_| {
        analysed(source, out, analysis, pending)
    })
}

fn analysed(
    source: &Path,
    out: &Path,
    analysis: Option<&Analysis>,
    pending: &mut Pending,
) -> Result<Analysed> {
    let source = Source::find(source)?;
    let provenance = Provenance::of(&source, analysis)?;
    let analysis = &provenance.analysis;
    let groups = groups(&source, &provenance)?;
    let mut by_time = Vec::new();
    for group in &groups {
        let facts = provenance.facts(&group.key.corpus)?;
        by_time.extend(by_time::by_time(group, analysis, facts.steps));
    }
    let rows = |of: fn(&Group) -> Vec<TrendRow>| -> Vec<TrendRow> {
        groups.par_iter().flat_map_iter(of).collect()
    };
    let mut trend = rows(Group::trend);
    find_families(&mut trend);
    let surprisal = surprisal::surprisal_trends(&groups, analysis);
    let contrast = contrast::contrasts(&groups, analysis);
    let uniformity: Vec<UniformityRow> =
        groups.par_iter().flat_map_iter(Group::uniformity).collect();
    let quantiles: Vec<QuantileRow> = groups.par_iter().flat_map_iter(Group::quantiles).collect();
    let columns = [
        table_rows::by_time(&by_time, &provenance)?,
        table_rows::trend(&trend, &provenance)?,
        table_rows::surprisal(&surprisal, &provenance)?,
        table_rows::contrast(&contrast, &provenance)?,
        table_rows::uniformity(&uniformity, &provenance)?,
        table_rows::quantiles(&quantiles, &provenance)?,
    ];
    let margins = further_margins(analysis);
    let mut n_rows = [0; 6];
    let mut files = Vec::new();
    for ((table, columns), n) in ANALYSED.into_iter().zip(columns).zip(&mut n_rows) {
        let further = if table.name == TREND.name {
            margins.as_slice()
        } else {
            &[]
        };
        let (n_written, file) = write(table, further, columns, out, &provenance.footer)?;
        *n = n_written;
        files.push(file);
    }
    files.into_iter().try_for_each(|file| pending.add(file))?;
    Ok(Analysed {
        n_rows,
        rates: groups.iter().map(rates).collect(),
        conclusions: trend.iter().filter_map(TrendRow::conclude).collect(),
    })
}

/// Fills in the q values. The family is fixed: every model at its last checkpoint, among what it
/// had seen; all else is exploratory and has none.
fn find_families(rows: &mut [TrendRow]) {
    let mut last: BTreeMap<(String, String), u32> = BTreeMap::new();
    let asked = |key: &Key| (key.model.clone(), key.corpus.clone());
    for row in rows.iter() {
        let checkpoint = last.entry(asked(&row.key)).or_default();
        *checkpoint = row.key.checkpoint.max(*checkpoint);
    }
    let mut family: Vec<&mut TrendRow> = rows
        .iter_mut()
        .filter(|row| row.stratum == SEEN)
        .filter(|row| last.get(&asked(&row.key)) == Some(&row.key.checkpoint))
        .collect();
    for row in &mut family {
        row.primary = true;
    }
    family.retain(|row| row.p().is_some());
    let ps: Vec<f64> = family.iter().filter_map(|row| row.p()).collect();
    for (row, q) in family.into_iter().zip(q_values(&ps)) {
        row.q = Some(q);
    }
}

/// A column for each further margin of the run.
fn further_margins(analysis: &Analysis) -> Vec<(String, f64)> {
    let margins = analysis.margins.iter();
    margins
        .map(|margin| (format!("tost_p_{margin:.2}"), *margin))
        .filter(|(name, _)| TREND.columns.iter().all(|column| column.name != name))
        .collect()
}

fn write(
    table: &'static Table,
    further: &[(String, f64)],
    columns: Vec<ArrayRef>,
    out: &Path,
    footer: &Footer,
) -> Result<(u64, Staged)> {
    let kind = TREND
        .columns
        .iter()
        .find(|column| column.name == "tost_p_1.05")
        .map(|column: &Column| column.kind.arrow_type());
    let further = further
        .iter()
        .filter_map(|(name, _)| Some((name.as_str(), kind.clone()?)));
    let further: Vec<_> = further.collect();
    stage(&out.join(table.path), Mark::Table(table.name), |file| {
        let mut writer = BatchWriter::with_further(file, table, footer, &further)?;
        writer.write(columns)?;
        writer.finish()
    })
}

/// Reads the table once: what is kept of it are counts by step, the places of the memorized, and
/// surprisals.
fn groups(source: &Source, provenance: &Provenance) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    // Whether a model was trained on a corpus.
    let mut own: BTreeMap<(String, String), bool> = BTreeMap::new();
    let facts = Facts {
        l: provenance.l,
        corpora: &provenance.corpora,
    };
    source
        .read(&facts, |block| {
            match groups.last_mut() {
                Some(group) if group.key == block.key => return group.add(block),
                Some(group) => {
                    if group.key > block.key {
                        let problem = format!(
                            "`{}` at checkpoint {} stands behind `{}` at {}",
                            block.key.model,
                            block.key.checkpoint,
                            group.key.model,
                            group.key.checkpoint
                        );
                        return Err(block.wrong(0, problem, IN_ORDER));
                    }
                    group.finish();
                }
                None => {}
            }
            let mut group = Group::new(block, &provenance.analysis.exposures);
            let asked = (group.key.model.clone(), group.key.corpus.clone());
            if *own.entry(asked).or_insert(group.own) != group.own {
                let problem =
                    "`seen` is null at some checkpoints of the model and corpus, and not at others";
                return Err(block.wrong(0, problem, CURE));
            }
            group.add(block)?;
            groups.push(group);
            Ok(())
        })
        .map_err(|error| {
            let cure = failure::hint(&error).unwrap_or_else(|| CURE.to_owned());
            let path = source.path.display();
            failure::failed(format_args!("the table `{path}`: {error:#}"), cure)
        })?;
    if groups.is_empty() {
        return Err(failure::failed(
            format_args!("the table `{}` has no rows", source.path.display()),
            CURE,
        ));
    }
    if let Some(group) = groups.last_mut() {
        group.finish();
    }
    Ok(groups)
}

fn rates(group: &Group) -> Rates {
    let sum = |wanted: &dyn Fn(&StepCount) -> bool, stratum: Option<&group::Stratum>| {
        let steps = stratum.map_or(&[][..], |stratum| &stratum.steps);
        let steps = steps.iter().filter(|count| wanted(count));
        steps.fold((0, 0), |(hits, n), count| {
            (hits + u64::from(count.hits), n + u64::from(count.n))
        })
    };
    let early = |count: &StepCount| u64::from(count.step) * 2 < u64::from(group.key.checkpoint);
    let seen = group.stratum(SEEN);
    Rates {
        key: group.key.clone(),
        all: sum(&|_| true, group.stratum(group::ALL)),
        early: group.own.then(|| sum(&early, seen)),
        late: group.own.then(|| sum(&|count| !early(count), seen)),
    }
}
