//! `[memorization-by-time]` and `[trend]`: how verdicts are summed up. It stands in the metadata of
//! `memorization`, too, so that the table can be analysed alone.

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

/// Bins of a run at the most.
const MOST_BINS: u32 = 1 << 20;
/// Steps are counted in 31 bits.
const MOST_STEPS: u32 = i32::MAX.unsigned_abs();
const MOST_PERMUTATIONS: u32 = 1_000_000;
/// Exposure strata, the last one included.
const MOST_STRATA: usize = 64;
/// Margins that every table has.
const OWN_MARGINS: [f64; 2] = [1.05, 1.10];

impl Analysis {
    /// What is wrong with it: keys as the run file names them, each with its problem. The same
    /// limits hold for a run file and for the metadata of a table.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut within = |key, value: u32, lo: u32, hi: u32| {
            if !(lo..=hi).contains(&value) {
                problems.push((key, format!("{value} is not in {lo} … {hi}")));
            }
        };
        match self.time {
            TimeBins::Steps(steps) => within("memorization-by-time.steps", steps, 1, MOST_STEPS),
            TimeBins::Bins(bins) => within("memorization-by-time.bins", bins, 1, MOST_BINS),
        }
        let permutations = self.permutations;
        within("trend.permutations", permutations, 0, MOST_PERMUTATIONS);
        problems.extend(exposure_problems(&self.exposures));
        problems.extend(margin_problems(&self.margins));
        problems
    }
}

fn exposure_problems(exposures: &[u32]) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let mut add = |problem: String| problems.push(("trend.exposures", problem));
    if exposures.first() == Some(&0) || exposures.windows(2).any(|pair| pair[0] >= pair[1]) {
        add("the numbers must ascend from 1 or above".to_owned());
    }
    if let Some(most) = exposures.iter().max().filter(|most| **most > MOST_STEPS) {
        add(format!("{most} is not in 1 … {MOST_STEPS}"));
    }
    if exposures.len() >= MOST_STRATA {
        let most = MOST_STRATA - 1;
        add(format!(
            "there are {} numbers, at most {most} are possible",
            exposures.len()
        ));
    }
    problems
}

fn margin_problems(margins: &[f64]) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let mut add = |problem: String| problems.push(("trend.margins", problem));
    // A margin that is no number is in no range.
    let in_range = |margin: &f64| (1.01..=100.0).contains(margin);
    for margin in margins.iter().filter(|margin| !in_range(margin)) {
        add(format!("{margin} is not in 1.01 … 100"));
    }
    // A column is named by two decimal places.
    let name = |margin: &f64| format!("{margin:.2}");
    for (place, margin) in margins
        .iter()
        .enumerate()
        .filter(|(_, margin)| in_range(margin))
    {
        let before = &margins[..place];
        let own = OWN_MARGINS
            .iter()
            .filter(|own| own.total_cmp(margin).is_ne());
        if let Some(other) = before
            .iter()
            .chain(own)
            .find(|other| name(other) == name(margin))
        {
            add(format!(
                "{other} and {margin} would both be the column `tost_p_{}`",
                name(margin)
            ));
        }
    }
    problems
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
        mut margins,
        permutations,
        seed,
    } = trend;
    let time = match (steps, bins) {
        (Some(_), Some(_)) => {
            problems.add("memorization-by-time", "give `steps` or `bins`, not both");
            TimeBins::Steps(1)
        }
        (None, Some(bins)) => TimeBins::Bins(bins),
        (steps, None) => TimeBins::Steps(steps.unwrap_or(1000)),
    };
    margins.sort_by(f64::total_cmp);
    let analysis = Analysis {
        time,
        interval,
        exposures: exposures.unwrap_or_else(|| vec![1, 5]),
        margins,
        permutations: permutations.unwrap_or(999),
        seed: seed.unwrap_or(1),
    };
    for (key, problem) in analysis.problems() {
        problems.add(key, problem);
    }
    analysis
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Analysis);

    #[test]
    fn limits_are_the_same_for_run_files_and_tables() {
        let fits = Analysis {
            time: TimeBins::Bins(12),
            interval: Interval::Wilson,
            exposures: vec![1, 5],
            margins: vec![1.05, 1.2, 1.25],
            permutations: 999,
            seed: 1,
        };
        assert!(fits.problems().is_empty());
        let with = |change: fn(&mut Analysis)| {
            let mut changed = fits.clone();
            change(&mut changed);
            changed.problems()
        };
        let cases: [(&str, Change); 11] = [
            ("memorization-by-time.bins", |a| a.time = TimeBins::Bins(0)),
            ("memorization-by-time.steps", |a| {
                a.time = TimeBins::Steps(0);
            }),
            ("memorization-by-time.steps", |a| {
                a.time = TimeBins::Steps(u32::MAX);
            }),
            ("trend.permutations", |a| a.permutations = 4_000_000_000),
            ("trend.exposures", |a| a.exposures = vec![u32::MAX]),
            ("trend.exposures", |a| a.exposures = vec![5, 5]),
            ("trend.exposures", |a| a.exposures = (1..100).collect()),
            ("trend.margins", |a| a.margins = vec![f64::NAN]),
            ("trend.margins", |a| a.margins = vec![f64::INFINITY]),
            ("trend.margins", |a| a.margins = vec![1.2, 1.2]),
            ("trend.margins", |a| a.margins = vec![1.051]),
        ];
        for (key, change) in cases {
            let found = with(change);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, key);
        }
    }
}
