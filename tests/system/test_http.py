"""What is let in: heads and bodies of requests, read strictly (RFC 9112; SPEC: HTTP/1.1, rules 1 and 2).

A wrong request is answered with the status in the table, its connection is closed, and not one byte of it reaches a
target. Each table runs against one weir and one origin; the path of a request names its row.
"""
import socket

from client import Client, chunked, request
from harness import takes
from origin import answer
from wire import Cut

HOST = b'Host: a.test\r\n'
CLOSED = 'closed'       # no answer at all, only the end of the connection


def _get(fields=b'', line=b'GET /wrong HTTP/1.1\r\n', host=HOST):
    return line + host + fields + b'\r\n'


def _post(fields, body=b'hello', line=b'POST /wrong HTTP/1.1\r\n'):
    return line + HOST + fields + b'\r\n' + body


def _refused(t, rows, **settings):
    """Each row is (name, bytes, allowed outcomes). Nothing of any of them may reach the origin."""
    origin = t.origin()
    weir = t.weir(origin, **settings)

    def play(row):
        name, data, allowed = row
        client = t.client(weir)
        try:
            client.send(data)
        except OSError:
            pass                # weir has answered and closed already
        try:
            client.sock.settimeout(t.s(10))
            first = client.response()
            outcome = first.status
            if outcome in allowed:
                left = client.rest()
                t.check(not left, f'{name}: more after the answer {outcome}: {left[:120]!r}')
                t.check(not client.reset or outcome != 400, f'{name}: reset after the answer')
        except Cut:
            outcome = CLOSED
        except AssertionError as error:
            t.check(False, f'{name}: {error}')
            return
        finally:
            client.close()
        wanted = ' or '.join(map(str, allowed))
        t.check(outcome in allowed, f'{name}: got {outcome}, wanted {wanted}; sent {data[:160]!r}')

    waiting = list(rows)

    def worker():
        while waiting:
            try:
                row = waiting.pop()
            except IndexError:
                return
            play(row)
    t.parallel([worker] * 8, seconds=50)
    t.equal(origin.received_bytes, 0, f'bytes at the origin, of {sorted(set(origin.targets()))[:10]}')
    t.equal(t.get(weir).status, 200, 'a good request afterwards')


def content_length_with_transfer_encoding_is_refused(t):
    body = b'5\r\nhello\r\n0\r\n\r\n'
    _refused(t, [
        ('length first', _post(b'Content-Length: 15\r\nTransfer-Encoding: chunked\r\n', body), [400]),
        ('coding first', _post(b'Transfer-Encoding: chunked\r\nContent-Length: 15\r\n', body), [400]),
        ('length 0', _post(b'Content-Length: 0\r\nTransfer-Encoding: chunked\r\n', body), [400]),
        ('on a GET', _get(b'Content-Length: 15\r\nTransfer-Encoding: chunked\r\n') + body, [400]),
        ('lower case', _post(b'content-length: 15\r\ntransfer-encoding: chunked\r\n', body), [400]),
        ('an unknown coding', _post(b'Content-Length: 15\r\nTransfer-Encoding: gzip, chunked\r\n', body), [400, 501]),
        ('a malformed coding', _post(b'Content-Length: 15\r\nTransfer-Encoding: chunked,\r\n', body), [400, 501]),
        ('an empty coding', _post(b'Content-Length: 5\r\nTransfer-Encoding:\r\n'), [400, 501]),
        ('a smuggled request', _post(b'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n',
                                     b'0\r\n\r\n' + _get(line=b'GET /smuggled HTTP/1.1\r\n')), [400]),
    ])


def malformed_content_lengths_are_refused(t):
    values = [b'+5', b'-5', b'5 5', b'0x5', b'5,6', b'5, 6', b'5,', b',5', b'', b' ', b'five', b'5;', b'5.0', b'5e0',
              b'5a',
              b'"5"', b'\xd9\xa5', b'\xb5', b'5\x0b', b'5\x00', b'0b101', b'1_0', b'99999999999999999999',
              b'18446744073709551616', b'18446744073709551621', b'9223372036854775808', b'0' * 30 + b'x', b'5\t5']
    _refused(t, [(f'Content-Length: {value!r}', _post(b'Content-Length: ' + value + b'\r\n'), [400, 413])
                 for value in values])


def several_content_lengths_that_differ_are_refused(t):
    _refused(t, [
        ('5 and 6', _post(b'Content-Length: 5\r\nContent-Length: 6\r\n'), [400]),
        ('6 and 5', _post(b'Content-Length: 6\r\nContent-Length: 5\r\n'), [400]),
        ('5, 5 and 6', _post(b'Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n'), [400]),
        ('5 and 05', _post(b'Content-Length: 5\r\nContent-Length: +5\r\n'), [400]),
        ('5 and nothing', _post(b'Content-Length: 5\r\nContent-Length:\r\n'), [400]),
        ('other case', _post(b'Content-Length: 5\r\ncontent-LENGTH: 0\r\n'), [400]),
        ('far apart', _post(b'Content-Length: 5\r\n' + b'X-Pad: 1\r\n' * 50 + b'Content-Length: 0\r\n'), [400]),
        ('on a GET', _get(b'Content-Length: 0\r\nContent-Length: 44\r\n'), [400]),
    ])


