"""What weir tells a service manager, read from a socket bound as systemd binds it."""
import os
import re
import signal
import socket
import threading
import time

from harness import Weir
from origin import answer


class Manager:
    """The manager's end of NOTIFY_SOCKET."""

    def __init__(self, t, abstract=False):
        self.t = t
        path = os.path.join(t.tmp, 'notify')
        self.address = '@' + path if abstract else path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind('\0' + path if abstract else path)
        t.cleanup(self.socket.close)

    def environment(self):
        return {'NOTIFY_SOCKET': self.address}

    def next(self, name=None, seconds=10):
        """The next message as a dictionary; with a name, the next that has it. STATUS alone comes at any time."""
        end = time.monotonic() + self.t.s(seconds)
        while True:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            lines = self.socket.recv(65536).decode().split('\n')
            assert lines.pop() == '', lines
            message = dict(line.split('=', 1) for line in lines)
            if name is None or name in message:
                return message

    def is_silent(self):
        """Has nothing but a status come?"""
        self.socket.settimeout(0)
        try:
            while list(self._split(self.socket.recv(65536))) == ['STATUS']:
                pass
        except BlockingIOError:
            return True
        return False

    @staticmethod
    def _split(message):
        return [line.split('=', 1)[0] for line in message.decode().splitlines()]


def _text(origin, *more):
    return '\n'.join(['[main]', 'port = 0', f'endpoint = {origin.address}', *more]) + '\n'


def a_manager_hears_of_start_reload_and_stop_in_this_order(t):
    manager, origin = Manager(t), t.origin(name='A')
    weir, path = t.weir_of_file(_text(origin), '--node', 'main', environment=manager.environment())
    ready = manager.next()
    t.equal(ready, {'READY': '1', 'STATUS': '1 service, 1 of 1 target in, 0 clients'})
    t.equal(t.get(weir).body, b'A')

    t.file('weir.ini', _text(origin, 'drain_timeout = 7'))
    before = time.monotonic_ns() // 1000
    weir.signal(signal.SIGHUP)
    reloading = manager.next('RELOADING')
    t.equal(reloading['RELOADING'], '1')
    t.check(before <= int(reloading['MONOTONIC_USEC']) <= time.monotonic_ns() // 1000, f'{before} {reloading}')
    again = manager.next('READY')
    t.check(re.fullmatch(r'1 service, 1 of 1 target in, \d+ clients?, \d+ requests/s, 0 refused/s', again['STATUS']), str(again))

    t.check(manager.is_silent(), 'something else was said')
    weir.signal(signal.SIGTERM)
    stopping = manager.next('STOPPING')
    t.equal(weir.wait_exit(), 0)
    t.equal(stopping, {'STOPPING': '1', 'EXTEND_TIMEOUT_USEC': '17000000', 'STATUS': stopping['STATUS']})
    t.check(stopping['STATUS'].startswith('draining for at most 7 s: '), stopping)
    t.check(manager.is_silent(), 'something was said after the end')
    del path


def ready_means_that_every_port_is_open(t):
    manager = Manager(t)
    ports = [t.free_port() for _ in range(3)]
    text = ''.join(f'[s{i}]\nport = {port}\nbind = 127.0.0.1\nendpoint = 127.0.0.1:1\n' for i, port in enumerate(ports))
    text = f'[globals]\nadmin = 127.0.0.1:{t.free_port()}\n' + text
    ports.append(int(re.search(r'admin = 127.0.0.1:(\d+)', text)[1]))
    path = t.file('weir.ini', text)
    opened = []

    def wait():
        manager.next('READY')
        for port in ports:
            socket.create_connection(('127.0.0.1', port), t.s(5)).close()
            opened.append(port)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    Weir(t, ['-c', path, '--node', 's0', '--node', 's1', '--node', 's2'], manager.environment(), services=3)
    thread.join(t.s(10))
    t.equal(opened, ports)


def a_start_that_fails_is_never_ready(t):
    manager = Manager(t)
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        result = t.run('reverse', '--bind', '127.0.0.1', '--port', taken.getsockname()[1], '--endpoint', '127.0.0.1:1',
                       environment=manager.environment())
    t.equal(result.code, 1, repr(result))
    t.check(manager.is_silent(), 'something was said')


def the_status_says_why_a_reload_failed_until_one_succeeds(t):
    manager, origin = Manager(t), t.origin(name='A')
    weir, _ = t.weir_of_file(_text(origin), '--node', 'main', environment=manager.environment())
    manager.next('READY')
    t.file('weir.ini', _text(origin, 'treshold = 5'))
    weir.signal(signal.SIGHUP)
    manager.next('RELOADING')
    status = manager.next('READY')['STATUS']
    t.check(re.match(r'reload failed: \S*weir\.ini:4: .*treshold.*; 1 service, ', status), status)
    # What comes now and then still says so.
    status = manager.next(seconds=20)
    t.check(set(status) == {'STATUS'} and status['STATUS'].startswith('reload failed: '), status)
    t.file('weir.ini', _text(origin))
    weir.signal(signal.SIGHUP)
    manager.next('RELOADING')
    status = manager.next('READY')['STATUS']
    t.check(status.startswith('1 service, '), status)


def a_port_that_is_taken_at_a_reload_is_a_reload_that_failed(t):
    manager, origin = Manager(t), t.origin(name='A')
    weir, _ = t.weir_of_file(_text(origin), '--node', 'main', environment=manager.environment())
    manager.next('READY')
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        t.file('weir.ini', f'[main]\nbind = 127.0.0.1\nport = {taken.getsockname()[1]}\nendpoint = {origin.address}\n')
        weir.signal(signal.SIGHUP)
        manager.next('RELOADING')
        status = manager.next('READY')['STATUS']
    t.check(status.startswith('reload failed: [main] '), status)


def stopping_is_said_before_the_drain_and_gives_it_its_time(t):
    manager, go = Manager(t), threading.Event()

    def reply(_):
        go.wait(t.s(20))
        return answer(b'slow')
    origin = t.origin(reply)
    weir = Weir(t, ['reverse', '--port', 0, '--endpoint', origin.address, '--drain-timeout', 100], manager.environment())
    manager.next('READY')
    client = t.client(weir)
    client.send(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    origin.wait_requests(1)
    weir.signal(signal.SIGTERM)
    stopping = manager.next('STOPPING')
    t.equal((stopping['EXTEND_TIMEOUT_USEC'], stopping['STATUS']),
            ('110000000', 'draining for at most 100 s: 1 connection of clients'))
    go.set()
    t.equal(client.response().body, b'slow')
    t.equal(weir.wait_exit(), 0)


def an_abstract_name_is_told_as_well(t):
    manager = Manager(t, abstract=True)
    Weir(t, ['reverse', '--port', 0, '--endpoint', t.origin().address], manager.environment())
    t.equal(manager.next()['READY'], '1')


def a_manager_that_is_not_there_changes_nothing(t):
    for address, said in ((os.path.join(t.tmp, 'nobody'), 'cannot tell the service manager: No such file'),
                          ('nonsense', 'NOTIFY_SOCKET: "nonsense" was read; allowed: ')):
        weir = Weir(t, ['reverse', '--port', 0, '--endpoint', t.origin(name='A').address], {'NOTIFY_SOCKET': address})
        weir.wait_log(re.escape(said))
        t.equal(t.get(weir).body, b'A')
        weir.stop()
