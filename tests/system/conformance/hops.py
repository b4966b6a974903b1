"""What is between two neighbours and must not go on: Connection and what it names, Expect, Max-Forwards, Upgrade
(RFC 9110 §7.6, §7.8, §10.1.1; SPEC: HTTP/1.1, rule 3)."""
from .row import AWAIT, NOTHING, SMUGGLED, Message, Reply, Row, get, in_chunks, message, post, with_length

CONTINUE = b'HTTP/1.1 100 Continue\r\n\r\n'


def _loses(name, fields, source='RFC 9110 §7.6.1', kept=(), sees='200 open', **more):
    return Row(name, get(fields), sees, [message('GET /x', *kept)], source, **more)


CONNECTION = [
    _loses('what Connection names is removed', b'Connection: keep-alive, X-Private\r\nX-Private: 1\r\nX-Kept: 2\r\n',
        kept=['X-Kept: 2']),
    _loses('in any case, each time', b'connection: x-private\r\nX-PRIVATE: 1\r\nx-Private: 2\r\n'),
    _loses('named before or after', b'X-A: 1\r\nConnection: X-A, X-B\r\nX-B: 2\r\n'),
    _loses('two Connection fields', b'Connection: X-A\r\nX-A: 1\r\nConnection: X-B\r\nX-B: 2\r\n'),
    *[_loses(f'{line.partition(":")[0]} is removed, named or not', line.encode() + b'\r\n', source) for line,
        source in (
        ('Keep-Alive: timeout=5', 'RFC 9110 §7.6.1'), ('Proxy-Connection: keep-alive', 'RFC 9110 §7.6.1'),
            ('TE: trailers', 'RFC 9110 §10.1.4'),
        ('Proxy-Authorization: Basic eDp5', 'RFC 9110 §11.7.2'), ('Upgrade: websocket', 'RFC 9110 §7.8'),
            ('HTTP2-Settings: AAMAAABkAARAAAAA', 'RFC 9113 §3.1; Miller 2020'))],
    *[_loses(f'{name} stays, though Connection names it', f'Connection: close, {name}\r\n{name}: {value}\r\n'.encode(),
        'RFC 9110 §7.6.1; Davison 2019',
             kept=[f'{name}: {value}'], sees='200 closed') for name, value in (
                 ('X-Forwarded-For', '192.0.2.1'), ('X-Forwarded-Host', 'b.test'), ('X-Forwarded-Proto', 'https'),
                     ('Via', '1.1 b.test'))],
    _loses('Cookie goes when Connection names it', b'Connection: Cookie\r\nCookie: a=b\r\n',
        'RFC 9110 §7.6.1; Davison 2019',
           note='a choice: end-to-end fields that decide about no message may be named'),
    _loses('Authorization goes when Connection names it', b'Connection: Authorization\r\nAuthorization: Basic eDp5\r\n',
        'RFC 9110 §7.6.1; Davison 2019', note='as above'),
    *[_loses(f'Connection: {value}', f'Connection: {value}\r\n'.encode(), 'RFC 9112 §9.6', sees='200 closed')
        for value in ('close', 'CLOSE', 'keep-alive, close', 'close, close', ', close,')],
    *[_loses(f'Connection: {value!r}', f'Connection: {value}\r\n'.encode(), 'RFC 9112 §9.3')
        for value in ('keep-alive', '', ',', 'closed')],
    *[Row(f'Connection: {value}', get(f'Connection: {value}\r\n'.encode()) + SMUGGLED, '400 closed', NOTHING,
        'RFC 9110 §7.6.1', note='a choice: names only')
      for value in ('"close"', 'close;q=1', 'a b', 'close: x')],
    _loses('Proxy-Connection: close closes nothing', b'Proxy-Connection: close\r\n', 'RFC 9112 §C.2.2'),
]

