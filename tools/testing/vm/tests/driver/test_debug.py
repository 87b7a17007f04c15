# SPDX-License-Identifier: GPL-2.0
"""Failures that only the debug kernel can inject.

A report of the kernel, such as a leak, fails the test, like any test with a guest.
"""
import re

import pytest
from harness import acpi_tables
from harness.acpi_events import interrupt, load_modules, switch_looks_off
from harness.guest import BACKEND, Guest
from harness.stale import FEWER_RESTORES, stale_looks

pytestmark = pytest.mark.kernels("6.12-debug")
SYSFS = "/sys/class/misc/sysgenid"
DRIVER = f"/sys/bus/platform/drivers/{BACKEND}"
# Every kind of allocation may fail, without a message, when fail-nth selects it.
READY_TO_FAIL = """
cd /sys/kernel/debug
for kind in failslab fail_page_alloc; do
    echo 0 > $kind/verbose
    echo N > $kind/ignore-gfp-wait
done
echo on > /proc/sys/kernel/printk_devkmsg
echo N > fail_page_alloc/ignore-gfp-highmem
echo 0 > fail_page_alloc/min-order"""
# Limits failures to callers within these addresses (require), or outside (reject).
ONLY = """
for kind in failslab fail_page_alloc; do
    echo {start:#x} > /sys/kernel/debug/$kind/{which}-start
    echo {end:#x} > /sys/kernel/debug/$kind/{which}-end
done"""


@pytest.fixture
def failing(guest) -> Guest:
    """A guest whose allocations can be made to fail."""
    guest.run(READY_TO_FAIL)
    return guest


def addresses(guest: Guest, function: str) -> list[int]:
    """Returns the address of a function, and of the next one."""
    lines = guest.run(f"grep -A1 ' {function}$' /proc/kallsyms").splitlines()
    return [int(line.split()[0], 16) for line in lines[:2]]


def only(guest: Guest, which: str, function: str) -> None:
    """Limits failures to a function and its callees (require), or to the rest (reject)."""
    start, end = addresses(guest, function)
    guest.run(ONLY.format(which=which, start=start, end=end))


def fail_each(guest: Guest, call: str, at_least: int, reason: str = "", error: str = "") -> None:
    """Has each allocation of a call fail once, and checks that there are enough of them.

    The call has to succeed or to fail with ENOMEM. It may fail with another error if a
    line in the log matches reason: there, the kernel's core hides the cause.
    """
    before = len(guest.log())
    allocations, refusals = map(int, re.match(
        r"(\d+) allocations, (\d+) refusals", guest.run(f"fail_allocations {call}", 300)).groups())
    assert allocations >= at_least
    parts = re.split(r"fail_allocations: (\w+)", guest.log()[before:])
    assert len(parts[1::2]) == refusals
    for log, refused in zip(parts[::2], parts[1::2]):
        assert refused == "ENOMEM" or (refused == error and re.search(reason, log)), log


# The device's calls, and the least number of allocations of each.
CALLS = {
    "open": 2, "read": 0, "poll": 0, "epoll": 2, "ioctl": 0,
    f"show {SYSFS}/generation": 2, f"show {SYSFS}/outdated": 2,
    f"show {SYSFS}/watchers": 2, f"show {SYSFS}/source": 2,
    "show /proc/self/fdinfo/4": 2,
}


def test_failed_allocation_is_enomem_and_retry_works(failing):
    failing.load_modules()
    for call, at_least in CALLS.items():
        fail_each(failing, call, at_least)


def test_next_fault_makes_failed_page_table(failing):
    failing.load_modules()
    failing.expect("VM_FAULT_OOM leaked out")   # the kernel retries such a fault
    fail_each(failing, "map", 6)


@pytest.fixture
def unbound(failing) -> Guest:
    """A guest whose driver is unbound from its device, which /run/device names.

    Allocations of ACPI's interpreter do not fail, as it does not survive that.
    """
    failing.load_modules()
    failing.run(f"cd {DRIVER}; ls -d *:* > /run/device; cat /run/device > unbind")
    only(failing, "require", "platform_probe")
    only(failing, "reject", "acpi_evaluate_object")
    return failing


def binds(guest: Guest) -> None:
    guest.run(f"cat /run/device > {DRIVER}/bind")
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1


BIND = "bind $(cat /run/device)"


def test_failed_probe_leaks_nothing(unbound):
    fail_each(unbound, BIND, 10, "mapping ADDR", "ENXIO")
    binds(unbound)


def test_failed_sysgenid_load_leaks_nothing(failing):
    """Allocations of sysfs_slab_add() do not fail, as the kernel leaks names there."""
    only(failing, "require", "do_one_initcall")
    only(failing, "reject", "sysfs_slab_add")
    failing.expect("Call Trace")    # a failed kmem_cache_create() dumps the stack
    fail_each(failing, "load /modules/sysgenid.ko", 10)
    failing.load_modules()


