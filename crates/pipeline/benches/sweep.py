"""A whole run with the scripted judge, plan to join, beside polars on the same columns.

    cargo build --release -p pipeline
    python crates/pipeline/benches/sweep.py target/release/pipeline FOLDER [SEQUENCES ...]

FOLDER gets a made-up corpus (0.2 GB). For each number of sequences: one run of all stages, with the wall time of each and its peak
memory; then polars, which holds the columns of positions, verdicts and memorization in memory, writes them and
reads them back. Two threads each. Without SEQUENCES: 2.5, 5 and 10 million. Needs numpy and polars.
"""

import json
import shutil
import sys
from pathlib import Path

from made_up import BATCH_SIZE, corpus, run_file, timed

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


def main():
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    sizes = [int(size) for size in sys.argv[3:]] or [2_500_000, 5_000_000, 10_000_000]
    folder.mkdir(parents=True, exist_ok=True)
    corpus(folder, 50_000, 2_000)
    for size in sizes:
        steps = round(size / BATCH_SIZE)
        path, out = run_file(folder, steps, k=32, l=32, length=64, part_size=65_536)
        copies = folder / "copies"
        for old in [out, copies]:
            shutil.rmtree(old, ignore_errors=True)
        copies.mkdir()
        print(f"\n{steps * BATCH_SIZE:,} sequences")
        whole, _, peak, _ = timed([program, "run", path])
        seconds = json.loads((out / "run.json").read_text())["seconds"]
        for stage in ["plan", "probe", "join"]:
            print(f"  {stage:<28}{seconds[stage]:8.2f} s")
        ours = sum(seconds[stage] for stage in ["plan", "probe", "join"])
        print(f"  {'the three':<28}{ours:8.2f} s  {1e9 * ours / (steps * BATCH_SIZE):7.0f} ns a sequence")
        print(f"  {'whole, with the analysis':<28}{whole:8.2f} s  {peak:7,.0f} MiB", flush=True)
        _, _, peak, found = timed([sys.executable, "-c", POLARS, out, copies])
        write, read, *rows = found.split()
        assert {int(n) for n in rows} == {steps * BATCH_SIZE}, rows
        theirs = float(write) + float(read)
        print(f"  polars: written {float(write):.2f} s, read back {float(read):.2f} s, {peak:,.0f} MiB; the three / it {ours / theirs:.2f}")
        for old in [out, copies]:
            shutil.rmtree(old)


if __name__ == "__main__":
    main()
