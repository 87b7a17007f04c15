# SPDX-License-Identifier: GPL-2.0
"""Random numbers drawn after the restore, on every CPU, in clones of one snapshot.

Only the GUID can make these clones' numbers differ, as the guests have neither RDRAND
nor RDSEED. With the event masked, only the driver's looks can detect the new GUID. That
is the case of a host that does not schedule the interrupted CPU.
"""
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from harness import kernels
from harness.acpi_events import load_modules, mask_events
from harness.channel import Program
from harness.guest import BACKEND, Guest, Snapshot, new_guid
from harness.stale import FEWER_RESTORES, stale_looks
from test_random import PREDICTABLE, skip_without_vdso

LOOKS = f"/sys/module/{BACKEND}/parameters/looks"
# The order of draw_everywhere.
INTERFACES = ("getrandom()", "/dev/urandom", "uuid", "get_random_bytes()", "in an interrupt")
# A tick that detects a new GUID may leave it to the driver's timer, 20 µs later. The
# mapped counter may therefore be stale after one tick, but not after two.
MOST_TICKS = 1
RESTORES = 20
LONG = pytest.mark.long
# draw_kernel.ko counts ticks with a kprobe, which every stock kernel has.
COUNTS_TICKS = pytest.mark.kernels(*kernels.STOCK)
EVENTS = pytest.mark.parametrize("event", ["event", "masked"])


def start(guest: Guest, command: str, event: str, looks: str = "on") -> Program | None:
    """Starts a program that draws, with looks on or off; None without support for it."""
    load_modules(guest)
    if "PREEMPT_RT" in guest.run("uname -v"):
        assert guest.run(f"cat {LOOKS}") == "unavailable\n"
        pytest.skip("there are no looks with PREEMPT_RT")
    if event == "masked":
        mask_events(guest)
    if looks == "off":
        guest.run(f"echo off > {LOOKS} && [ $(cat {LOOKS}) = off ]", 120)
    guest.run("insmod /modules/draw_kernel.ko")
    program = guest.start(command)
    return program if program.wait_for("^(drawing|watching|none)")[1] != "none" else None


def guids(times: int) -> Iterator[str]:
    """Yields GUIDs whose last byte has each interface in turn draw first in a clone."""
    for _ in range(times):
        for interface in range(len(INTERFACES)):
            yield f"{new_guid()[:-2]}{interface:02x}"


def outputs(snap: Snapshot, program: Program, new: Iterable[str]) -> Iterator[str]:
    """Yields the program's output in clones with these GUIDs, two clones at a time."""
    new = list(new)
    for pair in zip(new[::2], new[1::2]):
        with snap.restore_all(*pair) as clones:
            for clone in clones:
                copy = clone.program(program)
                assert copy.wait(60) == 0, copy.output
                yield copy.output


def repeated(clones: Iterable[list[tuple[str, str]]]) -> Counter:
    """Counts, by key, the draws that occur in more than one clone."""
    clones = list(clones)
    owners = Counter(value for clone in clones for value in {value for _, value in clone})
    return Counter(key for clone in clones for key, value in clone if owners[value] > 1)


def draws(output: str, pattern: str = r"^cpu (\d+) (\w{32})$") -> list[tuple[str, str]]:
    found = re.findall(pattern, output, re.M)
    assert found, output
    return found


@pytest.mark.every_kernel
@pytest.mark.built_in
@pytest.mark.parametrize("delivery, cpus, event, times", [
    ("sci", 4, "event", 2), ("ged", 4, "event", 2), ("sci", 2, "masked", 2),
    *(pytest.param("sci", cpus, event, RESTORES, marks=LONG)
      for cpus in (2, 4) for event in ("event", "masked"))], indirect=["delivery"])
def test_draws_after_restore_never_repeat(boot, delivery, cpus, event, times):
    """Covers every interface on every CPU, with and without the interrupt."""
    guest = boot(smp=cpus, **delivery, **PREDICTABLE)
    program = start(guest, "draw_everywhere", event)
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(times))]
    assert all(len(clone) == 64 * cpus for clone in made)
    assert not repeated(made)


@pytest.mark.built_in
def test_draws_before_first_tick_never_repeat(boot):
    """With icount, a nanosecond is an instruction: all draws end before the next tick."""
    guest = boot(icount=True, **PREDICTABLE)
    program = start(guest, "draw_everywhere", "masked")
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(2))]
    assert not repeated(made)


