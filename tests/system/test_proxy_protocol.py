"""The PROXY protocol: clients named to weir (proxy_protocol), and by it (send_proxy). The peers are sockets played here, HAProxy
and nginx."""
import os
import socket
import struct

from client import request
from harness import Weir, takes
from origin import answer
from test_forward import LOOPBACK

SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'
TRUST = '127.0.0.0/8, ::1'


def _v2(client='192.0.2.7', port=5000, to='198.51.100.1', to_port=443, tlvs=b'', command=0x21, family=0x11):
    kind = socket.AF_INET if family >> 4 == 1 else socket.AF_INET6
    body = b'' if family == 0 else (socket.inet_pton(kind, client) + socket.inet_pton(kind, to) + struct.pack('!HH', port, to_port))
    return SIGNATURE + bytes([command, family]) + struct.pack('!H', len(body + tlvs)) + body + tlvs


def _v1(client='192.0.2.7', kind='TCP4', to='198.51.100.1'):
    return f'PROXY {kind} {client} {to} 5000 443\r\n'.encode()


def _closed(t, client):
    """Was the connection closed without a word?"""
    try:
        return client.rest() == b''
    except OSError:
        return True
    except Exception as error:                      # pylint: disable=broad-except
        return getattr(error, 'reset', False) and error.partial == b''


class _Named:
    """A target that reads a PROXY header at the start of each connection, and then answers one request after another."""

    def __init__(self, t):
        self.headers = []
        self.origin = t.origin(handler=self._handle)
        self.address = self.origin.address

    def _handle(self, conn):
        first = conn.exactly(12)
        if first == SIGNATURE:
            head = conn.exactly(4)
            header = (head[0], head[1], conn.exactly(struct.unpack('!H', head[2:])[0]))
        else:
            assert first.startswith(b'PROXY '), f'a connection began with {first!r}'
            rest = b''
            while not rest.endswith(b'\r\n'):
                rest += conn.exactly(1)
            header = (first + rest).decode()
        self.headers.append(header)
        while True:
            asked = conn.request()
            if asked is None:
                return
            conn.send(answer(b'ok'))


# Accepting

def the_client_that_a_header_names_is_the_client(t):
    origin = t.origin()
    log = os.path.join(t.tmp, 'access')
    weir = t.weir(origin, proxy_protocol='on', trust_forwarded=TRUST, extra=('--access-log', log))
    headers = ((_v1(), '192.0.2.7'), (_v1('2001:db8::7', 'TCP6', '::1'), '2001:db8::7'), (_v2(), '192.0.2.7'),
               (_v2('2001:db8::7', to='::1', family=0x21), '2001:db8::7'), (_v2(tlvs=b'\x04\x00\x03abc' * 100), '192.0.2.7'),
               (_v1('::ffff:192.0.2.8', 'TCP6', '::1'), '192.0.2.8'),
               (b'PROXY UNKNOWN\r\n', '127.0.0.1'), (b'PROXY UNKNOWN what ever\r\n', '127.0.0.1'),
               (_v2(command=0x20), '127.0.0.1'), (_v2(family=0), '127.0.0.1'))
    for header, wanted in headers:
        client = t.client(weir)
        client.send(header + request())
        t.equal(client.response().status, 200, f'{header!r}')
        t.equal(client.ask().status, 200, 'a second request needs no second header')
        t.equal(origin.requests[-1].get('x-forwarded-for'), wanted, f'{header!r}')
    weir.stop()
    with open(log, encoding='ascii') as file:
        # A line is written when the answer is out: that of the next connection's first request may overtake it.
        t.equal(sorted(line.split()[0] for line in file), sorted(2 * [wanted for _, wanted in headers]))


def a_header_may_come_in_pieces(t):
    origin = t.origin()
    weir = t.weir(origin, proxy_protocol='on', trust_forwarded=TRUST)
    for header in (_v1(), _v2(tlvs=b'\x04\x00\x01x')):
        client = t.client(weir)
        for at in range(len(header)):
            client.send(header[at:at + 1])
            t.read_by_peer(client)
        client.send(request())
        t.equal(client.response().status, 200)
        t.equal(origin.requests[-1].get('x-forwarded-for'), '192.0.2.7')


