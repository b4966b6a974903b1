"""Clients that mean harm, and what they may cost: a place in the settings' bounds, and nobody else's answer. Small enough for every run;
the same attacks by the thousand are tests/attack (make attack), and their figures stand in docs/hardening.md.

What each connection may cost in memory follows from the settings: a road's buffers (roads.c: twice max_header and a body's room, and
max_header once more for the head that goes on) and a thread's stack, which is touched in part. The bounds here are of that kind:
so much a connection, and nothing for what it sends.
"""
import os
import random
import re
import select
import socket
import time

from admin import Admin
from arrivals import Arrivals, Load, fullest
from harness import takes
from origin import answer
from wire import Cut

MAX_HEADER = 32768
BODY_ROOM = 16384
STACK_KB = 64
ROAD_KB = (3 * MAX_HEADER + 2 * BODY_ROOM + 4096) // 1024 + STACK_KB


def _connect(weir, source='127.0.0.1', receive_buffer=0):
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(60)
    sock.bind((source, 0))
    sock.connect(('127.0.0.1', weir.port))
    return sock


def _crowd(t, weir, count, **more):
    socks = [_connect(weir, **more) for _ in range(count)]
    t.cleanup(lambda: [sock.close() for sock in socks])
    return socks


def _others_are_served(t, weir, times=5, source='127.0.0.9'):
    """By requests of somebody else, each on a connection of its own."""
    for _ in range(times):
        with _connect(weir, source) as sock:
            sock.settimeout(t.s(20))
            sock.sendall(b'GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
            got = b''.join(iter(lambda s=sock: s.recv(65536), b''))
            t.check(got.startswith(b'HTTP/1.1 200 '), f'somebody else got {got[:100]!r}')


def _check_growth(t, weir, before_kb, allowed_kb, what):
    grown_kb = weir.status('VmRSS') - before_kb
    if not t.sanitized:             # whose own books are larger than what they are about
        t.check(grown_kb <= allowed_kb, f'{what}: {grown_kb} KB more, allowed are {allowed_kb}')


def _ends(t, socks, seconds):
    """All of them, by the other side; what each had got."""
    got, poll, by_fd = {sock: b'' for sock in socks}, select.poll(), {}
    for sock in socks:
        by_fd[sock.fileno()] = sock
        poll.register(sock, select.POLLIN)
    end = time.monotonic() + t.s(seconds)
    while by_fd and time.monotonic() < end:
        for fd, _ in poll.poll(1000):
            try:
                piece = by_fd[fd].recv(65536)
            except ConnectionResetError:
                piece = b''
            got[by_fd[fd]] += piece
            if not piece:
                poll.unregister(fd)
                del by_fd[fd]
    t.check(not by_fd, f'{len(by_fd)} of {len(socks)} connections are still there')
    return list(got.values())


# Slow on purpose

@takes(60)
def slow_heads_by_the_hundred_keep_nobody_out_and_end_at_header_timeout(t):
    """Slowloris: a byte of a head now and then."""
    weir = t.weir(t.origin(), header_timeout=t.s(2), client_connections=1000)
    _others_are_served(t, weir)
    before_kb, count = weir.status('VmRSS'), 300
    socks = _crowd(t, weir, count)
    for sock in socks:
        sock.sendall(b'GET / HTTP/1.1\r\nHost: a\r\n')
    for piece in (b'X-a: 1\r\n', b'X-b: 2\r\n'):
        for sock in socks:
            try:
                sock.sendall(piece)
            except OSError:         # it was over already, on a slow machine
                pass
        _others_are_served(t, weir)
    _check_growth(t, weir, before_kb, count * ROAD_KB, f'{count} slow heads')
    for got in _ends(t, socks, 30):
        t.check(got.startswith(b'HTTP/1.1 408 '), f'{got[:60]!r}')
    _others_are_served(t, weir)
    t.until(lambda: weir.status('Threads') <= 128 + 16, 20, 'the threads of a crowd that is gone have ended')


@takes(60)
def who_takes_all_the_connections_there_are_is_cut_off_by_client_connections(t):
    """One client opens three times as many as max_clients allows all of them together."""
    weir = t.weir(t.origin(lambda req: answer(b'whole')), max_clients=60, client_connections=20, header_timeout=3600, reject_status=503)
    greedy = _crowd(t, weir, 20)
    for sock in greedy:             # answered: they are in, before any of the others
        sock.settimeout(t.s(20))
        sock.sendall(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
        got = b''
        while not got.endswith(b'whole'):
            piece = sock.recv(65536)
            t.check(piece, f'an answer ended with {got[-100:]!r}')
            got += piece
        sock.sendall(b'GET / HTTP/1.1\r\n')     # and no end
    more = _crowd(t, weir, 160)
    for sock in more:
        try:
            sock.sendall(b'GET / HTTP/1.1\r\n')
        except OSError:             # it was turned away before that
            pass
    begun = time.monotonic()
    _others_are_served(t, weir)
    t.check(time.monotonic() - begun < t.s(5), f'somebody else waited for {time.monotonic() - begun:.1f} s')
    refused = [got[:12] for got in _ends(t, more, 30)]
    t.check(refused.count(b'HTTP/1.1 503') >= 20, f'as many as may come in are told so at least: {refused}')
    t.check(set(refused) <= {b'HTTP/1.1 503', b''}, f'{set(refused)}')
    t.until(lambda: len(os.listdir(f'/proc/{weir.pid}/fd')) < 60, 20, 'they are gone')
    with _connect(weir) as sock:
        t.equal(sock.recv(12), b'HTTP/1.1 503', 'and the next one is told')
    t.equal([sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) if select.select([sock], [], [], 0)[0] else None
             for sock in greedy], [None] * 20, 'those within the cap are left alone')


def client_connections_is_not_for_proxies_that_are_trusted_and_not_for_networks_that_are_exempt(t):
    """Behind one address of theirs there are many clients."""
    for settings, wanted in (({}, [200, 429]), ({'trust_forwarded': '127.0.0.0/8'}, [200, 200]), ({'exempt': '127.0.0.1'}, [200, 200]),
                             ({'trust_forwarded': '10.0.0.0/8', 'exempt': '10.0.0.0/8'}, [200, 429])):
        weir = t.weir(t.origin(), client_connections=1, **settings)
        first = t.client(weir)
        told = first.ask().status
        second = t.client(weir)         # not sooner: two threads might count them the other way round
        t.equal([told, second.response().status if 429 in wanted else second.ask().status], wanted, f'{settings}')


@takes(60)
def clients_that_do_not_read_hold_no_more_than_a_buffer_and_not_for_ever(t):
    """Slow read: large answers are asked for and left lying."""
    body = os.urandom(1 << 20) * 8
    origin = t.origin(lambda req: answer(body if req.target == '/large' else b'small'), backlog=4096)
    weir = t.weir(origin, idle_timeout=t.s(1))
    _others_are_served(t, weir)
    before_kb, count = weir.status('VmRSS'), 40
    socks = _crowd(t, weir, count, receive_buffer=4096)
    for sock in socks:
        sock.sendall(b'GET /large HTTP/1.1\r\nHost: a\r\n\r\n')
    origin.wait(lambda: origin.targets().count('/large') == count, 20, 'all have asked')
    _others_are_served(t, weir)
    _check_growth(t, weir, before_kb, count * ROAD_KB, f'{count} answers of 8 MiB that nobody reads')
    t.until(lambda: len(os.listdir(f'/proc/{weir.pid}/fd')) < count, 30, 'who takes nothing for idle_timeout is given up')
    _others_are_served(t, weir)


# Too much

@takes(60)
def floods_of_heads_cost_max_header_each_and_are_431(t):
    weir = t.weir(t.origin())
    _others_are_served(t, weir)
    before_kb, count = weir.status('VmRSS'), 60
    fields = b''.join(b'X-%d: %s\r\n' % (i, b'y' * (i % 50)) for i in range(4000))
    flood = b'GET / HTTP/1.1\r\nHost: a\r\n' + fields       # 140 KB, and no end
    socks = _crowd(t, weir, count)
    for sock in socks:
        try:
            sock.sendall(flood)
        except OSError:         # it was refused before all of it had left
            pass
    _others_are_served(t, weir)
    _check_growth(t, weir, before_kb, count * ROAD_KB, f'{count} floods of fields')
    for sock in socks:
        sock.shutdown(socket.SHUT_WR)
    for got in _ends(t, socks, 30):
        t.check(got.startswith(b'HTTP/1.1 431 '), f'{got[:60]!r}')


@takes(60)
def an_endless_body_ends_at_max_body_and_fills_nothing(t):
    def handler(conn):
        conn.rest(600, sink=lambda piece: None)
    weir = t.weir(t.origin(handler=handler), t.origin(), max_body=1 << 20, retries=0)
    before_kb = weir.status('VmRSS')
    chunk = b'8000\r\n' + b'z' * 0x8000 + b'\r\n'
    for head in (b'Content-Length: 99999999999\r\n', b'Transfer-Encoding: chunked\r\n'):
        client = t.client(weir, seconds=30)
        client.send(b'POST / HTTP/1.1\r\nHost: a\r\n' + head + b'\r\n')
        sent = 0
        try:
            while sent < 64 << 20 and not select.select([client.sock], [], [], 0)[0]:
                client.send(chunk)
                sent += len(chunk)
        except OSError:
            pass
        t.check(sent < 32 << 20, f'{sent} bytes of a body were taken, {head!r}')
        try:
            t.equal(client.response().status, 413, head.decode())
        except Cut:
            pass                    # it went on sending, and heard of it by a reset
    _check_growth(t, weir, before_kb, 4 * ROAD_KB, 'bodies without an end')


@takes(60)
def a_body_of_any_size_passes_through_one_buffer(t):
    seen = []

    def handler(conn):
        req = conn.head()
        conn.body(req, sink=lambda piece: seen.append(len(piece)))
        conn.send(answer(b'%d' % sum(seen)))
    weir = t.weir(t.origin(handler=handler))
    before_kb, total, piece = weir.status('VmRSS'), 64 << 20, os.urandom(1 << 20)
    client = t.client(weir, seconds=60)
    client.send(b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n' % total)
    for _ in range(total // len(piece)):
        client.send(piece)
    t.equal(client.response().body, b'%d' % total)
    _check_growth(t, weir, before_kb, 4 * ROAD_KB, '64 MiB')


def a_thousand_ranges_are_the_targets_affair(t):
    """CVE-2011-3192: a server that cuts an answer into ranges can be asked for a thousand overlapping ones. weir cuts nothing."""
    ranges = 'bytes=0-' + ''.join(f',5-{n}' for n in range(1300))
    parts = b'--b\r\nContent-Range: bytes 0-1/2\r\n\r\nab\r\n--b--\r\n'
    origin = t.origin(lambda req: answer(parts, 206, 'Partial Content', ['Content-Type: multipart/byteranges; boundary=b']))
    response = t.get(t.weir(origin), fields=[f'Range: {ranges}', 'If-Range: "x"', 'Accept-Encoding: gzip, br;q=0'])
    t.equal((response.status, response.body), (206, parts))
    req = origin.requests[0]
    t.equal([req.get('range'), req.get('if-range'), req.get('accept-encoding')], [ranges, '"x"', 'gzip, br;q=0'])


# More than its share

@takes(60)
def one_client_that_fills_the_line_is_not_everybodys_delay_where_the_line_is_fair(t):
    weir = t.weir(t.origin(), threshold=4, burst=1, backlog=100, queue='fair')
    greedy = _crowd(t, weir, 120)
    for sock in greedy:
        sock.sendall(b'GET /greedy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    t.until(lambda: weir.status('Threads') > 30, 20, 'they wait')
    _others_are_served(t, weir, 2)
    answered = len(select.select(greedy, [], [], 0)[0])
    t.check(answered < 115, f'{answered} of the greedy client were served first')


# A group under fire

def _sniff(port):
    """Hears what the nodes of a group on this machine tell each other."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.bind(('0.0.0.0', port))
    return sock


@takes(90)
def replayed_datagrams_by_the_thousand_change_nothing(t):
    """Recorded while the group works, and sent again, in any order: each has a good tag. None is believed twice."""
    arrivals, threshold = Arrivals(t), 60
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('0.0.0.0', 0))
        port = sock.getsockname()[1]
    nodes = [t.weir(arrivals, id=number, unicast=f'127.255.255.255:{port}', threshold=threshold, backlog=1, cluster_secret='hush',
                    reject_status=503, admin=0) for number in (1, 2)]
    admins = [Admin(t, node) for node in nodes]
    for node in nodes:
        node.wait_log('node 1 is the master of the group')
    load = Load(t, [node.port for node in nodes], 30)
    t.until(lambda: min(load.served(0), load.served(1)) >= threshold // 2, 30, 'both serve')
    with _sniff(port) as sock:
        sock.settimeout(t.s(10))
        recorded = [sock.recv(2048) for _ in range(30)]
        before = [node.status('VmRSS') for node in nodes]
        chance = random.Random(5)
        for _ in range(5000):
            sock.sendto(chance.choice(recorded), ('127.255.255.255', port))
    served = load.served()
    t.until(lambda: load.served() >= served + threshold, 30, 'the group goes on')
    load.stop()
    for node, admin, before_kb in zip(nodes, admins, before):
        seen = sum(value for key, value in admin.metrics().items() if 'seen before' in key)
        t.check(seen > 500, f'{seen:g} datagrams were seen before')     # of 5,000, for there may have been no room for all
        _check_growth(t, node, before_kb, 40 * ROAD_KB, '5,000 datagrams')
        node.stop()
    times = arrivals.times()
    t.check(fullest(times) <= threshold, f'{fullest(times)} arrivals in a second, threshold {threshold}')


# How it is built, and what it may

def the_programs_are_built_to_be_hard_to_abuse(t):
    """Position-independent, with relocations read-only, a stack that is no code, guarded stacks and guarded copies."""
    readelf = t.tool('readelf')
    for name in ('weir', 'server_demo', 'client_demo'):
        path = os.path.join(t.bin, name)
        told = t.run_tool(readelf, '--wide', '--file-header', '--program-headers', '--dynamic', '--dyn-syms', path).out.decode()
        t.check(re.search(r'Type:\s+DYN', told) and re.search(r'FLAGS_1.*\bPIE\b', told), f'{name}: PIE')
        t.check('GNU_RELRO' in told and re.search(r'FLAGS.*\bBIND_NOW\b', told), f'{name}: RELRO, and all of it at start')
        t.check(re.search(r'GNU_STACK\s.*\sRW\s', told), f'{name}: a stack that can be executed')
        t.check(not re.search(r'LOAD\s.*\sRWE\s', told), f'{name}: memory that can be written and executed')
        t.check('__stack_chk_fail' in told, f'{name}: stack protector')
        if not t.sanitized and not t.counted:   # with which _FORTIFY_SOURCE would get in the way
            t.check(re.search(r'__(v?snprintf|memcpy|vfprintf|fprintf)_chk', told), f'{name}: _FORTIFY_SOURCE')
    flags = os.path.join(t.bin, 'build', 'flags')
    if not t.sanitized and not t.counted and os.path.exists(flags):
        with open(flags, encoding='utf-8') as file:
            t.check('-D_FORTIFY_SOURCE=3' in file.read(), 'not the third level')


def without_the_rights_of_root_there_is_no_way_back_to_them(t):
    if os.getuid() != 0:
        t.skip('only root can become another user')
    weir = t.weir(t.origin(), user='nobody')
    _others_are_served(t, weir, 1)
    for thread in os.listdir(f'/proc/{weir.pid}/task'):
        with open(f'/proc/{weir.pid}/task/{thread}/status', encoding='ascii') as file:
            told = dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)
        t.check('0' not in told['Uid'].split() + told['Gid'].split(), f'an id of root is left: {told["Uid"]}, {told["Gid"]}')
        groups = os.getgrouplist('nobody', int(told['Gid'].split()[0]))
        t.equal(sorted(map(int, told['Groups'].split())), sorted(groups), 'the supplementary groups')
        for kind in ('CapPrm', 'CapEff', 'CapInh', 'CapAmb'):
            t.equal(int(told[kind], 16), 0, kind)
        t.equal(told['NoNewPrivs'], '1', 'a setuid program could give them back')
