#!/usr/bin/env bash
# run_demo.sh: installs what is missing, builds, and plays scenes that show what weir does. See ./run_demo.sh --help.
#
# A scene starts its own servers, its own weir and its own clients, all on free ports of this machine, shows what
# happened and checks it. What a scene claims, it asserts: the script ends with 0 only if every check of every scene
# held. Nothing here waits for "long enough": each wait is for an event, and has a deadline after which the scene has
# failed.
#
#       client_demo ──► weir ──┬──► server_demo target1         each answer says X-Target: targetN,
#                              ├──► server_demo target2         so the client can tell who gave it
#                              └──► ...
set -euo pipefail
export LC_ALL=C # a decimal point is a point, here and in awk

here=$(cd "$(dirname "$0")" && pwd)
bin=$here
builds=yes
slow=no keep=no
terminals='' # or what to show in terminals: packet, reverse
attaches=no
scenes=()

# ---- the scenes, as --list shows them
# ------------------------------------------------------------------------------------

scene_titles=(
	"Taking turns: ten requests over five targets"
	"A target dies under load, and comes back"
	"A sidecar before a server that may take five a second"
	"A line fills and empties"
	"One greedy client among polite ones"
	"The message switch: four servers, two policies, six clients"
	"The message switch: whose turn it is"
	"The message switch: a server is killed under load, and revived"
	"Three workers share a cap through Redis, and one is killed"
	"Three nodes share one threshold, and their master is killed"
	"One stream of bytes, seen from both sides"
	"A thread for each connection: slow clients hold nobody up"
	"One request in many pieces, two requests in one"
	"The way out: a tunnel, and a cap on a host"
	"TLS: who it is, and nobody reads along"
	"Hostile bytes: two readings of one request, and a head without an end"
	"How fast, and what it costs"
	"The road of one request, file by file"
)
# The chapters of the guide (docs/) that each scene belongs to.
scene_chapters=(
	"chapter 4" "chapter 5" "chapter 6" "chapter 7" "chapter 7" "chapter 4" "chapter 4" "chapter 5" "chapter 8"
	"chapters 9 and 10" "chapter 1" "chapter 2" "chapter 3" "chapter 8" "chapter 11" "chapter 12" "chapter 13" "chapter 14"
)

usage() {
	cat <<-END
		run_demo.sh [--scene N]... [--slow] [--keep] [--list] [--terminals[=packet|reverse]] [--bin DIR] [--help]

		Installs what is missing (Debian packages, saying which), builds weir, and plays the scenes. Ends with 0 if
		everything that the scenes claim was seen to be so, with 1 if not.

		  --scene N    play this scene only; may be repeated
		  --list       print the scenes, and the chapters of the guide that they belong to, and exit
		  --slow       for an audience: wait for Enter between the scenes, before commands and events
		  --keep       leave what the last scene started running, and say where it is and how to end it
		  --terminals  no scenes: proxy, servers and clients, each in a pane of a tmux session, to be ended and
		               started there by hand; Ctrl-b d ends all. Without a terminal the panes are only checked.
		               --terminals is --terminals=packet (the message switch); =reverse shows the HTTP proxy.
		  --bin DIR    take weir, server_demo and client_demo from DIR; install and build nothing
		  --help       print this and exit

		Ctrl-C ends the demo and everything that it started.
	END
}

list_scenes() {
	local i
	for i in "${!scene_titles[@]}"; do
		printf '%2d  %s (%s)\n' $((i + 1)) "${scene_titles[i]}" "${scene_chapters[i]}"
	done
}

# ---- saying things
# -------------------------------------------------------------------------------------------------------

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
	letter_colours=($'\e[31m' $'\e[32m' $'\e[33m' $'\e[34m' $'\e[35m' $'\e[36m')
else
	bold='' green='' red='' plain=''
	letter_colours=('' '' '' '' '' '')
fi

failed_checks=0

# wrong LINE...: one line on stderr, exit 2.
wrong() {
	echo "run_demo.sh: $*" >&2
	exit 2
}

# fail LINE: something the scenes need did not happen at all, so there is no going on.
fail() {
	echo "${red}run_demo.sh: $*${plain}" >&2
	exit 1
}

# check TEXT COMMAND...: the claim, and the command that succeeds if it is true.
check() {
	local text=$1
	shift
	if "$@"; then
		echo "  ${green}ok${plain}    $text"
	else
		echo "  ${red}FAILED${plain} $text"
		failed_checks=$((failed_checks + 1))
	fi
}

# show_command LINE: as one would type it. With --slow it runs when Enter is pressed.
show_command() {
	echo "  $bold\$ $*$plain"
	pause
}

# pause [WHAT]: with --slow, says what Enter does and waits for it; then the line is gone again. A process of its own
# reads: while bash reads itself it may hear of a Ctrl-C only when the reading has ended.
pause() {
	[ $slow = yes ] || return 0
	printf '  [Enter%s] ' "${1:+: $1}" >&2
	read -r _ <&0 &
	pid_of[enter]=$!
	wait_until 1000000 has_ended enter
	if wait "${pid_of[enter]}"; then
		printf '\e[A\e[K' >&2
	else
		echo >&2
	fi
	unset 'pid_of[enter]'
}

# Prints "target3" lines as "3", in a row and in the target's colour; anything else as it is.
show_rotation() {
	local name number row=''
	while read -r name; do
		number=${name#target}
		case $number in
		[0-9]) row+=" ${letter_colours[number % 6]}$number$plain" ;;
		*) row+=" $name" ;;
		esac
	done
	echo "   $row"
}

# ---- processes
# -----------------------------------------------------------------------------------------------------------

declare -A pid_of=()
tmp=''

# start NAME COMMAND...: in the background, its output in $tmp/NAME.out and $tmp/NAME.err. In a session of its own, as
# Ctrl-C is for this script: a weir that left first would look like one that fails.
start() {
	local name=$1
	shift
	# Emptied here and not only there: who reads at once must not find what a namesake said before.
	: >"$tmp/$name.out"
	: >"$tmp/$name.err"
	[ "$(type -t "$1")" = function ] || set -- setsid "$@"
	"$@" >>"$tmp/$name.out" 2>>"$tmp/$name.err" </dev/null &
	pid_of[$name]=$!
}

