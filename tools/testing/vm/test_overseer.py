# SPDX-License-Identifier: GPL-2.0
"""sysgenidd(8), the overseer, in guests: what hooks may do to it, and trouble."""
import re

import pytest
import userspace
from userspace import HOOKS, SHIPPED_HOOKS, STATE, STATE_FOLDER

pytestmark = pytest.mark.kernels("6.1-cloud", "6.12-cloud")


class Overseer:
    """sysgenidd in a guest, started when it watches."""

    def __init__(self, guest, options: str = "", environment: str = ""):
        self.guest = guest
        guest.run(f"mkdir -p {STATE_FOLDER}")
        self.program = guest.start(f"exec env {environment} sysgenidd {options}")
        guest.run("until pidof sysgenidd && ls -l /proc/$(pidof sysgenidd)/fd |"
                  " grep -q signalfd; do sleep 0.02; done")

    def settled(self, generation: int) -> str:
        """Waits until that generation has settled; returns all it has said."""
        self.program.wait_for(f"generation {generation} settled", 60)
        return self.program.output

    def end(self, signal: str = "TERM") -> int:
        self.guest.run(f"kill -{signal} $(pidof sysgenidd)")
        return self.program.wait()


@pytest.fixture(scope="module")
def image(kernel):
    return userspace.make_image(kernel)


@pytest.fixture
def guest(boot, image):
    guest = boot(image=image)
    guest.load_modules()
    guest.run(f"mkdir -p {HOOKS}")
    return guest


def add_hook(guest, name: str, script: str, mode: str = "755") -> None:
    guest.run(f"cat > {HOOKS}/{name} <<'end'\n#!/bin/sh\n{script}\nend\n"
              f"chmod {mode} {HOOKS}/{name}")


def test_a_clone_runs_the_hooks_in_order_and_settles(guest):
    add_hook(guest, "20-second", "echo second $SYSGENID_GENERATION >> /tmp/ran")
    add_hook(guest, "10-first", "echo first $SYSGENID_GENERATION >> /tmp/ran; echo hello")
    overseer = Overseer(guest)
    with guest.snapshot() as snap, snap.restore() as clone:
        program = clone.program(overseer.program)
        program.wait_for(r"generation 1 settled \(hooks: 2 done, 0 failed\)")
        assert clone.run("cat /tmp/ran") == "first 1\nsecond 1\n"
        assert "hook 10-first: hello" in program.output


def test_tracked_watchers_are_waited_for_and_named(guest):
    overseer = Overseer(guest, "--watchers-timeout=1")
    watcher = guest.start("sysgenid run -- sh -c 'test -e /tmp/good'")
    guest.run("until grep -q 1 /sys/class/misc/sysgenid/watchers; do sleep 0.02; done")
    guest.run("sysgenid trigger")
    overseer.program.wait_for("generation 1 still waits for sysgenid")
    assert "settled" not in overseer.program.output
    guest.run("touch /tmp/good")
    overseer.settled(1)
    watcher.kill()


