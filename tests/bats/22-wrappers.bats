#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Servers behind shells and package runners: the server itself is told to drain, and none outlives the supervisor.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # texts for other shells; every test is a subshell of its own

load ../lib/helpers

setup() {
	common_setup
	export TS_BIN
	GROUP='SIGINT to its process group, since its main process is a shell or a package runner'
}

teardown() {
	stop_all
}

# The living processes of this test whose command line begins with WORDS, one pid a line.
running() {
	local pid command left
	left=$(survivors)
	while read -r pid command; do
		[[ $command != "$1"* ]] || echo "$pid"
	done <<<"$left"
}

runs_once() {
	local pids
	pids=$(running "$1")
	[[ -n $pids && $pids != *$'\n'* ]]
}

# Only generation N answers: whoever shares the listener would take some of these.
only_answers() {
	local i
	for ((i = 0; i < 20; i++)); do
		assert_equal "$(gen_of "$URL")" "$1"
	done
}

# stop_with SIG: until the supervisor has exited with 0, and nothing of it is left.
stop_with() {
	kill -s "$1" "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

# hands_off TO STOP [OPTIONS...] -- COMMAND...: two hand-offs, in which the drain signal goes TO; then STOP.
hands_off() {
	local to=$1 stop=$2 number old
	shift 2
	start_serving "$@"
	for number in 2 3; do
		old=$(running "$TS_BIN")
		[[ -n $old ]]
		hand_off "$number"
		wait_log "\\[gen $((number - 1))\\] draining: $to \\(pid $(pid_of $((number - 1)))\\)"
		wait_log "\\[gen $((number - 1))\\] gone after draining"
		is_gone "$old"
		runs_once "$TS_BIN"
		only_answers "$number"
	done
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 3)"
	# Each was told once.
	assert_equal "$(grep -c 'draining: ' "$HANDOFF_LOG")" 2
	stop_with "$stop"
}

@test "a server that dash waits for is drained in its group, and goes at INT" {
	hands_off "$GROUP" INT -- dash -c '"$TS_BIN"; :'
}

@test "a server that dash waits for goes at TERM" {
	hands_off "$GROUP" TERM -- dash -c '"$TS_BIN"; :'
}

@test "a server that bash waits for is drained in its group, and goes at INT" {
	hands_off "$GROUP" INT -- bash -c '"$TS_BIN"; :'
}

@test "a server that bash waits for goes at TERM" {
	hands_off "$GROUP" TERM -- bash -c '"$TS_BIN"; :'
}

@test "a server that busybox sh waits for is drained in its group, and goes at INT" {
	hands_off "$GROUP" INT -- busybox sh -c '"$TS_BIN"; :'
}

@test "a server that busybox sh waits for goes at TERM" {
	hands_off "$GROUP" TERM -- busybox sh -c '"$TS_BIN"; :'
}

@test "a server in the background of a shell that waits for it is drained in its group" {
	hands_off "$GROUP" INT -- sh -c '"$TS_BIN" & wait'
}

@test "a server in a script without exec is drained in its group" {
	write_script "$BATS_TEST_TMPDIR/start" <<-'END'
		PORT=80
		"$TS_BIN"
		echo "the server has exited with $?"
	END
	hands_off "$GROUP" INT -- "$BATS_TEST_TMPDIR/start"
}

@test "a server in a script with exec is the main process, and is drained alone" {
	write_script "$BATS_TEST_TMPDIR/start" <<-'END'
		PORT=80
		exec "$TS_BIN"
	END
	hands_off 'SIGINT to its main process' INT -- "$BATS_TEST_TMPDIR/start"
}

@test "sh -c 'exec server' has a LISTEN_PID that is right: a strict server takes its listeners, at every start" {
	hands_off 'SIGINT to its main process' TERM -- sh -c 'exec "$TS_BIN" --strict-pid'
}

@test "a strict server behind a shell that forks fails its start, and says what is wrong" {
	start_handoff -l 127.0.0.1:0 -- sh -c '"$TS_BIN" --strict-pid; exit $?'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 2
	local shell
	shell=$(pid_of 1)
	log_has "^ts: LISTEN_PID is $shell, not [0-9]+\$" 1
	log_has '\[gen 1\] error: failed to start: exited with status 2 after .*, before it was ready$' 1
	assert_equal "$(survivors)" ''
}

