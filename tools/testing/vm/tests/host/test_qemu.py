# SPDX-License-Identifier: GPL-2.0
"""QEMU's operations and machines: what each does to the generation, and to what is drawn.

Nothing but the GUID can make the draws of these guests' clones differ.
"""
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fleet import PREDICTABLE
from harness import build, host
from harness.acpi_events import events, load_modules
from harness.channel import Program, State
from harness.guest import BACKEND, Guest, Options, new_guid
from harness.initramfs import Image

pytestmark = [pytest.mark.hosts, pytest.mark.kernels("6.1-cloud", "6.12-cloud")]
# For tests of QEMU's machines, which differ in nothing that the kernel's version changes.
one_kernel = pytest.mark.kernels("6.1-cloud")

WAYS = ("read", "poll", "map", "uevent")
# draw_everywhere maps the GUID by /dev/mem, which OVMF puts into ACPI NVS memory.
DRAWING = {**PREDICTABLE, "append": f"{PREDICTABLE['append']} iomem=relaxed"}
# The number of draws that draw_everywhere prints for each CPU.
DRAWS = 64
ROLLBACKS = 10
TAG = "first"
FIRMWARE = {"seabios": None, "ovmf": Path("/usr/share/ovmf/OVMF.fd")}
CPUS = (1, 2, 4)
# MiB; the larger one continues above 4 GiB. OVMF crashes when it starts the kernel in 128 MiB.
MEMORY = {"small": {"seabios": 128, "ovmf": 256}, "5G": {"seabios": 5120, "ovmf": 5120}}
# These cells have nothing in common.
SHORT = {("pc", "seabios", 4, "small"), ("q35", "ovmf", 2, "5G")}


def start_watchers(guest: Guest) -> list[Program]:
    """Starts a program for each way of waiting for a new generation."""
    watchers = [guest.start(f"wait_generation {way}") for way in WAYS]
    for watcher in watchers:
        watcher.wait_for(r"^watching \d+$")
    return watchers


def expect_new_generation(guest: Guest, watchers: list[Program]) -> None:
    """Fails unless the last event has counted once, and has woken all watchers."""
    for watcher in watchers:
        guest.program(watcher).wait_for("^woken 1$")
    guest.unload_backend()
    assert guest.generation() == 1


def expect_nothing(guest: Guest, watchers: list[Program]) -> None:
    """Fails if the last event has counted, or has woken a watcher."""
    guest.unload_backend()
    assert guest.generation() == 0
    assert [guest.program(watcher).output for watcher in watchers] == ["watching 0\n"] * len(WAYS)


def start_drawing(guest: Guest) -> Program:
    """Starts a program that draws from all interfaces on all CPUs."""
    guest.run("insmod /modules/draw_kernel.ko")
    program = guest.start("draw_everywhere all")
    program.wait_for("^drawing$")
    return program


def draws_since(clone: Guest, program: Program) -> list[str]:
    """Returns what a clone's CPUs drew after its restore."""
    copy = clone.program(program)
    assert copy.wait(60) == 0, copy.output
    values = re.findall(r"^cpu \d+ (\w{32})$", copy.output, re.M)
    assert len(values) == DRAWS * clone.options.smp
    return values


def repeated(draws: list[list[str]]) -> set[str]:
    """Returns the values that occur in several clones."""
    return {value for one, other in itertools.combinations(draws, 2)
            for value in set(one) & set(other)}


# Machines

@pytest.fixture
def small_image(kernel, tmp_path) -> Path:
    """An image with what these tests need, so that little memory is enough."""
    image = Image().basics(build.agent(kernel), kernel.busybox)
    for module in build.built_modules(kernel):
        if module.stem in ("sysgenid", BACKEND, "draw_kernel"):
            image.file(f"modules/{module.name}", module)
    image.file("test/draw_everywhere", build.agent(kernel).with_name("draw_everywhere"))
    return image.write(tmp_path / "initramfs.cpio")


@one_kernel
@pytest.mark.parametrize("machine, firmware, smp, memory", [
    pytest.param(*cell, marks=pytest.mark.short if cell in SHORT else ())
    for cell in itertools.product(("pc", "q35"), FIRMWARE, CPUS, MEMORY)])
def test_clones_count_once_and_draw_differently_on(boot, small_image, machine, firmware,
                                                           smp, memory):
    guest = boot(fresh=True, image=small_image, machine=machine, firmware=FIRMWARE[firmware],
                 smp=smp, memory=MEMORY[memory][firmware], **DRAWING)
    assert int(guest.run("nproc")) == smp
    guest.load_modules()
    program = start_drawing(guest)
    draws = []
    with guest.snapshot() as snap:
        for _ in range(2):
            with snap.restore() as clone:
                draws.append(draws_since(clone, program))
                clone.unload_backend()
                assert clone.generation() == 1
    assert not repeated(draws)


