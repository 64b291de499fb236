#!/usr/bin/env python3
"""Writes tokenizer_reference.json: ids of real texts (hashed), of a torture list and of random strings, and the pieces
that three pre-tokenizers cut them into.

    make_tokenizer_reference.py MODEL.gguf BOOKS_DIR kernel-sched.txt

The format is described in README.md. Characters newer than Unicode 14 are kept out, so that a difference is a
defect and not the age of somebody's tables.
"""

import hashlib
import json
import os
import random
import struct
import sys
import unicodedata
import zlib

import tokenizers
import tokenizer_reference as reference

BOOKS = ["emma", "mansfieldpark", "northangerabbey", "persuasion", "prideprejudice", "sensesensibility"]
CODE_BYTES = 1_000_000
PRE_TOKENIZERS = ["smollm", "gpt-2", "llama-bpe"]
N_RANDOM = 200
MOST_PIECES = 1000  # an input cut into more than that has its pieces hashed instead of listed

VALID = [
    # white space: what belongs to the next word, what stands alone, what ends a text
    ("empty", ""),
    ("one space", " "),
    ("two spaces", "  "),
    ("17 spaces", " " * 17),
    ("spaces around words", "  a   b    c  "),
    ("tabs", "\t\t\tint\tx;\t\n"),
    ("tab and space", "\t a \t b\t\t c"),
    ("newlines", "a\nb\n\nc\n\n\n\nd\n"),
    ("CRLF", "one\r\ntwo\r\n\r\nthree\r\n"),
    ("lone CR", "one\rtwo\r\rthree\r"),
    ("newline then indent", "{\n        return 0;\n}\n"),
    ("spaces before newline", "a  \n  b \n\n c"),
    ("vertical tab, form feed", "a\vb\fc \v d"),
    ("U+001C to U+001F are no spaces", "x\x1cy\x1ez\x1f \x1c w"),
    ("U+0085", "a\u0085b \u0085 c"),
    ("U+00A0", "a\u00a0b \u00a0c\u00a0\u00a0d"),
    ("U+1680", "a\u1680b \u1680 c"),
    ("U+180E is no space", "a\u180eb \u180e x!\u180e!"),
    ("U+2000 to U+200A", "a\u2000\u2001\u2002\u2003b\u2004\u2005\u2006c\u2007\u2008\u2009\u200ad"),
    ("U+2028, U+2029", "a\u2028b\u2029c \u2028 d"),
    ("U+202F, U+205F", "a\u202fb\u205fc"),
    ("U+3000", "a\u3000b\u3000\u3000c"),
    ("zero width", "a\u200bb\u200cc\u200dd\u2060e\ufefff"),
    ("byte order mark first", "\ufeffhello"),
    # numbers
    ("digits", "0123456789"),
    ("digits and spaces", "1 22  333   4444\n55555"),
    ("digits in words", "abc123def 4x5 x86_64 0xDEADBEEF"),
    ("numbers with marks", "3.14159, 1,000,000; -5e-10 +7"),
    ("long digits", "7" * 300),
    ("Arabic-Indic digits", "\u0660\u0661\u0662\u0663 \u06f4\u06f5 x\u0669"),
    ("Devanagari digits", "\u0967\u0968\u0969"),
    ("Roman numeral U+2167", "a\u2167b \u2167 \u2160\u2161\u2162"),
    ("superscripts", "x\u00b2 + y\u00b3 = \u00b9\u2070\u2074 \u2081\u2082"),
    ("fractions", "\u00bc\u00bd \u00be a\u2153"),
    ("circled, fullwidth", "\u2460\u2461 \uff11\uff12\uff13 \u3007"),
    ("mathematical digits", "\U0001d7ce\U0001d7cf \U0001d7e2"),
    # words
    ("contractions", "I'm you're he's we'll they'd I've don't 's 't 're 've 'm 'll 'd"),
    ("capital contractions", "I'M YOU'RE HE'S WE'LL THEY'D I'VE DON'T 'S 'LL 'D 'sx 'Sx"),
    ("long s after an apostrophe", "'\u017f '\u017fa x'\u017fa"),
    ("curly apostrophes", "it\u2019s we\u2019ll \u2018tis"),
    ("apostrophes", "' '' ''' 'a ' s o'clock"),
    ("Latin letters with marks", "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m stra\u00dfe \u0152uvre"),
    ("combining marks", "e\u0301 a\u030a n\u0303o \u0301x cafe\u0301s"),
    ("stacked combining marks", "Z\u0351\u036b\u0343\u036a\u0302a\u0300\u0301\u0302l"),
    ("Greek, Cyrillic", "\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!"),
    ("Chinese, Japanese", "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca"),
    ("Korean", "\uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab"),
    ("ideographs beyond the first plane", "\U00020000\U0002a6d6 a\U00020001b"),
    ("Arabic", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u061f"),
    ("Hebrew with points", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd"),
    ("direction marks", "a\u200f\u05d0\u200e b\u202e c\u202c"),
    ("Thai, Hindi", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947"),
    ("titlecase, modifier letters", "\u01c5 \u02b0\u02b1 \u1d43"),
    # symbols
    ("emoji", "\U0001f600 \U0001f680\U0001f680 x\U0001f44dx"),
    ("emoji with skin tone", "\U0001f44d\U0001f3fd \U0001f9d1\U0001f3ff"),
    ("emoji joined by U+200D", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308"),
    ("flags, keycaps", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 1\ufe0f\u20e3 #\ufe0f\u20e3"),
    ("punctuation", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    ("spaced punctuation", " ! \" # $ % & ( ) -- ... ?! "),
    ("typographic punctuation", "\u201cquoted\u201d \u2014 dash\u2013dash \u2026 \u00ab\u00bb \u00bf\u00a1"),
    ("punctuation then newline", "end.\n\nx;\r\n\r\ny)\n\tz...\n \n"),
    ("C", "static inline int f(struct s *p, u64 n)\n{\n\tif (!p || n >= 1ULL << 32)\n\t\treturn -EINVAL;\n\treturn p->a[n % 16]++;\n}\n"),
    ("underscores", "__init_or_module _ __ a_b _1_"),
    ("control characters that the vocabulary has", "a\x01b\x02\x03c\x07\x08d\x1b[0m\x7fe"),
    ("control characters that it lacks", "a\x04b !\x04! \x06\x13\x14\x16\x1d."),
    ("NUL", "\x00"),
    ("NULs in text", "a\x00b \x00\x00 c!\x00!\x00"),
    ("private use, noncharacters", "\ue000 \uf8ff a\ufffeb\uffff \ufffd"),
    ("planes 1, 3, 14, 16", "\U00010000 \U00030000 \U000e0041 \U0010fffd"),
    ("planes 4 and 8, whose first byte the vocabulary lacks", "a\U00040000b \U00080000! !\U00040000!"),
    # text that looks like a special token
    ("looks special", "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>"),
    ("looks special, code", "<repo_name>a<reponame>b<file_sep><filename>c<gh_stars><issue_start><jupyter_code><empty_output>"),
    ("looks special, cut", "<|im_start| im_start|> <|endoftext <|im_start|"),
    ("looks like the byte alphabet", "\u0120the \u010a \u0122\u0100 \u00c4\u0142"),
]  # fmt: skip

LONG = [  # (name, bytes to repeat, times)
    ("100,000 times a", b"a", 100_000),
    ("50,000 letters of four scripts", "qzJx\u00e9\u0432\u00df\u6f22W\u03a9".encode(), 5_000),
    ("20,000 times the", b"the", 20_000),
    ("10,000 times !", b"!", 10_000),
    ("10,000 punctuation marks", b"-=*/+", 2_000),
    ("20,000 spaces", b" ", 20_000),
    ("10,000 newlines", b"\n", 10_000),
    ("10,000 digits", b"0123456789", 1_000),
    ("5,000 emoji", "\U0001f600".encode(), 5_000),
    ("5,000 combining marks", "\u0301".encode(), 5_000),
    ("5,000 NULs", b"\x00", 5_000),
]

INVALID = [  # not UTF-8: only the round trip is defined
    ("lone continuation byte", b"a\x80b"),
    ("run of continuation bytes", b"\x80\x81\xbf\xbe"),
    ("cut two-byte sequence", b"abc\xc3"),
    ("cut three-byte sequence", b"\xe2\x82 x"),
    ("cut four-byte sequence", b"x \xf0\x9f\x98"),
    ("first byte before ASCII", b"\xc3a\xe2b\xf0c"),
    ("0xFF", b"a\xffb\xff\xff"),
    ("0xFE, 0xFD", b"\xfe\xfd"),
    ("surrogate", b"x\xed\xa0\x80y"),
    ("surrogate pair", b"\xed\xa0\xbd\xed\xb8\x80"),
    ("overlong NUL", b"a\xc0\x80b"),
    ("overlong slash in three bytes", b"\xe0\x80\xaf"),
    ("overlong in four bytes", b"\xf0\x80\x80\xaf"),
    ("beyond U+10FFFF", b"\xf4\x90\x80\x80"),
    ("five-byte form", b"\xf8\x88\x80\x80\x80"),
    ("Latin-1", b"caf\xe9 na\xefve"),
    ("NUL and broken", b"\x00\x80\x00 \xe2\x00"),
    ("valid, broken, valid", "\u4f60".encode() + b"\xe4\xbd" + "\u597d \U0001f600".encode() + b"\xf0\x9f"),
]

POOL = (
    list("aabcdeEIlLmMrRsStTvVdD'''0123456789    \n\n\r\t.,!-_/(){}<>|\"") + list("\u00e9\u00df\u017f\u0301\u0308\u00a0\u0085\u2003\u3000\u2028\u200b\u200d\ufeff\u00b2\u0663\u2167\u4f60\u597d\u0432\u03a9\u05d0\u0e2a\U0001f600\U0001f3fd\u2014\u2019\x00\x07\x1c")
)  # fmt: skip


def hash_of_u32(numbers):
    packed = struct.pack(f"<{len(numbers)}I", *numbers)
    return {"crc32": zlib.crc32(packed), "sha256": hashlib.sha256(packed).hexdigest()}


def lengths(splitter, text):
    pieces = [len(piece.encode()) for piece, _ in splitter.pre_tokenize_str(text)]
    assert sum(pieces) == len(text.encode())
    return pieces


def pieces_field(splitter, text):
    pieces = lengths(splitter, text)
    return pieces if len(pieces) <= MOST_PIECES else {"n": len(pieces), **hash_of_u32(pieces)}


def ids_field(ids):
    return ids if len(ids) <= MOST_PIECES else {"n": len(ids), "first": ids[:16], "last": ids[-16:], **hash_of_u32(ids)}


def main(model_path, books_dir, code_path):
    tokenizer = reference.load(model_path)
    tokens, _, _ = reference.vocabulary(model_path)
    alphabet = reference.byte_alphabet()
    byte_of = {character: byte for byte, character in alphabet.items()}
    missing = [b for b in range(256) if alphabet[b] not in set(tokens)]
    splitters = {name: reference.splitter(name) for name in PRE_TOKENIZERS}

    def decoded(ids):
        return b"".join(bytes(byte_of[c] for c in tokens[i]) for i in ids)

    def entry(name, data, **description):
        """One input; ids where `tokenizers` takes it."""
        out = {"name": name, **(description or {"hex": data.hex()})}
        out["missing_bytes"] = sorted({b for b in data if b in missing})
        try:
            text = data.decode()
        except UnicodeDecodeError:
            out["ids"] = None
            return out
        ids = reference.encode(tokenizer, text)
        assert decoded(ids) == bytes(b for b in data if b not in missing), name
        out["ids"] = ids_field(ids)
        out["pieces"] = {name: pieces_field(splitter, text) for name, splitter in splitters.items()}
        return out

    texts = []
    for name in BOOKS + ["code"]:
        path = code_path if name == "code" else os.path.join(books_dir, name + ".txt")
        with open(path, "rb") as file:
            data = file.read()
        if name == "code":
            data = data[:CODE_BYTES].decode(errors="ignore").encode()  # cut at a character's end
        text = data.decode()
        ids = reference.encode(tokenizer, text)
        assert decoded(ids) == data
        pieces = {name: lengths(splitter, text) for name, splitter in splitters.items()}
        # the package's own byte-level pre-tokenizer and the pattern written out must agree
        assert pieces["smollm"] == [
            len(bytes(byte_of[c] for c in piece)) for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)
        ]
        texts.append(
            {
                "name": name,
                "file": os.path.basename(path),
                "n_bytes": len(data),
                "crc32": zlib.crc32(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "n_tokens": len(ids),
                "ids": {"first": ids[:16], "last": ids[-16:], **hash_of_u32(ids)},
                "pieces": {name: {"n": len(p), **hash_of_u32(p)} for name, p in pieces.items()},
            }
        )
        print(f"{name}: {len(data)} bytes, {len(ids)} tokens")

    for character in "".join(text for _, text in VALID) + "".join(POOL):
        assert unicodedata.category(character) != "Cn" or ord(character) & 0xFFFE == 0xFFFE or ord(character) >= 0x30000
    rng = random.Random(2203)
    fuzz = ["".join(rng.choices(POOL, k=rng.randint(1, 24))) for _ in range(N_RANDOM)]
    torture = [entry(name, text.encode()) for name, text in VALID]
    torture += [entry(name, unit * times, repeat=unit.hex(), times=times) for name, unit, times in LONG]
    torture += [entry(name, data) for name, data in INVALID]
    torture += [entry(f"random {i}", text.encode()) for i, text in enumerate(fuzz)]

    out = {
        "what": "ids and pre-tokenizer pieces; made by make_tokenizer_reference.py, format in README.md",
        "tokenizers": tokenizers.__version__,
        "missing_bytes": missing,
        "patterns": {"gpt-2": reference.GPT2_PATTERN, "llama-bpe": reference.LLAMA3_PATTERN},
        "texts": texts,
        "torture": torture,
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer_reference.json")
    with open(path, "w") as file:
        # one input on a line, so that a difference can be read
        body = {key: value for key, value in out.items() if key not in ("texts", "torture")}
        file.write(json.dumps(body, separators=(",", ":"))[:-1])
        for key in ("texts", "torture"):
            lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in out[key])
            file.write(f',\n"{key}":[\n{lines}\n]')
        file.write("}\n")
    print(f"{len(torture)} inputs; bytes without a token: {' '.join(f'{b:02x}' for b in missing)}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
