//! The stages of a run: they meet only in the parquet files of the output folder.

mod join;
mod plan;
mod probe;
mod units;

pub(crate) use join::{Summary, SummaryRow, join};
pub(crate) use plan::plan;
pub(crate) use probe::probe;

use crate::config::Run;
use crate::tables::Footer;

/// The entries that every table of a run carries.
fn footer(run: &Run) -> Footer {
    let entries = [
        ("suite", run.suite.clone()),
        ("k", run.probe.k.to_string()),
        ("l", run.probe.l.to_string()),
        ("offset", run.probe.offset.to_string()),
    ];
    Footer(entries.map(|(key, value)| (key.to_owned(), value)).into())
}
