//! `plan`: when was each sequence trained on? Writes `positions` and `exposures_by_step`.

use super::footer;
use crate::config::Run;
use crate::inputs::Inputs;
use crate::progress::Progress;
use crate::tables::{BatchWriter, EXPOSURES_BY_STEP, POSITIONS, write_atomically};
use anyhow::{Context, Result};
use arrow_array::{ArrayRef, Float64Array, StringArray, UInt32Array};
use std::collections::BTreeSet;
use std::sync::Arc;
use training_order::{Checkpoint, TrainingIndex, TrainingOrder};

/// Sequences written at once.
const BATCH: u64 = 1 << 18;

/// What the stage wrote.
pub(crate) struct Planned {
    pub(crate) n_positions: u64,
    pub(crate) n_exposures: u64,
}

/// Writes `positions` and `exposures_by_step`.
///
/// # Errors
///
/// When a file cannot be written, or the corpus cannot be read.
pub(crate) fn plan(run: &Run, inputs: &Inputs) -> Result<Planned> {
    let n_sequences = inputs.orders.values().map(TrainingOrder::n_sequences).sum();
    let progress = Progress::begin("plan", n_sequences);
    let n_positions = write_atomically(&run.out.join(POSITIONS.path), |file| {
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
    let n_exposures = write_atomically(&run.out.join(EXPOSURES_BY_STEP.path), |file| {
        let mut writer = BatchWriter::new(file, &EXPOSURES_BY_STEP, &footer(run))?;
        for (corpus, order) in &inputs.orders {
            if order.mixture().is_some() {
                writer.write(exposures(run, corpus, order)?)?;
            }
        }
        writer.finish()
    })?;
    progress.end();
    Ok(Planned {
        n_positions,
        n_exposures,
    })
}

/// The columns of `exposures_by_step` for one corpus.
fn exposures(run: &Run, corpus: &str, order: &TrainingOrder) -> Result<Vec<ArrayRef>> {
    let width = order.n_steps().div_ceil(run.bins);
    let ends = (1..=run.bins).map(|bin| bin.saturating_mul(width).min(order.n_steps()));
    let checkpoints = run.models_of(corpus).flat_map(|model| &model.checkpoints);
    let points: BTreeSet<u32> = ends
        .chain(checkpoints.map(|checkpoint| checkpoint.steps))
        .collect();
    let points: Vec<Checkpoint> = points.into_iter().map(Checkpoint::new).collect();
    let counts = order.exposures_by_step(&points)?;
    let mut rows = Vec::new();
    for (point, counts) in points.iter().zip(counts) {
        let n_documents = counts.iter().sum::<u64>().max(1);
        for (exposures, n) in (0_u32..).zip(counts) {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a share of fewer than 2³² documents"
            )]
            let share = n as f64 / n_documents as f64;
            rows.push((point.steps(), exposures, u32::try_from(n)?, share));
        }
    }
    let column = |of: fn(&(u32, u32, u32, f64)) -> u32| -> ArrayRef {
        Arc::new(
            rows.iter()
                .map(|row| Some(of(row)))
                .collect::<UInt32Array>(),
        )
    };
    Ok(vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| corpus))),
        column(|row| row.0),
        column(|row| row.1),
        column(|row| row.2),
        Arc::new(rows.iter().map(|row| Some(row.3)).collect::<Float64Array>()),
    ])
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
