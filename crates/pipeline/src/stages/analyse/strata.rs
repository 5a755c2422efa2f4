//! What the statistics say of each stratum of a group: the rows of `trend`, `uniformity` and `quantiles`.

use super::Conclusion;
use super::group::{ALL, Group, Key, SEEN, Stratum, UNSEEN};
use pipeline::statistics::{
    Decision, Direction, Dispersion, ExcessRatio, MannKendall, NegativeBinomialTrend, PoissonTrend,
    QuantilePoint, RateRatio, Uniformity, Window, decide, dispersion, excess_ratio, mann_kendall,
    negative_binomial_trend, poisson_quantiles, poisson_trend, uniformity,
};

/// Probes of a window of the quantile plot (Biderman et al. 2023, 3.2).
const WINDOW: usize = 512;

/// A row of `trend`.
pub(super) struct TrendRow {
    pub(super) key: Key,
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
    pub(super) decision: Option<Decision>,
    /// Whether it mixes seen and unseen, so that nothing is concluded.
    mixed: bool,
    /// Of the fixed family.
    pub(super) primary: bool,
    pub(super) q: Option<f64>,
}

/// A row of `uniformity`.
pub(super) struct UniformityRow {
    pub(super) key: Key,
    pub(super) stratum: String,
    pub(super) n_memorized: u32,
    pub(super) times: Option<Uniformity>,
    pub(super) mann_kendall: Option<MannKendall>,
    pub(super) dispersion: Option<Dispersion>,
}

/// A row of `quantiles`.
pub(super) struct QuantileRow {
    pub(super) key: Key,
    pub(super) mean: f64,
    pub(super) poisson_quantile: u32,
    pub(super) count: u32,
    pub(super) n_windows: u32,
}

impl Group {
    fn baseline(&self) -> Option<(u64, u64)> {
        Some(self.stratum(UNSEEN)?.window().total())
    }

    pub(super) fn trend(&self) -> Vec<TrendRow> {
        let mixed = self.stratum(SEEN).is_some() && self.stratum(UNSEEN).is_some();
        let row = |stratum: &Stratum| {
            let window = stratum.window();
            let bins = window.bins();
            let fit = poisson_trend(&bins);
            let by_step = fit.and_then(|_| poisson_trend(&window.by_step()));
            let excess = self
                .baseline()
                .filter(|_| stratum.name == SEEN)
                .and_then(|baseline| excess_ratio(window.first(0.5), window.rest(0.5), baseline));
            let (step_lo, step_hi) = window.ends();
            TrendRow {
                key: self.key.clone(),
                stratum: stratum.name.clone(),
                step_lo,
                step_hi,
                n: narrow(stratum.n),
                n_memorized: narrow(stratum.hits.len() as u64),
                n_bins: narrow(bins.len() as u64),
                fit,
                negative_binomial: negative_binomial_trend(&bins),
                se_clustered: by_step.and_then(|fit| fit.se_jackknife),
                halves: window.halves(),
                first_decile: ratio(window.first(0.1), window.rest(0.1)),
                last_5_percent: ratio(window.rest(0.95), window.first(0.95)),
                excess,
                decision: fit.and_then(|fit| decide(&fit, by_step.as_ref())),
                mixed: mixed && stratum.name == ALL,
                primary: false,
                q: None,
            }
        };
        self.strata.iter().map(row).collect()
    }

    pub(super) fn uniformity(&self) -> Vec<UniformityRow> {
        let row = |stratum: &Stratum| {
            let bins = stratum.window().bins();
            UniformityRow {
                key: self.key.clone(),
                stratum: stratum.name.clone(),
                n_memorized: narrow(stratum.hits.len() as u64),
                times: uniformity(&stratum.times()),
                mann_kendall: mann_kendall(&bins),
                dispersion: dispersion(&bins),
            }
        };
        self.strata.iter().map(row).collect()
    }

    /// What the published figure plots, of the sequences that were seen.
    pub(super) fn quantiles(&self) -> Vec<QuantileRow> {
        let counts = self.stratum(SEEN).map(Stratum::windows).unwrap_or_default();
        let Some((mean, points)) = poisson_quantiles(&counts) else {
            return Vec::new();
        };
        let row = |point: QuantilePoint| QuantileRow {
            key: self.key.clone(),
            mean,
            poisson_quantile: point.quantile,
            count: point.count,
            n_windows: point.n_windows,
        };
        points.into_iter().map(row).collect()
    }
}

impl Stratum {
    fn window(&self) -> Window<'_> {
        Window::new(&self.steps)
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
    fn decided(&self) -> Option<Decision> {
        self.decision.filter(|_| !self.mixed)
    }

    pub(super) fn direction(&self) -> Option<Direction> {
        Some(self.decided()?.direction)
    }

    /// p of the slope, from the intervals that give the direction.
    pub(super) fn p(&self) -> Option<f64> {
        Some(self.decided()?.p)
    }

    pub(super) fn mde(&self) -> Option<f64> {
        Some(self.decision?.smallest_detectable)
    }

    /// `within_1.05`, `within_1.10` or `not_shown`: the tightest margin whose test passes at 5 %, with an error that allows for hits in
    /// bunches.
    pub(super) fn equivalence(&self) -> Option<&'static str> {
        let spread = self.decided()?.spread;
        let passes = |margin| {
            self.halves
                .and_then(|halves| halves.equivalence_p_in_bunches(margin, spread))
                .is_some_and(|p| p < 0.05)
        };
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
        let found = match self.direction()? {
            Direction::LaterMore => "later sequences are memorized more",
            Direction::LaterLess => "later sequences are memorized less",
            Direction::None => "no trend",
        };
        Some(match (self.direction()?, same, self.mde()) {
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
            key: self.key.clone(),
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
