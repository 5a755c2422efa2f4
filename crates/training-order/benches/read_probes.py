"""First 64 tokens of 200,000 random sequences: ours beside a plain numpy.memmap reader and megatron-core's IndexedDataset.

    pip install numpy megatron-core   # the latter may be absent
    cargo build --release -p training-order --example read_probes
    python crates/training-order/benches/read_probes.py target/release/examples/read_probes FOLDER

Makes a corpus of a million documents (1.2 GB) in FOLDER first. Ours uses all cores; a second round with
RAYON_NUM_THREADS=1 compares one thread with one.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

L, N_READ, N_DOCUMENTS = 2048, 200_000, 1_000_000
program, folder = sys.argv[1], Path(sys.argv[2])
prefix = folder / "corpus"
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
sizes = rng.geometric(1 / 600, N_DOCUMENTS).astype(np.int32)
pointers = np.concatenate([[0], np.cumsum(sizes[:-1].astype(np.int64))]) * 2
if not prefix.with_suffix(".idx").exists():
    rng.integers(0, 50_000, sizes.sum(), dtype=np.uint16).tofile(prefix.with_suffix(".bin"))
    header = b"MMIDIDX\0\0" + np.uint64(1).tobytes() + np.uint8(8).tobytes()
    counts = np.uint64(N_DOCUMENTS).tobytes() + np.uint64(N_DOCUMENTS + 1).tobytes()
    arrays = sizes.tobytes() + pointers.tobytes() + np.arange(N_DOCUMENTS + 1, dtype=np.int64).tobytes()
    prefix.with_suffix(".idx").write_bytes(header + counts + arrays)

# GPT-NeoX's maps, by NumPy.
state = np.random.RandomState(1234)
doc_idx = np.arange(N_DOCUMENTS, dtype=np.int32)
state.shuffle(doc_idx)
n_samples = (int(sizes.sum()) - 1) // L
shuffle_idx = np.arange(n_samples, dtype=np.uint32)
state.shuffle(shuffle_idx)
before = np.concatenate([[0], np.cumsum(sizes[doc_idx].astype(np.int64))])
starts = np.arange(n_samples + 1, dtype=np.int64) * L
place = np.searchsorted(before, starts, side="right") - 1
sample_idx = np.stack([place, starts - before[place]], axis=1).astype(np.int32)
indices = rng.integers(0, n_samples - 1, N_READ)
np.save(folder / "indices.npy", indices)


def read(get):
    """One sequence after another, as a dataset class does; the sum of all tokens."""
    total = 0
    for index in indices:
        sample = shuffle_idx[index]
        k, offset = sample_idx[sample]
        missing = 64
        parts = []
        while missing:
            document = doc_idx[k]
            n = min(missing, sizes[document] - offset)
            parts.append(get(document, offset, n))
            missing -= n
            k, offset = k + 1, 0
        total += int((parts[0] if len(parts) == 1 else np.concatenate(parts)).sum(dtype=np.int64))
    return total


def timed(name, get):
    read(get)
    begun = time.perf_counter()
    total = read(get)
    seconds = time.perf_counter() - begun
    print(f"{name}: {N_READ / seconds / 1000:,.0f} thousand sequences/s, sum {total}")
    return seconds, total


tokens = np.memmap(prefix.with_suffix(".bin"), dtype=np.uint16, mode="r")
first = pointers // 2
theirs, expected = timed("numpy.memmap", lambda d, o, n: tokens[first[d] + o : first[d] + o + n])
try:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(prefix), mmap=True)
    timed("megatron-core IndexedDataset", lambda d, o, n: dataset.get(int(d), offset=int(o), length=int(n)))
except ImportError as error:
    print(f"megatron-core: not here ({error})")
for threads in [os.cpu_count(), 1]:
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    ran = subprocess.run([program, prefix, folder / "indices.npy"], env=environment, capture_output=True, text=True, check=True)
    seconds, total = re.search(r"warm ([\d.]+) s, sum (\d+)", ran.stdout).groups()
    assert int(total) == expected, (total, expected)
    print(f"ours, {threads} threads: {N_READ / float(seconds) / 1000:,.0f} thousand sequences/s, {theirs / float(seconds):.1f} times numpy.memmap")
