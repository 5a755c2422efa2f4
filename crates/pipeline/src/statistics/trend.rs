//! A rate that changes with time: Poisson regression of counts on time.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The probes of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Its middle: −½ is the beginning of the observed window, ½ its end.
    pub t: f64,
    /// Probes, more than 0.
    pub n: f64,
    /// Memorized ones.
    pub hits: f64,
}

/// ln(rate) = intercept + slope · t, by maximum likelihood for Poisson counts: a generalized linear model with logarithmic link
/// and offset ln n (`McCullagh` and Nelder 1989, chapter 6).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoissonTrend {
    /// ln(rate) in the middle of the window.
    pub intercept: f64,
    /// Change of ln(rate) over the whole window.
    pub slope: f64,
    /// Standard error of the slope if counts are Poisson.
    pub se: f64,
    /// Pearson's χ² over its degrees of freedom; of 3 bins or more.
    pub dispersion: Option<f64>,
    /// `se` · √dispersion: quasi-Poisson (`McCullagh` and Nelder 1989, 9.2).
    pub se_quasi: Option<f64>,
    /// The sandwich estimate (White 1980), as statsmodels' `HC1` gives it for a generalized linear model: without the factor
    /// K/(K − 2); of 3 bins or more. Where bins are single steps it is clustered by step.
    pub se_hc1: Option<f64>,
    /// ln of the likelihood.
    pub log_likelihood: f64,
    /// Bins.
    pub n_bins: usize,
}

/// Which way memorization goes with training time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sequences met later are memorized more.
    LaterMore,
    /// Sequences met later are memorized less.
    LaterLess,
    /// The interval of the slope holds 0.
    None,
}

impl Direction {
    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::LaterMore => "later_more",
            Self::LaterLess => "later_less",
            Self::None => "none",
        }
    }
}

/// Fits a [`PoissonTrend`] to bins in any order. `None` where no finite slope is best: fewer than two bins, no hit, or hits in
/// the first or the last bin alone.
pub fn poisson_trend(bins: &[Bin]) -> Option<PoissonTrend> {
    let (hits, n) = sums(bins);
    if bins.len() < 2 || hits <= 0.0 || hits.is_nan() {
        return None;
    }
    let coefficients = maximize([(hits / n).ln(), 0.0], |at| information(bins, at, 0.0))?;
    let fitted = |bin: &Bin| bin.n * (coefficients[0] + coefficients[1] * bin.t).exp();
    let [[a, b], [_, d]] = information(bins, coefficients, 0.0).1;
    let determinant = a * d - b * b;
    let se = (a / determinant).sqrt();
    let n_bins = bins.len();
    #[expect(clippy::cast_precision_loss, reason = "a number of bins")]
    let free = n_bins as f64 - 2.0;
    let several = n_bins > 2;
    let pearson: f64 = bins
        .iter()
        .map(|bin| (bin.hits - fitted(bin)).powi(2) / fitted(bin))
        .sum();
    let dispersion = several.then_some(pearson / free);
    // The row of the inverse information that belongs to the slope, times each bin's score.
    let meat: f64 = bins
        .iter()
        .map(|bin| ((a * bin.t - b) / determinant * (bin.hits - fitted(bin))).powi(2))
        .sum();
    Some(PoissonTrend {
        intercept: coefficients[0],
        slope: coefficients[1],
        se,
        dispersion,
        se_quasi: dispersion.map(|dispersion| se * dispersion.sqrt()),
        se_hc1: several.then(|| meat.sqrt()),
        log_likelihood: bins
            .iter()
            .map(|bin| {
                let mu = fitted(bin);
                bin.hits * mu.ln() - mu - statrs::function::gamma::ln_gamma(bin.hits + 1.0)
            })
            .sum(),
        n_bins,
    })
}

