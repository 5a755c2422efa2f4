//! Rows of text in aligned columns.

use std::io::{self, Write};

/// Writes `rows`, the first `n_left` columns aligned to the left, the others to the right.
///
/// # Errors
///
/// When `out` fails.
pub(super) fn write_columns<const N: usize>(
    out: &mut impl Write,
    rows: &[[String; N]],
    n_left: usize,
) -> io::Result<()> {
    let width = |place: usize| rows.iter().map(|row| row[place].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|place| width(place).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(place, (cell, &width))| {
            if place < n_left {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
