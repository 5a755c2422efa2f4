//! Bad input: one clear error with its place and its cure, an exit code, and no table.

use crate::program::{Outcome, RunFile, mini, pipeline, root, tables};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use training_order::mmididx::{TokenType, Writer};

/// Something is wrong with the command line or the run file.
const USAGE: i32 = 2;
/// Anything else.
const FAILED: i32 = 1;

/// Expects one error with these texts, the last of them in the hint, and no table.
fn check(folder: &Path, outcome: &Outcome, code: i32, texts: &[&str]) {
    let stderr = &outcome.stderr;
    assert_eq!(outcome.code, code, "{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    for text in texts {
        assert!(stderr.contains(text), "no `{text}` in\n{stderr}");
    }
    assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    let left = tables(&folder.join("out"));
    assert!(
        !left.keys().any(|path| path.starts_with("memorization")),
        "{:?}",
        left.keys()
    );
}

fn run(folder: &Path, file: &RunFile) -> Outcome {
    let path = file.write(folder);
    pipeline(folder, &["run", path.to_str().unwrap()])
}

/// A copy of the standard corpus whose files `change` may spoil.
fn spoiled_corpus(change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> (TempDir, RunFile) {
    let folder = tempfile::tempdir().unwrap();
    let source = mini().join("standard");
    let mut idx = fs::read(source.join("document.idx")).unwrap();
    let mut bin = fs::read(source.join("document.bin")).unwrap();
    change(&mut idx, &mut bin);
    fs::write(folder.path().join("document.idx"), idx).unwrap();
    fs::write(folder.path().join("document.bin"), bin).unwrap();
    let file = RunFile {
        data: folder.path().join("document"),
        ..RunFile::default()
    };
    (folder, file)
}

#[test]
fn a_spoiled_corpus() {
    let spoiled = |change: fn(&mut Vec<u8>, &mut Vec<u8>), texts: &[&str]| {
        let (folder, file) = spoiled_corpus(change);
        check(folder.path(), &run(folder.path(), &file), FAILED, texts);
    };
    spoiled(
        |idx, _| idx[0] = b'X',
        &[
            "opening the corpus `standard`",
            "document.idx` begins with the bytes [58, 4d",
            "hint: this is no memory-mapped",
        ],
    );
    spoiled(
        |idx, _| idx[9] = 7,
        &["document.idx`, byte 9: version 7 instead of 1", "hint: "],
    );
    spoiled(
        |idx, _| idx[17] = 7,
        &[
            "document.idx`, byte 17: token type 7 is not one of",
            "hint: ",
        ],
    );
    spoiled(
        |idx, _| idx.truncate(1000),
        &[
            "document.idx` has 1000 bytes where its header asks for",
            "hint: the file was cut short",
        ],
    );
    spoiled(
        |_, bin| bin.truncate(4_000_000),
        &[
            "document.bin` has 4000000 bytes, but its last item, 4563, ends at byte 5025972",
            "hint: the file was cut short",
        ],
    );
    spoiled(
        |idx, _| idx[34..38].copy_from_slice(&(-5_i32).to_le_bytes()),
        &[
            "document.idx`, byte 34: item 0 has the size -5",
            "hint: the `.idx` and the `.bin` do not belong together",
        ],
    );
}

#[test]
fn a_missing_corpus() {
    let folder = tempfile::tempdir().unwrap();
    let file = RunFile {
        data: folder.path().join("nothing"),
        ..RunFile::default()
    };
    let texts = [
        "opening the corpus `standard`",
        "nothing.idx`: No such file",
        "hint: name the two files without",
    ];
    check(folder.path(), &run(folder.path(), &file), FAILED, &texts);
}

#[test]
fn a_corpus_too_small_for_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&folder.path().join("tiny"), TokenType::U16).unwrap();
    writer.write(&[5]).unwrap();
    writer.finish().unwrap();
    let file = RunFile {
        data: folder.path().join("tiny"),
        ..RunFile::default()
    };
    let texts = [
        "tiny.idx`: the items 0 to 1 hold 1 tokens in all, at least 2 are needed",
        "hint: use a larger corpus",
    ];
    check(folder.path(), &run(folder.path(), &file), FAILED, &texts);
}

