"""SIGHUP, SIGUSR1, and what the logs say."""
import json
import os
import re
import signal
import subprocess
import threading

import contract
from client import request
from harness import Weir, takes
from origin import answer
from wire import Cut


def _ini(origin, *more, name='main', globals_=()):
    head = '[globals]\n' + '\n'.join(globals_) + '\n' if globals_ else ''
    return head + '\n'.join([f'[{name}]', 'port = 0', f'endpoint = {origin.address}', *more]) + '\n'


def _rewrite(path, text):
    """As an editor does it: a new file under the old name."""
    with open(path + '.new', 'w', encoding='utf-8') as file:
        file.write(text)
    os.rename(path + '.new', path)


# SIGHUP

@takes(45)
def a_good_file_is_taken_over_with_no_connection_dropped(t):
    old, new = t.origin(name='old'), t.origin(name='new')
    weir, path = t.weir_of_file(_ini(old), '--node', 'main')
    stop = threading.Event()
    failures = []
    counts = {'old': 0, 'new': 0}
    lock = threading.Lock()

    def load():
        client = t.client(weir, seconds=20)
        while not stop.is_set():
            try:
                response = client.ask()
            except Cut as cut:
                failures.append(str(cut))
                return
            with lock:
                counts[response.body.decode()] = counts.get(response.body.decode(), 0) + 1
            if response.status != 200:
                failures.append(str(response))

    def drama():
        try:
            old.wait_requests(200)
            for target, other in ((new, 'old'), (old, 'new')) * 2:
                _rewrite(path, _ini(target))
                weir.signal(signal.SIGHUP)
                target.wait_requests(len(target.requests) + 200)
                del other
        finally:
            stop.set()
    t.parallel([drama] + [load] * 8, seconds=40)
    t.equal(failures, [])
    t.check(counts['new'] > 200, f'{counts}')
    # Nothing goes to the target that is no longer there.
    before = len(new.requests)
    t.equal(t.get(weir).body, b'old')
    t.equal(len(new.requests), before)


def a_request_in_flight_on_a_target_that_is_removed_finishes(t):
    go = threading.Event()

    def reply(req):
        if req.target == '/slow':
            go.wait(t.s(20))
            return answer(b'finished')
        return answer(b'old')
    old, new = t.origin(reply), t.origin(name='new')
    weir, path = t.weir_of_file(_ini(old), '--node', 'main')
    client = t.client(weir)
    client.send(request(target='/slow'))
    old.wait_requests(1)
    _rewrite(path, _ini(new))
    weir.signal(signal.SIGHUP)
    t.until(lambda: t.get(weir).body == b'new', 10, 'the new target')
    go.set()
    t.equal(client.response().body, b'finished')


def a_bad_file_is_reported_and_the_old_settings_stay(t):
    old = t.origin(name='old')
    weir, path = t.weir_of_file(_ini(old), '--node', 'main')
    client = t.client(weir)
    t.equal(client.ask().body, b'old')
    for text, pattern in ((_ini(old, 'treshold = 5'), r'weir\.ini:4.*treshold'), ('nonsense\n', r'weir\.ini:1'),
                          (_ini(old, 'backlog = x'), r'weir\.ini:4')):
        _rewrite(path, text)
        seen = len(weir.log.lines)
        weir.signal(signal.SIGHUP)
        weir.wait_log(pattern, after=seen)
        t.equal(client.ask().body, b'old')
    os.unlink(path)
    seen = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(r'weir\.ini', after=seen)
    t.equal(client.ask().body, b'old')
    new = t.origin(name='new')
    _rewrite(path, _ini(new))
    weir.signal(signal.SIGHUP)
    t.until(lambda: client.ask().body == b'new', 10, 'the new target on the old connection')


def a_changed_timeout_is_in_force_after_sighup(t):
    hung = t.origin(handler=lambda conn: conn.hold())
    weir, path = t.weir_of_file(_ini(hung, 'response_timeout = 60', 'probe_interval = 0.1'), '--node', 'main')
    seen = len(weir.log.lines)
    _rewrite(path, _ini(hung, 'response_timeout = 0.3', 'probe_interval = 0.1'))
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=seen)
    t.equal(t.get(weir, method='POST', body=b'x').status, 504)


