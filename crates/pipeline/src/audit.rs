//! Do checkpoints hold what their names say? Their tensors compared, one by one, across a model's checkpoints.
//!
//! Published ones do not always: 86 of 154 revisions of one model hold its last weights, some first shards are those of another
//! step (pythia#195, #205, #206). Three signs are looked for: equal weights, tensors in common with another checkpoint, and a
//! distance from the neighbours that is out of line.

use crate::config::Model;
use crate::fingerprint::{self, FileFingerprint};
use crate::inputs::{check_shape, weights_of};
use crate::progress;
use anyhow::{Error, Result};
use gpt_neox::tensor_shapes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Pairs of neighbours, the nearest ones, that a pair is compared with: those at most twice as wide in steps, or half, …
const MOST: usize = 6;
/// … of which there must be so many: a wrong checkpoint spoils two pairs, and so the median of fewer.
const LEAST: usize = 4;
/// A distance per step so many times their median is out of line, …
const FAR: f64 = 3.0;
/// … and one so small a part of it, too.
const NEAR: f64 = 0.1;
/// Two checkpoints with so large a share of parameters in equal tensors are no two points of one training run.
const SHARE: f64 = 0.01;

/// What was found of a model.
pub(crate) struct Audit {
    pub(crate) checkpoints: Vec<Audited>,
    /// What is wrong, a sentence each.
    pub(crate) problems: Vec<String>,
    /// What is known, or could not be judged.
    pub(crate) notes: Vec<String>,
}

/// What was found of one checkpoint.
pub(crate) struct Audited {
    pub(crate) steps: u32,
    /// SHA-256 of its tensors' names, shapes and numbers, whatever files they are stored in; none where it is damaged.
    pub(crate) tensors: Option<String>,
    /// The fingerprint of its files that the tables carry.
    pub(crate) files: Option<String>,
    /// The types its tensors are stored in.
    pub(crate) stored: String,
    /// ‖θ − θ′‖ / ‖θ′‖ per step, θ′ being the checkpoint before.
    pub(crate) speed: Option<f64>,
}

/// A checkpoint whose tensors are being read.
struct Reading {
    steps: u32,
    weights: gpt_neox::Checkpoint,
    files: String,
    /// Of each tensor so far: SHA-256 of its numbers as little-endian f32.
    digests: Vec<[u8; 32]>,
    /// Sum of the squares of its numbers.
    squares: f64,
    /// Of their differences from the checkpoint before.
    differences: f64,
}

/// What decides the hash of a checkpoint's tensors.
#[derive(Serialize)]
struct Content<'a> {
    name: &'a str,
    shape: &'a [usize],
    digest: String,
}

/// Reads every tensor of every checkpoint of `model` once, two at a time in memory.
///
/// # Errors
///
/// When a fingerprint cannot be taken. What is wrong with a checkpoint is among the audit's problems.
pub(crate) fn audit(model: &Model, checkpoints: &[(u32, &std::path::Path)]) -> Result<Audit> {
    let mut problems = Vec::new();
    let mut readings: Vec<Reading> = Vec::new();
    for &(steps, folder) in checkpoints {
        let first = readings.first().map(|reading| &reading.weights);
        match open(model, steps, folder, first) {
            Ok(reading) => readings.push(reading),
            Err(error) => problems.push(format!("checkpoint {steps}: {error:#}")),
        }
    }
    let shapes = readings
        .first()
        .map(|first| tensor_shapes(first.weights.config()))
        .unwrap_or_default();
    for (number, tensor) in shapes.keys().enumerate() {
        read_tensor(tensor, &mut readings, &mut problems);
        if (number + 1) % shapes.len().div_ceil(10) == 0 {
            progress::say(&format!(
                "audit: {}: {} of {} tensors",
                model.name,
                number + 1,
                shapes.len()
            ));
        }
    }
    let sizes: Vec<usize> = shapes
        .values()
        .map(|shape| shape.iter().product())
        .collect();
    let mut audited = finish(&shapes, &readings)?;
    let mut notes = Vec::new();
    find_equal(model, &audited, &mut problems, &mut notes);
    find_shared(&readings, &sizes, &mut problems);
    find_jumps(&audited, &mut problems, &mut notes);
    let damaged = checkpoints
        .iter()
        .filter(|(steps, _)| readings.iter().all(|reading| reading.steps != *steps));
    audited.extend(damaged.map(|&(steps, _)| Audited {
        steps,
        tensors: None,
        files: None,
        stored: String::new(),
        speed: None,
    }));
    audited.sort_by_key(|audited| audited.steps);
    Ok(Audit {
        checkpoints: audited,
        problems,
        notes,
    })
}

