#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Under a process manager: what we tell it and when, the pid file, and the log as journal and machines read it.
# shellcheck disable=SC2016,SC2030,SC2031,SC2153,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	TOLD="$BATS_TEST_TMPDIR/told"
	SERVER="$BATS_TEST_TMPDIR/server"
	PID_FILE="$BATS_TEST_TMPDIR/web.pid"
}

teardown() {
	stop_all
}

# start_manager SOCKET: listens there, and we are started with NOTIFY_SOCKET. It is no survivor of ours at a stop.
start_manager() {
	start_background "$BATS_TEST_TMPDIR/manager.log" env -u TEST_OF_HANDOFF python3 "$BATS_TEST_DIRNAME/../lib/manager.py" "$1" "$TOLD"
	wait_log bound 1 "$TOLD"
	export NOTIFY_SOCKET=$1
}

abstract() {
	echo "@handoff-test-$TEST_OF_HANDOFF"
}

# What the manager was told, one datagram a line, without the time; MONOTONIC_USEC without its value.
told() {
	sed -e 1d -e 's/^[0-9]* [0-9]* //' -e 's/\(MONOTONIC_USEC=\)[0-9]\+$/\1/' "$TOLD"
}

told_has() {
	log_has "$1" "${2:-1}" "$TOLD"
}

# start_managed OPTIONS... -- COMMAND...: until generation 1 is active.
start_managed() {
	start_serving --settle 20ms "$@"
}

# The server runs what is in $SERVER: a good one now.
good_server() {
	write_script "$SERVER" <<-'END'
		exec "$TS_BIN" "$@"
	END
}

bad_server() {
	write_script "$SERVER" <<-'END'
		exit 9
	END
}

# Start, a good hand-off, a failed one, a good one, a stop: the manager hears exactly this.
whole_life() {
	start_manager "$1"
	good_server
	start_managed -n web -- "$SERVER"
	hand_off 2
	wait_log '\[gen 1\] gone'
	bad_server
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 3\] gone'
	good_server
	hand_off 4
	stop_gracefully
	wait_for told_has 'STATUS=Stopping'
	assert_equal "$(told | sed 's/ after [0-9.]* m\?s,/ after T,/')" "$(
		cat <<-'END'
			STATUS=Starting
			READY=1
			STATUS=Generation 1 serves
			RELOADING=1 | MONOTONIC_USEC=
			STATUS=Generation 1 serves, generation 2 is starting
			READY=1
			STATUS=Generation 2 serves
			RELOADING=1 | MONOTONIC_USEC=
			STATUS=Generation 2 serves, generation 3 is starting
			READY=1
			STATUS=Generation 2 serves; generation 3 failed: exited with status 9 after T, before it was ready
			RELOADING=1 | MONOTONIC_USEC=
			STATUS=Generation 2 serves, generation 4 is starting
			READY=1
			STATUS=Generation 4 serves
			STOPPING=1
			STATUS=Stopping
		END
	)"
	# All of it from the one pid that the manager knows.
	assert_equal "$(sed 1d "$TOLD" | cut -d' ' -f2 | sort -u)" "$HANDOFF_PID"
}

@test "the manager hears of start, good and failed hand-offs and stop, in order, from our pid: socket path" {
	whole_life "$BATS_TEST_TMPDIR/notify"
}

@test "the manager hears of start, good and failed hand-offs and stop, in order, from our pid: abstract socket" {
	whole_life "$(abstract)"
}

@test "MONOTONIC_USEC is the time at which the hand-off began" {
	local before after value
	start_manager "$(abstract)"
	start_managed -- "$TS_BIN" --slow-boot 300
	before=$(monotonic_us)
	hand_off 2
	after=$(sed -n 's/^\([0-9]*\) .* RELOADING=1 .*/\1/p' "$TOLD")
	value=$(sed -n 's/.*MONOTONIC_USEC=//p' "$TOLD")
	((before <= value && value <= after))
	stop_gracefully
}

monotonic_us() {
	python3 -c 'import time; print(time.monotonic_ns() // 1000)' 3>&-
}

@test "READY=1 does not come before the server is ready, and a bad first start says none" {
	start_manager "$(abstract)"
	run -9 "$HANDOFF_BIN" run -- sh -c 'exit 9' 3>&-
	wait_for told_has 'STATUS=Starting'
	refute told_has READY=1
	start_handoff -l 127.0.0.1:0 -- "$TS_BIN" --never-ready
	wait_log '\[gen 1\] started'
	wait_for told_has 'STATUS=Starting' 2
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	wait_for told_has STOPPING=1
	refute told_has READY=1
}

