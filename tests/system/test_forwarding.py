"""What passes through and what does not: fields, methods, interim answers, bodies in both directions at once, tunnels
(RFC 9110 section 7; SPEC: HTTP/1.1, rules 3, 4 and 5)."""
import hashlib
import json
import os
import select
import threading
import time

from client import chunked, request
from harness import Weir, takes
from origin import answer
from wire import Cut

MIB = 1024 * 1024


def _through(t, fields=(), method='GET', reply=None, **more):
    """One request through a fresh weir: (what the origin saw, what the client got)."""
    settings = more.pop('settings', {})
    origin = t.origin(reply)
    weir = t.weir(origin, **settings)
    response = t.get(weir, method=method, fields=list(fields), **more)
    return (origin.requests[0] if origin.requests else None), response


# Fields of the request

def hop_by_hop_fields_of_a_request_are_removed(t):
    seen, response = _through(t, ['Connection: keep-alive, X-Private, x-other', 'Keep-Alive: timeout=5', 'X-Private: 1',
                                  'X-OTHER: 2', 'Proxy-Connection: keep-alive', 'Proxy-Authorization: Basic eDp5',
                                  'TE: trailers, gzip', 'Upgrade: h2c', 'X-Kept: yes', 'Authorization: Basic eDp5'])
    t.equal(response.status, 200)
    for name in ('keep-alive', 'x-private', 'x-other', 'proxy-connection', 'proxy-authorization', 'upgrade'):
        t.check(not seen.fields.has(name), f'{name} reached the origin: {seen.fields}')
    t.check('gzip' not in (seen.get('te') or ''), f'TE reached the origin: {seen.get("te")}')
    named = (seen.get('connection') or '').lower()
    t.check('x-private' not in named and 'x-other' not in named, f'Connection: {named}')
    t.equal([seen.get('x-kept'), seen.get('authorization')], ['yes', 'Basic eDp5'])


