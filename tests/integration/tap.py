"""TAP for the integration tests: functions that are registered with @case, run in order, one line each.

    from tap import case, skip, main

    @case
    def what_is_checked():          # the name with blanks is the line's text
        assert ...                  # an exception is a failure; its text goes out as comment lines

    main()

skip(why) inside a case reports it as skipped.
"""
import sys
import traceback

cases = []


class Skipped(Exception):
    pass


def case(function):
    cases.append((function.__name__.replace("_", " "), function))
    return function


def add(name, function, *args):
    """A case by hand: for tables, where every row is a case of its own."""
    cases.append((name, lambda: function(*args)))


def skip(why):
    raise Skipped(why)


def main():
    only = sys.argv[1:]  # words of a name: run only what has one of them
    chosen = [c for c in cases if not only or any(word in c[0] for word in only)]
    print("1..%d" % len(chosen), flush=True)
    failed = 0
    for i, (name, function) in enumerate(chosen):
        line = "%d - %s" % (i + 1, name.replace("#", "number "))
        try:
            function()
            print("ok " + line, flush=True)
        except Skipped as why:
            print("ok %s # SKIP %s" % (line, why), flush=True)
        except Exception:  # whatever it is, the next case still runs
            failed += 1
            print("not ok " + line)
            print("\n".join("# " + text for text in traceback.format_exc().splitlines()), flush=True)
    sys.exit(1 if failed else 0)
