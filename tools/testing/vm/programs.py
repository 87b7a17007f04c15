# SPDX-License-Identifier: GPL-2.0
"""The draws of unmodified programs in two clones of one snapshot.

A Debian is cloned with many programs, which have drawn before the snapshot. It has three
states: without this project, with its modules only, and with everything. Run as a
program, it writes the table of 20 pairs of clones into Documentation/programs.rst.
"""
import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from harness import build, debian, host, kernels, packages
from harness.channel import Program
from harness.debian_disk import disk_image
from harness.guest import Guest, Options, Snapshot, new_guid
from harness.kernels import Kernel

SOURCES = build.GUEST / "programs"
TABLE = host.ROOT / "Documentation/programs.rst"
DRAWS = 4       # of each program in each clone; control.py
PAIRS = 20
INCLUDED = ("systemd", "systemd-sysv", "udev", "dbus", "kmod", "procps", "openssl", "nginx-light",
            "postgresql-15", "libgnutls30", "libgcrypt20", "libnss3", "python3", "python3-numpy",
            "nodejs", "perl", "ruby", "php-cli", "openjdk-17-jdk-headless", "golang-go",
            "uuid-runtime")
# These services are restarted in each clone.
RESTARTED = ("nginx", "postgresql@15-main")
STATES = ("without", "modules", "everything")
# Keeps udev from loading our modules.
COMMAND_LINE = "modprobe.blacklist=sysgenid,vm_generation_id"


@dataclass(frozen=True)
class Row:
    """A program, as a shell command that prints a draw for each line it reads.

    fixed_by names what keeps clones from repeating draws: "kernel" (the modules),
    "openssl" (sysgenid-openssl), "restart" (sysgenid-restart@.service, for services), or
    "" if only a change of the program does. author is the advice to the program's author.
    """
    command: str
    fixed_by: str
    author: str = ""


def python(expression: str, module: str) -> str:
    return (f"python3 -c 'import sys, {module}\nfor line in sys.stdin: "
            f"print({expression}, flush=True)'")


def node(expression: str) -> str:
    return ("node -e 'const crypto = require(\"crypto\"); require(\"readline\").createInterface("
            f"{{input: process.stdin}}).on(\"line\", () => console.log({expression}))'")


def each_line(command: str) -> str:
    return f"while read -r line; do {command}; done"


def sql(expression: str) -> str:
    return f"python3 /programs/connection.py '{expression}'"


