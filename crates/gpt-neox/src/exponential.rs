//! The exponential function in a form that compiles to vector instructions.

/// eˣ for x ≤ 0, within 2·10⁻⁷ of it relative, 0 below −87: 2ⁿ · eʳ with |r| ≤ ln 2 / 2, eʳ by the polynomial of
/// Cephes' `expf.c` (Moshier).
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the coefficients as published")]
#[expect(clippy::many_single_char_names, reason = "the letters of the formula")]
pub(crate) fn exponential(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the low bits.
    const ROUNDER: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = clamped - n * 0.693_359_375 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_15e-4;
    for coefficient in [
        1.398_199_950_7e-3,
        8.333_451_907_3e-3,
        4.166_579_589_4e-2,
        1.666_666_545_9e-1,
        5.000_000_120_1e-1,
    ] {
        p = p * r + coefficient;
    }
    let e = p * r * r + r + 1.0;
    let scaled = f32::from_bits(e.to_bits().wrapping_add(rounded.to_bits() << 23));
    if x < -87.0 { 0.0 } else { scaled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_c_library() {
        for i in 0..=43_500_u16 {
            let x = -f32::from(i) / 500.0;
            let found = f64::from(exponential(x));
            let expected = f64::from(x).exp();
            assert!(
                (found - expected).abs() <= 2e-7 * expected + 1e-38,
                "exp({x}) is {found}, not {expected}"
            );
        }
        assert_eq!(exponential(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exponential(-1e30).to_bits(), 0);
        assert_eq!(exponential(f32::NEG_INFINITY).to_bits(), 0);
    }
}
