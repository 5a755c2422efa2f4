//! From a corpus of the run file to its training order.

use crate::config::{Corpus, Data, Weights};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use training_order::blend::{normalized, weights_by_documents};
use training_order::mmididx::Dataset;
use training_order::{Items, LoaderSettings, MapFiles, OrderError, TrainingOrder};

/// What the order of a corpus is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OrderSource {
    /// The loader's seed.
    Seed,
    /// GPT-NeoX's own files of the three maps.
    Maps,
    /// The corpus itself, which is in training order.
    Preshuffled,
}

/// A corpus whose files are open.
pub(crate) struct OpenCorpus {
    pub(crate) order: TrainingOrder,
    pub(crate) source: OrderSource,
    /// Every file that decides the order or the tokens.
    pub(crate) files: Vec<PathBuf>,
}

/// Opens the corpus' files and finds out in which order it was trained on.
///
/// # Errors
///
/// When a file is missing or damaged, does not belong to the others, or is too small for the run.
pub(crate) fn open(corpus: &Corpus) -> Result<OpenCorpus> {
    opened(corpus).with_context(|| format!("opening the corpus `{}`", corpus.name))
}

fn opened(corpus: &Corpus) -> Result<OpenCorpus> {
    let items = corpus
        .split
        .map_or(Items::TrainDataPaths, |split| Items::DataPath { split });
    let settings = LoaderSettings {
        items,
        sequence_length: corpus.sequence_length,
        batch_size: corpus.batch_size,
        n_steps: corpus.steps,
        seed: corpus.seed,
    };
    let (path, dataset) = match &corpus.data {
        Data::Mixture { members, weights } => {
            let paths = members;
            let open = |path: &PathBuf| Ok(Dataset::open(path)?);
            let members = members.iter().map(open).collect::<Result<Vec<_>>>()?;
            let weights = match weights {
                Weights::Given(weights) => weights.clone(),
                Weights::ByDocuments { alpha } => {
                    let n_documents: Vec<u64> = members.iter().map(Dataset::n_items).collect();
                    weights_by_documents(&n_documents, *alpha)
                }
            };
            for (number, (path, share)) in (0_usize..).zip(paths.iter().zip(normalized(&weights))) {
                // Mixtures are rebuilt, not read from maps: only those of another packing matter.
                maps_beside(path, &format!("train_{number}"), share, &settings)?;
            }
            let members = members.into_iter().zip(weights).collect();
            let order = TrainingOrder::blended(members, &settings)?;
            return Ok(OpenCorpus::new(order, OrderSource::Seed, Vec::new()));
        }
        Data::One(path) => (path, Dataset::open(path)?),
    };
    let order = match corpus.order {
        None if dataset.looks_preshuffled(settings.sequence_length)? => {
            Some(OrderSource::Preshuffled)
        }
        order => order,
    };
    let maps = match (&corpus.maps, order) {
        (Some(prefix), _) => Some(MapFiles::with_prefix(prefix)),
        (None, Some(OrderSource::Seed | OrderSource::Preshuffled)) => None,
        (None, Some(OrderSource::Maps) | None) => beside(path, &settings)?,
    };
    let source = match order {
        Some(source) => source,
        None if maps.is_some() => OrderSource::Maps,
        None => OrderSource::Seed,
    };
    Ok(match source {
        OrderSource::Seed => OpenCorpus::new(
            TrainingOrder::from_seed(dataset, &settings)?,
            source,
            Vec::new(),
        ),
        OrderSource::Preshuffled => OpenCorpus::new(
            TrainingOrder::preshuffled(dataset, &settings)?,
            source,
            Vec::new(),
        ),
        OrderSource::Maps => {
            let maps = maps.unwrap_or_else(|| MapFiles::with_prefix(path));
            let order = TrainingOrder::from_maps(dataset, &maps, &settings)?;
            OpenCorpus::new(
                order,
                source,
                vec![maps.doc_idx, maps.sample_idx, maps.shuffle_idx],
            )
        }
    })
}

/// The maps that GPT-NeoX left beside a lone corpus, under the name it would look for.
///
/// # Errors
///
/// When they were made by another packing than `packed`.
fn beside(path: &Path, settings: &LoaderSettings) -> Result<Option<MapFiles>, OrderError> {
    let name = if settings.items == Items::TrainDataPaths {
        "train_0"
    } else {
        "train"
    };
    maps_beside(path, name, 1.0, settings)
}

/// The maps that GPT-NeoX left beside a corpus that serves this share of the run.
///
/// # Errors
///
/// When they were made by another packing than `packed`.
fn maps_beside(
    path: &Path,
    name: &str,
    share: f64,
    settings: &LoaderSettings,
) -> Result<Option<MapFiles>, OrderError> {
    let n_sequences = u64::from(settings.n_steps) * u64::from(settings.batch_size);
    let n_samples = settings.items.n_samples(n_sequences, share);
    let found = MapFiles::find(
        path,
        name,
        n_samples,
        settings.sequence_length,
        settings.seed,
    );
    Ok(found?)
}

impl OpenCorpus {
    fn new(order: TrainingOrder, source: OrderSource, maps: Vec<PathBuf>) -> Self {
        let data = order
            .datasets()
            .flat_map(Dataset::paths)
            .map(Path::to_owned);
        let files = data.chain(maps).collect();
        Self {
            order,
            source,
            files,
        }
    }
}

impl fmt::Display for OrderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seed => "rebuilt from the loader's seed",
            Self::Maps => "read from GPT-NeoX's maps",
            Self::Preshuffled => "the corpus' own: it is preshuffled",
        })
    }
}
