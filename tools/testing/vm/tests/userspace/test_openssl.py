# SPDX-License-Identifier: GPL-2.0
"""The OpenSSL provider and sysgenid-openssl(8), with this machine's OpenSSL.

Tests that change files in /etc and /usr run in a mount namespace with overlays, so that
the machine's files stay unchanged.
"""
import os
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import build, host, kernels, packages
from harness.tap import failures

SOURCE = host.ROOT / "tools/openssl"
NEEDED = ("gcc", "gcc-multilib", "libc6-dev", "libssl-dev", "openssl", "pkgconf", "strace")
CNF = "/etc/ssl/openssl.cnf"
MODULE = "ossl-modules/sysgenid.so"
# Arguments: a scratch directory, the directory to install, and a script. The script can
# change /usr, /etc and /var.
ENTER = """
set -e
mount -t tmpfs tmpfs "$1"
for top in usr etc var; do
	mkdir -p "$1/$top/upper" "$1/$top/work"
	mount -t overlay -o "lowerdir=/$top,upperdir=$1/$top/upper,workdir=$1/$top/work" overlay /$top
done
cp -r "$2/usr/." /usr/
eval "$3"
"""


@dataclass
class Installed:
    """The installed provider, and a scratch directory."""
    root: Path
    scratch: Path

    @property
    def libdir(self) -> Path:
        return next(self.root.glob("usr/lib/*/sysgenid-openssl")).parent

    @property
    def module(self) -> Path:
        return self.libdir / MODULE

    def config(self, *argv: str | Path) -> str:
        return host.run([self.libdir / "sysgenid-openssl/config", *argv], "asking OpenSSL")

    def configuration(self, base: str = "", module: Path | None = None) -> Path:
        """Writes a configuration that activates the provider on top of base."""
        path = self.scratch / "openssl.cnf"
        path.write_text(base)
        path.write_text(base + "\n" + self.config("block", path, module or self.module))
        return path

    def inside(self, script: str) -> str:
        """Runs a script with the provider installed, and returns its output."""
        namespace = self.scratch / "namespace"
        namespace.mkdir(exist_ok=True)
        return packages.as_root(["unshare", "-m", "sh", "-c", ENTER, "enter", str(namespace),
                                 str(self.root), f"set +e; {script}\ntrue"], "working in a namespace")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    packages.install(NEEDED)
    directory = tmp_path_factory.mktemp("openssl")
    host.run(["make", "-s", "-C", SOURCE, "install", f"OUTPUT={directory}/output",
              f"DESTDIR={directory}/root", "CFLAGS=-O2 -Wall -Wextra -Werror"], "installing the provider")
    return directory / "root"


@pytest.fixture
def installed(root, tmp_path) -> Installed:
    return Installed(root, tmp_path)


def with_configuration(path: Path | str) -> dict[str, str]:
    return os.environ | {"OPENSSL_CONF": str(path)}


