#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The active generation dies unasked: what is restarted, when, how often, and what the supervisor exits with.
# shellcheck disable=SC2030,SC2031,SC2154 # every test is a subshell of its own; run sets status and lines

load ../lib/helpers

setup() {
	common_setup
	SERVER="$BATS_TEST_TMPDIR/server"
	GATE="$BATS_TEST_TMPDIR/gate"
	good_server
}

teardown() {
	stop_all
}

good_server() {
	write_script "$SERVER" <<<"exec \"$TS_BIN\""
}

# Later starts exit with STATUS, before they are ready.
bad_server() {
	write_script "$SERVER" <<<"exit $1"
}

# gated_server N: generation N waits in its start for a line from $GATE, and exits instead where that is a number.
gated_server() {
	mkfifo "$GATE"
	write_script "$SERVER" <<-END
		if [ "\$HANDOFF_GENERATION" = $1 ]; then
			read -r status <"$GATE"
			[ -z "\$status" ] || exit "\$status"
		fi
		exec "$TS_BIN"
	END
}

# The delays that the log announced, in order.
delays() {
	sed -n 's/.*restarting in \([0-9]*\) ms$/\1/p' "$HANDOFF_LOG" | xargs
}

# The supervisor exits with STATUS, and nothing is left of it.
exits_with() {
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" "$1"
	assert_equal "$(survivors)" ''
}

# kills_active [SIG]: it has one generation, and loses it.
kills_active() {
	kill -s "${1:-KILL}" "$(pid_of 1)"
	wait_log '\[gen 1\] warning: died unasked: '
}

@test "an active server that is killed is started again, and the supervisor is as before" {
	start_serving -- "$SERVER"
	local fds
	fds=$(fd_count "$HANDOFF_PID")
	kills_active
	log_has '\[gen 1\] warning: died unasked: was killed by SIGKILL$' 1
	wait_log '\[gen 2\] active'
	assert_equal "$(delays)" 100
	assert_equal "$(gen_of "$URL")" 2
	wait_log '\[gen 1\] gone'
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 2)"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	hand_off 3
	stop_gracefully
}

@test "an active server that exits with a status other than 0 is started again" {
	write_script "$SERVER" <<-END
		[ "\$HANDOFF_GENERATION" != 1 ] || exec "$TS_BIN" --exit-after-ready 800:9
		exec "$TS_BIN"
	END
	start_serving -- "$SERVER"
	wait_log '\[gen 1\] warning: died unasked: exited with status 9$'
	wait_log '\[gen 2\] active'
	stop_gracefully
}

@test "an active server that exits with 0 ends the supervisor with 0, under on-failure" {
	start_serving -- "$SERVER"
	# ts drains on INT, and exits with 0.
	kill -INT "$(pid_of 1)"
	exits_with 0
	log_has 'ending, since the server ended by itself with status 0 \(--restart on-failure\)$' 1
	assert_equal "$(delays)" ''
	run grep -c 'gen 2' "$HANDOFF_LOG"
	assert_output 0
}

@test "an active server that exits with 0 is started again, under always" {
	start_serving --restart always -- "$SERVER"
	kill -INT "$(pid_of 1)"
	wait_log '\[gen 1\] warning: died unasked: exited with status 0$'
	wait_log '\[gen 2\] active'
	assert_equal "$(gen_of "$URL")" 2
	stop_gracefully
}

@test "under never, the supervisor exits with the status of the server that died" {
	start_serving --restart never -- "$TS_BIN" --exit-after-ready 800:9
	exits_with 9
	log_has 'error: giving up \(--restart never\), with status 9$' 1
	assert_equal "$(delays)" ''
}

@test "under never, a signal that killed the server makes 128 and its number" {
	start_serving --restart never -- "$SERVER"
	kills_active USR2
	exits_with 140
	start_serving --restart never -- "$SERVER"
	kills_active KILL
	exits_with 137
}