SEED = "reseed when the mapped generation changes (G2), or draw from getrandom() (G7)"
CHAIN = "check the generation where fork() is checked (G2), or draw from getrandom() (G7)"
ROWS = {
    "kernel: getrandom()": Row("draw getrandom", "kernel"),
    "kernel: /dev/urandom": Row("draw urandom", "kernel"),
    "kernel: /proc/sys/kernel/random/uuid": Row("draw uuid", "kernel"),
    "glibc: arc4random()": Row("draw arc4random", "kernel"),
    "glibc: random()": Row("draw random", "", SEED),
    "OpenSSL: RAND_bytes()": Row("draw openssl", "openssl"),
    "OpenSSL: RAND_priv_bytes()": Row("draw openssl-private", "openssl"),
    "GnuTLS: gnutls_rnd()": Row("draw gnutls", "", CHAIN),
    "libgcrypt: gcry_randomize()": Row("draw gcrypt", "", CHAIN),
    "NSS: PK11_GenerateRandom()": Row("draw nss", "", CHAIN),
    "Python: ssl.RAND_bytes()": Row(python("ssl.RAND_bytes(16).hex()", "ssl"), "openssl"),
    "Python: secrets": Row(python("secrets.token_hex()", "secrets"), "kernel"),
    "Python: uuid.uuid4()": Row(python("uuid.uuid4()", "uuid"), "kernel"),
    "Python: random": Row(python("random.getrandbits(128)", "random"), "", SEED),
    "Python: numpy.random": Row(python("numpy.random.bytes(16).hex()", "numpy.random"), "", SEED),
    "Node.js: crypto.randomBytes()": Row(node("crypto.randomBytes(16).toString(\"hex\")"),
                                         "openssl"),
    "Node.js: crypto.randomUUID()": Row(
        node("crypto.randomUUID()"), "",
        "drop the cache of random bytes when the generation changes (G2); "
        "programs pass {disableEntropyCache: true}"),
    "Node.js: Math.random()": Row(node("Math.random()"), "", SEED),
    "Perl: rand": Row("perl -ne 'BEGIN { $| = 1 } print rand(), \"\\n\"'", "", SEED),
    "Ruby: SecureRandom": Row("ruby -rsecurerandom -e '$stdout.sync = true; "
                              "while gets do puts SecureRandom.hex end'", "kernel"),
    "Ruby: rand": Row("ruby -e '$stdout.sync = true; while gets do puts rand end'", "", SEED),
    "PHP: random_bytes()": Row("php -r 'while (fgets(STDIN)) echo bin2hex(random_bytes(16)), "
                               "\"\\n\";'", "kernel"),
    "PHP: mt_rand()": Row("php -r 'while (fgets(STDIN)) echo mt_rand(), mt_rand(), \"\\n\";'",
                          "", SEED),
    "OpenJDK: SecureRandom": Row("java -cp /programs Draw secure", "kernel"),
    "OpenJDK: Random": Row("java -cp /programs Draw random", "", SEED),
    "Go: crypto/rand": Row("draw-go crypto", "kernel"),
    "Go: math/rand": Row("draw-go math", "", SEED),
    "bash: $RANDOM": Row("bash -c 'while read -r line; do echo $RANDOM$RANDOM$RANDOM$RANDOM; done'",
                         "", "use $SRANDOM, which draws from getrandom() (G7)"),
    "uuidd: random UUIDs": Row(each_line("uuidd -rn1 | tail -n 1"), "kernel"),
    "PostgreSQL: gen_random_uuid()": Row(sql("gen_random_uuid()"), "openssl"),
    "PostgreSQL: random()": Row(sql("random()"), "restart", SEED),
    "nginx: $request_id": Row(each_line("python3 /programs/request.py"), "openssl"),
    "nginx: session ticket key": Row(
        each_line("openssl s_client -connect 127.0.0.1:443 -tls1_2 </dev/null 2>/dev/null |"
                  " sed -n \"s/^ *0000 - //p\" | head -n 1 | cut -c 1-47"),
        "restart", "make new ticket keys when the generation changes (G2)"),
}
REQUEST = """import ssl, urllib.request
print(urllib.request.urlopen("https://127.0.0.1/",
                             context=ssl._create_unverified_context()).read().decode().strip())
"""
# Holds a connection to the database, and ends with it.
CONNECTION = """import subprocess, sys
psql = subprocess.Popen(["runuser", "-u", "postgres", "--", "stdbuf", "-oL", "psql", "-qAt"],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
for line in sys.stdin:
    psql.stdin.write(f"select {sys.argv[1]};\\n")
    answer = psql.stdout.readline()
    if not answer:
        sys.exit("the connection has ended")
    print(answer, end="", flush=True)
"""
NGINX = """worker_processes 1;
events {}
http {
	server {
		listen 127.0.0.1:443 ssl;
		ssl_certificate /etc/nginx/cert.pem;
		ssl_certificate_key /etc/nginx/key.pem;
		location / { return 200 "$request_id\\n"; }
	}
}
"""
# policy-rc.d keeps the packages' scripts from starting services in the root.
INSTALL = r"""
set -e
root=$1/root
mkdir "$root"
tar -xpf "$2" -C "$root"
cp $3 "$root/tmp/"
cp -a "$4" "$root/programs"
echo 'exit 101' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
chroot "$root" sh -ec '
	apt-get -q install -y --no-install-recommends /tmp/*.deb
	javac -d /programs /programs/Draw.java
	cd /programs && HOME=/tmp go build -o /usr/local/bin/draw-go draw.go
	openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 3650 \
		-keyout /etc/nginx/key.pem -out /etc/nginx/cert.pem
	mv /programs/draw /usr/local/bin/
	mv /programs/agent.service /etc/systemd/system/
	mv /programs/agent /
	ln -s ../agent.service /etc/systemd/system/multi-user.target.wants/
	ln -sf /dev/null /etc/systemd/system/getty.target
	ln -sf /dev/null /etc/systemd/system/serial-getty@ttyS0.service
	: > /etc/fstab
'
umount "$root/proc"
rm -rf "$root/usr/sbin/policy-rc.d" "$root"/tmp/* "$root"/usr/lib/go* "$root"/usr/share/go* \
	"$root"/usr/lib/jvm/*/jmods "$root"/var/cache/* "$root"/var/lib/apt/lists/*
mkdir -p "$root/lib/modules"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$5" 3G
"""
DRIVERS = ("virtio_blk", "virtio_pci", "overlay")


def make_draw(path: Path) -> Path:
    """Builds the C program that some rows run."""
    packages.install(("gcc", "libc6-dev"))
    host.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", path, SOURCES / "draw.c"],
             "building draw")
    return path


