"""Every wait has an end: heads, silence, connects, answers, drains; and what happens at the limit of connections."""
import os
import resource
import select
import signal
import socket
import threading
import time

import contract
from client import request
from harness import takes
from origin import answer
from wire import Cut, Late


def _timed(t, wire, at_least, at_most, what):
    """Reads to the end of the stream, which must come between these many seconds from now; gives what was read."""
    started = time.monotonic()
    data = wire.rest(t.s(at_most) + 5)
    took = time.monotonic() - started
    t.check(at_least <= took <= t.s(at_most),
            f'{what}: ended after {took:.2f} s, wanted {at_least} to {t.s(at_most):g} s')
    return data


def _dribble(t, client, data, at_most):
    """A byte every tenth of a second until the other side ends; seconds until then."""
    started = time.monotonic()
    for byte in data:
        try:
            client.sock.sendall(bytes([byte]))
        except OSError:
            break
        if not client.silent(0.1):
            break
        if time.monotonic() - started > t.s(at_most):
            break
    return time.monotonic() - started


def a_client_that_dribbles_its_head_is_cut_at_header_timeout(t):
    origin = t.origin()
    weir = t.weir(origin, header_timeout=0.6, idle_timeout=30)
    head = b'GET / HTTP/1.1\r\nHost: a.test\r\n' + b'X-Slow: yes\r\n' * 100
    client = t.client(weir)
    took = _dribble(t, client, head, 3)
    t.check(0.5 <= took <= t.s(2), f'cut after {took:.2f} s')
    left = client.rest()
    t.check(not left or left.startswith(b'HTTP/1.1 408 '), f'{left[:100]!r}')
    t.equal(origin.received_bytes, 0)


def the_deadline_of_a_head_holds_for_the_second_request_too(t):
    weir = t.weir(t.origin(), header_timeout=0.6, idle_timeout=30)
    client = t.client(weir)
    t.equal(client.ask().status, 200)
    took = _dribble(t, client, b'GET / HTTP/1.1\r\nHost: a.test\r\n' + b'X-Slow: yes\r\n' * 100, 3)
    t.check(0.5 <= took <= t.s(2), f'cut after {took:.2f} s')


def empty_lines_before_a_request_do_not_stretch_its_deadline(t):
    weir = t.weir(t.origin(), header_timeout=0.6, idle_timeout=30)
    client = t.client(weir)
    took = _dribble(t, client, b'\r\n' * 100, 3)
    t.check(took <= t.s(2), f'cut after {took:.2f} s')


def a_client_that_says_nothing_is_cut(t):
    weir = t.weir(t.origin(), header_timeout=0.5, idle_timeout=0.5)
    client = t.client(weir)
    data = _timed(t, client, 0.3, 2, 'silence')
    t.check(not data or data.startswith(b'HTTP/1.1 408 '), f'{data[:100]!r}')


def an_idle_connection_is_closed_at_idle_timeout_and_not_before(t):
    weir = t.weir(t.origin(), idle_timeout=0.8, header_timeout=20)
    client = t.client(weir)
    t.equal(client.ask().status, 200)
    t.check(client.silent(0.4), 'closed too early')
    t.equal(client.ask().status, 200)
    t.equal(_timed(t, client, 0.6, 2, 'idle'), b'', 'bytes on an idle connection')


def a_slow_body_outlives_header_timeout(t):
    origin = t.origin(lambda req: answer(req.body))
    weir = t.weir(origin, header_timeout=0.4)
    client = t.client(weir)
    client.send(request('POST', '/', ['Content-Length: 12']))
    for i in range(12):
        client.silent(0.1)
        client.send(b'%x' % (i % 16))
    t.equal(client.response().body, b'0123456789ab')


def a_body_that_stops_coming_is_not_waited_for_for_ever(t):
    origin = t.origin()
    weir = t.weir(origin, header_timeout=0.5, idle_timeout=0.5, response_timeout=0.5, probe_interval=0.1)
    client = t.client(weir)
    client.send(request('POST', '/', ['Content-Length: 12']) + b'half')
    data = _timed(t, client, 0.3, 3, 'a stalled body')
    t.check(not data or data[9:12] in (b'408', b'502', b'504'), f'{data[:100]!r}')
    t.equal(origin.whole_requests, 0)
    # The client was the slow one: the target must still be served.
    t.equal(t.get(weir).status, 200)


def connect_timeout_ends_a_connect_that_gets_no_answer(t):
    weir = t.weir(t.full_backlog(), connect_timeout=0.5)
    started = time.monotonic()
    t.check(t.get(weir).status in (500, 502, 504), 'status')
    took = time.monotonic() - started
    t.check(0.4 <= took <= t.s(2), f'answered after {took:.2f} s')


