//! Whether hits fall evenly over time.

use super::normal_tail;
use statrs::distribution::{ChiSquared, ContinuousCDF};
use statrs::function::gamma::{gamma, ln_gamma};
use std::f64::consts::PI;

/// Tests of hits' times, scaled to 0 … 1, against the uniform distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniformity {
    /// Kolmogorov and Smirnov's D: the largest distance of the distribution functions.
    pub ks_d: f64,
    /// Its p: exact up to 1,000 hits, else by its expansion to 1/n.
    pub ks_p: f64,
    /// Cramér and von Mises' W².
    pub cvm_w2: f64,
    /// Its p, by the expansion to 1/n (Csörgő and Faraway 1996).
    pub cvm_p: f64,
    /// Anderson and Darling's A².
    pub ad_a2: f64,
    /// Laplace's U = (mean − ½) √(12 n): standard normal, and positive where hits come late.
    pub laplace_u: f64,
    /// Its two-sided p.
    pub laplace_p: f64,
    /// Two-sided p of 2 Σ ln(1/time), which is χ² with 2n degrees of freedom (MIL-HDBK-189).
    pub mil_p: f64,
}

/// Tests ascending times, all between 0 and 1 and neither of them; `None` without any.
pub fn uniformity(times: &[f64]) -> Option<Uniformity> {
    if times.is_empty() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of hits")]
    let n = times.len() as f64;
    let ranked = || (0_u32..).map(f64::from).zip(times.iter().copied());
    let ks_d = ranked().fold(0.0, |d: f64, (rank, time)| {
        d.max(time - rank / n).max((rank + 1.0) / n - time)
    });
    let squares: f64 = ranked()
        .map(|(rank, time)| ((2.0 * rank + 1.0) / (2.0 * n) - time).powi(2))
        .sum();
    let cvm_w2 = squares + 1.0 / (12.0 * n);
    let weighted: f64 = ranked()
        .zip(times.iter().rev())
        .map(|((rank, time), mirrored)| (2.0 * rank + 1.0) * (time.ln() + (-mirrored).ln_1p()))
        .sum();
    let laplace_u = (times.iter().sum::<f64>() / n - 0.5) * (12.0 * n).sqrt();
    let mil = -2.0 * times.iter().map(|time| time.ln()).sum::<f64>();
    let chi_squared = ChiSquared::new(2.0 * n).ok()?;
    Some(Uniformity {
        ks_d,
        ks_p: kolmogorov_tail(times.len(), ks_d),
        cvm_w2,
        cvm_p: cramer_von_mises_tail(n, cvm_w2),
        ad_a2: -n - weighted / n,
        laplace_u,
        laplace_p: 2.0 * normal_tail(laplace_u.abs()),
        mil_p: 2.0 * chi_squared.cdf(mil).min(chi_squared.sf(mil)),
    })
}

/// P(D ≥ d) for n uniform numbers.
fn kolmogorov_tail(n: usize, d: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a number of hits")]
    let count = n as f64;
    let z = d * count.sqrt();
    // Beyond it both one-sided tails are apart, and differences from 1 lose their digits.
    if z > 2.2 {
        return (2.0 * one_sided_tail(count, d)).min(1.0);
    }
    let cdf = if n <= 1000 {
        exact_cdf(n, d)
    } else {
        limit_cdf(count, d)
    };
    (1.0 - cdf).clamp(0.0, 1.0)
}

/// P(D⁺ ≥ d) (Birnbaum and Tingey 1951), summed in logarithms.
fn one_sided_tail(n: f64, d: f64) -> f64 {
    if d >= 1.0 {
        return 0.0;
    }
    if n > 1e5 {
        return (-(6.0 * n * d + 1.0).powi(2) / (18.0 * n)).exp();
    }
    let mut sum = 0.0;
    let mut j = 0.0;
    while j <= n * (1.0 - d) {
        let share = d + j / n;
        let choose = ln_gamma(n + 1.0) - ln_gamma(j + 1.0) - ln_gamma(n - j + 1.0);
        let rest = if share < 1.0 {
            (n - j) * (1.0 - share).ln()
        } else {
            0.0
        };
        sum += (choose + (j - 1.0) * share.ln() + rest).exp();
        j += 1.0;
    }
    d * sum
}

