# SPDX-License-Identifier: MIT
"""What the benchmarks share: a supervisor whose log is waited for, load with its records, and what the machine was doing.

Programs come from BUILD_DIR (build/), or one by one from HANDOFF_BIN, TS_BIN, LOAD_BIN, IDLE_BIN and DEMO_BIN.
"""
import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD_DIR = os.environ.get("BUILD_DIR", os.path.join(ROOT, "build"))
HANDOFF = os.environ.get("HANDOFF_BIN", os.path.join(BUILD_DIR, "handoff"))
TS = os.environ.get("TS_BIN", os.path.join(BUILD_DIR, "tests/servers/ts"))
LOAD = os.environ.get("LOAD_BIN", os.path.join(BUILD_DIR, "tests/bench/load"))
IDLE = os.environ.get("IDLE_BIN", os.path.join(BUILD_DIR, "tests/bench/idle"))

DEADLINE = 60
# What a manager or a shell of ours was given is not for the servers under test.
NOT_OURS = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NOTIFY_SOCKET", "JOURNAL_STREAM")
# "during a hand-off" lasts this long beyond the first answer of the new generation.
AFTER_ANSWER_NS = 300_000_000


class Failed(Exception):
    """Something that was waited for did not happen."""


def environment(**more):
    return {name: value for name, value in os.environ.items() if name not in NOT_OURS} | more


class Log:
    """The lines of a descriptor, read as they come, so that its writer never waits for us."""

    def __init__(self, stream):
        self.lines = []
        self.grown = threading.Condition()
        self.reader = threading.Thread(target=self.read, args=(stream,), daemon=True)
        self.reader.start()

    def read(self, stream):
        with stream:
            for line in stream:
                with self.grown:
                    self.lines.append(line.decode(errors="replace").rstrip("\n"))
                    self.grown.notify_all()

    def wait(self, pattern, unless=None, seconds=DEADLINE):
        """The first match of `pattern`; fails when `unless` matches first, or at the deadline."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self.grown:
            while True:
                for line in self.lines[seen:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                    if unless and re.search(unless, line):
                        raise Failed(line + "\n" + self.tail())
                seen = len(self.lines)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failed("not in the log within %d s: %s\n%s" % (seconds, pattern, self.tail()))
                self.grown.wait(left)

    def all(self, pattern):
        with self.grown:
            return [found for line in self.lines if (found := re.search(pattern, line))]

    def tail(self, count=20):
        return "\n".join("log: " + line for line in self.lines[-count:])


class Supervisor:
    """`handoff run` in the background, until generation 1 is active; stopped at the end of the `with`."""

    def __init__(self, *arguments, env=None):
        self.process = subprocess.Popen(
            [HANDOFF, "run", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env or environment(),
        )
        self.pid = self.process.pid
        self.generation = 1
        self.log = Log(self.process.stderr)

    def __enter__(self):
        try:
            self.log.wait(r"\[gen 1\] active", unless=r"\[gen 1\] (failed|gone)")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def address(self):
        """Where load finds it: the address that it holds."""
        held, family = self.log.wait(r"holding (\S+) \((tcp|unix),").groups()
        return "%s:%s" % (family, held)

    def ask(self):
        """Asks for a hand-off; the generation to wait for, and when it was asked (CLOCK_MONOTONIC)."""
        self.generation += 1
        asked_ns = time.monotonic_ns()
        os.kill(self.pid, signal.SIGUSR1)
        return self.generation, asked_ns

    def wait_handed_off(self):
        """Until the generation asked for is active and the one before has gone."""
        new, old = self.generation, self.generation - 1
        self.log.wait(r"\[gen %d\] active" % new, unless=r"\[gen %d\] .*(failed|killed)" % new)
        self.log.wait(r"\[gen %d\] gone" % old)

    def stop(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.log.reader.join(5)
        return self.process.returncode


class Load:
    """load in the background, every request recorded in `folder`; finish() ends it."""

    def __init__(self, target, folder, rate, keepalive, keepalive_rate, *more):
        self.records = os.path.join(folder, "records.csv")
        self.process = subprocess.Popen(
            [LOAD, "--target", target, "--duration", "1h", "--records", self.records]
            + ["--rate", str(rate), "--keepalive", str(keepalive), "--keepalive-rate", str(keepalive_rate), *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        # A TERM before it has taken over its signals would leave no report.
        line = self.process.stderr.readline()
        if not line.startswith(b"load: running"):
            raise Failed(line.decode(errors="replace"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def finish(self):
        """Its report."""
        self.process.terminate()
        text, complaints = self.process.communicate(timeout=DEADLINE)
        if self.process.returncode not in (0, 1):
            raise Failed("load: exit status %d: %s" % (self.process.returncode, complaints.decode(errors="replace")))
        return json.loads(text)

    def during(self, asked):
        """Latencies in ms, sorted: steady ones, and those during hand-offs.

        `asked`: (generation, when it was asked for) of each. During: any part of the time from the schedule to the last
        byte lies between a hand-off's signal and 300 ms after the first answer of the new generation.
        """
        with open(self.records, newline="") as file:
            good = [row for row in csv.DictReader(file) if row["result"] == "ok"]
        times = [(int(row["scheduled_ns"]), int(row["scheduled_ns"]) + int(row["latency_ns"])) for row in good]
        first = {}
        for (_, end), row in zip(times, good):
            generation = int(row["generation"])
            first[generation] = min(end, first.get(generation, end))
        missing = [str(generation) for generation, _ in asked if generation not in first]
        if missing:
            raise Failed("no answer of generation " + ", ".join(missing))
        windows = sorted((asked_ns, first[generation] + AFTER_ANSWER_NS) for generation, asked_ns in asked)
        steady, during = [], []
        for begin, end in times:
            inside = any(start <= end and begin <= stop for start, stop in windows)
            (during if inside else steady).append((end - begin) / 1e6)
        return sorted(steady), sorted(during)


FAILURES = ("refused", "reset", "empty", "truncated", "timeout", "wrong", "error")


def failures(report, kind):
    """What was lost, by kind of loss; empty where nothing was."""
    lost = {name: report[kind][name] for name in FAILURES}
    if kind == "keepalive":
        lost["reset_idle"] = report[kind]["reset_idle"]
    return {name: count for name, count in lost.items() if count}


def rank(ordered, part):
    """Nearest rank of a sorted list."""
    return ordered[max(0, int(part * len(ordered) + 0.999999) - 1)] if ordered else None


def distribution(times):
    ordered = sorted(times)
    names = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1))
    return {"count": len(ordered)} | {name: round(rank(ordered, part), 3) for name, part in names if ordered}


def median(times):
    ordered = sorted(times)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        return holder.getsockname()[1]


class Machine:
    """How busy the machine was beside us, from its start to text()."""

    def __init__(self):
        self.cpus = len(os.sched_getaffinity(0))
        self.load_before = os.getloadavg()[0]

    def measured(self):
        return {"cpus": self.cpus, "load_average": [round(self.load_before, 1), round(os.getloadavg()[0], 1)]}

    def text(self):
        # Before, since what comes later is our own load too.
        how = "busy with other work" if self.load_before > self.cpus / 4 else "idle before"
        return "%d cpus, load average %.1f before, %.1f after: the machine was %s" % (
            self.cpus,
            self.load_before,
            os.getloadavg()[0],
            how,
        )
