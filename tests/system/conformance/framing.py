"""Where does a request end? Content-Length and Transfer-Encoding, in every spelling that has fooled somebody
(RFC 9112 §6; SPEC: HTTP/1.1, rule 1).

The rule is one: digits only, all values equal; exactly "chunked", in HTTP/1.1; never both. A request that is not so is
refused before one byte of it is sent, and nothing after it is read.
"""
from .row import AWAIT, FINISH, NOTHING, SMUGGLED, Reply, Row, get, in_chunks, message, post, with_length

HELLO = b'5\r\nhello\r\n0\r\n\r\n'
TE = b'Transfer-Encoding: chunked\r\n'


def _length(value):
    return b'Content-Length: ' + value + b'\r\n'


def _refused(name, send, source, status=400):
    return Row(name, send, f'{status} closed', NOTHING, source)


def _coding(name, value, status, source):
    send = post(b'Transfer-Encoding:' + value + b'\r\n', HELLO + SMUGGLED)
    return _refused(f'Transfer-Encoding: {name}', send, source, status)


def _coding_line(name, line, source, status=400):
    """A spelling of the whole field, beside a length that a program may fall back to when it does not see it."""
    return _refused(f'Transfer-Encoding, {name}', post(_length(b'5') + line + b'\r\n', b'hello' + SMUGGLED), source,
                    status)


BOTH = [
    _refused('CL.TE: the length first', post(_length(b'6') + TE, b'0\r\n\r\nG'),
        'RFC 9112 §6.3; Watchfire 2005; Kettle 2019'),
    _refused('TE.CL: the coding first', post(TE + _length(b'4'), b'5c\r\n' + SMUGGLED + b'\r\n0\r\n\r\n'),
             'RFC 9112 §6.3; Kettle 2019'),
    _refused('CL.TE with a whole request behind the last chunk', post(_length(b'45') + TE, b'0\r\n\r\n' + SMUGGLED),
             'RFC 9112 §6.3; Kettle 2019'),
    _refused('a length of 0 beside chunks', post(_length(b'0') + TE, HELLO), 'RFC 9112 §6.3; Watchfire 2005'),
    _refused('a true length beside chunks', post(_length(b'15') + TE, HELLO), 'RFC 9112 §6.3'),
    _refused('both in small letters', post(b'content-length: 15\r\ntransfer-encoding: chunked\r\n', HELLO),
        'RFC 9112 §6.3'),
    _refused('both on a GET', get(_length(b'15') + TE) + HELLO, 'RFC 9112 §6.3'),
    _refused('both on DELETE', post(_length(b'15') + TE, HELLO, b'DELETE /x HTTP/1.1'), 'RFC 9112 §6.3'),
    _refused('both, the length twice', post(_length(b'15') + TE + _length(b'15'), HELLO), 'RFC 9112 §6.3'),
    _refused('both, far apart', post(_length(b'15') + b'X: y\r\n' * 60 + TE, HELLO), 'RFC 9112 §6.3'),
    _refused('a length beside an unknown coding', post(_length(b'5') + b'Transfer-Encoding: cow\r\n', b'hello'),
             'RFC 9112 §6.1; CVE-2019-16786'),
    _refused('a length beside identity', post(_length(b'5') + b'Transfer-Encoding: identity\r\n', b'hello'),
             'RFC 9112 §6.1; Kettle 2019'),
    _refused('a length beside an empty coding', post(_length(b'5') + b'Transfer-Encoding:\r\n', b'hello'),
             'RFC 9112 §6.1'),
    _refused('both, the coding named in Connection', post(_length(b'6') + TE + b'Connection: Transfer-Encoding\r\n',
                                                         b'0\r\n\r\nG'), 'RFC 9110 §7.6.1; Davison 2019'),
    _refused('both, the length named in Connection', post(_length(b'6') + TE + b'Connection: Content-Length\r\n',
                                                         b'0\r\n\r\nG'), 'RFC 9110 §7.6.1; Davison 2019'),
    _refused('both in HTTP/1.0', post(_length(b'6') + TE, b'0\r\n\r\nG', b'POST /x HTTP/1.0'), 'RFC 9112 §6.1'),
]

