#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# --compat: servers that were written for other supervisors run unmodified.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # texts for other languages; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	GATE="$BATS_TEST_TMPDIR/gate"
}

teardown() {
	stop_all
}

# no_failure_in N: that many hand-offs under load on $TARGET.
no_failure_in() {
	local number
	start_load "$TARGET" --rate 80
	for ((number = 2; number <= $1 + 1; number++)); do
		mark_load start
		ctl reload --wait
		mark_load end
	done
	finish_load
	assert_equal "$(gen_of "$URL")" "$(($1 + 1))"
}

# --- server-starter -----------------------------------------------------------------------------------------------------

# A Plack application under Starlet, which finds its sockets through Server::Starter's own module.
starlet() {
	local workers=$1
	shift
	cat >"$BATS_TEST_TMPDIR/app.psgi" <<-'END'
		sub {
			[200, ["Content-Type", "text/plain"],
			 ["gen=$ENV{SERVER_STARTER_GENERATION} pid=$$ port=$ENV{SERVER_STARTER_PORT}\n"]];
		}
	END
	"$@" -- plackup -s Starlet --max-workers "$workers" "$BATS_TEST_TMPDIR/app.psgi"
}

@test "a Server::Starter application takes its socket, and hand-offs of it under load fail no request" {
	starlet 4 start_controlled --compat server-starter --drain-signal TERM
	local body
	body=$(http "$URL")
	[[ $body == "gen=1 pid="*" port=${URL#http://}=3" ]] || fail "$body"
	no_failure_in 4
	wait_log '\[gen 4\] gone'
	stop_gracefully
}

# Starlet knows no IPv6, so that a dual-stack wildcard is not for it.
@test "a Server::Starter application takes a unix path beside its port" {
	local path="$BATS_TEST_TMPDIR/web.sock"
	starlet 4 start_controlled --compat server-starter --drain-signal TERM -l "unix:$path"
	local expected="^gen=1 pid=[0-9]+ port=${URL#http://}=3;$path=4\$"
	run http "$URL"
	assert_output --regexp "$expected"
	run http http://x/ --unix-socket "$path"
	assert_output --regexp "$expected"
	stop_gracefully
}

@test "Server::Starter's name of a wildcard is its port alone" {
	local port
	port=$(free_port)
	start_controlled --compat server-starter -l ":$port" -- "$TS_BIN"
	run http "$URL/env?SERVER_STARTER_PORT"
	assert_output "${URL#http://}=3;$port=4"
	ctl reload --wait
	run http "$URL/env?SERVER_STARTER_GENERATION"
	assert_output 2
	stop_gracefully
}

# --- forked-server ------------------------------------------------------------------------------------------------------

# fork_and_signal FUNCTION...: the Go server, which says that it is ready by sending its parent TERM.
fork_and_signal() {
	(cd "$helpers_dir/../servers/go-forked" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOPROXY=off go build \
		-o "$BATS_FILE_TMPDIR/forked" . 3>&-)
	"$@" -- "$BATS_FILE_TMPDIR/forked" 127.0.0.1:1
}

@test "a Go server in the fork-and-signal style is handed off under load, and an operator's TERM still stops" {
	fork_and_signal start_controlled --compat forked-server
	log_has '\[gen 1\] ready after .*\(signal: ' 1
	no_failure_in 5
	assert_equal "$(status_value generations 0 ready_by)" signal
	wait_log '\[gen 5\] gone'
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	log_has 'immediate stop asked by SIGTERM' 1
	assert_equal "$(survivors)" ''
}

# --- einhorn ------------------------------------------------------------------------------------------------------------

# einhorn_worker: an event loop on the descriptors that EINHORN_FD_N name, which acknowledges when the gate is open.
einhorn_worker() {
	cat >"$BATS_TEST_TMPDIR/worker.py" <<-'END'
		import json, os, select, signal, socket, sys
		listeners = [socket.socket(fileno=int(os.environ[f"EINHORN_FD_{i}"]))
		             for i in range(int(os.environ["EINHORN_FD_COUNT"]))]
		for listener in listeners:
		    listener.setblocking(False)
		wake, waker = os.pipe()
		os.set_blocking(waker, False)
		signal.signal(signal.SIGINT, lambda *_: None)
		signal.set_wakeup_fd(waker)
		# It looks as if it served; only its word can tell.
		while not os.path.exists(sys.argv[1]):
		    select.select(listeners, [], [], 0.05)
		with socket.socket(socket.AF_UNIX) as einhorn:
		    einhorn.connect(os.environ["EINHORN_SOCK_PATH"])
		    einhorn.sendall(json.dumps({"command": "worker:ack", "pid": os.getpid()}).encode() + b"\n")
		    # It closes at the end of what it has read.
		    einhorn.shutdown(socket.SHUT_WR)
		    einhorn.recv(1)
		body = f"gen={os.environ['HANDOFF_GENERATION']} pid={os.getpid()}\n".encode()
		head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
		while True:
		    ready = select.select([wake, *listeners], [], [])[0]
		    if wake in ready:
		        break
		    for listener in ready:
		        try:
		            client = listener.accept()[0]
		        except BlockingIOError:
		            continue
		        with client:
		            client.setblocking(True)
		            request = b""
		            while b"\r\n\r\n" not in request and (part := client.recv(65536)):
		                request += part
		            client.sendall(head + body)
	END
	echo "$BATS_TEST_TMPDIR/worker.py"
}

