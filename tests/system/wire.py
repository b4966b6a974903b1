"""HTTP/1.1 on a raw socket, read strictly, for both the test clients and the test origins.

The programs under test sit between two Wires, so a Wire forgives nothing: a line without CRLF, a message with two
kinds of framing or a chunk size with a blank raises AssertionError, which fails the test. Every read has a deadline;
a connection that ends early raises Cut, which says whether it ended by FIN or by RST and what had arrived.
"""
import re
import select
import socket
import ssl
import struct
import time

KEEP_RECEIVED_BYTES = 4 * 1024 * 1024
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
SO_TIMESTAMPNS = 35


class Late(AssertionError):
    """Nothing came in time."""


class Cut(Exception):
    """The connection ended before the message did."""

    def __init__(self, what, reset, partial=b''):
        super().__init__(f'connection {"reset" if reset else "closed"} while reading {what}; '
                         f'last bytes {partial[-80:]!r}')
        self.reset = reset
        self.partial = bytes(partial)


class Fields:
    """Header fields in order, looked up without regard to case."""

    def __init__(self, lines=()):
        self.lines = list(lines)

    def all(self, name):
        return [value for key, value in self.lines if key.lower() == name.lower()]

    def get(self, name):
        """All values as one, or None."""
        values = self.all(name)
        return ', '.join(values) if values else None

    def has(self, name):
        return bool(self.all(name))

    def __repr__(self):
        return repr(self.lines)


def parse_fields(lines):
    fields = []
    for line in lines:
        name, colon, value = line.partition(b':')
        assert colon and TOKEN.fullmatch(name), f'malformed field line {line!r}'
        assert not re.search(rb'[\r\n\0]', value), f'control byte in field line {line!r}'
        fields.append((name.decode('ascii'), value.strip(b' \t').decode('latin-1')))
    return Fields(fields)


def framing_of(fields, version):
    """(kind, length): kind is 'chunked', 'length' or None. Two kinds at once never leave weir."""
    coding, lengths = fields.all('transfer-encoding'), fields.all('content-length')
    if coding:
        assert not lengths, f'both Transfer-Encoding and Content-Length: {fields}'
        assert [c.lower() for c in coding] == ['chunked'], f'Transfer-Encoding {coding}'
        assert version == 'HTTP/1.1', f'Transfer-Encoding in {version}'
        return 'chunked', None
    if lengths:
        assert len(lengths) == 1 and re.fullmatch(r'[0-9]+', lengths[0]), f'Content-Length {lengths}'
        return 'length', int(lengths[0])
    return None, None


