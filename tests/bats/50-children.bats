#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What a server is born with, in the first generation and in later ones: descriptors, environment, signals, folder,
# limits, arguments. Nothing more than documented, whatever the supervisor itself was started with.
# shellcheck disable=SC2016,SC2030,SC2031,SC2153,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	# Unchanged by what a test does to the environment of what it starts.
	CLEAN=(env -i "PATH=$PATH" "TEST_OF_HANDOFF=$TEST_OF_HANDOFF")
}

teardown() {
	stop_all
}

# start_through LAUNCHER... -- OPTIONS... -- COMMAND...: a supervisor that some other program execs, until generation 1
# is active; the URL of its first TCP listener.
start_through() {
	local -a launcher=()
	while [[ $1 != -- ]]; do
		launcher+=("$1")
		shift
	done
	shift
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" "${launcher[@]}" "$HANDOFF_BIN" run "$@"
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	URL="http://$(port_of 1)"
}

# Address of the Nth TCP listener, as the log tells it.
port_of() {
	sed -n 's/.*holding \([^ =]*=\)\?\(127\.0\.0\.1:[0-9]*\) .*/\2/p' "$HANDOFF_LOG" | sed -n "$1p"
}

# For start_through, with redirections as the next argument.
WITH_FDS=(bash -c 'eval "$1"; shift; exec "$@"' bash)

# assert_born LISTENERS [SIGIGN]: the server was given exactly 0, 1, 2, the listeners and the ready pipe, and no signal is
# blocked, ignored or pending.
assert_born() {
	local fd want
	want=$(
		printf '0 /dev/null\n1 %s\n2 %s\n' "$HANDOFF_LOG" "$HANDOFF_LOG"
		for ((fd = 3; fd < 3 + $1; fd++)); do
			echo "$fd socket:"
		done
		echo "$fd pipe:"
	)
	run http "$URL/born"
	assert_success
	assert_equal "$(grep -v '^S' <<<"$output" | sed 's/:\[[0-9]*\]$/:/')" "$want"
	assert_equal "$(grep '^S' <<<"$output" | grep -v SigCgt | tr -s ':\t ' ' ')" \
		"SigPnd 0000000000000000
SigBlk 0000000000000000
SigIgn ${2:-0000000000000000}"
	# Each listener stands where it was said to stand.
	for ((fd = 3; fd < 3 + $1; fd++)); do
		assert_regex "$(http "http://$(port_of $((fd - 2)))/")" " fd=$fd$"
	done
}

# As assert_born, now and after each of five hand-offs.
assert_born_always() {
	local generation
	assert_born "$@"
	for generation in 2 3 4 5 6; do
		hand_off "$generation"
		wait_for generation_is "$generation" "$URL/"
		assert_born "$@"
	done
	stop_gracefully
}

@test "a server gets 0, 1, 2, its listener and the ready pipe: nothing extra at the start, listener naturally at 3" {
	# Without a control socket, whose lock would come first.
	RUNTIME_DIRECTORY=/nowhere start_through "${WITH_FDS[@]}" : -- -l 127.0.0.1:0 -- "$TS_BIN"
	assert_regex "$(readlink "/proc/$HANDOFF_PID/fd/3")" '^socket:'
	assert_born_always 1
}

@test "a server gets 0, 1, 2, its listener and the ready pipe: 3 was open at the start" {
	start_through "${WITH_FDS[@]}" 'exec 3</dev/null' -- -l 127.0.0.1:0 -- "$TS_BIN"
	assert_equal "$(readlink "/proc/$HANDOFF_PID/fd/3")" /dev/null
	assert_born_always 1
}

@test "a server gets 0, 1, 2, its listeners and the ready pipe: 3, 4 and 5 were open at the start" {
	start_through "${WITH_FDS[@]}" 'exec 3</dev/null 4</dev/null 5</dev/null' -- \
		-l 127.0.0.1:0 -l 127.0.0.1:0 -- "$TS_BIN"
	assert_born_always 2
}

@test "a server gets 0, 1, 2, its listener and the ready pipe: many were open at the start, with holes" {
	start_through "${WITH_FDS[@]}" 'for fd in 4 {6..40} 99 700; do eval "exec $fd</dev/null"; done' -- \
		-l 127.0.0.1:0 -- "$TS_BIN"
	assert_born_always 1
}