def connection_cannot_remove_host_or_framing_or_what_weir_adds(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    client.send(request('POST', '/', ['Connection: Host, Content-Length, X-Forwarded-For, Via, X-Forwarded-Proto'],
                        b'hello'))
    t.equal(client.response().status, 200)
    seen = origin.requests[0]
    t.equal([seen.get('host'), seen.body], ['example.test', b'hello'])
    t.equal(seen.get('x-forwarded-for'), '127.0.0.1')
    t.check(seen.fields.has('via') and seen.fields.has('x-forwarded-proto'), f'{seen.fields}')
    client = t.client(weir)
    client.send(request('POST', '/', ['Connection: close, Transfer-Encoding', 'Transfer-Encoding: chunked'])
                + chunked([b'hello']))
    t.equal(client.response().status, 200)
    t.equal(origin.requests[1].body, b'hello')


def a_request_keeps_its_order_of_fields_and_its_repeated_ones(t):
    seen, _ = _through(t, ['X-B: 1', 'X-A: 2', 'X-B: 3', 'Cookie: a=b', 'Cookie: c=d'])
    ours = [(n, v) for n, v in seen.fields.lines if n.startswith('X-A') or n.startswith('X-B') or n == 'Cookie']
    t.equal([(n, v) for n, v in ours if n != 'Cookie'], [('X-B', '1'), ('X-A', '2'), ('X-B', '3')])
    t.equal([v for n, v in ours if n == 'Cookie'], ['a=b', 'c=d'])


def host_is_the_clients(t):
    seen, _ = _through(t, host='shop.test:8080')
    t.equal(seen.get('host'), 'shop.test:8080')


def absolute_form_becomes_origin_form_and_replaces_host(t):
    for target, wanted, host in (('http://real.test/a/b?c=d', '/a/b?c=d', 'real.test'),
                                 ('http://real.test', '/', 'real.test'),
                                 ('http://real.test:8080/', '/', 'real.test:8080'),
                                 ('HTTP://real.test/x', '/x', 'real.test'),
                                 ('http://real.test?q', '/?q', 'real.test'), ('http://[::1]:80/x', '/x', '[::1]:80')):
        seen, response = _through(t, target=target, host='other.test')
        t.equal(response.status, 200, target)
        if seen:
            t.equal([seen.target, seen.get('host')], [wanted, host], target)


def options_star_is_forwarded_as_star(t):
    seen, response = _through(t, method='OPTIONS', target='*')
    t.equal([response.status, seen and seen.target], [200, '*'])


def forwarded_fields_are_appended_by_default(t):
    seen, _ = _through(t)
    t.equal([seen.get('x-forwarded-for'), seen.get('x-forwarded-proto'), seen.get('x-forwarded-host')],
            ['127.0.0.1', 'http', 'example.test'])
    seen, _ = _through(t, ['X-Forwarded-For: 192.0.2.1, 192.0.2.2'])
    t.equal(seen.get('x-forwarded-for'), '192.0.2.1, 192.0.2.2, 127.0.0.1')
    seen, _ = _through(t, ['X-Forwarded-For: 192.0.2.1', 'X-Forwarded-For: 192.0.2.2'])
    t.equal(seen.get('x-forwarded-for'), '192.0.2.1, 192.0.2.2, 127.0.0.1')


def forwarded_set_replaces_what_the_client_claims(t):
    seen, _ = _through(t, ['X-Forwarded-For: 192.0.2.1', 'X-Forwarded-Proto: https', 'X-Forwarded-Host: evil.test'],
                       settings={'forwarded': 'set'})
    t.equal([seen.fields.all(n) for n in ('x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host')],
            [['127.0.0.1'], ['http'], ['example.test']])


def forwarded_off_adds_nothing(t):
    seen, response = _through(t, settings={'forwarded': 'off'})
    for name in ('x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'via'):
        t.check(not seen.fields.has(name), f'{name}: {seen.get(name)}')
    t.check(not response.fields.has('via'), f'Via in the response: {response.get("via")}')
    seen, _ = _through(t, ['X-Forwarded-For: 192.0.2.1'], settings={'forwarded': 'off'})
    t.equal(seen.get('x-forwarded-for'), '192.0.2.1')


def the_address_of_an_ipv6_client_is_forwarded_plainly(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir, host='::1')
    t.equal(client.ask().status, 200)
    t.equal(origin.requests[0].get('x-forwarded-for'), '::1')


def via_is_added_in_both_directions(t):
    seen, response = _through(t, ['Via: 1.0 first'], reply=lambda req: answer(b'', fields=['Via: 1.1 back']))
    t.check(seen.get('via').startswith('1.0 first, 1.1 '), f'request Via: {seen.get("via")}')
    t.check((response.get('via') or '').startswith('1.1 back, 1.1 '), f'response Via: {response.get("via")}')
    seen, _ = _through(t, version='HTTP/1.0')
    t.check(seen.get('via').startswith('1.0 '), f'Via for a 1.0 client: {seen.get("via")}')


def a_request_is_sent_with_weirs_own_version(t):
    seen, response = _through(t, version='HTTP/1.0')
    t.equal([seen.version, response.version], ['HTTP/1.1', 'HTTP/1.1'])


def a_request_that_comes_round_again_is_508(t):
    port = t.free_port()
    weir = Weir(t, ['reverse', '--port', port, '--endpoint', f'127.0.0.1:{port}'])
    t.equal(t.get(weir).status, 508)


def two_weirs_in_a_row_are_not_a_loop(t):
    origin = t.origin(name='far')
    inner = t.weir(origin)
    outer = t.weir(f'127.0.0.1:{inner.port}')
    response = t.get(outer)
    t.equal([response.status, response.body], [200, b'far'])
    t.equal(origin.requests[0].get('x-forwarded-for'), '127.0.0.1, 127.0.0.1')
    t.equal(len(origin.requests[0].get('via').split(',')), 2, 'hops in Via')


def max_forwards_is_counted_down_and_answered_at_0(t):
    for method in ('OPTIONS', 'TRACE'):
        seen, response = _through(t, ['Max-Forwards: 5'], method)
        t.equal(seen and seen.get('max-forwards'), '4', f'{method} with 5')
        seen, response = _through(t, ['Max-Forwards: 0', 'Cookie: secret=1'], method)
        t.check(seen is None, f'{method} with 0 reached the origin')
        t.check(response.status in (200, 204) or method == 'TRACE' and response.status in (405, 501),
                f'{method}: {response}')
        t.check(b'secret' not in response.body, 'TRACE told a cookie')
    seen, _ = _through(t, ['Max-Forwards: 0'])
    t.check(seen is not None, 'GET with Max-Forwards: 0 must pass')


def a_trace_of_a_long_target_is_405_and_says_what_is_allowed(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    short, long = '/' + 'a' * 300, '/' + 'a' * 2000
    response = client.ask('TRACE', short, ['Max-Forwards: 0'])
    t.equal([response.status, response.get('content-type')], [200, 'message/http'])
    t.check(response.body.startswith(f'TRACE {short} HTTP/1.1\r\n'.encode()), response.body)
    response = client.ask('TRACE', long, ['Max-Forwards: 0'])
    t.equal(response.status, 405)
    t.check('TRACE of a long target is not answered' in response.get('proxy-status'), response.get('proxy-status'))
    allowed = (response.get('allow') or '').split(', ')     # RFC 9110 section 15.5.6: a 405 has one
    t.check('GET' in allowed and 'TRACE' not in allowed, f'Allow: {allowed}')
    t.check(b'aaaa' not in response.body, 'the target is told after all')
    t.equal(client.ask('TRACE', long, ['Max-Forwards: 1']).status, 200, 'the next hop may')
    t.equal([seen.target for seen in origin.requests], [long])


# Fields of the response

def hop_by_hop_fields_of_a_response_are_removed(t):
    _, response = _through(t, reply=lambda req: answer(b'x', fields=[
        'Connection: keep-alive, X-Private', 'Keep-Alive: timeout=5', 'X-Private: 1', 'Proxy-Connection: keep-alive',
        'Upgrade: websocket', 'X-Kept: yes', 'Set-Cookie: a=b', 'Set-Cookie: c=d']))
    for name in ('keep-alive', 'x-private', 'proxy-connection', 'upgrade'):
        t.check(not response.fields.has(name), f'{name} reached the client: {response.fields}')
    t.equal([response.get('x-kept'), response.fields.all('set-cookie')], ['yes', ['a=b', 'c=d']])


def the_reason_and_the_status_pass_as_they_came(t):
    for status, reason in ((200, 'Fine by me'), (299, 'Odd'), (404, 'Not Found'), (500, 'Sorry'), (599, 'Last'),
                           (302, 'Found')):
        _, response = _through(t, reply=lambda req, s=status, r=reason: answer(b'x', s, r))
        t.equal([response.status, response.reason, response.body], [status, reason, b'x'])


# Connections

def pipelined_requests_are_answered_in_order(t):
    origins = [t.origin(lambda req: answer(req.target.encode())) for _ in range(3)]
    weir = t.weir(*origins)
    client = t.client(weir)
    client.send(b''.join(request('POST' if i % 3 == 0 else 'GET', f'/{i}', body=b'x' * i if i % 3 == 0 else None)
                         for i in range(40)))
    for i in range(40):
        t.equal(client.response().body, b'/%d' % i)


def a_connection_is_kept_for_many_requests_and_closed_when_asked(t):
    weir = t.weir(t.origin())
    client = t.client(weir)
    for _ in range(50):
        t.equal(client.ask().status, 200)
    response = client.ask(fields=['Connection: close'])
    t.equal(response.status, 200)
    t.check('close' in (response.get('connection') or '').lower(), f'Connection: {response.get("connection")}')
    client.closed()


def head_has_no_body_and_keeps_its_length(t):
    weir = t.weir(t.origin(lambda req: answer(b'' if req.method == 'HEAD' else b'x' * 100, length=False,
                                              fields=['Content-Length: 100'])))
    client = t.client(weir)
    for _ in range(3):
        response = client.ask('HEAD')
        t.equal([response.status, response.get('content-length')], [200, '100'])
        t.equal(client.ask('GET').body, b'x' * 100)


def a_204_and_a_304_have_no_body(t):
    def reply(req):
        if req.target == '/204':
            return answer(b'', 204, 'No Content', length=False)
        if req.target == '/304':
            return answer(b'', 304, 'Not Modified', ['Content-Length: 50', 'ETag: "x"'], length=False)
        return answer(b'body')
    weir = t.weir(t.origin(reply))
    client = t.client(weir)
    for _ in range(3):
        t.equal(client.ask(target='/204').status, 204)
        response = client.ask(target='/304')
        t.equal([response.status, response.get('etag')], [304, '"x"'])
        t.equal(client.ask().body, b'body')


def a_1_0_client_gets_no_chunks_and_is_closed(t):
    def reply(req):
        return answer(b'', fields=['Transfer-Encoding: chunked'], length=False) + chunked([b'hello ', b'world'],
                                                                                          ['X-Sum: 1'])
    weir = t.weir(t.origin(reply))
    for fields in ([], ['Connection: keep-alive']):
        client = t.client(weir)
        response = client.ask(version='HTTP/1.0', fields=fields)
        t.equal([response.status, response.framing, response.body], [200, 'close', b'hello world'])
        t.check(not client.reset, 'reset at the end')


def a_1_0_client_is_closed_after_one_answer_unless_it_asks_to_stay(t):
    weir = t.weir(t.origin())
    client = t.client(weir)
    t.equal(client.ask(version='HTTP/1.0').body, b'origin')
    client.closed()
    client = t.client(weir)
    client.ask(version='HTTP/1.0', host=None)
    client.closed()


def a_1_0_client_that_asks_to_stay_is_told_that_it_may_by_our_own_answers_too(t):
    client = t.client(t.weir(t.refused()))
    for _ in range(2):
        response = client.ask(version='HTTP/1.0', fields=['Connection: keep-alive'])
        t.equal([response.status, response.get('connection')], [500, 'keep-alive'])


def a_1_0_server_is_understood(t):
    def handler(conn):
        if conn.request() is not None:
            conn.send(b'HTTP/1.0 200 OK\r\nX-Old: yes\r\n\r\nuntil the end')
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    for _ in range(3):
        response = client.ask()
        t.equal([response.version, response.body, response.framing], ['HTTP/1.1', b'until the end', 'chunked'])
    response = t.get(weir, version='HTTP/1.0')
    t.equal([response.body, response.framing], [b'until the end', 'close'])


# Interim answers

def interim_answers_pass_to_1_1_clients_only(t):
    hints = b'HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n'
    weir = t.weir(t.origin(lambda req: hints + answer(b'final')))
    response = t.get(weir)
    t.equal([(r.status, r.get('link')) for r in response.interim], [(103, '</style.css>; rel=preload'), (102, None)])
    t.equal(response.body, b'final')
    response = t.get(weir, version='HTTP/1.0')
    t.equal([response.interim, response.body], [[], b'final'])


def expect_100_continue_is_passed_on_and_the_origins_100_comes_back(t):
    def handler(conn):
        req = conn.head()
        if req is None:
            return
        t.equal((req.get('expect') or '').lower(), '100-continue', 'Expect at the origin')
        t.check(not conn.buffer, 'the body came before the 100')
        conn.send(b'HTTP/1.1 100 Continue\r\n\r\n')
        conn.send(answer(conn.body(req)))
        conn.hold()
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    client.send(b'POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n')
    t.equal(client.head().status, 100)
    client.send(b'hello')
    response = client.response()
    t.equal([response.status, response.body], [200, b'hello'])


def an_origin_may_refuse_without_reading_the_body_that_was_announced(t):
    for status in (401, 417):
        def handler(conn, status=status):
            if conn.head() is not None:
                conn.send(answer(b'no', status, 'No'))
                conn.hold()
        weir = t.weir(t.origin(handler=handler))
        client = t.client(weir)
        client.send(b'POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n')
        response = client.response()
        t.equal([response.status, response.body, len(response.interim)], [status, b'no', 0])


def a_client_that_does_not_wait_for_the_100_is_served(t):
    def handler(conn):
        req = conn.request()
        if req is not None:
            conn.send(answer(req.body))
            conn.hold()
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    client.send(b'POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello')
    t.equal(client.response().body, b'hello')


# Bodies, both ways at once

def _pattern(total):
    """total bytes in pieces, never the same twice in a row; the reader compares digests."""
    block = os.urandom(65536)
    sent = 0
    while sent < total:
        piece = block[sent % 7:][:min(65000, total - sent)]
        sent += len(piece)
        yield piece


def _grew(t, weir, before_kb, limit_mib):
    if not t.sanitized:
        grown = (weir.status('VmHWM') - before_kb) / 1024
        t.check(grown < limit_mib, f'weir grew by {grown:.1f} MiB')


@takes(60)
def an_answer_may_come_while_the_body_is_still_being_sent(t):
    """64 MiB up and 64 MiB down at the same time: no deadlock, and weir holds none of it."""
    total = 64 * MIB
    up, down = hashlib.sha256(), hashlib.sha256()

    def handler(conn):
        req = conn.head()
        if req is None:
            return
        conn.send(answer(length=False, fields=[f'Content-Length: {total}']))

        def write():
            for piece in _pattern(total - 1):
                down.update(piece)
                conn.send(piece)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        conn.body(req, up.update)
        writer.join()
        down.update(b'.')
        conn.send(b'.')                             # the answer ends after the request
        conn.hold()
    origin = t.origin(handler=handler)
    weir = t.weir(origin)
    before = weir.status('VmHWM')
    client = t.client(weir, seconds=50)
    sent, got = hashlib.sha256(), hashlib.sha256()
    client.send(request('POST', '/', [f'Content-Length: {total}']))

    def write():
        for piece in _pattern(total):
            sent.update(piece)
            client.sock.sendall(piece)
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    t.equal(client.response(sink=got.update).status, 200)
    writer.join(t.s(20))
    origin.wait(lambda: origin.whole_requests == 1, 20, 'a whole request')
    t.equal(got.hexdigest(), down.hexdigest(), 'down')
    t.equal(up.hexdigest(), sent.hexdigest(), 'up')
    _grew(t, weir, before, 8)


def a_long_answer_arrives_whole_although_the_client_is_still_sending(t):
    """The origin answers at once and reads no more; closing must not throw away what the client has not read yet."""
    total = 16 * MIB
    digest = hashlib.sha256()

    def handler(conn):
        if conn.head() is not None:
            conn.send(answer(length=False, fields=[f'Content-Length: {total}', 'Connection: close']))
            for piece in _pattern(total):
                digest.update(piece)
                conn.send(piece)
            conn.closing.wait(t.s(20))
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir, seconds=15)
    client.send(request('POST', '/', [f'Content-Length: {256 * MIB}']))
    read = threading.Event()

    def write():
        try:
            while not read.is_set():
                client.sock.sendall(b'x' * MIB)
        except OSError:
            pass
    threading.Thread(target=write, daemon=True).start()
    got = hashlib.sha256()
    try:
        client.response(sink=got.update)
    finally:
        read.set()
    t.equal(got.hexdigest(), digest.hexdigest())


def large_bodies_pass_whole_on_connections_that_live_on_and_are_counted(t):
    """A length that is known and much still to come: inside the kernel, where weir sees no byte of it."""
    total = 3 * MIB
    digests = []

    def handler(conn):
        for _ in range(2):
            req = conn.head()
            if req is None:
                return
            digest = hashlib.sha256()
            conn.body(req, digest.update)
            digests.append(digest.hexdigest())
            digest = hashlib.sha256()
            conn.send(answer(length=False, fields=[f'Content-Length: {total}']))
            for piece in _pattern(total):
                digest.update(piece)
                conn.send(piece)
            digests.append(digest.hexdigest())
        conn.hold()
    origin = t.origin(handler=handler)
    log = t.tmp + '/access.log'
    weir = t.weir(origin, access_log=log, log_format='json')
    client = t.client(weir, seconds=20)
    for _ in range(2):
        sent, got = hashlib.sha256(), hashlib.sha256()
        client.send(request('PUT', '/', [f'Content-Length: {total}']))
        for piece in _pattern(total):
            sent.update(piece)
            client.send(piece)
        t.equal(client.response(sink=got.update).status, 200)
        t.equal(digests[-2:], [sent.hexdigest(), got.hexdigest()])
    t.equal(len(origin.connections), 1, 'connections to the origin')
    t.until(lambda: len(_lines(log)) == 2, 10, 'two lines in the log')
    for line in _lines(log):
        t.equal((line['bytes_in'], line['bytes_out']), (total, total))


def _lines(path):
    with open(path, encoding='utf-8') as file:
        return [json.loads(line) for line in file.read().splitlines()]


def a_refusal_reaches_a_client_that_is_still_sending(t):
    """The origin answers 413 at once and reads no more: the client must get that answer, not a hang or a reset."""
    def handler(conn):
        if conn.head() is not None:
            conn.send(answer(b'too much', 413, 'Content Too Large', ['Connection: close']))
            conn.closing.wait(t.s(20))
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir, seconds=15)
    client.send(request('POST', '/', [f'Content-Length: {64 * MIB}']))

    def write():
        try:
            client.sock.sendall(b'x' * (64 * MIB))
        except OSError:
            pass
    threading.Thread(target=write, daemon=True).start()
    response = client.response()
    t.equal([response.status, response.body], [413, b'too much'])


def an_origin_that_answers_and_resets_while_the_body_comes_is_still_heard(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(answer(b'no', 403, 'Forbidden', ['Connection: close']))
            t.read_by_peer(conn)
            conn.abort()
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir, seconds=15)
    client.send(request('POST', '/', [f'Content-Length: {16 * MIB}']))

    def write():
        try:
            client.sock.sendall(b'x' * (16 * MIB))
        except OSError:
            pass
    threading.Thread(target=write, daemon=True).start()
    response = client.response()
    t.equal([response.status, response.body], [403, b'no'])


def _held_by_the_kernel():
    """What may be on its way though nobody reads: full buffers of two connections, and weir's own, a pipe's among them."""
    most = 0
    for name in ('tcp_rmem', 'tcp_wmem'):
        with open(f'/proc/sys/net/ipv4/{name}', encoding='ascii') as file:
            most += int(file.read().split()[2])
    return 2 * most + 2 * MIB


@takes(60)
def a_client_that_does_not_read_holds_the_origin_back(t):
    total = _held_by_the_kernel() + 16 * MIB
    progress = threading.Semaphore(0)
    digest, sent = hashlib.sha256(), [0]

    def handler(conn):
        if conn.request() is None:
            return
        conn.send(answer(length=False, fields=[f'Content-Length: {total}']))
        stalled = False
        for piece in _pattern(total):
            digest.update(piece)
            view = memoryview(piece)
            while view:
                if not select.select([], [conn.sock], [], t.s(1))[1] and not stalled:
                    stalled = True
                    progress.release()              # nobody takes more: a second without room
                conn.sock.settimeout(t.s(40))
                count = conn.sock.send(view)
                sent[0] += count
                view = view[count:]
        if not stalled:
            progress.release()
        conn.hold()
    weir = t.weir(t.origin(handler=handler))
    before = weir.status('VmHWM')
    client = t.client(weir, seconds=40, receive_buffer=65536)
    client.send(request())
    t.check(progress.acquire(timeout=t.s(20)), 'the origin stalls')
    t.check(sent[0] < _held_by_the_kernel(), f'{sent[0]} bytes were taken from the origin')
    got = hashlib.sha256()
    client.response(sink=got.update)
    t.equal(got.hexdigest(), digest.hexdigest())
    _grew(t, weir, before, 8)


@takes(60)
def an_origin_that_does_not_read_holds_the_client_back(t):
    total = _held_by_the_kernel() + 16 * MIB
    go = threading.Event()
    digest = hashlib.sha256()

    def handler(conn):
        req = conn.head()
        if req is not None:
            go.wait(t.s(40))
            conn.body(req, digest.update)
            conn.send(answer(digest.hexdigest().encode()))
            conn.hold()
    weir = t.weir(t.origin(handler=handler), response_timeout=50)
    before = weir.status('VmHWM')
    client = t.client(weir, seconds=40)
    client.send(request('POST', '/', [f'Content-Length: {total}']))
    sent, mine = 0, hashlib.sha256()
    for piece in _pattern(total):
        mine.update(piece)
        if not go.is_set() and not select.select([], [client.sock], [], t.s(1))[1]:
            t.check(sent < _held_by_the_kernel(), f'{sent} bytes were taken from the client')
            go.set()
        client.send(piece)
        sent += len(piece)
    t.check(go.is_set(), 'the client was never held back')
    t.equal(client.response().body, mine.hexdigest().encode())
    _grew(t, weir, before, 8)


def a_chunked_upload_of_many_sizes_arrives_whole(t):
    origin = t.origin()
    weir = t.weir(origin)
    pieces = [os.urandom(size) for size in [1, 2, 3, 15, 16, 17, 255, 4095, 4096, 4097, 65535, 65536, 65537, 300000, 1]]
    client = t.client(weir)
    client.send(request('PUT', '/', ['Transfer-Encoding: chunked']) + chunked(pieces))
    t.equal(client.response().status, 200)
    t.check(origin.requests[0].body == b''.join(pieces), 'the body changed')


def a_chunked_answer_passes_on_as_it_comes_not_when_it_ends(t):
    """Server-sent events: the first event must arrive although the answer has not ended."""
    go = threading.Event()

    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(fields=['Transfer-Encoding: chunked', 'Content-Type: text/event-stream'], length=False))
            conn.send(b'5\r\none\n\n\r\n')
            go.wait(t.s(20))
            conn.send(b'5\r\ntwo\n\n\r\n0\r\n\r\n')
            conn.hold()
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    client.send(request())
    t.equal(client.head().status, 200)
    size = int(client.line(), 16)
    t.equal(client.exactly(size), b'one\n\n')
    client.line()
    go.set()
    t.equal(client.chunked()[0], b'two\n\n')


