# SPDX-License-Identifier: GPL-2.0
"""sysgenid seal: its removals, its refusals, and copies of a sealed template."""
import json
import shutil
from dataclasses import replace

import pytest
from harness import debian_disk, kernels
from harness.debian_disk import KEEP_CHANGES, MULTI_USER
from harness.guest import Guest, new_guid

pytestmark = [pytest.mark.kernels("6.1-cloud", "6.12-cloud"), pytest.mark.debian]

ERROR, USAGE, PERMISSION = 1, 2, 4
UNIT = "-> /lib/systemd/system/{}.service"
FILES = {f"{MULTI_USER}/{name}.service": UNIT.format(name) for name in ("ssh", "dhcpcd")}
# Each command prints an identity that two systems may not share.
IDENTITIES = {
    "machine ID": "cat /etc/machine-id",
    "SSH host keys": "cat /etc/ssh/ssh_host_*_key",
    "random seed": "sha256sum < /var/lib/systemd/random-seed",
    "DHCP identifier": "cat /var/lib/dhcpcd/duid",
    "iSCSI initiator": "grep InitiatorName=iqn /etc/iscsi/initiatorname.iscsi",
    "NVMe host": "cat /etc/nvme/hostnqn",
    "NVMe host's ID": "cat /etc/nvme/hostid",
}
SECRETS = "/etc/ssh/ssh_host_rsa_key /var/lib/systemd/random-seed /var/lib/dhcpcd/duid"


@pytest.fixture(scope="session")
def kernel(request):
    """The stock kernel with longer time limits, as a whole system boots slowly."""
    return replace(kernels.get(request.param), patience=3, memory=768)


@pytest.fixture
def start(boot, kernel, logs):
    """Returns a function that boots a system with its changes on a disk."""
    root = debian_disk.make_root()
    image = debian_disk.make_image(kernel, logs / "seal.cpio", FILES)

    def boot_from(disk, guid: str) -> Guest:
        guest = boot(fresh=True, image=image, root=root, disk=disk, guid=guid, network=True,
                     append=f"{KEEP_CHANGES} net.ifnames=0")
        guest.run("sysgenid wait-settled --timeout=200;"
                  "until systemctl -q is-active ssh dhcpcd; do sleep 0.2; done", 300)
        return guest
    return boot_from


def identities(guest: Guest) -> dict[str, str]:
    guest.run("until test -e /var/lib/dhcpcd/duid; do sleep 0.2; done", 60)
    return {name: guest.run(command) for name, command in IDENTITIES.items()}


def power_off(guest: Guest) -> None:
    """Powers the guest off cleanly: its services stop, and may write to the disk."""
    guest.start("systemctl poweroff")
    guest.process.wait(60 * guest.patience)


def fails(guest: Guest, script: str) -> tuple[int, str]:
    program = guest.start(script)
    return program.wait(60), program.output


def check_refusals(guest: Guest) -> None:
    """Checks that seal refuses a wrong call, and lists its removals beforehand."""
    status, said = fails(guest, "sysgenid seal")
    assert status == USAGE and "give --yes" in said
    status, said = fails(guest, "setpriv --reuid=65534 --clear-groups sysgenid seal --yes")
    assert status == PERMISSION and "only root may seal a system" in said
    status, said = fails(guest, "mkdir -p /srv/empty; sysgenid seal --yes --root=/srv/empty")
    assert status == ERROR and "nothing is sealed: /srv/empty" in said
    status, said = fails(guest, "sysgenid seal --yes --root=/srv/none")
    assert status == ERROR and "--root=/srv/none: cannot enter the directory: No such file" in said
    names = [item["name"] for item in json.loads(guest.run("sysgenid seal --list --json"))]
    assert {"machine-id", "ssh-host-keys", "random-seed", "dhcp"} < set(names)
    listed = guest.run("sysgenid seal --list")
    assert all(name in listed for name in names)
    said = guest.run("sysgenid seal --dry-run")
    assert "/etc/machine-id would be emptied\n" in said
    for path in SECRETS.split():
        assert f"{path} would be removed\n" in said
    assert guest.status("test -e /var/lib/sysgenid/sealed") != 0


