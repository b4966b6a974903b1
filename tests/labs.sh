#!/bin/bash
# tests/labs.sh [LAB...]: do the labs' graders say what they should? Called by `make labs_check`.
#
# Of each lab (or those named) it builds, each in place of ours, with make doing several at once:
#
#       skeleton.c    no warning, and less than full points: what is given is not the answer
#       our own       full points: the lab can be solved, and the reference solution is what weir runs
#       wrong/*.c     less than full points, and the text that its `grader:` line promises: a typical mistake is told by its name
#                     (one that hangs may say `seconds: 2`, how long each of its tests gets)
#
# Also: the handout names each test of grade.c. The last line is "N passed, N failed".
set -u
cd "$(dirname "$0")/.." || exit 1
. labs/functions.sh

MAKE=${MAKE:-make --no-print-directory}
export GRADE_SECONDS=${GRADE_SECONDS:-60} # a student's 10 s are for a machine that has nothing else to do
passed=0 failed=0
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT

pass() {
	passed=$((passed + 1))
}

# breach WHAT: counts a failure and shows what was printed.
breach() {
	failed=$((failed + 1))
	echo "labs: $1"
	sed 's/^/    /' "$output"
}

# check NAME GRADE WHAT: runs the graders on a solution and says whether it was to have full points (GRADE full) or fewer (less).
check() {
	local status
	run_graders "$lab" "$1" >"$output" 2>&1
	status=$?
	case $2-$status in
	full-0 | less-1) return 0 ;;
	*-0) breach "$lab: $3 has full points" ;;
	full-1) breach "$lab: $3 has not got full points" ;;
	*) breach "$lab: $3: a grader came to no result" ;;
	esac
	return 1
}

check_handout() {
	local sentence missing=0
	[ -x "build/lab/$lab/ours/grade" ] || return
	"build/lab/$lab/ours/grade" --list | sed 's/^ *[0-9]* *//' >"$output"
	while IFS= read -r sentence; do
		grep -qF "$sentence" "labs/$lab/README.md" || {
			echo "labs: $lab: README.md does not name the test \"$sentence\""
			missing=$((missing + 1))
		}
	done <"$output"
	if [ $missing -eq 0 ]; then pass; else failed=$((failed + 1)); fi
}

# first_comment FILE KEY: the value of its line "KEY: VALUE".
first_comment() {
	head -n 30 "$1" | sed -n "s/^[ *\/]*$2: //p" | head -n 1 | sed 's/ *\*\/$//'
}

# told_by_functions NAME TEXT: does grade.c see it? Most it does, and for those no program has to be linked and no server started.
told_by_functions() {
	local status
	[ -f "labs/$lab/grade.c" ] || return 1
	black_box=no run_graders "$lab" "$1" >"$output" 2>&1
	status=$?
	[ $status -eq 1 ] && grep -qF "$2" "$output"
}

check_wrong() {
	local name=$1 file=$2 promised seconds
	promised=$(first_comment "$file" grader)
	seconds=$(first_comment "$file" seconds)
	[ -n "$promised" ] || {
		: >"$output"
		breach "$file has no line \"grader: TEXT\" at its top"
		return
	}
	[ -z "$seconds" ] || local -x GRADE_SECONDS=$seconds
	if told_by_functions "$name" "$promised"; then
		pass
		return
	fi
	if ! build "$lab" "$name=$file" >"$output"; then
		breach "$file does not build"
		return
	fi
	check "$name" less "$file" || return
	if grep -qF "$promised" "$output"; then
		pass
	else
		breach "$file: the grader does not say \"$promised\""
	fi
}

[ $# -gt 0 ] || mapfile -t all < <(labs)
for lab in "${@:-${all[@]}}"; do
	started=$SECONDS
	solutions=("skeleton=labs/$lab/skeleton.c" "ours=$(conf "$lab" replaces)") wrong=()
	for file in "labs/$lab"/wrong/*.c; do
		[ ! -f "$file" ] || wrong+=("wrong-$(basename "$file" .c)=$file")
	done
	if ! build "$lab" "${solutions[@]}" >"$output" || ! programs=no build "$lab" "${wrong[@]}" >>"$output"; then
		breach "$lab does not build"
		continue
	fi
	if grep -q 'skeleton\.c:.*warning:' "$output"; then breach "labs/$lab/skeleton.c is not free of warnings"; else pass; fi
	! check skeleton less "labs/$lab/skeleton.c" || pass
	! check ours full "$(conf "$lab" replaces)" || pass
	check_handout
	for solution in "${wrong[@]}"; do
		check_wrong "${solution%%=*}" "${solution#*=}"
	done
	echo "$lab: ${#wrong[@]} wrong solutions, after $((SECONDS - started)) s"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
