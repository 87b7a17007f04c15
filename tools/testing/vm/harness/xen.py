# SPDX-License-Identifier: GPL-2.0
"""Xen as the host: a machine that runs it, and HVM domains inside that machine.

    with Xen(kernels, logs) as xen:
        with xen.create(kernel) as domain:
            domain.load_modules()
            with domain.save() as saved, saved.restore() as clone:
                assert clone.generation() == 1

QEMU emulates the machine with AMD's virtualization, so that no /dev/kvm is needed.
One domain runs at a time. Its two serial ports are devices of the machine, so that
the tests talk to a domain as they do to a guest of QEMU.
"""
import gzip
import os
import socket
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness import build, nested, required
from harness.channel import Channel, GuestGone, Program, State
from harness.guest import APPEND, Guest, Options
from harness.initramfs import Image
from harness.kernels import Kernel

INCLUDED = ("busybox", "kmod", "qemu-system-xen", "xen-hypervisor-4.17-amd64", "xen-utils-4.17",
            "xenstore-utils")
HYPERVISOR = "./boot/xen-4.17-amd64.gz"
# In MiB: of the machine, of Xen's first domain (which keeps the saved ones), of each other.
MEMORY, MEMORY_OF_DOM0, MEMORY_OF_DOMAIN = 3584, 2304, 192
# MiB that the machine's image takes.
SPACE = 512
# With QEMU's "max", Xen's first domain panics.
CPU = "qemu64"
# A domain is that much slower than a guest of this machine.
PATIENCE = 5
DRIVERS = ("xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs")
# A console at a higher level would take longer than all the rest of a domain's start.
APPEND_OF_DOMAIN = f"{APPEND} loglevel=5 random.trust_cpu=off random.trust_bootloader=off console=ttyS0"
CONFIGURATION = """
name = "{name}"
type = "hvm"
memory = {memory}
vcpus = 1
ms_vm_genid = "generate"
kernel = "/domains/{kernel}/vmlinuz"
ramdisk = "/domains/{kernel}/initramfs"
cmdline = "{append}"
serial = ["{console}", "{port}"]
vga = "none"
vnc = 0
on_reboot = "destroy"
on_crash = "destroy"
"""
# The programs of the tests that domains have: all of them are slow to load.
PROGRAMS = ("draw_random", "map_hardware", "stale_window", "wait_generation")
DOMAIN = "guest"
# A domain's serial ports lose what arrives while their driver resumes. This says when
# user code runs again, which is later.
PULSE = "while sleep 1; do echo pulse; done"


def extract_hypervisor(base: Path, path: Path) -> Path:
    """Xen itself, as QEMU loads it."""
    with tarfile.open(base) as tar:
        path.write_bytes(gzip.decompress(tar.extractfile(HYPERVISOR).read()))
    return path


def make_image_of_domain(kernel: Kernel) -> Image:
    """The initramfs of a domain: small, as its firmware is slow to load it."""
    image = Image().basics(build.agent(kernel), kernel.busybox)
    for module in build.built_modules(kernel):
        if module.stem in ("sysgenid", "vm_generation_id"):
            image.file(f"modules/{module.name}", module)
    for program in build.programs(kernel):
        if program.name in PROGRAMS:
            image.file(f"test/{program.name}", program)
    return image


def make_image(kernel: Kernel, domains: list[Kernel], directory: Path) -> Path:
    """The initramfs of Xen's first domain, with all that other domains start from."""
    image = nested.new_image(kernel, DRIVERS)
    for domain in domains:
        made = make_image_of_domain(domain).write(directory / f"{domain.name}.cpio")
        image.file(f"files/domains/{domain.name}/vmlinuz", domain.image)
        image.file(f"files/domains/{domain.name}/initramfs", gzip.compress(made.read_bytes()))
        made.unlink()
    return image.write(directory / "xen.cpio")


