#!/usr/bin/env python3
"""bench/goals.py: weir's goals of speed, one row each: what HAProxy, nginx, squid and a bare relay need for the same work.

    bench/load, paced or not ──► the proxy under test ──► two origins (one nginx, two ports, 1 KiB from memory)

What counts is a ratio: CPU time a request (user and system, all processes and threads, read from the processes' own CPU
clocks) of weir, divided by that of the other, both measured in the same run, in turn, a few seconds each; the median over the
rounds. Absolute numbers belong to a machine and a minute, and say little about a proxy.

Two kinds of load. Paced, 10,000 requests a second come on a timetable, whatever the proxy does, and latency runs from the
moment a request was due: what a service with room to spare meets. Saturated, each connection asks again at once: then an event
loop finds many requests at each look and serves them together, which is when it is cheapest.

Equal for all: two threads or workers (weir, the relay: a thread a connection), kept connections to the origins, no access log,
X-Forwarded-For added (not by the relay, which changes nothing), the same answers, each one checked byte for byte by bench/load.
The relay is the floor of weir's architecture (bench/relay.c). A goal that cannot be measured here says so.

An answer that is wrong makes a measurement worthless, and the benchmark fails. A goal that is not met does not: it is said.
"""

import argparse
import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time

import ground
from ground import BenchError, Program

WORKERS = 2
RATE = 10000
BODY = ("Hello from the origin: sixteen lines of sixty-four bytes, 1 KiB.\n" * 16)[:1024]
START_TRIES = 5

NGINX = """
daemon off;
user {user};
pid {folder}/{name}.pid;
error_log {folder}/{name}.error.log warn;
worker_processes {workers};
worker_rlimit_nofile 24000;
events {{ worker_connections 12000; }}
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
    no strict-limits
    maxconn 11000
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
    bind 127.0.0.1:{port} backlog 4096
    maxconn 11000
    {extra}
    default_backend origins
backend origins
    balance roundrobin
    server a 127.0.0.1:{origins[0]}
    server b 127.0.0.1:{origins[1]}
"""

HAPROXY_LIMIT = """
    stick-table type integer size 1 expire 10s store http_req_rate(1s)
    http-request track-sc0 int(1)
    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 10 }
"""

SQUID = """
http_port 127.0.0.1:{port}
http_access allow all
cache deny all
access_log none
cache_log {folder}/squid.cache.log
cache_store_log none
pid_filename {folder}/squid.pid
coredump_dir {folder}
shutdown_lifetime 0 seconds
"""


def cpu_clock(pid):
    """The kernel's clock of a process's CPU time, threads that have ended included: clock_getcpuclockid(3), for Linux."""
    return (~pid << 3) | 2


def cpu_seconds(program):
    return sum(time.clock_gettime(cpu_clock(pid)) for pid in program.pids())


def pss_kib(program):
    total = 0
    for pid in program.pids():
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total


