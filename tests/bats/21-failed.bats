#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Failed hand-offs, each kind: the log says which it was, the old generation serves as if nothing had been, nothing is
# left behind, and the next hand-off succeeds.
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
	write_script "$SERVER" <<<"exec \"$TS_BIN\" ${GOOD_OPTIONS:-}"
}

# start_old OPTIONS...: generation 1 serves $SERVER, under load; what it looks like is noted.
start_old() {
	start_serving "$@" -- "$SERVER"
	OLD=$(pid_of 1)
	OLD_FLAGS=$(listener_flags "$OLD")
	# The descriptors of a start are closed once it is over.
	SUPERVISOR_FDS=$(fd_count "$HANDOFF_PID")
	start_load "$TARGET" --rate 200 --keepalive 4
}

listener_flags() {
	sed -n 's/^flags:\s*//p' "/proc/$1/fdinfo/3"
}

as_before() {
	assert_equal "$(listener_flags "$OLD")" "$OLD_FLAGS"
	assert_equal "$(children_of "$HANDOFF_PID")" "$OLD"
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	assert_equal "$(fd_count "$HANDOFF_PID")" "$SUPERVISOR_FDS"
	assert_equal "$(gen_of "$URL")" 1
	local left
	left=$(survivors)
	run grep -vE "^($LOAD_PID|$OLD) " <<<"$left"
	assert_output ''
}

# fails REASON: the hand-off to generation 2 fails, its log line is exactly this REASON (a regex), and nothing changes.
fails() {
	kill -USR1 "$HANDOFF_PID"
	failed 2 "$1"
	wait_log '\[gen 2\] gone'
	as_before
}

# failed N REASON: waits until that start has failed, with exactly this REASON.
failed() {
	wait_log "\\[gen $1\\] error: failed to start: "
	run grep -E "\\[gen $1\\] error: " "$HANDOFF_LOG"
	assert_output --regexp "^handoff: server: \\[gen $1\\] error: failed to start: $2; generation 1 still serves\$"
}

# The next hand-off succeeds, and no client has noticed anything.
recovers() {
	good_server
	hand_off 3
	wait_log '\[gen 1\] gone after draining'
	wait_for generation_is 3 "$URL"
	finish_load
	assert_equal "$(load_value failures)" 0
	run load_value generations 2
	assert_failure
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 3)"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$SUPERVISOR_FDS"
	stop_gracefully
}

@test "a new server that exits at once fails the hand-off and changes nothing" {
	start_old
	write_script "$SERVER" <<<'exit 1'
	fails 'exited with status 1 after [0-9.]+ m?s, before it was ready'
	recovers
}

