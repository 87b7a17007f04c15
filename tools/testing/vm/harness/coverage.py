# SPDX-License-Identifier: GPL-2.0
"""Fetches and reads the gcov counters of guests whose kernel counts."""
import base64
import json
import subprocess
import uuid
from collections import Counter
from pathlib import Path

from harness import host

SAVED = host.BUILD / "coverage"
# This script prints each counter file's name and content.
SHOW = """
cd /sys/kernel/debug/gcov{directory} 2> /dev/null || exit 0
for file in drivers/*/*.gcda compat/*.gcda; do
    [ -e "$file" ] || continue
    echo "$file $(base64 -w0 "$file")"
done"""


def fetch(guest, directory: Path, place: Path) -> None:
    """Copies a guest's counters of the modules built in directory into place."""
    counted = guest.run(SHOW.format(directory=directory)).split()
    for name, content in zip(counted[::2], counted[1::2]):
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(content))
        notes = Path(name).with_suffix(".gcno")
        (place / notes).symlink_to(directory / notes)


def save(guest, directory: Path) -> None:
    """Saves a guest's counters for gcov.py."""
    fetch(guest, directory, SAVED / str(uuid.uuid4()))


def read(counters: Path) -> list[dict]:
    """Returns gcov's report of each source file."""
    said = subprocess.run(["gcov", "--json-format", "--stdout", counters], check=False,
                          cwd=counters.parent, capture_output=True, text=True)
    if said.returncode or "mismatch" in said.stderr:
        raise host.SetupError("the modules were rebuilt after the tests: run make check-debug")
    return json.loads(said.stdout)["files"]


def functions_of(place: Path) -> dict[str, Counter]:
    """Returns each function's number of calls, by source file and name."""
    return {counters.stem: Counter({function["name"]: function["execution_count"]
                                    for file in read(counters) if file["file"].endswith(".c")
                                    for function in file["functions"]})
            for counters in sorted(place.rglob("*.gcda"))}
