#!/usr/bin/env python3
"""hear.py: what the nodes of a group say to everybody, one line for each datagram.

    python3 examples/hear.py [PORT] [COUNT]       # port 7000 of a group `unicast = …:7000`, 10 datagrams

Who: somebody who wants to see an election, and has no right to run tcpdump. A broadcast is delivered to every socket of
the machine that is bound to its port and lets others share it, so anybody can listen, beside the nodes and unnoticed. (That is
also why what is broadcast must hold no secret, and why it must not be believed without a tag: `cluster_secret`.)

Prints, for a heartbeat, who sent it, its epoch, whom it takes for master, and whose challenges it echoes: whom it hears.
What stands where is in docs/cluster.md, "On the wire". Nothing is checked here: it shows forgeries as well.
"""
import socket
import struct
import sys

KINDS = {1: 'HEARTBEAT', 2: 'LEAVE', 3: 'DEMAND', 4: 'GRANT', 5: 'TAKEOVER', 6: 'HANDOVER'}
HEAD = struct.Struct('>4sBBQHQQQQ')     # magic, version, kind, group, id, incarnation, to, sequence, epoch
BEAT = struct.Struct('>QHBIQHQIQB')     # uptime, master, flags, threshold, window, size, started, waiting, challenge, echoes
ECHO = struct.Struct('>HQ')             # id, its challenge


def describe(datagram):
    """One line, or None for what is no datagram of weir's."""
    if len(datagram) < HEAD.size or datagram[:4] != b'weir':
        return None
    _, _, kind, _, number, _, _, _, epoch = HEAD.unpack_from(datagram)
    line = f'node {number} epoch {epoch} {KINDS.get(kind, "unknown")}'
    if kind != 1 or len(datagram) < HEAD.size + BEAT.size:
        return line
    _, master, flags, _, _, _, _, _, _, count = BEAT.unpack_from(datagram, HEAD.size)
    first = HEAD.size + BEAT.size
    count = min(count, (len(datagram) - first) // ECHO.size)
    hears = sorted(ECHO.unpack_from(datagram, first + i * ECHO.size)[0] for i in range(count))
    aside = ', stepped aside' if flags & 1 else ''
    return f'{line} master {master or "none"} hears {" ".join(map(str, hears)) or "nobody"}{aside}'


def main(port=7000, count=10):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(('', port))
        while count > 0:
            line = describe(shared.recv(1500))
            if line:
                print(line, flush=True)
                count -= 1


if __name__ == '__main__':
    try:
        main(*map(int, sys.argv[1:]))
    except KeyboardInterrupt:
        pass
