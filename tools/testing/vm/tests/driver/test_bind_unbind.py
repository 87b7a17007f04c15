# SPDX-License-Identifier: GPL-2.0
"""The driver beside the kernel's own, away and back, and through suspend: no event is lost."""
import pytest
from harness.acpi_events import events, interrupt, load_modules, mask_events, settled_generation
from harness.guest import BACKEND, Guest

pytestmark = pytest.mark.every_kernel

OURS = "/sys/bus/platform/drivers/vm_generation_id"
# The kernel's own driver, and the device that it is bound to.
OWN = "$(echo /sys/bus/*/drivers/vmgenid)"
DEVICE = "$(basename $(echo /sys/bus/acpi/devices/QEMUVGID:*))"


def loads(kernel) -> str:
    """What the driver says, all of it, when it is bound."""
    beside = ", beside the kernel's own driver" if kernel.setting("VMGENID") == "y" else ""
    return f"drives the generation counter{beside}"


def count_restores(guest: Guest, *states: str) -> None:
    """Brings the guest into each state, and restores it there with a new GUID."""
    for number, state in enumerate(states, start=1):
        guest.run(state)
        with guest.snapshot() as snap:
            guest = snap.restore()
            assert guest.generation() == number, state
    assert settled_generation(guest) == len(states)


@pytest.mark.short
def test_loading_says_one_line(guest, kernel):
    load_modules(guest)
    said = guest.run("dmesg | grep vm_generation_id").splitlines()
    if kernel.setting("PREEMPT_RT"):
        assert "not supported with PREEMPT_RT" in said.pop(0)
    assert len(said) == 1
    assert said[0].endswith(loads(kernel))


# Not with 6.12: once unbound, its own driver oopses at the next event, ours or no ours.
@pytest.mark.kernels("6.1")
def test_own_driver_of_the_kernel_may_come_and_go(guest):
    load_modules(guest)
    count_restores(guest, f"echo {DEVICE} > {OWN}/unbind", f"echo {DEVICE} > {OWN}/bind")


@pytest.mark.kernels("6.1")
def test_own_driver_of_the_kernel_may_come_second(guest):
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
    def test_event_meanwhile_is_caught_when_it_comes_back(self, guest, leave, come):
        load_modules(guest)
        guest.run(leave)
        with guest.snapshot() as snap, snap.restore() as clone:
            assert clone.generation() == 0
            clone.run(come)
            assert clone.generation() == 1
            clone.run(f"{leave}; {come}")
            assert clone.generation() == 1

    def test_event_in_the_middle_of_coming_and_going_counts_once(self, guest, leave, come):
        load_modules(guest)
        loop = guest.start(f"until [ -e /run/end ]; do {leave}; {come}; echo again; done")
        for _ in range(10):
            # What is restored twice without having run has seen one event.
            loop.wait_for("(again\n.*){%d}" % (loop.output.count("again") + 2))
            with guest.snapshot() as snap:
                guest = snap.restore()
                loop = guest.program(loop)
        guest.run("touch /run/end")
        assert loop.wait() == 0
        assert settled_generation(guest) == 10


def suspend(guest: Guest) -> None:
    """To RAM, and back by the host's command."""
    if guest.options.kernel.architecture == "arm64":
        pytest.skip("QEMU's arm64 machine cannot suspend")
    asleep = guest.start("echo mem > /sys/power/state")
    guest.qmp.wait_event("SUSPEND", 30 * guest.patience)
    guest.qmp.command("system_wakeup")
    assert asleep.wait(30 * guest.patience) == 0


def test_resume_notices_what_nothing_else_did(guest):
    load_modules(guest)
    watcher = guest.start("wait_generation map")
    watcher.wait_for("^watching 0$")
    mask_events(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        suspend(clone)
        clone.program(watcher).wait_for("^woken 1$")
        assert clone.generation() == 1
        assert events(clone) == 0


def test_suspend_is_no_event_and_hides_none(two_cpus):
    load_modules(two_cpus)
    suspend(two_cpus)
    assert two_cpus.generation() == 0
    with two_cpus.snapshot() as snap, snap.restore() as clone:
        assert settled_generation(clone) == 1


def test_processor_that_took_the_interrupt_may_go(two_cpus):
    load_modules(two_cpus)
    two_cpus.run(f"echo 1 > /proc/irq/{interrupt(two_cpus)}/smp_affinity_list")
    with two_cpus.snapshot() as snap, snap.restore(snap.options.guid) as guest:
        online = "/sys/devices/system/cpu/cpu1/online"
        count_restores(guest, f"echo 0 > {online}", f"echo 1 > {online}")
