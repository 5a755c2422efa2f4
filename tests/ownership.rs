//! What is not the program's stays as it is, byte for byte, and the error says why and what to do.

mod finished;
mod project;

use crate::program::mini;
use project::{Cases, Project, small};
use std::fs;

#[test]
fn a_foreign_folder_is_refused() {
    let mut cases = Cases::default();
    let foreign = [
        "memorization/precious.txt",
        "memorization/model=mini/checkpoint=40/part-standard.parquet",
        "verdicts/precious.txt",
        "logs/precious.log",
        "trend.parquet",
        "run.json",
        "notes.txt",
    ];
    for out in [".", "work"] {
        for file in foreign {
            for layout in ["file", "dataset"] {
                for flags in [&[][..], &["--fresh"]] {
                    let project = Project::new();
                    let mut run_file = small();
                    run_file.layout = layout;
                    project.write(&run_file, |text| {
                        text.replace("out = \"out\"", &format!("out = \"{out}\""))
                    });
                    project.foreign(&format!("{out}/{file}"));
                    let call = [&["run", "run.toml"], flags].concat();
                    let name = format!("{out}/{file}, {layout}, {flags:?}");
                    let path = project.path(out.trim_start_matches('.'));
                    let path = path.to_str().unwrap().trim_end_matches('/');
                    cases.refused(&name, &project, &call, &[path], None);
                }
            }
        }
    }
    let calls: [&[&str]; 4] = [
        &["plan", "run.toml"],
        &["run", "run.toml", "--only", "plan"],
        &["run", "run.toml", "--shard", "0/2"],
        &["run", "run.toml", "--only", "join"],
    ];
    for call in calls {
        let project = Project::new();
        project.write(&small(), |text| text);
        project.foreign("out/notes.txt");
        let name = format!("{call:?} into a foreign folder");
        cases.refused(&name, &project, call, &["out"], None);
    }
    cases.close();
}

#[test]
fn an_empty_folder_is_taken() {
    let mut cases = Cases::default();
    for folder in ["out", "out/lost+found"] {
        let project = Project::new();
        project.write(&small(), |text| text);
        fs::create_dir_all(project.path(folder)).unwrap();
        cases.kept(folder, &project, &["run", "run.toml"], &["run.toml"], true);
    }
    let project = Project::new();
    project.write(&small(), |text| text);
    project.succeed(&["slurm", "run.toml", "--shards", "2"]);
    let keeps = ["run.toml", "out/slurm"];
    cases.kept("slurm before", &project, &["run", "run.toml"], &keeps, true);
    // Results often lie elsewhere, behind a link.
    let project = Project::new();
    project.write(&small(), |text| text);
    fs::create_dir(project.path("scratch")).unwrap();
    project.link("scratch", "out");
    for time in ["at first", "again"] {
        let name = format!("through a link, {time}");
        let keeps = ["run.toml"];
        cases.kept(&name, &project, &["run", "run.toml"], &keeps, true);
        assert!(project.path("out").is_symlink());
        assert!(project.path("scratch/run.json").exists());
    }
    cases.close();
}

