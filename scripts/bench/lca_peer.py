"""The same systems in NumPy and SciPy, one thread: CPU seconds as a line of JSON for each task.

    python3 scripts/bench/lca_peer.py < tasks.json

A Monte Carlo task draws, builds all matrices of a chunk and solves them in one batched call, which is the
fast way in NumPy; a sparse task is one sparse direct solution.
"""
import json
import sys
import time

import numpy
import scipy.sparse
import scipy.sparse.linalg

CHUNK = 2000


def monte_carlo(runs, processes, offsets, amount, gsd, carbon_gsd, demands):
    """Median scores of a ring whose every entry is lognormal."""
    random = numpy.random.default_rng(1)
    n = processes
    columns = numpy.arange(n)
    demand = numpy.zeros((n, len(demands)))
    demand[demands, numpy.arange(len(demands))] = 1
    carbon = 2 * (1 + columns / 10)
    scores = numpy.empty((runs, len(demands)))

    def solve(use, burden):
        a = numpy.zeros((len(use), n, n))
        a[:, columns, columns] = 1
        for offset in offsets:
            a[:, (columns + offset) % n, columns] -= use / offset
        supply = numpy.linalg.solve(a, demand[None])
        return numpy.einsum("rj,rjd->rd", burden, supply)

    for start in range(0, runs, CHUNK):
        count = min(CHUNK, runs - start)
        use = amount * numpy.exp(numpy.log(gsd) * random.standard_normal((count, n)))
        burden = carbon * numpy.exp(
            numpy.log(carbon_gsd) * random.standard_normal((count, n))
        )
        scores[start : start + count] = solve(use, burden)
    central = solve(numpy.full((1, n), amount), carbon[None])[0]
    return {"central": central.tolist(), "median": numpy.median(scores, axis=0).tolist()}


def sparse_system(n, starts, rows, values, demand):
    """Largest error of the solution, by the matrix itself."""
    matrix = scipy.sparse.csc_matrix((values, rows, starts), shape=(n, n))
    f = numpy.zeros(n)
    f[demand] = 1
    supply = scipy.sparse.linalg.splu(matrix).solve(f)
    return {"error": float(numpy.abs(matrix @ supply - f).max())}


for task in json.load(sys.stdin):
    work = {"monte_carlo": monte_carlo, "sparse_system": sparse_system}[task.pop("task")]
    start = time.process_time()
    result = work(**task)
    print(json.dumps({"seconds": time.process_time() - start, **result}))
