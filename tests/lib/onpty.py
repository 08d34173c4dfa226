#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a command on a terminal of its own, as a person at that terminal would: onpty.py ORDERS COMMAND...

The command leads a session whose controlling terminal is new; "onpty: pid N" names it. What it writes comes out here,
without carriage returns. ORDERS is a FIFO that is read line by line: "type TEXT" (Python's escapes: \\x03 is Ctrl-C)
and "hang-up", which takes the terminal away. The exit status is the command's, 128+N for a signal.
"""

import fcntl
import os
import select
import sys
import termios


def obey(line, terminal):
    order, _, text = line.partition(" ")
    if order == "type":
        os.write(terminal[0], text.encode().decode("unicode_escape").encode("latin-1"))
    else:
        while terminal:
            os.close(terminal.pop())


def become(command, master, slave):
    os.close(master)
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(slave, fd)
    os.close(slave)
    os.execvp(command[0], command)


def main():
    master, slave = os.openpty()
    pid = os.fork()
    if pid == 0:
        become(sys.argv[2:], master, slave)
    # Open for both, so that it never ends when a writer closes it.
    orders = os.open(sys.argv[1], os.O_RDWR)
    # Our own copy of the other end keeps the terminal where the command does not write to it.
    terminal = [master, slave]
    ended = os.pidfd_open(pid)
    os.write(1, b"onpty: pid %d\n" % pid)
    text = ""
    while True:
        ready, _, _ = select.select([ended, orders] + terminal[:1], [], [])
        if terminal and master in ready:
            os.write(1, os.read(master, 65536).replace(b"\r", b""))
        elif ended in ready:
            break
        elif orders in ready:
            text += os.read(orders, 4096).decode()
            while "\n" in text:
                line, _, text = text.partition("\n")
                obey(line, terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.exit(status if status >= 0 else 128 - status)


main()
