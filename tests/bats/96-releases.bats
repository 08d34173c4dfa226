#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Deploys of release directories behind a symlink, and everything else that is looked up anew for each generation.
# shellcheck disable=SC2030,SC2031,SC2154 # every test is a subshell of its own; run sets status and lines

load ../lib/helpers

setup() {
	common_setup
	APP="$BATS_TEST_TMPDIR/app"
	mkdir -p "$APP/releases"
}

teardown() {
	stop_all
}

# release N: a folder with a server of its own, which says in its environment which one it is.
release() {
	mkdir "$APP/releases/$1"
	echo "$1" >"$APP/releases/$1/VERSION"
	write_script "$APP/releases/$1/server" <<<"RELEASE=$1 VERSION=\$(cat VERSION 2>/dev/null) exec \"$TS_BIN\""
}

# switch_to N: the symlink, in one step.
switch_to() {
	ln -s "releases/$1" "$APP/current.new"
	mv -T "$APP/current.new" "$APP/current"
}

environment_of() {
	http "$URL/env?$1"
}

# fails_to_reload REGEX: the hand-off fails with such a reason, and the one that serves is not touched by it.
fails_to_reload() {
	local pid
	pid=$(status_value generations 0 pids)
	run -1 ctl reload --wait
	assert_output --regexp "$1"
	assert_equal "$(status_value generations 0 pids)" "$pid"
	assert_equal "$(status_value last_reload result)" failed
	[[ $(status_value last_reload reason) =~ $1 ]]
}

@test "20 deploys of a release directory under load, with old releases pruned, fail no request" {
	local number fds
	release 1
	switch_to 1
	cd "$APP/current"
	# A shell that came by the symlink knows its folder by that name, and so does the server.
	start_controlled --settle 30ms -- ./server
	assert_equal "$(http "$URL/cwd")" "cwd=$APP/releases/1 pwd=$APP/current"
	fds=$(fd_count "$HANDOFF_PID")
	start_load "$TARGET" --rate 100 --keepalive 4
	for number in {2..21}; do
		release "$number"
		switch_to "$number"
		mark_load start
		ctl reload --wait >/dev/null
		mark_load end
		wait_for not_there $((number - 1))
		rm -r "$APP/releases/$((number - 1))"
		assert_equal "$(gen_of "$URL")" "$number"
		assert_equal "$(environment_of RELEASE)" "$number"
		assert_equal "$(environment_of VERSION)" "$number"
		assert_equal "$(http "$URL/cwd")" "cwd=$APP/releases/$number pwd=$APP/current"
	done
	finish_load
	assert_equal "$(ls "$APP/releases")" 21
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	stop_gracefully
}

# No process of generation N is left, so that nobody needs its release.
not_there() {
	log_has "\\[gen $1\\] gone" 1
}

@test "--chdir through a symlink is resolved for each generation, wherever the supervisor was started" {
	release 1
	release 2
	switch_to 1
	cd /
	start_controlled --chdir "$APP/current" -- ./server
	assert_equal "$(http "$URL/cwd")" "cwd=$APP/releases/1 pwd=$APP/current"
	switch_to 2
	ctl reload --wait
	assert_equal "$(http "$URL/cwd")" "cwd=$APP/releases/2 pwd=$APP/current"
	assert_equal "$(environment_of RELEASE)" 2
	stop_gracefully
}

@test "a release directory that is missing is a failed hand-off that names it, and no harm to the next one" {
	release 1
	switch_to 1
	start_controlled --chdir "$APP/current" -- ./server
	switch_to 2
	fails_to_reload "$APP/current.*No such file or directory"
	rm "$APP/current"
	echo 'no folder' >"$APP/current"
	fails_to_reload "$APP/current.*Not a directory"
	rm "$APP/current"
	release 2
	switch_to 2
	ctl reload --wait
	assert_equal "$(environment_of RELEASE)" 2
	stop_gracefully
}

@test "a start directory that was pruned is a failed hand-off that names it" {
	release 1
	cd "$APP/releases/1"
	start_controlled -- "$TS_BIN"
	cd /
	rm -r "$APP/releases/1"
	fails_to_reload "$APP/releases/1.*No such file or directory"
	stop_gracefully
}

