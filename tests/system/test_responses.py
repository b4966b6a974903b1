"""What targets answer wrongly, and what the client may see of it: never a whole answer where there was none (SPEC:
HTTP/1.1, rule 4)."""
import threading

from client import request
from harness import takes
from origin import answer
from wire import Cut

BAD = 'cut short'


def _says(data, reset=False):
    """A handler that answers each connection's first request with these bytes and ends it."""
    def handler(conn):
        if conn.request() is not None:
            conn.send(data)
            if reset:
                conn.abort()
    return handler


def _outcome(t, data, **more):
    """What a client sees of these bytes: a response, or BAD when the connection ends before the response does."""
    weir = t.weir(t.origin(handler=_says(data, more.pop('reset', False))), probe_interval=30)
    try:
        return t.get(weir, **more)
    except Cut:
        return BAD


def _all_502(t, rows):
    def play(name, data):
        response = _outcome(t, data)
        t.check(response != BAD and response.status == 502, f'{name}: {response} instead of 502')
    for start in range(0, len(rows), 6):
        t.parallel([lambda row=row: play(*row) for row in rows[start:start + 6]])


@takes(60)
def a_bad_status_line_is_502(t):
    _all_502(t, [(repr(line), line + b'\r\nContent-Length: 2\r\n\r\nok') for line in (
        b'HTTP/1.1 2000 OK', b'HTTP/1.1 20 OK', b'HTTP/1.1 abc OK', b'HTP/1.1 200 OK', b'200 OK', b'HTTP/2.0 200 OK',
        b'HTTP/1.1 099 Low', b'http/1.1 200 OK', b'HTTP/1.1  200 OK', b'HTTP/1.1', b' HTTP/1.1 200 OK',
        b'HTTP/1.1 -20 OK',
        b'HTTP/1.1\t200\tOK', b'HTTP/1.1 200OK', b'nonsense', b'HTTP/1.1 200 O\rK', b'HTTP/1.1 200 O\0K')])


@takes(60)
def bad_framing_of_an_answer_is_502(t):
    ok = b'HTTP/1.1 200 OK\r\n'
    te, hello = b'Transfer-Encoding: chunked\r\n', b'5\r\nhello\r\n0\r\n\r\n'
    _all_502(t, [
        ('length and coding', ok + b'Content-Length: 15\r\n' + te + b'\r\n' + hello),
        ('coding and length', ok + te + b'Content-Length: 15\r\n\r\n' + hello),
        ('two lengths', ok + b'Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!'),
        ('5, 6', ok + b'Content-Length: 5, 6\r\n\r\nhello!'),
        ('+5', ok + b'Content-Length: +5\r\n\r\nhello'),
        ('0x5', ok + b'Content-Length: 0x5\r\n\r\nhello'),
        ('-1', ok + b'Content-Length: -1\r\n\r\nhello'),
        ('empty length', ok + b'Content-Length:\r\n\r\nhello'),
        ('huge length', ok + b'Content-Length: 99999999999999999999999\r\n\r\nhello'),
        ('gzip, chunked', ok + b'Transfer-Encoding: gzip, chunked\r\n\r\n' + hello),
        ('chunked, chunked', ok + b'Transfer-Encoding: chunked, chunked\r\n\r\n' + hello),
        ('unknown coding', ok + b'Transfer-Encoding: cow\r\n\r\n' + hello),
        ('coding twice', ok + te + te + b'\r\n' + hello),
        ('coding in 1.0', b'HTTP/1.0 200 OK\r\n' + te + b'\r\n' + hello),
        ('length and coding in 1.0', b'HTTP/1.0 200 OK\r\nContent-Length: 5\r\n' + te + b'\r\n' + hello),
    ])


