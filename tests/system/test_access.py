"""Who may come in, and whose word about a client's address counts: allow, deny, trust_forwarded, exempt; and what
limit.NAME rules see in a request (SPEC: Settings).

All connections of a test come from 127.0.0.1 or ::1. Other clients are played through X-Forwarded-For, which is what a
trusted proxy would do for them.
"""
import os
import re
import signal

import contract
from client import request

STRANGER, OTHER = '203.0.113.9', '198.51.100.7'


def _as(*addresses):
    return [f'X-Forwarded-For: {", ".join(addresses)}']


def _is_shut_out(t, weir, origin, fields=(), host='127.0.0.1', what=''):
    """403, the connection is closed, and nothing of the request went upstream."""
    before = len(origin.requests)
    client = t.client(weir, host=host)
    response = client.ask(fields=list(fields))
    t.equal(response.status, 403, what)
    t.equal((response.get('connection') or '').lower(), 'close', f'{what}: Connection')
    t.equal(client.rest(), b'', f'{what}: after the answer')
    t.check(not client.reset, f'{what}: the answer may be lost in a reset')
    t.equal(len(origin.requests), before, f'{what}: requests upstream')


def _gets_in(t, weir, fields=(), host='127.0.0.1', what=''):
    client = t.client(weir, host=host)
    t.equal(client.ask(fields=list(fields)).status, 200, what)


# allow and deny

def everyone_may_come_in_by_default(t):
    weir = t.weir(t.origin())
    for host in ('127.0.0.1', '::1'):
        _gets_in(t, weir, host=host, what=host)


def a_client_that_deny_names_gets_403_and_the_connection_closes(t):
    origin = t.origin()
    weir = t.weir(origin, deny='127.0.0.0/8')
    _is_shut_out(t, weir, origin, what='127.0.0.1')
    _gets_in(t, weir, host='::1', what='::1')


def a_client_outside_allow_gets_403(t):
    origin = t.origin()
    weir = t.weir(origin, allow='10.0.0.0/8, ::1')
    _is_shut_out(t, weir, origin, what='127.0.0.1')
    _gets_in(t, weir, host='::1', what='::1')


def deny_goes_before_allow(t):
    origin = t.origin()
    weir = t.weir(origin, allow='127.0.0.1, ::1', deny='127.0.0.0/24')
    _is_shut_out(t, weir, origin, what='127.0.0.1')
    _gets_in(t, weir, host='::1', what='::1')


def a_refused_client_is_told_so_even_while_its_body_is_on_the_way(t):
    origin = t.origin()
    weir = t.weir(origin, deny='all')
    client = t.client(weir)
    client.send(request('POST', '/', ['Content-Length: 1000000']) + b'x' * 100000)
    t.equal(client.response().status, 403)
    t.equal(len(origin.requests), 0)


def the_answer_names_the_limit(t):
    weir = t.weir(t.origin(), deny='all')
    response = t.get(weir)
    t.equal(response.status, 403)
    t.check(response.fields.has('proxy-status'), f'{response}')


def deny_can_be_changed_while_running(t):
    origin = t.origin()
    text = '[main]\nport = 0\nendpoint = ' + origin.address + '\ndeny = {}\n'
    weir, path = t.weir_of_file(text.format('none'), '--node', 'main')
    _gets_in(t, weir)
    for deny, shut_out in (('127.0.0.1', True), ('none', False)):
        with open(path + '.new', 'w', encoding='ascii') as file:
            file.write(text.format(deny))
        os.replace(path + '.new', path)
        weir.signal(signal.SIGHUP)
        t.until(lambda: (t.get(weir).status == 403) == shut_out, 10, f'deny = {deny}')


# Whose word counts

