"""weir forward: host_rate, host_rates and host_backlog, measured at the host; and a name service that does not answer.

What a host sees is stamped by its kernel (SO_TIMESTAMPNS): no window of a second may hold more than the rate, however late
this machine's threads are. Everything else is judged by counts and by order."""
import json
import os
import signal
import socket
import threading

from client import request
from harness import takes
from origin import answer
from test_forward import LOOPBACK, _connect, _forward, _forward_with_hosts, _url


def _fullest(moments):
    """The most starts in any window of one second."""
    moments = sorted(moments)
    return max(sum(1 for other in moments if 0 <= other - first < 1) for first in moments)


def _rate(response, name):
    """The item of the RateLimit field with that name."""
    items = [item.strip() for item in (response.get('ratelimit') or '').split(',')]
    return next((item for item in items if item.startswith(f'"{name}"')), None)


def _line_count(weir):
    """Threads that wait or have waited: each has an eventfd; one more is the store's."""
    count = -1
    for number in os.listdir(f'/proc/{weir.pid}/fd'):
        try:
            count += 'eventfd' in os.readlink(f'/proc/{weir.pid}/fd/{number}')
        except OSError:
            pass
    return count


def over_the_rate_of_a_host_is_refused_as_over_the_threshold(t):
    origin, other = t.origin(), t.origin()
    weir = _forward(t, host_rate='2/h')
    first = t.get(weir, _url(origin))
    t.equal([first.status, _rate(first, 'host_rate')], [200, '"host_rate";r=1;t=0'])
    t.equal(first.get('ratelimit-policy'), '"host_rate";q=2;w=3600')
    t.equal(t.get(weir, _url(origin)).status, 200)
    refused = t.get(weir, _url(origin))
    t.equal([refused.status, json.loads(refused.body)['overLimit']['code']], [429, 429])
    t.check(1 <= int(refused.get('retry-after')) <= 3700, f'{refused.get("retry-after")}')
    t.equal(_rate(refused, 'host_rate'), f'"host_rate";r=0;t={refused.get("retry-after")}')
    t.check('over host_rate' in refused.get('proxy-status'), refused.get('proxy-status'))
    t.equal(len(origin.requests), 2)
    t.equal(t.get(weir, _url(other)).status, 200, 'another host has a rate of its own')


def reject_status_is_that_of_a_rate(t):
    origin = t.origin()
    weir = _forward(t, host_rate='1/h', reject_status=503)
    t.equal([t.get(weir, _url(origin)).status, t.get(weir, _url(origin)).status], [200, 503])


def every_spelling_of_a_host_has_one_rate(t):
    origin = t.origin()
    weir = _forward(t, host_rates=f'127.0.0.1:{origin.port}=3/h')
    statuses = [t.get(weir, f'http://{host}:{origin.port}/').status for host in ('127.0.0.1', '127.1', '0x7f.1', '2130706433')]
    t.equal(statuses, [200, 200, 200, 429])


def host_rates_go_before_host_rate(t):
    origins = [t.origin() for _ in range(3)]
    weir = _forward(t, host_rate='1/h', host_rates=f'127.0.0.1:{origins[0].port}=3/h, 127.0.0.1:{origins[1].port}=0')
    got = [[t.get(weir, _url(origin)).status for _ in range(5)] for origin in origins]
    t.equal(got, [[200] * 3 + [429] * 2, [200] * 5, [200] + [429] * 4])


@takes(60)
def a_burst_over_host_rate_waits_and_the_host_never_sees_too_much(t):
    origin = t.origin(stamped=True)
    weir = _forward(t, host_rate=5, host_backlog=2)
    statuses = t.parallel([lambda: t.get(weir, _url(origin)).status for _ in range(40)], 40)
    served = statuses.count(200)
    t.equal(set(statuses), {200, 429})
    t.check(served >= 15, f'5 at once and 10 in line, but {served} were served')
    t.equal(served, len(origin.requests))
    t.check(_fullest([req.arrived for req in origin.requests]) <= 5, 'more than 5 in a second')


