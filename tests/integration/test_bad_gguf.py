#!/usr/bin/env python3
"""Malformed model files through memtx gguf and memtx eval: exit 1, one line on stderr, within a second, and nothing
allocated by a number from the file (the address space of the process is limited, so that such an allocation fails and
the line would say so; mode memory, whose store reserves address space, is not used here)."""
import copy
import os
import resource
import struct
import time

import gguf_file
from command import environment, memtx, model, one_line, path, put, text
from gguf_file import ARRAY, BOOL, F32, I32, STRING, U32, U64
from tap import add, case, main

TINY = gguf_file.tiny_model()
WHOLE = TINY.bytes()
ADDRESS_SPACE = 3 << 30
SECONDS = 1.0  # for both commands together on a busy machine; each takes a few milliseconds


# A sanitizer reserves address space of its own, and refuses large blocks by itself.
SANITIZED = os.environ.get("MEMTX_SANITIZED")
ENVIRONMENT = environment(ASAN_OPTIONS="max_allocation_size_mb=%d:allocator_may_return_null=1" % (ADDRESS_SPACE >> 20)) \
    if SANITIZED else None


def limit():
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def refused(file, *words, gguf_reads=False):
    """eval refuses the file, and so does gguf unless `gguf_reads`: it shows what is in a file, runnable or not."""
    name = file if isinstance(file, str) else put("bad.gguf", file if isinstance(file, bytes) else file.bytes())
    start = time.monotonic()
    shown = memtx("gguf", name, before=limit, env=ENVIRONMENT)
    loaded = memtx("eval", name, text(), "--modes", "xl", before=limit, env=ENVIRONMENT)
    took = time.monotonic() - start
    line = one_line(loaded, 1, *words)
    assert "memory" not in line, "allocated by a number from the file? " + line
    assert os.path.basename(name) in line, "the line does not name the file: " + line
    if gguf_reads:
        assert shown.code == 0 and shown.err == "", shown
    else:
        one_line(shown, 1, *words)
    assert took < 2 * SECONDS, "%.2f s" % took


def changed(change, *words, **how):
    """The tiny model after change(model)."""
    g = copy.deepcopy(TINY)
    change(g)
    refused(g, *words, **how)


# ---- what is no GGUF at all -----------------------------------------------------------------------------------------

@case
def no_such_file_a_directory_a_device():
    refused(path("absent.gguf"), "no such file")
    os.makedirs(path("folder.gguf"), exist_ok=True)
    refused(path("folder.gguf"), "regular file")
    refused("/dev/null", "regular file")


@case
def a_file_that_may_not_be_read():
    from tap import skip
    if os.geteuid() == 0:
        skip("root reads everything")
    name = put("secret.gguf", b"GGUF")
    os.chmod(name, 0)
    refused(name, "permission")


@case
def empty_short_and_other_files():
    refused(b"", "empty")
    refused(b"G", "not a GGUF")
    refused(b"GGUF", "cut off")
    refused(b"\x7fELF" + bytes(100), "not a GGUF", "7f 45 4c 46")
    refused(b"ggjt" + bytes(100), "not a GGUF")
    refused(b"Emma by Jane Austen, who wrote no model", "not a GGUF")


@case
def versions_and_byte_order():
    whole = WHOLE
    for version in (0, 1, 4, 0xFFFFFFFF):
        refused(b"GGUF" + struct.pack("<I", version) + whole[8:], "version")
    refused(b"GGUF" + struct.pack(">I", 3) + whole[8:], "endian")
    swapped = bytearray(b"GGUF" + struct.pack(">IQQ", 3, 38, 16)) + whole[24:]
    refused(bytes(swapped), "endian")
    refused(whole[:4][::-1] + whole[4:], "endian")


def cut_at(n_bytes):
    refused(WHOLE[:n_bytes])


