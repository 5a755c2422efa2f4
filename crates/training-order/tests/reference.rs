//! GPT-NeoX's own loader and NumPy's own generator, against ours, bit for bit.
//!
//! `reference/pub01` to `pub08` were written by GPT-NeoX (gpt-neox d36f623f and ea7aefd8 agree): the maps are
//! its files, the order, tokens and checksums what its loader served. `rng_kat.json` is NumPy 1.26.4's.
//! `data/mini/reference` was made in the same way for the miniature suite.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/neox_maps/case.rs"]
mod case;

use case::Array;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use training_order::mmididx::Dataset;
use training_order::numpy_random::RandomState;
use training_order::{
    BatchPosition, Checkpoint, DocumentCopies, Exposure, Items, LoaderSettings, MapFiles,
    OrderError, ProbeExposure, TrainingIndex, TrainingOrder, npy,
};

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
fn pub05_a_mixture_of_two_token_types() {
    check_case("pub05_blend2_seq64");
}

#[test]
fn pub06_ranks_accumulation_and_a_resumed_run() {
    check_case("pub06_dp2_gas2_resume_seq8");
}

#[test]
fn pub07_a_loader_that_ends_before_the_run() {
    check_case("pub07_exact_fit_loader_short_seq8");
}

#[test]
fn pub08_preshuffled_rows_across_shards() {
    check_case("pub08_preshuffled_shards");
}

/// Compares everything that was recorded of a case.
fn check_case(name: &str) {
    let folder = reference().join(name);
    let expected = arrays(&folder.join("expected"));
    let ours = case::answer(&folder, &expected.keys().cloned().collect()).unwrap();
    assert!(!expected.is_empty());
    for (array, expected) in expected {
        assert_eq!(
            ours[&array].shape, expected.shape,
            "{name}: shape of {array}"
        );
        assert!(ours[&array].numbers == expected.numbers, "{name}: {array}");
    }
}

#[test]
fn the_miniature_suite() {
    for corpus in ["standard", "deduped"] {
        let order = TrainingOrder::from_seed(mini(corpus), &mini_settings()).unwrap();
        let member = &order.mixture().unwrap().members()[0];
        let (map, files) = (member.index_map(), mini_maps(corpus));
        assert!(
            map.doc_idx()
                .map(|item| i64::from(item.unwrap()))
                .eq(array(&files.doc_idx).numbers)
        );
        assert!(
            map.shuffle_idx()
                .map(|sample| i64::from(sample.unwrap()))
                .eq(array(&files.shuffle_idx).numbers)
        );
        let starts = map
            .sample_idx(member.dataset())
            .unwrap()
            .into_iter()
            .flatten();
        assert!(
            starts
                .map(|n| i64::try_from(n).unwrap())
                .eq(array(&files.sample_idx).numbers)
        );

        // From GPT-NeoX's own maps, the order is the same, token for token.
        let mapped = TrainingOrder::from_maps(mini(corpus), &files, &mini_settings()).unwrap();
        mapped.mixture().unwrap().members()[0]
            .index_map()
            .check(&mini(corpus))
            .unwrap();
        let tokens = array(&mini_folder().join(format!("reference/{corpus}_tokens64.npy"))).numbers;
        let checksums = array(&mini_folder().join(format!("reference/{corpus}_crc32.npy"))).numbers;
        assert_eq!(checksums.len(), 19_200);
        for (index, (tokens, checksum)) in
            (0..).zip(tokens.as_chunks::<64>().0.iter().zip(checksums))
        {
            let index = TrainingIndex::new(index);
            assert_eq!(order.sample(index), mapped.sample(index));
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            order.read_tokens(index, 0..129, &mut ours).unwrap();
            mapped.read_tokens(index, 0..129, &mut theirs).unwrap();
            assert_eq!(ours, theirs);
            assert!(
                ours[..64].iter().copied().map(i64::from).eq(*tokens),
                "tokens of {index}"
            );
            let bytes: Vec<u8> = ours.iter().flat_map(|token| token.to_le_bytes()).collect();
            assert_eq!(
                i64::from(crc32fast::hash(&bytes)),
                checksum,
                "checksum of {index}"
            );
            assert_eq!(
                order.documents(index).unwrap(),
                mapped.documents(index).unwrap()
            );
        }
    }
}

