# SPDX-License-Identifier: GPL-2.0
"""Guests: a kernel booted by QEMU, its snapshots, and the snapshots' clones.

    with Guest(Options(kernel, image), logs) as guest:
        guest.load_modules()
        with guest.snapshot() as snap, snap.restore() as clone:
            assert clone.generation() == 1

Start guests from the main thread only: QEMU is killed when the thread that started it
ends.
"""
import fcntl
import os
import shlex
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import arm64, build, coverage, host, scan
from harness.channel import Channel, GuestGone, Program, State
from harness.kernels import Kernel
from harness.qmp import Qmp, QmpError
from harness.qtest import Qtest

KVM_GET_API_VERSION = 0xAE00
# The module that drives the counter.
BACKEND = "vm_generation_id"
# The driver where it is built in.
BUILT_IN = "/sys/bus/platform/drivers/vmgenid"
# A busy host may stop an emulated CPU for a while. The kernel must neither distrust its
# clock nor report a stall then; the tests' time limits find real hangs. The kernel's tests
# of its ciphers take a third of some kernels' boot. A ramfs, unlike tmpfs, may fill more
# than half of the memory.
APPEND = ("loglevel=8 panic=-1 no_timer_check tsc=reliable "
          "rcupdate.rcu_cpu_stall_timeout=200 watchdog_thresh=60 cryptomgr.notests "
          "rootfstype=ramfs")


# QEMU 7.2's TCG can leave an operand of cmpxchg16b in EFLAGS. An interrupt or a snapshot
# before the next arithmetic then kills the guest. The kernel's allocator would use it.
CPU = "max,-cx16"


@dataclass(frozen=True)
class Options:
    """A machine. A clone has the same options, except for guid (None: no device)."""
    kernel: Kernel
    image: Path
    guid: str | None = None
    smp: int = 1
    one_thread: bool = False    # with TCG, all CPUs run in one thread of QEMU
    memory: int = 0             # MiB; 0: the kernel's default
    cpu_flags: str = ""         # as in "-rdrand,-rdseed"
    append: str = ""            # to the kernel's command line
    acpi: Path | None = None    # a cpio with ACPI tables, before the image
    machine: str = "pc"
    firmware: Path | None = None
    devices: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()  # more arguments of QEMU
    disk: Path | None = None    # on NVMe, writable
    root: Path | None = None    # a file system on virtio, read-only
    network: bool = False       # QEMU's own, with DHCP; its packets go to a file
    gate: bool = False          # a port by which the guest reports whether it has settled
    qtest: bool = False         # the test plays the host, by Guest.qtest
    icount: bool = False        # a nanosecond is an instruction: runs are deterministic
    seconds: float = 300        # the time limit for the guest's life


def new_guid() -> str:
    return str(uuid.uuid4())


def accelerator() -> str:
    """Returns the accelerator that ACCEL= in the environment selects: tcg or kvm."""
    accel = os.environ.get("ACCEL", "tcg")
    if accel not in ("tcg", "kvm"):
        raise host.SetupError(f"ACCEL={accel} is unknown: choose tcg or kvm")
    if accel == "kvm":
        try:
            with open("/dev/kvm", "rb+", buffering=0) as kvm:
                fcntl.ioctl(kvm, KVM_GET_API_VERSION)
        except OSError as error:
            raise host.SetupError(f"ACCEL=kvm: /dev/kvm can't be used ({error.strerror}); "
                                  "without ACCEL, guests run slower") from None
    return accel


def packets_of(console: Path) -> Path:
    return console.with_suffix(".pcap")


def gate_of(console: Path) -> Path:
    """Returns the path of the gate's socket, in /tmp, as a socket's path must be short."""
    return Path(tempfile.gettempdir()) / f"sysgenid-{os.getpid()}-{console.stem}.gate"


