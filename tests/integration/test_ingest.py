#!/usr/bin/env python3
"""memtx ingest, and memtx eval --continue: a reading that stops and goes on in another process equals one that never
stopped, whatever came between; what does not go on is refused and changes nothing."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

from command import MEMTX, SMALL, environment, evaluate, good, memtx, model, one_line, path, put, runs, scratch, text
from tap import case, main
from terminal import Terminal

BOOK, HALF, WHOLE = 500, 1600, 2400  # words; tokens: half is a multiple of the segment
NAME = os.path.basename(text(BOOK))
CLOSE = 1e-6  # relative
_whole = {}


def new(name):
    """A path in the scratch directory where nothing is yet."""
    return tempfile.mkdtemp(prefix=name + "-", dir=scratch()) + "/store"


def ingest(store, *args, texts=None, small=True, **how):
    return good("ingest", model(), *(texts or [text(BOOK)]), *(SMALL if small else []), "--memory", store, *args, **how)


def document(store, name=NAME):
    """(rows, tokens read, state) as the store lists them."""
    for line in good("store", "ls", store).out.splitlines():
        if line.endswith("  " + name):
            rows, read, state = line.split()[:3]
            return int(rows), int(read), state
    return None


def go_on(store, *args, n=WHOLE, name=NAME, **how):
    """memory's run of memtx eval --continue up to token n."""
    made = evaluate("--memory", store, "--continue", name, "--tokens", str(n), *args, texts=[text(BOOK)], **how)
    return runs(made)["memory"]


def uninterrupted(skip, n=WHOLE):
    """The same tokens, scored by one process that reads from the beginning."""
    if (skip, n) not in _whole:
        made = evaluate("--modes", "memory", "--layers", "all", "--tokens", str(n), "--skip", str(skip),
                        texts=[text(BOOK)])
        _whole[skip, n] = runs(made)["memory"]
    return _whole[skip, n]


def same(run, skip, n=WHOLE):
    other = uninterrupted(skip, n)
    assert run["tokens"] == other["tokens"] == n - skip, (run["tokens"], other["tokens"])
    assert abs(run["nll"] - other["nll"]) <= CLOSE * other["nll"], (run["nll"], other["nll"])


# ---- going on -------------------------------------------------------------------------------------------------------

@case
def a_second_process_goes_on_as_if_it_were_the_first():
    store = new("halves")
    assert "read up to token %d" % HALF in ingest(store, "--tokens", str(HALF)).out
    assert document(store) == (HALF, HALF, "complete")
    same(go_on(store), HALF)
    assert document(store) == (WHOLE, WHOLE, "complete")
    good("store", "verify", store)


@case
def ingest_goes_on_where_it_was_ended():
    store = new("thirds")
    for n in (800, 816, HALF):
        ingest(store, "--tokens", str(n))
        assert document(store) == (n, n, "complete")
    same(go_on(store), HALF)


@case
def a_compacted_and_moved_store_goes_on():
    store, copy = new("origin"), new("copy")
    ingest(store, "--tokens", str(HALF))
    good("store", "compact", store, copy)
    shutil.rmtree(store)
    moved = new("moved")
    shutil.move(copy, moved)
    same(go_on(moved), HALF)


