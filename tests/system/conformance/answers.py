"""What targets answer wrongly, and what of it a client may see: never a whole answer where there was none, never two
for one (RFC 9112 §4, §6.3, §8; SPEC: HTTP/1.1, rule 4)."""
from .row import Reply, Row, get, message, post, with_length

ASKED = [message('GET /x')]
OK = b'HTTP/1.1 200 OK\r\n'
TE = b'Transfer-Encoding: chunked\r\n'
CHUNKS = b'5\r\nhello\r\n0\r\n\r\n'
EVIL = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'
TWO = b'Content-Length: 2\r\n\r\nok'


def _said(name, data, sees, source, ends='stays', send=None, reaches=None, **more):
    return Row(name, send or get(), sees, ASKED if reaches is None else reaches, source, Reply(data, ends), **more)


def _bad(name, data, source, **more):
    """Whatever is wrong with an answer, the client gets a whole 502 of weir's, and may go on."""
    return _said(name, data, '502 open', source, **more)


STATUS_LINES = [_bad(f'status line {line!r}', line + b'\r\n' + TWO, source) for line, source in (
    (b'HTTP/1.1 2000 OK', 'RFC 9112 §4'), (b'HTTP/1.1 20 OK', 'RFC 9112 §4'), (b'HTTP/1.1 abc OK', 'RFC 9112 §4'),
        (b'HTTP/1.1 -20 OK', 'RFC 9112 §4'),
    (b'HTTP/1.1 099 Low', 'RFC 9110 §15'), (b'HTTP/1.1 000 Zero', 'RFC 9110 §15'),
        (b'HTTP/1.1 600 High', 'RFC 9110 §15'), (b'HTTP/1.1 999 High', 'RFC 9110 §15'),
    (b'HTTP/1.1 2\xb20 OK', 'RFC 9112 §4'), (b'HTTP/1.1 0x200 OK', 'RFC 9112 §4'),
        (b'HTTP/1.1 +200 OK', 'RFC 9112 §4; Garden 2024'), (b'HTTP/1.1 200OK', 'RFC 9112 §4'),
    (b'HTTP/1.1  200 OK', 'RFC 9112 §4'), (b'HTTP/1.1\t200\tOK', 'RFC 9112 §4'), (b' HTTP/1.1 200 OK', 'RFC 9112 §4'),
        (b'HTTP/1.1', 'RFC 9112 §4'), (b'HTTP/1.1 ', 'RFC 9112 §4'),
    (b'HTP/1.1 200 OK', 'RFC 9112 §2.3'), (b'http/1.1 200 OK', 'RFC 9112 §2.3'), (b'HTTP/2.0 200 OK', 'RFC 9112 §2.3'),
        (b'HTTP/0.9 200 OK', 'RFC 9112 §2.3'), (b'HTTP/1 200 OK', 'RFC 9112 §2.3'),
    (b'HTTP/1.10 200 OK', 'RFC 9112 §2.3'), (b'ICY 200 OK', 'RFC 9112 §2.3'), (b'200 OK', 'RFC 9112 §4'),
        (b'nonsense', 'RFC 9112 §4'),
    (b'HTTP/1.1 200 O\rK', 'RFC 9112 §2.2; Klein 2004'), (b'HTTP/1.1 200 O\0K', 'RFC 9112 §4'),
        (b'HTTP/1.1 200 O\x07K', 'RFC 9112 §4'))]
