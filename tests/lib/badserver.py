#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A server that treats every connection in one wrong (or merely rare) way: badserver.py BEHAVIOUR [ARGUMENT].

Binds a loopback port, prints "address HOST:PORT", and ends on TERM.
"""

import os
import socket
import struct
import sys
import threading
import time

BODY = b"gen=7 pid=1 fd=3\n"


def answer(body=BODY, status="200 OK", connection="keep-alive", length=None):
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length or len(body)}\r\nConnection: {connection}\r\n\r\n"
    return head.encode() + body


def requests(client):
    """Yields once a request, until the client closes."""
    text = b""
    while True:
        while b"\r\n\r\n" not in text:
            part = client.recv(4096)
            if not part:
                return
            text += part
        text = text.split(b"\r\n\r\n", 1)[1]
        yield


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def one_answer(text):
    def behave(client):
        next(requests(client), None)
        client.sendall(text)

    return behave


def every_answer(text):
    def behave(client):
        for _ in requests(client):
            client.sendall(text)

    return behave


def be_reset(client):
    next(requests(client), None)
    reset(client)


def be_reset_late(client):
    next(requests(client), None)
    client.sendall(answer()[:40])
    # Only a reset that comes after the bytes were read is one in the middle.
    time.sleep(0.05)
    reset(client)


def be_silent(client):
    for _ in requests(client):
        pass


def be_empty_on_second(client):
    for number, _ in enumerate(requests(client)):
        if number == 1:
            return
        client.sendall(answer())


def be_resetting_idle(client):
    next(requests(client), None)
    client.sendall(answer())
    time.sleep(0.02)
    reset(client)


def be_stalled(client):
    for _ in requests(client):
        time.sleep(max(0, stalled_until - time.monotonic()))
        client.sendall(answer())


def chunked(end):
    return (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(BODY) + BODY + b"\r\n" + end
    )


BEHAVIOURS = {
    "reset": be_reset,
    "reset-late": be_reset_late,
    "empty": one_answer(b""),
    "truncated": one_answer(answer(length=len(BODY) + 1)),
    "chunked-truncated": one_answer(chunked(b"")),
    "silent": be_silent,
    "status-503": every_answer(answer(status="503 Busy")),
    "no-generation": every_answer(answer(body=b"hello\n")),
    "empty-on-second": be_empty_on_second,
    "says-close": one_answer(answer(connection="close")),
    "closes-idle": one_answer(answer()),
    "resets-idle": be_resetting_idle,
    "chunked": every_answer(chunked(b"0\r\n\r\n")),
    "until-close": one_answer(b"HTTP/1.1 200 OK\r\n\r\n" + BODY),
    "stall": be_stalled,
}


def serve(client, behave):
    try:
        behave(client)
    except OSError:
        pass  # the client gave up, which is its part of some tests
    client.close()


def never_accept(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)
    filler = socket.socket(socket.AF_UNIX)
    filler.connect(path)
    os.write(1, b"address " + path.encode() + b"\n")
    threading.Event().wait()


if sys.argv[1] == "never-accept-unix":
    never_accept(sys.argv[2])
stalled_until = time.monotonic()
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(4096)
os.write(1, ("address %s:%d\n" % listener.getsockname()).encode())
first = True
while True:
    client, _ = listener.accept()
    if first and sys.argv[1] == "stall":
        stalled_until = time.monotonic() + int(sys.argv[2]) / 1000
    first = False
    threading.Thread(target=serve, args=(client, BEHAVIOURS[sys.argv[1]]), daemon=True).start()
