"""Ours beside transformers: the same job on the same probes, threads and precision, in interleaved runs of whole processes.

    bash crates/gpt-neox/benches/peers.sh    # sets this up and runs it, on the CPU
    DEVICE=cuda:0 FEATURES=cuda bash crates/gpt-neox/benches/peers.sh    # on a GPU, in bf16 beside f32

PROBES and PAIRS say how many, NAMES which shapes (`70m 160m`), PRECISIONS ours, PEER_BATCH the peer's batch.

Models have the shapes of Pythia-70M and 160M with the real vocabulary, and random weights. Probes are made so that the
number of leading right tokens is distributed as in the miniature suite (standard, step 2400): continuations are the
model's own greedy ones, up to a planted miss.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

DEVICE = os.environ.get("DEVICE", "cpu")
ON_GPU = DEVICE != "cpu"
# What torch calls the same device; a GPU that we reach through Vulkan it knows as CUDA's.
TORCH_DEVICE = DEVICE.replace("vulkan", "cuda")
PRECISIONS = os.environ.get("PRECISIONS", "f32 bf16" if DEVICE.startswith("cuda") else "f32").split()
K, L = 32, 32
N = int(os.environ.get("PROBES", "8192" if ON_GPU else "512"))
PEER_BATCH = int(os.environ.get("PEER_BATCH", "1024" if ON_GPU else "64"))
SHAPES = {"70m": (512, 6, 8), "160m": (768, 12, 12)}
NAMES = os.environ.get("NAMES", " ".join(SHAPES)).split()
HERE = Path(__file__).resolve().parent
MINI = HERE / "../../../data/mini/reference/standard_step2400_verdicts.safetensors"


def load(folder, dtype):
    import torch
    from transformers import GPTNeoXForCausalLM

    torch.set_num_threads(int(os.environ["THREADS"]))
    return torch, GPTNeoXForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval().to(TORCH_DEVICE)


def seconds_of(torch, work):
    """Seconds that `work` takes, all of it done on the device, too; and what it gives."""
    if ON_GPU:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    made = work()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - begun, made


def greedy(torch, model, prompts):
    made = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_length=K + L, eos_token_id=None, pad_token_id=1)
    return made[:, K:]


def make(name, folder, survival):
    """Random weights in `folder`, and probes with the miniature suite's survival."""
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    hidden, layers, heads = SHAPES[name]
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    config = GPTNeoXConfig(vocab_size=50304, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden, max_position_embeddings=2048, rope_parameters=rope)
    model = GPTNeoXForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn_like(weight) * 1.5 / hidden**0.5)
        model.get_output_embeddings().weight.mul_(2)
    model.save_pretrained(folder)
    tokens = torch.randint(0, 50277, (N, K + L))
    model.to(TORCH_DEVICE)
    with torch.no_grad():
        made = [greedy(torch, model, some.to(TORCH_DEVICE)).cpu() for some in tokens[:, :K].split(PEER_BATCH)]
    tokens[:, K:] = torch.cat(made)
    # The same quantiles for every model.
    matched = np.sort(survival)[((np.arange(N) + 0.5) / N * len(survival)).astype(int)]
    np.random.default_rng(0).shuffle(matched)
    for probe, n in enumerate(matched):
        if n < L:
            tokens[probe, K + n] = (tokens[probe, K + n] + 1) % 50277
    save_file({"tokens": tokens.to(torch.int32)}, folder / "probes.safetensors")


def peer(folder, job, dtype):
    """One run of transformers, in this process."""
    from safetensors.torch import load_file

    torch, model = load(folder, dtype)
    tokens = load_file(folder / "probes.safetensors")["tokens"].long().to(TORCH_DEVICE)

    def judge():
        right = []
        with torch.no_grad():
            for some in tokens.split(PEER_BATCH):
                if job == "generate":
                    found = greedy(torch, model, some[:, :K])
                else:
                    states = model.gpt_neox(some[:, :-1]).last_hidden_state[:, K - 1 :]
                    found = model.get_output_embeddings()(states).argmax(-1)
                right.append(found == some[:, K:])
        return torch.cat(right).int().cpu()

    if ON_GPU:
        # As for ours: libraries and kernels are loaded when they are first used.
        judge()
    seconds, right = seconds_of(torch, judge)
    print(json.dumps({"judge": seconds, "n_prefix_matched": right.cumprod(1).sum(1).tolist(), "n_right": right.sum(1).tolist()}))


def peak():
    """The machine's f32 matrix product, in GFLOP/s."""
    import torch

    torch.set_num_threads(int(os.environ["THREADS"]))
    n = 8192 if ON_GPU else 2048
    a, b = (torch.randn(n, n, device=TORCH_DEVICE) for _ in range(2))
    times = [seconds_of(torch, lambda: a @ b)[0] for _ in range(12)]
    print(json.dumps({"gflops": 2 * n**3 / min(times) / 1e9}))


