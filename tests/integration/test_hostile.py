#!/usr/bin/env python3
"""A store among people who wish it ill: links, pipes and devices in the place of its files, modes and owners, things
that are swapped while it is opened. No file outside the store is ever read or written, and every refusal is one line.

What must stay as it is, is a victim: a file whose content, size, mode and times are compared afterwards. Its time of
access lies before that of its content, so that any reading would move it (where the file system keeps such times).
"""
import os
import shutil
import stat
import subprocess
import tempfile

from command import SMALL, environment, good, memtx, model, one_line, path, scratch, text
from tap import add, case, main, skip

MEMORY = SMALL + ["--modes", "memory"]
FILES = ["data.mdb", "lock.mdb", "writer"]
SWAP = os.environ.get("MEMTX_SWAP")
STRANGER = 54321  # a user that owns nothing here


def folder(mode=0o755):
    """A new directory that other users may look into."""
    place = tempfile.mkdtemp(dir=scratch())
    os.chmod(place, mode)
    return place


def ingest(store, **how):
    return memtx("eval", model(), text(), *MEMORY, "--memory", store, **how)


_original = []


def new_store(place=None, name="store"):
    """A copy of a store that eval has made."""
    if not _original:
        _original.append(os.path.join(folder(), "original"))
        result = ingest(_original[0])
        assert result.code == 0, result
    store = os.path.join(place or folder(), name)
    shutil.copytree(_original[0], store)
    return store


# ---- victims --------------------------------------------------------------------------------------------------------

def facts(name):
    """All that is to stay, the time of access too; the content is read last."""
    s = os.lstat(name)
    with open(name, "rb") as file:
        return (s.st_ino, s.st_mode, s.st_uid, s.st_size, s.st_atime_ns, s.st_mtime_ns), file.read()


class Victim:
    """A file outside the store: the caller's text, or a whole LMDB database or nothing at all, as `content` says."""

    def __init__(self, content=b"my letters\n", like=None):
        self.name = os.path.join(folder(), "victim")
        if like:
            shutil.copyfile(like, self.name)
        else:
            with open(self.name, "wb") as file:
                file.write(content)
        os.chmod(self.name, 0o666)
        self.rest()

    def rest(self):
        os.utime(self.name, ns=(10 ** 18, 2 * 10 ** 18))
        self.before = facts(self.name)
        os.utime(self.name, ns=(10 ** 18, 2 * 10 ** 18))

    def untouched(self):
        after = facts(self.name)
        assert after[1] == self.before[1], "the victim was written"
        assert after[0] == self.before[0], "the victim was read or changed: %s, then %s" % (self.before[0], after[0])


@case
def a_victim_that_is_read_is_noticed():
    victim = Victim()
    subprocess.run(["cat", victim.name], stdout=subprocess.DEVNULL, check=True)
    try:
        victim.untouched()
    except AssertionError:
        return
    skip("this file system keeps no time of access: reading is not noticed")


# ---- in the place of a file -----------------------------------------------------------------------------------------

def put_link(place, victim):
    os.symlink(victim.name, place)


def put_dangling_link(place, victim):
    os.symlink(victim.name + "-is-not-there", place)


def put_hard_link(place, victim):
    os.link(victim.name, place)
    victim.rest()


def put_fifo(place, victim):
    os.mkfifo(place, 0o666)


