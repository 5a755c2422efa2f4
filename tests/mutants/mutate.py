"""Changes what the program reads, and says where it breaks.

    python mutate.py PIPELINE CHECKOUT KIND N SEED

KIND: corpus, maps, weights, pickle, own, analyse, verdicts, lists, run, sweep, hub, or `all`.
Needs the packages of `tests/requirements.txt`.

For each mutant:
- There is no panic, no signal, no hang of 20 s, and no more than 2 GB are taken.
- An error is a single one and names the file.
- `run` does what `check` accepts, and refuses what it refuses, as far as it reads it.
- A changed table of ours is refused, or changes no number.
- No file outside the run's folder changes.

The last line is the tally. The exit code is 1 when something broke. The same SEED makes each
mutant again. The variable MUTANTS_KEEP names a folder for the files of those that broke something.
"""

import collections
import os
import random
import shutil
import sys
import tempfile
import time

from command import call, state
from kinds import KINDS


def play(kind, base, tally):
    """Makes one mutant and calls the program on it; yields what is wrong."""
    shutil.rmtree(kind.folder)
    shutil.copytree(base, kind.folder, symlinks=True)
    what = kind.mutate()
    changed = kind.folder + "-changed"
    shutil.rmtree(changed, ignore_errors=True)
    # A pipe cannot be copied.
    pipes = lambda folder, names: [n for n in names if not os.path.islink(p := os.path.join(folder, n))
                                   and not os.path.isfile(p) and not os.path.isdir(p)]
    shutil.copytree(kind.folder, changed, symlinks=True, ignore=pipes)
    before = state(kind.folder, {"out"})
    codes = {}
    for arguments in kind.commands:
        if kind.anew and codes:
            # Each command meets the changed table anew.
            shutil.rmtree(kind.folder)
            shutil.copytree(changed, kind.folder, symlinks=True)
        ended = call(kind.program, arguments, kind.folder)
        tally["commands"] += 1
        tally[{0: "accepted", 1: "refused", 2: "refused"}.get(ended.code, "broken ends")] += 1
        codes[arguments[0]] = None if ended.hangs else ended.code == 0
        if arguments[0] == "check" and "yet to fetch" in ended.stdout:
            # What is yet to be fetched is no fault of the run file, and `check` says how to fetch it.
            codes["check"] = None
        for fault in (*ended.faults(kind.names), *kind.judge(ended)):
            yield f"{fault} [{what}]", ended
        if state(kind.folder, {"out"}) != before:
            yield f"a foreign file has changed [{what}]", ended
        if kind.compares and arguments[0] == "run" and None not in (codes["check"], codes["run"]):
            # `check` reads a corpus whole, a run no more of it than its probes.
            more = codes["run"] and kind.reads_more
            if codes["check"] != codes["run"] and not more:
                said = "accepts" if codes["check"] else "refuses"
                yield f"`check` {said}, `run` does not [{what}]", ended


def tried(program, checkout, name, n, seed):
    """Tries a kind; how many mutants broke something."""
    began, tally, n_broken = time.monotonic(), collections.Counter(), 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        draw = random.Random(f"{name} {seed}")
        kind = KINDS[name](program, checkout, os.path.join(folder, "mutant"), draw)
        os.mkdir(kind.folder)
        kind.prepare()
        base = os.path.join(folder, "base")
        shutil.copytree(kind.folder, base, symlinks=True)
        for i in range(n):
            draw.seed(f"{name} {seed} {i}")
            broken = list(play(kind, base, tally))
            n_broken += bool(broken)
            for fault, ended in broken:
                tally["broken: " + fault.split(" [")[0].split(" has ")[0]] += 1
                print(f"{name} {i}: {fault}: {ended}", flush=True)
            keep = os.environ.get("MUTANTS_KEEP")
            if broken and keep:
                shutil.copytree(kind.folder + "-changed", os.path.join(keep, f"{name}-{seed}-{i}"), symlinks=True)
    seconds = time.monotonic() - began
    print(f"{name}, seed {seed}: {n} mutants, {n_broken} broken, {seconds:.0f} s, {dict(sorted(tally.items()))}", flush=True)
    return n_broken


def main():
    if len(sys.argv) != 6 or sys.argv[3] not in (*KINDS, "all"):
        sys.exit(__doc__)
    program, checkout, kind, n, seed = sys.argv[1:]
    names = KINDS if kind == "all" else [kind]
    program, checkout = os.path.abspath(program), os.path.abspath(checkout)
    broken = sum(tried(program, checkout, name, int(n), int(seed)) for name in names)
    sys.exit(1 if broken else 0)


main()
