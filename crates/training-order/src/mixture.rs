//! Datasets with their own orders, mixed: what GPT-NeoX calls the training, validation or test dataset.

use crate::blend::{Blend, normalized};
use crate::index_map::{DocumentSpan, IndexMap, MapError, MapFiles};
use crate::loader::{Items, Part};
use crate::mmididx::{Dataset, ReadError};
use crate::order::OrderError;
use std::ops::Range;

/// One dataset, or several in a mixture; sequences by their place in it.
#[derive(Debug)]
pub struct Mixture {
    members: Vec<Member>,
    /// `None` for one member, whose blend is the identity.
    blend: Option<Blend>,
}

/// A dataset with its own order.
#[derive(Debug)]
pub struct Member {
    dataset: Dataset,
    map: IndexMap,
}

impl Mixture {
    /// Builds the dataset of `part` so that it can serve `n_sequences`, from datasets with their weights.
    ///
    /// # Errors
    ///
    /// When a size cannot be read, a dataset holds fewer than 2 tokens, the maps would outgrow their numbers, or
    /// the weights are none.
    pub fn build(
        datasets: Vec<(Dataset, f64)>,
        part: Part,
        items: &Items,
        n_sequences: u64,
        sequence_length: u32,
        seed: u32,
    ) -> Result<Self, OrderError> {
        let weights: Vec<f64> = datasets.iter().map(|(_, weight)| *weight).collect();
        let usable = weights
            .iter()
            .all(|weight| weight.is_finite() && *weight >= 0.0);
        let sum: f64 = weights.iter().sum();
        if !usable || !sum.is_finite() || sum <= 0.0 {
            return Err(OrderError::Weights { weights });
        }
        if weights.len() > 256 {
            return Err(OrderError::Mixture {
                n_members: weights.len(),
                n_samples: n_sequences,
            });
        }
        let shares = normalized(&weights);
        let mut members = Vec::with_capacity(datasets.len());
        for ((dataset, _), share) in datasets.into_iter().zip(&shares) {
            let range = items.of(part, dataset.n_items());
            let n_samples = items.n_samples(n_sequences, *share);
            let map = IndexMap::build(&dataset, range, n_samples, sequence_length, seed)?;
            members.push(Member { dataset, map });
        }
        let mut mixture = Self {
            members,
            blend: None,
        };
        if mixture.members.len() > 1 {
            let len = u32::try_from(mixture.len()).ok();
            let blend = len.and_then(|len| Blend::build(&shares, len));
            mixture.blend = Some(blend.ok_or_else(|| OrderError::Mixture {
                n_members: mixture.members.len(),
                n_samples: mixture.len(),
            })?);
        }
        Ok(mixture)
    }

    /// Takes the order of one dataset from the maps that GPT-NeoX has written for it.
    ///
    /// # Errors
    ///
    /// When the maps are damaged, or belong to another corpus or sequence length.
    pub fn from_maps(
        dataset: Dataset,
        files: &MapFiles,
        sequence_length: u32,
    ) -> Result<Self, MapError> {
        let map = IndexMap::from_files(&dataset, files, sequence_length)?;
        Ok(Self {
            members: vec![Member { dataset, map }],
            blend: None,
        })
    }

    /// The datasets, in the order of the configuration.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How several datasets are mixed.
    pub fn blend(&self) -> Option<&Blend> {
        self.blend.as_ref()
    }

    /// Its length as GPT-NeoX gives it: one less for each member than the samples built.
    pub fn len(&self) -> u64 {
        self.members.iter().map(|member| member.map.len()).sum()
    }

    /// Whether it serves nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Member and sample at a place; `None` beyond the end.
    pub fn place(&self, place: u64) -> Option<(usize, u32)> {
        let (member, place) = match &self.blend {
            None => (0, place),
            Some(blend) => {
                let place = usize::try_from(place).ok()?;
                (
                    usize::from(*blend.members().get(place)?),
                    u64::from(*blend.places().get(place)?),
                )
            }
        };
        Some((member, self.members.get(member)?.map.served(place)?))
    }

    /// Appends the ids of `tokens` of the sequence at a place, which has `sequence_length + 1`; `None` beyond the
    /// end.
    ///
    /// # Errors
    ///
    /// When a document cannot be read.
    pub fn read_tokens(
        &self,
        place: u64,
        tokens: Range<u32>,
        into: &mut Vec<u32>,
    ) -> Option<Result<(), ReadError>> {
        let (member, sample) = self.place(place)?;
        let Member { dataset, map } = &self.members[member];
        Some(map.read_tokens(dataset, sample, tokens, into))
    }

    /// The documents that the sequence at a place is cut from; `None` beyond the end.
    ///
    /// # Errors
    ///
    /// When a size cannot be read.
    pub fn documents(&self, place: u64) -> Option<Result<Vec<DocumentSpan>, ReadError>> {
        let (member, sample) = self.place(place)?;
        let Member { dataset, map } = &self.members[member];
        Some(map.documents(dataset, sample))
    }
}

impl Member {
    /// The tokens.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Its own order.
    pub fn index_map(&self) -> &IndexMap {
        &self.map
    }
}
