//! What strangers write, or leave lying about: nothing of it is run, obeyed, or taken for what it is not.

use crate::program::{RunFile, manifest, mini, pipeline, succeed, table, u32s};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A run file of a few sequences, with one change to its text.
fn small(folder: &Path, from: &str, to: &str) -> String {
    let file = RunFile {
        steps: 40,
        numbers: vec![40],
        ..RunFile::default()
    };
    let path = file.write(folder);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs a script with a `sbatch` that says what it is given; its words, one a line.
fn submit(folder: &Path, script: &Path) -> String {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let sbatch = bin.join("sbatch");
    let said = folder.join("said");
    fs::write(
        &sbatch,
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >> \"$SAID\"\necho 7\n",
    )
    .unwrap();
    fs::set_permissions(&sbatch, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let status = Command::new("bash")
        .arg(script)
        .current_dir(folder)
        .env("PATH", path)
        .env("SAID", &said)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    fs::read_to_string(said).unwrap()
}

#[test]
fn no_path_is_run_by_the_script_of_a_sweep() {
    let folder = tempfile::tempdir().unwrap();
    // Each is a name that a folder can have.
    for name in [
        "o $(touch PWNED) `touch PWNED`",
        "@FILE@ @OUT@",
        "it's; touch PWNED;\"#",
        "100 %j & * ?",
        "-n",
    ] {
        let at = folder.path().join(name);
        fs::create_dir_all(&at).unwrap();
        let file = small(&at, "out = \"out\"", "out = \"out put\"");
        succeed(folder.path(), &["slurm", &file, "--shards", "2"]);
        let slurm = at.join("out put/slurm");
        let said = submit(&at, &slurm.join("sweep.sh"));
        assert!(
            !at.join("PWNED").exists() && !folder.path().join("PWNED").exists(),
            "{name}"
        );
        let script = slurm.join("sweep.sh").display().to_string();
        assert!(said.lines().any(|word| word == script), "{name}: {said}");
        let log = slurm.join("logs").display().to_string().replace('%', "%%");
        let log = format!("--output={log}/%x-%A-%a.log");
        assert!(said.lines().any(|word| word == log), "{name}: {said}");
    }
    for out in ["o\\n$(touch PWNED)", "o\\u001b[31m", "o\\rx"] {
        let file = small(folder.path(), "out = \"out\"", &format!("out = \"{out}\""));
        let refused = pipeline(folder.path(), &["slurm", &file, "--shards", "2"]);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(
            refused.stderr.contains("cannot stand in a script"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn no_name_steers_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(
        folder.path(),
        "data = '",
        "tokenizer = \"\\u001b]0;title\\u0007\\u202ex\"\ndata = '",
    );
    let refused = pipeline(folder.path(), &["check", &file]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("\\u{1b}]0;title\\u{7}\\u{202e}x"),
        "{}",
        refused.stderr
    );
    let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!refused.stderr.contains(steers), "{:?}", refused.stderr);
}

#[test]
fn a_task_number_of_slurm_that_overflows_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), "k = 32", "k = 32");
    let output = Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(["run", &file, "--shard"])
        .env("SLURM_ARRAY_TASK_MIN", "0")
        .env("SLURM_ARRAY_TASK_MAX", u64::MAX.to_string())
        .env("SLURM_ARRAY_TASK_ID", "3")
        .env("SLURM_ARRAY_TASK_COUNT", "4")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("with gaps there is no telling"), "{stderr}");
}

#[test]
fn numbers_that_no_run_can_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, texts) in [
        (
            "part-size",
            "near-tie = nan\npart-size",
            "probe.near-tie: NaN is not in",
        ),
        (
            "part-size",
            "near-tie = inf\npart-size",
            "probe.near-tie: inf is not in",
        ),
        ("[probe]", "[trend]\nmargins = [nan]\n[probe]", "margins"),
        (
            "[probe]",
            "[trend]\nexposures = [4294967295]\n[probe]",
            "exposures",
        ),
        (
            "[40]",
            "[\"step40\"]",
            "write the number of steps alone, 40",
        ),
        ("[40]", "\"0..=2147483647\"", "lies after the last step"),
        (
            "checkpoints = [40]",
            "checkpoints = [40]\nassumed-rate = nan",
            "assumed-rate",
        ),
    ] {
        let file = small(folder.path(), from, to);
        let refused = pipeline(folder.path(), &["check", &file]);
        assert_eq!(refused.code, 2, "{to}: {}", refused.stderr);
        assert!(refused.stderr.contains(texts), "{to}: {}", refused.stderr);
    }
    let file = small(folder.path(), "steps = 40", "steps = 2147483647");
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("batch-size = 8", "batch-size = 1");
    fs::write(&file, text.replace("[40]", "\"0..=2147483647\"")).unwrap();
    let refused = pipeline(folder.path(), &["check", &file]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("checkpoints are more than 100000"),
        "{}",
        refused.stderr
    );
}

