"""`pipeline plan` on a census of 10, 51 and 146 million sequences: time, peak memory, bytes written.

    python crates/pipeline/benches/plan_census.py target/release/pipeline FOLDER

The corpus is a million documents of 60 tokens, the sequence length 1, so that as many sequences as Pythia's fit on a small disk;
their number, not their length, is what a plan costs.
"""

import sys
from pathlib import Path

from made_up import BATCH_SIZE, corpus, run_file, timed


def main():
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    corpus(folder, 1_000_000, 60)
    for steps in [10_000, 50_000, 143_000]:
        path, out = run_file(folder, steps, k=1, l=1, length=1, part_size=100_000)
        wall, cpu, peak, _ = timed([program, "plan", path])
        size = (out / "positions.parquet").stat().st_size
        print(f"{steps * BATCH_SIZE:,} rows: {wall:.1f} s, {cpu:.1f} s CPU, {peak:,.0f} MiB, {size / 2**20:,.0f} MiB written", flush=True)


if __name__ == "__main__":
    main()
