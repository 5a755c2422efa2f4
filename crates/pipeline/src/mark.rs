//! Marks: by what the program knows a file for its own. No file without its mark is replaced or removed.

use crate::failure;
use crate::files;
use crate::tables::is_ours;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// How the log of a process begins, whatever is logged.
pub(crate) const LOG: &str = "log of pipeline ";
/// How a script begins that `slurm` wrote; the checksum of the rest follows, so that a script which a
/// person has changed is told from one that nobody has.
pub(crate) const SCRIPT: &str = "# Written by pipeline slurm, CRC-32 of what follows: ";

/// What a file must be, to be replaced or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A table of this name that this program wrote.
    Table(&'static str),
    /// A `run.json`.
    Record,
    /// The log of a process.
    Log,
    /// A script of `slurm`, as it was written.
    Script,
    /// A file of the hidden folder, which is the program's own.
    Hidden,
    /// Its format has no place for a mark: a file that is there stays.
    Nothing,
}

impl Mark {
    /// Whether the file at `path` carries the mark; nothing where there is no file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(crate) fn is_on(self, path: &Path) -> io::Result<Option<bool>> {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // What a link leads to may be anybody's.
        if !found.is_file() {
            return Ok(Some(false));
        }
        Ok(Some(match self {
            Self::Table(name) => is_ours(path, name)?,
            Self::Record => record_in(&files::read(path, files::TEXT)?).is_some(),
            Self::Log => begins_with(path, LOG)?,
            Self::Script => is_whole_script(&files::read(path, files::TEXT)?),
            Self::Hidden => true,
            Self::Nothing => false,
        }))
    }

    /// Refuses a place where another file lies than one with this mark.
    ///
    /// # Errors
    ///
    /// When one does, or it cannot be read.
    pub(crate) fn check(self, path: &Path) -> Result<()> {
        let found = self.is_on(path);
        let found = found.with_context(|| format!("looking whose `{}` is", path.display()))?;
        if found != Some(false) {
            return Ok(());
        }
        let (what, cure) = match self {
            Self::Script => (
                "was not written by this program, or was changed since",
                "move it away, or name another folder with `--folder`",
            ),
            Self::Nothing => ("is there already", "remove it, or name another file"),
            _ => (
                "was not written by this program",
                "move it away, or name another folder with `--out`",
            ),
        };
        Err(failure::failed(
            format_args!("`{}` {what}: it is not replaced", path.display()),
            cure,
        ))
    }
}

/// The content of a `run.json` that this program wrote.
pub(crate) fn read_record(path: &Path) -> Option<Value> {
    record_in(&files::read(path, files::TEXT).ok()?)
}

fn record_in(text: &[u8]) -> Option<Value> {
    let record: Value = serde_json::from_slice(text).ok()?;
    let has = |key: &str, inside: &str| {
        record
            .get(key)
            .and_then(|table| table.get(inside))
            .is_some()
    };
    (has("program", "git_commit") && has("run_file", "keys") && has("run", "probe"))
        .then_some(record)
}

/// A script behind its mark; `text` begins with the line of its shell.
pub(crate) fn marked_script(text: &str) -> String {
    let (shell, rest) = text.split_once('\n').unwrap_or((text, ""));
    format!(
        "{shell}\n{SCRIPT}{:08x}\n{rest}",
        crc32fast::hash(rest.as_bytes())
    )
}

fn is_whole_script(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let mut lines = text.splitn(3, '\n').skip(1);
    let said = lines.next().and_then(|line| line.strip_prefix(SCRIPT));
    let rest = lines.next().unwrap_or_default();
    said == Some(format!("{:08x}", crc32fast::hash(rest.as_bytes())).as_str())
}

fn begins_with(path: &Path, text: &str) -> io::Result<bool> {
    let mut found = Vec::new();
    let file = files::open(path)?;
    file.take(text.len() as u64).read_to_end(&mut found)?;
    Ok(found == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_was_changed_has_lost_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.sh");
        assert_eq!(Mark::Script.is_on(&path).unwrap(), None);
        let script = marked_script("#!/bin/sh\necho 1\necho 2\n");
        fs::write(&path, &script).unwrap();
        assert_eq!(Mark::Script.is_on(&path).unwrap(), Some(true));
        fs::write(&path, script.replace("echo 1", "echo 3")).unwrap();
        assert_eq!(Mark::Script.is_on(&path).unwrap(), Some(false));
        let refused = Mark::Script.check(&path).unwrap_err().to_string();
        assert!(
            refused.ends_with("or was changed since: it is not replaced"),
            "{refused}"
        );
    }

    #[test]
    fn neither_a_link_nor_another_s_file_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (log, link) = (folder.path().join("log"), folder.path().join("link"));
        fs::write(&log, format!("{LOG}1.0")).unwrap();
        std::os::unix::fs::symlink(&log, &link).unwrap();
        assert_eq!(Mark::Log.is_on(&log).unwrap(), Some(true));
        assert_eq!(Mark::Log.is_on(&link).unwrap(), Some(false));
        assert_eq!(Mark::Record.is_on(&log).unwrap(), Some(false));
        assert_eq!(Mark::Table("trend").is_on(&log).unwrap(), Some(false));
        assert_eq!(Mark::Nothing.is_on(&log).unwrap(), Some(false));
    }
}
