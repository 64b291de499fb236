#!/usr/bin/env python3
"""The power is cut: from a record of every write and sync of a writer, the files are rebuilt that the disk could hold at
any moment, and each must be a prefix of the stream with all that was acknowledged (crash_torn.c). Also after a write or
a sync has failed and the writer has tried it again.

    test_torn.py [--long] [word of a case ..]
"""
import errno
import os
import subprocess

from crash import LONG, MEMORY, acknowledged, environment, gone, new, start
from tap import add, main

TORN, SHIM = os.environ["CRASH_TORN"], os.environ["CRASH_SHIM"]
SEGMENTS = 30 if LONG else 5
IMAGES = 80 if LONG else 8  # at each sync

# Calls that fail, the n-th of a writer that goes on with a store: the pages of a transaction, its sync, its meta page. The
# last write of all is the 19th under full and the 8th under group.
FAULTS = [("write", n) for n in (range(1, 25) if LONG else (1, 2, 3, 8, 19))] + [("sync", n) for n in range(1, 9 if LONG else 3)]
FAULT_SEGMENTS, FAULT_IMAGES = 5, 12 if LONG else 2


def record(store, log, segments, durability, capacity, seed, *more, env=None, codes=(0,)):
    writer = start(store, segments, durability, *more, capacity=capacity, seed=seed,
                   env=dict(env or {}, LD_PRELOAD=SHIM, MEMTX_SHIM_LOG=log))
    out, err = writer.communicate(timeout=120)
    assert writer.returncode in codes, err.decode()
    assert acknowledged(out) or writer.returncode, "nothing was acknowledged"


def cut(store, log, durability, capacity, images):
    """What crash_torn says of all that the log could have left."""
    argv = [TORN, log, new("image", MEMORY), "--data", os.path.join(store, "data.mdb"), "--durability", durability,
            "--capacity", str(capacity), "--images", str(images)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3000,
                          env=environment(), check=False)
    assert done.returncode == 0, "exit %d, %s\n%s" % (done.returncode, done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode().strip()


def campaign(durability, capacity):
    store = new("torn")
    log = os.path.join(os.path.dirname(store), "log")
    for seed in 1, 2:  # the second goes on with what the first left
        record(store, log, SEGMENTS, durability, capacity, seed)
    print("# " + cut(store, log, durability, capacity, IMAGES), flush=True)
    gone(store)


def faults(durability):
    for class_, n in FAULTS:
        store = new("torn")
        log = os.path.join(os.path.dirname(store), "log")
        fault = {"MEMTX_SHIM_CLASS": class_, "MEMTX_SHIM_AT": str(n), "MEMTX_SHIM_ERROR": str(errno.EIO)}
        record(store, log, FAULT_SEGMENTS, durability, 0, 0)
        record(store, log, FAULT_SEGMENTS, durability, 0, n, "--again", env=fault, codes=(0, 1))
        record(store, log, FAULT_SEGMENTS, durability, 0, n + 1)
        print("# %s %d: %s" % (class_, n, cut(store, log, durability, 0, FAULT_IMAGES)), flush=True)
        gone(store)


for _durability in "full", "group":
    for _capacity in 0, 100:
        add("cut, %s, %s" % (_durability, "capacity %d" % _capacity if _capacity else "no capacity"), campaign,
            _durability, _capacity)
    add("cut, %s, after a call has failed" % _durability, faults, _durability)

main()