def response_timeout_ends_a_wait_for_an_answer(t):
    hung = t.origin(handler=lambda conn: conn.hold())
    for method, allowed in (('GET', (500, 504)), ('POST', (504,))):
        weir = t.weir(hung, response_timeout=0.5)
        started = time.monotonic()
        status = t.get(weir, method=method, body=b'x' if method == 'POST' else None).status
        took = time.monotonic() - started
        t.check(status in allowed, f'{method}: {status}')
        t.check(0.4 <= took <= t.s(2), f'{method}: answered after {took:.2f} s')


def a_target_that_dribbles_its_head_is_not_waited_for_for_ever(t):
    def handler(conn):
        if conn.request() is None:
            return
        conn.send(b'HTTP/1.1 200 OK\r\n')
        while not conn.closing.wait(0.1):
            conn.send(b'X: y\r\n')
    weir = t.weir(t.origin(handler=handler), response_timeout=0.8)
    started = time.monotonic()
    status = t.get(weir).status
    took = time.monotonic() - started
    t.check(status in (500, 502, 504), f'{status}')
    t.check(took <= t.s(3), f'answered after {took:.2f} s')


def an_answer_that_stops_in_its_body_is_cut_short(t):
    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'half', length=False, fields=['Content-Length: 8']))
            conn.hold()
    weir = t.weir(t.origin(handler=handler), response_timeout=0.5, idle_timeout=0.5)
    client = t.client(weir)
    client.send(request())
    t.equal(client.head().status, 200)
    t.equal(_timed(t, client, 0.2, 3, 'a stalled answer'), b'half')


def a_slow_answer_is_served_as_long_as_it_moves(t):
    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(length=False, fields=['Content-Length: 12']))
            for i in range(12):
                conn.closing.wait(0.1)
                conn.send(b'%x' % i)
            conn.hold()
    weir = t.weir(t.origin(handler=handler), response_timeout=0.6, idle_timeout=0.6, header_timeout=0.6)
    t.equal(t.get(weir).body, b'0123456789ab')


def a_client_that_stops_reading_is_not_waited_for_for_ever(t):
    origin = t.origin(lambda req: answer(b'x' * 32 * 1024 * 1024))
    weir = t.weir(origin, idle_timeout=0.5, response_timeout=0.5, header_timeout=0.5)
    client = t.client(weir, receive_buffer=4096)
    client.send(request())
    origin.wait_requests(1)
    conn = origin.connections[0]
    origin.wait(lambda: conn not in origin.live or conn.ended, 10, 'the end of the exchange upstream')


