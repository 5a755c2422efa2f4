//! Keys and values of the tokens that a model has read.

use crate::attention::Host;
use burn::tensor::{Int, Tensor, TensorData};

/// What some sequences have read: equally many tokens each.
#[derive(Debug)]
pub(crate) enum Cache {
    /// Where burn computes.
    Tensors(Tensors),
    /// Where we do: on the CPU in f32.
    Host(Host),
}

/// One entry for each layer.
#[derive(Debug)]
pub(crate) struct Tensors {
    layers: Vec<Option<KeysAndValues>>,
}

/// Keys and values of one layer: `[sequences, heads, tokens, head size]`.
#[derive(Clone, Debug)]
pub(crate) struct KeysAndValues {
    pub(crate) keys: Tensor<4>,
    pub(crate) values: Tensor<4>,
}

impl Cache {
    /// The sequences of all `caches`, one cache after another; None where there is none.
    pub(crate) fn of_all(caches: Vec<Self>) -> Option<Self> {
        caches.into_iter().reduce(|all, next| match (all, next) {
            (Self::Tensors(all), Self::Tensors(next)) => Self::Tensors(all.with(next)),
            (Self::Host(all), Self::Host(next)) => Self::Host(all.with(next)),
            _ => unreachable!("the caches of one model are of one kind"),
        })
    }

    /// Tokens read so far.
    pub(crate) fn n_tokens(&self) -> usize {
        match self {
            Self::Tensors(tensors) => tensors.n_tokens(),
            Self::Host(host) => host.n_tokens(),
        }
    }

    /// Takes out the sequences at these places, as if they had read `n_tokens` and no more. What is left at their places
    /// is for [`Cache::keep`] to drop.
    pub(crate) fn take(&mut self, places: &[usize], n_tokens: usize) -> Self {
        match self {
            Self::Tensors(tensors) => Self::Tensors(tensors.copy(places, n_tokens)),
            Self::Host(host) => Self::Host(host.take(places, n_tokens)),
        }
    }

    /// Keeps the sequences at these places only, which ascend.
    pub(crate) fn keep(&mut self, places: &[usize]) {
        match self {
            Self::Tensors(tensors) => tensors.keep(places),
            Self::Host(host) => host.keep(places),
        }
    }
}

impl Tensors {
    /// Nothing read yet.
    pub(crate) fn new(n_layers: usize) -> Self {
        Self {
            layers: vec![None; n_layers],
        }
    }

    fn n_tokens(&self) -> usize {
        self.layers
            .first()
            .and_then(Option::as_ref)
            .map_or(0, |layer| layer.keys.dims()[2])
    }

    /// Appends what a layer made of further tokens, and gives all of them.
    pub(crate) fn extend(&mut self, layer: usize, new: KeysAndValues) -> KeysAndValues {
        let all = match self.layers[layer].take() {
            None => new,
            Some(old) => old.with(new, 2),
        };
        self.layers[layer] = Some(all.clone());
        all
    }

    fn with(self, next: Self) -> Self {
        let layers = self.layers.into_iter().zip(next.layers);
        let layers = layers.map(|(all, next)| Some(all?.with(next?, 0)));
        Self {
            layers: layers.collect(),
        }
    }

    fn copy(&self, places: &[usize], n_tokens: usize) -> Self {
        let layers = self.layers.iter().map(|layer| {
            let chosen = layer.as_ref()?.at(places);
            Some(KeysAndValues {
                keys: chosen.keys.narrow(2, 0, n_tokens),
                values: chosen.values.narrow(2, 0, n_tokens),
            })
        });
        Self {
            layers: layers.collect(),
        }
    }

    fn keep(&mut self, places: &[usize]) {
        for layer in self.layers.iter_mut().flatten() {
            *layer = layer.at(places);
        }
    }
}

impl KeysAndValues {
    /// Puts `next` behind, along a dimension.
    fn with(self, next: Self, dimension: usize) -> Self {
        Self {
            keys: Tensor::cat(vec![self.keys, next.keys], dimension),
            values: Tensor::cat(vec![self.values, next.values], dimension),
        }
    }

    /// Those of the sequences at these places.
    fn at(&self, places: &[usize]) -> Self {
        // Far below 2³¹.
        let ids = places.iter().map(|&place| i32::try_from(place));
        let ids: Vec<i32> = ids.map(|place| place.unwrap_or(i32::MAX)).collect();
        let ids = TensorData::new(ids, [places.len()]);
        let places: Tensor<1, Int> = Tensor::from_data(ids, &self.keys.device());
        Self {
            keys: self.keys.clone().select(0, places.clone()),
            values: self.values.clone().select(0, places),
        }
    }
}
