# SPDX-License-Identifier: GPL-2.0
"""The guarantees: reseed before publish, no stale window, one event is one increment.

A look at the generation is stale if it returns the old one after a look at the GUID has
returned the new one.
"""
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
from harness import acpi_tables
from harness.acpi_events import (COUNT, SEEN, events, interrupt, interrupted_cpu, load_modules,
                                 mask_events, on_cpu, settled_generation, switch_looks_off)
from harness.guest import Guest
from harness.stale import FEWER_RESTORES, restores, stale_looks

pytestmark = pytest.mark.every_kernel

SYSTEM_CALLS = ("read", "poll", "ioctl", "write", "wait")
BUSY = "while :; do :; done"
HOLD_RTNL = "/sys/kernel/debug/hold_rtnl"
# One below the priority of threaded interrupts, which is 50.
PRIORITY = 49


@pytest.fixture
def guest(boot, delivery) -> Guest:
    return boot(**delivery)


@pytest.fixture
def two_cpus(boot, delivery) -> Guest:
    return boot(smp=2, **delivery)


# Stale looks

def duration_of(looks: Iterable[tuple[int, int]]) -> str:
    looks = list(looks)
    return (f"{sum(times > 0 for times, _ in looks)} of {len(looks)} restores; µs: "
            + " ".join(str(duration) for duration in sorted(duration for _, duration in looks)))


@pytest.fixture
def assert_fresh(kernel, delivery, record_property) -> Callable[..., None]:
    """Yields a function that fails on stale looks.

    Documentation/virt/vmgenid.rst allows them with PREEMPT_RT, for a Generic Event
    Device, and if the interrupt's thread has to wait. The stale time is shown then.
    """
    def judge(looks: Iterable[tuple[int, int]], waits: bool = False) -> None:
        if kernel.setting("PREEMPT_RT") and (delivery or waits):
            record_property("mapped page stale, with PREEMPT_RT", duration_of(looks))
        else:
            assert set(looks) == {(0, 0)}
    return judge


def load_without_looks(guest: Guest) -> None:
    """Loads the modules so that only the interrupt detects a new GUID.

    A clone often starts with a timer tick pending, whose look would detect it first.
    """
    load_modules(guest)
    switch_looks_off(guest)


@pytest.mark.parametrize("busy", [pytest.param(0, marks=pytest.mark.short), 4],
                         ids=["idle", "busy"])
def test_mapped_page_is_never_stale(guest, busy, assert_fresh):
    load_without_looks(guest)
    for _ in range(busy):
        guest.start(BUSY)
    assert_fresh(stale_looks(guest, guest.start("stale_window map")))


def test_mapped_page_is_never_stale_for_real_time_program(kernel, delivery, two_cpus, assert_fresh):
    """A hard interrupt preempts any priority; with PREEMPT_RT, its thread has 50."""
    if kernel.setting("PREEMPT_RT") and delivery and kernel.name.startswith("6.1-"):
        pytest.skip("Linux 6.1 runs Notify on CPU 0 only, which the program does not leave")
    load_without_looks(two_cpus)
    two_cpus.run("echo -1 > /proc/sys/kernel/sched_rt_runtime_us")
    watcher = on_cpu(interrupted_cpu(two_cpus), f"stale_window map {PRIORITY}")
    assert_fresh(stale_looks(two_cpus, two_cpus.start(watcher)))


@contextmanager
def interrupt_moved(guest: Guest, cpu: int) -> Iterator[Guest]:
    """Yields the guest, or a clone of it, whose interrupt goes to that CPU.

    The kernel moves an interrupt when the next one arrives, which takes a restore.
    """
    irq = f"/proc/irq/{interrupt(guest)}"
    guest.run(f"echo {cpu} > {irq}/smp_affinity_list")
    if interrupted_cpu(guest) == cpu:
        yield guest
        return
    with guest.snapshot() as snap, snap.restore(guest.options.guid) as clone:
        clone.run(f"until [ $(cat {irq}/effective_affinity_list) = {cpu} ]; do :; done")
        yield clone


