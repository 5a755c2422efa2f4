//! Maps of other packings, maps in other clothes, and maps that change.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use training_order::mmididx::{Dataset, TokenType, Writer};
use training_order::{
    Items, LoaderSettings, MapFiles, OrderError, TrainingIndex, TrainingOrder, npy,
};

const SETTINGS: LoaderSettings = LoaderSettings {
    items: Items::TrainDataPaths,
    sequence_length: 8,
    batch_size: 2,
    n_steps: 10,
    seed: 1234,
};
/// ⌈2 · 10 · 1.005⌉
const N_SAMPLES: u64 = 21;

/// A corpus of documents of these lengths.
fn corpus(lengths: &[u32]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("corpus");
    let mut writer = Writer::create(&prefix, TokenType::U16).unwrap();
    for length in lengths {
        writer.write(&(0..*length).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap();
    (folder, prefix)
}

fn lengths() -> Vec<u32> {
    (0..40).map(|item| 3 + item % 7).collect()
}

fn open(prefix: &Path) -> Dataset {
    Dataset::open(prefix).unwrap()
}

fn write(path: &Path, shape: &[usize], numbers: &[i64]) {
    let mut bytes = Vec::new();
    npy::write(&mut bytes, shape, numbers.iter().copied()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Writes the three maps, all of 64 bits.
fn write_maps(files: &MapFiles, documents: &[i64], starts: &[[i64; 2]], shuffled: &[i64]) {
    write(&files.doc_idx, &[documents.len()], documents);
    write(&files.sample_idx, &[starts.len(), 2], starts.as_flattened());
    write(&files.shuffle_idx, &[shuffled.len()], shuffled);
}

/// The maps of `packed`, as they are rebuilt.
fn write_packed(prefix: &Path, files: &MapFiles) {
    let order = TrainingOrder::from_seed(open(prefix), &SETTINGS).unwrap();
    let member = &order.mixture().unwrap().members()[0];
    let map = member.index_map();
    let documents: Vec<i64> = map.doc_idx().map(|n| n.unwrap().into()).collect();
    let shuffled: Vec<i64> = map.shuffle_idx().map(|n| n.unwrap().into()).collect();
    let starts = map.sample_idx(member.dataset()).unwrap();
    let starts: Vec<[i64; 2]> = starts
        .iter()
        .map(|row| row.map(|n| n.try_into().unwrap()))
        .collect();
    write_maps(files, &documents, &starts, &shuffled);
}

/// Maps as `pack_until_overflow` makes them (`gpt2_dataset.py`), but for the shuffles: whole
/// documents until the next one would not fit.
fn write_overflow(files: &MapFiles, lengths: &[u32], n_samples: usize) {
    let (mut documents, mut starts, mut run) = (Vec::new(), Vec::new(), 0);
    for item in (0..lengths.len()).cycle() {
        if run == 0 || run + lengths[item] > 9 {
            if starts.len() == n_samples {
                break;
            }
            starts.push([i64::try_from(documents.len()).unwrap(), 0]);
            run = 0;
        }
        run += lengths[item];
        documents.push(i64::try_from(item).unwrap());
    }
    starts.push([i64::try_from(documents.len()).unwrap(), 0]);
    let shuffled: Vec<i64> = (0..i64::try_from(n_samples).unwrap()).rev().collect();
    write_maps(files, &documents, &starts, &shuffled);
}

/// Maps as `unpacked` makes them: a document a sample, in the order of the corpus.
fn write_unpacked(files: &MapFiles, n_items: i64, n_samples: i64) {
    let documents: Vec<i64> = (0..=n_samples).map(|place| place % n_items).collect();
    let starts: Vec<[i64; 2]> = (0..=n_samples).map(|sample| [sample, 0]).collect();
    let shuffled: Vec<i64> = (0..n_samples).rev().collect();
    write_maps(files, &documents, &starts, &shuffled);
}

fn named(prefix: &Path, infix: &str) -> MapFiles {
    let name = format!("corpus_train_0_indexmap_{N_SAMPLES}ns_8sl_1234s{infix}");
    MapFiles::with_prefix(&prefix.with_file_name(name))
}

fn find(prefix: &Path) -> Result<Option<MapFiles>, OrderError> {
    Ok(MapFiles::find(prefix, "train_0", N_SAMPLES, 8, 1234)?)
}

#[test]
fn maps_of_every_name_of_packed_are_found() {
    for infix in ["", "_packedpi", "_packedpi_ac"] {
        let (_folder, prefix) = corpus(&lengths());
        assert_eq!(find(&prefix).unwrap(), None);
        let files = named(&prefix, infix);
        write_packed(&prefix, &files);
        assert_eq!(find(&prefix).unwrap(), Some(files.clone()), "{infix}");
        let mapped = TrainingOrder::from_maps(open(&prefix), &files, &SETTINGS).unwrap();
        mapped.check().unwrap();
        let rebuilt = TrainingOrder::from_seed(open(&prefix), &SETTINGS).unwrap();
        for index in (0..20).map(TrainingIndex::new) {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            mapped.read_tokens(index, 0..9, &mut a).unwrap();
            rebuilt.read_tokens(index, 0..9, &mut b).unwrap();
            assert_eq!(a, b);
        }
    }
}

#[test]
fn maps_of_another_packing_are_refused() {
    let lengths = lengths();
    for (infix, packing) in [
        (
            "_pack_until_overflowpi_ac",
            "the packing `pack_until_overflow`",
        ),
        (
            "_pack_until_overflowpi",
            "the packing `pack_until_overflow`",
        ),
        ("_unpackedpi_ac", "the packing `unpacked`"),
    ] {
        for beside_packed in [false, true] {
            let (_folder, prefix) = corpus(&lengths);
            let files = named(&prefix, infix);
            let renamed = MapFiles::with_prefix(&prefix.with_file_name("maps"));
            for files in [&files, &renamed] {
                if infix.contains("unpacked") {
                    write_unpacked(files, 40, 21);
                } else {
                    write_overflow(files, &lengths, 21);
                }
            }
            if beside_packed {
                write_packed(&prefix, &named(&prefix, "_packedpi_ac"));
            }
            let beside = find(&prefix).unwrap_err();
            let by_name = TrainingOrder::from_maps(open(&prefix), &files, &SETTINGS).unwrap_err();
            let by_contents =
                TrainingOrder::from_maps(open(&prefix), &renamed, &SETTINGS).unwrap_err();
            for (error, packing) in [
                (beside, packing),
                (by_name, packing),
                (by_contents, "every sample begins with a document"),
            ] {
                let text = error.to_string();
                assert!(
                    text.contains(packing) && text.contains("_idx.npy`"),
                    "{text}"
                );
                let hint = error.hint().unwrap();
                assert!(hint.contains("deleting the maps is no cure"), "{hint}");
            }
            // Those of another seed are of another run.
            let other = MapFiles::find(&prefix, "train_0", N_SAMPLES, 8, 1235).unwrap();
            assert_eq!(other, None);
        }
    }
}

/// Where each document is as long as a sequence, `packed` begins every sample with a document, too.
#[test]
fn packed_maps_of_even_documents_pass() {
    let (_folder, prefix) = corpus(&[8; 30]);
    let files = named(&prefix, "");
    write_packed(&prefix, &files);
    let order = TrainingOrder::from_maps(open(&prefix), &files, &SETTINGS).unwrap();
    order.check().unwrap();
}

#[test]
fn maps_that_leave_the_beginning_out_are_refused() {
    let (_folder, prefix) = corpus(&lengths());
    let files = named(&prefix, "");
    write_packed(&prefix, &files);
    let array = npy::Array::open(&files.sample_idx).unwrap();
    // Every sample begins a token later: each fits the next.
    let moved: Vec<i64> = array.iter().collect();
    let mut moved = moved.as_chunks::<2>().0.to_vec();
    moved[0] = [0, 1];
    write(&files.sample_idx, &[moved.len(), 2], moved.as_flattened());
    let error = TrainingOrder::from_maps(open(&prefix), &files, &SETTINGS).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("begins at [0, 1] instead of [0, 0]"),
        "{text}"
    );
}

#[test]
fn maps_that_change_are_found() {
    for kind in ["doc", "sample", "shuffle"] {
        let (_folder, prefix) = corpus(&lengths());
        let files = named(&prefix, "");
        write_packed(&prefix, &files);
        let order = TrainingOrder::from_maps(open(&prefix), &files, &SETTINGS).unwrap();
        order.check_unchanged().unwrap();
        let name = format!("corpus_train_0_indexmap_{N_SAMPLES}ns_8sl_1234s_{kind}_idx.npy");
        let path = prefix.with_file_name(&name);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = order.check_unchanged().unwrap_err().to_string();
        assert!(
            error.contains(&name) && error.contains("no file has its name"),
            "{error}"
        );
        fs::write(&path, bytes).unwrap();
        let error = order.check_unchanged().unwrap_err().to_string();
        assert!(
            error.contains(&name) && error.contains("another file has its name"),
            "{error}"
        );
        let scanned = order.exposures(0, &[0].into()).unwrap_err().to_string();
        assert_eq!(scanned, error);
    }
}

#[test]
fn what_is_no_map_is_told_by_what_it_is() {
    for (bytes, text, cure) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\n"[..],
            "is a pointer of git LFS",
            "git lfs pull",
        ),
        (
            b"Entry not found",
            "is the answer of a server",
            "download it again",
        ),
        (b"", "is empty", "download it again"),
        (
            b"\x93NUMPY\x01\x00\x10\x00{'descr': '>i8'}\n",
            "`descr` is '>i8', numbers with their high byte first",
            "little-endian",
        ),
    ] {
        let (_folder, prefix) = corpus(&lengths());
        let files = named(&prefix, "");
        write_packed(&prefix, &files);
        fs::write(&files.doc_idx, bytes).unwrap();
        let error = TrainingOrder::from_maps(open(&prefix), &files, &SETTINGS).unwrap_err();
        let (error, hint) = (error.to_string(), error.hint().unwrap());
        assert!(
            error.contains(text) && error.contains("_doc_idx.npy`"),
            "{error}"
        );
        assert!(hint.contains(cure), "{hint}");
    }
}
