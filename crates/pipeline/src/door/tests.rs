//! The door, tried with columns of every type that other programs write, and with files that are
//! not what they are called.

use super::*;
use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::types::{ArrowPrimitiveType, Float16Type, Int8Type, Int32Type};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float16Array,
    Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeStringArray,
    NullArray, RecordBatch, StringArray, StringViewArray, StructArray, Time64MicrosecondArray,
    TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::data_type::ByteArray;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

const VALUES: [Option<i128>; 3] = [Some(0), None, Some(5)];

fn written(columns: Vec<(&str, ArrayRef)>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    let fields = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let file = File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (folder, path)
}

fn read(path: &Path, wanted: Wanted) -> Result<Cells> {
    let asked = vec![Asked { name: "x", wanted }];
    let mut batches = ParquetFile::open(path)?.read(asked)?;
    let batch = batches.next().unwrap()?;
    assert_eq!((batch.first, batch.n_rows), (0, 3));
    assert!(batches.next().is_none());
    Ok(batch.columns.into_iter().next().unwrap())
}

fn of(array: ArrayRef, wanted: Wanted) -> Result<Cells> {
    let (_folder, path) = written(vec![("x", array)]);
    read(&path, wanted)
}

fn half(bits: u16) -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::from_bits(bits)
}

#[test]
fn whole_numbers_of_every_type_are_the_same() {
    let halves = vec![Some(half(0)), None, Some(half(0x4500))];
    let dictionary: DictionaryArray<Int8Type> = DictionaryArray::new(
        Int8Array::from(vec![Some(1), None, Some(0)]),
        Arc::new(Int64Array::from(vec![5, 0])),
    );
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int8Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(Int16Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(Int32Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(Int64Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(UInt8Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(UInt16Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(UInt32Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(UInt64Array::from(vec![Some(0), None, Some(5)])),
        Arc::new(Float16Array::from(halves)),
        Arc::new(Float32Array::from(vec![Some(0.0), None, Some(5.0)])),
        Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(5.0)])),
        Arc::new(dictionary),
    ];
    for array in arrays {
        let kind = array.data_type().clone();
        let Cells::Whole(found) = of(array, Wanted::Whole(0..=255)).unwrap() else {
            panic!("{kind} is no whole number");
        };
        assert_eq!(found, VALUES, "{kind}");
    }
    // A column without any value holds any type of values.
    let nothing = || Arc::new(NullArray::new(3));
    assert!(matches!(
        of(nothing(), Wanted::Whole(0..=1)).unwrap(),
        Cells::Whole(found) if found == [None; 3]
    ));
}

#[test]
fn the_largest_numbers_are_exact() {
    let all = Wanted::Whole(i128::MIN..=i128::MAX);
    let unsigned = UInt64Array::from(vec![u64::MAX, 0, 1]);
    let Cells::Whole(found) = of(Arc::new(unsigned), all.clone()).unwrap() else {
        panic!("whole numbers were asked for");
    };
    assert_eq!(found[0], Some(u64::MAX.into()));
    let unsigned = UInt32Array::from(vec![u32::MAX, 0, 1]);
    let Cells::Whole(found) = of(Arc::new(unsigned), all).unwrap() else {
        panic!("whole numbers were asked for");
    };
    assert_eq!(found[0], Some(u32::MAX.into()));
}

#[test]
fn a_value_that_does_not_fit_is_refused_by_row() {
    let byte = || Wanted::Whole(0..=255);
    let cases: Vec<(ArrayRef, Wanted, &str)> = vec![
        (
            Arc::new(Int64Array::from(vec![0, 256, 1])),
            byte(),
            "row 1 (counted from 0): `x` is 256, which is not in 0 … 255",
        ),
        (
            Arc::new(Int8Array::from(vec![0, 1, -1])),
            byte(),
            "row 2 (counted from 0): `x` is -1, which",
        ),
        (
            Arc::new(Float64Array::from(vec![0.0, 1.5, 1.0])),
            byte(),
            "row 1 (counted from 0): `x` is 1.5, which is no whole number",
        ),
        (
            Arc::new(Float32Array::from(vec![f32::NAN, 1.0, 1.0])),
            byte(),
            "row 0 (counted from 0): `x` is NaN, which is no whole number",
        ),
        (
            Arc::new(Float32Array::from(vec![0.0, 1.0, 16_777_220.0])),
            Wanted::Whole(0..=u32::MAX.into()),
            "floats of this type do not hold every whole number above 16777216",
        ),
        (
            Arc::new(Float64Array::from(vec![0.0, 1.0, f64::NEG_INFINITY])),
            Wanted::Real,
            "row 2 (counted from 0): `x` is -inf",
        ),
        (
            Arc::new(Float64Array::from(vec![0.0, 1.0, 1e300])),
            Wanted::Real,
            "row 2 (counted from 0): `x` is ",
        ),
        (
            Arc::new(UInt8Array::from(vec![0, 1, 2])),
            Wanted::Flag,
            "row 2 (counted from 0): `x` is 2, which is neither true nor false",
        ),
        (
            Arc::new(StringArray::from(vec!["step1", "step2", "step3"])),
            byte(),
            "the column `x` holds text, not whole numbers",
        ),
        (
            Arc::new(BooleanArray::from(vec![true, false, true])),
            byte(),
            "holds true and false, not whole numbers",
        ),
        (
            Arc::new(TimestampNanosecondArray::from(vec![0, 1, 2])),
            byte(),
            "holds times, not whole numbers",
        ),
        (
            Arc::new(Date32Array::from(vec![0, 1, 2])),
            byte(),
            "holds dates, not whole numbers",
        ),
        (
            Arc::new(Decimal128Array::from(vec![0, 1, 2])),
            byte(),
            "holds decimals, not whole numbers",
        ),
        (
            Arc::new(Int32Array::from(vec![0, 1, 2])),
            Wanted::Text,
            "holds whole numbers, not text",
        ),
    ];
    for (array, wanted, says) in cases {
        let error = of(array, wanted).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains(says) && text.contains("table.parquet"),
            "{text}"
        );
        assert!(failure::hint(&error).is_some(), "{text}");
    }
}

#[test]
fn texts_and_flags_of_every_type_are_the_same() {
    let texts = ["a", "b", "a"];
    let dictionary: DictionaryArray<Int32Type> = texts.into_iter().collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(texts.to_vec())),
        Arc::new(LargeStringArray::from(texts.to_vec())),
        Arc::new(StringViewArray::from(texts.to_vec())),
        Arc::new(dictionary),
    ];
    for array in arrays {
        let kind = array.data_type().clone();
        let Cells::Text(found) = of(array, Wanted::Text).unwrap() else {
            panic!("{kind} is no text");
        };
        let found: Vec<&[u8]> = found.iter().flatten().map(ByteArray::data).collect();
        assert_eq!(found, [b"a", b"b", b"a"], "{kind}");
    }
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(UInt8Array::from(vec![Some(1), None, Some(0)])),
        Arc::new(Float64Array::from(vec![Some(1.0), None, Some(0.0)])),
    ];
    for array in arrays {
        let kind = array.data_type().clone();
        let Cells::Flag(found) = of(array, Wanted::Flag).unwrap() else {
            panic!("{kind} is no flag");
        };
        assert_eq!(found, [Some(true), None, Some(false)], "{kind}");
    }
}

