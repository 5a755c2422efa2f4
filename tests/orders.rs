//! One corpus in every form that GPT-NeoX leaves behind gives the same sequences at the same steps.

use crate::program::{RunFile, manifest, mini, succeed, table, tables, u16s, u32s};
use std::fs;
use std::path::Path;
use tempfile::TempDir;
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

/// Runs `file` with `from` replaced by `to` in its text, and gives the folder.
fn reworded(from: &str, to: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile::default().write(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    fs::write(&path, text.replace(from, to)).unwrap();
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    folder
}

#[test]
fn a_batch_is_what_all_ranks_read_in_a_step() {
    let positions = |folder: TempDir| tables(&folder.path().join("out"));
    let plain = positions(reworded("seed", "seed"));
    let layout = "micro-batch-size = 2\ngradient-accumulation-steps = 4\ndata-parallel-size = 1";
    assert_eq!(positions(reworded("batch-size = 8", layout)), plain);
}

#[test]
fn a_mixture_is_weighted_by_its_documents_where_the_run_was() {
    let data = |name: &str| mini().join(name).join("document");
    let (standard, deduped) = (data("standard"), data("deduped"));
    let plain = format!("data = '{}'", standard.display());
    let mixture = |alpha: &str, weights: [&str; 2]| {
        // The mixture stands after the corpus' own keys.
        let members = [&standard, &deduped].map(|path| path.display().to_string());
        let [first, second] = members;
        let [a, b] = weights;
        let tables = format!(
            "seed = 1234\n\n[[corpus.mixture]]\ndata = '{first}'\n{a}\n[[corpus.mixture]]\ndata = '{second}'\n{b}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = RunFile::default().write(folder.path());
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace(&plain, alpha).replace("seed = 1234", &tables);
        fs::write(&path, text).unwrap();
        succeed(folder.path(), &["run", path.to_str().unwrap()]);
        let positions = table(&folder.path().join("out"), "positions.parquet");
        u32s(&positions, "sample")
    };
    // `weights_by_num_docs` of `megatron/data/data_utils.py`, for these numbers of documents and alpha = 0.3.
    let n = [&standard, &deduped]
        .map(|path| f64::from(u32::try_from(Dataset::open(path).unwrap().n_items()).unwrap()));
    let total = n[0] + n[1];
    let flat = n.map(|n| (n / total).powf(0.3));
    let weights = [0, 1].map(|i| flat[i] / (flat[0] + flat[1]) * (1.0 - n[i] / total));
    let [a, b] = weights.map(|weight| format!("weight = {}", weight / (weights[0] + weights[1])));
    let given = mixture("", [&a, &b]);
    assert_eq!(mixture("weighted-sampler-alpha = 0.3", ["", ""]), given);
    assert_ne!(mixture("weighted-sampler-alpha = 1.0", ["", ""]), given);
}

#[test]
fn a_revision_may_count_in_other_steps() {
    let folder = reworded("step{checkpoint}'", "step{revision}'\nrevision-factor = 2");
    let run = &manifest(&folder.path().join("out"))["run"];
    let checkpoints = run["models"][0]["checkpoints"].as_array().unwrap();
    let found = checkpoints.iter().map(|checkpoint| {
        let folder = checkpoint["folder"].as_str().unwrap();
        let revision = folder.rsplit('/').next().unwrap().to_owned();
        (checkpoint["steps"].as_u64().unwrap(), revision)
    });
    let expected = [(600, "step1200".to_owned()), (2400, "step4800".to_owned())];
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn a_sample_takes_adjacent_rows_of_every_so_many_steps() {
    let sampled = "seed = 1234\n[corpus.sample]\nevery = 7\nrows = 3\nseed = 5";
    let folder = reworded("seed = 1234", sampled);
    let positions = table(&folder.path().join("out"), "positions.parquet");
    let (steps, rows) = (u32s(&positions, "step"), u32s(&positions, "row"));
    assert_eq!(steps.len(), 2400_usize.div_ceil(7) * 3);
    let mut first_rows = std::collections::BTreeSet::new();
    for (n, rows) in rows.chunks_exact(3).enumerate() {
        assert_eq!(steps[3 * n..3 * n + 3], [u32::try_from(7 * n).unwrap(); 3]);
        assert_eq!(rows, [rows[0], rows[0] + 1, rows[0] + 2]);
        first_rows.insert(rows[0]);
    }
    assert_eq!(
        first_rows.into_iter().collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5]
    );
    // The same sequences as in a run of all.
    let all = reworded("seed", "seed");
    let all = table(&all.path().join("out"), "memorization.parquet");
    let some = table(&folder.path().join("out"), "memorization.parquet");
    assert_eq!(some.height(), 2 * positions.height());
    let verdicts = |frame| -> Vec<(u32, u32, u16)> {
        let columns = u32s(frame, "checkpoint")
            .into_iter()
            .zip(u32s(frame, "training_index"));
        let columns = columns.zip(u16s(frame, "n_prefix_matched"));
        columns.map(|((a, b), c)| (a, b, c)).collect()
    };
    let all: std::collections::BTreeSet<_> = verdicts(&all).into_iter().collect();
    assert!(verdicts(&some).iter().all(|verdict| all.contains(verdict)));
}
