# SPDX-License-Identifier: GPL-2.0
"""Which lines of the drivers the tests have run, as gcov counts in the guests.

Every guest whose kernel counts leaves its counters in build/coverage/. As a
program: adds them up, and fails if a line was not run and has no reason here.
"""
import base64
import json
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import host

SAVED = host.BUILD / "coverage"
ENOUGH = 0.95
# Prints the name of each file of counters, and its content.
SHOW = """
cd /sys/kernel/debug/gcov{folder} 2> /dev/null || exit 0
for file in drivers/*/*.gcda compat/*.gcda; do
    [ -e "$file" ] || continue
    echo "$file $(base64 -w0 "$file")"
done"""
# What no test runs in a kernel that counts, and why: functions, or what is in a line.
NO_REFUSAL = "the kernel refuses this to no one with all capabilities"
HIBERNATION = "hibernation: test_hibernation.py, with stock kernels"
NOT_RUN: dict[str, dict[str, str]] = {
    "compat/look.c": {
        "default:": "for errors that ftrace does not give",
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
        "return true;": NO_REFUSAL,
        "return dev_err_probe(vmgenid->dev, ret,": NO_REFUSAL,
        "vmgenid_freeze": HIBERNATION,
        "vmgenid_restore": HIBERNATION,
    },
}


def fetch(guest, folder: Path, place: Path) -> None:
    """Puts there what a guest has counted in the modules that were built in the folder."""
    counted = guest.run(SHOW.format(folder=folder)).split()
    for name, content in zip(counted[::2], counted[1::2]):
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(content))
        notes = Path(name).with_suffix(".gcno")
        (place / notes).symlink_to(folder / notes)


def save(guest, folder: Path) -> None:
    """Keeps it for the report."""
    fetch(guest, folder, SAVED / str(uuid.uuid4()))


def told_by(counters: Path) -> list[dict]:
    """What gcov has to say of each source file."""
    said = subprocess.run(["gcov", "--json-format", "--stdout", counters], check=False,
                          cwd=counters.parent, capture_output=True, text=True)
    if said.returncode or "mismatch" in said.stderr:
        raise host.Trouble("the modules were built anew after the tests: make check-debug")
    return json.loads(said.stdout)["files"]


def functions_of(place: Path) -> dict[str, Counter]:
    """How often each function was called, by source file and its name."""
    return {counters.stem: Counter({function["name"]: function["execution_count"]
                                    for file in told_by(counters) if file["file"].endswith(".c")
                                    for function in file["functions"]})
            for counters in sorted(place.rglob("*.gcda"))}


def lines_of(counters: Path) -> Counter:
    """How often each line was run, by (file, number, function); 0: it was not."""
    lines: Counter = Counter()
    for file in told_by(counters):
        name = next((name for name in NOT_RUN if file["file"].endswith(f"/{name}")), None)
        for line in file["lines"] if name else ():
            lines[name, line["line_number"], line.get("function_name", "")] += line["count"]
    return lines


def reason(name: str, function: str, text: str) -> str | None:
    return next((why for what, why in NOT_RUN[name].items()
                 if what == function or what in text), None)


def report(lines: Counter) -> bool:
    """Prints it; false if too few lines were run, or one without a reason was not."""
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
            print(f"  {number:>4}  {text:<56.56}  {why or 'no reason is known: run it'}")
            good &= why is not None
    return good


def main() -> None:
    saved = sorted(SAVED.rglob("*.gcda"))
    if not saved:
        raise host.Trouble("no guest has counted lines yet: make check-debug")
    lines: Counter = Counter()
    for counters in saved:
        lines.update(lines_of(counters))
    if not report(lines):
        sys.exit("error: the tests have to run more of the drivers")


if __name__ == "__main__":
    host.main(main)
