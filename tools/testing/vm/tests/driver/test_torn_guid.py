# SPDX-License-Identifier: GPL-2.0
"""New GUIDs that a test module writes while the guest runs, slowly or at once.

A GUID that changes while it is read is one event, if it is written within 1 ms.

With icount, a nanosecond is an instruction, so that the times are the same in every run.
"""
import pytest
from harness import acpi_tables, kernels

# On debug kernels, an interrupt takes longer than the driver waits.
pytestmark = pytest.mark.kernels(*kernels.STOCK)
TIMES = 20


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A directory for the table, whose path stays so that guests share a snapshot."""
    return tmp_path_factory.mktemp("torn")


@pytest.fixture
def slowly_written(boot, tables):
    """A guest whose GUID can be written piece by piece."""
    table = acpi_tables.compiled(acpi_tables.WRITABLE_DEVICE, tables)
    guest = boot(acpi=acpi_tables.archive(tables, table), guid=None, icount=True,
                 append=acpi_tables.KEEP_WRITABLE)
    guest.load_modules()
    guest.run(f"insmod /modules/write_guid.ko address={acpi_tables.WRITABLE_ADDRESS:#x}")
    return guest


def increments(guest, size: int, nanoseconds: int) -> list[int]:
    """Returns the increment of the generation for each GUID written in such pieces."""
    said = guest.run(f"torn_guid {TIMES} {size} {nanoseconds}")
    assert len(said.split()) == TIMES
    return [int(word) for word in said.split()]


@pytest.mark.parametrize("size, nanoseconds", (
    (16, 0), (8, 1_000), (8, 10_000), (8, 100_000), (8, 900_000),
    (4, 15_000), (1, 1_000), (1, 5_000), (1, 15_000)))
def test_slowly_written_guid_counts_once(slowly_written, size, nanoseconds):
    assert set(increments(slowly_written, size, nanoseconds)) == {1}


def test_halves_2_ms_apart_count_twice_if_seen_between(slowly_written):
    """A timer tick may also see a GUID between its halves."""
    seen_between = [times % 16 >= 8 for times in range(TIMES, 0, -1)]
    for count, seen in zip(increments(slowly_written, 8, 2_000_000), seen_between, strict=True):
        assert count in ((2,) if seen else (1, 2))


def test_draw_publishes_new_guid_before_next_tick(slowly_written, kernel):
    """The draw itself may not wait until the GUID has settled: a timer does."""
    if kernel.setting("PREEMPT_RT"):
        pytest.skip("there are no looks with PREEMPT_RT")
    waits = [float(word) for word in slowly_written.run(f"publish_after_draw {TIMES}").split()]
    tick = 1e6 / int(kernel.setting("HZ"))
    assert len(waits) == TIMES and max(waits) < tick / 10, waits
