//! One rate over another, of the same probes.

use super::Z;

/// The ratio of two rates among the same probes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedRatio {
    /// The second rate / the first one.
    pub ratio: f64,
    /// Lower end of its 95 % interval.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

/// Compares the hits of two judges among the same probes, `both` of which are hits of both; `None` where one has none.
///
/// Wald's interval of ln ratio, with the variance (hits of one alone) / (first · second), which does not depend on the number of
/// probes (Desu and Raghavarao 2004; Fagerland, Lydersen and Laake 2014, *Statistics in Medicine* 33, 2850–2875).
pub fn paired_ratio(first: u32, second: u32, both: u32) -> Option<PairedRatio> {
    if first == 0 || second == 0 {
        return None;
    }
    let [first, second, both] = [first, second, both].map(f64::from);
    let ratio = second / first;
    let se = ((first + second - 2.0 * both) / (first * second)).sqrt();
    Some(PairedRatio {
        ratio,
        lo: ratio * (-Z * se).exp(),
        hi: ratio * (Z * se).exp(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_agree_have_no_error() {
        let same = paired_ratio(40, 40, 40).unwrap();
        assert_eq!((same.ratio, same.lo, same.hi), (1.0, 1.0, 1.0));
        assert_eq!(paired_ratio(0, 3, 0), None);
        assert_eq!(paired_ratio(3, 0, 0), None);
    }

    #[test]
    fn the_error_is_that_of_the_delta_method() {
        // Variance of ln p₂ − ln p₁ of two marginal shares of one multinomial sample.
        for (n, first, second, both) in [(21, 8, 2, 1), (4800, 660, 410, 300), (90, 90, 45, 45)] {
            let found = paired_ratio(first, second, both).unwrap();
            let [n, p1, p2, p12] = [n, first, second, both].map(f64::from);
            let [p1, p2, p12] = [p1, p2, p12].map(|count| count / n);
            let variance = (1.0 - p1) / (n * p1) + (1.0 - p2) / (n * p2)
                - 2.0 * (p12 - p1 * p2) / (n * p1 * p2);
            let half_width = Z * variance.sqrt();
            assert!((found.hi.ln() - found.ratio.ln() - half_width).abs() < 1e-12);
            assert!((found.ratio.ln() - found.lo.ln() - half_width).abs() < 1e-12);
        }
    }
}
