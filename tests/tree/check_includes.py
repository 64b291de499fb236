#!/usr/bin/env python3
"""The shape of the tree, checked (DESIGN 2): which folder may include which, where foreign headers may stand, what the
library exports, that each public header compiles alone in C11 and C++, and that the program in memtx.h works as printed.

    check_includes.py [libmemtx.so]            prints TAP; without the library its symbols and the program are skipped
"""
import glob
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from tap import case, main, skip  # noqa: E402

LIBRARY = sys.argv.pop(1) if len(sys.argv) > 1 and ".so" in sys.argv[1] else None
CC = os.environ.get("CC", "cc").split()
CXX = os.environ.get("CXX", "c++").split()

# {train, eval} -> model -> {memory, text} -> search -> {math, store, gguf} -> base
FLOORS = {"train": 6, "eval": 6, "model": 5, "memory": 4, "text": 4, "search": 3, "math": 2, "store": 2, "gguf": 2,
          "base": 1}

# Arrows within a floor, each with its reason. Together they must not make a circle (which a case checks).
SAME_FLOOR = {
    ("store", "math"): "rows are rounded to the store's type by the half-precision kernels",
    ("gguf", "math"): "the reader needs the layout of each tensor type, which stands beside its kernel",
}

# Folders outside the library that see public headers only.
OUTSIDE = ["cli", "bench", "index", "libmemtx/docs"]

# Foreign headers with a place of their own.
ONLY_IN = [(r"lmdb\.h", r"libmemtx/store/[^/]+\.[ch]|tests/unit/(test_(store|store_\w+|pages|metas)|pages_file)\.c"),
           (r"(oneapi/)?dnnl.*\.h", r"libmemtx/math/linear\.c"), (r"faiss/.*", r"index/faiss(_file|_index|_ivf)?\.[ch]")]