@pytest.mark.parametrize("cpu", [0, 1])
def test_mapped_page_is_never_stale_on_interrupted_cpu(two_cpus, cpu, assert_fresh):
    load_without_looks(two_cpus)
    with interrupt_moved(two_cpus, cpu) as moved:
        watcher = moved.start(on_cpu(cpu, "stale_window map"))
        assert_fresh(stale_looks(moved, watcher))


def move_without_interrupt(guest: Guest, cpu: int) -> None:
    """Moves the interrupt to the other CPU, but only after the next one on this CPU."""
    if guest.options.kernel.architecture == "arm64":
        pytest.skip("the interrupt controller of arm64 moves an interrupt at once")
    guest.run(f"echo {1 - cpu} > /proc/irq/{interrupt(guest)}/smp_affinity_list")
    assert interrupted_cpu(guest) == cpu, "inconclusive: the interrupt has moved at once"


@pytest.mark.parametrize("cpu", [0, 1])
def test_mapped_page_is_never_stale_before_interrupt_moves(two_cpus, cpu, assert_fresh):
    """A threaded handler would move first, and then run on the other CPU."""
    load_without_looks(two_cpus)
    with interrupt_moved(two_cpus, cpu) as moved:
        move_without_interrupt(moved, cpu)
        watcher = moved.start(on_cpu(cpu, "stale_window map"))
        assert_fresh(stale_looks(moved, watcher, range(FEWER_RESTORES)), waits=True)


@pytest.mark.parametrize("cpu", [0, 1])
@pytest.mark.kernels("6.1-cloud", "6.1")
def test_mapped_page_is_never_stale_with_threaded_interrupts(boot, cpu):
    """ACPI's interrupt is threaded since Linux 6.8, a Generic Event Device's always was."""
    guest = boot(smp=2, append="threadirqs")
    load_without_looks(guest)
    with interrupt_moved(guest, cpu) as moved:
        move_without_interrupt(moved, cpu)
        watcher = moved.start(on_cpu(cpu, "stale_window map"))
        assert set(stale_looks(moved, watcher, range(FEWER_RESTORES))) == {(0, 0)}


def test_mapped_page_is_never_stale_under_throttling(two_cpus, assert_fresh):
    """Throttling stops all real-time threads of a CPU."""
    load_without_looks(two_cpus)
    cpu = interrupted_cpu(two_cpus)
    hog = two_cpus.start(on_cpu(cpu, "stale_window map 1"))
    hog.wait_for("^watching")
    watcher = two_cpus.start(on_cpu(cpu, "stale_window map"))
    watcher.wait_for("^watching")
    guest = two_cpus
    while True:
        # The watcher runs 50 ms a second, and prints when it resumes. The snapshot has to
        # be taken within these 50 ms.
        turns = watcher.output.count("resumed")
        watcher.wait_for("(resumed[^$]*){%d}" % (turns + 1))
        with guest.snapshot() as snap:
            turns = watcher.output.count("resumed")
            with snap.restore() as clone:
                copy = clone.program(watcher)
                times, duration = copy.wait_for(r"^stale (\d+) (\d+)").groups()
                assert_fresh([(int(times), int(duration))], waits=True)
                if copy.output.count("resumed") == turns:
                    return
            guest = snap.restore(snap.options.guid)
            watcher = guest.program(watcher)


@pytest.mark.built_in
def test_report_stale_mapped_page_on_other_cpu(two_cpus, record_property):
    """The page can be stale until the other CPU has taken the interrupt."""
    load_modules(two_cpus)
    watcher = two_cpus.start(on_cpu(1 - interrupted_cpu(two_cpus), "stale_window map"))
    looks = list(stale_looks(two_cpus, watcher))
    record_property("mapped page stale on the other CPU", duration_of(looks))
    assert len(looks) == len(restores(two_cpus))


@pytest.mark.built_in
@pytest.mark.parametrize("call", ["read", "poll", "ioctl"])
def test_system_call_is_never_stale_on_other_cpu(two_cpus, call):
    load_modules(two_cpus)
    watcher = two_cpus.start(on_cpu(1 - interrupted_cpu(two_cpus), f"stale_window {call}"))
    assert set(stale_looks(two_cpus, watcher)) == {(0, 0)}


@pytest.mark.short
def test_system_call_is_never_stale_without_interrupt(guest):
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


# Reseed before publish

