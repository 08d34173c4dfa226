#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Real servers, as tests/servers/servers.tsv starts and drains them: three hand-offs under light load, on TCP and on a unix
# path. tests/bench/servers is the long form, whose figures are docs/servers.md.
# shellcheck disable=SC2030,SC2031,SC2153,SC2154 # every test is a subshell of its own; others set HANDOFF_LOG

load ../lib/helpers

SERVERS="$BATS_TEST_DIRNAME/../servers"

setup_file() {
	# Where there is no HOME, the Go compiler wants to be told where its cache may be.
	: "${HOME:=$BATS_FILE_TMPDIR}"
	export HOME
	export GO_SERVER="$BATS_FILE_TMPDIR/go-server"
	# Servers live there, and Debian's Python is the one that they were written for.
	export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
	cd "$SERVERS/go" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOPROXY=off go build -o "$GO_SERVER" . 3>&-
}

setup() {
	common_setup
	# The start scripts make folders of their own there.
	export TMPDIR="$BATS_TEST_TMPDIR"
	FRONT=''
}

teardown() {
	stop_all
}

# field ID COLUMN: of servers.tsv.
field() {
	awk -F '\t' -v id="$1" -v column="$2" '
		/^#/ { next }
		!names++ { for (i = 1; i <= NF; i++) name[$i] = i; next }
		$1 == id { print $name[column]; found = 1 }
		END { exit !found }' "$SERVERS/servers.tsv"
}

# start_server ID tcp|unix: the supervisor with that server, until generation 1 is active. Its address: TARGET for load.
start_server() {
	local command drain options place spec
	command=$(field "$1" command) && drain=$(field "$1" drain) && options=$(field "$1" listen)
	if [[ $2 == tcp ]]; then
		place=$(free_port)
		spec="127.0.0.1:$place"
		TARGET="tcp:127.0.0.1:$place"
	else
		place="unix:$BATS_TEST_TMPDIR/listener"
		spec=$place
		TARGET=$place
	fi
	[[ $options == - ]] || spec+="?$options"
	command=${command//'{servers}'/$SERVERS}
	command=${command//'{port}'/$place}
	command=${command//'{go}'/$GO_SERVER}
	# shellcheck disable=SC2086 # words
	start_handoff -l "$spec" --drain-signal "$drain" -- $command
	wait_log '\[gen 1\] active'
	[[ -z $FRONT ]] || start_front "$place"
}

# start_front PLACE: nginx before a FastCGI server; load then speaks to nginx.
start_front() {
	start_background "$BATS_TEST_TMPDIR/front.log" "$SERVERS/fastcgi_front" "$BATS_TEST_TMPDIR/front" "$1"
	TARGET="unix:$BATS_TEST_TMPDIR/front"
	wait_for "$LOAD_BIN" --target "$TARGET" --one
}

# Three hand-offs under load; then the report. What was lost is for the caller to judge.
hand_off_thrice() {
	local before generation
	before=$(fd_count "$HANDOFF_PID")
	start_load "$TARGET" --rate 100 --keepalive 2 --keepalive-rate 5
	for generation in 2 3 4; do
		hand_off "$generation"
		wait_log "\\[gen $((generation - 1))\\] gone"
	done
	kill -TERM "$LOAD_PID"
	wait_exit "$LOAD_PID"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$before"
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	# Every generation has answered; the last one does so still.
	local answers
	for generation in 1 2 3 4; do
		answers=$(load_value generations "$generation" answers) || fail "no answer of generation $generation"
		((answers > 0))
	done
	[[ -z $(grep -E 'warning|error: |killed' "$HANDOFF_LOG" | grep '^handoff: ' || true) ]] ||
		fail "$(grep '^handoff: ' "$HANDOFF_LOG")"
	stop_front
	stop_gracefully
}

# It is not part of what a graceful stop must end.
stop_front() {
	[[ -n $FRONT ]] || return 0
	local pid=${started_pids[-1]}
	kill -TERM "$pid"
	wait_exit "$pid"
}

# KIND: new or keepalive.
assert_none_lost() {
	[[ $(load_value "$1" ok) == "$(load_value "$1" sent)" ]] || fail "$(cat "$LOAD_JSON")"
	(($(load_value "$1" sent) > 0))
}

# Nothing of either kind is lost.
loses_nothing() {
	start_server "$@"
	hand_off_thrice
	assert_none_lost new
	assert_none_lost keepalive
	assert_equal "$(load_value keepalive reset_idle)" 0
}

# For servers that close idle connections at once, in the moment in which their client may send: only new ones count.
loses_no_new_connection() {
	start_server "$@"
	hand_off_thrice
	assert_none_lost new
}

@test "Python's socketserver loses no new connection in three hand-offs on TCP" {
	loses_no_new_connection python tcp
}

@test "Python's socketserver loses no new connection in three hand-offs on a unix path" {
	loses_no_new_connection python unix
}

@test "Node.js loses no new connection in three hand-offs on TCP" {
	loses_no_new_connection node tcp
}

@test "Node.js loses no new connection in three hand-offs on a unix path" {
	loses_no_new_connection node unix
}

@test "a static Go server loses no new connection in three hand-offs on TCP" {
	loses_no_new_connection go tcp
}

@test "a static Go server loses no new connection in three hand-offs on a unix path" {
	loses_no_new_connection go unix
}

@test "gunicorn loses nothing in three hand-offs on TCP" {
	loses_nothing gunicorn tcp
}

@test "gunicorn loses nothing in three hand-offs on a unix path" {
	loses_nothing gunicorn unix
}

@test "gunicorn with threads and without keep-alive loses nothing in three hand-offs on TCP" {
	loses_nothing gunicorn-threads tcp
}

@test "gunicorn with threads and without keep-alive loses nothing in three hand-offs on a unix path" {
	loses_nothing gunicorn-threads unix
}

@test "nginx loses no new connection in three hand-offs on TCP" {
	loses_no_new_connection nginx tcp
}

@test "nginx loses no new connection in three hand-offs on a unix path" {
	loses_no_new_connection nginx unix
}

@test "lighttpd loses no new connection in three hand-offs on TCP" {
	loses_no_new_connection lighttpd tcp
}

@test "lighttpd loses no new connection in three hand-offs on a unix path" {
	loses_no_new_connection lighttpd unix
}

@test "PHP-FPM, behind nginx, loses nothing in three hand-offs on TCP" {
	FRONT=nginx
	loses_nothing php-fpm tcp
}