whole_bytes = len(WHOLE)
for cut in [4, 8, 16, 20, 24, 25, 32, 40, 60, 100, 500, 1000, 3000, 5000, 6000, 6700, 8000, whole_bytes // 2, whole_bytes - 1]:
    add("cut at %d bytes" % cut, cut_at, cut)


# ---- counts and sizes -----------------------------------------------------------------------------------------------

@case
def absurd_counts_in_the_header():
    for count in (1 << 60, (1 << 64) - 1, 1 << 40, 1 << 32, 100000):
        changed(lambda g: setattr(g, "n_tensors", count), "tensors")
        changed(lambda g: setattr(g, "n_values", count))


@case
def absurd_lengths_of_strings_and_arrays():
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    for n in (1 << 60, (1 << 64) - 1, 1 << 31, 1000):
        refused(head + struct.pack("<Q", n) + b"key" + bytes(100))
        refused(head + gguf_file.text_bytes("key") + struct.pack("<IQ", STRING, n) + bytes(100))
        refused(head + gguf_file.text_bytes("key") + struct.pack("<IIQ", ARRAY, STRING, n) + bytes(100))
        refused(head + gguf_file.text_bytes("key") + struct.pack("<IIQ", ARRAY, U64, n) + bytes(100))
    refused(head + gguf_file.text_bytes("key") + struct.pack("<IIQ", ARRAY, ARRAY, 1) + bytes(100), "array")
    refused(head + gguf_file.text_bytes("key") + struct.pack("<I", 13) + bytes(100), "type")
    refused(head + gguf_file.text_bytes("key") + struct.pack("<IIQ", ARRAY, 77, 1) + bytes(100), "type")
    refused(head + gguf_file.text_bytes("") + struct.pack("<II", U32, 1) + bytes(100))


@case
def misshapen_tensors():
    def first(**how):
        def change(g):
            for name, value in how.items():
                setattr(g.tensors[0], name, value)
        return change
    changed(first(dims=[1 << 60, 1]), "token_embd.weight")
    changed(first(dims=[1 << 33, 1 << 33]), "token_embd.weight")
    changed(first(dims=[(1 << 64) - 1]), "token_embd.weight")
    changed(first(dims=[32, 0]), "token_embd.weight")
    changed(first(dims=[]), "dimensions")
    changed(first(dims=[2, 2, 2, 2, 2]), "dimensions")
    changed(first(dims=[32, 1 << 20]), "token_embd.weight")
    changed(first(offset=1 << 60))
    changed(first(offset=(1 << 64) - 32))
    changed(first(offset=7), "align")
    changed(first(offset=whole_bytes // 32 * 32 + 32))


@case
def overlapping_and_repeated_tensors():
    changed(lambda g: setattr(g.tensors[2], "offset", 0), "overlap")
    changed(lambda g: setattr(g.tensors[2], "name", g.tensors[3].name), "twice")
    changed(lambda g: g.values.append(("llama.block_count", U32, 4)), "twice")


@case
def alignments():
    for align in (0, 1, 7, 24, 1 << 31):
        changed(lambda g: g.set("general.alignment", U32, align), "general.alignment")
    changed(lambda g: g.set("general.alignment", STRING, "32"), "general.alignment")


# ---- well-formed files of models that cannot be run: gguf shows them, eval says why not -----------------------------

KEYS = ["general.architecture", "llama.block_count", "llama.context_length", "llama.embedding_length",
        "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"]


def without(key):
    changed(lambda g: g.drop(key), key, gguf_reads=True)


def of_another_type(key):
    changed(lambda g: g.set(key, BOOL, True), key, gguf_reads=True)
    changed(lambda g: g.set(key, ARRAY, (I32, [1, 2])), key, gguf_reads=True)


for key_name in KEYS:
    add("without " + key_name, without, key_name)
    add("of another type: " + key_name, of_another_type, key_name)

NUMBERS = ["llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length",
           "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.key_length",
           "llama.rope.dimension_count"]


def absurd_number(key):
    for value in (0, 1 << 31, 0xFFFFFFFF):
        if value or key != "llama.rope.dimension_count":  # 0 there: positions are off
            changed(lambda g: g.set(key, U32, value), key, gguf_reads=True)
    changed(lambda g: g.set(key, U64, 1 << 60), key, gguf_reads=True)
    changed(lambda g: g.set(key, I32, -1), key, gguf_reads=True)
    changed(lambda g: g.set(key, STRING, "4"), key, gguf_reads=True)


for key_name in NUMBERS:
    add("absurd " + key_name, absurd_number, key_name)


@case
def absurd_numbers_that_are_allowed_alone():
    # Within bounds, but not what the tensors are: nothing may be sized by them before that is seen.
    for key, value in [("llama.block_count", 512), ("llama.embedding_length", 65536),
                       ("llama.feed_forward_length", 1 << 18), ("llama.attention.head_count", 1024)]:
        changed(lambda g: g.set(key, U32, value), gguf_reads=True)
    changed(lambda g: g.set("llama.attention.head_count_kv", U32, 3), "heads", gguf_reads=True)
    changed(lambda g: g.set("llama.rope.dimension_count", U32, 7), gguf_reads=True)


@case
def numbers_that_are_none():
    for key in ("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"):
        for value in (float("nan"), float("inf"), -1.0, 0.0):
            changed(lambda g: g.set(key, F32, value), key, gguf_reads=True)


@case
def unsupported_architectures():
    for name in ("qwen2", "gpt2", "mamba", "", "llama4", "x" * 1000, "a\nb\x1b[31m"):
        changed(lambda g: g.set("general.architecture", STRING, name), "architecture", gguf_reads=True)


@case
def unsupported_rope_scaling():
    changed(lambda g: g.set("llama.rope.scaling.type", STRING, "yarn"), "yarn", gguf_reads=True)


@case
def unsupported_tokenizers():
    for kind in ("llama", "bert", "t5", "rwkv", ""):
        changed(lambda g: g.set("tokenizer.ggml.model", STRING, kind), "tokenizer", gguf_reads=True)
    for kind in ("deepseek-llm", "tekken", "", "x" * 500):
        changed(lambda g: g.set("tokenizer.ggml.pre", STRING, kind), "pre", gguf_reads=True)


@case
def unsupported_tensor_types():
    def kind(number):
        return lambda g: setattr(g.tensor("blk.0.ffn_up.weight"), "kind", number)
    changed(kind(10), "blk.0.ffn_up.weight", "type", gguf_reads=True)  # Q2_K: known by number, not read
    changed(kind(99), "blk.0.ffn_up.weight", "type", gguf_reads=True)
    changed(kind(0xFFFFFFFF), "blk.0.ffn_up.weight", "type")
    changed(kind(14), "blk.0.ffn_up.weight", "multiple")  # Q6_K: rows of 32 are no multiple of its block


@case
def tensors_missing_misnamed_or_of_another_shape():
    for name in ("token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.3.ffn_down.weight",
                 "blk.1.attn_k.weight"):
        changed(lambda g: g.tensors.remove(g.tensor(name)), name, gguf_reads=True)
        if "norm" not in name:
            changed(lambda g: g.tensor(name).dims.reverse(), "" if name == "token_embd.weight" else name, gguf_reads=True)
    changed(lambda g: g.tensors.append(gguf_file.Tensor("blk.0.attn_q.bias", [32], [0.0] * 32)), "attn_q.bias",
            gguf_reads=True)
    changed(lambda g: g.tensors.append(gguf_file.Tensor("blk.4.attn_norm.weight", [32], [1.0] * 32)), gguf_reads=True)


@case
def vocabularies_that_do_not_fit():
    tokens = gguf_file.alphabet() + [a + b for a, b in gguf_file.MERGES]
    changed(lambda g: g.set("tokenizer.ggml.tokens", ARRAY, (STRING, tokens[:-1])), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.tokens", ARRAY, (STRING, [])), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.tokens", ARRAY, (STRING, tokens[:-1] + [tokens[0]])), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.tokens", ARRAY, (STRING, tokens[:-1] + [""])), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.tokens", ARRAY, (STRING, tokens + ["more"])), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.token_type", ARRAY, (I32, [1] * 3)), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.token_type", ARRAY, (I32, [99] * len(tokens))), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.merges", ARRAY, (STRING, ["nospace"])), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.merges", ARRAY, (STRING, ["q q"])), gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.merges", ARRAY, (I32, [1])), gguf_reads=True)


