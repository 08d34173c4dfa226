#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The client commands: what a deploy script sees of reload, status, stop and list, and how each of them can end.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # scripts for other shells; every test is a subshell; run sets status

load ../lib/helpers

setup() {
	common_setup
	SERVER="$BATS_TEST_TMPDIR/server"
	GATE="$BATS_TEST_TMPDIR/gate"
	RESULT="$BATS_TEST_TMPDIR/result"
	good_server
}

teardown() {
	stop_all
}

good_server() {
	write_script "$SERVER" <<<"exec \"$TS_BIN\""
}

# Starts of it wait at the gate until the file is there.
gated_server() {
	write_script "$SERVER" <<<"until [ -e \"$GATE\" ]; do sleep 0.02; done; exec \"$TS_BIN\""
}

failing_server() {
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --exit-at-once=$1"
}

# in_json STATUS COMMAND...: the client command with --json ends with STATUS and has said nothing on stderr; its events
# are in $RESULT.events, its last line in $RESULT.
in_json() {
	local expected=$1 status=0
	shift
	ctl "$1" --json "${@:2}" >"$RESULT.all" 2>"$RESULT.err" || status=$?
	assert_equal "$status" "$expected"
	assert_equal "$(cat "$RESULT.err")" ''
	tail -n 1 "$RESULT.all" >"$RESULT"
	sed '$d' "$RESULT.all" >"$RESULT.events"
}

# in_text STATUS COMMAND...: the same as a person reads it; standard output in $RESULT.out, standard error in
# $RESULT.err.
in_text() {
	local expected=$1 status=0
	shift
	ctl "$@" >"$RESULT.out" 2>"$RESULT.err" || status=$?
	assert_equal "$status" "$expected"
}

# Each line of a file is an object; the values of one key of them, in one line.
each() {
	python3 -c '
import json, sys
print(*(json.loads(line).get(sys.argv[2]) for line in open(sys.argv[1])))' "$1" "$2" 3>&-
}

result_value() {
	json_value "$RESULT" "$@"
}

# --- reload --wait, and each of its exit statuses -------------------------------------------------------------------

@test "reload --wait in an if is true once the new generation is active" {
	start_controlled --name web -- "$SERVER"
	if ctl reload --wait >"$RESULT.out" 2>"$RESULT.err"; then
		assert_equal "$(status_value generation)" 2
	else
		fail "exit status $?"
	fi
	assert_equal "$(cat "$RESULT.err")" ''
	run cat "$RESULT.out"
	assert_line --index 0 --regexp "^$CONTROL: generation 2 starts \\(pid $(pid_of 2)\\)\$"
	assert_line --index 1 --regexp "^$CONTROL: generation 2: pid $(pid_of 2) is ready after [0-9]+ m?s \\(pipe\\)\$"
	assert_line --index 2 --regexp "^$CONTROL: generation 2 is active; ready after [0-9]+ m?s \\(pipe\\); [0-9]+ m?s in all\$"
	assert_equal "${#lines[@]}" 3
	wait_for generation_is 2 "$URL"

	in_json 0 reload --wait
	assert_equal "$(each "$RESULT.events" event)" 'starting ready active'
	assert_equal "$(each "$RESULT.events" generation)" '3 3 3'
	assert_equal "$(result_value result)" ok
	assert_equal "$(result_value generation)" 3
	assert_equal "$(result_value ready_by)" pipe
	(($(result_value ready_ms) <= $(result_value duration_ms)))
	assert_equal "$(status_value generation)" 3
	stop_gracefully
}

@test "reload without --wait says that it was accepted, and does not wait for a start that hangs" {
	start_controlled -- "$SERVER"
	gated_server
	in_text 0 reload
	assert_equal "$(cat "$RESULT.out")" \
		"$CONTROL: a hand-off was asked for; generation 1 serves until the new one is ready"
	wait_log '\[gen 2\] started'
	in_json 0 reload
	assert_equal "$(each "$RESULT" result)" accepted
	assert_equal "$(result_value generation)" 1
	assert_equal "$(cat "$RESULT.events")" ''
	touch "$GATE"
	# The second one was asked for after the start of generation 2.
	wait_log '\[gen 3\] active'
	stop_gracefully
}

@test "reload --wait is 1 where the new generation fails, with the reason, its exit status and who serves" {
	start_controlled -- "$SERVER"
	failing_server 7
	if ctl reload --wait >"$RESULT.out" 2>"$RESULT.err"; then
		fail 'a failed hand-off is no success'
	else
		assert_equal $? 1
	fi
	run cat "$RESULT.err"
	assert_line --index 0 --regexp \
		"^handoff: $CONTROL: generation 2 failed: exited with status 7 after [0-9]+ ms, before it was ready\$"
	assert_line --index 1 '    its exit status: 7'
	assert_line --index 2 "handoff: $CONTROL: generation 1 still serves"
	assert_equal "${#lines[@]}" 3

	in_json 1 reload --wait
	assert_equal "$(each "$RESULT.events" event)" 'starting failed'
	assert_equal "$(result_value result)" failed
	assert_equal "$(result_value generation)" 3
	assert_equal "$(result_value status)" 7
	assert_equal "$(result_value active)" 1
	assert_regex "$(result_value reason)" '^exited with status 7 after [0-9]+ ms, before it was ready$'
	assert_equal "$(status_value last_reload result)" failed
	assert_equal "$(status_value last_reload generation)" 3
	assert_equal "$(status_value last_reload reason)" "$(result_value reason)"
	assert_equal "$(gen_of "$URL")" 1
	stop_gracefully
}

