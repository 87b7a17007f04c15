# SPDX-License-Identifier: GPL-2.0
"""The guests' root file systems, as cpio archives.

Writing the archives here takes neither root nor device nodes on the host.
"""
import stat
import subprocess
from pathlib import Path

from harness import host

BUSYBOX = Path("/bin/busybox")


class Image:
    """A cpio archive in the making."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple = (0, 0),
            owner: tuple = (0, 0)) -> None:
        name = name.strip("/")
        parent = name.rpartition("/")[0]
        if parent and parent not in self.entries:
            self.directory(parent)
        header = "070701" + "".join(f"{value:08X}" for value in (
            len(self.entries) + 1, mode, *owner, 1, 0, len(content), 0, 0, *device,
            len(name) + 1, 0))
        self.entries[name] = padded(header.encode() + name.encode() + b"\0") + padded(content)

    def directory(self, name: str) -> None:
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes | str | Path, mode: int = 0o644) -> None:
        """Adds a file; a Path gives both the content and the mode."""
        if isinstance(content, Path):
            mode = stat.S_IMODE(content.stat().st_mode)
            content = content.read_bytes()
        elif isinstance(content, str):
            content = content.encode()
        self.add(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def tree(self, name: str, directory: Path) -> None:
        """Adds all files below a directory."""
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self.file(f"{name}/{path.relative_to(directory)}", path)

    def write(self, path: Path) -> Path:
        self.add("TRAILER!!!", 0)
        temporary = path.with_name(f".{path.name}.half-made")
        temporary.write_bytes(b"".join(self.entries.values()))
        return temporary.rename(path)

    def basics(self, agent: Path, busybox: Path = BUSYBOX) -> "Image":
        """Adds a shell, busybox's commands, init and the agent."""
        for name in ("dev", "proc", "sys", "run", "tmp"):
            self.directory(name)
        self.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        self.file("bin/busybox", busybox)
        applets = host.run([BUSYBOX, "--list"], "asking busybox for its commands").split()
        for applet in applets:
            if applet != "busybox":
                self.link(f"bin/{applet}", "busybox")
        self.file("init", host.ROOT / "tools/testing/guest/init")
        self.file("agent", agent)
        return self

    def program(self, name: str, path: Path) -> "Image":
        """Adds a program of this machine, with its libraries."""
        self.file(name, path.resolve())
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True)
        for word in listed.stdout.split():
            if word.startswith("/"):
                self.file(word, Path(word).resolve())
        return self

    def kmod(self) -> "Image":
        """Adds Debian's modprobe and its other names."""
        for name in ("modprobe", "insmod", "rmmod", "lsmod", "depmod", "modinfo"):
            self.link(f"sbin/{name}", "kmod")
        return self.program("sbin/kmod", Path("/usr/bin/kmod"))


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
