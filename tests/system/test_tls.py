"""TLS on both sides: to the targets (ssl) and from the clients (tls_crtfile), against Python's ssl, openssl s_server and
s_client, nginx and curl. Every certificate is made by the test that needs it."""
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading

import contract
from certificates import Authority
from client import chunked, request
from harness import Lines, Weir, takes
from origin import answer
from wire import Cut

BOTH_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
HALF_HELLO = b'\x16\x03\x01\x02\x00\x01\x00'
FAILS = b'\x16\x03\x01\x00\x04\x02\x00\x00\x00' + bytes(50000)     # it begins with an answer, and there is more behind it


def _target(t, ca, pair, reply=None, **more):
    """An origin that speaks TLS, and notes what it was asked for."""
    context = pair.server(**{key: more.pop(key) for key in ('version', 'client_ca') if key in more})
    names = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    origin = t.origin(reply, tls=context, **more)
    origin.names = names
    return origin


def _local(ca):
    return ca.issue('localhost', 'DNS:localhost,IP:127.0.0.1')


def _ssl(ca, **more):
    return {'ssl': 'yes', 'cafile': ca.crt, **more}


def _https(pair, *others, **more):
    pairs = (pair, *others)
    return {'tls_keyfile': ','.join(p.key for p in pairs), 'tls_crtfile': ','.join(p.crt for p in pairs), **more}


# To the target

def a_target_is_spoken_to_in_both_versions_of_tls_and_its_connection_is_kept(t):
    ca = Authority(t)
    pair = _local(ca)
    big = os.urandom(600000)
    for version in BOTH_VERSIONS:
        origin = _target(t, ca, pair, lambda request: answer(big + request.body), version=version)
        weir = t.weir(f'localhost:{origin.port}', **_ssl(ca))
        client = t.client(weir)
        for size in (0, 1, 16384, 16385, 300000):
            body = os.urandom(size)
            response = client.ask('POST', '/', body=body)
            t.equal((response.status, hashlib.sha1(response.body).digest()), (200, hashlib.sha1(big + body).digest()),
                    f'{version.name}, {size} bytes')
        t.equal(len(origin.connections), 1, f'{version.name}: one connection for all')
        t.equal(origin.names, ['localhost'], 'the name that was asked for')
        t.equal(origin.connections[0].sock.version(), version.name.replace('_', '.'))
        t.equal(origin.connections[0].sock.selected_alpn_protocol(), 'http/1.1')


def chunks_and_slow_bodies_pass_in_both_directions(t):
    ca = Authority(t)
    pair = _local(ca)
    pieces = [os.urandom(size) for size in (1, 70000, 3, 16384, 40000)]
    origin = _target(t, ca, pair, lambda request: answer(chunked([request.body[::-1]]),
                                                         fields=['Transfer-Encoding: chunked'], length=False))
    weir = t.weir(f'127.0.0.1:{origin.port}', **_ssl(ca), **_https(pair))
    client = t.client(weir, tls=ca.client(), name='localhost')
    whole = b''.join(pieces)
    client.send(request('POST', '/', ['Transfer-Encoding: chunked']))
    for piece in pieces:
        client.send(b'%x\r\n%s\r\n' % (len(piece), piece))
        t.until(lambda piece=piece: origin.received_bytes > 0, what='the body is passed on as it comes')
    client.send(b'0\r\n\r\n')
    t.equal(client.response().body, whole[::-1])
    t.equal(t.client(weir, tls=ca.client(), name='localhost').ask('POST', '/', body=whole).body, whole[::-1])


def a_certificate_that_is_wrong_takes_the_target_out_and_the_log_says_why(t):
    ca, stranger = Authority(t), Authority(t, 'A Stranger')
    cases = [
        (_local(stranger), {}, r'certificate is refused: unable to get local issuer certificate; wanted was localhost'),
        (ca.issue('other', 'DNS:other.example,DNS:more.example'), {},
         r'certificate is refused: hostname mismatch; wanted was localhost, it is for other\.example, more\.example'),
        (_local(ca), {'ssl_name': 'api.example'}, r'hostname mismatch; wanted was api\.example, it is for localhost'),
        (ca.issue('localhost'), {}, r'certificate is refused: hostname mismatch; wanted was localhost'), # a common name is no name
        (ca.issue('localhost', 'DNS:localhost', days=-1), {}, r'certificate has expired on \d{4}-\d\d-\d\d; wanted was'),
    ]
    for pair, more, why in cases:
        origin = _target(t, ca, pair)
        weir = t.weir(f'localhost:{origin.port}', **_ssl(ca, **more))
        response = t.get(weir)
        t.equal((response.status, response.body), (500, contract.ALL_OUT_BODY), why)
        weir.wait_log(rf'target 127\.0\.0\.1:{origin.port} leaves the rotation: .*{why}')
        t.equal(origin.requests, [], 'nothing was asked of it')
        t.equal(t.get(weir).status, 500)


def an_endpoint_that_is_an_address_must_be_named_as_one(t):
    ca = Authority(t)
    named, addressed = ca.issue('localhost', 'DNS:localhost'), ca.issue('x', 'IP:127.0.0.1')
    origin, other = _target(t, ca, named, name='named'), _target(t, ca, addressed, name='addressed')
    weir = t.weir(f'127.0.0.1:{origin.port}', **_ssl(ca))
    t.equal(t.get(weir).status, 500)
    weir.wait_log(r'IP address mismatch; wanted was 127\.0\.0\.1, it is for localhost')
    t.equal(t.get(t.weir(f'127.0.0.1:{other.port}', **_ssl(ca))).body, b'addressed')
    t.equal(other.names, [None], 'there are no addresses in SNI')
    t.equal(t.get(t.weir(f'127.0.0.1:{origin.port}', **_ssl(ca, ssl_name='localhost'))).body, b'named')
    t.equal(origin.names[-1], 'localhost')


