"""The steps of the road at their edges: what a connection is worth after an answer of weir's own, what is counted and logged, how a
connection ends, and what a request leaves to the next one."""
import errno
import json
import os
import re
import signal
import threading
import time
from email.utils import parsedate_to_datetime

from admin import Admin
from certificates import Authority
from client import request
from faults import Faults
from origin import answer
from test_forward import _forward
from test_tls import _https, _local
from wire import Cut

NO_HELLO = b'\x16\x03\x01\x00\x04\x02\x00\x00\x00'     # a handshake that begins with a server's word


def a_refused_request_whose_body_came_with_it_leaves_the_connection_open(t):
    client = t.client(t.weir(t.origin(), threshold='1/h'))
    t.equal(client.ask().status, 200)
    for body in (b'x', b'12345'):
        client.send(request(method='POST', body=body))
        response = client.response()
        t.equal([response.status, response.get('connection')], [429, None]) # HTTP/1.1 stays without being told
    client.send(request(method='POST', body=b'12345')[:-1]) # its end is yet to come: nobody waits for it
    t.equal(client.response().get('connection'), 'close')


def what_is_no_request_to_a_forward_proxy_ends_the_connection_and_its_answer_is_counted(t):
    weir = _forward(t, access_log='-', log_format='json')
    client = t.client(weir)
    response = client.ask()
    t.equal([response.status, response.get('connection')], [400, 'close'])
    client.closed()
    t.check(weir.out.wait(_entries, t.s(10)), 'no line')
    t.equal(_entries(weir.out.lines)[0]['bytes_out'], len(response.body))


def an_answer_of_weirs_own_is_dated_with_the_time_of_its_sending(t):
    client = t.client(t.weir(t.origin(), threshold='1/h'))
    t.equal(client.ask().status, 200)
    before = int(time.time())
    response = client.ask()
    t.equal(response.status, 429)
    t.check(before <= parsedate_to_datetime(response.get('date')).timestamp() <= time.time(), f'{response}')


def a_1_0_client_that_does_not_ask_to_stay_is_not_told_to(t):
    client = t.client(t.weir(t.refused()))
    response = client.ask(version='HTTP/1.0')
    t.equal(response.status, 500)
    t.check(response.get('connection') != 'keep-alive', f'{response}')
    client.closed()


def after_a_head_that_is_too_long_nothing_is_read_however_good_the_request_before_it_was(t):
    origin = t.origin()
    client = t.client(t.weir(origin, max_header=2048))
    t.equal(client.ask().status, 200)
    client.send(request(fields=['X: ' + 5000 * 'x']) + request())
    t.equal(client.response().status, 431)
    client.closed()
    t.equal(len(origin.requests), 1)


def each_request_of_a_connection_is_counted_as_what_became_of_it(t):
    weir = t.weir(t.origin(), threshold=1, admin=0)
    admin = Admin(t, weir)
    client = t.client(weir)
    statuses = []

    def ask():
        statuses.append(client.ask().status)
        return len(statuses) > 2 and statuses[-1] == 200
    t.until(ask, 10, 'a turn after a refusal')
    refused = statuses.count(429)
    t.check(refused > 0, f'{statuses}')
    service = t.until(lambda: admin.service() if admin.service()['requests_total'] == len(statuses) else None, 10, 'all of them')
    t.equal(service['refused_total'], refused)
    t.equal(service['refusals'], {'threshold': refused})
    t.equal(service['answered_here_total'], refused)


def a_request_that_found_no_target_takes_nothing_from_the_threshold(t):
    weir = t.weir(t.refused(), threshold='2/h', admin=0)
    admin, client = Admin(t, weir), t.client(weir)
    t.equal([client.ask().status for _ in range(5)], [500] * 5)
    service = t.until(lambda: admin.service() if admin.service()['requests_total'] == 5 else None, 10, 'all of them')
    t.equal([service['outstanding'], service['started_total'], service['available']], [0, 0, 2])


