# SPDX-License-Identifier: GPL-2.0
"""Debian's archive: the packages of any release, for any architecture.

This machine's apt fetches the lists from its own mirror. The lists are kept in the
cache, and need neither root nor a line in /etc/apt.
"""
import hashlib
import re
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness import host, packages


@cache
def this_release() -> str:
    """Returns the codename of this machine's Debian release, as in "bookworm"."""
    found = re.search(r"^VERSION_CODENAME=(\S+)",
                      Path("/etc/os-release").read_text(encoding="utf-8"), re.M)
    return found[1] if found else ""


def mirror(label: str) -> str | None:
    """Returns the address of the archive whose Release file has that label."""
    found = host.run(["apt-get", "indextargets", "--format", "$(REPO_URI)",
                      "Created-By: Packages", "Origin: Debian", f"Label: {label}"],
                     "asking apt for its mirror").split()
    return found[0] if found else None


@dataclass(frozen=True)
class Archive:
    """A suite of the archive. A release includes its updates, but not its backports."""
    suite: str
    architecture: str = "amd64"

    @property
    def directory(self) -> Path:
        return host.CACHE / "apt" / f"{self.suite}-{self.architecture}"

    def sources(self) -> list[str]:
        """Returns the lines for sources.list(5) of the suite and its updates."""
        packages.ensure_lists()
        main, security = mirror("Debian"), mirror("Debian-Security")
        if not main:
            raise host.SetupError("apt knows no mirror of Debian: name one in /etc/apt/sources.list, "
                               "and run `apt-get update` as root")
        suites = [(main, self.suite)]
        if not self.suite.endswith("-backports"):
            suites.append((main, f"{self.suite}-updates"))
            if security:
                suites.append((security, f"{self.suite}-security"))
        return [f"deb {uri} {suite} main" for uri, suite in suites]

    def _options(self) -> list[str]:
        """Returns options that limit apt to this suite's lists."""
        return [f"-o{name}={value}" for name, value in {
            "Dir::Etc::SourceList": self.directory / "sources.list", "Dir::Etc::SourceParts": "-",
            "Dir::State": self.directory, "Dir::State::Status": "/dev/null",
            "Dir::Cache": self.directory, "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture, "APT::Sandbox::User": "",
            "Acquire::Languages": "none"}.items()]

    def refresh(self) -> None:
        """Fetches the lists, unless they are less than a day old."""
        stamp = self.directory / "fetched"
        host.cached(self.directory.parent)
        with host.locked(f"apt-{self.directory.name}"):
            if stamp.exists() and time.time() - stamp.stat().st_mtime < packages.DAY:
                return
            sources = "\n".join(self.sources()) + "\n"
            host.progress(f"fetching the package lists of {self.suite} ({self.architecture})")
            for name in ("lists/partial", "archives/partial"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            (self.directory / "sources.list").write_text(sources, encoding="utf-8")
            doing = f"fetching the package lists of {self.suite}"
            said = host.run(["apt-get", "-q", *self._options(), "update"], doing)
            failed = re.search(r"^W: (Failed to fetch .*)", said, re.M)
            if failed:  # apt-get only warns of it
                raise host.SetupError(f"{doing} failed: {host.explain(said) or failed[1]}")
            stamp.touch()

    def names(self, prefix: str) -> list[str]:
        """Returns all package names with that prefix, virtual ones too."""
        return host.run(["apt-cache", *self._options(), "pkgnames", prefix],
                        "asking apt for its packages").split()

    def shown(self, *names: str) -> dict[str, dict[str, str]]:
        """Returns the fields of the newest version of each existing package."""
        if not names:
            return {}
        done = subprocess.run(
            ["apt-cache", *self._options(), "show", "--no-all-versions", *names],
            capture_output=True, text=True, check=False)
        found = [dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.M))
                 for paragraph in done.stdout.split("\n\n")]
        return {fields["Package"]: fields for fields in found if fields}

    def key(self, names: tuple[str, ...]) -> str:
        """Returns a hash of the packages' names and newest versions, for the cache."""
        self.refresh()
        shown = self.shown(*names)
        versions = (f"{name} {shown.get(name, {}).get('Version')}" for name in sorted(names))
        return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:16]

    def download(self, names: list[str], directory: Path) -> list[Path]:
        """Downloads packages into a directory."""
        host.run(["apt-get", "-q", *self._options(), "download", *names],
                 f"fetching {' '.join(names)}", cwd=directory)
        return sorted(directory.glob("*.deb"))
