//! What `memorization` must say of itself for an analysis to repeat: the entries of its metadata,
//! held to the limits of a run file.

use super::source::{CURE, Source};
use crate::config::Analysis;
use crate::failure;
use crate::tables::Footer;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Steps are counted in 31 bits.
const MOST_STEPS: u32 = i32::MAX.unsigned_abs();

/// The entries, typed.
pub(super) struct Provenance {
    pub(super) suite: String,
    pub(super) k: u16,
    pub(super) l: u16,
    pub(super) offset: u16,
    pub(super) corpora: BTreeMap<String, CorpusFacts>,
    pub(super) analysis: Analysis,
    /// The same as text, for the tables that are written.
    pub(super) footer: Footer,
}

/// What the tables say of a corpus beside its name.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct CorpusFacts {
    pub(crate) steps: u32,
    pub(crate) seed: u32,
    /// Tables of older versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch_size: Option<u32>,
}

impl Provenance {
    /// Reads the entries of `source`; `analysis` takes the place of what they say.
    ///
    /// # Errors
    ///
    /// When one is missing, cannot be read, or is beyond its limits.
    pub(super) fn of(source: &Source, analysis: Option<&Analysis>) -> Result<Self> {
        let wrong = |key: &str, problem: &dyn Display| {
            let path = source.file().display();
            failure::failed(
                format_args!("`{path}`: the entry `{key}` of its metadata {problem}"),
                CURE,
            )
        };
        let entry = |key: &str| {
            let text = source.entries.get(key);
            text.ok_or_else(|| wrong(key, &"is missing"))
        };
        let number = |key: &str, lo: u16| -> Result<u16> {
            let text = entry(key)?;
            let number = text.parse().ok().filter(|number| *number >= lo);
            number.ok_or_else(|| {
                let problem = format!("is `{text}`, not a whole number from {lo} to {}", u16::MAX);
                wrong(key, &problem)
            })
        };
        let unread = |key: &str, error: serde_json::Error| {
            wrong(key, &format_args!("cannot be read: {error}"))
        };
        let corpora: BTreeMap<String, CorpusFacts> =
            serde_json::from_str(entry("corpora")?).map_err(|error| unread("corpora", error))?;
        for (name, facts) in &corpora {
            let limits = [
                ("steps", Some(facts.steps)),
                ("batch_size", facts.batch_size),
            ];
            for (key, value) in limits {
                if let Some(value) = value.filter(|value| !(1..=MOST_STEPS).contains(value)) {
                    let problem = format!(
                        "says that `{key}` of `{name}` is {value}, not in 1 … {MOST_STEPS}"
                    );
                    return Err(wrong("corpora", &problem));
                }
            }
        }
        let read = || {
            let text = entry("analysis")?;
            let found: Analysis =
                serde_json::from_str(text).map_err(|error| unread("analysis", error))?;
            match found.problems().first() {
                None => Ok(found),
                Some((key, problem)) => Err(wrong(
                    "analysis",
                    &format_args!("is wrong: {key}: {problem}"),
                )),
            }
        };
        let analysis = analysis.map_or_else(read, |analysis| Ok(analysis.clone()))?;
        // Where models were asked, `weights`, too.
        let kept = [
            "suite", "k", "l", "offset", "corpora", "analysis", "weights",
        ];
        let entries = kept.iter().filter_map(|key| {
            let value = source.entries.get(*key)?;
            Some(((*key).to_owned(), value.clone()))
        });
        let mut footer = Footer(entries.collect());
        let text = serde_json::to_string(&analysis)?;
        footer.0.insert("analysis".to_owned(), text);
        Ok(Self {
            suite: entry("suite")?.clone(),
            k: number("k", 1)?,
            l: number("l", 1)?,
            offset: number("offset", 0)?,
            corpora,
            analysis,
            footer,
        })
    }

    /// What is known of a corpus.
    ///
    /// # Errors
    ///
    /// When it is none of the table's.
    pub(super) fn facts(&self, corpus: &str) -> Result<CorpusFacts> {
        let facts = self.corpora.get(corpus).copied();
        facts.with_context(|| format!("the table's metadata does not know its corpus `{corpus}`"))
    }
}
