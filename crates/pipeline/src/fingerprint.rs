//! Content fingerprints: what a result depends on, in a few bytes.

use crate::failure;
use crate::files::{self, Identity};
use crate::hub;
use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Files up to this size are hashed whole, …
const WHOLE: u64 = N_BLOCKS * BLOCK;
/// … and those that decide an order whatever their size: an `.idx` of the Pile has 3 GB.
const ALWAYS_WHOLE: [&str; 2] = ["idx", "npy"];
/// Of larger ones, so many blocks, evenly spread from the first to the last, …
const N_BLOCKS: u64 = 64;
/// … of so many bytes.
const BLOCK: u64 = 1 << 20;

/// The fingerprint of one input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileFingerprint {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// SHA-256 of the whole file, or of 64 blocks of 1 MiB spread over it when it is larger than 64 MiB and neither an
    /// `.idx` nor an `.npy`.
    pub(crate) sha256: String,
    /// Whether `sha256` is of the whole file.
    pub(crate) whole: bool,
    /// SHA-256 of the whole file, where that is another one and was asked for; nothing depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) full_sha256: Option<String>,
    /// Which file that was, so that what is read later is what was hashed.
    #[serde(skip)]
    identity: Identity,
}

impl FileFingerprint {
    /// Reads the file at `path`: enough of it for its fingerprint, or with `full_hash` all of it besides.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or all of it was read, its hash is known and another one.
    pub(crate) fn of(path: &Path, full_hash: bool) -> Result<Self> {
        Self::counted(path, full_hash, &AtomicU64::new(0))
    }

    /// How many bytes of the file at `path` are read for its fingerprint; 0 where there is none.
    pub(crate) fn cost(path: &Path, full_hash: bool) -> u64 {
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        match (is_whole(path, bytes), full_hash) {
            (true, _) => bytes,
            (false, false) => WHOLE,
            (false, true) => WHOLE + bytes,
        }
    }

    /// The same, with the bytes counted that were read.
    ///
    /// # Errors
    ///
    /// Those of [`Self::of`].
    pub(crate) fn counted(path: &Path, full_hash: bool, n_read: &AtomicU64) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut file = files::open(path)?;
            let metadata = file.metadata()?;
            let identity = Identity::of(&metadata);
            let bytes = metadata.len();
            let whole = is_whole(path, bytes);
            let mut hash = Sha256::new();
            if whole {
                hash_range(&mut file, bytes, &mut hash, n_read)?;
            } else {
                for block in 0..N_BLOCKS {
                    file.seek(SeekFrom::Start(block_start(block, bytes)))?;
                    hash_range(&mut file, BLOCK, &mut hash, n_read)?;
                }
            }
            let full_sha256 = (full_hash && !whole).then(|| -> Result<String> {
                let mut hash = Sha256::new();
                file.rewind()?;
                hash_range(&mut file, bytes, &mut hash, n_read)?;
                Ok(hex(&hash.finalize()))
            });
            // It may have been written to while it was read.
            identity.hold(path)?;
            Ok(Self {
                path: path.to_owned(),
                bytes,
                sha256: hex(&hash.finalize()),
                whole,
                full_sha256: full_sha256.transpose()?,
                identity,
            })
        };
        let found =
            read().with_context(|| format!("taking the fingerprint of `{}`", path.display()))?;
        let of_all = found.full_sha256.as_ref();
        let of_all = of_all.or_else(|| found.whole.then_some(&found.sha256));
        match (hub::known_sha256(path), of_all) {
            (Some(known), Some(of_all)) if known != *of_all => Err(failure::failed(
                format_args!(
                    "`{}` has the SHA-256 {of_all}, the hub's cache says {known}",
                    path.display(),
                ),
                "the file was damaged on its way or later: remove it and download it again",
            )),
            _ => Ok(found),
        }
    }

    /// Refuses a file that is not the one any more whose fingerprint this is.
    ///
    /// # Errors
    ///
    /// When it is another one, or was written to.
    pub(crate) fn hold(&self) -> Result<()> {
        self.identity.hold(&self.path).map_err(|error| {
            failure::failed(
                format_args!("{error:#}"),
                "another program writes the file: let it finish, then give the same command again",
            )
        })
    }
}

/// Where a block begins: the first at the file's first byte, the last so that it ends with the file.
fn block_start(block: u64, bytes: u64) -> u64 {
    let last = u128::from(bytes - BLOCK);
    // Not above the last start.
    u64::try_from(last * u128::from(block) / u128::from(N_BLOCKS - 1)).unwrap_or(0)
}

/// The fingerprint of values: the SHA-256 of their JSON.
///
/// # Errors
///
/// When a value has no JSON form.
pub(crate) fn of_values(values: &impl Serialize) -> Result<String> {
    Ok(hex(&Sha256::digest(serde_json::to_vec(values)?)))
}

/// Whether a file is hashed whole.
fn is_whole(path: &Path, bytes: u64) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    bytes <= WHOLE || ending.is_some_and(|ending| ALWAYS_WHOLE.contains(&ending))
}

fn hash_range(file: &mut File, n_bytes: u64, hash: &mut Sha256, n_read: &AtomicU64) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut range = file.take(n_bytes);
    loop {
        let n = range.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        hash.update(&buffer[..n]);
        n_read.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_small_file_is_its_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let fingerprint = FileFingerprint::of(&path, true).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            fingerprint.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!((fingerprint.bytes, fingerprint.whole), (3, true));
    }

    #[test]
    fn of_a_large_file_sees_its_length_and_both_ends() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse.bin");
        let mut file = File::create(&path).unwrap();
        let of = |full_hash| FileFingerprint::of(&path, full_hash).unwrap();
        file.set_len(4 * WHOLE + 5).unwrap();
        let empty = of(false);
        assert!(!empty.whole);
        file.seek(SeekFrom::End(-1)).unwrap();
        file.write_all(b"x").unwrap();
        let end = of(true);
        assert_ne!(end.sha256, empty.sha256);
        // A byte between two blocks is seen by the full hash alone.
        file.seek(SeekFrom::Start(BLOCK + 1)).unwrap();
        file.write_all(b"x").unwrap();
        let between = of(true);
        assert_eq!(between.sha256, end.sha256);
        assert_ne!(between.full_sha256, end.full_sha256);
        let index = folder.path().join("sparse.idx");
        std::fs::rename(&path, &index).unwrap();
        let index = FileFingerprint::of(&index, false).unwrap();
        assert!(index.whole && Some(index.sha256) == between.full_sha256);
    }
}
