"""What weir does when the system lets it down: no memory, no descriptors, no threads, a full disk, a clock that jumps,
names that hang.

tests/faults/faults.c makes the calls fail, in the programs as they are built. `make faults` puts a fault under every
call that the scenario reaches; here is a small part of that, and what is to come of each kind of lack.
"""
import errno
import json
import re
import threading
import time

from admin import Admin
from certificates import Authority
from client import request
from fault_walk import Walk
from faults import HANG, Faults
from harness import takes
from origin import answer
from test_forward import _forward


ALLOCATIONS = ('malloc', 'calloc')     # a compiler may make the one of the other
NONE = 1 << 60      # of weir's own calls alone: which of a library's are reached differs from run to run


def _faulty(t, *targets, **settings):
    faults = Faults(t)
    return faults, t.weir(*targets, environment=faults.environment, **settings)


def _walked(t, walk):
    for finding in walk.findings:
        t.complain(AssertionError(finding))
    t.check(walk.counts['faults'] > 0, f'no fault was put anywhere: {walk.counts}')


@takes(120)
def a_fault_at_the_start_is_said_in_one_line_or_does_no_harm(t):
    walk = Walk(t, own_every=20, library_every=NONE)
    walk.whole_start()
    _walked(t, walk)


# Lacks that last

def without_descriptors_clients_wait_and_are_served_when_there_are_some_again(t):
    origin = t.origin()
    faults, weir = _faulty(t, origin)
    t.equal(t.get(weir).status, 200)
    for lack in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        faults.always('accept', lack)
        before = faults.always_fired('accept')
        # The one that waits in accept() already gets one connection more.
        clients = [t.client(weir) for _ in range(3)]
        for client in clients:
            client.send(request('GET', '/', ['Connection: close']))
        t.until(lambda: faults.always_fired('accept') >= before + 3, what='accept() fails again and again')
        faults.always('accept', 0)
        t.equal([client.response().status for client in clients], [200] * 3, f'errno {lack}')
    weir.wait_log('cannot accept a connection: ')


def a_process_without_descriptors_does_not_spin(t):
    faults, weir = _faulty(t, t.origin())
    faults.always('accept', errno.EMFILE)
    clients = [t.client(weir), t.client(weir)]      # one perhaps for the thread that was in accept() already
    t.until(lambda: faults.always_fired('accept') > 0, what='a call of accept()')
    before, began = faults.always_fired('accept'), time.monotonic()
    t.until(lambda: faults.always_fired('accept') >= before + 10, what='ten calls of accept()')
    t.check(time.monotonic() - began > 0.2, 'accept() is called again at once')
    faults.always('accept', 0)
    t.equal([client.ask().status for client in clients], [200] * 2)


def without_sockets_and_memory_for_targets_a_request_is_503_and_no_target_is_blamed(t):
    faults, weir = _faulty(t, t.origin(lambda req: answer(fields=['Connection: close'])))
    for lack in (errno.EMFILE, errno.ENOBUFS, errno.ENOMEM):
        faults.always('socket', lack)
        t.equal(t.get(weir).status, 503, f'errno {lack}')
        faults.always('socket', 0)
        t.equal(t.get(weir).status, 200)
    t.check('leaves the rotation' not in weir.log.text(), 'a target was blamed')


def without_memory_for_a_handshake_a_request_is_503_and_the_target_is_not_blamed(t):
    ca = Authority(t)
    origin = t.origin(lambda req: answer(fields=['Connection: close']), tls=ca.issue('a.example', 'DNS:a.example').server())
    faults, weir = _faulty(t, origin, ssl='yes', cafile=ca.crt, ssl_name='a.example')
    t.equal(t.get(weir).status, 200)
    with faults.recording():
        t.equal(t.get(weir).status, 200)
    found = {key: faults.describe(place) for key, place in faults.places().items() if place.call == 'malloc'}
    places = [faults.places()[key] for key, words in found.items() if 'create_stream' in words and 'tls_connect' in words]
    statuses = []
    for place in places:
        faults.arm(place, errno.ENOMEM)
        status = t.get(weir).status
        if faults.fired:        # some are for a thread's first handshake alone
            statuses.append(status)
        faults.disarm()
    t.check(503 in statuses and set(statuses) <= {200, 503}, f'{statuses}')
    t.check('leaves the rotation' not in weir.log.text(), 'the target was blamed')