LENGTHS = [_refused(f'Content-Length: {name}', post(_length(value), b'hello' + SMUGGLED), source) for name, value,
    source in (
    ('+5', b'+5', 'RFC 9110 §8.6; CVE-2023-38697'), ('-5', b'-5', 'RFC 9110 §8.6'), ('5 5', b'5 5', 'RFC 9110 §8.6'),
    ('0x5', b'0x5', 'RFC 9110 §8.6; CVE-2023-38697'), ('05x', b'05x', 'RFC 9110 §8.6'),
        ('5,6', b'5,6', 'RFC 9110 §8.6'),
    ('5, 6', b'5, 6', 'RFC 9112 §6.3'), ('5,', b'5,', 'RFC 9110 §8.6; CVE-2023-40225'),
    (',5', b',5', 'RFC 9110 §8.6; CVE-2023-40225'), ('nothing', b'', 'RFC 9110 §8.6; CVE-2023-40225'),
    ('a blank', b' ', 'RFC 9110 §8.6; CVE-2023-40225'), ('five', b'five', 'RFC 9110 §8.6'),
        ('5;', b'5;', 'RFC 9110 §8.6'),
    ('5.0', b'5.0', 'RFC 9110 §8.6'), ('5e0', b'5e0', 'RFC 9110 §8.6'), ('"5"', b'"5"', 'RFC 9110 §8.6'),
    ('an Arabic 5', b'\xd9\xa5', 'RFC 9110 §8.6; Garden 2024'),
        ('5 and a vertical tab', b'5\x0b', 'RFC 9110 §8.6; Garden 2024'),
    ('5 and NUL', b'5\x00', 'RFC 9110 §5.5'), ('1_0', b'1_0', 'RFC 9110 §8.6; Garden 2024'),
    ('0b101', b'0b101', 'RFC 9110 §8.6'), ('2^63', b'9223372036854775808', 'RFC 9110 §8.6'),
    ('2^64 + 5', b'18446744073709551621', 'RFC 9110 §8.6, §17.5; CVE-2021-40346'),
    ('5 behind 40 zeros', b'0' * 40 + b'5', 'RFC 9110 §8.6, §17.5'),
        ('5, then a no-break space', b'5\xa0', 'RFC 9110 §8.6'))]

