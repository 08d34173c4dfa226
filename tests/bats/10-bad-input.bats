#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What is wrong with the options, the addresses or the surroundings is said in one sentence that names it: 125, nothing
# is started, nothing stays bound, nothing is left behind; and `check` finds the same without a start.
# shellcheck disable=SC2030,SC2031,SC2154 # every test is a subshell of its own; common_setup sets variables

load ../lib/helpers

setup() {
	common_setup
	cd "$BATS_TEST_TMPDIR" || return
	STARTED="$BATS_TEST_TMPDIR/started"
	WRAPPER=()
}

teardown() {
	stop_all
}

# attempt WORDS...: handoff with these words, to its end; exit status in CODE, what it wrote in the files out and err.
# WRAPPER, if set, is put before it.
attempt() {
	CODE=0
	timeout 20 "${WRAPPER[@]}" "$HANDOFF_BIN" "$@" </dev/null >out 2>err 3>&- || CODE=$?
}

complain() {
	echo "$*: exit status $CODE, stdout and stderr:"
	cat out err
	return 1
}

# The words of the only line of err, without our name before them, are in SENTENCE.
read_sentence() {
	(($(wc -l <err) == 1)) || complain "not one line" || return
	SENTENCE=$(sed -n -E 's/^handoff: ([^ ]+: )?error: //p' err)
	[[ -n $SENTENCE ]] || complain "no error line"
}

# The words of the only error among the lines of err, of a server that could not be started, are in SENTENCE.
read_start_failure() {
	(($(grep -c 'error: ' err) == 1)) || complain "not one error" || return
	SENTENCE=$(sed -n -E 's/^handoff: [^ ]+: \[gen 1\] error: failed to start: //p' err)
	[[ -n $SENTENCE ]] || complain "no error line"
}

# refuses PATTERN OPTIONS...: `run` and `check` with these options give one and the same line, which matches the glob
# PATTERN, and 125.
refuses() {
	local pattern=$1 word first=''
	shift
	for word in run check; do
		attempt "$word" "$@" -- touch "$STARTED"
		[[ $CODE == 125 && ! -s out ]] || complain "$word $*" || return
		read_sentence || return
		# shellcheck disable=SC2053 # a pattern
		[[ $SENTENCE == $pattern ]] || complain "$word $*: not \"$pattern\"" || return
		[[ -z $first || $SENTENCE == "$first" ]] || complain "$word $*: not as run: \"$first\"" || return
		first=$SENTENCE
	done
	[[ ! -e $STARTED ]] || complain "started something: $*"
}

# refuses_start STATUS PATTERN OPTIONS...: as refuses, for what a start looks at anew each time, so that `run` says it
# as the failure of generation 1, with its own STATUS.
refuses_start() {
	local status=$1 pattern=$2 sentence
	shift 2
	attempt check "$@"
	[[ $CODE == 125 && ! -s out ]] || complain "check $*" || return
	read_sentence || return
	# shellcheck disable=SC2053 # a pattern
	[[ $SENTENCE == $pattern ]] || complain "check $*: not \"$pattern\"" || return
	sentence=$SENTENCE
	attempt run "$@"
	[[ $CODE == "$status" && ! -s out ]] || complain "run $*" || return
	read_start_failure || return
	[[ $SENTENCE == "$sentence" ]] || complain "run $*: not as check: \"$sentence\"" || return
	[[ ! -e $STARTED ]] || complain "started something: $*"
}

# hold PYTHON: a process that holds what that makes in `s`; its pid in HOLDER.
hold() {
	start_background "$BATS_TEST_TMPDIR/holder.log" python3 -c "
import signal, socket, sys
$1
print('holding', flush=True)
signal.pause()" "${@:2}"
	HOLDER=$STARTED_PID
	wait_log '^holding$' 1 "$BATS_TEST_TMPDIR/holder.log"
}

