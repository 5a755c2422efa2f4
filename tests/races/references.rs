//! The tables of run files that nothing disturbed.

use super::play::Arena;
use super::round::{Settings, Variant};
use crate::harness::is_hidden;
use crate::program::tables;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Tables = BTreeMap<PathBuf, Vec<u8>>;

/// The tables of each run file, made in a folder of their own.
pub(super) struct References(BTreeMap<Settings, Tables>);

impl References {
    pub(super) fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn of(&mut self, settings: Settings) -> Tables {
        let made = self.0.entry(settings).or_insert_with(|| {
            let arena = Arena::new();
            let ended = arena.finish(settings).unwrap();
            assert!(ended.is_success(), "{}", ended.tail());
            tables(&arena.out())
        });
        made.clone()
    }

    /// How the tables of `out` differ from those of this run file.
    pub(super) fn difference(&mut self, settings: Settings, out: &Path) -> Vec<String> {
        let whole = self.of(settings);
        // Verdicts on further checkpoints may be left of another run file.
        let more = self.of(Settings {
            variant: Variant::More,
            ..settings
        });
        let mut found = Vec::new();
        let mut left = tables(out);
        left.retain(|path, _| !is_hidden(path));
        for (path, bytes) in &whole {
            match left.get(path) {
                None => found.push(format!("{} is missing", path.display())),
                Some(now) if now != bytes => found.push(format!("{} differs", path.display())),
                Some(_) => {}
            }
        }
        for (path, bytes) in &left {
            let is_known = path.starts_with("verdicts") && more.get(path) == Some(bytes);
            if !whole.contains_key(path) && !is_known {
                found.push(format!("{} is too many", path.display()));
            }
        }
        found.truncate(6);
        found
    }
}