def sources(*folders):
    """(path from the root, included name, in quotes?, line) of every #include."""
    for folder in folders:
        for name in sorted(glob.glob(os.path.join(ROOT, folder, "**", "*.[ch]"), recursive=True)):
            with open(name, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    found = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
                    if found:
                        yield os.path.relpath(name, ROOT), found.group(2), found.group(1) == '"', number


def none(wrong):
    assert not wrong, "\n" + "\n".join(wrong)


def folder_of(path):
    """libmemtx/eval/eval.h -> eval; a file of libmemtx itself -> ''."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 else ""


@case
def every_folder_of_the_library_has_its_floor():
    folders = {os.path.basename(d.rstrip("/")) for d in glob.glob(os.path.join(ROOT, "libmemtx", "*/"))} - {"include", "docs"}
    none(["libmemtx/%s stands on no floor" % f for f in sorted(folders - set(FLOORS))])


@case
def includes_point_down():
    wrong = []
    for path, name, quoted, line in sources("libmemtx"):
        here = folder_of(path)
        where = "%s:%d includes %s" % (path, line, name)
        if not quoted:
            continue
        if path.startswith("libmemtx/include/"):
            if not name.startswith("memtx/"):
                wrong.append(where + ": a public header sees public headers only")
        elif name.startswith("memtx/"):
            pass
        elif "/" not in name or name.split("/")[0] not in FLOORS:
            wrong.append(where + ": write folder/file.h")
        elif not os.path.exists(os.path.join(ROOT, "libmemtx", name)):
            wrong.append(where + ": there is no such file")
        elif here:
            there = name.split("/")[0]
            if there != here and FLOORS[there] >= FLOORS[here] and (here, there) not in SAME_FLOOR:
                wrong.append("%s: %s may not see %s" % (where, here, there))
    none(wrong)


@case
def folders_do_not_include_in_a_circle():
    sees = {}
    for path, name, quoted, _ in sources("libmemtx"):
        here, there = folder_of(path), name.split("/")[0]
        if quoted and here in FLOORS and there in FLOORS and here != there:
            sees.setdefault(here, set()).add(there)

    def walk(folder, trail):
        assert folder not in trail, " -> ".join(trail[trail.index(folder):] + [folder])
        for other in sorted(sees.get(folder, ())):
            walk(other, trail + [folder])
    for folder in sorted(sees):
        walk(folder, [])


@case
def cloned_functions_are_static_and_have_names_of_their_own():
    where, wrong = {}, []
    for name in sorted(glob.glob(os.path.join(ROOT, "libmemtx", "**", "*.c"), recursive=True)):
        with open(name, encoding="utf-8") as file:
            found = re.findall(r"^MEMTX__CLONES (static )?[^(]*?(\w+)\(", file.read(), re.MULTILINE)
        for static, function in found:
            if not static:
                wrong.append("%s: %s is not static" % (name, function))
            if where.setdefault(function, name) != name:
                wrong.append("%s: %s is cloned in %s too" % (name, function, where[function]))
    assert where, "there are none"
    none(wrong)


@case
def same_floor_arrows_are_used():
    used = {(folder_of(p), n.split("/")[0]) for p, n, quoted, _ in sources("libmemtx") if quoted}
    none(["%s -> %s is allowed and nobody needs it" % arrow for arrow in sorted(set(SAME_FLOOR) - used)])


@case
def public_headers_of_upper_floors_stay_above():
    # memtx/NAME.h belongs to the folder that makes it; a folder below it has no business with it.
    floor = {"eval": 6, "ingest": 6, "reading": 6, "model": 5, "memory": 4, "tokenizer": 4, "index": 3, "gguf": 2, "store": 2, "status": 1}
    same = {("store", "gguf"), ("gguf", "store")}
    wrong = []
    for path, name, quoted, line in sources("libmemtx"):
        here = folder_of(path)
        base = name[len("memtx/"):-2] if quoted and name.startswith("memtx/") else None
        if here in FLOORS and base and base != "memtx":
            assert base in floor, "memtx/%s.h stands on no floor" % base
            if floor[base] > FLOORS[here] or (here, base) in same:
                wrong.append("%s:%d: %s may not see %s" % (path, line, here, name))
        elif here in FLOORS and base == "memtx":
            wrong.append("%s:%d: memtx/memtx.h is for those outside" % (path, line))
    none(wrong)


@case
def foreign_headers_stay_in_their_place():
    wrong = []
    for path, name, _, line in sources("libmemtx", "cli", "bench", "index", "tests"):
        for header, place in ONLY_IN:
            if re.fullmatch(header, name) and not re.fullmatch(place, path) and not path.startswith("bench/"):
                wrong.append("%s:%d includes %s" % (path, line, name))
    none(wrong)


@case
def lmdb_is_included_in_one_place():
    files = {path for path, name, _, _ in sources("libmemtx", "cli", "bench", "index") if name == "lmdb.h"}
    assert files == {"libmemtx/store/tables.h"}, files


@case
def outside_of_the_library_only_public_headers_are_seen():
    wrong = []
    for path, name, quoted, line in sources(*OUTSIDE):
        if name.startswith("memtx/"):
            good = os.path.exists(os.path.join(ROOT, "libmemtx", "include", name))
        elif quoted:
            good = os.path.exists(os.path.join(ROOT, os.path.dirname(path), name))
        else:
            good = True
        if not good or "libmemtx" in name:
            wrong.append("%s:%d includes %s" % (path, line, name))
    none(wrong)


@case
def private_names_are_not_used_outside():
    wrong = []
    for folder in OUTSIDE:
        for name in sorted(glob.glob(os.path.join(ROOT, folder, "**", "*.[ch]"), recursive=True)):
            with open(name, encoding="utf-8") as file:
                found = sorted(set(re.findall(r"\bmemtx__\w+", file.read())))
            wrong += ["%s: %s" % (os.path.relpath(name, ROOT), word) for word in found]
    none(wrong)


def exported():
    if not LIBRARY:
        skip("no library was named")
    lines = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0] for line in lines.splitlines() if line.split()[-2] not in ("A", "a")}


def declared():
    """Functions that the public headers declare."""
    names = set()
    for header in public_headers():
        with open(header, encoding="utf-8") as file:
            text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
        names |= set(re.findall(r"^MEMTX_API\b[^;(]*?\b(\w+)\s*\(", text, re.M))
    return names


@case
def exported_symbols_are_memtx():
    symbols = exported() - {"_init", "_fini"}
    assert symbols, "nothing is exported"
    none(["%s is exported" % s for s in sorted(symbols) if not re.match(r"memtx_(?!_)", s)])


@case
def what_is_declared_is_exported_and_nothing_else():
    symbols, names = exported() - {"_init", "_fini"}, declared()
    none(["%s is declared and not exported" % s for s in sorted(names - symbols)] +
         ["%s is exported and in no public header" % s for s in sorted(symbols - names)])


def public_headers():
    return sorted(glob.glob(os.path.join(ROOT, "libmemtx", "include", "memtx", "*.h")))


def compile_text(compiler, flags, text, suffix):
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "alone" + suffix)
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        strict = ["-Wall", "-Wextra", "-Werror", "-I" + os.path.join(ROOT, "libmemtx", "include"), "-fsyntax-only"]
        done = subprocess.run(compiler + flags + strict + [source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, text + done.stderr


def have(compiler):
    try:
        subprocess.run(compiler + ["--version"], capture_output=True, check=True)
    except OSError:
        skip("no " + compiler[0])


@case
def each_public_header_compiles_alone_in_C11():
    have(CC)
    for header in public_headers():
        name = '#include "memtx/%s"\n' % os.path.basename(header)
        compile_text(CC, ["-std=c11", "-pedantic", "-Wstrict-prototypes"], name + name + "int main(void) { return 0; }\n", ".c")


@case
def each_public_header_compiles_alone_in_Cplusplus():
    have(CXX)
    for header in public_headers():
        name = '#include "memtx/%s"\n' % os.path.basename(header)
        for standard in ("-std=c++11", "-std=c++17"):
            compile_text(CXX, [standard, "-pedantic"], name + name + "int main() { return 0; }\n", ".cpp")


@case
def each_private_header_compiles_alone():
    have(CC)
    for header in sorted(glob.glob(os.path.join(ROOT, "libmemtx", "*", "*.h"))):
        name = os.path.relpath(header, os.path.join(ROOT, "libmemtx"))
        if not name.startswith("include/"):
            compile_text(CC, ["-std=gnu11", "-D_GNU_SOURCE", "-Wno-unused-function", "-Wno-unused-const-variable", "-fopenmp",
                              "-I" + os.path.join(ROOT, "libmemtx")],
                         '#include "%s"\nint main(void) { return 0; }\n' % name, ".c")


def printed_program():
    """The lines of memtx.h's opening comment that are code: those indented behind `a program is:`."""
    with open(os.path.join(ROOT, "libmemtx", "include", "memtx", "memtx.h"), encoding="utf-8") as file:
        comment = file.read().split("*/")[0]
    lines = comment.split("a program is:")[1].splitlines()[1:]
    code = []
    for line in lines:
        body = re.sub(r"^ \*", "", line)
        if body.startswith("     "):
            code.append(body.strip("\n"))
        elif body.strip() and code:
            break
    assert any("memtx_model_load" in line for line in code), comment
    return "\n".join(code)


@case
def the_program_in_memtx_h_compiles_links_and_runs():
    have(CC)
    if not LIBRARY:
        skip("no library was named")
    import gguf_file
    program = '#include <stdio.h>\n#include "memtx/memtx.h"\n\n' \
        "int main(void)\n{\n    const char bytes[] = \"%s\";\n    const size_t n_bytes = sizeof bytes - 1;\n%s\n" \
        "    return 0;\n}\n" % ("the cat and the other cat " * 8, printed_program())
    with tempfile.TemporaryDirectory() as folder:
        source, out = os.path.join(folder, "minimal.c"), os.path.join(folder, "minimal")
        with open(source, "w", encoding="utf-8") as file:
            file.write(program)
        done = subprocess.run(CC + ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", source, "-o", out,
                                    "-I" + os.path.join(ROOT, "libmemtx", "include"), LIBRARY,
                                    "-Wl,-rpath," + os.path.dirname(os.path.abspath(LIBRARY))],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, program + done.stderr
        absent = subprocess.run([out], cwd=folder, capture_output=True, text=True, check=True)
        assert "model.gguf" in absent.stderr and absent.stdout == "", absent
        gguf_file.tiny_model().write(os.path.join(folder, "model.gguf"))
        ran = subprocess.run([out], cwd=folder, capture_output=True, text=True, check=True)
        assert re.search(r"^memory +\d+ ", ran.stdout, re.M) and ran.stderr == "", ran


main()
