//! Wilson's score interval for a binomial proportion.

use super::Z;

/// Wilson's 95 % score interval of the rate behind `hits` successes in `n` trials.
///
/// With p = hits/n: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), and `(0, 1)` for `n` = 0
/// (Wilson 1927, *Journal of the American Statistical Association* 22, 209–212).
pub fn wilson_interval(hits: u32, n: u32) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (hits, n) = (f64::from(hits), f64::from(n));
    let rate = hits / n;
    let z_squared = Z * Z;
    let centre = rate + z_squared / (2.0 * n);
    let half_width = Z * (rate * (1.0 - rate) / n + z_squared / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z_squared / n;
    // Rounding must not exclude an end that the data touch.
    let lo = if hits == 0.0 {
        0.0
    } else {
        (centre - half_width) / scale
    };
    let hi = if hits >= n {
        1.0
    } else {
        (centre + half_width) / scale
    };
    (lo, hi)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: statsmodels 0.15 `proportion_confint(hits, n, method="wilson")`.
    fn check(hits: u32, n: u32, expected: (f64, f64)) {
        let (lo, hi) = wilson_interval(hits, n);
        assert!(
            (lo - expected.0).abs() < 1e-12,
            "{hits}/{n}: lower end {lo}"
        );
        assert!(
            (hi - expected.1).abs() < 1e-12,
            "{hits}/{n}: upper end {hi}"
        );
    }

    #[test]
    fn equals_statsmodels() {
        check(0, 10, (0.0, 0.277_532_799_862_889_26));
        check(10, 10, (0.722_467_200_137_110_6, 1.0));
        check(1, 3, (0.061_491_944_720_396_26, 0.792_340_399_197_952_3));
        check(5, 20, (0.111_861_701_407_665_63, 0.468_700_877_618_744_1));
        check(
            2_650,
            19_200,
            (0.133_214_334_767_453_2, 0.142_972_149_597_868_25),
        );
        check(
            1,
            1_600,
            (0.000_110_336_367_785_989_96, 0.003_531_830_872_976_75),
        );
        check(0, 1, (0.0, 0.793_450_685_622_762_7));
    }

    #[test]
    fn nothing_observed_excludes_nothing() {
        assert_eq!(wilson_interval(0, 0), (0.0, 1.0));
    }
}
