"""A census joined, binned and analysed, beside polars and pandas on the same files.

    cargo build --release -p pipeline
    python crates/pipeline/benches/census.py target/release/pipeline FOLDER [SEQUENCES ...]

FOLDER gets a made-up corpus (0.2 GB), and for each number of sequences the whole run of the scripted judge, to whom one in 61 is
memorized. polars and pandas then scan the files of the same run and group by 1,000 steps: every column of what the join reads (positions
and verdicts) or of what it writes and the analysis reads, too (memorization); only the two columns that are needed; and the join. Two
threads each. Without SEQUENCES: 10, 50 and 146.432 million. Needs numpy, polars and pandas.
"""

import json
import shutil
import sys
from pathlib import Path

from made_up import BATCH_SIZE, corpus, run_file, timed

POLARS = """
import os, sys, time, polars as pl
folder = sys.argv[1]
def timed(name, query):
    begun = time.perf_counter()
    rows = query().height
    print(f"{name}\\t{time.perf_counter() - begun:.2f}\\t{rows}")
verdicts = pl.scan_parquet(f"{folder}/verdicts/**/*.parquet", hive_partitioning=True)
positions = pl.scan_parquet(f"{folder}/positions.parquet")
whole = f"{folder}/memorization.parquet"
memorization = pl.scan_parquet(whole if os.path.exists(whole) else f"{folder}/memorization/**/*.parquet", hive_partitioning=True)
step = pl.col("training_index") // 1024 // 1000
hits = [pl.len(), pl.col("memorized").sum()]
def every(scan):
    numbers = [name for name, kind in scan.collect_schema().items() if kind.is_numeric() or kind == pl.Boolean]
    return scan.group_by(step.alias("bin")).agg(pl.len(), pl.col(numbers).mean()).collect(engine="streaming")
read = [verdicts, positions]
for name, tables in [("polars, positions and verdicts", read), ("polars, memorization, too", [*read, memorization])]:
    timed(name, lambda: pl.concat([every(table).select("bin") for table in tables]))
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


def main():
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    sizes = [int(size) for size in sys.argv[3:]] or [10_000_000, 50_000_000, 146_432_000]
    folder.mkdir(parents=True, exist_ok=True)
    corpus(folder, 50_000, 2_000)
    for size in sizes:
        steps = round(size / BATCH_SIZE)
        path, out = run_file(folder, steps, k=1, l=60, length=64, part_size=1_048_576)
        shutil.rmtree(out, ignore_errors=True)
        print(f"\n{steps * BATCH_SIZE:,} sequences")
        whole, _, peak, _ = timed([program, "run", path])
        seconds = json.loads((out / "run.json").read_text())["seconds"]
        for stage, wall in sorted(seconds.items()):
            print(f"  {stage:<36}{wall:8.2f} s")
        ours = seconds["join"] + seconds["analyse"]
        print(f"  {'join and analyse':<36}{ours:8.2f} s  {1e9 * ours / (steps * BATCH_SIZE):7.1f} ns a sequence")
        print(f"  {'whole':<36}{whole:8.2f} s  {peak:7,.0f} MiB", flush=True)
        for script in [POLARS, PANDAS]:
            _, _, peak, found = timed([sys.executable, "-c", script, out])
            for line in found.splitlines():
                name, wall, _ = line.split("\t")
                print(f"  {name:<36}{float(wall):8.2f} s  {peak:7,.0f} MiB  ours / it {ours / float(wall):.2f}", flush=True)
        trend = json.loads((out / "run.json").read_text())["rows"].get("trend")
        print(f"  rows of trend: {trend}")
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