# For start_through, with FIRST and COUNT as the next arguments: listening sockets stand there, and nothing else.
SOCKETS_AT=(python3 -c '
import os, socket, sys
first, count = int(sys.argv[1]), int(sys.argv[2])
for fd in range(first, first + count):
    listener = socket.create_server(("127.0.0.1", 0))
    high = os.dup2(listener.detach(), 200 + fd, inheritable=True)
for fd in range(first, first + count):
    os.dup2(200 + fd, fd, inheritable=True)
os.closerange(first + count, 1000)
os.closerange(3, first)
os.execvp(sys.argv[3], sys.argv[3:])
')

@test "a server gets 0, 1, 2, its listeners and the ready pipe: the ready pipe and others of ours stand at the targets" {
	local -a listens=()
	local fd
	for fd in {30..45}; do
		listens+=(-l "fd:$fd")
	done
	RUNTIME_DIRECTORY=/nowhere start_through "${SOCKETS_AT[@]}" 30 16 -- "${listens[@]}" -- "$TS_BIN"
	# Ours begin at 3, and so the pipes are among the targets too.
	assert_regex "$(readlink "/proc/$HANDOFF_PID/fd/3")" '^anon_inode:'
	assert_born_always 16
}

@test "a server gets 0, 1, 2, its listeners and the ready pipe: listeners that change places" {
	start_through "${SOCKETS_AT[@]}" 3 4 -- -l fd:6 -l fd:3 -l fd:4 -l fd:5 -- "$TS_BIN"
	assert_born_always 4
}

@test "a server gets /dev/null where 0, 1 and 2 were closed at the start" {
	local port
	port=$(free_port)
	start_background "$HANDOFF_LOG" bash -c 'exec 0>&- 1>&- 2>&-; exec "$@"' bash \
		"$HANDOFF_BIN" run -l "127.0.0.1:$port" -- "$TS_BIN"
	HANDOFF_PID=$STARTED_PID
	wait_for generation_is 1 "http://127.0.0.1:$port/"
	run http "http://127.0.0.1:$port/born"
	assert_line '0 /dev/null'
	assert_line '1 /dev/null'
	assert_line '2 /dev/null'
	assert_line --regexp '^3 socket:'
	assert_line --regexp '^4 pipe:'
	refute_line --regexp '^[5-9] '
	stop_gracefully
}

# assert_environ GENERATION EXPECTED-LINES: the whole environment, sorted, its random and running parts replaced.
assert_environ() {
	local environ pid
	environ=$(http "$URL/environ")
	pid=$(pid_of "$1")
	assert_equal "$(sed -e "s/^LISTEN_PID=$pid\$/LISTEN_PID=its-own/" -e 's/^\(NOTIFY_SOCKET=@\).*/\1random/' \
		<<<"$environ" | grep -v '^TEST_OF_HANDOFF=' | LC_ALL=C sort)" "$2"
}

@test "the environment is the start environment and what is documented, whatever activation variables were set" {
	start_through "${CLEAN[@]}" KEEP=1 LISTEN_FDS=2 LISTEN_PID=1 LISTEN_FDNAMES=x:y LISTEN_PIDFDID=7 \
		WATCHDOG_USEC=1000000 WATCHDOG_PID=1 SERVER_STARTER_PORT=80=3 SERVER_STARTER_GENERATION=4 \
		EINHORN_FD_COUNT=1 EINHORN_FD_0=5 EINHORN_SOCK_PATH=/nowhere HANDOFF_GENERATION=99 HANDOFF_NAME=other \
		HANDOFF_READY_FD=77 FORKED_SERVER=1 LISTENER=kept NOTIFY=kept -- \
		-l 127.0.0.1:0 -l admin=127.0.0.1:0 -n web -- "$TS_BIN"
	expected() {
		cat <<-END
			HANDOFF_GENERATION=$1
			HANDOFF_NAME=web
			HANDOFF_READY_FD=5
			KEEP=1
			LISTENER=kept
			LISTEN_FDNAMES=unknown:admin
			LISTEN_FDS=2
			LISTEN_PID=its-own
			NOTIFY=kept
			NOTIFY_SOCKET=@random
			PATH=$PATH
			PWD=$PWD
		END
	}
	assert_environ 1 "$(expected 1)"
	hand_off 2
	wait_for generation_is 2 "$URL/"
	assert_environ 2 "$(expected 2)"
	stop_gracefully
}

@test "a manager's NOTIFY_SOCKET is ours: each generation has one of its own" {
	local first second
	start_through "${CLEAN[@]}" NOTIFY_SOCKET=@handoff-test-nobody WATCHDOG_USEC=1000000 -- -l 127.0.0.1:0 -- "$TS_BIN"
	first=$(http "$URL/env?NOTIFY_SOCKET")
	hand_off 2
	wait_for generation_is 2 "$URL/"
	second=$(http "$URL/env?NOTIFY_SOCKET")
	refute [ "$first" = "$second" ]
	refute [ "$first" = @handoff-test-nobody ]
	refute [ "$second" = @handoff-test-nobody ]
	run http "$URL/environ"
	refute_line --regexp '^WATCHDOG_'
	# It could not be reached, and the log says so, once.
	run grep -c 'warning: cannot connect to NOTIFY_SOCKET=@handoff-test-nobody: Connection refused' "$HANDOFF_LOG"
	assert_output 1
	stop_gracefully
}

@test "a hundred hand-offs pile up no variable and no descriptor" {
	local before fds generation
	start_through "${CLEAN[@]}" -- -l 127.0.0.1:0 --settle 0 -- "$TS_BIN"
	before=$(http "$URL/environ" | sed 's/=.*//' | sort)
	fds=$(fd_count "$HANDOFF_PID")
	for ((generation = 2; generation <= 101; generation++)); do
		hand_off "$generation"
	done
	wait_log '\[gen 100\] gone'
	wait_for generation_is 101 "$URL/"
	assert_equal "$(http "$URL/environ" | sed 's/=.*//' | sort)" "$before"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 101)"
	assert_born 1
	stop_gracefully
}

