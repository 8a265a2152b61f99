# Values and gradients of quantizers by PyTorch: /usr/bin/python3 test/golden/quantizer.py > test/golden/quantizer.json (torch 1.13.0)
import torch, json, math
torch.set_printoptions(precision=9)
x0 = torch.tensor([[0.3, -1.27, 0.05, 2.4, -0.62, 0.875], [-2.2, 0.5, 1.1, -0.13, 0.0, 3.1]])
dy = torch.tensor([[1.0, -0.5, 2.0, 0.25, -1.5, 0.75], [0.5, 1.25, -2.0, 1.0, 3.0, -0.25]])
out = {}
def run(name, f, **params):
    x = x0.clone().requires_grad_()
    ps = {k: torch.tensor(v).requires_grad_() for k, v in params.items()}
    y = f(x, **ps); y.backward(dy)
    out[name] = {"y": y.detach().flatten().tolist(), "dx": x.grad.flatten().tolist(), **{"d_" + k: p.grad.item() for k, p in ps.items()}}
rs = lambda v: (v.round() - v).detach() + v
gs = lambda t, g: (t - t * g).detach() + t * g
def edge(x, alpha, zp):
    g = 1 / math.sqrt(x.numel() * 7)
    a, z = gs(alpha, g), gs(rs(zp), g)
    return (rs((x / a + z).clamp(-8, 7)) - z) * a
run("edge", edge, alpha=0.21, zp=0.6)
def lsqw(x, alpha):
    g = 1 / math.sqrt(x.numel() * 7)
    a = gs(alpha, g)
    return rs((x / a).clamp(-8, 7)) * a
run("lsq", lsqw, alpha=0.17)
def lsqplus(x, s, beta):
    g = 1 / math.sqrt(x.numel() * 15)
    s, b = gs(s, g), gs(beta, g)
    return rs(((x - b) / s).clamp(0, 15)) * s + b
run("lsqplus", lsqplus, s=0.19, beta=-0.7)
class Pact(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alpha):
        ctx.save_for_backward(x, alpha)
        y = torch.clamp(x, min=0, max=alpha.item()); sc = 15 / alpha
        return torch.round(y * sc) / sc
    @staticmethod
    def backward(ctx, dy):
        x, alpha = ctx.saved_tensors
        return dy * ((x > 0) & (x < alpha)).float(), (dy * (x >= alpha).float()).sum().view(())
run("pact", lambda x, alpha: Pact.apply(x, alpha), alpha=1.1)
def dorefa(w):
    t = torch.tanh(w); u = t / (2 * t.abs().max()) + .5
    return 2 * (rs(u * 15) / 15) - 1
run("dorefa", dorefa)
class Sym(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        m = x.abs().max(dim=-1, keepdim=True)[0]; s = 7 / (m + 1e-6)
        return torch.round(x * s).div(s + 1e-6)
    @staticmethod
    def backward(ctx, dy):
        x, = ctx.saved_tensors; g = dy.clone(); g[x.ge(2)] = 0; g[x.le(-2)] = 0
        return g
run("llmqat", lambda x: Sym.apply(x))
run("torchfake", lambda x: torch.fake_quantize_per_tensor_affine(x, 0.21, 3, 0, 15))
sc = torch.tensor([0.1, 0.3]); zp = torch.tensor([2, -3], dtype=torch.int32)
run("torchchannel", lambda x: torch.fake_quantize_per_channel_affine(x, sc, zp, 0, -8, 7))
run("nipq_eval", lambda x, a: (lambda s: rs((x / s).clamp(0, 15)) * s)(torch.nn.functional.softplus(a) / 15), a=0.8)
print(json.dumps(out, indent=1))