/// The checkpoint of 600 steps with its tensors changed, as `step600` in a folder of its own.
fn spoiled_checkpoint(
    change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<u8>)>),
) -> (TempDir, RunFile) {
    let folder = tempfile::tempdir().unwrap();
    let step = folder.path().join("step600");
    fs::create_dir(&step).unwrap();
    let source = mini().join("deduped/model/step600");
    fs::copy(source.join("config.json"), step.join("config.json")).unwrap();
    let bytes = fs::read(source.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut changed: BTreeMap<String, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, view)| {
            (
                name.to_owned(),
                (view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect();
    change(&mut changed);
    let views = changed.iter().map(|(name, (shape, data))| {
        (
            name,
            TensorView::new(Dtype::F16, shape.clone(), data).unwrap(),
        )
    });
    fs::write(
        step.join("model.safetensors"),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
    let file = RunFile {
        judge: "gpt-neox",
        checkpoints: folder.path().to_owned(),
        numbers: vec![600],
        ..RunFile::default()
    };
    (folder, file)
}

#[test]
fn a_spoiled_checkpoint() {
    type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;
    const DENSE: &str = "gpt_neox.layers.2.attention.dense.weight";
    const PAIR: &str = "hint: `config.json` and the weights do not belong together";
    let spoiled = |change: fn(&mut Tensors), texts: &[&str]| {
        let (folder, file) = spoiled_checkpoint(change);
        check(folder.path(), &run(folder.path(), &file), FAILED, texts);
    };
    spoiled(
        |tensors| drop(tensors.remove(DENSE)),
        &[
            "the model `mini` at checkpoint 600",
            "step600` lacks the tensor `gpt_neox.layers.2.attention.dense.weight`",
            PAIR,
        ],
    );
    spoiled(
        |tensors| {
            let dense = tensors[DENSE].clone();
            tensors.insert("gpt_neox.layers.4.attention.dense.weight".to_owned(), dense);
        },
        &[
            "model.safetensors` holds the tensor `gpt_neox.layers.4.attention.dense.weight`, which",
            PAIR,
        ],
    );
    spoiled(
        |tensors| tensors.get_mut(DENSE).unwrap().0 = vec![64, 256],
        &[
            "has the shape [64, 256], the `config.json` asks for [128, 128]",
            PAIR,
        ],
    );
    spoiled(
        |tensors| {
            tensors.get_mut(DENSE).unwrap().1[6..8].copy_from_slice(&0x7e00_u16.to_le_bytes());
        },
        &[
            "the weight 3 of the tensor `gpt_neox.layers.2.attention.dense.weight` is NaN",
            "hint: the checkpoint is damaged",
        ],
    );
}

#[test]
fn a_checkpoint_cut_short_or_not_there() {
    let (folder, file) = spoiled_checkpoint(|_| {});
    let weights = folder.path().join("step600/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    let texts = [
        "model.safetensors` is no whole safetensors file",
        "hint: the file was cut short",
    ];
    check(folder.path(), &run(folder.path(), &file), FAILED, &texts);
    fs::remove_file(&weights).unwrap();
    let texts = [
        "step600` holds neither `model.safetensors` nor",
        "hint: download the checkpoint's weights",
    ];
    check(folder.path(), &run(folder.path(), &file), FAILED, &texts);
    fs::remove_dir_all(folder.path().join("step600")).unwrap();
    let texts = [
        "step600/config.json`: No such file",
        "hint: a checkpoint is a folder with",
    ];
    check(folder.path(), &run(folder.path(), &file), FAILED, &texts);
}

/// A run on a corpus that holds the token id 2048, one more than the model knows.
fn foreign_token(folder: &Path) -> PathBuf {
    let mut writer = Writer::create(&folder.join("foreign"), TokenType::U16).unwrap();
    for document in 0..40 {
        writer
            .write(&vec![if document == 17 { 2048 } else { 100 }; 200])
            .unwrap();
    }
    writer.finish().unwrap();
    let file = RunFile {
        judge: "gpt-neox",
        data: folder.join("foreign"),
        steps: 7,
        checkpoints: folder.to_owned(),
        numbers: vec![7],
        ..RunFile::default()
    };
    fs::create_dir(folder.join("step7")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(
            mini().join("standard/model/step600").join(name),
            folder.join("step7").join(name),
        )
        .unwrap();
    }
    file.write(folder)
}

#[test]
fn a_token_outside_the_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let path = foreign_token(folder.path());
    let outcome = pipeline(folder.path(), &["run", path.to_str().unwrap()]);
    let texts = [
        "probing `mini` at checkpoint 7",
        "is 2048, the model's vocabulary ends at 2048",
        "hint: the corpus was made with another tokenizer",
    ];
    check(folder.path(), &outcome, FAILED, &texts);
    let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
    let texts = [
        "the corpus holds the token id 2048, its vocabulary ends at 2048",
        "hint: the corpus was made with",
    ];
    check(folder.path(), &outcome, FAILED, &texts);
}

#[test]
fn a_run_file_with_a_typo() {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile::default().write(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        pipeline(folder.path(), &["run", path.to_str().unwrap()])
    };
    let unknown = with("batch-size = 8", "batchsize = 8");
    let texts = ["run.toml`: line 21: unknown key `corpus.batchsize`; did you mean `batch-size`?"];
    check(folder.path(), &unknown, USAGE, &texts);
    let missing = with("sequence-length = 128", "");
    let texts = [
        "run.toml`: a value does not fit",
        "missing field `sequence-length`",
    ];
    check(folder.path(), &missing, USAGE, &texts);
    let missing = with("batch-size = 8", "data-parallel-size = 8");
    check(
        folder.path(),
        &missing,
        USAGE,
        &[
            "run.toml`: corpus `standard`: batch-size: give either `batch-size`, or all of `micro-batch-size`",
        ],
    );
    let wrong = with("seed = 1234", "seed = -1");
    check(
        folder.path(),
        &wrong,
        USAGE,
        &["run.toml`: a value does not fit", "seed = -1", "line 23"],
    );
    let broken = with("[probe]", "[probe");
    check(
        folder.path(),
        &broken,
        USAGE,
        &["run.toml`: it is no TOML", "line 7"],
    );
    let contradiction = with("k = 32", "k = 98");
    let texts = [
        "corpus `standard`: sequence-length: a probe takes offset + k + l = 130 tokens, a sequence has 129",
    ];
    check(folder.path(), &contradiction, USAGE, &texts);
    let late = with("[600, 2400]", "[600, 2401]");
    check(
        folder.path(),
        &late,
        USAGE,
        &["model `mini`: checkpoints: 2401 lies after the last step of `standard`, 2400"],
    );
    let device = with("\"cpu\"", "\"gpu\"");
    check(
        folder.path(),
        &device,
        USAGE,
        &["device: `gpu` is no device: `cpu`, or `cuda:0`, `vulkan:0` and so on"],
    );
}

#[test]
fn all_problems_are_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = RunFile {
        judge: "gpt-neox",
        data: folder.path().join("nothing"),
        checkpoints: folder.path().join("none"),
        ..RunFile::default()
    };
    let path = file.write(folder.path());
    let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
    let texts = [
        "3 of the inputs cannot be used:",
        "nothing.idx`",
        "none/step600/config.json`",
        "none/step2400/config.json`",
    ];
    check(folder.path(), &outcome, FAILED, &texts);

    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("bins = 12", "bins = 0")
            .replace("steps = 2400", "steps = 0")
            .replace("data = '", "data = \"\\u0000\" #"),
    )
    .unwrap();
    let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
    check(
        folder.path(),
        &outcome,
        USAGE,
        &[
            "problems:",
            "bins: 0 is not in",
            "steps: 0 is not in",
            "data: a path cannot hold the character NUL",
        ],
    );
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile::default().write(folder.path());
    let file = folder.path().join("a-file");
    fs::write(&file, "").unwrap();
    let out = file.join("out");
    let outcome = pipeline(
        folder.path(),
        &[
            "run",
            path.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ],
    );
    let texts = [
        "a-file/out` cannot be written",
        "hint: name another folder with `--out`",
    ];
    check(folder.path(), &outcome, FAILED, &texts);
}

#[test]
fn a_device_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = RunFile {
        judge: "gpt-neox",
        device: "cuda:999",
        ..RunFile::default()
    };
    let outcome = run(folder.path(), &file);
    check(
        folder.path(),
        &outcome,
        FAILED,
        &["the device `cuda:999`", "hint: ", "`cpu`"],
    );
}

