#!/bin/bash
# tests/labs.sh [LAB...]: do the labs' graders say what they should? Called by `make labs_check`.
#
# Of each lab (or those named) it builds, each in place of ours, with make doing several at once:
#
#       skeleton.c    no warning, and less than full points: what is given is not the answer
#       our own       full points: the lab can be solved, and the reference solution is what weir runs
#       wrong/*.c     less than full points, and the text that its `grader:` line promises: a typical mistake is told by
#                     its name (one that hangs may say `seconds: 2`, how long each of its tests gets)
#
# Then as many graders run at once as there are processors. Also: the handout names each test of grade.c, and the list of
# labs in labs/README.md names each lab. The last line is "N passed, N failed".
set -u
cd "$(dirname "$0")/.." || exit 1
. labs/functions.sh

MAKE=${MAKE:-make --no-print-directory}
export GRADE_SECONDS=${GRADE_SECONDS:-60} # a student's 10 s are for a machine that has nothing else to do
passed=0 failed=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# breach WHAT [FILE]: says it, with what was printed. A check fails by it.
breach() {
	echo "labs: $1"
	[ $# -lt 2 ] || sed 's/^/    /' "$2"
	return 1
}

# points GRADE NAME WHAT OUTPUT: runs the graders on a solution, which is to have full points (GRADE full) or fewer (less).
points() {
	local status
	run_graders "$lab" "$2" >"$4" 2>&1
	status=$?
	case $1-$status in
	full-0 | less-1) return 0 ;;
	*-0) breach "$lab: $3 has full points" "$4" ;;
	full-1) breach "$lab: $3 has not got full points" "$4" ;;
	*) breach "$lab: $3: a grader came to no result" "$4" ;;
	esac
}

check_handout() {
	local sentence status=0
	grep -qF "($lab/README.md)" labs/README.md || breach "labs/README.md does not name $lab" || status=1
	[ -x "build/lab/$lab/ours/grade" ] || return $status
	while IFS= read -r sentence; do
		grep -qF "$sentence" "labs/$lab/README.md" ||
			breach "$lab: README.md does not name the test \"$sentence\"" || status=1
	done < <("build/lab/$lab/ours/grade" --list | sed 's/^ *[0-9]* *//')
	return $status
}

# first_comment FILE KEY: the value of its line "KEY: VALUE".
first_comment() {
	head -n 30 "$1" | sed -n "s/^[ *\/]*$2: //p" | head -n 1 | sed 's/ *\*\/$//'
}

# told_by_functions NAME TEXT OUTPUT: does grade.c see it? Most it does, and for those no program has to be linked and no
# server started.
told_by_functions() {
	local status
	[ -f "labs/$lab/grade.c" ] || return 1
	black_box=no run_graders "$lab" "$1" >"$3" 2>&1
	status=$?
	[ $status -eq 1 ] && grep -qF "$2" "$3"
}

check_wrong() {
	local name=$1 file=$2 output=$3 promised seconds
	promised=$(first_comment "$file" grader)
	seconds=$(first_comment "$file" seconds)
	[ -n "$promised" ] || breach "$file has no line \"grader: TEXT\" at its top" || return
	[ -z "$seconds" ] || local -x GRADE_SECONDS=$seconds
	! told_by_functions "$name" "$promised" "$output" || return 0
	(flock 9 && build "$lab" "$name=$file") >"$output" 9>"$scratch/lock" ||
		breach "$file does not build" "$output" || return
	points less "$name" "$file" "$output" || return
	grep -qF "$promised" "$output" || breach "$file: the grader does not say \"$promised\"" "$output"
}

