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

    def command(self, *lines: str) -> str:
        """Runs commands without a pause, and returns the last answer without the word OK."""
        self.connection.sendall("".join(f"{line}\n" for line in lines).encode())
        said = b""
        while said.count(b"\n") < len(lines):
            data = self.connection.recv(4096)
            if not data:
                raise host.SetupError(f"QEMU ended before it answered `{lines[-1]}`")
            said += data
        answers = said.decode().splitlines()
        assert all(answer.startswith("OK") for answer in answers), said
        return answers[-1].removeprefix("OK").strip()

    def write(self, address: int, data: bytes) -> None:
        self.command(f"write {address:#x} {len(data)} 0x{data.hex()}")

    def read(self, address: int, size: int) -> bytes:
        return bytes.fromhex(self.command(f"read {address:#x} {size}").removeprefix("0x"))

    def set_line(self, controller: str, number: int, *levels: int) -> None:
        """Sets a line into an interrupt controller, which QEMU knows by that path."""
        self.command(*(f"set_irq_in {controller} unnamed-gpio-in {number} {level}"
                       for level in levels))

    def close(self) -> None:
        self.connection.close()
