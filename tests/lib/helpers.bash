# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the bats files share: programs under test started and stopped by pid, waits with a deadline, and load.
#
#	load ../lib/helpers
#	setup() { common_setup; }
#	teardown() { stop_all; }

bats_require_minimum_version 1.5.0
bats_load_library bats-support
bats_load_library bats-assert
set -uo pipefail

helpers_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# Programs, where meson put them; each may be given on its own.
: "${BUILD_DIR:=$helpers_dir/../../build}"
: "${HANDOFF_BIN:=$BUILD_DIR/handoff}"
: "${TS_BIN:=$BUILD_DIR/tests/servers/ts}"
: "${LOAD_BIN:=$BUILD_DIR/tests/bench/load}"
: "${DEMO_BIN:=$BUILD_DIR/tests/servers/demo}"
: "${URING_BIN:=$BUILD_DIR/tests/servers/uring}"
: "${FDMAP_BIN:=$helpers_dir/fdmap}"
export BUILD_DIR HANDOFF_BIN TS_BIN LOAD_BIN DEMO_BIN URING_BIN FDMAP_BIN

# Seconds that a wait may take. Sanitizers and valgrind are slow; WAIT_SECONDS=60 gives them room.
: "${WAIT_SECONDS:=20}"

# Every process of a test carries this in its environment, and so does everything that it starts: what survives its
# parents is still found.
common_setup() {
	export TEST_OF_HANDOFF="$$-$BATS_TEST_NUMBER-$RANDOM$RANDOM"
	# Supervisors of the machine, and of tests that run beside this one, are none of ours.
	unset LISTEN_FDS LISTEN_PID LISTEN_FDNAMES LISTEN_PIDFDID NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC JOURNAL_STREAM
	export XDG_RUNTIME_DIR="$BATS_TEST_TMPDIR/run"
	mkdir -m 700 "$XDG_RUNTIME_DIR"
	# Control sockets too: names in /run/handoff are for the whole machine.
	export RUNTIME_DIRECTORY="$XDG_RUNTIME_DIR/service"
	mkdir -m 700 "$RUNTIME_DIRECTORY"
	started_pids=()
	HANDOFF_PID=''
	HANDOFF_LOG="$BATS_TEST_TMPDIR/handoff.log"
	LOAD_PID=''
	LOAD_JSON="$BATS_TEST_TMPDIR/load.json"
	LOAD_MARKS="$BATS_TEST_TMPDIR/load.marks"
}

# --- Starting -------------------------------------------------------------------------------------------------------

# A TCP port that nobody uses now.
free_port() {
	"$LOAD_BIN" --free-port
}

# start_background LOG COMMAND...: its pid in STARTED_PID, its output in LOG. bats waits for everything that holds its
# descriptor 3. Background jobs of a shell ignore INT and QUIT, so env puts the defaults back.
start_background() {
	local log=$1
	shift
	env --default-signal=INT,QUIT "$@" </dev/null >>"$log" 2>&1 3>&- &
	STARTED_PID=$!
	started_pids+=("$STARTED_PID")
}

# start_handoff OPTIONS... -- COMMAND...: the supervisor in the background; sets HANDOFF_PID, logs to $HANDOFF_LOG.
start_handoff() {
	: >"$HANDOFF_LOG"
	start_background "$HANDOFF_LOG" "$HANDOFF_BIN" run "$@"
	# shellcheck disable=SC2034
	HANDOFF_PID=$STARTED_PID
}

