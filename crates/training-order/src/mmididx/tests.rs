//! What is on disk is read as it was written, or refused.

use super::*;
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

/// An `.idx` of two items of 2 and 1 tokens, u16, and its `.bin`.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let mut idx = b"MMIDIDX\0\0".to_vec();
    idx.extend(1_u64.to_le_bytes());
    idx.push(8);
    idx.extend(2_u64.to_le_bytes());
    idx.extend(3_u64.to_le_bytes());
    idx.extend([2_i32, 1].iter().flat_map(|size| size.to_le_bytes()));
    idx.extend([0_i64, 4].iter().flat_map(|pointer| pointer.to_le_bytes()));
    idx.extend([0_i64, 1, 2].iter().flat_map(|item| item.to_le_bytes()));
    (idx, vec![1, 0, 2, 0, 3, 1])
}

fn open(idx: &[u8], bin: &[u8]) -> (TempDir, Result<Dataset, OpenError>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.b.idx"), idx).unwrap();
    fs::write(folder.path().join("a.b.bin"), bin).unwrap();
    let dataset = Dataset::open(&folder.path().join("a.b"));
    (folder, dataset)
}

fn read(dataset: &Dataset, item: u64, tokens: Range<u64>) -> Result<Vec<u32>, ReadError> {
    let mut into = Vec::new();
    dataset.read(item, tokens, &mut into)?;
    Ok(into)
}

/// The error of opening the pair after `change`.
fn refused(change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> String {
    let (mut idx, mut bin) = pair();
    change(&mut idx, &mut bin);
    let error = open(&idx, &bin).1.unwrap_err();
    assert!(error.hint().is_some(), "{error} has a cure");
    error.to_string()
}

#[test]
fn items_are_read_where_they_lie() {
    let (idx, bin) = pair();
    let (_folder, dataset) = open(&idx, &bin);
    let dataset = dataset.unwrap();
    assert_eq!(dataset.n_items(), 2);
    assert_eq!(dataset.token_type(), TokenType::U16);
    assert_eq!(read(&dataset, 0, 0..2).unwrap(), [1, 2]);
    assert_eq!(read(&dataset, 1, 0..1).unwrap(), [259]);
    assert_eq!(read(&dataset, 1, 1..1).unwrap(), [0_u32; 0]);
    assert_eq!(dataset.check().unwrap(), Some(259));
    assert!(matches!(
        read(&dataset, 2, 0..0),
        Err(ReadError::Item {
            item: 2,
            n_items: 2,
            ..
        })
    ));
    assert!(matches!(
        read(&dataset, 1, 0..2),
        Err(ReadError::Range { len: 1, .. })
    ));
}

#[test]
fn a_header_of_another_kind_is_refused() {
    assert!(refused(|idx, _| idx[0] = b'T').contains("begins with the bytes [54, 4d"));
    assert!(refused(|idx, _| idx.truncate(5)).contains("begins with the bytes"));
    assert!(
        refused(|idx, _| idx.truncate(20)).contains("has 20 bytes where its header asks for 34")
    );
    assert!(refused(|idx, _| idx[9] = 2).contains("byte 9: version 2 instead of 1"));
    assert!(refused(|idx, _| idx[17] = 6).contains("byte 17: token type 6"));
}

#[test]
fn a_length_that_does_not_fit_is_refused() {
    assert!(
        refused(|idx, _| idx.truncate(80)).contains("has 80 bytes where its header asks for 82")
    );
    assert!(refused(|idx, _| idx.push(0)).contains("has 83 bytes"));
    // A count whose bytes overflow must neither wrap nor be allocated.
    assert!(refused(|idx, _| idx[18..26].fill(0xff)).contains("asks for 18446744073709551615"));
    assert!(
        refused(|_, bin| bin.truncate(5))
            .contains("has 5 bytes, but its last item, 1, ends at byte 6")
    );
}

#[test]
fn sizes_and_pointers_are_checked_where_they_are_used() {
    let (mut idx, bin) = pair();
    idx[34..38].copy_from_slice(&(-1_i32).to_le_bytes());
    let (_folder, dataset) = open(&idx, &bin);
    let error = read(&dataset.unwrap(), 0, 0..1).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("byte 34: item 0 has the size -1"),
        "{error}"
    );

    let (mut idx, bin) = pair();
    idx[42..50].copy_from_slice(&(-2_i64).to_le_bytes());
    let (_folder, dataset) = open(&idx, &bin);
    let error = read(&dataset.unwrap(), 0, 0..1).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("byte 42: item 0 lies at byte -2"),
        "{error}"
    );

    let (mut idx, bin) = pair();
    idx[34..38].copy_from_slice(&9_i32.to_le_bytes());
    let (_folder, dataset) = open(&idx, &bin);
    let error = dataset.unwrap().check().unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("has 6 bytes, but item 0 reaches to byte 18"),
        "{error}"
    );
}

