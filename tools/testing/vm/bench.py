# SPDX-License-Identifier: GPL-2.0
"""Measures the device's costs, in instructions, on each kernel.

Prints the figures of all kernels side by side, and fails if one exceeds its limit.
`make bench` runs it.
"""
import re
import shutil
import sys
from pathlib import Path

from harness import acpi_tables, build, host, kernels
from harness.channel import GuestGone
from harness.guest import Guest, Options
from harness.kernels import Kernel
from harness.tap import failures

FIGURE = re.compile(r"^# (\w+) (\d+) (instructions|bytes|times)$", re.M)


def measure(kernel: Kernel, logs: Path) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Returns a kernel's figures, by name and unit, and the failures."""
    logs.mkdir(parents=True, exist_ok=True)
    table = acpi_tables.compiled(acpi_tables.WRITABLE_DEVICE, logs)
    options = Options(kernel, build.image(kernel), memory=256, icount=True, seconds=600,
                      acpi=acpi_tables.archive(logs, table), append=acpi_tables.KEEP_WRITABLE)
    with Guest(options, logs) as guest:
        guest.load_modules()
        run = guest.start("/test/bench")
        status = run.wait(500)
    wrong = failures(run.output)
    if status and not wrong:
        wrong = [f"bench ended with {status}:", *run.output.splitlines()[-20:]]
    return {(found[0], found[2]): found[1] for found in FIGURE.findall(run.output)}, wrong


def main() -> None:
    names = sys.argv[1:] or list(kernels.FULL)
    build.prepare(names, only="sysgenid")
    results, wrong = {}, []
    with host.locked("bench", host.BUILD / "locks"):
        for name in names:
            host.progress(f"measuring with {name}")
            logs = host.BUILD / f"logs/bench-{name}"
            shutil.rmtree(logs, ignore_errors=True)
            try:
                results[name], complaints = measure(kernels.get(name), logs)
            except (GuestGone, AssertionError) as error:
                raise host.SetupError(str(error)) from None
            wrong += [f"{name}: {complaint}" for complaint in complaints]
    print(f"{'':<36}" + "".join(f"{name:>12}" for name in names))
    for figure, unit in dict.fromkeys(key for found in results.values() for key in found):
        values = "".join(f"{found.get((figure, unit), '-'):>12}" for found in results.values())
        print(f"{figure.replace('_', ' '):<36}{values}  {unit}")
    if wrong:
        raise host.SetupError("\n".join(["the benchmark failed:", *wrong]))


if __name__ == "__main__":
    host.main(main)
