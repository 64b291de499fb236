#!/usr/bin/env python3
"""--index: index files beside the store, through the command: ingest builds them, eval finds the same with them, store
rebuild and verify look after them, and a kill while one is built leaves nothing. With `--long` more kills."""
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import command
from command import MEMTX, SMALL, environment, model, one_line, runs, scratch, text
from tap import case, main, skip

BOOK, HALF, WHOLE = 1500, 6400, 7680  # words; tokens
NAME = os.path.basename(text(BOOK))
RUNS = ["--run-rows", "2040", "--store-type", "f32", "--segment", "64", "--window", "64"]  # the shortest: one chunk
CLOSE = 1e-6
LONG = "--long" in sys.argv
sys.argv = [a for a in sys.argv if a != "--long"]
ONE = environment(OMP_NUM_THREADS="1")  # FAISS's parallel regions are small here


def good(*args):
    return command.good(*args, env=ONE, timeout=120)


def memtx(*args):
    return command.memtx(*args, env=ONE, timeout=120)


def evaluate(*args, **how):
    return command.evaluate(*args, env=ONE, timeout=120, **how)


HAS_FAISS = "FAISS" in good("--version").out


def new(name):
    return tempfile.mkdtemp(prefix=name + "-", dir=scratch()) + "/store"


def ingest(store, *args):
    if not HAS_FAISS:
        skip("built without FAISS")
    return good("ingest", model(), text(BOOK), *SMALL, *RUNS, "--memory", store, *args)


def files(store):
    return sorted(name for name in os.listdir(store) if name.startswith("run"))


def go_on(store, *args):
    made = evaluate("--memory", store, "--continue", NAME, "--tokens", str(WHOLE), *RUNS, *args, texts=[text(BOOK)])
    return runs(made)["memory"]["nll"], made["note"]


@functools.lru_cache
def uninterrupted():
    made = evaluate("--modes", "memory", "--layers", "all", "--tokens", str(WHOLE), "--skip", str(HALF), *RUNS,
                    texts=[text(BOOK)])
    return runs(made)["memory"]["nll"]


def same(nll):
    assert abs(nll - uninterrupted()) <= CLOSE * nll, (nll, uninterrupted())


@case
def an_index_that_finds_all_changes_nothing():
    if not HAS_FAISS:
        skip("built without FAISS")
    for index in ("faiss:Flat", "faiss:IVF8,Flat@nprobe=8"):
        made = evaluate("--modes", "memory", "--layers", "all", "--tokens", str(WHOLE), "--skip", str(HALF), *RUNS,
                        "--index", index, texts=[text(BOOK)])
        same(runs(made)["memory"]["nll"])
        assert made["options"]["index"] == index and made["note"] is None


@case
def what_is_found_can_be_less():
    if not HAS_FAISS:
        skip("built without FAISS")
    made = evaluate("--modes", "memory", "--layers", "all", "--tokens", str(WHOLE), "--skip", str(HALF), *RUNS,
                    "--index", "faiss:IVF64,SQ4@nprobe=1", texts=[text(BOOK)])
    assert runs(made)["memory"]["nll"] != uninterrupted()  # so the index has been asked


@case
def a_reading_goes_on_with_its_index():
    store = new("goes-on")
    ingest(store, "--tokens", str(HALF), "--index", "faiss:Flat")
    assert len(files(store)) == HALF // 2040, os.listdir(store)  # beside the reading and after it
    nll, note = go_on(store, "--index", "faiss:Flat")
    same(nll)
    assert note is None and len(files(store)) == WHOLE // 2040, (note, files(store))
    out = good("store", "info", store).out
    assert "index files  %d of faiss:Flat" % len(files(store)) in out, out
    good("store", "verify", store)


@case
def without_a_word_the_index_of_the_store_is_taken():
    for modes, index in ("sinks,memory", "exact"), ("sinks", None):
        made = evaluate("--modes", modes, "--tokens", "300", *RUNS, texts=[text(BOOK)])
        assert made["options"]["index"] == index, made["options"]
    store = new("default")
    ingest(store, "--tokens", "2200")
    good("store", "rebuild", store, "--index", "faiss:Flat", "--run-rows", "2040")
    for seed, (args, index) in enumerate([((), "faiss:Flat"), (("--index", "exact"), "exact"), ((), "faiss:Flat")]):
        made = another_text(store, seed, "--scope", NAME, *args)
        assert made["options"]["index"] == index and made["note"] is None, made
    assert len(files(store)) == 1, files(store)


def another_text(store, seed, *args):
    return evaluate("--modes", "memory", "--memory", store, "--tokens", "500", *RUNS, *args,
                    texts=[text(100, seed=10 + seed)])


@case
def a_store_that_was_rebuilt_or_compacted_goes_on():
    store, copy = new("rebuilt"), new("copy")
    ingest(store, "--tokens", str(HALF))
    assert files(store) == []
    out = good("store", "rebuild", store, "--index", "faiss:IVF8,Flat@nprobe=8", "--run-rows", "2040").out
    assert out == "3 index files over 6120 of 6400 rows\n", out
    assert good("store", "rebuild", store).out == out  # as they were
    good("store", "rebuild", store, "--run-rows", "4080")
    assert len(files(store)) == 1
    good("store", "verify", store)
    good("store", "compact", store, copy)
    assert files(copy) == files(store)
    for place in (copy, store):
        nll, note = go_on(place, "--index", "faiss:IVF8,Flat@nprobe=8")
        same(nll)
        assert note is None, note


