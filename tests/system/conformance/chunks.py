"""Chunked bodies: sizes, extensions, line ends, trailers (RFC 9112 §7.1; SPEC: HTTP/1.1, rule 1).

Chunks are taken apart and framed anew, so that no spelling of a client's reaches the target. What is wrong ends the
request: if some of it has gone to the target already, that connection is closed, and the request never becomes whole.
"""
from .row import FINISH, NOTHING, SMUGGLED, Row, in_chunks, message, post

TE = b'Transfer-Encoding: chunked\r\n'
END = b'0\r\n\r\n'
GRAMMAR = 'RFC 9112 §7.1'


def _good(name, body, source, note='', content=b'hello', trailers=()):
    return Row(name, post(TE, body), '200 open', [in_chunks('POST /x', body=content, trailers=trailers)], source,
        note=note)


def _bad(name, body, source, note=''):
    """Behind the body stands a request that nobody may see."""
    return Row(name, post(TE, body + SMUGGLED), '400 closed', NOTHING, source, partial=True, note=note)


def _size(name, size, source=GRAMMAR):
    return _bad(f'size: {name}', size + b'\r\nhello\r\n' + END, source)


SIZES = [_size(*row) for row in (
    ('0x5', b'0x5', f'{GRAMMAR}; CVE-2023-38697'), ('+5', b'+5', f'{GRAMMAR}; CVE-2023-38697'), ('-5', b'-5'),
    ('-0', b'-0'), ('5 and a blank', b'5 ', f'{GRAMMAR}; T-Reqs 2021'),
        ('a blank and 5', b' 5', f'{GRAMMAR}; T-Reqs 2021'),
    ('5 and a tab', b'5\t'), ('5 and a vertical tab', b'5\x0b', f'{GRAMMAR}; Garden 2024'), ('5 and NUL', b'5\x00'),
    ('nothing', b''), ('only an extension', b';a=b'), ('g', b'g'), ('5h', b'5h'),
        ('5_0', b'5_0', f'{GRAMMAR}; Garden 2024'),
    ('5.0', b'5.0'), ('5,5', b'5,5'), ('"5"', b'"5"'), ('a full-width 5', b'\xef\xbc\x95'), ('0x', b'0x'),
    ('2^60', b'1000000000000000', f'{GRAMMAR}; RFC 9110 §17.5'), ('2^64 - 1', b'f' * 16, f'{GRAMMAR}; RFC 9110 §17.5'),
    ('2^64 + 5', b'10000000000000005', f'{GRAMMAR}; RFC 9110 §17.5; T-Reqs 2021'),
    ('5 behind 70,000 zeros', b'0' * 70000 + b'5'))]
SIZES += [
    _good('sizes in capitals', b'A\r\n0123456789\r\n' + END, GRAMMAR, content=b'0123456789'),
    _good('sizes in small letters', b'a\r\n0123456789\r\n' + END, GRAMMAR, content=b'0123456789'),
    _good('zeros before the size', b'0005\r\nhello\r\n' + END, GRAMMAR),
    _good('more than one zero at the end', b'5\r\nhello\r\n000\r\n\r\n', GRAMMAR),
    _good('many small chunks', b'1\r\nx\r\n' * 300 + END, GRAMMAR, content=b'x' * 300),
    _good('no chunk but the last', END, GRAMMAR, content=b''),
    _good('a chunk that looks like the end', b'5\r\n0\r\n\r\n\r\n' + END, GRAMMAR, content=b'0\r\n\r\n'),
    _good('a chunk that looks like a request', b'%x\r\n%s\r\n' % (len(SMUGGLED), SMUGGLED) + END, GRAMMAR,
        content=SMUGGLED),
]

