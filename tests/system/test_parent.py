"""weir forward with a parent proxy: in front of a second weir with users, and of one that is played here, with the manners of
tinyproxy: HTTP/1.0 answers, and a connection that ends after each."""
import base64
import os
import socket
import struct
import time

from client import request
from harness import takes
from origin import answer
from test_forward import LOOPBACK, _auth_file, _connect, _forward, _url

SECRET = 'campus:pass word:#1'


class _OldParent:
    """Relays requests in absolute form and opens tunnels, one thing a connection; notes what it was asked."""

    def __init__(self, t, tunnel=b'HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n', plain=None):
        self.tunnel, self.plain = tunnel, plain
        self.asked = []
        self.origin = t.origin(handler=self._handle)
        self.address = self.origin.address

    def _handle(self, conn):
        asked = conn.head()
        if asked is None:
            return
        conn.body(asked)
        self.asked.append(asked)
        if asked.method == 'CONNECT':
            conn.send(self.tunnel)
            if b' 200 ' in self.tunnel:
                while conn.buffer or conn.fill(self._end(conn), 'bytes to echo'):
                    conn.send(conn.take(len(conn.buffer)))
            return
        body = self.plain or b'from the parent'
        conn.send(body if body.startswith(b'HTTP/') else answer(body, version='HTTP/1.0'))

    @staticmethod
    def _end(conn):
        return time.monotonic() + conn.seconds


def _child(t, parent, allow='*:*', **more):
    return _forward(t, allow=allow, parent=getattr(parent, 'address', parent), **more)


def _basic(credentials):
    return 'Basic ' + base64.b64encode(credentials.encode()).decode()


# Plain requests

def a_plain_request_goes_to_the_parent_in_absolute_form(t):
    parent = _OldParent(t)
    weir = _child(t, parent, parent_auth=SECRET)
    rows = (('GET', 'http://no-such-host.test/a?b=%20', 'http://no-such-host.test/a?b=%20'),
            ('GET', 'http://No-Such-Host.test', 'http://No-Such-Host.test/'),
            ('GET', 'http://no-such-host.test:8080?q', 'http://no-such-host.test:8080/?q'),
            ('OPTIONS', 'http://no-such-host.test', 'http://no-such-host.test'))
    for method, target, wanted in rows:
        response = t.get(weir, target, method, fields=['Proxy-Authorization: Basic bWluZTpvd24='])
        got = parent.asked[-1]
        t.equal([response.status, got.method, got.target], [200, method, wanted])
        t.equal(got.fields.all('proxy-authorization'), [_basic(SECRET)], 'our credentials, not the client\'s')
        t.equal(got.fields.all('host'), [wanted.split('/')[2].split('?')[0]])
        t.check(got.fields.has('via'), 'Via')
    t.equal(t.get(weir, 'http://no-such-host.test/', 'POST', body=b'body').status, 200)
    t.equal(parent.asked[-1].body, b'body')


def without_credentials_none_are_sent_and_a_407_is_502(t):
    parent = _OldParent(t, plain=b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n'
                                 b'Content-Length: 0\r\n\r\n')
    weir = _child(t, parent, max_connections=1)
    for _ in range(2):
        response = t.get(weir, 'http://no-such-host.test/')
        t.equal([response.status, response.fields.has('proxy-authenticate')], [502, False])
        t.check('407' in response.get('proxy-status'), response.get('proxy-status'))
    t.check(not parent.asked[0].fields.has('proxy-authorization'), f'{parent.asked[0].fields}')


def idle_connections_to_the_parent_are_one_hosts_own(t):
    parent = t.origin()
    weir = _child(t, parent)
    client = t.client(weir)
    for name in ('a.test', 'a.test', 'b.test', 'a.test', 'b.test'):
        t.equal(client.ask(target=f'http://{name}/').status, 200)
    t.equal([req.connection for req in parent.requests], [0, 0, 1, 0, 1])


def caps_and_rates_are_those_of_the_host_that_is_named(t):
    parent = t.origin()
    weir = _child(t, parent, host_rates='a.test=1/h', host_limits='b.test=1')
    t.equal([t.get(weir, f'http://{name}/').status for name in ('a.test', 'a.test', 'b.test', 'c.test')], [200, 429, 200, 200])


# CONNECT

def connect_goes_to_the_parent_and_its_200_makes_the_tunnel(t):
    parent = _OldParent(t)
    weir = _child(t, parent, parent_auth=SECRET)
    client, status, _ = _connect(t, weir, 'no-such-host.test:443', early=b'early')
    t.equal(status, 200)
    t.equal(client.exactly(5), b'early')
    client.send(b'more')
    t.equal(client.exactly(4), b'more')
    client.finish()
    t.equal(client.rest(), b'')
    asked = parent.asked[0]
    t.equal([asked.method, asked.target, asked.get('host'), asked.get('proxy-authorization')],
            ['CONNECT', 'no-such-host.test:443', 'no-such-host.test:443', _basic(SECRET)])
    t.check('weir-' in (asked.get('via') or ''), 'a loop of proxies is seen by Via')