@test "under never, a server that exits with 0 ends the supervisor with 0" {
	start_serving --restart never -- "$SERVER"
	kill -INT "$(pid_of 1)"
	exits_with 0
}

@test "under never, a failed hand-off is no reason to exit" {
	start_serving --restart never -- "$SERVER"
	bad_server 5
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] error: failed to start: exited with status 5 .*; generation 1 still serves'
	assert_equal "$(gen_of "$URL")" 1
	good_server
	hand_off 3
	stop_gracefully
}

@test "the delay doubles with each failure, up to its maximum, and the listener is held all the while" {
	local answer="$BATS_TEST_TMPDIR/answer" client
	start_serving --restart-delay 50ms --restart-delay-max 300ms -- "$SERVER"
	bad_server 5
	kills_active
	start_background "$answer" "$LOAD_BIN" --target "$TARGET" --one --timeout 60s
	client=$STARTED_PID
	wait_log 'restarting in' 6
	good_server
	wait_log '\[gen [0-9]+\] active' 2
	run delays
	assert_output --regexp '^50 100 200 300 300 300( 300)*$'
	# Who came in the middle of it was not turned away.
	wait_exit "$client"
	assert_equal "$EXIT_STATUS" 0
	stop_gracefully
}

@test "a command that is not there for a while is tried again, and serves once it is back" {
	start_serving --restart-delay 50ms --restart-delay-max 100ms -- "$SERVER"
	local fds
	fds=$(fd_count "$HANDOFF_PID")
	mv "$SERVER" "$SERVER.away"
	kills_active
	wait_log "error: failed to start: cannot exec $SERVER: No such file or directory\$" 3
	mv "$SERVER.away" "$SERVER"
	wait_log '\[gen [0-9]+\] active' 2
	wait_for served
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	stop_gracefully
}

served() {
	[[ -n $(gen_of "$URL") ]]
}

@test "after --max-restarts failures in a row the supervisor exits with the status of the last one" {
	start_serving --restart-delay 20ms --max-restarts 3 -- "$SERVER"
	bad_server 7
	kills_active
	exits_with 7
	assert_equal "$(delays)" '20 40 80'
	log_has 'error: giving up after --max-restarts=3 failures in a row, with status 7$' 1
	log_has '\[gen 4\] error: failed to start: exited with status 7 ' 1
	run grep -c 'gen 5' "$HANDOFF_LOG"
	assert_output 0
}

@test "--max-restarts counts failures of active generations in a row as well" {
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --exit-after-ready 400:6"
	start_serving --settle 0 --restart-delay 20ms --max-restarts 2 -- "$SERVER"
	exits_with 6
	assert_equal "$(delays)" '20 40'
	assert_equal "$(grep -c 'died unasked: exited with status 6' "$HANDOFF_LOG")" 3
}

@test "under always, --max-restarts ends with 0 where the server exits with 0" {
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --exit-after-ready 400:0"
	start_serving --settle 0 --restart always --restart-delay 20ms --max-restarts 1 -- "$SERVER"
	exits_with 0
	assert_equal "$(delays)" 20
}

@test "a hand-off that is asked during the back-off starts at once; if it fails, the back-off goes on" {
	start_serving --restart-delay 60s --restart-delay-max 60s -- "$SERVER"
	kills_active
	wait_log 'restarting in 60000 ms'
	bad_server 5
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] error: failed to start: exited with status 5 after .*, before it was ready$'
	wait_log 'restarting in 60000 ms' 2
	good_server
	hand_off 3
	hand_off 4
	wait_log '\[gen 3\] gone after draining'
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 4)"
	stop_gracefully
}

@test "HUP during the back-off starts at once too" {
	start_serving --restart-delay 60s --restart-delay-max 60s -- "$SERVER"
	kills_active
	wait_log 'restarting in 60000 ms'
	kill -HUP "$HANDOFF_PID"
	wait_log '\[gen 2\] active'
	stop_gracefully
}

