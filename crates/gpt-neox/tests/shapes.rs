//! Every shape and storage of the suite, in tiny form, against transformers 5.23 (`tests/reference/make.py`).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod arrays;
mod devices;

use arrays::Arrays;
use devices::devices;
use gpt_neox::{DeviceChoice, GptNeox, Judge, Measures, Precision, Probes, Verdict};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::{Path, PathBuf};

const K: usize = 8;
const L: usize = 12;
/// As in `parity.rs`: logits reach 10 here.
const TOLERANCE: f32 = 1e-4;

#[test]
fn parallel_residual_in_the_published_dialect_stored_as_f16() {
    check("parallel_published_f16");
}

#[test]
fn sequential_residual_stored_as_bf16() {
    check("sequential_bf16");
}

#[test]
fn all_dimensions_rotated_in_shards() {
    check("rotary_all_sharded");
}

#[test]
fn a_quarter_of_80_dimensions_rotated_from_a_bin() {
    check("rotary_of_80_bin_f16");
}

#[test]
fn half_of_the_dimensions_rotated_from_sharded_bins() {
    check("rotary_half_bin_sharded");
}

#[test]
fn a_bin_in_the_old_format_stored_as_bf16() {
    check("old_bin_bf16");
}

#[test]
fn tied_embeddings_without_biases_of_attention() {
    check("tied_no_bias");
}

#[test]
fn activations_hundreds_of_times_as_large_as_the_others() {
    check("massive_activations_f16");
}

fn check(name: &str) {
    for &device in devices() {
        check_on(device, name);
    }
}

