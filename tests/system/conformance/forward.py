"""A forward proxy: where the target says where to go, what a name may be, and what stands behind a CONNECT
(RFC 9110 §7, §9.3.6; RFC 9112 §3.2; SPEC: Forward).

connect_allow names the row's target and nothing else. Its address stands in the bytes as %TARGET%.
"""
from .row import AWAIT, NOTHING, SMUGGLED, Reply, Row, get, message, post, with_length

ASKED = message('GET /x', host='%TARGET%')
NO_BODY = ('HEAD',)     # the answer to CONNECT has none either


def _row(name, send, sees, reaches, source, **more):
    return Row('forward: ' + name, send, sees, reaches, source, settings='forward', **more)


def _get(target, fields=b'', host=b'Host: %TARGET%\r\n', version=b'HTTP/1.1', method=b'GET'):
    return get(fields, method + b' ' + target + b' ' + version, host)


def _refused(name, send, source, status=400, **more):
    return _row(name, send + SMUGGLED, f'{status} closed', NOTHING, source, **more)


WHERE = [
    _row('absolute form', _get(b'http://%TARGET%/x'), '200 open', [ASKED], 'RFC 9112 §3.2.2'),
    _row('absolute form, another Host', _get(b'http://%TARGET%/x', host=b'Host: evil.test\r\n'), '200 open', [ASKED],
        'RFC 9112 §3.2.2; Chen 2016', note='the target wins, and Host is replaced'),
    _row('absolute form, Host named in Connection', _get(b'http://%TARGET%/x', b'Connection: Host\r\n',
        b'Host: evil.test\r\n'), '200 open', [ASKED], 'RFC 9112 §3.2.2; Davison 2019'),
    _row('absolute form in HTTP/1.0 without Host', _get(b'http://%TARGET%/x', host=b'', version=b'HTTP/1.0'),
        '200 closed', [ASKED], 'RFC 9112 §3.2.2'),
    _row('a scheme in capitals', _get(b'HTTP://%TARGET%/x'), '200 open', [ASKED], 'RFC 3986 §3.1'),
    _row('no path', _get(b'http://%TARGET%'), '200 open', [message('GET /', host='%TARGET%')], 'RFC 9112 §3.2.1'),
    _row('no path, a query', _get(b'http://%TARGET%?q'), '200 open', [message('GET /?q', host='%TARGET%')],
        'RFC 9112 §3.2.1'),
    _row('OPTIONS for the whole server', _get(b'http://%TARGET%', method=b'OPTIONS'), '200 open',
        [message('OPTIONS *', host='%TARGET%')], 'RFC 9112 §3.2.4'),
    _row('a path is not tidied', _get(b'http://%TARGET%/a/../%2e/b'), '200 open',
        [message('GET /a/../%2e/b', host='%TARGET%')], 'RFC 3986 §6'),
    _row('a body goes along', post(b'Content-Length: 5\r\n', b'hello', b'POST http://%TARGET%/x HTTP/1.1',
        b'Host: %TARGET%\r\n'), '200 open', [with_length('POST /x', body=b'hello', host='%TARGET%')],
         'RFC 9112 §6.3'),
    _row('Proxy-Authorization ends here', _get(b'http://%TARGET%/x',
        b'Proxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n'), '200 open', [ASKED],
            'RFC 9110 §11.7.2'),
    _row('two requests, one connection', _get(b'http://%TARGET%/x') + _get(b'http://%TARGET%/y'), '200 200 open',
        [ASKED, message('GET /y', host='%TARGET%')], 'RFC 9112 §9.3.2'),
    _row('keep-alive in HTTP/1.0', _get(b'http://%TARGET%/x', b'Connection: keep-alive\r\n',
        version=b'HTTP/1.0') + _get(b'http://%TARGET%/smuggled'), '200 closed', [ASKED],
         'RFC 9112 §9.3, §C.2.2', note='not for proxies: one before us may have passed it on unread'),
    _refused('no Host', _get(b'http://%TARGET%/x', host=b''), 'RFC 9112 §3.2'),
    _refused('two Hosts', _get(b'http://%TARGET%/x', host=b'Host: %TARGET%\r\nHost: evil.test\r\n'),
        'RFC 9112 §3.2; Chen 2016'),
    _refused('a user before the host', _get(b'http://user@%TARGET%/x'), 'RFC 9110 §4.2.4'),
    _refused('another host before the at sign', _get(b'http://evil.test@%TARGET%/x'), 'RFC 9110 §4.2.4; Chen 2016'),
    _refused('both CL and TE', _get(b'http://%TARGET%/x', b'Content-Length: 6\r\nTransfer-Encoding: chunked\r\n'),
        'RFC 9112 §6.3'),
    *[_row(name, _get(target) + _get(b'http://%TARGET%/x'), sees, reaches, source, body=body, note=note) for name,
        target, sees, reaches, body, source, note in (
        ('origin form', b'/x', '400 closed', NOTHING, None, 'RFC 9112 §3.2.1',
            'nobody knows where it should go; Host alone is not asked'),
        ('https in absolute form', b'https://%TARGET%/x', '400 closed', NOTHING, None, 'RFC 9110 §4.2.2',
            'a choice: CONNECT is for that'),
        ('a host that connect_allow does not name', b'http://192.0.2.1/x', '403 200 open', [ASKED], b'/x',
            'RFC 9110 §15.5.4', ''), ('another port of the host', b'http://127.0.0.1:1/x', '403 200 open', [ASKED],
                b'/x', 'RFC 9110 §15.5.4', ''))],
    *[_row(f'the host spelt {host.decode()}', _get(b'http://' + host + b'/x') + _get(b'http://%TARGET%/x'),
        '403 200 open', [ASKED], 'RFC 9110 §17.1; RFC 6943 §3.1.1', body=b'/x',
           note='checked on the address, which connect_allow does not name with this port')
      for host in (b'localhost:1', b'0.0.0.0:1', b'[::1]:1', b'[::ffff:127.0.0.1]:1', b'127.1:1', b'2130706433:1',
          b'0x7f000001:1', b'0177.0.0.1:1')],
]