@test "a missing, empty or misplaced command is named, with the way to write it" {
	local words
	for words in '' 'run' 'run --' '-l 127.0.0.1:0' 'run -l 127.0.0.1:0 --'; do
		# shellcheck disable=SC2086 # words
		attempt $words
		assert_equal "$CODE" 125
		read_sentence
		[[ $SENTENCE == "the command to run is missing: handoff run [OPTIONS] -- COMMAND [ARG...]" ]]
	done
	attempt run -- ''
	assert_equal "$CODE" 125
	read_sentence
	[[ $SENTENCE == *"empty word"* ]]
	attempt -l 127.0.0.1:0 check
	assert_equal "$CODE" 125
	read_sentence
	[[ $SENTENCE == '"check" is a word of handoff'*'before the options'* ]]
}

@test "an unknown option is named, with the nearest known one" {
	refuses 'unknown option --bogus; handoff --help lists them' --bogus
	refuses 'unknown option -q; *' -q
	refuses 'unknown option --liste; did you mean --listen?' --liste :0
	refuses 'unknown option --list; did you mean --listen?' --list=:0
	refuses 'unknown option --Listen; did you mean --listen?' --Listen :0
	refuses 'unknown option -listen; write --listen' -listen :0
	refuses 'unknown option --drain-timout; did you mean --drain-timeout?' --drain-timout 5s
	refuses 'unknown option --\\x0a\\x1b\[; *' $'--\n\e['
}

@test "an option without its value, or with one too many, is named" {
	local option
	for option in listen name ready ready-timeout settle drain-signal drain-to drain-timeout max-draining \
		kill-timeout restart restart-delay restart-delay-max max-restarts chdir env env-file env-dir user group \
		umask rlimit signal notify-fd pid-file log-format log-level; do
		refuses "--$option needs a value, but the next word is --" "--$option"
		refuses "--$option needs a value, but the next word is --capture" "--$option" --capture
		refuses "--$option \"\": the value is empty; write --$option *" "--$option" ''
		refuses "--$option \"\": the value is empty; write --$option *" "--$option="
		attempt run "--$option"
		assert_equal "$CODE" 125
		read_sentence
		[[ $SENTENCE == "--$option needs a value: --$option "* ]]
	done
	for option in no-new-privs die-with-supervisor capture help version; do
		refuses "--$option takes no value, but was written --$option=yes" "--$option=yes"
	done
}

@test "an option given twice that takes one value is named" {
	refuses '--name "b": --name was given before*' -n a --name b
	refuses '--settle "2s": --settle was given before*' --settle 1s --settle 2s
	refuses '--pid-file "b": --pid-file was given before*' --pid-file a --pid-file b
	refuses '--rlimit "core=2": that limit was given before' --rlimit core=1 --rlimit nofile=9 --rlimit core=2
	refuses '--signal "TERM=kill": that signal was given an action before' --signal SIGTERM=stop --signal TERM=kill
	[[ ! -e a && ! -e b ]]
}

@test "a bad duration is named for each option that takes one" {
	local option
	for option in ready-timeout settle drain-timeout kill-timeout restart-delay restart-delay-max; do
		refuses "--$option \"5\": a number alone is no duration: add a unit, as in 5s" "--$option" 5
		refuses "--$option \"-1s\": *negative*" "--$option=-1s"
		refuses "--$option \"1.5s\": *whole number*1500ms*" "--$option" 1.5s
		refuses "--$option \"5d\": the unit must be ms, s, m or h*" "--$option" 5d
		refuses "--$option \"5s \": the unit must be *" "--$option" '5s '
		refuses "--$option \"soon\": must be a duration such as 500ms*" "--$option" soon
		refuses "--$option \"99999999999999999999s\": must not be longer than 10 years*" "--$option" 99999999999999999999s
	done
	refuses '--ready-timeout "0": nothing can be ready in no time*none*' --ready-timeout 0
	refuses '--settle "none": *to drain it at once write 0' --settle none
	refuses '--restart-delay "0": must be at least 1ms*' --restart-delay 0
	refuses '--restart-delay "none": *' --restart-delay none
	refuses '--restart-delay-max "none": must be a time*' --restart-delay-max none
	refuses '--restart-delay-max is 1000ms, below --restart-delay, which is 5000ms' \
		--restart-delay 5s --restart-delay-max 1s
}

