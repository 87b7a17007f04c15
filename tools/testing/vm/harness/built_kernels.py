# SPDX-License-Identifier: GPL-2.0
"""Kernels that the tests build themselves, from Debian's linux-source package.

What is in configs/ is all that they have. Each is built once for a version of
the source and a configuration. As a program: builds those named.
"""
import functools
import hashlib
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from harness import host, kernels, packages
from harness.kernels import Kernel

CONFIGS = Path(__file__).with_name("configs")
TREES = {
    "6.12-debug": ("guest.config", "debug.config"),
    "6.12-kcsan": ("guest.config", "kcsan.config"),
    "6.12-module": ("guest.config", "module.config"),
}
CLANG = ("guest.config",)
PACKAGES = ("flex", "bison", "bc", "libelf-dev", "libssl-dev")
CLANG_PACKAGES = ("clang", "lld", "llvm")
PROGRESS_SECONDS = 30
# Only the modules are watched: what the fuzzer is guided by, what make coverage shows.
MAKE_FLAGS = {"6.12-debug": ("KCOV_INSTRUMENT=y", "GCOV_PROFILE=y")}
# A leak is reported when it is 5 s old, and was no more in any register or on any
# stack at the second look.
LEAKS = """
leaks=/sys/kernel/debug/kmemleak
if [ -e $leaks ]; then
    sleep 5.1 &
    echo scan > $leaks && wait && echo scan > $leaks && cat $leaks || echo kmemleak: disabled
fi"""


@functools.cache
def tree() -> Path:
    """The whole source, unpacked; nothing is ever written to it."""
    packed = kernels.source()
    directory = packed.with_name(f"{packed.name}-tree")
    with host.locked("source-tree"):
        if not host.cached(directory):
            host.progress(f"unpacking {kernels.SOURCE}")
            with host.making(directory) as temporary:
                deb = next(packed.glob("*.deb"))
                host.run(["sh", "-ec", f"dpkg-deb --fsys-tarfile {deb}"
                          f" | tar -xO ./usr/src/{kernels.SOURCE}.tar.xz"
                          f" | tar -xJ --strip-components=1 -C {temporary}"],
                         f"unpacking {kernels.SOURCE}")
    return directory


def make_args(directory: Path, *more: str) -> list[str]:
    return ["nice", "make", "-C", str(tree()), f"O={directory}", "ARCH=x86_64",
            "KBUILD_BUILD_USER=vm", "KBUILD_BUILD_HOST=test", *more]


def configure(directory: Path, fragments: tuple[str, ...], *more: str) -> None:
    """Configures what the fragments say, and nothing else."""
    wanted = "".join((CONFIGS / name).read_text(encoding="utf-8") for name in fragments)
    (directory / "wanted.config").write_text(wanted, encoding="utf-8")
    host.run([*make_args(directory, *more), f"KCONFIG_ALLCONFIG={directory}/wanted.config",
              "allnoconfig"], f"configuring with {' and '.join(fragments)}")
    got = set((directory / ".config").read_text(encoding="utf-8").splitlines())
    missing = [line for line in wanted.splitlines()
               if line.startswith("CONFIG_") and line not in got]
    if missing:
        raise host.SetupError(f"{kernels.SOURCE} does not take {missing[0]} "
                           f"of {CONFIGS}: its dependencies are not met")


def compile_tree(name: str, directory: Path, *goals: str) -> None:
    """Builds, and tells now and then how far it has come."""
    log = host.BUILD / "logs" / f"{name}.build"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = told = time.monotonic()
    with open(log, "w", encoding="utf-8") as output:
        with subprocess.Popen([*make_args(directory, f"-j{os.cpu_count()}"), *goals],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace") as make:
            files = 0
            for line in make.stdout:
                output.write(line)
                files += line.startswith("  ")
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    host.progress(f"building {name}: {files} files, {told - started:.0f} s")
    if make.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")
        errors = [line for line in said.splitlines() if re.search(r"(?i)error", line)]
        raise host.SetupError(f"building {name} failed: "
                           f"{host.explain(said) or (errors or ['make gave no reason'])[0]}; "
                           f"{log} has all of it")


def cached(name: str, fragments: tuple[str, ...], *goals: str) -> Path:
    """The directory of a configured and built tree."""
    packages.install(PACKAGES)
    key = hashlib.sha256(f"{kernels.SOURCE}_{kernels.source_version()}".encode())
    for fragment in fragments:
        key.update((CONFIGS / fragment).read_bytes())
    key.update(" ".join(goals).encode())
    directory = host.CACHE / f"{name}_{key.hexdigest()[:16]}"
    if host.cached(directory):  # nor does it have to wait for a build of another configuration
        return directory
    with host.locked(name):
        if not host.cached(directory):
            host.progress(f"building {name}, some minutes; the next time it is there")
            with host.making(directory) as temporary:
                configure(temporary, fragments, *[goal for goal in goals if "=" in goal])
                compile_tree(name, temporary, *goals)
    return directory


def own(name: str) -> Kernel:
    directory = cached(name, TREES[name], "bzImage", "modules")
    release = (directory / "include/config/kernel.release").read_text(encoding="utf-8").strip()
    return Kernel(name, release, directory / "arch/x86/boot/bzImage", directory,
                  memory=384, patience=6, last_check=LEAKS,
                  make_flags=MAKE_FLAGS.get(name, ()),
                  counts_lines="GCOV_PROFILE=y" in MAKE_FLAGS.get(name, ()))


def install_modules(kernel: Kernel, directory: Path) -> Kernel:
    """The same kernel, with its own modules installed below that directory."""
    host.run([*make_args(kernel.build_tree, "modules_install"), f"INSTALL_MOD_PATH={directory}"],
             f"installing the modules of {kernel.name}")
    return replace(kernel, modules=directory / "lib/modules" / kernel.release)


def clang_tree() -> Path:
    """A tree configured for clang; to compile modules with, not to boot."""
    packages.install(CLANG_PACKAGES)
    return cached("6.12-clang", CLANG, "LLVM=1", "modules_prepare")


kernels.PROVIDERS.update({name: own for name in TREES})


def main() -> None:
    packages.install()
    for name in sys.argv[1:] or TREES:
        kernel = kernels.get(name)
        print(f"{name:<12}{kernel.release:<32}{kernel.build_tree}")


if __name__ == "__main__":
    host.main(main)
