//! The output folder of a run: who may write to it, and who does.

mod admission;
mod discard;
mod occupancy;

pub(crate) use admission::{admit, admit_analysis, admit_file, refuse_conflicts};
pub(crate) use discard::discard;
pub(crate) use occupancy::Output;

use crate::manifest;
use crate::stages::ANALYSED;
use crate::tables::{EXPOSURES_BY_STEP, MEMORIZATION, POSITIONS, VERDICTS};

/// The files of a run with a place of their own in its folder, and the marks they carry.
fn places() -> impl Iterator<Item = (&'static str, crate::mark::Mark)> {
    use crate::mark::Mark;
    let tables = [&POSITIONS, &EXPOSURES_BY_STEP, &MEMORIZATION]
        .into_iter()
        .chain(ANALYSED);
    tables
        .map(|table| (table.path, Mark::Table(table.name)))
        .chain([(manifest::FILE, Mark::Record)])
}

/// The folders of a run in whose hive folders parts lie.
const DATASETS: [&str; 2] = [VERDICTS.name, MEMORIZATION.name];