def make_programs(directory: Path) -> None:
    """Collects the files for /programs; INSTALL moves some of them."""
    shutil.copytree(SOURCES, directory)
    make_draw(directory / "draw")
    build.make_programs([])
    shutil.copy(build.agent(), directory)
    (directory / "agent.service").write_text(debian.AGENT)


def make_disk() -> Path:
    """Returns a file system of a Debian with the programs and our packages."""
    debs = [deb for deb in debian.make_packages()
            if deb.name.startswith(("sysgenid_", "sysgenid-openssl_", "libsysgenid1_"))]
    base = debian.make_tar("programs", INCLUDED)
    with host.locked("programs", host.BUILD):
        directory = host.BUILD / "programs-disk"
        digest = hashlib.sha256((INSTALL + debian.AGENT).encode())
        for source in (*sorted(SOURCES.iterdir()), build.GUEST / "agent.c"):
            digest.update(source.read_bytes())
        disk = directory / f"{debian.digest(str(base), digest.hexdigest())}.ext4"
        if not disk.exists():
            host.progress("installing the programs")
            shutil.rmtree(directory, ignore_errors=True)
            with host.making(directory) as temporary:
                make_programs(temporary / "programs")
                try:
                    packages.as_root(["unshare", "-m", "sh", "-c", INSTALL, "install", str(temporary),
                                      str(base), " ".join(map(str, debs)),
                                      str(temporary / "programs"), str(temporary / disk.name)],
                                     "installing the programs")
                finally:
                    packages.as_root(["rm", "-rf", str(temporary / "root")], "tidying up")
    return disk


def make_image(kernel: Kernel) -> Path:
    """Writes an initramfs that mounts the disk, with our modules for the kernel."""
    image = disk_image(kernel, DRIVERS)
    image.file("files/programs/rows.json",
               json.dumps({name: row.command for name, row in ROWS.items()}))
    image.file("files/programs/request.py", REQUEST)
    image.file("files/programs/connection.py", CONNECTION)
    image.file("files/etc/nginx/nginx.conf", NGINX)
    scratch = host.BUILD / f"programs-modules-{kernel.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    build.add_module_tree(image, kernel, scratch)
    return image.write(build.directory(kernel) / "programs.cpio")


def start_programs(guest: Guest) -> Program:
    """Starts all programs of /programs/rows.json, and has each draw once."""
    control = guest.start("test -p /run/draw || mkfifo /run/draw; PATH=$PATH:/usr/local/bin exec"
                          " python3 -u /programs/control.py /programs/rows.json /run/draw")
    silent = json.loads(control.wait_for(r"^silent (.*)\n", 300)[1])
    assert not silent, f"these programs drew nothing: {silent}"
    return control


def load_modules(guest: Guest) -> None:
    guest.run("systemctl mask --runtime sysgenidd; modprobe sysgenid && modprobe vm_generation_id")
    assert guest.run("cat /sys/class/misc/sysgenid/source") == "vmgenid\n"


def set_up_everything(guest: Guest, control: Program) -> Program:
    """Enables everything as an administrator would, and restarts the programs."""
    control.kill()
    guest.run("systemctl unmask --runtime sysgenidd && systemctl start sysgenidd", 60)
    guest.run("sysgenid-openssl enable", 60)
    for unit in RESTARTED:
        guest.run(f"systemctl restart {unit} && systemctl enable sysgenid-restart@{unit}", 120)
    return start_programs(guest)


def wait_for_generation(clone: Guest, state: str) -> None:
    """Waits until the clone has handled the new generation."""
    if state == "modules":
        clone.run("until grep -qx 1 /sys/class/misc/sysgenid/generation; do :; done")
    if state == "everything":
        # This includes the restarts of the services.
        clone.run("sysgenid wait-settled --timeout=300", 330)


def draw(clone: Guest, control: Program) -> dict[str, list[str]]:
    """Returns new draws of the running programs in a clone, by their rows' names."""
    clone.run("echo > /run/draw")
    return json.loads(clone.program(control).wait_for(r"^drawn (.*)\n", 300)[1])


def repeated(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, int]:
    """Returns the number of draws that both clones share, by row."""
    for name in one:
        assert all(one[name]) and all(other[name]), f"{name} drew nothing: {one}, {other}"
    return {name: len(set(one[name]) & set(other[name])) for name in one}


