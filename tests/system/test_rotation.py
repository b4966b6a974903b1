"""Whose turn it is, who is out, and which requests may be sent twice (SPEC: Reverse)."""
import collections
import socket
import threading
import time

import contract
from client import request
from harness import Weir, takes, until
from origin import answer
from wire import Cut


def _names(t, weir, count, client=None, **more):
    """Who answered each of count requests on one connection."""
    client = client or t.client(weir)
    names = []
    for _ in range(count):
        response = client.ask(**more)
        t.equal(response.status, 200, 'status')
        names.append(response.body.decode())
    return names


def _reads_then(action):
    """A handler that takes a whole request and then does action(conn) instead of answering."""
    def handler(conn):
        if conn.request() is not None:
            action(conn)
    return handler


def _resets(conn):
    conn.abort()


# Turns

def requests_go_to_five_targets_in_strict_rotation(t):
    origins = t.origins(5)
    weir = t.weir(*origins)
    t.equal(_names(t, weir, 20), list('ABCDE') * 4)


def the_rotation_is_one_for_all_connections(t):
    origins = t.origins(5)
    weir = t.weir(*origins)
    t.equal([t.get(weir).body.decode() for _ in range(15)], list('ABCDE') * 3)


def many_clients_at_once_are_spread_evenly(t):
    origins = t.origins(4)
    weir = t.weir(*origins)
    t.parallel([lambda: _names(t, weir, 25) for _ in range(8)])
    t.equal([origin.whole_requests for origin in origins], [50] * 4)


def weights_are_kept_exactly_and_smoothly(t):
    a, b, c = t.origins(3)
    weir = t.weir(f'{a.address}*5', f'{b.address}*1', f'{c.address}*1')
    names = _names(t, weir, 21)
    for start in (0, 7, 14):
        t.equal(collections.Counter(names[start:start + 7]), {'A': 5, 'B': 1, 'C': 1}, 'one round')
    t.check('A' * 5 not in ''.join(names[:7]), f'the heavy target has all its turns at once: {names[:7]}')


def leastconn_prefers_the_target_with_fewer_active_requests(t):
    release = threading.Event()

    def slow(conn):
        if conn.request() is not None:
            release.wait(t.s(20))
            conn.send(answer(b'A'))
    busy, free = t.origin(handler=slow), t.origin(name='B')
    weir = t.weir(busy, free, balance='leastconn')
    client = t.client(weir)
    names = []
    first = threading.Thread(target=lambda: names.append(client.ask().body), daemon=True)
    first.start()
    busy.wait_requests(1)
    t.equal(_names(t, weir, 6), ['B'] * 6, 'while A is busy')
    release.set()
    first.join(t.s(10))
    t.equal(names, [b'A'])


def hash_by_uri_gives_one_target_to_one_uri_and_spreads_uris(t):
    origins = t.origins(4)
    weir = t.weir(*origins, balance='hash', hash_key='uri')
    client = t.client(weir)
    rounds = [[client.ask(target=f'/page/{i}').body for i in range(40)] for _ in range(3)]
    t.equal(rounds[1], rounds[0])
    t.equal(rounds[2], rounds[0])
    t.check(len(set(rounds[0])) == 4, f'forty URIs reach only {set(rounds[0])}')


def hash_by_uri_moves_only_the_uris_of_a_dead_target(t):
    origins = t.origins(4)
    weir = t.weir(*origins, balance='hash', hash_key='uri', probe_interval=30)
    client = t.client(weir)
    before = [client.ask(target=f'/page/{i}').body for i in range(40)]
    origins[2].kill()
    after = [client.ask(target=f'/page/{i}').body for i in range(40)]
    for uri, (old, new) in enumerate(zip(before, after)):
        t.check(new == old if old != b'C' else new != b'C', f'/page/{uri} went from {old} to {new}')


def hash_by_header_follows_the_header(t):
    origins = t.origins(4)
    weir = t.weir(*origins, balance='hash', hash_key='header:X-User')
    client = t.client(weir)
    rounds = [[client.ask(fields=[f'X-User: user{i}']).body for i in range(40)] for _ in range(2)]
    t.equal(rounds[1], rounds[0])
    t.check(len(set(rounds[0])) == 4, f'forty users reach only {set(rounds[0])}')


