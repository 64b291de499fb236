#!/usr/bin/env python3
"""A writer is killed at a random moment, again and again over the same store: what it acknowledged is there, and what is
there is a prefix of the stream.

    test_kill.py [--long] [--seed S] [word of a case ..]          20 kills, or 240; and as many of new stores

Half of the kills come a random time after the start, the other half a random time after a random acknowledgement. The
next writer goes on with the store as the kill has left it, so that damage would add up. With a capacity the file stays
small all the while.
"""
import os
import random
import sys
import time

from crash import LONG, MOST_ROWS, acknowledged, check, gone, new, promised, start
from tap import add, main

ROUNDS = 60 if LONG else 5
ENDLESS = 10**6   # segments
MOST_ACKS = 25    # waited for before a kill
START_S = 0.15    # from the start of a writer to well into its stream
COMMIT_S = 0.02   # longer than a commit takes
MAKE_S = 0.03     # from the start of a writer to its first rows

CAPACITY = 700    # rows: at most 4 chunks in each of the 4 pairs, 2 MB
MOST_BYTES = 10 << 20  # of the file then: what a transaction copies, and what the two before it still hold

SEED = 1
if "--seed" in sys.argv:
    at = sys.argv.index("--seed")
    SEED = int(sys.argv[at + 1])
    del sys.argv[at:at + 2]


def killed(writer, rng):
    """Kills the writer at a moment that rng draws; all that it wrote to stdout."""
    out = b""
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, START_S))
    else:
        for _ in range(rng.randint(1, MOST_ACKS)):
            out += writer.stdout.readline()
        time.sleep(rng.uniform(0, COMMIT_S))
    writer.kill()
    out += writer.stdout.read()
    err = writer.stderr.read()
    assert writer.wait(timeout=60) == -9, "the writer ended by itself: %s" % err.decode()
    return out


def campaign(durability, capacity):
    rng, store = random.Random("%d %s %d" % (SEED, durability, capacity)), new("kill")
    there, within = (0, 0), 0
    for number in range(ROUNDS):
        seed = rng.getrandbits(32)
        acks = acknowledged(killed(start(store, ENDLESS, durability, capacity=capacity, seed=seed), rng))
        last = acks[-1][0] if acks else there[0]
        there = check(store, promised(acks, durability, there), capacity)
        within += there[0] > last
        assert there[0] <= last + MOST_ROWS, "round %d: %d rows, %d given" % (number, there[0], last)
    print("# %d kills, %d rows, %d ended documents; %d kills fell between a write and its acknowledgement"
          % (ROUNDS, there[0], there[1], within), flush=True)
    assert there[0], "no writer got as far as a row"
    if capacity:
        n_bytes = os.path.getsize(os.path.join(store, "data.mdb"))
        print("# %.1f MB for the newest %d rows" % (n_bytes / 1e6, capacity), flush=True)
        assert n_bytes <= MOST_BYTES
    gone(store)


def made():
    """A new store each time, and the kill comes while it is made."""
    rng, with_rows = random.Random("%d made" % SEED), 0
    for _ in range(4 * ROUNDS):
        store = new("made")
        writer = start(store, ENDLESS, "full", seed=rng.getrandbits(32))
        time.sleep(rng.uniform(0, MAKE_S))
        writer.kill()
        acks = acknowledged(writer.stdout.read())
        writer.communicate(timeout=60)
        there = check(store, promised(acks, "full"))
        assert check(store, there, 0, "--create") == there, "another store was made"
        with_rows += there[0] > 0
        gone(store)
    print("# %d kills, %d stores with rows" % (4 * ROUNDS, with_rows), flush=True)


for _durability in "full", "group":
    for _capacity in 0, CAPACITY:
        add("killed, %s, %s" % (_durability, "capacity %d" % _capacity if _capacity else "no capacity"), campaign,
            _durability, _capacity)
add("killed while a store is made", made)

main()