NO_LINKS = "failed to create module links"
# The kernel logs nothing after the previous, successful try if naming a device fails.
NOTHING_SAID = r"drives the generation counter.*\n.*\Z"


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_failed_vmgenid_load_leaks_nothing(failing, taken):
    """Covers a free device, and one that another driver has taken."""
    failing.run("insmod /modules/sysgenid.ko")
    if taken:
        failing.run("insmod /modules/take_device.ko")
    only(failing, "require", "do_one_initcall")
    only(failing, "reject", "acpi_evaluate_object")
    fail_each(failing, f"load /modules/{BACKEND}.ko", 50, NO_LINKS if not taken else
              f"{NO_LINKS}|{NOTHING_SAID}", "EINVAL")
    failing.load_backend()
    assert failing.run(f"cat {SYSFS}/source") == "vmgenid\n"
    failing.unload_modules()


# Every nth allocation fails, up to a number of times.
NO_MEMORY = """
cd /sys/kernel/debug/failslab
echo {every} > interval; echo {times} > times; echo 100 > probability"""
BUMPS = 10


def test_uevents_survive_memory_shortage_in_order(failing):
    failing.run("insmod /modules/sysgenid.ko; insmod /modules/fake_backend.ko")
    listener = failing.start("uevent sh -c 'env | grep SYSGENID_'")
    failing.run("until grep -q ' 15 *[0-9]* *00000001 ' /proc/net/netlink; do :; done")
    only(failing, "require", "kobject_uevent_env")
    only(failing, "reject", "netlink_broadcast_filtered")   # else the listener loses events
    sent = 0
    # All allocations fail first. Then each of the four of an event fails in turn.
    for every, times in ((1, 5), (5, 3), (6, 3), (7, 3), (8, 3)):
        failing.run(NO_MEMORY.format(every=every, times=times))
        failing.run("cd /sys/kernel/debug/fake_backend; "
                    f"for i in $(seq {BUMPS}); do echo 1 > bump; done")
        failing.run("until [ $(cat /sys/kernel/debug/failslab/times) = 0 ]; do :; done")
        sent += BUMPS
        listener.wait_for(f"^SYSGENID_GENERATION={sent}$")
    assert listener.output.split() == [f"SYSGENID_GENERATION={number}"
                                       for number in range(1, sent + 1)]


# Test modules stand in for hardware that this kernel does not have.

PLAIN = (f"/modules/plain_device.ko address={acpi_tables.WRITABLE_ADDRESS:#x}", "size=16")
# The console's interrupt, which is not shared.
TAKEN = 4


@pytest.fixture
def without_acpi(boot) -> Guest:
    """A guest without a generation ID, and with memory for one."""
    guest = boot(guid=None, append=acpi_tables.KEEP_WRITABLE)
    guest.load_modules()
    return guest


def test_device_without_acpi_binds(without_acpi):
    guest = without_acpi
    guest.run(f"insmod {' '.join(PLAIN)} irq={interrupt(guest)}")
    assert guest.run(f"cat {SYSFS}/source") == "vmgenid\n"
    assert guest.generation() == 0
    guest.run(f"insmod /modules/write_guid.ko address={acpi_tables.WRITABLE_ADDRESS:#x};"
              "echo 16 0 > /sys/module/write_guid/parameters/write")
    assert guest.generation() == 1
    guest.run("rmmod plain_device")
    assert guest.run(f"cat {SYSFS}/source") == "none\n"


@pytest.mark.parametrize("device, says", (
    (PLAIN[:1], "reg is missing"), ((*PLAIN[:1], "size=15"), "is too small for a GUID"),
    (PLAIN, "IRQ index 0 not found"),
    ((*PLAIN, f"irq={TAKEN}"), f"requesting shared interrupt {TAKEN} failed")))
def test_bad_device_without_acpi_is_refused(without_acpi, device, says):
    without_acpi.run(f"insmod {' '.join(device)}")
    assert says in without_acpi.log()
    assert without_acpi.run(f"cat {SYSFS}/source") == "none\n"


def test_mapped_page_is_never_stale_without_sci(guest):
    """The driver traces the hard interrupt of the event device's threaded handler."""
    guest.run("insmod /modules/change_fadt.ko reduced=1")
    load_modules(guest)
    switch_looks_off(guest)
    watcher = guest.start("stale_window map")
    assert set(stale_looks(guest, watcher, range(FEWER_RESTORES))) == {(0, 0)}


def test_missing_interrupt_is_logged_once(guest):
    guest.run("insmod /modules/change_fadt.ko reduced=1; echo 0 > /proc/sys/kernel/ftrace_enabled")
    guest.load_modules()
    assert guest.log().count("new generations are some milliseconds late") == 1


def test_invalid_sci_is_refused(guest):
    guest.run("insmod /modules/change_fadt.ko sci=999")
    guest.load_modules()
    assert "mapping the SCI to an interrupt failed" in guest.log()
    assert guest.run(f"cat {SYSFS}/source") == "none\n"
