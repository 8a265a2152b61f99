# Losses of EdgeQAT and their gradients by PyTorch, the released forms as in distill_train:
# /usr/bin/python3 test/golden/edgeqat.py > test/golden/edgeqat.json (torch 1.13.0)
import torch, json
import torch.nn.functional as F
torch.manual_seed(0)
B, T, H, D, V = 2, 4, 2, 6, 5
layers = lambda *shape: [torch.randn(*shape, dtype=torch.float64).float() for _ in range(2)]
q, k = layers(B, T, H, D), layers(B, T, H, D)
student, teacher = layers(B, H, T, T), layers(B, H, T, T)
teacher = [t + 1.5 * s for s, t in zip(student, teacher)]
logits, goal = torch.randn(B, T, V), torch.randn(B, T, V)
labels = torch.tensor([[1, 0, 4, 2], [3, 3, 1, 0]])
out = {"shape": [B, T, H, D, V], "q": [x.flatten().tolist() for x in q], "k": [x.flatten().tolist() for x in k],
       "student": [x.flatten().tolist() for x in student], "teacher": [x.flatten().tolist() for x in teacher],
       "logits": logits.flatten().tolist(), "goal": goal.flatten().tolist(), "labels": labels.flatten().tolist()}
def run(name, f, inputs):
    xs = [x.clone().requires_grad_() for x in inputs]
    loss = f(*xs); loss.backward()
    out[name] = {"value": loss.item(), "grads": [x.grad.flatten().tolist() for x in xs]}
def released(*x):
    return -torch.log(sum(torch.log(1 + t.var(dim=-1)).sum() for t in x))
def paper(q0, q1, k0, k1):
    var = lambda t: t.var(dim=(0, 1, 3), unbiased=False)
    return -torch.log(sum(torch.log(1 + var(a) * var(b)).sum() for a, b in ((q0, k0), (q1, k1))))
run("entropy_released", released, q + k)
run("entropy_paper", paper, q + k)
cos = lambda a, b: F.cosine_similarity(a.reshape(B, H, -1), b.reshape(B, H, -1), dim=-1, eps=1e-6).sum()
run("distribution_literal", lambda a, b: torch.log(cos(a, teacher[0]) + cos(b, teacher[1])), student)
kl = torch.nn.KLDivLoss(reduction="batchmean")
def distill(x):
    soft = kl(F.log_softmax(x / 2, dim=-1), F.softmax(goal / 2, dim=-1))
    return 0.5 * F.cross_entropy(x.reshape(-1, V), labels.flatten()) + 0.5 * 4 * soft
run("distillation_sequences", distill, [logits])
print(json.dumps(out))
