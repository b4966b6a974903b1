#!/usr/bin/env python3
"""bench/bulk.py: what a gigabyte costs that goes through weir, HAProxy, tinyproxy and squid; and a tunnel that carries nothing.

    this program ──► GET, PUT or CONNECT ──► the proxy under test ──► an origin of this program, 64 MiB at a time

Here it is bytes that count and not requests: CPU seconds (user and system, all threads) of the proxy for each GB that it
passed on, in the same run, in turn, the median of the rounds' ratios, against the goals:

    reverse: down, up           weir / HAProxy     at most 0.75
    forward: down, up, tunnel   weir / tinyproxy   at most 0.50, weir / squid at most 0.90
    tunnels set up and closed   weir / tinyproxy   at most 0.85 of CPU for each (forward)

Each byte is counted at both ends, and one too few or too many fails the benchmark. What is in them is not looked at here:
bench/goals.py and the tests do that.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import threading

import goals
import ground
from ground import BenchError, Program

MIB = 1 << 20
BULK_BYTES = 64 * MIB
TIMES = 4          # transfers of one measurement
SETUPS = 2000
SILENCE_SECONDS = 30
GB = 1e9

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 200
LogFile "{folder}/tinyproxy.said"
LogLevel Critical
Allow 127.0.0.1
ConnectPort {origin}
"""


# ---- the origin -----------------------------------------------------------------------------------------------------

def read_head(connection):
    """The head, as bytes, and what came behind it."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = connection.recv(65536)
        if not more:
            return None, b""
        got += more
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def swallow(connection, count):
    """Reads so many bytes; MSG_TRUNC: the kernel throws them away, uncopied."""
    buffer = bytearray(MIB)
    while count > 0:
        length = connection.recv_into(buffer, min(MIB, count), socket.MSG_TRUNC)
        if length == 0:
            raise BenchError(f"a body ended {count} bytes too early")
        count -= length


def pour(connection, count):
    chunk = memoryview(bytes(MIB))
    while count > 0:
        connection.sendall(chunk[:min(count, MIB)])
        count -= min(count, MIB)


def serve(connection):
    with connection, contextlib.suppress(OSError, BenchError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            head, rest = read_head(connection)
            if head is None:
                return
            if head.startswith(b"GET"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BULK_BYTES)
                pour(connection, BULK_BYTES)
            else:
                swallow(connection, BULK_BYTES - len(rest))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def start_origin():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


# ---- what is asked of a proxy ---------------------------------------------------------------------------------------

def expect_ok(connection):
    head, rest = read_head(connection)
    if head is None or head.split(b" ")[1:2] != [b"200"]:
        raise BenchError(f"the proxy says {head!r}")
    return head, rest


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def down(connection, target, host):
    connection.sendall(b"GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, host))
    head, rest = expect_ok(connection)
    if b"content-length: %d" % BULK_BYTES not in head.lower():
        raise BenchError(f"not the origin's head: {head!r}")
    swallow(connection, BULK_BYTES - len(rest))


def up(connection, target, host):
    connection.sendall(b"PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (target, host, BULK_BYTES))
    pour(connection, BULK_BYTES)
    _, rest = expect_ok(connection)
    swallow(connection, 2 - len(rest))


def open_tunnel(port, host):
    connection = connect(port)
    connection.sendall(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (host, host))
    expect_ok(connection)
    return connection


def run_case(case, port, origin):
    """Does the work of one measurement; returns how many units (GB, tunnels) it was."""
    host = b"127.0.0.1:%d" % origin
    if case == "setup":
        for _ in range(SETUPS):
            open_tunnel(port, host).close()
        return SETUPS
    for _ in range(TIMES):
        if case == "tunnel":
            with open_tunnel(port, host) as connection:
                down(connection, b"/", host)
            continue
        with connect(port) as connection:
            target = b"http://" + host + b"/" if case.startswith("forward") else b"/"
            (down if case.endswith("down") else up)(connection, target, host)
    return TIMES * BULK_BYTES / GB


# ---- the contenders -------------------------------------------------------------------------------------------------

class Bulk(goals.Ground):
    def __init__(self, folder, options, origin):
        super().__init__(folder, options)
        self.origins = [origin, origin]

    def tinyproxy(self, _):
        port = ground.free_port()
        path = self._write("tinyproxy.conf", TINYPROXY.format(port=port, folder=self.folder, origin=self.origins[0]))
        return Program("tinyproxy", ["tinyproxy", "-d", "-c", path], port, self.folder)

    def squid(self, row):
        program = super().squid(row)
        with open(os.path.join(self.folder, "squid.conf"), "a", encoding="utf-8") as file:
            file.write("client_request_buffer_max_size 1 MB\n")
        return program


CASES = {
    "reverse down": (["weir", "haproxy"], {"haproxy": 0.75}),
    "reverse up": (["weir", "haproxy"], {"haproxy": 0.75}),
    "forward down": (["weir_forward", "tinyproxy", "squid"], {"tinyproxy": 0.5, "squid": 0.9}),
    "forward up": (["weir_forward", "tinyproxy", "squid"], {"tinyproxy": 0.5, "squid": 0.9}),
    "tunnel": (["weir_forward", "tinyproxy", "squid"], {"tinyproxy": 0.5, "squid": 0.9}),
    "setup": (["weir_forward", "tinyproxy"], {"tinyproxy": 0.85}),
}


def measure(bulk, name, case):
    row = goals.Row(case, case, [name], {})
    with getattr(bulk, name)(row) as program:
        before = goals.cpu_seconds(program)
        units = run_case(case, program.port, bulk.origins[0])
        return (goals.cpu_seconds(program) - before) / units


def print_case(case, raw, wanted):
    ours = next(iter(raw))
    scale, unit = (1e6, "us each") if case == "setup" else (1, "CPU s a GB")
    said = ", ".join(f"{name} {statistics.median(values) * scale:.3f}" for name, values in raw.items())
    print(f"\n{case}: {said} ({unit})")
    for rival, limit in wanted.items():
        found = statistics.median(one / other for one, other in zip(raw[ours], raw[rival]))
        print(f"    CPU / {rival:12} {found:6.2f}   goal at most {limit:.2f}   {'met' if found <= limit else 'NOT MET'}")
    sys.stdout.flush()


def arguments():
    parser = argparse.ArgumentParser(description="what a gigabyte costs")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "bulk.json"))
    options = parser.parse_args()
    options.cases = options.cases.split(",")
    if not set(options.cases) <= set(CASES):
        parser.error("no such case")
    return options


def main():
    options = arguments()
    ground.exit_on_signals()
    everything = {}
    try:
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            os.chmod(folder, 0o755)
            bulk = Bulk(folder, options, start_origin())
            for case in options.cases:
                names, wanted = CASES[case]
                raw = everything[case] = {name: [] for name in names}
                for round_number in range(options.rounds):
                    turn = round_number % len(names)
                    for name in names[turn:] + names[:turn]:
                        raw[name].append(measure(bulk, name, case))
                print_case(case, raw, wanted)
    except (BenchError, OSError) as error:
        print(f"bench/bulk.py: {error}", file=sys.stderr)
        return 1
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    with open(options.results, "w", encoding="utf-8") as file:
        json.dump({"rounds": options.rounds, "raw": everything}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
