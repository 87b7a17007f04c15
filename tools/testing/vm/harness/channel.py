# SPDX-License-Identifier: GPL-2.0
"""The host's end of the agent's serial port: programs in the guest.

A thread reads the port. Every clone of a snapshot inherits the state of the guest's
programs, and the beginning of a message that the snapshot cut off.
"""
import copy
import fcntl
import re
import select
import socket
import sys
import termios
import threading
import time
from dataclasses import dataclass, field


class GuestGone(Exception):
    """The guest or its agent ended, or did not answer in time."""


@dataclass
class Job:
    """The host's record of one program in the guest."""
    script: str
    output: str = ""
    status: int | None = None


@dataclass
class State:
    """The state that clones inherit from their snapshot."""
    ready: bool = False
    buffer: bytes = b""
    jobs: dict[int, Job] = field(default_factory=dict)


def unread(connection: socket.socket) -> int:
    """The number of bytes that have arrived and were not read."""
    buffer = fcntl.ioctl(connection, termios.FIONREAD, bytes(4))
    return int.from_bytes(buffer, sys.byteorder)


class Channel:
    def __init__(self, connection: socket.socket, state: State | None, patience: float):
        self.connection = connection
        self.patience = patience
        self.state = copy.deepcopy(state) if state else State()
        self.changed = threading.Condition()
        self.closed = False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        arrival = select.poll()
        arrival.register(self.connection, select.POLLIN)
        while True:
            arrival.poll()
            with self.changed:
                try:
                    data = self.connection.recv(65536)
                except OSError:
                    data = b""
                self.state.buffer += data
                self._parse()
                self.closed = not data
                self.changed.notify_all()
                if self.closed:
                    self.connection.close()
                    return

    def _parse(self) -> None:
        state = self.state
        while b"\n" in state.buffer:
            line, rest = state.buffer.split(b"\n", 1)
            word, *numbers = line.decode("ascii", "replace").split()
            if word == "out":
                job, length = int(numbers[0]), int(numbers[1])
                if len(rest) < length:
                    return
                state.jobs[job].output += rest[:length].decode("utf-8", "replace")
                rest = rest[length:]
            elif word == "exit":
                state.jobs[int(numbers[0])].status = int(numbers[1])
            elif word == "ready":
                state.ready = True
            state.buffer = rest

    def wait(self, what: str, condition, seconds: float):
        """Waits until condition() is true, and returns its value.

        The time limit is for a stock kernel; slower kernels get more.
        """
        seconds *= self.patience
        deadline = time.monotonic() + seconds
        with self.changed:
            while not (result := condition()):
                if self.closed:
                    raise GuestGone(f"the guest ended while waiting for {what}")
                if not self.changed.wait(max(deadline - time.monotonic(), 0)):
                    raise GuestGone(f"the guest gave no {what} within {seconds:.0f} s")
            return result

    def drain(self, seconds: float) -> State:
        """Reads up to the guest's end, and returns the state for a snapshot."""
        self.reader.join(seconds)
        if self.reader.is_alive():
            raise GuestGone("the guest's port stayed open after its end")
        return self.state

    def copy_state(self) -> State:
        """All that was received up to now, of a port that stays when its guest ends."""
        with self.changed:
            while not self.closed and unread(self.connection):
                self.changed.wait()
            return copy.deepcopy(self.state)

    def set_state(self, state: State) -> None:
        """From now on the port is that of another guest."""
        with self.changed:
            self.state = copy.deepcopy(state)

    def send(self, message: bytes) -> None:
        try:
            self.connection.sendall(message)
        except OSError as error:
            raise GuestGone(f"the guest is gone ({error.strerror})") from None

    def start(self, script: str) -> "Program":
        with self.changed:
            job = len(self.state.jobs)
            self.state.jobs[job] = Job(script)
        code = script.encode()
        self.send(f"run {job} {len(code)}\n".encode() + code)
        return Program(self, job)


@dataclass(frozen=True)
class Program:
    """A program in a guest. Guest.program() returns its copy in a clone."""
    channel: Channel
    job: int

    @property
    def script(self) -> str:
        return self.channel.state.jobs[self.job].script

    @property
    def output(self) -> str:
        """The program's output so far, on stdout and stderr."""
        return self.channel.state.jobs[self.job].output

    @property
    def status(self) -> int | None:
        """The exit status, 128 + signal after a signal, or None while it runs."""
        return self.channel.state.jobs[self.job].status

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match:
        """Waits until the program's output matches a regular expression."""
        def seen():
            match = re.search(pattern, self.output, re.M)
            if not match and self.status is not None:
                raise AssertionError(f"`{self.script}` ended with {self.status} before it "
                                     f"printed {pattern!r}; its output:\n{self.output}")
            return match
        try:
            return self.channel.wait(f"{pattern!r} from `{self.script}`", seen, seconds)
        except GuestGone as gone:
            raise GuestGone(f"{gone}; its output:\n{self.output}") from None

    def wait(self, seconds: float = 30) -> int:
        """Waits for the program's end and returns its exit status."""
        self.channel.wait(f"end of `{self.script}`", lambda: self.status is not None, seconds)
        return self.status

    def kill(self, signal: int = 15) -> None:
        """Sends a signal to the program and all that it started."""
        self.channel.send(f"kill {self.job} {signal}\n".encode())