def how_long_a_tunnel_lasted_is_no_requests_duration(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
    weir = t.weir(t.origin(handler=handler), admin=0)
    admin = Admin(t, weir)
    client = t.client(weir)
    client.send(request(fields=['Connection: Upgrade', 'Upgrade: x']))
    t.equal(client.response().status, 101)
    client.close()
    t.until(lambda: admin.service()['requests_total'] == 1, 10, 'the end of the tunnel')
    t.equal(admin.metrics()['weir_request_duration_seconds_count{service="reverse"}'], 0.0)


def why_a_tunnel_ended_is_in_the_log(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            if conn.exactly(4) == b'stay':
                conn.hold()
    weir = t.weir(t.origin(handler=handler), tunnel_timeout=0.5, access_log='-', log_format='json')
    outcomes = []
    for word in (b'stay', b'go.!'):
        client = t.client(weir)
        client.send(request(fields=['Connection: Upgrade', 'Upgrade: x']))
        t.equal(client.response().status, 101)
        client.send(word)
        client.rest()
        client.close()
        lines = len(outcomes) + 1
        t.check(weir.out.wait(lambda found, lines=lines: len(_entries(found)) >= lines, t.s(10)), weir.out.text())
        outcomes.append(_entries(weir.out.lines)[-1])
    t.equal([entry['outcome'] for entry in outcomes], ['tunnel_timeout', 'ok'])
    t.equal([entry['bytes_in'] for entry in outcomes], [4, 4])


def _tunnels(conn):
    if conn.request() is not None:
        conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
        conn.hold()


def an_answer_that_agrees_to_an_upgrade_says_by_whom_it_came(t):
    for settings, wanted in (({}, r'1\.1 weir-[0-9a-f]{16}'), ({'forwarded': 'off'}, r'None')):
        client = t.client(t.weir(t.origin(handler=_tunnels), **settings))
        client.send(request(fields=['Connection: Upgrade', 'Upgrade: x']))
        response = client.response()
        t.check(response.status == 101 and re.fullmatch(wanted, str(response.get('via'))), f'{response}')


def an_upgrade_to_something_else_than_what_was_offered_is_502(t):
    for fields in ('Connection: Upgrade\r\nUpgrade: y\r\n', ''):
        handler = (lambda fields: lambda conn: conn.request() and conn.send(
            b'HTTP/1.1 101 Switching Protocols\r\n' + fields.encode() + b'\r\n'))(fields)
        t.equal(t.get(t.weir(t.origin(handler=handler)), fields=['Connection: Upgrade', 'Upgrade: x']).status, 502, fields)


def the_time_of_the_target_lasts_until_its_answers_end(t):
    go = threading.Event()

    def handler(conn):
        while conn.request() is not None:
            conn.send(answer(b'begun', fields=['Content-Length: 9'], length=False))
            go.wait(t.s(20))
            conn.send(b' end')
    weir = t.weir(t.origin(handler=handler), access_log='-', log_format='json')
    client = t.client(weir)
    client.send(request())
    head = client.head()
    t.equal(client.exactly(5), b'begun')
    begun = time.monotonic()
    t.check(client.silent(0.2), 'nothing yet')
    waited_us = (time.monotonic() - begun) * 1e6
    go.set()
    t.equal((head.status, client.exactly(4)), (200, b' end'))
    t.check(weir.out.wait(_entries, t.s(10)), 'no line')
    entry = _entries(weir.out.lines)[0]
    t.check(waited_us <= entry['upstream_us'] <= entry['total_us'] < t.s(60) * 1e6, f'{waited_us} {entry}')


def neither_an_open_tunnel_nor_a_request_that_has_ended_holds_anything_of_its_hosts_rate(t):
    origin, other = t.origin(handler=_tunnels), t.origin()
    weir = _forward(t, admin=0, host_rate=100)
    admin, client = Admin(t, weir), t.client(weir)
    client.send(request(target=f'http://127.0.0.1:{origin.port}/', fields=['Connection: Upgrade', 'Upgrade: x']))
    t.equal(client.response().status, 101)
    t.equal(t.get(weir, f'http://127.0.0.1:{other.port}/').status, 200)
    t.until(lambda: admin.service()['host_rates']['hosts'] == 0, 20, 'both hosts are forgotten')
    t.check(client.silent(0), 'the tunnel is open')


def _entries(lines):
    return [json.loads(line) for line in lines if line.startswith('{') and '"outcome"' in line]


# What a request leaves to the next one

def who_leaves_the_line_is_noticed_though_somebody_before_him_had_sent_more(t):
    """The end of a client's sending is no news when there is more before it; to the next request it is."""
    weir = t.weir(t.origin(), admin=0, threshold='1/m', backlog=180)
    admin = Admin(t, weir)
    first = t.client(weir, seconds=20)
    first.send(request() * 3)
    first.finish()
    t.equal(first.response().status, 200)
    t.until(lambda: admin.service()['waiting'] == 1, 10, 'the second one waits')
    t.equal(admin.put('/api/limits', {'threshold': 100}).status, 200)
    t.equal([first.response().status for _ in range(2)], [200] * 2, 'what was sent before the end is served')
    first.closed()
    t.equal(admin.put('/api/limits', {'threshold': '1/m'}).status, 200)
    for _ in range(3):      # the first may find a place that is free
        leaving = t.client(weir)
        leaving.send(request())
        t.until(lambda leaving=leaving: admin.service()['waiting'] == 1 or not leaving.silent(0), 10, 'a place in line, or an answer')
        if leaving.silent(0):
            leaving.finish()
            break
    leaving.closed()
    t.until(lambda: admin.service()['waiting'] == 0, 10, 'the end of its wait')


def what_refused_a_request_is_not_said_of_the_next(t):
    weir = t.weir(t.origin(), admin=0, threshold='1/h')
    admin, client = Admin(t, weir), t.client(weir)
    t.equal(client.ask().status, 200)

    def shown():
        return [(record['status'], record['refused_by']) for record in admin.get('/api/view')['services'][0]['requests']]
    t.until(lambda: admin.service()['requests_total'] == 1, 10, 'the first is counted')
    shown()     # from here on somebody looks
    t.equal([client.ask().status, client.ask('OPTIONS', '*', ['Max-Forwards: 0']).status], [429, 200])
    t.until(lambda: admin.service()['requests_total'] == 3, 10, 'all of them')
    t.equal(shown(), [(429, 'threshold'), (200, '')])


def a_request_is_logged_with_its_version_and_what_could_not_be_read_with_that_of_its_answer(t):
    weir = t.weir(t.origin(), max_header=2048, access_log='-', log_format='json')
    client = t.client(weir)
    client.send(request(fields=['X: ' + 5000 * 'x']))
    t.equal(client.response().status, 431)
    t.equal(t.get(weir, version='HTTP/1.0').status, 200)
    t.check(weir.out.wait(lambda lines: len(_entries(lines)) == 2, t.s(10)), weir.out.text())
    t.equal([(entry['status'], entry['protocol'], entry['method']) for entry in _entries(weir.out.lines)],
            [(431, 'HTTP/1.1', ''), (200, 'HTTP/1.0', 'GET')])


def the_line_of_who_has_asked_nothing_shows_nothing_of_a_request_before_it(t):
    """Whoever spoke no TLS where it is spoken, and whoever has too many connections."""
    ca = Authority(t)
    settings = {'client_connections': 1, 'access_log': '-', 'log_format': 'json'}
    for weir, tls, status in ((t.weir(t.origin(), **settings, **_https(_local(ca))), ca.client(), 400),
                              (t.weir(t.origin(), **settings), None, 429)):
        first = t.client(weir, tls=tls, name='localhost' if tls else None)
        t.equal(first.ask('POST', '/mine', body=b'x').status, 200)
        if status == 400:
            first.close()
        t.until(lambda weir=weir, status=status: _told(t, weir) == status, 10, f'{status}')
        t.check(weir.out.wait(lambda lines, status=status: _of_status(lines, status), t.s(10)), weir.out.text())
        entry = _of_status(weir.out.lines, status)[0]
        t.equal([entry[key] for key in ('method', 'uri', 'target', 'tries', 'bytes_in')], ['', '', '', 0, 0], f'{status}')


def _told(t, weir):
    """What a new connection that speaks no TLS is told; None when that is nothing."""
    client = t.client(weir)
    try:
        client.send(request(target='/theirs'))
        response = client.response()
        return response.status
    except (Cut, OSError):
        return None
    finally:
        client.close()


def _of_status(lines, status):
    return [entry for entry in _entries(lines) if entry['status'] == status]


def heads_that_fill_the_buffer_leave_room_for_what_is_behind_them(t):
    """The first gives its room to the second, and the second is moved for its body to have some."""
    weir = t.weir(t.origin(lambda req: answer(req.body)), max_header=32768)
    buffer_bytes = 32768 + 16384
    for more_bytes in (0, 1000):
        client = t.client(weir)
        first = request(fields=['X: ' + 20000 * 'x'])
        second = request('POST', '/', ['X: '], b'12345')
        second = second.replace(b'X: ', b'X: ' + (buffer_bytes + more_bytes - len(first) - len(second) + 5) * b'x')
        t.equal(len(first + second), buffer_bytes + more_bytes + 5, 'to the last byte of the head, or beyond')
        weir.signal(signal.SIGSTOP)     # so that all of it lies there
        client.send(first + second)
        weir.signal(signal.SIGCONT)
        t.equal([client.response().body for _ in range(2)], [b'', b'12345'])


def an_upload_that_is_cut_short_or_not_wanted_leaves_no_pipe_behind(t):
    def handler(conn):
        while (req := conn.head()) is not None:
            if req.target == '/switch':     # too early, and not asked for
                conn.exactly(3000000)
                conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            conn.body(req)
            conn.send(answer())
    origin = t.origin(handler=handler)
    weir = t.weir(origin)

    def pipes():
        return sum(_file(f'/proc/{weir.pid}/fd/{fd}').startswith('pipe:') for fd in os.listdir(f'/proc/{weir.pid}/fd'))
    before = pipes()
    for number, target in enumerate(('/cut', '/switch', '/cut')):
        client = t.client(weir)
        client.send(request('POST', target, ['Content-Length: 50000000']) + bytes(4000000))
        origin.wait_requests(number + 1)
        if target == '/switch':
            t.equal(client.response().status, 502)
        else:
            t.read_by_peer(client)
        client.abort()
        t.until(lambda: not origin.live, 10, 'the end of that connection')
    t.until(lambda: pipes() <= before, 10, 'no pipe')


def _file(descriptor):
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:       # closed meanwhile
        return ''


def the_first_byte_of_a_head_begins_its_header_timeout_though_it_came_with_the_request_before(t):
    client = t.client(t.weir(t.origin(), header_timeout=0.5, idle_timeout=600))
    client.send(request() + b'G')
    t.equal([client.response().status, client.response().status], [200, 408])


def half_a_head_behind_a_request_ends_the_connection_with_its_sender(t):
    client = t.client(t.weir(t.origin()))
    t.equal(client.ask().status, 200)
    client.send(b'GET / HTTP/1.1\r\nHo')
    client.finish()
    client.closed()


def a_connection_that_names_one_client_to_the_target_is_closed_when_it_has_served_him(t):
    def handler(conn):
        conn.line('a PROXY header')
        while conn.request() is not None:
            conn.send(answer())
    origin = t.origin(handler=handler)
    client = t.client(t.weir(origin, send_proxy='v1'))
    t.equal(client.ask().status, 200)
    origin.wait(lambda: not origin.live, 10, 'the end of the connection')
    t.check(client.silent(0), 'the client may ask again')


def a_connection_that_has_ended_leaves_nothing_behind(t):
    """Whether it had a request, or not even the PROXY header that it ought to begin with."""
    for settings, sent in (({}, request(fields=['Connection: close'])),
                           ({'proxy_protocol': 'on', 'trust_forwarded': '127.0.0.1'}, b'nonsense\r\n')):
        faults = Faults(t)
        weir = t.weir(t.origin(), environment=faults.environment, **settings)

        def come_and_go(weir=weir, sent=sent):
            client = t.client(weir)
            client.send(sent)
            client.rest()
            client.close()
        come_and_go()
        before = faults.get('blocks')
        for _ in range(30):
            come_and_go()
        t.until(lambda faults=faults, before=before: faults.get('blocks') < before + 20, 10, 'its memory is given back')


# The end of a connection

def _refuses(client, data=b'x'):
    """What is sent to it is answered by a reset: nobody listens there any more."""
    try:
        client.send(data)
        return False
    except OSError:
        return True


def _answers_when_told(t, data):
    """An origin whose answer is this, when go is set, and its connection's end behind it."""
    go = threading.Event()

    def handler(conn):
        if conn.request() is not None:
            go.wait(t.s(20))
            conn.send(data)
    return t.origin(handler=handler), go


def a_last_answer_is_not_taken_back_by_a_byte_that_nobody_will_read(t):
    """A close with unread bytes is a reset. The client is listened to until it has seen the end."""
    origin, go = _answers_when_told(t, answer(b'all of it'))
    client = t.client(t.weir(origin))
    client.send(request(fields=['Connection: close']))
    origin.wait_requests(1)
    client.send(b'x')
    go.set()
    t.equal(client.response().body, b'all of it')
    t.check(client.closed() and not client.reset, 'a reset')
    for _ in range(2):
        client.send(b'x')
        t.read_by_peer(client)


def a_client_that_has_read_its_last_answer_is_listened_to_no_more(t):
    client = t.client(t.weir(t.origin()))
    t.equal(client.ask(fields=['Connection: close']).status, 200)
    client.closed()
    t.until(lambda: _refuses(client), 10, 'it is closed')


def half_an_answer_ends_with_a_reset_though_a_byte_lies_there_unread(t):
    origin, go = _answers_when_told(t, answer(b'5\r\nhello\r\n', fields=['Transfer-Encoding: chunked'], length=False))
    client = t.client(t.weir(origin))
    client.send(request(version='HTTP/1.0'))
    origin.wait_requests(1)
    client.send(b'x')
    go.set()
    client.rest()
    t.check(client.reset, 'the client saw a clean end')


def half_an_answer_that_shows_it_by_itself_is_not_taken_back_by_a_reset(t):
    for version, framing, data in (('HTTP/1.1', 'Transfer-Encoding: chunked', b'5\r\nhello\r\n'), ('HTTP/1.0', 'Content-Length: 10', b'hello')):
        origin, go = _answers_when_told(t, answer(data, fields=[framing], length=False))
        go.set()
        client = t.client(t.weir(origin))
        client.send(request(version=version))
        t.check(client.rest().endswith(data) and not client.reset, f'{version}: a reset')


def a_goodbye_that_finds_no_room_is_said_when_there_is_some(t):
    ca, faults = Authority(t), Faults(t)
    weir = t.weir(t.origin(), environment=faults.environment, idle_timeout=600, drain_timeout=600, **_https(_local(ca)))
    client = t.client(weir, tls=ca.client(), name='localhost')
    t.equal(client.ask().status, 200)
    faults.always('send', errno.EAGAIN)
    before = faults.always_fired('send')
    weir.signal(signal.SIGTERM)
    t.until(lambda: faults.always_fired('send') >= before + 10, 10, 'it tries again')
    faults.always('send', 0)
    t.check(client.closed() and not client.ragged, 'it ended without a goodbye')
    t.equal(weir.wait_exit(), 0)


def who_is_turned_away_is_not_listened_to(t):
    """Else who opens connections all the time would have more places by being refused than it may have."""
    weir = t.weir(t.origin(), client_connections=1)
    t.equal(t.client(weir).ask().status, 200)
    weir.signal(signal.SIGSTOP)     # so that they come together: one is told with care
    crowd = [t.client(weir) for _ in range(2)]
    for client in crowd:
        client.send(b'x')
    weir.signal(signal.SIGCONT)
    t.until(lambda: any([_refuses(client) for client in crowd]), 10, 'the end of the other one')


def a_connection_that_has_ended_gives_its_place_back_and_so_does_one_that_was_refused(t):
    """Over TLS, where only who is told with care is told anything. Each time all before have left: one that is turned away meanwhile
    would have another's place to give back, if it gave any."""
    ca = Authority(t)
    weir = t.weir(t.origin(), client_connections=1, admin=0, **_https(_local(ca)))
    admin = Admin(t, weir)

    def come():
        client = t.client(weir, tls=ca.client(), name='localhost')
        client.send(request())
        return client, client.response().status

    def left(connections):
        t.until(lambda: admin.service()['connections'] == connections, 20, f'{connections} left')
    for _ in range(2):
        inside, status = come()
        t.equal(status, 200)
        for _ in range(2):
            refused, status = come()
            t.equal(status, 429)
            refused.close()
            left(1)
        inside.close()
        left(0)


def why_a_handshake_failed_can_be_read_though_the_connection_before_it_had_to_be_reset(t):
    ca = Authority(t)
    origin = t.origin(handler=lambda conn: conn.request() and conn.send(
        answer(b'5\r\nhello\r\n', fields=['Transfer-Encoding: chunked'], length=False)))
    weir = t.weir(origin, **_https(_local(ca)))
    client = t.client(weir, tls=ca.client(), name='localhost')
    client.send(request(version='HTTP/1.0'))
    client.rest()
    t.check(client.reset or client.ragged, 'half an answer looks whole')
    client = t.client(weir)
    client.send(NO_HELLO)
    t.equal(client.rest()[:2], b'\x15\x03', 'an alert')
    t.check(not client.reset, 'a reset instead of an end')


def who_goes_on_talking_after_a_failed_handshake_is_not_listened_to(t):
    """For a second, so that it can read why; not for as long as somebody whose request was refused."""
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)))
    client = t.client(weir)
    weir.signal(signal.SIGSTOP)     # so that all of it lies there
    client.send(NO_HELLO + bytes(50000))
    weir.signal(signal.SIGCONT)
    t.equal(client.rest()[:2], b'\x15\x03', 'an alert')
    t.check(not client.reset, 'a reset instead of an end')
    begun = time.monotonic()
    while not _refuses(client, bytes(1 << 20)):     # more than can be read away
        assert time.monotonic() - begun < t.s(10), 'it is still listened to'


# A drain

def a_body_that_is_still_coming_when_the_drain_begins_arrives_whole(t):
    origin = t.origin(lambda req: answer(req.body))
    weir = t.weir(origin, drain_timeout=60)
    idle, client = t.client(weir), t.client(weir)
    t.equal(idle.ask().status, 200)
    client.send(request('POST', '/', ['Content-Length: 10']) + b'01234')
    origin.wait_requests(2)
    weir.signal(signal.SIGTERM)
    idle.closed()
    client.send(b'56789')
    t.equal(client.response().body, b'0123456789')
    t.equal(weir.wait_exit(), 0)