class Xen(Guest):
    """The machine that runs Xen. Its programs are those of Xen's first domain."""

    def __init__(self, kernel: Kernel, domains: list[Kernel], logs: Path):
        """A machine whose first domain has that kernel; the others are for domains."""
        logs.mkdir(parents=True, exist_ok=True)
        required.space(logs, SPACE)
        nested.require(CPU)
        base, disk = nested.make_disk("xen", INCLUDED)
        self.xen_image = extract_hypervisor(base, logs / "xen")
        self.port = Path(tempfile.gettempdir()) / f"sysgenid-{os.getpid()}-xen.domain"
        self.domain_console = logs / "domain.console"
        options = Options(replace(kernel, patience=nested.PATIENCE),
                          make_image(kernel, domains, logs), root=disk, smp=2,
                          memory=MEMORY, seconds=3600)
        super().__init__(options, logs, "xen")
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.port))
        self.run("/etc/init.d/xen start", 60)
        self.domain_channel = Channel(connection, None, PATIENCE)

    def _arguments(self) -> list[str]:
        kernel = self.options.kernel
        return [
            *nested.arguments(self, CPU), "-kernel", str(self.xen_image), "-append",
            f"console=com1 dom0_mem={MEMORY_OF_DOM0}M,max:{MEMORY_OF_DOM0}M noreboot", "-initrd",
            f"{kernel.image} {nested.APPEND_OF_HOST} console=hvc0,{self.options.image}",
            "-chardev", f"file,id=domain-console,path={self.domain_console}",
            "-chardev", f"socket,id=domain,path={self.port},server=on,wait=off",
            "-device", "pci-serial-2x,chardev1=domain-console,chardev2=domain"]

    def kill(self) -> None:
        super().kill()
        self.port.unlink(missing_ok=True)

    def configure(self, name: str) -> str:
        """Writes a domain's configuration, and returns its path."""
        # The kernel numbers its ports: the device's two are the console and the agent's.
        console, port = self.run("ls -d /sys/bus/pci/drivers/serial/*/tty/ttyS*").split()
        text = CONFIGURATION.format(
            name=DOMAIN, memory=MEMORY_OF_DOMAIN, kernel=name, append=APPEND_OF_DOMAIN,
            console=f"/dev/{Path(console).name}", port=f"/dev/{Path(port).name}")
        path = f"/run/{name}.cfg"
        self.run(f"cat > {path} << 'END'{text}END")
        return path

    def create(self, kernel: Kernel) -> "Domain":
        """Starts a domain, and waits until it takes commands."""
        domain = Domain(self, Options(kernel, self.options.image), State())
        self.run(f"xl create {domain.configuration}", 120)
        domain._wait_ready()
        domain.pulse = domain.start(PULSE)
        return domain


class Domain(Guest):
    """A domain that runs, or is about to."""

    def __init__(self, xen: Xen, options: Options, state: State):
        self.xen = xen
        self.options = options
        self.name = DOMAIN
        self.logs = xen.logs
        self.console = xen.domain_console
        self.expected: list[str] = []
        self.patience = PATIENCE
        self.configuration = xen.configure(options.kernel.name)
        self.before = len(super().log())
        self.channel = xen.domain_channel
        self.channel.set_state(state)
        self.pulse: Program | None = None
        xen.children.append(self)

    def _wait_resumed(self) -> None:
        """Waits until user code runs after a resume: one pulse may be from before it."""
        pulses = len(self.pulse.output)
        self.channel.wait("pulse", lambda: len(self.pulse.output) > pulses + len("pulse\n"), 60)

    def _wait_ready(self) -> None:
        try:
            self.channel.wait("sign of life", lambda: self.channel.state.ready, 90)
        except GuestGone as gone:
            raise GuestGone(f"{self.name}: {gone}\n{self.log_end()}") from None

    def save(self) -> "Save":
        """Saves the domain, which ends with that."""
        return Save(self)

    def save_in_place(self) -> None:
        """Saves the domain, which goes on as if that had failed."""
        self.xen.run(f"xl save -c {self.name} /run/copy && rm /run/copy", 180)
        self._wait_resumed()

    def migrate(self) -> None:
        """Migrates the domain while it runs, to the host that it is on."""
        self.xen.run(f"xl migrate -s '' {self.name} 'xl migrate-receive'", 300)
        self._wait_resumed()

    def log(self) -> str:
        return super().log()[self.before:]

    def kill(self) -> None:
        with suppress(GuestGone):
            self.xen.run(f"xl destroy {self.name}", 60, check=False)

    def close(self) -> None:
        self.kill()
        self.check_log()


class Save:
    """A saved domain, from which any number of clones can be restored, one after another."""

    def __init__(self, domain: Domain):
        self.xen = domain.xen
        self.options = domain.options
        self.path = f"/run/{len(self.xen.children)}.save"
        self.xen.run(f"xl save {domain.name} {self.path}", 180)
        self.state = domain.channel.copy_state()
        self.pulse = domain.pulse

    def restore(self, configured: bool = True) -> Domain:
        """Restores it, with its configuration, which gives a new GUID, or without."""
        domain = Domain(self.xen, self.options, self.state)
        self.xen.run(f"xl restore {domain.configuration if configured else ''} {self.path}", 180)
        domain.pulse = self.pulse
        domain._wait_resumed()
        return domain

    def __enter__(self) -> "Save":
        return self

    def __exit__(self, *_) -> None:
        self.xen.run(f"rm {self.path}")
