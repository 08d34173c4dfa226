#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# --capture: the server's stderr goes through a relay, which loses no line, blocks nobody, and ends when the server does.
# shellcheck disable=SC2016,SC2030,SC2031,SC2153,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	SERVER="$BATS_TEST_TMPDIR/server"
	orphans=()
}

teardown() {
	local pid
	for pid in "${orphans[@]}"; do
		kill -KILL "$pid" 2>/dev/null || true
	done
	stop_all
}

# start_captured OPTIONS... -- COMMAND...: on TCP, until generation 1 is active; the relay's pid in RELAY.
start_captured() {
	start_serving --settle 20ms --capture "$@"
	RELAY=$(relay_pid)
	assert [ -n "$RELAY" ]
}

# The child that calls itself so in ps.
relay_pid() {
	local pid
	for pid in $(children_of "$HANDOFF_PID"); do
		if [[ $(ps -o args= -p "$pid") == 'handoff: capture relay'* ]]; then
			echo "$pid"
		fi
	done
}

# stop_captured: as stop_gracefully, and the relay is gone. It is looked for by its pid, since it has no environment any
# more that could be read.
stop_captured() {
	stop_gracefully
	is_gone "$RELAY"
}

# A server that also writes "tick N GENERATION" to stderr all the time, from a loop in its group.
ticking_server() {
	write_script "$SERVER" <<-'END'
		env --default-signal=INT sh -c '
			while :; do
				tick=$((tick + 1))
				echo "tick $tick $HANDOFF_GENERATION" >&2
				sleep 0.01
			done' &
		exec "$TS_BIN"
	END
}

# How many lines of the log are ticks of that generation.
ticks() {
	grep -c "^tick [0-9]* $1\$" "$HANDOFF_LOG" || true
}

# ticks_beyond COUNT GENERATION: more than that many by now.
ticks_beyond() {
	(($(ticks "$2") > $1))
}

@test "without --capture the server's fd 1 and 2 are the very files that we were given" {
	start_serving -- "$TS_BIN"
	assert_equal "$(stat -Lc '%d:%i' "/proc/$(pid_of 1)/fd/2")" "$(stat -c '%d:%i' "$HANDOFF_LOG")"
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 1)"
	stop_gracefully
}

@test "with --capture fd 2 is a pipe of each generation, fd 1 is still ours, and lines reach our stderr" {
	local generation first
	write_script "$SERVER" <<-'END'
		echo "on stdout $HANDOFF_GENERATION"
		echo "on stderr $HANDOFF_GENERATION" >&2
		printf 'no newline %s' "$HANDOFF_GENERATION" >&2
		exec "$TS_BIN"
	END
	start_captured -- "$SERVER"
	for generation in 1 2; do
		wait_log "^on stdout $generation\$"
		wait_log "^on stderr $generation\$"
		assert_regex "$(readlink "/proc/$(pid_of "$generation")/fd/2")" '^pipe:'
		assert_equal "$(readlink "/proc/$(pid_of "$generation")/fd/1")" "$HANDOFF_LOG"
		if ((generation == 1)); then
			first=$(readlink "/proc/$(pid_of 1)/fd/2")
			hand_off 2
		fi
	done
	refute [ "$(readlink "/proc/$(pid_of 2)/fd/2")" = "$first" ]
	# What has no newline comes when its writer is gone, and not in the middle of another line.
	wait_log '^no newline 1'
	stop_captured
	log_has '^no newline 2' 1
}

@test "what a server says when it fails is there before the next start can be, to the last word" {
	write_script "$SERVER" <<-'END'
		[ "$HANDOFF_GENERATION" != 1 ] || exec "$TS_BIN"
		seq -f "last words %g of $HANDOFF_GENERATION" 2000 >&2
		printf 'the very last' >&2
		exit 9
	END
	start_captured -- "$SERVER"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] gone'
	wait_log 'the very last'
	assert_equal "$(grep -c '^last words [0-9]* of 2$' "$HANDOFF_LOG")" 2000
	stop_captured
	# A first start that fails takes the words along too, with its exit.
	run -9 env HANDOFF_GENERATION=1 "$HANDOFF_BIN" run --capture -- sh -c 'seq 5000 >&2; echo done >&2; exit 9' 3>&-
	assert_equal "$(grep -cE '^[0-9]+$' <<<"$output")" 5000
	assert_line 'done'
}

