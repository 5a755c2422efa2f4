//! `pipeline inspect`: what is shown is what GPT-NeoX's loader served.

use crate::program::{mini, root, succeed};
use training_order::npy::Array;

#[test]
fn a_sequence_is_shown_with_its_place_and_text() {
    let outcome = succeed(
        &root(),
        &["inspect", "sequence", "11", "--corpus", "deduped"],
    );
    let text = outcome.stdout;
    assert!(
        text.starts_with("order: rebuilt from the loader's seed\n\ncorpus deduped  training index 11  step 1  row 3  sample "),
        "{text}"
    );
    assert!(
        text.contains("\nfirst seen by the checkpoint of 2 steps\n"),
        "{text}"
    );
    let tokens = Array::open(&mini().join("reference/deduped_tokens64.npy")).unwrap();
    let first: Vec<String> = tokens
        .iter()
        .skip(11 * 64)
        .take(64)
        .map(|token| token.to_string())
        .collect();
    assert!(
        text.contains(&format!("\ntokens (129): {} ", first.join(" "))),
        "{text}"
    );
    let (_, prose) = text.split_once("\ntext:\n").unwrap();
    // About four letters a token.
    assert!(prose.len() > 200, "{prose}");
}

#[test]
fn a_batch_is_its_sequences() {
    let batch = succeed(&root(), &["inspect", "batch", "1", "--corpus", "deduped"]).stdout;
    let one = succeed(
        &root(),
        &["inspect", "sequence", "11", "--corpus", "deduped"],
    )
    .stdout;
    assert_eq!(batch.matches("corpus deduped  training index ").count(), 8);
    let (_, sequence) = one.split_once('\n').unwrap();
    assert!(batch.contains(sequence));
}
