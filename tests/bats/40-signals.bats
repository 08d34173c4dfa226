#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What each signal to the supervisor does: from a program, from a terminal, at any moment, and whatever happens to stderr.
# shellcheck disable=SC2030,SC2031,SC2153,SC2154 # every test is a subshell of its own; others set HANDOFF_BIN, status

load ../lib/helpers

setup() {
	common_setup
	TELLER="$BATS_TEST_TMPDIR/teller"
	# A server that tells of every signal it gets, and exits on INT and TERM.
	cat >"$TELLER" <<-'END'
		#!/usr/bin/env python3
		import os, signal
		def tell(number, _):
		    os.write(2, b"told %s\n" % signal.Signals(number).name.encode())
		    if number in (signal.SIGINT, signal.SIGTERM):
		        os._exit(0)
		for number in (1, 2, 10, 12, 15, 28):
		    signal.signal(number, tell)
		os.write(int(os.environ["HANDOFF_READY_FD"]), b"\n")
		while True:
		    signal.pause()
	END
	chmod 755 "$TELLER"
	ORDERS="$BATS_TEST_TMPDIR/orders"
	SOCKET="$BATS_TEST_TMPDIR/socket"
}

teardown() {
	stop_all
}

# start_detached OPTIONS... -- COMMAND...: as start_handoff, without a controlling terminal.
start_detached() {
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" setsid "$HANDOFF_BIN" run "$@"
	HANDOFF_PID=$STARTED_PID
}

# start_on_pty COMMAND...: on a terminal of its own; the pid of the command in PTY_PID, that of the terminal in TERMINAL.
start_on_pty() {
	mkfifo "$ORDERS"
	start_background "$HANDOFF_LOG" python3 "$helpers_dir/onpty.py" "$ORDERS" "$@"
	TERMINAL=$STARTED_PID
	wait_log '^onpty: pid '
	PTY_PID=$(sed -n 's/^onpty: pid //p' "$HANDOFF_LOG")
	HANDOFF_PID=$PTY_PID
}

# order LINE: type TEXT or hang-up, at that terminal.
order() {
	printf '%s\n' "$1" >"$ORDERS"
}

pid_of_active() {
	sed -n 's/.*\] started .* (pid \([0-9]*\))$/\1/p' "$HANDOFF_LOG" | tail -n 1
}

process_state_is() {
	[[ $(process_state "$1") == "$2" ]]
}