STATUS_LINES += [
    _bad('an empty line before the status line', b'\r\n' + OK + TWO, 'RFC 9112 §2.2, §4'),
        _bad('HTTP/0.9: a body alone', b'<html>hello</html>\r\n\r\n', 'RFC 1945 §6', ends='closes'),
    _bad('an SSH greeting', b'SSH-2.0-OpenSSH_9.2\r\n', 'RFC 9112 §4'),
        _bad('a TLS alert', b'\x15\x03\x01\x00\x02\x02\x46', 'RFC 9112 §4', ends='closes'),
    _bad('HTTP/2 settings', b'\0\0\x12\4\0\0\0\0\0' + bytes(18), 'RFC 9113 §3.4', ends='closes'),
        _bad('a request', get(), 'RFC 9112 §4'), _bad('NUL', b'\0' * 20, 'RFC 9112 §4'),
    _said('no reason', b'HTTP/1.1 200\r\n' + TWO, '200 open', 'RFC 9112 §4', body=b'ok',
        note='servers forget the blank'),
    _said('an empty reason', b'HTTP/1.1 200 \r\n' + TWO, '200 open', 'RFC 9112 §4', body=b'ok'),
        _said('high bytes in the reason', b'HTTP/1.1 200 \xc3\xa9\r\n' + TWO, '200 open', 'RFC 9112 §4', body=b'ok'),
    _said('a status that nobody knows', b'HTTP/1.1 299 X\r\n' + TWO, '299 open', 'RFC 9110 §15', body=b'ok'),
        _said('599', b'HTTP/1.1 599 X\r\n' + TWO, '599 open', 'RFC 9110 §15', body=b'ok'),
    _said('HTTP/1.2', b'HTTP/1.2 200 OK\r\n' + TWO, '200 open', 'RFC 9110 §2.5', body=b'ok'),
        _said('HTTP/1.0', b'HTTP/1.0 200 OK\r\n' + TWO, '200 open', 'RFC 9112 §2.3', 'closes', body=b'ok'),
    _said('HTTP/1.0 with keep-alive', b'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n' + TWO, '200 open',
        'RFC 9112 §9.3', body=b'ok', lines=['Content-Length: 2']),
]

FRAMING = [_bad(f'an answer with {name}', OK + fields + b'\r\n' + body, source) for name, fields, body, source in (
    ('length and coding', b'Content-Length: 15\r\n' + TE, CHUNKS, 'RFC 9112 §6.3'),
        ('coding and length', TE + b'Content-Length: 15\r\n', CHUNKS, 'RFC 9112 §6.3'),
    ('two lengths', b'Content-Length: 5\r\nContent-Length: 6\r\n', b'hello!', 'RFC 9112 §6.3'),
        ('length 5, 6', b'Content-Length: 5, 6\r\n', b'hello!', 'RFC 9112 §6.3'),
    ('length +5', b'Content-Length: +5\r\n', b'hello', 'RFC 9110 §8.6'),
        ('length -1', b'Content-Length: -1\r\n', b'hello', 'RFC 9110 §8.6'),
            ('length 0x5', b'Content-Length: 0x5\r\n', b'hello', 'RFC 9110 §8.6'),
    ('length 5.0', b'Content-Length: 5.0\r\n', b'hello', 'RFC 9110 §8.6'),
        ('an empty length', b'Content-Length:\r\n', b'hello', 'RFC 9110 §8.6; CVE-2023-40225'),
            ('length 5,', b'Content-Length: 5,\r\n', b'hello', 'RFC 9110 §8.6'),
    ('a length of 2^64 + 5', b'Content-Length: 18446744073709551621\r\n', b'hello', 'RFC 9110 §8.6'),
        ('a blank before the colon of the length', b'Content-Length : 5\r\n', b'hello', 'RFC 9112 §5.1'),
    ('a folded length', b'Content-Length:\r\n 5\r\n', b'hello', 'RFC 9112 §5.2'),
        ('gzip, chunked', b'Transfer-Encoding: gzip, chunked\r\n', CHUNKS, 'RFC 9112 §6.1'),
    ('chunked, chunked', b'Transfer-Encoding: chunked, chunked\r\n', CHUNKS, 'RFC 9112 §6.1'),
        ('the coding twice', TE + TE, CHUNKS, 'RFC 9112 §6.1'),
            ('an unknown coding', b'Transfer-Encoding: cow\r\n', CHUNKS, 'RFC 9112 §6.3'),
    ('identity', b'Transfer-Encoding: identity\r\n', b'hello', 'RFC 9112 §7'),
        ('an empty coding', b'Transfer-Encoding:\r\n', b'hello', 'RFC 9112 §6.1'),
            ('a vertical tab before chunked', b'Transfer-Encoding: \x0bchunked\r\n', CHUNKS, 'CVE-2019-18277'),
    ('a blank before the colon of the coding', b'Transfer-Encoding : chunked\r\n', CHUNKS, 'RFC 9112 §5.1'))]