def put_device(place, victim):
    if os.geteuid() != 0:
        skip("needs root to make a device")
    try:
        os.mknod(place, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        skip("devices cannot be made here")


def put_directory(place, victim):
    os.mkdir(place)


IMPOSTORS = [(put_link, "is a symbolic link"), (put_dangling_link, "is a symbolic link"),
             (put_hard_link, "is a file with several names"), (put_fifo, "is not a plain file"),
             (put_device, "is not a plain file"), (put_directory, "is not a plain file")]


def every_command_refuses(store, *words):
    name = os.path.basename(text())
    for args in (["info", store], ["ls", store], ["verify", store], ["compact", store, store + "-copy"],
                 ["rm", store, name]):
        one_line(memtx("store", *args), 1, *words)
    one_line(ingest(store), 1, *words)
    assert not os.path.lexists(store + "-copy")


def an_impostor_is_refused(put, words, name):
    store = new_store()
    victim = Victim(like=os.path.join(store, name))  # good as the file itself, were it not elsewhere
    os.unlink(os.path.join(store, name))
    put(os.path.join(store, name), victim)
    others = {other: facts(os.path.join(store, other)) for other in FILES if other != name}
    every_command_refuses(store, name, words)
    victim.untouched()
    assert not os.path.exists(victim.name + "-is-not-there")
    for other, before in others.items():
        assert facts(os.path.join(store, other))[1] == before[1], other


for _put, _words in IMPOSTORS:
    for _name in FILES:
        add("%s of %s" % (_put.__name__.replace("_", " "), _name), an_impostor_is_refused, _put, _words, _name)


def an_impostor_of_the_unfinished_database(put, _):
    # Beside a store that is whole it counts for nothing.
    store, victim = new_store(), Victim()
    put(store + "/new.mdb", victim)
    good("store", "verify", store)
    good("store", "rm", store, os.path.basename(text()))
    assert ingest(store).code == 0
    victim.untouched()
    # Alone it is something else than a store.
    place = folder()
    victim = Victim()
    put(place + "/new.mdb", victim)
    one_line(ingest(place), 1, "no store")
    assert os.listdir(place) == ["new.mdb"]
    victim.untouched()
    # In a store that was begun it is in the way of the one that is made: it goes, or the store is refused.
    for victim in (Victim(b""), Victim(), Victim(like=new_store() + "/data.mdb")):
        place = folder()
        put(place + "/new.mdb", victim)
        with open(place + "/writer", "w", encoding="ascii"):
            pass
        result = ingest(place)
        if result.code:
            one_line(result, 1, "new.mdb")
        else:
            good("store", "verify", place)
            assert sorted(os.listdir(place)) == FILES
        victim.untouched()
        assert not os.path.exists(victim.name + "-is-not-there")


for _put, _words in IMPOSTORS:
    add("%s of new.mdb" % _put.__name__.replace("_", " "), an_impostor_of_the_unfinished_database, _put, _words)


# ---- in the place of the directory ----------------------------------------------------------------------------------

@case
def a_link_to_a_store_is_the_users_own_choice():
    store = new_store()
    link = os.path.join(folder(), "link")
    os.symlink(store, link)
    assert good("store", "ls", link).out == good("store", "ls", store).out
    assert ingest(link).code == 0
    assert len(good("store", "ls", store).out.splitlines()) == 3


@case
def a_link_to_something_else():
    victim, place = Victim(), folder()
    os.symlink(victim.name, place + "/file")
    os.symlink(os.path.dirname(victim.name), place + "/folder")
    os.symlink(place + "/nothing", place + "/dangling")
    for name, words in (("file", "is not a directory"), ("folder", "no store"), ("dangling", "no store")):
        every_command_refuses(os.path.join(place, name), words)
    assert os.listdir(os.path.dirname(victim.name)) == ["victim"]
    assert sorted(os.listdir(place)) == ["dangling", "file", "folder"]
    victim.untouched()


@case
def a_copy_goes_over_nothing_that_is_there():
    store, victim, place = new_store(), Victim(), folder()
    os.symlink(victim.name, place + "/link")
    os.symlink(place + "/nothing", place + "/dangling")
    os.mkdir(place + "/empty")
    for name in ("link", "dangling", "empty"):
        one_line(memtx("store", "compact", store, os.path.join(place, name)), 1, "exists")
    assert sorted(os.listdir(place)) == ["dangling", "empty", "link"] and os.listdir(place + "/empty") == []
    victim.untouched()


# ---- swapped while it is opened -------------------------------------------------------------------------------------

def swapped(at, place, target, away, args, hard=False):
    """A command that finds, at a moment of its work (swap.c), `place` to be a link to `target`."""
    if not SWAP:
        skip("not in a build with sanitizers")
    told = os.path.join(folder(), "told")
    env = environment(LD_PRELOAD=SWAP, MEMTX_SWAP_AT=at, MEMTX_SWAP_PLACE=place, MEMTX_SWAP_TARGET=target,
                      MEMTX_SWAP_AWAY=away, MEMTX_SWAP_TOLD=told, **({"MEMTX_SWAP_HARD": "1"} if hard else {}))
    result = memtx(*args, env=env)
    assert result.code in (0, 1), result
    assert os.path.exists(told), "nothing was swapped"
    return result


def commands(store):
    """Of a store: one that reads, one that writes, and one that reads and appends."""
    return (["store", "verify", store], ["store", "rm", store, os.path.basename(text())],
            ["eval", model(), text(), *MEMORY, "--memory", store])


@case
def a_directory_that_becomes_a_link():
    # Not eval, which opens a store again when it is its turn: by then the link is there, and is what the user named.
    for i in range(2):
        store, other = new_store(), new_store()
        before = {name: facts(os.path.join(other, name)) for name in os.listdir(other)}
        content = facts(store + "/data.mdb")[1]
        assert swapped("lmdb", store, other, store + "-away", commands(store)[i]).code == 0
        for name in before:
            assert facts(os.path.join(other, name))[1] == before[name][1], name
        assert sorted(os.listdir(other)) == sorted(before)
        assert (facts(store + "-away/data.mdb")[1] == content) == (i == 0)  # it went on with the one checked


@case
def a_lock_file_that_becomes_a_link():
    # It is the one file that may be missing from a store that is whole, so that another user can be first.
    for i, hard in ((0, False), (0, True), (1, False), (1, True), (2, False)):
        for victim in (Victim(), Victim(b""), Victim(b"\0" * 8192)):
            store = new_store()
            os.unlink(store + "/lock.mdb")
            victim.rest()
            one_line(swapped("lmdb", store + "/lock.mdb", victim.name, "", commands(store)[i], hard), 1, "lock.mdb")
            victim.untouched()


@case
def a_writers_file_that_becomes_a_link():
    for i, hard in ((1, False), (1, True), (2, True)):
        store, victim = new_store(), Victim()
        os.unlink(store + "/writer")
        one_line(swapped("writer", store + "/writer", victim.name, "", commands(store)[i], hard), 1, store)
        victim.untouched()


@case
def an_unfinished_database_that_becomes_a_link():
    for hard in (False, True):
        for victim in (Victim(), Victim(b""), Victim(like=new_store() + "/data.mdb")):
            store = folder()
            one_line(swapped("new", store + "/new.mdb", victim.name, "", commands(store)[2], hard), 1, store, "new.mdb")
            victim.untouched()


@case
def a_copy_whose_directory_becomes_a_link():
    store, place = new_store(), folder(0o777)
    for other in (folder(), new_store()):
        before = {name: facts(os.path.join(other, name)) for name in os.listdir(other)}
        args = ["store", "compact", store, place + "/copy"]
        one_line(swapped("copy", "", other, place + "/away", args), 1, place + "/copy")
        assert sorted(os.listdir(other)) == sorted(before)
        for name in before:
            assert facts(os.path.join(other, name))[1] == before[name][1], name
        shutil.rmtree(place + "/away")
        os.unlink(place + "/copy.swap00")


# ---- modes ----------------------------------------------------------------------------------------------------------

def modes(store):
    return {name: stat.S_IMODE(os.stat(os.path.join(store, name)).st_mode) for name in [""] + os.listdir(store)}


@case
def what_is_made_is_the_owners_alone():
    for mask in (0o000, 0o022, 0o077):
        place = folder(0o777)
        store = place + "/store"
        assert ingest(store, before=lambda mask=mask: os.umask(mask) and None).code == 0
        assert modes(store) == {"": 0o700, **dict.fromkeys(FILES, 0o600)}, (mask, modes(store))
        memtx("store", "compact", store, place + "/copy", before=lambda mask=mask: os.umask(mask) and None)
        good("store", "verify", place + "/copy", before=lambda mask=mask: os.umask(mask) and None)
        of_copy = modes(place + "/copy")
        assert of_copy.pop("") == 0o700 and set(of_copy.values()) == {0o600}, (mask, of_copy)
        assert sorted(os.listdir(place)) == ["copy", "store"]


@case
def a_directory_that_everybody_can_write_into():
    store = new_store()
    os.chmod(store, 0o777)
    before = {name: facts(os.path.join(store, name))[1] for name in FILES}
    for args in commands(store) + (["store", "info", store], ["store", "compact", store, store + "-copy"]):
        one_line(memtx(*args), 2, "every user can write into it")
    assert before == {name: facts(os.path.join(store, name))[1] for name in FILES}
    empty = folder(0o777)
    one_line(ingest(empty), 2, "every user can write into it")
    assert os.listdir(empty) == []


@case
def a_place_that_everybody_can_write_into():
    for mode in (0o777, 0o1777):
        place = folder(mode)
        assert ingest(place + "/store").code == 0
        good("store", "verify", place + "/store")
        assert stat.S_IMODE(os.stat(place).st_mode) == mode


# ---- other users ----------------------------------------------------------------------------------------------------

def as_stranger():
    os.setgroups([])
    os.setgid(STRANGER)
    os.setuid(STRANGER)


def give(*names):
    for name in names:
        os.lchown(name, STRANGER, STRANGER)


def needs_other_users():
    if os.geteuid() != 0:
        skip("needs root to become another user")
    os.chmod(scratch(), 0o755)
    if memtx("gguf", model(), before=as_stranger).code:
        skip("the program is closed to other users")


def stranger_is_refused(store, code, *words):
    for args in commands(store) + (["store", "info", store], ["store", "compact", store, store + "-copy"]):
        one_line(memtx(*args, before=as_stranger), code, *words)


@case
def a_store_of_somebody_else():
    needs_other_users()
    store = new_store()
    content = facts(store + "/data.mdb")[1]
    for mode, words in ((0o700, "denied"), (0o755, "denied"), (0o1777, "")):
        os.chmod(store, mode)
        stranger_is_refused(store, 1, words)
    os.chmod(store, 0o755)
    for name in FILES:  # even where the files are open to all
        os.chmod(os.path.join(store, name), 0o644)
    one_line(memtx("store", "rm", store, os.path.basename(text()), before=as_stranger), 1, "denied")
    assert facts(store + "/data.mdb")[1] == content and sorted(os.listdir(store)) == FILES


@case
def a_directory_of_somebody_else():
    needs_other_users()
    store = new_store()
    content = facts(store + "/data.mdb")[1]
    for name in FILES:
        give(os.path.join(store, name))
    os.chmod(store, 0o755)
    os.lchown(store, STRANGER + 1, STRANGER + 1)  # not root: who could put other files there
    stranger_is_refused(store, 2, "belongs to another user")
    assert facts(store + "/data.mdb")[1] == content


@case
def a_file_of_somebody_else_where_everybody_may_put_some():
    # Its owner may take it away again, and put a link in its place.
    needs_other_users()
    for name in FILES:
        store = new_store()
        os.chmod(store, 0o1777)
        for file in FILES:
            os.chmod(os.path.join(store, file), 0o666)
            give(os.path.join(store, file))
        os.lchown(os.path.join(store, name), STRANGER + 1, STRANGER + 1)
        content = {file: facts(os.path.join(store, file))[1] for file in FILES}
        stranger_is_refused(store, 2, name, "belongs to another user")
        assert content == {file: facts(os.path.join(store, file))[1] for file in FILES}


@case
def a_directory_that_its_owner_cannot_write_into():
    needs_other_users()
    store = new_store()
    give(store, *(os.path.join(store, name) for name in FILES))
    os.chmod(store, 0o500)
    for args in (["store", "info", store], ["store", "ls", store], ["store", "verify", store]):
        good(*args, before=as_stranger)
    assert sorted(os.listdir(store)) == FILES
    os.unlink(store + "/writer")
    good("store", "verify", store, before=as_stranger)
    one_line(memtx("store", "rm", store, os.path.basename(text()), before=as_stranger), 1, "denied")
    assert sorted(os.listdir(store)) == ["data.mdb", "lock.mdb"]


main()