@case
def damage_is_named_and_mended():
    store = new("damaged")
    ingest(store, "--tokens", str(HALF))
    good("store", "rebuild", store, "--index", "faiss:Flat", "--run-rows", "2040")
    name = os.path.join(store, files(store)[1])
    with open(name, "r+b") as file:
        file.seek(30000)
        byte = file.read(1)
        file.seek(30000)
        file.write(bytes([byte[0] ^ 1]))
    one_line(memtx("store", "verify", store), 1, "index file of rows 2040 to 4079", "layer", "rebuild")
    os.unlink(os.path.join(store, files(store)[2]))
    nll, note = go_on(store, "--index", "faiss:Flat")
    same(nll)
    assert "built anew" in note, note
    good("store", "verify", store)
    assert another_text(store, 0, "--index", "faiss:Flat")["note"] is None


CLUSTERS = "cluster@share=0.02"


def with_clusters(name, *args):
    store = new(name)
    good("ingest", model(), text(BOOK), *SMALL, *RUNS, "--memory", store, "--index", CLUSTERS, *args)
    return store


@case
def clusters_outlive_the_process():
    made = evaluate("--modes", "memory", "--layers", "all", "--tokens", str(WHOLE), "--skip", str(HALF), *RUNS,
                    "--index", CLUSTERS, texts=[text(BOOK)])
    whole = runs(made)["memory"]["nll"]
    assert whole != uninterrupted()  # so they have been asked
    for keeps in (True, False):
        store = with_clusters("clusters", "--tokens", str(HALF))
        assert len(files(store)) == HALF // 2040, os.listdir(store)
        for name in files(store) if not keeps else []:
            os.unlink(os.path.join(store, name))
        nll, note = go_on(store, "--index", CLUSTERS)
        assert (abs(nll - whole) <= CLOSE * whole) == keeps, (nll, whole)
        assert (note is None) == keeps, note
        assert len(files(store)) == WHOLE // 2040, files(store)


@case
def clusters_are_looked_after():
    store, copy = with_clusters("kept", "--tokens", str(HALF)), new("kept-copy")
    shown = "3 index files over 6120 of 6400 rows\n"
    assert "index files  3 of %s, over 6120 rows" % CLUSTERS in good("store", "info", store).out
    before = files(store)
    assert good("store", "rebuild", store).out == shown
    assert files(store) == before
    good("store", "verify", store)
    good("store", "compact", store, copy)
    assert files(copy) == before
    one_line(memtx("store", "rebuild", store, "--index", "cluster", "--run-rows", "4080"), 1, "cluster", "lengths")
    with open(os.path.join(store, before[1]), "r+b") as file:
        file.truncate(5000)
    one_line(memtx("store", "verify", store), 1, "index file of rows 2040 to 4079", "rebuild")
    out = good("store", "rebuild", store).out
    assert out.startswith("2 index files over 4080 of 6400 rows; 1 were damaged"), out
    good("store", "verify", store)
    nll, note = go_on(store, "--index", CLUSTERS)
    assert note is None and len(files(store)) == WHOLE // 2040, (note, files(store))
    good("store", "rm", copy, NAME)
    assert files(copy) == []
    assert "index files  0\n" in good("store", "info", copy).out
    one_line(memtx("store", "rebuild", copy, "--index", "cluster"), 1, "queries of a reading", "read on")


@case
def clusters_under_a_capacity():
    store = with_clusters("narrow", "--tokens", str(HALF), "--capacity", "2500")
    assert 1 <= len(files(store)) <= 2, files(store)
    good("store", "verify", store)
    assert NAME in good("store", "ls", store).out
    nll, note = go_on(store, "--index", CLUSTERS, "--capacity", "2500")
    assert note is None and 1 <= len(files(store)) <= 2, (note, files(store))


@case
def a_kill_while_one_is_built():
    if os.environ.get("MEMTX_SANITIZED"):
        skip("too slow to be killed at the right moment")
    rng = random.Random(7)
    store, n_killed, n_building = new("killed"), 0, 0
    ingest(store, "--tokens", "64")
    args = [MEMTX, "ingest", model(), text(BOOK), *SMALL, *RUNS, "--memory", store, "--index",
            "faiss:HNSW32@efConstruction=400"]
    for _ in range(50 if LONG else 6):
        process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ONE)
        time.sleep(rng.uniform(0.05, 1.0))
        n_building += "run.tmp" in os.listdir(store)
        process.kill()
        process.wait(timeout=30)
        n_killed += process.returncode == -signal.SIGKILL
        good("store", "verify", store)
        result = memtx("store", "rm", store, NAME)  # a writer, and the reading begins anew
        assert result.code == 0 or "no document" in result.err, result
        assert "run.tmp" not in files(store), files(store)
        shown = good("store", "info", store).out
        assert "index files  %d" % len(files(store)) in shown, (shown, files(store))
    assert n_killed > 0 and n_building > 0, (n_killed, n_building)


@case
def specs_that_are_none():
    book, store = text(BOOK), new("specs")
    for spec, word in (("nothing", "no such kind"), ("faiss:IVF99999,Flat", "99999"), ("faiss:PQ3", "PQ3"),
                       ("faiss:Flat@nprobe=3", "nprobe"), ("faiss:", "faiss:")):
        if not HAS_FAISS and spec.startswith("faiss"):
            word = "without FAISS"
        result = memtx("eval", model(), book, *SMALL, *RUNS, "--modes", "memory", "--index", spec)
        assert result.code in (1, 2), result
        one_line(result, result.code, word)
    one_line(memtx("eval", model(), book, *SMALL, "--run-rows", "0"), 2, "--run-rows")
    one_line(memtx("store", "rebuild", store), 1, "there is no store")


main()
