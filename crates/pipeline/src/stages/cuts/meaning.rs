//! Positions that another program wrote, held to the corpora they are about.

use crate::config::{Corpus, Run};
use crate::failure;
use crate::inputs::Inputs;
use crate::stages::plan::{Met, positions};
use crate::tables::{POSITIONS, RowReader};
use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use training_order::{TrainingIndex, TrainingOrder};

/// The first of the columns that count exposures; the others follow to the end.
const EXPOSURES: usize = 7;

/// Compares every row with what `plan` would write there. Which sequences there are is the other program's choice.
///
/// # Errors
///
/// At the first value that is another one.
pub(super) fn check(run: &Run, inputs: &Inputs, reader: &RowReader, path: &Path) -> Result<()> {
    // Exposures are counted for all probes of a corpus at once.
    let mut exposed: BTreeMap<String, Vec<TrainingIndex>> = BTreeMap::new();
    each(reader, |name, rows, first| {
        let (corpus, order) = corpus(run, inputs, name)?;
        let indices = rows.column(1).as_primitive::<UInt32Type>().values();
        let limit = order.len();
        if let Some(place) = indices.iter().position(|index| u64::from(*index) >= limit) {
            let index = indices[place];
            let problem = format!("the sequence {index} is not among the {limit} of `{name}`");
            return Err(wrong(path, first + place as u64, &problem));
        }
        let indices: Vec<u64> = indices.iter().copied().map(u64::from).collect();
        compare(rows, 0, &positions(corpus, order, &indices)?, first, path)?;
        if counts(rows) {
            let counted = exposed.entry(name.to_owned()).or_default();
            counted.extend(indices.into_iter().map(TrainingIndex::new));
        }
        Ok(())
    })?;
    if exposed.is_empty() {
        return Ok(());
    }
    let mut met: BTreeMap<&str, (Met, usize)> = BTreeMap::new();
    for (name, indices) in &exposed {
        let (_, order) = corpus(run, inputs, name)?;
        met.insert(name, (Met::count(order, &run.probe, indices)?, 0));
    }
    each(reader, |name, rows, first| {
        if !counts(rows) {
            return Ok(());
        }
        let (met, n) = met.get_mut(name).context("its probes were counted")?;
        let expected = met.columns(*n..*n + rows.num_rows());
        *n += rows.num_rows();
        compare(rows, EXPOSURES, &expected, first, path)
    })
}

/// Takes all rows, some of one corpus at a time: its name, the rows, and the number of the first.
fn each(
    reader: &RowReader,
    mut take: impl FnMut(&str, &RecordBatch, u64) -> Result<()>,
) -> Result<()> {
    let names = POSITIONS.column_names();
    let mut row = 0;
    for group in reader.row_groups() {
        for batch in reader.read(&names, group.rows.clone())? {
            let batch = batch?;
            for rows in by_corpus(&batch)? {
                let name = batch.column(0).as_string::<i32>().value(rows.start);
                let some = batch.slice(rows.start, rows.len());
                take(name, &some, row + rows.start as u64)?;
            }
            row += batch.num_rows() as u64;
        }
    }
    Ok(())
}

/// Whether rows say how often their probes are met.
fn counts(rows: &RecordBatch) -> bool {
    let exposures = rows.columns().iter().skip(EXPOSURES);
    exposures
        .into_iter()
        .any(|column| column.null_count() < column.len())
}

fn corpus<'a>(
    run: &'a Run,
    inputs: &'a Inputs,
    name: &str,
) -> Result<(&'a Corpus, &'a TrainingOrder)> {
    let known = run.corpus(name).zip(inputs.orders.get(name));
    known.with_context(|| format!("the run file has no corpus `{name}`"))
}

/// Rows that follow one another and are of one corpus.
fn by_corpus(batch: &RecordBatch) -> Result<Vec<Range<usize>>> {
    let corpora = batch.column(0).as_string::<i32>();
    if corpora.null_count() > 0 || batch.column(1).null_count() > 0 {
        bail!("a row has no `corpus` or no `training_index`");
    }
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in 0..batch.num_rows() {
        match runs.last_mut() {
            Some(last) if corpora.value(last.start) == corpora.value(row) => last.end = row + 1,
            _ => runs.push(row..row + 1),
        }
    }
    Ok(runs)
}

fn compare(
    found: &RecordBatch,
    column: usize,
    expected: &[ArrayRef],
    first: u64,
    path: &Path,
) -> Result<()> {
    for (number, expected) in expected.iter().enumerate() {
        let found = found.column(column + number);
        if found.to_data() == expected.to_data() {
            continue;
        }
        let differs =
            |row: &usize| found.slice(*row, 1).to_data() != expected.slice(*row, 1).to_data();
        let row = (0..found.len()).find(differs).unwrap_or(0);
        let name = POSITIONS.columns[column + number].name;
        let problem = format!("`{name}` is not what the corpus says");
        return Err(wrong(path, first + row as u64, &problem));
    }
    Ok(())
}

fn wrong(path: &Path, row: u64, problem: &str) -> anyhow::Error {
    failure::failed(
        format_args!(
            "the positions `{}`, row {row} from 0: {problem}",
            path.display()
        ),
        "another program wrote the table: mend that, or remove the file and run the stage `plan`",
    )
}
