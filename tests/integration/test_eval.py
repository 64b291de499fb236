#!/usr/bin/env python3
"""memtx eval on the tiny model: the figures, the table, the JSON, and what must be equal to what."""
import json
import math
import os
import re
import subprocess

from command import MEMTX, SMALL, environment, evaluate, good, memtx, model, one_line, path, put, runs, text
from tap import case, main

MODES = ["segment", "window", "xl", "sinks", "full", "memory", "memory-random"]
ALL = ",".join(MODES)

# What may differ between numbers of threads: partial sums of attention and of oneDNN's products are added in another
# order, 1e-7 of each; over a few layers and a mean of hundreds of tokens far below this.
THREADS_TOLERANCE = 1e-4

everything = None


def all_modes():
    """The JSON of one run over all modes, made once."""
    global everything
    everything = everything or evaluate("--modes", ALL)
    return everything


def near(a, b, relative=1e-6):
    # Figures stand with nine digits in the JSON.
    assert abs(a - b) <= relative * max(abs(a), abs(b), 1e-3), (a, b)


@case
def the_table_has_a_row_for_each_mode():
    out = good("eval", model(), text(), *SMALL, "--modes", ALL).out
    lines = out.splitlines()
    for head in ["mode", "tokens", "nll", "ppl", "bits/byte", "word ppl", "tokens/s", "memory rows", "on disk", "peak RSS"]:
        assert head in lines[0], head
    assert [line.split()[0] for line in lines[1:8]] == MODES, out
    for line in lines[1:8]:
        cells = line.split()
        assert re.fullmatch(r"[\d,]+", cells[1]) and float(cells[3]) > 1, line
        assert ("memory" in cells[0]) == (cells[7] != "-"), line
        near(float(cells[3]), math.exp(float(cells[2])), 2e-3)
    assert lines[8] == "" and "paired" in lines[9], out
    pairs = [tuple(re.match(r"\s+(\S+)\s+-\s+(\S+)\s", line).groups()) for line in lines[10:]]
    assert pairs[:6] == [(mode, "segment") for mode in MODES[1:]], pairs
    assert ("memory", "sinks") in pairs, pairs
    for line in lines:
        assert line == line.rstrip() and len(line) < 160, repr(line)


@case
def columns_of_the_table_stay_apart():
    # A model without a clue has a word perplexity with dozens of digits.
    words = put("words.txt", " ".join("a-very-long-word-that-nobody-has-ever-seen-before-%d" % i for i in range(40)))
    lines = good("eval", model(), words, *SMALL, "--modes", "xl").out.splitlines()
    assert len(lines[1].split()) == 11, lines  # ten columns, the last of two words


@case
def json_has_the_names_of_the_issue():
    out = all_modes()
    assert {"memtx", "options", "runs", "pairs"} <= set(out), out.keys()
    assert re.fullmatch(r"\d+\.\d+\.\d+", out["memtx"])
    kinds = {"mode": str, "tokens": int, "nll": float, "ppl": float, "bits_per_byte": float, "word_ppl": float,
             "tokens_per_s": float, "memory_rows": int, "store_bytes": int, "peak_rss_bytes": int,
             "peak_anon_bytes": int, "complete": bool}
    assert [run["mode"] for run in out["runs"]] == MODES
    for run in out["runs"]:
        for name, kind in kinds.items():
            # a whole number is a float that happens to be one
            assert isinstance(run[name], (int, float) if kind is float else kind), (name, run[name])
        assert run["complete"] is True and run["peak_rss_bytes"] >= run["peak_anon_bytes"] > 0, run
    for pair in out["pairs"]:
        for name, kind in {"a": str, "b": str, "delta_nll": (int, float), "stderr": (int, float)}.items():
            assert isinstance(pair[name], kind), (name, pair)


@case
def json_has_all_options():
    options = all_modes()["options"]
    for name in ["modes", "window", "segment", "sinks", "memory", "layers", "k", "blend", "bias", "delta", "positions",
                 "capacity", "store_type", "tokens", "skip", "threads", "seed"]:
        assert name in options, name
    assert options["modes"] == MODES and options["layers"] == [2, 3] and options["memory"] is None
    assert (options["window"], options["segment"], options["sinks"], options["k"]) == (32, 16, 2, 8)
    assert (options["blend"], options["positions"], options["store_type"]) == ("joint", "near", "f16")
    assert options["delta"] == 4 * 32  # 4 max(W, T)


