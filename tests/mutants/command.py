"""Calls the program under limits, and says what is wrong with how it ended."""

import hashlib
import os
import resource
import signal
import subprocess
import time

SECONDS = 20
MEGABYTES = 2048


class Ended:
    """How a call ended."""

    def __init__(self, call, code, hangs, megabytes, stdout, stderr):
        self.call, self.code, self.hangs = call, code, hangs
        self.megabytes, self.stdout, self.stderr = megabytes, stdout, stderr

    def faults(self, names):
        """What may never be; `names`: an error holds one of them."""
        errors = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        if self.hangs:
            yield f"hangs for {SECONDS} s"
        elif self.code < 0:
            yield f"ends by signal {-self.code}"
        elif self.code not in (0, 1, 2):
            yield f"exit code {self.code}"
        elif self.code == 0 and errors:
            yield "exit code 0 beside an error"
        elif self.code != 0 and len(errors) != 1:
            yield f"{len(errors)} errors"
        elif self.code != 0 and not any(name in self.stdout + self.stderr for name in names):
            yield "an error that names no file"
        for text in ("this program has a mistake", "internal error", "panicked", "memory allocation of"):
            if text in self.stderr:
                yield text
        if "it is damaged:" in self.stderr and ".rs:" in self.stderr:
            yield "a panic that is called damage"
        if self.megabytes > MEGABYTES:
            yield f"more than {MEGABYTES} MB"

    def __str__(self):
        lines = [line for line in self.stderr.splitlines() if not line.startswith(("plan:", "probe:", "join:"))]
        return f"`{' '.join(self.call)}` code {self.code}, {self.megabytes} MB: {' | '.join(lines)[:400]}"


def call(program, arguments, folder):
    """Runs the program in `folder`."""

    def limit():
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 30, 4 << 30))

    environment = dict(os.environ, HF_HUB_CACHE=os.path.join(folder, "hub"), RUST_BACKTRACE="0")
    said = os.path.join(os.path.dirname(folder), "said")
    with open(said + ".out", "w+b") as out, open(said + ".err", "w+b") as err:
        process = subprocess.Popen(
            [program, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=out, stderr=err, preexec_fn=limit,
        )
        end, hangs, pid = time.monotonic() + SECONDS, False, 0
        while not pid:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not pid and time.monotonic() > end:
                hangs = True
                os.killpg(process.pid, signal.SIGKILL)
                pid, status, usage = os.wait4(process.pid, 0)
            time.sleep(0 if pid else 0.002)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(1 << 20).decode("utf8", "replace"))
    return Ended(arguments, process.returncode, hangs, usage.ru_maxrss // 1024, *texts)


def state(folder, skips=()):
    """The hash of each file below `folder`, by its path there; links by what they lead to."""
    found = {}
    for place, folders, files in os.walk(folder):
        inside = os.path.relpath(place, folder)
        if inside in skips:
            folders.clear()
            continue
        for name in files + [name for name in folders if os.path.islink(os.path.join(place, name))]:
            path = os.path.join(place, name)
            key = os.path.normpath(os.path.join(inside, name))
            if os.path.islink(path):
                found[key] = "-> " + os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[key] = hashlib.sha256(file.read()).hexdigest()
    return found


def tables(folder):
    """The hash of each table below `folder` that is not hidden."""
    hidden = lambda path: any(part.startswith(".") for part in path.split(os.sep))
    return {path: hash for path, hash in state(folder).items() if path.endswith(".parquet") and not hidden(path)}
