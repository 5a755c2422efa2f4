//! The ZIP archive that `torch.save` writes: files stored as they are, each with a checksum.

use super::LoadError;
use super::opened::OpenFile;
use super::pytorch::PytorchError;
use std::collections::BTreeMap;

/// Bytes of the list of files that are read.
const LONGEST_DIRECTORY: u64 = 64 << 20;
/// Bytes of the record that ends an archive, without its comment.
const END: u64 = 22;
/// Bytes of the record that says where the other end is, and of that.
const LOCATOR: u64 = 20;
const END_64: u64 = 56;

/// A file of an archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where its own header begins.
    header: u64,
    pub(super) size: u64,
    pub(super) crc: u32,
    /// Neither compressed nor encrypted.
    is_stored: bool,
}

/// Fields of a record, little-endian, one after another; missing bytes make an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], PytorchError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, n: usize) -> Result<u64, PytorchError> {
        let bytes = self.take(n)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A field of 16 bits.
    fn length(&mut self) -> Result<usize, PytorchError> {
        let bytes = self.take(2)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }
}

fn cut() -> PytorchError {
    damaged("its list of files is cut")
}

fn damaged(problem: impl Into<String>) -> PytorchError {
    PytorchError::Archive(problem.into())
}

/// The files of an archive by name.
pub(super) fn entries(file: &OpenFile) -> Result<BTreeMap<String, Entry>, LoadError> {
    let wrong = |problem| PytorchError::Archive(problem).at(file);
    let (start, length, n_entries) = directory(file)?;
    if length > LONGEST_DIRECTORY {
        let problem = format!("its list of files has {length} bytes, over {LONGEST_DIRECTORY}");
        return Err(wrong(problem));
    }
    let bytes = file.read_at(start, length)?;
    let mut fields = Fields(&bytes);
    let mut entries = BTreeMap::new();
    while !fields.0.is_empty() {
        let (name, entry) = of_directory(&mut fields).map_err(|error| error.at(file))?;
        if entries.insert(name.clone(), entry).is_some() {
            return Err(wrong(format!("it holds two files {name:?}")));
        }
    }
    if entries.len() as u64 != n_entries {
        return Err(cut().at(file));
    }
    Ok(entries)
}

/// Where the list of files is, its bytes, and how many files it lists.
fn directory(file: &OpenFile) -> Result<(u64, u64, u64), LoadError> {
    let at = |error: PytorchError| error.at(file);
    let tail_start = file.len().saturating_sub(END + u64::from(u16::MAX));
    let tail = file.read_at(tail_start, file.len() - tail_start)?;
    let found = tail.windows(4).rposition(|four| four == b"PK\x05\x06");
    let found = found.ok_or_else(|| at(damaged("its end is missing")))?;
    let end = tail_start + found as u64;
    let mut fields = Fields(&tail[found..]);
    let mut standard = || -> Result<(u64, u64, u64), PytorchError> {
        fields.take(10)?;
        let n_entries = fields.number(2)?;
        let (length, start) = (fields.number(4)?, fields.number(4)?);
        let n_comment = fields.length()?;
        if fields.0.len() != n_comment {
            return Err(damaged("something stands behind its end"));
        }
        Ok((start, length, n_entries))
    };
    let (mut start, mut length, mut n_entries) = standard().map_err(at)?;
    // The end of archives that may be larger than 4 GB, which PyTorch always writes.
    let mut ends_at = end;
    if let Some(place) = end.checked_sub(LOCATOR) {
        let bytes = file.read_at(place, LOCATOR)?;
        if bytes.starts_with(b"PK\x06\x07") {
            let mut fields = Fields(&bytes[8..]);
            ends_at = fields.number(8).map_err(at)?;
            if ends_at
                .checked_add(END_64)
                .is_none_or(|after| after > place)
            {
                return Err(at(cut()));
            }
            let bytes = file.read_at(ends_at, END_64)?;
            if !bytes.starts_with(b"PK\x06\x06") {
                return Err(at(cut()));
            }
            let mut fields = Fields(&bytes[32..]);
            n_entries = fields.number(8).map_err(at)?;
            length = fields.number(8).map_err(at)?;
            start = fields.number(8).map_err(at)?;
        }
    }
    if start
        .checked_add(length)
        .is_none_or(|after| after > ends_at)
    {
        return Err(at(cut()));
    }
    Ok((start, length, n_entries))
}

/// The next record of the list of files.
fn of_directory(fields: &mut Fields<'_>) -> Result<(String, Entry), PytorchError> {
    const WIDE: u64 = 0xffff_ffff;
    if fields.take(4)? != b"PK\x01\x02" {
        return Err(cut());
    }
    fields.take(4)?;
    let (flags, method) = (fields.number(2)?, fields.number(2)?);
    fields.take(4)?;
    let crc = u32::try_from(fields.number(4)?).map_err(|_| cut())?;
    let (mut packed, mut size) = (fields.number(4)?, fields.number(4)?);
    let (n_name, n_extra, n_comment) = (fields.length()?, fields.length()?, fields.length()?);
    fields.take(8)?;
    let mut header = fields.number(4)?;
    let name = String::from_utf8(fields.take(n_name)?.to_vec())
        .map_err(|_| damaged("the name of a file is not UTF-8"))?;
    let mut extra = Fields(fields.take(n_extra)?);
    fields.take(n_comment)?;
    // Numbers of 64 bits, each there only where the one of 32 is all ones.
    while extra.0.len() >= 4 {
        let (kind, n) = (extra.number(2)?, extra.length()?);
        let mut values = Fields(extra.take(n)?);
        if kind == 1 {
            for number in [&mut size, &mut packed, &mut header] {
                if *number == WIDE {
                    *number = values.number(8)?;
                }
            }
        }
    }
    let is_stored = flags & 1 == 0 && method == 0 && packed == size;
    let entry = Entry {
        header,
        size,
        crc,
        is_stored,
    };
    Ok((name, entry))
}

impl Entry {
    /// Where its bytes begin; all of them are known to be in the file then.
    pub(super) fn start(&self, file: &OpenFile, name: &str) -> Result<u64, LoadError> {
        /// Bytes of a file's own header, without its name.
        const HEADER: u64 = 30;
        if !self.is_stored {
            let name = name.to_owned();
            return Err(PytorchError::Compressed { name }.at(file));
        }
        let beyond = || damaged(format!("the file {name:?} lies outside of it")).at(file);
        if self
            .header
            .checked_add(HEADER)
            .is_none_or(|end| end > file.len())
        {
            return Err(beyond());
        }
        let bytes = file.read_at(self.header, HEADER)?;
        if !bytes.starts_with(b"PK\x03\x04") {
            return Err(beyond());
        }
        let mut fields = Fields(&bytes[26..]);
        let mut lengths = || Ok((fields.number(2)?, fields.number(2)?));
        let (n_name, n_extra) = lengths().map_err(|error: PytorchError| error.at(file))?;
        let start = self.header + HEADER + n_name + n_extra;
        if start
            .checked_add(self.size)
            .is_none_or(|end| end > file.len())
        {
            return Err(beyond());
        }
        Ok(start)
    }
}
