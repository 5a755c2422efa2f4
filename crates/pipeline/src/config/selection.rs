//! Which sequences of a corpus are probed: all, a sample, a list, or windows around checkpoints.

use super::Problems;
use super::run_file::{ListTable, SampleTable, WindowsTable};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use training_order::BatchPosition;

/// Which sequences of a corpus are probed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Selection {
    Census,
    Sample(Sample),
    List(PathBuf),
    Windows(Windows),
}

/// A sample of sequences: as many adjacent rows of every so many steps.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Steps from one to the next, from step 0 on.
    pub(crate) every: u32,
    #[serde(flatten)]
    pub(crate) rows: Rows,
}

/// The sequences of the last steps before each checkpoint, and of the next ones after it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Windows {
    /// Steps on either side.
    pub(crate) steps: u32,
    /// Rows of each step; none for all.
    #[serde(flatten)]
    pub(crate) rows: Option<Rows>,
}

/// Adjacent rows of a step. The loader has shuffled the sequences, so that adjacent rows are as random as any, and a
/// preshuffled corpus is read in few places.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Rows {
    pub(crate) rows: u32,
    pub(crate) seed: u32,
}

/// The one selection that the tables of a corpus name; its files are not opened here.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the tables as they were read, of which nothing is left"
)]
pub(super) fn check_selection(
    sample: Option<SampleTable>,
    list: Option<ListTable>,
    windows: Option<WindowsTable>,
    (steps, batch_size): (u32, u32),
    place: &dyn Fn(&str) -> String,
    problems: &mut Problems,
) -> Selection {
    if [sample.is_some(), list.is_some(), windows.is_some()]
        .into_iter()
        .filter(|given| *given)
        .count()
        > 1
    {
        problems.add(
            &place("sample"),
            "give one of `sample`, `list` and `windows`, or none to probe every sequence",
        );
    }
    if let Some(SampleTable { every, rows, seed }) = sample {
        return Selection::Sample(Sample {
            every: problems.within(&place("sample.every"), every, 1, steps.max(1)),
            rows: Rows {
                rows: problems.within(&place("sample.rows"), rows, 1, batch_size),
                seed,
            },
        });
    }
    if let Some(ListTable { file }) = list {
        let path = problems.resolve(&place("list.file"), &file);
        if crate::lists::format(&path).is_none() {
            problems.add(
                &place("list.file"),
                format_args!("`{file}` is neither a `.parquet` nor a `.csv` file"),
            );
        }
        return Selection::List(path);
    }
    let Some(WindowsTable {
        steps: width,
        rows,
        seed,
    }) = windows
    else {
        return Selection::Census;
    };
    let width = problems.within(&place("windows.steps"), width, 1, steps.max(1));
    let end = u64::from(steps.saturating_add(width)) * u64::from(batch_size);
    if end > u64::from(u32::MAX) {
        problems.add(
            &place("windows.steps"),
            format_args!(
                "{width} steps after the last one are sequence {end}, beyond what a table counts"
            ),
        );
    }
    let rows = match (rows, seed) {
        (None, None) => None,
        (Some(rows), Some(seed)) => Some(Rows {
            rows: problems.within(&place("windows.rows"), rows, 1, batch_size),
            seed,
        }),
        _ => {
            problems.add(
                &place("windows.rows"),
                "`rows` and `seed` go together: give both, or none to probe whole steps",
            );
            None
        }
    };
    Selection::Windows(Windows { steps: width, rows })
}

impl Sample {
    /// Whether a sequence is one of the sample.
    pub(crate) fn holds(&self, place: BatchPosition, batch_size: u32) -> bool {
        let row = || {
            place
                .row
                .checked_sub(self.rows.first(place.step, batch_size))
        };
        place.step.is_multiple_of(self.every) && row().is_some_and(|row| row < self.rows.rows)
    }
}

impl Rows {
    /// The first row of a step's: the first 8 bytes of the SHA-256 of `SEED:STEP`, as a little-endian number, modulo
    /// the places there are.
    pub(crate) fn first(self, step: u32, batch_size: u32) -> u32 {
        let hash = Sha256::digest(format!("{}:{step}", self.seed));
        let first = hash.iter().take(8).rev();
        let number = first.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let n_places = u64::from(batch_size.saturating_sub(self.rows)) + 1;
        // A place in a batch.
        u32::try_from(number % n_places).unwrap_or(0)
    }

    /// Training indices of a step.
    pub(crate) fn of_step(self, step: u32, batch_size: u32) -> Range<u64> {
        let first =
            u64::from(step) * u64::from(batch_size) + u64::from(self.first(step, batch_size));
        first..first + u64::from(self.rows)
    }
}

impl Windows {
    /// The steps in the windows of these checkpoints: ascending, and each once.
    pub(crate) fn ranges(&self, mut checkpoints: Vec<u32>) -> Vec<Range<u32>> {
        checkpoints.sort_unstable();
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for checkpoint in checkpoints {
            let window =
                checkpoint.saturating_sub(self.steps)..checkpoint.saturating_add(self.steps);
            match ranges.last_mut() {
                Some(last) if window.start <= last.end => last.end = last.end.max(window.end),
                _ => ranges.push(window),
            }
        }
        ranges
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |rows: Option<Rows>| {
            rows.map_or_else(
                || "all rows".to_owned(),
                |rows| format!("{} rows", rows.rows),
            )
        };
        match self {
            Self::Census => f.write_str("every sequence"),
            Self::Sample(Sample { every, rows }) => {
                write!(f, "{} of every {every} steps", of(Some(*rows)))
            }
            Self::List(path) => match path.file_name() {
                Some(name) => write!(f, "those of {}", name.to_string_lossy()),
                None => f.write_str("those of a list"),
            },
            Self::Windows(Windows { steps, rows }) => {
                write!(f, "{} of {steps} steps around checkpoints", of(*rows))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_can_be_drawn_again_elsewhere() {
        let sample = Rows { rows: 24, seed: 7 };
        // int.from_bytes(hashlib.sha256(f"7:{step}".encode()).digest()[:8], "little") % 1001
        let rows: Vec<u32> = (0..4).map(|step| sample.first(step, 1024)).collect();
        assert_eq!(rows, [400, 367, 460, 345]);
        assert_eq!(sample.first(5, 24), 0);
    }

    #[test]
    fn windows_that_overlap_or_touch_are_one() {
        let windows = Windows {
            steps: 10,
            rows: None,
        };
        assert_eq!(windows.ranges(vec![100, 4, 120, 15]), [0..25, 90..130]);
        assert_eq!(windows.ranges(vec![50, 71]), [40..60, 61..81]);
    }
}
