# SPDX-License-Identifier: GPL-2.0
"""The shipped hooks, in a Debian with the services that they are for."""
from dataclasses import replace

import pytest
from harness import debian_disk, host, kernels, packages
from harness.guest import Guest, Snapshot, go, new_guid
from harness.userspace import HOOKS, SHIPPED_HOOKS

pytestmark = [pytest.mark.kernels("6.1-cloud", "6.12-cloud"), pytest.mark.debian]

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
HANDSHAKE = ("openssl s_client -connect 127.0.0.1:4433 -CAfile /etc/tls/cert.pem"
             " -verify_return_error </dev/null")
# Each command prints an identity that no other clone may have.
IDENTITIES = {
    "15-efi-random-seed": "sha256sum < /boot/efi/loader/random-seed",
    "20-ssh-host-keys": "cat /etc/ssh/ssh_host_*_key",
    "30-machine-id": "cat /etc/machine-id",
    "35-hostname": "hostname",
    "41-networkmanager": "sha256sum < /var/lib/NetworkManager/secret_key",
    "42-dhcpcd": "cat /var/lib/dhcpcd/duid",
    "60-iscsi-initiator": "cat /etc/iscsi/initiatorname.iscsi",
    "65-nvme-host": "cat /etc/nvme/hostnqn /etc/nvme/hostid",
}
# Both services make their identifier when they bring up an interface.
IDENTIFIED = ("until test -e /var/lib/dhcpcd/duid && test -e /var/lib/NetworkManager/secret_key;"
              " do sleep 0.2; done")
# Most distributions call OpenSSH's service sshd; Debian's package calls it ssh.
SSHD = """[Service]
ExecStartPre=/bin/mkdir -p /run/sshd
ExecStart=/usr/sbin/sshd -D
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
"""
FILES = {
    "etc/systemd/system/sshd.service": SSHD,
    "etc/NetworkManager/conf.d/eth0.conf":
    "[keyfile]\nunmanaged-devices=interface-name:eth0\n",
    "etc/dhcpcd.conf": "duid\nclientid\nallowinterfaces eth0\n",
    "etc/cloud/cloud.cfg.d/99-test.cfg":
    "datasource_list: [NoCloud, None]\nnetwork: {config: disabled}\n"
    "cloud_init_modules: [seed_random]\ncloud_config_modules: [runcmd]\n"
    "cloud_final_modules: [scripts-user]\n",
    "var/lib/cloud/seed/nocloud/meta-data": "instance-id: i-1\n",
    "var/lib/cloud/seed/nocloud/user-data":
    "#cloud-config\nssh_deletekeys: false\nruncmd: [[sh, -c, 'echo ran >> /root/instances']]\n",
}


@pytest.fixture(scope="session")
def kernel(request):
    """The stock kernel with longer time limits, as a whole system boots slowly."""
    return replace(kernels.get(request.param), patience=3, memory=768)


@pytest.fixture(scope="module")
def image(kernel, tmp_path_factory):
    return debian_disk.make_image(kernel, tmp_path_factory.mktemp("hooks") / "hooks.cpio", FILES)


@pytest.fixture
def guest(boot, image):
    guest = boot(image=image, root=debian_disk.make_root(), network=True, append="net.ifnames=0",
                 settings=("-netdev", "user,id=second,restrict=on"),
                 devices=("virtio-net-pci,netdev=second,romfile=",))
    guest.run("sysgenid wait-settled --timeout=200", 240)
    return guest


def enable(guest: Guest, *names: str) -> None:
    for name in names:
        guest.run(f"ln -s {SHIPPED_HOOKS}/{name} {HOOKS}/")


def settle(guest: Guest) -> str:
    """Waits until all hooks have succeeded; returns the overseer's log."""
    status = guest.status("sysgenid wait-settled --timeout=300", 320)
    said = guest.run("journalctl --sync; journalctl -q -o cat -u sysgenidd; sysgenid status")
    assert status == 0, said
    return said


def identities(guest: Guest) -> dict[str, str]:
    return {name: guest.run(command) for name, command in IDENTITIES.items()}


def test_clones_share_no_identity(guest):
    guest.run("mkdir -p /boot/efi/loader; head -c 512 /dev/urandom > /boot/efi/loader/random-seed;"
              "rm /etc/ssh/ssh_host_rsa_key*;"
              "ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key;"
              "echo InitiatorName=iqn.2026-01.org.example:host:old > /etc/iscsi/initiatorname.iscsi",
              120)
    guest.run("systemctl start sshd NetworkManager dhcpcd; "
              + IDENTIFIED, 120)
    enable(guest, *IDENTITIES)
    found = [identities(guest)]
    with guest.snapshot() as snap:
        for _ in range(2):
            with snap.restore() as clone:
                said = settle(clone)
                assert f"{len(IDENTITIES)} done, 0 failed" in said
                clone.run(IDENTIFIED, 60)
                found.append(identities(clone))
                check_clone(clone)
    for name in IDENTITIES:
        shown = [one[name] for one in found]
        assert len(set(shown)) == 3, f"{name}: {shown}"