def test_bad_hooks_are_reported_and_the_others_run(guest):
    add_hook(guest, "10-fails", "exit 3")
    add_hook(guest, "20-hangs", "trap '' TERM; sleep 1000 & while :; do wait; done")
    add_hook(guest, "30-floods", "head -c 300000 /dev/zero | tr '\\0' 'y\\n'; echo end")
    add_hook(guest, "35-floods-lines", "yes | head -n 100000")
    add_hook(guest, "40-not-executable", "touch /tmp/wrong", "644")
    add_hook(guest, "50-world-writable", "touch /tmp/wrong", "757")
    add_hook(guest, "55-group-writable", "touch /tmp/wrong", "775")
    add_hook(guest, "56-roots-group-writable", "touch /tmp/wrong", "775")
    add_hook(guest, "60-not-roots", "touch /tmp/wrong")
    add_hook(guest, "70-no-interpreter", "")
    add_hook(guest, "80.dpkg-old", "touch /tmp/wrong")
    add_hook(guest, "99-good", "touch /tmp/right")
    guest.run(f"chown nobody {HOOKS}/60-not-roots; chgrp nogroup {HOOKS}/55-group-writable;"
              f"echo '#!/nowhere' > {HOOKS}/70-no-interpreter; mkdir {HOOKS}/90-folder;"
              f"ln -s /nowhere {HOOKS}/95-dangling; mkdir -m 777 /srv /srv/open; chmod 755 /srv;"
              f"cp {HOOKS}/99-good /srv/open/hook; ln -s /srv/open/hook {HOOKS}/97-in-the-open")
    overseer = Overseer(guest, "--hook-timeout=2")
    guest.run("sysgenid trigger")
    said = overseer.settled(1)
    group = "a group, or whom an access control list names, can write to"
    for sentence in ("hook 10-fails failed: exit status 3",
                     "hook 20-hangs was ended, as it took more than 2 s",
                     "hook 30-floods printed more than 65536 bytes or 500 lines, "
                     "the rest is dropped",
                     "hook 35-floods-lines printed more than",
                     f"40-not-executable is not run: {HOOKS}/40-not-executable is not executable",
                     f"50-world-writable is not run: everybody can write to {HOOKS}/50",
                     f"55-group-writable is not run: {group} {HOOKS}/55",
                     f"56-roots-group-writable is not run: {group} {HOOKS}/56",
                     f"60-not-roots is not run: {HOOKS}/60-not-roots does not belong to root",
                     "70-no-interpreter: No such file or directory",
                     "hook 70-no-interpreter failed: exit status 127",
                     f"90-folder is not run: {HOOKS}/90-folder is not a file",
                     "95-dangling is not run: No such file or directory",
                     "97-in-the-open is not run: everybody can write to /srv/open\n",
                     "generation 1 settled (hooks: 3 done, 11 failed)"):
        assert sentence in said
    assert len(said) < 90000 and said.count("hook 35-floods-lines: y\n") == 500
    guest.run("test -e /tmp/right && ! test -e /tmp/wrong")
    assert "sleep 1000" not in guest.run("ps"), "what the hook had started is left"


def test_what_hooks_leave_running_is_ended(guest):
    add_hook(guest, "10-ignores-term", "(trap '' TERM; exec sleep 1001) & sleep 1002")
    add_hook(guest, "20-daemon", "setsid sleep 1003 & sleep 1004")
    overseer = Overseer(guest, "--hook-timeout=1")
    guest.run("sysgenid trigger")
    said = overseer.settled(1)
    assert "which were killed" not in said, "it is no news of a hook that was ended"
    assert "(hooks: 0 done, 2 failed)" in said
    assert "sleep 100" not in guest.run("ps")


def test_what_ends_soon_after_its_hook_may_and_the_rest_is_killed(guest):
    # Has something to say when the hook has ended.
    add_hook(guest, "10-filter", "(read -r line < /tmp/hook; echo the last words) &"
             "exec 3> /tmp/hook")
    add_hook(guest, "20-leaves", "sleep 1005 & setsid setsid sleep 1006 & exit 0")
    overseer = Overseer(guest)
    guest.run("mkfifo /tmp/hook; sysgenid trigger")
    said = overseer.settled(1)
    assert "hook 10-filter: the last words" in said
    assert "hook 20-leaves has left 2 processes running, which were killed" in said
    assert said.count("which were killed") == 1
    assert "(hooks: 2 done, 0 failed)" in said
    assert "sleep 100" not in guest.run("ps")


def test_a_hook_is_ended_though_its_children_can_not_be_found(guest):
    add_hook(guest, "10-long", "exec sleep 1000")
    overseer = Overseer(guest, "--hook-timeout=1")
    guest.run("mkdir /tmp/none; pid=$(pidof sysgenidd);"
              "mount --bind /tmp/none /proc/$pid/task/$pid; sysgenid trigger")
    said = overseer.settled(1)
    assert ("what hook 10-long has left running is not known: /proc/thread-self/children: "
            "No such file or directory") in said
    assert "[sleep]" not in guest.run("ps"), "it is left unburied"


