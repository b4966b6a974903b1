#!/usr/bin/env python3
"""bench/admin.py: what it costs to be looked at.

    wrk, 64 connections ──► weir ──► two origins (one nginx, two ports)
                             ▲
                             ├── the page's stream of frames, read as fast as it comes (ten a second)
                             └── /metrics, once a second

Three ways to run the same load:
  off        no admin address at all
  unwatched  an admin address, and nobody who asks it anything
  watched    one page open, and metrics asked for once a second

They are run one after the other, round after round, in an order that turns, so that a slow minute of the machine meets all three; each
watched or unwatched measurement is compared with the "off" of its own round. The machine's processors are shared by wrk, weir and
the origins, so requests a second say how much less is served, and CPU time for a request says how much more weir works.

Then the load is taken away: what weir's CPU does in a second while it serves nobody, unwatched and watched. That number has next to no
noise, and it bounds the first: the frames and the metrics are the same, however many requests there are.

  --before PATH   another weir program (an older one): its throughput without admin as a fourth row, for what counting costs
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
import time

import ground
import run
from ground import BenchError, Program

CASES = ("off", "unwatched", "watched")
ALLOWED = 0.02


class Watcher:
    """A page and a Prometheus, from `with` until the end of the block."""

    def __init__(self, port):
        self.port = port
        self.stop = threading.Event()
        self.frames = self.scrapes = self.bytes = 0
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._stream, self._scrape)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        deadline = time.monotonic() + 5
        while not (self.frames and self.scrapes):
            if time.monotonic() > deadline:
                raise BenchError(f"the admin address answers {self.frames} frames, {self.scrapes} scrapes")
            time.sleep(0.02)
        return self

    def __exit__(self, *exception):
        self.stop.set()
        for thread in self.threads:
            thread.join(5)

    def _stream(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not self.stop.is_set():
                data = sock.recv(1 << 18)
                if not data:
                    return
                self.frames += data.count(b"\n\n")
                self.bytes += len(data)

    def _scrape(self):
        while not self.stop.is_set():
            status, _, body = ground.get(self.port, "/metrics")
            if status != 200 or b"weir_starts_total" not in body:
                raise BenchError(f"/metrics answers {status}")
            self.scrapes += 1
            self.stop.wait(1)


def start(stack, options, grounds, case, program=None):
    port, admin = ground.free_ports(2)
    endpoints = ",".join(f"127.0.0.1:{origin}" for origin in grounds.origins)
    command = [program or os.path.join(options.bin, "weir"), "reverse", "--port", str(port), "--endpoint", endpoints]
    if case != "off":
        command += ["--admin", str(admin)]
    weir = stack.enter_context(Program("weir-" + case, command, port, grounds.folder))
    return weir, admin


def measure(options, grounds, case, program=None):
    with contextlib.ExitStack() as stack:
        weir, admin = start(stack, options, grounds, case, program)
        run.load(weir.port, 1, options.connections, [])
        if case == "watched":
            stack.enter_context(Watcher(admin))
        before = weir.cpu_seconds()
        result = run.load(weir.port, options.seconds, options.connections, [])
        after = weir.cpu_seconds()
    if any(result["errors"].values()) or not result["requests"]:
        raise BenchError(f"{case}: {result['requests']} requests, errors {result['errors']}")
    return {"requests_per_s": result["requests"] / (result["duration_us"] / 1e6),
            "cpu_us_per_request": (after - before) * 1e6 / result["requests"]}


def measure_idle(options, grounds, case):
    """CPU seconds in each second, with no load at all."""
    with contextlib.ExitStack() as stack:
        weir, admin = start(stack, options, grounds, case)
        watcher = stack.enter_context(Watcher(admin)) if case == "watched" else None
        frames = watcher.frames if watcher else 0
        before, begun = weir.cpu_seconds(), time.monotonic()
        time.sleep(options.idle_seconds)
        seconds = time.monotonic() - begun
        return {"cpu_share": (weir.cpu_seconds() - before) / seconds,
                "frames_per_s": (watcher.frames - frames) / seconds if watcher else 0}


def arguments():
    parser = argparse.ArgumentParser(description="what it costs to be looked at")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--before", help="another weir program, to compare with")
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--idle-seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "admin.json"))
    return parser.parse_args()


def rounds(options, grounds):
    cases = list(CASES) + (["before"] if options.before else [])
    raw = {case: [] for case in cases}
    for number in range(options.rounds):
        turn = number % len(cases)
        for case in cases[turn:] + cases[:turn]:
            result = measure(options, grounds, "off", options.before) if case == "before" else measure(options, grounds, case)
            raw[case].append(result)
            print(f"  round {number + 1}/{options.rounds}  {case:10} {result['requests_per_s']:.0f} requests/s, "
                  f"{result['cpu_us_per_request']:.1f} us CPU a request", flush=True)
    return raw


def main():
    options = arguments()
    ground.exit_on_signals()
    print(f"wrk -t2 -c{options.connections}, {os.cpu_count()} processors shared by all, load average {os.getloadavg()[0]:.2f}")
    try:
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            grounds = run.Ground(folder, options.bin)
            with grounds.origin():
                raw = rounds(options, grounds)
                idle = {case: measure_idle(options, grounds, case) for case in ("unwatched", "watched")}
    except BenchError as error:
        print(f"bench/admin.py: {error}", file=sys.stderr)
        return 1
    print(f"\nmedian of {options.rounds} rounds of {options.seconds} s; against \"off\" in the same round")
    print(f"{'':12}{'requests/s':>12}{'of off':>9}{'CPU us/request':>16}{'of off':>9}")
    ratios = {}
    for case, results in raw.items():
        ratios[case] = {key: statistics.median(r[key] / off[key] for r, off in zip(results, raw["off"]))
                        for key in ("requests_per_s", "cpu_us_per_request")}
        middle = {key: statistics.median(r[key] for r in results) for key in ratios[case]}
        print(f"{case:12}{middle['requests_per_s']:>12.0f}{ratios[case]['requests_per_s']:>9.3f}"
              f"{middle['cpu_us_per_request']:>16.1f}{ratios[case]['cpu_us_per_request']:>9.3f}")
    share = idle["watched"]["cpu_share"] / os.cpu_count()
    print(f"\nwith no load: unwatched {idle['unwatched']['cpu_share'] * 100:.2f} % of a processor, watched "
          f"{idle['watched']['cpu_share'] * 100:.2f} % ({idle['watched']['frames_per_s']:.1f} frames a second): "
          f"{share * 100:.2f} % of this machine's {os.cpu_count()} processors")
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    with open(options.results, "w", encoding="utf-8") as file:
        json.dump({"raw": raw, "ratios": ratios, "idle": idle}, file, indent=1)
        file.write("\n")
    if share > ALLOWED:
        print(f"bench/admin.py: to be looked at may take {ALLOWED * 100:.0f} % of the machine", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
