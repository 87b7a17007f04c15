# SPDX-License-Identifier: GPL-2.0
"""The harness itself fails when it should, and loses nothing."""
import os
import select
import signal
import subprocess
import sys

import pytest
from harness import build, host, scan
from harness.channel import GuestGone
from harness.guest import Guest, Options

pytestmark = pytest.mark.kernels("6.1-cloud")

# Kernels print such lines when they detect a bug.
FINDINGS = (
    "BUG: kernel NULL pointer dereference, address: 0000000000000000",
    "BUG: KASAN: slab-use-after-free in sysgenid_read+0x1c/0x80 [sysgenid]",
    "BUG: KCSAN: data-race in sysgenid_poll / sysgenid_notify",
    "BUG: sleeping function called from invalid context at mm/slab.h:494",
    "BUG: unable to handle page fault for address: ffffffffc0000000",
    "WARNING: CPU: 0 PID: 1 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "Oops: 0000 [#1] PREEMPT SMP PTI",
    "general protection fault, probably for non-canonical address",
    "UBSAN: array-index-out-of-bounds in drivers/misc/sysgenid.c:100:2",
    "kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "kmemleak: Kernel memory leak detector disabled",
    "unreferenced object 0xffff888003a4c2c0 (size 32):",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:88]",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "INFO: task insmod:70 blocked for more than 120 seconds.",
    "Call Trace:",
    "Kernel panic - not syncing: Attempted to kill init!",
    "Initramfs unpacking failed: write error",
    "irq 9: nobody cared (try booting with the \"irqpoll\" option)",
)


@pytest.mark.parametrize("line", FINDINGS)
def test_scan_finds_kernel_reports(line):
    assert scan.findings(f"[    1.0] fine\n[    2.0] {line}\n", []) == [f"[    2.0] {line}"]


def write_log(guest: Guest, text: str) -> None:
    guest.run(f"echo '{text}' > /dev/kmsg")


def test_finding_in_log_fails_test(kernel, logs):
    options = Options(kernel, build.image(kernel))
    with pytest.raises(AssertionError, match="BUG: made up"), Guest(options, logs) as guest:
        write_log(guest, "BUG: made up")


def test_expected_finding_passes(boot):
    guest = boot()
    guest.expect("BUG: made up")
    write_log(guest, "BUG: made up")


def test_panic_ends_guest_and_keeps_log(boot):
    guest = boot()
    guest.expect("sysrq|Trace|panic|Oops|cut here")
    with pytest.raises(GuestGone):
        guest.run("echo c > /proc/sysrq-trigger")
    assert "sysrq triggered crash" in guest.log()


def test_timeout_ends_hung_command(boot):
    with pytest.raises(GuestGone, match="within"):
        boot().run("sleep 1000", seconds=0.5)


def test_failed_command_shows_its_output(boot):
    with pytest.raises(AssertionError, match="ended with 3:\nwhy"):
        boot().run("echo why; exit 3")


def test_snapshot_loses_no_output(boot):
    guest = boot()
    counter = guest.start("i=0; while :; do i=$((i+1)); echo $i; done")
    counter.wait_for("^100$")
    with guest.snapshot() as snap, snap.restore_all(None, None) as clones:
        for clone in clones:
            copy = clone.program(counter)
            said = len(copy.output.split())
            copy.wait_for(f"^{said + 100}$")
            copy.kill()
            assert copy.wait() == 128 + signal.SIGTERM
            lines = copy.output.splitlines()
            assert lines == [str(number + 1) for number in range(len(lines))]


ORPHAN = """
import sys; sys.path.insert(0, {here!r})
from harness import build, kernels
from harness.guest import *
kernel = kernels.get({kernel!r})
print(Guest(Options(kernel, build.image(kernel)), Path({logs!r})).process.pid, flush=True)
sys.stdin.read()
"""


def test_qemu_dies_with_harness(kernel, logs):
    code = ORPHAN.format(here=str(host.ROOT / "tools/testing/vm"), kernel=kernel.name, logs=str(logs))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as harness:
        qemu = os.pidfd_open(int(harness.stdout.readline()))
        harness.kill()
    ended = select.select([qemu], [], [], 30)[0]
    os.close(qemu)
    assert ended


def test_closed_guests_leave_no_descriptor_open(kernel, logs):
    """A run has thousands of guests, and a process has a limit."""
    before = len(os.listdir("/proc/self/fd"))
    with Guest(Options(kernel, build.image(kernel), "auto"), logs) as guest:
        with guest.snapshot() as snap, snap.restore() as clone:
            reader = clone.channel.reader
    reader.join(30)
    assert guest.channel.closed and clone.channel.closed
    assert len(os.listdir("/proc/self/fd")) == before


def test_half_made_directory_is_removed(tmp_path):
    with pytest.raises(host.SetupError), host.making(tmp_path / "made"):
        raise host.SetupError("the disk is full")
    assert not list(tmp_path.iterdir())


def test_half_made_directory_of_killed_run_is_replaced(tmp_path):
    (tmp_path / ".made.half-made/rubbish").mkdir(parents=True)
    with host.making(tmp_path / "made") as directory:
        (directory / "content").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "content"]
