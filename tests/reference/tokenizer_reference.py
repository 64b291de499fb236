"""The tokenizer of a GGUF file, built on the PyPI package `tokenizers` from the file's tokens and merges.

Independent of libmemtx in every part: pre-tokenizer patterns, byte alphabet, merging. Nothing is a special token
here, so text that looks like one (`<|im_start|>`) is encoded as the plain text it is.
"""

import gguf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_alphabet():
    """GPT-2's map from a byte to the printable character that stands for it in token strings."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {b: chr(b) for b in printable}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(printable))
    return table


def splitter(name):
    """The pre-tokenizer of that GGUF name, without the mapping of bytes to characters."""
    isolated = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    if name == "gpt-2":
        return isolated(GPT2_PATTERN)
    if name == "llama-bpe":
        return isolated(LLAMA3_PATTERN)
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), isolated(GPT2_PATTERN)])
    raise ValueError(f"pre-tokenizer {name}")


def vocabulary(path):
    reader = gguf.GGUFReader(path)
    fact = lambda key: reader.get_field(key).contents()
    return fact("tokenizer.ggml.tokens"), fact("tokenizer.ggml.merges"), fact("tokenizer.ggml.pre")


def load(path):
    tokens, merges, pre = vocabulary(path)
    if pre != "smollm":
        raise ValueError("the reference encodes with pre-tokenizer smollm only")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
            fuse_unk=False,
        )
    )
    # the package's own ByteLevel, not the pattern above: the two are compared in make_tokenizer_reference.py
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return tokenizer


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids
