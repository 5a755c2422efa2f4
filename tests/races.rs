//! Several processes on one output folder, started, stopped and killed as a seed says.
//!
//! `RACE_ROUNDS=200 cargo test -p pipeline --test end_to_end races:: -- --nocapture` plays more
//! rounds. `RACE_SEED=… RACE_ROUNDS=1` repeats the round that a failure names.

mod play;
mod references;
mod round;

use crate::harness::{end_within, send, setting};
use crate::program::tables;
use play::{Arena, Tally};
use references::References;
use round::{Round, Settings, Variant};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// No process of these runs needs as long.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn rounds_of_starts_stops_and_kills() {
    let began = Instant::now();
    let rounds = setting("RACE_ROUNDS", 20);
    let first = setting("RACE_SEED", 1);
    let mut references = References::new();
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for seed in first..first + rounds {
        let round = Round::draw(seed);
        if let Err(why) = play::play(&round, &mut references, &mut tally) {
            println!("RACE_SEED={seed} RACE_ROUNDS=1: {why}\n{round}");
            failures.push(seed);
        }
    }
    println!("races: {tally}, {:.1} s", began.elapsed().as_secs_f64());
    assert!(
        failures.is_empty(),
        "{} of {rounds} rounds failed: {failures:?}",
        failures.len()
    );
    assert!(
        rounds < 20 || (tally.stops > 0 && tally.kills > 0 && tally.whole > 0),
        "the rounds did not do what they are for: {tally}"
    );
}

/// The inodes of what is being written below `out`: of everything under a hidden name there.
fn in_work(out: &Path) -> BTreeMap<PathBuf, u64> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let inside = path.strip_prefix(out).unwrap();
            if inside.starts_with(".sweep") || inside.starts_with("logs") {
                continue;
            }
            match entry.metadata() {
                Ok(facts) if facts.is_dir() => folders.push(path),
                Ok(facts) if crate::harness::is_hidden(inside) => {
                    found.insert(path, facts.ino());
                }
                _ => {}
            }
        }
    }
    found
}

/// Waits until `is_so`. It may never be so, where the process ends or waits for another one.
fn wait(child: &mut Child, is_so: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_millis(600) {
        if is_so() {
            return true;
        }
        sleep(Duration::from_micros(200));
    }
    false
}

/// Two joins of one finished sweep: the first is stopped amid its files, the second begins its own,
/// and the first goes on while the second is stopped.
#[test]
fn two_joins_of_one_dataset() {
    let mut references = References::new();
    let settings = Settings {
        layout: "dataset",
        variant: Variant::Eight,
    };
    let whole = references.of(settings);
    let arena = Arena::new();
    let out = arena.out();
    let run = || arena.start(settings, "join");
    let mut first = run();
    assert!(end_within(&mut first, PATIENCE));
    assert!(tables(&out) == whole);
    let mut met = 0;
    for attempt in 0..12 {
        let mut a = run();
        let a_writes = wait(&mut a, || in_work(&out).len() > 1 + attempt % 4);
        send(a.id(), "-STOP");
        let old = in_work(&out);
        let mut b = run();
        let b_writes = wait(&mut b, || {
            let now = in_work(&out);
            now.iter().any(|(path, inode)| old.get(path) != Some(inode))
        });
        send(b.id(), "-STOP");
        send(a.id(), "-CONT");
        // The second may hold what the first waits for.
        let a_ended = wait_long(&mut a);
        let after_a = tables(&out);
        send(b.id(), "-CONT");
        assert!(end_within(&mut a, PATIENCE) && end_within(&mut b, PATIENCE));
        met += u32::from(a_writes && b_writes);
        for (name, child) in [("first", &mut a), ("second", &mut b)] {
            let status = child.wait().unwrap();
            assert!(
                status.success(),
                "attempt {attempt}: the {name} process: {status}\n{}",
                fs::read_to_string(arena.folder().join("join.stderr")).unwrap()
            );
        }
        if a_ended {
            let after_a = visible(after_a);
            assert!(
                after_a == whole,
                "attempt {attempt}: the first process ended well with {} of {} tables",
                after_a.len(),
                whole.len()
            );
        }
        assert!(visible(tables(&out)) == whole, "attempt {attempt}");
    }
    println!("two joins: {met} of 12 attempts had both of them amid their files");
}

/// Whether the process ended within a second.
fn wait_long(child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        sleep(Duration::from_millis(1));
    }
    false
}

fn visible(tables: BTreeMap<PathBuf, Vec<u8>>) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut tables = tables;
    tables.retain(|path, _| !crate::harness::is_hidden(path));
    tables
}

#[test]
#[ignore = "waits for 65 s: run it with `-- --ignored`"]
fn a_process_that_slept_for_65_s_ends_well() {
    let mut references = References::new();
    for layout in ["file", "dataset"] {
        let settings = Settings {
            layout,
            variant: Variant::Base,
        };
        let whole = references.of(settings);
        let arena = Arena::new();
        let out = arena.out();
        let mut sleeper = arena.start(settings, "sleeper");
        let writes = || !in_work(&out).is_empty() && tables(&out.join("verdicts")).len() > 2;
        assert!(wait(&mut sleeper, writes), "it ended too soon");
        send(sleeper.id(), "-STOP");
        sleep(Duration::from_secs(65));
        let mut other = arena.start(settings, "other");
        let other_ended = end_within(&mut other, PATIENCE);
        let after_other = visible(tables(&out));
        send(sleeper.id(), "-CONT");
        assert!(end_within(&mut sleeper, PATIENCE), "it never ended");
        assert!(other_ended, "the other one waited for ever");
        for (name, child) in [("sleeper", &mut sleeper), ("other", &mut other)] {
            let status = child.wait().unwrap();
            let stderr = fs::read_to_string(arena.folder().join(format!("{name}.stderr")));
            assert!(status.success(), "{name}: {status}\n{}", stderr.unwrap());
        }
        assert!(after_other == whole && visible(tables(&out)) == whole);
    }
}
