#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Several processes of one generation on the same listeners: lost and replaced, changed in number, rolled over.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # a Python text; every test is a subshell; run sets status and lines

load ../lib/helpers

setup() {
	common_setup
	SERVER="$BATS_TEST_TMPDIR/server"
	GATE="$BATS_TEST_TMPDIR/gate"
	STARTS="$BATS_TEST_TMPDIR/starts"
	CONFIG="$BATS_TEST_TMPDIR/config.json"
	: >"$STARTS"
	write_script "$SERVER" <<<"exec \"$TS_BIN\""
}

teardown() {
	stop_all
}

# third_of_two ACTION: the third worker of generation 2 does that instead of serving. In a rolling hand-off they come
# one at a time, so that a file can count them.
third_of_two() {
	write_script "$SERVER" <<-END
		if [ "\$HANDOFF_GENERATION" = 2 ]; then
			echo start >>"$STARTS"
			[ "\$(wc -l <"$STARTS")" -lt 3 ] || { $1; }
		fi
		exec "$TS_BIN"
	END
}

# The processes of the first generation in the status, oldest first, one a line.
pids() {
	status_value generations 0 pids | tr -d '[],' | tr ' ' '\n'
}

pid_count_is() {
	[[ $(pids | wc -l) == "$1" ]]
}

# Different processes that answer to 200 new connections, one a line.
answering() {
	local -a urls
	mapfile -t urls < <(yes "$URL" | head -n 200)
	http --no-keepalive -H 'Connection: close' "${urls[@]}" | sed -n 's/.*pid=\([0-9]*\) .*/\1/p' | sort -nu
}

all_answer() {
	[[ $(answering) == "$(pids | sort -n)" ]]
}

# How few workers served at any time since all of the first ones did, as the supervisor's log tells it: one more with
# each that is ready, one less with each that is told to drain or dies.
fewest_by_log() {
	awk -v first="$1" '
		/ is ready after |\[gen [0-9]+\] ready after / { serving++ }
		/draining: SIG|warning: worker [0-9]+ / { if (serving < first && !all) next; serving-- }
		serving >= first && !all { all = 1; fewest = serving }
		all && serving < fewest { fewest = serving }
		END { print fewest + 0 }
	' "$HANDOFF_LOG"
}

# start_sampling FILE: asks the supervisor for its processes again and again, and looks at each of them: one that has
# the listener open and has said ready (which closes the pipe) serves. A line with their number for each look.
start_sampling() {
	start_background "$1" python3 -c '
import json, os, socket, sys, time
def link(pid, fd):
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
lines = client.makefile("rw")
while True:
    lines.write("{\"command\":\"status\"}\n")
    lines.flush()
    answer = lines.readline()
    if not answer:
        break
    pids = [pid for one in json.loads(answer)["status"]["generations"] for pid in one["pids"]]
    print(sum(link(pid, 3).startswith("socket:") and not link(pid, 4).startswith("pipe:") for pid in pids), flush=True)
    time.sleep(0.01)
' "$CONTROL"
	SAMPLER=$STARTED_PID
	wait_log '^[0-9]' 3 "$1"
}

fewest_seen() {
	grep '^[0-9]' "$1" | sort -n | head -n 1
}

@test "four workers serve on the same listener, and active means that all of them are ready" {
	# The third to pass the gate waits for it to open.
	write_script "$SERVER" <<-END
		echo start >>"$STARTS"
		mkdir "$BATS_TEST_TMPDIR/held" 2>/dev/null && until [ -e "$GATE" ]; do sleep 0.02; done
		exec "$TS_BIN"
	END
	CONTROL="$BATS_TEST_TMPDIR/control"
	start_handoff --control "$CONTROL" -l 127.0.0.1:0 --workers 4 -- "$SERVER"
	wait_log 'worker [0-9]+ is ready' 3
	assert_equal "$(status_value state)" starting
	touch "$GATE"
	wait_log '\[gen 1\] active'
	log_has 'worker [0-9]+ is ready' 4
	URL="http://$(status_value listeners 0 address)"
	assert_equal "$(pids | wc -l)" 4
	wait_for all_answer
	stop_gracefully
}

