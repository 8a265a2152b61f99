#!/usr/bin/env python3
"""The LLaMA forward pass in PyTorch, as a referee for lib/core/llama.ts.

Written from the papers (arXiv:2302.13971, 2104.09864, 2305.13245) and the public
description of the files, in double precision and without cleverness: one head at a
time, rotary positions as a product of complex numbers, its own reader of safetensors.
Needs only PyTorch.

  llama_torch.py logits FOLDER --ids 1,2,3 --ids 4,5,6    logits as JSON
  llama_torch.py expect FOLDER --ids ... --out FILE       loss, logits, gradients
  llama_torch.py make FOLDER --config JSON --seed 0       a random checkpoint
  llama_torch.py transformers FOLDER --ids ...            largest difference between
      these logits and those of Hugging Face transformers, where that is installed
"""
import argparse
import json
import math
import struct
from pathlib import Path

import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "F64": torch.float64, "I32": torch.int32}


def read_safetensors(path):
    raw = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = raw[8 + size + begin:8 + size + end]
        tensors[name] = torch.frombuffer(data, dtype=DTYPES[entry["dtype"]]) \
            .reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()) \
            if tensor.numel() else b""
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        if shard.name.startswith("model"):
            tensors.update(read_safetensors(shard))
    return config, {name: t.double() for name, t in tensors.items()}


def rope_settings(config):
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = settings.get("rope_theta", config.get("rope_theta", 10000.0))
    return theta, settings.get("rope_type", settings.get("type", "default")), settings


def frequencies(config, head_dim):
    theta, kind, settings = rope_settings(config)
    result = []
    for i in range(0, head_dim, 2):
        w = 1 / theta ** (i / head_dim)
        if kind == "linear":
            w = w / settings["factor"]
        elif kind == "llama3":
            # Llama 3.1: long waves are slowed down, short ones kept.
            old = settings["original_max_position_embeddings"]
            low, high = settings["low_freq_factor"], settings["high_freq_factor"]
            wavelength = 2 * math.pi / w
            if wavelength > old / low:
                w = w / settings["factor"]
            elif wavelength > old / high:
                smooth = (old / wavelength - low) / (high - low)
                w = (1 - smooth) * w / settings["factor"] + smooth * w
        else:
            assert kind == "default", kind
        result.append(w)
    return torch.tensor(result, dtype=torch.float64)


def rotate(x, w):
    """x [T, Dh]: dimensions i and i + Dh/2 are one complex number."""
    T, Dh = x.shape
    z = torch.complex(x[:, :Dh // 2].contiguous(), x[:, Dh // 2:].contiguous())
    angle = torch.arange(T, dtype=torch.float64)[:, None] * w[None, :]
    z = z * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], dim=1)


def rms_norm(x, weight, eps):
    return weight * x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps)


def forward(config, p, ids):
    """Logits [T, V] of one sequence of ids [T]."""
    D, H = config["hidden_size"], config["num_attention_heads"]
    G = config.get("num_key_value_heads") or H
    Dh = config.get("head_dim") or D // H
    eps = config.get("rms_norm_eps", 1e-6)
    w = frequencies(config, Dh)
    T = len(ids)
    hidden = torch.full((T, T), -math.inf, dtype=torch.float64).triu(1)

    def project(x, name):
        y = x @ p[name + ".weight"].T
        return y + p[name + ".bias"] if name + ".bias" in p else y

    x = p["model.embed_tokens.weight"][torch.tensor(ids)]
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        n = rms_norm(x, p[name + ".input_layernorm.weight"], eps)
        q = project(n, name + ".self_attn.q_proj")
        k = project(n, name + ".self_attn.k_proj")
        v = project(n, name + ".self_attn.v_proj")
        heads = []
        for h in range(H):
            g = h // (H // G)
            qh = rotate(q[:, h * Dh:(h + 1) * Dh], w)
            kg = rotate(k[:, g * Dh:(g + 1) * Dh], w)
            vg = v[:, g * Dh:(g + 1) * Dh]
            scores = qh @ kg.T / math.sqrt(Dh) + hidden
            heads.append(torch.softmax(scores, dim=-1) @ vg)
        x = x + project(torch.cat(heads, dim=1), name + ".self_attn.o_proj")
        n = rms_norm(x, p[name + ".post_attention_layernorm.weight"], eps)
        gate = project(n, name + ".mlp.gate_proj")
        up = project(n, name + ".mlp.up_proj")
        x = x + project(gate * torch.sigmoid(gate) * up, name + ".mlp.down_proj")
    x = rms_norm(x, p["model.norm.weight"], eps)
    tied = config.get("tie_word_embeddings", False)
    return x @ p["model.embed_tokens.weight" if tied else "lm_head.weight"].T


