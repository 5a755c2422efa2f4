//! The architecture: GPT-NeoX, as in transformers' `modeling_gpt_neox.py`.
//!
//! Shapes: `b` sequences, `t` tokens, `e` hidden size, `h` heads, `d` head size, `v` vocabulary.

use crate::amx::Amx;
use crate::attention::{Angles, Host};
use crate::cache::{Cache, KeysAndValues, Tensors};
use crate::config::GptNeoxConfig;
use crate::device::{DeviceChoice, Gpu, Precision};
use crate::gelu::gelu;
use crate::linear::{Linear, Place};
use crate::product::Product;
use crate::threads;
use crate::weights::{Checkpoint, LoadError, in_layer};
use burn::tensor::activation::softmax;
use burn::tensor::module::{attention, layer_norm};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use std::path::Path;

/// A GPT-NeoX model with its weights on a device.
#[derive(Debug)]
pub struct GptNeox {
    config: GptNeoxConfig,
    choice: DeviceChoice,
    device: Device,
    gpu: Option<Gpu>,
    product: Product,
    /// Probes that are decided about together, where it was set.
    batch_size: Option<usize>,
    /// Of all but the output projection.
    dtype: DType,
    /// `[v, e]`
    embed_in: Tensor<2>,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    /// `[e, v]`, always in f32
    embed_out: Linear,
    /// Rotary position embedding (Su et al. 2021) on the first dimensions of each head.
    angles: Angles,
}

#[derive(Debug)]
struct Layer {
    input_layernorm: LayerNorm,
    post_attention_layernorm: LayerNorm,
    /// `[e, 3 · h · d]`: all queries, all keys, all values
    query_key_value: Linear,
    dense: Linear,
    dense_h_to_4h: Linear,
    dense_4h_to_h: Linear,
}

#[derive(Debug)]
struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
}

impl GptNeox {
    /// Looks whether a checkpoint can be loaded, without reading its weights: files, configuration, names,
    /// shapes and storage of all tensors.
    ///
    /// # Errors
    ///
    /// What is wrong with the checkpoint.
    pub fn check(folder: &Path) -> Result<GptNeoxConfig, LoadError> {
        Ok(Checkpoint::open(folder)?.config().clone())
    }

    /// Loads the checkpoint in `folder`, which is in Hugging Face layout: `config.json` and safetensors.
    ///
    /// # Errors
    ///
    /// When the device cannot be had, a file cannot be read, or the weights are not exactly those of the model
    /// that `config.json` describes.
    pub fn load(
        folder: &Path,
        device: DeviceChoice,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        let amx = match device {
            DeviceChoice::Cpu => Amx::get(),
            DeviceChoice::Gpu(..) => None,
        };
        Self::load_with(folder, device, precision, amx)
    }

    fn load_with(
        folder: &Path,
        device: DeviceChoice,
        precision: Precision,
        amx: Option<Amx>,
    ) -> Result<Self, LoadError> {
        threads::start()?;
        let checkpoint = Checkpoint::open(folder)?;
        let (opened, gpu) = device.open(precision)?;
        let product = gpu.map_or(Product::Plain, |gpu| gpu.product);
        let loader = Loader {
            checkpoint: &checkpoint,
            dtype: precision.dtype(),
            place: Place {
                device: opened,
                product,
                amx,
            },
        };
        let config = checkpoint.config().clone();
        let vocabulary = [config.vocab_size, config.hidden_size];
        let embed_out = if config.tie_word_embeddings {
            "gpt_neox.embed_in.weight"
        } else {
            "embed_out.weight"
        };
        let model = Self {
            embed_in: loader.tensor(checkpoint.read("gpt_neox.embed_in.weight")?, vocabulary),
            layers: (0..config.num_hidden_layers)
                .map(|layer| loader.layer(layer))
                .collect::<Result<_, _>>()?,
            final_layer_norm: loader.layer_norm("gpt_neox.final_layer_norm")?,
            embed_out: loader.place.linear(
                &checkpoint.read(embed_out)?,
                vocabulary,
                None,
                DType::F32,
            ),
            angles: loader.angles(),
            device: loader.place.device,
            dtype: loader.dtype,
            gpu,
            product,
            batch_size: None,
            choice: device,
            config,
        };
        checkpoint.check_unchanged()?;
        Ok(model)
    }

