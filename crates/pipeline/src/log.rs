//! What happens, line by line: to stderr, beside the progress bar, and to a file in the output folder.

use crate::mark::LOG;
use crate::process;
use crate::progress;
use anyhow::{Context, Result};
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// The folder of the logs, in the output folder: one file a process, so that processes of several machines never share one.
pub(crate) const FOLDER: &str = "logs";

/// Where the lines of this process go, once there is an output folder.
static FILE: OnceLock<File> = OnceLock::new();

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verbosity(Option<Level>);

impl FromStr for Verbosity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        // tracing reads numbers, too, which nobody can remember.
        let level = text
            .parse()
            .ok()
            .filter(|_| text.chars().all(char::is_alphabetic));
        level
            .map(|level| Self(Some(level)))
            .ok_or_else(|| "one of `off`, `error`, `warn`, `info`, `debug`, `trace`".to_owned())
    }
}

impl fmt::Display for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(level) => f.write_str(&level.as_str().to_ascii_lowercase()),
        }
    }
}

/// Listens to all that happens from now on. What the flag leaves open, `RUST_LOG` decides; without either, stderr gets
/// warnings and the file what is done, too.
pub(crate) fn begin(flag: Option<Verbosity>) {
    let variable = || std::env::var("RUST_LOG").ok()?.parse().ok();
    let asked = flag.or_else(variable);
    let lines = Lines {
        terminal: asked.unwrap_or(Verbosity(Some(Level::WARN))),
        file: asked.unwrap_or(Verbosity(Some(Level::INFO))),
    };
    // Nobody has set another one: this is called once.
    let _ = tracing::subscriber::set_global_default(lines);
}

/// Writes to a file of the output folder `out`, too, from now on.
///
/// # Errors
///
/// When it cannot be created.
pub(crate) fn to_folder(out: &Path) -> Result<()> {
    let folder = out.join(FOLDER);
    let now = Moment::now().0;
    let name = format!("{}-{}.log", now.replace([':', '-'], ""), *process::ID);
    let path = folder.join(name);
    let open = || {
        fs::create_dir_all(&folder)?;
        let mut file = File::options().create_new(true).append(true).open(&path)?;
        let first = format!("{LOG}{}\n", env!("CARGO_PKG_VERSION"));
        // Without its first line it is nobody's, and in the way.
        file.write_all(first.as_bytes())
            .inspect_err(|_| drop(fs::remove_file(&path)))?;
        std::io::Result::Ok(file)
    };
    let file = open().with_context(|| format!("writing `{}`", path.display()))?;
    FILE.get_or_init(|| file);
    Ok(())
}

/// Writes events as lines. The program opens no spans.
struct Lines {
    terminal: Verbosity,
    file: Verbosity,
}

impl Verbosity {
    fn holds(self, level: Level) -> bool {
        self.0.is_some_and(|most| level <= most)
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = *metadata.level();
        self.terminal.holds(level) || self.file.holds(level)
    }

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        let mut text = Text(String::new());
        event.record(&mut text);
        let line = format!("{} {level:5} {}", Moment::now().0, text.0);
        if self.terminal.holds(level) {
            progress::say(&line);
        }
        if let Some(mut file) = FILE.get().filter(|_| self.file.holds(level)) {
            // One call a line: an appending file takes it whole. A full disk is said where it matters.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message, then the other fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// A moment as ISO 8601 writes it, in UTC: `2026-01-31T12:00:00Z`.
struct Moment(String);

impl Moment {
    fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::at(now.unwrap_or_default().as_secs())
    }

    /// So many seconds after 1970 began; days to dates as in Hinnant, "chrono-compatible low-level date algorithms".
    fn at(seconds: u64) -> Self {
        let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        // The algorithm's year begins in March.
        let (month, later) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = year + era * 400 + later;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Self(format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_date() {
        // date -u -d @SECONDS +%FT%TZ
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment::at(seconds).0, text);
        }
    }

    #[test]
    fn a_verbosity_is_a_word() {
        assert_eq!("info".parse(), Ok(Verbosity(Some(Level::INFO))));
        assert_eq!("off".parse(), Ok(Verbosity(None)));
        for text in ["3", "loud", ""] {
            assert!(text.parse::<Verbosity>().is_err(), "{text}");
        }
    }
}
