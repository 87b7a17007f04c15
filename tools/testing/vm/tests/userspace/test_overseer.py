# SPDX-License-Identifier: GPL-2.0
"""sysgenidd(8), the overseer, under systemd: hooks, restarts and failures."""
import json
import struct
import subprocess
from dataclasses import replace

import pytest
from harness import kernels, userspace
from harness.userspace import (HOOKS, PORT_MODULES, SHIPPED_HOOKS, STATE, STATE_DIRECTORY,
                               WAIT_SETTLED, load_kernel_module)

pytestmark = [pytest.mark.kernels("6.1-cloud", "6.12-cloud"), pytest.mark.debian]

KERNEL_MODULES = (*PORT_MODULES, "kernel/drivers/block/loop.ko")
DROP_IN = "/run/systemd/system/sysgenidd.service.d"
TIMEOUT, FAILED = 5, 6
SETTLED = r"generation {} settled (hooks: {} done, {} failed; other failures: {})"


class Overseer:
    """sysgenidd.service in a guest; udev may have started it with the module."""

    def __init__(self, guest, options: str = ""):
        self.guest = guest
        if options:
            guest.run("systemctl stop sysgenidd;"
                      f"echo SYSGENIDD_OPTIONS={options!r} > /etc/default/sysgenid", 120)
        guest.run(f"mkdir -p {DROP_IN}; systemctl start sysgenidd", 120)

    def said(self) -> str:
        return self.guest.run("journalctl --sync; journalctl -q -o cat -u sysgenidd")

    def wait_for(self, text: str) -> str:
        """Waits until the overseer has logged the text; returns its log."""
        self.guest.run("until { journalctl --sync; journalctl -q -o cat -u sysgenidd; } |"
                       f" grep -qF \"{text}\"; do sleep 0.1; done", 120)
        return self.said()

    def settled(self, status: int = 0) -> str:
        """Waits until wait-settled ends with that status; returns the overseer's log."""
        assert self.guest.status("sysgenid wait-settled --timeout=200", 240) == status, self.said()
        return self.said()

    def end(self) -> None:
        self.guest.run("systemctl stop sysgenidd", 60)

    def kill(self) -> None:
        self.guest.run("systemctl kill -s KILL --kill-whom=main sysgenidd")


@pytest.fixture(scope="session")
def kernel(request):
    """The stock kernel with longer time limits, as a whole system boots slowly."""
    return replace(kernels.get(request.param), patience=2, memory=640)


@pytest.fixture(scope="module")
def image(kernel):
    return userspace.make_systemd_image(kernel, KERNEL_MODULES)


@pytest.fixture
def guest(boot, image):
    guest = boot(image=image)
    guest.load_modules()
    return guest


def add_hook(guest, name: str, script: str, mode: str = "755") -> None:
    guest.run(f"cat > {HOOKS}/{name} <<'end'\n#!/bin/sh\n{script}\nend\n"
              f"chmod {mode} {HOOKS}/{name}")


def add_unit(guest, name: str, *lines: str) -> None:
    """Adds a service that sysgenid-changed.target wants."""
    wants = "/run/systemd/system/sysgenid-changed.target.wants"
    text = "\n".join(("[Service]", *lines))
    guest.run(f"mkdir -p {wants}; cat > /run/systemd/system/{name}.service <<'end'\n{text}\nend\n"
              f"ln -s ../{name}.service {wants}/; systemctl daemon-reload")


