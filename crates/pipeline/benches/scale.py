"""Runs of many checkpoints and of many parts: time and memory of each command.

    cargo build --release -p pipeline
    python crates/pipeline/benches/scale.py target/release/pipeline FOLDER

FOLDER gets a made-up corpus (4 MB). The scripted judge answers, so that what is measured is all but the models. Two threads. Needs numpy.
"""

import shutil
import sys
from pathlib import Path

from made_up import corpus, run_file, timed

RUNS = {
    "2,000 checkpoints of 2,000 probes": dict(steps=2_000, batch_size=1, part_size=65_536, checkpoints="'1..=2000'"),
    "57,600 parts of 8 probes, 24 checkpoints": dict(
        steps=2_400, batch_size=8, part_size=8, checkpoints="'100..=2400 by 100'"
    ),
}


def main():
    program, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    corpus(folder, 1_000, 2_000)
    for name, shape in RUNS.items():
        path, out = run_file(folder, k=32, l=32, length=64, **shape)
        shutil.rmtree(out, ignore_errors=True)
        print(f"\n{name}")
        calls = {"run": ["run", path], "run again": ["run", path], "analyse": ["analyse", out], "status": ["status", out]}
        for what, call in calls.items():
            wall, cpu, peak, _ = timed([program, *call])
            print(f"  {what:<12}{wall:8.2f} s wall, {cpu:8.2f} s CPU, {peak:7,.0f} MiB", flush=True)
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
