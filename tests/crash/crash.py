"""What the crash and fault campaigns share: the writer and the checker of the known stream as processes.

Lines `acknowledged R rows, E documents, W written` of the writer's stdout become tuples (R, E, W).
"""
import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile

WRITER, CHECK = os.environ["CRASH_WRITER"], os.environ["CRASH_CHECK"]
LINE = re.compile(r"acknowledged (\d+) rows, (\d+) documents, (\d+) written\n")

MOST_ROWS = 64      # of a segment: CRASH_MOST_ROWS
GROUP_SEGMENTS = 4  # CRASH_GROUP_SEGMENTS: so many commits are written together at the latest

LONG = "--long" in sys.argv
if LONG:
    sys.argv.remove("--long")

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for files whose way to a disk is not what is tested

_scratch = {}


def new(name, place=None):
    """A path in a scratch directory (under `place`) where nothing is yet."""
    if place not in _scratch:
        _scratch[place] = tempfile.mkdtemp(prefix="memtx-crash-", dir=place)
        atexit.register(shutil.rmtree, _scratch[place], ignore_errors=True)
    return os.path.join(tempfile.mkdtemp(prefix=name + "-", dir=_scratch[place]), "store")


def gone(store):
    """A store that passed need not wait for the end."""
    shutil.rmtree(os.path.dirname(store), ignore_errors=True)


def environment(**more):
    return dict(os.environ, OMP_NUM_THREADS="1", LC_ALL="C", **more)


def start(store, segments, durability, *args, capacity=0, seed=0, env=None):
    """The writer as a process; stdout and stderr are pipes, stdout unbuffered."""
    argv = [WRITER, store, "--segments", str(segments), "--durability", durability, "--capacity", str(capacity),
            "--seed", str(seed)] + list(args)
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                            env=environment(**(env or {})))


def acknowledged(out):
    """The tuples of a writer's stdout. A line is one write(2), so a killed writer leaves none half."""
    lines = [LINE.fullmatch(line) for line in out.decode().splitlines(keepends=True)]
    assert all(lines), out
    return [tuple(map(int, line.groups())) for line in lines]


def promised(acks, durability, before=(0, 0)):
    """(rows, ended documents) that must be there: under `full` all that was acknowledged; under `group` all but the
    commits since, of which no more than GROUP_SEGMENTS - 1 wait. `before` was there when the writer started."""
    rows, ended = before
    if acks:
        ended = max(ended, acks[-1][1])  # the end of a document writes what waits
        rows = max(rows, acks[-1][2])
        waiting = 0 if durability == "full" else GROUP_SEGMENTS - 1
        if len(acks) > waiting:
            rows = max(rows, acks[-1 - waiting][0])
    return rows, ended


def check(store, promise=(0, 0), capacity=0, *args, timeout=300):
    """Runs the checker, which must find all that was promised; (rows, ended documents) that are there."""
    done = subprocess.run([CHECK, store, "--acknowledged", str(promise[0]), "--ended", str(promise[1]), "--capacity",
                           str(capacity)] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout, env=environment(), check=False)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, "the check of %s: exit %d, %s%s" % (store, done.returncode, out, err)
    rows, _, ended = re.fullmatch(r"(\d+) rows, (\d+) documents, (\d+) ended\n", out).groups()
    return int(rows), int(ended)
