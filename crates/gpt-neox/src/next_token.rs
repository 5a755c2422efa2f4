//! What follows from hidden states: the output projection, a few rows at a time, and what is read off the logits.
//!
//! Logits are the largest tensor of all (a row of Pythia's is 200 kB), so that only some rows of them
//! exist at once for each thread.

use crate::amx::{SIDE, Sink, Tile, Weights};
use crate::device::DeviceChoice;
use crate::exponential::exponential;
use crate::likelihood::TokenLikelihood;
use crate::linear::{Linear, floats as numbers};
use crate::memorization::JudgeError;
use crate::model::GptNeox;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, IndexingUpdateOp, Tensor, TensorData};
use pulp::{Arch, NullaryFnOnce};
use std::ops::Range;

/// Positions whose logits are computed together on the CPU, and on a GPU at the least.
pub(crate) const ROWS: usize = 256;
/// Pythia's end of text, which `min_length` forbids in transformers' `generate`.
const END_OF_TEXT: usize = 0;

/// What is wanted of each position.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// Greedy decoding may not choose token 0.
    pub(crate) suppress_eos: bool,
    pub(crate) likelihood: bool,
}

/// What greedy decoding does at a position where the data have a certain token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NextToken {
    /// Its choice; the lowest id of several with the same logit.
    pub(crate) predicted: u32,
    /// Logit of the true token − the highest logit of any other that may be chosen.
    pub(crate) margin: f32,
    /// Where wanted; suppression does not touch it.
    pub(crate) likelihood: Option<TokenLikelihood>,
}

impl NextToken {
    /// Whether every number is finite. Where greedy decoding may not choose the truth, its logit counts as −∞.
    fn is_finite(&self, truth: u32, wanted: Wanted) -> bool {
        let is_forbidden = wanted.suppress_eos && truth as usize == END_OF_TEXT;
        let is_margin = |margin: f32| {
            margin.is_finite() || is_forbidden && margin.is_sign_negative() && margin.is_infinite()
        };
        is_margin(self.margin)
            && self.likelihood.is_none_or(|likelihood| {
                let numbers = [likelihood.surprisal, likelihood.entropy, likelihood.margin];
                numbers.iter().all(|number| number.is_finite())
            })
    }
}

/// What follows each of the hidden states `[b, t, e]`, row by row; `truth` holds the `b · t` true tokens. Numbers that are
/// not finite make an error, whoever computed them; its probe is the row.
pub(crate) fn next_tokens(
    model: &GptNeox,
    hidden: Tensor<3>,
    truth: &[u32],
    wanted: Wanted,
) -> Result<Vec<NextToken>, JudgeError> {
    check_hidden(&hidden)?;
    let next = if let Linear::Digits { weights, .. } = model.embed_out()
        && !wanted.likelihood
    {
        let normed = model.normed(hidden).into_data();
        choices(weights, numbers(&normed), truth, wanted)
    } else {
        of_logits(model, hidden, truth, wanted)?
    };
    match next
        .iter()
        .zip(truth)
        .position(|(next, truth)| !next.is_finite(*truth, wanted))
    {
        None => Ok(next),
        Some(probe) => Err(JudgeError::NotFinite {
            probe,
            what: "logits",
        }),
    }
}

/// Refuses hidden states that are not finite, which layer normalization can hide.
fn check_hidden(hidden: &Tensor<3>) -> Result<(), JudgeError> {
    // The sum of finite numbers is not finite in f16.
    let sizes = hidden.clone().cast(DType::F32).abs();
    let sum: f32 = sizes
        .clone()
        .sum()
        .try_into_scalar()
        .map_err(device_failed)?;
    if sum.is_finite() {
        return Ok(());
    }
    let rows: Vec<f32> = sizes.sum_dim(2).try_into_vec_as().map_err(device_failed)?;
    match rows.iter().position(|sum| !sum.is_finite()) {
        None => Ok(()),
        Some(probe) => Err(JudgeError::NotFinite {
            probe,
            what: "hidden states",
        }),
    }
}