@test "a worker that is killed is replaced alone" {
	start_controlled --workers 4 -- "$SERVER"
	local fds killed
	local -a before after
	fds=$(fd_count "$HANDOFF_PID")
	mapfile -t before < <(pids)
	killed=${before[1]}
	kill -KILL "$killed"
	wait_log '\[gen 1\] started one more worker'
	wait_log 'worker [0-9]+ is ready' 5
	mapfile -t after < <(pids)
	assert_equal "${after[*]:0:3}" "${before[0]} ${before[2]} ${before[3]}"
	assert_equal "${#after[@]}" 4
	log_has "\\[gen 1\\] warning: worker $killed was killed by SIGKILL\$" 1
	assert_equal "$(status_value restarts)" 1
	assert_equal "$(status_value generation)" 1
	wait_for all_answer
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	stop_gracefully
}

@test "a replacement that dies again and again is started ever more rarely, and the others serve on" {
	write_script "$SERVER" <<-END
		[ ! -e "$GATE" ] || { date +%s%3N >>"$STARTS"; exit 3; }
		exec "$TS_BIN"
	END
	start_controlled --workers 3 --restart-delay 100ms -- "$SERVER"
	local -a before times
	local i
	mapfile -t before < <(pids)
	touch "$GATE"
	kill -KILL "${before[0]}"
	wait_log '^[0-9]' 4 "$STARTS"
	assert_equal "$(answering | xargs)" "$(printf '%s\n' "${before[@]:1}" | sort -n | xargs)"
	rm "$GATE"
	mapfile -t times <"$STARTS"
	for i in 1 2 3; do
		# Later is the machine's load; sooner would be wrong.
		((times[i] - times[i - 1] >= 100 << i)) || fail "starts at ${times[*]}"
	done
	wait_for pid_count_is 3
	wait_for all_answer
	assert_equal "$(pids | head -n 2 | xargs)" "${before[*]:1}"
	assert_equal "$(status_value generation)" 1
	stop_gracefully
}

@test "where all workers are killed, the generation is restarted" {
	start_controlled --workers 3 -- "$SERVER"
	local -a before
	mapfile -t before < <(pids)
	kill -KILL "${before[@]}"
	wait_log '\[gen 1\] warning: died unasked: was killed by SIGKILL$'
	wait_log '\[gen 2\] active'
	wait_log '\[gen 1\] gone'
	assert_equal "$(pids | wc -l)" 3
	wait_for all_answer
	assert_equal "$(children_of "$HANDOFF_PID" | sort -n)" "$(pids | sort -n)"
	stop_gracefully
}

@test "the config file changes the number of workers at a reload" {
	echo '{"workers": 2}' >"$CONFIG"
	start_controlled -c "$CONFIG" -- "$SERVER"
	assert_equal "$(pids | wc -l)" 2
	local number
	start_load "$TARGET" --rate 50 --keepalive 4
	for number in 5 1 3; do
		echo "{\"workers\": $number}" >"$CONFIG"
		ctl reload --wait
		assert_equal "$(pids | wc -l)" "$number"
	done
	echo '{"workers": 0}' >"$CONFIG"
	run -1 ctl reload --wait
	assert_output --regexp 'workers.*0'
	assert_equal "$(pids | wc -l)" 3
	finish_load
	wait_for all_answer
	stop_gracefully
}

