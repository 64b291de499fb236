#!/usr/bin/env python3
"""build/bench_index: what it says of indexes whose answers are known, which rows and queries of a harvest it takes, and
that the cluster index is made from the sample and not from what is asked."""
import functools
import json
import os
import random
import struct
import subprocess

from command import ROOT, environment, good, path
from tap import case, main, skip

BENCH = os.path.abspath(os.environ.get("MEMTX_BENCH_INDEX", os.path.join(ROOT, "build", "bench_index")))
QUICK = ["--repeats", "1", "--seconds", "1"]
FIELDS = {"index", "data", "rows", "queries", "sample", "dim", "k", "threads", "recall", "V_error", "LSE_error",
          "queries_per_s", "queries_per_s_1", "queries_per_s_32", "build_s", "bytes_per_row", "rss_mib"}
DIM, QUERIES, ROWS = 32, 96, 4200  # two blocks of clusters and a tail
HAS_FAISS = "FAISS" in good("--version").out


def bench(*args):
    return subprocess.run([BENCH, *QUICK, *args], capture_output=True, text=True, timeout=120, check=False,
                          env=environment(OMP_NUM_THREADS="1", TMPDIR=path()))


def lines(*args):
    done = bench(*args)
    assert done.returncode == 0 and done.stderr == "", done
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(word, *args):
    done = bench(*args)
    assert done.returncode == 1 and done.stdout == "" and word in done.stderr, done


@functools.lru_cache
def normal(n, seed):
    draw = random.Random(seed).gauss
    return [draw(0, 1) for _ in range(n)]


def queries(first, seed):
    """In four of the directions of the rows alone, from `first` on."""
    numbers = normal(QUERIES * DIM, seed)
    return [x if first <= i % DIM < first + 4 else 0 for i, x in enumerate(numbers)]


NOTHING = [float("nan")] * (QUERIES * DIM)


def harvest(name, segments, before=0, after=0, asked=QUERIES):
    """ROWS rows between others that are no numbers, which no store takes and no query may be; the segments see the rows up to
    those that come after."""
    one = [float("nan")] * DIM
    n_rows = before + ROWS + after
    rows = struct.pack("<%de" % (n_rows * DIM), *one * before, *normal(ROWS * DIM, 1), *one * after)
    data = struct.pack("<8s5IfQ", b"mtxharv1", 3, 0, DIM, len(segments), QUERIES, 1.0, n_rows) + rows * 2
    for segment in segments:
        data += struct.pack("<Q%df" % (QUERIES * DIM), before + ROWS, *segment)
    with open(path(name), "wb") as file:
        file.write(data)
    return ["--keys", path(name), "--queries", str(asked)]


@case
def what_is_known_of_random_rows():
    indexes = ["exact", "cluster@share=1", "cluster"] + ["faiss:Flat"] * HAS_FAISS
    made = lines("--rows", "4096", "--queries", "64", "--indexes", ",".join(indexes))
    assert [line["index"] for line in made] == indexes, made
    for line in made:
        assert set(line) == FIELDS and line["data"] == "random" and line["threads"] == 1, line
        assert (line["rows"], line["queries"], line["sample"], line["dim"], line["k"]) == (4096, 64, 64, 64, 32), line
        assert all(line["queries_per_s" + batch] > 0 for batch in ("", "_1", "_32")) and line["rss_mib"] > 1, line
    exact, all_clusters, cluster = made[:3]
    assert exact["recall"] == 1 and exact["V_error"] == 0 and exact["LSE_error"] == 0 and exact["build_s"] == 0, exact
    assert all_clusters["recall"] >= 0.999 and all_clusters["V_error"] < 0.01 and all_clusters["build_s"] > 0, made
    assert 6 < all_clusters["bytes_per_row"] == cluster["bytes_per_row"] < 7, made
    assert 0.05 < cluster["recall"] < 0.9 and cluster["V_error"] > 0.1 and cluster["LSE_error"] > 0, cluster
    for flat in made[3:]:
        assert flat["recall"] >= 0.999 and flat["V_error"] < 0.01, flat  # but for scores that are equal
        assert flat["build_s"] > 0 and 256 <= flat["bytes_per_row"] < 260, flat


@case
def the_newest_rows_and_the_last_queries_of_a_harvest():
    asked, sample = queries(0, 2), queries(0, 3)
    file = harvest("newest", [NOTHING, NOTHING, sample, asked], before=700, after=300)
    made = lines(*file, "--rows", str(ROWS), "--indexes", "exact,cluster")
    assert [(line["rows"], line["sample"], line["recall"]) for line in made][0] == (ROWS, QUERIES, 1), made
    file = harvest("two", [NOTHING, sample, asked, asked], before=700, after=300, asked=QUERIES + 1)
    assert lines(*file, "--rows", "100", "--indexes", "exact")[0]["queries"] == QUERIES + 1
    for segments in ([asked, NOTHING], [NOTHING, asked]):
        refused("attend", *harvest("none", segments), "--rows", "100", "--indexes", "exact")
    refused("append", *harvest("one", [sample, asked], before=1), "--rows", str(ROWS + 1))


@case
def what_a_harvest_does_not_have():
    file = harvest("short", [NOTHING, NOTHING], after=50)
    refused("4200 rows are there", *file, "--rows", str(ROWS + 1))
    refused("2 segments of 96 queries", *file, "--rows", "100", "--queries", "97")
    refused("2 segments", *file, "--rows", "100", "--queries", "192")
    refused("1 segments", *harvest("alone", [NOTHING]), "--rows", "100")


@case
def clusters_are_made_from_the_sample():
    asked = queries(0, 2)
    recall = [lines(*harvest("sample", [queries(first, 3), asked]), "--rows", str(ROWS), "--indexes",
                    "cluster@share=0.1")[0]["recall"] for first in (0, DIM - 4)]
    assert recall[0] > recall[1] + 0.2, recall


@case
def what_differs_in_how_it_is_searched_is_built_once():
    if not HAS_FAISS:
        skip("built without FAISS")
    indexes = ["faiss:IVF64,Flat@nprobe=1", "faiss:IVF64,Flat@nprobe=64", "faiss:IVF32,Flat@nprobe=1"]
    one, all_lists, other = lines("--rows", "4096", "--queries", "64", "--indexes", ",".join(indexes))
    assert one["build_s"] == all_lists["build_s"] > 0 and one["bytes_per_row"] == all_lists["bytes_per_row"] > 256, one
    assert one["recall"] < 0.5 and all_lists["recall"] >= 0.999, (one, all_lists)
    assert other["bytes_per_row"] < one["bytes_per_row"], other  # fewer lists


main()
