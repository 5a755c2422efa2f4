//! Who works on which unit: workers, their signs of life, and their claims, as files in the output folder.
//!
//! Nothing here needs file locks or clocks that agree, so that it holds on a network file system. A claim is
//! a file that only one process can create. A sign of life is a change of a worker's record: its age is told
//! by the file server's clock, or, where that cannot be trusted, by how long this process has seen no change.
//! Should two processes claim the same unit all the same, because one was taken for dead, both write equal
//! bytes under a hidden name and rename them: no harm is done but the double work.

use crate::files;
use crate::mark::Mark;
use crate::process::{self, machine, start_of};
use crate::tables::{PARTIAL, part_folders, prefix, write_atomically};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// The folder of all that stands here, in the output folder; hidden, so that no reader takes it for a table.
pub(crate) const FOLDER: &str = ".sweep";

/// A worker writes its record anew so often …
const BEAT: Duration = Duration::from_secs(2);
/// … and its claims are void after so long without, in seconds.
const EXPIRY: u64 = 60;
/// What a worker has left is removed after so long, unless the kernel knows that it is gone: one that slept
/// goes on from there.
const GONE: Duration = Duration::from_hours(24);
/// A record that is so much newer than now was written by another clock.
const TOLERANCE: Duration = Duration::from_secs(2);
/// A record is padded to so many bytes, so that writing it again never makes it shorter.
const RECORD: usize = 2048;
/// No record, claim or message of a failure is longer.
const LONGEST: u64 = 1 << 20;

/// What a worker says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    /// Names the boot of the machine and the worker's space of process ids; those who share it can ask the kernel about one
    /// another.
    machine: Option<String>,
    /// When the kernel started the process, in its own ticks: tells it from a later one of the same id.
    started: Option<u64>,
    /// Seconds without a sign of life after which its claims are void.
    pub(crate) expires_after: u64,
    /// The fingerprint of the run it works on.
    #[serde(default)]
    pub(crate) run: String,
    /// Whether it has made sure that no other run is at work here.
    #[serde(default)]
    pub(crate) entered: bool,
    pub(crate) work: Work,
}

/// What a worker has done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) device: String,
    pub(crate) shard: Option<String>,
    /// Seconds since it began.
    pub(crate) seconds: f64,
    /// Probes judged.
    pub(crate) n_verdicts: u64,
    /// Parts written.
    pub(crate) n_units: u64,
    /// Model and checkpoint.
    pub(crate) working_on: String,
}

/// How much is known of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// It gives no sign of life: its claims are void. It may be asleep.
    Silent,
    /// It is known to be gone, or has been silent for a day.
    Gone,
}

