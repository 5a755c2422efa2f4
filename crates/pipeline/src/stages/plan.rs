//! `plan`: when was each sequence trained on? Writes `positions` and `exposures_by_step`.

pub(crate) mod kept;
mod met;

pub(super) use met::Met;

use super::planned::{n_planned, planned};
use super::{footer, footer_of_probes};
use crate::config::{Corpus, Run};
use crate::inputs::Inputs;
use crate::mark::Mark;
use crate::progress::Progress;
use crate::tables::{BatchWriter, EXPOSURES_BY_STEP, Footer, POSITIONS, Pending, Staged, stage};
use anyhow::{Context, Result};
use arrow_array::{ArrayRef, BooleanArray, Float64Array, StringArray, UInt32Array};
use std::collections::BTreeSet;
use std::sync::Arc;
use training_order::{Checkpoint, TrainingIndex, TrainingOrder};

/// Sequences written at once.
const BATCH: usize = 1 << 18;

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
pub(crate) fn plan(run: &Run, inputs: &Inputs, pending: &mut Pending) -> Result<Planned> {
    let mut footers = [footer_of_probes(run), footer(run)];
    let fingerprints = [
        kept::of_positions(run, inputs)?,
        kept::of_exposures(run, inputs)?,
    ];
    for (footer, fingerprint) in footers.iter_mut().zip(fingerprints) {
        footer.0.insert(kept::KEY.to_owned(), fingerprint);
    }
    let [footer, footer_of_exposures] = footers;
    let n_kept = kept::rows(run, &POSITIONS, &footer)?;
    let n_exposures_kept = kept::rows(run, &EXPOSURES_BY_STEP, &footer_of_exposures)?;
    if let (Some(n_positions), Some(n_exposures)) = (n_kept, n_exposures_kept) {
        return Ok(Planned {
            n_positions,
            n_exposures,
        });
    }
    let (positions, exposures) = rayon::join(
        || write_positions(run, inputs, &footer),
        || write_exposures(run, inputs, &footer_of_exposures),
    );
    let ((n_positions, positions), (n_exposures, exposures)) = (positions?, exposures?);
    // What was read is what was fingerprinted.
    inputs.check_unchanged()?;
    pending.add(positions)?;
    pending.add(exposures)?;
    Ok(Planned {
        n_positions,
        n_exposures,
    })
}

fn write_positions(run: &Run, inputs: &Inputs, footer: &Footer) -> Result<(u64, Staged)> {
    let n_planned = run
        .corpora
        .iter()
        .map(|corpus| n_planned(run, inputs, corpus))
        .sum::<Result<u64>>()?;
    let progress = Progress::begin("plan", n_planned);
    let path = run.out.join(POSITIONS.path);
    let written = stage(&path, Mark::Table(POSITIONS.name), |file| {
        let mut writer = BatchWriter::new(file, &POSITIONS, footer)?;
        // By name, as the table is sorted.
        for (corpus, order) in &inputs.orders {
            progress.working_on(corpus.clone());
            let selected = run.corpus(corpus).context("the corpus is of the run")?;
            let met = met(run, inputs, selected, order)?;
            let mut n_written = 0;
            let mut planned = planned(run, inputs, selected)?;
            loop {
                let some = planned.by_ref().take(BATCH).collect::<Result<Vec<u64>>>()?;
                if some.is_empty() {
                    break;
                }
                let mut columns = positions(selected, order, &some)?;
                columns.extend(met.columns(n_written..n_written + some.len()));
                writer.write(columns)?;
                n_written += some.len();
                progress.advance(some.len() as u64);
            }
            progress.finished(corpus);
        }
        writer.finish()
    })?;
    progress.end();
    Ok(written)
}

fn write_exposures(run: &Run, inputs: &Inputs, footer: &Footer) -> Result<(u64, Staged)> {
    let path = run.out.join(EXPOSURES_BY_STEP.path);
    stage(&path, Mark::Table(EXPOSURES_BY_STEP.name), |file| {
        let mut writer = BatchWriter::new(file, &EXPOSURES_BY_STEP, footer)?;
        for (corpus, order) in &inputs.orders {
            if order.mixture().is_some() {
                writer.write(exposures(run, corpus, order)?)?;
            }
        }
        writer.finish()
    })
}

/// What the run meets of the probes of one corpus, where the run file asks.
fn met(run: &Run, inputs: &Inputs, corpus: &Corpus, order: &TrainingOrder) -> Result<Met> {
    if !corpus.exposures {
        return Ok(Met::nothing());
    }
    let probes = planned(run, inputs, corpus)?.map(|index| Ok(TrainingIndex::new(index?)));
    Met::count(order, &run.probe, &probes.collect::<Result<Vec<_>>>()?)
        .with_context(|| format!("counting exposures in the corpus `{}`", corpus.name))
}

/// The columns of `exposures_by_step` for one corpus.
fn exposures(run: &Run, corpus: &str, order: &TrainingOrder) -> Result<Vec<ArrayRef>> {
    let width = run.analysis.time.width(order.n_steps());
    let n_bins = order.n_steps().div_ceil(width);
    let ends = (1..=n_bins).map(|bin| bin.saturating_mul(width).min(order.n_steps()));
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

/// The columns of `positions` for these training indices of `corpus`, up to the exposures.
pub(super) fn positions(
    corpus: &Corpus,
    order: &TrainingOrder,
    planned: &[u64],
) -> Result<Vec<ArrayRef>> {
    let indices = || planned.iter().copied().map(TrainingIndex::new);
    let places: Vec<_> = indices().map(|index| order.position(index)).collect();
    let narrow = |number: &u64| {
        u32::try_from(*number).with_context(|| format!("{number} does not fit a u32 column"))
    };
    let training_index: Vec<u32> = planned.iter().map(narrow).collect::<Result<_>>()?;
    let sample = indices()
        .map(|index| order.sample(index))
        .collect::<UInt32Array>();
    let contrast = places.iter().map(|place| Some(corpus.in_contrast(*place)));
    let trained = indices().map(|index| Some(order.consumes(index)));
    Ok(vec![
        Arc::new(StringArray::from_iter_values(
            places.iter().map(|_| &corpus.name),
        )),
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
        Arc::new(trained.collect::<BooleanArray>()),
        Arc::new(contrast.collect::<BooleanArray>()),
    ])
}
