"""What a hostile reading of the core found: each test failed before its defect was mended. They are about rare moments:
a retry with half a chunk head, a reload between two reads, a drain while somebody stands in line, a full pipe."""
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time

import contract
from client import request
from harness import takes
from origin import answer
from wire import Cut, Late

UPGRADE = ['Connection: Upgrade', 'Upgrade: websocket']


def _rewrite(path, text):
    with open(path + '.new', 'w', encoding='utf-8') as file:
        file.write(text)
    os.rename(path + '.new', path)


def _reload(weir, path, text, said=r'info .*new settings are in force'):
    """A new file, SIGHUP, and the line that says what came of it."""
    seen = len(weir.log.lines)
    _rewrite(path, text)
    weir.signal(signal.SIGHUP)
    return weir.wait_log(said, after=seen)


# One request's bytes are never another's

def a_chunk_size_parted_by_a_retry_is_the_same_size(t):
    """The "1" of the chunk size "10" came with the head and was looked at by the first target's try. It must be there
    for the second one: without it the size is 0, the body ends, and its payload is read as a request."""
    asked = threading.Event()

    def dies(conn):
        conn.head()
        asked.wait(t.s(10))
        conn.abort()
    first, second = t.origin(handler=dies, name='A'), t.origin(name='B')
    weir = t.weir(first, second)
    client = t.client(weir)
    client.send(request('PUT', '/', ['Transfer-Encoding: chunked']) + b'1')
    first.wait_requests(1)
    asked.set()
    t.until(lambda: second.requests or not client.silent(0), 10, 'what weir makes of it')
    payload = b'\r\nGET /smuggled '
    assert len(payload) == 0x10
    if second.requests:
        client.send(b'0\r\n' + payload + b'\r\n0\r\n\r\n')
    response = client.response()
    t.check(response.status in (200, 502), f'{response}')
    for origin in (first, second):
        t.check(all(req.target == '/' and req.body in (b'', payload) for req in origin.requests), f'{origin.requests}')
    t.equal([req.body for req in second.requests if req.whole], [payload] if response.status == 200 else [])


