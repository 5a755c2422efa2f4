//! A checksum of every byte of a file of ours, in its own metadata: parquet's readers take most flipped bits for other numbers,
//! or panic.
//!
//! It is the CRC-32 of the file with the digits of the checksum as zeros.

use crate::files;
use anyhow::{Context, Result, bail};
use crc32fast::Hasher;
use parquet::file::metadata::KeyValue;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The entry of a file's metadata.
pub(crate) const KEY: &str = "crc32";
/// In place of the digits that are not known yet.
const ZEROS: &str = "00000000";
/// What stands before the digits in a footer: key and value of the entry as texts of Thrift's compact protocol, each a kind and a
/// length before its letters.
const BEFORE: &[u8] = b"\x18\x05crc32\x18\x08";
/// What a file of ours says of its writer, whichever version of the program wrote it. A program that copies our metadata into a
/// file of its own says something else there.
pub(super) const CREATED_BY: &str = "memorization-against-time version 1";
/// The end of a file that is looked at, at the least: the length of its footer may be what has changed.
const END: u64 = 1 << 20;
/// The longest footer that is looked at: a length of more is damage, and no reason to take memory.
const LONGEST: u64 = 256 << 20;
/// Length and magic number at the end of a parquet file.
const LENGTH: u64 = 8;

/// The entry that a file is begun with.
pub(super) fn placeholder() -> KeyValue {
    KeyValue::new(KEY.to_owned(), ZEROS.to_owned())
}

/// A file that is being written.
pub(super) struct Summed<W> {
    sink: W,
    hasher: Hasher,
    n_written: u64,
    /// What was written since [`Self::keep`], where the placeholder lies.
    kept: Option<Vec<u8>>,
}

impl<W: Write> Summed<W> {
    /// For a sink that nothing was written to.
    pub(super) fn new(sink: W) -> Self {
        Self {
            sink,
            hasher: Hasher::new(),
            n_written: 0,
            kept: None,
        }
    }

    /// To be called before the footer is written.
    pub(super) fn keep(&mut self) {
        self.kept = Some(Vec::new());
    }
}