@test "a failed start leaves the O_NONBLOCK that the old server has set" {
	GOOD_OPTIONS=--set-nonblock
	good_server
	start_old
	(((8#$OLD_FLAGS & 8#4000) != 0))
	write_script "$SERVER" <<<'exit 1'
	fails 'exited with status 1 after [0-9.]+ m?s, before it was ready'
	recovers
}

@test "a failed start leaves the listener blocking where the old server has left it so" {
	start_old
	(((8#$OLD_FLAGS & 8#4000) == 0))
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --never-ready"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	assert_equal "$(listener_flags "$OLD")" "$OLD_FLAGS"
	kill -KILL "$(pid_of 2)"
	failed 2 'was killed by SIGKILL after [0-9.]+ m?s, before it was ready'
	wait_log '\[gen 2\] gone'
	as_before
	recovers
}

@test "a new server that exits after a second fails the hand-off and changes nothing" {
	start_old
	write_script "$SERVER" <<<'sleep 1; exit 3'
	fails 'exited with status 3 after [0-9.]+ s, before it was ready'
	recovers
}

@test "a new server that exits with 0 before it is ready has failed all the same" {
	start_old
	write_script "$SERVER" <<<'exit 0'
	fails 'exited with status 0 after [0-9.]+ m?s, before it was ready'
	recovers
}

@test "a new server that is never ready fails at the ready timeout" {
	start_old --ready-timeout 3s
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --never-ready"
	fails 'not ready in time \(3\.0 s\): no newline on the ready pipe and no READY=1 .*'
	recovers
}

@test "a new server that is never seen accepting fails at the ready timeout, and the address is named" {
	GOOD_OPTIONS='--ready none'
	good_server
	start_old --ready-timeout 3s
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --never-ready"
	fails "not ready in time \\(3\\.0 s\\): nobody waits on ${URL#http://} yet"
	recovers
}

@test "a new server that serves but never says ready loses no connection when it is ended" {
	start_old --ready pipe --ready-timeout 3s
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --ready none"
	fails 'not ready in time \(3\.0 s\): no newline on the ready pipe'
	good_server
	hand_off 3
	finish_load
	assert_equal "$(load_value failures)" 0
	# It did take connections meanwhile.
	(($(load_value generations 2 answers) > 0))
	stop_gracefully
}

@test "a failing server that does not end when told to is killed with its group, and blocks no hand-off meanwhile" {
	start_old --ready-timeout 3s
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --never-ready --ignore-int --ignore-term --leave-helper=stubborn"
	kill -USR1 "$HANDOFF_PID"
	failed 2 'not ready in time \(3\.0 s\): .*'
	good_server
	hand_off 3
	wait_log '\[gen 2\] warning: killed: did not end when told to'
	wait_log '\[gen 2\] gone'
	recovered_to 3
}

# recovered_to N: only that generation is there, and no client has noticed anything.
recovered_to() {
	wait_log '\[gen 1\] gone'
	finish_load
	assert_equal "$(load_value failures)" 0
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of "$1")"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$SUPERVISOR_FDS"
	stop_gracefully
}

@test "a new server that is ready and then exits within the settling time fails the hand-off" {
	mkfifo "$GATE"
	start_old --settle 2s
	# Its death waits until its readiness was seen: where both are there, the exit is what counts.
	write_script "$SERVER" <<-END
		echo >&4
		read -r _ <"$GATE"
		exit 7
	END
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] ready after'
	echo >"$GATE"
	failed 2 'exited with status 7 [0-9.]+ m?s after it was ready, within the settling time'
	wait_log '\[gen 2\] gone'
	as_before
	recovers
}

@test "a new server that says ready and exits at once has failed, not become ready" {
	start_old
	write_script "$SERVER" <<-'END'
		echo >&4
		exit 7
	END
	kill -USR1 "$HANDOFF_PID"
	failed 2 'exited with status 7 .*'
	run grep -E '\[gen 2\] active' "$HANDOFF_LOG"
	assert_output ''
	wait_log '\[gen 2\] gone'
	as_before
	recovers
}

@test "a command that is gone fails the hand-off" {
	start_old
	rm "$SERVER"
	fails "cannot exec $SERVER: No such file or directory"
	recovers
}

@test "a command that may not be executed fails the hand-off" {
	start_old
	chmod 644 "$SERVER"
	fails "cannot exec $SERVER: Permission denied"
	recovers
}

@test "a command that has become a folder fails the hand-off" {
	start_old
	rm "$SERVER"
	mkdir "$SERVER"
	fails "cannot exec $SERVER: Permission denied"
	rmdir "$SERVER"
	recovers
}

@test "a command whose interpreter is not there fails the hand-off, and the log tells that from a missing file" {
	start_old
	printf '#!/nonexistent/interpreter\n' >"$SERVER.bad"
	chmod 755 "$SERVER.bad"
	mv "$SERVER.bad" "$SERVER"
	fails "cannot exec $SERVER: the file is there, but its interpreter is not .*"
	recovers
}

@test "a server that binds the address itself fails the hand-off, and its own words are in the log" {
	start_old
	write_script "$SERVER" <<<"unset LISTEN_FDS; exec \"$TS_BIN\" --bind ${URL#http://}"
	fails 'exited with status 1 after [0-9.]+ m?s, before it was ready'
	log_has "cannot bind ${URL#http://}: Address already in use" 1
	recovers
}

@test "a server that closes all its descriptors fails the hand-off at once, where only the pipe counts" {
	start_old --ready pipe
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --close-fds"
	fails 'the ready pipe was closed without a newline \(.*closes its listener too\)'
	recovers
}

@test "a server that closes all its descriptors fails the hand-off at the ready timeout, where anything counts" {
	GOOD_OPTIONS='--ready none'
	good_server
	start_old --ready-timeout 3s
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --close-fds"
	fails "not ready in time \\(3\\.0 s\\): nobody waits on ${URL#http://} yet"
	recovers
}

@test "a new server that crashes fails the hand-off, and the signal is named" {
	start_old
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --crash-on-start SEGV"
	fails 'was killed by SIGSEGV( \(core dumped\))? after [0-9.]+ m?s, before it was ready'
	recovers
}

@test "a new server that puts itself in the background fails the hand-off, and nothing of it stays" {
	start_old
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --background"
	fails 'it put itself in the background: run it in the foreground'
	# It may have served for a moment, and has drained then.
	good_server
	hand_off 3
	recovered_to 3
}

@test "a --chdir folder that is gone fails the hand-off" {
	mkdir "$BATS_TEST_TMPDIR/folder"
	start_old --chdir "$BATS_TEST_TMPDIR/folder"
	rmdir "$BATS_TEST_TMPDIR/folder"
	fails "cannot change to $BATS_TEST_TMPDIR/folder: No such file or directory"
	mkdir "$BATS_TEST_TMPDIR/folder"
	recovers
}

@test "a malformed --env-file fails the hand-off, and the line is named" {
	local file="$BATS_TEST_TMPDIR/env"
	echo 'A=1' >"$file"
	start_old --env-file "$file"
	printf 'A=2\nthis is no assignment\n' >"$file"
	fails ".*$file.*line 2.*"
	echo 'A=2' >"$file"
	recovers
}

@test "an --env-file that is gone fails the hand-off" {
	local file="$BATS_TEST_TMPDIR/env"
	echo 'A=1' >"$file"
	start_old --env-file "$file"
	rm "$file"
	fails ".*$file.*No such file or directory"
	echo 'A=2' >"$file"
	recovers
}

@test "twenty failed hand-offs of changing kinds, each before a good one, poison none of the good ones" {
	local number=1 round good=1 file="$BATS_TEST_TMPDIR/env"
	: >"$file"
	start_old --settle 50ms --env-file "$file"
	for ((round = 0; round < 20; round++)); do
		case $((round % 5)) in
		0) write_script "$SERVER" <<<'exit 1' ;;
		1) rm "$SERVER" ;;
		2) echo 'no assignment' >"$file" ;;
		3) write_script "$SERVER" <<<"exec \"$TS_BIN\" --crash-on-start SEGV" ;;
		4) write_script "$SERVER" <<<"exec \"$TS_BIN\" --background" ;;
		esac
		kill -USR1 "$HANDOFF_PID"
		number=$((number + 1))
		wait_log "\\[gen $number\\] error: failed to start: .*; generation $good still serves"
		# At once: nobody waits until what failed is gone.
		good_server
		: >"$file"
		number=$((number + 1))
		hand_off "$number"
		wait_log "\\[gen $good\\] gone after draining"
		good=$number
	done
	assert_equal "$number" 41
	wait_log '\[gen 40\] gone'
	wait_for generation_is 41 "$URL"
	recovered_to 41
}

@test "a failed hand-off in which others were asked is followed by exactly one of them" {
	mkfifo "$GATE"
	start_old
	write_script "$SERVER" <<-END
		[ "\$HANDOFF_GENERATION" != 2 ] || { read -r _ <"$GATE"; exit 1; }
		exec "$TS_BIN"
	END
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	kill -USR1 "$HANDOFF_PID"
	kill -USR1 "$HANDOFF_PID"
	wait_log 'hand-off asked by SIGUSR1' 2
	echo >"$GATE"
	failed 2 'exited with status 1 .*'
	wait_log '\[gen 3\] active'
	recovered_to 3
}
