# SPDX-License-Identifier: GPL-2.0
"""A Debian with the packages installed, through a snapshot and two clones.

All that a user gets: udev loads the module, systemd starts the overseer, hooks
run in each clone. Long, so not in `make check`: `make check-debian`.
"""
from dataclasses import replace

import debian
import kernels
import pytest
from guest import Guest, new_guid

NAMES = ("6.1-cloud", "6.12-cloud")
pytestmark = [pytest.mark.kernels(*NAMES), pytest.mark.debian]

HOOKS = ("10-random-seed", "20-ssh-host-keys", "30-machine-id")
AGENT = """[Unit]
Description=What runs the host's commands
DefaultDependencies=no
After=multi-user.target
[Service]
ExecStart=/agent /dev/ttyS1
KillMode=process
"""
# In the group that may be waited for; slow, so that there is something to wait for.
TRACKED = """[Service]
User=nobody
Group=sysgenid
ExecStart=/usr/sbin/sysgenid run -- sh -c 'sleep 1; echo adjusted to $SYSGENID_GENERATION'
"""
WANTED = """[Unit]
Description=A unit that somebody wants to be run after a clone
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo ran >> /run/wanted'
"""
MULTI_USER = "etc/systemd/system/multi-user.target.wants"
FILES = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "debian\n",
    "etc/fstab": "",
    "etc/systemd/system/agent.service": AGENT,
    f"{MULTI_USER}/agent.service": "-> ../agent.service",
    "etc/systemd/system/tracked.service": TRACKED,
    "etc/systemd/system/wanted.service": WANTED,
    "etc/systemd/system/sysgenid-changed.target.wants/wanted.service": "-> ../wanted.service",
    "etc/systemd/system/serial-getty@ttyS0.service": "-> /dev/null",
    "etc/systemd/system/getty.target": "-> /dev/null",
    **{f"etc/sysgenid/hooks.d/{name}": f"-> /usr/share/sysgenid/hooks/{name}" for name in HOOKS},
    "etc/sysgenid/hooks.d/90-note": "#!/bin/sh\necho $SYSGENID_GENERATION >> /run/noted\n",
}
PUBLIC_KEYS = "cat /etc/ssh/ssh_host_*_key.pub"
FINGERPRINTS = "for key in /etc/ssh/ssh_host_*_key; do ssh-keygen -y -f $key; done"


@pytest.fixture(scope="session")
def kernel(request):
    """The stock kernel, with more time, as a whole system starts."""
    return replace(kernels.get(request.param), patience=3, memory=768)


@pytest.fixture(scope="session")
def image(kernel):
    upgrades = {f"next/{deb.name}": deb for deb in debian.make_next_packages()
                if deb.name.startswith(("sysgenid_", "libsysgenid1_"))}
    return debian.make_image(kernel, [kernels.get(name) for name in NAMES], FILES | upgrades)


def journal(guest: Guest, *fields: str) -> str:
    return guest.run(f"journalctl -q -m -o cat -u sysgenidd {' '.join(fields)}")


def wait_settled(guest: Guest, generation: int) -> None:
    guest.run(f"until systemctl show -P StatusText sysgenidd |"
              f" grep -q 'generation {generation} settled'; do sleep 0.2; done", 120)


def start_services(guest: Guest) -> None:
    """Waits for what udev has started, and starts a service to be waited for."""
    guest.run("until systemctl -q is-active sysgenidd; do sleep 0.2; done", 120)
    guest.run("systemctl start tracked; mkdir -p /run/sshd;"
              "until grep -q 1 /sys/class/misc/sysgenid/watchers; do sleep 0.2; done", 60)


def check_before(guest: Guest, kernel) -> None:
    """Nothing has been done by hand up to here."""
    assert "vm_generation_id" in guest.run("cat /proc/modules"), "udev has not loaded it"
    assert "updates/dkms" in guest.run("/sbin/modinfo -n vm_generation_id")
    assert guest.run("cat /sys/class/misc/sysgenid/source") == "vmgenid\n"
    assert guest.run("stat -c '%a %U %G' /dev/sysgenid") == "664 root sysgenid\n"
    assert guest.run("sysgenid get") == "0\n"
    assert guest.status("test -e /run/noted") != 0
    assert "OK" in guest.run("systemd-analyze security --no-pager sysgenidd | tail -1", 120)
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    assert guest.run(f"{nobody} sysgenid get") == "0\n"
    assert guest.status(f"{nobody} sysgenid trigger") == 4
    assert guest.run("sysgenid get") == "0\n"