LENGTHS += [
    _refused('two lengths, 5 and 6', post(_length(b'5') + _length(b'6'), b'hello!'), 'RFC 9112 §6.3; Watchfire 2005'),
    _refused('two lengths, 0 and 40', post(_length(b'0') + _length(b'40'), SMUGGLED), 'RFC 9112 §6.3; Watchfire 2005'),
    _refused('two lengths on a GET', get(_length(b'40') + _length(b'0')) + SMUGGLED, 'RFC 9112 §6.3'),
    _refused('three lengths, the last one other', post(_length(b'5') * 2 + _length(b'0'), b'hello'), 'RFC 9112 §6.3'),
    _refused('two lengths, one empty', post(_length(b'5') + _length(b''), b'hello'), 'RFC 9112 §6.3; CVE-2023-40225'),
    _refused('two lengths, one signed', post(_length(b'5') + _length(b'+5'), b'hello'), 'RFC 9112 §6.3'),
    _refused('a blank before the colon', post(b'Content-Length : 5\r\n', b'hello'),
        'RFC 9112 §5.1; CVE-2019-16276; CVE-2021-22959'),
    _refused('a tab before the colon', post(b'Content-Length\t: 5\r\n', b'hello'), 'RFC 9112 §5.1; CVE-2021-22959'),
    _refused('a length on a folded line', post(b'Content-Length:\r\n 5\r\n', b'hello'), 'RFC 9112 §5.2; Kettle 2025'),
    _refused('0.CL: a length behind a field that ends in a bare LF', get(b'X: y\nContent-Length: 40\r\n') + SMUGGLED,
             'RFC 9112 §2.2; CVE-2019-16785'),
    _refused('0.CL: a length behind a line with a leading blank', get(b' Content-Length: 40\r\n') + SMUGGLED,
             'RFC 9112 §5.2; Kettle 2025'),
    Row('two lengths, both 5', post(_length(b'5') * 2, b'hello'), '200 open', [with_length('POST /x', body=b'hello')],
        'RFC 9110 §8.6', note='forwarded once'),
    Row('5, 5 in one field', post(_length(b'5, 5'), b'hello'), '200 open', [with_length('POST /x', body=b'hello')],
        'RFC 9110 §8.6', note='forwarded once'),
    Row('005', post(_length(b'005'), b'hello'), '200 open', [with_length('POST /x', body=b'hello')], 'RFC 9110 §8.6',
        note='digits all: 5'),
    Row('blanks and tabs around 5', post(b'Content-Length: \t 5 \t\r\n', b'hello'), '200 open',
        [with_length('POST /x', body=b'hello')], 'RFC 9110 §5.5'),
    Row('no blank after the colon', post(b'Content-Length:5\r\n', b'hello'), '200 open',
        [with_length('POST /x', body=b'hello')], 'RFC 9112 §5.1'),
    Row('a length of 0', post(_length(b'0')), '200 open', [with_length('POST /x', body=b'')], 'RFC 9110 §8.6'),
    Row('a POST without any length has no body', post(b'', b'hello\r\n\r\n'), '200 400 closed', [message('POST /x')],
        'RFC 9112 §6.3', note='what follows is the next request'),
    Row('CL.0: a body that looks like a request', post(_length(b'%d' % len(SMUGGLED)), SMUGGLED), '200 open',
        [with_length('POST /x', body=SMUGGLED)], 'RFC 9112 §6.3; Kettle 2022'),
    Row('CL.0 on a GET', get(_length(b'%d' % len(SMUGGLED))) + SMUGGLED, '200 open',
        [with_length('GET /x', body=SMUGGLED)], 'RFC 9110 §9.3.1; Kettle 2022', note='its body goes with it'),
    Row('CL.0 on a HEAD', post(_length(b'%d' % len(SMUGGLED)), SMUGGLED, b'HEAD /x HTTP/1.1'), '200 open',
        [with_length('HEAD /x', body=SMUGGLED)], 'RFC 9110 §9.3.2; Kettle 2022'),
    Row('CL.0 on OPTIONS *', post(_length(b'%d' % len(SMUGGLED)), SMUGGLED, b'OPTIONS * HTTP/1.1'), '200 open',
        [with_length('OPTIONS *', body=SMUGGLED)], 'RFC 9110 §9.3.7; Kettle 2022'),
    Row('a length named in Connection stays', post(_length(b'5') + b'Connection: Content-Length\r\n', b'hello'),
        '200 open',
        [with_length('POST /x', body=b'hello')], 'RFC 9110 §7.6.1; Davison 2019',
            note='framing is not the client\'s to remove'),
    Row('Content_Length is another field', get(b'Content_Length: 40\r\n') + SMUGGLED, '200 200 open',
        [message('GET /x', 'Content_Length: 40'), message('GET /smuggled')], 'RFC 9110 §5.1',
        note='a legal name without a meaning here; passes as it came'),
    Row('a body cut short by its sender', [post(_length(b'10'), b'hello'), FINISH], 'closed', NOTHING, 'RFC 9112 §8',
        partial=True, note='half a request is no request'),
    Row('a body in two pieces', [post(_length(b'10') + b'Expect: 100-continue\r\n'), AWAIT, b'hello', b'world'],
        '100 200 open', [with_length('POST /x', 'Expect: 100-continue', body=b'helloworld')], 'RFC 9110 §10.1.1',
        replies=Reply(b'HTTP/1.1 100 Continue\r\n\r\n', at='head')),
]

