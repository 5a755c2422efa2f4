//! A project folder with a run file, and the cases that are tried on it.

use crate::harness::{Ended, Tree, changes, tree};
use crate::program::RunFile;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder in which a user works.
pub(super) struct Project(TempDir);

impl Project {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that is not the program's.
    pub(super) fn foreign(&self, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("years of work: {name}")).unwrap();
    }

    pub(super) fn copy(&self, from: &Path, to: &str) {
        let path = self.path(to);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from, path).unwrap();
    }

    pub(super) fn link(&self, to: &str, name: &str) {
        symlink(self.path(to), self.path(name)).unwrap();
    }

    /// Writes the run file, changed.
    pub(super) fn write(&self, file: &RunFile, change: impl Fn(String) -> String) {
        fs::write(self.path("run.toml"), change(file.text())).unwrap();
    }

    pub(super) fn call(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(arguments).current_dir(self.0.path());
        command.env("HF_HUB_CACHE", self.path("hub"));
        command.output().unwrap().into()
    }

    /// Calls the program, and expects that it does all of its work.
    pub(super) fn succeed(&self, arguments: &[&str]) -> Ended {
        let ended = self.call(arguments);
        assert!(ended.is_success(), "{arguments:?}: {}", ended.tail());
        ended
    }

    pub(super) fn tree(&self) -> Tree {
        tree(self.0.path())
    }
}

/// The small run of these tests.
pub(super) fn small() -> RunFile {
    RunFile {
        steps: 80,
        part_size: 160,
        numbers: vec![40, 80],
        ..RunFile::default()
    }
}

/// Collects the cases that are broken.
#[derive(Default)]
pub(super) struct Cases {
    n: u32,
    broken: Vec<String>,
}

impl Cases {
    fn note(&mut self, name: &str, why: &[String], ended: &Ended) {
        self.n += 1;
        if !why.is_empty() {
            let tail = ended.tail();
            self.broken
                .push(format!("{name}: {}\n{tail}", why.join(", ")));
        }
    }

    /// The call must be refused, with these texts, and change nothing. Each text may hold
    /// alternatives, between bars. A run's own folder, `ours`, may get a log.
    pub(super) fn refused(
        &mut self,
        name: &str,
        project: &Project,
        call: &[&str],
        texts: &[&str],
        ours: Option<&str>,
    ) {
        let before = project.tree();
        let ended = project.call(call);
        let mut why = changes(&before, &project.tree(), |path| {
            let log = ours.and_then(|out| path.strip_prefix(out).ok());
            !log.is_some_and(|inside| inside.starts_with("logs") || inside.starts_with(".sweep"))
        });
        why.truncate(8);
        why.extend(ended.fault());
        if matches!(ended.code, Some(1 | 2)) {
            // What is wrong in a run file says itself what would be right.
            let cure: &[&str] = if ended.code == Some(1) {
                &["hint: "]
            } else {
                &[]
            };
            for text in texts.iter().chain(cure) {
                if !text.split('|').any(|text| ended.stderr.contains(text)) {
                    why.push(format!("does not say `{text}`"));
                }
            }
        } else {
            why.push("is not refused".to_owned());
        }
        self.note(name, &why, &ended);
    }

    /// The call must leave these files as they are; it must succeed where that is asked for, and be
    /// refused properly else.
    pub(super) fn kept(
        &mut self,
        name: &str,
        project: &Project,
        call: &[&str],
        keeps: &[&str],
        succeeds: bool,
    ) -> Ended {
        let before = project.tree();
        let ended = project.call(call);
        let mut why = changes(&before, &project.tree(), |path| {
            keeps.iter().any(|kept| path.starts_with(kept))
        });
        why.truncate(8);
        why.extend(ended.fault());
        if succeeds && !ended.is_success() {
            why.push("is refused".to_owned());
        }
        self.note(name, &why, &ended);
        ended
    }

    /// Ends the test.
    pub(super) fn close(self) {
        let Self { n, broken } = self;
        println!("{n} cases, {} broken", broken.len());
        assert!(
            broken.is_empty(),
            "{} of {n} cases are broken\n{}",
            broken.len(),
            broken.join("\n")
        );
    }
}
