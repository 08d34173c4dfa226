#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# As whom the server runs, what it may do, and what happens to it when the supervisor is killed.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	[[ $EUID == 0 ]]
	SERVER=$(public_copy "$TS_BIN")
	orphans=()
}

teardown() {
	local pid
	for pid in "${orphans[@]}"; do
		kill -KILL "$pid" 2>/dev/null || true
	done
	wait_for all_gone "${orphans[@]}"
	stop_all
}

# status_of FILE-LINE: the values of a line of the server's /proc/self/status.
status_of() {
	http "$URL/proc?status" | sed -n "s/^$1:[[:space:]]*//p" | tr '\t' ' ' | sed 's/ *$//'
}

# assert_identity UID GID GROUPS: real, effective, saved and file system ids, and the supplementary groups.
assert_identity() {
	assert_equal "$(status_of Uid)" "$1 $1 $1 $1"
	assert_equal "$(status_of Gid)" "$2 $2 $2 $2"
	assert_equal "$(status_of Groups)" "$3"
}

# A user database of the test's own, in a mount namespace: user tester (4001) of group tester (4001), member of two more.
with_users() {
	getent passwd root nobody >"$BATS_TEST_TMPDIR/passwd"
	echo 'tester:x:4001:4001::/srv/tester:/bin/false' >>"$BATS_TEST_TMPDIR/passwd"
	getent group root nogroup >"$BATS_TEST_TMPDIR/group"
	printf '%s\n' 'tester:x:4001:' 'logs:x:4002:root,tester' 'media:x:4003:tester' 'other:x:4004:nobody' \
		>>"$BATS_TEST_TMPDIR/group"
	WITH_USERS=(unshare -m sh -c 'cd / && mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group &&
		exec "$@"' "$BATS_TEST_TMPDIR")
}

# start_through LAUNCHER... -- OPTIONS... -- COMMAND...: until generation 1 is active.
start_through() {
	local -a launcher=()
	while [[ $1 != -- ]]; do
		launcher+=("$1")
		shift
	done
	shift
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" "${launcher[@]}" "$HANDOFF_BIN" run -l 127.0.0.1:0 --settle 20ms "$@"
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	URL="http://$(sed -n 's/.*holding \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$HANDOFF_LOG")"
}

# Root, as before: the supervisor gives up nothing.
assert_root_supervisor() {
	assert_regex "$(cat "/proc/$HANDOFF_PID/status")" $'\nUid:\t0\t0\t0\t0\n'
}

@test "--user by name: user, its group, its supplementary groups, HOME, USER and LOGNAME, in every generation" {
	local generation
	with_users
	start_through "${WITH_USERS[@]}" -- --user tester -- "$SERVER"
	for generation in 1 2; do
		assert_identity 4001 4001 '4001 4002 4003'
		assert_equal "$(http "$URL/env?HOME") $(http "$URL/env?USER") $(http "$URL/env?LOGNAME")" \
			'/srv/tester tester tester'
		((generation == 2)) || hand_off 2
		wait_for generation_is 2 "$URL/"
	done
	assert_root_supervisor
	stop_gracefully
}

@test "--user by number is the same user, with the same groups" {
	with_users
	start_through "${WITH_USERS[@]}" -- --user 4001 -- "$SERVER"
	assert_identity 4001 4001 '4001 4002 4003'
	assert_equal "$(http "$URL/env?USER")" tester
	stop_gracefully
}

@test "--user with --group: that group, and the supplementary groups that go with it" {
	with_users
	start_through "${WITH_USERS[@]}" -- --user tester --group other -- "$SERVER"
	assert_identity 4001 4004 '4002 4003 4004'
	stop_gracefully
}

@test "--group by name and by number, without --user, leaves no other group" {
	with_users
	start_through "${WITH_USERS[@]}" -- --group media -- "$SERVER"
	assert_identity 0 4003 ''
	stop_gracefully
	start_through "${WITH_USERS[@]}" -- --group 4999 -- "$SERVER"
	assert_identity 0 4999 ''
	stop_gracefully
}

