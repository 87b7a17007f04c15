# SPDX-License-Identifier: GPL-2.0
"""Loading and unloading the modules: by hand, by modprobe, by modalias."""
import pytest
from harness import build
from harness.initramfs import Image

SOURCE = "cat /sys/class/misc/sysgenid/source"
ALIAS = "cat /sys/bus/acpi/devices/*/modalias | grep -i vm_\\\\?gen"


@pytest.fixture
def installed(boot, kernel, logs):
    """A guest with the modules where `make install-modules` puts them, and modprobe."""
    image = Image().basics(build.agent())
    build.add_module_tree(image, kernel, logs / "root")
    return boot(image=image.write(logs / "initramfs.cpio"), fresh=True)


def test_modules_load_and_vmgenid_drives_the_counter(guest):
    guest.load_modules()
    assert guest.run(SOURCE) == "vmgenid\n"
    assert guest.generation() == 0


def test_without_a_device_the_counter_works_alone(boot):
    guest = boot(guid=None)
    guest.load_modules()
    assert guest.run(SOURCE) == "none\n"
    assert guest.generation() == 0
    guest.unload_modules()


def test_counter_that_something_else_drives_is_left_to_it(guest):
    guest.run("insmod /modules/sysgenid.ko; insmod /modules/fake_backend.ko")
    guest.load_backend()
    assert "registering as backend of the generation counter failed" in guest.log()
    assert guest.run(SOURCE) == "fake_backend\n"
    guest.unload_backend()
    guest.run("rmmod fake_backend; rmmod sysgenid")


@pytest.mark.kernels("6.12-debug")
def test_modules_work_beside_the_kernels_own_driver(boot, kernel, logs):
    """Which the stock kernels have built in: here it is a module, loaded first."""
    image = build.new_image(kernel)
    image.file("modules/own.ko", kernel.build_tree / "drivers/virt/vmgenid.ko")
    guest = boot(image=image.write(logs / "initramfs.cpio"), fresh=True)
    guest.run("insmod /modules/own.ko")
    guest.load_modules()
    assert "beside the kernel's own driver" in guest.log()
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 1
        clone.unload_modules()
        clone.load_modules()
        assert clone.run(SOURCE) == "vmgenid\n"


def test_modprobe_by_name_and_by_the_devices_alias_loads_both(installed):
    for name in ("vmgenid", f"$({ALIAS} | head -n 1)"):
        installed.run(f"/sbin/modprobe {name}")
        assert installed.run(SOURCE) == "vmgenid\n"
        installed.run("/sbin/modprobe -r vmgenid")


def test_unloading_is_clean_twenty_times(guest):
    for _ in range(20):
        guest.load_modules()
        assert guest.run(SOURCE) == "vmgenid\n"
        guest.unload_modules()
    assert guest.status("[ -e /dev/sysgenid ]") == 1


@pytest.mark.parametrize("what", ("descriptor", "mapping"))
def test_counter_stays_loaded_while_someone_has_a(what, guest):
    for _ in range(5):
        guest.load_modules()
        holder = guest.start(f"hold_device {what}")
        holder.wait_for("^holding 0$")
        guest.unload_backend()
        assert guest.status("rmmod sysgenid") != 0
        assert guest.generation() == 0
        holder.kill()
        holder.wait()
        guest.run("rmmod sysgenid")


def test_backend_can_leave_while_programs_wait(guest):
    guest.load_modules()
    watcher = guest.start("wait_generation poll")
    watcher.wait_for("^watching 0$")
    guest.unload_backend()
    guest.load_backend()
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.program(watcher).wait_for("^woken 1$")