def a_body_behind_a_long_row_of_pipelined_requests_is_read(t):
    """The last head of the row ends exactly where the read buffer does: its body needs room all the same."""
    origin = t.origin(lambda req: answer(str(len(req.body)).encode()))
    weir = t.weir(origin, max_header='1KiB')
    capacity = 17 * 1024
    post = request('POST', '/last', ['Content-Length: 5'])
    one = request('GET', '/first')
    fill = capacity - len(post)
    heads = [one] * (fill // len(one) - 1)
    rest = fill - len(heads) * len(one)
    last = request('GET', '/' + 'x' * (rest - len(request('GET', '/'))))
    row = b''.join(heads) + last + post
    t.equal(len(row), capacity)
    client = t.client(weir)
    client.send(row)
    for _ in range(len(heads) + 1):
        t.equal(client.response().body, b'0')
    origin.wait(lambda: '/last' in origin.targets(), what='the head of the last request')
    client.send(b'hello')
    t.equal(client.response().body, b'5')


# Answers arrive whole

@takes(40)
def a_stray_line_end_behind_the_last_request_does_not_destroy_its_answer(t):
    """Bytes that nobody reads turn a close into a reset, and a reset throws away what was not delivered yet."""
    wanted = 4 * 1024 * 1024
    go = threading.Event()

    def reply(_):
        go.wait(t.s(10))
        return answer(b'x' * wanted)
    origin = t.origin(reply)
    weir = t.weir(origin)
    client = t.client(weir, receive_buffer=4096, seconds=20)
    client.send(request('POST', '/', ['Connection: close'], body=b'hello'))
    origin.wait(lambda: origin.whole_requests == 1, what='the request')
    client.send(b'\r\n')
    go.set()
    t.equal(len(client.response().body), wanted)


@takes(60)
def a_client_that_reads_slowly_but_steadily_gets_all_of_its_answer(t):
    """idle_timeout is for a client that takes nothing; one that takes a little all the time is only slow."""
    wanted = 12 * 1024 * 1024
    weir = t.weir(t.origin(lambda _: answer(b'x' * wanted)), idle_timeout='1')
    client = t.client(weir, receive_buffer=16384, seconds=30)
    client.send(request())
    pause = threading.Event()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        client.fill(time.monotonic() + 10, 'a piece')
        pause.wait(0.02)                        # the pace of this client is what is tested
    t.equal(len(client.response().body), wanted)


def the_access_line_of_a_tunnel_is_about_its_request(t):
    """The bytes of a tunnel once ran over the request line that the log was to show."""
    def tunnels(conn):
        conn.head()
        conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
        conn.exactly(4000)
    weir = t.weir(t.origin(handler=tunnels), extra=['--access-log', '-'])
    client = t.client(weir)
    client.send(request('GET', '/chat', UPGRADE + ['User-Agent: teller']))
    t.equal(client.response().status, 101)
    client.send(b'SECRET! ' * 500)
    t.equal(client.rest(), b'')
    client.close()
    t.until(lambda: weir.out.lines, 5, 'an access line')
    line = weir.out.lines[-1]
    match = contract.ACCESS_TEXT.match(line)
    t.check(match, line)
    if match:
        t.equal([match['method'], match['uri'], match['user_agent']], ['GET', '/chat', 'teller'])


def bytes_in_are_those_of_the_request_itself(t):
    """A request that reached no target sent nothing, whatever the request before it did."""
    origin = t.origin()
    weir = t.weir(origin, extra=['--access-log', '-'])
    client = t.client(weir)
    t.equal(client.ask('POST', body=b'x' * 1000).status, 200)
    origin.kill()
    client.ask('POST', body=b'12345', fields=['Connection: close'])
    t.until(lambda: len(weir.out.lines) == 2, 5, 'two access lines')
    match = contract.ACCESS_TEXT.match(weir.out.lines[1])
    t.check(match and int(match['bytes_in']) <= 5, weir.out.lines[1])


# Standing in line

def _full_line(t, weir, path='/', **more):
    """Uses the one slot, then puts requests in line."""
    t.equal(t.get(weir).status, 200)
    client = t.client(weir, seconds=20)
    client.send(request('POST', path, **more))
    t.read_by_peer(client)
    return client


def a_client_with_a_body_that_hangs_up_gives_its_place_back(t):
    for leave in ('close', 'abort'):
        origin = t.origin()
        weir = t.weir(origin, threshold='2/m', backlog='30')
        t.equal([t.get(weir).status, t.get(weir).status], [200, 200])
        left = t.client(weir)
        left.send(request('POST', '/left', body=b'hello'))
        t.read_by_peer(left)
        getattr(left, leave)()
        # The line has one place: it is free again when another waits in it and is not refused.
        def let_in():
            late = t.client(weir)
            late.send(request('GET', '/late'))
            try:
                if not late.silent(0.3):
                    return late.response().status != 429
                return True
            finally:
                late.close()
        t.until(let_in, 5, f'a place after {leave}')


@takes(40)
def drain_timeout_holds_for_a_request_with_a_body_that_stands_in_line(t):
    weir = t.weir(t.origin(), threshold='1/m', backlog='60', drain_timeout='0.5')
    waiting = _full_line(t, weir, body=b'hello')
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(8), 0)
    try:
        waiting.response()
        t.check(False, 'an answer')
    except Cut:
        pass


@takes(40)
def drain_timeout_holds_for_a_pipelined_request_that_stands_in_line(t):
    weir = t.weir(t.origin(), threshold='1/m', backlog='60', drain_timeout='0.5')
    t.equal(t.get(weir).status, 200)
    client = t.client(weir)
    client.send(request() * 2)
    t.read_by_peer(client)
    client.finish()
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(8), 0)


@takes(40)
def a_request_that_began_before_a_reload_is_woken_in_the_line_that_the_reload_made(t):
    origin = t.origin()
    text = f'[main]\nport = 0\nendpoint = {origin.address}\n'
    weir, path = t.weir_of_file(text, '--node', 'main')
    early = t.client(weir, seconds=15)
    early.send(b'GET /early HTTP/1.1\r\n')
    t.read_by_peer(early)
    _reload(weir, path, text + 'threshold = 1\nbacklog = 5\n')
    t.until(lambda: t.get(weir, '/now').status == 200, 5, 'the slot')
    others = [t.client(weir, seconds=15) for _ in range(2)]
    for other in others:
        other.send(request(target='/front'))
        t.read_by_peer(other)
    early.send(b'Host: a\r\n\r\n')
    t.equal(early.response().status, 200)


# The log