# start_serving OPTIONS... -- COMMAND...: start_handoff on a TCP port that the kernel chooses, until generation 1 is active.
# Its address: TARGET for load, URL for http.
start_serving() {
	local address
	start_handoff -l 127.0.0.1:0 "$@"
	wait_log '\[gen 1\] active' || return
	address=$(sed -n 's/.*holding \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$HANDOFF_LOG")
	# shellcheck disable=SC2034
	TARGET="tcp:$address"
	# shellcheck disable=SC2034
	URL="http://$address"
}

# public_copy PROGRAM: a copy that every user may run, its path on stdout; the folder of the test is opened for that.
public_copy() {
	local folder=$BATS_TEST_TMPDIR
	install -m 755 "$1" "$folder/${1##*/}"
	echo "$folder/${1##*/}"
	while [[ $folder == "${BATS_RUN_TMPDIR%/*}"/* ]]; do
		chmod a+x "$folder"
		folder=${folder%/*}
	done
}

# write_script FILE: an executable shell script, its body on stdin; for commands whose later starts differ.
write_script() {
	{
		echo '#!/bin/sh'
		cat
	} >"$1.new"
	chmod 755 "$1.new"
	mv "$1.new" "$1"
}

# hand_off N: asks for a hand-off, and waits until generation N is active.
hand_off() {
	kill -USR1 "$HANDOFF_PID"
	wait_log "\[gen $1\] active"
}

# stop_gracefully [STATUS]: INT, until the supervisor has exited with STATUS (0), and nothing of it is left.
stop_gracefully() {
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID" || return
	assert_equal "$EXIT_STATUS" "${1:-0}"
	assert_equal "$(survivors)" ''
}

# --- Waiting --------------------------------------------------------------------------------------------------------

# wait_for [-t SECONDS] COMMAND...: until it succeeds; fails the test at the deadline.
wait_for() {
	local seconds=$WAIT_SECONDS deadline
	if [[ $1 == -t ]]; then
		seconds=$2
		shift 2
	fi
	deadline=$(($(now_ms) + seconds * 1000))
	until "$@" >/dev/null 2>&1; do
		if (($(now_ms) >= deadline)); then
			echo "not within $seconds s: $*" >&2
			show_log "$HANDOFF_LOG"
			return 1
		fi
		sleep 0.015
	done
}

show_log() {
	[[ ! -s $1 ]] || tail -n 30 "$1" | sed 's/^/log: /' >&2
}

now_ms() {
	local now=$EPOCHREALTIME
	now=${now/[.,]/}
	echo $((now / 1000))
}

log_has() {
	local found
	found=$(grep -cE -- "$1" "${3:-$HANDOFF_LOG}") || true
	((found >= $2))
}

# wait_log REGEX [COUNT] [FILE]: until COUNT lines (1) of the log match.
wait_log() {
	local file=${3:-$HANDOFF_LOG}
	wait_for log_has "$1" "${2:-1}" "$file" || {
		[[ $file == "$HANDOFF_LOG" ]] || show_log "$file"
		return 1
	}
}

is_gone() {
	local state
	# A zombie has ended; whether it was reaped is another test's question.
	state=$(process_state "$1") || return 0
	[[ $state == Z || $state == X ]]
}

process_state() {
	local line
	line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	line=${line##*) }
	echo "${line%% *}"
}

# wait_gone PID [SECONDS]: until that process has ended.
wait_gone() {
	wait_for -t "${2:-$WAIT_SECONDS}" is_gone "$1"
}

# wait_exit PID: until that child of the shell has ended; its exit status in EXIT_STATUS.
wait_exit() {
	wait_gone "$1" || return
	EXIT_STATUS=0
	wait "$1" || EXIT_STATUS=$?
	forget "$1"
}

forget() {
	local pid
	local -a kept=()
	for pid in "${started_pids[@]}"; do
		[[ $pid == "$1" ]] || kept+=("$pid")
	done
	started_pids=("${kept[@]}")
}

# --- Asking ---------------------------------------------------------------------------------------------------------

# http URL [CURL OPTIONS...]: the body; fails where nobody answers. unix:/path: http http://x/ --unix-socket PATH.
http() {
	curl -sS --max-time 5 "$@" 3>&-
}

# The generation that answers there.
gen_of() {
	local body
	body=$(http "$@") || return
	body=${body#*gen=}
	echo "${body%%[!0-9]*}"
}

# generation_is N URL: for wait_for.
generation_is() {
	[[ $(gen_of "${@:2}") == "$1" ]]
}

fd_count() {
	local -a fds=("/proc/$1/fd/"*)
	echo "${#fds[@]}"
}

# The processes whose parent is PID, one a line.
children_of() {
	cat "/proc/$1/task/"*/children 2>/dev/null | tr ' ' '\n' | sed '/^$/d'
}

# pid_of N: the process that generation N was started as.
pid_of() {
	sed -n "s/.*\\[gen $1\\] started .* (pid \\([0-9]*\\))\$/\\1/p" "$HANDOFF_LOG"
}

# How many ended children of PID were not reaped.
zombies_of() {
	local pid count=0
	for pid in $(children_of "$1"); do
		[[ $(process_state "$pid") != Z ]] || count=$((count + 1))
	done
	echo "$count"
}

# --- Control --------------------------------------------------------------------------------------------------------

# start_controlled OPTIONS... -- COMMAND...: start_serving with a control socket of the test's own, $CONTROL.
start_controlled() {
	CONTROL="$BATS_TEST_TMPDIR/control"
	start_serving --control "$CONTROL" "$@"
}

# ctl COMMAND ARGUMENTS...: a client command for the supervisor at $CONTROL, which never waits for ever.
ctl() {
	timeout 60 "$HANDOFF_BIN" "$1" --control "$CONTROL" "${@:2}" </dev/null 3>&-
}

# ctl_background OUTPUT COMMAND ARGUMENTS...: the same beside the test; its pid in STARTED_PID.
ctl_background() {
	start_background "$1" "$HANDOFF_BIN" "$2" --control "$CONTROL" "${@:3}"
}

# status_value KEY...: a value of `status --json`: status_value generations 0 state.
status_value() {
	ctl status --json | json_value - "$@"
}

# status_is VALUE KEY...: for wait_for.
status_is() {
	[[ $(status_value "${@:2}") == "$1" ]]
}

# --- Load -----------------------------------------------------------------------------------------------------------

# start_load TARGET OPTIONS...: load in the background, until finish_load or its own --duration (60s).
start_load() {
	local target=$1
	shift
	: >"$LOAD_MARKS"
	"$LOAD_BIN" --target "$target" --duration 60s --marks "$LOAD_MARKS" "$@" </dev/null >"$LOAD_JSON" \
		2>"$LOAD_JSON.err" 3>&- &
	LOAD_PID=$!
	started_pids+=("$LOAD_PID")
	# A TERM before it has taken over its signals would leave no report.
	wait_for grep -q '^load: running' "$LOAD_JSON.err"
}

# mark_load start|end: around a hand-off.
mark_load() {
	echo "$1 $("$LOAD_BIN" --now)" >>"$LOAD_MARKS"
}

# Ends the schedule, waits for what is in flight, and fails if any request failed. The report: load_value.
finish_load() {
	kill -TERM "$LOAD_PID" 2>/dev/null || true
	wait_exit "$LOAD_PID" || return
	LOAD_PID=
	[[ $EXIT_STATUS == 0 ]] || {
		cat "$LOAD_JSON" "$LOAD_JSON.err" >&2
		return 1
	}
}

# json_value FILE KEY...: a value of a JSON file; - for stdin. Numbers in KEY index arrays.
json_value() {
	python3 -c '
import json, sys
value = json.load(sys.stdin if sys.argv[1] == "-" else open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[int(key)] if isinstance(value, list) else value[key]
print(value if isinstance(value, str) else json.dumps(value))
' "$@" 3>&-
}

# load_value KEY...: of the last finished load: load_value keepalive reset.
load_value() {
	json_value "$LOAD_JSON" "$@"
}

# --- Stopping -------------------------------------------------------------------------------------------------------

# Living processes of this test, wherever they went: "PID command". Not the shells of the test itself.
survivors() {
	local environ pid
	# shellcheck disable=SC2013 # these paths have no blanks
	for environ in $(grep -lsF -- "TEST_OF_HANDOFF=$TEST_OF_HANDOFF" /proc/[0-9]*/environ); do
		pid=${environ#/proc/}
		pid=${pid%/environ}
		[[ $pid != "$BASHPID" && $pid != "$$" ]] || continue
		is_gone "$pid" || echo "$pid $(tr '\0' ' ' <"/proc/$pid/cmdline")"
	done 2>/dev/null
}

all_gone() {
	local pid
	for pid in "$@"; do
		is_gone "$pid" || return 1
	done
}

# For teardown: TERM to what was started, KILL to what is left of it at the deadline; then nothing of the test may be
# alive. A survivor is killed, by its pid, and fails the test.
stop_all() {
	local pid left failed=0
	for pid in "${started_pids[@]}"; do
		kill -TERM "$pid" 2>/dev/null || true
		# Only where it is stopped: leak detection at exit relies on a SIGSTOP, which a SIGCONT would undo.
		[[ $(process_state "$pid") != T ]] || kill -CONT "$pid" 2>/dev/null || true
	done
	if ((${#started_pids[@]})) && ! wait_for -t 20 all_gone "${started_pids[@]}"; then
		echo "had to be killed: ${started_pids[*]}" >&2
		kill -KILL "${started_pids[@]}" 2>/dev/null || true
		failed=1
	fi
	for pid in "${started_pids[@]}"; do
		wait "$pid" 2>/dev/null || true
	done
	started_pids=()
	left=$(survivors)
	if [[ -n $left ]]; then
		printf 'survived the test:\n%s\n' "$left" >&2
		while read -r pid _; do
			kill -KILL "$pid" 2>/dev/null || true
		done <<<"$left"
		failed=1
	fi
	return "$failed"
}