@test "the exit status of a failed start is that of a shell where it was killed, and null where it did not exit" {
	start_controlled --ready-timeout 400ms -- "$SERVER"
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --crash-on-start SEGV"
	in_json 1 reload --wait
	assert_equal "$(result_value status)" 139
	in_json 1 reload --wait -- /no/such/program
	assert_equal "$(result_value status)" 127
	write_script "$SERVER" <<<"exec \"$TS_BIN\" --never-ready"
	in_json 1 reload --wait
	assert_equal "$(result_value status)" null
	assert_regex "$(result_value reason)" 'not ready'
	in_text 1 reload --wait
	run cat "$RESULT.err"
	refute_line --partial 'exit status'
	stop_gracefully
}

@test "a wrong command line is 2, says one sentence, and asks for nothing" {
	start_controlled -- "$SERVER"
	while read -r -a words; do
		in_text 2 "${words[@]}"
		assert_equal "$(wc -l <"$RESULT.err")" 1
		assert_equal "$(cat "$RESULT.out")" ''
	done <<-'EOF'
		reload --timeout 5s
		reload --wait --timeout 5
		reload --wait --timeout
		reload --if-generation 0
		reload --if-generation two
		reload --wait --no-such-option
		reload web
		reload --wait --
		status --json --prometheus
		status --no-such-option
		stop --timeout 5s
		list web
	EOF
	in_text 2 reload --wait -- ''
	run grep -c 'asked by the control socket' "$HANDOFF_LOG"
	assert_output 0
	assert_equal "$(status_value last_reload)" null
	stop_gracefully
}

@test "reload --wait --timeout is 3 when the time has passed, and the hand-off goes on" {
	start_controlled -- "$SERVER"
	gated_server
	in_text 3 reload --wait --timeout 300ms
	assert_equal "$(cat "$RESULT.err")" "handoff: $CONTROL: no result after 300 ms; the hand-off goes on"
	assert_equal "$(status_value state)" handing-off
	touch "$GATE"
	wait_log '\[gen 2\] active'
	assert_equal "$(status_value last_reload result)" ok
	rm "$GATE"
	local status=0
	ctl reload --json --wait --timeout 300ms >"$RESULT.out" 2>"$RESULT.err" || status=$?
	assert_equal "$status" 3
	assert_equal "$(each "$RESULT.out" event)" starting
	assert_equal "$(cat "$RESULT.err")" "handoff: $CONTROL: no result after 300 ms; the hand-off goes on"
	touch "$GATE"
	wait_log '\[gen 3\] active'
	stop_gracefully
}

