//! Files that are read: only regular ones, none larger than it may be, each held to what it was.

use anyhow::{Context, Result, anyhow};
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// A run file, a `run.json` or another text that a person could write.
pub(crate) const TEXT: u64 = 64 << 20;

/// What tells a file from another one, and from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds of the last change of its content.
    modified: (i64, i64),
}

/// Opens a regular file.
///
/// # Errors
///
/// When it cannot be opened. A named pipe or a device is never opened: reading it may not end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    refuse_special(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // It may have been exchanged in between.
    refuse_special(&file.metadata()?)?;
    Ok(file)
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
///
/// When it cannot be read, or is larger.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let bytes = file.metadata()?.len();
    let too_large = || io::Error::other(format!("it is larger than {limit} bytes"));
    if bytes > limit {
        return Err(too_large());
    }
    let mut content = Vec::new();
    // It may grow while it is read.
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(content)
}

/// Reads a text of at most `limit` bytes.
///
/// # Errors
///
/// When it cannot be read, is larger, or is not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let problem = format!("it is no text: byte {place} is not UTF-8");
        io::Error::new(io::ErrorKind::InvalidData, problem)
    })
}

fn refuse_special(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let problem = format!("it is {}, not a regular file", kind(metadata.file_type()));
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

/// What lies at a path that is no regular file.
fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        "a folder"
    } else if found.is_fifo() {
        "a pipe"
    } else if found.is_socket() {
        "a socket"
    } else if found.is_symlink() {
        "a symbolic link"
    } else {
        "a device"
    }
}

impl Identity {
    /// That of the file a path leads to now.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }

    /// That of an open file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Refuses a path that leads to another file now, or to the same one with another content.
    ///
    /// # Errors
    ///
    /// When it does, or leads nowhere.
    pub(crate) fn hold(self, path: &Path) -> Result<()> {
        let found = Self::at(path).with_context(|| changed(path))?;
        let what = if (found.device, found.inode) != (self.device, self.inode) {
            "another file has taken its place"
        } else if found.bytes != self.bytes {
            "its length is another one"
        } else if found.modified != self.modified {
            "it was written to"
        } else {
            return Ok(());
        };
        Err(anyhow!("{}: {what}", changed(path)))
    }
}

fn changed(path: &Path) -> String {
    format!("`{}` has changed since the run began", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let zero = folder.path().join("zero");
        std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
        let refused = |path: &Path| read(path, 10).unwrap_err().to_string();
        assert_eq!(refused(&pipe), "it is a pipe, not a regular file");
        assert_eq!(refused(&zero), "it is a device, not a regular file");
        assert_eq!(refused(folder.path()), "it is a folder, not a regular file");
        let text = folder.path().join("text");
        fs::write(&text, "eleven byte").unwrap();
        assert_eq!(refused(&text), "it is larger than 10 bytes");
        assert_eq!(read_text(&text, 11).unwrap(), "eleven byte");
        fs::write(&text, b"a\xff").unwrap();
        let refused = read_text(&text, 11).unwrap_err().to_string();
        assert_eq!(refused, "it is no text: byte 1 is not UTF-8");
    }

    #[test]
    fn a_file_is_held_to_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "abc").unwrap();
        let identity = Identity::at(&path).unwrap();
        identity.hold(&path).unwrap();
        let changed = || identity.hold(&path).unwrap_err().to_string();
        fs::write(&path, "abcd").unwrap();
        assert!(changed().ends_with("since the run began: its length is another one"));
        fs::write(&path, "abd").unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        File::open(&path).unwrap().set_modified(later).unwrap();
        assert!(changed().ends_with("it was written to"));
        let other = folder.path().join("other");
        fs::copy(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(changed().ends_with("another file has taken its place"));
        fs::remove_file(&path).unwrap();
        assert!(changed().ends_with("has changed since the run began"));
    }
}
