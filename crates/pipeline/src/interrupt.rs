//! Ctrl-C: the first one asks for an end after the parts at hand, the next one ends at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether work should end; shared by all threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    /// Whether the next signal ends the program at once.
    at_once: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to SIGINT and SIGTERM. Until [`Stop::gently`] they end the program at once, as they do by default.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let stop = Self {
            asked: Arc::default(),
            at_once: Arc::new(AtomicBool::new(true)),
        };
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds `at_once` as it was.
            flag::register_conditional_default(signal, Arc::clone(&stop.at_once))
                .and_then(|_| flag::register(signal, Arc::clone(&stop.at_once)))
                .and_then(|_| flag::register(signal, Arc::clone(&stop.asked)))
                .context("listening to signals")?;
        }
        Ok(stop)
    }

    /// Lets work that is kept only when it is whole go on after a first signal.
    pub(crate) fn gently(&self) {
        self.at_once.store(self.is_asked(), Ordering::SeqCst);
    }

    /// Lets signals end the program at once again.
    pub(crate) fn at_once(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }

    /// Asks for an end.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Asks for an end when stdin ends: when whoever started this process is gone or wants it.
    ///
    /// # Errors
    ///
    /// When the system starts no thread.
    pub(crate) fn with_stdin(&self) -> Result<()> {
        let stop = self.clone();
        let read = move || {
            let mut nothing = [0];
            while !matches!(std::io::stdin().read(&mut nothing), Ok(0) | Err(_)) {}
            stop.ask();
        };
        std::thread::Builder::new().spawn(read)?;
        Ok(())
    }

    /// Whether work should end.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}