@test "a bad number or word is named, with what is allowed" {
	refuses '--max-draining "0": must be a whole number from 1 to 64' --max-draining 0
	refuses '--max-draining "65": must be *' --max-draining 65
	refuses '--max-draining "many": must be *' --max-draining many
	refuses '--max-restarts "-1": must be a whole number from 0 *' --max-restarts -1
	refuses '--max-restarts "99999999999": must be *' --max-restarts 99999999999
	refuses '--notify-fd "2": must be a whole number from 3 *' --notify-fd 2
	refuses '--notify-fd "x": must be *' --notify-fd x
	refuses '--notify-fd: descriptor 99 is not open' --notify-fd 99
	refuses '--drain-to "all": must be auto, main or group' --drain-to all
	refuses '--restart "alway": must be always, on-failure or never; did you mean always?' --restart alway
	refuses '--log-format "xml": must be text or json' --log-format xml
	refuses '--log-level "loud": must be error, warning, info or debug' --log-level loud
	refuses '--name "a/b": must be up to 64 letters*' --name a/b
	refuses '--name "-x": must be *' --name=-x
	refuses '--name "a\\x0ab\\x1b": must be *' --name $'a\nb\e'
}

@test "a bad --ready is named" {
	refuses '--ready "sometimes": not one of auto, pipe, *' --ready sometimes
	refuses '--ready "delay": a duration must follow, as in delay:2s' --ready delay
	refuses '--ready delay "5": a number alone is no duration*' --ready delay:5
	refuses '--ready "delay:none": it would never be ready' --ready delay:none
	refuses '--ready "exec:": a command must follow*' --ready exec:
	refuses '--ready "exec: ": a command must follow*' --ready 'exec: '
	refuses '--ready "pipe:3": nothing may follow pipe' --ready pipe:3
	refuses '--ready "listen": comes with adoption, which this version lacks' --ready listen
	refuses '--ready "accepting": needs a --listen *' --ready accepting
	refuses '--ready "accepting": needs a --listen *' --ready accepting -l udp:127.0.0.1:0
	refuses '--ready "nonsense": not one of *' --ready pipe --ready nonsense
}

@test "a bad signal is named" {
	refuses '--drain-signal "KILLL": there is no such signal; did you mean KILL?' --drain-signal KILLL
	refuses '--drain-signal "999": must be a signal, by name *' --drain-signal 999
	refuses '--drain-signal "0": must be a signal*' --drain-signal 0
	refuses '--drain-signal "STOP": would freeze the old server, not drain it' --drain-signal STOP
	refuses '--drain-signal "CHLD": *' --drain-signal CHLD
	refuses '--signal "TERM": must be SIG=ACTION, as in TERM=stop' --signal TERM
	refuses '--signal "USR3": there is no such signal; did you mean USR1?' --signal USR3=stop
	refuses '--signal *explode*: the action must be reload, stop, *' --signal TERM=explode
	refuses '--signal "USR3": there is no such signal*' --signal TERM=forward:USR3
	refuses '--signal "KILL=stop": the kernel lets nobody catch that signal' --signal KILL=stop
	refuses '--signal "CHLD=ignore": *needed*' --signal CHLD=ignore
	refuses '--signal "SEGV=ignore": *fault*' --signal SEGV=ignore
}

@test "a bad user, group, umask or limit is named" {
	refuses '--user "nosuchuser": there is no such user' --user nosuchuser
	refuses '--user "root:root": must be a user alone*' --user root:root
	refuses '--group "nosuchgroup": there is no such group' --group nosuchgroup
	refuses '--umask "8": must be an octal mode*' --umask 8
	refuses '--umask "1777": must be from 0000 to 0777' --umask 1777
	refuses '--rlimit "nofile": must be NAME=N, as in nofile=65536' --rlimit nofile
	refuses '--rlimit "files": must be as, core, *' --rlimit files=1
	refuses '--rlimit *x*: a limit must be a number, or unlimited, *' --rlimit nofile=x
	refuses '--rlimit "nofile=5:3": the soft limit is above the hard one' --rlimit nofile=5:3
}

