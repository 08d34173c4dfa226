#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# How old generations go: who is told, by which signal, how long each may take, and how many may drain at a time.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # texts for other shells; every test is a subshell of its own

load ../lib/helpers

setup() {
	common_setup
	export TS_BIN
	SERVER="$BATS_TEST_TMPDIR/server"
	export TOLD="$BATS_TEST_TMPDIR/told"
	: >"$TOLD"
}

teardown() {
	stop_all
}

# hold N MS: a client whose request keeps generation N busy for MS; its pid in HOLDERS[N], its answer in $ANSWER.N.
ANSWER=
declare -a HOLDERS=()
hold() {
	local before
	ANSWER="$BATS_TEST_TMPDIR/answer"
	before=$(fd_count "$(pid_of "$1")")
	start_background "$ANSWER.$1" "$LOAD_BIN" --target "$TARGET" --one --path "/sleep?ms=$2" --timeout 120s
	HOLDERS[$1]=$STARTED_PID
	wait_for has_more_fds "$(pid_of "$1")" "$before"
}

has_more_fds() {
	(($(fd_count "$1") > $2))
}

answered() {
	wait_exit "${HOLDERS[$1]}"
	assert_equal "$EXIT_STATUS" 0
	run cat "$ANSWER.$1"
	assert_output --regexp "^gen=$1 "
}

not_gone() {
	run grep -F "[gen $1] gone" "$HANDOFF_LOG"
	assert_output ''
}

not_killed() {
	run grep -F "[gen $1] warning: killed" "$HANDOFF_LOG"
	assert_output ''
}

# The living processes of this test whose command line begins with WORDS, one pid a line.
running() {
	local pid command left
	left=$(survivors)
	while read -r pid command; do
		[[ $command != "$1"* ]] || echo "$pid"
	done <<<"$left"
}

runs() {
	[[ -n $(running "$1") ]]
}

@test "the drain timeout kills each old generation at its own deadline, however many hand-offs come meanwhile" {
	local number=1 fds
	start_serving --drain-timeout 3s -- "$TS_BIN" --ignore-int
	fds=$(fd_count "$HANDOFF_PID")
	# A deadline that any of these moved would never come.
	until log_has '\[gen 1\] warning: killed: not drained within --drain-timeout$' 1; do
		((number < 60))
		number=$((number + 1))
		hand_off "$number"
	done
	((number > 2))
	# The last one has just been told.
	not_killed $((number - 1))
	wait_log "\\[gen $((number - 1))\\] gone after draining"
	# None before its time.
	run grep -cE 'gone after draining for ([3-9]|[1-9][0-9]+)\.[0-9] s$' "$HANDOFF_LOG"
	assert_output $((number - 1))
	# In the order in which they were told.
	run sed -n 's/.*\[gen \([0-9]*\)\] warning: killed: .*/\1/p' "$HANDOFF_LOG"
	assert_output "$(seq $((number - 1)))"
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of "$number")"
	assert_equal "$(fd_count "$HANDOFF_PID")" "$fds"
	assert_equal "$(gen_of "$URL")" "$number"
	stop_gracefully 3
}

@test "a drain timeout of 0 kills right after the signal" {
	start_serving --drain-timeout 0 -- "$TS_BIN" --ignore-int
	hand_off 2
	wait_log '\[gen 1\] warning: killed: not drained within --drain-timeout$'
	wait_log '\[gen 1\] gone'
	stop_gracefully 3
}

@test "a server that drains in time is not killed" {
	start_serving --drain-timeout 60s -- "$TS_BIN"
	hold 1 2000
	hand_off 2
	answered 1
	wait_log '\[gen 1\] gone after draining for [0-9.]+ s'
	not_killed 1
	stop_gracefully
}

@test "an old generation that is stopped is woken by the drain signal" {
	start_serving -- "$TS_BIN"
	kill -STOP "$(pid_of 1)"
	hand_off 2
	wait_log '\[gen 1\] gone after draining'
	not_killed 1
	stop_gracefully
}

@test "an old generation that is stopped while it drains is killed at its deadline" {
	start_serving --drain-timeout 2s -- "$TS_BIN"
	hold 1 60000
	hand_off 2
	kill -STOP "$(pid_of 1)"
	wait_log '\[gen 1\] warning: killed: not drained within --drain-timeout$'
	wait_log '\[gen 1\] gone after draining for [2-9]\.[0-9] s'
	assert_equal "$(zombies_of "$HANDOFF_PID")" 0
	stop_gracefully
}

@test "a server that ignores the drain signal stays beside the new one; a second INT ends both" {
	start_serving -- "$TS_BIN" --ignore-int --count-int "$TOLD"
	hand_off 2
	wait_for grep -q "pid=$(pid_of 1)" "$TOLD"
	not_gone 1
	kill -INT "$HANDOFF_PID"
	wait_for grep -q "pid=$(pid_of 2)" "$TOLD"
	not_gone 1
	not_gone 2
	# None has heard it twice, and none is killed: there is no timeout.
	assert_equal "$(wc -l <"$TOLD")" 2
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	log_has 'immediate stop asked again by SIGINT' 1
	assert_equal "$(survivors)" ''
}

