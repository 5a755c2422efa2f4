//! `pipeline run`: order, probes, join; then a summary and the paths of the tables.

use super::plan::{self, Speed};
use super::{analyse, check};
use crate::claims::Work;
use crate::cli::{RunOptions, Stage};
use crate::config::{Overrides, Run};
use crate::description::Description;
use crate::failure;
use crate::inputs::{self, Depth, Inputs, Look};
use crate::interrupt::Stop;
use crate::judges::Recheck;
use crate::log::{self, Verbosity};
use crate::manifest::{self, Manifest};
use crate::output::{self, Output};
use crate::progress;
use crate::stages::{self, ANALYSED, Analysed, How, Rates};
use crate::tables::{EXPOSURES_BY_STEP, MEMORIZATION, POSITIONS, Pending, VERDICTS};
use crate::terminal;
use anyhow::Result;
use indicatif::HumanCount;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// Runs the run file at `file`.
///
/// # Errors
///
/// What is wrong with the run file, its inputs or its output folder, before any work; later, what kept a
/// stage from finishing.
pub(crate) fn run(file: &Path, options: &RunOptions, log: Option<Verbosity>) -> Result<()> {
    let stop = Stop::listen()?;
    let overrides = Overrides {
        out: options.out.clone(),
        device: options.device.clone(),
    };
    let run = Run::load(file, &overrides)?;
    let is_worker = options.worker.is_some();
    if is_worker {
        stop.with_stdin()?;
    } else {
        check::warn(&run);
    }
    if options.dry_run {
        return dry_run(&run, options.full_hash);
    }
    let wanted = wanted(options)?;
    let plans = wanted.contains(&Stage::Plan);
    output::admit(&run, plans)?;
    let look = Look {
        device: wanted.contains(&Stage::Probe),
        keep_going: options.keep_going,
        ..Look::at(Depth::Headers, options.full_hash)
    };
    let inputs = inputs::open(&run, look)?;
    compare(&run, &inputs)?;
    // Opening may have taken a while.
    output::admit(&run, plans)?;
    let description = Description::of(&run, &inputs)?;
    let mut manifest = Manifest::new(&run, &inputs, &description);
    let work = Work {
        device: run.device.to_string(),
        shard: options.shard.map(|shard| shard.to_string()),
        ..Work::default()
    };
    if !options.fresh {
        output::refuse_conflicts(&run.out, &description)?;
    }
    let output = enter(&run.out, description.clone(), manifest.text()?, work)?;
    if options.fresh {
        output::discard(&run.out)?;
    }
    output::refuse_conflicts(&run.out, &description)?;
    manifest
        .begin()
        .and_then(|()| log::to_folder(&run.out))
        .map_err(|error| unwritable(&run.out, &error))?;
    let how = How {
        output,
        file: run.source.path.clone(),
        shard: options.shard,
        worker: options.worker,
        keep_going: options.keep_going,
        log,
        stop,
    };
    tracing::info!(
        "pipeline {} ({}), process {}: `{}`, shard {}",
        env!("CARGO_PKG_VERSION"),
        env!("PIPELINE_GIT_COMMIT"),
        std::process::id(),
        run.source.path.display(),
        how.shard
            .map_or_else(|| "all".to_owned(), |shard| shard.to_string()),
    );
    let mut pending = Pending::default();
    let analysed = run_stages(&run, &inputs, &wanted, &how, &mut manifest, &mut pending)?;
    inputs.check_unchanged()?;
    let shares = is_worker || options.shard.is_some();
    if !shares {
        pending.add(manifest.finish()?)?;
    }
    pending.land(&|| how.output.check())?;
    if let (Some(shard), false) = (how.shard, is_worker) {
        progress::say(&format!(
            "shard {shard} is finished; when all are: `pipeline run {} --only join`, then the same with `--only analyse`",
            file.display()
        ));
    }
    analysed.map_or(Ok(()), |analysed| show(&run, &analysed))
}

/// Enters the output folder; what keeps it from being written to has its cure.
///
/// # Errors
///
/// When processes of another run are at work there, or it cannot be written to.
pub(super) fn enter(
    out: &Path,
    description: Description,
    text: Vec<u8>,
    work: Work,
) -> Result<Output> {
    Output::enter(out, description, text, work).map_err(|error| {
        if failure::hint(&error).is_some() {
            return error;
        }
        unwritable(out, &error)
    })
}

fn unwritable(out: &Path, error: &anyhow::Error) -> anyhow::Error {
    failure::failed(
        format_args!(
            "the output folder `{}` cannot be written: {error:#}",
            out.display()
        ),
        "name another folder with `--out`, or in the run file",
    )
}

/// Says what `check` and `plan` say.
fn dry_run(run: &Run, full_hash: bool) -> Result<()> {
    let inputs = inputs::open(run, Look::at(Depth::Everything, full_hash))?;
    check::warn_absent(run);
    let mut out = terminal::stdout();
    check::show(&mut out, run, &inputs)?;
    writeln!(out)?;
    plan::show(&mut out, run, &inputs, &Speed::of(run, None)?)
}

