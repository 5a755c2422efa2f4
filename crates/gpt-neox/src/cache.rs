//! Keys and values of the tokens that a model has read.

use burn::tensor::{Int, Tensor};

/// One entry for each layer.
#[derive(Debug)]
pub(crate) struct Cache {
    layers: Vec<Option<KeysAndValues>>,
}

/// Keys and values of one layer: `[sequences, heads, tokens, head size]`.
#[derive(Clone, Debug)]
pub(crate) struct KeysAndValues {
    pub(crate) keys: Tensor<4>,
    pub(crate) values: Tensor<4>,
}

impl Cache {
    /// Nothing read yet.
    pub(crate) fn new(n_layers: usize) -> Self {
        Self {
            layers: vec![None; n_layers],
        }
    }

    /// The sequences of all `caches`, which have read equally many tokens.
    pub(crate) fn of_all(caches: Vec<Self>) -> Self {
        let n_layers = caches.first().map_or(0, |cache| cache.layers.len());
        let mut caches = caches;
        let mut layer = |number: usize| {
            let parts = caches
                .iter_mut()
                .filter_map(|cache| cache.layers[number].take());
            let (keys, values): (Vec<_>, Vec<_>) =
                parts.map(|part| (part.keys, part.values)).unzip();
            Some(KeysAndValues {
                keys: Tensor::cat(keys, 0),
                values: Tensor::cat(values, 0),
            })
        };
        Self {
            layers: (0..n_layers).map(&mut layer).collect(),
        }
    }

    /// Tokens read so far.
    pub(crate) fn n_tokens(&self) -> usize {
        self.layers
            .first()
            .and_then(Option::as_ref)
            .map_or(0, |layer| layer.keys.dims()[2])
    }

    /// Appends what a layer made of further tokens, and gives all of them.
    pub(crate) fn extend(&mut self, layer: usize, new: KeysAndValues) -> KeysAndValues {
        let all = match self.layers[layer].take() {
            None => new,
            Some(old) => KeysAndValues {
                keys: Tensor::cat(vec![old.keys, new.keys], 2),
                values: Tensor::cat(vec![old.values, new.values], 2),
            },
        };
        self.layers[layer] = Some(all.clone());
        all
    }

    /// The sequences at these places, as if they had read `n_tokens` and no more.
    pub(crate) fn copy(&self, places: &Tensor<1, Int>, n_tokens: usize) -> Self {
        let copy = |all: &Tensor<4>| all.clone().select(0, places.clone()).narrow(2, 0, n_tokens);
        let layers = self.layers.iter().map(|layer| {
            layer.as_ref().map(|layer| KeysAndValues {
                keys: copy(&layer.keys),
                values: copy(&layer.values),
            })
        });
        Self {
            layers: layers.collect(),
        }
    }

    /// Keeps the sequences at these places only.
    pub(crate) fn keep(&mut self, places: &Tensor<1, Int>) {
        for layer in self.layers.iter_mut().flatten() {
            layer.keys = layer.keys.clone().select(0, places.clone());
            layer.values = layer.values.clone().select(0, places.clone());
        }
    }
}