CODINGS = [_coding(*row) for row in (
    ('xchunked', b' xchunked', 501, 'RFC 9112 §6.1; Kettle 2019'), ('chunkedx', b' chunkedx', 501, 'RFC 9112 §6.1'),
    ('cow', b' cow', 501, 'RFC 9112 §6.1; CVE-2019-16786'), ('gzip', b' gzip', 501, 'RFC 9112 §6.1'),
    ('identity', b' identity', 501, 'RFC 9112 §7; Kettle 2019'),
    ('gzip, chunked', b' gzip, chunked', 501, 'RFC 9112 §6.1'),
    ('identity, chunked', b' identity, chunked', 501, 'RFC 9112 §7'),
    ("'chunked'", b" 'chunked'", 501, 'RFC 9112 §6.1; Kettle 2019'),
    ('chunked, gzip', b' chunked, gzip', 400, 'RFC 9112 §6.3'),
    ('chunked, identity', b' chunked, identity', 400, 'RFC 9112 §6.3; CVE-2022-1705'),
    ('chunked, chunked', b' chunked, chunked', 400, 'RFC 9112 §6.1'),
    ('"chunked"', b' "chunked"', 400, 'RFC 9110 §5.6.2; Kettle 2019'),
    ('chunked;q=1', b' chunked;q=1', 400, 'RFC 9112 §7.1'),
    ('chunked; foo', b' chunked; foo', 400, 'RFC 9112 §7.1'),
    ('chunked chunked', b' chunked chunked', 400, 'RFC 9110 §5.6.2'),
    ('a vertical tab, chunked', b' \x0bchunked', 400, 'RFC 9110 §5.5; CVE-2019-18277'),
    ('chunked, a vertical tab', b' chunked\x0b', 400, 'RFC 9110 §5.5; CVE-2019-18277'),
    ('a form feed, chunked', b' \x0cchunked', 400, 'RFC 9110 §5.5; Kettle 2019'),
    ('NUL, chunked', b' \x00chunked', 400, 'RFC 9110 §5.5; Kettle 2019'),
    ('chunked, NUL', b' chunked\x00', 400, 'RFC 9110 §5.5; Kettle 2019'),
    ('a no-break space, chunked', b' \xa0chunked', 400, 'RFC 9110 §5.6.2; Garden 2024'),
    ('chunked, a next-line byte', b' chunked\x85', 400, 'RFC 9110 §5.6.2; Garden 2024'),
    ('a Kelvin sign for the k', b' chun\xe2\x84\xaaed', 400, 'RFC 9110 §5.6.2'),
    ('a DEL, chunked', b' \x7fchunked', 400, 'RFC 9110 §5.5'),
    ('chu, CR, nked', b' chu\rnked', 400, 'RFC 9112 §2.2'),
    ('nothing', b'', 400, 'RFC 9112 §6.1'), ('a comma', b' ,', 400, 'RFC 9112 §6.1'),
    ('chunked and a comma', b' chunked,', 400, 'RFC 9112 §6.1; CVE-2022-32215'),
    ('a comma and chunked', b' , chunked', 400, 'RFC 9112 §6.1'),
    ('chunked,, chunked', b' chunked,, chunked', 400, 'RFC 9112 §6.1'),
    ('[chunked]', b' [chunked]', 400, 'RFC 9110 §5.6.2'))]