class Wire:
    def __init__(self, sock, seconds, stamped=False):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.seconds = seconds          # the deadline of each call below
        self.stamped = stamped          # ask the kernel when bytes arrived
        self.arrived = 0.0              # when the newest bytes arrived
        self.buffer = bytearray()
        self.received = bytearray()     # every byte, in order, up to KEEP_RECEIVED_BYTES
        self.received_bytes = 0
        self.ended = False
        self.reset = False
        self.ragged = False             # TLS ended without close_notify
        self.local_port = sock.getsockname()[1]
        try:
            self.peer_port = sock.getpeername()[1]
        except OSError:
            self.peer_port = 0

    # Reading

    def _receive(self):
        if not self.stamped:
            data = self.sock.recv(262144)
            self.arrived = time.monotonic()
            return data
        data, ancillary, _, _ = self.sock.recvmsg(262144, 256)
        self.arrived = time.time()
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack('qq', payload[:16])
                self.arrived = seconds + nanoseconds / 1e9
        return data

    def fill(self, until, what):
        """One more piece into the buffer; False at the end of the stream."""
        if self.ended:
            return False
        left = until - time.monotonic()
        if left <= 0:
            raise Late(f'late while reading {what}; so far {bytes(self.buffer[-200:])!r}')
        self.sock.settimeout(left)
        try:
            data = self._receive()
        except socket.timeout:
            raise Late(f'late while reading {what}; so far {bytes(self.buffer[-200:])!r}') from None
        except (ConnectionResetError, BrokenPipeError):
            self.ended = self.reset = True
            return False
        except ssl.SSLError as error:   # SSLEOFError, or not, by the version of Python
            if not isinstance(error, ssl.SSLEOFError) and error.reason != 'UNEXPECTED_EOF_WHILE_READING':
                raise
            self.ended = self.ragged = True
            return False
        if not data:
            self.ended = True
            return False
        self.buffer += data
        self.received_bytes += len(data)
        if len(self.received) < KEEP_RECEIVED_BYTES:
            self.received += data
        return True

    def _until(self, seconds):
        return time.monotonic() + (self.seconds if seconds is None else seconds)

    def take(self, count):
        piece = bytes(self.buffer[:count])
        del self.buffer[:count]
        return piece

    def line(self, what='a line', seconds=None):
        until = self._until(seconds)
        start = 0
        while True:
            at = self.buffer.find(b'\n', start)
            if at >= 0:
                whole = self.take(at + 1)
                assert whole.endswith(b'\r\n'), f'bare LF in {whole!r}'
                assert b'\r' not in whole[:-2], f'bare CR in {whole!r}'
                return whole[:-2]
            start = len(self.buffer)
            if not self.fill(until, what):
                raise Cut(what, self.reset, self.buffer)

    def exactly(self, count, what='a body', sink=None, seconds=None):
        """count bytes; given to sink piece by piece when there is one."""
        until = self._until(seconds)
        pieces = []
        while count:
            if not self.buffer and not self.fill(until, what):
                raise Cut(what, self.reset, b''.join(pieces))
            piece = self.take(min(count, len(self.buffer)))
            count -= len(piece)
            (sink or pieces.append)(piece)
        return b''.join(pieces)

    def rest(self, seconds=None, sink=None):
        """Everything up to the end of the stream, whichever way it ends (see .reset)."""
        until = self._until(seconds)
        pieces = []
        while True:
            if self.buffer:
                (sink or pieces.append)(self.take(len(self.buffer)))
            if not self.fill(until, 'the end of the stream'):
                return b''.join(pieces)

    def head_lines(self, what):
        """The lines of a head, or None when the stream ends before its first byte."""
        until = self._until(None)
        while not self.buffer:
            if not self.fill(until, what):
                return None
        lines = []
        while True:
            line = self.line(what)
            if not line:
                assert lines, 'an empty line where a head should be'
                return lines
            lines.append(line)

    def chunked(self, sink=None):
        """(body, trailers). Sizes are plain hex and extensions are not expected: weir re-frames."""
        pieces = []
        sink = sink or pieces.append
        while True:
            size = self.line('a chunk size')
            assert re.fullmatch(rb'[0-9A-Fa-f]{1,16}', size), f'chunk size {size!r}'
            if int(size, 16) == 0:
                break
            self.exactly(int(size, 16), 'a chunk', sink)
            assert self.line('the end of a chunk') == b'', 'no CRLF after a chunk'
        lines = []
        while True:
            line = self.line('trailers')
            if not line:
                return b''.join(pieces), parse_fields(lines)
            lines.append(line)

    def silent(self, seconds):
        """True if neither a byte nor the end came within seconds."""
        if self.buffer or self.ended:
            return False
        waiting = select.poll()         # not select(): there may be thousands of descriptors
        waiting.register(self.sock, select.POLLIN)
        return not waiting.poll(1000 * seconds)

    def closed(self, seconds=None):
        """Waits for the end of the stream; bytes before it fail the test."""
        left = self.rest(seconds)
        assert not left, f'bytes where the connection should have been closed: {left[:200]!r}'
        return True

    # Writing

    def send(self, data, seconds=None):
        self.sock.settimeout(self.seconds if seconds is None else seconds)
        try:
            self.sock.sendall(data)
        except socket.timeout:
            raise Late(f'{len(data)} bytes could not be sent in time') from None

    def finish(self):
        """No more bytes from here; the other direction stays open."""
        self.sock.shutdown(socket.SHUT_WR)

    def say_goodbye(self):
        """TLS close_notify, without waiting for the other's."""
        if not isinstance(self.sock, ssl.SSLSocket):
            return
        self.sock.setblocking(False)
        try:
            self.sock.unwrap()
        except OSError: # SSLError is one, too: nobody waits for the answer
            pass

    def hang_up(self):
        """Ends both directions; a thread that reads here sees the end, and closes."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self):
        self.hang_up()
        self.sock.close()

    def abort(self):
        """RST: what the other side has not read yet is lost to it."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        except OSError:
            pass
        self.sock.close()


class Recorded(Wire):
    """Bytes that have all come: read as strictly as those of a connection."""

    def __init__(self, data):               # pylint: disable=super-init-not-called
        self.seconds, self.buffer, self.ended, self.reset = 0, bytearray(data), True, False


class Unread:
    """Asks the kernel (sock_diag) how many bytes the other end of a connection has received and not read yet.

    This is how a test knows that the program under test has read what was sent, so that the next piece arrives in a
    read of its own. /proc/net/tcp says the same, but is slow when other tests have left thousands of connections in
    TIME_WAIT.
    """
    _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLMSG_ERROR, _LISTEN = 20, 1, 2, 10
    _HEADER, _ID = struct.Struct('=IHHII'), struct.Struct('!HH16s16s')

    def __init__(self):
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)

    def of(self, wire):
        reader, writer = wire.sock.getpeername(), wire.sock.getsockname()
        family = wire.sock.family
        address = [socket.inet_pton(family, end[0]).ljust(16, b'\0') for end in (reader, writer)]
        asked = struct.pack('=BBBBI', family, socket.IPPROTO_TCP, 0, 0, 0xffffffff) \
            + self._ID.pack(reader[1], writer[1], *address) + struct.pack('=III', 0, 0xffffffff, 0xffffffff)
        self.netlink.send(self._HEADER.pack(16 + len(asked), self._SOCK_DIAG_BY_FAMILY, self._NLM_F_REQUEST, 1, 0)
                          + asked)
        told = self.netlink.recv(8192)
        kind = self._HEADER.unpack(told[:16])[1]
        # No such connection (it was closed), or only its listener: nothing is waiting to be read.
        if kind == self._NLMSG_ERROR or told[17] == self._LISTEN:
            return 0
        return struct.unpack('=I', told[72:76])[0]

    def close(self):
        self.netlink.close()
