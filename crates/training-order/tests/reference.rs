//! GPT-NeoX's own loader and NumPy's own generator, against ours, bit for bit.
//!
//! `reference/pub01` to `pub04` were written by GPT-NeoX (gpt-neox d36f623f and ea7aefd8 agree): the maps are
//! its files, the order, tokens and checksums what its loader served. `rng_kat.json` is NumPy 1.26.4's.
//! `data/mini/reference` was made in the same way for the miniature suite.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use training_order::index_map::IndexMap;
use training_order::loader::{Evaluation, n_sequences_wanted};
use training_order::mmididx::Dataset;
use training_order::npy::Array;
use training_order::numpy_random::RandomState;
use training_order::{Items, LoaderSettings, Split, TrainingIndex, TrainingOrder};

/// What the loader of one of the three datasets was checked for.
const N_EVALUATION_SEQUENCES: u64 = 40;

#[test]
fn pub01_a_split_and_several_evaluation_epochs() {
    check_case("pub01_split_seq8");
}

#[test]
fn pub02_both_copies_of_a_document_in_one_shuffle() {
    check_case("pub02_pythia_like_1p5_epochs_seq64");
}

#[test]
fn pub03_empty_and_one_token_documents() {
    check_case("pub03_edge_docs_many_epochs_seq8");
}

#[test]
fn pub04_documents_longer_than_sequences() {
    check_case("pub04_long_docs_seq2048");
}

#[test]
fn the_miniature_suite() {
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini");
    for corpus in ["standard", "deduped"] {
        let dataset = Dataset::open(&mini.join(corpus).join("document")).unwrap();
        let settings = LoaderSettings {
            items: Items::TrainDataPaths,
            sequence_length: 128,
            batch_size: 8,
            n_steps: 2400,
            seed: 1234,
        };
        let order = TrainingOrder::from_seed(dataset, &settings).unwrap();
        let reference = mini.join("reference");
        let prefix = format!("{corpus}_maps/document_train_0_indexmap_19200ns_128sl_1234s_");
        check_maps(&reference, &prefix, order.index_map(), order.dataset());
        let tokens = array(&reference.join(format!("{corpus}_tokens64.npy")));
        let checksums = array(&reference.join(format!("{corpus}_crc32.npy")));
        assert_eq!(checksums.len() as u64, order.n_sequences());
        let sequences = (0..order.n_sequences()).map(|index| {
            let mut sequence = Vec::new();
            order
                .read_tokens(TrainingIndex::new(index), 0..129, &mut sequence)
                .unwrap();
            sequence
        });
        check_sequences(corpus, sequences, tokens, &checksums);
    }
}

fn check_case(name: &str) {
    let folder = reference().join(name);
    let case: Value = serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
    let parameters = &case["params"];
    let number = |key: &str| u32::try_from(parameters[key].as_u64().unwrap()).unwrap();
    let batch_size = number("micro_batch_size")
        * number("gradient_accumulation_steps")
        * number("data_parallel_size");
    let (data, items) = if let Value::String(data) = &parameters["train_data_paths"][0] {
        (data.clone(), Items::TrainDataPaths)
    } else {
        let split: Split = parameters["split"].as_str().unwrap().parse().unwrap();
        (
            parameters["data_path"].as_str().unwrap().to_owned(),
            Items::DataPath { split },
        )
    };
    let open = || Dataset::open(&folder.join(&data)).unwrap();
    let sequence_length = number("seq_length");
    let settings = LoaderSettings {
        items,
        sequence_length,
        batch_size,
        n_steps: number("train_iters"),
        seed: number("seed"),
    };
    let order = TrainingOrder::from_seed(open(), &settings).unwrap();
    let expected = folder.join("expected");
    let infix = if items == Items::TrainDataPaths {
        "_0"
    } else {
        ""
    };
    check_maps(
        &expected,
        &format!("train{infix}_"),
        order.index_map(),
        order.dataset(),
    );
    check_order(&expected, &order);

    let evaluation = Evaluation {
        interval: number("eval_interval"),
        iters: number("eval_iters"),
    };
    let wanted = n_sequences_wanted(settings.n_steps, batch_size, evaluation);
    for (place, part) in [(1, "valid"), (2, "test")] {
        if !expected.join(format!("{part}_crc32.npy")).exists() {
            continue;
        }
        let dataset = open();
        let range: Range<u64> = match items {
            Items::TrainDataPaths => 0..dataset.n_items(),
            Items::DataPath { split } => split.ranges(dataset.n_items())[place].clone(),
        };
        let map = IndexMap::build(
            &dataset,
            range,
            items.n_samples(wanted[place]),
            sequence_length,
            settings.seed,
        )
        .unwrap();
        check_maps(&expected, &format!("{part}{infix}_"), &map, &dataset);
        let n = usize::try_from(map.len().min(N_EVALUATION_SEQUENCES)).unwrap();
        let sequences = map.shuffle_idx()[..n].iter().map(|&sample| {
            let mut sequence = Vec::new();
            map.read_tokens(&dataset, sample, 0..sequence_length + 1, &mut sequence)
                .unwrap();
            sequence
        });
        let tokens = array(&expected.join(format!("{part}_tokens64.npy")));
        let checksums = array(&expected.join(format!("{part}_crc32.npy")));
        check_sequences(part, sequences, tokens, &checksums);
    }
}

