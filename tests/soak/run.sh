#!/bin/bash
# tests/soak/run.sh FLAVOUR OPTION...: runs soak.py with OPTIONs, and programs of this flavour with what they need.
# shellcheck disable=SC2154 # under and slow_factor: use_flavour sets them
set -u
cd "$(dirname "$0")/../.." || exit 1

. tests/flavour.sh
use_flavour "$1"
shift
exec "${under[@]}" python3 tests/soak/soak.py --slow-factor "$slow_factor" "$@"
