#!/usr/bin/env python3
"""A writer and eight reader processes over one store, whose capacity makes the writer free chunks all the while: every
row that a reader sees is the one it claims to be (stress_reader.c), and no reader holds the writer up for good.

    test_load.py [--long] [word of a case ..]

Timing decides nothing: medians and worst times of commits are printed, with readers and without. But a writer that
acknowledges nothing for HANG_S is held up, and a file that grows while no reader lives is one whose pages a dead reader
still holds.
"""
import atexit
import errno
import os
import random
import re
import signal
import subprocess
import threading
import time

from crash import LONG, acknowledged, check, environment, gone, new, promised, start
from tap import add, main

READER = os.environ["STRESS_READER"]
READERS = 8
CAPACITY = 700       # rows: at most 4 chunks in each of the 4 pairs, 2 MB
ENDLESS = 10**6      # segments
HANG_S = 60          # without an acknowledgement, or until a reader has ended
ALONE_S = 5 if LONG else 0.5
LOAD_S = 60 if LONG else 2
WRITERS = 12 if LONG else 2      # one after the other, each but the last killed while the readers read
DEATHS = 200 if LONG else 10     # of readers
STOPS = 2000 if LONG else 20     # of readers
GLANCES = 20000                  # some milliseconds
STEADY_COMMITS = 1000 if LONG else 40
COPIED_BYTES = 600000            # by a commit, about: the last chunk of each pair anew
SHIM = os.environ.get("CRASH_SHIM")  # not under a sanitizer
LINE = re.compile(r"acknowledged (\d+) rows, (\d+) documents, (\d+) written, (\d+) us\n")
REPORT = re.compile(r"(\d+) openings, (\d+) segments, (\d+) rows, (\d+) last\n")

processes = []  # all that were started: a case that fails leaves none behind
atexit.register(lambda: [process.kill() for process in processes if process.poll() is None])


class Writer:
    """One that goes on until it is killed; its acknowledgements, and how long each commit took."""

    def __init__(self, store, seed, durability):
        self.process = start(store, ENDLESS, durability, "--times", capacity=CAPACITY, seed=seed)
        processes.append(self.process)
        self.acks, self.took_us, self.ended = [], [], False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        for line in self.process.stdout:
            *ack, us = map(int, LINE.fullmatch(line.decode()).groups())
            with self.changed:
                self.acks.append(tuple(ack))
                self.took_us.append(us)
                self.changed.notify()
        with self.changed:
            self.ended = True
            self.changed.notify()

    def wait_for(self, n_more):
        """Until it has acknowledged so many more; a writer that stands still is a failure."""
        with self.changed:
            wanted = len(self.acks) + n_more
            while len(self.acks) < wanted:
                n = len(self.acks)
                assert self.changed.wait_for(lambda n=n: len(self.acks) > n or self.ended, HANG_S), \
                    "the writer is held up after %d commits" % n
                assert not self.ended, "the writer ended by itself: " + self.process.stderr.read().decode()

    def run_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wait_for(1)

    def kill(self):
        self.process.kill()
        assert self.process.wait() == -9, "the writer ended by itself: " + self.process.stderr.read().decode()
        self.thread.join()
        self.process.stdout.close()
        self.process.stderr.close()


