//! `doc_idx`, `sample_idx` and `shuffle_idx` of one dataset, rebuilt from its sizes and a seed.
//!
//! Source: `megatron/data/gpt2_dataset.py` (`_build_index_mappings`, `_num_epochs`, `_build_doc_idx`,
//! `_build_shuffle_idx`) and `build_sample_idx` in `megatron/data/helpers.cpp`.

use crate::mmididx::{Dataset, ReadError};
use crate::numpy_random::RandomState;
use std::ops::Range;
use std::path::PathBuf;

/// Documents between two remembered positions in the token stream.
const STRIDE: usize = 64;

/// The three maps of one dataset.
///
/// `doc_idx` and `shuffle_idx` are held; `sample_idx` follows from the documents' sizes, because sample *s*
/// is nothing but the tokens `s · sequence_length ..= (s + 1) · sequence_length` of all documents put end to
/// end in the order of `doc_idx`.
#[derive(Debug)]
pub struct IndexMap {
    doc_idx: Vec<u32>,
    shuffle_idx: Vec<u32>,
    /// Tokens before every `STRIDE`-th entry of `doc_idx`.
    tokens_before: Vec<u64>,
    sequence_length: u32,
    n_epochs: u64,
    tokens_per_epoch: u64,
}

/// Tokens of one document, as they stand in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSpan {
    /// The item of the `.idx`.
    pub document: u64,
    /// The tokens, counted from the document's first; half-open.
    pub tokens: Range<u64>,
}

/// Why the maps of a dataset cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An item's size cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is nothing to cut samples from.
    #[error("`{path}`: the items {} to {} hold {n_tokens} tokens in all, at least 2 are needed", items.start, items.end)]
    NoTokens {
        /// The `.idx`.
        path: PathBuf,
        /// The items asked for, half-open.
        items: Range<u64>,
        /// Their tokens.
        n_tokens: u64,
    },
    /// A map would be larger than the numbers it holds.
    #[error(
        "`{path}`: {n_epochs} epochs of {n_items} items make {n_samples} samples, which is more than the maps can count"
    )]
    TooLarge {
        /// The `.idx`.
        path: PathBuf,
        /// The epochs needed.
        n_epochs: u64,
        /// Items of one epoch.
        n_items: u64,
        /// Samples they make.
        n_samples: u64,
    },
}

impl IndexMap {
    /// Builds the maps as GPT-NeoX does when asked for `n_samples` samples of `sequence_length + 1` tokens.
    ///
    /// Whole epochs are built, as many as `n_samples` needs; all copies of a document are in one shuffle.
    ///
    /// # Errors
    ///
    /// When a size cannot be read, there are fewer than 2 tokens, or a map would have 2³² − 2 entries or more.
    pub fn build(
        dataset: &Dataset,
        items: Range<u64>,
        n_samples: u64,
        sequence_length: u32,
        seed: u32,
    ) -> Result<Self, BuildError> {
        let path = || dataset.idx_path().to_owned();
        let mut tokens_per_epoch = 0;
        for item in items.clone() {
            tokens_per_epoch += u64::from(dataset.item_len(item)?);
        }
        if tokens_per_epoch < 2 || sequence_length == 0 {
            return Err(BuildError::NoTokens {
                path: path(),
                items,
                n_tokens: tokens_per_epoch,
            });
        }
        let n_items = items.end - items.start;
        let n_epochs = epochs_for(n_samples, sequence_length, tokens_per_epoch);
        let n_built = (n_epochs.saturating_mul(tokens_per_epoch) - 1) / u64::from(sequence_length);
        let fits = |n: u64| u32::try_from(n).ok().filter(|n| *n < u32::MAX - 1);
        let (Some(lo), Some(hi), Some(_), Some(n_built)) = (
            fits(items.start),
            fits(items.end),
            fits(n_items.saturating_mul(n_epochs)),
            fits(n_built),
        ) else {
            return Err(BuildError::TooLarge {
                path: path(),
                n_epochs,
                n_items,
                n_samples: n_built,
            });
        };

        // One random state for both shuffles, in this order.
        let mut random = RandomState::new(seed);
        let mut doc_idx: Vec<u32> = (0..n_epochs).flat_map(|_| lo..hi).collect();
        random.shuffle(&mut doc_idx);
        let mut shuffle_idx: Vec<u32> = (0..n_built).collect();
        random.shuffle(&mut shuffle_idx);

        let mut tokens_before = Vec::with_capacity(doc_idx.len() / STRIDE + 1);
        let mut n_tokens = 0;
        for (place, &item) in doc_idx.iter().enumerate() {
            if place % STRIDE == 0 {
                tokens_before.push(n_tokens);
            }
            n_tokens += u64::from(dataset.item_len(u64::from(item))?);
        }
        Ok(Self {
            doc_idx,
            shuffle_idx,
            tokens_before,
            sequence_length,
            n_epochs,
            tokens_per_epoch,
        })
    }