def by_interrupt(guest: Guest) -> None:
    guest.run(f"until [ {COUNT} -gt 0 ]; do :; done")


def by_system_call(guest: Guest) -> None:
    assert events(guest) == 0
    assert guest.generation() == 1


def by_notify(guest: Guest) -> None:
    assert events(guest) == 0
    guest.run(acpi_tables.NOTIFY)


def assert_reseeds_first(guest: Guest, notice: Callable[[Guest], None]) -> None:
    """Checks that the mapped page shows the old generation during the driver's reseed."""
    # A kernel cannot reseed before its first seed. arm64 guests boot without one.
    guest.run("head -c 1 /dev/random > /dev/null && insmod /modules/trace_reseed.ko")
    with guest.snapshot() as snap:
        for _ in range(FEWER_RESTORES):
            with snap.restore() as clone:
                notice(clone)
                clone.unload_backend()
                assert clone.generation() == 1
                seen = clone.run(f"cat {SEEN}")
                assert re.findall(r"^ours (\d+)", seen, re.M)[:1] == ["0"], seen


@pytest.mark.short
def test_interrupt_reseeds_before_publishing(guest):
    load_modules(guest)
    assert_reseeds_first(guest, by_interrupt)


def test_system_call_reseeds_before_publishing(guest):
    load_modules(guest)
    switch_looks_off(guest)
    mask_events(guest)
    assert_reseeds_first(guest, by_system_call)


def test_notify_reseeds_before_publishing(boot, kernel, tmp_path):
    if kernel.architecture == "arm64":
        pytest.skip("there is no ACPI")
    guest = boot(acpi=acpi_tables.archive(
        tmp_path, acpi_tables.compiled(acpi_tables.NOTIFIER, tmp_path)))
    load_modules(guest)
    switch_looks_off(guest)
    mask_events(guest)
    assert_reseeds_first(guest, by_notify)


@pytest.mark.kernels("6.12-debug")
def test_slow_notifier_does_not_delay_publishing(boot):
    """WireGuard's notifier waits for rtnl_lock; trace_reseed.ko's notifier comes after it."""
    guest = boot()
    guest.run("ip link add wg0 type wireguard")
    load_modules(guest)
    guest.run("insmod /modules/trace_reseed.ko && insmod /modules/hold_rtnl.ko")
    holder = guest.start(f"echo 1 > {HOLD_RTNL}/hold")
    guest.run(f"until grep -q Y {HOLD_RTNL}/holding; do :; done")
    watcher = guest.start("stale_window map")
    watcher.wait_for("^watching")
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.program(watcher).wait_for(r"^stale (\d+)")[1] == "0"
        assert clone.generation() == 1
        clone.run("until grep -q wg_vm_notification /proc/[0-9]*/stack; do :; done")
        assert "notifier" not in clone.run(f"cat {SEEN}")
        clone.run(f"echo 0 > {HOLD_RTNL}/hold")
        assert clone.program(holder).wait() == 0
        clone.run(f"until grep -q notifier {SEEN}; do :; done")
        assert re.findall(r"^notifier (\d+)", clone.run(f"cat {SEEN}"), re.M) == ["1"]


# One event, one increment

@pytest.mark.built_in
def test_event_counts_once_under_concurrent_calls(two_cpus):
    load_modules(two_cpus)
    hammer = two_cpus.start("hammer_device")
    hammer.wait_for("^hammering")
    with two_cpus.snapshot() as snap:
        for _ in restores(two_cpus):
            with snap.restore() as clone:
                copy = clone.program(hammer)
                clone.run(f"until [ {COUNT} -gt 0 ]; do :; done")
                copy.kill()
                assert copy.wait() == 0, copy.output
                assert settled_generation(clone) == 1


@pytest.mark.built_in
@pytest.mark.short
def test_each_clone_in_chain_counts(guest):
    load_modules(guest)
    for number in range(1, 4):
        with guest.snapshot() as snap:
            guest = snap.restore()
            assert guest.generation() == number
    assert settled_generation(guest) == 3


def test_event_with_same_guid_counts_nothing(guest):
    load_modules(guest)
    with guest.snapshot() as snap, snap.restore(guest.options.guid) as clone:
        assert settled_generation(clone) == 0