def what_came_with_the_parents_answer_is_the_first_of_the_tunnel(t):
    parent = _OldParent(t, tunnel=b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello')
    client, status, _ = _connect(t, _child(t, parent), 'no-such-host.test:443')
    t.equal([status, client.exactly(5)], [200, b'hello'])


def a_refusal_of_the_parent_is_502_and_says_which(t):
    for status in (301, 403, 407, 503):
        parent = _OldParent(t, tunnel=b'HTTP/1.0 %d No\r\nProxy-Authenticate: Basic realm="x"\r\n\r\nbecause' % status)
        weir = _child(t, parent, max_connections=1)
        for _ in range(2):      # the place came back
            client = t.client(weir)
            response = client.ask('CONNECT', 'no-such-host.test:443', host='no-such-host.test:443')
            t.equal([response.status, response.fields.has('proxy-authenticate')], [502, False])
            t.check(str(status) in response.get('proxy-status'), response.get('proxy-status'))


def a_parent_that_talks_nonsense_is_502_and_a_silent_one_504(t):
    for words, wanted in ((b'SSH-2.0-OpenSSH\r\n\r\n', 502), (b'HTTP/1.1 101 Up\r\nUpgrade: x\r\n\r\n', 502),
                          (b'HTTP/1.1 200 OK\r\nX : y\r\n\r\n', 502),
                          (b'HTTP/1.1 100 Continue\r\n\r\n' * 50, 502), (b'HTTP/1.1 200 OK\r\nX: ' + b'y' * 70000, 502), (b'', 504)):
        def handler(conn, words=words):
            if conn.head() is not None:
                conn.send(words)
                conn.hold()
        # The client of the silent one is looked at meanwhile, after a second, and is still there.
        weir = _child(t, t.origin(handler=handler), response_timeout=0.4 if words else 1.3)
        t.equal(_connect(t, weir, 'no-such-host.test:443')[1], wanted, f'{words[:30]!r}')


def a_parent_that_closes_without_an_answer_is_502_and_the_place_comes_back(t):
    """With an end, in the middle of its answer, and with a reset."""
    for words, resets in ((b'', False), (b'HTTP/1.1 200 O', False), (b'', True)):
        def handler(conn, words=words, resets=resets):
            conn.head()
            conn.send(words)
            if resets:
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        weir = _child(t, t.origin(handler=handler), max_connections=1)
        for _ in range(2):
            client = t.client(weir)
            response = client.ask('CONNECT', 'no-such-host.test:443', host='no-such-host.test:443')
            t.equal(response.status, 502, f'{words!r} {resets}')
            t.check('the parent proxy closed the connection' in response.get('proxy-status'), response.get('proxy-status'))


def a_client_that_leaves_while_the_parent_thinks_frees_the_place(t):
    def handler(conn):
        asked = conn.head()
        if asked is not None and asked.target.startswith('slow'):
            conn.hold()
        elif asked is not None:
            conn.send(b'HTTP/1.1 200 OK\r\n\r\n')
            conn.hold()
    parent = t.origin(handler=handler)
    weir = _child(t, parent, host_limits='slow.test=1', response_timeout=600, access_log='-')
    client = t.client(weir)
    client.send(request('CONNECT', 'slow.test:443', host='slow.test:443'))
    parent.wait_requests(1)
    t.equal(t.client(weir).ask('CONNECT', 'slow.test:443', host='slow.test:443').status, 500, 'the place is taken')
    client.close()
    weir.out.wait(lambda lines: any('went away while the parent proxy was asked' in line for line in lines), t.s(20))
    # The next one is asked for: its place is free.
    again = t.client(weir)
    again.send(request('CONNECT', 'slow.test:443', host='slow.test:443'))
    parent.wait_requests(2)
    t.equal(_connect(t, weir, 'quick.test:443')[1], 200)


def a_parent_that_is_not_there_is_named(t):
    weir = _child(t, t.refused(), host_rate='1/h')
    for _ in range(2):          # nothing left for the host: its turn came back
        response = t.get(weir, 'http://no-such-host.test/')
        t.equal(response.status, 502)
        t.check('parent proxy' in response.get('proxy-status'), response.get('proxy-status'))
        t.equal(_connect(t, weir, 'no-such-host.test:443')[1], 502)


# Where it may go

def connect_allow_judges_names_and_written_addresses(t):
    parent = _OldParent(t)
    rows = (('*:*', 'a.test', 200), ('*:*', '127.0.0.1', 403), ('*:*', '127.1', 403), ('*:*', '0x7f.1', 403),
            ('*:*', '2130706433', 403), ('*:*', '[::1]', 403), ('*:*', '10.1.2.3', 403), ('*:*', '192.0.2.1', 200),
            ('*:*', 'localhost', 403), ('*:*', 'LocalHost.', 403), ('*:*', 'a.localhost', 403), ('*:*', 'alocalhost', 200),
            ('localhost:*', 'localhost', 200), ('127.0.0.0/8:*', '127.0.0.1', 200), ('10.0.0.0/8:*', 'a.test', 403),
            ('*.test:*', 'a.test', 200), ('*.test:*', 'a.example', 403), ('*:8080', 'a.test', 403))
    weirs = {}
    for allow, host, wanted in rows:
        weir = weirs.setdefault(allow, None) or _child(t, parent, allow=allow)
        weirs[allow] = weir
        t.equal(t.get(weir, f'http://{host}/').status, wanted, f'{host} with {allow}')


# A second weir

@takes(60)
def a_second_weir_with_users_is_a_parent(t):
    origin = t.origin()
    parent = _forward(t, auth_file=_auth_file(t, ('child', 'hush hush')), allow=LOOPBACK)
    child = _forward(t, parent=f'127.0.0.1:{parent.port}', parent_auth_file=t.file('auth', 'child:hush hush\n'))
    client = t.client(child)
    for _ in range(3):
        t.equal(client.ask(target=_url(origin)).status, 200)
    t.equal(len(origin.connections), 1)

    def hello(conn):
        conn.send(b'hello')
        conn.hold()
    host = t.origin(handler=hello)
    tunnel, status, _ = _connect(t, child, host.address)
    t.equal([status, tunnel.exactly(5)], [200, b'hello'])
    stranger = _forward(t, parent=f'127.0.0.1:{parent.port}', parent_auth='child:wrong')
    t.equal([t.get(stranger, _url(origin)).status, _connect(t, stranger, host.address)[1]], [502, 502])


def a_proxy_that_is_its_own_parent_is_508(t):
    port = t.free_port()
    weir = _forward(t, port=port, parent=f'127.0.0.1:{port}')
    t.equal(t.get(weir, f'http://127.0.0.1:{port}/').status, 508)
    response = t.client(weir).ask('CONNECT', '127.0.0.1:9', host='127.0.0.1:9')
    t.equal(response.status, 502)
    t.check('508' in response.get('proxy-status'), response.get('proxy-status'))


@takes(60)
def tinyproxy_is_a_parent(t):
    program, port, origin = t.tool('tinyproxy'), t.free_port(), t.origin()
    config = t.file('tiny.conf', f'Port {port}\nListen 127.0.0.1\nBasicAuth campus secret\nTimeout 60\nMaxClients 20\n'
                                 f'ConnectPort {origin.port}\nLogFile "{os.path.join(t.tmp, "tiny.log")}"\n')
    t.start_tool(program, '-d', '-c', config)

    def listens():
        with socket.socket() as sock:
            return sock.connect_ex(('127.0.0.1', port)) == 0
    t.until(listens, 10, 'tinyproxy listens')
    weir = _forward(t, parent=f'127.0.0.1:{port}', parent_auth='campus:secret')
    t.equal(t.get(weir, _url(origin)).status, 200)
    tunnel, status, _ = _connect(t, weir, origin.address)
    t.equal(status, 200)
    tunnel.send(request())
    t.equal(tunnel.response().status, 200)
    t.equal(t.get(_forward(t, parent=f'127.0.0.1:{port}'), _url(origin)).status, 502, 'without credentials')


# Settings

def a_reload_changes_the_way_and_mixes_none(t):
    direct, parent = t.origin(name='direct'), t.origin(name='parent')
    head = f'[f]\nmode = forward\nconnect_allow = {LOOPBACK}\ndrain_timeout = 1\nport = {t.free_port()}\n'
    weir, _ = t.weir_of_file(head)
    client = t.client(weir)
    ask = lambda: client.ask(target=_url(direct)).body
    for lines, wanted in (('', b'direct'), (f'parent = {parent.address}\n', b'parent'), ('', b'direct'),
                          (f'parent = {parent.address}\n', b'parent')):
        seen = len(weir.log.lines)
        t.file('weir.ini', head + lines)
        weir.signal(1)
        weir.wait_log('new settings are in force', after=seen)
        t.equal([ask(), ask()], [wanted] * 2)


def credentials_are_never_shown(t):
    for arguments in (('--parent-auth', 'campus:hush-hush'), ('--parent-auth', 'hush-hush'),
                      ('--parent-auth-file', t.file('bad', 'hush-hush\n'))):
        shown = t.run('forward', '--parent', '127.0.0.1:3128', *arguments, '--check')
        t.equal(shown.code, 0 if 'campus' in arguments[1] else 2, f'{arguments}: {shown}')
        t.check(b'hush-hush' not in shown.out and 'hush-hush' not in shown.err, f'{shown}')
    for parent in ('campus', 'campus:0', 'http://campus:3128', 'unix:/x', 'a:1,b:2'):
        t.equal(t.run('forward', '--parent', parent, '--check').code, 2, parent)
