#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# --order stop-first, for servers that must not run twice: connections wait meanwhile, and none is refused.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # texts for other languages; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	SERVER="$BATS_TEST_TMPDIR/server"
	LOCK="$BATS_TEST_TMPDIR/lock"
	RESULT="$BATS_TEST_TMPDIR/result"
	locking_server
}

teardown() {
	stop_all
}

# locking_server [OPTIONS...]: one of it can run at a time: another one exits with 9. Whatever it starts holds the lock,
# too.
locking_server() {
	write_script "$SERVER" <<<"exec 9>>\"$LOCK\"; flock -n 9 || exit 9; exec \"$TS_BIN\" $*"
}

# Connections to the address of $URL that are established, or wait to be accepted.
connections_are() {
	local count
	count=$(grep -c ":$(printf '%04X' "${URL##*:}") [0-9A-F]*:[0-9A-F]* 01 " /proc/net/tcp)
	[[ $count == "$1" ]]
}

# request NAME PATH: in the background; its body in $RESULT.NAME, its pid in STARTED_PID.
request() {
	start_background "$RESULT.$1" curl -sS --max-time 60 "$URL$2"
}

has_closed() {
	[[ ! -e /proc/$2/fd/$1 ]]
}

answered() {
	wait_exit "$1"
	assert_equal "$EXIT_STATUS" 0
}

@test "start-first starts such a server beside the old one, which it cannot bear" {
	start_controlled -- "$SERVER"
	run -1 ctl reload --wait
	assert_output --partial 'exited with status 9'
	stop_gracefully
}

@test "the new one starts when the old one is gone; meanwhile a connection waits, and is served by the new one" {
	start_controlled --order stop-first -- "$SERVER"
	local old new client
	request old '/sleep?ms=1500'
	old=$STARTED_PID
	wait_for connections_are 1
	ctl_background "$RESULT.json" reload --wait --json
	client=$STARTED_PID
	# What comes before it has closed its listener is the old one's.
	wait_for has_closed 3 "$(pid_of 1)"
	request new /
	new=$STARTED_PID
	answered "$old"
	answered "$new"
	answered "$client"
	run cat "$RESULT.old" "$RESULT.new"
	assert_line --index 0 --partial 'gen=1 '
	assert_line --index 1 --partial 'gen=2 '
	run grep -nE '\[gen (1\] (draining|gone)|2\] (started|active))' "$HANDOFF_LOG"
	assert_line --index 0 --partial '[gen 1] draining'
	assert_line --index 1 --partial '[gen 1] gone'
	assert_line --index 2 --partial '[gen 2] started'
	assert_line --index 3 --partial '[gen 2] active'
	run tail -n 1 "$RESULT.json"
	assert_output --partial '"result":"ok","generation":2'
	stop_gracefully
}

@test "ten hand-offs under load fail no request" {
	start_controlled --order stop-first --settle 30ms -- "$SERVER"
	local fds
	fds=$(fd_count "$HANDOFF_PID")
	start_load "$TARGET" --rate 100 --timeout 20s
	for _ in {2..11}; do
		ctl reload --wait >/dev/null
	done
	finish_load
	assert_equal "$(gen_of "$URL")" 11
	run -1 grep 'status 9' "$HANDOFF_LOG"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	stop_gracefully
}

@test "a new command line that fails brings the last good one back, and no request fails" {
	start_controlled --order stop-first -- "$SERVER"
	start_load "$TARGET" --rate 50 --timeout 20s
	run -1 ctl reload --wait -- "$TS_BIN" --exit-at-once=7
	assert_output --partial 'exited with status 7'
	wait_log '\[gen 3\] active'
	finish_load
	assert_equal "$(gen_of "$URL")" 3
	run status_value command 0
	assert_output "$SERVER"
	assert_equal "$(status_value last_reload result)" failed
	# It is good for more.
	ctl reload --wait
	assert_equal "$(gen_of "$URL")" 4
	stop_gracefully
}

@test "a command that cannot be found brings the last good one back" {
	start_controlled --order stop-first -- "$SERVER"
	run -1 ctl reload --wait -- /no/such/server
	assert_output --partial 'cannot exec /no/such/server: No such file or directory'
	wait_log '\[gen 3\] active'
	assert_equal "$(gen_of "$URL")" 3
	stop_gracefully
}

@test "an old one that does not go is killed at the drain timeout, and the new one starts" {
	locking_server --ignore-int
	start_controlled --order stop-first --drain-timeout 400ms -- "$SERVER"
	ctl reload --wait
	assert_equal "$(gen_of "$URL")" 2
	run -1 grep 'status 9' "$HANDOFF_LOG"
	stop_gracefully 3
}

@test "after a crash, the next one starts when what the dead one left behind is gone" {
	locking_server --leave-helper
	start_controlled --order stop-first --restart-delay 10ms -- "$SERVER"
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 2\] active'
	run -1 grep 'status 9' "$HANDOFF_LOG"
	stop_gracefully
}

@test "a stop while the old one still drains starts nothing, and whoever waits is told" {
	start_controlled --order stop-first -- "$SERVER"
	local old client
	request old '/sleep?ms=1500'
	old=$STARTED_PID
	wait_for connections_are 1
	ctl_background "$RESULT.json" reload --wait --json
	client=$STARTED_PID
	wait_log '\[gen 1\] draining'
	ctl stop --wait
	answered "$old"
	wait_exit "$client"
	assert_equal "$EXIT_STATUS" 5
	run tail -n 1 "$RESULT.json"
	assert_output --partial '"result":"refused"'
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	run -1 grep 'gen 2' "$HANDOFF_LOG"
	assert_equal "$(survivors)" ''
}

# --- Redis --------------------------------------------------------------------------------------------------------------

# redis_counter FILE: a server that counts its requests in a Redis of its own, on a data folder that only one may have.
# Redis binds for itself and takes no descriptor, so that this serves our listener, and Redis a path in the data folder.
# It drains on INT: what was accepted is answered, Redis saves and ends, then it ends itself.
redis_counter() {
	cat >"$1" <<-'END'
		import fcntl, os, select, signal, socket, subprocess, sys, time
		data = sys.argv[1]
		lock = open(data + "/lock", "w")
		try:
		    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
		except BlockingIOError:
		    sys.exit("the data folder is in use")
		wake, waker = os.pipe()
		os.set_blocking(waker, False)
		signal.signal(signal.SIGINT, lambda *_: None)
		signal.set_wakeup_fd(waker)
		# The lock is let go when Redis has ended, too.
		redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", data + "/redis.sock", "--dir", data,
		                          "--appendonly", "yes", "--daemonize", "no"], pass_fds=[lock.fileno()],
		                         stdout=subprocess.DEVNULL)
		def ask(command):
		    with socket.socket(socket.AF_UNIX) as server:
		        server.connect(data + "/redis.sock")
		        server.sendall(command + b"\r\n")
		        return server.recv(1000)
		while True:
		    try:
		        if ask(b"PING") == b"+PONG\r\n":
		            break
		    except OSError:
		        pass
		    if redis.poll() is not None:
		        sys.exit("Redis has ended")
		    time.sleep(0.02)
		listener = socket.socket(fileno=3)
		listener.setblocking(False)
		os.write(int(os.environ["HANDOFF_READY_FD"]), b"\n")
		while wake not in select.select([wake, listener], [], [])[0]:
		    try:
		        client = listener.accept()[0]
		    except BlockingIOError:
		        continue
		    with client:
		        client.setblocking(True)
		        request = b""
		        while b"\r\n\r\n" not in request and (part := client.recv(65536)):
		            request += part
		        word = b"GET count" if b"GET /count" in request else b"INCR count"
		        count = ask(word).split(b"\r\n")[1 if word == b"GET count" else 0]
		        body = b"gen=%s count=%s\n" % (os.environb[b"HANDOFF_GENERATION"], count)
		        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
		ask(b"SHUTDOWN")
		sys.exit(redis.wait())
	END
}

@test "a Redis is handed off under load on the same data: no request fails, none is counted twice or forgotten" {
	local data="$BATS_TEST_TMPDIR/data" total
	mkdir "$data"
	redis_counter "$RESULT.py"
	start_controlled --order stop-first -- python3 "$RESULT.py" "$data"
	start_load "$TARGET" --rate 40 --timeout 30s --expect count=
	ctl reload --wait
	ctl reload --wait
	ctl reload --wait
	# A broken one comes and goes meanwhile.
	run -1 ctl reload --wait -- python3 "$RESULT.py" "$data/missing"
	wait_log '\[gen 6\] active'
	finish_load
	total=$(load_value ok)
	run http "$URL/count"
	assert_output "gen=6 count=$total"
	run -1 grep 'in use' "$HANDOFF_LOG"
	stop_gracefully
}