class _Unread:
    """A weir whose access log goes to a pipe that nobody reads but the test."""

    def __init__(self, t, *more):
        self.t, self.port = t, t.free_port()
        self.origin = t.origin(name='A')
        self.process = subprocess.Popen(
            [os.path.join(t.bin, 'weir'), 'reverse', '--port', str(self.port), '--endpoint', self.origin.address,
             '--log-format', 'json', '--access-log', '-', *more],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        t.cleanup(self.end)
        t.until(self._is_up, 10, 'weir answers')
        self.pipe = self.process.stdout.fileno()

    def _is_up(self):
        try:
            return self.t.get(self.port).status == 200
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.t.equal(self.process.wait(self.t.s(15)), 0, 'exit code')

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.stdout.close()
        self.process.wait()


@takes(60)
def a_line_longer_than_the_room_in_a_pipe_does_not_stop_the_service(t):
    """poll() finds a page of room, the line has two pages: the write would wait for a reader that never comes."""
    weir = _Unread(t)
    client = t.client(weir.port, seconds=5)
    fields = ['User-Agent: ' + '\xff' * 500, 'Referer: ' + '\xfe' * 500]
    for _ in range(60):
        t.equal(client.ask(fields=fields).status, 200)
    for _ in range(20):
        os.read(weir.pipe, 4096)
        t.equal(client.ask(fields=fields).status, 200)
    weir.stop()


def lines_that_were_lost_are_counted_in_the_format_of_the_log(t):
    """A machine that reads JSON gets whole lines of JSON and nothing else, also when it had stopped reading."""
    weir = _Unread(t)
    client = t.client(weir.port)
    fields = ['User-Agent: ' + '\xff' * 500, 'Referer: ' + '\xfe' * 500]
    for _ in range(60):
        client.ask(fields=fields)
    os.set_blocking(weir.pipe, False)
    lines = weir.process.stdout.read()
    for _ in range(3):
        client.ask()
    weir.stop()
    lines += weir.process.stdout.read() or b''
    lost, torn = [], 0
    for line in lines.decode().splitlines():
        try:
            message = json.loads(line).get('message', '')
            lost += re.findall(r'^(\d+) lines were lost', message)
        except ValueError:
            torn += 1
    t.check(torn <= 1, f'{torn} lines that are not JSON')   # the one that the full pipe cut
    told = sum(map(int, lost))
    t.check(lines.count(b'"uri"') - torn + told >= 60, f'{told} lines lost, {torn} cut')
    t.check(told > 10, f'lost, as the log says: {lost}')


def a_log_file_that_is_a_pipe_without_a_reader_is_an_error_and_no_hang(t):
    path = os.path.join(t.tmp, 'pipe')
    os.mkfifo(path)
    done = t.run('reverse', '--port', 0, '--endpoint', '127.0.0.1:1', '--logfile', path, seconds=5)
    t.equal(done.code, 1)
    t.check(path in done.err, done.err)


# Reload

@takes(40)
def a_stanza_that_is_renamed_keeps_its_port(t):
    origin, port = t.origin(), t.free_port()
    body = f'port = {port}\nendpoint = {origin.address}\n'
    weir, path = t.weir_of_file('[old]\n' + body)
    t.equal(t.get(port).status, 200)
    _reload(weir, path, '[new]\n' + body)
    t.equal(t.get(port).status, 200)


def what_a_reload_could_not_do_is_named_by_its_service(t):
    """Not by whatever the next service, with which all is well, had in its line of error."""
    origin = t.origin()
    with socket.socket() as taken:
        taken.bind(('0.0.0.0', 0))
        taken.listen()
        stanza = f'endpoint = {origin.address}\n'
        weir, path = t.weir_of_file(f'[a]\nport = 0\n{stanza}[b]\nport = 0\n{stanza}', services=2)
        text = f'[a]\nport = {taken.getsockname()[1]}\n{stanza}[b]\nport = 0\nretries = 3\n{stanza}'
        match = _reload(weir, path, text, r'not all new settings are in force: (.*)')
        t.check(re.match(r'\[a\] cannot listen on .*: Address already in use', match[1]), match[0])


def bind_can_change_while_the_port_stays(t):
    origin, port = t.origin(), t.free_port()
    text = f'[main]\nport = {port}\nendpoint = {origin.address}\n'
    weir, path = t.weir_of_file(text)
    kept = t.client(weir)
    t.equal(kept.ask().status, 200)
    _reload(weir, path, text + 'bind = 127.0.0.1\n')
    t.equal(t.get(port).status, 200)
    t.equal(kept.ask().status, 200)
    with socket.socket() as sock:
        t.check(sock.connect_ex(('127.0.0.2', port)) != 0, 'the old address is still listened on')
    _reload(weir, path, text)
    t.equal(t.get(port).status, 200)


@takes(40)
def a_port_that_changes_often_leaves_no_descriptors_behind(t):
    origin = t.origin()
    ports = [t.free_port(), t.free_port()]
    text = f'[main]\nendpoint = {origin.address}\nport = '
    weir, path = t.weir_of_file(text + f'{ports[0]}\n')
    counts = []
    for i in range(1, 15):
        _reload(weir, path, text + f'{ports[i % 2]}\n')
        t.equal(t.get(ports[i % 2], fields=['Connection: close']).status, 200)
        counts.append(len(os.listdir(f'/proc/{weir.pid}/fd')))
    t.check(counts[-1] <= counts[2] + 2, f'descriptors after each change: {counts}')


def a_unix_listener_stays_when_only_the_unused_port_changes(t):
    origin, path_of_socket = t.origin(), os.path.join(t.tmp, 'socket')
    text = f'[main]\nendpoint = {origin.address}\nbind = unix:{path_of_socket}\n'
    weir, path = t.weir_of_file(text + 'port = 0\n')
    _reload(weir, path, text + 'port = 8123\n')
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path_of_socket)
        sock.sendall(request())
        t.check(sock.recv(100).startswith(b'HTTP/1.1 200 '), 'an answer')


