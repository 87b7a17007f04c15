# SPDX-License-Identifier: GPL-2.0
"""Runs each test program of tools/testing/selftests in a guest.

Each program is one test here, which fails with the names of its failed tests.
"""

import pytest
from harness import build
from harness.tap import failures

pytestmark = pytest.mark.every_kernel

SKIPPED = 4
PROGRAMS = [pytest.param(program, id=f"{suite.name}/{program}",
                         marks=[pytest.mark.short] if program == "abi_test" else [])
            for suite in build.suites() for program in build.tests(suite)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_selftest(program, boot):
    guest = boot(smp=2)
    if guest.status(f"[ -e /test/{program} ]"):
        pytest.skip("there is no such program for this architecture")
    guest.load_modules()
    run = guest.start(f"cd /test && ./{program}")
    status = run.wait(180)
    if status == SKIPPED:
        pytest.skip(run.output)
    wrong = failures(run.output)
    if status and not wrong:
        wrong = [f"it ended with {status}:", *run.output.splitlines()[-20:]]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
