//! Attention on the CPU in f32, with keys and values that stay where they were written.
//!
//! Put together from tensors, it cuts queries, keys and values out, rotates them in pieces, and copies all keys and values
//! for each new token and for each change of the sequences that go on.

use crate::config::GptNeoxConfig;
use crate::exponential::exponential;
use burn::tensor::{Tensor, TensorData};

/// Keys and values of some sequences, each in a room of its own that is moved, not copied.
#[derive(Debug)]
pub(crate) struct Host {
    n_heads: usize,
    head_size: usize,
    /// Tokens for which there is room.
    n_room: usize,
    n_tokens: usize,
    n_layers: usize,
    /// Of each sequence `[layer, head, {key, value}, token, dimension]`; empty where it was taken.
    rooms: Vec<Vec<f32>>,
}

/// Angles of the rotary position embedding, a row for each position.
#[derive(Debug)]
pub(crate) struct Angles {
    /// Dimensions that are rotated, the first of each head: an even number.
    pub(crate) n_dims: usize,
    /// `[positions, n_dims / 2]`
    pub(crate) cos: Vec<f32>,
    /// `[positions, n_dims / 2]`
    pub(crate) sin: Vec<f32>,
}

impl Host {
    /// Room for `n_room` tokens of each of `n_sequences`, nothing read yet.
    pub(crate) fn new(config: &GptNeoxConfig, n_sequences: usize, n_room: usize) -> Self {
        let size = 2 * config.num_hidden_layers * config.hidden_size * n_room;
        Self {
            n_heads: config.num_attention_heads,
            head_size: config.head_size(),
            n_room,
            n_tokens: 0,
            n_layers: config.num_hidden_layers,
            rooms: (0..n_sequences).map(|_| vec![0.0; size]).collect(),
        }
    }

    pub(crate) fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    pub(crate) fn with(mut self, next: Self) -> Self {
        self.rooms.extend(next.rooms);
        self
    }

    pub(crate) fn take(&mut self, places: &[usize], n_tokens: usize) -> Self {
        let rooms = places
            .iter()
            .map(|&place| std::mem::take(&mut self.rooms[place]));
        Self {
            n_tokens,
            rooms: rooms.collect(),
            ..*self
        }
    }

    pub(crate) fn keep(&mut self, places: &[usize]) {
        let rooms = places
            .iter()
            .map(|&place| std::mem::take(&mut self.rooms[place]));
        self.rooms = rooms.collect();
    }

    /// Rotates and stores what a layer made of further tokens, and attends from the last `n_queries` of them to all:
    /// `[b, t, 3 · e]`, all queries, all keys, all values → `[b, n_queries, e]`. After the last layer the tokens count as
    /// read.
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        fused: Tensor<3>,
        n_queries: usize,
        angles: &Angles,
    ) -> Tensor<3> {
        let [b, t, _] = fused.dims();
        let (d, e) = (self.head_size, self.n_heads * self.head_size);
        let device = fused.device();
        // On this backend a tensor that nobody else holds gives its memory away.
        let mut data: TensorData = fused.into_data();
        let Ok(fused) = data.as_mut_slice::<f32>() else {
            unreachable!("the data of an f32 tensor are f32");
        };
        let mut attended = vec![0.0; b * n_queries * e];
        let mut weights = vec![0.0; self.n_tokens + t];
        let sequences = self.rooms.iter_mut().zip(fused.chunks_exact_mut(t * 3 * e));
        let outs = attended.chunks_exact_mut(n_queries * e);
        for ((room, fused), outs) in sequences.zip(outs) {
            let size = 2 * self.n_room * d;
            let heads = room[layer * self.n_heads * size..].chunks_exact_mut(size);
            for (head, room) in heads.take(self.n_heads).enumerate() {
                let dims = head * d..(head + 1) * d;
                let (keys, values) = room.split_at_mut(self.n_room * d);
                for (token, row) in fused.chunks_exact_mut(3 * e).enumerate() {
                    let position = self.n_tokens + token;
                    let (key, value) = row[e..].split_at_mut(e);
                    let (key, value) = (&mut key[dims.clone()], &value[dims.clone()]);
                    angles.rotate(key, position);
                    keys[position * d..][..d].copy_from_slice(key);
                    values[position * d..][..d].copy_from_slice(value);
                }
                let queries = fused.chunks_exact_mut(3 * e).enumerate();
                let outs = outs.chunks_exact_mut(e);
                for ((token, row), out) in queries.skip(t - n_queries).zip(outs) {
                    let position = self.n_tokens + token;
                    let query = &mut row[dims.clone()];
                    angles.rotate(query, position);
                    let seen = ..(position + 1) * d;
                    let weights = &mut weights[..=position];
                    attend_one(
                        query,
                        &keys[seen],
                        &values[seen],
                        weights,
                        &mut out[dims.clone()],
                    );
                }
            }
        }
        if layer + 1 == self.n_layers {
            self.n_tokens += t;
        }
        Tensor::from_data(TensorData::new(attended, [b, n_queries, e]), &device)
    }
}

impl Angles {
    /// Turns the first dimensions of a query or key: x · cos + (−second half, first half) · sin.
    fn rotate(&self, x: &mut [f32], position: usize) {
        let half = self.n_dims / 2;
        let at = position * half..(position + 1) * half;
        let (first, second) = x[..self.n_dims].split_at_mut(half);
        let angles = self.cos[at.clone()].iter().zip(&self.sin[at]);
        for ((first, second), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
            (*first, *second) = (*first * cos - *second * sin, *second * cos + *first * sin);
        }
    }
}

/// softmax(q · kᵀ / √d) · v of one query, into `out`; `weights` has a place for each key.
fn attend_one(query: &[f32], keys: &[f32], values: &[f32], weights: &mut [f32], out: &mut [f32]) {
    let d = query.len();
    #[expect(clippy::cast_precision_loss, reason = "the size of a head")]
    let scale = 1.0 / (d as f32).sqrt();
    let mut best = f32::NEG_INFINITY;
    for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(d)) {
        *weight = dot(query, key) * scale;
        best = best.max(*weight);
    }
    let mut sum = 0.0;
    for weight in weights.iter_mut() {
        *weight = exponential(*weight - best);
        sum += *weight;
    }
    for (weight, value) in weights.iter().zip(values.chunks_exact(d)) {
        let weight = weight / sum;
        for (out, value) in out.iter_mut().zip(value) {
            *out += weight * value;
        }
    }
}

/// Σ a · b, by sixteens side by side, which compiles to vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0; 16];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    // In halves, which compiles to vector instructions, too.
    for half in [8, 4, 2, 1] {
        for place in 0..half {
            sums[place] += sums[place + half];
        }
    }
    sums[0] + rest
}