#[test]
fn a_negative_token_is_refused() {
    let (mut idx, mut bin) = pair();
    idx[17] = TokenType::I16 as u8;
    bin[2..4].copy_from_slice(&(-3_i16).to_le_bytes());
    let (_folder, dataset) = open(&idx, &bin);
    let error = dataset.unwrap().check().unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("token 1 of item 0 is -3, which is no token id"),
        "{error}"
    );
}

/// The pair with its `.bin` cut into shards of these lengths, under these names.
fn sharded(shards: &[(&str, usize)]) -> (TempDir, Result<Dataset, OpenError>) {
    let (idx, bin) = pair();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.idx"), idx).unwrap();
    let mut rest = &bin[..];
    for (name, len) in shards {
        let (shard, after) = rest.split_at(*len);
        fs::write(folder.path().join(name), shard).unwrap();
        rest = after;
    }
    let dataset = Dataset::open(&folder.path().join("a"));
    (folder, dataset)
}

#[test]
fn shards_are_read_as_one() {
    // The second token is cut in two.
    let (_folder, dataset) = sharded(&[("a-00000-of-00001.bin", 3), ("a-00001-of-00001.bin", 3)]);
    let dataset = dataset.unwrap();
    assert_eq!(read(&dataset, 0, 0..2).unwrap(), [1, 2]);
    assert_eq!(read(&dataset, 1, 0..1).unwrap(), [259]);
    assert_eq!(dataset.paths().count(), 3);
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let (_folder, dataset) = sharded(&[("a-00000-of-00002.bin", 3), ("a-00002-of-00002.bin", 3)]);
    let missing = dataset.unwrap_err().to_string();
    assert!(missing.ends_with("a-00001-of-00002.bin`"), "{missing}");
    let (_folder, dataset) = sharded(&[("a-00000-of-00001.bin", 3), ("a-00001-of-00002.bin", 3)]);
    let mixed = dataset.unwrap_err().to_string();
    assert!(
        mixed.contains(
            "is a shard of a set that ends with 1, beside shards of one that ends with 2"
        ),
        "{mixed}"
    );
    let (_folder, dataset) = sharded(&[("a-00000-of-00001.bin", 3), ("a-00001-of-00001.bin", 2)]);
    let short = dataset.unwrap_err().to_string();
    assert!(
        short.contains("the 2 shards from `")
            && short.ends_with(
                "a-00000-of-00001.bin` on have 5 bytes, but its last item, 1, ends at byte 6"
            ),
        "{short}"
    );
}

#[test]
fn a_file_that_is_cut_short_while_it_is_read_is_refused() {
    let (idx, mut bin) = pair();
    // Beyond a page, so that the cut takes mapped memory away: the last item has all the rest.
    bin.resize(1 << 16, 0);
    let mut idx = idx;
    idx[38..42].copy_from_slice(&((1_i32 << 15) - 2).to_le_bytes());
    let (folder, dataset) = open(&idx, &bin);
    let dataset = dataset.unwrap();
    assert!(read(&dataset, 0, 0..2).is_ok());
    fs::File::options()
        .write(true)
        .open(folder.path().join("a.b.bin"))
        .unwrap()
        .set_len(0)
        .unwrap();
    let error = dataset.check_unchanged().unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with(
            "a.b.bin` has changed since it was opened: it had 65536 bytes, and has 0 now"
        ),
        "{text}"
    );
    assert!(error.hint().is_some());
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// Text and hint of the error of opening `a` in this folder.
fn error_of(folder: &TempDir) -> String {
    let error = Dataset::open(&folder.path().join("a")).unwrap_err();
    let hint = error.hint().unwrap_or_default();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}\nhint: {hint}", source.unwrap_or_default())
}

