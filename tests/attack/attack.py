#!/usr/bin/env python3
"""The attacks of tests/system/test_attack.py by the thousand, and those that need a network of their own. For make attack, not for every run.

    tests/attack/attack.py --bin DIR [--only NAME]

Each attack says what it did, what it cost weir (memory, threads), and how somebody else fared meanwhile: an honest client from
another address, who asks again and again and must be answered each time. A line starts with "held", or with "BROKE" and why; exit code 0 only
if all of them held. The figures of one run stand in docs/hardening.md.
"""
import argparse
import os
import random
import select
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'system'))

from admin import Admin  # noqa: E402  pylint: disable=wrong-import-position
from arrivals import Arrivals, Load, fullest  # noqa: E402  pylint: disable=wrong-import-position
from harness import Case, Skip, Weir  # noqa: E402  pylint: disable=wrong-import-position
from network import NETWORK, Network  # noqa: E402  pylint: disable=wrong-import-position
from origin import answer  # noqa: E402  pylint: disable=wrong-import-position

ROAD_KB = 200           # what a connection with a request may cost: its buffers (3 × max_header and 36 KiB), and a stack
SLOWEST_S = 10          # for somebody else, on a machine that is busy with more than this: else it is a fraction of a second
HONEST = b'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'


class Honest:
    """Somebody else, in a thread: a request, a new connection, a request..."""

    def __init__(self, host, port, source=None, enter=None, path=b'/'):
        self.place, self.source, self.enter = (host, port), source, enter
        self.request = HONEST.replace(b'GET /', b'GET ' + path, 1)
        self.times, self.failures = [], []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        if self.enter:
            self.enter()
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                with socket.create_connection(self.place, 30, source_address=self.source) as sock:
                    sock.sendall(self.request)
                    got = b''.join(iter(lambda s=sock: s.recv(65536), b''))
                if not got.startswith(b'HTTP/1.1 200 '):
                    self.failures.append(got[:60])
            except OSError as error:
                self.failures.append(error)
            self.times.append(time.monotonic() - begun)
            self.over.wait(0.02)

    def end(self):
        self.over.set()
        self.thread.join(60)
        return f'somebody else: {len(self.times)} requests, {len(self.failures)} failed, the slowest took {max(self.times):.2f} s'


