//! A folder that every user may read and write, with the program, a model, a corpus and run files.

use crate::harness::{Ended, Node, Tree, is_hidden, tree};
use crate::program::{RunFile, mini};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Variables that would say where the hub's cache is.
pub(super) const WITHOUT: [&str; 4] = [
    "HF_HUB_CACHE",
    "HF_HOME",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
];

/// What commands write besides `out`.
const WRITTEN: [&str; 7] = [
    "again",
    "planned",
    "analysed",
    "fresh",
    "jobs",
    "x.npy",
    "x.parquet",
];

pub(super) struct Stage(TempDir);

impl Stage {
    /// Run files: `model.toml` asks a model, `run.toml` the scripted judge.
    pub(super) fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        fs::create_dir(stage.path("")).unwrap();
        let own = Path::new(env!("CARGO_BIN_EXE_pipeline"));
        // A home may be closed to others.
        if fs::hard_link(own, stage.program()).is_err() {
            fs::copy(own, stage.program()).unwrap();
        }
        for ending in ["idx", "bin"] {
            let name = format!("document.{ending}");
            fs::copy(mini().join("standard").join(&name), stage.path(&name)).unwrap();
        }
        for (step, from) in [("step20", "step1200"), ("step40", "step2400")] {
            let from = mini().join("standard/model").join(from);
            fs::create_dir_all(stage.path("model").join(step)).unwrap();
            for name in ["config.json", "model.safetensors"] {
                fs::copy(from.join(name), stage.path("model").join(step).join(name)).unwrap();
            }
        }
        let run_file = RunFile {
            steps: 40,
            part_size: 10,
            data: stage.path("document"),
            checkpoints: stage.path("model"),
            numbers: vec![20, 40],
            layout: "dataset",
            ..RunFile::default()
        };
        for (name, judge) in [("model.toml", "gpt-neox"), ("run.toml", "scripted")] {
            let run_file = RunFile {
                judge,
                ..run_file.clone()
            };
            // Few probes: a model takes its time.
            let sample = "[corpus.sample]\nevery = 2\nrows = 2\nseed = 1\n\n[[model]]";
            let text = run_file.text().replace("[[model]]", sample);
            fs::write(stage.path(name), text).unwrap();
        }
        for folder in [stage.0.path(), &stage.path("")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        }
        stage
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("project").join(name)
    }

    pub(super) fn program(&self) -> PathBuf {
        self.0.path().join("pipeline")
    }

    pub(super) fn call(&self, call: &[&str]) -> Ended {
        let mut command = Command::new(self.program());
        command.args(call).current_dir(self.path(""));
        command.env("HF_HUB_CACHE", self.path("hub"));
        command.output().unwrap().into()
    }

    /// Removes what the commands wrote; a run that is in `out` stays where it asks the script.
    pub(super) fn clear(&self) {
        for name in WRITTEN {
            let path = self.path(name);
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
        let record = fs::read_to_string(self.path("out/run.json")).unwrap_or_default();
        if !record.contains("\"scripted\"") && self.path("out").exists() {
            fs::remove_dir_all(self.path("out")).unwrap();
        }
    }

    /// Everything that a user takes for a result.
    pub(super) fn results(&self) -> Tree {
        let mut all = tree(&self.path(""));
        all.retain(|path, node| {
            let is_record = path.ends_with("run.json");
            let is_log = path.components().any(|part| part.as_os_str() == "logs");
            matches!(node, Node::File(_)) && !is_record && !is_log && !is_hidden(path)
        });
        all
    }
}