class Ground:
    """The folder, the origins' ports, and how each contender is started."""

    def __init__(self, folder, options):
        self.folder = folder
        self.options = options
        self.origins = ground.free_ports(2)
        self.body_path = self._write("body", BODY)

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _nginx(self, name, port, workers, http):
        user = "root" if os.geteuid() == 0 else "nobody"
        path = self._write(name + ".conf", NGINX.format(user=user, folder=self.folder, name=name, workers=workers, http=http))
        error_log = os.path.join(self.folder, name + ".error.log")
        return Program(name, ["nginx", "-p", self.folder, "-e", error_log, "-c", path], port, self.folder)

    def origin(self):
        listen = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in self.origins)
        answer = BODY.replace("\n", "\\n")
        return self._nginx("origin", self.origins[0], 1,
                           f'server {{ {listen} location / {{ default_type text/plain; return 200 "{answer}"; }} }}')

    def nginx(self, _):
        port = ground.free_port()
        servers = " ".join(f"server 127.0.0.1:{origin} max_fails=0;" for origin in self.origins)
        return self._nginx("nginx", port, WORKERS, f"""
    upstream origins {{ {servers} keepalive 1024; keepalive_requests 1000000000; }}
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

    def haproxy(self, _, extra=""):
        port = ground.free_port()
        path = self._write("haproxy.cfg", HAPROXY.format(workers=WORKERS, port=port, origins=self.origins, extra=extra))
        return Program("haproxy", ["haproxy", "-db", "-q", "-f", path], port, self.folder)

    def haproxy_limited(self, row):
        return self.haproxy(row, HAPROXY_LIMIT)

    def weir(self, row, binary=None, *more):
        port = ground.free_port()
        endpoints = ",".join(f"127.0.0.1:{origin}" for origin in sorted(set(self.origins)))
        command = [binary or os.path.join(self.options.bin, "weir"), "reverse", "--port", str(port), "--endpoint", endpoints,
                   "--max-clients", str(row.connections + row.idle + 200), *more]
        return Program("weir", command, port, self.folder)

    def weir_before(self, row):
        return self.weir(row, self.options.before)

    def weir_limiter(self, row):
        return self.weir(row, None, "--threshold", "1000000")

    def weir_limited(self, row):
        return self.weir(row, None, "--threshold", "10")

    def relay(self, row, *more):
        port = ground.free_port()
        threads = row.connections + row.idle + 16
        return Program("relay", [self.options.relay, "--port", str(port), "--target", str(self.origins[0]),
                                 "--threads", str(threads), *more], port, self.folder)

    def relay_free(self, row):
        return self.relay(row, "--no-pin")

    def weir_forward(self, _):
        port = ground.free_port()
        return Program("weir", [os.path.join(self.options.bin, "weir"), "forward", "--port", str(port),
                                "--connect-allow", "127.0.0.1:*"], port, self.folder)

    def squid(self, _):
        port = ground.free_port()
        path = self._write("squid.conf", SQUID.format(port=port, folder=self.folder))
        return Program("squid", ["squid", "-N", "-f", path], port, self.folder)


class Row:
    """One load, who bears it, and what is wanted of weir beside each of the others: (measure, limit, is it a maximum)."""

    def __init__(self, name, title, names, goals, **load):
        self.name, self.title, self.names, self.goals = name, title, names, goals
        self.connections = load.get("connections", 64)
        self.idle = load.get("idle", 0)
        self.rate = load.get("rate", 0)
        self.arguments = load.get("arguments", [])
        self.is_forward = load.get("is_forward", False)

    def load_command(self, grounds, port):
        target = f"http://127.0.0.1:{grounds.origins[0]}/" if self.is_forward else "/"
        return [grounds.options.load, "--port", str(port), "--connections", str(self.connections), "--idle", str(self.idle),
                "--rate", str(self.rate), "--seconds", str(grounds.options.seconds), "--target", target,
                "--body", grounds.body_path, *self.arguments]


CPU, P50, P99, RPS, PSS = "cpu_us", "p50_us", "p99_us", "requests_per_s", "pss_kib_a_connection"
PACED = {"haproxy": [(CPU, 0.40), (P50, 0.9), (P99, 0.8)], "nginx": [(CPU, 0.40), (P50, 0.9), (P99, 0.8)]}
FULL = {"haproxy": [(CPU, 1.0), (RPS, 1.0), (P99, 1.0)], "relay": [(CPU, 1.08)]}
ALL = ["weir", "haproxy", "nginx", "relay"]
ROWS = [
    Row("paced64", "GET of 1 KiB, kept alive, 10,000/s paced, 64 connections", ALL, PACED, rate=RATE),
    Row("paced1000", "the same, 1,000 connections", ALL, PACED, rate=RATE, connections=1000),
    Row("full64", "saturated, 64 connections", ALL + ["relay_free"], FULL),
    Row("full1000", "saturated, 1,000 connections", ALL + ["relay_free"], FULL, connections=1000),
    Row("idle", "10,000 idle connections, 10,000/s on 64", ALL[:3],
        {"haproxy": [(CPU, 0.45)], "nginx": [(CPU, 1.0)], "": [(PSS, 16.0)]}, rate=RATE, idle=10000),
    Row("close", "a new connection each request, 64 at once", ALL,
        {"haproxy": [(CPU, 0.95)], "nginx": [(CPU, 0.95)]}, arguments=["--close"]),
    Row("forward", "forward GET, kept alive, 64 connections", ["weir_forward", "squid"], {"squid": [(CPU, 0.35)]},
        is_forward=True),
    Row("limiter", "limiter on, far from its limit, 10,000/s", ["weir_limiter", "weir"], {"weir": [(CPU, 1.03)]}, rate=RATE),
    Row("refusals", "refusals at a limit of 10/s, 64 connections", ["weir_limited", "haproxy_limited"],
        {"haproxy_limited": [(RPS, 1.0)]}, arguments=["--statuses", "200,429"]),
]


# ---- measuring ------------------------------------------------------------------------------------------------------

def line_of(process, seconds):
    """One line of what a load says, or its complaint."""
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise BenchError("the load says nothing")
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise BenchError(f"the load ended: {process.stderr.read().strip()}")
    return line


def measure(grounds, row, name, program):
    at_rest_kib = pss_kib(program)
    command = row.load_command(grounds, program.port)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line_of(process, 120)
            held_kib = pss_kib(program)
            before = cpu_seconds(program)
            process.stdin.write("\n")
            process.stdin.flush()
            answer = line_of(process, grounds.options.seconds + 60)
            spent = cpu_seconds(program) - before
            process.stdin.write("\n")
            process.stdin.flush()
            process.wait()
        except BaseException as error:
            process.kill()
            if isinstance(error, BenchError):
                raise BenchError(f"{row.name}, {name}: {error}\n{program.log()}") from None
            raise
    result = ground.wrk_result(answer)
    result[CPU] = spent * 1e6 / result["requests"]
    result[RPS] = result["requests"] / (result["duration_us"] / 1e6)
    result[PSS] = (held_kib - at_rest_kib) / (row.connections + row.idle)
    return result


def run_row(grounds, row, names):
    raw = {name: [] for name in names}
    for round_number in range(grounds.options.rounds):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            with getattr(grounds, name)(row) as program:
                result = measure(grounds, row, name, program)
            raw[name].append(result)
            print(f"    round {round_number + 1}/{grounds.options.rounds} {row.name:10} {name:16} {result[CPU]:6.1f} us CPU  "
                  f"p50 {result[P50]:8.0f}  p99 {result[P99]:8.0f} us  {result[RPS]:8.0f}/s  "
                  f"{result[PSS]:6.1f} KiB a connection", file=sys.stderr, flush=True)
    return raw


def median(results, measure_name):
    return statistics.median(result[measure_name] for result in results)


def median_ratio(raw, name, other, measure_name):
    """The median of the rounds' ratios: what slowed one round slowed both."""
    pairs = zip(raw[name], raw[other])
    return statistics.median(one[measure_name] / two[measure_name] for one, two in pairs if two[measure_name] > 0)


# ---- start to first answer ------------------------------------------------------------------------------------------

def first_answer_seconds(start, port):
    begun = time.monotonic()
    with start():
        status, _, body = ground.get(port)
        took = time.monotonic() - begun
    if status != 200 or body.decode() != BODY:
        raise BenchError(f"after the start: {status} {body[:80]!r}")
    return took


class QuickProgram(Program):
    """Looked at often while it starts."""

    def _wait_until_it_listens(self):
        deadline = time.monotonic() + ground.START_SECONDS
        while time.monotonic() < deadline:
            try:
                ground.socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.0005)
        raise BenchError(f"{self.name} does not listen:\n{self.log()}")


