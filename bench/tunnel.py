#!/usr/bin/env python3
"""bench/tunnel.py: what a byte costs that goes through a tunnel, in weir, HAProxy and tinyproxy, in the same minutes.

    this program ──► CONNECT ──► the proxy under test ──► an origin of this program: sends, receives or echoes bytes

A tunnel is not looked into: whatever is spent on it is spent on moving bytes. So the first column is CPU seconds (user
and system, all threads) of the proxy for each GB that went through it; the throughput says little here, for origin,
proxy and client share the processors.

The contenders, and what is equal:
  - weir and tinyproxy are asked by CONNECT; HAProxy, which has no CONNECT, passes TCP on to the one origin there is
    (mode tcp: less work to begin with, and the same bytes). "haproxy splice" is told to splice, both ways
  - rounds are interleaved, and the order is turned round by round, so that a slow minute of the machine meets all
  - a median over the rounds; the raw numbers go to bench/results/tunnel.json

Cases: down (one tunnel, from the origin), down8 (eight tunnels share that amount), up (one tunnel, to the origin), and
talk (one tunnel, 512 bytes there and 512 back, again and again: microseconds of CPU for each exchange), because what is
good for bulk may be bad for conversation. Nobody half-closes (tinyproxy would close the rest). A byte too few or too
many makes a measurement worthless, and the benchmark fails.

--also NAME=FOLDER measures another build of weir beside the one in --bin.
"""

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time

import ground
from ground import BenchError, Program

GB = 10**9
CHUNK_BYTES = 1 << 20
MESSAGE_BYTES = 512
SILENCE_SECONDS = 20
ORDER = struct.Struct("!cQ")            # what the client asks of the origin: d(own), u(p) or t(alk), and how many bytes
CASES = {"down": (b"d", 1), "down8": (b"d", 8), "up": (b"u", 1), "talk": (b"t", 1)}

HAPROXY = """
global
    nbthread 2
    maxconn 4096
defaults
    mode tcp
    {splice}
    timeout connect 3s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:{port}
    default_backend origin
backend origin
    server a 127.0.0.1:{origin}
"""

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 100
LogFile "{folder}/tinyproxy.said"
LogLevel Critical
Allow 127.0.0.1
ConnectPort {origin}
"""


# ---- the two ends ---------------------------------------------------------------------------------------------------

def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=SILENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive_exactly(connection, count):
    got = bytearray()
    while len(got) < count:
        more = connection.recv(count - len(got))
        if not more:
            raise BenchError(f"the connection ended {count - len(got)} bytes too early")
        got += more
    return bytes(got)


def swallow(connection, wanted):
    """Reads so many bytes or to the end, and returns how much came. MSG_TRUNC: the kernel throws it away, uncopied."""
    buffer, count = bytearray(CHUNK_BYTES), 0
    while count < wanted:
        length = connection.recv_into(buffer, CHUNK_BYTES, socket.MSG_TRUNC)
        if length == 0:
            break
        count += length
    return count


def pour(connection, count):
    chunk = memoryview(bytes(range(256)) * (CHUNK_BYTES // 256))
    while count > 0:
        part = min(count, CHUNK_BYTES)
        connection.sendall(chunk[:part])
        count -= part


def serve_one(connection):
    """The origin's side. A client that leaves early is the client's to complain about."""
    with connection, contextlib.suppress(OSError, BenchError):
        connection.settimeout(SILENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind, count = ORDER.unpack(receive_exactly(connection, ORDER.size))
        if kind == b"d":
            pour(connection, count)
        elif kind == b"u":
            connection.sendall(struct.pack("!Q", swallow(connection, count)))
        else:
            for _ in range(count // (2 * MESSAGE_BYTES)):
                connection.sendall(receive_exactly(connection, MESSAGE_BYTES))


def serve(port):
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


def open_tunnel(contender, origin):
    connection = connect(contender.port)
    if contender.asks_by_connect:
        connection.sendall(f"CONNECT 127.0.0.1:{origin} HTTP/1.1\r\nHost: 127.0.0.1:{origin}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):           # a byte at a time: what follows is not the head's
            head += receive_exactly(connection, 1)
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise BenchError(f"{contender.name} answers {head!r}")
    return connection


def use_tunnel(contender, origin, kind, count):
    """One tunnel, from its opening to its end: count bytes went through it, or there is an error."""
    with open_tunnel(contender, origin) as connection:
        connection.sendall(ORDER.pack(kind, count))
        if kind == b"d":
            moved = swallow(connection, count + 1)
        elif kind == b"u":
            pour(connection, count)
            moved, = struct.unpack("!Q", receive_exactly(connection, 8))
        else:
            message, moved = bytes(MESSAGE_BYTES), 0
            for _ in range(count // (2 * MESSAGE_BYTES)):
                connection.sendall(message)
                moved += MESSAGE_BYTES + len(receive_exactly(connection, MESSAGE_BYTES))
    if moved != count:
        raise BenchError(f"{contender.name}: {moved} bytes came through, not {count}")


# ---- the contenders -------------------------------------------------------------------------------------------------

class Ground:
    """The folder, the origin's port, and how each contender is started."""

    def __init__(self, folder, builds):
        self.folder = folder
        self.builds = builds                # name -> folder, of the builds of weir
        self.origin_port = ground.free_port()

    def origin(self):
        command = [sys.executable, os.path.abspath(__file__), "--origin", str(self.origin_port)]
        return Program("origin", command, self.origin_port, self.folder)

    def _program(self, name, command, port, asks_by_connect):
        program = Program(name, command, port, self.folder)
        program.asks_by_connect = asks_by_connect
        return program

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def contender(self, name):
        port = ground.free_port()
        if name in self.builds:
            command = [os.path.join(self.builds[name], "weir"), "forward", "--port", str(port), "--bind", "127.0.0.1",
                       "--connect-allow", f"127.0.0.1:{self.origin_port}"]
            return self._program(name, command, port, True)
        if name == "tinyproxy":
            path = self._write("tinyproxy.conf", TINYPROXY.format(port=port, folder=self.folder,
                                                                  origin=self.origin_port))
            return self._program(name, ["tinyproxy", "-d", "-c", path], port, True)
        splice = "option splice-request\n    option splice-response" if name == "haproxy splice" else ""
        path = self._write("haproxy.cfg", HAPROXY.format(port=port, origin=self.origin_port, splice=splice))
        return self._program(name, ["haproxy", "-db", "-q", "-f", path], port, False)


