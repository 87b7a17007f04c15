# SPDX-License-Identifier: GPL-2.0
"""The guarantees: reseed before publish, no stale window, one event is one increment.

"Stale" is a look at the generation that still gives the old one although the
GUID, looked at before it, was the new one already.
"""
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from channel import Program
from guest import Guest, Snapshot

RESTORES = 20
SYSTEM_CALLS = ("read", "poll", "ioctl", "write", "wait")
BUSY = "while :; do :; done"
# Without what else could make the random numbers of two clones differ.
PREDICTABLE = {
    "cpu_flags": "-rdrand,-rdseed",
    "append": "random.trust_cpu=off random.trust_bootloader=off",
}


@pytest.fixture
def guest(boot) -> Guest:
    return boot(**PREDICTABLE)


@pytest.fixture
def two_cpus(boot) -> Guest:
    return boot(smp=2, **PREDICTABLE)


# The interrupt

def interrupt(guest: Guest) -> int:
    """The number of ACPI's interrupt."""
    return int(guest.run(r"sed -n 's/^ *\([0-9]*\):.*acpi$/\1/p' /proc/interrupts"))


def interrupted_cpu(guest: Guest) -> int:
    """The processor that takes ACPI's interrupt."""
    return int(guest.run(f"cat /proc/irq/{interrupt(guest)}/effective_affinity_list"))


# QEMU's event for its generation ID, which every restore raises: how many came.
GPE = "/sys/firmware/acpi/interrupts/gpe05"
EVENTS = f"$(cut -c1-8 {GPE})"


def load_modules(guest: Guest) -> None:
    """Loads them once the event of the guest's own restore is over."""
    guest.run(f"until [ {EVENTS} -gt 0 ]; do :; done; echo 0 > {GPE}")
    guest.load_modules()


def mask_events(guest: Guest) -> None:
    """From now on no interrupt comes from the generation ID."""
    guest.run(f"echo mask > {GPE}")


def events(guest: Guest) -> int:
    return int(guest.run(f"echo {EVENTS}"))


# Stale looks

def stale_looks(guest: Guest, watcher: Program) -> Iterator[tuple[int, int]]:
    """Restores the guest again and again: how often, and for how many µs, was it stale?"""
    watcher.wait_for("^watching")
    with guest.snapshot() as snap:
        for _ in range(RESTORES):
            with snap.restore() as clone:
                times, duration = clone.program(watcher).wait_for(r"^stale (\d+) (\d+)").groups()
                yield int(times), int(duration)


@pytest.mark.parametrize("busy", [0, 4], ids=["idle", "busy"])
def test_mapped_page_is_never_stale(guest, busy):
    load_modules(guest)
    for _ in range(busy):
        guest.start(BUSY)
    assert set(stale_looks(guest, guest.start("stale_window map"))) == {(0, 0)}


@contextmanager
def interrupt_moved(guest: Guest, cpu: int) -> Iterator[Guest]:
    """The guest, or a clone of it, with ACPI's interrupt going to that processor.

    It moves when the next one comes, which a restore brings.
    """
    irq = f"/proc/irq/{interrupt(guest)}"
    guest.run(f"echo {cpu} > {irq}/smp_affinity_list")
    if interrupted_cpu(guest) == cpu:
        yield guest
        return
    with guest.snapshot() as snap, snap.restore(guest.options.guid) as clone:
        clone.run(f"until [ $(cat {irq}/effective_affinity_list) = {cpu} ]; do :; done")
        yield clone


def on_cpu(cpu: int, command: str) -> str:
    return f"taskset {1 << cpu:x} {command}"


@pytest.mark.parametrize("cpu", [0, 1])
def test_mapped_page_is_never_stale_where_the_interrupt_lands(two_cpus, cpu):
    load_modules(two_cpus)
    with interrupt_moved(two_cpus, cpu) as moved:
        watcher = moved.start(on_cpu(cpu, "stale_window map"))
        assert set(stale_looks(moved, watcher)) == {(0, 0)}


def test_mapped_page_on_the_other_cpu(two_cpus, record_property):
    """Can be stale, until the other processor has taken the interrupt. For how long?"""
    load_modules(two_cpus)
    watcher = two_cpus.start(on_cpu(1 - interrupted_cpu(two_cpus), "stale_window map"))
    looks = list(stale_looks(two_cpus, watcher))
    durations = sorted(duration for _, duration in looks)
    record_property("mapped page stale on the other processor", (
        f"{sum(times > 0 for times, _ in looks)} of {len(looks)} restores; µs: "
        + " ".join(map(str, durations))))
    assert len(looks) == RESTORES


