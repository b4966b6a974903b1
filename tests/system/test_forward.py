"""weir forward: plain requests, CONNECT, where a client may go, and the cap of each host.

How the largest number of connections is measured. A host that counts when it sees a connection closed counts late: weir
has closed one and opened the next before the host's thread has read the end of the first. So here the host closes
first: it counts one less before it says its last byte, and weir can't know that a place is free before that byte.
What is counted is then never too much.
"""
import base64
import json
import os
import re
import resource
import signal
import socket
import ssl
import sys
import threading
import time
import warnings

import contract
from client import request
from harness import Weir, takes
from origin import answer
from wire import Cut, Wire

LOOPBACK = '127.0.0.0/8:*, [::1]:*'
ATTEMPTS = 200


def _forward(t, environment=(), allow=LOOPBACK, extra=(), **settings):
    arguments = ['forward', '--port', settings.pop('port', 0)]
    if allow:
        arguments += ['--connect-allow', allow]
    for key, value in {'drain_timeout': 1, **settings}.items():
        arguments += ['--' + key.replace('_', '-'), value]
    return Weir(t, [*arguments, *extra], environment)


def _url(origin, path='/'):
    return f'http://127.0.0.1:{origin.port}{path}'


def _connect(t, weir, to, early=b'', fields=(), **more):
    """Asks for a tunnel: the client and the answer, whose body is left unread when it is a 200."""
    client = t.client(weir, **more)
    client.send(request('CONNECT', to, fields, host=to) + early)
    head = client.head()
    return client, head.status if head else None, head


def _waiting(weir):
    """Requests in line for a place: each has an eventfd, made in the moment it joins. One more is the store's."""
    count = -1
    for number in os.listdir(f'/proc/{weir.pid}/fd'):
        try:
            count += 'eventfd' in os.readlink(f'/proc/{weir.pid}/fd/{number}')
        except OSError:
            pass
    return count


class _Gate:
    """A host whose answers wait until the test says so; it knows the most connections that it had at once."""

    def __init__(self, t):
        self.open = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.paths = []
        self.origin = t.origin(handler=self._handle)
        t.cleanup(self.open.set)

    def _handle(self, conn):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            asked = conn.request()
            if asked is not None:
                with self.lock:
                    self.paths.append(asked.target)
                self.open.wait(60)
        finally:
            with self.lock:
                self.now -= 1
        if asked is not None:
            conn.send(answer(b'held', fields=['Connection: close']))


class _Tunnels:
    """A host behind CONNECT: says "hello" to each connection and holds it until it is told to go on."""

    def __init__(self, t):
        self.open = threading.Event()
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.origin = t.origin(handler=self._handle)
        t.cleanup(self.open.set)

    def _handle(self, conn):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        conn.send(b'hello')
        self.open.wait(60)
        with self.lock:
            self.now -= 1
        conn.send(b'bye')


def _echo(conn):
    """Sends back what comes, and "." at the end of it."""
    while conn.buffer or conn.fill(time.monotonic() + 60, 'bytes to echo'):
        conn.send(conn.take(len(conn.buffer)))
    conn.send(b'.')


# What is forwarded, and what is not

def an_absolute_target_becomes_origin_form_and_replaces_host(t):
    origin = t.origin()
    weir = _forward(t)
    host = f'127.0.0.1:{origin.port}'
    rows = (('GET', f'http://{host}/a/b?c=%20d', '/a/b?c=%20d'), ('GET', f'http://{host}', '/'),
            ('GET', f'HTTP://{host}/CaSe', '/CaSe'), ('GET', f'http://{host}?q', '/?q'),
            ('OPTIONS', f'http://{host}', '*'))
    for method, target, wanted in rows:
        for version in ('HTTP/1.1', 'HTTP/1.0'):
            response = t.get(weir, target, method, host='elsewhere.test' if version == 'HTTP/1.1' else None,
                             version=version)
            got = origin.requests[-1]
            t.equal([response.status, got.method, got.target, got.fields.all('host')], [200, method, wanted, [host]],
                    f'{method} {target} {version}')


def what_is_no_plain_request_to_a_host_is_400(t):
    weir = _forward(t, allow='')
    rows = (('GET', '/'), ('OPTIONS', '*'), ('GET', 'https://example.test/'), ('GET', 'ftp://example.test/'),
            ('GET', 'http://user@example.test/'), ('GET', 'http:///'), ('GET', 'http://:80/'),
            ('GET', 'http://example.test:0/'), ('GET', 'http://example.test:65536/'), ('GET', 'http://a..b/'),
            ('GET', 'http://exa%6dple.test/'), ('GET', 'http://[fe80::1%25eth0]/'), ('GET', 'http://[::1/'),
            ('CONNECT', 'example.test'), ('CONNECT', 'example.test:'), ('CONNECT', 'example.test:0'),
            ('GET', f'http://{"a" * 300}/'), ('GET', f'http://{"a" * 60}.{"b" * 60}.{"c" * 60}.{"d" * 60}.{"e" * 60}/'),
            ('GET', 'http://example.test:99999999999999999999999/'), ('CONNECT', f'{"a" * 300}:443'),
            ('CONNECT', 'example.test:99999999999999999999999'), ('CONNECT', '/'),
            ('CONNECT', 'http://example.test:443'), ('CONNECT', 'user@example.test:443'))
    for method, target in rows:
        response = t.get(weir, target, method)
        t.equal([response.status, response.get('connection')], [400, 'close'], f'{method} {target}')
    response = t.get(weir, 'example.test:443', 'CONNECT', body=b'body')
    t.equal(response.status, 400, 'CONNECT with a body')


def a_connection_is_kept_after_an_answer_whose_end_is_nothing_that_an_old_client_is_sent(t):
    """Of a chunked answer a 1.0 client gets the data alone: of the last chunk there is nothing to send."""
    go = threading.Event()

    def handler(conn):
        while conn.request() is not None:
            conn.send(answer(b'5\r\nhello\r\n', fields=['Transfer-Encoding: chunked'], length=False))
            go.wait(t.s(10))
            conn.send(b'0\r\n\r\n')
    origin = t.origin(handler=handler)
    weir = _forward(t)
    for _ in range(3):
        go.clear()
        client = t.client(weir)
        client.send(request(target=_url(origin), host=None, version='HTTP/1.0'))
        t.equal(client.head().status, 200)
        t.equal(client.exactly(5), b'hello')
        go.set()
        client.closed()
        t.check(not client.reset, 'reset at the end')
    t.equal(len(origin.connections), 1, 'connections to the host')


