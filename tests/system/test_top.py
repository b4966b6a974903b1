"""weir top: the status in a terminal."""
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import threading

from admin import Admin
from client import request
from harness import until


def one_look_says_what_the_status_says(t):
    origin, dead = t.origin(), t.refused()
    weir = t.weir(origin, dead, admin=0, threshold='5/m', backlog=12, drain_timeout=1)
    admin = Admin(t, weir)
    for _ in range(4):
        t.get(weir)
    waiting = t.client(weir)
    for _ in range(2):
        t.client(weir).send(request())
    t.until(lambda: admin.service()['waiting'] == 1, what='one waits')
    result = t.run('top', '--admin', f'127.0.0.1:{admin.port}', '--once')
    text = result.out.decode()
    t.check(result.code == 0 and not result.err and '\033' not in text, f'{result}')
    for pattern in (r'^reverse  reverse, port %d, \d+ connections$' % weir.port, r'started 5\b', r'window \[#+\] 5 of 5 in 60 s', r'1 of 1 wait',
                    re.escape(origin.address) + r' +in +active ', re.escape(dead.address) + r' +out .*failures 1'):
        t.check(re.search(pattern, text, re.M), f'no {pattern!r} in\n{text}')
    del waiting


class _Terminal:
    """weir top in a terminal of its own."""

    def __init__(self, t, *arguments, rows=24, columns=80, term='xterm'):
        self.t, self.seen, self.lock = t, [], threading.Lock()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
            os.environ['TERM'] = term
            os.execv(os.path.join(t.bin, 'weir'), ['weir', 'top', *map(str, arguments)])
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return
            with self.lock:
                self.seen.append(data)

    def shown(self):
        with self.lock:
            return b''.join(self.seen).decode()

    def wait(self, predicate, what):
        return until(lambda: predicate(self.shown()), self.t.s(20), what)

    def end(self):
        os.kill(self.pid, signal.SIGINT)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def it_paints_over_the_last_screen_of_a_terminal(t):
    weir = t.weir(t.origin(), admin=0)
    admin = Admin(t, weir)
    terminal = _Terminal(t, '--admin', f'127.0.0.1:{admin.port}', '--interval', '0.1')
    terminal.wait(lambda text: text.count('\033[H') >= 2, 'a second screen')
    t.get(weir)
    terminal.wait(lambda text: re.search(r'requests 1 \(', text), 'the request')
    terminal.end()


def a_small_terminal_is_filled_and_no_more(t):
    weir = t.weir(*t.origins(12), admin=0)
    address = f'http://127.0.0.1:{Admin(t, weir).port}/'      # as the log has it
    terminal = _Terminal(t, '--admin', address, '--interval', '0.1', rows=9)
    text = terminal.wait(lambda text: text.count('\033[J') >= 2 and text, 'two screens')
    terminal.end()
    screen = text.split('\033[J')[1].split('\033[H')[1].split('\n')
    t.check(len(screen) == 8 and re.match(r'\.\.\. and \d+ more lines', screen[-1]), f'{screen}')
    for line in screen:
        line = re.sub(r'\033\[[0-9;?]*[a-zA-Z]', '', line).rstrip()
        t.check(len(line) <= 80, f'{len(line)}: {line}')
    terminal = _Terminal(t, '--admin', address, '--interval', '0.1', term='dumb')
    text = terminal.wait(lambda text: text.count('requests') >= 15 and text, 'what a dumb one can show')
    terminal.end()
    t.check('\033' not in text, f'{text!r}')


def a_weir_that_goes_away_is_asked_for_until_it_is_back(t):
    port, origin = t.free_port(), t.origin()
    weir = t.weir(origin, admin=port)
    terminal = _Terminal(t, '--admin', f'localhost:{port}', '--interval', '0.1')
    terminal.wait(lambda text: 'reverse, port' in text, 'a screen')
    weir.stop()
    terminal.wait(lambda text: re.search(r'no answer since .*trying again', text), 'that it is gone')
    weir = t.weir(origin, admin=port)
    terminal.wait(lambda text: f'reverse, port {weir.port}' in text, 'the new one')
    terminal.end()


def who_can_not_be_asked_is_named(t):
    port = t.free_port()
    result = t.run('top', '--admin', f'127.0.0.1:{port}', '--once')
    t.check(result.code == 1 and f'127.0.0.1:{port}' in result.err and result.err.count('\n') == 1, f'{result}')
    weir = t.weir(t.origin(reply=lambda request: b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello'))
    result = t.run('top', '--admin', f'127.0.0.1:{weir.port}', '--once')
    t.check(result.code == 1 and result.err.count('\n') == 1, f'{result}')
    result = t.run('top', '--interval', '0')
    t.check(result.code == 2 and 'interval' in result.err, f'{result}')
    result = t.run('top', '--help')
    t.check(result.code == 0 and b'--admin' in result.out and not result.err, f'{result}')


def the_other_sides_numbers_may_be_any(t):
    body = json.dumps({'version': 5, 'uptime_s': -1e308, 'services': [
        {'name': 'x', 'threshold': 1e-300, 'in_window': 1e308, 'waiting': -1e308, 'backlog_requests': 1e-300, 'window_s': 1e308,
         'hosts': [{'host': 'h' * 500, 'active': 1e308, 'limit': 1e-300}, 7], 'targets': [{'address': '\u00e9' * 400, 'state': None}]},
        None]}).encode()
    origin = t.origin(reply=lambda request: b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body))
    result = t.run('top', '--admin', f'127.0.0.1:{t.weir(origin).port}', '--once')
    t.check(result.code == 0 and not result.err and '#' * 40 in result.out.decode(), f'{result}')


def the_other_sides_bytes_do_not_reach_the_terminal_raw(t):
    body = b'{"version": "1\\u001b[2J", "uptime_s": 1, "services": [{"name": "a\\u001b]0;x\\u0007b", "mode": "reverse", "targets": 5}]}'
    origin = t.origin(reply=lambda request: b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body))
    weir = t.weir(origin)
    result = t.run('top', '--admin', f'127.0.0.1:{weir.port}', '--once')
    t.check(result.code == 0 and b'\033' not in result.out and b'\a' not in result.out and b'a?]0;x?b' in result.out, f'{result}')
