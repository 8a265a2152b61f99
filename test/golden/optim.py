"""Golden numbers of test/optim.test.ts: ten steps of torch.optim on two small parameters.

python3 test/golden/optim.py      (needs PyTorch; the numbers are from 1.13.0)
"""
import json

import torch

# Loss: the sum of i sin(p_i), i from 1 in every parameter; its gradient changes with the parameter.
START = {"w": [[0.5, -1.25, 2.0], [0.75, -0.1, 1.5]], "b": [0.3, -0.7, 0.0, 1.1, -2.2]}


def trajectory(make, clip=None, schedule=None):
    params = {name: torch.nn.Parameter(torch.tensor(v)) for name, v in START.items()}
    optimizer = make(params)
    base = [g["lr"] for g in optimizer.param_groups]
    norms = []
    for step in range(10):
        if schedule:
            for group, lr in zip(optimizer.param_groups, base):
                group["lr"] = lr * schedule(step)
        optimizer.zero_grad()
        loss = 0
        for p in params.values():
            i = torch.arange(1, p.numel() + 1, dtype=torch.float32).reshape(p.shape)
            loss = loss + (i * torch.sin(p)).sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), clip if clip else 1e30)
        norms.append(norm.item())
        optimizer.step()
    return {
        "w": params["w"].detach().flatten().tolist(),
        "b": params["b"].detach().tolist(),
        "norms": norms,
    }


def groups(params):
    return [
        {"params": [params["w"]]},
        {"params": [params["b"]], "lr": 0.005, "weight_decay": 0.0},
    ]


def warm(step):
    return (step + 1) / 4 if step < 4 else 1.0


SGD, AdamW = torch.optim.SGD, torch.optim.AdamW
print(json.dumps({
    "sgd": trajectory(lambda p: SGD(p.values(), lr=0.01)),
    "momentum": trajectory(lambda p: SGD(p.values(), lr=0.01, momentum=0.9, weight_decay=0.1)),
    "nesterov": trajectory(
        lambda p: SGD(p.values(), lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True), clip=5.0
    ),
    "adamW": trajectory(lambda p: AdamW(p.values(), lr=0.01)),
    "adamWAll": trajectory(
        lambda p: AdamW(groups(p), lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2),
        clip=2.0,
        schedule=warm,
    ),
}, indent=1))
