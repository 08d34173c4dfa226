# SPDX-License-Identifier: MIT
"""A client of the control socket at $CONTROL that can be as rude as a test needs it."""

import json
import os
import socket
import time

SECONDS = int(os.environ.get("WAIT_SECONDS", "20"))


class Client:
    def __init__(self, path=None):
        self.socket = socket.socket(socket.AF_UNIX)
        # With a timeout it would not wait where the backlog is full.
        self.socket.connect(path or os.environ["CONTROL"])
        self.socket.settimeout(SECONDS)
        self.buffer = b""
        self.events = []

    def send(self, message):
        """An object as a line, bytes as they are."""
        self.socket.sendall(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def line(self):
        """The next object; None at the end."""
        while b"\n" not in self.buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self.buffer, self.buffer
                return None
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(text)

    def result(self):
        """The next result; the events before it are kept."""
        while True:
            message = self.line()
            if message is None or "result" in message:
                return message
            self.events.append(message)

    def ask(self, message):
        self.send(message)
        return self.result()

    def until(self, event):
        """The events up to one of that name."""
        seen = []
        while not seen or seen[-1]["event"] != event:
            seen.append(self.line())
        return seen

    def close(self):
        self.socket.close()


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def equal(actual, expected):
    assert actual == expected, f"expected {expected!r}, got {actual!r}"