@test "a number that is no user needs --group, and has no other group" {
	run -125 "$HANDOFF_BIN" run --user 64001 -- true 3>&-
	assert_output --partial '--user "64001": is not in the user database, so its group is needed: add --group'
	start_through env -- --user 64001 --group 64002 -- "$SERVER"
	assert_identity 64001 64002 ''
	stop_gracefully
}

@test "the server of --user has no capability left" {
	start_through env -- --user nobody -- "$SERVER"
	assert_equal "$(status_of CapEff) $(status_of CapPrm) $(status_of CapAmb)" \
		'0000000000000000 0000000000000000 0000000000000000'
	stop_gracefully
}

# http on the loopback of the supervisor's network.
inside() {
	nsenter "--net=/proc/$HANDOFF_PID/ns/net" "$@" 3>&-
}

@test "port 81 is bound by root and served by nobody, in every generation" {
	start_background "$HANDOFF_LOG" unshare -n sh -c 'ip link set lo up && exec "$@"' sh \
		"$HANDOFF_BIN" run -l 127.0.0.1:81 --user nobody -- "$SERVER"
	HANDOFF_PID=$STARTED_PID
	wait_log '\[gen 1\] active'
	run inside curl -sS http://127.0.0.1:81/proc?status
	assert_line --regexp $'^Uid:\t65534\t65534\t65534\t65534$'
	hand_off 2
	wait_log '\[gen 1\] gone'
	run inside curl -sS http://127.0.0.1:81/
	assert_output --partial 'gen=2'
	stop_gracefully
}

@test "--no-new-privs is set on the server, and only where it is asked for" {
	start_through env -- --no-new-privs -- "$SERVER"
	assert_equal "$(status_of NoNewPrivs)" 1
	run grep '^NoNewPrivs' "/proc/$HANDOFF_PID/status"
	assert_output $'NoNewPrivs:\t0'
	stop_gracefully
	start_through env -- -- "$SERVER"
	assert_equal "$(status_of NoNewPrivs)" 0
	stop_gracefully
}

@test "run by nobody, everything works but other users and low ports" {
	HANDOFF_BIN=$(public_copy "$HANDOFF_BIN")
	local -a nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	start_through "${nobody[@]}" -- -- "$SERVER"
	assert_identity 65534 65534 ''
	hand_off 2
	wait_for generation_is 2 "$URL/"
	stop_gracefully
	# To be who one is already is no privilege.
	start_through "${nobody[@]}" -- --user nobody -- "$SERVER"
	assert_identity 65534 65534 ''
	stop_gracefully
	run -125 "${nobody[@]}" "$HANDOFF_BIN" run --user root -- true 3>&-
	assert_output 'handoff: error: --user "root": only root may run the server as another user'
	run -125 "${nobody[@]}" "$HANDOFF_BIN" run --group 7 -- true 3>&-
	assert_output 'handoff: error: --group "7": only root may run the server as another group'
	run -125 unshare -n "${nobody[@]}" "$HANDOFF_BIN" run -l 127.0.0.1:81 -- true 3>&-
	assert_output --partial 'a port below 1024 (net.ipv4.ip_unprivileged_port_start) needs CAP_NET_BIND_SERVICE'
}

@test "started in a folder that --user may not enter: it serves there, but --chdir to it fails the start" {
	local folder="$BATS_TEST_TMPDIR/private"
	mkdir -m 700 "$folder"
	cd "$folder"
	start_through env -- --user nobody -- "$SERVER"
	hand_off 2
	wait_for generation_is 2 "$URL/"
	run readlink "/proc/$(pid_of 2)/cwd"
	assert_output "$folder"
	stop_gracefully
	run -126 "$HANDOFF_BIN" run --user nobody --chdir "$folder" -- "$SERVER" 3>&-
	assert_output --partial "failed to start: cannot change to $folder: Permission denied"
}

