//! k-token memorization: probes in, verdicts out.

mod batch;
mod group;

use crate::config::GptNeoxConfig;
use crate::device::{DeviceChoice, without_panic};
use crate::model::GptNeox;
use crate::next_token::{ROWS, device_failed};
use crate::threads::{ThreadError, side_by_side};
use group::judge_group;

/// Prompts and their true continuations, cut from the training data.
#[derive(Clone, Copy, Debug)]
pub struct Probes<'a> {
    tokens: &'a [u32],
    k: usize,
    l: usize,
}

/// What is asked of a model about each probe, besides the exact measure, which is always taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// The memorization score: decode all l tokens and count the places that are right.
    pub score: bool,
    /// How likely the model finds the continuation.
    pub likelihood: bool,
    /// Greedy decoding may not choose token 0, the end of text, as under `min_length` in transformers' `generate`: a
    /// continuation that holds it is then never memorized. Likelihoods are not touched.
    pub suppress_eos: bool,
}

/// What the model did with a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Leading continuation tokens that greedy decoding gets right, 0 … l.
    pub n_prefix_matched: u16,
    /// The smallest margin, logit of the truth − highest other, over the positions that were decided: up to the first
    /// miss, or all l. Negative where there is a miss.
    pub margin: f32,
    /// The smallest distance of these margins from 0: what other rounding would have to move to change
    /// `n_prefix_matched`.
    pub closest: f32,
    /// Continuation tokens that greedy decoding gets right at their places, after a miss too; where the score was asked
    /// for.
    pub n_matched: Option<u16>,
    /// Where it was asked for.
    pub likelihood: Option<Likelihood>,
}

/// How likely a model finds a continuation, token by token, given the prompt and the true tokens before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// Mean of −ln p over the l continuation tokens, in nats.
    pub surprisal: f32,
    /// Sum of ln p over them: ln of the probability that sampling gives the continuation, for (n, p)-discoverable
    /// extraction (Hayes et al. 2024).
    pub logp_suffix: f32,
    /// Places where the true token is the likeliest.
    pub n_top1: u16,
}

/// Decides about probes.
pub trait Judge {
    /// One verdict for each probe, in their order.
    ///
    /// # Errors
    ///
    /// When a probe does not fit the model, or the device fails.
    fn judge(
        &mut self,
        probes: &Probes<'_>,
        measures: Measures,
    ) -> Result<Vec<Verdict>, JudgeError>;

    /// How many probes of `len` tokens it is best asked about at once.
    fn n_at_once(&self, len: usize) -> usize;

    /// How many of these are decided about together: falls when the device runs out of memory.
    fn batch_size(&self, len: usize) -> usize;
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
    #[error("the model's {what} of probe {probe} are not finite")]
    NotFinite {
        /// The probe's place among those asked about, from 0.
        probe: usize,
        /// Hidden states or logits.
        what: &'static str,
    },
    /// The system starts no threads.
    #[error(transparent)]
    Threads(#[from] ThreadError),
    /// The device's memory does not hold a single probe beside the model.
    #[error("the device is out of memory with one probe: {message}")]
    OutOfMemory {
        /// What it says.
        message: String,
    },
    /// The device failed.
    #[error("the device failed: {message}")]
    Device {
        /// What it says.
        message: String,
    },
}

/// Prompts that a CPU reads together: their activations stay in its caches.
const CPU_PROMPTS: usize = 16;
/// Most probes that one CPU thread decides about together, once their prompts are read.
const CPU_GROUP: usize = 256;
/// Groups for each CPU thread that are asked about at once, so that no thread waits long for the last one.
const CPU_ROUNDS: usize = 2;
/// Memory that the keys and values of such a group may take, in bytes.
const CPU_CACHE: usize = 1 << 30;

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
    fn judge(
        &mut self,
        probes: &Probes<'_>,
        measures: Measures,
    ) -> Result<Vec<Verdict>, JudgeError> {
        let len = probes.k + probes.l;
        self.check_tokens(probes.rows(), len)?;
        let rows: Vec<&[u32]> = probes.rows().collect();
        let k = probes.k;
        let mut n = self.batch_size(len);
        let verdicts = match self.device() {
            DeviceChoice::Cpu => {
                let groups: Vec<(usize, &[&[u32]])> = rows.chunks(n).enumerate().collect();
                let judged = side_by_side(&groups, |(number, group)| {
                    judge_group(self, group, k, measures, CPU_PROMPTS)
                        .map_err(|error| error.after(number * n))
                });
                let judged: Result<Vec<Vec<Verdict>>, JudgeError> = judged?.into_iter().collect();
                judged?.concat()
            }
            DeviceChoice::Gpu(..) => {
                let judged = batch::halving(&rows, &mut n, |batch| {
                    without_panic(|| judge_group(self, batch, k, measures, batch.len()))
                        .unwrap_or_else(|panic| Err(device_failed(panic)))
                });
                if n < self.batch_size(len) {
                    self.set_batch_size(n);
                }
                judged?
            }
        };
        Ok(verdicts)
    }

    fn n_at_once(&self, len: usize) -> usize {
        let n_batches = match self.device() {
            DeviceChoice::Cpu => CPU_ROUNDS * rayon::current_num_threads(),
            DeviceChoice::Gpu(..) => 1,
        };
        n_batches * self.batch_size(len)
    }

    /// Where none was set, by the model's shape and the device's memory alone, so that a verdict does not depend on the
    /// number of threads.
    fn batch_size(&self, len: usize) -> usize {
        match (self.given_batch_size(), self.gpu()) {
            (Some(given), _) => given,
            (None, None) => (CPU_CACHE / cache_size(self.config(), len)).clamp(16, CPU_GROUP),
            (None, Some(gpu)) => batch::from_memory(self.config(), gpu, self.number_size(), len),
        }
    }
}

impl GptNeox {
    /// Positions whose logits are computed together.
    pub(crate) fn n_logit_rows(&self) -> usize {
        let of_gpu = |gpu| batch::logit_rows(self.config(), gpu);
        self.gpu().map_or(ROWS, of_gpu)
    }

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

/// Bytes of the keys and values of a sequence, in f32.
fn cache_size(config: &GptNeoxConfig, len: usize) -> usize {
    2 * size_of::<f32>() * config.num_hidden_layers * config.hidden_size * len.max(1)
}

impl JudgeError {
    /// The same about a probe that has `n` others before it.
    pub(crate) fn after(self, n: usize) -> Self {
        self.of_probe(|probe| n + probe)
    }

    /// The same about another probe: the one of this row, or of this place in a batch.
    pub(crate) fn of_probe(self, probe_of: impl Fn(usize) -> usize) -> Self {
        match self {
            Self::NotFinite { probe, what } => Self::NotFinite {
                probe: probe_of(probe),
                what,
            },
            other => other,
        }
    }

    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Vocabulary { .. } => {
                "the corpus was made with another tokenizer: name the model's own corpus in the run file"
            }
            Self::TooLong { .. } => "lower `probe.k` or `probe.l` in the run file",
            Self::NotFinite { .. } => {
                "the numbers overflow: name `f32` as precision, and where it is `f32` already, the checkpoint is damaged or its training had diverged"
            }
            Self::Threads(error) => error.hint(),
            Self::OutOfMemory { .. } => {
                "name a device with more memory, or `f16` or `bf16` as precision"
            }
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
