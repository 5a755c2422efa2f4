//! Whether counts vary more than chance, or in one direction.

use super::normal_tail;
use super::trend::{Bin, sums};
use statrs::distribution::{ChiSquared, ContinuousCDF};

/// How much counts vary, relative to hits that fall on any probe alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispersion {
    /// Σ (hits − n·p)² / (n·p·(1 − p)) / (K − 1): 1 where hits are Bernoulli with one rate p.
    pub index: f64,
    /// Two-sided p by χ² with K − 1 degrees of freedom.
    pub p: f64,
}

/// The dispersion of bins; `None` for fewer than two, and where no probe or every probe is a hit.
pub fn dispersion(bins: &[Bin]) -> Option<Dispersion> {
    let (hits, n) = sums(bins);
    let rate = hits / n;
    #[expect(clippy::cast_precision_loss, reason = "a number of bins")]
    let free = bins.len() as f64 - 1.0;
    let chi_squared = ChiSquared::new(free).ok()?;
    let statistic: f64 = bins
        .iter()
        .map(|bin| (bin.hits - bin.n * rate).powi(2) / (bin.n * rate * (1.0 - rate)))
        .sum();
    let p = 2.0 * chi_squared.sf(statistic).min(chi_squared.cdf(statistic));
    statistic.is_finite().then_some(Dispersion {
        index: statistic / free,
        p,
    })
}

/// Kendall's correlation of rates with time (Mann 1945, Kendall 1938).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannKendall {
    /// Kendall's τ, its form b.
    pub tau: f64,
    /// Two-sided p by the normal approximation with ties.
    pub p: f64,
}

/// Kendall's correlation of the bins' rates with their time; `None` for fewer than three bins, and where all rates are equal.
pub fn mann_kendall(bins: &[Bin]) -> Option<MannKendall> {
    let mut bins = bins.to_vec();
    bins.sort_by(|a, b| a.t.total_cmp(&b.t));
    let rates: Vec<f64> = bins.iter().map(|bin| bin.hits / bin.n).collect();
    if rates.len() < 3 {
        return None;
    }
    let mut s = 0.0;
    for (place, a) in rates.iter().enumerate() {
        for b in &rates[place + 1..] {
            s += match a.partial_cmp(b)? {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Equal => 0.0,
                std::cmp::Ordering::Greater => -1.0,
            };
        }
    }
    let mut sorted = rates.clone();
    sorted.sort_by(f64::total_cmp);
    let groups = sorted.chunk_by(|a, b| a.total_cmp(b).is_eq());
    #[expect(clippy::cast_precision_loss, reason = "a number of bins")]
    let (tied, tied_variance) = groups.fold((0.0, 0.0), |(pairs, variance), group| {
        let n = group.len() as f64;
        (
            pairs + n * (n - 1.0) / 2.0,
            variance + n * (n - 1.0) * (2.0 * n + 5.0),
        )
    });
    #[expect(clippy::cast_precision_loss, reason = "a number of bins")]
    let n = rates.len() as f64;
    let pairs = n * (n - 1.0) / 2.0;
    let variance = (n * (n - 1.0) * (2.0 * n + 5.0) - tied_variance) / 18.0;
    let p = 2.0 * normal_tail(f64::abs(s) / variance.sqrt());
    (variance > 0.0).then(|| MannKendall {
        tau: s / (pairs * (pairs - tied)).sqrt(),
        p: p.min(1.0),
    })
}
