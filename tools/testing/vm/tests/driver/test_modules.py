# SPDX-License-Identifier: GPL-2.0
"""Loading and unloading the modules: by hand, by modprobe, by modalias."""
import pytest
from harness import acpi_tables, build
from harness.initramfs import Image

SOURCE = "cat /sys/class/misc/sysgenid/source"
ALIAS = "cat /sys/bus/acpi/devices/*/modalias | grep -i vm_\\\\?gen"


@pytest.fixture
def installed(boot, kernel, logs):
    """A guest with modprobe, and the modules as `make install-modules` installs them."""
    image = Image().basics(build.agent())
    build.add_module_tree(image, kernel, logs / "root")
    return boot(image=image.write(logs / "initramfs.cpio"), fresh=True)


def test_vmgenid_drives_counter(guest):
    guest.load_modules()
    assert guest.run(SOURCE) == "vmgenid\n"
    assert guest.generation() == 0


def test_counter_works_without_device(boot):
    guest = boot(guid=None)
    guest.load_modules()
    assert guest.run(SOURCE) == "none\n"
    assert guest.generation() == 0
    guest.unload_modules()


def test_driver_leaves_counter_to_other_backend(guest):
    guest.run("insmod /modules/sysgenid.ko; insmod /modules/fake_backend.ko")
    guest.load_backend()
    assert "registering as backend of the generation counter failed" in guest.log()
    assert guest.run(SOURCE) == "fake_backend\n"
    guest.unload_backend()
    guest.run("rmmod fake_backend; rmmod sysgenid")


@pytest.mark.kernels("6.1-cloud")
def test_encrypted_guest_leaves_counter_to_software(guest):
    """The driver does not even map the GUID's page."""
    page = acpi_tables.find_guid(acpi_tables.dump(guest, "SSDT")) & -4096
    mapped = f"grep -q phys={page:#018x} /proc/vmallocinfo"
    guest.run("insmod /modules/claim_encrypted.ko")
    guest.load_modules()
    assert guest.log().count("not used: the memory is encrypted against the host") == 1
    assert guest.run(SOURCE) == "none\n"
    assert guest.status(mapped) == 1
    with guest.snapshot() as snap, snap.restore() as clone:
        assert clone.generation() == 0
        clone.unload_backend()
        clone.run("rmmod claim_encrypted")
        clone.load_backend()
        assert clone.run(SOURCE) == "vmgenid\n"
        assert clone.status(mapped) == 0


@pytest.mark.kernels("6.12-debug")
def test_modules_work_beside_kernel_driver(boot, kernel, logs):
    """The kernel's own driver is a module here, loaded first; stock kernels build it in."""
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


def test_modprobe_by_name_or_alias_loads_both(installed):
    for name in ("vmgenid", f"$({ALIAS} | head -n 1)"):
        installed.run(f"/sbin/modprobe {name}")
        assert installed.run(SOURCE) == "vmgenid\n"
        installed.run("/sbin/modprobe -r vmgenid")


def test_modules_unload_cleanly_20_times(guest):
    for _ in range(20):
        guest.load_modules()
        assert guest.run(SOURCE) == "vmgenid\n"
        guest.unload_modules()
    assert guest.status("[ -e /dev/sysgenid ]") == 1


@pytest.mark.parametrize("what", ("descriptor", "mapping"))
def test_sysgenid_stays_loaded_with_open(what, guest):
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


def test_backend_can_reload_while_program_waits(guest):
    guest.load_modules()
    watcher = guest.start("wait_generation poll")
    watcher.wait_for("^watching 0$")
    guest.unload_backend()
    guest.load_backend()
    with guest.snapshot() as snap, snap.restore() as clone:
        clone.program(watcher).wait_for("^woken 1$")