/// What follows, read off logits of some rows at a time.
fn of_logits(
    model: &GptNeox,
    hidden: Tensor<3>,
    truth: &[u32],
    wanted: Wanted,
) -> Result<Vec<NextToken>, JudgeError> {
    let [b, t, e] = hidden.dims();
    let hidden = hidden.reshape([1, b * t, e]);
    let mut all = Vec::with_capacity(truth.len());
    let n_rows = model.n_logit_rows();
    for (tile, truth) in truth.chunks(n_rows).enumerate() {
        let rows = hidden.clone().narrow(1, tile * n_rows, truth.len());
        let logits: Tensor<2> = model.logits(rows).squeeze_dim(0); // [rows, v]
        let read = match model.device() {
            DeviceChoice::Cpu => on_host(logits, truth, wanted),
            DeviceChoice::Gpu(..) => on_device(model, logits, truth, wanted),
        };
        all.extend(read?);
    }
    Ok(all)
}

/// Reads the logits where they lie, each row while it is in the cache.
fn on_host(logits: Tensor<2>, truth: &[u32], wanted: Wanted) -> Result<Vec<NextToken>, JudgeError> {
    // On this backend a tensor that nobody else holds gives its memory away.
    let mut data: TensorData = logits.into_data();
    let logits = data.as_mut_slice::<f32>().map_err(device_failed)?;
    Ok(Arch::new().dispatch(Rows {
        logits,
        truth,
        wanted,
    }))
}

/// Rows of logits to be read.
struct Rows<'a> {
    logits: &'a mut [f32],
    truth: &'a [u32],
    wanted: Wanted,
}

/// Compiled for the vector instructions that the processor has.
impl NullaryFnOnce for Rows<'_> {
    type Output = Vec<NextToken>;

    #[inline(always)]
    fn call(self) -> Vec<NextToken> {
        let vocab_size = self.logits.len() / self.truth.len().max(1);
        let mut read = Vec::with_capacity(self.truth.len());
        for (row, truth) in self.logits.chunks_exact_mut(vocab_size).zip(self.truth) {
            read.push(of_row(row, *truth as usize, self.wanted));
        }
        read
    }
}

/// Reads one row, and spoils it. Its margin is not a number where a logit is not finite.
#[inline(always)]
fn of_row(row: &mut [f32], truth: usize, wanted: Wanted) -> NextToken {
    let is_finite = are_finite(row);
    let likelihood = wanted.likelihood.then(|| likelihood_of_row(row, truth));
    if wanted.suppress_eos {
        row[END_OF_TEXT] = f32::NEG_INFINITY;
    }
    let best = largest(row);
    #[expect(clippy::float_cmp, reason = "the largest number is one of them")]
    // Were no place found, the row would hold no number.
    let predicted = row.iter().position(|logit| *logit == best).unwrap_or(0);
    let true_logit = row[truth];
    let other = if predicted == truth {
        row[truth] = f32::NEG_INFINITY;
        largest(row)
    } else {
        best
    };
    NextToken {
        predicted: u32::try_from(predicted).unwrap_or(u32::MAX),
        margin: if is_finite {
            true_logit - other
        } else {
            f32::NAN
        },
        likelihood,
    }
}

/// What greedy decoding chooses, without logits that exist all at once: coarse products say which tokens can have the highest
/// logit, and only those are computed. `x` is `[rows, e]`.
fn choices(weights: &Weights, x: &[f32], truth: &[u32], wanted: Wanted) -> Vec<NextToken> {
    let rows = x.chunks_exact(weights.n_in());
    let mut screen = Screen {
        rows: rows
            .clone()
            .map(|row| Candidates::none(weights.radius(row)))
            .collect(),
        truth,
        suppress_eos: wanted.suppress_eos,
        norms: weights.norms(),
    };
    weights.coarse_products(x, &mut screen);
    let largest_norm = weights.largest_norm();
    let screened = screen.rows.iter().zip(rows).zip(truth);
    screened
        .map(|((candidates, row), truth)| {
            // Where no logit can overflow, none need be looked at for that.
            if weights.norm(row) * largest_norm >= f64::from(f32::MAX) / 4.0 {
                let outputs = 0..weights.n_out();
                let mut logits: Vec<f32> =
                    outputs.map(|token| weights.product(row, token)).collect();
                return of_row(&mut logits, *truth as usize, wanted);
            }
            let logit = |token: u32| weights.product(row, token as usize);
            candidates.choose(*truth, wanted, logit)
        })
        .collect()
}

