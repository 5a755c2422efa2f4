//! The miniature suite's models against transformers 5.23 in f32 (`data/mini/reference`).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use gpt_neox::{DeviceChoice, GptNeox, Judge, Precision, Probes, TokenLikelihood};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::fs;
use std::path::{Path, PathBuf};

/// How far apart two f32 implementations may be: logits reach 20, of which f32 resolves 2·10⁻⁶, and some
/// thousand operations stand between.
const TOLERANCE: f64 = 1e-4;
/// Tokens of a reference sequence.
const LEN: usize = 64;

#[test]
fn published_dialect_at_step_600() {
    // This checkpoint carries the extra buffers of the published files.
    check("standard", 600);
}

#[test]
fn published_dialect_at_step_2400() {
    check("standard", 2400);
}

#[test]
fn transformers_5_dialect_at_step_600() {
    check("deduped", 600);
}

#[test]
fn transformers_5_dialect_at_step_2400() {
    check("deduped", 2400);
}

fn check(corpus: &str, step: u32) {
    let model = load(corpus, step);
    let bytes = fs::read(mini().join(format!("reference/{corpus}_step{step}_numbers.safetensors")))
        .unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let array = |name: &str| numbers(&reference, name);
    let tokens: Vec<u32> = array("tokens").into_iter().map(whole).collect();

    let logits = array("logits");
    let n_compared = logits.len() / (LEN * model.config().vocab_size);
    let ours = model
        .sequence_logits(&tokens[..n_compared * LEN], LEN)
        .unwrap();
    let largest = compare("logits", ours.iter().copied().map(f64::from), &logits);

    let likelihoods: Vec<TokenLikelihood> = model.sequence_likelihoods(&tokens, LEN).unwrap();
    compare(
        "surprisal",
        likelihoods.iter().map(|token| f64::from(token.surprisal)),
        &array("surprisal"),
    );
    compare(
        "entropy",
        likelihoods.iter().map(|token| f64::from(token.entropy)),
        &array("entropy"),
    );
    // The reference has the margins of the continuation only: the last 32 of 63 tokens.
    let continuations = likelihoods
        .chunks_exact(LEN - 1)
        .flat_map(|sequence| &sequence[LEN - 33..]);
    compare(
        "margin",
        continuations.map(|token| f64::from(token.margin)),
        &array("margin"),
    );

    // A rank may differ only where another token's logit lies within the tolerance of the truth's.
    let ranks: Vec<u32> = array("rank").into_iter().map(whole).collect();
    assert_eq!(ranks.len(), likelihoods.len());
    let mut n_excused = 0;
    for (place, (token, &rank)) in likelihoods.iter().zip(&ranks).enumerate() {
        if token.rank != rank {
            assert!(
                has_near_tie(&model, &tokens, place),
                "rank of token {place}: {} instead of {rank}",
                token.rank
            );
            n_excused += 1;
        }
    }
    println!(
        "{corpus} step {step}: largest difference of a logit {largest:.1e}; {n_excused} of {} ranks differ, each at a near tie",
        ranks.len()
    );
}

/// Whether, before the token at `place` of the flattened likelihoods, another logit is near the truth's.
fn has_near_tie(model: &GptNeox, tokens: &[u32], place: usize) -> bool {
    let (sequence, token) = (place / (LEN - 1), place % (LEN - 1));
    let sequence = &tokens[sequence * LEN..(sequence + 1) * LEN];
    let logits = model.sequence_logits(sequence, LEN).unwrap();
    let vocab_size = model.config().vocab_size;
    let logits = &logits[token * vocab_size..(token + 1) * vocab_size];
    let truth = sequence[token + 1] as usize;
    let near = |logit: f32| f64::from((logit - logits[truth]).abs()) < TOLERANCE;
    logits
        .iter()
        .enumerate()
        .any(|(id, &logit)| id != truth && near(logit))
}

#[test]
fn a_verdict_does_not_depend_on_its_company() {
    let mut model = load("standard", 2400);
    let bytes = fs::read(mini().join("reference/standard_step2400_numbers.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let tokens: Vec<u32> = numbers(&reference, "tokens")
        .into_iter()
        .map(whole)
        .collect();
    let all = model.judge(&Probes::new(&tokens, 32, 32).unwrap()).unwrap();
    assert!(
        all.iter().any(|verdict| verdict.memorized(32))
            && all.iter().any(|verdict| verdict.n_prefix_matched == 0)
    );
    let alone = tokens
        .chunks_exact(LEN)
        .flat_map(|probe| model.judge(&Probes::new(probe, 32, 32).unwrap()).unwrap());
    assert_eq!(alone.collect::<Vec<_>>(), all);
    let reversed: Vec<u32> = tokens.chunks_exact(LEN).rev().flatten().copied().collect();
    let mut reversed = model
        .judge(&Probes::new(&reversed, 32, 32).unwrap())
        .unwrap();
    reversed.reverse();
    assert_eq!(reversed, all);
    // One pass over the whole sequence, without a cache, says the same.
    let likelihoods = model.sequence_likelihoods(&tokens, LEN).unwrap();
    let matched = likelihoods.chunks_exact(LEN - 1).map(|sequence| {
        sequence[31..]
            .iter()
            .take_while(|token| token.rank == 0)
            .count()
    });
    assert!(
        matched.eq(all
            .iter()
            .map(|verdict| usize::from(verdict.n_prefix_matched)))
    );
}

/// The largest difference, refusing one above the tolerance.
fn compare(what: &str, ours: impl Iterator<Item = f64>, reference: &[f64]) -> f64 {
    let mut largest: f64 = 0.0;
    let mut n = 0;
    for (place, (ours, &reference)) in ours.zip(reference).enumerate() {
        let difference = (ours - reference).abs();
        assert!(
            difference <= TOLERANCE,
            "{what} {place}: {ours} instead of {reference}"
        );
        largest = largest.max(difference);
        n += 1;
    }
    assert_eq!(n, reference.len(), "{what}: all compared");
    largest
}

fn load(corpus: &str, step: u32) -> GptNeox {
    let folder = mini().join(corpus).join(format!("model/step{step}"));
    GptNeox::load(&folder, DeviceChoice::Cpu, Precision::F32).unwrap()
}

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini")
}

/// An array of the reference, whatever it is stored in.
fn numbers(reference: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let array = reference.tensor(name).unwrap();
    let bytes = array.data();
    match array.dtype() {
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
            .collect(),
        Dtype::I32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f64::from(i32::from_le_bytes(*bytes)))
            .collect(),
        Dtype::U16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| f64::from(u16::from_le_bytes(*bytes)))
            .collect(),
        other => panic!("{name} is stored as {other:?}"),
    }
}

/// A whole number that `numbers` has read.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was a u16 or a count"
)]
fn whole(number: f64) -> u32 {
    number as u32
}
