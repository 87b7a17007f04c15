# SPDX-License-Identifier: GPL-2.0
"""KVM as the host: tests of the drivers with ACCEL=kvm, in a machine that has KVM.

They pass with KVM as they do with TCG. The machine is emulated, and its guests are
slow, so these are the fewest that each guarantee takes.
"""
import re

import pytest
from harness import host, kernels, required
from harness.kvm import KvmHost

pytestmark = [pytest.mark.hosts, pytest.mark.xdist_group("kvm"),
              pytest.mark.kernels("6.1-cloud"), pytest.mark.timeout(3600)]
# {} is the name of the guests' kernel.
TESTS = (
    "test_snapshot.py::test_new_guid_bumps_once[{}]",
    "test_snapshot.py::test_same_guid_does_not_bump[{}]",
    "test_guarantees.py::test_mapped_page_is_never_stale_on_interrupted_cpu[sci-{}-1]",
    "test_draws.py::test_draws_after_restore_never_repeat[{}-sci-2-masked-2]",
)
DEVICES = ("(echo info qom-tree; echo quit) |"
           " qemu-system-x86_64 -accel kvm -nodefaults -display none -S -monitor stdio")


@pytest.fixture(scope="module")
def machine():
    with host.locked("kvm", host.BUILD / "locks"):
        try:
            started = KvmHost(kernels.get("6.1"), host.BUILD / "logs/kvm")
        except host.SetupError as error:
            required.missing(str(error))
        with started:
            yield started


@pytest.fixture(scope="module")
def output(machine, kernel):
    """The output of all TESTS."""
    return machine.test(*(f"tests/driver/{test.format(kernel.name)}" for test in TESTS))


@pytest.mark.parametrize("test", TESTS, ids=lambda test: re.search("test_[a-z_]*(?=\\[)", test)[0])
def test_passes_with_kvm(test, output, kernel):
    assert f"{test.format(kernel.name)} PASSED" in output, output


def test_interrupts_come_from_kvms_own_controller(machine):
    """The interrupt controllers are in the kernel, not in QEMU."""
    devices = machine.run(DEVICES, 120)
    assert "(kvm-ioapic)" in devices and "(kvm-apic)" in devices
