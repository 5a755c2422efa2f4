//! What lies under the name of a file whose download failed.

use std::fmt;

/// Bytes of a file that are looked at.
const N_LOOKED_AT: usize = 512;

/// Something that was saved in a file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impostor {
    /// The pointer that git LFS leaves where it did not fetch the file.
    LfsPointer,
    /// What a server answered instead of the file.
    ServerAnswer,
    /// Nothing at all.
    Empty,
    /// Zeros: room that was made for a file and never filled.
    Zeros,
    /// A packed file.
    Packed,
}

impl Impostor {
    /// What the first bytes of a file that should hold something else say it is.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        const ANSWERS: [&str; 9] = [
            "<!doctype",
            "<html",
            "<?xml",
            "<error",
            "entry not found",
            "repository not found",
            "not found",
            "access to ",
            "{\"error\"",
        ];
        let head = bytes.get(..N_LOOKED_AT).unwrap_or(bytes);
        let text = String::from_utf8_lossy(head).to_lowercase();
        let text = text.trim_start_matches('\u{feff}').trim_start();
        if bytes.is_empty() {
            Some(Self::Empty)
        } else if text.starts_with("version https://git-lfs.github.com/spec/") {
            Some(Self::LfsPointer)
        } else if ANSWERS.iter().any(|answer| text.starts_with(answer)) {
            Some(Self::ServerAnswer)
        } else if [
            &b"\x1f\x8b"[..],
            b"PK\x03\x04",
            b"\x28\xb5\x2f\xfd",
            b"\xfd7zXZ",
            b"BZh",
        ]
        .iter()
        .any(|magic| head.starts_with(magic))
        {
            Some(Self::Packed)
        } else if head.iter().all(|byte| *byte == 0) {
            Some(Self::Zeros)
        } else {
            None
        }
    }

    /// The same for a file of bytes without a header: only what cannot be taken for them.
    pub(crate) fn of_raw(bytes: &[u8]) -> Option<Self> {
        Self::of(bytes).filter(|found| matches!(found, Self::LfsPointer | Self::ServerAnswer))
    }

    /// The cure.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::LfsPointer => "fetch the file itself with `git lfs pull` or `hf download`",
            Self::ServerAnswer => {
                "the server did not send the file: open it to see why, correct the address or the access, and download it again"
            }
            Self::Empty | Self::Zeros => "the file was not filled: copy or download it again",
            Self::Packed => "unpack the file first",
        }
    }
}

impl fmt::Display for Impostor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LfsPointer => "is a pointer of git LFS, which stands for the file itself",
            Self::ServerAnswer => "is the answer of a server that did not send the file",
            Self::Empty => "is empty",
            Self::Zeros => "begins with zeros only",
            Self::Packed => "is a packed file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_instead_is_recognized() {
        let long = [b"<html>".repeat(9), vec![0xff; 9000]].concat();
        let cases: [(&[u8], Option<Impostor>); 12] = [
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
                Some(Impostor::LfsPointer),
            ),
            (b"Entry not found", Some(Impostor::ServerAnswer)),
            (b"Repository not found", Some(Impostor::ServerAnswer)),
            (b"\n<!DOCTYPE html>", Some(Impostor::ServerAnswer)),
            (
                b"\xef\xbb\xbf<?xml version='1.0'?>",
                Some(Impostor::ServerAnswer),
            ),
            (
                b"<Error><Code>AccessDenied</Code></Error>",
                Some(Impostor::ServerAnswer),
            ),
            (&long, Some(Impostor::ServerAnswer)),
            (b"", Some(Impostor::Empty)),
            (&[0; 9], Some(Impostor::Zeros)),
            (b"\x1f\x8b\x08", Some(Impostor::Packed)),
            (b"MMIDIDX\0\0", None),
            (b"TNTIDX\0\0", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Impostor::of(bytes), expected, "{bytes:?}");
        }
        assert_eq!(Impostor::of_raw(&[0; 9]), None);
    }
}
