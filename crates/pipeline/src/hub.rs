//! Files of the Hugging Face hub, in the cache that its own tools fill. Nothing is downloaded here.
//!
//! The cache's layout is that of `huggingface_hub` (its guide "Understand caching"): a folder a repository, in it
//! `refs/REVISION`, which names a commit, and `snapshots/COMMIT/…`, whose files link to `blobs/HASH`. The hash of a large
//! file is its SHA-256.

mod environment;

use crate::door;
use anyhow::{Result, bail};
use serde::Serialize;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A place on the hub: `hf://OWNER/NAME@REVISION/PATH`, with `datasets/` before the owner of a dataset, as in
/// `huggingface_hub`'s file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubPath {
    is_dataset: bool,
    repository: String,
    revision: String,
    path: String,
}

/// Something on the hub that is not in the cache.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Absent {
    /// Where it is.
    pub(crate) url: String,
    /// What fetches it.
    pub(crate) command: String,
    /// What stands for it in the run.
    pub(crate) path: PathBuf,
}

/// How such a place begins.
const SCHEME: &str = "hf://";
/// Bytes of a file of `refs`, which holds a commit, at the most.
const LONGEST_REF: u64 = 1 << 10;
/// Links from a name to a blob, at the most.
const MOST_LINKS: usize = 8;
/// Files that hold the weights of a checkpoint, or list those that do.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
/// Revisions of several parts that the hub makes itself: `refs/pr/1`, `refs/convert/parquet`.
const SPECIAL_REVISIONS: [&str; 2] = ["refs/pr/", "refs/convert/"];

impl HubPath {
    /// The place that `text` names; nothing where it is a path of this machine.
    ///
    /// # Errors
    ///
    /// When it begins like one and is none.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let Some(place) = text.strip_prefix(SCHEME) else {
            return Ok(None);
        };
        let (is_dataset, place) = match place.strip_prefix("datasets/") {
            Some(place) => (true, place),
            None => (false, place),
        };
        let none = || {
            anyhow::anyhow!(
                "`{text}` is no place on the hub: `hf://OWNER/NAME@REVISION/PATH`, with `datasets/` before the owner of a dataset, and `%2F` for each `/` of a revision but those of `refs/pr/1` and `refs/convert/parquet`"
            )
        };
        let (owner, rest) = place.split_once('/').ok_or_else(none)?;
        let at = rest.find(['@', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(at);
        let (revision, path) = match rest.strip_prefix('@') {
            Some(rest) => rest.split_at(end_of_revision(rest)),
            None => ("main", rest),
        };
        let revision = revision.replace("%2F", "/").replace("%2f", "/");
        let path = path.trim_matches('/');
        let fits = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !name.is_empty() && name.chars().all(fits) && !matches!(name, "." | "..")
        };
        let stays = |path: &str| {
            let mut parts = Path::new(path).components();
            parts.all(|part| matches!(part, Component::Normal(_))) && !path.contains(['\0', '\\'])
        };
        if !fits(owner)
            || !fits(name)
            || revision.is_empty()
            || !stays(&revision)
            || revision.split('/').any(str::is_empty)
            || !stays(path)
        {
            bail!(none());
        }
        Ok(Some(Self {
            is_dataset,
            repository: format!("{owner}/{name}"),
            revision,
            path: path.to_owned(),
        }))
    }

    /// Where it lies in the cache.
    ///
    /// # Errors
    ///
    /// What is missing, when the revision is not there.
    pub(crate) fn find(&self) -> Result<PathBuf, Absent> {
        self.find_in(&environment::cache_folder())
    }

    fn find_in(&self, cache: &Path) -> Result<PathBuf, Absent> {
        let kind = if self.is_dataset {
            "datasets"
        } else {
            "models"
        };
        let name = format!("{kind}--{}", self.repository.replace('/', "--"));
        let repository = cache.join(name);
        let commit = door::read_text(&repository.join("refs").join(&self.revision), LONGEST_REF);
        // A commit may be named itself.
        let commit = commit.map_or_else(|_| self.revision.clone(), |text| text.trim().to_owned());
        let is_commit = Path::new(&commit)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let snapshot = repository.join("snapshots").join(&commit);
        let path = snapshot.join(&self.path);
        let lacks = if is_commit && snapshot.is_dir() {
            match self.lacks(&path) {
                None => return Ok(path),
                Some(file) => file,
            }
        } else {
            ""
        };
        let flag = if self.is_dataset {
            " --repo-type dataset"
        } else {
            ""
        };
        let revision = if self.revision == "main" {
            String::new()
        } else {
            format!(" --revision {}", quoted(&self.revision))
        };
        let repository = quoted(&self.repository);
        Err(Absent {
            url: if lacks.is_empty() {
                self.to_string()
            } else {
                format!("{self}/{lacks}")
            },
            command: format!("hf download{flag} {repository}{revision}"),
            path,
        })
    }

    /// A file that a snapshot lacks of what is named: an interrupted download leaves a snapshot
    /// without some of its files, or links whose blobs are not there. Empty: the one that is named.
    fn lacks(&self, path: &Path) -> Option<&'static str> {
        if self.path.is_empty() && !self.is_dataset {
            let weights = WEIGHTS.iter().any(|name| path.join(name).exists());
            return match (path.join("config.json").exists(), weights) {
                (true, true) => None,
                (false, _) => Some("config.json"),
                (true, false) => Some(WEIGHTS[0]),
            };
        }
        if path.exists() {
            return None;
        }
        // A corpus and its maps are named by what their files have in common.
        let name = path.file_name().map(|name| name.to_string_lossy());
        let is_prefix = name
            .filter(|_| self.is_dataset)
            .is_some_and(|name| Self::is_prefix(path, &name));
        if is_prefix { None } else { Some("") }
    }

    /// Whether `.idx` and tokens of a corpus are there, whole or in shards such as
    /// `document-00000-of-00020.bin`, or maps. A shard or map that is missing among others is said
    /// when they are opened.
    fn is_prefix(path: &Path, name: &str) -> bool {
        let Some(Ok(entries)) = path.parent().map(fs::read_dir) else {
            return false;
        };
        let (mut index, mut tokens, mut maps) = (false, false, false);
        for entry in entries.flatten().filter(|entry| entry.path().exists()) {
            let found = entry.file_name();
            let found = found.to_string_lossy();
            let Some(rest) = found.strip_prefix(name) else {
                continue;
            };
            index |= rest == ".idx";
            let ends = |ending: &str| rest.strip_suffix(ending);
            tokens |= ends(".bin").is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            maps |= ends(".npy").is_some_and(|rest| rest.starts_with('_'));
        }
        (index && tokens) || (maps && !index && !tokens)
    }
}

