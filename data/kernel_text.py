#!/usr/bin/env python3
"""Directories of the Linux source as texts, one document each.

    ... | kernel_text.py OUTDIR DIR...      reads linux-source-*.tar.xz from standard input

For each DIR (kernel/sched) writes OUTDIR/kernel-sched.txt: its .c and .h files, those in subdirectories too, in the
byte order of their paths, each as a line `// kernel/sched/core.c` and the file's bytes, joined by a line break.
The archive is read once, as a stream, so it is never unpacked to disk.
"""
import os
import sys
import tarfile


def main(out, dirs):
    files = {d: {} for d in dirs}
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz") as tar:
        for member in tar:
            path = member.name.split("/", 1)[-1]  # without the archive's own top folder
            if not member.isfile() or not path.endswith((".c", ".h")):
                continue
            wanted = [d for d in dirs if path.startswith(d + "/")]
            if wanted:
                text = tar.extractfile(member).read()
                for d in wanted:
                    files[d][os.fsencode(path)] = text
    for d, texts in files.items():
        if not texts:
            raise ValueError("no .c or .h file under %s in the kernel source" % d)
        with open(os.path.join(out, d.replace("/", "-") + ".txt"), "wb") as f:
            f.write(b"\n".join(b"// " + path + b"\n" + texts[path] for path in sorted(texts)))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("usage: kernel_text.py OUTDIR DIR... <linux-source.tar.xz")
    try:
        main(sys.argv[1], sys.argv[2:])
    except (OSError, EOFError, ValueError, tarfile.TarError) as e:
        raise SystemExit("kernel_text.py: %s" % e)
