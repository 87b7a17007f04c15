# SPDX-License-Identifier: GPL-2.0
"""No event is lost beside the kernel's own driver, across a reload, or a suspend."""
import pytest
from harness.acpi_events import events, interrupt, load_modules, mask_events, settled_generation
from harness.guest import BACKEND, Guest

pytestmark = pytest.mark.every_kernel

OURS = "/sys/bus/platform/drivers/vm_generation_id"
# The kernel's own driver, and its device.
OWN = "$(echo /sys/bus/*/drivers/vmgenid)"
DEVICE = "$(basename $(echo /sys/bus/acpi/devices/QEMUVGID:*))"


def bind_message(kernel) -> str:
    """Returns the end of the only line that the driver logs when it binds."""
    beside = ", beside the kernel's own driver" if kernel.setting("VMGENID") == "y" else ""
    return f"drives the generation counter{beside}"


def count_restores(guest: Guest, *states: str) -> None:
    """Runs each command, then restores the guest with a new GUID; each restore counts."""
    for number, state in enumerate(states, start=1):
        guest.run(state)
        with guest.snapshot() as snap:
            guest = snap.restore()
            assert guest.generation() == number, state
    assert settled_generation(guest) == len(states)


@pytest.mark.short
def test_bind_logs_one_line(guest, kernel):
    load_modules(guest)
    said = guest.run("dmesg | grep vm_generation_id").splitlines()
    if kernel.setting("PREEMPT_RT"):
        assert "not supported with PREEMPT_RT" in said.pop(0)
    assert len(said) == 1
    assert said[0].endswith(bind_message(kernel))


# On 6.12, the kernel's own driver oopses at the next event after an unbind, even without
# this project's modules.
@pytest.mark.kernels("6.1")
def test_kernel_driver_may_rebind(guest):
    load_modules(guest)
    count_restores(guest, f"echo {DEVICE} > {OWN}/unbind", f"echo {DEVICE} > {OWN}/bind")


@pytest.mark.kernels("6.1")
def test_kernel_driver_may_bind_second(guest):
    guest.run(f"echo {DEVICE} > {OWN}/unbind")
    load_modules(guest)
    count_restores(guest, "true", f"echo {DEVICE} > {OWN}/bind")


@pytest.mark.parametrize("leave, come", [
    (f"rmmod {BACKEND}", f"insmod /modules/{BACKEND}.ko"),
    (f"cd {OURS}; for i in */driver; do dirname $i > /run/device; cat /run/device > unbind; done",
     f"cat /run/device > {OURS}/bind"),
], ids=["unloaded", "unbound"])
class TestAway:
    @pytest.mark.short
    def test_return_detects_missed_event(self, guest, leave, come):
        load_modules(guest)
        guest.run(leave)
        with guest.snapshot() as snap, snap.restore() as clone:
            assert clone.generation() == 0
            clone.run(come)
            assert clone.generation() == 1
            clone.run(f"{leave}; {come}")
            assert clone.generation() == 1

    def test_event_during_reload_counts_once(self, guest, leave, come):
        load_modules(guest)
        loop = guest.start(f"until [ -e /run/end ]; do {leave}; {come}; echo again; done")
        for _ in range(10):
            # A clone that is snapshotted before it ran sees two restores as one event.
            loop.wait_for("(again\n.*){%d}" % (loop.output.count("again") + 2))
            with guest.snapshot() as snap:
                guest = snap.restore()
                loop = guest.program(loop)
        guest.run("touch /run/end")
        assert loop.wait() == 0
        assert settled_generation(guest) == 10


def suspend(guest: Guest) -> None:
    """Suspends the guest to RAM, and has the host wake it up."""
    if guest.options.kernel.architecture == "arm64":
        pytest.skip("QEMU's arm64 machine cannot suspend")
    asleep = guest.start("echo mem > /sys/power/state")
    guest.qmp.wait_event("SUSPEND", 30 * guest.patience)
    guest.qmp.command("system_wakeup")
    assert asleep.wait(30 * guest.patience) == 0


def test_resume_detects_new_guid(guest):
    load_modules(guest)
    watcher = guest.start("wait_generation map")
    watcher.wait_for("^watching 0$")
    mask_events(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        suspend(clone)
        clone.program(watcher).wait_for("^woken 1$")
        assert clone.generation() == 1
        assert events(clone) == 0


def test_suspend_neither_adds_nor_hides_event(two_cpus):
    load_modules(two_cpus)
    suspend(two_cpus)
    assert two_cpus.generation() == 0
    with two_cpus.snapshot() as snap, snap.restore() as clone:
        assert settled_generation(clone) == 1


def test_interrupted_cpu_may_go_offline(two_cpus):
    load_modules(two_cpus)
    two_cpus.run(f"echo 1 > /proc/irq/{interrupt(two_cpus)}/smp_affinity_list")
    with two_cpus.snapshot() as snap, snap.restore(snap.options.guid) as guest:
        online = "/sys/devices/system/cpu/cpu1/online"
        count_restores(guest, f"echo 0 > {online}", f"echo 1 > {online}")