def test_a_hook_that_can_not_be_killed_does_not_stop_the_others(guest):
    freezer = "/tmp/freezer/hook"
    guest.run("mkdir /tmp/freezer && mount -t cgroup -o freezer none /tmp/freezer &&"
              f"mkdir {freezer}")
    add_hook(guest, "10-stuck", f"echo $$ > {freezer}/cgroup.procs;"
             f"echo FROZEN > {freezer}/freezer.state; touch /tmp/wrong")
    add_hook(guest, "20-good", "touch /tmp/right")
    overseer = Overseer(guest, "--hook-timeout=1")
    guest.run("sysgenid trigger")
    said = overseer.settled(1)
    assert "which hook 10-stuck or one before it has started, can't be killed" in said
    assert "(hooks: 1 done, 1 failed)" in said
    guest.run("test -e /tmp/right && ! test -e /tmp/wrong")
    guest.run(f"echo THAWED > {freezer}/freezer.state;"
              f"until ! grep -q . {freezer}/cgroup.procs; do sleep 0.02; done")
    assert overseer.end() == 0


@pytest.mark.parametrize("mode, fault", [
    ("777", "everybody"), ("775", "a group, or whom an access control list names,")])
def test_a_folder_that_others_can_write_to_is_refused(guest, mode, fault):
    add_hook(guest, "10-hook", "touch /tmp/wrong")
    folder = HOOKS.rpartition("/")[0]
    guest.run(f"chmod {mode} {folder}")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    said = overseer.settled(1)
    assert f"no hook of {HOOKS} is run: {fault} can write to {folder}\n" in said
    assert "(hooks: 0 done, 1 failed)" in said
    guest.run("! test -e /tmp/wrong")


def test_a_folder_that_is_a_dangling_link_is_reported_and_a_missing_one_is_not(guest):
    guest.run(f"rmdir {HOOKS}")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    assert "generation 1 settled (hooks: 0 done, 0 failed)" in overseer.settled(1)
    guest.run(f"ln -s /nowhere {HOOKS}; sysgenid trigger")
    said = overseer.settled(2)
    assert f"no hook of {HOOKS} is run: No such file or directory\n" in said
    assert "generation 2 settled (hooks: 0 done, 1 failed)" in said


