//! Feeds damaged files to everything that reads files, on stable Rust: `fuzz SECONDS [SEED]`.
//!
//! Each round takes a case of `tests/reference`, damages some of its files (bits, bytes, whole fields, lengths),
//! and then opens, checks and reads the corpus in every way there is. Errors are expected; a panic ends the
//! program, and leaves the round's files in a folder that it names. Run it with little memory (`ulimit -v
//! 2000000`), so that a length taken from a damaged header shows.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use training_order::mmididx::Dataset;
use training_order::npy::Array;
use training_order::numpy_random::RandomState;
use training_order::{Items, LoaderSettings, MapFiles, TrainingIndex, TrainingOrder};

/// A case: its files by name.
type Files = Vec<(String, Vec<u8>)>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| {
        arguments
            .get(place)
            .and_then(|text| text.parse::<u32>().ok())
    };
    let Some(seconds) = number(0) else {
        eprintln!("usage: fuzz SECONDS [SEED]");
        return ExitCode::from(2);
    };
    match run(Duration::from_secs(seconds.into()), number(1).unwrap_or(0)) {
        Ok((n_rounds, n_read)) => {
            println!("{n_rounds} rounds, {n_read} orders read to the end: no panic");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(time: Duration, seed: u32) -> Result<(u64, u64), Box<dyn Error>> {
    let cases = cases()?;
    let folder = std::env::temp_dir().join(format!("fuzz-{}", std::process::id()));
    let mut random = RandomState::new(seed);
    let started = Instant::now();
    let (mut n_rounds, mut n_read) = (0, 0);
    while started.elapsed() < time {
        let mut files = cases[below(&mut random, cases.len())].clone();
        for _ in 0..=below(&mut random, 3) {
            let file = below(&mut random, files.len());
            damage(&mut random, &mut files[file].1);
        }
        fs::create_dir_all(&folder)?;
        for (name, bytes) in &files {
            fs::write(folder.join(name), bytes)?;
        }
        match catch_unwind(AssertUnwindSafe(|| read_everything(&folder, &mut random))) {
            Err(_) => {
                return Err(format!("a panic in round {n_rounds}: {}", folder.display()).into());
            }
            Ok(read) => n_read += read.unwrap_or(0),
        }
        fs::remove_dir_all(&folder)?;
        n_rounds += 1;
    }
    Ok((n_rounds, n_read))
}

/// The corpora of the reference cases, with GPT-NeoX's maps under the names that are looked for.
fn cases() -> Result<Vec<Files>, Box<dyn Error>> {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let mut cases = Vec::new();
    for entry in fs::read_dir(reference)? {
        let folder = entry?.path();
        let mut files = Files::new();
        for (path, maps) in listed(&folder)?
            .into_iter()
            .map(|path| (path, false))
            .chain(
                listed(&folder.join("expected"))?
                    .into_iter()
                    .map(|path| (path, true)),
            )
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let name = name
                .strip_prefix("train_0_")
                .or(name.strip_prefix("train_"))
                .unwrap_or(&name)
                .to_owned();
            let is_map =
                ["doc_idx.npy", "sample_idx.npy", "shuffle_idx.npy"].contains(&name.as_str());
            let is_corpus = path
                .extension()
                .is_some_and(|ending| ending == "idx" || ending == "bin");
            if (maps && is_map) || is_corpus {
                let name = if is_map { format!("maps_{name}") } else { name };
                files.push((name, fs::read(path)?));
            }
        }
        if !files.is_empty() {
            files.sort();
            cases.push(files);
        }
    }
    Ok(cases)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    Ok(entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?)
}

/// A number below `n`, which is not 0.
fn below(random: &mut RandomState, n: usize) -> usize {
    usize::try_from(random.interval(n as u64 - 1)).unwrap_or(0)
}

/// Changes a file where it hurts: more often in its first bytes, which are the headers.
fn damage(random: &mut RandomState, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(0);
        return;
    }
    let place = if random.next_u32().is_multiple_of(2) {
        below(random, bytes.len().min(200))
    } else {
        below(random, bytes.len())
    };
    match random.next_u32() % 6 {
        0 => bytes[place] ^= 1 << (random.next_u32() % 8),
        1 => bytes[place] = random.next_u32().to_le_bytes()[0],
        2 => bytes.truncate(place),
        3 => {
            let again = bytes[place..].to_vec();
            bytes.extend(again);
        }
        _ => {
            // A field: the numbers that overflow, and their neighbours.
            let fields = [
                0,
                1,
                2,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                u64::MAX >> 1,
                1 << 63,
                u64::MAX,
            ];
            let width = if random.next_u32().is_multiple_of(2) {
                4
            } else {
                8
            };
            let field = fields[below(random, fields.len())].to_le_bytes();
            for (byte, new) in bytes[place..].iter_mut().zip(&field[..width]) {
                *byte = *new;
            }
        }
    }
}

/// Opens, checks and reads whatever lies in the folder, in every way that a corpus can be taken; gives the number
/// of ways without an error.
fn read_everything(folder: &Path, random: &mut RandomState) -> Result<u64, Box<dyn Error>> {
    let names = listed(folder)?;
    let with_ending = |wanted: &'static str| {
        names
            .iter()
            .filter(move |path| path.extension().is_some_and(|ending| ending == wanted))
    };
    for array in with_ending("npy").filter_map(|path| Array::open(path).ok()) {
        std::hint::black_box(array.iter().max());
    }
    let prefix = with_ending("idx")
        .next()
        .ok_or("no `.idx`")?
        .with_extension("");
    let items = match random.next_u32() % 2 {
        0 => Items::TrainDataPaths,
        _ => Items::DataPath {
            split: "969, 30, 1".parse()?,
        },
    };
    let sequence_length = [8, 64, 2048][below(random, 3)];
    let settings = LoaderSettings {
        items,
        sequence_length,
        batch_size: 4,
        n_steps: 5,
        seed: 1234,
    };
    let maps = MapFiles::with_prefix(&folder.join("maps"));
    let orders = [
        TrainingOrder::from_seed(Dataset::open(&prefix)?, &settings),
        TrainingOrder::from_maps(Dataset::open(&prefix)?, &maps, &settings),
        TrainingOrder::preshuffled(Dataset::open(&prefix)?, &settings),
    ];
    let read = orders
        .into_iter()
        .filter_map(|order| read_order(&order.ok()?).ok());
    Ok(read.count() as u64)
}

/// Reads all of an order, to the end even after an error; then gives the last error.
fn read_order(order: &TrainingOrder) -> Result<(), Box<dyn Error>> {
    let mut outcome: Result<(), Box<dyn Error>> = order.check().map(|_| ()).map_err(Into::into);
    for index in (0..order.n_sequences()).map(TrainingIndex::new) {
        let mut tokens = Vec::new();
        let read = order.read_tokens(index, 0..order.sequence_length() + 1, &mut tokens);
        outcome = outcome.and(read.map_err(Into::into));
        outcome = outcome.and(order.documents(index).map(|_| ()).map_err(Into::into));
    }
    if order.mixture().is_some() {
        let exposures = order.exposures(0, &[0, 1, 2].into());
        outcome = outcome.and(exposures.map(|_| ()).map_err(Into::into));
    }
    outcome
}
