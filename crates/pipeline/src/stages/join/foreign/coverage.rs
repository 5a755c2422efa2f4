//! Verdicts of another program against the plan: every row must be about a probe of the run, and
//! what is left out is counted.

use super::{ForeignVerdicts, Judged};
use crate::config::{Corpus, Run};
use crate::failure;
use crate::inputs::Inputs;
use crate::progress;
use crate::stages::planned::planned;
use crate::stages::sets::{ProbeSet, probe_sets};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use training_order::TrainingIndex;

/// Checkpoints that a line names; of more, only the number is said.
const NAMED: usize = 8;

/// The probes of one corpus.
struct Plan {
    /// Training indices, ascending and apart.
    ranges: Vec<Range<u64>>,
    n: u64,
    /// The same of the corpus' contrast.
    contrast: Vec<Range<u64>>,
    n_contrast: u64,
}

/// Holds the verdicts of other programs against the plan of `run`, and says which probes and which
/// rows are left out.
///
/// # Errors
///
/// When a verdict is about a sequence that the run does not probe.
pub(crate) fn check_coverage(run: &Run, inputs: &Inputs) -> Result<()> {
    let sets = probe_sets(run);
    let mut plans = BTreeMap::new();
    for (model, verdicts) in &inputs.foreign {
        let mut lacking: BTreeMap<(&str, u64, u64), Vec<u32>> = BTreeMap::new();
        for set in sets.iter().filter(|set| set.model.name == *model) {
            let corpus = set.corpus.name.as_str();
            if !inputs.orders.contains_key(corpus) {
                // Not fetched yet.
                continue;
            }
            if !plans.contains_key(corpus) {
                plans.insert(corpus, Plan::of(run, inputs, set.corpus)?);
            }
            let key = (corpus.to_owned(), set.checkpoint.steps);
            if let (Some(plan), Some(judged)) = (plans.get(corpus), verdicts.sets.get(&key)) {
                plan.check(verdicts, set, judged)?;
                let (n, n_planned) = plan.lacking(set, judged);
                if n > 0 {
                    let checkpoints = lacking.entry((corpus, n, n_planned)).or_default();
                    checkpoints.push(set.checkpoint.steps);
                }
            }
        }
        verdicts.say(model, &lacking);
    }
    Ok(())
}

impl ForeignVerdicts {
    fn say(&self, model: &str, lacking: &BTreeMap<(&str, u64, u64), Vec<u32>>) {
        let path = self.path.display();
        for ((corpus, n, n_planned), checkpoints) in lacking {
            let named = checkpoints.iter().take(NAMED).map(u32::to_string);
            let named = named.collect::<Vec<_>>().join(", ");
            let further = match checkpoints.len().saturating_sub(NAMED) {
                0 => String::new(),
                further => format!(" and {further} more"),
            };
            let s = if checkpoints.len() > 1 { "s" } else { "" };
            progress::say(&format!(
                "warning: `{path}` has no verdict on {} of {} probes of `{corpus}` for `{model}` at checkpoint{s} {named}{further}",
                count(*n),
                count(*n_planned)
            ));
        }
        let left_out = &self.left_out;
        if left_out.n_rows > 0 {
            progress::say(&format!(
                "warning: `{path}`: {} rows of {} checkpoints that the run file does not name for `{model}` are left out",
                count(left_out.n_rows),
                count(left_out.checkpoints.len() as u64)
            ));
        }
        if left_out.n_of_corpora > 0 {
            progress::say(&format!(
                "warning: `{path}`: {} rows of corpora that `{model}` is not asked about are left out",
                count(left_out.n_of_corpora)
            ));
        }
    }
}

fn count(n: u64) -> indicatif::HumanCount {
    indicatif::HumanCount(n)
}

impl Plan {
    fn of(run: &Run, inputs: &Inputs, corpus: &Corpus) -> Result<Self> {
        let order = inputs.orders.get(&corpus.name);
        let order = order.context("the corpus was opened")?;
        let mut plan = Self {
            ranges: Vec::new(),
            n: 0,
            contrast: Vec::new(),
            n_contrast: 0,
        };
        for index in planned(run, inputs, corpus)? {
            let index = index?;
            push(&mut plan.ranges, index);
            plan.n += 1;
            if corpus.contrast.is_some()
                && corpus.in_contrast(order.position(TrainingIndex::new(index)))
            {
                push(&mut plan.contrast, index);
                plan.n_contrast += 1;
            }
        }
        Ok(plan)
    }

    fn check(&self, verdicts: &ForeignVerdicts, set: &ProbeSet<'_>, judged: &Judged) -> Result<()> {
        let mut rows = judged.training_index.iter().zip(&judged.row);
        match rows.find(|(index, _)| !holds(&self.ranges, **index)) {
            None => Ok(()),
            Some((index, row)) => Err(failure::failed(
                format_args!(
                    "`{}`, row {row} (counted from 0): the training index {index} of `{}` is not among the positions that the run probes",
                    verdicts.path.display(),
                    set.corpus.name
                ),
                "leave the row out, or let the run file's selection of sequences hold it",
            )),
        }
    }

    /// Probes of a set without a verdict, and all of its probes.
    fn lacking(&self, set: &ProbeSet<'_>, judged: &Judged) -> (u64, u64) {
        if set.own {
            // Every verdict is about one of them.
            return (self.n.saturating_sub(judged.row.len() as u64), self.n);
        }
        let found = judged.training_index.iter();
        let found = found.filter(|index| holds(&self.contrast, **index)).count() as u64;
        (self.n_contrast.saturating_sub(found), self.n_contrast)
    }
}

fn push(ranges: &mut Vec<Range<u64>>, index: u64) {
    match ranges.last_mut() {
        Some(last) if last.end == index => last.end += 1,
        _ => ranges.push(index..index + 1),
    }
}

fn holds(ranges: &[Range<u64>], index: u32) -> bool {
    let index = u64::from(index);
    let place = ranges.partition_point(|range| range.end <= index);
    ranges
        .get(place)
        .is_some_and(|range| range.contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_was_pushed() {
        let mut ranges = Vec::new();
        let pushed = [0, 1, 2, 7, 9, 10];
        for index in pushed {
            push(&mut ranges, index);
        }
        assert_eq!(ranges, [0..3, 7..8, 9..11]);
        for index in 0..12 {
            let is_there = pushed.contains(&u64::from(index));
            assert_eq!(holds(&ranges, index), is_there, "{index}");
        }
    }
}
