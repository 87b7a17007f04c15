# SPDX-License-Identifier: GPL-2.0
"""A Debian with the packages installed, through a snapshot and two clones.

udev loads the module, systemd starts the overseer, and hooks run in each clone. The
tests take long, so that only `make check-debian` runs them.
"""
import json
from dataclasses import replace

import pytest
import programs
from harness import debian, host, kernels
from harness.channel import Program
from harness.guest import Guest, new_guid

NAMES = [name for together in debian.TOGETHER.values() for name in together]
pytestmark = [pytest.mark.kernels(*NAMES), pytest.mark.debian]

HOOKS_DIRECTORY = "/etc/sysgenid/hooks.d"
HOOKS = ("10-random-seed", "20-ssh-host-keys", "30-machine-id", "40-dhcp-lease")
# A slow watcher, whose group may be tracked.
TRACKED = """[Service]
User=nobody
Group=sysgenid
ExecStart=/usr/sbin/sysgenid run -- sh -c 'sleep 1; echo adjusted to $SYSGENID_GENERATION'
"""
# The drop-in adds /dev/sysgenid to this unit's private /dev.
CONFINED = """[Service]
PrivateDevices=yes
DevicePolicy=closed
User=nobody
ExecStart=/usr/sbin/sysgenid watch -- sh -c 'ls /dev; echo adjusted to $SYSGENID_GENERATION'
"""
EARLY = """[Unit]
Description=A unit that needs the device early
DefaultDependencies=no
After=sysinit.target
Before=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'test -c /dev/sysgenid && touch /run/early'
"""
WANTED = """[Unit]
Description=A unit to run in each clone
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo ran >> /run/wanted'
"""
# A unit with a state that no clone may share, and with a slow restart.
KEEPS = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'sleep 1; cat /proc/sys/kernel/random/uuid > /run/kept'
"""
# Programs that are started before the snapshot. Those that draw from the provider run a
# second time without it.
FIXED = {name: programs.ROWS[name].command for name in (
    "kernel: getrandom()", "OpenSSL: RAND_bytes()", "OpenSSL: RAND_priv_bytes()",
    "Python: ssl.RAND_bytes()")}
UNFIXED = {f"{name}, no provider": f"OPENSSL_CONF=/dev/null {command}"
           for name, command in FIXED.items() if programs.ROWS[name].fixed_by == "openssl"}
NETWORKD = """[Match]
Name=eth0
[Network]
DHCP=ipv4
"""
IFUPDOWN = """auto lo eth0
iface lo inet loopback
iface eth0 inet dhcp
"""
MULTI_USER = "etc/systemd/system/multi-user.target.wants"
FILES = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "debian\n",
    "etc/fstab": "",
    "etc/systemd/system/agent.service": debian.AGENT,
    f"{MULTI_USER}/agent.service": "-> ../agent.service",
    "etc/systemd/system/tracked.service": TRACKED,
    "etc/systemd/system/confined.service": CONFINED,
    "etc/systemd/system/confined.service.d/sysgenid.conf": "-> /usr/share/sysgenid/unit.conf",
    "etc/systemd/system/early.service": EARLY,
    "etc/systemd/system/basic.target.wants/early.service": "-> ../early.service",
    "etc/systemd/system/wanted.service": WANTED,
    "etc/systemd/system/sysgenid-changed.target.wants/wanted.service": "-> ../wanted.service",
    "etc/systemd/system/keeps.service": KEEPS,
    "etc/systemd/system/sysgenid-changed.target.wants/sysgenid-restart@keeps.service":
    "-> /lib/systemd/system/sysgenid-restart@.service",
    "programs/control.py": programs.SOURCES / "control.py",
    "programs/rows.json": json.dumps(FIXED | UNFIXED),
    "etc/systemd/system/serial-getty@ttyS0.service": "-> /dev/null",
    "etc/systemd/system/getty.target": "-> /dev/null",
    **{f"{HOOKS_DIRECTORY}/{name}": f"-> /usr/share/sysgenid/hooks/{name}" for name in HOOKS},
    f"{HOOKS_DIRECTORY}/90-note": "#!/bin/sh\necho $SYSGENID_GENERATION >> /run/noted\n",
}
# The network manager's configuration, and a command that waits for a lease.
MANAGERS = {
    "6.1-cloud": ({"etc/network/interfaces": IFUPDOWN},
                  "until systemctl -q is-active networking; do sleep 0.2; done"),
    "6.12-cloud": ({"etc/systemd/network/eth0.network": NETWORKD,
                    f"{MULTI_USER}/systemd-networkd.service":
                    "-> /lib/systemd/system/systemd-networkd.service"},
                   "/lib/systemd/systemd-networkd-wait-online -4 --timeout=120"),
}
MANAGERS["6.12-trixie-cloud"] = MANAGERS["6.12-cloud"]
PUBLIC_KEYS = "cat /etc/ssh/ssh_host_*_key.pub"
RANDOM_SEED = "sha256sum < /var/lib/systemd/random-seed"
DHCP_COOKIE = b"\x63\x82\x53\x63"     # before a message's options
DHCP_TYPE, DHCP_CLIENT = 53, 61         # options
ACK, RELEASE = b"\5", b"\7"
# A hook that runs until the test ends it, and a hook that interrupts itself.
SLOW = """#!/bin/sh
echo began >> /run/slow
until test -e /run/go; do sleep 0.2; done
"""
RESTARTS = """#!/bin/sh
echo again >> /run/restarts
systemctl restart sysgenidd
"""
FINGERPRINTS = "for key in /etc/ssh/ssh_host_*_key; do ssh-keygen -y -f $key; done"


@pytest.fixture(scope="session")
def kernel(request):
    """The stock kernel with longer time limits, as a whole system boots slowly."""
    return replace(kernels.get(request.param), patience=3, memory=768)


@pytest.fixture(scope="session")
def image(kernel):
    network, _ = MANAGERS[kernel.name]
    upgrades = {f"next/{deb.name}": deb for deb in debian.make_next_packages(debian.release_for(kernel))
                if deb.name.startswith(("sysgenid_", "libsysgenid1_"))}
    upgrades["usr/local/bin/draw"] = programs.make_draw(host.BUILD / "draw")
    return debian.make_image(kernel, debian.kernels_with(kernel), FILES | network | upgrades)


def journal(guest: Guest, *fields: str) -> str:
    return guest.run(f"journalctl -q -m -o cat -u sysgenidd {' '.join(fields)}")


def wait_settled(guest: Guest, generation: int) -> None:
    guest.run(f"until systemctl show -P StatusText sysgenidd |"
              f" grep -q 'generation {generation} settled'; do sleep 0.2; done", 120)


def wait_lease(guest: Guest) -> None:
    guest.run(MANAGERS[guest.options.kernel.name][1], 120)


def dhcp_messages(guest: Guest) -> list[dict[int, bytes]]:
    """Returns the options of each DHCP message since the guest's start or restore."""
    messages = []
    for options in guest.packets().split(DHCP_COOKIE)[1:]:
        messages.append({})
        while options and options[0] != 255:
            length = options[1]
            messages[-1][options[0]], options = options[2:2 + length], options[2 + length:]
    return messages