@test "systemd's own sd_listen_fds counts the listeners after an exec, and none behind a shell that forks" {
	cat >"$BATS_TEST_TMPDIR/count.py" <<-'END'
		import ctypes
		print("sd_listen_fds:", ctypes.CDLL("libsystemd.so.0").sd_listen_fds(0), flush=True)
	END
	export COUNT="$BATS_TEST_TMPDIR/count.py"
	start_handoff -l a=127.0.0.1:0 -l b=127.0.0.1:0 -- sh -c 'exec python3 "$COUNT"'
	wait_exit "$HANDOFF_PID"
	log_has '^sd_listen_fds: 2$' 1
	start_handoff -l a=127.0.0.1:0 -l b=127.0.0.1:0 -- sh -c 'python3 "$COUNT"; exit 1'
	wait_exit "$HANDOFF_PID"
	log_has '^sd_listen_fds: 0$' 1
}

@test "a server behind a shell that forks gets exactly one drain signal" {
	export INTS="$BATS_TEST_TMPDIR/ints"
	start_serving -- sh -c '"$TS_BIN" --count-int "$INTS" & wait; :'
	hand_off 2
	wait_log '\[gen 1\] gone after draining'
	assert_equal "$(grep -c INT "$INTS")" 1
	stop_gracefully
	assert_equal "$(grep -c INT "$INTS")" 2
}

@test "with --drain-to main a shell that waits keeps its old server, until the drain timeout kills both" {
	local old
	start_serving --drain-to main --drain-timeout 2s -- bash -c '"$TS_BIN"; :'
	old=$(running "$TS_BIN")
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to its main process'
	wait_log '\[gen 1\] warning: killed: not drained within --drain-timeout'
	wait_log '\[gen 1\] gone after draining for [2-9]\.[0-9] s'
	is_gone "$old"
	only_answers 2
	# At the end it is the same: asked to, something had to be killed.
	stop_gracefully 3
}

@test "with --drain-to main what outlives a shell that ends of the signal is told once" {
	export INTS="$BATS_TEST_TMPDIR/ints"
	start_serving --drain-to main -- sh -c '"$TS_BIN" --count-int "$INTS" & wait'
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to its main process'
	wait_log '\[gen 1\] draining: SIGINT to what is left of its process group'
	wait_log '\[gen 1\] gone after draining'
	runs_once "$TS_BIN"
	only_answers 2
	assert_equal "$(grep -c INT "$INTS")" 1
	stop_gracefully
}

@test "a request in flight behind a shell is finished on the old generation" {
	local answer="$BATS_TEST_TMPDIR/answer" client
	start_serving -- sh -c '"$TS_BIN"; :'
	start_background "$answer" "$LOAD_BIN" --target "$TARGET" --one --path '/sleep?ms=3000' --timeout 30s
	client=$STARTED_PID
	wait_for connected
	assert_equal "$(gen_of "$URL")" 1
	hand_off 2
	wait_log "\\[gen 1\\] draining: $GROUP"
	wait_exit "$client"
	run cat "$answer"
	assert_output --regexp '^gen=1 '
	wait_log '\[gen 1\] gone after draining for [0-9.]+ s'
	stop_gracefully
}

connected() {
	[[ -n $(ss -Htn state established "sport = :${URL##*:}") ]]
}

# npm asks nobody, and leaves nothing in the user's folders.
prepare_npm() {
	export HOME=$BATS_TEST_TMPDIR npm_config_update_notifier=false npm_config_cache="$BATS_TEST_TMPDIR/npm"
	NODE="$BATS_TEST_DIRNAME/../servers/node"
}

# The server of Node.js with a port of its own, under npm, until it listens; handed off once.
npm_hands_off() {
	local old
	prepare_npm
	start_handoff --ready delay:1s -- npm --silent --prefix "$NODE" start -- 0
	wait_log '\[gen 1\] active'
	wait_for runs_once 'node server.js'
	old=$(running 'node server.js')
	wait_for listens "$old"
	hand_off 2
	wait_log "\\[gen 1\\] draining: $GROUP"
	wait_log '\[gen 1\] gone after draining'
	is_gone "$old"
	wait_for runs_once 'node server.js'
	wait_for listens "$(running 'node server.js')"
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 2)"
}

listens() {
	[[ -n $1 ]] && ss -Hltnp | grep -qF "pid=$1,"
}

@test "npm start: after a hand-off the old server is gone, and nothing outlives an INT" {
	npm_hands_off
	stop_with INT
}

@test "npm start: after a hand-off the old server is gone, and nothing outlives a TERM" {
	npm_hands_off
	stop_with TERM
}

@test "npm start with a held listener fails its start, since npm closes the listener, and the server's own words are in the log" {
	prepare_npm
	start_handoff -l 127.0.0.1:0 -- npm --silent --prefix "$NODE" start
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 1
	log_has '^Error: listen E' 1
	log_has '\[gen 1\] error: failed to start: exited with status 1 after .*, before it was ready$' 1
	assert_equal "$(survivors)" ''
}