@takes(60)
def a_bad_head_of_an_answer_is_502(t):
    ok, end = b'HTTP/1.1 200 OK\r\n', b'Content-Length: 2\r\n\r\nok'
    _all_502(t, [
        ('LF everywhere', b'HTTP/1.1 200 OK\nContent-Length: 2\n\nok'),
        ('LF after a field', ok + b'X: y\n' + end),
        ('CR in a value', ok + b'X: a\rb\r\n' + end),
        ('NUL in a value', ok + b'X: a\0b\r\n' + end),
        ('no colon', ok + b'nonsense\r\n' + end),
        ('empty name', ok + b': x\r\n' + end),
        ('blank in a name', ok + b'a b: x\r\n' + end),
        ('folded length', ok + b'Content-Length:\r\n 2\r\n\r\nok'),
        ('blank before the colon of the length', ok + b'Content-Length : 2\r\n\r\nok'),
        ('a megabyte in one field', ok + b'X: ' + b'x' * 1048576 + b'\r\n' + end),
        ('a megabyte of fields', ok + b'X-Field: value\r\n' * 70000 + end),
        ('a megabyte without a line end', b'HTTP/1.1 200 ' + b'x' * 1048576),
    ])


def equal_content_lengths_of_an_answer_are_forwarded_once(t):
    response = _outcome(t, b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello')
    t.check(response != BAD, 'cut short')
    t.equal([response.status, response.body, response.fields.all('content-length')], [200, b'hello', ['5']])


def a_body_cut_short_looks_cut_short(t):
    big = b'x' * 100000
    for name, data in (
            ('half of a length', answer(b'x' * 50, length=False, fields=['Content-Length: 100'])),
            ('none of a length', answer(length=False, fields=['Content-Length: 100'])),
            ('big', answer(big, length=False, fields=['Content-Length: 100001'])),
            ('inside a chunk', answer(b'5\r\nhel', length=False, fields=['Transfer-Encoding: chunked'])),
            ('between chunks', answer(b'5\r\nhello\r\n', length=False, fields=['Transfer-Encoding: chunked'])),
            ('before the last line', answer(b'5\r\nhello\r\n0\r\n', length=False,
                                            fields=['Transfer-Encoding: chunked'])),
            ('inside the trailers', answer(b'5\r\nhello\r\n0\r\nX: y\r\n', length=False,
                                           fields=['Transfer-Encoding: chunked'])),
            ('a bad size', answer(b'5\r\nhello\r\nxyz\r\n0\r\n\r\n', length=False,
                                  fields=['Transfer-Encoding: chunked'])),
            ('a bad end of a chunk', answer(b'5\r\nhelloworld\r\n0\r\n\r\n', length=False,
                                            fields=['Transfer-Encoding: chunked']))):
        for reset in (False, True):
            response = _outcome(t, data, reset=reset)
            t.check(response == BAD or response.status == 502, f'{name}, reset {reset}: the client saw {response}')


def a_chunked_body_cut_short_looks_cut_short_to_a_1_0_client_too(t):
    """Without framing only a reset says that the end is not the end."""
    data = answer(b'5\r\nhello\r\n', length=False, fields=['Transfer-Encoding: chunked'])
    weir = t.weir(t.origin(handler=_says(data)))
    client = t.client(weir)
    response = client.ask(version='HTTP/1.0')
    t.check(client.reset or response.status == 502, f'the client saw {response} and a clean end')


def an_answer_that_ends_with_its_connection_is_re_chunked(t):
    data = answer(b'until the end', length=False)
    response = _outcome(t, data)
    t.check(response != BAD, 'cut short')
    t.equal([response.status, response.framing, response.body], [200, 'chunked', b'until the end'])
    response = _outcome(t, data, version='HTTP/1.0')
    t.equal([response.framing, response.body], ['close', b'until the end'])


def an_answer_that_ends_with_a_reset_looks_cut_short(t):
    begun = threading.Event()

    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'not yet the end', length=False))
            begun.wait(t.s(10))
            conn.abort()
    for version in ('HTTP/1.1', 'HTTP/1.0'):
        begun.clear()
        weir = t.weir(t.origin(handler=handler), probe_interval=30)
        client = t.client(weir)
        client.send(request(version=version))
        head = client.head()
        t.equal(head.status, 200, version)
        begun.set()
        if version == 'HTTP/1.1':
            try:
                t.check(False, f'a whole body {client.chunked()} was made of half a one')
            except Cut:
                pass
        else:
            client.rest()
            t.check(client.reset, 'a 1.0 client saw a clean end')


