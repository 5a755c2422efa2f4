//! k-token memorization: probes in, verdicts out.

use crate::cache::Cache;
use crate::device::DeviceChoice;
use crate::model::GptNeox;
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Prompts and their true continuations, cut from the training data.
#[derive(Clone, Copy, Debug)]
pub struct Probes<'a> {
    tokens: &'a [u32],
    k: usize,
    l: usize,
}

/// What the model did with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Leading continuation tokens that greedy decoding gets right, 0 … l.
    pub n_prefix_matched: u16,
}

/// Decides about probes.
pub trait Judge {
    /// One verdict for each probe, in their order.
    ///
    /// # Errors
    ///
    /// When a probe does not fit the model, or the device fails.
    fn judge(&mut self, probes: &Probes<'_>) -> Result<Vec<Verdict>, JudgeError>;
}

/// Why tokens are no probes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{n_tokens} tokens are no probes of {k} prompt and {l} continuation tokens")]
pub struct ProbeError {
    n_tokens: usize,
    k: usize,
    l: usize,
}

/// Why there is no verdict on probes.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// A token id is not in the model's vocabulary.
    #[error(
        "token {place} of probe {probe} is {found}, the model's vocabulary ends at {vocab_size}"
    )]
    Vocabulary {
        /// The probe's place among those asked about, from 0.
        probe: usize,
        /// The token's place in the probe, from 0.
        place: usize,
        /// Its id.
        found: u32,
        /// Entries of the vocabulary.
        vocab_size: usize,
    },
    /// A probe is longer than the model's context.
    #[error("a probe has {found} tokens, the model's context {longest}")]
    TooLong {
        /// Tokens of a probe.
        found: usize,
        /// Positions of the model.
        longest: usize,
    },
    /// The model's numbers overflowed.
    #[error("the model's hidden states are not finite")]
    NotFinite,
    /// The device failed.
    #[error("the device failed: {message}")]
    Device {
        /// What it says.
        message: String,
    },
}

/// Probes that go through the model together on a CPU: their activations stay in its caches.
const CPU_BATCH: usize = 32;
/// The same on a GPU.
const GPU_BATCH: usize = 512;

impl<'a> Probes<'a> {
    /// Takes `tokens` as probes of `k + l` tokens each, one after another.
    ///
    /// # Errors
    ///
    /// When `k` or `l` is 0, `l` is above 65,535, or the tokens are no multiple of `k + l`.
    pub fn new(tokens: &'a [u32], k: usize, l: usize) -> Result<Self, ProbeError> {
        let fits = k > 0 && l > 0 && u16::try_from(l).is_ok() && tokens.len().is_multiple_of(k + l);
        if fits {
            Ok(Self { tokens, k, l })
        } else {
            Err(ProbeError {
                n_tokens: tokens.len(),
                k,
                l,
            })
        }
    }

    /// The probes: `k + l` tokens each.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [u32]> {
        self.tokens.chunks_exact(self.k + self.l)
    }

    /// Number of probes.
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Prompt tokens of each, k.
    pub fn prompt_len(&self) -> usize {
        self.k
    }

    /// Continuation tokens of each, l.
    pub fn continuation_len(&self) -> usize {
        self.l
    }
}

impl Verdict {
    /// Whether all `l` continuation tokens are right.
    pub fn memorized(&self, l: usize) -> bool {
        usize::from(self.n_prefix_matched) >= l
    }
}

impl Judge for GptNeox {
    fn judge(&mut self, probes: &Probes<'_>) -> Result<Vec<Verdict>, JudgeError> {
        self.check_tokens(probes.rows(), probes.k + probes.l)?;
        let rows: Vec<&[u32]> = probes.rows().collect();
        let verdicts: Result<Vec<Vec<Verdict>>, JudgeError> = match self.device() {
            DeviceChoice::Cpu => rows
                .par_chunks(CPU_BATCH)
                .map(|batch| judge_batch(self, batch, probes.k))
                .collect(),
            DeviceChoice::Cuda(_) => rows
                .chunks(GPU_BATCH)
                .map(|batch| judge_batch(self, batch, probes.k))
                .collect(),
        };
        Ok(verdicts?.concat())
    }
}

impl GptNeox {
    /// Refuses sequences that the model cannot read.
    pub(crate) fn check_tokens<'a>(
        &self,
        rows: impl Iterator<Item = &'a [u32]>,
        len: usize,
    ) -> Result<(), JudgeError> {
        let longest = self.config().max_position_embeddings;
        if len > longest {
            return Err(JudgeError::TooLong {
                found: len,
                longest,
            });
        }
        let vocab_size = self.config().vocab_size;
        for (probe, row) in rows.enumerate() {
            if let Some(place) = row.iter().position(|&id| id as usize >= vocab_size) {
                return Err(JudgeError::Vocabulary {
                    probe,
                    place,
                    found: row[place],
                    vocab_size,
                });
            }
        }
        Ok(())
    }
}

