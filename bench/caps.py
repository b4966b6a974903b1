#!/usr/bin/env python3
"""bench/caps.py: the cap on connections to one host, against the most that the host ever had at once.

    200 clients at once ──► weir (one, or three that share Redis) ──► a host that counts who is connected

Each attempt is a connection to weir and one request; it goes through or is refused, and when all 200 are answered the
next 200 start, round after round. The host notes each connection from its accept() to the moment at which it reads the
end or closes; the most that were there at once is what the cap is held against. What is asked:
  tunnel   a CONNECT, kept open until all 200 of its round have their answer: exactly `cap` of them may go through
  get      a plain request, answered after 10 ms: places come and go, and weir keeps connections for reuse

  attempts      of all rounds
  let through   of them, and the fewest and most of a round. Tunnels fewer than the cap: a place was lost, and the
                benchmark fails
  most at once  seen by the host, in all rounds. More than the cap: the benchmark fails

  a round of tunnels begins when the host has nobody any more, and Redis counts nobody

Without a cap (the row "none") the host must see more than the greatest cap: else the measuring could show no breach.
A host with one thread may learn late who has left; so before a new maximum counts, all ends that have arrived are read.
"""

import argparse
import collections
import contextlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import ground
from ground import BenchError, Program

ANSWER_SECONDS = 20
HOLD_SECONDS = 0.01
REFUSED = 500


