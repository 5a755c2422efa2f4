//! What is on disk is read as it was written, or refused.

mod files;

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
