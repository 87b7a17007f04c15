# SPDX-License-Identifier: GPL-2.0
"""The packages in a Debian: installed, upgraded, removed, purged.

The tests run dpkg and DKMS in a chroot. test_debian.py tests a running system.
"""
import re
from pathlib import Path

import pytest
from harness import debian, host, kernels, packages

# One kernel of each release.
pytestmark = [pytest.mark.kernels("6.12-cloud", "6.12-trixie-cloud"), pytest.mark.debian]

# Installed kernels that the modules do not support.
OLD, WITHOUT_ACPI = "5.10.0-1-amd64", "6.12.0-1-without-acpi"
# Lists every file, except the records of dpkg, apt and the like, and DKMS's key.
LIST = r"""find / -xdev \( -path /proc -o -path /dev -o -path /tmp -o -path /var/cache -o -path /var/log \
    -o -path '/var/lib/dkms/mok.*' -o -path /var/lib/apt -o -path /var/lib/dpkg \) -prune -o -printf '%y %m %u:%g %p -> %l\n' |
    grep -v -e '/etc/[a-z]*- ' | sort
    cat /etc/passwd /etc/group /etc/shadow /etc/gshadow"""
STATUS = "dpkg-query -W -f '${Version} ${db:Status-Status}\n' "
NAMES = ("sysgenid-dkms sysgenid libsysgenid1 libsysgenid-dev python3-sysgenid "
         "sysgenid-openssl")
# An administrator's changes.
CHANGES = """ln -s /usr/share/sysgenid/hooks/20-ssh-host-keys /etc/sysgenid/hooks.d/
printf '#!/bin/sh\\n' > /etc/sysgenid/hooks.d/90-mine
chmod 755 /etc/sysgenid/hooks.d/90-mine
echo 'noted by hand' >> /etc/sysgenid/hooks.d/README.txt
sysgenid-openssl enable
"""
GENERATOR = "openssl list -random-instances | sed -n 's/^  \\([A-Z].*\\) @.*/\\1/p' | uniq"
ENTER = """mount -t proc proc "$1/proc"
mount -t devpts -o newinstance devpts "$1/dev/pts"
exec chroot "$1" sh -ec "$2"
"""


class Chroot:
    """A Debian in a directory, with the headers of one supported kernel."""

    def __init__(self, directory: Path, kernel: kernels.Kernel):
        self.directory = directory
        base = debian.make_base(debian.kernels_with(kernel), "autodep8", "autopkgtest")
        packages.as_root(["tar", "-xpf", str(base), "-C", str(directory),
                          "--exclude=./usr/src/linux-headers-6.1.*"], "unpacking a Debian")
        others = [entry.name for entry in (directory / "usr/lib/modules").iterdir()
                  if entry.name != kernel.release]
        self.run(f"""rm -rf {' '.join(f'/lib/modules/{name}' for name in others)}
            echo autoinstall_all_kernels=y >> /etc/dkms/framework.conf
            for kernel in {OLD} {WITHOUT_ACPI}; do mkdir -p /lib/modules/$kernel/build/include; done
            echo CONFIG_ACPI=y > /lib/modules/{OLD}/build/.config
            echo '# CONFIG_ACPI is not set' > /lib/modules/{WITHOUT_ACPI}/build/.config
            for kernel in /lib/modules/*; do depmod ${{kernel##*/}} 2>/dev/null; done""")

    def run(self, script: str) -> str:
        return packages.as_root(["unshare", "-m", "sh", "-c", ENTER, "enter", str(self.directory),
                                 script], "working in a Debian")

    def install(self, debs: list[Path]) -> str:
        for deb in debs:
            packages.as_root(["cp", str(deb), f"{self.directory}/tmp/"], "copying a package")
        said = self.run("apt-get -q install -y --no-install-recommends /tmp/*.deb")
        self.run("rm /tmp/*.deb")
        return said

    def status(self) -> set[str]:
        return set(self.run(STATUS + NAMES).splitlines())


@pytest.fixture
def chroot(kernel):
    packages.install(debian.FOR_ROOT)
    directory = host.BUILD / f"debian-life-{kernel.name}"
    with host.locked(directory.name, host.BUILD):
        packages.as_root(["rm", "-rf", str(directory)], "tidying up")
        directory.mkdir(parents=True)
        yield Chroot(directory, kernel)
        packages.as_root(["rm", "-rf", str(directory)], "tidying up")