def arguments(options: Options, initrd: Path, console: Path) -> list[str]:
    """Returns QEMU's command line, without its sockets."""
    kernel = options.kernel
    append = " ".join(filter(None, (APPEND, kernel.append, options.append)))
    accel = accelerator()
    if options.one_thread and accel == "tcg":
        accel += ",thread=single"
    if kernel.architecture == "arm64":
        argv = ["qemu-system-aarch64", *arm64.arguments(options, console.parent, console.stem),
                "-accel", "tcg", "-append", f"{append} {arm64.APPEND}",
                "-serial", "chardev:console", "-device", "pci-serial,chardev=agent"]
    else:
        argv = ["qemu-system-x86_64", "-machine", options.machine, "-accel", accel,
                "-cpu", ",".join(filter(None, (CPU, options.cpu_flags))),
                "-append", f"{append} console=ttyS0",
                "-serial", "chardev:console", "-serial", "chardev:agent"]
        if options.guid:
            argv += ["-device", f"vmgenid,guid={options.guid}"]
    argv = ["setpriv", "--pdeathsig", "KILL", *argv,
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-smp", str(options.smp), "-m", str(options.memory or kernel.memory),
            "-kernel", str(kernel.image), "-initrd", str(initrd),
            "-chardev", f"file,id=console,path={console}", "-mon", "chardev=qmp,mode=control"]
    if options.firmware:
        argv += ["-bios", str(options.firmware)]
    if options.network:
        argv += ["-netdev", "user,id=net,restrict=on",
                 "-device", "virtio-net-pci,netdev=net,romfile=", "-object",
                 f"filter-dump,id=packets,netdev=net,file={packets_of(console)}"]
    if options.gate:
        argv += ["-device", "virtio-serial", "-chardev",
                 f"socket,id=gate,path={gate_of(console)},server=on,wait=off", "-device",
                 "virtserialport,chardev=gate,name=org.sysgenid.gate"]
    if options.icount:
        argv += ["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm"]
    argv += options.settings
    for device in options.devices:
        argv += ["-device", device]
    if options.root:
        argv += ["-blockdev", "driver=raw,node-name=root,read-only=on,file.driver=file,"
                 f"file.filename={options.root}", "-device", "virtio-blk-pci,drive=root"]
    if options.disk:
        argv += ["-blockdev", "driver=raw,node-name=disk,file.driver=file,"
                 f"file.filename={options.disk}", "-device", "nvme,drive=disk,serial=disk"]
    return argv


