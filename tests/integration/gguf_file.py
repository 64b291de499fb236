"""A writer of GGUF files for the tests, and the tiny model that drives them. Standard library only.

A file is a Gguf: a list of (key, type, value) and one of Tensor, both open to damage before bytes() puts them together:
counts, offsets and alignment can be set to anything. tiny_model() gives one that memtx can run: architecture llama, random
weights from a seed, a byte-level vocabulary of 256 bytes and a few merges.
"""
import array
import random
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}

# The numbers of the tiny model.
LAYERS, CHANNELS, HEADS, KV_HEADS, HEAD_SIZE, FEED_FORWARD, CONTEXT = 4, 32, 4, 2, 8, 64, 4096
MERGES = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("i", "n"), ("a", "n"), ("e", "r"), ("\u0120", "a"), ("o", "u")]


def text_bytes(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def value_bytes(kind, value, order="<"):
    if kind == STRING:
        return text_bytes(value)
    if kind == ARRAY:  # (item type, items)
        items, values = value
        return struct.pack(order + "IQ", items, len(values)) + b"".join(value_bytes(items, v, order) for v in values)
    return struct.pack(order + CODES[kind], value)


class Tensor:
    """A tensor of F32 values; `kind`, `dims` and `offset` may be made to lie."""

    def __init__(self, name, dims, values):
        self.name, self.dims, self.kind, self.offset = name, list(dims), 0, None
        self.data = array.array("f", values).tobytes()


class Gguf:
    def __init__(self):
        self.version, self.align = 3, 32
        self.values, self.tensors = [], []
        self.n_values = self.n_tensors = None  # set: written instead of the true counts

    def set(self, key, kind, value):
        """Replaces a value, or adds it."""
        for i, held in enumerate(self.values):
            if held[0] == key:
                self.values[i] = (key, kind, value)
                return
        self.values.append((key, kind, value))

    def drop(self, key):
        self.values = [v for v in self.values if v[0] != key]

    def tensor(self, name):
        return next(t for t in self.tensors if t.name == name)

    def bytes(self):
        out = bytearray(b"GGUF" + struct.pack("<I", self.version))
        out += struct.pack("<QQ", len(self.tensors) if self.n_tensors is None else self.n_tensors,
                           len(self.values) if self.n_values is None else self.n_values)
        for key, kind, value in self.values:
            out += text_bytes(key) + struct.pack("<I", kind) + value_bytes(kind, value)
        at = 0
        for tensor in self.tensors:
            out += text_bytes(tensor.name) + struct.pack("<I", len(tensor.dims))
            out += struct.pack("<%dQ" % len(tensor.dims), *tensor.dims)
            out += struct.pack("<IQ", tensor.kind, at if tensor.offset is None else tensor.offset)
            at += -len(tensor.data) % self.align + len(tensor.data)
        out += bytes(-len(out) % self.align)
        for tensor in self.tensors:
            out += tensor.data + bytes(-len(tensor.data) % self.align)
        return bytes(out)

    def write(self, path):
        with open(path, "wb") as file:
            file.write(self.bytes())
        return path


def alphabet():
    """GPT-2's: a printable character for each byte."""
    printable = [b for b in range(256) if 0x20 < b < 0x7F or (b > 0xA0 and b != 0xAD)]
    spelling = {b: chr(b) for b in printable}
    for b in range(256):
        if b not in spelling:
            spelling[b] = chr(256 + sum(1 for other in range(b) if other not in printable))
    return [spelling[b] for b in range(256)]


def tiny_model(seed=1, layers=LAYERS, name="tiny"):
    rng = random.Random(seed)
    g = Gguf()
    tokens = alphabet() + [a + b for a, b in MERGES]
    for key, kind, value in [
            ("general.architecture", STRING, "llama"),
            ("general.name", STRING, name),
            ("llama.block_count", U32, layers),
            ("llama.context_length", U32, CONTEXT),
            ("llama.embedding_length", U32, CHANNELS),
            ("llama.feed_forward_length", U32, FEED_FORWARD),
            ("llama.attention.head_count", U32, HEADS),
            ("llama.attention.head_count_kv", U32, KV_HEADS),
            ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
            ("llama.rope.dimension_count", U32, HEAD_SIZE),
            ("llama.rope.freq_base", F32, 10000.0),
            ("tokenizer.ggml.model", STRING, "gpt2"),
            ("tokenizer.ggml.pre", STRING, "smollm"),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
            ("tokenizer.ggml.token_type", ARRAY, (I32, [1] * len(tokens))),
            ("tokenizer.ggml.merges", ARRAY, (STRING, [a + " " + b for a, b in MERGES]))]:
        g.set(key, kind, value)

    def matrix(name, n_in, n_out, size):
        g.tensors.append(Tensor(name, [n_in, n_out], [rng.gauss(0, size) for _ in range(n_in * n_out)]))

    def norm(name):
        g.tensors.append(Tensor(name, [CHANNELS], [rng.uniform(0.5, 1.5) for _ in range(CHANNELS)]))

    # Sizes at which attention looks at some tokens more than at others, so that a memory changes what is predicted.
    matrix("token_embd.weight", CHANNELS, len(tokens), 0.2)
    for layer in range(layers):
        at = "blk.%d." % layer
        norm(at + "attn_norm.weight")
        matrix(at + "attn_q.weight", CHANNELS, HEADS * HEAD_SIZE, 0.3)
        matrix(at + "attn_k.weight", CHANNELS, KV_HEADS * HEAD_SIZE, 0.3)
        matrix(at + "attn_v.weight", CHANNELS, KV_HEADS * HEAD_SIZE, 0.3)
        matrix(at + "attn_output.weight", HEADS * HEAD_SIZE, CHANNELS, 0.3)
        norm(at + "ffn_norm.weight")
        matrix(at + "ffn_gate.weight", CHANNELS, FEED_FORWARD, 0.2)
        matrix(at + "ffn_up.weight", CHANNELS, FEED_FORWARD, 0.2)
        matrix(at + "ffn_down.weight", FEED_FORWARD, CHANNELS, 0.2)
    norm("output_norm.weight")
    return g


def some_text(n_words, seed=1):
    """Words from a small vocabulary of its own, with line breaks; about 5.5 tokens of the tiny model for each."""
    rng = random.Random(seed)
    letters = "etaoinshrdlucm"
    words = ["the"] * 8 + ["".join(rng.choice(letters) for _ in range(rng.randint(1, 9))) for _ in range(200)]
    out = []
    for i in range(n_words):
        out.append(rng.choice(words) + ("." if rng.random() < 0.1 else ""))
        out.append("\n" if i % 12 == 11 else " ")
    return "".join(out)
