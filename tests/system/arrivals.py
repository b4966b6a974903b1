"""A target that notes when requests come, by the kernel's own stamps (bench/arrivals.c), and callers that keep a service
busy: what the promise of threshold is measured with.
"""
import os
import re
import select
import socket
import threading
import time

from client import request

WINDOW_NS = 1_000_000_000


class Arrivals:
    """The target that notes when requests come."""

    def __init__(self, t, place=None):
        """place: a network namespace (network.py) on whose loopback interface it listens."""
        self.t, self.place = t, place
        self.port = t.free_port()
        self.times_path = os.path.join(t.tmp, f'times{self.port}')
        self.address = f'127.0.0.1:{self.port}'
        self.process = t.start_tool(*(place.prefix if place else ()), self._program(), self.port, self.times_path)
        t.until(self._listens, 10, 'bench/arrivals listens')

    def _program(self):
        for folder in ('bench', 'build/bench'):
            path = os.path.join(self.t.bin, folder, 'arrivals')
            if os.access(path, os.X_OK):
                return path
        raise AssertionError(f'no arrivals in {self.t.bin}/bench or build/bench: make bench_programs')

    def _listens(self):
        def connects():
            with socket.socket() as sock:
                return sock.connect_ex(('127.0.0.1', self.port)) == 0
        return self.place.inside(connects) if self.place else connects()

    def times(self):
        """Ends it; the times of all requests, in ns."""
        self.process.terminate()
        assert self.process.wait(self.t.s(10)) == 0, 'arrivals failed'
        with open(self.times_path, encoding='ascii') as file:
            return [int(line) for line in file]


class Caller:
    """One connection that asks again as soon as it is answered."""

    def __init__(self, port, host='127.0.0.1'):
        self.sock = socket.create_connection((host, port), 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.received = b''
        self.ask()

    def ask(self):
        self.sock.send(request())

    def answered(self):
        """The status of an answer that is whole, or None."""
        piece = self.sock.recv(65536)
        assert piece, 'weir closed a connection'
        self.received += piece
        head, found, body = self.received.partition(b'\r\n\r\n')
        if not found or len(body) < int(re.search(rb'(?i)content-length: (\d+)', head)[1]):
            return None
        self.received = b''
        return int(head[9:12])


def press(port, connections, seconds):
    """Loads weir from this one thread; the number of answers by status."""
    callers = {}
    poll = select.epoll()
    counts = {}
    for _ in range(connections):
        caller = Caller(port)
        callers[caller.sock.fileno()] = caller
        poll.register(caller.sock, select.EPOLLIN)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for fd, _ in poll.poll(0.1):
            status = callers[fd].answered()
            if status is not None:
                counts[status] = counts.get(status, 0) + 1
                callers[fd].ask()
    for caller in callers.values():
        caller.sock.close()
    return counts


class Load:
    """Keeps services busy, from a thread of its own, until stop(). A connection that is lost is made again; where nobody
    answers, later."""
    AGAIN_S = 0.1

    def __init__(self, t, places, connections, enter=None):
        """places: ports, or (host, port). connections: at each. enter: called first in the thread."""
        self.places = [place if isinstance(place, tuple) else ('127.0.0.1', place) for place in places]
        self.connections = connections
        self.enter = enter
        self.counts = [{} for _ in self.places]         # answers by status, of each place
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        t.cleanup(self.stop)

    def _connect(self, poll, callers, index):
        host, port = self.places[index]
        try:
            caller = Caller(port, host)
        except OSError:
            return False
        callers[caller.sock.fileno()] = (caller, index)
        poll.register(caller.sock, select.EPOLLIN)
        return True

    def _turn(self, poll, callers, fd):
        caller, index = callers[fd]
        try:
            status = caller.answered()
            if status is not None:
                self.counts[index][status] = self.counts[index].get(status, 0) + 1
                caller.ask()
        except (OSError, AssertionError):
            poll.unregister(fd)
            caller.sock.close()
            del callers[fd]

    def _run(self):
        if self.enter:
            self.enter()
        poll, callers, again = select.epoll(), {}, 0.0
        while not self.ended.is_set():
            if time.monotonic() >= again:
                again = time.monotonic() + self.AGAIN_S
                for index in range(len(self.places)):
                    have = sum(1 for _, i in callers.values() if i == index)
                    while have < self.connections and self._connect(poll, callers, index):
                        have += 1
            for fd, _ in poll.poll(0.02):
                self._turn(poll, callers, fd)
        for caller, _ in callers.values():
            caller.sock.close()

    def served(self, index=None):
        """How many were answered with 200: by one place, or all."""
        return sum(counts.get(200, 0) for i, counts in enumerate(self.counts) if index in (None, i))

    def stop(self):
        self.ended.set()
        self.thread.join(30)


def fullest(times):
    first = most = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= WINDOW_NS:
            first += 1
        most = max(most, last - first + 1)
    return most