/// Tokens that can have the highest logit of those that are not the truth, while ever more columns of coarse logits are seen.
struct Screen<'a> {
    rows: Vec<Candidates>,
    truth: &'a [u32],
    suppress_eos: bool,
    norms: &'a [f32],
}

/// Those of a row.
struct Candidates {
    /// How far a logit can be from its coarse one, for each unit of the norm of the token's weights.
    radius: f32,
    /// What one of them has at least,
    least: f32,
    /// and what each has at most.
    most: Vec<(u32, f32)>,
}

impl Sink for Screen<'_> {
    #[inline(always)]
    fn take(&mut self, rows: Range<usize>, columns: Range<usize>, tile: &mut Tile) {
        let Ok(norms) = self.norms[columns.start..][..SIDE].try_into() else {
            unreachable!("as many as a tile has columns")
        };
        let truth = &self.truth[rows.clone()];
        for ((row, logits), truth) in self.rows[rows].iter_mut().zip(&mut tile.0).zip(truth) {
            logits[columns.len()..].fill(f32::NEG_INFINITY);
            if self.suppress_eos && columns.contains(&END_OF_TEXT) {
                logits[END_OF_TEXT - columns.start] = f32::NEG_INFINITY;
            }
            let truth = *truth as usize;
            if columns.contains(&truth) {
                logits[truth - columns.start] = f32::NEG_INFINITY;
            }
            row.see(columns.start, logits, norms);
        }
    }
}

impl Candidates {
    fn none(radius: f32) -> Self {
        Self {
            radius,
            least: f32::MIN,
            most: Vec::new(),
        }
    }

    /// Takes in the columns from `first` on.
    #[inline(always)]
    fn see(&mut self, first: usize, logits: &[f32; SIDE], norms: &[f32; SIDE]) {
        let mut most = [0.0; SIDE];
        for ((most, logit), norm) in most.iter_mut().zip(logits).zip(norms) {
            *most = logit + self.radius * norm;
        }
        let least = self.least;
        #[expect(
            clippy::needless_bitwise_bool,
            reason = "looking at all compiles to vector instructions"
        )]
        let some = most
            .iter()
            .fold(false, |some, most| some | (*most >= least));
        // Seldom.
        if some {
            for (lane, most) in most.iter().enumerate() {
                if *most >= self.least {
                    let token = u32::try_from(first + lane).unwrap_or(u32::MAX);
                    self.most.push((token, *most));
                    self.least = self.least.max(logits[lane] - self.radius * norms[lane]);
                }
            }
        }
    }

    fn choose(&self, truth: u32, wanted: Wanted, logit: impl Fn(u32) -> f32) -> NextToken {
        let (mut other, mut place) = (f32::NEG_INFINITY, 0);
        // By id: of equals the first is chosen.
        for (token, _) in self.most.iter().filter(|(_, most)| *most >= self.least) {
            let logit = logit(*token);
            if logit > other {
                (other, place) = (logit, *token);
            }
        }
        let true_logit = if wanted.suppress_eos && truth as usize == END_OF_TEXT {
            f32::NEG_INFINITY
        } else {
            logit(truth)
        };
        #[expect(clippy::float_cmp, reason = "of equals the first is chosen")]
        let is_right = true_logit > other || true_logit == other && truth < place;
        NextToken {
            predicted: if is_right { truth } else { place },
            margin: true_logit - other,
            likelihood: None,
        }
    }
}

