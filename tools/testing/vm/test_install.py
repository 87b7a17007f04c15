# SPDX-License-Identifier: GPL-2.0
"""What `make install` installs, and what programs make of it, on this machine.

A file stands in for the device, where there has to be one.
"""
import json
import os
import re
import subprocess
from pathlib import Path

import host
import packages
import pytest

LIB = host.ROOT / "tools/lib/sysgenid"
TOOLS = host.ROOT / "tools/sysgenid"
NEEDED = ("gcc-multilib", "g++", "pkg-config", "binutils", "bash-completion", "mandoc", "kmod", "libsystemd-dev")
LIBDIR = "usr/lib/x86_64-linux-gnu"
CFLAGS = "CFLAGS=-O2 -Wall -Wextra -Werror"
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Where all but the modules is installed."""
    packages.install(NEEDED)
    folder = tmp_path_factory.mktemp("install")
    output, root = folder / "output", folder / "root"
    host.run(["make", "-s", "-C", LIB, "install", f"OUTPUT={output}/lib", f"DESTDIR={root}",
              f"LIBDIR=/{LIBDIR}", CFLAGS], "installing the library")
    host.run(["make", "-s", "-C", TOOLS, "install", f"OUTPUT={output}", f"DESTDIR={root}",
              CFLAGS], "installing the programs")
    return root


@pytest.fixture
def device(tmp_path) -> Path:
    """A file in the place of /dev/sysgenid."""
    path = tmp_path / "device"
    path.write_bytes(bytes(4096))
    return path


def set_generation(device: Path, generation: int) -> None:
    with device.open("r+b") as file:
        file.write(generation.to_bytes(4, "little"))


def environment(root: Path, device: Path) -> dict[str, str]:
    return os.environ | {"LD_LIBRARY_PATH": f"{root}/{LIBDIR}", "SYSGENID_DEVICE": str(device)}


def pkg_config(root: Path, *options: str) -> list[str]:
    where = {"PKG_CONFIG_LIBDIR": f"{root}/{LIBDIR}/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": str(root)}
    return host.run(["pkg-config", *options, "libsysgenid"], "asking pkg-config",
                    env=os.environ | where).split()


def start(program: Path, root: Path, device: Path) -> subprocess.Popen:
    return subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            bufsize=1, env=environment(root, device))


def ask(program: subprocess.Popen) -> str:
    """Sends a line, and returns the one that is the answer."""
    program.stdin.write("\n")
    return program.stdout.readline().strip()


def test_the_library_is_found_by_its_names(root):
    folder = root / LIBDIR
    assert os.readlink(folder / "libsysgenid.so") == "libsysgenid.so.1"
    assert os.readlink(folder / "libsysgenid.so.1") == "libsysgenid.so.1.0"
    said = host.run(["readelf", "-d", folder / "libsysgenid.so"], "reading the library")
    assert "soname: [libsysgenid.so.1]" in said and "NODELETE" in said
    assert re.findall(r"NEEDED.*\[(.*)\]", said) == ["libc.so.6"]


def declared() -> set[str]:
    """The functions in the header that are not compiled into the caller."""
    text = re.sub(r"/\*.*?\*/|static inline .*?\n}\n|typedef .*?;", "",
                  (LIB / "sysgenid.h").read_text(), flags=re.S)
    return set(re.findall(r"\b(sysgenid_\w+)\(", text))


def test_it_exports_what_the_header_declares_and_nothing_else(root):
    said = host.run(["nm", "-D", "--defined-only", root / LIBDIR / "libsysgenid.so"],
                    "listing what the library exports")
    names = {line.split()[-1] for line in said.splitlines()} - {"LIBSYSGENID_1.0"}
    assert all(name.endswith("@@LIBSYSGENID_1.0") for name in names), names
    assert {name.partition("@")[0] for name in names} == declared() | {"sysgenid_word_"}


@pytest.mark.parametrize("compiler", ["gcc -std=c99", "gcc -std=c11", "g++ -std=c++11",
                                      "g++ -std=c++20", "gcc -m32 -std=c99"])
def test_the_header_gives_no_warning(root, tmp_path, compiler):
    source = tmp_path / ("user.cc" if "++" in compiler else "user.c")
    source.write_text("#include <sysgenid.h>\nint used(uint64_t *seen);\n"
                      "int used(uint64_t *seen) { return sysgenid_changed(seen); }\n")
    host.run([*compiler.split(), *STRICT, f"-I{root}/usr/include", "-fsyntax-only", source],
             "compiling the header")


LINKS = {
    "shared": ("--libs", ["-pie", "-fPIE"]),
    "static": ("--libs --static", ["-static"]),
    "static, independent of its position": ("--libs --static", ["-static-pie", "-fPIE"]),
}


@pytest.fixture(params=LINKS)
def examples(request, root, tmp_path) -> Path:
    """The examples, built as a user would, in each way of linking."""
    options, flags = LINKS[request.param]
    for source in (LIB / "examples").glob("*.c"):
        host.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *flags, "-o",
                  tmp_path / source.stem, source, *pkg_config(root, "--cflags"),
                  *pkg_config(root, *options.split())], "building an example")
    return tmp_path


MASK = (1 << 64) - 1
GAMMA = 0x9e3779b97f4a7c15


def mixed(z: int) -> int:
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & MASK
    z = (z ^ z >> 27) * 0x94d049bb133111eb & MASK
    return z ^ z >> 31


def unshifted(z: int, by: int) -> int:
    """Undoes z ^= z >> by."""
    found = z
    for _ in range(64 // by):
        found = z ^ found >> by
    return found


def following(number: str) -> str:
    """What the example's generator gives after that, if it is not seeded anew."""
    z = unshifted(int(number, 16), 31) * pow(0x94d049bb133111eb, -1, 1 << 64) & MASK
    z = unshifted(z, 27) * pow(0xbf58476d1ce4e5b9, -1, 1 << 64) & MASK
    return f"{mixed(unshifted(z, 30) + GAMMA & MASK):016x}"


