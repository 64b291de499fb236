#!/usr/bin/env python3
"""Indexes side by side at four sizes, on what a model's memory holds and on random unit vectors: tables and plots.

Runs build/bench_index for each number of rows and each layer of a harvest (bench/harvest), and on random vectors, over
a list of specs. Every JSON line is kept under --out as it comes, so that a sweep that was broken off goes on with the
same command; whoever wants it anew removes the folder. Prints Markdown, a table for each size, and draws bench/plots/.

What takes long is measured on the middle layer alone, and what takes longer still not at all, by the estimates below:
--dry-run shows what would run and how long it may take. A ratio is to exact search in the same run of bench_index.

    bench/index_sweep.py [--rows 16384,65536] [--layers 3,15,27,random] [--only cluster] [--quick] [--dry-run]
"""
import argparse
import datetime
import json
import math
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIZES = [16384, 65536, 262144, 1000000]
QUERIES = 1536
REPEATS, SECONDS = 5, 2  # of a batch, and after how long none is begun
LONG, TOO_LONG = 12, 135  # seconds of one index with all its settings: above, the middle layer alone; not at all
EVERYWHERE = ("exact", "cluster", "Flat", "IVF,Flat")  # on every layer, however long
REACHED = 0.95  # the recall at which costs are compared
FAMILIES = ["exact", "exact:f32", "exact:bf16", "cluster", "Flat", "SQ8", "IVF,Flat", "IVF,SQ8", "IVF,SQfp16", "PQ16",
            "HNSW16"]


def complain(text):
    sys.exit("index_sweep: " + text)


# ---- what is run ---------------------------------------------------------------------------------

def n_lists(rows):
    """FAISS advises 4 to 16 sqrt(rows) lists."""
    return 2 ** round(math.log2(4 * math.sqrt(rows)))


def indexes_of(rows):
    """Families, and their specs, which one build serves. Lists of IVF are loaded, not mapped: the others are in RAM."""
    n = n_lists(rows)
    ivf = {"Flat": (64, 32, 16, 8, 4), "SQ8": (32, 8), "SQfp16": (32, 8)}
    made = [("exact", ["exact"]), ("exact:f32", ["exact:f32"]), ("exact:bf16", ["exact:bf16"])]
    made += [("cluster", ["cluster@share=" + share for share in ("0.01", "0.02", "0.05", "0.1", "0.2")])]
    made += [("Flat", ["faiss:Flat"]), ("SQ8", ["faiss:SQ8"])]
    made += [("IVF," + code, [f"faiss:IVF{n},{code}@nprobe={n // part},mmap=0" for part in parts])
             for code, parts in ivf.items()]
    made += [("PQ16", ["faiss:PQ16"]), ("HNSW16", [f"faiss:HNSW16@efSearch={ef}" for ef in (32, 64, 128, 256)])]
    return made


def family_of(spec):
    return re.sub(r"IVF\d+", "IVF", spec.split("@")[0].replace("faiss:", ""))


def search_seconds(spec, rows):
    """Of QUERIES at once on two cores, roughly, with 64 numbers a row: index/README.md, bench/README.md."""
    option = float(re.sub(r".*(share|nprobe|efSearch)=([\d.]+).*", r"\2", spec)) if "@" in spec else 0
    family = family_of(spec)
    if family.startswith("IVF"):
        return rows * option / n_lists(rows) * (25e-6 if family == "IVF,Flat" else 70e-6) + 0.05
    if family == "HNSW16":
        return 4e-3 * option
    if family == "cluster":
        return rows * 1.2e-6 * (0.15 + 2 * option)
    return rows * {"exact": 0.5e-6, "exact:f32": 1.2e-6, "exact:bf16": 0.7e-6, "Flat": 7e-6, "SQ8": 60e-6,
                   "PQ16": 8e-6}[family]


def build_seconds(family, rows):
    if family.startswith("IVF"):
        return 11 * rows * n_lists(rows) * 128 / 60e9 + 5e-6 * rows
    if family == "HNSW16":
        return 74e-6 * rows
    if family == "PQ16":
        return min(rows, 65536) * 1e-3 + 15e-6 * rows
    return 0.0 if family.startswith("exact") else 3e-6 * rows


def spec_seconds(spec, rows):
    """Asking a sample, and repeats of the batches of all, of 32 and of 1."""
    whole = search_seconds(spec, rows)
    batches = (whole, 1.3 * whole / 6, whole / 60)
    return whole + sum(t * min(REPEATS, math.ceil(SECONDS / t)) for t in batches)


def seconds_each(family, specs, rows):
    """The first of the specs pays for what all share; a memory makes its clusters itself."""
    build = build_seconds(family, rows)
    return [spec_seconds(spec, rows) + (build if i == 0 or family == "cluster" else 0) for i, spec in enumerate(specs)]