def fields_of_one_hop_and_credentials_stay_here(t):
    origin = t.origin(lambda req: answer(b'x', fields=['Proxy-Connection: keep-alive', 'Keep-Alive: timeout=5',
                                                       'Connection: X-Hop', 'X-Hop: 1', 'X-End: 1']))
    weir = _forward(t)
    response = t.get(weir, _url(origin), fields=[
        'Proxy-Authorization: Basic dTpw', 'Proxy-Connection: keep-alive', 'Connection: X-Mine', 'X-Mine: 1',
        'TE: trailers', 'Keep-Alive: 5', 'X-End: 1', 'Authorization: Basic b3JpZ2luOnB3'])
    seen = origin.requests[0]
    for name in ('proxy-authorization', 'proxy-connection', 'x-mine', 'te', 'keep-alive'):
        t.check(not seen.fields.has(name), f'{name} went on: {seen.fields}')
    t.equal([seen.get('x-end'), seen.get('authorization')], ['1', 'Basic b3JpZ2luOnB3'])
    t.check(not any(response.fields.has(name) for name in ('proxy-connection', 'keep-alive', 'x-hop')), f'{response}')
    t.equal([response.status, response.get('x-end')], [200, '1'])


def a_body_goes_both_ways_in_chunks_and_by_length(t):
    origin = t.origin(lambda req: answer(req.body))
    weir = _forward(t)
    client = t.client(weir)
    data = os.urandom(300000)
    t.equal(client.ask('POST', _url(origin), body=data).body, data)
    client.send(request('PUT', _url(origin), ['Transfer-Encoding: chunked']) + b'5\r\nhello\r\n0\r\n\r\n')
    t.equal(client.response().body, b'hello')


def a_host_that_is_not_there_is_502_and_a_silent_one_504(t):
    weir = _forward(t, response_timeout=0.3, connect_timeout=0.3)
    t.equal(t.get(weir, f'http://{t.refused().address}/').status, 502)
    t.equal(t.get(weir, f'http://{t.full_backlog().address}/').status, 504)
    silent = t.origin(handler=lambda conn: conn.hold())
    t.equal(t.get(weir, _url(silent)).status, 504)
    closing = t.origin(handler=lambda conn: conn.request())
    t.equal(t.get(weir, _url(closing)).status, 502)
    t.equal(len(closing.requests), 1, 'a request that a fresh connection lost is not sent again')
    t.equal(t.get(_forward(t, allow=''), 'http://no-such-name.invalid/').status, 502)


def a_request_that_has_been_here_before_is_508(t):
    weir, origin = _forward(t), t.origin()
    t.equal(t.get(weir, f'http://127.0.0.1:{weir.port}/').status, 508, 'sent to itself')
    t.get(weir, _url(origin))
    via = origin.requests[0].get('via')
    t.equal(t.get(weir, _url(origin), fields=[f'Via: {via}']).status, 508)


def an_upgrade_through_a_plain_request_becomes_a_tunnel(t):
    def handler(conn):
        if conn.request() is None:
            return
        conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
        _echo(conn)
    origin = t.origin(handler=handler)
    weir = _forward(t, max_connections=1, cap_backlog=5)
    for _ in range(3):
        client = t.client(weir)
        t.equal(client.ask(target=_url(origin), fields=['Connection: Upgrade', 'Upgrade: echo']).status, 101)
        client.send(b'ping')
        t.equal(client.exactly(4), b'ping')
        client.finish()
        t.equal(client.rest(), b'.')


# Connections to hosts

def a_connection_to_a_host_is_used_again(t):
    origin = t.origin()
    weir = _forward(t)
    for client in (t.client(weir), t.client(weir)):
        for _ in range(5):
            t.equal(client.ask(target=_url(origin)).status, 200)
    t.equal(len(origin.connections), 1)


def a_connection_that_the_host_closed_is_replaced(t):
    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'once'))
    origin = t.origin(handler=handler)
    weir = _forward(t, max_connections=1)
    client = t.client(weir)
    for count in range(1, 6):
        t.equal(client.ask(target=_url(origin)).body, b'once')
        origin.wait(lambda: not origin.live)
        t.equal(len(origin.connections), count)


def an_idle_connection_that_closes_under_a_request_is_replaced_in_its_own_place(t):
    two_is_there, go_on, held = threading.Event(), threading.Event(), threading.Event()

    def handler(conn):
        first = conn.request()
        if first is None:
            return
        if first.target == '/other':
            held.wait(30)
        conn.send(answer(first.target.encode()))
        if first.target == '/one' and conn.request() is not None:
            two_is_there.set()
            go_on.wait(30)
    origin = t.origin(handler=handler)
    weir = _forward(t, max_connections=1, cap_backlog=20, log_level='debug')
    mine, other = t.client(weir), t.client(weir)
    t.equal(mine.ask(target=_url(origin, '/one')).status, 200)
    mine.send(request(target=_url(origin, '/two')))
    t.check(two_is_there.wait(10), 'the idle connection was not used')
    other.send(request(target=_url(origin, '/other')))
    t.until(lambda: _waiting(weir) == 1, 10, 'the other one waits')
    go_on.set()
    try:
        t.equal(mine.response().body, b'/two', 'it had a place: it need not stand in line again')
    finally:
        held.set()
    t.equal(other.response().body, b'/other')


def a_request_that_can_not_be_repeated_takes_no_old_connection(t):
    origin = t.origin()
    weir = _forward(t)
    client = t.client(weir)
    client.ask(target=_url(origin))
    client.ask('POST', _url(origin), body=b'x')
    t.equal(len(origin.connections), 1, 'one that was in use a moment ago will do')
    old = time.monotonic() + 1.1
    t.until(lambda: time.monotonic() > old, 5, 'the connection is old')
    client.ask('POST', _url(origin), body=b'x')
    t.equal(len(origin.connections), 2)


def _waits_for_a_start(t, origin, log, method, meanwhile):
    """Two requests, and the second waits two seconds for its start, with the idle connection in hand."""
    weir = _forward(t, threshold=f'{60 / t.s(2):.3f}/m', burst=1, backlog=60, access_log=log, log_format='json')
    client = t.client(weir)
    t.equal(client.ask(target=_url(origin)).status, 200)
    client.send(request(method, _url(origin)))
    t.until(lambda: _waiting(weir) == 1, 10, 'it waits')
    meanwhile()
    t.equal(client.response().status, 200)
    t.equal(len(origin.connections), 2, method)
    lines = t.until(lambda: _lines(log), 10, 'both requests are in the log')
    t.equal([line['tries'] for line in lines], [1, 1], method)


def _lines(path):
    with open(path, encoding='utf-8') as file:
        lines = [json.loads(line) for line in file if line.endswith('\n')]
    return lines if len(lines) == 2 else None


def a_connection_that_dies_or_grows_old_while_its_request_waits_for_a_start_is_not_tried(t):
    hang_up = threading.Event()

    def handler(conn):
        while conn.request() is not None:
            conn.send(answer(b'x'))
            if conn.index == 0:
                hang_up.wait(30)
                return
    origin = t.origin(handler=handler)

    def end_first():
        hang_up.set()
        origin.wait(lambda: not origin.live)
    _waits_for_a_start(t, origin, t.file('died', ''), 'GET', end_first)
    _waits_for_a_start(t, t.origin(), t.file('old', ''), 'POST', lambda: None)


