#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# As pid 1 of a container: signals, exit statuses, and everything that is ever left to pid 1 is reaped.
# shellcheck disable=SC2016,SC2030,SC2031,SC2153,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	[[ $EUID == 0 ]]
	CONTAINER=(unshare -pf --kill-child --mount-proc)
}

teardown() {
	# The process outside ignores TERM.
	[[ -z $HANDOFF_PID ]] || kill -TERM "$HANDOFF_PID" 2>/dev/null || true
	stop_all
}

# start_container OPTIONS... -- COMMAND...: we are pid 1 there; OUTSIDE_PID is the process that waits for the container,
# with our exit status, HANDOFF_PID our pid as seen from here. The pids in the log are those of the container.
start_container() {
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" "${CONTAINER[@]}" "$HANDOFF_BIN" run -l 127.0.0.1:0 --settle 20ms "$@"
	OUTSIDE_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	HANDOFF_PID=$(children_of "$OUTSIDE_PID")
	URL="http://$(sed -n 's/.*holding \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$HANDOFF_LOG")"
	assert_equal "$(sed -n 's/^NSpid:.*\t//p' "/proc/$HANDOFF_PID/status")" 1
}

# The processes of the container but pid 1, zombies too: state and command, one a line.
inside() {
	local pid space
	space=$(readlink "/proc/$HANDOFF_PID/ns/pid")
	for pid in /proc/[0-9]*; do
		pid=${pid#/proc/}
		[[ $pid != "$HANDOFF_PID" && $(readlink "/proc/$pid/ns/pid" 2>/dev/null) == "$space" ]] || continue
		echo "$(process_state "$pid") $(cat "/proc/$pid/comm" 2>/dev/null)"
	done
}

inside_are() {
	[[ $(inside) == "$1" ]]
}

ended() {
	wait_exit "$OUTSIDE_PID"
	assert_equal "$EXIT_STATUS" "$1"
}

@test "as pid 1, one line says how to have a graceful stop, unless --signal TERM= was given" {
	start_container -- "$TS_BIN"
	log_has 'as pid 1: TERM stops at once and drops what is in flight; .* STOPSIGNAL SIGINT .* --signal TERM=stop' 1
	kill -INT "$HANDOFF_PID"
	ended 0
	start_container --signal TERM=stop -- "$TS_BIN"
	refute log_has 'as pid 1' 1
	kill -INT "$HANDOFF_PID"
	ended 0
	# And who is not pid 1 is not told.
	start_serving -- "$TS_BIN"
	refute log_has 'as pid 1' 1
	stop_gracefully
}

# in_flight: a request that takes a while, in the background; its answer in $BATS_TEST_TMPDIR/answer, its pid in CLIENT.
in_flight() {
	http "$URL/sleep?ms=1500" >"$BATS_TEST_TMPDIR/answer" 2>/dev/null &
	CLIENT=$!
	wait_for established
}

established() {
	[[ -n $(ss -Htn state established "sport = :${URL##*:}") ]]
}

@test "INT to pid 1 is a graceful stop: what is in flight is answered" {
	start_container -- "$TS_BIN"
	hand_off 2
	in_flight
	kill -INT "$HANDOFF_PID"
	ended 0
	wait "$CLIENT"
	run cat "$BATS_TEST_TMPDIR/answer"
	assert_output --partial 'gen=2'
}

@test "TERM to pid 1 stops at once, with 0, or with 3 where something had to be killed" {
	start_container -- "$TS_BIN" --term-exits
	in_flight
	kill -TERM "$HANDOFF_PID"
	ended 0
	refute wait "$CLIENT"
	start_container --kill-timeout 100ms -- "$TS_BIN" --ignore-term
	kill -TERM "$HANDOFF_PID"
	ended 3
}

@test "TERM to pid 1 with --signal TERM=stop is a graceful stop" {
	start_container --signal TERM=stop -- "$TS_BIN"
	in_flight
	kill -TERM "$HANDOFF_PID"
	ended 0
	wait "$CLIENT"
	run cat "$BATS_TEST_TMPDIR/answer"
	assert_output --partial 'gen=1'
}

@test "pid 1 exits with the server's status" {
	run -3 "${CONTAINER[@]}" "$HANDOFF_BIN" run -- sh -c 'exit 3' 3>&-
	run -137 "${CONTAINER[@]}" "$HANDOFF_BIN" run -- sh -c 'kill -KILL $$' 3>&-
	run -127 "${CONTAINER[@]}" "$HANDOFF_BIN" run -- /no/such/program 3>&-
	run -5 "${CONTAINER[@]}" "$HANDOFF_BIN" run --restart never --ready now --settle 0 -- \
		sh -c 'sleep 0.3; exit 5' 3>&-
	run -0 "${CONTAINER[@]}" "$HANDOFF_BIN" run --ready now --settle 0 -- sh -c 'sleep 0.3; exit 0' 3>&-
}

@test "no signal that has no meaning ends pid 1" {
	local signal
	start_container -- "$TS_BIN"
	for signal in USR2 WINCH ALRM PIPE IO PWR QUIT RTMIN; do
		kill -"$signal" "$HANDOFF_PID"
	done
	wait_log 'ignored SIG' 8
	hand_off 2
	wait_for generation_is 2 "$URL/"
	kill -INT "$HANDOFF_PID"
	ended 0
}

@test "pid 1 reaps 1000 orphans that exit at random over 20 hand-offs: in their group, in sessions of their own, unknown" {
	local generation fds
	# Each generation leaves 48 before it serves; their parents exit at once.
	cat >"$BATS_TEST_TMPDIR/server.py" <<-'END'
		import os, random, time
		for number in range(48):
		    if os.fork() == 0:
		        if number % 3 > 0:
		            os.setsid()
		        if os.fork() == 0:
		            os.closerange(0, 64)
		            if number % 3 == 2:
		                # Nothing says any more whose it is.
		                os.execve("/bin/sleep", ["sleep", str(random.random() * 2)], {})
		            time.sleep(random.random() * 2)
		        os._exit(number)
		    os.wait()
		os.execv(os.environ["TS_BIN"], ["ts"])
	END
	start_container --max-draining 64 -- python3 "$BATS_TEST_TMPDIR/server.py"
	fds=$(fd_count "$HANDOFF_PID")
	for generation in {2..21}; do
		hand_off "$generation"
	done
	# Everything has ended by now, or within the 2 s that the youngest has.
	wait_log '\[gen 20\] gone'
	wait_for inside_are 'S ts'
	wait_for generation_is 21 "$URL/"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	assert_equal "$(grep -c '\] gone' "$HANDOFF_LOG")" 20
	refute grep -E 'killed|error|warning' "$HANDOFF_LOG"
	kill -INT "$HANDOFF_PID"
	ended 0
}

@test "pid 1 reaps within a second what exits while nothing else happens" {
	# Zombies of its own, made by who never waits, become ours when it goes.
	cat >"$BATS_TEST_TMPDIR/server.py" <<-'END'
		import os
		if os.environ["HANDOFF_GENERATION"] == "1":
		    for _ in range(300):
		        if os.fork() == 0:
		            os._exit(0)
		os.execv(os.environ["TS_BIN"], ["ts"])
	END
	start_container -- python3 "$BATS_TEST_TMPDIR/server.py"
	wait_for inside_count 301
	hand_off 2
	wait_log '\[gen 1\] gone'
	wait_for -t 1 inside_are 'S ts'
	kill -INT "$HANDOFF_PID"
	ended 0
}

inside_count() {
	(($(inside | wc -l) == $1))
}

@test "pid 1 stops the real server behind a shell by INT, and nothing is left to be killed with the container" {
	start_container -- sh -c '"$TS_BIN"; :'
	hand_off 2
	wait_log '\[gen 1\] gone'
	inside_are $'S sh\nS ts'
	in_flight
	kill -INT "$HANDOFF_PID"
	ended 0
	wait "$CLIENT"
	run cat "$BATS_TEST_TMPDIR/answer"
	assert_output --partial 'gen=2'
	refute grep -E 'killed' "$HANDOFF_LOG"
}

@test "pid 1 waits for a daemon that its server left behind, and stops it" {
	start_container -- "$TS_BIN" --leave-daemon
	hand_off 2
	wait_log '\[gen 1\] gone'
	inside_are $'S ts\nS ts'
	kill -INT "$HANDOFF_PID"
	ended 0
}

@test "a /proc of another pid namespace, which calls our children by other numbers, is refused" {
	run -125 unshare -pf --kill-child "$HANDOFF_BIN" run -l 127.0.0.1:0 -- "$TS_BIN" 3>&-
	assert_output --regexp 'handoff: ts: error: /proc is that of another pid namespace \(our pid is 1 here, and [0-9]+ there\): mount the one of this namespace$'
}

@test "without /proc hand-offs work, with a warning" {
	CONTAINER=(unshare -pfm --kill-child sh -c 'umount -l /proc && exec "$@"' sh)
	start_background "$HANDOFF_LOG" "${CONTAINER[@]}" "$HANDOFF_BIN" run -l 127.0.0.1:0 --settle 20ms -- "$TS_BIN"
	OUTSIDE_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	log_has 'warning: /proc is not there: processes that a server leaves behind are not waited for' 1
	HANDOFF_PID=$(children_of "$OUTSIDE_PID")
	hand_off 2
	wait_log '\[gen 1\] gone'
	# A sanitizer that looks for leaks at the exit needs it.
	nsenter -t "$HANDOFF_PID" -m -p mount -t proc proc /proc 3>&-
	kill -INT "$HANDOFF_PID"
	ended 0
}
