//! Which sequences are probed: the training indices that a corpus' selection stands for.

use crate::config::{Corpus, Run, Selection};
use crate::inputs::Inputs;
use crate::lists::List;
use anyhow::{Context, Result};
use training_order::TrainingOrder;

/// Training indices, ascending and each once; one that cannot be read ends them.
pub(crate) type Indices<'a> = Box<dyn Iterator<Item = Result<u64>> + 'a>;

/// The sequences of `corpus` that are probed.
///
/// # Errors
///
/// When the corpus' list cannot be opened.
pub(crate) fn planned<'a>(
    run: &Run,
    inputs: &'a Inputs,
    corpus: &'a Corpus,
) -> Result<Indices<'a>> {
    let order = order(inputs, corpus)?;
    let batch_size = order.batch_size();
    let whole_step = move |step: u32| {
        let first = u64::from(step) * u64::from(batch_size);
        first..first + u64::from(batch_size)
    };
    Ok(match &corpus.selection {
        Selection::Census => Box::new((0..order.n_sequences()).map(Ok)),
        Selection::Sample(sample) => {
            let steps = (0..order.n_steps()).step_by(sample.every as usize);
            Box::new(
                steps
                    .flat_map(move |step| sample.rows.of_step(step, batch_size))
                    .map(Ok),
            )
        }
        Selection::List(path) => Box::new(List::open(path, order.len())?),
        Selection::Windows(windows) => {
            let ranges = windows.ranges(checkpoints(run, corpus));
            let rows = windows.rows;
            let indices = ranges
                .into_iter()
                .flatten()
                .flat_map(move |step| match rows {
                    Some(rows) => rows.of_step(step, batch_size),
                    None => whole_step(step),
                });
            let end = order.len();
            Box::new(indices.take_while(move |index| *index < end).map(Ok))
        }
    })
}

/// How many that are.
///
/// # Errors
///
/// When the corpus was not opened.
pub(crate) fn n_planned(run: &Run, inputs: &Inputs, corpus: &Corpus) -> Result<u64> {
    let order = order(inputs, corpus)?;
    Ok(match &corpus.selection {
        Selection::Census => order.n_sequences(),
        Selection::Sample(sample) => {
            u64::from(order.n_steps().div_ceil(sample.every)) * u64::from(sample.rows.rows)
        }
        Selection::List(_) => inputs.list_lengths.get(&corpus.name).copied().unwrap_or(0),
        Selection::Windows(_) => n_in_windows(run, corpus) - n_lacking(run, inputs, corpus)?,
    })
}

/// How many sequences of the windows around checkpoints the loader does not serve: those too far beyond the end of
/// training.
///
/// # Errors
///
/// When the corpus was not opened.
pub(crate) fn n_lacking(run: &Run, inputs: &Inputs, corpus: &Corpus) -> Result<u64> {
    let Selection::Windows(windows) = &corpus.selection else {
        return Ok(0);
    };
    let order = order(inputs, corpus)?;
    let batch_size = order.batch_size();
    let ranges = windows.ranges(checkpoints(run, corpus));
    let beyond = ranges
        .into_iter()
        .flatten()
        .skip_while(|step| *step < order.n_steps());
    let lacking = beyond.map(|step| {
        let first = u64::from(step) * u64::from(batch_size);
        let wanted = windows
            .rows
            .map_or(first..first + u64::from(batch_size), |rows| {
                rows.of_step(step, batch_size)
            });
        wanted.end.saturating_sub(order.len().max(wanted.start))
    });
    Ok(lacking.sum())
}

fn n_in_windows(run: &Run, corpus: &Corpus) -> u64 {
    let Selection::Windows(windows) = &corpus.selection else {
        return 0;
    };
    let rows = windows.rows.map_or(corpus.batch_size, |rows| rows.rows);
    let ranges = windows.ranges(checkpoints(run, corpus)).into_iter();
    ranges
        .map(|steps| u64::from(steps.end - steps.start) * u64::from(rows))
        .sum()
}

/// The checkpoints of the models that are probed with the corpus.
fn checkpoints(run: &Run, corpus: &Corpus) -> Vec<u32> {
    run.models_of(&corpus.name)
        .flat_map(|model| &model.checkpoints)
        .map(|checkpoint| checkpoint.steps)
        .collect()
}

fn order<'a>(inputs: &'a Inputs, corpus: &Corpus) -> Result<&'a TrainingOrder> {
    let order = inputs.orders.get(&corpus.name);
    order.context("the corpus was opened")
}
