# SPDX-License-Identifier: GPL-2.0
"""Builds the modules, programs and file system images of the guests.

Everything goes into the checkout's build directory: modules and images into
build/KERNEL/, programs into build/programs/. Programs of another architecture go
into build/programs-ARCHITECTURE/.
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
# With other flags, Kbuild would compile the modules again, under the tests that run.
WARNINGS = ("W=1",)


def directory(kernel: Kernel) -> Path:
    return host.BUILD / kernel.name


def programs_directory(kernel: Kernel | None) -> Path:
    """Returns the directory of a kernel's programs; None: of this machine's."""
    return PROGRAMS.with_name(f"programs-{kernel.architecture}") if foreign(kernel) else PROGRAMS


def foreign(kernel: Kernel | None) -> bool:
    return bool(kernel and kernel.cross)


def forget_other_tree(kernel: Kernel) -> None:
    """Removes what was built for an earlier kernel of that name.

    Kbuild would reuse the objects of another tree.
    """
    made_for = directory(kernel) / "built-for"
    if made_for.exists() and made_for.read_text(encoding="utf-8") == str(kernel.build_tree):
        return
    shutil.rmtree(directory(kernel), ignore_errors=True)
    directory(kernel).mkdir(parents=True)
    made_for.write_text(str(kernel.build_tree), encoding="utf-8")


def make(kernel: Kernel, *args: str | Path, doing: str) -> str:
    """Runs make in the kernel's build root, and returns what it printed."""
    return host.run([*roots.inside(kernel.root), "make", *args, *kernel.make_flags], doing)


def make_modules(kernel: Kernel, *flags: str, into: Path | None = None) -> str:
    """Builds the modules that the kernel lacks, and returns what the build printed."""
    if not into:
        forget_other_tree(kernel)
    goal = "sources" if kernel.built_in else "modules"
    return make(kernel, "-C", host.ROOT, "-j2", goal, f"KDIR={kernel.build_tree}",
                f"BUILD_DIR={into or directory(kernel)}", *flags,
                doing=f"building the modules for {kernel.release}")


def make_test_modules(kernel: Kernel, *flags: str, into: Path | None = None) -> str:
    """Builds the test modules; make_modules() has to come first."""
    top = into or directory(kernel)
    if not kernel.built_in:
        flags += (f"KBUILD_EXTRA_SYMBOLS={top}/Module.symvers",)
    return make(kernel, "-C", kernel.build_tree, f"M={top / MODULES.relative_to(host.ROOT)}",
                "modules", *flags,
                doing="building the test modules")


def suites() -> list[Path]:
    """Returns the directories with test programs for the guest."""
    return sorted(makefile.parent for makefile in SELFTESTS.glob("*/Makefile"))


def make_suite(suite: Path, *goals: str, kernel: Kernel | None = None) -> str:
    """Builds a suite's programs for a kernel's guests; returns what make printed."""
    argv = ["make", "-s", "-C", suite, f"OUTPUT={programs_directory(kernel) / suite.name}"]
    if "KSELFTEST_DIR" in (suite / "Makefile").read_text(encoding="utf-8"):
        argv.append(f"KSELFTEST_DIR={kernels.source() / 'tools/testing/selftests'}")
    if foreign(kernel):
        argv = [*roots.inside(kernel.root), *argv, f"CC={kernel.cross}gcc",
                f"AR={kernel.cross}ar", "TESTS_32=", "BENCH=", "DEBUG_PROGRAMS="]
    return host.run([*argv, *goals], f"building the programs in {suite.relative_to(host.ROOT)}")


@functools.cache
def tests(suite: Path) -> list[str]:
    """Returns the names of a suite's test programs."""
    return make_suite(suite, "list").split()


def make_programs(chosen: list[Path], kernel: Kernel | None = None) -> None:
    """Builds the helper programs and the chosen suites."""
    for suite in (GUEST, *chosen):
        (programs_directory(kernel) / suite.name).mkdir(parents=True, exist_ok=True)
        make_suite(suite, kernel=kernel)


def agent(kernel: Kernel | None = None) -> Path:
    """Returns the path of the program that runs the host's commands in a guest."""
    return programs_directory(kernel) / GUEST.name / "agent"


def programs(kernel: Kernel | None = None) -> list[Path]:
    """Returns the paths of the built programs, except the agent."""
    return [path for suite in (GUEST, *suites())
            for path in sorted((programs_directory(kernel) / suite.name).glob("*"))
            if path.is_file() and path.stat().st_mode & 0o100 and path.name != "agent"]


def built_modules(kernel: Kernel) -> list[Path]:
    """Returns the modules of the last build, without leftovers of earlier ones."""
    return [Path(order.parent, line).with_suffix(".ko")
            for order in sorted(directory(kernel).rglob("modules.order"))
            for line in order.read_text(encoding="utf-8").splitlines()]


def new_image(kernel: Kernel) -> Image:
    """Returns a kernel's default image, not yet written."""
    image = Image().basics(agent(kernel), kernel.busybox)
    for module in built_modules(kernel):
        image.file(f"modules/{module.name}", module)
    for program in programs(kernel):
        image.file(f"test/{program.name}", program)
    return image


def image(kernel: Kernel) -> Path:
    """Returns the path of a kernel's default image."""
    return directory(kernel) / "initramfs.cpio"


def install_modules(kernel: Kernel, scratch: Path) -> None:
    """Installs the modules below scratch, as `make install-modules` does.

    modprobe needs the kernel's lists of built-in modules, which are copied too.
    """
    tree = scratch / "lib/modules" / kernel.release
    tree.mkdir(parents=True)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if kernel.modules and (kernel.modules / name).exists():
            shutil.copy(kernel.modules / name, tree)
    make(kernel, "-C", host.ROOT, "install-modules", f"KDIR={kernel.build_tree}",
         f"BUILD_DIR={directory(kernel)}", f"INSTALL_MOD_PATH={scratch}", *WARNINGS,
         doing="installing the modules")


def add_module_tree(image: Image, kernel: Kernel, scratch: Path) -> Image:
    """Adds modprobe and the installed modules to an image."""
    install_modules(kernel, scratch)
    for name in ("lib/modules", "lib/modprobe.d"):
        image.tree(name, scratch / name)
    return image.kmod()


def prepare(names: list[str], only: str = "*") -> None:
    """Fetches and builds all that guests with these kernels need.

    only limits the test programs to the suites that match this pattern.
    """
    chosen = [kernels.get(name) for name in names]
    with host.locked("build", host.BUILD):
        needed = [suite for suite in suites() if suite.match(only)]
        for kernel in {kernel.architecture: kernel for kernel in chosen}.values():
            host.progress(f"building the programs for the guests ({kernel.architecture})")
            make_programs(needed, kernel)
        for kernel in chosen:
            host.progress(f"building the modules for {kernel.release}")
            make_modules(kernel, *WARNINGS)
            make_test_modules(kernel, *WARNINGS)
            new_image(kernel).write(image(kernel))