def response_trailers_are_kept_except_those_that_frame(t):
    trailers = ['X-Sum: 42', 'Content-Length: 3', 'Transfer-Encoding: chunked', 'X-More: yes']
    weir = t.weir(t.origin(lambda req: answer(fields=['Transfer-Encoding: chunked', 'Trailer: X-Sum'], length=False)
                           + chunked([b'hello'], trailers)))
    response = t.get(weir, fields=['TE: trailers'])
    t.equal([response.body, response.trailers.get('x-sum'), response.trailers.get('x-more')], [b'hello', '42', 'yes'])
    for name in ('content-length', 'transfer-encoding'):
        t.check(not response.trailers.has(name), f'{name} in the trailers: {response.trailers}')


def a_client_that_leaves_in_the_middle_of_its_body_leaves_no_whole_request(t):
    origin = t.origin()
    weir = t.weir(origin, probe_interval=0.1)
    for framing, start in (('Content-Length: 100', b'x' * 50), ('Transfer-Encoding: chunked', b'32\r\n' + b'x' * 20)):
        seen = len(origin.connections)
        client = t.client(weir)
        client.send(request('POST', '/', [framing]) + start)
        origin.wait_connections(seen + 1)
        client.abort()
        origin.wait(lambda seen=seen: origin.connections[seen] not in origin.live, 10, 'the end of that connection')
    t.equal(origin.whole_requests, 0)
    t.equal(t.get(weir).status, 200, 'the target is still in the rotation')