@test "what ignores every signal is killed after the kill timeout, draining or active, and the exit status says so" {
	start_serving --kill-timeout 1s -- "$TS_BIN" --ignore-int --ignore-term
	hand_off 2
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 3
	log_has '\[gen 1\] warning: killed: did not end when told to$' 1
	log_has '\[gen 2\] warning: killed: did not end when told to$' 1
	assert_equal "$(survivors)" ''
}

@test "above --max-draining the oldest is killed and logged, and no hand-off waits for connections that stay open" {
	local number
	start_serving --max-draining 2 --kill-timeout 1s -- "$TS_BIN"
	for number in 1 2 3 4 5; do
		hold "$number" 100000
		hand_off $((number + 1))
		assert_equal "$(gen_of "$URL")" $((number + 1))
	done
	for number in 1 2 3; do
		wait_log "\\[gen $number\\] warning: killed: more than --max-draining=2 generations are draining\$"
		wait_log "\\[gen $number\\] gone after draining"
		is_gone "$(pid_of "$number")"
		# Its client has lost its answer, which is what the limit costs.
		wait_exit "${HOLDERS[number]}"
		assert_equal "$EXIT_STATUS" 1
	done
	run sed -n 's/.*\[gen \([0-9]*\)\] warning: killed: .*/\1/p' "$HANDOFF_LOG"
	assert_output "$(seq 3)"
	for number in 4 5; do
		not_gone "$number"
		run is_gone "${HOLDERS[number]}"
		assert_failure
	done
	assert_equal "$(children_of "$HANDOFF_PID" | sort)" "$(printf '%s\n' "$(pid_of 4)" "$(pid_of 5)" "$(pid_of 6)" | sort)"
	# Ended all the same, with the timeout of an immediate stop, since their requests go on.
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 3
	assert_equal "$(running "$TS_BIN")" ''
}

@test "an immediate stop ends every draining generation" {
	start_serving -- "$TS_BIN" --term-exits
	hold 1 100000
	hand_off 2
	hold 2 100000
	hand_off 3
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	log_has '\[gen [123]\] gone' 3
	assert_equal "$(running "$TS_BIN")" ''
}

@test "a graceful stop waits for every draining generation, and tells none of them twice" {
	start_serving -- "$TS_BIN" --count-int "$TOLD"
	hold 1 6000
	hand_off 2
	hold 2 5000
	hand_off 3
	hold 3 4000
	kill -INT "$HANDOFF_PID"
	answered 1
	answered 2
	answered 3
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	assert_equal "$(sort "$TOLD" | uniq -c | awk '{print $1}' | xargs)" '1 1 1'
	assert_equal "$(survivors)" ''
}

@test "the drain timeout holds in a graceful stop, and the exit status says that something was killed" {
	start_serving --drain-timeout 2s -- "$TS_BIN"
	hold 1 100000
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 3
	log_has '\[gen 1\] warning: killed: not drained within --drain-timeout$' 1
}

@test "--drain-signal TERM is what the old generation gets, and INT never" {
	start_serving --drain-signal TERM -- "$TS_BIN" --count-int "$TOLD"
	hand_off 2
	wait_log '\[gen 1\] draining: SIGTERM to its main process'
	wait_log '\[gen 1\] gone after draining'
	# In a graceful stop too, though that was asked by INT.
	stop_gracefully
	log_has '\[gen 2\] draining: SIGTERM to its main process' 1
	assert_equal "$(wc -l <"$TOLD")" 0
}

@test "--drain-signal QUIT is what the old generation gets" {
	write_script "$SERVER" <<-'END'
		trap 'echo "$HANDOFF_GENERATION QUIT" >>"$TOLD"; kill $!; exit 0' QUIT
		echo >&4
		sleep 1000 &
		wait
	END
	start_serving --drain-signal SIGQUIT -- "$SERVER"
	hand_off 2
	wait_log '\[gen 1\] draining: SIGQUIT to its process group'
	wait_log '\[gen 1\] gone after draining'
	assert_equal "$(cat "$TOLD")" '1 QUIT'
	stop_gracefully
}

# helper_of N: the process that ts --leave-helper of generation N has left.
helper_of() {
	children_of "$(pid_of "$1")"
}

has_helper() {
	[[ -n $(helper_of "$1") ]]
}

@test "--drain-to group tells the whole group at once" {
	local helper
	start_serving --drain-to group -- "$TS_BIN" --leave-helper
	wait_for has_helper 1
	helper=$(helper_of 1)
	hold 1 4000
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to its process group'
	wait_gone "$helper"
	# The main process is still at work.
	not_gone 1
	answered 1
	wait_log '\[gen 1\] gone after draining'
	stop_gracefully
}