def a_good_target_answers_in_the_place_of_one_with_a_wrong_certificate(t):
    ca = Authority(t)
    bad, good = _target(t, ca, ca.issue('x', 'DNS:x')), _target(t, ca, _local(ca), name='good')
    weir = t.weir(f'127.0.0.1:{bad.port}', f'127.0.0.1:{good.port}', **_ssl(ca))
    t.equal([t.get(weir, method='POST', body=b'x').body for _ in range(4)], [b'good'] * 4)
    t.equal(bad.requests, [])


def without_verification_anybody_is_believed_and_the_log_warns(t):
    ca = Authority(t)
    origin = _target(t, ca, ca.issue('x', 'DNS:x', days=-1))
    weir = t.weir(f'localhost:{origin.port}', ssl='yes', ssl_verify='no')
    weir.wait_log(r'warn .*--ssl-verify: targets. certificates are not checked')
    t.equal(t.get(weir).body, b'origin')
    done = t.run('reverse', '--endpoint', 'localhost:1', '--ssl', '--ssl-verify=off', '--check')
    t.equal(done.code, 0)
    t.check('warning: --ssl-verify: targets' in done.err, done.err)


def a_target_that_wants_a_certificate_gets_ours(t):
    ca, clients = Authority(t), Authority(t, 'Client Authority')
    pair, ours = _local(ca), clients.issue('weir', 'DNS:weir')
    for version in BOTH_VERSIONS:
        origin = _target(t, ca, pair, version=version, client_ca=clients.crt)
        weir = t.weir(f'localhost:{origin.port}', **_ssl(ca, keyfile=ours.key, crtfile=ours.crt))
        t.equal(t.get(weir).body, b'origin', version.name)
        t.equal(origin.connections[0].sock.getpeercert()['subject'], ((('commonName', 'weir'),),), version.name)


def a_refused_client_certificate_is_told_and_no_probe_brings_the_target_back(t):
    ca, clients, stranger = Authority(t), Authority(t, 'Client Authority'), Authority(t, 'A Stranger')
    pair, wrong, ours = _local(ca), stranger.issue('weir', 'DNS:weir'), clients.issue('weir', 'DNS:weir')
    for version in BOTH_VERSIONS:
        for shown, why in ((None, 'alert (116, certificate required|40, handshake failure)'), (wrong, 'alert 48, unknown ca')):
            origin = _target(t, ca, pair, version=version, client_ca=clients.crt)
            text = f'[main]\nport = 0\nendpoint = localhost:{origin.port}\nssl = yes\ncafile = {ca.crt}\nprobe_interval = 0.05\n'
            keys = f'keyfile = {shown.key}\ncrtfile = {shown.crt}\n' if shown else ''
            weir, path = t.weir_of_file('[globals]\nlog_level = debug\n' + text + keys, '--node', 'main')
            # A POST whose bytes were sent: refused as unserved, for the target can't have read them.
            response = t.get(weir, method='POST', body=b'x')
            t.equal((response.status, response.body), (500, contract.ALL_OUT_BODY), f'{version.name} {why}')
            weir.wait_log(f'leaves the rotation: it refused the TLS handshake: {why}')
            weir.wait_log(f'probe of target .*: it refused the TLS handshake: {why}')
            t.check('is back' not in weir.log.text(), f'{version.name}: a probe brought it back')
            t.file('weir.ini', text + f'keyfile = {ours.key}\ncrtfile = {ours.crt}\n')
            weir.signal(signal.SIGHUP)
            weir.wait_log('is back in the rotation')
            t.equal(t.get(weir).body, b'origin')
            weir.stop()


def a_probe_shakes_hands_and_a_mended_certificate_brings_the_target_back(t):
    ca = Authority(t)
    good = _local(ca)
    context = ca.issue('x', 'DNS:x').server()
    origin = t.origin(tls=context)
    weir = t.weir(f'localhost:{origin.port}', **_ssl(ca), probe_interval=0.05, log_level='debug')
    t.equal(t.get(weir).status, 500)
    weir.wait_log(r'probe of target .*: its certificate is refused: hostname mismatch')
    t.check('is back' not in weir.log.text(), 'a connect alone brought it back')
    context.load_cert_chain(good.crt, good.key)
    weir.wait_log('is back in the rotation')
    t.equal(t.get(weir).body, b'origin')


def a_probe_asks_for_its_path_over_tls(t):
    ca = Authority(t)
    origin = _target(t, ca, _local(ca))
    weir = t.weir(f'localhost:{origin.port}', **_ssl(ca), probe_path='/health', probe_interval=0.1)
    origin.wait(lambda: '/health' in origin.targets(), what='a probe')
    t.equal(t.get(weir).body, b'origin')


def sessions_are_resumed(t):
    ca = Authority(t)
    pair = _local(ca)
    for version in BOTH_VERSIONS:
        origin = _target(t, ca, pair, lambda request: answer(b'x', fields=['Connection: close']), version=version)
        weir = t.weir(f'localhost:{origin.port}', **_ssl(ca), extra=['--trace'])
        t.equal([t.get(weir).status for _ in range(6)], [200] * 6)
        origin.wait(lambda origin=origin: not origin.live, what='the end of its connections')
        resumed = [conn.is_resumed for conn in origin.connections]
        t.equal(resumed, [False] + [True] * 5, version.name)
        weir.wait_log(rf'tls +{version.name.replace("_", ".")}, resumed')


def other_settings_do_not_use_connections_or_sessions_of_older_ones(t):
    ca, stranger = Authority(t), Authority(t, 'A Stranger')
    origin = _target(t, ca, _local(ca))
    text = f'[main]\nport = 0\nendpoint = localhost:{origin.port}\nssl = yes\n'
    weir, _ = t.weir_of_file(text + 'ssl_verify = no\n', '--node', 'main')
    t.equal(t.get(weir).body, b'origin')
    t.file('weir.ini', text + f'cafile = {stranger.crt}\n')
    weir.signal(signal.SIGHUP)
    weir.wait_log(contract.RELOADED)
    t.equal(t.get(weir).status, 500)
    weir.wait_log('unable to get local issuer')


