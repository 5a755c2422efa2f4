//! How likely a model finds each token of a sequence: one teacher-forced pass.

use crate::memorization::JudgeError;
use crate::model::GptNeox;
use crate::next_token::{Wanted, device_failed, next_tokens};
use crate::threads;

/// Sequences that are read together: their activations stay in a CPU's caches.
const SEQUENCES: usize = 16;

/// What a model makes of one token of a sequence, given those before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLikelihood {
    /// −ln p(token), in nats.
    pub surprisal: f32,
    /// Tokens that the model finds likelier; 0 is the best.
    pub rank: u32,
    /// Entropy of the model's distribution over the vocabulary, in nats.
    pub entropy: f32,
    /// Logit of the token − the highest logit of any other; positive where greedy decoding is right.
    pub margin: f32,
}

impl GptNeox {
    /// The logits after every token of each sequence of `len` tokens: `[sequences, len, vocabulary]`, row by
    /// row.
    ///
    /// # Errors
    ///
    /// When a sequence does not fit the model, or the device fails.
    pub fn sequence_logits(&self, sequences: &[u32], len: usize) -> Result<Vec<f32>, JudgeError> {
        threads::start()?;
        let mut all = Vec::new();
        for group in self.groups(sequences, len)? {
            let n_sequences = group.len() / len;
            let mut cache = self.cache(n_sequences, len);
            let hidden = self.read(group, n_sequences, len, &mut cache);
            let logits: Vec<f32> = self
                .logits(hidden)
                .try_into_vec_as()
                .map_err(device_failed)?;
            if let Some(place) = logits.iter().position(|logit| !logit.is_finite()) {
                let vocab_size = self.config().vocab_size;
                return Err(JudgeError::NotFinite {
                    probe: (all.len() + place) / vocab_size / len,
                    what: "logits",
                });
            }
            all.extend(logits);
        }
        Ok(all)
    }

    /// The likelihood of every token but the first, of each sequence of `len` tokens: `[sequences, len − 1]`,
    /// row by row.
    ///
    /// # Errors
    ///
    /// When a sequence does not fit the model, or the device fails.
    pub fn sequence_likelihoods(
        &self,
        sequences: &[u32],
        len: usize,
    ) -> Result<Vec<TokenLikelihood>, JudgeError> {
        let wanted = Wanted {
            suppress_eos: false,
            likelihood: true,
        };
        threads::start()?;
        let mut all = Vec::new();
        for (number, group) in self.groups(sequences, len)?.enumerate() {
            if len < 2 {
                continue;
            }
            // The last token is only ever predicted.
            let part = |range: std::ops::Range<usize>| -> Vec<u32> {
                let rows = group.chunks_exact(len);
                rows.flat_map(|row| &row[range.clone()]).copied().collect()
            };
            let n_sequences = group.len() / len;
            let mut cache = self.cache(n_sequences, len);
            let hidden = self.read(&part(0..len - 1), n_sequences, len - 1, &mut cache);
            let read = next_tokens(self, hidden, &part(1..len), wanted)
                .map_err(|odd| odd.of_probe(|row| number * SEQUENCES + row / (len - 1)))?;
            all.extend(read.into_iter().filter_map(|next| next.likelihood));
        }
        Ok(all)
    }

    /// Whole sequences, a few at a time.
    fn groups<'a>(
        &self,
        sequences: &'a [u32],
        len: usize,
    ) -> Result<impl Iterator<Item = &'a [u32]>, JudgeError> {
        let len = len.max(1);
        self.check_tokens(sequences.chunks(len), len)?;
        let whole = sequences.len() / len * len;
        Ok(sequences[..whole].chunks(SEQUENCES * len))
    }
}
