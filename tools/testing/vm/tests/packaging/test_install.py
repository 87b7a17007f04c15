# SPDX-License-Identifier: GPL-2.0
"""The files that `make install` installs, used by programs on this machine.

A file stands in for the device.
"""
import json
import os
import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from harness import built_kernels, host, kernels, packages

LIB = host.ROOT / "tools/lib/sysgenid"
TOOLS = host.ROOT / "tools/sysgenid"
NEEDED = ("gcc-multilib", "g++", "pkg-config", "binutils", "bash-completion", "mandoc", "kmod", "libsystemd-dev",
          "libjson-c-dev", "libgcrypt20-dev", "zsh", "fish",
          "openssh-client")
LIBDIR = "usr/lib/x86_64-linux-gnu"
CFLAGS = "CFLAGS=-O2 -Wall -Wextra -Werror"
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The directory with all but the modules installed."""
    packages.install(NEEDED)
    directory = tmp_path_factory.mktemp("install")
    output, root = directory / "output", directory / "root"
    host.run(["make", "-s", "-C", LIB, "install", f"OUTPUT={output}/lib", f"DESTDIR={root}",
              f"LIBDIR=/{LIBDIR}", CFLAGS], "installing the library")
    host.run(["make", "-s", "-C", TOOLS, "install", f"OUTPUT={output}", f"DESTDIR={root}",
              CFLAGS], "installing the programs")
    return root


@pytest.fixture
def device(tmp_path) -> Path:
    """A file that stands in for /dev/sysgenid."""
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
    """Sends an empty line, and returns the answer."""
    program.stdin.write("\n")
    return program.stdout.readline().strip()


def test_library_has_soname_and_links(root):
    directory = root / LIBDIR
    assert os.readlink(directory / "libsysgenid.so") == "libsysgenid.so.1"
    version = (host.ROOT / "VERSION").read_text().strip()
    assert os.readlink(directory / "libsysgenid.so.1") == f"libsysgenid.so.{version}"
    said = host.run(["readelf", "-d", directory / "libsysgenid.so"], "reading the library")
    assert "soname: [libsysgenid.so.1]" in said and "NODELETE" in said
    assert re.findall(r"NEEDED.*\[(.*)\]", said) == ["libc.so.6"]


def declared() -> set[str]:
    """Returns the functions in the header; the inline ones are exported, too."""
    text = re.sub(r"/\*.*?\*/|\n{\n.*?\n}\n|typedef .*?;|^#define.*?$", "",
                  (LIB / "sysgenid.h").read_text(), flags=re.S | re.M)
    return set(re.findall(r"\b(sysgenid_\w+)\(", text))


def symbols(root, library: str, *options: str) -> list[list[str]]:
    """Returns the columns of readelf for each global symbol that a library defines."""
    said = host.run(["readelf", "-W", *options, root / LIBDIR / library], "reading the symbols")
    found = [line.split() for line in said.splitlines()]
    return [row[1:] for row in found if len(row) == 8 and row[4] in ("GLOBAL", "WEAK")
            and row[6] not in ("UND", "Ndx")]


def test_shared_library_exports_only_header(root):
    exported = symbols(root, "libsysgenid.so", "--dyn-syms")
    # Exported data would be copied into the program, and the library would not update it.
    assert {row[2] for row in exported if row[5] != "ABS"} == {"FUNC"}
    names = {row[6] for row in exported} - {"LIBSYSGENID_1.0"}
    assert names == {f"{name}@@LIBSYSGENID_1.0" for name in declared()}
    listed = set(re.findall(r"^ (\S+)@LIBSYSGENID_1.0 ",
                            (host.ROOT / "debian/libsysgenid1.symbols").read_text(), re.M))
    assert listed == declared() | {"LIBSYSGENID_1.0"}


def test_static_library_defines_only_own_names(root):
    defined = symbols(root, "libsysgenid.a", "--syms")
    assert {row[6] for row in defined if row[4] != "HIDDEN"} == declared()
    for row in defined:
        assert row[6].startswith("sysgenid_"), row
        assert (row[4] == "HIDDEN") == (row[6] not in declared()), row


def test_uapi_header_is_installed(root):
    assert (root / "usr/include/linux/sysgenid.h").read_bytes() == (
        host.ROOT / "include/uapi/linux/sysgenid.h").read_bytes()


# This program prints for each line of input whether the check finds a change.
CHECKER = """#include <sysgenid.h>
#include <stdio.h>
static struct sysgenid_seen seen;
int main(void)
{
	struct sysgenid_seen now;
	int changed;

	while (getchar() != EOF) {
		changed = sysgenid_changed(&seen, &now);
		if (changed)
			sysgenid_remember(&seen, &now);
		printf("%d %d\\n", changed, sysgenid_is_current(&seen));
		fflush(stdout);
	}
	return sysgenid_version() != SYSGENID_VERSION;
}
"""
COMPILERS = {
    "C90": ["gcc", "-std=c90", "-pedantic-errors"],
    "C99": ["gcc", "-std=c99", "-pedantic-errors"],
    "C11": ["gcc", "-std=c11", "-O2"],
    "C++11": ["g++", "-std=c++11", "-pedantic-errors"],
    "C++20": ["g++", "-std=c++20", "-O2"],
    "no PIE": ["gcc", "-O2", "-no-pie", "-fno-pie"],
    "no PIE, no inlining": ["gcc", "-O2", "-no-pie", "-fno-pie", "-fno-inline"],
    "symbols bound": ["gcc", "-O2", "-fPIE", "-pie", "-Wl,-Bsymbolic"],
    "static": ["gcc", "-O2", "-static"],
    "LTO": ["gcc", "-O2", "-flto"],
    "static, LTO": ["gcc", "-O2", "-flto", "-static"],
}


def check_changes(program: Path, root: Path, device: Path, **more: str) -> None:
    """Checks the program's output before and after a change."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          bufsize=1, env=environment(root, device) | more) as checker:
        assert [ask(checker), ask(checker)] == ["1 1", "0 1"]
        set_generation(device, 5)
        assert [ask(checker), ask(checker)] == ["1 1", "0 1"]
        checker.stdin.close()
    assert checker.returncode == 0


