#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The exit status of `handoff run`: 0 after an asked stop however the server left, 3 where one had to be killed, the
# server's own where it left unasked, and 124 to 127 where nothing was ever served.
# shellcheck disable=SC2030,SC2031,SC2154 # every test is a subshell of its own; run sets status and lines

load ../lib/helpers

setup() {
	common_setup
	QUITTER="$BATS_TEST_TMPDIR/quitter"
	# Says ready; leaves with $1 when told to by INT or TERM, and with $2 when USR2 makes it leave unasked.
	cat >"$QUITTER" <<-'END'
		#!/usr/bin/env python3
		import os, signal, sys
		def leave_with(word):
		    return lambda *_: os._exit(int(word))
		signal.signal(signal.SIGINT, leave_with(sys.argv[1]))
		signal.signal(signal.SIGTERM, leave_with(sys.argv[1]))
		signal.signal(signal.SIGUSR2, leave_with(sys.argv[2]))
		os.write(int(os.environ["HANDOFF_READY_FD"]), b"\n")
		while True:
		    signal.pause()
	END
	chmod 755 "$QUITTER"
}

teardown() {
	stop_all
}

# start_quitter ASKED UNASKED OPTIONS...: the quitter with these statuses is active.
start_quitter() {
	start_handoff -l 127.0.0.1:0 --settle 0 "${@:3}" -- "$QUITTER" "$1" "$2"
	wait_log '\[gen 1\] active'
}

# exits_with STATUS: so does the supervisor, and nothing is left.
exits_with() {
	wait_exit "$HANDOFF_PID" || return
	assert_equal "$EXIT_STATUS" "$1"
	assert_equal "$(survivors)" ''
}

# first_start STATUS REASON WORDS...: a first start that fails ends `run` with STATUS and says REASON.
first_start() {
	start_handoff -l 127.0.0.1:0 "${@:3}"
	exits_with "$1"
	log_has "\[gen 1\] error: failed to start: $2" 1 || complain "$2"
	run grep -c 'error: ' "$HANDOFF_LOG"
	assert_output 1
	# Nobody waits for it to come by itself.
	run grep -E 'restarting|started .*gen 2' "$HANDOFF_LOG"
	assert_output ''
}

complain() {
	echo "not in the log: $1"
	show_log "$HANDOFF_LOG"
	return 1
}

@test "an asked graceful stop is 0, whatever status the server leaves with" {
	local status
	for status in 0 1 3 130 143; do
		start_quitter "$status" 9
		kill -INT "$HANDOFF_PID"
		exits_with 0
	done
}

@test "an asked immediate stop is 0, whatever status the server leaves with" {
	local status
	for status in 0 1 130 143; do
		start_quitter "$status" 9 --restart always
		kill -TERM "$HANDOFF_PID"
		exits_with 0
	done
}

@test "an asked stop is 0 where the signal itself ends the server" {
	local signal
	for signal in INT TERM; do
		start_handoff -l 127.0.0.1:0 --ready now --settle 0 -- sleep 1000
		wait_log '\[gen 1\] active'
		kill "-$signal" "$HANDOFF_PID"
		exits_with 0
	done
}

@test "an asked stop is 0 where the server crashes while it drains" {
	start_handoff -l 127.0.0.1:0 --ready pipe -- "$TS_BIN" --ready pipe --ignore-int
	wait_log '\[gen 1\] active'
	kill -INT "$HANDOFF_PID"
	wait_log 'draining: SIGINT'
	kill -ABRT "$(pid_of 1)"
	exits_with 0
}

@test "a server that leaves unasked with 0 ends the supervisor with 0 under on-failure" {
	start_quitter 7 0
	kill -USR2 "$(pid_of 1)"
	exits_with 0
	run grep -c restarting "$HANDOFF_LOG"
	assert_output 0
}

@test "a server that leaves unasked with 0 is restarted under always" {
	start_quitter 0 0 --restart always
	kill -USR2 "$(pid_of 1)"
	wait_log '\[gen 2\] active'
	stop_gracefully 0
}

@test "a server that fails unasked is restarted under on-failure" {
	start_quitter 0 3
	kill -USR2 "$(pid_of 1)"
	wait_log '\[gen 1\] warning: died unasked: exited with status 3'
	wait_log '\[gen 2\] active'
	kill -SEGV "$(pid_of 2)"
	wait_log '\[gen 3\] active'
	stop_gracefully 0
}

