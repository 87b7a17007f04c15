# SPDX-License-Identifier: GPL-2.0
"""The drivers in a kernel tree, as scripts/overlay puts them there, and as patches.

The trees are Debian's Linux 6.12, and the newest that Debian has the source of.
"""
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import built_kernels, host, kernels, packages

OVERLAY = host.ROOT / "scripts/overlay"
SOURCES = list(kernels.SOURCES)
script = SimpleNamespace(**built_kernels.OVERLAY_SCRIPT)
# The objects that the series changes, and those that it adds.
CHANGED = ("drivers/char/random.o", "kernel/time/timer.o", "drivers/acpi/evged.o")
DRIVERS = ("drivers/misc/sysgenid.o", "drivers/virt/vmgenid.o")
COMPLAINT = re.compile(r"(warning|error): |^(WARNING|ERROR)", re.M)
# To be signed off by somebody, as the kernel demands.
SIGNER = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
          for what, value in (("NAME", "Tester"), ("EMAIL", "tester@example.org"))}


@dataclass
class Tree:
    """A copy of a kernel's source, and what is built of it."""
    name: str
    original: Path
    source: Path
    objects: Path

    def make(self, *goals: str) -> str:
        printed = host.run([*built_kernels.make_args(self.objects, "-j2", source=self.source), *goals],
                           f"building {' '.join(goals)} of {self.name}")
        assert not COMPLAINT.search(printed), printed
        return printed

    def configure(self, **options: str) -> None:
        """Sets options to y, m or n."""
        config = self.objects / ".config"
        changes = [word for name, value in options.items()
                   for word in ({"y": "-e", "m": "-m", "n": "-d"}[value], name)]
        host.run([self.source / "scripts/config", "--file", config, *changes], "configuring")
        self.make("olddefconfig")
        text = config.read_text()
        for name, value in options.items():
            is_set = re.search(rf"^CONFIG_{name}=(.)$", text, re.M)
            assert (is_set[1] if is_set else "n") == value, name


@pytest.fixture(params=SOURCES)
def tree(request) -> Iterator[Tree]:
    """A copy of a source, with its default configuration; it stays, with its objects."""
    packages.install(built_kernels.PACKAGES)
    name = request.param
    original = built_kernels.tree(name)
    directory = original.with_name(f"{original.name}-overlay")
    tree = Tree(name, original, directory / "source", directory / "objects")
    with host.locked(f"overlay-{name}"):
        if not host.cached(directory):
            with host.making(directory) as temporary:
                built_kernels.copy(name, temporary / "source")
        if not (tree.objects / ".config").exists():
            tree.objects.mkdir(exist_ok=True)
            tree.make("defconfig")
        tree.configure(VIRT_DRIVERS="y", VMGENID="y", ACPI="y", OF="n")
        before = {file: (original / file).read_bytes() for file in script.CHANGED}
        yield tree
        assert before == {file: (original / file).read_bytes() for file in script.CHANGED}


@pytest.fixture(params=SOURCES)
def some(request, tmp_path) -> Path:
    """The files of a source that scripts/overlay looks at."""
    original, copy = built_kernels.tree(request.param), tmp_path / "linux"
    for name in script.NEEDED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(original / name, copy / name)
    return copy


def overlay(*argv: str | Path) -> subprocess.CompletedProcess:
    packages.install(("patch", "git"))
    return subprocess.run([OVERLAY, *argv], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, env={**os.environ, **SIGNER})


def put(tree: Path) -> None:
    done = overlay(tree)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def refused(*argv: str | Path) -> str:
    """Returns the error of the script, which is one sentence on one line."""
    done = overlay(*argv)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .+\n", done.stderr), done.stderr
    return done.stderr


def content(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*")
            if path.is_file()}


def stamps(tree: Path) -> dict[str, tuple[int, int]]:
    return {str(path.relative_to(tree)): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in tree.rglob("*") if path.is_file()}


