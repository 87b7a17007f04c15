# SPDX-License-Identifier: GPL-2.0
"""A release: one version in all files, and a self-contained tarball."""
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from harness import build, host, kernels, packages

VERSION = (host.ROOT / "VERSION").read_text(encoding="utf-8").strip()
KERNEL = "6.1-cloud"
NEEDED = ("git", "libsystemd-dev", "libjson-c-dev", "libgcrypt20-dev", "kmod")


def text_of(name: str) -> str:
    return (host.ROOT / name).read_text(encoding="utf-8")


def test_changelog_and_news_start_with_version():
    assert re.match(r"sysgenid \((.*?)\)", text_of("debian/changelog"))[1] == VERSION
    assert re.search(r"^## (\S+)", text_of("NEWS.md"), re.M)[1] == VERSION


def test_dkms_has_version():
    said = host.run(["bash", "-c", '. "$1"; echo "$PACKAGE_VERSION"', "bash",
                     host.ROOT / "dkms.conf"], "reading dkms.conf")
    assert said.strip() == VERSION


def test_library_header_has_version():
    numbers = re.findall(r"^#define SYSGENID_VERSION_(?:MAJOR|MINOR|PATCH)\s+(\d+)$",
                         text_of("tools/lib/sysgenid/sysgenid.h"), re.M)
    assert ".".join(numbers) == VERSION


@pytest.fixture(scope="module")
def tarball() -> Path:
    if not (host.ROOT / ".git").exists():
        pytest.skip("make dist needs a git checkout")
    packages.install(NEEDED)
    with host.locked("dist", host.BUILD / "locks"):
        return host.ROOT / host.run(["make", "-s", "-C", host.ROOT, "dist"],
                                    "making the tarball").splitlines()[-1]


@pytest.fixture
def unpacked(tarball, tmp_path) -> Path:
    """The release's directory, outside of any git repository."""
    with tarfile.open(tarball) as tar:
        tar.extractall(tmp_path)
    top = tmp_path / f"sysgenid-{VERSION}"
    assert list(tmp_path.iterdir()) == [top]
    assert not subprocess.run(["git", "-C", top, "rev-parse"], capture_output=True,
                              check=False).returncode == 0
    return top


def test_tarball_is_reproducible(tarball):
    first = tarball.read_bytes()
    host.run(["make", "-s", "-C", host.ROOT, "dist"], "making the tarball again",
             env=os.environ | {"TZ": "Asia/Tokyo", "LC_ALL": "C"}, umask=0o077)
    assert tarball.read_bytes() == first


def test_tarball_installs_outside_git_with_version(unpacked, tmp_path):
    kernel = kernels.get(KERNEL)
    root = tmp_path / "root"
    build.make(kernel, "-C", unpacked, f"KDIR={kernel.build_tree}", f"INSTALL_MOD_PATH={root}",
               "install-modules", doing="installing the modules")
    host.run(["make", "-s", "-C", unpacked, f"DESTDIR={root}", "install-userspace"],
             "installing the programs")
    library = {"LD_LIBRARY_PATH": f"{root}/usr/lib"}
    for name in ("sysgenid", "sysgenidd"):
        said = host.run([root / "usr/sbin" / name, "--version"], f"asking {name}",
                        env=os.environ | library)
        assert said == f"{name} {VERSION}\n"
    assert (root / f"usr/lib/libsysgenid.so.{VERSION}").exists()
    assert f"Version: {VERSION}\n" in (root / "usr/lib/pkgconfig/libsysgenid.pc").read_text()
    for name in ("sysgenid", "vm_generation_id"):
        module = next(root.rglob(f"{name}.ko"))
        assert host.run(["/sbin/modinfo", "-F", "version", module],
                        "reading a module").strip() == VERSION


@pytest.mark.long
def test_tarball_passes_its_tests_outside_git(unpacked):
    said = host.run(["make", "-C", unpacked, "check", f"KERNEL={KERNEL}", "JOBS=1",
                     "T=new_guid_bumps_once or readme or has_version"],
                    "testing the tarball")
    assert re.search(r"^=+ [4-9] passed in ", said, re.M), said