def what_is_no_header_closes_the_connection(t):
    origin = t.origin()
    weir = t.weir(origin, proxy_protocol='on', trust_forwarded=TRUST, header_timeout=0.5)
    bad = (request(), b'PROXY TCP4 192.0.2.7\r\n', b'PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n', b'PROXY TCP4 ::1 ::1 1 1\r\n',
           b'PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n', b'PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n', b'PROXY ' + b'x' * 200,
           b'PROXY UNKNOWN ' + b'x' * 200 + b'\r\n', SIGNATURE + b'\x31\x11\0\x0c' + bytes(12), SIGNATURE + b'\x22\x11\0\x0c' + bytes(12),
           SIGNATURE + b'\x21\x11\0\x04' + bytes(4), SIGNATURE + b'\x21\x11\xff\xff', b'\r\n\r\nGET / HTTP/1.1\r\n', b'PROXY TCP4', b'')
    for header in bad:
        client = t.client(weir)
        client.send(header)
        t.check(_closed(t, client), f'{header[:60]!r}')
    t.equal(origin.requests, [])
    weir.wait_log('it does not begin with a PROXY header')


def a_header_of_somebody_who_is_not_trusted_closes_the_connection(t):
    origin = t.origin()
    for trust in ('none', '192.0.2.0/24'):
        weir = t.weir(origin, proxy_protocol='on', trust_forwarded=trust)
        client = t.client(weir)
        client.send(_v1() + request())
        t.check(_closed(t, client), trust)
        weir.wait_log('trust_forwarded does not name it')
    t.equal(origin.requests, [])


def a_named_client_has_its_own_limits_and_access(t):
    weir = t.weir(t.origin(), proxy_protocol='on', trust_forwarded=TRUST, client_rate='1/h', deny='192.0.2.9',
                  client_connections=1)

    def ask(address):
        client = t.client(weir)
        client.send(_v1(address) + request())
        status = client.response().status
        client.close()
        return status
    t.equal([ask('192.0.2.7'), ask('192.0.2.7'), ask('192.0.2.8'), ask('192.0.2.9')], [200, 429, 200, 403])
    held = t.client(weir)
    held.send(_v1('192.0.2.10') + request())
    t.equal(held.response().status, 200)
    more = t.client(weir)
    more.send(_v1('192.0.2.10'))
    t.equal(more.response().status, 429, 'client_connections')


def a_drain_does_not_wait_for_a_header(t):
    weir = t.weir(t.origin(), proxy_protocol='on', trust_forwarded=TRUST, header_timeout=300, drain_timeout=300)
    client = t.client(weir)
    client.send(b'')
    t.until(lambda: weir.status('Threads') > 3, 10, 'a thread has it')
    weir.stop()


def forward_and_packet_modes_read_it_too(t):
    origin = t.origin()
    weir = Weir(t, ['forward', '--port', 0, '--connect-allow', LOOPBACK, '--proxy-protocol', 'on', '--trust-forwarded', TRUST])
    client = t.client(weir)
    client.send(_v2() + request(target=f'http://127.0.0.1:{origin.port}/'))
    t.equal(client.response().status, 200)
    t.equal(origin.requests[0].get('x-forwarded-for'), '192.0.2.7')
    switch = Weir(t, ['packet', '--port', 0, '--proxy-protocol', 'on', '--trust-forwarded', TRUST, '--deny', '192.0.2.9'])
    for address, wanted in (('192.0.2.7', b'no server'), ('192.0.2.9', b'may not come in')):
        client = t.client(switch)
        client.send(_v1(address) + b'{"type":0,"srcid":1,"privPoliId":9,"payload":"x"}\n')
        client.finish()
        t.check(wanted in client.rest(), address)
    client = t.client(switch)
    client.send(b'{"type":0,"srcid":1,"privPoliId":9,"payload":"x"}\n')
    t.check(_closed(t, client), 'a message without a header')


# Sending

