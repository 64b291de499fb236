#!/usr/bin/env python3
"""memtx eval: Ctrl-C, SIGTERM, SIGKILL, and the progress line, which only a terminal sees."""
import json
import os
import pty
import signal
import subprocess
import tempfile
import time

from command import MEMTX, SMALL, environment, evaluate, good, model, path, runs, scratch, text
from tap import case, main
from terminal import SECONDS, Terminal, last_line

LONG = 20000   # words: more than ten seconds in mode memory
MIDDLE = 6000  # the same, of some seconds: for what is read to its end in another mode first


def interrupted(at, *args, words=LONG, number=signal.SIGINT, env=None):
    """Runs until the progress line says `at`, then sends the signal; (exit code, stdout, terminal's text)."""
    terminal = Terminal("eval", model(), text(words), *SMALL, *args, env=env)
    try:
        terminal.wait_for_tokens(at, 2000)
        sent = time.monotonic()
        terminal.process.send_signal(number)
        out = terminal.end()
        assert time.monotonic() - sent < 5, "it took its time"
        return terminal.process.returncode, out, terminal.text
    finally:
        terminal.kill()


@case
def the_progress_line_stands_on_a_terminal():
    terminal = Terminal("eval", model(), text(600), *SMALL, "--modes", "xl,memory", stdout=True)
    try:
        terminal.end()
    finally:
        terminal.kill()
    assert terminal.process.returncode == 0
    for word in ("xl (1 of 2)", "memory (2 of 2)", "tokens/s", "left", "\r\x1b[K"):
        assert word in terminal.text, (word, terminal.text[:500])
    shown = last_line(terminal.text)
    assert shown.startswith("mode ") and "tokens/s  " in shown and "of 2)" not in shown, shown
    assert "nan" not in terminal.text and "inf" not in terminal.text.replace("inference", "")


@case
def no_progress_in_a_pipe():
    result = good("eval", model(), text(600), *SMALL, "--modes", "xl,memory")
    assert result.err == "" and "\x1b" not in result.out and "\r" not in result.out, result
    # stderr in a pipe, stdout on a terminal: none either
    master, slave = pty.openpty()
    done = subprocess.run([MEMTX, "eval", model(), text(), "--modes", "xl"], stdout=slave, stderr=subprocess.PIPE,
                          env=environment(), check=True)
    os.close(slave)
    assert done.stderr == b""
    os.close(master)


@case
def control_c_ends_with_what_was_scored():
    name = path("interrupted.json")
    code, out, shown = interrupted("memory (2 of 2)", "--modes", "xl,memory", "--json", name, words=MIDDLE)
    assert code == 130, code
    lines = out.splitlines()
    assert lines[1].startswith("xl ") and lines[2].startswith("memory ") and lines[2].endswith("(broken off)"), out
    assert not lines[1].endswith("(broken off)") and "nan" not in out, out
    told = last_line(shown)
    assert told.count("\n") == 1 and told.startswith("memtx: ") and "interrupted" in told, told
    with open(name, encoding="utf-8") as file:
        document = json.load(file)
    by_mode = runs(document)
    assert by_mode["xl"]["complete"] is True and by_mode["memory"]["complete"] is False
    assert 0 < by_mode["memory"]["tokens"] < by_mode["xl"]["tokens"] == document["scored"]["tokens"]
    pair = document["pairs"][0]
    assert (pair["a"], pair["b"], pair["tokens"]) == ("memory", "xl", by_mode["memory"]["tokens"]), pair
    # The same number of tokens from the beginning gives the same figures.
    part = runs(evaluate("--modes", "memory", "--tokens", str(by_mode["memory"]["tokens"] + 1), texts=[text(MIDDLE)]))
    assert abs(part["memory"]["nll"] - by_mode["memory"]["nll"]) < 1e-6
    assert not [f for f in os.listdir(scratch()) if f.startswith("interrupted.json.")]


@case
def control_c_in_the_first_mode():
    code, out, _ = interrupted("memory (1 of 3)", "--modes", "memory,xl,sinks", "--json", "-")
    assert code == 130
    document = json.loads(out)
    assert [run["mode"] for run in document["runs"]] == ["memory"] and document["pairs"] == []


@case
def control_c_before_anything_is_scored():
    code, out, _ = interrupted("memory (1 of 1)", "--modes", "memory", "--skip", "100000", "--json", "-")
    assert code == 130
    run = json.loads(out)["runs"][0]
    assert run["tokens"] == 0 and run["nll"] is None and run["complete"] is False
    code, out, _ = interrupted("memory (1 of 1)", "--modes", "memory", "--skip", "100000")
    assert code == 130 and "nan" not in out.lower(), out


@case
def sigterm_is_the_same():
    code, out, _ = interrupted("memory (1 of 1)", "--modes", "memory", number=signal.SIGTERM)
    assert code == 130 and "(broken off)" in out, (code, out)


@case
def a_store_outlives_control_c():
    store = tempfile.mkdtemp(dir=scratch()) + "/store"
    code, _, _ = interrupted("memory (1 of 1)", "--modes", "memory", "--memory", store)
    assert code == 130
    again = runs(evaluate("--modes", "memory", "--memory", store))["memory"]
    plain = runs(evaluate("--modes", "memory"))["memory"]
    assert again["nll"] == plain["nll"] and again["memory_rows"] > plain["memory_rows"]


@case
def a_store_outlives_sigkill():
    plain = runs(evaluate("--modes", "memory"))["memory"]
    store = tempfile.mkdtemp(dir=scratch()) + "/store"
    rows = 0
    for durability, pause in (("full", 0.0), ("group", 0.3), ("full", 0.7)):
        terminal = Terminal("eval", model(), text(LONG), *SMALL, "--modes", "memory", "--memory", store, "--durability",
                            durability)
        terminal.wait_for_tokens("memory (1 of 1)", 2000)
        time.sleep(pause)
        terminal.kill()
        os.close(terminal.master)
        again = runs(evaluate("--modes", "memory", "--memory", store))["memory"]
        assert again["nll"] == plain["nll"] and again["memory_rows"] >= rows + plain["memory_rows"], again
        rows = again["memory_rows"]


@case
def a_temporary_store_is_gone_after_any_end():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        place = tempfile.mkdtemp(dir=scratch())
        terminal = Terminal("eval", model(), text(LONG), *SMALL, "--modes", "memory", env=environment(TMPDIR=place))
        try:
            terminal.wait_for("memory (1 of 1)")
            terminal.process.send_signal(number)
            terminal.end()
        finally:
            terminal.kill()
        assert os.listdir(place) == [], (number, os.listdir(place))


@case
def json_is_whole_or_not_there_after_sigkill():
    name = path("killed.json")
    terminal = Terminal("eval", model(), text(LONG), *SMALL, "--modes", "memory", "--json", name)
    try:
        terminal.wait_for("memory (1 of 1)")
    finally:
        terminal.kill()
    os.close(terminal.master)
    assert not [f for f in os.listdir(scratch()) if f.startswith("killed.json")]


@case
def a_reader_that_goes_away():
    # `memtx gguf MODEL | head -1`: no complaint of ours, and no endless run.
    done = subprocess.run("%s gguf --tensors %s | head -1" % (MEMTX, model()), shell=True, capture_output=True,
                          timeout=SECONDS, check=False)
    assert done.stdout.count(b"\n") == 1 and done.stderr == b"", done


main()