def count_repeated(snap: Snapshot, control: Program, state: str, pairs: int) -> dict[str, int]:
    """Returns the number of repeated draws in that many pairs of clones, by row."""
    counts = dict.fromkeys(ROWS, 0)
    for number in range(pairs):
        host.progress(f"{state}: pair {number + 1} of {pairs}")
        drawn = []
        for _ in range(2):
            with snap.restore() as clone:
                wait_for_generation(clone, state)
                drawn.append(draw(clone, control))
        for name, count in repeated(*drawn).items():
            counts[name] += count
    return counts


def measure(kernel: Kernel, pairs: int, logs: Path) -> dict[str, dict[str, int]]:
    """Counts repeated draws in each state; one guest goes through all states."""
    options = Options(replace(kernel, patience=max(3, kernel.patience)), make_image(kernel),
                      guid=new_guid(), memory=1024, cpu_flags="-rdrand,-rdseed", root=make_disk(),
                      append=COMMAND_LINE, seconds=3600)
    counts = {}
    with Guest(options, logs, "programs") as guest:
        guest.run("until systemctl is-system-running | grep -q -e running -e degraded;"
                  " do sleep 0.2; done", 300)
        control = start_programs(guest)
        with guest.snapshot() as snap:
            counts["without"] = count_repeated(snap, control, "without", pairs)
            with snap.restore(options.guid) as guest:
                load_modules(guest)
                with guest.snapshot() as snap:
                    counts["modules"] = count_repeated(snap, control, "modules", pairs)
                    with snap.restore(options.guid) as guest:
                        control = set_up_everything(guest, guest.program(control))
                        with guest.snapshot() as snap:
                            counts["everything"] = count_repeated(snap, control, "everything",
                                                                  pairs)
    return counts


def remedy(row: Row) -> str:
    return {"kernel": "the modules", "openssl": "``sysgenid-openssl enable``",
            "restart": "``sysgenid-restart@.service``", "": "a restart, or its author"}[row.fixed_by]


def wrong(counts: dict[str, dict[str, int]]) -> list[str]:
    """Returns the counts that break a promise, one line each."""
    found = [f"{name}: {counts['everything'][name]} repeated with everything"
             for name, row in ROWS.items() if row.fixed_by and counts["everything"][name]]
    found += [f"{name}: {counts['modules'][name]} repeated with the modules"
              for name, row in ROWS.items() if row.fixed_by == "kernel" and counts["modules"][name]]
    found += [f"{name}: nothing repeated with the modules only, so {row.fixed_by} proves nothing"
              for name, row in ROWS.items()
              if row.fixed_by in ("openssl", "restart") and not counts["modules"][name]]
    if not any(counts["without"][name] for name, row in ROWS.items() if row.fixed_by == "kernel"):
        found.append("no draw of the kernel repeated without the modules, so they prove nothing")
    return found


def table(counts: dict[str, dict[str, int]]) -> str:
    """Formats the counts as a table in reStructuredText."""
    head = ("Program", "without", "modules", "everything", "what helps")
    lines = [head, *((name, *(f"{counts[state][name]}" for state in STATES), remedy(row))
                     for name, row in ROWS.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    rows = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip()
            for line in lines]
    return "\n".join([rule, rows[0], rule, *rows[1:], rule])


def advice() -> str:
    """Formats the advice to the programs' authors as a list in reStructuredText."""
    return "\n".join(f"- {name}: {row.author}." for name, row in ROWS.items() if row.author)


def write_section(name: str, text: str) -> None:
    """Replaces a section between two comments of the documentation."""
    begin, end = f".. begin {name}\n", f".. end {name}\n"
    before, _, rest = TABLE.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    host.write_whole(TABLE, f"{before}{begin}\n{text}\n\n{end}{after}")


def write_table(kernel: Kernel, counts: dict[str, dict[str, int]], pairs: int) -> None:
    write_section("table", f"Linux {kernel.release}, pairs of clones: {pairs}. Each program draws "
                  f"{DRAWS} times in each clone, so up to\n{DRAWS * pairs} draws can repeat."
                  f"\n\n{table(counts)}")
    write_section("advice", advice())


def main() -> None:
    """Arguments: a kernel, by default 6.1-cloud, and the number of pairs."""
    name = sys.argv[1] if len(sys.argv) > 1 else "6.1-cloud"
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else PAIRS
    packages.install(packages.NEEDED + debian.FOR_ROOT)
    build.prepare([name])
    kernel, logs = kernels.get(name), host.BUILD / "logs/programs"
    counts = measure(kernel, pairs, logs)
    print(table(counts))
    found = wrong(counts)
    if found:
        raise host.SetupError("\n".join(["the counts break promises:", *found]))
    write_table(kernel, counts, pairs)


if __name__ == "__main__":
    host.main(main)
