# SPDX-License-Identifier: GPL-2.0
"""A million random calls of the device, while the guest is restored.

A report of the kernel fails the test, like any test with a guest.
"""
import pytest
import fuzz

pytestmark = pytest.mark.kernels(fuzz.KERNEL)


@pytest.mark.timeout(1800)
def test_random_calls_keep_their_promises(boot, record_property):
    functions = fuzz.fuzz(boot(**fuzz.OPTIONS), seed=1, calls=fuzz.CALLS)
    record_property("functions", "\n" + fuzz.table(functions))
    fuzz.check_reached(functions)