def a_request_that_had_come_together_with_one_before_it_is_served_under_the_new_settings(t):
    go = threading.Event()

    def reply(req):
        if req.target == '/first':
            go.wait(t.s(20))
        return answer(req.target.encode())
    origin = t.origin(reply)
    weir, path = t.weir_of_file(_ini(origin), '--node', 'main')
    client = t.client(weir)
    client.send(request(target='/first') + request(target='/second'))
    origin.wait_requests(1)
    seen = len(weir.log.lines)
    _rewrite(path, _ini(origin, 'forwarded = off'))
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=seen)
    go.set()
    first, second = client.response(), client.response()
    t.equal([first.body, second.body], [b'/first', b'/second'])
    t.equal([response.fields.has('via') for response in (first, second)], [True, False])
    t.equal([req.fields.has('x-forwarded-for') for req in origin.requests], [True, False])


def sighup_without_a_file_changes_nothing(t):
    weir = t.weir(t.origin(name='A'))
    client = t.client(weir)
    t.equal(client.ask().body, b'A')
    seen = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=seen)
    t.equal(client.ask().body, b'A')


def a_target_that_is_out_stays_out_over_a_sighup(t):
    dead, good = t.refused(), t.origin(name='good')
    text = f'[main]\nport = 0\nprobe_interval = 30\nendpoint = {dead.address},{good.address}\n'
    weir, path = t.weir_of_file(text, '--node', 'main')
    t.equal(t.get(weir).body, b'good')
    seen = len(weir.log.lines)
    _rewrite(path, text + 'backlog = 1\n')
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=seen)
    t.equal([t.get(weir).body for _ in range(3)], [b'good'] * 3)


def a_changed_port_is_listened_on_and_old_connections_stay(t):
    origin = t.origin(name='A')
    weir, path = t.weir_of_file(_ini(origin), '--node', 'main')
    old = t.client(weir)
    t.equal(old.ask().body, b'A')
    port = t.free_port()
    _rewrite(path, _ini(origin).replace('port = 0', f'port = {port}'))
    weir.signal(signal.SIGHUP)

    def served():
        try:
            return t.get(port).body == b'A'
        except OSError:
            return False
    t.until(served, 10, 'the new port')
    t.equal(old.ask().body, b'A')

    def refused():
        try:
            t.client(weir).close()
            return False
        except ConnectionRefusedError:
            return True
    t.until(refused, 10, 'the old port is closed')


def a_port_that_is_taken_keeps_the_old_settings(t):
    origin = t.origin(name='A')
    weir, path = t.weir_of_file(_ini(origin), '--node', 'main')
    _rewrite(path, _ini(t.origin(name='B')).replace('port = 0', f'port = {origin.port}'))
    seen = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(str(origin.port), after=seen)
    t.equal(t.get(weir).body, b'A')


def a_stanza_that_is_added_is_served_and_one_that_is_removed_is_not(t):
    a, b = t.origins(2)
    port = t.free_port()
    weir, path = t.weir_of_file(_ini(a, name='one'))
    _rewrite(path, _ini(a, name='one') + _ini(b, name='two').replace('port = 0', f'port = {port}'))
    weir.signal(signal.SIGHUP)

    def served():
        try:
            return t.get(port).body == b'B'
        except (OSError, Cut):
            return False
    t.until(served, 10, 'the new stanza')
    t.equal(t.get(weir).body, b'A')
    _rewrite(path, _ini(a, name='one'))
    weir.signal(signal.SIGHUP)
    t.until(lambda: not served(), 10, 'the stanza is gone')
    t.equal(t.get(weir).body, b'A')


@takes(45)
def a_hundred_sighups_under_load_drop_nothing(t):
    origin = t.origin(name='A')
    weir, path = t.weir_of_file(_ini(origin), '--node', 'main')
    stop = threading.Event()
    bad = []

    def load():
        client = t.client(weir, seconds=20)
        while not stop.is_set():
            response = client.ask()
            if response.status != 200:
                bad.append(response)

    def drama():
        try:
            for i in range(100):
                _rewrite(path, _ini(origin, f'idle_timeout = {50 + i % 10}', f'retries = {i % 3}'))
                weir.signal(signal.SIGHUP)
                origin.wait_requests(len(origin.requests) + 5)
        finally:
            stop.set()
    t.parallel([drama] + [load] * 6, seconds=40)
    t.equal(bad, [])


# SIGUSR1