def check_clone(clone: Guest) -> None:
    """Checks what the hooks keep, and that services have the new identities."""
    clone.run("systemctl is-active sshd NetworkManager dhcpcd")
    assert clone.run("stat -c %s /boot/efi/loader/random-seed") == "512\n"
    assert clone.run("ssh-keygen -l -f /etc/ssh/ssh_host_rsa_key").startswith("2048 ")
    assert clone.run("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | cut -d ' ' -f 2-3", 60) == (
        clone.run("cut -d ' ' -f 1-2 /etc/ssh/ssh_host_ed25519_key.pub")), "sshd has the old keys"
    name = clone.run("cat /etc/hostname")
    assert name == clone.run("hostname") and name.startswith("guest-") and len(name) == 15
    assert clone.run(f"getent hosts {name.strip()}").split()[1:] == [
        f"{name.strip()}.example.org", name.strip()]
    assert clone.run("cat /etc/iscsi/initiatorname.iscsi").startswith(
        "InitiatorName=iqn.2026-01.org.example:host:")
    nqn = clone.run("cat /etc/nvme/hostnqn").strip()
    assert nqn == "nqn.2014-08.org.nvmexpress:uuid:" + clone.run("cat /etc/nvme/hostid").strip()


# The clock

@pytest.fixture
def certificate(logs) -> dict[str, str]:
    """A certificate that becomes valid in 75 hours, and its key."""
    packages.install(("faketime", "openssl"))
    host.run(["faketime", "-f", "+75h", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
              "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-days", "1",
              "-keyout", logs / "key.pem", "-out", logs / "cert.pem"], "making a certificate")
    return {name: (logs / name).read_text() for name in ("cert.pem", "key.pem")}


def restore_later(snap: Snapshot, guid: str, monkeypatch) -> Guest:
    """Restores a clone 75 hours later, by the host's clock that drives QEMU's RTC."""
    with monkeypatch.context() as later:
        later.setenv("LD_PRELOAD", FAKETIME)
        later.setenv("FAKETIME", "+75h")
        later.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        clone = snap.launch(guid)
    go(clone)
    return clone


def test_clone_after_75_hours_passes_tls_handshake(
        guest, certificate, monkeypatch):
    for name, text in certificate.items():
        guest.run(f"mkdir -p /etc/tls; cat > /etc/tls/{name} <<'end'\n{text}end")
    guest.start("exec openssl s_server -accept 4433 -cert /etc/tls/cert.pem -key /etc/tls/key.pem -quiet")
    guest.run("until openssl s_client -connect 127.0.0.1:4433 </dev/null; do sleep 0.2; done;"
              "systemctl start chrony", 60)
    enable(guest, "05-clock")
    guest.run(f"printf '#!/bin/sh\n{HANDSHAKE}\n' > {HOOKS}/06-tls; chmod 755 {HOOKS}/06-tls")
    with guest.snapshot() as snap:
        # With the same GUID no hook runs, and the clock is late.
        with restore_later(snap, snap.options.guid, monkeypatch) as clone:
            program = clone.start(HANDSHAKE)
            assert program.wait(60) and "certificate is not yet valid" in program.output
        with restore_later(snap, new_guid(), monkeypatch) as clone:
            said = settle(clone)
            assert "hook 05-clock: setting the clock forward to 20" in said
            clone.run("systemctl is-active chrony")


def test_clock_is_never_set_back(guest):
    enable(guest, "05-clock")
    guest.run("date -s '+1 day'")
    before = int(guest.run("date +%s"))
    guest.run("sysgenid trigger")
    assert "setting the clock" not in settle(guest)
    assert int(guest.run("date +%s")) >= before


def test_cloud_init_sees_clone_as_new_instance(guest):
    units = "cloud-init-local cloud-init cloud-config cloud-final"
    guest.run("rm /etc/cloud/cloud-init.disabled")
    for unit in units.split():
        guest.run(f"systemctl start {unit}", 200)
    assert guest.run("cat /root/instances") == "ran\n"
    enable(guest, "50-cloud-init")
    with guest.snapshot() as snap, snap.restore() as clone:
        settle(clone)
        assert clone.run("cat /root/instances") == "ran\nran\n"