@takes(40)
def a_service_that_a_reload_removed_is_over_after_drain_timeout(t):
    """Its probes end, and so do the connections that did not want to."""
    origin, other = t.origin(), t.origin()
    gone = f'[gone]\nport = 0\nendpoint = {origin.address}\nprobe_path = /health\nprobe_interval = 0.1\n' \
           'drain_timeout = 0.5\n'
    stays = f'[stays]\nport = 0\nendpoint = {other.address}\n'
    weir, path = t.weir_of_file(gone + stays, services=2)
    before = weir.status('Threads')
    _reload(weir, path, stays)

    def is_silent():
        count = len(origin.requests)
        try:
            origin.wait_requests(count + 1, 0.8)
        except Late:
            return True
        return False
    t.until(is_silent, 8, 'the end of the probes')
    t.check(weir.status('Threads') < before, f'{weir.status("Threads")} of {before} threads')


@takes(40)
def max_header_of_a_reload_is_in_force_on_every_thread(t):
    origin = t.origin()
    text = f'[main]\nport = 0\nendpoint = {origin.address}\n'
    weir, path = t.weir_of_file(text, '--node', 'main')
    kept = t.client(weir)
    t.equal(kept.ask().status, 200)
    _reload(weir, path, text + 'max_header = 2KiB\n')
    t.equal(kept.ask().status, 200)
    kept.close()
    # Whichever thread serves it: the one that met the reload in the middle of a connection too.
    for _ in range(20):
        t.equal(t.get(weir, fields=['X-Long: ' + 'x' * 4000]).status, 431)


# Whose fault it is

def a_client_that_asks_for_100_continue_and_then_stays_silent_is_not_the_targets_fault(t):
    for word in (b'HTTP/1.1 100 Continue\r\n\r\n', b''):
        def waits(conn, word=word):
            conn.head()
            conn.send(word)
            conn.hold()
        weir = t.weir(t.origin(handler=waits), response_timeout='0.5', idle_timeout='0.5')
        client = t.client(weir)
        client.send(request('POST', '/', ['Expect: 100-continue', 'Content-Length: 5']))
        t.equal(client.response().status, 408, f'after {word!r}')
        t.check('leaves the rotation' not in weir.log.text(), f'the target was blamed after {word!r}')


def a_target_that_gives_up_on_a_body_that_does_not_come_is_not_blamed(t):
    def gives_up(conn):
        conn.head()
        conn.exactly(2)
    weir = t.weir(t.origin(handler=gives_up))
    client = t.client(weir)
    client.send(request('POST', '/', ['Content-Length: 5']) + b'he')
    t.equal(client.response().status, 502)
    t.check('leaves the rotation' not in weir.log.text(), 'the target was blamed')


