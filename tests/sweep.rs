//! Runs that are killed, shared out, done side by side or short of something: the tables are those of a run left in peace.

use crate::program::{
    Outcome, RunFile, manifest, mini, pipeline, succeed, tables, with_a_bit_flipped,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Parts of the runs here: 2 checkpoints of 64 parts.
const N_PARTS: usize = 128;

/// A run file with the scripted judge, and its output folder.
struct Sweep {
    folder: TempDir,
    file: PathBuf,
}

impl Sweep {
    fn new() -> Self {
        Self::of(&RunFile {
            part_size: 300,
            ..RunFile::default()
        })
    }

    fn of(file: &RunFile) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = file.write(folder.path());
        Self { folder, file }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn run(&self, flags: &[&str]) -> Outcome {
        let call = [&["run", self.file.to_str().unwrap()], flags].concat();
        pipeline(self.folder.path(), &call)
    }

    fn finish(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let outcome = self.run(&[]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        self.nothing_is_left();
        tables(&self.out())
    }

    fn start(&self, flags: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .args(["run", self.file.to_str().unwrap()])
            .args(flags)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn n_parts(&self) -> usize {
        files(&self.out().join("verdicts"))
            .iter()
            .filter(|path| path.extension().is_some_and(|ending| ending == "parquet"))
            .count()
    }

    /// Whether a file below the folder is being written.
    fn writes(&self, folder: &str) -> bool {
        let folder = self.out().join(folder);
        let in_verdicts = self.out().join("verdicts");
        files(&folder).iter().any(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(".partial-")
                && path.starts_with(&in_verdicts) == (folder == in_verdicts)
        })
    }

    /// Neither claims nor files half written.
    fn nothing_is_left(&self) {
        let hidden = files(&self.out()).into_iter().filter(|path| {
            let inside = path.strip_prefix(self.out()).unwrap();
            inside
                .components()
                .any(|part| part.as_os_str().to_string_lossy().starts_with('.'))
        });
        let hidden: Vec<PathBuf> = hidden.collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}

/// Every file below a folder, as far as it stays while it is looked at.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}

/// Waits until `is_so`; whether it was before the process ended.
fn wait(child: &mut Child, is_so: impl Fn() -> bool) -> bool {
    while child.try_wait().unwrap().is_none() {
        if is_so() {
            return true;
        }
        sleep(Duration::from_micros(200));
    }
    false
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &pid])
            .status()
            .unwrap()
            .success()
    );
}

/// The tables of a run that nothing disturbed, and how long it took.
fn undisturbed() -> (BTreeMap<PathBuf, Vec<u8>>, Duration) {
    let sweep = Sweep::new();
    let began = Instant::now();
    let whole = sweep.finish();
    assert_eq!(sweep.n_parts(), N_PARTS);
    (whole, began.elapsed())
}

