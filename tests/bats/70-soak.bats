#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Many hand-offs, good and failed, with few descriptors: nothing piles up, and idle is idle.
# HANDOFF_LONG=1 makes the numbers those of a release test.
# shellcheck disable=SC2016,SC2030,SC2031,SC2153,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	COUNT=200 MIXED=60
	[[ -z ${HANDOFF_LONG:-} ]] || COUNT=1000 MIXED=500
	SERVER="$BATS_TEST_TMPDIR/server"
}

teardown() {
	stop_all
}

# start_limited OPTIONS... -- COMMAND...: with 64 descriptors at most, on TCP, until generation 1 is active.
start_limited() {
	start_background "$HANDOFF_LOG" bash -c 'ulimit -n 64; exec "$@"' bash \
		"$HANDOFF_BIN" run -l 127.0.0.1:0 "$@"
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	URL="http://$(sed -n 's/.*holding \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$HANDOFF_LOG")"
}

# Anonymous memory in KiB.
memory() {
	sed -n 's/^RssAnon:\s*\([0-9]*\) kB/\1/p' "/proc/$HANDOFF_PID/status"
}

# What must be the same at any two quiet moments: descriptors, children, zombies.
holdings() {
	echo "$(fd_count "$HANDOFF_PID") descriptors, $(children_of "$HANDOFF_PID" | wc -l) children," \
		"$(zombies_of "$HANDOFF_PID") zombies"
}

# Takes down what is held now, to be compared by assert_same.
remember() {
	HELD=$(holdings)
	MEMORY=$(memory)
}

assert_same() {
	assert_equal "$(holdings)" "$HELD"
	# A sanitizer keeps freed memory back; there its own leak check at the exit decides.
	if ! grep -q libasan "/proc/$HANDOFF_PID/maps"; then
		(($(memory) - MEMORY < 256)) || fail "memory grew from $MEMORY to $(memory) KiB"
	fi
}

# fail_to N ACTIVE: hand-off N fails, for whatever reason.
fail_to() {
	kill -USR1 "$HANDOFF_PID"
	wait_log "\\[gen $1\\] error: failed to start: .*; generation $2 still serves"
	wait_log "\\[gen $1\\] gone"
}

@test "many good hand-offs with 64 descriptors: descriptors, children and zombies are the same, memory does not grow" {
	local number
	start_limited --settle 0 -- "$TS_BIN"
	for ((number = 2; number <= COUNT + 1; number++)); do
		hand_off "$number"
		wait_log "\\[gen $((number - 1))\\] gone"
		((number != 50)) || remember
	done
	assert_same
	wait_for generation_is $((COUNT + 1)) "$URL/"
	refute grep -E 'error|warning|killed|failed' "$HANDOFF_LOG"
	stop_gracefully
}

@test "many failed hand-offs with 64 descriptors, in six ways: nothing piles up, and the first generation serves on" {
	local number
	write_script "$SERVER" <<-'END'
		[ "$HANDOFF_GENERATION" != 1 ] || exec "$TS_BIN"
		case $((HANDOFF_GENERATION % 6)) in
		0) exit 9 ;;
		1) exec "$TS_BIN" --crash-on-start SEGV ;;
		2) exec /no/such/program ;;
		3) exec "$TS_BIN" --background ;;
		4) (sleep 0.01 &) && exit 0 ;;
		5) exec "$TS_BIN" --never-ready ;;
		esac
	END
	start_limited --ready-timeout 100ms --kill-timeout 100ms -- "$SERVER"
	for ((number = 2; number <= COUNT + 1; number++)); do
		fail_to "$number" 1
		((number != 50)) || remember
	done
	assert_same
	assert_equal "$(gen_of "$URL/")" 1
	# The good one at last is as good as ever.
	write_script "$SERVER" <<-'END'
		exec "$TS_BIN"
	END
	hand_off "$number"
	wait_log '\[gen 1\] gone'
	wait_for generation_is "$number" "$URL/"
	assert_same
	stop_gracefully
}

@test "good and failed hand-offs in turn, with a unix path, a pid file, capture and a readiness command: nothing piles up" {
	local number relay
	write_script "$SERVER" <<-'END'
		echo "starting $HANDOFF_GENERATION" >&2
		[ $((HANDOFF_GENERATION % 2)) = 1 ] || exit 9
		exec "$TS_BIN" --unlink-path --ready none
	END
	start_limited -l "unix:$BATS_TEST_TMPDIR/socket" --pid-file "$BATS_TEST_TMPDIR/pid" --capture \
		--settle 20ms --ready exec:'[ $((HANDOFF_GENERATION % 2)) = 1 ]' -- "$SERVER"
	relay=$(children_of "$HANDOFF_PID" | grep -vx "$(pid_of 1)")
	for ((number = 2; number <= 2 * MIXED; number += 2)); do
		fail_to "$number" $((number - 1))
		hand_off $((number + 1))
		wait_log "\\[gen $((number - 1))\\] gone"
		if ((number == 50)); then
			wait_for test -S "$BATS_TEST_TMPDIR/socket"
			remember
			RELAY_HELD=$(fd_count "$relay")
		fi
	done
	wait_for test -S "$BATS_TEST_TMPDIR/socket"
	assert_same
	assert_equal "$(children_of "$HANDOFF_PID" | grep -vx "$(pid_of $((number - 1)))")" "$relay"
	assert_equal "$(fd_count "$relay")" "$RELAY_HELD"
	wait_log '^starting [0-9]+$' "$((number - 1))"
	assert_equal "$(gen_of --unix-socket "$BATS_TEST_TMPDIR/socket" http://x/)" $((number - 1))
	stop_gracefully
	assert_equal "$(find "$BATS_TEST_TMPDIR" -newer "$SERVER" ! -type d ! -name '*.log')" ''
}

switches() {
	local pid
	for pid in "$@"; do
		echo "$pid $(sed -n 's/^\(non\)\?voluntary_ctxt_switches:\s*//p' "/proc/$pid/status" | tr '\n' ' ')"
	done
}

# quiet PID...: nothing is left of what went before.
quiet() {
	local before
	before=$(switches "$@")
	sleep 0.3
	[[ $(switches "$@") == "$before" ]]
}

@test "idle for 10 s, neither the supervisor nor its relay wakes up" {
	local before relay
	start_limited -l "unix:$BATS_TEST_TMPDIR/socket" --pid-file "$BATS_TEST_TMPDIR/pid" --capture -- "$TS_BIN" --ready none
	hand_off 2
	wait_log '\[gen 1\] gone'
	relay=$(children_of "$HANDOFF_PID" | grep -vx "$(pid_of 2)")
	wait_for quiet "$HANDOFF_PID" "$relay"
	before=$(switches "$HANDOFF_PID" "$relay")
	# What the server does is no business of ours.
	start_load "tcp:${URL#http://}" --rate 50 --duration 9s
	wait_exit "$LOAD_PID"
	sleep 1
	assert_equal "$(switches "$HANDOFF_PID" "$relay")" "$before"
	stop_gracefully
}
