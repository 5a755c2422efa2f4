//! One function a command.

mod analyse;
mod audit;
mod check;
mod columns;
mod inspect;
mod plan;
mod run;
mod schema;
mod slurm;
mod status;
mod suite;

use crate::cli::{Cli, Command};
use crate::config::Overrides;
use crate::failure;
use anyhow::Result;
use std::path::PathBuf;

/// Does what the command line asks for.
///
/// # Errors
///
/// Whatever kept it from being done.
pub(crate) fn execute(cli: Cli) -> Result<()> {
    match cli.command {
        None => run::run(&mini_run_file()?, &cli.options, cli.log),
        Some(Command::Run { file, options }) => run::run(&file, &options, cli.log),
        Some(Command::Plan { file, options }) => plan::plan(&file, &options),
        Some(Command::Check {
            file,
            out,
            device,
            full_hash,
        }) => check::check(&file, &Overrides { out, device }, full_hash),
        Some(Command::Audit { file }) => audit::run(&file),
        Some(Command::Analyse { path, out }) => analyse::analyse(&path, out.as_deref()),
        Some(Command::Status { out }) => status::status(&out),
        Some(Command::Slurm { file, options }) => slurm::slurm(&file, &options),
        Some(Command::Inspect(options)) => inspect::inspect(&options),
        Some(Command::Suite(options)) => suite::suite(&options),
        Some(Command::Schema { run_file }) => schema::schema(run_file),
    }
}

/// The miniature suite's run file, from the current directory upward.
fn mini_run_file() -> Result<PathBuf> {
    const MINI: &str = "pipelines/mini.toml";
    let here = std::env::current_dir()?;
    let found = here
        .ancestors()
        .map(|folder| folder.join(MINI))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        failure::usage(
            format_args!("there is no `{MINI}` in `{}` or above it", here.display()),
            "go to a clone of the repository, or name a run file: `pipeline run FILE`",
        )
    })
}
