//! From a corpus of the run file to its training order.

use crate::config::Corpus;
use anyhow::{Context, Result};
use training_order::mmididx::Dataset;
use training_order::{Items, LoaderSettings, TrainingOrder};

/// Opens the corpus' files and rebuilds the order in which it was trained on.
///
/// # Errors
///
/// When a file is missing or damaged, or too small for the run.
pub(crate) fn open(corpus: &Corpus) -> Result<TrainingOrder> {
    let settings = LoaderSettings {
        items: Items::TrainDataPaths,
        sequence_length: corpus.sequence_length,
        batch_size: corpus.batch_size,
        n_steps: corpus.steps,
        seed: corpus.seed,
    };
    let opened = || -> Result<TrainingOrder> {
        let dataset = Dataset::open(&corpus.data)?;
        Ok(TrainingOrder::from_seed(dataset, &settings)?)
    };
    opened().with_context(|| format!("opening the corpus `{}`", corpus.name))
}
