//! One corpus in every form that GPT-NeoX leaves behind gives the same sequences at the same steps.

use crate::program::{RunFile, manifest, mini, succeed, table, u16s, u32s};
use std::fs;
use std::path::Path;
use training_order::mmididx::{Dataset, TokenType, Writer};
use training_order::{Items, LoaderSettings, TrainingIndex, TrainingOrder};

/// Sequences of a run with the scripted judge: training index, step and verdict of each.
fn sequences(folder: &Path, file: &RunFile) -> (Vec<u32>, Vec<u32>, Vec<u16>) {
    let path = file.write(folder);
    succeed(folder, &["run", path.to_str().unwrap()]);
    let memorization = table(&folder.join("out"), "memorization.parquet");
    let column = |name| u32s(&memorization, name);
    (
        column("training_index"),
        column("step"),
        u16s(&memorization, "n_prefix_matched"),
    )
}

fn said(folder: &Path, file: &RunFile) -> String {
    let path = file.write(folder);
    succeed(folder, &["check", path.to_str().unwrap()]).stdout
}

#[test]
fn maps_beside_the_corpus_are_used() {
    let plain = tempfile::tempdir().unwrap();
    let from_seed = sequences(plain.path(), &RunFile::default());

    let folder = tempfile::tempdir().unwrap();
    for file in ["document.idx", "document.bin"] {
        fs::copy(mini().join("standard").join(file), folder.path().join(file)).unwrap();
    }
    // Under the name that GPT-NeoX looks for when the run has `train-data-paths`: half a percent more.
    for kind in ["doc", "sample", "shuffle"] {
        let source = format!("document_train_0_indexmap_19200ns_128sl_1234s_{kind}_idx.npy");
        let target = format!("document_train_0_indexmap_19296ns_128sl_1234s_{kind}_idx.npy");
        let source = mini().join("reference/standard_maps").join(source);
        fs::copy(source, folder.path().join(target)).unwrap();
    }
    let file = RunFile {
        data: folder.path().join("document"),
        ..RunFile::default()
    };
    assert!(said(folder.path(), &file).contains("order: read from GPT-NeoX's maps"));
    assert_eq!(sequences(folder.path(), &file), from_seed);
    // The maps decide the order, so that they are among the inputs.
    assert_eq!(
        manifest(&folder.path().join("out"))["inputs"]
            .as_array()
            .unwrap()
            .len(),
        2 + 3
    );
}

#[test]
fn a_preshuffled_corpus_is_recognized() {
    let plain = tempfile::tempdir().unwrap();
    let from_seed = sequences(plain.path(), &RunFile::default());

    let settings = LoaderSettings {
        items: Items::TrainDataPaths,
        sequence_length: 128,
        batch_size: 8,
        n_steps: 2400,
        seed: 1234,
    };
    let dataset = Dataset::open(&mini().join("standard/document")).unwrap();
    let order = TrainingOrder::from_seed(dataset, &settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&folder.path().join("document"), TokenType::U16).unwrap();
    for index in (0..order.n_sequences()).map(TrainingIndex::new) {
        let mut tokens = Vec::new();
        order.read_tokens(index, 0..129, &mut tokens).unwrap();
        writer.write(&tokens).unwrap();
    }
    writer.finish().unwrap();
    // In shards that cut rows, as they are published.
    let bytes = fs::read(folder.path().join("document.bin")).unwrap();
    fs::remove_file(folder.path().join("document.bin")).unwrap();
    for (number, shard) in bytes.chunks(2_000_000).enumerate() {
        fs::write(
            folder
                .path()
                .join(format!("document-{number:05}-of-00002.bin")),
            shard,
        )
        .unwrap();
    }

    let file = RunFile {
        data: folder.path().join("document"),
        ..RunFile::default()
    };
    assert!(said(folder.path(), &file).contains("it is preshuffled"));
    assert_eq!(sequences(folder.path(), &file), from_seed);
    let positions = table(&folder.path().join("out"), "positions.parquet");
    assert_eq!(positions.column("sample").unwrap().null_count(), 19_200);
}
