"""The admin server: health, metrics, status, limits and targets by the API, and who may ask for what."""
import json
import os
import re
import signal
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

import contract
from admin import Admin, Events, own_address
from client import Client, request
from harness import Weir, takes
from origin import answer


def _admin(t, *targets, **settings):
    weir = t.weir(*targets, admin=settings.pop('admin', 0), **settings)
    return weir, Admin(t, weir)


def _forward(t, **settings):
    arguments = ['forward', '--port', 0, '--admin', 0, '--connect-allow', '127.0.0.0/8:*', '--drain-timeout', 1]
    for key, value in settings.items():
        arguments += ['--' + key.replace('_', '-'), value]
    weir = Weir(t, arguments)
    return weir, Admin(t, weir)


# What is shown

def the_status_has_every_field_of_the_contract(t):
    origin = t.origin()
    weir, admin = _admin(t, f'{origin.address}*3', threshold=100, backlog=2)
    for _ in range(5):
        t.get(weir)
    status = admin.status()
    t.check(status['version'] and isinstance(status['uptime_s'], int), f'{status}')
    service = status['services'][0]
    wanted = {'name': 'reverse', 'mode': 'reverse', 'port': weir.port, 'threshold': 100, 'backlog': 2, 'waiting': 0,
              'started_total': 5, 'refused_total': 0, 'hosts': []}
    t.equal({key: service.get(key) for key in wanted}, wanted)
    target = service['targets'][0]
    wanted = {'address': origin.address, 'state': 'in', 'weight': 3, 'active': 0, 'requests_total': 5, 'failures_total': 0}
    t.equal({key: target.get(key) for key in wanted}, wanted)
    t.check('group' not in service, 'a group where there is none')


def a_forward_proxys_hosts_are_in_the_status(t):
    gate = threading.Event()
    t.cleanup(gate.set)
    origin = t.origin(reply=lambda request: gate.wait(30) and answer(b'ok'))
    weir, admin = _forward(t, max_connections=7, host_limits=f'127.0.0.1:{origin.port}=3')
    client = t.client(weir)
    client.send(request('GET', f'http://127.0.0.1:{origin.port}/', host=origin.address))
    origin.wait_requests(1)
    hosts = admin.service()['hosts']
    t.equal([(h['host'], h['active'], h['limit']) for h in hosts], [(origin.address, 1, 3)])
    t.equal(admin.metrics()[f'weir_host_connections{{service="forward",host="{origin.address}"}}'], 1.0)
    gate.set()
    t.equal(client.response().status, 200)


def of_many_hosts_a_hundred_are_named_and_the_rest_is_a_sum(t):
    """The sum's label is one that no client can make a host of."""
    weir, admin = _forward(t)
    with socket.create_server(('0.0.0.0', 0), backlog=256) as server:
        port = server.getsockname()[1]
        for number in range(1, 106):
            client = t.client(weir)
            client.send(f'CONNECT 127.0.0.{number}:{port} HTTP/1.1\r\nHost: 127.0.0.{number}:{port}\r\n\r\n'.encode())
            t.equal(client.head().status, 200)
        samples = {key: value for key, value in admin.metrics().items() if key.startswith('weir_host_connections{')}
        t.equal((len(samples), samples.get('weir_host_connections{service="forward",host="all others"}')), (101, 5.0))
        t.equal(len(admin.service()['hosts']), 105)


def the_target_that_is_shown_as_next_is_asked_next(t):
    origins = t.origins(3)
    weir, admin = _admin(t, f'{origins[0].address}*3', origins[1], f'{origins[2].address}*2')
    for turn in range(12):
        shown = [x['address'] for x in admin.service()['targets'] if x['next']]
        name = t.get(weir).body.decode()
        t.equal(shown, [next(o.address for o in origins if o.name == name)], f'turn {turn}')


def promtool_finds_nothing_to_say_about_the_metrics(t):
    promtool = t.tool('promtool')
    path = t.file('weir.ini', '[globals]\nadmin = 0\n[a "quoted\\" name]\nport = 0\nendpoint = 127.0.0.1:1\nthreshold = 1\n'
                  'unavailable_status = 503\nlimit.login = rate=1 path=/login*\n'
                  '[fwd]\nmode = forward\nport = 0\nmax_connections = 3\n[msg]\nmode = packet\nport = 0\n')
    weir = Weir(t, ['-c', path], services=3)
    admin = Admin(t, weir)
    for target in ('/', '/login', '/login'):
        t.get(weir, target)
    response = admin.ask('GET', '/metrics')
    t.equal(response.get('Content-Type'), 'text/plain; version=0.0.4; charset=utf-8')
    result = t.run_tool(promtool, 'check', 'metrics', stdin=response.body)
    t.check(result.code == 0 and not result.out and not result.err, f'{result}\n{response.body.decode()}')
    t.check(b'weir_requests_total{service="a \\"quoted\\\\\\" name",code="5xx"} 1' in response.body
            or b'code="5xx"}' in response.body, 'the name is escaped')
    t.check(b'limit="limit.login"' in response.body or b'limit="login"' in response.body, response.body.decode())


