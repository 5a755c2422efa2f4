//! Attention on the CPU in f32, with keys and values that stay where they were written.
//!
//! Put together from tensors, it cuts queries, keys and values out, rotates them in pieces, and copies all keys and values
//! for each new token and for each change of the sequences that go on.

use crate::config::GptNeoxConfig;
use crate::exponential::exponential;
use burn::tensor::{Tensor, TensorData};
use pulp::{Arch, NullaryFnOnce};

/// Keys and values of some sequences, each in a room of its own that is moved, not copied.
#[derive(Debug)]
pub(crate) struct Host {
    n_heads: usize,
    head_size: usize,
    /// Tokens for which there is room, a multiple of 16.
    n_room: usize,
    n_tokens: usize,
    n_layers: usize,
    /// Of each sequence and each layer and head, keys `[dimension, token]` and values `[token, dimension]`; empty where it was
    /// taken.
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
        let n_room = n_room.next_multiple_of(16);
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
        let mut weights = vec![0.0; self.n_room];
        let sequences = self.rooms.iter_mut().zip(fused.chunks_exact_mut(t * 3 * e));
        let outs = attended.chunks_exact_mut(n_queries * e);
        let size = 2 * self.n_room * e;
        for ((room, fused), out) in sequences.zip(outs) {
            let sequence = Sequence {
                room: &mut room[layer * size..][..size],
                fused,
                out,
                weights: &mut weights,
                angles,
                head_size: d,
                n_read: self.n_tokens,
            };
            Arch::new().dispatch(sequence);
        }
        if layer + 1 == self.n_layers {
            self.n_tokens += t;
        }
        Tensor::from_data(TensorData::new(attended, [b, n_queries, e]), &device)
    }
}

/// What a layer does with further tokens of one sequence.
struct Sequence<'a> {
    /// Of this layer.
    room: &'a mut [f32],
    /// `[t, 3 · e]`
    fused: &'a mut [f32],
    /// `[n_queries, e]`
    out: &'a mut [f32],
    /// A place for each key.
    weights: &'a mut [f32],
    angles: &'a Angles,
    head_size: usize,
    /// Tokens read before.
    n_read: usize,
}

/// Compiled for the vector instructions that the processor has.
impl NullaryFnOnce for Sequence<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (d, n_room) = (self.head_size, self.weights.len());
        let e = self.room.len() / (2 * n_room);
        let n_tokens = self.fused.len() / (3 * e);
        let n_queries = self.out.len() / e;
        for (head, room) in self.room.chunks_exact_mut(2 * n_room * d).enumerate() {
            let dims = head * d..(head + 1) * d;
            let (keys, values) = room.split_at_mut(n_room * d);
            for (token, row) in self.fused.chunks_exact_mut(3 * e).enumerate() {
                let position = self.n_read + token;
                let (key, value) = row[e..].split_at_mut(e);
                let (key, value) = (&mut key[dims.clone()], &value[dims.clone()]);
                self.angles.rotate(key, position);
                let places = keys.chunks_exact_mut(n_room);
                for (place, number) in places.zip(key.iter()) {
                    place[position] = *number;
                }
                values[position * d..][..d].copy_from_slice(value);
            }
            let queries = self.fused.chunks_exact_mut(3 * e).enumerate();
            let outs = self.out.chunks_exact_mut(e);
            for ((token, row), out) in queries.skip(n_tokens - n_queries).zip(outs) {
                let position = self.n_read + token;
                let query = &mut row[dims.clone()];
                self.angles.rotate(query, position);
                let out = &mut out[dims.clone()];
                attend_one(query, keys, values, position + 1, self.weights, out);
            }
        }
    }
}

impl Angles {
    /// Turns the first dimensions of a query or key: x · cos + (−second half, first half) · sin.
    #[inline(always)]
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

/// softmax(q · kᵀ / √d) · v of one query and the first `n_keys` keys, into `out`.
#[inline(always)]
fn attend_one(
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    n_keys: usize,
    weights: &mut [f32],
    out: &mut [f32],
) {
    let (d, n_room) = (query.len(), weights.len());
    #[expect(clippy::cast_precision_loss, reason = "the size of a head")]
    let scale = 1.0 / (d as f32).sqrt();
    // Sixteen keys side by side, and what lies behind the last one with them.
    let n_padded = n_keys.next_multiple_of(16);
    let (sixteens, _) = weights[..n_padded].as_chunks_mut::<16>();
    weighted(query, keys, n_room, sixteens);
    for weight in sixteens.as_flattened_mut() {
        *weight *= scale;
    }
    weights[n_keys..n_padded].fill(f32::NEG_INFINITY);
    let (sixteens, _) = weights[..n_padded].as_chunks_mut::<16>();
    let mut bests = [f32::NEG_INFINITY; 16];
    for weights in sixteens.iter() {
        for (best, weight) in bests.iter_mut().zip(weights) {
            *best = if *weight > *best { *weight } else { *best };
        }
    }
    let best = in_halves(bests, |a, b| if a > b { a } else { b });
    let mut sums = [0.0; 16];
    for weights in sixteens.iter_mut() {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *weight = exponential(*weight - best);
            *sum += *weight;
        }
    }
    let sum = in_halves(sums, |a, b| a + b);
    for weight in sixteens.as_flattened_mut() {
        *weight /= sum;
    }
    let weights = &weights[..n_keys];
    let (wholes, rest) = out.as_chunks_mut::<16>();
    let n_wholes = wholes.len();
    weighted(weights, values, d, wholes);
    for (place, out) in rest.iter_mut().enumerate() {
        let dimension = n_wholes * 16 + place;
        let numbers = values.chunks_exact(d).map(|value| value[dimension]);
        *out = weights
            .iter()
            .zip(numbers)
            .fold(0.0, |sum, (weight, number)| sum + weight * number);
    }
}

/// Σ wᵢ · rowᵢ of rows of `width` numbers: their first columns, by sixteens.
#[inline(always)]
fn weighted(weights: &[f32], rows: &[f32], width: usize, sums: &mut [[f32; 16]]) {
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let mut first = 0;
    for four in fours {
        // Four side by side, since each sum waits for its last term; what is no array of arrays compiles to vector instructions.
        let (mut a, mut b, mut c, mut d) = ([0.0; 16], [0.0; 16], [0.0; 16], [0.0; 16]);
        for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
            let row = &row[first..first + 64];
            add(&mut a, *weight, &row[..16]);
            add(&mut b, *weight, &row[16..32]);
            add(&mut c, *weight, &row[32..48]);
            add(&mut d, *weight, &row[48..]);
        }
        *four = [a, b, c, d];
        first += 64;
    }
    for one in rest {
        let mut a = [0.0; 16];
        for (weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
            add(&mut a, *weight, &row[first..first + 16]);
        }
        *one = a;
        first += 16;
    }
}

/// Adds sixteen numbers of a row.
#[inline(always)]
fn add(sums: &mut [f32; 16], weight: f32, row: &[f32]) {
    for (sum, number) in sums.iter_mut().zip(row) {
        *sum += weight * number;
    }
}

/// One of sixteen, half by half, which compiles to vector instructions.
#[inline(always)]
fn in_halves(mut numbers: [f32; 16], one_of: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for place in 0..half {
            numbers[place] = one_of(numbers[place], numbers[place + half]);
        }
    }
    numbers[0]
}
