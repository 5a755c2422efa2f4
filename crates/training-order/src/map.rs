//! A file mapped into memory, with bounds-checked reads.

use crate::mmididx::ReadError;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The bytes of a file.
#[derive(Debug)]
pub(crate) struct Map {
    path: PathBuf,
    file: File,
    /// Nothing for an empty file, which cannot be mapped.
    bytes: Option<Mmap>,
}

impl Map {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let is_empty = file.metadata()?.len() == 0;
        let bytes = if is_empty { None } else { Some(map(&file)?) };
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// Refuses a file that has become shorter.
    pub(crate) fn check_unchanged(&self) -> Result<(), ReadError> {
        let opened = self.len();
        match self.file.metadata().map(|metadata| metadata.len()) {
            Ok(found) if found < opened => Err(ReadError::Shrunk {
                path: self.path.clone(),
                opened,
                found,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// The bytes `start..end`, where the file has them.
    pub(crate) fn slice(&self, start: u64, end: u64) -> Option<&[u8]> {
        self.bytes()
            .get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    /// `N` bytes from `offset`; zeros where the file has none, which the length check at opening excludes.
    pub(crate) fn array<const N: usize>(&self, offset: u64) -> [u8; N] {
        let bytes = offset
            .checked_add(N as u64)
            .and_then(|end| self.slice(offset, end));
        debug_assert!(
            bytes.is_some(),
            "the header was checked against the file's length"
        );
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }
}

#[expect(unsafe_code, reason = "a 600 GB corpus is read in place")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only. Should another process change the file meanwhile, the bytes change under
    // us: every read is a copy that is checked afterwards, so that this gives wrong tokens but no undefined
    // value; should the file be cut short, the system ends the program with SIGBUS, which `check_unchanged`
    // prevents where it is asked in time.
    unsafe { Mmap::map(file) }
}
