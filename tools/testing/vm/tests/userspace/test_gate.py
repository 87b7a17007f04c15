# SPDX-License-Identifier: GPL-2.0
"""The host's gate, where the driver cannot do its part."""
import pytest
from test_overseer import TIMEOUT, gated, host_waits, image, kernel  # noqa: F401, fixtures

pytestmark = [pytest.mark.kernels("6.1-cloud"), pytest.mark.debian]


def test_the_host_is_not_let_past_a_reseed_that_fails(gated):  # noqa: F811
    gated.run("insmod /modules/fail_reseed.ko")
    with gated.snapshot() as snap, snap.restore() as clone:
        clone.expect("reseeding the random number generator failed")
        assert clone.run("sysgenid get") == "0\n", "no generation without a reseed"
        status, states = host_waits(clone, 5)
        assert status == 2 and {state["state"] for state in states} == {"pending"}
        for command in ("wait-settled", "wait-watchers"):
            assert clone.status(f"sysgenid {command} --timeout=0.5") == TIMEOUT
        # The driver tries again whenever it looks.
        clone.run("rmmod fail_reseed")
        status, states = host_waits(clone)
        assert status == 0
        assert (states[-1]["generation"], states[-1]["state"]) == (1, "settled")