def idle_connections_make_room_when_descriptors_run_out(t):
    weir = _forward(t)
    listener = socket.create_server(('0.0.0.0', 0), backlog=128)
    port = listener.getsockname()[1]
    kept = []

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            kept.append(sock)
            threading.Thread(target=talk, args=(sock,), daemon=True).start()

    def talk(sock):
        try:
            while sock.recv(65536):
                sock.sendall(answer(b'here'))
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, (30, 30))
    client = t.client(weir)
    for i in range(1, 100):
        t.equal(client.ask(target=f'http://127.0.1.{i}:{port}/').status, 200, f'host {i}')
    newcomer = t.client(weir)
    t.equal(newcomer.ask(target=f'http://127.0.2.1:{port}/').status, 200)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for sock in kept:
        sock.close()


# CONNECT

def a_tunnel_carries_bytes_both_ways_and_keeps_a_half_close(t):
    got = []

    def handler(conn):
        conn.send(b'banner')
        got.append(conn.rest())
        conn.send(b'x' * 3000000)
    origin = t.origin(handler=handler)
    weir = _forward(t)
    client, status, head = _connect(t, weir, origin.address)
    t.equal([status, head.get('content-length'), head.get('transfer-encoding')], [200, None, None])
    t.equal(client.exactly(6), b'banner')
    data = os.urandom(2000000)
    client.send(data)
    client.finish()
    t.check(client.rest() == b'x' * 3000000, 'the way down ended early')
    t.check(got == [data], 'the way up was changed')


def a_half_close_of_the_host_leaves_the_way_up_open(t):
    got = threading.Event()

    def handler(conn):
        conn.send(b'bye')
        conn.finish()
        if conn.rest() == b'more':
            got.set()
    weir = _forward(t)
    client, _, _ = _connect(t, weir, t.origin(handler=handler).address)
    t.equal(client.rest(), b'bye')
    client.send(b'more')
    client.finish()
    t.check(got.wait(10), 'what the client sent after the end of the host was lost')


def bytes_sent_together_with_connect_are_the_first_of_the_tunnel(t):
    weir = _forward(t)
    early = b'GET / HTTP/1.1\r\n\r\n' + bytes(range(256)) * 40
    for size in (1, 5, len(early)):
        client, status, _ = _connect(t, weir, t.origin(handler=_echo).address, early[:size])
        client.finish()
        t.equal([status, client.rest()], [200, early[:size] + b'.'], f'{size} bytes')


def a_silent_tunnel_ends_at_tunnel_timeout(t):
    origin = t.origin(handler=_echo)
    weir = _forward(t, tunnel_timeout=0.6, idle_timeout=30, log_level='debug')
    client, _, _ = _connect(t, weir, origin.address)
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        client.send(b'x')
        t.equal(client.exactly(1), b'x', 'a tunnel in use goes on')
    silent_since = time.monotonic()
    t.check(client.closed(10), 'open')
    t.check(time.monotonic() - silent_since > 0.5, 'too early')
    origin.wait(lambda: not origin.live, what='end of the tunnel')
    weir.wait_log('tunnel_timeout')


def after_a_refused_connect_nothing_more_is_read(t):
    smuggled = t.origin()
    tail = request(target=_url(smuggled, '/smuggled'))
    gate = _Tunnels(t)
    hashes = _auth_file(t, ('user', 'pass'))
    for what, weir, to, fields, wanted in (
            ('not allowed', _forward(t, allow='127.0.0.1:%d' % smuggled.port), '127.0.0.1:1', [], 403),
            ('no credentials', _forward(t, auth_file=hashes), gate.origin.address, [], 407),
            ('refused', _forward(t), t.refused().address, [], 502),
            ('over the cap', _forward(t, max_connections=1), gate.origin.address, [], 500)):
        if wanted == 500:
            _connect(t, weir, to)
        client, status, head = _connect(t, weir, to, tail, fields)
        t.equal([status, head.get('connection')], [wanted, 'close'], what)
        client.exactly(int(head.get('content-length')))
        t.check(client.closed(), what)
    t.equal(smuggled.requests, [], 'what was meant for the tunnel became a request')


def ipv6_literals_are_reached_by_both_kinds(t):
    listener = socket.create_server(('::1', 0), family=socket.AF_INET6)
    t.cleanup(listener.close)
    port = listener.getsockname()[1]
    hosts = []

    def serve():
        for _ in range(2):
            sock, _ = listener.accept()
            wire = Wire(sock, t.s(10))
            lines = wire.head_lines('a head')
            hosts.append(next(line for line in lines if line.startswith(b'Host:')))
            wire.send(answer(b'six', fields=['Connection: close']))
            wire.close()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    weir = _forward(t)
    t.equal(t.get(weir, f'http://[::1]:{port}/').body, b'six')
    client, status, _ = _connect(t, weir, f'[0:0::1]:{port}')
    t.equal(status, 200)
    client.send(request(host=f'[::1]:{port}'))
    t.equal(client.response().body, b'six')
    t.equal(hosts, [b'Host: [::1]:%d' % port] * 2)


def _forward_with_hosts(t, hosts, **more):
    """weir with an /etc/hosts of its own (a mount namespace)."""
    real, unshare, folder = t.bin, t.tool('unshare'), os.path.join(t.tmp, 'bin')
    if t.run_tool(unshare, '-m', 'true').code != 0:
        t.skip('no mount namespaces here')
    os.makedirs(folder)
    path = t.file('hosts', hosts)
    script = t.file('bin/weir', f"""#!/bin/sh
exec {unshare} -m sh -c 'mount --bind {path} /etc/hosts && exec {real}/weir "$@"' weir "$@"
""")
    os.chmod(script, 0o755)
    t.bin = folder
    try:
        return _forward(t, **more)
    finally:
        t.bin = real


def every_address_of_a_name_is_tried_and_each_is_checked(t):
    weir = _forward_with_hosts(t, '::1 many.test\n127.0.0.7 many.test\n127.0.0.8 many.test\n127.0.0.9 many.test\n'
                                  '127.0.0.1 localhost\n', allow='127.0.0.8/31:*, [::1]:*')
    for address, wanted in (('127.0.0.8', 200), ('127.0.0.9', 200), ('::1', 200), ('127.0.0.7', 502)):
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        with socket.create_server((address, 0), family=family) as listener:
            client, status, _ = _connect(t, weir, f'many.test:{listener.getsockname()[1]}')
            t.equal(status, wanted, address)
            client.close()


# Caps

def _fill(t, weirs, gate, cap, tunnels=False):
    """200 attempts at once while the host holds what it has. The statuses of those that were refused."""
    refused, lock = [], threading.Lock()
    results = []

    def attempt(i):
        weir = weirs[i % len(weirs)]
        if tunnels:
            client, status, head = _connect(t, weir, gate.origin.address, seconds=60)
            body = client.rest() if status == 200 else client.exactly(int(head.get('content-length')))
        else:
            response = t.client(weir, seconds=60).ask(target=_url(gate.origin, f'/{i}'))
            status, head, body = response.status, response, response.body
        with lock:
            (results if status == 200 else refused).append((status, head, body))

    def release():
        try:
            t.until(lambda: len(refused) >= ATTEMPTS - cap and gate.now >= cap, 30,
                    f'all but {cap} are refused')
        finally:
            gate.open.set()
    t.parallel([release] + [lambda i=i: attempt(i) for i in range(ATTEMPTS)], seconds=50)
    t.equal(gate.most, cap, 'the most connections at once')
    t.equal(len(results), cap, 'answered')
    return refused


