# SPDX-License-Identifier: GPL-2.0
"""The choice of kernels, and the cache: a missing part is one error line."""
import hashlib
import os
import re
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import conftest
from harness import archive, host, kernels, roots


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache. apt fails at once, without its retries."""
    monkeypatch.setattr(host, "CACHE", tmp_path / "cache")
    host.CACHE.mkdir()
    (tmp_path / "apt.conf").write_text('Acquire::Retries "0";')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return host.CACHE


def visible(directory: Path) -> list[str]:
    """Returns the names of the files that a run left, except locks."""
    return [path.name for path in directory.iterdir() if not path.name.endswith(".lock")]


def test_missing_release_is_one_error_line(cache, monkeypatch):
    monkeypatch.setattr(archive, "mirror", lambda _: "http://localhost:9/debian")
    with pytest.raises(host.SetupError, match="lists of trixie failed: .*mirror can't be reached"):
        kernels.get.__wrapped__("6.12-trixie-cloud")
    assert visible(cache) == ["apt"]


def test_mirror_without_backports_is_one_error_line(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(archive, "mirror", lambda _: f"file:{tmp_path}")
    with pytest.raises(host.SetupError, match="^fetching the package lists of trixie-backports "
                       "failed: the mirror in .* lacks it: name another mirror there$"):
        kernels.get.__wrapped__("backports-cloud")
    assert visible(cache) == ["apt"]


def test_missing_kernel_is_one_error_line(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(archive, "mirror", lambda _: f"[trusted=yes] file:{tmp_path}")
    for suite in ("trixie", "trixie-updates", "trixie-security"):
        directory = tmp_path / f"dists/{suite}"
        (directory / "main/binary-amd64").mkdir(parents=True)
        (directory / "main/binary-amd64/Packages").touch()
        (directory / "Release").write_text("Suite: none\nComponents: main\nArchitectures: amd64\n")
    with pytest.raises(host.SetupError, match="^Debian's trixie offers no kernel 6.12-trixie-cloud"):
        kernels.get.__wrapped__("6.12-trixie-cloud")


SUITES = ("trixie", "trixie-updates", "trixie-security")
OFFERED = ("linux-headers-6.12.1+deb13-cloud-amd64", "linux-image-6.12.1+deb13-cloud-amd64-unsigned",
           "apt", *roots.TOOLS)
PACKAGE = """Package: {0}
Version: 1
Architecture: amd64
Essential: yes
Depends: apt
Filename: {0}.deb
Size: 6
SHA256: {1}

"""


@pytest.fixture(params=["Packages", ".deb"])
def broken_off(request, tmp_path, monkeypatch) -> Iterator[None]:
    """A mirror that sends only half of each file with that ending."""
    class Mirror(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path)

        def copyfile(self, source, outputfile):
            content = source.read()
            half = len(content) // 2 if self.path.endswith(request.param) else len(content)
            outputfile.write(content[:half])

        def log_message(self, *_):
            pass

    deb = hashlib.sha256(b"a file").hexdigest()
    for name in OFFERED:
        (tmp_path / f"{name}.deb").write_text("a file")
    for suite in SUITES:
        directory = tmp_path / f"dists/{suite}"
        (directory / "main/binary-amd64").mkdir(parents=True)
        lists = "".join(PACKAGE.format(name, deb) for name in OFFERED)
        (directory / "main/binary-amd64/Packages").write_text(lists)
        (directory / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nComponents: main\nArchitectures: amd64\nSHA256:\n "
            f"{hashlib.sha256(lists.encode()).hexdigest()} {len(lists)} main/binary-amd64/Packages\n")
    monkeypatch.setenv("no_proxy", "localhost")
    with HTTPServer(("localhost", 0), Mirror) as server:
        monkeypatch.setattr(archive, "mirror",
                            lambda _: f"[trusted=yes] http://localhost:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_mirror_that_breaks_off_is_one_error_line(cache, broken_off):
    with pytest.raises(host.SetupError) as kernel:
        kernels.get.__wrapped__("6.12-trixie-cloud")
    with pytest.raises(host.SetupError) as root:
        roots.get("trixie", ())
    for error in map(str, (kernel.value, root.value)):
        assert re.fullmatch("(fetching|making) .* failed: Debian's mirror broke off, .*", error)
    assert visible(cache) == ["apt"]


@pytest.mark.parametrize("line", [
    "cp: error writing '/mnt/file': No space left on device",
    "E: You don't have enough free space in /var/cache/apt/archives/.",
    "tar: ./usr/lib/libsystemd.so.0: Wrote only 4608 of 10240 bytes",
])
def test_full_disk_is_recognized_before_the_last_error(line):
    with pytest.raises(host.SetupError, match="^making a root failed: the disk is full$"):
        host.run(["sh", "-c", 'echo "$1"; echo "E: mmdebstrap failed to run"; exit 1', "sh", line],
                 "making a root")


FULL_DISK = 'mount -t tmpfs -o size=24m cache "$SYSGENID_CACHE" && "$@"; find "$SYSGENID_CACHE" -name "*half*"'


def test_full_disk_is_one_error_line(tmp_path):
    done = subprocess.run(
        ["unshare", *(["--map-root-user"] if os.geteuid() else []), "--mount", "sh", "-c",
         FULL_DISK, "sh", sys.executable, "-m", "harness.kernels", "6.1-cloud"],
        cwd=host.ROOT / "tools/testing/vm",
        env=os.environ | {"SYSGENID_CACHE": str(tmp_path)}, capture_output=True, text=True,
        check=False)
    assert [line for line in done.stderr.splitlines() if not line.startswith("  ")] == [
        line for line in done.stderr.splitlines() if line.endswith("the disk is full")]
    assert "the disk is full" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("ci", ["", "true"])
def test_missing_kernel_is_reported_and_fails_ci(monkeypatch, ci):
    def get(name):
        raise host.SetupError(f"no {name}")
    monkeypatch.setattr(kernels, "get", get)
    monkeypatch.setenv("CI", ci)
    option = Namespace(full=["6.1"], kernels=["6.1", "backports-rt"], missing={})
    if ci:
        with pytest.raises(host.SetupError):
            conftest.leave_out_missing(option)
    else:
        conftest.leave_out_missing(option)
        assert option.kernels == ["6.1"]
        assert option.missing == {"backports-rt": "no backports-rt"}


def test_unused_cache_entry_is_dropped(cache):
    ages = {"used": 0, "old": host.UNUSED_DAYS + 1, "old, but used again": host.UNUSED_DAYS + 1}
    for name, days in ages.items():
        (cache / name / "content").mkdir(parents=True)
        then = (cache / name).stat().st_mtime - days * 24 * 3600
        os.utime(cache / name, (then, then))
    assert host.cached(cache / "old, but used again")
    host.drop_unused()
    assert sorted(visible(cache)) == ["old, but used again", "used"]
