//! Weighted mixtures of datasets.
//!
//! Source: `megatron/data/blendable_dataset.py`, `build_blending_indices` in `megatron/data/helpers.cpp`, and
//! `get_normalized_weights_and_num_samples` and `weights_by_num_docs` in `megatron/data/data_utils.py`.

/// Which member serves each place of a blend, and with which of its own places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blend {
    /// GPT-NeoX's `dataset_index`.
    members: Vec<u8>,
    /// GPT-NeoX's `dataset_sample_index`: ordinals in the member's own order.
    places: Vec<u32>,
}

impl Blend {
    /// Blends members by their weights, `len` places long.
    ///
    /// Place by place, the member that lags most behind its weight is next; the first of several.
    /// `None` for more members than the 256 that a byte of `dataset_index` can name, or where there
    /// is no memory.
    pub fn build(weights: &[f64], len: u32) -> Option<Self> {
        let numbers = (0..=u8::MAX).take(weights.len());
        if numbers.len() < weights.len() {
            return None;
        }
        let sum = numpy_sum(weights);
        let weights: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let mut served = vec![0_u32; weights.len()];
        let mut blend = Self {
            members: Vec::new(),
            places: Vec::new(),
        };
        blend.members.try_reserve_exact(len as usize).ok()?;
        blend.places.try_reserve_exact(len as usize).ok()?;
        for place in 0..len {
            let wanted = f64::from(place.max(1));
            let mut next = 0_u8;
            let mut most = f64::NEG_INFINITY;
            for (member, (weight, served)) in numbers.clone().zip(weights.iter().zip(&served)) {
                // Product and difference are rounded one by one, as in the reference.
                let lag = weight * wanted - f64::from(*served);
                if lag > most {
                    (next, most) = (member, lag);
                }
            }
            blend.members.push(next);
            let served = served.get_mut(usize::from(next))?;
            blend.places.push(*served);
            *served += 1;
        }
        Some(blend)
    }

    /// The member that serves each place.
    pub fn members(&self) -> &[u8] {
        &self.members
    }

    /// The place in the member's own order.
    pub fn places(&self) -> &[u32] {
        &self.places
    }
}

/// The weights as GPT-NeoX normalizes them before it asks each member for its share of samples.
pub fn normalized(weights: &[f64]) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// `weight_by_num_documents`: weights from the members' numbers of documents, for the configuration's `alpha`.
///
/// The distribution p over documents is flattened to p^alpha, and large members are then weighted down.
pub fn weights_by_documents(n_documents: &[u64], alpha: f64) -> Vec<f64> {
    if n_documents.len() == 1 {
        // 1 − p is 0 here, and the reference divided by it (gpt-neox#810).
        return vec![1.0];
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "the reference computes in binary64"
    )]
    let counts: Vec<f64> = n_documents.iter().map(|n| *n as f64).collect();
    let shares = normalized(&counts);
    let flattened: Vec<f64> = shares.iter().map(|share| share.powf(alpha)).collect();
    let flattened = normalized(&flattened);
    let weighted: Vec<f64> = flattened
        .iter()
        .zip(&shares)
        .map(|(q, p)| q * (1.0 - p))
        .collect();
    normalized(&weighted)
}

/// `numpy.sum`: one by one below 8 numbers, eight sums side by side up to 128, halves beyond.
fn numpy_sum(numbers: &[f64]) -> f64 {
    if numbers.len() < 8 {
        return numbers.iter().sum();
    }
    if numbers.len() > 128 {
        let half = numbers.len() / 16 * 8;
        let (low, high) = numbers.split_at(half);
        return numpy_sum(low) + numpy_sum(high);
    }
    let (eights, rest) = numbers.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (place, eight) in eights.iter().enumerate() {
        for (sum, number) in sums.iter_mut().zip(eight) {
            *sum = if place == 0 { *number } else { *sum + number };
        }
    }
    let pairs = [
        sums[0] + sums[1],
        sums[2] + sums[3],
        sums[4] + sums[5],
        sums[6] + sums[7],
    ];
    let sum = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3]);
    rest.iter().fold(sum, |sum, number| sum + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_served_first() {
        let blend = Blend::build(&[1.0, 1.0], 6).unwrap();
        assert_eq!(blend.members(), [0, 1, 0, 1, 0, 1]);
        assert_eq!(blend.places(), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn one_member_serves_itself() {
        let blend = Blend::build(&[0.3], 4).unwrap();
        assert_eq!(blend.members(), [0; 4]);
        assert!(Blend::build(&[1.0; 256], 300).is_some_and(|blend| blend.members()[255] == 255));
        assert_eq!(Blend::build(&[1.0; 257], 1), None);
        assert_eq!(blend.places(), [0, 1, 2, 3]);
    }

    #[test]
    fn larger_members_are_weighted_down() {
        // p = (0.9, 0.1), alpha = 0.3: q ∝ (0.9^0.3, 0.1^0.3), then × (0.1, 0.9) and normalized.
        let weights = weights_by_documents(&[900, 100], 0.3);
        assert!((weights[0] - 0.176_818).abs() < 1e-5, "{weights:?}");
        assert!((weights[0] + weights[1] - 1.0).abs() < 1e-15);
        assert_eq!(weights_by_documents(&[7], 0.3), [1.0]);
    }
}