def without_threads_those_that_are_there_go_on(t):
    faults, weir = _faulty(t, t.origin())
    t.equal(t.get(weir).status, 200)
    faults.always('thread', errno.EAGAIN)
    for _ in range(30):
        t.equal(t.get(weir).status, 200)
    faults.always('thread', 0)
    clients = [t.client(weir) for _ in range(20)]
    t.equal([client.ask().status for client in clients], [200] * 20)


def _places(faults, calls, *words):
    """Those that were recorded of these calls, with all of these words in their way."""
    found = [place for place in faults.places().values() if place.call in calls]
    return [place for place in found if all(word in faults.describe(place) for word in words)]


@takes(60)
def without_memory_for_a_request_its_client_is_told_and_the_others_are_served(t):
    """The memory of a request is made when none is free: for a connection that comes, and for one that has waited."""
    go = threading.Event()
    origin = t.origin(lambda req: (req.target == '/held' and go.wait(t.s(40)), answer(b'x'))[1])
    faults, weir = _faulty(t, origin)
    held = []

    def hold():
        """One more request has its memory in use, or is the one that got none: then its answer."""
        before = len(origin.requests)
        held.append(t.client(weir, seconds=20))
        held[-1].send(request(target='/held'))
        t.until(lambda: faults.fired or '/held' in origin.targets()[before:], what='a request that is held')
        return last_of(held.pop()) if faults.fired else None

    def last_of(client):
        response = client.response()
        client.closed()
        return response

    def refused(has_waited):
        """The answer of who gets no memory. What is held takes all that is free; after a while, for who has been answered gives
        its own back a moment later."""
        for _ in range(100):
            response = hold()
            if response is None and has_waited:
                response = waiting.ask()
                if faults.fired:
                    waiting.closed()
            if faults.fired:
                return response
        return None

    with faults.recording():
        waiting = t.client(weir, seconds=20)    # the first of all
        for _ in range(100):
            t.equal([hold(), waiting.ask().status], [None, 200])
            if _places(faults, ALLOCATIONS, 'begin_road', 'roads_rise'):
                break
    for way, has_waited in (('serve_connection', False), ('roads_rise', True)):
        faults.arm(_places(faults, ALLOCATIONS, 'begin_road', way)[0], errno.ENOMEM)
        response = refused(has_waited)
        t.equal(response and response.status, 503, way)
        t.check('no memory for a request' in response.get('proxy-status'), f'{response}')
        faults.disarm()
        t.equal(t.get(weir).status, 200)
    go.set()
    t.equal([client.response().status for client in held], [200] * len(held))


def without_memory_for_a_thread_clients_wait_until_there_is_some(t):
    faults, weir = _faulty(t, t.origin())
    with faults.recording():
        t.equal(t.get(weir).status, 200)
        t.until(lambda: _places(faults, ALLOCATIONS, 'begin_thread'), what='a thread that begins')
    faults.arm(_places(faults, ALLOCATIONS, 'begin_thread')[0], errno.ENOMEM, times=1 << 30)
    clients = [t.client(weir, seconds=20) for _ in range(10)]
    weir.wait_log('cannot begin another thread: Cannot allocate memory')
    faults.disarm()
    t.equal([client.ask().status for client in clients], [200] * 10)


# A client that is gone when its answer comes

def an_answer_that_cannot_be_sent_ends_the_connection(t):
    faults, weir = _faulty(t, t.refused())
    client = t.client(weir)
    with faults.recording():
        t.equal(client.ask().status, 500)
    faults.arm(_places(faults, ('send',), 'send_answer')[0], errno.ECONNRESET)
    client.send(request())
    client.closed()
    t.equal(faults.fired, 1)
    t.equal(t.get(weir).status, 500)


def a_switch_of_protocols_that_the_client_cannot_be_told_of_is_no_tunnel(t):
    upgrade = request(fields=['Connection: Upgrade', 'Upgrade: x'])

    def handler(conn):
        if conn.request() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            conn.hold()
    origin = t.origin(handler=handler)
    faults, weir = _faulty(t, origin, access_log='-')
    with faults.recording():
        client = t.client(weir)
        client.send(upgrade)
        t.equal(client.response().status, 101)
        client.close()
        origin.wait(lambda: not origin.live, 10, 'the end of the tunnel')
    faults.arm(_places(faults, ('send',), 'run_tunnel')[0], errno.ECONNRESET)
    client = t.client(weir)
    client.send(upgrade)
    client.closed()
    t.equal(faults.fired, 1)
    origin.wait(lambda: not origin.live, 10, 'the end of the connection upstream')
    weir.out.wait(lambda lines: len(lines) >= 2, t.s(10))
    t.check('outcome="client went away"' in weir.out.lines[1], f'{weir.out.lines}')


