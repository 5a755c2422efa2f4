//! What exposure adds: ratios of rates above those of sequences that were not met.

use super::Z;

/// (later − baseline) / (earlier − baseline).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExcessRatio {
    /// `None` where the earlier rate is the baseline's.
    pub ratio: Option<f64>,
    /// Fieller's 95 % interval (Fieller 1954); `None` where the earlier excess is not clearly above or below 0, so that no
    /// bounded interval covers.
    pub interval: Option<(f64, f64)>,
}

/// Compares (hits, probes) of an earlier and a later time, both above those of a baseline; `None` where one has no probes.
pub fn excess_ratio(
    earlier: (u64, u64),
    later: (u64, u64),
    baseline: (u64, u64),
) -> Option<ExcessRatio> {
    let [(earlier, var_e), (later, var_l), (baseline, var_b)] =
        [rate(earlier)?, rate(later)?, rate(baseline)?];
    let (above, below) = (later - baseline, earlier - baseline);
    // Both excesses share the baseline.
    let (var_above, var_below, covariance) = (var_l + var_b, var_e + var_b, var_b);
    // All x with (above − x · below)² ≤ z² · its variance.
    let a = below * below - Z * Z * var_below;
    let half_b = above * below - Z * Z * covariance;
    let c = above * above - Z * Z * var_above;
    let root = half_b * half_b - a * c;
    let interval =
        (a > 0.0 && root >= 0.0).then(|| ((half_b - root.sqrt()) / a, (half_b + root.sqrt()) / a));
    Some(ExcessRatio {
        ratio: (below != 0.0).then_some(above / below),
        interval,
    })
}

/// A rate and its binomial variance.
fn rate((hits, n): (u64, u64)) -> Option<(f64, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
    let (hits, n) = (hits as f64, n as f64);
    let rate = hits / n;
    (n > 0.0).then_some((rate, rate * (1.0 - rate) / n))
}