@pytest.mark.parametrize("cpus", [2, 4])
def test_every_cpu_repeats_draws_without_looks_and_event(boot, cpus, record_property):
    """Proves that the tests above detect repeated draws.

    The kernel's own reseed, every 5 s, can make some draws differ.
    """
    guest = boot(smp=cpus, **PREDICTABLE)
    program = start(guest, "draw_everywhere", "masked", "off")
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(2))]
    record_property("draws repeated in clones without looks and event", (
        f"{repeated(made).total()} of {sum(map(len, made))}"))
    assert set(repeated(made)) == {cpu for clone in made for cpu, _ in clone}


def test_report_repeated_draws_without_looks(boot, record_property):
    """Draws repeat until the other CPU has taken the interrupt."""
    guest = boot(smp=2, **PREDICTABLE)
    program = start(guest, "draw_everywhere", "event", "off")
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(2))]
    record_property("draws repeated in clones with looks off", (
        f"{repeated(made).total()} of {sum(map(len, made))}"))


def stale_ticks(output: str) -> list[float]:
    """Returns each CPU's number of ticks before its last stale look; -1: no stale look."""
    return [float(said.split()[0].replace("forever", "inf"))
            for said in re.findall(r"^cpu \d+ stale (.*)$", output, re.M)]


def shown(ticks: list[float]) -> str:
    names = {-1: "never", 0: "before the first tick", 1: "after one tick", float("inf"): "forever"}
    return ", ".join(f"{names.get(number, f'after {number:.0f} ticks')}: {times}"
                     for number, times in sorted(Counter(ticks).items()))


def batched(boot, numbers: str, event: str, times: int, looks: str = "on"):
    """Returns the stale ticks of some clones, and their repeated early and late draws."""
    guest = boot(smp=2, **PREDICTABLE)
    program = start(guest, f"draw_batched {numbers}", event, looks)
    if not program:
        skip_without_vdso(guest)
    with guest.snapshot() as snap:
        made = list(outputs(snap, program, (new_guid() for _ in range(times))))
    return ([number for output in made for number in stale_ticks(output)],
            repeated(draws(output, r"^(early|late) \d (\w+)$") for output in made))


@COUNTS_TICKS
@EVENTS
@pytest.mark.parametrize("numbers", ["u32", "vdso"])
@pytest.mark.parametrize("times", [4, pytest.param(RESTORES, marks=LONG)])
def test_unchecked_state_is_stale_for_one_tick_at_most(boot, numbers, event, times,
                                                       record_property):
    """Covers the mapped counter, and numbers that the kernel or the vDSO has batched."""
    ticks, repeats = batched(boot, numbers, event, times)
    record_property("counter stale", shown(ticks))
    record_property("draws repeated at once and later", f"{repeats['early']}, {repeats['late']}")
    assert max(ticks) <= MOST_TICKS, shown(ticks)
    assert not repeats["late"]


@pytest.mark.built_in
def test_tick_alone_detects_new_guid(boot, kernel):
    """While the only program waits for the mapped counter, nothing draws.

    The tick itself may not publish a GUID that may be half-written: a timer does, soon.
    """
    if kernel.setting("PREEMPT_RT"):
        pytest.skip("there are no looks with PREEMPT_RT")
    guest = boot(icount=True)
    load_modules(guest)
    mask_events(guest)
    watcher = guest.start("stale_window map")
    # The interrupts of a debug kernel take much of a tick.
    most = (1.05 if guest.patience == 1 else 1.5) * 1e6 / int(kernel.setting("HZ"))
    # A snapshot of a guest that is about to handle the tick shows no stale counter.
    for _, duration in stale_looks(guest, watcher, range(FEWER_RESTORES)):
        assert duration < most


@COUNTS_TICKS
@pytest.mark.parametrize("numbers", ["u32", "vdso"])
def test_unchecked_state_stays_stale_without_looks_and_event(boot, numbers):
    ticks, repeats = batched(boot, numbers, "masked", 2, "off")
    assert set(ticks) == {float("inf")}, shown(ticks)
    assert repeats["early"] and repeats["late"]


@COUNTS_TICKS
@pytest.mark.parametrize("numbers", ["u32", "vdso"])
def test_report_stale_ticks_without_looks(boot, numbers, record_property):
    ticks, repeats = batched(boot, numbers, "event", 4, "off")
    record_property("with looks off: counter stale", shown(ticks))
    record_property("with looks off: draws repeated at once and later",
                    f"{repeats['early']}, {repeats['late']}")