def targets_are_told_whose_connection_it_is(t):
    for version in ('v1', 'v2'):
        target = _Named(t)
        weir = t.weir(target, send_proxy=version)
        client = t.client(weir)
        t.equal([client.ask().status for _ in range(3)], [200] * 3)
        wanted = f'PROXY TCP4 127.0.0.1 127.0.0.1 {client.local_port} {weir.port}\r\n' if version == 'v1' else \
            (0x21, 0x11, bytes([127, 0, 0, 1] * 2) + struct.pack('!HH', client.local_port, weir.port))
        t.equal(target.headers, [wanted] * 3, 'a connection for each request')


def a_client_known_by_x_forwarded_for_or_a_header_is_named_on(t):
    target = _Named(t)
    weir = t.weir(target, send_proxy='v1', trust_forwarded=TRUST)
    t.get(weir, fields=['X-Forwarded-For: 192.0.2.7'])
    t.get(weir, fields=['X-Forwarded-For: 2001:db8::7'])
    t.equal(target.headers, [f'PROXY TCP4 192.0.2.7 127.0.0.1 0 {weir.port}\r\n',
                             f'PROXY TCP6 2001:db8::7 ::ffff:127.0.0.1 0 {weir.port}\r\n'])
    second = t.weir(target, send_proxy='v1', trust_forwarded=TRUST, proxy_protocol='on')
    client = t.client(second)
    client.send(_v2() + request())
    t.equal(client.response().status, 200)
    t.equal(target.headers[-1], 'PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n')


def a_failed_target_is_replaced_with_send_proxy_too(t):
    target = _Named(t)
    weir = t.weir(t.refused(), target, send_proxy='v2')
    t.equal([t.get(weir).status for _ in range(4)], [200] * 4)


def probes_that_ask_something_begin_with_a_header_of_nobody(t):
    for version, wanted in (('v1', 'PROXY UNKNOWN\r\n'), ('v2', (0x20, 0, b''))):
        target = _Named(t)
        t.weir(target, send_proxy=version, probe_path='/health', probe_interval='0.05')
        target.origin.wait_requests(2)
        t.equal(target.headers[0], wanted)
        t.equal(target.origin.requests[0].target, '/health')


# Real ones

def _listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', port)) == 0


@takes(60)
def haproxy_names_its_clients_to_weir(t):
    program, origin = t.tool('haproxy'), t.origin()
    for word in ('send-proxy', 'send-proxy-v2'):
        weir, port = t.weir(origin, proxy_protocol='on', trust_forwarded=TRUST), t.free_port()
        config = t.file('haproxy.cfg', f'defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n'
                                       f'listen l\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{weir.port} {word}\n')
        t.start_tool(program, '-db', '-f', config)
        t.until(lambda port=port: _listens(port), 10, 'haproxy listens')
        with socket.create_connection(('127.0.0.1', port), 10, source_address=('127.0.0.5', 0)) as sock:
            sock.sendall(request())
            t.check(sock.recv(100).startswith(b'HTTP/1.1 200'), word)
        t.equal(origin.requests[-1].get('x-forwarded-for'), '127.0.0.5', word)


@takes(60)
def nginx_hears_of_clients_from_weir(t):
    program, port = t.tool('nginx'), t.free_port()
    config = t.file('nginx.conf', f"""daemon off; master_process off; pid {t.tmp}/pid; error_log {t.tmp}/error;
events {{}}
http {{
	access_log off; client_body_temp_path {t.tmp}/a; proxy_temp_path {t.tmp}/b; fastcgi_temp_path {t.tmp}/c;
	uwsgi_temp_path {t.tmp}/d; scgi_temp_path {t.tmp}/e;
	server {{ listen 127.0.0.1:{port} proxy_protocol; location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_server_port"; }} }}
}}
""")
    t.start_tool(program, '-c', config, '-p', t.tmp)
    t.until(lambda: _listens(port), 10, 'nginx listens')
    for version in ('v1', 'v2'):
        weir = t.weir(f'127.0.0.1:{port}', send_proxy=version, trust_forwarded=TRUST)
        t.equal(t.get(weir, fields=['X-Forwarded-For: 192.0.2.7']).body, f'192.0.2.7 {weir.port}'.encode(), version)
        t.equal(t.get(weir).body, f'127.0.0.1 {weir.port}'.encode(), version)
