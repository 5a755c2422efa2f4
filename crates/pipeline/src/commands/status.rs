//! `pipeline status`: how far a sweep is, whether it runs or is dead.

use crate::claims::{self, Life};
use crate::config::{Overrides, Run};
use crate::failure;
use crate::manifest;
use crate::mark;
use crate::stages::{Cuts, part_names, probe_sets, set_folder, verdicts_folder};
use crate::tables::POSITIONS;
use crate::terminal;
use anyhow::Result;
use indicatif::{HumanCount, HumanDuration};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// How many failures and dead workers are shown one by one.
const N_SHOWN: usize = 10;

/// The parts of a model at a checkpoint.
#[derive(Clone, Copy, Default)]
struct Parts {
    n: u64,
    n_finished: u64,
    /// Claimed by a living worker.
    n_in_work: u64,
    /// Failed at the last attempt.
    n_failed: u64,
    n_probes: u64,
    n_verdicts: u64,
}

/// Shows how far the run is whose output folder is `out`.
///
/// # Errors
///
/// When no run has begun there, or it has no positions yet.
pub(crate) fn status(out: &Path) -> Result<()> {
    // The run at work, or else the last one.
    let at_work = out.join(claims::FOLDER).join(manifest::FILE);
    let file = out.join(manifest::FILE);
    let file = if is_run(&at_work) { at_work } else { file };
    if !file.exists() {
        return Err(failure::usage(
            format_args!("no run has begun in `{}`", out.display()),
            "name the output folder of a run: it holds a `run.json`",
        ));
    }
    let overrides = Overrides {
        out: Some(out.to_owned()),
        ..Overrides::default()
    };
    let run = Run::load(&file, &overrides)?;
    let cuts = Cuts::open(&run, &run.out.join(POSITIONS.path))?;
    let mut parts: BTreeMap<(&str, u32), Parts> = BTreeMap::new();
    let mut failures = Vec::new();
    let sets = probe_sets(&run);
    for set in &sets {
        let key = (set.model.name.as_str(), set.checkpoint.steps);
        let parts = parts.entry(key).or_default();
        let folder = set_folder(set);
        let there = names(&verdicts_folder(&run.out).join(&folder));
        let claims: BTreeMap<String, bool> =
            claims::claims(&run.out, &folder).into_iter().collect();
        let failed: BTreeMap<String, String> =
            claims::failures(&run.out, &folder).into_iter().collect();
        for (name, n) in part_names(&cuts, set) {
            parts.n += 1;
            parts.n_probes += n;
            if there.contains(&name) {
                parts.n_finished += 1;
                parts.n_verdicts += n;
            } else if claims.get(&name) == Some(&true) {
                parts.n_in_work += 1;
            } else if let Some(message) = failed.get(&name) {
                parts.n_failed += 1;
                failures.push(format!("{}/{name}: {message}", folder.display()));
            }
        }
    }
    show(out, &parts, &failures)
}

/// Whether a record is of a run: `analyse` leaves one of its own while it is at work.
fn is_run(path: &Path) -> bool {
    mark::read_record(path).is_some()
}

fn show(out: &Path, parts: &BTreeMap<(&str, u32), Parts>, failures: &[String]) -> Result<()> {
    let all = parts.values().fold(Parts::default(), |sum, parts| Parts {
        n: sum.n + parts.n,
        n_finished: sum.n_finished + parts.n_finished,
        n_in_work: sum.n_in_work + parts.n_in_work,
        n_failed: sum.n_failed + parts.n_failed,
        n_probes: sum.n_probes + parts.n_probes,
        n_verdicts: sum.n_verdicts + parts.n_verdicts,
    });
    let (alive, dead): (Vec<_>, Vec<_>) = claims::workers(out)
        .into_iter()
        .partition(|(_, life)| *life == Life::Alive);
    let mut stdout = terminal::stdout();
    writeln!(
        stdout,
        "{:<24} {:>10} {:>8} {:>9} {:>8} {:>7} {:>8}",
        "model", "checkpoint", "parts", "finished", "in work", "failed", "missing"
    )?;
    for ((model, checkpoint), parts) in parts {
        line(&mut stdout, model, &checkpoint.to_string(), parts)?;
    }
    line(&mut stdout, "all", "", &all)?;
    writeln!(stdout)?;
    writeln!(
        stdout,
        "{} of {} verdicts",
        HumanCount(all.n_verdicts),
        HumanCount(all.n_probes)
    )?;
    for failure in failures.iter().take(N_SHOWN) {
        writeln!(stdout, "failed: {failure}")?;
    }
    let mut rate = 0.0;
    for (record, _) in &alive {
        let work = &record.work;
        #[expect(clippy::cast_precision_loss, reason = "a speed to be read by a person")]
        let per_second = work.n_verdicts as f64 / work.seconds.max(1e-9);
        rate += per_second;
        writeln!(
            stdout,
            "alive: {} {}, {}{}: {} verdicts, {per_second:.0}/s, at {}",
            record.host,
            record.pid,
            work.device,
            work.shard
                .as_ref()
                .map(|shard| format!(", shard {shard}"))
                .unwrap_or_default(),
            HumanCount(work.n_verdicts),
            if work.working_on.is_empty() {
                "the beginning"
            } else {
                &work.working_on
            },
        )?;
    }
    for (record, life) in dead.iter().take(N_SHOWN) {
        let life = if *life == Life::Gone {
            "dead"
        } else {
            "silent"
        };
        writeln!(
            stdout,
            "{life}: {} {}, {}: {} parts finished; its claims are void",
            record.host, record.pid, record.work.device, record.work.n_units
        )?;
    }
    let n_left = all.n_probes - all.n_verdicts;
    if n_left == 0 {
        writeln!(stdout, "all parts are finished")?;
    } else if alive.is_empty() {
        writeln!(
            stdout,
            "no worker is alive: the same command as before goes on from here"
        )?;
    } else if rate > 0.0 {
        #[expect(clippy::cast_precision_loss, reason = "a time to be read by a person")]
        let left = Duration::from_secs_f64((n_left as f64 / rate).min(1e9));
        writeln!(stdout, "{rate:.0} verdicts/s, {} left", HumanDuration(left))?;
    }
    Ok(())
}

fn line(to: &mut impl Write, model: &str, checkpoint: &str, parts: &Parts) -> Result<()> {
    let Parts {
        n,
        n_finished,
        n_in_work,
        n_failed,
        ..
    } = parts;
    let n_missing = n - n_finished - n_in_work - n_failed;
    writeln!(
        to,
        "{model:<24} {checkpoint:>10} {n:>8} {n_finished:>9} {n_in_work:>8} {n_failed:>7} {n_missing:>8}"
    )?;
    Ok(())
}

/// The names of the files in a folder; none where there is no folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
