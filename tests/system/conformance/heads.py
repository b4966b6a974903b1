"""Heads: request lines, versions, field lines, Host, and how long all that may be (RFC 9112 §2 to §5; SPEC: HTTP/1.1,
rule 2)."""
from .row import FINISH, HOST, NOTHING, SMUGGLED, Row, get, message


def _refused(name, send, source, status=400, **more):
    return Row(name, send, f'{status} closed', NOTHING, source, **more)


def _line(text, source, status=400, **more):
    return _refused(f'request line {text!r}'[:100], get(line=text) + SMUGGLED, source, status, **more)


REQUEST_LINES = [_line(*row) for row in (
    (b'GET  /x HTTP/1.1', 'RFC 9112 §3'), (b'GET /x  HTTP/1.1', 'RFC 9112 §3'), (b' GET /x HTTP/1.1', 'RFC 9112 §3'),
    (b'GET /x HTTP/1.1 ', 'RFC 9112 §3'), (b'GET\t/x\tHTTP/1.1', 'RFC 9112 §3; Garden 2024'),
    (b'GET\x0b/x HTTP/1.1', 'RFC 9112 §3; Garden 2024'), (b'GET\xa0/x HTTP/1.1', 'RFC 9112 §3'),
        (b'GET /x y HTTP/1.1', 'RFC 9112 §3'),
    (b'GET', 'RFC 9112 §3'), (b'GET /x', 'RFC 9112 §3; RFC 1945 §4.1'), (b'GET HTTP/1.1', 'RFC 9112 §3'),
        (b'/x HTTP/1.1', 'RFC 9112 §3'),
    (b'GE(T /x HTTP/1.1', 'RFC 9110 §5.6.2'), (b'GE\x00T /x HTTP/1.1', 'RFC 9110 §5.6.2'),
        (b'G\xc9T /x HTTP/1.1', 'RFC 9110 §5.6.2'),
    (b'"GET" /x HTTP/1.1', 'RFC 9110 §5.6.2'), (b'G' * 40 + b' /x HTTP/1.1', 'RFC 9112 §3'),
    (b'GET /x\rHTTP/1.1', 'RFC 9112 §2.2'), (b'GET /x HTTP/1.1\r', 'RFC 9112 §2.2'),
    (b'GET /x http/1.1', 'RFC 9112 §2.3'), (b'GET /x HTTP/1.10', 'RFC 9112 §2.3'),
        (b'GET /x HTTP/01.1', 'RFC 9112 §2.3'),
    (b'GET /x HTTP/1.', 'RFC 9112 §2.3'), (b'GET /x HTTP/.1', 'RFC 9112 §2.3'), (b'GET /x HTTP/1,1', 'RFC 9112 §2.3'),
    (b'GET /x HTTP/1.1x', 'RFC 9112 §2.3'), (b'GET /x HTTP/+1.1', 'RFC 9112 §2.3; Garden 2024'),
        (b'GET /x HTTP/ 1.1', 'RFC 9112 §2.3'),
    (b'GET /x HTTPS/1.1', 'RFC 9112 §2.3'), (b'GET /x ICY/1.1', 'RFC 9112 §2.3'), (b'GET /x HTTP1.1', 'RFC 9112 §2.3'),
    (b'GET /x HTTP/2', 'RFC 9112 §2.3'), (b'GET /x HTTP/0.9', 'RFC 9110 §15.6.6; T-Reqs 2021', 505),
    (b'GET /x HTTP/2.0', 'RFC 9110 §15.6.6', 505), (b'GET /x HTTP/3.0', 'RFC 9110 §15.6.6', 505),
    (b'GET /x HTTP/9.9', 'RFC 9110 §15.6.6', 505))]