@test "a bad TCP or UDP address is named, with the way to write it" {
	refuses '--listen "8080": a port has a colon before it: write :8080' -l 8080
	refuses '--listen ":99999": the port "99999" is not a number from 0 to 65535' -l :99999
	refuses '--listen ":http": the port "http" is not a number*' -l :http
	refuses '--listen "127.0.0.1": the port is missing: write 127.0.0.1:PORT' -l 127.0.0.1
	refuses '--listen "127.0.0.1:": the port is missing*' -l 127.0.0.1:
	refuses '--listen "127.1:80": "127.1" is not an IPv4 address' -l 127.1:80
	refuses '--listen "::1:80": an IPv6 address stands in brackets*' -l ::1:80
	refuses '--listen "\[::1]": the port is missing*' -l '[::1]'
	refuses '--listen "\[::1:80": the closing bracket is missing' -l '[::1:80'
	refuses '--listen "\[::zz]:80": "::zz" in the brackets is not an IPv6 address' -l '[::zz]:80'
	refuses '--listen "*:80": the wildcard is written without an address, as in :8080' -l '*:80'
	refuses '--listen "http://localhost:80": is not a URL*' -l http://localhost:80
	refuses '--listen "tcp:127.0.0.1:80": TCP has no prefix: write 127.0.0.1:80' -l tcp:127.0.0.1:80
	refuses '--listen "udp:": the address is missing' -l udp:
	refuses '--listen "udp:53": a port has a colon before it: write udp::53' -l udp:53
	refuses '--listen "=:0": the name before = is missing' -l =:0
	refuses '--listen "a b=:0": a name is made of *' -l 'a b=:0'
	refuses '--listen "127.0.0.1:0\\x0a": the port *' -l $'127.0.0.1:0\n'
	refuses '--listen "0:": *' -l 127.0.0.1:0 -l 0:
}

@test "an address that no host here has, or a name that nobody knows, is named" {
	refuses 'cannot listen on 203.0.113.7:8080: 203.0.113.7:8080 is no address of this host*freebind*' \
		-l 203.0.113.7:8080
	refuses 'cannot listen on no-host.invalid:80: cannot resolve "no-host.invalid": *' -l no-host.invalid:80
}

@test "a bad unix, fd or systemd listen is named" {
	refuses '--listen "unix:": the path is missing*' -l unix:
	refuses '--listen "unix:@": the path is missing*' -l unix:@
	refuses '--listen "unixgram:": the path is missing*' -l unixgram:
	refuses '--listen "unix:/tmp/": the path names a folder, not a socket' -l unix:/tmp/
	refuses '--listen "/tmp/sock": a unix socket is written unix:/tmp/sock' -l /tmp/sock
	refuses '--listen "unix:/*x": the path has 115 bytes, and the kernel takes 107 at most' \
		-l "unix:/$(printf '%0114d' 0 | tr 0 x)"
	refuses '--listen "fd:2": must be fd: and the number of an inherited descriptor, 3 or above' -l fd:2
	refuses '--listen "fd:x": must be fd: *' -l fd:x
	refuses 'cannot listen on fd:77: descriptor 77 is not open' -l fd:77
	refuses '--listen "systemd:": the name is missing*' -l systemd:
	refuses 'cannot listen on systemd: no sockets were passed to us (LISTEN_FDS is not set)' -l systemd
	refuses 'cannot listen on systemd:web: no sockets were passed to us*' -l systemd:web
}

@test "an inherited descriptor that is no socket is named" {
	local word
	for word in run check; do
		attempt "$word" -l fd:9 -- touch "$STARTED" 9</dev/null
		assert_equal "$CODE" 125
		read_sentence
		[[ $SENTENCE == "cannot listen on fd:9: "*"socket"* ]] || complain "$word"
	done
	[[ ! -e $STARTED ]]
}

