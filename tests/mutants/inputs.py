"""Inputs: for each reader a folder that is right, and one change of it."""

import os
import shutil
import struct

import numpy
import pyarrow
import pyarrow.parquet

import changes
from command import call


def run_file(judge="scripted", steps=10, part=20, checkpoints="[10]", data="c", sequence=30, batch=4, k=8, l=8,
             source="folder = 's{checkpoint}'", corpus="", head=""):
    """A run file on the small corpus."""
    return f'''suite = "mutants"
out = "out"
device = "cpu"
precision = "f32"
{head}
[probe]
k = {k}
l = {l}
offset = 0
judge = "{judge}"
part-size = {part}
[memorization-by-time]
bins = 5
[[corpus]]
name = "standard"
data = '{data}'
sequence-length = {sequence}
batch-size = {batch}
steps = {steps}
seed = 1234
{corpus}
[[model]]
name = "m"
corpus = "standard"
{source}
checkpoints = {checkpoints}
'''


def write(folder, name, content):
    """Writes a file, and the folders it needs."""
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def read(folder, name):
    """A file's bytes."""
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def write_corpus(folder, shards=0):
    """Sixty documents of forty tokens, as MMapIndexedDataset; in shards where that is asked for."""
    documents = [[(7 * i + j) % 120 for j in range(40)] for i in range(60)]
    data = b"".join(struct.pack("<40H", *document) for document in documents)
    n = len(documents)
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, n, n + 1) + struct.pack(f"<{n}i", *[40] * n)
    index += struct.pack(f"<{n}q", *range(0, 80 * n, 80)) + struct.pack(f"<{n + 1}q", *range(n + 1))
    write(folder, "c.idx", index)
    if not shards:
        write(folder, "c.bin", data)
    for i in range(shards):
        piece = -(-len(data) // shards)
        write(folder, f"c-{i:05}-of-{shards:05}.bin", data[i * piece:(i + 1) * piece])


class Kind:
    """A reader. `compares`: what `check` says, `run` must do. `reads_more`: `check` reads what `run` does not.
    `anew`: each command meets the changed file as it was."""

    commands = (("check", "run.toml"), ("run", "run.toml"))
    compares = True
    reads_more = False
    anew = False
    names = ("c.", "c-")

    def __init__(self, program, checkout, folder, random):
        self.program, self.checkout, self.folder, self.random = program, checkout, folder, random

    def start(self, *arguments):
        """Calls the program where it must succeed."""
        ended = call(self.program, arguments, self.folder)
        assert ended.code == 0, str(ended)
        return ended

    def change(self, name, how):
        """Changes a file; what was changed, for a message."""
        write(self.folder, name, how(self.random, read(self.folder, name)))
        return name

    def judge(self, ended):
        """What else is wrong after a call."""
        return ()


class Corpus(Kind):
    """`.idx`, `.bin` and shards."""

    reads_more = True

    def prepare(self):
        write_corpus(self.folder)
        write(self.folder, "run.toml", run_file())

    def mutate(self):
        if self.random.random() < 0.4:
            os.remove(os.path.join(self.folder, "c.bin"))
            write_corpus(self.folder, 3)
            shard = f"c-0000{self.random.randrange(3)}-of-00003.bin"
            match self.random.randrange(4):
                case 0: os.remove(os.path.join(self.folder, shard))
                case 1: os.rename(os.path.join(self.folder, shard), os.path.join(self.folder, "c-1-of-3.bin"))
                case 2: write(self.folder, "c.bin", bytes(4800))
                case _: return self.change(shard, changes.flip)
            return "the shards"
        corpus = self.random.choice(["", "exposures = true\n", "split = '969, 30, 1'\n", "order = 'preshuffled'\n"])
        write(self.folder, "run.toml", run_file(corpus=corpus))
        name = self.random.choice(["c.idx", "c.idx", "c.idx", "c.bin"])
        return self.change(name, lambda random, data: changes.flip(random, data, 110 if name == "c.idx" else None))


class Maps(Kind):
    """GPT-NeoX's `.npy` maps."""

    reads_more = True
    names = ("m_", "c.")

    def prepare(self):
        write_corpus(self.folder)
        write(self.folder, "run.toml", run_file(corpus="order = 'maps'\nmaps = 'm'\n"))
        draw = numpy.random.RandomState(3)
        documents = draw.permutation(60).astype(numpy.int32)
        n = (60 * 40 - 1) // 30
        # Sample s begins at token 30 s; a document ends with its last token, not after it.
        starts = [((30 * s) // 40, (30 * s) % 40) for s in range(n + 1)]
        maps = {"doc": documents, "sample": numpy.array(starts, numpy.int32), "shuffle": draw.permutation(n).astype(numpy.uint32)}
        for name, array in maps.items():
            numpy.save(os.path.join(self.folder, f"m_{name}_idx.npy"), array)
        self.start("run", "run.toml")
        shutil.rmtree(os.path.join(self.folder, "out"))

    def mutate(self):
        return self.change(f"m_{self.random.choice(['doc', 'sample', 'shuffle'])}_idx.npy", changes.change_npy)


class Weights(Kind):
    """safetensors, `config.json` and lists of shards."""

    names = ("s10",)
    commands = (("check", "run.toml"), ("audit", "run.toml"), ("run", "run.toml"))
    models = ("parallel_published_f16", "rotary_all_sharded", "tied_no_bias", "sequential_bf16")
    ending = ".safetensors"
    change_weights = staticmethod(changes.change_safetensors)

    def prepare(self):
        write_corpus(self.folder)
        write(self.folder, "run.toml", run_file("gpt-neox"))

    def mutate(self):
        model = self.random.choice(self.models)
        source = os.path.join(self.checkout, "crates/gpt-neox/tests/reference", model)
        shutil.copytree(source, os.path.join(self.folder, "s10"), ignore=shutil.ignore_patterns("reference.safetensors"))
        files = sorted(os.listdir(os.path.join(self.folder, "s10")))
        weights = [name for name in files if name.endswith(self.ending)]
        texts = [name for name in files if name.endswith(".json")]
        if self.random.random() < 0.3:
            name, how = self.random.choice(texts), changes.change_json_text
        else:
            name, how = self.random.choice(weights), self.change_weights
        return f"{model}: {self.change(f's10/{name}', how)}"

    def judge(self, ended):
        if ended.call[0] == "run" and ended.code == 0:
            table = pyarrow.parquet.read_table(os.path.join(self.folder, "out/memorization.parquet"), columns=["margin"])
            margins = table["margin"].drop_null().to_numpy()
            if not numpy.isfinite(margins).all():
                yield "a margin that is not finite"


class Pickle(Weights):
    """Files of `torch.save`."""

    models = ("rotary_of_80_bin_f16", "rotary_half_bin_sharded", "old_bin_bf16")
    ending = ".bin"
    change_weights = staticmethod(changes.change_pickle)
    commands = (("check", "run.toml"), ("run", "run.toml"))


class Verdicts(Kind):
    """Verdicts of another program."""

    names = ("v.parquet",)

    def prepare(self):
        write_corpus(self.folder)
        write(self.folder, "run.toml", run_file(checkpoints="[5, 10]"))
        self.start("run", "run.toml")
        columns = ["training_index", "checkpoint", "n_prefix_matched", "memorized", "margin", "near_tie", "corpus"]
        self.table = pyarrow.parquet.read_table(os.path.join(self.folder, "out/memorization.parquet"), columns=columns)
        shutil.rmtree(os.path.join(self.folder, "out"))
        write(self.folder, "run.toml", run_file(checkpoints="[5, 10]", source="verdicts = 'v.parquet'"))

    def mutate(self):
        n = self.random.randrange(3, len(self.table.column_names) + 1)
        table = self.table.select(self.table.column_names[:n])
        changed = self.random.random() < 0.6
        if changed:
            table = changes.change_table(self.random, table)
        changes.write_table(self.random, table, os.path.join(self.folder, "v.parquet"))
        if not changed:
            self.change("v.parquet", changes.flip_table)
        return "v.parquet"


class Lists(Kind):
    """Lists of training indices, as parquet or CSV."""

    names = ("l.parquet", "l.csv")

    def prepare(self):
        write_corpus(self.folder)

    def mutate(self):
        file = self.random.choice(["l.parquet", "l.csv"])
        write(self.folder, "run.toml", run_file(corpus=f"[corpus.list]\nfile = '{file}'\n"))
        if file == "l.parquet":
            table = pyarrow.table({"training_index": pyarrow.array(range(0, 40, 2), pyarrow.uint32()), "text": ["a, 3"] * 20})
            path = os.path.join(self.folder, file)
            if self.random.random() < 0.6:
                changes.write_table(self.random, changes.change_table(self.random, table), path)
                return file
            changes.write_table(self.random, table, path)
            return self.change(file, changes.flip_table)
        rows = [["text", "training_index"], *([f'"a, {i} ""b"""', str(2 * i)] for i in range(20))]
        at, column = self.random.randrange(21), self.random.randrange(2)
        rows[at][column] = self.random.choice(["", "-1", "1.0", "1e3", "nan", '"', '"1', " 4 ", "4294967296", "9" * 40,
                                               '"x\ny"', "training_index", "\ufeff1", "\0", "0x1", "+4", "1_0"])
        end = self.random.choice(["\n", "\r\n", "\r"])
        text = end.join(",".join(row) for row in rows).encode()
        write(self.folder, file, changes.flip(self.random, text) if self.random.random() < 0.2 else text)
        return file


class Hub(Kind):
    """References, snapshots and blobs of the hub's cache."""

    names = ("hub", "hf://")

    def prepare(self):
        write_corpus(self.folder)
        write(self.folder, "run.toml", run_file("gpt-neox", source="folder = 'hf://me/tiny@step{checkpoint}'"))
        source = os.path.join(self.checkout, "crates/gpt-neox/tests/reference/parallel_published_f16")
        self.commit = "0123456789abcdef" * 2 + "01234567"
        cache = "hub/models--me--tiny"
        write(self.folder, f"{cache}/refs/step10", self.commit)
        snapshot = os.path.join(self.folder, cache, "snapshots", self.commit)
        os.makedirs(snapshot)
        for name in ("config.json", "model.safetensors"):
            write(self.folder, f"{cache}/blobs/{name}-blob", read(source, name))
            os.symlink(f"../../blobs/{name}-blob", os.path.join(snapshot, name))
        self.start("check", "run.toml")

    def mutate(self):
        cache = "hub/models--me--tiny"
        name = self.random.choice(["config.json", "model.safetensors"])
        link = os.path.join(self.folder, cache, "snapshots", self.commit, name)
        match self.random.randrange(4):
            case 0:
                content = self.random.choice([b"", b"\n", b"x", b"../..", b"/etc", self.commit.encode() + b"\n", b"\xff" * 40,
                                              b"a" * 100_000, self.commit.upper().encode(), self.commit.encode()[:39]])
                write(self.folder, f"{cache}/refs/step10", content)
                return "refs/step10"
            case 1:
                os.remove(link)
                target = self.random.choice(["nowhere", name, "../../blobs", "/dev/zero", "/", "../../refs/step10"])
                os.symlink(target, link)
                return f"a link to {target}"
            case 2:
                os.remove(link)
                self.random.choice([os.mkdir, os.mkfifo, lambda path: None])(link)
                return f"{name} is no file"
        return self.change(f"{cache}/blobs/{name}-blob", changes.flip)