class Tireless:
    """A target that sends a large body to whoever asks for /large, a small one to others, to any number at once."""
    SMALL = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall'

    def __init__(self, t, body):
        self.large = memoryview(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=4096)
        self.address = f'127.0.0.1:{self.listener.getsockname()[1]}'
        self.asked, self.over = 0, False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        t.cleanup(self._end)

    def _end(self):
        self.over = True
        self.thread.join(10)
        self.listener.close()

    def _run(self):
        poll, left, socks = select.epoll(), {}, {self.listener.fileno(): self.listener}
        poll.register(self.listener, select.EPOLLIN)
        while not self.over:
            for fd, what in poll.poll(0.2):
                sock = socks[fd]
                if sock is self.listener:
                    sock, _ = self.listener.accept()
                    sock.setblocking(False)
                    socks[sock.fileno()] = sock
                    poll.register(sock, select.EPOLLIN)
                elif not self._serve(poll, sock, left, what):
                    poll.unregister(fd)
                    left.pop(fd, None)
                    socks.pop(fd).close()

    def _serve(self, poll, sock, left, what):
        try:
            if what & select.EPOLLIN:
                request = sock.recv(65536)
                if not request:
                    return False
                self.asked += b'/large' in request
                left[sock.fileno()] = self.large if b'/large' in request else memoryview(self.SMALL)
            rest = left.get(sock.fileno(), b'')
            rest = rest[sock.send(rest):] if rest else rest
            left[sock.fileno()] = rest
            poll.modify(sock, select.EPOLLIN | (select.EPOLLOUT if rest else 0))
        except BlockingIOError:
            poll.modify(sock, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            return False
        return True


class Attacks:
    def __init__(self, bin_directory):
        self.bin, self.broken = bin_directory, 0

    def run(self, attack):
        tmp = tempfile.mkdtemp(prefix='weir-attack-')
        t = Case(self.bin, 1.0, tmp)
        begun = time.monotonic()
        try:
            told = attack(t)
        except Skip as skip:
            told = f'skipped: {skip}'
        except Exception as error:      # pylint: disable=broad-except
            told = repr(error)
            t.complain(error)
        t.finish()
        shutil.rmtree(tmp, ignore_errors=True)
        self.broken += bool(t.complaints)
        word = 'BROKE' if t.complaints else 'held '
        print(f'{word} {attack.__name__.replace("_", " ")} ({time.monotonic() - begun:.1f} s): {told}')
        for complaint in t.complaints:
            print(f'      {complaint}')
        sys.stdout.flush()


def _connect(port, source='127.0.0.1', receive_buffer=0):
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.bind((source, 0))
    sock.connect(('127.0.0.1', port))
    return sock


def _send(sock, data):
    try:
        sock.sendall(data)
    except OSError:             # it was refused meanwhile
        pass


class Cost:
    """Of weir, while something happens."""

    def __init__(self, t, weir, allowed_kb):
        self.t, self.weir, self.allowed_kb = t, weir, allowed_kb
        self.before = self._now()

    def _now(self):
        return self.weir.status('VmRSS'), self.weir.status('Threads')

    def told(self):
        (kb, threads), (before_kb, before_threads) = self._now(), self.before
        self.t.check(kb - before_kb <= self.allowed_kb, f'{kb - before_kb} KB more, allowed are {self.allowed_kb}')
        return f'memory {before_kb / 1024:.1f} MB to {kb / 1024:.1f} MB (bound: {self.allowed_kb / 1024:.0f} more), ' \
               f'threads {before_threads} to {threads}'


def _judge(t, honest):
    """While what was begun still lasts."""
    asked = len(honest.times)
    t.until(lambda: len(honest.times) >= asked + 10, 120, 'somebody else asks meanwhile')
    told = honest.end()
    t.check(not honest.failures, f'somebody else failed: {honest.failures[:3]}')
    t.check(max(honest.times) <= SLOWEST_S, f'somebody else waited for {max(honest.times):.1f} s')
    return told


# ---- half-open connects ----------------------------------------------------------------------------------------------

def _sum16(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def _syns(count, to, port):
    """SYNs, each from another address of 198.19.0.0/16 and another port: nobody there will answer the SYN-ACK."""
    chance = random.Random(1)
    to_bytes = socket.inet_aton(to)
    for index in range(count):
        source = struct.pack('!BBBB', 198, 19, index >> 8 & 255, index & 255)
        tcp = struct.pack('!HHIIBBHHH', 1024 + (index >> 16) * 97 + index % 60000, port, chance.getrandbits(32), 0, 5 << 4, 2, 64240, 0, 0)
        checksum = ~_sum16(source + to_bytes + struct.pack('!BBH', 0, 6, 20) + tcp) & 0xffff
        ip = struct.pack('!BBHHHBBH', 0x45, 0, 40, index & 0xffff, 0, 64, 6, 0)     # the kernel fills in its checksum
        yield ip + source + to_bytes + tcp[:16] + struct.pack('!H', checksum) + tcp[18:]


def _netstat(machine):
    def read():
        # /proc/net is the main thread's namespace; this thread has moved
        with open(f'/proc/self/task/{threading.get_native_id()}/net/netstat', encoding='ascii') as file:
            lines = file.read().splitlines()
        return dict(zip(lines[0].split()[1:], map(int, lines[1].split()[1:])))
    return machine.inside(read)


def _listens():
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', 9001)) == 0


def a_hundred_thousand_half_open_connects(t):
    network = Network(t, 2)
    target, attacker = network.machines
    target.ip('route', 'add', 'default', 'via', f'{NETWORK}.2')
    t.start_tool(*target.prefix, os.path.join(t.bin, 'server_demo'), '--http', '9001')
    t.until(lambda: target.inside(_listens), 10, 'the target listens')
    weir = Weir(t, ['reverse', '--port', '8000', '--endpoint', '127.0.0.1:9001'], prefix=target.prefix)
    honest = Honest(f'{NETWORK}.1', 8000, enter=attacker.enter)
    t.until(lambda: len(honest.times) >= 10, 10, 'somebody else is served')
    before, cost, count = _netstat(target), Cost(t, weir, 4096), 100_000
    begun = time.monotonic()

    def flood():
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        for packet in _syns(count, f'{NETWORK}.1', 8000):
            sock.sendto(packet, (f'{NETWORK}.1', 0))
        sock.close()
    attacker.inside(flood)
    seconds = time.monotonic() - begun
    asked = len(honest.times)
    t.until(lambda: len(honest.times) >= asked + 10, 30, 'somebody else is served after it')
    after = _netstat(target)
    cookies = after['SyncookiesSent'] - before['SyncookiesSent']
    t.check(cookies > count // 2, f'only {cookies} cookies: the SYNs did not come')
    return f'{count} SYNs in {seconds:.1f} s, {cookies} of them answered by SYN cookies; {cost.told()}; {_judge(t, honest)}'


# ---- connections -----------------------------------------------------------------------------------------------------

def twelve_thousand_connections_of_one_client(t):
    weir = t.weir(t.origin(), max_clients=4000, client_connections=500, header_timeout=60)
    honest, cost = Honest('127.0.0.1', weir.port, ('127.0.0.9', 0)), Cost(t, weir, 1000 * ROAD_KB)
    socks = [_connect(weir.port) for _ in range(12_000)]
    for sock in socks:
        _send(sock, b'GET / HTTP/1.1\r\n')
    told = f'{len(socks)} connections, client_connections 500, max_clients 4000; {cost.told()}; {_judge(t, honest)}'
    for sock in socks:
        sock.close()
    return told


def three_thousand_slow_heads(t):
    weir = t.weir(t.origin(), header_timeout=30)
    honest, count = Honest('127.0.0.1', weir.port, ('127.0.0.9', 0)), 3000
    cost = Cost(t, weir, count * ROAD_KB)
    socks = [_connect(weir.port) for _ in range(count)]
    for piece in (b'GET / HTTP/1.1\r\nHost: a\r\n', b'X-a: 1\r\n', b'X-b: 2\r\n', b'X-c: 3\r\n'):
        for sock in socks:
            _send(sock, piece)
    t.until(lambda: weir.status('Threads') >= count, 30, 'each has its thread')
    told = f'{count} heads that never end; {cost.told()}; {_judge(t, honest)}'
    t.until(lambda: len(os.listdir(f'/proc/{weir.pid}/fd')) < 200, 90, 'header_timeout has ended them')
    for sock in socks:
        sock.close()
    return told


def a_thousand_readers_who_do_not_read(t):
    origin = Tireless(t, os.urandom(1 << 20) * 4)
    weir = t.weir(origin.address, idle_timeout=5, stats_path='/stats')
    # Answered by weir itself: the target is busy with what nobody reads.
    honest, count = Honest('127.0.0.1', weir.port, ('127.0.0.9', 0), path=b'/stats'), 1000
    cost = Cost(t, weir, count * ROAD_KB)
    socks = [_connect(weir.port, receive_buffer=4096) for _ in range(count)]
    for sock in socks:
        _send(sock, b'GET /large HTTP/1.1\r\nHost: a\r\n\r\n')
    t.until(lambda: origin.asked >= count, 60, 'all have asked')
    told = f'{count} answers of 4 MiB that nobody reads; {cost.told()}; {_judge(t, honest)}'
    t.until(lambda: len(os.listdir(f'/proc/{weir.pid}/fd')) < 200, 60, 'idle_timeout has ended them')
    for sock in socks:
        sock.close()
    return told


# ---- too much --------------------------------------------------------------------------------------------------------

def two_thousand_floods_of_fields(t):
    weir = t.weir(t.origin())
    honest, count = Honest('127.0.0.1', weir.port, ('127.0.0.9', 0)), 2000
    cost = Cost(t, weir, count * ROAD_KB)
    flood = b'GET / HTTP/1.1\r\nHost: a\r\n' + b''.join(b'X-%d: %s\r\n' % (i, b'y' * (i % 50)) for i in range(4000))
    refused = 0
    for _ in range(count // 100):
        socks = [_connect(weir.port) for _ in range(100)]
        for sock in socks:
            _send(sock, flood)
        for sock in socks:
            try:
                refused += sock.recv(12) == b'HTTP/1.1 431'
            except OSError:
                pass
            sock.close()
    t.check(refused == count, f'{refused} of {count} were told 431')
    return f'{count} heads of {len(flood) // 1024} KiB, {refused} refused with 431; {cost.told()}; {_judge(t, honest)}'


def a_body_of_a_gibibyte(t):
    taken = []

    def handler(conn):
        req = conn.head()
        if req is not None and req.method == 'GET':
            conn.send(answer(b'small'))
        elif req is not None:
            conn.body(req, sink=lambda piece: taken.append(len(piece)))
            conn.send(answer(b'%d' % sum(taken)))
    weir = t.weir(t.origin(handler=handler))
    honest, cost, total = Honest('127.0.0.1', weir.port, ('127.0.0.9', 0)), Cost(t, weir, 4 * ROAD_KB), 1 << 30
    client, piece = t.client(weir, seconds=120), os.urandom(1 << 20)
    client.send(b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n' % total)
    begun = time.monotonic()
    for _ in range(total // len(piece)):
        client.send(piece)
    t.equal(client.response().body, b'%d' % total)
    return f'{total >> 20} MiB in {time.monotonic() - begun:.1f} s; {cost.told()}; {_judge(t, honest)}'


# ---- tables ----------------------------------------------------------------------------------------------------------

def _cpu_us_each(weir, sock, keys):
    """Of requests that weir answers itself, pipelined, one for each key."""
    def used():
        with open(f'/proc/{weir.pid}/stat', encoding='ascii') as file:
            fields = file.read().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    before = used()
    for first in range(0, len(keys), 100):
        some = keys[first:first + 100]
        sock.sendall(b''.join(b'OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nX-Key: %s\r\n\r\n' % key for key in some))
        got = b''
        while got.count(b'HTTP/1.1 200 ') < len(some) or not got.endswith(b'\r\n\r\n'):
            piece = sock.recv(262144)
            assert piece, f'closed after {got[-200:]!r}'
            got += piece
    return (used() - before) / len(keys) * 1e6


def half_a_million_keys_in_the_table_of_clients(t):
    """The table (service.h: two million clients, 192 MiB at most) is as good with strangers' keys as with one: what keys chosen to meet in one set do is tests/unit/test_client_limits.c."""
    weir = t.weir(t.origin(), client_key='header:X-Key', client_rate=1000000)
    honest, cost, count = Honest('127.0.0.1', weir.port, ('127.0.0.9', 0)), Cost(t, weir, 200 * 1024), 500_000
    with _connect(weir.port) as sock:
        one = _cpu_us_each(weir, sock, [b'the same'] * 100_000)
        many = _cpu_us_each(weir, sock, [b'%x' % (index * 0x9e3779b9) for index in range(count)])
        last = _cpu_us_each(weir, sock, [b'%x-' % index for index in range(100_000)])
    t.check(max(many, last) <= 2 * one + 3, f'{one:.1f} us of CPU with one key, {many:.1f} and {last:.1f} with new ones')
    return f'{count + 100_000} keys; CPU a request: {one:.1f} us with one key, {many:.1f} us while they came, {last:.1f} us at the end; ' \
           f'{cost.told()}; {_judge(t, honest)}'


def replays_of_a_groups_datagrams(t):
    arrivals, threshold = Arrivals(t), 200
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('0.0.0.0', 0))
        port = sock.getsockname()[1]
    nodes = [t.weir(arrivals, id=number, unicast=f'127.255.255.255:{port}', threshold=threshold, backlog=1, cluster_secret='hush',
                    reject_status=503, admin=0) for number in (1, 2, 3)]
    admins = [Admin(t, node) for node in nodes]
    for node in nodes:
        node.wait_log('node 1 is the master of the group')
    load = Load(t, [node.port for node in nodes], 30)
    t.until(lambda: min(load.served(i) for i in range(3)) >= threshold // 2, 30, 'all serve')
    served, count, chance = load.served(), 100_000, random.Random(5)
    cost = Cost(t, nodes[0], 8192)
    begun = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(('0.0.0.0', port))
        recorded = [sock.recv(2048) for _ in range(100)]
        for _ in range(count):
            sock.sendto(chance.choice(recorded), ('127.255.255.255', port))
    seconds = time.monotonic() - begun
    t.until(lambda: load.served() >= served + 2 * threshold, 30, 'the group goes on')
    load.stop()
    told = cost.told()
    seen = sum(value for admin in admins for key, value in admin.metrics().items() if 'seen before' in key)
    for node in nodes:
        node.stop()
    most = fullest(arrivals.times())
    t.check(most <= threshold, f'{most} arrivals in a second, threshold {threshold}')
    t.check(seen >= 1000, f'{seen:g} of them were known as seen before')
    return f'{count} datagrams again in {seconds:.1f} s, {seen:.0f} times "seen before" at three nodes (the rest found no room in a ' \
           f'socket); the fullest window held {most} of {threshold}; {told}'


ATTACKS = (a_hundred_thousand_half_open_connects, twelve_thousand_connections_of_one_client, three_thousand_slow_heads,
           a_thousand_readers_who_do_not_read, two_thousand_floods_of_fields, a_body_of_a_gibibyte,
           half_a_million_keys_in_the_table_of_clients, replays_of_a_groups_datagrams)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bin', required=True)
    parser.add_argument('--only', default='')
    options = parser.parse_args()
    attacks = Attacks(os.path.abspath(options.bin))
    for attack in ATTACKS:
        if options.only in attack.__name__:
            attacks.run(attack)
    print(f'{attacks.broken} broke')
    return 1 if attacks.broken else 0


if __name__ == '__main__':
    sys.exit(main())