def test_the_generator_seeds_itself_anew_in_a_new_generation_only(examples, root, device):
    with start(examples / "prng", root, device) as prng:
        first, second = ask(prng), ask(prng)
        assert second == following(first)
        set_generation(device, 1)
        third, fourth = ask(prng), ask(prng)
        assert third != following(second)
        assert fourth == following(third)
        prng.stdin.close()
    assert prng.returncode == 0


def test_the_daemon_has_a_new_prefix_in_a_new_generation(examples, root, device):
    with start(examples / "daemon", root, device) as daemon:
        prefix = ask(daemon).partition("-")[0]
        assert ask(daemon) == f"{prefix}-2"
        set_generation(device, 1)
        assert daemon.stdout.readline() == "generation 1: new prefix\n"
        assert not ask(daemon).startswith(prefix)
        daemon.stdin.close()
    assert daemon.returncode == 0


def test_the_static_library_can_be_part_of_a_shared_one(root, tmp_path):
    source = tmp_path / "part.c"
    source.write_text("#include <sysgenid.h>\nint part(void) { return sysgenid_open(); }\n")
    host.run(["gcc", "-shared", "-fPIC", "-Wl,-z,text", "-o", tmp_path / "part.so", source,
              f"-I{root}/usr/include", root / LIBDIR / "libsysgenid.a"], "linking it")


LOADER = """
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
int main(void)
{
	DIR *dir;
	int count = 0;
	for (int i = 0; i < 20; i++) {
		void *library = dlopen("libsysgenid.so.1", RTLD_NOW);
		if (!library || !dlsym(library, "sysgenid_open") || dlclose(library))
			return 1;
	}
	for (dir = opendir("/proc/self/fd"); readdir(dir); )
		count++;
	printf("%d", count - 2 - 3 - 1);	/* ".", "..", the usual ones, dir's own */
	return 0;
}
"""


def test_loading_it_again_and_again_costs_one_descriptor(root, device, tmp_path):
    (tmp_path / "loader.c").write_text(LOADER)
    host.run(["gcc", "-o", tmp_path / "loader", tmp_path / "loader.c"], "building a loader")
    assert host.run([tmp_path / "loader"], "loading", env=environment(root, device)) == "1"


CLOSED = """
#include <fcntl.h>
#include <sysgenid.h>
int main(void)
{
	if (!sysgenid_watcher_new(0))
		return 10;
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) != -1)
			return 11 + fd;
	return sysgenid_get_source() != SYSGENID_SOURCE_DEVICE;
}
"""


def test_closed_standard_streams_stay_closed(root, device, tmp_path):
    (tmp_path / "closed.c").write_text(CLOSED)
    host.run(["gcc", "-o", tmp_path / "closed", tmp_path / "closed.c",
              *pkg_config(root, "--cflags", "--libs")], "building a program")
    assert subprocess.run(["sh", "-c", 'exec "$0" <&- >&- 2>&-', tmp_path / "closed"], check=False,
                          env=environment(root, device)).returncode == 0


def test_the_manual_pages_are_in_order_and_complete(root):
    pages = sorted((root / "usr/share/man").rglob("*.[38]"))
    header = (LIB / "sysgenid.h").read_text()
    inlined = set(re.findall(r"static inline \w+ (\w+)\(", header))
    assert {page.stem for page in pages} >= declared() | inlined | {"sysgenid", "sysgenidd"}
    for page in pages:
        other = re.match(r"\.so (\S+)\n$", page.read_text())
        shown = root / "usr/share/man" / other[1] if other else page
        assert not host.run(["mandoc", "-T", "lint", "-W", "warning", shown], f"judging {shown}")
        assert page.stem in shown.read_text().partition(".SH SYNOPSIS")[0], page


