# SPDX-License-Identifier: GPL-2.0
"""Documentation/virt/hosts.rst: the tests that it names exist."""
import re
from pathlib import Path

from harness import host

PAGE = host.ROOT / "Documentation/virt/hosts.rst"
TESTS = Path(__file__).parents[1]


def sections() -> dict[str, str]:
    """The page's sections, by their titles."""
    parts = re.split(r"^(\S.*)\n={3,}$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_test_in_the_table_is_in_a_file_that_its_section_names():
    for title, text in sections().items():
        files = [TESTS / name for name in set(re.findall(r"``(\w+/test_\w+\.py)``", text))]
        known = {name for file in files
                 for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.M)}
        assert set(re.findall(r"``(test_\w+)``", text)) <= known, title