@case
def a_first_token_that_is_not_there():
    def change(g):
        g.set("tokenizer.ggml.add_bos_token", BOOL, True)
        g.set("tokenizer.ggml.bos_token_id", U32, 1 << 30)
    changed(change, "bos_token_id", gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.add_bos_token", BOOL, True), "bos_token_id", gguf_reads=True)
    changed(lambda g: g.set("tokenizer.ggml.add_bos_token", U32, 1), "add_bos_token", gguf_reads=True)


@case
def the_file_that_all_of_these_begin_with_is_good():
    result = memtx("eval", model(), text(), "--modes", "xl", before=limit, env=ENVIRONMENT)
    assert result.code == 0, result


@case
def one_byte_of_the_head_changed_never_ends_badly():
    # Not refused perhaps (a byte of a token's text is as good as another), but nothing except 0 and one line with 1.
    import random
    rng, whole = random.Random(3), bytearray(WHOLE)
    for _ in range(60):
        at, bit = rng.randrange(24, 6900), 1 << rng.randrange(8)
        whole[at] ^= bit
        name = put("flipped.gguf", bytes(whole))
        for args in (["gguf", name], ["eval", name, text(20), "--modes", "xl"]):
            result = memtx(*args, before=limit, env=ENVIRONMENT)
            if result.code != 0:
                one_line(result, 1)
        whole[at] ^= bit


main()