def hash_by_client_keeps_a_client_on_its_target(t):
    origins = t.origins(4)
    weir = t.weir(*origins, balance='hash')
    t.equal(len({t.get(weir, f'/{i}').body for i in range(12)}), 1, 'targets of one client')
    seen = {}
    for i in range(2, 40):
        sock = socket.create_connection(('127.0.0.1', weir.port), t.s(10), source_address=(f'127.0.0.{i}', 0))
        sock.sendall(request(fields=['Connection: close']))
        sock.settimeout(t.s(10))
        seen[i] = b''.join(iter(lambda sock=sock: sock.recv(4096), b''))[-1:]
        sock.close()
    t.check(len(set(seen.values())) > 1, f'clients from 38 addresses all reach {set(seen.values())}')


# Failing over

def a_dead_target_is_skipped_within_the_same_request(t):
    a, b = t.origins(2)
    dead = t.refused()
    weir = t.weir(a, dead, b, probe_interval=30)
    t.equal(_names(t, weir, 8), list('AB') * 4)


def a_target_that_resets_before_answering_is_skipped_for_a_get(t):
    bad, good = t.origin(handler=_reads_then(_resets), name='bad'), t.origin(name='good')
    weir = t.weir(bad, good, probe_interval=30)
    t.equal(_names(t, weir, 4), ['good'] * 4)
    t.equal(len(bad.requests), 1, 'requests at the bad target')


def a_target_that_closes_without_a_byte_is_skipped_for_a_get(t):
    bad, good = t.origin(handler=_reads_then(lambda conn: None), name='bad'), t.origin(name='good')
    weir = t.weir(bad, good, probe_interval=30)
    t.equal(_names(t, weir, 4), ['good'] * 4)
    t.equal(len(bad.requests), 1, 'requests at the bad target')


def half_a_response_head_counts_as_no_response(t):
    bad = t.origin(handler=_reads_then(lambda conn: conn.send(b'HTTP/1.1 200 OK\r\nContent-Le')), name='bad')
    good = t.origin(name='good')
    weir = t.weir(bad, good, probe_interval=30)
    t.equal(_names(t, weir, 4), ['good'] * 4)
    t.equal(len(bad.requests), 1, 'requests at the bad target')


def an_idempotent_request_without_a_body_goes_on_whatever_its_method(t):
    for method in ('GET', 'HEAD', 'OPTIONS', 'DELETE', 'PUT'):
        bad, good = t.origin(handler=_reads_then(_resets)), t.origin(name='good')
        weir = t.weir(bad, good, probe_interval=30)
        t.equal(t.get(weir, method=method).status, 200, method)
        t.equal([len(bad.requests), len(good.requests)], [1, 1], f'{method}: requests at each')


@takes(60)
def a_target_killed_under_load_is_never_seen_by_the_clients(t):
    origins = t.origins(5)
    weir = t.weir(*origins, probe_interval=0.2)
    statuses = collections.Counter()
    lock = threading.Lock()
    stop = threading.Event()

    def load():
        client = t.client(weir, seconds=20)
        mine = collections.Counter()
        while not stop.is_set():
            mine[client.ask().status] += 1
        with lock:
            statuses.update(mine)

    victim = origins[2]
    def drama():
        try:
            for _ in range(2):
                victim.wait_requests(len(victim.requests) + 50, 20)
                victim.kill()
                until(lambda so_far=origins[0].whole_requests: origins[0].whole_requests > so_far + 200, t.s(20),
                      'load')
                victim.revive()
                victim.wait_requests(len(victim.requests) + 50, 20)
        finally:
            stop.set()
    t.parallel([drama] + [load] * 16, seconds=50)
    t.equal(set(statuses), {200}, f'statuses {dict(statuses)}')


def a_target_comes_back_by_itself_when_it_listens_again(t):
    a, b = t.origins(2)
    weir = t.weir(a, b, probe_interval=0.2)
    t.equal(_names(t, weir, 4), list('ABAB'))
    a.kill()
    t.equal(_names(t, weir, 6), list('BBBBBB'))
    a.revive()
    client = t.client(weir)
    t.until(lambda: client.ask().body == b'A', 10, 'A in rotation again')
    t.check(_names(t, weir, 6) in (list('BABABA'), list('ABABAB')), 'strict rotation again')