#[test]
fn an_input_that_lies_where_an_output_goes_is_refused() {
    let mut cases = Cases::default();
    // A finished run, whose tables serve as inputs.
    let other = Project::new();
    other.write(&small(), |text| text);
    other.succeed(&["run", "run.toml"]);
    let table = other.path("out/memorization.parquet");
    let run = ["run", "run.toml"];
    for is_finished in [false, true] {
        for flags in [&[][..], &["--fresh"]] {
            let call = [&run, flags].concat();
            let mut run_file = small();
            run_file.layout = "dataset";
            let project = || {
                let project = Project::new();
                if is_finished {
                    project.write(&run_file, |text| text);
                    project.succeed(&run);
                }
                project
            };
            let ours = is_finished.then_some("out");
            let name = |what: &str| format!("{what}, finished: {is_finished}, {flags:?}");

            let corpus = project();
            for ending in ["idx", "bin"] {
                let from = mini().join(format!("standard/document.{ending}"));
                corpus.copy(&from, &format!("out/memorization/document.{ending}"));
            }
            let inside = corpus.path("out/memorization/document");
            corpus.write(&run_file, |text| {
                let outside = mini().join("standard/document");
                text.replace(outside.to_str().unwrap(), inside.to_str().unwrap())
            });
            let texts = ["out/memorization"];
            cases.refused(&name("a corpus"), &corpus, &call, &texts, ours);

            let model = project();
            for step in ["step40", "step80"] {
                let from = if step == "step40" {
                    "step1800"
                } else {
                    "step2400"
                };
                for file in ["config.json", "model.safetensors"] {
                    let from = mini().join("standard/model").join(from).join(file);
                    model.copy(&from, &format!("out/memorization/{step}/{file}"));
                }
            }
            let mut asked = run_file.clone();
            asked.judge = "gpt-neox";
            asked.checkpoints = model.path("out/memorization");
            model.write(&asked, |text| text);
            cases.refused(&name("checkpoints"), &model, &call, &texts, ours);

            for (place, link) in [
                ("out/memorization/list.csv", None),
                ("out/verdicts/list.csv", Some("list.csv")),
            ] {
                let list = project();
                fs::create_dir_all(list.path(place).parent().unwrap()).unwrap();
                fs::write(list.path(place), "training_index\n3\n8\n").unwrap();
                if let Some(link) = link {
                    list.link(place, link);
                }
                let named = link.unwrap_or(place);
                list.write(&run_file, |text| {
                    let list = format!("[corpus.list]\nfile = '{named}'\n\n[[model]]");
                    text.replace("[[model]]", &list)
                });
                cases.refused(&name(place), &list, &call, &["list.csv"], ours);
            }

            for place in [
                "out/memorization/v.parquet",
                "out/verdicts/v.parquet",
                "out/trend.parquet",
                "out/memorization.parquet",
            ] {
                let verdicts = project();
                verdicts.copy(&table, place);
                verdicts.write(&run_file, |text| {
                    let model = mini().join("standard/model/step{checkpoint}");
                    let folder = format!("folder = '{}'", model.display());
                    assert!(text.contains(&folder));
                    text.replace(&folder, &format!("verdicts = '{place}'"))
                });
                let file = place.rsplit('/').next().unwrap();
                cases.refused(&name(place), &verdicts, &call, &[file], ours);
            }
        }
    }
    cases.close();
}

#[test]
fn the_plan_of_a_run_is_no_list_of_its_next_one() {
    let mut cases = Cases::default();
    let run = ["run", "run.toml"];
    let project = Project::new();
    project.write(&small(), |text| text);
    project.succeed(&run);
    project.write(&small(), |text| {
        let list = "[corpus.list]\nfile = 'out/positions.parquet'\n\n[[model]]";
        text.replace("[[model]]", list)
    });
    for call in [
        &run[..],
        &["run", "run.toml", "--fresh"],
        &["plan", "run.toml"],
    ] {
        let name = format!("{call:?} with its positions as its list");
        let texts = ["positions.parquet"];
        cases.refused(&name, &project, call, &texts, Some("out"));
    }
    cases.close();
}

#[test]
fn what_a_link_leads_to_stays() {
    let mut cases = Cases::default();
    let run = ["run", "run.toml"];
    for flags in [&[][..], &["--fresh"]] {
        let call = [&run, flags].concat();
        let project = Project::new();
        project.write(&small(), |text| text);
        project.foreign("precious/notes.txt");
        project.link("precious", "out");
        let name = format!("out is a link, {flags:?}");
        cases.refused(&name, &project, &call, &["out"], None);

        for (inside, is_folder) in [
            ("memorization", true),
            ("verdicts", true),
            ("trend.parquet", false),
            ("positions.parquet", false),
        ] {
            let project = Project::new();
            let mut run_file = small();
            run_file.layout = "dataset";
            project.write(&run_file, |text| text);
            project.succeed(&run);
            let path = project.path(&format!("out/{inside}"));
            if is_folder {
                fs::remove_dir_all(&path).unwrap();
                project.foreign("precious/notes.txt");
            } else {
                fs::remove_file(&path).unwrap();
                project.foreign("precious");
            }
            project.link("precious", &format!("out/{inside}"));
            let keeps = ["precious", &format!("out/{inside}")];
            let name = format!("out/{inside} is a link, {flags:?}");
            cases.kept(&name, &project, &call, &keeps, false);
        }
    }
    cases.close();
}

