#!/bin/bash
# fuzz/run.sh FOLDER SECONDS [NAME...]: runs each fuzz target of FOLDER (or those named) on random input for SECONDS.
#
# A target starts from the inputs in fuzz/corpus/NAME, which are in the repository: each crash ever found is kept there
# as a regression case and is run again first. What libFuzzer finds worth keeping goes to FOLDER/NAME, and an input that
# crashes, hangs or eats memory goes to FOLDER/NAME.crashes, from where `FOLDER/fuzz_NAME FILE` runs it again.
#
# As many targets run at once as there are processors (JOBS), each with one thread. Bounded: one input may take 10 s and
# a target 1 GiB. Ends non-zero when a target failed, or when there was none.
set -u
cd "$(dirname "$0")/.." || exit 1

folder=$1 seconds=$2
shift 2
input_seconds=10
memory_mb=1024
jobs=${JOBS:-$(nproc)}
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
	shopt -s nullglob
	for source in fuzz/fuzz_*.c; do
		name=$(basename "$source" .c)
		names+=("${name#fuzz_}")
	done
fi

# fuzz_one NAME: runs it, and writes the verdict to a file of its own: outputs of two would mix.
fuzz_one() {
	local name=$1 status inputs
	local found=$folder/$name crashes=$folder/$name.crashes
	mkdir -p "$found" "$crashes"
	local corpus=("$found")
	[ ! -d "fuzz/corpus/$name" ] || corpus+=("fuzz/corpus/$name")
	local options=(-max_total_time="$seconds" -timeout="$input_seconds" -rss_limit_mb="$memory_mb" -print_final_stats=1
		-artifact_prefix="$crashes/")
	[ ! -f "fuzz/$name.dict" ] || options+=(-dict="fuzz/$name.dict")

	# libFuzzer looks at its clock between inputs: the outer limit is for a target that hangs in a way it cannot see.
	timeout --kill-after=10 $((seconds + 120)) "$folder/fuzz_$name" "${options[@]}" "${corpus[@]}" \
		</dev/null >"$folder/$name.log" 2>&1
	status=$?
	inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$name.log")
	if [ $status -eq 0 ] && [ "${inputs:-0}" -gt 0 ]; then
		echo "fuzz $name: $inputs inputs, no crash"
		return 0
	fi
	echo "fuzz $name: FAILED, exit status $status; the end of $folder/$name.log:"
	tail -n 40 "$folder/$name.log" | sed 's/^/    /'
	find "$crashes" -type f -printf "fuzz $name: kept %p\n"
	find "$crashes" -type f -size -8k -exec base64 {} + | sed 's/^/    /' # for whom the folder is gone
	return 1
}

running=0
for name in "${names[@]}"; do
	if [ $running -ge "$jobs" ]; then
		wait -n
		running=$((running - 1))
	fi
	rm -f "$folder/$name.clean"
	(fuzz_one "$name" >"$folder/$name.verdict" 2>&1 && : >"$folder/$name.clean"; cat "$folder/$name.verdict") &
	running=$((running + 1))
done
wait

ran=0 broken=()
for name in "${names[@]}"; do
	if [ -e "$folder/$name.clean" ]; then ran=$((ran + 1)); else broken+=("$name"); fi
done
if [ ${#broken[@]} -gt 0 ] || [ $ran -eq 0 ]; then
	echo "fuzz: ${#broken[@]} failed (${broken[*]-}), $ran ran clean"
	exit 1
fi
echo "fuzz: $ran ran clean, $seconds s each, $jobs at once"