#[test]
fn killed_at_any_moment_it_goes_on() {
    let (whole, time) = undisturbed();
    let mut landed: BTreeMap<&str, u32> = BTreeMap::new();
    for moment in 0..20_u32 {
        let sweep = Sweep::new();
        let mut child = sweep.start(&[]);
        let kind = ["plan", "part", "probe", "join", "any"][moment as usize % 5];
        let n_before = N_PARTS * (moment as usize + 1) / 25;
        let killed = match kind {
            "plan" => wait(&mut child, || sweep.writes("")),
            "part" => wait(&mut child, || {
                sweep.n_parts() >= n_before && sweep.writes("verdicts")
            }),
            "probe" => wait(&mut child, || sweep.n_parts() >= n_before),
            "join" => wait(&mut child, || {
                sweep.n_parts() == N_PARTS && sweep.writes("")
            }),
            _ => {
                sleep(time * moment / 20);
                child.try_wait().unwrap().is_none()
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        *landed.entry(kind).or_default() += u32::from(killed);
        assert!(sweep.finish() == whole, "killed in {kind}, moment {moment}");
    }
    println!("killed: {landed:?}");
    assert!(landed.values().all(|n| *n > 0), "{landed:?}");
}

#[test]
fn two_processes_share_the_work() {
    let (whole, _) = undisturbed();
    let sweep = Sweep::new();
    let both = [sweep.start(&[]), sweep.start(&[])];
    for child in both {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
    }
    assert!(tables(&sweep.out()) == whole);
    sweep.nothing_is_left();
    // Each part was written once: claims hold.
    let logs = files(&sweep.out().join("logs"));
    let logs: String = logs
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(logs.matches(": written").count(), N_PARTS);
}

#[test]
fn a_dead_worker_elsewhere_is_waited_for_as_long_as_it_promised() {
    let (whole, _) = undisturbed();
    let sweep = Sweep::new();
    let part = Path::new("model=mini/checkpoint=600/part-standard-00003.parquet");
    let claim = sweep.out().join(".sweep/claims").join(part);
    let record = sweep.out().join(".sweep/workers/elsewhere-1.json");
    for path in [&claim, &record] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    fs::write(&claim, "elsewhere-1").unwrap();
    let text = r#"{"id": "elsewhere-1", "host": "elsewhere", "pid": 1, "machine": "another", "started": 1, "expires_after": 4,
        "work": {"device": "cpu", "shard": null, "seconds": 1.0, "n_verdicts": 0, "n_units": 0, "working_on": ""}}"#;
    fs::write(&record, text).unwrap();
    let began = Instant::now();
    let outcome = sweep.run(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(
        began.elapsed() >= Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert!(outcome.stderr.contains("taking over"), "{}", outcome.stderr);
    assert!(tables(&sweep.out()) == whole);
}

#[test]
fn all_shards_are_the_whole() {
    let (whole, _) = undisturbed();
    for n in [1, 3, 7] {
        let sweep = Sweep::new();
        for shard in (0..n).rev() {
            let outcome = sweep.run(&["--shard", &format!("{shard}/{n}")]);
            assert_eq!(
                (outcome.code, outcome.stdout.as_str()),
                (0, ""),
                "{}",
                outcome.stderr
            );
        }
        assert_eq!(sweep.n_parts(), N_PARTS);
        assert!(sweep.finish() == whole, "{n} shards");
        assert_eq!(manifest(&sweep.out())["verdicts_resumed"], 2 * 19_200);
    }
    let sweep = Sweep::new();
    for shard in ["3/3", "x", "0/0"] {
        assert_eq!(sweep.run(&["--shard", shard]).code, 2, "{shard}");
    }
    assert_eq!(sweep.run(&["--only", "join", "--shard", "0/2"]).code, 2);
    let no_task = sweep.run(&["--shard"]);
    assert_eq!(no_task.code, 2);
    assert!(no_task.stderr.contains("is not set"), "{}", no_task.stderr);
}

#[test]
fn several_devices_share_the_work() {
    let (whole, _) = undisturbed();
    let sweep = Sweep::new();
    let text = fs::read_to_string(&sweep.file).unwrap();
    let text = text.replace("device = \"cpu\"", "devices = [\"cpu\", \"cpu\"]");
    fs::write(&sweep.file, text).unwrap();
    assert!(sweep.finish() == whole);
    let logs = files(&sweep.out().join("logs"));
    // The one that was called and its two workers.
    assert_eq!(logs.len(), 3);
    let worked = logs
        .iter()
        .filter(|path| fs::read_to_string(path).unwrap().contains(": written"));
    assert!(worked.count() >= 1);
}

#[test]
fn an_end_that_is_asked_for_is_clean() {
    let (whole, _) = undisturbed();
    for devices in ["device = \"cpu\"", "devices = [\"cpu\", \"cpu\"]"] {
        let sweep = Sweep::new();
        let text = fs::read_to_string(&sweep.file).unwrap();
        fs::write(&sweep.file, text.replace("device = \"cpu\"", devices)).unwrap();
        let mut child = sweep.start(&[]);
        assert!(wait(&mut child, || sweep.n_parts() >= 3));
        signal(&child, "-INT");
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("error: interrupted: "), "{stderr}");
        assert!(
            stderr.contains(" remain") && stderr.contains("hint: the same command"),
            "{stderr}"
        );
        sweep.nothing_is_left();
        let status = succeed(sweep.folder.path(), &["status", "out"]).stdout;
        assert!(status.contains("no worker is alive"), "{status}");
        assert!(sweep.finish() == whole);
        let status = succeed(sweep.folder.path(), &["status", "out"]).stdout;
        assert!(status.contains("all parts are finished"), "{status}");
        assert!(status.contains("38,400 of 38,400 verdicts"), "{status}");
    }
}

#[test]
fn status_tells_the_living_from_the_dead() {
    let sweep = Sweep::new();
    let none = pipeline(sweep.folder.path(), &["status", "out"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("no run has begun"), "{}", none.stderr);
    let mut child = sweep.start(&[]);
    assert!(wait(&mut child, || sweep.n_parts() >= 3));
    signal(&child, "-STOP");
    let status = succeed(sweep.folder.path(), &["status", "out"]).stdout;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(status.contains("alive: "), "{status}");
    assert!(
        status.contains("mini                            600       64"),
        "{status}"
    );
    let status = succeed(sweep.folder.path(), &["status", "out"]).stdout;
    assert!(
        status.contains("dead: ") && status.contains("no worker is alive"),
        "{status}"
    );
}

#[test]
fn a_damaged_part_is_refused_by_name() {
    let sweep = Sweep::new();
    let whole = sweep.finish();
    let part = sweep
        .out()
        .join("verdicts/model=mini/checkpoint=2400/part-standard-00007.parquet");
    let bytes = fs::read(&part).unwrap();
    fs::write(&part, &bytes[..bytes.len() / 2]).unwrap();
    let refused = sweep.run(&[]);
    assert_eq!(refused.code, 1);
    for text in [
        "part-standard-00007.parquet` is damaged",
        "hint: remove this part",
    ] {
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
    fs::remove_file(&part).unwrap();
    assert!(sweep.finish() == whole);
}

#[test]
fn a_flipped_bit_is_never_taken_for_a_number() {
    let sweep = Sweep::of(&RunFile {
        steps: 150,
        numbers: vec![150],
        part_size: 400,
        ..RunFile::default()
    });
    let whole = sweep.finish();
    let part = "verdicts/model=mini/checkpoint=150/part-standard-00001.parquet";
    let join = &["run", sweep.file.to_str().unwrap(), "--only", "join"];
    let cases: [(&str, &[&str], &str); 3] = [
        (part, join, "hint: remove this part"),
        ("positions.parquet", join, "hint: run the stage `plan`"),
        ("memorization.parquet", &["analyse", "out"], "--only join"),
    ];
    for (table, call, hint) in cases {
        let path = sweep.out().join(table);
        for flipped in with_a_bit_flipped(&whole[Path::new(table)], 30) {
            fs::write(&path, flipped).unwrap();
            let outcome = pipeline(sweep.folder.path(), call);
            if outcome.code == 1 {
                assert!(outcome.stderr.contains(hint), "{}", outcome.stderr);
                continue;
            }
            // A table that does not say any more that it is ours; its numbers are as they were.
            assert!(table != part, "{}", outcome.stderr);
            let mut left = tables(&sweep.out());
            left.insert(table.into(), whole[Path::new(table)].clone());
            assert!(left == whole, "{table}: {}", outcome.stderr);
        }
        fs::write(&path, &whole[Path::new(table)]).unwrap();
    }
    assert!(tables(&sweep.out()) == whole);
    // Damaged positions are simply made anew where they are planned.
    let positions = sweep.out().join("positions.parquet");
    let mut flipped = with_a_bit_flipped(&whole[Path::new("positions.parquet")], 3);
    fs::write(&positions, flipped.nth(1).unwrap()).unwrap();
    assert!(sweep.finish() == whole);
}

#[test]
fn an_input_that_changes_is_refused() {
    let data = tempfile::tempdir().unwrap();
    for ending in ["idx", "bin"] {
        let name = format!("document.{ending}");
        fs::copy(mini().join("standard").join(&name), data.path().join(&name)).unwrap();
    }
    let sweep = Sweep::of(&RunFile {
        data: data.path().join("document"),
        part_size: 300,
        ..RunFile::default()
    });
    let whole = sweep.finish();
    let record = sweep.folder.path().join("record.json");
    fs::copy(sweep.out().join("run.json"), &record).unwrap();
    fs::remove_file(
        sweep
            .out()
            .join("verdicts/model=mini/checkpoint=600/part-standard-00000.parquet"),
    )
    .unwrap();
    let bin = data.path().join("document.bin");
    let mut bytes = fs::read(&bin).unwrap();
    bytes[1000] ^= 1;
    fs::write(&bin, &bytes).unwrap();
    for flags in [&[][..], &["--only", "probe"], &["--only", "join"]] {
        let refused = sweep.run(flags);
        assert_eq!(refused.code, 1);
        for text in ["made by another run", "`--fresh`"] {
            assert!(refused.stderr.contains(text), "{}", refused.stderr);
        }
    }
    let again = ["run", record.to_str().unwrap(), "--out", "again"];
    let refused = pipeline(sweep.folder.path(), &again);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("document.bin` has changed since"),
        "{}",
        refused.stderr
    );
    bytes[1000] ^= 1;
    fs::write(&bin, &bytes).unwrap();
    assert!(sweep.finish() == whole);
}

#[test]
fn a_run_is_done_again_from_its_record_alone() {
    let sweep = Sweep::new();
    let whole = sweep.finish();
    fs::remove_file(&sweep.file).unwrap();
    let record = sweep.out().join("run.json");
    let elsewhere = tempfile::tempdir().unwrap();
    let call = ["run", record.to_str().unwrap(), "--out", "again"];
    succeed(elsewhere.path(), &call);
    assert!(tables(&elsewhere.path().join("again")) == whole);
    // The record of a record is as good.
    let record = elsewhere.path().join("again/run.json");
    succeed(
        elsewhere.path(),
        &["run", record.to_str().unwrap(), "--out", "thrice"],
    );
    assert!(tables(&elsewhere.path().join("thrice")) == whole);
}

#[test]
fn a_full_disk_fails_clearly_and_is_gone_on_from() {
    let (whole, _) = undisturbed();
    // In pages, as that file system counts: what the plan writes, and half of the parts.
    let pages = |folder: &str| -> usize {
        let files = whole.iter().filter(|(path, _)| path.starts_with(folder));
        files.map(|(_, bytes)| bytes.len().div_ceil(4096)).sum()
    };
    let plan = pages("positions.parquet") + pages("exposures_by_step.parquet");
    let small = format!("size={}k", 4 * (plan + pages("verdicts") / 2));
    for flags in [&[][..], &["--keep-going"]] {
        let sweep = Sweep::new();
        let out = sweep.out();
        fs::create_dir(&out).unwrap();
        let mount = |options: &str| {
            let arguments = ["-t", "tmpfs", "-o", options, "tmpfs", out.to_str().unwrap()];
            let mounted = Command::new("mount")
                .args(arguments)
                .stderr(Stdio::null())
                .status();
            mounted.is_ok_and(|status| status.success())
        };
        if !mount(&small) {
            println!("skipped: this user may not mount a file system");
            return;
        }
        let full = sweep.run(flags);
        let n_parts = sweep.n_parts();
        let whole_again = mount("remount,size=64m").then(|| {
            let outcome = sweep.run(&[]);
            (outcome.code, tables(&out))
        });
        assert!(Command::new("umount").arg(&out).status().unwrap().success());
        assert_eq!(full.code, 1, "{}", full.stderr);
        assert!(
            full.stderr.contains("No space left on device"),
            "{}",
            full.stderr
        );
        assert!((1..N_PARTS).contains(&n_parts), "{n_parts}");
        let summary = if flags.is_empty() {
            "are finished and kept"
        } else {
            "128 parts failed"
        };
        assert!(full.stderr.contains(summary), "{}", full.stderr);
        assert!(whole_again == Some((0, whole.clone())));
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Equal weights under two names would be refused.
    for (step, source) in [
        ("step10", "step1200"),
        ("step20", "step1800"),
        ("step40", "step2400"),
    ] {
        let source = mini().join("standard/model").join(source);
        fs::create_dir(folder.path().join(step)).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(source.join(name), folder.path().join(step).join(name)).unwrap();
        }
    }
    let weights = folder.path().join("step20/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let sweep = Sweep::of(&RunFile {
        judge: "gpt-neox",
        steps: 40,
        checkpoints: folder.path().to_owned(),
        numbers: vec![10, 20, 40],
        part_size: 100,
        ..RunFile::default()
    });
    let refused = sweep.run(&[]);
    assert_eq!(refused.code, 1);
    assert_eq!(sweep.n_parts(), 0);
    let failed = sweep.run(&["--keep-going"]);
    assert_eq!(failed.code, 1);
    for text in [
        "4 of 12 parts failed, 8 are finished:",
        "the model `mini` at checkpoint 20",
        "hint: mend the causes",
    ] {
        assert!(
            failed.stderr.contains(text),
            "no `{text}` in\n{}",
            failed.stderr
        );
    }
    assert_eq!(sweep.n_parts(), 8);
    fs::write(&weights, bytes).unwrap();
    sweep.finish();
    assert_eq!(manifest(&sweep.out())["verdicts_resumed"], 2 * 320);
}
