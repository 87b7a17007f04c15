# SPDX-License-Identifier: GPL-2.0
"""sysgenid prepare: the hooks before a snapshot, and their undoing."""
import json

import pytest
import test_overseer
from harness import userspace
from test_overseer import FAILED, SETTLED, Overseer, boot_gated, host_waits, load_kernel_module

image, kernel = test_overseer.image, test_overseer.kernel   # fixtures
pytestmark = [pytest.mark.kernels("6.1-cloud", "6.12-cloud"), pytest.mark.debian]

ERROR, PERMISSION = 1, 4
DIRECTORY = "/etc/sysgenid/pre-snapshot.d"
SHIPPED = "/usr/share/sysgenid/pre-snapshot"
NOTE = "echo $(basename $0) $1 >> /run/ran"


@pytest.fixture
def guest(boot, image):
    guest = boot(image=image)
    guest.load_modules()
    Overseer(guest).settled()
    return guest


def add(guest, name: str, script: str = NOTE, mode: str = "755") -> None:
    guest.run(f"mkdir -p {DIRECTORY}; cat > {DIRECTORY}/{name} <<'end'\n#!/bin/sh\n{script}\nend\n"
              f"chmod {mode} {DIRECTORY}/{name}")


def ran(guest) -> list[str]:
    return guest.run("cat /run/ran 2>/dev/null; rm -f /run/ran").splitlines()


def fails(guest, script: str) -> tuple[int, str]:
    program = guest.start(script)
    return program.wait(60), program.output


def is_prepared(guest) -> bool:
    return json.loads(guest.run("sysgenid status --json"))["prepared"]


def test_source_undoes_by_hand_and_clone_by_overseer(guest):
    add(guest, "10-database", f"{NOTE}; echo $SYSGENID_GENERATION > /run/generation")
    add(guest, "20-files")
    userspace_hook = f"echo hook >> /run/ran; sysgenid status > /run/status; cat {DIRECTORY}/none"
    guest.run(f"printf '#!/bin/sh\\n{userspace_hook} || true\\n' > {userspace.HOOKS}/10-hook;"
              f"chmod 755 {userspace.HOOKS}/10-hook")
    said = guest.run("sysgenid prepare --dry-run")
    assert f"10-database would be run: {DIRECTORY}/10-database freeze\n" in said
    assert not ran(guest) and not is_prepared(guest)
    assert guest.run("sysgenid prepare").startswith("prepared: ")
    assert ran(guest) == ["10-database freeze", "20-files freeze"]
    assert is_prepared(guest) and "prepared      for a snapshot" in guest.run("sysgenid status")
    assert fails(guest, "sysgenid prepare") == (
        ERROR, "sysgenid: the system is already prepared: sysgenid prepare --undo\n")
    with guest.snapshot() as snap:
        with snap.restore() as clone:
            said = Overseer(clone).settled()
            assert SETTLED.format(1, 1, 0, 0) in said
            assert ran(clone) == ["20-files thaw", "10-database thaw", "hook"]
            assert clone.run("cat /run/generation") == "1\n"
            assert not is_prepared(clone)
            assert "nothing to undo" in clone.run("sysgenid prepare --undo") and not ran(clone)
        # With the same GUID, the restored guest is the source.
        with snap.restore(snap.options.guid) as source:
            assert not ran(source) and is_prepared(source)
            assert source.run("sysgenid prepare --undo") == "undone\n"
            assert ran(source) == ["20-files thaw", "10-database thaw"]
            assert not is_prepared(source) and source.run("sysgenid get") == "0\n"


def test_failed_hook_undoes_earlier_hooks(guest):
    add(guest, "10-first")
    add(guest, "20-fails", f"{NOTE}; echo why; [ $1 = thaw ]")
    add(guest, "30-later")
    status, said = fails(guest, "sysgenid prepare")
    assert status == ERROR and "hook 20-fails failed: exit status 1\n" in said
    assert "hook 20-fails: why\n" in said and "not prepared: everything done is undone" in said
    assert ran(guest) == ["10-first freeze", "20-fails freeze", "20-fails thaw", "10-first thaw"]
    assert not is_prepared(guest)
    # A failed undo is reported, and the other hooks are undone.
    add(guest, "15-stays", f"{NOTE}; [ $1 = freeze ]")
    status, said = fails(guest, "sysgenid prepare")
    assert status == ERROR and "undoing 15-stays failed: exit status 1" in said
    assert "some hooks failed to undo their preparation" in said
    assert ran(guest)[-4:] == ["15-stays thaw"] * 3 + ["10-first thaw"]


def test_failed_undo_is_failure_of_generation(guest):
    add(guest, "10-stays", f"{NOTE}; echo stuck; [ $1 = freeze ]")
    guest.run("sysgenid prepare")
    with guest.snapshot() as snap, snap.restore() as clone:
        said = Overseer(clone).settled(FAILED)
        assert "hook 10-stays failed to undo what it did before the snapshot: exit status 1" in said
        status = json.loads(clone.run("sysgenid status --json"))
        assert status["failures"] == [{"kind": "hook", "name": "10-stays", "attempts": 3,
                                       "reason": "exit status 1"}]
        assert status["output"] == {"10-stays": "stuck\n"}