def a_hung_target_is_left_after_response_timeout_for_a_get(t):
    hung, good = t.origin(handler=lambda conn: conn.hold()), t.origin(name='good')
    weir = t.weir(hung, good, response_timeout=0.5, probe_interval=30)
    t.equal(_names(t, weir, 4), ['good'] * 4)
    t.equal(len(hung.connections), 1, 'connections to the hung target')


def a_target_that_never_accepts_is_left_after_connect_timeout_even_for_a_post(t):
    full, good = t.full_backlog(), t.origin(name='good')
    weir = t.weir(full, good, connect_timeout=0.5, probe_interval=30)
    t.equal(t.get(weir, method='POST', body=b'once').status, 200)
    t.equal(_names(t, weir, 3), ['good'] * 3)
    t.equal(good.requests[0].body, b'once')


def a_hung_target_that_a_tcp_probe_brings_back_is_asked_less_and_less(t):
    hung, good = t.origin(handler=lambda conn: conn.hold()), t.origin(name='good')
    weir = t.weir(hung, good, response_timeout=0.1, probe_interval=0.1)
    client = t.client(weir)
    asked = [0]

    def ask():
        asked[0] += client.ask().body == b'good'
        return sum(1 for conn in hung.connections if conn.received_bytes) >= 5
    # After the n-th failure the next probe comes 2^(n-1) intervals later: 0.1 + 0.2 + 0.4 + 0.8 s to the fifth at
    # least.
    started = time.monotonic()
    t.until(ask, 20, 'five requests at the hung target')
    t.check(time.monotonic() - started >= 1.5, f'five tries in {time.monotonic() - started:.2f} s: no backing off')
    t.check(asked[0] > 5, 'good answers')


# What is not sent twice

def a_post_that_a_target_reset_after_reading_is_answered_502_and_not_sent_twice(t):
    bad, good = t.origin(handler=_reads_then(_resets)), t.origin(name='good')
    weir = t.weir(bad, good, probe_interval=30)
    t.equal(t.get(weir, method='POST', body=b'pay 5').status, 502)
    t.equal([len(bad.requests), len(good.requests)], [1, 0], 'requests at each')


def a_post_without_a_body_is_not_sent_twice_either(t):
    bad, good = t.origin(handler=_reads_then(_resets)), t.origin(name='good')
    weir = t.weir(bad, good, probe_interval=30)
    t.equal(t.get(weir, method='POST', body=b'').status, 502)
    t.equal([len(bad.requests), len(good.requests)], [1, 0], 'requests at each')


def a_post_to_a_silent_target_is_answered_504_and_not_sent_twice(t):
    hung, good = t.origin(handler=lambda conn: conn.hold()), t.origin(name='good')
    weir = t.weir(hung, good, response_timeout=0.5, probe_interval=30)
    t.equal(t.get(weir, method='POST', body=b'pay 5').status, 504)
    t.equal([len(hung.connections), len(good.requests)], [1, 0], 'connections to the silent one, requests at the other')


def a_put_whose_body_was_sent_is_answered_502_and_not_sent_twice(t):
    bad, good = t.origin(handler=_reads_then(_resets)), t.origin(name='good')
    weir = t.weir(bad, good, probe_interval=30)
    t.equal(t.get(weir, method='PUT', body=b'x' * 300000).status, 502)
    t.equal([len(bad.requests), len(good.requests)], [1, 0], 'requests at each')


def a_post_to_a_target_that_refuses_goes_to_the_next(t):
    good = t.origin(name='good')
    weir = t.weir(t.refused(), good, probe_interval=30)
    response = t.get(weir, method='POST', body=b'pay 5')
    t.equal([response.status, response.body], [200, b'good'])
    t.equal([r.body for r in good.requests], [b'pay 5'])


# Nobody is left

def all_out_is_answered_500_all_servers_is_off(t):
    weir = t.weir(t.refused(), t.refused())
    for _ in range(2):
        response = t.get(weir)
        t.equal([response.status, response.body], [500, contract.ALL_OUT_BODY])


def unavailable_status_replaces_the_500(t):
    weir = t.weir(t.refused(), unavailable_status=503)
    response = t.get(weir)
    t.equal([response.status, response.body], [503, contract.ALL_OUT_BODY])


