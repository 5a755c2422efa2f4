//! Damage by the grammar of the formats: fields, sizes, pointers, keys of headers, names of shards,
//! kinds of files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use training_order::numpy_random::RandomState;

/// A case: its files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The numbers that overflow, and their neighbours.
const NASTY: [i64; 16] = [
    0,
    1,
    -1,
    2,
    7,
    127,
    255,
    65_535,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 31,
    u32::MAX as i64,
    1 << 32,
    i64::MAX,
    i64::MIN,
    1 << 60,
];
/// What lies under a name when a download failed.
const IMPOSTORS: [&[u8]; 6] = [
    b"",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
    b"Entry not found",
    b"<!DOCTYPE html><html></html>",
    b"\x1f\x8b\x08\0\0\0\0\0",
    b"\0\0\0\0\0\0\0\0",
];

/// A case that is damaged.
pub(crate) struct Mutant {
    files: Files,
    /// Names that are something else than files.
    others: Vec<(String, Other)>,
}

enum Other {
    Folder,
    Zero,
    Dangling,
}

/// A number below `n`, which is not 0.
pub(crate) fn below(random: &mut RandomState, n: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "below n, a usize")]
    let number = random.interval(n as u64 - 1) as usize;
    number
}

fn pick<T: Copy>(random: &mut RandomState, of: &[T]) -> T {
    of[below(random, of.len())]
}

impl Mutant {
    pub(crate) fn of(case: &Files) -> Self {
        Self {
            files: case.clone(),
            others: Vec::new(),
        }
    }

    /// Damages it once; says how.
    pub(crate) fn mutate(&mut self, random: &mut RandomState) -> String {
        if self.files.is_empty() {
            return "nothing is left".to_owned();
        }
        let names: Vec<String> = self.files.keys().cloned().collect();
        let name = names[below(random, names.len())].clone();
        let what = match random.next_u32() % 16 {
            0 => {
                let bytes = pick(random, &IMPOSTORS).to_vec();
                self.files.insert(name.clone(), bytes);
                "is something else"
            }
            1 => {
                self.files.remove(&name);
                match random.next_u32() % 4 {
                    0 => self.others.push((name.clone(), Other::Folder)),
                    1 => self.others.push((name.clone(), Other::Zero)),
                    2 => self.others.push((name.clone(), Other::Dangling)),
                    _ => {}
                }
                "is no file"
            }
            2 | 3 => self.shards(random),
            _ => {
                let Some(bytes) = self.files.get_mut(&name) else {
                    return name;
                };
                match name.rsplit_once('.') {
                    Some((_, "idx")) if below(random, 4) > 0 => index(random, bytes),
                    Some((_, "npy")) if below(random, 4) > 0 => array(random, bytes),
                    _ => damage(random, bytes),
                }
            }
        };
        format!("{name}: {what}")
    }

    /// Cuts a `.bin` into shards, or renames, doubles and mixes those there are.
    fn shards(&mut self, random: &mut RandomState) -> &'static str {
        let is_bin = |name: &&String| name.strip_suffix(".bin").is_some();
        let names: Vec<String> = self.files.keys().filter(is_bin).cloned().collect();
        if names.is_empty() {
            return "has no tokens";
        }
        let name = &names[below(random, names.len())];
        let Some(bytes) = self.files.get(name).cloned() else {
            return "has no tokens";
        };
        let stem = name.strip_suffix(".bin").unwrap_or(name);
        let stem = stem.rsplit_once("-0").map_or(stem, |(stem, _)| stem);
        let numbers = [
            "0",
            "00000",
            "+0",
            "1",
            "00001",
            "00002",
            "18446744073709551615",
            "x",
            "",
        ];
        let shard = |number: &str, last: &str| format!("{stem}-{number}-of-{last}.bin");
        match random.next_u32() % 4 {
            0 | 1 => {
                let last = below(random, 4);
                let len = bytes.len() / (last + 1) + 1;
                for (number, piece) in (0..=last).zip(bytes.chunks(len)) {
                    let name = shard(&format!("{number:05}"), &format!("{last:05}"));
                    self.files.insert(name, piece.to_vec());
                }
                match below(random, 4) {
                    0 | 1 => drop(self.files.remove(name)),
                    2 => {
                        let half = bytes.len() / 2;
                        let filled = [&bytes[..half], &vec![0; bytes.len() - half]].concat();
                        self.files.insert(name.clone(), filled);
                    }
                    _ => {}
                }
                "is cut into shards"
            }
            2 => {
                let renamed = shard(pick(random, &numbers), pick(random, &numbers));
                self.files.insert(renamed, bytes);
                "is there twice"
            }
            _ => {
                self.files.remove(name);
                let renamed = shard(pick(random, &numbers), pick(random, &numbers));
                self.files.insert(renamed, bytes);
                "has another name"
            }
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, bytes) in &self.files {
            fs::write(folder.join(name), bytes)?;
        }
        for (name, other) in &self.others {
            let path = folder.join(name);
            if path.exists() {
                continue;
            }
            match other {
                Other::Folder => fs::create_dir(path)?,
                Other::Zero => std::os::unix::fs::symlink("/dev/zero", path)?,
                Other::Dangling => std::os::unix::fs::symlink("nowhere", path)?,
            }
        }
        Ok(())
    }
}