@case
def options_come_out_as_they_went_in():
    options = evaluate("--modes", "memory", "--layers", "1,3", "--blend", "bias", "--bias", "-0.5", "--delta", "99",
                       "--positions", "fixed", "--lambda", "0.25", "--capacity", "77", "--store-type", "bf16", "--tokens",
                       "200", "--skip", "10", "--threads", "1", "--seed", "5", "--durability", "full")["options"]
    for name, value in {"layers": [1, 3], "blend": "bias", "bias": -0.5, "delta": 99, "positions": "fixed", "lambda": 0.25,
                        "capacity": 77, "store_type": "bf16", "tokens": 200, "skip": 10, "threads": 1, "seed": 5,
                        "durability": "full", "modes": ["memory"]}.items():
        assert options[name] == value, (name, options[name])


@case
def figures_follow_from_each_other():
    out = all_modes()
    bytes_scored, words = out["scored"]["bytes"], out["scored"]["words"]
    for run in out["runs"]:
        near(run["ppl"], math.exp(run["nll"]), 1e-5)
        near(run["bits_per_byte"], run["nll"] * run["tokens"] / math.log(2) / bytes_scored, 1e-5)
        near(math.log(run["word_ppl"]), run["nll"] * run["tokens"] / words, 1e-5)
        assert run["tokens_per_s"] > 0


@case
def words_and_bytes_are_those_of_the_text():
    content = "one two  three\nfour\tfive the-other\r\n the end"
    out = evaluate("--modes", "xl", texts=[put("counted.txt", content)])
    # All but the first token, which is "o": one byte, and its word goes on behind it.
    assert out["scored"]["bytes"] == len(content) - 1, out["scored"]
    assert out["scored"]["words"] == len(content.split()), out["scored"]


@case
def all_modes_score_the_same_tokens():
    out = all_modes()
    assert len({run["tokens"] for run in out["runs"]}) == 1
    assert out["runs"][0]["tokens"] == out["scored"]["tokens"]
    for pair in out["pairs"]:
        assert pair["tokens"] == out["scored"]["tokens"]


@case
def pairs_are_each_to_the_first_and_memory_to_sinks():
    out = all_modes()
    pairs = [(pair["a"], pair["b"]) for pair in out["pairs"]]
    assert pairs[:6] == [(mode, "segment") for mode in MODES[1:]], pairs
    assert ("memory", "sinks") in pairs and len(set(pairs)) == len(pairs), pairs
    one = evaluate("--modes", "sinks,memory")
    assert [(p["a"], p["b"]) for p in one["pairs"]] == [("memory", "sinks")], one["pairs"]
    other = evaluate("--modes", "memory,sinks")
    assert ("sinks", "memory") in [(p["a"], p["b"]) for p in other["pairs"]]
    assert ("memory", "sinks") in [(p["a"], p["b"]) for p in other["pairs"]]


@case
def delta_nll_is_the_difference():
    out = all_modes()
    nll = {mode: run["nll"] for mode, run in runs(out).items()}
    for pair in out["pairs"]:
        assert abs(pair["delta_nll"] - (nll[pair["a"]] - nll[pair["b"]])) < 1e-6, pair
        assert pair["stderr"] >= 0


@case
def one_mode_has_no_pair():
    assert evaluate("--modes", "xl")["pairs"] == []


@case
def too_short_for_a_standard_error():
    out = evaluate("--modes", "segment,xl", "--tokens", "300")
    assert out["pairs"][0]["stderr"] is None, out["pairs"]
    shown = good("eval", model(), text(), *SMALL, "--modes", "segment,xl", "--tokens", "300").out
    assert "no standard error" in shown and "nan" not in shown, shown


@case
def tokens_and_skip():
    whole = evaluate("--modes", "xl")["runs"][0]["tokens"]
    assert evaluate("--modes", "xl", "--tokens", "100")["runs"][0]["tokens"] == 99
    assert evaluate("--modes", "xl", "--tokens", "1000000")["runs"][0]["tokens"] == whole
    assert evaluate("--modes", "xl", "--skip", "0")["runs"][0]["tokens"] == whole
    assert evaluate("--modes", "xl", "--skip", "1")["runs"][0]["tokens"] == whole  # the first is not scored anyhow
    assert evaluate("--modes", "xl", "--tokens", "100", "--skip", "40")["runs"][0]["tokens"] == 60
    assert evaluate("--modes", "xl", "--tokens", "100", "--skip", "99")["runs"][0]["tokens"] == 1
    one_line(memtx("eval", model(), text(), "--tokens", "100", "--skip", "100"), 2, "--skip")
    one_line(memtx("eval", model(), text(), "--tokens", "1"), 2, "nothing to score")