def test_sealed_copies_boot_with_new_identities(start, logs):
    disk = debian_disk.make_changes(logs / "disk")
    guest = start(disk, new_guid())
    guest.run("rm /etc/ssh/ssh_host_rsa_key*;"
              "ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key", 60)
    before = identities(guest)
    check_refusals(guest)
    assert identities(guest) == before, "a refused call has changed an identity"
    said = guest.run("sysgenid seal --yes")
    assert said.endswith("sealed: switch the system off before its disk is copied\n")
    assert guest.status("ls /etc/ssh/ssh_host_*_key") != 0
    assert guest.run("cat /etc/machine-id") == ""
    again = guest.run("sysgenid seal --yes")
    assert "removed" not in again and "sealed: " in again
    power_off(guest)

    booted = [before]
    for name in ("first", "second"):
        copy = shutil.copy(disk, logs / name)
        guest = start(copy, new_guid())
        booted.append(identities(guest))
        bits = guest.run("for key in /etc/ssh/ssh_host_*_key; do ssh-keygen -l -f $key; done")
        assert [line.split()[-1] for line in bits.splitlines()] == ["(ECDSA)", "(ED25519)", "(RSA)"]
        assert "2048 SHA256" in bits, "the RSA key has another length"
        guest.run("/usr/sbin/sshd -t; systemctl is-active ssh")
        assert guest.status("test -e /var/lib/sysgenid/sealed") != 0
        assert guest.run("sysgenid get") == "0\n", "a copy of a template is no clone"
        after = identities(guest)
        power_off(guest)
    for what in IDENTITIES:
        shown = [found[what] for found in booted]
        assert len(set(shown)) == 3, f"{what}: {shown}"

    # A rebooted copy keeps its identities.
    guest = start(copy, guest.options.guid)
    again = identities(guest)
    for what in set(IDENTITIES) - {"random seed"}:
        assert again[what] == after[what]


def boot_debian(boot, kernel, logs):
    return boot(fresh=True, image=debian_disk.make_image(kernel, logs / "seal.cpio", {}),
                root=debian_disk.make_root(), guid=new_guid())


def test_seal_names_what_it_cannot_remove(boot, kernel, logs):
    guest = boot_debian(boot, kernel, logs)
    guest.run("mount --bind /etc/nvme/hostid /etc/nvme/hostid;"
              "mkdir -p /srv/other && mount -t tmpfs tmpfs /srv/other; touch /srv/other/kept;"
              "ln -s /srv/other /var/lib/cloud/data; mkdir -p /var/lib/cloud/instances/i-1/sem;"
              "touch /var/lib/cloud/instances/i-1/sem/config")
    status, said = fails(guest, "sysgenid seal --yes")
    assert status == ERROR
    assert "cannot remove /etc/nvme/hostid: Device or resource busy" in said
    assert "sealing is incomplete" in said
    guest.run("test -e /srv/other/kept; ! test -e /var/lib/cloud/instances;"
              "! test -e /etc/ssh/ssh_host_rsa_key; test ! -s /etc/machine-id")
    guest.run("umount /etc/nvme/hostid; sysgenid seal --yes; ! test -e /etc/nvme/hostid")


def test_mounted_image_is_sealed(boot, kernel, logs):
    guest = boot_debian(boot, kernel, logs)
    guest.run("mkdir -p /srv/image/etc/ssh /srv/image/lib/systemd/system /srv/image/var/lib;"
              "cp /etc/ssh/ssh_host_*_key /srv/image/etc/ssh/; echo id > /srv/image/etc/machine-id;"
              "cp /lib/systemd/system/sysgenid-unseal.service /srv/image/lib/systemd/system/;"
              "ln -s /var/lib/systemd /srv/image/var/lib/systemd; echo > /var/lib/systemd/random-seed")
    said = guest.run("sysgenid seal --yes --root=/srv/image")
    assert "/etc/machine-id is emptied\n" in said
    guest.run("! test -s /srv/image/etc/machine-id; ! ls /srv/image/etc/ssh/ssh_host_*;"
              "test -e /srv/image/var/lib/sysgenid/sealed; test -e /var/lib/systemd/random-seed;"
              "test -s /etc/machine-id; test -e /etc/ssh/ssh_host_rsa_key")