    /// The model's hyperparameters.
    pub fn config(&self) -> &GptNeoxConfig {
        &self.config
    }

    /// Where it runs.
    pub fn device(&self) -> DeviceChoice {
        self.choice
    }

    /// Has this many probes decided about together; without it, as many as the device's memory is good for.
    pub fn set_batch_size(&mut self, n: usize) {
        self.batch_size = Some(n.max(1));
    }

    pub(crate) fn given_batch_size(&self) -> Option<usize> {
        self.batch_size
    }

    pub(crate) fn gpu(&self) -> Option<Gpu> {
        self.gpu
    }

    /// Bytes of a number of all but the output projection.
    pub(crate) fn number_size(&self) -> usize {
        self.dtype.size()
    }

    /// A cache for sequences of at most `n_room` tokens, which have read none yet.
    pub(crate) fn cache(&self, n_sequences: usize, n_room: usize) -> Cache {
        if self.choice == DeviceChoice::Cpu && self.dtype == DType::F32 {
            Cache::Host(Host::new(&self.config, n_sequences, n_room))
        } else {
            Cache::Tensors(Tensors::new(self.config.num_hidden_layers))
        }
    }

    /// Reads further tokens, `[b, t]` row by row; the hidden states of the last `n_last` of them,
    /// `[b, n_last, e]`.
    pub(crate) fn read(
        &self,
        tokens: &[u32],
        n_sequences: usize,
        n_last: usize,
        cache: &mut Cache,
    ) -> Tensor<3> {
        let n_tokens = tokens.len() / n_sequences;
        let first = cache.n_tokens();
        let embedded = self.embed_in.clone().select(0, self.ids(tokens)); // [b · t, e]
        let mut x = embedded.reshape([n_sequences, n_tokens, self.config.hidden_size]);
        let rotation = self.rotation(first, n_tokens);
        for (number, layer) in self.layers.iter().enumerate() {
            // Later tokens need the keys and values of all; after the last layer nobody needs the rest.
            let n_queries = if number + 1 == self.layers.len() {
                n_last
            } else {
                n_tokens
            };
            let fused = layer
                .query_key_value
                .forward(layer.input_layernorm.forward(x.clone())); // [b, t, 3 · e]
            let attended = match cache {
                Cache::Host(host) => host.attend(number, fused, n_queries, &self.angles),
                Cache::Tensors(tensors) => {
                    self.attend(number, &fused, n_queries, &rotation, tensors)
                }
            };
            let attended = layer.dense.forward(attended);
            x = last(x, n_queries);
            x = if self.config.use_parallel_residual {
                let fed = layer.feed_forward(x.clone(), self.choice);
                x + attended + fed
            } else {
                let x = x + attended;
                let fed = layer.feed_forward(x.clone(), self.choice);
                x + fed
            };
        }
        x
    }

