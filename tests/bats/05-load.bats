#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The measuring tools themselves: load reports each kind of loss when it happens, and ts causes none.
# shellcheck disable=SC2030,SC2031,SC2154 # every test is a subshell of its own; run sets status and lines

load ../lib/helpers

setup() {
	common_setup
	LOG="$BATS_TEST_TMPDIR/server.log"
}

teardown() {
	stop_all
}

# start_ts MODE blocking|nonblocking [OPTIONS...]: ts on a listener of its parent, as a supervisor would start it; the
# address in TARGET, the pid in TS_PID. Waits until it says that it is ready.
start_ts() {
	local mode=$1 flags=$2
	shift 2
	start_background "$LOG" python3 "$BATS_TEST_DIRNAME/../lib/parent.py" "$flags" "$TS_BIN" --mode "$mode" "$@"
	TS_PID=$STARTED_PID
	wait_log '^ready$' 1 "$LOG"
	TARGET="tcp:$(sed -n 's/^address //p' "$LOG")"
}

# start_bad BEHAVIOUR: a server that treats every connection in one wrong way; its address in TARGET.
start_bad() {
	start_background "$LOG" python3 "$BATS_TEST_DIRNAME/../lib/badserver.py" "$@"
	wait_log '^address ' 1 "$LOG"
	TARGET="tcp:$(sed -n 's/^address //p' "$LOG")"
}

# run_load OPTIONS...: for half a second; status in $status.
run_load() {
	local code=0
	"$LOAD_BIN" --target "$TARGET" --duration 500ms "$@" >"$LOAD_JSON" 3>&- || code=$?
	status=$code
}

# Only KIND was counted for KEY, at least once, and every request is accounted for.
assert_only() {
	python3 -c '
import json, sys
counts = json.load(open(sys.argv[1]))[sys.argv[2]]
kinds = "ok refused reset empty truncated timeout wrong error".split()
counted = [kind for kind in kinds if counts[kind]]
if counted != [sys.argv[3]] or counts[sys.argv[3]] != counts["sent"]:
    sys.exit(f"{sys.argv[2]}: not only {sys.argv[3]}: {counts}")
' "$LOAD_JSON" "$1" "$2" 3>&-
}

@test "load counts refused connections" {
	TARGET="tcp:127.0.0.1:$(free_port)"
	run_load --rate 100 --keepalive 2
	assert_equal "$status" 1
	assert_only new refused
	assert_only keepalive refused
}

@test "load counts a unix path that is not there as refused" {
	TARGET="unix:$BATS_TEST_TMPDIR/nobody"
	run_load --rate 100
	assert_equal "$status" 1
	assert_only new refused
}

@test "load counts resets" {
	start_bad reset
	run_load --rate 100 --keepalive 2
	assert_equal "$status" 1
	assert_only new reset
	assert_only keepalive reset
}

@test "load counts a reset in the middle of an answer as a reset" {
	start_bad reset-late
	run_load --rate 100
	assert_equal "$status" 1
	assert_only new reset
}

@test "load counts connections closed without an answer" {
	start_bad empty
	run_load --rate 100 --keepalive 2
	assert_equal "$status" 1
	assert_only new empty
	assert_only keepalive empty
}

@test "load counts truncated answers" {
	start_bad truncated
	run_load --rate 100 --keepalive 2
	assert_equal "$status" 1
	assert_only new truncated
	assert_only keepalive truncated
}

@test "load counts a truncated chunked answer" {
	start_bad chunked-truncated
	run_load --rate 100
	assert_equal "$status" 1
	assert_only new truncated
}

@test "load counts requests that time out, at their time" {
	start_bad silent
	run_load --rate 40 --keepalive 2 --timeout 300ms --records "$BATS_TEST_TMPDIR/records"
	assert_equal "$status" 1
	assert_only new timeout
	assert_only keepalive timeout
	# No timeout comes before its time. Latency counts from the schedule, so lateness is on top.
	awk -F, 'NR > 1 && $4 - $3 < 300000000 { bad = 1 } END { exit bad }' "$BATS_TEST_TMPDIR/records"
}