EXTENSIONS = [
    _good('extension: a=b', b'5;a=b\r\nhello\r\n' + END, 'RFC 9112 §7.1.1', 'dropped'),
    _good('extension: a name alone', b'5;a\r\nhello\r\n' + END, 'RFC 9112 §7.1.1', 'dropped'),
    _good('extension: a quoted string', b'5;a="b;c"\r\nhello\r\n' + END, 'RFC 9112 §7.1.1', 'dropped'),
    _good('extension: several', b'5;a=b;c;d="e"\r\nhello\r\n' + END, 'RFC 9112 §7.1.1', 'dropped'),
    _good('extension: blanks around the name', b'5; a = b\r\nhello\r\n' + END, 'RFC 9112 §7.1.1', 'dropped'),
    _good('extension: of the last chunk', b'5\r\nhello\r\n0;a=b\r\n\r\n', 'RFC 9112 §7.1.1', 'dropped'),
    _good('extension: nothing behind the semicolon', b'5;\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; Weikop 2025',
          'a choice: extensions are dropped unread, and what is sent on has none'),
    _good('extension: a quote that never closes', b'5;a="b\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; Weikop 2025',
          'a choice: no quoted string can hold a line end, so the line ends here for everybody'),
    _bad('extension: a blank before the semicolon', b'5 ;a=b\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; RFC 9110 §5.6.3',
         'a choice: "bad whitespace" behind a size is refused, not removed'),
    _bad('extension: ends in a bare LF (TERM.EXT)', b'5;\nhello\r\n' + END,
        'RFC 9112 §7.1.1; Weikop 2025; CVE-2023-38697'),
    _bad('extension: holds a bare LF (EXT.TERM)', b'5;a\nb\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; Weikop 2025'),
    _bad('extension: holds a bare CR', b'5;a\rb\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; Weikop 2025'),
    _bad('extension: a bare LF in quotes', b'5;a="\n"\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; Weikop 2025'),
    _bad('extension: holds NUL', b'5;a=\0\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; CVE-2021-22960'),
    _bad('extension: holds DEL', b'5;a=\x7f\r\nhello\r\n' + END, 'RFC 9112 §7.1.1'),
    _bad('extension: 70,000 bytes', b'5;a=' + b'x' * 70000 + b'\r\nhello\r\n' + END, 'RFC 9112 §7.1.1; CVE-2023-39326',
         'the limit is 256'),
    _bad('extension: 200 bytes on each of 200 chunks', (b'1;a=' + b'x' * 200 + b'\r\nx\r\n') * 200 + END,
         'RFC 9112 §7.1.1; CVE-2023-39326', 'the limit is 16 KiB in one body'),
]

LINES = [_bad(*row) for row in (
    ('a bare LF behind the size', b'5\nhello\r\n' + END, 'RFC 9112 §7.1; CVE-2019-16785'),
    ('a bare CR behind the size', b'5\rhello\r\n' + END, 'RFC 9112 §7.1; Weikop 2025'),
    ('CR CR LF behind the size', b'5\r\r\nhello\r\n' + END, 'RFC 9112 §7.1'),
    ('a bare LF behind the data', b'5\r\nhello\n' + END, 'RFC 9112 §7.1; Weikop 2025'),
    ('a bare CR behind the data', b'5\r\nhello\r' + END, 'RFC 9112 §7.1; Weikop 2025'),
    ('LF CR behind the data', b'5\r\nhello\n\r' + END, 'RFC 9112 §7.1'),
    ('no line end behind the data', b'5\r\nhello' + END, 'RFC 9112 §7.1; Weikop 2025'),
    ('two other bytes for the line end (SPILL)', b'5\r\nhelloXX' + END, 'RFC 9112 §7.1; Weikop 2025'),
    ('more data than the size says', b'5\r\nhelloworld\r\n' + END, 'RFC 9112 §7.1'),
    ('less data than the size says', b'7\r\nhello\r\n' + END, 'RFC 9112 §7.1'),
    ('one byte less than the size says', b'6\r\nhello\r\n' + END, 'RFC 9112 §7.1; Weikop 2025'),
    ('a bare LF behind the last size', b'5\r\nhello\r\n0\n\r\n', 'RFC 9112 §7.1'),
    ('a bare LF for the last line', b'5\r\nhello\r\n0\r\n\n', 'RFC 9112 §7.1'),
    ('a bare CR for the last line', b'5\r\nhello\r\n0\r\n\rX', 'RFC 9112 §7.1'),
    ('an empty line between chunks', b'5\r\nhello\r\n\r\n5\r\nhello\r\n' + END, 'RFC 9112 §7.1'),
    ('the second size is wrong', b'5\r\nhello\r\n5x\r\nhello\r\n' + END, 'RFC 9112 §7.1'),
    ('no chunk at all', b'hello\r\n' + END, 'RFC 9112 §7.1'))]


