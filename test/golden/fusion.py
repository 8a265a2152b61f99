"""The selection network, its weights, CV^2 and gradients in PyTorch, for test/fusion-gate.test.ts.

    /usr/bin/python3 test/golden/fusion.py
"""
import torch

torch.set_default_dtype(torch.float64)
K = 4
WIDTHS = [K, 2 * K, K, K]
weight, bias = [], []
for layer in range(3):
    to, from_ = WIDTHS[layer + 1], WIDTHS[layer]
    n = torch.arange(to * from_).double()
    weight.append((0.8 * torch.sin(1 + n * (layer + 1))).reshape(to, from_).requires_grad_())
    bias.append((0.1 * torch.cos(torch.arange(to).double() + layer)).requires_grad_())
features = torch.tensor(
    [[1.2, -0.4, 0.3, -1.1], [-0.7, 1.5, -0.2, -0.6], [0.1, 0.2, 1.4, -1.7]]
)
cost = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1], [2, 2.5, 0.5, 1]])

hidden = features
for layer in range(3):
    hidden = torch.nn.functional.linear(hidden, weight[layer], bias[layer])
    if layer < 2:
        hidden = torch.nn.functional.gelu(hidden)
p = torch.softmax(hidden, 1)
mask = (p > 0.15).double()
w = p * mask / ((p * mask).sum(1, keepdim=True) + 1e-8)
importance = w.sum(0)
feedback = importance.var() / (importance.mean() ** 2 + 1e-10)  # unbiased
loss = 0.1 * (w * cost).sum() / 3 + 0.5 * feedback
loss.backward()


def show(name, tensor):
    print(name, [round(x, 8) for x in tensor.flatten().tolist()])


show("p", p)
show("w", w)
show("feedback", feedback)
show("loss", loss)
show("gradient of the last weights", weight[2].grad)
show("gradient of the first biases", bias[0].grad)
