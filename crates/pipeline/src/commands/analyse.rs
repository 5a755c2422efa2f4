//! `pipeline analyse`: the statistics anew, from the table `memorization` alone.

use super::run::enter;
use crate::claims::Work;
use crate::config::{Analysis, Overrides, Run, absolute};
use crate::description::Description;
use crate::output;
use crate::stages::{self, ANALYSED, Analysed, Conclusion};
use crate::tables::Pending;
use crate::terminal;
use anyhow::Result;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Analyses what `path` is or holds, and says what was found.
///
/// # Errors
///
/// When there is no such table, it cannot be read, or the results cannot be written.
pub(crate) fn analyse(path: &Path, out: Option<&Path>) -> Result<()> {
    let is_run_file = path.extension().is_some_and(|ending| ending == "toml");
    let (folder, analysed) = if is_run_file {
        let run = Run::load(path, &Overrides::default())?;
        let folder = out.map_or_else(|| run.out.clone(), Path::to_owned);
        let analysed = write(&run.out, &folder, Some(&run.analysis))?;
        (folder, analysed)
    } else {
        let whole;
        let beside = if path.is_dir() && !stages::is_dataset(path) {
            path
        } else if path.file_name().is_some() {
            path.parent().unwrap_or(Path::new(""))
        } else {
            // A folder such as `.` has a parent only by its name.
            whole = path.canonicalize()?;
            whole.parent().unwrap_or(&whole)
        };
        let folder = out.unwrap_or(beside).to_owned();
        let analysed = write(path, &folder, None)?;
        (folder, analysed)
    };
    let mut stdout = terminal::stdout();
    show(&mut stdout, &analysed.conclusions)?;
    writeln!(stdout)?;
    for table in ANALYSED {
        writeln!(stdout, "{}", folder.join(table.path).display())?;
    }
    Ok(())
}

/// Analyses the table at `source` and writes to the folder `out`, as the only one there.
fn write(source: &Path, out: &Path, analysis: Option<&Analysis>) -> Result<Analysed> {
    let out = absolute(out);
    output::admit_analysis(source, &out)?;
    let record = json!({"run": {"analysis": analysis, "analysed": absolute(source)}});
    let text = serde_json::to_vec(&record)?;
    let output = enter(&out, Description::of_record(&record), text, Work::default())?;
    let mut pending = Pending::default();
    let analysed = stages::analyse(source, &out, analysis, &mut pending)?;
    pending.land(&|| output.check())?;
    Ok(analysed)
}

/// Writes the answer for each model, at its last checkpoint.
///
/// # Errors
///
/// When `out` cannot be written.
pub(crate) fn show(out: &mut impl Write, conclusions: &[Conclusion]) -> Result<()> {
    writeln!(
        out,
        "Among the sequences that each model had seen at its last checkpoint:"
    )?;
    for found in conclusions {
        write!(
            out,
            "  {}, {}, checkpoint {}: ",
            found.key.model, found.key.corpus, found.key.checkpoint
        )?;
        if let (Some(ratio), Some((lo, hi))) = (found.rate_ratio, found.interval) {
            write!(out, "late/early {ratio:.3} [{lo:.3}, {hi:.3}]; ")?;
        }
        writeln!(out, "{}", found.sentence)?;
    }
    Ok(())
}