@test "lines of two generations that write at once, in pieces, stay whole" {
	cat >"$BATS_TEST_TMPDIR/writer.py" <<-'END'
		import os, sys, threading, time
		me = os.environ["HANDOFF_GENERATION"]
		def write():
		    for number in range(1500):
		        size = 3900 if number % 50 == 0 else number % 120
		        line = f"<{me} {number} {me * size}>\n"
		        cut = number % len(line)
		        os.write(2, line[:cut].encode())
		        os.write(2, line[cut:].encode())
		        if number % 10 == 0:
		            time.sleep(0.001)
		    open(sys.argv[1] + me, "w").close()
		if os.fork() == 0:
		    write()
		    os._exit(0)
		os.execv(os.environ["TS_BIN"], ["ts"])
	END
	# Ends of our own lines come between theirs, hence the pipe: a reader sees what comes out, in order.
	start_captured --drain-to main -- python3 "$BATS_TEST_TMPDIR/writer.py" "$BATS_TEST_TMPDIR/done"
	kill -USR1 "$HANDOFF_PID"
	wait_for test -e "$BATS_TEST_TMPDIR/done1"
	wait_for test -e "$BATS_TEST_TMPDIR/done2"
	wait_log '\[gen 1\] gone'
	stop_captured
	run python3 - "$HANDOFF_LOG" 3>&- <<-'END'
		import re, sys
		seen = {"1": [], "2": []}
		for line in open(sys.argv[1]):
		    if line.startswith("handoff: "):
		        continue
		    match = re.fullmatch(r"<([12]) (\d+) (\1*)>\n", line)
		    assert match, line[:100]
		    number = int(match[2])
		    assert len(match[3]) == (3900 if number % 50 == 0 else number % 120), line[:100]
		    seen[match[1]].append(number)
		for numbers in seen.values():
		    assert numbers == list(range(1500)), numbers
	END
	assert_success
}

# start_unread OPTIONS... -- COMMAND...: our stderr is a pipe that somebody holds and does not read; the log is nowhere.
start_unread() {
	PORT=$(free_port)
	URL="http://127.0.0.1:$PORT"
	FIFO="$BATS_TEST_TMPDIR/fifo"
	mkfifo "$FIFO"
	start_background /dev/null env -u TEST_OF_HANDOFF sh -c 'exec sleep 600 <"$0"' "$FIFO"
	HOLDER=$STARTED_PID
	start_background /dev/null sh -c 'exec 2>"$0"; exec "$@"' "$FIFO" \
		"$HANDOFF_BIN" run -l "127.0.0.1:$PORT" --settle 20ms --pid-file "$BATS_TEST_TMPDIR/pid" "$@"
	HANDOFF_PID=$STARTED_PID
	wait_for generation_is 1 "$URL/"
}

# Nothing more fits into our stderr.
stderr_is_full() {
	python3 -c '
import os, select, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)
sys.exit(bool(select.select([], [fd], [], 0)[1]))
' "$FIFO" 3>&-
}

# A server that fills its stderr for ever, from a process of its own.
noisy_server() {
	write_script "$SERVER" <<-'END'
		env --default-signal=INT yes "noise of $HANDOFF_GENERATION, which nobody reads" >&2 &
		exec "$TS_BIN"
	END
}

@test "a full stderr blocks neither us nor a quiet server: hand-offs, failures and stops go on" {
	local generation
	noisy_server
	start_unread --capture --ready-timeout 1s -- "$SERVER"
	RELAY=$(relay_pid)
	wait_for stderr_is_full
	for generation in 2 3 4; do
		kill -USR1 "$HANDOFF_PID"
		wait_for generation_is "$generation" "$URL/"
	done
	# Its signals are still answered by what they mean.
	kill -USR2 "$HANDOFF_PID"
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	refute [ -e "$BATS_TEST_TMPDIR/pid" ]
	# The relay still has lines for who may come to read them; it ends when it has written them, or nobody can.
	kill -KILL "$HOLDER"
	wait_exit "$HOLDER"
	wait_gone "$RELAY"
}

@test "when a full stderr is read again, no line is missing, and the log says how many of ours were dropped" {
	write_script "$SERVER" <<-'END'
		[ "$HANDOFF_GENERATION" != 1 ] || seq -f 'noise %.0f, which nobody reads yet' 20000 >&2 &
		exec "$TS_BIN"
	END
	start_unread --capture -- "$SERVER"
	wait_for stderr_is_full
	kill -USR1 "$HANDOFF_PID"
	wait_for generation_is 2 "$URL/"
	# From here on somebody reads.
	start_background "$HANDOFF_LOG" sh -c 'exec cat <"$0"' "$FIFO"
	local reader=$STARTED_PID
	wait_log '^noise 20000,'
	assert_equal "$(sed -n 's/^noise \([0-9]*\), which nobody reads yet$/\1/p' "$HANDOFF_LOG")" "$(seq 20000)"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 3\] active'
	wait_log 'warning: [0-9]+ log lines were dropped: stderr was full'
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	kill -KILL "$HOLDER"
	# With every writer gone the reader comes to the end: the relay is gone too.
	wait_exit "$reader"
}

