"""Golden vectors of test/nn.test.ts: the operations of lib/core/nn.ts in PyTorch.

/usr/bin/python3 test/golden/nn.py > test/golden/nn.json      (written by PyTorch 1.13.0)

seq(shape) is 1.5 sin(1.7 i + n) for i < n; the gradients are those of the sum of y_i cos(i).
"""
import json
import math

import torch
import torch.nn.functional as F

cases = {}


def seq(*shape, factor=1.0):
    n = math.prod(shape)
    x = torch.sin(torch.arange(n, dtype=torch.float64) * 1.7 + n) * 1.5
    return (x.float() * factor).view(*shape).requires_grad_()


def numbers(t):
    return [float("%.7g" % v) for v in t.detach().flatten().tolist()]


def golden(name, y, *inputs):
    c = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).float().view(y.shape)
    grads = torch.autograd.grad((y * c).sum(), inputs)
    cases[name] = {"value": numbers(y), "grads": [numbers(g) for g in grads]}


x, w, b = seq(2, 5), seq(3, 5), seq(3)
golden("linear", F.linear(x, w, b), x, w, b)

x, w = seq(2, 5), seq(5)
golden("rmsNorm", x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w, x, w)

x, w, b = seq(2, 5), seq(5), seq(5)
golden("layerNorm", F.layer_norm(x, (5,), w, b), x, w, b)

x = seq(6)
golden("gelu", F.gelu(x), x)
golden("geluTanh", F.gelu(x, approximate="tanh"), x)

gate, up = seq(6), seq(6, factor=0.7)
golden("swiglu", F.silu(gate) * up, gate, up)

# As in transformers' modeling_llama.py: rotate_half, positions 2, 3, 4.
x = seq(1, 3, 1, 4)
frequencies = 1.0 / (10000 ** (torch.arange(0, 4, 2).float() / 4))
angles = torch.outer(torch.arange(3).float() + 2, frequencies)
angles = torch.cat((angles, angles), -1)[None, :, None]
rotated = torch.cat((-x[..., 2:], x[..., :2]), -1)
golden("rope", x * angles.cos() + rotated * angles.sin(), x)

# Two query heads share one key head; two queries at the end of three keys.
q, k, v = seq(1, 2, 2, 3), seq(1, 3, 1, 3), seq(1, 3, 1, 3)
keys, values = (t.transpose(1, 2).repeat_interleave(2, 1) for t in (k, v))
scores = q.transpose(1, 2) @ keys.transpose(-1, -2) / 3**0.5
visible = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
golden("attention", (weights @ values).transpose(1, 2), q, k, v)

x = seq(3, 4)
golden("crossEntropy", F.cross_entropy(x, torch.tensor([2, -1, 0]), ignore_index=-1), x)

target = seq(3, 4).detach().flip(0).softmax(-1)
golden("klDivergence", F.kl_div(F.log_softmax(x / 2, -1), target, reduction="batchmean"), x)

table = seq(4, 3)
golden("embedding", F.embedding(torch.tensor([1, 3, 1, 0]), table), table)

x = seq(2, 5)
golden("fakeQuantTensor", torch.fake_quantize_per_tensor_affine(x, 0.3, 1, -4, 3), x)

zero_points = torch.tensor([0, -1], dtype=torch.int32)
scales = torch.tensor([0.25, 0.4])
golden("fakeQuantChannel",
       torch.fake_quantize_per_channel_affine(x, scales, zero_points, 0, -4, 3), x)

scale = torch.tensor([0.3], requires_grad=True)
golden("fakeQuantScale",
       torch._fake_quantize_learnable_per_tensor_affine(
           x, scale, torch.tensor([1.0]), -4, 3, 1.0), x, scale)

# "same" padding of a 3 x 2 filter with stride 2 on 5 x 4: one row above and below.
x, w = seq(1, 5, 4, 2), seq(3, 2, 2, 3)
padded = F.pad(x.permute(0, 3, 1, 2), (0, 0, 1, 1))
golden("conv2d", F.conv2d(padded, w.permute(3, 2, 0, 1), stride=2).permute(0, 2, 3, 1), x, w)

print("{\n" + ",\n".join(f"{json.dumps(n)}: {json.dumps(c)}" for n, c in cases.items()) + "\n}")
