"""Origin servers that do as they are told: one function, the handler, plays one connection from its first byte to its
end.

    def handler(conn):
        request = conn.request()                # None when weir closed instead
        conn.send(answer(b'hello'))             # any bytes
        conn.abort()                            # RST

Every byte received is kept, every request is counted, and a request that is not well-formed fails the test: what weir
sends upstream must be beyond doubt.
"""
import re
import socket
import threading

from wire import SO_TIMESTAMPNS, Cut, Fields, Late, Wire, framing_of, parse_fields


def answer(body=b'', status=200, reason='OK', fields=(), version='HTTP/1.1', length=True):
    """The bytes of an answer; with its Content-Length unless told otherwise."""
    lines = [f'{version} {status} {reason}', *fields]
    if length:
        lines.append(f'Content-Length: {len(body)}')
    return '\r\n'.join(lines).encode('latin-1') + b'\r\n\r\n' + body


class Request:
    def __init__(self, method, target, version, fields):
        self.method, self.target, self.version, self.fields = method, target, version, fields
        self.body = b''
        self.trailers = Fields()
        self.framing = None
        self.whole = False              # its last byte has come
        self.arrived = 0.0              # when the head came
        self.connection = -1            # which connection of the origin, from 0

    def get(self, name):
        return self.fields.get(name)

    def __repr__(self):
        return f'<{self.method} {self.target} {self.fields}>'


def request_of(lines):
    """The request whose head these lines are; what weir sends upstream must be beyond doubt."""
    match = re.fullmatch(rb'([!#$%&\'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) (HTTP/1\.[01])', lines[0])
    assert match, f'malformed request line {lines[0]!r}'
    method, target, version = (part.decode('latin-1') for part in match.groups())
    request = Request(method, target, version, parse_fields(lines[1:]))
    assert len(request.fields.all('host')) == 1 or version == 'HTTP/1.0', f'not exactly one Host: {request.fields}'
    request.framing = framing_of(request.fields, version)
    return request


class Connection(Wire):
    def __init__(self, origin, sock, index):
        super().__init__(sock, origin.seconds, origin.stamped)
        self.origin = origin
        self.index = index
        self.closing = threading.Event()        # the test is over, or the origin was killed

    def head(self):
        """The next request without its body, or None when the other side closed between requests."""
        lines = self.head_lines('a request head')
        if lines is None:
            return None
        arrived = self.arrived
        request = request_of(lines)
        request.arrived, request.connection = arrived, self.index
        self.origin.note(request)
        return request

    def body(self, request, sink=None):
        kind, length = request.framing
        if kind == 'chunked':
            request.body, request.trailers = self.chunked(sink)
        elif kind == 'length':
            request.body = self.exactly(length, 'a request body', sink)
        self.origin.finished(request)
        return request.body

    def request(self):
        """The next request with its body."""
        request = self.head()
        if request is not None:
            self.body(request)
        return request

    def hold(self):
        """Says nothing until weir closes or the test is over; what comes is received."""
        try:
            self.rest(3600)
        except (Cut, OSError):
            pass


class Origin:
    """reply(request) gives the bytes of each answer on keep-alive connections; handler(conn) replaces that loop."""

    def __init__(self, case, reply=None, handler=None, name='origin', stamped=False, backlog=4096, tls=None):
        self.case, self.name, self.stamped, self.backlog = case, name, stamped, backlog
        self.tls = tls                  # an ssl.SSLContext
        self.handshake_errors = []
        self.seconds = case.s(60)
        self.reply = reply or (lambda request: answer(name.encode()))
        self.handler = handler or self._keep_alive
        self.changed = threading.Condition()
        self.requests = []
        self.whole_requests = 0
        self.connections = []
        self.live = set()
        self._listener = self._bind(0)
        self.port = self._listener.getsockname()[1]
        self.address = f'127.0.0.1:{self.port}'
        self.revive()
        case.cleanup(self.kill)

    def _bind(self, port):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.stamped:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind(('127.0.0.1', port))
        return sock

    # Life and death

    def revive(self):
        """Listens (again) on its port."""
        self._listener.listen(self.backlog)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def kill(self):
        """As if the process died: connections are reset, new ones are refused. The port stays reserved."""
        listener = self._listener
        try:
            listener.shutdown(socket.SHUT_RDWR)     # wakes the thread in accept; closing alone would not
        except OSError:
            pass
        listener.close()
        self._listener = self._bind(self.port)
        with self.changed:
            live = list(self.live)
        for conn in live:
            conn.closing.set()
            try:
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
                conn.sock.shutdown(socket.SHUT_RD)  # wakes its thread, which then closes
            except OSError:
                pass

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self.changed:
                conn = Connection(self, sock, len(self.connections))
                self.connections.append(conn)
                self.live.add(conn)
                self.changed.notify_all()
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            if self.tls:
                self._shake_hands(conn)
            self.handler(conn)
        except (Cut, OSError, Late):
            pass                                    # weir went away, which is its right
        except BaseException as error:              # pylint: disable=broad-except
            self.case.complain(error)
        finally:
            with self.changed:
                self.live.discard(conn)
                self.changed.notify_all()
            conn.abort() if conn.closing.is_set() else conn.close()

    def _shake_hands(self, conn):
        try:
            conn.sock.settimeout(self.seconds)
            conn.sock = self.tls.wrap_socket(conn.sock, server_side=True, suppress_ragged_eofs=False)
            conn.is_resumed = conn.sock.session_reused
        except OSError as error:
            with self.changed:
                self.handshake_errors.append(str(error))
                self.changed.notify_all()
            raise

    def _keep_alive(self, conn):
        while True:
            request = conn.request()
            if request is None or conn.closing.is_set():
                return
            conn.send(self.reply(request))
            if (request.get('connection') or '').lower() == 'close':
                return

    # What happened

    def note(self, request):
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def finished(self, request):
        with self.changed:
            request.whole = True
            self.whole_requests += 1
            self.changed.notify_all()

    def wait(self, predicate, seconds=10, what='an event at the origin'):
        """Sleeps until predicate() holds; it is asked again whenever something happens here."""
        with self.changed:
            if not self.changed.wait_for(predicate, self.case.s(seconds)):
                raise Late(f'{self.name}: no {what} within {self.case.s(seconds):g} s')

    def wait_requests(self, count, seconds=10):
        self.wait(lambda: len(self.requests) >= count, seconds, f'{count} requests')

    def wait_connections(self, count, seconds=10):
        self.wait(lambda: len(self.connections) >= count, seconds, f'{count} connections')

    @property
    def received_bytes(self):
        return sum(conn.received_bytes for conn in list(self.connections))

    def targets(self):
        return [request.target for request in list(self.requests)]


class FullBacklog:
    """A listener whose queue is full: a connect to it gets no answer at all, neither accepted nor refused."""

    def __init__(self, case):
        self._listener = socket.socket()
        self._listener.bind(('127.0.0.1', 0))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        self.address = f'127.0.0.1:{self.port}'
        self._fillers = []
        case.cleanup(self.close)
        while True:
            filler = socket.socket()
            filler.settimeout(0.3)
            self._fillers.append(filler)
            try:
                filler.connect(('127.0.0.1', self.port))
            except socket.timeout:
                return

    def close(self):
        for sock in [self._listener, *self._fillers]:
            sock.close()


class Refused:
    """A port on which nothing listens, reserved so that nothing will."""

    def __init__(self, case):
        self._sock = socket.socket()
        self._sock.bind(('127.0.0.1', 0))
        self.port = self._sock.getsockname()[1]
        self.address = f'127.0.0.1:{self.port}'
        case.cleanup(self._sock.close)
