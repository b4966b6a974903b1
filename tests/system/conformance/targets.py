"""Request targets: the four forms, which method each goes with, and what is sent on (RFC 9112 §3.2; SPEC: HTTP/1.1,
rules 2 and 3). A target is never decoded and never tidied: two programs that tidy differently see two paths."""
from .row import NOTHING, SMUGGLED, Row, get, message


def _refused(target, source, method=b'GET', status=400, **more):
    return Row(f'{method.decode()} {target!r}'[:100], get(line=method + b' ' + target + b' HTTP/1.1') + SMUGGLED,
        f'{status} closed', NOTHING,
               source, **more)


def _passes(target, source='RFC 9112 §3.2.1', **more):
    return Row(f'GET {target} passes as it came'[:100], get(line=f'GET {target} HTTP/1.1'.encode()), '200 open',
        [message(f'GET {target}')],
               source, **more)


def _absolute(target, path, host, source='RFC 9112 §3.2.2', method='GET', answers='200 open', **more):
    """The client's Host is another one: it must not be believed."""
    return Row(f'{method} {target}', get(line=f'{method} {target} HTTP/1.1'.encode(), host=b'Host: other.test\r\n'),
        answers,
               [message(f'{method} {path}', host=host)], source, **more)


ORIGIN = [
    *[_passes(target) for target in ('/', '/?', '/?q=1&r=%20', '/a;b=c', '/?a?b/c', '/~u/!$&\'()*+,;=:@')],
    *[_passes(target, 'RFC 9112 §3.2.1; RFC 3986 §6', note='not tidied')
        for target in ('/a/../b', '/a/./b', '/a//b', '//evil.test/x', '/..', '/a/..;/b')],
    *[_passes(target, 'RFC 9112 §3.2.1; RFC 3986 §6', note='not decoded')
        for target in ('/%2e%2e/', '/a%2Fb', '/%C3%A9', '/%00', '/%0d%0aX:%20y', '/%25%32%65')],
    _passes('/?q=100%&r=%g0', 'RFC 3986 §2.1', note='a choice: a query may hold what form encoders write'),
    *[_passes(target, 'RFC 3986 §2; RFC 9112 §3.2', note='a choice: browsers send these bytes, and they part nothing')
      for target in ('/a|b', '/a"b', '/a<b>', '/a\\b', '/a^b', '/a`b', '/{a}')],
    *[_refused(target, 'RFC 9112 §3.2') for target in (b'x', b'x/y', b'?x', b'#x', b'/x#y', b'a.test', b'a.test:80',
        b'/a\x01b', b'/a\x7fb', b'/\xc3\xa9', b'/\xff', b'/a\0b')],
    *[_refused(target, 'RFC 3986 §2.1') for target in (b'/%', b'/%4', b'/%zz', b'/%%20', b'/a%u0041')],
]

