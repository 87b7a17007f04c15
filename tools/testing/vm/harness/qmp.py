# SPDX-License-Identifier: GPL-2.0
"""A client of the QEMU Machine Protocol (QMP): commands and events."""
import json
import socket
import time


class QmpError(Exception):
    """QEMU refused a command, did not answer in time, or is gone."""


class Qmp:
    def __init__(self, connection: socket.socket, seconds: float):
        self.connection = connection
        self.buffer = b""
        self.events: list[dict] = []
        self._receive(time.monotonic() + seconds)
        self.command("qmp_capabilities")

    def _receive(self, deadline: float) -> dict:
        while b"\n" not in self.buffer:
            self.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.connection.recv(65536)
            except TimeoutError:
                raise QmpError("QEMU did not answer in time") from None
            except OSError as error:
                raise QmpError(f"QEMU is gone ({error.strerror})") from None
            if not data:
                raise QmpError("QEMU is gone")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def command(self, name: str, seconds: float = 60, **arguments) -> dict:
        """Runs a command and returns its answer; keeps events that come meanwhile."""
        message = {"execute": name, "arguments": arguments}
        try:
            self.connection.sendall(json.dumps(message).encode())
        except OSError as error:
            raise QmpError(f"QEMU is gone ({error.strerror})") from None
        deadline = time.monotonic() + seconds
        while True:
            answer = self._receive(deadline)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(f"{name}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def close(self) -> None:
        self.connection.close()

    def wait_event(self, name: str, seconds: float, **data) -> dict:
        """Waits for an event with that data; an earlier, unread event counts."""
        deadline = time.monotonic() + seconds
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return event
            answer = self._receive(deadline)
            if "event" in answer:
                self.events.append(answer)