@case
def skipped_tokens_stay_context():
    part = lambda *args: evaluate("--modes", "sinks,memory", "--tokens", "400", *args)
    whole, head, tail = runs(part()), runs(part("--tokens", "150")), runs(part("--skip", "150"))
    for mode in ("sinks", "memory"):
        total = head[mode]["nll"] * head[mode]["tokens"] + tail[mode]["nll"] * tail[mode]["tokens"]
        assert head[mode]["tokens"] + tail[mode]["tokens"] == whole[mode]["tokens"]
        near(total, whole[mode]["nll"] * whole[mode]["tokens"])


@case
def several_texts_are_documents_of_their_own():
    a, b = text(120, seed=1), text(150, seed=2)
    alone = [runs(evaluate("--modes", "sinks,memory", texts=[t])) for t in (a, b)]
    both = evaluate("--modes", "sinks,memory", texts=[a, b])
    for mode in ("sinks", "memory"):  # nothing goes over: window, sinks and memory's scope end with the text
        documents = runs(both)[mode]["documents"]
        assert [d["name"] for d in documents] == [os.path.basename(t) for t in (a, b)]
        for document, single in zip(documents, alone):
            assert document["tokens"] == single[mode]["tokens"]
            near(document["nll"], single[mode]["nll"])
        assert runs(both)[mode]["tokens"] == sum(single[mode]["tokens"] for single in alone)
    assert runs(both)["memory"]["memory_rows"] == sum(single["memory"]["memory_rows"] for single in alone)


@case
def two_texts_of_one_name_or_the_same_text_twice():
    os.makedirs(path("other"), exist_ok=True)
    put("other/same.txt", "the cat sat on the mat and the dog " * 20)
    put("same.txt", "an ant in an inn and another ant " * 20)
    out = evaluate("--modes", "memory", texts=[path("same.txt"), path("other/same.txt"), path("same.txt")])
    documents = out["runs"][0]["documents"]
    assert [d["name"] for d in documents] == ["same.txt"] * 3 and documents[0]["nll"] == documents[2]["nll"], documents


@case
def text_from_standard_input():
    with open(text(), "rb") as file:
        content = file.read()
    from_file = evaluate("--modes", "xl")
    from_pipe = evaluate("--modes", "xl", texts=["-"], stdin=content)
    assert from_file["runs"][0]["nll"] == from_pipe["runs"][0]["nll"]


@case
def memory_rows_are_the_tokens_read():
    out = all_modes()
    for mode, run in runs(out).items():  # every token of the text, the first too, is a row at the end of the document
        assert run["memory_rows"] == (run["tokens"] + 1 if mode.startswith("memory") else 0), run
        assert (run["store_bytes"] > 0) == mode.startswith("memory"), run
    assert runs(evaluate("--modes", "memory", "--capacity", "100"))["memory"]["memory_rows"] == 100


@case
def off_is_sinks_exactly():
    for layers in ("upper", "all"):
        out = runs(evaluate("--modes", "sinks,memory", "--blend", "off", "--layers", layers))
        assert out["sinks"]["nll"] == out["memory"]["nll"], (out["sinks"]["nll"], out["memory"]["nll"])


@case
def a_memory_of_everything_is_full_attention():
    # Identity 1 of DESIGN 4 through the command: f32 rows, k at least the rows, no sinks, every layer, delta the text.
    out = runs(evaluate("--modes", "full,memory", "--sinks", "0", "--layers", "all", "-k", "600", "--delta", "600",
                        "--tokens", "600", "--store-type", "f32"))
    assert out["full"]["nll"] != out["memory"]["nll"]  # two ways were walked
    near(out["full"]["nll"], out["memory"]["nll"], 1e-5)


@case
def modes_and_options_change_the_figures():
    out = runs(all_modes())
    assert len({run["nll"] for run in out.values()}) == len(MODES), {m: r["nll"] for m, r in out.items()}
    few = ["--modes", "memory", "--tokens", "300"]
    base = evaluate(*few)["runs"][0]["nll"]
    for args in (["-k", "2"], ["--layers", "all"], ["--delta", "40"], ["--positions", "fixed"], ["--capacity", "60"],
                 ["--store-type", "bf16"], ["--blend", "bias"], ["--blend", "paper"], ["--lambda", "9"],
                 ["--window", "48"], ["--segment", "8"], ["--sinks", "0"]):
        assert evaluate(*few, *args)["runs"][0]["nll"] != base, args