def metrics_and_status_count_what_was_done(t):
    origin = t.origin()
    weir, admin = _admin(t, origin, threshold=4)
    statuses = sorted(t.get(weir).status for _ in range(6))
    t.equal(statuses[:4], [200] * 4)
    refused = statuses.count(429)
    metrics, service = admin.metrics(), admin.service()
    t.equal(metrics['weir_requests_total{service="reverse",code="2xx"}'], 6.0 - refused)
    t.equal(metrics['weir_requests_total{service="reverse",code="4xx"}'], float(refused))
    t.equal(metrics['weir_starts_total{service="reverse"}'], 6.0 - refused)
    t.equal(service['refused_total'], refused)
    t.equal(service['refusals'], {'threshold': refused} if refused else {})
    t.equal(metrics['weir_request_duration_seconds_count{service="reverse"}'], 6.0)
    t.equal(metrics['weir_upstream_duration_seconds_count{service="reverse"}'], 6.0 - refused)
    t.equal(metrics['weir_request_duration_seconds_bucket{service="reverse",le="+Inf"}'], 6.0)
    t.equal(metrics[f'weir_target_requests_total{{service="reverse",target="{origin.address}"}}'], 6.0 - refused)
    t.equal(metrics['weir_limit_threshold{service="reverse"}'], 4.0)


def a_reload_that_is_refused_shows_in_the_metrics(t):
    origin = t.origin()
    good = f'[globals]\nadmin = 0\n[main]\nport = 0\nendpoint = {origin.address}\n'
    weir, path = t.weir_of_file(good)
    admin = Admin(t, weir)
    t.equal(admin.metrics()['weir_config_last_reload_successful'], 1.0)
    for text, value in ((good + 'nonsense = 1\n', 0.0), (good, 1.0)):
        lines = len(weir.log.lines)
        t.file('weir.ini', text)
        weir.signal(signal.SIGHUP)
        weir.wait_log(contract.RELOADED, after=lines)
        t.until(lambda v=value: admin.metrics()['weir_config_last_reload_successful'] == v, what=f'{value}')
    del path


def the_window_counts_starts_and_not_what_a_burst_lets_start(t):
    """threshold without available said "99 of 100 starts taken" where nothing had started."""
    weir, admin = _admin(t, t.origin(), threshold='100/h', burst=1)
    t.equal((admin.service()['in_window'], admin.service()['available']), (0, 1))
    t.equal(t.get(weir).status, 200)
    t.equal((admin.service()['in_window'], admin.service()['available']), (1, 0))


# Health

def readiness_follows_the_targets_and_health_does_not(t):
    origin = t.origin()
    weir, admin = _admin(t, origin, probe_interval='0.05')
    t.equal((admin.ask(target='/readyz').status, admin.ask(target='/healthz').status), (200, 200))
    origin.kill()
    t.get(weir)
    t.equal((admin.ask(target='/readyz').status, admin.ask(target='/healthz').status), (503, 200))
    origin.revive()
    t.until(lambda: admin.ask(target='/readyz').status == 200, what='the target is back')


def a_weir_that_drains_is_not_ready_and_still_answers(t):
    gate = threading.Event()
    t.cleanup(gate.set)
    origin = t.origin(reply=lambda request: gate.wait(30) and answer(b'late'))
    weir, admin = _admin(t, origin, drain_timeout=30)
    client = t.client(weir, seconds=30)
    client.send(request())
    origin.wait_requests(1)
    weir.signal(signal.SIGTERM)
    weir.wait_log(contract.DRAINING)
    t.until(lambda: admin.ask(target='/readyz').status == 503, what='not ready')
    t.equal(admin.ask(target='/healthz').status, 200)
    status = admin.status()
    t.equal((status['draining'], status['services'][0]['draining']), (True, True))
    t.equal(status['services'][0]['connections'], 1, 'who is still there')
    t.equal(admin.metrics()['weir_connections_open{service="reverse"}'], 1.0)
    gate.set()
    t.equal(client.response().body, b'late')
    t.equal(weir.wait_exit(30), 0)


# Limits

def a_threshold_is_changed_at_once_and_nothing_is_refilled(t):
    origin = t.origin()
    weir, admin = _admin(t, origin, threshold='5/m')
    t.equal([t.get(weir).status for _ in range(6)], [200] * 5 + [429])
    t.equal(admin.get('/api/limits')['services'][0], {'name': 'reverse', 'threshold': '5/m', 'default': 0, 'hosts': {}})
    t.equal(admin.put('/api/limits', {'threshold': '7/m'}).status, 200)
    t.equal(admin.get('/api/limits')['services'][0]['threshold'], '7/m')
    response = t.get(weir)
    t.equal(admin.service()['threshold'], 7)
    # The two that were added count as used when the latest start that was forgotten was: at most those two come free.
    statuses = [response.status] + [t.get(weir).status for _ in range(9)]
    t.check(statuses.count(200) <= 2, f'{statuses}')
    t.check('q=7' in t.get(weir).get('RateLimit-Policy'), 'the policy says what is in force')
    t.equal(admin.put('/api/limits', {'service': 'reverse', 'threshold': 0}).status, 200)
    t.equal([t.get(weir).status for _ in range(20)], [200] * 20)


def a_change_drops_no_connection_and_lets_those_who_wait_go(t):
    origin = t.origin()
    weir, admin = _admin(t, origin, threshold='1/m', backlog=180)
    t.equal(t.get(weir).status, 200)
    clients = [t.client(weir, seconds=30) for _ in range(3)]
    for client in clients:
        client.send(request())
    t.until(lambda: admin.service()['waiting'] == 3, what='three wait')
    t.equal(admin.put('/api/limits', {'threshold': 100}).status, 200)
    t.equal([client.response().status for client in clients], [200] * 3)
    t.equal([client.ask().status for client in clients], [200] * 3)


