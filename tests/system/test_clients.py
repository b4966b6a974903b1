"""How much each client may: client_rate, client_burst, client_block, client_key, limit.NAME and what they tell the
client (SPEC: Settings). What rules see in a request, and whose word about an address counts, stands in test_access.py.

Other clients than 127.0.0.1 are played through X-Forwarded-For, as a trusted proxy would. Rates of so many an hour
stand for "nothing comes back while the test runs".
"""
import json
import os
import re
import signal
import time

import contract
from client import request
from harness import takes
from origin import answer

ONE, TWO = '203.0.113.1', '203.0.113.2'
POLICY = re.compile(r'"((?:[^"\\]|\\.)*)";q=(\d+);w=(\d+)')
LIMIT = re.compile(r'"((?:[^"\\]|\\.)*)";r=(\d+);t=(\d+)')


def _as(address):
    return [f'X-Forwarded-For: {address}']


def _statuses(client, count, target='/', method='GET', fields=()):
    return [client.ask(method, target, fields=list(fields)).status for _ in range(count)]


def _items(pattern, value):
    """{name: (number, number)} of a list of strings with two parameters; the whole value must be one."""
    items = {}
    for item in re.split(r',\s*(?=")', value or ''):
        match = pattern.fullmatch(item)
        assert match, f'{value!r} is not a list of {pattern.pattern}'
        assert match[1] not in items, f'{match[1]} twice in {value!r}'
        items[match[1]] = int(match[2]), int(match[3])
    return items


# Rate, burst, block

def a_client_has_its_burst_and_then_its_rate(t):
    origin = t.origin()
    weir = t.weir(origin, client_rate=2, client_burst=4)
    client = t.client(weir)
    started = time.monotonic()
    responses = [client.ask() for _ in range(6)]
    if time.monotonic() - started < 0.4:            # else one came back meanwhile
        t.equal([response.status for response in responses], [200, 200, 200, 200, 429, 429])
        t.equal(len(origin.requests), 4, 'a refused request goes nowhere')
    refused = responses[-1]
    t.equal(refused.status, 429)
    t.equal(json.loads(refused.body)['overLimit']['code'], 429)
    t.check(refused.fields.has('proxy-status'), f'{refused}')
    t.equal(refused.get('retry-after'), '1')
    t.equal(client.silent(1), True)
    t.equal(client.ask().status, 200, 'who comes back as told')


def without_a_burst_it_is_the_rate_and_at_least_one(t):
    weir = t.weir(t.origin(), client_rate='3/h')
    t.equal(_statuses(t.client(weir), 5), [200, 200, 200, 429, 429])
    weir = t.weir(t.origin(), client_rate=0.1)
    client = t.client(weir)
    t.equal(client.ask().status, 200)
    response = client.ask()
    t.equal(response.status, 429)
    t.check(9 <= int(response.get('retry-after')) <= 10, f'Retry-After: {response.get("retry-after")}')


def one_client_over_its_rate_does_not_disturb_another(t):
    weir = t.weir(t.origin(), client_rate='2/h', trust_forwarded='127.0.0.1')
    client = t.client(weir)
    t.equal(_statuses(client, 20, fields=_as(ONE)), [200] * 2 + [429] * 18)
    t.equal(_statuses(client, 3, fields=_as(TWO)), [200, 200, 429])


def a_rate_is_the_clients_not_the_connections(t):
    weir = t.weir(t.origin(), client_rate='3/h')
    t.equal([t.get(weir).status for _ in range(5)], [200, 200, 200, 429, 429])


def a_rate_obeyed_is_never_refused(t):
    weir = t.weir(t.origin(), client_rate=20, client_burst=1)
    client = t.client(weir)
    for number in range(30):
        t.equal(client.ask().status, 200, f'request {number}')
        client.silent(0.052)


def reject_status_is_for_clients_too(t):
    weir = t.weir(t.origin(), client_rate='1/h', reject_status=503)
    t.equal(_statuses(t.client(weir), 2), [200, 503])


@takes(40)
def a_block_lasts_from_going_over_and_refused_requests_do_not_prolong_it(t):
    weir = t.weir(t.origin(), client_rate=50, client_burst=1, client_block=2)
    client = t.client(weir)
    t.equal(client.ask().status, 200)
    refused = client.ask()
    for _ in range(100):
        if refused.status == 200:                   # 20 ms were over on a slow machine
            refused = client.ask()
    began = time.monotonic()
    t.equal(refused.get('retry-after'), '2')
    while client.ask().status == 429:
        client.silent(0.02)
        assert time.monotonic() - began < t.s(20), 'still blocked'
    lasted = time.monotonic() - began
    t.check(1.8 <= lasted <= t.s(2.8), f'blocked for {lasted:.2f} s')


# Rules