def process(*command):
    out = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def flops(name, measure, matched):
    """Of the matrix products that a measure takes, layers and output projection."""
    hidden, layers, _ = SHAPES[name]
    token, decision = 2 * 12 * layers * hidden**2, 2 * 50304 * hidden
    if measure in ("likelihood", "forward"):
        return len(matched) * ((K + L - 1) * token + L * decision)
    total = 0
    for n in matched:
        read, decided, chunk = K, 1, 1
        while decided <= n and read < K + L - 1:
            end = min(read + chunk, K + L - 1)
            decided += end - read
            read, chunk = end, chunk * 2
        rest = max(L - 1 - n, 0) if measure == "score" else 0
        total += (read + rest) * token + (decided + rest) * decision
    return total


def suffix(precision):
    return "" if precision == "f32" else f"_{precision}"


def main(program, work, pairs=int(os.environ.get("PAIRS", "5"))):
    from safetensors.numpy import load_file

    threads = int(os.environ["THREADS"])
    ours = lambda folder, measure, precision: process(program, folder, folder / "probes.safetensors", K, measure, DEVICE, precision)
    theirs = lambda folder, job, dtype: process(sys.executable, __file__, "peer", folder, job, dtype)
    survival = load_file(MINI)["n_prefix_matched"]
    raw = {}
    for name in NAMES:
        folder = Path(work) / name
        if not (folder / "probes.safetensors").exists() or len(load_file(folder / "probes.safetensors")["tokens"]) != N:
            folder.mkdir(parents=True, exist_ok=True)
            make(name, folder, survival)
        jobs = {
            **{
                f"{measure}{suffix(precision)}": lambda measure=measure, precision=precision: ours(folder, measure, precision)
                for precision in PRECISIONS
                for measure in ("exact", "score", "likelihood")
            },
            **{
                f"{job}{suffix(precision)}": lambda job=job, dtype=dtype: theirs(folder, job, dtype)
                for precision, dtype in (("f32", "float32"), ("bf16", "bfloat16"))
                for job in ("generate", "forward")
            },
        }
        found = {job: [] for job in jobs}
        peaks = []
        for _ in range(pairs):
            peaks.append(process(sys.executable, __file__, "peak")["gflops"])
            for job, run in jobs.items():
                found[job].append(run())
                print(f"{name} {job}: {found[job][-1]['judge']:.2f} s", file=sys.stderr, flush=True)
        first = {job: runs[0] for job, runs in found.items()}
        assert all(run["n_prefix_matched"] == runs[0]["n_prefix_matched"] for runs in found.values() for run in runs), "runs differ"
        # A near tie may fall otherwise in another implementation: how many do.
        differ = lambda a, b: sum(x != y for x, y in zip(a, b))
        counts = {
            "exact and generate": differ(first["exact"]["n_prefix_matched"], first["generate"]["n_prefix_matched"]),
            "score and generate": differ(first["score"]["n_matched"], first["generate"]["n_right"]),
            "likelihood and forward": differ(first["likelihood"]["n_top1"], first["forward"]["n_right"]),
        }
        gflops = statistics.median(peaks)
        verdicts = first["exact"]["n_prefix_matched"]
        digest = hashlib.sha256(json.dumps(verdicts).encode()).hexdigest()[:16]
        print(f"{name}: {N} probes on {DEVICE}, {threads} threads, peak {gflops:.0f} GFLOP/s, hash of the verdicts {digest}; verdicts that differ: {counts}")
        for job, runs in found.items():
            times = sorted(run["judge"] for run in runs)
            median = statistics.median(times)
            line = f"  {job}: {N / median:.1f} probes/s ({times[0]:.2f} … {times[-1]:.2f} s)"
            if job in ("exact", "score", "likelihood", "forward"):
                line += f", {flops(name, job, verdicts) / median / gflops / 1e7:.0f} % of the peak"
            if "peak_kib" in runs[0]:
                line += f", {max(run['peak_kib'] for run in runs) / 1024:.0f} MiB"
            print(line)
        for precision in ("f32", "bf16"):
            # Where we have no bf16 of our own, our f32 is what stands beside the peer's.
            mine = suffix(precision) if precision in PRECISIONS else ""
            for ours_job, their_job in (("exact", "generate"), ("exact", "forward"), ("score", "generate"), ("likelihood", "forward")):
                ratios = sorted(b["judge"] / a["judge"] for a, b in zip(found[ours_job + mine], found[their_job + suffix(precision)]))
                print(f"ratio {ours_job}_vs_{their_job}_{name}{suffix(precision)} {statistics.median(ratios):.2f}  # {ratios[0]:.2f} … {ratios[-1]:.2f}")
        raw[name] = {"hash_of_verdicts": digest, "peak_gflops": peaks, "runs": found}
    out = Path(work) / "peers.json"
    out.write_text(json.dumps(raw))
    print(f"raw timings, verdicts and their hash: {out}")


if __name__ == "__main__":
    if sys.argv[1] == "peer":
        peer(Path(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1] == "peak":
        peak()
    else:
        main(sys.argv[1], sys.argv[2])
