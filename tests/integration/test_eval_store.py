#!/usr/bin/env python3
"""memtx eval --memory DIR: kept and used again, of another model, not writable, no space, in use by another process."""
import errno
import glob
import hashlib
import os
import signal
import stat
import subprocess
import tempfile
import time

from command import MEMTX, SMALL, environment, evaluate, good, memtx, model, one_line, path, put, runs, scratch, text
from tap import case, main, skip

MEMORY = SMALL + ["--modes", "memory"]


def new(name):
    """A path in the scratch directory where nothing is yet."""
    return tempfile.mkdtemp(prefix=name + "-", dir=scratch()) + "/store"


def file_hash(name):
    with open(name, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def nll_of(store, *args, **how):
    return evaluate("--modes", "memory", "--memory", store, *args, **how)["runs"][0]


# ---- kept -----------------------------------------------------------------------------------------------------------

@case
def a_store_is_kept_and_used_again():
    store, plain = new("kept"), evaluate("--modes", "memory")["runs"][0]
    first, second = nll_of(store), nll_of(store)
    assert first["nll"] == plain["nll"] and first["memory_rows"] == plain["memory_rows"]
    assert second["nll"] == first["nll"]  # this document only: what was read yesterday is not in scope
    assert second["memory_rows"] == 2 * first["memory_rows"]
    assert second["store_bytes"] >= first["store_bytes"] > 0
    third = nll_of(store, texts=[text(150, seed=9)])
    assert third["nll"] == evaluate("--modes", "memory", texts=[text(150, seed=9)])["runs"][0]["nll"]


@case
def files_are_for_the_owner_only():
    store = new("private")
    nll_of(store)
    assert stat.S_IMODE(os.stat(store).st_mode) == 0o700
    assert sorted(os.listdir(store)) == ["data.mdb", "lock.mdb", "writer"], os.listdir(store)
    for name in os.listdir(store):
        assert stat.S_IMODE(os.stat(os.path.join(store, name)).st_mode) == 0o600, name


@case
def an_empty_directory_becomes_a_store():
    store = tempfile.mkdtemp(dir=scratch())
    os.chmod(store, 0o1777)
    before = os.stat(store)
    assert nll_of(store)["nll"] == nll_of(store + "/")["nll"]
    after = os.stat(store)  # it may be somebody's mount point or shared place: not made anew
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert {stat.S_IMODE(os.stat(os.path.join(store, name)).st_mode) for name in os.listdir(store)} == {0o600}


@case
def what_is_kept_does_not_depend_on_durability():
    assert nll_of(new("full"), "--durability", "full")["nll"] == nll_of(new("group"), "--durability", "group")["nll"]


@case
def random_retrieval_writes_to_no_store_that_was_given():
    store = new("random")
    nll_of(store)
    before = file_hash(store + "/data.mdb")
    evaluate("--modes", "xl,memory-random", "--memory", store)
    assert file_hash(store + "/data.mdb") == before
    other = new("random-only")
    evaluate("--modes", "memory-random", "--memory", other)
    assert not os.path.exists(other)


@case
def temporary_stores_leave_nothing():
    place = tempfile.mkdtemp(dir=scratch())
    good("eval", model(), text(), *SMALL, "--modes", "memory,memory-random", env=environment(TMPDIR=place))
    assert os.listdir(place) == [], os.listdir(place)


@case
def a_temporary_directory_that_is_not_there():
    result = memtx("eval", model(), text(), *MEMORY, env=environment(TMPDIR=path("no-such-place")))
    if result.code:
        one_line(result, 1, "no-such-place")


@case
def other_settings_are_told():
    store = new("settings")
    good("eval", model(), text(), *MEMORY, "--memory", store)
    result = good("eval", model(), text(), *MEMORY, "--memory", store, "--window", "48")
    assert result.err.count("\n") == 1 and result.err.startswith("memtx: note: ") and "window=48" in result.err, result
    assert good("eval", model(), text(), *MEMORY, "--memory", store).err == ""


# ---- what cannot be -------------------------------------------------------------------------------------------------

def unchanged(store, *args, model_path=None, words=()):
    """A run that is refused, and leaves the store as it was, and good."""
    before, rows = file_hash(store + "/data.mdb"), nll_of  # noqa: F841
    line = one_line(memtx("eval", model_path or model(), text(), *MEMORY, "--memory", store, *args), 1, store, *words)
    assert file_hash(store + "/data.mdb") == before, "the store was changed"
    return line


@case
def a_store_of_another_model_is_refused():
    store = new("models")
    first = nll_of(store)
    unchanged(store, model_path=model(2), words=["another model"])
    unchanged(store, model_path=model(layers=3), words=["3", "4"])
    unchanged(store, "--store-type", "f32", words=["f16", "f32"])
    unchanged(store, "--layers", "all", words=["layer 0"])
    unchanged(store, "--layers", "2", words=["layer 3"])
    again = nll_of(store)
    assert again["nll"] == first["nll"] and again["memory_rows"] == 2 * first["memory_rows"]


@case
def what_cannot_run_is_told_before_the_other_modes_run():
    store = new("first")
    nll_of(store)
    start = time.monotonic()
    one_line(memtx("eval", model(2), text(20000), *SMALL, "--modes", "xl,sinks,memory", "--memory", store), 1, store)
    one_line(memtx("eval", model(), text(20000), *SMALL, "--modes", "xl,window", "--window", "0"), 2, "window")
    assert time.monotonic() - start < 3


@case
def a_model_file_of_another_name_is_the_same_model():
    store = new("renamed")
    nll_of(store)
    with open(model(), "rb") as file:
        nll_of(store, model_path=put("another name.gguf", file.read()))


@case
def directories_that_are_something_else():
    def refused(place, *words):
        one_line(memtx("eval", model(), text(), *MEMORY, "--memory", place), 1, *words)
    folder = tempfile.mkdtemp(dir=scratch())
    with open(folder + "/letter.txt", "w", encoding="utf-8") as file:
        file.write("dear")
    refused(folder, folder, "no store")
    assert os.listdir(folder) == ["letter.txt"]
    refused(text(), "not a directory")
    refused(path("no/such/parent/store"), "no such file")
    refused(text() + "/store", "directory")
    refused("", "")
    with open(folder + "/data.mdb", "wb") as file:
        file.write(b"no database " * 5000)
    refused(folder, folder)
    with open(folder + "/data.mdb", "rb") as file:
        assert file.read() == b"no database " * 5000


@case
def an_empty_or_cut_database():
    store = new("cut")
    nll_of(store)
    with open(store + "/data.mdb", "rb") as file:
        whole = file.read()
    # Shorter than LMDB's two pages of meta data. A database that is cut behind them cannot be told from a whole one
    # before its missing pages are read, which is a signal: not tested here.
    for n in (1, 100, 4096):
        with open(store + "/data.mdb", "wb") as file:
            file.write(whole[:n])
        result = memtx("eval", model(), text(), *MEMORY, "--memory", store)
        assert result.code == 1, (n, result)
        one_line(result, 1, store)
    with open(store + "/data.mdb", "wb") as file:
        file.write(whole)
    nll_of(store)


@case
def a_directory_that_is_not_writable():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    os.chmod(scratch(), 0o755)
    place = tempfile.mkdtemp(dir=scratch())
    os.chmod(place, 0o755)
    store = new("roots")
    nll_of(store)
    os.chmod(os.path.dirname(store), 0o755)
    model(), text()

    def nobody():
        os.setgid(65534)
        os.setuid(65534)
    probe = memtx("gguf", model(), before=nobody) if os.access(MEMTX, os.X_OK) else None
    if probe is None or probe.code:
        skip("the build directory is closed to other users")
    before = file_hash(store + "/data.mdb")
    for where in (place + "/store", place, store):
        one_line(memtx("eval", model(), text(), *MEMORY, "--memory", where, before=nobody), 1, where, "denied")
    assert file_hash(store + "/data.mdb") == before
    nll_of(store)


# ---- a full disk ----------------------------------------------------------------------------------------------------

class Disk:
    """A small file system of its own."""

    def __init__(self, n_bytes):
        if os.geteuid() != 0:
            skip("needs root to mount")
        self.place = tempfile.mkdtemp(prefix="disk-", dir=scratch())
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d" % n_bytes, "none", self.place], check=False,
                              capture_output=True)
        if done.returncode:
            skip("mounting is not allowed here")

    def __enter__(self):
        return self.place

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.place], check=True)