#[test]
fn whole_shards_are_read_rather_than_the_bin_beside_them() {
    let (idx, bin) = pair();
    let (one, two) = bin.split_at(3);
    // Made at full length and not filled to its end, cut short, and whole: nothing tells them apart for sure.
    let half = [one, &[0; 3]].concat();
    for beside in [&half[..], one, &bin] {
        let folder = folder(&[
            ("a.idx", &idx),
            ("a.bin", beside),
            ("a-00000-of-00001.bin", one),
            ("a-00001-of-00001.bin", two),
            ("a-+0-of-00001.bin", two),
            ("a-00000-of-1.bin.part", two),
        ]);
        let dataset = Dataset::open(&folder.path().join("a")).unwrap();
        assert_eq!(read(&dataset, 0, 0..2).unwrap(), [1, 2]);
        assert_eq!(read(&dataset, 1, 0..1).unwrap(), [259]);
        let ignored = folder.path().join("a.bin");
        assert_eq!(dataset.ignored_bin(), Some(&*ignored));
        assert!(dataset.paths().all(|path| path != ignored));
    }
    // Some of the shards are deleted: the `.bin` is what is meant.
    for left in [
        &["a-00000-of-00001.bin"][..],
        &["a-00001-of-00001.bin"],
        &[],
    ] {
        let mut files = vec![("a.idx", &idx[..]), ("a.bin", &bin)];
        files.extend(left.iter().map(|name| (*name, one)));
        let folder = folder(&files);
        let dataset = Dataset::open(&folder.path().join("a")).unwrap();
        assert_eq!(read(&dataset, 1, 0..1).unwrap(), [259]);
        assert_eq!(dataset.ignored_bin(), None);
    }
}

#[test]
fn files_that_do_not_make_one_corpus_are_refused() {
    let (idx, bin) = pair();
    let (one, two) = bin.split_at(3);
    let longer = [&bin[..], &[1, 0]].concat();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6\n";
    let (first, second) = ("a-00000-of-00001.bin", "a-00001-of-00001.bin");
    let cases: [(&[(&str, &[u8])], [&str; 2]); 15] = [
        (
            &[("a.bin", &longer)],
            [
                "a.bin` has 8 bytes, but the items of `",
                "were not written together",
            ],
        ),
        (
            &[(first, one), (second, &longer)],
            ["the 2 shards from `", "were not written together"],
        ),
        (
            &[(first, one), (second, &two[1..])],
            [
                "00001.bin` on have 5 bytes",
                "one of the shards was cut short",
            ],
        ),
        (
            &[("a.bin", &bin), (first, one), (second, &[])],
            [
                "on have 3 bytes",
                "a.bin` beside them is whole, remove the shards",
            ],
        ),
        (
            &[("a.bin", one), (first, one)],
            ["a.bin` has 3 bytes", "was not put together to its end"],
        ),
        (
            &[("a.bin", &pointer[..])],
            ["a.bin` is a pointer of git LFS", "`git lfs pull`"],
        ),
        (&[("a.bin", b"En")], ["a.bin` has 2 bytes", "cut short"]),
        (
            &[("a.bin", b"Entry not found")],
            ["a.bin` is the answer of a server", "download it again"],
        ),
        (
            &[(first, one), (second, pointer)],
            [
                "00001-of-00001.bin` is a pointer of git LFS",
                "`hf download`",
            ],
        ),
        (
            &[(first, one), ("a-0-of-1.bin", one), (second, two)],
            ["are both shard 0", "one file of each number"],
        ),
        (
            &[
                ("a.bin", &bin),
                (first, one),
                ("a-0-of-1.bin", one),
                (second, two),
            ],
            ["are both shard 0", ""],
        ),
        (
            &[
                ("a-00000-of-00000.bin", &bin),
                ("a-00001-of-00000.bin", &bin),
            ],
            ["is numbered beyond 0", ""],
        ),
        (
            &[("a-00000-of-00000.bin", &bin), (first, one), (second, two)],
            ["ends with 0, beside shards of one that ends with 1", ""],
        ),
        (
            &[
                ("a.bin", &bin),
                ("a-00000-of-00000.bin", &bin),
                (first, one),
            ],
            ["ends with 0, beside shards of one that ends with 1", ""],
        ),
        (
            &[("a-00000-of-18446744073709551615.bin", &bin)],
            ["a-00001-of-18446744073709551615.bin", "with all its shards"],
        ),
    ];
    for (files, expected) in cases {
        let folder = folder(&[&[("a.idx", &idx[..])], files].concat());
        let found = error_of(&folder);
        for text in expected {
            assert!(found.contains(text), "{found}\nlacks {text}");
        }
    }
}

