#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The config file of -c: read again at each hand-off, where it adds, removes and changes listeners and all the rest.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	CONTROL="$BATS_TEST_TMPDIR/control"
	CONFIG="$BATS_TEST_TMPDIR/web.json"
	PORT=$(free_port)
	URL="http://127.0.0.1:$PORT"
	TARGET="tcp:127.0.0.1:$PORT"
	PIPE_PATH="$BATS_TEST_TMPDIR/web.sock"
}

teardown() {
	stop_all
}

# config KEYS: the file with these keys (the inside of the object), replaced at once as editors and deploy tools do.
config() {
	printf '{\n%s\n}\n' "$1" >"$CONFIG.new"
	mv "$CONFIG.new" "$CONFIG"
}

# listen SPEC...: the file with these listeners, and $KEYS.
listen() {
	local specs
	specs=$(printf '"%s", ' "$@")
	config "\"listen\": [${specs%, }],
\"settle\": \"20ms\",
${KEYS:-}
\"command\": [\"$TS_BIN\"]"
}

# start_config OPTIONS...: the supervisor with the file, until generation 1 is active.
start_config() {
	start_handoff --control "$CONTROL" -c "$CONFIG" "$@"
	wait_log '\[gen 1\] active'
}

# The hand-off succeeds; it becomes generation N, the next.
reload() {
	ctl reload --wait >"$BATS_TEST_TMPDIR/reload.out" 2>&1 || {
		cat "$BATS_TEST_TMPDIR/reload.out" >&2
		return 1
	}
}

# reload_fails REASON: it fails, exactly for that (a regex), and the client, the log and the status say so.
reload_fails() {
	run -1 ctl reload --wait
	assert_line --regexp "^handoff: $CONTROL: generation [0-9]+ failed: $1\$"
	wait_log "error: failed to start: $1; generation [0-9]+ still serves\$"
	assert_regex "$(status_value last_reload reason)" "^$1\$"
}

# Which socket the supervisor's child has as fd N: the same number means the same socket.
socket_of() {
	readlink "/proc/$(status_value generations 0 pids 0)/fd/$1"
}

# The names and addresses of the listeners, in the order of the descriptors.
listeners() {
	ctl status --json | python3 -c '
import json, sys
print(*((l["name"] or "") + "=" + l["address"] for l in json.load(sys.stdin)["listeners"]))' 3>&-
}

refused() {
	run http "http://127.0.0.1:$1/"
	assert_equal "$status" 7
}

# What keeps the addresses in the supervisor's hands: its sockets.
socket_count() {
	find "/proc/$HANDOFF_PID/fd" -lname 'socket:*' | wc -l
}

socket_count_is() {
	(($(socket_count) == $1))
}

# --- Listeners ------------------------------------------------------------------------------------------------------

@test "listeners come and go under load on the one that is kept, which notices nothing" {
	local other socket n sockets
	other=$(free_port)
	listen "web=127.0.0.1:$PORT"
	start_config
	socket=$(socket_of 3)
	sockets=$(socket_count)
	start_load "$TARGET" --rate 200 --keepalive 4
	for n in 1 2 3 4; do
		listen "other=127.0.0.1:$other" "web=127.0.0.1:$PORT" "unix:$PIPE_PATH"
		reload
		assert_equal "$(gen_of "http://127.0.0.1:$other/")" $((2 * n))
		assert_equal "$(gen_of --unix-socket "$PIPE_PATH" http://x/)" $((2 * n))
		# They are passed in the order of the file.
		assert_equal "$(socket_of 4)" "$socket"
		assert_equal "$(listeners)" "other=127.0.0.1:$other web=127.0.0.1:$PORT =$PIPE_PATH"
		assert_equal "$(http "$URL/env?LISTEN_FDNAMES" | tail -n 1)" other:web:unknown
		listen "web=127.0.0.1:$PORT"
		reload
		refused "$other"
		[[ ! -e $PIPE_PATH ]]
		assert_equal "$(socket_of 3)" "$socket"
		wait_log "\\[gen $((2 * n))\\] gone"
		wait_for socket_count_is "$sockets"
	done
	finish_load
	assert_equal "$(load_value failures)" 0
	(($(load_value ok) > 0))
	run grep -c 'listeners of the config file: 0 closed, 2 opened' "$HANDOFF_LOG"
	assert_output 4
	run grep -c 'listeners of the config file: 2 closed, 0 opened' "$HANDOFF_LOG"
	assert_output 4
	stop_gracefully
}