def equal_content_lengths_are_forwarded_once(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    client.send(_post(b'Content-Length: 5\r\nContent-Length: 5\r\n', line=b'POST /twice HTTP/1.1\r\n'))
    t.equal(client.response().status, 200)
    t.equal(origin.requests[0].fields.all('content-length'), ['5'])
    t.equal(origin.requests[0].body, b'hello')


def transfer_encodings_that_are_not_exactly_chunked_are_refused(t):
    body = b'5\r\nhello\r\n0\r\n\r\n'

    def row(value, allowed):
        return (f'Transfer-Encoding: {value!r}', _post(b'Transfer-Encoding: ' + value + b'\r\n', body), allowed)
    unknown, malformed, either = [501], [400], [400, 501]
    rows = [row(value, unknown) for value in (b'gzip, chunked', b'xchunked', b'cow', b'chunkedx')]
    rows += [row(value, malformed) for value in (
        b'chunked, chunked', b'chunked;q=1', b'\x0bchunked', b'chunked\x00', b'\x00chunked', b'"chunked"',
        b'chunked chunked',
        b'chu\rnked', b'chunked\x0b', b'\x0cchunked', b'chunk\xc3\xa9d', b'chunked; foo=bar', b'@chunked')]
    rows += [row(value, either) for value in (
        b'chunked, gzip', b'gzip', b'identity', b'chunked, identity', b'', b',', b'chunked,', b', chunked',
        b'chunked,,',
        b"'chunked'", b'identity, chunked', b'chunked, cow', b'deflate, gzip')]
    two = b'Transfer-Encoding: %s\r\nTransfer-Encoding: %s\r\n'
    rows += [('twice', _post(two % (b'chunked', b'chunked'), body), [400]),
             ('identity then chunked', _post(two % (b'identity', b'chunked'), body), either),
             ('chunked then identity', _post(two % (b'chunked', b'identity'), body), either),
             ('cow then chunked', _post(two % (b'cow', b'chunked'), body), either),
             ('chunked then empty', _post(two % (b'chunked', b''), body), either),
             ('in HTTP/1.0', _post(b'Transfer-Encoding: chunked\r\n', body, b'POST /wrong HTTP/1.0\r\n'), [400]),
             ('blank before the colon', _post(b'Transfer-Encoding : chunked\r\n', body), [400]),
             ('tab before the colon', _post(b'Transfer-Encoding\t: chunked\r\n', body), [400]),
             ('folded', _post(b'Transfer-Encoding:\r\n chunked\r\n', body), [400])]
    _refused(t, rows)


def chunked_is_known_in_any_case_and_with_blanks_around_it(t):
    origin = t.origin()
    weir = t.weir(origin)
    for value in (b'chunked', b'Chunked', b'CHUNKED', b'  chunked', b'chunked  ', b'\tchunked\t'):
        client = t.client(weir)
        client.send(_post(b'Transfer-Encoding: ' + value + b'\r\n', b'5\r\nhello\r\n0\r\n\r\n', b'POST / HTTP/1.1\r\n'))
        t.equal(client.response().status, 200, repr(value))
    t.equal([r.body for r in origin.requests], [b'hello'] * 6)


def bare_line_ends_control_bytes_and_folds_are_refused(t):
    _refused(t, [
        ('LF everywhere', b'GET /wrong HTTP/1.1\nHost: a.test\n\n', [400]),
        ('LF after the request line', b'GET /wrong HTTP/1.1\nHost: a.test\r\n\r\n', [400]),
        ('LF after a field', b'GET /wrong HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n', [400]),
        ('LF at the end', b'GET /wrong HTTP/1.1\r\nHost: a.test\r\n\n', [400]),
        ('CR alone between fields', b'GET /wrong HTTP/1.1\r\nHost: a.test\rX: y\r\n\r\n', [400]),
        ('CR in a value', _get(b'X: a\rb\r\n'), [400]),
        ('CR CR LF', b'GET /wrong HTTP/1.1\r\nHost: a.test\r\r\n\r\n', [400]),
        ('CR at the end of a name', _get(b'X\r: y\r\n'), [400]),
        ('CR in the request line', _get(line=b'GET /wrong\rHTTP/1.1\r\n'), [400]),
        ('NUL in a value', _get(b'X: a\0b\r\n'), [400]),
        ('NUL in a name', _get(b'X\0Y: a\r\n'), [400]),
        ('NUL in the target', _get(line=b'GET /wr\0ng HTTP/1.1\r\n'), [400]),
        ('NUL before everything', b'\0' + _get(), [400]),
        ('fold with a blank', _get(b'X: a\r\n b\r\n'), [400]),
        ('fold with a tab', _get(b'X: a\r\n\tb\r\n'), [400]),
        ('fold of the first field', b'GET /wrong HTTP/1.1\r\n Host: a.test\r\n\r\n', [400]),
        ('blank line that is not empty', b'GET /wrong HTTP/1.1\r\nHost: a.test\r\n \r\n\r\n', [400]),
        ('blank before the colon', _get(b'X : y\r\n'), [400]),
        ('tab before the colon', _get(b'X\t: y\r\n'), [400]),
        ('no colon', _get(b'nonsense\r\n'), [400]),
        ('empty name', _get(b': y\r\n'), [400]),
        ('blank in a name', _get(b'a b: y\r\n'), [400]),
        ('parenthesis in a name', _get(b'a(b): y\r\n'), [400]),
        ('quote in a name', _get(b'"a": y\r\n'), [400]),
        ('slash in a name', _get(b'a/b: y\r\n'), [400]),
        ('high byte in a name', _get(b'a\xe9: y\r\n'), [400]),
        ('control byte in a name', _get(b'a\x01: y\r\n'), [400]),
        ('DEL in a name', _get(b'a\x7f: y\r\n'), [400]),
    ])


def host_must_be_there_once_and_well_formed(t):
    def row(value):
        return (f'Host: {value!r}', _get(host=b'Host: ' + value + b'\r\n'), [400])
    _refused(t, [
        ('none', b'GET /wrong HTTP/1.1\r\n\r\n', [400]),
        ('none but other fields', b'GET /wrong HTTP/1.1\r\nX-Host: a\r\n\r\n', [400]),
        ('twice the same', _get(host=HOST * 2), [400]),
        ('twice different', _get(host=HOST + b'Host: b.test\r\n'), [400]),
        ('twice, other case', _get(host=HOST + b'HOST: b.test\r\n'), [400]),
        ('twice in HTTP/1.0', _get(line=b'GET /wrong HTTP/1.0\r\n', host=HOST * 2), [400]),
        ('blank before the colon', _get(host=b'Host : a.test\r\n'), [400]),
        ('absolute form without Host', _get(line=b'GET http://a.test/wrong HTTP/1.1\r\n', host=b''), [400]),
        *[row(value) for value in (
            b'a b', b'a.test, b.test', b'a.test:80:80', b'a.test:http', b'user@a.test', b'a.test/x', b'a.test?x',
            b'a.test#x', b'[::1', b'::1]', b'[::1]x',
            b'[zz]', b'a\\b', b'a.test:-1', b'a%zzb', b'a\xe9', b'a\tb', b'<a>', b'http://a.test', b'"a"',
            b'a.test:8 0', b'[]')],
    ])


def good_hosts_pass_as_they_came(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    hosts = ['a.test', 'a.test:8080', '127.0.0.1', '127.0.0.1:80', '[::1]', '[::1]:8080', 'A-b_c.Test',
             'xn--bcher-kva.test']
    for host in hosts:
        t.equal(client.ask(host=host).status, 200, host)
    t.equal([r.get('host') for r in origin.requests], hosts)


def bad_request_lines_and_targets_are_refused(t):
    def line(text, allowed=(400,)):
        return (repr(text), _get(line=text + b'\r\n'), list(allowed))
    _refused(t, [
        line(b'GET wrong HTTP/1.1'), line(b'GET wrong/x HTTP/1.1'), line(b'GET ?x HTTP/1.1'), line(b'GET #x HTTP/1.1'),
        line(b'GET /wrong#part HTTP/1.1'), line(b'GET /wr\x01ng HTTP/1.1'), line(b'GET /wr\x7fng HTTP/1.1'),
        line(b'GET /\xc3\xa9 HTTP/1.1'), line(b'GET /\xff HTTP/1.1'), line(b'GET /% HTTP/1.1'),
        line(b'GET /%4 HTTP/1.1'),
        line(b'GET /%zz HTTP/1.1'), line(b'GET /%%20 HTTP/1.1'), line(b'GET * HTTP/1.1'),
        line(b'GET /wrong thing HTTP/1.1'), line(b'GET  /wrong HTTP/1.1'), line(b'GET /wrong  HTTP/1.1'),
        line(b'GET\t/wrong\tHTTP/1.1'), line(b' GET /wrong HTTP/1.1'), line(b'GET /wrong HTTP/1.1 '), line(b'GET'),
        line(b'GET /wrong', [400, 505]), line(b'GET HTTP/1.1'), line(b'/wrong HTTP/1.1'), line(b''),
        line(b'GE(T /wrong HTTP/1.1'),
        line(b'GE\x01T /wrong HTTP/1.1'), line(b'G\xc9T /wrong HTTP/1.1'), line(b'"GET" /wrong HTTP/1.1'),
        line(b'GET http:///wrong HTTP/1.1'), line(b'GET http://a b/wrong HTTP/1.1'),
        line(b'GET http://a.test:x/wrong HTTP/1.1'),
        line(b'GET a.test:80 HTTP/1.1'), line(b'GET /wrong\\ HTTP/1.1 x'), line(b'GET http:/wrong HTTP/1.1'),
        line(b'GET http://a.test/wrong#x HTTP/1.1'),
    ])


def versions_other_than_1_0_and_1_1_are_refused(t):
    def version(text, allowed):
        return (repr(text), _get(line=b'GET /wrong ' + text + b'\r\n'), allowed)
    _refused(t, [
        version(b'HTTP/2.0', [505]), version(b'HTTP/3.0', [505]), version(b'HTTP/9.9', [505]),
        version(b'HTTP/0.9', [400, 505]),
        version(b'HTTP/2', [400, 505]), version(b'http/1.1', [400]), version(b'HTTP/1.10', [400]),
        version(b'HTTP/11', [400]),
        version(b'HTTP/1.', [400]), version(b'HTTP/.1', [400]), version(b'HTTP/1,1', [400]),
        version(b'HTTP/ 1.1', [400]),
        version(b'HTTP/1.1x', [400]), version(b'HTTPS/1.1', [400]), version(b'HTTP/-1.1', [400]),
        version(b'HTTP/01.1', [400]),
        version(b'HTTP/1.\xb9', [400]), version(b'HTTP/+1.1', [400]),
        ('HTTP/2 preface', b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00', [505, CLOSED]),
        ('a TLS hello', b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(200) + b'\r\n\r\n', [400, CLOSED]),
        ('nothing but line ends', b'\r\n' * 200 + b'nonsense\r\n\r\n', [400, CLOSED]),
    ])


def connect_to_a_reverse_proxy_is_405(t):
    _refused(t, [
        ('authority form', b'CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n', [405]),
        ('with bytes after it', b'CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n' + _get(), [405]),
        ('origin form', b'CONNECT /wrong HTTP/1.1\r\nHost: a.test\r\n\r\n', [400, 405]),
    ])


def an_over_long_head_is_431(t):
    _refused(t, [
        ('one long field', _get(b'X: ' + b'x' * 40000 + b'\r\n'), [431]),
        ('many fields', _get(b''.join(b'X-%d: y\r\n' % i for i in range(10000))), [431]),
        ('a field that never ends', b'GET /wrong HTTP/1.1\r\nHost: a.test\r\nX: ' + b'x' * 200000, [431]),
        ('a long name', _get(b'x' * 40000 + b': y\r\n'), [431]),
        ('a long target', _get(line=b'GET /' + b'x' * 40000 + b' HTTP/1.1\r\n'), [414, 431]),
        ('a long method', _get(line=b'G' * 40000 + b' / HTTP/1.1\r\n'), [400, 414, 431, 501]),
    ])


def max_header_is_exactly_where_it_is_set(t):
    origin = t.origin()
    weir = t.weir(origin, max_header=2048)
    for size, status in ((1500, 200), (2048, 200), (2049, 431), (3000, 431)):
        head = _get(b'X: ')
        t.equal(_status(t, weir, _get(b'X: ' + b'x' * (size - len(head) - 2) + b'\r\n')), status,
                f'a head of {size} bytes')


def _status(t, weir, data, method='GET'):
    """The status of the answer to these bytes."""
    client = t.client(weir)
    client.send(data)
    try:
        return client.response(method).status
    finally:
        client.close()


def a_head_just_under_32_kib_passes(t):
    origin = t.origin()
    weir = t.weir(origin)
    t.equal(_status(t, weir, _get(b'X: ' + b'x' * 31000 + b'\r\n')), 200)
    t.equal(origin.requests[0].get('x'), 'x' * 31000)


def max_body_refuses_a_length_over_it_before_anything_is_sent(t):
    big = b'x' * 1001
    _refused(t, [('1001', _post(b'Content-Length: 1001\r\n', big), [413]),
                 ('with 100-continue', _post(b'Content-Length: 1001\r\nExpect: 100-continue\r\n', b''), [413]),
                 ('a terabyte', _post(b'Content-Length: 1099511627776\r\n', b''), [413])], max_body=1000)


def max_body_lets_a_body_of_that_size_through_and_cuts_a_longer_chunked_one(t):
    origin = t.origin()
    weir = t.weir(origin, max_body=1000)
    t.equal(t.get(weir, method='POST', body=b'x' * 1000).status, 200, 'exactly 1000')
    data = _post(b'Transfer-Encoding: chunked\r\n', chunked([b'x' * 600, b'x' * 400]), b'POST / HTTP/1.1\r\n')
    t.equal(_status(t, weir, data), 200, 'chunked, exactly 1000')
    client = t.client(weir)
    client.send(_post(b'Transfer-Encoding: chunked\r\n', chunked([b'x' * 600, b'x' * 401]), b'POST / HTTP/1.1\r\n'))
    try:
        t.equal(client.response().status, 413, 'chunked, 1001')
    except Cut:
        t.check(False, 'chunked, 1001: no answer')
    t.equal(origin.whole_requests, 2, 'whole requests at the origin')


@takes(40)
def bad_chunks_are_refused_and_never_become_a_whole_request(t):
    origin = t.origin()
    weir = t.weir(origin, probe_interval=0.1)
    ext = b'x' * 70000
    rows = [
        ('0x5', b'0x5\r\nhello\r\n0\r\n\r\n'), ('-1', b'-1\r\nhello\r\n0\r\n\r\n'), ('+5', b'+5\r\nhello\r\n0\r\n\r\n'),
        ('blank after', b'5 \r\nhello\r\n0\r\n\r\n'), ('blank before', b' 5\r\nhello\r\n0\r\n\r\n'),
        ('tab after', b'5\t\r\nhello\r\n0\r\n\r\n'), ('no size', b'\r\nhello\r\n0\r\n\r\n'),
        ('a letter', b'G\r\nhello\r\n0\r\n\r\n'),
        ('5h', b'5h\r\nhello\r\n0\r\n\r\n'), ('5_0', b'5_0\r\nhello\r\n0\r\n\r\n'),
        ('17 digits', b'10000000000000005\r\nhello\r\n0\r\n\r\n'),
        ('F x 16', b'FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n'), ('F x 17', b'FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n'),
        ('2^32 of digits', b'0' * 70000 + b'5\r\nhello\r\n0\r\n\r\n'), ('LF after size', b'5\nhello\r\n0\r\n\r\n'),
        ('CR after size', b'5\rhello\r\n0\r\n\r\n'), ('LF after data', b'5\r\nhello\n0\r\n\r\n'),
        ('no CRLF', b'5\r\nhello0\r\n\r\n'),
        ('too much data', b'5\r\nhelloworld\r\n0\r\n\r\n'), ('too little data', b'5\r\nhel\r\n0\r\n\r\n'),
        ('LF at the end', b'5\r\nhello\r\n0\r\n\n'), ('LF after the last size', b'5\r\nhello\r\n0\n\r\n'),
        ('long extension', b'5;a=' + ext + b'\r\nhello\r\n0\r\n\r\n'),
        ('LF in an extension', b'5;a\nb\r\nhello\r\n0\r\n\r\n'),
        ('CR in an extension', b'5;a\rb\r\nhello\r\n0\r\n\r\n'),
        ('NUL in an extension', b'5;a\0\r\nhello\r\n0\r\n\r\n'),
        ('trailer without colon', b'5\r\nhello\r\n0\r\nnonsense\r\n\r\n'),
        ('blank in trailer name', b'5\r\nhello\r\n0\r\na b: c\r\n\r\n'),
        ('blank before colon', b'5\r\nhello\r\n0\r\nX : c\r\n\r\n'),
        ('folded trailer', b'5\r\nhello\r\n0\r\nX: c\r\n d\r\n\r\n'),
        ('NUL in trailer', b'5\r\nhello\r\n0\r\nX: \0\r\n\r\n'),
        ('LF in trailer', b'5\r\nhello\r\n0\r\nX: c\nY: d\r\n\r\n'),
        ('trailers too long', b'5\r\nhello\r\n0\r\nX: ' + ext + b'\r\n\r\n'),
        ('too many trailers', b'5\r\nhello\r\n0\r\n' + b'X: y\r\n' * 20000 + b'\r\n'),
        ('bad second chunk', b'5\r\nhello\r\n5x\r\nhello\r\n0\r\n\r\n'), ('not a number', b'hello\r\n0\r\n\r\n'),
    ]
    for name, body in rows:
        client = t.client(weir)
        try:
            client.send(_post(b'Transfer-Encoding: chunked\r\n', body + _get(line=b'GET /smuggled HTTP/1.1\r\n'),
                              b'POST /chunk HTTP/1.1\r\n'))
        except OSError:
            pass
        try:
            status = client.response().status
            t.check(status in (400, 413, 431), f'{name}: {status}')
            client.rest()
        except Cut:
            status = CLOSED
        client.close()
        t.equal(origin.whole_requests, 0, f'{name}: whole requests at the origin')
        origin.whole_requests = 0
    t.check('/smuggled' not in origin.targets(), 'a smuggled request reached the origin')
    # A client's mistake is not the target's: it is still in the rotation.
    t.equal(t.get(weir).status, 200, 'a good request afterwards')


def chunks_are_re_framed_and_their_extensions_dropped(t):
    origin = t.origin()
    weir = t.weir(origin)
    for body in (b'5;a=b\r\nhello\r\n0\r\n\r\n', b'5;a="b;c"\r\nhello\r\n0;last\r\n\r\n',
                 b'2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n',
                 b'0005\r\nhello\r\n000\r\n\r\n', b'5;a\r\nhello\r\n0\r\n\r\n'):
        data = _post(b'Transfer-Encoding: chunked\r\n', body, b'POST / HTTP/1.1\r\n')
        t.equal(_status(t, weir, data), 200, repr(body))
    t.equal([r.body for r in origin.requests], [b'hello'] * 5)      # the origin's reader refuses any extension


def chunk_sizes_may_be_upper_or_lower_case(t):
    origin = t.origin()
    weir = t.weir(origin)
    body = b'1a\r\n' + b'a' * 26 + b'\r\n1B\r\n' + b'b' * 27 + b'\r\n0\r\n\r\n'
    t.equal(_status(t, weir, _post(b'Transfer-Encoding: chunked\r\n', body, b'POST / HTTP/1.1\r\n')), 200)
    t.equal(origin.requests[0].body, b'a' * 26 + b'b' * 27)


def request_trailers_are_kept_except_those_that_frame(t):
    origin = t.origin()
    weir = t.weir(origin)
    trailers = ['X-Sum: 42', 'Content-Length: 7', 'Transfer-Encoding: chunked', 'Host: evil.test', 'X-More: yes']
    client = t.client(weir)
    client.send(_post(b'Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n', chunked([b'hello'], trailers),
                      b'POST / HTTP/1.1\r\n'))
    t.equal(client.response().status, 200)
    got = origin.requests[0].trailers
    t.equal([got.get('x-sum'), got.get('x-more')], ['42', 'yes'])
    for name in ('content-length', 'transfer-encoding', 'host'):
        t.check(not got.has(name), f'{name} in the trailers: {got}')
    t.equal(client.ask().status, 200, 'the next request on the connection')


def the_client_can_read_the_400_although_it_was_still_sending(t):
    origin = t.origin()
    weir = t.weir(origin)
    for _ in range(5):
        client = t.client(weir)
        client.send(_post(b'Content-Length: 5\r\nContent-Length: 6\r\n', b''))
        try:
            client.send(b'x' * 500000)
        except OSError:
            pass
        try:
            t.equal(client.response().status, 400)
        except Cut as cut:
            t.check(False, f'the answer was lost: {cut}')
    t.equal(origin.received_bytes, 0)


def nothing_after_a_refused_request_is_read(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    client.send(request(target='/good') + _post(b'Content-Length: x\r\n', b'') + request(target='/smuggled'))
    t.equal(client.response().status, 200, 'the first')
    t.equal(client.response().status, 400, 'the second')
    t.check(not client.rest(), 'bytes after the 400')
    t.equal(origin.targets(), ['/good'])


def _only_one_answer(t, name, client, method, data, status):
    """One answer to data, whose body looks like a request; afterwards the connection is closed or in step."""
    client.send(data)
    t.equal(client.response(method).status, status, name)
    if client.silent(t.s(0.2)):
        t.check(client.ask(target='/next').status in (200, 429, 500, 502), f'{name}: the next request')
    else:
        left = client.rest()
        t.check(not left, f'{name}: a second answer {left[:100]!r}')


def the_body_of_a_request_that_weir_answers_itself_is_never_read_as_a_request(t):
    inner = request(target='/smuggled')

    def resets(conn):
        if conn.request() is not None:
            conn.abort()
    good, bad = t.origin(), t.origin(handler=resets)
    whole = [('POST', request('POST', '/outer', body=inner)),
             ('POST', request('POST', '/outer', ['Transfer-Encoding: chunked']) + chunked([inner])),
             ('HEAD', request('HEAD', '/outer', body=inner)), ('GET', request('GET', '/outer', body=inner))]
    for method, data in whole:
        name = f'{method} {data[-20:]!r}'
        weir = t.weir(t.refused(), access_log=t.tmp + '/access.log')
        _only_one_answer(t, 'all out, ' + name, t.client(weir), method, data, 500)
        weir = t.weir(bad, access_log=t.tmp + '/access.log')
        _only_one_answer(t, 'reset, ' + name, t.client(weir), method, data, 502)
        weir = t.weir(good, threshold=1, access_log=t.tmp + '/access.log')
        t.equal(t.get(weir).status, 200)
        _only_one_answer(t, 'over the threshold, ' + name, t.client(weir), method, data, 429)
        weir = t.weir(good, max_body=10, access_log=t.tmp + '/access.log')
        if b'chunked' not in data:
            _only_one_answer(t, 'too big, ' + name, t.client(weir), method, data, 413)
    with open(t.tmp + '/access.log', encoding='ascii') as file:
        t.check('/smuggled' not in file.read(), 'the body was read as a request')
    t.check('/smuggled' not in good.targets() + bad.targets(), 'the body was sent as a request')


def the_rest_of_a_body_after_an_early_answer_is_never_read_as_a_request(t):
    """The origin answers before the body has come; the body then comes, and looks like a request."""
    inner = request(target='/smuggled')

    def handler(conn):
        while True:
            req = conn.head()
            if req is None:
                return
            conn.send(answer(b'early'))
            conn.body(req)
    origin = t.origin(handler=handler)
    weir = t.weir(origin, probe_interval=0.1)
    client = t.client(weir)
    client.send(request('POST', '/outer', [f'Content-Length: {len(inner)}']))
    t.equal(client.response().body, b'early')
    try:
        client.send(inner + request(target='/next'))
        t.equal(client.response().body, b'early')
        client.silent(t.s(0.2))
        t.check(not client.buffer, 'one answer too many')
    except (Cut, OSError):
        pass                    # closed instead, which is as good
    t.check('/smuggled' not in origin.targets(), 'the body became a request')
    t.equal(t.get(weir).body, b'early', 'another client')


def every_answer_that_weir_makes_itself_says_why_in_proxy_status(t):
    def resets(conn):
        if conn.request() is not None:
            conn.abort()
    hung = t.origin(handler=lambda conn: conn.hold())
    rows = [(t.weir(t.refused()), _get(), 500), (t.weir(t.origin(handler=resets)), _post(b'Content-Length: 5\r\n'),
                                                 502),
            (t.weir(hung, response_timeout=0.2), _post(b'Content-Length: 5\r\n'), 504)]
    strict = t.weir(t.origin(), max_body=10, threshold='1/m')
    t.equal(t.get(strict).status, 200)
    rows += [(strict, _get(), 429), (strict, _get(host=b''), 400), (strict, _post(b'Content-Length: 11\r\n'), 413),
             (strict, _get(b'X: ' + b'x' * 40000 + b'\r\n'), 431), (strict, _get(line=b'GET / HTTP/2.0\r\n'), 505),
             (strict, b'CONNECT a.test:1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n', 405),
             (strict, _post(b'Transfer-Encoding: cow\r\n'), 501)]
    for weir, data, status in rows:
        client = t.client(weir)
        client.send(data)
        response = client.response()
        t.equal(response.status, status)
        t.check('weir' in (response.get('proxy-status') or ''),
                f'{status}: Proxy-Status {response.get("proxy-status")!r}')
    response = t.get(t.weir(t.origin(lambda req: answer(b'', 404, 'Not Found'))))
    t.check(not response.fields.has('proxy-status'), 'Proxy-Status on an answer of the target')


def an_error_answered_to_head_has_no_body(t):
    weir = t.weir(t.refused())
    client = t.client(weir)
    for _ in range(3):
        t.equal(client.ask('HEAD').status, 500)
        t.equal(client.ask('GET').body, b'All servers is off')


def half_a_request_never_reaches_a_target(t):
    origin = t.origin()
    weir = t.weir(origin)
    whole = request(fields=['X-Field: value'])
    clients = []
    for length in range(1, len(whole)):
        client = t.client(weir)
        client.send(whole[:length])
        client.finish()
        clients.append((length, client))
    for length, client in clients:
        left = client.rest()
        t.check(not left or left.startswith((b'HTTP/1.1 400', b'HTTP/1.1 408')), f'{length} bytes: {left[:80]!r}')
    t.equal(origin.received_bytes, 0)


def one_empty_line_before_a_request_is_forgiven(t):
    weir = t.weir(t.origin())
    t.equal(_status(t, weir, b'\r\n' + request()), 200)


def high_bytes_and_empty_values_in_fields_pass_as_they_came(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    client.send(_get(b'X-High: caf\xe9 \xff\r\nX-Empty:\r\nX-Tab: a\tb\r\nX-Blank:   around   \r\nX-Colon: a:b:c\r\n',
                     b'GET / HTTP/1.1\r\n'))
    t.equal(client.response().status, 200)
    got = origin.requests[0]
    t.equal([got.get(n) for n in ('x-high', 'x-empty', 'x-tab', 'x-blank', 'x-colon')],
            ['caf\xe9 \xff', '', 'a\tb', 'around', 'a:b:c'])


def targets_are_forwarded_exactly_as_they_came(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    targets = ['/', '/a/../b', '/%2e%2e/', '//evil.test/x', '/a//b', '/a;b=c', '/?q=1&r=%20', '/%C3%A9', '/a/./b', '/?',
               '/a%2Fb',
               '/?q=100%&r=%g0', '/~u/!$&\'()*+,;=:@', '/?a?b/c', '/x' * 2000]
    for target in targets:
        t.equal(client.ask(target=target).status, 200, target[:80])
    t.equal(origin.targets(), targets)


def unknown_methods_pass(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    for method in ('PATCH', 'PROPFIND', 'get', 'M-SEARCH', 'X!#$'):
        t.equal(client.ask(method).status, 200, method)
    t.equal([r.method for r in origin.requests], ['PATCH', 'PROPFIND', 'get', 'M-SEARCH', 'X!#$'])


# Any division of the bytes over reads gives the same result. weir has read the first part before the second is sent:
# the kernel says so (its receive queue is empty), no guess is made.

def _every_split(t, data, answers):
    """Sends data in two parts, for each place to part it. answers: the statuses that must come back, in order. What
    reaches the origin must be the same for each place; its path is /split/NNNN, where NNNN is that place."""
    origin = t.origin()
    weir = t.weir(origin, header_timeout=t.s(60))   # a slow machine takes long for so many

    def at(place):
        return data.replace(b'/split/NNNN', b'/split/%04d' % place)
    places = range(1, len(data))
    clients = [t.client(weir, seconds=20) for _ in places]
    for place, client in zip(places, clients):
        client.send(at(place)[:place])
    t.read_by_peer(*clients, seconds=15)
    for place, client in zip(places, clients):
        try:
            client.send(at(place)[place:])
        except OSError:
            pass
    for place, client in zip(places, clients):
        got = []
        try:
            for _ in answers:
                got.append(client.response().status)
        except Cut:
            got.append(CLOSED)
        t.equal(got, answers, f'parted at {place}')
        client.close()

    def shape(req):
        fields = [(name.lower(), value) for name, value in req.fields.lines]
        return req.method, sorted(fields), req.body, sorted(req.trailers.lines)
    shapes = {}
    for req in origin.requests:
        shapes.setdefault(req.target, []).append(shape(req))
    wanted = answers.count(200)
    if wanted:
        t.equal(sorted(shapes), ['/split/%04d' % place for place in places], 'paths at the origin')
        first = sorted(next(iter(shapes.values())))
        t.equal(len(first), wanted, 'requests for each')
        for target, seen in shapes.items():
            t.check(sorted(seen) == first, f'{target}: {seen} instead of {first}')
    else:
        t.equal(origin.received_bytes, 0, 'bytes at the origin')


def a_get_parted_anywhere_is_the_same_get(t):
    _every_split(t, b'GET /split/NNNN HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\n'
                    b'Accept: */*\r\nConnection: keep-alive\r\n\r\n', [200])


def a_post_with_a_length_parted_anywhere_is_the_same_post(t):
    _every_split(t, b'POST /split/NNNN HTTP/1.1\r\nHost: a.test\r\nContent-Length: 26\r\n\r\n'
                    b'abcdefghijklmnopqrstuvwxyz', [200])


def a_chunked_post_parted_anywhere_is_the_same_post(t):
    _every_split(t, b'POST /split/NNNN HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n'
                    b'A;x=y\r\n0123456789\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n', [200])


def two_pipelined_requests_parted_anywhere_are_the_same_two(t):
    _every_split(t, b'POST /split/NNNN HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello'
                    b'GET /split/NNNN HTTP/1.1\r\nHost: a.test\r\n\r\n', [200, 200])


def a_refused_request_parted_anywhere_is_refused(t):
    _every_split(t, b'POST /split/NNNN HTTP/1.1\r\nHost: a.test\r\n'
                    b'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n', [400])


def a_chunked_post_byte_by_byte_is_the_same_post(t):
    origin = t.origin()
    weir = t.weir(origin)
    client = t.client(weir)
    data = _post(b'Transfer-Encoding: chunked\r\n', b'a;x=y\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n',
                 b'POST / HTTP/1.1\r\n')
    for byte in data:
        client.send(bytes([byte]))
        t.read_by_peer(client)
    t.equal(client.response().status, 200)
    t.equal([origin.requests[0].body, origin.requests[0].trailers.get('x-sum')], [b'0123456789', '1'])


def a_response_parted_anywhere_is_the_same_response(t):
    data = (b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n'
            b'5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n')

    def handler(conn):
        while True:
            req = conn.request()
            if req is None:
                return
            place = int(req.target[1:])
            conn.send(data[:place])
            t.read_by_peer(conn)
            conn.send(data[place:])
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    for place in range(1, len(data)):
        response = client.ask(target=f'/{place}')
        t.equal([response.status, response.body, response.get('x-a'), response.trailers.get('x-sum'),
                 [r.status for r in response.interim]], [200, b'hello world', 'b', '1', [103]], f'parted at {place}')


def a_response_with_a_length_parted_anywhere_is_the_same_response(t):
    data = answer(b'0123456789', fields=['X-A: b'])

    def handler(conn):
        while True:
            req = conn.request()
            if req is None:
                return
            place = int(req.target[1:])
            conn.send(data[:place])
            t.read_by_peer(conn)
            conn.send(data[place:])
    weir = t.weir(t.origin(handler=handler))
    client = t.client(weir)
    for place in range(1, len(data)):
        response = client.ask(target=f'/{place}')
        t.equal([response.status, response.body, response.get('x-a')], [200, b'0123456789', 'b'], f'parted at {place}')


def the_harness_reads_strictly(t):
    """The reader of these tests must be able to fail: nonsense from a server is not taken for an answer."""
    nonsense = [b'HTTP/1.1 200 OK\nContent-Length: 0\n\n',
                b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
                b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n',
                b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n',
                b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello',
                b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort',
                b'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', b'', b'HTTP/1.1 20 OK\r\n\r\n']
    for data in nonsense:
        listener = socket.create_server(('127.0.0.1', 0))
        client = Client(listener.getsockname()[1], t.s(5))
        server, _ = listener.accept()
        server.sendall(data)
        server.close()
        listener.close()
        try:
            t.check(False, f'{client.response()} was made of {data!r}')
        except (AssertionError, Cut):
            pass
        client.close()
