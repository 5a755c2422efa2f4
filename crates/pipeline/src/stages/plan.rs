//! `plan`: when was each sequence trained on? Writes `positions`.

use super::footer;
use crate::config::Run;
use crate::inputs::Inputs;
use crate::progress::Progress;
use crate::tables::{BatchWriter, POSITIONS, write_atomically};
use anyhow::{Context, Result};
use arrow_array::{ArrayRef, StringArray, UInt32Array};
use std::sync::Arc;
use training_order::{TrainingIndex, TrainingOrder};

/// Sequences written at once.
const BATCH: u64 = 1 << 18;

/// Writes `positions.parquet` and gives its number of rows.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn plan(run: &Run, inputs: &Inputs) -> Result<u64> {
    let n_sequences = inputs.orders.values().map(TrainingOrder::n_sequences).sum();
    let progress = Progress::begin("plan", n_sequences);
    let n_rows = write_atomically(&run.out.join(POSITIONS.path), |file| {
        let mut writer = BatchWriter::new(file, &POSITIONS, &footer(run))?;
        // By name, as the table is sorted.
        for (corpus, order) in &inputs.orders {
            progress.working_on(corpus.clone());
            for first in (0..order.n_sequences()).step_by(usize::try_from(BATCH)?) {
                let end = order.n_sequences().min(first + BATCH);
                writer.write(positions(corpus, order, first, end)?)?;
                progress.advance(end - first);
            }
            progress.finished(corpus);
        }
        writer.finish()
    })?;
    progress.end();
    Ok(n_rows)
}

/// The columns of `positions` for the training indices `first..end` of `corpus`.
fn positions(corpus: &str, order: &TrainingOrder, first: u64, end: u64) -> Result<Vec<ArrayRef>> {
    let indices = || (first..end).map(TrainingIndex::new);
    let places: Vec<_> = indices().map(|index| order.position(index)).collect();
    let narrow = |number: u64| {
        u32::try_from(number).with_context(|| format!("{number} does not fit a u32 column"))
    };
    let training_index: Vec<u32> = (first..end).map(narrow).collect::<Result<_>>()?;
    let sample = indices()
        .map(|index| order.sample(index))
        .collect::<UInt32Array>();
    Ok(vec![
        Arc::new(StringArray::from_iter_values(places.iter().map(|_| corpus))),
        Arc::new(UInt32Array::from(training_index)),
        Arc::new(
            places
                .iter()
                .map(|place| Some(place.step))
                .collect::<UInt32Array>(),
        ),
        Arc::new(
            places
                .iter()
                .map(|place| Some(place.row))
                .collect::<UInt32Array>(),
        ),
        Arc::new(sample),
    ])
}