def service_resumes_when_a_target_returns_after_all_were_off(t):
    a = t.origin(name='A')
    weir = t.weir(a, probe_interval=0.2)
    client = t.client(weir)
    t.equal(client.ask().status, 200)
    a.kill()
    t.equal(client.ask().status, 500)
    a.revive()
    fresh = t.client(weir)
    t.until(lambda: fresh.ask().status == 200, 10, 'A in rotation again')


def retries_0_gives_each_request_one_target(t):
    weir = t.weir(t.refused(), t.refused(), t.origin(name='A'), retries=0, probe_interval=30)
    statuses = [t.get(weir).status for _ in range(5)]
    t.check(all(status >= 500 for status in statuses[:2]) and statuses[2:] == [200] * 3, f'{statuses}')


def retries_1_gives_each_request_a_second_target_and_no_third(t):
    weir = t.weir(t.refused(), t.refused(), t.origin(name='A'), retries=1, probe_interval=30)
    statuses = [t.get(weir).status for _ in range(4)]
    t.check(statuses[0] >= 500 and statuses[1:] == [200] * 3, f'{statuses}')


def a_last_target_that_fails_is_an_outage_with_retries_0_too(t):
    weir = t.weir(t.refused(), retries=0, probe_interval=30)
    for _ in range(2):      # it is asked, and is out then
        response = t.get(weir)
        t.equal([response.status, response.body], [500, b'All servers is off'])


def a_get_to_a_silent_target_is_504_when_retries_are_used_up(t):
    """While another target is in: it might have answered, and was not to be asked."""
    hung, good = t.origin(handler=_reads_then(lambda conn: conn.rest())), t.origin(name='good')
    weir = t.weir(hung, good, retries=0, response_timeout=1, probe_interval=30)
    response = t.get(weir)
    t.equal(response.status, 504)
    t.check('the target was silent, and retries are used up' in response.get('proxy-status'), response.get('proxy-status'))
    t.equal(len(good.requests), 0)
    t.equal(t.get(weir).body, b'good')


def a_second_try_that_is_over_the_threshold_is_refused_as_such(t):
    """Each try that starts takes a slot: the first has taken the last one."""
    bad, good = t.origin(handler=_reads_then(lambda conn: conn.abort())), t.origin(name='good')
    weir = t.weir(bad, good, threshold='1/h', probe_interval=30)
    response = t.get(weir)
    t.equal(response.status, 429)
    t.check('over threshold' in response.get('proxy-status'), response.get('proxy-status'))
    t.check(int(response.get('retry-after')) >= 1, 'Retry-After')
    t.equal([bad.whole_requests, len(good.requests)], [1, 0])


# Probes

class _Health:
    """A target whose health can be switched; counts its probes."""

    def __init__(self, t, name, path='/health'):
        self.good, self.bad_probes, self.good_probes, self.path = True, 0, 0, path
        self.origin = t.origin(self._reply, name=name)

    def _reply(self, req):
        if req.target != self.path:
            return answer(self.origin.name.encode())
        if self.good:
            self.good_probes += 1
            return answer(b'fine')
        self.bad_probes += 1
        return answer(b'ill', 503, 'Service Unavailable')


def probe_path_takes_out_after_fall_bad_probes_and_brings_back_after_rise_good_ones(t):
    a, b = _Health(t, 'A'), t.origin(name='B')
    weir = t.weir(a.origin, b, probe_path='/health', probe_interval=0.1, probe_rise=3, probe_fall=2)
    t.until(lambda: a.good_probes >= 2, 10, 'probes of a target that is in')
    client = t.client(weir)
    t.equal(set(_names(t, weir, 4, client)), {'A', 'B'})
    a.good = False
    t.until(lambda: set(_names(t, weir, 3, client)) == {'B'}, 10, 'A out')
    t.check(a.bad_probes >= 2, f'out after {a.bad_probes} bad probes')
    probed = a.good_probes
    a.good = True
    t.until(lambda: 'A' in _names(t, weir, 2, client), 10, 'A in again')
    t.check(a.good_probes - probed >= 3, f'in after {a.good_probes - probed} good probes')


