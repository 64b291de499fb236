#!/usr/bin/env python3
"""Writes memory_reference.json: NLL of the first tokens of Northanger Abbey in modes sinks and memory.

    make_memory_reference.py MODEL.gguf northangerabbey.txt            writes the file
    make_memory_reference.py MODEL.gguf northangerabbey.txt N_TOKENS   prints sinks and memory over N_TOKENS, in float32

First checks the reference against itself: with every row retrieved, unrounded, at its true distance and in all layers,
joint must equal full attention.
"""

import hashlib
import json
import os
import sys
import time

import numpy as np

import memory_reference as reference
import model_reference
import tokenizer_reference
from memory_reference import Probe, Setting
from model_reference import significant

N_TOKENS = 3072
N_TOKENS_OF_VARIANTS = 2048
UPPER = tuple(range(15, 30))
PROBES = [(layer, position, head) for layer in (15, 22, 29) for position in (1024, 2100, 3071) for head in (0, 4, 8)]

RUNS = {  # name: (tokens, setting)
    "sinks": (N_TOKENS, Setting()),
    "memory": (N_TOKENS, Setting(memory_layers=UPPER)),
    "memory, all layers": (N_TOKENS_OF_VARIANTS, Setting(memory_layers=tuple(range(30)))),
    "memory, bias -1": (N_TOKENS_OF_VARIANTS, Setting(memory_layers=UPPER, b=-1.0)),
    "memory, paper -4": (N_TOKENS_OF_VARIANTS, Setting(memory_layers=UPPER, a=0.0, b=-4.0)),
    "memory, fixed": (N_TOKENS_OF_VARIANTS, Setting(memory_layers=UPPER, positions="fixed")),
    "memory, delta 1024": (N_TOKENS_OF_VARIANTS, Setting(memory_layers=UPPER, delta=1024)),
    "memory, T 300, W 200, s 3, k 5, delta 700": (
        N_TOKENS_OF_VARIANTS,
        Setting(segment=300, window=200, sinks=3, k=5, delta=700, memory_layers=UPPER),
    ),
}


def check_against_full_attention(model, ids):
    everything = Setting(
        window=128, segment=128, sinks=0, k=len(ids), delta=len(ids), row_type=None,
        memory_layers=tuple(range(model.n_layers)),
    )  # fmt: skip
    _, logits = reference.run(model, ids, everything, keep_logits=True)
    difference = np.abs(logits - model_reference.forward_full(model, ids)).max()
    print(f"joint over all rows against full attention, {len(ids)} tokens: logits differ by {difference:.1e}")
    assert difference < 1e-8


def read_ids(model_path, text_path):
    with open(text_path, encoding="utf-8", newline="") as file:
        text = file.read()
    return tokenizer_reference.encode(tokenizer_reference.load(model_path), text)


def sha256_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_in_float32(model_path, ids):
    """How much memory gains over sinks on a longer text, tokens after 1,024: to be set beside other measurements."""
    model = model_reference.Model(model_path, np.float32)
    nll = {name: reference.run(model, ids, RUNS[name][1])[0][1023:] for name in ("sinks", "memory")}
    for name, values in nll.items():
        print(f"{name}: {len(values)} tokens after 1,024, mean NLL {values.mean(dtype=np.float64):.5f}")
    gain = (nll["memory"] - nll["sinks"]).astype(np.float64)
    blocks = gain[: len(gain) // 512 * 512].reshape(-1, 512).mean(axis=1)
    print(f"memory - sinks {gain.mean():+.5f} +- {blocks.std(ddof=1) / np.sqrt(len(blocks)):.5f}")


def main(model_path, text_path):
    ids = read_ids(model_path, text_path)[:N_TOKENS]
    model = model_reference.Model(model_path, np.float64)
    check_against_full_attention(model, ids[:768])

    probes = [Probe(*p) for p in PROBES]
    runs = []
    for name, (n_tokens, setting) in RUNS.items():
        began = time.monotonic()
        nll, _ = reference.run(model, ids[:n_tokens], setting, probes if name == "memory" else ())
        print(f"{name}: {n_tokens} tokens, mean NLL {nll.mean():.7f}, {time.monotonic() - began:.0f} s", flush=True)
        runs.append(
            {
                "name": name,
                "mode": "memory" if setting.memory_layers else "sinks",
                "n_tokens": n_tokens,
                "window": setting.window,
                "segment": setting.segment,
                "sinks": setting.sinks,
                "layers": list(setting.memory_layers),
                "k": setting.k,
                "delta": setting.delta,
                "positions": setting.positions,
                "a": setting.a,
                "b": setting.b,
                "row_type": "f16",
                "mean_nll": significant([nll.mean()], 9)[0],
                "nll": significant(nll),  # of tokens 2 .. n_tokens
            }
        )

    # what rounding alone does: the same two modes in float32
    single = model_reference.Model(model_path, np.float32)
    for done in runs[:2]:
        nll, _ = reference.run(single, ids, RUNS[done["name"]][1])
        off = np.abs(nll - np.array(done["nll"]))
        print(f"{done['name']}, float32: mean NLL {nll.mean(dtype=np.float64):.7f}, a token differs by up to {off.max():.1e}")

    out = {
        "what": "sinks and memory over the first tokens of Northanger Abbey; made by make_memory_reference.py",
        "model_sha256": sha256_of_file(model_path),
        "text": os.path.basename(text_path),
        "text_sha256": sha256_of_file(text_path),
        "ids": ids,
    }
    last = [
        {
            "layer": p.layer, "position": p.position, "head": p.head,
            "lse_loc": significant([p.lse_loc])[0], "lse_mem": significant([p.lse_mem])[0],
            "hits": p.hits, "scores": significant(p.scores),
        }
        for p in probes
    ]  # fmt: skip
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "memory_reference.json")
    with open(path, "w") as file:
        # one run, one probe on a line
        file.write(json.dumps(out, separators=(",", ":"))[:-1])
        for key, items in (("runs", runs), ("probes", last)):
            lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
            file.write(f',\n"{key}":[\n{lines}\n]')
        file.write("}\n")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(*sys.argv[1:])
    elif len(sys.argv) == 4:
        compare_in_float32(sys.argv[1], read_ids(*sys.argv[1:3])[: int(sys.argv[3])])
    else:
        sys.exit(__doc__)
