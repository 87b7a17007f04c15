# SPDX-License-Identifier: GPL-2.0
"""What the device costs, in instructions, which are the same on any machine."""
import pytest
import bench
from harness import kernels


@pytest.mark.kernels(*kernels.STOCK)
def test_calls_bumps_and_many_watchers_cost_what_is_promised(kernel, logs):
    _, wrong = bench.measure(kernel, logs)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