/// The direction by the 95 % interval slope ± t(K − 2) · se, where `se` is the largest of the standard errors that allow for
/// more than Poisson variance.
pub fn direction(slope: f64, se: f64, n_bins: usize) -> Option<Direction> {
    let half_width = se * student_quantile(n_bins)?;
    // Rounding is no trend: where every sequence is memorized, `se` is 0.
    let clear = slope.abs() > half_width && slope.abs() > 1e-9;
    Some(match (clear, slope > 0.0) {
        (false, _) => Direction::None,
        (true, true) => Direction::LaterMore,
        (true, false) => Direction::LaterLess,
    })
}

/// Two-sided p of slope = 0 by t(K − 2).
pub(super) fn slope_p(slope: f64, se: f64, n_bins: usize) -> Option<f64> {
    Some(2.0 * student(n_bins)?.sf((slope / se).abs())).filter(|p| p.is_finite())
}

impl PoissonTrend {
    /// Two-sided p of slope = 0 by t(K − 2) and the standard error `se`.
    pub fn p(&self, se: f64) -> Option<f64> {
        slope_p(self.slope, se, self.n_bins)
    }
}

/// The smallest slope that a two-sided test at 5 % finds in 80 % of all cases: (z₀.₉₇₅ + z₀.₈) · se.
pub fn smallest_detectable(se: f64) -> f64 {
    const Z_80: f64 = 0.841_621_233_572_914_3;
    (super::Z + Z_80) * se
}

fn student(n_bins: usize) -> Option<StudentsT> {
    #[expect(clippy::cast_precision_loss, reason = "a number of bins")]
    let free = n_bins as f64 - 2.0;
    super::student(free)
}

fn student_quantile(n_bins: usize) -> Option<f64> {
    Some(student(n_bins)?.inverse_cdf(0.975))
}

/// Hits and probes of all bins.
pub(super) fn sums(bins: &[Bin]) -> (f64, f64) {
    bins.iter()
        .fold((0.0, 0.0), |(hits, n), bin| (hits + bin.hits, n + bin.n))
}

/// Score and Fisher information of intercept and slope, with variance μ + alpha · μ².
pub(super) fn information(bins: &[Bin], at: [f64; 2], alpha: f64) -> ([f64; 2], [[f64; 2]; 2]) {
    let (mut score, mut matrix) = ([0.0; 2], [[0.0; 2]; 2]);
    for bin in bins {
        let mu = bin.n * (at[0] + at[1] * bin.t).exp();
        let inflated = 1.0 + alpha * mu;
        let (residual, weight) = ((bin.hits - mu) / inflated, mu / inflated);
        score[0] += residual;
        score[1] += residual * bin.t;
        matrix[0][0] += weight;
        matrix[0][1] += weight * bin.t;
        matrix[1][1] += weight * bin.t * bin.t;
    }
    matrix[1][0] = matrix[0][1];
    (score, matrix)
}

/// Fisher scoring from `start`; `None` where it goes nowhere.
pub(super) fn maximize(
    start: [f64; 2],
    information: impl Fn([f64; 2]) -> ([f64; 2], [[f64; 2]; 2]),
) -> Option<[f64; 2]> {
    /// A rate that changes by this factor over the window is no trend, but hits at one end alone.
    const STEEPEST: f64 = 200.0;
    let mut at = start;
    for _ in 0..100 {
        let (score, [[a, b], [_, d]]) = information(at);
        let determinant = a * d - b * b;
        if !(determinant > 0.0 && determinant.is_finite()) {
            return None;
        }
        let step = [
            (d * score[0] - b * score[1]) / determinant,
            (a * score[1] - b * score[0]) / determinant,
        ];
        // Far steps overshoot: the likelihood is exponential in the coefficients.
        let scale = (2.0 / step[0].abs().max(step[1].abs())).min(1.0);
        at = [at[0] + scale * step[0], at[1] + scale * step[1]];
        if at[1].abs() > STEEPEST {
            return None;
        }
        if step.iter().all(|step| step.abs() < 1e-12) {
            return Some(at);
        }
    }
    // Rounding may keep the last digits moving; what is left is far below any use.
    let (score, [[a, b], [_, d]]) = information(at);
    let small = (a * score[1] - b * score[0]).abs() / (a * d - b * b) < 1e-9;
    small.then_some(at)
}