/// This process, as others see it. Its record is gone when it is dropped.
pub(crate) struct Worker {
    folder: PathBuf,
    record: Arc<Mutex<Record>>,
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The right to work on a unit, given up when it is dropped.
pub(crate) struct Claim {
    path: PathBuf,
    id: String,
}

impl Worker {
    /// Makes this process known in the output folder `out`, as one that works on the run of a fingerprint.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written, or the system starts no thread.
    pub(crate) fn register(out: &Path, run: String, work: Work) -> Result<Self> {
        let folder = out.join(FOLDER);
        let pid = std::process::id();
        let record = Record {
            id: process::ID.clone(),
            host: process::host(),
            pid,
            machine: machine(),
            started: start_of(pid),
            expires_after: EXPIRY,
            run,
            entered: false,
            work,
        };
        let path = record_path(&folder, &record.id);
        fs::create_dir_all(folder.join("workers"))
            .and_then(|()| write_record(&path, &record))
            .inspect_err(|_| forget(&folder))
            .with_context(|| format!("writing `{}`", path.display()))?;
        let record = Arc::new(Mutex::new(record));
        let (end, ended) = channel();
        let beating = Arc::clone(&record);
        let beat = move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let record = lock(&beating).clone();
                if let Err(error) = write_record(&path, &record) {
                    tracing::warn!("writing `{}`: {error}", path.display());
                }
            }
            // Whoever finds none takes its owner for dead, which it then is; with one, removes what it left.
            if !process::leaves_files() {
                let _ = fs::remove_file(&path);
            }
        };
        let thread = std::thread::Builder::new()
            .name("beat".to_owned())
            .spawn(beat);
        let thread = thread.inspect_err(|_| forget(&folder))?;
        Ok(Self {
            folder,
            record,
            beat: Some((end, thread)),
        })
    }

    /// Says to others that this process has made sure that no other run is at work here.
    ///
    /// # Errors
    ///
    /// When its record cannot be written.
    pub(crate) fn enter(&self) -> Result<()> {
        let mut record = lock(&self.record);
        record.entered = true;
        let path = record_path(&self.folder, &record.id);
        write_record(&path, &record).with_context(|| format!("writing `{}`", path.display()))
    }

    /// Notes what was done; others see it at the next sign of life.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Work)) {
        change(&mut lock(&self.record).work);
    }

    /// Claims the unit whose part has this path below the verdicts; nothing where a living worker has it.
    ///
    /// # Errors
    ///
    /// When the claim cannot be written.
    pub(crate) fn claim(&self, part: &Path) -> Result<Option<Claim>> {
        let path = claim_path(&self.folder, part);
        let claimed = || -> Result<Option<Claim>> {
            loop {
                match create(&path) {
                    Ok(mut file) => {
                        let claim = Claim {
                            path: path.clone(),
                            id: lock(&self.record).id.clone(),
                        };
                        file.write_all(claim.id.as_bytes()).inspect_err(|_| {
                            // Nobody could tell whose it is.
                            let _ = fs::remove_file(&path);
                        })?;
                        let _ = fs::remove_file(failure_path(&self.folder, part));
                        return Ok(Some(claim));
                    }
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error.into()),
                }
                match holder(&self.folder, &path) {
                    Holder::Alive => return Ok(None),
                    Holder::Dead => tracing::warn!(
                        "taking over the claim `{}` of a dead worker",
                        path.display()
                    ),
                    Holder::None => {}
                }
                match fs::remove_file(&path) {
                    // Another one was faster, or its owner lives after all.
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        };
        claimed().with_context(|| format!("writing the claim `{}`", path.display()))
    }

    /// Leaves word that a unit failed, for `status`.
    pub(crate) fn failed(&self, part: &Path, message: &str) {
        let path = failure_path(&self.folder, part);
        let write =
            |file: &mut std::io::BufWriter<&mut File>| Ok(file.write_all(message.as_bytes())?);
        if let Err(error) = write_atomically(&path, Mark::Hidden, write) {
            tracing::warn!("{error:#}");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.beat.take() {
            drop(end);
            let _ = thread.join();
        }
        // As far as they are empty: the last worker to finish leaves nothing.
        remove_empty_folders(&self.folder);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // It may be another's by now: who sleeps too long loses it.
        if files::read(&self.path, LONGEST).is_ok_and(|id| id == self.id.as_bytes()) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The records of all workers that the output folder `out` knows of, and how much is known of each.
pub(crate) fn workers(out: &Path) -> Vec<(Record, Life)> {
    let folder = out.join(FOLDER);
    let entries = fs::read_dir(folder.join("workers")).into_iter().flatten();
    let records = entries.flatten().filter_map(|entry| {
        let record = read_record(&entry.path())?;
        let life = life(&folder, &record);
        Some((record, life))
    });
    records.collect()
}

/// The workers that are at work in `out` besides this process: those that live, and those asleep that the
/// kernel still knows.
pub(crate) fn others(out: &Path) -> Vec<Record> {
    let others = workers(out).into_iter().filter(|(record, life)| {
        record.id != *process::ID && (*life == Life::Alive || known_here(record) == Some(true))
    });
    others.map(|(record, _)| record).collect()
}

/// The claims on parts of the folder `part`, below the verdicts of the output folder `out`: file name, and whether the claim
/// is a living worker's.
pub(crate) fn claims(out: &Path, checkpoint: &Path) -> Vec<(String, bool)> {
    let folder = out.join(FOLDER);
    let entries = fs::read_dir(claim_path(&folder, checkpoint));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, holder(&folder, &entry.path()) == Holder::Alive)
        })
        .collect()
}

/// The parts of the folder `part`, below the verdicts of the output folder `out`, whose last attempt failed, and why.
pub(crate) fn failures(out: &Path, checkpoint: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(failure_path(&out.join(FOLDER), checkpoint));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let message = files::read_text(&entry.path(), LONGEST).ok()?;
            (!name.starts_with('.')).then_some((name, message))
        })
        .collect()
}

/// Removes what workers have left that are gone: claims, files half written, records. Nobody else's are touched.
pub(crate) fn remove_leftovers(out: &Path) {
    let folder = out.join(FOLDER);
    if others(out).is_empty()
        && let Ok(registered) = modified(&record_path(&folder, &process::ID))
    {
        remove_nameless_claims(&folder.join("claims"), registered);
    }
    let gone: Vec<Record> = workers(out)
        .into_iter()
        .filter(|(record, life)| record.id != *process::ID && *life == Life::Gone)
        .map(|(record, _)| record)
        .collect();
    if gone.is_empty() {
        return;
    }
    remove_claims_of(&folder.join("claims"), &gone);
    let partial = |name: &str| {
        let rest = name.strip_prefix(PARTIAL)?;
        let id = |record: &&Record| {
            rest.strip_prefix(record.id.as_str())
                .is_some_and(|rest| rest.starts_with('-'))
        };
        gone.iter().find(id)
    };
    let folders = [out.to_owned(), folder.clone()].into_iter();
    for folder in folders.chain(part_folders(out)) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if partial(&entry.file_name().to_string_lossy()).is_some() {
                let path = entry.path();
                tracing::info!("removing `{}`, left by a dead worker", path.display());
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let _ = if is_folder {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
            }
        }
    }
    for record in gone {
        let _ = fs::remove_file(record_path(&folder, &record.id));
    }
}