#[inline(always)]
fn likelihood_of_row(row: &mut [f32], truth: usize) -> TokenLikelihood {
    let true_logit = row[truth];
    let best = largest(row);
    row[truth] = f32::NEG_INFINITY;
    let other = largest(row);
    row[truth] = true_logit;
    let (sum, weighted) = exponential_sums(row, best);
    let log_sum = sum.ln();
    let n_above = row.iter().map(|logit| u32::from(*logit > true_logit)).sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "nats, of which f32 holds seven digits"
    )]
    TokenLikelihood {
        surprisal: (log_sum - f64::from(true_logit - best)) as f32,
        rank: n_above,
        // −Σ p ln p, with p = exp(x − best) / sum
        entropy: (log_sum - weighted / sum) as f32,
        margin: true_logit - other,
    }
}

/// Whether all numbers are finite, by sixteens side by side, which compiles to vector instructions.
#[inline(always)]
fn are_finite(numbers: &[f32]) -> bool {
    /// The exponent of what is not finite.
    const ALL_ONES: u32 = 0x7f80_0000;
    let is_odd = |number: &f32| u32::from(number.to_bits() & ALL_ONES == ALL_ONES);
    let (sixteens, rest) = numbers.as_chunks::<16>();
    let mut odd = [0; 16];
    for sixteen in sixteens {
        for (odd, number) in odd.iter_mut().zip(sixteen) {
            *odd |= is_odd(number);
        }
    }
    let odd = odd.iter().fold(0, |all, odd| all | odd);
    rest.iter().fold(odd, |all, number| all | is_odd(number)) == 0
}

/// The largest number, by sixteens side by side, which compiles to vector instructions.
#[inline(always)]
fn largest(numbers: &[f32]) -> f32 {
    let (sixteens, rest) = numbers.as_chunks::<16>();
    let mut best = [f32::NEG_INFINITY; 16];
    for sixteen in sixteens {
        for (best, number) in best.iter_mut().zip(sixteen) {
            *best = if *number > *best { *number } else { *best };
        }
    }
    best.iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, b| a.max(*b))
}

/// Σ exp(x − best) and Σ exp(x − best) · (x − best).
#[inline(always)]
fn exponential_sums(row: &[f32], best: f32) -> (f64, f64) {
    // Partial sums of 512 terms stay in f32, so that the loop compiles to vector instructions.
    let mut sums = (0.0, 0.0);
    for part in row.chunks(512) {
        let (mut sum, mut weighted) = ([0.0_f32; 16], [0.0_f32; 16]);
        let (wholes, rest) = part.as_chunks::<16>();
        let mut add = |place: usize, logit: f32| {
            let x = logit - best;
            let p = exponential(x);
            sum[place] += p;
            weighted[place] += p * x;
        };
        for whole in wholes {
            for (place, logit) in whole.iter().enumerate() {
                add(place, *logit);
            }
        }
        for (place, logit) in rest.iter().enumerate() {
            add(place, *logit);
        }
        sums.0 += sum.iter().copied().map(f64::from).sum::<f64>();
        sums.1 += weighted.iter().copied().map(f64::from).sum::<f64>();
    }
    sums
}