@pytest.mark.parametrize("compiler", COMPILERS)
def test_check_works_compiled_as(root, device, tmp_path, compiler):
    argv = COMPILERS[compiler]
    source = tmp_path / ("checker.cc" if "g++" in argv else "checker.c")
    source.write_text(CHECKER)
    libs = pkg_config(root, "--libs", *(["--static"] if "-static" in argv else []))
    host.run([*argv, *STRICT, "-o", tmp_path / "checker", source,
              *pkg_config(root, "--cflags"), *libs], "compiling a program")
    said = host.run(["readelf", "-r", "-W", tmp_path / "checker"], "reading relocations")
    assert not re.search("COPY.*sysgenid", said)
    check_changes(tmp_path / "checker", root, device)


@pytest.mark.parametrize("flags", [["-Wl,-Bsymbolic"], ["-Wl,-Bsymbolic", "-flto"], ["-O0"]],
                         ids=["bound", "LTO", "not optimized"])
@pytest.mark.parametrize("linked", ["shared", "static"])
def test_check_works_in_library_of_non_pie_program(root, device, tmp_path, flags, linked):
    (tmp_path / "part.c").write_text(CHECKER.replace("int main", "int part(void);\nint part"))
    (tmp_path / "user.c").write_text("#include <sysgenid.h>\nint part(void);\n"
                                     "int main(void) { return part() + sysgenid_open(); }\n")
    libs = (pkg_config(root, "--libs") if linked == "shared" else
            [root / LIBDIR / "libsysgenid.a"])
    cflags = pkg_config(root, "--cflags")
    host.run(["gcc", "-O2", "-fPIC", "-shared", *flags, "-Wl,-z,text", "-o",
              tmp_path / "libpart.so", tmp_path / "part.c", *cflags, *libs], "linking a library")
    host.run(["gcc", "-O2", "-no-pie", "-fno-pie", "-o", tmp_path / "user", tmp_path / "user.c",
              *cflags, "-L", tmp_path, "-lpart", *pkg_config(root, "--libs")], "linking a program")
    check_changes(tmp_path / "user", root, device,
                  LD_LIBRARY_PATH=f"{root}/{LIBDIR}:{tmp_path}")


