//! What a small corpus claims takes neither memory nor time: one test, so that the memory is its
//! own.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use training_order::mmididx::Dataset;
use training_order::{Items, LoaderSettings, TrainingIndex, TrainingOrder};

/// An `.idx` of these sizes and pointers.
fn idx(code: u8, sizes: &[i32], pointers: &[i64]) -> Vec<u8> {
    let mut idx = b"MMIDIDX\0\0\x01\0\0\0\0\0\0\0".to_vec();
    idx.push(code);
    idx.extend((sizes.len() as u64).to_le_bytes());
    idx.extend(0_u64.to_le_bytes());
    idx.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
    idx.extend(pointers.iter().flat_map(|pointer| pointer.to_le_bytes()));
    idx
}

/// Opens, checks and reads the last sequence; else the first error.
fn use_all(folder: &Path, settings: &LoaderSettings, n_members: usize) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let open = |_| Ok((Dataset::open(&folder.join("a"))?, 1.0));
    let members = (0..n_members).map(open).collect::<Result<Vec<_>, _>>();
    let members = members.map_err(|error: training_order::OpenError| text(&error))?;
    let order = TrainingOrder::blended(members, settings).map_err(|error| {
        let hint = error.hint().unwrap_or_default();
        format!("{error}; {hint}")
    })?;
    order.check().map_err(|error| text(&error))?;
    let last = TrainingIndex::new(order.n_sequences() - 1);
    let all = 0..settings.sequence_length + 1;
    order
        .read_tokens(last, all, &mut Vec::new())
        .map_err(|error| text(&error))
}

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// Sequence length, batch size and steps of a run.
type Run = (u32, u32, u32);

struct Case {
    name: &'static str,
    idx: Vec<u8>,
    /// Bytes of the `.bin`.
    n_bytes: usize,
    run: Run,
    n_members: usize,
    /// What the error says, where there must be one.
    error: Option<&'static str>,
}

const PYTHIA: Run = (2048, 1024, 143_000);
const EPOCHS: &str = "epochs, more than 65534";

impl Case {
    fn new(name: &'static str, idx: Vec<u8>, error: impl Into<Option<&'static str>>) -> Self {
        Self {
            name,
            idx,
            n_bytes: 4,
            run: PYTHIA,
            n_members: 1,
            error: error.into(),
        }
    }
}

fn cases() -> Vec<Case> {
    let tiny = || idx(8, &[2], &[0]);
    let mut claims = tiny();
    claims[18..26].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let mut wraps = tiny();
    wraps[18..34].fill(0xff);
    let mut mostly_empty = [0; 500];
    mostly_empty[499] = 2;
    // Almost 2³² sequences.
    let many = (2048, 1023, 4_198_404);
    let one_each = (1, 65_536, 32_767);
    let beyond = "item 0 reaches to byte";
    let longer = "bytes where its header asks for";
    vec![
        Case::new("2 tokens for Pythia's run", tiny(), EPOCHS),
        Case {
            run: many,
            ..Case::new("2 tokens for 4 billion sequences", tiny(), EPOCHS)
        },
        Case {
            run: one_each,
            ..Case::new("2 tokens for 2 billion of one", tiny(), EPOCHS)
        },
        Case {
            run: many,
            n_members: 2,
            ..Case::new("a mixture", tiny(), EPOCHS)
        },
        Case {
            n_members: 300,
            ..Case::new("300 members", tiny(), "a mixture of 300 datasets")
        },
        Case::new("empty documents", idx(8, &mostly_empty, &[0; 500]), EPOCHS),
        Case::new("2⁶⁰ items", claims, longer),
        Case::new("2⁶⁴ − 1 items", wraps, longer),
        Case::new("a size", idx(8, &[i32::MAX, 2], &[0, 0]), beyond),
        Case::new("a pointer", idx(8, &[2, 2], &[i64::MAX - 3, 0]), beyond),
        Case {
            n_bytes: 8,
            ..Case::new(
                "a sum beyond 2⁶³",
                idx(5, &[i32::MAX, 1], &[i64::MAX - 7, 0]),
                beyond,
            )
        },
        // 500 documents that are one and the same, for a twentieth of Pythia's run.
        Case {
            n_bytes: 800,
            run: (2048, 1024, 7_000),
            ..Case::new("shared tokens", idx(1, &[800; 500], &[0; 500]), None)
        },
    ]
}

#[test]
fn what_a_small_corpus_claims_takes_neither_memory_nor_time() {
    let before = peak();
    for case in cases() {
        let name = case.name;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.idx"), &case.idx).unwrap();
        fs::write(folder.path().join("a.bin"), vec![1; case.n_bytes]).unwrap();
        let (sequence_length, batch_size, n_steps) = case.run;
        let settings = LoaderSettings {
            items: Items::TrainDataPaths,
            sequence_length,
            batch_size,
            n_steps,
            seed: 1,
        };
        let started = Instant::now();
        let outcome = use_all(folder.path(), &settings, case.n_members);
        let took = started.elapsed();
        match (&outcome, case.error) {
            (Ok(()), None) => {}
            (Err(found), Some(error)) => {
                assert!(found.contains(error), "{name}: {found}");
                let has_cure = error != EPOCHS || found.contains("lower the number of steps");
                assert!(has_cure, "{name}: {found}");
            }
            _ => panic!("{name}: {outcome:?}"),
        }
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
    }
    let grown = peak() - before;
    assert!(grown < 512 << 10, "{grown} KiB were taken");
}