def a_lack_of_descriptors_is_not_the_targets_fault(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    client.send(b'GET / HTTP/1.1\r\n')
    t.read_by_peer(client)                              # so it has its descriptor
    used = len(os.listdir(f'/proc/{weir.pid}/fd'))
    before = resource.prlimit(weir.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, (used, before[1]))
    client.send(b'Host: a.test\r\n\r\n')
    t.equal(client.response().status, 503)
    resource.prlimit(weir.pid, resource.RLIMIT_NOFILE, before)
    t.equal(client.ask().status, 200)
    t.check('leaves the rotation' not in weir.log.text(), 'the target was blamed')


def a_unix_target_whose_queue_is_full_is_waited_for(t):
    """connect() does not say EINPROGRESS there: it says EAGAIN, and the target would be out for a moment's crowd."""
    path = os.path.join(t.tmp, 'target')
    listener = socket.socket(socket.AF_UNIX)
    t.cleanup(listener.close)
    listener.bind(path)
    listener.listen(0)
    fillers = []
    while True:
        filler = socket.socket(socket.AF_UNIX)
        t.cleanup(filler.close)
        filler.setblocking(False)
        fillers.append(filler)
        try:
            filler.connect(path)
        except BlockingIOError:
            break
    weir = t.weir('unix:' + path)
    client = t.client(weir)
    client.send(request())
    t.check(client.silent(0.5), 'an answer while the queue is full')
    for _ in range(len(fillers) - 1):
        listener.accept()[0].close()
    conn, _ = listener.accept()
    conn.settimeout(t.s(5))
    conn.recv(10000)
    conn.sendall(answer(b'late'))
    conn.close()
    t.equal(client.response().body, b'late')


def a_long_probe_path_is_asked_for_in_full(t):
    path = '/' + 'p' * 1000
    origin = t.origin()
    t.weir(origin, probe_path=path, probe_interval='0.1')
    origin.wait_requests(1)
    t.equal(origin.targets()[0], path)


def a_unix_target_is_told_a_host_that_is_one(t):
    """"unix:/path" is no Host: servers answer 400 to it, to the probe and to an HTTP/1.0 client's request."""
    path = os.path.join(t.tmp, 'target')
    listener = socket.socket(socket.AF_UNIX)
    t.cleanup(listener.close)
    listener.bind(path)
    listener.listen(8)
    listener.settimeout(t.s(10))
    weir = t.weir('unix:' + path, probe_path='/health')
    client = t.client(weir)
    client.send(b'GET /old HTTP/1.0\r\n\r\n')
    hosts = {}
    while len(hosts) < 2:
        conn, _ = listener.accept()
        with conn:
            conn.settimeout(t.s(5))
            head = conn.recv(10000)
            hosts[head.split()[1]] = re.search(rb'\r\nHost: ([^\r]*)\r\n', head)[1]
            conn.sendall(answer(b'ok'))
    t.equal(hosts, {b'/health': b'localhost', b'/old': b'localhost'})


@takes(40)
def a_cut_at_the_end_of_a_drain_is_no_fault_of_the_target(t):
    slow = t.origin(handler=lambda conn: conn.request() and conn.hold())
    other = t.origin(name='B')
    weir = t.weir(slow, other, drain_timeout='0.3', response_timeout='30')
    client = t.client(weir)
    client.send(request())
    slow.wait_requests(1)
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(10), 0)
    t.equal(len(other.requests), 0)
    t.check(not any('leaves the rotation' in line for line in weir.log.lines), 'a target was blamed')


def retries_used_up_is_no_outage(t):
    broken = t.origin(handler=lambda conn: conn.request() and conn.abort())
    weir = t.weir(broken, t.origin(name='B'), retries='0', probe_interval='30')
    t.equal([t.get(weir).status, t.get(weir).status], [502, 200])


def a_pidfile_in_use_is_refused(t):
    path = f'{t.tmp}/weir.pid'
    first = t.weir(t.origin(name='A'), extra=['--pidfile', path])
    ended = t.run('reverse', '--port', '0', '--endpoint', '127.0.0.1:1', '--pidfile', path)
    t.equal(ended.code, 1)
    t.check('in use' in ended.err and ended.err.count('\n') == 1, ended.err)
    with open(path, encoding='ascii') as file:
        t.equal(int(file.read()), first.pid)


def a_name_that_does_not_resolve_is_said(t):
    weir = t.weir('nosuch.invalid:80', t.origin(name='A'))
    weir.wait_log(r'nosuch\.invalid:80 .*does not resolve')
    t.equal(t.get(weir).status, 200)