# Succeeds while the process is there. One that ended and was not waited for (a zombie) is not.
is_running() {
	local stat
	{ read -r stat <"/proc/${pid_of[$1]}/stat"; } 2>/dev/null || return 1
	stat=${stat##*) }
	[ "${stat%% *}" != Z ]
}

has_ended() { ! is_running "$1"; }

# stop NAME: asks it to end and waits for that; insists after fifteen seconds. Leaves its exit status in stopped_with.
stop() {
	local name=$1 pid=${pid_of[$1]}
	stopped_with=0
	if is_running "$name"; then
		kill -TERM "$pid" 2>/dev/null || : # it may have ended since
		wait_until 15 has_ended "$name" || kill -KILL "$pid"
	fi
	wait "$pid" 2>/dev/null || stopped_with=$?
	unset "pid_of[$name]"
}

stop_all() {
	local name
	for name in "${!pid_of[@]}"; do
		stop "$name"
	done
}

# wait_until SECONDS COMMAND...: asks again and again until the command succeeds; fails when the time is over.
wait_until() {
	local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
	shift
	until "$@"; do
		[ "${EPOCHREALTIME/./}" -lt "$deadline" ] || return 1
		sleep 0.02
	done
}

kept=no

# A line for each process of this machine: its id, its parent's, its session's and its state.
list_processes() {
	cat /proc/[0-9]*/stat 2>/dev/null | sed -nE 's/^([0-9]+) \(.*\) (.) ([0-9]+) [0-9]+ ([0-9]+) .*/\1 \3 \4 \2/p'
}

# Every process that comes from the story or is in one of the panes; not those that are asking here.
still_there() {
	local asking=$BASHPID sessions=''
	[ ! -e "$tmp/panes" ] || sessions=$(tr '\n' ' ' <"$tmp/panes")
	list_processes | awk -v top="$story" -v asking="$asking" -v sessions=" $sessions" '
		$4 != "Z" { parent[$1] = $2; session[$1] = $3 }
		END {
			for (pid in parent) {
				for (up = pid; up in parent && up != top && up != asking; up = parent[up])
					;
				if (up == top && pid != top || index(sessions, " " session[pid] " "))
					print pid
			}
		}'
}

nothing_is_left() {
	mapfile -t left < <(still_there)
	[ ${#left[@]} -eq 0 ]
}

# For the way out: not by name but by descent, since a signal may come when a process is there and has no name yet. All
# are asked at once, and those that are still there after five seconds are ended.
end_everything() {
	local left
	nothing_is_left || { kill -TERM "${left[@]}" && kill -CONT "${left[@]}"; } 2>/dev/null
	[ ! -S "$tmp/tmux" ] || tmux_here kill-server 2>/dev/null
	wait_until 5 nothing_is_left || kill -KILL "${left[@]}" 2>/dev/null
}

# hold_everything: nothing that the story started runs on, so nothing more is started while it is being ended.
hold_everything() {
	local left held=''
	kill -STOP "$story"
	until nothing_is_left || [ "${left[*]}" = "$held" ]; do
		kill -STOP "${left[@]}" 2>/dev/null
		held=${left[*]}
	done
}

# The scenes are played by a process of their own, the story, and this one does nothing but wait for it: bash 5.2 may
# forget a trapped SIGINT, or go round in its handler for ever, when it comes while it reads the output of a command.
story=''

# clean_up STATUS: the story's way out, whatever leads to it.
clean_up() {
	local status=$1
	trap - EXIT
	trap '' TERM HUP PIPE
	set +e
	[ "$status" -ne 1 ] || show_logs >&2
	if [ $kept = no ] || [ "$status" -gt 128 ]; then
		end_everything 2>/dev/null
		rm -rf "$tmp"
	fi
	exit "$status"
}

# interrupted STATUS: a second Ctrl-C does not hurry past the ending of what was started.
interrupted() {
	trap '' INT TERM HUP PIPE
	set +e
	story=${!:-} # may be there and not yet have its name
	pid_of[story]=$story
	if [ -z "$story" ]; then
		rm -rf "$tmp"
	elif is_running story; then
		{
			hold_everything
			end_everything
			kill -KILL "$story"
			wait
		} 2>/dev/null
		rm -rf "$tmp"
	fi
	echo "run_demo.sh: interrupted; everything that it started has ended" >&2
	exit "$1"
}

# With --keep, at the end of the last scene.
keep_running() {
	local name pids=()
	kept=yes
	echo "  still running:"
	while read -r name; do
		is_running "$name" || continue
		pids+=("${pid_of[$name]}")
		printf '    %-10s pid %-8s%s\n' "$name" "${pid_of[$name]}" "${port_of[$name]:+ port ${port_of[$name]}}"
	done < <(printf '%s\n' "${!pid_of[@]}" | sort)
	echo "    what they say is in $tmp"
	echo "    to end them: kill ${pids[*]}; rm -r $tmp"
}

show_logs() {
	local file
	for file in "$tmp"/*.err; do
		[ -s "$file" ] || continue
		echo "--- the last lines of $(basename "$file" .err):"
		tail -n 15 "$file"
	done
}

# ---- the cast
# ------------------------------------------------------------------------------------------------------------

declare -A port_of=()

# speaks NAME PATTERN: succeeds when the process has said it, and leaves the number it said in port_of. One that has
# ended will not say it any more.
speaks() {
	local number
	number=$(sed -nE "/$2/{s/.*$2.*/\\1/p;q;}" "$tmp/$1.out" "$tmp/$1.err")
	[ -n "$number" ] && port_of[$1]=$number
}

speaks_or_ended() { speaks "$@" || has_ended "$1"; }

# start_target NAME PORT [OPTION...]
start_target() {
	local name=$1 port=$2
	shift 2
	start "$name" "$bin/server_demo" --http "$port" --name "$name" "$@"
	wait_until 10 speaks_or_ended "$name" 'listens on port ([0-9]+)' &&
		[ -n "${port_of[$name]:-}" ] && is_running "$name"
}

# start_targets COUNT [OPTION...]: target1 ... targetCOUNT on free ports; leaves the list for weir in endpoints.
start_targets() {
	local count=$1 i
	shift
	endpoints=''
	for ((i = 1; i <= count; i++)); do
		start_target "target$i" 0 "$@" || fail "target$i does not start"
		endpoints+=${endpoints:+,}127.0.0.1:${port_of[target$i]}
	done
}

# start_weir OPTION...: in front of endpoints, on a free port; leaves where it is in url.
start_weir() {
	set -- reverse --port 0 --bind 127.0.0.1 --endpoint "$endpoints" "$@"
	show_command "weir $*"
	start weir "$bin/weir" "$@"
	if ! wait_until 10 speaks_or_ended weir 'listen[a-z]* on.*port=([0-9]+)' || [ -z "${port_of[weir]:-}" ]; then
		fail "weir does not start"
	fi
	url=http://127.0.0.1:${port_of[weir]}/
}

# end_scene [NAME...]: everything that the scene started ends; weir, or those named, have to end well. With --keep the
# last scene goes on.
end_scene() {
	local name
	if [ $keep = yes ] && [ "$scenes_left" -eq 0 ]; then
		keep_running
		return
	fi
	for name in "${@:-weir}"; do
		stop "$name"
		check "$name ends with 0 when asked to" [ "$stopped_with" -eq 0 ]
	done
	stop_all
	port_of=()
	rm -f "$tmp"/*
}

# run_client OPTION...: to its end; its answers in $tmp/answers, its summary in $tmp/client.err, its status in
# client_status.
run_client() {
	show_command "client_demo $*"
	client_status=0
	setsid "$bin/client_demo" --url "$url" "$@" >"$tmp/answers" 2>"$tmp/client.err" || client_status=$?
}

# start_client NAME OPTION...: in the background; its answers in $tmp/NAME.out.
start_client() {
	local name=$1
	shift
	echo "  $bold\$ client_demo $(as_typed "$@")$plain"
	start "$name" "$bin/client_demo" --url "$url" --print answers "$@"
}

# The words as one would type them: those with a blank are quoted.
as_typed() {
	local word line=''
	for word in "$@"; do
		[[ $word != *' '* ]] || word="'$word'"
		line+=" $word"
	done
	echo "${line# }"
}

# finish NAME: waits until it has ended by itself. Leaves its exit status in stopped_with.
finish() {
	wait_until 20 has_ended "$1" || fail "$1 does not come to an end"
	stop "$1"
}

# follow NAME FILE: the lines of the file, those that are there and those that come, until that process has ended.
follow() { tail -n +1 -s 0.05 --pid="${pid_of[$1]}" -f "$2"; }

# How many stand at weir's door: the kernel's list has a line for each end of a connection, and 01 says that both sides
# have it open. Right for clients that use a connection for one request.
at_the_door() { established_at weir; }

# established_at NAME: connections to its port that both sides have open.
established_at() {
	awk -v door="$(printf ':%04X' "${port_of[$1]}")" '
		$4 == "01" && substr($2, length($2) - 4) == door { count++ }
		END { print count + 0 }' /proc/net/tcp*
}

# count_status NAME STATUS: how many such answers the client got so far.
count_status() { awk -v status="$2" '$4 == status { count++ } END { print count + 0 }' "$tmp/$1.out"; }

show_retry_after() {
	awk '$4 == 429 { told[$6]++ }
		END { for (s in told) printf "; Retry-After: %s (%d times)", s, told[s] }' "$tmp/$1.out"
}
refusals_say_when() { awk '$4 == 429 && $6 !~ /^[1-9][0-9]*$/ { exit 1 }' "$tmp/$1.out"; }

# bar LENGTH SIGN
bar() {
	local signs
	printf -v signs '%*s' "$1" ''
	echo "${signs// /$2}"
}

# ---- scene 1
# -------------------------------------------------------------------------------------------------------------

# Succeeds if the file has ten names and each is the one after its predecessor, with target1 after target5.
is_strict_rotation() {
	awk '{ sub("target", ""); if (NR > 1 && $1 != last % 5 + 1) bad = 1; last = $1 } END { exit bad || NR != 10 }' "$1"
}

scene_1() {
	cat <<-END
		  Five servers stand behind weir. A client sends ten requests, one after the other, and writes down who
		  answered. Each server gets every fifth request, in the same order each time round.

	END
	start_targets 5
	start_weir
	run_client --count 10 --expect 200 --print targets
	show_rotation <"$tmp/answers"
	check "ten requests, ten times 200" [ "$client_status" -eq 0 ]
	check "strict rotation: after 1 comes 2, ... after 5 comes 1" is_strict_rotation "$tmp/answers"
	end_scene
}

# ---- scene 2
# -------------------------------------------------------------------------------------------------------------

sample=200     # answers that are looked at in each phase
workers=4      # of the client: so many answers may change places on their way, and so far may counts be off

answers_so_far() { wc -l <"$tmp/load.out"; }
has_answers() { [ "$(answers_so_far)" -ge "$1" ]; }
answered_since() { tail -n "+$(($1 + 1))" "$tmp/load.out" | grep -qx "$2"; }

# Succeeds if each target named has its even share of the lines in the file, and nobody else has any.
is_even_among() {
	local file=$1
	shift
	awk -v names="$*" -v slack=$workers '
		BEGIN { targets = split(names, name, " ") }
		{ seen[$1]++ }
		END {
			share = NR / targets
			for (i = 1; i <= targets; i++) {
				if (seen[name[i]] < share - slack || seen[name[i]] > share + slack)
					exit 1
				delete seen[name[i]]
			}
			for (other in seen)
				exit 1
		}' "$file"
}

# show_phase TITLE FIRST_ANSWER NAME...: waits for sample answers from that one on, shows them and checks the shares.
show_phase() {
	local title=$1 first=$2
	shift 2
	wait_until 20 has_answers $((first + sample - 1)) || fail "the client gets no more answers"
	tail -n "+$first" "$tmp/load.out" | sed "${sample}q" >"$tmp/phase"
	echo "  $title: 20 of $sample answers, and how many each target gave"
	sed 20q "$tmp/phase" | show_rotation
	sort "$tmp/phase" | uniq -c | awk '{ printf "    %s: %s", $2, $1 } END { print "" }'
	check "all answers come from $*, in even shares" is_even_among "$tmp/phase" "$@"
}

scene_2() {
	local mark begun ended
	cat <<-END
		  A client sends 200 requests a second through weir to five servers, which take 10 ms for each. Server 3 is
		  ended in the middle of its work: weir sends what it had to the next one, and leaves it out of the rotation.
		  When it is started again on its old port, a probe finds it and it takes its turns again. The client never
		  notices.

	END
	start_targets 5 --delay 10
	start_weir
	show_command "client_demo --interval 0.005 --concurrency $workers"
	start load "$bin/client_demo" --url "$url" --count 1000000 --interval 0.005 --concurrency $workers --expect 200 \
		--print targets
	show_phase "before" 1 target1 target2 target3 target4 target5

	pause "target3 is ended"
	stop target3
	mark=$(answers_so_far)
	echo "  target3 was ended after $mark answers"
	show_phase "during" $((mark + workers + 1)) target1 target2 target4 target5

	pause "target3 is started again"
	mark=$(answers_so_far)
	# Its port may be taken for a moment by somebody's outgoing connection.
	wait_until 10 start_target target3 "${port_of[target3]}" --delay 10 || fail "target3 does not start again"
	begun=${EPOCHREALTIME/./}
	wait_until 10 answered_since "$mark" target3 || fail "target3 did not come back within 10 s"
	ended=${EPOCHREALTIME/./}
	echo "  target3 was started again, and had its next turn $(((ended - begun) / 1000)) ms later"
	show_phase "after" $(($(answers_so_far) + 1)) target1 target2 target3 target4 target5

	stop load
	sed 's/^/  /' "$tmp/load.err"
	check "the client saw nothing but 200, from first to last" [ "$stopped_with" -eq 0 ]
	end_scene
}

# ---- scene 3
# -------------------------------------------------------------------------------------------------------------

# tightest COUNT FILE: the shortest time, in seconds, in which so many requests arrived at the targets. Read from their
# log, whose times are those at which the kernel received the bytes: on one machine that is while weir sends them.
tightest() {
	sort -n "$2" | awk -v count="$1" '
		{ at[NR] = $1 }
		END {
			best = 1e9
			for (i = count; i <= NR; i++)
				if (at[i] - at[i - count + 1] < best)
					best = at[i] - at[i - count + 1]
			printf "%.3f\n", best
		}'
}

# Five a second means that a sixth never starts within a second; a clock that is being set may cost some thousandths.
is_about_a_second() { awk -v seconds="$1" 'BEGIN { exit !(seconds >= 0.99) }'; }

# A line for each second, a sign for each request that starts in it, put there when it starts: reads the targets' log as
# it is written. Where nobody watches, the same lines are written.
show_seconds_live() {
	local time _ first='' second=0 now count=0
	while read -r time _; do
		time=${time/./}
		[ -n "$first" ] || { first=$time && printf '    second 1: '; }
		now=$(((time - first) / 1000000))
		while [ $second -lt $now ]; do
			second=$((second + 1))
			printf '  %d started\n    second %d: ' $count $((second + 1))
			count=0
		done
		count=$((count + 1))
		printf '%s#%s' "$green" "$plain"
	done
	printf '  %d started\n' $count
}

scene_3() {
	local served refused tightest
	cat <<-END
		  A server must not get more than five requests a second. So weir stands before it, and lets three seconds'
		  worth of others wait: fifteen. Thirty arrive at once. Five are served at once, fifteen in the next three
		  seconds, and each # below appears when the server gets one; ten are told at once to come back later (429),
		  and when.

	END
	: >"$tmp/arrivals"
	start_targets 1 --log "$tmp/arrivals"
	start_weir --threshold 5 --backlog 3
	start_client client --count 30 --concurrency 30
	show_seconds_live < <(follow client "$tmp/arrivals")
	finish client
	served=$(count_status client 200) refused=$(count_status client 429)
	echo "    refused:  $refused, at once$(show_retry_after client)"
	tightest=$(tightest 6 "$tmp/arrivals")
	echo "    any six requests in a row took at least $tightest s to start"
	check "every request got an answer" [ "$stopped_with" -eq 0 ]
	check "20 served: 5 at once and 15 that waited" [ "$served" -eq 20 ]
	check "10 refused with 429" [ "$refused" -eq 10 ]
	check "each refusal says when to come back" refusals_say_when client
	check "the server saw what the client saw: 20 requests" [ "$(wc -l <"$tmp/arrivals")" -eq 20 ]
	check "in no second did more than five start" is_about_a_second "$tightest"
	end_scene
}

# ---- scene 4
# -------------------------------------------------------------------------------------------------------------

# Each half second while the client is at work: who waits, and what became of the others so far.
show_line_live() {
	local begun=${EPOCHREALTIME/./} tick=0 waiting
	while is_running client; do
		tick=$((tick + 1))
		# A glance at set moments, however long the one before took; nothing depends on it.
		wait_until 60 is_past_or_over $((begun + tick * 500000))
		waiting=$(at_the_door)
		printf '    %d.%d s  %-22s %2d wait, %2d served, %2d refused\n' $((tick / 2)) $((tick % 2 * 5)) \
			"$(bar "$waiting" '=')" "$waiting" "$(count_status client 200)" "$(count_status client 429)"
	done
}

is_past_or_over() { [ "${EPOCHREALTIME/./}" -ge "$1" ] || has_ended client; }

# The longest that the line was for a quarter of a second in all, by the client's clock. An answer is on its way for
# some milliseconds after its request left the line; so a request counts as waiting until 20 ms before its answer, and
# what was only seen for a moment is not counted. A line that is too long is so for half of each tenth of a second.
longest_line() {
	awk -v way=0.02 '$4 == 200 && $3 > way { print $2, 1; print $2 + $3 - way, -1 }' "$tmp/client.out" | sort -n |
		awk '
			{ stood[waiting] += $1 - last; last = $1; waiting += $2; if (waiting > most) most = waiting }
			END {
				for (longest = most; longest > 0; longest--)
					if ((seconds += stood[longest]) >= 0.25)
						break
				print longest + 0
			}'
}

longest_wait() { awk '$4 == 200 && $3 > most { most = $3 } END { printf "%.2f\n", most }' "$tmp/$1.out"; }

# Succeeds if requests were served in the order in which they were sent. They start 100 ms apart; a busy machine may
# keep an answer for so long that up to three others overtake it, but no other order looks like that.
is_first_come_first_served() {
	awk '$4 == 200 { print $2, $2 + $3 }' "$1" | sort -n |
		awk '$2 < latest - 0.08 { overtook++ } $2 > latest { latest = $2 } END { exit overtook > 3 }'
}

is_at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }
is_at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a >= b) }'; }

scene_4() {
	local longest slowest served refused
	cat <<-END
		  weir may start ten requests a second, evenly (burst 1), and two seconds' worth of others may wait: twenty. For
		  three seconds a client sends twenty a second, whether it is answered or not. So the line grows by ten a
		  second, until it is full; then one of two is sent away. When the client has sent its sixty the line empties.

	END
	start_targets 1
	start_weir --threshold 10 --burst 1 --backlog 2
	start_client client --count 60 --interval 0.05 --concurrency 60 --keepalive no
	show_line_live
	finish client
	served=$(count_status client 200) refused=$(count_status client 429)
	longest=$(longest_line) slowest=$(longest_wait client)
	echo "    the line was at most $longest long, and the longest wait was $slowest s"
	check "every request got an answer, 200 or 429" [ "$stopped_with$((served + refused))" = 060 ]
	check "the line became full: 19 waited, or 20" is_at_least "$longest" 19
	check "and never more than 20 (threshold x backlog)" is_at_most "$longest" 20
	check "then some were sent away" [ "$refused" -gt 0 ]
	check "and told when to come back" refusals_say_when client
	check "who came first was served first" is_first_come_first_served "$tmp/client.out"
	check "all that waited were served in time: 2 s, and some for the way" is_at_most "$slowest" 2.5
	end_scene
}

# ---- scene 5
# -------------------------------------------------------------------------------------------------------------

polite=(ann ben cleo)
declare -A address_of=([greedy]=192.0.2.1 [ann]=192.0.2.2 [ben]=192.0.2.3 [cleo]=192.0.2.4)
declare -A waited=()   # "fifo ann": the longest of her waits, in seconds
declare -A let_past=() # the same, as the number of others that were served meanwhile

# start_named NAME OPTION...: a client with an address of its own, as if it came through a proxy that tells weir which.
start_named() {
	local name=$1
	shift
	start_client "$name" "$@" --header "X-Forwarded-For: ${address_of[$name]}"
}

# All of the 25 but perhaps one stand at the door, or were answered already.
greedy_has_come() { [ $(($(at_the_door) + $(wc -l <"$tmp/greedy.out"))) -ge 24 ]; }

has_connected() { [ -n "$(find "/proc/${pid_of[$1]}/fd" -lname 'socket:*' 2>/dev/null)" ]; }

# others_served NAME SINCE: the most requests of others that were served before one of NAME's, counted from its last one
# or, for its first, from line SINCE of weir's access log, where each line begins with the client's address. On a busy
# machine seconds grow longer; this number does not.
others_served() {
	awk -v me="${address_of[$1]}" -v last="$2" '
		$1 == me && NR > last { if (NR - last - 1 > most) most = NR - last - 1; last = NR }
		END { print most + 0 }' "$tmp/access"
}

# crowd QUEUE: the greedy client fills the line, then the polite ones come. Leaves what they met in waited and let_past.
crowd() {
	local queue=$1 name
	local -A came=([greedy]=0)
	: >"$tmp/access"
	start_weir --threshold 10 --burst 1 --backlog 4 --queue "$queue" --trust-forwarded 127.0.0.1 \
		--access-log "$tmp/access"
	start_named greedy --count 25 --concurrency 25 --expect 200
	wait_until 10 greedy_has_come || fail "the greedy client does not fill the line"
	for name in "${polite[@]}"; do
		start_named "$name" --count 3 --expect 200
		wait_until 10 has_connected "$name" || fail "$name does not come"
		came[$name]=$(wc -l <"$tmp/access")
	done
	for name in greedy "${polite[@]}"; do
		finish "$name"
		check "$name: all requests served" [ "$stopped_with" -eq 0 ]
		waited["$queue $name"]=$(longest_wait "$name")
	done
	stop weir
	check "weir ends with 0 when asked to" [ "$stopped_with" -eq 0 ]
	for name in greedy "${polite[@]}"; do
		let_past["$queue $name"]=$(others_served "$name" "${came[$name]}")
	done
}

# A sign for each tenth of a second.
wait_bar() { bar "$(awk -v wait="$1" 'BEGIN { printf "%d", wait * 10 + 0.5 }')" '='; }

show_waits() {
	local name fifo fair
	printf '\n    %-8s %-46s %s\n' 'longest' 'queue = fifo: first come, first served' 'queue = fair: clients in turn'
	for name in greedy "${polite[@]}"; do
		fifo=${waited["fifo $name"]} fair=${waited["fair $name"]}
		printf '    %-8s %5.2f s  %-37s %5.2f s  %s\n' "$name" "$fifo" "$(wait_bar "$fifo")" \
			"$fair" "$(wait_bar "$fair")"
	done
	echo
}

# Four clients take turns, so three others are served before it is one's turn again. One that a busy machine holds up,
# so that its next request comes too late for its turn, lets a second round pass.
are_served_in_turn() {
	local name
	for name in greedy "${polite[@]}"; do
		[ "${let_past["fair $name"]}" -le 7 ] || return 1
	done
}

# About twenty stood before them, less those that were served until they came: on a busy machine that may be some more,
# yet they let more past than those who are served in turn ever do.
are_held_up() {
	local name
	for name in "${polite[@]}"; do
		[ "${let_past["fifo $name"]}" -ge 8 ] || return 1
	done
}

# most_let_past QUEUE: by one of the polite clients.
most_let_past() {
	local name
	for name in "${polite[@]}"; do
		echo "${let_past["$1 $name"]}"
	done | sort -n | tail -n 1
}

show_client_rate() {
	cat <<-END

		  A client can also be given a limit of its own: here six requests a minute, five of which may come at once.

	END
	start_weir --client-rate 6/m --client-burst 5 --trust-forwarded 127.0.0.1
	start_named greedy --count 20 --concurrency 20
	finish greedy
	start_named ann --count 5
	finish ann
	echo "    greedy: $(count_status greedy 200) served, $(count_status greedy 429) refused$(show_retry_after greedy)"
	echo "    ann:    $(count_status ann 200) served, $(count_status ann 429) refused"
	check "of the greedy client's 20 requests 5 were served" [ "$(count_status greedy 200)" -eq 5 ]
	check "and 15 refused with 429" [ "$(count_status greedy 429)" -eq 15 ]
	check "each refusal says when to come back" refusals_say_when greedy
	check "ann, who kept to it, got her five" [ "$(count_status ann 200)" -eq 5 ]
}

scene_5() {
	cat <<-END
		  weir may start ten requests a second, one every tenth. A greedy client puts 25 requests in the line. Then come
		  three polite ones, who send three each, one after the other. First come, first served: they stand behind all
		  of what the greedy one put there. Then the same again, with the clients taking turns, so that each is served
		  every fourth time. They come through a proxy that weir trusts, which says in X-Forwarded-For who they are.

	END
	start_targets 1
	crowd fifo
	crowd fair
	show_waits
	echo "    a polite client lets at most this many others go first: $(most_let_past fifo) under fifo," \
		"$(most_let_past fair) under fair"
	check "first come, first served: the polite ones are held up" are_held_up
	check "in turn: nobody, polite or greedy, waits for much more than one time round" are_served_in_turn
	show_client_rate
	end_scene
}

# ---- the message switch
# -------------------------------------------------------------------------------------------------------

# start_switch OPTION...: on a free port; what it says is in $tmp/weir.err.
start_switch() {
	set -- packet -port 0 -bind 127.0.0.1 "$@"
	show_command "weir $*"
	start weir "$bin/weir" "$@"
	if ! wait_until 10 speaks_or_ended weir 'listens on.*port=([0-9]+)' || [ -z "${port_of[weir]:-}" ]; then
		fail "weir does not start"
	fi
}

# start_packet_server ID POLICY [PORT]: and waits until the switch knows of it.
start_packet_server() {
	local name=server$1
	set -- -id "$1" -pp "$2" -listen "${3:-0}" -revproc "${port_of[weir]}"
	show_command "server_demo $*"
	start "$name" "$bin/server_demo" "$@"
	wait_until 10 speaks_or_ended "$name" '^Set up as server .*port ([0-9]+)' &&
		[ -n "${port_of[$name]:-}" ] && is_running "$name"
}

# run_packet_client ID NUMBER: sends pktfiles/NUMBER.json; what it says in $tmp/client, its status in client_status.
run_packet_client() {
	client_status=0
	setsid "$bin/client_demo" -id "$1" -revproc "${port_of[weir]}" -pkt "$here/pktfiles/$2.json" >"$tmp/client" || client_status=$?
}

# The log of the switch from a line on, without the times, and only what is about messages.
show_switch_log() {
	tail -n "+$1" "$tmp/weir.err" | sed -nE 's/^[^ ]+ info +packet: ((received|forwarding|sending) .*)/    \1/p'
}

switch_log_lines() { wc -l <"$tmp/weir.err"; }

# who_answered: the id of the server that answered the last client.
who_answered() { sed -nE 's/^Receiving a response from server id ([^ ]+) .*/\1/p' "$tmp/client"; }

# ---- scene 6
# -------------------------------------------------------------------------------------------------------------

scene_6() {
	local id number correct=0 served='' first_line
	cat <<-END
		  Servers set themselves up at the reverse proxy, each under a privacy policy: 100 and 102 under 111,
		  101 and 103 under 112. Six clients send a packet each. The reverse proxy looks up who serves the
		  packet's policy and forwards it to the one whose turn it is; the server answers with the SHA-1 of the
		  payload, and the client checks that.

	END
	start_switch
	for id in 100 101 102 103; do
		start_packet_server "$id" $((111 + id % 2)) || fail "server $id does not start"
	done
	first_line=$(($(switch_log_lines) + 1))
	for number in 1 2 3 4 5 6; do
		show_command "client_demo -id $number -revproc ${port_of[weir]} -pkt pktfiles/$number.json"
		run_packet_client "$number" "$number"
		sed 's/^/    /' "$tmp/client"
		correct=$((correct + (client_status == 0)))
		served+=" $(who_answered)"
	done
	echo "  what the reverse proxy says of the last two:"
	show_switch_log "$first_line" | tail -n 6
	echo "  what server 101 says:"
	sed 's/^/    /' "$tmp/server101.out"
	check "six clients, six correct hashes" [ $correct -eq 6 ]
	check "each policy's servers took turns: 100 102 100 under 111, 101 103 101 under 112" \
		[ "$served" = " 100 101 102 103 100 101" ]
	check "server 101 saw the packets of clients 2 and 6 and no other" \
		[ "$(sed -nE 's/^Received a message from client ([0-9]+) .*/\1/p' "$tmp/server101.out" | xargs)" = "2 6" ]
	end_scene
}

# ---- scene 7
# -------------------------------------------------------------------------------------------------------------

# served_by COUNT NUMBER: sends that packet so often; prints who answered, in order.
served_by() {
	local i
	for ((i = 0; i < $1; i++)); do
		run_packet_client 1 "$2"
		[ "$client_status" -eq 0 ] && who_answered
	done | xargs
}

scene_7() {
	local before moved other
	cat <<-END
		  Three servers serve policy 111: they take turns in the order in which they set themselves up. Then
		  server 102 sets itself up again, under policy 112: from then on it gets the packets of that policy,
		  and the other two share what is left. A packet for a policy that nobody serves is answered with an
		  error, and with the reason.

	END
	start_switch
	for id in 100 102 104; do
		start_packet_server "$id" 111 || fail "server $id does not start"
	done
	before=$(served_by 7 1)
	echo "    policy 111: $before"
	run_packet_client 1 2
	echo "    policy 112: $(tail -n 1 "$tmp/client")"
	check "strict rotation, in order of set-up" [ "$before" = "100 102 104 100 102 104 100" ]
	check "nobody serves policy 112: the client is told" grep -q 'no server for privacy policy 112' "$tmp/client"
	stop server102
	start_packet_server 102 112 || fail "server 102 does not start"
	moved=$(served_by 4 1) other=$(served_by 2 2)
	echo "    policy 111: $moved"
	echo "    policy 112: $other"
	check "policy 111 has two servers left, in turn" [ "$moved" = "104 100 104 100" ]
	check "policy 112 has server 102" [ "$other" = "102 102" ]
	end_scene
}

# ---- scene 8
# -------------------------------------------------------------------------------------------------------------

# Sends one packet after the other, for ever; a line for each: who answered, and whether the hash was correct.
packet_load() {
	trap exit TERM # heeded between two packets, so that no client is left behind
	while :; do
		setsid "$bin/client_demo" -id 7 -revproc "${port_of[weir]}" -pkt "$here/pktfiles/1.json" |
			sed -nE -e 's/^Receiving a response from server id ([^ ]+) .*/\1/p' \
				-e 's/^Hash of payload is (.*)/\1/p' -e 's/^Receiving an error.*/0\nerror/p' |
			xargs
	done
}

packets_answered() { wc -l <"$tmp/load.out"; }
has_packets() { [ "$(packets_answered)" -ge "$1" ]; }
answered_by_since() { tail -n "+$(($2 + 1))" "$tmp/load.out" | grep -q "^$1 "; }
lines_between() {
	sed -n "$(($1 + 1)),$2p" "$tmp/load.out" | cut -d ' ' -f 1 | sort | uniq -c | awk '{ printf " %s: %s", $2, $1 }'
}
# A client may have its answer and not have written it yet: one line of the phase before may come first.
nobody_answered() { ! sed -n "$(($2 + 2)),$3p" "$tmp/load.out" | grep -q "^$1 "; }

scene_8() {
	local killed revived back
	cat <<-END
		  A client sends one packet after the other to policy 111, which three servers serve. Server 102 is
		  killed (kill -9): the packet that finds it dead goes to the next, and it is out of the rotation. It is
		  revived on its old port and sets itself up again; every hash is correct, from the first to the last.

	END
	start_switch
	for id in 100 102 104; do
		start_packet_server "$id" 111 || fail "server $id does not start"
	done
	start load packet_load
	wait_until 20 has_packets 30 || fail "the client gets no answers"
	pause "server 102 is killed"
	kill -KILL "${pid_of[server102]}"
	{ stop server102; } 2>/dev/null # bash would say "Killed"
	killed=$(packets_answered)
	wait_until 20 has_packets $((killed + 30)) || fail "the client gets no more answers"
	revived=$(packets_answered)
	start_packet_server 102 111 "${port_of[server102]}" || fail "server 102 does not start again"
	wait_until 20 answered_by_since 102 "$revived" || fail "server 102 did not come back"
	back=$(packets_answered)
	wait_until 20 has_packets $((back + 30)) || fail "the client gets no more answers"
	stop load
	echo "    before:      $(lines_between 0 "$killed")"
	echo "    while dead:  $(lines_between "$killed" "$revived")"
	echo "    after:       $(lines_between "$back" "$(packets_answered)")"
	sed -nE -e 's/^[^ ]+ [a-z]+ +packet: (server id 102 .*leaves.*)/    \1/p' \
		-e 's/^[^ ]+ [a-z]+ +packet: (.*setup message from server id 102 .*)/    \1/p' "$tmp/weir.err"
	check "every hash was correct, from the first to the last" [ "$(grep -cv ' correct$' "$tmp/load.out")" -eq 0 ]
	check "while it was dead, nobody got an answer from server 102" nobody_answered 102 "$killed" "$revived"
	check "it is back, and has its turns" answered_by_since 102 "$back"
	end_scene
}

# ---- scene 9
# -------------------------------------------------------------------------------------------------------------

cap=5
workers_of_scene_9=(worker1 worker2 worker3)
ttl=30 # seconds that a dead worker's places count for
declare -A places_of=()

redis_says() { redis-cli -s "$tmp/redis.socket" "$@" 2>/dev/null; }
redis_answers() { [ "$(redis_says ping)" = PONG ]; }
redis_answers_or_ended() { redis_answers || has_ended redis; }

# A Redis of the scene's own: no port, nothing on disk but a socket.
start_redis() {
	command -v redis-server >/dev/null && command -v redis-cli >/dev/null ||
		fail "there is no redis-server here; deploy/prerequisites.sh demo installs it"
	show_command "redis-server --port 0 --unixsocket redis.socket --save ''"
	start redis redis-server --port 0 --unixsocket "$tmp/redis.socket" --save '' --dir "$tmp"
	wait_until 10 redis_answers_or_ended
	is_running redis || fail "redis-server does not start"
}

start_worker() {
	set -- "$1" forward --port 0 --bind 127.0.0.1 --max-connections "$cap" --redis-addr "unix:$tmp/redis.socket" \
		--connect-allow '127.0.0.1:*'
	show_command "weir ${*:2:7} --redis-addr unix:redis.socket --connect-allow '127.0.0.1:*'   # $1"
	start "$1" "$bin/weir" "${@:2}"
	if ! wait_until 10 speaks_or_ended "$1" 'listen[a-z]* on.*port=([0-9]+)' || [ -z "${port_of[$1]:-}" ]; then
		fail "$1 does not start"
	fi
}

# ask WORKER: for a tunnel to target1, without waiting for the answer. Leaves the connection in asked.
ask() {
	exec {asked}<>"/dev/tcp/127.0.0.1/${port_of[$1]}" || fail "$1 takes no connections"
	printf 'CONNECT %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$host" "$host" >&"$asked"
}

# is_let_through CONNECTION: reads the answer. Yes: the tunnel stays open. No: the answer is in $tmp/refusal, and the
# connection is closed.
is_let_through() {
	local connection=$1 version status=''
	read -r -t 10 version status _ <&"$connection" || fail "no answer to a CONNECT"
	if [ "$status" = 200 ]; then
		held+=("$connection")
		return 0
	fi
	{ echo "$version $status" && timeout 10 cat <&"$connection"; } >"$tmp/refusal"
	exec {connection}>&-
	return 1
}

# takes_a_place WORKER: asks and waits for the answer. Leaves the tunnel in asked.
takes_a_place() {
	ask "$1"
	is_let_through "$asked"
}

let_go_of_all() {
	local connection
	for connection in "${held[@]}"; do
		exec {connection}>&-
	done
}

at_the_target() { established_at target1; }
target_has() { [ "$(at_the_target)" -eq "$1" ]; }

# Twelve CONNECTs are on their way before the first answer is read. Leaves what became of them in places_of, let_through
# and refused, and a tunnel of each worker that has one in tunnel_of.
ask_all_at_once() {
	local worker i connections=()
	for i in 1 2 3 4; do
		for worker in "${workers_of_scene_9[@]}"; do
			ask "$worker"
			connections+=("$worker $asked")
		done
	done
	let_through=0 refused=0
	for i in "${connections[@]}"; do
		worker=${i% *}
		if is_let_through "${i#* }"; then
			let_through=$((let_through + 1))
			places_of[$worker]=$((${places_of[$worker]:-0} + 1))
			tunnel_of[$worker]=${i#* }
		else
			refused=$((refused + 1))
		fi
	done
}

show_places() {
	local worker
	for worker in "${workers_of_scene_9[@]}"; do
		printf '    %s  %-6s %d\n' "$worker" "$(bar "${places_of[$worker]:-0}" '#')" "${places_of[$worker]:-0}"
	done
	echo "    at the target: $(at_the_target) connections; the cap is $cap"
}

# The workers, those with the most places first. With five places among three, the first has at least two and the second
# at least one.
by_places() {
	local worker
	for worker in "${workers_of_scene_9[@]}"; do
		echo "${places_of[$worker]:-0} $worker"
	done | sort -rn | sed 's/.* //'
}

# wait_for_places WORKER: it asks four times a second until it is let through, for ten seconds longer than it should
# take. Leaves the seconds in came_after, the number of tries that were refused in tries, and the most connections that
# were seen at the target in most.
wait_for_places() {
	local begun=${EPOCHREALTIME/./} now next=0 seen
	tries=0 most=0
	until takes_a_place "$1"; do
		tries=$((tries + 1))
		now=$((${EPOCHREALTIME/./} - begun)) seen=$(at_the_target)
		[ "$seen" -le "$most" ] || most=$seen
		if [ $now -ge $next ]; then
			printf '    %2d s  at the target %d, counted in Redis %d: refused\n' $((now / 1000000)) "$seen" "$(counted)"
			next=$((next + 5000000))
		fi
		[ $now -lt $(((ttl + 10) * 1000000)) ] || fail "the places of a dead worker did not come back"
		sleep 0.25
	done
	came_after=$(awk -v us=$((${EPOCHREALTIME/./} - begun)) 'BEGIN { printf "%.1f", us / 1e6 }')
}

# What the counters of all workers add up to.
counted() {
	local key sum=0
	for key in $(redis_says --scan --pattern "proxy_rate_limiter:$host:*"); do
		sum=$((sum + $(redis_says get "$key" | grep -xE '[0-9]+' || echo 0)))
	done
	echo $sum
}

scene_9() {
	local host worker let_through refused by_places victim giver taker given left tries most came_after
	local killed_with=0 back=1 held=()
	local -A tunnel_of=()
	places_of=()
	cat <<-END
		  Three workers, in three processes, are the way out to one fragile host, which must not have more than five
		  connections at once: not each, but together. They count in Redis. Four clients of each ask for a tunnel, all
		  twelve at once; those that get one keep it. Then one worker is killed (kill -9), and cannot say that its places
		  are free. Its counter in Redis lives for 30 seconds if nobody renews it: then they are.

	END
	start_targets 1
	host=127.0.0.1:${port_of[target1]}
	start_redis
	for worker in "${workers_of_scene_9[@]}"; do
		start_worker "$worker"
	done
	ask_all_at_once
	show_places
	echo "    a refusal: $(sed -n '1p;$p' "$tmp/refusal" | tr -d '\r' | xargs -d '\n')"
	check "of twelve at once five got through" [ "$let_through $refused" = "$cap 7" ]
	check "the target has five connections" wait_until 10 target_has $cap
	check "a refusal says 500, which host and which cap" refusal_says_why

	mapfile -t by_places < <(by_places)
	victim=${by_places[0]} giver=${by_places[1]} taker=${by_places[2]}
	given=${tunnel_of[$giver]}
	exec {given}>&-
	check "a client of $giver ends: at the target there are four" wait_until 10 target_has $((cap - 1))
	check "its place goes to a client of $taker" wait_until 10 takes_a_place "$taker"
	left=$((cap - places_of[$victim]))

	pause "$victim is killed"
	kill -KILL "${pid_of[$victim]}"
	wait "${pid_of[$victim]}" 2>/dev/null || killed_with=$?
	unset "pid_of[$victim]"
	check "$victim was killed" [ $killed_with -eq 137 ]
	check "its connections are gone: at the target there are $left" wait_until 10 target_has $left
	echo "  a client of $taker asks again and again:"
	wait_for_places "$taker"
	echo "    $came_after s  let through"
	check "until the dead worker's counter is gone, they are refused" [ "$tries" -gt 0 ]
	check "the places come back within $ttl s, and a little" is_at_most "$came_after" $((ttl + 2))
	while [ $back -le $cap ] && takes_a_place "$giver"; do
		back=$((back + 1))
	done
	check "all ${places_of[$victim]} places are back, and no more" [ $back -eq "${places_of[$victim]}" ]
	check "at the target there are five again" wait_until 10 target_has $cap
	check "while they were waited for there were never more than five" [ "$most" -le $cap ]
	let_go_of_all
	end_scene "$giver" "$taker"
}

refusal_says_why() { grep -q ' 500$' "$tmp/refusal" && grep -q "cap of $cap connections to $host" "$tmp/refusal"; }

# ---- scene 10
# ------------------------------------------------------------------------------------------------------------

throttle=20 # starts a second, of all nodes together

# A UDP port for the group. Not tried out: nodes on one machine share it, so a port that others use would not refuse
# ours. Below 32768 the kernel hands out none by itself.
find_group_port() {
	local i
	for ((i = 0; i < 1000; i++)); do
		group_port=$((20000 + RANDOM % 12000))
		cat /proc/net/udp* | awk -v port="$(printf ':%04X' $group_port)" '
			substr($2, length($2) - 4) == port { taken = 1 }
			END { exit taken }' && return 0
	done
	fail "no free UDP port from 20000 to 31999"
}

# start_node ID: in front of target ID.
start_node() {
	set -- "node$1" reverse --port 0 --bind 127.0.0.1 --endpoint "127.0.0.1:${port_of[target$1]}" --id "$1" \
		--unicast "127.255.255.255:$group_port" --threshold $throttle --backlog 2
	show_command "weir ${*:2}"
	start "$1" "$bin/weir" "${@:2}"
	if ! wait_until 10 speaks_or_ended "$1" 'listens on.*port=([0-9]+)' || [ -z "${port_of[$1]:-}" ]; then
		fail "$1 does not start"
	fi
}

# all_say WORDS NAME...: succeeds if the log of each has them.
all_say() {
	local words=$1 name
	shift
	for name; do
		grep -q "$words" "$tmp/$name.err" || return 1
	done
}

# load_node ID COUNT: a client that sends so many requests to that node, all at once.
load_node() {
	start "client$1" "$bin/client_demo" --url "http://127.0.0.1:${port_of[node$1]}/" --count "$2" --concurrency "$2" \
		--timeout 30 --expect 200
}

clients_end_well() {
	local id bad=0
	for id; do
		finish "client$id"
		[ "$stopped_with" -eq 0 ] || bad=1
	done
	return $bad
}

arrived() { wc -l <"$tmp/arrivals"; }

# begin_bars: of the arrivals from now on. There is a row for each second, counted from the first of them.
begin_bars() {
	bars_after=$(arrived) bars_first='' bars_second=0 notes=()
}

# note WORDS: what happens now, to be said at the end of the row of this second.
note() {
	local second=0
	[ -z "$bars_first" ] || second=$(((${EPOCHREALTIME/./} - bars_first) / 1000000))
	notes[second]+="${notes[second]:+; }$*"
}

new_arrivals() { tail -n "+$((bars_after + 1))" "$tmp/arrivals" | sort -n; }

# The second that is next: for each request the number of the target, which is that of its node.
show_bar() {
	new_arrivals | awk -v first="${bars_first:0:-6}.${bars_first: -6}" -v second=$bars_second -v most=$throttle \
		-v note="${notes[bars_second]:+  <- ${notes[bars_second]}}" -v plain="$plain" -v colours="${letter_colours[*]:1:3}" '
		BEGIN { split(colours, colour, " ") }
		$1 - first >= second && $1 - first < second + 1 {
			id = substr($2, 7)
			row = row colour[id] id plain
			count++
		}
		END {
			room = (most > count ? most - count : 0)
			printf "    second %d: %s%*s| %2d started%s\n", second + 1, row, room, "", count, note
		}'
	bars_second=$((bars_second + 1))
}

# Those whose seconds have been over for a while: what arrived must have been written down as well.
show_bars_so_far() {
	if [ -z "$bars_first" ]; then
		[ "$(arrived)" -gt "$bars_after" ] || return 0
		bars_first=$(new_arrivals | sed -n '1 { s/ .*//; s/\.//; p; }')
	fi
	while [ "${EPOCHREALTIME/./}" -ge $((bars_first + bars_second * 1000000 + 1250000)) ]; do
		show_bar
	done
}

bars_reach() {
	show_bars_so_far
	[ "$(arrived)" -ge "$1" ]
}

# bars_until COUNT: goes on until so many requests have arrived, since the scene began.
bars_until() { wait_until 30 bars_reach "$1" || fail "only $(arrived) requests arrived, of $1"; }

# end_bars COUNT: when so many have arrived, and the rest is shown without waiting for its seconds to be over.
end_bars() {
	local last
	bars_until "$1"
	last=$(new_arrivals | sed -n '$ { s/ .*//; s/\.//; p; }')
	while [ $((bars_first + bars_second * 1000000)) -le "$last" ]; do
		show_bar
	done
}

# most_of TARGET: the most requests that it got within a second.
most_of() {
	sort -n "$tmp/arrivals" | awk -v name="$1" '
		$2 == name {
			at[++count] = $1
			while (at[count] - at[first + 1] >= 1)
				first++
			if (count - first > most)
				most = count - first
		}
		END { print most + 0 }'
}

# The longest time without arrivals from a line on, in seconds.
longest_quiet() {
	sort -n "$tmp/arrivals" | awk -v from="$1" '
		NR > from && $1 - last > longest { longest = $1 - last }
		{ last = $1 }
		END { printf "%.2f\n", longest }'
}

# What node ID says about the group, from when it lost its master.
group_log() { sed -nE '/node 1 is gone/,$ s/^[^ ]+ [a-z]+ +reverse: ((node|the group) .*)/\1/p' "$tmp/node$1.err"; }

# follow_node_2 ID...: succeeds if each says that it does, now that node 1 is gone.
follow_node_2() {
	local id
	for id; do
		group_log "$id" | grep -q '^node 2 is the master of the group' || return 1
	done
}

scene_10() {
	local id group_port bars_after bars_first bars_second killed_with=0 killed tightest quiet
	local notes=()
	cat <<-END
		  Three nodes, each before a server of its own, share one throttle: together they may start $throttle requests a
		  second, for the sake of a database behind all three. They find each other by broadcast, and the one with the
		  lowest id is master. 25 requests come to node 1, then 25 to node 2, then 25 to node 3. Each sign below is a
		  request that arrives, and says through which node; the line stands at $throttle.

	END
	: >"$tmp/arrivals"
	start_targets 3 --log "$tmp/arrivals"
	find_group_port
	for id in 1 2 3; do
		start_node $id
	done
	check "all three say that node 1 is master" wait_until 20 all_say 'node 1 is the master of the group' node1 node2 node3
	show_command "client_demo --url http://127.0.0.1:${port_of[node1]}/ --count 25 --concurrency 25   # then 2, then 3"
	begin_bars
	note "the load is on node 1"
	load_node 1 25
	bars_until 25
	note "it moves on to node 2"
	load_node 2 25
	bars_until 50
	note "it moves on to node 3"
	load_node 3 25
	end_bars 75
	check "all 75 were served" clients_end_well 1 2 3
	check "a node that is asked alone is not held to a third: $(most_of target1) a second through node 1" \
		[ "$(most_of target1)" -gt $((throttle / 3 + 1)) ]

	echo "  Now 35 requests come to node 2 and 35 to node 3, and in the middle of it the master is killed (kill -9)."
	show_command "client_demo --url http://127.0.0.1:${port_of[node2]}/ --count 35 --concurrency 35   # and 3"
	begin_bars
	load_node 2 35
	load_node 3 35
	bars_until 100
	kill -KILL "${pid_of[node1]}"
	wait "${pid_of[node1]}" 2>/dev/null || killed_with=$?
	unset "pid_of[node1]"
	killed=$(arrived)
	note "node 1, the master, is killed"
	end_bars 145
	for id in 2 3; do
		group_log $id | sed "s/^/    node $id says: /"
	done
	tightest=$(tightest $((throttle + 1)) "$tmp/arrivals") quiet=$(longest_quiet "$killed")
	echo "    for $quiet s nothing started; any $((throttle + 1)) requests in a row took at least $tightest s to start"
	check "node 1 was killed" [ $killed_with -eq 137 ]
	check "nodes 2 and 3 say that it is gone" all_say 'node 1 is gone from the group' node2 node3
	check "both say that node 2 is master now" wait_until 10 follow_node_2 2 3
	check "node 2 waited until what the dead master gave was over: more than a second" is_at_least "$quiet" 1
	check "those who waited kept their places: all 70 were served" clients_end_well 2 3
	check "the targets saw what the clients saw: 145 requests" [ "$(arrived)" -eq 145 ]
	check "in no second, from first to last, did more than $throttle start" is_about_a_second "$tightest"
	end_scene node2 node3
}

# ---- by hand
# ------------------------------------------------------------------------------------------------------------------

# open_line: a connection to weir, to write on by hand. Leaves its descriptor in line.
open_line() {
	exec {line}<>"/dev/tcp/127.0.0.1/${port_of[weir]}" || fail "weir takes no connections"
}

# write_at_once DESCRIPTOR FORMAT [VALUE...]: as printf, but in one write(): bash makes one for each line.
write_at_once() {
	local connection=$1
	shift
	# shellcheck disable=SC2059 # a format is what is asked for
	printf "$@" >"$tmp/at_once"
	cat "$tmp/at_once" >&"$connection"
}

# hang_up DESCRIPTOR
hang_up() {
	local connection=$1
	exec {connection}>&-
}

# read_to_end DESCRIPTOR FILE: all that comes until the other side closes; then this side closes too.
read_to_end() {
	timeout 20 cat <&"$1" >"$2" || : # one that never closes is seen by what is missing
	hang_up "$1"
}

# The bytes of a file, a line for each line, with the ends that HTTP gives them.
show_bytes() { sed -e 's/\r$/\\r\\n/' -e 's/^/      /' "$1" | awk 1; }

# count_lines PATTERN FILE: how many lines match.
count_lines() { grep -cE -- "$1" "$2" || :; }

has_line() { grep -qE -- "$1" "$2"; }
lacks_line() { ! has_line "$@"; }

# ---- scene 11
# ------------------------------------------------------------------------------------------------------------

# A target that writes down what it reads: the bytes of one head, as they come, in $tmp/target_read; and then answers
# with what is in $tmp/target_wrote. In Perl, whose least part is in every Debian: a shell can't listen.
start_recorder() {
	# shellcheck disable=SC2016 # those are Perl's
	start recorder perl -MIO::Socket::INET -e '
		$| = 1;
		my ($folder) = @ARGV;
		my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1") or die "cannot listen: $!\n";
		print "listens on port ", $listener->sockport, "\n";
		my $connection = $listener->accept or die "cannot accept: $!\n";
		open(my $read, ">:raw", "$folder/target_read") or die "$!\n";
		while (defined(my $line = <$connection>)) {
			print $read $line;
			last if $line eq "\r\n";
		}
		close($read);
		open(my $answer, "<:raw", "$folder/target_wrote") or die "$!\n";
		print $connection $_ while <$answer>;
		$connection->flush;
		print "was asked from port ", $connection->peerport, "\n";
		1 while <$connection>;' "$tmp"
	if ! wait_until 10 speaks_or_ended recorder 'listens on port ([0-9]+)' || [ -z "${port_of[recorder]:-}" ]; then
		fail "the target does not start"
	fi
	endpoints=127.0.0.1:${port_of[recorder]}
}

# The port at this end of a connection of this shell's.
own_port_of() {
	local inode port
	inode=$(readlink "/proc/$BASHPID/fd/$1")
	port=$(awk -v inode="${inode//[!0-9]/}" '$10 == inode { sub(".*:", "", $2); print $2 }' /proc/net/tcp /proc/net/tcp6)
	echo $((16#$port))
}

asked_from() { sed -n 's/^was asked from port //p' "$tmp/recorder.out"; }

scene_11() {
	local line client_port
	cat <<-END
		  A proxy is a client and a server at once: it reads a request from one connection, and writes another to a
		  second one. Here are the bytes of all four: what the client wrote and read, and what the target read and
		  wrote. What concerns one connection alone (Connection and what it names, Keep-Alive) stays on its side.

	END
	printf '%s\r\n' 'HTTP/1.1 200 OK' 'Keep-Alive: timeout=5' 'Connection: keep-alive' 'Content-Length: 15' '' \
		>"$tmp/target_wrote"
	echo 'A byte is here.' | head -c 15 >>"$tmp/target_wrote"
	printf '%s\r\n' 'GET /hello?to=all HTTP/1.1' 'Host: www.example' 'X-Kept: this goes on' 'Connection: close, X-Hop' \
		'X-Hop: this does not' '' >"$tmp/client_wrote"
	start_recorder
	start_weir
	open_line
	client_port=$(own_port_of "$line")
	cat "$tmp/client_wrote" >&"$line"
	read_to_end "$line" "$tmp/client_read"
	check "the target was asked" wait_until 10 has_line '^was asked' "$tmp/recorder.out"
	echo "    the client wrote, from port $client_port to weir's ${port_of[weir]}:"
	show_bytes "$tmp/client_wrote"
	echo "    the target read, from weir's port $(asked_from) at its own ${port_of[recorder]}:"
	show_bytes "$tmp/target_read"
	echo "    the target wrote:"
	show_bytes "$tmp/target_wrote"
	echo "    the client read:"
	show_bytes "$tmp/client_read"
	check "two connections: the target knows weir's port, not the client's" [ "$(asked_from)" -ne "$client_port" ]
	check "the request line went through as it was" \
		[ "$(head -n 1 "$tmp/target_read")" = "$(head -n 1 "$tmp/client_wrote")" ]
	check "so did X-Kept" has_line '^X-Kept: this goes on' "$tmp/target_read"
	check "X-Hop, which Connection names, ended at weir" lacks_line '^X-Hop' "$tmp/target_read"
	check "weir says that it was in between: Via" has_line '^Via: 1.1 ' "$tmp/target_read"
	check "the target's Keep-Alive ended at weir" lacks_line '^Keep-Alive' "$tmp/client_read"
	check "the body of the answer is the same, byte for byte" \
		[ "$(tail -n 1 "$tmp/client_read")" = "$(tail -n 1 "$tmp/target_wrote")" ]
	end_scene
}

# ---- scene 12
# ------------------------------------------------------------------------------------------------------------

slow_clients=20

# The threads of weir that serve a connection, or wait for one.
client_threads() { cat "/proc/${pid_of[weir]}"/task/*/comm 2>/dev/null | grep -c '^weir:client' || :; }
has_client_threads() { [ "$(client_threads)" -ge "$1" ]; }
at_the_door_stand() { [ "$(at_the_door)" -eq "$1" ]; }

show_threads() { printf '    %-34s %2d threads  %s\n' "$1" "$2" "$(bar "$2" '#')"; }

# begin_slowly COUNT: so many clients each write half a request, and no more. Leaves their connections in half_asked.
begin_slowly() {
	local i line
	half_asked=()
	for ((i = 0; i < $1; i++)); do
		open_line
		printf 'GET / HTTP/1.1\r\nHost: slow.example\r\n' >&"$line"
		half_asked+=("$line")
	done
}

# end_slowly: they write the other half, and read the answers. Leaves in slow_answers how many were answered with 200.
end_slowly() {
	local line
	slow_answers=0
	for line in "${half_asked[@]}"; do
		printf 'Connection: close\r\n\r\n' >&"$line"
		read_to_end "$line" "$tmp/answer"
		if has_line '^HTTP/1.1 200 ' "$tmp/answer"; then
			slow_answers=$((slow_answers + 1))
		fi
	done
}

scene_12() {
	local half_asked slow_answers first second
	cat <<-END
		  Each connection has a thread of its own, which waits in read() for as long as its client takes. Twenty clients
		  send half a request and fall silent: twenty threads wait, and nobody else notices. There is always one more in
		  accept(), for the next. When a connection is over its thread does not end: it waits for another one.

	END
	start_targets 1
	start_weir --header-timeout 3600 # --slow may take its time
	check "at first one thread, in accept()" wait_until 10 has_client_threads 1
	show_threads "nobody is here" "$(client_threads)"
	begin_slowly $slow_clients
	check "twenty slow clients: a thread for each, and one in accept()" \
		wait_until 10 has_client_threads $((slow_clients + 1))
	show_threads "$slow_clients slow clients" "$(client_threads)"
	run_client --count 100 --concurrency 1 --expect 200
	sed -n 's/^ *latency/    a client that is not slow: latency/p' "$tmp/answers"
	check "meanwhile a hundred requests of another client are served" [ "$client_status" -eq 0 ]
	check "the slow ones are still there, and have no answer yet" wait_until 10 at_the_door_stand $slow_clients
	end_slowly
	check "now they send the rest, and each has its answer" [ "$slow_answers" -eq $slow_clients ]
	check "their connections are over" wait_until 10 at_the_door_stand 0
	first=$(client_threads)
	begin_slowly $slow_clients
	end_slowly
	second=$(client_threads)
	show_threads "they were served; all wait again" "$first"
	show_threads "$slow_clients more came and went" "$second"
	# The last thread of the first twenty may not yet have been back.
	check "the second twenty found threads that were there: twenty more were not started" \
		[ "$second" -le $((first + 2)) ]
	end_scene
}

# ---- scene 13
# ------------------------------------------------------------------------------------------------------------

# write_bytewise DESCRIPTOR TEXT: a write() for each byte.
write_bytewise() {
	local i
	for ((i = 0; i < ${#2}; i++)); do
		printf '%s' "${2:i:1}" >&"$1"
	done
}

# The bytes that weir took for one request each, so far: "read 62 bytes: GET /" in its trace.
heads_read() { sed -nE 's/^trace .* read +([0-9]+) bytes.*/\1/p' "$tmp/weir.err" | xargs; }

# What the client read, without what differs from one answer to the next by right: the time of day.
without_date() { sed '/^Date: /d' "$1"; }

show_statuses() { echo "    $1: $(sed -nE 's/.*(HTTP\/1.1 [0-9]+).*/\1/p' "$2" | xargs -d '\n')"; }

scene_13() {
	local line first second length
	first=$(printf 'GET / HTTP/1.1\r\nHost: www.example\r\n\r\n.') first=${first%.}
	second=$(printf 'GET /ping/ HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n.') second=${second%.}
	length=${#second}
	cat <<-END
		  TCP carries bytes, not messages: what one write() sends may come in many read()s, and many in one. So the end
		  of a request is found in the bytes and nowhere else. The same request is written at once and byte by byte;
		  then two requests in one write(), and then one and a half, and the rest.

	END
	start_targets 1 --log "$tmp/arrivals"
	start_weir --trace
	open_line
	write_at_once "$line" '%s' "$second"
	read_to_end "$line" "$tmp/whole"
	show_statuses "at once, $length bytes in one write()" "$tmp/whole"
	open_line
	write_bytewise "$line" "$second"
	read_to_end "$line" "$tmp/bytewise"
	show_statuses "byte by byte, $length bytes in $length write()s" "$tmp/bytewise"
	check "weir found the same end: $length bytes, both times" [ "$(heads_read)" = "$length $length" ]
	check "the same answer, but for the time of day" \
		[ "$(without_date "$tmp/whole")" = "$(without_date "$tmp/bytewise")" ]
	open_line
	write_at_once "$line" '%s%s' "$first" "$second"
	read_to_end "$line" "$tmp/two"
	show_statuses "two in one write()" "$tmp/two"
	check "two requests in one write(): two answers" [ "$(count_lines 'HTTP/1.1 200' "$tmp/two")" -eq 2 ]
	check "in the order of the requests: Hello, world! and then pong" \
		[ "$(grep -oE 'Hello, world!|pong' "$tmp/two" | xargs -d '\n')" = "Hello, world! pong" ]
	open_line
	write_at_once "$line" '%s%s' "$first" "${second:0:20}"
	check "one and a half: the one is answered" wait_until 10 target_was_asked 5
	printf '%s' "${second:20}" >&"$line"
	read_to_end "$line" "$tmp/half"
	show_statuses "one and a half, and the rest" "$tmp/half"
	check "and the other, when the rest has come" [ "$(count_lines 'HTTP/1.1 200' "$tmp/half")" -eq 2 ]
	check "the target saw six requests, and nothing else" wait_until 10 target_was_asked 6
	end_scene
}

target_was_asked() { [ "$(wc -l <"$tmp/arrivals")" -eq "$1" ]; }

# ---- scene 14
# ------------------------------------------------------------------------------------------------------------

places=2

# start_forward OPTION...: a way out, on a free port.
start_forward() {
	set -- forward --port 0 --bind 127.0.0.1 "$@"
	show_command "weir $*"
	start weir "$bin/weir" "$@"
	if ! wait_until 10 speaks_or_ended weir 'listen[a-z]* on.*port=([0-9]+)' || [ -z "${port_of[weir]:-}" ]; then
		fail "weir does not start"
	fi
}

scene_14() {
	local host line tunnel held=() asked
	cat <<-END
		  A forward proxy stands before its clients, and they say where to. A plain request names its whole address; for
		  all else the client asks for a tunnel (CONNECT), and what goes through that weir does not read. Here two
		  connections to one host may be open at once, and no other host may be asked at all.

	END
	start_targets 1
	host=127.0.0.1:${port_of[target1]}
	start_forward --max-connections $places --connect-allow "$host"
	open_line
	write_at_once "$line" 'GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$host" "$host"
	read_to_end "$line" "$tmp/plain"
	echo "    GET http://$host/: $(head -n 1 "$tmp/plain" | tr -d '\r'), $(tail -n 1 "$tmp/plain")"
	check "a plain request, by its whole address" has_line '^Hello, world!' "$tmp/plain"

	check "CONNECT: a tunnel" takes_a_place weir
	tunnel=$asked
	write_at_once "$tunnel" 'GET /ping/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$host"
	read_to_end "$tunnel" "$tmp/tunnelled"
	held=()
	echo "    in the tunnel, GET /ping/: $(sed -n '/HTTP/p;$p' "$tmp/tunnelled" | tr -d '\r' | xargs -d '\n')"
	check "the target answers in it as if nobody stood between: pong" has_line 'pong$' "$tmp/tunnelled"
	check "and no proxy is named in it" lacks_line '^Via:' "$tmp/tunnelled"

	check "the tunnel is over; the plain request's connection is kept for the next one: the target has one" \
		wait_until 10 target_has 1
	check "a tunnel is let through, and held" takes_a_place weir
	tunnel=$asked
	check "a second one: the idle connection gives way to it" takes_a_place weir
	check "a third is refused" is_refused weir
	echo "    a refusal: $(sed -n '1p;$p' "$tmp/refusal" | tr -d '\r' | xargs -d '\n')"
	check "with 500, the host and the cap" has_line "cap of $places connections to $host" "$tmp/refusal"
	check "the target has two connections" wait_until 10 target_has $places
	hang_up "$tunnel"
	held=("${held[@]:1}") # its number may be given to the next
	check "the first one ends: at the target there is one" wait_until 10 target_has $((places - 1))
	check "and there is room for another" wait_until 10 takes_a_place weir

	host=127.0.0.1:${port_of[weir]}
	check "a way to another port of this machine is refused" is_refused weir
	echo "    a refusal: $(sed -n '1p;$p' "$tmp/refusal" | tr -d '\r' | xargs -d '\n')"
	check "with 403: it is not on the list" has_line '^HTTP/1.1 403' "$tmp/refusal"
	let_go_of_all
	end_scene
}

is_refused() { ! takes_a_place "$1"; }

# ---- scene 15
# ------------------------------------------------------------------------------------------------------------

# ask_securely NAME FILE [OPTION...]: GET / over TLS, of a server that must prove that it is NAME. What OpenSSL says of
# the connection, and the answer, are in FILE. Fails if the handshake does.
ask_securely() {
	local name=$1 file=$2
	shift 2
	printf 'GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$name" |
		timeout 20 openssl s_client -connect "127.0.0.1:${port_of[weir]}" -servername "$name" -verify_hostname "$name" \
			-verify_return_error -ign_eof "$@" >"$file" 2>&1
}

fails_to_ask() { ! ask_securely "$@"; }

scene_15() {
	local line
	command -v openssl >/dev/null || fail "there is no openssl here; deploy/prerequisites.sh demo installs it"
	cat <<-END
		  TLS gives three things: nobody on the way can read, nobody can change, and the server proves who it is. weir
		  has the key and the certificate; the target behind it speaks plain HTTP. A client that knows the authority is
		  served. One that does not, or that wants another name, hangs up in the middle of the handshake.

	END
	show_command "openssl req -x509 -newkey ec -subj /CN=weir.example -addext subjectAltName=DNS:weir.example ..."
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=weir.example \
		-addext subjectAltName=DNS:weir.example -keyout "$tmp/key.pem" -out "$tmp/crt.pem" 2>"$tmp/openssl.err" ||
		fail "openssl makes no certificate"
	start_targets 1 --log "$tmp/arrivals"
	start_weir --tls-keyfile "$tmp/key.pem" --tls-crtfile "$tmp/crt.pem"
	check "a client that knows the authority is served" \
		ask_securely weir.example "$tmp/first" -CAfile "$tmp/crt.pem" -sess_out "$tmp/session"
	sed -nE 's/^(subject=|New, |Verification: )/    \1/p' "$tmp/first" | sort -u
	check "the certificate was verified" has_line '^Verification: OK' "$tmp/first"
	check "the answer is there: Hello, world!" has_line '^Hello, world!' "$tmp/first"
	check "when it comes again, it brings the session along" \
		ask_securely weir.example "$tmp/second" -CAfile "$tmp/crt.pem" -sess_in "$tmp/session"
	sed -nE 's/^(Reused, )/    \1/p' "$tmp/second"
	check "and the handshake is a short one: resumed, without a certificate" has_line '^Reused, TLSv1.3' "$tmp/second"
	check "who wants another name hangs up" fails_to_ask other.example "$tmp/other" -CAfile "$tmp/crt.pem"
	sed -nE 's/^(verify error)/    \1/p' "$tmp/other"
	check "because of the name" has_line 'hostname mismatch' "$tmp/other"
	check "who does not know the authority hangs up" \
		fails_to_ask weir.example "$tmp/stranger" -no-CAfile -no-CApath -no-CAstore
	sed -nE 's/^(verify error)/    \1/p' "$tmp/stranger"
	open_line
	write_at_once "$line" 'GET / HTTP/1.1\r\nHost: weir.example\r\n\r\n'
	read_to_end "$line" "$tmp/plain"
	echo "    plain HTTP on this port: $(tail -n 1 "$tmp/plain")"
	check "plain HTTP on this port is told what the port speaks" has_line '^400 .*speaks HTTPS' "$tmp/plain"
	check "the target was asked twice: by the two who had proof" wait_until 10 target_was_asked 2
	end_scene
}

# ---- scene 16
# ------------------------------------------------------------------------------------------------------------

hidden='GET /secret HTTP/1.1\r\nHost: www.example\r\n\r\n'

# smuggle FIELDS [BODY]: writes a request with them, and behind it a second one, hidden. Shows what weir says.
smuggle() {
	local line
	open_line
	write_at_once "$line" "POST / HTTP/1.1\r\nHost: www.example\r\n$1\r\n\r\n${2:-}$hidden"
	read_to_end "$line" "$tmp/answer"
	printf '    %-54s %s\n' "$1" "$(tail -n 1 "$tmp/answer" | cut -c 1-60)"
	check "refused with 400, and the connection is closed" is_refused_once
}

is_refused_once() { [ "$(count_lines '^HTTP/1.1 ' "$tmp/answer")$(count_lines '^HTTP/1.1 400 ' "$tmp/answer")" = 11 ]; }

# drip DESCRIPTOR: a field every tenth of a second, for ever: this head never ends.
drip() {
	trap exit TERM
	printf 'GET / HTTP/1.1\r\nHost: www.example\r\n' >&"$1"
	while printf 'X-Drop: 1\r\n' >&"$1"; do
		sleep 0.1
	done
}

scene_16() {
	local line begun took
	cat <<-END
		  Two programs that read one request in two ways can be robbed: what the first takes for a body is a request for
		  the second, and nobody has looked at it. So what can be read in two ways is refused. And a client that sends a
		  head for ever, a little at a time, would keep a thread for ever: it has one second here, for all of it.

	END
	start_targets 1 --log "$tmp/arrivals"
	start_weir --header-timeout 1
	smuggle 'Content-Length: 5\r\nTransfer-Encoding: chunked' '0\r\n\r\n'
	smuggle 'Content-Length: 0\r\nContent-Length: 44'
	smuggle 'Content-Length : 44'
	smuggle 'Transfer-Encoding: chunked, identity'
	smuggle 'Transfer-Encoding: chunked' 'fffffffffffffffff\r\n'
	check "the target saw none of it" lacks_line secret "$tmp/arrivals"
	show_command "client_demo --count 20 --expect 200   # and a client that drips"
	open_line
	begun=${EPOCHREALTIME/./}
	start drip drip "$line"
	client_status=0
	setsid "$bin/client_demo" --url "$url" --count 20 --expect 200 >"$tmp/answers" 2>"$tmp/client.err" || client_status=$?
	check "while one client drips, others are served" [ "$client_status" -eq 0 ]
	read_to_end "$line" "$tmp/answer"
	took=$(awk -v us=$((${EPOCHREALTIME/./} - begun)) 'BEGIN { printf "%.1f", us / 1e6 }')
	stop drip
	echo "    after $took s: $(tail -n 1 "$tmp/answer")"
	check "the one who drips is told that its time is over: 408" has_line '^HTTP/1.1 408 ' "$tmp/answer"
	check "not before its second was over, and not long after" is_between "$took" 0.9 15
	check "it hangs up: nobody is at the door" wait_until 10 at_the_door_stand 0
	check "and the target never heard of it: it was asked 20 times" wait_until 10 lines_of_clients 20
	end_scene
}

is_between() { is_at_least "$1" "$2" && is_at_most "$1" "$3"; }

# What the smugglers' own POST was, before it was found out, may have reached the target as the beginning of one.
lines_of_clients() { [ "$(count_lines ' GET / 200$' "$tmp/arrivals")" -eq "$1" ]; }

# ---- scene 17
# ------------------------------------------------------------------------------------------------------------

measured=1000

# The times that weir's threads have gone to sleep, all together.
switches() {
	cat "/proc/${pid_of[weir]}"/task/*/status 2>/dev/null |
		awk '/^voluntary_ctxt_switches/ { sum += $2 } END { print sum + 0 }'
}

# measure NAME TITLE URL [OPTION...]: leaves the client's summary in $tmp/NAME, and shows what counts.
measure() {
	local name=$1 url=$3 before
	echo "  $2:"
	shift 3
	before=$(switches)
	run_client --count $measured --expect 200 "$@"
	mv "$tmp/answers" "$tmp/$name"
	slept=$((($(switches) - before) * 10 / measured))
	sed -nE '1s/.*\(([0-9.]+ a second)\).*/    \1/p; s/^ *(latency ms)/    \1/p' "$tmp/$name"
	echo "    connections of the client: $(connections_in "$name"); threads of weir went to sleep" \
		"$((slept / 10)).$((slept % 10)) times a request"
	check "all $measured answered with 200" [ "$client_status" -eq 0 ]
}

connections_in() { sed -nE 's/^ *connections ([0-9]+),.*/\1/p' "$tmp/$1"; }

median_in() { sed -nE 's/^ *latency ms +p50 ([0-9.]+).*/\1/p' "$tmp/$1"; }

scene_17() {
	local slept target_url
	cat <<-END
		  What does it cost to have weir in between? One client asks $measured times, one request after the other: the
		  target itself, then through weir on one connection, then through weir with a connection for each request. All
		  of it runs on this machine and shares its processors, so compare the three, and trust none of them alone.

	END
	start_targets 1
	start_weir
	target_url=http://127.0.0.1:${port_of[target1]}/
	measure direct "without weir" "$target_url"
	measure kept "through weir" "$url"
	measure fresh "through weir, with a connection for each request" "$url" --keepalive no
	awk -v direct="$(median_in direct)" -v kept="$(median_in kept)" -v fresh="$(median_in fresh)" 'BEGIN {
		printf "    half of the requests took at most %.0f us without weir, %.0f us with it, ", direct * 1000, kept * 1000
		printf "%.0f us with a connection for each\n", fresh * 1000
	}'
	check "one connection was enough for $measured requests" [ "$(connections_in kept)" -eq 1 ]
	check "without keep-alive it took $measured" [ "$(connections_in fresh)" -eq $measured ]
	check "who waits sleeps: a thread does not spin" [ "$slept" -gt 0 ]
	end_scene
}

# ---- scene 18
# ------------------------------------------------------------------------------------------------------------

# Each line of the trace, and the place in the source that writes it.
show_hops() {
	local hop rest
	while read -r _ _ _ time hop rest; do
		printf '    %-10s %-8s %-42s %s\n' "$time" "$hop" "$rest" "$(place_of "$hop")"
	done
}

# place_of HOP: file and line, in the files that a reverse proxy's road leads through.
place_of() {
	(cd "$here" && grep -nE "road_trace\(.*\"$1 " proxy.c admit.c reverse.c attempt.c) |
		sed -nE '1s/^([a-z.]+:[0-9]+):.*/\1/p'
}

hops() { awk '$1 == "trace" { print $5 }' "$tmp/weir.err" | xargs; }

scene_18() {
	cat <<-END
		  --trace writes a line for each hop of each request. Here is the road of one, with the time since it began and
		  the line of the source that says so: an order in which to read it. Then a second request of the same client
		  takes a shorter road: its connections are there already.

	END
	start_targets 1
	start_weir --trace
	run_client --count 2 --expect 200
	check "two requests, both answered" [ "$client_status" -eq 0 ]
	check "weir has written both to the end" wait_until 10 has_ended_requests 2
	awk '$1 == "trace"' "$tmp/weir.err" | show_hops
	check "the first: from accept to end, in this order" \
		has_hops 'accept read pick connect send answer relay end again read pick reuse send answer relay end'
	check "each hop is found in the source" all_hops_have_places
	end_scene
}

has_ended_requests() { [ "$(count_lines '^trace .* end ' "$tmp/weir.err")" -ge "$1" ]; }
has_hops() { [ "$(hops)" = "$1" ]; }

all_hops_have_places() {
	local hop
	for hop in $(hops); do
		[ -n "$(place_of "$hop")" ] || return 1
	done
}

# ---- the classroom
# ------------------------------------------------------------------------------------------------------------

# Each program in a pane of its own, started from a shell of its own, so that one may be ended there with Ctrl-C and
# started again. tmux has its own server here, which knows nothing of the user's settings and sessions.
declare -A pane_of=()

tmux_here() { env -u TMUX LC_ALL=C.UTF-8 tmux -u -f /dev/null -S "$tmp/tmux" "$@"; }

# open_pane NAME TITLE: leaves its shell waiting for a command.
open_pane() {
	local made
	local shell=(env "PATH=$bin:$PATH" 'PS1=$ ' HISTFILE=/dev/null bash --noprofile --norc)
	if [ ${#pane_of[@]} -eq 0 ]; then
		made=$(tmux_here new-session -d -x 240 -y 66 -c "$here" -P -F '#{pane_id} #{pane_pid}' "${shell[@]}") ||
			fail "tmux does not start"
		tmux_here set -g history-limit 10000 \; set -g mouse on \; set -g assume-paste-time 0 \; \
			set -g pane-border-status top \; set -g pane-border-format ' #{pane_title} ' \; set -g status-right '' \; set -g status-left-length 100 \; \
			set -g status-left 'Ctrl-b and an arrow: another pane   Ctrl-b z: this pane alone   Ctrl-b d: the end' \; \
			setw -g window-status-format '' \; setw -g window-status-current-format ''
	else
		made=$(tmux_here split-window -c "$here" -P -F '#{pane_id} #{pane_pid}' "${shell[@]}") ||
			fail "tmux opens no pane for $1"
		tmux_here select-layout tiled
	fi
	pane_of[$1]=${made% *}
	echo "${made#* }" >>"$tmp/panes" # the pane's shell leads a session, in which its commands are
	tmux_here select-pane -t "${pane_of[$1]}" -T "$2"
	wait_until 10 pane_says "$1" 1 '^\$' || fail "there is no shell in the pane of $1"
}

# in_pane NAME COMMAND: types it, and Enter.
in_pane() {
	echo "  $1: $bold\$ $2$plain"
	tmux_here send-keys -t "${pane_of[$1]}" -l "$2"
	tmux_here send-keys -t "${pane_of[$1]}" Enter
}

# All that the pane has shown; lines that were too long for it are whole again.
pane_text() { tmux_here capture-pane -p -J -S - -t "${pane_of[$1]}"; }

# pane_says NAME COUNT PATTERN: succeeds if exactly so many of its lines match.
pane_says() {
	local lines
	lines=$(pane_text "$1") && [ "$(grep -cE "$3" <<<"$lines")" -eq "$2" ]
}

# Succeeds if nobody listens on any of these ports (0A: LISTEN).
are_free() {
	local port taken
	taken=$(cat /proc/net/tcp* | awk '$4 == "0A" { sub(".*:", "", $2); print $2 }')
	for port; do
		! grep -qx "$(printf '%04X' "$port")" <<<"$taken" || return 1
	done
}

# Leaves in base a number such that base and base+5 to base+8 are free: 2100 and 2105 to 2108, as it is usual. Only one
# script at a time looks for ports, and until its programs have them nobody else does: see keep_ports.
find_ports() {
	exec {ports_lock}<"$here/run_demo.sh"
	flock -w 60 "$ports_lock" || fail "another --terminals is still looking for its ports"
	for ((base = 2100; base < 10000; base += 100)); do
		! are_free "$base" $((base + 5)) $((base + 6)) $((base + 7)) $((base + 8)) || return 0
	done
	fail "no free ports from 2100 to 9999"
}

# When the programs listen. Not by closing: tmux has inherited the descriptor.
keep_ports() { flock -u "$ports_lock"; }

packet_terminals() {
	local id client policy port=$((base + 5)) packets pace=''
	[ $attaches = no ] || pace=' sleep 1;' # for those who watch
	open_pane weir "weir packet"
	for id in 100 101 102 103; do
		open_pane "server$id" "server $id, privacy policy $((111 + id % 2))"
	done
	open_pane client1 "client 1: packets for policy 111"
	open_pane client2 "client 2: packets for policy 112"
	in_pane weir "weir packet -port $base -bind 127.0.0.1"
	check "weir: it listens" wait_until 10 pane_says weir 1 'listens on .*port='"$base"
	for id in 100 101 102 103; do
		policy=$((111 + id % 2))
		in_pane "server$id" "server_demo -id $id -pp $policy -listen $port -revproc $base"
		check "server$id: it is set up" \
			wait_until 10 pane_says "server$id" 1 "^Set up as server id $id .*policy $policy"
		port=$((port + 1))
	done
	keep_ports
	check "weir: four servers have come" wait_until 10 pane_says weir 4 'setup message from server id 10[0-3]'
	for client in 1 2; do
		packets=$(seq -s ' ' "$client" 2 15)
		in_pane "client$client" \
			"for n in $packets; do client_demo -id $client -revproc $base -pkt pktfiles/\$n.json;$pace done"
	done
}

check_packet_terminals() {
	check "client1: eight correct hashes" wait_until 20 pane_says client1 8 '^Hash of payload is correct'
	check "client2: seven correct hashes" wait_until 20 pane_says client2 7 '^Hash of payload is correct'
	check "client1: servers 100 and 102 took turns" takes_turns client1 '100 102 100 102 100 102 100 102'
	check "client2: servers 101 and 103 took turns" takes_turns client2 '101 103 101 103 101 103 101'
	check "server100: four messages" wait_until 10 pane_says server100 4 '^Received a message from client 1 '
	check "server101: four messages" wait_until 10 pane_says server101 4 '^Received a message from client 2 '
	check "server102: four messages" wait_until 10 pane_says server102 4 '^Received a message from client 1 '
	check "server103: three messages" wait_until 10 pane_says server103 3 '^Received a message from client 2 '
	check "weir: fifteen messages forwarded" wait_until 10 pane_says weir 15 'forwarding the data message of client'
}

# takes_turns CLIENT IDS: the servers that answered it.
takes_turns() {
	[ "$(pane_text "$1" | sed -nE 's/^Receiving a response from server id ([0-9]+) .*/\1/p' | xargs)" = "$2" ]
}

reverse_terminals() {
	local i endpoints='' pace=''
	[ $attaches = no ] || pace=' --interval 1' # for those who watch
	open_pane weir "weir reverse"
	for i in 1 2 3; do
		open_pane "target$i" "target$i"
		endpoints+=${endpoints:+,}127.0.0.1:$((base + 4 + i))
	done
	open_pane client1 "client 1"
	open_pane client2 "client 2"
	for i in 1 2 3; do
		in_pane "target$i" "server_demo --http $((base + 4 + i)) --name target$i --log /dev/stdout"
		check "target$i: it listens" wait_until 10 pane_says "target$i" 1 "listens on port $((base + 4 + i))"
	done
	in_pane weir "weir reverse --port $base --bind 127.0.0.1 --endpoint $endpoints --access-log -"
	check "weir: it listens" wait_until 10 pane_says weir 1 'listens on .*port='"$base"
	keep_ports
	for i in 1 2; do
		in_pane "client$i" "client_demo --url http://127.0.0.1:$base/ --count 12 --print targets$pace"
	done
}

check_reverse_terminals() {
	local i
	for i in 1 2; do
		check "client$i: twelve answers" wait_until 20 pane_says "client$i" 12 '^target[1-3]$'
	done
	for i in 1 2 3; do
		check "target$i: its third of the 24 requests" wait_until 10 pane_says "target$i" 8 "target$i GET / 200"
	done
	check "weir: 24 lines of its access log" wait_until 10 pane_says weir 24 '"GET / HTTP/1.1" 200 '
}

play_terminals() {
	echo
	echo "${bold}In terminals of their own: $1$plain"
	[ $attaches = yes ] || echo "  (there is no terminal here to show them in: they are looked at and ended)"
	find_ports
	"${1}_terminals"
	if [ $attaches = yes ]; then
		# Not waited for as a command is, so that a signal to this script is heeded meanwhile.
		tmux_here attach-session <&0 &
		wait $! || fail "tmux cannot use this terminal"
	else
		"check_${1}_terminals"
		[ $failed_checks -eq 0 ] || show_panes >&2
	fi
}

show_panes() {
	local name
	for name in "${!pane_of[@]}"; do
		echo "--- the last lines in the pane of $name:"
		pane_text "$name" | sed '/^$/d' | tail -n 15
	done
}

# ---- the programme
# -------------------------------------------------------------------------------------------------------

while [ $# -gt 0 ]; do
	given=$1 option=$1 value=''
	[[ $option != -[a-z]* ]] || option=-$option # one dash does for two
	case $option in
	--*=*) value=${option#*=} option=${option%%=*} ;;
	--scene | --bin)
		[ $# -ge 2 ] || wrong "$option: nothing follows; allowed: a value, see --help"
		value=$2
		shift
		;;
	esac
	shift
	case $option in
	--scene)
		if ! [[ $value =~ ^[0-9]{1,3}$ ]] || ((10#$value < 1 || 10#$value > ${#scene_titles[@]})); then
			wrong "--scene: '$value' was read; allowed: 1 to ${#scene_titles[@]}"
		fi
		scenes+=($((10#$value)))
		;;
	--bin)
		bin=$(cd "$value" 2>/dev/null && pwd) || wrong "--bin: '$value' was read; allowed: a folder with the programs"
		builds=no
		;;
	--slow) slow=yes ;;
	--keep) keep=yes ;;
	--terminals)
		terminals=${value:-packet}
		[[ $terminals =~ ^(packet|reverse)$ ]] || wrong "--terminals: '$value' was read; allowed: packet, reverse"
		;;
	--list) list_scenes && exit 0 ;;
	--help) usage && exit 0 ;;
	*) wrong "unknown option '$given'; allowed: --scene --slow --keep --list --terminals --bin --help" ;;
	esac
done
if [ -n "$terminals" ] && [ "$slow$keep${#scenes[@]}" != nono0 ]; then
	wrong "--terminals shows no scenes: --scene, --slow and --keep do not go with it"
fi
if [ $slow = yes ] && ! { [ -t 0 ] && [ -t 2 ]; }; then
	wrong "--slow waits for Enter, and there is no terminal here; leave it out"
fi
[ ${#scenes[@]} -gt 0 ] || mapfile -t scenes < <(seq ${#scene_titles[@]})

if [ $builds = yes ]; then
	"$here/deploy/prerequisites.sh" demo
	make --no-print-directory -C "$here" -j"$(nproc)" weir server_demo client_demo
fi
for program in weir server_demo client_demo; do
	[ -x "$bin/$program" ] || fail "there is no $bin/$program"
done
if [ -n "$terminals" ]; then
	[ $builds = no ] || "$here/deploy/prerequisites.sh" terminals
	command -v tmux >/dev/null || fail "--terminals needs tmux; deploy/prerequisites.sh terminals installs it"
	if [ -t 0 ] && [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
		attaches=yes
	fi
fi

play() {
	story=$BASHPID
	trap '' INT
	trap 'exit 143' TERM HUP
	trap 'exit 141' PIPE
	trap 'clean_up $?' EXIT
	if [ -n "$terminals" ]; then
		play_terminals "$terminals"
		scenes=()
	fi

	scenes_left=${#scenes[@]}
	for scene in "${scenes[@]}"; do
		[ "$scenes_left" -eq ${#scenes[@]} ] || pause "the next scene"
		scenes_left=$((scenes_left - 1))
		echo
		echo "${bold}Scene $scene. ${scene_titles[scene - 1]} (${scene_chapters[scene - 1]})$plain"
		"scene_$scene"
	done
	echo
	if [ $failed_checks -gt 0 ]; then
		echo "${red}$failed_checks checks failed$plain"
		exit 1
	fi
	echo "${green}everything was seen to be so$plain"
}

trap 'interrupted 130' INT
trap 'interrupted 143' TERM HUP
tmp=$(mktemp -d)
play <&0 &
wait $!
