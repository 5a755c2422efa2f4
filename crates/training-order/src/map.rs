//! A file mapped into memory, with bounds-checked reads.

use crate::file::{self, Identity};
use crate::mmididx::ReadError;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The bytes of a file.
#[derive(Debug)]
pub(crate) struct Map {
    path: PathBuf,
    file: File,
    identity: Identity,
    /// Nothing for an empty file, which cannot be mapped.
    bytes: Option<Mmap>,
}

impl Map {
    /// Maps a regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (file, identity) = file::open(path)?;
        let bytes = match usize::try_from(identity.len).map_err(io::Error::other)? {
            0 => None,
            len => Some(map(&file, len)?),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            identity,
            bytes,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.identity.len
    }

    /// Refuses a file that is not the one that was opened, or was written to since.
    pub(crate) fn check_unchanged(&self) -> Result<(), ReadError> {
        let path = || self.path.clone();
        match self.identity.change(&self.file, &self.path) {
            Ok(None) => Ok(()),
            Ok(Some(change)) => Err(ReadError::Changed {
                path: path(),
                change,
            }),
            Err(source) => Err(ReadError::Io {
                path: path(),
                source,
            }),
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

    /// `N` bytes from `offset`, where the file has them.
    pub(crate) fn array<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes().get(start..)?.first_chunk().copied()
    }
}

#[expect(unsafe_code, reason = "a 600 GB corpus is read in place")]
fn map(file: &File, len: usize) -> io::Result<Mmap> {
    // SAFETY: the map is read-only. Should another process change the file meanwhile, the bytes change under
    // us: every read is a copy that is checked afterwards, so that this gives wrong tokens but no undefined
    // value; should the file be cut short, the system ends the program with SIGBUS, which `check_unchanged`
    // prevents where it is asked in time.
    unsafe { MmapOptions::new().len(len).map(file) }
}
