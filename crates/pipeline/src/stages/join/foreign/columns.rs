//! The verdicts on one probe set: gathered in the order of the file, then sorted.

use crate::door::Verdict;
use polars::prelude::*;

/// Rows of a set, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Rows {
    row: Vec<u64>,
    training_index: Vec<u32>,
    verdicts: Vec<Verdict>,
}

/// Rows of a set, ascending by training index.
#[derive(Debug)]
pub(super) struct Judged {
    /// The columns that the file has.
    pub(super) frame: DataFrame,
    pub(super) training_index: Vec<u32>,
    /// Where each stands in the file.
    pub(super) row: Vec<u64>,
}

/// Why rows cannot be sorted.
#[derive(Debug)]
pub(super) enum Unsorted {
    Twice { index: u32, row: u64, before: u64 },
    Polars(PolarsError),
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty()
    }

    pub(super) fn push(&mut self, row: u64, training_index: u32, verdict: &Verdict) {
        self.row.push(row);
        self.training_index.push(training_index);
        self.verdicts.push(*verdict);
    }

    /// The same rows, ascending, with the columns that the file has, and `memorized` where it
    /// follows.
    ///
    /// # Errors
    ///
    /// When a training index stands there twice.
    pub(super) fn sorted(self, names: &[&str]) -> Result<Judged, Unsorted> {
        let Self {
            row,
            training_index,
            verdicts,
        } = self;
        let mut order: Vec<usize> = (0..row.len()).collect();
        if !training_index.is_sorted() {
            order.sort_by_key(|&place| (training_index[place], row[place]));
        }
        for pair in order.windows(2) {
            let [before, place] = [pair[0], pair[1]];
            if training_index[before] == training_index[place] {
                return Err(Unsorted::Twice {
                    index: training_index[place],
                    row: row[place],
                    before: row[before],
                });
            }
        }
        let indices: Vec<u32> = order.iter().map(|&place| training_index[place]).collect();
        let counts = |name: &str, of: fn(&Verdict) -> Option<u16>| {
            let values = order.iter().map(|&place| of(&verdicts[place]));
            UInt16Chunked::from_iter_options(name.into(), values).into_column()
        };
        let reals = |name: &str, of: fn(&Verdict) -> Option<f32>| {
            let values = order.iter().map(|&place| of(&verdicts[place]));
            Float32Chunked::from_iter_options(name.into(), values).into_column()
        };
        let flags = |name: &str, of: fn(&Verdict) -> Option<bool>| {
            let values = order.iter().map(|&place| of(&verdicts[place]));
            BooleanChunked::from_iter_options(name.into(), values).into_column()
        };
        let mut columns = vec![Column::new("training_index".into(), &indices)];
        for &name in names {
            columns.push(match name {
                "n_prefix_matched" => counts(name, |verdict| verdict.n_prefix_matched),
                "margin" => reals(name, |verdict| verdict.margin),
                "near_tie" => flags(name, |verdict| verdict.near_tie),
                "n_matched" => counts(name, |verdict| verdict.n_matched),
                "surprisal" => reals(name, |verdict| verdict.surprisal),
                "logp_suffix" => reals(name, |verdict| verdict.logp_suffix),
                "n_top1" => counts(name, |verdict| verdict.n_top1),
                _ => continue,
            });
        }
        columns.push(flags("memorized", |verdict| verdict.memorized));
        let frame = DataFrame::new(indices.len(), columns).map_err(Unsorted::Polars)?;
        Ok(Judged {
            frame,
            row: order.iter().map(|&place| row[place]).collect(),
            training_index: indices,
        })
    }
}
