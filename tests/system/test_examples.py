"""The files of examples/: each is checked, started, and does what its comments promise. The commands are those of the comments
themselves, as a reader would type them, so that file and test can't drift apart. Only ports differ: in 8001 and 800$i the first
three digits become others under which all ten ports are free.
"""
import collections
import os
import random
import re
import shlex
import signal
import socket
import ssl
import subprocess
import time

import contract
from admin import Admin
from arrivals import fullest
from client import request
from harness import Lines, Weir, clean_environment, takes

TOP = os.path.normpath(os.path.join(os.path.dirname(__file__), '..', '..'))
NAMES = ('sidecar', 'gateway', 'egress', 'classroom')
PORT_KEYS = ('port', 'endpoint', 'unicast', 'peers', 'admin', 'redis_addr', 'host_limits', 'connect_allow')
PORT = r'(?<![\d.$])(\d{3})(\d|\$i)(?![\d.])'


class _Example:
    """A copy of one file on ports of its own, in a folder where its commands can be typed."""

    def __init__(self, t, name):
        self.t, self.name = t, name
        with open(os.path.join(TOP, 'examples', name + '.ini'), encoding='utf-8') as file:
            self.lines = file.read().splitlines()
        self.stanzas = [line[1:-1] for line in self.lines if re.fullmatch(r'\[\w+\]', line) and line != '[globals]']
        self.decades = {}
        settings = [line.split(';')[0] for line in self.lines if re.match(r'(%s)\s*=' % '|'.join(PORT_KEYS), line)]
        for match in re.finditer(PORT, '\n'.join(settings)):
            if match[1] not in self.decades:
                self.decades[match[1]] = self._free_decade()
        self.commands = self._commands()
        os.mkdir(os.path.join(t.tmp, 'examples'))
        for program in ('weir', 'server_demo', 'client_demo'):
            os.symlink(os.path.join(t.bin, program), os.path.join(t.tmp, program))
        os.symlink(os.path.join(TOP, 'pktfiles'), os.path.join(t.tmp, 'pktfiles'))
        t.file(f'examples/{name}.ini', self.ported('\n'.join(self.lines) + '\n'))

    def _free_decade(self):
        """Three or four digits before the last: below the ports that the kernel gives away, apart from the other examples'."""
        low = 2000 + 300 * NAMES.index(self.name)
        for decade in random.sample(range(low, low + 300), 300):
            if decade not in self.decades.values() and all(map(self._is_free, range(10 * decade, 10 * decade + 10))):
                return decade
        raise AssertionError('no ten ports in a row are free')

    @staticmethod
    def _is_free(port):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET6, kind) as sock:
                try:
                    sock.bind(('::', port))
                except OSError:
                    return False
        return True

    def ported(self, text):
        return re.sub(PORT, lambda match: f'{self.decades.get(match[1], match[1])}{match[2]}', text)

    def port(self, number):
        return int(self.ported(str(number)))

    def _commands(self):
        """The indented lines of the comments; a line that ends in a backslash or in "do" goes on."""
        text = '\n'.join(line[1:].strip() if line.startswith('#       ') else '' for line in self.lines)
        text = re.sub(r'(\\|\bdo)\n', lambda match: ' ' if match[1] == '\\' else 'do ', text)
        return [self.ported(line) for line in text.splitlines() if re.match(r'(\./|for |curl |openssl |redis-|echo )', line)]

    def command(self, *words):
        """The one command that has all these words in it."""
        found = [command for command in self.commands if all(word in command for word in words)]
        assert len(found) == 1, f'{words}: {found} in {self.commands}'
        return found[0]

    def type(self, *words, seconds=25):
        """Types it; the program's result, and how long it took."""
        started = time.monotonic()
        done = self.t.run_tool('bash', '-c', self.command(*words), seconds=seconds)
        return done, time.monotonic() - started

    def _typed(self, *words):
        """The programs that a command starts with & between them."""
        return [words for words in (shlex.split(part, comments=True) for part in self.command(*words).split('&')) if words]

    def weirs(self, *words):
        """The weirs that such a command starts."""
        return [self.weir(arguments[1:]) for arguments in self._typed(*words)]

    def weir(self, arguments):
        nodes = sum(word == '--node' for word in arguments)
        return Weir(self.t, arguments, services=nodes)

    def servers(self, *words, log=False):
        """The server_demos, and others, that such a command starts; each name with its process."""
        started = []
        for arguments in self._typed(*words):
            extra = ['--log', os.path.join(self.t.tmp, f'log{len(started)}')] if log else []
            started.append(_Server(self.t, [*arguments, *extra]))
        return started


