//! One run at a time: processes of equal runs work in a folder together, those of another run are refused.
//!
//! The run that is at work stands in a file that only one process can create. A process first makes itself
//! known, then reads or creates that file, then says that it has entered, and then looks once more: of two
//! processes of different runs at least one sees the other.

use crate::claims::{self, FOLDER, Record, Work, Worker};
use crate::description::Description;
use crate::failure;
use crate::files::{self, Identity};
use crate::tables::prefix;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The file that names the run at work, in the hidden folder.
const FILE: &str = "run.json";
/// How long a file may be empty whose creator is about to fill it.
const PATIENCE: Duration = Duration::from_secs(2);
const PERIOD: Duration = Duration::from_millis(20);

/// A folder that this process may write to; left when it is dropped.
pub(crate) struct Output {
    out: PathBuf,
    description: Description,
    /// What stands in the file where this process creates it.
    text: Vec<u8>,
    fingerprint: String,
    /// Whether the folder was not there before.
    created: bool,
    /// The file as it was when it last named this run.
    known: Mutex<Option<Identity>>,
    worker: Option<Worker>,
}

/// What the file says.
enum Found {
    Nothing,
    /// Nothing that could be read.
    Unreadable(Vec<u8>),
    Run(Vec<u8>, Box<Description>),
}

impl Output {
    /// Enters the folder `out` to work on the run of `description`; `text` is its record.
    ///
    /// # Errors
    ///
    /// When processes of another run are at work there, or the folder cannot be written.
    pub(crate) fn enter(
        out: &Path,
        description: Description,
        text: Vec<u8>,
        work: Work,
    ) -> Result<Self> {
        let fingerprint = description.fingerprint()?;
        let created = !out.exists();
        let worker = Worker::register(out, fingerprint.clone(), work)?;
        claims::remove_leftovers(out);
        let output = Self {
            out: out.to_owned(),
            description,
            text,
            fingerprint,
            created,
            known: Mutex::new(None),
            worker: Some(worker),
        };
        output.occupy()?;
        output.worker()?.enter()?;
        output.check()?;
        let entered = |other: &Record| other.entered && other.run != output.fingerprint;
        if let Some(other) = claims::others(out).into_iter().find(entered) {
            return Err(output.at_work(&other, &[]));
        }
        Ok(output)
    }

    /// This process, as others see it.
    ///
    /// # Errors
    ///
    /// Never before it is dropped.
    pub(crate) fn worker(&self) -> Result<&Worker> {
        self.worker
            .as_ref()
            .context("this process has left the folder")
    }

    /// Refuses to go on where another run has taken the folder, while this process was asleep.
    ///
    /// # Errors
    ///
    /// When one has, or the folder cannot be read.
    pub(crate) fn check(&self) -> Result<()> {
        let now = Identity::at(&self.path()).ok();
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_some() && now == known {
            return Ok(());
        }
        self.occupy()
    }

    fn path(&self) -> PathBuf {
        self.out.join(FOLDER).join(FILE)
    }

    /// Makes sure that the file names this run.
    fn occupy(&self) -> Result<()> {
        let path = self.path();
        let began = Instant::now();
        let occupied = || -> Result<()> {
            loop {
                match create_with(&path, &self.text) {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error.into()),
                }
                match read(&path)? {
                    Found::Nothing => {}
                    Found::Unreadable(_) if began.elapsed() < PATIENCE => sleep(PERIOD),
                    Found::Unreadable(text) => take_away(&path, &text)?,
                    Found::Run(text, other) => {
                        let differences = self.description.differences(&other);
                        if differences.is_empty() {
                            return Ok(());
                        }
                        let run = other.fingerprint()?;
                        let at_work = |other: &Record| {
                            other.run == run || other.entered && other.run != self.fingerprint
                        };
                        match claims::others(&self.out).into_iter().find(at_work) {
                            Some(worker) => return Err(self.at_work(&worker, &differences)),
                            None => take_away(&path, &text)?,
                        }
                    }
                }
            }
        };
        occupied().with_context(|| format!("claiming the folder by `{}`", path.display()))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Identity::at(&path).ok();
        Ok(())
    }

    fn at_work(&self, other: &Record, differences: &[String]) -> anyhow::Error {
        let what = if differences.is_empty() {
            String::new()
        } else {
            format!(" ({})", differences.join("; "))
        };
        failure::failed(
            format_args!(
                "the process {} on {} is at work in `{}` with another run{what}",
                other.pid,
                other.host,
                self.out.display()
            ),
            "wait until it has ended, or end it; or name another folder with `--out`",
        )
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.worker = None;
        // The last of a run leaves nothing; a process that sleeps puts the file there again.
        if claims::others(&self.out).is_empty()
            && let Ok(Found::Run(_, run)) = read(&self.path())
            && self.description.differences(&run).is_empty()
        {
            let _ = fs::remove_file(self.path());
        }
        claims::remove_empty_folders(&self.out.join(FOLDER));
        if self.created {
            // Where nothing was written, not even the folder stays.
            let _ = fs::remove_dir(&self.out);
        }
    }
}

fn read(path: &Path) -> Result<Found> {
    let text = match files::read(path, files::TEXT) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => {
            return Err(error).with_context(|| format!("reading `{}`", path.display()));
        }
    };
    let record = serde_json::from_slice::<Value>(&text).ok();
    Ok(match record.filter(|record| record.get("run").is_some()) {
        Some(record) => Found::Run(text, Box::new(Description::of_record(&record))),
        None => Found::Unreadable(text),
    })
}

/// Creates a file with its content in one step, where there is none.
fn create_with(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut named = tempfile::Builder::new();
    let mut hidden = named
        .prefix(&prefix())
        .make_in(folder, |path| File::create_new(path))?;
    hidden.write_all(text)?;
    match fs::hard_link(hidden.path(), path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        // Not every file system has links: there a reader waits until the file is filled.
        Err(_) => File::create_new(path)?.write_all(text),
        Ok(()) => Ok(()),
    }
}

/// Removes the file if it still says this.
fn take_away(path: &Path, text: &[u8]) -> Result<()> {
    let hidden = path.with_file_name(format!("{}taken", prefix()));
    match fs::rename(path, &hidden) {
        // Another one was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("removing `{}`", path.display())),
        Ok(()) => {}
    }
    if files::read(&hidden, files::TEXT)? != text {
        // One that was put there in between goes back, unless there is a third.
        let _ = fs::hard_link(&hidden, path);
    }
    fs::remove_file(&hidden).with_context(|| format!("removing `{}`", hidden.display()))
}
