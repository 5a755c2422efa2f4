//! Who works on which unit: workers, their signs of life, and their claims, as files in the output folder.
//!
//! Nothing here needs file locks or clocks that agree, so that it holds on a network file system: a claim is a file that only
//! one process can create, and a sign of life is the time that the file server gives to a file that was just written.
//! Should two processes claim the same unit all the same, because one was taken for dead, both write equal bytes under a
//! hidden name and rename them: no harm is done but the double work.

use crate::tables::{PARTIAL, write_atomically};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The folder of all that stands here, in the output folder; hidden, so that no reader takes it for a table.
pub(crate) const FOLDER: &str = ".sweep";

/// A worker writes its record anew so often …
const BEAT: Duration = Duration::from_secs(2);
/// … and is taken for dead after so long without, in seconds.
const EXPIRY: u64 = 60;
/// A record is padded to so many bytes, so that writing it again never makes it shorter.
const RECORD: usize = 2048;

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

/// This process, as others see it. Its record is gone when it is dropped.
pub(crate) struct Worker {
    folder: PathBuf,
    record: Arc<Mutex<Record>>,
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The right to work on a unit, given up when it is dropped.
pub(crate) struct Claim {
    path: PathBuf,
}

impl Worker {
    /// Makes this process known in the output folder `out`; what dead workers have left there is removed when no other is
    /// alive.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub(crate) fn register(out: &Path, work: Work) -> Result<Self> {
        let folder = out.join(FOLDER);
        let host = host();
        let pid = std::process::id();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let record = Record {
            id: format!("{host}-{pid}-{now:x}"),
            host,
            pid,
            machine: machine(),
            started: start_of(pid),
            expires_after: EXPIRY,
            work,
        };
        let path = record_path(&folder, &record.id);
        fs::create_dir_all(folder.join("workers"))
            .and_then(|()| write_record(&path, &record))
            .with_context(|| format!("writing `{}`", path.display()))?;
        remove_leftovers(out, &record.id)?;
        let record = Arc::new(Mutex::new(record));
        let (end, ended) = channel();
        let beating = Arc::clone(&record);
        let thread = std::thread::spawn(move || {
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let record = lock(&beating).clone();
                if let Err(error) = write_record(&path, &record) {
                    tracing::warn!("writing `{}`: {error}", path.display());
                }
            }
            // Whoever finds none takes its owner for dead, which it then is.
            let _ = fs::remove_file(&path);
        });
        Ok(Self {
            folder,
            record,
            beat: Some((end, thread)),
        })
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
                        let claim = Claim { path: path.clone() };
                        file.write_all(lock(&self.record).id.as_bytes())?;
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
        claimed().with_context(|| format!("claiming `{}`", part.display()))
    }

    /// Leaves word that a unit failed, for `status`.
    pub(crate) fn failed(&self, part: &Path, message: &str) {
        let path = failure_path(&self.folder, part);
        let write =
            |file: &mut std::io::BufWriter<&mut File>| Ok(file.write_all(message.as_bytes())?);
        if let Err(error) = write_atomically(&path, write) {
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
        let _ = fs::remove_file(&self.path);
    }
}

/// The records of all workers that the output folder `out` knows of, and whether each is alive.
pub(crate) fn workers(out: &Path) -> Vec<(Record, bool)> {
    let folder = out.join(FOLDER);
    let entries = fs::read_dir(folder.join("workers")).into_iter().flatten();
    let records = entries.flatten().filter_map(|entry| {
        let record = read_record(&entry.path())?;
        let alive = is_alive(&folder, &record);
        Some((record, alive))
    });
    records.collect()
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
            let message = fs::read_to_string(entry.path()).ok()?;
            (!name.starts_with('.')).then_some((name, message))
        })
        .collect()
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
    match File::create_new(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            File::create_new(path)
        }
        other => other,
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
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Who has a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Alive,
    Dead,
    None,
}

fn holder(folder: &Path, claim: &Path) -> Holder {
    let mut id = String::new();
    // Opened anew, so that a network file system asks its server.
    let Ok(mut file) = File::open(claim) else {
        return Holder::None;
    };
    let alive = if file.read_to_string(&mut id).is_err() || id.is_empty() {
        // Its owner has created it and not yet written its name, or died between the two.
        age(folder, claim).is_some_and(|age| age < Duration::from_secs(EXPIRY))
    } else {
        let record = read_record(&record_path(folder, &id));
        record.is_some_and(|record| is_alive(folder, &record))
    };
    if alive { Holder::Alive } else { Holder::Dead }
}

fn is_alive(folder: &Path, record: &Record) -> bool {
    let here = record.machine.is_some() && record.machine == machine();
    if here && record.started.is_some() && start_of(record.pid) != record.started {
        return false;
    }
    let expiry = Duration::from_secs(record.expires_after);
    let age = age(folder, &record_path(folder, &record.id));
    age.is_some_and(|age| age < expiry)
}

/// How long ago a file was written, by the clock that stamps files in this folder.
fn age(folder: &Path, path: &Path) -> Option<Duration> {
    let written = File::open(path).ok()?.metadata().ok()?.modified().ok()?;
    // Named like all that may be left by the killed: a network file system has no files without names.
    let mut named = tempfile::Builder::new();
    let now = named
        .prefix(PARTIAL)
        .tempfile_in(folder)
        .and_then(|mut file| {
            file.write_all(b"\n")?;
            file.as_file().metadata()?.modified()
        });
    // A folder that cannot be written is looked at by the clock there is.
    let now = now.unwrap_or_else(|_| SystemTime::now());
    Some(now.duration_since(written).unwrap_or_default())
}

/// Removes records and claims of the dead and files half written, when no worker but `id` is alive. One that registers just
/// now begins its files after this one's record was written, and keeps them.
fn remove_leftovers(out: &Path, id: &str) -> Result<()> {
    let folder = out.join(FOLDER);
    let others = workers(out);
    if others
        .iter()
        .any(|(record, alive)| *alive && record.id != id)
    {
        return Ok(());
    }
    let registered = fs::metadata(record_path(&folder, id))?.modified()?;
    for (record, _) in others.iter().filter(|(record, _)| record.id != id) {
        let _ = fs::remove_file(record_path(&folder, &record.id));
    }
    let mut folders = vec![out.to_owned()];
    while let Some(folder_of) = folders.pop() {
        for entry in fs::read_dir(&folder_of).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
                continue;
            }
            let is_claim = path.starts_with(folder.join("claims"));
            let is_partial = entry.file_name().to_string_lossy().starts_with(PARTIAL);
            let is_older = || Some(entry.metadata().ok()?.modified().ok()? < registered);
            if (is_claim || is_partial) && is_older() == Some(true) {
                tracing::info!("removing `{}`, left by a dead worker", path.display());
                let _ = fs::remove_file(&path);
            }
        }
    }
    Ok(())
}

/// Removes `folder` and those in it, as far as no file is in them.
fn remove_empty_folders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_folders(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.unwrap_or_default();
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.trim().chars().filter(fits).collect();
    if name.is_empty() {
        "host".to_owned()
    } else {
        name
    }
}

/// Where the kernel can be asked: the machine's boot and this process's space of process ids (proc(5), namespaces(7)).
fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), space.display()))
}

/// When the process of this id was started, in the kernel's ticks; nothing where there is none (proc(5), `stat`, field 22).
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, is in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // A zombie works on nothing.
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
