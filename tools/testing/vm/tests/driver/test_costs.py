# SPDX-License-Identifier: GPL-2.0
"""The device's costs, in instructions, which are the same on any machine."""
import pytest
import bench
from harness import kernels


@pytest.mark.kernels(*kernels.STOCK)
def test_costs_stay_within_limits(kernel, logs):
    _, wrong = bench.measure(kernel, logs)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
