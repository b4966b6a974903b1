#!/bin/bash
# labs/functions.sh: what labs/lab.sh and tests/labs.sh both do with a lab. Read by them (bash) in the top folder; $MAKE is how to call make.

# labs: the folders' names, in order.
labs() {
	local folder
	for folder in labs/[0-9][0-9]-*/; do
		[ ! -f "$folder/lab.conf" ] || basename "$folder"
	done
}

# conf LAB KEY: the value from its lab.conf; nothing when it is not there.
conf() {
	sed -n "s/^$2[[:space:]]*=[[:space:]]*//p" "labs/$1/lab.conf" | head -n 1
}

# build LAB NAME=FILE...: compiles each FILE in place of ours, into build/lab/LAB/NAME, and with programs=yes weir too. What the
# compiler says, and no more, is shown.
build() {
	local lab=$1 with=
	shift
	[ ! -f "labs/$lab/grade.c" ] || with=grade
	[ "${programs:-$(conf "$lab" programs)}" != yes ] || with="$with weir server_demo client_demo"
	$MAKE --keep-going LAB="$lab" REPLACES="$(conf "$lab" replaces)" SOLUTIONS="$*" LINKS="$(conf "$lab" links)" WITH="$with" lab_programs 2>&1 |
		grep --line-buffered -vE '^make(\[[0-9]+\])?: '
	return "${PIPESTATUS[0]}"
}

# build_replay LAB NAME=FILE: the program that shows what threads did, in build/lab/LAB/NAME.
build_replay() {
	$MAKE LAB="$1" REPLACES="$(conf "$1" replaces)" SOLUTIONS="$2" LINKS="$(conf "$1" links)" WITH=replay lab_programs
}

# run_graders LAB NAME ARGUMENT...: runs the graders on what was built. The last line is "score N/M"; ends with 0 when N is M. When a
# grader itself came to no result, the last line says so. With black_box=no grade.py is left out.
run_graders() {
	local lab=$1 bin=build/lab/$1/$2 got=0 full=0 graders=()
	shift 2
	[ ! -f "labs/$lab/grade.c" ] || graders+=("$bin/grade")
	[ ! -f "labs/$lab/grade.py" ] || [ "${black_box:-}" = no ] || graders+=("python3 labs/$lab/grade.py --bin $bin")
	local grader line result
	for grader in "${graders[@]}"; do
		result=
		while IFS= read -r line; do
			if [[ $line =~ ^score\ ([0-9]+)/([0-9]+)$ ]]; then
				result=$line
				got=$((got + BASH_REMATCH[1])) full=$((full + BASH_REMATCH[2]))
			elif [ "$line" = "no test" ]; then # of those with the words in ONLY
				result=$line
			else
				printf '%s\n' "$line"
			fi
		done < <($grader "$@" 2>&1)
		if [ -z "$result" ]; then
			echo "the grader came to no result: $grader $*"
			return 2
		fi
	done
	[ "$full" -gt 0 ] || { echo "no such test"; return 2; }
	echo "score $got/$full"
	[ "$got" -eq "$full" ]
}
