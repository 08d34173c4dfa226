#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# When a new server is ready, by each way of --ready but `accepting`, and what it is told when it is not.
# shellcheck disable=SC2030,SC2031,SC2153,SC2154 # every test is a subshell of its own; others set HANDOFF_LOG, status

load ../lib/helpers

setup() {
	common_setup
	SPEAKER="$helpers_dir/speaker.py"
	GATE="$BATS_TEST_TMPDIR/gate"
	mkfifo "$GATE"
	SERVER="$BATS_TEST_TMPDIR/server"
}

teardown() {
	stop_all
}

# start HOW [OPTIONS...] -- COMMAND...: with a listener, no settling time, and every line of the log.
start() {
	start_handoff -l 127.0.0.1:0 --settle 0 --log-level debug --ready "$@"
}

# ready_by REASON: generation 1 becomes active, and was ready for that REASON (a regex).
ready_by() {
	wait_log '\[gen 1\] active' || return
	log_has "\[gen 1\] ready after [^(]* \($1\)" 1 || complain "$1"
}

# fails_with STATUS REASON: the first start fails, with exactly this REASON (a regex), and nothing is left.
fails_with() {
	wait_exit "$HANDOFF_PID" || return
	log_has "\[gen 1\] error: failed to start: $2\$" 1 || complain "$2" || return
	assert_equal "$EXIT_STATUS" "$1"
	assert_equal "$(survivors)" ''
}

complain() {
	echo "not in the log: $1"
	show_log "$HANDOFF_LOG"
	return 1
}

not_ready() {
	run grep -E '\] ready after|\] active' "$HANDOFF_LOG"
	assert_output ''
}

open_gate() {
	echo >"$GATE"
}

# --- pipe -----------------------------------------------------------------------------------------------------------

@test "pipe: a newline is readiness" {
	start pipe -- "$SPEAKER" 'pipe=\n'
	ready_by 'pipe: a newline on the ready pipe'
	stop_gracefully
}

@test "pipe: what comes before the newline is kept as status, made printable, and what comes after it is ignored" {
	start pipe -- "$SPEAKER" 'pipe=warming' gate="$GATE" 'pipe= up\x1b[1m\nmore\nand more' 'say=said'
	wait_log 'gen 1\] started'
	not_ready
	open_gate
	ready_by 'pipe: a newline on the ready pipe'
	wait_log '^said'
	wait_log '\[gen 1\] status: warming up\\x1b\[1m$'
	run grep -c 'status:' "$HANDOFF_LOG"
	assert_output 1
	stop_gracefully
}

@test "pipe: a word that comes byte by byte is readiness when it is complete" {
	start pipe -- "$TS_BIN" --ready-late-byte-by-byte=150
	ready_by 'pipe: a newline on the ready pipe'
	log_has 'status: slow$' 1
	# Four gaps.
	(($(sed -n 's/.*ready after \([0-9]*\) ms .*/\1/p' "$HANDOFF_LOG") >= 600))
	stop_gracefully
}

