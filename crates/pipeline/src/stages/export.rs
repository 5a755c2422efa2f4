//! The probes' tokens as a table of their own, so that other programs can judge the same probes.

use super::footer_of_probes;
use super::planned::{Indices, n_planned, planned};
use crate::config::{Corpus, Run};
use crate::failure;
use crate::inputs::Inputs;
use crate::mark::Mark;
use crate::output;
use crate::progress::Progress;
use crate::tables::{BatchWriter, PROBES, write_atomically};
use anyhow::{Context, Result};
use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::{ArrayRef, StringArray, UInt32Array};
use arrow_schema::{DataType, Field};
use std::path::Path;
use std::sync::Arc;
use training_order::{TrainingIndex, TrainingOrder};

/// Probes written at once.
const BATCH: usize = 1 << 14;

/// Refuses a place for the tokens, before any work.
///
/// # Errors
///
/// When the path does not end with `.parquet`, or another file lies there than such a table.
pub(crate) fn check_place(run: &Run, path: &Path) -> Result<()> {
    if path.extension().is_none_or(|ending| ending != "parquet") {
        return Err(failure::usage(
            format_args!("`{}` is no name for a table", path.display()),
            "let the name given to `--export-tokens` end with `.parquet`",
        ));
    }
    output::admit_file(run, path, Mark::Table(PROBES.name))
}

/// Writes the tokens of every planned probe to `path`; their number.
///
/// # Errors
///
/// When the corpus cannot be read, or the file cannot be written.
pub(crate) fn export_tokens(run: &Run, inputs: &Inputs, path: &Path) -> Result<u64> {
    let mut n_probes = 0;
    for corpus in &run.corpora {
        n_probes += n_planned(run, inputs, corpus)?;
    }
    let progress = Progress::begin("tokens", n_probes);
    let path = std::path::absolute(path)?;
    let n_written = write_atomically(&path, Mark::Table(PROBES.name), |file| {
        let mut writer = BatchWriter::new(file, &PROBES, &footer_of_probes(run))?;
        // By name, as the table is sorted.
        for (name, order) in &inputs.orders {
            progress.working_on(name.clone());
            let corpus = run.corpus(name).context("the corpus is of the run")?;
            let mut planned = planned(run, inputs, corpus)?;
            while let Some(columns) = columns(run, corpus, order, &mut planned)? {
                let n = columns.first().map_or(0, arrow_array::Array::len);
                writer.write(columns)?;
                progress.advance(n as u64);
            }
            progress.finished(name);
        }
        // What was read is what was fingerprinted.
        inputs.check_unchanged()?;
        writer.finish()
    })?;
    progress.end();
    Ok(n_written)
}

/// The next rows; nothing where there are none left.
fn columns(
    run: &Run,
    corpus: &Corpus,
    order: &TrainingOrder,
    planned: &mut Indices<'_>,
) -> Result<Option<Vec<ArrayRef>>> {
    let first = u32::from(run.probe.offset);
    let end = first + u32::from(run.probe.k) + u32::from(run.probe.l);
    order.check_unchanged()?;
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    let mut tokens = ListBuilder::new(UInt32Builder::new()).with_field(item);
    let (mut indices, mut probe) = (Vec::new(), Vec::new());
    for index in planned.take(BATCH) {
        let index = index?;
        probe.clear();
        order.read_tokens(TrainingIndex::new(index), first..end, &mut probe)?;
        tokens.values().append_slice(&probe);
        tokens.append(true);
        indices.push(u32::try_from(index)?);
    }
    if indices.is_empty() {
        return Ok(None);
    }
    Ok(Some(vec![
        Arc::new(StringArray::from_iter_values(
            indices.iter().map(|_| &corpus.name),
        )),
        Arc::new(UInt32Array::from(indices)),
        Arc::new(tokens.finish()),
    ]))
}
