"""The admin server from outside: asks it, and says what its answers must look like."""
import json
import re
import socket

import contract
from client import Client, request


class Admin:
    """The admin server of a running weir."""

    def __init__(self, t, weir, after=0):
        self.t, self.weir = t, weir
        match = weir.wait_log(contract.ADMIN.pattern, after=after)
        self.host, self.port, self.path = match['host'], int(match['port'] or 0), match['path']

    def client(self, host='127.0.0.1', seconds=10):
        client = Client(self.port, self.t.s(seconds), host=host)
        self.t.cleanup(client.close)
        return client

    def ask(self, method='GET', target='/', fields=(), body=None, host='127.0.0.1', name=None):
        """One request on a connection of its own; name is what Host says."""
        client = self.client(host)
        try:
            return client.ask(method, target, fields, body, host=name or f'{host}:{self.port}')
        finally:
            client.close()

    def get(self, target):
        """The JSON of an answer that must be 200."""
        response = self.ask('GET', target)
        assert response.status == 200, f'GET {target}: {response}'
        return json.loads(response.body)

    def put(self, target, value, fields=(), **more):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask('PUT', target, ['Content-Type: application/json', *fields], body, **more)

    def status(self):
        return self.get('/api/status')

    def service(self, name=None):
        services = self.status()['services']
        return next(s for s in services if name is None or s['name'] == name)

    def target(self, address):
        return next(x for x in self.service()['targets'] if x['address'] == address)

    def metrics(self):
        """Samples by name and labels: {'weir_starts_total{service="reverse"}': 3.0}."""
        response = self.ask('GET', '/metrics')
        assert response.status == 200, f'{response}'
        lines = [line for line in response.body.decode().splitlines() if line and not line.startswith('#')]
        return {key: float(value) for key, value in (line.rsplit(' ', 1) for line in lines)}


def own_address():
    """An address of this machine that is not loopback; None when there is none."""
    with open('/proc/net/fib_trie', encoding='ascii') as file:
        found = re.findall(r'\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL', file.read())
    return next((a for a in found if not a.startswith('127.')), None)


class Events:
    """Server-sent events, one after the other."""

    def __init__(self, admin, target='/api/live'):
        self.client = admin.client()
        self.client.send(request('GET', target, host=f'127.0.0.1:{admin.port}'))
        self.head = self.client.head()
        self.rest = b''

    def next(self):
        """The next event's data, parsed; None at the end of the stream."""
        while b'\n\n' not in self.rest:
            try:
                more = self.client.sock.recv(65536)
            except socket.timeout:
                raise AssertionError('no event came') from None
            if not more:
                return None
            self.rest += more
        event, self.rest = self.rest.split(b'\n\n', 1)
        return json.loads(b''.join(line[5:] for line in event.split(b'\n') if line.startswith(b'data:')))