@test "pipe: a megabyte without a newline never blocks the server, and the timeout says what is missing" {
	start pipe --ready-timeout 2s -- "$TS_BIN" --ready pipe --ready-bytes 1048576
	local address
	wait_log 'holding'
	address=$(sed -n 's/.*holding \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$HANDOFF_LOG")
	wait_for generation_is 1 "http://$address"
	not_ready
	fails_with 124 'not ready in time \(2\.0 s\): no newline on the ready pipe'
}

@test "pipe: a newline after a megabyte is readiness all the same" {
	start pipe -- sh -c "head -c 1048576 /dev/zero >&\"\$HANDOFF_READY_FD\"; exec '$SPEAKER' 'pipe=\\n'"
	ready_by 'pipe: a newline on the ready pipe'
	stop_gracefully
}

@test "pipe: noise after the word harms nothing" {
	start pipe -- "$TS_BIN" --ready pipe --ready-then-garbage
	ready_by 'pipe: a newline on the ready pipe'
	stop_gracefully
}

@test "pipe: a newline and an exit at once is a failed start, every time" {
	local number
	for number in 1 2 3 4 5 6 7 8 9 10; do
		# The settling time has no part in this.
		start_handoff -l 127.0.0.1:0 --settle 20s --ready pipe -- sh -c "echo >&\"\$HANDOFF_READY_FD\"; exit 6"
		fails_with 6 'exited with status 6 (after .*, before it was ready|.* after it was ready, within the settling time)'
	done
}

@test "pipe: what a helper writes while nobody closes the pipe is readiness" {
	start pipe -- sh -c "(echo >&\"\$HANDOFF_READY_FD\"); exec '$TS_BIN' --ready none"
	ready_by 'pipe: a newline on the ready pipe'
	stop_gracefully
}

@test "pipe: a pipe that is closed without a newline is a failed start at once, and the log says why that is bad" {
	start pipe -- "$SPEAKER" close
	fails_with 1 'the ready pipe was closed without a newline \(a server that closes all its descriptors closes its listener too\)'
	start pipe -- "$TS_BIN" --close-fds
	fails_with 1 'the ready pipe was closed without a newline .*'
}

@test "pipe: the exit status explains a pipe that was closed by the exit" {
	start pipe -- "$SPEAKER" exit=9
	fails_with 9 'exited with status 9 after .*, before it was ready'
	start pipe -- "$SPEAKER" pipe=half exit=9
	fails_with 9 'exited with status 9 after .*, before it was ready'
}

@test "pipe: READY=1 is not its word" {
	start pipe --ready-timeout 500ms -- "$SPEAKER" notify=READY=1
	fails_with 124 'not ready in time \(500 ms\): no newline on the ready pipe'
}

@test "pipe: a server that forks, and whose first process exits when the second one is ready, was put in the background" {
	start_handoff -l 127.0.0.1:0 --settle 20s --ready pipe -- "$TS_BIN" --ready pipe --background
	# Whichever is seen first, its word or the exit.
	fails_with 1 'it put itself in the background: run it in the foreground'
	start_handoff -l 127.0.0.1:0 --settle 20s --ready now --kill-timeout 1s -- sh -c "'$SPEAKER' & exit 0"
	fails_with 1 'it put itself in the background: run it in the foreground'
}

# --- notify ---------------------------------------------------------------------------------------------------------

@test "notify: READY=1 is readiness, and names its sender" {
	start notify -- "$TS_BIN" --ready notify
	ready_by "notify: READY=1 from pid $(pid_of_server)"
	stop_gracefully
}

pid_of_server() {
	wait_log '\[gen 1\] started' && pid_of 1
}

@test "notify: READY=1 among other lines, with a zero at its end, and from a child that is gone, is readiness" {
	start notify -- "$SPEAKER" 'notify=STATUS=x\nREADY=1\nOTHER=1'
	ready_by 'notify: READY=1 from pid [0-9]+'
	stop_gracefully
	start notify -- "$SPEAKER" 'notify=READY=1\x00'
	ready_by 'notify: READY=1 from pid [0-9]+'
	stop_gracefully
	start notify -- "$SPEAKER" child-notify=READY=1
	ready_by 'notify: READY=1 from pid [0-9]+'
	stop_gracefully
}

@test "notify: READY=1 from a descendant in a session of its own is readiness, and that one ends with the others" {
	start notify -- "$SPEAKER" detached-notify=READY=1
	ready_by 'notify: READY=1 from pid [0-9]+'
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

@test "notify: a barrier is released, and systemd-notify is understood where it is installed" {
	start notify -- "$SPEAKER" notify=READY=1 barrier say=released
	ready_by 'notify: READY=1 from pid [0-9]+'
	wait_log '^released$'
	stop_gracefully
	if command -v systemd-notify >/dev/null; then
		start notify -- sh -c "systemd-notify --ready --status=up; exec '$SPEAKER' say=told"
		ready_by 'notify: READY=1 from pid [0-9]+'
		wait_log 'status: up$'
		wait_log '^told$'
		stop_gracefully
	fi
}

@test "notify: STATUS and STOPPING are logged, and STOPPING ends nothing" {
	start notify -- "$SPEAKER" 'notify=STATUS=loading\x07' 'notify=READY=1' 'notify=STOPPING=1'
	ready_by 'notify: READY=1 from pid [0-9]+'
	wait_log '\[gen 1\] status: loading\\x07$'
	wait_log '\[gen 1\] says that it is stopping'
	hand_off 2
	stop_gracefully
}

@test "notify: EXTEND_TIMEOUT_USEC gives more time than --ready-timeout" {
	start notify --ready-timeout 4s -- "$SPEAKER" notify=EXTEND_TIMEOUT_USEC=20000000 nap=4500 notify=READY=1
	ready_by 'notify: READY=1 from pid [0-9]+'
	stop_gracefully
}

@test "notify: EXTEND_TIMEOUT_USEC of nonsense, of less, and of for ever does no harm" {
	start notify --ready-timeout 1s -- "$SPEAKER" notify=EXTEND_TIMEOUT_USEC=-5 notify=EXTEND_TIMEOUT_USEC= \
		notify=EXTEND_TIMEOUT_USEC=1 notify=EXTEND_TIMEOUT_USEC=99999999999999999999999
	fails_with 124 'not ready in time \(1\.0 s\): no READY=1'
	start notify -- "$SPEAKER" notify=EXTEND_TIMEOUT_USEC=18446744073709551615 nap=100 notify=READY=1
	ready_by 'notify: READY=1 from pid [0-9]+'
	stop_gracefully
}

@test "notify: MAINPID names who gets the drain signal, where it is one of the generation" {
	start notify -- "$SPEAKER" main nap=1 notify=READY=1
	ready_by 'notify: READY=1 from pid [0-9]+'
	wait_log '\[gen 1\] its main process is pid [0-9]+'
	kill -INT "$HANDOFF_PID"
	wait_log 'draining: SIGINT to the main process that it named'
	wait_log '^main got 2$'
	# Its first process was not told, and is still there.
	kill -TERM "$(pid_of 1)"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "notify: MAINPID of a stranger, or of none, is ignored with a warning" {
	start notify -- "$SPEAKER" notify=MAINPID=1 notify=READY=1
	ready_by 'notify: READY=1 from pid [0-9]+'
	log_has 'warning: ignored MAINPID=1 from pid [0-9]+: it is not a process of this generation' 1
	stop_gracefully
	start notify -- "$SPEAKER" notify=MAINPID=me notify=READY=1
	ready_by 'notify: READY=1 from pid [0-9]+'
	log_has 'warning: ignored a MAINPID= from pid [0-9]+ that is no pid' 1
	stop_gracefully
}

@test "notify: datagrams that are no text, empty or too long are ignored, with one warning" {
	local long
	long=$(printf '%09000d' 0)
	start notify -- "$SPEAKER" 'notify=\x00\x01\x02' 'notify=READY=1\x00READY=1' "notify=READY=1\\n$long" \
		'notify=' 'notify==' 'notify=\n\n' say=spoken gate="$GATE" notify=READY=1
	wait_log '^spoken'
	# All of it was taken from the socket.
	wait_for no_datagram_waits
	not_ready
	run grep -c 'warning: ignored a datagram from pid [0-9]* that is not text' "$HANDOFF_LOG"
	assert_output 1
	open_gate
	ready_by 'notify: READY=1 from pid [0-9]+'
	stop_gracefully
}

# A datagram socket of unix has its queue in the kernel alone; that the supervisor sleeps says that it is empty.
no_datagram_waits() {
	[[ $(process_state "$HANDOFF_PID") == S && $(cat "/proc/$HANDOFF_PID/wchan") == *epoll* ]]
}

@test "notify: noise after the word harms nothing" {
	start notify -- "$TS_BIN" --ready notify --ready-then-garbage
	ready_by 'notify: READY=1 from pid [0-9]+'
	hand_off 2
	stop_gracefully
}

@test "notify: what a foreign process sends is ignored with a warning that names it" {
	start notify -- "$SPEAKER" say=up gate="$GATE" notify=READY=1
	wait_log '^up'
	run python3 -c '
import os, socket, sys
environ = open("/proc/%s/environ" % sys.argv[1], "rb").read().split(b"\0")
path = [text[14:] for text in environ if text.startswith(b"NOTIFY_SOCKET=")][0].replace(b"@", b"\0", 1)
speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
speaker.connect(path)
speaker.send(b"READY=1")
speaker.send(b"READY=1")
print(os.getpid(), flush=True)
# Its pid is looked up while it is there.
sys.stdin.readline()' "$(pid_of 1)" 3>&- < <(wait_log 'ignored a datagram' >&2; echo)
	assert_success
	wait_log "warning: ignored a datagram from pid $output, which is not of this generation"
	not_ready
	open_gate
	ready_by 'notify: READY=1 from pid [0-9]+'
	run grep -c 'ignored a datagram' "$HANDOFF_LOG"
	assert_output 1
	stop_gracefully
}

@test "notify: a newline on the pipe is not its word, and a closed pipe does not matter" {
	start notify --ready-timeout 500ms -- "$SPEAKER" 'pipe=\n' close
	fails_with 124 'not ready in time \(500 ms\): no READY=1'
}

@test "notify: READY=1 and an exit at once is a failed start, every time" {
	local number
	for number in 1 2 3 4 5; do
		start_handoff -l 127.0.0.1:0 --settle 20s --ready notify -- "$SPEAKER" notify=READY=1 exit=6
		fails_with 6 'exited with status 6 (after .*, before it was ready|.* after it was ready, within the settling time)'
	done
}

# --- delay, now -----------------------------------------------------------------------------------------------------

@test "delay: who lives that long is ready, and who does not has failed" {
	start delay:400ms -- "$SPEAKER"
	ready_by 'delay: alive for 400ms'
	(($(sed -n 's/.*ready after \([0-9]*\) ms .*/\1/p' "$HANDOFF_LOG") >= 400))
	stop_gracefully
	start delay:20s -- "$SPEAKER" exit=3
	fails_with 3 'exited with status 3 after .*, before it was ready'
}

@test "now: who could be executed is ready, and who could not has failed" {
	start now -- "$SPEAKER"
	ready_by 'now: exec succeeded'
	stop_gracefully
	start now -- /no/such/file
	fails_with 127 'cannot exec /no/such/file: No such file or directory'
	not_ready
}

# --- exec -----------------------------------------------------------------------------------------------------------

@test "exec: the command runs again and again until it exits with 0, and knows the process and the generation" {
	mkdir "$BATS_TEST_TMPDIR/folder"
	start "exec:echo \"\$HANDOFF_PID \$HANDOFF_GENERATION \$MARK \$(pwd)\" >>'$BATS_TEST_TMPDIR/seen'; test -e '$BATS_TEST_TMPDIR/flag'" \
		--env MARK=here --chdir "$BATS_TEST_TMPDIR/folder" -- "$SPEAKER"
	wait_for line_count_is_at_least "$BATS_TEST_TMPDIR/seen" 3
	not_ready
	: >"$BATS_TEST_TMPDIR/flag"
	ready_by 'exec: ".*" exited with 0'
	assert_equal "$(sort -u "$BATS_TEST_TMPDIR/seen")" "$(pid_of 1) 1 here $BATS_TEST_TMPDIR/folder"
	hand_off 2
	assert_equal "$(tail -n 1 "$BATS_TEST_TMPDIR/seen")" "$(pid_of 2) 2 here $BATS_TEST_TMPDIR/folder"
	# Nothing runs on afterwards.
	local lines
	lines=$(wc -l <"$BATS_TEST_TMPDIR/seen")
	wait_log '\[gen 1\] gone'
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 2)"
	stop_gracefully
	assert_equal "$(wc -l <"$BATS_TEST_TMPDIR/seen")" "$lines"
}

line_count_is_at_least() {
	(($(wc -l <"$1") >= $2))
}

@test "exec: a command that hangs ends with the start, and so does what it has started" {
	start "exec:sleep 1000 & sleep 1000" --ready-timeout 700ms -- "$SPEAKER"
	fails_with 124 'not ready in time \(700 ms\): "sleep 1000 & sleep 1000" has not exited with 0'
}

@test "exec: a command that cannot work is named at the timeout, and its text is made printable" {
	start $'exec:no-such-\e-command' --ready-timeout 700ms -- "$SPEAKER"
	fails_with 124 'not ready in time \(700 ms\): "no-such-\\x1b-command" has not exited with 0'
}

@test "exec: a command that succeeds after the server has exited does not count" {
	start 'exec:sleep 1' -- "$TS_BIN" --exit-at-once=4
	fails_with 4 'exited with status 4 after .*, before it was ready'
	not_ready
}

@test "exec: a command that asks at a held address is warned of, and another one is not" {
	local port
	port=$(free_port)
	start_handoff -l "127.0.0.1:$port" --ready "exec:curl -s http://127.0.0.1:$port/" --ready "exec:echo 1${port}" \
		--ready now -- "$SPEAKER"
	ready_by '.*'
	run grep -c 'warning: ' "$HANDOFF_LOG"
	assert_output 1
	log_has "warning: --ready \"exec:curl -s http://127.0.0.1:$port/\" names 127.0.0.1:$port, which every generation serves" 1
	stop_gracefully
}

# --- signal ---------------------------------------------------------------------------------------------------------

@test "signal: TERM or USR1 to us from the server is readiness, not a stop and not a hand-off" {
	local how
	for how in signal signal:USR1; do
		start signal -- "$TS_BIN" --ready "$how"
		ready_by 'signal: a signal from pid [0-9]+'
		run grep -E 'asked by|gen 2' "$HANDOFF_LOG"
		assert_output ''
		write_script "$SERVER" <<<"exec '$TS_BIN' --ready $how"
		hand_off 2
		wait_log '\[gen 1\] gone'
		stop_gracefully
	done
}

@test "signal: an operator's TERM stops, and an operator's USR1 asks for a hand-off, while it starts" {
	start signal -- "$SPEAKER" say=up gate="$GATE" signal=15
	wait_log '^up'
	kill -USR1 "$HANDOFF_PID"
	wait_log "hand-off asked by SIGUSR1 from pid $BASHPID"
	not_ready
	open_gate
	ready_by 'signal: a signal from pid [0-9]+'
	# The one that was asked meanwhile.
	wait_log '\[gen 2\] started'
	kill -TERM "$HANDOFF_PID"
	wait_log "immediate stop asked by SIGTERM from pid $BASHPID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "signal: a server that is active already stops us with TERM like anybody" {
	start signal -- "$SPEAKER" signal=15 gate="$GATE" signal=15
	ready_by 'signal: a signal from pid [0-9]+'
	open_gate
	wait_log "immediate stop asked by SIGTERM from pid $(pid_of 1)"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "signal: with another --ready, TERM from the server is a stop" {
	start pipe -- "$SPEAKER" signal=15
	wait_log 'immediate stop asked by SIGTERM'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	not_ready
}

# --- auto, and several ----------------------------------------------------------------------------------------------

@test "auto: the server's own word wins over what is seen" {
	# It accepts at once, but has spoken before, so its word is waited for.
	write_script "$SERVER" <<-END
		printf warming >&\$HANDOFF_READY_FD
		(read -r _ <"$GATE"; echo >&\$HANDOFF_READY_FD) &
		exec "$TS_BIN" --ready none
	END
	start auto -- "$SERVER"
	local address
	wait_log 'gen 1\] started'
	address=$(sed -n 's/.*holding \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$HANDOFF_LOG")
	wait_for generation_is 1 "http://$address"
	# Twenty looks at a server that accepts would have been enough.
	sleep 0.5
	not_ready
	open_gate
	ready_by 'pipe: a newline on the ready pipe'
	stop_gracefully
}

@test "auto: a first datagram is a word too, and the timeout says what was missing" {
	write_script "$SERVER" <<-END
		"$SPEAKER" notify=STATUS=loading exit=0
		exec "$TS_BIN" --ready none
	END
	start auto --ready-timeout 4s -- "$SERVER"
	fails_with 124 'not ready in time \(4\.0 s\): it spoke on the notify socket, but there was no newline on the ready pipe and no READY=1'
}

@test "auto: once a generation said ready by itself, later ones must too" {
	write_script "$SERVER" <<<"exec '$TS_BIN' --ready notify"
	start auto --ready-timeout 1500ms -- "$SERVER"
	ready_by 'notify: READY=1 from pid [0-9]+'
	write_script "$SERVER" <<<"exec '$TS_BIN' --ready none"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] error: failed to start: not ready in time \(1\.5 s\): no newline on the ready pipe and no READY=1 \(an earlier start said ready by itself, so this one must too\); generation 1 still serves'
	write_script "$SERVER" <<<"exec '$TS_BIN' --ready pipe"
	hand_off 3
	stop_gracefully
}

@test "auto: without a listener, being alive for a second is readiness, and the log says so" {
	start_handoff --settle 0 -- "$SPEAKER"
	ready_by 'delay: there is no stream listener to wait on: alive for 1s'
	stop_gracefully
}

@test "several ways: any one suffices" {
	start pipe --ready delay:20s -- "$SPEAKER" 'pipe=\n'
	ready_by 'pipe: .*'
	stop_gracefully
	start pipe --ready delay:300ms -- "$SPEAKER"
	ready_by 'delay: alive for 300ms'
	stop_gracefully
	start pipe --ready notify --ready exec:false --ready signal -- "$SPEAKER" notify=READY=1
	ready_by 'notify: .*'
	stop_gracefully
	start exec:false --ready exec:true --ready notify -- "$SPEAKER"
	ready_by 'exec: "true" exited with 0'
	stop_gracefully
	start delay:20s --ready delay:200ms -- "$SPEAKER"
	ready_by 'delay: alive for 200ms'
	stop_gracefully
}

@test "several ways: the timeout names what each of them misses, and a closed pipe alone is no failure" {
	start pipe --ready notify --ready exec:false --ready signal --ready delay:1h --ready-timeout 4s -- "$SPEAKER" close
	fails_with 124 'not ready in time \(4\.0 s\): no newline on the ready pipe, which was closed; no READY=1; "false" has not exited with 0; no signal from it; it has not been alive for 3600000ms'
}

# --- The time -------------------------------------------------------------------------------------------------------

@test "a server that is not ready in time is told to drain, then killed with its group" {
	start pipe --ready-timeout 1s --kill-timeout 300ms -- sh -c "trap '' INT TERM; sleep 1000 & echo; wait; wait; sleep 1000"
	fails_with 124 'not ready in time \(1\.0 s\): no newline on the ready pipe'
	log_has 'killed: did not end when told to' 1
}

@test "with --ready-timeout none a start may take as long as it likes" {
	start pipe --ready-timeout none -- "$SPEAKER" nap=1500 'pipe=\n'
	ready_by 'pipe: .*'
	stop_gracefully
}

@test "starts that fail in all these ways leak no descriptor and no process" {
	write_script "$SERVER" <<<"exec '$SPEAKER' 'pipe=\\n'"
	start_handoff -l 127.0.0.1:0 --settle 0 --ready pipe --ready exec:false --ready-timeout 20s -- "$SERVER"
	ready_by 'pipe: .*'
	local before number
	local -a ways=("exit 3" "printf x >&\$HANDOFF_READY_FD; exit 0" "kill -9 \$\$" "exec /no/such/file")
	before=$(fd_count "$HANDOFF_PID")
	for ((number = 2; number < 42; number++)); do
		write_script "$SERVER" <<<"${ways[number % 4]}"
		kill -USR1 "$HANDOFF_PID"
		wait_log "\[gen $number\] gone"
	done
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 1)"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$before"
	stop_gracefully
}