CODINGS += [
    _refused('the coding twice', post(TE + TE, HELLO + SMUGGLED), 'RFC 9112 §6.1; CVE-2020-8287'),
    _refused('identity, then chunked', post(b'Transfer-Encoding: identity\r\n' + TE, HELLO), 'RFC 9112 §7', 501),
    _refused('chunked, then identity', post(TE + b'Transfer-Encoding: identity\r\n', HELLO),
        'RFC 9112 §6.3; Kettle 2019'),
    _refused('cow, then chunked', post(b'Transfer-Encoding: cow\r\n' + TE, HELLO), 'RFC 9112 §6.1; Kettle 2019', 501),
    _refused('chunked, then cow', post(TE + b'Transfer-Encoding: cow\r\n', HELLO), 'RFC 9112 §6.3; CVE-2020-8287'),
    _refused('chunked, then nothing', post(TE + b'Transfer-Encoding:\r\n', HELLO), 'RFC 9112 §6.1'),
    _refused('chunks in HTTP/1.0', post(TE, HELLO, b'POST /x HTTP/1.0'), 'RFC 9112 §6.1'),
    _refused('chunks in HTTP/1.0 with keep-alive', post(TE + b'Connection: keep-alive\r\n', HELLO + SMUGGLED,
                                                      b'POST /x HTTP/1.0'), 'RFC 9112 §6.1; Garden 2024'),
    _coding_line('a blank before the colon', b'Transfer-Encoding : chunked',
        'RFC 9112 §5.1; Kettle 2019; CVE-2019-16869'),
    _coding_line('a tab before the colon', b'Transfer-Encoding\t: chunked', 'RFC 9112 §5.1; Kettle 2019'),
    _coding_line('a vertical tab before the colon', b'Transfer-Encoding\x0b: chunked', 'RFC 9110 §5.1; Klein 2020'),
    _coding_line('NUL before the colon', b'Transfer-Encoding\x00: chunked', 'RFC 9110 §5.1; Garden 2024'),
    _coding_line('CR before the colon', b'Transfer-Encoding\r: chunked', 'RFC 9112 §2.2; Klein 2020'),
    _coding_line('LF before the colon', b'Transfer-Encoding\n: chunked', 'RFC 9112 §2.2; Kettle 2019'),
    _coding_line('a leading blank', b' Transfer-Encoding: chunked', 'RFC 9112 §5.2; Kettle 2019'),
    _coding_line('a leading tab', b'\tTransfer-Encoding: chunked', 'RFC 9112 §5.2; Kettle 2019'),
    _coding_line('a leading colon', b':Transfer-Encoding: chunked', 'RFC 9110 §5.1'),
    _coding_line('behind a bare LF', b'X: y\nTransfer-Encoding: chunked', 'RFC 9112 §2.2; Kettle 2019; CVE-2019-16785'),
    _coding_line('behind a bare CR', b'X: y\rTransfer-Encoding: chunked', 'RFC 9112 §2.2; Kettle 2019'),
    _coding_line('behind LF CR', b'X: y\n\rTransfer-Encoding: chunked', 'RFC 9112 §2.2'),
    _coding_line('on a folded line', b'Transfer-Encoding:\r\n chunked', 'RFC 9112 §5.2; Kettle 2019'),
    _coding_line('folded with a tab', b'Transfer-Encoding:\r\n\tchunked', 'RFC 9112 §5.2; Kettle 2019'),
    _coding_line('without a colon', b'Transfer-Encoding chunked', 'RFC 9112 §5'),
    _coding_line('an equals sign for the colon', b'Transfer-Encoding= chunked', 'RFC 9112 §5'),
    _coding_line('a backslash in the name', b'Transfer\\-Encoding: chunked', 'RFC 9110 §5.1'),
    _coding_line('a dotless i in the name', b'Transfer-Encod\xc4\xb1ng: chunked', 'RFC 9110 §5.1'),
    _coding_line('a quoted name', b'"Transfer-Encoding": chunked', 'RFC 9110 §5.1'),
    Row('Transfer_Encoding is another field', post(_length(b'5') + b'Transfer_Encoding: chunked\r\n', b'hello'),
        '200 open',
        [with_length('POST /x', 'Transfer_Encoding: chunked', body=b'hello')], 'RFC 9110 §5.1',
        note='a legal name without a meaning here; passes as it came'),
    Row('X-Transfer-Encoding is another field', post(_length(b'5') + b'X-Transfer-Encoding: chunked\r\n', b'hello'),
        '200 open',
        [with_length('POST /x', 'X-Transfer-Encoding: chunked', body=b'hello')], 'RFC 9110 §5.1'),
    *[Row(f'Transfer-Encoding{line[17:]!r} is chunked', post(line.encode() + b'\r\n', HELLO), '200 open',
          [in_chunks('POST /x', body=b'hello')], 'RFC 9112 §7')
      for line in ('Transfer-Encoding: Chunked', 'Transfer-Encoding: CHUNKED', 'Transfer-Encoding:chunked',
                   'Transfer-Encoding: \t chunked \t')],
    Row('TRANSFER-ENCODING: chunked', post(b'TRANSFER-ENCODING: chunked\r\n', HELLO), '200 open',
        [in_chunks('POST /x', body=b'hello')], 'RFC 9110 §5.1'),
    Row('the coding named in Connection stays', post(TE + b'Connection: Transfer-Encoding\r\n', HELLO), '200 open',
        [in_chunks('POST /x', body=b'hello')], 'RFC 9110 §7.6.1; Davison 2019'),
    Row('a chunked GET', post(TE, HELLO, b'GET /x HTTP/1.1'), '200 open', [in_chunks('GET /x', body=b'hello')],
        'RFC 9110 §9.3.1', note='its body goes with it'),
]

ROWS = BOTH + LENGTHS + CODINGS
