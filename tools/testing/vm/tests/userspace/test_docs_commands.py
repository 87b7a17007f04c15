# SPDX-License-Identifier: GPL-2.0
"""The documentation's console commands print the documented output in a guest.

A block `.. code-block:: console` has commands after "# ", each with its output. "…" in the
output stands for any text. The commands of a page run in one guest, in order.
"""
import re
import textwrap
from pathlib import Path

import pytest
from harness import host, userspace

pytestmark = pytest.mark.kernels("6.1-cloud", "6.12-cloud")

# A program in the background is ready once it is a tracked watcher.
WATCHED = "[ $(cat /sys/class/misc/sysgenid/watchers) = 1 ]"
BLOCK = re.compile(r"^\.\. code-block:: console\n\n((?:[ ]+.*\n|\n)+)", re.M)
PAGES = [path for path in sorted((host.ROOT / "Documentation").rglob("*.rst"))
         if BLOCK.search(path.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[tuple[str, str]]:
    """Returns each command of a page with its output."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^# ", textwrap.dedent(block), flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed.strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_commands_print_documented_output(page, boot, kernel):
    guest = boot(image=userspace.make_image(kernel))
    guest.load_modules()
    for command, printed in commands(page):
        if command.endswith("&"):
            guest.start(command.removesuffix("&"))
            guest.run(f"until {WATCHED}; do sleep 0.02; done")
            continue
        said = guest.run(command).strip()
        pattern = re.escape(printed).replace("…", ".*")
        assert not printed or re.fullmatch(pattern, said, re.S), f"{command}: {said}"
