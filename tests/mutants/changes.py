"""Changes of bytes, JSON, run files, arrays and tables, drawn from a `random.Random`."""

import copy
import io
import json
import struct
import zipfile

import numpy
import pyarrow
import pyarrow.parquet

WHOLE = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
         1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
VALUES = [*WHOLE, -1, -(1 << 31), -(1 << 63), 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), "", "x", "\0",
          "../x", "/etc/passwd", "a\nb", "\x1b[31m", None, True, False, [], {}, [[]], {"a": 1}, "1", "F16", "9" * 400]
TOML = ["0", "-1", "4294967295", "4294967296", "9223372036854775807", "nan", "inf", "-inf", "1e308", "''", "'a'", "[]",
        "{}", "[[]]", "true", "1979-05-27", '"\\u0000"', '"\\u001b[31m"', "[0]", "['']", "'/'", "'..'", "2147483647",
        "65535", "16777216", "'0..=2147483647'", "'/dev/zero'"]


def flip(random, data, head=None):
    """Changes some bytes, most often among the first `head`."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 4, 16])):
        data = data or bytearray(b"\0")
        n = len(data) if head is None or random.random() < 0.4 else min(head, len(data))
        at = random.randrange(n)
        match random.randrange(8):
            case 0: data[at] ^= 1 << random.randrange(8)
            case 1: data[at] = random.randrange(256)
            case 2: del data[at:]
            case 3: data[at:at] = random.randbytes(random.randrange(1, 40))
            case 4: del data[at:at + random.randrange(1, 40)]
            case 5:
                width = random.choice([2, 4, 8])
                value = random.choice([*WHOLE, len(data), len(data) - 1, len(data) + 1])
                data[at:at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
            case 6: data += data[at:at + random.randrange(1, 5000)]
            case 7: data[at:at + 64] = bytes(len(data[at:at + 64]))
    return bytes(data)


def change_json(random, value):
    """Changes some places of a JSON value."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 2, 3])):
        places = []

        def walk(inside):
            for key in inside if isinstance(inside, dict) else range(len(inside)):
                places.append((inside, key))
                if isinstance(inside[key], (dict, list)):
                    walk(inside[key])

        walk(value)
        if not places:
            break
        inside, key = random.choice(places)
        whole = isinstance(inside[key], int) and not isinstance(inside[key], bool)
        match random.randrange(6):
            case 0 if whole: inside[key] += random.choice([-2, -1, 1, 2, 1000, -1000, 1 << 32, 1 << 63])
            case 1: inside.pop(key)
            case 2 if isinstance(inside, dict): inside[f"k{random.randrange(9)}"] = copy.deepcopy(random.choice(VALUES))
            case 2: inside.append(copy.deepcopy(random.choice(VALUES)))
            case _: inside[key] = copy.deepcopy(random.choice(VALUES))
    return value


def change_json_text(random, text):
    """A JSON text, changed; now and then no JSON any more, or with a key twice."""
    share = random.random()
    if share < 0.1:
        return flip(random, text)
    if share < 0.15 and text.lstrip().startswith(b"{"):
        key = random.choice(list(json.loads(text)) or ["x"])
        return text.replace(b"{", b"{" + json.dumps(key).encode() + b": 1, ", 1)
    return json.dumps(change_json(random, json.loads(text))).encode()


def change_toml(random, text):
    """A run file with a value, a line or some bytes changed."""
    if random.random() < 0.15:
        return flip(random, text.encode())
    lines = text.split("\n")
    at = random.randrange(len(lines))
    if "=" in lines[at] and random.random() < 0.7:
        lines[at] = lines[at].split("=")[0] + "= " + random.choice(TOML)
    elif random.random() < 0.5:
        del lines[at]
    else:
        lines.insert(at, random.choice(lines))
    return "\n".join(lines).encode()


def change_npy(random, data):
    """A `.npy` file: its header, its numbers, or other numbers than int32."""
    array = numpy.load(io.BytesIO(data))
    share = random.random()
    if share < 0.4:
        return flip(random, data, 128)
    flat = array.reshape(-1).astype(object)
    for _ in range(random.choice([1, 1, 3])):
        flat[random.randrange(len(flat))] = random.choice([0, 1, -1, len(flat), (1 << 31) - 1, -(1 << 31), flat[0]])
    if share < 0.5:
        flat = flat[:random.randrange(len(flat))]
    kind = random.choice([array.dtype, array.dtype, "<i8", "<f8", ">i4", "<u2", "bool"])
    changed = flat.astype("int64").astype(kind)
    if array.ndim == 2 and len(changed) % 2 == 0 and random.random() < 0.9:
        changed = changed.reshape(-1, 2, order=random.choice("CF"))
    out = io.BytesIO()
    numpy.save(out, changed)
    return out.getvalue()


