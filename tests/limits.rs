//! Few files, little memory, few processes, no home: each run finishes right, or says one error.

mod stage;
mod streams;

use crate::harness::{Ended, send};
use crate::program::tables;
use stage::{Stage, WITHOUT};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A user without privileges, `nobody`.
const NOBODY: &str = "65534";

fn is_root() -> bool {
    let user = Command::new("id").arg("-u").output().unwrap();
    user.stdout == b"0\n"
}

/// A shell that sets limits and becomes the program.
fn limited(shell: &str, program: &Path, unprivileged: bool) -> Command {
    let script = format!("{shell}\nexec \"$0\" \"$@\"");
    let mut command = if unprivileged {
        let mut command = Command::new("setpriv");
        let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
        command.args([&user, &group, "--clear-groups", "bash"]);
        command
    } else {
        Command::new("bash")
    };
    command.args(["-c", &script]).arg(program);
    command
}

#[test]
fn a_run_under_limits_finishes_or_says_why() {
    let began = Instant::now();
    let stage = Stage::new();
    let ended = stage.call(&["run", "model.toml"]);
    assert!(ended.is_success(), "{}", ended.tail());
    let whole = tables(&stage.path("out"));
    let read_only = stage.path("home");
    fs::create_dir(&read_only).unwrap();
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o555)).unwrap();
    let read_only = format!("export HOME='{}'", read_only.display());
    // Whether it must finish. Threads for many cores may take more memory, or more processes.
    let cases = [
        ("ulimit -n 64", false, true),
        ("ulimit -n 24", false, false),
        ("ulimit -v 3000000", false, false),
        ("ulimit -v 700000", false, false),
        ("ulimit -u 20", true, false),
        ("ulimit -u 2", true, false),
        ("ulimit -f 64", false, false),
        (&read_only, true, true),
        ("unset HOME", false, true),
        (
            "cd . ; exec env -i PATH=\"$PATH\" \"$0\" \"$@\"",
            false,
            true,
        ),
    ];
    let mut broken = Vec::new();
    let mut n = 0;
    for (shell, unprivileged, must_finish) in cases {
        if unprivileged && !is_root() {
            println!("skipped: `{shell}` needs another user, and this one is not root");
            continue;
        }
        for call in [&["run", "model.toml"][..], &["check", "model.toml"]] {
            n += 1;
            stage.clear();
            let mut command = limited(shell, &stage.program(), unprivileged);
            command.args(call).current_dir(stage.path(""));
            for name in WITHOUT {
                command.env_remove(name);
            }
            let ended = Ended::from(command.output().unwrap());
            let mut why = Vec::from_iter(ended.fault());
            let left = tables(&stage.path("out"));
            if ended.is_success() && call[0] == "run" && left != whole {
                why.push("has other tables".to_owned());
            }
            if !ended.is_success() && left.iter().any(|(path, now)| whole[path] != *now) {
                why.push("leaves a table that is not right".to_owned());
            }
            if must_finish && !ended.is_success() {
                why.push("does not finish".to_owned());
            }
            if !why.is_empty() {
                broken.push(format!("{shell}, {call:?}: {why:?}\n{}", ended.tail()));
            }
        }
    }
    let time = began.elapsed().as_secs_f64();
    println!("limits: {n} runs, {} broken, {time:.1} s", broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The newest test binary of a crate, beside this one.
fn newest(prefix: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let folder = fs::read_dir(own.parent().unwrap()).unwrap();
    let binaries = folder.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        let hash = name.strip_prefix(prefix).unwrap_or_default();
        !hash.is_empty() && hash.chars().all(|digit| digit.is_ascii_hexdigit())
    });
    binaries.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap())
}

#[test]
fn quick_tests_pass_under_limits() {
    let began = Instant::now();
    let own = std::env::current_exe().unwrap();
    let mut binaries: Vec<(PathBuf, &[&str])> = vec![(own, &["resume::", "inspect::"])];
    let crates: [(&str, &[&str]); 2] = [
        // One maps a file of the Pile's size, which needs so much address space.
        (
            "training_order-",
            &["--skip", "opening_an_index_of_the_piles_size"],
        ),
        ("gpt_neox-", &["config", "weights"]),
    ];
    for (crate_name, filters) in crates {
        match newest(crate_name) {
            Some(binary) => binaries.push((binary, filters)),
            None => println!("skipped: no test binary `{crate_name}…` is built"),
        }
    }
    let mut broken = Vec::new();
    for (binary, filters) in &binaries {
        for shell in ["ulimit -n 64", "ulimit -v 3000000", "unset HOME"] {
            let mut command = limited(shell, binary, false);
            command.args(*filters).args(["--test-threads", "2"]);
            let ended = Ended::from(command.output().unwrap());
            if !ended.is_success() || !ended.stdout.contains("test result: ok") {
                let binary = binary.file_name().unwrap().to_string_lossy();
                broken.push(format!("{binary}, {shell}: {}", ended.stdout));
            }
        }
    }
    println!("tests under limits: {:.1} s", began.elapsed().as_secs_f64());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn sigterm_at_any_moment_leaves_nothing_half() {
    let began = Instant::now();
    let stage = Stage::new();
    let ended = stage.call(&["run", "run.toml"]);
    assert!(ended.is_success(), "{}", ended.tail());
    let calls: [&[&str]; 6] = [
        &["run", "model.toml", "--out", "again"],
        &["plan", "run.toml", "--out", "planned"],
        &["check", "model.toml"],
        &["audit", "model.toml"],
        &["analyse", "out", "--out", "analysed"],
        &[
            "inspect",
            "batch",
            "--steps",
            "0..40",
            "--file",
            "run.toml",
            "--save",
            "x.parquet",
        ],
    ];
    let mut broken = Vec::new();
    let mut codes = BTreeSet::new();
    for call in calls {
        stage.clear();
        let once = Instant::now();
        let ended = stage.call(call);
        let time = once.elapsed();
        assert!(ended.is_success(), "{call:?}: {}", ended.tail());
        let whole = stage.results();
        for moment in 0..6 {
            stage.clear();
            let mut command = Command::new(stage.program());
            command.args(call).current_dir(stage.path(""));
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            sleep(time * moment / 6 + Duration::from_millis(1));
            send(child.id(), "-TERM");
            let ended = Ended::from(child.wait_with_output().unwrap());
            let mut why = Vec::new();
            // Before the program asks for it, the signal ends it.
            if ended.signal == Some(crate::harness::SIGTERM) {
                codes.insert((call[0], -15));
            } else {
                why.extend(ended.fault());
                codes.insert((call[0], ended.code.unwrap_or(-1)));
                if !matches!(ended.code, Some(0 | 130)) {
                    why.push(format!("exit code {:?}", ended.code));
                }
            }
            for (path, now) in stage.results() {
                if whole.get(&path) != Some(&now) {
                    why.push(format!("{} is not right", path.display()));
                }
            }
            let again = stage.call(call);
            if !again.is_success() || stage.results() != whole {
                why.push(format!("cannot be done again: {}", again.tail()));
            }
            if !why.is_empty() {
                broken.push(format!("{call:?}, {moment}: {why:?}\n{}", ended.tail()));
            }
        }
    }
    let time = began.elapsed().as_secs_f64();
    println!("SIGTERM: {codes:?}, {} broken, {time:.1} s", broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