def a_request_that_one_rule_refuses_takes_nothing_from_the_others(t):
    weir = t.weir(t.origin(), client_rate='10/h',
                  extra=['--limit.tight', 'rate=2/h burst=2 path=/tight*', '--limit.all', 'rate=6/h burst=6'])
    client = t.client(weir)
    t.equal(_statuses(client, 12, '/tight/x'), [200] * 2 + [429] * 10)
    t.equal(_statuses(client, 6), [200] * 4 + [429] * 2, 'what is left of all')


def a_refused_client_takes_nothing_from_the_threshold(t):
    weir = t.weir(t.origin(), threshold='4/m', client_rate='1/h', trust_forwarded='127.0.0.1')
    client = t.client(weir)
    t.equal(_statuses(client, 9, fields=_as(ONE)), [200] + [429] * 8)
    t.equal([client.ask(fields=_as(f'203.0.113.{i}')).status for i in range(10, 15)], [200] * 3 + [429] * 2)


def each_rule_has_its_own_burst_and_its_own_key(t):
    weir = t.weir(t.origin(), trust_forwarded='127.0.0.1',
                  extra=['--limit.post', 'rate=1/h burst=3 key=client method=POST',
                         '--limit.page', 'rate=1/h burst=2 key=client+path path=/p/*'])
    client = t.client(weir)
    t.equal([client.ask('POST', '/', body=b'').status for _ in range(4)], [200] * 3 + [429])
    t.equal(_statuses(client, 3), [200] * 3, 'GET is not limited')
    t.equal(_statuses(client, 3, '/p/a'), [200, 200, 429])
    t.equal(_statuses(client, 3, '/p/b'), [200, 200, 429], 'another path')
    t.equal(_statuses(client, 3, '/p/a', fields=_as(TWO)), [200, 200, 429], 'another client')


def a_shadow_logs_what_it_would_have_refused(t):
    weir = t.weir(t.origin(), extra=['--limit.strict', 'rate=1/h burst=2 mode=shadow'])
    after = len(weir.log.lines)
    t.equal(_statuses(t.client(weir), 6), [200] * 6)
    line = weir.wait_log(r'.*\bstrict\b.*', after=after)[0]
    t.check('shadow' in line or 'would' in line, f'the log says {line!r}')


def a_shadow_beside_a_rule_that_refuses_is_not_charged(t):
    weir = t.weir(t.origin(), extra=['--limit.real', 'rate=1/h burst=1 path=/real',
                                     '--limit.watch', 'rate=1/h burst=3 mode=shadow'])
    client = t.client(weir)
    after = len(weir.log.lines)
    t.equal(_statuses(client, 6, '/real'), [200] + [429] * 5)
    t.equal(_statuses(client, 2), [200] * 2)
    t.check(not any(re.search(r'\bwatch\b', line) for line in weir.log.lines[after:]), 'three are not over three')
    t.equal(client.ask().status, 200)
    weir.wait_log(r'\bwatch\b', after=after)


def those_that_are_exempt_are_counted(t):
    weir = t.weir(t.origin(), client_rate='3/h', client_key='header:X-Api-Key', trust_forwarded='127.0.0.1',
                  exempt='header:X-Internal=yes')
    client = t.client(weir)
    key = ['X-Api-Key: one']
    t.equal(_statuses(client, 2, fields=key + ['X-Internal: yes']), [200] * 2)
    t.equal(_statuses(client, 3, fields=key), [200, 429, 429], 'one of three is left')
    t.equal(_statuses(client, 3, fields=key + ['X-Internal: yes']), [200] * 3)


# What the client is told

def the_draft_fields_stand_on_refusals_and_relayed_answers(t):
    weir = t.weir(t.origin(), client_rate='3/h', ratelimit_headers='draft',
                  extra=['--limit.login', 'rate=2/m burst=2 path=/login'])
    client = t.client(weir)
    for left in (2, 1, 0):
        response = client.ask()
        t.equal(response.status, 200)
        t.equal(_items(POLICY, response.get('ratelimit-policy')), {'client': (3, 3600)})
        items = _items(LIMIT, response.get('ratelimit'))
        t.equal(items['client'][0], left, f'{response}')
        t.check(0 < items['client'][1] <= 3600, f'{response}')
        t.equal(response.get('ratelimit-limit'), None)
    refused = client.ask()
    t.equal(refused.status, 429)
    t.equal(_items(POLICY, refused.get('ratelimit-policy')), {'client': (3, 3600)})
    left, again = _items(LIMIT, refused.get('ratelimit'))['client']
    t.equal(left, 0)
    t.check(abs(again - int(refused.get('retry-after'))) <= 1, f'{refused}')


def several_limits_are_one_list(t):
    weir = t.weir(t.origin(), client_rate='5/h', ratelimit_headers='draft', threshold=100,
                  extra=['--limit.login', 'rate=2/m burst=2 path=/login'])
    response = t.get(weir, '/login')
    policies = _items(POLICY, response.get('ratelimit-policy'))
    t.equal(policies.get('client'), (5, 3600))
    t.equal(policies.get('login'), (2, 60))
    t.equal(policies.get('threshold'), (100, 1))
    limits = _items(LIMIT, response.get('ratelimit'))
    t.equal((limits['client'][0], limits['login'][0]), (4, 1))
    t.equal(set(limits), set(policies))