@test "a unix path that is not named any more is gone; a kept one has the same inode and loses nothing" {
	local kept="$BATS_TEST_TMPDIR/kept.sock" inode
	listen "unix:$kept" "unix:$PIPE_PATH"
	start_config
	inode=$(stat -c %i "$kept")
	start_load "unix:$kept" --rate 200 --keepalive 4
	listen "unix:$kept"
	reload
	[[ ! -e $PIPE_PATH && ! -e $BATS_TEST_TMPDIR/.web.sock.handoff ]]
	assert_equal "$(stat -c %i "$kept")" "$inode"
	listen "unix:$PIPE_PATH" "unix:$kept"
	reload
	assert_equal "$(gen_of --unix-socket "$PIPE_PATH" http://x/)" 3
	assert_equal "$(stat -c %i "$kept")" "$inode"
	finish_load
	assert_equal "$(load_value failures)" 0
	stop_gracefully
	[[ ! -e $kept && ! -e $PIPE_PATH ]]
}

backlog_of() {
	ss -Hltn "sport = :$1" | awk '{ print $3 }'
}

@test "changed options of a kept listener hold for the same socket: backlog, mode, name" {
	local socket inode default
	listen "127.0.0.1:$PORT" "unix:$PIPE_PATH?mode=0600"
	start_config
	default=$(backlog_of "$PORT")
	socket=$(socket_of 3)
	inode=$(stat -c %i "$PIPE_PATH")
	start_load "$TARGET" --rate 100 --keepalive 4
	listen "web=127.0.0.1:$PORT?backlog=77" "unix:$PIPE_PATH?mode=0666"
	reload
	assert_equal "$(backlog_of "$PORT")" 77
	assert_equal "$(status_value listeners 0 backlog)" 77
	assert_equal "$(stat -c '%a %i' "$PIPE_PATH")" "666 $inode"
	assert_equal "$(socket_of 3)" "$socket"
	assert_equal "$(http "$URL/env?LISTEN_FDNAMES" | tail -n 1)" web:unknown
	listen "127.0.0.1:$PORT" "unix:$PIPE_PATH?mode=0600"
	reload
	assert_equal "$(backlog_of "$PORT")" "$default"
	assert_equal "$(stat -c '%a' "$PIPE_PATH")" 600
	assert_equal "$(socket_of 3)" "$socket"
	finish_load
	assert_equal "$(load_value failures)" 0
	stop_gracefully
}

@test "two listeners with ports that the kernel chose keep them, in whatever order and with whatever options" {
	listen 'a=127.0.0.1:0' 'b=127.0.0.1:0'
	start_config
	local a b sockets
	a=$(socket_of 3)
	b=$(socket_of 4)
	sockets=$(socket_count)
	listen 'b=127.0.0.1:0' 'a=127.0.0.1:0'
	reload
	assert_equal "$(socket_of 3) $(socket_of 4)" "$b $a"
	listen '127.0.0.1:0?backlog=9' 'a=127.0.0.1:0'
	reload
	assert_equal "$(socket_of 3) $(socket_of 4)" "$b $a"
	listen '127.0.0.1:0' '127.0.0.1:0'
	reload
	reload
	assert_equal "$(socket_of 3) $(socket_of 4)" "$b $a"
	wait_log '\[gen 4\] gone'
	wait_for socket_count_is "$sockets"
	stop_gracefully
}