FRAMING += [
    _bad('chunks in HTTP/1.0', b'HTTP/1.0 200 OK\r\n' + TE + b'\r\n' + CHUNKS, 'RFC 9112 §6.1', ends='closes'),
    *[_bad(f'an answer whose first chunk is {name}', OK + TE + b'\r\n' + body, source) for name, body, source in (
        ('0x5', b'0x5\r\nhello\r\n0\r\n\r\n', 'RFC 9112 §7.1'),
            ('5 and a blank', b'5 \r\nhello\r\n0\r\n\r\n', 'RFC 9112 §7.1'),
                ('no number', b'hello\r\n0\r\n\r\n', 'RFC 9112 §7.1'),
        ('too large', b'fffffffffffffffff\r\nhello\r\n0\r\n\r\n', 'RFC 9112 §7.1; RFC 9110 §17.5'),
            ('ended by a bare LF', b'5\nhello\r\n0\r\n\r\n', 'RFC 9112 §7.1'),
                ('longer than it says', b'5\r\nhelloworld\r\n0\r\n\r\n', 'RFC 9112 §7.1'),
        ('followed by a bare LF', b'5\r\nhello\n0\r\n\r\n', 'RFC 9112 §7.1'),
            ('followed by a malformed trailer', b'5\r\nhello\r\n0\r\nX : y\r\n\r\n', 'RFC 9112 §7.1.2'))],
    _said('5, 5', OK + b'Content-Length: 5, 5\r\n\r\nhello', '200 open', 'RFC 9110 §8.6', body=b'hello',
        lines=['Content-Length: 5']),
    _said('5 twice', OK + b'Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello', '200 open', 'RFC 9110 §8.6',
        body=b'hello', lines=['Content-Length: 5']),
    _said('chunks', OK + TE + b'\r\n' + CHUNKS, '200 open', 'RFC 9112 §7.1', body=b'hello',
        lines=['Transfer-Encoding: chunked']),
    _said('chunks with extensions and a trailer', OK + TE + b'\r\n5;a=b\r\nhello\r\n0;c\r\nX: y\r\n\r\n', '200 open',
        'RFC 9112 §7.1.1', body=b'hello'),
    _said('chunks to HTTP/1.0', OK + TE + b'\r\n' + CHUNKS, '200 closed', 'RFC 9112 §6.1',
        send=get(line=b'GET /x HTTP/1.0'), body=b'hello', lines=['Connection: close']),
    _said('until the close', OK + b'\r\nhello', '200 open', 'RFC 9112 §6.3', 'closes', body=b'hello',
        lines=['Transfer-Encoding: chunked'], note='in chunks, so that its end can be seen'),
    _said('until the close, to HTTP/1.0', OK + b'\r\nhello', '200 closed', 'RFC 9112 §6.3', 'closes',
        send=get(line=b'GET /x HTTP/1.0'), body=b'hello', lines=['Connection: close']),
    _said('until the close: an answer inside is body', OK + b'\r\n' + EVIL, '200 open', 'RFC 9112 §6.3', 'closes',
        body=EVIL),
]

