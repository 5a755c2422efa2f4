//! The order of the Pile, without the Pile: `pythia_order --seed 1234` prints the SHA-256 of `doc_idx` and
//! `shuffle_idx` as Pythia's standard models were trained with (seed 1234), or PolyPythias' (seeds 1 to 9).
//!
//! The two depend only on the seed and on counts that follow from the published files: 210,607,728 documents,
//! one epoch, 162,165,686 samples.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use sha2::{Digest, Sha256};
use std::process::ExitCode;
use std::time::Instant;
use training_order::index_map::permutations;

const N_DOCUMENTS: u32 = 210_607_728;
const N_SAMPLES: u32 = 162_165_686;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--seed", seed] => seed.parse(),
        _ => "".parse::<u32>(),
    };
    let Ok(seed) = seed else {
        eprintln!("usage: pythia_order --seed SEED");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let Ok((doc_idx, shuffle_idx)) = permutations(0..N_DOCUMENTS, 1, N_SAMPLES, seed) else {
        eprintln!("the permutations do not fit into memory");
        return ExitCode::FAILURE;
    };
    eprintln!("both shuffles: {:.2} s", started.elapsed().as_secs_f64());
    for (name, kind, numbers) in [
        ("doc_idx", "i32", doc_idx),
        ("shuffle_idx", "u32", shuffle_idx),
    ] {
        println!(
            "{name} ({kind}, little-endian)  {}  first {:?}",
            sha256(&numbers),
            &numbers[..4]
        );
    }
    ExitCode::SUCCESS
}

/// Document and sample numbers are below 2³¹: as i32 and as u32 they are the same bytes.
fn sha256(numbers: &[u32]) -> String {
    let mut hash = Sha256::new();
    for some in numbers.chunks(1 << 14) {
        hash.update(
            some.iter()
                .flat_map(|number| number.to_le_bytes())
                .collect::<Vec<u8>>(),
        );
    }
    let hash: [u8; 32] = hash.finalize().into();
    hash.iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