@test "--die-with-supervisor: killed with SIGKILL, it takes every generation along, also another user's" {
	local first second
	start_through env -- --die-with-supervisor --user nobody -- "$SERVER"
	first=$(pid_of 1)
	# Generation 1 stays for the request that it answers.
	curl -sS "$URL/sleep?ms=60000" >/dev/null 2>&1 3>&- &
	started_pids+=("$!")
	wait_for established
	hand_off 2
	wait_log '\[gen 1\] draining'
	second=$(pid_of 2)
	orphans=("$first" "$second")
	refute is_gone "$first"
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	wait_gone "$first"
	wait_gone "$second"
}

# Somebody has a connection to the server.
established() {
	[[ -n $(ss -Htn state established "sport = :${URL##*:}") ]]
}

# kill_supervisor: SIGKILL, and nothing of it is left but its servers.
kill_supervisor() {
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
}

# assert_refused ADDRESS PID...: a new start there is refused with the pid of one of these.
assert_refused() {
	local address=$1 pids
	shift
	pids=$(printf '|%s' "$@")
	run -125 "$HANDOFF_BIN" run -l "$address" -- "$SERVER" 3>&-
	assert_output --regexp "cannot listen on [^ ]+: [^ ]+ is in use by ts \(pid (${pids#|})\)$"
}

@test "killed with SIGKILL, its server keeps serving, and the next start names the pid that holds the address" {
	local pid
	start_through env -- -- "$SERVER"
	pid=$(pid_of 1)
	orphans=("$pid")
	kill_supervisor
	assert_equal "$(gen_of "$URL/")" 1
	assert_refused "${URL#http://}" "$pid"
	assert_equal "$(gen_of "$URL/")" 1
	# What the sentence names is what is in the way.
	kill -INT "$pid"
	wait_gone "$pid"
	start_handoff -l "${URL#http://}" -- "$SERVER"
	wait_log '\[gen 1\] active'
	stop_gracefully
}

@test "killed with SIGKILL during a drain, both generations stay, and the next start names one of them" {
	local first second
	start_through env -- -- "$SERVER"
	first=$(pid_of 1)
	curl -sS "$URL/sleep?ms=1500" >"$BATS_TEST_TMPDIR/answer" 3>&- &
	started_pids+=("$!")
	wait_for established
	hand_off 2
	second=$(pid_of 2)
	orphans=("$first" "$second")
	wait_log '\[gen 1\] draining'
	kill_supervisor
	assert_refused "${URL#http://}" "$first" "$second"
	assert_equal "$(gen_of "$URL/")" 2
	# The old one finishes what it had and leaves, as it was told.
	wait_gone "$first"
	run cat "$BATS_TEST_TMPDIR/answer"
	assert_output --partial "gen=1"
}

@test "killed with SIGKILL, a forking server leaves a helper that holds the address: its pid is named" {
	local pid helper
	start_through env -- -- "$SERVER" --leave-helper
	pid=$(pid_of 1)
	helper=$(children_of "$pid")
	orphans=("$pid" "$helper")
	kill_supervisor
	assert_refused "${URL#http://}" "$pid" "$helper"
	kill -KILL "$pid"
	wait_gone "$pid"
	assert_refused "${URL#http://}" "$helper"
}

@test "killed with SIGKILL, its server keeps a unix path: the next start names the pid and leaves the path" {
	local path="$BATS_TEST_TMPDIR/socket" pid inode
	start_handoff -l "unix:$path" -- "$SERVER"
	wait_log '\[gen 1\] active'
	pid=$(pid_of 1)
	orphans=("$pid")
	inode=$(stat -c %i "$path")
	kill_supervisor
	assert_refused "unix:$path" "$pid"
	assert_equal "$(stat -c %i "$path")" "$inode"
	assert_equal "$(gen_of --unix-socket "$path" http://x/)" 1
	kill -KILL "$pid"
	wait_gone "$pid"
	# Now it is a dead one, which is taken over.
	start_handoff -l "unix:$path" -- "$SERVER"
	wait_log '\[gen 1\] active'
	stop_gracefully
	refute [ -e "$path" ]
}