def _trailer(name, line, source, note='', kept=False):
    return _good(f'trailer: {name}', b'5\r\nhello\r\n0\r\n' + line + b'\r\n\r\n', source, note,
                 trailers=[line.decode()] if kept else [])


def _bad_trailer(name, lines, source='RFC 9112 §7.1.2'):
    return _bad(f'trailer: {name}', b'5\r\nhello\r\n0\r\n' + lines + b'\r\n', source)


TRAILERS = [
    _trailer('X-Sum: 42', b'X-Sum: 42', 'RFC 9112 §7.1.2', kept=True),
    _good('trailer: an empty value', b'5\r\nhello\r\n0\r\nX-Sum:\r\n\r\n', 'RFC 9112 §7.1.2', trailers=['X-Sum: ']),
    *[_trailer(line.decode(), line, 'RFC 9110 §6.5.1', note='dropped') for line in (
        b'Content-Length: 7', b'Transfer-Encoding: chunked', b'Host: evil.test', b'Connection: close', b'Trailer: X',
        b'Authorization: Basic eDp5', b'Cookie: a=b', b'Content-Type: text/html', b'Content-Encoding: gzip',
            b'TE: trailers',
        b'Max-Forwards: 0', b'X-Forwarded-For: 192.0.2.1', b'Via: 1.1 x', b'Proxy-Authorization: Basic eDp5',
        b'Expect: 100-continue', b'Upgrade: h2c')],
    _bad_trailer('without a colon', b'nonsense\r\n'), _bad_trailer('a blank in the name', b'a b: c\r\n'),
    _bad_trailer('a blank before the colon', b'X : c\r\n', 'RFC 9112 §5.1'),
        _bad_trailer('folded', b'X: c\r\n d\r\n', 'RFC 9112 §5.2'),
    _bad_trailer('a leading blank', b' X: c\r\n', 'RFC 9112 §5.2'),
        _bad_trailer('NUL in the value', b'X: \0\r\n', 'RFC 9110 §5.5'),
    _bad_trailer('a bare LF', b'X: c\nY: d\r\n', 'RFC 9112 §2.2'),
        _bad_trailer('a bare CR', b'X: c\rY: d\r\n', 'RFC 9112 §2.2'),
    _bad_trailer('an empty name', b': c\r\n', 'RFC 9110 §5.1; CVE-2023-25725'),
    _bad_trailer('70,000 bytes', b'X: ' + b'x' * 70000 + b'\r\n'), _bad_trailer('2,000 of them', b'X: y\r\n' * 2000),
    Row('trailer: a request behind the body is the next one', post(TE, b'5\r\nhello\r\n0\r\nX: y\r\n\r\n' + SMUGGLED),
        '200 200 open', [in_chunks('POST /x', body=b'hello', trailers=['X: y']), message('GET /smuggled')],
        'RFC 9112 §9.3.2', note='pipelining, not smuggling: everybody sees two'),
]

CUT = [
    Row(f'the client ends {name}', [post(TE, body), FINISH], 'closed', NOTHING, 'RFC 9112 §8', partial=True,
        note='half a request is no request')
    for name, body in (('before the first size', b''), ('inside a size', b'5'), ('behind a size', b'5\r\n'),
                       ('inside a chunk', b'5\r\nhel'), ('between chunks', b'5\r\nhello\r\n'),
                       ('before the last line', b'5\r\nhello\r\n0\r\n'), ('inside the trailers', b'0\r\nX: y\r\n'),
                       ('in a chunk of 2^32 + 5 bytes', b'100000005\r\nhello\r\n' + END))]

ROWS = SIZES + EXTENSIONS + LINES + TRAILERS + CUT