#[test]
fn exposures_are_those_of_a_search_through_all_sequences() {
    for corpus in ["standard", "deduped"] {
        let order = TrainingOrder::from_seed(mini(corpus), &mini_settings()).unwrap();
        let files = mini_maps(corpus);
        let mapped = TrainingOrder::from_maps(mini(corpus), &files, &mini_settings()).unwrap();
        let wanted: HashSet<u64> = (0..order.mixture().unwrap().members()[0].dataset().n_items())
            .step_by(37)
            .collect();
        let mut searched = Vec::new();
        for training_index in (0..order.n_sequences()).map(TrainingIndex::new) {
            let spans = order.documents(training_index).unwrap().into_iter();
            let spans = spans.filter(|span| wanted.contains(&span.document));
            searched.extend(spans.map(|span| Exposure {
                training_index,
                span,
            }));
        }
        assert!(searched.len() > 500);
        // Several copies of a document in one sequence come in the order of its tokens, both ways.
        assert_eq!(order.exposures(0, &wanted).unwrap(), searched, "{corpus}");
        assert_eq!(mapped.exposures(0, &wanted).unwrap(), searched, "{corpus}");
    }
}

#[test]
fn document_copies_are_those_of_a_search_through_all_tokens() {
    for (corpus, met_again) in [("standard", false), ("deduped", true)] {
        let order = TrainingOrder::from_seed(mini(corpus), &mini_settings()).unwrap();
        let indices: Vec<TrainingIndex> =
            (0..order.n_sequences()).map(TrainingIndex::new).collect();
        // The steps that take each token of each document as an input.
        let mut steps: HashMap<(u64, u64), Vec<u32>> = HashMap::new();
        let mut inputs = Vec::new();
        for &index in &indices {
            let spans = order.documents(index).unwrap().into_iter();
            let tokens = spans.flat_map(|span| span.tokens.map(move |at| (span.document, at)));
            let tokens: Vec<(u64, u64)> = tokens.collect();
            assert_eq!(tokens.len(), 129);
            for token in &tokens[..128] {
                let step = order.position(index).step;
                steps.entry(*token).or_default().push(step);
            }
            inputs.push(tokens);
        }
        for place in [0, 90] {
            let found = order.document_copies(&indices, place).unwrap();
            let mut n_again = 0;
            for ((index, copies), tokens) in indices.iter().zip(found).zip(&inputs) {
                let own = order.position(*index).step;
                let all = &steps[&tokens[place as usize]];
                let count = |which: fn(&u32, &u32) -> bool| {
                    u32::try_from(all.iter().filter(|step| which(step, &own)).count()).unwrap()
                };
                let expected = DocumentCopies {
                    before: count(|step, own| step < own),
                    after: count(|step, own| step > own),
                    same_step: count(|step, own| step == own) - 1,
                };
                assert_eq!(copies, expected, "{corpus} {index} {place}");
                n_again += u32::from(copies != DocumentCopies::default());
            }
            assert_eq!(n_again > 0, met_again, "{corpus}: {n_again}");
        }
    }
}