    /// The logits that follow from hidden states: `[b, t, e]` → `[b, t, v]`, in f32.
    pub(crate) fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.embed_out.forward(self.normed(hidden))
    }

    /// What the output projection reads, in f32: `[b, t, e]` → `[b, t, e]`
    pub(crate) fn normed(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.final_layer_norm.forward(hidden).cast(DType::F32)
    }

    /// `[e, v]`
    pub(crate) fn embed_out(&self) -> &Linear {
        &self.embed_out
    }

    /// Token ids as a tensor; they are far below 2³¹.
    pub(crate) fn ids(&self, ids: &[u32]) -> Tensor<1, Int> {
        let ids: Vec<i32> = ids
            .iter()
            .map(|&id| i32::try_from(id).unwrap_or(i32::MAX))
            .collect();
        let n = ids.len();
        Tensor::from_data(TensorData::new(ids, [n]), &self.device)
    }

    /// Attention of the last `n_queries` tokens to all: `[b, t, 3 · e]` → `[b, n_queries, e]`
    #[expect(clippy::many_single_char_names, reason = "the letters of the shapes")]
    fn attend(
        &self,
        layer: usize,
        fused: &Tensor<3>,
        n_queries: usize,
        rotation: &Rotation,
        cache: &mut Tensors,
    ) -> Tensor<3> {
        let [b, t, _] = fused.dims();
        let (h, d) = (self.config.num_attention_heads, self.config.head_size());
        let e = h * d;
        let part = |part: usize, first: usize| {
            let part = fused
                .clone()
                .slice([0..b, first..t, part * e..(part + 1) * e]);
            part.reshape([b, t - first, h, d]).swap_dims(1, 2) // [b, h, t − first, d]
        };
        let query = rotation.last(n_queries).apply(part(0, t - n_queries));
        let new = KeysAndValues {
            keys: rotation.apply(part(1, 0)),
            values: part(2, 0),
        };
        let all = cache.extend(layer, new);
        let attended = if self.product.is_plain(self.dtype) {
            self.attention(query, all)
        } else {
            self.attention_of_products(query, all)
        };
        attended.swap_dims(1, 2).reshape([b, n_queries, e])
    }

    /// softmax(q · kᵀ / √d) · v by burn: `[b, h, n, d]` → `[b, h, n, d]`
    fn attention(&self, query: Tensor<4>, all: KeysAndValues) -> Tensor<4> {
        // The causal mask is aligned to the last key: the queries are the last tokens.
        let options = AttentionModuleOptions {
            scale: None,
            softcap: None,
            is_causal: true,
        };
        // Scores of GPT-NeoX overflow f16, and bf16 does not tell large ones apart: they and their softmax are taken in f32.
        let wide = |x: Tensor<4>| {
            if self.dtype == DType::F32 {
                x
            } else {
                x.cast(DType::F32)
            }
        };
        let (keys, values) = (wide(all.keys), wide(all.values));
        attention(wide(query), keys, values, None, None, options).cast(self.dtype)
    }

    /// The same where burn's would round.
    fn attention_of_products(&self, query: Tensor<4>, all: KeysAndValues) -> Tensor<4> {
        let [_, _, n, d] = query.dims();
        let n_keys = all.keys.dims()[2];
        #[expect(clippy::cast_precision_loss, reason = "the size of a head")]
        let scale = 1.0 / (d as f32).sqrt();
        let scores = self.product.of(query, all.keys.swap_dims(2, 3)) * scale; // [b, h, n, n_keys]
        // The queries are the last tokens.
        let mask = (0..n).flat_map(|query| {
            let n_seen = n_keys - n + query + 1;
            let row = (0..n_keys).map(move |key| key < n_seen);
            row.map(|seen| if seen { 0.0 } else { f32::NEG_INFINITY })
        });
        let mask = TensorData::new(mask.collect::<Vec<f32>>(), [1, 1, n, n_keys]);
        let mask = Tensor::from_data(mask, (&self.device, DType::F32));
        self.product.of(softmax(scores + mask, 3), all.values)
    }

    /// The rotation of `n` positions from `first` on.
    fn rotation(&self, first: usize, n: usize) -> Rotation {
        let half = self.angles.n_dims / 2;
        let twice = |table: &[f32], sign: f32| {
            let rows = table[first * half..(first + n) * half].chunks_exact(half.max(1));
            let rows = rows.flat_map(|row| {
                let signed = row.iter().map(move |x| sign * x);
                signed.chain(row.iter().copied())
            });
            let data = TensorData::new(rows.collect::<Vec<f32>>(), [1, 1, n, 2 * half]);
            Tensor::from_data(data, (&self.device, self.dtype))
        };
        Rotation {
            n_dims: 2 * half,
            cos: twice(&self.angles.cos, 1.0),
            sin: twice(&self.angles.sin, -1.0),
        }
    }
}

