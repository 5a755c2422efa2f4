//! Pickles made by hand: those of the reference models are read in `tests/`.

use super::*;

/// `{"a": tensor}`, where the tensor is `_rebuild_tensor_v2` of storage "0", six numbers of f32.
fn state_dict(shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let text = |text: &str| {
        let n = u32::try_from(text.len()).unwrap().to_le_bytes();
        [b"X", &n[..], text.as_bytes()].concat()
    };
    [
        &b"\x80\x02}q\x00"[..],
        &text("a"),
        b"ctorch._utils\n_rebuild_tensor_v2\nq\x01((",
        &text("storage"),
        b"ctorch\nFloatStorage\nq\x02",
        &text("0"),
        &text("cpu"),
        b"K\x06tQK\x00",
        shape,
        strides,
        b"\x89ccollections\nOrderedDict\n)Rtq\x03Rs.",
    ]
    .concat()
}

fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, PickledTensor>> {
    Reader::new(bytes).pickle()?.tensors()
}

#[test]
fn a_state_dict_is_read() {
    let found = tensors(&state_dict(b"K\x02K\x03\x86", b"K\x03K\x01\x86")).unwrap();
    let tensor = &found["a"];
    assert_eq!(
        (&tensor.shape[..], &tensor.strides[..]),
        (&[2, 3][..], &[3, 1][..])
    );
    assert_eq!((tensor.element.name, tensor.storage.bytes), ("F32", 24));
    assert_eq!(tensor.storage.key, "0");
}

#[test]
fn containers_that_are_filled_after_they_were_memorized_are_whole() {
    // memo 0 = {}; {"x": memo 0} is made first, then memo 0 gets its tensor.
    let whole = state_dict(b"K\x06\x85", b"K\x01\x85");
    let inner = &whole[5..whole.len() - 1];
    let pickle = [b"\x80\x02}\x8c\x01x}q\x00", inner, b"s."].concat();
    let found = tensors(&pickle).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["x.a"]);
}

#[test]
fn what_is_no_state_dict_is_refused() {
    let whole = state_dict(b"K\x02K\x03\x86", b"K\x03K\x01\x86");
    for n in 0..whole.len() {
        assert!(tensors(&whole[..n]).is_err(), "{n} bytes");
    }
    let nine = b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t";
    for pickle in [
        state_dict(nine, nine),
        state_dict(b"K\x06\x85", b"K\x01K\x01\x86"),
        state_dict(b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
        state_dict(b"N", b"N"),
        b"\x80\x02N.".to_vec(),
        b"\x80\x09}.".to_vec(),
        b"\x80\x02(((.".to_vec(),
        b"t.".to_vec(),
        b"}K\x01s.".to_vec(),
        b"h\x07.".to_vec(),
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.".to_vec(),
        b"S'x'\n.".to_vec(),
    ] {
        assert!(tensors(&pickle).is_err(), "{pickle:?}");
    }
}

#[test]
fn bombs_go_off_harmlessly() {
    // Lists of two references to the list before, 200 deep: 2²⁰⁰ leaves.
    let mut doubled = b"\x80\x04}\x8c\x01a]\x94".to_vec();
    for before in 0..200 {
        doubled.extend([b']', 0x94, b'(', b'h', before, b'h', before, b'e']);
    }
    doubled.extend(b"s.");
    // Tuples in tuples, a million deep.
    let mut deep = b"\x80\x02}\x8c\x01a)".to_vec();
    deep.extend([0x85].repeat(1_000_000));
    deep.extend(b"s.");
    // A list that holds itself, twice.
    let cyclic = b"\x80\x02}\x8c\x01a]q\x00(h\x00h\x00es.".to_vec();
    // A class whose tensors are made by a call of themselves.
    let mut calls = b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00".to_vec();
    calls.extend(b"]q\x01(h\x00Nh\x01eR.");
    // Dictionaries of a long list, again and again.
    let mut copies = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01(".to_vec();
    copies.extend(b"NN\x86".repeat(100_000));
    copies.extend(b"e0");
    copies.extend(b"h\x00h\x01\x85R0".repeat(100_000));
    copies.extend(b"}.");
    for (name, pickle) in [
        ("doubled", doubled),
        ("deep", deep),
        ("cyclic", cyclic),
        ("calls", calls),
        ("copies", copies),
    ] {
        let begun = std::time::Instant::now();
        let error = tensors(&pickle).unwrap_err();
        assert!(begun.elapsed().as_secs() < 10, "{name}: {error}");
    }
}