#[test]
fn probe_exposures_are_those_of_a_search_through_all_windows() {
    const LEN: usize = 64;
    for (corpus, n_at_start, n_anywhere) in [
        ("standard", Some(2050), Some(6235)),
        ("deduped", None, None),
    ] {
        let order = TrainingOrder::from_seed(mini(corpus), &mini_settings()).unwrap();
        let indices: Vec<TrainingIndex> =
            (0..order.n_sequences()).map(TrainingIndex::new).collect();
        let sequences: Vec<Vec<u32>> = indices
            .iter()
            .map(|index| {
                let mut tokens = Vec::new();
                order.read_tokens(*index, 0..129, &mut tokens).unwrap();
                tokens
            })
            .collect();
        let mut occurrences: HashMap<&[u32], Vec<(u32, usize)>> = sequences
            .iter()
            .map(|sequence| (&sequence[..LEN], Vec::new()))
            .collect();
        for (sequence, index) in sequences.iter().zip(&indices) {
            for (offset, window) in sequence.windows(LEN).enumerate() {
                if let Some(found) = occurrences.get_mut(window) {
                    found.push((order.position(*index).step, offset));
                }
            }
        }
        let exposures = order.probe_exposures(&indices, 0..64).unwrap();
        for ((sequence, index), exposure) in sequences.iter().zip(&indices).zip(&exposures) {
            let own = order.position(*index).step;
            let all = &occurrences[&sequence[..LEN]];
            let count = |which: &dyn Fn(u32, usize) -> bool| {
                u32::try_from(
                    all.iter()
                        .filter(|(step, offset)| which(*step, *offset))
                        .count(),
                )
                .unwrap()
            };
            let expected = ProbeExposure {
                before: count(&|step, _| step < own),
                after: count(&|step, _| step > own),
                same_step: count(&|step, _| step == own) - 1,
                before_at_start: count(&|step, offset| step < own && offset == 0),
                after_at_start: count(&|step, offset| step > own && offset == 0),
                same_step_at_start: count(&|step, offset| step == own && offset == 0) - 1,
                nearest_before: all
                    .iter()
                    .map(|found| found.0)
                    .filter(|step| *step < own)
                    .max(),
                nearest_after: all
                    .iter()
                    .map(|found| found.0)
                    .filter(|step| *step > own)
                    .min(),
            };
            assert_eq!(*exposure, expected, "{corpus} {index}");
        }
        // Counted when the suite was made (`data/mini/README.md`).
        let with = |which: fn(&ProbeExposure) -> u32| {
            exposures
                .iter()
                .filter(|exposure| which(exposure) > 0)
                .count()
        };
        let at_start =
            with(|found| found.before_at_start + found.after_at_start + found.same_step_at_start);
        let anywhere = with(|found| found.before + found.after + found.same_step);
        assert!(n_at_start.is_none_or(|n| n == at_start), "{at_start}");
        assert!(n_anywhere.is_none_or(|n| n == anywhere), "{anywhere}");
    }
}

#[test]
fn documents_are_met_as_often_as_a_search_finds_them() {
    for corpus in ["standard", "deduped"] {
        let order = TrainingOrder::from_seed(mini(corpus), &mini_settings()).unwrap();
        let checkpoints = [0, 1, 600, 1200, 2400].map(Checkpoint::new);
        let mut met: HashMap<u64, Vec<BatchPosition>> = HashMap::new();
        for index in (0..order.n_sequences()).map(TrainingIndex::new) {
            for span in order.documents(index).unwrap() {
                // The last token of a sequence is only predicted; it is the first input of another one.
                let is_input =
                    order.documents(index).unwrap().last() != Some(&span) || span.tokens.end > 1;
                if span.tokens.start == 0 && is_input {
                    met.entry(span.document)
                        .or_default()
                        .push(order.position(index));
                }
            }
        }
        let n_items = order.mixture().unwrap().members()[0].dataset().n_items();
        let counts = order.exposures_by_step(&checkpoints).unwrap();
        for (checkpoint, counts) in checkpoints.iter().zip(counts) {
            let mut expected = vec![0; counts.len()];
            for document in 0..n_items {
                let places = met.get(&document).into_iter().flatten();
                expected[places.filter(|place| checkpoint.has_seen(**place)).count()] += 1;
            }
            assert_eq!(counts, expected, "{corpus} at {}", checkpoint.steps());
        }
    }
}

#[test]
fn both_copies_of_a_document_are_in_one_shuffle() {
    // With a share f of both epochs consumed, a document is met 0, 1 or 2 times with the probabilities
    // (1 − f)², 2 f (1 − f) and f².
    let order = TrainingOrder::from_seed(mini("deduped"), &mini_settings()).unwrap();
    let counts = order
        .exposures_by_step(&[Checkpoint::new(2400)])
        .unwrap()
        .remove(0);
    let n: u64 = counts.iter().sum();
    let share = |count: u64| {
        f64::from(u32::try_from(count).unwrap()) / f64::from(u32::try_from(n).unwrap())
    };
    let f = order.epochs().unwrap() / 2.0;
    for (count, expected) in counts
        .iter()
        .zip([(1.0 - f) * (1.0 - f), 2.0 * f * (1.0 - f), f * f])
    {
        // 2,148 documents: four standard errors.
        let tolerance = 4.0 * (expected * (1.0 - expected) / 2148.0).sqrt();
        assert!(
            (share(*count) - expected).abs() < tolerance,
            "{counts:?}, f = {f}"
        );
    }
}

