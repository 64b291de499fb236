#!/usr/bin/env python3
"""The table from which memtx eval's defaults were chosen: one option varied at a time around the best.

Runs `memtx eval` once for each cell and text (the first 16,384 tokens, those after 1,024 scored), keeps every JSON under
--out so that a broken-off table goes on, and prints Markdown: NLL of sinks, and each cell's difference to it with the
standard error over blocks of 512 tokens (both runs score the same tokens, so the blocks pair).

    bench/cells.py [--set choose|prototype|report|long|index|index-choose|index-long] [--memtx build/memtx]
                   [--out data/cache/cells] [--nll-only] [--blocks A:B]
"""
import argparse
import json
import math
import os
import subprocess
import sys

CHOOSE = {"Northanger Abbey": "books/northangerabbey.txt", "kernel/sched": "code/kernel-sched.txt"}
REPORT = {"Persuasion": "books/persuasion.txt", "net/sctp": "code/net-sctp.txt"}
BEST = {"layers": "15-29", "delta": "2048", "positions": "near", "k": "32", "blend": "joint", "index": "exact"}


def memory(**changes):
    options = dict(BEST, **changes)
    return ["--modes", "memory"] + [word for name, value in options.items() for word in ("--" + name, value)]


def bias(b):
    return {"blend": "bias", "bias": b}


CELLS = [
    ("sinks, W = 512", ["--modes", "sinks"]),
    ("xl (no sinks)", ["--modes", "xl"]),
    ("sinks, W = 2,048", ["--modes", "sinks", "--window", "2048"]),
    ("random rows, else as the best", ["--modes", "memory-random", "--layers", "15-29", "--delta", "2048"]),
    ("**memory: layers 15-29, delta 2,048, near, k 32, joint**", memory()),
    ("layer 15 alone (1/2 depth)", memory(layers="15")),
    ("layer 22 alone (3/4 depth)", memory(layers="22")),
    ("layers 20-29 (upper third)", memory(layers="20-29")),
    ("layers 8-29 (upper three quarters)", memory(layers="8-29")),
    ("all layers", memory(layers="all")),
    ("delta 256 (W/2)", memory(delta="256")),
    ("delta 512 (W)", memory(delta="512")),
    ("delta 1,024 (2W)", memory(delta="1024")),
    ("delta 4,096 (8W)", memory(delta="4096")),
    ("positions fixed", memory(positions="fixed")),
    ("k 8", memory(k="8")),
    ("k 128", memory(k="128")),
    ("bias -1", memory(**bias("-1"))),
    ("bias -2", memory(**bias("-2"))),
]
# Further cells of the NumPy prototype, so that each can be set beside ours.
PROTOTYPE = [
    ("fixed, delta 512", memory(positions="fixed", delta="512")),
    ("fixed, delta 256", memory(positions="fixed", delta="256")),
    ("fixed, delta 0", memory(positions="fixed", delta="0")),
    ("layers 8-29, fixed", memory(layers="8-29", positions="fixed")),
    ("layer 15, fixed, delta 512", memory(layers="15", positions="fixed", delta="512")),
    ("layer 22, fixed, delta 512", memory(layers="22", positions="fixed", delta="512")),
    ("layers 12,17,22,27, fixed", memory(layers="12,17,22,27", positions="fixed")),
    ("random rows, delta 1,024, bias -1", ["--modes", "memory-random", "--layers", "15-29", "--delta", "1024"]
     + ["--blend", "bias", "--bias", "-1"]),
]
# What lost recall costs: the same with other indexes, compared with exact search, which comes first.
RUNS = "8160"  # rows of a run: at the default of 65,280 a text of that length is searched exactly nearly to its end
INDEXES = [
    ("**exact**", memory()),
    ("exact:bf16", memory(index="exact:bf16")),
    ("exact:f32", memory(index="exact:f32")),
    ("cluster, 2 %", memory(index="cluster@share=0.02")),
    ("cluster (5 %)", memory(index="cluster")),
    ("cluster, 10 %", memory(index="cluster@share=0.1")),
    ("faiss:IVF128, nprobe 8", memory(index="faiss:IVF128,Flat@nprobe=8", **{"run-rows": RUNS})),
    ("faiss:IVF128,SQ8, nprobe 8", memory(index="faiss:IVF128,SQ8@nprobe=8", **{"run-rows": RUNS})),
    ("random rows", CELLS[3][1]),
    ("sinks", CELLS[0][1]),
]
# What a long text may be read with: exact search up to so many rows, clusters from there on.
LONG = [INDEXES[0], ("cluster (5 %)", memory(index="cluster")),
        ("cluster from 32,640 rows on", memory(index="cluster@from=32640"))]
REPORTED = [CELLS[i] for i in (0, 1, 2, 3, 4, 9)]

SETS = {
    "choose": (CHOOSE, CELLS, 16384),
    "prototype": ({"Northanger Abbey": CHOOSE["Northanger Abbey"]}, [CELLS[0]] + PROTOTYPE, 16384),
    "report": (REPORT, REPORTED, 16384),
    "long": (REPORT, [CELLS[i] for i in (0, 4, 3)], 65536),
    "index": (CHOOSE, INDEXES, 16384),
    "index-choose": ({"Northanger Abbey": CHOOSE["Northanger Abbey"]}, LONG, 65536),
    "index-long": (REPORT, LONG[:2], 65536),
}


def run_cell(args, text, options, tokens, name):
    path = os.path.join(args.out, name + ".json")
    if not os.path.exists(path):
        command = [args.memtx, "eval", os.path.join(args.data, "model.gguf"), os.path.join(args.data, text)]
        command += ["--tokens", str(tokens), "--skip", "1024", "--json", path] + options
        print(" ".join(command), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(path, encoding="utf-8") as file:
        return json.load(file)["runs"][0]


def difference(run, base, blocks):
    d = [a - b for a, b in zip(run["block_nll"], base["block_nll"])][blocks]
    mean = sum(d) / len(d)
    return mean, math.sqrt(sum((x - mean) ** 2 for x in d) / (len(d) - 1) / len(d))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="choose")
    parser.add_argument("--memtx", default="build/memtx")
    parser.add_argument("--data", default="data/cache")
    parser.add_argument("--out", default="data/cache/cells")
    parser.add_argument("--nll-only", action="store_true", help="without tokens/s, for runs beside other work")
    parser.add_argument("--blocks", default=":", metavar="A:B", help="differences over blocks A .. B - 1 of 512 tokens")
    args = parser.parse_args()
    blocks = slice(*(int(n) if n else None for n in args.blocks.split(":")))
    texts, cells, tokens = SETS[args.set]
    os.makedirs(args.out, exist_ok=True)
    rows = [[label] for label, _ in cells]
    for text, path in texts.items():
        base = None
        for row, (label, options) in zip(rows, cells):
            stem = os.path.basename(path)[:-4]
            name = f"{stem}-{tokens}-" + "_".join(o.strip("-") for o in options).replace(",", "+").replace(":", "+")
            run = run_cell(args, path, options, tokens, name)
            base = base or run
            row.append(f"{run['nll']:.4f}" if run is base else "%+.4f +- %.4f" % difference(run, base, blocks))
            row += [] if args.nll_only else [f"{run['tokens_per_s']:.0f}"]
    columns = [column for text in texts for column in ([text] if args.nll_only else [text, "tokens/s"])]
    print("| cell | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