#[test]
fn what_is_not_an_index_is_told_by_what_it_is() {
    for (bytes, text, hint) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\n"[..],
            "a.idx` is a pointer of git LFS",
            "`git lfs pull`",
        ),
        (
            b"Entry not found",
            "a.idx` is the answer of a server",
            "download it again",
        ),
        (
            b"<?xml version='1.0'?><Error/>",
            "a.idx` is the answer of a server",
            "download it again",
        ),
        (b"", "a.idx` is empty", "download it again"),
        (b"MMIDI", "a.idx` begins with the bytes", "cut short"),
        (
            b"TNTIDX\0\0\x01",
            "a.idx` begins with the bytes",
            "tokenized again",
        ),
        (b"\x1f\x8b\x08\0", "a.idx` is a packed file", "unpack"),
    ] {
        let found = error_of(&folder(&[("a.idx", bytes), ("a.bin", b"")]));
        assert!(found.contains(text) && found.contains(hint), "{found}");
    }
    for name in ["a.idx", "a.bin", "a-00001-of-00001.bin"] {
        let (idx, bin) = pair();
        let folder = folder(&[("a.idx", &idx), ("a-00000-of-00001.bin", &bin)]);
        let path = folder.path().join(name);
        drop(fs::remove_file(&path));
        fs::create_dir(&path).unwrap();
        let found = error_of(&folder);
        assert!(
            found.contains(name) && found.contains("it is a folder, not a regular file"),
            "{found}"
        );
    }
}

/// Items may lie in the `.bin` in any order, and an empty one anywhere.
#[test]
fn items_in_another_order_are_no_fault() {
    let (mut idx, bin) = pair();
    // The first item last, and an empty item at the end of the list.
    idx[42..58].copy_from_slice(&[2_i64, 0].map(i64::to_le_bytes).concat());
    let folder = folder(&[("a.idx", &idx), ("a.bin", &bin)]);
    let dataset = Dataset::open(&folder.path().join("a")).unwrap();
    assert_eq!(read(&dataset, 0, 0..2).unwrap(), [2, 259]);
    assert_eq!(read(&dataset, 1, 0..1).unwrap(), [1]);
}

#[test]
fn every_change_of_a_file_is_found() {
    let (idx, bin) = pair();
    for name in ["a.idx", "a-00000-of-00001.bin", "a-00001-of-00001.bin"] {
        let (one, two) = bin.split_at(3);
        let folder = folder(&[
            ("a.idx", &idx),
            ("a-00000-of-00001.bin", one),
            ("a-00001-of-00001.bin", two),
        ]);
        let dataset = Dataset::open(&folder.path().join("a")).unwrap();
        dataset.check_unchanged().unwrap();
        let path = folder.path().join(name);
        let other = folder.path().join("other");
        fs::copy(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
        let error = dataset.check_unchanged().unwrap_err().to_string();
        let expected =
            format!("{name}` has changed since it was opened: another file has its name now");
        assert!(error.ends_with(&expected), "{error}");
    }
}

#[test]
fn progress_comes_to_all_items() {
    let mut idx = pair().0[..34].to_vec();
    idx[18..26].copy_from_slice(&5000_u64.to_le_bytes());
    idx[26..34].fill(0);
    idx.extend([0; 12 * 5000]);
    let folder = folder(&[("a.idx", &idx), ("a.bin", b"")]);
    let dataset = Dataset::open(&folder.path().join("a")).unwrap();
    let done = std::sync::atomic::AtomicU64::new(0);
    let add = |n| {
        done.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    };
    assert_eq!(dataset.check_with(&add).unwrap(), None);
    assert_eq!(done.into_inner(), 5000);
}

/// KiB of mapped files that are in memory.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssFile:"));
    line.and_then(|line| line.split_whitespace().nth(1))
        .unwrap()
        .parse()
        .unwrap()
}