HEADS = [_bad(f'an answer with {name}', data, source) for name, data, source in (
    ('bare LFs', b'HTTP/1.1 200 OK\nContent-Length: 2\n\nok', 'RFC 9112 §2.2'),
        ('one bare LF', OK + b'X: y\n' + TWO, 'RFC 9112 §2.2; Klein 2004'),
            ('LF and a second answer in a value', OK + b'X: y\n\n' + EVIL, 'Klein 2004'),
    ('a bare CR in a value', OK + b'X: a\rSet-Cookie: b\r\n' + TWO, 'RFC 9112 §2.2; Klein 2004'),
        ('NUL in a value', OK + b'X: a\0b\r\n' + TWO, 'RFC 9110 §5.5'),
            ('an escape in a value', OK + b'X: \x1b[2J\r\n' + TWO, 'RFC 9110 §5.5'),
    ('no colon', OK + b'nonsense\r\n' + TWO, 'RFC 9112 §5'), ('an empty name', OK + b': x\r\n' + TWO,
        'RFC 9110 §5.1; CVE-2023-25725'), ('a blank in a name', OK + b'a b: x\r\n' + TWO, 'RFC 9110 §5.1'),
    ('a blank before a colon', OK + b'X : y\r\n' + TWO, 'RFC 9112 §5.1'),
        ('a fold', OK + b'X: a\r\n b\r\n' + TWO, 'RFC 9112 §5.2'),
            ('a blank before the first field', OK + b' X: a\r\n' + TWO, 'RFC 9112 §5.2'),
    ('a field of 60,000 bytes', OK + b'X: ' + b'x' * 60000 + b'\r\n' + TWO, 'RFC 9110 §5.4, §17.5'),
        ('5,000 fields', OK + b'X: y\r\n' * 5000 + TWO, 'RFC 9110 §17.5'),
            ('129 fields', OK + b'X: y\r\n' * 128 + TWO, 'RFC 9110 §17.5'),
    ('a malformed Connection', OK + b'Connection: a b\r\n' + TWO, 'RFC 9110 §7.6.1'))]
HEADS += [
    _said(f'fields: {name}', OK + fields + TWO, '200 open', source, body=b'ok', lines=[*kept, 'Content-Length: 2'],
        note=note) for name, fields, kept, source, note in (
        ('as they came', b'X: y\r\nSet-Cookie: a\r\nset-cookie: b\r\nX: z\r\n',
            ['X: y', 'Set-Cookie: a', 'set-cookie: b', 'X: z'], 'RFC 9110 §5.3', ''),
        ('what Connection names goes', b'Connection: X-A, close\r\nX-A: 1\r\nX-B: 2\r\n', ['X-B: 2'], 'RFC 9110 §7.6.1',
            'and its close is between it and weir'),
        ('Keep-Alive goes', b'Keep-Alive: timeout=5\r\nConnection: keep-alive\r\n', [], 'RFC 9110 §7.6.1', ''),
            ('Proxy-Connection goes', b'Proxy-Connection: close\r\n', [], 'RFC 9110 §7.6.1', ''),
        ('Upgrade: h2c goes', b'Upgrade: h2c\r\nConnection: Upgrade\r\n', [], 'RFC 9110 §7.8', ''),
            ('Connection: Content-Length takes nothing', b'Connection: Content-Length\r\n', [], 'RFC 9110 §7.6.1', ''),
        ('escaped line ends stay escaped', b'Location: /%0d%0aX:%20y\r\n', ['Location: /%0d%0aX:%20y'], 'Klein 2004',
            ''), ('high bytes', b'X: caf\xe9\r\n', ['X: caf\xe9'], 'RFC 9110 §5.5', ''))]

DATE = b'Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n'
HEADS += [
    _said('fields: Date stays as it came', OK + DATE + TWO, '200 open', 'RFC 9110 §6.6.1', body=b'ok',
        lines=['Date: Sun, 06 Nov 1994 08:49:37 GMT', 'Content-Length: 2'], keeps_date=True),
    _said('fields: an answer without Date gets one', OK + TWO, '200 open', 'RFC 9110 §6.6.1', body=b'ok',
        lines=['Content-Length: 2'], note='as every row here is checked to have one'),
    _said('fields: Connection: Date', OK + b'Connection: Date\r\n' + DATE + TWO, '200 open', 'RFC 9110 §7.6.1, §6.6.1',
        body=b'ok', lines=['Content-Length: 2'], note='that one goes, and weir adds its own'),
]

