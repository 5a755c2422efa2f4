//! Content fingerprints: what a result depends on, in a few bytes.

use crate::failure;
use crate::hub;
use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Files up to this size are hashed whole.
const WHOLE: u64 = 1 << 30;
/// Of larger ones, so many blocks, evenly spread from the first to the last, …
const N_BLOCKS: u64 = 64;
/// … of so many bytes.
const BLOCK: u64 = 1 << 20;

/// The fingerprint of one input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileFingerprint {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// SHA-256 of the whole file, or of 64 blocks of 1 MiB spread over it when it is larger than 1 GiB.
    pub(crate) sha256: String,
    /// Whether `sha256` is of the whole file.
    pub(crate) whole: bool,
}

impl FileFingerprint {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or its hash is known and another one.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let known = hub::known_sha256(path);
        let read = || -> Result<Self> {
            let mut file = File::open(path)?;
            let bytes = file.metadata()?.len();
            let whole = bytes <= WHOLE || known.is_some();
            let mut hash = Sha256::new();
            if whole {
                hash_range(&mut file, bytes, &mut hash)?;
            } else {
                for block in 0..N_BLOCKS {
                    file.seek(SeekFrom::Start((bytes - BLOCK) * block / (N_BLOCKS - 1)))?;
                    hash_range(&mut file, BLOCK, &mut hash)?;
                }
            }
            Ok(Self {
                path: path.to_owned(),
                bytes,
                sha256: hex(&hash.finalize()),
                whole,
            })
        };
        let found =
            read().with_context(|| format!("taking the fingerprint of `{}`", path.display()))?;
        match known {
            Some(known) if known != found.sha256 => Err(failure::failed(
                format_args!(
                    "`{}` has the SHA-256 {}, the hub's cache says {known}",
                    path.display(),
                    found.sha256
                ),
                "the file was damaged on its way or later: remove it and download it again",
            )),
            _ => Ok(found),
        }
    }
}

/// The fingerprint of values: the SHA-256 of their JSON.
///
/// # Errors
///
/// When a value has no JSON form.
pub(crate) fn of_values(values: &impl Serialize) -> Result<String> {
    Ok(hex(&Sha256::digest(serde_json::to_vec(values)?)))
}

fn hash_range(file: &mut File, n_bytes: u64, hash: &mut Sha256) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut range = file.take(n_bytes);
    loop {
        let n = range.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        hash.update(&buffer[..n]);
    }
}

fn hex(bytes: &[u8]) -> String {
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
        let fingerprint = FileFingerprint::of(&path).unwrap();
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
        let path = folder.path().join("sparse");
        let mut file = File::create(&path).unwrap();
        file.set_len(WHOLE + 5).unwrap();
        let empty = FileFingerprint::of(&path).unwrap();
        assert!(!empty.whole);
        file.seek(SeekFrom::End(-1)).unwrap();
        file.write_all(b"x").unwrap();
        assert_ne!(FileFingerprint::of(&path).unwrap().sha256, empty.sha256);
    }
}