class _Server:
    """A helper program that says when it is ready."""

    def __init__(self, t, arguments):
        self.t, self.arguments = t, arguments
        self.log = arguments[-1] if '--log' in arguments else None
        t.cleanup(self.end)
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        cwd=self.t.tmp, env=clean_environment())
        self.lines = Lines(self.process.stdout)
        assert self.lines.wait(lambda lines: any(re.search('listens on port|Ready to accept|set up|Listening', line, re.I) for line in lines),
                               self.t.s(15)), f'{self.arguments}: {self.lines.text()}'

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(self.t.s(10))

    def times_ns(self):
        """When requests came, as the kernel stamped them."""
        with open(self.log, encoding='ascii') as file:
            return [int(float(line.split()[0]) * 1e6) * 1000 for line in file]


def _statuses(done):
    return re.findall(r'\b\d{3}\b', done.out.decode())


def _goes_over(t, example, ask, wanted):
    """However slow this machine is, one that asks without pause passes a rate in the end."""
    statuses = []
    end = time.monotonic() + t.s(15)
    while time.monotonic() < end and (not statuses or statuses[-1] != wanted):
        statuses.append(ask())
    t.check(statuses[-1] == wanted, f'{example.name}: never {wanted}: {collections.Counter(statuses)}')


def _tunnel(t, port, to):
    client = t.client(port)
    client.send(request('CONNECT', to, host=to))
    return client, client.head().status


def _first_of(tunnels):
    """How many got through; all are closed."""
    for client, _ in tunnels:
        client.close()
    return collections.Counter(status for _, status in tunnels)


