#!/usr/bin/env python3
"""The command line itself: help, version, wrong usage, memtx gguf."""
import os
import re
import subprocess

from command import MEMTX, ROOT, environment, good, memtx, model, one_line, path, put
from tap import case, main

COMMANDS = ["eval", "ingest", "store", "gguf"]


def read_source(name):
    with open(os.path.join(ROOT, "cli", name), encoding="utf-8") as file:
        return file.read()


def options_of_source(command):
    """(long name, letter, takes an argument) of every row of the command's table, with those that it shares with others
    (reading.h), and what is compared with the names."""
    source = read_source("cmd_%s.c" % command)
    table = source[source.index("cli_option options[]"):]
    table = table[:table.index("};")]
    compared = set(re.findall(r'\b(?:cli_is|strcmp)\((?:name|option->name), "([a-z0-9-]+)"\)', source))
    shared = read_source("reading.h")
    for macro in re.findall(r"\bCLI_\w+_OPTIONS", table):
        row = shared[shared.index("#define " + macro):]
        table += row[:re.search(r"[^\\]\n", row).end()]
    if "CLI_" in table:
        compared |= set(re.findall(r'\bcli_is\(name, "([a-z0-9-]+)"\)', read_source("reading.c")))
    rows = re.findall(r'\{"([a-z0-9-]+)", (0|\'.\'), (NULL|"[^"]*"),', table)
    return [(name, letter.strip("'") if letter != "0" else None, argument != "NULL") for name, letter, argument in
            rows], compared


@case
def help_of_the_program():
    for args in (["--help"], ["-h"], ["help"]):
        result = good(*args)
        assert result.err == "", result
        assert "Usage: memtx COMMAND" in result.out, result
        for command in COMMANDS:
            assert re.search(r"^  %s\s+\S" % command, result.out, re.M), (command, result)


@case
def help_of_each_command():
    for command in COMMANDS:
        for letter in ("--help", "-h"):
            result = good(command, letter)
            assert result.err == "", result
            assert result.out.startswith("Usage: memtx %s [OPTION]..." % command), result
            for line in result.out.splitlines():
                assert len(line) <= 100 and "\t" not in line and line == line.rstrip(), (len(line), line)


@case
def help_names_every_option_that_is_taken():
    for command in COMMANDS:
        rows, compared = options_of_source(command)
        assert rows, command
        shown = good(command, "--help").out
        for name, letter, _ in rows + [("help", "h", False)]:
            where = re.search(r"^ +%s--%s\b" % ("-%s, " % letter if letter else "", name), shown, re.M)
            assert where, "--%s is not in the help of %s" % (name, command)
        if command in ("eval", "ingest"):
            assert compared == {row[0] for row in rows}, compared ^ {row[0] for row in rows}


@case
def the_options_of_the_issue_are_there():
    shown = good("eval", "--help").out
    for name in ["modes", "window", "segment", "sinks", "memory", "layers", "blend", "bias", "delta", "positions",
                 "capacity", "store-type", "tokens", "skip", "threads", "json"]:
        assert "--%s " % name in shown, name
    assert re.search(r"-k\b", shown) and "standard input" in shown
    for mode in ["segment", "window", "xl", "sinks", "full", "memory", "memory-random"]:
        assert mode in shown, mode


@case
def help_wins_before_anything_is_opened():
    assert good("eval", "no-such-model", "--help").out.startswith("Usage:")


@case
def version():
    for args in (["--version"], ["-V"]):
        assert re.fullmatch(r"memtx \d+\.\d+\.\d+ \(LMDB [\d.]+, oneDNN [\d.]+, PCRE2 [\d.]+\)"
                            r"(, FAISS [\d.]+ \(\w+\))?\n", good(*args).out)


@case
def no_command_and_an_unknown_one():
    one_line(memtx(), 2, "command", "--help")
    one_line(memtx("bogus"), 2, "bogus", "--help")
    one_line(memtx(""), 2)
    one_line(memtx("--bogus"), 2, "--bogus")


@case
def operands_are_missing():
    one_line(memtx("eval"), 2, "model", "--help")
    one_line(memtx("eval", model()), 2, "text", "--help")
    one_line(memtx("gguf"), 2, "file", "--help")
    one_line(memtx("gguf", model(), model()), 2, "one file")


@case
def an_unknown_option_is_named():
    for args, shown in [(["--bogus"], "--bogus"), (["--bogus=3"], "--bogus"), (["-z"], "-z"), (["-zy"], "-z"),
                        (["-k", "3", "-zy"], "-z"), (["--mod"], None)]:
        result = memtx("eval", "model.gguf", "text.txt", *args)
        if shown:
            one_line(result, 2, "'%s" % shown, "unknown", "--help")
    one_line(memtx("gguf", "--bogus", model()), 2, "--bogus")
    one_line(memtx("eval", "m", "t", "--s", "3"), 2, "--s", "ambiguous")


@case
def an_option_without_its_argument_or_with_one_too_many():
    for name, _, takes in options_of_source("eval")[0]:
        if takes:
            one_line(memtx("eval", "model.gguf", "text.txt", "--" + name), 2, "--" + name, "argument")
    one_line(memtx("eval", "model.gguf", "text.txt", "-k"), 2, "-k", "argument")
    one_line(memtx("gguf", "--tensors=3", model()), 2, "--tensors", "no argument")


@case
def gguf_lists_values_and_tensors():
    result = good("gguf", model())
    assert result.err == "", result
    assert "16 values, 38 tensors" in result.out, result
    for line in [r'general.architecture +"llama"', r"llama.block_count +4", r"llama.rope.freq_base +10000",
                 r"tokenizer.ggml.tokens +string\[264\]:", r"tokenizer.ggml.token_type +i32\[264\]: 1, 1",
                 r" F32 +38 tensors +\d+ values +\d+ bytes"]:
        assert re.search(line, result.out), line
    assert "blk.0.attn_q.weight" not in result.out
    assert re.search(r"blk.3.ffn_down.weight +F32 +64 x 32 +at \d+, 8192 bytes", good("gguf", "--tensors", model()).out)


@case
def gguf_shows_hostile_text_harmlessly():
    import gguf_file
    g = gguf_file.tiny_model()
    g.set("general.name", gguf_file.STRING, b"\x1b[31mred\x1b[0m\nsecond\x7f\x00line")
    g.set("some.\x1b[31mkey\n", gguf_file.U32, 7)
    result = good("gguf", g.write(path("hostile.gguf")))
    assert "\x1b" not in result.out and "\x00" not in result.out and "\x7f" not in result.out, repr(result.out)
    assert len(result.out.splitlines()) == len(good("gguf", model()).out.splitlines()) + 1, result


@case
def output_that_cannot_be_written_is_an_error():
    small = put("small.txt", "the cat and the dog and the other cat\n" * 4)
    for args in (["--help"], ["--version"], ["gguf", model()], ["eval", model(), small, "--modes", "xl"],
                 ["eval", model(), small, "--modes", "xl", "--json", "-"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([MEMTX] + args, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
        assert done.returncode == 1, (args, done)
        assert done.stderr.decode().splitlines()[-1].startswith("memtx: "), (args, done)


main()
