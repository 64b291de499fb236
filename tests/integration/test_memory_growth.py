#!/usr/bin/env python3
"""Anonymous memory of memtx eval on the real model: it does not grow with the text in any mode but full, and stays
below the weights plus 300 MB.

    test_memory_growth.py [--short TOKENS] [--long TOKENS]        default 8192 and 24576

The figure is peak_anon_bytes of the JSON: RssAnon after every segment. One process for each mode and length, so that no
mode sees what another has left. Skipped where the model or the novels are not there (data/get fetches them).
"""
import json
import os
import sys

from command import DATA, environment, good, path
from tap import add, case, main, skip

MODES = ["xl", "sinks", "memory"]
NOVELS = ["northangerabbey.txt", "persuasion.txt", "emma.txt", "mansfieldpark.txt", "prideprejudice.txt"]
MOST_ABOVE_WEIGHTS = 300 * 10**6

# What a token of the text may cost: its bytes (4.3 on average), its id and one score, the first two in buffers that
# double. Keys and values of one token are 2 x 3 x 64 x 15 numbers: 34,560 bytes in f16, a thousand times as much.
BYTES_A_TOKEN = 32

# What may differ besides: malloc keeps freed blocks or gives them back, and a sample falls before or after a write of
# the store. Rows of 8,192 tokens kept by mistake would be 283 MB in f16, those of a single layer 6 MB.
SLACK_BYTES = 5 << 20


def argument(name, default):
    if name in sys.argv:
        at = sys.argv.index(name)
        value = int(sys.argv[at + 1])
        del sys.argv[at:at + 2]
        return value
    return default


SHORT, LONG = argument("--short", 8192), argument("--long", 24576)
measured = {}


def novels(n_tokens):
    """A text of about so many tokens, made of novels one after the other."""
    name = path("novels-%d.txt" % n_tokens)
    if not os.path.exists(name):
        content = b""
        for novel in NOVELS:
            with open(os.path.join(DATA, "books", novel), "rb") as file:
                content += file.read()
        n_bytes = 5 * n_tokens  # a token has 4.3; --tokens cuts at the same place in every tokenizer's count
        assert len(content) >= n_bytes, "the novels together are too short"
        with open(name, "wb") as file:
            file.write(content[:n_bytes])
    return name


def run(mode, n_tokens):
    if (mode, n_tokens) not in measured:
        result = good("eval", os.path.join(DATA, "model.gguf"), novels(n_tokens), "--modes", mode, "--tokens", str(n_tokens),
                      "--json", "-", timeout=3600, env=environment())
        out = json.loads(result.out)
        assert out["runs"][0]["tokens"] == n_tokens - 1, out["runs"][0]
        measured[mode, n_tokens] = out["runs"][0]["peak_anon_bytes"], out["model"]["weight_bytes"]
    return measured[mode, n_tokens]


def have_data():
    for name in ["model.gguf"] + [os.path.join("books", novel) for novel in NOVELS]:
        if not os.path.exists(os.path.join(DATA, name)):
            skip("data/cache/%s is not there" % name)


def does_not_grow(mode):
    have_data()
    short, long = run(mode, SHORT)[0], run(mode, LONG)[0]
    allowed = SLACK_BYTES + BYTES_A_TOKEN * (LONG - SHORT)
    print("# %s: %.1f MB at %d tokens, %.1f MB at %d" % (mode, short / 1e6, SHORT, long / 1e6, LONG), flush=True)
    assert long - short <= allowed, "%d bytes more, %d allowed" % (long - short, allowed)


for each in MODES:
    add("anonymous memory does not grow in mode %s" % each, does_not_grow, each)


@case
def anonymous_memory_stays_below_the_weights_and_300_MB():
    have_data()
    for mode in MODES:
        anon, weights = run(mode, LONG)
        print("# %s: %.1f MB above weights of %.1f MB" % (mode, (anon - weights) / 1e6, weights / 1e6), flush=True)
        assert weights > 10**8, "weight_bytes is the weights in their working type"
        assert anon <= weights + MOST_ABOVE_WEIGHTS, mode


main()