def every_example_passes_the_check(t):
    found = sorted(name[:-4] for name in os.listdir(os.path.join(TOP, 'examples')) if name.endswith('.ini'))
    t.equal(found, sorted(NAMES), 'the examples that are tested here')
    for name in NAMES:
        path = os.path.join(TOP, 'examples', name + '.ini')
        if name == 'gateway':       # what its comments say to make
            example = _Example(t, name)
            for words in (('openssl req',), ('openssl rand',)):
                t.equal(example.type(*words)[0].code, 0, words[0])
        with open(path, encoding='utf-8') as file:
            text = file.read()
        nodes = [word for stanza in re.findall(r'^\[(\w+)\]$', text, re.M) if stanza != 'globals' for word in ('--node', stanza)]
        done = t.run('-c', path, *nodes, '--check')
        t.check(done.code == 0 and not done.err, f'{name}: {done}')
        t.equal(len(re.findall(r'^hostname = ', done.out.decode(), re.M)), len(nodes) // 2, f'{name}: a hostname in each stanza')
        t.check('does nothing' not in done.out.decode(), f'{name}: a setting without effect')


@takes(60)
def the_sidecars_limit_each_customer_and_share_one_threshold(t):
    t.tool('curl')
    example = _Example(t, 'sidecar')
    servers = example.servers('server_demo', log=True)
    t.equal(len(servers), 3)
    weir, = example.weirs('./weir')
    weir.wait_log('node 1 is the master of the group')
    t.equal(t.get(example.port(8001)).status, 200, 'the group starts')
    t.equal(t.run('--healthcheck', str(example.port(9100))).code, 0, 'health')

    done, took_s = example.type('alice')
    statuses = _statuses(done)
    t.equal((len(statuses), statuses[:10]), (15, ['200'] * 10), 'ten at once')
    t.check(set(statuses) <= {'200', '429'} and statuses.count('200') <= 11 + took_s, f'{statuses} in {took_s:.1f} s')
    ask = t.client(example.port(8001)).ask
    _goes_over(t, example, lambda: ask('GET', '/', ['X-Api-Key: carol']).status, 429)
    t.equal(_statuses(example.type('bob')[0]), ['200'], 'another customer')
    t.check(' "GET / HTTP/1.1" 429 ' in weir.out.text(), 'no line for a request on standard output')

    before_ns = time.time_ns()
    done, _ = example.type('customer$i')
    t.equal(sum(map(int, re.findall(r'\b200\b\D+(\d+)', done.out.decode()))) or done.out, 30, 'all thirty are answered')
    times = sorted(moment for server in servers for moment in server.times_ns())
    recent = [moment for moment in times if moment >= before_ns]
    t.equal(len(recent), 30, 'arrivals')
    t.check(fullest(times) <= 10, f'{fullest(times)} in a second, threshold 10')
    t.check(recent[-1] - recent[0] >= 1.9e9, 'in lots of ten, a second apart')


@takes(60)
def another_sidecar_takes_over_when_the_first_is_killed(t):
    example = _Example(t, 'sidecar')
    example.servers('server_demo')
    nodes = [example.weir(['-c', 'examples/sidecar.ini', '--node', f'app{number}', '--admin', 0]) for number in (1, 2, 3)]
    for node in nodes:
        node.wait_log('node 1 is the master of the group', 20)
    nodes[0].signal(signal.SIGKILL)
    nodes[0].wait_exit()
    nodes[1].wait_log('node 2 is the master of the group', 20)
    t.equal(t.get(example.port(8003)).status, 200, 'the others go on')


@takes(90)
def the_gateways_serve_https_and_leave_a_dead_target_out(t):
    t.tool('curl')
    example = _Example(t, 'gateway')
    for words in (('openssl req',), ('openssl rand',)):
        t.equal(example.type(*words)[0].code, 0, words[0])
    servers = dict(zip(('web1', 'web2', 'web3'), example.servers('server_demo')))
    one, two = example.weirs('./weir')
    for gateway in (one, two):
        gateway.wait_log('node 1 is the master of the group', 20)

    def answered():
        done = example.type('X-Target')[0]
        return collections.Counter(re.findall(r'X-Target: (\w+)', done.out.decode(), re.I))
    t.equal(answered(), {'web1': 2, 'web2': 2, 'web3': 4}, 'by weight')
    servers['web2'].end()
    without = answered()
    t.equal((sum(without.values()), without['web2']), (8, 0), f'without web2: {without}')
    servers['web2'].start()
    t.until(lambda: answered()['web2'], 20, 'web2 is back')

    done, took_s = example.type('/login')
    statuses = _statuses(done)
    t.equal((len(statuses), statuses[:3]), (6, ['404'] * 3), 'three at once')
    t.check(set(statuses) <= {'404', '429'} and statuses.count('404') <= 4 + 2 * took_s, f'{statuses} in {took_s:.1f} s')
    trusted = os.path.join(t.tmp, 'gateway-crt.pem')
    client = t.client(example.port(8443), tls=ssl.create_default_context(cafile=trusted), name='localhost')
    _goes_over(t, example, lambda: client.ask('POST', '/login', body=b'x').status, 429)
    t.equal(_https(t, example.port(8443), trusted).status, 200, 'elsewhere it may go on')

    one.signal(signal.SIGKILL)
    one.wait_exit()
    two.wait_log('node 2 is the master of the group', 20)
    t.equal(_https(t, example.port(8444), trusted).status, 200, 'the second serves on')
    seen = len(two.log.lines)
    t.equal(example.type('openssl req')[0].code, 0)
    two.signal(signal.SIGHUP)
    two.wait_log(contract.RELOADED, after=seen)
    t.equal(_https(t, example.port(8444), trusted).status, 200, 'with the new certificate')
    seen = len(two.log.lines)
    with open(trusted, encoding='ascii') as file:
        good = file.read()
    t.file('gateway-crt.pem', 'none\n')
    two.signal(signal.SIGHUP)
    two.wait_log('stay in force', after=seen)
    t.equal(_https(t, example.port(8444), t.file('trusted.pem', good)).status, 200, 'a wrong one changes nothing')


def _https(t, port, trusted):
    return t.get(port, tls=ssl.create_default_context(cafile=trusted), name='localhost')


@takes(90)
def the_egress_proxies_share_a_cap_for_each_host(t):
    t.tool('curl')
    t.tool('redis-cli')
    example = _Example(t, 'egress')
    redis, = example.servers('redis-server --port')
    example.servers('server_demo')
    weir, = example.weirs('./weir')
    partner = f'127.0.0.1:{example.port(9001)}'
    ports = [example.port(8081), example.port(8082)]

    done, took_s = example.type('http_code', 'for port')
    counted = collections.Counter(_statuses(done))
    t.check(set(counted) == {'200', '503'} and sum(counted.values()) == 8 and counted['200'] >= 3, f'{counted}')
    t.check(counted['200'] == 3 or took_s >= 4, f'{counted} in {took_s:.1f} s, of which an answer takes 2')

    def tunnels(count=4):
        return [_tunnel(t, port, partner) for _ in range(count) for port in ports]
    t.until(lambda: _first_of(tunnels(1)) == {200: 2}, 20, 'all places are free')
    held = tunnels()
    keys = example.type('redis-cli')[0].out.decode().split()
    t.equal(len([key for key in keys if key.startswith(f'proxy_rate_limiter:{partner}:')]), 2, f'a counter for each proxy: {keys}')
    t.equal(_first_of(held), {200: 3, 503: 5}, 'eight through two proxies, cap 3')
    t.equal(_statuses(example.type('http_code', ':22/')[0]), ['403'], 'what is not allowed')

    admin = Admin(t, weir)
    def limit():
        return next(s for s in admin.get('/api/limits')['services'] if s['name'] == 'worker1')['hosts'][partner]
    t.equal((example.type('curl -X PUT')[0].code, limit()), (0, 4), 'by the API')
    seen = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=seen)
    t.equal(limit(), 3, 'until the next reload')

    redis.process.kill()
    redis.process.wait()
    t.until(lambda: _first_of(tunnels()) == {200: 2, 503: 6}, 20, 'its share: one each')
    lost = "worker1.*Redis can't be reached|Redis can't be reached.*worker1"
    weir.wait_log(lost)
    t.equal(len(re.findall(lost, weir.log.text())), 1, 'said once')
    seen = len(weir.log.lines)
    redis.start()
    weir.wait_log('Redis answers', 20, seen)
    t.until(lambda: _first_of(tunnels()) == {200: 3, 503: 5}, 20, 'they count together again')