def a_stream_whose_head_was_lost_is_not_begun(t):
    """Frames without the head before them would be an answer of nobody's making."""
    faults = Faults(t)
    weir = t.weir(t.origin(), admin=0, environment=faults.environment)
    admin = Admin(t, weir)

    def begin():
        client = admin.client()
        client.send(request('GET', '/api/live', host=f'127.0.0.1:{admin.port}'))
        first = client.sock.recv(5)
        client.close()
        return first
    t.equal(begin(), b'HTTP/')
    with faults.recording():
        t.equal(begin(), b'HTTP/')
    places = [place for place in faults.places().values() if place.call == 'send' and place.is_own]
    fired = 0
    for place in places:
        for error in (errno.ENOBUFS, errno.ENOMEM):
            faults.arm(place, error)
            first = begin()
            fired += faults.fired
            faults.disarm()
            t.check(first in (b'', b'HTTP/'), f'{faults.describe(place)}: a stream begins with {first!r}')
    t.check(fired > 0, 'no send() failed')


# The disk

def _lost(path):
    return [int(number) for number in re.findall(r'(\d+) lines were lost: No space left on device', _read(path))]


def a_full_disk_under_the_logs_costs_lines_and_no_requests(t):
    log, access = t.file('log', ''), t.file('access', '')
    faults = Faults(t)
    port, admin = t.free_port(), t.free_port()
    weir, _ = t.weir_of_file(f"""
[globals]
logfile = {log}
access_log = {access}
log_format = json
admin = 127.0.0.1:{admin}
[a]
mode = reverse
hostname = x
port = {port}
endpoint = {t.origin().address}
""", '--node', 'a', services=0, environment=faults.environment)
    weir.port = port
    t.until(lambda: 'listens on' in _read(log), what='weir listens')
    t.equal(t.get(weir).status, 200)
    faults.always('write', errno.ENOSPC)
    for _ in range(20):
        t.equal(t.get(weir).status, 200)
    t.equal(t.get(admin, '/healthz', host='127.0.0.1').status, 200)
    faults.always('write', 0)
    t.equal(t.get(weir).status, 200)
    t.until(lambda: _lost(access), what='the access log says what is missing')
    t.check(20 <= _lost(access)[0] <= 21, f'{_read(access)}')
    for line in _read(access).splitlines():
        json.loads(line)


def _read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


# The clock

def a_wall_clock_that_jumps_moves_time_stamps_and_nothing_else(t):
    faults, weir = _faulty(t, t.origin(), threshold='2/m', backlog=0)
    kept = t.client(weir, seconds=20)
    t.equal(kept.ask().status, 200)
    t.equal(t.get(weir).status, 200)
    for seconds in (3600, 86400 * 400, -3600, -86400 * 400):
        faults.shift_wall_clock(seconds)
        refused = kept.ask()
        t.equal(refused.status, 429, f'after a jump of {seconds} s')
        # Those that were told before come first.
        t.check(0 < int(refused.get('Retry-After')) <= 180, f'{refused}')
    years = set(re.findall(r'^(\d{4})-', weir.log.text(), re.M))
    t.check(years, f'no time stamps: {weir.log.text()}')


# Names

def a_name_service_that_hangs_holds_up_nobody_else(t):
    """At start, too: the target is out until its name resolves."""
    faults = Faults(t)
    faults.always('names', HANG)
    origin = t.origin()
    weir = t.weir(f'localhost:{origin.port}', origin, environment=faults.environment, connect_timeout=1)
    t.equal([t.get(weir).status for _ in range(3)], [200] * 3)
    faults.always('names', 0)
    t.equal(t.get(weir).status, 200)


def a_forward_proxy_whose_name_service_hangs_answers_in_time(t):
    faults = Faults(t)
    origin = t.origin()
    weir = _forward(t, faults.environment, connect_timeout=1)
    faults.always('names', HANG)
    t.equal(t.get(weir, f'http://localhost:{origin.port}/').status, 504)
    t.equal(t.get(weir, f'http://127.0.0.1:{origin.port}/').status, 200)
    faults.always('names', 0)
    t.until(lambda: t.get(weir, f'http://127.0.0.1:{origin.port}/').status == 200)