@test "a server that dies is told of, and so is the one that is started again" {
	start_manager "$(abstract)"
	start_managed --restart-delay 10ms -- "$TS_BIN"
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 2\] active'
	wait_for told_has 'STATUS=Generation 2 serves$'
	told_has 'STATUS=Nobody serves: connections wait in the queue'
	refute told_has STOPPING=1
	stop_gracefully
}

@test "a server's own messages end at us: the manager hears none of them" {
	start_manager "$(abstract)"
	cat >"$SERVER" <<-'END'
		import os, signal, socket, sys
		path = os.environ["NOTIFY_SOCKET"]
		def say(text):
		    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
		        sender.sendto(text.encode(), "\0" + path[1:])
		signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
		say(f"MAINPID={os.getpid()}\nSTATUS=secret\nERRNO=5\nBUSERROR=x\nWATCHDOG=1\nWATCHDOG_USEC=7\nFDSTORE=1")
		say("READY=1\nSTATUS=secret")
		signal.sigwait([signal.SIGINT, signal.SIGTERM])
		say("STOPPING=1\nSTATUS=secret")
		say("RELOADING=1")
	END
	start_managed -- python3 "$SERVER"
	hand_off 2
	wait_log '\[gen 1\] gone'
	refute told_has STOPPING=1
	stop_gracefully
	wait_for told_has STATUS=Stopping
	assert_equal "$(sed 1d "$TOLD" | cut -d' ' -f2 | sort -u)" "$HANDOFF_PID"
	assert_equal "$(told | grep -vE '^(READY=1|STOPPING=1|RELOADING=1 \| MONOTONIC_USEC=|STATUS=(Starting|Stopping|Generation [12] serves.*))$')" ''
	assert_equal "$(told | grep -c STOPPING)" 1
	assert_equal "$(told | grep -c READY)" 2
}

@test "a server that asks for more time to start gets it from the manager too, but not later" {
	start_manager "$(abstract)"
	cat >"$SERVER" <<-'END'
		import os, signal, socket
		path = os.environ["NOTIFY_SOCKET"]
		sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		sender.connect("\0" + path[1:])
		signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
		sender.send(b"EXTEND_TIMEOUT_USEC=70000000")
		sender.send(b"READY=1")
		signal.sigwait([signal.SIGINT, signal.SIGTERM])
	END
	start_managed -- python3 "$SERVER"
	hand_off 2
	wait_log '\[gen 1\] gone'
	stop_gracefully
	assert_equal "$(told | grep -c '^EXTEND_TIMEOUT_USEC=70000000$')" 1
}

# start_watched USEC COMMAND...: with WATCHDOG_USEC and a WATCHDOG_PID that is ours, or $WATCHED.
start_watched() {
	local usec=$1
	shift
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" sh -c 'export WATCHDOG_USEC=$1 WATCHDOG_PID=${2:-$$}; shift 2; exec "$@"' sh \
		"$usec" "${WATCHED:-}" "$HANDOFF_BIN" run -l 127.0.0.1:0 --settle 20ms "$@"
	HANDOFF_PID=$STARTED_PID
}

# The longest time between two feeds, in milliseconds, from the first to the last datagram.
longest_gap() {
	sed 1d "$TOLD" | awk 'NR == 1 || / WATCHDOG=1$/ { if (NR > 1 && $1 - last > gap) gap = $1 - last; last = $1 }
		END { if ($1 - last > gap) gap = $1 - last; print int(gap / 1000) }'
}

@test "the watchdog is fed all the time, also while a server takes 5 s to start, and during a hand-off" {
	start_manager "$(abstract)"
	good_server
	start_watched 3000000 -- "$SERVER" --slow-boot 5000
	wait_log '\[gen 1\] active'
	assert_equal "$(told | sed '/READY=1/q' | grep -c '^WATCHDOG=1$')" 3
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] active'
	stop_gracefully
	# Fed at half of the time; the whole of it is when a manager loses patience.
	(($(longest_gap) < 3000))
	(($(told | grep -c '^WATCHDOG=1$') >= 6))
}

@test "a watchdog that is somebody else's is not fed" {
	start_manager "$(abstract)"
	WATCHED=1 start_watched 100000 -- "$TS_BIN"
	wait_log '\[gen 1\] active'
	hand_off 2
	wait_log '\[gen 1\] gone'
	stop_gracefully
	assert_equal "$(told | grep -c WATCHDOG)" 0
}

switches() {
	sed -n 's/^\(non\)\?voluntary_ctxt_switches:\s*//p' "/proc/$HANDOFF_PID/status" | tr '\n' ' '
}

