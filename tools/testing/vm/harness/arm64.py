# SPDX-License-Identifier: GPL-2.0
"""The generation ID of arm64 guests, for which QEMU has no device.

The harness adds a node to QEMU's own device tree. It plays the hypervisor through
QEMU's test interface: see qtest.py.
"""
import uuid
from pathlib import Path

from harness import host, packages
from harness.qmp import Qmp
from harness.qtest import Qtest

PACKAGES = ("qemu-system-arm", "device-tree-compiler")
# dtb-randomness=off: a seed in the device tree would seed the kernel's CSPRNG.
MACHINE = ("-machine", "virt,gic-version=3,dtb-randomness=off", "-cpu", "cortex-a57")
# The console takes the machine's only port; the agent uses a PCI port. iomem=relaxed:
# /dev/mem may show the GUID's page, although the kernel's own driver claims it.
APPEND = "console=ttyAMA0 AGENT_PORT=/dev/ttyS0 iomem=relaxed"
# The GUID is in a page of its own, near the end of the 512 MiB of RAM, which start
# at 1 GiB.
PAGE, PAGE_SIZE = 0x5fff0000, 0x10000
INTERRUPT = 200     # a shared peripheral interrupt
EDGE_RISING = 1     # as in Linux' interrupt-controller/irq.h
RESERVED, DEVICE = f"/reserved-memory/guid@{PAGE:x}", f"/vmgenid@{PAGE:x}"


def guid_bytes(guid: str) -> bytes:
    """Returns the 16 bytes of a GUID as they are in memory."""
    return uuid.UUID(guid).bytes_le


def make_tree(path: Path, smp: int, memory: int) -> Path:
    """Writes the device tree of a machine with a generation ID."""
    packages.install(PACKAGES)
    machine, *more = MACHINE[1:]
    host.run(["qemu-system-aarch64", "-nodefaults", "-display", "none", "-smp", str(smp),
              "-m", str(memory), "-machine", f"{machine},dumpdtb={path}", *more],
             "asking QEMU for its device tree")

    def put(node: str, name: str, *values: int | str) -> None:
        words = all(isinstance(value, int) for value in values)
        host.run(["fdtput", "-p", "-t", "i" if words else "s", path, node, name,
                  *map(str, values)], "editing the device tree")

    for name in ("#address-cells", "#size-cells"):
        put("/reserved-memory", name, 2)
    put("/reserved-memory", "ranges")
    put(RESERVED, "reg", 0, PAGE, 0, PAGE_SIZE)
    put(RESERVED, "no-map")
    put(DEVICE, "compatible", "microsoft,vmgenid")
    put(DEVICE, "reg", 0, PAGE, 0, 16)
    put(DEVICE, "interrupts", 0, INTERRUPT, EDGE_RISING)
    return path


def arguments(options, directory: Path, name: str) -> list[str]:
    """Returns QEMU's arguments for the machine and for the GUID at its start."""
    argv = [*MACHINE]
    if options.guid:
        guid = directory / f"{name}.guid"
        guid.write_bytes(guid_bytes(options.guid))
        tree = make_tree(directory / f"{name}.dtb", options.smp,
                         options.memory or options.kernel.memory)
        argv += ["-dtb", str(tree), "-device",
                 f"loader,file={guid},addr={PAGE:#x},force-raw=on"]
    return argv


class Hypervisor:
    """The hypervisor's part in a change of the generation, through qtest."""

    def __init__(self, qtest: Qtest, qmp: Qmp):
        self.qtest = qtest
        unattached = qmp.command("qom-list", path="/machine/unattached")
        self.controller = next(f"/machine/unattached/{child['name']}" for child in unattached
                               if child["type"] == "child<arm-gicv3>")

    def set_guid(self, guid: str) -> None:
        self.qtest.write(PAGE, guid_bytes(guid))

    def interrupt(self) -> None:
        """Pulses the interrupt line, which is edge-triggered."""
        for level in (1, 0):
            self.qtest.set_line(self.controller, INTERRUPT, level)