# check_replay OUTPUT: of a lab whose threads are played from a seed: a seed gives the same picture twice, the handouts show
# what is so, the skeleton goes wrong in each of its scenes, the repaired twin in none, and ThreadSanitizer has nothing to say
# of the twin.
check_replay() {
	local seed output=$1 status=0 broken=build/lab/$lab/replay-broken/replay twin=build/lab/$lab/replay-twin/replay
	(flock 9 && build_replay "$lab" "replay-broken=labs/$lab/skeleton.c replay-twin=labs/$lab/reference.c") \
		>"$output" 2>&1 9>"$scratch/lock" || breach "$lab: replay does not build" "$output" || return
	for seed in 31 91 173; do
		"$broken" $seed >"$output"
		{ [ -s "$output" ] && "$broken" $seed | cmp -s "$output" -; } ||
			breach "$lab: seed $seed gives another picture the second time" "$output" || status=1
	done
	"$broken" 79 1 >"$output"
	{ [ "$(grep -c '^step  main' "labs/$lab/README.md")" -eq 1 ] &&
		! awk '/^step  main/ { shown = 1 } /^```/ { shown = 0 } shown' "labs/$lab/README.md" | grep -vxFf "$output"; } ||
		breach "$lab: the picture in README.md is not that of seed 79" "$output" || status=1
	grep -qF "(skeleton.c, line $(sed -n '/WRITE(g->served/=' "labs/$lab/skeleton.c"))" "labs/$lab/threadsanitizer.md" ||
		breach "$lab: the report in threadsanitizer.md is of an older skeleton.c: record it again (make replay TSAN=yes)" "$output" || status=1
	"$broken" >"$output"
	{ [ $? -eq 1 ] && [ "$(grep -c '^again: ' "$output")" -eq 5 ]; } ||
		breach "$lab: the broken one does not go wrong in each of its scenes" "$output" || status=1
	"$twin" >"$output" || breach "$lab: the repaired one goes wrong" "$output" || status=1
	{ labs/replay.sh "labs/$lab/reference.c" '' '' yes >"$output" 2>&1 && ! grep -q 'WARNING: ThreadSanitizer' "$output" &&
		grep -q ' times each: \([0-9]*\) served, and \1 is right' "$output"; } ||
		breach "$lab: ThreadSanitizer does not like the repaired one" "$output" || status=1
	return $status
}

# check NUMBER COMMAND...: one check, in the background; its verdict and what it says are kept until all are through.
check() {
	local number=$1
	shift
	{
		"$@" >"$scratch/said.$number"
		echo $? >"$scratch/verdict.$number"
	} &
}

# count_up NUMBER: shows and counts checks 1 to NUMBER.
count_up() {
	local i
	for ((i = 1; i <= $1; i++)); do
		cat "$scratch/said.$i"
		if [ "$(cat "$scratch/verdict.$i")" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	done
}

check_lab() {
	local started=$SECONDS wrong=() commands=() file name i
	for file in "labs/$lab"/wrong/*.c; do
		[ ! -f "$file" ] || wrong+=("wrong-$(basename "$file" .c)=$file")
	done
	if ! build "$lab" "skeleton=labs/$lab/skeleton.c" "ours=$(conf "$lab" replaces)" >"$scratch/built" ||
		! programs=no build "$lab" "${wrong[@]}" >>"$scratch/built"; then
		breach "$lab does not build" "$scratch/built"
		failed=$((failed + 1))
		return
	fi
	commands=(
		"! grep 'skeleton\.c:.*warning:' '$scratch/built'"
		"points less skeleton 'labs/$lab/skeleton.c' '$scratch/skeleton'"
		"points full ours '$(conf "$lab" replaces)' '$scratch/ours'"
		check_handout
	)
	[ ! -f "labs/$lab/replay.c" ] || commands+=("check_replay '$scratch/replay'")
	for file in "${wrong[@]}"; do
		name=${file%%=*}
		commands+=("check_wrong '$name' '${file#*=}' '$scratch/$name'")
	done
	for i in "${!commands[@]}"; do
		[ "$i" -lt "$(nproc)" ] || wait -n
		check $((i + 1)) eval "${commands[i]}"
	done
	wait
	count_up ${#commands[@]}
	echo "$lab: ${#wrong[@]} wrong solutions, after $((SECONDS - started)) s"
}

[ $# -gt 0 ] || mapfile -t all < <(labs)
for lab in "${@:-${all[@]}}"; do
	check_lab
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
