//! The table `positions`, a stretch at a time.

use crate::tables::{POSITIONS, Slices};
use anyhow::{Context, Result, bail};
use polars::prelude::DataFrame;
use std::ops::Range;
use std::path::Path;

/// The table, and which of its rows are whose.
pub(super) struct Positions {
    table: Slices,
    stretches: Vec<Stretch>,
}

/// Rows of one corpus that follow one another.
pub(super) struct Stretch {
    corpus: String,
    rows: Range<usize>,
    /// Training index of its first row.
    pub(super) first: u32,
    /// Training index of its last row.
    pub(super) last: u32,
}

impl Positions {
    /// Finds out which rows are whose; `plan` begins a row group with each corpus.
    ///
    /// # Errors
    ///
    /// When the table is missing or damaged.
    pub(super) fn open(path: &Path, table: Slices) -> Result<Self> {
        let mut stretches = Vec::new();
        for rows in table.row_groups() {
            let ends = |offset| -> Result<(String, u32)> {
                let row = table.read(&["corpus", "training_index"], offset..offset + 1)?;
                let corpus = row.column("corpus")?.str()?.get(0);
                let index = row.column("training_index")?.u32()?.get(0);
                let missing = || format!("row {offset} of `{}` has no position", path.display());
                Ok((
                    corpus.with_context(missing)?.to_owned(),
                    index.with_context(missing)?,
                ))
            };
            let (corpus, first) = ends(rows.start)?;
            let (other, last) = ends(rows.end - 1)?;
            if corpus != other {
                bail!(
                    "the rows {} to {} of `{}` are of several corpora in one row group",
                    rows.start,
                    rows.end,
                    path.display()
                );
            }
            stretches.push(Stretch {
                corpus,
                rows,
                first,
                last,
            });
        }
        Ok(Self { table, stretches })
    }

    /// The stretches of a corpus, in the order of training.
    pub(super) fn of<'a>(&'a self, corpus: &'a str) -> impl Iterator<Item = &'a Stretch> {
        self.stretches
            .iter()
            .filter(move |stretch| stretch.corpus == corpus)
    }

    /// The rows of a stretch, without `corpus`, `row`, `sample` and `trained`.
    ///
    /// # Errors
    ///
    /// When the table cannot be read.
    pub(super) fn read(&self, stretch: &Stretch) -> Result<DataFrame> {
        let left_out = ["corpus", "row", "sample", "trained"];
        let columns: Vec<&str> = POSITIONS
            .column_names()
            .into_iter()
            .filter(|name| !left_out.contains(name))
            .collect();
        self.table.read(&columns, stretch.rows.clone())
    }
}