/// The same where logits had better stay on the device.
fn on_device(
    model: &GptNeox,
    logits: Tensor<2>,
    truth: &[u32],
    wanted: Wanted,
) -> Result<Vec<NextToken>, JudgeError> {
    let ids = model.ids(truth).unsqueeze_dim::<2>(1); // [rows, 1]
    let n_rows = truth.len();
    let odd = logits.clone().is_finite().all_dim(1).bool_not(); // [rows, 1]
    let mut likelihoods = vec![None; n_rows];
    if wanted.likelihood {
        let log_p = log_softmax(logits.clone(), 1);
        let true_logit = logits.clone().gather(1, ids.clone());
        let surprisal = floats(log_p.clone().gather(1, ids.clone()).neg())?;
        let rank = logits.clone().greater(true_logit).int().sum_dim(1);
        let rank: Vec<i64> = rank.try_into_vec_as().map_err(device_failed)?;
        let entropy = floats((log_p.clone().exp() * log_p).sum_dim(1).neg())?;
        let margin = floats(margins(&logits, &ids))?;
        for (row, likelihood) in likelihoods.iter_mut().enumerate() {
            *likelihood = Some(TokenLikelihood {
                surprisal: surprisal[row],
                // A count of vocabulary entries.
                rank: u32::try_from(rank[row]).unwrap_or(u32::MAX),
                entropy: entropy[row],
                margin: margin[row],
            });
        }
    }
    let logits = if wanted.suppress_eos {
        let never = Tensor::full([n_rows, 1], f32::NEG_INFINITY, &logits.device());
        let end = END_OF_TEXT..END_OF_TEXT + 1;
        logits.slice_assign([0..n_rows, end], never)
    } else {
        logits
    };
    let margin = floats(margins(&logits, &ids).mask_fill(odd, f32::NAN))?;
    let predicted: Vec<i64> = logits.argmax(1).try_into_vec_as().map_err(device_failed)?;
    let read = predicted.into_iter().zip(margin).zip(likelihoods);
    Ok(read
        .map(|((predicted, margin), likelihood)| NextToken {
            // A place in the vocabulary.
            predicted: u32::try_from(predicted).unwrap_or(u32::MAX),
            margin,
            likelihood,
        })
        .collect())
}

/// Logit of each row's `ids` − the highest other: `[rows, v]`, `[rows, 1]` → `[rows, 1]`
fn margins(logits: &Tensor<2>, ids: &Tensor<2, burn::tensor::Int>) -> Tensor<2> {
    let true_logit = logits.clone().gather(1, ids.clone());
    let below_all = Tensor::full(ids.dims(), -1e30, &logits.device());
    let others = logits
        .clone()
        .scatter(1, ids.clone(), below_all, IndexingUpdateOp::Add);
    true_logit - others.max_dim(1)
}

fn floats(column: Tensor<2>) -> Result<Vec<f32>, JudgeError> {
    column.try_into_vec_as().map_err(device_failed)
}