# Live migration

@pytest.mark.short
def test_live_migration_with_the_same_guid_disturbs_nothing(guest):
    load_modules(guest)
    watchers = start_watchers(guest)
    target = guest.migrate()
    assert events(target) == 1, "inconclusive: QEMU has raised no event"
    expect_nothing(target, watchers)


@pytest.mark.short
def test_live_migration_with_another_guid_counts_once_and_is_never_stale(guest):
    load_modules(guest)
    watchers = start_watchers(guest)
    stale = guest.start("stale_window map")
    stale.wait_for("^watching")
    target = guest.migrate(new_guid())
    assert target.program(stale).wait_for(r"^stale (\d+)")[1] == "0"
    expect_new_generation(target, watchers)


def test_migration_there_and_back_counts_each_new_guid(guest):
    """The GUID at the end is the one at the start, but there was another one between."""
    load_modules(guest)
    home = guest.migrate(new_guid()).migrate(guest.options.guid)
    home.unload_backend()
    assert home.generation() == 2


# Snapshots inside a disk image

@pytest.fixture(scope="session")
def disk(tmp_path_factory) -> Path:
    """A disk image that holds snapshots of a guest; no device of the guest uses it."""
    path = tmp_path_factory.mktemp("disk") / "disk.qcow2"
    host.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "2G"], "making a disk image")
    return path


@pytest.fixture
def with_disk(boot, disk) -> Guest:
    guest = boot(settings=("-blockdev", "driver=qcow2,node-name=snapshots,file.driver=file,"
                           f"file.filename={disk}"), **PREDICTABLE)
    load_modules(guest)
    return guest


def monitor(guest: Guest, command: str) -> None:
    """Runs a command of QEMU's monitor, which prints only errors here."""
    said = guest.qmp.command("human-monitor-command", **{"command-line": command})
    assert not said, said


def save(guest: Guest) -> State:
    """Saves the guest, which is stopped then, and returns the state of its programs."""
    guest.qmp.command("stop")
    monitor(guest, f"savevm {TAG}")
    return guest.channel.copy_state()


@contextmanager
def rolled_back(options: Options, state: State, logs: Path, name: str,
                guid: str) -> Iterator[Guest]:
    """Starts another QEMU, which loads the snapshot at its start."""
    options = replace(options, guid=guid, settings=(*options.settings, "-loadvm", TAG, "-S"))
    with Guest(options, logs, name, resumed=state) as guest:
        guest.qmp.command("cont")
        yield guest


def test_savevm_is_no_event(with_disk):
    watchers = start_watchers(with_disk)
    save(with_disk)
    with_disk.qmp.command("cont")
    assert events(with_disk) == 0
    expect_nothing(with_disk, watchers)


def test_loadvm_in_the_same_qemu_keeps_the_guid(with_disk):
    """No guest can detect this rollback: QEMU has one GUID as long as it runs."""
    watchers = start_watchers(with_disk)
    state = save(with_disk)
    with_disk.qmp.command("cont")
    with_disk.run("echo > /run/later")
    with_disk.qmp.command("stop")
    monitor(with_disk, f"loadvm {TAG}")
    with_disk.channel.copy_state()
    with_disk.channel.set_state(state)
    with_disk.qmp.command("cont")
    with_disk.run("[ ! -e /run/later ]")
    assert events(with_disk) == 1
    expect_nothing(with_disk, watchers)


def test_loadvm_in_another_qemu_with_the_same_guid_is_no_event(with_disk, logs):
    watchers = start_watchers(with_disk)
    state = save(with_disk)
    with_disk.kill()
    with rolled_back(with_disk.options, state, logs, "again", with_disk.options.guid) as guest:
        assert events(guest) == 1
        expect_nothing(guest, watchers)


@pytest.mark.short
def test_each_rollback_with_another_guid_counts_once_and_repeats_no_draw(with_disk, logs):
    watchers = start_watchers(with_disk)
    program = start_drawing(with_disk)
    state = save(with_disk)
    with_disk.kill()
    draws = []
    for number in range(ROLLBACKS):
        with rolled_back(with_disk.options, state, logs, f"rollback{number}",
                         new_guid()) as guest:
            draws.append(draws_since(guest, program))
            expect_new_generation(guest, watchers)
    assert not repeated(draws)
