//! Feeds damaged files to everything that reads files: `fuzz N [SEED]`, on stable Rust.
//!
//! Each of N rounds takes a case of `tests/reference`, damages it by the grammar of its formats
//! (`mutants.rs`), and then opens, checks and reads the corpus in every way there is. Errors are
//! expected. A panic, a round of more than 20 seconds, an error that names no file, and a sequence
//! that cannot be read although `check` found nothing end the program, and leave the round's files
//! in a folder that it names. Run it with little memory (`ulimit -v 2000000`), so that a length
//! taken from a damaged header shows.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

mod mutants;

use mutants::{Mutant, below};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use training_order::mmididx::Dataset;
use training_order::npy::Array;
use training_order::numpy_random::RandomState;
use training_order::{
    Items, LoaderSettings, MapFiles, OpenError, OrderError, TrainingIndex, TrainingOrder,
};

/// No round of a few KB takes so long.
const LONGEST: Duration = Duration::from_secs(20);

/// Outcomes by their kind.
type Tally = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Result<Vec<u32>, _> = arguments.iter().map(|text| text.parse()).collect();
    let (n_rounds, seed) = match numbers.as_deref() {
        Ok([n_rounds]) => (*n_rounds, 0),
        Ok([n_rounds, seed]) => (*n_rounds, *seed),
        _ => {
            eprintln!("usage: fuzz N [SEED]");
            return ExitCode::from(2);
        }
    };
    match run(n_rounds, seed) {
        Ok(tally) => {
            for (outcome, n) in tally {
                println!("{n:8}  {outcome}");
            }
            println!("{n_rounds} rounds: nothing wrong");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(n_rounds: u32, seed: u32) -> Result<Tally, Box<dyn Error>> {
    let cases = cases()?;
    let folder = std::env::temp_dir().join(format!("fuzz-{}", std::process::id()));
    let mut random = RandomState::new(seed);
    let mut tally = Tally::new();
    for round in 0..n_rounds {
        let (case, sequence_length) = &cases[below(&mut random, cases.len())];
        let mut mutant = Mutant::of(case);
        let mut what = Vec::new();
        for _ in 0..=below(&mut random, 3) {
            what.push(mutant.mutate(&mut random));
        }
        drop(fs::remove_dir_all(&folder));
        mutant.write(&folder)?;
        let started = Instant::now();
        let looked = catch_unwind(AssertUnwindSafe(|| {
            read_everything(&folder, *sequence_length, &mut random, &mut tally)
        }));
        let wrong = match looked {
            Err(_) => Some("a panic".to_owned()),
            Ok(Err(wrong)) => Some(wrong),
            Ok(Ok(())) if started.elapsed() > LONGEST => Some("it took too long".to_owned()),
            Ok(Ok(())) => None,
        };
        if let Some(wrong) = wrong {
            let place = folder.display();
            return Err(format!("round {round}: {wrong}\n{}\nsee {place}", what.join(", ")).into());
        }
    }
    drop(fs::remove_dir_all(&folder));
    Ok(tally)
}

/// The corpora of the reference cases, with GPT-NeoX's maps as `maps_*_idx.npy`, and their sequence
/// lengths.
fn cases() -> Result<Vec<(mutants::Files, u32)>, Box<dyn Error>> {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let mut cases = Vec::new();
    for folder in listed(&reference)? {
        let mut files = mutants::Files::new();
        let paths = listed(&folder)?.into_iter();
        for path in paths.chain(listed(&folder.join("expected"))?) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let map = name
                .strip_prefix("train_0_")
                .or(name.strip_prefix("train_"));
            match (map, path.extension().and_then(|ending| ending.to_str())) {
                (Some(map), _) if map.ends_with("_idx.npy") => {
                    files.insert(format!("maps_{map}"), fs::read(&path)?);
                }
                (_, Some("idx" | "bin")) => {
                    files.insert(name.into_owned(), fs::read(&path)?);
                }
                _ => {}
            }
        }
        if !files.is_empty() {
            let case: serde_json::Value =
                serde_json::from_slice(&fs::read(folder.join("case.json"))?)?;
            let sequence_length = case["params"]["seq_length"].as_u64().unwrap_or(2048);
            cases.push((files, u32::try_from(sequence_length)?));
        }
    }
    Ok(cases)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    paths.sort();
    Ok(paths)
}

/// Opens, checks and reads whatever lies in the folder, in every way that a corpus can be taken.
fn read_everything(
    folder: &Path,
    sequence_length: u32,
    random: &mut RandomState,
    tally: &mut Tally,
) -> Result<(), String> {
    let names = listed(folder).map_err(|error| error.to_string())?;
    let with_ending = |wanted: &'static str| {
        names
            .iter()
            .filter(move |path| path.extension().is_some_and(|ending| ending == wanted))
    };
    for path in with_ending("npy") {
        match Array::open(path) {
            Ok(array) if array.iter().count() as u64 == array.len() => {}
            Ok(_) => return Err(format!("{} is not as long as it says", path.display())),
            Err(error) => named(folder, "npy", &error, error.hint().as_deref(), tally)?,
        }
    }
    let Some(prefix) = with_ending("idx").next() else {
        return Ok(());
    };
    let prefix = prefix.with_extension("");
    let split = "969, 30, 1".parse().map_err(|_| "no split")?;
    let items = [Items::TrainDataPaths, Items::DataPath { split }][below(random, 2)];
    let settings = LoaderSettings {
        items,
        sequence_length: [sequence_length, sequence_length, 8, 2048][below(random, 4)],
        batch_size: 4,
        n_steps: [1, 5, 100][below(random, 3)],
        seed: 1234,
    };
    let maps = MapFiles::with_prefix(&folder.join("maps"));
    for way in ["seed", "maps", "preshuffled"] {
        let dataset = match Dataset::open(&prefix) {
            Ok(dataset) => dataset,
            Err(error) => {
                let is_system = matches!(error, OpenError::Io { .. });
                let way = if is_system { "open: system" } else { "open" };
                named(folder, way, &error, error.hint().as_deref(), tally)?;
                continue;
            }
        };
        let order = match way {
            "seed" => TrainingOrder::from_seed(dataset, &settings),
            "maps" => TrainingOrder::from_maps(dataset, &maps, &settings),
            _ => TrainingOrder::preshuffled(dataset, &settings),
        };
        match order {
            Ok(order) => read_order(folder, way, &order, tally)?,
            Err(error) => named(folder, way, &error, error.hint().as_deref(), tally)?,
        }
    }
    Ok(())
}