def test_trust_and_timeout_of_other_hooks_apply(guest):
    add(guest, "10-open", NOTE, "777")
    status, said = fails(guest, "sysgenid prepare")
    assert status == ERROR and "10-open is writable by everybody" in said
    assert not ran(guest) and not is_prepared(guest)
    guest.run(f"rm {DIRECTORY}/*; chmod 777 {DIRECTORY}")
    status, said = fails(guest, "sysgenid prepare")
    assert status == ERROR and f"no hook of {DIRECTORY} is run: {DIRECTORY} is writable" in said
    guest.run(f"chmod 755 {DIRECTORY}")
    add(guest, "10-hangs", f"{NOTE}; [ $1 = thaw ] || sleep 1000")
    unit = "/run/systemd/system/sysgenid-hook-pre-snapshot-10-hangs.service.d"
    guest.run(f"mkdir -p {unit}; printf '[Service]\\nTimeoutStartSec=2\\n' > {unit}/override.conf;"
              "systemctl daemon-reload")
    status, said = fails(guest, "sysgenid prepare")
    assert status == ERROR
    assert ran(guest) == ["10-hangs freeze", "10-hangs thaw"]
    status, said = fails(guest, "setpriv --reuid=65534 --clear-groups sysgenid prepare")
    assert status == PERMISSION and "only root may prepare" in said


def test_interrupted_prepare_undoes_and_killed_one_by_hand(guest):
    add(guest, "10-first")
    add(guest, "20-hangs", f"{NOTE}; [ $1 = thaw ] || sleep 1000")
    begun = "until grep -q '20-hangs freeze' /run/ran; do sleep 0.1; done"
    undone = ["10-first freeze", "20-hangs freeze", "20-hangs thaw", "10-first thaw"]
    program = guest.start("exec sysgenid prepare")
    guest.run(f"{begun}; kill -INT $(pidof sysgenid)")
    assert program.wait(60) == ERROR and "interrupted in 20-hangs" in program.output
    assert ran(guest) == undone and "sleep 1000" not in guest.run("ps ax")
    program = guest.start("exec sysgenid prepare")
    guest.run(begun)
    assert fails(guest, "sysgenid prepare --undo") == (
        ERROR, "sysgenid: another process is preparing the system, or undoing that: try later\n")
    guest.run("kill -KILL $(pidof sysgenid)")
    program.wait()
    assert is_prepared(guest)
    assert guest.run("sysgenid prepare --undo", 60) == "undone\n"
    assert ran(guest) == undone and "sleep 1000" not in guest.run("ps ax")


def test_early_snapshot_is_detected(guest):
    add(guest, "10-slow", f"{NOTE}; [ $1 = thaw ] || until test -e /run/go; do sleep 0.1; done")
    add(guest, "20-later")
    program = guest.start("exec sysgenid prepare")
    guest.run("until test -e /run/ran; do sleep 0.1; done")
    with guest.snapshot() as snap, snap.restore() as clone:
        # The overseer waits for the running prepare.
        clone.run("until sysgenid get | grep -q 1; do sleep 0.1; done; touch /run/go")
        copy = clone.program(program)
        assert copy.wait(60) == ERROR and "a snapshot was restored before" in copy.output
        Overseer(clone).settled()
        assert ran(clone) == ["10-slow freeze", "10-slow thaw"] and not is_prepared(clone)


def test_prepare_needs_overseer(guest):
    add(guest, "10-first")
    guest.run("systemctl mask --runtime --now sysgenidd; rm -rf /run/sysgenid")
    status, said = fails(guest, "sysgenid prepare")
    assert status == ERROR and "the overseer is not running" in said and not ran(guest)


def test_shipped_hooks_freeze_other_file_systems(guest):
    load_kernel_module(guest, "loop.ko")
    guest.run(f"mkdir -p {DIRECTORY} '/srv/two words'; ln -s {SHIPPED}/* {DIRECTORY}/;"
              "truncate -s 16M /run/disk; mkfs.ext4 -q /run/disk;"
              "mount -o loop /run/disk '/srv/two words'")
    write = "timeout 2 dd if=/dev/zero of='/srv/two words/file' count=1 conv=fsync 2>/dev/null"
    guest.run(f"{write}; sysgenid prepare")
    program = guest.start(f"{write}; echo written >> /run/written")
    assert guest.status("fsfreeze -f '/srv/two words'") != 0, "the file system is not frozen"
    with guest.snapshot() as snap, snap.restore() as clone:
        Overseer(clone).settled()
        clone.run(write)
        assert clone.program(program).wait(60) == 0
        clone.run("sysgenid prepare; sysgenid prepare --undo", 60)
        clone.run(write)


def test_host_sees_prepared_system(boot, image):
    guest = boot_gated(boot, image)
    add(guest, "10-first")
    assert host_waits(guest)[1][-1]["prepared"] is False
    guest.run("sysgenid prepare")
    assert host_waits(guest)[1][-1]["prepared"] is True
    with guest.snapshot() as snap, snap.restore() as clone:
        status, states = host_waits(clone)
        assert status == 0 and states[-1]["prepared"] is False
