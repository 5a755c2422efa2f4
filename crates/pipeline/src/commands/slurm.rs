//! `pipeline slurm`: a run as Slurm jobs.

use crate::cli::SlurmOptions;
use crate::config::{Overrides, Run};
use crate::failure;
use crate::mark::{Mark, marked_script};
use crate::output;
use crate::tables::write_atomically;
use crate::terminal;
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
    let folder = if let Some(folder) = &options.folder {
        std::path::absolute(folder)?
    } else {
        output::admit(&run, false)?;
        run.out.join("slurm")
    };
    let file = std::path::absolute(file)?;
    let (script, container) = (folder.join("sweep.sh"), folder.join("pipeline.def"));
    let logs = folder.join("logs");
    let values = [
        ("@N@", options.shards.to_string()),
        ("@NAME@", run.suite.clone()),
        ("@FOLDER@", quoted(&folder)?),
        ("@SCRIPT@", quoted(&script)?),
        ("@LOGS@", quoted(&logs)?),
        ("@LOG@", shell(&log_pattern(&logs)?)),
        ("@FILE@", quoted(&file)?),
        ("@OUT@", quoted(&run.out)?),
        ("@PIPELINE@", quoted(&std::env::current_exe()?)?),
    ];
    // Neither is written where one of the two cannot be.
    for path in [&script, &container] {
        Mark::Script.check(path)?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("creating `{}`", logs.display()))?;
    for (path, template) in [(&script, SCRIPT), (&container, CONTAINER)] {
        let text = marked_script(&filled(template, &values));
        write_atomically(path, Mark::Script, |file| {
            Ok(file.write_all(text.as_bytes())?)
        })?;
    }
    let mut out = terminal::stdout();
    writeln!(out, "{}", script.display())?;
    writeln!(out, "{}", container.display())?;
    writeln!(out)?;
    writeln!(
        out,
        "look over its head for what your cluster asks for, then: bash {}",
        quoted(&script)?
    )?;
    Ok(())
}

/// A template with values in the places of their keys. What a value holds is not looked at again.
fn filled(template: &str, values: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(place) = rest.find('@') {
        let (before, from) = rest.split_at(place);
        text.push_str(before);
        let found = values.iter().find(|(key, _)| from.starts_with(key));
        let (value, len) = found.map_or(("@", 1), |(key, value)| (value.as_str(), key.len()));
        text.push_str(value);
        rest = &from[len..];
    }
    text.push_str(rest);
    text
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> Result<String> {
    plain(path).map(shell)
}

/// A path that a script can name in comments, too.
fn plain(path: &Path) -> Result<&str> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    text.ok_or_else(|| {
        failure::usage(
            format_args!("the path `{}` cannot stand in a script: it holds a line feed, or another character that is none to be seen", path.display()),
            "rename the folder, or name another one with `--out` and `--folder`",
        )
    })
}

/// Where Slurm writes what a job says: name and number of the job, and number of the task.
fn log_pattern(logs: &Path) -> Result<String> {
    let text = plain(logs)?;
    if text.contains('\\') {
        return Err(failure::usage(
            format_args!(
                "the folder `{text}` cannot hold Slurm's logs: a backslash in it turns patterns off"
            ),
            "name another folder with `--folder`",
        ));
    }
    // Slurm reads a percent sign as the beginning of a pattern.
    Ok(format!("{}/%x-%A-%a.log", text.replace('%', "%%")))
}

/// A text as one word of a shell.
fn shell(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '+');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.toml")).unwrap(), "/a/b-1.toml");
        assert_eq!(quoted(Path::new("/a b/it's")).unwrap(), r"'/a b/it'\''s'");
        assert_eq!(quoted(Path::new("/$(x)`y`!*")).unwrap(), "'/$(x)`y`!*'");
        for path in ["/a\nb", "/a\u{1b}[31m", "/a\r"] {
            assert!(quoted(Path::new(path)).is_err(), "{path:?}");
        }
        let pattern = log_pattern(Path::new("/100 %/logs")).unwrap();
        assert_eq!(pattern, "/100 %%/logs/%x-%A-%a.log");
        assert!(log_pattern(Path::new(r"/a\b")).is_err());
    }

    #[test]
    fn a_value_that_looks_like_a_key_stays_as_it_is() {
        let values = [("@A@", "@B@".to_owned()), ("@B@", "b".to_owned())];
        assert_eq!(filled("x@A@y@B@ @C@ a@b @", &values), "x@B@yb @C@ a@b @");
    }
}