def _listener(t):
    """A host that takes connections and says nothing: its port, and those it has."""
    listener = socket.create_server(('127.0.0.1', 0), backlog=512)
    held = []

    def run():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            held.append(sock)
    threading.Thread(target=run, daemon=True).start()
    t.cleanup(lambda: [listener.shutdown(socket.SHUT_RDWR), listener.close(), [sock.close() for sock in held]])
    return listener.getsockname()[1], held


@takes(60)
def a_connect_counts_as_one(t):
    port, held = _listener(t)
    weir = _forward(t, host_rate='3/h')
    statuses = [_connect(t, weir, f'127.0.0.1:{port}')[1] for _ in range(5)]
    t.equal(statuses, [200, 200, 200, 429, 429])
    t.until(lambda: len(held) == 3, 10, 'three connections')
    weir = _forward(t, host_rate='2/h')
    refused = t.refused()
    t.equal([_connect(t, weir, f'127.0.0.1:{refused.port}')[1] for _ in range(4)], [502, 502, 429, 429],
            'one that the host refused had been sent to it')


def a_plain_request_that_never_left_gives_its_turn_back(t):
    weir, refused = _forward(t, host_rate='1/h'), t.refused()
    t.equal([t.get(weir, f'http://127.0.0.1:{refused.port}/').status for _ in range(3)], [502, 502, 502])