#[test]
fn a_map_that_is_no_permutation_is_refused() {
    let refused = |change: fn(&mut BTreeMap<&'static str, Array>)| {
        let folder = tempfile::tempdir().unwrap();
        let files = mini_maps("standard");
        let mut maps: BTreeMap<&str, Array> = BTreeMap::from([
            ("doc", array(&files.doc_idx)),
            ("sample", array(&files.sample_idx)),
            ("shuffle", array(&files.shuffle_idx)),
        ]);
        change(&mut maps);
        let prefix = folder.path().join("maps");
        let copies = MapFiles::with_prefix(&prefix);
        for (kind, path) in [
            ("doc", &copies.doc_idx),
            ("sample", &copies.sample_idx),
            ("shuffle", &copies.shuffle_idx),
        ] {
            write(path, &maps[kind]);
        }
        let error =
            TrainingOrder::from_maps(mini("standard"), &copies, &mini_settings()).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    };
    // As the published map of seed 2: most of it is zero.
    let zeros = refused(|maps| maps.get_mut("shuffle").unwrap().numbers[1000..19_000].fill(0));
    assert!(
        zeros.contains("maps_shuffle_idx.npy` is no permutation: 18000 entries from 1000 on"),
        "{zeros}"
    );
    assert!(zeros.contains("seed 2"), "{zeros}");
    let twice = refused(|maps| {
        let shuffle = &mut maps.get_mut("shuffle").unwrap().numbers;
        shuffle[7] = shuffle[6];
    });
    assert!(
        twice.contains("entry 7 is") && twice.contains("which stands before it, too"),
        "{twice}"
    );
    let beyond = refused(|maps| maps.get_mut("shuffle").unwrap().numbers[7] = 19_632);
    assert!(
        beyond.contains("entry 7 is 19632, which is not one of the 19632 samples"),
        "{beyond}"
    );
    let foreign = refused(|maps| maps.get_mut("doc").unwrap().numbers[3] = 4564);
    assert!(
        foreign
            .contains("maps_doc_idx.npy` is no permutation: entry 3 is 4564, the corpus has 4564"),
        "{foreign}"
    );
    let lacking = refused(|maps| {
        let documents = &mut maps.get_mut("doc").unwrap().numbers;
        documents[3] = documents[4];
    });
    assert!(lacking.contains("times, but item"), "{lacking}");
    let short = refused(|maps| {
        let sample = maps.get_mut("sample").unwrap();
        sample.numbers.truncate(200);
        sample.shape[0] = 100;
    });
    assert!(
        short.contains("has the shape [100, 2], the other maps ask for [19633, 2]"),
        "{short}"
    );
    let other = refused(|maps| maps.get_mut("doc").unwrap().numbers.reverse());
    assert!(
        other.contains("does not end where the next one begins"),
        "{other}"
    );
}

#[test]
fn one_wrong_document_is_found_by_check() {
    let files = mini_maps("standard");
    let folder = tempfile::tempdir().unwrap();
    let doc_idx = folder.path().join("doc_idx.npy");
    let mut documents = array(&files.doc_idx);
    documents.numbers.swap(100, 2000);
    write(&doc_idx, &documents);
    let files = MapFiles { doc_idx, ..files };
    let order = TrainingOrder::from_maps(mini("standard"), &files, &mini_settings()).unwrap();
    let error = order.check().unwrap_err().to_string();
    assert!(
        error.contains("does not end where the next one begins"),
        "{error}"
    );
}

#[test]
fn a_run_the_loader_cannot_serve_is_refused() {
    let settings = LoaderSettings {
        items: Items::DataPath {
            split: "1".parse().unwrap(),
        },
        n_steps: 19_632 / 8,
        ..mini_settings()
    };
    let error = TrainingOrder::from_seed(mini("standard"), &settings).unwrap_err();
    // 19,632 samples are built, one fewer is served.
    assert!(
        matches!(
            error,
            OrderError::Exhausted {
                found: 19_631,
                needed: 19_632,
                ..
            }
        ),
        "{error}"
    );
    let served = TrainingOrder::as_served(vec![(mini("standard"), 1.0)], &settings).unwrap();
    assert_eq!(served.n_steps(), 19_632 / 8 - 1);
    let last = served.position(TrainingIndex::new(served.n_sequences() - 1));
    assert_eq!(
        last,
        BatchPosition {
            step: 19_632 / 8 - 2,
            row: 7
        }
    );
    // What comes after the run's end can be read; what the loader does not serve, not.
    assert!(served.sample(TrainingIndex::new(19_630)).is_some());
    assert!(served.sample(TrainingIndex::new(19_631)).is_none());
}