@test "under never, the server's own status is the supervisor's: 0, 5, SEGV, KILL" {
	start_quitter 7 0 --restart never
	kill -USR2 "$(pid_of 1)"
	exits_with 0
	start_quitter 7 5 --restart never
	kill -USR2 "$(pid_of 1)"
	exits_with 5
	start_quitter 7 5 --restart never
	kill -SEGV "$(pid_of 1)"
	exits_with 139
	start_quitter 7 5 --restart never
	kill -KILL "$(pid_of 1)"
	exits_with 137
	log_has 'died unasked: .*SIGKILL' 1
}

@test "INT and TERM that somebody sends to the server itself are no asked stop" {
	start_handoff -l 127.0.0.1:0 --ready now --settle 0 --restart never -- sleep 1000
	wait_log '\[gen 1\] active'
	kill -INT "$(pid_of 1)"
	exits_with 130
	start_handoff -l 127.0.0.1:0 --ready now --settle 0 --restart never -- sleep 1000
	wait_log '\[gen 1\] active'
	kill -TERM "$(pid_of 1)"
	exits_with 143
}

@test "after --max-restarts failures in a row, the last server's status is the supervisor's" {
	start_handoff -l 127.0.0.1:0 --settle 0 --restart-delay 1ms --max-restarts 2 -- "$QUITTER" 0 6
	local number
	for number in 1 2 3; do
		wait_log "\\[gen $number\\] active"
		kill -USR2 "$(pid_of "$number")"
	done
	exits_with 6
	run grep -c '\] started ' "$HANDOFF_LOG"
	assert_output 3
}

@test "a stop asked during the back-off is 0" {
	start_quitter 0 3 --restart-delay 1h --restart-delay-max 1h
	kill -USR2 "$(pid_of 1)"
	wait_log 'restarting in 3600000 ms'
	kill -INT "$HANDOFF_PID"
	exits_with 0
	start_quitter 0 3 --restart-delay 1h --restart-delay-max 1h
	kill -USR2 "$(pid_of 1)"
	wait_log 'restarting in 3600000 ms'
	kill -TERM "$HANDOFF_PID"
	exits_with 0
}

@test "a first start that fails ends with the server's status, 1 where that is 0" {
	first_start 3 'exited with status 3 after .*, before it was ready' -- "$TS_BIN" --exit-at-once=3
	first_start 1 'exited with status 0 after .*, before it was ready' -- "$TS_BIN" --exit-at-once=0
	first_start 139 'was killed by SIGSEGV.* after .*, before it was ready' -- "$TS_BIN" --crash-on-start SEGV
	first_start 137 'was killed by SIGKILL.* after .*, before it was ready' -- "$TS_BIN" --crash-on-start KILL
	first_start 1 'it put itself in the background: run it in the foreground' --kill-timeout 1s -- "$TS_BIN" --background
}

@test "a first start that is ready and then leaves within the settling time has failed: its status, 1 for 0" {
	first_start 4 'exited with status 4 .* after it was ready, within the settling time' \
		--settle 20s -- "$TS_BIN" --ready pipe --exit-after-ready 50:4
	first_start 1 'exited with status 0 .* after it was ready, within the settling time' \
		--settle 20s -- "$TS_BIN" --ready pipe --exit-after-ready 50:0
}

@test "a first start that is not ready in time is 124, also where the server has to be killed" {
	first_start 124 'not ready in time \(300 ms\): no newline on the ready pipe' \
		--ready pipe --ready-timeout 300ms -- "$TS_BIN" --never-ready
	first_start 124 'not ready in time' --ready pipe --ready-timeout 1s --kill-timeout 200ms \
		-- "$TS_BIN" --never-ready --ignore-int --ignore-term
	log_has '\[gen 1\] warning: killed: did not end when told to' 1
}

@test "a start-up error of our own is 125, a command that cannot run 126, one that is not there 127" {
	start_handoff -l nowhere -- true
	exits_with 125
	start_handoff -l 127.0.0.1:0 --env-file /no/such/file -- true
	exits_with 125
	first_start 126 'cannot exec /etc/passwd: Permission denied' -- /etc/passwd
	first_start 126 'cannot change to /no/such/folder: No such file or directory' --chdir /no/such/folder -- true
	first_start 127 'cannot exec /no/such/file: No such file or directory' -- /no/such/file
}

