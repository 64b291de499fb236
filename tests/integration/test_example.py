#!/usr/bin/env python3
"""libmemtx/docs/example.c, what a builder starts from: compiles as C and as C++ with public headers alone, and does what
it says, in one run and in the next."""
import os
import re
import subprocess

from command import ROOT, good, memtx, model, path, text
from tap import case, main, skip

SOURCE = os.path.join(ROOT, "libmemtx", "docs", "example.c")
LIBRARY = os.path.abspath(os.environ.get("MEMTX_LIBRARY", os.path.join(ROOT, "build", "libmemtx", "libmemtx.so")))
EXAMPLE = os.path.abspath(os.environ.get("MEMTX_EXAMPLE", os.path.join(ROOT, "build", "libmemtx", "example")))

# No word stands twice within a window of 32 but in the pairs that are asked for.
LETTERS = "bcdfghklmnprstvz"
FILLER = ["%s%s%s%s" % (a, "aeiou"[i % 5], b, LETTERS[(i + j) % 16])
          for i, a in enumerate(LETTERS) for j, b in enumerate(LETTERS)]
FIRST = FILLER[:100] + ["anne", "elliot"] + FILLER[100:200] + ["anne", "elliot"] + FILLER[200:]
SECOND = FILLER[:50] + ["anne", "weston"] + FILLER[50:80]


def example(*args, stdin="", program=None):
    return subprocess.run([program or EXAMPLE, *args], input=stdin.encode(), capture_output=True, timeout=60, check=False)


def read(place, name, words):
    done = example("read", place, name, stdin="\n".join(words))
    assert done.returncode == 0 and done.stderr == b"", done
    return [int(n) for n in re.fullmatch(rb"(\d+) tokens; next one guessed: (\d+) from the window alone, (\d+) with "
                                         rb"the memory\n", done.stdout).groups()]


def ask(place, word, program=None):
    done = example("ask", place, word, program=program)
    assert done.returncode == 0 and done.stderr == b"", done
    return [re.fullmatch(r" *([-\d.]+) +(\d+)  (\w+)\t(.+)", line).groups() for line in done.stdout.decode().splitlines()]


def fill(name):
    place = path(name)
    tokens, window, with_memory = read(place, "first", FIRST)
    assert tokens == len(FIRST) and with_memory > window, (tokens, window, with_memory)
    assert read(place, "second", SECOND)[0] == len(SECOND)
    return place


@case
def a_later_run_finds_what_was_read():
    place = fill("read")
    hits = ask(place, "anne")
    assert [float(hit[0]) for hit in hits] == sorted([float(hit[0]) for hit in hits], reverse=True), hits
    best = [hit[1:] for hit in hits if float(hit[0]) == 16.0]  # scale * D: a key that is the query
    assert sorted(best) == [("101", "elli", "first"), ("203", "elli", "first"), ("51", "west", "second")], hits
    assert len(hits) == 8 and float(hits[3][0]) < 16.0, hits
    good("store", "verify", place)
    assert good("store", "ls", place).out.count("complete") == 2


@case
def what_is_wrong_is_told():
    assert example().returncode == 2 and example("mend", "x", "y").returncode == 2
    absent = example("ask", path("nowhere"), "anne")
    assert absent.returncode == 1 and absent.stderr.startswith(b"example: ") and absent.stdout == b"", absent
    other = path("of-another-model")
    assert memtx("eval", model(), text(), "--modes", "memory", "--memory", other).code == 0
    refused = example("read", other, "first", stdin="anne elliot")
    assert refused.returncode == 1 and b"model" in refused.stderr, refused


def compiled(compiler, *flags):
    program = path("example-" + flags[0].strip("-").replace("+", "x"))
    try:
        done = subprocess.run(compiler + [*flags, "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror",
                                          "-I" + os.path.join(ROOT, "libmemtx", "include"), SOURCE, "-x", "none", LIBRARY,
                                          "-lm", "-Wl,-rpath," + os.path.dirname(LIBRARY), "-o", program],
                              capture_output=True, text=True, check=False)
    except OSError:
        skip("no " + compiler[0])
    assert done.returncode == 0, done.stderr
    return program


@case
def as_C11_and_as_Cplusplus():
    place = fill("compiled")
    expected = ask(place, "anne")
    for compiler, flags in ((["cc"], ["-std=c11"]), (["c++"], ["-std=c++11", "-x", "c++"]),
                            (["c++"], ["-std=c++20", "-x", "c++"])):
        compiler = os.environ.get("CC" if compiler == ["cc"] else "CXX", compiler[0]).split()
        assert ask(place, "anne", program=compiled(compiler, *flags)) == expected


main()