EXPECT = [
    Row('100-continue: the target says 100', [post(b'Expect: 100-continue\r\nContent-Length: 5\r\n'), AWAIT, b'hello'],
        '100 200 open',
        [with_length('POST /x', 'Expect: 100-continue', body=b'hello')], 'RFC 9110 §10.1.1',
            Reply(CONTINUE, at='head')),
    Row('100-continue with chunks', [post(b'Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n'), AWAIT,
        b'5\r\nhello\r\n0\r\n\r\n'], '100 200 open',
        [in_chunks('POST /x', 'Expect: 100-continue', body=b'hello')], 'RFC 9110 §10.1.1', Reply(CONTINUE, at='head')),
    Row('100-Continue in another case', [post(b'Expect: 100-Continue\r\nContent-Length: 5\r\n'), AWAIT, b'hello'],
        '100 200 open',
        [with_length('POST /x', 'Expect: 100-Continue', body=b'hello')], 'RFC 9110 §10.1.1',
            Reply(CONTINUE, at='head')),
    Row('100-continue: the body comes without waiting', post(b'Expect: 100-continue\r\nContent-Length: 5\r\n',
        b'hello'), '200 open',
        [with_length('POST /x', 'Expect: 100-continue', body=b'hello')], 'RFC 9110 §10.1.1; Kettle 2025'),
    Row('100-continue: the target refuses, the body comes all the same',
        [post(b'Expect: 100-continue\r\nContent-Length: 40\r\n'), AWAIT, SMUGGLED],
        '417 closed', NOTHING, 'RFC 9110 §10.1.1; Kettle 2025',
            Reply(b'HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n', at='head'), partial=True,
        note='the body that was not wanted must not be read as a request'),
    Row('100-continue: the target answers 200 at once', [post(b'Expect: 100-continue\r\nContent-Length: 40\r\n'), AWAIT,
        SMUGGLED], '200 closed', NOTHING,
        'RFC 9110 §10.1.1; Kettle 2025; CVE-2024-24791', Reply(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
            at='head'), body=b'ok', partial=True),
    Row('100-continue on a GET without a body', get(b'Expect: 100-continue\r\n'), '200 open',
        [message('GET /x', 'Expect: 100-continue')], 'RFC 9110 §10.1.1'),
    Row('100-continue in HTTP/1.0 means nothing', post(b'Expect: 100-continue\r\nContent-Length: 5\r\n', b'hello',
        b'POST /x HTTP/1.0'), '200 closed',
        [with_length('POST /x', body=b'hello')], 'RFC 9110 §10.1.1', note='and is not sent on as if it did'),
    Row('100-continue named in Connection is removed',
        post(b'Expect: 100-continue\r\nConnection: Expect\r\nContent-Length: 5\r\n', b'hello'), '200 open',
        [with_length('POST /x', body=b'hello')], 'RFC 9110 §7.6.1; Kettle 2025'),
    *[Row(f'Expect: {value!r}', post(f'Expect: {value}\r\nContent-Length: 40\r\n'.encode(), SMUGGLED), '417 closed',
        NOTHING, source) for value, source in (
        ('y 100-continue', 'RFC 9110 §10.1.1; Kettle 2025'), ('x', 'RFC 9110 §10.1.1'),
            ('100-continue, x', 'RFC 9110 §10.1.1'), ('100-continue;q=1', 'RFC 9110 §10.1.1'),
                ('', 'RFC 9110 §10.1.1'))],
]

MAX_FORWARDS = [
    Row('OPTIONS with Max-Forwards: 0', get(b'Max-Forwards: 0\r\n', b'OPTIONS * HTTP/1.1'), '200 open', NOTHING,
        'RFC 9110 §7.6.2', body=b'', note='answered here'),
    Row('TRACE with Max-Forwards: 0', get(b'Max-Forwards: 0\r\nCookie: secret\r\nAuthorization: secret\r\n',
        b'TRACE /x HTTP/1.1'), '200 open', NOTHING,
        'RFC 9110 §7.6.2, §9.3.8', body=b'TRACE /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n',
            note='answered here, without what is secret'),
    Row('OPTIONS with Max-Forwards: 1', get(b'Max-Forwards: 1\r\n', b'OPTIONS * HTTP/1.1'), '200 open',
        [message('OPTIONS *', 'Max-Forwards: 0')], 'RFC 9110 §7.6.2'),
    Row('TRACE with Max-Forwards: 10', get(b'Max-Forwards: 10\r\n', b'TRACE /x HTTP/1.1'), '200 open',
        [message('TRACE /x', 'Max-Forwards: 9')], 'RFC 9110 §7.6.2'),
    Row('GET with Max-Forwards: 0', get(b'Max-Forwards: 0\r\n'), '200 open', [message('GET /x', 'Max-Forwards: 0')],
        'RFC 9110 §7.6.2', note='means nothing there'),
    *[Row(f'OPTIONS with {fields!r}', get(fields, b'OPTIONS * HTTP/1.1'), '400 closed', NOTHING, 'RFC 9110 §7.6.2')
        for fields in (
        b'Max-Forwards: x\r\n', b'Max-Forwards: -1\r\n', b'Max-Forwards:\r\n',
            b'Max-Forwards: 1\r\nMax-Forwards: 0\r\n', b'Max-Forwards: 99999999999999999999\r\n')],
]

KEY = 'Sec-WebSocket-Key: YSB0YWJsZSBvZiBieXRlcw=='
WEBSOCKET = b'Connection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n' % KEY.encode()
ASKED = message('GET /x', KEY, 'Connection: upgrade', 'Upgrade: websocket')
SWITCH = b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' \
         b'Sec-WebSocket-Accept: hCW9XDqiTNr0OSQcbPaygYutQEQ=\r\n\r\n'


def _bad_switch(name, reply, source, fields=WEBSOCKET, reaches=(ASKED,), line=b'GET /x HTTP/1.1', sees='502 open'):
    return Row(name, get(fields, line), sees, reaches, source, Reply(reply, 'closes'))


