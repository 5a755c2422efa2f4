//! Whether a number that is not yes or no goes with time: Spearman's correlation.

use super::student;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use rayon::prelude::*;
use statrs::distribution::ContinuousCDF;

/// Spearman's rank correlation of values with time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankTrend {
    /// Positive where values grow with time. Equal numbers share the mean of their ranks.
    pub rho: f64,
    /// Two-sided p by t(n − 2), as scipy's `spearmanr` gives it.
    pub p: f64,
    /// (1 + permutations with |ρ| no smaller) / (1 + permutations); `None` without permutations.
    pub permutation_p: Option<f64>,
}

/// Ranks times and values, and permutes the values `n_permutations` times for a p that asks for no distribution.
///
/// Permutation i is shuffled by xoshiro256++ seeded with the first number of xoshiro256++ seeded with `seed`, plus i: the same
/// for any number of threads. Time is O(n log n) and O(n) for each permutation; memory beside the two slices, 4 bytes a
/// value, as much again for each thread that permutes, and while unsorted numbers are ranked their own size and 4 to 8 bytes.
///
/// `None` for fewer than 3 values (or more than 2³⁰), where all times or all values are equal, and with a NaN among them.
pub fn rank_trend<T: Number, V: Number>(
    times: &[T],
    values: &[V],
    n_permutations: u32,
    seed: u64,
) -> Option<RankTrend> {
    debug_assert_eq!(times.len(), values.len(), "a value at each time");
    if times.len() < 3 || times.len() > 1 << 30 {
        return None;
    }
    let (times, values) = (ranks(times)?, ranks(values)?);
    let covariance = product(&times, &values);
    let spread = |ranks: &[i32]| as_f64(product(ranks, ranks)).sqrt();
    let rho = as_f64(covariance) / (spread(&times) * spread(&values));
    if !rho.is_finite() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 2³⁰")]
    let free = times.len() as f64 - 2.0;
    let t = rho * (free / ((1.0 + rho) * (1.0 - rho)).max(0.0)).sqrt();
    let first = Xoshiro256PlusPlus::seed_from_u64(seed).random::<u64>();
    let is_as_far = |scratch: &mut Vec<i32>, i: u32| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(first.wrapping_add(u64::from(i)));
        scratch.clone_from(&values);
        scratch.shuffle(&mut random);
        u32::from(product(&times, scratch).abs() >= covariance.abs())
    };
    let n_as_far: u32 = (0..n_permutations)
        .into_par_iter()
        .map_init(Vec::new, is_as_far)
        .sum();
    let permutation_p = f64::from(n_as_far + 1) / (f64::from(n_permutations) + 1.0);
    Some(RankTrend {
        rho,
        p: 2.0 * student(free)?.sf(t.abs()),
        permutation_p: (n_permutations > 0).then_some(permutation_p),
    })
}

/// What can be ranked and averaged: `u32`, `f32`, `f64`.
pub trait Number: Copy + Into<f64> + PartialOrd + Send + Sync {}

impl<T: Copy + Into<f64> + PartialOrd + Send + Sync> Number for T {}

/// Twice the distance of each number's rank from the mean rank: whole numbers, so that sums are exact in any order. `None` with
/// a NaN among them.
fn ranks<T: Number>(numbers: &[T]) -> Option<Vec<i32>> {
    if numbers
        .iter()
        .any(|number| number.partial_cmp(number).is_none())
    {
        return None;
    }
    let n = i32::try_from(numbers.len()).ok()?;
    let mut ranks = vec![0; numbers.len()];
    let mut below = 0;
    // Numbers that are equal hold the places from `below` on.
    let mut shared = |n_equal: usize| {
        let n_equal = i32::try_from(n_equal).unwrap_or(n);
        let rank = 2 * below + n_equal - n;
        below += n_equal;
        rank
    };
    if numbers.is_sorted() {
        let mut rest = ranks.as_mut_slice();
        for equal in numbers.chunk_by(T::eq) {
            let (these, others) = rest.split_at_mut(equal.len());
            these.fill(shared(equal.len()));
            rest = others;
        }
    } else {
        let mut sorted: Vec<(T, i32)> = numbers.iter().copied().zip(0..).collect();
        sorted.par_sort_unstable_by(|a, b| {
            a.0.partial_cmp(&b.0).unwrap_or(std::cmp::Ordering::Equal)
        });
        for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
            let rank = shared(equal.len());
            for (_, place) in equal {
                ranks[usize::try_from(*place).unwrap_or(0)] = rank;
            }
        }
    }
    Some(ranks)
}

/// Σ a · b.
fn product(a: &[i32], b: &[i32]) -> i128 {
    let products = a.iter().zip(b).map(|(a, b)| i64::from(*a) * i64::from(*b));
    products.map(i128::from).sum()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits of a correlation are enough"
)]
fn as_f64(sum: i128) -> f64 {
    sum as f64
}
