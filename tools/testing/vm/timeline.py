# SPDX-License-Identifier: GPL-2.0
"""Measures the time of each event in a guest after its restore.

With icount, a nanosecond is an instruction, so that the times are the same on any
machine. Prints the times for each kernel. `make timeline` runs it.
"""
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import build, host, kernels
from harness.channel import GuestGone, Program
from harness.guest import Guest, Options, new_guid
from harness.kernels import Kernel

RESTORES = 5
# The interrupt of ACPI: its handler, or since Linux 6.8 what only wakes the handler's thread.
STARTS = ("acpi_irq", "irq_default_primary_handler")
TRACING = "/sys/kernel/tracing"
# The kernel's trace has times in whole µs.
RESOLUTION = 1
# The function that the kernel's own driver calls, and the one that notifies other drivers.
NOTIFICATION = ("add_vmfork_randomness", "blocking_notifier_call_chain")
# The callers of crng_reseed() for the reseeds that every system does from time to time.
PERIODIC = "crng_make_state|process_one_work"
TRACED = re.compile(rf"^ *(\S+) +\[\d+\] \S+ +(\d+\.\d+): (\w+) <-(?!{PERIODIC})", re.M)
# Traces the kernel's functions with CLOCK_MONOTONIC, which the programs print, too.
TRACE = f"""
mount -t tracefs tracefs {TRACING} && cd {TRACING} && echo mono > trace_clock
echo {" ".join(STARTS)} crng_reseed > set_ftrace_filter
for function in sysgenid_bump_generation {" ".join(NOTIFICATION)}; do
    ! grep -q "^$function" available_filter_functions || echo $function >> set_ftrace_filter
done
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
    "notified": "the kernel's own driver notifies other drivers",
}
# The step that a program prints, by its argument.
PRINTS = {"look": "counter", "spin": "restored", "poll": "poll", "uevent": "uevent"}
SLEEPERS = ("poll", "uevent")
# The number of programs that loop on each CPU of a busy guest.
LOOPS = 4


@dataclass(frozen=True)
class Load:
    """A guest's CPUs, and what runs on them at the restore."""
    cpus: int
    busy: bool

    def loops(self, way: str) -> list[str]:
        """Returns the arguments of the programs that loop.

        In an idle guest, one on each CPU runs in place of the kernel's idle loop.
        """
        return [way] * LOOPS * self.cpus if self.busy else [f"{way} idle"] * self.cpus

    def __str__(self) -> str:
        return f"{self.cpus} CPU{'s' * (self.cpus > 1)}, {'busy' if self.busy else 'idle'}"


def start(guest: Guest, arguments: list[str]) -> list[Program]:
    """Starts the programs; returns once all watch, and those that wait sleep."""
    programs = [guest.start(f"timeline {argument}") for argument in arguments]
    for program, argument in zip(programs, arguments):
        program.wait_for("^watching")
        if argument in SLEEPERS:
            guest.run("for pid in $(pidof timeline); do "
                      f"! grep -q {argument} /proc/$pid/cmdline || "
                      "until grep -q sleeping /proc/$pid/status; do :; done; done")
    return programs


def traced(trace: str, oldest: float) -> dict[str, float]:
    """Returns when each step was first traced after the restore, in µs.

    The timer tick of a CPU that does not take the interrupt can detect the new GUID before.
    """
    calls = [(float(time) * 1e6, task, function)
             for task, time, function in TRACED.findall(trace)]
    calls = [call for call in calls if call[0] >= oldest - RESOLUTION]
    times = {"start": min(time for time, _, function in calls if function in STARTS)}
    notifier = None
    for time, task, function in calls:
        times.setdefault(function, time)
        if function == NOTIFICATION[0]:
            notifier = task
        elif function == NOTIFICATION[1] and task == notifier:
            times.setdefault("notified", time)
    return times


def times_of(clone: Guest, programs: list[Program], arguments: list[str]) -> dict[str, float]:
    """Returns each step's time in µs after the first one."""
    printed: dict[str, list[float]] = {}
    for program, argument in zip(programs, arguments):
        copy = clone.program(program)
        copy.wait_for(rf"^{PRINTS[argument.split()[0]]} \d+$", 60)
        for word, time in re.findall(r"^(\w+) (\d+)$", copy.output, re.M):
            printed.setdefault(word, []).append(int(time) / 1000)
    restored = max(printed.pop("restored"))
    times = {word: min(found) for word, found in printed.items()}
    times |= traced(clone.run(f"cat {TRACING}/trace"), restored)
    found = {step: times[step] for step in STEPS if step in times}
    return {step: time - min(found.values()) for step, time in found.items()}


def restores(kernel: Kernel, logs: Path, modules: bool, *, number: int = RESTORES,
             load: Load = Load(1, False), sleepers: tuple[str, ...] = SLEEPERS,
             ) -> Iterator[dict[str, float]]:
    """Yields the times of each restore, with or without the modules.

    Each restore continues from a snapshot of the clone before, so that each finds the
    guest at another moment of its work.
    """
    options = Options(kernel, build.image(kernel), guid=new_guid(), smp=load.cpus, icount=True,
                      append="loglevel=5", seconds=600)
    guest = Guest(options, logs)
    try:
        if modules:
            guest.load_modules()
        guest.run(TRACE)
        arguments = [*sleepers, *load.loops("look")] if modules else load.loops("spin")
        for _ in range(number):
            programs = start(guest, arguments)
            with guest.snapshot() as snap:
                guest = snap.restore()
            yield times_of(guest, programs, arguments)
            guest.run(f"echo > {TRACING}/trace")
        guest.close()
    finally:
        guest.kill()


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