def run_start(grounds):
    row = Row("start", "start to first answer", ["weir", "haproxy"], {})
    raw = {name: [] for name in row.names}
    for _ in range(START_TRIES * grounds.options.rounds):
        for name in row.names:
            made = getattr(grounds, name)(row)
            program = QuickProgram(made.name, made.command, made.port, grounds.folder)
            raw[name].append({"seconds": first_answer_seconds(lambda p=program: p, made.port)})
    return raw


# ---- the table ------------------------------------------------------------------------------------------------------

MEANINGS = {CPU: "CPU a request", P50: "p50", P99: "p99", RPS: "requests/s", PSS: "PSS KiB a connection"}


def judge(row, raw):
    """(what, against whom, goal, found, met) for each goal of the row whose rivals were measured."""
    ours = row.names[0]
    for rival, goals in row.goals.items():
        if rival and rival not in raw:
            continue
        for measure_name, limit in goals:
            found = median_ratio(raw, ours, rival, measure_name) if rival else median(raw[ours], measure_name)
            is_met = found >= limit if measure_name == RPS else found <= limit
            yield MEANINGS[measure_name], rival or "-", limit, found, is_met


def print_row(row, raw):
    print(f"\n{row.title}")
    for name, results in raw.items():
        print(f"    {name:16}{median(results, CPU):8.1f} us CPU{median(results, P50):10.0f} us p50{median(results, P99):10.0f} us p99"
              f"{median(results, RPS):9.0f}/s{median(results, PSS):8.1f} KiB a connection")
    for what, rival, limit, found, is_met in judge(row, raw):
        sign = "at least" if what == "requests/s" else "at most"
        print(f"    {what:22} / {rival:16} {found:6.2f}   goal {sign} {limit:5.2f}   {'met' if is_met else 'NOT MET'}")
    sys.stdout.flush()


