"""--trace: each hop of each request on a line of its own."""
import re

from client import request

HOPS = re.compile(r'trace \S+ #(\d+) \+(\d+\.\d{6}) (\w+)\b')


def _hops(weir, number):
    """The hops of one request in the order of the log, and their times."""
    found = [match for match in map(HOPS.match, weir.log.lines) if match and int(match[1]) == number]
    return [match[3] for match in found], [float(match[2]) for match in found]


def each_hop_of_a_request_is_a_line(t):
    origin = t.origin(name='A')
    weir = t.weir(origin, extra=['--trace'])
    client = t.client(weir)
    t.equal([client.ask().status for _ in range(2)], [200, 200])
    weir.wait_log(r'#2 .* end ')
    for number, hops in ((1, ['accept', 'read', 'pick', 'connect', 'send', 'answer', 'relay', 'end']),
                         (2, ['again', 'read', 'pick', 'reuse', 'send', 'answer', 'relay', 'end'])):
        names, times = _hops(weir, number)
        t.equal(names, hops)
        t.equal(times, sorted(times))


def of_a_long_target_the_beginning_is_traced(t):
    weir = t.weir(t.origin(), extra=['--trace'])
    t.equal(t.get(weir, '/' + 'a' * 99).status, 200)
    t.equal(t.get(weir, '/' + 'b' * 150).status, 200)
    t.equal(t.get(weir, '/short').status, 200)
    weir.wait_log(r'#3 .* end ')
    t.equal(re.findall(r' read .* GET (.*)', weir.log.text()), ['/' + 'a' * 99, '/' + 'b' * 99, '/short'])


def a_failed_target_and_a_wait_are_seen(t):
    dead = f'127.0.0.1:{t.free_port()}'
    weir = t.weir(dead, t.origin(name='A'), threshold='2', backlog='2', extra=['--trace', 'yes'])
    client = t.client(weir)
    t.equal([client.ask().status for _ in range(3)], [200] * 3)
    weir.wait_log(r'#3 .* end ')
    t.check('failed' in _hops(weir, 1)[0], f'{_hops(weir, 1)}')
    names, times = _hops(weir, 3)
    t.check('wait' in names and times[names.index('wait')] > 0.5, f'{names} {times}')


def without_it_there_are_no_such_lines(t):
    weir = t.weir(t.origin(name='A'), extra=['--trace', 'no'])
    t.equal(t.get(weir).status, 200)
    t.check(not any(HOPS.match(line) for line in weir.log.lines), 'a trace')


def a_client_cannot_forge_a_trace(t):
    weir = t.weir(t.origin(name='A'), extra=['--trace'])
    client = t.client(weir)
    client.send(request(target='/a%0Atrace'))
    t.equal(client.response().status, 200)
    weir.wait_log(r'#1 .* end ')
    t.equal(_hops(weir, 1)[0].count('read'), 1)