def a_client_that_leaves_in_the_middle_of_an_answer_costs_the_target_nothing(t):
    sent = threading.Event()

    def handler(conn):
        while True:
            req = conn.request()
            if req is None:
                return
            if req.target == '/long':
                conn.send(answer(length=False, fields=['Content-Length: 100000000']) + b'x' * 1000)
                sent.set()
                return conn.hold()
            conn.send(answer(b'A'))
    origin = t.origin(handler=handler)
    weir = t.weir(origin, probe_interval=30)
    client = t.client(weir)
    client.send(request(target='/long'))
    client.head()
    t.check(sent.wait(t.s(10)), 'the answer begins')
    long_one = origin.connections[-1]
    client.abort()
    origin.wait(lambda: long_one not in origin.live, 10, 'the end of the connection upstream')
    t.equal(t.get(weir).status, 200)


def _after_half_an_answer(t, fields, beginning, rest, **settings):
    """The answer has begun when this happens to the request's body. What the client got of it, and the log's word."""
    def handler(conn):
        if conn.head() is not None:
            conn.send(answer(b'5\r\nfirst\r\n', fields=['Transfer-Encoding: chunked'], length=False))
            conn.hold()
    log = t.tmp + '/access.log'
    open(log, 'w', encoding='utf-8').close()
    origin = t.origin(handler=handler)
    client = t.client(t.weir(origin, access_log=log, log_format='json', **settings))
    client.send(request('POST', '/', fields) + beginning)
    t.equal(client.head().status, 200)
    t.equal([client.line(), client.exactly(7)], [b'5', b'first\r\n'])
    client.send(rest)
    left = client.rest()
    t.until(lambda: len(_lines(log)) == 1, 10, 'a line in the log')
    origin.wait(lambda: not origin.live, 10, 'the end of the connection upstream')
    return left, _lines(log)[0]['outcome']


