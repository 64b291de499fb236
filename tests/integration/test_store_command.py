#!/usr/bin/env python3
"""memtx store: info, ls, verify, compact and rm, on a store that memtx eval has made."""
import os
import re
import shutil
import signal

from command import good, memtx, model, one_line, path, scratch, text
from tap import case, main
from terminal import Terminal, last_line

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


def on_a_terminal(*args, number=None):
    """memtx store on a terminal; with `number` it gets that signal before the first chunk is read. (exit code, stdout,
    what the terminal got)."""
    terminal = Terminal("store", *args, held=True)
    try:
        if number:
            terminal.wait_until_it_catches(number)
            terminal.process.send_signal(number)
        terminal.release()
        out = terminal.end()
        return terminal.process.returncode, out, terminal.text
    finally:
        terminal.kill()


@case
def long_work_says_how_far_it_is():
    place, copy = store("watched"), path("watched-copy")
    for name, args in (("verifying", ["verify", place]), ("copying", ["compact", place, copy])):
        code, out, shown = on_a_terminal(*args)
        assert code == 0 and last_line(shown) == "", (code, shown)
        assert out.count("\n") == (1 if name == "verifying" else 0), out
        lines = [re.fullmatch(name + r"  [\d.]+/([\d.]+) MiB  \d+ %  \d+ MiB/s  \d+ s left\r", line)
                 for line in shown.split("\x1b[K")]
        assert float(next(line for line in lines if line).group(1)) > 0.1, shown
    good("store", "verify", copy)
    for args in (["verify", place], ["compact", place, path("watched-again")]):
        assert good("store", *args).err == "", "a progress line in a pipe"


@case
def control_c_ends_long_work():
    place = store("broken-off")
    before = sorted(os.listdir(scratch()))
    for number in (signal.SIGINT, signal.SIGTERM):
        for args in (["verify", place], ["compact", place, path("never")]):
            code, out, shown = on_a_terminal(*args, number=number)
            told = last_line(shown)
            assert code == 130 and out == "", (args, code, out)
            assert re.fullmatch(r"memtx: store: interrupted after \d+ of \d+ bytes\n", told), told
            assert sorted(os.listdir(scratch())) == before, "something was left"
    good("store", "verify", place)


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
