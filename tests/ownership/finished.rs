//! A run that is finished loses nothing to one that is refused, fails or begins anew.

use super::project::{Cases, Project, small};
use crate::harness::{Node, is_hidden};
use crate::program::{RunFile, mini, tables};
use std::fs;
use std::path::Path;

fn finished(run_file: &RunFile) -> Project {
    let project = Project::new();
    project.write(run_file, |text| text);
    project.succeed(&["run", "run.toml"]);
    project
}

#[test]
fn a_refused_run_changes_nothing() {
    let mut cases = Cases::default();
    let calls: [&[&str]; 6] = [
        &["run", "run.toml"],
        &["run", "run.toml", "--only", "plan"],
        &["run", "run.toml", "--only", "probe"],
        &["run", "run.toml", "--only", "join"],
        &["run", "run.toml", "--shard", "0/2"],
        &["plan", "run.toml"],
    ];
    let others: [(&str, &str, RunFile); 4] = [
        ("k", "probe.k|`k`", RunFile { k: 16, ..small() }),
        ("l", "probe.l|`l`", RunFile { l: 16, ..small() }),
        (
            "seed",
            "seed",
            RunFile {
                seed: 99,
                ..small()
            },
        ),
        (
            "corpus",
            "corpus|standard|document",
            RunFile {
                data: mini().join("deduped/document"),
                ..small()
            },
        ),
    ];
    for layout in ["file", "dataset"] {
        let project = finished(&RunFile { layout, ..small() });
        for (key, text, other) in &others {
            let other = RunFile {
                layout,
                ..other.clone()
            };
            project.write(&other, |text| text);
            for call in calls {
                let name = format!("another {key}, {layout}, {call:?}");
                let texts = ["out", *text];
                cases.refused(&name, &project, call, &texts, Some("out"));
            }
        }
        // A wrong run file, too.
        project.write(&RunFile { l: 0, ..small() }, |text| text);
        for call in calls {
            let name = format!("a wrong run file, {layout}, {call:?}");
            cases.refused(&name, &project, call, &["run.toml"], Some("out"));
        }
    }
    cases.close();
}

/// Spoils a file.
type Damage = fn(&Path);

#[test]
fn a_join_that_fails_leaves_the_old_tables() {
    let mut cases = Cases::default();
    let part = "out/verdicts/model=mini/checkpoint=80/part-standard-00001.parquet";
    let damages: [(&str, Damage); 4] = [
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("cut short", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("flipped", |path| {
            let mut bytes = fs::read(path).unwrap();
            let place = bytes.len() / 3;
            bytes[place] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("foreign", |path| fs::write(path, "no parquet").unwrap()),
    ];
    for layout in ["file", "dataset"] {
        for (what, damage) in damages {
            let run_file = RunFile { layout, ..small() };
            let project = finished(&run_file);
            let file = project.path(part);
            assert!(file.exists());
            damage(&file);
            // Other bins, so that every table would be another one.
            project.write(
                &RunFile {
                    bins: 7,
                    ..run_file
                },
                |text| text,
            );
            let join = ["run", "run.toml", "--only", "join"];
            let name = format!("{layout}, a part is {what}, {join:?}");
            let texts = ["part-standard-00001"];
            cases.refused(&name, &project, &join, &texts, Some("out"));
            if what != "missing" {
                let run = ["run", "run.toml"];
                let name = format!("{layout}, a part is {what}, {run:?}");
                cases.refused(&name, &project, &run, &texts, Some("out"));
            }
        }
    }
    cases.close();
}

#[test]
fn a_run_that_fails_midway_leaves_the_old_tables() {
    let mut cases = Cases::default();
    for layout in ["file", "dataset"] {
        let project = Project::new();
        for (step, from) in [(10, "step1200"), (20, "step1800"), (40, "step2400")] {
            for file in ["config.json", "model.safetensors"] {
                let from = mini().join("standard/model").join(from).join(file);
                project.copy(&from, &format!("model/step{step}/{file}"));
            }
        }
        let run_file = RunFile {
            judge: "gpt-neox",
            steps: 40,
            part_size: 100,
            checkpoints: project.path("model"),
            numbers: vec![10],
            layout,
            ..RunFile::default()
        };
        project.write(&run_file, |text| text);
        project.succeed(&["run", "run.toml"]);
        let before = project.tree();
        let weights = project.path("model/step40/model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        // NaN in the middle of the weights: the header is whole.
        let place = bytes.len() / 2 / 4 * 4;
        bytes[place..place + 400].fill(0xff);
        fs::write(&weights, bytes).unwrap();
        let more = RunFile {
            numbers: vec![10, 20, 40],
            bins: 7,
            ..run_file
        };
        project.write(&more, |text| text);
        for flags in [&[][..], &["--keep-going"]] {
            let call = [&["run", "run.toml"], flags].concat();
            // Parts of the new checkpoints may come, but what was there stays.
            let kept: Vec<&str> = before
                .iter()
                .filter(|(path, node)| matches!(node, Node::File(_)) && path.starts_with("out"))
                .filter(|(path, _)| !path.starts_with("out/logs") && !is_hidden(path))
                .map(|(path, _)| path.to_str().unwrap())
                .collect();
            assert!(kept.len() > 9);
            let name = format!("{layout}, {flags:?}");
            let ended = cases.kept(&name, &project, &call, &kept, false);
            assert_eq!(ended.code, Some(1), "{}", ended.tail());
            assert!(ended.stderr.contains("step40"), "{}", ended.tail());
        }
    }
    cases.close();
}

#[test]
fn fresh_removes_what_is_ours_and_says_so() {
    let mut cases = Cases::default();
    let foreign = [
        "notes.txt",
        "figures/plot.png",
        "verdicts/mine.csv",
        "verdicts/model=mini/checkpoint=40/mine.txt",
        "logs/mine.log",
        "slurm/slurm-12.out",
        "mine.parquet",
    ];
    for layout in ["file", "dataset"] {
        let run_file = RunFile { layout, ..small() };
        let whole = tables(&finished(&run_file).path("out"));
        let project = finished(&RunFile {
            k: 16,
            ..run_file.clone()
        });
        for file in foreign {
            project.foreign(&format!("out/{file}"));
        }
        let kept = foreign.map(|file| format!("out/{file}"));
        let mut kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        kept.push("run.toml");
        project.write(&run_file, |text| text);
        let name = format!("--fresh, {layout}");
        let call = ["run", "run.toml", "--fresh"];
        let ended = cases.kept(&name, &project, &call, &kept, true);
        let mut left = tables(&project.path("out"));
        left.remove(Path::new("mine.parquet"));
        assert!(left == whole, "{name}: {}", ended.tail());
        for said in ["remov", "memorization", "verdicts", "trend.parquet"] {
            assert!(
                ended.stderr.contains(said),
                "{name} does not say `{said}` of what it removes: {}",
                ended.stderr
            );
        }
    }
    // What ours cannot be told from is not removed.
    let project = finished(&small());
    fs::write(project.path("out/run.json"), "{}").unwrap();
    let call = ["run", "run.toml", "--fresh"];
    let name = "--fresh with a foreign run.json";
    cases.refused(name, &project, &call, &["run.json"], Some("out"));
    let project = finished(&small());
    project.foreign("out/trend.parquet");
    let keeps = ["out/trend.parquet"];
    cases.kept("--fresh, a foreign table", &project, &call, &keeps, false);
    cases.close();
}
