//! Mutates the reference models' files by their grammar and holds the loader to its promises.
//!
//!     cargo run -p gpt-neox --example fuzz_weights -- N [SEED]
//!
//! Each of the N mutants is a checkpoint with one to three changes: of values and keys in
//! `config.json`, of names, types, shapes and offsets in safetensors headers, of paths in lists of
//! shards, of records and pickles in `.bin` files (their checksums set right again), and of plain
//! bytes. It must not panic, take more than 20 seconds or a gigabyte. An error names the
//! checkpoint. What `Checkpoint::check` passes must load, and give finite verdicts or an error. The
//! first mutant that breaks a promise stays in a folder that is named.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use gpt_neox::{Checkpoint, DeviceChoice, GptNeox, Judge, LoadError, Measures, Precision, Probes};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A checkpoint: its files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// The longest that a mutant may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most memory that the process may ever hold, in KiB.
const MOST_MEMORY: u64 = 1 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| arguments.get(place).map(|text| text.parse::<u64>());
    let (Some(Ok(n)), Ok(seed)) = (number(0), number(1).unwrap_or(Ok(0))) else {
        eprintln!("usage: fuzz_weights N [SEED]");
        return ExitCode::from(2);
    };
    match run(n, &mut Random(seed)) {
        Ok(tally) => {
            for (outcome, n) in tally {
                println!("{n:7} {outcome}");
            }
            println!("{n} mutants: every promise kept");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(n: u64, random: &mut Random) -> Result<BTreeMap<String, u64>, Box<dyn Error>> {
    let cases = cases()?;
    let folder = std::env::temp_dir().join(format!("fuzz-weights-{}", std::process::id()));
    let mut tally = BTreeMap::new();
    for round in 0..n {
        let mut files = random.one_of(&cases).clone();
        for _ in 0..=random.below(3) {
            mutate(&mut files, random);
        }
        fs::create_dir_all(&folder)?;
        for (name, bytes) in &files {
            fs::write(folder.join(name), bytes)?;
        }
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| judge(&folder)));
        let outcome = outcome.unwrap_or_else(|_| Err("it panicked".into()));
        let late = begun.elapsed() > PATIENCE;
        let large = peak().is_some_and(|peak| peak > MOST_MEMORY);
        let outcome = match outcome {
            Ok(_) if late => Err("it took too long".into()),
            Ok(_) if large => Err("it took too much memory".into()),
            outcome => outcome,
        };
        match outcome {
            Ok(outcome) => *tally.entry(outcome).or_insert(0) += 1,
            Err(error) => {
                return Err(format!("round {round}, {}: {error}", folder.display()).into());
            }
        }
        fs::remove_dir_all(&folder)?;
    }
    Ok(tally)
}

/// Reads all of a checkpoint; gives its outcome, or the promise that was broken.
fn judge(folder: &Path) -> Result<String, Box<dyn Error>> {
    let checked = Checkpoint::open(folder).and_then(|checkpoint| checkpoint.check());
    let loaded = GptNeox::load(folder, DeviceChoice::Cpu, Precision::F32);
    let mut model = match (checked, loaded) {
        (Ok(()), Ok(model)) => model,
        (Ok(()), Err(error)) => return Err(format!("checked, yet not loaded: {error}").into()),
        (Err(error), Ok(_)) => return Err(format!("loaded, yet not checked: {error}").into()),
        (Err(error), Err(_)) => return of_error(folder, &error),
    };
    let vocab_size = u32::try_from(model.config().vocab_size)?;
    let tokens: Vec<u32> = (0..4 * 16).map(|i| i * 7 % vocab_size).collect();
    let probes = Probes::new(&tokens, 8, 8)?;
    let measures = Measures {
        score: true,
        likelihood: true,
        suppress_eos: false,
    };
    match model.judge(&probes, measures) {
        Err(error) => Ok(format!("not judged: {}", kind(&error))),
        Ok(verdicts) => {
            for verdict in verdicts {
                let likelihood = verdict.likelihood.ok_or("no likelihood")?;
                let numbers = [verdict.margin, verdict.closest, likelihood.surprisal];
                if !numbers.iter().all(|number| number.is_finite()) {
                    return Err(format!("a verdict is not finite: {verdict:?}").into());
                }
            }
            Ok("judged".to_owned())
        }
    }
}

