# SPDX-License-Identifier: GPL-2.0
"""The requirements of the hosts' tests on this machine.

Without them, a test is skipped, and named in red at the end of the run. Under CI
(CI=true) it fails instead, so that no test is skipped unnoticed.
"""
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def missing(why: str) -> NoReturn:
    """Skips the test, or fails it under CI. why: one sentence with the remedy."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{why} (an error, as CI=true)", pytrace=False)
    pytest.skip(why)


def programs(*names: str) -> None:
    """The test needs these programs, which make check-hosts installs."""
    for name in names:
        if not shutil.which(name):
            missing(f"{name} is not installed: run `make check-hosts`, which installs it")


def space(directory: Path, mebibytes: int) -> None:
    """The test writes as much there."""
    free = shutil.disk_usage(directory).free >> 20
    if free < mebibytes:
        missing(f"{directory} has {free} MiB free, and the test writes {mebibytes} MiB: "
                "free some space there")
