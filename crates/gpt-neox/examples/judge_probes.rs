//! Judges the probes of a file and says how long it took: the side of ours in `benches/peers.py`.
//!
//!     cargo run --release -p gpt-neox --example judge_probes -- CHECKPOINT PROBES.safetensors K MEASURE [DEVICE PRECISION [BATCH]]
//!
//! `PROBES.safetensors` holds `tokens`, i32 `[probes, k + l]`; MEASURE is `exact`, `score` or `likelihood`; DEVICE and
//! PRECISION are named as in run files, `cpu` and `f32` unless given; BATCH probes are decided about together. Prints one
//! line of JSON: seconds to load and to judge, the largest memory held, and the verdicts' integers. On a GPU all is judged
//! twice and the second time counts, since kernels are compiled when they are first used; `first` has the seconds of the first.

use gpt_neox::{DeviceChoice, GptNeox, Judge, Measures, Precision, Probes, Verdict};
use safetensors::SafeTensors;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

#[expect(clippy::print_stdout, reason = "what an example is for")]
fn main() -> Result<(), Box<dyn Error>> {
    gpt_neox::device::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (given, further) = arguments.split_at(arguments.len().min(4));
    let [folder, probes, k, measure] = given else {
        return Err("usage: judge_probes CHECKPOINT PROBES.safetensors K exact|score|likelihood [DEVICE PRECISION [BATCH]]".into());
    };
    let further = |place: usize, default| further.get(place).map_or(default, String::as_str);
    let device: DeviceChoice = further(0, "cpu").parse()?;
    let precision: Precision = further(1, "f32").parse()?;
    let measures = Measures {
        score: measure == "score",
        likelihood: measure == "likelihood",
        suppress_eos: false,
    };
    let k: usize = k.parse()?;
    let bytes = fs::read(probes)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let array = file.tensor("tokens")?;
    let [_, len] = array.shape() else {
        return Err("`tokens` is not a table".into());
    };
    let numbers = array.data().as_chunks::<4>().0.iter();
    let tokens = numbers.map(|bytes| u32::from_le_bytes(*bytes));
    let tokens: Vec<u32> = tokens.collect();
    let probes = Probes::new(&tokens, k, len - k)?;

    let begun = Instant::now();
    let mut model = GptNeox::load(Path::new(folder), device, precision)?;
    match further(2, "") {
        "" => {}
        batch => model.set_batch_size(batch.parse()?),
    }
    let load = begun.elapsed().as_secs_f64();
    let at_once = model.n_at_once(*len) * len;
    let mut judge_all = || -> Result<(Vec<Verdict>, f64), Box<dyn Error>> {
        let begun = Instant::now();
        let mut verdicts = Vec::new();
        for some in tokens.chunks(at_once) {
            verdicts.extend(model.judge(&Probes::new(some, k, len - k)?, measures)?);
        }
        Ok((verdicts, begun.elapsed().as_secs_f64()))
    };
    let (mut verdicts, first) = judge_all()?;
    let mut judge = first;
    if device != DeviceChoice::Cpu {
        (verdicts, judge) = judge_all()?;
    }
    let n_prefix_matched: Vec<u16> = verdicts.iter().map(|v| v.n_prefix_matched).collect();
    let n_matched: Vec<Option<u16>> = verdicts.iter().map(|v| v.n_matched).collect();
    let n_top1: Vec<Option<u16>> = verdicts
        .iter()
        .map(|v| v.likelihood.map(|likelihood| likelihood.n_top1))
        .collect();
    println!(
        "{}",
        serde_json::json!({
            "load": load, "batch": at_once / len, "first": first, "judge": judge, "peak_kib": peak(), "probes": probes.len(),
            "n_prefix_matched": n_prefix_matched, "n_matched": n_matched, "n_top1": n_top1,
        })
    );
    Ok(())
}

/// The largest memory that the process has held, in KiB, where the system tells.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
