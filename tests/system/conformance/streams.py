"""Several messages on one connection, and what lies between them: pipelining, keep-alive, early answers, messages
that have no body (RFC 9112 §9; SPEC: HTTP/1.1, rules 4 and 5)."""
from .row import AWAIT, FINISH, NOTHING, SMUGGLED, Reply, Row, get, in_chunks, message, post, with_length

EVIL = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'
HELLO = b'Content-Length: 5\r\n'
SECOND = get(line=b'GET /y HTTP/1.1')


def _bad(fields):
    return get(fields, b'GET /bad HTTP/1.1')


PIPELINES = [
    Row('two GETs', get() + SECOND, '200 200 open', [message('GET /x'), message('GET /y')], 'RFC 9112 §9.3.2'),
    Row('a hundred GETs', b''.join(get(line=b'GET /%d HTTP/1.1' % n) for n in range(100)),
        ' '.join(['200'] * 100 + ['open']),
        [message(f'GET /{n}') for n in range(100)], 'RFC 9112 §9.3.2'),
    Row('a POST, then a GET', post(HELLO, b'hello') + SECOND, '200 200 open',
        [with_length('POST /x', body=b'hello'), message('GET /y')], 'RFC 9112 §9.3.2'),
    Row('chunks, then a GET', post(b'Transfer-Encoding: chunked\r\n', b'5\r\nhello\r\n0\r\n\r\n') + SECOND,
        '200 200 open',
        [in_chunks('POST /x', body=b'hello'), message('GET /y')], 'RFC 9112 §9.3.2'),
    Row('a HEAD, then a GET', get(line=b'HEAD /x HTTP/1.1') + SECOND, '200 200 open',
        [message('HEAD /x'), message('GET /y')], 'RFC 9112 §9.3.2'),
    Row('an empty line between two requests', post(HELLO, b'hello') + b'\r\n' + SECOND, '200 200 open',
        [with_length('POST /x', body=b'hello'), message('GET /y')],
        'RFC 9112 §2.2', note='old clients send one'),
    Row('three empty lines between two requests', post(HELLO, b'hello') + b'\r\n' * 3 + SECOND, '200 400 closed',
        [with_length('POST /x', body=b'hello')],
        'RFC 9112 §2.2', note='a choice: two are let pass'),
    Row('a bare LF between two requests', post(HELLO, b'hello') + b'\n' + SECOND, '200 400 closed',
        [with_length('POST /x', body=b'hello')], 'RFC 9112 §2.2'),
    Row('one byte more than the length', post(HELLO, b'hello!') + SECOND, '200 200 open',
        [with_length('POST /x', body=b'hello'), message('!GET /y')], 'RFC 9112 §6.3',
        note='! is a letter of a token: another method'),
    Row('a blank more than the length', post(HELLO, b'hello ') + SECOND, '200 400 closed',
        [with_length('POST /x', body=b'hello')], 'RFC 9112 §6.3'),
    Row('a byte fewer than the length', post(b'Content-Length: 6\r\n', b'hello') + SECOND, '200 200 open',
        [with_length('POST /x', body=b'helloG'), message('ET /y')],
        'RFC 9112 §6.3', note='the G belongs to the body, and nobody asks what was meant'),
    Row('a good one, then a bad one', get() + _bad(b'X : y\r\n') + SMUGGLED, '200 400 closed', [message('GET /x')],
        'RFC 9112 §9.3, §11.2'),
    Row('a bad one, then good ones', _bad(b'X : y\r\n') + get() + SECOND, '400 closed', NOTHING,
        'RFC 9112 §9.3, §11.2'),
    Row('a good one, then half a one', [get() + b'GET /y HTTP/1.1\r\nHo', FINISH], '200 closed', [message('GET /x')],
        'RFC 9112 §8'),
    Row('a prefix left behind', [get() + b'G', FINISH], '200 closed', [message('GET /x')],
        'RFC 9112 §11.2; Kettle 2019', note='it is nobody else\'s first byte'),
    Row('Connection: close, then another', get(b'Connection: close\r\n') + SMUGGLED, '200 closed', [message('GET /x')],
        'RFC 9112 §9.6'),
    Row('HTTP/1.0, then another', get(line=b'GET /x HTTP/1.0') + SMUGGLED, '200 closed', [message('GET /x')],
        'RFC 9112 §9.3'),
    Row('HTTP/1.0 with keep-alive, then another', get(b'Connection: keep-alive\r\n', b'GET /x HTTP/1.0') + SECOND,
        '200 200 open', [message('GET /x'), message('GET /y')],
        'RFC 9112 §9.3'),
    Row('HTTP/1.0 with keep-alive and close', get(b'Connection: keep-alive, close\r\n', b'GET /x HTTP/1.0') + SMUGGLED,
        '200 closed', [message('GET /x')], 'RFC 9112 §9.3'),
    Row('HTTP/1.0 with a length', post(HELLO, b'hello', b'POST /x HTTP/1.0'), '200 closed',
        [with_length('POST /x', body=b'hello')], 'RFC 9112 §6.3'),
    Row('HTTP/1.0 POST without a length', post(b'', b'hello', b'POST /x HTTP/1.0'), '200 closed', [message('POST /x')],
        'RFC 9112 §6.3', note='the close does not end a request'),
    Row('a request after CONNECT was refused', get(line=b'CONNECT a.test:443 HTTP/1.1') + SMUGGLED, '405 closed',
        NOTHING, 'RFC 9110 §9.3.6; RFC 9931 §3'),
    Row('a request after TRACE with Max-Forwards: 0', get(b'Max-Forwards: 0\r\n', b'TRACE /x HTTP/1.1') + SECOND,
        '200 200 open', [message('GET /y')], 'RFC 9110 §7.6.2',
        body=b'/y'),
]