def test_clone_runs_hooks_in_order_and_settles(guest):
    add_hook(guest, "20-second", "echo second $SYSGENID_GENERATION >> /run/ran")
    add_hook(guest, "10-first", "echo first $SYSGENID_GENERATION after"
             " $SYSGENID_PREVIOUS_GENERATION >> /run/ran; echo hello bäcker")
    Overseer(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        overseer = Overseer(clone)
        said = overseer.settled()
        assert SETTLED.format(1, 2, 0, 0) in said
        assert clone.run("cat /run/ran") == "first 1 after 0\nsecond 1\n"
        assert "hook 10-first: hello bäcker\n" in said


# Settling

def test_nobody_gets_past_running_hook(guest):
    add_hook(guest, "10-slow", "touch /run/began; until test -e /run/go; do sleep 0.1; done")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger; until test -e /run/began; do sleep 0.1; done")
    for command in ("wait-watchers", "wait-settled"):
        assert guest.status(f"sysgenid {command} --timeout=0.5") == TIMEOUT
    status = json.loads(guest.run("sysgenid status --json"))
    assert (status["state"], status["hook"], status["outdated"]) == ("hooks", "10-slow", 1)
    waiting = guest.start("sysgenid wait-watchers; test -e /run/go && echo past")
    guest.run("touch /run/go")
    assert waiting.wait(60) == 0 and waiting.output == "past\n"
    overseer.settled()


def test_nobody_gets_past_starting_unit_or_dependency(guest):
    add_unit(guest, "wanted", "Type=oneshot", "ExecStart=/bin/true", "[Unit]", "Wants=slow.service")
    guest.run("cat > /run/systemd/system/slow.service <<'end'\n[Service]\nType=oneshot\n"
              "ExecStart=sh -c 'touch /run/began; until test -e /run/go; do sleep 0.1; done'\n"
              "end\nsystemctl daemon-reload")
    overseer = Overseer(guest, "--watchers-timeout=1")
    guest.run("sysgenid trigger; until test -e /run/began; do sleep 0.1; done")
    overseer.wait_for("generation 1 still waits for the job of slow.service")
    for command in ("wait-watchers", "wait-settled"):
        assert guest.status(f"sysgenid {command} --timeout=0.5") == TIMEOUT
    status = json.loads(guest.run("sysgenid status --json"))
    assert (status["state"], status["outdated"]) == ("units", 1)
    guest.run("touch /run/go")
    overseer.settled()


def test_each_generation_restarts_active_units(guest):
    add_unit(guest, "stays", "Type=oneshot", "RemainAfterExit=yes",
             "ExecStart=sh -c 'echo started >> /run/ran'")
    overseer = Overseer(guest)
    for number in (1, 2):
        guest.run("sysgenid trigger")
        overseer.settled()
        assert guest.run("cat /run/ran") == "started\n" * number


def test_failed_unit_is_failure(guest):
    add_unit(guest, "broken", "Type=oneshot", "ExecStart=/bin/false")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    said = overseer.settled(FAILED)
    assert "broken.service can't be started: failed" in said
    assert SETTLED.format(1, 0, 0, 1) in said


# A service whose state no clone may share. It starts while /run/go exists.
KEEPS = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'until test -e /run/go; do sleep 0.1; done; echo started >> /run/%N'
ExecReload=sh -c 'echo reloaded >> /run/%N'
"""
# The drop-in of Documentation/programs.rst.
RELOADS = """[Service]
ExecStart=
ExecStart=systemctl try-reload-or-restart %i
"""


def test_restart_unit_restarts_running_service_before_settled(guest):
    names, units = ("restarts", "reloads", "stopped"), "/run/systemd/system"
    for name in names:
        guest.run(f"cat > {units}/{name}.service <<'end'\n{KEEPS}end")
    guest.run(f"cd {units}; mkdir sysgenid-restart@reloads.service.d;"
              f"cat > sysgenid-restart@reloads.service.d/reload.conf <<'end'\n{RELOADS}end\n"
              "touch /run/go; systemctl daemon-reload; systemctl start restarts reloads")
    enabled = " ".join(f"sysgenid-restart@{name}.service" for name in names)
    guest.run(f"systemctl enable --now {enabled}; rm /run/go /run/restarts /run/reloads", 60)
    overseer = Overseer(guest)
    for number in (1, 2):
        guest.run("sysgenid trigger")
        assert guest.status("sysgenid wait-settled --timeout=0.5") == TIMEOUT
        guest.run("touch /run/go")
        overseer.settled()
        assert guest.run("cat /run/restarts /run/reloads") == (
            "started\n" * number + "reloaded\n" * number)
        guest.run("rm /run/go")
    assert guest.status("test -e /run/stopped") != 0
    guest.run(f"sed -i 's/until.*started/false/' {units}/restarts.service; systemctl daemon-reload;"
              "sysgenid trigger")
    assert "sysgenid-restart@restarts.service can't be started: failed" in overseer.settled(FAILED)


def test_nobody_gets_past_killed_overseer(guest):
    add_hook(guest, "10-slow", "touch /run/began; until test -e /run/go; do sleep 0.1; done")
    overseer = Overseer(guest)
    guest.run("printf '[Service]\nRestartSec=3\n'"
              f" > {DROP_IN}/restart.conf; systemctl daemon-reload;"
              "sysgenid trigger; until test -e /run/began; do sleep 0.1; done")
    overseer.kill()
    guest.run("while pidof sysgenidd; do sleep 0.05; done")
    # The kernel alone still counts the overseer as outdated.
    assert guest.run("cat /sys/class/misc/sysgenid/outdated") == "1\n"
    for command in ("wait-watchers", "wait-settled"):
        assert guest.status(f"sysgenid {command} --timeout=0.2") == TIMEOUT
    guest.run("touch /run/go")
    overseer.settled()
    assert guest.run("cat /sys/class/misc/sysgenid/outdated") == "0\n"


def test_nothing_settles_without_overseer(guest):
    # The uevent of the new generation would start an overseer that is only stopped.
    guest.run("systemctl mask --runtime --now sysgenidd", 60)
    guest.run("sysgenid trigger")
    program = guest.start("sysgenid wait-settled --timeout=0.5")
    assert program.wait() == TIMEOUT
    assert "the overseer has not handled this generation" in program.output


def test_overseer_names_watchers_it_waits_for(guest):
    overseer = Overseer(guest, "--watchers-timeout=1")
    watcher = guest.start("sysgenid run -- sh -c 'test -e /run/good'")
    guest.run("until grep -q 2 /sys/class/misc/sysgenid/watchers; do sleep 0.1; done")
    guest.run("sysgenid trigger")
    said = overseer.wait_for("generation 1 still waits for sysgenid")
    assert "settled (" not in said and "still waits for sysgenidd" not in said
    assert json.loads(guest.run("sysgenid status --json"))["state"] == "watchers"
    guest.run("touch /run/good")
    overseer.settled()
    watcher.kill()


def test_hook_survives_daemon_reexec(guest):
    add_hook(guest, "10-slow", "touch /run/began; until test -e /run/go; do sleep 0.1; done; echo last")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger; until test -e /run/began; do sleep 0.1; done;"
              "systemctl daemon-reexec; touch /run/go", 60)
    said = overseer.settled()
    assert SETTLED.format(1, 1, 0, 0) in said and "hook 10-slow: last" in said


# VMClock

def write_vmclock(guest, sequence: int, generation: int) -> None:
    """Writes the page of fake_vmclock in the host's place."""
    page = struct.pack("<IIHHIQQ72xQ", 0x4B4C4356, 4096, 1, 0, sequence, 0, 3 << 8, generation)
    guest.run("printf '" + "".join(f"\\{byte:03o}" for byte in page) + "' > /dev/vmclock0")


def test_vmclock_alone_drives_overseer(boot, image):
    guest = boot(image=image, guid=None)
    add_hook(guest, "10-note", "echo $SYSGENID_GENERATION after"
             " $SYSGENID_PREVIOUS_GENERATION >> /run/ran")
    guest.run("insmod /modules/fake_vmclock.ko")
    write_vmclock(guest, 2, 2**40)
    # udev starts the overseer.
    guest.run("until systemctl -q is-active sysgenidd; do sleep 0.1; done", 60)
    overseer = Overseer(guest)
    overseer.settled()
    status = json.loads(guest.run("sysgenid status --json"))
    assert (status["source"], status["generation"]) == ("vmclock", 2**40)
    write_vmclock(guest, 4, 7)
    assert SETTLED.format(7, 1, 0, 0) in overseer.settled()
    guest.run("systemctl restart sysgenidd")
    overseer.settled()
    assert guest.run("cat /run/ran") == f"7 after {2**40}\n"
    assert guest.status("test -e /dev/sysgenid") != 0


# The host's gate

def boot_gated(boot, image):
    """Boots a guest whose host can wait until it has settled."""
    guest = boot(image=image, gate=True)
    for path in PORT_MODULES:
        load_kernel_module(guest, path.rpartition("/")[2])
    guest.load_modules()
    Overseer(guest).settled()
    return guest


@pytest.fixture
def gated(boot, image):
    return boot_gated(boot, image)


def host_waits(guest, timeout: float = 60) -> tuple[int, list[dict]]:
    """Runs the host's example; returns its exit status, and the guest's states."""
    done = subprocess.run([WAIT_SETTLED, guest.gate, f"--timeout={timeout}"], check=False,
                          stdout=subprocess.PIPE, text=True)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_host_waits_until_clone_settles(gated):
    assert host_waits(gated)[0] == 0
    add_hook(gated, "10-slow", "until test -e /run/go; do sleep 0.1; done")
    with gated.snapshot() as snap, snap.restore() as clone:
        status, states = host_waits(clone, 5)
        assert status == 2 and states[-1]["state"] == "hooks" and states[-1]["hook"] == "10-slow"
        clone.run("touch /run/go")
        status, states = host_waits(clone)
        assert status == 0
        assert (states[-1]["generation"], states[-1]["state"]) == (1, "settled")


def test_host_ignores_state_from_before_restore(gated):
    # All daemons are stopped in the clone, so an answer would be from before the restore.
    gated.run("systemctl kill -s STOP sysgenidd sysgenid-gate")
    with gated.snapshot() as snap, snap.restore() as clone:
        assert host_waits(clone, 3) == (2, [])
        # With the overseer still stopped, the gate says that the state is pending.
        clone.run("systemctl kill -s CONT sysgenid-gate")
        status, states = host_waits(clone, 5)
        assert status == 2 and {state["state"] for state in states} == {"pending"}
        clone.run("systemctl kill -s CONT sysgenidd")
        assert host_waits(clone)[0] == 0


def test_host_waits_while_reseed_fails(gated):
    gated.run("insmod /modules/fail_reseed.ko")
    with gated.snapshot() as snap, snap.restore() as clone:
        clone.expect("reseeding the random number generator failed")
        assert clone.run("sysgenid get") == "0\n", "no generation without a reseed"
        status, states = host_waits(clone, 5)
        assert status == 2 and {state["state"] for state in states} == {"pending"}
        for command in ("wait-settled", "wait-watchers"):
            assert clone.status(f"sysgenid {command} --timeout=0.5") == TIMEOUT
        clone.run("systemctl restart sysgenidd")
        status, states = host_waits(clone, 5)
        assert status == 2 and {state["state"] for state in states} == {"pending"}
        # The driver retries at each look.
        clone.run("rmmod fail_reseed")
        status, states = host_waits(clone)
        assert status == 0
        assert (states[-1]["generation"], states[-1]["state"]) == (1, "settled")


def test_host_waits_while_reseed_fails_during_hook(gated):
    add_hook(gated, "10-slow", "touch /run/began; until test -e /run/go; do sleep 0.1; done")
    gated.run("insmod /modules/fail_reseed.ko")
    Overseer(gated, "--watchers-timeout=1")
    gated.run("sysgenid trigger; until test -e /run/began; do sleep 0.1; done")
    with gated.snapshot() as snap, snap.restore() as clone:
        clone.expect("reseeding the random number generator failed")
        clone.run("touch /run/go")
        Overseer(clone).wait_for("generation 1 still waits for the kernel, which failed to reseed")
        status, states = host_waits(clone, 5)
        assert status == 2 and {state["state"] for state in states} <= {"pending", "watchers"}
        clone.run("rmmod fail_reseed")
        status, states = host_waits(clone)
        assert status == 0
        assert (states[-1]["generation"], states[-1]["state"]) == (2, "settled")


def test_host_learns_of_failures(gated):
    add_hook(gated, "10-fails", "exit 3")
    gated.run("sysgenid trigger")
    status, states = host_waits(gated)
    assert status == 1 and states[-1]["state"] == "failed"
    assert states[-1]["failures"] == [{"kind": "hook", "name": "10-fails", "attempts": 3,
                                       "reason": "exit status 3"}]


def test_host_does_not_get_past_killed_overseer(gated):
    gated.run(f"printf '[Service]\nRestart=no\n' > {DROP_IN}/restart.conf;"
              "systemctl daemon-reload")
    add_hook(gated, "10-slow", "touch /run/began; sleep 1000")
    gated.run("sysgenid trigger; until test -e /run/began; do sleep 0.1; done;"
              "systemctl kill -s KILL --kill-whom=main sysgenidd")
    assert host_waits(gated, 3)[0] == 2
    gated.run("sysgenid trigger")
    assert host_waits(gated, 3)[0] == 2


def test_host_does_not_get_past_full_disk(gated):
    gated.run("systemctl stop sysgenidd; rm -rf /var/lib/sysgenid")
    make_disk(gated, "-o size=4k")
    gated.run(f"echo full > {STATE_DIRECTORY}/fill; sysgenid trigger; systemctl start sysgenidd")
    status, states = host_waits(gated)
    assert status == 1 and states[-1]["failures"][-1]["kind"] == "state"
    # The host waits for an overseer that cannot publish the hardware's identity.
    gated.run(f"umount {STATE_DIRECTORY}; mkdir /run/sysgenid/identity.json.new; sysgenid trigger")
    Overseer(gated).wait_for("generation 2 settled")
    status, states = host_waits(gated, 5)
    assert status == 2 and states[-1]["state"] == "pending"
    assert gated.status("sysgenid wait-settled --timeout=0.5") == TIMEOUT
    gated.run("rmdir /run/sysgenid/identity.json.new; sysgenid trigger")
    assert host_waits(gated)[0] == 0
    # The same holds if it cannot publish its state at all.
    gated.run("systemctl stop sysgenidd; mount -t tmpfs -o size=4k tmpfs /run/sysgenid;"
              "echo full > /run/sysgenid/fill; sysgenid trigger; systemctl start sysgenidd")
    assert host_waits(gated, 5)[0] == 2


# Hooks

def test_bad_hooks_are_reported_and_others_run(guest):
    add_hook(guest, "10-fails", "echo why; exit 3")
    add_hook(guest, "20-hangs", "trap '' TERM; sleep 1000 & while :; do wait; done")
    add_hook(guest, "30-floods", "head -c 300000 /dev/zero | tr '\\0' 'y\\n'; echo end")
    add_hook(guest, "35-floods-lines", "yes | head -n 100000")
    add_hook(guest, "40-not-executable", "touch /run/wrong", "644")
    add_hook(guest, "50-world-writable", "touch /run/wrong", "757")
    add_hook(guest, "55-group-writable", "touch /run/wrong", "775")
    add_hook(guest, "60-not-roots", "touch /run/wrong")
    add_hook(guest, "70-no-interpreter", "")
    add_hook(guest, "80.dpkg-old", "touch /run/wrong")
    add_hook(guest, "99-good", "touch /run/right")
    guest.run(f"chown nobody {HOOKS}/60-not-roots; chgrp nogroup {HOOKS}/55-group-writable;"
              f"echo '#!/nowhere' > {HOOKS}/70-no-interpreter; mkdir {HOOKS}/90-directory;"
              f"ln -s /nowhere {HOOKS}/95-dangling; mkdir -m 777 /srv/open;"
              f"cp {HOOKS}/99-good /srv/open/hook; ln -s /srv/open/hook {HOOKS}/97-in-the-open")
    overseer = Overseer(guest, "--hook-timeout=10 --hook-attempts=1")
    guest.run("sysgenid trigger")
    said = overseer.settled(FAILED)
    for sentence in ("hook 10-fails failed after 1 attempts: exit status 3",
                     "hook 20-hangs failed after 1 attempts: timeout",
                     "hook 30-floods printed more than 65536 bytes or 500 lines, "
                     "the rest is dropped",
                     "hook 35-floods-lines printed more than",
                     f"40-not-executable is not run: {HOOKS}/40-not-executable is not executable",
                     f"50-world-writable is not run: {HOOKS}/50-world-writable is writable by "
                     "everybody",
                     f"is not run: {HOOKS}/55-group-writable is writable by a group or ACL entry",
                     f"60-not-roots is not run: {HOOKS}/60-not-roots does not belong to root",
                     "hook 70-no-interpreter failed after 1 attempts: exit status 203",
                     f"90-directory is not run: {HOOKS}/90-directory is not a file",
                     "95-dangling is not run: No such file or directory",
                     "97-in-the-open is not run: /srv/open is writable by everybody\n",
                     SETTLED.format(1, 3, 10, 0)):
        assert sentence in said, sentence
    assert len(said) < 90000 and said.count("hook 35-floods-lines: y\n") == 500
    guest.run("test -e /run/right && ! test -e /run/wrong")
    assert "sleep 1000" not in guest.run("ps ax"), "the hook's child is still running"


def test_failed_hook_is_retried_and_stays_visible(guest):
    add_hook(guest, "10-fails", "echo try >> /run/ran; echo 'no such bäcker'; exit 3")
    add_hook(guest, "20-second-time", "test -e /run/once || { touch /run/once; exit 1; }")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    assert SETTLED.format(1, 1, 1, 0) in overseer.settled(FAILED)
    assert guest.run("cat /run/ran") == "try\n" * 3
    for _ in range(2):
        status = json.loads(guest.run("sysgenid status --json"))
        assert (status["state"], status["hooks_done"], status["hooks_failed"]) == ("failed", 1, 1)
        assert status["failures"] == [{"kind": "hook", "name": "10-fails", "attempts": 3,
                                       "reason": "exit status 3"}]
        assert status["output"] == {"10-fails": "no such bäcker\n"}
        said = guest.run("sysgenid status")
        assert "failed        hook 10-fails: exit status 3 (attempts: 3)" in said
        assert "              | no such bäcker\n" in said
        nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
        assert "bäcker" not in guest.run(f"{nobody} sysgenid status")
        assert "(hooks: 1 done, 1 failed; other failures: 0)" in guest.run(
            "systemctl show -P StatusText sysgenidd")
        guest.run("systemctl is-active sysgenid-failed.target")
        guest.run("systemctl is-failed sysgenid-hook-10-fails.service")
        guest.run("systemctl restart sysgenidd")
    guest.run(f"rm {HOOKS}/10-fails; sysgenid trigger")
    overseer.settled()
    assert guest.status("systemctl is-active sysgenid-failed.target") != 0


def test_output_of_failed_hook_is_valid_json_and_safe_for_terminal(guest):
    # The end that is kept begins with the second byte of an a with diaeresis.
    add_hook(guest, "10-fails", r"yes bäcker | head -n 300; printf '\033\377no good\n'; exit 3")
    overseer = Overseer(guest, "--hook-attempts=1")
    guest.run("sysgenid trigger")
    overseer.settled(FAILED)
    output = json.loads(guest.run("sysgenid status --json"))["output"]["10-fails"]
    assert output.startswith("?cker\nbäcker\n") and output.endswith("bäcker\n??no good\n")
    assert "              | ??no good\n" in guest.run("sysgenid status")


def test_hooks_are_listed_dry_run_and_run_by_name(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /run/ran")
    add_hook(guest, "20-fails", "exit 4")
    add_hook(guest, "30-open", "touch /run/wrong", "757")
    listed = guest.run("sysgenid hooks")
    assert f"10-hook                 {HOOKS}/10-hook\n" in listed
    assert "30-open                 refused: " in listed
    assert [hook["name"] for hook in json.loads(guest.run("sysgenid hooks --json"))] == [
        "10-hook", "20-fails", "30-open"]
    said = guest.run("sysgenid hooks run --dry-run 10-hook")
    assert f"10-hook would be run: {HOOKS}/10-hook, in sysgenid-hook-10-hook.service" in said
    guest.run("! test -e /run/ran; sysgenid hooks run 10-hook")
    assert guest.run("cat /run/ran") == "0\n"
    program = guest.start("sysgenid hooks run 20-fails")
    assert program.wait() == 1 and "hook 20-fails failed: exit status 4" in program.output
    assert guest.status("sysgenid hooks run 30-open") == 1
    program = guest.start("sysgenid hooks run 40-none")
    assert program.wait() == 2 and "no hook 40-none" in program.output


def test_processes_that_hooks_leave_are_ended(guest):
    add_hook(guest, "10-ignores-term", "(trap '' TERM; exec sleep 1001) & sleep 1002")
    add_hook(guest, "20-daemon", "setsid sleep 1003 & setsid setsid sleep 1004 & exit 0")
    overseer = Overseer(guest, "--hook-timeout=1 --hook-attempts=1")
    guest.run("sysgenid trigger")
    assert SETTLED.format(1, 1, 1, 0) in overseer.settled(FAILED)
    assert "sleep 100" not in guest.run("ps ax")


def test_broken_pipe_ends_hook(guest):
    add_hook(guest, "10-pipe", "(yes; echo $? > /run/status) | head -n 1")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    overseer.settled()
    assert guest.run("cat /run/status") == f"{128 + 13}\n"


@pytest.mark.parametrize("mode, fault", [("777", "everybody"), ("775", "a group or ACL entry")])
def test_writable_directory_is_refused(guest, mode, fault):
    add_hook(guest, "10-hook", "touch /run/wrong")
    directory = HOOKS.rpartition("/")[0]
    guest.run(f"chmod {mode} {directory}")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    said = overseer.settled(FAILED)
    assert f"no hook of {HOOKS} is run: {directory} is writable by {fault}\n" in said
    assert SETTLED.format(1, 0, 1, 0) in said
    guest.run("! test -e /run/wrong")


def test_dangling_directory_is_reported_but_missing_one_is_not(guest):
    guest.run(f"rm -r {HOOKS}")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    assert SETTLED.format(1, 0, 0, 0) in overseer.settled()
    guest.run(f"ln -s /nowhere {HOOKS}; sysgenid trigger")
    said = overseer.settled(FAILED)
    assert f"no hook of {HOOKS} is run: No such file or directory\n" in said
    assert SETTLED.format(2, 0, 1, 0) in said


# This ssh-keygen reports 4096 bits for each key. It makes keys from a file that the test
# can block.
SSH_KEYGEN = """#!/bin/sh
for last; do :; done
[ "$1" != -l ] || exec echo "4096 SHA256:old root@guest (RSA)"
cat /proc/sys/kernel/random/uuid > "$last" && echo public > "$last.pub"
"""


@pytest.mark.parametrize("hook, directory", [("20-ssh-host-keys", "/etc/ssh"),
                                             ("30-machine-id", "/etc")])
def test_interrupted_hook_leaves_nothing_behind(guest, hook, directory):
    guest.run("mkdir -p /etc/ssh; echo old > /etc/ssh/ssh_host_rsa_key;"
              f"ln -s {SHIPPED_HOOKS}/{hook} {HOOKS}/;"
              f"cat > /usr/bin/ssh-keygen <<'end'\n{SSH_KEYGEN}end\n"
              "echo public > /etc/ssh/ssh_host_rsa_key.pub; chmod 755 /usr/bin/ssh-keygen;"
              f"ls -A {directory} > /run/before")
    # A hook blocks where it reads this file. Its sandbox has a /proc of its own.
    block = f"/run/systemd/system/sysgenid-hook-{hook}.service.d"
    guest.run(f"mkfifo /run/uuid; mkdir -p {block};"
              "printf '[Service]\nBindPaths=/run/uuid:/proc/sys/kernel/random/uuid\n'"
              f" > {block}/block.conf;"
              "systemctl daemon-reload")
    # A signal just before open() would not wake it.
    blocked = ("until grep -Eqs 'wait_for_partner|fifo_open' /proc/[0-9]*/wchan;"
               " do sleep 0.1; done")
    overseer = Overseer(guest)
    guest.run(f"sysgenid trigger; {blocked}; ! ls -A {directory} | cmp -s - /run/before")
    overseer.end()
    assert guest.run(f"ls -A {directory}") == guest.run("cat /run/before")
    guest.run(f"systemctl start sysgenidd; {blocked}")
    guest.run(f"rm -r {block}; systemctl daemon-reload;"
              f" systemctl kill -s KILL sysgenid-hook-{hook}")
    overseer.settled()
    assert guest.run(f"ls -A {directory}") == guest.run("cat /run/before")


# Restarts

def test_restart_neither_repeats_nor_loses_generation(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION $SYSGENID_PREVIOUS_GENERATION >> /run/ran")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    overseer.settled()
    overseer.end()
    guest.run("sysgenid trigger; sysgenid trigger")
    assert guest.status("sysgenid wait-watchers --timeout=0.5") == TIMEOUT
    overseer = Overseer(guest)
    overseer.settled()
    assert guest.run("cat /run/ran") == "1 0\n3 1\n"


def in_the_second_hook(guest) -> Overseer:
    """Triggers generation 1, and waits for its second hook, which waits for /run/go."""
    add_hook(guest, "10-done", "echo done >> /run/ran")
    add_hook(guest, "20-cut", "echo cut >> /run/ran; test -e /run/go || sleep 1000")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger; until grep -q cut /run/ran; do sleep 0.1; done")
    return overseer


@pytest.mark.parametrize("how", ["end", "kill"])
def test_restart_continues_with_interrupted_hook(guest, how):
    add_hook(guest, "30-late", "echo late >> /run/ran")
    overseer = in_the_second_hook(guest)
    guest.run(f"sed -i 's/test -e/touch \\/run\\/go; test -e/' {HOOKS}/20-cut")
    getattr(overseer, how)()
    if how == "end":
        assert "sleep 1000" not in guest.run("ps ax"), "stopping has to end the hook, too"
        guest.run("systemctl start sysgenidd")
    assert SETTLED.format(1, 3, 0, 0) in overseer.settled()
    assert guest.run("cat /run/ran") == "done\ncut\ncut\nlate\n"


def reload_modules(guest) -> None:
    """Starts a new counter, without the overseer's record of the old one in /run."""
    guest.run("systemctl stop sysgenidd; rm -rf /run/sysgenid", 60)
    guest.unload_modules()
    guest.load_modules()


def test_unsettled_generation_continues_after_module_reload(guest):
    add_hook(guest, "30-late", "echo late $SYSGENID_GENERATION >> /run/ran")
    in_the_second_hook(guest).end()
    guest.run("touch /run/go")
    reload_modules(guest)
    said = Overseer(guest).settled()
    assert "generation 1 did not settle before the restart of the system or its modules" in said
    assert guest.run("cat /run/ran") == "done\ncut\ncut\nlate 0\n"
    reload_modules(guest)
    Overseer(guest).settled()
    assert guest.run("cat /run/ran") == "done\ncut\ncut\nlate 0\n", "settled before"


def test_hook_that_kills_overseer_is_given_up(guest):
    add_hook(guest, "10-done", "echo done >> /run/ran")
    add_hook(guest, "20-deadly", "echo deadly >> /run/ran;"
             "systemctl kill -s KILL --kill-whom=main sysgenidd; sleep 1000")
    add_hook(guest, "30-late", "echo late >> /run/ran")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    said = overseer.settled(FAILED)
    assert "hook 20-deadly failed after 3 attempts: it was cut short each time" in said
    assert SETTLED.format(1, 2, 1, 0) in said
    assert guest.run("cat /run/ran") == "done\ndeadly\ndeadly\ndeadly\nlate\n"


def test_generation_during_hooks_is_handled(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION $SYSGENID_PREVIOUS_GENERATION >> /run/ran;"
             "until test -e /run/go; do sleep 0.1; done")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger; until grep -q 1 /run/ran; do sleep 0.1; done;"
              "sysgenid trigger; touch /run/go")
    assert "generation 1 did not settle before generation 2" in overseer.settled()
    assert guest.run("cat /run/ran") == "1 0\n2 0\n"


def test_overseer_pins_sysgenid_until_stopped(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /run/ran")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    overseer.settled()
    guest.unload_backend()
    assert guest.status("rmmod sysgenid") != 0
    overseer.end()
    guest.run("rmmod sysgenid")
    program = guest.start("sysgenidd")
    assert program.wait() == 3 and "not loaded: modprobe vmgenid" in program.output
    guest.load_modules()
    guest.run("sysgenid trigger")
    Overseer(guest).settled()
    assert guest.run("cat /run/ran") == "1\n1\n"


# The disk

def make_disk(guest, mount: str = "") -> None:
    """Mounts a file system for the overseer's state."""
    guest.run(f"mkdir -p {STATE_DIRECTORY}; mount -t tmpfs {mount} tmpfs {STATE_DIRECTORY}")


def test_full_disk_is_failure_but_hooks_run(guest):
    add_hook(guest, "10-hook", "touch /run/ran")
    guest.run("systemctl stop sysgenidd; rm -rf /var/lib/sysgenid")
    make_disk(guest, "-o size=4k")
    guest.run(f"echo full > {STATE_DIRECTORY}/fill")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    said = overseer.settled(FAILED)
    assert f"cannot write {STATE} (No space left on device)" in said
    guest.run("test -e /run/ran")


def test_disk_that_fills_up_later_is_no_failure(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /run/ran")
    guest.run("systemctl stop sysgenidd")
    make_disk(guest, "-o size=8k")
    overseer = Overseer(guest)
    guest.run(f"! cat /dev/zero > {STATE_DIRECTORY}/fill; sysgenid trigger")
    assert "cannot write" not in overseer.settled()
    guest.run("systemctl restart sysgenidd")
    overseer.settled()
    assert guest.run("cat /run/ran") == "1\n"


def test_read_only_var_is_failure_but_hooks_run(guest):
    add_hook(guest, "10-hook", "touch /run/ran")
    guest.run("systemctl stop sysgenidd; rm -rf /var/lib/sysgenid;"
              "mount --bind /var/lib /var/lib; mount -o remount,ro,bind /var/lib")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    assert f"cannot write {STATE} (Read-only file system)" in overseer.settled(FAILED)
    guest.run("test -e /run/ran")


def test_frozen_disk_is_failure_but_hooks_run(guest):
    add_hook(guest, "10-hook", "touch /run/ran")
    load_kernel_module(guest, "loop.ko")
    guest.run("systemctl stop sysgenidd; truncate -s 16M /run/disk; mkfs.ext4 -q /run/disk;"
              f"mkdir -p {STATE_DIRECTORY};"
              f"mount -o loop /run/disk {STATE_DIRECTORY}")
    overseer = Overseer(guest)
    guest.run(f"fsfreeze -f {STATE_DIRECTORY}; sysgenid trigger")
    said = overseer.settled(FAILED)
    assert f"cannot write {STATE} (the file system does not answer)" in said
    guest.run(f"test -e /run/ran; fsfreeze -u {STATE_DIRECTORY}; sysgenid trigger")
    overseer.settled()


def test_disk_that_never_syncs_is_failure_but_hooks_run(guest):
    add_hook(guest, "10-hook", "touch /run/ran")
    load_kernel_module(guest, "loop.ko")
    # The state's file system takes writes, but its disk is a file that takes none.
    guest.run("systemctl stop sysgenidd; truncate -s 32M /run/outer; mkfs.ext4 -q /run/outer;"
              "mkdir /run/disks; mount -o loop /run/outer /run/disks;"
              "head -c 16M /dev/zero > /run/disks/inner; mkfs.ext4 -q /run/disks/inner;"
              f"mkdir -p {STATE_DIRECTORY}; mount -o loop /run/disks/inner {STATE_DIRECTORY}", 60)
    overseer = Overseer(guest)
    guest.run(f"fsfreeze -f /run/disks; echo taken > {STATE_DIRECTORY}/file; sysgenid trigger")
    said = overseer.settled(FAILED)
    assert f"cannot write {STATE} (the file system does not answer)" in said
    guest.run("test -e /run/ran; fsfreeze -u /run/disks; sysgenid trigger")
    overseer.settled()


def test_damaged_state_is_ignored(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /run/ran")
    guest.run("systemctl stop sysgenidd; sysgenid trigger;"
              f"mkdir -p {STATE_DIRECTORY}; head -c 1024 /dev/urandom > {STATE}")
    Overseer(guest).settled()
    assert guest.run("cat /run/ran") == "1\n"


# The command line

@pytest.mark.parametrize("options", ["--frobnicate", "more", "--hook-timeout=0",
                                     "--watchers-timeout=soon", "--hook-attempts=0"])
def test_bad_usage_is_named(guest, options):
    program = guest.start(f"sysgenidd {options}")
    assert program.wait() == 2
    assert program.output


def test_help_and_version(guest):
    assert "Runs hooks, restarts units" in guest.run("sysgenidd --help")
    assert guest.run("sysgenidd --version").startswith("sysgenidd 1.")
    assert guest.run("sysgenid --version").startswith("sysgenid 1.")


def test_foreign_journal_stream_is_ignored(guest):
    guest.run("systemctl stop sysgenidd")
    program = guest.start("cd /; mv /dev/sysgenid /dev/away; JOURNAL_STREAM=1:2 sysgenidd")
    assert program.wait() == 3 and "no /dev/sysgenid here" in program.output
