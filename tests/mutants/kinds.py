"""What the program wrote itself, and the list of all kinds."""

import json
import os
import shutil
import signal
import subprocess
import time

import pyarrow.parquet

import changes
from command import tables
from inputs import Corpus, Hub, Kind, Lists, Maps, Pickle, Verdicts, Weights, read, run_file, write, write_corpus


class Own(Kind):
    """The tables of a finished run: a change is refused, or changes no number."""

    # A fault that only a whole dataset shows names its folder.
    names = (".parquet", "the table in `out/")
    compares = False
    anew = True

    def prepare(self):
        write_corpus(self.folder)
        layout = 'layout = "dataset"'
        write(self.folder, "run.toml", run_file(checkpoints="[5, 10]", head=layout))
        self.start("run", "run.toml")
        self.whole = tables(os.path.join(self.folder, "out"))

    def mutate(self):
        kinds = ("positions", "exposures_by_step", "verdicts/", "memorization/", "trend")
        kind = self.random.choice(kinds)
        self.table = self.random.choice([path for path in sorted(self.whole) if path.startswith(kind)])
        name = f"out/{self.table}"
        # `analyse` takes a published `memorization` that means something.
        self.is_published = False
        if self.random.random() < 0.5:
            self.is_published = kind == "memorization/"
            path = os.path.join(self.folder, name)
            own = pyarrow.parquet.ParquetFile(path)
            changes.write_table(self.random, changes.change_table(self.random, own.read()), path)
        else:
            self.change(name, self.random.choice([changes.flip, changes.flip_table]))
        self.changed = tables(os.path.join(self.folder, "out"))[self.table]
        join = ("run", "run.toml", "--only", "join")
        self.commands = (join, ("analyse", "out"), ("run", "run.toml"))
        return name

    def judge(self, ended):
        now = tables(os.path.join(self.folder, "out"))
        if ended.code == 0 and not (self.is_published and ended.call[0] == "analyse"):
            for path in sorted(now.keys() | self.whole.keys()):
                was_changed = path == self.table and now.get(path) == self.changed
                if now.get(path) != self.whole.get(path) and not was_changed:
                    yield f"{path} has other numbers"


class Analyse(Kind):
    """A published `memorization.parquet`."""

    names = ("memorization.parquet", "`p`")
    compares = False
    commands = (("analyse", "p", "--out", "out"),)

    def prepare(self):
        write_corpus(self.folder)
        write(self.folder, "run.toml", run_file(checkpoints="[5, 10]"))
        self.start("run", "run.toml")
        source = os.path.join(self.folder, "out/memorization.parquet")
        self.source = pyarrow.parquet.ParquetFile(source).read()
        footer = pyarrow.parquet.read_metadata(source).metadata
        self.footer = {key: value for key, value in footer.items() if key not in (b"ARROW:schema", b"crc32")}
        shutil.rmtree(os.path.join(self.folder, "out"))

    def mutate(self):
        path = os.path.join(self.folder, "p/memorization.parquet")
        os.makedirs(os.path.dirname(path))
        table, footer = self.source, dict(self.footer)
        share = self.random.random()
        if share < 0.5:
            key = self.random.choice(sorted(footer))
            try:
                value = changes.change_json(self.random, {"x": json.loads(footer[key])}).get("x")
                footer[key] = json.dumps(value).encode()
            except ValueError:
                footer[key] = changes.flip(self.random, footer[key])
        elif share < 0.8:
            table = changes.change_table(self.random, table)
        changes.write_table(self.random, table.replace_schema_metadata(footer), path)
        if share >= 0.8:
            self.change("p/memorization.parquet", changes.flip_table)
        return f"memorization, {share:.2f}"


class RunFile(Kind):
    """Run files, as TOML and as `run.json`."""

    names = ("run.", "c.", "corpus", "model")

    def prepare(self):
        write_corpus(self.folder)
        more = "exposures = true\n[corpus.contrast]\nmodels = ['m']\ncheckpoints = [10]\nevery = 2\nrows = 2\nseed = 3\n"
        head = "[trend]\nexposures = [1, 5]\nmargins = [1.2]\n"
        self.text = run_file(checkpoints="[5, 10]", corpus=more, head=head)
        write(self.folder, "run.toml", self.text)
        self.start("run", "run.toml")
        self.record = json.loads(read(self.folder, "out/run.json"))
        shutil.rmtree(os.path.join(self.folder, "out"))

    def mutate(self):
        os.remove(os.path.join(self.folder, "run.toml"))
        share = self.random.random()
        if share < 0.5:
            name, content = "run.toml", changes.change_toml(self.random, self.text)
        else:
            record = dict(self.record)
            if share < 0.8:
                keys = changes.change_json(self.random, record["run_file"]["keys"])
                record["run_file"] = dict(record["run_file"], keys=keys)
            else:
                record = changes.change_json(self.random, record)
            name, content = "run.json", json.dumps(record)
        write(self.folder, name, content)
        self.commands = (("check", name, "--out", "out"), ("run", name, "--out", "out"), ("plan", name, "--out", "out"))
        return name


class Sweep(Kind):
    """Records of workers and claims of a run that was killed; `run` goes on, whatever they hold."""

    names = (".sweep", "out")
    compares = False
    commands = (("status", "out"), ("run", "run.toml"))

    def prepare(self):
        write_corpus(self.folder)
        write(self.folder, "run.toml", run_file(checkpoints="[5, 10]", part=1))
        self.start("run", "run.toml")
        out = os.path.join(self.folder, "out")
        self.whole = tables(out)
        for _ in range(50):
            shutil.rmtree(out)
            worker = subprocess.Popen([self.program, "run", "run.toml"], cwd=self.folder, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)
            while worker.poll() is None and len(self.files("claims")) == 0:
                time.sleep(0.0005)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            if self.files("claims") and self.files("workers"):
                self.shorten()
                return
        raise SystemExit("no run could be killed amid its parts")

    def shorten(self):
        """Lets the records be void after 3 s, so that waiting for them is no hang."""
        for name in self.files("workers"):
            text = read(self.folder, name)
            if text.strip(b" \n\0"):
                record = json.loads(text.strip(b" \n\0"))
                record["expires_after"] = 3
                write(self.folder, name, json.dumps(record).encode().ljust(len(text)))

    def files(self, inside):
        """The files of `.sweep/…`, by their paths from the mutant's folder."""
        found = []
        for place, _, files in os.walk(os.path.join(self.folder, "out/.sweep", inside)):
            found += [os.path.relpath(os.path.join(place, name), self.folder) for name in files]
        return sorted(found)

    def mutate(self):
        if self.random.random() < 0.7:
            name = self.random.choice(self.files("workers"))
            # Padded with blanks, for writers that only overwrite.
            return self.change(name, lambda random, text: changes.change_json_text(random, text.strip(b" \n\0")))
        name = self.random.choice(self.files("claims"))
        content = self.random.choice([b"", b"x", b"../../run.toml", b"\0" * 9, b"\xff", b"a" * 5000, b"elsewhere-1"])
        write(self.folder, name, content)
        return name

    def judge(self, ended):
        if ended.call[0] == "run" and ended.code == 0 and tables(os.path.join(self.folder, "out")) != self.whole:
            yield "other tables"
        if ended.call[0] == "run" and ended.code != 0:
            yield "a record that keeps the run from going on"


KINDS = {"corpus": Corpus, "maps": Maps, "weights": Weights, "pickle": Pickle, "own": Own, "analyse": Analyse,
         "verdicts": Verdicts, "lists": Lists, "run": RunFile, "sweep": Sweep, "hub": Hub}