EARLY = [
    Row(f'an answer of {status} before the body', [post(b'Content-Length: 40\r\n'), AWAIT, SMUGGLED],
        f'{status} closed', NOTHING, 'RFC 9112 §9.6; Kettle 2022',
        Reply(b'HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok' % status, at='head'), body=b'ok', partial=True,
            note='the rest of the body is not the next request')
    for status in (200, 302, 404, 413, 500)]
EARLY += [
    Row('an answer before the chunks', [post(b'Transfer-Encoding: chunked\r\n'), AWAIT, b'0\r\n\r\n' + SMUGGLED],
        '200 closed', NOTHING, 'RFC 9112 §9.6; Kettle 2022',
        Reply(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', at='head'), body=b'ok', partial=True),
    Row('an answer before the body of a GET', [get(b'Content-Length: 40\r\n'), AWAIT, SMUGGLED], '200 closed', NOTHING,
        'RFC 9112 §9.6; Kettle 2025',
        Reply(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', at='head'), body=b'ok', partial=True),
    Row('an answer and a close before the body', [post(b'Content-Length: 40\r\n'), AWAIT, SMUGGLED], '413 closed',
        NOTHING, 'RFC 9112 §9.6',
        Reply(b'HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno', 'closes', 'head'), body=b'no',
            partial=True),
]

PAUSES = [
    Row(f'{name}, then silence', send, '408 closed', NOTHING, source, partial=True, settings='impatient') for name,
        send, source in (
        ('half a head', b'GET /x HTTP/1.1\r\nHost: a.te', 'RFC 9110 §15.5.9'),
            ('a head, and none of its body', post(HELLO), 'RFC 9110 §15.5.9; Kettle 2022'),
        ('half a body', post(HELLO, b'hel'), 'RFC 9110 §15.5.9; Kettle 2022'),
            ('half a chunk', post(b'Transfer-Encoding: chunked\r\n', b'5\r\nhel'), 'RFC 9110 §15.5.9; Kettle 2022'))]

ASKED = [message('GET /x')]
BODILESS = [
    Row('HEAD with a length and no body', get(line=b'HEAD /x HTTP/1.1'), '200 open', [message('HEAD /x')],
        'RFC 9110 §9.3.2', Reply(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n'),
        lines=['Content-Length: 100']),
    Row('HEAD with chunks announced', get(line=b'HEAD /x HTTP/1.1'), '200 open', [message('HEAD /x')],
        'RFC 9112 §6.1, §6.3', Reply(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'), lines=[]),
    Row('HEAD answered with a body', get(line=b'HEAD /x HTTP/1.1'), '200 open', [message('HEAD /x')],
        'RFC 9112 §6.3; Kettle 2022', Reply(b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello'),
        note='the body reaches nobody'),
    Row('HEAD answered with an answer inside', get(line=b'HEAD /x HTTP/1.1') + SECOND, '200 200 open',
        [message('HEAD /x'), message('GET /y')], 'RFC 9112 §6.3; Kettle 2022',
        Reply(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(EVIL) + EVIL), body=b'/y',
            note='a queue out of step would show evil'),
    Row('HEAD with neither, and a close', get(line=b'HEAD /x HTTP/1.1'), '200 open', [message('HEAD /x')],
        'RFC 9112 §6.3', Reply(b'HTTP/1.1 200 OK\r\n\r\n', 'closes'), lines=[]),
    Row('204', get(), '204 open', ASKED, 'RFC 9110 §15.3.5', Reply(b'HTTP/1.1 204 No Content\r\n\r\n'), lines=[]),
    Row('204 with a length of 0', get(), '204 open', ASKED, 'RFC 9110 §8.6',
        Reply(b'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n'), lines=[], note='clumsy, and removed'),
    Row('204 with a length', get(), '502 open', ASKED, 'RFC 9110 §8.6; RFC 9112 §6.3',
        Reply(b'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello'),
        note='a choice: refused rather than guessed whether a body follows'),
    Row('204 with chunks', get(), '502 open', ASKED, 'RFC 9112 §6.1',
        Reply(b'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n')),
    Row('204 with an answer behind it', get(), '204 open', ASKED, 'RFC 9112 §6.3, §11.1',
        Reply(b'HTTP/1.1 204 No Content\r\n\r\n' + EVIL)),
    Row('304 with a length', get(), '304 open', ASKED, 'RFC 9110 §8.6, §15.4.5',
        Reply(b'HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n'), lines=['Content-Length: 100']),
    Row('304 with chunks announced', get(), '304 open', ASKED, 'RFC 9112 §6.1',
        Reply(b'HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n'), lines=[]),
    Row('304 with an answer behind it', get(), '304 open', ASKED, 'RFC 9112 §6.3, §11.1',
        Reply(b'HTTP/1.1 304 Not Modified\r\nContent-Length: %d\r\n\r\n' % len(EVIL) + EVIL)),
    Row('205 with a body', get(), '205 open', ASKED, 'RFC 9110 §15.3.6',
        Reply(b'HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello'), body=b'hello',
        note='its framing is that of any answer'),
]

LINK = b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
INTERIM = [
    Row('103 is passed on', get(), '103 200 open', ASKED, 'RFC 9110 §15.2; RFC 8297', Reply(LINK + OK), body=b'ok'),
    Row('100 unasked is passed on', get(), '100 200 open', ASKED, 'RFC 9110 §15.2',
        Reply(b'HTTP/1.1 100 Continue\r\n\r\n' + OK), body=b'ok'),
    Row('199, which nobody knows, is passed on', get(), '199 200 open', ASKED, 'RFC 9110 §15',
        Reply(b'HTTP/1.1 199 X\r\n\r\n' + OK), body=b'ok'),
    Row('five interim answers', get(), '103 103 103 103 103 200 open', ASKED, 'RFC 9110 §15.2', Reply(LINK * 5 + OK),
        body=b'ok'),
    Row('an interim answer to HTTP/1.0 is left out', get(line=b'GET /x HTTP/1.0'), '200 closed', ASKED,
        'RFC 9110 §15.2', Reply(LINK + OK), body=b'ok'),
    Row('an interim answer with hop-by-hop fields', get(), '103 200 open', ASKED, 'RFC 9110 §7.6.1',
        Reply(LINK.replace(b'\r\n\r\n', b'\r\nConnection: close\r\nKeep-Alive: 1\r\n\r\n') + OK)),
    Row('an interim answer with a length of 0', get(), '103 200 open', ASKED, 'RFC 9110 §8.6',
        Reply(LINK.replace(b'\r\n\r\n', b'\r\nContent-Length: 0\r\n\r\n') + OK)),
    Row('an interim answer with a length', get(), '502 open', ASKED, 'RFC 9112 §6.3',
        Reply(LINK.replace(b'\r\n\r\n', b'\r\nContent-Length: 5\r\n\r\nhello') + OK)),
    Row('an interim answer with chunks', get(), '502 open', ASKED, 'RFC 9112 §6.1',
        Reply(LINK.replace(b'\r\n\r\n', b'\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n') + OK)),
    Row('a flood of interim answers', get(), ' '.join(['103'] * 100 + ['502', 'open']), ASKED, 'RFC 9110 §15.2, §17.5',
        Reply(LINK * 101 + OK), note='a limit of weir: 100'),
    Row('an interim answer, then nonsense', get(), '103 502 open', ASKED, 'RFC 9112 §4',
        Reply(LINK + b'nonsense\r\n\r\n', 'closes')),
    Row('an interim answer, then the end', get(), '103 500 open', ASKED, 'RFC 9112 §8', Reply(LINK, 'closes')),
]

ROWS = PIPELINES + EARLY + PAUSES + BODILESS + INTERIM
