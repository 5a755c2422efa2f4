//! The maps of one dataset, from its sizes and a seed.

use super::{BuildError, IndexMap, LIMIT, MAX_EPOCHS, Numbers, STRIDE, Starts};
use crate::mmididx::{Dataset, ReadError};
use crate::numpy_random::RandomState;
use std::collections::TryReserveError;
use std::ops::Range;

impl IndexMap {
    /// Builds the maps as GPT-NeoX does when asked for `n_samples` samples of `sequence_length + 1`
    /// tokens.
    ///
    /// Whole epochs are built, as many as `n_samples` needs; all copies of a document are in one
    /// shuffle.
    ///
    /// # Errors
    ///
    /// When a size cannot be read, there are fewer than 2 tokens, the samples need more than 65,534
    /// epochs, a map would have 2³² − 2 entries or more, or there is no memory for it.
    pub fn build(
        dataset: &Dataset,
        items: Range<u64>,
        n_samples: u64,
        sequence_length: u32,
        seed: u32,
    ) -> Result<Self, BuildError> {
        let tokens_per_epoch = n_tokens(dataset, items.clone())?;
        let path = || dataset.idx_path().to_owned();
        if tokens_per_epoch < 2 || sequence_length == 0 {
            return Err(BuildError::NoTokens {
                path: path(),
                items,
                n_tokens: tokens_per_epoch,
            });
        }
        let n_items = items.end - items.start;
        let n_epochs = epochs_for(n_samples, sequence_length, tokens_per_epoch);
        if n_epochs > MAX_EPOCHS {
            return Err(BuildError::TooManyEpochs {
                path: path(),
                n_samples,
                n_tokens: tokens_per_epoch,
                n_epochs,
                most: MAX_EPOCHS,
            });
        }
        let n_built = (n_epochs.saturating_mul(tokens_per_epoch) - 1) / u64::from(sequence_length);
        let too_large = || BuildError::TooLarge {
            path: path(),
            n_epochs,
            n_items,
            n_samples: n_built,
        };
        let narrow = |n: u64| {
            u32::try_from(n)
                .ok()
                .filter(|n| *n < LIMIT)
                .ok_or_else(too_large)
        };
        let n_documents = n_items.saturating_mul(n_epochs);
        narrow(n_documents)?;
        let items = narrow(items.start)?..narrow(items.end)?;
        let no_memory = |_: TryReserveError| BuildError::Memory {
            path: path(),
            n_documents,
            n_samples: n_built,
        };
        let (doc_idx, shuffle_idx) =
            permutations(items, narrow(n_epochs)?, narrow(n_built)?, seed).map_err(no_memory)?;

        let mut starts = Vec::new();
        let n_starts = usize::try_from(n_built / STRIDE + 1).map_err(|_| too_large())?;
        starts.try_reserve_exact(n_starts).map_err(no_memory)?;
        let (mut n_tokens, mut next) = (0, 0);
        for (place, &item) in (0_u32..).zip(&doc_idx) {
            let first = n_tokens;
            n_tokens += u64::from(dataset.item_len(u64::from(item))?);
            while next < n_tokens {
                starts.push([place, narrow(next - first)?]);
                next += STRIDE * u64::from(sequence_length);
            }
        }
        Ok(Self {
            doc_idx: Numbers::Held(doc_idx),
            shuffle_idx: Numbers::Held(shuffle_idx),
            starts: Starts::Remembered(starts),
            sequence_length,
            n_epochs,
            tokens_per_epoch,
        })
    }
}

/// `doc_idx` and `shuffle_idx`: `n_epochs` copies of `items` and the numbers below `n_samples`, shuffled with
/// one random state, in this order. This is all of an order that does not depend on the documents'
/// sizes.
///
/// # Errors
///
/// When there is no memory for them.
pub fn permutations(
    items: Range<u32>,
    n_epochs: u32,
    n_samples: u32,
    seed: u32,
) -> Result<(Vec<u32>, Vec<u32>), TryReserveError> {
    let first = RandomState::new(seed);
    let n_documents = items.len().saturating_mul(n_epochs as usize);
    let (mut doc_idx, mut shuffle_idx) = (Vec::new(), Vec::new());
    doc_idx.try_reserve_exact(n_documents)?;
    shuffle_idx.try_reserve_exact(n_samples as usize)?;
    // The second shuffle begins where the first one's draws end: they are made again, without the
    // swaps.
    rayon::join(
        || {
            (0..n_epochs).for_each(|_| doc_idx.extend(items.clone()));
            first.clone().shuffle(&mut doc_idx);
        },
        || {
            shuffle_idx.extend(0..n_samples);
            let mut random = first.clone();
            random.skip_shuffle(n_documents);
            random.shuffle(&mut shuffle_idx);
        },
    );
    Ok((doc_idx, shuffle_idx))
}

/// The tokens of some items. Maps are as long as this says, so that it is not believed beyond what
/// the `.bin` holds.
pub(super) fn n_tokens(dataset: &Dataset, items: Range<u64>) -> Result<u64, ReadError> {
    let sizes = items
        .clone()
        .map(|item| dataset.item_len(item).map(u64::from));
    let n_tokens = sizes.sum::<Result<u64, _>>()?;
    if n_tokens > dataset.n_tokens_held() {
        // Some item lies outside, or several share their tokens, which is allowed.
        items
            .into_iter()
            .try_for_each(|item| dataset.check_extent(item))?;
    }
    Ok(n_tokens)
}

/// The least number of epochs whose tokens make `n_samples` samples.
fn epochs_for(n_samples: u64, sequence_length: u32, tokens_per_epoch: u64) -> u64 {
    // (E · T − 1) / L ≥ n holds from E · T ≥ n · L + 1 on.
    let n_tokens = u128::from(n_samples) * u128::from(sequence_length) + 1;
    // Beyond 64 bits there is no saying how many: far more than are taken.
    u64::try_from(n_tokens.div_ceil(u128::from(tokens_per_epoch))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_those_of_the_reference_loop() {
        for tokens in 2..40 {
            for sequence_length in 1..9 {
                for n_samples in 0..30 {
                    let mut looped = 1;
                    while (looped * tokens - 1) / u64::from(sequence_length) < n_samples {
                        looped += 1;
                    }
                    assert_eq!(epochs_for(n_samples, sequence_length, tokens), looped);
                }
            }
        }
    }
}
