#!/bin/bash
# labs/replay.sh [FILE] [SEED] [SCENE] [TSAN]: what the threads of lab 11 do with a gate. Called by `make replay MINE=... SEED=... SCENE=... TSAN=...`.
#
#       FILE   the gate; "" for labs/11-race/mine.c, or skeleton.c while there is none
#       SEED   that order of the threads; "" for the first of each scene that goes wrong
#       SCENE  1 to 5; "" for all
#       TSAN   yes: no schedule at all, but a crowd of real threads under ThreadSanitizer
#
# That something goes wrong is what it is for, and no error: ends with 0 then, too.
set -u
cd "$(dirname "$0")/.." || exit 1
. labs/functions.sh

lab=11-race
MAKE=${MAKE:-make --no-print-directory}
file=${1:-} seed=${2:-} scene=${3:-} tsan=${4:-}
if [ -z "$file" ]; then
	file=labs/$lab/mine.c
	[ -e "$file" ] || file=labs/$lab/skeleton.c
fi
[ -f "$file" ] || { echo "MINE=$file: there is no such file" >&2; exit 2; }
[ -z "$scene" ] || [ -n "$seed" ] || { echo "SCENE=$scene is for a seed: say SEED=N, too" >&2; exit 2; }

if [ "$tsan" = yes ]; then
	mkdir -p "build/lab/$lab"
	${CC:-gcc} -std=c11 -D_GNU_SOURCE -DNO_SCHEDULE -I. -g -O1 -fsanitize=thread -pthread -o "build/lab/$lab/crowd" "labs/$lab/crowd.c" "$file" || exit 2
	# This ThreadSanitizer does not bear the more random addresses of newer kernels.
	fixed=()
	! setarch -R true 2>/dev/null || fixed=(setarch -R)
	"${fixed[@]}" "build/lab/$lab/crowd"
	exit 0
fi

build_replay "$lab" "replay=$file" || { echo "$file does not build: see above" >&2; exit 2; }
echo "$file"
arguments=()
[ -z "$seed" ] || arguments+=("$seed")
[ -z "$scene" ] || arguments+=("$scene")
"build/lab/$lab/replay/replay" "${arguments[@]}"
[ $? -le 1 ]