def identity(guest: Guest) -> list[str | bytes]:
    """Returns identities that no other guest may have; needs a DHCP exchange before."""
    clients = {message[DHCP_CLIENT] for message in dhcp_messages(guest)
               if DHCP_CLIENT in message}
    return [*guest.run(PUBLIC_KEYS).split()[1::3], *clients,
            guest.run("cat /etc/machine-id"), guest.run(RANDOM_SEED), guest.run("cat /run/kept")]


def start_services(guest: Guest) -> Program:
    """Waits for the overseer, and starts services and programs that draw."""
    guest.run("until systemctl -q is-active sysgenidd; do sleep 0.2; done", 120)
    guest.run("systemctl start tracked confined keeps; mkdir -p /run/sshd;"
              "until grep -qx 2 /sys/class/misc/sysgenid/watchers; do sleep 0.2; done", 60)
    wait_lease(guest)
    # From now on, the system is one without a D-Bus daemon.
    guest.run("mv /run/dbus/system_bus_socket /run/dbus/away")
    guest.run("sysgenid-openssl enable", 60)
    return programs.start_programs(guest)


def check_before(guest: Guest, kernel) -> None:
    """Checks what udev and systemd have set up by themselves."""
    assert "vm_generation_id" in guest.run("cat /proc/modules"), "the driver is not loaded"
    assert guest.status("test -e /run/early") == 0, "the device was missing early in the boot"
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


