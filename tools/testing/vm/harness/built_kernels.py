# SPDX-License-Identifier: GPL-2.0
"""Kernels that the tests build themselves, from Debian's linux-source package.

The fragments in configs/ are their whole configuration. Each kernel is built once
per source version and configuration. Run as a program, it builds the kernels named.
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
# KCOV, which guides the fuzzer, and gcov instrument only the modules.
MAKE_FLAGS = {"6.12-debug": ("KCOV_INSTRUMENT=y", "GCOV_PROFILE=y")}
# kmemleak reports an object only if it is 5 s old. The second scan drops objects whose
# pointer was in a register or on a stack during the first.
LEAKS = """
leaks=/sys/kernel/debug/kmemleak
if [ -e $leaks ]; then
    sleep 5.1 &
    echo scan > $leaks && wait && echo scan > $leaks && cat $leaks || echo kmemleak: disabled
fi"""


@functools.cache
def tree() -> Path:
    """Returns the directory of the unpacked source, which stays unchanged."""
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
    """Configures a kernel with the fragments on top of allnoconfig."""
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
    """Builds a kernel, and reports progress every PROGRESS_SECONDS."""
    log = host.BUILD / "logs" / f"{name}.build"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = reported = time.monotonic()
    with open(log, "w", encoding="utf-8") as output:
        with subprocess.Popen([*make_args(directory, f"-j{os.cpu_count()}"), *goals],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace") as make:
            files = 0
            for line in make.stdout:
                output.write(line)
                files += line.startswith("  ")
                if time.monotonic() - reported > PROGRESS_SECONDS:
                    reported = time.monotonic()
                    host.progress(f"building {name}: {files} files, {reported - started:.0f} s")
    if make.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")
        errors = [line for line in said.splitlines() if re.search(r"(?i)error", line)]
        raise host.SetupError(f"building {name} failed: "
                           f"{host.explain(said) or (errors or ['make gave no reason'])[0]}; "
                           f"see {log}")


def cached(name: str, fragments: tuple[str, ...], *goals: str) -> Path:
    """Returns the directory of a built tree; builds it unless it is in the cache."""
    packages.install(PACKAGES)
    key = hashlib.sha256(f"{kernels.SOURCE}_{kernels.source_version()}".encode())
    for fragment in fragments:
        key.update((CONFIGS / fragment).read_bytes())
    key.update(" ".join(goals).encode())
    directory = host.CACHE / f"{name}_{key.hexdigest()[:16]}"
    if host.cached(directory):  # without waiting for a build of another configuration
        return directory
    with host.locked(name):
        if not host.cached(directory):
            host.progress(f"building {name} (some minutes, once)")
            with host.making(directory) as temporary:
                configure(temporary, fragments, *[goal for goal in goals if "=" in goal])
                compile_tree(name, temporary, *goals)
    return directory


def built(name: str) -> Kernel:
    directory = cached(name, TREES[name], "bzImage", "modules")
    release = (directory / "include/config/kernel.release").read_text(encoding="utf-8").strip()
    return Kernel(name, release, directory / "arch/x86/boot/bzImage", directory,
                  memory=384, patience=6, last_check=LEAKS,
                  make_flags=MAKE_FLAGS.get(name, ()),
                  counts_lines="GCOV_PROFILE=y" in MAKE_FLAGS.get(name, ()))


def install_modules(kernel: Kernel, directory: Path) -> Kernel:
    """Installs the kernel's own modules below the directory; returns that kernel."""
    host.run([*make_args(kernel.build_tree, "modules_install"), f"INSTALL_MOD_PATH={directory}"],
             f"installing the modules of {kernel.name}")
    return replace(kernel, modules=directory / "lib/modules" / kernel.release)


def clang_tree() -> Path:
    """Returns a tree configured for clang, which only compiles modules."""
    packages.install(CLANG_PACKAGES)
    return cached("6.12-clang", CLANG, "LLVM=1", "modules_prepare")


kernels.PROVIDERS.update({name: built for name in TREES})


def main() -> None:
    packages.install()
    for name in sys.argv[1:] or TREES:
        kernel = kernels.get(name)
        print(f"{name:<12}{kernel.release:<32}{kernel.build_tree}")


if __name__ == "__main__":
    host.main(main)