@test "the same address twice in the file fails the hand-off, as it does at the start" {
	listen "127.0.0.1:$PORT"
	start_config
	listen "127.0.0.1:$PORT" "x=127.0.0.1:$PORT"
	reload_fails ".*127.0.0.1:$PORT is in use by another of our listeners"
	assert_equal "$(gen_of "$URL")" 1
	stop_gracefully
}

@test "an address that somebody else has fails the hand-off, and what was opened before it is closed again" {
	local other third sockets
	other=$(free_port)
	third=$(free_port)
	listen "127.0.0.1:$PORT"
	start_config
	sockets=$(socket_count)
	start_background "$BATS_TEST_TMPDIR/foreign.log" "$TS_BIN" --bind "127.0.0.1:$other" --ready none
	wait_for http "http://127.0.0.1:$other/"
	listen "127.0.0.1:$third" "unix:$PIPE_PATH" "127.0.0.1:$other" "127.0.0.1:$PORT"
	reload_fails ".*127.0.0.1:$other.*in use.*"
	refused "$third"
	[[ ! -e $PIPE_PATH ]]
	assert_equal "$(gen_of "$URL")" 1
	wait_for socket_count_is "$sockets"
	kill -TERM "$STARTED_PID"
	wait_exit "$STARTED_PID"
	reload
	assert_equal "$(gen_of "http://127.0.0.1:$other/")" 3
	stop_gracefully
}

@test "where the new server fails, the file's new listeners are closed again and the old ones stay" {
	local other third
	other=$(free_port)
	third=$(free_port)
	listen "127.0.0.1:$PORT" "127.0.0.1:$other" "unix:$PIPE_PATH"
	start_config
	local inode
	inode=$(stat -c %i "$PIPE_PATH")
	config "\"listen\": [\"127.0.0.1:$third\", \"127.0.0.1:$PORT?backlog=5\"],
\"command\": [\"$TS_BIN\", \"--exit-at-once=3\"]"
	reload_fails 'exited with status 3 after [0-9.]+ m?s, before it was ready'
	refused "$third"
	assert_equal "$(gen_of "http://127.0.0.1:$other/")" 1
	assert_equal "$(stat -c %i "$PIPE_PATH")" "$inode"
	assert_equal "$(gen_of --unix-socket "$PIPE_PATH" http://x/)" 1
	(($(backlog_of "$PORT") != 5))
	assert_equal "$(listeners)" "=127.0.0.1:$PORT =127.0.0.1:$other =$PIPE_PATH"
	# A restart is no hand-off: it starts what was good.
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 3\] active'
	assert_equal "$(gen_of "http://127.0.0.1:$other/")" 3
	stop_gracefully
}

@test "a stop in the middle of a hand-off that opens and closes listeners leaves none of them" {
	local added="$BATS_TEST_TMPDIR/added.sock"
	listen "127.0.0.1:$PORT" "unix:$PIPE_PATH"
	start_config
	config "\"listen\": [\"unix:$added\", \"127.0.0.1:$PORT\"],
\"command\": [\"$TS_BIN\", \"--never-ready\"]"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	wait_for test -S "$added"
	stop_gracefully
	[[ ! -e $added && ! -e $PIPE_PATH ]]
	refused "$PORT"
	run find "$BATS_TEST_TMPDIR" -name '*.handoff'
	assert_output ''
}

# --- A file that is wrong -------------------------------------------------------------------------------------------