@test "without a listener there is no LISTEN_FDS, and the ready pipe stands at 3" {
	start_handoff -- sh -c '"$FDMAP_BIN" >"$0.fds"; env >"$0.env"; echo >&3; exec sleep 600' "$BATS_TEST_TMPDIR/born"
	wait_log '\[gen 1\] active'
	run cat "$BATS_TEST_TMPDIR/born.env"
	refute_line --regexp '^LISTEN_'
	assert_line HANDOFF_READY_FD=3
	run grep -v ^Sig "$BATS_TEST_TMPDIR/born.fds"
	assert_line --regexp '^3 pipe:'
	refute_line --regexp '^4 '
	run grep 'warning: no -l: nothing is held' "$HANDOFF_LOG"
	assert_success
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
}

@test "signals that were blocked at the start are blocked neither in us nor in the server" {
	start_through env --block-signal -- -l 127.0.0.1:0 -- "$TS_BIN"
	assert_born_always 1
}

@test "signals that were ignored at the start, but HUP, are ignored neither in us nor in the server" {
	start_through env --ignore-signal --default-signal=HUP -- -l 127.0.0.1:0 -- "$TS_BIN"
	assert_born_always 1
}

@test "HUP that was ignored at the start stays ignored, in us and in the server" {
	start_through env --ignore-signal=HUP -- -l 127.0.0.1:0 -- "$TS_BIN"
	assert_born 1 0000000000000001
	kill -HUP "$HANDOFF_PID"
	hand_off 2
	assert_born 1 0000000000000001
	stop_gracefully
	run grep -c HUP "$HANDOFF_LOG"
	assert_output 0
}

@test "{fd}, {fd:NAME} and {ready-fd} become numbers, and other braces stay" {
	start_through env -- -l 127.0.0.1:0 -l admin=127.0.0.1:0 -- sh -c \
		'printf "%s\n" "$@" >"$0"; exec "$TS_BIN"' "$BATS_TEST_TMPDIR/args" \
		'{fd}' '{fd:admin}' '{ready-fd}' '--on={fd:admin},{fd}' '{other}' '{' '{fd' '}{fd}'
	run cat "$BATS_TEST_TMPDIR/args"
	assert_output $'3\n4\n5\n--on=4,3\n{other}\n{\n{fd\n}3'
	stop_gracefully
}

@test "a server that only takes a number serves on {fd} and tells {ready-fd}" {
	start_through "${CLEAN[@]}" -- -l 127.0.0.1:0 --ready pipe -- env -u LISTEN_FDS -u LISTEN_PID "$TS_BIN" --fd '{fd}'
	assert_equal "$(gen_of "$URL/")" 1
	hand_off 2
	wait_for generation_is 2 "$URL/"
	stop_gracefully
}

@test "{fd:NAME} of no listener fails the start with a sentence that names it" {
	run -125 "$HANDOFF_BIN" run -l 127.0.0.1:0 -- "$TS_BIN" --fd '{fd:admin}' 3>&-
	assert_output --partial '{fd:admin} names no listener'
	run -125 "$HANDOFF_BIN" run -- "$TS_BIN" --fd '{fd}' 3>&-
	assert_output --partial '{fd} names no listener'
}

