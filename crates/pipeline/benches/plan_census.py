"""`pipeline plan` on a census of 10, 51 and 146 million sequences: wall time, peak memory, bytes written.

    python crates/pipeline/benches/plan_census.py target/debug/pipeline FOLDER

The corpus is a million documents of 60 tokens, the sequence length 1, so that as many sequences as Pythia's fit on a small disk;
their number, not their length, is what a plan costs.
"""

import os
import struct
import sys
import time

import numpy as np

N_DOCUMENTS, LENGTH, BATCH_SIZE = 1_000_000, 60, 1024


def write_corpus(prefix):
    tokens = np.random.default_rng(1).integers(0, 50_000, N_DOCUMENTS * LENGTH, dtype=np.uint16)
    tokens.tofile(prefix + ".bin")
    with open(prefix + ".idx", "wb") as idx:
        idx.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, N_DOCUMENTS, N_DOCUMENTS + 1))
        idx.write(np.full(N_DOCUMENTS, LENGTH, np.int32).tobytes())
        idx.write((np.arange(N_DOCUMENTS, dtype=np.int64) * LENGTH * 2).tobytes())
        idx.write(np.arange(N_DOCUMENTS + 1, dtype=np.int64).tobytes())


def write_run_file(path, steps):
    text = f"""
suite = "bench"
out = "out-{steps}"
device = "cpu"
precision = "f32"

[probe]
k = 1
l = 1
offset = 0
judge = "scripted"
part-size = 100000

[memorization-by-time]
bins = 143

[[corpus]]
name = "many"
data = "corpus"
sequence-length = 1
batch-size = {BATCH_SIZE}
steps = {steps}
seed = 1234

[[model]]
name = "none"
corpus = "many"
folder = "none-{{checkpoint}}"
checkpoints = [{steps}]
assumed-rate = 0.01627
probes-per-second = 20000
"""
    with open(path, "w") as file:
        file.write(text)


def main():
    program, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(os.path.join(folder, "corpus.idx")):
        write_corpus(os.path.join(folder, "corpus"))
    for steps in [10_000, 50_000, 143_000]:
        path = os.path.join(folder, f"{steps}.toml")
        write_run_file(path, steps)
        begun = time.monotonic()
        child = os.spawnv(os.P_NOWAIT, program, [program, "plan", path])
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - begun
        assert status == 0, status
        size = os.path.getsize(os.path.join(folder, f"out-{steps}", "positions.parquet"))
        print(
            f"{steps * BATCH_SIZE:,} rows: {seconds:.1f} s, {usage.ru_utime + usage.ru_stime:.1f} s CPU, "
            f"{usage.ru_maxrss / 1024:,.0f} MiB, {size / 2**20:,.0f} MiB written",
            flush=True,
        )


if __name__ == "__main__":
    main()
