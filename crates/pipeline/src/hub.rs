//! Files of the Hugging Face hub, in the cache that its own tools fill. Nothing is downloaded here.
//!
//! The cache's layout is that of `huggingface_hub` (its guide "Understand caching"): a folder a repository, in it
//! `refs/REVISION`, which names a commit, and `snapshots/COMMIT/…`, whose files link to `blobs/HASH`. The hash of a large
//! file is its SHA-256.

use anyhow::{Result, bail};
use serde::Serialize;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

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
        let mut parts = place.splitn(3, '/');
        let (owner, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let path = parts.next().unwrap_or("").trim_end_matches('/');
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        if owner.is_empty() || name.is_empty() || revision.is_empty() || path.contains("..") {
            bail!(
                "`{text}` is no place on the hub: `hf://OWNER/NAME@REVISION/PATH`, with `datasets/` before the owner of a dataset"
            );
        }
        Ok(Some(Self {
            is_dataset,
            repository: format!("{owner}/{name}"),
            revision: revision.to_owned(),
            path: path.to_owned(),
        }))
    }

    /// Where it lies in the cache.
    ///
    /// # Errors
    ///
    /// What is missing, when the revision is not there.
    pub(crate) fn find(&self) -> Result<PathBuf, Absent> {
        self.find_in(&cache_folder())
    }

    fn find_in(&self, cache: &Path) -> Result<PathBuf, Absent> {
        let kind = if self.is_dataset {
            "datasets"
        } else {
            "models"
        };
        let name = format!("{kind}--{}", self.repository.replace('/', "--"));
        let repository = cache.join(name);
        let commit = fs::read_to_string(repository.join("refs").join(&self.revision));
        // A commit may be named itself.
        let commit = commit.map_or_else(|_| self.revision.clone(), |text| text.trim().to_owned());
        let snapshot = repository.join("snapshots").join(commit);
        let path = snapshot.join(&self.path);
        if snapshot.is_dir() {
            return Ok(path);
        }
        let flag = if self.is_dataset {
            " --repo-type dataset"
        } else {
            ""
        };
        let revision = if self.revision == "main" {
            String::new()
        } else {
            format!(" --revision {}", self.revision)
        };
        Err(Absent {
            url: self.to_string(),
            command: format!("hf download{flag} {}{revision}", self.repository),
            path,
        })
    }
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

/// The SHA-256 that a file of the cache must have: the name of the blob that it links to.
pub(crate) fn known_sha256(path: &Path) -> Option<String> {
    let blob = fs::canonicalize(path).ok()?;
    let in_blobs = blob.parent()?.file_name()? == "blobs";
    let name = blob.file_name()?.to_str()?;
    // Small files are named by their git hash, which is shorter.
    let is_sha256 = name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit());
    (in_blobs && is_sha256).then(|| name.to_ascii_lowercase())
}

/// Where `huggingface_hub` keeps its cache (its guide "Environment variables").
fn cache_folder() -> PathBuf {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("HF_HUB_CACHE") {
        return cache.into();
    }
    if let Some(home) = variable("HF_HOME") {
        return PathBuf::from(home).join("hub");
    }
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(variable("HOME").unwrap_or_default()).join(".cache"));
    cache.join("huggingface/hub")
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
        for text in ["hf://a", "hf://a/", "hf:///b", "hf://a/b@", "hf://a/b/../c"] {
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
        let found = place.find_in(cache.path()).unwrap();
        assert_eq!(found, snapshot.join(""));
        let known = known_sha256(&found.join("model.safetensors"));
        assert_eq!(known, Some("ab".repeat(32)));
        assert_eq!(known_sha256(&found), None);
        let by_commit = parsed("hf://EleutherAI/pythia-70m@0123abc/model.safetensors");
        assert!(by_commit.find_in(cache.path()).unwrap().is_file());
    }
}
