//! What a user sees of a failure, and the exit code that scripts see.

use crate::config::ConfigError;
use crate::terminal::clean;
use anyhow::{Result, anyhow};
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// Something is wrong with the command line or the run file.
const USAGE: u8 = 2;
/// Anything else went wrong.
const FAILED: u8 = 1;
/// The user asked for an end: what a shell says of a program that SIGINT ended.
pub(crate) const INTERRUPTED: i32 = 130;

/// An error of ours whose cure is known.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Curable {
    message: String,
    hint: String,
    exit_code: u8,
}

/// An error about how the program was called.
pub(crate) fn usage(message: impl Display, hint: impl Display) -> anyhow::Error {
    curable(message, hint, USAGE)
}

/// An error about the world the program met.
pub(crate) fn failed(message: impl Display, hint: impl Display) -> anyhow::Error {
    curable(message, hint, FAILED)
}

/// An end that the user asked for.
pub(crate) fn interrupted(message: impl Display, hint: impl Display) -> anyhow::Error {
    // 130 fits.
    curable(message, hint, u8::try_from(INTERRUPTED).unwrap_or(FAILED))
}

fn curable(message: impl Display, hint: impl Display, exit_code: u8) -> anyhow::Error {
    Curable {
        message: message.to_string(),
        hint: hint.to_string(),
        exit_code,
    }
    .into()
}

/// What the last panic said, wherever in the program it was.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Does all of the program's work. A panic in it, our mistake or a library's, becomes an error, too.
///
/// # Errors
///
/// Those of `work`, and for a panic.
pub(crate) fn without_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Printed once, as the error that it becomes.
    set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let what = panic.payload_as_str().unwrap_or("no word of why");
        let place = panic.location().map(|place| format!(" ({place})"));
        let text = format!("{what}{}", place.unwrap_or_default());
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let panic = panicked();
        if is_of_threads(&panic) {
            return Err(too_few_threads(&panic));
        }
        Err(failed(
            format_args!("this program has a mistake: {panic}"),
            "please report it, with the command, the run file and the log in the output folder",
        ))
    })
}

/// Starts the threads that all work shares, then does it: a library that finds none would panic.
///
/// # Errors
///
/// Those of `work`, and when the system starts no threads.
pub(crate) fn with_threads<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    rayon::ThreadPoolBuilder::new()
        .build_global()
        .map_err(|error| too_few_threads(&error.to_string()))?;
    work()
}

/// Whether a panic is a library's way to say that it could start no thread (`pthread_create(3)`, EAGAIN).
fn is_of_threads(panic: &str) -> bool {
    ["spawn thread", "could not spawn", "ThreadPoolBuildError"]
        .iter()
        .any(|word| panic.contains(word))
        || panic.contains("Resource temporarily unavailable")
}

fn too_few_threads(why: &str) -> anyhow::Error {
    failed(
        format_args!("the system lets this process start no more threads: {why}"),
        "raise the limit of processes (`ulimit -u`), or ask for fewer threads: `RAYON_NUM_THREADS=1 POLARS_MAX_THREADS=1`",
    )
}

/// What `work` gives; an error where a library panics in it, as some do on damaged input.
///
/// # Errors
///
/// Those of `work`, and for a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(anyhow!("it is damaged: {}", panicked())))
}

fn panicked() -> String {
    PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The cure of an error, where some link of its chain knows one.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    let known = error.chain().find_map(|link| {
        None.or_else(|| Some(link.downcast_ref::<Curable>()?.hint.clone()))
            .or_else(|| link.downcast_ref::<training_order::OpenError>()?.hint())
            .or_else(|| link.downcast_ref::<training_order::ReadError>()?.hint())
            .or_else(|| link.downcast_ref::<training_order::OrderError>()?.hint())
            .or_else(|| link.downcast_ref::<gpt_neox::LoadError>()?.hint())
            .or_else(|| link.downcast_ref::<gpt_neox::JudgeError>()?.hint())
            .or_else(|| link.downcast_ref::<gpt_neox::DeviceError>()?.hint())
    });
    // Whatever was being done: the system says what is short.
    of_system(error).map(str::to_owned).or(known)
}

/// The cure of an error that the system gave and that says nothing of the file: too many are open, this user may
/// not read it, or the disk is full.
pub(crate) fn of_system(error: &anyhow::Error) -> Option<&'static str> {
    error
        .chain()
        .find_map(|link| hint_of_system(link.downcast_ref::<std::io::Error>()?))
}

/// The cure of what the system refuses, where that is the same whatever was being done.
fn hint_of_system(error: &std::io::Error) -> Option<&'static str> {
    // errno(3) on Linux and the BSDs.
    const TOO_MANY_IN_SYSTEM: i32 = 23;
    const TOO_MANY_IN_PROCESS: i32 = 24;
    if let Some(TOO_MANY_IN_PROCESS | TOO_MANY_IN_SYSTEM) = error.raw_os_error() {
        return Some("too many files are open at once: raise the limit with `ulimit -n`");
    }
    match error.kind() {
        ErrorKind::PermissionDenied => {
            Some("this user may not: change the permissions, or run the program as another user")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(
            "make room on the disk, then give the same command again: what is finished is kept",
        ),
        ErrorKind::ReadOnlyFilesystem => {
            Some("the disk is mounted read-only: name a folder elsewhere")
        }
        _ => None,
    }
}

/// Writes the error and its cure to stderr and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = error
        .chain()
        .filter_map(|link| link.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
    if broken_pipe {
        // Whoever read our output has read enough.
        return ExitCode::SUCCESS;
    }
    let mut stderr = std::io::stderr().lock();
    // Nothing is left to tell a user whose stderr is gone.
    let _ = writeln!(stderr, "error: {}", clean(&format!("{error:#}")));
    if let Some(hint) = hint(error) {
        let _ = writeln!(stderr, "\nhint: {}", clean(&hint));
    }
    ExitCode::from(exit_code(error))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let of_link = |link: &(dyn std::error::Error + 'static)| {
        if link.downcast_ref::<ConfigError>().is_some() {
            return Some(USAGE);
        }
        Some(link.downcast_ref::<Curable>()?.exit_code)
    };
    error.chain().find_map(of_link).unwrap_or(FAILED)
}
