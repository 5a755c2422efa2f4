//! `model.checkpoints`: numbers, ranges and words, from the text to the steps.

use super::{MOST_CHECKPOINTS, Problems};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Stands for a checkpoint's optimizer steps.
const STEP: &str = "{checkpoint}";
/// Stands for the number in the name of its revision.
const REVISION: &str = "{revision}";

/// The key as it is written.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected steps, a range or a word, or a list of them"
)]
pub(super) enum Checkpoints {
    One(Written),
    Several(Vec<Written>),
}

/// One entry of it.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected steps, or a text: `1000..=143000 by 1000`, `all` or `log-spaced`"
)]
pub(super) enum Written {
    Steps(u32),
    Text(String),
}

/// The folder of a checkpoint, with a place for its number.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) text: String,
    /// What a checkpoint's steps are multiplied by in the name of its revision.
    pub(super) revision_factor: u32,
}

impl Checkpoints {
    /// The steps that are meant, those of `available` standing for `all`; no step after `last` is made of a range.
    pub(super) fn resolve(
        self,
        available: impl Fn() -> Result<BTreeSet<u32>, String>,
        last: u32,
        place: &str,
        problems: &mut Problems,
    ) -> BTreeSet<u32> {
        let entries = match self {
            Self::One(entry) => vec![entry],
            Self::Several(entries) => entries,
        };
        let (mut steps, mut given) = (BTreeSet::new(), BTreeSet::new());
        for entry in entries {
            let text = match entry {
                Written::Steps(step) => {
                    if !given.insert(step) {
                        problems.add(place, format_args!("{step} is given twice"));
                    }
                    continue;
                }
                Written::Text(text) => text,
            };
            let found = match (text.as_str(), parse_range(&text)) {
                ("all", _) => available(),
                ("log-spaced", _) => available().map(|available| log_spaced(&available)),
                (_, Some((first, end, by))) if end <= last => {
                    let n = (end - first) as usize / by as usize + 1;
                    if n > MOST_CHECKPOINTS {
                        Err(format!(
                            "`{text}`: {n} checkpoints are more than {MOST_CHECKPOINTS}"
                        ))
                    } else {
                        Ok((first..=end).step_by(by as usize).collect())
                    }
                }
                (_, Some((_, end, _))) => {
                    Err(format!("`{text}`: {end} lies after the last step, {last}"))
                }
                _ => Err(match text.trim_start_matches("step").parse::<u32>() {
                    Ok(number) => format!("`{text}`: write the number of steps alone, {number}"),
                    Err(_) => format!(
                        "`{text}` is neither `all` nor `log-spaced` nor a range such as `1000..=143000 by 1000`"
                    ),
                }),
            };
            match found {
                Ok(found) => steps.extend(found),
                Err(problem) => problems.add(place, problem),
            }
        }
        steps.extend(given);
        steps
    }
}

impl Template {
    /// Whether it names another folder for another checkpoint.
    pub(super) fn varies(&self) -> bool {
        self.text.contains(STEP) || self.names_revisions()
    }

    /// Whether it says where the revision's number stands.
    pub(super) fn names_revisions(&self) -> bool {
        self.text.contains(REVISION)
    }

    /// The folder of a checkpoint.
    pub(super) fn fill(&self, steps: u32) -> String {
        let revision = u64::from(steps) * u64::from(self.revision_factor);
        self.text
            .replace(STEP, &steps.to_string())
            .replace(REVISION, &revision.to_string())
    }

    /// The checkpoints whose folders exist, the template being relative to `base`.
    ///
    /// # Errors
    ///
    /// When there is none, or no place for a number.
    pub(super) fn existing(&self, base: &Path) -> Result<BTreeSet<u32>, String> {
        let text = &self.text;
        let none = || format!("no folder is there for `{text}`");
        let (place, divisor) = if text.contains(STEP) {
            (STEP, 1)
        } else {
            (REVISION, self.revision_factor.max(1))
        };
        let (before, after) = text
            .split_once(place)
            .ok_or_else(|| format!("`{text}` has no `{STEP}`: it names one checkpoint only"))?;
        let (parent, prefix) = before
            .rfind('/')
            .map_or(("", before), |slash| before.split_at(slash + 1));
        let suffix = after.split('/').next().unwrap_or_default();
        let entries = fs::read_dir(base.join(parent)).map_err(|_| none())?;
        let mut found = BTreeSet::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix(prefix));
            let number = name.and_then(|name| name.strip_suffix(suffix)?.parse::<u32>().ok());
            let steps = number.filter(|number| number.is_multiple_of(divisor));
            // What is written otherwise, such as `007`, is no folder that a run would ask for.
            let steps = steps.map(|number| number / divisor);
            found.extend(steps.filter(|&steps| base.join(self.fill(steps)).is_dir()));
        }
        if found.is_empty() {
            return Err(none());
        }
        Ok(found)
    }
}

/// `A..=B by N`, or `A..=B` for every step.
fn parse_range(text: &str) -> Option<(u32, u32, u32)> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u32>().ok();
    let (first, rest) = text.split_once("..=")?;
    let (last, by) = rest.split_once(" by ").unwrap_or((rest, "1"));
    let (first, last, by) = (number(first)?, number(last)?, number(by)?);
    (first <= last && by > 0).then_some((first, last, by))
}

/// The first checkpoint after step 0, then each time the one nearest to twice the steps, to the last one: of Pythia's
/// 1, 2, 4 … 512, 1000, 2000, 4000 … 128,000 and 143,000.
fn log_spaced(available: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut spaced = BTreeSet::new();
    let mut next = available.iter().copied().find(|steps| *steps > 0);
    while let Some(steps) = next {
        spaced.insert(steps);
        let later = available.range(steps + 1..);
        let wanted = steps.saturating_mul(2);
        next = later.copied().min_by_key(|later| later.abs_diff(wanted));
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_meant() {
        assert_eq!(
            parse_range("1000..=143_000 by 1000"),
            Some((1000, 143_000, 1000))
        );
        assert_eq!(parse_range("0 ..= 7"), Some((0, 7, 1)));
        for text in ["1..5", "5..=1", "0..=4 by 0", "..=4", "1..=x", "1..=4by 2"] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }

    #[test]
    fn log_spaced_doubles_and_ends_with_the_last() {
        let pythia = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
        let pythia: BTreeSet<u32> = pythia
            .into_iter()
            .chain((1..=143).map(|n| n * 1000))
            .collect();
        let spaced: Vec<u32> = log_spaced(&pythia).into_iter().collect();
        assert_eq!(
            spaced,
            [
                1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16_000, 32_000,
                64_000, 128_000, 143_000
            ]
        );
        let mini: Vec<u32> = log_spaced(&[600, 1200, 1800, 2400].into())
            .into_iter()
            .collect();
        assert_eq!(mini, [600, 1200, 2400]);
        assert!(log_spaced(&[0].into()).is_empty());
    }
}
