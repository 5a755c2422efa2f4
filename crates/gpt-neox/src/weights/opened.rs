//! Files that are opened once: regular ones only, read at offsets, and watched for change.

use super::LoadError;
use super::error::Impostor;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes that tell what a file is.
const BEGINNING: u64 = 64;

/// An open file and what it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    file: File,
    identity: Identity,
}

/// A file that was read whole and closed, and what it was then: many checkpoints may be open at once.
#[derive(Debug)]
pub(super) struct ReadFile {
    path: PathBuf,
    identity: Identity,
}

/// What changes when a file is replaced or edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl OpenFile {
    /// Opens a regular file, or a link to one. Anything else is refused at once: a pipe would
    /// block, and a device has no end.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Io {
            path: path.to_owned(),
            source,
        };
        must_be_regular(path, &fs::metadata(path).map_err(failed)?)?;
        // Should a pipe take the file's place meanwhile, opening it does not block.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        must_be_regular(path, &metadata)?;
        let opened = Self {
            path: path.to_owned(),
            file,
            identity: Identity::of(&metadata),
        };
        let beginning = opened.read_at(0, opened.len().min(BEGINNING))?;
        match Impostor::of(&beginning) {
            None => Ok(opened),
            Some(found) => Err(LoadError::Impostor {
                path: path.to_owned(),
                found,
            }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.identity.size
    }

    /// All of it, where it has at most `most` bytes.
    pub(super) fn read_all(&self, most: u64) -> Result<Vec<u8>, LoadError> {
        if self.len() > most {
            return Err(LoadError::TooLarge {
                path: self.path.clone(),
                found: self.len(),
                most,
            });
        }
        self.read_at(0, self.len())
    }

    /// `n` bytes from an offset. Memory is taken only where the file has so many.
    pub(super) fn read_at(&self, offset: u64, n: u64) -> Result<Vec<u8>, LoadError> {
        let failed = |source| LoadError::Io {
            path: self.path.clone(),
            source,
        };
        let short = || failed(io::ErrorKind::UnexpectedEof.into());
        let end = offset.checked_add(n).ok_or_else(short)?;
        if end > self.len() {
            return Err(short());
        }
        let mut bytes = vec![0; usize::try_from(n).map_err(|_| short())?];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            // It had these bytes when it was opened.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Closes it.
    pub(super) fn close(self) -> ReadFile {
        let Self { path, identity, .. } = self;
        ReadFile { path, identity }
    }

    /// Refuses a file that was edited since it was opened, or another one at its path.
    pub(super) fn check_unchanged(&self) -> Result<(), LoadError> {
        let held = self.file.metadata().map_err(|source| LoadError::Io {
            path: self.path.clone(),
            source,
        })?;
        if Identity::of(&held) != self.identity {
            return Err(self.changed());
        }
        self.identity.hold(&self.path)
    }

    fn changed(&self) -> LoadError {
        LoadError::Changed {
            path: self.path.clone(),
        }
    }
}

impl ReadFile {
    /// Refuses a file that was edited since it was read, or another one at its path.
    pub(super) fn check_unchanged(&self) -> Result<(), LoadError> {
        self.identity.hold(&self.path)
    }
}

impl Identity {
    /// Refuses another file at a path.
    fn hold(self, path: &Path) -> Result<(), LoadError> {
        match fs::metadata(path) {
            Ok(there) if Self::of(&there) == self => Ok(()),
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LoadError::Io {
                path: path.to_owned(),
                source,
            }),
            _ => Err(LoadError::Changed {
                path: path.to_owned(),
            }),
        }
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Whether there is a file at this path; a link that leads nowhere counts, so that it is not passed
/// over.
pub(super) fn exists(path: &Path) -> Result<bool, LoadError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LoadError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn must_be_regular(path: &Path, metadata: &Metadata) -> Result<(), LoadError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let found = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(LoadError::NotAFile {
        path: path.to_owned(),
        found,
    })
}
