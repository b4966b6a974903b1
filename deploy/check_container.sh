#!/bin/sh
# deploy/check_container.sh: tries what deploy/docker says, on a machine without a container engine. As root, on a Debian 12.
#
#       Dockerfile   each step is done in a chroot on a fresh Debian from the archive that apt is configured for; then the image's own
#                    command line is started as its numeric user, read-only, without capabilities, as process 1 of its namespaces
#       compose      the services' own command lines, each in a network namespace on one bridge, with names that resolve once a
#                    service has been started; and then they are asked
#
# It takes about two minutes (eight on a machine that has much else to do), most of them for packages, and a gigabyte of
# memory for what it builds; nothing of it is left behind.
# Ends with "N passed, N failed". What it can't try: an engine's own part (layers, its cache, DNS, published ports, restart).
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" -eq 0 ] || { echo "deploy/check_container.sh: it makes namespaces and mounts; run it as root" >&2; exit 1; }
deploy/prerequisites.sh container
scratch=$(mktemp -d)
trap 'rmdir "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
# What is mounted is mounted for this process alone, and goes with it.
unshare --mount --propagation private sh -c 'mount -t tmpfs -o mode=755,size=3g weir "$1" && python3 tests/containers/check.py "$1"' sh "$scratch"
