#!/usr/bin/env python3
"""How keys and queries of a model lie, from files of bench/harvest: what makes them easy or hard for an index.

Prints Markdown, a line for each file. Queries are some of the last segment, keys all that the segment sees; scores are
inner products, as they rank the rows (a logit is a score times the scale of the softmax).

  norms         of keys and of queries, mean +- standard deviation
  mean key      its square norm as a share of the keys' mean square norm: what taking the mean off takes away
  1 / 4 / 16    share of the variance around the mean key that lies in so many principal directions
  32nd, median  cosine of query and key at the 32nd best and at the median score: mean (10 % .. 90 %)
  logits        by how much the 32nd best lies above the median one, mean (10 % .. 90 %)
  nearest       largest cosine to a key, mean: of queries, and of keys (other than themselves); in brackets with the
                mean key taken off the keys, which ranks nothing differently
  firsts        how few keys are the best of nine queries in ten, and how far these lie from the mean key, to the average
                key's distance
  newest        share of the 32 best within the newest 4,096 rows; in brackets were they strewn evenly
  in runs       share of the 32 best beside which another one of the same query stands; in brackets strewn evenly

Needs NumPy. At a million rows it takes half a minute and 1 GB for each file.

    bench/key_facts.py [--queries 512] data/cache/harvest/mix1m/{03,15,27}-0.harvest
"""
import argparse
import os
import struct
import sys

import numpy as np

K, NEWEST, HEADER_BYTES = 32, 4096, 40
AT_ONCE = 32  # queries whose scores are held together


def complain(path, why):
    sys.exit(f"key_facts: {path}: {why}")


def read_harvest(path, n_wanted):
    """name, keys[n][d] that the last segment sees, n_wanted of its queries[][d] evenly taken, scale: float32."""
    with open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(b"mtxharv1"):
        complain(path, "was not written by bench/harvest")
    _, layer, kv_head, dim, n_segments, n_queries, scale, n_rows = struct.unpack("<8s5IfQ", head)
    segment_bytes = 8 + 4 * n_queries * dim
    if min(dim, n_segments, n_queries, n_rows) < 1 or \
            os.path.getsize(path) != HEADER_BYTES + 4 * n_rows * dim + n_segments * segment_bytes:
        complain(path, "its size is not what its head says")
    bytes_of = np.memmap(path, dtype=np.uint8, mode="r")
    last = bytes_of[HEADER_BYTES + 4 * n_rows * dim + (n_segments - 1) * segment_bytes:]
    n_visible = int(last[:8].view("<u8")[0])
    if not K < n_visible <= n_rows:
        complain(path, f"its last segment sees {n_visible} rows: of {n_rows} that are there, more than {K} are needed")
    keys = bytes_of[HEADER_BYTES:HEADER_BYTES + 2 * n_visible * dim].view("<f2").reshape(n_visible, dim)
    queries = last[8:].view("<f4").reshape(n_queries, dim)
    chosen = np.linspace(0, n_queries - 1, min(n_wanted, n_queries)).astype(int)
    return f"{layer}, {kv_head}", keys.astype(np.float32), queries[chosen].astype(np.float32), scale


def spread(values):
    low, high = np.quantile(values, (0.1, 0.9))
    return f"{np.mean(values):.2f} ({low:.2f} .. {high:.2f})"


def variance_facts(keys):
    """Share of the mean key, and of the first principal directions in what is left."""
    mean = keys.mean(axis=0, dtype=np.float64)
    second = np.zeros((keys.shape[1], keys.shape[1]))
    for first in range(0, len(keys), 1 << 16):  # in pieces, so that double is not needed for all at once
        piece = keys[first:first + (1 << 16)].astype(np.float64)
        second += piece.T @ piece
    second /= len(keys)
    values = np.sort(np.linalg.eigvalsh(second - np.outer(mean, mean)))[::-1]
    tops = " / ".join(f"{values[:n].sum() / values.sum():.2f}" for n in (1, 4, 16))
    return f"{mean @ mean / np.trace(second):.2f}", f"{tops} of {keys.shape[1]}"