IN_LINE = """#include <sysgenid.h>
int check(const struct sysgenid_seen *seen);
int check(const struct sysgenid_seen *seen) { return sysgenid_changed(seen, 0); }
"""


def test_check_takes_at_most_12_loads(tmp_path):
    """A check of one word takes four: its address, a pointer, the word, the one seen."""
    (tmp_path / "check.c").write_text(IN_LINE)
    host.run(["gcc", "-O2", "-fPIC", "-c", f"-I{LIB}", "-o", tmp_path / "check.o",
              tmp_path / "check.c"], "compiling the check")
    said = host.run(["objdump", "-d", "--no-show-raw-insn", tmp_path / "check.o"],
                    "disassembling the check")
    loads = re.findall(r"\t(?:mov|cmp\w?)\s+[^,\n]*\(%r\w+\)", said)
    assert 8 <= len(loads) <= 4 + 8, said


@pytest.fixture(scope="module")
def checker_32(tmp_path_factory) -> Path:
    """The program, compiled for 32 bits with the library."""
    packages.install(NEEDED)
    directory = tmp_path_factory.mktemp("checker_32")
    host.run(["make", "-s", "-C", LIB, f"OUTPUT={directory}/lib", f"{CFLAGS} -m32",
              f"{directory}/lib/libsysgenid.a"], "building the library")
    (directory / "checker.c").write_text(CHECKER)
    host.run(["gcc", "-m32", "-O2", *STRICT, f"-I{LIB}", "-o", directory / "checker",
              directory / "checker.c", directory / "lib/libsysgenid.a"], "compiling a program")
    return directory / "checker"


def test_check_works_in_32_bit_program(checker_32, device, tmp_path):
    check_changes(checker_32, tmp_path, device)


# Runs a program in a namespace, with an overlay on the device's directory. The overlay's
# inode numbers have more than 32 bits.
LONG_INODE = """#!/bin/sh
exec unshare -rm sh -ec '
directory=${SYSGENID_DEVICE%/*}
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay -o "xino=on,lowerdir=$directory,upperdir=/mnt/upper,workdir=/mnt/work" \
	overlay "$directory"
inode=$(stat -c %i "$SYSGENID_DEVICE")
[ ${#inode} -gt 10 ]
exec "$1"' sh CHECKER
"""


def test_32_bit_program_maps_file_with_long_inode_number(checker_32, device, tmp_path):
    program = tmp_path / "program"
    program.write_text(LONG_INODE.replace("CHECKER", str(checker_32)))
    program.chmod(0o755)
    check_changes(program, tmp_path, device)


LINKS = {
    "shared": ("--libs", ["-pie", "-fPIE"]),
    "static": ("--libs --static", ["-static"]),
    "static, independent of its position": ("--libs --static", ["-static-pie", "-fPIE"]),
}


@pytest.fixture(params=LINKS)
def examples(request, root, tmp_path) -> Path:
    """The examples, built like a user's programs, in each way of linking."""
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
    """Returns the next number of the example's generator, if it does not reseed."""
    z = unshifted(int(number, 16), 31) * pow(0x94d049bb133111eb, -1, 1 << 64) & MASK
    z = unshifted(z, 27) * pow(0xbf58476d1ce4e5b9, -1, 1 << 64) & MASK
    return f"{mixed(unshifted(z, 30) + GAMMA & MASK):016x}"


def test_prng_reseeds_only_in_new_generation(examples, root, device):
    with start(examples / "prng", root, device) as prng:
        first, second = ask(prng), ask(prng)
        assert second == following(first)
        set_generation(device, 1)
        third, fourth = ask(prng), ask(prng)
        assert third != following(second)
        assert fourth == following(third)
        prng.stdin.close()
    assert prng.returncode == 0


def test_daemon_has_new_prefix_in_new_generation(examples, root, device):
    with start(examples / "daemon", root, device) as daemon:
        prefix = ask(daemon).partition("-")[0]
        assert ask(daemon) == f"{prefix}-2"
        set_generation(device, 1)
        assert daemon.stdout.readline() == "generation 1: new prefix\n"
        assert not ask(daemon).startswith(prefix)
        daemon.stdin.close()
    assert daemon.returncode == 0


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


def test_repeated_dlopen_costs_one_descriptor(root, device, tmp_path):
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