class Reader:
    def __init__(self, store, seed, *args):
        self.process = subprocess.Popen([READER, store, "--capacity", str(CAPACITY), "--seed", str(seed)] + list(args),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment())
        processes.append(self.process)

    def holds(self):
        """It was started with --hold, and has begun its segment."""
        assert self.process.stdout.readline() == b"holding\n", self.process.stderr.read().decode()
        return self

    def kill(self):
        self.process.kill()
        _, err = self.process.communicate()
        assert self.process.returncode == -9, "a reader ended by itself: " + err.decode()

    def end(self):
        """Asks it to end; what it says it has read: openings, segments, rows, rows of the store at last."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=HANG_S)
        assert self.process.returncode == 0, "a reader: exit %d, %s" % (self.process.returncode, err.decode())
        return tuple(map(int, REPORT.fullmatch(out.decode()).groups()))


def times(took_us):
    ordered = sorted(took_us)
    return "%d commits, median %.1f ms, worst %.1f ms" % (len(ordered), ordered[len(ordered) // 2] / 1e3,
                                                           ordered[-1] / 1e3)


def size(store):
    return os.path.getsize(os.path.join(store, "data.mdb"))


def load(durability):
    """Readers that read while one writer after the other is killed."""
    store, there = new("load"), (0, 0)
    writer = Writer(store, 0, durability)
    writer.run_for(ALONE_S)
    print("# %s, alone: %s" % (durability, times(writer.took_us)), flush=True)
    readers = [Reader(store, seed) for seed in range(READERS)]
    took_us = []
    for seed in range(1, WRITERS + 1):
        n_before = len(writer.took_us)
        writer.run_for(LOAD_S / WRITERS)
        took_us += writer.took_us[n_before:]
        there = promised(writer.acks, durability, there)
        if seed < WRITERS:
            writer.kill()
            writer = Writer(store, seed, durability)
            writer.wait_for(1)
    first_of_last = writer.acks[0][0]
    reports = [reader.end() for reader in readers]
    writer.kill()
    print("# %s, %d readers: %s" % (durability, READERS, times(took_us)))
    print("# %d openings, %d segments, %d rows read; %d writers, %d rows written; %.1f MB"
          % (*(sum(report[i] for report in reports) for i in range(3)), WRITERS, writer.acks[-1][0],
             size(store) / 1e6), flush=True)
    for openings, segments, _, last in reports:
        assert openings and segments, "a reader has read nothing"
        assert last >= first_of_last, "a reader sees nothing of the last writer: %d rows" % last
    check(store, promised(writer.acks, durability, there), CAPACITY)
    gone(store)


def steady(store, writer, what):
    """No reader lives: what a commit needs is what the ones before it have freed."""
    writer.wait_for(5)  # the file may grow until the first of them has cleared up
    before = size(store)
    writer.wait_for(STEADY_COMMITS)
    grown = size(store) - before
    print("# %s: grown by %.1f MB in %d commits" % (what, grown / 1e6, STEADY_COMMITS), flush=True)
    assert grown < STEADY_COMMITS * COPIED_BYTES / 10, "dead readers hold %d bytes" % grown


def deaths():
    """Readers are killed wherever they are, again and again; the writer goes on, and so do other readers."""
    rng, store = random.Random(1), new("deaths")
    writer, witness = Writer(store, 0, "full"), None
    writer.wait_for(20)
    witness = Reader(store, 0)
    readers = [Reader(store, seed) for seed in range(1, READERS)]
    for seed in range(DEATHS):
        time.sleep(rng.uniform(0, 0.1))
        readers.pop(rng.randrange(len(readers))).kill()
        readers.append(Reader(store, READERS + seed))
    writer.wait_for(5)
    assert witness.end()[1], "the reader that was left has read nothing"
    for reader in readers:
        reader.kill()
    steady(store, writer, "%d readers killed" % (DEATHS + READERS - 1))
    writer.kill()
    check(store, promised(writer.acks, "full"), CAPACITY)
    gone(store)


def overtaken():
    """Readers that do little but take snapshots are stopped wherever they are, and go on some commits later."""
    rng, store = random.Random(1), new("overtaken")
    writer = Writer(store, 0, "full")
    writer.wait_for(1)
    readers = [Reader(store, seed, "--glances", str(GLANCES)) for seed in range(READERS // 2)]
    for _ in range(STOPS):
        reader = rng.choice(readers).process
        reader.send_signal(signal.SIGSTOP)
        writer.wait_for(3)
        reader.send_signal(signal.SIGCONT)
        time.sleep(rng.uniform(0, 0.002))
    reports = [reader.end() for reader in readers]
    writer.kill()
    print("# %d stops, %d segments" % (STOPS, sum(report[1] for report in reports)), flush=True)
    check(store, promised(writer.acks, "full"), CAPACITY)
    gone(store)


def held():
    """Readers that stand still within a segment: what they see stays, the writer goes on, and when some are killed
    there what they held is used again, though nobody opens the store."""
    store = new("held")
    writer = Writer(store, 0, "full")
    writer.wait_for(40)
    readers = [Reader(store, seed, "--hold").holds() for seed in range(READERS)]
    writer.wait_for(STEADY_COMMITS)
    for reader in readers[::2]:
        reader.kill()
    for reader in readers[1::2]:
        reader.end()  # it judges what it has held all the while
    steady(store, writer, "readers killed within a segment")
    writer.kill()
    check(store, promised(writer.acks, "full"), CAPACITY)
    gone(store)


def each_write():
    """While a reader has the store open a writer is killed after its n-th write, for every n; the next one goes on."""
    store, there, n, code = new("writes"), (0, 0), 0, -9
    first = start(store, 2, "full", capacity=CAPACITY)
    there = promised(acknowledged(first.communicate(timeout=HANG_S)[0]), "full")
    reader = Reader(store, 0, "--hold").holds()
    while code:
        n += 1
        shim = {"LD_PRELOAD": SHIM, "MEMTX_SHIM_CLASS": "write", "MEMTX_SHIM_AT": str(n),
                "MEMTX_SHIM_ERROR": str(errno.EIO), "MEMTX_SHIM_KILL": "1"}
        for env in shim, {}:
            writer = start(store, 2, "full", capacity=CAPACITY, seed=n, env=env)
            out, err = writer.communicate(timeout=HANG_S)
            assert writer.returncode in (0, -9 if env else 0), "after write %d: %s" % (n, err.decode())
            code = writer.returncode if env else code
            there = promised(acknowledged(out), "full", there)
        check(store, there, CAPACITY)
    reader.end()
    print("# the writer passes untouched at its write %d" % n, flush=True)
    assert n > 6, "no write was seen"
    gone(store)


add("eight readers beside writers that are killed, full", load, "full")
if LONG:
    add("eight readers beside writers that are killed, group", load, "group")
add("readers that are killed", deaths)
add("readers that are overtaken", overtaken)
add("readers that stand still within a segment", held)
if SHIM:
    add("a writer that is killed after each of its writes, beside a reader", each_write)

main()