def caps_of_hosts_are_set_changed_and_removed(t):
    origin = t.origin()
    weir, admin = _forward(t, max_connections=5, host_limits='one.example=1')
    put = admin.put('/api/limits', {'default': 9, 'hosts': {'TWO.example.:443': 2, '[::1]:8080': 0, 'one.example': None}})
    t.equal(put.status, 200)
    wanted = {'name': 'forward', 'threshold': 0, 'default': 9, 'hosts': {'two.example': 2, '[::1]:8080': 0}}
    t.equal(json.loads(put.body), {'services': [wanted]})
    t.equal(admin.get('/api/limits'), {'services': [wanted]})
    t.equal(admin.put('/api/limits', {'hosts': {'nobody.example': None, 'two.example': 3}}).status, 200)
    t.equal(admin.get('/api/limits')['services'][0]['hosts'], {'two.example': 3, '[::1]:8080': 0})
    t.equal(admin.put('/api/limits', {'default': 0, 'hosts': {f'127.0.0.1:{origin.port}': 1}}).status, 200)
    gate, client = threading.Event(), t.client(weir)
    t.cleanup(gate.set)
    origin.reply = lambda request: gate.wait(30) and answer(b'ok')
    client.send(request('GET', f'http://{origin.address}/', host=origin.address))
    origin.wait_requests(1)
    second = t.get(weir, f'http://{origin.address}/', host=origin.address)
    t.equal(second.status, 500)
    t.equal(admin.service()['refusals'], {'max_connections': 1})
    gate.set()
    t.equal(client.response().status, 200)


def wrong_input_changes_nothing(t):
    weir, admin = _forward(t, threshold=50, max_connections=5, host_limits='one.example=1')
    before = admin.get('/api/limits')
    for body in (b'', b'nonsense', b'[]', b'3', b'{"threshold": 5', b'{"threshold": 5, "threshold": 6}', b'{}',
                 b'[' * 100000, b'{"a":' * 40 + b'1' + b'}' * 40, b'\xff\xfe',
                 {'threshold': -1}, {'threshold': 1000001}, {'threshold': 1.5}, {'threshold': None}, {'threshold': True},
                 {'threshold': []}, {'threshold': 'fast'}, {'threshold': '5/x'}, {'threshold': '9' * 300}, {'threshold': 10 ** 18},
                 {'threshold': 5, 'service': 'nobody'}, {'threshold': 5, 'service': 3}, {'threshold': 5, 'treshold': 5},
                 {'threshold': 5, 'service|threshold': 5}, {'threshold': 5, '': 5}, {'threshold': 5, 'service': None},
                 b'{"threshold": NaN}', b'{"threshold": 1e999}', b'{"threshold": 99999999999999999999}', b'{"threshold": "nan"}',
                 {'threshold': ''}, {'threshold': '-1/s'}, {'threshold': '5/s\x00'}, {'threshold': 5, 'hosts': {'a.example': 10 ** 18}},
                 {'threshold': 5, 'default': -1}, {'threshold': 5, 'default': 1000001}, {'threshold': 5, 'default': '7'},
                 {'threshold': 5, 'default': None}, {'threshold': 5, 'hosts': []}, {'threshold': 5, 'hosts': {'': 3}},
                 {'threshold': 5, 'hosts': {'a b': 3}}, {'threshold': 5, 'hosts': {'one.example': -1}},
                 {'threshold': 5, 'hosts': {'good.example': 2, 'bad.example': 1.5}},
                 {'threshold': 5, 'hosts': {'good.example': 2, 'good.example:0': 1}},
                 {'threshold': 5, 'hosts': {'a.example': 1, 'A.EXAMPLE': 2}}, {'service': 'forward'},
                 {'threshold': 5, 'hosts': {f'h{i}.example': 1 for i in range(4200)}}):
        response = admin.put('/api/limits', body)
        t.equal(response.status, 400, f'{str(body)[:80]}')
        t.check(json.loads(response.body)['error'], f'no reason: {response}')
        t.equal(admin.get('/api/limits'), before, f'{str(body)[:80]}')
    error = json.loads(admin.put('/api/limits', {'service': 'caf\u00e9 "x"\n'}).body)['error']
    t.equal(error, "there is no service 'caf\u00e9 'x'?'")
    del weir


def a_threshold_whose_line_would_be_too_long_is_refused(t):
    weir, admin = _admin(t, t.origin(), threshold=10, backlog=100)
    response = admin.put('/api/limits', {'threshold': 100000})
    t.check(response.status == 400 and b'threshold x backlog' in response.body, f'{response}')
    t.equal(admin.service()['threshold'], 10)
    response = admin.put('/api/limits', {'default': 5})
    t.equal(response.status, 400)
    del weir


def a_reload_puts_the_limits_of_the_file_back(t):
    origin = t.origin()
    weir, _ = t.weir_of_file(f'[globals]\nadmin = 0\n[main]\nport = 0\nendpoint = {origin.address}\nthreshold = 10\n')
    admin = Admin(t, weir)
    t.equal(admin.put('/api/limits', {'threshold': 20}).status, 200)
    t.equal(admin.service()['threshold'], 20)
    weir.signal(signal.SIGHUP)
    t.until(lambda: admin.service()['threshold'] == 10, what='the file rules again')


def with_several_services_one_must_be_named(t):
    origin = t.origin()
    weir, _ = t.weir_of_file(f'[globals]\nadmin = 0\n[a]\nport = 0\nendpoint = {origin.address}\n'
                             f'[b]\nport = 0\nendpoint = {origin.address}\n', services=2)
    admin = Admin(t, weir)
    t.equal(admin.put('/api/limits', {'threshold': 5}).status, 400)
    t.equal(admin.put('/api/limits', {'service': 'b', 'threshold': 5}).status, 200)
    t.equal([s['threshold'] for s in admin.get('/api/limits')['services']], [0, 5])