# The library's field or number, and the kernel's.
LAYOUT = """#include <kernel.h>
#include "vmclock.h"
#define FIELD(ours, kernels) _Static_assert( \
	offsetof(struct vmclock_page, ours) == offsetof(struct vmclock_abi, kernels), #ours)
FIELD(magic, magic);
FIELD(size, size);
FIELD(version, version);
FIELD(sequence, seq_count);
FIELD(flags, flags);
FIELD(generation, vm_generation_counter);
_Static_assert(sizeof(struct vmclock_page) == sizeof(struct vmclock_abi), "size");
_Static_assert(VMCLOCK_PAGE_MAGIC == VMCLOCK_MAGIC, "magic number");
_Static_assert(VMCLOCK_HAS_GENERATION == VMCLOCK_FLAG_VM_GEN_COUNTER_PRESENT, "flag");
_Static_assert(VMCLOCK_HAS_NOTIFY == VMCLOCK_FLAG_NOTIFICATION_PRESENT, "flag");
"""


def test_vmclock_page_matches_newest_kernel_header(tmp_path):
    packages.install(NEEDED)
    header = built_kernels.tree(kernels.NEWEST_SOURCE) / "include/uapi/linux/vmclock-abi.h"
    (tmp_path / "kernel.h").symlink_to(header)
    (tmp_path / "layout.c").write_text(LAYOUT)
    host.run(["gcc", "-fsyntax-only", f"-I{tmp_path}", f"-I{LIB}", tmp_path / "layout.c"],
             "comparing with the kernel's header")


def test_manual_pages_are_valid_and_complete(root):
    pages = sorted((root / "usr/share/man").rglob("*.[38]"))
    public = {name for name in declared() if not name.endswith("_")}
    assert {page.stem for page in pages} >= public | {"sysgenid", "sysgenidd"}
    for page in pages:
        other = re.match(r"\.so (\S+)\n$", page.read_text())
        shown = root / "usr/share/man" / other[1] if other else page
        assert not host.run(["mandoc", "-T", "lint", "-W", "warning", shown], f"checking {shown}")
        assert page.stem in shown.read_text().partition(".SH SYNOPSIS")[0], page
        if page.stem in public:
            assert {".SH ERRORS", ".SH ATTRIBUTES"} <= set(shown.read_text().splitlines()), page
    attributes = (root / "usr/share/man/man3/libsysgenid.3").read_text().partition(".SH ATTRIBUTES")
    assert set(re.findall(r"\\fB(sysgenid_\w+)\\fP", attributes[2])) == public


def test_apparmor_abstraction_can_be_included(root, tmp_path):
    packages.install(("apparmor",))
    profile = tmp_path / "profile"
    profile.write_text("profile test {\n  include <abstractions/sysgenid>\n}\n")
    said = host.run(["apparmor_parser", "-p", "-I", root / "etc/apparmor.d", profile],
                    "reading the profile")
    assert "/dev/sysgenid r," in said
    host.run(["apparmor_parser", "-Q", "-K", "-I", root / "etc/apparmor.d", profile],
             "compiling the profile")


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
    "sysgenid ": "status get wait watch run trigger wait-watchers wait-settled hooks prepare"
                 " seal gate --help --version",
    "sysgenid wa": "wait watch wait-watchers wait-settled",
    "sysgenid hooks --d": "--dry-run",
    "sysgenid prepare --": "--dry-run --undo --help",
    "sysgenid seal --r": "--root=",
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


SCRIPTS = ("bash-completion/completions/sysgenid", "zsh/vendor-completions/_sysgenid",
           "fish/vendor_completions.d/sysgenid.fish")


@pytest.mark.parametrize("name", SCRIPTS)
def test_completion_knows_all_commands_and_options(root, name):
    script = (root / "usr/share" / name).read_text()
    said = host.run([root / "usr/sbin/sysgenid", "--help"], "asking for help",
                    env=environment(root, Path("/nowhere")))
    for word in re.findall(r"^  (\S+?)(?:=\w+)? ", said, re.M):
        assert (word.removeprefix("--") if "fish" in name else word) in script, word