# Nothing is left of the start.
quiet() {
	local before
	before=$(switches)
	sleep 0.3
	[[ $(switches) == "$before" ]]
}

@test "without a watchdog there is no wake-up in 10 s, though a manager listens" {
	local before
	start_manager "$(abstract)"
	start_managed -- "$TS_BIN"
	hand_off 2
	wait_log '\[gen 1\] gone'
	wait_for quiet
	before=$(switches)
	sleep 10
	assert_equal "$(switches)" "$before"
	stop_gracefully
}

@test "a manager whose socket is full or gone stops nothing" {
	start_manager "$(abstract)"
	local manager=$STARTED_PID generation
	start_managed -- "$TS_BIN"
	kill -STOP "$manager"
	for generation in {2..12}; do
		hand_off "$generation"
	done
	kill -KILL "$manager"
	wait_exit "$manager"
	hand_off 13
	wait_log '\[gen 12\] gone'
	stop_gracefully
}

@test "a manager that cannot be reached is one warning" {
	NOTIFY_SOCKET=relative/path start_managed -- "$TS_BIN"
	wait_log 'warning: NOTIFY_SOCKET=relative/path is neither a path nor an abstract socket'
	hand_off 2
	stop_gracefully
}

@test "under a manager one line says that TERM stops at once, unless --signal TERM= was given" {
	start_manager "$(abstract)"
	start_managed -- "$TS_BIN"
	log_has 'under a manager: TERM stops at once .* KillSignal=SIGINT .*--signal TERM=stop' 1
	stop_gracefully
	start_managed --signal TERM=stop -- "$TS_BIN"
	refute log_has 'TERM stops at once' 1
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	log_has 'draining: SIGINT' 1
	unset NOTIFY_SOCKET
	start_managed -- "$TS_BIN"
	refute log_has 'TERM stops at once' 1
	stop_gracefully
}

# --- s6 ---

# start_s6 OPTIONS... -- COMMAND...: fd 7 is a pipe; what comes out of it is in $TOLD, and READER_PID ends with it.
start_s6() {
	mkfifo "$BATS_TEST_TMPDIR/fifo"
	start_background "$TOLD" cat "$BATS_TEST_TMPDIR/fifo"
	READER_PID=$STARTED_PID
	start_background "$HANDOFF_LOG" bash -c 'exec 7>"$0"; exec "$@"' "$BATS_TEST_TMPDIR/fifo" \
		"$HANDOFF_BIN" run -l 127.0.0.1:0 --settle 20ms --notify-fd 7 "$@"
	HANDOFF_PID=$STARTED_PID
}

@test "--notify-fd gets one newline, when the first generation is active, and is closed" {
	start_s6 -- "$TS_BIN" --slow-boot 300
	wait_log '\[gen 1\] started'
	assert_equal "$(wc -c <"$TOLD")" 0
	wait_log '\[gen 1\] active'
	wait_exit "$READER_PID"
	hand_off 2
	assert_equal "$(od -An -c <"$TOLD" | tr -d ' ')" '\n'
	refute [ -e "/proc/$HANDOFF_PID/fd/7" ]
	refute [ -e "/proc/$(pid_of 2)/fd/7" ]
	stop_gracefully
}

@test "--notify-fd gets nothing when the first start fails" {
	start_s6 -- sh -c 'exit 9'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 9
	wait_exit "$READER_PID"
	assert_equal "$(wc -c <"$TOLD")" 0
}

@test "--notify-fd that is not open, or is a standard stream, is refused" {
	run -125 "$HANDOFF_BIN" run --notify-fd 77 -- "$TS_BIN" 3>&-
	assert_output 'handoff: ts: error: --notify-fd: descriptor 77 is not open'
	run -125 "$HANDOFF_BIN" run --notify-fd 2 -- "$TS_BIN" 3>&-
	assert_equal "${#lines[@]}" 1
}

@test "--notify-fd whose reader is gone stops nothing" {
	start_background "$HANDOFF_LOG" bash -c 'exec 7> >(:); wait $!; exec "$@"' bash \
		"$HANDOFF_BIN" run -l 127.0.0.1:0 --settle 20ms --notify-fd 7 -- "$TS_BIN"
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	hand_off 2
	stop_gracefully
}

# --- The pid file ---