@takes(45)
def a_service_that_drains_does_not_stand_for_its_successor(t):
    """Taken out of the file and put back while a connection still drains: for a while there were two services of one name, and a change
    went to the one that ends."""
    gate = threading.Event()
    t.cleanup(gate.set)
    origin = t.origin(reply=lambda request: answer(b'ok') if request.target == '/' else gate.wait(30) and answer(b'late'))
    more = f'[more]\nport = 0\nendpoint = {origin.address}\n'
    both = f'[globals]\nadmin = 0\n{more}[main]\nport = 0\nendpoint = {origin.address}\nthreshold = 10\ndrain_timeout = 30\n'
    weir, _ = t.weir_of_file(both, services=2)
    admin = Admin(t, weir)
    ports = {s['name']: s['port'] for s in admin.status()['services']}
    client = Client(ports['main'], t.s(30))
    t.cleanup(client.close)
    client.send(request('GET', '/late'))
    origin.wait_requests(1)

    def reload(text):
        lines = len(weir.log.lines)
        t.file('weir.ini', text)
        weir.signal(signal.SIGHUP)
        weir.wait_log(contract.RELOADED, after=lines)
    reload(f'[globals]\nadmin = 0\n{more}')
    t.equal([(s['name'], s['draining'], s['connections']) for s in admin.status()['services']], [('more', False, 0), ('main', True, 1)])
    t.equal(admin.put('/api/limits', {'threshold': 30}).status, 200, 'there is one that stays')
    t.equal([(s['name'], s['threshold']) for s in admin.get('/api/limits')['services']], [('more', 30), ('main', 10)])
    reload(both)
    t.equal([(s['name'], s['draining']) for s in admin.status()['services']], [('more', False), ('main', False)])
    t.equal(admin.put('/api/limits', {'service': 'main', 'threshold': 20}).status, 200)
    t.equal([(s['name'], s['threshold']) for s in admin.get('/api/limits')['services']], [('more', 0), ('main', 20)])
    promtool = t.run_tool(t.tool('promtool'), 'check', 'metrics', stdin=admin.ask(target='/metrics').body)
    t.check(promtool.code == 0 and not promtool.err, f'{promtool}')
    gate.set()
    t.equal(client.response().body, b'late')


@takes(60)
def changes_and_reloads_and_lookers_at_once_leave_nobody_waiting(t):
    origin = t.origin()
    main = f'[globals]\nadmin = 0\n[main]\nport = 0\nendpoint = {origin.address}\nthreshold = 100\n'
    other = f'[other]\nport = 0\nendpoint = {origin.address}\ndrain_timeout = 1\n'
    weir, _ = t.weir_of_file(main)
    admin = Admin(t, weir)
    over, statuses = threading.Event(), []
    t.cleanup(over.set)

    def change():
        number = 0
        while not over.is_set():
            number += 1
            statuses.append(admin.put('/api/limits', {'service': 'main', 'threshold': 100 + number % 50}).status)
            statuses.append(admin.put('/api/targets', {'service': 'main', 'address': origin.address, 'state': ('drain', 'in')[number % 2]}).status)

    def look():
        while not over.is_set():
            for path in ('/api/status', '/api/view', '/metrics', '/readyz'):
                statuses.append(200 if admin.ask(target=path).status in (200, 503) else 0)

    def reload():
        for number in range(6):
            lines = len(weir.log.lines)
            t.file('weir.ini', main + (other if number % 2 == 0 else ''))
            weir.signal(signal.SIGHUP)
            weir.wait_log(contract.RELOADED, 20, after=lines)
        over.set()
    t.parallel([change, change, look, look, reload], 50)
    # 503: a reload that took longer than a change waits for its turn. That is long, but the machine may be slow.
    t.check(statuses.count(200) > 20 and set(statuses) <= {200, 503}, f'{set(statuses)}, {len(statuses)}')
    t.until(lambda: len(admin.status()['services']) == 1, 20, 'those that were taken out are gone')


# Targets

@takes(45)
def a_drained_target_gets_nothing_until_it_is_let_back_in(t):
    one, two = t.origins(2)
    text = f'[globals]\nadmin = 0\n[main]\nport = 0\nendpoint = {one.address}, {two.address}\nprobe_interval = 0.05\n'
    weir, _ = t.weir_of_file(text)
    admin = Admin(t, weir)
    t.equal(admin.put('/api/targets', {'address': one.address, 'state': 'drain'}).status, 200)
    t.equal([t.get(weir).body for _ in range(4)], [b'B'] * 4)
    t.equal(admin.target(one.address)['state'], 'drain')
    # It dies and lives again: no probe brings it back. The other one's way out and back shows that probes went on.
    for origin in (one, two):
        origin.kill()
    t.equal(t.get(weir).status, 500)
    for origin in (one, two):
        origin.revive()
    t.until(lambda: admin.target(two.address)['state'] == 'in', what='the other is back')
    lines = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=lines)
    t.equal([t.get(weir).body for _ in range(4)], [b'B'] * 4)
    t.equal(admin.target(one.address)['state'], 'drain')
    t.equal(admin.metrics()[f'weir_target_drained{{service="main",target="{one.address}"}}'], 1.0)
    t.equal(admin.put('/api/targets', {'address': one.address, 'state': 'in'}).status, 200)
    t.until(lambda: t.get(weir).body == b'A', what='it takes its turns again')


