"""A client on a raw socket: says exactly the bytes it is told to, reads answers strictly."""
import socket

from wire import Cut, Fields, Wire, framing_of, parse_fields


class Response:
    def __init__(self, version, status, reason, fields):
        self.version, self.status, self.reason, self.fields = version, status, reason, fields
        self.framing = None         # 'chunked', 'length', 'close' or 'none'
        self.body = b''
        self.trailers = Fields()
        self.interim = []           # the 1xx answers before it

    def get(self, name):
        return self.fields.get(name)

    def __repr__(self):
        return f'<{self.version} {self.status} {self.fields} {len(self.body)} bytes {self.body[:100]!r}>'


def request(method='GET', target='/', fields=(), body=None, host='example.test', version='HTTP/1.1'):
    """The bytes of a request. fields are 'Name: value' strings; a body brings its Content-Length."""
    lines = [f'{method} {target} {version}']
    if host is not None:
        lines.append(f'Host: {host}')
    lines += fields
    if body is not None:
        lines.append(f'Content-Length: {len(body)}')
    return '\r\n'.join(lines).encode('latin-1') + b'\r\n\r\n' + (body or b'')


def chunked(pieces, trailers=()):
    """A chunked body, whole."""
    out = b''.join(b'%x\r\n%s\r\n' % (len(piece), piece) for piece in pieces)
    return out + b'0\r\n' + b''.join(line.encode('latin-1') + b'\r\n' for line in trailers) + b'\r\n'


class Client(Wire):
    def __init__(self, port, seconds, host='127.0.0.1', receive_buffer=0, tls=None, name=None):
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(seconds)
        sock.connect((host, port))
        if tls:                         # an ssl.SSLContext, and the name to ask for
            sock = tls.wrap_socket(sock, server_hostname=name or host, suppress_ragged_eofs=False)
        super().__init__(sock, seconds)

    def ask(self, method='GET', target='/', fields=(), body=None, **more):
        """Sends a request and reads its answer."""
        self.send(request(method, target, fields, body, **more))
        return self.response(method)

    def head(self):
        """A status line and fields; None when the stream ended before it."""
        lines = self.head_lines('a response head')
        if lines is None:
            return None
        version, _, rest = lines[0].decode('latin-1').partition(' ')
        status, _, reason = rest.partition(' ')
        assert version in ('HTTP/1.1', 'HTTP/1.0') and len(status) == 3 and status.isdigit(), \
            f'status line {lines[0]!r}'
        return Response(version, int(status), reason, parse_fields(lines[1:]))

    def response(self, method='GET', sink=None):
        """The next final answer, its body read by its framing. Cut when there is none."""
        interim = []
        while True:
            response = self.head()
            if response is None:
                raise Cut('a response head', self.reset)
            if response.status == 101 or response.status >= 200:
                break
            assert framing_of(response.fields, response.version)[0] is None, f'a body in an interim answer: {response}'
            interim.append(response)
        response.interim = interim
        return self.body_of(response, method, sink)

    def body_of(self, response, method='GET', sink=None):
        """Reads the body that belongs to this final head, and gives the head back."""
        kind, length = framing_of(response.fields, response.version)
        if method == 'HEAD' or response.status in (101, 204, 304):
            response.framing = 'none'
            assert response.status not in (101, 204) or kind is None, f'framing fields in {response}'
        elif kind == 'chunked':
            response.framing = kind
            response.body, response.trailers = self.chunked(sink)
        elif kind == 'length':
            response.framing = kind
            response.body = self.exactly(length, 'a body', sink)
        else:
            response.framing = 'close'
            response.body = self.rest(sink=sink)
        return response
