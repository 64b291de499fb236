#!/usr/bin/env python3
"""How many times as fast as faiss:Flat exact search is, as Markdown.

Runs build/bench_index over and over, each time both of them with a few repeats, and gives the median and the range of
the ratios: between one run and the next a shared machine may have become slower, within one it hardly does. Attention
as a whole, with both cores, and OpenBLAS as it chooses by itself (its core type is said).

    bench/flat_ratio.py [--rows 65536] [--queries 512,1536] [--runs 9] [FILE.harvest ..]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPECS = ("exact", "exact:f32", "faiss:Flat")


def environment():
    """Without what was set for OpenBLAS; threads that wait do not take the core of those that work."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    return dict(env, OPENBLAS_VERBOSE="2", OMP_WAIT_POLICY=os.environ.get("OMP_WAIT_POLICY", "passive"))


def run_once(args, data, queries):
    """Rates of SPECS, and OpenBLAS's core type."""
    command = [args.bench, "--rows", str(args.rows), "--queries", str(queries), "--indexes", ";".join(SPECS)]
    command += ["--repeats", "5", "--json", "-"] + (["--keys", data] if data else [])
    done = subprocess.run(command, check=True, text=True, capture_output=True, env=environment())
    cores = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("Core:")]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [line["queries_per_s"] for line in lines], cores[0] if cores else "?"


def summary(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("harvests", nargs="*", metavar="FILE.harvest", help="rows of a model; random ones come always")
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--queries", default="512,1536")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--bench", default=os.path.join(ROOT, "build", "bench_index"))
    args = parser.parse_args()
    print("| rows | queries | runs | exact to faiss:Flat | exact:f32 to it | OpenBLAS |\n|---|---|---|---|---|---|")
    for data in [None] + args.harvests:
        for queries in args.queries.split(","):
            name = "/".join(data.split("/")[-2:]).replace(".harvest", "") if data else "random"
            runs = []
            for n in range(args.runs):
                print(f"{name}, {queries} queries: run {n + 1} of {args.runs}", end="\r", file=sys.stderr)
                runs.append(run_once(args, data, queries))
            rates = [rates for rates, _ in runs]
            ratios = [summary([rate[i] / rate[2] for rate in rates]) for i in range(2)]
            print(f"| {args.rows:,}, {name} | {queries} | {args.runs} | {ratios[0]} | {ratios[1]} | {runs[0][1]} |",
                  flush=True)


if __name__ == "__main__":
    main()