@pytest.mark.parametrize("call", ["read", "poll", "ioctl"])
def test_system_call_on_the_other_cpu_is_never_stale(two_cpus, call):
    load_modules(two_cpus)
    watcher = two_cpus.start(on_cpu(1 - interrupted_cpu(two_cpus), f"stale_window {call}"))
    assert set(stale_looks(two_cpus, watcher)) == {(0, 0)}


def test_system_call_is_never_stale_without_any_interrupt(guest):
    load_modules(guest)
    mask_events(guest)
    for number, call in enumerate(SYSTEM_CALLS, start=1):
        watcher = guest.start(f"stale_window {call}")
        watcher.wait_for("^watching")
        with guest.snapshot() as snap:
            guest = snap.restore()
            assert guest.program(watcher).wait_for(r"^stale (\d+)")[1] == "0", call
            assert guest.generation() == number
            assert events(guest) == 0


# One event, one increment

DRIVER = "/sys/bus/platform/drivers/vm_generation_id"
UNBIND = f"for link in {DRIVER}/*/driver; do basename $(dirname $link) > {DRIVER}/unbind; done"


def settled_generation(guest: Guest) -> int:
    """The generation once all has come that the event brings, Notify last.

    That is so when the driver is gone, as it waits for its handlers.
    """
    guest.run(f"until [ {EVENTS} -gt 0 ]; do :; done; {UNBIND}")
    return guest.generation()


def test_one_event_is_one_increment_under_all_system_calls_at_once(two_cpus):
    load_modules(two_cpus)
    hammer = two_cpus.start("hammer_device")
    hammer.wait_for("^hammering")
    with two_cpus.snapshot() as snap:
        for _ in range(RESTORES):
            with snap.restore() as clone:
                copy = clone.program(hammer)
                assert settled_generation(clone) == 1
                copy.kill()
                assert copy.wait() == 0, copy.output


def test_chain_of_clones_counts_each(guest):
    load_modules(guest)
    for number in range(1, 4):
        with guest.snapshot() as snap:
            guest = snap.restore()
            assert guest.generation() == number
    assert settled_generation(guest) == 3


def test_event_with_the_same_guid_is_no_increment(guest):
    load_modules(guest)
    with guest.snapshot() as snap, snap.restore(guest.options.guid) as clone:
        assert settled_generation(clone) == 0


# Random numbers

@dataclass
class Draws:
    """What was drawn in a new generation, and the number of draws before that."""
    number: int
    values: set[str]


def draws_of_clone(snap: Snapshot, program: Program) -> Draws:
    """Restores it with a new GUID, and takes the first draws after that was seen."""
    with snap.restore() as clone:
        copy = clone.program(program)
        assert copy.wait() == 0, copy.output
        return Draws(int(re.search(r"^seen (\d+)", copy.output, re.M)[1]),
                     set(re.findall(r"^drew (\w+)", copy.output, re.M)))


def draws_from(clone: Guest, program: Program, number: int) -> set[str]:
    """Draws of a clone that has seen no new generation, from that number on."""
    program = clone.program(program)
    shown = program.output.count("shown")
    clone.run(f"echo {number} 64 > /run/ask")
    program.wait_for(r"(^shown\n[^$]*){%d}" % (shown + 1))
    return set(re.findall(r"^drew (\w+)", program.output.split("shown")[shown], re.M))


def start_drawing(guest: Guest, command: str) -> Program:
    guest.run("mkfifo /run/ask")
    program = guest.start(f"{command} <> /run/ask")
    program.wait_for("^drawing")
    return program


def assert_clones_diverge(guest: Guest, program: Program) -> None:
    """Nothing drawn in a new generation is drawn in another clone, or was to come anyway."""
    with guest.snapshot() as snap:
        a, b = draws_of_clone(snap, program), draws_of_clone(snap, program)
        assert not a.values & b.values
        with snap.restore(snap.options.guid) as first, snap.restore(snap.options.guid) as second:
            for new in (a, b):
                c, d = (draws_from(clone, program, new.number) for clone in (first, second))
                assert c & d, "the test can't tell: even with the same GUID clones differ"
                assert not new.values & (c | d)


@pytest.mark.parametrize("way", ["map", "read", "poll", "ioctl"])
def test_clones_diverge(guest, way):
    load_modules(guest)
    assert_clones_diverge(guest, start_drawing(guest, f"draw_random {way} early"))


@pytest.mark.parametrize("way", ["map", "read", "poll", "ioctl"])
def test_clones_diverge_on_the_other_cpu(two_cpus, way):
    load_modules(two_cpus)
    command = on_cpu(1 - interrupted_cpu(two_cpus), f"draw_random {way} early")
    assert_clones_diverge(two_cpus, start_drawing(two_cpus, command))