def ranking_facts(keys, queries, norms):
    """For each query: its K-th best and its median score as cosines, and what lies between; which of its hits are new,
    and which in runs."""
    n = len(keys)
    facts = {name: [] for name in ("gap", "kth", "median", "newest", "in_runs", "first")}
    for first in range(0, len(queries), AT_ONCE):
        some = queries[first:first + AT_ONCE]
        all_scores = some @ keys.T
        ordered = np.partition(all_scores, (n // 2, n - K), axis=1)
        for query, scores, kth, median in zip(some, all_scores, ordered[:, n - K], ordered[:, n // 2]):
            length = np.linalg.norm(query)
            hits = np.flatnonzero(scores >= kth)
            apart = np.diff(hits) == 1
            facts["gap"].append(kth - median)
            facts["first"].append(np.argmax(scores))
            facts["kth"].append(kth / length / norms[hits[np.argmin(scores[hits])]])
            facts["median"].append(median / length / norms[np.argmin(np.abs(scores - median))])
            facts["newest"].append(np.mean(hits >= n - NEWEST))
            facts["in_runs"].append(np.mean(np.append(apart, False) | np.insert(apart, 0, False)))
    return facts


def nearest(keys, rows, vectors):
    """Mean of the largest cosine of the vectors to a key; vector i is key rows[i], which then does not count, or -1."""
    norms = np.linalg.norm(keys, axis=1)
    largest = []
    for first in range(0, len(vectors), AT_ONCE):
        some, own = vectors[first:first + AT_ONCE], rows[first:first + AT_ONCE]
        cosines = some @ keys.T / norms / np.linalg.norm(some, axis=1)[:, None]
        cosines[own >= 0, own[own >= 0]] = -1
        largest += list(cosines.max(axis=1))
    return np.mean(largest)


def nearest_facts(keys, queries):
    """Of queries, and of as many keys: as they are, and with the mean key taken off the keys."""
    chosen = np.linspace(0, len(keys) - 1, min(len(keys), len(queries))).astype(int)
    none = np.full(len(queries), -1)
    around = keys - keys.mean(axis=0, dtype=np.float64).astype(np.float32)
    return [f"{nearest(keys, none, queries):.2f} ({nearest(around, none, queries):.2f})",
            f"{nearest(keys, chosen, keys[chosen]):.2f} ({nearest(around, chosen, around[chosen]):.2f})"]


def firsts(keys, rows):
    """Of rows, the best of each query: the fewest keys that are nine tenths of them, and how far out these lie."""
    which, counts = np.unique(rows, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    n = int(np.searchsorted(np.cumsum(counts[order]), 0.9 * len(rows))) + 1
    distances = np.linalg.norm(keys - keys.mean(axis=0, dtype=np.float64).astype(np.float32), axis=1)
    return f"{n}, {distances[which[order[:n]]].mean() / distances.mean():.1f}"


def line_of(path, n_queries):
    name, keys, queries, scale = read_harvest(path, n_queries)
    n = len(keys)
    norms, lengths = np.linalg.norm(keys, axis=1), np.linalg.norm(queries, axis=1)
    if not (np.all(norms > 0) and np.all(lengths > 0)):
        complain(path, "has a key or a query of length 0, or one that is no number")
    found = ranking_facts(keys, queries, norms)
    even = min(1, 2 * (K - 1) / (n - 1))
    return [name, f"{n:,}", f"{norms.mean():.1f} +- {norms.std():.1f}", f"{lengths.mean():.1f} +- {lengths.std():.1f}",
            *variance_facts(keys), spread(found["kth"]), spread(found["median"]),
            spread(scale * np.array(found["gap"])), *nearest_facts(keys, queries),
            firsts(keys, found["first"]), f"{np.mean(found['newest']):.2f} ({min(1, NEWEST / n):.3f})",
            f"{np.mean(found['in_runs']):.2f} ({even:.4f})"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("files", nargs="+", metavar="FILE.harvest")
    args = parser.parse_args()
    head = ["layer, kv head", "rows", "norm of keys", "of queries", "mean key", "1 / 4 / 16 directions", "32nd: cosine",
            "median", "logits between", "nearest key: of a query", "of a key", "firsts", "newest", "in runs"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    for path in args.files:
        print("| " + " | ".join(line_of(path, args.queries)) + " |", flush=True)


if __name__ == "__main__":
    main()
