"""The memtx command as the tests call it, and a scratch directory with the tiny model in it.

MEMTX names the program (default: build/memtx of this tree). Every call has a time limit, so that a hang is a failure.
"""
import atexit
import json
import os
import shutil
import subprocess
import tempfile

import gguf_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MEMTX = os.path.abspath(os.environ.get("MEMTX", os.path.join(ROOT, "build", "memtx")))
DATA = os.environ.get("MEMTX_DATA", os.path.join(ROOT, "data", "cache"))

# Small enough that all tokens of the usual text leave it many times.
SMALL = ["--window", "32", "--segment", "16", "--sinks", "2", "-k", "8"]

_scratch = None


def scratch():
    """A directory that is gone when the test ends."""
    global _scratch
    if not _scratch:
        _scratch = tempfile.mkdtemp(prefix="memtx-test-")
        owner = os.getpid()
        atexit.register(lambda: os.getpid() == owner and shutil.rmtree(_scratch, ignore_errors=True))
    return _scratch


def path(*parts):
    return os.path.join(scratch(), *parts)


def put(name, content):
    """A file in the scratch directory, of text or bytes; its path."""
    data = content if isinstance(content, bytes) else content.encode()
    with open(path(name), "wb") as file:
        file.write(data)
    return path(name)


def model(seed=1, **how):
    """The tiny model's file, made once for each seed."""
    name = path("tiny-%d%s.gguf" % (seed, "".join("-%s" % v for v in how.values())))
    return name if os.path.exists(name) else gguf_file.tiny_model(seed, **how).write(name)


def text(n_words=200, seed=1):
    name = "text-%d-%d.txt" % (n_words, seed)
    return path(name) if os.path.exists(path(name)) else put(name, gguf_file.some_text(n_words, seed))


class Result:
    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    def __str__(self):
        return "memtx %s: exit %d\nstdout: %s\nstderr: %s" % (" ".join(map(str, self.args)), self.code, self.out[-2000:],
                                                              self.err[-2000:])


def environment(**more):
    env = dict(os.environ, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive", LC_ALL="C")
    env.update(more)
    return env


def memtx(*args, timeout=60, env=None, before=None, stdin=None):
    """Runs it; stdout and stderr are text (bytes that are no UTF-8 become replacement characters)."""
    done = subprocess.run([MEMTX] + list(args), input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, env=env or environment(),
                          preexec_fn=before, check=False)
    return Result(args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def good(*args, **how):
    """Runs it and expects success."""
    result = memtx(*args, **how)
    assert result.code == 0, result
    return result


def one_line(result, code, *words, partial=False):
    """An error as the command gives it: that exit code, one line on stderr that begins with `memtx: ` and has every
    word (the case of letters aside), nothing on stdout; with `partial` the table of what was scored before it."""
    assert result.code == code, "exit %d expected\n%s" % (code, result)
    lines = result.err.split("\n")
    assert len(lines) == 2 and lines[1] == "", "one line on stderr expected\n%s" % result
    assert lines[0].startswith("memtx: "), result
    if partial:
        assert result.out == "" or "(broken off)" in result.out, "what was scored is expected\n%s" % result
    else:
        assert result.out == "", "nothing on stdout expected\n%s" % result
    for word in words:
        assert word.lower() in lines[0].lower(), "'%s' expected\n%s" % (word, result)
    return lines[0]


def evaluate(*args, texts=None, model_path=None, small=True, **how):
    """memtx eval on the tiny model with --json -; the JSON as a dict."""
    argv = ["eval", model_path or model()] + (texts or [text()]) + (SMALL if small else [])
    return json.loads(good(*argv, *args, "--json", "-", **how).out)


def runs(document):
    """The runs of a JSON by mode."""
    return {run["mode"]: run for run in document["runs"]}
