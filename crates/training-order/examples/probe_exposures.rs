//! Exposures of every sequence's first tokens: `probe_exposures PREFIX SEQUENCE_LENGTH BATCH_SIZE N_STEPS N_TOKENS OUT`,
//! for `benches/probe_exposures.py`.
//!
//! The order is that of seed 1234. Writes `OUT/sequences.npy`, `[sequences, tokens]`, and `OUT/exposures.npy`,
//! `[sequences, 3]`: occurrences before, after and at the same step.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use training_order::mmididx::Dataset;
use training_order::{Items, LoaderSettings, TrainingIndex, TrainingOrder, npy};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [prefix, numbers @ .., out] = arguments.as_slice() else {
        eprintln!("usage: probe_exposures PREFIX SEQUENCE_LENGTH BATCH_SIZE N_STEPS N_TOKENS OUT");
        return ExitCode::from(2);
    };
    match run(prefix.as_ref(), numbers, out.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(prefix: &Path, numbers: &[String], out: &Path) -> Result<(), Box<dyn Error>> {
    let numbers: Vec<u32> = numbers
        .iter()
        .map(|number| number.parse())
        .collect::<Result<_, _>>()?;
    let [sequence_length, batch_size, n_steps, n_tokens] = numbers[..] else {
        return Err("four numbers are needed".into());
    };
    let settings = LoaderSettings {
        items: Items::TrainDataPaths,
        sequence_length,
        batch_size,
        n_steps,
        seed: 1234,
    };
    let order = TrainingOrder::from_seed(Dataset::open(prefix)?, &settings)?;
    let probes: Vec<TrainingIndex> = (0..order.n_sequences()).map(TrainingIndex::new).collect();
    let started = Instant::now();
    let exposures = order.probe_exposures(&probes, 0..n_tokens)?;
    println!(
        "{} probes: {:.2} s",
        probes.len(),
        started.elapsed().as_secs_f64()
    );

    let mut file = BufWriter::new(File::create(out.join("exposures.npy"))?);
    let columns = exposures
        .iter()
        .flat_map(|found| [found.before, found.after, found.same_step]);
    npy::write(&mut file, &[probes.len(), 3], columns)?;
    file.flush()?;
    let mut tokens = Vec::new();
    for probe in &probes {
        order.read_tokens(*probe, 0..sequence_length + 1, &mut tokens)?;
    }
    let tokens = tokens
        .into_iter()
        .map(u16::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    let mut file = BufWriter::new(File::create(out.join("sequences.npy"))?);
    npy::write(
        &mut file,
        &[probes.len(), sequence_length as usize + 1],
        tokens,
    )?;
    Ok(file.flush()?)
}
