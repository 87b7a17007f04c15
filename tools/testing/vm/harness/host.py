# SPDX-License-Identifier: GPL-2.0
"""The machine that the harness runs on: paths, locks, commands.

A problem that a person has to fix is a SetupError, whose text is one sentence.
"""
import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
BUILD = ROOT / "build"
CACHE = Path(
    os.environ.get("SYSGENID_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sysgenid-vm"
)
# Causes of a command's failure, and their signs in its output.
CAUSES = {
    "the disk is full": ("No space left on device", "enough free space", "Wrote only"),
    "there is no network, or Debian's mirror can't be reached": (
        "Temporary failure resolving", "Could not resolve", "Could not connect",
        "Unable to connect", "Network is unreachable", "Connection timed out"),
    "Debian's mirror broke off, or changed meanwhile: repeat the command": (
        "Undetermined Error", "Error reading from server", "Connection failed",
        "Hash Sum mismatch", "File has unexpected size"),
    "the mirror in /etc/apt/sources.list lacks it: name another mirror there": (
        "does not have a Release file",),
}
# The cache drops an entry after this many days without use.
UNUSED_DAYS = 14


class SetupError(Exception):
    """A problem that a person has to fix; str() is one sentence."""


def progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def explain(output: str) -> str | None:
    """Returns the cause in a failed command's output, or None if it is unknown."""
    return next((cause for cause, signs in CAUSES.items()
                 if any(sign in output for sign in signs)), None)


def run(argv: list[str | Path], doing: str, **options) -> str:
    """Runs a command and returns what it printed; SetupError if it failed."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    except (FileNotFoundError, PermissionError):
        raise SetupError(f"{doing} failed: {argv[0]} is not installed") from None
    if done.returncode:
        lines = done.stdout.strip().splitlines() or [f"{argv[0]} ended with {done.returncode}"]
        errors = [line for line in lines if line.startswith("E: ") or " error: " in line]
        raise SetupError(f"{doing} failed: {explain(done.stdout) or [*errors, lines[-1]][0]}")
    return done.stdout


def sources(*names: str) -> list[Path]:
    """Returns the project's files in these places, in a checkout or a release's tarball."""
    if (ROOT / ".git").exists():
        listed = run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "--", *names],
                     "listing the sources").splitlines()
        return [ROOT / name for name in listed if (ROOT / name).is_file()]
    found = [path for name in names for path in ((ROOT / name).rglob("*") if (ROOT / name).is_dir()
                                                 else [ROOT / name])]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts
                  and BUILD not in path.parents)


@contextlib.contextmanager
def locked(name: str, directory: Path = CACHE) -> Iterator[None]:
    """Waits for the lock of this name, and holds it."""
    make_directory(directory)
    with open(directory / f".{name}.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another run that holds {lock.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def making(directory: Path) -> Iterator[Path]:
    """Yields a temporary directory that is renamed to the given one on success.

    The caller holds a lock that keeps others from making the same directory.
    """
    temporary = directory.with_name(f".{directory.name}.half-made")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cached(path: Path) -> bool:
    """Returns whether the path is in the cache, and marks it as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def drop_unused() -> None:
    """Removes cache entries that no run has used for UNUSED_DAYS."""
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    with locked("drop"):
        for path in CACHE.iterdir():
            if path.is_dir() and path.stat().st_mtime < oldest:
                progress(f"dropping {path.name} from the cache, unused for {UNUSED_DAYS} days")
                shutil.rmtree(path, ignore_errors=True)


def make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"can't make the directory {directory}: {error.strerror}; "
                         "name another cache with SYSGENID_CACHE=DIRECTORY") from None


def write_whole(path: Path, content: str) -> None:
    """Replaces a file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8")
    temporary.rename(path)


def as_setup_error(error: BaseException) -> BaseException:
    """Returns the error of a full disk as a SetupError, and others as they are."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return SetupError(f"the disk that holds {error.filename or ROOT} is full")
    return error


@contextlib.contextmanager
def full_disk_is_setup_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise as_setup_error(error) from None


def main(function: Callable[[], None]) -> None:
    """Runs a program's main function; a SetupError is one line and exit status 1."""
    try:
        with full_disk_is_setup_error():
            function()
    except SetupError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