/// A run ends where its steps do, the maps of GPT-NeoX's loader go on: `shuffle_idx` says which samples are next, and
/// `sample_idx` and `doc_idx` of which tokens they are.
#[test]
fn the_samples_beyond_the_run_are_those_of_the_loaders_maps() {
    let settings = LoaderSettings {
        sequence_length: 64,
        n_steps: 30,
        ..mini_settings()
    };
    let case = reference().join("pub02_pythia_like_1p5_epochs_seq64");
    let maps = case.join("expected/train_0");
    let cases = [
        (mini("standard"), mini_settings(), mini_maps("standard")),
        (mini("deduped"), mini_settings(), mini_maps("deduped")),
        (
            Dataset::open(&case.join("pile_text_document")).unwrap(),
            settings,
            MapFiles::with_prefix(&maps),
        ),
    ];
    for (dataset, settings, files) in cases {
        let length = i64::from(settings.sequence_length);
        let [doc_idx, sample_idx, shuffle_idx] =
            [&files.doc_idx, &files.sample_idx, &files.shuffle_idx].map(|path| array(path).numbers);
        let order = TrainingOrder::from_seed(dataset, &settings).unwrap();
        assert_eq!(order.len(), shuffle_idx.len() as u64 - 1);
        assert!(order.len() > order.n_sequences());
        let dataset = order.datasets().next().unwrap();
        let indices: Vec<TrainingIndex> = (order.n_sequences()..order.len())
            .map(TrainingIndex::new)
            .collect();
        for &index in &indices {
            assert!(!order.consumes(index) && order.position(index).step >= settings.n_steps);
            let sample = shuffle_idx[usize::try_from(index.get()).unwrap()];
            assert_eq!(order.sample(index).map(i64::from), Some(sample));
            // From the sample's first token, document after document.
            let start = 2 * usize::try_from(sample).unwrap();
            let mut place = usize::try_from(sample_idx[start]).unwrap();
            let mut first = u64::try_from(sample_idx[start + 1]).unwrap();
            let mut expected = Vec::new();
            while i64::try_from(expected.len()).unwrap() < length + 1 {
                let item = u64::try_from(doc_idx[place]).unwrap();
                let len = u64::from(dataset.item_len(item).unwrap());
                dataset.read(item, first..len, &mut expected).unwrap();
                (place, first) = (place + 1, 0);
            }
            expected.truncate(usize::try_from(length).unwrap() + 1);
            let mut ours = Vec::new();
            let all = 0..settings.sequence_length + 1;
            order.read_tokens(index, all, &mut ours).unwrap();
            assert_eq!(ours, expected, "{index}");
            assert!(!order.documents(index).unwrap().is_empty());
        }
        // All that the run holds of them is before them.
        let last = order.n_sequences() - 1;
        let probes = [TrainingIndex::new(last), indices[0]];
        let found = order.probe_exposures(&probes, 0..8).unwrap();
        assert_eq!((found[1].after, found[1].same_step), (0, 0));
        assert!(order.sample(TrainingIndex::new(order.len())).is_none());
    }
}

fn mini_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini")
}

fn mini(corpus: &str) -> Dataset {
    Dataset::open(&mini_folder().join(corpus).join("document")).unwrap()
}

fn mini_settings() -> LoaderSettings {
    LoaderSettings {
        items: Items::TrainDataPaths,
        sequence_length: 128,
        batch_size: 8,
        n_steps: 2400,
        seed: 1234,
    }
}

fn mini_maps(corpus: &str) -> MapFiles {
    let folder = mini_folder().join(format!("reference/{corpus}_maps"));
    let found = MapFiles::find(&folder.join("document"), "train_0", 19_200, 128, 1234);
    found.unwrap().unwrap()
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

/// Every `.npy` file of a folder, by its name.
fn arrays(folder: &Path) -> BTreeMap<String, Array> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = files.map(|path| {
        (
            path.file_stem().unwrap().to_str().unwrap().to_owned(),
            array(&path),
        )
    });
    named.collect()
}

fn array(path: &Path) -> Array {
    let array = npy::Array::open(path).unwrap();
    let shape = array
        .shape()
        .iter()
        .map(|n| usize::try_from(*n).unwrap())
        .collect();
    Array {
        shape,
        numbers: array.iter().collect(),
    }
}

fn write(path: &Path, array: &Array) {
    let mut bytes = Vec::new();
    npy::write(&mut bytes, &array.shape, array.numbers.iter().copied()).unwrap();
    fs::write(path, bytes).unwrap();
}
