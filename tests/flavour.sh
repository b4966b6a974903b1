#!/bin/bash
# tests/flavour.sh: what programs of a flavour need to be run. For other scripts: use_flavour FLAVOUR ("" for plain, asan, tsan or coverage) sets
# the sanitizer's options, slow_factor (how much more time things get) and under (what to run programs with).
# shellcheck disable=SC2034 # who asked for it reads what is set here
under=()
slow_factor=1

# ThreadSanitizer of this age lays its shadow memory at fixed addresses; kernels that place programs more randomly than
# it knew of get in its way ("unexpected memory mapping"). If so, the tests run with address randomisation off.
use_thread_sanitizer() {
	local probe
	probe=$(mktemp -d) || exit 1
	echo 'int main(void) { return 0; }' >"$probe/probe.c"
	if ! ${CC:-gcc} -fsanitize=thread -fPIE -pie -o "$probe/probe" "$probe/probe.c"; then
		echo "tests/flavour.sh: ${CC:-gcc} cannot build with -fsanitize=thread" >&2
		rm -r "$probe"
		exit 1
	fi
	for _ in 1 2 3 4 5 6 7 8; do
		"$probe/probe" >/dev/null 2>&1 || under=(setarch -R)
	done
	if ! "${under[@]}" "$probe/probe"; then
		echo "tests/flavour.sh: ThreadSanitizer does not run on this kernel (vm.mmap_rnd_bits above 28?)" >&2
		rm -r "$probe"
		exit 1
	fi
	rm -r "$probe"
}

use_flavour() {
	case $1 in
	asan)
		slow_factor=2
		export ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:detect_stack_use_after_return=1:strict_string_checks=1:exitcode=99
		export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:exitcode=99
		;;
	coverage)
		slow_factor=4
		;;
	tsan)
		slow_factor=4
		use_thread_sanitizer
		export TSAN_OPTIONS=halt_on_error=1:detect_deadlocks=1:second_deadlock_stack=1:exitcode=99
		;;
	esac
}