@test "a relay that is killed is replaced: the server gets no SIGPIPE, and its lines come again" {
	local before ticker old
	ticking_server
	start_captured -- "$SERVER"
	ticker=$(children_of "$(pid_of 1)")
	for _ in 1 2 3; do
		wait_for ticks_beyond 3 1
		before=$(ticks 1)
		old=$RELAY
		kill -KILL "$RELAY"
		wait_gone "$RELAY"
		wait_for ticks_beyond $((before + 5)) 1
		RELAY=$(relay_pid)
		refute [ "$RELAY" = "$old" ]
	done
	# The same processes as before; and what comes later is captured too.
	refute is_gone "$ticker"
	assert_equal "$(gen_of "$URL/")" 1
	hand_off 2
	wait_for ticks_beyond 3 2
	wait_log '\[gen 1\] gone'
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	stop_captured
}

@test "the relay survives what is sent to everybody: INT, TERM, HUP, QUIT and PIPE" {
	local signal before
	ticking_server
	start_captured -- "$SERVER"
	for signal in INT TERM HUP QUIT PIPE USR1 USR2; do
		kill -"$signal" "$RELAY"
	done
	before=$(ticks 1)
	wait_for ticks_beyond $((before + 5)) 1
	assert_equal "$(relay_pid)" "$RELAY"
	# It leads a session of its own, which no terminal reaches.
	assert_equal "$(ps -o sid= -p "$RELAY" | tr -d ' ')" "$RELAY"
	stop_captured
}

@test "when we are killed with SIGKILL, the server's lines still come, and the relay ends with the server" {
	local before server ticker
	ticking_server
	start_captured -- "$SERVER"
	server=$(pid_of 1)
	ticker=$(children_of "$server")
	orphans=("$server" "$ticker" "$RELAY")
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	before=$(ticks 1)
	wait_for ticks_beyond $((before + 10)) 1
	assert_equal "$(gen_of "$URL/")" 1
	refute is_gone "$RELAY"
	kill -INT "$server"
	wait_gone "$server"
	# The loop still holds the pipe.
	refute is_gone "$RELAY"
	kill -KILL "$ticker"
	wait_gone "$ticker"
	wait_gone "$RELAY"
}

@test "the relay holds neither our listeners nor our locks, and lets our folder be" {
	local folder="$BATS_TEST_TMPDIR/folder"
	mkdir "$folder"
	cd "$folder"
	start_captured --pid-file "$BATS_TEST_TMPDIR/pid" -l "unix:$BATS_TEST_TMPDIR/socket" -- "$TS_BIN"
	cd /
	assert_equal "$(readlink "/proc/$RELAY/cwd")" /
	run find "/proc/$RELAY/fd" -type l -printf '%f %l\n'
	assert_equal "$(sort -n <<<"$output" | sed 's/:\[[0-9]*\]$//')" "0 /dev/null
1 /dev/null
2 $HANDOFF_LOG
3 socket
4 pipe"
	hand_off 2
	wait_log '\[gen 1\] gone'
	wait_for fd_count_is 5
	stop_captured
}

fd_count_is() {
	(($(fd_count "$RELAY") == $1))
}

@test "no relay is left after a stop, an immediate stop, or a start that fails" {
	start_captured -- "$TS_BIN"
	stop_captured
	start_captured -- "$TS_BIN"
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	is_gone "$RELAY"
	# Whoever waits for the end of our output is not kept waiting.
	run -9 timeout 20 sh -c '"$HANDOFF_BIN" run --capture -- sh -c "exit 9" 2>&1 | cat; exit 9' 3>&-
	assert_output --partial 'failed to start: exited with status 9'
}

@test "what a drained generation's helper writes still comes, as long as the generation is not gone" {
	write_script "$SERVER" <<-'END'
		# It outlives the server, and is waited for.
		setsid sh -c 'trap "" INT; while [ ! -e "$0.go" ]; do sleep 0.02; done
			echo "late word of $HANDOFF_GENERATION" >&2' "$0" &
		exec "$TS_BIN"
	END
	start_captured -- "$SERVER"
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to what is left'
	: >"$SERVER.go"
	wait_log '^late word of 1$'
	wait_log '\[gen 1\] gone'
	stop_captured
}
