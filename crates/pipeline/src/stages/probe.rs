//! `probe`: what does the model continue with? Writes `verdicts`, part by part.

use super::footer;
use super::sets::{ProbeSet, probe_sets};
use super::units::{self, Planned, State, Unit};
use crate::config::{Corpus, Run};
use crate::inputs::Inputs;
use crate::judges::{Court, Judged, Recheck};
use crate::progress::Progress;
use crate::tables::{BatchWriter, VERDICTS, write_atomically};
use anyhow::{Context, Result};
use arrow_array::{ArrayRef, BooleanArray, Float32Array, StringArray, UInt16Array, UInt32Array};
use gpt_neox::{Likelihood, Probes};
use std::collections::BTreeMap;
use std::sync::Arc;
use training_order::{TrainingIndex, TrainingOrder};

/// What the stage did.
pub(crate) struct Probed {
    /// Verdicts that are there now.
    pub(crate) n_verdicts: u64,
    /// Those among them that an earlier run had left.
    pub(crate) n_resumed: u64,
    /// Those that this run judged twice.
    pub(crate) recheck: Recheck,
    /// The fewest probes that a device decided about together; None where all verdicts were there.
    pub(crate) batch_size: Option<usize>,
}

/// The units of a set that are still to do.
struct Task<'a> {
    set: ProbeSet<'a>,
    units: Vec<Unit>,
}

/// Writes every part that is not there yet.
///
/// # Errors
///
/// When a part of another run lies in the way, an input cannot be read, the judge fails, or a part cannot
/// be written. Parts finished before stay.
pub(crate) fn probe(run: &Run, inputs: &Inputs) -> Result<Probed> {
    let (tasks, n_resumed) = open_tasks(run, inputs)?;
    let n_missing: usize = tasks
        .iter()
        .flat_map(|task| &task.units)
        .map(|unit| unit.training_indices.len())
        .sum();
    let n_verdicts = n_missing as u64 + n_resumed;
    let mut progress = Progress::begin("probe", n_verdicts);
    progress.skip(n_resumed);
    let mut recheck = Recheck::default();
    let mut batch_size: Option<usize> = None;
    let mut tasks: Vec<Task<'_>> = tasks
        .into_iter()
        .filter(|task| !task.units.is_empty())
        .collect();
    // A checkpoint is loaded once, whatever the corpora it is asked of.
    tasks.sort_by_key(|task| (&task.set.model.name, task.set.checkpoint.steps));
    for tasks in tasks.chunk_by(|a, b| std::ptr::eq(a.set.checkpoint, b.set.checkpoint)) {
        let mut court = Court::open(run, tasks[0].set.checkpoint)?;
        for task in tasks {
            let place = task.set.place();
            progress.working_on(place.clone());
            let order = inputs
                .orders
                .get(&task.set.corpus.name)
                .context("the corpus was opened")?;
            for unit in &task.units {
                let verdicts = judge_unit(run, order, &mut court, unit, &progress)
                    .with_context(|| format!("probing {}", task.set.name()))?;
                write_part(run, task.set.corpus, unit, &verdicts)?;
                let part = unit
                    .path
                    .file_stem()
                    .map(|stem| stem.to_string_lossy())
                    .unwrap_or_default();
                progress.finished(&format!("{place} {part}"));
            }
        }
        recheck.n += court.recheck.n;
        recheck.n_changed += court.recheck.n_changed;
        batch_size = batch_size.into_iter().chain(court.batch_size).min();
    }
    progress.end();
    Ok(Probed {
        n_verdicts,
        n_resumed,
        recheck,
        batch_size,
    })
}

