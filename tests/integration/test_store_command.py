#!/usr/bin/env python3
"""memtx store: info, ls, verify, compact and rm, on a store that memtx eval has made."""
import os
import shutil

from command import good, memtx, model, one_line, path, text
from tap import case, main

SETTINGS = ["--window", "32", "--segment", "16", "--sinks", "2", "-k", "8", "--modes", "memory"]


def store(name):
    place = path(name)
    good("eval", model(), text(), *SETTINGS, "--memory", place)
    return place


@case
def what_is_in_it():
    place = store("shown")
    out = good("store", "info", place).out
    assert "version 2" in out and "window=32 segment=16 sinks=2" in out, out
    assert ", all heads" in [line for line in out.splitlines() if line.startswith("layers ")][0], out
    lines = good("store", "ls", place).out.splitlines()
    assert len(lines) == 2 and lines[1].endswith(os.path.basename(text())), lines
    assert "complete" in lines[1], lines
    assert "1 documents" in good("store", "verify", place).out


@case
def damage_is_named():
    place = store("damaged")
    with open(place + "/data.mdb", "r+b") as file:
        content = file.read()
        at = content.index(b"mtxK") + 250  # in the rows of a chunk of keys
        file.seek(at)
        file.write(bytes([content[at] ^ 16]))
    # every copy of that chunk but one may be an old page: damage all that look like it
    with open(place + "/data.mdb", "r+b") as file:
        content = file.read()
        at = content.find(b"mtxK")
        while at >= 0:
            file.seek(at + 251)
            file.write(bytes([content[at + 251] ^ 16]))
            at = content.find(b"mtxK", at + 1)
    one_line(memtx("store", "verify", place), 1, "key chunk", "damaged")


@case
def a_copy_and_what_was_removed():
    place, copy = store("whole"), path("copy")
    good("store", "compact", place, copy)
    assert good("store", "ls", copy).out == good("store", "ls", place).out
    assert os.path.getsize(copy + "/data.mdb") <= os.path.getsize(place + "/data.mdb")
    one_line(memtx("store", "compact", place, copy), 1, "exists")
    good("store", "rm", copy, os.path.basename(text()))
    assert len(good("store", "ls", copy).out.splitlines()) == 1
    good("store", "verify", copy)
    shutil.rmtree(copy)


@case
def wrong_usage():
    one_line(memtx("store"), 2, "--help")
    one_line(memtx("store", "mend", path("x")), 2, "--help")
    one_line(memtx("store", "info", path("nothing-here")), 1, "there is no store")
    one_line(memtx("store", "rm", store("kept"), "nobody"), 1, "nobody")
    os.symlink(store("target") + "/data.mdb", path("linked"))
    os.makedirs(path("links"))
    os.symlink(path("target") + "/data.mdb", path("links") + "/data.mdb")
    one_line(memtx("store", "info", path("links")), 1, "symbolic link")


main()
