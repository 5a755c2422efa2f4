//! How many probes a GPU decides about together: what its memory holds, and fewer where it does not after all.

use super::{JudgeError, Verdict};
use crate::config::GptNeoxConfig;
use crate::device::Gpu;
use crate::next_token::ROWS;
use crate::product::Product;

/// Most probes of a batch. With small models a GPU's time is that of launches, however many numbers each is about: on an H100,
/// Pythia-70M decides about 3.0 thousand probes a second by 512 together, 5.2 by 2,048 and 5.7 by 8,192.
const LARGEST: usize = 2048;

/// Most rows of logits together: 0.8 GB of Pythia's.
const MOST_ROWS: usize = 4096;
/// Tensors of their size that exist together: logits, their softmax, its logarithm, products and comparisons.
const COPIES: usize = 6;

/// How many positions' logits are computed together: reading off a device what they say takes its time, however little it is.
pub(super) fn logit_rows(config: &GptNeoxConfig, gpu: Gpu) -> usize {
    let row = (config.vocab_size * size_of::<f32>()) as u64;
    let n = (gpu.memory / 10 / (COPIES as u64 * row)).min(gpu.largest / row);
    usize::try_from(n)
        .unwrap_or(MOST_ROWS)
        .clamp(ROWS, MOST_ROWS)
}

/// The batch size for probes of `len` tokens, from the shape of the model and the memory of the device; numbers take
/// `size` bytes. Four fifths of the memory are counted on; what does not fit is found out by trying.
pub(super) fn from_memory(config: &GptNeoxConfig, gpu: Gpu, size: usize, len: usize) -> usize {
    let wide = size_of::<f32>();
    let (v, e, h) = (
        config.vocab_size,
        config.hidden_size,
        config.num_attention_heads,
    );
    let inner = config.intermediate_size.max(3 * e);
    let layers = config.num_hidden_layers;
    let weights =
        layers * e * (4 * e + 2 * config.intermediate_size) * size + v * e * (size + wide);
    let logits = COPIES * logit_rows(config, gpu) * v * wide;
    // Keys and values of a probe: what was read, what is kept for the score, and a copy while tokens are added.
    let cache = 3 * 2 * layers * e * len * size;
    // Of one layer: the residual stream, its norm, queries, keys and values before and after their rotation; the inner
    // layer; scores and their softmax, always in f32.
    let activations = len * ((12 * e + 3 * inner) * size + 3 * h * len * wide);
    // Factors in f32 and what they are split into.
    let activations = match gpu.product {
        Product::Rounded if size == wide => 4 * activations,
        Product::Rounded | Product::Plain => activations,
    };
    let free = (gpu.memory / 5 * 4).saturating_sub((weights + logits) as u64);
    let largest_tensor = len * (inner * size).max(h * len * wide);
    let n = (free / (cache + activations) as u64).min(gpu.largest / largest_tensor as u64);
    usize::try_from(n).unwrap_or(LARGEST).clamp(1, LARGEST)
}