@test "the pid file holds our pid, stays the same file over hand-offs, and goes at the stop" {
	local inode
	start_managed --pid-file "$PID_FILE" -- "$TS_BIN"
	assert_equal "$(cat "$PID_FILE")" "$HANDOFF_PID"
	assert_equal "$(stat -c %a "$PID_FILE")" 644
	inode=$(stat -c %i "$PID_FILE")
	hand_off 2
	assert_equal "$(stat -c %i "$PID_FILE") $(cat "$PID_FILE")" "$inode $HANDOFF_PID"
	stop_gracefully
	assert_equal "$(find "$BATS_TEST_TMPDIR" -name 'web.pid*')" ''
}

@test "the pid file is never seen empty" {
	local number
	# Another process, which looks all the time.
	start_background "$TOLD" python3 -c '
import sys
empty = seen = 0
print("looking", flush=True)
while True:
    try:
        text = open(sys.argv[1]).read()
    except FileNotFoundError:
        continue
    if text == "end\n":
        break
    seen += 1
    empty += not (text.endswith("\n") and text.strip().isdigit())
print("empty", empty, "seen", min(seen, 1), flush=True)
' "$PID_FILE"
	wait_log looking 1 "$TOLD"
	local reader=$STARTED_PID
	for number in {1..15}; do
		start_handoff --pid-file "$PID_FILE" --ready now --settle 0 -- sleep 600
		wait_log '\[gen 1\] active'
		kill -TERM "$HANDOFF_PID"
		wait_exit "$HANDOFF_PID"
		# Moved into place: a redirection would itself leave the file empty for an instant.
		((number % 3)) || { echo 4194000 >"$PID_FILE.new" && mv "$PID_FILE.new" "$PID_FILE"; }
	done
	echo end >"$PID_FILE.new"
	mv "$PID_FILE.new" "$PID_FILE"
	wait_exit "$reader"
	run tail -n 1 "$TOLD"
	assert_output 'empty 0 seen 1'
}

@test "a second start with the same pid file is refused and names the pid, whatever it would listen on" {
	start_managed --pid-file "$PID_FILE" -- "$TS_BIN"
	run -125 "$HANDOFF_BIN" run -l 127.0.0.1:0 --pid-file "$PID_FILE" -- "$TS_BIN" 3>&-
	assert_output --regexp "^handoff: ts(-[0-9]+)?: error: pid file $PID_FILE belongs to a running process, pid $HANDOFF_PID\$"
	run -125 "$HANDOFF_BIN" check --pid-file "$PID_FILE" -- "$TS_BIN" 3>&-
	assert_output --regexp "^handoff: ts(-[0-9]+)?: error: pid file $PID_FILE belongs to a running process, pid $HANDOFF_PID\$"
	assert_equal "$(cat "$PID_FILE")" "$HANDOFF_PID"
	stop_gracefully
}

@test "a stale pid file is replaced, also one whose number is a living stranger's" {
	echo 4194000 >"$PID_FILE"
	start_managed --pid-file "$PID_FILE" -- "$TS_BIN"
	assert_equal "$(cat "$PID_FILE")" "$HANDOFF_PID"
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	kill -KILL "$(pid_of 1)"
	# Left behind by a crash; its number has been given to somebody else since.
	echo "$$" >"$PID_FILE"
	start_managed --pid-file "$PID_FILE" -- "$TS_BIN"
	assert_equal "$(cat "$PID_FILE")" "$HANDOFF_PID"
	stop_gracefully
}

@test "a server that outlives us does not keep the pid file locked" {
	start_managed --pid-file "$PID_FILE" -- "$TS_BIN"
	local server
	server=$(pid_of 1)
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	start_managed --pid-file "$PID_FILE" -- "$TS_BIN"
	assert_equal "$(cat "$PID_FILE")" "$HANDOFF_PID"
	kill -KILL "$server"
	wait_gone "$server"
	stop_gracefully
}

@test "what is no pid file is left alone, and the start is refused" {
	echo 'precious text' >"$PID_FILE"
	run -125 "$HANDOFF_BIN" run --pid-file "$PID_FILE" -- "$TS_BIN" 3>&-
	assert_output "handoff: ts: error: pid file $PID_FILE holds something other than a pid, and is left alone"
	assert_equal "$(cat "$PID_FILE")" 'precious text'
	rm "$PID_FILE"
	echo 4194000 >"$BATS_TEST_TMPDIR/target"
	ln -s target "$PID_FILE"
	run -125 "$HANDOFF_BIN" run --pid-file "$PID_FILE" -- "$TS_BIN" 3>&-
	assert_output "handoff: ts: error: pid file $PID_FILE is not a regular file, and is left alone"
	assert_equal "$(cat "$BATS_TEST_TMPDIR/target")" 4194000
}