def one_that_is_over_a_cap_gives_its_turn_back(t):
    held = threading.Event()

    def handler(conn):
        if conn.request() is not None:
            held.wait(30)
            conn.send(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    origin = t.origin(handler=handler)
    t.cleanup(held.set)
    weir = _forward(t, host_rate='2/h', max_connections=1)
    slow = t.client(weir)
    slow.send(request(target=_url(origin)))
    origin.wait_requests(1)
    t.equal([t.get(weir, _url(origin)).status for _ in range(3)], [500, 500, 500], 'over the cap')
    held.set()
    t.equal(slow.response().status, 200)
    t.equal([t.get(weir, _url(origin)).status for _ in range(2)], [200, 429])


def each_try_that_starts_takes_a_turn(t):
    def handler(conn):
        first = conn.request()
        if first is not None:
            conn.send(answer(b'once'))
            conn.request()      # and closes without a word: the request goes to a fresh connection
    origin = t.origin(handler=handler)
    weir = _forward(t, host_rate='3/h', max_connections=1)
    client = t.client(weir)
    t.equal([client.ask(target=_url(origin)).status for _ in range(2)], [200, 200])
    t.equal(len(origin.requests), 3, 'the second was sent twice')
    t.equal(client.ask(target=_url(origin)).status, 429)
    weir = _forward(t, host_rate='2/h', max_connections=1)
    client = t.client(weir)
    t.equal([client.ask(target=_url(origin)).status for _ in range(2)], [200, 429], 'no turn for the second try')


@takes(60)
def a_client_that_hangs_up_gives_its_place_in_line_up(t):
    origin = t.origin(stamped=True)
    weir = _forward(t, host_rate='0.5/s', host_backlog=4)
    t.equal(t.get(weir, _url(origin, '/first')).status, 200)
    before = _line_count(weir)
    gone, stays = t.client(weir), t.client(weir, seconds=30)
    gone.send(request(target=_url(origin, '/gone')))
    t.until(lambda: _line_count(weir) == before + 1, 10, 'the first one waits')
    stays.send(request(target=_url(origin, '/stays')))
    t.until(lambda: _line_count(weir) == before + 2, 10, 'the second one waits')
    third = t.get(weir, _url(origin, '/third'))
    t.equal(third.status, 429, 'two may wait')
    gone.abort()
    t.equal(stays.response().status, 200)
    t.equal(origin.targets(), ['/first', '/stays'])


def _reloadable(t, text):
    head = f'[f]\nmode = forward\nport = 0\nconnect_allow = {LOOPBACK}\ndrain_timeout = 1\n'
    weir, path = t.weir_of_file(head + text)

    def change(new):
        seen = len(weir.log.lines)
        t.file('weir.ini', head.replace('port = 0', f'port = {weir.port}') + new)
        weir.signal(signal.SIGHUP)
        weir.wait_log('settings (are|stay) in force', after=seen)
    # From now on its port is written down: a reload would else ask for another one.
    change(text)
    return weir, change


def a_reload_keeps_the_window(t):
    origin = t.origin()
    name = f'127.0.0.1:{origin.port}'
    weir, change = _reloadable(t, 'host_rate = 3/h\n')
    ask = lambda: t.get(weir, _url(origin)).status
    t.equal([ask(), ask()], [200, 200])
    change('host_rate = 3/h\n')
    t.equal([ask(), ask()], [200, 429], 'the same rate: what is left of it')
    change(f'host_rate = 100\nhost_rates = {name}=5/h\n')
    t.equal([ask() for _ in range(3)], [200, 200, 429], 'two more than before, not five')
    change('')
    t.equal([ask(), ask()], [200, 200], 'no limit')
    change('host_rate = 3/h\n')
    t.equal(ask(), 429, 'taken away and brought back: not refilled')


LARGE = '1000000/h'     # four hosts with such a rate are as many as there is room for


def a_host_that_there_is_no_room_for_is_told_to_come_again(t):
    origins = [t.origin() for _ in range(5)]
    weir = _forward(t, host_rate=LARGE)
    t.equal([t.get(weir, _url(origin)).status for origin in origins[:4]], [200] * 4)
    refused = t.get(weir, _url(origins[4]))
    t.equal([refused.status, refused.get('retry-after')], [503, '1'])
    t.check('too many hosts to keep the rate of' in refused.get('proxy-status'), refused.get('proxy-status'))
    t.equal(_connect(t, weir, origins[4].address)[1], 503)
    t.equal(len(origins[4].connections), 0)
    t.equal([t.get(weir, _url(origin)).status for origin in origins[:4]], [200] * 4, 'those that are known')


def _listeners(weir):
    """How many sockets weir listens on."""
    listening = set()
    for table in ('tcp', 'tcp6'):
        with open(f'/proc/{weir.pid}/net/{table}', encoding='ascii') as file:
            listening |= {line.split()[9] for line in list(file)[1:] if line.split()[3] == '0A'}
    found = 0
    for number in os.listdir(f'/proc/{weir.pid}/fd'):
        try:
            found += os.readlink(f'/proc/{weir.pid}/fd/{number}')[len('socket:['):-1] in listening
        except OSError:
            pass
    return found


def rates_that_there_is_no_room_for_are_refused_whole(t):
    """With all else that the same settings say: the address to listen on has been opened by then."""
    origins = [t.origin() for _ in range(5)]
    weir, change = _reloadable(t, 'host_rate = 1/h\n')
    ask = lambda: [t.get(weir, _url(origin)).status for origin in origins]
    t.equal(ask(), [200] * 5)
    listeners = _listeners(weir)
    change(f'bind = 127.0.0.1\nhost_rate = {LARGE}\n')
    weir.wait_log('error not all new settings are in force: .* host_rate, host_rates: no memory or room for such rates')
    t.equal(_listeners(weir), listeners, 'sockets that listen')
    t.equal(ask(), [429] * 5, 'the rate of before')
    seen = len(weir.log.lines)
    change('bind = 127.0.0.1\nhost_rate = 2/h\n')
    weir.wait_log('settings are in force', after=seen)
    t.equal([ask(), ask()], [[200] * 5, [429] * 5], 'one more than before')


@takes(60)
def those_that_wait_are_let_in_when_a_reload_takes_the_limit_away(t):
    origin = t.origin()
    weir, change = _reloadable(t, 'host_rate = 1/h\nhost_backlog = 86400\n')
    t.equal(t.get(weir, _url(origin)).status, 200)
    before = _line_count(weir)
    waiting = [t.client(weir) for _ in range(3)]
    for client in waiting:
        client.send(request(target=_url(origin)))
    t.until(lambda: _line_count(weir) == before + 3, 10, 'three wait')
    change('')
    t.equal([client.response().status for client in waiting], [200] * 3)


@takes(60)
def it_holds_beside_a_cap_and_a_threshold(t):
    origin = t.origin(stamped=True)
    weir = _forward(t, host_rate=6, host_backlog=3, max_connections=2, cap_backlog=10, threshold=100, backlog=1)
    statuses = t.parallel([lambda: t.get(weir, _url(origin)).status for _ in range(16)], 40)
    t.equal(statuses, [200] * 16)
    t.check(_fullest([req.arrived for req in origin.requests]) <= 6, 'more than 6 in a second')


def an_exempt_client_waits_but_is_not_refused(t):
    origin = t.origin(stamped=True)
    weir = _forward(t, host_rate='2/s', exempt='127.0.0.0/8')
    t.equal(t.parallel([lambda: t.get(weir, _url(origin)).status for _ in range(5)]), [200] * 5)
    t.check(_fullest([req.arrived for req in origin.requests]) <= 2, 'more than 2 in a second')


def _asking_nobody(t, **settings):
    """A forward proxy whose name service never answers, and that service's socket."""
    unshare, real, folder = t.tool('unshare'), t.bin, os.path.join(t.tmp, 'bin')
    if t.run_tool(unshare, '-m', 'true').code != 0:
        t.skip('no mount namespaces here')
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t.cleanup(silent.close)
    for last in range(53, 63):      # the port is given, so an address has to be found
        try:
            silent.bind((f'127.0.0.{last}', 53))
            break
        except OSError:
            continue
    else:
        t.skip('port 53 can not be had')
    os.makedirs(folder)
    resolv = t.file('resolv.conf', f'nameserver {silent.getsockname()[0]}\noptions timeout:30 attempts:5\n')
    nsswitch = t.file('nsswitch.conf', 'hosts: files dns\n')
    script = t.file('bin/weir', f"""#!/bin/sh
exec {unshare} -m sh -c 'mount --bind {resolv} /etc/resolv.conf && touch /etc/nsswitch.conf &&
	mount --bind {nsswitch} /etc/nsswitch.conf && exec {real}/weir "$@"' weir "$@"
""")
    os.chmod(script, 0o755)
    t.bin = folder
    weir = _forward(t, **settings)
    t.bin = real
    return weir, silent


@takes(60)
def a_name_service_that_hangs_holds_nobody_longer_than_connect_timeout(t):
    weir, silent = _asking_nobody(t, connect_timeout=0.5, drain_timeout=1)
    answers = t.parallel([lambda: t.get(weir, 'http://hangs.test/') for _ in range(4)], 20)
    t.equal([response.status for response in answers], [504] * 4)
    t.check('dns_timeout' in answers[0].get('proxy-status'), answers[0].get('proxy-status'))
    t.check(silent.recv(512, socket.MSG_DONTWAIT), 'the name service was asked')
    weir.stop()     # and it does not wait for the name service either


@takes(60)
def a_name_service_that_hangs_holds_no_drain(t):
    weir, silent = _asking_nobody(t, connect_timeout=40, drain_timeout=0.5)
    client = t.client(weir)
    client.send(request('GET', 'http://hangs.test/', host='hangs.test'))
    silent.settimeout(20)
    silent.recv(512)
    weir.signal(signal.SIGTERM)
    t.equal(weir.wait_exit(20), 0, 'half of connect_timeout is long enough')
