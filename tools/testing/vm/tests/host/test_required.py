# SPDX-License-Identifier: GPL-2.0
"""The hosts' tests name what this machine lacks."""
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import host, kvm, libvirt_host, nested, required, xen

pytestmark = pytest.mark.hosts

WHY = "swtpm2000 is not installed: run `make check-hosts`, which installs it"
TEST = """
import pytest
from harness import required

@pytest.mark.hosts
def test_that_needs_it():
    required.programs("sh", "swtpm2000")
"""

SETUP_FAILS = """
import errno
import pytest
from harness import host

ERRORS = {"setup": host.SetupError("the mirror broke off"),
          "disk": OSError(errno.ENOSPC, "No space left on device", "/cache/root.tar")}

@pytest.mark.hosts
@pytest.mark.parametrize("error", ERRORS)
def test_that_needs_it(error):
    raise ERRORS[error]
"""


@pytest.fixture
def outside_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


def run_test(tmp_path: Path, test: str = TEST, **environment: str) -> subprocess.CompletedProcess:
    """Runs the test as make check-hosts would."""
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    directory = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", directory / "pytest.ini", "--rootdir", directory,
         "-p", "conftest", "--no-guests", "-q", "-m", "hosts", tmp_path],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(directory),
             "SYSGENID_CACHE": str(host.CACHE), **environment},
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def test_skip_is_repeated_at_the_end_of_the_run(tmp_path):
    done = run_test(tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"NOT TESTED: test_it.py::test_that_needs_it: Skipped: {WHY}" in done.stdout
    assert "1 skipped" in done.stdout


def test_under_ci_it_is_a_failure(tmp_path):
    done = run_test(tmp_path, CI="true")
    assert done.returncode == 1, done.stdout
    assert f"{WHY} (an error, as CI=true)" in done.stdout
    assert "1 failed" in done.stdout


def test_failed_setup_is_a_sentence_without_traceback(tmp_path):
    done = run_test(tmp_path, SETUP_FAILS)
    assert "2 failed" in done.stdout
    assert "\nerror: the mirror broke off\n" in done.stdout
    assert "\nerror: the disk that holds /cache/root.tar is full\n" in done.stdout
    assert "Traceback" not in done.stdout and "raise ERRORS" not in done.stdout


def test_without_libvirtd_the_sentence_says_what_installs_it(outside_ci, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception,
                       match="^libvirtd is not installed: run `make check-hosts`"):
        libvirt_host.Libvirtd(tmp_path)


def test_without_its_python_module_the_sentence_says_what_installs_it(
        outside_ci, monkeypatch, tmp_path):
    monkeypatch.setattr(libvirt_host, "libvirt", None)
    with pytest.raises(pytest.skip.Exception, match="^Python's libvirt module is not installed"):
        libvirt_host.Libvirtd(tmp_path)


def test_without_root_the_sentence_says_so(outside_ci, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="^libvirtd needs root: run"):
        libvirt_host.Libvirtd(tmp_path)


def test_full_disk_is_a_sentence_with_both_sizes(outside_ci, tmp_path):
    required.space(tmp_path, 0)
    free = shutil.disk_usage(tmp_path).free >> 20
    with pytest.raises(pytest.skip.Exception, match=rf"^{tmp_path} has \d+ MiB free, "
                       rf"and the test writes {free + 1024} MiB: free some space there$"):
        required.space(tmp_path, free + 1024)


def test_libvirtd_that_does_not_start_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setattr(libvirt_host, "QEMU_CONF", 'user = "no-such-user"\n')
    with pytest.raises(host.SetupError, match="^libvirtd does not answer: .*no-such-user"):
        libvirt_host.Libvirtd(tmp_path)
    assert "no-such-user" in (tmp_path / "libvirt-host/libvirtd.log").read_text()


def test_namespaces_that_are_refused_are_a_sentence(outside_ci, monkeypatch, tmp_path):
    monkeypatch.setattr(libvirt_host, "ENTER", "echo no mount here >&2; exit 1")
    with pytest.raises(pytest.skip.Exception,
                       match="^libvirtd can't be started: no mount here; run"):
        libvirt_host.Libvirtd(tmp_path)


# The function that starts each nested host; it looks at no kernel before the requirements.
NESTED = pytest.mark.parametrize("start", [
    lambda logs: xen.Xen(None, [], logs), lambda logs: kvm.KvmHost(None, logs)], ids=["Xen", "KVM"])


@NESTED
def test_without_nested_virtualization_the_sentence_says_so(
        start, outside_ci, monkeypatch, tmp_path):
    monkeypatch.setattr(nested, "VIRTUALIZATION", ("vmx",))     # QEMU does not emulate Intel's
    with pytest.raises(pytest.skip.Exception, match=(
            r"^QEMU has no nested virtualization \(vmx; TCG doesn't support requested features\): "
            "install Debian's package qemu-system-x86$")):
        start(tmp_path)


@NESTED
def test_nested_host_on_a_full_disk_is_a_sentence(start, outside_ci, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(pytest.skip.Exception,
                       match=f"^{tmp_path} has 0 MiB free, and the test writes"):
        start(tmp_path)