@test "a supervisor that is stopped by SIGSTOP is 3 for each client, within 10 seconds and no sooner than told" {
	start_controlled -- "$SERVER"
	# shellcheck disable=SC2153 # start_handoff sets it
	kill -STOP "$HANDOFF_PID"
	local word pids=() status
	for word in status stop reload list; do
		ctl_background "$RESULT.$word" "$word"
		pids+=("$STARTED_PID")
	done
	in_text 3 reload --wait --timeout 300ms
	assert_equal "$(cat "$RESULT.err")" "handoff: $CONTROL: no result after 300 ms; the hand-off goes on"
	for word in status stop reload; do
		wait_exit "${pids[0]}"
		assert_equal "$word: $EXIT_STATUS" "$word: 3"
		assert_equal "$(cat "$RESULT.$word")" \
			"handoff: $CONTROL: the supervisor does not answer: is its process stopped or overloaded?"
		pids=("${pids[@]:1}")
	done
	# It shows the others, so one that hangs is a row.
	wait_exit "${pids[0]}"
	assert_equal "$EXIT_STATUS" 0
	run cat "$RESULT.list"
	assert_line --regexp 'no answer'
	kill -CONT "$HANDOFF_PID"
	# What they had asked for is done now: also the stop.
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "no supervisor is 4: no file there, nobody behind it, or killed while one waits" {
	CONTROL="$BATS_TEST_TMPDIR/nobody"
	local word
	for word in status reload stop list 'reload --wait' 'stop --wait'; do
		read -r -a words <<<"$word"
		in_text 4 "${words[@]}"
		assert_equal "$(cat "$RESULT.err")" "handoff: no supervisor is at $CONTROL: there is no such file"
	done
	start_controlled -- "$SERVER"
	gated_server
	ctl_background "$RESULT.out" reload --wait
	local client=$STARTED_PID
	wait_log '\[gen 2\] started'
	kill -KILL "$HANDOFF_PID"
	wait_exit "$client"
	assert_equal "$EXIT_STATUS" 4
	run cat "$RESULT.out"
	assert_line "handoff: $CONTROL: the supervisor closed the connection before it answered; it has ended, or been killed"
	in_text 4 status
	assert_equal "$(cat "$RESULT.err")" "handoff: no supervisor is at $CONTROL any more: nobody listens there"
	# Its servers outlive it, which is known; they are ours to end.
	wait_exit "$HANDOFF_PID"
	kill_survivors
}

# Processes that the test has left without a supervisor on purpose.
kill_survivors() {
	local pid
	while read -r pid _; do
		kill -KILL "$pid" 2>/dev/null || true
	done < <(survivors)
	wait_for nobody_survives
}

nobody_survives() {
	[[ -z $(survivors) ]]
}

@test "reload is 5 while the supervisor stops" {
	start_controlled -- "$TS_BIN" --term-exits
	hold_connections 1
	kill -INT "$HANDOFF_PID"
	wait_log 'stopping'
	in_text 5 reload --wait
	assert_equal "$(cat "$RESULT.err")" "handoff: $CONTROL: refused: the supervisor is stopping"
	in_text 5 reload
	in_json 5 reload --wait
	assert_equal "$(result_value result)" refused
	assert_equal "$(result_value reason)" 'the supervisor is stopping'
	ctl stop --now --wait
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "reload --if-generation is 5 where another generation is active, and 0 where it is that one" {
	start_controlled -- "$SERVER"
	in_text 5 reload --wait --if-generation 2
	assert_equal "$(cat "$RESULT.err")" \
		"handoff: $CONTROL: refused: another generation is active than was asked for; generation 1 still serves"
	in_text 5 reload --if-generation 2
	in_json 5 reload --wait --if-generation 2
	assert_equal "$(result_value result)" refused
	assert_equal "$(result_value active)" 1
	in_text 0 reload --wait --if-generation 1
	in_text 5 reload --wait --if-generation 1
	assert_equal "$(status_value generation)" 2
	stop_gracefully
}

@test "reload --wait is 5 for a request whose place a newer, different one took" {
	start_controlled -- "$SERVER"
	gated_server
	ctl_background "$RESULT.first" reload --wait --json
	local first=$STARTED_PID
	wait_log '\[gen 2\] started'
	ctl_background "$RESULT.second" reload --wait -- "$SERVER" second
	local second=$STARTED_PID
	wait_for grep -q waiting "$RESULT.second"
	ctl_background "$RESULT.json" reload --wait --json -- "$SERVER" json
	local json=$STARTED_PID
	wait_exit "$second"
	assert_equal "$EXIT_STATUS" 5
	run cat "$RESULT.second"
	assert_line --index 0 "$CONTROL: waiting for the hand-off that is under way"
	assert_line --index 1 "handoff: $CONTROL: superseded: a newer, different request took its place"
	wait_for grep -q waiting "$RESULT.json"
	ctl_background "$RESULT.last" reload --wait
	local last=$STARTED_PID
	wait_exit "$json"
	assert_equal "$EXIT_STATUS" 5
	tail -n 1 "$RESULT.json" >"$RESULT"
	assert_equal "$(result_value result)" superseded
	touch "$GATE"
	wait_exit "$first"
	assert_equal "$EXIT_STATUS" 0
	wait_exit "$last"
	assert_equal "$EXIT_STATUS" 0
	run cat "$RESULT.last"
	assert_line --partial 'generation 3 is active'
	stop_gracefully
}

@test "SIGINT ends a reload --wait with 130, and the hand-off goes on" {
	start_controlled -- "$SERVER"
	gated_server
	ctl_background "$RESULT.out" reload --wait
	wait_log '\[gen 2\] started'
	wait_for grep -q starts "$RESULT.out"
	kill -INT "$STARTED_PID"
	wait_exit "$STARTED_PID"
	assert_equal "$EXIT_STATUS" 130
	run tail -n 1 "$RESULT.out"
	assert_output "handoff: $CONTROL: interrupted; the hand-off goes on"
	touch "$GATE"
	wait_log '\[gen 2\] active'
	stop_gracefully
}

@test "on a terminal reload --wait shows its steps on one line, and leaves only the result" {
	start_controlled -- "$SERVER"
	mkfifo "$BATS_TEST_TMPDIR/orders"
	run timeout 30 env TERM=xterm python3 "$helpers_dir/onpty.py" "$BATS_TEST_TMPDIR/orders" \
		"$HANDOFF_BIN" reload --wait --control "$CONTROL" 3>&-
	assert_success
	assert_output --partial 'generation 2 starts (pid'
	assert_output --partial $'\e[K'
	assert_line --index -1 --regexp 'generation 2 is active; ready after'
	stop_gracefully
}

# --- Many at once ---------------------------------------------------------------------------------------------------

# race COMMAND-WORDS...: runs reload --wait --json --if-generation $GENERATION twice or more at once, with that many
# different command lines; their exit statuses, sorted, in one line.
race() {
	local word pid pids=() statuses=()
	for word in "$@"; do
		ctl_background "$RESULT.$word" reload --wait --json --if-generation "$GENERATION" -- "$TS_BIN" --cpu-us "$word"
		pids+=("$STARTED_PID")
	done
	for pid in "${pids[@]}"; do
		wait_exit "$pid" || return
		statuses+=("$EXIT_STATUS")
	done
	printf '%s\n' "${statuses[@]}" | sort | tr '\n' ' '
}

@test "of deploys that race with --if-generation exactly one wins, and its command line is the one that runs" {
	start_controlled --settle 30ms -- "$SERVER"
	local round winner
	for round in 1 2 3 4 5; do
		GENERATION=$round
		rm -f "$RESULT".*
		if ((round < 4)); then
			race 1 2 >"$BATS_TEST_TMPDIR/statuses"
			assert_equal "$(cat "$BATS_TEST_TMPDIR/statuses")" '0 5 '
		else
			race 1 2 3 4 5 >"$BATS_TEST_TMPDIR/statuses"
			assert_equal "$(cat "$BATS_TEST_TMPDIR/statuses")" '0 5 5 5 5 '
		fi
		winner=$(grep -l '"result":"ok"' "$RESULT".*)
		assert_equal "$(status_value generation)" $((round + 1))
		assert_equal "$(status_value command 2)" "${winner##*.}"
	done
	stop_gracefully
}

@test "30 requests while a hand-off is under way are one further generation, and each gets its one answer" {
	start_controlled -- "$SERVER"
	gated_server
	local fds i pids=()
	fds=$(fd_count "$HANDOFF_PID")
	for i in {1..30}; do
		ctl_background "$RESULT.$i" reload --wait --json
		pids+=("$STARTED_PID")
	done
	wait_log 'hand-off asked by the control socket' 30
	touch "$GATE"
	for i in "${pids[@]}"; do
		wait_exit "$i"
		assert_equal "$EXIT_STATUS" 0
	done
	for i in {1..30}; do
		assert_equal "$(grep -c '"result":' "$RESULT.$i")" 1
		run tail -n 1 "$RESULT.$i"
		assert_output --regexp '"result":"ok","generation":[23],'
	done
	# Whoever asked after the start of generation 2 is answered by the next.
	run grep -l '"result":"ok","generation":2,' "$RESULT".*
	assert_equal "${#lines[@]}" 1
	run grep -c '\] started' "$HANDOFF_LOG"
	assert_output 3
	assert_equal "$(status_value handoffs)" 2
	wait_for fd_count_is "$fds"
	wait_for has_children 1
	stop_gracefully
}

fd_count_is() {
	(($(fd_count "$HANDOFF_PID") == $1))
}

has_children() {
	(($(children_of "$HANDOFF_PID" | wc -l) == $1))
}

@test "30 failing requests at once get 30 reasons, and the old server stays" {
	start_controlled --capture -- "$SERVER"
	failing_server 4
	local fds i pids=()
	fds=$(fd_count "$HANDOFF_PID")
	for i in {1..30}; do
		ctl_background "$RESULT.$i" reload --wait --json
		pids+=("$STARTED_PID")
	done
	for i in "${pids[@]}"; do
		wait_exit "$i"
		assert_equal "$EXIT_STATUS" 1
	done
	for i in {1..30}; do
		run tail -n 1 "$RESULT.$i"
		assert_output --regexp '"result":"failed","reason":"exited with status 4 '
	done
	assert_equal "$(gen_of "$URL")" 1
	assert_equal "$(status_value generation)" 1
	wait_for fd_count_is "$fds"
	stop_gracefully
}

# --- The last lines -------------------------------------------------------------------------------------------------

talking_server() {
	write_script "$SERVER" <<-'EOF'
		i=0
		while [ $i -lt 30 ]; do i=$((i + 1)); echo "line $i of $HANDOFF_GENERATION" >&2; done
		printf 'the end, with a tab\tand \033[31mred' >&2
		exit 3
	EOF
}

@test "with --capture the result holds the last 20 lines that the failing server wrote on stderr" {
	start_controlled --capture -- "$SERVER"
	talking_server
	in_json 1 reload --wait
	run json_value "$RESULT" stderr
	assert_equal "$(python3 -c '
import json, sys
lines = json.load(open(sys.argv[1]))["stderr"]
print(len(lines), lines[0], lines[-2], lines[-1].startswith("the end, with a tab"))' "$RESULT" 3>&-)" \
		'20 line 12 of 2 line 30 of 2 True'
	in_text 1 reload --wait
	run cat "$RESULT.err"
	assert_line '    its last lines on stderr:'
	assert_line '        line 12 of 3'
	assert_line '        line 30 of 3'
	assert_line --partial '        the end, with a tab and \x1b[31mred'
	refute_line --partial 'line 11 of'
	# The lines went where they always go, too.
	wait_log '^line 1 of 2'
	wait_log '^line 1 of 3'
	stop_gracefully
}

@test "without --capture there are no last lines, and fd 2 of the server is the supervisor's" {
	start_controlled -- "$SERVER"
	assert_equal "$(readlink "/proc/$(pid_of 1)/fd/2")" "$(readlink "/proc/$HANDOFF_PID/fd/2")"
	talking_server
	in_json 1 reload --wait
	run grep -c stderr "$RESULT"
	assert_output 0
	in_text 1 reload --wait
	run cat "$RESULT.err"
	refute_line --partial 'line 30'
	stop_gracefully
}

# --- reload -- COMMAND ----------------------------------------------------------------------------------------------

@test "reload -- COMMAND is kept once its generation is active, and the next hand-offs start it" {
	start_controlled -- "$SERVER"
	assert_equal "$(status_value command_from)" options
	in_text 0 reload --wait -- "$TS_BIN" --cpu-us 5
	run cat "$RESULT.out"
	assert_line --index -1 "$CONTROL: the new command line holds until this supervisor ends"
	assert_equal "$(status_value command_from)" reload
	assert_equal "$(status_value command)" "[\"$TS_BIN\", \"--cpu-us\", \"5\"]"
	hand_off 3
	run tr '\0' ' ' <"/proc/$(pid_of 3)/cmdline"
	assert_output "$TS_BIN --cpu-us 5 "
	# So does a restart.
	kill -KILL "$(pid_of 3)"
	wait_log '\[gen 4\] active'
	run tr '\0' ' ' <"/proc/$(pid_of 4)/cmdline"
	assert_output "$TS_BIN --cpu-us 5 "
	stop_gracefully
}

@test "reload -- COMMAND is forgotten where its generation fails" {
	start_controlled -- "$SERVER"
	in_text 1 reload --wait -- "$TS_BIN" --exit-at-once=9
	assert_equal "$(status_value command_from)" options
	assert_equal "$(status_value command)" "[\"$SERVER\"]"
	in_text 1 reload --wait -- /no/such/program
	run cat "$RESULT.err"
	assert_line --partial 'cannot exec /no/such/program: No such file or directory'
	in_text 0 reload -- "$TS_BIN" --exit-at-once=9
	wait_log '\[gen 4\] gone'
	hand_off 5
	assert_equal "$(gen_of "$URL")" 5
	assert_equal "$(status_value command)" "[\"$SERVER\"]"
	stop_gracefully
}

@test "a kept command that cannot start any more after a crash gives way to the last good one, and the log says so" {
	start_controlled --restart-delay 20ms -- "$SERVER"
	local release="$BATS_TEST_TMPDIR/release-2"
	write_script "$release" <<<"exec \"$TS_BIN\""
	in_text 0 reload --wait -- "$release"
	# The binary is replaced by a broken one, which nobody notices until the server dies.
	write_script "$release" <<<'exit 5'
	kill -KILL "$(pid_of 2)"
	wait_log '\[gen 3\] error: failed to start: exited with status 5'
	wait_log '\[gen 4\] active'
	assert_equal "$(gen_of "$URL")" 4
	run cat "$HANDOFF_LOG"
	assert_line "handoff: server: warning: falling back to the command line that was good before: $SERVER"
	assert_equal "$(status_value command)" "[\"$SERVER\"]"
	assert_equal "$(status_value command_from)" options
	assert_equal "$(status_value state)" running
	stop_gracefully
}

@test "of two kept commands the earlier one is the last good one; then the command line of the start" {
	start_controlled --restart-delay 20ms -- "$SERVER"
	write_script "$BATS_TEST_TMPDIR/two" <<<"exec \"$TS_BIN\""
	write_script "$BATS_TEST_TMPDIR/three" <<<"exec \"$TS_BIN\""
	in_text 0 reload --wait -- "$BATS_TEST_TMPDIR/two"
	in_text 0 reload --wait -- "$BATS_TEST_TMPDIR/three"
	rm "$BATS_TEST_TMPDIR/three"
	kill -KILL "$(pid_of 3)"
	wait_log '\[gen 5\] active'
	assert_equal "$(status_value command)" "[\"$BATS_TEST_TMPDIR/two\"]"
	assert_equal "$(status_value command_from)" reload
	rm "$BATS_TEST_TMPDIR/two"
	kill -KILL "$(pid_of 5)"
	wait_log '\[gen 7\] active'
	assert_equal "$(status_value command)" "[\"$SERVER\"]"
	stop_gracefully
}

# --- status ---------------------------------------------------------------------------------------------------------

# status_holds EXPRESSION...: each is true in Python, with the members of `status --json` as variables.
status_holds() {
	ctl status --json | python3 -c '
import json, sys
status = json.load(sys.stdin)
for expression in sys.argv[1:]:
    if not eval(expression, {**status, "status": status}):
        sys.exit(expression + " is not true in " + json.dumps(status, indent=1))' "$@" 3>&-
}

@test "status --json tells the truth while it starts, runs, hands off and stops" {
	gated_server
	CONTROL="$BATS_TEST_TMPDIR/control"
	start_handoff --name web --control "$CONTROL" -l http=127.0.0.1:0 -- "$SERVER"
	wait_log '\[gen 1\] started'
	status_holds 'state == "starting"' 'generation == 1' 'last_reload is None' 'len(generations) == 1' \
		'generations[0]["state"] == "starting"' 'generations[0]["ready_ms"] is None' \
		'generations[0]["ready_by"] is None'
	touch "$GATE"
	wait_log '\[gen 1\] active'
	URL=http://$(status_value listeners 0 address)

	local keys='name pid version state generation command command_from listeners generations last_reload restarts'
	status_holds "set('$keys next_restart_ms'.split()) <= set(status)" \
		"{'name', 'address', 'type', 'fd', 'backlog'} <= set(listeners[0])" \
		"{'generation', 'state', 'pids', 'started', 'ready_ms', 'ready_by'} <= set(generations[0])"
	status_holds 'state == "running"' 'name == "web"' "pid == $HANDOFF_PID" "command == ['$SERVER']" \
		'command_from == "options"' 'generation == 1' 'last_reload is None' 'next_restart_ms is None' \
		'restarts == 0' "version == '$("$HANDOFF_BIN" --version | sed 's/.* //')'"
	local backlog
	backlog=$(sed -n 's/.*(tcp, backlog \([0-9]*\)).*/\1/p' "$HANDOFF_LOG")
	status_holds 'len(listeners) == 1' 'listeners[0]["name"] == "http"' 'listeners[0]["type"] == "tcp"' \
		'listeners[0]["fd"] == 3' "listeners[0]['backlog'] == $backlog"
	assert_equal "$(gen_of "$URL")" 1
	status_holds 'len(generations) == 1' 'generations[0]["state"] == "active"' \
		"generations[0]['pids'] == [$(pid_of 1)]" 'generations[0]["ready_by"] == "pipe"' \
		'__import__("re").fullmatch(r"20[0-9-]+T[0-9:]+\.[0-9]{3}Z", generations[0]["started"])' \
		'"draining_ms" not in generations[0]'

	rm "$GATE"
	kill -USR1 "$HANDOFF_PID"
	wait_log '\[gen 2\] started'
	status_holds 'state == "handing-off"' 'generation == 1' \
		'[(g["generation"], g["state"]) for g in generations] == [(2, "starting"), (1, "active")]'
	touch "$GATE"
	wait_log '\[gen 2\] active'
	wait_log '\[gen 1\] gone'
	status_holds 'state == "running"' 'generation == 2' \
		'[(g["generation"], g["state"]) for g in generations] == [(2, "active")]' \
		'(last_reload["generation"], last_reload["result"], last_reload["reason"]) == (2, "ok", None)' \
		'last_reload["duration_ms"] >= 0'

	hold_connections 1
	kill -INT "$HANDOFF_PID"
	wait_log 'stopping'
	wait_log '\[gen 2\] draining'
	status_holds 'state == "stopping"' 'generation == 2' \
		'[(g["generation"], g["state"]) for g in generations] == [(2, "draining")]'
	ctl stop --now --wait
}

# hold_connections N: N requests in hand of the server; those that are not there yet will not end before the test.
hold_connections() {
	local i
	for ((i = $(connections); i < $1; i++)); do
		start_background "$RESULT.held" curl -sS "$URL/sleep?ms=100000"
	done
	wait_for held "$1"
}

connections() {
	ss -Htn state established "sport = :${URL##*:}" | wc -l
}

held() {
	(($(connections) == $1))
}

@test "a draining generation is listed with its age and its connections, until they have ended" {
	start_controlled --settle 30ms -- "$SERVER"
	start_background "$RESULT.curl" curl -sS "$URL/sleep?ms=8000"
	wait_for held 1
	hold_connections 3
	ctl reload --wait
	status_holds '[(g["generation"], g["state"]) for g in generations] == [(2, "active"), (1, "draining")]' \
		"generations[1]['pids'] == [$(pid_of 1)]" 'generations[1]["connections"] == 3'
	local before
	before=$(status_value generations 1 draining_ms)
	wait_for draining_longer_than "$before"
	run ctl status
	assert_line --regexp 'draining.*3 connections'
	wait_for status_is 2 generations 1 connections
	run ctl status --prometheus
	assert_line --regexp 'handoff_generation_connections\{.*generation="1",state="draining"\} 2$'
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 1\] gone'
	run status_value generations 1
	assert_failure
	stop_gracefully
}

draining_longer_than() {
	(($(status_value generations 1 draining_ms) > $1))
}

@test "status counts restarts, and says when the next start is due" {
	start_controlled --restart-delay 20s -- "$SERVER"
	kill -KILL "$(pid_of 1)"
	wait_log '\[gen 1\] .*killed'
	wait_for status_has_next_restart
	assert_equal "$(status_value state)" starting
	# A hand-off does not wait for that.
	in_text 0 reload --wait
	assert_equal "$(status_value next_restart_ms)" null
	assert_equal "$(status_value state)" running
	stop_gracefully
}

status_has_next_restart() {
	local left
	left=$(status_value next_restart_ms)
	[[ $left != null ]] && ((left > 0 && left <= 20000))
}

@test "status --watch shows what changes as it comes, and ends with the supervisor" {
	start_controlled --settle 30ms -- "$SERVER"
	ctl_background "$RESULT.text" status --watch
	local text=$STARTED_PID
	ctl_background "$RESULT.json" status --watch --json
	local json=$STARTED_PID
	wait_for grep -q 'running' "$RESULT.text"
	wait_for grep -q '"event":"status"' "$RESULT.json"
	hand_off 2
	wait_for grep -q '"event":"gone","generation":1' "$RESULT.json"
	wait_for grep -qE '^generations +2 +active' "$RESULT.text"
	assert_equal "$(each "$RESULT.json" event)" 'status starting ready active draining gone'
	stop_gracefully
	wait_exit "$text"
	assert_equal "$EXIT_STATUS" 0
	wait_exit "$json"
	assert_equal "$EXIT_STATUS" 0
	run tail -n 1 "$RESULT.text"
	assert_output "$CONTROL: the supervisor has ended"
	assert_equal "$(each "$RESULT.json" event)" 'status starting ready active draining gone stopping draining gone'
}

# --- stop -----------------------------------------------------------------------------------------------------------

@test "stop lets the server finish what it has, and does not wait for it" {
	start_controlled -- "$SERVER"
	start_background "$RESULT.curl" curl -sS "$URL/sleep?ms=1500"
	local request=$STARTED_PID
	wait_for held 1
	in_text 0 stop
	assert_equal "$(cat "$RESULT.out")" "$CONTROL: stops when every generation has drained"
	assert_equal "$(status_value state)" stopping
	# Asking twice is no impatience.
	in_text 0 stop
	wait_exit "$request"
	assert_equal "$EXIT_STATUS" 0
	run cat "$RESULT.curl"
	assert_output --partial gen=1
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
	run ls -A "$BATS_TEST_TMPDIR"
	refute_line --regexp '^control'
}

@test "stop --wait returns when all is gone: the name and the addresses can be taken at once" {
	local round port
	port=$(free_port)
	CONTROL="$BATS_TEST_TMPDIR/control"
	for round in 1 2 3; do
		start_handoff --control "$CONTROL" -l "127.0.0.1:$port" -- "$SERVER"
		wait_log '\[gen 1\] active'
		in_text 0 stop --wait
		run tail -n 1 "$RESULT.out"
		assert_output "$CONTROL: stopped"
		assert_equal "$(survivors)" ''
		run "$TS_BIN" --bind "127.0.0.1:$port" --ready none --exit-at-once=0
		assert_success
		wait_exit "$HANDOFF_PID"
		assert_equal "$EXIT_STATUS" 0
	done
}

@test "stop --wait says that something had to be killed at a timeout" {
	start_controlled --drain-timeout 300ms -- "$TS_BIN" --ignore-int
	in_text 0 stop --wait
	assert_equal "$(cat "$RESULT.err")" "handoff: $CONTROL: something had to be killed at a timeout"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 3
}

@test "stop --now does not let it drain" {
	start_controlled -- "$TS_BIN" --term-exits
	start_background "$RESULT.curl" curl -sS "$URL/sleep?ms=100000"
	local request=$STARTED_PID
	wait_for held 1
	in_text 0 stop --now
	assert_equal "$(cat "$RESULT.out")" "$CONTROL: stops at once"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	wait_exit "$request"
	((EXIT_STATUS != 0))
}

@test "stop --now --wait ends a graceful stop that takes too long, also for those who wait for that" {
	start_controlled -- "$TS_BIN" --term-exits
	start_background "$RESULT.curl" curl -sS "$URL/sleep?ms=100000"
	wait_for held 1
	ctl_background "$RESULT.wait" stop --wait
	local graceful=$STARTED_PID
	wait_for status_is stopping state
	in_text 0 stop --now --wait
	wait_exit "$graceful"
	assert_equal "$EXIT_STATUS" 0
	run tail -n 1 "$RESULT.wait"
	assert_output "$CONTROL: stopped"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "a reload that waits is told when its generation ends by a stop" {
	start_controlled -- "$SERVER"
	gated_server
	ctl_background "$RESULT.waiting" reload --wait --json
	local client=$STARTED_PID
	wait_log '\[gen 2\] started'
	in_text 0 stop --wait
	wait_exit "$client"
	[[ $EXIT_STATUS == 1 || $EXIT_STATUS == 5 ]]
	run tail -n 1 "$RESULT.waiting"
	assert_output --regexp '"result":"(failed|refused)","reason":".*stop'
	wait_exit "$HANDOFF_PID"
}

# --- Which supervisor -----------------------------------------------------------------------------------------------

# From here on the test's supervisors and clients have a /run and /tmp/handoff-UID of their own.
own_run() {
	local holder ready="$BATS_TEST_TMPDIR/mounted"
	start_background "$BATS_TEST_TMPDIR/holder.log" unshare -m sh -c \
		"mount -t tmpfs tmpfs /run && touch '$ready' && exec sleep infinity"
	holder=$STARTED_PID
	wait_for test -e "$ready"
	REAL_BIN=$HANDOFF_BIN
	write_script "$BATS_TEST_TMPDIR/handoff" <<<"exec nsenter --mount=/proc/$holder/ns/mnt \"$REAL_BIN\" \"\$@\""
	HANDOFF_BIN="$BATS_TEST_TMPDIR/handoff"
}

# client COMMAND...: without --control.
client() {
	timeout 60 "$HANDOFF_BIN" "$@" </dev/null 3>&-
}

@test "without a NAME the only supervisor is meant; of two one must be named; where there is none they say so" {
	own_run
	local word
	for word in status reload stop; do
		run -4 client "$word"
		assert_output 'handoff: no supervisor runs here that you may talk to (handoff run starts one)'
	done
	run -4 client status web
	assert_output 'handoff: no supervisor runs here that you may talk to'
	run -0 client list
	assert_output 'handoff: no supervisor runs here that you may talk to'

	start_serving --name web -- "$SERVER"
	run -0 client status --json
	assert_output --partial '"name":"web"'
	run -0 client reload --wait
	assert_output --partial 'web: generation 2 is active'
	run -0 client reload --wait web
	run -4 client reload --wait other
	assert_output 'handoff: no supervisor that you may talk to is called "other"; there are: web'

	local web=$HANDOFF_PID
	HANDOFF_LOG="$BATS_TEST_TMPDIR/second.log"
	start_serving --name api -- "$SERVER"
	for word in status reload stop; do
		run -2 client "$word"
		assert_output --regexp '^handoff: several supervisors run here; name one of them: (web, api|api, web)$'
	done
	run -0 client reload --wait api
	assert_output --partial 'api: generation 2 is active'
	run -0 client list
	assert_line --regexp "^web +$web +running +3 +$SERVER\$"
	assert_line --regexp "^api +$HANDOFF_PID +running +2 +$SERVER\$"
	assert_equal "${#lines[@]}" 3
	run -0 client stop --wait web
	assert_output --partial 'web: stopped'
	wait_exit "$web"
	run -0 client list
	assert_equal "${#lines[@]}" 2
	run -0 client stop --wait
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

@test "a supervisor with a --control of its own is found by its name all the same" {
	own_run
	start_controlled --name far -- "$SERVER"
	run -0 client reload --wait far
	run -0 client list
	assert_line --regexp "^far +$HANDOFF_PID +running +2 "
	run -0 client list --control "$CONTROL"
	assert_line --partial "$HANDOFF_PID"
	# One that was killed is not listed, and leaves nothing in the way of the next of its name.
	kill -KILL "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	kill_orphans
	run -0 client list
	assert_output 'handoff: no supervisor runs here that you may talk to'
	start_controlled --name far -- "$SERVER"
	run -0 client status far
	assert_output --partial far
	run -0 client stop --wait far
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
}

# The servers of a supervisor that was killed; the holder of the namespace stays.
kill_orphans() {
	local pid words
	while read -r pid words; do
		[[ $words == sleep* ]] || kill -KILL "$pid" 2>/dev/null || true
	done < <(survivors)
}


# --- Completion -----------------------------------------------------------------------------------------------------

@test "the completion scripts load in bash, zsh and fish, and know the commands" {
	"$HANDOFF_BIN" completion bash >"$RESULT.bash"
	run bash -c 'source "$1" && COMP_WORDS=(handoff rel) COMP_CWORD=1 COMP_LINE="handoff rel" COMP_POINT=11 &&
		"$(complete -p handoff | sed "s/.*-F \([^ ]*\).*/\1/")" handoff rel handoff && echo "${COMPREPLY[@]}"' \
		bash "$RESULT.bash"
	assert_output 'reload'
	"$HANDOFF_BIN" completion zsh >"$BATS_TEST_TMPDIR/_handoff"
	run zsh -f -c 'fpath=($1 $fpath) && autoload -Uz compinit && compinit -u -d $1/dump && print $_comps[handoff] &&
		autoload +X _handoff && print loaded' zsh "$BATS_TEST_TMPDIR"
	assert_output $'_handoff\nloaded'
	"$HANDOFF_BIN" completion fish >"$RESULT.fish"
	run env HOME="$BATS_TEST_TMPDIR" fish --no-config -c "source $RESULT.fish; complete -C 'handoff rel'"
	assert_output --regexp '^reload'
	run -2 "$HANDOFF_BIN" completion tcsh
}