@test "a bad option of an address is named" {
	refuses '--listen ":0?": an option is empty*' -l ':0?'
	refuses '--listen ":0?backlog": backlog needs a value*' -l ':0?backlog'
	refuses '--listen ":0?backlog=0": backlog "0": must be a whole number from 1 *' -l ':0?backlog=0'
	refuses '--listen ":0?backlog=1&backlog=2": backlog is given twice' -l ':0?backlog=1&backlog=2'
	refuses '--listen ":0?bakclog=1": there is no option "bakclog"; did you mean backlog?' -l ':0?bakclog=1'
	refuses '--listen ":0?v6only=maybe": v6only "maybe": must be yes or no' -l ':0?v6only=maybe'
	refuses '--listen "127.0.0.1:0?v6only": v6only is for IPv6 and the wildcard only' -l '127.0.0.1:0?v6only'
	refuses '--listen ":0?mode=0600": mode is for unix: and unixgram: paths only' -l ':0?mode=0600'
	refuses '--listen "unix:q?mode=999": mode "999": must be an octal mode*' -l 'unix:q?mode=999'
	refuses '--listen "unix:q?user=nosuch": user "nosuch": there is no such user' -l 'unix:q?user=nosuch'
	refuses '--listen "unix:q?group=nosuch": group "nosuch": there is no such group' -l 'unix:q?group=nosuch'
	refuses '--listen "unix:@q?mode=600": mode is for unix: paths only*' -l 'unix:@q?mode=600'
	refuses '--listen "unix:q?nodelay": nodelay is for TCP addresses only' -l 'unix:q?nodelay'
	refuses '--listen ":0?defer-accept=1500ms": defer-accept "1500ms": must be whole seconds*' -l ':0?defer-accept=1500ms'
	refuses '--listen ":0?rcvbuf=-1": rcvbuf "-1": *' -l ':0?rcvbuf=-1'
	refuses '--listen ":0?nonblock=1": nonblock "1": must be yes or no' -l ':0?nonblock=1'
	refuses '--listen "udp::0?backlog=5": backlog is for TCP and unix: addresses only' -l 'udp::0?backlog=5'
	[[ ! -e q ]]
}

@test "a unix path that is a file, a folder or in no folder is named, and left alone" {
	echo precious >file
	mkdir folder
	ln -s file link
	refuses "cannot listen on unix:file: * is a file, not a socket: it is left alone" -l unix:file
	refuses "cannot listen on unix:folder: * is a folder, not a socket: it is left alone" -l unix:folder
	refuses "cannot listen on unix:link: *" -l unix:link
	refuses "cannot listen on unix:nowhere/s: *No such file or directory" -l unix:nowhere/s
	refuses "cannot listen on unix:file/s: *" -l unix:file/s
	assert_equal "$(cat file)" precious
	[[ -d folder && -L link ]]
}

@test "a second bad listener leaves the first one unbound and its path removed" {
	local port
	port=$(free_port)
	refuses "cannot listen on unix:nowhere/s: *" -l "127.0.0.1:$port" -l unix:first -l unix:nowhere/s
	[[ ! -e first ]]
	# Whatever held it would be named here.
	attempt check -l "127.0.0.1:$port" -l unix:first
	assert_equal "$CODE" 0
}

@test "two listeners of one address are named" {
	local port
	port=$(free_port)
	refuses "cannot listen on 127.0.0.1:$port: 127.0.0.1:$port is in use by another of our listeners" \
		-l "127.0.0.1:$port" -l "127.0.0.1:$port"
	refuses "cannot listen on 0.0.0.0:$port: *in use by another of our listeners*" \
		-l ":$port" -l "0.0.0.0:$port"
	refuses "cannot listen on unix:$PWD/s: *another of our listeners*" -l unix:s -l "unix:$PWD/s"
}

