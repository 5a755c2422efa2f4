//! Standard streams that are closed, full, or read by nobody.

use super::stage::Stage;
use crate::harness::Ended;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What is done to the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streams {
    /// By the shell, in these words.
    Shell(&'static str),
    /// A pipe that nobody reads.
    StdoutUnread,
    StderrUnread,
}

impl Streams {
    fn call(self, stage: &Stage, call: &[&str]) -> Ended {
        let mut command = match self {
            Self::Shell(redirection) => {
                let mut command = Command::new("bash");
                let script = format!("exec \"$0\" \"$@\" {redirection}");
                command.args(["-c", &script]).arg(stage.program());
                command
            }
            _ => Command::new(stage.program()),
        };
        command.args(call).current_dir(stage.path(""));
        command.env("HF_HUB_CACHE", stage.path("hub"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let unread = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        match self {
            Self::Shell(_) => {}
            Self::StdoutUnread => drop(command.stdout(unread())),
            Self::StderrUnread => drop(command.stderr(unread())),
        }
        let child = command.spawn().unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// What is wrong with how the command ended that succeeds with open streams.
    fn fault(self, ended: &Ended, prints: bool) -> Option<String> {
        let said = ["panicked", "mistake", "internal error"];
        if said.iter().any(|text| ended.stderr.contains(text)) {
            return Some("panics".to_owned());
        }
        let Some(code) = ended.code else {
            return Some(format!("ended by signal {:?}", ended.signal));
        };
        let is_full = self == Self::Shell(">/dev/full");
        if is_full && prints {
            // The user asked for an answer, and did not get it.
            let fault = ended.fault();
            return fault.or_else(|| (code != 1).then(|| format!("exit code {code}")));
        }
        (code != 0).then(|| format!("exit code {code}"))
    }
}

#[test]
fn every_command_meets_streams_that_are_closed_full_or_unread() {
    let began = Instant::now();
    let streams = [
        Streams::Shell(">&-"),
        Streams::Shell("2>&-"),
        Streams::Shell(">&- 2>&-"),
        Streams::Shell("<&- >&- 2>&-"),
        Streams::Shell(">/dev/full"),
        Streams::Shell("2>/dev/full"),
        Streams::StdoutUnread,
        Streams::StderrUnread,
    ];
    let calls: [&[&str]; 18] = [
        &["run", "run.toml", "--out", "fresh"],
        &["run", "run.toml", "--dry-run"],
        &["plan", "run.toml", "--out", "planned"],
        &[
            "plan",
            "run.toml",
            "--out",
            "planned",
            "--export-tokens",
            "x.parquet",
        ],
        &["check", "model.toml"],
        &["audit", "model.toml"],
        &["analyse", "out"],
        &["analyse", "out", "--out", "analysed"],
        &["status", "out"],
        &["slurm", "run.toml", "--shards", "2", "--folder", "jobs"],
        &["inspect", "sequence", "3", "--file", "run.toml"],
        &["inspect", "batch", "0", "--file", "run.toml"],
        &["inspect", "document", "0", "--file", "run.toml"],
        &[
            "inspect", "batch", "0", "--file", "run.toml", "--save", "x.npy",
        ],
        &["suite"],
        &["suite", "show", "pythia-70m"],
        &["schema"],
        &["schema", "--run-file"],
    ];
    let stage = Stage::new();
    let ended = stage.call(&["run", "run.toml"]);
    assert!(ended.is_success(), "{}", ended.tail());
    let mut broken = Vec::new();
    for call in calls {
        stage.clear();
        let ended = stage.call(call);
        assert!(ended.is_success(), "{call:?}: {}", ended.tail());
        let prints = !ended.stdout.is_empty();
        let whole = stage.results();
        for streams in streams {
            stage.clear();
            let ended = streams.call(&stage, call);
            let mut why = Vec::from_iter(streams.fault(&ended, prints));
            // A line that went into a table would stand there.
            let left = stage.results();
            for (path, node) in &whole {
                if left.get(path) != Some(node) {
                    why.push(format!("{} is not right", path.display()));
                }
            }
            why.truncate(4);
            if !why.is_empty() {
                broken.push(format!("{call:?}, {streams:?}: {why:?}\n{}", ended.tail()));
            }
        }
    }
    let time = began.elapsed().as_secs_f64();
    let n = calls.len() * streams.len();
    println!("streams: {n} calls, {} broken, {time:.1} s", broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
