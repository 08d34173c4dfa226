#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Unix sockets: whose the path is, what may lie there before, what servers do to it, and when it goes.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	FOLDER="$BATS_TEST_TMPDIR/sockets"
	mkdir "$FOLDER"
	SOCKET="$FOLDER/web"
	GUARD="$FOLDER/.web.handoff"
}

teardown() {
	stop_all
}

# start_unix OPTIONS... -- COMMAND...: on $SOCKET, with $QUERY behind it, until generation 1 is active.
start_unix() {
	start_handoff -l "unix:$SOCKET${QUERY:-}" --settle 20ms "$@"
	wait_log '\[gen 1\] active'
}

ask() {
	gen_of --unix-socket "$SOCKET" http://x/
}

answers() {
	[[ $(ask) == "$1" ]]
}

# The inode of a name, without following links.
inode() {
	stat -c %i "$1"
}

inode_is() {
	[[ $(inode "$2") == "$1" ]]
}

# What lies in the folder of the socket, in one line.
folder() {
	ls -A "$FOLDER"
}

# A socket file that nobody has any more.
make_stale() {
	python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$1"
}

# foreign_server PATH: somebody else's server, in the background.
foreign_server() {
	start_background "$BATS_TEST_TMPDIR/foreign.log" "$TS_BIN" --bind "unix:$1" --ready none
	wait_for test -S "$1"
}

@test "the path is there while we run, and goes with its guard at a stop" {
	start_unix -- "$TS_BIN"
	assert_equal "$(ask)" 1
	assert_equal "$(inode "$GUARD")" "$(inode "$SOCKET")"
	stop_gracefully
	assert_equal "$(folder)" ''
}

@test "the path goes at an immediate stop, and when the first start fails" {
	start_unix -- "$TS_BIN"
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$(folder)" ''
	run -7 "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" --exit-at-once=7 3>&-
	assert_equal "$(folder)" ''
	run -127 "$HANDOFF_BIN" run -l "unix:$SOCKET" -- /no/such/program 3>&-
	assert_equal "$(folder)" ''
	run -125 "$HANDOFF_BIN" run -l "unix:$SOCKET" -l 192.0.2.1:1 -- "$TS_BIN" 3>&-
	assert_equal "$(folder)" ''
}