@takes(60)
def never_more_than_max_connections_at_a_host(t):
    gate = _Gate(t)
    refused = _fill(t, [_forward(t, max_connections=5)], gate, 5)
    t.equal({status for status, _, _ in refused}, {500})
    _, head, body = refused[0]
    told = json.loads(body)['overLimit']
    t.equal(told['code'], 500)
    t.check(f'127.0.0.1:{gate.origin.port}' in told['message'] and re.search(r'\b5\b', told['message']), f'{told}')
    t.check('connection_limit_reached' in head.get('proxy-status'), f'{head}')
    t.check(int(head.get('retry-after')) >= 1, f'{head}')


@takes(60)
def never_more_tunnels_than_host_limits_says(t):
    gate = _Tunnels(t)
    weir = _forward(t, max_connections=100, host_limits=f'127.0.0.1:{gate.origin.port}=3', reject_status=503)
    refused = _fill(t, [weir], gate, 3, tunnels=True)
    t.equal({status for status, _, _ in refused}, {503})


def every_spelling_of_a_host_has_one_cap(t):
    gate = _Tunnels(t)
    weir = _forward(t, max_connections=1, allow='127.0.0.0/8:*, localhost:*')
    port = gate.origin.port
    _, status, _ = _connect(t, weir, f'127.0.0.1:{port}')
    t.equal(status, 200)
    for host in ('127.1', '0x7f.1', '2130706433', '0177.0.0.1', '[::ffff:127.0.0.1]', '[::FFFF:7f00:1]', '127.0.0.1'):
        t.equal(_connect(t, weir, f'{host}:{port}')[1], 500, host)


def zero_is_no_cap(t):
    gate = _Tunnels(t)
    weir = _forward(t, max_connections=1, host_limits=f'127.0.0.1:{gate.origin.port}=0')
    t.equal([_connect(t, weir, gate.origin.address)[1] for _ in range(5)], [200] * 5)


def an_idle_connection_counts_and_is_closed_first_when_its_place_is_needed(t):
    kinds = []

    def handler(conn):
        if conn.request() is not None:
            kinds.append('plain')
            conn.send(answer(b'x'))
            conn.hold()
    origin = t.origin(handler=handler)
    weir = _forward(t, max_connections=1)
    client = t.client(weir)
    t.equal(client.ask(target=_url(origin)).status, 200)
    t.equal(len(origin.live), 1, 'it is kept')
    tunnel, status, _ = _connect(t, weir, origin.address)
    t.equal(status, 200)
    origin.wait(lambda: len(origin.connections) == 2 and len(origin.live) == 1, what='end of the idle connection')
    t.equal(t.client(weir).ask(target=_url(origin)).status, 500, 'the tunnel has the only place')
    tunnel.close()


@takes(60)
def places_come_back_on_every_way_a_request_can_end(t):
    seen = []

    def handler(conn):
        asked = conn.head()
        if asked is None:
            return
        seen.append(asked.target)
        if asked.target == '/cut':
            conn.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
        elif asked.target == '/bad':
            conn.send(b'HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n')
        elif asked.target == '/switch':
            conn.send(b'HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n')
        elif asked.target == '/reset':
            conn.abort()
        elif asked.target in ('/silent', '/gone'):
            conn.hold()
        else:
            conn.body(asked)
            conn.send(answer(b'x', fields=['Connection: close']))
    origin = t.origin(handler=handler)
    weir = _forward(t, max_connections=1, cap_backlog=3, response_timeout=0.3, log_level='debug')
    for target, wanted in (('/cut', None), ('/bad', 502), ('/switch', 502), ('/reset', 502), ('/silent', 504)):
        try:
            t.equal(t.get(weir, _url(origin, target)).status, wanted, target)
        except Cut:
            t.equal(wanted, None, target)
        t.equal(t.get(weir, _url(origin, '/ok')).status, 200, f'after {target}')
    bodies = ((['Transfer-Encoding: chunked'], b'zz\r\n', 400), (['Content-Length: 10'], b'half', None))
    for fields, body, wanted in bodies:
        client = t.client(weir)
        client.send(request('POST', _url(origin, '/body'), fields) + body)
        if wanted:
            t.equal(client.response().status, wanted)
        else:
            t.until(lambda: '/body' in seen, 10, 'the half request')
            client.abort()
        t.equal(t.get(weir, _url(origin, '/ok')).status, 200, f'after {fields}')
    tunnel, status, _ = _connect(t, weir, origin.address)
    t.equal(status, 200)
    tunnel.abort()
    t.equal(t.get(weir, _url(origin, '/ok')).status, 200, 'after a tunnel that was reset')
    t.equal(_sockets_to(weir, origin.port)[1:], [], 'no connection is left over')


def _sockets_to(weir, port):
    """The inodes of weir's sockets that are connected to a port of 127.0.0.1."""
    mine = set()
    for number in os.listdir(f'/proc/{weir.pid}/fd'):
        try:
            found = re.match(r'socket:\[(\d+)\]', os.readlink(f'/proc/{weir.pid}/fd/{number}'))
        except OSError:
            continue
        if found:
            mine.add(found[1])
    with open('/proc/net/tcp', encoding='ascii') as file:
        rows = [line.split() for line in file.readlines()[1:]]
    # A socket that comes or goes while the table is read can make another one appear twice.
    return list({row[9]: row for row in rows if row[2].endswith(f':{port:04X}') and row[9] in mine}.values())


def an_idle_connection_is_not_lost_when_its_request_is_refused_a_turn(t):
    origin = t.origin()
    weir = _forward(t, max_connections=1, threshold='3/s', burst=1)
    client = t.client(weir)
    statuses = []

    def enough():
        statuses.append(client.ask(target=_url(origin)).status)
        return statuses.count(200) == 4 and statuses.count(429) >= 3
    t.until(enough, 20, 'four requests and refusals between them')
    t.until(lambda: len(_sockets_to(weir, origin.port)) <= 1, 5, 'no more connections than places')


@takes(60)
def one_after_the_other_is_never_over_a_cap_of_one(t):
    weir = _forward(t, max_connections=1)
    dead, keeps = t.refused().address, t.origin()
    closes = t.origin(handler=lambda conn: conn.request() and conn.send(answer(b'x', fields=['Connection: close'])))
    chunks = t.origin(lambda req: answer(b'3\r\nabc\r\n0\r\n\r\n', length=False, fields=['Transfer-Encoding: chunked']))
    ends = t.origin(handler=lambda conn: conn.request() and conn.send(answer(b'to the end', length=False)))
    t.equal({_connect(t, weir, dead)[1] for _ in range(300)}, {502}, 'a place is given back before the answer')
    for origin in (keeps, closes, chunks, ends):
        statuses = [t.get(weir, _url(origin)).status for _ in range(500)]
        t.equal(set(statuses), {200}, 'a place is given back before the end of the answer')
    empty, none = t.origin(lambda req: answer(b'')), t.origin(lambda req: answer(b'', 204, 'No', length=False))
    for origin, method, wanted in ((empty, 'GET', 200), (none, 'GET', 204), (keeps, 'HEAD', 200)):
        statuses = [t.get(weir, _url(origin), method).status for _ in range(500)]
        t.equal(set(statuses), {wanted}, f'{method}: an answer without a body ends with its head')


