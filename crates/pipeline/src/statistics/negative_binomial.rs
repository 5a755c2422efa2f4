//! Counts with more variance than Poisson's: negative binomial regression on time.

use super::trend::{Bin, information, maximize, poisson_trend, sums};
use statrs::function::gamma::ln_gamma;

/// ln(rate) = intercept + slope · t for counts of variance μ + alpha · μ² (NB2; Cameron and Trivedi 2013, 3.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NegativeBinomialTrend {
    /// ln(rate) in the middle of the window.
    pub intercept: f64,
    /// Change of ln(rate) over the whole window.
    pub slope: f64,
    /// 0 where no variance beyond Poisson's is likelier: the fit is then the Poisson one.
    pub alpha: f64,
    /// ln of the likelihood.
    pub log_likelihood: f64,
}

/// Fits a [`NegativeBinomialTrend`], by the likelihood's profile over alpha; `None` where [`poisson_trend`] is.
pub fn negative_binomial_trend(bins: &[Bin]) -> Option<NegativeBinomialTrend> {
    let poisson = poisson_trend(bins)?;
    let start = [poisson.intercept, poisson.slope];
    let at = |log_alpha: f64| {
        let alpha = log_alpha.exp();
        let found = maximize(start, |at| information(bins, at, alpha))?;
        Some(NegativeBinomialTrend {
            intercept: found[0],
            slope: found[1],
            alpha,
            log_likelihood: log_likelihood(bins, found, alpha),
        })
    };
    let value = |log_alpha: f64| at(log_alpha).map_or(f64::NEG_INFINITY, |fit| fit.log_likelihood);
    // Mean counts set the scale on which alpha matters: α·μ between 10⁻⁸ and 10⁶.
    #[expect(clippy::cast_precision_loss, reason = "a number of bins")]
    let mean = sums(bins).0 / bins.len() as f64;
    let grid: Vec<f64> = (0..=28)
        .map(|i| f64::from(i) * 1.15 - 18.4 - mean.ln())
        .collect();
    let best = grid
        .iter()
        .copied()
        .max_by(|a, b| value(*a).total_cmp(&value(*b)))?;
    let (mut lo, mut hi) = (best - 1.15, best + 1.15);
    // Golden-section search (Kiefer 1953).
    let golden = (5_f64.sqrt() - 1.0) / 2.0;
    let (mut a, mut b) = (hi - golden * (hi - lo), lo + golden * (hi - lo));
    let (mut value_a, mut value_b) = (value(a), value(b));
    while hi - lo > 1e-8 {
        if value_a > value_b {
            (hi, b, value_b) = (b, a, value_a);
            a = hi - golden * (hi - lo);
            value_a = value(a);
        } else {
            (lo, a, value_a) = (a, b, value_b);
            b = lo + golden * (hi - lo);
            value_b = value(b);
        }
    }
    let found = at(f64::midpoint(lo, hi))?;
    if found.log_likelihood > poisson.log_likelihood + 1e-9 {
        Some(found)
    } else {
        Some(NegativeBinomialTrend {
            intercept: poisson.intercept,
            slope: poisson.slope,
            alpha: 0.0,
            log_likelihood: poisson.log_likelihood,
        })
    }
}

/// ln of the likelihood of the counts.
pub(super) fn log_likelihood(bins: &[Bin], at: [f64; 2], alpha: f64) -> f64 {
    let of_bin = |bin: &Bin| {
        let mu = bin.n * (at[0] + at[1] * bin.t).exp();
        log_rising(bin.hits, alpha) - (bin.hits + 1.0 / alpha) * (alpha * mu).ln_1p()
            + bin.hits * mu.ln()
            - ln_gamma(bin.hits + 1.0)
    };
    bins.iter().map(of_bin).sum()
}

/// Σ ln(1 + alpha · i) for i from 0 to hits − 1, which is ln Γ(hits + 1/α) − ln Γ(1/α) + hits · ln α without its
/// cancellation.
fn log_rising(hits: f64, alpha: f64) -> f64 {
    if alpha >= 0.01 {
        return ln_gamma(hits + 1.0 / alpha) - ln_gamma(1.0 / alpha) + hits * alpha.ln();
    }
    // Euler and Maclaurin; the next term is below α³ / 360.
    let z = alpha * hits;
    let integral = ((1.0 + z) * z.ln_1p() - z) / alpha;
    integral - 0.5 * z.ln_1p() + alpha / 12.0 * (1.0 / (1.0 + z) - 1.0)
}