# ---- measuring ------------------------------------------------------------------------------------------------------

def measure(contender, origin, case, count):
    """Opens the case's tunnels at once and waits for the last: CPU and time for what went through them."""
    kind, tunnels = CASES[case]
    problems = []

    def run():
        try:
            use_tunnel(contender, origin, kind, count // tunnels)
        except (OSError, BenchError) as error:
            problems.append(f"{contender.name}, {case}: {error}")

    cpu, begun = contender.cpu_seconds(), time.monotonic()
    threads = [threading.Thread(target=run) for _ in range(tunnels)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    if problems:
        raise BenchError(problems[0])
    moved = count // tunnels * tunnels
    result = {"cpu_seconds": contender.cpu_seconds() - cpu, "seconds": seconds, "bytes": moved,
              "peak_memory_kib": contender.peak_memory_kib(), "bytes_per_s": moved / seconds}
    if kind == b"t":
        result["cost"] = result["cpu_seconds"] * 1e6 / (moved / (2 * MESSAGE_BYTES))
    else:
        result["cost"] = result["cpu_seconds"] * GB / moved
    return result


def amount(case, options):
    return options.messages * 2 * MESSAGE_BYTES if case == "talk" else int(options.gigabytes * GB)


def run_rounds(grounds, names, options):
    """Each contender runs alone: started, measured in each case, ended. The order turns with the rounds."""
    raw = {case: {name: [] for name in names} for case in options.cases}
    for round_number in range(options.rounds):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            with grounds.contender(name) as contender:
                for case in options.cases:
                    measure(contender, grounds.origin_port, case, amount(case, options) // 20) # warms up
                    raw[case][name].append(measure(contender, grounds.origin_port, case, amount(case, options)))
            costs = "  ".join(f"{case} {raw[case][name][-1]['cost']:.3f}" for case in options.cases)
            print(f"  round {round_number + 1}/{options.rounds}  {name:15} {costs}", flush=True)
    return raw


def medians(results):
    keys = ("cost", "bytes_per_s", "peak_memory_kib", "seconds")
    return {key: statistics.median(result[key] for result in results) for key in keys}


def print_table(case, middle, names, options):
    unit = "CPU us/exchange" if case == "talk" else "CPU s/GB"
    what = f"{options.messages} exchanges" if case == "talk" else f"{options.gigabytes:g} GB"
    print(f"\n{case}: {what} over {CASES[case][1]} tunnel(s), median of {options.rounds} rounds")
    rivals = [name for name in ("haproxy", "haproxy splice", "tinyproxy") if name in names]
    speed = "exchanges/s" if case == "talk" else "GB/s"
    print(f"{'':16}{unit:>16}{speed:>13}{'peak MiB':>10}" + "".join(f"{'CPU / ' + rival:>22}" for rival in rivals))
    for name in names:
        row = middle[name]
        rate = row["bytes_per_s"] / (2 * MESSAGE_BYTES) if case == "talk" else row["bytes_per_s"] / GB
        line = f"{name:16}{row['cost']:>16.3f}{rate:>13.{0 if case == 'talk' else 2}f}"
        line += f"{row['peak_memory_kib'] / 1024:>10.1f}"
        print(line + "".join(f"{row['cost'] / middle[rival]['cost']:>22.2f}" for rival in rivals))


def write_results(raw, middle, names, options, builds):
    versions = {"tinyproxy": ground.version("tinyproxy", "-v"), "haproxy": ground.version("haproxy", "-v")}
    versions.update({name: ground.version(os.path.join(folder, "weir"), "--version")
                     for name, folder in builds.items()})
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    with open(options.results, "w", encoding="utf-8") as file:
        json.dump({"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                   "machine": {"kernel": platform.release(), "processors": os.cpu_count(),
                               "load_average": os.getloadavg()},
                   "versions": versions, "contenders": names, "gigabytes": options.gigabytes,
                   "messages": options.messages, "rounds": options.rounds, "medians": middle, "rounds_raw": raw},
                  file, indent=1)
        file.write("\n")


def arguments():
    parser = argparse.ArgumentParser(description="CPU for each GB through a tunnel: weir, HAProxy, tinyproxy")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=FOLDER", help="another build of weir")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=2, help="for each measurement")
    parser.add_argument("--messages", type=int, default=20000, help="exchanges of the case talk")
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--proxies", default="weir,haproxy,haproxy splice,tinyproxy", help="which to measure")
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "tunnel.json"))
    parser.add_argument("--origin", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.cases, options.proxies = options.cases.split(","), options.proxies.split(",")
    for case in options.cases:
        if case not in CASES:
            parser.error(f"no case {case}")
    for name in options.proxies:
        if name not in ("weir", "haproxy", "haproxy splice", "tinyproxy"):
            parser.error(f"no proxy {name}")
    for one in options.also:
        if not all(one.partition("=")):
            parser.error(f"--also {one}: allowed is NAME=FOLDER")
    if options.rounds < 1 or not 0.1 <= options.gigabytes <= 100 or options.messages < 100:
        parser.error("at least 1 round, 0.1 to 100 gigabytes, 100 messages")
    return options


def main():
    options = arguments()
    ground.exit_on_signals()
    if options.origin:
        serve(options.origin)
    also = dict(one.split("=", 1) for one in options.also)
    builds = {"weir": options.bin, **also}
    names = options.proxies[:1] + list(also) + options.proxies[1:]
    print(f"{', '.join(names)}; {os.cpu_count()} processors shared with client and origin; "
          f"load average {os.getloadavg()[0]:.2f}")
    try:
        with tempfile.TemporaryDirectory(prefix="weir-tunnel-") as folder:
            grounds = Ground(folder, builds)
            with grounds.origin():
                raw = run_rounds(grounds, names, options)
    except BenchError as error:
        print(f"bench/tunnel.py: {error}", file=sys.stderr)
        return 1
    middle = {case: {name: medians(raw[case][name]) for name in names} for case in options.cases}
    for case in options.cases:
        print_table(case, middle[case], names, options)
    write_results(raw, middle, names, options, builds)
    print(f"\nraw numbers: {os.path.relpath(options.results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
