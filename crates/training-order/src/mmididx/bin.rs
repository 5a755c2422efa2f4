//! The tokens: one `.bin`, or the published shards of one, read as if put end to end.

use super::{OpenError, ReadError};
use crate::map::Map;
use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The bytes of all files, one after another.
#[derive(Debug)]
pub(super) struct Bin {
    /// In order, with the byte at which each begins.
    files: Vec<(u64, Map)>,
    len: u64,
}

impl Bin {
    /// Opens `PREFIX.bin`, or `PREFIX-NNNNN-of-MMMMM.bin` where that is absent.
    pub(super) fn open(prefix: &Path) -> Result<Self, OpenError> {
        let whole = super::with_ending(prefix, "bin");
        let paths = if whole.exists() {
            vec![whole]
        } else {
            shards(prefix, whole)?
        };
        let mut files = Vec::with_capacity(paths.len());
        let mut len = 0;
        for path in paths {
            let map = Map::open(&path).map_err(|source| OpenError::Io { path, source })?;
            let start = len;
            len += map.len();
            files.push((start, map));
        }
        Ok(Self { files, len })
    }

    /// Bytes of all files.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The files, in order.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(_, map)| map.path())
    }

    /// The file that holds a byte; the last one for bytes beyond the end.
    pub(super) fn path_of(&self, byte: u64) -> &Path {
        let file = self
            .files
            .partition_point(|(start, _)| *start <= byte)
            .saturating_sub(1);
        self.files
            .get(file)
            .map_or(Path::new(""), |(_, map)| map.path())
    }

    /// Refuses files that have become shorter.
    pub(super) fn check_unchanged(&self) -> Result<(), ReadError> {
        self.files
            .iter()
            .try_for_each(|(_, map)| map.check_unchanged())
    }

    /// The bytes `start..end`, copied together where they lie in several files.
    pub(super) fn slice(&self, start: u64, end: u64) -> Option<Cow<'_, [u8]>> {
        if start > end || end > self.len {
            return None;
        }
        let first = self
            .files
            .partition_point(|(begin, _)| *begin <= start)
            .saturating_sub(1);
        let (begin, map) = self.files.get(first)?;
        if let Some(bytes) = map.slice(start - begin, end - begin) {
            return Some(Cow::Borrowed(bytes));
        }
        let mut together = Vec::with_capacity(usize::try_from(end - start).ok()?);
        for (begin, map) in &self.files[first..] {
            if *begin >= end {
                break;
            }
            let from = start.max(*begin) - begin;
            let to = end.min(begin + map.len()) - begin;
            together.extend_from_slice(map.slice(from, to)?);
        }
        Some(Cow::Owned(together))
    }
}

/// The paths of all shards of `prefix`. Published shards are named after the last number, not the count:
/// `-of-00020` is the ending of 21 files.
fn shards(prefix: &Path, whole: PathBuf) -> Result<Vec<PathBuf>, OpenError> {
    let folder = match prefix.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let stem = prefix
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let absent = |path| OpenError::Io {
        path,
        source: io::Error::from(io::ErrorKind::NotFound),
    };
    let mut found: Vec<(u64, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| OpenError::Io {
        path: whole.clone(),
        source,
    })? {
        let path = entry
            .map_err(|source| OpenError::Io {
                path: folder.to_owned(),
                source,
            })?
            .path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some((number, last)) = shard_numbers(&name, &stem) {
            found.push((number, last, path));
        }
    }
    found.sort();
    let Some(&(_, last, _)) = found.last() else {
        return Err(absent(whole));
    };
    if let Some((_, other, path)) = found.iter().find(|(_, other, _)| *other != last) {
        return Err(OpenError::Shards {
            path: path.clone(),
            last: *other,
            other: last,
        });
    }
    for number in 0..=last {
        if found
            .get(usize::try_from(number).unwrap_or(usize::MAX))
            .map(|shard| shard.0)
            != Some(number)
        {
            return Err(absent(
                folder.join(format!("{stem}-{number:05}-of-{last:05}.bin")),
            ));
        }
    }
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// `document-00003-of-00020.bin` → 3 and 20
fn shard_numbers(name: &str, stem: &str) -> Option<(u64, u64)> {
    let rest = name
        .strip_prefix(stem)?
        .strip_prefix('-')?
        .strip_suffix(".bin")?;
    let (number, last) = rest.split_once("-of-")?;
    Some((number.parse().ok()?, last.parse().ok()?))
}