def test_fish_completes(root):
    script = root / "usr/share/fish/vendor_completions.d/sysgenid.fish"
    said = host.run(["fish", "-N", "-c", f"source {script}; complete -C 'sysgenid wait-'; "
                     "complete -C 'sysgenid hooks --d'; complete -C 'sysgenid run truncat'"],
                    "having fish complete")
    assert [line.split()[0] for line in said.splitlines()] == [
        "wait-settled", "wait-watchers", "--dry-run", "truncate"]


# zsh completes on a terminal only. This one prints each match that it would offer.
ZSH = r"""
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "PS1=; fpath=($1 \$fpath); autoload -Uz compinit; compinit -D -u
compadd() {
	local -a all_matches
	[[ \${@[1,(i)(-|--)]} == *-[OAD]\ * ]] || {
		builtin compadd -A all_matches \"\$@\"
		print -l -- offered:\$^all_matches
	}
	builtin compadd \"\$@\"
}
finish() { print en''d; exit }
comppostfuncs=(finish)
bindkey '^I' complete-word
print read''y"
zpty -r terminal said '*ready*'
zpty -w -n terminal "$2"$'\t'
zpty -r terminal said '*end*'
print -r -- $said
"""
ZSH_COMPLETIONS = {
    "sysgenid ": "status get wait watch run trigger wait-watchers wait-settled hooks prepare"
                 " seal gate --help --version",
    "sysgenid wa": "wait watch wait-watchers wait-settled",
    "sysgenid wait-settled --": "--json --help --timeout",
    "sysgenid hooks run --d": "--dry-run",
    "sysgenid prepare --": "--help --dry-run --undo",
    "sysgenid seal --r": "--root",
    "sysgenid run tru": "true",
}


@pytest.mark.parametrize("line", ZSH_COMPLETIONS)
def test_zsh_completes(root, line):
    said = host.run(["zsh", "-f", "-c", ZSH, "zsh", root / "usr/share/zsh/vendor-completions",
                     line], "having zsh complete")
    assert re.findall(r"offered:(\S+)", said) == ZSH_COMPLETIONS[line].split()


def test_prefix_is_in_all_paths(root, tmp_path):
    host.run(["make", "-s", "-C", TOOLS, "install", f"OUTPUT={tmp_path}/output",
              f"DESTDIR={tmp_path}/root", "PREFIX=/usr/local", CFLAGS], "installing")
    units = tmp_path / "root/lib/systemd/system"
    for name in ("sysgenidd.service", "sysgenid-gate.service"):
        assert "ExecStart=/usr/local/sbin/sysgenid" in (units / name).read_text()
    assert "/usr/local/share/sysgenid/hooks" in (
        tmp_path / "root/etc/sysgenid/hooks.d/README.txt").read_text()


# A kernel's own driver: its module files, and its list of built-in modules.
OURS, KERNELS = "vm_generation_id.ko", "vmgenid.ko"
TREES = {
    "none": ([OURS], ""),
    "a module": ([OURS, KERNELS], ""),
    "built in": ([OURS], "kernel/vmgenid.ko\n"),
}
STAND_IN = ('static const char info[] __attribute__((section(".modinfo"), used)) ='
            ' "license=GPL\\0name=%s\\0alias=%s";')


def make_tree(directory: Path, files: list[str], built_in: str) -> None:
    """Makes a kernel's directory of modules, as far as depmod reads it."""
    modules = directory / "lib/modules/6.99.0"
    modules.mkdir(parents=True)
    for name in files:
        alias = "vmgenid" if name == OURS else "acpi*:VMGENCTR:*"
        (directory / "module.c").write_text(STAND_IN % (name.removesuffix(".ko"), alias))
        host.run(["gcc", "-c", "-o", modules / name, directory / "module.c"], "making a module")
    (modules / "modules.builtin").write_text(built_in)
    (modules / "modules.builtin.modinfo").write_text(
        "vmgenid.license=GPL\0" if built_in else "")
    (modules / "modules.order").write_text("")
    host.run(["/sbin/depmod", "-b", directory, "6.99.0"], "running depmod")


def loaded(directory: Path, name: str, config: Path = TOOLS / "integration/modprobe.conf") -> list[str]:
    """Returns the modules that modprobe would load."""
    said = host.run(["/sbin/modprobe", "-n", "-v", "-d", directory, "-S", "6.99.0", "-C", config,
                     name], "asking modprobe")
    return [line.split("/")[-1].strip() for line in said.splitlines()]


