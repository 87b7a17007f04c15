# SPDX-License-Identifier: GPL-2.0
"""The draws of many programs in two clones: one pair of clones in each state.

`make check-programs` draws in 20 pairs, for Documentation/programs.rst.
"""
import re

import pytest
import programs
from harness import debian, host, packages


@pytest.mark.kernels("6.1-cloud")
@pytest.mark.debian
def test_fixed_programs_never_repeat_draws(kernel, logs, record_property):
    packages.install(packages.NEEDED + debian.FOR_ROOT)
    counts = programs.measure(kernel, 1, logs)
    record_property("repeated draws", "\n" + programs.table(counts))
    assert not programs.wrong(counts), programs.table(counts)


def test_documentation_is_as_generated():
    """The counts are those of the last `make check-programs`; the rest is of ROWS."""
    text = programs.TABLE.read_text(encoding="utf-8")
    rows = re.findall(r"^(\S.*?)  +(\d+)  +(\d+)  +(\d+)  ", text, re.M)
    assert [row[0] for row in rows] == list(programs.ROWS), f"run make check-programs in {host.ROOT}"
    counts = {state: {row[0]: int(row[column]) for row in rows}
              for column, state in enumerate(programs.STATES, 1)}
    assert f"pairs of clones: {programs.PAIRS}" in text
    assert f"\n{programs.table(counts)}\n" in text and f"\n{programs.advice()}\n" in text
    assert not programs.wrong(counts)
