#!/usr/bin/env python3
"""Set llama.cpp's prefill beside memtx's: same tokens, threads and run.

Takes a GGUF model and a text; gives JSON lines on stdout: one for each weight
type of llama.cpp, one for each of memtx, their ratios, and the aims. Progress
and errors go to stderr.

What is timed on llama.cpp's side is llama_decode + llama_synchronize alone,
with the logits of every token asked for. Loading, one warm-up batch and the
NLL (logsumexp in double, here in NumPy) stand outside. memtx is run as a
program, and its own tokens_per_s is taken.

Programs alternate: round 1 measures each type and each of memtx's once, then
round 2, and so on; the median of a program's rounds is its figure. So a busy
moment of the machine falls on one round of everything, not on one program.
Each round also says what part of the processors others used meanwhile
(others_cpu): with two threads that wait for each other at every product, one
other busy process costs far more than its share. --quiet waits for calm. Where
there is none, --threads 1 and tokens_per_cpu_s (llama.cpp only) still compare
llama.cpp's types: one thread waits for nobody, and its own clock stands still
while others run.

The low-level binding is used on purpose: the high-level class copies the
logits into Python for every token, which would cost the peer most of its time.
"""

import argparse
import ctypes
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "data" / "cache"
PEERS = CACHE / "peers"

# llama_ftype numbers; None is the file as it is. Q4_0 keeps llama.cpp's own
# choice for the tied embedding (Q6_K), as llama-quantize would make the file.
FTYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}
FLASH_ATTENTION_ON = 1  # LLAMA_FLASH_ATTN_TYPE_ENABLED
GGML_TYPES = {"f32": 0, "f16": 1}

NLL_ROWS = 64  # logits rows turned into doubles at once: 25 MB at V = 49,152
CALM = 0.05  # share of all processors used by others that still counts as quiet
NLL_AGREES = 0.01  # nats; the bound for two engines on the same file


class Failure(Exception):
    """Told to the user as one line; exit status 1."""


def say(text):
    print(f"llama_cpp.py: {text}", file=sys.stderr, flush=True)


def emit(**fields):
    print(json.dumps(fields), flush=True)


def enter_venv():
    """Go on in the environment of bench/peers/setup, isolated (-I).

    Isolated matters: this file bears the name of the package it imports, and
    its own folder must not stand on the module path.
    """
    python = PEERS / "venv" / "bin" / "python"
    if sys.flags.isolated and Path(sys.prefix) == python.parents[1]:
        return
    if not python.exists():
        raise Failure("llama-cpp-python is not there (run bench/peers/setup)")
    os.execv(python, [str(python), "-I", str(Path(__file__).resolve()), *sys.argv[1:]])


# ---- llama.cpp ---------------------------------------------------------------


