#!/usr/bin/env python3
"""Text out of an R lazy-load database, without R.

    decode_rdb.py DIR/Rdata OUTDIR      reads DIR/Rdata.rdx and DIR/Rdata.rdb

Takes a package's data as R installs it and writes OUTDIR/NAME.txt for every character vector in it, the
elements joined by "\\n" (a missing element is an empty line, nothing follows the last).

    Rdata.rdx   gzip of one serialised list: variables = list(NAME = c(offset, length), ...), references, compressed
    Rdata.rdb   at each offset: length of the unpacked block (4 bytes, big-endian), then a zlib stream of one
                serialised object
    serialised  "X\\n", version (2 or 3), writer, oldest reader (4 bytes each; 3 adds the native encoding), then
                items: 4 bytes of flags (type in the low 8 bits, 0x100 object, 0x200 attributes, 0x400 tag), then
                the type's data, all big-endian

Only the types such a file holds are read; anything else is an error that names it. Standard library only.
"""
import gzip
import os
import struct
import sys
import zlib

SYM, PAIRLIST, CHAR, LOGICAL, INTEGER, REAL, STRING, LIST = 1, 2, 9, 10, 13, 14, 16, 19
NIL, REFERENCE = 254, 255
HAS_ATTRIBUTES, HAS_TAG, LATIN1 = 0x200, 0x400, 0x4000


class Reader:
    """One serialised object; item() returns (value, attributes)."""

    def __init__(self, data):
        self.data, self.at, self.symbols = data, 0, []
        if self.take(2) != b"X\n":
            raise ValueError("not R's binary serialisation")
        version = self.int()
        self.take(8)
        if version == 3:
            self.take(self.int())
        elif version != 2:
            raise ValueError("serialisation version %d (2 or 3 wanted)" % version)

    def take(self, n):
        if n < 0 or n > len(self.data) - self.at:
            raise ValueError("%d bytes wanted at %d of %d" % (n, self.at, len(self.data)))
        self.at += n
        return self.data[self.at - n:self.at]

    def int(self):
        return struct.unpack(">i", self.take(4))[0]

    def attributes(self, flags):
        return self.item()[0] if flags & HAS_ATTRIBUTES else {}

    def pairlist(self, flags):
        """A chain of (attributes, tag, value) cells as a dict; the paths that reach here have string tags."""
        pairs = {}
        while flags & 0xFF == PAIRLIST:
            self.attributes(flags)
            tag = self.item()[0] if flags & HAS_TAG else None
            pairs[tag] = self.item()[0]
            flags = self.int()
        if flags & 0xFF != NIL:
            raise ValueError("pair list ends in type %d" % (flags & 0xFF))
        return pairs

    def item(self):
        flags = self.int()
        kind = flags & 0xFF
        if kind == NIL:
            return None, {}
        if kind == REFERENCE:
            return self.symbols[(flags >> 8) - 1], {}
        if kind == SYM:
            self.symbols.append(self.item()[0])
            return self.symbols[-1], {}
        if kind == PAIRLIST:
            return self.pairlist(flags), {}
        if kind == CHAR:
            n = self.int()
            return (None if n == -1 else self.take(n).decode("latin-1" if flags & LATIN1 else "utf-8")), {}
        n = self.int()
        if kind in (LOGICAL, INTEGER):
            value = list(struct.unpack(">%di" % n, self.take(4 * n)))
        elif kind == REAL:
            value = list(struct.unpack(">%dd" % n, self.take(8 * n)))
        elif kind in (STRING, LIST):
            value = [self.item()[0] for _ in range(n)] if kind == STRING else [self.named() for _ in range(n)]
        else:
            raise ValueError("type %d is not read here" % kind)
        return value, self.attributes(flags)

    def named(self):
        """An item, as a dict where it is a named list."""
        value, attributes = self.item()
        names = attributes.get("names")
        return dict(zip(names, value)) if names else value


def main(argv):
    if len(argv) != 3:
        raise SystemExit("usage: decode_rdb.py DIR/Rdata OUTDIR")
    base, out = argv[1:]
    with open(base + ".rdx", "rb") as f:
        variables = Reader(gzip.decompress(f.read())).named()["variables"]
    with open(base + ".rdb", "rb") as f:
        blocks = f.read()
    for name, (offset, length) in variables.items():
        block = blocks[offset:offset + length]
        data = zlib.decompress(block[4:])
        if len(data) != struct.unpack(">I", block[:4])[0]:
            raise ValueError("%s: %d bytes unpacked, its header says otherwise" % (name, len(data)))
        lines, _ = Reader(data).item()
        if os.path.basename(name) != name or not all(x is None or isinstance(x, str) for x in lines):
            raise ValueError("%s: not a character vector" % name)
        with open(os.path.join(out, name + ".txt"), "w", encoding="utf-8", newline="") as f:
            f.write("\n".join(x or "" for x in lines))


if __name__ == "__main__":
    try:
        main(sys.argv)
    except (OSError, ValueError, KeyError, TypeError, zlib.error) as e:
        raise SystemExit("decode_rdb.py: %s" % e)
