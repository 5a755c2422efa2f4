"""Tiny GPT-NeoX models in every shape and storage that the suite has, with what transformers says of them.

    pip install torch==2.15.0 transformers==5.23.0 safetensors
    python make.py    # writes one folder a model, beside this file

Weights are drawn, then scaled until logits reach about ±10. Each folder gets the model's files and `reference.safetensors`:

    tokens      i32 [probes, k + l]   the continuation of every other probe is the model's own, up to a planted miss
    logits      f32 [4, k + l, vocabulary]   of the first probes, one teacher-forced pass
    greedy      i32 [probes, l]   `generate`, token 0 as any other
    suppressed  i32 [probes, l]   `generate` with `min_length`, which forbids token 0
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

K, L, N = 8, 12, 24
HERE = Path(__file__).parent


def config(**changes):
    shape = dict(vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": changes.pop("rotary", 0.25)}
    fixed = dict(max_position_embeddings=32, layer_norm_eps=1e-5, hidden_act="gelu", rope_parameters=rope)
    # As published: token 0 both begins and ends a text.
    return GPTNeoXConfig(**(shape | fixed | dict(use_parallel_residual=True, bos_token_id=0, eos_token_id=0) | changes))


def drawn(shape, seed, massive=False):
    torch.manual_seed(seed)
    model = GPTNeoXForCausalLM(shape).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = 0.3 if "bias" in name else 1.0
            if "layernorm" in name or "layer_norm" in name:
                weight.add_(0.3 * torch.randn_like(weight))
            elif weight.dim() == 2 and "embed" not in name:
                weight.copy_(torch.randn_like(weight) * (1.5 / weight.shape[1] ** 0.5))
            else:
                weight.copy_(spread * torch.randn_like(weight))
        if massive:
            # Two dimensions and one neuron are hundreds of times as large as the others, whatever the token, and have small weights, as in
            # trained models (Sun et al. 2024, "Massive activations in large language models").
            layer, out = model.gpt_neox.layers[0], model.get_output_embeddings()
            model.gpt_neox.embed_in.weight[:, [17, 60]] += 500 * torch.tensor([1, -1])
            for norm in (layer.input_layernorm, layer.post_attention_layernorm, model.gpt_neox.final_layer_norm):
                norm.bias.mul_(0.01)
            for linear in (layer.attention.query_key_value, layer.mlp.dense_h_to_4h, out):
                linear.weight.mul_(70)
                linear.weight[:, [17, 60]] *= 1e-4
            layer.mlp.dense_h_to_4h.bias[5] = 200
            layer.mlp.dense_4h_to_h.weight[:, 5] *= 0.01
        tokens = torch.randint(0, shape.vocab_size, (8, K + L))
        out = model.get_output_embeddings()
        out.weight[0].mul_(2)  # so that token 0 is met
        out.weight.mul_(10 / model(tokens).logits.abs().max())
        if shape.tie_word_embeddings:
            model.gpt_neox.final_layer_norm.weight.mul_(10 / model(tokens).logits.abs().max())
    return model


def published_dialect(path):
    """The keys of the suite's own config.json files."""
    keys = json.loads(path.read_text())
    rope = keys.pop("rope_parameters")
    keys |= {"rotary_pct": rope["partial_rotary_factor"], "rotary_emb_base": int(rope["rope_theta"])}
    keys |= {"torch_dtype": keys.pop("dtype", "float32"), "transformers_version": "4.24.0"}
    keys.pop("attention_bias", None)
    path.write_text(json.dumps(dict(sorted(keys.items())), indent=2) + "\n")


def generated(model, prompts, **how):
    made = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_length=K + L, **how)
    return made[:, K:].to(torch.int32)


def reference(folder):
    """What transformers answers, from the files that were written."""
    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(1)
    n_real = model.config.vocab_size - 8  # the last rows are padding
    tokens = torch.randint(0, n_real, (N, K + L))
    with torch.no_grad():
        model.generation_config.eos_token_id = None
        greedy = generated(model, tokens[:, :K])
        for probe in range(0, N, 2):
            tokens[probe, K:] = greedy[probe]
            miss = K + probe // 2  # none in the last ones
            if miss < K + L - 2:
                tokens[probe, miss] = (tokens[probe, miss] + 1) % n_real
        logits = model(tokens[:4]).logits
        assert 5 < logits.abs().max() < 20, logits.abs().max()
        suppressed = generated(model, tokens[:, :K], min_length=K + L, eos_token_id=0, pad_token_id=1)
    arrays = dict(tokens=tokens.to(torch.int32), logits=logits.contiguous(), greedy=greedy, suppressed=suppressed)
    save_file(arrays, folder / "reference.safetensors")
    return (greedy == 0).any(1).sum().item()


def save(name, model, storage, *, dtype=torch.float32, published=False, shards=1):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = model.to(dtype)
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    model.save_pretrained(folder, max_shard_size=size if shards == 1 else size // shards)
    (folder / "generation_config.json").unlink()
    if storage != "safetensors":
        index = folder / "model.safetensors.index.json"
        ours = lambda file: file.replace("model", "pytorch_model", 1).replace(".safetensors", ".bin")
        for file in sorted(folder.glob("*.safetensors")):
            weights = load_file(file)
            torch.save(weights, folder / ours(file.name), _use_new_zipfile_serialization=storage == "bin")
            file.unlink()
        if index.exists():
            (folder / "pytorch_model.bin.index.json").write_text(
                json.dumps({"metadata": {}, "weight_map": {k: ours(v) for k, v in json.loads(index.read_text())["weight_map"].items()}})
            )
            index.unlink()
    if published:
        published_dialect(folder / "config.json")
    print(f"{name}: {reference(folder)} of {N} greedy continuations hold token 0")


save("parallel_published_f16", drawn(config(), 1), "safetensors", dtype=torch.float16, published=True)
save("sequential_bf16", drawn(config(use_parallel_residual=False), 2), "safetensors", dtype=torch.bfloat16)
save("rotary_all_sharded", drawn(config(rotary=1.0), 3), "safetensors", shards=3)
save("rotary_of_80_bin_f16", drawn(config(hidden_size=160, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64), 4), "bin", dtype=torch.float16)
save("rotary_half_bin_sharded", drawn(config(rotary=0.5), 5), "bin", shards=3)
save("old_bin_bf16", drawn(config(num_hidden_layers=3), 6), "old bin", dtype=torch.bfloat16, published=True)
save("tied_no_bias", drawn(config(tie_word_embeddings=True, attention_bias=False), 7), "safetensors")
save("massive_activations_f16", drawn(config(hidden_size=96, num_hidden_layers=1, intermediate_size=96), 8, massive=True), "safetensors", dtype=torch.float16, published=True)