SHORT = [_said(f'{name}, then the close', data, '200 cut', 'RFC 9112 §8', 'closes') for name, data in (
    ('half of a length', OK + b'Content-Length: 100\r\n\r\n' + b'x' * 50),
        ('none of a length', OK + b'Content-Length: 100\r\n\r\n'),
            ('all but one byte', OK + b'Content-Length: 6\r\n\r\nhello'),
    ('half of a chunk', OK + TE + b'\r\n5\r\nhel'), ('a chunk and no more', OK + TE + b'\r\n5\r\nhello\r\n'),
        ('no last line', OK + TE + b'\r\n5\r\nhello\r\n0\r\n'),
            ('half of a trailer', OK + TE + b'\r\n5\r\nhello\r\n0\r\nX: y'),
    ('no chunk at all', OK + TE + b'\r\n'))]
SHORT += [
    _said('half of a length to HTTP/1.0', OK + b'Content-Length: 100\r\n\r\nhello', '200 cut', 'RFC 9112 §8', 'closes',
        send=get(line=b'GET /x HTTP/1.0')),
    _said('half of a chunk to HTTP/1.0', OK + TE + b'\r\n5\r\nhel', '200 reset', 'RFC 9112 §8', 'closes',
        send=get(line=b'GET /x HTTP/1.0'), note='only a reset says that the end is none'),
    *[_said(f'{name}, then the close: GET', data, '500 open', 'RFC 9112 §8; RFC 9110 §15.6', 'closes',
        note='no answer: the next target would be asked, and there is none') for name, data in (
        ('not one byte', b''), ('half a status line', b'HTTP/1.1 2'), ('half a head', OK + b'X: y\r\n'))],
    *[_said(f'{name}, then the {verb}: POST', data, '502 open', 'RFC 9110 §9.2.2, §15.6.3', ends,
        send=post(b'Content-Length: 5\r\n', b'hello'), reaches=[with_length('POST /x', body=b'hello')],
            note='not asked again')
      for name, data, verb, ends in (('not one byte', b'', 'close', 'closes'),
          ('half a head', OK + b'X: y\r\n', 'close', 'closes'), ('not one byte', b'', 'reset', 'resets'))],
    _said('not one byte, then the reset: GET', b'', '500 open', 'RFC 9112 §8', 'resets'),
    _said('silence: GET', b'', '500 open', 'RFC 9110 §15.6.5', 'is silent', settings='impatient'),
    _said('silence: POST', b'', '504 open', 'RFC 9110 §15.6.5', 'is silent', settings='impatient',
        send=post(b'Content-Length: 5\r\n', b'hello'), reaches=[with_length('POST /x', body=b'hello')]),
    _said('silence behind half a body', OK + b'Content-Length: 100\r\n\r\nhello', '200 cut', 'RFC 9112 §8', 'is silent',
        settings='impatient'),
]

SURPLUS = [
    _said(f'an answer behind {name}', data + EVIL, '200 open', 'RFC 9112 §6.3, §11.1; Kettle 2022', body=body,
        note='reaches nobody') for name, data, body in (
        ('a length', OK + b'Content-Length: 5\r\n\r\nhello', b'hello'),
            ('a length of 0', OK + b'Content-Length: 0\r\n\r\n', b''),
                ('chunks', OK + TE + b'\r\n' + CHUNKS, b'hello'))]
SURPLUS += [
    _said('a line end behind the answer', OK + TWO + b'\r\n', '200 open', 'RFC 9112 §6.3', body=b'ok'),
    _said('an answer behind the answer, two requests waiting', OK + b'Content-Length: 5\r\n\r\nhello' + EVIL,
        '200 200 open', 'RFC 9112 §9.3.2, §11.1; Kettle 2022', send=get() + get(line=b'GET /y HTTP/1.1'),
          reaches=[message('GET /x'), message('GET /y')], body=b'/y', note='the second answer is asked for anew'),
    _said('an answer behind a final one that closes',
        OK + b'Connection: close\r\nContent-Length: 5\r\n\r\nhello' + EVIL, '200 open', 'RFC 9112 §9.6', 'closes',
            body=b'hello'),
]

ROWS = STATUS_LINES + FRAMING + HEADS + SHORT + SURPLUS
