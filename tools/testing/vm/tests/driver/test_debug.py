# SPDX-License-Identifier: GPL-2.0
"""What only a kernel made for finding mistakes can do: fail when told to.

Whatever the kernel reports meanwhile, leaks among it, fails these as it
fails any test with a guest.
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
# Every kind of allocation may fail, silently, and where told to by fail-nth.
READY_TO_FAIL = """
cd /sys/kernel/debug
for kind in failslab fail_page_alloc; do
    echo 0 > $kind/verbose
    echo N > $kind/ignore-gfp-wait
done
echo on > /proc/sys/kernel/printk_devkmsg
echo N > fail_page_alloc/ignore-gfp-highmem
echo 0 > fail_page_alloc/min-order"""
# Only allocations that are made within these addresses, or not within them.
ONLY = """
for kind in failslab fail_page_alloc; do
    echo {start:#x} > /sys/kernel/debug/$kind/{which}-start
    echo {end:#x} > /sys/kernel/debug/$kind/{which}-end
done"""


@pytest.fixture
def failing(guest) -> Guest:
    """A guest where allocations can be made to fail."""
    guest.run(READY_TO_FAIL)
    return guest


def addresses(guest: Guest, function: str) -> list[int]:
    """Where it begins, and where the next one does."""
    lines = guest.run(f"grep -A1 ' {function}$' /proc/kallsyms").splitlines()
    return [int(line.split()[0], 16) for line in lines[:2]]


def only(guest: Guest, which: str, function: str) -> None:
    """Limits what fails to a function and all that it calls, or to the rest."""
    start, end = addresses(guest, function)
    guest.run(ONLY.format(which=which, start=start, end=end))


def fail_each(guest: Guest, call: str, at_least: int, reason: str = "", error: str = "") -> None:
    """Each allocation of a call fails once; there are that many or more.

    The call has to work or to end with ENOMEM. Where the kernel's core does not
    tell why it failed, it may end with another error, after that line in the log.
    """
    before = len(guest.log())
    allocations, refusals = map(int, re.match(
        r"(\d+) allocations, (\d+) refusals", guest.run(f"fail_allocations {call}", 300)).groups())
    assert allocations >= at_least
    parts = re.split(r"fail_allocations: (\w+)", guest.log()[before:])
    assert len(parts[1::2]) == refusals
    for log, refused in zip(parts[::2], parts[1::2]):
        assert refused == "ENOMEM" or (refused == error and re.search(reason, log)), log


# The device's calls, and how many allocations each makes at the least.
CALLS = {
    "open": 2, "read": 0, "poll": 0, "epoll": 2, "ioctl": 0,
    f"show {SYSFS}/generation": 2, f"show {SYSFS}/outdated": 2,
    f"show {SYSFS}/watchers": 2, f"show {SYSFS}/source": 2,
    "show /proc/self/fdinfo/4": 2,
}


def test_failing_allocation_is_enomem_and_the_next_try_works(failing):
    failing.load_modules()
    for call, at_least in CALLS.items():
        fail_each(failing, call, at_least)


def test_failing_page_table_is_made_by_the_next_fault(failing):
    failing.load_modules()
    failing.expect("VM_FAULT_OOM leaked out")   # it means: to be tried again
    fail_each(failing, "map", 6)


@pytest.fixture
def unbound(failing) -> Guest:
    """The driver is there, and has no device; /run/device has its name.

    ACPI's interpreter is left out: it does not survive failures itself.
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


def test_failing_allocation_at_probe_leaves_nothing_behind(unbound):
    fail_each(unbound, BIND, 10, "mapping ADDR", "ENXIO")
    binds(unbound)


def test_failing_allocation_when_the_counter_is_loaded_leaves_nothing_behind(failing):
    """But for the names of caches: where those can't be shown, the kernel leaks them."""
    only(failing, "require", "do_one_initcall")
    only(failing, "reject", "sysfs_slab_add")
    failing.expect("Call Trace")    # the kernel shows who could not have a cache
    fail_each(failing, "load /modules/sysgenid.ko", 10)
    failing.load_modules()


NO_LINKS = "failed to create module links"
# A device that could not have a name; nothing since the try before, which went well.
NOTHING_SAID = r"drives the generation counter.*\n.*\Z"


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_failing_allocation_when_the_driver_is_loaded_leaves_nothing_behind(failing, taken):
    """Where another driver has the device, ours makes one of its own."""
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


# Every so many-th allocation fails, until so many have.
NO_MEMORY = """
cd /sys/kernel/debug/failslab
echo {every} > interval; echo {times} > times; echo 100 > probability"""
BUMPS = 10


def test_events_that_memory_was_short_for_are_sent_later_and_in_order(failing):
    failing.run("insmod /modules/sysgenid.ko; insmod /modules/fake_backend.ko")
    listener = failing.start("uevent sh -c 'env | grep SYSGENID_'")
    failing.run("until grep -q ' 15 *[0-9]* *00000001 ' /proc/net/netlink; do :; done")
    only(failing, "require", "kobject_uevent_env")
    only(failing, "reject", "netlink_broadcast_filtered")   # that would be the listener's loss
    sent = 0
    # All of them; and then, as an event takes four, each of those in turn.
    for every, times in ((1, 5), (5, 3), (6, 3), (7, 3), (8, 3)):
        failing.run(NO_MEMORY.format(every=every, times=times))
        failing.run("cd /sys/kernel/debug/fake_backend; "
                    f"for i in $(seq {BUMPS}); do echo 1 > bump; done")
        failing.run("until [ $(cat /sys/kernel/debug/failslab/times) = 0 ]; do :; done")
        sent += BUMPS
        listener.wait_for(f"^SYSGENID_GENERATION={sent}$")
    assert listener.output.split() == [f"SYSGENID_GENERATION={number}"
                                       for number in range(1, sent + 1)]


# What this kernel has not got, and a module can stand in for.

PLAIN = (f"/modules/plain_device.ko address={acpi_tables.WRITABLE_ADDRESS:#x}", "size=16")
# The console's: it is not shared.
TAKEN = 4


@pytest.fixture
def without_acpi(boot) -> Guest:
    """A guest without a generation ID, and with memory for one."""
    guest = boot(guid=None, append=acpi_tables.KEEP_WRITABLE)
    guest.load_modules()
    return guest


def test_device_without_acpi_is_bound(without_acpi):
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
def test_device_without_acpi_that_is_no_good_is_refused(without_acpi, device, says):
    without_acpi.run(f"insmod {' '.join(device)}")
    assert says in without_acpi.log()
    assert without_acpi.run(f"cat {SYSFS}/source") == "none\n"


def test_mapped_page_is_never_stale_without_the_interrupt_of_acpi(guest):
    """The thread of its handler has its hard interrupt traced."""
    guest.run("insmod /modules/change_fadt.ko reduced=1")
    load_modules(guest)
    switch_looks_off(guest)
    watcher = guest.start("stale_window map")
    assert set(stale_looks(guest, watcher, range(FEWER_RESTORES))) == {(0, 0)}


def test_without_any_interrupt_one_line_says_so(guest):
    guest.run("insmod /modules/change_fadt.ko reduced=1; echo 0 > /proc/sys/kernel/ftrace_enabled")
    guest.load_modules()
    assert guest.log().count("new generations are some milliseconds late") == 1


def test_interrupt_of_acpi_that_is_none_is_refused(guest):
    guest.run("insmod /modules/change_fadt.ko sci=999")
    guest.load_modules()
    assert "mapping the SCI to an interrupt failed" in guest.log()
    assert guest.run(f"cat {SYSFS}/source") == "none\n"


def test_driver_stays_when_ftrace_has_stopped_and_leaves_its_calls(guest):
    load_modules(guest)
    guest.run(f"insmod /modules/stop_ftrace.ko ftrace_kill={addresses(guest, 'ftrace_kill')[0]}")
    guest.run(f"cd {DRIVER}; ls -d *:* > /run/device; cat /run/device > unbind; sleep 0.1")
    assert guest.status(f"rmmod {BACKEND}") != 0
    guest.run(f"cat /run/device > {DRIVER}/bind")
    assert "this kernel has no function tracer" in guest.log()
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1


def test_draw_while_the_driver_reseeds_does_not_wait_for_it(guest):
    load_modules(guest)
    guest.run("insmod /modules/draw_in_reseed.ko")
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1
