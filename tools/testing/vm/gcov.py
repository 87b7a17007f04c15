# SPDX-License-Identifier: GPL-2.0
"""The drivers' lines that the tests have run, as counted by gcov in the guests.

Every guest whose kernel counts saves its counters in build/coverage/. Run as a program,
it adds them up, and fails on a line that was not run and has no reason in NOT_RUN.
"""
import sys
from collections import Counter
from pathlib import Path

from harness import coverage, host

ENOUGH = 0.95
# The lines that no test runs in a kernel that counts, and the reason. A key is part of
# "FUNCTION: LINE".
NO_REFUSAL = "the kernel refuses this to no caller with all capabilities"
HIBERNATION = "hibernation: test_hibernation.py, with stock kernels"
NOT_RUN: dict[str, dict[str, str]] = {
    "compat/look.c": {
        "default:": "for errors that ftrace does not return",
        "ftrace can't trace the functions": "likewise",
    },
    "compat/module.c": {},
    "compat/random.c": {
        "fput(file);": "opening the random device can't fail",
        "file = ERR_PTR(ret);": "likewise",
    },
    "drivers/misc/sysgenid.c": {},
    "drivers/virt/vmgenid.c": {
        "dev_err_once(vmgenid->dev": NO_REFUSAL,
        "vmgenid_check_locked: return true;": NO_REFUSAL,
        "return dev_err_probe(vmgenid->dev, ret,": NO_REFUSAL,
        "vmgenid_freeze: ": HIBERNATION,
        "vmgenid_restore: ": HIBERNATION,
    },
}


def lines_of(counters: Path) -> Counter:
    """Returns each line's count, by (file, number, function); 0: not run."""
    lines: Counter = Counter()
    for file in coverage.read(counters):
        name = next((name for name in NOT_RUN if file["file"].endswith(f"/{name}")), None)
        for line in file["lines"] if name else ():
            lines[name, line["line_number"], line.get("function_name", "")] += line["count"]
    return lines


def reason(name: str, function: str, text: str) -> str | None:
    return next((why for what, why in NOT_RUN[name].items()
                 if what in f"{function}: {text}"), None)


def report(lines: Counter) -> bool:
    """Prints the coverage; returns whether it is ENOUGH, with a reason for each missed line."""
    good = True
    for name in NOT_RUN:
        run = {number for (file, number, _), count in lines.items() if file == name and count}
        missing = {number: function for (file, number, function) in lines
                   if file == name and number not in run}
        part = len(run) / (len(run) + len(missing))
        print(f"{name:<28}{len(run):>4} of {len(run) + len(missing):>4} lines run  {part:>6.1%}")
        good &= part >= ENOUGH
        source = (host.ROOT / name).read_text(encoding="utf-8").splitlines()
        for number, function in sorted(missing.items()):
            text = source[number - 1].strip()
            why = reason(name, function, text)
            print(f"  {number:>4}  {text:<56.56}  {why or 'not run: write a test'}")
            good &= why is not None
    return good


def main() -> None:
    saved = sorted(coverage.SAVED.rglob("*.gcda"))
    if not saved:
        raise host.SetupError("no guest has counted lines yet: run make check-debug")
    lines: Counter = Counter()
    for counters in saved:
        lines.update(lines_of(counters))
    if not report(lines):
        sys.exit("error: the tests do not run enough of the drivers")


if __name__ == "__main__":
    host.main(main)