def check_clone(clone: Guest, old_keys: str) -> tuple[str, str]:
    """What a clone's user sees; returns what no other clone may have."""
    wait_settled(clone, 1)
    assert clone.run("cat /run/noted") == "1\n"
    assert clone.run("cat /run/wanted") == "ran\n"
    said = journal(clone)
    for hook in (*HOOKS, "90-note"):
        assert f"hook {hook} is done" in said, said
    assert "generation 1 settled (hooks: 4 done, 0 failed)" in journal(
        clone, "SYSGENID_EVENT=settled", "SYSGENID_GENERATION=1")
    tracked = clone.run("journalctl -q -m -o short-monotonic -u tracked -u sysgenidd")
    assert tracked.index("adjusted to 1") < tracked.index("generation 1 settled")
    assert "0 outdated" in clone.run("sysgenid status")
    keys = clone.run(PUBLIC_KEYS)
    assert not set(keys.split()[1::3]) & set(old_keys.split()[1::3])
    assert [line.split()[:2] for line in clone.run(FINGERPRINTS, 60).splitlines()] == [
        line.split()[:2] for line in keys.splitlines()], "keys don't match"
    clone.run("/usr/sbin/sshd -t")
    return keys, clone.run("cat /etc/machine-id")


def test_two_clones_of_a_debian(kernel, image, boot):
    guest = boot(image=image, fresh=True)
    start_services(guest)
    check_before(guest, kernel)
    old_keys = guest.run(PUBLIC_KEYS)
    with guest.snapshot() as snap, snap.restore_all(new_guid(), new_guid()) as clones:
        (keys_a, machine_a), (keys_b, machine_b) = [
            check_clone(clone, old_keys) for clone in clones]
        assert not set(keys_a.split()[1::3]) & set(keys_b.split()[1::3])
        assert len({machine_a, machine_b, FILES["etc/machine-id"]}) == 3
        check_restart_and_unload(clones[0])
        check_upgrade_and_purge(clones[0])


def check_restart_and_unload(clone: Guest) -> None:
    """The service and the modules go and come, and nothing is done twice."""
    clone.run("systemctl restart sysgenidd")
    assert clone.run("cat /run/noted") == "1\n"
    clone.run("systemctl stop sysgenidd tracked && modprobe -r vmgenid && ! lsmod | grep sysgenid")
    clone.run("modprobe vmgenid && until systemctl -q is-active sysgenidd; do sleep 0.2; done", 60)
    clone.run("sysgenid trigger")
    wait_settled(clone, 1)
    assert clone.run("cat /run/noted") == "1\n1\n"


def check_upgrade_and_purge(clone: Guest) -> None:
    """The running service is replaced by the new one, and a purge ends it."""
    hooks = clone.run("ls -l /etc/sysgenid/hooks.d")
    old = clone.run("systemctl show -P MainPID sysgenidd")
    clone.run("dpkg -i /next/*.deb", 120)
    assert clone.run("dpkg-query -W -f '${Version}' sysgenid") == "99.0"
    wait_settled(clone, 1)
    assert clone.run("systemctl show -P MainPID sysgenidd") != old
    assert clone.run("ls -l /etc/sysgenid/hooks.d") == hooks
    assert clone.run("cat /run/noted") == "1\n1\n"

    clone.run("dpkg --purge sysgenid", 120)
    assert clone.status("pidof sysgenidd") != 0
    assert clone.status("getent group sysgenid") != 0
    assert clone.status("test -e /etc/sysgenid") != 0
    assert clone.run("stat -c '%a %U %G' /dev/sysgenid") == "644 root root\n"
    assert "sysgenid" not in clone.run("systemctl --failed --no-legend")


@pytest.mark.kernels("6.12-cloud")
def test_a_debian_without_the_device_stays_quiet(kernel, image, boot):
    guest = boot(image=image, guid=None, fresh=True)
    assert "sysgenid" not in guest.run("cat /proc/modules")
    assert guest.status("systemctl is-active sysgenidd") != 0
    assert guest.status("systemctl start sysgenidd") == 0
    assert "sysgenid" not in guest.run("systemctl --failed --no-legend")
    assert guest.run("journalctl -q -b -p warning | grep -i -e sysgenid -e vmgenid || true") == ""
