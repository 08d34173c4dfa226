#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Starts a server as a supervisor would, so that the test servers can be tested without one.

parent.py [--generations N] blocking|nonblocking COMMAND...

Binds a loopback port, prints "address HOST:PORT", passes the listener as fd 3 and a ready pipe as fd 4, and prints
"ready [WORDS]" when a newline comes. One generation (number 7) is this very process, by exec. With --generations, N of
them follow one another, each drained with INT when the next one is ready; "drained N WORST", where WORST is the highest
exit status seen, ends that, and the last one is drained on TERM.
"""

import os
import signal
import socket
import sys

READY_FD = 4


def say(*words):
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def read_ready(pipe):
    text = b""
    while not text.endswith(b"\n"):
        part = os.read(pipe, 1)
        if not part:
            return None
        text += part
    os.close(pipe)
    return text.decode().split()


def become(listener, pipe, generation, command):
    # Out of the way first: either may have the other's number.
    high_listener, high_pipe = os.dup(listener), os.dup(pipe)
    while high_listener <= READY_FD:
        high_listener = os.dup(high_listener)
    while high_pipe <= READY_FD:
        high_pipe = os.dup(high_pipe)
    os.dup2(high_listener, 3, inheritable=True)
    os.dup2(high_pipe, READY_FD, inheritable=True)
    os.closerange(READY_FD + 1, 64)
    # Python ignores it, and that would be inherited.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    environment = dict(
        os.environ,
        LISTEN_FDS="1",
        LISTEN_PID=str(os.getpid()),
        HANDOFF_GENERATION=str(generation),
        HANDOFF_READY_FD=str(READY_FD),
    )
    os.execvpe(command[0], command, environment)


def start(listener, generation, command):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.close(reader)
        become(listener, writer, generation, command)
    os.close(writer)
    words = read_ready(reader)
    if words is None:
        sys.exit(f"generation {generation} was never ready")
    return pid, words


def drain(pid):
    os.kill(pid, signal.SIGINT)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def supervise(listener, generations, command):
    # A TERM waits until it is asked for, below.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    active, words = start(listener, 1, command)
    say("ready", *words)
    # Not before the first keep-alive clients are there.
    signal.sigtimedwait([signal.SIGTERM], 0.4)
    worst = 0
    for generation in range(2, generations + 1):
        following, _ = start(listener, generation, command)
        worst = max(worst, abs(drain(active)))
        active = following
        signal.sigtimedwait([signal.SIGTERM], 0.03)
    say("drained", generations, worst)
    signal.sigwait([signal.SIGTERM])
    sys.exit(abs(drain(active)))


def be_one(listener, command):
    reader, writer = os.pipe()
    if os.fork() == 0:
        # The reader's parent is gone at once, so it is no child of the server.
        if os.fork() == 0:
            os.close(writer)
            listener.close()
            words = read_ready(reader)
            if words is not None:
                say("ready", *words)
        os._exit(0)
    os.wait()
    become(listener.fileno(), writer, 7, command)


def main():
    arguments = sys.argv[1:]
    generations = 0
    if arguments[0] == "--generations":
        generations = int(arguments[1])
        arguments = arguments[2:]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    os.set_blocking(listener.fileno(), arguments[0] == "blocking")
    say("address", "%s:%d" % listener.getsockname())
    if generations:
        supervise(listener.fileno(), generations, arguments[1:])
    be_one(listener, arguments[1:])


main()