/// Compares the three maps with GPT-NeoX's files.
fn check_maps(folder: &Path, prefix: &str, map: &IndexMap, dataset: &Dataset) {
    let file = |kind: &str| array(&folder.join(format!("{prefix}{kind}_idx.npy")));
    let ours = |numbers: &[u32]| numbers.iter().copied().map(i64::from).collect::<Vec<_>>();
    assert!(ours(map.doc_idx()) == file("doc"), "{prefix}doc_idx");
    assert!(
        ours(map.shuffle_idx()) == file("shuffle"),
        "{prefix}shuffle_idx"
    );
    let samples = map.sample_idx(dataset).unwrap().into_iter().flatten();
    assert!(
        samples
            .map(|n| i64::try_from(n).unwrap())
            .eq(file("sample")),
        "{prefix}sample_idx"
    );
}

/// Compares steps, positions, samples and tokens with what GPT-NeoX's loader served.
fn check_order(expected: &Path, order: &TrainingOrder) {
    // Columns: step, micro-batch, data-parallel rank, position in the loader, member of the blend, sample.
    let served = array(&expected.join("train_order.npy"));
    assert_eq!(served.len() as u64, 6 * order.n_sequences());
    for (index, row) in (0..).zip(served.as_chunks::<6>().0) {
        let index = TrainingIndex::new(index);
        assert_eq!(
            i64::from(order.position(index).step),
            row[0],
            "step of {index}"
        );
        assert_eq!(
            i64::try_from(index.get()).unwrap(),
            row[3],
            "position of {index}"
        );
        assert_eq!(
            order.sample(index).map(i64::from),
            Some(row[5]),
            "sample of {index}"
        );
    }
    let tokens = array(&expected.join("train_tokens64.npy"));
    let checksums = array(&expected.join("train_crc32.npy"));
    assert_eq!(checksums.len() as u64, order.n_sequences());
    let sequences = (0..order.n_sequences())
        .map(TrainingIndex::new)
        .map(|index| {
            let mut sequence = Vec::new();
            order
                .read_tokens(index, 0..order.sequence_length() + 1, &mut sequence)
                .unwrap();
            let spans = order.documents(index).unwrap();
            let n_tokens: u64 = spans
                .iter()
                .map(|span| span.tokens.end - span.tokens.start)
                .sum();
            assert_eq!(n_tokens, sequence.len() as u64, "documents of {index}");
            sequence
        });
    check_sequences("train", sequences, tokens, &checksums);
}

/// Compares whole sequences with their first 64 tokens and the CRC-32 of all as i32.
fn check_sequences(
    what: &str,
    sequences: impl Iterator<Item = Vec<u32>>,
    tokens64: Vec<i64>,
    checksums: &[i64],
) {
    let mut tokens64 = tokens64.into_iter();
    let mut n = 0;
    for (sequence, &checksum) in sequences.zip(checksums) {
        let first = sequence[..sequence.len().min(64)]
            .iter()
            .copied()
            .map(i64::from);
        assert!(
            tokens64.by_ref().take(first.len()).eq(first),
            "{what}: tokens of {n}"
        );
        let bytes: Vec<u8> = sequence
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        assert_eq!(
            i64::from(crc32fast::hash(&bytes)),
            checksum,
            "{what}: checksum of {n}"
        );
        n += 1;
    }
    assert_eq!(n, checksums.len(), "{what}: sequences");
    assert_eq!(tokens64.next(), None, "{what}: all tokens compared");
}

#[test]
fn the_generator_is_numpys() {
    let kat: Value =
        serde_json::from_slice(&fs::read(reference().join("rng_kat.json")).unwrap()).unwrap();
    let number = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.as_u64().unwrap(), |text| text.parse().unwrap())
    };
    let seed = |value: &Value| u32::try_from(number(value)).unwrap();
    let list = |value: &Value| {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect::<Vec<u64>>()
    };

    for (start, outputs) in kat["raw_u32"].as_object().unwrap() {
        let mut random = RandomState::new(start.parse().unwrap());
        assert_eq!(
            (0..8)
                .map(|_| u64::from(random.next_u32()))
                .collect::<Vec<_>>(),
            list(outputs),
            "seed {start}"
        );
    }
    for case in kat["shuffle_arange"].as_array().unwrap() {
        let mut numbers: Vec<u32> = (0..u32::try_from(number(&case["n"])).unwrap()).collect();
        RandomState::new(seed(&case["seed"])).shuffle(&mut numbers);
        assert_eq!(
            sha256(&numbers),
            case["sha256_u32le"].as_str().unwrap(),
            "{case}"
        );
    }
    for case in kat["two_shuffles"].as_array().unwrap() {
        let mut random = RandomState::new(seed(&case["seed"]));
        for (n, hash) in [("n1", "sha256_1_i32le"), ("n2", "sha256_2_u32le")] {
            let mut numbers: Vec<u32> = (0..u32::try_from(number(&case[n])).unwrap()).collect();
            random.shuffle(&mut numbers);
            assert_eq!(sha256(&numbers), case[hash].as_str().unwrap(), "{case}");
        }
    }
    for case in kat["random_interval"].as_array().unwrap() {
        let mut random = RandomState::new(seed(&case["seed"]));
        let drawn: Vec<u64> = list(&case["max"])
            .into_iter()
            .map(|max| random.interval(max))
            .collect();
        assert_eq!(drawn, list(&case["value"]), "seed {}", case["seed"]);
    }
}

fn sha256(numbers: &[u32]) -> String {
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

fn array(path: &Path) -> Vec<i64> {
    Array::open(path).unwrap().iter().collect()
}