def a_body_that_only_the_end_ends_is_whole_with_close_notify_and_cut_short_without(t):
    ca = Authority(t)

    def say(conn, goodbye):
        if conn.request() is None:
            return
        conn.send(b'HTTP/1.1 200 OK\r\n\r\nhalf of it')
        if goodbye:
            conn.say_goodbye()

    pair = _local(ca)
    whole = t.origin(tls=pair.server(), handler=lambda conn: say(conn, True))
    cut = t.origin(tls=pair.server(), handler=lambda conn: say(conn, False))
    t.equal(t.get(t.weir(f'localhost:{whole.port}', **_ssl(ca))).body, b'half of it')
    weir = t.weir(f'localhost:{cut.port}', **_ssl(ca), access_log='-')
    try:
        body = t.get(weir).body
        t.check(False, f'a body that was cut short looked whole: {body!r}')
    except Cut:
        pass
    weir.out.wait(lambda lines: any('the target\'s answer was cut short' in line for line in lines), t.s(5))
    t.check('cut short' in weir.out.text(), weir.out.text())
    # The same for a client over TLS that knows no chunks: no close_notify may make it look whole.
    weir = t.weir(f'localhost:{cut.port}', **_ssl(ca), **_https(pair))
    client = t.client(weir, tls=ca.client(), name='localhost')
    client.send(request(version='HTTP/1.0'))
    client.head()
    client.rest()
    t.check(client.ragged or client.reset, 'a body that was cut short ended with a goodbye')
    weir = t.weir(f'localhost:{whole.port}', **_ssl(ca), **_https(pair))
    client = t.client(weir, tls=ca.client(), name='localhost')
    client.send(request(version='HTTP/1.0'))
    client.head()
    t.equal((client.rest(), client.ragged or client.reset), (b'half of it', False))


def a_handshake_has_the_deadline_of_the_connection_however_it_is_dragged_out(t):
    ca = Authority(t)
    ended = threading.Event()
    t.cleanup(ended.set)

    def silent(conn):
        conn.hold()

    def drips(conn):
        conn.fill(conn._until(5), 'a hello')
        for byte in b'\x16\x03\x03\x40\x00' + bytes(16384):
            conn.send(bytes([byte]))
            if ended.wait(0.05):
                return

    for handler in (silent, drips):
        bad, good = t.origin(handler=handler), _target(t, ca, _local(ca), name='good')
        weir = t.weir(f'127.0.0.1:{bad.port}', f'127.0.0.1:{good.port}', **_ssl(ca), connect_timeout=0.5,
                      probe_interval=30)
        t.equal(t.get(weir).body, b'good', handler.__name__)
        weir.wait_log(rf'127.0.0.1:{bad.port} leaves the rotation: the TLS handshake did not end within connect_timeout')


def a_target_that_speaks_no_tls_is_out(t):
    ca = Authority(t)
    origin = t.origin(handler=lambda conn: (conn.fill(conn._until(5), 'a hello'), conn.send(answer(b'plain'))))
    closing = t.origin(handler=lambda conn: conn.fill(conn._until(5), 'a hello'))
    weir = t.weir(origin, **_ssl(ca))
    t.equal(t.get(weir).status, 500)
    weir.wait_log('leaves the rotation: TLS failed: wrong version number')
    weir = t.weir(closing, **_ssl(ca))
    t.equal(t.get(weir).status, 500)
    weir.wait_log('leaves the rotation: it (closed the connection during the TLS handshake|refused)|reset by peer')


def an_idle_connection_that_the_target_closed_is_not_used(t):
    ca = Authority(t)
    answered, has_said_it = threading.Event(), threading.Event()

    # The goodbye comes from the thread that answered: OpenSSL puts one off that is said while another thread writes.
    def handler(conn):
        conn.request()
        conn.send(answer(b''))
        answered.wait(t.s(10))
        conn.say_goodbye()
        has_said_it.set()
        conn.hold()

    origin = t.origin(handler=handler, tls=_local(ca).server())
    weir = t.weir(f'localhost:{origin.port}', **_ssl(ca))
    t.equal(t.get(weir, method='POST', body=b'1').status, 200)
    answered.set()
    t.check(has_said_it.wait(t.s(10)), 'the origin said no goodbye')
    t.equal(t.get(weir, method='POST', body=b'2').status, 200)
    t.equal(len(origin.connections), 2)


# From the client

def https_is_served_and_the_target_is_told(t):
    ca = Authority(t)
    pair, origin = _local(ca), t.origin()
    weir = t.weir(origin, **_https(pair))
    for version in BOTH_VERSIONS:
        client = t.client(weir, tls=ca.client(version=version, alpn=('h2', 'http/1.1')), name='localhost')
        t.equal([client.ask('POST', '/', body=os.urandom(50000)).body for _ in range(3)], [b'origin'] * 3)
        t.equal((client.sock.version(), client.sock.selected_alpn_protocol()),
                (version.name.replace('_', '.'), 'http/1.1'))
    t.equal(origin.requests[0].get('x-forwarded-proto'), 'https')
    t.equal(t.get(weir, tls=ca.client()).status, 200)


def what_is_no_longer_safe_is_not_spoken(t):
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)))
    openssl = t.tool('openssl')
    for arguments, why in ((('-tls1_1', '-cipher', 'DEFAULT@SECLEVEL=0'), 'unsupported protocol'),
                           (('-tls1_2', '-cipher', 'AES128-SHA'), 'no shared cipher'),
                           (('-alpn', 'h2'), 'no application protocol|callback failed|alert')):
        done = t.run_tool(openssl, 's_client', '-connect', f'127.0.0.1:{weir.port}', *arguments, stdin=b'\n')
        t.check(done.code != 0, f'{arguments}: {done}')
        weir.wait_log(f'TLS handshake of 127.0.0.1 failed: .*({why})')


def the_certificate_is_chosen_by_the_name_that_is_asked_for(t):
    ca = Authority(t)
    first, second = ca.issue('first', 'DNS:first.example'), ca.issue('second', 'DNS:second.example,DNS:*.wild.example')
    weir = t.weir(t.origin(), **_https(first, second))

    def shown(name):
        context = ca.client()
        context.check_hostname = False
        client = t.client(weir, tls=context, name=name)
        t.equal(client.ask().status, 200)
        return client.sock.getpeercert()['subject'][0][0][1]

    t.equal([shown(name) for name in ('first.example', 'second.example', 'SECOND.example', 'a.wild.example',
                                      'a.b.wild.example', 'unknown.example', '127.0.0.1')],
            ['first', 'second', 'second', 'second', 'first', 'first', 'first'])