def change_safetensors(random, data):
    """A safetensors file: its header, its length, its numbers."""
    n, = struct.unpack("<Q", data[:8])
    header, body = data[8:8 + n], data[8 + n:]
    share = random.random()
    if share < 0.5:
        header = change_json_text(random, header)
        n = len(header)
    elif share < 0.6:
        n = random.choice([*WHOLE, n - 1, n + 1])
    elif share < 0.75:
        body = body[:random.randrange(len(body))] if random.random() < 0.5 else body + bytes(random.randrange(1, 9))
    elif share < 0.9:
        # NaN, infinities, zeros in a row.
        at, length = random.randrange(len(body)), random.choice([2, 4, 64, len(body) // 3])
        body = body[:at] + random.choice([b"\xff", b"\0", b"\x7c"]) * len(body[at:at + length]) + body[at + length:]
    else:
        return flip(random, data, 8 + n)
    return struct.pack("<Q", n % (1 << 64)) + header + body


def change_pickle(random, data):
    """A file of `torch.save`: the pickle inside its ZIP, its entries, or its bytes."""
    if data[:2] != b"PK" or random.random() < 0.3:
        return flip(random, data, random.choice([2000, None]))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    out = io.BytesIO()
    target = random.randrange(len(entries) + 2)
    with zipfile.ZipFile(out, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for i, (name, content) in enumerate(entries):
            if i == target and random.random() < 0.3:
                continue
            if i == target or (target >= len(entries) and name.endswith("data.pkl")):
                content = flip(random, content)
            archive.writestr(name, content)
    return out.getvalue()


def write_table(random, table, path):
    """Writes a table as one of several programs would."""
    pyarrow.parquet.write_table(
        table, path, compression=random.choice(["snappy", "zstd", "none", "gzip"]),
        row_group_size=random.choice([100, 1000, 1 << 20]), use_dictionary=random.choice([True, False]),
    )


def change_table(random, table):
    """A table with rows, values, names or types changed."""
    at = random.randrange(table.num_rows)
    column = random.randrange(table.num_columns)
    name, values = table.column_names[column], table.column(column)
    match random.randrange(7):
        case 0:
            order = list(range(table.num_rows))
            match random.randrange(3):
                case 0: order.insert(at, at)
                case 1: order[at], order[at - 1] = order[at - 1], order[at]
                case 2: del order[at:at + random.choice([1, 50])]
            return table.take(order)
        case 1 | 2:
            list_ = values.to_pylist()
            list_[at] = random.choice([None, -1, 0, 1, 33, 255, 256, 65536, (1 << 31) - 1, 1 << 32, 1.5,
                                       float("nan"), float("inf"), -1e-300, "x", True])
            try:
                return table.set_column(column, name, pyarrow.array(list_))
            except (pyarrow.ArrowException, TypeError, OverflowError):
                return table.set_column(column, name, pyarrow.array([str(value) for value in list_]))
        case 3 | 4:
            kind = random.choice([pyarrow.int8(), pyarrow.uint8(), pyarrow.int16(), pyarrow.uint64(), pyarrow.int64(),
                                  pyarrow.float32(), pyarrow.float64(), pyarrow.string(), pyarrow.large_string(),
                                  pyarrow.decimal128(30, 3), pyarrow.timestamp("us"), pyarrow.binary()])
            try:
                return table.set_column(column, name, values.cast(kind, safe=False))
            except pyarrow.ArrowException:
                return table.set_column(column, name, values.dictionary_encode())
        case 5:
            return table.remove_column(column) if random.random() < 0.5 else table.rename_columns(
                [*table.column_names[:column], random.choice(["x", table.column_names[0], ""]),
                 *table.column_names[column + 1:]])
        case _:
            extra = random.choice([[{"a": 1}], [[1]], [None], ["x"], [b"\0"]])
            return table.append_column("extra", pyarrow.array(extra * table.num_rows))


def flip_table(random, data):
    """A parquet file whose footer or pages are changed, with a right length of the footer."""
    n, = struct.unpack("<I", data[-8:-4])
    if random.random() < 0.6:
        footer = flip(random, data[-8 - n:-8])
        return data[:-8 - n] + footer + struct.pack("<I", len(footer)) + b"PAR1"
    return flip(random, data)
