#!/usr/bin/env python3
"""memtx eval: every option with good and bad values, layers, blends, texts of every kind, places to write."""
import os
import time

from command import SMALL, evaluate, good, memtx, model, one_line, path, put, runs, text
from tap import add, case, main, skip


def wrong(*args, words=(), code=2):
    one_line(memtx("eval", model(), text(), *args), code, *words)


# ---- numbers and words ----------------------------------------------------------------------------------------------

# name: (good values, bad values)
VALUES = {
    "window": (["1", "512", "0"], ["-1", "x", "", "1.5", "1e3", "99999999999999999999", " 5", "5 ", "0x10", "+5", "1048577"]),
    "segment": (["1", "7", "1024"], ["0", "-1", "x", "", "65537"]),
    "sinks": (["0", "1", "100"], ["-1", "x", "", "65537"]),
    "k": (["1", "100", "4096"], ["0", "-1", "x", "", "4097"]),
    "blend": (["joint", "bias", "paper", "off"], ["", "JOINT", "none", "joint,bias"]),
    "delta": (["0", "1", "4096"], ["-1", "x", "", "4097", "99999999"]),
    "positions": (["near", "fixed"], ["", "far", "NEAR"]),
    "lambda": (["0", "0.5", "1e3"], ["-1", "x", "", "nan", "inf", "1e7"]),
    "capacity": (["1", "100", "1000000"], ["0", "-1", "x", "", "99999999999999999999"]),
    "store-type": (["f16", "bf16", "f32"], ["", "F16", "int8", "f64"]),
    "durability": (["group", "full"], ["", "none"]),
    "tokens": (["2", "100"], ["0", "-1", "x", ""]),
    "skip": (["0", "50"], ["-1", "x", ""]),
    "threads": (["1", "2"], ["0", "-1", "x", "", "1025", "4294967297"]),
    "seed": (["0", "18446744073709551615"], ["-1", "x", "", "18446744073709551616"]),
    "modes": (["xl", "memory-random,xl", "segment,window,xl,sinks,full,memory,memory-random"],
              ["", ",", "xl,", "xl,,sinks", "XL", "rmt", "xl,xl", "memory,memory-random,memory", "xl sinks"]),
    "layers": (["0", "3", "0,2", "1-3", "2-2", "upper", "all", "0,2-3", "upper,0"],
               ["", ",", "4", "1-4", "3-1", "-1", "1-", "x", "0;1", "1-2-3", "0,", "0,,1", "upperish", "99999999999999999999",
                "0x1", " 1", "1 "]),
    "weights": (["f32"], ["", "f16", "q8"]),
}


def takes(name, value):
    result = good("eval", model(), text(60), *SMALL, "--modes", "memory", "--" + name + "=" + value)
    assert result.err == "" and result.out.startswith("mode"), result


def refuses(name, values):
    start = time.monotonic()
    for value in values:
        wrong("--modes", "memory", "--%s=%s" % (name, value), words=["--" + name] if name != "delta" else ["delta"])
    assert time.monotonic() - start < 10


for option, (fine, bad) in VALUES.items():
    for fine_value in fine:
        add("--%s %s" % (option, fine_value), takes, option, fine_value)
    add("--%s refuses what it cannot be" % option, refuses, option, bad)


@case
def bias_goes_with_the_blends_that_have_one():
    for value in ("-1000", "0", "1e2", "-0.25"):
        good("eval", model(), text(60), *SMALL, "--modes", "memory", "--blend", "bias", "--bias", value)
        good("eval", model(), text(60), *SMALL, "--modes", "memory", "--blend", "paper", "--bias=" + value)
    for value in ("", "x", "nan", "inf", "-inf", "1001", "1e999"):
        wrong("--blend", "bias", "--bias=" + value, words=["--bias"])
    wrong("--bias", "-1", words=["--bias", "joint", "--blend bias"])
    wrong("--blend", "joint", "--bias", "0", words=["--bias"])
    wrong("--blend", "off", "--bias", "0", words=["--bias", "off"])


@case
def short_forms_are_the_long_ones():
    long = evaluate("--modes", "memory", "--window", "40", "--segment", "20", "--sinks", "3", "--layers", "1", "--tokens",
                    "100", "--threads", "1", "--k", "5", small=False)
    short = evaluate("-m", "memory", "-w", "40", "-t", "20", "-s", "3", "-l", "1", "-n", "100", "-j", "1", "-k", "5",
                     small=False)
    assert long["options"] == short["options"] and long["runs"][0]["nll"] == short["runs"][0]["nll"]


@case
def options_may_stand_anywhere_and_the_last_one_counts():
    result = good("eval", "-n", "50", model(), "--modes", "xl", text(), "-n", "60", "--")
    assert result.out.splitlines()[1].split()[1] == "59", result
    dashed = put("-n", "the cat and the dog " * 10)
    good("eval", "--modes", "xl", "--", model(), dashed)


@case
def layers_that_are_named():
    def layers(of):
        return evaluate("--modes", "memory", "--layers", of, "-n", "60")["options"]["layers"]
    for of, are in {"0": [0], "3": [3], "0,2": [0, 2], "2,0": [0, 2], "1-3": [1, 2, 3], "2-2": [2], "upper": [2, 3],
                    "all": [0, 1, 2, 3], "0,2-3": [0, 2, 3], "upper,0": [0, 2, 3], "1,1": [1]}.items():
        assert layers(of) == are, (of, layers(of))
    odd = evaluate("--modes", "memory", "--layers", "upper", "-n", "60", model_path=model(layers=3))
    assert odd["options"]["layers"] == [1, 2]  # the larger half