class Llama:
    """The library, its log kept until something fails."""

    def __init__(self):
        try:
            import llama_cpp
            import numpy
        except ImportError as e:
            raise Failure(f"{e} (run bench/peers/setup)") from None
        self.c, self.np = llama_cpp, numpy
        self.log = []
        self._callback = llama_cpp.llama_log_callback(
            lambda level, text, _: self.log.append(text.decode("utf-8", "replace"))
        )
        llama_cpp.llama_log_set(self._callback, None)
        llama_cpp.llama_backend_init()

    def fail(self, what):
        tail = "".join(self.log).strip().splitlines()[-1:]
        raise Failure(what + (f": {tail[0]}" if tail else ""))

    def load(self, path, vocab_only=False):
        params = self.c.llama_model_default_params()
        params.n_gpu_layers = 0
        params.vocab_only = vocab_only
        self.log.clear()
        model = self.c.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            self.fail(f"{path}: llama.cpp can't load it")
        return model

    def tokens(self, path, text, n_tokens):
        """The first n_tokens ids of the whole text's tokens, no BOS added."""
        model = self.load(path, vocab_only=True)
        vocab = self.c.llama_model_get_vocab(model)
        out = (ctypes.c_int32 * (len(text) + 1))()
        n = self.c.llama_tokenize(vocab, text, len(text), out, len(out), False, False)
        self.c.llama_model_free(model)
        if n < 0:
            self.fail("tokenizing failed")
        return list(out[: min(n, n_tokens)])

    def describe(self, path):
        """(type of the file's weights, size of the vocabulary)."""
        model = self.load(path, vocab_only=True)
        buf = ctypes.create_string_buffer(64)
        n = self.c.llama_model_meta_val_str(model, b"general.file_type", buf, len(buf))
        n_vocab = self.c.llama_vocab_n_tokens(self.c.llama_model_get_vocab(model))
        self.c.llama_model_free(model)
        ftype = int(buf.value) if n > 0 else -1
        names = {number: name for name, number in FTYPES.items()}
        return names.get(ftype, f"ftype {ftype}"), n_vocab

    def requantise(self, path, name, threads):
        """A copy of the model in another type, made once, under data/cache/peers."""
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        out = PEERS / f"{digest[:12]}-{name}.gguf"
        if out.exists():
            return out
        say(f"requantising to {name}")
        params = self.c.llama_model_quantize_default_params()
        params.ftype = FTYPES[name]
        params.nthread = threads
        params.allow_requantize = True
        tmp = out.with_suffix(".tmp")
        self.log.clear()
        status = self.c.llama_model_quantize(
            str(path).encode(), str(tmp).encode(), ctypes.byref(params)
        )
        if status != 0:
            tmp.unlink(missing_ok=True)
            self.fail(f"requantising to {name} failed")
        tmp.replace(out)
        return out

    def context(self, model, args):
        params = self.c.llama_context_default_params()
        params.n_ctx = args.tokens if args.mode == "full" else args.segment
        params.n_batch = params.n_ubatch = args.segment
        params.n_threads = params.n_threads_batch = args.threads
        params.flash_attn_type = FLASH_ATTENTION_ON
        params.type_k = params.type_v = GGML_TYPES[args.kv]
        params.no_perf = True
        self.log.clear()
        ctx = self.c.llama_init_from_model(model, params)
        if not ctx:
            self.fail("llama.cpp can't make a context")
        return ctx

    def decode(self, ctx, batch, ids, start):
        """Run ids at positions start.. with all their logits; (wall, CPU) seconds."""
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        cpu, wall = time.process_time(), time.perf_counter()
        status = self.c.llama_decode(ctx, batch)
        self.c.llama_synchronize(ctx)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        if status != 0:
            self.fail(f"llama_decode returned {status}")
        return seconds

    def nll(self, ctx, targets, n_vocab):
        """Sum of the nats of targets[i], predicted by the i-th row of logits."""
        np = self.np
        rows = np.ctypeslib.as_array(
            self.c.llama_get_logits(ctx), shape=(len(targets), n_vocab)
        )
        total = 0.0
        for lo in range(0, len(targets), NLL_ROWS):
            x = rows[lo : lo + NLL_ROWS].astype(np.float64)
            top = x.max(axis=1)
            lse = top + np.log(np.exp(x - top[:, None]).sum(axis=1))
            want = np.asarray(targets[lo : lo + NLL_ROWS])
            total += float((lse - x[np.arange(len(want)), want]).sum())
        return total

    def measure(self, path, ids, n_vocab, args):
        """One round: (tokens/s, tokens per CPU second, mean NLL of ids[1:])."""
        model = self.load(path)
        ctx = self.context(model, args)
        memory = self.c.llama_get_memory(ctx)
        batch = self.c.llama_batch_init(args.segment, 0, 1)
        self.decode(ctx, batch, ids[: args.segment], 0)  # warm-up
        self.c.llama_memory_clear(memory, True)
        wall, cpu, nats = 0.0, 0.0, 0.0
        for start in range(0, len(ids), args.segment):
            if args.mode == "segment":
                self.c.llama_memory_clear(memory, False)
            part = ids[start : start + args.segment]
            taken = self.decode(ctx, batch, part, start if args.mode == "full" else 0)
            wall, cpu = wall + taken[0], cpu + taken[1]
            targets = ids[start + 1 : start + 1 + len(part)]
            if targets:
                nats += self.nll(ctx, targets, n_vocab)
        self.c.llama_batch_free(batch)
        self.c.llama_free(ctx)
        self.c.llama_model_free(model)
        return len(ids) / wall, len(ids) / cpu, nats / (len(ids) - 1)


# ---- memtx -------------------------------------------------------------------


def memtx_command(args, weights):
    command = [args.memtx, "eval", args.model, args.text, "--modes", args.mode]
    command += ["--tokens", args.tokens, "--segment", args.segment]
    command += ["--threads", args.threads, "--json", "-"]
    if args.mode == "segment":
        command += ["--window", 0]
    if weights != "f32":
        command += ["--weights", weights]
    return [str(word) for word in command]