@test "at a graceful stop the path goes at once, while the server still finishes what it has" {
	start_unix -- "$TS_BIN"
	http --unix-socket "$SOCKET" 'http://x/sleep?ms=1500' >"$BATS_TEST_TMPDIR/answer" &
	local client=$!
	wait_for in_flight
	kill -INT "$HANDOFF_PID"
	wait_log '\[gen 1\] draining'
	refute is_gone "$(pid_of 1)"
	assert_equal "$(folder)" ''
	wait "$client"
	run cat "$BATS_TEST_TMPDIR/answer"
	assert_output --partial 'gen=1'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

# The server has more open than its listener and what it was born with.
in_flight() {
	[[ -n $(ss -Hx state established src "$SOCKET") ]]
}

@test "a server that unlinks the path at its end: 20 hand-offs, and the path is there again, the same socket" {
	local socket generation fds
	start_unix -- "$TS_BIN" --unlink-path
	socket=$(inode "$SOCKET")
	fds=$(fd_count "$HANDOFF_PID")
	start_load "unix:$SOCKET" --rate 100 --keepalive 2
	for ((generation = 2; generation <= 21; generation++)); do
		hand_off "$generation"
		wait_log "$SOCKET was removed by somebody and is restored" $((generation - 1))
		wait_for -t 1 inode_is "$socket" "$SOCKET"
		inode_is "$socket" "$GUARD"
		answers "$generation"
	done
	# Who connects in the moment between unlink and restore is refused; nothing else may happen to anybody.
	finish_load || true
	assert_equal "$(load_value new reset) $(load_value new empty) $(load_value new timeout)" '0 0 0'
	assert_equal "$(load_value new truncated) $(load_value new wrong) $(load_value new error)" '0 0 0'
	(($(load_value new refused) < 40))
	(($(load_value new ok) > 10 * $(load_value new refused)))
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	stop_gracefully
	assert_equal "$(folder)" ''
}

@test "a server of another user cannot remove the path" {
	local socket server
	server=$(public_copy "$TS_BIN")
	QUERY='?mode=0666' start_unix --user nobody -- "$server" --unlink-path
	socket=$(inode "$SOCKET")
	hand_off 2
	wait_log '\[gen 1\] gone'
	answers 2
	inode_is "$socket" "$SOCKET"
	run grep -c restored "$HANDOFF_LOG"
	assert_output 0
	stop_gracefully
}

@test "a path that somebody removes or moves away comes back within a second, the same socket" {
	local socket
	start_unix -- "$TS_BIN"
	socket=$(inode "$SOCKET")
	rm "$SOCKET"
	wait_for -t 1 inode_is "$socket" "$SOCKET"
	wait_log "warning: $SOCKET was removed by somebody and is restored: a server must not unlink a path"
	mv "$SOCKET" "$FOLDER/elsewhere"
	wait_for -t 1 inode_is "$socket" "$SOCKET"
	wait_log 'is restored' 2
	assert_equal "$(ask)" 1
	rm "$FOLDER/elsewhere"
	stop_gracefully
	assert_equal "$(folder)" ''
}

@test "a guard that somebody removes comes back, and still restores the path" {
	local socket
	start_unix -- "$TS_BIN"
	socket=$(inode "$SOCKET")
	rm "$GUARD"
	wait_for -t 1 inode_is "$socket" "$GUARD"
	rm "$SOCKET"
	wait_for -t 1 inode_is "$socket" "$SOCKET"
	stop_gracefully
	assert_equal "$(folder)" ''
}

@test "path and guard both removed: one error says so, and hand-offs go on" {
	start_unix -- "$TS_BIN"
	kill -STOP "$HANDOFF_PID"
	rm "$SOCKET" "$GUARD"
	kill -CONT "$HANDOFF_PID"
	wait_log "error: $SOCKET is gone and could not be restored: no hard link to it is left"
	hand_off 2
	wait_log '\[gen 1\] gone'
	stop_gracefully
	assert_equal "$(folder)" ''
	run grep -c 'could not be restored' "$HANDOFF_LOG"
	assert_output 1
}

@test "a socket that somebody else puts at the path is reported, left alone, and stays after our stop" {
	local theirs
	start_unix -- "$TS_BIN"
	foreign_server "$FOLDER/theirs"
	theirs=$(inode "$FOLDER/theirs")
	mv "$FOLDER/theirs" "$SOCKET"
	wait_log "error: $SOCKET is not our socket any more: somebody put something else there; left alone"
	hand_off 2
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$(folder)" web
	inode_is "$theirs" "$SOCKET"
	assert_equal "$(ask)" 0
	rm "$SOCKET"
	run grep -c 'not our socket any more' "$HANDOFF_LOG"
	assert_output 1
}

@test "a path whose foreign occupant leaves is taken back, and then the folder is of no interest again" {
	local socket before
	start_unix -- "$TS_BIN"
	socket=$(inode "$SOCKET")
	echo something >"$FOLDER/file"
	mv "$FOLDER/file" "$SOCKET"
	wait_log 'is not our socket any more'
	: >"$FOLDER/other"
	rm "$FOLDER/other" "$SOCKET"
	wait_for -t 2 inode_is "$socket" "$SOCKET"
	run grep -c 'is not our socket any more' "$HANDOFF_LOG"
	assert_output 1
	wait_for quiet
	before=$(switches)
	: >"$FOLDER/other"
	rm "$FOLDER/other"
	answers 1
	assert_equal "$(switches)" "$before"
	echo something >"$SOCKET.new"
	mv "$SOCKET.new" "$SOCKET"
	wait_log 'is not our socket any more' 2
	rm "$SOCKET"
	wait_for -t 2 inode_is "$socket" "$SOCKET"
	stop_gracefully
	assert_equal "$(folder)" ''
}

@test "what else happens in the folder does not wake us" {
	local before
	start_unix -- "$TS_BIN"
	wait_for quiet
	before=$(switches)
	for name in {1..200}; do
		: >"$FOLDER/$name"
	done
	rm "$FOLDER"/[0-9]*
	# Whatever woke it would have run before this answer.
	answers 1
	assert_equal "$(switches)" "$before"
	stop_gracefully
}

switches() {
	sed -n 's/^voluntary_ctxt_switches:\s*//p' "/proc/$HANDOFF_PID/status"
}

# Nothing is left of the start.
quiet() {
	local before
	before=$(switches)
	sleep 0.2
	[[ $(switches) == "$before" ]]
}

@test "after SIGKILL the dead path is taken over by the next start" {
	start_unix --die-with-supervisor -- "$TS_BIN"
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	wait_gone "$(pid_of 1)"
	assert_equal "$(folder)" $'.web.handoff\nweb'
	start_unix -- "$TS_BIN"
	answers 1
	stop_gracefully
	assert_equal "$(folder)" ''
}

@test "a second start on a live path is refused, names the pid, and the first one keeps serving" {
	local socket
	start_unix -- "$TS_BIN"
	socket=$(inode "$SOCKET")
	run -125 "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" 3>&-
	assert_output --regexp "^handoff: ts(-[0-9]+)?: error: cannot listen on unix:$SOCKET: $SOCKET is in use by [a-z]+ \(pid ($HANDOFF_PID|$(pid_of 1))\)$"
	run -125 "$HANDOFF_BIN" check -l "unix:$SOCKET" -- "$TS_BIN" 3>&-
	assert_output --partial 'is in use by'
	inode_is "$socket" "$SOCKET"
	answers 1
	stop_gracefully
}

@test "a second start is refused also in the moment when a server has removed the path" {
	start_unix -- "$TS_BIN"
	kill -STOP "$HANDOFF_PID"
	rm "$SOCKET"
	run -125 "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" 3>&-
	assert_output --partial "$SOCKET is in use by"
	kill -CONT "$HANDOFF_PID"
	wait_for -t 2 answers 1
	stop_gracefully
}

# assert_left_alone WHAT: a start there is refused with that word, and the path is what it was.
assert_left_alone() {
	local before
	before=$(stat -c '%i %f %s %Y' "$SOCKET")
	run -125 "$HANDOFF_BIN" run -l "unix:$SOCKET" -- "$TS_BIN" 3>&-
	assert_output "handoff: ts: error: cannot listen on unix:$SOCKET: $SOCKET is $1, not a socket: it is left alone"
	run -125 "$HANDOFF_BIN" check -l "unix:$SOCKET" -- "$TS_BIN" 3>&-
	assert_output "handoff: ts: error: cannot listen on unix:$SOCKET: $SOCKET is $1, not a socket: it is left alone"
	assert_equal "$(stat -c '%i %f %s %Y' "$SOCKET")" "$before"
}

@test "a file, a folder or a symbolic link at the path is left alone, and the start is refused" {
	echo precious >"$SOCKET"
	assert_left_alone 'a file'
	assert_equal "$(cat "$SOCKET")" precious
	rm "$SOCKET"
	mkdir "$SOCKET"
	assert_left_alone 'a folder'
	rmdir "$SOCKET"
	echo precious >"$FOLDER/file"
	ln -s file "$SOCKET"
	assert_left_alone 'a symbolic link'
	assert_equal "$(cat "$FOLDER/file")" precious
	rm "$SOCKET"
	make_stale "$FOLDER/stale"
	ln -s stale "$SOCKET"
	assert_left_alone 'a symbolic link'
	rm "$SOCKET"
	ln -s nowhere "$SOCKET"
	assert_left_alone 'a symbolic link'
	assert_equal "$(folder)" $'file\nstale\nweb'
}

@test "something of somebody else's at the guard's name is left alone, and we do without" {
	echo precious >"$GUARD"
	start_unix -- "$TS_BIN"
	answers 1
	stop_gracefully
	assert_equal "$(folder)" .web.handoff
	assert_equal "$(cat "$GUARD")" precious
}

@test "of two starts at the same instant on a dead path exactly one wins, 50 times" {
	local round first second winner loser answer
	make_stale "$SOCKET"
	for ((round = 0; round < 50; round++)); do
		start_background "$BATS_TEST_TMPDIR/first.$round" "$HANDOFF_BIN" run -l "unix:$SOCKET" --die-with-supervisor \
			-- "$TS_BIN"
		first=$STARTED_PID
		start_background "$BATS_TEST_TMPDIR/second.$round" "$HANDOFF_BIN" run -l "unix:$SOCKET" --die-with-supervisor \
			-- "$TS_BIN"
		second=$STARTED_PID
		wait_for one_is_gone "$first" "$second"
		winner=$first loser=$second HANDOFF_LOG="$BATS_TEST_TMPDIR/first.$round"
		if is_gone "$first"; then
			winner=$second loser=$first HANDOFF_LOG="$BATS_TEST_TMPDIR/second.$round"
		fi
		wait_exit "$loser"
		assert_equal "$EXIT_STATUS" 125
		wait_log '\[gen 1\] active'
		answer=$(http --unix-socket "$SOCKET" http://x/)
		assert_regex "$answer" "pid=$(pid_of 1) "
		# And the next round finds a dead path again.
		kill -KILL "$winner"
		wait_exit "$winner"
		wait_gone "$(pid_of 1)"
	done
	run grep -hc 'is in use by' "$BATS_TEST_TMPDIR"/first.* "$BATS_TEST_TMPDIR"/second.*
	assert_equal "$(printf '%s\n' "${lines[@]}" | grep -c 1)" 50
}

one_is_gone() {
	is_gone "$1" || is_gone "$2"
}

@test "mode, user and group are set, and a path that is restored keeps them" {
	QUERY='?mode=0620&user=nobody&group=daemon' start_unix -- "$TS_BIN"
	assert_equal "$(stat -c '%a %U %G' "$SOCKET")" '620 nobody daemon'
	rm "$SOCKET"
	wait_for -t 1 test -S "$SOCKET"
	assert_equal "$(stat -c '%a %U %G' "$SOCKET")" '620 nobody daemon'
	stop_gracefully
}

@test "without mode= the umask at the start decides, not --umask" {
	(
		umask 027
		start_unix --umask 077 -- "$TS_BIN"
		assert_equal "$(stat -c %a "$SOCKET")" 750
		stop_gracefully
	)
}

@test "mode 0600 keeps other users out" {
	QUERY='?mode=0600' start_unix -- "$TS_BIN"
	chmod a+x "$BATS_RUN_TMPDIR" "$BATS_TEST_TMPDIR"
	run setpriv --reuid=65534 --regid=65534 --clear-groups curl -sS --unix-socket "$SOCKET" http://x/ 3>&-
	assert_failure
	assert_output --regexp 'Permission denied|Could not connect|Failed to connect|Couldn.t connect'
	answers 1
	stop_gracefully
}

@test "a relative path is found again after the hand-offs of a server that runs elsewhere" {
	cd "$FOLDER"
	start_handoff -l unix:web --chdir / --settle 20ms -- "$TS_BIN"
	cd /
	wait_log '\[gen 1\] active'
	hand_off 2
	answers 2
	rm "$SOCKET"
	wait_for -t 1 answers 2
	stop_gracefully
	assert_equal "$(folder)" ''
}

@test "an abstract socket is served in every generation, and its name is free after the stop" {
	local name="handoff-test-$TEST_OF_HANDOFF"
	start_handoff -l "unix:@$name" --settle 20ms -- "$TS_BIN"
	wait_log '\[gen 1\] active'
	wait_log "holding @$name \\(unix, backlog [0-9]+\\) as fd 3"
	assert_equal "$(gen_of --abstract-unix-socket "$name" http://x/)" 1
	hand_off 2
	wait_for generation_is 2 --abstract-unix-socket "$name" http://x/
	run -125 "$HANDOFF_BIN" run -l "unix:@$name" -- "$TS_BIN" 3>&-
	assert_output --regexp "@$name is in use by [a-z]+ \(pid [0-9]+\)$"
	stop_gracefully
	refute http --abstract-unix-socket "$name" http://x/
}

# A server on a datagram socket: each datagram becomes a line "GENERATION TEXT" of the file; INT ends it between two.
DATAGRAM_SERVER='
import os, select, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
wake_r, wake_w = os.pipe()
os.set_blocking(wake_w, False)
signal.set_wakeup_fd(wake_w)
signal.signal(signal.SIGINT, lambda *_: None)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
listener = socket.socket(fileno=3)
listener.setblocking(False)
log = open(sys.argv[1], "a", buffering=1)
os.write(int(os.environ["HANDOFF_READY_FD"]), b"\n")
while True:
    readable, _, _ = select.select([listener, wake_r], [], [])
    if wake_r in readable:
        break
    try:
        text = listener.recv(4096).decode()
    except BlockingIOError:
        continue
    log.write(os.environ["HANDOFF_GENERATION"] + " " + text + "\n")
'

@test "no datagram to a unixgram socket is lost by hand-offs, and its path goes at the stop" {
	local received="$BATS_TEST_TMPDIR/received" generation
	start_handoff -l "unixgram:$SOCKET?mode=0666" --settle 20ms -- python3 -c "$DATAGRAM_SERVER" "$received"
	wait_log '\[gen 1\] active'
	assert_equal "$(stat -c %a "$SOCKET")" 666
	start_background "$BATS_TEST_TMPDIR/sender.log" python3 -c '
import os, socket, sys, time
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])
number = 0
while not os.path.exists(sys.argv[2]):
    sender.send(b"%d" % number)
    number += 1
    time.sleep(0.001)
print(number)
' "$SOCKET" "$BATS_TEST_TMPDIR/enough"
	local sender=$STARTED_PID
	wait_for grep -q '^1 ' "$received"
	for generation in 2 3 4; do
		hand_off "$generation"
		wait_for grep -q "^$generation " "$received"
		wait_log "\\[gen $((generation - 1))\\] gone"
	done
	: >"$BATS_TEST_TMPDIR/enough"
	wait_exit "$sender"
	assert_equal "$EXIT_STATUS" 0
	wait_for received_all "$received" "$(cat "$BATS_TEST_TMPDIR/sender.log")"
	assert_equal "$(sed 's/.* //' "$received" | sort -n | uniq -c | awk '$1 != 1' | head -3)" ''
	stop_gracefully
	assert_equal "$(folder)" ''
}

received_all() {
	(($(sed 's/.* //' "$1" | sort -nu | wc -l) == $2))
}