def killed_ingest(store, *args):
    """Kills an ingest once it has rows on disk; False when it was faster."""
    process = subprocess.Popen([MEMTX, "ingest", model(), text(BOOK), *SMALL, "--memory", store, *args],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    try:
        limit = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < limit:
            if os.path.exists(store + "/data.mdb") and os.path.getsize(store + "/data.mdb") > 300000:
                process.kill()
                break
            time.sleep(0.002)
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()
    return process.returncode == -signal.SIGKILL


@case
def after_a_kill_the_same_command_goes_on():
    n_killed = 0
    for attempt in range(2):
        store = new("killed")
        n_killed += killed_ingest(store, "--durability", "full" if attempt % 2 else "group", "--tokens", str(HALF))
        good("store", "verify", store)
        done = ingest(store, "--tokens", str(HALF))
        assert document(store) == (HALF, HALF, "complete"), done
        same(go_on(store), HALF)
    assert n_killed > 0, "none was killed in time"


@case
def control_c_keeps_what_was_read():
    store = new("interrupted")
    terminal = Terminal("ingest", model(), text(20000), *SMALL, "--memory", store)
    try:
        terminal.wait_for("tokens/s")
        terminal.wait_for_tokens("(1 of 1)", 2000)
        terminal.process.send_signal(signal.SIGINT)
        out = terminal.end()
    finally:
        terminal.kill()
    assert terminal.process.returncode == 130, terminal.text
    assert "left" in terminal.text and "the same command goes on" in terminal.text, terminal.text[-500:]
    name = os.path.basename(text(20000))
    rows, read, state = document(store, name)
    assert state == "suspended" and read >= 2000 and "stopped at token %d" % read in out, (read, state, out)
    n = read + 320
    again = good("ingest", model(), text(20000), *SMALL, "--memory", store, "--tokens", str(n))
    assert "read up to token %d, from %d on" % (n, read) in again.out, again
    assert document(store, name) == (n, n, "complete")
    made = evaluate("--memory", store, "--continue", name, "--tokens", str(n + 160), texts=[text(20000)])
    whole = evaluate("--modes", "memory", "--layers", "all", "--tokens", str(n + 160), "--skip", str(n),
                     texts=[text(20000)])
    a, b = runs(made)["memory"]["nll"], runs(whole)["memory"]["nll"]
    assert abs(a - b) <= CLOSE * b, (a, b)


@case
def an_evaluation_leaves_what_can_be_gone_on_with():
    store = new("evaluated")
    evaluate("--modes", "memory", "--layers", "all", "--memory", store, "--tokens", str(HALF), texts=[text(BOOK)])
    same(go_on(store), HALF)


@case
def the_state_serves_sinks_too():
    store = new("sinks")
    ingest(store, "--tokens", str(HALF), "--blend", "off")  # sinks, bit for bit
    made = evaluate("--memory", store, "--continue", NAME, "--tokens", str(WHOLE), texts=[text(BOOK)])
    plain = evaluate("--modes", "sinks", "--tokens", str(WHOLE), "--skip", str(HALF), texts=[text(BOOK)])
    a, b = runs(made)["sinks"]["nll"], runs(plain)["sinks"]["nll"]
    assert abs(a - b) <= CLOSE * b and len(made["pairs"]) == 1, (a, b)


# ---- what is noticed ------------------------------------------------------------------------------------------------

@case
def the_same_text_is_not_read_twice():
    store, twin = new("twice"), put("twin.txt", open(text(BOOK)).read())
    ingest(store)
    before = document(store)
    assert "in the store already" in ingest(store).out
    again = ingest(store, texts=[twin])
    assert NAME + ": " in again.out and "in the store already" in again.out, again
    assert document(store) == before and document(store, "twin.txt") is None
    ingest(store, "--allow-seen", texts=[twin])
    assert document(store, "twin.txt") == before
    one_line(memtx("ingest", model(), text(BOOK), twin, *SMALL, "--memory", new("pair")), 1, "the same text")


@case
def several_texts_and_a_name():
    store = new("several")
    out = ingest(store, texts=[text(100), text(80, seed=2)]).out
    assert out.count("read up to") == 2 and "2 documents" in out, out
    ingest(store, "--name", "a book", texts=[text(90, seed=3)])
    assert document(store, "a book")[2] == "complete"
    good("store", "verify", store)


@case
def layers_are_all_of_a_new_store_and_else_its_own():
    store, other = new("all"), new("upper")
    ingest(store, texts=[text(60)])
    assert "layers       0-3, all heads\n" in good("store", "info", store).out
    ingest(other, "--layers", "3", texts=[text(60)])
    evaluate("--modes", "memory", "--memory", other, texts=[text(50, seed=5)])
    assert "layers       3, all heads\n" in good("store", "info", other).out


# ---- what cannot be -------------------------------------------------------------------------------------------------

def refused(store, args, code, *words):
    """Refused with one line; the store is what it was."""
    before = good("store", "ls", store).out
    one_line(memtx(*args), code, *words)
    assert good("store", "ls", store).out == before
    good("store", "verify", store)


@case
def a_text_that_does_not_go_on():
    store = new("other")
    ingest(store, "--tokens", str(HALF))
    changed = put("changed.txt", open(text(BOOK)).read().replace("the", "eth", 1))
    for words in (changed, text(40)):  # another text; one that ends before what was read
        refused(store, ["ingest", model(), words, *SMALL, "--memory", store, "--name", NAME], 1, NAME, "--name")
        refused(store, ["eval", model(), words, *SMALL, "--memory", store, "--continue", NAME], 1 if words == changed
                else 2, "text")
    refused(store, ["eval", model(), text(BOOK), *SMALL, "--memory", store, "--continue", NAME, "--tokens", str(HALF)],
            2, "nothing to score")


@case
def other_settings_and_other_models():
    store = new("settings")
    ingest(store, "--tokens", str(HALF))
    book = text(BOOK)
    refused(store, ["eval", model(), book, *SMALL, "--window", "48", "--memory", store, "--continue", NAME], 1,
            "window of 32")
    refused(store, ["ingest", model(), book, *SMALL, "--segment", "8", "--memory", store], 1, "segment of 16")
    refused(store, ["eval", model(2), book, *SMALL, "--memory", store, "--continue", NAME], 1, "another model")
    refused(store, ["ingest", model(2), book, *SMALL, "--memory", store, "--name", "x"], 1, "another model")
    refused(store, ["eval", model(), book, *SMALL, "--memory", store, "--continue", NAME, "--modes", "xl,memory"], 2,
            "mode xl")
    refused(store, ["eval", model(), book, *SMALL, "--memory", store, "--continue", "nobody"], 1, "nobody")
    refused(store, ["ingest", model(), book, *SMALL, "--memory", store, "--layers", "1"], 1, "layer 0")


@case
def another_model_of_the_same_shape_if_that_is_wanted():
    store = new("stale")
    ingest(store)
    other = ["eval", model(2), text(90, seed=4), *SMALL, "--modes", "memory", "--memory", store, "--scope", "all"]
    one_line(memtx(*other), 1, "another model", "--allow-stale")
    result = good(*other, "--allow-stale")
    assert "by another model" in result.err and result.err.count("\n") == 1, result
    one_line(memtx("eval", model(3, layers=2), text(90, seed=4), *SMALL, "--modes", "memory", "--memory", store,
                   "--allow-stale"), 1, "was made for a model of 4 layers")


@case
def usage():
    book, store = text(BOOK), new("usage")
    one_line(memtx("ingest", model(), book), 2, "--memory")
    one_line(memtx("ingest", model(), "--memory", store), 2, "--help")
    one_line(memtx("ingest", model(), book, text(50), "--memory", store, "--name", "x"), 2, "--name")
    one_line(memtx("ingest", model(), put("empty.txt", ""), "--memory", store), 2, "empty")
    one_line(memtx("ingest", model(), path("nothing"), "--memory", store), 1, "nothing")
    one_line(memtx("ingest", model(), book, book, "--memory", store), 2, "two texts are called")
    one_line(memtx("eval", model(), book, "--continue", NAME), 2, "--memory")
    one_line(memtx("eval", model(), book, "--memory", store, "--continue", NAME), 1, "there is no store")
    one_line(memtx("eval", model(), book, text(50), "--memory", store, "--continue", NAME), 2, "one text")
    assert not os.path.exists(store)


@case
def a_document_of_one_segment_can_be_gone_on_with():
    store = new("short")
    for n in (16, 64):
        ingest(store, "--tokens", str(n))
        assert document(store) == (n, n, "complete")


@case
def a_second_writer_is_told():
    store = new("shared")
    first = subprocess.Popen([MEMTX, "ingest", model(), text(20000), *SMALL, "--memory", store],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    try:
        limit = time.monotonic() + 30
        while not os.path.exists(store + "/data.mdb") or os.path.getsize(store + "/data.mdb") < 100000:
            assert first.poll() is None and time.monotonic() < limit, "the first process did not get going"
            time.sleep(0.01)
        one_line(memtx("ingest", model(), text(50), *SMALL, "--memory", store), 1, "process %d" % first.pid, "writing")
        good("store", "ls", store)
    finally:
        first.kill()
        first.wait()
    first.stderr.close()
    ingest(store, texts=[text(50)])


# ---- scope ----------------------------------------------------------------------------------------------------------

@case
def what_a_search_sees():
    store = new("scope")
    ingest(store, texts=[text(BOOK), text(200, seed=6)])
    names = [NAME, os.path.basename(text(200, seed=6))]

    def nll(*args):
        made = evaluate("--modes", "memory", "--memory", store, *args, texts=[text(100, seed=7)])
        return runs(made)["memory"]["nll"]

    alone, every, one, two = nll(), nll("--scope", "all", "--allow-seen"), nll("--scope", names[0]), \
        nll("--scope", ",".join(names))
    plain = evaluate("--modes", "memory", "--layers", "all", texts=[text(100, seed=7)])
    assert alone == runs(plain)["memory"]["nll"] == nll("--scope", "this")
    assert len({alone, every, one, two}) == 4, (alone, every, one, two)


@case
def a_text_that_is_in_scope_is_not_scored():
    store = new("seen")
    ingest(store, "--tokens", str(HALF))
    again = ["eval", model(), text(BOOK), *SMALL, "--modes", "memory", "--memory", store, "--tokens", "500"]
    for scope in ("all", NAME):
        refused(store, again + ["--scope", scope], 1, "in scope", "--allow-seen")
    good(*again, "--scope", NAME, "--allow-seen")
    good(*again)  # out of sight
    good(*again, "--modes", "sinks", "--scope", "all")  # no search
    one_line(memtx("eval", model(), text(60), put("twin2.txt", open(text(60)).read()), *SMALL, "--modes", "memory",
                   "--scope", "all"), 1, "same text", "--allow-seen")
    refused(store, again + ["--scope", "nobody"], 1, "nobody")
    refused(store, again + ["--scope", "all", "--modes", "memory-random", "--allow-seen"], 2, "memory-random")
    fresh = new("fresh")
    one_line(memtx("eval", model(), text(60), *SMALL, "--memory", fresh, "--scope", "nobody"), 1, "nobody")
    assert not os.path.exists(fresh)


main()