def plain_http_on_an_https_port_is_told_so(t):
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)), access_log='-')
    for said in (request(), request('OPTIONS', '*'), request('POST', '/', body=bytes(20000)), b'nonsense\r\n\r\n',
                 b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'):
        client = t.client(weir)
        client.send(said)
        response = client.response()
        t.equal(response.status, 400, f'{said[:30]!r}')
        t.check(b'this port speaks HTTPS' in response.body, response.body)
        t.check('this port speaks HTTPS' in response.get('proxy-status'), 'Proxy-Status')
        t.check(client.closed(), 'it is closed')
    weir.out.wait(lambda lines: len(lines) >= 5, t.s(5))
    t.equal(len([line for line in weir.out.text().split('\n') if 'this port speaks HTTPS' in line]), 5, 'access lines')


def a_client_certificate_is_asked_for_and_checked(t):
    ca, clients, stranger = Authority(t), Authority(t, 'Client Authority'), Authority(t, 'A Stranger')
    weir = t.weir(t.origin(), **_https(_local(ca), tls_cafile=clients.crt))
    good, late = clients.issue('good'), clients.issue('late', days=-1)
    for version in BOTH_VERSIONS:
        t.equal(t.get(weir, tls=ca.client(good, version), name='localhost').status, 200, version.name)
        for pair, why in ((None, 'peer did not return a certificate'), (late, 'certificate has expired on'),
                          (stranger.issue('x'), "the client's certificate is refused: unable to get local issuer")):
            seen = len(weir.log.lines)
            try:
                response = t.get(weir, tls=ca.client(pair, version), name='localhost')
                t.check(False, f'{version.name} {why}: {response}')
            except (ssl.SSLError, Cut, ConnectionError):
                pass
            weir.wait_log(f'TLS handshake of 127.0.0.1 failed: .*{why}', after=seen)


def a_new_certificate_comes_with_sighup_and_drops_nobody(t):
    ca = Authority(t)
    old, new = ca.issue('old', 'DNS:localhost'), ca.issue('new', 'DNS:localhost')
    files = [t.file('live.key', open(old.key).read()), t.file('live.crt', open(old.crt).read())]
    origin = t.origin()
    weir, _ = t.weir_of_file(f'[main]\nport = 0\nendpoint = {origin.address}\ntls_keyfile = {files[0]}\n'
                             f'tls_crtfile = {files[1]}\n', '--node', 'main')

    def shown():
        client = t.client(weir, tls=ca.client(), name='localhost')
        t.equal(client.ask().status, 200)
        return client.sock.getpeercert()['subject'][0][0][1], client

    name, first = shown()
    t.equal(name, 'old')
    t.file('live.crt', open(new.crt).read())        # and not yet its key
    seen = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log(r'the old settings stay in force: .*weir.ini:4: tls_keyfile: ".*live.key": not the key of the certificate',
                  after=seen)
    t.equal(shown()[0], 'old')
    t.file('live.key', open(new.key).read())
    seen = len(weir.log.lines)
    weir.signal(signal.SIGHUP)
    weir.wait_log('new settings are in force', after=seen)
    t.equal(shown()[0], 'new')
    t.equal(first.ask().status, 200, 'a connection of before')


def _rest_after_failing(t, weir):
    """Fails a handshake, with more behind it: the answer begins with an alert. What follows that."""
    client = t.client(weir)
    weir.signal(signal.SIGSTOP)     # so that all of it lies there
    client.send(FAILS)
    weir.signal(signal.SIGCONT)
    t.equal(client.exactly(2), b'\x15\x03', 'an alert')
    client.finish()
    return client.rest()


def why_a_handshake_failed_is_told_to_a_client_that_has_sent_more_behind_it(t):
    """A close with bytes that nobody read would be a reset, and take the alert back."""
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)))
    _rest_after_failing(t, weir)
    weir.wait_log('TLS handshake of 127.0.0.1 failed: ')


def half_a_handshake_ends_at_header_timeout_and_holds_nobody_up(t):
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)), header_timeout=1)
    slow = [t.client(weir) for _ in range(20)]
    for client in slow[:10]:
        client.send(HALF_HELLO)
    t.equal([t.get(weir, tls=ca.client(), name='localhost').status for _ in range(5)], [200] * 5)
    for client in slow:
        t.equal(client.rest(), b'')
    weir.wait_log('TLS handshake of 127.0.0.1 failed: it did not end in time')


def a_handshake_that_drips_is_cut_off_too(t):
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)), header_timeout=1)
    client, pause = t.client(weir), threading.Event()
    try:
        for byte in b'\x16\x03\x01\x20\x00\x01\x00\x1f\xfc' + bytes(8000):
            client.send(bytes([byte]))
            pause.wait(0.002)
        t.check(False, 'eight thousand bytes of a hello, one at a time, were listened to')
    except (BrokenPipeError, ConnectionResetError):
        pass
    weir.wait_log('did not end in time')


def a_drain_does_not_wait_for_half_a_handshake(t):
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)), header_timeout=60, drain_timeout=60)
    half, idle = t.client(weir), t.client(weir, tls=ca.client(), name='localhost')
    half.send(HALF_HELLO)
    t.equal(idle.ask().status, 200)
    t.read_by_peer(half)
    weir.stop(20)
    t.equal(idle.rest(), b'')
    t.check(not idle.ragged, 'an idle connection is ended with a goodbye')


def a_slow_reader_gets_all_of_it(t):
    ca = Authority(t)
    big = os.urandom(3000000)
    weir = t.weir(t.origin(lambda request: answer(big)), **_https(_local(ca)))
    client = t.client(weir, tls=ca.client(), name='localhost', receive_buffer=4096)
    client.send(request())
    client.head()
    got, pause = bytearray(), threading.Event()
    while len(got) < 300000:
        got += client.exactly(20000)
        pause.wait(0.01)
    got += client.exactly(len(big) - len(got))
    t.equal(hashlib.sha1(got).digest(), hashlib.sha1(big).digest())
    t.equal(client.ask('GET').body, big, 'and the connection goes on')


