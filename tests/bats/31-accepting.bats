#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Readiness without a word from the server: real servers are seen to wait on the listener, and where that cannot be
# seen, the log says so and what was done instead.
# shellcheck disable=SC2030,SC2031,SC2153,SC2154 # every test is a subshell of its own; others set HANDOFF_LOG, status

load ../lib/helpers

SEEN='it waits on 1 of 1 stream listeners, or has taken connections from them'

setup_file() {
	# A folder that every user may enter.
	PUBLIC=$(mktemp -d /tmp/handoff-test.XXXXXX)
	chmod 755 "$PUBLIC"
	export PUBLIC
	export PYTHONDONTWRITEBYTECODE=1
}

teardown_file() {
	rm -rf "$PUBLIC"
}

setup() {
	common_setup
	SERVERS="$BATS_TEST_DIRNAME/../servers"
	export TMPDIR="$BATS_TEST_TMPDIR"
	# What has a word of its own is not to say it here.
	MUTE=(env -u NOTIFY_SOCKET -u HANDOFF_READY_FD)
	RUN=()
}

teardown() {
	stop_all
}

# ready_by GENERATION REASON: it becomes active, and was ready for exactly this REASON (a regex).
ready_by() {
	wait_log "\\[gen $1\\] active" || return
	log_has "\\[gen $1\\] ready after [^(]* \\($2\\)\$" 1 && return
	echo "not in the log: $2"
	show_log "$HANDOFF_LOG"
	return 1
}

# is_seen COMMAND...: under `accepting`, and under `auto` where it does not speak, it is ready when it is seen to wait;
# then it answers, and a hand-off succeeds. Its signal to drain is in DRAIN.
is_seen() {
	local how number
	for how in accepting auto; do
		start_handoff -l "127.0.0.1:${PORT:=$(free_port)}" --drain-signal "${DRAIN:-INT}" --ready "$how" \
			--settle 50ms --ready-timeout 60s -- "${MUTE[@]}" "$@"
		for number in 1 2; do
			ready_by "$number" "accepting: $SEEN"
			# Seen to accept is to accept.
			wait_for generation_is "$number" "http://127.0.0.1:$PORT/"
			[[ $number == 2 ]] || kill -USR1 "$HANDOFF_PID"
		done
		wait_log '\[gen 1\] gone'
		run grep -E 'handoff: .*(warning|error): ' "$HANDOFF_LOG"
		assert_output ''
		stop_gracefully
	done
}

# falls_back WHY OPTIONS... -- COMMAND...: cannot be seen for the reason WHY (a regex): `auto` takes a second of life
# for readiness, `accepting` alone fails at the timeout, and both say why. RUN is what goes before handoff.
falls_back() {
	local why=$1
	shift
	start_as auto --settle 0 "$@"
	ready_by 1 "delay: $why: alive for 1s"
	log_has "warning: $why: being alive for 1s is taken for ready; READY=1 or another --ready would be surer\$" 1
	(($(sed -n 's/.*ready after \([0-9]*\)\.[0-9] s .*/\1/p' "$HANDOFF_LOG") >= 1))
	wait_for generation_is 1 "http://$ADDRESS/"
	stop_gracefully
	start_as accepting --ready-timeout 5s "$@"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 124
	log_has "error: failed to start: not ready in time \\(5\\.0 s\\): $why\$" 1
	log_has "warning: $why: whether it accepts cannot be seen so far\$" 1
}

