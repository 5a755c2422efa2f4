//! `[memorization-by-time]` and `[trend]`: how verdicts are summed up. Stands in the metadata of `memorization`, so that it can be
//! analysed alone.

use super::Problems;
use super::run_file::{TimeTable, TrendTable};
use serde::{Deserialize, Serialize};

/// How verdicts are summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Analysis {
    /// Of `memorization_by_time`.
    pub(crate) time: TimeBins,
    pub(crate) interval: Interval,
    /// Most exposures of each exposure stratum but the last, ascending.
    pub(crate) exposures: Vec<u32>,
    /// Margins of equivalence beside 1.05 and 1.10, ascending.
    pub(crate) margins: Vec<f64>,
    /// Permutations behind a p value.
    pub(crate) permutations: u32,
    /// Of the permutations.
    pub(crate) seed: u32,
}

/// Bins of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TimeBins {
    /// Each of so many steps.
    Steps(u32),
    /// So many over the steps of a training run.
    Bins(u32),
}

/// Intervals of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Interval {
    #[default]
    Wilson,
    Exact,
}

impl TimeBins {
    /// Steps of a bin of a run of `n_steps`; the last bin may have fewer.
    pub(crate) fn width(self, n_steps: u32) -> u32 {
        match self {
            Self::Steps(width) => width,
            Self::Bins(bins) => n_steps.div_ceil(bins).max(1),
        }
    }
}

/// An analysis whose values fit together.
pub(super) fn check_analysis(
    time: &TimeTable,
    trend: TrendTable,
    problems: &mut Problems,
) -> Analysis {
    let TimeTable {
        steps,
        bins,
        interval,
    } = *time;
    let TrendTable {
        exposures,
        margins,
        permutations,
        seed,
    } = trend;
    let time = match (steps, bins) {
        (Some(_), Some(_)) => {
            problems.add("memorization-by-time", "give `steps` or `bins`, not both");
            TimeBins::Steps(1)
        }
        (None, Some(bins)) => {
            TimeBins::Bins(problems.within("memorization-by-time.bins", bins, 1, 1 << 20))
        }
        (steps, None) => {
            let steps = steps.unwrap_or(1000);
            let most = i32::MAX.unsigned_abs();
            TimeBins::Steps(problems.within("memorization-by-time.steps", steps, 1, most))
        }
    };
    let exposures = exposures.unwrap_or_else(|| vec![1, 5]);
    if exposures.first() == Some(&0) || exposures.windows(2).any(|pair| pair[0] >= pair[1]) {
        problems.add("trend.exposures", "the numbers must ascend from 1 or above");
    }
    let mut margins = margins;
    margins.sort_by(f64::total_cmp);
    for margin in &margins {
        problems.within("trend.margins", *margin, 1.01, 100.0);
    }
    Analysis {
        time,
        interval,
        exposures,
        margins,
        permutations: problems.within(
            "trend.permutations",
            permutations.unwrap_or(999),
            0,
            1_000_000,
        ),
        seed: seed.unwrap_or(1),
    }
}
