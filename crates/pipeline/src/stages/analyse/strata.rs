//! What the statistics say of each stratum of a group: the rows of `trend`, `uniformity` and `quantiles`.

use super::Conclusion;
use super::group::{ALL, Group, SEEN, StepCount, Stratum, UNSEEN};
use pipeline::statistics::{
    Bin, Direction, Dispersion, ExcessRatio, MannKendall, NegativeBinomialTrend, PoissonTrend,
    RateRatio, Uniformity, direction, dispersion, excess_ratio, mann_kendall,
    negative_binomial_trend, poisson_trend, rate_ratio, smallest_detectable, uniformity,
};
use statrs::distribution::{DiscreteCDF, Poisson};
use std::collections::BTreeMap;

/// Bins of the trend: one for each 1,000 steps of Pythia.
const MOST_BINS: u32 = 143;
/// Fewer hits than these in a bin on average make fewer bins, down to [`FEWEST_BINS`].
const HITS_PER_BIN: u64 = 5;
const FEWEST_BINS: u32 = 10;
/// Probes of a window of the quantile plot (Biderman et al. 2023, 3.2).
const WINDOW: usize = 512;

/// A row of `trend`.
pub(super) struct TrendRow {
    pub(super) model: String,
    pub(super) corpus: String,
    pub(super) checkpoint: u32,
    pub(super) stratum: String,
    pub(super) step_lo: u32,
    pub(super) step_hi: u32,
    pub(super) n: u32,
    pub(super) n_memorized: u32,
    pub(super) n_bins: u32,
    pub(super) fit: Option<PoissonTrend>,
    pub(super) negative_binomial: Option<NegativeBinomialTrend>,
    pub(super) se_clustered: Option<f64>,
    pub(super) halves: Option<RateRatio>,
    pub(super) first_decile: Option<f64>,
    pub(super) last_5_percent: Option<f64>,
    pub(super) excess: Option<ExcessRatio>,
    pub(super) direction: Option<Direction>,
    /// p of the slope, from the interval that gives the direction.
    pub(super) p: Option<f64>,
    pub(super) mde: Option<f64>,
    /// Of the fixed family.
    pub(super) primary: bool,
    pub(super) q: Option<f64>,
}

/// A row of `uniformity`.
pub(super) struct UniformityRow {
    pub(super) model: String,
    pub(super) corpus: String,
    pub(super) checkpoint: u32,
    pub(super) stratum: String,
    pub(super) n_memorized: u32,
    pub(super) times: Option<Uniformity>,
    pub(super) mann_kendall: Option<MannKendall>,
    pub(super) dispersion: Option<Dispersion>,
}

/// A row of `quantiles`.
pub(super) struct QuantileRow {
    pub(super) model: String,
    pub(super) corpus: String,
    pub(super) checkpoint: u32,
    pub(super) mean: f64,
    pub(super) poisson_quantile: u32,
    pub(super) count: u32,
    pub(super) n_windows: u32,
}

impl Group {
    fn baseline(&self) -> Option<(u64, u64)> {
        Some(self.stratum(UNSEEN)?.counts(|_| true))
    }

    pub(super) fn trend(&self) -> Vec<TrendRow> {
        let mixed = self.stratum(SEEN).is_some() && self.stratum(UNSEEN).is_some();
        let row = |stratum: &Stratum| {
            let bins = stratum.bins();
            let fit = poisson_trend(&bins);
            // A row for each step: the sandwich then allows for hits that come together in a step.
            let se_clustered = fit.and_then(|_| poisson_trend(&stratum.by_step())?.se_hc1);
            let widest = fit
                .and_then(|fit| fit.se_quasi)
                .map(|quasi| se_clustered.map_or(quasi, |clustered| quasi.max(clustered)));
            let decided = fit.zip(widest).filter(|_| !(mixed && stratum.name == ALL));
            let excess = self
                .baseline()
                .filter(|_| stratum.name == SEEN)
                .and_then(|baseline| excess_ratio(stratum.first(0.5), stratum.rest(0.5), baseline));
            let (step_lo, step_hi) = stratum.window();
            TrendRow {
                model: self.model.clone(),
                corpus: self.corpus.clone(),
                checkpoint: self.checkpoint,
                stratum: stratum.name.clone(),
                step_lo,
                step_hi,
                n: narrow(stratum.n),
                n_memorized: narrow(stratum.hits.len() as u64),
                n_bins: narrow(bins.len() as u64),
                fit,
                negative_binomial: negative_binomial_trend(&bins),
                se_clustered,
                halves: rate_ratio(stratum.first(0.5), stratum.rest(0.5)),
                first_decile: ratio(stratum.first(0.1), stratum.rest(0.1)),
                last_5_percent: ratio(stratum.rest(0.95), stratum.first(0.95)),
                excess,
                direction: decided.and_then(|(fit, se)| direction(fit.slope, se, fit.n_bins)),
                p: decided.and_then(|(fit, se)| fit.p(se)),
                mde: widest.map(smallest_detectable),
                primary: false,
                q: None,
            }
        };
        self.strata.iter().map(row).collect()
    }

    pub(super) fn uniformity(&self) -> Vec<UniformityRow> {
        let row = |stratum: &Stratum| {
            let bins = stratum.bins();
            UniformityRow {
                model: self.model.clone(),
                corpus: self.corpus.clone(),
                checkpoint: self.checkpoint,
                stratum: stratum.name.clone(),
                n_memorized: narrow(stratum.hits.len() as u64),
                times: uniformity(&stratum.times()),
                mann_kendall: mann_kendall(&bins),
                dispersion: dispersion(&bins),
            }
        };
        self.strata.iter().map(row).collect()
    }