def a_client_that_stops_reading_is_given_up(t):
    ca = Authority(t)
    big = bytes(20000000)
    weir = t.weir(t.origin(lambda request: answer(big)), **_https(_local(ca)), idle_timeout=0.5, access_log='-')
    client = t.client(weir, tls=ca.client(), name='localhost', receive_buffer=4096)
    client.send(request())
    client.head()
    weir.out.wait(lambda lines: any('client went away' in line for line in lines), t.s(20))
    t.check('client went away' in weir.out.text(), weir.out.text())


def a_client_that_hangs_up_in_line_gives_its_place_back(t):
    """Its close_notify lies before the end of the stream: bytes, and yet no request."""
    ca = Authority(t)
    origin = t.origin()
    weir = t.weir(origin, **_https(_local(ca)), threshold='1/m', backlog=600, access_log='-')
    t.equal(t.get(weir, tls=ca.client(), name='localhost').status, 200)
    for goodbye in (True, False):
        client = t.client(weir, tls=ca.client(), name='localhost')
        client.send(request(target=f'/gone-{goodbye}'))
        t.read_by_peer(client)
        if goodbye:
            client.say_goodbye()
        client.close()
        weir.out.wait(lambda lines: any(f'/gone-{goodbye}' in line for line in lines), t.s(10))
        t.check(re.search(f'/gone-{goodbye} .*went away', weir.out.text()), weir.out.text())
    t.equal(len(origin.requests), 1)


def _refuses_late(t, ca, behind_bytes):
    """An origin that looks at our part of the handshake, and refuses it, only when so much has come behind it."""
    context = _local(ca).server(ssl.TLSVersion.TLSv1_3, Authority(t, 'Client Authority').crt)

    def handler(conn):
        heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(heard, said, server_side=True)
        for count in (1, behind_bytes):
            while len(conn.buffer) < count and conn.fill(conn._until(20), 'a flight of the handshake'):
                pass
            heard.write(conn.take(len(conn.buffer)))
            try:
                server.do_handshake()
                server.read(1)
            except ssl.SSLError:
                pass
            conn.send(said.read())
        conn.hold()

    return t.origin(handler=handler)


def a_target_that_refuses_us_is_out_though_the_client_is_still_sending(t):
    ca, piece = Authority(t), os.urandom(8000)
    origin = _refuses_late(t, ca, 2 * len(piece))
    weir = t.weir(origin, **_ssl(ca))
    client = t.client(weir)
    client.send(request('POST', '/', ['Content-Length: 40000']) + piece)
    t.until(lambda: origin.received_bytes > len(piece), what='the first piece')
    client.send(piece)
    weir.wait_log('leaves the rotation: it refused the TLS handshake: alert 116, certificate required')
    t.equal(client.response().status, 502)


def a_body_keeps_its_beginning_when_more_comes_while_its_second_try_waits(t):
    """What has come is looked at, for its sender has finished sending: bytes, that must not take the place of the body's."""
    ca, body = Authority(t), os.urandom(6000)
    pair = _local(ca)
    refuses, good = _refuses_late(t, ca, len(body)), _target(t, ca, pair, lambda request: answer(request.body))
    weir = t.weir(refuses, f'127.0.0.1:{good.port}', probe_interval=60, threshold='0.5/s', burst=1, backlog=60,
                  **_ssl(ca), **_https(pair))
    client = t.client(weir, tls=ca.client(), name='localhost')
    client.send(request('POST', '/', body=body))
    weir.wait_log('leaves the rotation')
    client.send(request('POST', '/', body=body[::-1]))
    socket.socket.shutdown(client.sock, socket.SHUT_WR)     # without a goodbye: Python would read nothing after that
    t.equal(client.response().body, body)
    t.equal(good.requests[0].body, body)


def requests_sent_together_are_answered_in_order(t):
    ca = Authority(t)
    weir = t.weir(t.origin(lambda request: answer(request.target.encode() + request.body)), **_https(_local(ca)))
    client = t.client(weir, tls=ca.client(), name='localhost')
    client.send(b''.join(request('POST', f'/{i}', body=b'b' * i * 1000) for i in range(20)))
    t.equal([client.response().body for i in range(20)], [f'/{i}'.encode() + b'b' * i * 1000 for i in range(20)])


def one_connection_too_many_is_refused_in_tls(t):
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)), client_connections=1)
    first = t.client(weir, tls=ca.client(), name='localhost')
    t.equal(first.ask().status, 200)
    second = t.client(weir, tls=ca.client(), name='localhost')
    t.equal(second.response().status, 429)
    t.check(second.closed() and not second.ragged, 'it is closed with a goodbye')
    # One that does not even shake hands is counted nowhere, and so is not waited for as the one that is counted.
    weir = t.weir(t.origin(), **_https(_local(ca)), client_connections=1, header_timeout=300)
    first = t.client(weir)
    first.send(HALF_HELLO)
    t.read_by_peer(first)
    third = t.client(weir)
    third.send(HALF_HELLO)
    t.equal(third.rest(20), b'')
    t.check(first.silent(0.2), 'the one that is counted was not waited for')
    # Of two such at once one is not even waited for, and the log says why.
    weir = t.weir(t.origin(), **_https(_local(ca)), client_connections=1, access_log='-')
    first = t.client(weir, tls=ca.client(), name='localhost')
    t.equal(first.ask().status, 200)
    crowd = [t.client(weir) for _ in range(2)]
    for client in crowd:
        client.send(HALF_HELLO)
    t.equal([client.rest(20) for client in crowd], [b''] * 2)
    t.check(weir.out.wait(lambda lines: any('over client_connections' in line for line in lines), t.s(10)), weir.out.text())


