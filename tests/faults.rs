//! A disk that is full, or broken, at any one of the program's writes.
//!
//! `FAULT_CALLS=1000 cargo test -p pipeline --test end_to_end faults:: -- --nocapture` tries every
//! call; without it some are tried. What the program calls without the C library cannot be made to
//! fail: the crate `tempfile` renames so.

use crate::harness::{Ended, Node, Tree, copy_folder, is_hidden, setting, tree};
use crate::program::{RunFile, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

/// The library that makes calls fail. Nothing where there is no C compiler.
fn library(folder: &Path) -> Option<PathBuf> {
    let library = folder.join("fault.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(root().join("tests/faults/fault.c"))
        .arg("-ldl")
        .output();
    match built {
        Ok(output) => {
            assert!(output.status.success(), "{}", Ended::from(output).tail());
            Some(library)
        }
        Err(error) => {
            println!("skipped: there is no C compiler `cc`: {error}");
            None
        }
    }
}

/// A command, and what is there before it.
struct Scenario {
    name: &'static str,
    call: &'static [&'static str],
    layout: &'static str,
    /// Whether a run with other bins is finished.
    is_finished: bool,
}

/// What a call met.
struct Hit {
    n_calls: usize,
    /// The call that failed, and its path. Empty where none did.
    call: String,
}

/// The folder of a scenario, and the library.
struct Bench {
    folder: TempDir,
    library: PathBuf,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("project").join(name)
    }

    fn call(&self, call: &[&str], environment: &[(&str, &str)]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(call).current_dir(self.path(""));
        command.envs(environment.iter().copied());
        command.output().unwrap().into()
    }

    /// Calls the program with its `at`-th write failing, and all later ones if `all` is set.
    fn fault(&self, call: &[&str], at: usize, all: bool) -> (Ended, Hit) {
        let report = self.folder.path().join("report");
        let at = at.to_string();
        let project = self.path("");
        let project = project.to_str().unwrap().trim_end_matches('/');
        let mut environment = vec![
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("FAULT_FOLDER", project),
            ("FAULT_REPORT", report.to_str().unwrap()),
            ("FAULT_AT", &at),
        ];
        if all {
            environment.push(("FAULT_ALL", "1"));
        }
        let ended = self.call(call, &environment);
        let text = fs::read_to_string(&report).unwrap();
        let (n_calls, hit) = text.split_once('\n').unwrap();
        let hit = Hit {
            n_calls: n_calls.parse().unwrap(),
            call: hit.trim().to_owned(),
        };
        (ended, hit)
    }

    /// Puts the project back to what it was.
    fn restore(&self) {
        let project = self.path("");
        if project.exists() {
            fs::remove_dir_all(&project).unwrap();
        }
        copy_folder(&self.folder.path().join("before"), &project);
    }

    /// Everything that a user takes for a result.
    fn results(&self) -> Tree {
        let mut all = tree(&self.path(""));
        all.retain(|path, node| {
            let is_record = path.file_name().is_some_and(|name| name == "run.json");
            let is_log = path.components().any(|part| part.as_os_str() == "logs");
            matches!(node, Node::File(_)) && !is_record && !is_log && !is_hidden(path)
        });
        all
    }

    fn record(&self) -> Option<Vec<u8>> {
        fs::read(self.path("out/run.json")).ok()
    }
}

/// Tries a scenario; how many calls were made to fail of how many, and what is wrong.
fn attempt(scenario: &Scenario, n_most: usize) -> Option<(usize, usize, Vec<String>)> {
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path())?;
    let bench = Bench { folder, library };
    fs::create_dir(bench.path("")).unwrap();
    let run_file = RunFile {
        steps: 80,
        part_size: 320,
        numbers: vec![40, 80],
        layout: scenario.layout,
        ..RunFile::default()
    };
    if scenario.is_finished {
        run_file.write(&bench.path(""));
        let ended = bench.call(&["run", "run.toml"], &[]);
        assert!(ended.is_success(), "{}", ended.tail());
    }
    RunFile {
        bins: 7,
        ..run_file
    }
    .write(&bench.path(""));
    copy_folder(&bench.path(""), &bench.folder.path().join("before"));
    let before = bench.results();
    let record = bench.record();
    let (ended, whole) = bench.fault(scenario.call, 0, false);
    assert!(ended.is_success(), "{}: {}", scenario.name, ended.tail());
    assert!(whole.n_calls > 2, "{}: nothing is counted", scenario.name);
    let reference = bench.results();
    let mut broken = Vec::new();
    let n = whole.n_calls.min(n_most);
    let at = |i: usize| 1 + i * (whole.n_calls - 1) / (n - 1).max(1);
    let alternating = (0..n).map(|i| (at(i), i % 2 == 0));
    // Where every call is tried, each is tried in both ways.
    let others = (0..n)
        .filter(|_| n == whole.n_calls)
        .map(|i| (at(i), i % 2 != 0));
    for (at, all) in alternating.chain(others) {
        bench.restore();
        let (ended, hit) = bench.fault(scenario.call, at, all);
        let mut why = Vec::from_iter(faults(scenario, &bench, &ended, &hit));
        why.extend(damage(&before, &bench.results(), &reference, &ended));
        if record.is_some() && !ended.is_success() && bench.record() != record {
            why.push("`run.json` has changed".to_owned());
        }
        let again = bench.call(scenario.call, &[]);
        if !again.is_success() {
            why.push(format!("cannot be done again: {}", again.tail()));
        } else if bench.results() != reference {
            why.push("the next run has other results".to_owned());
        }
        let left = tree(&bench.path(""));
        let hidden: Vec<&PathBuf> = left.keys().filter(|path| is_hidden(path)).collect();
        if !hidden.is_empty() {
            why.push(format!("the next run leaves {hidden:?}"));
        }
        if !why.is_empty() {
            let mode = if all { "and all later ones" } else { "alone" };
            broken.push(format!(
                "{}, call {at} ({mode}: {}): {}\n{}",
                scenario.name,
                hit.call,
                why.join("; "),
                ended.tail()
            ));
        }
    }
    Some((n, whole.n_calls, broken))
}