@test "an address in use is named with the pid that holds it" {
	hold 's = socket.create_server(("127.0.0.1", 0)); print("port", s.getsockname()[1])'
	local port
	port=$(sed -n 's/^port //p' holder.log)
	refuses "cannot listen on 127.0.0.1:$port: 127.0.0.1:$port is in use by python3* (pid $HOLDER)" \
		-l "127.0.0.1:$port"
	refuses "cannot listen on :$port: *:$port is in use by python3* (pid $HOLDER)" -l ":$port"
}

@test "a UDP address in use is named with the pid that holds it" {
	hold 's = socket.socket(type=socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0)); print("port", s.getsockname()[1])'
	local port
	port=$(sed -n 's/^port //p' holder.log)
	refuses "cannot listen on udp:127.0.0.1:$port: 127.0.0.1:$port is in use by python3* (pid $HOLDER)" \
		-l "udp:127.0.0.1:$port"
}

@test "a unix path that somebody listens on is named with the pid that holds it, and stays" {
	hold 's = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()' "$PWD/sock"
	refuses "cannot listen on unix:$PWD/sock: $PWD/sock is in use by python3* (pid $HOLDER)" -l "unix:$PWD/sock"
	[[ -S sock ]]
}

@test "an address that another supervisor holds is named with the pid of that supervisor" {
	local port
	port=$(free_port)
	start_handoff -l "127.0.0.1:$port" -- "$TS_BIN"
	wait_log 'active'
	refuses "cannot listen on 127.0.0.1:$port: *in use by * (pid $HANDOFF_PID)" -l "127.0.0.1:$port"
	generation_is 1 "http://127.0.0.1:$port/"
}

@test "a port that only root may bind is named, with the permission that is missing" {
	# A network of its own, where nobody has changed ip_unprivileged_port_start, and root without that capability.
	WRAPPER=(unshare --map-root-user --net setpriv --bounding-set=-net_bind_service)
	refuses 'cannot listen on :81: permission denied for *:81: *1024*CAP_NET_BIND_SERVICE' -l :81
	refuses 'cannot listen on udp:127.0.0.1:81: permission denied for 127.0.0.1:81: *' -l udp:127.0.0.1:81
}

@test "a folder without write permission is named" {
	WRAPPER=(unshare --map-root-user setpriv '--bounding-set=-dac_override,-dac_read_search')
	mkdir closed
	chmod 500 closed
	refuses 'cannot listen on unix:closed/s: *Permission denied' -l unix:closed/s
	refuses "cannot create pid file $PWD/closed/pid: Permission denied" --pid-file closed/pid
	chmod 700 closed
	rmdir closed
}

@test "a pid file that is something else is named, and left alone" {
	echo hello >text
	: >empty
	printf '12 34\n' >two
	printf '99999999999999\n' >large
	mkdir folder
	echo 4194305 >stale
	ln -s stale link
	mkfifo fifo
	local file
	for file in text empty two large; do
		refuses "pid file $PWD/$file holds something other than a pid, and is left alone" --pid-file "$file"
	done
	for file in folder link fifo; do
		refuses "pid file $PWD/$file is not a regular file, and is left alone" --pid-file "$file"
	done
	refuses "pid file /dev/null is not a regular file, and is left alone" --pid-file /dev/null
	refuses "cannot create pid file $PWD/nowhere/pid: No such file or directory" --pid-file nowhere/pid
	refuses "*pid file $PWD/text/pid: Not a directory" --pid-file text/pid
	assert_equal "$(cat text two)" $'hello\n12 34'
	assert_equal "$(echo *)" "empty err fifo folder large link out run stale text two"
}

@test "a pid file in use is named with its pid, and stays" {
	start_handoff --pid-file "$PWD/pid" -l 127.0.0.1:0 -- "$TS_BIN"
	wait_log 'active'
	refuses "pid file $PWD/pid belongs to a running process, pid $HANDOFF_PID" --pid-file pid -l unix:other
	assert_equal "$(cat pid)" "$HANDOFF_PID"
	[[ ! -e other ]]
	kill -INT "$HANDOFF_PID"
	wait_exit "$HANDOFF_PID"
	assert_equal "$EXIT_STATUS" 0
	[[ ! -e pid ]]
}