@takes(60)
def the_classroom_switch_takes_turns_and_shows_its_limits(t):
    example = _Example(t, 'classroom')
    weir, = example.weirs('./weir')
    admin = Admin(t, weir)
    servers = example.servers('server_demo')

    def targets_in():
        return len([x for x in admin.service()['targets'] if x['state'] == 'in'])
    t.until(lambda: targets_in() == 2, 15, 'two servers')

    def hashes():
        t.until(lambda: admin.service()['available'] == 5, 15, 'a free window')
        done = example.type('for i in 1 2 3 4', 'pktfiles/1.json')[0].out.decode()
        return re.findall(r'server id (\d+)', done), done.count('Hash of payload is correct')
    ids, correct = hashes()
    t.equal((sorted(ids), correct), (['100', '100', '101', '101'], 4), 'four messages')
    t.check(ids[0] != ids[1] and ids[:2] == ids[2:], f'in turn: {ids}')
    servers[0].end()
    t.equal(hashes(), (['101'] * 4, 4), 'with one of them')
    servers[0].start()
    t.until(lambda: targets_in() == 2, 15, 'both again')
    t.equal((sorted(hashes()[0])), ['100', '100', '101', '101'], 'in turn again')

    nobody = example.type('nobody.json')[0]
    t.check(nobody.code == 1 and b'Receiving an error' in nobody.out, f'{nobody}')

    t.until(lambda: admin.service()['available'] == 5, 15, 'a free window')
    talk = [socket.create_connection(('127.0.0.1', weir.port), t.s(20)) for _ in range(20)]
    for number, sock in enumerate(talk):
        sock.sendall(b'{"type":0,"srcid":%d,"privPoliId":111,"payload":"x"}' % number)
    kinds = collections.Counter(b'"3"' in sock.recv(4096) for sock in talk)
    t.check(kinds[False] >= 15 and kinds[True] >= 1 and sum(kinds.values()) == 20, f'twenty at once: {kinds}')
    t.until(lambda: admin.service()['available'] == 5, 15, 'a free window')
    crowd = example.type('seq 20')[0].out.decode()
    t.equal(crowd.count('is correct') + crowd.count('Receiving an error'), 20, f'each student hears something: {crowd}')
    t.check(crowd.count('is correct') >= 15, f'{crowd}')

    seen = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED, after=seen)
    talk[0].sendall(b'{"type":0,"srcid":1,"privPoliId":111,"payload":"x"}')
    t.check(b'"2"' in talk[0].recv(4096), 'nobody is thrown out')
    t.equal(admin.ask('GET', '/').status, 200, 'the page')
    t.equal(t.run('top', '--admin', f'127.0.0.1:{admin.port}', '--once').code, 0, 'weir top')
