#!/bin/bash
# labs/lab.sh N [FILE] [ONLY] [SEED] [WEIR]: grades a student's file. Called by `make lab N=... MINE=... ONLY=... SEED=... WEIR=...`.
#
#       N      the lab: its number, or its folder's name
#       FILE   the student's; "" for labs/NN-name/mine.c, which is made from skeleton.c the first time
#       ONLY   run only the tests whose sentence has this text in it
#       SEED   other random numbers
#       WEIR   yes: build weir and the demo programs with it too, and say where they are
#
# Ends with 0 when all points were reached.
set -u
cd "$(dirname "$0")/.." || exit 1
. labs/functions.sh

fail() {
	printf '%s\n' "$*" >&2
	exit 2
}

number=${1:-} file=${2:-} only=${3:-} seed=${4:-} wants_weir=${5:-}
MAKE=${MAKE:-make --no-print-directory}

list_labs() {
	local lab
	echo "say which lab:"
	for lab in $(labs); do
		printf '  make lab N=%-4s%s, %s hours (labs/%s/README.md)\n' "$((10#${lab%%-*}))" "$(conf "$lab" title)" "$(conf "$lab" hours)" "$lab"
	done
}

lab=
for folder in $(labs); do
	case $number in
	"$folder" | "${folder%%-*}" | "$((10#${folder%%-*}))" | "${folder#*-}") lab=$folder ;;
	esac
done
[ -n "$lab" ] || fail "$(list_labs)"

if [ -z "$file" ]; then
	file=labs/$lab/mine.c
	if [ ! -e "$file" ]; then
		cp "labs/$lab/skeleton.c" "$file" || exit 2
		echo "$file is new, a copy of skeleton.c: this is the file to edit"
	fi
fi
[ -f "$file" ] || fail "MINE=$file: there is no such file"
case $file in *[[:space:]=\'\"\$\#:%\\]*) fail "MINE=$file: make cannot work with a blank or a special character in a file's name" ;; esac

# Elsewhere than on Debian it is the compiler that tells what is missing.
! command -v dpkg-query >/dev/null || deploy/prerequisites.sh lab || exit 2
[ "$wants_weir" = yes ] || wants_weir=$(conf "$lab" programs)
programs=$wants_weir build "$lab" "mine=$file" || fail "$file does not build: see above"

arguments=()
[ -z "$only" ] || arguments+=(--only "$only")
[ -z "$seed" ] || arguments+=(--seed "$seed")
echo "lab $lab: $file in place of $(conf "$lab" replaces)"
[ "$wants_weir" != yes ] || echo "weir with it: build/lab/$lab/mine/weir"
run_graders "$lab" mine "${arguments[@]}" # whose last line is the score