@test "a rolling hand-off of eight workers under load fails no request, and eight serve all the time" {
	start_controlled --workers 8 --rolling --settle 50ms -- "$SERVER"
	local samples="$BATS_TEST_TMPDIR/samples" fds
	fds=$(fd_count "$HANDOFF_PID")
	start_load "$TARGET" --rate 100 --keepalive 8
	start_sampling "$samples"
	mark_load start
	ctl reload --wait
	mark_load end
	kill -TERM "$SAMPLER"
	wait_exit "$SAMPLER"
	finish_load
	assert_equal "$(status_value generation)" 2
	assert_equal "$(pids | wc -l)" 8
	wait_log '\[gen 1\] gone'
	wait_for all_answer
	assert_equal "$(fewest_by_log 8)" 8
	(($(fewest_seen "$samples") >= 7)) || fail "$(fewest_seen "$samples") served"
	(($(grep -c . "$samples") > 10))
	wait_log 'started one more worker' 7
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	stop_gracefully
}

@test "a rolling hand-off that fails halfway rolls back, and no request fails" {
	third_of_two 'exit 3'
	start_controlled --workers 8 --rolling --settle 50ms -- "$SERVER"
	start_load "$TARGET" --rate 100 --keepalive 8
	run -1 ctl reload --wait
	assert_output --partial 'exited with status 3'
	wait_for pid_count_is 8
	wait_log '\[gen 2\] gone'
	wait_log '\[gen 1\] worker [0-9]+ is ready' 10
	finish_load
	assert_equal "$(status_value generation)" 1
	assert_equal "$(status_value last_reload result)" failed
	wait_for all_answer
	assert_equal "$(gen_of "$URL")" 1
	# The next one is none the worse for it.
	write_script "$SERVER" <<<"exec \"$TS_BIN\""
	ctl reload --wait
	wait_log '\[gen 1\] gone'
	wait_for all_answer
	stop_gracefully
}

@test "a stop in the middle of a rolling hand-off drains both generations" {
	third_of_two "until [ -e \"$GATE\" ]; do sleep 0.02; done"
	start_controlled --workers 4 --rolling --settle 50ms -- "$SERVER"
	start_background "$BATS_TEST_TMPDIR/reload" "$HANDOFF_BIN" reload --wait --control "$CONTROL"
	local client=$STARTED_PID curl
	wait_log '^start' 3 "$STARTS"
	start_background "$BATS_TEST_TMPDIR/body" curl -sS "$URL/sleep?ms=1000"
	curl=$STARTED_PID
	wait_for grep -q "$(printf '%04X' "${URL##*:}").* 01 " /proc/net/tcp
	ctl stop --wait
	wait_exit "$curl"
	assert_equal "$EXIT_STATUS" 0
	wait_exit "$client"
	[[ $EXIT_STATUS == 1 || $EXIT_STATUS == 5 ]]
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(survivors)" ''
}

# Every address that the status names answers with generation N: an address a line for those that do.
addresses_of() {
	ctl status --json | python3 -c '
import json, sys, urllib.request
for listener in json.load(sys.stdin)["listeners"]:
    with urllib.request.urlopen("http://" + listener["address"], timeout=10) as answer:
        if answer.read().startswith(b"gen=" + sys.argv[1].encode() + b" "):
            print(listener["address"])
' "$1" 3>&-
}

@test "100 listeners and 64 workers work, and a hand-off of them leaves no descriptor behind" {
	local -a listeners
	local fds
	mapfile -t listeners < <(yes -- $'-l\n127.0.0.1:0' | head -n 198)
	start_controlled --workers 64 "${listeners[@]}" -- "$SERVER"
	assert_equal "$(pids | wc -l)" 64
	assert_equal "$(addresses_of 1 | sort -u | wc -l)" 100
	fds=$(fd_count "$HANDOFF_PID")
	ctl reload --wait
	wait_log '\[gen 1\] gone'
	assert_equal "$(pids | wc -l)" 64
	assert_equal "$(addresses_of 2 | sort -u | wc -l)" 100
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	assert_equal "$(children_of "$HANDOFF_PID" | wc -l)" 64
	stop_gracefully
}
