//! Clopper and Pearson's exact interval for a binomial proportion.

use statrs::distribution::{Beta, ContinuousCDF};

/// Clopper and Pearson's exact 95 % interval of the rate behind `hits` successes in `n` trials, and `(0, 1)` for `n` = 0: it covers
/// in at least 95 % of all cases (Clopper and Pearson 1934, *Biometrika* 26, 404–413).
pub fn exact_interval(hits: u32, n: u32) -> (f64, f64) {
    let (hits, misses) = (f64::from(hits), f64::from(n.saturating_sub(hits)));
    // No quantile where the data touch an end.
    let lo = beta_quantile(0.025, hits, misses + 1.0).unwrap_or(0.0);
    let hi = beta_quantile(0.975, hits + 1.0, misses).unwrap_or(1.0);
    (lo, hi)
}

/// The quantile of a beta distribution, by bisection of its distribution function; `None` where a parameter is 0.
pub(super) fn beta_quantile(p: f64, a: f64, b: f64) -> Option<f64> {
    let beta = Beta::new(a, b).ok()?;
    let (mut lo, mut hi) = (0.0, 1.0);
    loop {
        let middle = f64::midpoint(lo, hi);
        if middle <= lo || middle >= hi {
            return Some(middle);
        }
        if beta.cdf(middle) < p {
            lo = middle;
        } else {
            hi = middle;
        }
    }
}
