#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A service manager's end of sd_notify: manager.py SOCKET FILE.

Binds SOCKET (a path, or an abstract name after @) and adds a line to FILE for each datagram: the monotonic time in
microseconds, the sender's pid, and the assignments with " | " between them. Ends on TERM.
"""

import socket
import struct
import sys
import time

name, path = sys.argv[1:]
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
server.bind("\0" + name[1:] if name.startswith("@") else name)
with open(path, "a", buffering=1, encoding="utf-8") as log:
    log.write("0 0 bound\n")
    while True:
        text, ancillary, _, _ = server.recvmsg(8192, socket.CMSG_SPACE(12))
        pid = struct.unpack("iii", ancillary[0][2][:12])[0]
        assignments = " | ".join(text.decode("utf-8", "backslashreplace").splitlines())
        log.write(f"{time.monotonic_ns() // 1000} {pid} {assignments}\n")
