//! k-token memorization: probes in, verdicts out.

use crate::cache::Cache;
use crate::device::DeviceChoice;
use crate::model::GptNeox;
use burn::tensor::Tensor;
use rayon::prelude::*;
use std::ops::Range;

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

    /// How many probes it is best asked about at once.
    fn n_at_once(&self) -> usize;
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

/// Prompts that a CPU reads together: their activations stay in its caches.
const CPU_PROMPTS: usize = 16;
/// Probes that one CPU thread decides about together, once their prompts are read.
const CPU_GROUP: usize = 256;
/// Both on a GPU.
const GPU_GROUP: usize = 512;

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
        let k = probes.k;
        let verdicts: Result<Vec<Vec<Verdict>>, JudgeError> = match self.device() {
            DeviceChoice::Cpu => rows
                .par_chunks(CPU_GROUP)
                .map(|group| judge_group(self, group, k, CPU_PROMPTS))
                .collect(),
            DeviceChoice::Cuda(_) => rows
                .chunks(GPU_GROUP)
                .map(|group| judge_group(self, group, k, GPU_GROUP))
                .collect(),
        };
        Ok(verdicts?.concat())
    }

    fn n_at_once(&self) -> usize {
        match self.device() {
            DeviceChoice::Cpu => CPU_GROUP * rayon::current_num_threads(),
            DeviceChoice::Cuda(_) => GPU_GROUP,
        }
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
/// Prompts are read once; then only probes without a miss go on, with the true tokens, in chunks of growing
/// length: most probes end at the first tokens, and those that do not, go far.
fn judge_group(
    model: &GptNeox,
    probes: &[&[u32]],
    k: usize,
    n_prompts: usize,
) -> Result<Vec<Verdict>, JudgeError> {
    let n_tokens = probes.first().map_or(0, |probe| probe.len());
    let mut group = Group {
        model,
        probes,
        k,
        n_matched: vec![0; probes.len()],
    };
    let mut alive = Vec::new();
    let mut caches = Vec::new();
    for first in (0..probes.len()).step_by(n_prompts) {
        let batch: Vec<usize> = (first..probes.len().min(first + n_prompts)).collect();
        let mut cache = Cache::new(model.config().num_hidden_layers);
        let survivors = group.advance(&batch, 0..k, &mut cache)?;
        if !survivors.is_empty() {
            alive.extend(survivors);
            caches.push(cache);
        }
    }
    let mut cache = Cache::of_all(caches);
    let (mut n_read, mut n_next) = (k, 1);
    // The last token is only ever predicted.
    while !alive.is_empty() && n_read + 1 < n_tokens {
        let end = (n_read + n_next).min(n_tokens - 1);
        alive = group.advance(&alive, n_read..end, &mut cache)?;
        n_read = end;
        n_next *= 2;
    }
    // l fits a u16, and no more can match.
    let verdict = |n| Verdict {
        n_prefix_matched: u16::try_from(n).unwrap_or(u16::MAX),
    };
    Ok(group.n_matched.into_iter().map(verdict).collect())
}

/// Probes that are decided about together, and how far each is matched.
struct Group<'a> {
    model: &'a GptNeox,
    probes: &'a [&'a [u32]],
    k: usize,
    n_matched: Vec<usize>,
}

impl Group<'_> {
    /// Reads the tokens `read` of the probes `members`, and decides about the continuation tokens that follow
    /// from them. Gives the members without a miss; `cache` keeps no others.
    fn advance(
        &mut self,
        members: &[usize],
        read: Range<usize>,
        cache: &mut Cache,
    ) -> Result<Vec<usize>, JudgeError> {
        let tokens = members
            .iter()
            .flat_map(|&member| &self.probes[member][read.clone()]);
        let tokens: Vec<u32> = tokens.copied().collect();
        // Token i is predicted once token i − 1 is read.
        let truth = self.k.max(read.start + 1)..read.end + 1;
        let n_decided = truth.len();
        let hidden = self.model.read(&tokens, members.len(), n_decided, cache);
        let predicted = greedy(self.model, hidden)?;
        let mut survivors = Vec::new();
        for (place, predicted) in predicted.chunks_exact(n_decided).enumerate() {
            let member = members[place];
            let truth = &self.probes[member][truth.clone()];
            let n_right = truth
                .iter()
                .zip(predicted)
                .take_while(|(a, b)| a == b)
                .count();
            self.n_matched[member] += n_right;
            if n_right == n_decided {
                survivors.push(place);
            }
        }
        if !survivors.is_empty() && survivors.len() < members.len() {
            // Places in a batch, far below 2³².
            let kept = survivors
                .iter()
                .map(|&place| u32::try_from(place).unwrap_or(u32::MAX));
            cache.keep(&self.model.ids(&kept.collect::<Vec<_>>()));
        }
        Ok(survivors.into_iter().map(|place| members[place]).collect())
    }
}

/// The most likely next token after each token read: `[b, t, e]` → `[b, t]`, row by row.
fn greedy(model: &GptNeox, hidden: Tensor<3>) -> Result<Vec<u32>, JudgeError> {
    let sum = hidden.clone().abs().sum();
    let sum: f32 = sum.try_into_scalar().map_err(device_failed)?;
    if !sum.is_finite() {
        return Err(JudgeError::NotFinite);
    }
    let ids = model.logits(hidden).argmax(2); // [b, t, 1]
    let ids: Vec<i64> = ids.try_into_vec_as().map_err(device_failed)?;
    // Places in the vocabulary.
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
