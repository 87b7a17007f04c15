# SPDX-License-Identifier: GPL-2.0
"""Fuzzes /dev/sysgenid in a guest that is restored repeatedly meanwhile.

Run as a program, it fuzzes with one random seed after another, until it is interrupted
or finds a bug. SEED and CALLS in the environment repeat a run.
"""
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from harness import build, coverage, host, kernels, packages, scan
from harness import built_kernels  # noqa: F401, makes the kernel known
from harness.channel import GuestGone
from harness.guest import Guest, Options, new_guid

KERNEL = "6.12-debug"
CALLS = 1_000_000
# Two CPUs race with each other. The guest panics at the kernel's first report.
OPTIONS = {"smp": 2, "append": "oops=panic panic_on_warn=1"}
# The number of calls between restores; at least ten restores in all.
EVERY = 100_000
REPORT = r"^\d+ calls, .*\n"
SECONDS = 120
# The functions that no call of the device reaches, by what reaches them.
UNREACHED = {
    "loading the modules": (
        "sysgenid_init", "compat_init", "is_bound", "find_taken_acpi", "observe_acpi",
        "vmfork_open", "vmfork_open_urandom"),
    "unloading them": ("sysgenid_exit", "compat_exit", "vmfork_close", "vmfork_flush", "look_free"),
    "binding to the device": (
        "vmgenid_probe", "vmgenid_claim", "vmgenid_map", "vmgenid_get_addr", "vmgenid_parse_addr",
        "vmgenid_check_addr", "vmgenid_is_memory", "vmgenid_try_reseed", "vmgenid_get_backend",
        "sysgenid_register_backend", "vmgenid_start_looks", "devm_vmfork_look",
        "look_has_event_device", "look_register", "look_set_filter", "vmgenid_add_acpi_handlers",
        "vmgenid_install_notify", "vmgenid_request_irq", "vmgenid_is_shared"),
    "being unbound from it": (
        "vmgenid_remove_notify", "look_stop", "look_unregister", "vmgenid_stop_timer",
        "vmgenid_put_backend", "sysgenid_unregister_backend", "vmgenid_unclaim"),
    "a device without ACPI": ("vmgenid_get_reg", "vmgenid_add_of_handler"),
    "hardware-reduced ACPI": ("look_announced",),
    "a bug of ftrace": ("look_at_nothing",),
    "the parameter of the module": ("look_set", "look_get"),
    "the end of suspend": ("vmgenid_resume", "vmgenid_assume_changed", "vmgenid_thaw"),
    "hibernation": ("vmgenid_freeze", "vmgenid_restore"),
    "another module": ("sysgenid_register_notifier", "sysgenid_unregister_notifier"),
}
# These functions are called only if a look or a system call precedes the interrupt.
SOMETIMES = {"vmgenid_check_settled", "vmgenid_is_settled", "vmgenid_start_timer",
             "vmgenid_timer_fn"}


def count_calls(guest: Guest) -> dict[str, Counter]:
    """Returns the modules' functions with their number of calls, from any context."""
    with tempfile.TemporaryDirectory() as scratch:
        coverage.fetch(guest, build.directory(guest.options.kernel), Path(scratch))
        return coverage.functions_of(Path(scratch))


def reached(before: dict[str, Counter], after: dict[str, Counter]) -> dict[str, dict[str, int]]:
    """Returns each function's number of calls between the two counts."""
    return {source: {name: count - before[source][name] for name, count in calls.items()}
            for source, calls in after.items()}


def table(functions: dict[str, dict[str, int]]) -> str:
    """Formats the called functions with their counts, and the others with the reason."""
    why = {name: reason for reason, names in UNREACHED.items() for name in names}
    why.update(dict.fromkeys(SOMETIMES, "coming before the interrupt"))
    lines = []
    for source, calls in sorted(functions.items()):
        called = [f"{name:<32}{count:>9}" for name, count in calls.items() if count]
        half = (len(called) + 1) // 2
        lines.append(f"{source}.c: {len(called)} of {len(calls)} functions reached, this often:")
        lines += [f"  {left}    {right}".rstrip()
                  for left, right in zip(called[:half], [*called[half:], ""])]
        lines += [f"  {name:<32}     none    takes {why.get(name, 'unknown')}"
                  for name, count in calls.items() if not count]
    return "\n".join(lines)


def check_reached(functions: dict[str, dict[str, int]]) -> None:
    """Checks that UNREACHED lists exactly the functions that were not reached."""
    never = {name for calls in functions.values() for name, count in calls.items() if not count}
    listed = {name for names in UNREACHED.values() for name in names}
    never -= SOMETIMES
    assert never == listed, (f"not reached, and not in UNREACHED: {sorted(never - listed)}; "
                             f"in UNREACHED, but reached or removed: {sorted(listed - never)}")


def fuzz(guest: Guest, seed: int, calls: int,
         report: Callable = lambda line: None) -> dict[str, dict[str, int]]:
    """Makes at least that many calls; returns the number of calls of each function."""
    guest.load_modules()
    before = count_calls(guest)
    every = min(max(calls // 10, 1), EVERY)
    program = guest.start(f"fuzz_device {seed} {calls} {every}")
    for number in range(1, calls // every):
        program.wait_for(f"({REPORT}){{{number}}}", SECONDS)
        report(program.output.splitlines()[-1])
        with guest.snapshot() as snap:
            guest = snap.restore()
        program = guest.program(program)
    program.wait_for("^done$", SECONDS)
    report(program.output.splitlines()[-2])
    functions = reached(before, count_calls(guest))
    guest.unload_modules()
    guest.close()
    return functions


def once(seed: int, calls: int) -> None:
    logs = host.BUILD / "logs/fuzz"
    shutil.rmtree(logs, ignore_errors=True)
    kernel = kernels.get(KERNEL)
    guest = Guest(Options(kernel, build.image(kernel), guid=new_guid(), **OPTIONS), logs)
    try:
        print(table(fuzz(guest, seed, calls,
                         lambda line: print(f"seed {seed}: {line}", flush=True))))
    except GuestGone as gone:
        last = [*guest.family()][-1]
        said = [*scan.findings(last.log(), ["cut here"]), "no report"][0]
        raise AssertionError(f"{gone}\n{last.console} has: {said}") from None
    finally:
        for member in guest.family():
            member.kill()
    shutil.rmtree(logs)


def number_from(name: str) -> int | None:
    """Returns a number from the environment, or None."""
    given = os.environ.get(name)
    if given and not given.isdecimal():
        raise host.SetupError(f"{name}={given} is not a number")
    return int(given) if given else None


def main() -> None:
    seed, calls = number_from("SEED"), number_from("CALLS") or CALLS
    packages.install()
    build.prepare([KERNEL], only="debug")
    with host.locked("fuzz", host.BUILD / "locks"):
        while True:
            trying = random.getrandbits(32) if seed is None else seed
            try:
                once(trying, calls)
            except AssertionError as found:
                raise host.SetupError(f"{found}\nto repeat it: "
                                      f"make fuzz SEED={trying} CALLS={calls}") from None
            if seed is not None:
                return


if __name__ == "__main__":
    host.main(main)