@test "a mistake in the file fails the hand-off with the file, the line and the key, and changes nothing" {
	listen "127.0.0.1:$PORT" "unix:$PIPE_PATH"
	start_config
	local socket keys reason
	socket=$(socket_of 3)
	start_load "$TARGET" --rate 100 --keepalive 4
	while IFS='|' read -r keys reason; do
		config "$(printf '%b' "$keys")"
		reload_fails "$CONFIG: $reason"
		assert_equal "$(status_value generation)" 1
		assert_equal "$(status_value state)" running
	done <<-'EOF'
		"listen": [":1"],\n"lisen": []|line 3: key "lisen": there is no such key; did you mean "listen".
		"workers": "four"|line 2: key "workers": must be a number, from 1 to 256
		\n"workers": 1000|line 3: key "workers": .*
		"listen": [":1",\n ":99999"]|line 3: key "listen\[1\]": .*"99999" is not a number from 0 to 65535
		"listen": ":1"|line 2: key "listen": must be an array of strings: .*
		"ready-timeout": "30"|line 2: key "ready-timeout": .*
		"settle": 5|line 2: key "settle": must be a time in a string, such as "30s".*
		"command": []|line 2: key "command": must be an array of strings.*
		"command": ["x"],\n"command": ["y"]|line 3: key "command": stands in line 2 already
		"command": ["x"]\n"env": []|line 2: a comma or a colon is missing
		"command": ["x"],|line 2: the comma after the last item is too much
	EOF
	printf '' >"$CONFIG"
	reload_fails "$CONFIG: .*"
	finish_load
	assert_equal "$(load_value failures)" 0
	assert_equal "$(socket_of 3)" "$socket"
	assert_equal "$(gen_of --unix-socket "$PIPE_PATH" http://x/)" 1
	listen "127.0.0.1:$PORT" "unix:$PIPE_PATH"
	reload
	stop_gracefully
}

@test "a file that has vanished, or is none, fails the hand-off until it is back" {
	listen "127.0.0.1:$PORT"
	start_config
	mv "$CONFIG" "$CONFIG.away"
	reload_fails "cannot read the config file $CONFIG: No such file or directory"
	mkdir "$CONFIG"
	reload_fails "cannot read the config file $CONFIG: Is a directory"
	rmdir "$CONFIG"
	mkfifo "$CONFIG"
	reload_fails "cannot read the config file $CONFIG: it is not a regular file"
	rm "$CONFIG"
	# A server that dies meanwhile is started again from what was good.
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 5\] active'
	mv "$CONFIG.away" "$CONFIG"
	reload
	assert_equal "$(gen_of "$URL")" 6
	stop_gracefully
}

@test "a wrong file at the start is 125 in one sentence, and check -c says the same and starts nothing" {
	config "\"listen\": [\"127.0.0.1:$PORT\"],
\"commands\": [\"$TS_BIN\"]"
	run -125 timeout 20 "$HANDOFF_BIN" run --control "$CONTROL" -c "$CONFIG" 3>&-
	assert_equal "${#lines[@]}" 1
	assert_output --partial "$CONFIG: line 3: key \"commands\": there is no such key; did you mean \"command\"?"
	local said=$output
	run -125 timeout 20 "$HANDOFF_BIN" check -c "$CONFIG" 3>&-
	assert_output "$said"
	run -125 timeout 20 "$HANDOFF_BIN" check -c "$CONFIG.absent" 3>&-
	assert_output --partial "cannot read the config file $CONFIG.absent: No such file or directory"
	listen "127.0.0.1:$PORT" "unix:$PIPE_PATH"
	run -0 timeout 20 "$HANDOFF_BIN" check -c "$CONFIG" 3>&-
	[[ ! -e $PIPE_PATH ]]
	refused "$PORT"
	config "\"listen\": [\"127.0.0.1:$PORT\"],
\"command\": [\"/no/such/program\"]"
	run -125 timeout 20 "$HANDOFF_BIN" check -c "$CONFIG" 3>&-
	assert_output --partial 'cannot exec /no/such/program: No such file or directory'
	assert_equal "$(survivors)" ''
}

# --- What else it changes -------------------------------------------------------------------------------------------