# start_as HOW OPTIONS...: on any port; ADDRESS is where it listens.
start_as() {
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" "${RUN[@]}" "$HANDOFF_BIN" run -l 127.0.0.1:0 --ready "$@"
	HANDOFF_PID=$STARTED_PID
	wait_log 'holding '
	ADDRESS=$(sed -n 's/.*holding \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$HANDOFF_LOG")
}

# --- Servers that are seen ------------------------------------------------------------------------------------------

@test "a C server in epoll is seen" {
	is_seen "$TS_BIN" --mode epoll --ready none
}

@test "a C server in poll is seen" {
	is_seen "$TS_BIN" --mode poll --ready none
}

@test "a C server in select is seen" {
	is_seen "$TS_BIN" --mode select --ready none
}

@test "a C server with threads blocked in accept is seen" {
	is_seen "$TS_BIN" --mode threads --ready none
}

@test "a server behind a shell that does not exec is seen" {
	is_seen sh -c "'$TS_BIN' --ready none; :"
}

@test "Python's http.server is seen" {
	is_seen python3 "$SERVERS/python_server.py"
}

@test "Python's asyncio is seen" {
	cat >"$BATS_TEST_TMPDIR/server.py" <<-'END'
		import asyncio, os, signal, socket
		async def answer(reader, writer):
		    await reader.readuntil(b"\r\n\r\n")
		    body = b"gen=%s\n" % os.environ["HANDOFF_GENERATION"].encode()
		    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
		    await writer.drain()
		    writer.close()
		async def main():
		    stop = asyncio.Event()
		    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
		    server = await asyncio.start_server(answer, sock=socket.socket(fileno=3))
		    await stop.wait()
		    server.close()
		asyncio.run(main())
	END
	is_seen python3 "$BATS_TEST_TMPDIR/server.py"
}

@test "Node.js is seen" {
	is_seen node "$SERVERS/node/server.js"
}

@test "Go is seen" {
	(cd "$SERVERS/go" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOPROXY=off go build -o "$BATS_TEST_TMPDIR/server" . 3>&-)
	is_seen "$BATS_TEST_TMPDIR/server"
}

@test "gunicorn's workers are seen" {
	DRAIN=TERM is_seen gunicorn --workers 2 --preload --log-level critical --chdir "$SERVERS" gunicorn_app:app
}

@test "nginx with workers of another user is seen by root" {
	PORT=$(free_port)
	sed "s/user='user root;'/user='user www-data;'/" "$SERVERS/nginx_start" >"$PUBLIC/nginx_start"
	chmod 755 "$PUBLIC/nginx_start"
	DRAIN=QUIT TMPDIR=$PUBLIC is_seen "$PUBLIC/nginx_start" "$PORT"
}

@test "a busy server that is never seen to wait is seen by the connection that it has taken" {
	mkfifo "$BATS_TEST_TMPDIR/gate"
	cat >"$BATS_TEST_TMPDIR/busy.py" <<-'END'
		import os, signal, socket, sys
		signal.signal(signal.SIGINT, lambda *_: os._exit(0))
		open(sys.argv[1]).readline()
		listener = socket.socket(fileno=3)
		client, _ = listener.accept()
		client.recv(1)
		os._exit(5)
	END
	start_as accepting --settle 0 -- python3 "$BATS_TEST_TMPDIR/busy.py" "$BATS_TEST_TMPDIR/gate"
	# In the queue before the server looks, so that it never waits there.
	exec 8<>"/dev/tcp/${ADDRESS/://}"
	echo >"$BATS_TEST_TMPDIR/gate"
	ready_by 1 "accepting: $SEEN"
	stop_gracefully
	exec 8>&-
}

@test "a server that takes its time before it waits is not ready before" {
	start_as accepting --settle 0 -- "$TS_BIN" --ready none --slow-boot 1500
	ready_by 1 "accepting: $SEEN"
	(($(sed -n 's/.*ready after \([0-9]*\)\.\([0-9]\) s .*/\1\2/p' "$HANDOFF_LOG") >= 15))
	stop_gracefully
}

# --- Several listeners ----------------------------------------------------------------------------------------------

@test "a server that waits on all of its listeners is seen" {
	start_as auto --settle 0 -l "unix:$BATS_TEST_TMPDIR/s" -l '127.0.0.1:0' -l udp:127.0.0.1:0 -- "$TS_BIN" --ready none
	wait_log '\[gen 1\] active'
	log_has 'ready after .* \(accepting: it waits on 3 of 3 stream listeners, ' 1
	stop_gracefully
}

@test "a listener that nobody waits on fails the first start at the timeout, and is named" {
	local how
	for how in accepting auto; do
		start_as "$how" --ready-timeout 5s -l "unix:$BATS_TEST_TMPDIR/unused" -- "${MUTE[@]}" python3 "$SERVERS/python_server.py"
		wait_exit "$HANDOFF_PID"
		assert_equal "$EXIT_STATUS" 124
		log_has "error: failed to start: not ready in time \\(5\\.0 s\\): nobody waits on $BATS_TEST_TMPDIR/unused yet\$" 1
	done
}

@test "a server that waits on none of its listeners fails at the timeout, and they are named" {
	start_as accepting --ready-timeout 700ms -l "unix:$BATS_TEST_TMPDIR/unused" -- "$TS_BIN" --never-ready
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 124
	log_has "not ready in time \\(700 ms\\): nobody waits on $ADDRESS, $BATS_TEST_TMPDIR/unused yet\$" 1
}

# --- What cannot be seen --------------------------------------------------------------------------------------------

@test "a server of another user is not seen without CAP_SYS_PTRACE" {
	RUN=(setpriv --bounding-set=-sys_ptrace)
	cp "$TS_BIN" "$PUBLIC/ts"
	falls_back 'cannot look into pid [0-9]+ \(another user\)' --chdir / --user nobody -- "$PUBLIC/ts" --ready none
}

@test "a server of another user is seen with CAP_SYS_PTRACE" {
	cp "$TS_BIN" "$PUBLIC/ts"
	start_as auto --settle 0 --chdir / --user nobody -- "$PUBLIC/ts" --ready none
	ready_by 1 "accepting: $SEEN"
	generation_is 1 "http://$ADDRESS/"
	stop_gracefully
}

@test "a server that has dropped to another user itself is not seen without CAP_SYS_PTRACE" {
	RUN=(setpriv --bounding-set=-sys_ptrace)
	cp "$TS_BIN" "$PUBLIC/ts"
	falls_back 'cannot look into pid [0-9]+ \(another user\)' --chdir / -- \
		setpriv --reuid nobody --regid nogroup --clear-groups "$PUBLIC/ts" --ready none
}

@test "a server of another user says itself that it is ready" {
	RUN=(setpriv --bounding-set=-sys_ptrace)
	cp "$TS_BIN" "$PUBLIC/ts"
	local word
	for word in pipe notify; do
		start_as auto --settle 0 --chdir / --user nobody -- "$PUBLIC/ts" --ready "$word"
		ready_by 1 "$word: .*"
		run grep -c 'warning: ' "$HANDOFF_LOG"
		assert_output 0
		stop_gracefully
	done
}

# A server that nobody may look into: not dumpable.
write_secret_server() {
	cat >"$BATS_TEST_TMPDIR/secret.py" <<-'END'
		import ctypes, http.server, os, signal, socketserver, socket
		ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
		signal.signal(signal.SIGINT, lambda *_: os._exit(0))
		class Handler(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        self.send_response(200)
		        self.end_headers()
		        self.wfile.write(b"gen=%s\n" % os.environ["HANDOFF_GENERATION"].encode())
		    def log_message(self, *_):
		        pass
		server = socketserver.TCPServer(("", 0), Handler, bind_and_activate=False)
		server.socket = socket.socket(fileno=3)
		server.serve_forever()
	END
}

@test "a server that is not dumpable is not seen without CAP_SYS_PTRACE" {
	RUN=(setpriv --bounding-set=-sys_ptrace)
	write_secret_server
	falls_back 'cannot look into pid [0-9]+ \(not dumpable\)' -- python3 "$BATS_TEST_TMPDIR/secret.py"
}

@test "a server that is not dumpable is seen by root" {
	write_secret_server
	start_as auto --settle 0 -- python3 "$BATS_TEST_TMPDIR/secret.py"
	ready_by 1 "accepting: $SEEN"
	stop_gracefully
}

@test "a server that waits through io_uring is not seen" {
	falls_back 'pid [0-9]+ has an io_uring, which does not show what it waits on' -- "$URING_BIN"
}

@test "a server that waits through io_uring says itself that it is ready" {
	start_as auto --settle 0 -- "$URING_BIN" ready
	ready_by 1 'pipe: a newline on the ready pipe'
	hand_off 2
	wait_log '\[gen 1\] gone'
	stop_gracefully
}

@test "an unprivileged supervisor sees its own server" {
	RUN=(setpriv --reuid nobody --regid nogroup --clear-groups env HOME=/)
	cp "$TS_BIN" "$PUBLIC/ts"
	cp "$HANDOFF_BIN" "$PUBLIC/handoff"
	HANDOFF_BIN="$PUBLIC/handoff"
	cd / || return
	start_as auto --settle 0 -- "$PUBLIC/ts" --ready none
	ready_by 1 "accepting: $SEEN"
	stop_gracefully
}

# --- Afterwards -----------------------------------------------------------------------------------------------------

context_switches() {
	awk '/ctxt_switches/ {sum += $2} END {print sum}' "/proc/$HANDOFF_PID/status"
}

# Over two seconds the supervisor is not woken once.
sleeps() {
	local before
	wait_for process_sleeps "$HANDOFF_PID"
	before=$(context_switches)
	sleep 2
	assert_equal "$(context_switches)" "$before"
}

process_sleeps() {
	[[ $(process_state "$1") == S && $(cat "/proc/$1/wchan") == *epoll* ]]
}

@test "nobody looks any more once the server is ready, nor after a hand-off" {
	start_as accepting -- "$TS_BIN" --ready none
	wait_log '\[gen 1\] active'
	sleeps
	hand_off 2
	wait_log '\[gen 1\] gone'
	sleeps
	stop_gracefully
}

@test "nobody looks any more once a start has failed" {
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$TS_BIN' --ready none"
	start_as accepting --ready-timeout 700ms -- "$BATS_TEST_TMPDIR/server"
	wait_log '\[gen 1\] active'
	write_script "$BATS_TEST_TMPDIR/server" <<<"exec '$TS_BIN' --never-ready"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] error: failed to start: not ready in time \(700 ms\): nobody waits on .*; generation 1 still serves'
	wait_log '\[gen 2\] gone'
	sleeps
	stop_gracefully
}