# The whole tree

def make_series(tree: Path, directory: Path) -> list[Path]:
    """Writes the patches; without the cover letter."""
    done = overlay(tree, "--patches", directory)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return sorted(directory.glob("*.patch"))[1:]


def symbols(tree: Tree, *options: str) -> str:
    return host.run(["nm", *options, *(tree.objects / name for name in (CHANGED[0], *DRIVERS)
                                       if (tree.objects / name).exists())], "reading symbols")


def build_modules(tree: Tree) -> None:
    """Builds the drivers as modules; all symbols that they need are exported."""
    tree.configure(SYSGENID="m", VMGENID="m")
    tree.make(*CHANGED, *DRIVERS)
    needed = set(re.findall(r" U ((?:sysgenid|vmfork|devm_vmfork)_\w+)", symbols(tree, "-u")))
    assert {"sysgenid_bump_generation", "vmfork_reseed"} <= needed
    assert needed <= set(re.findall(r"__export_symbol_(\w+)", symbols(tree)))


def build_with_a_devicetree_and_no_acpi(tree: Tree) -> None:
    tree.configure(ACPI="n", OF="y", SYSGENID="y", VMGENID="y")
    tree.make("drivers/char/random.o", "kernel/time/timer.o", *DRIVERS)
    tree.configure(ACPI="y", OF="n")


def build_without_sysgenid(tree: Tree) -> None:
    """The default, as the kernel's own driver has it."""
    config = tree.objects / ".config"
    config.write_text(re.sub(r".*CONFIG_(VMGENID|SYSGENID)\b.*\n", "", config.read_text()))
    tree.make("olddefconfig")
    assert "CONFIG_VMGENID=y\n" in config.read_text() and "CONFIG_SYSGENID=" not in config.read_text()
    (tree.objects / "drivers/misc/sysgenid.o").unlink()
    tree.make(*CHANGED, "drivers/virt/vmgenid.o")
    assert "vmfork_reseed" in symbols(tree, "-u")
    assert "sysgenid_" not in symbols(tree, "-u")


@pytest.mark.whole_tree
@pytest.mark.timeout(1800)
def test_overlaid_tree_builds(tree):
    built_kernels.overlay(tree.name, tree.source)
    tree.configure(SYSGENID="y", VMGENID="y")
    tree.make(*CHANGED, *DRIVERS)
    build_modules(tree)
    build_with_a_devicetree_and_no_acpi(tree)
    build_without_sysgenid(tree)


def restore(tree: Tree) -> None:
    """Undoes what scripts/overlay has done to the tree."""
    for name in (*script.CHANGED, *script.SYSGENID, *script.VMGENID):
        (tree.source / name).unlink(missing_ok=True)
        if (tree.original / name).exists():
            os.link(tree.original / name, tree.source / name)


@pytest.mark.series
@pytest.mark.timeout(1800)
def test_each_patch_builds_and_all_are_the_overlay(tree, tmp_path):
    restore(tree)
    patches = make_series(tree.source, tmp_path)
    assert len(patches) > 5
    both = False
    for patch in patches:
        host.run(["patch", "-s", "-p1", "-F0", "-d", tree.source, "-i", patch], f"applying {patch.name}")
        if not both and (both := (tree.source / "drivers/misc/sysgenid.c").exists()):
            tree.configure(SYSGENID="y", VMGENID="y")
        tree.make(*CHANGED, *DRIVERS[not both:])
    patched = stamps(tree.source / "drivers")
    built_kernels.overlay(tree.name, tree.source)
    assert stamps(tree.source / "drivers") == patched


@pytest.mark.series
@pytest.mark.parametrize("name", SOURCES)
def test_each_patch_is_clean_by_checkpatch(name, tmp_path):
    packages.install(("perl",))
    tree = built_kernels.tree(name)
    for patch in make_series(tree, tmp_path):
        said = subprocess.run(["perl", "scripts/checkpatch.pl", "--strict", "--terse", "--no-summary",
                               patch], cwd=tree, capture_output=True, text=True, check=False)
        assert not said.stdout + said.stderr


