"""One weir with a service of each kind, and the steps that use them: what faults are put under.

Each step does one thing from outside and gives back what came of it. A step that was disturbed may come out in another
way (an error answer, a connection that is closed), but never wrong: a body that is not the one that was sent, an answer
that breaks off within its head, or nothing at all for ten seconds are failures whatever the fault was.
"""
import itertools
import json
import os
import signal
import socket
import time

from admin import Admin
from certificates import Authority
from client import chunked, request
from faults import Faults
from harness import Weir
from origin import answer
from test_forward import _auth_file, _basic, _Redis
from test_packet import _Server, _Talk, _message
from wire import Cut, Late

LARGE = bytes(range(256)) * 1024
WORKERS = 8         # connections at once that each service is warmed up with
CLOSED, RESET = 'closed', 'reset'

FILE = """
[globals]
admin = 127.0.0.1:0
access_log = {folder}/access
[reverse]
mode = reverse
port = 0
endpoint = 127.0.0.1:{good}
probe_interval = 0.02
threshold = 100000
backlog = 1
client_rate = 100000
client_connections = 1000
limit.login = rate=1 burst=1 path=/login key=client
exempt = header:X-Plan=gold
trust_forwarded = 127.0.0.0/8
stats_path = /stats
{common}
[failover]
mode = reverse
port = 0
endpoint = 127.0.0.1:{good}, 127.0.0.1:{flaky}
probe_interval = 0.02
{common}
[line]
mode = reverse
port = 0
endpoint = localhost:{good}
resolve_interval = 1
threshold = 50
burst = 1
backlog = 1
probe_interval = 0.02
{common}
[member1]
mode = reverse
port = 0
id = 1
unicast = 127.255.255.255:{group}
cluster_secret = hush
threshold = 1000
backlog = 1
endpoint = 127.0.0.1:{good}
probe_interval = 0.02
{common}
[member2]
mode = reverse
port = 0
id = 2
unicast = 127.255.255.255:{group}
cluster_secret = hush
threshold = 1000
backlog = 1
endpoint = 127.0.0.1:{good}
probe_interval = 0.02
{common}
[forward]
mode = forward
port = 0
connect_allow = 127.0.0.0/8:*, localhost:*
max_connections = 2
host_rate = 1000
host_backlog = 1
auth_file = {users}
{common}
[fleet]
mode = forward
port = 0
connect_allow = 127.0.0.0/8:*
max_connections = 50
redis_addr = {redis}
redis_fail = local
{common}
[packet]
mode = packet
port = 0
probe_interval = 0.02
{common}
[tls]
mode = reverse
port = 0
endpoint = 127.0.0.1:{secure}
probe_interval = 0.02
ssl = yes
cafile = {ca}
ssl_name = api.example
tls_keyfile = {key}
tls_crtfile = {crt}
{common}
"""
COMMON = f"""hostname = {socket.gethostname()}
idle_timeout = 5
header_timeout = 5
response_timeout = 5
drain_timeout = 5"""
SERVICES = ('reverse', 'failover', 'line', 'member1', 'member2', 'forward', 'fleet', 'packet', 'tls')


def _reply(req):
    if req.target.startswith('/large'):
        return answer(LARGE)
    if req.target.startswith('/chunked'):
        return answer(fields=['Transfer-Encoding: chunked'], length=False) + chunked([LARGE[:5000]] * 4)
    return answer(req.body or b'hello', fields=['X-Origin: yes'])


def _reply_and_close(req):
    """So that the next request begins with a handshake."""
    return answer(LARGE, fields=['Connection: close'])


FLAKY = itertools.count()


def _flaky(conn):
    """Closes each second connection when a request has come: the other target must answer that one."""
    if next(FLAKY) % 2:
        conn.head()
        return
    while True:
        req = conn.request()
        if req is None:
            return
        conn.send(_reply(req))