def tunnel_timeout_closes_a_silent_tunnel(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            conn.hold()
    weir = t.weir(t.origin(handler=handler), tunnel_timeout=0.5)
    client = t.client(weir)
    client.send(request(fields=['Connection: Upgrade', 'Upgrade: x']))
    t.equal(client.response().status, 101)
    t.equal(_timed(t, client, 0.3, 2, 'a silent tunnel'), b'')


def a_tunnel_with_traffic_one_way_outlives_idle_timeout(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            for _ in range(10):
                conn.closing.wait(0.1)
                conn.send(b'.')
    weir = t.weir(t.origin(handler=handler), tunnel_timeout=0.8, idle_timeout=0.3, response_timeout=0.3,
                  header_timeout=0.3)
    client = t.client(weir)
    client.send(request(fields=['Connection: Upgrade', 'Upgrade: x']))
    t.equal(client.response().status, 101)
    t.equal(client.rest(), b'.' * 10)


# Leaving

def _slow_origin(t, go):
    def handler(conn):
        req = conn.request()
        if req is not None:
            go.wait(t.s(20))
            conn.send(answer(b'finished'))
            conn.hold()
    return t.origin(handler=handler)


def sigterm_lets_the_request_in_flight_finish_and_leaves_with_0(t):
    go = threading.Event()
    origin = _slow_origin(t, go)
    weir = t.weir(origin, drain_timeout=15)
    client = t.client(weir)
    client.send(request())
    origin.wait_requests(1)
    weir.signal(signal.SIGTERM)

    def refused():
        try:
            with socket.create_connection(('127.0.0.1', weir.port), 1):
                return False
        except OSError:
            return True
    t.until(refused, 10, 'new connections refused')
    t.check(weir.process.poll() is None, 'weir left before the request was answered')
    go.set()
    response = client.response()
    t.equal([response.status, response.body], [200, b'finished'])
    client.closed()
    t.equal(weir.wait_exit(), 0)


def _begin_drain(weir, idle):
    """Returns when the drain has begun: connections that are idle are closed then."""
    weir.signal(signal.SIGTERM)
    idle.closed()


def an_answer_of_our_own_ends_the_connection_in_a_drain(t):
    go = threading.Event()

    def handler(conn):
        while (req := conn.request()) is not None and req.method == 'GET':
            conn.send(answer())
        go.wait(t.s(20))
        conn.abort()
    origin = t.origin(handler=handler)
    weir = t.weir(origin, drain_timeout=25)
    idle, client = t.client(weir), t.client(weir)
    t.equal(idle.ask().status, 200)
    client.send(request('POST', '/', body=b'x'))
    origin.wait_requests(2)
    _begin_drain(weir, idle)
    go.set()
    response = client.response()
    t.equal([response.status, response.get('connection')], [502, 'close'])
    client.closed()
    client.close()
    t.equal(weir.wait_exit(), 0)


def what_comes_behind_an_answer_that_the_drain_met_on_its_way_is_served_and_nothing_is_waited_for(t):
    """The client of an answer that had begun before was told that it may ask again."""
    for asks_again in (False, True):
        go = threading.Event()

        def handler(conn):
            while (req := conn.request()) is not None:
                conn.send(answer(b'half and', fields=['Content-Length: 17'], length=False))
                if req.target != '/idle':
                    go.wait(t.s(20))
                conn.send(b' the rest')
        weir = t.weir(t.origin(handler=handler), drain_timeout=25)
        idle, client = t.client(weir), t.client(weir)
        t.equal(idle.ask(target='/idle').status, 200)
        client.send(request())
        head = client.head()
        t.check('close' not in (head.get('connection') or ''), f'{head}')
        _begin_drain(weir, idle)
        if asks_again:
            client.send(request())
        go.set()
        t.equal(client.body_of(head).body, b'half and the rest')
        if asks_again:
            response = client.response()
            t.equal([response.body, response.get('connection')], [b'half and the rest', 'close'])
        client.closed()
        t.equal(weir.wait_exit(10), 0)


def sigint_is_as_good_as_sigterm(t):
    weir = t.weir(t.origin())
    t.equal(t.get(weir).status, 200)
    weir.signal(signal.SIGINT)
    t.equal(weir.wait_exit(), 0)


def idle_connections_do_not_hold_up_the_leaving(t):
    weir = t.weir(t.origin(), drain_timeout=25)
    clients = [t.client(weir) for _ in range(50)]
    for client in clients[:40]:
        t.equal(client.ask().status, 200)
    started = time.monotonic()
    weir.stop(10)
    t.check(time.monotonic() - started < t.s(5), f'left after {time.monotonic() - started:.2f} s')
    for client in clients[:40]:
        client.closed()


def requests_that_come_at_the_moment_of_the_drain_are_served_though_they_wait(t):
    weir = t.weir(t.origin(), drain_timeout=20, threshold=20, burst=1, backlog=2)
    clients = [t.client(weir) for _ in range(12)]
    for client in clients:
        t.equal(client.ask().status, 200)
    weir.signal(signal.SIGSTOP)     # the drain finds threads asleep whose requests have come
    for client in clients:
        client.send(request())
    weir.signal(signal.SIGTERM)
    weir.signal(signal.SIGCONT)
    t.equal([response.status for response in t.parallel([client.response for client in clients])], [200] * 12)
    t.equal(weir.wait_exit(), 0)


def _is_stopped(pid):
    """All threads of it."""
    states = []
    for thread in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{thread}/stat', encoding='ascii') as stat:
            states.append(stat.read().rpartition(')')[2].split()[0])
    return set(states) == {'T'}


def a_stop_and_a_continuation_take_nobodys_patience_away(t):
    """A read with a timeout is interrupted by SIGCONT even without a handler (signal(7)); so it is by "docker pause" and a debugger."""
    weir = t.weir(t.origin())
    clients = [t.client(weir) for _ in range(6)]
    for client in clients[:3]:
        t.equal(client.ask().status, 200)
    weir.signal(signal.SIGSTOP)
    t.until(lambda: _is_stopped(weir.pid), 10, 'weir to be stopped')
    for client in clients[1:5]:
        client.send(request('POST', body=b'once'))
    weir.signal(signal.SIGCONT)
    for client in clients[1:5]:
        t.equal(client.response().status, 200)
    for client in clients:
        t.equal(client.ask().status, 200)


def drain_timeout_bounds_the_leaving(t):
    origin = _slow_origin(t, threading.Event())
    weir = t.weir(origin, drain_timeout=0.5)
    client = t.client(weir)
    client.send(request())
    origin.wait_requests(1)
    started = time.monotonic()
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(), 0)
    took = time.monotonic() - started
    t.check(0.4 <= took <= t.s(3), f'left after {took:.2f} s')


def drain_timeout_ends_a_connection_attempt_too_and_blames_nobody(t):
    full, log = t.full_backlog(), t.file('access', '')
    weir = t.weir(full, drain_timeout=0.5, connect_timeout=60, probe_interval=600, access_log=log)
    client = t.client(weir)
    client.send(request())
    attempt = f':{full.port:04X} 02 '   # SYN_SENT
    with open('/proc/net/tcp', encoding='ascii') as table:
        t.until(lambda: (table.seek(0), attempt in table.read())[1], 10, 'it connects')
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(20), 0)
    t.check(f'target {full.address} was in: requests=1 failures=0' in weir.log.text(), 'the target was blamed')
    with open(log, encoding='utf-8') as lines:
        t.check('cut when drain_timeout was over' in lines.read(), 'the log does not say why')