UPGRADE = [
    Row('upgrade: both sides agree', [get(WEBSOCKET), AWAIT, b'up'], '101 closed', [ASKED], 'RFC 9110 §7.8',
        Reply(SWITCH, 'tunnels', up=b'up', down=b'down'), left=b'down'),
    Row('upgrade: bytes before the answer', get(WEBSOCKET) + b'up', '101 closed', [ASKED], 'RFC 9110 §7.8; RFC 9931 §3',
        Reply(SWITCH, 'tunnels', up=b'up', down=b'down'), left=b'down',
            note='they belong to the tunnel once there is one'),
    Row('upgrade: 101 and the first bytes in one piece', get(WEBSOCKET), '101 closed', [ASKED], 'RFC 9110 §7.8',
        Reply(SWITCH + b'down', 'tunnels'), left=b'down'),
    Row('upgrade: a request with a body', post(WEBSOCKET + b'Content-Length: 5\r\n', b'helloup'), '101 closed',
        [Message(['POST /x HTTP/1.1', 'Host: a.test', KEY, 'Content-Length: 5', 'Connection: upgrade',
            'Upgrade: websocket'], b'hello')], 'RFC 9110 §7.8',
        Reply(SWITCH, 'tunnels', up=b'up', down=b'down'), left=b'down'),
    Row('upgrade refused with 200: bytes in advance are requests', get(WEBSOCKET) + SMUGGLED, '200 200 open',
        [ASKED, message('GET /smuggled')],
        'RFC 9110 §7.8; RFC 9931 §3', note='they pass every rule that requests pass'),
    Row('upgrade refused with 426: what follows are requests',
        [get(WEBSOCKET + b'Sec-WebSocket-Version: 777\r\n'), AWAIT, SMUGGLED], '426 200 open',
        [message('GET /x', KEY, 'Sec-WebSocket-Version: 777', 'Connection: upgrade', 'Upgrade: websocket'),
            message('GET /smuggled')], 'RFC 9110 §15.5.22; Egorov 2019',
        Reply(b'HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n'), note='no tunnel without 101'),
    *[_loses(name, fields, source) for name, fields, source in (
        ('upgrade: h2c is never asked for',
            b'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n',
                'RFC 9113 §3.1; Miller 2020'),
        ('upgrade: h2c without HTTP2-Settings in Connection',
            b'Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n',
                'RFC 9113 §3.1; Miller 2020'),
        ('upgrade: H2C', b'Connection: Upgrade\r\nUpgrade: H2C\r\n', 'RFC 9110 §7.8; Miller 2020'),
        ('upgrade: websocket, h2c', b'Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n',
            'RFC 9110 §7.8; Miller 2020'),
        ('upgrade: two fields', b'Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n',
            'RFC 9110 §7.8; Miller 2020'),
        ('upgrade: Connection does not name it', b'Connection: keep-alive\r\nUpgrade: websocket\r\n', 'RFC 9110 §7.8'),
        ('upgrade: an empty field', b'Connection: Upgrade\r\nUpgrade:\r\n', 'RFC 9110 §7.8'),
        ('upgrade: no token', b'Connection: Upgrade\r\nUpgrade: "websocket"\r\n', 'RFC 9110 §7.8'))],
    Row('upgrade in HTTP/1.0 is not asked for', get(WEBSOCKET, b'GET /x HTTP/1.0'), '200 closed',
        [message('GET /x', KEY)], 'RFC 9110 §7.8'),
    _bad_switch('101 unasked', SWITCH, 'RFC 9110 §15.2.2, §7.8', b'', [message('GET /x')]),
    _bad_switch('101 to HTTP/1.0', SWITCH, 'RFC 9110 §7.8', WEBSOCKET, [message('GET /x', KEY)], b'GET /x HTTP/1.0',
        '502 closed'),
    _bad_switch('101 to h2c, which was not sent on', SWITCH.replace(b'websocket', b'h2c'), 'RFC 9110 §7.8; Miller 2020',
        b'Connection: Upgrade\r\nUpgrade: h2c\r\n', [message('GET /x')]),
    _bad_switch('101 to h2c, websocket asked for', SWITCH.replace(b'websocket', b'h2c'), 'RFC 9110 §7.8; Miller 2020'),
    _bad_switch('101 to a protocol that was not asked for', SWITCH.replace(b'websocket', b'irc'), 'RFC 9110 §7.8'),
    _bad_switch('101 without Upgrade', b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n',
        'RFC 9110 §7.8'),
    _bad_switch('101 without Connection', b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n',
        'RFC 9110 §7.8'),
    _bad_switch('101 with a length', SWITCH.replace(b'\r\n\r\n', b'\r\nContent-Length: 5\r\n\r\nhello'),
        'RFC 9112 §6.3'),
    _bad_switch('101 with chunks', SWITCH.replace(b'\r\n\r\n', b'\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
        'RFC 9112 §6.1'),
]

ROWS = CONNECTION + EXPECT + MAX_FORWARDS + UPGRADE