@test "a crashed server comes back in the release that is current by then" {
	release 1
	switch_to 1
	start_controlled --chdir "$APP/current" --restart-delay 10ms -- ./server
	release 2
	switch_to 2
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 2\] active'
	assert_equal "$(environment_of RELEASE)" 2
	stop_gracefully
}

@test "a release without its program is a failed hand-off that names the program" {
	release 1
	switch_to 1
	start_controlled --chdir "$APP/current" -- ./server
	release 2
	rm "$APP/releases/2/server"
	switch_to 2
	fails_to_reload '\./server.*(not found|No such file)'
	release 3
	chmod -x "$APP/releases/3/server"
	switch_to 3
	fails_to_reload '\./server.*Permission denied'
	stop_gracefully
}

@test "--env-file is read again: changed, removed, malformed, unreadable, and good again" {
	local file="$BATS_TEST_TMPDIR/env"
	printf 'A=1\nB=1\n' >"$file"
	start_controlled --env-file "$file" -- "$TS_BIN"
	assert_equal "$(environment_of A)$(environment_of B)" 11
	echo 'A=2' >"$file"
	ctl reload --wait
	assert_equal "$(environment_of A)" 2
	assert_equal "$(environment_of B)" unset
	echo 'no assignment' >"$file"
	fails_to_reload "$file"
	rm "$file"
	fails_to_reload "$file.*No such file or directory"
	mkdir "$file"
	fails_to_reload "$file.*Is a directory"
	rmdir "$file"
	assert_equal "$(environment_of A)" 2
	echo 'A=3' >"$file"
	ctl reload --wait
	assert_equal "$(environment_of A)" 3
	stop_gracefully
}

@test "--env-dir is read again, and its symlinks are followed anew" {
	local env="$BATS_TEST_TMPDIR/env"
	mkdir "$env.1" "$env.2"
	echo 1 >"$env.1/A"
	echo 1 >"$env.1/B"
	echo 2 >"$env.2/A"
	ln -s "$env.1" "$env"
	start_controlled --env-dir "$env" -- "$TS_BIN"
	assert_equal "$(environment_of A)$(environment_of B)" 11
	ln -sfn "$env.2" "$env"
	ctl reload --wait
	assert_equal "$(environment_of A)" 2
	assert_equal "$(environment_of B)" unset
	rm "$env"
	fails_to_reload "$env.*No such file or directory"
	stop_gracefully
}

@test "the program is looked for in PATH anew, also in the PATH of an environment file" {
	local env="$BATS_TEST_TMPDIR/env"
	release 1
	release 2
	cp -r "$APP/releases/2" "$APP/releases/3"
	rm "$APP/releases/3/server"
	echo "PATH=$APP/current:$PATH" >"$env"
	switch_to 1
	start_controlled --chdir / --env-file "$env" -- server
	assert_equal "$(environment_of RELEASE)" 1
	switch_to 2
	ctl reload --wait
	assert_equal "$(environment_of RELEASE)" 2
	switch_to 3
	fails_to_reload 'cannot exec server: No such file or directory in the folders of PATH'
	echo "PATH=$APP/releases/1:$PATH" >"$env"
	ctl reload --wait
	assert_equal "$(environment_of RELEASE)" 1
	stop_gracefully
}

@test "after 20 hand-offs every variable is there once, and none was added" {
	local number
	start_controlled --settle 10ms --env A=1 -- "$TS_BIN"
	http "$URL/environ" | sed 's/=.*//' | sort >"$BATS_TEST_TMPDIR/first"
	for number in {2..21}; do
		ctl reload --wait >/dev/null
	done
	http "$URL/environ" | sed 's/=.*//' | sort >"$BATS_TEST_TMPDIR/last"
	assert_equal "$(gen_of "$URL")" 21
	run diff "$BATS_TEST_TMPDIR/first" "$BATS_TEST_TMPDIR/last"
	assert_success
	assert_equal "$(uniq -d "$BATS_TEST_TMPDIR/last")" ''
	stop_gracefully
}
