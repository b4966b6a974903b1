#!/bin/bash
# tests/lint.sh WEIR IDEA...: the rules of the house that no compiler knows.
#
#   1. The ideas stand alone: an idea includes its own header, lib/ts.h and libc, but no socket, clock or file of it.
#   2. Arrows point down: nothing in lib/ includes a header of the top folder.
#   3. Scripts parse, and shellcheck has nothing to say.
#   4. docs/settings.md is what `weir --reference` prints; so are the settings in the man pages, and the completion.
#   5. The guide: code in it is the source's, links and anchors lead somewhere, pictures are whole (docs/build.py; what its commands
#      print is compared in tests/system/test_guide.py).
#   6. The man pages are well-formed, by mandoc. No page is older than the code: no file has __DATE__ or __TIME__ in it.
#
# Prints one line for each breach and ends non-zero if there was one.
set -u
cd "$(dirname "$0")/.." || exit 1

weir=$1
shift
breaches=0
breach() {
	echo "lint: $*"
	breaches=$((breaches + 1))
}

# included FILE: the names it includes, with their quotes or brackets.
included() {
	sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*\([<"][^>"]*[>"]\).*/\1/p' "$1"
}

for file in "$@" balancer.h limiter.h cluster.h; do
	[ -f "$file" ] || continue
	room=$(basename "$file" .c)
	while read -r name; do
		case $name in
		"\"$room.h\"" | '"lib/ts.h"') ;;
		'<sys/'* | '<net'* | '<arpa/'* | '<poll.h>' | '<unistd.h>' | '<fcntl.h>' | '<time.h>')
			breach "$file includes $name: an idea is told what time it is and does no input or output"
			;;
		\"*) breach "$file includes $name: an idea includes its own header and lib/ts.h, nothing else of weir's" ;;
		esac
	done < <(included "$file")
done

for file in lib/*.[ch]; do
	while read -r name; do
		name=${name//\"/}
		[[ $name != '<'* ]] || continue
		name=${name#../}
		case $name in lib/*) continue ;; esac
		if [ -f "$name" ] && [ ! -f "lib/$name" ]; then
			breach "$file includes $name, which stands on a floor above"
		fi
	done < <(included "$file")
done

while read -r script; do
	case $(head -n 1 "$script") in
	*bash) bash -n "$script" || breach "$script does not parse" ;;
	*/sh) sh -n "$script" || breach "$script does not parse" ;;
	*) continue ;;
	esac
	shellcheck --severity=warning "$script" || breach "$script: see shellcheck above"
done < <(find . -path ./build -prune -o -path ./.git -prune -o -type f \( -name '*.sh' -o -path './.ci/run' \) -print)

while read -r script; do
	python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$script" ||
		breach "$script does not parse"
done < <(find . -path ./build -prune -o -path ./.git -prune -o -type f -name '*.py' -print)

# written_by FILE OPTION...: is the file what weir prints?
written_by() {
	diff -u "$1" <("$weir" "${@:2}") || breach "$1 is not what weir ${*:2} prints: make docs"
}
written_by docs/settings.md --reference
written_by deploy/completion/weir.bash --completion bash
for page in 'weir.1 --manual-flags' 'weir.ini.5 --manual-keys'; do
	read -r file option <<<"$page"
	diff -u "docs/man/$file" <("$weir" "$option" | docs/man/fill.sh "docs/man/$file") ||
		breach "docs/man/$file has not what weir $option prints: make docs"
done

while read -r line; do
	breach "$line"
done < <(docs/build.py check --no-runs 2>&1)

# Whether a page that is referred to is installed on this machine is no fault of ours.
while read -r line; do
	breach "$line"
done < <(mandoc -Tlint docs/man/*.[135] 2>&1 | grep -v -e 'referenced manual not found' -e 'outdated mandoc.db')

while read -r line; do
	breach "$line: two builds of one source differ (SOURCE_DATE_EPOCH)"
done < <(grep -nE '__(DATE|TIME|TIMESTAMP)__' ./*.[ch] lib/*.[ch])

[ $breaches -eq 0 ] || exit 1
echo "lint: clean"
