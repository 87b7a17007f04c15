# SPDX-License-Identifier: GPL-2.0
"""libvirt as the host: a libvirtd of the tests' own, and guests that are its domains.

    with Libvirtd(logs) as libvirtd:
        with Domain(libvirtd, kernel, example("genid-automatic"), logs) as domain:
            domain.create()
            domain.restore(domain.save(path))

libvirtd runs in a root directory and in namespaces of its own. It finds neither the
configuration nor the sockets, domains, networks and control groups of this machine,
and a libvirtd that runs here already is not disturbed. It ends with its standard
input, thus with this process, and the namespace of processes takes QEMU along.
"""
import copy
import os
import re
import shutil
import socket
import subprocess
import tempfile
import uuid
import xml.etree.ElementTree as ET
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness import build, host, required
from harness.channel import Channel, GuestGone, State
from harness.guest import APPEND, CPU, Guest, Options, accelerator
from harness.kernels import Kernel

try:
    import libvirt
except ModuleNotFoundError:  # make check-hosts installs it
    libvirt = None

EXAMPLES = host.ROOT / "Documentation/virt/examples"
# The directory of libvirtd's root where a file system of that many MiB is full soon.
SMALL, SMALL_MIB = "/small", 8
# MiB that a test may write, for saved domains above all.
SPACE = 512
# libvirt 9.0 wants Debian's user to exist before it reads in qemu.conf that it
# shall not be used.
USERS = "root:x:0:0::/:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n"
GROUPS = "root:x:0:\nlibvirt-qemu:x:64055:\n"
LIBVIRTD_CONF = """
unix_sock_dir = "{directory}"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "{uuid}"
log_outputs = "3:file:{log}"
"""
# QEMU's standard error is a file: that takes no virtlogd.
QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""
# The namespace's init: bash reaps the processes that it inherits.
# Arguments: where libvirtds are, the name of this one, and what it shares with the machine.
ENTER = rf"""
set -e
place=$1 name=$2 directory=$1/$2 root=$1/$2/root
shift 2
mkdir "$root"
mount -t tmpfs -o mode=755 root "$root"
cp -P /bin /sbin /lib /lib64 "$root"
mkdir -p "$root/etc" "$root/run" "$root/var/log/libvirt" "$root/proc" "$root/sys" "$root{SMALL}"
cp -R /etc/ld.so.cache "$directory"/etc/* "$root/etc"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o size={SMALL_MIB}m small "$root{SMALL}"
mkdir -p "$root$place"
mount --bind "$place" "$root$place"
for shared in /usr /dev "$@"; do
	mkdir -p "$root$shared"
	mount --rbind "$shared" "$root$shared"
done
mount --bind "$directory/log" "$root/var/log/libvirt"
hostname "$name"
chroot "$root" libvirtd -d
echo ready
read -r end || :
"""


def example(name: str) -> ET.Element:
    """The domain that the documentation gives as that example."""
    return ET.parse(EXAMPLES / f"{name}.xml").getroot()