@test "a pid file that somebody else has put there meanwhile is left to them at our stop" {
	start_managed --pid-file "$PID_FILE" -- "$TS_BIN"
	echo 4194000 >"$PID_FILE.new"
	mv "$PID_FILE.new" "$PID_FILE"
	stop_gracefully
	assert_equal "$(cat "$PID_FILE")" 4194000
}

@test "a relative pid file is removed from where it was made" {
	cd "$BATS_TEST_TMPDIR"
	start_managed --pid-file web.pid --chdir / -- "$TS_BIN"
	cd /
	assert_equal "$(cat "$PID_FILE")" "$HANDOFF_PID"
	stop_gracefully
	refute [ -e "$PID_FILE" ]
}

@test "the pid file is gone when the first start has failed" {
	run -9 "$HANDOFF_BIN" run --pid-file "$PID_FILE" -- sh -c 'exit 9' 3>&-
	refute [ -e "$PID_FILE" ]
	run -125 "$HANDOFF_BIN" run --pid-file "$PID_FILE" -l 192.0.2.1:1 -- "$TS_BIN" 3>&-
	refute [ -e "$PID_FILE" ]
}

# --- The log ---

@test "where JOURNAL_STREAM names our stderr, each line has its priority" {
	: >"$HANDOFF_LOG"
	good_server
	JOURNAL_STREAM=$(stat -c '%d:%i' "$HANDOFF_LOG") start_managed -n web -- "$SERVER"
	bad_server
	kill -USR1 "$HANDOFF_PID"
	wait_log '^<3>handoff: web: \[gen 2\] error: failed to start: '
	kill -KILL "$(pid_of 1)"
	wait_log '^<4>handoff: web: \[gen 1\] warning: died unasked: was killed by SIGKILL'
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	log_has '^<6>handoff: web: \[gen 1\] active' 1
	refute grep -v '^<[346]>handoff: web: ' "$HANDOFF_LOG"
}

@test "where JOURNAL_STREAM names something else, no line has a priority" {
	JOURNAL_STREAM=1:1 start_managed -- "$TS_BIN"
	stop_gracefully
	refute grep -v '^handoff: ts: ' "$HANDOFF_LOG"
}

@test "a JSON log has one object a line with time, level, name, message and generation, whatever stands in them" {
	SERVER="$BATS_TEST_TMPDIR/"$'a "b" \\ \xff\xe4 \u00e4 \n c'
	good_server
	start_handoff -l 127.0.0.1:0 --log-format json -n web -- "$SERVER"
	wait_log '"generation":1,.*"message":"active'
	bad_server
	kill -USR1 "$HANDOFF_PID"
	wait_log '"level":"error"'
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	run python3 - "$HANDOFF_LOG" 3>&- <<-'END'
		import datetime, json, sys
		levels, generations, started = set(), set(), set()
		for line in open(sys.argv[1], encoding="utf-8"):
		    entry = json.loads(line)
		    keys = set(entry) - {"generation"}
		    assert keys == {"time", "level", "name", "message"}, entry
		    datetime.datetime.strptime(entry["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
		    levels.add(entry["level"])
		    generations.add(entry.get("generation", 0))
		    assert entry["name"] == "web", entry
		    if entry["message"].startswith("started"):
		        started.add(entry["message"].split("/")[-1].split(" (pid")[0])
		assert levels == {"info", "error"}, levels
		assert generations == {0, 1, 2}, generations
		print(*started)
	END
	assert_success
	assert_output 'a "b" \ \xff\xe4 ä \x0a c'
	run jq -e .message "$HANDOFF_LOG"
	assert_success
}

@test "a start error is JSON too where that was asked for, and a priority goes before no JSON" {
	: >"$HANDOFF_LOG"
	JOURNAL_STREAM=$(stat -c '%d:%i' "$HANDOFF_LOG") \
		start_handoff -l 192.0.2.1:1 --log-format json -- "$TS_BIN"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 125
	assert_equal "$(json_value "$HANDOFF_LOG" level)" error
	assert_regex "$(json_value "$HANDOFF_LOG" message)" '^cannot listen on 192.0.2.1:1: '
}

@test "--log-level error says nothing in a good life, and debug says more" {
	start_handoff -l 127.0.0.1:0 --log-level error --pid-file "$PID_FILE" -- "$TS_BIN"
	wait_for test -s "$PID_FILE"
	kill -USR1 "$HANDOFF_PID"
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS $(cat "$HANDOFF_LOG")" '0 '
	start_managed --log-level debug -- "$TS_BIN"
	log_has 'event ready, generation 1' 1
	stop_gracefully
}