def a_body_that_goes_wrong_when_the_answer_has_begun_cuts_the_answer_and_the_log_says_whose_fault_it_was(t):
    wrong = "the rest of the client's body was malformed or too long"
    coded = ['Transfer-Encoding: chunked']
    t.equal(_after_half_an_answer(t, coded, b'3\r\nabc\r\n', b'xyz\r\n'), (b'', wrong))
    t.equal(_after_half_an_answer(t, coded, b'3\r\nabc\r\n', b'3\r\ndef\r\n', max_body=5), (b'', wrong))
    t.equal(_after_half_an_answer(t, ['Content-Length: 10'], b'abc', b'', idle_timeout=2), (b'', 'client went away'))


# Tunnels

def _echo_after_101(conn):
    req = conn.head()
    if req is None:
        return
    conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome')
    while True:
        if conn.buffer:
            conn.send(conn.take(len(conn.buffer)))
        if not conn.fill(time.monotonic() + 3600, 'tunnel bytes'):
            return


UPGRADE = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
           'Sec-WebSocket-Version: 13']


def an_upgrade_becomes_a_tunnel_both_ways(t):
    origin = t.origin(handler=_echo_after_101)
    weir = t.weir(origin)
    client = t.client(weir)
    client.send(request(fields=UPGRADE))
    response = client.response()
    t.equal([response.status, (response.get('upgrade') or '').lower()], [101, 'websocket'])
    t.check('upgrade' in (response.get('connection') or '').lower(), f'Connection: {response.get("connection")}')
    seen = origin.requests[0]
    t.equal([(seen.get('upgrade') or '').lower(), seen.get('sec-websocket-version')], ['websocket', '13'])
    t.check('upgrade' in (seen.get('connection') or '').lower(), f'Connection: {seen.get("connection")}')
    t.equal(client.exactly(7), b'welcome')
    for data in (b'\x81\x05hello', b'\x00\xff\r\n\r\nGET / HTTP/1.1\r\n\r\n', os.urandom(300000)):
        sender = threading.Thread(target=client.send, args=(data,), daemon=True)
        sender.start()
        t.check(client.exactly(len(data)) == data, f'{len(data)} bytes came back changed')
        sender.join()