ABSOLUTE = [
    _absolute('http://real.test/x', '/x', 'real.test'), _absolute('http://real.test', '/', 'real.test'),
    _absolute('http://real.test?q', '/?q', 'real.test'), _absolute('http://real.test:8080/x', '/x', 'real.test:8080'),
    _absolute('HTTP://real.test/x', '/x', 'real.test'), _absolute('https://real.test/x', '/x', 'real.test'),
    _absolute('http://[::1]:80/x', '/x', '[::1]:80'), _absolute('http://real.test/a/../b', '/a/../b', 'real.test'),
    _absolute('http://real.test', '*', 'real.test', 'RFC 9112 §3.2.4', 'OPTIONS'),
    _absolute('http://real.test/', '/', 'real.test', 'RFC 9112 §3.2.4', 'OPTIONS'),
    Row('absolute form in HTTP/1.0 without Host', b'GET http://real.test/x HTTP/1.0\r\n\r\n', '200 closed',
        [message('GET /x', host='real.test')],
        'RFC 9112 §3.2.2'),
    Row('absolute form without Host', b'GET http://real.test/x HTTP/1.1\r\n\r\n', '400 closed', NOTHING,
        'RFC 9112 §3.2'),
    Row('absolute form with a malformed Host', get(line=b'GET http://real.test/x HTTP/1.1', host=b'Host: a b\r\n'),
        '400 closed', NOTHING, 'RFC 9112 §3.2; Chen 2016'),
    Row('absolute form with two Hosts', get(line=b'GET http://real.test/x HTTP/1.1',
        host=b'Host: real.test\r\nHost: a.test\r\n'), '400 closed', NOTHING,
        'RFC 9112 §3.2; Chen 2016'),
    *[_refused(target, source) for target, source in (
        (b'http://user@a.test/x', 'RFC 9110 §4.2.4; Chen 2016'), (b'http://user:pass@a.test/x', 'RFC 9110 §4.2.4'),
            (b'http://a.test@b.test/x', 'RFC 9110 §4.2.4; Chen 2016'),
        (b'http:///x', 'RFC 9110 §4.2.1'), (b'http://', 'RFC 9110 §4.2.1'), (b'http:/x', 'RFC 9112 §3.2.2'),
            (b'http:x', 'RFC 9112 §3.2.2'),
        (b'http://:80/x', 'RFC 9110 §4.2.1'), (b'http://a.test:x/', 'RFC 3986 §3.2.3'),
            (b'http://a.test:65536/', 'RFC 3986 §3.2.3'), (b'http://a.test:80:80/', 'RFC 3986 §3.2.3'),
        (b'http://a.test\\@b.test/', 'RFC 3986 §3.2.2; Chen 2016'), (b'http://a.test,b.test/', 'RFC 3986 §3.2.2'),
            (b'http://[::1/x', 'RFC 3986 §3.2.2'), (b'http://[::1]x/', 'RFC 3986 §3.2.2'),
        (b'http://a%zz/', 'RFC 3986 §2.1'), (b'http://a.test/x#y', 'RFC 9112 §3.2.2'),
            (b'http://a.test/%zz', 'RFC 3986 §2.1'), (b'ftp://a.test/x', 'RFC 9112 §3.2.2'),
        (b'file:///etc/passwd', 'RFC 9112 §3.2.2'), (b'javascript:1', 'RFC 9112 §3.2.2'),
            (b'ws://a.test/x', 'RFC 9112 §3.2.2'), (b'xhttp://a.test/', 'RFC 9112 §3.2.2'))],
]

OTHER = [
    Row('OPTIONS * passes', get(line=b'OPTIONS * HTTP/1.1'), '200 open', [message('OPTIONS *')], 'RFC 9112 §3.2.4'),
    *[_refused(b'*', 'RFC 9112 §3.2.4', method) for method in (b'GET', b'POST', b'HEAD', b'options')],
    _refused(b'**', 'RFC 9112 §3.2.4', b'OPTIONS'), _refused(b'*/x', 'RFC 9112 §3.2.4', b'OPTIONS'),
    _refused(b'a.test:443', 'RFC 9112 §3.2.3; RFC 9110 §9.3.6', b'CONNECT', 405),
        _refused(b'a.test:80', 'RFC 9112 §3.2.3; RFC 9110 §9.3.6', b'CONNECT', 405),
    _refused(b'[::1]:443', 'RFC 9112 §3.2.3', b'CONNECT', 405),
    *[_refused(target, 'RFC 9112 §3.2.3; RFC 9110 §9.3.6', b'CONNECT') for target in (
        b'/x', b'*', b'a.test', b'a.test:', b'a.test:0', b'a.test:x', b'a.test:65536', b':443', b'http://a.test/',
            b'user@a.test:443', b'a.test:443/x', b'[::1]', b'::1:443')],
    Row('CONNECT with a length', get(b'Content-Length: 5\r\n',
        line=b'CONNECT a.test:443 HTTP/1.1') + b'hello' + SMUGGLED, '400 closed', NOTHING, 'RFC 9110 §9.3.6'),
    Row('CONNECT with chunks', get(b'Transfer-Encoding: chunked\r\n',
        line=b'CONNECT a.test:443 HTTP/1.1') + b'0\r\n\r\n' + SMUGGLED, '400 closed', NOTHING,
        'RFC 9110 §9.3.6'),
    Row('TRACE passes without a body', get(line=b'TRACE /x HTTP/1.1'), '200 open', [message('TRACE /x')],
        'RFC 9110 §9.3.8'),
]

ROWS = ORIGIN + ABSOLUTE + OTHER