fn check_on(device: DeviceChoice, name: &str) {
    let folder = folder(name);
    let mut model = GptNeox::load(&folder, device, Precision::F32).unwrap();
    let reference = Arrays::read(&folder.join("reference.safetensors"));
    let tokens = reference.wholes("tokens");

    let logits = reference.floats("logits");
    let n_compared = logits.len() / model.config().vocab_size;
    let ours = model.sequence_logits(&tokens[..n_compared], K + L).unwrap();
    assert_eq!(ours.len(), logits.len());
    let differences = ours
        .iter()
        .zip(&logits)
        .map(|(ours, theirs)| (f64::from(*ours) - theirs).abs());
    let largest = differences.fold(0.0, f64::max);
    assert!(largest <= f64::from(TOLERANCE), "{name}: {largest}");

    let mut n_excused = 0;
    for (suppress_eos, generated) in [(false, "greedy"), (true, "suppressed")] {
        let generated = reference.wholes(generated);
        let measures = Measures {
            score: true,
            likelihood: false,
            suppress_eos,
        };
        let probes = Probes::new(&tokens, K, L).unwrap();
        let verdicts = model.judge(&probes, measures).unwrap();
        let rows = probes.rows().zip(generated.chunks_exact(L));
        for (verdict, (probe, generated)) in verdicts.iter().zip(rows) {
            let right = || {
                let both = probe[K..].iter().zip(generated);
                both.map(|(truth, generated)| truth == generated)
            };
            let expected = (
                right().take_while(|right| *right).count(),
                right().filter(|right| *right).count(),
            );
            let found = (
                usize::from(verdict.n_prefix_matched),
                usize::from(verdict.n_matched.unwrap()),
            );
            if found != expected {
                // Only where two logits are so near each other that rounding decides.
                assert!(
                    verdict.closest < TOLERANCE,
                    "{name}: {found:?} instead of {expected:?}"
                );
                n_excused += 1;
            }
        }
        let memorized = verdicts.iter().zip(probes.rows());
        let mut memorized = memorized
            .filter(|(verdict, _)| verdict.memorized(L))
            .map(|(_, probe)| &probe[K..]);
        if suppress_eos {
            assert!(memorized.all(|truth| !truth.contains(&0)), "{name}");
        } else {
            assert!(memorized.count() > 0, "{name}: the model's own words");
        }
    }
    println!(
        "{name} on {device}: largest difference of a logit {largest:.1e}; {n_excused} verdicts differ, each at a near tie"
    );
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

#[test]
fn a_bin_cut_short_is_refused() {
    let source = folder("rotary_of_80_bin_f16");
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| fs::copy(source.join(name), folder.path().join(name)).unwrap();
    copy("config.json");
    let whole = copy("pytorch_model.bin");
    GptNeox::check(folder.path()).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(folder.path().join("pytorch_model.bin"))
        .unwrap();
    for len in [whole - 1, whole - 1000, whole / 2, 100, 3, 0] {
        file.set_len(len).unwrap();
        let error = GptNeox::check(folder.path()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("pytorch_model.bin` is no whole PyTorch checkpoint"),
            "{len}: {text}"
        );
        assert!(error.hint().is_some());
    }
}

/// What a model answers in some precision: logits, and verdicts on the same tokens.
fn answers(
    folder: &Path,
    tokens: &[u32],
    device: DeviceChoice,
    precision: Precision,
) -> (Vec<f32>, Vec<Verdict>) {
    let mut model = GptNeox::load(folder, device, precision).unwrap();
    let logits = model.sequence_logits(tokens, K + L).unwrap();
    let probes = Probes::new(tokens, K, L).unwrap();
    (logits, model.judge(&probes, Measures::default()).unwrap())
}

/// Holds the halves that a device has against its f32.
fn check_halves(folder: &Path, tokens: &[u32]) {
    for &device in devices() {
        let (expected, verdicts) = answers(folder, tokens, device, Precision::F32);
        // Resolution of f16 and bf16 at logits of 10, times the root of the number of operations.
        for (precision, tolerance) in [(Precision::F16, 0.1), (Precision::Bf16, 1.0)] {
            if let Err(error) = device.check(precision) {
                println!("{error}: not run");
                continue;
            }
            let (logits, halves) = answers(folder, tokens, device, precision);
            let differences = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let largest = differences.fold(0.0, f32::max);
            println!("{precision} on {device}: logits move by {largest:.1e}");
            assert!(
                0.0 < largest && largest < tolerance,
                "{precision} on {device}: {largest}"
            );
            for (half, verdict) in halves.iter().zip(&verdicts) {
                assert!(
                    half.n_prefix_matched == verdict.n_prefix_matched
                        || verdict.closest < tolerance
                );
            }
        }
    }
}

#[test]
fn halves_compute_in_halves() {
    let folder = folder("rotary_all_sharded");
    let tokens = Arrays::read(&folder.join("reference.safetensors")).wholes("tokens");
    check_halves(&folder, &tokens);
    // Of many probes together, the hidden states add up to more than f16 can hold.
    let many = tokens.repeat(64);
    for &device in devices() {
        if device.check(Precision::F16).is_ok() {
            let mut model = GptNeox::load(&folder, device, Precision::F16).unwrap();
            model.set_batch_size(many.len());
            let mut judge = |tokens: &[u32]| {
                let probes = Probes::new(tokens, K, L).unwrap();
                model.judge(&probes, Measures::default()).unwrap()
            };
            let (some, many) = (judge(&tokens), judge(&many));
            let matched = |verdict: &Verdict| verdict.n_prefix_matched;
            let expected = some.iter().map(matched);
            let found = many[many.len() - some.len()..].iter().map(matched);
            let n_equal = expected.zip(found).filter(|(a, b)| a == b).count();
            assert!(n_equal * 10 >= some.len() * 9, "{device}: {n_equal}");
        }
    }
}

#[test]
fn scores_beyond_f16_do_not_overflow() {
    /// Query and key of the last dimension of each head, which is not rotated: 512 · 512 / √8 is 92,682, f16 ends at
    /// 65,504. As every score has this summand, their softmax is that of the rest.
    const LARGE: f32 = 512.0;
    const HEAD_SIZE: usize = 8;
    let source = folder("parallel_published_f16");
    let tokens = Arrays::read(&source.join("reference.safetensors")).wholes("tokens");
    let bytes = fs::read(source.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut n_planted = 0;
    let tensors = file.tensors().into_iter().map(|(name, tensor)| {
        let mut data = tensor.data().to_vec();
        let is_bias = name.ends_with("query_key_value.bias");
        if is_bias || name.ends_with("query_key_value.weight") {
            assert_eq!(tensor.dtype(), Dtype::F16);
            let planted = half::f16::from_f32(if is_bias { LARGE } else { 0.0 }).to_le_bytes();
            let row_size = data.len() / tensor.shape()[0];
            // Rows are ordered (head, {query, key, value}, dimension).
            for (row, numbers) in data.chunks_exact_mut(row_size).enumerate() {
                if row % HEAD_SIZE == HEAD_SIZE - 1 && row / HEAD_SIZE % 3 < 2 {
                    numbers.as_chunks_mut::<2>().0.fill(planted);
                    n_planted += 1;
                }
            }
        }
        (name, tensor.dtype(), tensor.shape().to_vec(), data)
    });
    let tensors: Vec<_> = tensors.collect();
    assert_eq!(n_planted, 2 * 2 * 4 * 2, "weights and biases of 2 layers");
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name, view)
    });
    let folder = tempfile::tempdir().unwrap();
    let copy = safetensors::serialize(views, None).unwrap();
    fs::write(folder.path().join("model.safetensors"), copy).unwrap();
    fs::copy(
        source.join("config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    check_halves(folder.path(), &tokens);
}

#[test]
fn a_batch_that_does_not_fit_is_halved() {
    const N: usize = 40_000;
    let folder = folder("rotary_all_sharded");
    let tokens = Arrays::read(&folder.join("reference.safetensors")).wholes("tokens");
    let n = tokens.len() / (K + L);
    let tokens = tokens.repeat(N / n);
    let probes = Probes::new(&tokens, K, L).unwrap();
    for &device in devices() {
        // A CPU has memory for all of them; of a GPU's, a tensor of 160 MB may ask too much.
        if device == DeviceChoice::Cpu {
            continue;
        }
        let mut model = GptNeox::load(&folder, device, Precision::F32).unwrap();
        let some = Probes::new(&tokens[..n * (K + L)], K, L).unwrap();
        let expected = model.judge(&some, Measures::default()).unwrap();
        model.set_batch_size(N);
        let verdicts = model.judge(&probes, Measures::default()).unwrap();
        println!(
            "{device}: {} of {N} probes together",
            model.batch_size(K + L)
        );
        for verdicts in verdicts.chunks_exact(n) {
            for (verdict, expected) in verdicts.iter().zip(&expected) {
                assert!(
                    verdict.n_prefix_matched == expected.n_prefix_matched
                        || expected.closest < TOLERANCE
                );
            }
        }
    }
}
