//! The rows of `memorization_by_time`.

use super::group::{Group, Key, exposure_names, merged};
use crate::config::{Analysis, Interval};
use pipeline::statistics::{StepCount, exact_interval, wilson_interval};
use std::ops::Range;

/// One bin of steps.
pub(super) struct ByTimeRow {
    pub(super) key: Key,
    pub(super) exposures: String,
    pub(super) bin: u32,
    pub(super) step_lo: u32,
    pub(super) step_hi: u32,
    pub(super) seen: Option<bool>,
    pub(super) n: u32,
    pub(super) n_memorized: u32,
    pub(super) rate: f64,
    pub(super) interval: (f64, f64),
}

/// The rows of a group whose corpus was trained on for `n_steps`: of all its probes and of each exposure stratum.
///
/// Bin `b` holds the steps `b·w … (b+1)·w − 1`. What the checkpoint had seen and what not are apart, so that the bin that holds
/// the checkpoint is cut there.
pub(super) fn by_time(group: &Group, analysis: &Analysis, n_steps: u32) -> Vec<ByTimeRow> {
    let width = analysis.time.width(n_steps);
    let mut strata = vec![("all".to_owned(), None)];
    let exposed = group.cells.iter().any(|cell| cell.exposures.is_some());
    if exposed {
        let names = exposure_names(&analysis.exposures).into_iter();
        strata.extend(names.enumerate().map(|(number, name)| (name, Some(number))));
    }
    // As text sorts.
    strata.sort();
    let mut rows = Vec::new();
    for (name, number) in strata {
        let mut bins = Vec::new();
        for seen in [Some(true), Some(false), None] {
            let cells = group
                .cells
                .iter()
                .filter(|cell| cell.seen == seen && (number.is_none() || cell.exposures == number));
            let steps = merged(cells.map(|cell| cell.steps.as_slice()));
            // Samples beyond the run's end are apart, too.
            let place = |count: &StepCount| (count.step / width, count.step < n_steps);
            for steps in steps.chunk_by(|a, b| place(a) == place(b)) {
                let bin = steps[0].step / width;
                let sum = |of: fn(&StepCount) -> u32| steps.iter().map(of).sum::<u32>();
                let (n, hits) = (sum(|count| count.n), sum(|count| count.hits));
                let run = if steps[0].step < n_steps {
                    0..n_steps
                } else {
                    n_steps..u32::MAX
                };
                let (step_lo, step_hi) = steps_of(bin, width, run, group.key.checkpoint, seen);
                bins.push(ByTimeRow {
                    key: group.key.clone(),
                    exposures: name.clone(),
                    bin,
                    step_lo,
                    step_hi,
                    seen,
                    n,
                    n_memorized: hits,
                    rate: f64::from(hits) / f64::from(n),
                    interval: match analysis.interval {
                        Interval::Wilson => wilson_interval(hits, n),
                        Interval::Exact => exact_interval(hits, n),
                    },
                });
            }
        }
        bins.sort_by_key(|row| (row.step_lo, row.seen));
        rows.extend(bins);
    }
    rows
}

/// The steps of bin `bin` within `run`, half-open; only those seen, or not seen, by the checkpoint.
fn steps_of(
    bin: u32,
    width: u32,
    run: Range<u32>,
    checkpoint: u32,
    seen: Option<bool>,
) -> (u32, u32) {
    let lo = (bin * width).max(run.start);
    let hi = (bin * width).saturating_add(width).min(run.end);
    match seen {
        Some(true) => (lo, hi.min(checkpoint)),
        Some(false) => (lo.max(checkpoint), hi),
        None => (lo, hi),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_that_holds_the_checkpoint_is_cut_there() {
        // 10 steps in bins of 4: 0–3, 4–7 and 8–9.
        assert_eq!(steps_of(0, 4, 0..10, 6, Some(true)), (0, 4));
        assert_eq!(steps_of(1, 4, 0..10, 6, Some(true)), (4, 6));
        assert_eq!(steps_of(1, 4, 0..10, 6, Some(false)), (6, 8));
        assert_eq!(steps_of(2, 4, 0..10, 6, Some(false)), (8, 10));
        assert_eq!(steps_of(1, 4, 0..10, 6, None), (4, 8));
        assert_eq!(steps_of(2, 4, 10..u32::MAX, 6, Some(false)), (10, 12));
    }
}
