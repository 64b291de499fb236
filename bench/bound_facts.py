#!/usr/bin/env python3
"""How many candidates exact search in int8 takes, from files of bench/harvest: rows whose upper bound reaches the score
of the 32nd best, median / 99 % of the queries, for each share of the mean key that is taken off the keys (the centre),
with and without Hadamard's transform. What libmemtx/search/exact_i8.h says, in NumPy and apart from it; it takes half of
the mean, and the transform.

Prints Markdown, a line for each file. Needs NumPy; a quarter of a minute a file.

    bench/bound_facts.py [--queries 256] [--rows 65280] data/cache/harvest/{ext4,northanger}/{03,15,27}-0.harvest
"""
import argparse

import numpy as np

from key_facts import K, complain, read_harvest

SHARES = (0, 0.25, 0.5, 0.75, 1)


def hadamard(dim):
    matrix = np.ones((1, 1))
    while len(matrix) < dim:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / np.sqrt(dim)).astype(np.float32)


def rounded(vectors):
    """Vectors in steps of their largest number, and what was rounded off."""
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
    kept = np.rint(vectors / np.where(steps > 0, steps, 1)) * steps
    return kept.astype(np.float32), np.linalg.norm(vectors - kept, axis=1)


def candidates(keys, queries, centre, transform):
    """For each query: how many bounds reach its K-th best score."""
    kth = np.partition(queries @ keys.T, len(keys) - K, axis=1)[:, len(keys) - K]
    turned = queries @ transform
    rows, lost = rounded((keys - centre) @ transform)
    asked, lost_of_queries = rounded(turned)
    bounds = asked @ rows.T + (queries @ centre)[:, None] + np.linalg.norm(turned, axis=1)[:, None] * lost
    bounds += lost_of_queries[:, None] * np.linalg.norm(rows, axis=1)
    return np.sum(bounds >= kth[:, None], axis=1)


def line_of(path, args):
    _, keys, queries, _ = read_harvest(path, args.queries)
    keys, dim = keys[-args.rows:], keys.shape[1]
    if dim & (dim - 1):
        complain(path, f"keys of {dim} numbers: this script knows powers of two")
    mean = keys.mean(axis=0, dtype=np.float64).astype(np.float32)
    cells = ["/".join(path.split("/")[-2:]).removesuffix(".harvest")]
    for transform in (np.eye(dim, dtype=np.float32), hadamard(dim)):
        for share in SHARES:
            n = candidates(keys, queries, np.float32(share) * mean, transform)
            cells.append(f"{np.median(n):.0f} / {np.quantile(n, 0.99):.0f}")
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--rows", type=int, default=65280, help="the newest of the file")
    parser.add_argument("files", nargs="+", metavar="FILE.harvest")
    args = parser.parse_args()
    head = ["keys"] + [f"{share:g}" for share in SHARES] + [f"transformed, {share:g}" for share in SHARES]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    for path in args.files:
        print("| " + " | ".join(line_of(path, args)) + " |", flush=True)


if __name__ == "__main__":
    main()