REQUEST_LINES += [
    _refused('HTTP/0.9: one line and an empty one', b'GET /x\r\n\r\n', 'RFC 1945 §4.1; RFC 9112 §3'),
    _refused('the HTTP/2 preface', b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0', 'RFC 9113 §3.4', 505),
    _refused('a TLS hello', b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(40), 'RFC 9112 §3'),
    _refused('an SSH greeting', b'SSH-2.0-OpenSSH_9.2\r\n\r\n', 'RFC 9112 §3'),
    _refused('an SMTP dialogue', b'EHLO a.test\r\nMAIL FROM:<a@b>\r\n\r\n', 'RFC 9112 §3'),
    _refused('a PROXY header that nobody asked for', b'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n' + get(), 'RFC 9112 §3'),
    _refused('NUL before everything', b'\0' + get(), 'RFC 9112 §2.2'),
    _refused('a blank before everything', b' ' + get(), 'RFC 9112 §2.2'),
    _refused('a byte order mark before everything', b'\xef\xbb\xbf' + get(), 'RFC 9112 §2'),
    _refused('a bare LF before everything', b'\n' + get(), 'RFC 9112 §2.2'),
    _refused('a bare CR before everything', b'\r' + get(), 'RFC 9112 §2.2'),
    _refused('three empty lines before everything', b'\r\n' * 3 + get(), 'RFC 9112 §2.2',
        note='a choice: two are let pass'),
    Row('an empty line before everything', b'\r\n' + get(), '200 open', [message('GET /x')], 'RFC 9112 §2.2'),
    Row('two empty lines before everything', b'\r\n' * 2 + get(), '200 open', [message('GET /x')], 'RFC 9112 §2.2'),
    Row('HTTP/1.2 is read as 1.1', get(line=b'GET /x HTTP/1.2'), '200 open', [message('GET /x')], 'RFC 9110 §2.5'),
    *[Row(f'the method {method} passes', get(line=method.encode() + b' /x HTTP/1.1'), '200 open',
        [message(f'{method} /x')],
          'RFC 9110 §9.1', note='a method is a token, and its case counts')
              for method in ('PATCH', 'get', 'PROPFIND', 'X!#$%')],
    Row('a head that is not finished', [b'GET /x HTTP/1.1\r\nHost: a.test\r\n', FINISH], 'closed', NOTHING,
        'RFC 9112 §8'),
    Row('half a request line', [b'GET /x HT', FINISH], 'closed', NOTHING, 'RFC 9112 §8'),
    Row('nothing at all', [b'', FINISH], 'closed', NOTHING, 'RFC 9112 §9.5'),
    Row('half a close behind a whole request', [get(), FINISH], '200 closed', [message('GET /x')], 'RFC 9112 §9.6'),
]


def _field(name, line, source, status=400, **more):
    return _refused(f'field: {name}', get(line + b'\r\n') + SMUGGLED, source, status, **more)


FIELDS = [_field(*row) for row in (
    ('a blank before the colon', b'X : y', 'RFC 9112 §5.1; CVE-2021-22959'),
        ('a tab before the colon', b'X\t: y', 'RFC 9112 §5.1'),
    ('folded with a blank', b'X: a\r\n b', 'RFC 9112 §5.2'), ('folded with a tab', b'X: a\r\n\tb', 'RFC 9112 §5.2'),
    ('folded, and the fold looks like a field', b'X: a\r\n Content-Length: 40', 'RFC 9112 §5.2; Klein 2020'),
    ('a fold that is only a blank', b'X: a\r\n ', 'RFC 9112 §5.2; Garden 2024'),
    ('no colon', b'nonsense', 'RFC 9112 §5'), ('an empty name', b': y', 'RFC 9110 §5.1; CVE-2023-25725'),
    ('a blank in the name', b'a b: y', 'RFC 9110 §5.1'), ('a parenthesis in the name', b'a(b): y', 'RFC 9110 §5.1'),
    ('a quote in the name', b'"a": y', 'RFC 9110 §5.1'), ('a slash in the name', b'a/b: y', 'RFC 9110 §5.1'),
    ('a comma in the name', b'a,b: y', 'RFC 9110 §5.1'), ('an at sign in the name', b'a@b: y', 'RFC 9110 §5.1'),
    ('a high byte in the name', b'a\xe9: y', 'RFC 9110 §5.1'), ('DEL in the name', b'a\x7f: y', 'RFC 9110 §5.1'),
    ('NUL in the name', b'a\0b: y', 'RFC 9110 §5.1'), ('NUL in the value', b'X: a\0b', 'RFC 9110 §5.5'),
    ('a bare CR in the value', b'X: a\rb', 'RFC 9112 §2.2'), ('a bare CR at the end', b'X: a\r', 'RFC 9112 §2.2'),
    ('a bare LF at the end', b'X: a\nY: b', 'RFC 9112 §2.2; CVE-2019-16785'), ('only CR', b'\r', 'RFC 9112 §2.2'),
    ('a bell in the value', b'X: a\x07b', 'RFC 9110 §5.5'), ('a backspace in the value', b'X: a\x08b', 'RFC 9110 §5.5'),
    ('an escape in the value', b'X: \x1b[2J', 'RFC 9110 §5.5'), ('DEL in the value', b'X: a\x7fb', 'RFC 9110 §5.5'),
    ('a vertical tab in the value', b'X: a\x0bb', 'RFC 9110 §5.5'))]

FIELDS += [
    _refused('a bare LF everywhere', b'GET /x HTTP/1.1\nHost: a.test\n\n', 'RFC 9112 §2.2',
        note='a choice: it may be let pass'),
    _refused('a bare LF behind the request line', b'GET /x HTTP/1.1\nHost: a.test\r\n\r\n', 'RFC 9112 §2.2'),
    _refused('a bare LF for the empty line', b'GET /x HTTP/1.1\r\nHost: a.test\r\n\n' + SMUGGLED,
        'RFC 9112 §2.2; Garden 2024'),
    _refused('LF LF inside a value', get(b'X: y\n\nGET /smuggled HTTP/1.1\r\n'), 'RFC 9112 §2.2; Kettle 2019'),
    _refused('CR CR LF', b'GET /x HTTP/1.1\r\nHost: a.test\r\r\n\r\n', 'RFC 9112 §2.2'),
    _refused('a blank for the empty line', b'GET /x HTTP/1.1\r\nHost: a.test\r\n \r\n\r\n', 'RFC 9112 §5.2'),
    _refused('a blank before the first field', b'GET /x HTTP/1.1\r\n Host: a.test\r\n\r\n', 'RFC 9112 §2.2'),
    _refused('a blank before the first field, another Host behind it',
        b'GET /x HTTP/1.1\r\n Host: b.test\r\nHost: a.test\r\n\r\n',
             'RFC 9112 §2.2; Chen 2016'),
    *[Row(f'field: {name}', get(line + b'\r\n'), '200 open', [message('GET /x', wanted)], source,
        note='passes as it came')
      for name, line, wanted, source in (
          ('high bytes in the value', b'X: caf\xe9', 'X: caf\xe9', 'RFC 9110 §5.5'),
              ('an empty value', b'X:', 'X: ', 'RFC 9110 §5.5'),
          ('blanks around the value', b'X:  \t a b \t ', 'X: a b', 'RFC 9110 §5.5'),
          ('a tab in the value', b'X: a\tb', 'X: a\tb', 'RFC 9110 §5.5'),
              ('colons in the value', b'X: a:b:c', 'X: a:b:c', 'RFC 9110 §5.5'),
          ('an underscore in the name', b'X_Y: z', 'X_Y: z', 'RFC 9110 §5.1'),
              ('any token for a name', b"!#$%&'*+-.^_`|~: y", "!#$%&'*+-.^_`|~: y", 'RFC 9110 §5.6.2'),
          ('quotes and angle brackets in the value', b'X: <"a" \\ {b}>', 'X: <"a" \\ {b}>', 'RFC 9110 §5.5'))],
    Row('repeated fields keep their order', get(b'X: 1\r\nY: 2\r\nx: 3\r\nCookie: a\r\nCookie: b\r\n'), '200 open',
        [message('GET /x', 'X: 1', 'Y: 2', 'x: 3', 'Cookie: a', 'Cookie: b')], 'RFC 9110 §5.3'),
]


def _host(value, source='RFC 9112 §3.2; RFC 3986 §3.2.2', **more):
    return _refused(f'Host: {value!r}', get(host=b'Host: ' + value + b'\r\n'), source, **more)


HOSTS = [
    _refused('no Host', b'GET /x HTTP/1.1\r\n\r\n', 'RFC 9112 §3.2'),
    _refused('no Host, but X-Host', b'GET /x HTTP/1.1\r\nX-Host: a.test\r\n\r\n', 'RFC 9112 §3.2'),
    _refused('Host twice, the same', get(host=HOST * 2), 'RFC 9112 §3.2; Chen 2016'),
    _refused('Host twice, different', get(host=HOST + b'Host: b.test\r\n'), 'RFC 9112 §3.2; Chen 2016'),
    _refused('Host twice, in another case', get(host=HOST + b'hOST: b.test\r\n'), 'RFC 9112 §3.2; Chen 2016'),
    _refused('Host twice, one empty', get(host=HOST + b'Host:\r\n'), 'RFC 9112 §3.2; Chen 2016'),
    _refused('Host twice in HTTP/1.0', get(line=b'GET /x HTTP/1.0', host=HOST + b'Host: b.test\r\n'),
        'RFC 9112 §3.2; Chen 2016'),
    _refused('a blank before the colon of Host', get(host=b'Host : a.test\r\n'), 'RFC 9112 §5.1; Chen 2016'),
    _refused('Host on a folded line', get(host=b'Host:\r\n a.test\r\n'), 'RFC 9112 §5.2; Chen 2016'),
    _refused('a second Host in a fold', get(host=b'Host: a.test\r\n\tHost: b.test\r\n'), 'RFC 9112 §5.2; Chen 2016'),
    _host(b'', 'RFC 9112 §3.2; RFC 9110 §4.2.1', note='an http URI has a host'),
    *[_host(value) for value in (
        b'a b', b'a.test b.test', b'a.test:80:80', b'a.test:http', b'a.test:-1', b'a.test:8 0', b'a.test:65536',
            b'a.test/x', b'a.test?x',
        b'a.test#x', b'a.test\\b', b'[::1', b'::1', b'[::1]x', b'[zz]', b'[]', b'[1.2.3.4]', b':80', b'a%zz', b'a%',
            b'a\xe9', b'a\tb', b'<a>', b'"a"', b'http://a.test')],
    _host(b'a.test, b.test', 'RFC 9112 §3.2; Chen 2016'), _host(b'a.test,b.test', 'RFC 9112 §3.2; Chen 2016'),
    _host(b'user@a.test', 'RFC 9112 §3.2; Chen 2016'), _host(b'user:pass@a.test', 'RFC 9112 §3.2; Chen 2016'),
    *[Row(f'Host: {value} passes', get(host=b'Host: ' + value.encode() + b'\r\n'), '200 open',
        [message('GET /x', host=value)],
          'RFC 9110 §7.2; RFC 3986 §3.2.2') for value in (
              'a.test:8080', 'a.test:', 'A.TeSt', '127.0.0.1', '[::1]', '[::1]:8080', 'a_b.test', 'xn--bcher-kva.test',
                  'a%2eb', 'a.test.', "a!$&'()*+;=b")],
    Row('Host not first is sent first', b'GET /x HTTP/1.1\r\nX: y\r\nHost: a.test\r\n\r\n', '200 open',
        [message('GET /x', 'X: y')],
        'RFC 9110 §7.2'),
    Row('Host named in Connection stays', get(b'Connection: Host\r\n'), '200 open', [message('GET /x')],
        'RFC 9110 §7.6.1; Davison 2019'),
    Row('HTTP/1.0 with Host', get(line=b'GET /x HTTP/1.0'), '200 closed', [message('GET /x')], 'RFC 9112 §3.2'),
    Row('HTTP/1.0 without Host goes to the target by its address', b'GET /x HTTP/1.0\r\n\r\n', '200 closed',
        [message('GET /x', host='%TARGET%')], 'RFC 9112 §3.2, §2.3'),
]

LONG = [
    _refused('one field of 40,000 bytes', get(b'X: ' + b'x' * 40000 + b'\r\n'), 'RFC 6585 §5', 431),
    _refused('10,000 fields', get(b'X: y\r\n' * 10000), 'RFC 6585 §5', 431),
    _refused('129 fields', get(b'X: y\r\n' * 128), 'RFC 6585 §5', 431, note='a limit of weir: 128'),
    _refused('a name of 40,000 bytes', get(b'x' * 40000 + b': y\r\n'), 'RFC 6585 §5', 431),
    _refused('a target of 40,000 bytes', get(line=b'GET /' + b'x' * 40000 + b' HTTP/1.1'),
        'RFC 9112 §3; RFC 9110 §15.5.15', 431,
             note='a choice: 431, as for every head that is too long'),
    _refused('a method of 40,000 bytes', get(line=b'G' * 40000 + b' /x HTTP/1.1'), 'RFC 9112 §3', 431),
    _refused('a head that never ends', b'GET /x HTTP/1.1\r\nX: ' + b'x' * 60000, 'RFC 6585 §5', 431),
    _refused('65 names in Connection', get(b'Connection: ' + b', '.join(b'x%d' % n for n in range(65)) + b'\r\n'),
        'RFC 9110 §17.5',
             note='a limit of weir: 64'),
    _refused('max_header: one byte over', get(b'X: ' + b'x' * (1025 - len(get(b'X: \r\n'))) + b'\r\n'), 'RFC 6585 §5',
        431, settings='small'),
    Row('max_header: exactly', get(b'X: ' + b'x' * (1024 - len(get(b'X: \r\n'))) + b'\r\n'), '200 open',
        [message('GET /x', 'X: ' + 'x' * (1024 - len(get(b'X: \r\n'))))], 'RFC 6585 §5', settings='small'),
    Row('a head of 31,000 bytes', get(b'X: ' + b'x' * 30000 + b'\r\n'), '200 open',
        [message('GET /x', 'X: ' + 'x' * 30000)], 'RFC 9110 §5.4'),
    Row('a target of 8,000 bytes', get(line=b'GET /' + b'x' * 7999 + b' HTTP/1.1'), '200 open',
        [message('GET /' + 'x' * 7999)], 'RFC 9112 §3'),
    Row('128 fields', get(b'X: y\r\n' * 127), '200 open', [message('GET /x', *['X: y'] * 127)], 'RFC 9110 §5.4'),
    _refused('max_body: a length over it', get(b'Content-Length: 11\r\n', line=b'POST /x HTTP/1.1') + b'hello world',
        'RFC 9110 §15.5.14', 413,
             settings='small'),
    _refused('max_body: a length over it that waits for 100',
        get(b'Content-Length: 11\r\nExpect: 100-continue\r\n', line=b'POST /x HTTP/1.1'),
             'RFC 9110 §10.1.1', 413, settings='small'),
]

ROWS = REQUEST_LINES + FIELDS + HOSTS + LONG