/// Removes claims whose worker was killed before it had written its name, where nobody else is at work.
fn remove_nameless_claims(folder: &Path, registered: SystemTime) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_nameless_claims(&path, registered);
            continue;
        }
        let nameless = entry.metadata().is_ok_and(|metadata| metadata.len() == 0);
        // One that has just begun creates its claims after this process made itself known.
        if nameless && modified(&path).is_ok_and(|written| written < registered) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

fn remove_claims_of(folder: &Path, gone: &[Record]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_claims_of(&path, gone);
            continue;
        }
        let holder = files::read(&path, LONGEST).unwrap_or_default();
        if gone.iter().any(|record| record.id.as_bytes() == holder) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Removes this process' record, which no thread does.
fn forget(folder: &Path) {
    let _ = fs::remove_file(record_path(folder, &process::ID));
    remove_empty_folders(folder);
}

fn record_path(folder: &Path, id: &str) -> PathBuf {
    folder.join("workers").join(format!("{id}.json"))
}

fn claim_path(folder: &Path, part: &Path) -> PathBuf {
    folder.join("claims").join(part)
}

fn failure_path(folder: &Path, part: &Path) -> PathBuf {
    folder.join("failures").join(part)
}

/// Creates a file that is not there, and the folders it needs.
fn create(path: &Path) -> std::io::Result<File> {
    loop {
        match File::create_new(path) {
            // A worker that ends removes empty folders.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            }
            other => return other,
        }
    }
}

/// Over itself, in place: the file server notes the time, and a reader sees the old record or the new one.
fn write_record(path: &Path, record: &Record) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(record)?;
    text.resize(text.len().max(RECORD), b' ');
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.write_all(&text)
}

fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&files::read(path, LONGEST).ok()?).ok()
}

/// Who has a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Alive,
    Dead,
    None,
}

fn holder(folder: &Path, claim: &Path) -> Holder {
    // Opened anew, so that a network file system asks its server.
    let Ok(id) = files::read(claim, LONGEST) else {
        return Holder::None;
    };
    let id = String::from_utf8_lossy(&id);
    let alive = if id.is_empty() {
        // Its owner has created it and not yet written its name, or died between the two.
        let expiry = Duration::from_secs(EXPIRY);
        silence(folder, claim).is_some_and(|silence| silence < expiry)
    } else {
        let record = read_record(&record_path(folder, &id));
        record.is_some_and(|record| life(folder, &record) == Life::Alive)
    };
    if alive { Holder::Alive } else { Holder::Dead }
}

/// Whether the kernel of this machine knows the process; nothing where it cannot tell.
fn known_here(record: &Record) -> Option<bool> {
    let here = record.machine.is_some() && record.machine == machine();
    (here && record.started.is_some()).then(|| start_of(record.pid) == record.started)
}

fn life(folder: &Path, record: &Record) -> Life {
    let known = known_here(record);
    if known == Some(false) {
        return Life::Gone;
    }
    let Some(silence) = silence(folder, &record_path(folder, &record.id)) else {
        return Life::Gone;
    };
    if silence < Duration::from_secs(record.expires_after) {
        Life::Alive
    } else if silence < GONE || known == Some(true) {
        Life::Silent
    } else {
        Life::Gone
    }
}

/// When files were seen to change, by this process' own clock.
static SEEN: LazyLock<Mutex<HashMap<PathBuf, (SystemTime, Instant)>>> =
    LazyLock::new(Mutex::default);

/// How long ago a file was written: by the clock that stamps files in this folder, or, where the file was stamped
/// by another one that is ahead, since this process has seen no change.
fn silence(folder: &Path, path: &Path) -> Option<Duration> {
    let written = fs::metadata(path).ok()?.modified().ok()?;
    // Named like all that may be left by the killed: a network file system has no files without names.
    let mut named = tempfile::Builder::new();
    let now = named
        .prefix(&prefix())
        .tempfile_in(folder)
        .and_then(|mut file| {
            file.write_all(b"\n")?;
            file.as_file().metadata()?.modified()
        });
    // A folder that cannot be written is looked at by the clock there is.
    let now = now.unwrap_or_else(|_| SystemTime::now());
    if written <= now + TOLERANCE {
        return Some(now.duration_since(written).unwrap_or_default());
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = seen
        .entry(path.to_owned())
        .or_insert((written, Instant::now()));
    if known.0 != written {
        *known = (written, Instant::now());
    }
    Some(known.1.elapsed())
}

/// Removes `folder` and those in it, as far as no file is in them.
pub(crate) fn remove_empty_folders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_folders(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