fn of_error(folder: &Path, error: &LoadError) -> Result<String, Box<dyn Error>> {
    let folder = folder.to_string_lossy();
    if !error.to_string().contains(&*folder) {
        return Err(format!("an error without its file: {error}").into());
    }
    Ok(format!("refused: {}", kind(error)))
}

/// The variant of an error.
fn kind(error: &dyn std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

/// The largest memory that the process has held, in KiB, where the system tells.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The reference models, without what they answer.
fn cases() -> Result<Vec<Files>, Box<dyn Error>> {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let mut cases = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(reference)?.collect::<Result<_, _>>()?;
    folders.sort_by_key(fs::DirEntry::path);
    for folder in folders.iter().filter(|folder| folder.path().is_dir()) {
        let mut files = Files::new();
        for entry in fs::read_dir(folder.path())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name != "reference.safetensors" {
                files.insert(name.into_owned(), fs::read(&path)?);
            }
        }
        cases.push(files);
    }
    Ok(cases)
}

/// Random numbers (Steele et al. 2014, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }

    fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A number that is on an edge, or one beside it.
    fn edge(&mut self) -> u64 {
        let edges = [
            0,
            1,
            2,
            32,
            1 << 24,
            1 << 31,
            1 << 32,
            1 << 61,
            1 << 63,
            u64::MAX,
        ];
        let edge = *self.one_of(&edges);
        edge.wrapping_add(self.next() % 3).wrapping_sub(1)
    }
}

fn mutate(files: &mut Files, random: &mut Random) {
    let names: Vec<String> = files.keys().cloned().collect();
    let name = random.one_of(&names).clone();
    let Some(bytes) = files.get_mut(&name) else {
        return;
    };
    if random.below(6) == 0 {
        damage(bytes, random);
    } else if name == "config.json" {
        of_json(bytes, random, of_config);
    } else if name.ends_with(".index.json") {
        of_json(bytes, random, of_list);
    } else if name.ends_with(".safetensors") {
        of_safetensors(bytes, random);
    } else {
        of_bin(bytes, random);
    }
    if random.below(40) == 0 {
        let other = random.one_of(&names).clone();
        if let Some(bytes) = files.get(&name).cloned() {
            files.insert(other, bytes);
        }
    }
}