impl Layer {
    /// `[b, t, e]` → `[b, t, e]`
    fn feed_forward(&self, x: Tensor<3>, device: DeviceChoice) -> Tensor<3> {
        let normed = self.post_attention_layernorm.forward(x);
        let inner = gelu(self.dense_h_to_4h.forward(normed), device);
        self.dense_4h_to_h.forward(inner)
    }
}

impl LayerNorm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        layer_norm(x, self.weight.clone(), Some(self.bias.clone()), self.eps)
    }
}

/// The rotation of some positions.
struct Rotation {
    n_dims: usize,
    /// `[1, 1, t, n_dims]`
    cos: Tensor<4>,
    /// `[1, 1, t, n_dims]`, the first half negated
    sin: Tensor<4>,
}

impl Rotation {
    /// For the last `n` positions only.
    fn last(&self, n: usize) -> Self {
        let last = |table: &Tensor<4>| {
            let n_tokens = table.dims()[2];
            table.clone().narrow(2, n_tokens - n, n)
        };
        Self {
            n_dims: self.n_dims,
            cos: last(&self.cos),
            sin: last(&self.sin),
        }
    }

    /// `[b, h, t, d]` → `[b, h, t, d]`
    #[expect(clippy::many_single_char_names, reason = "the letters of the shapes")]
    fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, h, t, d] = x.dims();
        let n = self.n_dims;
        if n == 0 {
            return x;
        }
        let slice = |from: usize, to: usize| x.clone().slice([0..b, 0..h, 0..t, from..to]);
        let halves_swapped = Tensor::cat(vec![slice(n / 2, n), slice(0, n / 2)], 3);
        let rotated = slice(0, n) * self.cos.clone() + halves_swapped * self.sin.clone();
        if n == d {
            rotated
        } else {
            Tensor::cat(vec![rotated, slice(n, d)], 3)
        }
    }
}

/// The last `n` tokens: `[b, t, e]` → `[b, n, e]`
fn last(x: Tensor<3>, n: usize) -> Tensor<3> {
    let n_tokens = x.dims()[1];
    if n == n_tokens {
        x
    } else {
        x.narrow(1, n_tokens - n, n)
    }
}

/// Brings the tensors of a checkpoint to a device.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    place: Place,
    dtype: DType,
}