@takes(60)
def those_that_wait_are_served_first_come_first_served(t):
    gate = _Gate(t)
    weir = _forward(t, max_connections=1, cap_backlog=30)
    clients = [t.client(weir, seconds=40) for _ in range(6)]
    clients[0].send(request(target=_url(gate.origin, '/0')))
    t.until(lambda: gate.now == 1, 10, 'the first')
    for i, client in enumerate(clients[1:], 1):
        client.send(request(target=_url(gate.origin, f'/{i}')))
        t.until(lambda i=i: _waiting(weir) == i, 10, f'{i} wait')
    clients[2].close()
    t.until(lambda: _waiting(weir) == 4, 10, 'one that hangs up leaves the line')
    gate.open.set()
    for i in (0, 1, 3, 4, 5):
        t.equal(clients[i].response().status, 200, f'{i}')
    t.equal(gate.paths, ['/0', '/1', '/3', '/4', '/5'])
    t.equal(gate.most, 1)


def a_refusal_over_a_cap_names_the_whole_host(t):
    gate = _Tunnels(t)
    name = '.'.join(('a' * 60, 'b' * 60, 'c' * 60, 'd' * 60, 'test'))
    weir = _forward_with_hosts(t, f'127.0.0.1 {name}\n', allow=f'{name}:*', max_connections=1)
    t.equal(_connect(t, weir, f'{name}:{gate.origin.port}')[1], 200)
    response = t.get(weir, f'http://{name}:{gate.origin.port}/')
    t.equal(response.status, 500)
    said = f'over the cap of 1 connections to {name}:{gate.origin.port}'
    t.equal(json.loads(response.body)['overLimit']['message'], said)
    t.check(said in response.get('proxy-status'), response.get('proxy-status'))


def who_waits_longer_than_cap_backlog_is_refused(t):
    gate = _Tunnels(t)
    weir = _forward(t, max_connections=1, cap_backlog=0.5)
    _connect(t, weir, gate.origin.address)
    begun = time.monotonic()
    t.equal(_connect(t, weir, gate.origin.address)[1], 500)
    t.check(0.4 < time.monotonic() - begun < t.s(5), 'not the time of cap_backlog')


def a_client_that_has_sent_all_of_its_tunnel_may_wait(t):
    echo = t.origin(handler=_echo)
    weir = _forward(t, host_limits=f'127.0.0.1:{echo.port}=1', cap_backlog=20)
    first, _, _ = _connect(t, weir, echo.address)
    waiting = t.client(weir)
    waiting.send(request('CONNECT', echo.address, host=echo.address) + b'all there is')
    waiting.finish()
    t.until(lambda: _waiting(weir) == 1, 10, 'it waits')
    first.close()
    t.equal(waiting.response('HEAD').status, 200)
    t.equal(waiting.rest(), b'all there is.')


def every_open_and_close_is_in_the_debug_log(t):
    origin = t.origin(handler=_echo)
    weir = _forward(t, max_connections=7, log_level='debug')
    first, _, _ = _connect(t, weir, origin.address)
    second, _, _ = _connect(t, weir, origin.address)
    for client in (first, second):
        client.finish()
        t.equal(client.rest(), b'.')
    t.until(lambda: len(re.findall('close a connection', weir.log.text())) == 2, 10, 'both are closed')
    lines = re.findall(r'debug.* (open|close) a connection host=(\S+) count=(\d+) limit=(\d+)', weir.log.text())
    t.equal(lines, [(what, origin.address, count, '7') for what, count in
                    (('open', '1'), ('open', '2'), ('close', '1'), ('close', '0'))])


@takes(45)
def sighup_changes_caps_and_drops_no_connection(t):
    gate = _Tunnels(t)
    text = '[out]\nmode = forward\nport = 0\nconnect_allow = 127.0.0.1:*\nmax_connections = {}\ndrain_timeout = 1\n'
    weir, path = t.weir_of_file(text.format(2), '--node', 'out')
    tunnels = [_connect(t, weir, gate.origin.address) for _ in range(3)]
    t.equal([status for _, status, _ in tunnels], [200, 200, 500])

    def reload(cap):
        before = len(weir.log.lines)
        t.file(os.path.basename(path), text.format(cap))
        weir.signal(signal.SIGHUP)
        weir.wait_log(contract.RELOADED, after=before)
    reload(3)
    third = _connect(t, weir, gate.origin.address)
    t.equal([third[1], _connect(t, weir, gate.origin.address)[1]], [200, 500])
    reload(1)
    t.equal(_connect(t, weir, gate.origin.address)[1], 500)
    gate.open.set()
    for client, _, _ in (*tunnels[:2], third):
        t.equal(client.rest(), b'hellobye')
        client.close()
    t.until(lambda: gate.now == 0, 10, 'all are over')
    gate.open.clear()
    t.until(lambda: _connect(t, weir, gate.origin.address)[1] == 200, 10, 'a place under the lower cap')
    t.equal(_connect(t, weir, gate.origin.address)[1], 500)


# Where a client may go

def loopback_is_shut_unless_it_is_named(t):
    origin = t.origin()
    port = origin.port
    spellings = ('127.0.0.1', '127.0.0.2', '127.1', '0x7f.1', '2130706433', 'localhost', 'LOCALHOST', '0.0.0.0', '0',
                 '[::1]', '[::]', '[::ffff:127.0.0.1]', '[::127.0.0.1]', '[64:ff9b::7f00:1]', '[2002:7f00:1::]',
                 '169.254.169.254', '10.0.0.1', '192.168.0.1', '172.16.0.1', '100.64.0.1', '224.0.0.1',
                 '255.255.255.255', '[fe80::1]', '[fc00::1]', '[ff02::1]')
    for allow in ('', '*:*', '0.0.0.0/0:*, [::]/0:*'):
        weir = _forward(t, allow=allow)
        for host in spellings:
            t.equal(t.get(weir, f'http://{host}:{port}/').status, 403, f'{allow}: {host}')
            t.equal(_connect(t, weir, f'{host}:{port}')[1], 403, f'{allow}: CONNECT {host}')
    t.equal(len(origin.connections), 0)


def what_connect_allow_names_is_open_and_nothing_else(t):
    origin, other = t.origin(), t.origin()
    rows = ((f'127.0.0.1:{origin.port}', '127.0.0.1', 200, 403), ('127.0.0.0/8:*', '127.0.0.1', 200, 200),
            (f'localhost:{origin.port}', 'localhost', 200, 403), (f'localhost:{origin.port}', '127.0.0.1', 403, 403),
            ('127.0.0.1:*', 'localhost', 200, 200), ('*.localhost:*', 'localhost', 403, 403),
            ('127.0.0.2:*', '127.0.0.1', 403, 403), ('127.0.0.1:*', '[::ffff:127.0.0.1]', 200, 200))
    for allow, host, wanted, elsewhere in rows:
        weir = _forward(t, allow=allow)
        for port, status in ((origin.port, wanted), (other.port, elsewhere)):
            t.equal(t.get(weir, f'http://{host}:{port}/').status, status, f'{allow}: {host}:{port}')
            t.equal(_connect(t, weir, f'{host}:{port}')[1], status, f'{allow}: CONNECT {host}:{port}')