def a_strangers_forwarded_for_is_not_believed(t):
    origin = t.origin()
    weir = t.weir(origin, deny=STRANGER)
    _gets_in(t, weir, _as(STRANGER), what='without trust_forwarded')
    weir = t.weir(origin, deny='127.0.0.1')
    _is_shut_out(t, weir, origin, _as(STRANGER), what='a client that says it is another')
    weir = t.weir(origin, deny=STRANGER, trust_forwarded='10.0.0.0/8')
    _gets_in(t, weir, _as(STRANGER), what='a peer that is not trusted')


def a_trusted_proxy_is_believed_about_its_client(t):
    origin = t.origin()
    weir = t.weir(origin, deny='203.0.113.0/24, 2001:db8::/32', trust_forwarded='127.0.0.1')
    for entry in (STRANGER, STRANGER + ':4711', f'::ffff:{STRANGER}', '2001:db8::9', '[2001:db8::9]:443'):
        _is_shut_out(t, weir, origin, _as(entry), what=entry)
    _gets_in(t, weir, _as(OTHER), what=OTHER)
    _gets_in(t, weir, what='none: the proxy itself is the client')
    _gets_in(t, weir, _as(STRANGER), host='::1', what='through a peer that is not trusted')


def the_first_from_the_right_that_is_not_trusted_is_the_client(t):
    origin = t.origin()
    weir = t.weir(origin, deny=STRANGER, trust_forwarded='127.0.0.0/8, 10.0.0.0/8')
    for fields, shut_out in ((_as(STRANGER, OTHER), False), (_as(OTHER, STRANGER), True),
                             (_as(OTHER, STRANGER, '10.0.0.3'), True), (_as(STRANGER, OTHER, '10.0.0.3'), False),
                             (_as(STRANGER) + _as('10.0.0.3'), True), (_as(STRANGER) + _as(OTHER), False),
                             (_as(STRANGER, 'unknown'), False), (_as(STRANGER, 'unknown', '10.0.0.3'), False),
                             (_as('10.0.0.4', '10.0.0.3'), False), (_as('unknown', STRANGER), True)):
        if shut_out:
            _is_shut_out(t, weir, origin, fields, what=f'{fields}')
        else:
            _gets_in(t, weir, fields, what=f'{fields}')


def each_request_of_a_connection_has_its_own_client(t):
    origin = t.origin()
    weir = t.weir(origin, deny=STRANGER, trust_forwarded='127.0.0.1')
    client = t.client(weir)
    t.equal([client.ask(fields=_as(address)).status for address in (OTHER, '192.0.2.1', STRANGER)], [200, 200, 403])


def the_access_log_names_the_client_that_was_worked_out(t):
    weir = t.weir(t.origin(), access_log='-', trust_forwarded='127.0.0.1')
    t.get(weir, '/behind', fields=_as('192.0.2.1', STRANGER))
    t.get(weir, '/direct')
    weir.stop()
    clients = {}
    for line in weir.out.lines:
        match = contract.ACCESS_TEXT.fullmatch(line)
        if t.check(match, f'{line!r}'):
            clients[match['uri']] = match['client']
    t.equal(clients, {'/behind': STRANGER, '/direct': '127.0.0.1'})


def a_unix_peer_is_trusted_when_the_list_says_so(t):
    for trusted, status in (('unix', 403), ('all', 403), ('127.0.0.0/8', 200)):
        origin = t.origin()
        inner = f'{t.tmp}/{status}{trusted[:3]}.sock'
        weir, _ = t.weir_of_file(f'[inner]\nbind = unix:{inner}\nendpoint = {origin.address}\ndeny = {STRANGER}\n'
                                 f'trust_forwarded = {trusted}\n'
                                 f'[outer]\nport = 0\nendpoint = unix:{inner}\nforwarded = off\n', services=2)
        outer = max(weir.ports)                 # a Unix socket has port 0
        t.equal(t.get(outer, fields=_as(STRANGER)).status, status, f'trust_forwarded = {trusted}')


# What rules see

def _statuses(t, weir, targets, method='GET', fields=()):
    client = t.client(weir)
    return [client.ask(method, target, fields=list(fields)).status for target in targets]


