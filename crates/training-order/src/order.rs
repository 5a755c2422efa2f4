//! The order of a training run: which sequence at which step, and what stands in it.

use crate::index_map::{BuildError, DocumentSpan, IndexMap};
use crate::loader::Items;
use crate::mmididx::{Dataset, ReadError};
use crate::position::{BatchPosition, TrainingIndex};
use std::ops::Range;
use std::path::PathBuf;

/// The settings of a run that decide its order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderSettings {
    /// Which items are for training.
    pub items: Items,
    /// Context length in tokens; a sequence holds one more.
    pub sequence_length: u32,
    /// Sequences per optimizer step: micro-batch × accumulation × data-parallel size.
    pub batch_size: u32,
    /// Optimizer steps of the whole run.
    pub n_steps: u32,
    /// The loader's seed.
    pub seed: u32,
}

/// Every sequence of a training run, in its order.
#[derive(Debug)]
pub struct TrainingOrder {
    dataset: Dataset,
    map: IndexMap,
    settings: LoaderSettings,
}

/// Why a corpus gives no order for a run.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Its maps cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A setting that counts something is zero.
    #[error(
        "a run of {n_steps} steps of {batch_size} sequences of {sequence_length} tokens has nothing to order"
    )]
    Nothing {
        /// Steps given.
        n_steps: u32,
        /// Batch size given.
        batch_size: u32,
        /// Sequence length given.
        sequence_length: u32,
    },
    /// The loader ends before the run does.
    #[error(
        "`{path}`: the loader ends after {found} sequences, {n_steps} steps of {batch_size} need {needed}"
    )]
    Exhausted {
        /// The `.idx`.
        path: PathBuf,
        /// Sequences it serves.
        found: u64,
        /// Steps of the run.
        n_steps: u32,
        /// Sequences per step.
        batch_size: u32,
        /// Sequences the run needs.
        needed: u64,
    },
}

impl TrainingOrder {
    /// Rebuilds the order as GPT-NeoX does from a tokenized corpus and the loader's seed.
    ///
    /// # Errors
    ///
    /// When a size cannot be read, the corpus holds fewer than 2 tokens, the maps would outgrow their numbers,
    /// or the loader would end before the run.
    pub fn from_seed(dataset: Dataset, settings: &LoaderSettings) -> Result<Self, OrderError> {
        let LoaderSettings {
            items,
            sequence_length,
            batch_size,
            n_steps,
            seed,
        } = *settings;
        if sequence_length == 0 || batch_size == 0 || n_steps == 0 {
            return Err(OrderError::Nothing {
                n_steps,
                batch_size,
                sequence_length,
            });
        }
        let needed = u64::from(n_steps) * u64::from(batch_size);
        let training = items.training(dataset.n_items());
        let map = IndexMap::build(
            &dataset,
            training,
            items.n_samples(needed),
            sequence_length,
            seed,
        )?;
        if map.len() < needed {
            let path = dataset.idx_path().to_owned();
            return Err(OrderError::Exhausted {
                path,
                found: map.len(),
                n_steps,
                batch_size,
                needed,
            });
        }
        Ok(Self {
            dataset,
            map,
            settings: *settings,
        })
    }

    /// The corpus.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The maps behind the order.
    pub fn index_map(&self) -> &IndexMap {
        &self.map
    }

    /// Context length in tokens; a sequence holds one more.
    pub fn sequence_length(&self) -> u32 {
        self.settings.sequence_length
    }

    /// Sequences per optimizer step.
    pub fn batch_size(&self) -> u32 {
        self.settings.batch_size
    }

    /// Optimizer steps of the run.
    pub fn n_steps(&self) -> u32 {
        self.settings.n_steps
    }

    /// Sequences the run consumes.
    pub fn n_sequences(&self) -> u64 {
        u64::from(self.settings.n_steps) * u64::from(self.settings.batch_size)
    }

    /// How often the run goes through the corpus: tokens consumed / tokens of one epoch.
    pub fn epochs(&self) -> f64 {
        let consumed = self.n_sequences() * u64::from(self.settings.sequence_length);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for a person to read")]
        let epochs = consumed as f64 / self.map.tokens_per_epoch() as f64;
        epochs
    }

    /// The step that consumed a sequence, and its place in the batch.
    ///
    /// Steps saturate at 2³² − 1, which no sequence of a run reaches.
    pub fn position(&self, index: TrainingIndex) -> BatchPosition {
        let batch_size = u64::from(self.settings.batch_size);
        let step = u32::try_from(index.get() / batch_size).unwrap_or(u32::MAX);
        // A remainder of a u32 is one.
        let row = u32::try_from(index.get() % batch_size).unwrap_or(u32::MAX);
        BatchPosition { step, row }
    }

    /// The row of `sample_idx` that a sequence is; `None` where the run has no such sequence.
    pub fn sample(&self, index: TrainingIndex) -> Option<u32> {
        if index.get() >= self.n_sequences() {
            return None;
        }
        self.map
            .shuffle_idx()
            .get(usize::try_from(index.get()).ok()?)
            .copied()
    }

    /// Appends the ids of `tokens` of a sequence to `into`; a sequence has `sequence_length + 1`.
    ///
    /// # Errors
    ///
    /// When the run has no such sequence or the sequence no such tokens, or a document cannot be read.
    pub fn read_tokens(
        &self,
        index: TrainingIndex,
        tokens: Range<u32>,
        into: &mut Vec<u32>,
    ) -> Result<(), ReadError> {
        let sample = self.sample_or_error(index)?;
        if tokens.start > tokens.end || tokens.end > self.settings.sequence_length + 1 {
            let len = u64::from(self.settings.sequence_length) + 1;
            return Err(ReadError::SequenceTokens {
                training_index: index.get(),
                len,
                asked: tokens,
            });
        }
        self.map.read_tokens(&self.dataset, sample, tokens, into)
    }

    /// The documents that a sequence is cut from, in its order.
    ///
    /// # Errors
    ///
    /// When the run has no such sequence, or a document's size cannot be read.
    pub fn documents(&self, index: TrainingIndex) -> Result<Vec<DocumentSpan>, ReadError> {
        self.map
            .documents(&self.dataset, self.sample_or_error(index)?)
    }

    fn sample_or_error(&self, index: TrainingIndex) -> Result<u32, ReadError> {
        let missing = || ReadError::Sequence {
            training_index: index.get(),
            n_sequences: self.n_sequences(),
        };
        self.sample(index).ok_or_else(missing)
    }
}

impl OrderError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Build(error) => error.hint(),
            Self::Nothing { .. } => None,
            Self::Exhausted { .. } => Some(
                "GPT-NeoX serves one sample fewer than it builds: the run that was trained had fewer steps, a smaller batch, or `train-data-paths` instead of a split"
                    .to_owned(),
            ),
        }
    }
}
