# SPDX-License-Identifier: GPL-2.0
"""Xen as the host. Its firmware has no Notify, and no interrupt comes with a restore.

So the driver detects a new GUID when the kernel resumes the devices, which is before
it lets user code run again; see Documentation/virt/hosts.rst.
"""
import re

import pytest
from harness import host, kernels, required
from harness.acpi_events import switch_looks_off
from harness.channel import Program
from harness.xen import Domain, Save, Xen

KERNELS = ("6.1-cloud", "6.1", "6.12-cloud")
pytestmark = [pytest.mark.hosts, pytest.mark.xdist_group("xen"),
              pytest.mark.kernels(*KERNELS), pytest.mark.timeout(1800)]
# The clones' random numbers have nothing else to differ by: this CPU has no RDRAND.
DRAWS = 64


@pytest.fixture(scope="module")
def xen(request):
    chosen = [kernels.get(name) for name in request.config.option.full if name in KERNELS]
    with host.locked("xen", host.BUILD / "locks"):
        try:
            machine = Xen(kernels.get("6.1"), chosen, host.BUILD / "logs/xen")
        except host.SetupError as error:
            required.missing(str(error))
        with machine:
            assert "hvm" in machine.run("xl info virt_caps")
            yield machine


@pytest.fixture(scope="module")
def loaded(xen, kernel):
    """A saved domain that has loaded the modules."""
    with xen.create(kernel) as domain:
        domain.load_modules()
        assert domain.generation() == 0
        saved = domain.save()
    with saved:
        yield saved


@pytest.fixture
def domain(loaded):
    with loaded.restore(configured=False) as domain:
        yield domain


def test_driver_binds_to_the_tables_of_hvmloader(domain, kernel):
    """Alone, or beside the kernel's own driver."""
    log = domain.run("dmesg | grep 'drives the generation'")
    assert ("beside the kernel's own driver" in log) == (kernel.setting("VMGENID") == "y")
    domain.run("ls -d /sys/bus/acpi/devices/XEN0000:00")
    domain.run("grep 'ACPI Non-volatile Storage' /proc/iomem")


def test_restore_without_the_configuration_reuses_the_guid(loaded):
    """No guest can detect such a clone."""
    guids = set()
    for _ in range(2):
        with loaded.restore(configured=False) as clone:
            assert clone.generation() == 0
            guids.add(clone.run("map_hardware < /dev/null"))
    assert len(guids) == 1


def test_each_restore_with_the_configuration_counts_one(loaded):
    guids = set()
    for _ in range(2):
        with loaded.restore() as clone:
            assert clone.generation() == 1
            clone.unload_backend()
            assert clone.generation() == 1
            clone.load_backend()
            guids.add(clone.run("map_hardware < /dev/null"))
    assert len(guids) == 2


def assert_same_generation(domain: Domain, watcher: Program) -> None:
    """The program that waits for a new generation still does, and there was no event."""
    assert domain.generation() == 0
    domain.unload_backend()
    assert domain.generation() == 0
    assert domain.program(watcher).status is None


def start_waiting(domain: Domain) -> Program:
    watcher = domain.start("wait_generation poll")
    watcher.wait_for("^watching 0$")
    return watcher


def test_save_that_is_resumed_in_place_is_no_event(domain):
    watcher = start_waiting(domain)
    domain.save_in_place()
    assert_same_generation(domain, watcher)


def test_migration_is_no_event(domain):
    watcher = start_waiting(domain)
    domain.migrate()
    assert_same_generation(domain, watcher)


@pytest.mark.parametrize("looks", ["on", "off"])
def test_user_code_runs_nothing_between_the_resume_and_the_new_generation(domain, looks):
    """Where the driver does not look at draws and ticks, only the resume detects the GUID."""
    if looks == "off":
        switch_looks_off(domain)
    watcher = domain.start("stale_window map")
    watcher.wait_for("^watching")
    with domain.save() as saved:
        for _ in range(2):
            with saved.restore() as clone:
                looked = clone.program(watcher).wait_for(r"^stale (\d+) (\d+)", 60)
                assert looked.groups() == ("0", "0")
                assert clone.generation() == 1


def first_draws(saved: Save, program: Program) -> tuple[int, set[str]]:
    """How many draws a clone's program made before the new generation, and those after."""
    with saved.restore() as clone:
        copy = clone.program(program)
        assert copy.wait(60) == 0, copy.output
        return (int(re.search(r"^seen (\d+)", copy.output, re.M)[1]),
                set(re.findall(r"^drew (\w+)", copy.output, re.M)))


def draws_without_news(saved: Save, program: Program, number: int) -> set[str]:
    """The same draws of a clone that has the GUID of the save."""
    with saved.restore(configured=False) as clone:
        copy = clone.program(program)
        clone.run(f"echo {number} {DRAWS} > /run/ask")
        copy.wait_for("^shown$", 60)
        return set(re.findall(r"^drew (\w+)", copy.output, re.M))


def test_random_numbers_of_two_clones_differ(domain):
    domain.run("mkfifo /run/ask")
    # It keeps some draws only. It makes few, so that they are there when it is asked for them.
    domain.start("while :; do :; done")
    program = domain.start("renice -n 19 -p $$; exec draw_random map early <> /run/ask")
    program.wait_for("^drawing")
    with domain.save() as saved:
        (number, first), (_, second) = (first_draws(saved, program) for _ in range(2))
        assert not first & second
        third, fourth = (draws_without_news(saved, program, number) for _ in range(2))
        assert third & fourth, "no proof: with the same GUID the clones differ too"
        assert not (first | second) & (third | fourth)