/// Reads all of an order, to the end even after an error.
fn read_order(
    folder: &Path,
    way: &str,
    order: &TrainingOrder,
    tally: &mut Tally,
) -> Result<(), String> {
    let checked = order.check();
    let mut failed = None;
    for index in (0..order.n_sequences()).map(TrainingIndex::new) {
        let mut tokens = Vec::new();
        let all = 0..order.sequence_length() + 1;
        let read = order.read_tokens(index, all.clone(), &mut tokens);
        if read.is_ok() && tokens.len() != all.len() {
            return Err(format!(
                "{way}: sequence {index} has {} tokens",
                tokens.len()
            ));
        }
        let documents = order.documents(index).map(|_| ());
        failed = failed.or(read.err()).or(documents.err());
    }
    if order.mixture().is_some() {
        match order.exposures(0, &[0, 1, 2].into()) {
            Ok(_) => {}
            Err(OrderError::Read(error)) => failed = failed.or(Some(error)),
            Err(error) => return Err(format!("{way}: exposures: {error}")),
        }
    }
    match (checked, failed) {
        (Ok(_), None) => {
            *tally.entry(format!("{way}: read to the end")).or_default() += 1;
            Ok(())
        }
        (Ok(_), Some(error)) => Err(format!("{way}: check found nothing, but {error}")),
        (Err(error), _) => named(
            folder,
            &format!("{way}: check"),
            &error,
            error.hint().as_deref(),
            tally,
        ),
    }
}

/// Counts an error, which must name a file of the folder and have a cure.
fn named(
    folder: &Path,
    way: &str,
    error: &dyn Error,
    hint: Option<&str>,
    tally: &mut Tally,
) -> Result<(), String> {
    let text = error.to_string();
    if !text.contains(&*folder.to_string_lossy()) {
        return Err(format!("{way}: an error without a file: {text}"));
    }
    if hint.is_none() {
        return Err(format!("{way}: an error without a cure: {text}"));
    }
    *tally.entry(format!("{way}: refused")).or_default() += 1;
    Ok(())
}