/// Decides about `probes` by at most `size` together. Where the device runs out of memory, `size` becomes half of what it
/// could not hold, and the same probes are asked about again.
///
/// # Errors
///
/// Those of `decide`; that memory runs out only when it does with a single probe.
pub(super) fn halving<T>(
    probes: &[T],
    size: &mut usize,
    mut decide: impl FnMut(&[T]) -> Result<Vec<Verdict>, JudgeError>,
) -> Result<Vec<Verdict>, JudgeError> {
    let mut verdicts = Vec::with_capacity(probes.len());
    while verdicts.len() < probes.len() {
        let rest = &probes[verdicts.len()..];
        let batch = &rest[..rest.len().min(*size)];
        match decide(batch) {
            Ok(decided) => verdicts.extend(decided),
            Err(JudgeError::OutOfMemory { .. }) if batch.len() > 1 => *size = batch.len() / 2,
            Err(error) => return Err(error.after(verdicts.len())),
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that holds `most` probes: decides with each probe's own number, or runs out of memory.
    fn device(
        most: usize,
        asked: &mut Vec<usize>,
        batch: &[u16],
    ) -> Result<Vec<Verdict>, JudgeError> {
        asked.push(batch.len());
        if batch.len() > most {
            return Err(JudgeError::OutOfMemory {
                message: format!("{} are too many", batch.len()),
            });
        }
        let verdicts = batch.iter().map(|&number| Verdict {
            n_prefix_matched: number,
            margin: 0.0,
            closest: 0.0,
            n_matched: None,
            likelihood: None,
        });
        Ok(verdicts.collect())
    }

    #[test]
    fn a_batch_is_halved_until_it_fits() {
        let probes: Vec<u16> = (0..100).collect();
        let (mut size, mut asked) = (64, Vec::new());
        let verdicts = halving(&probes, &mut size, |batch| device(10, &mut asked, batch)).unwrap();
        let found = verdicts.iter().map(|verdict| verdict.n_prefix_matched);
        assert_eq!(found.collect::<Vec<_>>(), probes, "each once, in order");
        assert_eq!(size, 8);
        assert_eq!(asked[..4], [64, 32, 16, 8]);
        assert!(asked[4..].iter().all(|&n| n <= 8), "it stays so");
    }

    #[test]
    fn a_rest_that_does_not_fit_is_halved_too() {
        let (mut size, mut asked) = (512, Vec::new());
        let verdicts = halving(&[1, 2, 3, 4, 5], &mut size, |batch| {
            device(1, &mut asked, batch)
        });
        assert_eq!(verdicts.unwrap().len(), 5);
        assert_eq!((size, asked), (1, vec![5, 2, 1, 1, 1, 1, 1]));
    }

    #[test]
    fn a_device_that_holds_no_probe_ends_in_its_error() {
        let (mut size, mut asked) = (4, Vec::new());
        let error = halving(&[1, 2], &mut size, |batch| device(0, &mut asked, batch)).unwrap_err();
        assert!(error.to_string().contains("1 are too many"), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(asked, [2, 1]);
    }

    #[test]
    fn batches_follow_the_memory() {
        // Pythia-12B in f16 beside 2,048 tokens, and Pythia-70M beside 64, in f32.
        let config = |layers: usize, hidden: usize, heads: usize| {
            let text = format!(
                r#"{{"model_type": "gpt_neox", "vocab_size": 50688, "hidden_size": {hidden}, "num_hidden_layers": {layers},
                "num_attention_heads": {heads}, "intermediate_size": {}, "max_position_embeddings": 2048, "rotary_pct": 0.25,
                "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_emb_base": 10000, "use_parallel_residual": true,
                "tie_word_embeddings": false}}"#,
                4 * hidden
            );
            GptNeoxConfig::from_json(text.as_bytes()).unwrap()
        };
        let gpu = |gibibytes: u64| Gpu {
            memory: gibibytes << 30,
            largest: gibibytes << 28,
            product: Product::Plain,
        };
        let (large, small) = (config(36, 5120, 40), config(6, 512, 8));
        let size =
            |config, gibibytes, number, len| from_memory(config, gpu(gibibytes), number, len);
        assert_eq!(size(&small, 80, 4, 64), LARGEST);
        let sizes = [24, 40, 80].map(|gibibytes| size(&large, gibibytes, 2, 64));
        assert_eq!(sizes[0], 1, "the weights alone take what there is");
        assert!(1 < sizes[1] && sizes[1] < sizes[2], "{sizes:?}");
        assert!(size(&large, 80, 2, 2048) < size(&large, 80, 2, 64));
        // In f16 nothing is split but the factors of the output projection.
        let rounded = Gpu {
            product: Product::Rounded,
            ..gpu(40)
        };
        let (halves, wholes) = (config(36, 5120, 40), config(16, 2048, 8));
        assert_eq!(from_memory(&halves, rounded, 2, 64), sizes[1]);
        let split = from_memory(&wholes, rounded, 4, 512);
        assert!(1 < split && split < size(&wholes, 40, 4, 512));
        // lavapipe's buffers of 128 MiB.
        let narrow = Gpu {
            largest: 128 << 20,
            ..gpu(24)
        };
        assert!((200..LARGEST).contains(&from_memory(&small, narrow, 4, 64)));
    }
}
