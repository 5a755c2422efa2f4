//! Tells the program which git commit it is built from.

use std::path::Path;
use std::process::Command;

fn main() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    // `logs/HEAD` changes with every commit, checkout and reset.
    for path in [".git/HEAD", ".git/logs/HEAD", "crates", "Cargo.lock"] {
        // Cargo takes an absent file for one that changes every time.
        if Path::new(root).join(path).exists() {
            println!("cargo::rerun-if-changed={root}/{path}");
        }
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(root)
            .args(arguments)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    let suffix = if changed { "-dirty" } else { "" };
    println!("cargo::rustc-env=PIPELINE_GIT_COMMIT={commit}{suffix}");
}