def expect(config, p, rows):
    """Logits, mean next-token loss and its gradients."""
    for tensor in p.values():
        tensor.requires_grad_(True)
    logits = torch.stack([forward(config, p, row) for row in rows])
    ids = torch.tensor(rows)
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    loss.backward()
    result = {"ids": ids.int(), "logits": logits.detach().float(),
              "loss": loss.detach().float()}
    for name, tensor in p.items():
        result["gradient." + name] = tensor.grad.float()
    return result


def make(folder, config, seed, dtype, shards):
    """A random checkpoint; weights are large enough for every part to matter."""
    torch.manual_seed(seed)
    D, F, V = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    H = config["num_attention_heads"]
    G = config.get("num_key_value_heads") or H
    Dh = config.get("head_dim") or D // H
    shapes = {"model.embed_tokens.weight": (V, D)}
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        for part, out, into, bias in [
            ("self_attn.q_proj", H * Dh, D, "attention_bias"),
            ("self_attn.k_proj", G * Dh, D, "attention_bias"),
            ("self_attn.v_proj", G * Dh, D, "attention_bias"),
            ("self_attn.o_proj", D, H * Dh, "attention_bias"),
            ("mlp.gate_proj", F, D, "mlp_bias"),
            ("mlp.up_proj", F, D, "mlp_bias"),
            ("mlp.down_proj", D, F, "mlp_bias"),
        ]:
            shapes[name + part + ".weight"] = (out, into)
            if config.get(bias):
                shapes[name + part + ".bias"] = (out,)
        shapes[name + "input_layernorm.weight"] = (D,)
        shapes[name + "post_attention_layernorm.weight"] = (D,)
    shapes["model.norm.weight"] = (D,)
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (V, D)
    tensors = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, dtype=torch.float64)
        values = 1 + 0.3 * values if "norm" in name else \
            values * (0.3 if len(shape) == 1 else 1 / math.sqrt(shape[1]))
        tensors[name] = values.to(DTYPES[dtype])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    names = list(tensors)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        chosen = names[shard * len(names) // shards:(shard + 1) * len(names) // shards]
        write_safetensors(folder / file, {name: tensors[name] for name in chosen})
        weight_map.update({name: file for name in chosen})
    index = {"metadata": {"total_size": sum(
        t.numel() * t.element_size() for t in tensors.values())},
        "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(index, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["logits", "expect", "make", "transformers"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ids", action="append", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--config")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="F32", choices=["F32", "F16", "BF16"])
    parser.add_argument("--shards", type=int, default=1)
    args = parser.parse_args()
    if args.command == "make":
        make(args.folder, json.loads(args.config), args.seed, args.dtype, args.shards)
        return
    config, p = load(args.folder)
    rows = [[int(i) for i in row.split(",")] for row in args.ids]
    if args.command == "transformers":
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32)
        print(max((model(torch.tensor([row])).logits[0] - forward(config, p, row))
                  .abs().max().item() for row in rows))
    elif args.command == "expect":
        write_safetensors(args.out, expect(config, p, rows))
    else:
        text = json.dumps([forward(config, p, row).tolist() for row in rows])
        args.out.write_text(text + "\n") if args.out else print(text)


if __name__ == "__main__":
    main()
