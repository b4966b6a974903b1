"""The form of a row: raw bytes, what must come of them, and who says so.

    Row('CL.TE: the length first',
        post(CL_15 + TE, HELLO),            the bytes that a client sends
        '400 closed', NOTHING,              what it sees; what reaches the target
        'RFC 9112 §6.3; Kettle 2019')       why

What a client sees is written as the statuses of the answers, then how the connection stands afterwards:

    200 open        and a further request on this connection is answered, with nothing in between
    400 closed      and not one byte follows
    200 cut         the last answer ended before its end, and looks so
    closed, reset   without an answer

What reaches the target is a list of Messages, to the byte: weir runs with forwarded=off, and so adds nothing of its
own. A body is compared by its content: where one chunk ends and the next begins is nobody's business but weir's.
"""

AWAIT = object()        # in Row.send: the client reads one answer before it goes on
FINISH = object()       # in Row.send: the client will send no more, and listens on
NOTHING = ()            # in Row.reaches: not one byte

TARGET = b'%TARGET%'    # in bytes: the address of the row's target; a name for a port that is not known before


class Message:
    """One request as it must arrive: the lines of its head, its body and its trailers."""

    def __init__(self, lines, body=b'', trailers=()):
        self.lines, self.body, self.trailers = tuple(lines), body, tuple(trailers)

    def __eq__(self, other):
        return (self.lines, self.body, self.trailers) == (other.lines, other.body, other.trailers)

    def __hash__(self):
        return hash(self.lines)

    def __repr__(self):
        extra = f' + {self.body[:60]!r}' if self.body else ''
        return ' | '.join(line[:120] for line in self.lines) + extra + (f' + {self.trailers}' if self.trailers else '')

    def with_address(self, address):
        return Message([line.replace(TARGET.decode(), address) for line in self.lines], self.body, self.trailers)


def message(line, *fields, host='a.test', body=b'', trailers=()):
    """message('GET /x', 'X: y'): HTTP/1.1 and Host are understood."""
    return Message([f'{line} HTTP/1.1', f'Host: {host}', *fields], body, trailers)


def with_length(line, *fields, body, host='a.test'):
    return message(line, *fields, f'Content-Length: {len(body)}', body=body, host=host)


def in_chunks(line, *fields, body, trailers=(), host='a.test'):
    return message(line, *fields, 'Transfer-Encoding: chunked', body=body, trailers=trailers, host=host)


class Reply:
    """What the target says to one request, byte for byte, and what it does then.

    ends: 'stays' open, 'closes', 'resets', or 'tunnels': waits for the bytes up, says down, closes.
    at: 'whole', when the request has come to its end, or 'head', when only its head has.
    """

    def __init__(self, data, ends='stays', at='whole', up=b'', down=b''):
        self.data, self.ends, self.at, self.up, self.down = data, ends, at, up, down


class Row:
    """settings: the name of one of the SETTINGS in play.py.
    replies: what the target says, one for each request; after them, or without any, it answers 200 with the
        request's target as the body.
    body, lines: of the last answer; left: bytes behind it.
    partial: a request may have begun to arrive, but must never arrive whole.
    methods: of the requests, where the first word does not say (HEAD is answered without a body)."""

    def __init__(self, name, send, sees, reaches, source, replies=(), body=None, lines=None, partial=False, left=b'',
                 methods=None, settings='plain', keeps_date=False, note=''):
        self.name, self.sees, self.source, self.note = name, sees, source, note
        self.send = send if isinstance(send, list) else [send]
        self.reaches = list(reaches)
        self.replies = list(replies) if isinstance(replies, (list, tuple)) else [replies]
        self.body, self.lines, self.left, self.partial, self.settings = body, lines, left, partial, settings
        self.keeps_date = keeps_date            # lines tells of Date, too, which weir adds where there is none
        self.methods = methods or ('HEAD' if self.send[0].startswith(b'HEAD ') else 'GET',)

    def method(self, index):
        return self.methods[index] if index < len(self.methods) else 'GET'

    @property
    def count(self):
        """How many answers must come, interim ones too."""
        return len([word for word in self.sees.split() if word.isdigit()])

    @property
    def end(self):
        return self.sees.split()[-1]


# The usual bytes

HOST = b'Host: a.test\r\n'


def get(fields=b'', line=b'GET /x HTTP/1.1', host=HOST):
    return line + b'\r\n' + host + fields + b'\r\n'


def post(fields, body=b'', line=b'POST /x HTTP/1.1', host=HOST):
    return line + b'\r\n' + host + fields + b'\r\n' + body


SMUGGLED = get(line=b'GET /smuggled HTTP/1.1')
