//! How likely a model finds each token of a sequence: one teacher-forced pass.

use crate::cache::Cache;
use crate::memorization::{JudgeError, device_failed};
use crate::model::GptNeox;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

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
        match self.forward(sequences, len)? {
            None => Ok(Vec::new()),
            Some(logits) => logits.try_into_vec_as().map_err(device_failed),
        }
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
        let Some(logits) = self.forward(sequences, len)? else {
            return Ok(Vec::new());
        };
        let [b, t, v] = logits.dims();
        if t < 2 {
            return Ok(Vec::new());
        }
        let logits = logits.slice([0..b, 0..t - 1, 0..v]);
        let next: Vec<u32> = sequences
            .chunks_exact(len)
            .flat_map(|sequence| &sequence[1..])
            .copied()
            .collect();
        let truth = self.ids(&next).reshape([b, t - 1, 1]);
        let log_p = log_softmax(logits.clone(), 2);
        let true_logit = logits.clone().gather(2, truth.clone());
        let surprisal = log_p.clone().gather(2, truth.clone()).neg();
        let rank = logits.clone().greater(true_logit.clone()).int().sum_dim(2);
        let entropy = (log_p.clone().exp() * log_p).sum_dim(2).neg();
        let others = logits.scatter(
            2,
            truth,
            Tensor::full([b, t - 1, 1], f32::MIN, &true_logit.device()) - true_logit.clone(),
            burn::tensor::IndexingUpdateOp::Add,
        );
        let margin = true_logit - others.max_dim(2);
        let floats = |tensor: Tensor<3>| -> Result<Vec<f32>, JudgeError> {
            tensor.try_into_vec_as().map_err(device_failed)
        };
        let ranks: Vec<i64> = rank.try_into_vec_as().map_err(device_failed)?;
        let measured = floats(surprisal)?
            .into_iter()
            .zip(ranks)
            .zip(floats(entropy)?)
            .zip(floats(margin)?);
        let likelihoods = measured.map(|(((surprisal, rank), entropy), margin)| TokenLikelihood {
            surprisal,
            // A count of vocabulary entries.
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            entropy,
            margin,
        });
        Ok(likelihoods.collect())
    }

    /// `[b, t, v]`, or nothing for no sequences.
    fn forward(&self, sequences: &[u32], len: usize) -> Result<Option<Tensor<3>>, JudgeError> {
        if sequences.is_empty() || len == 0 {
            return Ok(None);
        }
        self.check_tokens(sequences.chunks(len), len)?;
        let n_sequences = sequences.len() / len;
        let mut cache = Cache::new(self.config().num_hidden_layers);
        let hidden = self.read(
            &sequences[..n_sequences * len],
            n_sequences,
            len,
            &mut cache,
        );
        Ok(Some(self.logits(hidden)))
    }
}
