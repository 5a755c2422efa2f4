"""A census joined, binned and analysed, beside polars and pandas on the same files.

    cargo build --release -p pipeline
    python crates/pipeline/benches/census.py target/release/pipeline FOLDER [SEQUENCES ...]

FOLDER gets a made-up corpus (0.2 GB), and for each number of sequences positions and verdicts of the scripted judge, of which one in
61 is memorized; then the stages `join` and `analyse` are run. polars and pandas read the same files in the same run, grouped
by 1,000 steps. Two threads each. Without SEQUENCES: 10, 50 and 146.432 million. Needs numpy, polars and pandas.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

THREADS = "2"
BATCH, LENGTH, L = 1024, 64, 60

POLARS = """
import sys, time, polars as pl
folder = sys.argv[1]
def timed(name, query):
    begun = time.perf_counter()
    rows = query().height
    print(f"{name}\\t{time.perf_counter() - begun:.2f}\\t{rows}")
verdicts = pl.scan_parquet(f"{folder}/verdicts/**/*.parquet", hive_partitioning=True)
positions = pl.scan_parquet(f"{folder}/positions.parquet")
step = pl.col("training_index") // 1024 // 1000
hits = [pl.len(), pl.col("memorized").sum()]
def every(scan):
    numbers = [name for name, kind in scan.collect_schema().items() if kind.is_numeric() or kind == pl.Boolean]
    return scan.group_by(step.alias("bin")).agg(pl.len(), pl.col(numbers).mean()).collect(engine="streaming")
timed("polars, every column of both", lambda: pl.concat([every(verdicts).select("bin"), every(positions).select("bin")]))
timed("polars, two columns", lambda: verdicts.group_by(step.alias("bin")).agg(hits).collect(engine="streaming"))
timed("polars, joined and grouped", lambda: verdicts.select("training_index", "memorized")
      .join(positions.select("training_index", "step"), on="training_index")
      .group_by(pl.col("step") // 1000).agg(hits).collect(engine="streaming"))
"""

PANDAS = """
import sys, time, pandas as pd
begun = time.perf_counter()
frame = pd.read_parquet(f"{sys.argv[1]}/verdicts", columns=["training_index", "memorized"])
rows = frame.groupby(frame["training_index"] // 1024 // 1000)["memorized"].agg(["size", "sum"])
print(f"pandas, two columns\\t{time.perf_counter() - begun:.2f}\\t{len(rows)}")
"""


def corpus(folder):
    """50,000 documents of 2,000 tokens."""
    import numpy as np

    if (folder / "corpus.idx").exists():
        return
    n, size = 50_000, 2_000
    rng = np.random.default_rng(1)
    rng.integers(1, 2048, n * size, dtype=np.uint16).tofile(folder / "corpus.bin")
    with open(folder / "corpus.idx", "wb") as idx:
        idx.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, n, n + 1))
        idx.write(np.full(n, size, "<i4").tobytes())
        idx.write((np.arange(n, dtype="<i8") * size * 2).tobytes())
        idx.write(np.arange(n + 1, dtype="<i8").tobytes())


def run_file(folder, steps):
    path = folder / f"census-{steps}.toml"
    path.write_text(f"""
suite = "census"
out = "out-{steps}"
device = "cpu"
precision = "f32"

[probe]
k = 1
l = {L}
offset = 0
judge = "scripted"
part-size = 1048576

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
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    out, err = process.stdout.read(), None
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(process.stderr.read()[-2000:])
    return time.perf_counter() - begun, usage.ru_maxrss / 1024, out


def main():
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    sizes = [int(size) for size in sys.argv[3:]] or [10_000_000, 50_000_000, 146_432_000]
    folder.mkdir(parents=True, exist_ok=True)
    corpus(folder)
    for size in sizes:
        steps = round(size / BATCH)
        path, out = run_file(folder, steps), folder / f"out-{steps}"
        shutil.rmtree(out, ignore_errors=True)
        print(f"\n{steps * BATCH:,} sequences")
        seconds = {}
        for stage in ["plan", "probe", "join", "analyse"]:
            seconds[stage], peak, _ = timed([program, "run", path, "--only", stage])
            print(f"  {stage:<36}{seconds[stage]:8.2f} s  {peak:7,.0f} MiB", flush=True)
        ours = seconds["join"] + seconds["analyse"]
        print(f"  {'join and analyse':<36}{ours:8.2f} s  {1e9 * ours / (steps * BATCH):7.1f} ns a sequence")
        for script in [POLARS, PANDAS]:
            _, peak, found = timed([sys.executable, "-c", script, out])
            for line in found.splitlines():
                name, wall, _ = line.split("\t")
                print(f"  {name:<36}{float(wall):8.2f} s  {peak:7,.0f} MiB  ours / it {ours / float(wall):.2f}", flush=True)
        trend = json.loads((out / "run.json").read_text())["rows"].get("trend")
        print(f"  rows of trend: {trend}")
        shutil.rmtree(out)


main()