def one_bad_probe_less_than_fall_does_not_take_a_target_out(t):
    bad_left = [0]
    probes = [0]

    def reply(req):
        if req.target != '/health':
            return answer(b'A')
        probes[0] += 1
        if bad_left[0]:
            bad_left[0] -= 1
            return answer(b'ill', 503, 'Service Unavailable')
        return answer(b'fine')
    a, b = t.origin(reply), t.origin(name='B')
    weir = t.weir(a, b, probe_path='/health', probe_interval=0.1, probe_rise=1, probe_fall=3)
    client = t.client(weir)
    t.until(lambda: probes[0] >= 2, 10, 'probes')
    bad_left[0] = 2
    goal = probes[0] + 6
    missing = [0]

    def ask():
        missing[0] += 'A' not in _names(t, weir, 2, client)
        return probes[0] >= goal
    t.until(ask, 10, 'more probes')
    t.equal(missing[0], 0, 'rounds without A')


def the_first_probe_comes_within_probe_interval_of_the_start(t):
    probes = [0] * 12

    def started(number):
        def reply(req):
            probes[number] += req.target == '/health'
            return answer(b'fine')
        t.weir(t.origin(reply), probe_path='/health', probe_interval=0.1)
    t.parallel([lambda number=number: started(number) for number in range(len(probes))])
    t.until(lambda: all(probes), 3, 'a first probe from each')


def a_long_probe_path_is_asked_for_whole(t):
    path = '/health?' + 'x' * 2000
    good = []

    def reply(req):
        good.append(req.target == path)
        return answer(b'fine')
    a = t.origin(reply)
    weir = t.weir(a, probe_path=path, probe_interval=0.1)
    t.until(lambda: len(good) >= 3, 10, 'probes')
    t.check(all(good), 'the path of a probe')
    t.equal(t.get(weir).status, 200)


def probe_path_needs_2xx_or_3xx_and_a_connect_alone_is_not_enough(t):
    a, b = _Health(t, 'A'), t.origin(name='B')
    a.good = False
    weir = t.weir(a.origin, b, probe_path='/health', probe_interval=0.1)
    client = t.client(weir)
    t.until(lambda: a.bad_probes >= 3, 10, 'bad probes')
    t.equal(_names(t, weir, 4, client), ['B'] * 4)


def a_target_that_hangs_on_its_probe_goes_out(t):
    def handler(conn):
        while True:
            req = conn.request()
            if req is None or req.target == '/health':
                return conn.hold()
            conn.send(answer(b'A'))
    a, b = t.origin(handler=handler), t.origin(name='B')
    weir = t.weir(a, b, probe_path='/health', probe_interval=0.1, response_timeout=0.3, connect_timeout=0.3)
    client = t.client(weir)
    t.until(lambda: _names(t, weir, 4, client) == ['B'] * 4, 15, 'A out')


def a_tcp_probe_sends_no_request(t):
    a = t.origin(name='A')
    weir = t.weir(a, t.origin(name='B'), probe_interval=0.1)
    a.kill()
    client = t.client(weir)
    _names(t, weir, 4, client)
    a.revive()
    t.until(lambda: client.ask().body == b'A', 10, 'A in rotation again')
    t.check(all(r.target == '/' for r in a.requests), f'{a.targets()}')


# Names

def a_name_that_does_not_resolve_is_a_target_that_is_out(t):
    a = t.origin(name='A')
    weir = t.weir('nosuchhost.invalid:80', a, start_s=25)
    t.equal(_names(t, weir, 3), ['A'] * 3)


def only_names_that_do_not_resolve_is_all_servers_off(t):
    weir = t.weir('nosuchhost.invalid:80', start_s=25)
    response = t.get(weir)
    t.equal([response.status, response.body], [500, contract.ALL_OUT_BODY])


def names_that_nobody_has_asked_for_yet_are_not_said_not_to_resolve(t):
    """The probe thread looks at the targets while weir still starts; many names, so that it does so in the middle."""
    for _ in range(5):
        weir = t.weir(*(f'localhost:{port}' for port in range(1, 101)))
        t.check('does not resolve' not in weir.log.text(), weir.log.text())
        weir.stop()


def a_name_is_resolved_and_its_address_is_a_target(t):
    a = t.origin(name='A')
    weir = t.weir(f'localhost:{a.port}')
    t.equal(_names(t, weir, 3), ['A'] * 3)


