//! Reads the first 64 tokens of many sequences: `read_probes PREFIX INDICES.npy`, for `benches/read_probes.py`.
//!
//! The corpus is read in the order of seed 1234 at 2,048 tokens a sequence. Prints the sum of all tokens read.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use rayon::prelude::*;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use training_order::mmididx::{Dataset, ReadError};
use training_order::npy::Array;
use training_order::{Items, LoaderSettings, TrainingIndex, TrainingOrder};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [prefix, indices] = arguments.as_slice() else {
        eprintln!("usage: read_probes PREFIX INDICES.npy");
        return ExitCode::from(2);
    };
    match run(prefix.as_ref(), indices.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(prefix: &Path, indices: &Path) -> Result<(), Box<dyn Error>> {
    let indices: Vec<u64> = Array::open(indices)?
        .iter()
        .map(u64::try_from)
        .collect::<Result<_, _>>()?;
    let n_steps = u32::try_from(indices.iter().max().copied().unwrap_or(0) + 1)?;
    let settings = LoaderSettings {
        items: Items::DataPath {
            split: "1".parse()?,
        },
        sequence_length: 2048,
        batch_size: 1,
        n_steps,
        seed: 1234,
    };
    let order = TrainingOrder::from_seed(Dataset::open(prefix)?, &settings)?;
    // Once to warm up, as the peer does.
    for round in ["cold", "warm"] {
        let started = Instant::now();
        let sums = indices.par_iter().map_init(Vec::new, |tokens, &index| {
            tokens.clear();
            order.read_tokens(TrainingIndex::new(index), 0..64, tokens)?;
            Ok::<u64, ReadError>(tokens.iter().copied().map(u64::from).sum())
        });
        let sum: u64 = sums.sum::<Result<u64, _>>()?;
        println!(
            "{round} {:.4} s, sum {sum}",
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
