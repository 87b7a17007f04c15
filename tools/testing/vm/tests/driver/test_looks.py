# SPDX-License-Identifier: GPL-2.0
"""The looks at the generation ID before every draw and at every timer tick.

In a stock kernel, they use ftrace. They can be switched off, they work beside other
users of ftrace, and the driver may unload at any moment.
"""
import pytest
from harness.acpi_events import SEEN, load_modules, mask_events, settled_generation
from harness.guest import BACKEND, Guest

LOOKS = f"/sys/module/{BACKEND}/parameters/looks"
DRIVER = f"/sys/bus/platform/drivers/{BACKEND}"
FTRACE_ENABLED = "/proc/sys/kernel/ftrace_enabled"
TRACING = "/sys/kernel/debug/tracing"
RESTORES = 3


@pytest.fixture(autouse=True)
def has_looks(kernel) -> None:
    if kernel.setting("PREEMPT_RT"):
        pytest.skip("there are no looks with PREEMPT_RT")


def looks(guest: Guest) -> str:
    return guest.run(f"cat {LOOKS}").strip()


def assert_looks_detect(guest: Guest) -> None:
    """Checks that a clone detects a new GUID with neither interrupt nor system call."""
    guest.run("insmod /modules/trace_reseed.ko")
    mask_events(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.run(f"until grep -q '^ours 0$' {SEEN}; do :; done")


def assert_nothing_detects(guest: Guest) -> None:
    """Checks that only a system call detects a new GUID, despite draws and ticks."""
    guest.run("insmod /modules/trace_reseed.ko")
    mask_events(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.run("head -c100000 /dev/urandom > /dev/null; sleep 0.1")
        assert "ours" not in clone.run(f"cat {SEEN}")
        assert clone.generation() == 1
        assert "ours 0" in clone.run(f"cat {SEEN}")


def test_looks_are_on_and_can_be_switched(guest):
    load_modules(guest)
    assert looks(guest) == "on"
    assert guest.run(f"stat -c '%a %u' {LOOKS}") == "644 0\n"
    for value, state in (("off", "off"), ("on", "on"), ("on", "on"), ("0", "off"),
                         ("0", "off"), ("1", "on")):
        guest.run(f"echo {value} > {LOOKS}")
        assert looks(guest) == state
    assert guest.status(f"echo perhaps > {LOOKS}") == 1
    assert looks(guest) == "on"
    assert_looks_detect(guest)


def test_looks_switched_off_detect_nothing(guest):
    load_modules(guest)
    guest.run(f"echo off > {LOOKS}")
    assert_nothing_detects(guest)


def test_looks_can_be_off_from_load(guest):
    guest.run(f"insmod /modules/sysgenid.ko; insmod /modules/{BACKEND}.ko looks=off")
    assert looks(guest) == "off"
    assert_nothing_detects(guest)


def test_looks_keep_ftrace_enabled(guest):
    load_modules(guest)
    assert guest.status(f"echo 0 > {FTRACE_ENABLED}") == 1
    assert looks(guest) == "on"
    assert_looks_detect(guest)


def test_interrupt_detects_restore_without_ftrace(guest):
    guest.run(f"echo 0 > {FTRACE_ENABLED}")
    load_modules(guest)
    assert looks(guest) == "unavailable"
    assert guest.run("dmesg").count("kernel.ftrace_enabled is 0") == 1
    with guest.snapshot() as snap, snap.restore() as clone:
        assert settled_generation(clone) == 1
        clone.run(f"echo 1 > {FTRACE_ENABLED}")
        clone.load_backend()
        assert looks(clone) == "on"


def test_looks_work_beside_function_tracer(guest):
    """The tracer traces the same functions, and registers both before and after the driver."""
    start = (f"cd {TRACING}; echo crng_make_state update_process_times > set_ftrace_filter; "
             "echo function > current_tracer")
    stop = f"cd {TRACING}; echo nop > current_tracer; echo > set_ftrace_filter"
    load_modules(guest)
    guest.run(f"{start}; head -c1 /dev/urandom > /dev/null")
    assert guest.status(f"grep -q crng_make_state {TRACING}/trace") == 0
    guest.unload_backend()
    guest.load_backend()
    guest.run(stop)
    guest.run(start)
    assert_looks_detect(guest)


def test_draw_during_reseed_does_not_wait(guest):
    """The draw looks again, on the CPU that holds the driver's lock."""
    load_modules(guest)
    guest.run("insmod /modules/draw_in_reseed.ko")
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1


def stop_ftrace(guest: Guest) -> None:
    """Has ftrace leave the driver's calls in place forever."""
    address = guest.run("grep ' ftrace_kill$' /proc/kallsyms").split()[0]
    guest.run(f"insmod /modules/stop_ftrace.ko ftrace_kill=0x{address}")


def test_stopped_ftrace_pins_driver(guest):
    load_modules(guest)
    stop_ftrace(guest)
    guest.run(f"cd {DRIVER}; dirname */driver > /run/device; cat /run/device > unbind; sleep 0.1")
    assert guest.status(f"rmmod {BACKEND}") != 0
    guest.run(f"cat /run/device > {DRIVER}/bind")
    assert "this kernel has no function tracer" in guest.log()
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1
        clone.run(f"cat /run/device > {DRIVER}/unbind; head -c99 /dev/urandom > /dev/null")


def test_stopped_ftrace_keeps_unloaded_driver_in_memory(guest):
    load_modules(guest)
    stop_ftrace(guest)
    unload = guest.start(f"rmmod {BACKEND}")
    guest.run("until grep -q none /sys/class/misc/sysgenid/source; do :; done")
    guest.run("head -c99 /dev/urandom > /dev/null; sleep 0.1")
    assert "Unloading" in guest.run(f"grep {BACKEND} /proc/modules")
    assert unload.status is None


LOOP = f"""
cd {DRIVER}; for device in */driver; do dirname $device > /run/device; done; cd /
until [ -e /run/end ]; do
    cat /run/device > {DRIVER}/unbind; cat /run/device > {DRIVER}/bind
    echo off > {LOOKS}; echo on > {LOOKS}
    rmmod {BACKEND}; insmod /modules/{BACKEND}.ko
    echo again
done"""


@pytest.mark.parametrize("smp", [pytest.param(1, marks=pytest.mark.long), 2])
def test_looks_come_and_go_under_draws_and_restores(boot, smp):
    # QEMU's threads race when the kernel patches code that another CPU runs: 6.12 dies of
    # an unexpected int3, even with the function tracer alone.
    guest = boot(smp=smp, one_thread=True)
    load_modules(guest)
    for _ in range(smp):
        guest.start("while :; do head -c4096 /dev/urandom > /dev/null; done")
    loop = guest.start(LOOP)
    for _ in range(RESTORES):
        # ftrace waits for each task to sleep or leave the kernel, which takes a while.
        loop.wait_for("(again\n.*){%d}" % (loop.output.count("again") + 2), 120)
        with guest.snapshot() as snap:
            guest = snap.restore()
            loop = guest.program(loop)
    guest.run("touch /run/end")
    assert loop.wait(120) == 0
    assert settled_generation(guest) == RESTORES