def a_request_under_way_ends_well_on_a_target_that_is_drained(t):
    gate = threading.Event()
    t.cleanup(gate.set)
    slow, other = t.origin(reply=lambda request: gate.wait(30) and answer(b'slow')), t.origin(name='other')
    weir, admin = _admin(t, slow, other)
    client = t.client(weir, seconds=30)
    client.send(request())
    slow.wait_requests(1)
    t.equal(admin.put('/api/targets', {'address': slow.address, 'state': 'drain'}).status, 200)
    t.equal(admin.target(slow.address)['active'], 1)
    t.equal([t.get(weir).body for _ in range(3)], [b'other'] * 3)
    gate.set()
    t.equal(client.response().body, b'slow')


def wrong_input_changes_no_target(t):
    origin = t.origin()
    weir, admin = _admin(t, origin)
    for body, status in (({}, 400), ({'address': origin.address}, 400), ({'address': origin.address, 'state': 'out'}, 400),
                         ({'address': '127.0.0.1:1', 'state': 'drain'}, 404), ({'address': 5, 'state': 'drain'}, 400),
                         ({'address': origin.address, 'state': 'drain', 'service': 'x'}, 400),
                         ({'address': origin.address, 'state': 'drain', 'more': 1}, 400), (b'{', 400)):
        t.equal(admin.put('/api/targets', body).status, status, f'{body}')
    t.equal(admin.target(origin.address)['state'], 'in')
    t.equal(t.get(weir).status, 200)


def servers_of_the_switch_are_shown_and_drained(t):
    weir = Weir(t, ['packet', '--port', 0, '--admin', 0])
    admin = Admin(t, weir)
    t.equal(admin.ask(target='/readyz').status, 200)
    ports = [t.free_port(), t.free_port()]
    for number, port in enumerate(ports):
        t.start_tool(os.path.join(t.bin, 'server_demo'), '-id', 100 + number, '-pp', 111, '-listen', port, '-revproc', weir.port)
    t.until(lambda: len(admin.service()['targets']) == 2, what='both have set themselves up')
    targets = admin.service()['targets']
    t.equal(sorted((x['id'], x['policy'], x['state']) for x in targets), [('100', '111', 'in'), ('101', '111', 'in')])
    drained = next(x for x in targets if x['id'] == '100')
    t.equal(admin.put('/api/targets', {'address': drained['address'], 'state': 'drain'}).status, 200)
    message = json.dumps({'type': 0, 'srcid': 1, 'privPoliId': 111, 'payload': 'hello'}).encode()
    for _ in range(3):
        with socket.create_connection(('127.0.0.1', weir.port), t.s(10)) as sock:
            sock.sendall(message)
            t.equal(json.loads(sock.makefile().readline())['srcid'] in ('101', 101), True)
    # Two set-ups, three messages; one is counted when its answer is on its way.
    t.until(lambda: admin.service()['times']['total']['count'] >= 5, what='all are counted')
    t.equal(admin.service()['times']['total']['count'], 5)
    admin.get('/api/view')
    with socket.create_connection(('127.0.0.1', weir.port), t.s(10)) as sock:
        sock.sendall(message)
        sock.makefile().readline()
    def records():
        return admin.get('/api/view')['services'][0]['requests']
    record = t.until(records, what='a message is shown')[0]
    t.equal((record['method'], record['uri'], record['target'], record['outcome']), ('MESSAGE', '111', next(x for x in targets if x['id'] == '101')['address'], 'ok'))


# Who may ask, and how