@test "the command line goes before the file, and the command of a reload before both" {
	local other
	other=$(free_port)
	printf 'FROM_FILE=1\nBOTH=env-file\n' >"$BATS_TEST_TMPDIR/app.env"
	config "\"listen\": [\"127.0.0.1:$other\"],
\"env\": [\"LIST=file\"],
\"env-file\": [\"$BATS_TEST_TMPDIR/app.env\"],
\"ready-timeout\": \"100ms\",
\"settle\": \"20ms\",
\"command\": [\"/no/such/program\"]"
	start_config -l "127.0.0.1:$PORT" --env GIVEN=1 --ready-timeout 20s -- "$TS_BIN" --slow-boot 300
	refused "$other"
	run http "$URL/environ"
	assert_line GIVEN=1
	assert_line FROM_FILE=1
	refute_line --partial LIST=
	assert_equal "$(status_value command_from)" options
	# Also when it is read again.
	reload
	refused "$other"
	run http "$URL/environ"
	assert_line GIVEN=1
	refute_line --partial LIST=
	assert_equal "$(gen_of "$URL")" 2
	ctl reload --wait -- "$TS_BIN" --cpu-us 3
	assert_equal "$(status_value command 1)" --cpu-us
	stop_gracefully

	HANDOFF_LOG="$BATS_TEST_TMPDIR/second.log"
	listen "127.0.0.1:$PORT"
	start_config
	assert_equal "$(status_value command_from)" config
	ctl reload --wait -- "$TS_BIN" --cpu-us 3
	assert_equal "$(status_value command_from)" reload
	reload
	assert_equal "$(status_value command 1)" --cpu-us
	stop_gracefully
}

serves_in() {
	assert_regex "$(http "$URL/cwd")" "cwd=$(readlink -f "$1") "
}

@test "command, environment, folder and times are those of the file as it is now, and what it no longer names is as by default" {
	mkdir "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/two"
	KEYS="\"env\": [\"COLOUR=red\", \"ONLY_HERE=1\"], \"chdir\": \"$BATS_TEST_TMPDIR/one\", \"umask\": \"0027\","
	listen "127.0.0.1:$PORT"
	start_config
	run http "$URL/environ"
	assert_line COLOUR=red
	assert_line ONLY_HERE=1
	serves_in "$BATS_TEST_TMPDIR/one"
	KEYS="\"env\": [\"COLOUR=blue\"], \"chdir\": \"$BATS_TEST_TMPDIR/two\","
	listen "127.0.0.1:$PORT"
	reload
	wait_for generation_is 2 "$URL"
	run http "$URL/environ"
	assert_line COLOUR=blue
	refute_line --partial ONLY_HERE
	serves_in "$BATS_TEST_TMPDIR/two"
	KEYS=
	listen "127.0.0.1:$PORT"
	reload
	wait_for generation_is 3 "$URL"
	run http "$URL/environ"
	refute_line --partial COLOUR
	serves_in "$PWD"

	config "\"listen\": [\"127.0.0.1:$PORT\"], \"ready-timeout\": \"300ms\",
\"command\": [\"$TS_BIN\", \"--never-ready\"]"
	reload_fails 'not ready in time \(300 ms\).*'
	KEYS='"drain-signal": "TERM", "drain-timeout": "5m",'
	listen "127.0.0.1:$PORT"
	reload
	# How the old one is told to drain is a matter of the file that is in force by then.
	hand_off 6
	wait_log '\[gen 5\] draining: SIGTERM'
	stop_gracefully
}

workers_are() {
	(($(status_value generations 0 pids | tr -cd , | wc -c) + 1 == $1))
}

@test "a changed number of workers holds from the next hand-off on, and no connection is lost" {
	KEYS='"workers": 1,'
	listen "127.0.0.1:$PORT"
	start_config
	start_load "$TARGET" --rate 100 --keepalive 4
	local count
	for count in 4 2 1; do
		KEYS="\"workers\": $count,"
		listen "127.0.0.1:$PORT"
		reload
		workers_are "$count"
	done
	wait_log '\[gen 3\] gone'
	assert_equal "$(children_of "$HANDOFF_PID" | wc -l)" 1
	finish_load
	assert_equal "$(load_value failures)" 0
	stop_gracefully
}