def check_clone(clone: Guest) -> None:
    """Checks the services, hooks and leases of a settled clone."""
    wait_settled(clone, 1)
    assert clone.run("cat /run/noted") == "1\n"
    assert clone.run("cat /run/wanted") == "ran\n"
    said = journal(clone)
    for hook in (*HOOKS, "90-note"):
        assert f"hook {hook} is done" in said, said
    assert "generation 1 settled (hooks: 5 done, 0 failed; other failures: 0)" in journal(
        clone, "SYSGENID_EVENT=settled", "SYSGENID_GENERATION=1")
    tracked = clone.run("journalctl -q -m -o short-monotonic -u tracked -u sysgenidd")
    assert tracked.index("adjusted to 1") < tracked.index("generation 1 settled")
    confined = clone.run("until journalctl -q -m -o cat -u confined | grep adjusted;"
                         "do sleep 0.2; done", 60)
    assert confined == "adjusted to 1\n"
    assert "ttyS0" not in clone.run("journalctl -q -m -o cat -u confined").split()
    assert "0 outdated" in clone.run("sysgenid status")
    assert [line.split()[:2] for line in clone.run(FINGERPRINTS, 60).splitlines()] == [
        line.split()[:2] for line in clone.run(PUBLIC_KEYS).splitlines()], "keys don't match"
    clone.run("/usr/sbin/sshd -t")
    wait_lease(clone)
    types = [message[DHCP_TYPE] for message in dhcp_messages(clone)]
    assert ACK in types and RELEASE not in types, "a release would end other clones' lease"


def test_two_clones_of_debian_share_nothing(kernel, image, boot):
    guest = boot(image=image, network=True, append="net.ifnames=0", fresh=True,
                 cpu_flags="-rdrand,-rdseed")
    control = start_services(guest)
    check_before(guest, kernel)
    identities = identity(guest)
    drawn = []
    with guest.snapshot() as snap, snap.restore_all(new_guid(), new_guid()) as clones:
        for clone in clones:
            check_clone(clone)
            identities += identity(clone)
            drawn.append(programs.draw(clone, control))
        assert len(set(identities)) == len(identities)
        for name, count in programs.repeated(*drawn).items():
            assert (count == 0) == (name in FIXED), f"{name}: {count} draws were repeated"
        if kernel.name == NAMES[0]:
            # These checks do not depend on the kernel.
            check_interruptions(clones[1])
        check_restart_and_unload(clones[0])
        check_upgrade_and_purge(clones[0])


def check_interruptions(clone: Guest) -> None:
    """Checks that an interrupted hook runs again, at most three times."""
    clone.run(f"cd {HOOKS_DIRECTORY} && rm {' '.join(HOOKS)}")
    for name, script in (("80-slow", SLOW), ("85-restarts", RESTARTS)):
        clone.run(f"cat > {HOOKS_DIRECTORY}/{name} <<'end'\n{script}end\n"
                  f"chmod 755 {HOOKS_DIRECTORY}/{name}")
    clone.run("sysgenid trigger; until test -e /run/slow; do sleep 0.2; done", 60)
    clone.run("systemctl restart sysgenidd; until grep -c began /run/slow | grep -q 2;"
              "do sleep 0.2; done; touch /run/go", 60)
    wait_settled(clone, 2)
    assert clone.run("cat /run/slow /run/restarts") == "began\n" * 2 + "again\n" * 3
    assert clone.run("cat /run/noted") == "1\n2\n"
    assert "hook 85-restarts failed after 3 attempts: it was cut short each time" in journal(clone)


def check_restart_and_unload(clone: Guest) -> None:
    """Checks that restarts of the service and the modules repeat no hook."""
    clone.run("systemctl restart sysgenidd")
    assert clone.run("cat /run/noted") == "1\n"
    clone.run("systemctl stop sysgenidd tracked confined && modprobe -r vmgenid && ! lsmod | grep sysgenid")
    clone.run("modprobe vmgenid && until systemctl -q is-active sysgenidd; do sleep 0.2; done", 60)
    clone.run("sysgenid trigger")
    wait_settled(clone, 1)
    assert clone.run("cat /run/noted") == "1\n1\n"


def check_upgrade_and_purge(clone: Guest) -> None:
    """Checks that an upgrade restarts the service, and that a purge ends it."""
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
    assert clone.run("find /etc/sysgenid ! -type d") == f"{HOOKS_DIRECTORY}/90-note\n"
    assert clone.status("test -e /var/lib/sysgenid") != 0
    assert clone.run("stat -c '%a %U %G' /dev/sysgenid") == "644 root root\n"
    assert "sysgenid" not in clone.run("systemctl --failed --no-legend")


@pytest.mark.kernels("6.12-cloud", "6.12-trixie-cloud")
def test_debian_without_device_stays_quiet(kernel, image, boot):
    guest = boot(image=image, guid=None, fresh=True)
    assert "sysgenid" not in guest.run("cat /proc/modules")
    assert guest.status("systemctl is-active sysgenidd") != 0
    assert guest.status("systemctl start sysgenidd") == 0
    assert "sysgenid" not in guest.run("systemctl --failed --no-legend")
    assert guest.run("journalctl -q -b -p warning | grep -i -e sysgenid -e vmgenid || true") == ""
