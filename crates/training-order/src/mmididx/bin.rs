//! The tokens: one `.bin`, or the published shards of one, read as if put end to end.

use super::error::{Beside, BinFiles};
use super::{OpenError, ReadError};
use crate::impostor::Impostor;
use crate::map::Map;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The bytes of all files, one after another.
#[derive(Debug)]
pub(super) struct Bin {
    /// In order, with the byte at which each begins.
    files: Vec<(u64, Map)>,
    len: u64,
    beside: Option<Beside>,
}

/// The shards of one set, by their number, each under all names that give it.
type Shards = BTreeMap<u64, Vec<PathBuf>>;

impl Bin {
    /// Opens the shards `PREFIX-NNNNN-of-MMMMM.bin` where all of a set are there, else
    /// `PREFIX.bin`.
    ///
    /// Pythia's script that puts the shards together makes the whole `.bin` at once and fills it
    /// afterwards: one beside all shards may be half filled, and its length does not show it.
    pub(super) fn open(prefix: &Path) -> Result<Self, OpenError> {
        let (paths, beside) = choose(prefix)?;
        let mut files = Vec::with_capacity(paths.len());
        let mut len = 0;
        for path in paths {
            let map = Map::open(&path).map_err(|source| OpenError::Io { path, source })?;
            let start = len;
            len += map.len();
            files.push((start, map));
        }
        Ok(Self { files, len, beside })
    }

    /// Bytes of all files.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The files, in order.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(_, map)| map.path())
    }

    /// What lies beside them and is not read.
    pub(super) fn beside(&self) -> Option<&Beside> {
        self.beside.as_ref()
    }

    /// The files, for an error.
    pub(super) fn names(&self) -> BinFiles {
        BinFiles {
            path: self.path_of(0).to_owned(),
            n_files: self.files.len(),
        }
    }

    /// A file that is something else.
    pub(super) fn impostor(&self) -> Option<(&Path, Impostor)> {
        let mut maps = self.files.iter().map(|(_, map)| map);
        maps.find_map(|map| Some((map.path(), Impostor::of_raw(map.bytes())?)))
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

    /// Refuses files that are not as they were when they were opened.
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

/// The files to read, and what lies beside them.
fn choose(prefix: &Path) -> Result<(Vec<PathBuf>, Option<Beside>), OpenError> {
    let whole = super::with_ending(prefix, "bin");
    let absent = |path| OpenError::Io {
        path,
        source: io::Error::from(io::ErrorKind::NotFound),
    };
    let stands = match fs::metadata(&whole) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(OpenError::Io {
            path: whole.clone(),
            source,
        }),
    };
    let mut sets = match shard_sets(prefix) {
        // Whoever may read files but not list the folder has the `.bin`.
        Err(_) if matches!(stands, Ok(true)) => BTreeMap::new(),
        sets => sets?,
    };
    let any_complete = sets.iter().any(|(last, set)| is_complete(*last, set));
    let has_bin = match stands {
        Err(_) if any_complete => true,
        stands => stands?,
    };
    if has_bin && !any_complete {
        let beside = (!sets.is_empty()).then_some(Beside::SomeShards);
        return Ok((vec![whole], beside));
    }
    let Some((last, set)) = sets.pop_last() else {
        return Err(absent(whole));
    };
    let other = sets.into_iter().next();
    if let Some((other, path)) = other.and_then(|(other, set)| Some((other, first(set)?))) {
        return Err(OpenError::Shards {
            path,
            last: other,
            other: last,
        });
    }
    let mut paths = Vec::with_capacity(set.len());
    let mut next = 0;
    for (number, mut names) in set {
        names.sort();
        let mut names = names.into_iter();
        let (Some(path), second) = (names.next(), names.next()) else {
            continue;
        };
        if let Some(second) = second {
            let problem = format!("and `{}` are both shard {number}", second.display());
            return Err(OpenError::ShardNumber { path, problem });
        }
        if number > last {
            let problem = format!("is numbered beyond {last}, the last of its set");
            return Err(OpenError::ShardNumber { path, problem });
        }
        if number != next {
            break;
        }
        next += 1;
        paths.push(path);
    }
    if next <= last {
        let mut name = prefix.file_name().unwrap_or_default().to_owned();
        name.push(format!("-{next:05}-of-{last:05}.bin"));
        return Err(absent(prefix.with_file_name(name)));
    }
    Ok((paths, has_bin.then_some(Beside::Bin(whole))))
}

/// Whether each number of a set is there.
fn is_complete(last: u64, set: &Shards) -> bool {
    set.range(..=last).count() as u64 > last
}

fn first(set: Shards) -> Option<PathBuf> {
    set.into_values().next()?.into_iter().next()
}

/// All shards of `prefix`, by the last number of their set. Published shards are named after the
/// last number, not the count: `-of-00020` is the ending of 21 files.
fn shard_sets(prefix: &Path) -> Result<BTreeMap<u64, Shards>, OpenError> {
    let folder = match prefix.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let stem = prefix.file_name().unwrap_or_default().as_encoded_bytes();
    let listing = |source| OpenError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut sets: BTreeMap<u64, Shards> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(listing)? {
        let name = entry.map_err(listing)?.file_name();
        if let Some((number, last)) = shard_numbers(name.as_encoded_bytes(), stem) {
            let set = sets.entry(last).or_default();
            set.entry(number)
                .or_default()
                .push(prefix.with_file_name(name));
        }
    }
    Ok(sets)
}

/// `document-00003-of-00020.bin` → 3 and 20
fn shard_numbers(name: &[u8], stem: &[u8]) -> Option<(u64, u64)> {
    let rest = name
        .strip_prefix(stem)?
        .strip_prefix(b"-")?
        .strip_suffix(b".bin")?;
    let (number, last) = std::str::from_utf8(rest).ok()?.split_once("-of-")?;
    Some((digits(number)?, digits(last)?))
}

/// A number of digits alone: `+3` is none.
fn digits(text: &str) -> Option<u64> {
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok())?
}