/// The stages that are asked for: of a shard, those that can be shared out.
fn wanted(options: &RunOptions) -> Result<Vec<Stage>> {
    const ALL: [Stage; 4] = [Stage::Plan, Stage::Probe, Stage::Join, Stage::Analyse];
    match (options.only, options.shard) {
        (None, None) => Ok(ALL.to_vec()),
        (None, Some(_)) => Ok(vec![Stage::Plan, Stage::Probe]),
        (Some(stage @ (Stage::Join | Stage::Analyse)), Some(_)) => Err(failure::usage(
            format_args!("the stage `{}` has no shards", stage.name()),
            "leave out `--shard`, once all shards are finished",
        )),
        (Some(stage), _) => Ok(vec![stage]),
    }
}

/// Refuses inputs that are not those of the `run.json` that is to be run again.
fn compare(run: &Run, inputs: &Inputs) -> Result<()> {
    for found in inputs.files() {
        if let Some(sha256) = run.recorded.get(&found.path)
            && *sha256 != found.sha256
        {
            return Err(failure::failed(
                format_args!(
                    "`{}` has changed since the run of `{}`",
                    found.path.display(),
                    run.source.path.display()
                ),
                "bring back the file as it was, or run the run file itself instead of its record",
            ));
        }
    }
    Ok(())
}

fn run_stages(
    run: &Run,
    inputs: &Inputs,
    wanted: &[Stage],
    how: &How,
    manifest: &mut Manifest<'_>,
    pending: &mut Pending,
) -> Result<Option<Analysed>> {
    let wanted = |stage| wanted.contains(&stage);
    let worker = how.output.worker()?;
    let at = |stage: Stage| {
        worker.note(|work| stage.name().clone_into(&mut work.working_on));
    };
    if wanted(Stage::Plan) {
        at(Stage::Plan);
        let started = Instant::now();
        let planned = stages::plan(run, inputs, pending)?;
        manifest.rows(POSITIONS.name, planned.n_positions);
        manifest.rows(EXPOSURES_BY_STEP.name, planned.n_exposures);
        manifest.seconds("plan", started.elapsed().as_secs_f64());
    }
    if wanted(Stage::Probe) {
        let started = Instant::now();
        let probed = stages::probe(run, inputs, how, pending)?;
        manifest.rows(VERDICTS.name, probed.n_verdicts);
        manifest.resumed(probed.n_resumed);
        manifest.recheck(probed.recheck);
        manifest.batch_size(probed.batch_size);
        if let Some(n) = probed.batch_size {
            let n = HumanCount(n as u64);
            progress::say(&format!("probe: {n} probes together on `{}`", run.device));
        }
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
    // Of an earlier command, where this one does not join.
    let mut table = run.out.clone();
    if wanted(Stage::Join) {
        at(Stage::Join);
        let started = Instant::now();
        let joined = stages::join(run, inputs, pending)?;
        manifest.rows(MEMORIZATION.name, joined.n_memorization);
        table = joined.table;
        manifest.seconds("join", started.elapsed().as_secs_f64());
    }
    if !wanted(Stage::Analyse) {
        return Ok(None);
    }
    let started = Instant::now();
    let analysed = stages::analyse(&table, &run.out, Some(&run.analysis), pending)?;
    for (table, n_rows) in ANALYSED.into_iter().zip(analysed.n_rows) {
        manifest.rows(table.name, n_rows);
    }
    manifest.seconds("analyse", started.elapsed().as_secs_f64());
    Ok(Some(analysed))
}

/// Writes what was found and the paths of the tables to stdout.
fn show(run: &Run, analysed: &Analysed) -> Result<()> {
    let mut out = terminal::stdout();
    show_rates(&mut out, run, &analysed.rates)?;
    writeln!(out)?;
    analyse::show(&mut out, &analysed.conclusions)?;
    writeln!(out)?;
    let first = [
        POSITIONS.path,
        EXPOSURES_BY_STEP.path,
        VERDICTS.name,
        MEMORIZATION.path,
        MEMORIZATION.name,
    ];
    let tables = first.into_iter().chain(ANALYSED.map(|table| table.path));
    for path in tables.chain([manifest::FILE]) {
        let path = run.out.join(path);
        if path.exists() {
            writeln!(out, "{}", path.display())?;
        }
    }
    Ok(())
}

/// Writes a line for each corpus, model and checkpoint.
fn show_rates(out: &mut impl Write, run: &Run, rates: &[Rates]) -> Result<()> {
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
    let mut rates: Vec<&Rates> = rates.iter().collect();
    let corpus = |name: &str| run.corpora.iter().position(|corpus| corpus.name == name);
    // A corpus' own models first.
    rates.sort_by_key(|rates| {
        let foreign = rates.early.is_none();
        (corpus(&rates.key.corpus), foreign, &rates.key)
    });
    lines.extend(rates.into_iter().map(cells));
    let mut widths = HEADER.map(str::len);
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for line in &lines {
        for (place, cell) in line.iter().enumerate() {
            let width = widths[place];
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
    Ok(())
}

fn cells(row: &Rates) -> [String; 8] {
    let percent = |(hits, n): (u64, u64)| {
        #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
        let share = 100.0 * hits as f64 / n as f64;
        if n == 0 {
            "–".to_owned()
        } else {
            format!("{share:.2} %")
        }
    };
    [
        row.key.corpus.clone(),
        row.key.model.clone(),
        row.key.checkpoint.to_string(),
        HumanCount(row.all.1).to_string(),
        HumanCount(row.all.0).to_string(),
        percent(row.all),
        row.early.map_or_else(|| "–".to_owned(), percent),
        row.late.map_or_else(|| "–".to_owned(), percent),
    ]
}
