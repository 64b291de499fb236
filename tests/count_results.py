#!/usr/bin/env python3
"""Counts test cases in the JSON logs of `meson test`.

    count_results.py BUILD/meson-logs/NAME.json...      one log for each run (meson test --logbase NAME)

Prints what failed, then as its last line `N passed, N failed` (and `, N skipped` where any); exit 1 when a case failed
or none passed or failed.

The cases are counted from each program's own TAP lines, and the program's verdict from meson: its testlog.junit.xml
(1.0.1) shows a program that timed out, ended with an error or printed fewer cases than planned without any failure.
Such a program is one failure more than its `not ok` lines say; a program without TAP is one case.
"""
import json
import re
import sys

POINT = re.compile(r"(not )?ok\b[ \t]*(\d*)[ \t]*(?:- )?([^#\n]*)(?:#[ \t]*(\S*))?")
PLAN = re.compile(r"1\.\.(\d+)")
GOOD = ("OK", "SKIP", "EXPECTEDFAIL")


def count(run):
    """(passed, names of the failed, skipped) of one program."""
    passed, failed, skipped, plan = 0, [], 0, None
    out = run.get("stdout") or ""
    for line in out.splitlines():
        point, planned = POINT.match(line), PLAN.match(line)
        if planned:
            plan = int(planned.group(1))
        elif point:
            bad, number, what, directive = point.groups()
            if (directive or "").upper()[:4] in ("SKIP", "TODO"):
                skipped += 1
            elif bad:
                failed.append(what.strip() or number)
            else:
                passed += 1
    result, code = run["result"], run.get("returncode", 0)
    seen = passed + len(failed) + skipped
    if result not in GOOD:
        cut = plan is not None and plan != seen
        if cut or code < 0 or result == "TIMEOUT" or not failed:
            why = "timed out" if result == "TIMEOUT" else "killed by signal %d" % -code if code < 0 else \
                "%d of %d cases" % (seen, plan) if cut else "exit status %d" % code
            failed.append("the program itself: " + why)
    elif seen == 0:
        if result != "SKIP":
            passed = 1
        elif plan is None and code == 0:  # said nothing at all: meson calls that skipped
            failed.append("the program itself: no case ran")
        else:
            skipped = 1
    return passed, failed, skipped


def main(paths):
    passed = failed = skipped = 0
    for path in paths:
        try:
            with open(path, encoding="utf-8") as f:
                runs = [json.loads(line) for line in f if line.strip()]
        except (OSError, ValueError) as e:
            print("FAIL %s: no results: %s" % (path, e))
            failed += 1
            continue
        for run in runs:
            p, names, s = count(run)
            passed, failed, skipped = passed + p, failed + len(names), skipped + s
            for name in names:
                print("FAIL %s: %s" % (run["name"], name))
    if passed + failed == 0:
        print("FAIL no test ran")
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: count_results.py BUILD/meson-logs/NAME.json...")
    sys.exit(main(sys.argv[1:]))