def other_seconds(rows):
    """Reading or drawing rows, the store, and what exact search says, in each run."""
    return 1 + 10e-6 * rows


def middle(layers):
    """The layer on which everything is measured: random vectors are nobody's memory."""
    harvested = [layer for layer in layers if layer != "random"]
    return harvested[len(harvested) // 2] if harvested else "random"


def is_wanted(args, family, specs, rows, layer):
    seconds = sum(seconds_each(family, specs, rows))
    most = LONG if args.quick or layer != middle(args.layers) else TOO_LONG
    return family in EVERYWHERE or seconds <= most


def is_chosen(args, family, spec):
    return not args.only or any(word == family or word in spec for word in args.only)


# ---- what is kept --------------------------------------------------------------------------------

def harvest_of(args, layer):
    return None if layer == "random" else os.path.join(args.harvest, f"{int(layer):02d}-0.harvest")


def kept_path(args, rows, layer):
    return os.path.join(args.out, f"{layer}-{rows}.jsonl")


def read_kept(args, rows, layer):
    """The last line of each spec; one whose writer was killed within it is passed over."""
    kept, runs, path = {}, {}, kept_path(args, rows, layer)
    for text in open(path, encoding="utf-8") if os.path.exists(path) else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["data"] == (harvest_of(args, layer) or "random") and line["repeats"] == args.repeats:
            kept[line["index"]] = line
            if line["index"] == "exact":
                runs[line["run"]] = line["queries_per_s"]
    for line in kept.values():
        line["ratio"] = line["queries_per_s"] / runs[line["run"]]
    return kept


# ---- running -------------------------------------------------------------------------------------

def environment(args, scratch):
    """As the library is run by default: nothing that steers OpenBLAS, threads that sleep while they wait."""
    env = {name: value for name, value in os.environ.items()
           if name not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    env.update(OMP_WAIT_POLICY="passive", TMPDIR=scratch)
    if args.threads:
        env["OMP_NUM_THREADS"] = str(args.threads)
    return env


def core_of_openblas(args, env):
    """What OpenBLAS takes this processor for, asked of the library that bench_index is linked with."""
    linked = subprocess.run(["ldd", args.bench], env=env, capture_output=True, text=True, check=False).stdout
    found = re.search(r"libopenblas\S* => (\S+)", linked)
    if not found:
        return "none"
    ask = "import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).openblas_get_corename; f.restype = ctypes.c_char_p; " \
          "print(f().decode())"
    return subprocess.run([sys.executable, "-c", ask, found[1]], env=env, capture_output=True, text=True,
                          check=True).stdout.strip()


def versions_of(args, env):
    said = subprocess.run([args.memtx, "--version"], env=env, capture_output=True, text=True, check=True).stdout
    return {"versions": said.splitlines()[0], "openblas": core_of_openblas(args, env)}


def plan(args):
    """Runs of bench_index: rows, layer, specs that are not kept, and seconds for each."""
    planned = []
    for rows in args.rows:
        for layer in args.layers:
            kept, todo = read_kept(args, rows, layer), []
            for family, specs in indexes_of(rows):
                missing = [spec for spec in specs if spec not in kept and is_chosen(args, family, spec)]
                if missing and is_wanted(args, family, specs, rows, layer):
                    todo += zip(missing, seconds_each(family, missing, rows))
            if todo:
                first = [] if todo[0][0] == "exact" else [("exact", spec_seconds("exact", rows))]
                planned.append((rows, layer, first + todo))
    return planned


def seconds_of(planned):
    return sum(other_seconds(rows) + sum(seconds for _, seconds in todo) for rows, _, todo in planned)


def say(text):
    print(time.strftime("%H:%M:%S ") + text, file=sys.stderr, flush=True)


def run_bench(args, env, facts, rows, layer, todo, seconds_left):
    """One run; its lines are kept one by one. How many there were: fewer than were asked for when it failed."""
    harvest = harvest_of(args, layer)
    command = [args.bench, "--rows", str(rows), "--queries", str(QUERIES), "--repeats", str(args.repeats), "--seconds",
               str(SECONDS), "--indexes", ";".join(spec for spec, _ in todo)] + (["--keys", harvest] if harvest else [])
    run = datetime.datetime.now().isoformat()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    n_done = 0
    try:
        with open(kept_path(args, rows, layer), "a", encoding="utf-8") as kept:
            while n_done < len(todo):
                spec, seconds = todo[n_done]
                say(f"{rows:,} rows, {layer}: {spec}, about {seconds:.0f} s; {n_done + 1} of {len(todo)} here, about "
                    f"{seconds_left / 60:.0f} min left")
                line = process.stdout.readline()
                if not line:
                    break
                made = dict(json.loads(line), run=run, layer=layer, repeats=args.repeats, **facts)
                kept.write(json.dumps(made) + "\n")
                kept.flush()
                n_done, seconds_left = n_done + 1, seconds_left - seconds
        return n_done if process.wait() == 0 or n_done < len(todo) else n_done - 1
    finally:
        process.kill()
        process.wait()


def sweep(args, scratch):
    """Whether all went well. A spec that fails is left out, and the run goes on with those behind it."""
    env, failed = environment(args, scratch), []
    facts = versions_of(args, env)
    planned = plan(args)
    while planned:
        rows, layer, todo = planned[0]
        n_done = run_bench(args, env, facts, rows, layer, todo, seconds_of(planned))
        planned = planned[1:]
        if n_done < len(todo):
            failed.append(f"{rows:,} rows, {layer}: {todo[n_done][0]}")
            rest = todo[n_done + 1:]
            if rest and todo[n_done][0] != "exact":
                planned.insert(0, (rows, layer, [("exact", spec_seconds("exact", rows))] + rest))
    for what in failed:
        say("failed: " + what)
    return not failed


# ---- tables --------------------------------------------------------------------------------------

def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def row_of(spec, lines, layers):
    """What was found of each layer; the rest as medians over the layers."""
    found = ["{recall:.3f} / {V_error:.3f} / {LSE_error:.3f}".format(**lines[layer]) if layer in lines else "-"
             for layer in layers]
    rest = [number(statistics.median(line[field] for line in lines.values()))
            for field in ("queries_per_s_1", "queries_per_s_32", "queries_per_s", "ratio")]
    build = statistics.median(line["build_s"] / line["rows"] * 1e6 for line in lines.values())
    n_bytes, rss = (statistics.median(line[field] for line in lines.values()) for field in ("bytes_per_row", "rss_mib"))
    rest += [f"{build:.2g}" if 0 < build < 10 else f"{build:.0f}", f"{n_bytes:.0f}" if n_bytes else "-", f"{rss:.0f}"]
    return [spec.replace(",mmap=0", "")] + found + rest


def print_table(args, rows, kept):
    specs = [spec for family, all_of in indexes_of(rows) for spec in all_of if is_chosen(args, family, spec)]
    layers = [layer for layer in args.layers if kept[layer]]
    if not layers:
        return
    lines = [line for layer in layers for line in kept[layer].values()]
    ran = {field: " and ".join(sorted({str(line[field]) for line in lines}))
           for field in ("versions", "openblas", "threads")}
    print(f"\n{rows:,} rows; {ran['versions']}; OpenBLAS for {ran['openblas']}; threads: {ran['threads']}. "
          "Of each layer: recall / V_error / LSE_error.\n")
    head = ["index"] + [layer if layer == "random" else "layer " + layer for layer in layers]
    head += ["queries/s: 1", "32", "1,536", "to exact", "build, us a row", "bytes a row", "RSS, MiB"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for spec in specs:
        lines_of = {layer: kept[layer][spec] for layer in layers if spec in kept[layer]}
        if lines_of:
            print("| " + " | ".join(row_of(spec, lines_of, layers)) + " |")


# ---- plots ---------------------------------------------------------------------------------------

def write_blocks(path, blocks):
    """Named blocks of points for gnuplot; one without a point keeps its place."""
    with open(path, "w", encoding="utf-8") as file:
        for name, points in blocks:
            file.write(f'"{name}"\n' + "".join(f"{x} {y}\n" for x, y in points or [("NaN", "NaN")]) + "\n\n")


def draw(args, script, **words):
    sets = [f"{name}={value}" if isinstance(value, int) else f"{name}='{value}'" for name, value in words.items()]
    os.makedirs(args.plots, exist_ok=True)
    done = subprocess.run(["gnuplot", "-e", "; ".join(sets), os.path.join(ROOT, "bench/plots", script)], check=False)
    if done.returncode:
        complain(f"{script}: gnuplot failed")
    say(words["out"])


def points_of(kept, family):
    return [line for spec, line in kept.items() if family_of(spec) == family]


def draw_recall(args, rows, kept, scratch):
    layers, panels = [layer for layer in args.layers if kept[layer]], []
    for layer in layers:
        panels.append(os.path.join(scratch, f"{layer}-{rows}.dat"))
        write_blocks(panels[-1], [(family, [(line["queries_per_s"], line["recall"]) for line in
                                            sorted(points_of(kept[layer], family), key=lambda line: line["recall"])])
                                  for family in FAMILIES])
    if layers:
        names = " ".join(layer if layer == "random" else f'"layer {layer}"' for layer in layers)
        draw(args, "recall.gp", out=os.path.join(args.plots, f"recall-{rows}.svg"), panels=" ".join(panels),
             names=names, rows=f"{rows:,}", n=len(FAMILIES))


def draw_cost(args, kept, scratch):
    layer, blocks = middle(args.layers), []
    for family in FAMILIES:
        points = []
        for rows in args.rows:
            good = [line for line in points_of(kept[rows][layer], family) if line["recall"] >= REACHED]
            points += [(rows, min(1e3 * line["queries"] / line["queries_per_s"] for line in good))] if good else []
        blocks.append((family, points))
    data = os.path.join(scratch, "cost.dat")
    write_blocks(data, blocks)
    if any(points for _, points in blocks):
        draw(args, "cost.gp", out=os.path.join(args.plots, "cost.svg"), data=data, n=len(blocks),
             name="random vectors" if layer == "random" else "layer " + layer, tics=",".join(map(str, args.rows)),
             low=args.rows[0] * 3 // 4, high=args.rows[-1] * 4 // 3)


# ---- the command ---------------------------------------------------------------------------------

def rows_seen(path):
    """Rows that the sample's segment sees, as bench/rows_file.c counts them (bench/harvest.c has the format)."""
    with open(path, "rb") as file:
        magic, _, _, dim, n_segments, n_queries, _, n_rows = struct.unpack("<8s5IfQ", file.read(40))
        segment = n_segments - math.ceil(QUERIES / n_queries) - 1
        if magic != b"mtxharv1" or segment < 0:
            complain(f"{path}: has no segment of queries before the {QUERIES} that are asked")
        file.seek(40 + 4 * n_rows * dim + segment * (8 + 4 * n_queries * dim))
        return struct.unpack("<Q", file.read(8))[0]


def check_what_is_there(args):
    for path in (args.bench, args.memtx):
        if not os.path.exists(path):
            complain(f"{path}: is not there (ninja -C build)")
    for path in [harvest_of(args, layer) for layer in args.layers if layer != "random"]:
        if not os.path.exists(path):
            complain(f"{path}: is not there (build/harvest makes it; --layers random goes without)")
        if rows_seen(path) < max(args.rows):
            complain(f"{path}: {rows_seen(path)} rows are there for its queries, fewer than {max(args.rows)} (--rows)")


def read_command_line():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harvest", default=os.path.join(ROOT, "data/cache/harvest/mix1m"),
                        help="folder of LAYER-0.harvest")
    parser.add_argument("--rows", default=",".join(map(str, SIZES)))
    parser.add_argument("--layers", default="3,15,27,random")
    parser.add_argument("--only", action="append", metavar="WORD", help="specs that have this in them, or one family")
    parser.add_argument("--threads", type=int, help="default: OpenMP's own")
    parser.add_argument("--quick", action="store_true",
                        help="the fewest rows, the middle layer and random vectors, once")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--tables-only", action="store_true", help="of what is kept")
    parser.add_argument("--plots-only", action="store_true", help="of what is kept")
    for name, place in (("bench", "build/bench_index"), ("memtx", "build/memtx"), ("out", "build/index"),
                        ("plots", "bench/plots")):
        parser.add_argument("--" + name, default=os.path.join(ROOT, place))
    args = parser.parse_args()
    args.rows = sorted(int(rows) for rows in args.rows.split(","))
    args.layers = args.layers.split(",")
    args.repeats = 1 if args.quick else REPEATS
    if args.quick:
        args.rows = args.rows[:1]
        args.layers = [layer for layer in args.layers if layer in (middle(args.layers), "random")]
    return args


def measure(args):
    """Whether all is there that was to be measured."""
    planned = plan(args)
    if args.dry_run:
        for rows, layer, todo in planned:
            print(f"{rows:,} rows, {layer}: {seconds_of([(rows, layer, todo)]):.0f} s")
            print("".join(f"    {seconds:5.1f} s  {spec}\n" for spec, seconds in todo), end="")
        print(f"about {seconds_of(planned) / 60:.0f} min on two cores")
        return True
    check_what_is_there(args)
    os.makedirs(args.out, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="memtx-sweep-", dir=os.environ.get("TMPDIR", "/var/tmp")) as scratch:
        return sweep(args, scratch)


def report(args):
    kept = {rows: {layer: read_kept(args, rows, layer) for layer in args.layers} for rows in args.rows}
    for rows in args.rows if not args.plots_only else ():
        print_table(args, rows, kept[rows])
    sys.stdout.flush()
    if not args.tables_only:
        with tempfile.TemporaryDirectory() as scratch:
            for rows in args.rows:
                draw_recall(args, rows, kept[rows], scratch)
            draw_cost(args, kept, scratch)


def main():
    args = read_command_line()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        good = args.tables_only or args.plots_only or measure(args)
        if not args.dry_run:
            report(args)
    except KeyboardInterrupt:
        say("broken off: the lines that came are kept, and the same command goes on")
        sys.exit(130)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