#[test]
fn a_call_that_asks_for_nothing_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = pipeline(folder.path(), &[]);
    check(
        folder.path(),
        &outcome,
        USAGE,
        &[
            "there is no `pipelines/mini.toml` in",
            "hint: go to a clone",
        ],
    );
    let outcome = pipeline(
        &root(),
        &["inspect", "sequence", "19200", "--corpus", "standard"],
    );
    check(
        folder.path(),
        &outcome,
        USAGE,
        &[
            "the training index 19200 is not among",
            "hint: the last one is 19199",
        ],
    );
    let outcome = pipeline(&root(), &["inspect", "batch", "0"]);
    check(
        folder.path(),
        &outcome,
        USAGE,
        &[
            "several corpora",
            "hint: choose one with `--corpus`: standard, deduped",
        ],
    );
    let batch = [
        "inspect", "batch", "0", "--corpus", "standard", "--save", "x.csv",
    ];
    let texts = [
        "x.csv` is of no format",
        "hint: let its name end with `.npy` or `.parquet`",
    ];
    check(folder.path(), &pipeline(&root(), &batch), USAGE, &texts);
    let batches = [
        "inspect",
        "batch",
        "--steps",
        "2399..2401",
        "--corpus",
        "standard",
    ];
    check(
        folder.path(),
        &pipeline(&root(), &batches),
        USAGE,
        &["step 2400 is not among", "hint: the last one is 2399"],
    );
    let document = ["inspect", "document", "4564", "--corpus", "standard"];
    check(
        folder.path(),
        &pipeline(&root(), &document),
        USAGE,
        &["there is no document 4564", "hint: the last one is 4563"],
    );
    let outcome = pipeline(folder.path(), &["run", "nothing.toml"]);
    check(
        folder.path(),
        &outcome,
        USAGE,
        &["the run file `nothing.toml`: it cannot be read: No such file"],
    );
    assert_eq!(pipeline(folder.path(), &["--no-such-flag"]).code, USAGE);
}