def _echo(conn):
    first = conn.sock.recv(9)
    if first == b'':
        return
    if first.startswith(b'GET /up'):            # an upgrade: the whole head first
        while b'\r\n\r\n' not in first:
            first += conn.sock.recv(4096)
        conn.send(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n')
    else:
        conn.send(first)
    while True:
        piece = conn.sock.recv(65536)
        if not piece:
            return
        conn.send(piece)


class Scenario:
    def __init__(self, t, **more):
        self.t = t
        self.faults = Faults(t)
        ca = Authority(t)
        own, api = ca.issue('front.example', 'DNS:front.example'), ca.issue('api.example', 'DNS:api.example')
        self.tls = ca.client()
        good, secure = t.origin(_reply), t.origin(_reply_and_close, tls=api.server())
        flaky, self.echo = t.origin(handler=_flaky), t.origin(handler=_echo)
        self.good, self.redis = good, _Redis(t)
        self.origins = (good, secure, flaky, self.echo)
        self.group = _free_port()
        self.text = FILE.format(good=good.port, flaky=flaky.port, secure=secure.port, folder=t.tmp, redis=self.redis.address,
                                users=_auth_file(t, ('ann', 'secret')), ca=ca.crt, key=own.key, crt=own.crt,
                                group=self.group, common=COMMON)
        self.path = t.file('weir.ini', self.text)
        self.arguments = ['-c', self.path]
        self.users = _basic('ann', 'secret')

    def start(self):
        self.weir = Weir(self.t, self.arguments, self.faults.environment, services=len(SERVICES))
        self.port = {name: int(self.weir.wait_log(rf'{name}: \w+ listens on .* port=(\d+)')[1]) for name in SERVICES}
        self.admin = Admin(self.t, self.weir)
        self.server = _Server(self.t)
        self.steps = {name[5:]: getattr(self, name) for name in dir(self) if name.startswith('step_')}

    # What is common to the steps

    def _ask(self, service, *arguments, tls=None, name=None, **more):
        client = self.t.client(self.port[service], tls=tls, name=name)
        try:
            return client.ask(*arguments, **more)
        finally:
            client.close()

    def _expect(self, response, body=None):
        if response.status == 200 and body is not None:
            assert response.body == body, f'another body: {response}'
        assert response.status == 200 or response.status >= 400, f'{response}'
        return response.status

    # The steps. All but the last few take some milliseconds.

    def step_get(self):
        client = self.t.client(self.port['reverse'])
        try:
            statuses = [self._expect(client.ask(target='/a'), b'hello')]
            statuses.append(self._expect(client.ask(target='/chunked', fields=['Connection: close']), LARGE[:5000] * 4))
        finally:
            client.close()
        return statuses

    def step_failover(self):
        return [self._expect(self._ask('failover', 'GET', f'/{i}'), b'hello') for i in range(4)]

    def step_bodies(self):
        client = self.t.client(self.port['reverse'])
        try:
            client.send(request('PUT', '/x', ['Transfer-Encoding: chunked', 'Expect: 100-continue']) + chunked([LARGE[:9000]] * 3))
            statuses = [self._expect(client.response(), LARGE[:9000] * 3)]
            statuses.append(self._expect(client.ask('PUT', '/y', body=LARGE, fields=['Connection: close']), LARGE))
        finally:
            client.close()
        return statuses

    def step_refusals(self):
        statuses = [self._ask('reverse', 'GET', '/login').status for _ in range(2)]
        statuses.append(self._ask('reverse', 'GET', '/stats').status)
        client = self.t.client(self.port['reverse'])
        client.send(b'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n')
        try:
            statuses.append(client.response().status)
        finally:
            client.close()
        return [200 if s in (200, 400, 429) else s for s in statuses]

    def step_line(self):
        """Two at once: one of them waits 20 ms."""
        clients = [self.t.client(self.port['line']) for _ in range(3)]
        try:
            for client in clients:
                client.send(request('GET', '/w', ['Connection: close']))
            return [self._expect(client.response(), b'hello') for client in clients]
        finally:
            for client in clients:
                client.close()

    def step_group(self):
        statuses = [self._expect(self._ask(f'member{n}', 'GET', '/g'), b'hello') for n in (1, 2)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(os.urandom(100), ('127.255.255.255', self.group))
        return statuses

    def step_upgrade(self):
        client = self.t.client(self.port['forward'])
        try:
            client.send(request('GET', f'http://127.0.0.1:{self.echo.port}/up', host=f'127.0.0.1:{self.echo.port}',
                                fields=['Connection: Upgrade', 'Upgrade: echo', self.users]))
            head = client.head()
            if head is None:
                raise Cut('a head', client.reset)
            if head.status != 101:
                return [head.status]
            client.send(b'ping')
            assert client.exactly(4, 'the echo') == b'ping'
            return [200]
        finally:
            client.close()

    def step_forward(self):
        url = f'http://127.0.0.1:{self.good.port}/large'
        statuses = [self._ask('forward', 'GET', url, fields=[]).status]
        statuses = [200 if statuses[0] == 407 else statuses[0]]
        statuses.append(self._expect(self._ask('forward', 'GET', url, fields=[self.users]), LARGE))
        statuses.append(self._expect(self._ask('forward', 'GET', f'http://localhost:{self.good.port}/', fields=[self.users]), b'hello'))
        return statuses

    def _tunnel(self, service, fields):
        client = self.t.client(self.port[service])
        to = f'127.0.0.1:{self.echo.port}'
        client.send(request('CONNECT', to, fields, host=to))
        return client, client.head()

    def step_connect(self):
        """Three tunnels where two are allowed."""
        tunnels = []
        try:
            for _ in range(3):
                tunnels.append(self._tunnel('forward', [self.users]))
            statuses = [head.status if head else CLOSED for _, head in tunnels]
            for client, head in tunnels:
                if head and head.status == 200:
                    client.send(LARGE)
                    assert client.exactly(len(LARGE), 'the echo') == LARGE, 'another echo'
            # The cap's refusal is what is expected of one of them.
            return [200 if s == 500 and i == 2 else s for i, s in enumerate(statuses)]
        finally:
            for client, _ in tunnels:
                client.close()

    def step_fleet(self):
        url = f'http://127.0.0.1:{self.good.port}/'
        return [self._expect(self._ask('fleet', 'GET', url), b'hello')]

    def step_packet(self):
        with socket.create_connection(('127.0.0.1', self.port['packet']), self.t.s(10)) as sock:
            sock.sendall(json.dumps({'type': 1, 'id': 100, 'privPolyId': 111, 'listenport': self.server.port}).encode())
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(self.t.s(10))
            try:
                while sock.recv(1000):
                    pass
            except ConnectionResetError:
                return [RESET]
        talk = _Talk(self.t, self.port['packet'])
        try:
            first = talk.ask(_message('some payload'))
            bad = talk.ask(b'{"type": nonsense}\n')
            assert str(bad['type']) == '3', f'{bad}'
        finally:
            talk.close()
        if str(first['type']) == '3':
            return [first['error']]
        assert first['payload'] == self.server.hash_of({'payload': 'some payload', 'srcid': 1})['payload'], f'{first}'
        return [200]

    def step_tls(self):
        return [self._expect(self._ask('tls', 'GET', '/large', tls=self.tls, name='front.example'), LARGE)]

    def step_admin(self):
        statuses = [self.admin.ask('GET', target).status for target in ('/', '/metrics', '/api/status', '/api/limits', '/readyz')]
        statuses.append(self.admin.put('/api/limits', {'service': 'forward', 'default': 2, 'hosts': {'example.com': 7}}).status)
        statuses.append(self.admin.put('/api/limits', {'service': 'forward', 'hosts': {'example.com': None}}).status)
        bad = self.admin.put('/api/limits', b'{"service": [').status
        return [*statuses, 200 if bad == 400 else bad]

    def step_live(self):
        client = self.admin.client()
        try:
            client.send(request('GET', '/api/live', host=f'127.0.0.1:{self.admin.port}'))
            head = client.head()
            if head is None:
                raise Cut('a head', client.reset)
            if head.status == 200 and b'data:' not in client.sock.recv(65536):
                client.sock.recv(65536)
            return [head.status]
        finally:
            client.close()

    def _signalled(self, number, pattern):
        before = len(self.weir.log.lines)
        self.weir.signal(number)
        try:
            return self.weir.wait_log(pattern, after=before, seconds=1)[0]
        except AssertionError:
            return 'no line'    # it may have been the one that was lost; what is said of the next signal shows

    def step_reload(self):
        said = self._signalled(signal.SIGHUP, r'new settings are in force|the old settings stay in force: .*|not all new settings are in force: .*')
        return [200 if said == 'new settings are in force' else said]

    def step_reopen(self):
        said = self._signalled(signal.SIGUSR1, r'log files are open again|the old file stays in use')
        return [200 if said == 'log files are open again' else said]

    def step_wait(self):
        """What the threads in the background do by themselves."""
        time.sleep(0.05)
        return [200]

    # Running them

    def outcome(self, name):
        """What came of a step: [200, ...] when all was well."""
        for origin in self.origins:     # they keep all that they were sent
            origin.requests.clear()
            origin.connections.clear()
        try:
            return self.steps[name]()
        except Late:
            raise
        except (Cut, OSError) as error:     # SSLError is one of them
            return [RESET if 'reset' in str(error).lower() else CLOSED]

    @staticmethod
    def is_well(outcome):
        return all(status == 200 for status in outcome)

    def until_well(self, name, seconds=15):
        seen = []

        def well():
            seen.append(self.outcome(name))
            return self.is_well(seen[-1])
        try:
            self.t.until(well, seconds, f'step {name} works')
        except Late:
            raise AssertionError(f'step {name} does not work any more: {seen[-3:]}') from None

    def warm_up(self, rounds):
        """Threads and connections that will be kept are made now, so that they are not taken for leaks."""
        for service in SERVICES:
            clients = [self.t.client(self.port[service]) for _ in range(WORKERS)]
            if service != 'packet' and service != 'tls':
                for client in clients:
                    client.send(b'OPTIONS * HTTP/1.1\r\nMax-Forwards: 0\r\nHost: a\r\n\r\n')
                for client in clients:
                    client.response()
            for client in clients:
                client.close()
        for _ in range(rounds):
            for name in self.steps:
                self.until_well(name)

    def held(self):
        """(descriptors, threads, blocks of memory) of the process."""
        return (len(os.listdir(f'/proc/{self.weir.pid}/fd')), self.weir.status('Threads'), self.faults.get('blocks'))


def _free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('0.0.0.0', 0))
        return sock.getsockname()[1]
