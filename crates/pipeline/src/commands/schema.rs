//! `pipeline schema`: what stands in the tables, and what may stand in a run file.

use crate::config::KEYS;
use crate::tables::TABLES;
use crate::terminal;
use anyhow::Result;
use std::io::Write;

/// Prints every table, or every key of a run file, as Markdown.
///
/// # Errors
///
/// When stdout cannot be written.
pub(crate) fn schema(run_file: bool) -> Result<()> {
    let mut out = terminal::stdout();
    if run_file {
        writeln!(out, "| key | value | meaning |")?;
        writeln!(out, "| --- | --- | --- |")?;
        for key in KEYS {
            writeln!(out, "| `{}` | {} | {} |", key.path, key.value, key.about)?;
        }
        return Ok(());
    }
    for (place, table) in TABLES.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        write!(out, "{table}")?;
    }
    Ok(())
}
