#!/usr/bin/env python3
"""Turns tokenizer_reference.json into a C header for test_tokenizer_reference.c. The build runs it.

    make_tokenizer_header.py tokenizer_reference.json OUT.h

Lists become their length and the CRC-32 of their little-endian 32-bit numbers; what differs can be read in the JSON.
"""

import json
import struct
import sys
import zlib

PRE_TOKENIZERS = ["smollm", "gpt-2", "llama-bpe"]


def listed(numbers):
    """{n, crc32} of a list of numbers, or of one that the JSON has as such."""
    if isinstance(numbers, list):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        return f"{{{len(numbers)}, 0x{zlib.crc32(packed):08x}u}}"
    return f"{{{numbers['n']}, 0x{numbers['crc32']:08x}u}}"


def pieces(of):
    return "{" + ", ".join(listed(of[name]) for name in PRE_TOKENIZERS) + "}"


def literal(data):
    """Bytes as C strings of at most 32: three octal digits each, so that no character runs into the next."""
    return " ".join('"' + "".join(f"\\{b:03o}" for b in data[i : i + 32]) + '"' for i in range(0, len(data), 32)) or '""'


def text_row(text):
    return (
        f'    {{"{text["name"]}", "{text["file"]}", {text["n_bytes"]}, 0x{text["crc32"]:08x}u, '
        f'{listed(text["ids"] | {"n": text["n_tokens"]})}, {pieces(text["pieces"])}}},'
    )


def input_row(entry):
    unit = bytes.fromhex(entry.get("repeat", entry.get("hex")))
    known = entry["ids"] is not None
    name = entry["name"].replace("\\", "\\\\").replace('"', '\\"')
    facts = f"{listed(entry['ids'])}, {pieces(entry['pieces'])}" if known else "{0, 0}, {{0, 0}}"
    return (
        f'    {{"{name}", {literal(unit)}, {len(unit)}, {entry.get("times", 1)}, {len(entry["missing_bytes"])}, '
        f"{int(known)}, {facts}}},"
    )


def main(json_path, header_path):
    with open(json_path, encoding="utf-8") as file:
        reference = json.load(file)
    names = ", ".join(f'"{name}"' for name in PRE_TOKENIZERS)
    lines = [
        "/* Made by make_tokenizer_header.py from tokenizer_reference.json. */",
        f"static const char *const pre_tokenizers[N_PRE_TOKENIZERS] = {{{names}}};",
        "static const struct reference_text reference_texts[] = {",
        *map(text_row, reference["texts"]),
        "};",
        "static const struct reference_input reference_inputs[] = {",
        *map(input_row, reference["torture"]),
        "};",
    ]
    with open(header_path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