@case
def full_past_the_context_is_refused_before_anything_runs():
    long = text(1000)
    start = time.monotonic()
    line = one_line(memtx("eval", model(), long, "--modes", "memory,full"), 1, "full", "context", "4096", "--tokens")
    assert time.monotonic() - start < 2 and os.path.basename(long) in line
    good("eval", model(), long, "--modes", "full", "--tokens", "4096")
    one_line(memtx("eval", model(), long, "--modes", "full", "--tokens", "4097"), 1, "context")
    good("eval", model(), long, *SMALL, "--modes", "xl,sinks", "--tokens", "4200")


@case
def bf16_weights_work_or_say_why_not():
    result = memtx("eval", model(), text(60), *SMALL, "--modes", "xl", "--weights", "bf16")
    if result.code:
        one_line(result, 1, "bf16")
    else:
        assert result.out.startswith("mode"), result


@case
def settings_larger_than_the_text():
    out = runs(evaluate("--modes", "xl,sinks,memory,memory-random", "--window", "1500", "--segment", "1500", "--sinks", "900",
                        "-k", "4096", "-n", "300"))
    assert len({run["nll"] for run in out.values()}) == 1  # all of it is one segment: nobody looks back


@case
def settings_past_the_context():
    line = one_line(memtx("eval", model(), text(), "--window", "5000", "--segment", "3000", "--modes", "xl"), 1, "8000", "4096")
    assert "--" not in line or "--window" in line


# ---- texts ----------------------------------------------------------------------------------------------------------

@case
def texts_that_cannot_be_read():
    one_line(memtx("eval", model(), path("no-such.txt")), 1, "no-such.txt", "no such file")
    os.makedirs(path("folder"), exist_ok=True)
    one_line(memtx("eval", model(), path("folder")), 1, "folder", "directory")
    one_line(memtx("eval", model(), text(), path("no-such.txt")), 1, "no-such.txt")
    one_line(memtx("eval", model(), path("no/such/text")), 1, "no/such/text")
    one_line(memtx("eval", path("no-model.gguf"), text()), 1, "no-model.gguf", "no such file")
    one_line(memtx("eval", text(), model()), 1, "GGUF")  # the wrong way round


@case
def texts_too_short_to_score():
    for content in (b"", b"a", b"\n", b"\xff", b"\0"):
        name = put("short.txt", content)
        result = memtx("eval", model(), name, "--modes", "xl,memory")
        assert result.code in (1, 2), result
        line = one_line(result, result.code, "short.txt", "nothing to score")
        assert ("%d token" % len(content)) in line, line
    one_line(memtx("eval", model(), "/dev/null"), 2, "null", "nothing to score")


@case
def texts_of_every_kind():
    import random
    rng = random.Random(5)
    kinds = {
        "two bytes": b"ab", "zeros": bytes(500), "binary": bytes(rng.randrange(256) for _ in range(1000)),
        "not UTF-8": b"caf\xe9 \xff\xfe \xc3( \xed\xa0\x80 " * 40, "NUL inside": b"before\0after and\0more " * 40,
        "one long word": b"x" * 1000, "spaces": b" " * 1000, "line breaks": b"\r\n" * 400, "UTF-16": ("the cat " * 40).encode("utf-16"),
        "emoji": "\U0001f600\u0301 \u4e2d\u6587 \u200d ".encode() * 60, "no line break at the end": b"the end of " * 40 + b"it",
        "a special token": b"<|endoftext|> the <|im_start|>" * 40,
    }
    for kind, content in kinds.items():
        out = evaluate("--modes", "sinks,memory", texts=[put("kind.txt", content)])
        for run in out["runs"]:
            assert run["tokens"] > 0 and isinstance(run["nll"], float), (kind, run)
        # every byte but those of the first token is scored
        assert 0 < len(content) - out["scored"]["bytes"] <= 10, (kind, out["scored"])


@case
def a_text_without_a_word():
    out = evaluate("--modes", "xl", texts=[put("blank.txt", b" " * 100)])
    assert out["scored"]["words"] == 0 and out["runs"][0]["word_ppl"] is None
    shown = good("eval", model(), path("blank.txt"), *SMALL, "--modes", "xl").out
    assert "nan" not in shown.lower(), shown


# ---- where the JSON goes --------------------------------------------------------------------------------------------

@case
def json_that_cannot_be_written_is_seen_before_the_work():
    os.makedirs(path("a-folder"), exist_ok=True)
    for name in (path("no/such/place/out.json"), path("a-folder"), path("a-folder") + "/", text() + "/out.json", ""):
        start = time.monotonic()
        result = memtx("eval", model(), text(3000), "--modes", "xl,memory", "--json", name)
        assert result.code in (1, 2), result
        one_line(result, result.code, "--json")
        assert time.monotonic() - start < 1.0, "it worked first"


@case
def json_that_fails_leaves_what_was_there():
    name = put("kept.json", "kept")
    one_line(memtx("eval", model(), path("no-such.txt"), "--json", name), 1)
    one_line(memtx("eval", model(), text(), "--layers", "9", "--json", name), 2)
    with open(name, encoding="utf-8") as file:
        assert file.read() == "kept"
    assert not [f for f in os.listdir(path()) if f.startswith("kept.json.")]


@case
def json_where_only_others_may_write():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    os.makedirs(path("roots"), mode=0o755, exist_ok=True)
    os.chmod(path(), 0o755)
    model()
    text()
    result = memtx("eval", model(), text(), "--modes", "xl", "--json", path("roots", "out.json"), before=lambda: os.setuid(65534))
    if "no such file" in result.err.lower():
        skip("the build directory is closed to other users")
    one_line(result, 1, "--json", "denied")


main()
