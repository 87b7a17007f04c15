# SPDX-License-Identifier: GPL-2.0
"""The device's costs, in instructions, which are the same on any machine."""
import json

import pytest
import bench
from harness import kernels


@pytest.mark.kernels(*kernels.STOCK)
def test_costs_stay_within_limits(kernel, logs):
    figures, wrong = bench.measure(kernel, logs)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
    known = json.loads(bench.REFERENCE.read_text(encoding="utf-8"))["figures"].get(kernel.name)
    assert not known or figures.keys() == known.keys(), (
        "bench-reference.json has other figures: update it, see RELEASE.md")
