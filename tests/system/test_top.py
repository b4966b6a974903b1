"""weir top: the status in a terminal."""
import os
import pty
import re
import signal
import threading

from admin import Admin
from client import request
from harness import until


def one_look_says_what_the_status_says(t):
    origin, dead = t.origin(), t.refused()
    weir = t.weir(origin, dead, admin=0, threshold='5/m', backlog=12)
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
    for pattern in (r'^reverse  reverse, port %d$' % weir.port, r'started 5\b', r'window \[#+\] 5 of 5 in 60 s', r'1 of 1 wait',
                    re.escape(origin.address) + r' +in +weight 1 ', re.escape(dead.address) + r' +out .*failures 1'):
        t.check(re.search(pattern, text, re.M), f'no {pattern!r} in\n{text}')
    del waiting


def it_paints_over_the_last_screen_of_a_terminal(t):
    weir = t.weir(t.origin(), admin=0)
    admin = Admin(t, weir)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(os.path.join(t.bin, 'weir'), ['weir', 'top', '--admin', f'127.0.0.1:{admin.port}', '--interval', '0.1'])
    seen, lock = [], threading.Lock()
    def read():
        while True:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                return
            with lock:
                seen.append(data)
    threading.Thread(target=read, daemon=True).start()
    def shown():
        with lock:
            return b''.join(seen).decode()
    until(lambda: shown().count('\033[H') >= 2, t.s(20), 'a second screen')
    t.get(weir)
    until(lambda: re.search(r'requests 1 \(', shown()), t.s(20), 'the request')
    os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    os.close(terminal)


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


def the_other_sides_bytes_do_not_reach_the_terminal_raw(t):
    body = b'{"version": "1\\u001b[2J", "uptime_s": 1, "services": [{"name": "a\\u001b]0;x\\u0007b", "mode": "reverse", "targets": 5}]}'
    origin = t.origin(reply=lambda request: b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body))
    weir = t.weir(origin)
    result = t.run('top', '--admin', f'127.0.0.1:{weir.port}', '--once')
    t.check(result.code == 0 and b'\033' not in result.out and b'\a' not in result.out and b'a?]0;x?b' in result.out, f'{result}')
