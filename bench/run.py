#!/usr/bin/env python3
"""bench/run.py: weir beside HAProxy and nginx, on the same machine, in the same minutes, doing the same work.

    wrk, 64 connections ──► the proxy under test ──► two origins (one nginx, two ports, a small answer from memory)

Requests a second say little here: wrk, the proxy and the origin share the processors, so the fastest proxy is held back
by the other two. What a proxy costs is its CPU time for a request: user and system time of all its processes and
threads, divided by the requests that wrk got answered. That is the first column, and the one to compare.

Equal conditions, and where they are set:
  - two threads or workers each (weir: one thread a connection), no pinning to processors
  - connections to the origins are kept and reused by all three; round robin over two origins
  - no access log; X-Forwarded-For is added by all three
  - rounds are interleaved and the order is turned round by round, so that a slow minute of the machine meets all three
  - a median over the rounds; the raw numbers go to bench/results/reverse.json
  - latencies are those of a closed loop at full load: 64 requests under way at any moment. "no proxy" is wrk straight
    to an origin: what the two of them do without anybody in between.

Cases: keepalive (64 connections, each used over and over) and close (a new connection for each request).
An answer that is an error makes a measurement worthless, and the benchmark fails.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import ground
from ground import BenchError, Program

WORKERS = 2
ANSWER = ("Hello from the origin: one hundred and twenty-eight bytes of text, no more and no less, "
          "so that heads and not bodies matter....\n")
WARM_UP_SECONDS = 1
CASES = {
    "keepalive": [],
    "close": ["-H", "Connection: close"],
}

NGINX_COMMON = """
daemon off;
user {user};
pid {folder}/{name}.pid;
error_log {folder}/{name}.error.log warn;
worker_processes {workers};
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    client_body_temp_path {folder}/{name}.body;
    proxy_temp_path {folder}/{name}.proxy;
    fastcgi_temp_path {folder}/{name}.fastcgi;
    uwsgi_temp_path {folder}/{name}.uwsgi;
    scgi_temp_path {folder}/{name}.scgi;
    {http}
}}
"""

HAPROXY = """
global
    nbthread {workers}
    maxconn 4096
defaults
    mode http
    option forwardfor
    option http-keep-alive
    http-reuse always
    timeout connect 3s
    timeout client 75s
    timeout server 60s
    timeout http-keep-alive 75s
frontend in
    bind 127.0.0.1:{port}
    default_backend origins
backend origins
    balance roundrobin
    server a 127.0.0.1:{origins[0]}
    server b 127.0.0.1:{origins[1]}
"""


class Ground:
    """The folder, the origins' ports, and how each contender is started."""

    def __init__(self, folder, binaries):
        self.folder = folder
        self.binaries = binaries
        self.origins = ground.free_ports(2)

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _nginx(self, name, port, workers, http):
        user = "root" if os.geteuid() == 0 else "nobody"
        path = self._write(name + ".conf", NGINX_COMMON.format(
            user=user, folder=self.folder, name=name, workers=workers, http=http))
        error_log = os.path.join(self.folder, name + ".error.log")
        return Program(name, ["nginx", "-p", self.folder, "-e", error_log, "-c", path], port, self.folder)

    def origin(self):
        listen = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in self.origins)
        answer = ANSWER.replace("\n", "\\n")
        return self._nginx("origin", self.origins[0], 1,
                           f'server {{ {listen} location / {{ default_type text/plain; return 200 "{answer}"; }} }}')

    def nginx(self):
        port = ground.free_port()
        servers = " ".join(f"server 127.0.0.1:{origin} max_fails=0;" for origin in self.origins)
        return self._nginx("nginx", port, WORKERS, f"""
    upstream origins {{ {servers} keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origins;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}""")

    def haproxy(self):
        port = ground.free_port()
        path = self._write("haproxy.cfg", HAPROXY.format(workers=WORKERS, port=port, origins=self.origins))
        return Program("haproxy", ["haproxy", "-db", "-q", "-f", path], port, self.folder)

    def weir(self):
        port = ground.free_port()
        endpoints = ",".join(f"127.0.0.1:{origin}" for origin in self.origins)
        command = [os.path.join(self.binaries, "weir"), "reverse", "--port", str(port), "--endpoint", endpoints]
        return Program("weir", command, port, self.folder)


def load(port, seconds, connections, extra):
    command = ground.wrk_command("report.lua", port, seconds, connections, extra)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"wrk: {error}") from None
    if done.returncode != 0:
        raise BenchError(f"wrk ended with {done.returncode}: {done.stderr}")
    return ground.wrk_result(done.stdout)