def openssl(configuration: Path | str, *argv: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(["openssl", *argv], env=with_configuration(configuration), text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, check=False, **options)


def generators(configuration: Path | str) -> list[str]:
    said = openssl(configuration, "list", "-random-instances").stdout
    return re.findall(r"^  (\S+) @", said, re.M)


def test_provider_passes_its_selftest(installed):
    program = installed.scratch / "provider_test"
    host.run(["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-isystem",
              kernels.source() / "tools/testing/selftests", "-o", program,
              build.SELFTESTS / "openssl/provider_test.c", "-lcrypto", "-pthread"],
             "building the selftest")
    done = packages.as_root(["sh", "-c", 'OPENSSL_CONF="$1" "$2" 2>&1; true', "sh",
                             str(installed.configuration()), str(program)], "testing the provider")
    assert not failures(done), done


def test_module_does_not_link_libcrypto(installed):
    said = host.run(["readelf", "-d", installed.module], "reading the module")
    assert re.findall(r"NEEDED.*\[(.*)\]", said) == ["libc.so.6"]
    assert "NODELETE" in said
    said = host.run(["nm", "-D", "--defined-only", installed.module], "reading the module")
    assert [line.split()[-1] for line in said.splitlines()] == ["OSSL_provider_init"]


def test_draw_returns_bytes_of_getrandom(installed):
    trace = installed.scratch / "trace"
    done = subprocess.run(["strace", "-xx", "-s64", "-e", "trace=getrandom", "-o", trace, "openssl",
                           "rand", "-hex", "16"], capture_output=True, text=True, check=True,
                          env=with_configuration(installed.configuration()))
    given = re.findall(r'getrandom\("(.*)", 16, 0\)', trace.read_text())
    assert given[-1].replace("\\x", "") == done.stdout.strip()


@pytest.mark.parametrize("argv", [
    ("rand", "-hex", "16"), ("rand", "-hex", "100000"), ("speed", "-seconds", "1", "rand"),
    ("genpkey", "-algorithm", "RSA"), ("genpkey", "-algorithm", "ED25519"),
    ("ecparam", "-name", "prime256v1", "-genkey"), ("dsaparam", "-genkey", "1024"),
    ("list", "-providers")], ids=lambda argv: "-".join(argv).replace("--", "-"))
def test_openssl_command_works(installed, argv):
    configuration = installed.configuration()
    assert generators(configuration) == ["SYSGENID"] * 3
    done = openssl(configuration, *argv)
    assert done.returncode == 0 and done.stdout, done.stderr


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def shake_hands(configuration: Path, port: int, version: str, certificate: Path,
                saved: Path | None = None, used: Path | None = None) -> None:
    """Connects with a used session, or until one is saved: TLS 1.3 sends it later."""
    session = ["-sess_out", saved] if saved else ["-sess_in", used]
    with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", version,
                           "-CAfile", certificate, "-verify_return_error", *session], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=with_configuration(configuration)) as client:
        while saved and client.poll() is None and not (
                saved.exists() and "END SSL SESSION" in saved.read_text()):
            time.sleep(0.05)
        said = client.communicate("Q\n", timeout=60)[0]
    assert client.returncode == 0 and "Verify return code: 0" in said, said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_tls_handshake_works(installed, version):
    configuration = installed.configuration()
    key, certificate = installed.scratch / "key.pem", installed.scratch / "cert.pem"
    made = openssl(configuration, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
                   "/CN=localhost", "-keyout", str(key), "-out", str(certificate), "-config", CNF)
    assert made.returncode == 0, made.stderr
    port = free_port()
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-key", key, "-cert", certificate,
         "-naccept", "2"], env=with_configuration(configuration), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while "ACCEPT" not in server.stdout.readline():
            assert server.poll() is None
        session = installed.scratch / "session"
        shake_hands(configuration, port, version, certificate, saved=session)
        shake_hands(configuration, port, version, certificate, used=session)
    finally:
        server.kill()
        server.communicate()


def broken_module(kind: str, installed: Installed) -> Path:
    path = installed.scratch / "broken.so"
    if kind == "text":
        path.write_text("not a module\n")
    elif kind == "another architecture":
        host.run(["gcc", "-m32", "-shared", "-fPIC", "-DVERSION=\"1\"", "-o", path,
                  SOURCE / "provider.c", "-I/usr/include/x86_64-linux-gnu"], "building a module")
    elif kind == "another interface":
        (installed.scratch / "other.c").write_text("int OSSL_provider_init(void) { return 0; }\n")
        host.run(["gcc", "-shared", "-fPIC", "-o", path, installed.scratch / "other.c"],
                 "building a module")
    elif kind == "without the generator":
        directory = host.run(["pkg-config", "--variable=modulesdir", "libcrypto"],
                             "asking pkg-config").strip()
        shutil.copy(Path(directory) / "legacy.so", path)
    return path


@pytest.mark.parametrize("diagnostics", ["0", "1"])
@pytest.mark.parametrize("kind", ["missing", "text", "another architecture", "another interface",
                                  "without the generator"])
def test_draws_fail_without_module(installed, kind, diagnostics):
    """A draw never falls back to OpenSSL's own generator."""
    configuration = installed.configuration(
        f"config_diagnostics = {diagnostics}\nopenssl_conf = init\n[init]\n",
        broken_module(kind, installed))
    done = openssl(configuration, "rand", "-hex", "16")
    assert done.returncode and not done.stdout, done.stdout
    assert "SYSGENID" in done.stderr, done.stderr
    done = openssl(configuration, "genpkey", "-algorithm", "ED25519")
    assert done.returncode and "PRIVATE" not in done.stdout
    # A command without random numbers still works.
    done = openssl(configuration, "dgst", "-sha256", "/etc/hostname")
    assert done.returncode == 0, done.stderr