@test "a changed key that holds from start to exit is warned of at each hand-off, and nothing else" {
	KEYS='"log-level": "info", "name": "web",'
	listen "127.0.0.1:$PORT"
	start_config
	reload
	run grep -c warning "$HANDOFF_LOG"
	assert_output 0
	local key n=2
	for key in '"name": "other"' '"signal": ["USR2=stop"]' '"log-level": "error"' '"log-format": "json"' '"capture": true' \
		"\"pid-file\": \"$BATS_TEST_TMPDIR/pid\"" '"notify-fd": 9' "\"control\": \"$BATS_TEST_TMPDIR/c\""; do
		n=$((n + 1))
		KEYS='"log-level": "info", "name": "web",'
		local name=${key#\"}
		name=${name%%\"*}
		# The same key must not stand twice.
		KEYS=${KEYS/\"$name\": \"???\",/}
		KEYS="${KEYS/\"$name\": \"????\",/} $key,"
		listen "127.0.0.1:$PORT"
		if [[ $name == control ]]; then
			# Given on the command line, so that the file has no say.
			reload
			break
		fi
		reload
		wait_log "warning: --$name was changed, which takes effect only at the next start"
	done
	run grep -c warning "$HANDOFF_LOG"
	assert_output 7
	assert_equal "$(status_value name)" web
	[[ ! -e $BATS_TEST_TMPDIR/pid && ! -e $BATS_TEST_TMPDIR/c ]]
	stop_gracefully
}

# --- The page and the schema ----------------------------------------------------------------------------------------

# The blocks of JSON of handoff.json(5), each in a file of its own in the test's folder.
examples() {
	python3 - "$BATS_TEST_DIRNAME/../../docs/handoff.json.5.scd" "$BATS_TEST_TMPDIR" 3>&- <<-'EOF'
		import sys
		blocks = open(sys.argv[1]).read().split("```\n")[1::2]
		blocks = [block.replace("\\\\", "\\") for block in blocks if block.startswith("{")]
		for number, block in enumerate(blocks):
		    open(f"{sys.argv[2]}/example-{number}.json", "w").write(block)
	EOF
}

# validate FILE: against the schema; comments go first, as an editor that knows them does.
validate() {
	python3 - "$BATS_TEST_DIRNAME/../../docs/handoff.schema.json" "$1" 3>&- <<-'EOF'
		import json, re, sys
		import jsonschema
		schema = json.load(open(sys.argv[1]))
		jsonschema.Draft202012Validator.check_schema(schema)
		text = re.sub(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', lambda m: m[1] or " ", open(sys.argv[2]).read(), flags=re.S)
		errors = list(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(text)))
		sys.exit("; ".join(error.message for error in errors) if errors else 0)
	EOF
}

@test "the schema and the supervisor accept the examples of handoff.json(5)" {
	examples
	cd "$BATS_TEST_TMPDIR"
	ln -s "$TS_BIN" server
	mkdir shared
	echo A=1 >shared/app.env
	local file count=0
	for file in example-*.json; do
		run -0 validate "$file"
		# Its addresses are for another machine.
		sed -i "s|=:8080|=127.0.0.1:$PORT|; s|unix:/run/|unix:$BATS_TEST_TMPDIR/|" "$file"
		run -0 timeout 20 "$HANDOFF_BIN" check -c "$file" 3>&-
		count=$((count + 1))
	done
	((count >= 2))
}

@test "the schema and the supervisor refuse the same mistakes" {
	local keys
	while read -r keys; do
		config "\"command\": [\"$TS_BIN\"], $keys"
		run validate "$CONFIG"
		assert_equal "$keys: $status" "$keys: 1"
		run -125 timeout 20 "$HANDOFF_BIN" check -c "$CONFIG" 3>&-
	done <<-'EOF'
		"lisen": []
		"listen": ":1"
		"listen": [1]
		"workers": "1"
		"workers": 0
		"workers": 257
		"workers": 1.5
		"rolling": "yes"
		"settle": 5
		"settle": "5"
		"settle": "none"
		"ready": ["never"]
		"order": "first"
		"max-draining": 65
		"restart": "sometimes"
		"env": ["NOTHING"]
		"compat": ["uwsgi"]
		"log-level": "loud"
		"umask": 22
		"config": "x.json"
	EOF
}
