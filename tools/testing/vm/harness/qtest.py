# SPDX-License-Identifier: GPL-2.0
"""A client of QEMU's test interface, by which a test plays the hypervisor.

It accesses guest memory and sets interrupt lines while the guest runs or is stopped: see
docs/devel/testing/qtest.rst of QEMU.
"""
import socket

from harness import host


class Qtest:
    def __init__(self, connection: socket.socket):
        self.connection = connection

    def command(self, line: str) -> str:
        """Runs a command and returns its answer, without the word OK."""
        self.connection.sendall(f"{line}\n".encode())
        said = b""
        while not said.endswith(b"\n"):
            data = self.connection.recv(4096)
            if not data:
                raise host.SetupError(f"QEMU ended before it answered `{line}`")
            said += data
        word, _, answer = said.decode().strip().partition(" ")
        assert word == "OK", said
        return answer

    def write(self, address: int, data: bytes) -> None:
        self.command(f"write {address:#x} {len(data)} 0x{data.hex()}")

    def read(self, address: int, size: int) -> bytes:
        return bytes.fromhex(self.command(f"read {address:#x} {size}").removeprefix("0x"))

    def set_line(self, controller: str, number: int, level: int) -> None:
        """Sets a line into an interrupt controller, which QEMU knows by that path."""
        self.command(f"set_irq_in {controller} unnamed-gpio-in {number} {level}")

    def close(self) -> None:
        self.connection.close()