CONNECTED = [
    _row('CONNECT: a tunnel', [b'CONNECT %TARGET% HTTP/1.1\r\nHost: %TARGET%\r\n\r\n', AWAIT, get()], '200 closed',
        [message('GET /x')], 'RFC 9110 §9.3.6', replies=Reply(b'down', 'closes'),
         methods=NO_BODY, left=b'down'),
    _row('CONNECT: bytes before the answer', b'CONNECT %TARGET% HTTP/1.1\r\nHost: %TARGET%\r\n\r\n' + get(),
        '200 closed', [message('GET /x')], 'RFC 9110 §9.3.6; RFC 9931 §3', replies=Reply(b'down', 'closes'),
            methods=NO_BODY,
         left=b'down', note='they belong to the tunnel once there is one'),
    _row('CONNECT: bytes behind a refused one',
        b'CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n' + _get(b'http://%TARGET%/smuggled'),
            '403 closed', NOTHING, 'RFC 9931 §3',
         note='they were meant for the tunnel, and are nobody\'s request'),
    _row('CONNECT: another Host', [b'CONNECT %TARGET% HTTP/1.1\r\nHost: evil.test:443\r\n\r\n', AWAIT, get()],
        '200 closed', [message('GET /x')], 'RFC 9112 §3.2.3', replies=Reply(b'down', 'closes'), methods=NO_BODY,
            left=b'down'),
    _refused('CONNECT: with a length', b'CONNECT %TARGET% HTTP/1.1\r\nHost: %TARGET%\r\nContent-Length: 5\r\n\r\nhello',
        'RFC 9110 §9.3.6'),
    _refused('CONNECT: with chunks', b'CONNECT %TARGET% HTTP/1.1\r\nHost: %TARGET%\r\n'
             b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 'RFC 9110 §9.3.6'),
    _refused('CONNECT: no port', b'CONNECT 127.0.0.1 HTTP/1.1\r\nHost: a.test\r\n\r\n', 'RFC 9112 §3.2.3'),
        _refused('CONNECT: port 0', b'CONNECT 127.0.0.1:0 HTTP/1.1\r\nHost: a.test\r\n\r\n', 'RFC 9112 §3.2.3'),
    _refused('CONNECT: a whole address', b'CONNECT http://%TARGET%/ HTTP/1.1\r\nHost: %TARGET%\r\n\r\n',
        'RFC 9112 §3.2.3'),
    _refused('CONNECT: a user before the host', b'CONNECT user@%TARGET% HTTP/1.1\r\nHost: %TARGET%\r\n\r\n',
        'RFC 9112 §3.2.3'),
    _refused('CONNECT: no Host', b'CONNECT %TARGET% HTTP/1.1\r\n\r\n', 'RFC 9112 §3.2'),
]

ROWS = WHERE + CONNECTED