@test "load counts timeouts of connects that nobody completes" {
	# The queue of a unix listener is full at once, and nobody ever takes from it.
	start_bad never-accept-unix "$BATS_TEST_TMPDIR/full"
	TARGET="unix:$BATS_TEST_TMPDIR/full"
	run_load --rate 100 --timeout 300ms
	assert_equal "$status" 1
	assert_only new timeout
}

@test "load counts answers other than 200 as wrong" {
	start_bad status-503
	run_load --rate 100 --keepalive 2
	assert_equal "$status" 1
	assert_only new wrong
	assert_only keepalive wrong
}

@test "load counts a 200 without a generation as wrong" {
	start_bad no-generation
	run_load --rate 100
	assert_equal "$status" 1
	assert_only new wrong
}

@test "load counts descriptors that ran out as its own error" {
	start_bad silent
	local code=0
	(
		ulimit -n 20
		exec "$LOAD_BIN" --target "$TARGET" --duration 500ms --rate 200 --timeout 1s
	) >"$LOAD_JSON" 3>&- || code=$?
	assert_equal "$code" 1
	(($(load_value new error) > 0))
}

@test "load counts a request as lost when an open connection is closed in answer to it" {
	start_bad empty-on-second
	run_load --rate 0 --keepalive 2
	assert_equal "$status" 1
	(($(load_value keepalive empty) > 0))
	(($(load_value keepalive ok) > 0))
}

@test "load reconnects, without a failure, where the server says close or closes between requests" {
	start_bad says-close
	run_load --rate 0 --keepalive 2
	assert_equal "$status" 0
	assert_only keepalive ok
	assert_equal "$(load_value keepalive told_to_close)" "$(load_value keepalive sent)"
	stop_all
	rm "$LOG"
	start_bad closes-idle
	run_load --rate 0 --keepalive 2 --keepalive-rate 10
	assert_equal "$status" 0
	assert_only keepalive ok
	(($(load_value keepalive closed_idle) > 0))
}

@test "load counts an idle connection that is reset as a failure" {
	start_bad resets-idle
	run_load --rate 0 --keepalive 2 --keepalive-rate 2 --duration 1s
	assert_equal "$status" 1
	(($(load_value keepalive reset_idle) > 0))
}

@test "load takes chunked answers and answers that end with the connection" {
	start_bad chunked
	run_load --rate 100 --keepalive 2
	assert_equal "$status" 0
	stop_all
	rm "$LOG"
	start_bad until-close
	run_load --rate 100 --keepalive 2
	assert_equal "$status" 0
}

@test "load keeps its schedule while the server stalls, and latency counts from the schedule" {
	start_bad stall 400
	# All of the first 300 ms is answered at 400 ms: only an open loop sends 30 requests meanwhile.
	run_load --rate 100 --duration 300ms
	assert_equal "$status" 0
	assert_equal "$(load_value new sent)" 30
	python3 -c 'import sys; sys.exit(not float(sys.argv[1]) > 200)' "$(load_value latency_ms steady p50)"
}

@test "load tells requests during a hand-off from the others by the marks" {
	start_ts epoll blocking
	run_load --rate 200 --mark-fd 0 < <(
		echo start
		sleep 0.2
		echo end
	)
	assert_equal "$status" 0
	assert_equal "$(load_value marks)" 1
	(($(load_value latency_ms during count) > 10))
	(($(load_value latency_ms steady count) > 10))
	assert_equal $(($(load_value latency_ms during count) + $(load_value latency_ms steady count))) \
		"$(load_value sent)"
}

@test "load reads marks from a file, and a mark with no end lasts to the end of the run" {
	start_ts epoll blocking
	echo "start $("$LOAD_BIN" --now)" >"$LOAD_MARKS"
	run_load --rate 100 --marks "$LOAD_MARKS"
	assert_equal "$status" 0
	assert_equal "$(load_value latency_ms steady count)" 0
	assert_equal "$(load_value latency_ms during count)" "$(load_value sent)"
}