# Somebody who is no worker says that one is ready; its path is the one that the worker was told.
strange_ack() {
	python3 -c '
import json, os, socket, sys
pid = int(sys.argv[2])
with open(f"/proc/{pid}/environ", "rb") as environ:
    values = dict(one.split(b"=", 1) for one in environ.read().split(b"\0") if one)
client = socket.socket(socket.AF_UNIX)
client.connect(values[b"EINHORN_SOCK_PATH"])
client.sendall(json.dumps({"command": "worker:ack", "pid": pid}).encode() + b"\n")
# At the end of what was sent the other side closes, too: by then it has read everything.
client.shutdown(socket.SHUT_WR)
assert client.recv(1) == b""
' "$@" 3>&-
}

@test "an einhorn worker is ready when it acknowledges, and not when a stranger does" {
	# Before one has ever acknowledged, a guess may be quicker.
	start_controlled --log-level debug --compat einhorn -l 127.0.0.1:0 -- python3 "$(einhorn_worker)" "$GATE"
	log_has '\[gen 1\] ready after .*\(accepting' 1
	URL="http://$(status_value listeners 0 address)"
	touch "$GATE"
	assert_equal "$(gen_of "$URL")" 1
	rm "$GATE"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	wait_for grep -qz EINHORN_SOCK_PATH "/proc/$(pid_of 2)/environ"
	strange_ack stranger "$(pid_of 2)"
	wait_log 'ignored a worker:ack from pid [0-9]+'
	assert_equal "$(status_value state)" handing-off
	touch "$GATE"
	wait_log '\[gen 2\] active'
	log_has '\[gen 2\] ready after .*worker:ack on EINHORN_SOCK_PATH\)' 1
	# Both of its descriptors serve.
	assert_equal "$(gen_of "http://$(status_value listeners 1 address)")" 2
	wait_log '\[gen 1\] gone'
	stop_gracefully
	run ls -A "$BATS_TEST_TMPDIR"
	refute_output --partial einhorn
}

@test "hand-offs of an einhorn worker under load fail no request" {
	touch "$GATE"
	start_controlled --compat einhorn --workers 2 -- python3 "$(einhorn_worker)" "$GATE"
	no_failure_in 4
	# One that replaces a lost one acknowledges like any other.
	wait_log '\[gen 4\] gone'
	kill -KILL "$(status_value generations 0 pids 1)"
	wait_log '\[gen 5\] worker [0-9]+ is ready after .*worker:ack' 3
	stop_gracefully
}

# --- no-listen-pid ------------------------------------------------------------------------------------------------------

@test "a server behind a wrapper that forks takes its sockets under no-listen-pid, and only then" {
	local strict
	strict="$BATS_TEST_TMPDIR/strict"
	# Written as libsystemd has it: where LISTEN_PID is set it must be one's own.
	cat >"$strict.py" <<-'END'
		import os, sys
		if os.environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
		    sys.exit("the sockets are not for me")
		os.execv(sys.argv[1], sys.argv[1:])
	END
	write_script "$strict" <<<"python3 \"$strict.py\" \"$TS_BIN\"; exit \$?"
	start_handoff -l 127.0.0.1:0 -- "$strict"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 1
	log_has 'the sockets are not for me' 1
	start_controlled --compat no-listen-pid -- "$strict"
	run http "$URL/env?LISTEN_PID"
	assert_output unset
	run http "$URL/env?LISTEN_FDS"
	assert_output 1
	ctl reload --wait
	assert_equal "$(gen_of "$URL")" 2
	stop_gracefully
}

@test "two protocols at once do not disturb each other, and none leaks into a server that was not promised it" {
	start_controlled --compat server-starter,einhorn -- "$TS_BIN"
	http "$URL/environ" >"$BATS_TEST_TMPDIR/environ"
	run grep -cE '^(SERVER_STARTER_PORT|SERVER_STARTER_GENERATION|EINHORN_FD_COUNT|EINHORN_FD_0|EINHORN_SOCK_PATH)=' \
		"$BATS_TEST_TMPDIR/environ"
	assert_output 5
	stop_gracefully
	export SERVER_STARTER_PORT=80=7 EINHORN_FD_COUNT=9 EINHORN_FD_8=8 FORKED_SERVER=1
	start_controlled -- "$TS_BIN"
	run http "$URL/environ"
	refute_output --regexp 'SERVER_STARTER|EINHORN|FORKED_SERVER'
	stop_gracefully
}