@test "a graceful stop in which --drain-timeout had to kill is 3" {
	start_handoff -l 127.0.0.1:0 --drain-timeout 200ms -- "$TS_BIN" --ready pipe --ignore-int
	wait_log '\[gen 1\] active'
	kill -INT "$HANDOFF_PID"
	exits_with 3
	log_has '\[gen 1\] warning: killed: not drained within --drain-timeout' 1
}

@test "an immediate stop in which --kill-timeout had to kill is 3" {
	start_handoff -l 127.0.0.1:0 --kill-timeout 200ms -- "$TS_BIN" --ready pipe --ignore-term
	wait_log '\[gen 1\] active'
	kill -TERM "$HANDOFF_PID"
	exits_with 3
	log_has '\[gen 1\] warning: killed: did not end when told to' 1
}

@test "a stop in which a helper of the server had to be killed is 3" {
	start_handoff -l 127.0.0.1:0 --kill-timeout 200ms -- "$TS_BIN" --ready pipe --leave-helper=stubborn
	wait_log '\[gen 1\] active'
	kill -TERM "$HANDOFF_PID"
	exits_with 3
}

@test "a stop in which a starting server had to be killed is 3, in which it went by itself 0" {
	start_handoff -l 127.0.0.1:0 --ready pipe --kill-timeout 200ms -- \
		sh -c "trap '' INT TERM; echo deaf; while :; do sleep 1; done"
	wait_log '^deaf$'
	kill -INT "$HANDOFF_PID"
	exits_with 3
	start_handoff -l 127.0.0.1:0 --ready pipe -- "$TS_BIN" --never-ready
	wait_log '\[gen 1\] started'
	kill -INT "$HANDOFF_PID"
	exits_with 0
}

@test "a kill at the drain timeout of an earlier hand-off does not make a later stop 3" {
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$TS_BIN' --ready pipe --ignore-int"
	start_handoff -l 127.0.0.1:0 --settle 0 --drain-timeout 200ms -- "$BATS_TEST_TMPDIR/server"
	wait_log '\[gen 1\] active'
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$TS_BIN' --ready pipe"
	hand_off 2
	wait_log '\[gen 1\] warning: killed: not drained within --drain-timeout'
	wait_log '\[gen 1\] gone'
	stop_gracefully 0
}

# start_draining OPTIONS...: generation 1, which does not end by itself, drains, and the quitter is active.
start_draining() {
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$TS_BIN' --ready pipe --ignore-int"
	start_serving --settle 0 "$@" -- "$BATS_TEST_TMPDIR/server"
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$QUITTER' 0 5"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] active'
	wait_log '\[gen 1\] draining'
}

@test "the status of a draining generation is never the supervisor's" {
	start_draining
	kill -SEGV "$(pid_of 1)"
	wait_log '\[gen 1\] gone'
	run is_gone "$(pid_of 2)"
	assert_failure
	kill -INT "$HANDOFF_PID"
	exits_with 0
}

@test "an active generation that dies under never ends the supervisor with its own status, after the draining one is gone" {
	start_draining --restart never
	kill -USR2 "$(pid_of 2)"
	wait_log '\[gen 2\] gone'
	run is_gone "$HANDOFF_PID"
	assert_failure
	kill -SEGV "$(pid_of 1)"
	exits_with 5
}

@test "a draining generation that fails first leaves the status of the active one as it is" {
	start_draining --restart never
	kill -SEGV "$(pid_of 1)"
	wait_log '\[gen 1\] gone'
	kill -USR2 "$(pid_of 2)"
	exits_with 5
}

@test "a stop asked while it winds down after a death is an asked stop" {
	start_draining --restart never --kill-timeout 5s
	kill -USR2 "$(pid_of 2)"
	wait_log '\[gen 2\] gone'
	kill -TERM "$HANDOFF_PID"
	# The status is still that of the death: it is what ended the service.
	exits_with 5
}

@test "a failed hand-off never is the supervisor's status" {
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$QUITTER' 0 5"
	start_serving --settle 0 -- "$BATS_TEST_TMPDIR/server"
	write_script "$BATS_TEST_TMPDIR/server" <<<"exit 9"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] gone'
	kill -USR2 "$(pid_of 1)"
	wait_log 'restarting'
	stop_gracefully 0
}