class Host:
    """The upstream: one thread, which sees every connection come and go. A request is answered with 200 after
    HOLD_SECONDS, so that places are used for a while; a tunnel is silent."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.now = self.most = self.total = 0
        self._due = collections.deque()         # (when, connection): answers, the earliest first
        self._ends = selectors.DefaultSelector()
        self._all = selectors.DefaultSelector() # the connections as well, by way of the selector's own descriptor
        self._wake, self._woken = socket.socketpair()
        for readable in (self.listener, self._woken, self._ends):
            self._all.register(readable, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._wake.close()
        self._thread.join()
        for key in list(self._ends.get_map().values()):
            key.fileobj.close()
        self.listener.close()

    def _serve(self):
        while True:
            patience = max(0, self._due[0][0] - time.monotonic()) if self._due else None
            ready = [key.fileobj for key, _ in self._all.select(patience)]
            if self._woken in ready:
                return
            self._read_all()
            if self.listener in ready:
                self._accept()
            while self._due and self._due[0][0] <= time.monotonic():
                self._answer(self._due.popleft()[1])

    def _accept(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self.listener.accept()
                connection.setblocking(False)
                self.now += 1
                self.total += 1
                if self.now > self.most:
                    # Who ended before this one came, and has not been looked at since, is not there any more.
                    self._read_all()
                    self.most = max(self.most, self.now)
                self._ends.register(connection, selectors.EVENT_READ)

    def _read_all(self):
        for key, _ in self._ends.select(0):
            self._read(key.fileobj)

    def _read(self, connection):
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if data.startswith(b"GET "):
            self._due.append((time.monotonic() + HOLD_SECONDS, connection))
        if not data:
            self._ends.unregister(connection)
            connection.close()
            self.now -= 1

    @staticmethod
    def _answer(connection):
        with contextlib.suppress(OSError):      # one that was closed meanwhile
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


class Attempt:
    def __init__(self, port, kind, host):
        self.kind, self.received, self.status = kind, b"", None
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        at = f"127.0.0.1:{host.port}"
        if kind == "tunnel":
            self.request = f"CONNECT {at} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n".encode()
        else:
            self.request = f"GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n".encode()

    def read_status(self):
        while b"\r\n" not in self.received:
            more = self.connection.recv(4096)
            if not more:
                raise BenchError(f"no answer to a {self.kind}")
            self.received += more
        self.status = int(self.received.split()[1])
        if self.status not in (200, REFUSED):
            raise BenchError(f"neither let through nor refused: {self.received!r}")


def wave(ports, kind, host, attempts):
    """So many attempts at once, in turn over the workers; returns how many were let through."""
    asked = []
    try:
        # All are connected before the first one asks.
        asked.extend(Attempt(ports[number % len(ports)], kind, host) for number in range(attempts))
        for attempt in asked:
            attempt.connection.sendall(attempt.request)
        for attempt in asked:
            attempt.read_status()
    except OSError as error:
        raise BenchError(f"an attempt got no answer: {error}") from None
    finally:
        for attempt in asked:
            attempt.connection.close()
    return sum(attempt.status == 200 for attempt in asked)


def redis_says(path, *words):
    done = subprocess.run(["redis-cli", "-s", path, *words], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.split()


def counted_in_redis(path, host):
    keys = redis_says(path, "--scan", "--pattern", f"proxy_rate_limiter:127.0.0.1:{host.port}:*")
    return sum(int(value) for key in keys for value in redis_says(path, "get", key) if value.isdigit())


@contextlib.contextmanager
def redis_server(folder):
    path = os.path.join(folder, "redis.socket")
    for name in ("redis-server", "redis-cli"):
        if shutil.which(name) is None:
            raise BenchError(f"there is no {name}; deploy/prerequisites.sh bench installs it")
    port = ground.free_port()                   # a port too, since it is by that that a program is seen to be there
    with Program("redis", ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path,
                           "--save", "", "--dir", folder], port, folder):
        yield path


def start_workers(options, stack, folder, cap, redis_path, count):
    workers = []
    for number in range(count):
        port = ground.free_port()
        command = [os.path.join(options.bin, "weir"), "forward", "--port", str(port), "--bind", "127.0.0.1",
                   "--connect-allow", "127.0.0.1:*", "--max-connections", str(cap), "--drain-timeout", "1"]
        if redis_path is not None:
            command += ["--redis-addr", f"unix:{redis_path}"]
        workers.append(stack.enter_context(Program(f"weir{number}", command, port, folder)))
    return [worker.port for worker in workers]


def measure(options, folder, where, kind, cap):
    """A row of the table."""
    row = {"where": where, "kind": kind, "cap": cap, "waves": [], "workers": 3 if where == "redis" else 1}
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(Host())
        redis_path = stack.enter_context(redis_server(folder)) if where == "redis" else None
        ports = start_workers(options, stack, folder, cap, redis_path, row["workers"])
        for _ in range(options.rounds):
            row["waves"].append(wave(ports, kind, host, options.attempts))
            if kind == "tunnel":
                wait_until(lambda: host.now == 0, ANSWER_SECONDS, "the host is left by all")
                if redis_path is not None and cap > 0:
                    wait_until(lambda: counted_in_redis(redis_path, host) == 0, ANSWER_SECONDS, "Redis counts nobody")
        row.update(most=host.most, connections=host.total)
    row["holds"] = cap == 0 or row["most"] <= cap
    row["is_used"] = kind != "tunnel" or cap == 0 or min(row["waves"]) == min(cap, options.attempts)
    row["can_show"] = cap > 0 or row["most"] > max(options.caps)
    return row


def print_row(row, options):
    notes = []
    if not row["holds"]:
        notes.append("OVER THE CAP")
    if not row["is_used"]:
        notes.append("fewer let through than the cap")
    if not row["can_show"]:
        notes.append("without a cap there were no more: this proves nothing")
    through = f"{sum(row['waves'])} ({min(row['waves'])} to {max(row['waves'])})"
    print(f"{row['where']:8}{row['workers']:>9}{row['kind']:>9}{row['cap'] or 'none':>7}"
          f"{options.attempts * options.rounds:>10}{through:>22}{row['most']:>14}  {', '.join(notes)}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="caps against the largest concurrency that the host saw")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--attempts", type=int, default=200, help="at once")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--caps", type=lambda text: [int(word) for word in text.split(",")], default=[1, 5, 25])
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "caps.json"))
    options = parser.parse_args()
    if options.rounds < 1 or min(options.caps) < 1 or options.attempts <= max(options.caps):
        parser.error("at least 1 round, caps from 1, and more attempts than the greatest cap")
    return options


def main():
    options = arguments()
    ground.exit_on_signals()
    rows = []
    print(f"{options.attempts} attempts at once, {options.rounds} times; {os.cpu_count()} processors shared by all; "
          f"load average {os.getloadavg()[0]:.2f}\n")
    print(f"{'counted':8}{'workers':>9}{'asks':>9}{'cap':>7}{'attempts':>10}{'let through (a round)':>22}"
          f"{'most at once':>14}")
    try:
        for where in ("local", "redis"):
            for kind in ("tunnel", "get"):
                for cap in [*options.caps, 0] if kind == "tunnel" else options.caps:
                    with tempfile.TemporaryDirectory(prefix="weir-caps-") as folder:
                        rows.append(measure(options, folder, where, kind, cap))
                    print_row(rows[-1], options)
    except BenchError as error:
        print(f"bench/caps.py: {error}", file=sys.stderr)
        return 1
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    with open(options.results, "w", encoding="utf-8") as file:
        json.dump({"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "processors": os.cpu_count(),
                   "attempts": options.attempts, "rounds": options.rounds, "rows": rows}, file, indent=1)
        file.write("\n")
    bad = [row for row in rows if not (row["holds"] and row["is_used"] and row["can_show"])]
    over = sum(not row["holds"] for row in rows)
    print(f"\n{len(rows)} rows: {over} over the cap, {len(bad)} in all that are not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
