#!/bin/sh
# page/embed.sh FILE...: writes C on standard output: each file as an array of bytes, page_NAME_bytes, with its length beside it.
#
# The page is written as what it is, in files that an editor understands, and travels inside the program: nothing to install, nothing to
# find at run time, no version of it that does not fit. od and sed are on every machine that has a compiler; xxd is not.
set -eu
echo '/* Made by page/embed.sh. */'
echo '#include "lib/page.h"'
for file in "$@"; do
	name=$(basename "$file" | tr -c 'a-z0-9\n' '_')
	printf '\nconst unsigned char %s_bytes[] = {\n' "$name"
	od -An -v -tx1 "$file" | sed 's/ *\([0-9a-f][0-9a-f]\)/0x\1,/g'
	printf '};\nconst size_t %s_length = sizeof %s_bytes;\n' "$name" "$name"
done