#[test]
fn columns_that_are_not_asked_for_do_not_matter() {
    let numbers = || -> ArrayRef { Arc::new(Int64Array::from(vec![Some(0), None, Some(5)])) };
    let field = Arc::new(Field::new("x", DataType::Int64, true));
    let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, numbers())]));
    let mut lists = ListBuilder::new(UInt32Builder::new());
    for _ in 0..3 {
        lists.values().append_slice(&[1, 2]);
        lists.append(true);
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    let others: Vec<(&str, ArrayRef)> = vec![
        ("nested", nested.clone()),
        (
            "when",
            Arc::new(Time64MicrosecondArray::from(vec![1, 2, 3])),
        ),
        ("much", Arc::new(Decimal128Array::from(vec![1, 2, 3]))),
        ("half", Arc::new(Float16Array::from(vec![half(0); 3]))),
        ("list", lists.clone()),
        ("x", numbers()),
    ];
    let (_folder, path) = written(others);
    // The struct's own `x` is another column.
    let Cells::Whole(found) = read(&path, Wanted::Whole(0..=5)).unwrap() else {
        panic!("whole numbers were asked for");
    };
    assert_eq!(found, VALUES);
    for (array, says) in [(nested, "holds lists or structs"), (lists, "holds lists")] {
        let error = of(array, Wanted::Whole(0..=5)).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let (_folder, path) = written(vec![("x", numbers()), ("x", numbers())]);
    let error = read(&path, Wanted::Whole(0..=5)).unwrap_err();
    assert!(
        error.to_string().contains("has several columns `x`"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_something_else_is_called_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.parquet");
    let cases: [(&[u8], &str, &str); 9] = [
        (b"", "is empty", "again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
            "is a pointer of git-LFS",
            "git lfs pull",
        ),
        (b"Entry not found", "error message of a server", "download"),
        (
            b"<!DOCTYPE html>\n<html>",
            "is an HTML or XML page",
            "download",
        ),
        (
            b"training_index,checkpoint\n1,2\n",
            "is a CSV file",
            "name a parquet file",
        ),
        (b"PAR1 and no end", "is cut short", "its end is missing"),
        (
            b"ARROW1\0\0....",
            "is an Arrow (Feather) file",
            "to_parquet",
        ),
        (b"\x1f\x8b\x08....", "is compressed as a whole", "unpack"),
        (
            b"no parquet",
            "is no whole parquet file",
            "name a parquet file",
        ),
    ];
    for (bytes, says, cure) in cases {
        fs::write(&path, bytes).unwrap();
        let error = ParquetFile::open(&path).map(drop).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(says) && text.contains("v.parquet"), "{text}");
        let hint = failure::hint(&error).unwrap();
        assert!(hint.contains(cure), "{hint}");
    }
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    let cases = [
        (pipe.as_path(), "is a pipe"),
        (link.as_path(), "is a pipe"),
        (Path::new("/dev/zero"), "is a device"),
        (folder.path(), "is a folder"),
    ];
    for (path, says) in cases {
        for error in [
            open(path).map(drop).unwrap_err(),
            read_text(path, 10).map(drop).unwrap_err(),
            ParquetFile::open(path).map(drop).unwrap_err(),
            CsvFile::open(path, "x").map(drop).unwrap_err(),
        ] {
            let text = format!("{error:#}");
            assert!(text.contains(says), "{text}");
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
    }
    let long = folder.path().join("long");
    fs::write(&long, "12345").unwrap();
    assert_eq!(read_text(&long, 5).unwrap(), "12345");
    let error = read_text(&long, 4).unwrap_err();
    assert!(
        format!("{error:#}").contains("larger than 4 bytes"),
        "{error}"
    );
}

#[test]
fn a_damaged_file_is_an_error_or_another_value_but_never_a_panic() {
    let values: Vec<Option<i64>> = (0..3).map(Some).collect();
    let (folder, path) = written(vec![("x", Arc::new(Int64Array::from(values)))]);
    let whole = fs::read(&path).unwrap();
    let mut n_refused = 0;
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 1 << (place % 8);
        let path = folder.path().join("damaged.parquet");
        fs::write(&path, damaged).unwrap();
        let file = ParquetFile::open(&path).and_then(|file| {
            let wanted = Wanted::Whole(i128::MIN..=i128::MAX);
            let batches = file.read(vec![Asked { name: "x", wanted }])?;
            batches.take(5).try_for_each(|batch| batch.map(drop))
        });
        if let Err(error) = file {
            let text = format!("{error:#}");
            assert!(text.contains("damaged.parquet"), "{text}");
            n_refused += 1;
        }
    }
    assert!(
        n_refused > whole.len() / 5,
        "{n_refused} of {}",
        whole.len()
    );
}

#[test]
fn a_csv_file_is_read_by_its_quotation_marks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("list.csv");
    let read = |text: &[u8]| -> Result<Vec<Option<String>>> {
        fs::write(&path, text).unwrap();
        CsvFile::open(&path, "x")?.collect()
    };
    let five_and_nine = [Some("5".to_owned()), Some("9".to_owned())];
    let cases: [&[u8]; 9] = [
        b"x\n5\n9\n",
        b"x\r\n5\r\n9",
        b"\xef\xbb\xbfx\n5\n9\n",
        b"\xef\xbb\xbf\"x\"\n5\n9\n",
        b"text,x\n\"a, 3\",5\n\"b, 4\",9\n",
        b"text,x\n\"say \"\"3,4\"\"\",5\nplain,\"9\"\n",
        b"text,x\n\"two\nlines, 3\n4\",5\nb, 9 \n",
        // Bytes of other columns may be of any encoding.
        b"text,x\n\xe9\xff,5\nb,9\n",
        b"\"text, x\",x\na,5\n\"\",9\n",
    ];
    for text in cases {
        let found = read(text).unwrap();
        assert_eq!(found, five_and_nine, "{}", String::from_utf8_lossy(text));
    }
    assert_eq!(read(b"x,y\n,1\n").unwrap(), [None]);
    let refused: [(&[u8], &str); 7] = [
        (b"y\n5\n", "there is no column `x`"),
        (b"x;y\n5;6\n", "there is no column `x`"),
        (b"x,x\n5,6\n", "several columns `x`"),
        (
            b"text,x\na,5\na, 3,9\n",
            "line 3: there are 3 fields, and the first line names 2 columns",
        ),
        (
            b"x,text\n5,\"a\n9,b\n",
            "line 2: a quotation mark is never closed",
        ),
        (
            b"text,x\na \"3,4\",5\n",
            "line 2: a quotation mark stands inside a field",
        ),
        (
            b"text,x\n\"a\" b,5\n",
            "line 2: a field goes on behind its closing",
        ),
    ];
    for (text, says) in refused {
        let error = read(text).unwrap_err();
        assert!(format!("{error:#}").contains(says), "{error:#}");
        assert!(failure::hint(&error).is_some(), "{error:#}");
    }
    fs::write(&path, b"\xff\xfex\0\n\x005\0\n\0").unwrap();
    let error = CsvFile::open(&path, "x").map(drop).unwrap_err();
    assert!(error.to_string().contains("UTF-16"), "{error}");
}
