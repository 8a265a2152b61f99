"""The GPT of gpt.ts in PyTorch, from the same weights and tokens: times its training step.

python3 scripts/bench/gpt.py '{"folder": ..., "size": {...}, ...}'      (one line of JSON on stdout)
"""
import json
import math
import os
import resource
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

NORM_EPS = 1e-5


def peak_rss_bytes():
    """As in measure.ts: VmHWM, or what getrusage says where there is no /proc."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_params(folder, shapes):
    weights = np.fromfile(os.path.join(folder, "weights.f32"), dtype="<f4")
    params, at = {}, 0
    for name, shape in shapes:
        n = math.prod(shape)
        value = torch.from_numpy(weights[at : at + n].copy()).reshape(shape)
        params[name] = value.requires_grad_()
        at += n
    return params


def attention(q, k, v):
    """Causal; q, k and v are [B, H, T, D / H]."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    t = q.shape[-2]
    hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
    scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    return F.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1) @ v


def forward(p, ids, layers, heads):
    b, t = ids.shape
    d = p["token"].shape[1]
    split = lambda x: x.view(b, t, heads, d // heads).transpose(1, 2)
    norm = lambda x, name: F.layer_norm(x, (d,), p[name], p[name + "Bias"], NORM_EPS)
    linear = lambda x, name: F.linear(x, p[name], p[name + "Bias"])
    x = F.embedding(ids, p["token"]) + p["position"]
    for i in range(layers):
        at = f"blocks.{i}."
        a = norm(x, at + "norm1")
        q, k, v = (split(linear(a, at + name)) for name in ("query", "key", "value"))
        mixed = attention(q, k, v).transpose(1, 2).reshape(b, t, d)
        x = x + linear(mixed, at + "out")
        hidden = F.gelu(linear(norm(x, at + "norm2"), at + "up"))
        x = x + linear(hidden, at + "down")
    return F.linear(norm(x, "norm"), p["head"])


def main(task):
    torch.set_num_threads(1)
    size = task["size"]
    params = read_params(task["folder"], task["shapes"])
    ids = np.fromfile(os.path.join(task["folder"], "ids.i32"), dtype="<i4")
    ids = torch.from_numpy(ids.astype(np.int64)).view(size["batch"], size["tokens"] + 1)
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].reshape(-1)
    adam = task["adam"]
    optimizer = torch.optim.AdamW(
        params.values(),
        lr=adam["learningRate"],
        betas=(adam["beta1"], adam["beta2"]),
        eps=adam["eps"],
        weight_decay=0,
    )
    losses, step_ms, cpu_ms, spent, peak = [], [], [], 0, 0
    while len(step_ms) < task["steps"]:
        if spent > task["seconds"] and len(step_ms) >= task["minSteps"]:
            break
        start, cpu_start = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        logits = forward(params, inputs, size["layers"], size["heads"])
        loss = F.cross_entropy(logits.view(-1, size["vocab"]), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds = time.perf_counter() - start
        spent += seconds
        if len(losses) > task["warmup"]:
            step_ms.append(seconds * 1e3)
            cpu_ms.append((time.process_time() - cpu_start) * 1e3)
        if len(losses) == 1:
            peak = peak_rss_bytes()
    print(json.dumps({
        "stepMs": step_ms,
        "cpuMs": cpu_ms,
        "losses": losses,
        "peakRssFirstStepBytes": peak,
        "leakedTensorsPerStep": None,
        "engine": f"PyTorch {torch.__version__}, {torch.get_num_threads()} thread",
    }))


main(json.loads(sys.argv[1]))
