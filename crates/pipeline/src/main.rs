//! Memorization against training time, for models trained by GPT-NeoX: from a tokenized corpus and
//! checkpoints to parquet tables.

mod audit;
mod claims;
mod cli;
mod commands;
mod config;
mod corpora;
mod description;
mod door;
mod failure;
mod files;
mod fingerprint;
mod hub;
mod inputs;
mod interrupt;
mod judges;
mod learning_rate;
mod lists;
mod log;
mod manifest;
mod mark;
mod output;
mod process;
mod progress;
mod shard;
mod stages;
mod suite;
mod tables;
mod terminal;
mod text;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    gpt_neox::device::keep_freed_memory();
    let cli = cli::Cli::parse();
    log::begin(cli.log);
    match failure::without_panic(|| failure::with_threads(|| commands::execute(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
