#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The control socket: its protocol, clients of every bad kind, whose it is and where it lies (docs/handoff-control.7).
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

# How long a client may be silent is a matter of up to a minute: it is tried beside all other tests.
setup_file() {
	local folder=$BATS_FILE_TMPDIR
	export SILENT_FOLDER=$folder
	# shellcheck disable=SC2153 # helpers.bash sets it
	"$HANDOFF_BIN" run --control "$folder/control" -l 127.0.0.1:0 -- "$TS_BIN" </dev/null >"$folder/log" 2>&1 3>&- &
	echo $! >"$folder/pids"
	CONTROL="$folder/control" PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$BATS_TEST_DIRNAME/../lib" python3 -c '
import time
from control_client import *
wait_until(lambda: os.path.exists(os.environ["CONTROL"]))
silent, half, talker, subscriber = Client(), Client(), Client(), Client()
wait_until(lambda: talker.ask({"command": "status"})["status"]["state"] == "running")
half.send(b"{\"command\":")
subscriber.send({"command": "subscribe"})
equal(subscriber.line()["event"], "status")
start = time.monotonic()
silent.socket.settimeout(5)
while True:
    talker.ask({"command": "ping"})
    try:
        equal(silent.line(), None)
        break
    except TimeoutError:
        assert time.monotonic() < start + 90, "never cut off"
        half.send(b" ")
print("silent", int(time.monotonic() - start))
half.socket.settimeout(5)
while True:
    talker.ask({"command": "ping"})
    try:
        equal(half.line(), None)
        break
    except TimeoutError:
        assert time.monotonic() < start + 120, "never cut off"
print("half", int(time.monotonic() - start))
equal(talker.ask({"command": "ping", "id": 1}), {"result": "ok", "id": 1})
talker.ask({"command": "reload", "wait": True})
equal([event["event"] for event in subscriber.until("active")], ["starting", "ready", "active"])
print("others live")
' </dev/null >"$folder/silent" 2>&1 3>&- &
	echo $! >>"$folder/pids"
}

teardown_file() {
	local pid
	while read -r pid; do
		kill -TERM "$pid" 2>/dev/null || true
	done <"$SILENT_FOLDER/pids"
	wait
}

setup() {
	common_setup
	export CONTROL="$BATS_TEST_TMPDIR/control"
	SERVER="$BATS_TEST_TMPDIR/server"
	GATE="$BATS_TEST_TMPDIR/gate"
	RESULT="$BATS_TEST_TMPDIR/result"
	write_script "$SERVER" <<<"exec \"$TS_BIN\""
	OUR_FOLDERS=()
}