@test "load writes a record for every request" {
	start_ts epoll blocking
	run_load --rate 100 --keepalive 2 --records "$BATS_TEST_TMPDIR/records"
	assert_equal "$(grep -c '^new,' "$BATS_TEST_TMPDIR/records")" "$(load_value new sent)"
	assert_equal "$(grep -c '^keepalive,' "$BATS_TEST_TMPDIR/records")" "$(load_value keepalive sent)"
}

@test "load --one prints the body, and --hold keeps the request open" {
	start_ts epoll blocking
	run "$LOAD_BIN" --target "$TARGET" --one --path '/env?HANDOFF_GENERATION'
	assert_success
	assert_output 7
	local before after
	before=$(now_ms)
	run "$LOAD_BIN" --target "$TARGET" --one --hold 200
	after=$(now_ms)
	assert_success
	assert_output --regexp '^gen=7 pid=[0-9]+ fd=3$'
	((after - before >= 200))
}

@test "load refuses a command line that it does not understand" {
	run -2 "$LOAD_BIN"
	run -2 "$LOAD_BIN" --target nonsense
	run -2 "$LOAD_BIN" --target tcp:127.0.0.1:1 --duration 10
	run -2 "$LOAD_BIN" --target tcp:127.0.0.1:1 --rate -5
}

# Two thousand connections a second for three seconds, and eight keep-alive clients: nothing is lost.
no_loss() {
	start_ts "$@"
	run_load --rate 2000 --keepalive 8 --duration 3s
	assert_equal "$status" 0
	assert_equal "$(load_value new sent)" 6000
	assert_equal "$(load_value failures)" 0
	assert_equal "$(load_value generations 7 answers)" "$(load_value sent)"
}

@test "ts in epoll mode serves 2000 connections a second without a loss" {
	no_loss epoll blocking
}

@test "ts in threads mode serves 2000 connections a second without a loss" {
	no_loss threads blocking
}

@test "ts in poll mode serves 2000 connections a second without a loss" {
	no_loss poll nonblocking
}

@test "ts in select mode serves 2000 connections a second without a loss" {
	no_loss select blocking
}

# One ts after another on one listener, twelve times under load: every one drains without a loss.
hand_over() {
	start_background "$LOG" python3 "$BATS_TEST_DIRNAME/../lib/parent.py" --generations 12 "$2" "$TS_BIN" --mode "$1"
	wait_log '^ready$' 1 "$LOG"
	start_load "tcp:$(sed -n 's/^address //p' "$LOG")" --rate 1000 --keepalive 8
	wait_log '^drained 12 0$' 1 "$LOG"
	finish_load
	assert_equal "$(load_value failures)" 0
	(($(load_value keepalive told_to_close) >= 8))
}

@test "ts drains without a loss: epoll, blocking listener" {
	hand_over epoll blocking
}

@test "ts drains without a loss: epoll, non-blocking listener" {
	hand_over epoll nonblocking
}

@test "ts drains without a loss: threads" {
	hand_over threads blocking
}

@test "ts drains without a loss: threads, non-blocking listener" {
	hand_over threads nonblocking
}

@test "ts drains without a loss: poll" {
	hand_over poll blocking
}

@test "ts drains without a loss: select" {
	hand_over select nonblocking
}

# Drains with one request in flight, one half sent, and one client silent: the first two are answered.
drain_in_flight() {
	start_ts "$@"
	"$LOAD_BIN" --target "$TARGET" --one --path '/sleep?ms=700' >"$BATS_TEST_TMPDIR/sleep" 3>&- &
	local sleeper=$!
	"$LOAD_BIN" --target "$TARGET" --one --hold 700 >"$BATS_TEST_TMPDIR/half" 3>&- &
	local half=$!
	# Both have connected: the server holds two descriptors more than the idle one.
	wait_for connections_at_least 2
	kill -INT "$TS_PID"
	wait "$sleeper"
	wait "$half"
	wait_exit "$TS_PID"
	assert_equal "$EXIT_STATUS" 0
	run cat "$BATS_TEST_TMPDIR/sleep" "$BATS_TEST_TMPDIR/half"
	assert_equal "${#lines[@]}" 2
}

