//! The door for values from outside: regular files only, columns by name and type, every value
//! exact or refused by row.

mod cells;
mod csv_file;
mod parquet_file;
mod raw;
#[cfg(test)]
mod tests;
mod verdict;

pub(crate) use cells::{Asked, Cells, Wanted};
pub(crate) use csv_file::CsvFile;
pub(crate) use parquet_file::{Batch, ParquetFile};
pub(crate) use verdict::Verdict;

use crate::failure;
use crate::files;
use anyhow::{Error, Result};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes that tell one kind of file from another.
const HEAD: u64 = 512;

/// Opens a regular file.
///
/// # Errors
///
/// When the file is missing, cannot be read, or is not a regular one.
pub(crate) fn open(path: &Path) -> Result<File> {
    files::open(path).map_err(|error| unopened(path, error))
}

/// What is not a regular file has its own cure.
fn unopened(path: &Path, error: io::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::InvalidInput {
        return failure::failed(
            format_args!("`{}`: {error}", path.display()),
            "name a regular file: what comes through a pipe must be written to one first",
        );
    }
    Error::new(error).context(format!("opening `{}`", path.display()))
}

/// An error about a row of a file, counted from 0.
pub(crate) fn wrong(
    path: &Path,
    row: u64,
    problem: impl Display,
    cure: impl Display,
) -> anyhow::Error {
    failure::failed(
        format_args!(
            "`{}`, row {row} (counted from 0): {problem}",
            path.display()
        ),
        cure,
    )
}

/// Reads a whole text of at most `limit` bytes.
///
/// # Errors
///
/// When it is no regular file, longer, or not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    files::read_text(path, limit).map_err(|error| unopened(path, error))
}

/// The kind of file that lies where a parquet file belongs, and the cure, where the first bytes
/// tell.
fn impostor(file: &mut File) -> Option<(&'static str, &'static str)> {
    const AGAIN: &str = "download the file again: a server's answer was saved in its place";
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(HEAD).read_to_end(&mut head).ok()?;
    let text = String::from_utf8_lossy(&head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |beginning: &str| text.to_ascii_lowercase().starts_with(beginning);
    Some(if head.is_empty() {
        ("is empty", "write or download it again")
    } else if begins("version https://git-lfs") {
        (
            "is a pointer of git-LFS, not the file itself",
            "fetch the file: `git lfs pull` in its repository",
        )
    } else if ["entry not found", "repository not found", "invalid "]
        .iter()
        .any(|answer| begins(answer))
    {
        ("holds the error message of a server", AGAIN)
    } else if begins("<") {
        ("is an HTML or XML page", AGAIN)
    } else if head.starts_with(b"PAR1") {
        (
            "is cut short: it has no footer",
            "write or download it again: its end is missing",
        )
    } else if head.starts_with(b"PARE") {
        ("is encrypted", "write it without encryption")
    } else if head.starts_with(b"ARROW1") {
        (
            "is an Arrow (Feather) file",
            "write it as parquet: `DataFrame.to_parquet`",
        )
    } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x1f\x8b") {
        ("is compressed as a whole", "unpack it first")
    } else if text.lines().count() > 1 && text.lines().next().is_some_and(is_header) {
        (
            "is a CSV file",
            "name a parquet file, as pandas or polars write it: `DataFrame.to_parquet`",
        )
    } else {
        return None;
    })
}

/// Whether a line names columns.
fn is_header(line: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || " _-.,;\"\t\r".contains(c);
    line.contains(',') && line.chars().all(fits)
}
