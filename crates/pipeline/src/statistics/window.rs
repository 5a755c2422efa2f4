//! Counts by step: the observed window, its bins, and what they decide.

use super::{Bin, RateRatio, rate_ratio};

/// Bins of the trend: one for each 1,000 steps of Pythia.
const MOST_BINS: u32 = 143;
/// Fewer hits than these in a bin on average make fewer bins, down to [`FEWEST_BINS`].
const HITS_PER_BIN: u64 = 5;
const FEWEST_BINS: u32 = 10;

/// The probes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCount {
    /// Counted from 0.
    pub step: u32,
    /// Probes.
    pub n: u32,
    /// Memorized ones.
    pub hits: u32,
}

/// Probes counted by step; time runs from the first of the steps to behind the last.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    steps: &'a [StepCount],
}

impl<'a> Window<'a> {
    /// The window of ascending steps.
    pub fn new(steps: &'a [StepCount]) -> Self {
        debug_assert!(steps.is_sorted_by(|a, b| a.step < b.step));
        Self { steps }
    }

    /// The first step, and the one behind the last.
    pub fn ends(&self) -> (u32, u32) {
        let first = self.steps.first().map_or(0, |count| count.step);
        let last = self.steps.last().map_or(0, |count| count.step);
        (first, last + 1)
    }

    /// Hits and probes.
    pub fn total(&self) -> (u64, u64) {
        self.counts(|_| true)
    }

    /// Hits and probes of the first `share` of the window.
    pub fn first(&self, share: f64) -> (u64, u64) {
        self.counts(|place| place < share)
    }

    /// Hits and probes after the first `share` of the window.
    pub fn rest(&self, share: f64) -> (u64, u64) {
        self.counts(|place| place >= share)
    }

    /// The second half over the first.
    pub fn halves(&self) -> Option<RateRatio> {
        rate_ratio(self.first(0.5), self.rest(0.5))
    }

    /// Bins of equally many steps, the last of fewer; those without probes are left out.
    pub fn bins(&self) -> Vec<Bin> {
        let (lo, hi) = self.ends();
        let enough = u32::try_from(self.total().0 / HITS_PER_BIN).unwrap_or(u32::MAX);
        let width = (hi - lo).div_ceil(enough.clamp(FEWEST_BINS, MOST_BINS));
        let same_bin =
            |a: &StepCount, b: &StepCount| (a.step - lo) / width == (b.step - lo) / width;
        let bins = self.steps.chunk_by(same_bin).map(|steps| {
            let first = lo + (steps[0].step - lo) / width * width;
            let sum =
                |of: fn(&StepCount) -> u32| steps.iter().map(|count| f64::from(of(count))).sum();
            Bin {
                t: self.place(first, (first + width).min(hi) - 1) - 0.5,
                n: sum(|count| count.n),
                hits: sum(|count| count.hits),
            }
        });
        bins.collect()
    }

    /// Every step as a bin.
    pub fn by_step(&self) -> Vec<Bin> {
        let bin = |count: &StepCount| Bin {
            t: self.place(count.step, count.step) - 0.5,
            n: f64::from(count.n),
            hits: f64::from(count.hits),
        };
        self.steps.iter().map(bin).collect()
    }

    /// Where in the window the middle of some steps lies, 0 … 1.
    fn place(&self, first: u32, last: u32) -> f64 {
        let (lo, hi) = self.ends();
        (f64::midpoint(f64::from(first), f64::from(last)) + 0.5 - f64::from(lo))
            / f64::from(hi - lo)
    }

    /// Hits and probes of the steps whose place is wanted.
    fn counts(&self, wanted: impl Fn(f64) -> bool) -> (u64, u64) {
        let steps = self
            .steps
            .iter()
            .filter(|count| wanted(self.place(count.step, count.step)));
        steps.fold((0, 0), |(hits, n), count| {
            (hits + u64::from(count.hits), n + u64::from(count.n))
        })
    }
}