def an_upgrade_becomes_a_tunnel_over_tls_on_both_sides(t):
    ca = Authority(t)
    pair = _local(ca)
    big = os.urandom(2000000)

    def echo(conn):
        if conn.request() is None:
            return
        conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello')
        got = conn.exactly(len(big))
        conn.send(got[::-1])
        conn.rest()                                 # the client's goodbye
        conn.send(b'last words')
        conn.say_goodbye()

    for client_is_tls, target_is_tls in ((True, True), (True, False), (False, True)):
        origin = t.origin(handler=echo, tls=pair.server() if target_is_tls else None)
        weir = t.weir(f'localhost:{origin.port}', **(_ssl(ca) if target_is_tls else {}),
                      **(_https(pair) if client_is_tls else {}))
        client = t.client(weir, tls=ca.client() if client_is_tls else None, name='localhost')
        client.send(request(fields=['Connection: Upgrade', 'Upgrade: echo']))
        t.equal(client.head().status, 101)
        t.equal(client.exactly(5), b'hello')
        client.send(big)                            # in this thread: two may not share one of Python's TLS sockets
        got = client.exactly(len(big))
        t.equal(hashlib.sha1(got).digest(), hashlib.sha1(big[::-1]).digest(), f'{client_is_tls} {target_is_tls}')
        if client_is_tls:                           # Python reads nothing more after its own goodbye
            client.close()
        else:
            client.finish()
            t.equal(client.rest(), b'last words')