    /// Sorted counts of windows against the quantiles of the Poisson distribution with their mean, as the published figure plots
    /// them: window i of m, from 1, stands over the quantile of i / (m + 1). Equal points are one row.
    pub(super) fn quantiles(&self) -> Vec<QuantileRow> {
        let mut counts = self.stratum(SEEN).map(Stratum::windows).unwrap_or_default();
        counts.sort_unstable();
        let sum: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
        let mean = sum as f64 / counts.len() as f64;
        let Ok(poisson) = Poisson::new(mean) else {
            return Vec::new();
        };
        let mut points: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        let (mut quantile, mut below) = (0_u64, poisson.cdf(0));
        for (place, count) in counts.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
            let p = (place + 1) as f64 / (counts.len() + 1) as f64;
            while below < p {
                quantile += 1;
                below = poisson.cdf(quantile);
            }
            *points.entry((narrow(quantile), *count)).or_default() += 1;
        }
        let row = |((poisson_quantile, count), n_windows)| QuantileRow {
            model: self.model.clone(),
            corpus: self.corpus.clone(),
            checkpoint: self.checkpoint,
            mean,
            poisson_quantile,
            count,
            n_windows,
        };
        points.into_iter().map(row).collect()
    }
}

impl Stratum {
    /// From the first probed step to behind the last.
    fn window(&self) -> (u32, u32) {
        let first = self.steps.first().map_or(0, |count| count.step);
        let last = self.steps.last().map_or(0, |count| count.step);
        (first, last + 1)
    }

    /// Where in the window the middle of some steps lies, 0 … 1.
    fn place(&self, first: u32, last: u32) -> f64 {
        let (lo, hi) = self.window();
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

    /// Hits and probes of the first `share` of the window, and of the rest.
    fn first(&self, share: f64) -> (u64, u64) {
        self.counts(|place| place < share)
    }

    fn rest(&self, share: f64) -> (u64, u64) {
        self.counts(|place| place >= share)
    }

    /// Bins of equally many steps, the last of fewer; those without probes are left out.
    fn bins(&self) -> Vec<Bin> {
        let (lo, hi) = self.window();
        let enough = narrow(self.hits.len() as u64 / HITS_PER_BIN);
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
    fn by_step(&self) -> Vec<Bin> {
        let bin = |count: &StepCount| Bin {
            t: self.place(count.step, count.step) - 0.5,
            n: f64::from(count.n),
            hits: f64::from(count.hits),
        };
        self.steps.iter().map(bin).collect()
    }

    /// Times of the hits: the share of the stratum's probes before each, so that they are uniform whichever steps were probed.
    fn times(&self) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
        let n = self.n as f64;
        let time = |place: &u32| (f64::from(*place) + 0.5) / n;
        self.hits.iter().map(time).collect()
    }

    /// Hits in each window of probes; the last that is not full is left out.
    fn windows(&self) -> Vec<u32> {
        let mut counts = vec![0_u32; usize::try_from(self.n).unwrap_or(0) / WINDOW];
        for place in &self.hits {
            let window = *place as usize / WINDOW;
            if let Some(count) = counts.get_mut(window) {
                *count += 1;
            }
        }
        counts
    }
}

impl TrendRow {
    /// `within_1.05`, `within_1.10` or `not_shown`: the tightest margin whose test passes at 5 %.
    pub(super) fn equivalence(&self) -> Option<&'static str> {
        let passes = |margin| self.equivalence_p(margin).is_some_and(|p| p < 0.05);
        self.direction?;
        Some(if passes(1.05) {
            "within_1.05"
        } else if passes(1.10) {
            "within_1.10"
        } else {
            "not_shown"
        })
    }

    pub(super) fn equivalence_p(&self, margin: f64) -> Option<f64> {
        self.halves?.equivalence_p(margin)
    }

    /// Direction and equivalence as a sentence, of what the model had seen.
    pub(super) fn sentence(&self) -> Option<String> {
        if self.stratum != SEEN {
            return None;
        }
        let same = match self.equivalence()? {
            "within_1.05" => Some("5 %"),
            "within_1.10" => Some("10 %"),
            _ => None,
        };
        let found = match self.direction? {
            Direction::LaterMore => "later sequences are memorized more",
            Direction::LaterLess => "later sequences are memorized less",
            Direction::None => "no trend",
        };
        Some(match (self.direction?, same, self.mde) {
            (Direction::None, Some(margin), _) => {
                format!("{found}: early and late rates are the same within {margin}")
            }
            (Direction::None, None, mde) => format!(
                "undecided: a change from the first to the last step by less than a factor {:.2} would not have been found",
                mde.unwrap_or(f64::INFINITY).exp()
            ),
            (_, Some(margin), _) => {
                format!("{found}; early and late rates are the same within {margin}")
            }
            (_, None, _) => found.to_owned(),
        })
    }

    /// For the summary, where the row belongs to the fixed family.
    pub(super) fn conclude(&self) -> Option<Conclusion> {
        let sentence = self
            .sentence()
            .unwrap_or_else(|| "too few memorized sequences for a statement".to_owned());
        self.primary.then(|| Conclusion {
            corpus: self.corpus.clone(),
            model: self.model.clone(),
            checkpoint: self.checkpoint,
            rate_ratio: self.halves.and_then(|halves| halves.ratio),
            interval: self.halves.map(|halves| (halves.lo, halves.hi)),
            sentence,
        })
    }
}

/// One rate over another; `None` where it has no probes or no hits.
fn ratio((hits, n): (u64, u64), (other_hits, other_n): (u64, u64)) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
    let [hits, n, other_hits, other_n] = [hits, n, other_hits, other_n].map(|count| count as f64);
    let ratio = hits / n / (other_hits / other_n);
    ratio.is_finite().then_some(ratio)
}

/// Counts of rows, whose training indices fit a u32.
fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