/// What a device says when it fails; burn says only in words that memory ran out.
pub(crate) fn device_failed(error: impl std::fmt::Display) -> JudgeError {
    const OUT_OF_MEMORY: [&str; 4] = [
        "out of device memory",
        "can't allocate",
        "out of memory",
        "page size the memory tracks",
    ];
    let message = error.to_string();
    let lower = message.to_lowercase();
    if OUT_OF_MEMORY.iter().any(|words| lower.contains(words)) {
        JudgeError::OutOfMemory { message }
    } else {
        JudgeError::Device { message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx::Amx;
    use crate::device::Precision;
    use std::path::Path;

    #[test]
    fn a_row_is_read() {
        let wanted = Wanted {
            suppress_eos: false,
            likelihood: true,
        };
        let row = [2.0, 1.0, 2.0, -1.0];
        let read = of_row(&mut row.clone(), 2, wanted);
        // Of equals the first is chosen, as torch does.
        assert_eq!((read.predicted, read.margin), (0, 0.0));
        let likelihood = read.likelihood.unwrap();
        // scipy.special.log_softmax and scipy.stats.entropy of the row.
        assert!(
            (likelihood.surprisal - 0.882_802_8).abs() < 1e-6,
            "{likelihood:?}"
        );
        assert!(
            (likelihood.entropy - 1.096_744_9).abs() < 1e-6,
            "{likelihood:?}"
        );
        assert_eq!((likelihood.rank, likelihood.margin), (0, 0.0));

        let suppressed = Wanted {
            suppress_eos: true,
            likelihood: true,
        };
        let read = of_row(&mut row.clone(), 2, suppressed);
        assert_eq!((read.predicted, read.margin), (2, 1.0));
        assert_eq!(read.likelihood.unwrap(), likelihood);
        let read = of_row(&mut row.clone(), 0, suppressed);
        assert_eq!((read.predicted, read.margin), (2, f32::NEG_INFINITY));
    }

    #[test]
    fn choices_by_coarse_products_are_those_of_whole_rows() {
        let Some(amx) = Amx::get() else {
            return;
        };
        // 100 is no whole number of tiles, 40 no whole number of blocks.
        let (n_rows, n_in, vocab_size) = (70_usize, 40_usize, 100_usize);
        let mut random = 1_u32;
        let mut numbers = |n: usize| -> Vec<f32> {
            let mut number = || {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from((random >> 16) as u16) / 32_768.0 - 1.0
            };
            (0..n).map(|_| number()).collect()
        };
        let x = numbers(n_rows * n_in);
        let mut weights = numbers(vocab_size * n_in);
        // Some tokens have the logits of others exactly, and some all but those: each weight is another by a millionth.
        for token in 10..40 {
            let (before, rest) = weights.split_at_mut((token + 50) * n_in);
            let copy = before[token * n_in..][..n_in].iter();
            let next = |number: &f32| number + if token % 2 == 1 { 2_f32.powi(-20) } else { 0.0 };
            for (number, copied) in rest[..n_in].iter_mut().zip(copy) {
                *number = next(copied);
            }
        }
        // A token that was never trained.
        weights[99 * n_in..].fill(0.0);
        let digits = Weights::new(amx, &weights, [vocab_size, n_in]).unwrap();
        let magnitude = x[..n_in].iter().map(|x| x.abs()).sum::<f32>();
        assert!(digits.radius(&x[..n_in]) < 1e-4 * magnitude);
        let truth: Vec<u32> = (0..70).map(|row| row * 37 % 100).collect();
        for suppress_eos in [false, true] {
            let wanted = Wanted {
                suppress_eos,
                likelihood: false,
            };
            let found = choices(&digits, &x, &truth, wanted);
            for ((x, truth), found) in x.chunks_exact(n_in).zip(&truth).zip(found) {
                let logit = |weights: &[f32]| {
                    let products = x.iter().zip(weights);
                    #[expect(clippy::cast_possible_truncation, reason = "as in f32")]
                    let sum = products
                        .map(|(x, w)| f64::from(*x) * f64::from(*w))
                        .sum::<f64>() as f32;
                    sum
                };
                let mut logits: Vec<f32> = weights.chunks_exact(n_in).map(logit).collect();
                let expected = of_row(&mut logits, *truth as usize, wanted);
                assert_eq!(found, expected, "{truth}");
            }
        }
    }

    #[test]
    fn host_and_device_read_the_same() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tied_no_bias");
        let model = GptNeox::load(&folder, DeviceChoice::Cpu, Precision::F32).unwrap();
        // Whole numbers in another order, so that no two are near each other but those that are equal.
        let logits: Vec<f32> = (0..5 * 128_u16)
            .map(|i| f32::from(i * 37 % 128 / 2) / 4.0)
            .collect();
        let logits = Tensor::<1>::from_floats(logits.as_slice(), &model.ids(&[0]).device());
        let logits = logits.reshape([5, 128]);
        for suppress_eos in [false, true] {
            let wanted = Wanted {
                suppress_eos,
                likelihood: true,
            };
            let truth = [3, 0, 126, 127, 45];
            let host = on_host(logits.clone(), &truth, wanted).unwrap();
            let device = on_device(&model, logits.clone(), &truth, wanted).unwrap();
            for (host, device) in host.into_iter().zip(device) {
                assert_eq!(host.predicted, device.predicted);
                // −∞ is equal to itself only.
                assert!(
                    host.margin <= device.margin && device.margin <= host.margin,
                    "{host:?} {device:?}"
                );
                let (host, device) = (host.likelihood.unwrap(), device.likelihood.unwrap());
                assert_eq!(host.rank, device.rank);
                assert!((host.surprisal - device.surprisal).abs() < 1e-5);
                assert!((host.entropy - device.entropy).abs() < 1e-5);
                assert!((host.margin - device.margin).abs() < 1e-5);
            }
        }
    }
}
