//! Models by name: the registry, and the hub's cache.

use crate::program::{RunFile, mini, pipeline, succeed};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_suite_is_listed_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |arguments: &[&str]| succeed(folder.path(), arguments).stdout.lines().count();
    assert_eq!(lines(&["suite"]), 1 + 85);
    assert_eq!(
        lines(&["suite", "--series", "v1", "--corpus", "pile-deduped"]),
        1 + 8
    );
    let shown = succeed(folder.path(), &["suite", "show", "pythia-800M"]).stdout;
    for text in [
        "pythia-800M is called pythia-1b since January 2023",
        "1,011,781,632",
        "8 heads of 256, 64 of them rotated",
        "size of a head: 128 (README of October to December 2022, for 800M); 256 (",
    ] {
        assert!(shown.contains(text), "no `{text}` in\n{shown}");
    }
    let unknown = pipeline(folder.path(), &["suite", "show", "pythia-71m"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.stderr.contains("did you mean pythia-7"),
        "{}",
        unknown.stderr
    );
}

/// A run file whose model and corpus are replaced by these.
fn written(folder: &Path, model: &str, corpus: &str) -> PathBuf {
    let path = RunFile::default().write(folder);
    let text = fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once("[[model]]").unwrap();
    let head = head.replace(
        "sequence-length = 128\nbatch-size = 8\nsteps = 2400",
        corpus,
    );
    fs::write(
        &path,
        format!("{head}[[model]]\ncorpus = \"standard\"\n{model}\n"),
    )
    .unwrap();
    path
}

const MINI: &str = "sequence-length = 128\nbatch-size = 8\nsteps = 2400";
const PYTHIA: &str = "sequence-length = 2048\nbatch-size = 1024\nsteps = 143000";

#[test]
fn a_model_of_the_suite_is_held_against_the_registry() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |model: &str, corpus: &str, texts: &[&str]| {
        let path = written(folder.path(), model, corpus);
        let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        for text in texts {
            assert!(
                outcome.stderr.contains(text),
                "no `{text}` in\n{}",
                outcome.stderr
            );
        }
    };
    refused(
        "name = \"pythia-160m-v0\"\ncheckpoints = [1000]",
        PYTHIA,
        &[
            "`standard` has the batch-size 1024, the suite's `pythia-160m-v0` was trained with 2048",
            "has the steps 143000",
        ],
    );
    refused(
        "name = \"pythia-70m-seed3\"\ncheckpoints = [1500]",
        PYTHIA,
        &[
            "has the seed 1234",
            "1500 was not published; the nearest is 1000",
        ],
    );
    refused(
        "name = \"pythia-1600m\"\ncheckpoints = [1000]",
        MINI,
        &["folder: without it the model must be one of the suite, such as pythia-160m"],
    );
    refused(
        "name = \"mini\"\nfolder = \"hf://nobody\"\ncheckpoints = [600]",
        MINI,
        &["`hf://nobody` is no place on the hub: `hf://OWNER/NAME@REVISION/PATH`"],
    );
    // A name of the suite over other weights.
    let model = format!(
        "name = \"pythia-70m\"\nfolder = '{}/step{{checkpoint}}'\ncheckpoints = [600]",
        mini().join("standard/model").display()
    );
    refused(
        &model,
        MINI,
        &["has the sequence-length 128", "600 was not published"],
    );
}

#[test]
fn weights_of_another_shape_than_the_registrys_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = format!(
        "name = \"pythia-70m\"\nfolder = '{}'\ncheckpoints = [1000]",
        mini().join("standard/model/step600").display()
    );
    let path = written(folder.path(), &model, PYTHIA);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"scripted\"", "\"gpt-neox\"")).unwrap();
    let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
    assert_eq!(outcome.code, 1);
    let text = "the model `pythia-70m` at checkpoint 1000: its vocab_size is 2048, that of the suite's `pythia-70m` 50304";
    assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
}

#[test]
fn what_is_not_in_the_hubs_cache_is_said_with_the_command_that_fetches_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(
        folder.path(),
        "name = \"mini\"\nfolder = \"hf://nobody/mini@step{checkpoint}\"\ncheckpoints = [600]",
        MINI,
    );
    let arguments = ["check", path.to_str().unwrap()];
    let checked = succeed(folder.path(), &arguments);
    let command = "hf download nobody/mini --revision step600";
    assert!(checked.stderr.contains(command), "{}", checked.stderr);
    assert!(
        checked.stdout.contains("nothing wrong; 1 yet to fetch"),
        "{}",
        checked.stdout
    );
    let run = pipeline(folder.path(), &["run", path.to_str().unwrap()]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains(command), "{}", run.stderr);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_file_of_the_hubs_cache_must_have_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("hub/models--nobody--mini");
    let snapshot = repository.join("snapshots/0123");
    for name in ["refs", "blobs", "snapshots/0123"] {
        fs::create_dir_all(repository.join(name)).unwrap();
    }
    fs::write(repository.join("refs/step600"), "0123").unwrap();
    let checkpoint = mini().join("standard/model/step600");
    fs::copy(checkpoint.join("config.json"), snapshot.join("config.json")).unwrap();
    let weights = fs::read(checkpoint.join("model.safetensors")).unwrap();
    let hash = Sha256::digest(&weights);
    let hash = hash.iter().fold(String::new(), |mut hash, byte| {
        write!(hash, "{byte:02x}").unwrap();
        hash
    });
    let blob = repository.join("blobs").join(&hash);
    fs::write(&blob, &weights).unwrap();
    std::os::unix::fs::symlink(&blob, snapshot.join("model.safetensors")).unwrap();

    let path = written(
        folder.path(),
        "name = \"mini\"\nfolder = \"hf://nobody/mini@step{checkpoint}\"\ncheckpoints = [600]",
        MINI,
    );
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"scripted\"", "\"gpt-neox\"")).unwrap();
    let arguments = ["check", path.to_str().unwrap()];
    succeed(folder.path(), &arguments);
    let mut damaged = weights;
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&blob, damaged).unwrap();
    let refused = pipeline(folder.path(), &arguments);
    assert_eq!(refused.code, 1);
    for text in [
        "model.safetensors` has the SHA-256",
        hash.as_str(),
        "download it again",
    ] {
        assert!(
            refused.stderr.contains(text),
            "no `{text}` in\n{}",
            refused.stderr
        );
    }
}
