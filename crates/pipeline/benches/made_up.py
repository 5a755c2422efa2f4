"""What the benches have in common: a made-up corpus, a run file on it, and processes that are timed."""

import multiprocessing
import os
import struct
import subprocess
import sys
import time

THREADS = "2"
BATCH_SIZE = 1024


def corpus(folder, n_documents, size):
    """Documents of `size` random tokens each, at FOLDER/corpus, where they are not there yet."""
    if not (folder / "corpus.idx").exists():
        # In a process of its own: the kernel counts a parent's memory into its children's peak.
        writer = multiprocessing.get_context("spawn").Process(target=write_corpus, args=(folder, n_documents, size))
        writer.start()
        writer.join()


def write_corpus(folder, n_documents, size):
    import numpy as np

    np.random.default_rng(1).integers(1, 2048, n_documents * size, dtype=np.uint16).tofile(folder / "corpus.bin")
    with open(folder / "corpus.idx", "wb") as idx:
        idx.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, n_documents, n_documents + 1))
        idx.write(np.full(n_documents, size, "<i4").tobytes())
        idx.write((np.arange(n_documents, dtype="<i8") * size * 2).tobytes())
        idx.write(np.arange(n_documents + 1, dtype="<i8").tobytes())


def run_file(folder, steps, k, l, length, part_size, batch_size=BATCH_SIZE, checkpoints=None):
    """A census of the corpus by the scripted judge: the run file, and its output folder. Without `checkpoints`: at the last one."""
    path = folder / f"run-{steps}.toml"
    path.write_text(f"""
suite = "bench"
out = "out-{steps}"
device = "cpu"
precision = "f32"

[probe]
k = {k}
l = {l}
offset = 0
judge = "scripted"
part-size = {part_size}

[[corpus]]
name = "corpus"
data = "corpus"
sequence-length = {length}
batch-size = {batch_size}
steps = {steps}
seed = 1234

[[model]]
name = "scripted"
corpus = "corpus"
folder = "nowhere/step{{checkpoint}}"
checkpoints = {checkpoints or [steps]}
""")
    return path, folder / f"out-{steps}"


def timed(arguments):
    """Wall and CPU time in seconds, peak memory in MiB and stdout of a process."""
    environment = {**os.environ, "POLARS_MAX_THREADS": THREADS, "RAYON_NUM_THREADS": THREADS}
    begun = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {arguments}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out