@test "a stale pid file is replaced" {
	local pid
	(exit 0) &
	pid=$!
	wait "$pid"
	echo "$pid" >pid
	attempt check --pid-file pid -l 127.0.0.1:0
	assert_equal "$CODE" 0
	assert_equal "$(cat pid)" "$pid"
	start_handoff --pid-file "$PWD/pid" -l 127.0.0.1:0 -- "$TS_BIN"
	wait_log 'active'
	assert_equal "$(cat pid)" "$HANDOFF_PID"
}

@test "a pid file on a full disk is named, and nothing of it is left" {
	mkdir disk
	# shellcheck disable=SC2016 # of that shell
	WRAPPER=(unshare --map-root-user --mount sh -c
		'mount -t tmpfs -o size=4k none disk && head -c 4096 /dev/zero >disk/full && "$@"; s=$?; ls disk >left; exit $s' -)
	attempt run --pid-file disk/pid -- touch "$STARTED"
	assert_equal "$CODE" 125
	read_sentence
	assert_equal "$SENTENCE" "cannot create pid file $PWD/disk/pid: No space left on device"
	assert_equal "$(cat left)" full
	[[ ! -e $STARTED ]]
}

@test "a bad environment file is named with its line, and none of its text is shown" {
	local fd='-l 127.0.0.1:0' case number=0
	local -a texts=(
		'secret' 'must be NAME=VALUE' 1
		$'A=1\n\nsecret-name=2' 'what is before the = is not a name*' 3
		$'# text\n1A=secret' 'what is before the = is not a name*' 2
		$'A="secret\nB=2\n' 'the quote is never closed' 1
		$'A="x" secret' 'there is text behind the closing quote' 1
		'LISTEN_FDS=3' 'LISTEN_FDS is reserved*' 1
		'NOTIFY_SOCKET=secret' 'NOTIFY_SOCKET is reserved*' 1
	)
	for ((case = 0; case < ${#texts[@]}; case += 3)); do
		number=$((number + 1))
		printf '%s' "${texts[case]}" >"env$number"
		# shellcheck disable=SC2086 # two words
		refuses_start 125 "--env-file env$number, line ${texts[case + 2]}: ${texts[case + 1]}" $fd \
			--env-file "env$number" -- touch "$STARTED"
		[[ $SENTENCE != *secret* ]]
	done
	printf 'A=1\nB=\0\n' >nul
	refuses_start 125 '--env-file nul, line 2: there is a NUL byte' --env-file nul -- touch "$STARTED"
}

@test "an environment file or folder that cannot be read is named" {
	mkdir folder
	mkfifo fifo
	echo A=1 >good
	truncate -s 2M large
	refuses_start 125 '--env-file none: No such file or directory' --env-file none -- touch "$STARTED"
	refuses_start 125 '--env-file folder: *' --env-file folder -- touch "$STARTED"
	refuses_start 125 '--env-file fifo: not a regular file' --env-file fifo -- touch "$STARTED"
	refuses_start 125 '--env-file large: larger than 1 MiB' --env-file large -- touch "$STARTED"
	refuses_start 125 '--env-file none: *' --env-file good --env-file none -- touch "$STARTED"
	refuses_start 125 '--env-dir none: No such file or directory' --env-dir none -- touch "$STARTED"
	refuses_start 125 '--env-dir good: Not a directory' --env-dir good -- touch "$STARTED"
	echo x >folder/LISTEN_PID
	refuses_start 125 '--env-dir */folder: LISTEN_PID is reserved*' --env-dir folder -- touch "$STARTED"
	mv folder/LISTEN_PID folder/a=b
	refuses_start 125 '--env-dir */folder: the file name "a=b" has a =' --env-dir folder -- touch "$STARTED"
	rm folder/a=b
	mkdir folder/SUB
	refuses_start 125 '--env-dir */folder/SUB: *' --env-dir folder -- touch "$STARTED"
	chmod 000 good
	WRAPPER=(unshare --map-root-user setpriv '--bounding-set=-dac_override,-dac_read_search')
	refuses_start 125 '--env-file good: Permission denied' --env-file good -- touch "$STARTED"
}

@test "a bad --env is named" {
	refuses '--env FOO: must be NAME=VALUE' --env FOO
	refuses '--env*: "" is not a name*' --env =x
	refuses '--env*"1A" is not a name*' --env 1A=x
	refuses '--env: LISTEN_FDS is reserved*' --env LISTEN_FDS=3
}

@test "a working folder that is not there is named" {
	: >file
	refuses_start 126 'cannot change to /no/where: No such file or directory' --chdir /no/where -- touch "$STARTED"
	refuses_start 126 "cannot change to $PWD/file: Not a directory" --chdir file -- touch "$STARTED"
}

@test "a command that cannot run is named: 127 where it is missing, 126 where it may not run" {
	printf 'exit 0\n' >plain
	refuses_start 127 'cannot exec ./missing: No such file or directory' -l 127.0.0.1:0 -- ./missing
	refuses_start 127 'cannot exec no-such-command: No such file or directory in the folders of PATH' \
		-l 127.0.0.1:0 -- no-such-command
	refuses_start 126 'cannot exec ./plain: Permission denied' -- ./plain
	refuses_start 126 'cannot exec /: Permission denied' -- /
	refuses_start 126 'cannot exec ./plain/x: Not a directory' -- ./plain/x
	# Only a start can tell this one.
	printf '#!/no/such/interpreter\n' >script
	chmod +x script
	attempt run -- ./script
	assert_equal "$CODE" 127
	read_start_failure
	[[ $SENTENCE == "cannot exec ./script: the file is there, but its interpreter is not "* ]]
}

@test "a word of the command that asks for a listener that is not there is named" {
	refuses_start 125 '*{fd:web}*' -l api=127.0.0.1:0 -- touch "$STARTED" '{fd:web}'
	refuses_start 125 '*{fd}*' -- touch "$STARTED" '{fd}'
}

@test "check accepts what run would, starts nothing and leaves nothing" {
	local port
	port=$(free_port)
	attempt check --pid-file pid -l "web=127.0.0.1:$port" -l unix:sock -l unix:@abstract -l udp:127.0.0.1:0 \
		--ready pipe --ready-timeout 5s --env A=1 -- touch "$STARTED" '{fd:web}'
	[[ $CODE == 0 && ! -s out && ! -s err ]] || complain check
	[[ ! -e $STARTED && ! -e pid && ! -e sock ]]
	attempt check -l "127.0.0.1:$port"
	[[ $CODE == 0 && ! -s err ]] || complain check
	attempt check
	assert_equal "$CODE" 0
}

@test "help and the version go to stdout, and a stdout that takes nothing is named" {
	local words
	for words in --help -h help 'run --help' --version -V version; do
		# shellcheck disable=SC2086 # words
		attempt $words
		[[ $CODE == 0 && -s out && ! -s err ]] || complain "$words"
		CODE=0
		# shellcheck disable=SC2086 # words
		"$HANDOFF_BIN" $words >/dev/full 2>err 3>&- || CODE=$?
		assert_equal "$CODE" 125
		read_sentence
		assert_equal "$SENTENCE" "cannot write to standard output: No space left on device"
		CODE=0
		# shellcheck disable=SC2086 # words
		"$HANDOFF_BIN" $words >&- 2>err 3>&- || CODE=$?
		assert_equal "$CODE" 125
		read_sentence
		assert_equal "$SENTENCE" "cannot write to standard output: Bad file descriptor"
	done
}

@test "a sentence about a very long word is still one line" {
	local long
	long=$(printf '%04000d' 0 | tr 0 x)
	refuses '--listen "*' -l "$long"
	refuses '--name "*' -n "$long"
	refuses '--settle "*' --settle "$long"
	refuses 'unknown option --x*' "--$long"
}
