#!/bin/sh
# deploy/prerequisites.sh build|lab|demo|test|lint|docs|fuzz|bench|terminals|browser|container|package|all: installs the packages that a part lacks.
#
# Called by run_demo.sh and the Makefile, so that a fresh Debian with nothing but git needs no list of packages from a
# page. Nothing is asked of the network while nothing is missing, and what is installed is said. No package that another
# merely recommends comes along.
#
# nginx, haproxy, redis, prometheus and squid are here for tests and benchmarks, which start their own on ports of their own.
# On Debian such a package also starts a server at once and at every boot, on a port of its own choice: nobody asked for
# that, so all are held back.
set -eu
PATH=$PATH:/usr/sbin:/sbin # a plain `su` leaves them out, and dpkg wants them

build="gcc libc6-dev make libinih-dev libjansson-dev libssl-dev libhiredis-dev libcrypt-dev"
lab="$build python3"
demo="$build redis-server openssl perl-base" # for run_demo.sh
pages="python3 python3-markdown python3-pygments"
test="$build libcunit1-dev pkg-config python3 curl wget nodejs nginx haproxy openssl tinyproxy-bin redis-server tmux prometheus python3-yaml mandoc $pages" # gcc brings its sanitizers; promtool is in prometheus
docs="$build $pages util-linux curl openssl redis-server"
lint="$build $pages libcunit1-dev clang shellcheck mandoc"
fuzz="$build clang libclang-rt-dev llvm" # llvm names the functions in a crash report
bench="$build python3 nginx haproxy openssl tinyproxy-bin redis-server squid wrk" # tinyproxy itself would come with a service
terminals="tmux" # for run_demo.sh --terminals
browser="chromium fonts-dejavu-core" # 300 MB: the tests of the status page in a browser are skipped without it
container="$build debootstrap python3 python3-yaml iproute2 util-linux redis-server openssl" # deploy/check_container.sh
package="$build libcunit1-dev git dpkg-dev debhelper lintian debootstrap curl python3 iproute2" # deploy/check_package.py
services="nginx haproxy redis-server prometheus squid"

fail() {
	echo "deploy/prerequisites.sh: $*" >&2
	exit 1
}

case ${1:-} in
build) wanted=$build ;;
lab) wanted=$lab ;;
demo) wanted=$demo ;;
test) wanted=$test ;;
lint) wanted=$lint ;;
docs) wanted=$docs ;;
fuzz) wanted=$fuzz ;;
bench) wanted=$bench ;;
terminals) wanted=$terminals ;;
browser) wanted=$browser ;;
container) wanted=$container ;;
package) wanted=$package ;;
all) wanted="$lab $demo $test $lint $docs $fuzz $bench $terminals $browser $container $package" ;;
*) fail "say which: build, lab, demo, test, lint, docs, fuzz, bench, terminals, browser, container, package or all" ;;
esac

is_installed() {
	dpkg-query --show --showformat='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed
}

wanted=$(echo "$wanted" | tr ' ' '\n' | sort -u | tr '\n' ' ')
for tool in dpkg-query apt-get; do
	command -v $tool >/dev/null || fail "this is no Debian (no $tool): install what Debian calls $wanted"
done

missing=""
for package in $wanted; do
	is_installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || fail "not root and no sudo here; as root: apt-get install$missing"
	as_root=sudo
fi

echo "weir needs:$missing (installing with apt-get)"

# Debian asks this script before it starts a service; 101 is "no". One that is there already is the administrator's.
policy=/usr/sbin/policy-rc.d
held_back=""
for service in $services; do
	case "$missing " in *" $service "*) held_back="$held_back $service" ;; esac
done
if [ -n "$held_back" ] && [ ! -e $policy ]; then
	trap '$as_root rm -f $policy' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
	$as_root chmod 755 $policy
fi

# The lock may be held by the machine's own daily update: wait for it.
apt() {
	# shellcheck disable=SC2086 # as_root is empty or one word
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

apt update || fail "apt-get update failed; missing:$missing"
# shellcheck disable=SC2086 # a list of words
apt install -y --no-install-recommends $missing || fail "apt-get install failed; missing:$missing"

if [ -n "$held_back" ]; then
	for service in $held_back; do
		$as_root update-rc.d "$service" disable >/dev/null ||
			echo "deploy/prerequisites.sh: could not disable $service: it starts at the next boot" >&2
	done
	echo "installed for tests, neither started nor enabled at boot:$held_back"
fi
