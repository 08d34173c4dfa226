#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Good hand-offs: under load, with requests in flight, in bursts, and with nobody serving. No client sees any of it.
# HANDOFF_LONG=1 makes the loads and the numbers of hand-offs those of a release test.
# shellcheck disable=SC2030,SC2031,SC2153,SC2154 # every test is a subshell of its own; others set HANDOFF_LOG, status

load ../lib/helpers

setup() {
	common_setup
	RATE=500 HAND_OFFS=10
	[[ -z ${HANDOFF_LONG:-} ]] || RATE=2000 HAND_OFFS=50
	SERVER="$BATS_TEST_TMPDIR/server"
	GATE="$BATS_TEST_TMPDIR/gate"
}

teardown() {
	stop_all
}

# gated_server N TS_OPTIONS...: $SERVER is ts, but generation N waits in its start until open_gate.
gated_server() {
	local generation=$1
	shift
	mkfifo "$GATE"
	write_script "$SERVER" <<-END
		[ "\$HANDOFF_GENERATION" != $generation ] || read -r _ <"$GATE"
		exec "$TS_BIN" $*
	END
}

open_gate() {
	echo >"$GATE"
}

# All signals sent to the supervisor so far were taken from the kernel.
no_signal_pending() {
	[[ $(sed -n 's/^S[ih][gd]Pnd:\s*//p' "/proc/$HANDOFF_PID/status" | sort -u) == 0000000000000000 ]]
}

# Connections that are established at the server's end, accepted or queued.
connections() {
	ss -Htn state established "sport = :${URL##*:}" | wc -l
}

connections_are() {
	(($(connections) == $1))
}

# Hands off many times under load, with every descriptor and process counted. What TARGET names must be served.
many_hand_offs() {
	local before number old
	before=$(fd_count "$HANDOFF_PID")
	start_load "$TARGET" --rate "$RATE" --keepalive 8
	for ((number = 2; number <= HAND_OFFS + 1; number++)); do
		old=$(pid_of $((number - 1)))
		mark_load start
		hand_off "$number"
		mark_load end
		wait_log "\[gen $((number - 1))\] gone after draining"
		is_gone "$old"
	done
	finish_load
	assert_equal "$(load_value failures)" 0
	# The last hand-offs were all seen by clients, both kinds.
	(($(load_value generations "$HAND_OFFS" answers) > 0))
	(($(load_value keepalive told_to_close) > 0))
	assert_equal "$(fd_count "$HANDOFF_PID")" "$before"
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of $((HAND_OFFS + 1)))"
	refute_bad_lines
	stop_gracefully
}

# Nothing in the log is a warning, a failure or a kill.
refute_bad_lines() {
	run grep -E 'failed|killed|died|cannot|warning|error|restored' "$HANDOFF_LOG"
	assert_output ''
}

# start_unix OPTIONS...: as start_serving, on a unix path.
start_unix() {
	SOCKET="$BATS_TEST_TMPDIR/socket"
	start_handoff -l "unix:$SOCKET" "$@"
	wait_log '\[gen 1\] active'
	TARGET="unix:$SOCKET"
}

@test "hand-offs under load lose nothing: epoll, TCP" {
	start_serving -- "$TS_BIN" --mode epoll
	many_hand_offs
}

@test "hand-offs under load lose nothing: threads, TCP" {
	start_serving -- "$TS_BIN" --mode threads
	many_hand_offs
}

@test "hand-offs under load lose nothing: epoll, unix path" {
	start_unix -- "$TS_BIN" --mode epoll
	many_hand_offs
	[[ ! -e $SOCKET ]]
}

@test "hand-offs under load lose nothing: threads, unix path" {
	start_unix -- "$TS_BIN" --mode threads
	many_hand_offs
}

@test "hand-offs under load lose nothing: server without a ready word, seen accepting" {
	start_serving -- "$TS_BIN" --mode epoll --ready none
	wait_log '\[gen 1\] ready after .*accepting'
	many_hand_offs
}

@test "hand-offs without a settling time lose nothing" {
	start_serving --settle 0 -- "$TS_BIN" --mode epoll
	many_hand_offs
}

@test "while a new generation takes 3 s to boot, and again in the hand-off asked meanwhile, nothing is lost" {
	write_script "$SERVER" <<-END
		[ "\$HANDOFF_GENERATION" != 1 ] || exec "$TS_BIN"
		exec "$TS_BIN" --slow-boot 3000
	END
	start_serving -- "$SERVER"
	start_load "$TARGET" --rate "$RATE" --keepalive 8
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	assert_equal "$(gen_of "$URL")" 1
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] active'
	wait_log '\[gen 3\] started'
	assert_equal "$(gen_of "$URL")" 2
	wait_log '\[gen 3\] active'
	wait_log '\[gen 2\] gone'
	wait_for generation_is 3 "$URL"
	finish_load
	assert_equal "$(load_value failures)" 0
	# The start that was named ready was the one that had booted.
	log_has '\[gen [23]\] ready after [3-9]\.[0-9] s' 2
	refute_bad_lines
	stop_gracefully
}