@case
def a_full_disk_is_told_and_the_store_opens_again():
    with Disk(2 << 20) as place:
        store = place + "/store"
        first = nll_of(store, texts=[text(60)])  # fits
        long = text(12000)
        result = memtx("eval", model(), long, *MEMORY, "--memory", store, timeout=120)
        one_line(result, 1, "space", partial=True)
        subprocess.run(["mount", "-o", "remount,size=%d" % (64 << 20), place], check=True)
        again = nll_of(store, texts=[text(60)])
        assert again["nll"] == first["nll"] and again["memory_rows"] > 2 * first["memory_rows"], again


@case
def no_space_from_the_beginning():
    # Whatever the first write meets: one clear line, and once there is space the same directory works.
    plain = evaluate("--modes", "memory")["runs"][0]["nll"]
    for n_bytes in (4096, 8192, 16384, 24576, 32768, 49152):
        with Disk(n_bytes) as place:
            store = place + "/store"
            one_line(memtx("eval", model(), text(3000), *MEMORY, "--memory", store), 1, "space", partial=True)
            subprocess.run(["mount", "-o", "remount,size=%d" % (64 << 20), place], check=True)
            assert nll_of(store)["nll"] == plain, n_bytes


@case
def no_space_for_the_lock():
    # LMDB makes lock.mdb with holes and maps it: touching one on a full disk would be a signal.
    with Disk(2 << 20) as place:
        store = place + "/store"
        nll_of(store)
        os.unlink(store + "/lock.mdb")
        with open(place + "/filler", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as full:
                assert full.errno == errno.ENOSPC
        one_line(memtx("eval", model(), text(), *MEMORY, "--memory", store), 1, "space", partial=True)
        os.unlink(place + "/filler")
        nll_of(store)


@case
def no_space_for_a_temporary_store():
    with Disk(1 << 20) as place:
        one_line(memtx("eval", model(), text(6000), *MEMORY, env=environment(TMPDIR=place)), 1, "space", partial=True)
        assert os.listdir(place) == []


@case
def no_space_for_the_json():
    with Disk(4096) as place:
        with open(place + "/filler", "wb") as file:
            file.write(bytes(4096))
        result = memtx("eval", model(), text(), *SMALL, "--modes", "xl", "--json", place + "/out.json")
        assert result.code == 1 and "space" in result.err.lower() and result.err.count("\n") == 1, result
        assert result.out.startswith("mode"), "the table is shown all the same"
        assert os.listdir(place) == ["filler"]


# ---- two processes --------------------------------------------------------------------------------------------------

@case
def a_second_writer_is_told():
    store = new("shared")
    args = [MEMTX, "eval", model(), text(20000), *MEMORY, "--memory", store]
    first = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    try:
        limit = time.monotonic() + 30
        while not os.path.exists(store + "/data.mdb") or os.path.getsize(store + "/data.mdb") < 100000:
            assert first.poll() is None and time.monotonic() < limit, "the first process did not get going"
            time.sleep(0.01)
        for _ in range(3):
            start = time.monotonic()
            one_line(memtx("eval", model(), text(), *MEMORY, "--memory", store), 1, store, "is writing to this store")
            assert time.monotonic() - start < 5
        # by another name of the same place
        os.symlink(store, store + "-link")
        one_line(memtx("eval", model(), text(), *MEMORY, "--memory", store + "-link"), 1, "is writing to this store")
        assert first.poll() is None, "the first process has to go on meanwhile"
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=30)
        assert first.returncode == 130 and b"interrupted" in err, (first.returncode, err)
    finally:
        if first.poll() is None:
            first.kill()
            first.wait()
    nll_of(store)


@case
def nothing_of_ours_is_left_in_the_scratch_directory():
    assert not glob.glob(scratch() + "/memtx-*"), os.listdir(scratch())


main()
