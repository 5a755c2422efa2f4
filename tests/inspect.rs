//! `pipeline inspect`: what is shown is what GPT-NeoX's loader served.

use crate::program::{mini, numbers as numbers_of, root, succeed, table, u32s};
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

#[test]
fn a_document_is_shown_with_every_sequence_that_holds_it() {
    // Sequence 3 is cut from it: the two views agree.
    let sequence = succeed(
        &root(),
        &["inspect", "sequence", "3", "--corpus", "standard"],
    )
    .stdout;
    assert!(
        sequence.contains("\n  document 238  tokens 991..1120  (129)\n"),
        "{sequence}"
    );
    let document = succeed(
        &root(),
        &["inspect", "document", "238", "--corpus", "standard"],
    )
    .stdout;
    assert!(
        document.contains("\n  training index 3  step 0  row 3  tokens 991..1120\n"),
        "{document}"
    );
    assert!(
        document.contains("countFinalize() routine is called"),
        "{document}"
    );
}

#[test]
fn batches_are_saved_for_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str| {
        let path = folder.path().join(name);
        let arguments = [
            "inspect", "batch", "--steps", "2..5", "--corpus", "deduped", "--save",
        ];
        succeed(
            &root(),
            &[&arguments[..], &[path.to_str().unwrap()]].concat(),
        );
        path
    };
    let reference = Array::open(&mini().join("reference/deduped_tokens64.npy")).unwrap();
    let expected = |sequence: usize| reference.iter().skip((16 + sequence) * 64).take(64);

    let array = Array::open(&save("x.npy")).unwrap();
    assert_eq!(array.shape(), [24, 129]);
    let numbers: Vec<i64> = array.iter().collect();
    for (sequence, tokens) in numbers.chunks(129).enumerate() {
        assert!(tokens[..64].iter().copied().eq(expected(sequence)));
    }

    save("x.parquet");
    let frame = table(folder.path(), "x.parquet");
    assert!(u32s(&frame, "training_index").into_iter().eq(16..40));
    assert_eq!(u32s(&frame, "step")[23], 4);
    let lists = frame.column("tokens").unwrap().list().unwrap();
    for (sequence, tokens) in lists.amortized_iter().enumerate() {
        let tokens = tokens.unwrap().deep_clone();
        let tokens = numbers_of(tokens.u32().unwrap());
        assert_eq!(tokens.len(), 129);
        assert!(
            tokens[..64]
                .iter()
                .copied()
                .map(i64::from)
                .eq(expected(sequence))
        );
    }
}
