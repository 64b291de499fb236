#!/usr/bin/env python3
"""One call of the C library fails under a writer (shim.c), the n-th of its class for every n until the writer passes
untouched; once, or from then on. The writer ends with exit 0, or 1 and one line; what is left is a prefix of the stream
with all that was acknowledged, and the next writer goes on with it. Where the writer has an index, its files are whole,
none is left over, every row is found through them, and one that could not be made is a warning.

    test_faults.py [--long] [word of a case ..]

The fast run takes one error for each call, in turn, and only some of the calls: STEP. The long one takes all of them.
"""
import errno
import os
import re
import shutil
import subprocess

from crash import LONG, acknowledged, check, gone, new, promised, start
from tap import add, main

SHIM = os.environ["CRASH_SHIM"]
SHORT = 0           # a write that puts down half
LATE = -errno.EIO   # a call that is done, and fails
ERRORS = {
    "write": [errno.ENOSPC, errno.EIO, SHORT, LATE],
    "read": [errno.EIO],
    "sync": [errno.EIO, LATE],
    "truncate": [errno.ENOSPC, errno.EIO],
    "map": [errno.ENOMEM],
    "open": [errno.EIO, errno.ENOSPC, errno.ENOMEM],
    "name": [errno.EIO],
    "mkdir": [errno.ENOSPC, errno.EIO],
    "memory": [errno.ENOMEM],
}
MAY_BE_NONE = ["name"]  # classes of which a writer need not make a call
# Of n in the fast run: of a writer without an index, and with one.
STEP = {"write": 2, "read": 2, "map": 3, "memory": 7}
INDEX_STEP = {"write": 9, "read": 11, "sync": 4, "open": 4, "name": 2, "memory": 41}
HANG_S = 60
GO_ON_EVERY = 1 if LONG else 4

# What ends a writer: its own line, or libgomp's, which ends the process when it gets no memory for a thread's settings.
ERROR_LINE = re.compile(r"memtx: [^\n]+\n|\nlibgomp: Out of memory allocating \d+ bytes\n")

# What a writer with an index says when only that failed.
WARNING = re.compile(r"(memtx: warning: [^\n]+\n)?")

# name: (segments, durability, capacity, further arguments, on a store that is there already)
STREAMS = {
    "a new store, full": (5, "full", 0, [], False),
    "a store that is there, full, tried again": (4, "full", 100, ["--again"], True),
    "a store that is there, group": (9, "group", 0, [], True),
    "a store that is there, group, an index": (14, "group", 400, ["--index"], True),
}
if LONG:
    STREAMS["a new store, full, an index"] = (13, "full", 0, ["--index"], False)
LEAST_FILES = 3  # that a writer with an index makes


def has_index(stream):
    return "--index" in STREAMS[stream][3]


def files_made(store):
    """Index files that were ever made, by the number of the last: it is not dropped before others are made."""
    return max((int(name[4:20], 16) + 1 for name in os.listdir(store) if name.startswith("run-")), default=0)


class Base:
    """A store to begin with, made once for each stream; what was promised of it."""
    made = {}

    def __init__(self, durability, capacity, index):
        self.store = new("base")
        writer = start(self.store, 6, durability, *index, capacity=capacity, seed=7)
        out, err = writer.communicate(timeout=HANG_S)
        assert writer.returncode == 0, err.decode()
        acks = acknowledged(out)
        self.promise = acks[-1][0], acks[-1][1]

    @classmethod
    def of(cls, stream):
        if stream not in cls.made:
            index = ["--index"] if has_index(stream) else []
            cls.made[stream] = cls(*STREAMS[stream][1:3], index)
        return cls.made[stream]


def begin(stream):
    """A store for one run of the stream; what was promised of it."""
    store, before = new("fault"), (0, 0)
    if STREAMS[stream][4]:
        shutil.copytree(Base.of(stream).store, store, ignore=shutil.ignore_patterns("lock.mdb"))
        before = Base.of(stream).promise
    return store, before