def bytes_sent_right_behind_an_upgrade_request_reach_the_tunnel(t):
    weir = t.weir(t.origin(handler=_echo_after_101))
    client = t.client(weir)
    client.send(request(fields=UPGRADE) + b'early bird')
    t.equal(client.response().status, 101)
    t.equal(client.exactly(17), b'welcomeearly bird')


def a_tunnel_ends_when_either_side_ends(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbye')
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    client.send(request(fields=UPGRADE))
    t.equal(client.response().status, 101)
    t.equal(client.rest(), b'bye')
    origin = t.origin(handler=_echo_after_101)
    weir = t.weir(origin)
    client = t.client(weir)
    client.send(request(fields=UPGRADE))
    t.equal(client.response().status, 101)
    client.exactly(7)
    client.close()
    origin.wait(lambda: not origin.live, 10, 'the end of the tunnel')


def an_upgrade_that_the_origin_declines_is_an_ordinary_exchange(t):
    weir = t.weir(t.origin(name='plain'))
    client = t.client(weir)
    for _ in range(2):
        response = client.ask(fields=UPGRADE)
        t.equal([response.status, response.body], [200, b'plain'])
        t.equal(client.ask().body, b'plain')


def a_101_that_nobody_asked_for_is_502(t):
    weir = t.weir(t.origin(handler=_echo_after_101))
    try:
        t.equal(t.get(weir).status, 502)
    except Cut as cut:
        t.check(False, f'no answer: {cut}')


def an_upgrade_is_not_agreed_to_before_its_request_is_whole(t):
    """The rest of the body would be the tunnel's first bytes."""
    origin = t.origin(handler=_echo_after_101)
    client = t.client(t.weir(origin))
    client.send(request('POST', '/', UPGRADE + ['Content-Length: 10']) + b'abc')
    t.equal(client.response().status, 502)
    client.send(b'defghijk')
    client.closed()
    origin.wait(lambda: not origin.live, 10, 'the end of the connection upstream')


def a_101_with_a_head_that_is_too_long_for_us_is_502(t):
    def handler(conn):
        if conn.request() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Long: '
                      + b'x' * 9000 + b'\r\n\r\n')
            conn.hold()
    t.equal(t.get(t.weir(t.origin(handler=handler)), fields=UPGRADE).status, 502)