COMPLETE = """
. /usr/share/bash-completion/bash_completion
. "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
COMP_POINT=${#COMP_LINE}
compopt() { :; }
_sysgenid
printf '%s\\n' "${COMPREPLY[@]}"
"""
COMPLETIONS = {
    "sysgenid ": "status get wait watch run trigger wait-watchers --help",
    "sysgenid wa": "wait watch wait-watchers",
    "sysgenid status ": "--json --help",
    "sysgenid wait --f": "--from=",
    "sysgenid wait --timeout ": "",
    "sysgenid trigger --": "--json --min= --help",
    "sysgenid run ": "--help --",
    "sysgenid watch -- /bin/truncat": "/bin/truncate",
}


@pytest.mark.parametrize("line", COMPLETIONS)
def test_bash_completes(root, line):
    script = root / "usr/share/bash-completion/completions/sysgenid"
    said = host.run(["bash", "-c", COMPLETE, "bash", script, *re.split(" +", line)],
                    "having bash complete")
    assert said.split() == COMPLETIONS[line].split()


def test_completion_knows_all_commands_and_options(root):
    script = (root / "usr/share/bash-completion/completions/sysgenid").read_text()
    said = host.run([root / "usr/sbin/sysgenid", "--help"], "asking for help",
                    env=environment(root, Path("/nowhere")))
    for word in re.findall(r"^  (\S+?)(?:=\w+)? ", said, re.M):
        assert word in script, word


# Which driver a kernel comes with: files, and its list of what is built in.
OURS, KERNELS = "vm_generation_id.ko", "vmgenid.ko"
TREES = {
    "none": ([OURS], ""),
    "a module": ([OURS, KERNELS], ""),
    "built in": ([OURS], "kernel/vmgenid.ko\n"),
}
STAND_IN = ('static const char info[] __attribute__((section(".modinfo"), used)) ='
            ' "license=GPL\\0name=%s\\0alias=%s";')


def make_tree(folder: Path, files: list[str], built_in: str) -> None:
    """A kernel's modules, as far as depmod goes."""
    modules = folder / "lib/modules/6.99.0"
    modules.mkdir(parents=True)
    for name in files:
        alias = "vmgenid" if name == OURS else "acpi*:VMGENCTR:*"
        (folder / "module.c").write_text(STAND_IN % (name.removesuffix(".ko"), alias))
        host.run(["gcc", "-c", "-o", modules / name, folder / "module.c"], "making a module")
    (modules / "modules.builtin").write_text(built_in)
    (modules / "modules.builtin.modinfo").write_text(
        "vmgenid.license=GPL\0" if built_in else "")
    (modules / "modules.order").write_text("")
    host.run(["/sbin/depmod", "-b", folder, "6.99.0"], "running depmod")


def loaded(folder: Path, name: str, config: Path = TOOLS / "modprobe.conf") -> list[str]:
    """The modules that modprobe would load."""
    said = host.run(["/sbin/modprobe", "-n", "-v", "-d", folder, "-S", "6.99.0", "-C", config,
                     name], "asking modprobe")
    return [line.split("/")[-1].strip() for line in said.splitlines()]


@pytest.mark.parametrize("driver", TREES)
def test_modprobe_loads_ours_whatever_driver_the_kernel_has(driver, tmp_path):
    make_tree(tmp_path, *TREES[driver])
    assert loaded(tmp_path, "vmgenid") == [OURS]


def test_where_ours_is_not_built_the_kernels_can_be_loaded(tmp_path):
    make_tree(tmp_path, [KERNELS], "")
    assert loaded(tmp_path, "acpi:VMGENCTR:") == [KERNELS], "as udev asks for it"
    assert loaded(tmp_path, "vmgenid", Path("/dev/null")) == [KERNELS]


def test_json_of_the_installed_command_can_be_read(root, device):
    set_generation(device, 7)
    said = host.run([root / "usr/sbin/sysgenid", "status", "--json"], "asking for the status",
                    env=environment(root, device))
    assert json.loads(said)["generation"] == 7


def test_dkms_and_the_packages_have_the_same_version():
    changelog = (host.ROOT / "debian/changelog").read_text()
    dkms = (host.ROOT / "dkms.conf").read_text()
    assert re.match(r"sysgenid \((.*?)\)", changelog)[1] == re.search(
        r'^PACKAGE_VERSION="(.*)"$', dkms, re.M)[1]