impl Loader<'_> {
    fn tensor<const D: usize>(&self, weights: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        let on = (&self.place.device, self.dtype);
        Tensor::from_data(TensorData::new(weights, shape), on)
    }

    fn layer(&self, layer: usize) -> Result<Layer, LoadError> {
        let config = self.checkpoint.config();
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let bias = config.attention_bias;
        Ok(Layer {
            input_layernorm: self.layer_norm(&in_layer(layer, "input_layernorm"))?,
            post_attention_layernorm: self
                .layer_norm(&in_layer(layer, "post_attention_layernorm"))?,
            query_key_value: self.query_key_value(&in_layer(layer, "attention.query_key_value"))?,
            dense: self.linear(&in_layer(layer, "attention.dense"), [hidden, hidden], bias)?,
            dense_h_to_4h: self.linear(
                &in_layer(layer, "mlp.dense_h_to_4h"),
                [inner, hidden],
                true,
            )?,
            dense_4h_to_h: self.linear(
                &in_layer(layer, "mlp.dense_4h_to_h"),
                [hidden, inner],
                true,
            )?,
        })
    }

    fn layer_norm(&self, name: &str) -> Result<LayerNorm, LoadError> {
        let config = self.checkpoint.config();
        Ok(LayerNorm {
            weight: self.tensor(
                self.checkpoint.read(&format!("{name}.weight"))?,
                [config.hidden_size],
            ),
            bias: self.tensor(
                self.checkpoint.read(&format!("{name}.bias"))?,
                [config.hidden_size],
            ),
            eps: config.layer_norm_eps,
        })
    }

    /// `shape` is the file's, `[out, in]`.
    fn linear(&self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear, LoadError> {
        let weights = self.checkpoint.read(&format!("{name}.weight"))?;
        let bias = bias
            .then(|| self.checkpoint.read(&format!("{name}.bias")))
            .transpose()?;
        Ok(self.place.linear(&weights, shape, bias, self.dtype))
    }

    /// The file's rows are ordered (head, {query, key, value}, dimension); ours ({query, key, value}, head,
    /// dimension), so that each of the three is one slice.
    fn query_key_value(&self, name: &str) -> Result<Linear, LoadError> {
        let config = self.checkpoint.config();
        let (n_heads, head_size, hidden) = (
            config.num_attention_heads,
            config.head_size(),
            config.hidden_size,
        );
        let reordered = |rows: Vec<f32>, width: usize| {
            let mut ours = Vec::with_capacity(rows.len());
            for part in 0..3 {
                for head in 0..n_heads {
                    let first = (head * 3 + part) * head_size * width;
                    ours.extend_from_slice(&rows[first..first + head_size * width]);
                }
            }
            ours
        };
        let weights = reordered(self.checkpoint.read(&format!("{name}.weight"))?, hidden);
        let bias = config
            .attention_bias
            .then(|| self.checkpoint.read(&format!("{name}.bias")))
            .transpose()?
            .map(|bias| reordered(bias, 1));
        Ok(self
            .place
            .linear(&weights, [3 * hidden, hidden], bias, self.dtype))
    }

    /// Angles are computed as the reference does: frequencies and products in f32.
    fn angles(&self) -> Angles {
        let config = self.checkpoint.config();
        let n_rotary = config.n_rotary();
        let half = n_rotary / 2;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "the reference computes in f32"
        )]
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                let exponent = (2 * i) as f32 / n_rotary as f32;
                1.0 / (config.rotary_emb_base as f32).powf(exponent)
            })
            .collect();
        let positions = 0..config.max_position_embeddings;
        let angles = positions.flat_map(|position| {
            #[expect(clippy::cast_precision_loss, reason = "positions are at most 2²⁴")]
            let position = position as f32;
            frequencies
                .iter()
                .map(move |frequency| position * frequency)
        });
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Angles {
            n_dims: n_rotary,
            cos,
            sin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whichever of the two this processor takes, the reference cases in `tests/` have seen it; this is for the other.
    #[test]
    fn amx_and_burn_give_the_same_logits() {
        if Amx::get().is_none() {
            println!("skipped: this processor has no AMX");
        }
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
        for name in ["tied_no_bias", "parallel_published_f16"] {
            let folder = reference.join(name);
            let [with, without] = [Amx::get(), None].map(|amx| {
                let model =
                    GptNeox::load_with(&folder, DeviceChoice::Cpu, Precision::F32, amx).unwrap();
                let tokens: Vec<u32> = (0..3 * 20).map(|i| i * 7 % 128).collect();
                let hidden = model.read(&tokens, 3, 20, &mut model.cache(3, 20));
                model.logits(hidden)
            });
            let moved: f32 = (with - without).abs().max().try_into_scalar().unwrap();
            assert!(moved < 1e-5, "{name}: {moved}");
        }
    }

    #[test]
    fn attention_of_products_is_attention() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tied_no_bias");
        let mut model = GptNeox::load(&folder, DeviceChoice::Cpu, Precision::F32).unwrap();
        let numbers = |n: usize, seed: f32| {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let numbers: Vec<f32> = (0..2 * 3 * n * 8)
                .map(|i| (i as f32 * seed).sin() * 3.0)
                .collect();
            let data = TensorData::new(numbers, [2, 3, n, 8]);
            Tensor::<4>::from_data(data, (&model.device, DType::F32))
        };
        let all = KeysAndValues {
            keys: numbers(7, 0.7),
            values: numbers(7, 1.1),
        };
        let queries = [1, 4, 7].map(|n| numbers(n, 0.3));
        for query in queries {
            let expected = model.attention(query.clone(), all.clone());
            for product in [Product::Plain, Product::Rounded] {
                model.product = product;
                let found = model.attention_of_products(query.clone(), all.clone());
                let moved = (found - expected.clone()).abs().max();
                let moved: f32 = moved.try_into_scalar().unwrap();
                assert!(moved < 1e-5, "{product:?}: {moved}");
            }
        }
    }
}
