# SPDX-License-Identifier: GPL-2.0
"""Measures the time of each event in a guest after its restore.

With icount, a nanosecond is an instruction, so that the times are the same on any
machine. Prints the times for each kernel. `make timeline` runs it.
"""
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from harness import build, host, kernels
from harness.channel import GuestGone, Program
from harness.guest import Guest, Options, new_guid
from harness.kernels import Kernel

RESTORES = 5
# The interrupt of ACPI: its handler, or since Linux 6.8 what only wakes the handler's thread.
STARTS = ("acpi_irq", "irq_default_primary_handler")
TRACING = "/sys/kernel/tracing"
# Traces the kernel's functions with CLOCK_MONOTONIC, which the programs print, too.
TRACE = f"""
mount -t tracefs tracefs {TRACING} && cd {TRACING} && echo mono > trace_clock
echo {" ".join(STARTS)} crng_reseed > set_ftrace_filter
grep -q sysgenid_bump_generation available_filter_functions &&
    echo sysgenid_bump_generation >> set_ftrace_filter
echo function > current_tracer
"""
# The kernel's functions and the words of guest/timeline.c, in the order of a restore.
STEPS = {
    "start": "the interrupt is taken",
    "crng_reseed": "the random number generator is reseeded",
    "sysgenid_bump_generation": "the new generation is published",
    "counter": "a busy program sees it in the mapped counter",
    "poll": "a program that slept in poll() runs",
    "uevent": "a program that waited for the uevent runs",
}
# The last word that the program prints, by its argument.
LAST = {"look": "counter", "spin": "restored", "poll": "poll", "uevent": "uevent"}


def start(guest: Guest, way: str) -> Program:
    """Starts the program; with "poll" and "uevent", returns once it sleeps."""
    program = guest.start(f"timeline {way}")
    program.wait_for("^watching")
    if way in ("poll", "uevent"):
        guest.run("for pid in $(pidof timeline); do "
                  "until grep -q sleeping /proc/$pid/status; do :; done; done")
    return program


def times_of(clone: Guest, programs: dict[str, Program]) -> dict[str, float]:
    """Returns each step's time in µs after the clone has taken the interrupt."""
    times = {}
    for way, program in programs.items():
        copy = clone.program(program)
        copy.wait_for(rf"^{LAST[way]} \d+$")
        times |= {word: int(time) / 1000
                  for word, time in re.findall(r"^(\w+) (\d+)$", copy.output, re.M)}
    restored = times.pop("restored")
    trace = [(float(time) * 1e6, function) for time, function in re.findall(
        r" (\d+\.\d+): (\w+) <-", clone.run(f"cat {TRACING}/trace"))]
    times["start"] = min(time for time, function in trace
                         if function in STARTS and time >= restored)
    for time, function in reversed(trace):
        if time >= times["start"]:
            times[function] = time
    return {step: times[step] - times["start"] for step in STEPS if step in times}


def restores(kernel: Kernel, logs: Path, modules: bool) -> Iterator[dict[str, float]]:
    """Yields the times of each restore, with or without the modules."""
    options = Options(kernel, build.image(kernel), guid=new_guid(), icount=True)
    with Guest(options, logs) as guest:
        if modules:
            guest.load_modules()
        guest.run(TRACE)
        ways = ("poll", "uevent", "look") if modules else ("spin",)
        programs = {way: start(guest, way) for way in ways}
        with guest.snapshot() as snap:
            for _ in range(RESTORES):
                with snap.restore() as clone:
                    yield times_of(clone, programs)


def show(title: str, found: list[dict[str, float]]) -> None:
    print(title)
    for step, text in STEPS.items():
        times = [times[step] for times in found if step in times]
        if times:
            most = f" to {max(times):.0f}" if max(times) - min(times) >= 1 else ""
            print(f"  {text:<58}{min(times):>6.0f}{most}")


def main() -> None:
    names = sys.argv[1:] or list(kernels.FULL)
    build.prepare(names, only="vmgenid")
    print(f"µs after the interrupt, in {RESTORES} restores; 1 µs is 1000 instructions")
    with host.locked("timeline", host.BUILD / "locks"):
        for name in names:
            host.progress(f"measuring with {name}")
            kernel, logs = kernels.get(name), host.BUILD / f"logs/timeline-{name}"
            shutil.rmtree(logs, ignore_errors=True)
            try:
                show(f"{name}, with the modules:", list(restores(kernel, logs / "with", True)))
                if kernel.setting("VMGENID"):
                    show(f"{name}, without them, by the kernel's own driver:",
                         list(restores(kernel, logs / "without", False)))
            except (GuestGone, AssertionError) as error:
                raise host.SetupError(str(error)) from None


if __name__ == "__main__":
    host.main(main)