/// The work left, and the number of verdicts that are there already. Every part is looked at before any
/// work begins, so that one of another run is refused in the first second.
fn open_tasks<'a>(run: &'a Run, inputs: &Inputs) -> Result<(Vec<Task<'a>>, u64)> {
    let mut planned: BTreeMap<&str, Planned> = BTreeMap::new();
    for corpus in &run.corpora {
        planned.insert(&corpus.name, units::planned(run, &corpus.name)?);
    }
    let mut tasks = Vec::new();
    let mut n_resumed = 0;
    for set in probe_sets(run) {
        let mut missing = Vec::new();
        for unit in units::cut(run, inputs, &set, &planned[set.corpus.name.as_str()])? {
            match unit.state()? {
                State::Finished => n_resumed += unit.training_indices.len() as u64,
                State::Missing => missing.push(unit),
            }
        }
        tasks.push(Task {
            set,
            units: missing,
        });
    }
    Ok((tasks, n_resumed))
}

fn judge_unit(
    run: &Run,
    order: &TrainingOrder,
    court: &mut Court,
    unit: &Unit,
    progress: &Progress,
) -> Result<Vec<Judged>> {
    let (k, l, offset) = (run.probe.k, run.probe.l, u32::from(run.probe.offset));
    let end = offset + u32::from(k) + u32::from(l);
    let mut verdicts = Vec::with_capacity(unit.training_indices.len());
    let mut tokens = Vec::new();
    let n_at_once = court.n_at_once((end - offset) as usize);
    for chunk in unit.training_indices.chunks(n_at_once) {
        tokens.clear();
        order.check_unchanged()?;
        for &index in chunk {
            order.read_tokens(
                TrainingIndex::new(u64::from(index)),
                offset..end,
                &mut tokens,
            )?;
        }
        let probes = Probes::new(&tokens, usize::from(k), usize::from(l))?;
        let (first, last) = (
            chunk.first().copied().unwrap_or(0),
            chunk.last().copied().unwrap_or(0),
        );
        let judged = court
            .judge(&probes, unit.likelihood)
            .with_context(|| format!("the probes of the training indices {first} to {last}"))?;
        verdicts.extend(judged);
        progress.advance(chunk.len() as u64);
    }
    Ok(verdicts)
}

fn write_part(run: &Run, corpus: &Corpus, unit: &Unit, judged: &[Judged]) -> Result<()> {
    let l = usize::from(run.probe.l);
    let mut footer = footer(run);
    footer
        .0
        .insert("fingerprint".to_owned(), unit.fingerprint.clone());
    let weights = unit.weights.clone();
    footer
        .0
        .extend(weights.map(|weights| ("weights".to_owned(), weights)));
    let verdicts = || judged.iter().map(|judged| judged.verdict);
    let memorized = verdicts().map(|verdict| Some(verdict.memorized(l)));
    let near_tie = judged.iter().map(|judged| Some(judged.near_tie));
    let likelihood = |value: fn(Likelihood) -> f32| -> ArrayRef {
        let values = verdicts().map(|verdict| verdict.likelihood.map(value));
        Arc::new(values.collect::<Float32Array>())
    };
    let n_top1 = verdicts().map(|verdict| verdict.likelihood.map(|likelihood| likelihood.n_top1));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            judged.iter().map(|_| &corpus.name),
        )),
        Arc::new(UInt32Array::from(unit.training_indices.clone())),
        Arc::new(UInt16Array::from_iter_values(
            verdicts().map(|verdict| verdict.n_prefix_matched),
        )),
        Arc::new(memorized.collect::<BooleanArray>()),
        Arc::new(Float32Array::from_iter_values(
            verdicts().map(|verdict| verdict.margin),
        )),
        Arc::new(near_tie.collect::<BooleanArray>()),
        Arc::new(
            verdicts()
                .map(|verdict| verdict.n_matched)
                .collect::<UInt16Array>(),
        ),
        likelihood(|likelihood| likelihood.surprisal),
        likelihood(|likelihood| likelihood.logp_suffix),
        Arc::new(n_top1.collect::<UInt16Array>()),
    ];
    write_atomically(&unit.path, |file| {
        let mut writer = BatchWriter::new(file, &VERDICTS, &footer)?;
        writer.write(columns)?;
        writer.finish()?;
        Ok(())
    })
}
