# SPDX-License-Identifier: GPL-2.0
"""Kernels that the tests build themselves, from Debian's linux-source package.

The fragments in configs/ are their whole configuration. Each kernel is built once
per source version and configuration. Kernels of OVERLAYS have the drivers built in, and
are rebuilt when these change. Run as a program, it builds the kernels named.
"""
import functools
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
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
# Both drivers are built in, or vmgenid alone.
OVERLAY = "6.12-overlay"
OVERLAYS = {
    OVERLAY: ("guest.config", "overlay.config", "sysgenid.config"),
    "6.12-vmgenid": ("guest.config", "overlay.config"),
}
OVERLAY_SCRIPT = runpy.run_path(str(host.ROOT / "scripts/overlay"))
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
def tree(name: str = kernels.SOURCE) -> Path:
    """Returns the directory of an unpacked source, which stays unchanged."""
    found, packed = kernels.fetched(name)
    directory = packed.with_name(f"{packed.name}-tree")
    with host.locked("source-tree"):
        if not host.cached(directory):
            host.progress(f"unpacking {found['release']}")
            with host.making(directory) as temporary:
                deb = next(packed.glob("*.deb"))
                host.run(["sh", "-ec", f"dpkg-deb --fsys-tarfile {deb}"
                          f" | tar -xO ./usr/src/{found['release']}.tar.xz"
                          f" | tar -xJ --strip-components=1 -C {temporary}"],
                         f"unpacking {found['release']}")
    return directory


def copy(name: str, directory: Path) -> None:
    """Copies a source by hard links, for programs that replace the files they change."""
    host.run(["cp", "-al", tree(name), directory], f"copying {name}")


def overlay(name: str, directory: Path) -> None:
    """Puts the drivers, as they are now, into a copy of a source.

    An unchanged file keeps its time, so make builds only what a change concerns.
    """
    packages.install(("patch",))
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        for file in OVERLAY_SCRIPT["NEEDED"]:
            (made / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree(name) / file, made / file)
        host.run([host.ROOT / "scripts/overlay", made], f"putting the drivers into {name}")
        for path in made.rglob("*"):
            if path.is_file():
                OVERLAY_SCRIPT["write"](directory / path.relative_to(made), path.read_bytes())


def make_args(directory: Path, *more: str, source: Path | None = None) -> list[str]:
    return ["nice", "make", "-C", str(source or tree()), f"O={directory}", "ARCH=x86_64",
            "KBUILD_BUILD_USER=vm", "KBUILD_BUILD_HOST=test", *more]


def configure(directory: Path, fragments: tuple[str, ...], *more: str,
              source: Path | None = None) -> None:
    """Configures a kernel with the fragments on top of allnoconfig."""
    wanted = "".join((CONFIGS / name).read_text(encoding="utf-8") for name in fragments)
    (directory / "wanted.config").write_text(wanted, encoding="utf-8")
    host.run([*make_args(directory, *more, source=source),
              f"KCONFIG_ALLCONFIG={directory}/wanted.config", "allnoconfig"],
             f"configuring with {' and '.join(fragments)}")
    got = set((directory / ".config").read_text(encoding="utf-8").splitlines())
    missing = [line for line in wanted.splitlines()
               if line.startswith("CONFIG_") and line not in got]
    if missing:
        raise host.SetupError(f"{kernels.SOURCE} does not take {missing[0]} "
                           f"of {CONFIGS}: its dependencies are not met")


def compile_tree(name: str, directory: Path, *goals: str, source: Path | None = None) -> None:
    """Builds a kernel, and reports progress every PROGRESS_SECONDS."""
    log = host.BUILD / "logs" / f"{name}.build"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = reported = time.monotonic()
    argv = [*make_args(directory, f"-j{os.cpu_count()}", source=source), *goals]
    with open(log, "w", encoding="utf-8") as output:
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
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


def release(directory: Path) -> str:
    return (directory / "include/config/kernel.release").read_text(encoding="utf-8").strip()


def built(name: str) -> Kernel:
    directory = cached(name, TREES[name], "bzImage", "modules")
    return Kernel(name, release(directory), directory / "arch/x86/boot/bzImage", directory,
                  memory=384, patience=6, last_check=LEAKS,
                  make_flags=MAKE_FLAGS.get(name, ()),
                  counts_lines="GCOV_PROFILE=y" in MAKE_FLAGS.get(name, ()))


def content(*patterns: str) -> str:
    """Returns a hash of the project's files that match."""
    key = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in host.ROOT.glob(pattern)):
        if path.is_file():
            key.update(f"{path.relative_to(host.ROOT)}\n".encode() + path.read_bytes())
    return key.hexdigest()


def start_from_another(objects: Path) -> None:
    """Makes the directory, with the objects of another configuration if there are any."""
    other = next(objects.parent.glob("*/made-of"), None)
    if other:
        host.run(["cp", "-a", other.parent, objects], f"copying {other.parent}")
        (objects / other.name).unlink()
    else:
        objects.mkdir()


def with_drivers(name: str) -> Kernel:
    """Builds a kernel with the drivers in its source, by scripts/overlay.

    Source and objects stay in the cache, so make builds only what a change concerns. The
    image is copied, because other checkouts use them, too.
    """
    packages.install(PACKAGES)
    directory = host.CACHE / f"overlay_{kernels.source_version().replace(':', '-')}"
    source, objects = directory / "source", directory / name
    image, made_of = host.BUILD / f"{name}.bzImage", objects / "made-of"
    drivers = content("drivers/**/*", "include/**/*", "scripts/**/*", "compat/include/linux/hrtimer.h",
                      *(f"{CONFIGS.relative_to(host.ROOT)}/{config}" for config in OVERLAYS[name]))
    with host.locked("overlay"):
        if not host.cached(directory):
            with host.making(directory) as temporary:
                copy(kernels.SOURCE, temporary / source.name)
        if not objects.exists():
            host.progress(f"building {name} (some minutes, once)")
            start_from_another(objects)
        if not made_of.exists() or made_of.read_text(encoding="utf-8") != drivers:
            made_of.unlink(missing_ok=True)
            overlay(kernels.SOURCE, source)
            configure(objects, OVERLAYS[name], source=source)
            compile_tree(name, objects, "bzImage", "modules", source=source)
            made_of.write_text(drivers, encoding="utf-8")
        OVERLAY_SCRIPT["write"](image, (objects / "arch/x86/boot/bzImage").read_bytes())
    # Test modules that call sysgenid are of no use without it, but are built.
    flags = () if name == OVERLAY else ("KBUILD_MODPOST_WARN=1",)
    return Kernel(name, release(objects), image, objects, make_flags=flags, built_in=True)


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
kernels.PROVIDERS.update({name: with_drivers for name in OVERLAYS})


def main() -> None:
    packages.install()
    for name in sys.argv[1:] or TREES:
        kernel = kernels.get(name)
        print(f"{name:<12}{kernel.release:<32}{kernel.build_tree}")


if __name__ == "__main__":
    host.main(main)