_files = {}


def all_files(stream):
    """Index files that a writer makes that nothing happens to."""
    if stream not in _files:
        store, _ = begin(stream)
        _, code, warned, _ = run(store, stream, {})
        assert code == 0 and not warned and files_made(store) >= LEAST_FILES, os.listdir(store)
        _files[stream] = files_made(store)
        gone(store)
    return _files[stream]


def run(store, stream, shim):
    """The writer under the shim: its acknowledgements, exit code, whether it warned, and the number of failed calls."""
    segments, durability, capacity, more, _ = STREAMS[stream]
    report = os.path.join(os.path.dirname(store), "report")
    writer = start(store, segments, durability, *more, capacity=capacity, seed=3,
                   env=dict(shim, LD_PRELOAD=SHIM, MEMTX_SHIM_REPORT=report))
    try:
        out, err = writer.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        writer.kill()
        raise
    err = err.decode()
    assert writer.returncode in (0, 1), "exit %d: %s" % (writer.returncode, err)
    if writer.returncode == 1:
        assert ERROR_LINE.fullmatch(err), "one line on stderr expected: %r" % err
    else:
        assert WARNING.fullmatch(err) and (not err or has_index(stream)), "no more than a warning expected: %r" % err
    with open(report) as file:
        n_failed = int(re.fullmatch(r"\d+ calls, (\d+) failed\n", file.read()).group(1))
    return acknowledged(out), writer.returncode, err != "", n_failed


def fault(class_, n, error, sticky):
    """The shim's settings."""
    shim = {"MEMTX_SHIM_CLASS": class_, "MEMTX_SHIM_AT": str(n), "MEMTX_SHIM_ERROR": str(abs(error))}
    if error == LATE:
        shim["MEMTX_SHIM_LATE"] = "1"
    if sticky:
        shim["MEMTX_SHIM_STICKY"] = "1"
    return shim


def one(stream, class_, n, error, sticky):
    """One run; whether a call failed in it."""
    _, durability, capacity, _, _ = STREAMS[stream]
    store, before = begin(stream)
    acks, code, warned, n_failed = run(store, stream, fault(class_, n, error, sticky))
    assert n_failed or (code == 0 and not warned), "failed, though no call did"
    if has_index(stream) and code == 0 and not warned:
        assert files_made(store) == all_files(stream), "%d index files, and no warning" % files_made(store)
    index = ["--index"] if has_index(stream) else []
    there = check(store, promised(acks, durability, before), capacity, *index)
    if n % GO_ON_EVERY == 0:
        writer = start(store, 2, durability, *index, capacity=capacity, seed=n)
        out, err = writer.communicate(timeout=HANG_S)
        assert writer.returncode == 0 and not err, "the next writer: %s" % err.decode()
        check(store, promised(acknowledged(out), "full", there), capacity, *index)
    gone(store)
    return n_failed > 0


def campaign(stream, class_, sticky):
    errors, n_runs, n_hit = ERRORS[class_], 0, 0
    step = 1 if LONG else (INDEX_STEP if has_index(stream) else STEP).get(class_, 1)
    n = 1 + step // 2 if sticky else 1  # between those that fail once
    while True:
        hit = False
        for error in errors if LONG else [errors[n_runs % len(errors)]]:
            n_runs += 1
            try:
                hit = one(stream, class_, n, error, sticky)
            except Exception as what:
                raise AssertionError("call %d, error %d: %s" % (n, error, what)) from what
        if not hit:
            break
        n_hit += 1
        n += step
    assert n_hit or class_ in MAY_BE_NONE, "no call was seen"
    print("# %d runs, the last untouched at n = %d" % (n_runs, n), flush=True)


for _stream in STREAMS:
    for _class in ERRORS:
        for _sticky in False, True:
            add("%s: %s fails%s" % (_stream, _class, " and stays so" if _sticky else ""), campaign, _stream, _class,
                _sticky)

main()