def sigusr1_reopens_the_logs_after_a_rename(t):
    log, access = t.tmp + '/weir.log', t.tmp + '/access.log'
    origin = t.origin()
    # The log goes to a file: the port is asked for beforehand, for no line on stderr can name it.
    port = t.free_port()
    weir = Weir(t, ['reverse', '--port', port, '--endpoint', origin.address, '--logfile', log, '--access-log', access],
                services=0, start_s=0)

    def read(path):
        try:
            with open(path, encoding='utf-8') as file:
                return file.read()
        except FileNotFoundError:
            return ''
    t.until(lambda: contract.LISTENS.search(read(log)), 10, 'the line that says it listens, in the log file')
    t.equal(t.get(port, '/before').status, 200)
    t.until(lambda: '/before' in read(access), 5, 'an access line')
    os.rename(log, log + '.1')
    os.rename(access, access + '.1')
    weir.signal(signal.SIGUSR1)
    t.until(lambda: os.path.exists(access) and os.path.exists(log), 10, 'new files')
    t.equal(t.get(port, '/after').status, 200)
    t.until(lambda: '/after' in read(access), 5, 'an access line in the new file')
    t.check('/after' not in read(access + '.1'), 'lines still go to the old file')
    t.check('/before' not in read(access), 'old lines in the new file')


# Access lines

def _access_lines(t, weir, count):
    weir.out.wait(lambda lines: len(lines) >= count, t.s(10))
    return list(weir.out.lines)


def an_access_line_in_text_has_the_combined_fields_and_weirs_own(t):
    origin = t.origin(lambda req: answer(b'hello'))
    weir = t.weir(origin, access_log='-')
    t.equal(t.get(weir, '/a?b=c', method='POST', body=b'1234567',
                  fields=['Referer: http://r.test/', 'User-Agent: te st/1.0']).status,
            200)
    line = _access_lines(t, weir, 1)[0]
    match = contract.ACCESS_TEXT.fullmatch(line)
    if not t.check(match, f'not as agreed: {line!r}'):
        return
    for key, value in {'client': '127.0.0.1', 'method': 'POST', 'uri': '/a?b=c', 'protocol': 'HTTP/1.1',
                       'status': '200',
                       'bytes_out': '5', 'bytes_in': '7', 'referer': 'http://r.test/', 'user_agent': 'te st/1.0',
                       'target': origin.address, 'outcome': contract.OUTCOME_OK, 'service': 'reverse'}.items():
        t.equal(match[key], value, key)
    t.check(re.fullmatch(r'\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}', match['time']), f'time {match["time"]}')


def an_access_line_in_json_parses_and_has_every_key(t):
    def reply(_):
        threading.Event().wait(0.2)
        return answer(b'hello')
    origin = t.origin(reply)
    weir = t.weir(origin, access_log='-', log_format='json')
    t.equal(t.get(weir, '/a?b=c', method='POST', body=b'1234567', fields=['User-Agent: "quoted\\" \xe9']).status, 200)
    line = _access_lines(t, weir, 1)[0]
    entry = json.loads(line)
    for key in contract.ACCESS_JSON_KEYS:
        t.check(key in entry, f'{key} is not in {line}')
    for key in contract.ACCESS_JSON_NUMBERS:
        t.check(isinstance(entry.get(key), int), f'{key}: {entry.get(key)!r}')
    for key, value in {'client': '127.0.0.1', 'method': 'POST', 'uri': '/a?b=c', 'protocol': 'HTTP/1.1', 'status': 200,
                       'bytes_out': 5,
                       'bytes_in': 7, 'target': origin.address, 'outcome': contract.OUTCOME_OK, 'tries': 1,
                       'user_agent': '"quoted\\" \xe9'}.items():
        t.equal(entry.get(key), value, key)
    t.check(150000 <= entry['upstream_us'] <= entry['total_us'], f'{entry}')


def failures_are_named_in_access_lines(t):
    def resets(conn):
        if conn.request() is not None:
            conn.abort()
    weir = t.weir(t.origin(handler=resets), access_log='-', log_format='json', threshold=2)
    t.equal(t.get(weir, method='POST', body=b'x').status, 502)
    t.equal(t.get(weir, host='a b').status, 400)
    t.equal(t.get(weir).status, 500)
    entries = [json.loads(line) for line in _access_lines(t, weir, 3)]
    t.equal(sorted(entry['status'] for entry in entries), [400, 500, 502])
    for entry in entries:
        t.check(entry['outcome'] and entry['outcome'] != contract.OUTCOME_OK, f'{entry}')
    t.equal(len({entry['outcome'] for entry in entries}), 3, f'outcomes {[entry["outcome"] for entry in entries]}')