def an_address_that_a_reload_has_shut_is_shut_to_idle_connections_too(t):
    origin = t.origin()
    text = '[out]\nmode = forward\nport = %d\nconnect_allow = %s\ndrain_timeout = 1\n'
    port = t.free_port()
    weir, path = t.weir_of_file(text % (port, LOOPBACK))
    client = t.client(weir)
    target = f'http://localhost:{origin.port}/'
    t.equal([client.ask(target=target).status for _ in range(2)], [200, 200])
    t.equal(len(origin.connections), 1)
    before = len(weir.log.lines)
    t.file(os.path.basename(path), text % (port, '*:*'))
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=before)
    t.equal(client.ask(target=target).status, 403, 'a * does not open loopback')


def connect_goes_to_443_alone_by_default(t):
    weir = _forward(t, allow='')
    for port in (22, 25, 80, 442, 8443):
        t.equal(_connect(t, weir, f'nowhere.invalid:{port}')[1], 403, f'{port}')
    t.equal(_connect(t, weir, 'nowhere.invalid:443')[1], 502, 'it may be asked for, and is not there')


# Who may use it

def _auth_file(t, *users):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import crypt                                # pylint: disable=import-outside-toplevel,deprecated-module
        methods = [crypt.METHOD_SHA512, crypt.METHOD_SHA256]
        lines = [f'{user}:{crypt.crypt(password, crypt.mksalt(methods[i % 2], rounds=1000))}'
                 for i, (user, password) in enumerate(users)]
    return t.file('users', '# who may\n\n' + '\n'.join(lines) + '\n')


def _basic(user, password):
    return 'Proxy-Authorization: Basic ' + base64.b64encode(f'{user}:{password}'.encode()).decode()


def a_proxy_with_users_asks_for_credentials(t):
    origin = t.origin()
    weir = _forward(t, auth_file=_auth_file(t, ('ann', 'secret'), ('bob', 'p:w \u00fc')))
    rows = ((None, 407), (_basic('ann', 'secret'), 200), (_basic('bob', 'p:w \u00fc'), 200),
            (_basic('ann', 'Secret'), 407), (_basic('cat', 'secret'), 407), (_basic('ann', ''), 407),
            ('Proxy-Authorization: Bearer x', 407), ('Proxy-Authorization: Basic !!!', 407),
            (_basic('ann', 'secret').replace('Proxy-', ''), 407))
    for field, wanted in rows:
        for method, target in (('GET', _url(origin)), ('CONNECT', origin.address)):
            client = t.client(weir)
            client.send(request(method, target, [field] if field else []))
            head = client.head()
            t.equal(head.status, wanted, f'{method} {field}')
            asked = head.get('proxy-authenticate')
            t.check((asked or '').startswith('Basic realm=') == (wanted == 407), f'{method} {field}: {asked}')
            client.close()
    t.check(origin.requests and not any(r.fields.has('proxy-authorization') for r in origin.requests), 'told the host')
    t.check('secret' not in weir.log.text(), 'the log tells')


def a_client_is_told_407_before_where_it_may_go(t):
    weir = _forward(t, allow='', auth_file=_auth_file(t, ('ann', 'secret')))
    t.equal(t.get(weir, 'http://127.0.0.1:1/').status, 407)
    t.equal(_connect(t, weir, '127.0.0.1:22')[1], 407)
    client = t.client(weir)
    t.equal(client.ask(target='http://127.0.0.1:1/').status, 407)
    response = client.ask(target='http://127.0.0.1:1/', fields=[_basic('ann', 'secret')])
    t.equal(response.status, 403, 'on the same connection')


@takes(60)
def who_guesses_is_told_to_come_later_and_who_knows_is_not(t):
    origin = t.origin()
    weir = _forward(t, auth_file=_auth_file(t, ('ann', 'secret'), ('bob', 'hidden')))
    client = t.client(weir)

    def ask(user, password):
        return client.ask(target=_url(origin), fields=[_basic(user, password)])
    t.equal(ask('ann', 'secret').status, 200)
    guesses = []
    for number in range(500):       # one a second comes for free: on a slow machine it takes more than five
        guesses.append(ask('ann', f'guess {number}'))
        if guesses[-1].status != 407:
            break
    t.equal({guess.status for guess in guesses[:-1]}, {407})
    t.equal(guesses[-1].status, 503)
    t.check(1 <= int(guesses[-1].get('retry-after')) <= 2, guesses[-1].get('retry-after'))
    t.check('too many passwords to check' in guesses[-1].get('proxy-status'), guesses[-1].get('proxy-status'))
    t.check(len(guesses) > 5, f'{len(guesses)} guesses')
    t.equal(guesses[-1].get('proxy-authenticate'), None)
    t.equal([ask('ann', 'secret').status, ask('bob', 'hidden').status], [200] * 2, 'who is known, and another')
    t.equal(len(origin.requests), 3)


@takes(45)
def sighup_reads_the_users_again(t):
    origin = t.origin()
    path = _auth_file(t, ('ann', 'one'))
    text = f'[out]\nmode = forward\nport = 0\nconnect_allow = 127.0.0.1:*\nauth_file = {path}\n'
    weir, _ = t.weir_of_file(text, '--node', 'out')

    def status(password):
        return t.get(weir, _url(origin), fields=[_basic('ann', password)]).status
    t.equal(status('one'), 200)
    _auth_file(t, ('ann', 'two'))
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED)
    t.equal([status('two'), status('one')], [200, 407])
    t.file('users', 'ann:not a hash\n')
    before = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=before)
    t.equal(status('two'), 200, 'a wrong file changes nothing')
    os.unlink(path)
    before = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=before)
    t.equal(status('two'), 200, 'nor does one that is gone')


@takes(60)
def users_read_again_and_again_take_no_more_memory(t):
    path = _auth_file(t, ('ann', 'one'))
    text = f'[out]\nmode = forward\nport = 0\nauth_file = {path}\n'
    # What a sanitizer keeps of freed memory is not weir's.
    options = {'ASAN_OPTIONS': os.environ.get('ASAN_OPTIONS', '') + ':quarantine_size_mb=1'}
    weir, _ = t.weir_of_file(text, '--node', 'out', environment=options)

    def reload_often(count):
        for _ in range(count):
            before = len(weir.log.lines)
            weir.signal(signal.SIGHUP)
            weir.wait_log(contract.RELOADED, after=before)
        with open(f'/proc/{weir.pid}/status', encoding='ascii') as status:
            return int(re.search(r'VmRSS:\s+(\d+)', status.read()).group(1))
    used_kib = reload_often(300)     # a sanitizer has filled its own stores by then
    t.check(reload_often(200) - used_kib < 3000, 'it grows with each reload')


