#!/bin/sh
# docs/man/fill.sh PAGE: prints the man page with what stands between its two marks replaced by standard input.
#
#       weir --manual-keys | docs/man/fill.sh docs/man/weir.ini.5
#
# A page without the marks is an error: it would be printed as it is, and look as if it were up to date.
set -eu
for mark in begin end; do
	grep -qx "\.\\\\\" settings: $mark" "$1" || {
		echo "docs/man/fill.sh: $1 has no line '.\\\" settings: $mark'" >&2
		exit 1
	}
done
sed '/^\.\\" settings: begin$/q' "$1"
cat
sed -n '/^\.\\" settings: end$/,$p' "$1"