@pytest.mark.parametrize("driver", TREES)
def test_modprobe_prefers_our_driver(driver, tmp_path):
    make_tree(tmp_path, *TREES[driver])
    assert loaded(tmp_path, "vmgenid") == [OURS]


def test_kernel_driver_loads_where_ours_is_not_built(tmp_path):
    make_tree(tmp_path, [KERNELS], "")
    assert loaded(tmp_path, "acpi:VMGENCTR:") == [KERNELS], "udev loads it by this alias"
    assert loaded(tmp_path, "vmgenid", Path("/dev/null")) == [KERNELS]


def test_installed_command_prints_valid_json(root, device):
    set_generation(device, 7)
    said = host.run([root / "usr/sbin/sysgenid", "status", "--json"], "asking for the status",
                    env=environment(root, device))
    assert json.loads(said)["generation"] == 7


@pytest.mark.parametrize("line", [None, "", "settled\n", "5\n", '{"state": "settled"}\n',
                                  '{"state": "settled", "nonce": "another"}\n'])
def test_host_example_takes_no_other_answer_for_settled(tmp_path, line):
    """The guest's end is a socket that sends one line, or that is missing (None)."""
    path = tmp_path / "gate"
    with socket.socket(socket.AF_UNIX) as server:
        if line is not None:
            server.bind(str(path))
            server.listen()
        waits = subprocess.Popen([TOOLS / "examples/qemu-wait-settled", path, "--timeout=1"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if line is not None:
            guest, _ = server.accept()
            with guest:
                guest.sendall(line.encode())
                said, error = waits.communicate()
        else:
            said, error = waits.communicate()
    assert waits.returncode == 2 and not said
    assert ("can't be asked" if line is None else "has not settled") in error


SSH_KEYS = """
mount -t tmpfs tmpfs /etc
mkdir /etc/ssh
cat > /etc/systemctl <<'end'
#!/bin/sh
echo "$@" >> /etc/calls
[ "$3" = sshd ]
end
chmod 755 /etc/systemctl
echo root:x:0:0::/: > /etc/passwd
PATH=/etc:$PATH
keys() { for key in /etc/ssh/*_key; do ssh-keygen -l -f "$key"; done; }
ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key
ssh-keygen -q -t ecdsa -b 384 -N '' -f /etc/ssh/ssh_host_ecdsa_key
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
keys
"$1"
keys
cat /etc/calls
"""


def test_new_ssh_keys_keep_length_and_sshd_reloads():
    said = host.run(["unshare", "-rm", "sh", "-ec", SSH_KEYS, "sh",
                     TOOLS / "hooks/20-ssh-host-keys"], "making keys").splitlines()
    before, after, calls = said[:3], said[3:6], said[6:]
    assert [line.split()[0] for line in before] == ["384", "256", "2048"]
    assert [line.split()[0] for line in after] == ["384", "256", "2048"]
    assert not {line.split()[1] for line in before} & {line.split()[1] for line in after}
    assert calls == ["-q is-active ssh", "-q is-active sshd", "--no-block reload-or-restart sshd"]


def vmclock(path: Path, generation: int) -> Path:
    """Writes a page like /dev/vmclock0's; uapi-group.org/specifications/specs/vmclock."""
    page = bytearray(4096)
    struct.pack_into("<IIH", page, 0, 0x4B4C4356, 4096, 1)
    struct.pack_into("<Q", page, 24, 1 << 8)        # flags: there is a generation
    struct.pack_into("<Q", page, 104, generation)
    path.write_bytes(page)
    return path


@pytest.mark.parametrize("generation", [7, 2**53 - 1, 2**53 + 1, 2**64 - 1])
def test_json_generation_keeps_precision(root, tmp_path, generation):
    clock = vmclock(tmp_path / "vmclock", generation)
    said = host.run([root / "usr/sbin/sysgenid", "get", "--json"], "asking for the generation",
                    env=environment(root, Path("/nowhere")) | {"SYSGENID_VMCLOCK": str(clock)})
    # Some readers only have numbers of double precision.
    read = json.loads(said, parse_int=float)["generation"]
    assert int(read) == generation and isinstance(read, str) == (generation > 2**53 - 1)