fn open(
    model: &Model,
    steps: u32,
    folder: &std::path::Path,
    first: Option<&gpt_neox::Checkpoint>,
) -> Result<Reading> {
    let weights = gpt_neox::Checkpoint::open(folder)?;
    if let Some(shape) = &model.shape {
        check_shape(weights.config(), shape, &model.name)?;
    }
    let shapes = |weights: &gpt_neox::Checkpoint| tensor_shapes(weights.config());
    if first.is_some_and(|first| shapes(first) != shapes(&weights)) {
        return Err(Error::msg(
            "its tensors have other shapes than those of the first checkpoint",
        ));
    }
    let files = gpt_neox::checkpoint_files(folder)?;
    let files = files.iter().map(|path| FileFingerprint::of(path, false));
    Ok(Reading {
        steps,
        weights,
        files: weights_of(&files.collect::<Result<Vec<_>>>()?)?,
        digests: Vec::new(),
        squares: 0.0,
        differences: 0.0,
    })
}

/// Reads one tensor of every checkpoint; one that cannot be read is left out from here on.
fn read_tensor(tensor: &str, readings: &mut Vec<Reading>, problems: &mut Vec<String>) {
    let mut before: Option<Vec<f32>> = None;
    readings.retain_mut(|reading| {
        let numbers = match reading.weights.read(tensor) {
            Ok(numbers) => numbers,
            Err(error) => {
                let error = Error::new(error);
                problems.push(format!("checkpoint {}: {error:#}", reading.steps));
                return false;
            }
        };
        reading.digests.push(digest(&numbers));
        let square = |number: f32| f64::from(number) * f64::from(number);
        reading.squares += numbers.iter().copied().map(square).sum::<f64>();
        if let Some(before) = &before {
            let differences = numbers.iter().zip(before);
            reading.differences += differences.map(|(a, b)| square(a - b)).sum::<f64>();
        }
        before = Some(numbers);
        true
    });
}