def memtx_measure(args, weights):
    """One round: (tokens/s, None, mean NLL), as the program says itself."""
    command = memtx_command(args, weights)
    # OMP_NUM_THREADS bounds whatever the option does not reach.
    env = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    shown = " ".join(command[:2])
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Failure(f"{shown} ({weights}) exit {done.returncode}: {''.join(last)}")
    text = done.stdout.decode("utf-8", "replace")
    try:
        run = json.loads(text[text.index("{") :])["runs"][0]
        scored, rate, nll = run["tokens"], run["tokens_per_s"], run["nll"]
    except (ValueError, KeyError, IndexError) as e:
        raise Failure(f"{shown} ({weights}): its JSON is not as agreed: {e!r}") from None
    if scored != args.tokens - 1:
        raise Failure(
            f"{shown} ({weights}): scored {scored} tokens, llama.cpp {args.tokens - 1}"
            " (the two tokenizers or options disagree)"
        )
    return rate, None, nll


# ---- the run -----------------------------------------------------------------


class Others:
    """The share of all processors that other processes use while this one lives."""

    def __init__(self):
        self.start = self._now()

    @staticmethod
    def _now():
        """(busy, all, own) seconds; time stolen by the host counts as busy."""
        ticks = [int(t) for t in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        hz = os.sysconf("SC_CLK_TCK")
        idle = ticks[3] + ticks[4]
        return (sum(ticks) - idle) / hz, sum(ticks) / hz, sum(os.times()[:4])

    def share(self):
        busy, every, own = (b - a for a, b in zip(self.start, self._now()))
        return max(0.0, busy - own) / max(every, 1e-9)


class Quiet:
    """Waits for a calm machine, for at most so many seconds in the whole run."""

    def __init__(self, seconds):
        self.left = seconds

    def wait(self):
        while self.left > 0:
            others = Others()
            time.sleep(min(2, self.left))
            if others.share() <= CALM:
                return
            self.left -= 2


class Series:
    """The rounds of one program with one weight type."""

    def __init__(self, program, kind, run):
        self.program, self.kind, self.run = program, kind, run
        self.rates, self.cpu_rates, self.others, self.nll = [], [], [], None

    @property
    def name(self):
        return f"{self.program} {self.kind}"

    @property
    def rate(self):
        return statistics.median(self.rates)

    def round(self, quiet):
        """Measure once; once more while --quiet lasts and others disturbed it."""
        while True:
            quiet.wait()
            others, began = Others(), time.monotonic()
            rate, cpu_rate, self.nll = self.run()
            share = others.share()
            say(f"{self.name}: {rate:.1f} tokens/s, nll {self.nll:.4f}, others {share:.0%}")
            if share <= CALM or quiet.left <= 0:
                break
            quiet.left -= time.monotonic() - began
        self.rates.append(rate)
        self.cpu_rates.append(cpu_rate)
        self.others.append(share)


def make_series(llama, ids, args):
    as_is, n_vocab = llama.describe(args.model)
    series = []
    wanted = args.types.split(",")
    for name in [as_is, *(t for t in wanted if t != as_is)]:
        path = Path(args.model)
        if name != as_is:
            path = llama.requantise(args.model, name, args.threads)
        run = lambda path=path: llama.measure(path, ids, n_vocab, args)
        series.append(Series("llama.cpp", name, run))
        series[-1].file_bytes = path.stat().st_size
    if not args.memtx or not args.text:
        return series
    if not os.access(args.memtx, os.X_OK):
        say(f"{args.memtx} is not there: llama.cpp alone")
        return series
    for weights in args.weights.split(","):
        run = lambda weights=weights: memtx_measure(args, weights)
        series.append(Series("memtx", weights, run))
    return series


def report_series(series, llama, args):
    for s in series:
        who = {"program": "memtx"}
        if s.program == "llama.cpp":
            who = {
                "peer": "llama.cpp",
                "version": llama.c.__version__,
                "kv": args.kv,
                "flash_attention": True,
                "file_bytes": s.file_bytes,
                "tokens_per_cpu_s": round(statistics.median(s.cpu_rates), 2),
            }
        emit(
            **who,
            type=s.kind,
            mode=args.mode,
            segment=args.segment,
            threads=args.threads,
            tokens=args.tokens,
            scored=args.tokens - 1,
            tokens_per_s=round(s.rate, 2),
            tokens_per_s_rounds=[round(r, 2) for r in s.rates],
            others_cpu=round(statistics.median(s.others), 3),
            nll=round(s.nll, 6),
        )


def report_ratios(ours, peers):
    for a in ours:
        for b in peers:
            emit(
                a=a.name,
                b=b.name,
                ratio=round(a.rate / b.rate, 3),
                delta_nll=round(a.nll - b.nll, 6),
            )


def report_aims(ours, peers):
    """The aims of the benchmark's issue; True if every one is met."""
    as_is, best = peers[0], max(peers, key=lambda s: s.rate)
    aims = []
    for s in ours:
        aims.append((f"{s.name}: |nll - {as_is.name}|", abs(s.nll - as_is.nll), "<=", NLL_AGREES))
        if s.kind == "f32":
            aims.append((f"{s.name} / best ({best.name})", s.rate / best.rate, ">", 1))
        if s.kind == "bf16":
            aims.append((f"{s.name} / best ({best.name})", s.rate / best.rate, ">=", 2))
            aims.append((f"{s.name} / same file ({as_is.name})", s.rate / as_is.rate, ">=", 4))
    all_met = True
    for what, value, relation, bound in aims:
        met = {"<=": value <= bound, ">=": value >= bound, ">": value > bound}[relation]
        all_met = all_met and met
        emit(aim=what, value=round(value, 4), bound=f"{relation} {bound}", met=met)
    return all_met


def read_ids(llama, args):
    if args.ids:
        data = Path(args.ids).read_bytes()
        ids = list(llama.np.frombuffer(data[: len(data) // 4 * 4], "<u4")[: args.tokens])
        ids = [int(i) for i in ids]
    else:
        ids = llama.tokens(args.model, Path(args.text).read_bytes(), args.tokens)
    _, n_vocab = llama.describe(args.model)
    if ids and max(ids) >= n_vocab:
        raise Failure(f"{args.ids}: token id {max(ids)}, the model has {n_vocab}")
    if len(ids) < args.tokens:
        raise Failure(f"{args.ids or args.text}: {len(ids)} tokens, --tokens is {args.tokens}")
    return ids


def parse(argv):
    p = argparse.ArgumentParser(
        prog="llama_cpp.py",
        description="llama.cpp's prefill beside memtx's, logits of every token; JSON lines.",
    )
    p.add_argument("text", nargs="?", help="default: data/cache/books/persuasion.txt")
    p.add_argument("--ids", help="file of u32 token ids (little-endian) instead; llama.cpp alone")
    p.add_argument("--model", default=str(CACHE / "model.gguf"))
    p.add_argument("--types", default="F32,F16,BF16,Q8_0,Q4_0", help="beside the file as it is")
    p.add_argument("--mode", choices=["full", "segment"], default="full")
    p.add_argument("--tokens", type=int, default=2048)
    p.add_argument("--segment", type=int, default=512)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--kv", choices=list(GGML_TYPES), default="f16", help="llama.cpp's cache")
    p.add_argument("--memtx", default=str(ROOT / "build" / "memtx"), help="'' for none")
    p.add_argument("--weights", default="f32,bf16", help="of memtx")
    p.add_argument("--quiet", type=float, default=0, metavar="S", help="wait for calm, S in all")
    p.add_argument("--strict", action="store_true", help="exit 1 unless memtx meets every aim")
    args = p.parse_args(argv)
    for name, least in ("tokens", 2), ("segment", 1), ("threads", 1), ("repeats", 1):
        if getattr(args, name) < least:
            p.error(f"--{name} {getattr(args, name)}: at least {least}")
    for name in args.types.split(","):
        if name not in FTYPES:
            p.error(f"--types {name}: one of {', '.join(FTYPES)}")
    if args.ids and args.text:
        p.error("a text or --ids, not both")
    if not args.ids and not args.text:
        args.text = str(CACHE / "books" / "persuasion.txt")
    return args


def main():
    args = parse(sys.argv[1:])
    try:
        enter_venv()
        for path in filter(None, (args.model, args.text, args.ids)):
            if not Path(path).is_file():
                raise Failure(f"{path}: no such file (run ./quickstart --setup)")
        llama = Llama()
        ids = read_ids(llama, args)
        series = make_series(llama, ids, args)
        quiet = Quiet(args.quiet)
        for _ in range(args.repeats):
            for s in series:
                s.round(quiet)
    except Failure as e:
        say(e)
        return 1
    except KeyboardInterrupt:
        return 130
    peers = [s for s in series if s.program == "llama.cpp"]
    ours = [s for s in series if s.program == "memtx"]
    report_series(series, llama, args)
    report_ratios(ours, peers)
    met = report_aims(ours, peers)
    if args.strict and not (ours and met):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