/// Changes a field of an `.idx`, so that its length stays right or not.
fn index(random: &mut RandomState, bytes: &mut Vec<u8>) -> &'static str {
    let Some(header) = bytes.get(18..26).and_then(|bytes| bytes.try_into().ok()) else {
        return damage(random, bytes);
    };
    let n = usize::try_from(u64::from_le_bytes(header)).unwrap_or(usize::MAX);
    let end = n.checked_mul(12).and_then(|len| len.checked_add(34));
    let fits = n > 0 && end.is_some_and(|end| end <= bytes.len());
    if !fits {
        return damage(random, bytes);
    }
    let number = pick(random, &NASTY).to_le_bytes();
    let item = below(random, n);
    let (size, pointer) = (34 + 4 * item, 34 + 4 * n + 8 * item);
    match random.next_u32() % 8 {
        0 => bytes[17] = pick(random, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255]),
        1 => bytes[size..size + 4].copy_from_slice(&number[..4]),
        2 => bytes[pointer..pointer + 8].copy_from_slice(&number),
        3 => bytes[18..26].copy_from_slice(&number),
        4 => bytes[26..34].copy_from_slice(&number),
        5 => {
            // One token more or less.
            bytes[size] = bytes[size].wrapping_add(pick(random, &[1, 255]));
        }
        6 => {
            // Two items change places, which is no fault.
            let other = 34 + 4 * n + 8 * below(random, n);
            let size_of_other = 34 + 4 * ((other - 34 - 4 * n) / 8);
            for byte in 0..8 {
                bytes.swap(pointer + byte, other + byte);
            }
            for byte in 0..4 {
                bytes.swap(size + byte, size_of_other + byte);
            }
        }
        _ => {
            // The last item is left out, and everything is said to be so: an index of a part.
            let last = n - 1;
            bytes.drain(34 + 4 * n + 8 * last..34 + 4 * n + 8 * n);
            bytes.drain(34 + 4 * last..34 + 4 * n);
            bytes[18..26].copy_from_slice(&(last as u64).to_le_bytes());
        }
    }
    "has another field"
}

/// Changes the header of a `.npy` file, or its numbers by their meaning.
fn array(random: &mut RandomState, bytes: &mut Vec<u8>) -> &'static str {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return damage(random, bytes);
    };
    let numbers = bytes.split_off(end + 1);
    let text = String::from_utf8_lossy(bytes.get(10..).unwrap_or_default()).into_owned();
    let text = text.trim_end();
    let narrow = text.contains("4'");
    if random.next_u32().is_multiple_of(2) {
        let changes = [
            ("'descr'", "\"descr\""),
            ("'descr'", "'desc'"),
            ("<i4", "<u4"),
            ("<u4", "<i4"),
            ("<i4", ">i4"),
            ("<", "="),
            ("<i4", "<i8"),
            ("False", "True"),
            ("False", "false"),
            ("shape", "shap"),
            ("(", "["),
            (",)", ")"),
            ("(", "(0, "),
            ("(", "(18446744073709551615, "),
            ("(", "(-1, "),
            ("}", ""),
            ("}", "} }"),
            ("}", "'descr': '<i8'}"),
            (" ", ""),
            (": ", ":\t"),
        ];
        let (from, to) = pick(random, &changes);
        header(bytes, &text.replace(from, to));
        bytes.extend(numbers);
        return "has another header";
    }
    let mut wide: Vec<i64> = if narrow {
        let fours = numbers.as_chunks::<4>().0.iter();
        fours.map(|four| i32::from_le_bytes(*four).into()).collect()
    } else {
        let eights = numbers.as_chunks::<8>().0.iter();
        eights.map(|eight| i64::from_le_bytes(*eight)).collect()
    };
    if wide.is_empty() {
        bytes.extend(numbers);
        return "is as it was";
    }
    let (a, b) = (below(random, wide.len()), below(random, wide.len()));
    match random.next_u32() % 6 {
        0 => wide[a] = pick(random, &NASTY),
        1 => wide.swap(a, b),
        2 => wide[a] = wide[b],
        3 => wide[a] = wide[a].wrapping_add(1),
        4 => wide[a.min(b)..a.max(b)].fill(0),
        // All of them in 64 bits, which is no fault.
        _ => {}
    }
    header(bytes, &text.replace("<i4", "<i8").replace("<u4", "<i8"));
    bytes.extend(wide.iter().flat_map(|number| number.to_le_bytes()));
    "has other numbers"
}

/// The beginning of a `.npy` file with this dictionary.
fn header(bytes: &mut Vec<u8>, text: &str) {
    bytes.clear();
    bytes.extend(b"\x93NUMPY\x01\x00");
    let len = u16::try_from(text.len() + 1).unwrap_or(u16::MAX);
    bytes.extend(len.to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(b'\n');
}

/// Changes bits, bytes, fields or the length: more often in the first bytes, which are the headers.
fn damage(random: &mut RandomState, bytes: &mut Vec<u8>) -> &'static str {
    if bytes.is_empty() {
        bytes.push(0);
        return "has a byte";
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
            let width = pick(random, &[4, 8]);
            let field = pick(random, &NASTY).to_le_bytes();
            for (byte, new) in bytes[place..].iter_mut().zip(&field[..width]) {
                *byte = *new;
            }
        }
    }
    "has other bytes"
}