@case
def defaults_of_the_bias():
    few = ["--modes", "memory", "--tokens", "300"]
    for blend, bias in (("bias", "-1"), ("paper", "-4")):
        usual = evaluate(*few, "--blend", blend)
        assert usual["options"]["bias"] == float(bias)
        given = evaluate(*few, "--blend", blend, "--bias", bias)
        assert usual["runs"][0]["nll"] == given["runs"][0]["nll"]
    joint, zero = evaluate(*few), evaluate(*few, "--blend", "bias", "--bias", "0")
    assert joint["runs"][0]["nll"] == zero["runs"][0]["nll"]


@case
def segment_sizes_agree_in_full_and_window():
    for mode in ("full", "window"):
        nll = [evaluate("--modes", mode, "--tokens", "400", "--segment", str(n))["runs"][0]["nll"] for n in (1, 7, 64, 512)]
        for other in nll[1:]:
            near(nll[0], other, 1e-5)


@case
def two_runs_are_equal():
    a, b = runs(all_modes()), runs(evaluate("--modes", ALL))
    for mode in MODES:
        assert a[mode]["nll"] == b[mode]["nll"], mode


@case
def threads_agree_to_tolerance():
    one, two = [runs(document) for document in (evaluate("--modes", ALL, "-j", "1"), all_modes())]
    assert all_modes()["options"]["threads"] == 2
    for mode in MODES:
        near(one[mode]["nll"], two[mode]["nll"], THREADS_TOLERANCE)


@case
def random_retrieval_goes_by_its_seed():
    def nll(mode, seed):
        return evaluate("--modes", mode, "--seed", seed, "--tokens", "300")["runs"][0]["nll"]
    random = [nll("memory-random", seed) for seed in ("1", "2", "1")]
    assert random[0] == random[2] and random[0] != random[1], random
    assert len({nll("memory", seed) for seed in ("1", "2")}) == 1


@case
def json_to_standard_output_is_pure():
    result = good("eval", model(), text(), *SMALL, "--modes", "xl", "--json", "-")
    assert json.loads(result.out)["runs"] and result.out.endswith("}\n")
    assert result.err.startswith("mode "), result  # the table goes to the other side


@case
def json_file_holds_the_same():
    name = path("figures.json")
    shown = good("eval", model(), text(), *SMALL, "--modes", "xl,memory", "--json", name)
    with open(name, encoding="utf-8") as file:
        written = json.load(file)
    direct = evaluate("--modes", "xl,memory")
    assert written["options"] == direct["options"]
    assert [r["nll"] for r in written["runs"]] == [r["nll"] for r in direct["runs"]]
    assert shown.out.startswith("mode ") and shown.err == "", shown
    good("eval", model(), text(), *SMALL, "--modes", "xl", "--json", name)  # written over
    with open(name, encoding="utf-8") as file:
        assert len(json.load(file)["runs"]) == 1


@case
def names_that_json_must_escape():
    awkward = 'quote" back\\slash \u00e9\u4e2d tab\t.txt'
    out = evaluate("--modes", "xl", texts=[put(awkward, "the cat and the dog " * 10)])
    assert out["runs"][0]["documents"][0]["name"] == awkward


@case
def json_is_utf_8_whatever_a_file_is_called():
    # Latin-1; an overlong slash would be one directory further; a surrogate; past the last character; cut off.
    for odd in (b"latin-\xe9.txt", b"\xc0\xae", b"\xed\xa0\x80.txt", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"a\xe4\xb8"):
        name = os.path.join(path().encode(), odd)
        with open(name, "wb") as file:
            file.write(b"the cat and the dog " * 10)
        done = subprocess.run([MEMTX, "eval", model(), name, "--modes", "xl", "--json", "-"], capture_output=True,
                              env=environment(), check=True)
        shown = json.loads(done.stdout.decode("utf-8"))["runs"][0]["documents"][0]["name"]
        assert shown == odd.decode("utf-8", "replace") or set(shown) <= set(odd.decode("latin-1") + "\ufffd"), shown


main()
