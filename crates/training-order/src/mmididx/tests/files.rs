//! Which files are a corpus, and which only look like one.

use super::*;

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

/// Name and bytes.
type File<'a> = (&'a str, &'a [u8]);

/// A folder with these files.
fn folder(files: &[File<'_>]) -> TempDir {
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
    // Made at full length and not filled to its end, cut short, and whole: nothing tells them apart
    // for sure.
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
    let cases: [(&[File<'_>], [&str; 2]); 15] = [
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
    idx.resize(34 + 12 * 5000, 0);
    let folder = folder(&[("a.idx", &idx), ("a.bin", b"")]);
    let dataset = Dataset::open(&folder.path().join("a")).unwrap();
    let done = std::sync::atomic::AtomicU64::new(0);
    let add = |n| {
        done.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    };
    assert_eq!(dataset.check_with(&add).unwrap(), None);
    assert_eq!(done.into_inner(), 5000);
}
