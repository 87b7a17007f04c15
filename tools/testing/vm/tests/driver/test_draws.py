# SPDX-License-Identifier: GPL-2.0
"""Random numbers that were drawn after the restore, on every CPU, in clones of one snapshot.

Nothing but the GUID can make these clones' numbers differ: no instruction gives any.
Where a test masks the event, only the driver's looks can notice the new GUID: it is as
if the CPU that takes the interrupt were not scheduled at all.
"""
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from harness import kernels
from harness.acpi_events import load_modules, mask_events
from harness.channel import Program
from harness.guest import BACKEND, Guest, Snapshot, new_guid
from test_random import PREDICTABLE

LOOKS = f"/sys/module/{BACKEND}/parameters/looks"
# As draw_everywhere counts them.
INTERFACES = ("getrandom()", "/dev/urandom", "uuid", "get_random_bytes()", "in an interrupt")
# A tick that finds the GUID changed may leave it to the driver's timer, 20 µs later:
# the mapped counter may be stale when one tick is over, and not when two are.
MOST_TICKS = 1
RESTORES = 20
LONG = pytest.mark.long
# Those that are known to have kprobes, by which ticks are counted.
COUNTS_TICKS = pytest.mark.kernels(*kernels.STOCK)
EVENTS = pytest.mark.parametrize("event", ["event", "masked"])


def start(guest: Guest, command: str, event: str, looks: str = "on") -> Program | None:
    """Starts a program that draws, with the driver's looks on or off; None: it can't."""
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
    """New GUIDs, with which each interface in turn draws the first numbers of a clone."""
    for _ in range(times):
        for interface in range(len(INTERFACES)):
            yield f"{new_guid()[:-2]}{interface:02x}"


def outputs(snap: Snapshot, program: Program, new: Iterable[str]) -> Iterator[str]:
    """What the program prints in clones with these GUIDs, two of which run at a time."""
    new = list(new)
    for pair in zip(new[::2], new[1::2]):
        with snap.restore_all(*pair) as clones:
            for clone in clones:
                copy = clone.program(program)
                assert copy.wait(60) == 0, copy.output
                yield copy.output


def repeated(clones: Iterable[list[tuple[str, str]]]) -> Counter:
    """Of each clone's draws, by a key, how many were another clone's too."""
    clones = list(clones)
    owners = Counter(value for clone in clones for value in {value for _, value in clone})
    return Counter(key for clone in clones for key, value in clone if owners[value] > 1)


def draws(output: str, pattern: str = r"^cpu (\d+) (\w{32})$") -> list[tuple[str, str]]:
    found = re.findall(pattern, output, re.M)
    assert found, output
    return found


@pytest.mark.parametrize("cpus, event, times", [
    (4, "event", 2), (2, "masked", 2),
    *(pytest.param(cpus, event, RESTORES, marks=LONG)
      for cpus in (2, 4) for event in ("event", "masked"))])
def test_draw_after_the_restore_is_no_other_clones(boot, cpus, event, times):
    """By every interface, on every CPU, whatever takes the interrupt and when."""
    guest = boot(smp=cpus, **PREDICTABLE)
    program = start(guest, "draw_everywhere", event)
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(times))]
    assert all(len(clone) == 64 * cpus for clone in made)
    assert not repeated(made)


def test_draw_before_any_tick_or_interrupt_is_no_other_clones(boot):
    """An instruction is a nanosecond here: these draws are over long before the next tick."""
    guest = boot(icount=True, **PREDICTABLE)
    program = start(guest, "draw_everywhere", "masked")
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(2))]
    assert not repeated(made)


@pytest.mark.parametrize("cpus", [2, 4])
def test_without_looks_and_event_every_cpu_repeats_draws(boot, cpus):
    """The tests above can see it. The kernel's own reseed, every 5 s, can make some differ."""
    guest = boot(smp=cpus, **PREDICTABLE)
    program = start(guest, "draw_everywhere", "masked", "off")
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(2))]
    assert set(repeated(made)) == {cpu for clone in made for cpu, _ in clone}