/// P(D < d), by the power of a matrix (Marsaglia, Tsang and Wang 2003, *Journal of Statistical Software* 8/18).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "numbers up to 1,000"
)]
fn exact_cdf(n: usize, d: f64) -> f64 {
    let k = (n as f64 * d) as usize + 1;
    let size = 2 * k - 1;
    let h = k as f64 - n as f64 * d;
    let mut matrix = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..size {
            matrix[i * size + j] = f64::from(u8::from(i + 1 >= j));
        }
    }
    for i in 0..size {
        matrix[i * size] -= h.powi(i as i32 + 1);
        matrix[(size - 1) * size + i] -= h.powi((size - i) as i32);
    }
    matrix[(size - 1) * size] += if 2.0 * h > 1.0 {
        (2.0 * h - 1.0).powi(size as i32)
    } else {
        0.0
    };
    for i in 0..size {
        for j in 0..size {
            if i + 1 > j {
                for g in 1..=i + 1 - j {
                    matrix[i * size + j] /= g as f64;
                }
            }
        }
    }
    // Powers, with a common factor 10^exponent apart, so that nothing overflows.
    let (mut result, mut result_exponent) = (vec![0.0; size * size], 0);
    for i in 0..size {
        result[i * size + i] = 1.0;
    }
    let (mut base, mut base_exponent) = (matrix, 0);
    let mut left = n;
    while left > 0 {
        if left % 2 == 1 {
            (result, result_exponent) = scaled(
                product(&result, &base, size),
                result_exponent + base_exponent,
                (k - 1) * size + k - 1,
            );
        }
        base = product(&base, &base, size);
        (base, base_exponent) = scaled(base, 2 * base_exponent, (k - 1) * size + k - 1);
        left /= 2;
    }
    let mut value = result[(k - 1) * size + k - 1];
    for i in 1..=n {
        value = value * i as f64 / n as f64;
        if value < 1e-140 {
            value *= 1e140;
            result_exponent -= 140;
        }
    }
    value * 10_f64.powi(result_exponent)
}

fn product(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let mut c = vec![0.0; size * size];
    for i in 0..size {
        for k in 0..size {
            let factor = a[i * size + k];
            for j in 0..size {
                c[i * size + j] += factor * b[k * size + j];
            }
        }
    }
    c
}

fn scaled(mut matrix: Vec<f64>, exponent: i32, middle: usize) -> (Vec<f64>, i32) {
    if matrix[middle] > 1e140 {
        for entry in &mut matrix {
            *entry *= 1e-140;
        }
        return (matrix, exponent + 140);
    }
    (matrix, exponent)
}

/// P(D < d) for many numbers: Kolmogorov's limit and its first terms in 1/√n and 1/n (Pelz and Good 1976; Simard and L'Ecuyer
/// 2011, equation 3).
fn limit_cdf(n: f64, d: f64) -> f64 {
    let z = d * n.sqrt();
    if z < 0.2 {
        return 0.0;
    }
    let (z2, z4) = (z * z, z.powi(4));
    let z6 = z2 * z4;
    let (pi2, pi4, pi6) = (PI * PI, PI.powi(4), PI.powi(6));
    let (mut k0, mut k1, mut k2a, mut k2b) = (0.0, 0.0, 0.0, 0.0);
    let mut k3a = 0.0;
    let mut k3b = 0.0;
    for k in 0..20 {
        let half = f64::from(k) + 0.5;
        let (h2, h4, h6) = (half * half, half.powi(4), half.powi(6));
        let e = (-h2 * pi2 / (2.0 * z2)).exp();
        k0 += e;
        k1 += (pi2 * h2 - z2) * e;
        k2a +=
            (6.0 * z6 + 2.0 * z4 + pi2 * (2.0 * z4 - 5.0 * z2) * h2 + pi4 * (1.0 - 2.0 * z2) * h4)
                * e;
        k3a += (-30.0 * z6 - 90.0 * z6 * z2
            + pi2 * (135.0 * z4 - 96.0 * z6) * h2
            + pi4 * (212.0 * z4 - 60.0 * z2) * h4
            + pi6 * h6 * (5.0 - 30.0 * z2))
            * e;
        let whole = f64::from(k) + 1.0;
        let w2 = whole * whole;
        let e = (-w2 * pi2 / (2.0 * z2)).exp();
        k2b += pi2 * w2 * e;
        k3b += (3.0 * pi2 * z2 * w2 - pi4 * w2 * w2) * e;
    }
    let root = (2.0 * PI).sqrt();
    let half_root = (PI / 2.0).sqrt();
    k0 * root / z
        + k1 * 2.0 * half_root / (6.0 * z4) / n.sqrt()
        + (k2a * 2.0 * half_root / (72.0 * z6 * z) - k2b * 2.0 * half_root / (36.0 * z2 * z)) / n
        + (k3a * 2.0 * half_root / (6480.0 * z6 * z4) + k3b * 2.0 * half_root / (216.0 * z6))
            / (n * n.sqrt())
}