@test "--env, --env-file and --env-dir add to the environment, the later kind wins" {
	mkdir "$BATS_TEST_TMPDIR/dir"
	printf 'A=file\nB="two words"\nC=file\n' >"$BATS_TEST_TMPDIR/file"
	printf 'dir\n' >"$BATS_TEST_TMPDIR/dir/A"
	printf 'dir\n' >"$BATS_TEST_TMPDIR/dir/D"
	: >"$BATS_TEST_TMPDIR/dir/GONE"
	start_through "${CLEAN[@]}" GONE=1 C=start -- -l 127.0.0.1:0 --env-dir "$BATS_TEST_TMPDIR/dir" \
		--env-file "$BATS_TEST_TMPDIR/file" --env C=option --env E=a=b --env F= -- "$TS_BIN"
	run http "$URL/environ"
	assert_line A=file
	assert_line 'B=two words'
	assert_line C=option
	assert_line D=dir
	assert_line E=a=b
	assert_line F=
	refute_line --regexp '^GONE='
	stop_gracefully
}

# failed_hand_off N PATTERN: hand-off number N fails with that reason, and generation 1 or the given one still serves.
failed_hand_off() {
	kill -USR1 "$HANDOFF_PID"
	wait_log "error: failed to start: .*$2.*; generation $3 still serves"
	assert_equal "$(gen_of "$URL/")" "$3"
	wait_log "\\[gen $1\\] gone"
}

@test "an environment file is read anew each time: changes and removals are seen, a bad file fails the hand-off" {
	local file="$BATS_TEST_TMPDIR/settings"
	printf 'A=1\nB=1\n' >"$file"
	start_through "${CLEAN[@]}" -- -l 127.0.0.1:0 --env-file "$file" -- "$TS_BIN"
	assert_equal "$(http "$URL/env?A") $(http "$URL/env?B")" '1 1'
	printf 'A=2\n' >"$file"
	hand_off 2
	wait_for generation_is 2 "$URL/"
	assert_equal "$(http "$URL/env?A") $(http "$URL/env?B")" '2 unset'
	printf 'A=3\nnonsense\n' >"$file"
	failed_hand_off 3 "--env-file $file, line 2: must be NAME=VALUE" 2
	rm "$file"
	failed_hand_off 4 "--env-file $file: No such file or directory" 2
	mkdir "$file"
	failed_hand_off 5 "--env-file $file: Is a directory" 2
	rmdir "$file"
	printf 'B=6\n' >"$file"
	hand_off 6
	wait_for generation_is 6 "$URL/"
	assert_equal "$(http "$URL/env?A") $(http "$URL/env?B")" 'unset 6'
	stop_gracefully
}

@test "an environment file that may not be read fails the hand-off, and nothing else" {
	local file="$BATS_TEST_TMPDIR/settings" server
	HANDOFF_BIN=$(public_copy "$HANDOFF_BIN")
	server=$(public_copy "$TS_BIN")
	printf 'A=1\n' >"$file"
	start_through setpriv --reuid=65534 --regid=65534 --clear-groups -- -l 127.0.0.1:0 --env-file "$file" -- "$server"
	chmod 600 "$file"
	failed_hand_off 2 "--env-file $file: Permission denied" 1
	chmod 644 "$file"
	hand_off 3
	stop_gracefully
}

@test "an environment folder is read anew each time, and a bad one fails the hand-off" {
	local dir="$BATS_TEST_TMPDIR/env"
	mkdir "$dir"
	echo 1 >"$dir/A"
	start_through "${CLEAN[@]}" -- -l 127.0.0.1:0 --env-dir "$dir" -- "$TS_BIN"
	assert_equal "$(http "$URL/env?A")" 1
	mv "$dir/A" "$dir/B"
	hand_off 2
	wait_for generation_is 2 "$URL/"
	assert_equal "$(http "$URL/env?A") $(http "$URL/env?B")" 'unset 1'
	echo 9 >"$dir/LISTEN_FDS"
	failed_hand_off 3 "--env-dir $dir: LISTEN_FDS is reserved" 2
	rm -r "$dir"
	failed_hand_off 4 "--env-dir $dir: No such file or directory" 2
	stop_gracefully
}