DEFAULT, LEGACY = "[d]\nactivate = 1\n", "[l]\nactivate = 1\n"
# Configurations, and the providers that programs must still see.
CONFIGURATIONS = {
    "Debian's": (None, {"default"}),
    "empty": ("", {"default"}),
    "no openssl_conf": ("HOME = .\n[req]\nx = y\n", {"default"}),
    "a section that is not there": ("openssl_conf = nowhere\n", {"default"}),
    "providers": (f"openssl_conf = i\n[i]\nproviders = p\n[p]\nlegacy = l\ndefault = d\n{LEGACY}{DEFAULT}",
                  {"default", "legacy"}),
    "providers that are not activated": ("openssl_conf = i\n[i]\nproviders = p\n[p]\ndefault = d\n[d]\n",
                                         {"default"}),
    "legacy only": (f"openssl_conf = i\n[i]\nproviders = p\n[p]\nlegacy = l\n{LEGACY}", {"legacy"}),
    "another generator": ("openssl_conf = i\n[i]\nrandom = r\n[r]\nrandom = HASH-DRBG\n", {"default"}),
    "no newline at the end": ("openssl_conf = i\n[i]", {"default"}),
    "a line that goes on": ("openssl_conf = i\n[i]\n[x]\ny = z\\\n", {"default"}),
    "diagnostics": ("config_diagnostics = 1\nopenssl_conf = i\n[i]\n", {"default"}),
    "DOS lines": ("openssl_conf = i\r\n[i]\r\n", {"default"}),
    "included": ("openssl_conf = i\n.include /etc/ssl/more.cnf\n", {"default", "legacy"}),
    "variables": ("mine = i\nopenssl_conf = $mine\n[i]\nproviders = ${default::mine}_p\n[i_p]\n"
                  f"legacy = l\ndefault = d\n{LEGACY}{DEFAULT}", {"default", "legacy"}),
    "dollars in names": (".pragma = dollarid:on\na$b = c\nopenssl_conf = i\n[i]\n", {"default"}),
    "a section twice": ("openssl_conf = i\n[i]\nproviders = p\n[p]\ndefault = d\n[i]\nrandom = r\n"
                        f"[r]\nseed = SEED-SRC\n{DEFAULT}", {"default"}),
    "spaces": ("[ default ]\n openssl_conf\t= i # that one\n[ i ]\n", {"default"}),
}
MORE = f"[i]\nproviders = p\n[p]\nlegacy = l\ndefault = d\n{LEGACY}{DEFAULT}"
ACTIVE = "openssl list -providers | sed -n 's/^  \\([a-z_0-9]*\\)$/provider \\1/p'"
INSTANCES = "openssl list -random-instances | sed -n 's/^  \\([A-Z].*\\) @.*/generator \\1/p'"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_enable_and_disable_keep_configuration(installed, name):
    text, providers = CONFIGURATIONS[name]
    (installed.scratch / "before").write_text(Path(CNF).read_text() if text is None else text,
                                              newline="")
    (installed.scratch / "more").write_text(MORE)
    said = installed.inside(f"""
        cp {installed.scratch}/more /etc/ssl/more.cnf; cp {installed.scratch}/before {CNF}
        chmod 640 {CNF}
        sysgenid-openssl enable; echo "enable $?"; cp {CNF} /tmp/once.$$
        sysgenid-openssl enable; echo "enable $?"; cmp {CNF} /tmp/once.$$ && echo idempotent
        rm /tmp/once.$$
        sysgenid-openssl status; echo "status $?"
        {ACTIVE}; {INSTANCES}
        echo unit; OPENSSL_CONF=/etc/ssl/sysgenid.cnf; export OPENSSL_CONF; {INSTANCES}
        unset OPENSSL_CONF
        stat -c 'mode %a' {CNF}
        sysgenid-openssl disable; echo "disable $?"; sysgenid-openssl disable; echo "disable $?"
        cmp {CNF} {installed.scratch}/before && echo restored""")
    assert re.findall(r"^enable (\d)", said, re.M) == ["0", "0"], said
    assert "idempotent" in said and "status 0" in said and "mode 640" in said, said
    found = set(re.findall(r"^provider (\w+)", said, re.M))
    assert {entry for entry in found if not entry.startswith("sysgenid")} == providers, said
    assert re.findall(r"^generator (\S+)", said, re.M) == ["SYSGENID"] * 6, said
    assert re.findall(r"^disable (\d)", said, re.M) == ["0", "0"] and "restored" in said, said


