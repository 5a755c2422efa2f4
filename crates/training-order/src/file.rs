//! Files as they are opened: regular ones only, with an identity that later reads are held to.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Linux' flag of `open` that does not wait for the other end of a pipe.
#[cfg(target_os = "linux")]
const O_NONBLOCK: i32 = 0o4000;
/// Numbers of errors that `io::ErrorKind` has no name for, the same on Linux and macOS.
const EIO: i32 = 5;
const ENODEV: i32 = 19;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// Which file it is, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    pub(crate) len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

/// In what a file differs from the one that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its length.
    Length {
        /// Bytes when it was opened.
        opened: u64,
        /// Bytes now.
        found: u64,
    },
    /// Its time of modification.
    Modified,
    /// Another file has its name.
    Replaced,
    /// No file has its name.
    Removed,
    /// What was read before is not there any more.
    Contents,
}

/// What is at a path where a regular file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NotRegular(&'static str);

impl std::error::Error for NotRegular {}

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}, not a regular file", self.0)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { opened, found } => {
                write!(f, "it had {opened} bytes, and has {found} now")
            }
            Self::Modified => f.write_str("it was written to"),
            Self::Replaced => f.write_str("another file has its name now"),
            Self::Removed => f.write_str("no file has its name now"),
            Self::Contents => f.write_str("it no longer holds what was read first"),
        }
    }
}

impl Change {
    /// The cure.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Removed => "put the file back, then begin again",
            Self::Length { .. } | Self::Modified | Self::Replaced | Self::Contents => {
                "another program writes or replaces the file: let it finish, then begin again"
            }
        }
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// In what the open file, or the one that has its name now, differs from this one.
    pub(crate) fn change(&self, file: &File, path: &Path) -> io::Result<Option<Change>> {
        let in_hand = self.difference(&file.metadata()?);
        if in_hand.is_some() {
            return Ok(in_hand);
        }
        match path.metadata() {
            Ok(metadata) => Ok(self.difference(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Change::Removed)),
            Err(error) => Err(error),
        }
    }

    fn difference(&self, metadata: &Metadata) -> Option<Change> {
        let found = Self::of(metadata);
        if (found.device, found.inode) != (self.device, self.inode) {
            Some(Change::Replaced)
        } else if found.len != self.len {
            Some(Change::Length {
                opened: self.len,
                found: found.len,
            })
        } else if found.modified != self.modified {
            Some(Change::Modified)
        } else {
            None
        }
    }
}

/// Opens a regular file to read. Anything else is an error at once: a pipe would wait for its other
/// end, a device may never end.
pub(crate) fn open(path: &Path) -> io::Result<(File, Identity)> {
    // Before, because opening a device may do something to it.
    regular(&path.metadata()?)?;
    let mut options = File::options();
    options.read(true);
    // Where a pipe took the name in between.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, O_NONBLOCK);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, Identity::of(&metadata)))
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let (name, error) = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        ("a folder", io::ErrorKind::IsADirectory)
    } else if kind.is_fifo() {
        ("a named pipe", io::ErrorKind::InvalidInput)
    } else if kind.is_socket() {
        ("a socket", io::ErrorKind::InvalidInput)
    } else if kind.is_char_device() || kind.is_block_device() {
        ("a device", io::ErrorKind::InvalidInput)
    } else {
        ("something else", io::ErrorKind::InvalidInput)
    };
    Err(io::Error::new(error, NotRegular(name)))
}

/// The cure of what the system says when a file is opened, mapped or asked about.
pub(crate) fn hint(error: &io::Error) -> Option<&'static str> {
    let is_not_regular = error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<NotRegular>);
    Some(match (error.kind(), error.raw_os_error()) {
        _ if is_not_regular => {
            "corpora and maps are read in place: write the contents to a regular file, and name that"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "this user may not read the file, or may not enter a folder above it: ask its owner for the permission"
        }
        (io::ErrorKind::NotADirectory, _) => {
            "a part of the path is a file, not a folder: correct the path"
        }
        (io::ErrorKind::OutOfMemory, _) => {
            "the file does not fit the address space that this process may use: raise `ulimit -v`"
        }
        (io::ErrorKind::StaleNetworkFileHandle, _) => {
            "the network file system lost the file: see whether it is still there, then begin again"
        }
        (_, Some(EMFILE)) => {
            "this process may not open so many files: raise the limit with `ulimit -n`"
        }
        (_, Some(ENFILE)) => {
            "the machine has too many files open: close other programs, then begin again"
        }
        (_, Some(ENODEV)) => {
            "this file system cannot map files into memory: copy the file to a local disk"
        }
        (_, Some(EIO)) => {
            "the disk or the network could not read the file: copy it to another disk"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let made = Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        fs::create_dir(at("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        std::os::unix::fs::symlink(at("pipe"), at("link")).unwrap();
        for (name, text) in [
            ("pipe", "it is a named pipe, not a regular file"),
            ("link", "it is a named pipe, not a regular file"),
            ("folder", "it is a folder, not a regular file"),
            ("socket", "it is a socket, not a regular file"),
            ("zero", "it is a device, not a regular file"),
        ] {
            let error = open(&at(name)).unwrap_err();
            assert_eq!(error.to_string(), text);
            assert!(hint(&error).is_some_and(|hint| hint.contains("regular file")));
        }
        fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink(at("file"), at("to-file")).unwrap();
        assert_eq!(open(&at("to-file")).unwrap().1.len, 1);
    }

    #[test]
    fn what_the_system_says_has_its_own_cure() {
        for (number, text) in [
            (13, "permission"),
            (24, "ulimit -n"),
            (23, "machine"),
            (20, "folder"),
            (12, "ulimit -v"),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert!(
                hint(&error).is_some_and(|hint| hint.contains(text)),
                "{error}"
            );
        }
        assert_eq!(hint(&io::Error::from_raw_os_error(2)), None);
    }

    #[test]
    fn each_change_of_a_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let change = |with: &dyn Fn()| {
            fs::write(&path, "0123").unwrap();
            let (file, identity) = open(&path).unwrap();
            assert_eq!(identity.change(&file, &path).unwrap(), None);
            with();
            identity.change(&file, &path).unwrap()
        };
        let other = folder.path().join("b");
        assert_eq!(
            change(&|| fs::write(&path, "01").unwrap()),
            Some(Change::Length {
                opened: 4,
                found: 2
            })
        );
        assert_eq!(
            change(&|| fs::write(&path, "01234").unwrap()),
            Some(Change::Length {
                opened: 4,
                found: 5
            })
        );
        assert_eq!(
            change(&|| fs::remove_file(&path).unwrap()),
            Some(Change::Removed)
        );
        let replace = || {
            fs::write(&other, "0123").unwrap();
            fs::rename(&other, &path).unwrap();
        };
        assert_eq!(change(&replace), Some(Change::Replaced));
        let touch = || {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        };
        assert_eq!(change(&touch), Some(Change::Modified));
        // A change of permissions or of a second name alters the time of the inode only.
        let rename = || {
            fs::hard_link(&path, &other).unwrap();
            fs::remove_file(&other).unwrap();
        };
        assert_eq!(change(&rename), None);
    }
}
