#!/bin/bash
# tests/run.sh FLAVOUR UNIT_FOLDER [BIN_FOLDER]: runs every test of one flavour and adds up what they say.
#
#       FLAVOUR      "" (plain), asan, tsan or coverage: which sanitizer's options to set, and how slow the programs are
#       UNIT_FOLDER  holds the unit tests' programs, test_*
#       BIN_FOLDER   holds weir, server_demo and client_demo for the system tests; without it only unit tests are run
#
# Each program ends with a line "N passed, N failed"; so does this one, with the sum. A program that dies, hangs or says
# nothing counts as one failure, and a run in which nothing was tested is a failure: silence is not a pass.
# shellcheck disable=SC2154 # under and slow_factor: use_flavour sets them
set -u
cd "$(dirname "$0")/.." || exit 1

flavour=$1 unit_folder=$2 bin_folder=${3:-}
system_seconds=${SYSTEM_SECONDS:-1200}
passed=0 failed=0
tries_left=$([ -n "${STRICT:-}" ] && echo 0 || echo 3)
output=$(mktemp) || exit 1
first_output=$(mktemp) || exit 1
trap 'rm -f "$output" "$first_output"' EXIT

. tests/flavour.sh
use_flavour "$flavour"

unit_seconds=$((300 * slow_factor))
export UNIT_SECONDS=${UNIT_SECONDS:-$((60 * slow_factor))} # for one test of them

# Of the last run: did a test of it fail, and nothing worse happen?
may_have_been_the_machine() {
	[ "$tries_left" -gt 0 ] && grep -q '^FAILED ' "$output" && tail -n 1 "$output" | grep -qE '^[0-9]+ passed, [0-9]+ failed$' &&
		! grep -qE 'CRASHED|TOO LONG|Sanitizer|runtime error' "$output"
}

# run_unit NAME SECONDS COMMAND...: run, and once more where that is fair.
run_unit() {
	execute "${@:2}"
	if [ $status -ne 0 ] && may_have_been_the_machine; then
		tries_left=$((tries_left - 1))
		cp "$output" "$first_output"
		execute "${@:2}"
		[ $status -ne 0 ] || grep -A 12 '^FAILED ' "$first_output" | sed 's/^FAILED /unsteady: /; s/^/    /'
	fi
	tell "$1" "$2"
}

# run NAME SECONDS COMMAND...: runs it and adds its last line to the sum. Its output is shown when it did not pass.
run() {
	execute "${@:2}"
	tell "$1" "$2"
}

# execute SECONDS COMMAND...: leaves its output and its status.
execute() {
	timeout --kill-after=10 "$1" "${under[@]}" "${@:2}" </dev/null >"$output" 2>&1
	status=$?
}

# tell NAME SECONDS: what the last one that was executed said.
tell() {
	local name=$1 seconds=$2 summary
	summary=$(tail -n 1 "$output")
	if [[ $summary =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ [0-9]+\ skipped)?$ ]]; then
		local its_passed=${BASH_REMATCH[1]} its_failed=${BASH_REMATCH[2]}
		passed=$((passed + its_passed)) failed=$((failed + its_failed))
		if [ "$status" -eq 0 ] && [ "$its_failed" -eq 0 ] && [ "$its_passed" -gt 0 ]; then
			sed -n '/^unsteady: /,$s/^/    /p' "$output"
			printf '%-28s %s\n' "$name" "$summary"
			return
		fi
		# It counted no failure and yet did not end well: a leak found at the end, say, or no test in it at all.
		[ "$its_failed" -gt 0 ] || failed=$((failed + 1))
	else
		failed=$((failed + 1))
		summary="died without a result"
	fi
	[ "$status" -ne 124 ] && [ "$status" -ne 137 ] || summary="$summary (more than $seconds s)"
	sed 's/^/    /' "$output"
	printf '%-28s %s, exit status %s\n' "$name" "$summary" "$status"
}

shopt -s nullglob
for source in tests/unit/test_*.c; do
	name=$(basename "$source" .c)
	run_unit "${name#test_}" $unit_seconds "$unit_folder/$name"
done
if [ -n "$bin_folder" ]; then
	run "system" "$system_seconds" python3 tests/system/run.py --bin "$bin_folder" --slow-factor "$slow_factor"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
