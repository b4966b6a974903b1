"""The steps of the road at their edges: what a connection is worth after an answer of weir's own, and what is counted and logged."""
import json

from admin import Admin
from client import request


def a_refused_request_whose_body_came_with_it_leaves_the_connection_open(t):
    client = t.client(t.weir(t.origin(), threshold='1/h'))
    t.equal(client.ask().status, 200)
    for body in (b'x', b'12345'):
        client.send(request(method='POST', body=body))
        response = client.response()
        t.equal([response.status, response.get('connection')], [429, None]) # HTTP/1.1 stays without being told
    client.send(request(method='POST', body=b'12345')[:-1]) # its end is yet to come: nobody waits for it
    t.equal(client.response().get('connection'), 'close')


def a_1_0_client_that_does_not_ask_to_stay_is_not_told_to(t):
    client = t.client(t.weir(t.refused()))
    response = client.ask(version='HTTP/1.0')
    t.equal(response.status, 500)
    t.check(response.get('connection') != 'keep-alive', f'{response}')
    client.closed()


def after_a_head_that_is_too_long_nothing_is_read_however_good_the_request_before_it_was(t):
    origin = t.origin()
    client = t.client(t.weir(origin, max_header=2048))
    t.equal(client.ask().status, 200)
    client.send(request(fields=['X: ' + 5000 * 'x']) + request())
    t.equal(client.response().status, 431)
    client.closed()
    t.equal(len(origin.requests), 1)


def each_request_of_a_connection_is_counted_as_what_became_of_it(t):
    weir = t.weir(t.origin(), threshold=1, admin=0)
    admin = Admin(t, weir)
    client = t.client(weir)
    statuses = []

    def ask():
        statuses.append(client.ask().status)
        return len(statuses) > 2 and statuses[-1] == 200
    t.until(ask, 10, 'a turn after a refusal')
    refused = statuses.count(429)
    t.check(refused > 0, f'{statuses}')
    service = t.until(lambda: admin.service() if admin.service()['requests_total'] == len(statuses) else None, 10, 'all of them')
    t.equal(service['refused_total'], refused)
    t.equal(service['refusals'], {'threshold': refused})
    t.equal(service['answered_here_total'], refused)


def a_request_that_found_no_target_takes_nothing_from_the_threshold(t):
    client = t.client(t.weir(t.refused(), threshold='2/h'))
    t.equal([client.ask().status for _ in range(5)], [500] * 5)


def how_long_a_tunnel_lasted_is_no_requests_duration(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
    weir = t.weir(t.origin(handler=handler), admin=0)
    admin = Admin(t, weir)
    client = t.client(weir)
    client.send(request(fields=['Connection: Upgrade', 'Upgrade: x']))
    t.equal(client.response().status, 101)
    client.close()
    t.until(lambda: admin.service()['requests_total'] == 1, 10, 'the end of the tunnel')
    t.equal(admin.metrics()['weir_request_duration_seconds_count{service="reverse"}'], 0.0)


def why_a_tunnel_ended_is_in_the_log(t):
    def handler(conn):
        if conn.head() is not None:
            conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
            if conn.exactly(4) == b'stay':
                conn.hold()
    weir = t.weir(t.origin(handler=handler), tunnel_timeout=0.5, access_log='-', log_format='json')
    outcomes = []
    for word in (b'stay', b'go.!'):
        client = t.client(weir)
        client.send(request(fields=['Connection: Upgrade', 'Upgrade: x']))
        t.equal(client.response().status, 101)
        client.send(word)
        client.rest()
        client.close()
        lines = len(outcomes) + 1
        t.check(weir.out.wait(lambda found, lines=lines: len(_entries(found)) >= lines, t.s(10)), weir.out.text())
        outcomes.append(_entries(weir.out.lines)[-1])
    t.equal([entry['outcome'] for entry in outcomes], ['tunnel_timeout', 'ok'])
    t.equal([entry['bytes_in'] for entry in outcomes], [4, 4])


def _entries(lines):
    return [json.loads(line) for line in lines if line.startswith('{') and '"outcome"' in line]