/// The Pile's `.idx` is 4.2 GB long; here it is all holes but for what is read.
#[cfg(target_os = "linux")]
#[test]
fn opening_an_index_of_the_piles_size_does_not_read_it() {
    use std::os::unix::fs::FileExt;
    const N: u64 = 210_607_728;
    const ITEM: u64 = 123_456_789;
    let folder = tempfile::tempdir().unwrap();
    let mut header = b"MMIDIDX\0\0".to_vec();
    header.extend(1_u64.to_le_bytes());
    header.push(8);
    header.extend(N.to_le_bytes());
    header.extend((N + 1).to_le_bytes());
    let idx = fs::File::create_new(folder.path().join("a.b.idx")).unwrap();
    idx.write_all_at(&header, 0).unwrap();
    let sizes = header.len() as u64;
    idx.write_all_at(&3_u32.to_le_bytes(), sizes + 4 * ITEM)
        .unwrap();
    idx.write_all_at(&2_u64.to_le_bytes(), sizes + 4 * N + 8 * ITEM)
        .unwrap();
    // The last item is empty and lies at the end, as the writer leaves it.
    idx.write_all_at(&8_u64.to_le_bytes(), sizes + 4 * N + 8 * (N - 1))
        .unwrap();
    idx.set_len(sizes + 4 * N + 8 * N + 8 * (N + 1)).unwrap();
    fs::write(folder.path().join("a.b.bin"), [9, 9, 1, 0, 2, 0, 3, 0]).unwrap();

    let before = resident();
    let dataset = Dataset::open(&folder.path().join("a.b")).unwrap();
    assert_eq!(dataset.n_items(), N);
    assert_eq!(read(&dataset, ITEM, 0..3).unwrap(), [1, 2, 3]);
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB of the file were read");
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Dataset::open(&folder.path().join("nothing")).unwrap_err();
    assert!(error.to_string().ends_with("nothing.idx`"), "{error}");
    assert!(error.hint().is_some());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        items in prop::collection::vec(prop::collection::vec(0_u32..128, 0..9), 0..9),
        kind in prop::sample::select(TokenType::ALL.as_slice()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("corpus");
        let mut writer = Writer::create(&prefix, kind).unwrap();
        for item in &items {
            writer.write(item).unwrap();
        }
        writer.finish().unwrap();
        let dataset = Dataset::open(&prefix).unwrap();
        prop_assert_eq!(dataset.n_items(), items.len() as u64);
        prop_assert_eq!(dataset.token_type(), kind);
        for (place, item) in (0..).zip(&items) {
            prop_assert_eq!(&read(&dataset, place, 0..item.len() as u64).unwrap(), item);
        }
        prop_assert_eq!(dataset.check().unwrap(), items.iter().flatten().copied().max());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut idx in prop::collection::vec(any::<u8>(), 0..120),
        bin in prop::collection::vec(any::<u8>(), 0..40),
        whole_header in any::<bool>(),
        n_items in 0_u64..6,
    ) {
        if whole_header {
            // Past the header, so that sizes and pointers are arbitrary, too.
            let (good, _) = pair();
            idx.resize(usize::try_from(34 + 12 * n_items).unwrap(), 0xa5);
            idx[..17].copy_from_slice(&good[..17]);
            idx[17] = [1, 2, 3, 4, 5, 8][usize::from(idx[17] % 6)];
            idx[18..26].copy_from_slice(&n_items.to_le_bytes());
            idx[26..34].fill(0);
        }
        let (_folder, dataset) = open(&idx, &bin);
        if let Ok(dataset) = dataset {
            for item in 0..=dataset.n_items() {
                if let Ok(len) = dataset.item_len(item) {
                    let _ = read(&dataset, item, 0..u64::from(len));
                    let _ = read(&dataset, item, 0..u64::from(len.min(2)));
                }
            }
            let _ = dataset.check();
        }
    }
}