/// Changes bytes, whatever they mean.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let place = random.below(bytes.len());
    match random.below(6) {
        0 => bytes.truncate(place),
        1 => bytes.extend(vec![0; random.below(5000)]),
        2 => bytes[place..].fill(0),
        3 => {
            let n = random.below(20_000).min(bytes.len() - place);
            bytes[place..place + n].fill(0);
        }
        4 => {
            let field = random.edge().to_le_bytes();
            for (byte, new) in bytes[place..].iter_mut().zip(field) {
                *byte = new;
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

fn of_json(
    bytes: &mut Vec<u8>,
    random: &mut Random,
    change: fn(&mut Map<String, Value>, &mut Random),
) {
    if let Ok(Value::Object(mut keys)) = serde_json::from_slice(bytes) {
        change(&mut keys, random);
        *bytes = Value::Object(keys).to_string().into_bytes();
    }
    match random.below(30) {
        // A key that stands twice, a byte order mark, something behind.
        0 => {
            let again = String::from_utf8_lossy(bytes).replacen('{', "{\"model_type\": 1,", 1);
            *bytes = again.into_bytes();
        }
        1 => bytes.splice(..0, *b"\xef\xbb\xbf").for_each(drop),
        2 => bytes.extend(b"}"),
        _ => {}
    }
}

fn odd_value(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(-1),
        json!(0.1),
        json!(0.5),
        json!(1e300),
        json!(1e-300),
        json!("gelu"),
        json!("\u{1b}[2J"),
        json!([]),
        json!([1, "a"]),
        json!({}),
        json!({"rope_type": "default"}),
        json!(10_000),
        json!(128),
    ];
    if random.below(2) == 0 {
        json!(random.edge())
    } else {
        random.one_of(&values).clone()
    }
}

fn of_config(keys: &mut Map<String, Value>, random: &mut Random) {
    const MORE: [&str; 10] = [
        "rotary_pct",
        "rotary_emb_base",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "use_parallel_residual",
        "attention_bias",
        "tie_word_embeddings",
        "quantization_config",
        "layer_norm_eps",
    ];
    let names: Vec<String> = keys.keys().cloned().collect();
    let name = names[random.below(names.len())..].first().cloned();
    let name = name.unwrap_or_default();
    match random.below(4) {
        0 => {
            keys.remove(&name);
        }
        1 => {
            keys.insert(name, odd_value(random));
        }
        2 => {
            let name = *random.one_of(&MORE);
            keys.insert(name.to_owned(), odd_value(random));
        }
        _ => {
            let rope = json!({
                "rope_type": random.one_of(&[json!("default"), json!("linear"), json!(null)]),
                "partial_rotary_factor": random.one_of(&[json!(0.25), json!(0.5), json!(1), json!("x")]),
                "rope_theta": random.one_of(&[json!(10_000), json!(5), json!(null)]),
            });
            keys.insert("rope_parameters".to_owned(), rope);
        }
    }
}

fn of_list(keys: &mut Map<String, Value>, random: &mut Random) {
    const PATHS: [&str; 10] = [
        "../outside.safetensors",
        "/dev/zero",
        "/etc/passwd",
        "",
        ".",
        "a/../../b",
        "config.json",
        "./model-00001-of-00004.safetensors",
        "gone.bin",
        "a\nb",
    ];
    let Some(Value::Object(map)) = keys.get_mut("weight_map") else {
        return;
    };
    let names: Vec<String> = map.keys().cloned().collect();
    let name = names[random.below(names.len())..].first().cloned();
    let Some(name) = name else {
        return;
    };
    match random.below(5) {
        0 => {
            map.remove(&name);
        }
        1 => {
            map.insert(name, odd_value(random));
        }
        2 => {
            let value = map.remove(&name).unwrap_or_default();
            map.insert(format!("module.{name}"), value);
        }
        3 => map.clear(),
        _ => {
            map.insert(name, json!(random.one_of(&PATHS)));
        }
    }
}

fn of_safetensors(bytes: &mut Vec<u8>, random: &mut Random) {
    let Some(length) = bytes
        .first_chunk::<8>()
        .map(|bytes| u64::from_le_bytes(*bytes))
    else {
        return;
    };
    let end = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_add(8);
    let Some(Ok(Value::Object(mut header))) = bytes.get(8..end).map(serde_json::from_slice) else {
        return;
    };
    let mut data = bytes[end..].to_vec();
    let names: Vec<String> = header.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let (name, other) = (random.one_of(&names).clone(), random.one_of(&names).clone());
    let place = random.below(data.len());
    match random.below(11) {
        0 => {
            let tensor = header.remove(&name).unwrap_or_default();
            header.insert(
                format!("{}{name}", random.one_of(&["module.", "model.", "x"])),
                tensor,
            );
        }
        1 => {
            let tensor = header.get(&other).cloned().unwrap_or_default();
            header.insert(name, tensor);
        }
        2 => {
            let dtypes = [
                "F64", "F32", "F16", "BF16", "I8", "U8", "F8_E4M3", "F4", "x",
            ];
            set(&mut header, &name, "dtype", json!(random.one_of(&dtypes)));
        }
        3 => {
            let shape = json!([random.edge(), random.edge()]);
            set(&mut header, &name, "shape", shape);
        }
        4 => {
            let tensor = header.get_mut(&name);
            if let Some(shape) = tensor.and_then(|tensor| tensor.get_mut("shape")?.as_array_mut()) {
                shape.reverse();
            }
        }
        5 => {
            let offsets = json!([random.edge(), random.edge()]);
            set(&mut header, &name, "data_offsets", offsets);
        }
        6 => {
            header.insert(name, odd_value(random));
        }
        7 => {
            header.remove(&name);
        }
        8 => data[place..].fill(0),
        9 => {
            // Infinity or the largest number of either half, or what it is in another type.
            for byte in data[place..].iter_mut().take(64) {
                *byte = *random.one_of(&[0x7c, 0x7f, 0xff, 0x7b]);
            }
        }
        _ => {
            for byte in &mut data {
                *byte = byte.wrapping_mul(3);
            }
        }
    }
    let text = Value::Object(header).to_string();
    let length = match random.below(10) {
        0 => random.edge(),
        _ => text.len() as u64,
    };
    *bytes = [&length.to_le_bytes(), text.as_bytes(), &data].concat();
}

fn set(header: &mut Map<String, Value>, name: &str, key: &str, value: Value) {
    if let Some(Value::Object(tensor)) = header.get_mut(name) {
        tensor.insert(key.to_owned(), value);
    }
}

fn of_bin(bytes: &mut [u8], random: &mut Random) {
    let records = |signature: &[u8]| -> Vec<usize> {
        let windows = bytes.windows(4).enumerate();
        let found = windows.filter(|(_, window)| *window == signature);
        found.map(|(at, _)| at).collect()
    };
    let directory = records(b"PK\x01\x02");
    if directory.is_empty() {
        // The old container: its pickles stand in the first bytes.
        let place = random.below(bytes.len().min(4000));
        return pickle(&mut bytes[place..], random);
    }
    let anywhere = [
        records(b"PK\x03\x04"),
        records(b"PK\x05\x06"),
        records(b"PK\x06\x06"),
    ];
    match random.below(4) {
        0 => {
            let at = *random.one_of(&directory) + random.below(60);
            field(bytes, at, random);
        }
        1 => {
            let headers = anywhere.concat();
            if !headers.is_empty() {
                let at = *random.one_of(&headers) + random.below(40);
                field(bytes, at, random);
            }
        }
        // The pickle, whose checksum is set right again; PyTorch writes it first.
        _ => {
            let (header, record) = (anywhere[0].first(), directory.first());
            let (Some(header), Some(record)) = (header, record) else {
                return;
            };
            let number = |at: usize, n: usize| -> Option<usize> {
                let bytes = bytes.get(at..at + n)?.iter().rev();
                Some(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
            };
            let sizes = (
                number(header + 26, 2),
                number(header + 28, 2),
                number(record + 24, 4),
            );
            let (Some(n_name), Some(n_extra), Some(size)) = sizes else {
                return;
            };
            let start = header + 30 + n_name + n_extra;
            let (record, Some(text)) = (*record, bytes.get_mut(start..start.saturating_add(size)))
            else {
                return;
            };
            let place = random.below(text.len());
            pickle(&mut text[place..], random);
            let crc = crc32fast::hash(text).to_le_bytes();
            if let Some(field) = bytes.get_mut(record + 16..record + 20) {
                field.copy_from_slice(&crc);
            }
        }
    }
}

fn field(bytes: &mut [u8], at: usize, random: &mut Random) {
    let n = *random.one_of(&[1, 2, 4, 8]);
    let number = random.edge().to_le_bytes();
    for (byte, new) in bytes.iter_mut().skip(at).zip(&number[..n]) {
        *byte = *new;
    }
}

/// Writes opcodes over a pickle: those that copy, nest, call and take lengths.
fn pickle(bytes: &mut [u8], random: &mut Random) {
    const OPCODES: &[u8] = b".0122(]}){ltdesuabRQhqjrcNKMJXTUBCG\x80\x81\x85\x86\x87\x88\x8a\x8b\x8c\x8d\x8e\x91\x93\x94\x95\x97";
    for byte in bytes.iter_mut().take(1 + random.below(6)) {
        *byte = match random.below(3) {
            0 => random.next().to_le_bytes()[0],
            1 => *random.one_of(&[0, 1, 0x7f, 0xff]),
            _ => *random.one_of(OPCODES),
        };
    }
}