def test_a_restart_neither_repeats_nor_loses_a_generation(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /tmp/ran")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    overseer.settled(1)
    assert overseer.end() == 0
    overseer = Overseer(guest)
    assert overseer.end("KILL") == 137
    guest.run("sysgenid trigger; sysgenid trigger")
    overseer = Overseer(guest)
    overseer.settled(3)
    assert guest.run("cat /tmp/ran") == "1\n3\n"


def in_the_second_hook(guest) -> Overseer:
    """Generation 1; that hook does not end before there is /tmp/go."""
    add_hook(guest, "10-done", "echo done >> /tmp/ran")
    add_hook(guest, "20-cut", "echo cut >> /tmp/ran; test -e /tmp/go || sleep 1000")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger; until grep -q cut /tmp/ran; do sleep 0.02; done")
    return overseer


def test_killed_between_hooks_it_goes_on_with_the_one_it_was_at(guest):
    add_hook(guest, "30-late", "echo late >> /tmp/ran")
    in_the_second_hook(guest).end("KILL")
    guest.run("touch /tmp/go")
    Overseer(guest).settled(1)
    assert guest.run("cat /tmp/ran") == "done\ncut\ncut\nlate\n"


def test_the_status_says_settled_when_it_is(guest):
    add_hook(guest, "10-hook", "echo ran >> /tmp/ran; until test -e /tmp/go; do sleep 0.02; done")
    # As good as systemd for writing down what it is told.
    guest.run("syslogd -O /tmp/status && until test -S /dev/log; do sleep 0.02; done")
    overseer = Overseer(guest, environment="NOTIFY_SOCKET=/dev/log")
    guest.run("sysgenid trigger; until test -e /tmp/ran; do sleep 0.02; done")
    overseer.end("KILL")
    Overseer(guest, environment="NOTIFY_SOCKET=/dev/log")
    guest.run("touch /tmp/go; until grep -q '1 settled' /tmp/status; do sleep 0.02; done")
    assert re.findall(r"STATUS=(.*)", guest.run("cat /tmp/status")) == [
        "generation 0 settled", "generation 1: running hooks", "generation 1: running hooks",
        "generation 1: waiting for watchers", "generation 1 settled (hooks: 1 done, 0 failed)"]


def reboot(guest) -> None:
    """As far as sysgenidd can tell."""
    guest.unload_modules()
    guest.run("cat /proc/sys/kernel/random/uuid > /run/boot_id &&"
              "mount --bind /run/boot_id /proc/sys/kernel/random/boot_id")
    guest.load_modules()


def test_what_had_not_settled_before_a_reboot_goes_on_after_it(guest):
    add_hook(guest, "30-late", "echo late $SYSGENID_GENERATION >> /tmp/ran")
    in_the_second_hook(guest).end()
    reboot(guest)
    guest.run("touch /tmp/go")
    overseer = Overseer(guest)
    said = overseer.settled(0)
    assert "generation 1 did not settle before the restart of the system" in said
    assert guest.run("cat /tmp/ran") == "done\ncut\ncut\nlate 0\n"
    overseer.end()
    reboot(guest)
    assert "settle" not in Overseer(guest).program.output, "it had settled before"
    assert guest.run("cat /tmp/ran") == "done\ncut\ncut\nlate 0\n"


def test_a_clone_that_had_not_settled_is_cloned_after_a_reboot(guest):
    in_the_second_hook(guest).end("KILL")
    reboot(guest)
    guest.run("touch /tmp/go; sysgenid trigger")
    Overseer(guest).settled(1)
    assert guest.run("cat /tmp/ran") == "done\ncut\ndone\ncut\n"


def test_a_hook_that_ends_the_overseer_each_time_is_given_up(guest):
    add_hook(guest, "10-done", "echo done >> /tmp/ran")
    add_hook(guest, "20-deadly", "echo deadly >> /tmp/ran; kill -KILL $PPID")
    add_hook(guest, "30-late", "echo late >> /tmp/ran")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    assert overseer.program.wait() == 137
    for _ in range(2):
        assert guest.start("sysgenidd").wait() == 137
    said = Overseer(guest).settled(1)
    assert "hook 20-deadly is not run again, as it was cut short 3 times" in said
    assert "(hooks: 1 done, 1 failed)" in said
    assert guest.run("cat /tmp/ran") == "done\ndeadly\ndeadly\ndeadly\nlate\n"


def test_a_deadly_hooks_attempts_are_not_those_of_the_next(guest):
    add_hook(guest, "20-deadly", "kill -KILL $PPID")
    add_hook(guest, "30-late", "echo late >> /tmp/ran")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    assert overseer.program.wait() == 137
    for _ in range(2):
        assert guest.start("sysgenidd").wait() == 137
    guest.run(f"rm {HOOKS}/20-deadly")
    assert "(hooks: 1 done, 0 failed)" in Overseer(guest).settled(1)
    assert guest.run("cat /tmp/ran") == "late\n"


def test_asked_to_end_it_ends_its_hook_too(guest):
    add_hook(guest, "10-long", "echo began; sleep 1000")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    overseer.program.wait_for("began")
    assert overseer.end() == 0
    assert "sleep 1000" not in guest.run("ps")


def test_a_generation_that_comes_while_hooks_run_is_dealt_with_too(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /tmp/ran;"
             "until test -e /tmp/go; do sleep 0.02; done")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger; until grep -q 1 /tmp/ran; do sleep 0.02; done;"
              "sysgenid trigger; touch /tmp/go")
    assert "generation 1 did not settle before generation 2" in overseer.settled(2)
    assert guest.run("cat /tmp/ran") == "1\n2\n"


