//! `pipeline run`: order, probes, join; then a summary and the paths of the tables.

use super::check;
use crate::cli::{RunOptions, Stage};
use crate::config::{Overrides, Run};
use crate::failure;
use crate::inputs::{self, Depth, Inputs};
use crate::judges::Recheck;
use crate::manifest::{self, Manifest};
use crate::progress;
use crate::stages::{self, Summary, SummaryRow};
use crate::tables::{EXPOSURES_BY_STEP, MEMORIZATION, MEMORIZATION_BY_TIME, POSITIONS, VERDICTS};
use anyhow::{Context, Result};
use indicatif::HumanCount;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Instant;

/// Runs the run file at `file`.
///
/// # Errors
///
/// What is wrong with the run file, its inputs or its output folder, before any work; later, what kept a
/// stage from finishing.
pub(crate) fn run(file: &Path, options: &RunOptions) -> Result<()> {
    let overrides = Overrides {
        out: options.out.clone(),
        device: options.device.clone(),
    };
    let run = Run::load(file, &overrides)?;
    check::warn(&run);
    let inputs = inputs::open(&run, Depth::Headers)?;
    if options.fresh {
        discard(&run)?;
    }
    let mut manifest = Manifest::new(std::path::absolute(file)?, &run, &inputs);
    manifest.write().map_err(|error| {
        failure::failed(
            format_args!(
                "the output folder `{}` cannot be written: {error:#}",
                run.out.display()
            ),
            "name another folder with `--out`, or in the run file",
        )
    })?;
    let summary = run_stages(&run, &inputs, options.only, &mut manifest)?;
    manifest.finish();
    manifest.write()?;
    match summary {
        Some(summary) => show(&run, &summary),
        None => Ok(()),
    }
}

fn run_stages(
    run: &Run,
    inputs: &Inputs,
    only: Option<Stage>,
    manifest: &mut Manifest<'_>,
) -> Result<Option<Summary>> {
    let wanted = |stage| only.is_none_or(|only| only == stage);
    if wanted(Stage::Plan) {
        let started = Instant::now();
        let planned = stages::plan(run, inputs)?;
        manifest.rows(POSITIONS.name, planned.n_positions);
        manifest.rows(EXPOSURES_BY_STEP.name, planned.n_exposures);
        manifest.seconds("plan", started.elapsed().as_secs_f64());
    }
    if wanted(Stage::Probe) {
        let started = Instant::now();
        let probed = stages::probe(run, inputs)?;
        manifest.rows(VERDICTS.name, probed.n_verdicts);
        manifest.resumed(probed.n_resumed);
        manifest.recheck(probed.recheck);
        let Recheck { n, n_changed } = probed.recheck;
        if run.probe.recheck {
            progress::say(&format!(
                "recheck: {} near ties judged again in f32, {} with another result",
                HumanCount(n),
                HumanCount(n_changed)
            ));
        }
        manifest.seconds("probe", started.elapsed().as_secs_f64());
    }
    if !wanted(Stage::Join) {
        return Ok(None);
    }
    let started = Instant::now();
    let summary = stages::join(run, inputs)?;
    manifest.rows(MEMORIZATION.name, summary.n_memorization);
    manifest.rows(MEMORIZATION_BY_TIME.name, summary.n_by_time);
    manifest.seconds("join", started.elapsed().as_secs_f64());
    Ok(Some(summary))
}

/// Removes what a run writes, and nothing else that may lie in the folder.
fn discard(run: &Run) -> Result<()> {
    let files = [
        manifest::FILE,
        POSITIONS.path,
        EXPOSURES_BY_STEP.path,
        MEMORIZATION.path,
        MEMORIZATION_BY_TIME.path,
    ];
    let removed = files.map(|file| (run.out.join(file), fs::remove_file(run.out.join(file))));
    let verdicts = run.out.join(VERDICTS.name);
    let folder = fs::remove_dir_all(&verdicts);
    for (path, result) in removed.into_iter().chain([(verdicts, folder)]) {
        match result {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("discarding `{}`", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes the summary table and the paths of the tables to stdout.
fn show(run: &Run, summary: &Summary) -> Result<()> {
    const HEADER: [&str; 8] = [
        "corpus",
        "model",
        "checkpoint",
        "sequences",
        "memorized",
        "rate",
        "seen early",
        "seen late",
    ];
    let mut lines = vec![HEADER.map(str::to_owned)];
    lines.extend(summary.rows.iter().map(cells));
    let mut out = std::io::stdout().lock();
    for line in &lines {
        for (place, cell) in line.iter().enumerate() {
            let width = lines
                .iter()
                .map(|line| line[place].chars().count())
                .max()
                .unwrap_or(0);
            match place {
                0 | 1 => write!(out, "{cell:<width$}  ")?,
                7 => write!(out, "{cell:>width$}")?,
                _ => write!(out, "{cell:>width$}  ")?,
            }
        }
        writeln!(out)?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "memorized: greedy decoding of {} tokens after a prompt of {} equals the training text",
        run.probe.l, run.probe.k
    )?;
    writeln!(
        out,
        "seen early, late: rate among the sequences of the first and second half of the steps trained so far"
    )?;
    writeln!(out)?;
    for path in [
        POSITIONS.path,
        EXPOSURES_BY_STEP.path,
        VERDICTS.name,
        MEMORIZATION.path,
        MEMORIZATION_BY_TIME.path,
        manifest::FILE,
    ] {
        writeln!(out, "{}", run.out.join(path).display())?;
    }
    Ok(())
}

fn cells(row: &SummaryRow) -> [String; 8] {
    [
        row.corpus.clone(),
        row.model.clone(),
        row.checkpoint.to_string(),
        HumanCount(u64::from(row.n)).to_string(),
        HumanCount(u64::from(row.n_memorized)).to_string(),
        percent((row.n_memorized, row.n)),
        percent(row.early),
        percent(row.late),
    ]
}

fn percent((hits, n): (u32, u32)) -> String {
    if n == 0 {
        return "–".to_owned();
    }
    format!("{:.2} %", 100.0 * f64::from(hits) / f64::from(n))
}