class Libvirtd:
    """A libvirtd of the system's kind (qemu:///system), and a connection to it."""

    def __init__(self, logs: Path, name: str = "host", beside: "Libvirtd | None" = None):
        """Starts it. Domains can migrate to it from the one that it is beside."""
        required.programs("libvirtd", "virt-xml-validate", "qemu-img", "unshare")
        required.space(logs, SPACE)
        if os.geteuid():
            required.missing("libvirtd needs root: run `make check-hosts` as root")
        if libvirt is None:
            required.missing("Python's libvirt module is not installed: run `make check-hosts`, "
                             "which installs it")
        # The path of a socket is short.
        self.place = beside.place if beside else Path(tempfile.mkdtemp(prefix="sysgenid-"))
        self.directory = self.place / name
        self.name = name
        self.log = self.directory / "log/libvirtd.log"
        self.logs = logs
        self.connection = None
        (self.directory / "etc/libvirt").mkdir(parents=True)
        self.log.parent.mkdir()
        for file, text in (("passwd", USERS), ("group", GROUPS),
                           ("libvirt/qemu.conf", QEMU_CONF),
                           ("libvirt/libvirtd.conf", LIBVIRTD_CONF.format(
                               directory=self.directory, log="/var/log/libvirt/libvirtd.log",
                               uuid=uuid.uuid4()))):
            (self.directory / "etc" / file).write_text(text, encoding="utf-8")
        with open(self.directory / "log/start", "wb") as said:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork",
                 "--kill-child=KILL", "bash", "-c", ENTER, "bash", self.place, name,
                 host.ROOT, host.CACHE, logs],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        try:
            self._connect()
        except BaseException:
            self.stop()
            raise

    def _connect(self) -> None:
        libvirt.registerErrorHandler(lambda *_: None, None)  # errors are exceptions
        if self.process.stdout.readline() != b"ready\n":
            said = (self.directory / "log/start").read_text(errors="replace").splitlines()
            required.missing("libvirtd can't be started: "
                             f"{said[-1] if said else 'it gave no reason'}; "
                             "run this as root, and not in a container")
        try:
            self.connection = libvirt.open(
                f"qemu:///system?socket={self.directory}/libvirt-sock")
        except libvirt.libvirtError as error:
            failed = re.search(" : (Initialization of .*)", self.log.read_text(errors="replace"))
            raise host.SetupError(
                f"libvirtd does not answer: {failed[1] if failed else error}") from None

    def stop(self) -> None:
        """Ends libvirtd and all of its domains, and keeps their logs."""
        if self.connection:
            self.connection.close()
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.copytree(self.directory / "log", self.logs / f"libvirt-{self.name}",
                        dirs_exist_ok=True)
        shutil.rmtree(self.directory)
        with suppress(OSError):  # another one is there
            self.place.rmdir()

    def __enter__(self) -> "Libvirtd":
        return self

    def __exit__(self, *_) -> None:
        self.stop()


@dataclass(frozen=True)
class SavedDomain:
    """A domain that libvirt has saved, and the state of its programs."""
    what: object    # a path, libvirt's snapshot, or None: libvirt knows where
    state: State