class Guest:
    """A running guest. It has to be closed, best by `with`."""

    def __init__(self, options: Options, logs: Path, name: str = "guest",
                 snapshot: "Snapshot | Saved | Arrival | None" = None,
                 resumed: State | None = None):
        """Boots a guest, or restores it from a snapshot, or resumes it from its disk.

        resumed is the state of its programs when it hibernated, or was saved to a disk.
        """
        self.options = options
        self.logs = logs
        self.name = name
        self.console = logs / f"{name}.console"
        self.errors = logs / f"{name}.qemu"
        self.expected: list[str] = []
        self.children: list[Guest] = []
        self.silent = False     # no interrupt comes with a restore; device trees only
        self.hypervisor: arm64.Hypervisor | None = None
        self.qtest: Qtest | None = None
        self.process: subprocess.Popen | None = None
        self.qmp: Qmp | None = None
        self.patience = options.kernel.patience
        self.last_check = options.kernel.last_check
        logs.mkdir(parents=True, exist_ok=True)
        try:
            if snapshot or resumed:
                self._launch(snapshot, resumed)
                self.channel.state.ready = True
            else:
                self._boot()
        except BaseException:
            self.kill()
            raise

    def _boot(self) -> None:
        """Boots the guest; boots again if the kernel dies before its first process.

        Under TCG, one boot in some hundreds dies, mostly while the kernel patches its own
        code. The tested modules are not loaded before the first process.
        """
        self._launch(None, None)
        try:
            self._wait_ready()
        except GuestGone:
            log = self.log()
            if "Kernel panic" not in log or "Run /init as init process" in log:
                raise
            host.progress(f"{self.name}: the kernel died early in its boot; booting again")
            self._launch(None, None)
            self._wait_ready()

    def _launch(self, snapshot: "Snapshot | Saved | Arrival | None", resumed: State | None) -> None:
        agent, agent_end = socket.socketpair()
        monitor, monitor_end = socket.socketpair()
        argv = [*self._arguments(),
                "-chardev", f"socket,id=agent,fd={agent_end.fileno()}",
                "-chardev", f"socket,id=qmp,fd={monitor_end.fileno()}"]
        ends = [agent_end, monitor_end]
        test: socket.socket | None = None
        by_hand = self.options.guid and self.options.kernel.architecture == "arm64"
        if by_hand or self.options.qtest:
            test, test_end = socket.socketpair()
            ends.append(test_end)
            argv += ["-chardev", f"socket,id=qtest,fd={test_end.fileno()}",
                     "-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]
        if snapshot:
            argv += ["-incoming", "defer", "-S"]
        with open(self.errors, "wb") as errors, ExitStack() as passed:
            for end in ends:
                passed.enter_context(end)
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                pass_fds=[end.fileno() for end in ends])
        self.limit = threading.Timer(self.options.seconds * self.patience, self.process.kill)
        self.limit.daemon = True
        self.limit.start()
        self.channel = Channel(agent, snapshot.state if snapshot else resumed, self.patience)
        if test:
            self.qtest = Qtest(test)
        try:
            self.qmp = Qmp(monitor, 30)
            self.qmp.command("migrate-set-capabilities",
                             capabilities=[{"capability": "events", "state": True}])
            if by_hand:
                self.hypervisor = arm64.Hypervisor(self.qtest, self.qmp)
            if snapshot:
                self.qmp.command("migrate-incoming", uri=snapshot.uri)
        except QmpError as error:
            self._died(str(error))

    def _arguments(self) -> list[str]:
        """QEMU's arguments, except for the sockets."""
        return arguments(self.options, self._initrd(), self.console)

    def _initrd(self) -> Path:
        """Returns the image, preceded by the ACPI tables if there are any."""
        if not self.options.acpi:
            return self.options.image
        joined = self.logs / f"{self.name}.initrd"
        tables = self.options.acpi.read_bytes()
        joined.write_bytes(tables + b"\0" * (-len(tables) % 512)
                           + self.options.image.read_bytes())
        return joined

    def _wait_ready(self) -> None:
        try:
            self.channel.wait("sign of life", lambda: self.channel.state.ready, 90)
        except GuestGone as gone:
            self._died(str(gone))

    def _died(self, why: str) -> None:
        """Raises GuestGone with the known causes of an unexpected end."""
        with suppress(subprocess.TimeoutExpired):
            why += f"; QEMU ended with {self.process.wait(1)}"
        self.kill()
        said = self.errors.read_text(errors="replace").strip()
        why += f" and printed: {said}" if said else ""
        if accelerator() == "kvm":
            why += "; without ACCEL=kvm it may work"
        raise GuestGone(f"{self.name}: {why}\n{self.log_end()}")

    # Programs

    def start(self, script: str) -> Program:
        """Starts a shell script in the guest, and does not wait for its end."""
        return self.channel.start(script)

    def run(self, script: str, seconds: float = 30, check: bool = True) -> str:
        """Runs a shell script in the guest and returns what it printed."""
        program = self.start(script)
        status = program.wait(seconds)
        if check and status:
            raise AssertionError(f"{self.name}: `{script}` ended with {status}:\n{program.output}")
        return program.output

    def status(self, script: str, seconds: float = 30) -> int:
        """Runs a shell script in the guest and returns its exit status."""
        return self.start(script).wait(seconds)

    def program(self, other: Program) -> Program:
        """Returns this clone's copy of a program that was started before the snapshot."""
        return Program(self.channel, other.job)

    def load_backend(self) -> None:
        if self.options.kernel.built_in:
            self.run(f"cat /run/device > {BUILT_IN}/bind")
        else:
            self.run(f"insmod /modules/{BACKEND}.ko")

    def unload_backend(self) -> None:
        """Unloads or unbinds the driver, which first handles pending events."""
        if self.options.kernel.built_in:
            self.run(f"cd {BUILT_IN} && dirname */driver > /run/device && cat /run/device > unbind")
        else:
            self.run(f"rmmod {BACKEND}")

    def load_modules(self) -> None:
        """Loads both drivers, unless they are built in."""
        if not self.options.kernel.built_in:
            self.run("insmod /modules/sysgenid.ko")
            self.load_backend()

    def unload_modules(self) -> None:
        self.unload_backend()
        self.run("rmmod sysgenid")

    def generation(self) -> int:
        return int(self.run("cat /sys/class/misc/sysgenid/generation"))

    # Snapshots

    def snapshot(self, path: Path | None = None) -> "Snapshot":
        """Stops the guest, saves it (to a file of that name, if given), and ends it."""
        return Snapshot(self, path)

    def migrate(self, guid: str | None = None) -> "Guest":
        """Moves the running guest over a socket to another QEMU, by default with its GUID.

        The other QEMU is a child of this guest. The guest does not stop before QEMU itself
        stops it, for the last part of its memory.
        """
        options = replace(self.options, guid=guid or self.options.guid)
        target = Guest(options, self.logs, f"{self.name}-{len(self.children) + 1}",
                       Arrival("tcp:127.0.0.1:0"))
        self.children.append(target)
        [address] = target.qmp.command("query-migrate")["socket-address"]
        target.channel.set_state(
            self.leave(f"tcp:{address['host']}:{address['port']}", running=True))
        go(target)
        return target

    def leave(self, uri: str, running: bool = False) -> State:
        """Sends the guest to a URI, ends this QEMU, and returns the state of its programs."""
        try:
            if not running:
                self.qmp.command("stop")
            self.qmp.command("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            self.qmp.command("migrate", uri=uri)
            self._wait_sent()
            self.qmp.command("quit")
            self.process.wait(30)
        except (QmpError, subprocess.TimeoutExpired) as error:
            self._died(f"not sent: {error}")
        state = self.channel.drain(30)
        self.close()
        return state

    def _wait_sent(self) -> None:
        while True:
            event = self.qmp.wait_event("MIGRATION", 60 * self.patience)
            if event["data"]["status"] == "completed":
                return
            if event["data"]["status"] == "failed":
                free = os.statvfs(self.logs)
                full = " (the disk is full)" if free.f_bavail * free.f_frsize < 1 << 20 else ""
                raise QmpError(f"QEMU could not write it{full}")

    # The log

    def expect(self, pattern: str) -> None:
        """Accepts lines of the kernel's log that match the pattern."""
        self.expected.append(pattern)

    def log(self) -> str:
        return self.console.read_text(errors="replace")

    def packets(self) -> bytes:
        """Returns all network packets since the guest's start or restore."""
        return packets_of(self.console).read_bytes()

    @property
    def gate(self) -> Path:
        """The path of the host's end of the gate."""
        return gate_of(self.console)

    def log_end(self, lines: int = 40) -> str:
        end = self.log().splitlines()[-lines:] if self.console.exists() else []
        return "\n".join([f"---- end of {self.console}", *end, "----"])

    # The end

    def family(self) -> Iterator["Guest"]:
        """Yields the guest, its clones, and their clones."""
        yield self
        for child in self.children:
            yield from child.family()

    def kill(self) -> None:
        """Ends QEMU at once."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.limit.cancel()
        if self.qmp:
            self.qmp.close()
        if self.qtest:
            self.qtest.close()
        self.gate.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends the guest, and fails on findings in its kernel's log."""
        last = ""
        kernel = self.options.kernel
        if self.process.poll() is None and kernel.counts_lines:
            coverage.save(self, build.directory(kernel))
        if self.process.poll() is None and self.last_check:
            last = self.run(self.last_check)
        self.kill()
        if last:
            with self.console.open("a", encoding="utf-8") as log:
                log.write(last)
        self.check_log()

    def check_log(self) -> None:
        """Fails on findings in the kernel's log."""
        found = scan.findings(self.log(), self.expected)
        if found:
            raise AssertionError(f"{self.name}: {len(found)} findings in the kernel's log, "
                                 f"the first: {found[0]}\n{self.log_end()}")

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind:
            self.kill()
        else:
            self.close()


def reading(path: Path | str) -> str:
    """Returns the URI from which QEMU reads a saved guest."""
    return f"exec:cat {shlex.quote(str(path))}"


@dataclass(frozen=True)
class Saved:
    """A saved guest, in a file that outlives the process, for Guest() to restore."""
    path: Path
    state: State

    @property
    def uri(self) -> str:
        return reading(self.path)


@dataclass(frozen=True)
class Arrival:
    """A guest that comes from another QEMU; its programs' state becomes known with it."""
    uri: str
    state: State = field(default_factory=State)


class Snapshot:
    """A saved guest, from which any number of clones can be restored."""

    def __init__(self, guest: Guest, path: Path | None = None):
        self.guest = guest
        self.options = guest.options
        self.file = open(path, "wb") if path else tempfile.TemporaryFile(dir=guest.logs)
        self.path = f"/proc/{os.getpid()}/fd/{self.file.fileno()}"
        self.state: State = guest.leave(f"exec:cat > {self.path}")

    @property
    def uri(self) -> str:
        return reading(self.path)

    @property
    def size(self) -> int:
        """The size of the snapshot's file in bytes."""
        return os.fstat(self.file.fileno()).st_size

    def launch(self, guid: str | None = None) -> Guest:
        """Starts a clone, and leaves it stopped before its first instruction.

        go() lets one or several launched clones run. Only the first clone does the slow
        checks at its end.
        """
        options = replace(self.options, guid=guid or (self.options.guid and new_guid()))
        children = self.guest.children
        children.append(Guest(options, self.guest.logs,
                              f"{self.guest.name}-{len(children) + 1}", self))
        children[-1].silent = self.guest.silent
        if len(children) > 1:
            children[-1].last_check = ""
        return children[-1]

    def restore(self, guid: str | None = None) -> Guest:
        """Starts a clone with that GUID, by default a new one."""
        clone = self.launch(guid)
        go(clone)
        return clone

    @contextmanager
    def restore_all(self, *guids: str) -> Iterator[list[Guest]]:
        """Yields clones with those GUIDs, which run at the same time."""
        clones = [self.launch(guid) for guid in guids]
        try:
            go(*clones)
            yield clones
        except BaseException:
            for clone in clones:
                clone.kill()
            raise
        for clone in clones:
            clone.close()

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()


def go(*clones: Guest) -> None:
    """Waits until launched clones are loaded, then lets them run."""
    for clone in clones:
        try:
            clone.qmp.wait_event("MIGRATION", 60 * clone.patience, status="completed")
        except QmpError as error:
            clone._died(f"no restore: {error}")
    for clone in clones:
        if clone.hypervisor:
            clone.hypervisor.set_guid(clone.options.guid)
            if not clone.silent:
                clone.hypervisor.interrupt()
    for clone in clones:
        clone.qmp.command("cont")