def test_without_looks_how_many_draws_are_repeated(boot, record_property):
    """As long as the other CPU has not taken the interrupt."""
    guest = boot(smp=2, **PREDICTABLE)
    program = start(guest, "draw_everywhere", "event", "off")
    with guest.snapshot() as snap:
        made = [draws(output) for output in outputs(snap, program, guids(2))]
    record_property("draws repeated in clones with looks off", (
        f"{repeated(made).total()} of {sum(map(len, made))}"))


def stale_ticks(output: str) -> list[float]:
    """On each CPU, the ticks before the last stale look at the mapped counter; -1: no look."""
    return [float(said.split()[0].replace("for", "inf"))
            for said in re.findall(r"^cpu \d+ stale (.*)$", output, re.M)]


def shown(ticks: list[float]) -> str:
    names = {-1: "never", 0: "before the first tick", 1: "after one tick", float("inf"): "for good"}
    return ", ".join(f"{names.get(number, f'after {number:.0f} ticks')}: {times}"
                     for number, times in sorted(Counter(ticks).items()))


def batched(boot, numbers: str, event: str, times: int, looks: str = "on"):
    """The stale ticks, and the early and late draws that were repeated, of some clones."""
    guest = boot(smp=2, **PREDICTABLE)
    program = start(guest, f"draw_batched {numbers}", event, looks)
    if not program:
        pytest.skip("this kernel's vDSO has no getrandom()")
    with guest.snapshot() as snap:
        made = list(outputs(snap, program, (new_guid() for _ in range(times))))
    return ([number for output in made for number in stale_ticks(output)],
            repeated(draws(output, r"^(early|late) \d (\w+)$") for output in made))


@COUNTS_TICKS
@EVENTS
@pytest.mark.parametrize("numbers", ["u32", "vdso"])
@pytest.mark.parametrize("times", [4, pytest.param(RESTORES, marks=LONG)])
def test_what_is_not_looked_at_is_stale_for_one_tick_at_most(boot, numbers, event, times,
                                                              record_property):
    """The mapped counter, and numbers that the kernel or the vDSO had made before."""
    ticks, repeats = batched(boot, numbers, event, times)
    record_property("counter stale", shown(ticks))
    record_property("draws repeated at once and later", f"{repeats['early']}, {repeats['late']}")
    assert max(ticks) <= MOST_TICKS, shown(ticks)
    assert not repeats["late"]


@COUNTS_TICKS
def test_generation_that_a_tick_finds_is_published_before_the_next_tick(boot, kernel):
    """An instruction is a nanosecond here, so that the driver's timer is seen to do it."""
    guest = boot(icount=True, **PREDICTABLE)
    program = start(guest, "draw_batched u32", "masked")
    with guest.snapshot() as snap:
        stale = [float(re.search(r"^cpu 0 stale \d+ (\d+)$", output, re.M)[1])
                 for output in outputs(snap, program, (new_guid() for _ in range(2)))]
    tick = 1e6 / int(kernel.setting("HZ"))
    assert all(0 < duration < 1.05 * tick for duration in stale), stale


@COUNTS_TICKS
@pytest.mark.parametrize("numbers", ["u32", "vdso"])
def test_without_looks_and_event_all_of_that_is_stale_for_good(boot, numbers):
    ticks, repeats = batched(boot, numbers, "masked", 2, "off")
    assert set(ticks) == {float("inf")}, shown(ticks)
    assert repeats["early"] and repeats["late"]


@COUNTS_TICKS
@pytest.mark.parametrize("numbers", ["u32", "vdso"])
def test_without_looks_how_long_that_is_stale(boot, numbers, record_property):
    ticks, repeats = batched(boot, numbers, "event", 4, "off")
    record_property("with looks off: counter stale", shown(ticks))
    record_property("with looks off: draws repeated at once and later",
                    f"{repeats['early']}, {repeats['late']}")
