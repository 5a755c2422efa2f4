"""A whole run with the scripted judge, plan to join, beside polars on the same columns.

    cargo build --release -p pipeline
    python crates/pipeline/benches/sweep.py target/release/pipeline FOLDER [SEQUENCES ...]

FOLDER gets a made-up corpus (0.2 GB). For each number of sequences: the stages one by one, each a process of its own with its wall
time and peak memory; then polars, which holds the columns of positions, verdicts and memorization in memory, writes them and
reads them back. Two threads each. Without SEQUENCES: 2.5, 5 and 10 million. Needs numpy and polars.
"""

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

THREADS = "2"
BATCH, LENGTH = 1024, 64

POLARS = """
import sys, time, polars as pl
folder, copies = sys.argv[1:]
sources = ["positions.parquet", "verdicts/**/*.parquet", "memorization.parquet"]
frames = [pl.read_parquet(f"{folder}/{source}") for source in sources]
begun = time.perf_counter()
for number, frame in enumerate(frames):
    frame.write_parquet(f"{copies}/{number}.parquet", compression="zstd")
written = time.perf_counter()
rows = [pl.read_parquet(f"{copies}/{number}.parquet").height for number in range(len(frames))]
print(written - begun, time.perf_counter() - written, *rows)
"""


def corpus(folder):
    """50,000 documents of 2,000 tokens."""
    import numpy as np

    if (folder / "corpus.idx").exists():
        return
    n, size = 50_000, 2_000
    np.random.default_rng(1).integers(1, 2048, n * size, dtype=np.uint16).tofile(folder / "corpus.bin")
    with open(folder / "corpus.idx", "wb") as idx:
        idx.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, n, n + 1))
        idx.write(np.full(n, size, "<i4").tobytes())
        idx.write((np.arange(n, dtype="<i8") * size * 2).tobytes())
        idx.write(np.arange(n + 1, dtype="<i8").tobytes())


def run_file(folder, steps):
    path = folder / f"sweep-{steps}.toml"
    path.write_text(f"""
suite = "sweep"
out = "out-{steps}"
device = "cpu"
precision = "f32"

[probe]
k = 32
l = 32
offset = 0
judge = "scripted"
part-size = 65536

[[corpus]]
name = "corpus"
data = "corpus"
sequence-length = {LENGTH}
batch-size = {BATCH}
steps = {steps}
seed = 1234

[[model]]
name = "scripted"
corpus = "corpus"
folder = "nowhere/step{{checkpoint}}"
checkpoints = [{steps}]
""")
    return path


def timed(arguments):
    """Wall time in seconds, peak memory in MiB and stdout of a process."""
    environment = {**os.environ, "POLARS_MAX_THREADS": THREADS, "RAYON_NUM_THREADS": THREADS}
    begun = time.perf_counter()
    with open(os.devnull, "w") as nothing:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=nothing, env=environment, text=True)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {arguments}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024, out


def main():
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    sizes = [int(size) for size in sys.argv[3:]] or [2_500_000, 5_000_000, 10_000_000]
    folder.mkdir(parents=True, exist_ok=True)
    corpus(folder)
    for size in sizes:
        steps = round(size / BATCH)
        path, out, copies = run_file(folder, steps), folder / f"out-{steps}", folder / "copies"
        for old in [out, copies]:
            shutil.rmtree(old, ignore_errors=True)
        copies.mkdir()
        print(f"\n{steps * BATCH:,} sequences")
        ours, most = 0, 0
        for stage in ["plan", "probe", "join"]:
            wall, peak, _ = timed([program, "run", path, "--only", stage])
            ours, most = ours + wall, max(most, peak)
            print(f"  {stage:<28}{wall:8.2f} s  {peak:7,.0f} MiB", flush=True)
        print(f"  {'all':<28}{ours:8.2f} s  {most:7,.0f} MiB  {1e9 * ours / (steps * BATCH):7.0f} ns a sequence")
        _, peak, found = timed([sys.executable, "-c", POLARS, out, copies])
        write, read, *rows = found.split()
        assert {int(n) for n in rows} == {steps * BATCH}, rows
        theirs = float(write) + float(read)
        print(f"  polars: written {float(write):.2f} s, read back {float(read):.2f} s, {peak:,.0f} MiB; ours / it {ours / theirs:.2f}")
        for old in [out, copies]:
            shutil.rmtree(old)


main()
