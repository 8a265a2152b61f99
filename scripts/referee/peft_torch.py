"""Adapters in the PEFT format, by PyTorch: an independent referee of lib/rora and formats/peft.ts.

PEFT itself is not packaged for Debian, so its LoRA, rsLoRA and DoRA forward passes are written here
again, from huggingface/peft src/peft/tuners/lora/{layer,dora}.py, in float64, with nothing but torch and
the standard library: also safetensors is read and written by hand.

  python3 scripts/referee/peft_torch.py golden test/golden/peft
      makes a base model of two linear layers, adapters of every kind, and what they compute
  python3 scripts/referee/peft_torch.py check FOLDER
      computes FOLDER/adapter on FOLDER/base.safetensors and compares with FOLDER/expected.safetensors
"""

import json
import math
import os
import re
import struct
import sys

import torch

Q_PROJ = "model.layers.0.self_attn.q_proj"
DOWN_PROJ = "model.layers.0.mlp.down_proj"
PREFIX = "base_model.model."
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_safetensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(bytearray(data[begin:end]), dtype=DTYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    header, chunks, position = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        dtype = next(d for d, t in DTYPES.items() if t == tensor.dtype)
        chunk = tensor.detach().contiguous().numpy().tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + len(chunk)],
        }
        chunks.append(chunk)
        position += len(chunk)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def by_pattern(patterns, name, default):
    """get_pattern_key of src/peft/utils/other.py"""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


class Adapted(torch.nn.Module):
    """One linear layer with its adapter: LoraLayer of layer.py, DoraLinearLayer of dora.py."""

    def __init__(self, name, weight, config, tensors):
        super().__init__()
        part = lambda end: tensors[f"{PREFIX}{name}.{end}"].double().requires_grad_()
        self.name = name
        self.weight = weight.double()
        self.a = part("lora_A.weight")
        self.b = part("lora_B.weight")
        self.m = part("lora_magnitude_vector") if config["use_dora"] else None
        rank = by_pattern(config["rank_pattern"], name, config["r"])
        alpha = by_pattern(config["alpha_pattern"], name, config["lora_alpha"])
        assert self.a.shape[0] == rank, (name, rank, self.a.shape)
        self.scale = alpha / math.sqrt(rank) if config["use_rslora"] else alpha / rank

    def forward(self, x):
        base = x @ self.weight.T
        low = self.scale * (x @ self.a.T) @ self.b.T
        if self.m is None:
            return base + low
        norm = torch.linalg.norm(self.weight + self.scale * self.b @ self.a, dim=1).detach()
        ratio = self.m / norm
        return base + (ratio - 1) * base + ratio * low

    def merged(self):
        weight = self.weight + self.scale * self.b @ self.a
        if self.m is None:
            return weight
        return weight * (self.m / torch.linalg.norm(weight, dim=1))[:, None]

    def gradients(self):
        grads = {
            f"{self.name}.lora_A.weight": self.a.grad,
            f"{self.name}.lora_B.weight": self.b.grad,
        }
        if self.m is not None:
            grads[f"{self.name}.lora_magnitude_vector"] = self.m.grad
        return grads


def compute(base, folder):
    """Output, loss, gradients and merged weights of down_proj(q_proj(x)), loss = sum(y * cotangent)."""
    with open(os.path.join(folder, "adapter_config.json")) as file:
        config = json.load(file)
    assert config["peft_type"] == "LORA" and not config["fan_in_fan_out"]
    tensors = read_safetensors(os.path.join(folder, "adapter_model.safetensors"))
    layers = [Adapted(n, base[f"{n}.weight"], config, tensors) for n in (Q_PROJ, DOWN_PROJ)]
    y = layers[1](layers[0](base["x"].double()))
    loss = (y * base["cotangent"].double()).sum()
    loss.backward()
    result = {"y": y, "loss": loss.reshape(1)}
    for layer in layers:
        result[f"merged.{layer.name}.weight"] = layer.merged()
        for name, grad in layer.gradients().items():
            result[f"grad.{name}"] = grad
    return {name: tensor.float() for name, tensor in result.items()}


def config_json(rslora, dora):
    """The options in the order and with the defaults of PEFT's save_pretrained."""
    return {
        "alpha_pattern": {"down_proj": 6},
        "auto_mapping": None,
        "base_model_name_or_path": "base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 5,
        "lora_dropout": 0.0,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 3,
        "rank_pattern": {r"layers\.0\.mlp\.down_proj": 2},
        "revision": None,
        "target_modules": ["q_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": dora,
        "use_rslora": rslora,
    }


def golden(folder):
    torch.manual_seed(20260)
    base = {
        f"{Q_PROJ}.weight": torch.randn(12, 8) / 3,
        f"{DOWN_PROJ}.weight": torch.randn(8, 12) / 3,
        "x": torch.randn(5, 8),
        "cotangent": torch.randn(5, 8),
    }
    os.makedirs(folder, exist_ok=True)
    write_safetensors(os.path.join(folder, "base.safetensors"), base)
    kinds = {
        "lora": (False, False, torch.float32),
        "rslora": (True, False, torch.float32),
        "dora": (False, True, torch.float32),
        "dora-rslora": (True, True, torch.float16),
    }
    for kind, (rslora, dora, dtype) in kinds.items():
        tensors = {}
        for name, rank in ((Q_PROJ, 3), (DOWN_PROJ, 2)):
            out, width = base[f"{name}.weight"].shape
            tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(rank, width) / 3
            tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.randn(out, rank) / 3
            if dora:
                tensors[f"{PREFIX}{name}.lora_magnitude_vector"] = torch.rand(out) + 0.5
        sub = os.path.join(folder, kind)
        os.makedirs(sub, exist_ok=True)
        with open(os.path.join(sub, "adapter_config.json"), "w") as file:
            json.dump(config_json(rslora, dora), file, indent=2)
            file.write("\n")
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        write_safetensors(os.path.join(sub, "adapter_model.safetensors"), tensors)
        write_safetensors(os.path.join(sub, "expected.safetensors"), compute(base, sub))


def check(folder):
    base = read_safetensors(os.path.join(folder, "base.safetensors"))
    expected = read_safetensors(os.path.join(folder, "expected.safetensors"))
    computed = compute(base, os.path.join(folder, "adapter"))
    assert set(computed) == set(expected), set(computed) ^ set(expected)
    for name, value in computed.items():
        error = (value - expected[name]).abs().max().item()
        size = value.abs().max().item()
        print(f"{name}: largest difference {error:.2e} of {size:.2e}")
        assert error <= 1e-5 * max(size, 1), name


if __name__ == "__main__":
    {"golden": golden, "check": check}[sys.argv[1]](sys.argv[2])