# Clock ticks that the supervisor has used.
cpu_ticks() {
	local line
	line=$(cat "/proc/$HANDOFF_PID/stat")
	line=${line##*) }
	# shellcheck disable=SC2086 # fields
	set -- $line
	echo $((${12} + ${13}))
}

# Over a second of no events, the supervisor has nothing to do.
is_idle() {
	local before
	before=$(cpu_ticks)
	sleep 1
	assert_equal "$(cpu_ticks)" "$before"
}

serves_on_socket() {
	generation_is "$1" http://x/ --unix-socket "$SOCKET"
}

# --- From programs --------------------------------------------------------------------------------------------------

@test "USR1 hands off" {
	start_serving -- "$TS_BIN" --ready pipe
	kill -USR1 "$HANDOFF_PID"
	wait_log "hand-off asked by SIGUSR1 from pid $BASHPID \(uid $UID\)"
	wait_log '\[gen 2\] active'
	wait_log '\[gen 1\] gone'
	generation_is 2 "$URL"
	stop_gracefully
}

@test "HUP hands off where there is no terminal to lose" {
	start_detached -l 127.0.0.1:0 -- "$TS_BIN" --ready pipe
	wait_log '\[gen 1\] active'
	kill -HUP "$HANDOFF_PID"
	wait_log 'hand-off asked by SIGHUP'
	wait_log '\[gen 2\] active'
	stop_gracefully
}

@test "HUP does nothing where nohup has made it ignored, and the server ignores it too" {
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" setsid nohup "$HANDOFF_BIN" run -l 127.0.0.1:0 -- "$TS_BIN" --ready pipe
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	kill -HUP "$HANDOFF_PID" "$(pid_of 1)"
	# Whatever it did would come before what this one does.
	kill -USR2 "$HANDOFF_PID"
	wait_log 'ignored SIGUSR2'
	run grep -E 'SIGHUP|gen 2|died' "$HANDOFF_LOG"
	assert_output ''
	hand_off 2
	stop_gracefully
}

@test "INT stops gracefully: requests in flight are answered, connects are refused, nothing starts any more" {
	start_serving -- "$TS_BIN" --ready pipe --count-int "$BATS_TEST_TMPDIR/ints"
	start_background "$BATS_TEST_TMPDIR/curl" curl -sS --max-time 30 "$URL/sleep?ms=1500"
	local client=$STARTED_PID
	wait_for in_flight
	kill -INT "$HANDOFF_PID"
	wait_log 'graceful stop asked by SIGINT'
	wait_log 'draining: SIGINT to its main process'
	wait_for refused
	kill -USR1 "$HANDOFF_PID"
	wait_log 'no hand-off, since we are stopping: asked by SIGUSR1'
	wait_exit "$client"
	assert_equal "$EXIT_STATUS" 0
	grep -q 'gen=1' "$BATS_TEST_TMPDIR/curl"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(wc -l <"$BATS_TEST_TMPDIR/ints")" 1
	run grep -c '\] started ' "$HANDOFF_LOG"
	assert_output 1
}

in_flight() {
	[[ -n $(ss -Htn state established "sport = :${URL##*:}") ]]
}

refused() {
	local code=0
	http "$URL/" || code=$?
	((code == 7))
}

@test "a second INT stops at once" {
	start_serving -- "$TS_BIN" --ready pipe --ignore-int
	kill -INT "$HANDOFF_PID"
	wait_log 'graceful stop asked by SIGINT'
	wait_log '\[gen 1\] draining'
	kill -INT "$HANDOFF_PID"
	wait_log 'immediate stop asked again by SIGINT'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

@test "INT during a hand-off drains both generations" {
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$TS_BIN' --ready pipe"
	start_serving -- "$BATS_TEST_TMPDIR/server"
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$TS_BIN' --never-ready"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	kill -INT "$HANDOFF_PID"
	wait_log '\[gen 1\] draining'
	wait_log '\[gen 2\] draining'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

@test "TERM stops at once: TERM to the whole group, KILL after --kill-timeout" {
	start_serving --kill-timeout 300ms -- "$TS_BIN" --ready pipe --ignore-term --leave-helper=stubborn
	kill -TERM "$HANDOFF_PID"
	wait_log 'immediate stop asked by SIGTERM'
	wait_log '\[gen 1\] warning: killed: did not end when told to'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 3
	assert_equal "$(survivors)" ''
}

@test "TERM ends a stopped server too" {
	start_serving -- "$TS_BIN" --ready pipe --term-exits
	kill -STOP "$(pid_of 1)"
	wait_for process_state_is "$(pid_of 1)" T
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "TERM during a drain ends the draining generation too" {
	start_serving --settle 0 -- "$TS_BIN" --ready pipe --ignore-int
	hand_off 2
	wait_log '\[gen 1\] draining'
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

@test "QUIT is ignored and logged without a terminal" {
	start_detached -l 127.0.0.1:0 -- "$TS_BIN" --ready pipe
	wait_log '\[gen 1\] active'
	kill -QUIT "$HANDOFF_PID"
	wait_log 'ignored SIGQUIT'
	hand_off 2
	stop_gracefully
}

@test "USR2, WINCH, ALRM, PIPE, IO, PWR, XFSZ, XCPU, timers and real-time signals never end it, and are logged" {
	start_serving -- "$TS_BIN" --ready pipe
	local signal
	for signal in USR2 WINCH ALRM PIPE IO PWR XFSZ XCPU VTALRM PROF STKFLT RTMIN RTMIN+3 RTMAX; do
		kill "-$signal" "$HANDOFF_PID"
	done
	for signal in USR2 WINCH ALRM PIPE IO PWR XFSZ XCPU VTALRM PROF STKFLT RTMIN 'RTMIN\+3' 'RTMIN\+30'; do
		wait_log "ignored SIG$signal from pid $BASHPID"
	done
	# These have no action of ours, and do no harm.
	kill -URG "$HANDOFF_PID"
	kill -CONT "$HANDOFF_PID"
	kill -CHLD "$HANDOFF_PID"
	generation_is 1 "$URL"
	hand_off 2
	stop_gracefully
}

@test "the same signals do no harm while the first server starts" {
	start_handoff -l 127.0.0.1:0 --ready pipe -- "$TS_BIN" --ready-late-byte-by-byte=100
	wait_log '\[gen 1\] started'
	local signal
	for signal in USR2 WINCH ALRM PIPE IO PWR XFSZ XCPU VTALRM PROF STKFLT RTMIN RTMAX; do
		kill "-$signal" "$HANDOFF_PID"
	done
	wait_log '\[gen 1\] active'
	stop_gracefully
}

@test "a stopped supervisor goes on with CONT, and loses no signal" {
	start_serving -- "$TS_BIN" --ready pipe
	kill -TSTP "$HANDOFF_PID"
	wait_for process_state_is "$HANDOFF_PID" T
	generation_is 1 "$URL"
	kill -USR1 "$HANDOFF_PID"
	kill -CONT "$HANDOFF_PID"
	wait_log '\[gen 2\] active'
	stop_gracefully
}

# --- With --signal --------------------------------------------------------------------------------------------------

@test "--signal TERM=stop makes TERM a graceful stop, a second one an immediate stop" {
	start_serving --signal TERM=stop -- "$TS_BIN" --ready pipe --ignore-int
	kill -TERM "$HANDOFF_PID"
	wait_log 'graceful stop asked by SIGTERM'
	wait_log '\[gen 1\] draining: SIGINT'
	kill -TERM "$HANDOFF_PID"
	wait_log 'immediate stop asked again by SIGTERM'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "--signal USR2=reload, RTMIN=reload and USR1=ignore move the hand-off to another signal" {
	start_serving --signal USR2=reload --signal RTMIN=reload --signal SIGUSR1=ignore -- "$TS_BIN" --ready pipe
	kill -USR1 "$HANDOFF_PID"
	wait_log 'ignored SIGUSR1'
	kill -USR2 "$HANDOFF_PID"
	wait_log 'hand-off asked by SIGUSR2'
	wait_log '\[gen 2\] active'
	kill -RTMIN "$HANDOFF_PID"
	wait_log '\[gen 3\] active'
	stop_gracefully
}

@test "--signal WINCH=forward and HUP=forward:USR1 give the server a signal, without a hand-off" {
	start_serving --signal WINCH=forward --signal HUP=forward:USR1 --signal RTMIN=forward:USR2 -- "$TELLER"
	kill -WINCH "$HANDOFF_PID"
	wait_log '^told SIGWINCH$'
	kill -HUP "$HANDOFF_PID"
	wait_log '^told SIGUSR1$'
	kill -RTMIN "$HANDOFF_PID"
	wait_log '^told SIGUSR2$'
	run grep -cE '^told|gen 2' "$HANDOFF_LOG"
	assert_output 3
	# After a hand-off it goes to the new one.
	hand_off 2
	wait_log '\[gen 1\] gone'
	kill -WINCH "$HANDOFF_PID"
	wait_log '^told SIGWINCH$' 2
	stop_gracefully
}

@test "--signal INT=ignore leaves only TERM, and QUIT=kill needs no terminal" {
	start_detached --signal INT=ignore --signal QUIT=kill -l 127.0.0.1:0 -- "$TS_BIN" --ready pipe
	wait_log '\[gen 1\] active'
	kill -INT "$HANDOFF_PID"
	wait_log 'ignored SIGINT'
	kill -QUIT "$HANDOFF_PID"
	wait_log 'immediate stop asked by SIGQUIT'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

# --- From a terminal ------------------------------------------------------------------------------------------------

@test "one Ctrl-C is a graceful stop, and the server gets exactly one INT" {
	start_on_pty "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" --ready pipe --count-int "$BATS_TEST_TMPDIR/ints"
	wait_log '\[gen 1\] active'
	start_background "$BATS_TEST_TMPDIR/curl" curl -sS --max-time 30 --unix-socket "$SOCKET" "http://x/sleep?ms=1000"
	local client=$STARTED_PID
	wait_for socket_in_flight
	order 'type \x03'
	wait_log 'graceful stop asked by SIGINT'
	wait_exit "$client"
	assert_equal "$EXIT_STATUS" 0
	grep -q 'gen=1' "$BATS_TEST_TMPDIR/curl"
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(wc -l <"$BATS_TEST_TMPDIR/ints")" 1
}

socket_in_flight() {
	[[ -n $(ss -Hx state established "src = $SOCKET") ]]
}

@test "Ctrl-C twice is an immediate stop" {
	start_on_pty "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" --ready pipe --ignore-int \
		--count-int "$BATS_TEST_TMPDIR/ints"
	wait_log '\[gen 1\] active'
	order 'type \x03'
	wait_log '\[gen 1\] draining'
	order 'type \x03'
	wait_log 'immediate stop asked again by SIGINT'
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(wc -l <"$BATS_TEST_TMPDIR/ints")" 1
}

@test "QUIT from the terminal is an immediate stop, and leaves no core" {
	start_on_pty "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" --ready pipe --ignore-int
	wait_log '\[gen 1\] active'
	order 'type \x1c'
	wait_log 'immediate stop asked by SIGQUIT'
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 0
}

@test "a terminal that is taken away is a graceful stop" {
	start_on_pty sh -c "exec '$HANDOFF_BIN' run -l 'unix:$SOCKET' -- '$TS_BIN' --ready pipe 2>'$BATS_TEST_TMPDIR/log'"
	HANDOFF_LOG="$BATS_TEST_TMPDIR/log"
	wait_for test -e "$HANDOFF_LOG"
	wait_log '\[gen 1\] active'
	order hang-up
	wait_log 'our terminal is gone: graceful stop asked by SIGHUP'
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 0
	run grep -E 'gen 2' "$HANDOFF_LOG"
	assert_output ''
}

@test "a terminal that is taken away while the log goes to it is a graceful stop all the same" {
	start_on_pty "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" --ready pipe
	wait_log '\[gen 1\] active'
	order hang-up
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

@test "HUP hands off while our terminal is there" {
	start_on_pty "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" --ready pipe
	wait_log '\[gen 1\] active'
	kill -HUP "$PTY_PID"
	wait_log 'hand-off asked by SIGHUP'
	wait_log '\[gen 2\] active'
	order 'type \x03'
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 0
}

@test "with nohup it outlives its terminal" {
	start_on_pty sh -c "exec nohup '$HANDOFF_BIN' run -l 'unix:$SOCKET' -- '$TS_BIN' --ready pipe \
		>/dev/null 2>'$BATS_TEST_TMPDIR/log'"
	HANDOFF_LOG="$BATS_TEST_TMPDIR/log"
	wait_for test -e "$HANDOFF_LOG"
	wait_log '\[gen 1\] active'
	order hang-up
	wait_for has_no_terminal "$PTY_PID"
	hand_off 2
	serves_on_socket 2
	kill -INT "$PTY_PID"
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 0
}

# Field 7 of stat is the controlling terminal.
has_no_terminal() {
	local line
	line=$(cat "/proc/$1/stat")
	line=${line##*) }
	# shellcheck disable=SC2086 # fields
	set -- $line
	[[ $5 == 0 ]]
}

@test "Ctrl-Z stops the supervisor and not the server, fg goes on, and the shell's Ctrl-C ends it" {
	start_on_pty bash --norc --noprofile -i
	order "type '$HANDOFF_BIN' run -l 'unix:$SOCKET' -- '$TS_BIN' --ready pipe\\n"
	wait_log '\[gen 1\] active'
	HANDOFF_PID=$(children_of "$PTY_PID")
	order 'type \x1a'
	wait_for process_state_is "$HANDOFF_PID" T
	serves_on_socket 1
	order 'type fg\n'
	wait_for process_state_is "$HANDOFF_PID" S
	hand_off 2
	serves_on_socket 2
	order 'type \x03'
	wait_log 'graceful stop asked by SIGINT'
	wait_gone "$HANDOFF_PID"
	order 'type exit 5\n'
	wait_exit "$TERMINAL"
	assert_equal "$EXIT_STATUS" 5
}

@test "the end of the shell's terminal ends a supervisor in its foreground gracefully" {
	start_on_pty bash --norc --noprofile -i
	order "type '$HANDOFF_BIN' run -l 'unix:$SOCKET' -- '$TS_BIN' --ready pipe 2>'$BATS_TEST_TMPDIR/log'\\n"
	HANDOFF_LOG="$BATS_TEST_TMPDIR/log"
	wait_for test -e "$HANDOFF_LOG"
	wait_log '\[gen 1\] active'
	HANDOFF_PID=$(children_of "$PTY_PID")
	order hang-up
	wait_gone "$HANDOFF_PID"
	log_has 'our terminal is gone: graceful stop asked by SIGHUP' 1
	wait_exit "$TERMINAL"
}

# --- At the wrong moment --------------------------------------------------------------------------------------------

@test "USR1 in the first milliseconds after the pid file never ends it, and is never lost: 300 times" {
	run python3 - "$HANDOFF_BIN" "$TS_BIN" "$BATS_TEST_TMPDIR" 300 3>&- <<-'END'
		import os, signal, subprocess, sys, time
		handoff, ts, folder, count = sys.argv[1:4] + [int(sys.argv[4])]
		pid_file = folder + "/pid"
		for number in range(count):
		    with open(folder + "/early.log", "w") as log:
		        process = subprocess.Popen(
		            [handoff, "run", "--pid-file", pid_file, "-l", "unix:" + folder + "/s", "--ready", "now", "--", ts],
		            stderr=log, stdin=subprocess.DEVNULL)
		    deadline = time.monotonic() + 20
		    while not os.path.exists(pid_file):
		        if process.poll() is not None or time.monotonic() > deadline:
		            sys.exit(f"start {number}: no pid file: {open(folder + '/early.log').read()}")
		    # What is tried here: each moment of the first five milliseconds.
		    time.sleep(number % 51 / 10000)
		    if int(open(pid_file).read()) != process.pid:
		        sys.exit(f"start {number}: the pid file holds something else")
		    process.send_signal(signal.SIGUSR1)
		    process.send_signal(signal.SIGTERM)
		    status = process.wait(20)
		    text = open(folder + "/early.log").read()
		    if status != 0 or "hand-off asked by SIGUSR1" not in text or os.path.exists(pid_file):
		        sys.exit(f"start {number}: status {status}: {text}")
		print("done", count)
	END
	assert_success
	assert_output 'done 300'
	assert_equal "$(survivors)" ''
}

@test "a supervisor whose parent blocks INT, TERM, USR1, HUP and CHLD reacts to all of them" {
	local signal
	for signal in INT TERM; do
		: >"$HANDOFF_LOG"
		start_background "$HANDOFF_LOG" setsid env --block-signal=INT,TERM,USR1,HUP,CHLD,QUIT \
			"$HANDOFF_BIN" run -l 127.0.0.1:0 -- "$TS_BIN" --ready pipe
		HANDOFF_PID=$STARTED_PID
		wait_log '\[gen 1\] active'
		hand_off 2
		wait_log '\[gen 1\] gone'
		kill -HUP "$HANDOFF_PID"
		wait_log '\[gen 3\] active'
		wait_log '\[gen 2\] gone'
		assert_equal "$(sed -n 's/^SigBlk:\s*//p' "/proc/$(children_of "$HANDOFF_PID")/task/"*/status | sort -u | wc -l)" 1
		kill "-$signal" "$HANDOFF_PID"
		wait_exit "$HANDOFF_PID"
		assert_equal "$EXIT_STATUS" 0
	done
}

@test "a supervisor whose parent ignores INT, USR1, PIPE and CHLD reacts to them" {
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" env --ignore-signal=INT,USR1,TERM,PIPE,CHLD \
		"$HANDOFF_BIN" run -l 127.0.0.1:0 -- "$TS_BIN" --ready pipe
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	hand_off 2
	wait_log '\[gen 1\] gone'
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	stop_gracefully
}

# --- When stderr is of no use ---------------------------------------------------------------------------------------

# start_blind REDIRECTION: serves on SOCKET with that as its stderr.
start_blind() {
	start_background "$BATS_TEST_TMPDIR/blind" bash -c \
		"exec '$HANDOFF_BIN' run -l 'unix:$SOCKET' --log-level debug -- '$TS_BIN' --ready pipe $1"
	HANDOFF_PID=$STARTED_PID
	wait_for serves_on_socket 1
}

# Three hand-offs, with no busy loop before, between or after them.
works_blind() {
	local number
	is_idle
	for number in 2 3 4; do
		kill -USR1 "$HANDOFF_PID"
		wait_for serves_on_socket "$number"
		# The next one is not to fold into this one.
		wait_for children_are 1
	done
	kill -PIPE "$HANDOFF_PID"
	kill -XFSZ "$HANDOFF_PID"
	is_idle
}

children_are() {
	[[ $(children_of "$HANDOFF_PID" | wc -l) == "$1" ]]
}

@test "a closed stderr hinders nothing" {
	start_blind '2>&-'
	works_blind
	stop_gracefully
}

@test "a stderr that nobody reads any more hinders nothing" {
	start_blind '2> >(exec true)'
	works_blind
	stop_gracefully
}

@test "a stderr on a full disk hinders nothing" {
	start_blind '2>/dev/full'
	works_blind
	stop_gracefully
}

@test "a log file at its size limit hinders nothing" {
	start_background "$BATS_TEST_TMPDIR/blind" bash -c \
		"ulimit -f 0; exec '$HANDOFF_BIN' run -l 'unix:$SOCKET' -- '$TS_BIN' --ready pipe 2>'$BATS_TEST_TMPDIR/limited'"
	HANDOFF_PID=$STARTED_PID
	wait_for serves_on_socket 1
	works_blind
	stop_gracefully
	[[ ! -s $BATS_TEST_TMPDIR/limited ]]
}

@test "a full pipe as stderr hinders nothing, and how many lines were lost is said when it has room again" {
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	# Open at both ends, full, and read by nobody for now.
	exec 7<>"$BATS_TEST_TMPDIR/pipe"
	python3 -c '
import os
os.set_blocking(7, False)
try:
    while True:
        os.write(7, b"x")
except BlockingIOError:
    pass' 3>&-
	start_blind "2>'$BATS_TEST_TMPDIR/pipe' 7>&-"
	works_blind
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" cat "$BATS_TEST_TMPDIR/pipe"
	exec 7>&-
	wait_for has_bytes "$HANDOFF_LOG" 4096
	kill -USR2 "$HANDOFF_PID"
	wait_log 'warning: [0-9]+ log lines were dropped: stderr was full'
	wait_log 'ignored SIGUSR2'
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

has_bytes() {
	(($(stat -c %s "$1") >= $2))
}