#[test]
fn a_folder_inside_another_runs_is_refused() {
    let mut cases = Cases::default();
    for flags in [&[][..], &["--fresh"]] {
        let call = [&["run", "run.toml"], flags].concat();
        let project = Project::new();
        project.write(&small(), |text| text);
        project.succeed(&["run", "run.toml", "--out", "work/first"]);
        for out in [
            "work/first/second",
            "work/first/verdicts",
            "work/first/logs/x",
            "work",
        ] {
            let call = [&call, &["--out", out][..]].concat();
            let name = format!("{out} beside work/first, {flags:?}");
            cases.refused(&name, &project, &call, &[out], Some("work/first"));
        }
        // One that was moved there.
        project.succeed(&["run", "run.toml"]);
        fs::rename(project.path("work/first"), project.path("out/inner")).unwrap();
        fs::create_dir_all(project.path("out/logs")).unwrap();
        let name = format!("a run in the folder of another, {flags:?}");
        cases.kept(&name, &project, &call, &["out/inner"], false);
    }
    cases.close();
}

#[test]
fn single_files_of_others_are_not_written_over() {
    let mut cases = Cases::default();
    let project = Project::new();
    project.write(&small(), |text| text);
    project.succeed(&["run", "run.toml"]);
    for file in ["x.parquet", "x.npy", "far/notes.txt", "near/trend.parquet"] {
        project.foreign(file);
    }
    project.link("x.parquet", "link.parquet");
    fs::create_dir(project.path("folder.parquet")).unwrap();
    let plan = ["plan", "run.toml", "--export-tokens"];
    let save = ["inspect", "batch", "0", "--file", "run.toml", "--save"];
    let analyse = ["analyse", "out", "--out"];
    let calls: [(&[&str], &[&str]); 4] = [
        (
            &plan,
            &[
                "x.parquet",
                "link.parquet",
                "folder.parquet",
                "out/positions.parquet",
                "out/memorization.parquet",
                "run.toml",
            ],
        ),
        (
            &save,
            &[
                "x.parquet",
                "x.npy",
                "link.parquet",
                "folder.parquet",
                "out/positions.parquet",
            ],
        ),
        (&analyse, &["far", "near", "x.npy"]),
        (&["run", "run.toml", "--out"], &["x.npy", "far", "near"]),
    ];
    for (call, targets) in calls {
        for target in targets {
            let call = [call, &[target]].concat();
            let name = format!("{call:?}");
            cases.refused(&name, &project, &call, &[target], Some("out"));
        }
    }
    // An input of the run.
    fs::copy(
        project.path("out/positions.parquet"),
        project.path("list.parquet"),
    )
    .unwrap();
    project.write(&small(), |text| {
        let list = "out = \"listed\"";
        let text = text.replace("out = \"out\"", list);
        text.replace(
            "[[model]]",
            "[corpus.list]\nfile = 'list.parquet'\n\n[[model]]",
        )
    });
    let calls: [&[&str]; 2] = [&plan, &save];
    for call in calls {
        let call = [call, &["list.parquet"]].concat();
        let name = format!("{call:?}, the run's list");
        cases.refused(&name, &project, &call, &["list.parquet"], None);
    }
    project.write(&small(), |text| text);
    // What the program wrote, it writes again.
    for _ in 0..2 {
        let call = [&plan[..], &["own.parquet"]].concat();
        cases.kept("its own export", &project, &call, &["x.parquet"], true);
        let call = [&save[..], &["own-batch.parquet"]].concat();
        cases.kept("its own batch", &project, &call, &["x.parquet"], true);
    }
    cases.close();
}

#[test]
fn a_script_that_was_edited_stays() {
    let mut cases = Cases::default();
    let project = Project::new();
    project.write(&small(), |text| text);
    let call = ["slurm", "run.toml", "--shards", "2", "--folder", "jobs"];
    project.foreign("jobs/sweep.sh");
    cases.refused("a foreign script", &project, &call, &["sweep.sh"], None);
    fs::remove_file(project.path("jobs/sweep.sh")).unwrap();
    project.foreign("precious.sh");
    project.link("precious.sh", "jobs/sweep.sh");
    cases.refused("a link", &project, &call, &["sweep.sh"], None);
    fs::remove_file(project.path("jobs/sweep.sh")).unwrap();
    project.succeed(&call);
    cases.kept("its own script", &project, &call, &["jobs/sweep.sh"], true);
    let script = project.path("jobs/sweep.sh");
    let text = fs::read_to_string(&script).unwrap();
    let edited = text.replacen('\n', "\n#SBATCH --account=me\n", 1);
    assert!(edited != text);
    fs::write(&script, edited).unwrap();
    cases.refused("an edited script", &project, &call, &["sweep.sh"], None);
    cases.close();
}
