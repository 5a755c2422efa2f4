"""The Pile's two shuffles: ours beside NumPy's, on the same arrays, in the same run.

    pip install numpy
    cargo build --release -p training-order --example pythia_order
    python crates/training-order/benches/shuffles.py target/release/examples/pythia_order [ROUNDS]

Ours uses two threads, NumPy one: it has no more.
"""

import re
import subprocess
import sys
import time

import numpy as np

N_DOCUMENTS, N_SAMPLES = 210_607_728, 162_165_686


def numpy_seconds(seed):
    doc_idx = np.arange(N_DOCUMENTS, dtype=np.int32)
    shuffle_idx = np.arange(N_SAMPLES, dtype=np.uint32)
    random = np.random.RandomState(seed)
    begun = time.perf_counter()
    random.shuffle(doc_idx)
    random.shuffle(shuffle_idx)
    return time.perf_counter() - begun, doc_idx[:4].tolist(), shuffle_idx[:4].tolist()


def our_seconds(program, seed):
    ran = subprocess.run([program, "--seed", str(seed)], capture_output=True, text=True, check=True)
    firsts = [[int(n) for n in numbers.split(",")] for numbers in re.findall(r"first \[(.*)\]", ran.stdout)]
    return float(re.search(r"both shuffles: ([\d.]+) s", ran.stderr)[1]), *firsts


rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
ratios = []
for seed in [1234, 1, 2][:rounds]:
    theirs, *expected = numpy_seconds(seed)
    ours, *found = our_seconds(sys.argv[1], seed)
    assert found == expected, (found, expected)
    ratios.append(theirs / ours)
    print(f"seed {seed}: NumPy {np.__version__} {theirs:.1f} s, ours {ours:.2f} s, {theirs / ours:.1f} times")
print(f"median: {sorted(ratios)[len(ratios) // 2]:.1f} times")