fn digest(numbers: &[f32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for some in numbers.chunks(1 << 14) {
        let bytes: Vec<u8> = some
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        hash.update(bytes);
    }
    hash.finalize().into()
}

fn finish(shapes: &BTreeMap<String, Vec<usize>>, readings: &[Reading]) -> Result<Vec<Audited>> {
    let mut audited: Vec<Audited> = Vec::new();
    for (place, reading) in readings.iter().enumerate() {
        let contents = shapes.iter().zip(&reading.digests);
        let contents: Vec<Content<'_>> = contents
            .map(|((name, shape), digest)| Content {
                name,
                shape,
                digest: fingerprint::hex(digest),
            })
            .collect();
        let before = place.checked_sub(1).map(|before| &readings[before]);
        audited.push(Audited {
            steps: reading.steps,
            tensors: Some(fingerprint::of_values(&contents)?),
            files: Some(reading.files.clone()),
            stored: reading
                .weights
                .storage()
                .into_iter()
                .collect::<Vec<_>>()
                .join(", "),
            speed: before.map(|before| {
                let distance = (reading.differences / before.squares).sqrt();
                distance / f64::from(reading.steps - before.steps)
            }),
        });
    }
    Ok(audited)
}

/// Checkpoints with the same weights.
fn find_equal(
    model: &Model,
    audited: &[Audited],
    problems: &mut Vec<String>,
    notes: &mut Vec<String>,
) {
    let mut holders: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for audited in audited {
        let tensors = audited.tensors.as_deref().unwrap_or_default();
        holders.entry(tensors).or_default().push(audited.steps);
    }
    let mut equal: Vec<Vec<u32>> = holders
        .into_values()
        .filter(|equal| equal.len() > 1)
        .collect();
    equal.sort();
    for equal in equal {
        let what = format!("checkpoints {}: the same weights", list(&equal));
        if model.knows_equal(&equal) {
            notes.push(format!("{what}, as the suite knows"));
        } else {
            problems.push(what);
        }
    }
}

/// Checkpoints that are not equal and have large tensors in common: one has a shard of the other.
fn find_shared(readings: &[Reading], sizes: &[usize], problems: &mut Vec<String>) {
    let n_parameters: usize = sizes.iter().sum();
    // Of equal checkpoints the first speaks for all.
    let mut distinct: Vec<&Reading> = Vec::new();
    for reading in readings {
        if distinct
            .iter()
            .all(|known| known.digests != reading.digests)
        {
            distinct.push(reading);
        }
    }
    for (place, later) in distinct.iter().enumerate() {
        for earlier in &distinct[..place] {
            let tensors = later.digests.iter().zip(&earlier.digests).zip(sizes);
            let shared: Vec<usize> = tensors
                .filter(|((a, b), _)| a == b)
                .map(|(_, size)| *size)
                .collect();
            let share = ratio(shared.iter().sum(), n_parameters);
            if share >= SHARE {
                problems.push(format!(
                    "checkpoints {} and {}: {} of {} tensors are the same, {:.0} % of the parameters",
                    earlier.steps,
                    later.steps,
                    shared.len(),
                    sizes.len(),
                    100.0 * share
                ));
            }
        }
    }
}

/// Neighbours whose distance per step is out of line with that of the pairs around them.
fn find_jumps(audited: &[Audited], problems: &mut Vec<String>, notes: &mut Vec<String>) {
    let pairs: Vec<(u32, u32, f64)> = audited
        .windows(2)
        .filter_map(|pair| Some((pair[0].steps, pair[1].steps, pair[1].speed?)))
        .collect();
    let mut n_judged = 0;
    for (place, (earlier, later, speed)) in pairs.iter().enumerate() {
        let Some(typical) = typical(&pairs, place) else {
            continue;
        };
        n_judged += 1;
        let ratio = speed / typical;
        // Equal neighbours are said to be equal.
        if ratio > FAR || (0.0 < ratio && ratio < NEAR) {
            problems.push(format!(
                "checkpoints {earlier} and {later}: {ratio:.2} times as far apart, per step, as their neighbours"
            ));
        }
    }
    if n_judged < pairs.len() {
        notes.push(format!(
            "of {} distances, {n_judged} are judged: a pair needs {LEAST} others about as wide",
            pairs.len()
        ));
    }
}

/// What the distance per step of a pair should be: the median of those around it.
fn typical(pairs: &[(u32, u32, f64)], place: usize) -> Option<f64> {
    let width = |pair: &(u32, u32, f64)| pair.1 - pair.0;
    let own = width(&pairs[place]);
    let others = pairs.iter().enumerate().filter(|(other, pair)| {
        *other != place && width(pair) <= 2 * own && own <= 2 * width(pair)
    });
    let mut around: Vec<(usize, f64)> = others
        .map(|(other, pair)| (other.abs_diff(place), pair.2))
        .collect();
    around.sort_by_key(|(distance, _)| *distance);
    around.truncate(MOST);
    around.sort_by(|a, b| a.1.total_cmp(&b.1));
    let middle = around.len() / 2;
    match around.len() {
        ..LEAST => None,
        n if n.is_multiple_of(2) => Some(f64::midpoint(around[middle - 1].1, around[middle].1)),
        _ => Some(around[middle].1),
    }
}

fn list(steps: &[u32]) -> String {
    steps
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "a share for a person to read")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_compared_with_those_around_it_that_are_as_wide() {
        let speeds = [1.0, 2.0, 3.0, 4.0, 100.0, 90.0, 7.0, 8.0];
        let even: Vec<(u32, u32, f64)> = (0..)
            .zip(speeds)
            .map(|(n, speed)| (n * 10, n * 10 + 10, speed))
            .collect();
        // Of 2, 3, 4, 100, 90 and 7; of 4, 90, 3, 7, 2 and 8.
        assert_eq!(typical(&even, 0), Some(5.5));
        assert_eq!(typical(&even, 4), Some(5.5));
        assert_eq!(typical(&even[..4], 0), None);
        // Powers of two are no neighbours of each other.
        let doubling: Vec<(u32, u32, f64)> = (0..10)
            .map(|n| (1 << n, 2 << n, f64::from(1 << n)))
            .collect();
        assert_eq!(typical(&doubling, 9), None);
    }
}