def test_the_module_in_use_stays_and_a_reloaded_one_starts_anew(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /tmp/ran")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    overseer.settled(1)
    guest.unload_backend()
    assert guest.status("rmmod sysgenid") != 0
    guest.run("sysgenid trigger")
    overseer.settled(2)
    overseer.end()
    guest.run("rmmod sysgenid")
    gone = guest.start("sysgenidd")
    assert gone.wait() == 3 and "module not loaded: modprobe vmgenid" in gone.output
    guest.load_modules()
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    overseer.settled(1)
    assert guest.run("cat /tmp/ran") == "1\n2\n1\n"


def test_a_device_file_that_is_gone_is_reported_once_and_waited_for(guest):
    overseer = Overseer(guest, "--watchers-timeout=1")
    watcher = guest.start("sysgenid run -- false")
    guest.run("until grep -q 1 /sys/class/misc/sysgenid/watchers; do sleep 0.02; done;"
              "mkdir /dev/away; mv /dev/sysgenid /dev/away/;"
              "SYSGENID_DEVICE=/dev/away/sysgenid sysgenid trigger")
    overseer.program.wait_for("still waits for sysgenid")
    guest.run("mv /dev/away/sysgenid /dev/")
    watcher.kill()
    assert overseer.settled(1).count("waiting for watchers: No such file or directory\n") == 1


@pytest.mark.parametrize("hook, folder", [("20-ssh-host-keys", "/etc/ssh"),
                                          ("30-machine-id", "/etc")])
def test_a_shipped_hook_that_is_cut_short_leaves_nothing_behind(guest, hook, folder):
    guest.run("mkdir -p /usr/sbin /etc/ssh; echo old > /etc/ssh/ssh_host_rsa_key;"
              f"echo old > /etc/machine-id; ln -s {SHIPPED_HOOKS}/{hook} {HOOKS}/;"
              "printf '#!/bin/sh\nexec cat /proc/sys/kernel/random/uuid > $7' >"
              "/usr/sbin/ssh-keygen; printf '#!/bin/sh\n' > /usr/sbin/systemctl;"
              f"chmod 755 /usr/sbin/*; ls -A {folder} > /run/before")
    # From here on no hook gets further than what it needs this for.
    guest.run("mkfifo /run/uuid && mount --bind /run/uuid /proc/sys/kernel/random/uuid")
    begun = f"until ! ls -A {folder} | cmp -s - /run/before; do sleep 0.02; done"
    overseer = Overseer(guest)
    guest.run(f"sysgenid trigger; {begun}")
    overseer.end()
    assert guest.run(f"ls -A {folder}") == guest.run("cat /run/before")
    overseer = Overseer(guest)
    guest.run(begun)
    guest.run("overseer=$(pidof sysgenidd); read -r hook < /proc/$overseer/task/$overseer/children;"
              "kill -KILL $overseer -$hook")
    overseer.program.wait()
    guest.run("umount /proc/sys/kernel/random/uuid")
    Overseer(guest).settled(1)
    assert guest.run(f"ls -A {folder}") == guest.run("cat /run/before")


def test_a_full_disk_is_reported_and_does_not_stop_it(guest):
    add_hook(guest, "10-hook", f"set -e; echo much > {STATE_FOLDER}/file")
    add_hook(guest, "20-hook", "touch /tmp/ran")
    guest.run(f"mkdir -p {STATE_FOLDER} && mount -t tmpfs -o size=4k tmpfs {STATE_FOLDER} &&"
              f"echo full > {STATE_FOLDER}/fill")
    overseer = Overseer(guest)
    guest.run("sysgenid trigger")
    said = overseer.settled(1)
    assert f"{STATE} can't be written (No space left on device)" in said
    assert "hook 10-hook failed" in said
    guest.run("test -e /tmp/ran")


def test_a_disk_that_fills_up_later_is_no_obstacle(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /tmp/ran")
    guest.run(f"mkdir -p {STATE_FOLDER} && mount -t tmpfs -o size=8k tmpfs {STATE_FOLDER}")
    overseer = Overseer(guest)
    guest.run(f"! cat /dev/zero > {STATE_FOLDER}/fill")
    guest.run("sysgenid trigger")
    assert "can't be written" not in overseer.settled(1)
    overseer.end()
    overseer = Overseer(guest)
    overseer.end()
    assert guest.run("cat /tmp/ran") == "1\n"


def test_a_damaged_state_is_as_none(guest):
    add_hook(guest, "10-hook", "echo $SYSGENID_GENERATION >> /tmp/ran")
    guest.run(f"sysgenid trigger; mkdir -p {STATE_FOLDER};"
              f"head -c 1024 /dev/urandom > {STATE}")
    Overseer(guest).settled(1)
    assert guest.run("cat /tmp/ran") == "1\n"


@pytest.mark.parametrize("options", ["--frobnicate", "more", "--hook-timeout=0",
                                     "--watchers-timeout=soon"])
def test_bad_usage_is_named(guest, options):
    program = guest.start(f"sysgenidd {options}")
    assert program.wait() == 2
    assert program.output