def measure(name, port, program, options, case):
    """One contender, one case, one round. program is None when wrk talks to an origin itself."""
    status, _, body = ground.get(port)
    if status != 200 or body.decode() != ANSWER:
        raise BenchError(f"{name} answers {status} {body[:80]!r}, not what the origin says")
    load(port, WARM_UP_SECONDS, options.connections, CASES[case])
    before = program.cpu_seconds() if program else 0
    result = load(port, options.seconds, options.connections, CASES[case])
    after = program.cpu_seconds() if program else 0
    errors = {kind: count for kind, count in result["errors"].items() if count}
    if errors or result["requests"] == 0:
        raise BenchError(f"{name}, {case}: {result['requests']} requests, errors {errors}")
    result["requests_per_s"] = result["requests"] / (result["duration_us"] / 1e6)
    if program:
        result["cpu_us_per_request"] = (after - before) * 1e6 / result["requests"]
        result["peak_memory_kib"] = program.peak_memory_kib()
    return result


def run_rounds(grounds, names, options):
    """Each contender runs alone: started, measured in each case, ended. The order turns with the rounds."""
    raw = {case: {name: [] for name in names} for case in options.cases}
    for round_number in range(options.rounds):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            with contextlib.ExitStack() as stack:
                program = stack.enter_context(getattr(grounds, name)()) if name != "no proxy" else None
                port = program.port if program else grounds.origins[0]
                for case in options.cases:
                    result = measure(name, port, program, options, case)
                    raw[case][name].append(result)
                    cpu = f"{result['cpu_us_per_request']:.1f} us CPU a request, " if program else ""
                    print(f"  round {round_number + 1}/{options.rounds}  {case:10} {name:9} {cpu}"
                          f"{result['requests_per_s']:.0f} requests/s", flush=True)
    return raw


def medians(results):
    keys = ("cpu_us_per_request", "p50_us", "p99_us", "requests_per_s", "peak_memory_kib")
    return {key: statistics.median(result[key] for result in results) for key in keys if key in results[0]}


def print_table(case, middle, names, options):
    print(f"\n{case}: {options.connections} connections, median of {options.rounds} rounds of {options.seconds} s")
    rivals = [name for name in ("haproxy", "nginx") if name in names]
    ratios = "".join(f"{'CPU / ' + rival:>15}" for rival in rivals)
    print(f"{'':11}{'CPU us/request':>15}{'p50 ms':>9}{'p99 ms':>9}{'requests/s':>12}{'peak MiB':>10}{ratios}")
    for name in names:
        row = middle[name]
        cpu = row.get("cpu_us_per_request")
        line = f"{name:11}{f'{cpu:.1f}' if cpu else '-':>15}{row['p50_us'] / 1000:>9.2f}{row['p99_us'] / 1000:>9.2f}"
        line += f"{row['requests_per_s']:>12.0f}"
        line += f"{row['peak_memory_kib'] / 1024:>10.1f}" if cpu else f"{'-':>10}"
        for rival in rivals:
            line += f"{cpu / middle[rival]['cpu_us_per_request']:>15.2f}" if cpu else f"{'-':>15}"
        print(line)


def write_results(path, raw, middle, names, options):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    versions = {
        "haproxy": ground.version("haproxy", "-v"),
        "nginx": ground.version("nginx", "-v"),
        "wrk": ground.version("wrk", "-v"),
    }
    if "weir" in names:
        versions["weir"] = ground.version(os.path.join(options.bin, "weir"), "--version")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {"kernel": platform.release(), "processors": os.cpu_count(), "load_average": os.getloadavg()},
            "versions": versions,
            "connections": options.connections, "seconds": options.seconds,
            "rounds": options.rounds, "workers": WORKERS,
            "medians": middle, "rounds_raw": raw,
        }, file, indent=1)
        file.write("\n")


def arguments():
    parser = argparse.ArgumentParser(description="weir beside HAProxy and nginx")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--seconds", type=int, default=4, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--proxies", default="weir,haproxy,nginx", help="which to measure")
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "reverse.json"))
    options = parser.parse_args()
    options.cases = options.cases.split(",")
    options.proxies = options.proxies.split(",")
    for case in options.cases:
        if case not in CASES:
            parser.error(f"no case {case}")
    for name in options.proxies:
        if name not in ("weir", "haproxy", "nginx"):
            parser.error(f"no proxy {name}")
    if min(options.seconds, options.rounds) < 1 or options.connections < 2:
        parser.error("seconds and rounds are at least 1, connections at least 2 (one for each of wrk's threads)")
    return options


def main():
    options = arguments()
    ground.exit_on_signals()
    names = options.proxies + ["no proxy"]
    print(f"{', '.join(options.proxies)}: {WORKERS} threads or workers each; wrk -t2 -c{options.connections}; "
          f"two origins in one nginx worker; {os.cpu_count()} processors shared by all; "
          f"load average {os.getloadavg()[0]:.2f}")
    try:
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            grounds = Ground(folder, options.bin)
            with grounds.origin():
                raw = run_rounds(grounds, names, options)
    except BenchError as error:
        print(f"bench/run.py: {error}", file=sys.stderr)
        return 1
    middle = {case: {name: medians(raw[case][name]) for name in names} for case in options.cases}
    for case in options.cases:
        print_table(case, middle[case], names, options)
    write_results(options.results, raw, middle, names, options)
    print(f"\nraw numbers: {os.path.relpath(options.results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