def of_an_upgrade_the_tunnels_bytes_are_counted_and_not_its_requests_body(t):
    def handler(conn):
        if conn.request() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome')
            conn.send(conn.exactly(5))
    log = t.tmp + '/access.log'
    client = t.client(t.weir(t.origin(handler=handler), access_log=log, log_format='json'))
    client.send(request('POST', '/', UPGRADE, b'abc'))
    t.equal(client.response().status, 101)
    client.send(b'hello')
    t.equal(client.rest(), b'welcomehello')
    client.close()
    t.until(lambda: len(_lines(log)) == 1, 10, 'a line in the log')
    entry = _lines(log)[0]
    t.equal([entry['status'], entry['bytes_in'], entry['bytes_out']], [101, 5, 12])


def h2c_is_never_upgraded_to(t):
    for fields in (['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__'],
                   ['Connection: Upgrade', 'Upgrade: h2c'], ['Connection: upgrade', 'Upgrade: H2C'],
                   ['Connection: Upgrade', 'Upgrade:  h2c ']):
        seen, response = _through(t, fields)
        t.equal(response.status, 200, str(fields))
        t.check('h2c' not in (seen.get('upgrade') or '').lower(), f'Upgrade: {seen.get("upgrade")}')
        t.check(not seen.fields.has('http2-settings') or 'HTTP2' not in fields[0], f'{seen.fields}')


def upgrade_not_named_in_connection_is_dropped(t):
    seen, response = _through(t, ['Upgrade: websocket'])
    t.equal(response.status, 200)
    t.check(not seen.fields.has('upgrade'), f'{seen.fields}')
