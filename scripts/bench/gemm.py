"""The matrix products of gemm.ts in PyTorch, one thread.

python3 scripts/bench/gemm.py '{"products": [...], ...}'      (one line of JSON on stdout)
"""
import json
import statistics
import sys
import time

import torch

REPETITIONS = 3


def pattern(n):
    return torch.tensor([(i * 7) % 11 - 5 for i in range(n)], dtype=torch.float32)


def measure(product, milliseconds):
    m, n, k = product["m"], product["n"], product["k"]
    a = pattern(m * k).view(k, m).t() if product["transposeA"] else pattern(m * k).view(m, k)
    b = pattern(k * n).view(n, k).t() if product["transposeB"] else pattern(k * n).view(k, n)
    check = (a @ b).flatten()[-1].item()
    rates = []
    for _ in range(REPETITIONS):
        start, spent, runs = time.perf_counter(), 0, 0
        while spent < milliseconds / 1e3:
            a @ b
            runs += 1
            spent = time.perf_counter() - start
        rates.append(2 * m * n * k * runs / spent / 1e9)
    return statistics.median(rates), check


def main(task):
    torch.set_num_threads(1)
    with torch.no_grad():
        results = [measure(product, task["milliseconds"]) for product in task["products"]]
    print(json.dumps({
        "gflops": [rate for rate, _ in results],
        "checks": [check for _, check in results],
        "engine": f"PyTorch {torch.__version__}, {torch.get_num_threads()} thread",
    }))


main(json.loads(sys.argv[1]))