def a_unix_socket_is_a_target(t):
    path = t.tmp + '/origin.sock'
    listener = socket.socket(socket.AF_UNIX)
    t.cleanup(listener.close)
    listener.bind(path)
    listener.listen(8)

    def serve():
        conn, _ = listener.accept()
        while conn.recv(65536):
            conn.sendall(answer(b'by unix'))
    threading.Thread(target=serve, daemon=True).start()
    weir = t.weir('unix:' + path)
    t.equal(_names(t, weir, 3), ['by unix'] * 3)


def weir_can_listen_on_a_unix_socket(t):
    a = t.origin(name='A')
    path = t.tmp + '/weir.sock'
    Weir(t, ['reverse', '--bind', 'unix:' + path, '--endpoint', a.address], services=0, start_s=0)

    def connect():
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            return None
        return sock
    sock = t.until(connect, 10, 'a listener on the unix socket')
    sock.settimeout(t.s(10))
    sock.sendall(request(fields=['Connection: close']))
    data = b''.join(iter(lambda: sock.recv(4096), b''))
    sock.close()
    t.check(data.startswith(b'HTTP/1.1 200 ') and data.endswith(b'A'), f'{data!r}')


def an_ipv6_target_in_brackets_is_reached(t):
    listener = socket.socket(socket.AF_INET6)
    t.cleanup(listener.close)
    listener.bind(('::1', 0))
    listener.listen(8)

    def serve():
        conn, _ = listener.accept()
        while conn.recv(65536):
            conn.sendall(answer(b'six'))
    threading.Thread(target=serve, daemon=True).start()
    weir = t.weir(f'[::1]:{listener.getsockname()[1]}')
    t.equal(_names(t, weir, 2), ['six'] * 2)


def weir_listens_on_ipv4_and_ipv6(t):
    weir = t.weir(t.origin(name='A'))
    for host in ('127.0.0.1', '::1'):
        client = t.client(weir, host=host)
        t.equal(client.ask().body, b'A', host)


# Connections that the target had just closed

def _closes_after_each_answer(closed):
    """Promises keep-alive and closes at once; says when the FIN is out."""
    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'once'))
            conn.close()
            closed.release()
    return handler


def a_pooled_connection_that_the_target_closed_is_never_seen_by_a_get_or_a_post(t):
    closed = threading.Semaphore(0)
    a = t.origin(handler=_closes_after_each_answer(closed))
    weir = t.weir(a)
    client = t.client(weir)
    for i in range(60):
        response = client.ask('POST', '/', body=b'x') if i % 2 else client.ask()
        t.equal([response.status, response.body], [200, b'once'], f'request {i}')
        t.check(closed.acquire(timeout=t.s(10)), 'the origin closes')
    t.equal(a.whole_requests, 60, 'requests')


def a_get_that_meets_a_close_on_a_reused_connection_is_repeated_on_a_fresh_one(t):
    """The race that no check can win: the target closes while the request is under way."""
    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'fresh'))
            if conn.request() is not None:
                conn.abort()
    a = t.origin(handler=handler)
    weir = t.weir(a, probe_interval=30)
    client = t.client(weir)
    for i in range(20):
        response = client.ask()
        t.equal([response.status, response.body], [200, b'fresh'], f'request {i}')


def a_post_that_meets_a_close_on_a_reused_connection_is_not_sent_twice(t):
    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'fresh'))
            if conn.request() is not None:
                conn.abort()
    a = t.origin(handler=handler)
    weir = t.weir(a, probe_interval=0.1)
    client = t.client(weir)
    t.equal(client.ask().status, 200)
    try:
        t.equal(client.ask('POST', body=b'pay').status, 502)
    except Cut:
        t.check(False, 'the client was cut without an answer')
    t.equal(len(a.requests), 2, 'requests')


def connections_to_a_target_are_reused(t):
    a = t.origin(name='A')
    weir = t.weir(a)
    client = t.client(weir)
    for _ in range(30):
        client.ask()
    t.equal([len(a.connections), len(a.requests)], [1, 30], 'connections and requests of one client')
    for _ in range(30):
        t.get(weir)
    # One client may come before the last one's connection is back in the pool; most find it there.
    t.check(len(a.connections) <= 10, f'{len(a.connections)} connections for 31 clients in turn')
