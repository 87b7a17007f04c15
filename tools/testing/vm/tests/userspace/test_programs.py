# SPDX-License-Identifier: GPL-2.0
"""The draws of many programs in two clones: one pair of clones in each state.

`make check-programs` draws in 20 pairs, for Documentation/programs.rst.
"""
import re

import pytest
import programs
from harness import debian, host, packages

pytestmark = [pytest.mark.kernels("6.1-cloud"), pytest.mark.debian]


def test_fixed_programs_never_repeat_draws(kernel, logs, record_property):
    packages.install(packages.NEEDED + debian.FOR_ROOT)
    counts = programs.measure(kernel, 1, logs)
    record_property("repeated draws", "\n" + programs.table(counts))
    assert not programs.wrong(counts), programs.table(counts)


def test_documentation_has_every_program():
    text = programs.TABLE.read_text(encoding="utf-8")
    names = re.findall(r"^(\S.*?)  +\d+  +\d+  +\d+  ", text, re.M)
    assert names == list(programs.ROWS), f"run make check-programs in {host.ROOT}"