/// P(W² ≥ w) for n uniform numbers.
fn cramer_von_mises_tail(n: f64, w: f64) -> f64 {
    if w <= 1.0 / (12.0 * n) {
        return 1.0;
    }
    if w >= n / 3.0 {
        return 0.0;
    }
    (1.0 - limit_of_w2(w) * (1.0 + 1.0 / (12.0 * n)) - correction_of_w2(w) / n).clamp(0.0, 1.0)
}

/// P(W² < x) for n → ∞ (Csörgő and Faraway 1996, equation 1.2).
fn limit_of_w2(x: f64) -> f64 {
    series(|k| {
        let y = 4.0 * k + 1.0;
        let q = y * y / (16.0 * x);
        let factor = (ln_gamma(k + 0.5) - ln_gamma(k + 1.0)).exp() / (PI.powf(1.5) * x.sqrt());
        factor * y.sqrt() * scaled_bessel(0.25, q) * (-2.0 * q).exp()
    })
}

/// The factor of 1/n in P(W² < x), without the twelfth of the limit (Csörgő and Faraway 1996, equation 1.10).
fn correction_of_w2(x: f64) -> f64 {
    let second = |y: f64| {
        let z = y * y / 4.0;
        let b = scaled_bessel(0.25, z) + scaled_bessel(0.75, z);
        (-2.0 * z).exp() * (y / 2.0).powf(1.5) * b / PI.sqrt()
    };
    let third = |y: f64| {
        let z = y * y / 4.0;
        let b =
            2.0 * scaled_bessel(0.25, z) + 3.0 * scaled_bessel(0.75, z) - scaled_bessel(1.25, z);
        (-2.0 * z).exp() / PI.sqrt() * (y / 2.0).powf(2.5) * b
    };
    let (root, y1, y2) = (2.0 * x.sqrt(), x.powf(0.75), x.powf(1.25));
    series(|k| {
        let m = 2.0 * k + 1.0;
        let (g, next) = (gamma(k + 0.5), gamma(k + 1.5));
        let sum = m * g * second((4.0 * k + 3.0) / root) / (9.0 * y1)
            + g * third((4.0 * k + 1.0) / root) / (72.0 * y2)
            + 2.0 * (m + 2.0) * next * third((4.0 * k + 5.0) / root) / (12.0 * y2)
            + 7.0 * m * g * second((4.0 * k + 1.0) / root) / (144.0 * y1)
            + 7.0 * m * g * second((4.0 * k + 5.0) / root) / (144.0 * y1);
        -sum / (PI * gamma(k + 1.0))
    })
}

/// Sums terms until they no longer matter.
fn series(term: impl Fn(f64) -> f64) -> f64 {
    let mut sum = 0.0;
    for k in 0..100 {
        let next = term(f64::from(k));
        sum += next;
        if next.abs() < 1e-15 {
            break;
        }
    }
    sum
}

/// The modified Bessel function of the second kind and of order ν, times eᶻ: ∫₀^∞ exp(−z (cosh t − 1)) cosh(ν t) dt (DLMF 10.32.9), by
/// the trapezoidal rule, which converges geometrically here.
fn scaled_bessel(nu: f64, z: f64) -> f64 {
    const STEP: f64 = 1.0 / 64.0;
    let mut sum = 0.5;
    for i in 1..4096 {
        let t = f64::from(i) * STEP;
        let term = (-z * (t.cosh() - 1.0)).exp() * (nu * t).cosh();
        sum += term;
        if term < 1e-18 * sum {
            break;
        }
    }
    sum * STEP
}