def a_rule_sees_through_every_spelling_of_its_path(t):
    origin = t.origin()
    weir = t.weir(origin, extra=['--limit.login', 'rate=3/m path=/login'])
    spelt = ['/login', '/%6cogin?x=1', '//x/..//login', '/./login', '/x%2f..%2Flogin', '/%2e%2e/login']
    t.equal(_statuses(t, weir, spelt), [200, 200, 200, 429, 429, 429])
    t.equal(origin.targets(), spelt[:3], 'what is forwarded stays as it came')
    t.equal(_statuses(t, weir, ['/Login', '/login/', '/x?/login', '/%256cogin']), [200] * 4, 'other paths')


def a_rule_concerns_the_requests_that_are_all_it_says(t):
    weir = t.weir(t.origin(), extra=['--limit.a', 'rate=1/m method=POST,PUT path=/a* host=api.example '
                                                  'header.X-Plan=free'])
    client = t.client(weir)

    def status(method='POST', target='/a/b', host='API.example.:8000', plan='free'):
        return client.ask(method, target, fields=[f'X-Plan: {plan}'], body=b'', host=host).status
    t.equal(status(), 200, 'the first')
    t.equal([status('GET'), status(target='/b'), status(host='other.example'), status(plan='gold')], [200] * 4,
            'others')
    t.equal([status(), status('PUT', '/abc')], [429, 429], 'more')


def a_refusal_names_its_rule(t):
    weir = t.weir(t.origin(), extra=['--limit.login', 'rate=1/m path=/login'])
    client = t.client(weir)
    client.ask(target='/login')
    response = client.ask(target='/login')
    t.equal(response.status, 429)
    t.check(re.search(r'\blogin\b', response.get('proxy-status') or ''), f'{response}')
    t.check((response.get('retry-after') or '').isdigit(), f'{response}')


def a_rule_in_shadow_refuses_nothing(t):
    weir = t.weir(t.origin(), extra=['--limit.all', 'rate=1/m mode=shadow'])
    t.equal(_statuses(t, weir, ['/'] * 5), [200] * 5)


def clients_behind_a_trusted_proxy_have_a_rate_each(t):
    weir = t.weir(t.origin(), client_rate='1/m', trust_forwarded='127.0.0.1')
    for address in (STRANGER, OTHER, '2001:db8:0:1::1', '2001:db8:0:2::1'):
        t.equal(_statuses(t, weir, ['/', '/'], fields=_as('192.0.2.1', address)), [200, 429], address)
    t.equal(_statuses(t, weir, ['/'], fields=_as('2001:db8:0:1:ffff::2')), [429], 'another address of one /64')


def a_header_tells_clients_apart_and_without_it_their_address(t):
    weir = t.weir(t.origin(), client_rate='1/m', client_key='header:X-Api-Key')
    client = t.client(weir)

    def status(*keys):
        return client.ask(fields=[f'X-Api-Key: {key}' for key in keys]).status
    t.equal([status('one'), status('two'), status('one'), status('two')], [200, 200, 429, 429])
    t.equal([status(), status(), status('a', 'b'), status('c', 'd')], [200, 429, 429, 429], 'none, or two')


def those_that_are_exempt_are_never_refused(t):
    weir = t.weir(t.origin(), client_rate='1/m', trust_forwarded='127.0.0.1',
                  exempt='203.0.113.0/24, header:X-Plan=gold')
    t.equal(_statuses(t, weir, ['/'] * 3, fields=_as(STRANGER)), [200] * 3, 'a network')
    t.equal(_statuses(t, weir, ['/'] * 3, fields=['X-Plan: gold', *_as(OTHER)]), [200] * 3, "a trusted proxy's header")
    client = t.client(weir, host='::1')
    t.equal([client.ask(fields=['X-Plan: gold']).status for _ in range(2)], [200, 429], "anybody's header")
