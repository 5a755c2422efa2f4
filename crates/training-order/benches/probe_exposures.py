"""Exposures of probes against infini-gram's exact n-gram counts, on a corpus of 20 million tokens with planted repeats.

    pip install numpy infini-gram
    cargo build --release -p training-order --example probe_exposures
    python crates/training-order/benches/probe_exposures.py target/release/examples/probe_exposures FOLDER

Every sequence of the run is one of infini-gram's documents, so that its n-grams, too, lie inside one sequence.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

program, folder = sys.argv[1], Path(sys.argv[2]).absolute()
index = folder / "index"
index.mkdir(parents=True, exist_ok=True)
L, BATCH, STEPS, K = 256, 16, 4600, 64

# Documents of 100 to 900 tokens; passages of 80 to 400 tokens stand in several of them, whole documents up to 100 times.
rng = np.random.default_rng(0)
passages = [rng.integers(1, 50_000, rng.integers(80, 400), dtype=np.uint16) for _ in range(400)]
documents = []
while sum(map(len, documents)) < 20_000_000:
    for _ in range(500):
        document = rng.integers(1, 50_000, rng.integers(100, 900), dtype=np.uint16)
        if rng.random() < 0.2:
            cut = rng.integers(0, len(document))
            document = np.concatenate([document[:cut], passages[rng.integers(400)], document[cut:]])
        documents += [document] * (int(rng.integers(2, 100)) if rng.random() < 0.01 else 1)
sizes = np.array([len(document) for document in documents], np.int32)
np.concatenate(documents).tofile(folder / "corpus.bin")
pointers = np.concatenate([[0], np.cumsum(sizes[:-1].astype(np.int64))]) * 2
counts = np.array([len(sizes), len(sizes) + 1], np.uint64).tobytes()
header = b"MMIDIDX\0\0" + np.uint64(1).tobytes() + np.uint8(8).tobytes() + counts
ends = np.arange(len(sizes) + 1, dtype=np.int64)
(folder / "corpus.idx").write_bytes(header + sizes.tobytes() + pointers.tobytes() + ends.tobytes())

arguments = [program, folder / "corpus", *map(str, (L, BATCH, STEPS, K)), folder]
print("ours,", subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip())
sequences, exposures = np.load(folder / "sequences.npy"), np.load(folder / "exposures.npy")
ours = exposures.sum(axis=1) + 1

from infini_gram import indexing
from infini_gram.engine import InfiniGramEngine

separated = np.concatenate([np.full((len(sequences), 1), 0xFFFF, np.uint16), sequences], axis=1)
separated.tofile(index / "tokenized.0")
(np.arange(len(sequences), dtype=np.uint64) * separated.shape[1] * 2).tofile(index / "offset.0")
begun, here = time.perf_counter(), os.getcwd()
indexing.build_sa(SimpleNamespace(save_dir=str(index), temp_dir=str(index), shards=1, workers=1, worker_id=0, mem=4, cpus=os.cpu_count(), token_width=2))
os.chdir(here)
engine = InfiniGramEngine(index_dir=str(index), eos_token_id=0)
theirs = np.array([engine.count(input_ids=sequence[:K].tolist())["count"] for sequence in sequences])
print(f"infini-gram, index and {len(sequences)} counts: {time.perf_counter() - begun:.1f} s")
assert (ours == theirs).all(), np.argwhere(ours != theirs)[:5]
print(f"equal for all {len(ours)} probes; {(ours > 1).sum()} occur more than once, one {ours.max()} times")
