//! What a small corpus claims takes neither memory nor time: one test, so that the memory is its own.

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

#[test]
fn what_a_small_corpus_claims_takes_neither_memory_nor_time() {
    let zeros = |n: usize| vec![0_i64; n];
    let mut claims = idx(8, &[2], &[0]);
    claims[18..26].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let mut wraps = idx(8, &[2], &[0]);
    wraps[18..34].fill(0xff);
    let mut mostly_empty = vec![0; 499];
    mostly_empty.push(2);
    let pythia = (2048, 1024, 143_000);
    let many = (2048, 1023, 4_198_404);
    let half = (1, 65_536, 32_767);
    let epochs = "epochs, more than 65534";
    let cases: [(&str, Vec<u8>, usize, (u32, u32, u32), usize, Option<&str>); 12] = [
        (
            "2 tokens for 4 billion sequences",
            idx(8, &[2], &[0]),
            4,
            many,
            1,
            Some(epochs),
        ),
        (
            "2 tokens for Pythia's run",
            idx(8, &[2], &[0]),
            4,
            pythia,
            1,
            Some(epochs),
        ),
        ("in a mixture", idx(8, &[2], &[0]), 4, many, 2, Some(epochs)),
        (
            "300 members",
            idx(8, &[2], &[0]),
            4,
            half,
            300,
            Some("a mixture of 300 datasets"),
        ),
        (
            "2 tokens for 2 billion of one",
            idx(8, &[2], &[0]),
            4,
            half,
            1,
            Some(epochs),
        ),
        (
            "empty documents",
            idx(8, &mostly_empty, &zeros(500)),
            4,
            pythia,
            1,
            Some(epochs),
        ),
        (
            "2⁶⁰ items",
            claims,
            4,
            pythia,
            1,
            Some("bytes where its header asks for"),
        ),
        (
            "2⁶⁴ − 1 items",
            wraps,
            4,
            pythia,
            1,
            Some("bytes where its header asks for"),
        ),
        (
            "a size beyond the `.bin`",
            idx(8, &[i32::MAX, 2], &[0, 0]),
            4,
            pythia,
            1,
            Some("item 0 reaches to byte"),
        ),
        (
            "a pointer beyond all",
            idx(8, &[2, 2], &[i64::MAX, 0]),
            4,
            pythia,
            1,
            Some("item 0 reaches to byte"),
        ),
        (
            "a sum beyond 2⁶⁴",
            idx(5, &[i32::MAX, 1], &[i64::MAX - 7, 0]),
            8,
            pythia,
            1,
            Some("item 0 reaches to byte"),
        ),
        // 500 documents that are one and the same: 36,000 epochs' worth of a tenth of Pythia's run.
        (
            "shared tokens",
            idx(1, &[800; 500], &zeros(500)),
            800,
            (2048, 1024, 7_000),
            1,
            None,
        ),
    ];
    let before = peak();
    for (name, idx, n_bytes, (sequence_length, batch_size, n_steps), n_members, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.idx"), &idx).unwrap();
        fs::write(folder.path().join("a.bin"), vec![1; n_bytes]).unwrap();
        let settings = LoaderSettings {
            items: Items::TrainDataPaths,
            sequence_length,
            batch_size,
            n_steps,
            seed: 1,
        };
        let started = Instant::now();
        let outcome = use_all(folder.path(), &settings, n_members);
        let took = started.elapsed();
        match (&outcome, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert!(error.contains(expected), "{name}: {error}");
                assert!(
                    !error.contains(epochs) || error.contains("lower the number of steps"),
                    "{name}: {error}"
                );
            }
            _ => panic!("{name}: {outcome:?}"),
        }
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
    }
    let grown = peak() - before;
    assert!(grown < 512 << 10, "{grown} KiB were taken");
}
