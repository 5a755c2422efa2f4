//! What the documents say is so, and every file is in order.

use crate::program::{root, succeed};
use std::fs;
use std::path::{Path, PathBuf};

/// Every file below `folder` with this ending, outside hidden and built folders.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "out" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    found
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_source_file_says_what_it_is() {
    let sources = [root().join("crates"), root().join("tests")];
    let sources: Vec<PathBuf> = sources
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect();
    assert!(sources.len() > 30);
    for path in sources {
        assert!(
            read(&path).starts_with("//! "),
            "{} has no first sentence",
            path.display()
        );
    }
}

#[test]
fn the_documents_hold_the_tables_of_the_program() {
    let schema = succeed(&root(), &["schema"]).stdout;
    let documented = read("TABLES.md");
    for table in schema.split("\n\n### ") {
        let table = table.trim_start_matches("### ").trim_end();
        assert!(
            documented.contains(table),
            "TABLES.md lacks, as `pipeline schema` prints it:\n{table}"
        );
    }
}

#[test]
fn every_key_of_a_run_file_is_documented() {
    let keys = succeed(&root(), &["schema", "--run-file"]).stdout;
    assert!(
        read("pipelines/README.md").contains(&keys),
        "pipelines/README.md lacks:\n{keys}"
    );
}

#[test]
fn every_run_file_passes_check() {
    for path in files(&root().join("pipelines"), "toml") {
        let outcome = succeed(&root(), &["check", path.to_str().unwrap()]);
        assert!(
            outcome.stdout.contains("nothing wrong"),
            "{}",
            outcome.stdout
        );
    }
}

#[test]
fn every_link_resolves() {
    for path in files(&root(), "md") {
        let text = read(&path);
        for (_, rest) in text
            .match_indices("](")
            .map(|(place, _)| text.split_at(place + 2))
        {
            let target = rest.split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if target.contains("://") || file.is_empty() {
                continue;
            }
            assert!(
                path.with_file_name(file).exists(),
                "{}: {target}",
                path.display()
            );
        }
    }
}

#[test]
fn only_the_pipeline_knows_tables_and_terminals() {
    for crate_name in ["training-order", "gpt-neox"] {
        let manifest = read(format!("crates/{crate_name}/Cargo.toml"));
        for dependency in ["polars", "arrow", "parquet", "indicatif", "clap", "anyhow"] {
            assert!(
                !manifest.contains(dependency),
                "{crate_name} names {dependency}"
            );
        }
        for path in files(&root().join("crates").join(crate_name).join("src"), "rs") {
            let picks = read(&path).contains("Device::default");
            assert!(!picks, "{} picks a device by itself", path.display());
        }
    }
    for path in files(&root().join("crates/pipeline/src"), "rs") {
        assert!(
            !read(&path).contains("burn::"),
            "{} names burn",
            path.display()
        );
    }
}