# in_flight MODE: a request of five seconds is in the old generation when the hand-off comes.
in_flight() {
	local answer="$BATS_TEST_TMPDIR/answer" client old
	start_serving -- "$TS_BIN" --mode "$1"
	start_background "$answer" "$LOAD_BIN" --target "$TARGET" --one --path '/sleep?ms=5000' --timeout 30s
	client=$STARTED_PID
	wait_for connections_are 1
	# Accepted: the generation that is asked later in the same queue answers.
	assert_equal "$(gen_of "$URL")" 1
	old=$(pid_of 1)
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to its main process'
	assert_equal "$(gen_of "$URL")" 2
	run is_gone "$old"
	assert_failure
	[[ ! -s $answer ]]
	wait_exit "$client"
	assert_equal "$EXIT_STATUS" 0
	run cat "$answer"
	assert_output --regexp "^gen=1 pid=$old "
	wait_log '\[gen 1\] gone after draining for [0-9.]+ s'
	is_gone "$old"
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	stop_gracefully
}

@test "a request of 5 s in flight finishes on the old generation while the new one answers: epoll" {
	in_flight epoll
}

@test "a request of 5 s in flight finishes on the old generation while the new one answers: threads" {
	in_flight threads
}

@test "a graceful stop finishes a request in flight, and refuses new connections meanwhile" {
	local answer="$BATS_TEST_TMPDIR/answer" client
	start_serving -- "$TS_BIN"
	start_background "$answer" "$LOAD_BIN" --target "$TARGET" --one --path '/sleep?ms=3000' --timeout 30s
	client=$STARTED_PID
	wait_for connections_are 1
	assert_equal "$(gen_of "$URL")" 1
	kill -INT "$HANDOFF_PID"
	wait_log 'draining'
	wait_for refused
	run is_gone "$HANDOFF_PID"
	assert_failure
	wait_exit "$client"
	run cat "$answer"
	assert_output --regexp '^gen=1 '
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

refused() {
	run curl -sS --max-time 5 "$URL"
	[[ $status == 7 ]]
}

@test "a hundred hand-offs asked during one fold into exactly one more" {
	local i
	gated_server 2
	start_serving -- "$SERVER"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	for ((i = 0; i < 100; i++)); do
		kill -USR1 "$HANDOFF_PID"
	done
	wait_for no_signal_pending
	# They were taken while generation 2 was starting, and none of them has started another.
	run grep -c '\[gen 3\]' "$HANDOFF_LOG"
	assert_output 0
	open_gate
	wait_log '\[gen 3\] active'
	# A further one would have been started when generation 3 became active, which is before this.
	wait_log '\[gen 2\] gone'
	run grep -c '\[gen 4\]' "$HANDOFF_LOG"
	assert_output 0
	# And asking works as before.
	hand_off 4
	stop_gracefully
}

@test "a hand-off asked right after another one is done is a hand-off of its own" {
	local number
	start_serving --settle 0 -- "$TS_BIN"
	for number in 2 3 4 5 6 7 8; do
		hand_off "$number"
	done
	wait_log '\[gen 7\] gone'
	run grep -c 'hand-off asked by SIGUSR1' "$HANDOFF_LOG"
	assert_output 7
	assert_equal "$(gen_of "$URL")" 8
	stop_gracefully
}

@test "idle keep-alive connections are closed cleanly, and hold the old generation up no longer" {
	local client line
	start_serving -- "$TS_BIN"
	exec {client}<>"/dev/tcp/127.0.0.1/${URL##*:}"
	printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' >&"$client"
	until IFS= read -r -t 10 -u "$client" line && [[ $line == gen=* ]]; do
		[[ -n $line ]]
	done
	assert_equal "${line%% *}" gen=1
	assert_equal "$(connections)" 1
	hand_off 2
	wait_log '\[gen 1\] gone after draining'
	# An end of file, not a reset.
	run cat <&"$client"
	assert_success
	assert_output ''
	exec {client}>&-
	stop_gracefully
}

@test "a client that is queued while nobody serves is served by the next generation" {
	local answer="$BATS_TEST_TMPDIR/answer" client
	start_serving --restart-delay 60s --restart-delay-max 60s -- "$TS_BIN"
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 1\] warning: died unasked: was killed by SIGKILL'
	wait_log 'restarting in 60000 ms'
	start_background "$answer" "$LOAD_BIN" --target "$TARGET" --one --timeout 30s
	client=$STARTED_PID
	wait_for connections_are 1
	# The back-off has 60 s to go: only being asked starts it now.
	kill -USR1 "$HANDOFF_PID"
	wait_exit "$client"
	assert_equal "$EXIT_STATUS" 0
	run cat "$answer"
	assert_output --regexp '^gen=2 '
	wait_log '\[gen 2\] active'
	stop_gracefully
}

@test "clients under load notice a death of the active generation only as a wait" {
	start_serving --restart-delay 500ms -- "$TS_BIN"
	local active
	active=$(pid_of 1)
	# What it has accepted dies with it, so that it must be idle at that moment: stopped before the clients come.
	kill -STOP "$active"
	start_load "$TARGET" --rate 100 --timeout 20s
	wait_for connections_at_least 10
	kill -KILL "$active"
	wait_log '\[gen 2\] active'
	wait_for generation_is 2 "$URL"
	finish_load
	assert_equal "$(load_value failures)" 0
	assert_equal "$(load_value generations 2 answers)" "$(load_value sent)"
	stop_gracefully
}

connections_at_least() {
	(($(connections) >= $1))
}