# deploy N: releases/N, and current leads there.
deploy() {
	mkdir -p "$BATS_TEST_TMPDIR/releases/$1/sub"
	ln -sfn "releases/$1" "$BATS_TEST_TMPDIR/current.new"
	mv -T "$BATS_TEST_TMPDIR/current.new" "$BATS_TEST_TMPDIR/current"
}

@test "the logical working directory is followed anew: a link to the current release, and PWD agrees" {
	local top=$BATS_TEST_TMPDIR
	deploy 1
	cd "$top/current"
	start_through env -- -l 127.0.0.1:0 -- "$TS_BIN"
	cd /
	assert_equal "$(http "$URL/cwd")" "cwd=$top/releases/1 pwd=$top/current"
	deploy 2
	rm -r "$top/releases/1"
	hand_off 2
	wait_for generation_is 2 "$URL/"
	assert_equal "$(http "$URL/cwd")" "cwd=$top/releases/2 pwd=$top/current"
	stop_gracefully
}

@test "a PWD that names another folder is not believed" {
	local top=$BATS_TEST_TMPDIR
	deploy 1
	cd "$top/releases/1"
	start_through env "PWD=/tmp" -- -l 127.0.0.1:0 -- "$TS_BIN"
	cd /
	assert_equal "$(http "$URL/cwd")" "cwd=$top/releases/1 pwd=$top/releases/1"
	stop_gracefully
}

@test "--chdir is resolved anew, also where it is relative, and one that is gone fails the hand-off" {
	local top=$BATS_TEST_TMPDIR
	deploy 1
	cd "$top/current"
	start_through env -- -l 127.0.0.1:0 --chdir sub -- "$TS_BIN"
	cd /
	assert_equal "$(http "$URL/cwd")" "cwd=$top/releases/1/sub pwd=$top/current/sub"
	deploy 2
	hand_off 2
	wait_for generation_is 2 "$URL/"
	assert_equal "$(http "$URL/cwd")" "cwd=$top/releases/2/sub pwd=$top/current/sub"
	rm -r "$top/releases/2"
	failed_hand_off 3 "cannot change to $top/current/sub: No such file or directory" 2
	deploy 3
	hand_off 4
	wait_for generation_is 4 "$URL/"
	assert_equal "$(http "$URL/cwd")" "cwd=$top/releases/3/sub pwd=$top/current/sub"
	stop_gracefully
}

@test "--rlimit and --umask are the server's, in every generation, and not ours" {
	local before
	before=$(cat "/proc/$$/limits")
	start_through env -- -l 127.0.0.1:0 --rlimit nofile=100:200 --rlimit core=0 --umask 0027 -- "$TS_BIN"
	check_limits() {
		run http "$URL/proc?limits"
		assert_line --regexp '^Max open files +100 +200 '
		assert_line --regexp '^Max core file size +0 +0 '
		run http "$URL/proc?status"
		assert_line --regexp '^Umask:\s0027$'
	}
	check_limits
	hand_off 2
	wait_for generation_is 2 "$URL/"
	check_limits
	assert_equal "$(grep 'open files' "/proc/$HANDOFF_PID/limits")" "$(grep 'open files' <<<"$before")"
	assert_equal "$(grep Umask "/proc/$HANDOFF_PID/status")" "$(grep Umask "/proc/$$/status")"
	stop_gracefully
}

# title_is PATTERN: the supervisor's line in ps.
title_is() {
	[[ $(ps -o args= -p "$HANDOFF_PID") =~ $1 ]]
}

@test "ps shows the supervisor's name and the generation that serves" {
	start_through bash -c 'exec -a handoff "$@"' bash -- -l 127.0.0.1:0 -n web -- "$TS_BIN"
	wait_for title_is '^handoff: web \[gen 1\]$'
	hand_off 2
	wait_for title_is '^handoff: web \[gen 2\]$'
	stop_gracefully
}

@test "every generation leads a process group of its own" {
	local pid generation
	start_through env -- -l 127.0.0.1:0 -- "$TS_BIN" --leave-helper
	for generation in 1 2; do
		pid=$(pid_of "$generation")
		assert_equal "$(ps -o pgid= -p "$pid" | tr -d ' ')" "$pid"
		assert_equal "$(pgrep -c -g "$pid")" 2
		if ((generation == 1)); then
			hand_off 2
		fi
	done
	refute [ "$(ps -o pgid= -p "$HANDOFF_PID" | tr -d ' ')" = "$pid" ]
	wait_log '\[gen 1\] gone'
	assert_equal "$(pgrep -c -g "$(pid_of 1)" || true)" 0
	stop_gracefully
}
