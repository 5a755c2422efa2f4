//! Which files of a folder hold the weights, and what the list of shards says of them.

use super::LoadError;
use super::opened::{OpenFile, exists};
use crate::json;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Bytes of a list of shards.
const LONGEST: u64 = 16 << 20;

/// Where the weights of a checkpoint are.
pub(super) struct WeightFiles {
    /// Of one file, or of the shards: their paths in the folder.
    pub(super) files: Vec<PathBuf>,
    /// The list of shards, where there is one.
    pub(super) list: Option<OpenFile>,
    /// By tensor: path in the folder of the file that the list places it in.
    pub(super) places: BTreeMap<String, PathBuf>,
}

impl WeightFiles {
    /// The one file of weights, or its shards; safetensors before PyTorch's.
    pub(super) fn find(folder: &Path) -> Result<Self, LoadError> {
        for name in ["model.safetensors", "pytorch_model.bin"] {
            if exists(&folder.join(name))? {
                return Ok(Self {
                    files: vec![name.into()],
                    list: None,
                    places: BTreeMap::new(),
                });
            }
            let path = folder.join(format!("{name}.index.json"));
            if !exists(&path)? {
                continue;
            }
            let list = OpenFile::open(&path)?;
            let places = places(&path, &list.read_all(LONGEST)?)?;
            let files: BTreeSet<&PathBuf> = places.values().collect();
            return Ok(Self {
                files: files.into_iter().cloned().collect(),
                list: Some(list),
                places,
            });
        }
        Err(LoadError::NoWeights {
            folder: folder.to_owned(),
        })
    }
}

/// Reads a `weight_map`.
fn places(path: &Path, text: &[u8]) -> Result<BTreeMap<String, PathBuf>, LoadError> {
    let wrong = |problem: String| LoadError::ShardList {
        path: path.to_owned(),
        problem,
    };
    let list = json::parse(text).map_err(|error| wrong(error.to_string()))?;
    let map = match list.get("weight_map") {
        Some(Value::Object(map)) if !map.is_empty() => map,
        Some(Value::Object(_)) => return Err(wrong("its `weight_map` is empty".to_owned())),
        _ => return Err(wrong("it has no object `weight_map`".to_owned())),
    };
    let mut places = BTreeMap::new();
    for (tensor, name) in map {
        let Value::String(name) = name else {
            let problem = format!("the file of the tensor {tensor:?} is {name}, not a name");
            return Err(wrong(problem));
        };
        let inside = inside(name).map_err(|problem| {
            wrong(format!(
                "the file of the tensor {tensor:?} is {name:?}, which {problem}"
            ))
        })?;
        places.insert(tensor.clone(), inside);
    }
    Ok(places)
}

/// The path that a list names, which must stay in the list's folder.
fn inside(name: &str) -> Result<PathBuf, &'static str> {
    if name.chars().any(char::is_control) {
        return Err("holds control characters");
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err("leads out of the checkpoint's folder");
            }
        }
    }
    if path.as_os_str().is_empty() {
        return Err("names no file");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_their_folder() {
        for (name, expected) in [
            ("a.safetensors", "a.safetensors"),
            ("weights/a.safetensors", "weights/a.safetensors"),
            ("./weights//a b.bin", "weights/a b.bin"),
            ("..a.bin", "..a.bin"),
        ] {
            assert_eq!(inside(name), Ok(expected.into()), "{name}");
        }
        for name in [
            "",
            ".",
            "./",
            "/a",
            "../a",
            "a/../b",
            "a/..",
            "a\nb",
            "a\0b",
            "\u{1b}[2J",
        ] {
            assert!(inside(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn lists_that_are_none_are_refused_by_name() {
        for (text, problem) in [
            ("[]", "it has no object `weight_map`"),
            ("{\"weight_map\": {}}", "`weight_map` is empty"),
            (
                "{\"weight_map\": {\"t\": 3}}",
                "the tensor \"t\" is 3, not a name",
            ),
            (
                "{\"weight_map\": {\"t\": \"/x\"}}",
                "leads out of the checkpoint's folder",
            ),
            (
                "{\"weight_map\": {\"t\": \"a\", \"t\": \"b\"}}",
                "\"t\" stands twice",
            ),
            ("{\"weight_map\": {\"t\": \"a\"}", "EOF"),
        ] {
            let error = places(Path::new("list.json"), text.as_bytes()).unwrap_err();
            let words = error.to_string();
            assert!(
                words.contains("`list.json`") && words.contains(problem),
                "{words}"
            );
            assert!(error.hint().is_some());
        }
    }
}
