//! What a user sees of a failure, and the exit code that scripts see.

use crate::config::ConfigError;
use anyhow::{Result, anyhow};
use std::fmt::Display;
use std::io::Write;
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
        Err(failed(
            format_args!("this program has a mistake: {}", panicked()),
            "please report it, with the command, the run file and the log in the output folder",
        ))
    })
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
    error.chain().find_map(|link| {
        None.or_else(|| Some(link.downcast_ref::<Curable>()?.hint.clone()))
            .or_else(|| link.downcast_ref::<training_order::OpenError>()?.hint())
            .or_else(|| link.downcast_ref::<training_order::ReadError>()?.hint())
            .or_else(|| link.downcast_ref::<training_order::OrderError>()?.hint())
            .or_else(|| link.downcast_ref::<gpt_neox::LoadError>()?.hint())
            .or_else(|| link.downcast_ref::<gpt_neox::JudgeError>()?.hint())
            .or_else(|| link.downcast_ref::<gpt_neox::DeviceError>()?.hint())
    })
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
    let _ = writeln!(stderr, "error: {error:#}");
    if let Some(hint) = hint(error) {
        let _ = writeln!(stderr, "\nhint: {hint}");
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
