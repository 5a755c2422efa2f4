//! A rate that changes with time: Poisson regression of counts on time.

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
    /// K/(K − 2); of 3 bins or more.
    pub se_hc1: Option<f64>,
    /// How far the slopes go that are found without one bin each: the jackknife (Efron and Tibshirani 1993, chapter 11) without its factor
    /// (K − 1)/K, to second order. It is the sandwich estimate with each residual over 1 − its leverage, the mean of what its fitted and
    /// what its observed hits carry. Few bins, and few that hold all hits, do not make it too small. Of 3 bins or more. Where bins are
    /// single steps it is clustered by step.
    pub se_jackknife: Option<f64>,
    /// ln of the likelihood.
    pub log_likelihood: f64,
    /// Bins.
    pub n_bins: usize,
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
    let influence = |bin: &Bin| (a * bin.t - b) / determinant * (bin.hits - fitted(bin));
    // 1 where a bin decides its own fit. Without a bin, the information falls from what is fitted with it towards what is fitted without
    // its hits.
    let leverage = |bin: &Bin| {
        let of_a_hit = (d - 2.0 * b * bin.t + a * bin.t * bin.t) / determinant;
        fitted(bin).midpoint(bin.hits) * of_a_hit
    };
    let sandwich = |of_bin: &dyn Fn(&Bin) -> f64| {
        let meat: f64 = bins.iter().map(|bin| of_bin(bin).powi(2)).sum();
        Some(meat.sqrt()).filter(|se| several && se.is_finite())
    };
    Some(PoissonTrend {
        intercept: coefficients[0],
        slope: coefficients[1],
        se,
        dispersion,
        se_quasi: dispersion.map(|dispersion| se * dispersion.sqrt()),
        se_hc1: sandwich(&influence),
        se_jackknife: sandwich(&|bin| influence(bin) / (1.0 - leverage(bin)).max(0.0)),
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