    /// Items in the order in which their tokens are put end to end.
    pub fn doc_idx(&self) -> &[u32] {
        &self.doc_idx
    }

    /// Samples in the order in which they are served.
    pub fn shuffle_idx(&self) -> &[u32] {
        &self.shuffle_idx
    }

    /// Where each sample begins: the place in `doc_idx` and the token in that document, `[n_samples + 1, 2]`.
    /// The last entry is where one more sample would begin.
    ///
    /// # Errors
    ///
    /// When a size cannot be read.
    pub fn sample_idx(&self, dataset: &Dataset) -> Result<Vec<[u64; 2]>, ReadError> {
        let later = (1..=self.shuffle_idx.len() as u64).map(|sample| {
            let (place, token) = self.locate(dataset, sample * u64::from(self.sequence_length))?;
            Ok([place as u64, token])
        });
        // The reference begins at the first document even when it is empty.
        std::iter::once(Ok([0, 0])).chain(later).collect()
    }

    /// Epochs built: whole ones, and more than the run may use.
    pub fn n_epochs(&self) -> u64 {
        self.n_epochs
    }

    /// Tokens of one epoch.
    pub fn tokens_per_epoch(&self) -> u64 {
        self.tokens_per_epoch
    }

    /// The length of the dataset as its `__len__` gives it: one less than the samples built, since 2021.
    pub fn len(&self) -> u64 {
        (self.shuffle_idx.len() as u64).saturating_sub(1)
    }

    /// Whether the dataset serves nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the ids of `tokens` of one sample to `into`; a sample has `sequence_length + 1`.
    ///
    /// # Errors
    ///
    /// When a document cannot be read.
    pub fn read_tokens(
        &self,
        dataset: &Dataset,
        sample: u32,
        tokens: Range<u32>,
        into: &mut Vec<u32>,
    ) -> Result<(), ReadError> {
        self.visit(dataset, sample, tokens, |document, tokens| {
            dataset.read(document, tokens, into)
        })
    }

    /// The documents that one sample is cut from, in its order.
    ///
    /// # Errors
    ///
    /// When a size cannot be read.
    pub fn documents(
        &self,
        dataset: &Dataset,
        sample: u32,
    ) -> Result<Vec<DocumentSpan>, ReadError> {
        let mut spans = Vec::new();
        self.visit(
            dataset,
            sample,
            0..self.sequence_length + 1,
            |document, tokens| {
                spans.push(DocumentSpan { document, tokens });
                Ok(())
            },
        )?;
        Ok(spans)
    }

    /// Calls `with` for each document that `tokens` of a sample are cut from.
    fn visit(
        &self,
        dataset: &Dataset,
        sample: u32,
        tokens: Range<u32>,
        mut with: impl FnMut(u64, Range<u64>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        debug_assert!(
            tokens.end <= self.sequence_length + 1 && (sample as usize) < self.shuffle_idx.len()
        );
        let mut missing = u64::from(tokens.end.saturating_sub(tokens.start));
        if missing == 0 {
            return Ok(());
        }
        let start = u64::from(sample) * u64::from(self.sequence_length) + u64::from(tokens.start);
        let (place, mut first) = self.locate(dataset, start)?;
        for &document in &self.doc_idx[place..] {
            let document = u64::from(document);
            let end = u64::from(dataset.item_len(document)?).min(first + missing);
            if first < end {
                with(document, first..end)?;
                missing -= end - first;
            }
            if missing == 0 {
                break;
            }
            first = 0;
        }
        Ok(())
    }

    /// The place in `doc_idx`, and the token in that document, of a token of the stream.
    fn locate(&self, dataset: &Dataset, token: u64) -> Result<(usize, u64), ReadError> {
        let block = self
            .tokens_before
            .partition_point(|&before| before <= token)
            .saturating_sub(1);
        let mut before = self.tokens_before[block];
        let mut place = block * STRIDE;
        loop {
            let after = before + u64::from(dataset.item_len(u64::from(self.doc_idx[place]))?);
            if token < after || place + 1 == self.doc_idx.len() {
                return Ok((place, token - before));
            }
            before = after;
            place += 1;
        }
    }
}

impl BuildError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.hint(),
            Self::NoTokens { .. } => {
                Some("use a larger corpus, or a split that gives training more items".to_owned())
            }
            Self::TooLarge { .. } => Some(
                "lower the number of steps or the batch size: the corpus is far too small for them"
                    .to_owned(),
            ),
        }
    }
}

/// The least number of epochs whose tokens make `n_samples` samples.
fn epochs_for(n_samples: u64, sequence_length: u32, tokens_per_epoch: u64) -> u64 {
    // (E · T − 1) / L ≥ n holds from E · T ≥ n · L + 1 on.
    let n_tokens = u128::from(n_samples) * u128::from(sequence_length) + 1;
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