def arguments():
    parser = argparse.ArgumentParser(description="weir's goals of speed")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--bench", default="build/bench", help="the folder of load and relay")
    parser.add_argument("--before", help="another weir program, measured beside the one in --bin as weir_before")
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default=",".join([row.name for row in ROWS] + ["start"]))
    parser.add_argument("--proxies", help="only these, of those that the row names")
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "goals.json"))
    options = parser.parse_args()
    options.load = os.path.join(options.bench, "load")
    options.relay = os.path.join(options.bench, "relay")
    options.rows = options.rows.split(",")
    unknown = set(options.rows) - {row.name for row in ROWS} - {"start"}
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    return options


def names_for(row, options):
    names = [name for name in row.names if options.proxies is None or name in options.proxies.split(",")]
    return names + (["weir_before"] if options.before and "weir" in row.names else [])


def main():
    options = arguments()
    ground.exit_on_signals()
    print(f"bench/goals.py: {options.rounds} rounds of {options.seconds} s each; {os.cpu_count()} processors shared by load, "
          f"proxy and origins; load average {os.getloadavg()[0]:.2f}")
    everything = {}
    try:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-bench-"))
            os.chmod(folder, 0o755)
            grounds = Ground(folder, options)
            stack.enter_context(grounds.origin())
            for row in ROWS:
                if row.name in options.rows:
                    everything[row.name] = run_row(grounds, row, names_for(row, options))
                    print_row(row, everything[row.name])
            if "start" in options.rows:
                everything["start"] = raw = run_start(grounds)
                found = median_ratio(raw, "weir", "haproxy", "seconds")
                print(f"\nstart to first answer: weir {median(raw['weir'], 'seconds') * 1000:.1f} ms, HAProxy "
                      f"{median(raw['haproxy'], 'seconds') * 1000:.1f} ms\n    ratio {found:.2f}   goal at most 0.50   "
                      f"{'met' if found <= 0.5 else 'NOT MET'}")
    except BenchError as error:
        print(f"bench/goals.py: {error}", file=sys.stderr)
        return 1
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    with open(options.results, "w", encoding="utf-8") as file:
        json.dump({"rounds": options.rounds, "seconds": options.seconds, "raw": everything}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