@test "--drain-to main, and auto where that is no shell, tell the main process, and its helper once that has exited" {
	local helper to
	for to in main auto; do
		start_serving --drain-to "$to" -- "$TS_BIN" --leave-helper
		wait_for has_helper 1
		helper=$(helper_of 1)
		hold 1 3000
		hand_off 2
		wait_log '\[gen 1\] draining: SIGINT to its main process'
		run is_gone "$helper"
		assert_failure
		answered 1
		wait_log '\[gen 1\] draining: SIGINT to what is left of its process group'
		wait_log '\[gen 1\] gone after draining'
		is_gone "$helper"
		stop_gracefully
	done
}

@test "--drain-to auto tells the process that the server named with MAINPID=" {
	cat >"$SERVER.py" <<-'END'
		import os, signal, socket
		def told(who):
		    def handler(*_):
		        with open(os.environ["TOLD"], "a") as out:
		            out.write(f"{who} of {os.environ['HANDOFF_GENERATION']}\n")
		        if who == "worker":
		            os._exit(0)
		    return handler
		if os.fork():
		    signal.signal(signal.SIGINT, told("parent"))
		    os.wait()
		else:
		    signal.signal(signal.SIGINT, told("worker"))
		    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		    notify.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
		    notify.send(b"MAINPID=%d\nREADY=1" % os.getpid())
		    while True:
		        signal.pause()
	END
	start_serving -- python3 "$SERVER.py"
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to the main process that it named'
	wait_log '\[gen 1\] gone after draining'
	assert_equal "$(cat "$TOLD")" 'worker of 1'
	stop_gracefully
	assert_equal "$(cat "$TOLD")" $'worker of 1\nworker of 2'
}

@test "a helper that outlives the main process gets the drain signal exactly once, then the kill at the deadline" {
	write_script "$BATS_TEST_TMPDIR/helper" <<-'END'
		trap 'echo TERM >>"$TOLD"' TERM
		while :; do
			sleep 1000 &
			wait $!
		done
	END
	write_script "$SERVER" <<-END
		[ "\$HANDOFF_GENERATION" != 1 ] || "$BATS_TEST_TMPDIR/helper" 3>&- 4>&- &
		exec "$TS_BIN"
	END
	start_serving --drain-signal TERM --drain-timeout 2s -- "$SERVER"
	wait_for runs "sleep 1000"
	hand_off 2
	wait_log '\[gen 1\] draining: SIGTERM to its main process'
	wait_log '\[gen 1\] draining: SIGTERM to what is left of its process group'
	not_gone 1
	wait_log '\[gen 1\] warning: killed: not drained within --drain-timeout$'
	wait_log '\[gen 1\] gone after draining for [2-9]\.[0-9] s'
	assert_equal "$(cat "$TOLD")" TERM
	assert_equal "$(running "sleep 1000")" ''
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 2)"
	stop_gracefully
}

@test "a daemon of its own session that a server left behind belongs to its generation, which is gone when it is gone" {
	local daemon
	write_script "$SERVER" <<-END
		[ "\$HANDOFF_GENERATION" != 1 ] || setsid sh -c 'trap "" INT; exec sleep 1000' 3>&- 4>&- &
		exec "$TS_BIN"
	END
	start_serving -- "$SERVER"
	wait_for runs 'sleep 1000'
	daemon=$(running 'sleep 1000')
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to its main process'
	wait_log '\[gen 1\] draining: SIGINT to what is left of its process group'
	# Hand-offs do not wait for it.
	hand_off 3
	wait_log '\[gen 2\] gone after draining'
	not_gone 1
	run is_gone "$daemon"
	assert_failure
	kill -KILL "$daemon"
	wait_log '\[gen 1\] gone after draining'
	assert_equal "$(children_of "$HANDOFF_PID")" "$(pid_of 3)"
	stop_gracefully
}

@test "a daemon that a server left behind gets the drain signal, and goes with its generation" {
	start_serving -- "$TS_BIN" --leave-daemon
	wait_for has_helper 1
	local daemon
	daemon=$(helper_of 1)
	hand_off 2
	wait_log '\[gen 1\] draining: SIGINT to what is left of its process group'
	wait_log '\[gen 1\] gone after draining'
	is_gone "$daemon"
	stop_gracefully
}

@test "a daemon that ignores everything is killed with its generation, in a stop" {
	write_script "$SERVER" <<-END
		setsid sh -c 'trap "" INT TERM; exec sleep 1000' 3>&- 4>&- &
		exec "$TS_BIN"
	END
	start_serving --kill-timeout 1s -- "$SERVER"
	wait_for runs 'sleep 1000'
	kill -TERM "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 3
	log_has '\[gen 1\] warning: killed: did not end when told to$' 1
	assert_equal "$(survivors)" ''
}
