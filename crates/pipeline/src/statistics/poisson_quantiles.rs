//! Counts of windows against the Poisson distribution with their mean.

use statrs::distribution::{DiscreteCDF, Poisson};
use std::collections::BTreeMap;

/// A point of the plot of quantiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantilePoint {
    /// Hits by the Poisson distribution.
    pub quantile: u32,
    /// Hits of the window.
    pub count: u32,
    /// Windows at this point.
    pub n_windows: u32,
}

/// Sorted counts against the quantiles of the Poisson distribution with their mean, as the published figure plots them (Biderman et
/// al. 2023, 3.2): window i of m, from 1, stands over the quantile of i / (m + 1).
///
/// The mean, and the points in ascending order; `None` without a hit.
pub fn poisson_quantiles(counts: &[u32]) -> Option<(f64, Vec<QuantilePoint>)> {
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    let sum: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
    let (sum, n) = (sum as f64, counts.len() as f64);
    let poisson = Poisson::new(sum / n).ok()?;
    let mut points: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let (mut quantile, mut below) = (0, poisson.cdf(0));
    for (place, count) in (1_u32..).zip(counts) {
        let p = f64::from(place) / (n + 1.0);
        while below < p {
            quantile += 1;
            below = poisson.cdf(u64::from(quantile));
        }
        *points.entry((quantile, count)).or_default() += 1;
    }
    let point = |((quantile, count), n_windows)| QuantilePoint {
        quantile,
        count,
        n_windows,
    };
    Some((sum / n, points.into_iter().map(point).collect()))
}