def a_request_that_waited_says_how_long(t):
    weir = t.weir(t.origin(), access_log='-', log_format='json', threshold=1, backlog=1)
    client = t.client(weir)
    t.equal([client.ask().status, client.ask().status], [200, 200])
    first, second = [json.loads(line) for line in _access_lines(t, weir, 2)]
    t.check(first['wait_us'] < 500000 < second['wait_us'], f'{first["wait_us"]} and {second["wait_us"]}')


def a_failover_shows_the_target_that_answered(t):
    good = t.origin(name='good')
    weir = t.weir(t.refused(), good, access_log='-', log_format='json', probe_interval=30)
    t.equal(t.get(weir).body, b'good')
    entry = json.loads(_access_lines(t, weir, 1)[0])
    t.equal([entry['target'], entry['tries']], [good.address, 2])


def control_bytes_cannot_forge_a_line(t):
    """Escape sequences, quotes and high bytes from a client stand escaped in both kinds of line."""
    agent = 'a\x1b[31m" 200 "\\ \x80\xff\tb'
    for style in ('text', 'json'):
        weir = t.weir(t.origin(), access_log='-', log_format=style)
        client = t.client(weir)
        client.send(request(fields=['User-Agent: ' + agent, 'Referer: "\x07']))
        status = client.response().status
        t.check(status in (200, 400), f'{status}')
        lines = _access_lines(t, weir, 1)
        t.equal(len(lines), 1, f'{style}: lines')
        t.check(all(' ' <= c <= '~' for c in lines[0]), f'{style}: raw bytes in {lines[0]!r}')
        if style == 'json':
            json.loads(lines[0])
        elif status == 200:
            t.check(contract.ACCESS_TEXT.fullmatch(lines[0]), f'not as agreed: {lines[0]!r}')
        client = t.client(weir)
        client.send(b'GET /\x1b[2J"\\ HTTP/1.1\r\nHost: a.test\r\n\r\n')
        t.equal(client.response().status, 400)
        lines = _access_lines(t, weir, 2)
        t.check(all(' ' <= c <= '~' for c in lines[-1]), f'{style}: raw bytes in {lines[-1]!r}')


def log_level_error_is_quiet_and_debug_is_not(t):
    origin = t.origin(name='A')
    port = t.free_port()
    quiet = Weir(t, ['reverse', '--port', port, '--endpoint', origin.address, '--log-level', 'error'], services=0,
                 start_s=0)

    def up():
        try:
            return t.get(port).status == 200
        except OSError:
            return False
    t.until(up, 10, 'weir answers')
    t.equal(quiet.log.lines, [], 'lines at level error')
    loud = t.weir(origin, log_level='debug')
    t.equal(t.get(loud).status, 200)
    loud.wait_log('GET / HTTP/1.1')     # without access_log, requests are in the log at debug


def log_lines_in_json_parse(t):
    origin = t.origin(name='A')
    weir = t.weir(origin, t.refused(), log_format='json')
    t.equal(t.get(weir).status, 200)
    t.equal(t.get(weir).status, 200)
    weir.stop()
    t.check(weir.log.lines, 'lines')
    for line in weir.log.lines:
        entry = json.loads(line)
        t.check({'time', 'level', 'message'} <= set(entry), f'{line}')


def a_target_that_goes_out_and_comes_back_is_in_the_log(t):
    a = t.origin(name='A')
    weir = t.weir(a, probe_interval=0.1)
    t.equal(t.get(weir).status, 200)
    a.kill()
    seen = len(weir.log.lines)
    t.get(weir)
    weir.wait_log(re.escape(a.address), after=seen)
    seen = len(weir.log.lines)
    a.revive()
    weir.wait_log(re.escape(a.address), after=seen)


def a_log_that_nobody_reads_does_not_stop_the_service(t):
    """stderr and stdout are pipes that are never emptied: the lines are lost, the answers are not."""
    origin = t.origin(name='A')
    port = t.free_port()
    process = subprocess.Popen([os.path.join(t.bin, 'weir'), 'reverse', '--port', str(port), '--endpoint',
                                origin.address,
                                '--log-level', 'debug', '--access-log', '-'], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        def up():
            try:
                return t.get(port).status == 200
            except OSError:
                return False
        t.until(up, 10, 'weir answers')
        client = t.client(port)
        long = 'x' * 2000
        for _ in range(300):
            t.equal(client.ask(fields=['User-Agent: ' + long]).status, 200)
        process.terminate()
        t.equal(process.wait(t.s(15)), 0, 'exit code')
    finally:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()
