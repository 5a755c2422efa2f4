//! A sweep on a real Slurm, on one node: an array of shards, a task killed and put into the queue again, the tables after them.

use crate::program::{RunFile, manifest, root, succeed, tables};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the jobs may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// A Slurm that ends with the test.
struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Nothing where Slurm is not installed, or this user may not start it.
    fn start() -> Option<Self> {
        let programs = [
            "munged",
            "slurmctld",
            "slurmd",
            "sbatch",
            "scontrol",
            "squeue",
        ];
        let is_there = |program: &&str| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .stdout(Stdio::null())
                .status();
            found.is_ok_and(|status| status.success())
        };
        let user = Command::new("id").arg("-u").output().unwrap();
        if !programs.iter().all(is_there) || user.stdout != b"0\n" {
            println!("skipped: there is no Slurm that this user could start");
            return None;
        }
        let cluster = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let started = cluster.script("start.sh");
        assert!(started.status.success(), "{started:?}");
        Some(cluster)
    }

    fn script(&self, name: &str) -> Output {
        let script = root().join("tests/slurm").join(name);
        let mut command = Command::new("bash");
        command.arg(script).env("SLURM_SANDBOX", self.folder.path());
        // Daemons keep what they inherit open.
        let log = fs::File::create(self.folder.path().join("script.log")).unwrap();
        let status = command.stdout(Stdio::null()).stderr(log).status().unwrap();
        let stderr = fs::read(self.folder.path().join("script.log")).unwrap();
        Output {
            status,
            stdout: Vec::new(),
            stderr,
        }
    }

    fn call(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(program)
            .args(arguments)
            .env("SLURM_CONF", self.folder.path().join("slurm.conf"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// Waits until Slurm answers as wanted.
    fn wait(&self, program: &str, arguments: &[&str], is_so: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let (_, answer) = self.call(program, arguments);
            if is_so(&answer) {
                return answer;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{program} {arguments:?}: {answer}\n{}",
                self.call("squeue", &[]).1
            );
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script("stop.sh");
    }
}

/// Whether a job is over, as `scontrol show job` says it.
fn ended(answer: &str) -> bool {
    ["COMPLETED", "FAILED", "CANCELLED"]
        .iter()
        .any(|state| answer.contains(&format!("JobState={state}")))
}

/// The number that the script says of a job.
fn number(said: &str, word: &str) -> String {
    let rest = said.split(&format!("{word} ")).nth(1).unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect()
}

/// What all jobs have said.
fn logs(out: &Path) -> String {
    let logs = fs::read_dir(out.join("slurm/logs")).unwrap();
    logs.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect()
}

/// A job that fails ends those after it, and says so: of a plan, and of one shard of several.
fn failures_end_the_chain(cluster: &Cluster) {
    for fails in ["plan", "probe"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("document");
        for ending in ["idx", "bin"] {
            let from = crate::program::mini().join(format!("standard/document.{ending}"));
            fs::copy(from, data.with_extension(ending)).unwrap();
        }
        let file = RunFile {
            data: data.clone(),
            part_size: 2000,
            ..RunFile::default()
        };
        let path = file.write(folder.path());
        let out = folder.path().join("out");
        let path = path.to_str().unwrap();
        if fails == "probe" {
            // A part that a shard finds and cannot read.
            succeed(folder.path(), &["run", path, "--shard", "0/2"]);
            let part = "verdicts/model=mini/checkpoint=600/part-standard-00001.parquet";
            fs::write(out.join(part), "damaged").unwrap();
        }
        succeed(folder.path(), &["slurm", path, "--shards", "2"]);
        if fails == "plan" {
            fs::remove_file(data.with_extension("bin")).unwrap();
        }
        let script = out.join("slurm/sweep.sh");
        let (submitted, said) = cluster.call("bash", &[script.to_str().unwrap()]);
        assert!(submitted, "{said}");
        let join = number(&said, "join");
        let answer = cluster.wait("scontrol", &["show", "job", &join], ended);
        assert!(answer.contains("JobState=CANCELLED"), "{fails}: {answer}");
        let logs = logs(&out);
        let reason = if fails == "plan" {
            "the plan failed with exit code 1: Slurm cancels the jobs after it"
        } else {
            "failed with exit code 1: Slurm cancels the job that makes the tables"
        };
        assert!(
            logs.contains(reason) && logs.contains("error: "),
            "{fails}: {logs}"
        );
        assert!(!out.join("memorization.parquet").exists());
    }
}

fn n_parts(out: &Path) -> usize {
    tables(&out.join("verdicts")).len()
}

#[test]
fn an_array_of_shards_is_the_whole() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let file = RunFile {
        part_size: 20,
        ..RunFile::default()
    };
    let whole = tempfile::tempdir().unwrap();
    let path = file.write(whole.path());
    succeed(whole.path(), &["run", path.to_str().unwrap()]);
    let whole = whole.path().join("out");

    let folder = tempfile::tempdir().unwrap();
    let path = file.write(folder.path());
    let out = folder.path().join("out");
    succeed(
        folder.path(),
        &["slurm", path.to_str().unwrap(), "--shards", "4"],
    );
    let script = out.join("slurm/sweep.sh");
    let (submitted, said) = cluster.call("bash", &[script.to_str().unwrap()]);
    assert!(submitted, "{said}");
    // plan 1, probe 2 (4 tasks), join 3; logs in …
    let (probe, join) = (number(&said, "probe"), number(&said, "join"));
    let task = format!("{probe}_1");

    // Killed in the middle of its work, and again in the queue.
    cluster.wait(
        "squeue",
        &["-h", "-t", "R", "-o", "%i", "-j", &probe],
        |answer| answer.lines().any(|line| line == task),
    );
    let (requeued, said) = cluster.call("scontrol", &["requeue", &task]);
    assert!(requeued, "{said}");
    // Slurm lets it wait for two minutes; a test need not.
    cluster.wait("scontrol", &["show", "job", &task], |answer| {
        answer.contains("JobState=PENDING")
    });
    cluster.call(
        "scontrol",
        &["update", &format!("JobId={task}"), "StartTime=now"],
    );

    let answer = cluster.wait("scontrol", &["show", "job", &join], ended);
    assert!(
        answer.contains("JobState=COMPLETED"),
        "{answer}\n{}",
        logs(&out)
    );
    let (_, answer) = cluster.call("scontrol", &["show", "job", &task]);
    assert!(
        answer.contains("JobState=COMPLETED") && answer.contains("Restarts=1"),
        "{answer}"
    );
    assert_eq!(n_parts(&out), 1920);
    assert!(tables(&out) == tables(&whole));
    assert_eq!(manifest(&out)["status"], "finished");
    failures_end_the_chain(&cluster);
}