@test "a stop during the back-off ends it at once" {
	local signal
	for signal in INT TERM; do
		start_serving --restart-delay 60s --restart-delay-max 60s -- "$SERVER"
		kills_active
		wait_log 'restarting in 60000 ms'
		kill -s "$signal" "$HANDOFF_PID"
		exits_with 0
	done
}

@test "when the active server dies during a hand-off, that hand-off is its restart" {
	local answer="$BATS_TEST_TMPDIR/answer" client
	gated_server 2
	start_serving -- "$SERVER"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	kills_active
	wait_log '\[gen 1\] gone'
	start_background "$answer" "$LOAD_BIN" --target "$TARGET" --one --timeout 60s
	client=$STARTED_PID
	echo >"$GATE"
	wait_log '\[gen 2\] active'
	wait_exit "$client"
	run cat "$answer"
	assert_output --regexp '^gen=2 '
	assert_equal "$(delays)" ''
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 2)"
	hand_off 3
	stop_gracefully
}

@test "when the active server exits with 0 during a hand-off, the hand-off goes on" {
	gated_server 2
	start_serving -- "$SERVER"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	kill -INT "$(pid_of 1)"
	wait_log '\[gen 1\] gone'
	echo >"$GATE"
	wait_log '\[gen 2\] active'
	assert_equal "$(gen_of "$URL")" 2
	stop_gracefully
}

@test "when the active server dies during a hand-off that then fails, it is started again after a delay" {
	gated_server 2
	start_serving -- "$SERVER"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	kills_active
	echo 5 >"$GATE"
	wait_log '\[gen 2\] error: failed to start: exited with status 5 after .*, before it was ready$'
	wait_log '\[gen 3\] active'
	assert_equal "$(delays)" 100
	assert_equal "$(gen_of "$URL")" 3
	stop_gracefully
}

@test "under never, an active server that dies during a hand-off that then fails ends the supervisor" {
	gated_server 2
	start_serving --restart never -- "$SERVER"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	kills_active
	echo 5 >"$GATE"
	exits_with 5
}

@test "a death while an older generation drains is restarted, and the older one finishes its request" {
	local answer="$BATS_TEST_TMPDIR/answer" client
	start_serving -- "$SERVER"
	start_background "$answer" "$LOAD_BIN" --target "$TARGET" --one --path '/sleep?ms=4000' --timeout 60s
	client=$STARTED_PID
	wait_for connected
	assert_equal "$(gen_of "$URL")" 1
	hand_off 2
	kill -KILL "$(pid_of 2)"
	wait_log '\[gen 2\] warning: died unasked: '
	wait_log '\[gen 3\] active'
	wait_exit "$client"
	run cat "$answer"
	assert_output --regexp '^gen=1 '
	wait_log '\[gen 1\] gone after draining'
	stop_gracefully
}

connected() {
	[[ -n $(ss -Htn state established "sport = :${URL##*:}") ]]
}

@test "what a dead server leaves in its group is told to drain, and the restart does not wait for it" {
	start_serving --drain-timeout 1s -- "$TS_BIN" --leave-helper=stubborn
	kills_active
	wait_log '\[gen 1\] draining: SIGINT to what is left of its process group'
	wait_log '\[gen 2\] active'
	wait_log '\[gen 1\] warning: killed: not drained within --drain-timeout'
	wait_log '\[gen 1\] gone'
	# The new one has a helper too, which ignores all but the kill.
	stop_gracefully 3
}

@test "many deaths of active servers leave nothing behind" {
	start_serving --settle 0 --restart-delay 1ms --restart-delay-max 5ms -- "$SERVER"
	local fds number
	fds=$(fd_count "$HANDOFF_PID")
	for ((number = 1; number <= 20; number++)); do
		kill -KILL "$(pid_of "$number")"
		wait_log "\\[gen $((number + 1))\\] active"
		wait_log "\\[gen $number\\] gone"
	done
	assert_equal "$(gen_of "$URL")" 21
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 21)"
	stop_gracefully
}