# Some of its files

def test_only_the_drivers_files_are_new(some):
    before = content(some)
    put(some)
    assert set(content(some)) - set(before) == {*script.SYSGENID, *script.VMGENID[:1]}


def test_entries_are_in_their_place(some):
    put(some)
    text = (some / "MAINTAINERS").read_text()
    files = re.search(r"^SYSTEM GENERATION ID\nS:\tOrphan\n((?:F:\t.*\n)+)\n", text, re.M)[1]
    assert all((some / line[3:]).exists() for line in files.splitlines())
    assert re.search(r"^F:\tDocumentation/virt/vmgenid.rst\n(?:F:.*\n)*F:\tdrivers/virt/vmgenid.c$",
                     text, re.M)
    assert re.search(r"^0xE4 .*sysgenid\.h\n0xE5", (some / script.IOCTLS).read_text(), re.M)
    for index, page in ((script.MISC_INDEX, "sysgenid"), (script.VIRT_INDEX, "vmgenid")):
        assert f"\n   {page}\n" in (some / index).read_text()
        text = (some / index).with_name(f"{page}.rst").read_text()
        assert not re.search(r"compat/|scripts/|ftrace|vm_generation_id|make bench", text)


def test_second_time_changes_nothing(some):
    put(some)
    once = stamps(some)
    put(some)
    assert stamps(some) == once


def test_changed_driver_takes_the_place_of_the_old_one(some):
    put(some)
    driver = some / "drivers/virt/vmgenid.c"
    driver.write_text("an earlier one")
    others = stamps(some)
    put(some)
    assert driver.read_bytes() == (host.ROOT / "drivers/virt/vmgenid.c").read_bytes()
    assert {name for name, stamp in stamps(some).items() if others[name] != stamp} == {
        "drivers/virt/vmgenid.c"}


def test_patches_leave_the_tree_alone(some, tmp_path):
    before = content(some)
    assert overlay(some, "--patches", tmp_path / "patches").returncode == 0
    assert content(some) == before
    cover = (tmp_path / "patches/0000-cover-letter.patch").read_text()
    assert "getrandom()" in cover and not re.search(r"\*\*\*|@[A-Z]+@", cover)


def test_tree_that_does_not_fit_stays_as_it_is(some, tmp_path):
    random = some / "drivers/char/random.c"
    random.write_text(random.read_text().replace("random_data_len", "random_size").replace(
        "For the fast path", "On the fast path"))
    before = content(some)
    for options in ((), ("--patches", tmp_path / "patches")):
        assert "random-look.patch does not fit the tree" in refused(some, *options)
    assert content(some) == before


def test_tree_with_another_version_of_the_drivers_is_refused(some):
    put(some)
    random = some / "drivers/char/random.c"
    random.write_text(random.read_text().replace("vmfork_look_function", "vmfork_look_old"))
    before = content(some)
    assert "another version of the drivers" in refused(some)
    assert content(some) == before


def test_overlaid_tree_gives_no_patches(some, tmp_path):
    put(some)
    assert "has the drivers already" in refused(some, "--patches", tmp_path / "patches")


def test_older_tree_is_refused(some):
    (some / script.OLDEST_HEADER).unlink()
    assert "take a newer one" in refused(some)


def test_what_is_no_kernel_tree_is_refused(tmp_path):
    assert "not a kernel source tree" in refused(tmp_path)
    assert "not a kernel source tree" in refused(tmp_path / "missing")


def test_signer_has_to_be_known(some, tmp_path, monkeypatch):
    for name in SIGNER:
        monkeypatch.setitem(SIGNER, name, "")
    assert "user.name and user.email" in refused(some, "--patches", tmp_path / "patches")