teardown() {
	stop_all
	# Folders in /tmp, which tests have made there on purpose.
	((${#OUR_FOLDERS[@]} == 0)) || rm -rf -- "${OUR_FOLDERS[@]}"
}

# talk: runs the Python on stdin, with Client and $CONTROL.
talk() {
	{
		echo 'from control_client import *'
		cat
	} | PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$helpers_dir" timeout 60 python3 - 3>&-
}

# talk_background OUTPUT: the same beside the test; its pid in STARTED_PID.
talk_background() {
	{
		echo 'from control_client import *'
		cat
	} >"$BATS_TEST_TMPDIR/talk.py"
	start_background "$1" env PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$helpers_dir" python3 "$BATS_TEST_TMPDIR/talk.py"
}

gated_server() {
	write_script "$SERVER" <<<"until [ -e \"$GATE\" ]; do sleep 0.02; done; exec \"$TS_BIN\""
}

fd_count_is() {
	(($(fd_count "$HANDOFF_PID") == $1))
}

# --- The protocol ---------------------------------------------------------------------------------------------------

@test "everything that answers a request carries its id, whatever that is" {
	start_controlled -- "$SERVER"
	talk <<-'EOF'
		client = Client()
		for id in ["deploy 8", 7, 1.5, True, None, [1, "x"], {"a": {"b": []}}, "", "ä\n\"", 123456789012]:
		    equal(client.ask({"command": "ping", "id": id}), {"result": "ok", "id": id})
		equal(client.ask({"command": "ping"}), {"result": "ok"})
		equal(client.ask({"command": "nonsense", "id": 1})["id"], 1)
		equal(client.ask({"id": 2})["id"], 2)
		result = client.ask({"command": "reload", "wait": True, "id": "r"})
		equal((result["result"], result["id"]), ("ok", "r"))
		equal([(event["event"], event["id"]) for event in client.events],
		      [("starting", "r"), ("ready", "r"), ("active", "r")])
		# In the subscription only the first event does.
		client.send({"command": "subscribe", "id": "s"})
		equal(client.line()["id"], "s")
		Client().ask({"command": "reload"})
		assert "id" not in client.line()
	EOF
	stop_gracefully
}

@test "requests may come together or in pieces, and each gets exactly one result" {
	start_controlled -- "$SERVER"
	talk <<-'EOF'
		client = Client()
		client.send(b"".join(b'{"command":"ping","id":%d}\n' % i for i in range(500)))
		equal([client.line()["id"] for _ in range(500)], list(range(500)))
		for byte in b' { "command" : "ping",\t"unknown": [1] , "id" : "slow" } \r\n':
		    client.send(bytes([byte]))
		equal(client.line(), {"result": "ok", "id": "slow"})
		# A reload that waits does not hold up what follows on the same connection.
		client.send({"command": "reload", "wait": True, "id": "first"})
		client.send({"command": "ping", "id": "second"})
		equal(client.result()["id"], "second")
		equal(client.result()["id"], "first")
		client.socket.setblocking(False)
		try:
		    assert False, client.socket.recv(100)
		except BlockingIOError:
		    pass
	EOF
	stop_gracefully
}

@test "what is no request gets an error that says why, changes nothing, and the connection goes on" {
	start_controlled -- "$SERVER"
	talk <<-'EOF'
		client = Client()
		def refused(message, reason):
		    result = client.ask(message)
		    equal((result["result"], result["reason"]), ("error", reason))
		for line in [b"\n", b"reload\n", b"[]\n", b"7\n", b'"reload"\n', b'{"command":"ping"\n', b'{"command":"ping"}x\n',
		             b'{"command":"ping"}{"command":"ping"}\n', b"\0\n", b"\xff\xfe\n", b"{'command':'ping'}\n",
		             b"[" * 5000 + b"\n", b'{"a":' * 5000 + b"\n", b"null\n"]:
		    refused(line, "a request is one JSON object on one line")
		for message in [{}, {"command": 1}, {"command": None}, {"command": ["ping"]}, {"Command": "ping"}]:
		    refused(message, 'a request has a "command", which is a string')
		for command in ["", "Reload", "reload ", "restart", "x" * 60000]:
		    refused({"command": command}, "the command is none of reload, status, stop, subscribe, ping")
		for argv in [[], [1], "x", None, {}, ["x", None], ["x", ["y"]]]:
		    refused({"command": "reload", "argv": argv}, '"argv" is an array of strings, at least one')
		refused({"command": "reload", "argv": [""]}, 'the command in "argv" is empty')
		for number in [0, -1, "1", 1.5, 2**32, 1e300, None, []]:
		    refused({"command": "reload", "if_generation": number}, '"if_generation" is a number from 1')
		refused({"command": "status", "format": "xml"}, '"format" is "json" or "prometheus"')
		status = client.ask({"command": "status"})["status"]
		equal((status["generation"], status["state"], status["last_reload"]), (1, "running", None))
	EOF
	run grep -c 'asked by the control socket' "$HANDOFF_LOG"
	assert_output 0
	stop_gracefully
}

@test "a line of 65536 bytes is taken, a longer one gets an error, then the end" {
	start_controlled -- "$SERVER"
	talk <<-'EOF'
		import fcntl, struct, termios
		def line(length):
		    head, tail = b'{"command":"ping","pad":"', b'"}\n'
		    return head + b"x" * (length - len(head) - len(tail)) + tail
		def pieces(client, data, first):
		    client.send(data[:first])
		    # Until it was taken.
		    wait_until(lambda: struct.unpack("i", fcntl.ioctl(client.socket, termios.TIOCOUTQ, b"\0" * 4))[0] == 0)
		    client.send(data[first:])
		client = Client()
		for first in [1, 61000, 65535]:
		    pieces(client, line(65536), first)
		    equal(client.line(), {"result": "ok"})
		too_long = {"result": "error", "reason": "a line is at most 65536 bytes"}
		for length, first in [(65537, 65536), (65537, 61500), (70000, 65000), (70000, 1), (130000, 65000)]:
		    client = Client()
		    try:
		        pieces(client, line(length), first)
		    except (BrokenPipeError, ConnectionResetError):
		        pass
		    equal(client.line(), too_long)
		    equal(client.line(), None)
		# One that never ends a line.
		client = Client()
		try:
		    while True:
		        client.send(b"x" * 4096)
		except (BrokenPipeError, ConnectionResetError):
		    pass
		equal(client.line(), too_long)
		equal(Client().ask({"command": "ping"}), {"result": "ok"})
	EOF
	stop_gracefully
}

@test "a client that has shut down its sending side is still answered" {
	start_controlled -- "$SERVER"
	run timeout 30 socat -t 20 - "UNIX-CONNECT:$CONTROL" < <(printf '{"command":"ping","id":1}\n') 3>&-
	assert_output '{"result":"ok","id":1}'
	run timeout 30 socat -t 20 - "UNIX-CONNECT:$CONTROL" < <(printf '{"command":"reload","wait":true}\n') 3>&-
	assert_line --index -1 --partial '"result":"ok","generation":2'
	assert_equal "${#lines[@]}" 4
	# Without a newline at the end it is no request.
	run timeout 30 socat -t 20 - "UNIX-CONNECT:$CONTROL" < <(printf '{"command":"reload"}') 3>&-
	assert_success
	assert_output ''
	assert_equal "$(status_value generation)" 2
	stop_gracefully
}

@test "subscribers hear of everything, and once a second how far a drain is" {
	start_controlled --settle 30ms -- "$SERVER"
	talk_background "$RESULT" <<-'EOF'
		client = Client()
		client.send({"command": "subscribe"})
		print("subscribed", client.line()["status"]["generation"], flush=True)
		seen = client.until("draining")
		equal([event["event"] for event in seen], ["starting", "ready", "active", "draining"])
		equal((seen[0]["generation"], len(seen[0]["pids"])), (2, 1))
		equal((seen[1]["by"], seen[1]["pid"]), ("pipe", seen[0]["pids"][0]))
		equal((seen[3]["generation"], seen[3]["connections"]), (1, 1))
		for _ in range(2):
		    again = client.line()
		    equal((again["event"], again["generation"], again["connections"]), ("draining", 1, 1))
		    assert 500 <= again["draining_ms"] - seen[-1]["draining_ms"] <= 15000, again
		    seen.append(again)
		print("drains", flush=True)
		seen = client.until("gone")
		print("gone", flush=True)
		equal(client.until("restarting")[-1]["in_ms"], 100)
		seen = [event["event"] for event in client.until("active")]
		equal([event for event in seen if event != "gone"], ["starting", "ready", "active"])
		print("restarted", flush=True)
		seen = client.until("failed")
		equal([event["event"] for event in seen], ["starting", "failed"])
		assert "status 6" in seen[1]["reason"], seen
		print("failed", flush=True)
		seen = client.until("stopping")
		while (event := client.line()) is not None:
		    seen.append(event)
		equal(seen[-1], {"event": "gone", "generation": 3})
		print("ended", flush=True)
	EOF
	local listener=$STARTED_PID
	wait_for grep -q '^subscribed 1' "$RESULT"
	start_background "$RESULT.curl" curl -sS "$URL/sleep?ms=100000"
	local port=${URL##*:}
	wait_for established "$port"
	hand_off 2
	wait_for grep -q '^drains' "$RESULT"
	kill -KILL "$(pid_of 1)"
	wait_for grep -q '^gone' "$RESULT"
	kill -KILL "$(pid_of 2)"
	wait_for grep -q '^restarted' "$RESULT"
	write_script "$SERVER" <<<'exit 6'
	kill -USR1 "$HANDOFF_PID"
	wait_for grep -q '^failed' "$RESULT"
	stop_gracefully_beside "$listener"
	run tail -n 1 "$RESULT"
	assert_output ended
}

established() {
	ss -Htn state established "sport = :$1" | grep -q .
}

# As stop_gracefully, where PID ends with the supervisor.
stop_gracefully_beside() {
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	wait_exit "$1"
	assert_equal "$EXIT_STATUS" 0 || {
		cat "$RESULT" >&2
		return 1
	}
}

@test "stop with wait is answered when every generation is gone, then the connection ends" {
	start_controlled -- "$SERVER"
	talk <<-'EOF'
		client = Client()
		equal(client.ask({"command": "stop", "wait": True, "id": 1}),
		      {"result": "ok", "forced": False, "status": 0, "id": 1})
		equal(client.line(), None)
	EOF
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

@test "30 requests from 30 clients at one instant are one or two further generations, and 30 answers" {
	start_controlled --settle 1s -- "$SERVER"
	local fds
	fds=$(fd_count "$HANDOFF_PID")
	talk <<-'EOF'
		clients = [Client() for _ in range(30)]
		for client in clients:
		    client.send({"command": "reload", "wait": True})
		results = [client.result() for client in clients]
		equal({result["result"] for result in results}, {"ok"})
		assert {result["generation"] for result in results} <= {2, 3}, results
		for client in clients:
		    client.socket.shutdown(socket.SHUT_WR)
		    equal(client.line(), None)
	EOF
	wait_for fd_count_is "$fds"
	run status_value generation
	((output == 2 || output == 3))
	stop_gracefully
}

# --- Bad clients ----------------------------------------------------------------------------------------------------

@test "of 200 clients at once 128 are served and the others told, and all are forgotten when they leave" {
	start_controlled -- "$SERVER"
	local fds
	fds=$(fd_count "$HANDOFF_PID")
	talk <<-'EOF'
		clients = [Client() for _ in range(128)]
		for client in clients:
		    client.send({"command": "ping"})
		equal([client.line() for client in clients], 128 * [{"result": "ok"}])
		for _ in range(72):
		    late = Client()
		    equal(late.line(), {"result": "error", "reason": "too many clients"})
		    equal(late.line(), None)
		result = clients[0].ask({"command": "reload", "wait": True})
		equal(result["result"], "ok")
		for client in clients:
		    client.close()
		def welcome():
		    client = Client()
		    try:
		        client.send({"command": "ping"})
		    except BrokenPipeError:
		        pass
		    return client.line() == {"result": "ok"}
		wait_until(welcome)
		# All together, as they come.
		clients = [Client() for _ in range(200)]
		answers = []
		for client in clients:
		    try:
		        client.send({"command": "ping"})
		    except BrokenPipeError:
		        pass
		answers = [client.line()["result"] for client in clients]
		equal((answers.count("ok"), answers.count("error")), (128, 72))
	EOF
	wait_for fd_count_is "$fds"
	assert_equal "$(gen_of "$URL")" 2
	stop_gracefully
}

@test "where too many clients are connected a command says so and is 4" {
	start_controlled -- "$SERVER"
	talk_background "$RESULT" <<-'EOF'
		clients = [Client() for _ in range(128)]
		for client in clients:
		    client.ask({"command": "ping"})
		print("full", flush=True)
		clients[0].line()
	EOF
	wait_for grep -q full "$RESULT"
	run -4 ctl status
	assert_output "handoff: $CONTROL: too many clients"
	hand_off 2
	kill -KILL "$STARTED_PID"
	wait_for ctl status
	stop_gracefully
}

@test "a client that never reads is cut off at 1 MiB, while others are served and a hand-off completes" {
	start_controlled --settle 30ms -- "$SERVER"
	local fds
	fds=$(fd_count "$HANDOFF_PID")
	talk <<-'EOF'
		import threading
		deaf = Client()
		done = threading.Event()
		def flood():
		    try:
		        while True:
		            deaf.send({"command": "status"})
		    except (BrokenPipeError, ConnectionResetError):
		        done.set()
		threading.Thread(target=flood, daemon=True).start()
		other = Client()
		for _ in range(3):
		    equal(other.ask({"command": "ping"}), {"result": "ok"})
		    equal(other.ask({"command": "reload", "wait": True})["result"], "ok")
		assert done.wait(SECONDS), "never cut off"
		# What was sent before that is whole lines but for the last.
		size = 0
		deaf.socket.settimeout(1)
		try:
		    while data := deaf.socket.recv(1 << 20):
		        size += len(data)
		except ConnectionResetError:
		    pass
		assert size < 3 << 20, size
	EOF
	wait_for fd_count_is "$fds"
	stop_gracefully
}

@test "a subscriber that never reads does not hold up hand-offs" {
	start_controlled --settle 0 -- "$SERVER"
	local fds n
	fds=$(fd_count "$HANDOFF_PID")
	talk_background "$RESULT" <<-'EOF'
		clients = [Client() for _ in range(20)]
		for client in clients:
		    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
		    client.send({"command": "subscribe"})
		print("subscribed", flush=True)
		input_never_comes = Client()
		input_never_comes.socket.settimeout(600)
		input_never_comes.line()
	EOF
	wait_for grep -q subscribed "$RESULT"
	kill -STOP "$STARTED_PID"
	for n in {2..11}; do
		ctl reload --wait >/dev/null
	done
	assert_equal "$(status_value generation)" 11
	kill -KILL "$STARTED_PID"
	wait_for fd_count_is "$fds"
	stop_gracefully
}

@test "clients that are stopped or killed while they wait change nothing for the hand-off" {
	start_controlled --settle 30ms -- "$SERVER"
	local fds stopped killed n pids=()
	fds=$(fd_count "$HANDOFF_PID")
	gated_server
	ctl_background "$RESULT.stopped" reload --wait
	stopped=$STARTED_PID
	wait_log '\[gen 2\] started'
	for n in 1 2 3 4 5; do
		ctl_background "$RESULT.killed" reload --wait
		pids+=("$STARTED_PID")
	done
	wait_log 'asked by the control socket' 6
	kill -STOP "$stopped"
	for killed in "${pids[@]}"; do
		kill -KILL "$killed"
		wait_exit "$killed"
	done
	touch "$GATE"
	wait_log '\[gen 2\] active'
	# They asked, and their hand-off is done, though nobody is left to hear of it.
	wait_log '\[gen 3\] active'
	ctl reload --wait
	assert_equal "$(status_value generation)" 4
	kill -CONT "$stopped"
	wait_exit "$stopped"
	assert_equal "$EXIT_STATUS" 0
	run tail -n 1 "$RESULT.stopped"
	assert_output --partial 'generation 2 is active'
	wait_for fd_count_is "$fds"
	stop_gracefully
}

@test "with every kind of bad client connected, a hand-off under load loses nothing, and nothing of them stays" {
	start_controlled -- "$SERVER"
	local fds n
	fds=$(fd_count "$HANDOFF_PID")
	start_load "$TARGET" --rate 100 --keepalive 4
	talk_background "$RESULT" <<-'EOF'
		import threading
		kept = []
		def rude(first, count=1, then=None):
		    for _ in range(count):
		        client = Client()
		        client.send(first)
		        kept.append(client)
		        if then:
		            then(client)
		rude(b"", 10)
		rude(b'{"command":', 10)
		rude(b"x" * 60000, 5)
		rude({"command": "subscribe"}, 10)
		rude({"command": "reload", "wait": True}, 2)
		rude({"command": "subscribe"}, 5, lambda client: client.socket.shutdown(socket.SHUT_WR))
		rude({"command": "subscribe"}, 5, lambda client: client.socket.shutdown(socket.SHUT_RD))
		def churn():
		    while True:
		        client = Client()
		        client.send(b'{"command":"status"}\n' * 3 + b"{")
		        client.close()
		        time.sleep(0.005)
		threading.Thread(target=churn, daemon=True).start()
		print("there", flush=True)
		time.sleep(600)
	EOF
	wait_for grep -q there "$RESULT"
	for n in 1 2 3; do
		ctl reload --wait >/dev/null
		ctl status >/dev/null
	done
	finish_load
	assert_equal "$(load_value failures)" 0
	kill -KILL "$STARTED_PID"
	wait_for fd_count_is "$fds"
	ctl reload --wait
	wait_for fd_count_is "$fds"
	stop_gracefully
}

# --- Whose it is ----------------------------------------------------------------------------------------------------

# as_nobody COMMAND...: as another user than the supervisor's.
as_nobody() {
	timeout 30 setpriv --reuid=65534 --regid=65534 --clear-groups "$@" </dev/null 3>&-
}

@test "the socket has mode 0600 and its user, whatever the umask; mode= and group= change that" {
	umask 0
	start_controlled -- "$SERVER"
	assert_equal "$(stat -c '%a %u %g %F' "$CONTROL")" '600 0 0 socket'
	assert_equal "$(stat -c '%a' "$CONTROL.lock")" 600
	stop_gracefully
	local log=$HANDOFF_LOG
	(umask 0777 && exec "$HANDOFF_BIN" run --control "$CONTROL?mode=0660&group=nogroup" -l 127.0.0.1:0 -- "$TS_BIN") \
		</dev/null >"$log" 2>&1 3>&- &
	HANDOFF_PID=$!
	started_pids+=("$HANDOFF_PID")
	wait_log '\[gen 1\] active'
	assert_equal "$(stat -c '%a %U %G %F' "$CONTROL")" '660 root nogroup socket'
	ctl status >/dev/null
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "a wrong --control is refused in one sentence" {
	while read -r value reason; do
		run -125 timeout 10 "$HANDOFF_BIN" run --control "$value" -l 127.0.0.1:0 -- "$TS_BIN" 3>&-
		assert_output --partial "$reason"
		assert_equal "${#lines[@]}" 1
	done <<-'EOF'
		/tmp/x?mode=9 mode=
		/tmp/x?mode= mode=
		/tmp/x?group=no-such-group no-such-group
		/tmp/x?size=3 neither mode= nor group=
		?mode=0600 the path is missing
		/no/such/folder/x /no/such/folder/x
	EOF
	touch "$BATS_TEST_TMPDIR/file"
	run -125 timeout 10 "$HANDOFF_BIN" run --control "$BATS_TEST_TMPDIR/file" -l 127.0.0.1:0 -- "$TS_BIN" 3>&-
	assert_output --partial "$BATS_TEST_TMPDIR/file is taken by something else"
	test -f "$BATS_TEST_TMPDIR/file"
	local long
	long=$BATS_TEST_TMPDIR/$(printf 'x%.0s' {1..120})
	run -125 timeout 10 "$HANDOFF_BIN" run --control "$long" -l 127.0.0.1:0 -- "$TS_BIN" 3>&-
	assert_output --partial 'is longer than 107 bytes'
	assert_equal "$(find "$BATS_TEST_TMPDIR" -name '*x.lock')" ''
}

@test "another user cannot connect, and is refused where somebody has opened the file; with mode= the mode decides" {
	HANDOFF_COPY=$(public_copy "$HANDOFF_BIN")
	start_controlled -- "$SERVER"
	run -4 as_nobody "$HANDOFF_COPY" status --control "$CONTROL"
	assert_output --partial 'Permission denied'
	chmod 0666 "$CONTROL"
	run -4 as_nobody "$HANDOFF_COPY" status --control "$CONTROL"
	assert_output "handoff: $CONTROL: only the user that runs this supervisor, or root, may talk to it"
	run -4 as_nobody "$HANDOFF_COPY" stop --now --control "$CONTROL"
	run as_nobody timeout 10 socat -t 5 - "UNIX-CONNECT:$CONTROL" < <(printf '{"command":"stop","now":true}\n')
	assert_output --partial '"result":"error"'
	assert_equal "$(status_value state)" running
	stop_gracefully

	start_handoff --control "$CONTROL?mode=0666" -l 127.0.0.1:0 -- "$SERVER"
	wait_log '\[gen 1\] active'
	run -0 as_nobody "$HANDOFF_COPY" reload --wait --control "$CONTROL"
	assert_output --partial 'generation 2 is active'
	stop_gracefully
}

@test "root may talk to a supervisor of another user" {
	local handoff ts
	handoff=$(public_copy "$HANDOFF_BIN")
	ts=$(public_copy "$TS_BIN")
	mkdir -m 700 "$BATS_TEST_TMPDIR/theirs"
	chown 65534:65534 "$BATS_TEST_TMPDIR/theirs"
	CONTROL="$BATS_TEST_TMPDIR/theirs/control"
	start_background "$HANDOFF_LOG" setpriv --reuid=65534 --regid=65534 --clear-groups \
		"$handoff" run --control "$CONTROL" -l 127.0.0.1:0 -- "$ts"
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	assert_equal "$(stat -c '%a %u' "$CONTROL")" '600 65534'
	ctl reload --wait
	stop_gracefully
}

# --- Where it lies --------------------------------------------------------------------------------------------------

@test "a socket path that a living supervisor has is refused with its pid, and it goes on" {
	start_controlled -- "$SERVER"
	run -125 timeout 10 "$HANDOFF_BIN" run --control "$CONTROL" -l 127.0.0.1:0 -- "$TS_BIN" 3>&-
	assert_output --partial "the control socket $CONTROL belongs to a supervisor that runs (pid $HANDOFF_PID)"
	assert_equal "${#lines[@]}" 1
	assert_equal "$(status_value pid)" "$HANDOFF_PID"
	stop_gracefully
	assert_equal "$(find "$BATS_TEST_TMPDIR" -name 'control*')" ''
}

@test "the socket of a supervisor that was killed is taken over" {
	start_controlled -- "$SERVER"
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	kill -KILL "$(pid_of 1)"
	test -S "$CONTROL"
	test -e "$CONTROL.lock"
	start_controlled -- "$SERVER"
	assert_equal "$(status_value pid)" "$HANDOFF_PID"
	assert_equal "$(cat "$CONTROL.lock")" "$HANDOFF_PID"
	stop_gracefully
	assert_equal "$(find "$BATS_TEST_TMPDIR" -name 'control*')" ''
}

# A user that nobody else is, with a folder for its supervisors; sets USER_ID, HANDOFF_COPY and TS_COPY.
somebody() {
	USER_ID=$((500000 + RANDOM * 3 + BATS_TEST_NUMBER))
	HANDOFF_COPY=$(public_copy "$HANDOFF_BIN")
	TS_COPY=$(public_copy "$TS_BIN")
	mkdir -p "$BATS_TEST_TMPDIR/theirs"
	chown "$USER_ID" "$BATS_TEST_TMPDIR/theirs"
	OUR_FOLDERS+=("/tmp/handoff-$USER_ID")
}

# start_theirs LOG VARIABLES... -- OPTIONS...: a supervisor of that user, until it serves; its pid in STARTED_PID.
start_theirs() {
	local log=$1 variables=()
	shift
	while [[ $1 != -- ]]; do
		variables+=("$1")
		shift
	done
	shift
	start_background "$log" env -u XDG_RUNTIME_DIR -u RUNTIME_DIRECTORY "${variables[@]}" \
		setpriv --reuid="$USER_ID" --regid=65534 --clear-groups "$HANDOFF_COPY" run -l 127.0.0.1:0 "$@" -- "$TS_COPY"
	wait_log '\[gen 1\] active' 1 "$log"
}

# their_client VARIABLES... -- COMMAND...: as that user.
their_client() {
	local variables=()
	while [[ $1 != -- ]]; do
		variables+=("$1")
		shift
	done
	shift
	timeout 30 env -u XDG_RUNTIME_DIR -u RUNTIME_DIRECTORY "${variables[@]}" \
		setpriv --reuid="$USER_ID" --regid=65534 --clear-groups "$HANDOFF_COPY" "$@" </dev/null 3>&-
}

@test "a derived name that is taken gets -2 and -3, an explicit one is refused with the pid" {
	somebody
	local runtime="XDG_RUNTIME_DIR=$BATS_TEST_TMPDIR/theirs" folder="$BATS_TEST_TMPDIR/theirs/handoff" first
	start_theirs "$RESULT.1" "$runtime" --
	first=$STARTED_PID
	start_theirs "$RESULT.2" "$runtime" --
	start_theirs "$RESULT.3" "$runtime" --
	assert_equal "$(stat -c '%a %u' "$folder")" "700 $USER_ID"
	assert_equal "$(find "$folder" -type s -printf '%f\n' | sort | tr '\n' ' ')" 'ts ts-2 ts-3 '
	# Its lines and its status bear the name as it became.
	run grep -c '^handoff: ts-2: \[gen 1\] active' "$RESULT.2"
	assert_output 1
	run -0 their_client "$runtime" -- status --json ts-3
	assert_output --partial '"name":"ts-3"'
	run -125 their_client "$runtime" -- run --name ts -l 127.0.0.1:0 -- "$TS_COPY"
	assert_output --partial "the control socket $folder/ts belongs to a supervisor that runs (pid $first)"
	run -0 their_client "$runtime" -- stop --wait ts-2
	# The number is free again.
	start_theirs "$RESULT.4" "$runtime" --
	run -0 their_client "$runtime" -- status ts-2
	assert_output --partial "(pid $STARTED_PID,"
}

@test "without a runtime folder the socket lies in /tmp/handoff-UID, which is the user's alone" {
	somebody
	start_theirs "$RESULT.1" -- --name web
	assert_equal "$(stat -c '%a %u %F' "/tmp/handoff-$USER_ID")" "700 $USER_ID directory"
	test -S "/tmp/handoff-$USER_ID/web"
	run -0 their_client -- reload --wait web
	assert_output --partial 'generation 2 is active'
}

@test "a folder in /tmp that is another user's, or a link, or open to others is refused with a warning, and it serves" {
	somebody
	local folder="/tmp/handoff-$USER_ID" case n=0
	for case in 'mkdir -m 777' 'ln -s /tmp' 'mkdir -m 770 -p' 'touch'; do
		n=$((n + 1))
		read -r -a words <<<"$case"
		"${words[@]}" "$folder"
		[[ $n != 3 ]] || chown "$USER_ID" "$folder"
		start_theirs "$RESULT.$n" --
		run grep -c "warning: no control socket: $folder is not a folder that only this user may write to" "$RESULT.$n"
		assert_output 1
		if [[ -d $folder && ! -L $folder ]]; then
			assert_equal "$(ls -A "$folder")" ''
		fi
		kill -USR1 "$STARTED_PID"
		wait_log '\[gen 2\] active' 1 "$RESULT.$n"
		kill -TERM "$STARTED_PID"
		wait_exit "$STARTED_PID"
		assert_equal "$EXIT_STATUS" 0
		rm -rf -- "$folder"
	done
}

@test "in a folder that a service manager gives the socket is called control" {
	mkdir "$BATS_TEST_TMPDIR/service"
	export RUNTIME_DIRECTORY="$BATS_TEST_TMPDIR/service:$BATS_TEST_TMPDIR/other"
	start_serving --name "web-$RANDOM$RANDOM" -- "$SERVER"
	unset RUNTIME_DIRECTORY
	CONTROL="$BATS_TEST_TMPDIR/service/control"
	assert_equal "$(status_value pid)" "$HANDOFF_PID"
	stop_gracefully
	assert_equal "$(ls -A "$BATS_TEST_TMPDIR/service")" ''
}

# --- Prometheus, and the page ---------------------------------------------------------------------------------------

@test "status --prometheus passes promtool, with every kind of generation" {
	start_controlled --name web@1 --settle 30ms -- "$SERVER"
	run promtool check metrics < <(ctl status --prometheus)
	assert_success
	assert_output ''
	start_background "$RESULT.curl" curl -sS "$URL/sleep?ms=100000"
	wait_for established "${URL##*:}"
	ctl reload --wait
	gated_server
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 3\] started'
	ctl status --prometheus >"$RESULT"
	run promtool check metrics <"$RESULT"
	assert_success
	assert_output ''
	run cat "$RESULT"
	assert_line 'handoff_state{name="web@1",state="handing-off"} 1'
	assert_line 'handoff_generation{name="web@1"} 2'
	assert_line 'handoff_handoffs_total{name="web@1"} 1'
	assert_line 'handoff_generation_processes{name="web@1",generation="3",state="starting"} 1'
	assert_line 'handoff_generation_connections{name="web@1",generation="1",state="draining"} 1'
	kill -KILL "$(pid_of 1)"
	touch "$GATE"
	wait_log '\[gen 3\] active'
	stop_gracefully
}

# example N: the Nth block of code under EXAMPLES of the page, as a reader sees it.
example() {
	python3 - "$BATS_TEST_DIRNAME/../../docs/handoff-control.7.scd" "$1" 3>&- <<-'EOF'
		import sys
		text = open(sys.argv[1]).read().split("\n# EXAMPLES\n")[1]
		block = text.split("```\n")[2 * int(sys.argv[2]) - 1]
		sys.stdout.write(block.replace("\\\\", "\\"))
	EOF
}

@test "the examples of handoff-control(7) do what the page says" {
	export HANDOFF_CONTROL=$CONTROL
	mkdir "$BATS_TEST_TMPDIR/bin"
	ln -s "$HANDOFF_BIN" "$BATS_TEST_TMPDIR/bin/handoff"
	PATH="$BATS_TEST_TMPDIR/bin:$PATH"
	cd "$BATS_TEST_TMPDIR"
	mkdir release-1 release-2 release-3
	write_script release-1/server <<<"exec \"$TS_BIN\""
	write_script release-2/server <<<"exec \"$TS_BIN\""
	write_script release-3/server <<<'echo "no such table" >&2; exit 3'
	ln -s release-1 current
	start_controlled --capture -- current/server

	example 1 >deploy
	run -0 env release=release-2 timeout 60 sh deploy 3>&-
	assert_equal "$(readlink current)" release-2
	assert_equal "$(status_value generation)" 2
	run -1 env release=release-3 timeout 60 sh deploy 3>&-
	assert_equal "$(readlink current)" release-2
	assert_output --partial 'no such table'

	example 2 >generation
	run -0 timeout 60 sh generation 3>&-
	assert_output '"generation":2'

	example 3 >with-socat
	run -0 timeout 60 sh with-socat 3>&-
	assert_line '{"event":"active","generation":4,"id":"deploy 8"}'
	assert_line --index -1 'it serves'

	example 4 >with-python.py
	run -0 timeout 60 python3 with-python.py 3>&-
	assert_line --index 0 'starting 5'
	assert_line --index -1 'generation 5 serves'
	ln -sfn release-3 current
	run -1 timeout 60 python3 with-python.py 3>&-
	assert_line --regexp '^failed exited with status 3 '
	assert_line '  no such table'
	run -0 timeout 60 sh with-socat 3>&-
	assert_line --index -1 'it does not'
	stop_gracefully
}

@test "a client that says nothing is cut off after 30 to 60 seconds; one that talks, waits or listens is not" {
	wait_for -t 120 grep -q 'others live\|Error' "$SILENT_FOLDER/silent"
	run cat "$SILENT_FOLDER/silent"
	assert_line 'others live'
	local seconds
	while read -r seconds; do
		((seconds >= 29 && seconds <= 80))
	done < <(sed -n 's/^\(silent\|half\) //p' "$SILENT_FOLDER/silent")
}