REFUSED = {
    "cannot be parsed": ("printf '[broken\\n' > $cnf", 1, "can't parse line 1"),
    "FIPS by properties": ("printf 'openssl_conf=i\\n[i]\\nalg_section=a\\n[a]\\n"
                           "default_properties=fips=yes\\n' > $cnf", 3, "FIPS"),
    "FIPS by provider": ("printf 'openssl_conf=i\\n[i]\\nproviders=p\\n[p]\\nfips=f\\n[f]\\n"
                         "activate=1\\n' > $cnf", 3, "FIPS"),
    # OpenSSL skips the mark in the first file only, not in one that is included.
    "a byte order mark": ("sed -i '1s/^/\\xef\\xbb\\xbf/' $cnf", 1, "OPENSSL_CONF="),
    "read-only": ("mount --bind /etc/ssl /etc/ssl; mount -o remount,bind,ro /etc/ssl", 1,
                  "cannot write"),
    "mounted by itself": ("mount --bind $cnf $cnf", 1, "cannot replace"),
    "no module": (f"rm /usr/lib/*/{MODULE}", 1, "install sysgenid-openssl"),
    "damaged module": (f"echo > $(ls /usr/lib/*/{MODULE})", 1, "cannot draw"),
    "another architecture's OpenSSL": ("mkdir -p /usr/lib/other; : > /usr/lib/other/libcrypto.so.3",
                                       1, "/usr/lib/other"),
    "the block's end is gone": ("sysgenid-openssl enable; sed -i '/^# END sysg/d' $cnf; echo x=y >> $cnf",
                                1, "by hand"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_enable_refuses_and_changes_nothing(installed, why):
    prepare, status, message = REFUSED[why]
    said = installed.inside(f"""cnf={CNF}
        {prepare}
        sum=$(sha256sum < $cnf)
        sysgenid-openssl enable; echo "enable $?"
        [ "$sum" = "$(sha256sum < $cnf)" ] && echo unchanged
        ls -A /etc/ssl | sed -n 's/^[.]/left /p'""")
    assert f"enable {status}" in said and message in said and "unchanged" in said, said
    assert "left" not in re.findall(r"^\w+", said, re.M), said


def test_enable_keeps_link_and_makes_missing_file(installed):
    said = installed.inside(f"""mkdir /etc/elsewhere; mv {CNF} /etc/elsewhere/real.cnf
        ln -s /etc/elsewhere/real.cnf {CNF}
        sysgenid-openssl enable && readlink {CNF}; {INSTANCES}
        rm /etc/elsewhere/real.cnf
        sysgenid-openssl enable && {INSTANCES}
        sysgenid-openssl disable; ls /etc/elsewhere""")
    assert "\n/etc/elsewhere/real.cnf\n" in said, said
    assert re.findall(r"^generator (\S+)", said, re.M) == ["SYSGENID"] * 6, said
    assert not said.strip().endswith("real.cnf"), said


def test_running_program_survives_removal(installed):
    """The module's file is removed; a process that has loaded it still draws."""
    script = ("import os, ssl, sys\nssl.RAND_bytes(1)\nprint(1, flush=True)\n"
              "sys.stdin.readline()\nprint(len(ssl.RAND_bytes(16)), flush=True)\n"
              "print('sysgenid.so' in open('/proc/self/maps').read())\n"
              "print(os.fork() == 0 or len(ssl.RAND_bytes(16)))")
    (installed.scratch / "program.py").write_text(script)
    said = installed.inside(f"""sysgenid-openssl enable
        cd {installed.scratch}; mkfifo in
        /usr/bin/python3 program.py <in >out & exec 3>in
        until grep -q 1 out; do :; done
        sysgenid-openssl remove; rm /usr/lib/*/{MODULE}
        echo >&3; wait; cat out
        openssl rand -hex 8 && {INSTANCES}
        OPENSSL_CONF=/etc/ssl/sysgenid.cnf openssl rand -hex 8""")
    assert "16\nTrue\n" in said, said
    assert re.findall(r"^generator (\S+)", said, re.M) == ["CTR-DRBG"] * 3, said
    assert len(re.findall(r"^[0-9a-f]{16}$", said, re.M)) == 2, said


def test_refresh_reports_and_disables_broken_module(installed):
    said = installed.inside(f"""sysgenid-openssl enable
        echo > $(ls /usr/lib/*/{MODULE})
        openssl rand -hex 8
        sysgenid-openssl status; echo "status $?"
        sysgenid-openssl refresh; echo "refresh $?"
        openssl rand -hex 8""")
    assert len(re.findall(r"^[0-9a-f]{16}$", said, re.M)) == 1, said
    assert "status 2" in said and "refresh 1" in said and "WARNING" in said, said


def test_refresh_enables_replaced_configuration(installed):
    said = installed.inside(f"""cp {CNF} /etc/ssl/fresh; sysgenid-openssl enable
        cp /etc/ssl/fresh {CNF}; sysgenid-openssl status
        sysgenid-openssl refresh; {INSTANCES}""")
    assert "was changed since" in said, said
    assert re.findall(r"^generator (\S+)", said, re.M) == ["SYSGENID"] * 3, said


def test_package_of_other_architecture_keeps_it_enabled(installed):
    """dpkg deconfigures a package when it upgrades that of another architecture."""
    scripts = host.ROOT / "debian/sysgenid-openssl"
    said = installed.inside(f"""sysgenid-openssl enable; here={installed.libdir.name}
        mkdir -p /usr/lib/other/ossl-modules
        cp -r /usr/lib/$here/sysgenid-openssl /usr/lib/other
        cp /usr/lib/$here/{MODULE} /usr/lib/other/{MODULE}
        enabled() {{
            [ -e /var/lib/sysgenid-openssl/enabled ] && grep -q '^# BEGIN sysg' {CNF} &&
                openssl rand -hex 8 >/dev/null && echo "enabled after $1"
        }}
        sh {scripts}.prerm deconfigure in-favour sysgenid-openssl 2; enabled deconfigure
        sh {scripts}.prerm remove; enabled prerm
        rm -r /usr/lib/other; sh {scripts}.postrm remove; enabled postrm
        grep -c /usr/lib/other {CNF}
        DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=2 sh {scripts}.postrm purge; enabled purge
        DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=2 sh {scripts}.prerm remove; enabled last
        sh {scripts}.postrm purge; ls -d /var/lib/sysgenid-openssl /etc/ssl/sysgenid.cnf""")
    assert re.findall(r"enabled after (\w+)", said) == ["deconfigure", "prerm", "postrm",
                                                        "purge"], said
    assert "\n0\n" in said and "disabled in" in said, said


# Makes packages from the maintainer scripts, and an OpenSSL of another architecture.
PACKAGES = """
cd SCRATCH; admin=/var/lib/other-dpkg; mkdir -p $admin/info $admin/updates $admin/triggers
: > $admin/status
for name in sysgenid-openssl libssl3; do
	mkdir -p $name/DEBIAN
	printf '%s\\n' "Package: $name" 'Version: 1' 'Architecture: all' 'Description: test' \
		'Maintainer: test <test@sysgenid.example>' > $name/DEBIAN/control
done
cp DEBIAN.triggers sysgenid-openssl/DEBIAN/triggers
cp DEBIAN.postinst sysgenid-openssl/DEBIAN/postinst
chmod 755 sysgenid-openssl/DEBIAN/postinst
mkdir -p libssl3/usr/lib/s390x-linux-gnu
: > libssl3/usr/lib/s390x-linux-gnu/libcrypto.so.3
unpack() { dpkg-deb -b $1 >/dev/null && dpkg --admindir=$admin -i $1.deb 2>&1; }
"""


def test_package_reports_later_openssl_of_other_architecture(installed):
    script = PACKAGES.replace("SCRATCH", str(installed.scratch)).replace(
        "DEBIAN.", f"{host.ROOT}/debian/sysgenid-openssl.")
    said = installed.inside(f"""{script}
        echo 'a = b' > {CNF}
        unpack sysgenid-openssl; sysgenid-openssl enable; sysgenid-openssl status; echo "status $?"
        sed -i -e '1i openssl_conf = mine' -e '/^# BEGIN/i [mine]' {CNF}
        sysgenid-openssl status; echo "status $?"
        unpack libssl3; echo "dpkg $?"
        sysgenid-openssl status; echo "status $?"; {INSTANCES}
        mkdir -p /usr/lib/s390x-linux-gnu/ossl-modules
        cp /usr/lib/{installed.libdir.name}/{MODULE} /usr/lib/s390x-linux-gnu/{MODULE}
        cp -r /usr/lib/{installed.libdir.name}/sysgenid-openssl /usr/lib/s390x-linux-gnu
        unpack sysgenid-openssl; sysgenid-openssl status; echo "status $?"
        grep -c s390x {CNF}""")
    before, after = said.split("Unpacking libssl3", 1)
    assert re.findall(r"^(\w+ \d)$", said, re.M) == [
        "status 0", "status 2", "dpkg 0", "status 2", "status 0"], said
    message = "OpenSSL in /usr/lib/s390x-linux-gnu has no sysgenid.so"
    assert message not in before and message in after, said
    assert "out of date" in before and "out of date" not in after, said
    assert re.findall(r"^generator (\S+)", said, re.M) == ["SYSGENID"] * 3, said
    assert said.rstrip().splitlines()[-1] != "0", said


def test_other_architecture_without_module_keeps_file_for_services(installed):
    said = installed.inside(f"""mkdir -p /usr/lib/other; : > /usr/lib/other/libcrypto.so.3
        sysgenid-openssl refresh; echo "refresh $?"; sysgenid-openssl status; echo "status $?"
        OPENSSL_CONF=/etc/ssl/sysgenid.cnf; export OPENSSL_CONF; {INSTANCES}""")
    assert "refresh 0" in said and "status 1" in said, said
    assert re.findall(r"^generator (\S+)", said, re.M) == ["SYSGENID"] * 3, said


def test_line_below_block_is_kept(installed):
    said = installed.inside(f"""printf 'a = b' >{CNF}
        sysgenid-openssl enable; printf 'last = whole' >>{CNF}
        sysgenid-openssl disable; cat {CNF}; echo '|'""")
    assert "\nlast = whole|" in said, said


def test_edit_above_block_makes_it_out_of_date(installed):
    said = installed.inside(f"""echo 'a = b' >{CNF}; sysgenid-openssl enable
        sysgenid-openssl status; echo "status $?"
        sed -i '1i openssl_conf = mine' {CNF}
        sed -i '/^# BEGIN/i [mine]\\nproviders = p\\n[p]\\nlegacy = l\\n[l]\\nactivate = 1' {CNF}
        sysgenid-openssl status; echo "status $?"
        sysgenid-openssl enable; sysgenid-openssl status; echo "status $?"
        {ACTIVE}; {INSTANCES}""")
    assert re.findall(r"^status (\d)", said, re.M) == ["0", "2", "0"], said
    assert said.count("out of date: run sysgenid-openssl enable") == 1, said
    assert "provider legacy" in said and "provider default" not in said, said
    assert re.findall(r"^generator (\S+)", said, re.M) == ["SYSGENID"] * 3, said


def test_later_fips_configuration_removes_block(installed):
    said = installed.inside(f"""echo 'a = b' >{CNF}; sysgenid-openssl enable
        sed -i '1i openssl_conf = i' {CNF}
        sed -i '/^# BEGIN/i [i]\\nalg_section = a\\n[a]\\ndefault_properties = fips=yes' {CNF}
        sysgenid-openssl status; echo "status $?"
        sysgenid-openssl enable; echo "enable $?"
        grep -c SYSGENID {CNF} /etc/ssl/sysgenid.cnf
        sysgenid-openssl status; echo "status $?";""")
    assert re.findall(r"^(\w+ \d)$", said, re.M) == ["status 2", "enable 3", "status 1"], said
    assert f"{CNF}:0\n/etc/ssl/sysgenid.cnf:0\n" in said, said
