# SPDX-License-Identifier: GPL-2.0
"""Builds what goes into the guests: modules, programs, file system images.

Everything lands in build/ of the checkout: build/KERNEL/ what depends on the
kernel, build/programs/ what does not; programs of another architecture are in
build/programs-ARCHITECTURE/.
"""
import functools
import shutil
from pathlib import Path

from harness import host, kernels, roots
from harness.initramfs import Image
from harness.kernels import Kernel

TESTING = host.ROOT / "tools/testing"
GUEST = TESTING / "guest"
MODULES = TESTING / "modules"
SELFTESTS = TESTING / "selftests"
PROGRAMS = host.BUILD / "programs"


def directory(kernel: Kernel) -> Path:
    return host.BUILD / kernel.name


def programs_directory(kernel: Kernel | None) -> Path:
    """Where that kernel's programs are; None stands for this machine's."""
    return PROGRAMS.with_name(f"programs-{kernel.architecture}") if foreign(kernel) else PROGRAMS


def foreign(kernel: Kernel | None) -> bool:
    return bool(kernel and kernel.cross)


def forget_other_tree(kernel: Kernel) -> None:
    """Removes what was built for an earlier kernel of that name.

    The kernel's build takes objects of another tree for its own.
    """
    made_for = directory(kernel) / "built-for"
    if made_for.exists() and made_for.read_text(encoding="utf-8") == str(kernel.build_tree):
        return
    shutil.rmtree(directory(kernel), ignore_errors=True)
    directory(kernel).mkdir(parents=True)
    made_for.write_text(str(kernel.build_tree), encoding="utf-8")


def make(kernel: Kernel, *args: str | Path, doing: str) -> str:
    """Runs make where the kernel's own tools run, and returns what it printed."""
    return host.run([*roots.inside(kernel.root), "make", *args, *kernel.make_flags], doing)


def make_modules(kernel: Kernel, *flags: str, into: Path | None = None) -> str:
    """Builds the modules, and returns what the build printed."""
    if not into:
        forget_other_tree(kernel)
    return make(kernel, "-C", host.ROOT, "-j2", "modules", f"KDIR={kernel.build_tree}",
                f"BUILD_DIR={into or directory(kernel)}", *flags,
                doing=f"building the modules for {kernel.release}")


def make_test_modules(kernel: Kernel, *flags: str, into: Path | None = None) -> str:
    """Builds the modules that only the tests use; after make_modules()."""
    top = into or directory(kernel)
    return make(kernel, "-C", kernel.build_tree, f"M={top / MODULES.relative_to(host.ROOT)}",
                "modules", f"KBUILD_EXTRA_SYMBOLS={top}/Module.symvers", *flags,
                doing="building the test modules")


def suites() -> list[Path]:
    """The directories with test programs for the guest."""
    return sorted(makefile.parent for makefile in SELFTESTS.glob("*/Makefile"))


def make_suite(suite: Path, *goals: str, kernel: Kernel | None = None) -> str:
    """Builds the programs of a directory for a kernel's guests."""
    argv = ["make", "-s", "-C", suite, f"OUTPUT={programs_directory(kernel) / suite.name}"]
    if "KSELFTEST_DIR" in (suite / "Makefile").read_text(encoding="utf-8"):
        argv.append(f"KSELFTEST_DIR={kernels.source() / 'tools/testing/selftests'}")
    if foreign(kernel):
        argv = [*roots.inside(kernel.root), *argv, f"CC={kernel.cross}gcc",
                f"AR={kernel.cross}ar", "TESTS_32=", "BENCH=", "DEBUG_PROGRAMS="]
    return host.run([*argv, *goals], f"building the programs in {suite.relative_to(host.ROOT)}")


@functools.cache
def tests(suite: Path) -> list[str]:
    """The names of a directory's test programs."""
    return make_suite(suite, "list").split()


def make_programs(chosen: list[Path], kernel: Kernel | None = None) -> None:
    """Builds what runs in guests: the helper programs, and those suites."""
    for suite in (GUEST, *chosen):
        (programs_directory(kernel) / suite.name).mkdir(parents=True, exist_ok=True)
        make_suite(suite, kernel=kernel)


def agent(kernel: Kernel | None = None) -> Path:
    """The program that runs the host's commands in a guest."""
    return programs_directory(kernel) / GUEST.name / "agent"


def programs(kernel: Kernel | None = None) -> list[Path]:
    """What the suites have built."""
    return [path for suite in (GUEST, *suites())
            for path in sorted((programs_directory(kernel) / suite.name).glob("*"))
            if path.is_file() and path.stat().st_mode & 0o100 and path.name != "agent"]


def built_modules(kernel: Kernel) -> list[Path]:
    """What the last build made, not what an earlier one has left."""
    return [Path(order.parent, line).with_suffix(".ko")
            for order in sorted(directory(kernel).rglob("modules.order"))
            for line in order.read_text(encoding="utf-8").splitlines()]


def new_image(kernel: Kernel) -> Image:
    """All that the guests of a kernel have by default; for more to be added."""
    image = Image().basics(agent(kernel), kernel.busybox)
    for module in built_modules(kernel):
        image.file(f"modules/{module.name}", module)
    for program in programs(kernel):
        image.file(f"test/{program.name}", program)
    return image


def image(kernel: Kernel) -> Path:
    """The image that the guests of a kernel boot by default."""
    return directory(kernel) / "initramfs.cpio"


def install_modules(kernel: Kernel, scratch: Path) -> None:
    """Installs the modules there, as `make install-modules` does.

    The kernel's lists of its own modules come along, as modprobe looks up
    there what is built in; its modules themselves don't.
    """
    tree = scratch / "lib/modules" / kernel.release
    tree.mkdir(parents=True)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if kernel.modules and (kernel.modules / name).exists():
            shutil.copy(kernel.modules / name, tree)
    make(kernel, "-C", host.ROOT, "install-modules", f"KDIR={kernel.build_tree}",
         f"BUILD_DIR={directory(kernel)}", f"INSTALL_MOD_PATH={scratch}",
         doing="installing the modules")


def add_module_tree(image: Image, kernel: Kernel, scratch: Path) -> Image:
    """Adds modprobe, and the modules as installed."""
    install_modules(kernel, scratch)
    for name in ("lib/modules", "lib/modprobe.d"):
        image.tree(name, scratch / name)
    return image.kmod()


def prepare(names: list[str], only: str = "*") -> None:
    """Fetches and builds all that guests with these kernels need.

    A pattern can limit the test programs to those of some suites.
    """
    chosen = [kernels.get(name) for name in names]
    with host.locked("build", host.BUILD):
        needed = [suite for suite in suites() if suite.match(only)]
        for kernel in {kernel.architecture: kernel for kernel in chosen}.values():
            host.progress(f"building the programs for the guests ({kernel.architecture})")
            make_programs(needed, kernel)
        for kernel in chosen:
            host.progress(f"building the modules for {kernel.release}")
            make_modules(kernel, "W=1")
            make_test_modules(kernel, "W=1")
            new_image(kernel).write(image(kernel))
