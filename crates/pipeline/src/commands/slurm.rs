//! `pipeline slurm`: a run as Slurm jobs.

use crate::cli::SlurmOptions;
use crate::config::{Overrides, Run};
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::path::Path;

const SCRIPT: &str = include_str!("slurm/sweep.sh");
const CONTAINER: &str = include_str!("slurm/pipeline.def");

/// Writes the script, the container's description and the folder of the logs; their paths to stdout.
///
/// # Errors
///
/// When the run file cannot be run, or the files cannot be written.
pub(crate) fn slurm(file: &Path, options: &SlurmOptions) -> Result<()> {
    let overrides = Overrides {
        out: options.out.clone(),
        ..Overrides::default()
    };
    let run = Run::load(file, &overrides)?;
    let folder = match &options.folder {
        Some(folder) => std::path::absolute(folder)?,
        None => run.out.join("slurm"),
    };
    let file = std::path::absolute(file)?;
    let (script, container) = (folder.join("sweep.sh"), folder.join("pipeline.def"));
    let logs = folder.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("creating `{}`", logs.display()))?;
    let values = [
        ("@N@", options.shards.to_string()),
        ("@NAME@", run.suite.clone()),
        ("@FOLDER@", quoted(&folder)),
        ("@SCRIPT@", quoted(&script)),
        // Slurm reads these lines itself, and knows quotes.
        ("@LOGS@", quoted(&logs)),
        ("@FILE@", quoted(&file)),
        ("@OUT@", quoted(&run.out)),
        ("@PIPELINE@", quoted(&std::env::current_exe()?)),
    ];
    for (path, template) in [(&script, SCRIPT), (&container, CONTAINER)] {
        let text = values
            .iter()
            .fold(template.to_owned(), |text, (key, value)| {
                text.replace(key, value)
            });
        fs::write(path, text).with_context(|| format!("writing `{}`", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", script.display())?;
    writeln!(out, "{}", container.display())?;
    writeln!(out)?;
    writeln!(
        out,
        "look over its head for what your cluster asks for, then: bash {}",
        quoted(&script)
    )?;
    Ok(())
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '+');
    if text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.toml")), "/a/b-1.toml");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