def a_tunnel_that_is_cut_does_not_end_with_a_goodbye(t):
    """Whoever hears close_notify believes that all of it came."""
    ca = Authority(t)
    pair = _local(ca)
    ended = []

    def speaks_and_is_cut(conn):
        if conn.request() is None:
            return
        conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhalf of it')

    def listens(conn):
        if conn.request() is None:
            return
        conn.send(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello')
        try:
            conn.rest()
            ended.append('cut' if conn.ragged or conn.reset else 'goodbye')
        except OSError:
            ended.append('cut')

    def tunnel(handler, **more):
        origin = t.origin(handler=handler, tls=pair.server())
        weir = t.weir(f'localhost:{origin.port}', **_ssl(ca), **_https(pair), **more)
        client = t.client(weir, tls=ca.client(), name='localhost')
        client.send(request(fields=['Connection: Upgrade', 'Upgrade: echo']))
        t.equal(client.head().status, 101)
        return client

    client = tunnel(speaks_and_is_cut)
    t.equal(client.rest(), b'half of it', 'what came before the cut')
    t.check(client.ragged or client.reset, 'the client heard a goodbye that the target never said')
    client = tunnel(listens)
    t.equal(client.exactly(5), b'hello')
    client.close()
    t.until(lambda: ended, what='the end at the target')
    t.equal(ended, ['cut'], 'the target heard a goodbye that the client never said')
    client = tunnel(listens, tunnel_timeout=0.5)
    t.equal(client.exactly(5), b'hello')
    t.equal(client.rest(), b'')
    t.check(client.ragged or client.reset, 'a tunnel that was given up ended with a goodbye')


def a_proxy_header_comes_before_the_handshake_on_both_sides(t):
    ca = Authority(t)
    pair = _local(ca)
    seen = []

    class Peeled:
        """A context that takes the PROXY header off before it shakes hands."""

        def wrap_socket(self, sock, **more):
            line = b''
            while not line.endswith(b'\r\n'):
                line += sock.recv(1)
            seen.append(line)
            return pair.server().wrap_socket(sock, **more)

    origin = t.origin(tls=Peeled())
    weir = t.weir(f'localhost:{origin.port}', **_ssl(ca), **_https(pair), proxy_protocol='on', trust_forwarded='127.0.0.1',
                  send_proxy='v1')

    def ask():
        sock = socket.create_connection(('127.0.0.1', weir.port), t.s(10))
        sock.sendall(b'PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n')
        with ca.client().wrap_socket(sock, server_hostname='localhost') as secure:
            secure.sendall(request(fields=['Connection: close']))
            said = b''
            while piece := secure.recv(4096):
                said += piece
        return said[:12], said[-6:]

    t.equal([ask(), ask()], [(b'HTTP/1.1 200', b'origin')] * 2)
    t.equal([line.split()[:3] for line in seen], [[b'PROXY', b'TCP4', b'192.0.2.7']] * 2)
    t.equal(origin.requests[0].get('x-forwarded-for'), '192.0.2.7')
    # A probe's handshake has one, too, or it would never bring the target back.
    origin.kill()
    t.equal(ask()[0], b'HTTP/1.1 500', 'all are out')
    weir.wait_log('leaves the rotation')
    origin.revive()
    weir.wait_log('is back in the rotation')


# Other modes

def a_forward_proxy_speaks_tls_with_its_clients(t):
    ca = Authority(t)
    pair, curl = _local(ca), t.tool('curl')
    plain, inner = t.origin(name='plain'), t.origin(lambda request: answer(b'inner' * 100000), tls=pair.server())
    arguments = ['forward', '--port', 0, '--connect-allow', '127.0.0.1:*']
    for key, value in _https(pair).items():
        arguments += ['--' + key.replace('_', '-'), value]
    weir = Weir(t, arguments)
    common = [curl, '-s', '--proxy', f'https://localhost:{weir.port}', '--proxy-cacert', ca.crt, '--cacert', ca.crt]
    t.equal(t.run_tool(*common, f'http://{plain.address}/').out, b'plain')
    t.equal(plain.requests[0].get('x-forwarded-proto'), 'http', 'what was asked for is http')
    t.equal(t.run_tool(*common, f'https://127.0.0.1:{inner.port}/').out, b'inner' * 100000)


def _line(client):
    until = client._until(5)
    while b'\n' not in client.buffer and client.fill(until, 'a line'):
        pass
    return bytes(client.buffer)


def a_message_switch_speaks_tls_with_its_clients(t):
    ca = Authority(t)
    arguments = ['packet', '--port', 0]
    for key, value in _https(_local(ca)).items():
        arguments += ['--' + key.replace('_', '-'), value]
    weir = Weir(t, arguments)
    client = t.client(weir, tls=ca.client(), name='localhost')
    client.send(b'{"type":"0","srcid":1,"privPoliId":7,"payload":"x"}\n')
    t.equal(json.loads(_line(client))['type'], '3')
    client = t.client(weir)
    client.send(b'{"type":"0","srcid":1,"privPoliId":7,"payload":"x"}\n')
    t.equal(json.loads(_line(client))['error'], 'this port speaks TLS')


def a_message_switch_tells_why_a_handshake_failed_and_no_more(t):
    """By an alert, not by a message in plain text: one that may come in, and one that has a connection too many."""
    ca = Authority(t)
    arguments = ['packet', '--port', 0, '--access-log', '-', '--client-connections', 1]
    for key, value in _https(_local(ca)).items():
        arguments += ['--' + key.replace('_', '-'), value]
    for is_one_too_many in (False, True):
        weir = Weir(t, arguments)
        if is_one_too_many:
            first = t.client(weir, tls=ca.client(), name='localhost')
            first.send(b'{}')
            t.check('type is missing' in json.loads(_line(first))['error'], 'the first is served')
        t.check(b'{' not in _rest_after_failing(t, weir), 'more than an alert')
        weir.wait_log('TLS handshake of 127.0.0.1 failed: ')
        weir.stop()
        t.equal(len(weir.out.lines), int(is_one_too_many), 'messages in the access log')


# Settings

def what_does_not_fit_together_is_named_by_file_and_line(t):
    ca = Authority(t)
    a, b = ca.issue('a', 'DNS:a'), ca.issue('b', 'DNS:b')
    secret = open(a.key).read().split('\n')[1]
    locked, nothing = os.path.join(t.tmp, 'locked.key'), t.file('nothing.pem', 'nothing of the kind\n')
    t.run_tool(t.tool('openssl'), 'ec', '-in', a.key, '-aes128', '-passout', 'pass:hush', '-out', locked)
    rows = [
        (['ssl = yes', f'keyfile = {a.key}'], 4, 'keyfile: set without crtfile; allowed: both, or neither'),
        ([f'crtfile = {a.crt}'], 3, 'crtfile: set without keyfile'),
        (['ssl = yes', f'keyfile = {b.key}', f'crtfile = {a.crt}'], 4, 'not the key of the certificate in crtfile'),
        (['ssl = yes', f'keyfile = {nothing}', f'crtfile = {a.crt}'], 4, 'no private key in it'),
        (['ssl = yes', f'keyfile = {a.key}', f'crtfile = {nothing}'], 5, 'no certificate in it'),
        (['ssl = yes', f'keyfile = {locked}', f'crtfile = {a.crt}'], 4, 'encrypted with a passphrase'),
        (['ssl = yes', 'cafile = /none.pem'], 4, '"/none.pem": No such file or directory'),
        (['ssl = yes', f'cafile = {t.tmp}'], 4, 'not a regular file'),
        (['ssl = yes', f'cafile = {nothing}'], 4, 'no certificate in it'),
        (['ssl = maybe'], 3, 'allowed: no, yes'),
        (['ssl_name = -x'], 3, "allowed: a host's name, or an address"),
        (['mode = forward', 'ssl = yes'], 4, 'ssl: a forward proxy never opens TLS'),
        (['mode = packet', 'ssl = yes'], 4, 'ssl: servers of a message switch speak no TLS'),
        ([f'tls_keyfile = {a.key}'], 3, 'tls_keyfile: set without tls_crtfile'),
        ([f'tls_crtfile = {a.crt}'], 3, 'tls_crtfile: set without tls_keyfile'),
        ([f'tls_cafile = {ca.crt}'], 3, 'tls_cafile: set without tls_keyfile and tls_crtfile'),
        ([f'tls_keyfile = {a.key}', f'tls_crtfile = {a.crt}, {b.crt}'], 3, '1 of them and 2 in tls_crtfile'),
        ([f'tls_keyfile = {a.key}, {b.key}', f'tls_crtfile = {b.crt}, {a.crt}'], 3, 'not the key of the certificate'),
        ([f'tls_keyfile = {a.key},', f'tls_crtfile = {a.crt},'], 3, 'comma-separated'),
        ([f'tls_keyfile = {a.key}', f'tls_crtfile = {a.crt}', 'tls_cafile = /none'], 5, 'No such file'),
    ]
    for lines, line, why in rows:
        path = t.file('weir.ini', '[main]\nendpoint = t:1\n' + '\n'.join(lines) + '\n')
        done = t.run('-c', path, '--check')
        t.equal(done.code, 2, f'{lines}: {done}')
        t.check(f'weir.ini:{line}: ' in done.err and why in done.err, f'{lines}: {done.err}')
        t.check(done.err.count('\n') == 1, f'one line: {done.err!r}')
        t.check(secret not in done.err + done.out.decode(), 'a key is shown')


def a_certificate_that_has_expired_is_warned_of_and_served(t):
    ca = Authority(t)
    late = ca.issue('late', 'DNS:late', days=-1)
    path = t.file('weir.ini', f'[main]\nport = 0\nendpoint = 127.0.0.1:1\ntls_keyfile = {late.key}\ntls_crtfile = {late.crt}\n'
                  f'keyfile = {late.key}\ncrtfile = {late.crt}\n')
    done = t.run('-c', path, '--check')
    t.equal(done.code, 0, done.err)
    t.check(re.search(r'warning: .*weir\.ini:5: tls_crtfile: ".*late\.crt": the certificate expired on \d{4}-', done.err),
            done.err)
    t.check('weir.ini:6: keyfile: not used: ssl is off' in done.err, done.err)
    weir, _ = t.weir_of_file(open(path).read(), '--node', 'main')
    weir.wait_log(r'warn .*weir\.ini:5: tls_crtfile: .*expired on')


def the_key_itself_is_never_shown(t):
    ca = Authority(t)
    pair = _local(ca)
    origin = _target(t, ca, pair)
    weir = t.weir(f'localhost:{origin.port}', **_ssl(ca, keyfile=pair.key, crtfile=pair.crt), **_https(pair),
                  log_level='debug', extra=['--trace'])
    t.equal(t.get(weir, tls=ca.client(), name='localhost').status, 200)
    weir.stop()
    secrets = open(pair.key).read().split('\n')[1:-2]
    check = t.run('reverse', '--endpoint', 't:1', *(part for key, value in _https(pair).items()
                                                  for part in ('--' + key.replace('_', '-'), value)), '--check')
    for secret in secrets:
        t.check(secret not in weir.log.text() + check.out.decode() + check.err, 'the key is shown')


# Real programs

NGINX = '''
daemon off;
pid {tmp}/nginx.pid;
error_log {tmp}/nginx.error.log info;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {tmp}/nginx.body; proxy_temp_path {tmp}/nginx.proxy; fastcgi_temp_path {tmp}/nginx.fastcgi;
    uwsgi_temp_path {tmp}/nginx.uwsgi; scgi_temp_path {tmp}/nginx.scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {crt}; ssl_certificate_key {key};
        ssl_client_certificate {ca}; ssl_verify_client on;
        ssl_session_cache shared:s:1m;
        keepalive_requests 1;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ return 200 "$ssl_client_s_dn $ssl_session_reused $ssl_protocol"; }}
    }}
}}
'''


def _listens(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    except OSError:
        return False


def nginx_is_a_target_with_client_certificates_and_resumption(t):
    ca, clients = Authority(t), Authority(t, 'Client Authority')
    pair, ours, port = _local(ca), clients.issue('weir'), t.free_port()
    path = t.file('nginx.conf', NGINX.format(tmp=t.tmp, port=port, crt=pair.crt, key=pair.key, ca=clients.crt))
    t.start_tool(t.tool('nginx'), '-p', t.tmp, '-e', t.tmp + '/nginx.error.log', '-c', path)
    t.until(lambda: _listens(port), what='nginx listens')
    weir = t.weir(f'localhost:{port}', **_ssl(ca, keyfile=ours.key, crtfile=ours.crt))
    bodies = [t.get(weir).body.decode() for _ in range(6)]
    t.equal(bodies, ['CN=weir . TLSv1.3'] + ['CN=weir r TLSv1.3'] * 5, 'one request a connection, all but the first resumed')


def openssl_s_server_is_a_target(t):
    ca, clients = Authority(t), Authority(t, 'Client Authority')
    pair, ours, openssl = _local(ca), clients.issue('weir'), t.tool('openssl')
    for version in ('-tls1_2', '-tls1_3'):
        port = t.free_port()
        t.start_tool(openssl, 's_server', '-accept', port, '-cert', pair.crt, '-key', pair.key, '-CAfile', clients.crt,
                     '-Verify', '1', '-verify_return_error', '-www', version)
        t.until(lambda port=port: _listens(port), what='s_server listens')
        weir = t.weir(f'localhost:{port}', **_ssl(ca, keyfile=ours.key, crtfile=ours.crt))
        page = t.get(weir).body
        t.check(re.search(rb'Subject: CN ?= ?weir', page), f'{version}: its page names our certificate: {page[-1500:]}')
        weir = t.weir(f'localhost:{port}', **_ssl(ca))
        t.equal(t.get(weir).status, 500, version)
        weir.wait_log('leaves the rotation: it refused the TLS handshake: alert')


def curl_and_s_client_are_clients(t):
    ca, clients = Authority(t), Authority(t, 'Client Authority')
    pair, theirs = _local(ca), clients.issue('client')
    weir = t.weir(t.origin(), **_https(pair, tls_cafile=clients.crt))
    url = f'https://localhost:{weir.port}/'
    common = [t.tool('curl'), '-sS', '--cacert', ca.crt]
    for version in ('1.2', '1.3'):
        done = t.run_tool(*common, '--tlsv' + version, '--tls-max', version, '--cert', theirs.crt, '--key', theirs.key,
                          '-w', ' %{http_version}', url, url)
        t.equal((done.code, done.out), (0, b'origin 1.1origin 1.1'), done.err)
    t.check(t.run_tool(*common, url).code != 0, 'no certificate')
    done = t.run_tool(t.tool('openssl'), 's_client', '-connect', f'localhost:{weir.port}', '-CAfile', ca.crt, '-cert',
                      theirs.crt, '-key', theirs.key, '-verify_return_error', '-quiet', '-ign_eof',
                      stdin=request(fields=['Connection: close']))
    t.check(b'200 OK' in done.out and done.out.endswith(b'origin'), done)


def keys_may_be_renewed_and_a_renegotiation_is_refused(t):
    ca = Authority(t)
    weir = t.weir(t.origin(), **_https(_local(ca)))

    def talk(*arguments):
        process = subprocess.Popen([t.tool('openssl'), 's_client', '-connect', f'localhost:{weir.port}', '-CAfile', ca.crt,
                                    *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        lines = Lines(process.stdout)

        def say(line, wanted, count=1):
            process.stdin.write(line)
            process.stdin.flush()
            lines.wait(lambda lines: len([l for l in lines if wanted in l]) >= count, t.s(10))
            t.check(wanted in lines.text(), f'{arguments}: no {wanted!r} in {lines.text()}')

        def end():
            process.stdin.close()
            process.wait(t.s(10))
        t.cleanup(end)
        return say

    say = talk('-tls1_3')
    for turn in range(3):                           # K: new keys, ours too, please
        say(b'K\n', 'KEYUPDATE', turn + 1)
    say(request(fields=['Connection: close']), '200 OK')
    say = talk('-tls1_2')
    say(b'R\n', 'no renegotiation')
    t.equal(t.get(weir, tls=ca.client(), name='localhost').status, 200)


@takes(60)
def many_clients_at_once_over_tls_on_both_sides(t):
    ca = Authority(t)
    pair = _local(ca)
    origin = _target(t, ca, pair, lambda request: answer(request.body * 2))
    weir = t.weir(f'localhost:{origin.port}', **_ssl(ca), **_https(pair))

    def ask(index):
        for turn in range(5):
            client = t.client(weir, tls=ca.client(), name='localhost')
            for size in (10, 20000):
                body = bytes([index]) * (size + turn)
                if client.ask('POST', '/', body=body).body != body * 2:
                    return False
            client.close()
        return True

    t.check(all(t.parallel([lambda index=index: ask(index) for index in range(16)], 50)), 'a wrong answer')
