//! What must hold of every corpus and every run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/neox_maps/case.rs"]
mod case;

use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use training_order::mmididx::{Dataset, TokenType, Writer};
use training_order::{Exposure, Items, LoaderSettings, TrainingIndex, TrainingOrder};

/// Writes a corpus of items of these lengths, every token another.
fn corpus(folder: &Path, lengths: &[usize]) {
    let mut writer = Writer::create(&folder.join("corpus"), TokenType::I32).unwrap();
    let mut next = 0;
    for length in lengths {
        let end = next + u32::try_from(*length).unwrap();
        writer.write(&(next..end).collect::<Vec<_>>()).unwrap();
        next = end;
    }
    writer.finish().unwrap();
}

fn open(folder: &TempDir) -> Dataset {
    Dataset::open(&folder.path().join("corpus")).unwrap()
}

proptest! {
    #[test]
    fn an_order_is_a_permutation_that_reads_the_stream(
        lengths in prop::collection::vec(0_usize..40, 1..60),
        sequence_length in 1_u32..20,
        batch_size in 1_u32..6,
        n_steps in 1_u32..20,
        seed in any::<u32>(),
    ) {
        prop_assume!(lengths.iter().sum::<usize>() >= 2);
        let folder = tempfile::tempdir().unwrap();
        corpus(folder.path(), &lengths);
        let settings = LoaderSettings { items: Items::TrainDataPaths, sequence_length, batch_size, n_steps, seed };
        // Tiny runs may end before the loader's one missing sample.
        let order = TrainingOrder::as_served(vec![(open(&folder), 1.0)], &settings).unwrap();
        let map = order.mixture().unwrap().members()[0].index_map();

        let mut shuffled: Vec<u64> = map.shuffle_idx().map(|n| n.unwrap().into()).collect();
        shuffled.sort_unstable();
        prop_assert!(shuffled.into_iter().eq(0..map.n_samples()));
        let mut documents: Vec<u64> = map.doc_idx().map(|n| n.unwrap().into()).collect();
        documents.sort_unstable();
        let n_items = lengths.len() as u64;
        let copies = (0..n_items).flat_map(|item| (0..map.n_epochs()).map(move |_| item));
        prop_assert!(documents.into_iter().eq(copies));

        // The samples are the stream of all documents, cut: read one after another, they give it back.
        let items: Vec<Vec<u32>> = {
            let mut next = 0;
            lengths.iter().map(|length| {
                let first = next;
                next += u32::try_from(*length).unwrap();
                (first..next).collect()
            }).collect()
        };
        let stream: Vec<u32> = map.doc_idx().flat_map(|item| items[item.unwrap() as usize].clone()).collect();
        for index in (0..order.n_sequences()).map(TrainingIndex::new) {
            let place = order.position(index);
            prop_assert_eq!(u64::from(place.step) * u64::from(batch_size) + u64::from(place.row), index.get());
            let first = order.sample(index).unwrap() as usize * sequence_length as usize;
            let mut tokens = Vec::new();
            order.read_tokens(index, 0..sequence_length + 1, &mut tokens).unwrap();
            prop_assert_eq!(&tokens[..], &stream[first..=first + sequence_length as usize]);
        }

        // Sample → training index is the inverse of training index → sample.
        let inverse = order.inverse(0);
        prop_assert_eq!(inverse.len() as u64, map.n_samples());
        prop_assert_eq!(inverse.iter().flatten().count() as u64, order.n_sequences());
        for (sample, index) in inverse.iter().enumerate() {
            prop_assert!(index.is_none_or(|index| order.sample(index) == u32::try_from(sample).ok()));
        }

        // Sequence → documents and document → sequences are each other's inverse.
        let mut searched = Vec::new();
        for training_index in (0..order.n_sequences()).map(TrainingIndex::new) {
            let spans = order.documents(training_index).unwrap();
            searched.extend(spans.into_iter().map(|span| Exposure { training_index, span }));
        }
        let all: HashSet<u64> = (0..n_items).collect();
        prop_assert_eq!(order.exposures(0, &all).unwrap(), searched);
    }
}

#[test]
fn every_layout_of_a_batch_gives_the_same_steps() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path(), &[30; 100]);
    let mut first = None;
    for (micro_batch, accumulation, n_ranks) in [
        (12, 1, 1),
        (1, 12, 1),
        (1, 1, 12),
        (3, 2, 2),
        (2, 3, 2),
        (2, 1, 6),
    ] {
        let case = json!({
            "kind": "neox",
            "params": {
                "train_iters": 15, "eval_interval": 1000, "eval_iters": 1, "micro_batch_size": micro_batch,
                "gradient_accumulation_steps": accumulation, "data_parallel_size": n_ranks, "seq_length": 8,
                "seed": 1234, "resume_iteration": 0, "train_data_paths": ["corpus"],
            },
        });
        fs::write(folder.path().join("case.json"), case.to_string()).unwrap();
        let wanted = BTreeSet::from(["train_order".to_owned()]);
        let order = case::answer(folder.path(), &wanted)
            .unwrap()
            .remove("train_order")
            .unwrap();
        assert_eq!(order.shape, [180, 6]);
        // Step, position and sample; micro-batch and rank are the layout's own.
        let steps: Vec<[i64; 3]> = order
            .numbers
            .as_chunks::<6>()
            .0
            .iter()
            .map(|row| [row[0], row[3], row[5]])
            .collect();
        assert_eq!(*first.get_or_insert_with(|| steps.clone()), steps);
    }
}

#[test]
fn a_size_is_not_believed_beyond_the_tokens_there_are() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path(), &[30; 100]);
    let path = folder.path().join("corpus.idx");
    let mut idx = fs::read(&path).unwrap();
    // 2³¹ − 1 tokens would make maps of a gigabyte.
    idx[34 + 4 * 7..][..4].copy_from_slice(&i32::MAX.to_le_bytes());
    fs::write(&path, idx).unwrap();
    let settings = LoaderSettings {
        items: Items::TrainDataPaths,
        sequence_length: 1,
        batch_size: 1,
        n_steps: 5,
        seed: 1,
    };
    let error = TrainingOrder::from_seed(open(&folder), &settings)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("corpus.bin` has 12000 bytes, but item 7 reaches to byte 8589935428"),
        "{error}"
    );
}