connections_at_least() {
	local port=${TARGET##*:}
	(($(ss -Htn state established "sport = :$port" | wc -l) >= $1))
}

@test "ts finishes what is in flight when it drains: epoll" {
	drain_in_flight epoll blocking
}

@test "ts finishes what is in flight when it drains: threads" {
	drain_in_flight threads blocking
}

@test "ts drains with nobody there, blocked in accept: threads" {
	start_ts threads blocking
	kill -INT "$TS_PID"
	wait_exit "$TS_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "ts misbehaves as it is told" {
	local option want
	while read -r want option; do
		# shellcheck disable=SC2086
		run -"$want" "$TS_BIN" --bind 127.0.0.1:0 $option </dev/null 3>&-
	done <<-'END'
		1 --exit-at-once
		9 --exit-at-once=9
		5 --exit-after-ready 20:5
		5 --mode threads --exit-after-ready 20:5
		139 --crash-on-start SEGV
		2 --mode nothing
		2 --exit-at-once=x
		2 --bind nonsense
	END
}

@test "ts that is told to ignore INT counts it and serves on" {
	start_ts epoll blocking --ignore-int --count-int "$BATS_TEST_TMPDIR/ints"
	kill -INT "$TS_PID"
	wait_for grep -q INT "$BATS_TEST_TMPDIR/ints"
	run "$LOAD_BIN" --target "$TARGET" --one
	assert_success
	kill -TERM "$TS_PID"
	wait_exit "$TS_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "ts stops itself, boots slowly, writes byte by byte, and is ready in the end" {
	start_background "$LOG" python3 "$BATS_TEST_DIRNAME/../lib/parent.py" blocking "$TS_BIN" --stop-self \
		--slow-boot 50 --ready-late-byte-by-byte=20
	TS_PID=$STARTED_PID
	wait_log '^address ' 1 "$LOG"
	wait_for stopped_child "$TS_PID"
	run grep -c '^ready' "$LOG"
	assert_output 0
	kill -CONT "$STOPPED"
	wait_log '^ready slow$' 1 "$LOG"
}

stopped_child() {
	STOPPED=$1
	[[ $(process_state "$1") == T ]]
}

@test "the demo server answers with its generation and drains" {
	start_background "$LOG" python3 "$BATS_TEST_DIRNAME/../lib/parent.py" blocking "$DEMO_BIN"
	TS_PID=$STARTED_PID
	wait_log '^ready$' 1 "$LOG"
	TARGET="tcp:$(sed -n 's/^address //p' "$LOG")"
	run "$LOAD_BIN" --target "$TARGET" --one
	assert_output --regexp "generation 7 .*pid $TS_PID"
	start_load "$TARGET" --rate 500 --keepalive 4 --duration 300ms
	finish_load
	kill -INT "$TS_PID"
	wait_exit "$TS_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "fdmap shows the descriptors and signals that its starter gave it" {
	run bash -c 'trap "" HUP; exec 3>&- 4</dev/null; exec "$FDMAP_BIN"'
	assert_success
	assert_line --regexp '^SigBlk 0+$'
	assert_line --regexp '^SigIgn [0-9a-f]+1$'
	assert_line '4 /dev/null'
	refute_line --regexp '^3 '
}

@test "a process that outlives its test is found, killed, and fails the test" {
	start_ts epoll blocking --leave-daemon
	run stop_all
	assert_failure
	assert_line 'survived the test:'
	run survivors
	assert_output ''
}

@test "a wait that is not fulfilled fails at its deadline" {
	run wait_for -t 1 false
	assert_failure
	assert_output 'not within 1 s: false'
}