def surplus_bytes_after_an_answer_reach_nobody(t):
    evil = answer(b'evil', fields=['X-Evil: yes'])

    def handler(conn):
        while True:
            req = conn.request()
            if req is None:
                return
            body = b'first' if req.target == '/first' else b'second'
            conn.send(answer(body) + (evil if req.target == '/first' else b''))
    origin = t.origin(handler=handler)
    weir = t.weir(origin)
    client = t.client(weir)
    for _ in range(5):
        t.equal(client.ask(target='/first').body, b'first')
        t.equal(client.ask(target='/second').body, b'second')
        t.equal(t.get(weir, '/second').body, b'second')
    for before, after in zip(origin.requests, origin.requests[1:]):
        if before.target == '/first':
            t.check(before.connection != after.connection, 'a connection with surplus bytes was used again')


def surplus_bytes_after_a_204_or_an_answer_to_head_reach_nobody(t):
    def handler(conn):
        while True:
            req = conn.request()
            if req is None:
                return
            if req.method == 'HEAD':
                conn.send(answer(b'a body that must not be here'))
            elif req.target == '/204':
                conn.send(answer(b'', 204, 'No Content', length=False) + b'neither must this')
            else:
                conn.send(answer(b'good'))
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    for _ in range(5):
        t.equal(client.ask('HEAD').status, 200)
        t.equal(client.ask().body, b'good')
        t.equal(client.ask(target='/204').status, 204)
        t.equal(client.ask().body, b'good')


def an_answer_that_nobody_asked_for_is_never_used(t):
    """A target that sends a second answer on its own, when its connection is already idle."""
    sent = threading.Semaphore(0)
    go = threading.Semaphore(0)

    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'good'))
            go.acquire(timeout=t.s(10))
            conn.send(answer(b'evil'))
            sent.release()
            conn.hold()
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    for _ in range(5):
        t.equal(client.ask().body, b'good')
        go.release()
        t.check(sent.acquire(timeout=t.s(10)), 'the surplus answer is out')


def a_target_that_speaks_first_is_not_believed(t):
    def handler(conn):
        conn.send(answer(b'evil'))
        if conn.request() is not None:
            conn.send(answer(b'good'))
            conn.hold()
    weir = t.weir(t.origin(handler=handler), t.origin(name='good'), probe_interval=30)
    for _ in range(4):
        try:
            response = t.get(weir)
            t.check(response.status == 502 or response.body in (b'good', b'evil'), f'{response}')
        except Cut:
            t.check(False, 'cut')


def a_bad_answer_is_not_asked_for_again_elsewhere(t):
    """It was an answer: the fault is the target's, and the next one must not be asked to make it good."""
    bad, good = t.origin(handler=_says(b'nonsense\r\n\r\n')), t.origin(name='good')
    weir = t.weir(bad, good, probe_interval=30)
    t.equal(t.get(weir, method='POST', body=b'pay').status, 502)
    t.equal([len(bad.requests), len(good.requests)], [1, 0])


def an_endless_row_of_interim_answers_is_502(t):
    def handler(conn):
        if conn.request() is None:
            return
        while not conn.closing.is_set():
            conn.send(b'HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n' * 100)
    origin = t.origin(handler=handler)
    client = t.client(t.weir(origin))
    client.send(request())
    status, count = 103, 0
    while status == 103 and count < 100000:
        status = client.head().status
        count += 1
    t.equal(status, 502, f'after {count} heads')
    origin.wait(lambda: not origin.live, 10, 'the end of the exchange upstream')


def connection_close_of_a_target_is_between_it_and_weir(t):
    origin = t.origin(handler=_says(answer(b'bye', fields=['Connection: close'])))
    weir = t.weir(origin)
    client = t.client(weir)
    for _ in range(5):
        response = client.ask()
        t.equal([response.status, response.body], [200, b'bye'])
        t.check('close' not in (response.get('connection') or ''), 'the client was told to close')
    t.equal(len(origin.connections), 5)