impl<W: Write + Seek> Summed<W> {
    /// Puts the checksum in the place of its placeholder.
    pub(super) fn seal(mut self) -> io::Result<()> {
        let kept = self.kept.unwrap_or_default();
        let Some(place) = place_of_digits(&kept) else {
            return Err(io::Error::other("the footer has no place for its checksum"));
        };
        let place = self.n_written - kept.len() as u64 + place as u64;
        self.sink.seek(SeekFrom::Start(place))?;
        self.sink
            .write_all(digits(self.hasher.finalize()).as_bytes())?;
        self.sink.flush()
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.sink.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.n_written += n as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&bytes[..n]);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Finds out whether a file is as this program wrote it; `false` where another program did, or where that cannot be told.
///
/// # Errors
///
/// When the file cannot be read, or a byte of it has changed.
pub(crate) fn verify(path: &Path) -> Result<bool> {
    let verify = || verify_open(&mut files::open(path)?);
    verify().with_context(|| format!("checking `{}`", path.display()))
}

/// The same for what is open, or in memory: whoever reads on reads what was looked at.
///
/// # Errors
///
/// When it cannot be read, or a byte of it has changed.
pub(crate) fn verify_open(file: &mut (impl Read + Seek)) -> Result<bool> {
    let Some((place, said)) = place_in(file)? else {
        return Ok(false);
    };
    let mut hasher = Hasher::new();
    file.seek(SeekFrom::Start(0))?;
    hash(&mut file.by_ref().take(place), &mut hasher)?;
    hasher.update(ZEROS.as_bytes());
    file.seek(SeekFrom::Start(place + ZEROS.len() as u64))?;
    hash(file, &mut hasher)?;
    let found = digits(hasher.finalize());
    if said != found.as_bytes() {
        bail!(
            "its bytes have changed since they were written: their checksum is {found}, not {}",
            String::from_utf8_lossy(&said)
        );
    }
    Ok(true)
}

/// Whether this program wrote the file at `path` as a table of this name, whole or damaged since.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn is_ours(path: &Path, table: &str) -> io::Result<bool> {
    let mut file = files::open(path)?;
    // Nearly always the footer is as long as the file says.
    for least in [0, END] {
        if let Some((_, footer)) = footer(&mut file, least)?
            && says(&footer, table)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a footer names this program as the writer of a table of this name.
fn says(footer: &[u8], table: &str) -> bool {
    // Key and value as in `BEFORE`; names of tables are shorter than 64 letters.
    let Ok(len) = u8::try_from(table.len()) else {
        return false;
    };
    let name = [&b"\x18\x05table\x18"[..], &[len], table.as_bytes()].concat();
    last(footer, CREATED_BY.as_bytes()).is_some() && last(footer, &name).is_some()
}

/// The end of a file, with its footer and of `least` bytes, and where it begins; nothing where the file is too
/// short.
fn footer(file: &mut (impl Read + Seek), least: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let len = file.seek(SeekFrom::End(0))?;
    if len < LENGTH {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(len - LENGTH))?;
    let mut footer_len = [0; 4];
    file.read_exact(&mut footer_len)?;
    let footer_len = u64::from(u32::from_le_bytes(footer_len)).min(LONGEST);
    let first = len.saturating_sub(least.max(footer_len + LENGTH));
    file.seek(SeekFrom::Start(first))?;
    let mut footer = Vec::new();
    file.take(len - first).read_to_end(&mut footer)?;
    Ok(Some((first, footer)))
}

/// Where in a file of ours the digits lie, and what they are; nothing in another program's.
fn place_in(file: &mut (impl Read + Seek)) -> Result<Option<(u64, Vec<u8>)>> {
    let Some((first, footer)) = footer(file, END)? else {
        return Ok(None);
    };
    if last(&footer, CREATED_BY.as_bytes()).is_none() {
        return Ok(None);
    }
    let digits = place_of_digits(&footer).and_then(|place| {
        let said = footer.get(place..place + ZEROS.len())?;
        Some((first + place as u64, said.to_vec()))
    });
    Ok(Some(digits.context("its checksum is gone")?))
}

fn place_of_digits(footer: &[u8]) -> Option<usize> {
    last(footer, BEFORE).map(|place| place + BEFORE.len())
}

/// Where a pattern begins for the last time.
fn last(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    let mut windows = bytes.windows(pattern.len());
    windows.rposition(|window| window == pattern)
}

fn digits(checksum: u32) -> String {
    format!("{checksum:08x}")
}

fn hash(source: &mut impl Read, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = source.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::Mark;
    use crate::tables::{BatchWriter, Footer, SEQUENCES, write_atomically};
    use std::fs;

    #[test]
    fn every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        write_atomically(&path, Mark::Nothing, |file| {
            BatchWriter::new(file, &SEQUENCES, &Footer::default())?.finish()
        })
        .unwrap();
        assert!(verify(&path).unwrap());
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1 << (place % 8);
            fs::write(&path, &changed).unwrap();
            // Or it is not known for ours any more.
            assert!(!matches!(verify(&path), Ok(true)), "byte {place}");
        }
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(!matches!(verify(&path), Ok(true)), "{len} bytes");
        }
    }

    #[test]
    fn another_program_s_copy_of_our_metadata_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let mut bytes = b"PAR1".to_vec();
        let footer = [BEFORE, b"12345678", b"parquet-cpp-arrow version 25.0.0"].concat();
        bytes.extend(&footer);
        bytes.extend(u32::try_from(footer.len()).unwrap().to_le_bytes());
        bytes.extend(b"PAR1");
        fs::write(&path, &bytes).unwrap();
        assert!(!verify(&path).unwrap());
    }
}