/// Decides about probes of the same length together.
///
/// The prompt is read once; then only probes without a miss go on, with the true tokens, in chunks of
/// growing length: most probes end at the first tokens, and those that do not, go far.
fn judge_batch(model: &GptNeox, probes: &[&[u32]], k: usize) -> Result<Vec<Verdict>, JudgeError> {
    let Some(l) = probes.first().map(|probe| probe.len() - k) else {
        return Ok(Vec::new());
    };
    let mut n_matched = vec![0; probes.len()];
    let mut alive: Vec<usize> = (0..probes.len()).collect();
    let mut cache = Cache::new(model.config().num_hidden_layers);
    let (mut read, mut n_decided) = (0..k, 0);
    let mut n_next = 1;
    loop {
        let tokens: Vec<u32> = alive
            .iter()
            .flat_map(|&probe| &probes[probe][read.clone()])
            .copied()
            .collect();
        let hidden = model.read(&tokens, alive.len(), &mut cache);
        let n_predicted = read.end + 1 - k - n_decided;
        let predicted = greedy(model, hidden, n_predicted)?;
        let truth = k + n_decided..k + n_decided + n_predicted;
        let mut places = Vec::new();
        for (place, (&probe, predicted)) in alive
            .iter()
            .zip(predicted.chunks_exact(n_predicted))
            .enumerate()
        {
            let right = probes[probe][truth.clone()]
                .iter()
                .zip(predicted)
                .take_while(|(truth, token)| truth == token);
            let n_right = right.count();
            n_matched[probe] += n_right;
            if n_right == n_predicted {
                places.push(place);
            }
        }
        n_decided += n_predicted;
        if places.is_empty() || n_decided == l {
            break;
        }
        if places.len() < alive.len() {
            let kept: Vec<u32> = places
                .iter()
                .map(|&place| u32::try_from(place).unwrap_or(u32::MAX))
                .collect();
            cache.keep(&model.ids(&kept));
            alive = places.into_iter().map(|place| alive[place]).collect();
        }
        read = read.end..read.end + n_next.min(l - n_decided);
        n_next *= 2;
    }
    // l fits a u16, and no more can match.
    let verdicts = n_matched.into_iter().map(|n: usize| Verdict {
        n_prefix_matched: u16::try_from(n).unwrap_or(u16::MAX),
    });
    Ok(verdicts.collect())
}

/// The most likely next token after each of the last `n` tokens: `[b, t, e]` → `[b, n]`, row by row.
fn greedy(model: &GptNeox, hidden: Tensor<3>, n: usize) -> Result<Vec<u32>, JudgeError> {
    let [b, t, e] = hidden.dims();
    let last = hidden.slice([0..b, t - n..t, 0..e]);
    let sum: f32 = last
        .clone()
        .abs()
        .sum()
        .try_into_scalar()
        .map_err(device_failed)?;
    if !sum.is_finite() {
        return Err(JudgeError::NotFinite);
    }
    let ids = model.logits(last).argmax(2); // [b, n, 1]
    let ids: Vec<i64> = ids.try_into_vec_as().map_err(device_failed)?;
    // A place in the vocabulary.
    Ok(ids
        .into_iter()
        .map(|id| u32::try_from(id).unwrap_or(u32::MAX))
        .collect())
}

pub(crate) fn device_failed(error: impl std::fmt::Display) -> JudgeError {
    JudgeError::Device {
        message: error.to_string(),
    }
}

impl JudgeError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Vocabulary { .. } => {
                "the corpus was made with another tokenizer: name the model's own corpus in the run file"
            }
            Self::TooLong { .. } => "lower `probe.k` or `probe.l` in the run file",
            Self::NotFinite => "the numbers overflow in this precision: name `f32`",
            Self::Device { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_into_whole_probes() {
        let tokens: Vec<u32> = (0..10).collect();
        let probes = Probes::new(&tokens, 3, 2).unwrap();
        assert_eq!(
            probes.rows().collect::<Vec<_>>(),
            [&tokens[..5], &tokens[5..]]
        );
        assert_eq!(probes.len(), 2);
        assert!(Probes::new(&tokens, 3, 3).is_err());
        assert!(Probes::new(&tokens, 0, 2).is_err());
        assert!(Probes::new(&tokens, 2, 0).is_err());
        assert!(Probes::new(&[], 2, 2).unwrap().is_empty());
    }
}