# Redis

class _Redis:
    """A redis-server of the test's own, on a socket in its folder."""

    def __init__(self, t):
        self.t = t
        self.program = t.tool('redis-server')
        self.path = os.path.join(t.tmp, 'redis.socket')
        self.address = 'unix:' + self.path
        self.start()

    def start(self):
        self.process = self.t.start_tool(self.program, '--port', 0, '--unixsocket', self.path, '--dir', self.t.tmp,
                                         '--save', '')
        self.t.until(lambda: self._ask('PING') == b'+PONG\r\n', 10, 'Redis answers')

    def _ask(self, line):
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(5)
                sock.connect(self.path)
                sock.sendall(line.encode() + b'\r\n')
                return sock.recv(65536)
        except OSError:
            return b''

    def keys(self, pattern='proxy_rate_limiter:*'):
        answered = self._ask(f'KEYS {pattern}').decode().split('\r\n')
        return [line for line in answered if line.startswith('proxy_rate_limiter:')]

    def stop(self):
        self.process.kill()
        self.process.wait()
        if os.path.exists(self.path):
            os.unlink(self.path)


@takes(90)
def three_workers_share_one_cap_through_redis(t):
    redis = _Redis(t)
    weirs = [_forward(t, max_connections=5, redis_addr=redis.address) for _ in range(3)]
    for gate, tunnels in ((_Gate(t), False), (_Tunnels(t), True)):
        refused = _fill(t, weirs, gate, 5, tunnels)
        t.equal({status for status, _, _ in refused}, {500})
    t.check(redis.keys(), 'no counters in Redis')
    for weir in weirs:
        weir.stop()
    t.equal([key for key in redis.keys() if re.fullmatch(r'proxy_rate_limiter:127\.0\.0\.1:\d+:[^:]+', key)], [],
            'a worker that stops takes its counters along')


@takes(60)
def a_killed_workers_places_come_back_within_the_time_to_live(t):
    redis = _Redis(t)
    gate = _Tunnels(t)
    one, two = [_forward(t, max_connections=5, redis_addr=redis.address) for _ in range(2)]
    held = [_connect(t, one, gate.origin.address) for _ in range(5)]
    t.equal([status for _, status, _ in held], [200] * 5)
    t.equal(_connect(t, two, gate.origin.address)[1], 500)
    one.expected_exit = -signal.SIGKILL
    one.signal(signal.SIGKILL)
    one.wait_exit()
    killed = time.monotonic()
    t.equal(_connect(t, two, gate.origin.address)[1], 500, 'its counters still count')
    t.until(lambda: _connect(t, two, gate.origin.address)[1] == 200, 35, 'a place of the one that died')
    t.check(time.monotonic() - killed < t.s(33), 'later than the time to live')


@takes(90)
def without_redis_closed_open_and_local_do_as_they_say(t):
    redis = _Redis(t)
    gate = _Tunnels(t)
    weirs = {fail: _forward(t, max_connections=4, redis_addr=redis.address, redis_fail=fail)
             for fail in ('closed', 'open', 'local')}
    place = _connect(t, weirs['closed'], gate.origin.address)
    t.equal(place[1], 200)
    redis.stop()
    statuses = {fail: [_connect(t, weir, gate.origin.address) for _ in range(6)] for fail, weir in weirs.items()}
    told = {fail: [status for _, status, _ in rows] for fail, rows in statuses.items()}
    t.equal(told['closed'], [503] * 6)
    t.check(int(statuses['closed'][0][2].get('retry-after')) >= 1, 'no Retry-After')
    t.equal(told['open'], [200] * 4 + [500] * 2, 'open: its own cap')
    t.equal(told['local'], [200] + [500] * 5, 'local: 4 places for 3 workers')
    place[0].send(b'x')
    t.equal(place[0].exactly(5), b'hello', 'what is open goes on')
    for fail, weir in weirs.items():
        weir.wait_log("Redis can't be reached")
        t.equal(len(re.findall("Redis can't be reached", weir.log.text())), 1, f'{fail}: said once')
    before = {fail: len(weir.log.lines) for fail, weir in weirs.items()}
    redis.start()
    for fail, weir in weirs.items():
        weir.wait_log('Redis answers', 20, before[fail])
    # 1 + 4 + 1 are open, more than the cap of 4: nobody gets a place until they are gone.
    t.equal([_connect(t, weir, gate.origin.address)[1] for weir in weirs.values()], [500] * 3,
            'counters are rebuilt from what is open')
    gate.open.set()
    for client, status, _ in (place, *sum(statuses.values(), [])):
        if status == 200:
            client.rest()
        client.close()
    t.until(lambda: gate.now == 0, 20, 'all tunnels are over')
    gate.open.clear()
    for fail, weir in weirs.items():
        t.until(lambda weir=weir: _connect(t, weir, gate.origin.address)[1] == 200, 20, f'{fail} recovers')


@takes(60)
def an_idle_connection_of_another_worker_gives_its_place_up(t):
    redis = _Redis(t)
    origin = t.origin()
    one, two = [_forward(t, max_connections=1, redis_addr=redis.address, cap_backlog=5) for _ in range(2)]
    keeper = t.client(one)
    for _ in range(3):
        t.equal(keeper.ask(target=_url(origin)).status, 200)
        t.equal(t.client(two).ask(target=_url(origin)).status, 200)


# Start, stop, names in the environment

def names_of_the_environment_set_port_and_cap(t):
    gate = _Tunnels(t)
    port = t.free_port()
    weir = Weir(t, ['forward', '--connect-allow', LOOPBACK, '--drain-timeout', 1],
                {'DPRL_PORT': str(port), 'DPRL_MAX_CONNECTIONS': '2', 'LOG_LEVEL': 'debug'})
    t.equal(weir.port, port)
    t.equal([_connect(t, weir, gate.origin.address)[1] for _ in range(3)], [200, 200, 500])
    weir.wait_log(r'debug forward: open a connection')
    flag = Weir(t, ['forward', '--port', 0, '--connect-allow', LOOPBACK, '--max-connections', 1,
                    '--drain-timeout', 1],
                {'DPRL_PORT': str(port), 'DPRL_MAX_CONNECTIONS': '2'})
    t.check(flag.port != port, 'a flag comes before the environment')
    t.equal([_connect(t, flag, gate.origin.address)[1] for _ in range(2)], [200, 500])


def a_drain_lets_tunnels_end_and_then_cuts_them(t):
    origin = t.origin(handler=_echo)
    weir = _forward(t, drain_timeout=20)
    client, _, _ = _connect(t, weir, origin.address)
    weir.signal(signal.SIGTERM)
    weir.wait_log(contract.DRAINING)
    client.send(b'still here')
    t.equal(client.exactly(10), b'still here')
    client.finish()
    t.equal(client.rest(), b'.')
    t.equal(weir.wait_exit(5), 0)

    weir = _forward(t, drain_timeout=0.5)
    client, _, _ = _connect(t, weir, origin.address)
    begun = time.monotonic()
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(10), 0)
    t.check(time.monotonic() - begun >= 0.4, 'cut before drain_timeout')
    client.rest()