class Domain(Guest):
    """A guest that is a domain of libvirt, defined from a description, not started.

    It gets the kernel, the image and the ports that the harness needs, and a disk
    that can have snapshots. `managed` is libvirt's own object of it.
    """

    def __init__(self, libvirtd: Libvirtd, kernel: Kernel, description: ET.Element,
                 logs: Path, name: str = "guest"):
        self.libvirtd = libvirtd
        self.options = Options(kernel, build.image(kernel))
        self.logs = logs
        self.name = name
        self.console = logs / f"{name}.console"
        self.console.touch()
        self.expected, self.children = [], []
        self.patience = kernel.patience
        self.disk = logs / f"{name}.qcow2"
        host.run(["qemu-img", "create", "-f", "qcow2", self.disk, "16M"], "making a disk")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(libvirtd.directory / f"{name}.agent"))
        self.listener.listen()
        self.listener.settimeout(30)
        self.managed = libvirtd.connection.defineXML(self._complete(description))

    def _complete(self, description: ET.Element) -> str:
        """The description of a domain that the harness can talk to."""
        domain, kernel = copy.deepcopy(description), self.options.kernel
        domain.set("type", {"tcg": "qemu", "kvm": "kvm"}[accelerator()])
        for name, text in (("name", self.name), ("memory", f"{kernel.memory}"), ("vcpu", "1")):
            domain.find(name).text = text
        domain.find("memory").set("unit", "MiB")
        system = domain.find("os")
        for name, text in (("kernel", kernel.image), ("initrd", self.options.image),
                           ("cmdline", f"{APPEND} {kernel.append} console=ttyS0")):
            ET.SubElement(system, name).text = str(text)
        model, *removed = CPU.split(",-")
        cpu = ET.SubElement(domain, "cpu", mode={"max": "maximum"}[model])
        for feature in removed:
            ET.SubElement(cpu, "feature", policy="disable", name=feature)
        devices = domain.find("devices")
        devices.clear()
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type="qcow2")
        ET.SubElement(disk, "source", file=str(self.disk))
        ET.SubElement(disk, "target", dev="vda", bus="virtio")
        log = ET.SubElement(devices, "serial", type="file")
        ET.SubElement(log, "source", path=str(self.console), append="on")
        agent = ET.SubElement(devices, "serial", type="unix")
        ET.SubElement(agent, "source", mode="connect", path=self.listener.getsockname())
        ET.SubElement(devices, "controller", type="usb", model="none")
        ET.SubElement(devices, "memballoon", model="none")
        return ET.tostring(domain, encoding="unicode")

    @property
    def genid(self) -> str | None:
        """The GUID that libvirt shows in the domain's description."""
        return ET.fromstring(self.managed.XMLDesc()).findtext("genid")

    def guid_in_memory(self) -> str:
        """The GUID's bytes, as the guest's memory holds them; the modules are loaded."""
        return re.match(r"at \d+ ([0-9a-f]{32})\n$", self.run("map_hardware"))[1]

    def _connect(self, state: State) -> None:
        """Takes the port of the QEMU that libvirt has just started; its guest is in that state."""
        connection, _ = self.listener.accept()
        self.channel = Channel(connection, state, self.patience)

    def _died(self, why: str) -> None:
        raise GuestGone(f"{self.name}: {why}\n{self.log_end()}")

    # libvirt's operations

    def create(self) -> None:
        """Starts it; it boots."""
        self.managed.create()
        self._connect(State())
        self._wait_ready()

    def destroy(self) -> None:
        """Ends its QEMU."""
        self.managed.destroy()
        self.channel.drain(30)

    def reset(self) -> None:
        """Has it boot again, in the same QEMU."""
        self.channel.state.ready = False
        self.managed.reset()
        self._wait_ready()

    def save(self, path: Path) -> SavedDomain:
        """Saves it, and ends its QEMU."""
        self.managed.save(str(path))
        return SavedDomain(path, self.channel.drain(30))

    def restore(self, saved: SavedDomain) -> None:
        """Starts another QEMU with what save() has saved."""
        self.libvirtd.connection.restore(str(saved.what))
        self._connect(saved.state)

    def managed_save(self) -> SavedDomain:
        """Saves it to where its next start finds it, and ends its QEMU."""
        self.managed.managedSave()
        return SavedDomain(None, self.channel.drain(30))

    def create_from(self, saved: SavedDomain) -> None:
        """Starts it with what managed_save() has saved."""
        self.managed.create()
        self._connect(saved.state)

    def take_snapshot(self) -> SavedDomain:
        """Takes a snapshot of its memory and its disk; it runs on."""
        snapshot = self.managed.snapshotCreateXML("<domainsnapshot/>")
        with self.channel.changed:
            return SavedDomain(snapshot, copy.deepcopy(self.channel.state))

    def revert(self, saved: SavedDomain) -> None:
        """Takes it back to a snapshot, in another QEMU."""
        self.managed.revertToSnapshot(saved.what)
        self._connect(saved.state)

    def migrate(self, other: Libvirtd, xml: str | None = None) -> None:
        """Moves it to another libvirtd while it runs; xml: its description there."""
        parameters = {libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{other.directory}/migration"}
        if xml:
            parameters[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = xml
        self.managed = self.managed.migrate3(
            other.connection, parameters, libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
            | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE)
        self.libvirtd = other
        self._connect(self.channel.drain(30))

    # The end

    def kill(self) -> None:
        with suppress(libvirt.libvirtError):
            self.managed.destroy()
        self.listener.close()

    def close(self) -> None:
        """Ends it, and fails on findings in its kernel's log."""
        self.kill()
        self.check_log()
