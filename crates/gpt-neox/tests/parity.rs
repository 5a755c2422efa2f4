//! The miniature suite's models against transformers 5.23 in f32 (`data/mini/reference`).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod arrays;
mod devices;

use arrays::Arrays;
use devices::devices;
use gpt_neox::{
    DeviceChoice, GptNeox, Judge, Measures, Precision, Probes, TokenLikelihood, Verdict,
};
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
    for &device in devices() {
        check_on(device, corpus, step);
    }
}

fn check_on(device: DeviceChoice, corpus: &str, step: u32) {
    let model = load(device, corpus, step);
    let reference = numbers(corpus, step);
    let array = |name: &str| reference.floats(name);
    let tokens = reference.wholes("tokens");

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
    let ranks = reference.wholes("rank");
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
        "{corpus} step {step} on {device}: largest difference of a logit {largest:.1e}; {n_excused} of {} ranks differ, each at a near tie",
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

/// All three measures.
const ALL: Measures = Measures {
    score: true,
    likelihood: true,
    suppress_eos: false,
};

fn judged(model: &mut GptNeox, tokens: &[u32], measures: Measures) -> Vec<Verdict> {
    let probes = Probes::new(tokens, 32, 32).unwrap();
    model.judge(&probes, measures).unwrap()
}

#[test]
fn a_verdict_does_not_depend_on_its_company() {
    for &device in devices() {
        let mut model = load(device, "standard", 2400);
        let tokens = numbers("standard", 2400).wholes("tokens");
        // `score` goes token by token, and a software driver takes its time for every launch, however little there is to do.
        let (measures, n_some) = match device {
            DeviceChoice::Cpu => (ALL, tokens.len() / LEN),
            DeviceChoice::Gpu(..) => (
                Measures {
                    score: false,
                    ..ALL
                },
                6,
            ),
        };
        let some = &tokens[..n_some * LEN];
        let all = judged(&mut model, &tokens, measures);
        assert!(
            all.iter().any(|verdict| verdict.memorized(32))
                && all.iter().any(|verdict| verdict.n_prefix_matched == 0)
        );
        assert_eq!(
            judged(&mut model, &tokens, measures),
            all,
            "{device} repeats itself, bit for bit"
        );
        let alone = some
            .chunks_exact(LEN)
            .flat_map(|probe| judged(&mut model, probe, measures));
        let alone = largest_move(&all[..n_some], &alone.collect::<Vec<_>>());
        let reversed: Vec<u32> = some.chunks_exact(LEN).rev().flatten().copied().collect();
        let mut reversed = judged(&mut model, &reversed, measures);
        reversed.reverse();
        let reversed = largest_move(&all[..n_some], &reversed);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let one_thread = pool
            .unwrap()
            .install(|| judged(&mut model, &tokens, measures));
        let one_thread = largest_move(&all, &one_thread);
        model.set_batch_size(3);
        let by_threes = largest_move(&all[..n_some], &judged(&mut model, some, measures));
        println!(
            "{device}: margins move by {alone:.1e} when each probe is alone, {by_threes:.1e} by threes, {reversed:.1e} in reverse order, {one_thread:.1e} on one thread"
        );
        assert!(one_thread <= 0.0, "the number of threads decides nothing");
    }
}

#[test]
fn the_measures_agree_where_they_overlap() {
    for &device in devices() {
        check_measures(device);
    }
}

fn check_measures(device: DeviceChoice) {
    let mut model = load(device, "standard", 2400);
    let tokens = numbers("standard", 2400).wholes("tokens");
    let exact = judged(&mut model, &tokens, Measures::default());
    let score = Measures {
        score: true,
        ..Measures::default()
    };
    let score = judged(&mut model, &tokens, score);
    let all = judged(&mut model, &tokens, ALL);
    let moved = largest_move(&exact, &score).max(largest_move(&exact, &all));
    println!("{device}: margins move by {moved:.1e} when the likelihood is asked for, too");

    // Decoding without the truth as draft says the same; and so does one pass without a cache.
    let likelihoods = model.sequence_likelihoods(&tokens, LEN).unwrap();
    let rows = likelihoods.chunks_exact(LEN - 1);
    for ((row, all), score) in rows.zip(&all).zip(&score) {
        let continuation = &row[LEN - 33..];
        let n_right = |token: &&TokenLikelihood| token.rank == 0;
        let n_prefix = continuation.iter().take_while(n_right).count();
        assert_eq!(n_prefix, usize::from(all.n_prefix_matched));
        let likelihood = all.likelihood.unwrap();
        let n_top1 = continuation.iter().filter(n_right).count();
        assert_eq!(n_top1, usize::from(likelihood.n_top1));
        let sum: f64 = continuation.iter().map(|t| f64::from(t.surprisal)).sum();
        assert!((f64::from(likelihood.logp_suffix) + sum).abs() < 1e-3);
        assert!((f64::from(likelihood.surprisal) - sum / 32.0).abs() < 1e-4);
        let n_matched = all.n_matched.unwrap();
        assert_eq!(score.n_matched, Some(n_matched));
        assert!(n_matched >= all.n_prefix_matched);
    }
    assert!(
        all.iter()
            .any(|verdict| verdict.n_matched > Some(verdict.n_prefix_matched)),
        "some probe is right again after its miss"
    );
}

/// The farthest that a margin moves between verdicts that are otherwise equal.
fn largest_move(a: &[Verdict], b: &[Verdict]) -> f32 {
    assert_eq!(a.len(), b.len());
    let moves = a.iter().zip(b).map(|(a, b)| {
        assert_eq!(a.n_prefix_matched, b.n_prefix_matched);
        if a.n_matched.is_some() && b.n_matched.is_some() {
            assert_eq!(a.n_matched, b.n_matched);
        }
        (a.margin - b.margin)
            .abs()
            .max((a.closest - b.closest).abs())
    });
    let largest = moves.fold(0.0, f32::max);
    assert!(f64::from(largest) < TOLERANCE, "{largest}");
    largest
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

fn load(device: DeviceChoice, corpus: &str, step: u32) -> GptNeox {
    let folder = mini().join(corpus).join(format!("model/step{step}"));
    GptNeox::load(&folder, device, Precision::F32).unwrap()
}

fn numbers(corpus: &str, step: u32) -> Arrays {
    Arrays::read(&mini().join(format!("reference/{corpus}_step{step}_numbers.safetensors")))
}

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini")
}
