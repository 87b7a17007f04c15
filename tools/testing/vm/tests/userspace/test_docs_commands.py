# SPDX-License-Identifier: GPL-2.0
"""The commands that the documentation shows as a console print in a guest what it says.

A block `.. code-block:: console` has commands behind "# ", each with what it prints;
"…" stands for what varies. Those of one page run in one guest, one after the other.
"""
import re
import textwrap
from pathlib import Path

import pytest
from harness import host, userspace

pytestmark = pytest.mark.kernels("6.1-cloud", "6.12-cloud")

BLOCK = re.compile(r"^\.\. code-block:: console\n\n((?:[ ]+.*\n|\n)+)", re.M)
PAGES = [path for path in sorted((host.ROOT / "Documentation").rglob("*.rst"))
         if BLOCK.search(path.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[tuple[str, str]]:
    """Each command of a page, and what it prints."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^# ", textwrap.dedent(block), flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed.strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_documentation_print_what_it_says(page, boot, kernel):
    guest = boot(image=userspace.make_image(kernel))
    guest.load_modules()
    for command, printed in commands(page):
        if command.endswith("&"):
            guest.start(command.removesuffix("&"))
            continue
        said = guest.run(command).strip()
        pattern = re.escape(printed).replace("…", ".*")
        assert not printed or re.fullmatch(pattern, said, re.S), f"{command}: {said}"