def a_drain_ends_those_that_wait_for_a_place(t):
    gate = _Tunnels(t)
    weir = _forward(t, max_connections=1, cap_backlog=60, drain_timeout=0.5)
    _connect(t, weir, gate.origin.address)
    client = t.client(weir)
    client.send(request('CONNECT', gate.origin.address))
    t.until(lambda: _waiting(weir) == 1, 10, 'it waits')
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(10), 0)


# Real clients, by http_proxy and https_proxy

def _accepts(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    except OSError:
        return False


SERVER = '''
import functools, http.server, ssl, sys
folder, port, certificate = sys.argv[1:4]
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
handler = functools.partial(Handler, directory=folder)
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(port)), handler)
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
'''


def _site(t):
    """A folder with a file and a git repository, served over HTTP and HTTPS; and the two addresses."""
    folder = os.path.join(t.tmp, 'site')
    os.makedirs(folder + '/work')
    with open(folder + '/big.bin', 'wb') as file:
        file.write(os.urandom(2000000))
    certificate = os.path.join(t.tmp, 'pem')
    openssl = t.tool('openssl')
    made = t.run_tool(openssl, 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 2, '-subj', '/CN=localhost',
                      '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost', '-keyout', certificate, '-out',
                      certificate + '.crt')
    t.equal(made.code, 0, str(made))
    with open(certificate, 'a', encoding='ascii') as file, open(certificate + '.crt', encoding='ascii') as more:
        file.write(more.read())
    urls = []
    script = t.file('server.py', SERVER)
    for scheme, pem in (('http', ''), ('https', certificate)):
        port = t.free_port()
        t.start_tool(sys.executable, script, folder, port, pem)
        t.until(lambda port=port: _accepts(port), 10, 'the server listens')
        urls.append(f'{scheme}://127.0.0.1:{port}')
    return folder, certificate + '.crt', urls


def _proxies(weir):
    proxy = f'http://127.0.0.1:{weir.port}'
    return {'http_proxy': proxy, 'https_proxy': proxy, 'no_proxy': '', 'NO_PROXY': '', 'HTTP_PROXY': proxy,
            'HTTPS_PROXY': proxy}


PYTHON = '''
import hashlib, ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2])
with urllib.request.urlopen(sys.argv[1], context=context if sys.argv[1].startswith('https') else None) as response:
    print(hashlib.sha256(response.read()).hexdigest())
'''

NODE = '''
const http = require('http'), tls = require('tls'), fs = require('fs'), crypto = require('crypto');
const url = new URL(process.argv[1]), proxy = new URL(process.env.http_proxy);
const agent = new http.Agent({keepAlive: true}), to = {host: proxy.hostname, port: proxy.port};
const show = r => { const h = crypto.createHash('sha256'); r.on('data', d => h.update(d));
                    r.on('end', () => { console.log(h.digest('hex')); process.exit(0); }); };
if (url.protocol === 'http:')
    http.get({...to, path: url.href, headers: {host: url.host}, agent}, show);
else
    http.request({...to, method: 'CONNECT', path: url.host}).on('connect', (res, socket) => {
        if (res.statusCode !== 200) { console.error(res.statusCode); process.exit(1); }
        const secure = tls.connect({socket, host: url.hostname, ca: fs.readFileSync(process.argv[2])}, () =>
            http.get({createConnection: () => secure, path: url.pathname, headers: {host: url.host}}, show));
    }).end();
'''


@takes(90)
def curl_wget_python_and_node_work_through_it(t):
    folder, certificate, urls = _site(t)
    with open(folder + '/big.bin', 'rb') as file:
        data = file.read()
    import hashlib                                  # pylint: disable=import-outside-toplevel
    digest = hashlib.sha256(data).hexdigest().encode() + b'\n'
    weir = _forward(t, max_connections=4, cap_backlog=5, log_level='debug')
    for url in urls:
        big, environment = url + '/big.bin', _proxies(weir)
        runs = (('curl', [t.tool('curl'), '-sS', '--cacert', certificate, '-o', 'curl.out', '-w', '%{http_code}', big]),
                ('wget', [t.tool('wget'), '-q', '--ca-certificate', certificate, '-O', 'wget.out', big]),
                ('python', [sys.executable, '-c', PYTHON, big, certificate]),
                ('node', [t.tool('node'), '-e', NODE, big, certificate]))
        for name, arguments in runs:
            before = len(weir.log.lines)
            result = t.run_tool(*arguments, environment=environment, seconds=30)
            t.equal(result.code, 0, f'{name} {url}: {result}')
            if name in ('curl', 'wget'):
                with open(os.path.join(t.tmp, name + '.out'), 'rb') as file:
                    t.check(file.read() == data, f'{name} {url}: not the same bytes')
            else:
                t.equal(result.out, digest, f'{name} {url}')
            weir.wait_log('"CONNECT ' if url.startswith('https') else '"GET http', after=before)


@takes(90)
def git_clones_over_http_and_https(t):
    git = t.tool('git')
    folder, certificate, urls = _site(t)
    quiet = {'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_SYSTEM': '/dev/null', 'HOME': t.tmp,
             'GIT_AUTHOR_NAME': 'a', 'GIT_AUTHOR_EMAIL': 'a@example.test', 'GIT_COMMITTER_NAME': 'a',
             'GIT_COMMITTER_EMAIL': 'a@example.test', 'GIT_SSL_CAINFO': certificate}
    work, bare = folder + '/work', folder + '/repo.git'
    for arguments in (['init', '-q', work], ['-C', work, 'commit', '-q', '--allow-empty', '-m', 'one'],
                      ['clone', '-q', '--bare', work, bare], ['-C', bare, 'update-server-info']):
        t.equal(t.run_tool(git, *arguments, environment=quiet).code, 0, str(arguments))
    weir = _forward(t, log_level='debug')
    for i, url in enumerate(urls):
        result = t.run_tool(git, 'clone', '-q', url + '/repo.git', f'{t.tmp}/clone{i}',
                            environment={**quiet, **_proxies(weir)}, seconds=40)
        t.equal(result.code, 0, str(result))
        subject = t.run_tool(git, '-C', f'{t.tmp}/clone{i}', 'log', '--format=%s', environment=quiet)
        t.equal(subject.out, b'one\n', str(subject))
    weir.wait_log('"CONNECT ')


def curl_sends_credentials_when_asked(t):
    curl = t.tool('curl')
    origin = t.origin()
    weir = _forward(t, auth_file=_auth_file(t, ('ann', 'secret')))
    proxy = f'http://127.0.0.1:{weir.port}'
    for more in ([], ['-p'], ['--proxy-anyauth'], ['-p', '--proxy-anyauth']):
        result = t.run_tool(curl, '-sS', '-x', proxy, '-U', 'ann:secret', *more, _url(origin))
        t.equal([result.code, result.out], [0, b'origin'], f'{more}: {result}')
    result = t.run_tool(curl, '-sS', '-x', proxy, '-o', '/dev/null', '-w', '%{http_code}', _url(origin))
    t.equal(result.out, b'407')
