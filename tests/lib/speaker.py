#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A server that speaks the readiness protocols as it is told to: speaker.py STEP...

Steps, in order; TEXT has Python's escapes:
  pipe=TEXT notify=TEXT   to HANDOFF_READY_FD, to NOTIFY_SOCKET
  child-notify=TEXT       from a child in the same group, which ends at once
  detached-notify=TEXT    from a child in a session of its own, whose parent is gone, and which stays
  main                    a child tells the drain signal it gets ("main got N"), and MAINPID= names it
  barrier                 BARRIER=1 with a descriptor, as systemd-notify(1) does, and waits until that is closed
  signal=N                to the parent
  close                   the ready pipe
  nap=MS                  as slow a start as that
  gate=FIFO               waits for a line from there
  say=TEXT                to stderr
  exit=N
After the last step it waits for INT or TERM, and exits with 0.
"""

import os
import signal
import socket
import sys
import time


def notify(text, descriptors=()):
    path = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.connect(path)
        socket.send_fds(speaker, [text], descriptors)


def pause_for_ever():
    while True:
        signal.pause()


def notify_from_child(text, detached):
    child = os.fork()
    if child > 0:
        os.waitpid(child, 0)
        return
    if detached:
        if os.fork() > 0:
            os._exit(0)
        os.setsid()
        # Only then it is the supervisor's child.
        while os.getppid() == int(os.environ["SPEAKER_PID"]) or not is_orphan():
            time.sleep(0.001)
    notify(text)
    if detached:
        pause_for_ever()
    os._exit(0)


def is_orphan():
    with open("/proc/%s/stat" % os.environ["SPEAKER_PID"], encoding="ascii") as stat:
        return os.getppid() == int(stat.read().rpartition(")")[2].split()[1])


def tell_signal(number, _):
    os.write(2, b"main got %d\n" % number)
    os._exit(0)


def be_main():
    child = os.fork()
    if child == 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, tell_signal)
        notify(b"MAINPID=%d" % os.getpid())
        pause_for_ever()


def barrier():
    reader, writer = os.pipe()
    notify(b"BARRIER=1", [writer])
    os.close(writer)
    os.read(reader, 1)


def leave(*_):
    os._exit(0)


def take(step):
    name, _, text = step.partition("=")
    data = text.encode().decode("unicode_escape").encode("latin-1")
    if name == "pipe":
        os.write(int(os.environ["HANDOFF_READY_FD"]), data)
    elif name == "notify":
        notify(data)
    elif name in ("child-notify", "detached-notify"):
        notify_from_child(data, name == "detached-notify")
    elif name == "main":
        be_main()
    elif name == "barrier":
        barrier()
    elif name == "signal":
        os.kill(os.getppid(), int(text))
    elif name == "close":
        os.close(int(os.environ["HANDOFF_READY_FD"]))
    elif name == "nap":
        time.sleep(int(text) / 1000)
    elif name == "gate":
        with open(text, "rb") as gate:
            gate.readline()
    elif name == "say":
        os.write(2, data + b"\n")
    elif name == "exit":
        os._exit(int(text))
    else:
        sys.exit("speaker: no step " + step)


signal.signal(signal.SIGINT, leave)
signal.signal(signal.SIGTERM, leave)
os.environ["SPEAKER_PID"] = str(os.getpid())
for step in sys.argv[1:]:
    take(step)
pause_for_ever()
