//! What the columns of a row of `memorization` must say of one another, whichever program wrote it.

use super::CorpusFacts;
use super::block::Block;
use super::source::CURE;
use crate::door::Verdict;
use anyhow::Result;
use arrow_array::{Array, BooleanArray, Float32Array, PrimitiveArray, UInt16Array};
use std::collections::BTreeMap;

/// Steps are counted in 31 bits.
const MOST_STEPS: u32 = i32::MAX.unsigned_abs();

/// What the table's metadata says that its rows are held to.
pub(super) struct Facts<'a> {
    pub(super) l: u16,
    pub(super) corpora: &'a BTreeMap<String, CorpusFacts>,
}

/// Holds every row of a block to `facts` and to its other columns.
///
/// # Errors
///
/// At the first row that contradicts itself.
pub(super) fn check(block: &Block, facts: &Facts<'_>) -> Result<()> {
    let key = &block.key;
    let Some(corpus) = facts.corpora.get(&key.corpus) else {
        let known: Vec<&str> = facts.corpora.keys().map(String::as_str).collect();
        return Err(block.wrong(
            0,
            format_args!(
                "`corpus` is `{}`, which the metadata does not know",
                key.corpus
            ),
            format_args!("its corpora: {}", known.join(", ")),
        ));
    };
    if key.checkpoint > MOST_STEPS {
        let problem = format!("`checkpoint` is {}, above {MOST_STEPS}", key.checkpoint);
        return Err(block.wrong(0, problem, CURE));
    }
    for row in 0..block.step.len() {
        let wrong = |problem: String| block.wrong(row, problem, CURE);
        check_time(block, row, corpus).map_err(wrong)?;
        verdict(block, row)
            .check(facts.l)
            .map_err(|(problem, _)| wrong(problem))?;
        let rate = at_f32(&block.learning_rate, row);
        if let Some(rate) = rate.filter(|rate| !rate.is_finite() || *rate < 0.0) {
            return Err(wrong(format!("`learning_rate` is {rate}")));
        }
        let exposures = block.exposures.iter();
        let n_known = exposures.filter(|counts| counts.is_valid(row)).count();
        if !matches!(n_known, 0 | 3) {
            return Err(wrong(
                "some of `exposures_before`, `exposures_after` and `exposures_same_step` are null and some not".to_owned(),
            ));
        }
    }
    Ok(())
}

/// When the sequence was met, by its columns.
fn check_time(block: &Block, row: usize, corpus: &CorpusFacts) -> Result<(), String> {
    let (index, step) = (block.training_index.value(row), block.step.value(row));
    let checkpoint = block.key.checkpoint;
    if step > MOST_STEPS {
        return Err(format!("`step` is {step}, above {MOST_STEPS}"));
    }
    if let Some(size) = corpus.batch_size
        && index / size != step
    {
        return Err(format!(
            "`step` is {step} at the training index {index}, in batches of {size}"
        ));
    }
    let trained = block.trained.value(row);
    if trained != (step < corpus.steps) {
        return Err(format!(
            "`trained` is {trained} at step {step} of {} steps",
            corpus.steps
        ));
    }
    match (flag(&block.seen, row), at(&block.lag, row)) {
        (None, None) => Ok(()),
        (Some(seen), Some(lag)) => {
            if seen != (step < checkpoint) {
                return Err(format!(
                    "`seen` is {seen} at step {step} and checkpoint {checkpoint}"
                ));
            }
            if i64::from(lag) != i64::from(checkpoint) - i64::from(step) {
                return Err(format!(
                    "`lag` is {lag} at step {step} and checkpoint {checkpoint}"
                ));
            }
            Ok(())
        }
        _ => Err("one of `seen` and `lag` is null and the other not".to_owned()),
    }
}

fn verdict(block: &Block, row: usize) -> Verdict {
    let [n_prefix_matched, n_matched, n_top1] =
        block.counts.each_ref().map(|counts| count(counts, row));
    Verdict {
        n_prefix_matched,
        memorized: flag(&block.memorized, row),
        margin: at_f32(&block.margin, row),
        near_tie: None,
        n_matched,
        surprisal: at_f32(&block.surprisal, row),
        logp_suffix: at_f32(&block.logp_suffix, row),
        n_top1,
    }
}

fn at<T: arrow_array::ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    row: usize,
) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

fn at_f32(column: &Float32Array, row: usize) -> Option<f32> {
    at(column, row)
}

fn count(column: &UInt16Array, row: usize) -> Option<u16> {
    at(column, row)
}

fn flag(column: &BooleanArray, row: usize) -> Option<bool> {
    column.is_valid(row).then(|| column.value(row))
}
