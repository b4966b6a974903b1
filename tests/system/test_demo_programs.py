"""server_demo and client_demo: weir is measured with them, so they must be right themselves. No weir is started here."""
import json
import os
import re
import signal
import subprocess
import time

import contract
from client import chunked, request
from harness import Lines, clean_environment
from origin import answer
from wire import Cut

SERVER_LISTENS = re.compile(r'^server_demo (\S+) listens on port (\d+)$')


class _Server:
    """A running server_demo. It must end with 0 on SIGTERM and never write to stderr."""

    def __init__(self, t, *options, port=0):
        self.t = t
        self.process = subprocess.Popen([os.path.join(t.bin, 'server_demo'), '--http', str(port), *map(str, options)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=clean_environment(), cwd=t.tmp)
        self.out, self.log = Lines(self.process.stdout), Lines(self.process.stderr)
        t.cleanup(self._finish)
        match = self.out.wait(lambda lines: lines and SERVER_LISTENS.match(lines[0]), t.s(10))
        assert match, f'no port: {self.out.text()!r} {self.log.text()!r}'
        self.name, self.port = match[1], int(match[2])

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(self.t.s(10))

    def _finish(self):
        code = self.end() if self.process.returncode is None else self.process.returncode
        self.log.wait(lambda lines: False, self.t.s(5))
        self.t.equal((code, self.log.text()), (0, ''), 'exit and stderr of server_demo')


def _client(t, port, *options, path='/', code=0, seconds=30):
    """Runs client_demo --json and gives what it counted."""
    ran = t.run('--url', f'http://127.0.0.1:{port}{path}', '--json', *options, program='client_demo', seconds=seconds)
    t.equal(ran.code, code, f'exit status of client_demo ({ran})')
    t.check(not contract.SANITIZER.search(ran.err), ran.err)
    return json.loads(ran.out or ran.err)


def _failures(counted):
    return {kind: number for kind, number in counted['failures'].items() if number}


# Options of both

def help_and_version_go_to_stdout(t):
    for program in ('server_demo', 'client_demo'):
        for flag in ('--help', '-help'):
            ran = t.run(flag, program=program)
            t.equal((ran.code, ran.err), (0, ''), f'{program} {flag}')
            t.check(b'--help' in ran.out and program.encode() in ran.out, f'{program} {flag}: {ran}')
        ran = t.run('--version', program=program)
        t.equal((ran.code, ran.err), (0, ''), f'{program} --version')
        t.check(re.fullmatch(rb'%s \d+\.\d+\.\d+\n' % program.encode(), ran.out), f'{program} --version: {ran}')


def a_wrong_option_is_one_line_that_names_it_and_what_is_allowed(t):
    url = ('--url', 'http://127.0.0.1:1/')
    table = [
        ('server_demo', ['-pp', '111'], '-pp'),
        ('server_demo', ['-http', '80x'], '--http'), ('server_demo', [], '--http'),
        ('server_demo', ['--http', '65536'], '--http'), ('server_demo', ['--http', '-1'], '--http'),
        ('server_demo', ['--http'], '--http'),
        ('server_demo', ['--http='], '--http'), ('server_demo', ['9001'], '9001'),
        ('server_demo', ['--http', '0', '--name', 'two words'], '--name'),
        ('server_demo', ['--http', '0', '--name', ''], '--name'),
        ('server_demo', ['--http', '0', '--delay', '1.5'], '--delay'), ('server_demo', ['--htt', '0'], '--htt'),
        ('client_demo', [], '--url'), ('client_demo', ['-pkt', 'a.json'], '-pkt'),
        ('client_demo', ['--url', 'https://127.0.0.1/'], '--url'), ('client_demo', ['--url', 'http://:80/'], '--url'),
        ('client_demo', ['--url', 'http://a:0/'], '--url'), ('client_demo', ['--url', 'http://a:70000/'], '--url'),
        ('client_demo', ['--url', 'http://a b/'], '--url'), ('client_demo', ['--url', 'http://u@a/'], '--url'),
        ('client_demo', ['--url', 'http://[::1/'], '--url'), ('client_demo', ['--url', 'http://a:80x/'], '--url'),
        ('client_demo', [*url, '--count', '0'], '--count'), ('client_demo', [*url, '--count', '1e3'], '--count'),
        ('client_demo', [*url, '--count', '18446744073709551617'], '--count'),
        ('client_demo', [*url, '--interval', '-0.1'], '--interval'),
        ('client_demo', [*url, '--interval', '0.1s'], '--interval'),
        ('client_demo', [*url, '--interval', '1.'], '--interval'),
        ('client_demo', [*url, '--timeout', '0'], '--timeout'),
        ('client_demo', [*url, '--keepalive', 'maybe'], '--keepalive'),
        ('client_demo', [*url, '--keepalive', 'ye'], '--keepalive'),
        ('client_demo', [*url, '--header', 'no colon'], '--header'),
        ('client_demo', [*url, '--header', 'A: b\nC: d'], '--header'),
        ('client_demo', [*url, '--header', 'Content-Length: 4'], '--header'),
        ('client_demo', [*url, '--method', 'GET /'], '--method'),
        ('client_demo', [*url, '--json=yes'], '--json'), ('client_demo', [*url, '--expect', '100'], '--expect'),
    ]
    for program, options, named in table:
        ran = t.run(*options, program=program)
        what = f'{program} {options}: {ran}'
        t.check(ran.code == 2 and ran.out == b'' and ran.err.count('\n') == 1, what)
        t.check(named in ran.err and 'allowed' in ran.err, what)


def one_dash_or_two_and_an_equals_sign_or_none_are_the_same(t):
    server = _Server(t)
    for form in (['-url', '{}'], ['--url', '{}'], ['-url={}'], ['--url={}']):
        options = [part.format(f'http://127.0.0.1:{server.port}/') for part in form]
        t.equal(t.run(*options, '-expect=200', program='client_demo').code, 0, str(form))


# server_demo

def the_demo_server_answers_its_paths(t):
    server = _Server(t, '--name', 'target1')
    t.equal(server.name, 'target1')
    client = t.client(server.port)
    for method, target, status, body in [
            ('GET', '/', 200, b'Hello, world!'),
            ('GET', '/?a=b', 200, b'Hello, world!'), ('GET', '/ping/', 200, b'pong'),
            ('GET', 'http://example.test/ping/', 200, b'pong'), ('GET', 'http://example.test', 200, b'Hello, world!'),
            ('HEAD', '/', 200, b''), ('OPTIONS', '*', 200, b''), ('GET', '/nothing', 404, b'Not Found'),
            ('GET', '/' + 'a' * 5000, 404, b'Not Found'), ('DELETE', '/ping/', 200, b'pong')]:
        response = client.ask(method, target)
        t.equal((response.status, response.body, response.get('x-target')), (status, body, 'target1'),
                f'{method} {target[:40]}')
    t.equal(client.ask('HEAD', '/').get('content-length'), '13', 'the length that GET would have')


def a_demo_server_without_a_name_is_called_after_its_port(t):
    server = _Server(t)
    t.equal(t.client(server.port).ask().get('x-target'), f'target-{server.port}')


def bodies_are_read_to_their_end_and_no_further(t):
    client = t.client(_Server(t).port)
    big = b'GET /nothing HTTP/1.1\r\n\r\n' * 40000
    for send in (lambda: client.send(request('POST', body=big)), lambda: client.send(request('POST', body=b'')),
                 lambda: client.send(request('PUT', fields=['Transfer-Encoding: chunked']) +
                                     chunked([big, b'x'], ['A: b'])),
                 lambda: client.send(request(fields=['transfer-encoding: CHUNKED']) + b'3;a="b"\r\nabc\r\n00\r\n\r\n')):
        send()
        t.equal(client.response().status, 200)
    t.equal(client.ask('GET', '/ping/').body, b'pong', 'the connection is still in step')


def any_split_of_the_bytes_gives_the_demo_server_the_same_requests(t):
    client = t.client(_Server(t).port)
    stream = request('POST', '/ping/', fields=['Transfer-Encoding: chunked']) + chunked([b'hello', b'world']) + \
        b'\r\n' + request('GET', '/') + request('POST', '/no', body=b'abc')
    for size in (1, 2, 3, 7, len(stream)):
        for at in range(0, len(stream), size):
            client.send(stream[at:at + size])
        t.equal([client.response().status for _ in range(3)], [200, 200, 404], f'pieces of {size}')


def what_is_not_http_is_refused_and_nothing_after_it_is_answered(t):
    server = _Server(t)
    host = b'Host: a\r\n'
    table = [
        (b'garbage\r\n\r\n', 400), (b'GET /\r\n\r\n', 400), (b'GET  / HTTP/1.1\r\n' + host + b'\r\n', 400),
        (b'GET / HTTP/1.1\n' + host + b'\r\n', 400), (b'GET / HTTP/1.1\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\n' + host + host + b'\r\n', 400), (b'GET / HTTP/1.1\r\nHost : a\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\n' + host + b'A: b\r\n c\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\n' + host + b'A: b\rc\r\n\r\n', 400),
        (b'GET / HTTP/1.1\r\n' + host + b'A: b\0c\r\n\r\n', 400), (b'GET / HTTP/2.0\r\n' + host + b'\r\n', 505),
        (b'GET / HTTP/1.11\r\n' + host + b'\r\n', 400), (b'GET nowhere HTTP/1.1\r\n' + host + b'\r\n', 400),
        (b'POST / HTTP/1.1\r\n' + host + b'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400),
        (b'POST / HTTP/1.1\r\n' + host + b'Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd', 400),
        (b'POST / HTTP/1.1\r\n' + host + b'Content-Length: +3\r\n\r\nabc', 400),
        (b'POST / HTTP/1.1\r\n' + host + b'Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n', 400),
        (b'POST / HTTP/1.1\r\n' + host + b'Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n', 400),
        (b'POST / HTTP/1.1\r\n' + host + b'Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n', 400),
        (b'POST / HTTP/1.1\r\n' + host + b'Content-Length: 99999999999\r\n\r\n', 413),
        (b'GET / HTTP/1.1\r\n' + host + b'A: ' + b'a' * 70000 + b'\r\n\r\n', 431),
        (b'GET / HTTP/1.1\r\n' + host + b'Expect: more\r\n\r\n', 417),
    ]
    for sent, status in table:
        client = t.client(server.port)
        client.send(sent + request('GET', '/'))
        response = client.response()
        t.equal((response.status, response.get('connection')), (status, 'close'), repr(sent[:120]))
        t.check(client.rest() == b'' and not client.reset, f'{sent[:120]!r}: more than the refusal came')
        client.close()


def the_demo_server_says_continue_before_it_waits_for_a_body(t):
    client = t.client(_Server(t).port)
    client.send(request('POST', fields=['Expect: 100-continue', 'Content-Length: 3']))
    t.equal(client.head().status, 100)
    client.send(b'abc')
    t.equal(client.response().status, 200)


def the_demo_server_closes_when_asked_to(t):
    server = _Server(t)
    for more in ({'fields': ['Connection: close']}, {'version': 'HTTP/1.0'}):
        client = t.client(server.port)
        t.equal(client.ask(**more).status, 200)
        t.check(client.closed(), 'open')
    client = t.client(server.port)
    for _ in range(2):
        response = client.ask(version='HTTP/1.0', fields=['Connection: keep-alive'])
        t.equal(response.get('connection'), 'keep-alive')


def a_demo_server_ends_at_once_on_sigterm_whatever_it_is_doing(t):
    server = _Server(t, '--delay', 600000)
    client = t.client(server.port)
    client.send(request())
    t.read_by_peer(client)
    t.equal(server.end(), 0, 'exit status')
    try:
        client.response()
        t.check(False, 'an answer came')
    except Cut:
        pass


def a_demo_server_starts_again_on_its_port_at_once(t):
    first = _Server(t)
    client = t.client(first.port)
    t.equal(client.ask().status, 200)
    t.equal(first.end(), 0, 'exit status')
    again = _Server(t, port=first.port)
    t.equal(t.client(again.port).ask().status, 200)


def a_taken_port_is_a_failure_in_one_line(t):
    server = _Server(t)
    ran = t.run('--http', server.port, program='server_demo')
    t.equal((ran.code, ran.out, ran.err.count('\n')), (1, b'', 1), str(ran))
    t.check(str(server.port) in ran.err, ran.err)


def the_log_has_a_line_for_each_request(t):
    path = os.path.join(t.tmp, 'requests')
    server = _Server(t, '--name', 'x', '--log', path)
    client = t.client(server.port)
    client.ask('GET', '/')
    client.ask('POST', '/nothing', body=b'abc')
    with open(path, encoding='ascii') as file:
        lines = file.read().splitlines()
    t.equal([line.split(' ', 1)[1] for line in lines], ['x GET / 200', 'x POST /nothing 404'])
    times = [float(line.split()[0]) for line in lines]
    t.equal(times, sorted(times), 'times')


# client_demo

def _named(name, status=200, reason='OK', body=b'hello'):
    return lambda request: answer(body, status, reason, fields=[f'X-Target: {name}'])


def answers_are_counted_by_status_and_by_target(t):
    replies = [answer(b'a', fields=['X-Target: one']), answer(b'b', fields=['x-target: two']), answer(b'c', 404, 'No')]
    origin = t.origin(lambda request: replies[(len(origin.requests) - 1) % 3])
    counted = _client(t, origin.port, '--count', 30)
    t.equal(counted['statuses'], {'200': 20, '404': 10})
    t.equal(counted['targets'], {'one': 10, 'two': 10})
    t.equal((counted['requests'], counted['answered'], counted['failed'], counted['body_bytes']), (30, 30, 0, 30))
    t.equal((len(origin.connections), counted['connections']), (1, 1), 'connections')


def expect_makes_any_other_status_a_failure_of_the_whole(t):
    origin = t.origin(lambda request: answer(b'', 503 if len(origin.requests) == 3 else 200, 'X'))
    _client(t, origin.port, '--count', 5, '--expect', 200, code=1)
    _client(t, origin.port, '--count', 5, '--expect', 200, code=0)
    _client(t, origin.port, '--count', 5, '--expect', 503, code=1)


def each_worker_has_a_connection_and_without_keepalive_each_request_has(t):
    origin = t.origin()
    t.equal(_client(t, origin.port, '--count', 40, '--keepalive', 'no', '--concurrency', 4)['connections'], 40)
    t.check(all(r.get('connection') == 'close' for r in origin.requests), 'Connection: close')
    counted = _client(t, origin.port, '--count', 400, '--concurrency', 4)
    t.check(1 <= counted['connections'] <= 4, f'{counted["connections"]} connections')
    t.equal(len(origin.requests), 440)


def every_framing_of_an_answer_is_read_to_its_end(t):
    whole = [
        answer(b'hello'), answer(b'', 204, 'No Content', length=False),
        answer(b'', 304, 'Same', ['Content-Length: 9'], length=False),
        answer(b'', 103, 'Hints', ['Link: </a>'], length=False) + answer(b'ab'),
        b'HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n',
        answer(fields=['Transfer-Encoding: chunked'], length=False) + chunked([b'abc', b'd' * 70000], ['A: b']),
        answer(b'to the end', length=False), answer(b'old', version='HTTP/1.0'),
    ]
    for reply in whole:
        closes = reply in whole[-2:]

        def handler(conn, reply=reply, closes=closes):
            while conn.request() is not None:
                conn.send(reply)
                if closes:
                    return
        origin = t.origin(handler=handler)
        counted = _client(t, origin.port, '--count', 3)
        t.equal((counted['answered'], counted['reconnected'], counted['connections']), (3, 0, 3 if closes else 1),
                repr(reply[:80]))
    origin = t.origin(lambda request: answer(b'12345')[:-5])
    t.equal(_client(t, origin.port, '--count', 3, '--method', 'HEAD')['connections'], 1, 'connections of HEAD')


def each_way_to_fail_is_counted_as_what_it_is(t):
    table = [
        ('closed', b''),
        ('cut', b'HTTP/1.1 200 OK\r\nContent-Le'), ('cut', b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell'),
        ('cut', b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'),
        ('cut', b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n'),
        ('cut', b'HTTP/1.1 100 Continue\r\n\r\n'),
        ('malformed', b'SSH-2.0-OpenSSH\r\n'), ('malformed', b'HTTP/2.0 200 OK\r\n\r\n'),
        ('malformed', b'HTTP/1.1 20 OK\r\n\r\n'), ('malformed', b'HTTP/1.1 200 OK\nContent-Length: 0\n\n'),
        ('malformed', b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
        ('malformed', b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc'),
        ('malformed', b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc'), ('malformed', b'HTTP/1.1 101 Up\r\n\r\n'),
        ('malformed', b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'),
        ('malformed', b'HTTP/1.1 200 OK\r\nA: ' + b'a' * 70000 + b'\r\n\r\n'),
    ]
    for kind, reply in table:
        def handler(conn, reply=reply):
            conn.request()
            conn.send(reply)
        counted = _client(t, t.origin(handler=handler).port, code=1)
        t.equal((_failures(counted), counted['failed'], counted['answered']), ({kind: 1}, 1, 0), repr(reply[:80]))
    t.equal(_failures(_client(t, t.refused().port, code=1)), {'refused': 1})

    def resets(conn):
        conn.request()
        conn.abort()
    t.equal(_failures(_client(t, t.origin(handler=resets).port, code=1)), {'reset': 1})


def a_server_that_dribbles_is_cut_at_the_timeout(t):
    def dribbles(conn):
        conn.request()
        conn.send(b'HTTP/1.1 200 OK\r\n')
        while not conn.closing.wait(0.05):
            conn.send(b'A: b\r\n')
    counted = _client(t, t.origin(handler=dribbles).port, '--timeout', 0.5, code=1)
    t.equal(_failures(counted), {'timeout': 1})
    t.check(counted['elapsed_s'] >= 0.5, f'after {counted["elapsed_s"]} s already')
    silent = _client(t, t.origin(handler=lambda conn: conn.hold()).port, '--timeout', 0.2, code=1)
    t.equal(_failures(silent), {'timeout': 1})
    t.equal(_failures(_client(t, t.full_backlog().port, '--timeout', 0.2, code=1)), {'timeout': 1})


def a_kept_connection_that_the_server_closed_is_replaced_without_a_failure(t):
    def once(conn):
        conn.request()
        conn.send(answer(b'hello'))

    def swallows_the_second(conn):
        if conn.request() is not None:
            conn.send(answer(b'hello'))
            conn.request()
    for handler in (once, swallows_the_second):
        counted = _client(t, t.origin(handler=handler).port, '--count', 5)
        t.equal((counted['answered'], counted['reconnected'], counted['connections']), (5, 4, 5), handler.__name__)


def a_post_is_never_sent_twice(t):
    def swallows_the_second(conn):
        if conn.request() is not None:
            conn.send(answer(b'hello'))
            conn.request()
    origin = t.origin(handler=swallows_the_second)
    counted = _client(t, origin.port, '--count', 2, '--method', 'POST', code=1)
    t.equal((_failures(counted), len(origin.requests)), ({'closed': 1}, 2))


def the_request_is_what_was_asked_for(t):
    origin = t.origin()
    _client(t, origin.port, '--header', 'A: b', '-header=C:  d', '--method', 'PUT', path='/x/?y=%20z#part')
    _client(t, origin.port, '--header', 'Host: other.test', path='')
    first, second = origin.requests
    t.equal((first.method, first.target, first.get('a'), first.get('c'), first.get('content-length')),
            ('PUT', '/x/?y=%20z', 'b', 'd', '0'))
    t.equal(first.get('host'), f'127.0.0.1:{origin.port}')
    t.equal((second.target, second.fields.all('host')), ('/', ['other.test']))


def requests_start_at_their_moments_whatever_the_answers_take(t):
    origin = t.origin(stamped=True)
    release = origin.changed

    def two_at_a_time(request):
        # An answer comes only when the next request is there: one worker alone would stand still.
        count = origin.requests.index(request) + 2
        with release:
            release.wait_for(lambda: len(origin.requests) >= min(count, 12), t.s(10))
        return answer(b'')
    origin.reply = two_at_a_time
    begun = time.time()
    counted = _client(t, origin.port, '--count', 12, '--interval', 0.05, '--concurrency', 3)
    t.equal(counted['answered'], 12)
    at = sorted(request.arrived for request in origin.requests)
    early = [i for i in range(12) if at[i] < begun + i * 0.05]
    t.check(not early, f'requests {early} came before their moments: {[round(x - begun, 3) for x in at]}')
    t.check(counted['latest_start_us'] < 500000 * t.slow, f'a request started {counted["latest_start_us"]} us late')
    t.check(counted['elapsed_s'] >= 0.55, f'the last of 12 was over after {counted["elapsed_s"]} s')


def an_interrupted_client_prints_what_it_has_counted(t):
    origin = t.origin(_named('a'))
    for number in (signal.SIGINT, signal.SIGTERM):
        before = len(origin.requests)
        process = subprocess.Popen([os.path.join(t.bin, 'client_demo'), '--json', '--url', f'http://127.0.0.1:{origin.port}/',
                                    '--count', '1000', '--interval', '0.01', '--concurrency', '2'],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        t.cleanup(process.kill)
        origin.wait_requests(before + 10)
        process.send_signal(number)
        out, err = process.communicate(timeout=t.s(10))
        counted = json.loads(out)
        t.equal((process.returncode, err), (0, b''), str(number))
        t.check(5 <= counted['answered'] < 1000 and counted['targets']['a'] == counted['answered'], str(counted))


def each_answer_can_be_printed_as_it_comes(t):
    replies = [answer(b'', fields=['X-Target: a']), answer(b'', 429, 'Slow', ['Retry-After: 7']),
               answer(b'', fields=['X-Target: "\x1b[2J'])]
    origin = t.origin(lambda request: replies[(len(origin.requests) - 1) % 3])
    url = ('--url', f'http://127.0.0.1:{origin.port}/')
    ran = t.run(*url, '--count', 3, '--print', 'targets', program='client_demo')
    t.equal(ran.out, b'a\n429\n??[2J\n')
    t.check(ran.err.startswith('3 requests in '), f'the summary on stderr: {ran.err!r}')
    ran = t.run(*url, '--count', 3, '--print', 'answers', program='client_demo')
    rows = [line.split() for line in ran.out.decode().splitlines()]
    t.equal([[row[0], *row[3:]] for row in rows],
            [['0', '200', 'a', '-'], ['1', '429', '-', '7'], ['2', '200', '??[2J', '-']])


def the_two_programs_agree_with_each_other(t):
    server = _Server(t, '--name', 'one')
    counted = _client(t, server.port, '--count', 2000, '--concurrency', 8, '--expect', 200)
    t.equal((counted['answered'], counted['targets'], counted['body_bytes']), (2000, {'one': 2000}, 26000))
    latency = counted['latency_us']
    order = [latency[key] for key in ('p50', 'p90', 'p99', 'p99_9', 'max')]
    t.check(order == sorted(order) and order[0] > 0, f'latencies {latency}')
    ran = t.run('--url', f'http://localhost:{server.port}/', '--count', 3, program='client_demo')
    t.equal(ran.code, 0, str(ran))
    for said in (b'3 requests', b'status 200', b'target one', b'p99.9'):
        t.check(said in ran.out, str(ran))