def a_second_sigterm_ends_at_once(t):
    origin = _slow_origin(t, threading.Event())
    weir = t.weir(origin, drain_timeout=60)
    client = t.client(weir)
    client.send(request())
    origin.wait_requests(1)
    weir.signal(signal.SIGTERM)
    weir.wait_log(contract.DRAINING)
    started = time.monotonic()
    weir.signal(signal.SIGTERM)
    weir.wait_exit()
    t.check(time.monotonic() - started < t.s(2), f'left after {time.monotonic() - started:.2f} s')


def a_dripping_client_does_not_outlive_the_drain(t):
    weir = t.weir(t.origin(), drain_timeout=0.7, header_timeout=60, idle_timeout=60)
    client = t.client(weir)
    client.send(b'GET / HTTP/1.1\r\nHost: a.te')
    t.read_by_peer(client)
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(5), 0)


# How many at once

def max_clients_is_held_by_not_accepting(t):
    origin = t.origin()
    weir = t.weir(origin, max_clients=4)
    inside = [t.client(weir) for _ in range(4)]
    for client in inside:
        t.equal(client.ask().status, 200)
    waiting = [t.client(weir, seconds=20) for _ in range(3)]
    for client in waiting:
        client.send(request(target='/waited'))
    for client in waiting:
        t.check(client.silent(0.2), 'served although max_clients are being served')
    t.check('/waited' not in origin.targets(), 'it was let through to the origin')
    while waiting:
        inside.pop(0).close()
        readable = select.select([client.sock for client in waiting], [], [], t.s(10))[0]
        t.equal(len(readable), 1, 'served when one has left')
        ready = next(client for client in waiting if client.sock in readable)
        t.equal(ready.response().status, 200)
        waiting.remove(ready)
        inside.append(ready)


def max_clients_1_serves_one_after_the_other(t):
    weir = t.weir(t.origin(), max_clients=1)
    results = t.parallel([lambda: t.get(weir, fields=['Connection: close']).status for _ in range(20)])
    t.equal(results, [200] * 20)


@takes(90)
def thousands_of_idle_connections_are_kept_and_still_served(t):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = 10000 if hard >= 12000 and t.slow <= 1 and not t.sanitized else 2000
    if hard < count + 100:
        count = hard - 500
    del soft
    weir = t.weir(t.origin(name='A'), idle_timeout=300, header_timeout=120, max_clients=count + 10)
    # One client in ten asks before it idles, so that both kinds of idling are there.
    clients = []
    for i in range(count):
        client = t.client(weir, seconds=60)
        clients.append(client)
        if i % 10 == 0:
            client.send(request())
    for client in clients[::10]:
        t.equal(client.response().status, 200)
    for client in clients[::7]:
        client.send(request())
    for client in clients[::7]:
        t.equal(client.response().body, b'A')
    ended = sum(not client.silent(0) for client in clients)
    t.equal(ended, 0, 'connections that did not stay')
    t.equal(t.get(weir).status, 200, 'one more')
    for client in clients:
        client.sock.close()


def a_burst_of_connections_is_served_without_loss(t):
    weir = t.weir(t.origin(name='A'))

    def burst():
        return [t.get(weir, fields=['Connection: close']).status for _ in range(10)]
    results = t.parallel([burst] * 60)
    t.equal(sum(results, []), [200] * 600)


def clients_that_reset_while_they_wait_do_no_harm(t):
    weir = t.weir(t.origin(name='A'))
    for _ in range(200):
        client = t.client(weir)
        client.send(request())
        client.abort()
    t.equal(t.get(weir).status, 200)
    try:
        t.equal(t.get(weir).body, b'A')
    except (Cut, Late) as error:
        t.check(False, str(error))
