//! Every shape and storage of the suite, in tiny form, against transformers 5.23 (`tests/reference/make.py`).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod arrays;

use arrays::Arrays;
use gpt_neox::{DeviceChoice, GptNeox, Judge, Measures, Precision, Probes};
use std::fs;
use std::path::Path;

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

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name);
    let mut model = GptNeox::load(&folder, DeviceChoice::Cpu, Precision::F32).unwrap();
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
        "{name}: largest difference of a logit {largest:.1e}; {n_excused} verdicts differ, each at a near tie"
    );
}

#[test]
fn a_bin_cut_short_is_refused() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/rotary_of_80_bin_f16");
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

#[test]
fn halves_compute_in_halves() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/rotary_all_sharded");
    let tokens = Arrays::read(&folder.join("reference.safetensors")).wholes("tokens");
    let probes = Probes::new(&tokens, K, L).unwrap();
    let judged = |precision| {
        let mut model = GptNeox::load(&folder, DeviceChoice::Cpu, precision).unwrap();
        let logits = model.sequence_logits(&tokens, K + L).unwrap();
        (logits, model.judge(&probes, Measures::default()).unwrap())
    };
    let (expected, verdicts) = judged(Precision::F32);
    // Resolution of f16 and bf16 at logits of 10, times the root of the number of operations.
    for (precision, tolerance) in [(Precision::F16, 0.1), (Precision::Bf16, 1.0)] {
        let (logits, halves) = judged(precision);
        let differences = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f32::max);
        println!("{precision}: logits move by {largest:.1e}");
        assert!(
            0.0 < largest && largest < tolerance,
            "{precision}: {largest}"
        );
        for (half, verdict) in halves.iter().zip(&verdicts) {
            assert!(
                half.n_prefix_matched == verdict.n_prefix_matched || verdict.closest < tolerance
            );
        }
    }
}
