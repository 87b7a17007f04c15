# SPDX-License-Identifier: GPL-2.0
"""A host that changes the GUID, or raises the interrupt, all the time.

The guest has to go on with its work meanwhile, and no new GUID may be lost. Each storm
lasts until the guest has finished a piece of work. With icount, a nanosecond of the guest
is an instruction, so that the work's duration without and with a storm shows what the
storm costs.
"""
import os
import time

import pytest
from harness import acpi_tables
from harness.acpi_events import events, load_modules
from harness.channel import Program
from harness.guest import Guest

pytestmark = [pytest.mark.hosts, pytest.mark.kernels("6.1-cloud", "6.12-cloud")]

GUID_BYTES = 16
PAGE = 4096
# The interrupt controller of the machine "pc", and the line of ACPI's interrupt.
CONTROLLER, LINE = "/machine/i440fx/ioapic", 9
PATIENCE = 60   # seconds
# Upper limit of the cost of one change, or one Notify, with all that follows in the kernel.
MOST_INSTRUCTIONS = 100_000
# Prints when it began and when it ended, in ns; /proc/timer_list has no coarser clock.
WORK = """
now() { sed -n 's/^now at \\(.*\\) nsecs$/\\1/p' /proc/timer_list; }
from=$(now); i=0
while [ $i -lt %d ]; do i=$((i + 1)); done
echo worked $from $(now)
"""
LOOPS = 30_000
# The pages of a process, by their numbers: see Documentation/admin-guide/mm/pagemap.rst.
PAGE_NUMBER = (1 << 55) - 1
FIND_COUNTER = """
pid=$(pidof hold_device)
start=0x$(sed -n 's|-.* /dev/sysgenid$||p' /proc/$pid/maps)
dd if=/proc/$pid/pagemap bs=8 skip=$((start / 4096)) count=1 2> /dev/null | od -An -tu8
"""


class Host:
    """A host that changes the GUID of a running guest, and sees the mapped counter."""

    def __init__(self, guest: Guest):
        self.qtest = guest.qtest
        self.guid_at = acpi_tables.find_guid(acpi_tables.dump(guest, "SSDT*"))
        guest.start("hold_device mapping").wait_for("^holding")
        self.counter_at = (int(guest.run(FIND_COUNTER)) & PAGE_NUMBER) * PAGE

    def generation(self) -> int:
        return int.from_bytes(self.qtest.read(self.counter_at, 4), "little")

    def change_guid(self) -> str:
        """Writes another GUID, and returns its bytes."""
        guid = os.urandom(GUID_BYTES)
        self.qtest.write(self.guid_at, guid)
        return guid.hex()

    def set_line(self, *levels: int) -> None:
        """Raises and lowers the interrupt line, which is level-triggered."""
        self.qtest.set_line(CONTROLLER, LINE, *levels)

    def clone(self) -> None:
        """Changes the GUID with an interrupt, and waits for another generation."""
        before, limit = self.generation(), time.monotonic() + PATIENCE
        self.change_guid()
        self.set_line(1, 0)
        while self.generation() == before:
            assert time.monotonic() < limit, "the guest shows no new generation"


def start_work(guest: Guest) -> Program:
    return guest.start(WORK % LOOPS)


def duration(work: Program) -> int:
    """Waits for the end of a piece of work, and returns its time in the guest, in ns."""
    begin, end = work.wait_for(r"^worked (\d+) (\d+)$", PATIENCE).groups()
    return int(end) - int(begin)


@pytest.fixture
def guest(boot) -> Guest:
    guest = boot(icount=True, qtest=True)
    load_modules(guest)
    return guest


def expect_nothing_pending(guest: Guest, host: Host, generation: int) -> None:
    """Fails if the last GUID is not handled, or if the next one does not count once."""
    assert host.generation() == generation
    assert guest.generation() == generation
    watcher = guest.start("wait_generation poll")
    watcher.wait_for(f"^watching {generation}$")
    host.clone()
    watcher.wait_for(f"^woken {generation + 1}$")
    guest.unload_backend()
    assert guest.generation() == generation + 1


@pytest.mark.short
def test_storm_of_new_guids_counts_each_and_starves_nobody(guest, record_property):
    host = Host(guest)
    alone = duration(start_work(guest))
    work = start_work(guest)
    changes = 0
    while work.status is None:
        host.clone()
        changes += 1
    each = (duration(work) - alone) / changes
    record_property("a new GUID with its interrupt", (
        f"{each:.0f} instructions, {changes} changes during {alone} instructions of work"))
    expect_nothing_pending(guest, host, changes)
    assert each < MOST_INSTRUCTIONS


def test_storm_of_guids_without_an_interrupt_starves_nobody(guest, record_property):
    """Ticks find them. A GUID that is replaced before a tick goes unseen; the last one counts."""
    host = Host(guest)
    alone = duration(start_work(guest))
    work = start_work(guest)
    changes = 0
    while work.status is None:
        last = host.change_guid()
        changes += 1
    share = alone / duration(work)
    guest.run("sleep 0.1")
    generation = host.generation()
    record_property("the share of the CPU in a storm of GUIDs without interrupts", (
        f"{share:.0%}, {generation} generations for {changes} GUIDs"))
    assert guest.run("map_hardware < /dev/null").split()[-1] == last
    assert 0 < generation <= changes
    expect_nothing_pending(guest, host, generation)
    assert share > 0.5


@pytest.mark.parametrize("delivery", ["ged"], indirect=True)
def test_storm_of_notifies_starves_nobody_and_hides_no_guid(boot, delivery, record_property):
    """The Generic Event Device sends Notify, and clears the event, which lowers the line."""
    guest = boot(icount=True, qtest=True, **delivery)
    load_modules(guest)
    host = Host(guest)
    alone = duration(start_work(guest))
    work = start_work(guest)
    host.change_guid()
    while work.status is None:
        host.set_line(1)
    host.set_line(0)
    notifies = events(guest)
    assert notifies > 100, "inconclusive: that was no storm"
    each = (duration(work) - alone) / notifies
    record_property("a Notify", f"{each:.0f} instructions, {notifies} of them during the work")
    expect_nothing_pending(guest, host, 1)
    assert each < MOST_INSTRUCTIONS


def test_interrupt_that_never_ends_is_switched_off_and_hides_no_guid(boot):
    """The kernel disables an interrupt that nobody handles; ticks and system calls look."""
    guest = boot(qtest=True)
    guest.expect("nobody cared|Call Trace|Disabling IRQ")
    load_modules(guest)
    host = Host(guest)
    watcher = guest.start("wait_generation map")
    watcher.wait_for("^watching 0$")
    host.set_line(1)
    guest.run("until dmesg | grep -q 'Disabling IRQ'; do :; done", PATIENCE)
    host.change_guid()
    watcher.wait_for("^woken 1$")
    assert guest.generation() == 1
    duration(start_work(guest))