/// A text as one word for a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Where a revision ends and a path begins: at the first `/`, but those of the revisions that the
/// hub makes itself.
fn end_of_revision(text: &str) -> usize {
    let special = SPECIAL_REVISIONS
        .iter()
        .find(|known| text.starts_with(**known));
    let begin = special.map_or(0, |known| known.len());
    text[begin..]
        .find('/')
        .map_or(text.len(), |end| begin + end)
}

impl std::fmt::Display for HubPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_dataset { "datasets/" } else { "" };
        write!(f, "{SCHEME}{kind}{}@{}", self.repository, self.revision)?;
        if self.path.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.path)
        }
    }
}

/// The SHA-256 that a file of the cache must have: the name of the first blob on the way of its
/// links. Today's cache links from there to another place, which is named otherwise.
pub(crate) fn known_sha256(path: &Path) -> Option<String> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let target = fs::read_link(&path).ok()?;
        path = path.parent()?.join(target);
        let in_blobs = path.parent()?.file_name()? == "blobs";
        let name = path.file_name()?.to_str()?;
        // Small files are named by their git hash, which is shorter.
        let is_sha256 = name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit());
        if in_blobs {
            return is_sha256.then(|| name.to_ascii_lowercase());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> HubPath {
        HubPath::parse(text).unwrap().unwrap()
    }

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in [
            "hf://EleutherAI/pythia-70m@step1000",
            "hf://datasets/EleutherAI/pile-standard-pythia-preshuffled@main/document",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
        assert_eq!(parsed("hf://a/b"), parsed("hf://a/b@main/"));
        assert_eq!(HubPath::parse("../data/b").unwrap(), None);
        let parts = |text: &str| {
            let HubPath {
                repository,
                revision,
                path,
                ..
            } = parsed(text);
            (repository, revision, path)
        };
        let cases = [
            ("hf://a/b@refs/pr/1", "refs/pr/1", ""),
            ("hf://a/b@refs/pr/1/c/d", "refs/pr/1", "c/d"),
            (
                "hf://a/b@refs/convert/parquet/c",
                "refs/convert/parquet",
                "c",
            ),
            ("hf://a/b@refs%2Fpr%2f1/c", "refs/pr/1", "c"),
            ("hf://a/b@v%2F2/c", "v/2", "c"),
            ("hf://a/b@step20/c@d", "step20", "c@d"),
            ("hf://a/b/c@d", "main", "c@d"),
        ];
        for (text, revision, path) in cases {
            let expected = ("a/b".to_owned(), revision.to_owned(), path.to_owned());
            assert_eq!(parts(text), expected, "{text}");
        }
        for text in [
            "hf://a",
            "hf://a/",
            "hf:///b",
            "hf://a/b@",
            "hf://a/b/../c",
            "hf://../b",
            "hf://a/..",
            "hf://a/b@..",
            "hf://a/b@x%2F..%2F..%2Fc",
            "hf://a/b@%2Fetc",
            "hf://a/b@refs/pr/",
            "hf://a/b@m/c/./..",
            "hf://a;b/c",
        ] {
            assert!(HubPath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_revision_is_found_in_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let place = parsed("hf://EleutherAI/pythia-70m@step1000");
        let absent = place.find_in(cache.path()).unwrap_err();
        assert_eq!(
            absent.command,
            "hf download EleutherAI/pythia-70m --revision step1000"
        );
        let repository = cache.path().join("models--EleutherAI--pythia-70m");
        let blob = repository.join("blobs").join("ab".repeat(32));
        let snapshot = repository.join("snapshots/0123abc");
        for folder in ["refs", "blobs", "snapshots/0123abc"] {
            fs::create_dir_all(repository.join(folder)).unwrap();
        }
        fs::write(repository.join("refs/step1000"), "0123abc").unwrap();
        fs::write(&blob, "weights").unwrap();
        std::os::unix::fs::symlink(&blob, snapshot.join("model.safetensors")).unwrap();
        // A download that was interrupted.
        let absent = place.find_in(cache.path()).unwrap_err();
        assert!(
            absent.url.ends_with("@step1000/config.json"),
            "{}",
            absent.url
        );
        fs::write(snapshot.join("config.json"), "{}").unwrap();
        let found = place.find_in(cache.path()).unwrap();
        assert_eq!(found, snapshot.join(""));
        let known = known_sha256(&found.join("model.safetensors"));
        assert_eq!(known, Some("ab".repeat(32)));
        assert_eq!(known_sha256(&found), None);
        let by_commit = parsed("hf://EleutherAI/pythia-70m@0123abc/model.safetensors");
        assert!(by_commit.find_in(cache.path()).unwrap().is_file());
    }

    #[test]
    fn the_hash_is_the_name_of_the_first_blob() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--a--b");
        let stored = cache.path().join("blobs/91").join("cd".repeat(32));
        for folder in ["blobs", "snapshots/0"] {
            fs::create_dir_all(repository.join(folder)).unwrap();
        }
        fs::create_dir_all(stored.parent().unwrap()).unwrap();
        fs::write(&stored, "weights").unwrap();
        // As `hf download` leaves a file of Xet's: the blob is a link itself.
        let blob = repository.join("blobs").join("ab".repeat(32));
        let link = |target: &str, link: &Path| std::os::unix::fs::symlink(target, link).unwrap();
        link(&format!("../../blobs/91/{}", "cd".repeat(32)), &blob);
        let file = repository.join("snapshots/0/model.safetensors");
        link(&format!("../../blobs/{}", "ab".repeat(32)), &file);
        assert_eq!(known_sha256(&file), Some("ab".repeat(32)));
        // Small files are named by their git hash, and links may go in a circle.
        let small = repository.join("snapshots/0/config.json");
        link(&format!("../../blobs/{}", "ef".repeat(20)), &small);
        assert_eq!(known_sha256(&small), None);
        let circle = repository.join("snapshots/0/circle");
        link("circle", &circle);
        assert_eq!(known_sha256(&circle), None);
    }

    #[test]
    fn a_command_is_quoted_for_a_shell() {
        assert_eq!(quoted("a/b-c_1.0"), "a/b-c_1.0");
        assert_eq!(quoted("x; rm y"), "'x; rm y'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