#[test]
fn corpora_whose_parts_would_share_a_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), "k = 32", "k = 32");
    let text = fs::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once("[[corpus]]").unwrap();
    let (corpus, model) = rest.split_once("[[model]]").unwrap();
    let contrast = "[corpus.contrast]\nmodels = [\"mini\", \"other\"]\ncheckpoints = [40]\n";
    let text = format!(
        "{head}[[corpus]]{corpus}{contrast}[[corpus]]{}[[model]]{model}[[model]]{}",
        corpus.replace("\"standard\"", "\"standard-contrast\""),
        model
            .replace("\"mini\"", "\"other\"")
            .replace("\"standard\"", "\"standard-contrast\"")
    );
    fs::write(&file, text).unwrap();
    for command in ["check", "run"] {
        let refused = pipeline(folder.path(), &[command, &file]);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(
            refused.stderr.contains("rename one of the two"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn one_checkpoint_under_two_names_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        let to = folder.path().join(to);
        fs::create_dir_all(&to).unwrap();
        for name in ["config.json", "model.safetensors"] {
            fs::copy(mini().join(from).join(name), to.join(name)).unwrap();
        }
    };
    let two = |step: &str| {
        let text = small(folder.path(), "scripted", "gpt-neox");
        let text = fs::read_to_string(text).unwrap();
        let (head, model) = text.split_once("[[model]]").unwrap();
        let model = |name: &str| {
            let lines = model.lines().map(|line| {
                if line.starts_with("folder") {
                    format!(
                        "folder = '{}/{name}{{checkpoint}}'",
                        folder.path().display()
                    )
                } else {
                    line.replace("\"mini\"", &format!("\"{name}\""))
                        .replace("[40]", step)
                }
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let path = folder.path().join("two.toml");
        let text = format!("{head}[[model]]{}\n[[model]]{}\n", model("a"), model("b"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for name in ["a40", "b40", "a0", "b0"] {
        copy("standard/model/step600", name);
    }
    let file = two("[40]");
    for command in ["check", "run"] {
        let refused = pipeline(folder.path(), &[command, &file]);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        let text = "the models `a` at checkpoint 40 and `b` at checkpoint 40 have the same weights";
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
    let audited = pipeline(folder.path(), &["audit", &file]);
    assert_eq!(audited.code, 1, "{}", audited.stderr);
    let text = "wrong: b: checkpoint 40 has the weights of `a` at checkpoint 40";
    assert!(audited.stdout.contains(text), "{}", audited.stdout);
    // Models that were begun alike may have their first weights in common.
    let begun = succeed(folder.path(), &["check", &two("[0]")]);
    assert!(
        begun.stderr.contains("they were begun alike"),
        "{}",
        begun.stderr
    );
}

/// Positions of another program are taken where they are right, and held to the corpus where they are not.
#[test]
fn positions_of_another_program_are_held_to_the_corpus() {
    use polars::prelude::*;
    use polars_io::parquet::write::ParquetWriter;
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), "k = 32", "k = 32");
    succeed(folder.path(), &["run", &file, "--only", "plan"]);
    let out = folder.path().join("out");
    let path = out.join("positions.parquet");
    let ours = table(&out, "positions.parquet");
    let write = |frame: &DataFrame| {
        let mut frame = frame.clone();
        ParquetWriter::new(fs::File::create(&path).unwrap())
            .finish(&mut frame)
            .unwrap();
    };
    let wrong: [(&str, DataFrame); 4] = [
        ("`step` is not what the corpus says", {
            let steps: Vec<u32> = u32s(&ours, "step").into_iter().rev().collect();
            ours.clone()
                .with_column(Column::new("step".into(), steps))
                .unwrap()
                .clone()
        }),
        ("`sample` is not what the corpus says", {
            let samples: Vec<u32> = u32s(&ours, "sample")
                .iter()
                .map(|sample| sample + 1)
                .collect();
            ours.clone()
                .with_column(Column::new("sample".into(), samples))
                .unwrap()
                .clone()
        }),
        ("`trained` is not what the corpus says", {
            let trained = vec![false; ours.height()];
            ours.clone()
                .with_column(Column::new("trained".into(), trained))
                .unwrap()
                .clone()
        }),
        ("`exposures_before` is not what the corpus says", {
            let mut frame = ours.clone();
            for name in ours.get_column_names_owned().into_iter().skip(7) {
                frame
                    .with_column(Column::new(name, vec![99_u32; ours.height()]))
                    .unwrap();
            }
            frame
        }),
    ];
    for (text, frame) in wrong {
        write(&frame);
        for stage in ["probe", "join"] {
            let refused = pipeline(folder.path(), &["run", &file, "--only", stage]);
            assert_eq!(refused.code, 1, "{text}: {}", refused.stderr);
            for text in [
                "positions.parquet`, row 0 from 0",
                text,
                "hint: another program",
            ] {
                assert!(refused.stderr.contains(text), "{text}: {}", refused.stderr);
            }
        }
    }
    write(&ours);
    for stage in ["probe", "join", "analyse"] {
        succeed(folder.path(), &["run", &file, "--only", stage]);
    }
    assert_eq!(manifest(&out)["status"], "finished");
    // A stage that would write them anew does not: they are not its own.
    let refused = pipeline(folder.path(), &["run", &file]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("was not written by this program"),
        "{}",
        refused.stderr
    );
}