/// What is wrong with how a command ended that met a fault.
fn faults(scenario: &Scenario, bench: &Bench, ended: &Ended, hit: &Hit) -> Option<String> {
    // Another order of threads may make fewer calls.
    if hit.call.is_empty() {
        return (!ended.is_success()).then(|| "fails without a fault".to_owned());
    }
    if let Some(why) = ended.fault() {
        return Some(why);
    }
    let is_minor = ["/logs", "/.sweep"]
        .iter()
        .any(|part| hit.call.contains(part));
    match ended.code {
        // A line of a log, or a sign of life.
        Some(0) if is_minor => None,
        Some(1) => {
            let project = bench.path("");
            let names = [
                "`out",
                "`new",
                "x.parquet",
                "x.npy",
                project.to_str().unwrap(),
            ];
            let is_said = names.iter().any(|name| ended.stderr.contains(name));
            (!is_said).then(|| format!("{}: the error names no path", scenario.name))
        }
        code => Some(format!("exit code {code:?}")),
    }
}

/// Files that are neither as they were nor whole.
fn damage(before: &Tree, now: &Tree, reference: &Tree, ended: &Ended) -> Vec<String> {
    let mut why = Vec::new();
    // A disk on which no file can be renamed any more keeps what it has, old or new.
    let is_stuck = ended.stderr.contains("cannot be put back");
    for (path, node) in now {
        let right = match before.get(path) {
            // A command that failed leaves what was finished.
            Some(old) if !(ended.is_success() || is_stuck && reference.get(path) == Some(node)) => {
                Some(old)
            }
            _ => reference.get(path),
        };
        if right != Some(node) {
            let is_new = reference.get(path) == Some(node);
            let how = if is_new { "is replaced" } else { "is damaged" };
            why.push(format!("{} {how}", path.display()));
        }
    }
    for path in before.keys().filter(|path| !now.contains_key(*path)) {
        why.push(format!("{} is gone", path.display()));
    }
    why.truncate(5);
    why
}

fn attempt_all(scenarios: &[Scenario], default: u64) {
    let began = Instant::now();
    let n_most = usize::try_from(setting("FAULT_CALLS", default)).unwrap();
    let mut broken = Vec::new();
    for scenario in scenarios {
        let Some((n, of, found)) = attempt(scenario, n_most) else {
            return;
        };
        println!(
            "faults: {}: {n} of {of} calls, {} broken, {:.1} s",
            scenario.name,
            found.len(),
            began.elapsed().as_secs_f64()
        );
        broken.extend(found);
    }
    assert!(
        broken.is_empty(),
        "{} faults are not met\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[test]
fn a_run_meets_a_full_disk_at_any_write() {
    let run = &["run", "run.toml"];
    let scenario = |name, layout, is_finished| Scenario {
        name,
        call: run,
        layout,
        is_finished,
    };
    attempt_all(
        &[
            scenario("a first run, one file", "file", false),
            scenario("a first run, a dataset", "dataset", false),
            scenario("other bins, one file", "file", true),
            scenario("other bins, a dataset", "dataset", true),
        ],
        30,
    );
}

#[test]
fn other_commands_meet_a_full_disk_at_any_write() {
    let scenario = |name, call, is_finished| Scenario {
        name,
        call,
        layout: "file",
        is_finished,
    };
    attempt_all(
        &[
            scenario("analyse", &["analyse", "out"], true),
            scenario(
                "analyse elsewhere",
                &["analyse", "out", "--out", "new"],
                true,
            ),
            scenario("plan", &["plan", "run.toml"], false),
            scenario(
                "export",
                &["plan", "run.toml", "--export-tokens", "x.parquet"],
                false,
            ),
            scenario(
                "a batch, parquet",
                &[
                    "inspect",
                    "batch",
                    "0",
                    "--file",
                    "run.toml",
                    "--save",
                    "x.parquet",
                ],
                false,
            ),
            scenario(
                "a batch, npy",
                &[
                    "inspect", "batch", "--steps", "0..20", "--file", "run.toml", "--save", "x.npy",
                ],
                false,
            ),
            scenario("slurm", &["slurm", "run.toml", "--shards", "2"], false),
        ],
        12,
    );
}
