"""The command on a terminal, which alone sees its progress line, and from which signals come."""
import os
import pty
import re
import select
import subprocess
import termios
import time

from command import MEMTX, environment

SECONDS = 30


class Terminal:
    """The command with stderr, and stdout if asked, on a terminal; what it writes there is read as it comes. With `held`
    the terminal takes nothing, as after Ctrl-S, until release(): what the command says first holds it up."""

    def __init__(self, *args, stdout=False, env=None, held=False):
        self.master, slave = pty.openpty()
        self.text = ""
        self.held = os.dup(slave) if held else None
        if held:
            termios.tcflow(slave, termios.TCOOFF)
        self.process = subprocess.Popen([MEMTX, *args], stdin=subprocess.DEVNULL, stderr=slave, env=env or environment(),
                                        stdout=slave if stdout else subprocess.PIPE)
        os.close(slave)

    def release(self):
        termios.tcflow(self.held, termios.TCOON)
        os.close(self.held)
        self.held = None

    def wait_until_it_catches(self, number):
        """Until the process has a handler for the signal."""
        limit = time.monotonic() + SECONDS
        while True:
            with open("/proc/%d/status" % self.process.pid, encoding="ascii") as file:
                caught = next(line for line in file if line.startswith("SigCgt"))
            if int(caught.split()[1], 16) >> (number - 1) & 1:
                return
            assert time.monotonic() < limit and self.process.poll() is None, "it catches no signal %d" % number
            time.sleep(0.001)

    def read(self, seconds):
        """What comes within that time, or False at the end."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # how Linux tells that the other side is closed
                return False
            self.text += piece.decode(errors="replace")
            return bool(piece)
        return True

    def wait_for(self, word):
        limit = time.monotonic() + SECONDS
        while word not in self.text:
            assert self.read(1.0) and time.monotonic() < limit, "'%s' did not come: %r" % (word, self.text[-500:])

    def end(self):
        limit = time.monotonic() + SECONDS
        while self.read(1.0):
            assert time.monotonic() < limit, "it did not end"
        out = self.process.stdout.read().decode() if self.process.stdout else ""
        self.process.wait(timeout=SECONDS)
        os.close(self.master)
        return out

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_for_tokens(self, at, n_tokens):
        """Until the mode of which the progress line says `at` has gone so far."""
        limit = time.monotonic() + SECONDS
        while n_tokens > max([int(n) for n in re.findall(re.escape(at) + r"  (\d+)/", self.text)] or [0]):
            assert self.read(1.0) and time.monotonic() < limit, "it did not get that far: %r" % self.text[-500:]


def last_line(shown):
    """What stands on the terminal in the end: a progress line is cleared."""
    return shown.split("\x1b[K")[-1].replace("\r\n", "\n")
