#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Sockets that we are given: by systemd, by another supervisor, as a plain descriptor; and what is wrong with them.
# shellcheck disable=SC2016,SC2030,SC2031,SC2153,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	PORT=$(free_port)
	URL="http://127.0.0.1:$PORT"
}

teardown() {
	stop_all
}

# activate LISTEN-OPTIONS... -- OPTIONS... -- COMMAND...: systemd's tool waits for the first connection, then it becomes us.
activate() {
	local -a listens=()
	while [[ $1 != -- ]]; do
		listens+=("$1")
		shift
	done
	shift
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" systemd-socket-activate "${listens[@]}" -E "TEST_OF_HANDOFF=$TEST_OF_HANDOFF" \
		"$HANDOFF_BIN" run --settle 20ms "$@"
	HANDOFF_PID=$STARTED_PID
	wait_log '^Listening on '
}

# Python as the parent: SCRIPT prepares descriptors from `listener`, bound to 127.0.0.1:$PORT, and then it execs.
parent() {
	local script=$1
	shift
	PARENT=(python3 -c "
import os, socket, sys
listener = socket.create_server(('127.0.0.1', $PORT), backlog=77)
def put(fd, number):
    os.set_inheritable(number, True) if fd == number else os.dup2(fd, number, inheritable=True)
$script
os.execvp(sys.argv[1], sys.argv[1:])
")
}

# start_from_parent OPTIONS... -- COMMAND...: what `parent` prepared, until generation 1 is active.
start_from_parent() {
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" "${PARENT[@]}" "$HANDOFF_BIN" run --settle 20ms "$@"
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
}

# The parent's socket, and what the protocol says of it, as systemd would set it. For `parent`.
AS_SYSTEMD='
put(listener.fileno(), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
'

@test "systemd's socket is taken and passed on, its first client is served, and so are hand-offs" {
	activate -l "127.0.0.1:$PORT" -- -l systemd -- "$TS_BIN" --strict-pid
	assert_equal "$(gen_of "$URL/")" 1
	wait_log "holding 127.0.0.1:$PORT \\(tcp, backlog [0-9]+, inherited\\) as fd 3"
	assert_equal "$(http "$URL/env?LISTEN_FDS") $(http "$URL/env?LISTEN_FDNAMES")" '1 unknown'
	hand_off 2
	wait_for generation_is 2 "$URL/"
	run http "$URL/born"
	assert_line --regexp '^3 socket:'
	assert_line --regexp '^4 pipe:'
	refute_line --regexp '^[5-9] '
	stop_gracefully
}

@test "the names that systemd gave go through, in the order of our options" {
	local second
	second=$(free_port)
	activate -l "127.0.0.1:$PORT" -l "127.0.0.1:$second" --fdname=web:admin -- \
		-l systemd:admin -l extra=127.0.0.1:0 -l systemd:web -- "$TS_BIN"
	assert_equal "$(gen_of "$URL/")" 1
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES")" admin:extra:web
	assert_regex "$(http "$URL/")" ' fd=5$'
	assert_regex "$(http "http://127.0.0.1:$second/")" ' fd=3$'
	hand_off 2
	wait_for generation_is 2 "$URL/"
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES")" admin:extra:web
	stop_gracefully
}

@test "systemd: takes all that were passed, and a name of ours goes before theirs" {
	local second
	second=$(free_port)
	activate -l "127.0.0.1:$PORT" -l "127.0.0.1:$second" --fdname=a:b -- -l systemd -- "$TS_BIN"
	assert_equal "$(gen_of "$URL/")" 1
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES")" a:b
	stop_gracefully
	activate -l "127.0.0.1:$PORT" --fdname=a -- -l ours=systemd -- "$TS_BIN"
	assert_equal "$(gen_of "$URL/")" 1
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES")" ours
	stop_gracefully
}

@test "a unix path that systemd made is served, and stays after our stop" {
	local path="$BATS_TEST_TMPDIR/socket"
	activate -l "$path" -- -l systemd -- "$TS_BIN"
	assert_equal "$(gen_of --unix-socket "$path" http://x/)" 1
	hand_off 2
	wait_for generation_is 2 --unix-socket "$path" http://x/
	stop_gracefully
	assert [ -S "$path" ]
	refute [ -e "$BATS_TEST_TMPDIR/.socket.handoff" ]
}

# The process that LOG says was started as generation N of the supervisor NAME.
pid_in() {
	sed -n "s/^handoff: $1\\(-2\\)*: \\[gen $2\\] started .* (pid \\([0-9]*\\))\$/\\2/p" "$HANDOFF_LOG"
}

@test "handoff inside handoff: the inner one takes the socket, says that it is ready, and both hand off without loss" {
	local inner
	start_background "$HANDOFF_LOG" "$HANDOFF_BIN" run -n outer -l "web=127.0.0.1:$PORT" -- \
		"$HANDOFF_BIN" run -n inner -l systemd -- "$TS_BIN" --strict-pid
	HANDOFF_PID=$STARTED_PID
	wait_log ' outer: \[gen 1\] active'
	wait_log ' outer: \[gen 1\] ready after .* \(notify'
	inner=$(pid_in outer 1)
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES") $(http "$URL/env?HANDOFF_NAME")" 'web inner'
	start_load "tcp:127.0.0.1:$PORT" --rate 200 --keepalive 4
	kill -USR1 "$inner"
	wait_log ' inner(-2)?: \[gen 2\] active'
	wait_log ' inner(-2)?: \[gen 1\] gone'
	kill -USR1 "$HANDOFF_PID"
	wait_log ' outer: \[gen 2\] active'
	wait_log ' outer: \[gen 1\] gone'
	kill -USR1 "$(pid_in outer 2)"
	wait_log ' inner(-2)?: \[gen 2\] active' 2
	finish_load
	assert_equal "$(load_value failures)" 0
	stop_gracefully
}

@test "handoff inside handoff: a failed hand-off of the inner one, or of the outer one, leaves all as it was" {
	local inner
	write_script "$BATS_TEST_TMPDIR/server" <<-'END'
		exec "$TS_BIN"
	END
	start_background "$HANDOFF_LOG" "$HANDOFF_BIN" run -n outer -l "127.0.0.1:$PORT" -- \
		"$HANDOFF_BIN" run -n inner -l systemd -- "$BATS_TEST_TMPDIR/server"
	HANDOFF_PID=$STARTED_PID
	wait_log ' outer: \[gen 1\] active'
	inner=$(pid_in outer 1)
	write_script "$BATS_TEST_TMPDIR/server" <<-'END'
		exit 9
	END
	kill -USR1 "$inner"
	wait_log ' inner(-2)?: \[gen 2\] error: failed to start: exited with status 9 .*; generation 1 still serves'
	assert_equal "$(gen_of "$URL/")" 1
	kill -USR1 "$HANDOFF_PID"
	wait_log ' outer: \[gen 2\] error: failed to start: exited with status 9 .*; generation 1 still serves'
	assert_regex "$(http "$URL/")" "pid=$(pid_in inner 1 | head -1) "
	stop_gracefully
}

@test "fd:N takes a socket that a shell's redirection put there" {
	parent 'put(listener.fileno(), 9)'
	PARENT+=(bash -c 'exec "$@" 7<&9 9<&-' bash)
	start_from_parent -l web=fd:7 -- "$TS_BIN"
	wait_log "holding web=127.0.0.1:$PORT \\(tcp, backlog 77, inherited\\) as fd 3"
	assert_equal "$(gen_of "$URL/") $(http "$URL/env?LISTEN_FDNAMES")" '1 web'
	hand_off 2
	wait_for generation_is 2 "$URL/"
	stop_gracefully
	refute http "$URL/"
}

# Whether the listener of that process does not block.
nonblocking() {
	((0$(sed -n 's/^flags:\s*//p' "/proc/$1/fdinfo/3") & 04000))
}

@test "an inherited socket keeps its flags, unless nonblock= says otherwise" {
	parent "$AS_SYSTEMD"'
os.set_blocking(3, False)'
	start_from_parent -l systemd -- "$TS_BIN"
	nonblocking "$(pid_of 1)"
	stop_gracefully
	parent "$AS_SYSTEMD"
	start_from_parent -l systemd -- "$TS_BIN"
	refute nonblocking "$(pid_of 1)"
	stop_gracefully
	parent "$AS_SYSTEMD"
	start_from_parent -l systemd?nonblock=yes -- "$TS_BIN"
	nonblocking "$(pid_of 1)"
	stop_gracefully
}

@test "a passed socket that no -l takes is not passed on, and the log warns of it" {
	local second
	second=$(free_port)
	activate -l "127.0.0.1:$PORT" -l "127.0.0.1:$second" --fdname=web:admin -- -l systemd:web -- "$TS_BIN"
	assert_equal "$(gen_of "$URL/")" 1
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES")" web
	run http "$URL/born"
	refute_line --regexp '^5 '
	wait_log 'warning: descriptor 4 \(admin\) was passed to us by LISTEN_FDS, but no -l takes it: nobody serves it'
	stop_gracefully
}

# refused SENTENCE OPTIONS...: from the parent; 125 and exactly this one line, from run and from check.
refused() {
	local sentence=$1
	shift
	run -125 "${PARENT[@]}" "$HANDOFF_BIN" run -n web "$@" -- "$TS_BIN" 3>&-
	assert_output "handoff: web: error: $sentence"
	run -125 "${PARENT[@]}" "$HANDOFF_BIN" check -n web "$@" -- "$TS_BIN" 3>&-
	assert_output "handoff: web: error: $sentence"
}

@test "a LISTEN_PID of somebody else means that nothing was passed, and the sentence says so" {
	parent "$AS_SYSTEMD"'
os.environ["LISTEN_PID"] = "1"'
	run -125 "${PARENT[@]}" "$HANDOFF_BIN" run -l systemd -- "$TS_BIN" 3>&-
	assert_output --regexp '^handoff: ts: error: cannot listen on systemd: no sockets were passed to us \(LISTEN_FDS=1 LISTEN_PID=1, our pid is [0-9]+\)$'
	# And it does no harm to who does not ask for them.
	start_from_parent -l web=127.0.0.1:0 -- "$TS_BIN"
	URL="http://$(sed -n 's/.*holding web=\([^ ]*\) .*/\1/p' "$HANDOFF_LOG")"
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES")" web
	run http "$URL/born"
	refute_line --regexp '^5 '
	stop_gracefully
}

@test "what is wrong with a passed socket is said in one sentence" {
	parent 'put(os.open("/dev/null", os.O_RDONLY), 9)
put(socket.socket().detach(), 10)
bound = socket.socket()
bound.bind(("127.0.0.1", 0))
put(bound.fileno(), 11)
put(socket.socketpair()[0].detach(), 12)
put(listener.fileno(), 13)'
	refused 'cannot listen on fd:8: descriptor 8 is not open' -l fd:8
	refused 'cannot listen on fd:9: descriptor 9 is no socket' -l fd:9
	refused 'cannot listen on fd:10: descriptor 10 is not bound to an address' -l fd:10
	refused 'cannot listen on fd:11: descriptor 11 is a socket that does not listen' -l fd:11
	refused 'cannot listen on fd:12: descriptor 12 is not bound to an address' -l fd:12
	refused 'cannot listen on fd:13: descriptor 13 is taken by another listener' -l fd:13 -l fd:13
	refused 'cannot listen on systemd: no sockets were passed to us (LISTEN_FDS is not set)' -l systemd
	run -125 "$HANDOFF_BIN" check -l fd:0 -- "$TS_BIN" 3>&-
	assert_output 'handoff: error: --listen "fd:0": must be fd: and the number of an inherited descriptor, 3 or above'
}

@test "what is wrong with LISTEN_FDS is said in one sentence" {
	parent "$AS_SYSTEMD"
	refused 'cannot listen on systemd:web: no socket named "web" is left among those that were passed' -l systemd:web
	refused 'cannot listen on systemd: every socket that was passed is taken by another listener' -l systemd -l systemd
	parent "$AS_SYSTEMD"'
os.environ["LISTEN_FDNAMES"] = "a:b"'
	refused 'LISTEN_FDNAMES "a:b" does not have as many names as LISTEN_FDS says (1)' -l systemd
	parent "$AS_SYSTEMD"'
os.environ["LISTEN_FDS"] = "2"'
	PARENT+=(bash -c 'exec "$@" 4<&-' bash)
	refused 'LISTEN_FDS says 2, but descriptor 4 is not open' -l systemd
	parent "$AS_SYSTEMD"'
os.environ["LISTEN_FDS"] = "many"'
	refused 'LISTEN_FDS "many": must be a whole number from 0 to 2147483644' -l systemd
}
