"""Golden numbers of test/rng.test.ts: Threefry-2x32 and what JAX builds on it, written anew in Python.

python3 test/golden/rng.py      (needs numpy)
"""
import math
from statistics import NormalDist

import numpy as np

MASK = 0xFFFFFFFF
ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]]


def threefry(key, counter):
    parts = [key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = (counter[0] + parts[0]) & MASK, (counter[1] + parts[1]) & MASK
    for group in range(5):
        for r in ROTATIONS[group % 2]:
            x = (x + y) & MASK
            y = (((y << r) | (y >> (32 - r))) & MASK) ^ x
        x = (x + parts[(group + 1) % 3]) & MASK
        y = (y + parts[(group + 2) % 3] + group + 1) & MASK
    return x, y


def bits(key, n):
    return [a ^ b for a, b in (threefry(key, (0, i)) for i in range(n))]


def split(key, n=2):
    return [threefry(key, (0, i)) for i in range(n)]


def permutation(key, n):
    order = np.arange(n)
    for _ in range(math.ceil(3 * math.log(n) / math.log(2**32 - 1))):
        key, sort_key = split(key)
        order = order[np.argsort(np.array(bits(sort_key, n), np.uint32), kind="stable")]
    return order.tolist()


def random_ints(key, n, lo, hi):
    high, low = split(key)
    span = hi - lo
    multiplier = (((2**16 % span) ** 2) & MASK) % span
    return [
        lo + (((h % span) * multiplier & MASK) + (l % span) & MASK) % span
        for h, l in zip(bits(high, n), bits(low, n))
    ]


def fold(key, text):
    data = text.encode()
    key = threefry(key, (MASK, len(data)))
    data += bytes(-len(data) % 8)
    for i in range(0, len(data), 8):
        key = threefry(key, [int.from_bytes(data[j : j + 4], "little") for j in (i, i + 4)])
    return key


f32 = np.float32
KEY = (0, 1701)
units = [f32(b >> 9) * f32(2**-23) for b in bits((7, 9), 5)]
print("permutation", permutation(KEY, 12))
print("sum of i p[i]", sum(i * p for i, p in enumerate(permutation(KEY, 5000))))
print("ints", random_ints(KEY, 6, -1000, 100000))
print("ints", random_ints(KEY, 6, -(2**31), 2**31))
print("fold", fold((0, 0), ""), fold(KEY, "layers.0.weight"), fold(KEY, "zoë 雪 🎈"))
print("fold", threefry(KEY, (0, 12)), threefry(KEY, (3, 5)))
print("uniform", [float(u * (f32(3) - f32(-2.5)) + f32(-2.5)) for u in units])
open_units = [float(u * f32(2) + f32(-1 + 2**-24)) for u in units]
print("normal", [NormalDist().inv_cdf((u + 1) / 2) for u in open_units])