def the_legacy_fields_tell_of_the_tightest_limit(t):
    weir = t.weir(t.origin(), client_rate='5/h', ratelimit_headers='legacy',
                  extra=['--limit.login', 'rate=2/m burst=2 path=/login'])
    response = t.get(weir, '/login')
    t.equal([response.get('ratelimit-limit'), response.get('ratelimit-remaining')], ['2', '1'])
    t.check(0 < int(response.get('ratelimit-reset')) <= 30, f'{response}')
    t.equal([response.get('ratelimit'), response.get('ratelimit-policy')], [None, None])


def both_is_the_default_and_off_is_off(t):
    names = ('ratelimit', 'ratelimit-policy', 'ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset')
    for setting, wanted in (({}, True), ({'ratelimit_headers': 'off'}, False)):
        client = t.client(t.weir(t.origin(), client_rate='1/h', **setting))
        for response in (client.ask(), client.ask()):
            t.equal([response.fields.has(name) for name in names], [wanted] * 5, f'{setting} {response}')
        t.check(response.fields.has('retry-after'), f'{response}')


def where_no_limit_applies_there_are_no_fields(t):
    weir = t.weir(t.origin(), extra=['--limit.login', 'rate=2/m path=/login'])
    response = t.get(weir, '/other')
    t.equal([response.get('ratelimit'), response.get('ratelimit-limit')], [None, None])


def fields_of_the_target_stay_alone(t):
    own = ['RateLimit-Policy: "mine";q=7;w=9', 'RateLimit: "mine";r=6;t=5']
    weir = t.weir(t.origin(lambda req: answer(b'x', fields=own)), client_rate='5/h', ratelimit_headers='draft')
    response = t.get(weir)
    t.equal(response.fields.all('ratelimit'), ['"mine";r=6;t=5'])
    t.equal(response.fields.all('ratelimit-policy'), ['"mine";q=7;w=9'])


def older_fields_of_the_target_stay_alone_too(t):
    own = ['RateLimit-Limit: 7', 'RateLimit-Remaining: 6']
    weir = t.weir(t.origin(lambda req: answer(b'x', fields=own)), client_rate='5/h', ratelimit_headers='draft')
    response = t.get(weir)
    t.equal([response.fields.all('ratelimit-limit'), response.fields.all('ratelimit-remaining')], [['7'], ['6']])
    t.equal([response.get('ratelimit'), response.get('ratelimit-policy')], [None, None])


# Clients in line

def _place_of_the_polite_one(t, greedy_fields, polite_fields, **settings):
    """Fifteen of one client stand in line when another comes: which of the sixteen starts is its?"""
    origin = t.origin(stamped=True)
    weir = t.weir(origin, threshold=3, backlog=6, **settings)
    greedy = [t.client(weir, seconds=20) for _ in range(15)]
    for client in greedy:
        client.send(request(target='/greedy', fields=greedy_fields))
    t.read_by_peer(*greedy)
    origin.wait_requests(3)
    greedy[-1].silent(0.1)                              # until those that were read stand in line
    polite = t.client(weir, seconds=20)
    polite.send(request(target='/polite', fields=polite_fields))
    t.equal(polite.response().status, 200)
    t.equal([client.response().status for client in greedy], [200] * 15)
    return [req.target for req in sorted(origin.requests, key=lambda req: req.arrived)].index('/polite') + 1


@takes(40)
def a_greedy_client_does_not_hold_up_a_polite_one(t):
    for queue, soon in (('fair', True), ('fifo', False)):
        place = _place_of_the_polite_one(t, _as(ONE), _as(TWO), queue=queue, trust_forwarded='127.0.0.1')
        t.check(place < 10 if soon else place > 12, f'{queue}: the polite one was number {place}')


@takes(40)
def a_fair_line_tells_clients_apart_by_client_key(t):
    place = _place_of_the_polite_one(t, ['X-Client: a'], ['X-Client: b'], queue='fair', client_key='header:X-Client')
    t.check(place < 10, f'the polite one was number {place}')


# Changes

def a_reload_forgives_nobody(t):
    text = '[main]\nport = 0\nendpoint = {}\nclient_rate = {}\nclient_burst = {}\n'
    origin = t.origin()
    weir, path = t.weir_of_file(text.format(origin.address, '3/h', 3), '--node', 'main')
    client = t.client(weir)
    t.equal(_statuses(client, 4), [200] * 3 + [429])
    for rate, burst, statuses in (('3/m', 3, [429]), ('3/h', 5, [200, 200, 429]), ('3/h', 2, [429])):
        after = len(weir.log.lines)
        with open(path + '.new', 'w', encoding='ascii') as file:
            file.write(text.format(origin.address, rate, burst))
        os.replace(path + '.new', path)
        weir.signal(signal.SIGHUP)
        weir.wait_log(contract.RELOADED, after=after)
        t.equal(_statuses(client, len(statuses)), statuses, f'{rate}, burst {burst}')