def modules(chroot: Chroot) -> list[str]:
    """Returns the modules that DKMS has installed, as kernel/name."""
    found = chroot.run("cd /lib/modules && find . -path '*/updates/*' -name '*.ko*'").split()
    return sorted(re.sub(r"^./([^/]+)/.*/([^/.]+)\..*", r"\1/\2", path) for path in found)


def check_installed(chroot: Chroot, kernel: kernels.Kernel, version: str) -> None:
    assert chroot.status() == {f"{version} installed"}
    assert modules(chroot) == [f"{kernel.release}/sysgenid", f"{kernel.release}/vm_generation_id"]
    assert re.findall(r"^sysgenid/(\S+), (\S+), ", chroot.run("dkms status"), re.M) == [
        (version, kernel.release)]
    assert chroot.run("ls -d /usr/src/sysgenid-*") == f"/usr/src/sysgenid-{version}\n"
    assert "vm_generation_id.ko" in chroot.run(
        f"modprobe -S {kernel.release} --show-depends vmgenid")
    assert chroot.run("getent group sysgenid")
    assert chroot.run("sysgenid --help")


def check_new_kernels(chroot: Chroot, kernel: kernels.Kernel, version: str) -> None:
    """Checks that the hook for a new kernel succeeds, and builds for a supported one."""
    chroot.run(f"dkms uninstall sysgenid/{version} -k {kernel.release}")
    assert modules(chroot) == []
    for name in (OLD, WITHOUT_ACPI, kernel.release):
        chroot.run(f"/etc/kernel/postinst.d/dkms {name}")
    check_installed(chroot, kernel, version)


def test_lintian_is_clean(kernel):
    packages.install(debian.FOR_PACKAGES)
    release = debian.release_for(kernel)
    debian.make_packages(release)
    debian.lint_packages(release)


def test_autopkgtest_builds_modules(chroot, kernel):
    debs = debian.make_packages(debian.release_for(kernel))
    packages.as_root(["cp", "-r", *map(str, debs), str(host.ROOT / "debian"),
                      f"{chroot.directory}/tmp/"], "copying packages")
    chroot.run("mkdir /tmp/source && mv /tmp/debian /tmp/source/")
    # The chroot is removed afterwards. autopkgtest ends with 8, as the test is superficial.
    said = chroot.run("cd /tmp && autopkgtest --ignore-restrictions=breaks-testbed"
                      " --setup-commands='apt-get update' *.deb source/ -- null 2>&1 || true")
    assert re.search(r"^dkms-autopkgtest +PASS", said, re.M), said


def test_upgrade_keeps_changes_and_purge_only_hooks(chroot, kernel):
    before = chroot.run(LIST)
    release = debian.release_for(kernel)
    debs = debian.make_packages(release)
    said = chroot.install(debs)
    assert said.count("it should not be built") == 2, said
    version = debs[0].name.split("_")[1]
    check_installed(chroot, kernel, version)
    check_new_kernels(chroot, kernel, version)

    chroot.run(CHANGES)
    changed = chroot.run("cd /etc/sysgenid && find . ! -type d | sort && cat hooks.d/README.txt")
    chroot.install(debian.make_next_packages(release))
    check_installed(chroot, kernel, "99.0")
    assert chroot.run("cd /etc/sysgenid && find . ! -type d | sort && cat hooks.d/README.txt") == changed
    assert chroot.run("find /etc -name '*.dpkg-*'") == ""
    assert chroot.run(GENERATOR) == "SYSGENID\n"

    chroot.run(f"apt-get -q remove -y {NAMES}")
    assert chroot.run("cd /etc/sysgenid && find . ! -type d | sort && cat hooks.d/README.txt") == changed
    assert modules(chroot) == [] and chroot.run("dkms status") == ""
    assert chroot.run(GENERATOR) == chroot.run(
        f"OPENSSL_CONF=/etc/ssl/sysgenid.cnf; export OPENSSL_CONF; {GENERATOR}") == "CTR-DRBG\n"
    assert chroot.run("dpkg -V openssl") == ""

    chroot.run("cp /var/lib/dpkg/info/sysgenid.postrm /tmp/")
    chroot.run(f"dpkg --purge {NAMES}")
    assert chroot.run("find /etc/sysgenid ! -type d") == "/etc/sysgenid/hooks.d/90-mine\n"
    chroot.run("rm /etc/sysgenid/hooks.d/90-mine; sh /tmp/sysgenid.postrm purge")
    after = chroot.run(LIST)
    assert sorted(set(after.splitlines()) ^ set(before.splitlines())) == []