def requests_of_other_web_pages_are_refused(t):
    weir, admin = _admin(t, t.origin(), threshold=10)
    t.equal(admin.ask(target='/api/status', name='evil.example').status, 403)
    t.equal(admin.ask(target='/', name=f'evil.example:{admin.port}').status, 403)
    t.equal(admin.ask(target='/api/status', name=f'localhost:{admin.port}').status, 200)
    t.equal(admin.put('/api/limits', {'threshold': 1}, ['Origin: http://evil.example']).status, 403)
    t.equal(admin.put('/api/limits', {'threshold': 1}, ['Origin: null']).status, 403)
    t.equal(admin.ask('GET', '/api/status', ['Origin: http://evil.example']).status, 403)
    response = admin.ask('PUT', '/api/limits', ['Content-Type: text/plain', 'Origin: http://evil.example'], b'{"threshold": 1}')
    t.equal(response.status, 403)
    embedded = ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: no-cors', 'Sec-Fetch-Dest: image']
    t.equal(admin.ask('GET', '/api/live', embedded).status, 403)
    t.equal(admin.ask('GET', '/', ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: navigate']).status, 200, 'a link to us')
    t.equal(admin.ask('OPTIONS', '/api/limits', ['Origin: http://evil.example', 'Access-Control-Request-Method: PUT']).status, 403)
    t.equal(admin.service()['threshold'], 10)
    own = [f'Origin: http://127.0.0.1:{admin.port}']
    t.equal(admin.put('/api/limits', {'threshold': 11}, own).status, 200)
    t.check(response.get('Access-Control-Allow-Origin') is None, 'other pages are let in')
    del weir


def a_put_may_say_any_type_or_none(t):
    weir, admin = _admin(t, t.origin(), threshold=10)
    for threshold, fields in ((1, []), (2, ['Content-Type: application/x-www-form-urlencoded']), (3, ['Content-Type: text/plain'])):
        t.equal(admin.ask('PUT', '/api/limits', fields, json.dumps({'threshold': threshold}).encode()).status, 200, f'{fields}')
        t.equal(admin.service()['threshold'], threshold)
    del weir


def a_change_from_elsewhere_needs_the_token(t):
    address = own_address()
    if not address:
        t.skip('this machine has no address but loopback')
    secret = t.file('token', 'open sesame\n')
    origin = t.origin()
    weir, admin = _admin(t, origin, admin='0.0.0.0:0', admin_token_file=secret, threshold=10)
    t.equal(admin.ask(target='/api/status', host=address).status, 200)
    for fields, status in (([], 401), (['Authorization: Bearer wrong'], 401), (['Authorization: Basic b3BlbiBzZXNhbWU='], 401),
                           (['Authorization: Bearer open sesame'], 200)):
        t.equal(admin.put('/api/limits', {'threshold': 20}, fields, host=address).status, status, f'{fields}')
        t.equal(admin.service()['threshold'], 20 if status == 200 else 10)
    t.equal(admin.put('/api/limits', {'threshold': 30}).status, 200, 'from loopback')
    t.check('open sesame' not in weir.log.text(), 'the token is in the log')
    checked = t.run('reverse', '--endpoint', origin.address, '--admin-token', 'open sesame', '--check')
    t.check(checked.code == 0 and b'open sesame' not in checked.out and b'admin_token' in checked.out, f'{checked}')


def a_change_from_elsewhere_is_refused_where_no_token_is_set(t):
    address = own_address()
    if not address:
        t.skip('this machine has no address but loopback')
    weir, admin = _admin(t, t.origin(), admin='*:0', threshold=10)
    t.equal(admin.put('/api/limits', {'threshold': 20}, host=address).status, 403)
    t.equal(admin.put('/api/targets', {'address': 'x', 'state': 'in'}, host=address).status, 403)
    t.equal(admin.service()['threshold'], 10)
    del weir


def it_listens_on_loopback_unless_told_otherwise(t):
    address = own_address()
    if not address:
        t.skip('this machine has no address but loopback')
    weir, admin = _admin(t, t.origin())
    t.equal(admin.host, '127.0.0.1')
    try:
        socket.create_connection((address, admin.port), 5).close()
        t.check(False, 'it listens elsewhere')
    except ConnectionRefusedError:
        pass
    del weir


def it_can_listen_on_a_unix_socket(t):
    path = os.path.join(t.tmp, 'admin.sock')
    weir = t.weir(t.origin(), admin=f'unix:{path}')
    Admin(t, weir)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(t.s(10))
        sock.connect(path)
        sock.sendall(b'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        t.check(b' 200 ' in sock.recv(4096), 'healthz')
    weir.stop()
    t.check(not os.path.exists(path), 'the path is left behind')


def what_is_no_request_is_refused_with_a_reason(t):
    weir, admin = _admin(t, t.origin())
    head = f'Host: 127.0.0.1:{admin.port}\r\n'
    put = 'PUT /api/limits HTTP/1.1\r\n' + head + 'Content-Type: application/json\r\n'
    for text, status in ((f'GET /nothing HTTP/1.1\r\n{head}\r\n', 404), (f'GET /api/limits/ HTTP/1.1\r\n{head}\r\n', 404),
                         (f'DELETE /api/limits HTTP/1.1\r\n{head}\r\n', 405), (f'PUT / HTTP/1.1\r\n{head}Content-Length: 2\r\n'
                                                                             'Content-Type: application/json\r\n\r\n{}', 405),
                         (f'PUT /metrics HTTP/1.1\r\n{head}Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{{}}', 405),
                         (put + '\r\n', 411), (put + 'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 411),
                         (put + 'Content-Length: 999999\r\n\r\n', 413), (put + 'Content-Length: x\r\n\r\n', 400),
                         ('GET / HTTP/1.1\r\n\r\n', 400), ('nonsense\r\n\r\n', 400), ('GET / HTTP/3.0\r\n\r\n', 505),
                         (f'GET /{"x" * 40000} HTTP/1.1\r\n{head}\r\n', 431)):
        client = admin.client()
        client.send(text.encode())
        t.equal(client.response().status, status, text[:60])
    t.equal(admin.ask('HEAD', '/api/status').status, 200)
    t.equal(admin.ask('GET', '/api/status?pretty').status, 200)
    del weir


def a_connection_serves_many_requests_and_bodies_in_pieces(t):
    weir, admin = _admin(t, t.origin(), threshold=10)
    client = admin.client()
    for number in range(1, 6):
        t.equal(client.ask('GET', '/healthz', host='localhost').body, b'ok\n')
        body = json.dumps({'threshold': number}).encode()
        whole = request('PUT', '/api/limits', ['Content-Type: application/json'], body, host='localhost')
        for i in range(0, len(whole), 40):
            client.send(whole[i:i + 40])
        t.equal(client.response().status, 200)
        t.equal(admin.service()['threshold'], number)
    client.send(request('PUT', '/api/limits', ['Content-Type: application/json', 'Expect: 100-continue', 'Content-Length: 15'],
                        host='localhost'))
    t.equal(client.head().status, 100)
    client.send(b'{"threshold":9}')
    t.equal(client.response().status, 200)
    del weir


@takes(60)
def who_says_nothing_is_not_waited_for(t):
    weir, admin = _admin(t, t.origin())
    idlers = [admin.client(seconds=40) for _ in range(70)]      # more than may be served at once
    idlers[0].send(b'GET / HTTP/1.1\r\nHos')
    t.equal(idlers[0].response().status, 408)
    t.equal(admin.client(seconds=40).ask('GET', '/healthz', host='localhost').status, 200)
    del weir


@takes(60)
def four_hundred_watchers_keep_nobody_out(t):
    """Those that were too many kept their places for a quarter of a minute each, and those that did not read for as long as megabytes
    of frames could be buffered."""
    weir, admin = _admin(t, t.origin())
    began = len(os.listdir(f'/proc/{weir.pid}/fd'))
    watchers = []
    for _ in range(400):
        sock = socket.create_connection(('127.0.0.1', admin.port), t.s(30))
        t.cleanup(sock.close)
        sock.sendall(b'GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n')
        watchers.append(sock)
    t.equal(admin.client(seconds=30).ask('GET', '/healthz', host='localhost').status, 200)
    heads = [sock.recv(12) for sock in watchers]
    t.equal((heads.count(b'HTTP/1.1 200'), heads.count(b'HTTP/1.1 503')), (32, 368))
    for sock in watchers:
        sock.close()
    t.until(lambda: len(os.listdir(f'/proc/{weir.pid}/fd')) <= began + 1, 20, 'they are forgotten')


# The moving picture

def frames_come_while_somebody_looks_and_stop_with_the_drain(t):
    origin = t.origin()
    weir, admin = _admin(t, origin, threshold=100)
    events = Events(admin)
    t.equal((events.head.status, events.head.get('Content-Type')), (200, 'text/event-stream'))
    first = events.next()
    t.equal(first['services'][0]['started_total'], 0)
    t.get(weir, '/<script>alert(1)</script>')
    def seen():
        return [r for r in events.next()['services'][0]['requests'] if 'script' in r['uri']]
    record = t.until(seen, what='the request is shown')[0]
    t.equal((record['method'], record['status'], record['client'], record['target']), ('GET', 200, '127.0.0.1', origin.address))
    more = Events(admin)
    t.check(more.next()['at_ms'] >= first['at_ms'], 'a second reader')
    weir.signal(signal.SIGTERM)
    while events.next() is not None:
        pass
    t.equal(weir.wait_exit(20), 0)


def events_tell_in_words_what_has_changed(t):
    origin = t.origin()
    weir, admin = _admin(t, origin)
    origin.kill()
    t.get(weir)
    texts = [(e['level'], e['service'], e['text']) for e in admin.get('/api/view')['events']]
    t.check(any(level == 'warn' and service == 'reverse' and 'leaves the rotation' in text for level, service, text in texts), f'{texts}')


def nobody_looking_nothing_is_kept(t):
    weir, admin = _admin(t, t.origin())
    for _ in range(20):
        t.get(weir)

    def shown():
        return [r['uri'] for r in admin.get('/api/view')['services'][0]['requests']]
    t.equal(shown(), [])
    t.get(weir, '/seen')
    t.until(lambda: shown()[-1:] == ['/seen'], 10, 'what ended since somebody looks')
    t.check(len(shown()) <= 2, 'the last of the others may still have been about to end')


# Another address, by a reload

def the_address_and_the_token_follow_the_file(t):
    origin = t.origin()
    service = f'[main]\nport = 0\nendpoint = {origin.address}\n'
    first, second = t.free_port(), t.free_port()
    weir, _ = t.weir_of_file(f'[globals]\nadmin = 127.0.0.1:{first}\n{service}')
    admin = Admin(t, weir)
    t.equal(admin.port, first)

    def reload(globals_):
        lines = len(weir.log.lines)
        t.file('weir.ini', globals_ + service)
        weir.signal(signal.SIGHUP)
        weir.wait_log(contract.RELOADED + '|not all new', after=lines)
        return lines

    lines = reload(f'[globals]\nadmin = 127.0.0.1:{second}\n')
    moved = Admin(t, weir, after=lines)
    t.equal((moved.port, moved.ask(target='/healthz').status), (second, 200))
    try:
        admin.ask(target='/healthz')
        t.check(False, 'the old address still answers')
    except ConnectionRefusedError:
        pass
    for place in (f'0.0.0.0:{second}', second, f'127.0.0.1:{second}'):      # the same port of addresses that include each other
        lines = reload(f'[globals]\nadmin = {place}\n')
        t.check('not all new' not in ''.join(weir.log.lines[lines:]), f'{place}: {weir.log.lines[lines:]}')
        t.equal(Admin(t, weir, after=lines).ask(target='/healthz').status, 200)
    reload(f'[globals]\nadmin = 127.0.0.1:{second}\nadmin_token = secret\n')
    t.equal(moved.ask('GET', '/healthz', ['Authorization: Bearer wrong']).status, 401)
    t.equal(moved.ask('GET', '/healthz', ['Authorization: Bearer secret']).status, 200)
    taken = socket.socket()
    taken.bind(('127.0.0.1', first))
    taken.listen()
    lines = reload(f'[globals]\nadmin = 127.0.0.1:{first}\n')
    weir.wait_log('not all new settings are in force: admin: cannot listen', after=lines)
    t.equal(moved.ask(target='/healthz').status, 200)
    taken.close()
    reload('')
    try:
        moved.ask(target='/healthz')
        t.check(False, 'it still answers')
    except ConnectionRefusedError:
        pass
    t.equal(t.get(weir).status, 200)


# On the service's own port

def the_page_at_stats_path_can_be_looked_at_and_counts_for_no_limit(t):
    origin = t.origin()
    weir = t.weir(origin, stats_path='/stats', threshold='1/m', client_rate='1/m')
    for _ in range(5):
        page = t.get(weir, '/stats')
        t.equal(page.status, 200)
    t.check(page.get('Content-Type').startswith('text/html') and b'</html>' in page.body, f'{page}')
    t.check("default-src 'none'" in page.get('Content-Security-Policy'), f'{page}')
    status = json.loads(t.get(weir, '/stats/api/status').body)
    t.equal((status['services'][0]['name'], status['services'][0]['started_total']), ('reverse', 0))
    view = json.loads(t.get(weir, '/stats/api/view').body)
    t.check('requests' not in view['services'][0] and 'events' not in view, 'what others do is shown')
    t.equal(t.get(weir).status, 200)
    t.equal(len(origin.requests), 1)
    t.equal(t.get(weir, '/stats').status, 200)
    for target, status in (('/stats/nothing', 404), ('/stats/api/limits', 404)):
        t.equal(t.get(weir, target).status, status)
    t.equal(t.get(weir, '/stats', method='PUT', body=b'{}').status, 405)
    t.equal(t.get(weir, '/stats', method='HEAD').status, 200)
    t.equal(t.get(weir, '/statsx').status, 429)
    client = t.client(weir)
    t.equal([client.ask('GET', '/stats/api/status').status for _ in range(3)], [200] * 3)


def the_page_at_stats_path_obeys_allow_and_deny(t):
    weir = t.weir(t.origin(), stats_path='/stats', deny='127.0.0.0/8')
    t.equal(t.get(weir, '/stats').status, 403)
    t.equal(t.get(weir, '/stats/api/status').status, 403)


def a_forward_proxy_shows_its_own_page_only_to_who_asks_itself(t):
    origin = t.origin(name='host')
    weir, _ = _forward(t, stats_path='/stats')
    t.check(b'</html>' in t.get(weir, '/stats').body, 'its own page')
    t.equal(t.get(weir, f'http://{origin.address}/stats', host=origin.address).body, b'host')


# The dashboard

@takes(60)
def the_dashboards_queries_are_answered_by_a_prometheus_that_asks_weir(t):
    """Every expression of deploy/grafana/weir.json, asked of a real Prometheus: it must be understood, and name metrics that exist."""
    prometheus = t.tool('prometheus')
    with open(os.path.join(os.path.dirname(__file__), '../../deploy/grafana/weir.json'), encoding='utf-8') as file:
        dashboard = json.load(file)
    expressions = [target['expr'] for panel in dashboard['panels'] for target in panel['targets']]
    t.check(len(expressions) > 10, 'the dashboard has panels')
    weir, admin = _admin(t, t.origin(), threshold=1)
    for _ in range(3):
        t.get(weir)
    families = set(re.findall(r'^# TYPE (\S+)', admin.ask(target='/metrics').body.decode(), re.M))
    for expression in expressions:
        for name in re.findall(r'\b(?:weir|process)_[a-z_]+', expression):
            t.check(re.sub('_(bucket|sum|count)$', '', name) in families or name in families, f'{name} is not in /metrics')
    port = t.free_port()
    config = t.file('prometheus.yml', f'global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: weir, static_configs: '
                    f'[{{targets: ["127.0.0.1:{admin.port}"]}}]}}]\n')
    t.start_tool(prometheus, f'--config.file={config}', f'--storage.tsdb.path={t.tmp}/data', f'--web.listen-address=127.0.0.1:{port}')

    def query(expression):
        url = f'http://127.0.0.1:{port}/api/v1/query?' + urllib.parse.urlencode({'query': expression})
        try:
            with urllib.request.urlopen(url, timeout=t.s(10)) as answer_:
                return json.load(answer_)['data']['result']
        except (urllib.error.URLError, ConnectionError) as error:
            return [] if not isinstance(error, urllib.error.HTTPError) else error

    def has_scraped():
        result = query('weir_limit_threshold')
        return isinstance(result, list) and result
    t.until(has_scraped, seconds=30, what='the first scrape')
    for expression in expressions:
        expression = expression.replace('$__rate_interval', '1m').replace('$service', '.*')
        result = query(expression)
        t.check(isinstance(result, list), f'{expression}: {result}')


# A group

@takes(45)
def a_groups_nodes_are_in_the_status_of_each(t):
    origin = t.origin()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(('127.0.0.1', 0))
        group = f'127.255.255.255:{probe.getsockname()[1]}'
    # Each has a copy of the file's group, and an admin address.
    weirs = [t.weir(origin, admin=0, id=number, unicast=group, threshold=40, drain_timeout=1) for number in (3, 5)]
    admins = [Admin(t, weir) for weir in weirs]
    def group_of(admin):
        return admin.service().get('group', {})
    for admin, self in zip(admins, (3, 5)):
        t.until(lambda a=admin: group_of(a).get('master') == 3 and len(group_of(a)['nodes']) == 2
                and all(n['state'] == 'alive' for n in group_of(a)['nodes']), 20, 'both see both')
        shown = group_of(admin)
        t.equal((shown['address'], shown['self'], sorted(n['id'] for n in shown['nodes'])), (group, self, [3, 5]))
        t.check(all(isinstance(n['age_ms'], int) and isinstance(n['started_total'], int) for n in shown['nodes']), f'{shown}')
    metrics = [admin.metrics() for admin in admins]
    t.equal([m['weir_cluster_is_master{service="reverse"}'] for m in metrics], [1.0, 0.0])
    t.equal([m['weir_cluster_members{service="reverse"}'] for m in metrics], [2.0, 2.0])
    promtool = t.tool('promtool')
    result = t.run_tool(promtool, 'check', 'metrics', stdin=admins[0].ask(target='/metrics').body)
    t.check(result.code == 0 and not result.out and not result.err, f'{result}')
    # Another threshold, at every node: it is in force, and requests go on.
    for admin in admins:
        t.equal(admin.put('/api/limits', {'threshold': 60}).status, 200)
    t.until(lambda: t.get(weirs[1]).status == 200, 20, 'a request by the member')
    t.until(lambda: t.get(weirs[0]).status == 200, 20, 'a request by the master')
    t.check(all(admin.service()['threshold'] == 60 for admin in admins), 'both have the new threshold')
    weirs[0].stop()
    t.until(lambda: group_of(admins[1]).get('master') == 5, 20, 'the other is master')
