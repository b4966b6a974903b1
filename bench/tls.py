#!/usr/bin/env python3
"""bench/tls.py: what TLS costs weir beside HAProxy and nginx, on both sides, in the same minutes, doing the same work.

    client side    wrk, TLS ──► the proxy under test ──► two plain origins      (TLS ends at the proxy)
    target side    wrk, plain ─► the proxy under test ──► two origins that speak TLS

What bench/run.py says about equal conditions holds here too: the CPU time for a request is what is compared, rounds are
interleaved, and an error makes the run fail. On top of that, equal cryptography, which is checked before each measurement, on
both sides: TLS 1.3 with TLS_AES_256_GCM_SHA384, an ECDSA P-256 key, full handshakes where they are to be full, resumed
ones where a client may resume; and on the target side a check of the certificate and its name.

    keepalive   64 connections, each used over and over: what encrypting costs
    handshake   a new connection for each request, always a full handshake: no session can be resumed
    resumed     a new connection for each request, the session resumed (target side: where the proxy does that)
    bulk        64 KiB an answer on connections that are kept: what the bytes cost

plain keepalive and plain bulk are weir with no TLS anywhere: what a request costs without.
"""

import argparse
import contextlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile

import ground
import run
from ground import BenchError, Program

CIPHER = ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
BULK_BYTES = 64 * 1024
PLAIN = ("plain keepalive", "plain bulk")
CASES = ("client keepalive", "client handshake", "client resumed", "client bulk", "target keepalive", "target handshake",
         "target resumed", "target bulk")
ORIGINS = ("plain", "kept", "full", "resuming")

CHECKS = 6  # requests of which the last two, one to each origin, would resume what the first ones were given

# wrk resumes whatever it can. A server that refuses tickets and keeps no sessions has nothing to resume; weir has no setting
# for that, but its library has.
NO_TICKETS = """
openssl_conf = library
[library]
ssl_conf = programs
[programs]
system_default = defaults
[defaults]
Options = -SessionTicket
"""

HAPROXY = """
global
    nbthread {workers}
    maxconn 4096
    {cache}
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
    bind 127.0.0.1:{port}{bind}
    default_backend origins
backend origins
    balance roundrobin
    server a 127.0.0.1:{origins[0]}{server}
    server b 127.0.0.1:{origins[1]}{server}
"""


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise BenchError(f"openssl {arguments[0]}: {done.stderr}")


class Ground(run.Ground):
    """Where a case is played: which origins, and what each contender is told about TLS."""

    def __init__(self, folder, binaries):
        super().__init__(folder, binaries)
        self.crt, self.key, self.pem = (os.path.join(folder, "pair." + end) for end in ("crt", "key", "pem"))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "10", "-subj",
                "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", self.key, "-out", self.crt)
        with open(self.pem, "w", encoding="ascii") as out:
            for part in (self.crt, self.key):
                with open(part, encoding="ascii") as file:
                    out.write(file.read())
        with open(os.path.join(folder, "bulk"), "wb") as file:
            file.write(b"x" * BULK_BYTES)
        self.all_origins = {name: ground.free_ports(2) for name in ORIGINS}
        self.side, self.kind = "client", "keepalive"
        self.no_tickets = self._write("no_tickets.cnf", NO_TICKETS)
        self.checks = os.path.join(folder, "checks.log")

    def stage(self, case):
        """Which side speaks TLS, and to whom the proxies speak."""
        self.side, self.kind = case.split()
        kinds = {"handshake": "full", "resumed": "resuming"}
        self.origins = self.all_origins["plain" if self.side != "target" else kinds.get(self.kind, "kept")]

    def forbids_tickets(self):
        return (self.side, self.kind) == ("client", "handshake")

    def origin(self):
        """One nginx with all the origins. Those of which each request wants a new connection close after one."""
        answer = run.ANSWER.replace("\n", "\\n")
        pair = f"ssl_certificate {self.crt}; ssl_certificate_key {self.key}; ssl_protocols TLSv1.3;"
        closing = "keepalive_requests 1;"
        more = {"plain": "", "kept": pair, "full": pair + closing + "ssl_session_tickets off;",
                "resuming": pair + closing}
        servers = ""
        for name, ports in self.all_origins.items():
            listen = " ".join(f"listen 127.0.0.1:{port}{'' if name == 'plain' else ' ssl'} backlog=4096;" for port in ports)
            servers += (f'server {{ {listen} {more[name]} root {self.folder}; '
                        f'location = / {{ default_type text/plain; return 200 "{answer}"; }} location = /bulk {{ }} '
                        f'location = /check {{ access_log {self.checks} checks; return 204; }} }}\n')
        servers = "log_format checks '$ssl_protocol $ssl_cipher $ssl_session_reused';\n" + servers
        return self._nginx("origin", self.all_origins["plain"][0], 1, servers)

    def nginx(self):
        port = ground.free_port()
        servers = " ".join(f"server 127.0.0.1:{origin} max_fails=0;" for origin in self.origins)
        is_client, is_target = self.side == "client", self.side == "target"
        pair = f"ssl_certificate {self.crt}; ssl_certificate_key {self.key}; ssl_protocols TLSv1.2 TLSv1.3;" if is_client else ""
        pair += " ssl_session_tickets off;" if self.forbids_tickets() else ""
        upstream = f"""proxy_ssl_verify on; proxy_ssl_trusted_certificate {self.crt}; proxy_ssl_name localhost;
            proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_session_reuse on;""" if is_target else ""
        return self._nginx("nginx", port, run.WORKERS, f"""
    upstream origins {{ {servers} keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port}{' ssl' if is_client else ''} backlog=4096;
        {pair}
        location / {{
            proxy_pass {'https' if is_target else 'http'}://origins;
            {upstream}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}""")

    def haproxy(self):
        port = ground.free_port()
        path = self._write("haproxy.cfg", HAPROXY.format(
            workers=run.WORKERS, port=port, origins=self.origins,
            cache="tune.ssl.cachesize 0" if self.forbids_tickets() else "",
            bind=f" ssl crt {self.pem} alpn http/1.1 ssl-min-ver TLSv1.2{' no-tls-tickets' if self.forbids_tickets() else ''}"
            if self.side == "client" else "",
            server=f" ssl verify required ca-file {self.crt} sni str(localhost) verifyhost localhost"
            if self.side == "target" else ""))
        return Program("haproxy", ["haproxy", "-db", "-q", "-f", path], port, self.folder)

    def weir(self):
        port = ground.free_port()
        endpoints = ",".join(f"127.0.0.1:{origin}" for origin in self.origins)
        command = [os.path.join(self.binaries, "weir"), "reverse", "--port", str(port), "--endpoint", endpoints]
        if self.side == "client":
            command += ["--tls-keyfile", self.key, "--tls-crtfile", self.crt]
        if self.side == "target":
            command += ["--ssl", "yes", "--cafile", self.crt, "--ssl-name", "localhost"]
        if self.forbids_tickets():
            command = ["env", f"OPENSSL_CONF={self.no_tickets}", *command]
        return Program("weir", command, port, self.folder)

    def check(self, name, port):
        """Is what is about to be measured the same cryptography?"""
        if self.side in ("client", "target"):
            seen = self._seen_by_clients(port) if self.side == "client" else self._seen_by_origins(port)
            spoken, resumed = {said[:2] for said in seen}, [said[2] for said in seen]
            if spoken != {CIPHER}:
                raise BenchError(f"{name} speaks {spoken}, not {CIPHER}: no fair comparison")
            if self.kind == "handshake" and any(resumed):
                raise BenchError(f"{name} resumes sessions: these are no full handshakes")
            if (self.side, self.kind) == ("client", "resumed") and not resumed[-1]:
                raise BenchError(f"{name} lets no session be resumed: no fair comparison")

    def _seen_by_clients(self, port):
        """A client that resumes what it can."""
        context, session, seen = ssl.create_default_context(cafile=self.crt), None, []
        for _ in range(CHECKS):
            with contextlib.closing(context.wrap_socket(ground.socket.create_connection(("127.0.0.1", port), 5),
                                                        server_hostname="localhost", session=session)) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                while sock.recv(4096):
                    pass                            # the ticket comes before the end
                seen.append((sock.version(), sock.cipher()[0], sock.session_reused))
                session = sock.session
        return seen

    def _seen_by_origins(self, port):
        open(self.checks, "a", encoding="ascii").close()
        before = os.path.getsize(self.checks)
        for _ in range(CHECKS):
            ground.get(port, "/check")
        with open(self.checks, encoding="ascii") as log:
            log.seek(before)
            seen = [tuple(line.split()) for line in log]
        if len(seen) != CHECKS:
            raise BenchError(f"the origins have seen {len(seen)} of {CHECKS} requests")
        return [(version, cipher, reused == "r") for version, cipher, reused in seen]


def load(grounds, case, port, seconds, connections):
    extra = ["-H", "Connection: close"] if case in ("client handshake", "client resumed") else []
    command = ground.wrk_command("report.lua", port, seconds, connections, extra,
                                 "https" if grounds.side == "client" else "http")
    if case.endswith("bulk"):
        command[-1] += "bulk"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"wrk: {error}") from None
    if done.returncode != 0:
        raise BenchError(f"wrk ended with {done.returncode}: {done.stderr}")
    return ground.wrk_result(done.stdout)


def measure(grounds, name, case, program, options):
    grounds.check(name, program.port)
    load(grounds, case, program.port, run.WARM_UP_SECONDS, options.connections)
    before = program.cpu_seconds()
    result = load(grounds, case, program.port, options.seconds, options.connections)
    after = program.cpu_seconds()
    errors = {kind: count for kind, count in result["errors"].items() if count}
    if errors or result["requests"] == 0:
        raise BenchError(f"{name}, {case}: {result['requests']} requests, errors {errors}\n{program.log()}")
    if case.endswith("bulk") and result["bytes"] < result["requests"] * BULK_BYTES:
        raise BenchError(f"{name}, {case}: {result['bytes']} bytes in {result['requests']} answers of {BULK_BYTES}")
    result["requests_per_s"] = result["requests"] / (result["duration_us"] / 1e6)
    result["cpu_us_per_request"] = (after - before) * 1e6 / result["requests"]
    return result


def run_rounds(grounds, options):
    raw = {case: {name: [] for name in options.proxies} for case in options.cases}
    raw.update({case: {"weir": []} for case in PLAIN})
    for number in range(options.rounds):
        turn = number % len(options.proxies)
        for case in [*PLAIN, *options.cases]:
            grounds.stage(case)
            for name in options.proxies[turn:] + options.proxies[:turn] if case not in PLAIN else ["weir"]:
                with getattr(grounds, name)() as program:
                    result = measure(grounds, name, case, program, options)
                raw[case][name].append(result)
                print(f"  round {number + 1}/{options.rounds}  {case:17} {name:8} {result['cpu_us_per_request']:.1f} us CPU a request, "
                      f"{result['requests_per_s']:.0f} requests/s", flush=True)
    return raw


def print_table(middle, options):
    print(f"\n{options.connections} connections, median of {options.rounds} rounds of {options.seconds} s; "
          f"{' '.join(CIPHER)}, ECDSA P-256")
    rivals = [name for name in options.proxies if name != "weir"]
    print(f"{'':18}{'':9}{'CPU us/request':>15}{'requests/s':>12}" + "".join(f"{'weir / ' + name:>16}" for name in rivals))
    for case in [*PLAIN, *options.cases]:
        for name, row in middle[case].items():
            line = f"{case:18}{name:9}{row['cpu_us_per_request']:>15.1f}{row['requests_per_s']:>12.0f}"
            for rival in rivals if name == "weir" and case not in PLAIN else []:
                line += f"{row['cpu_us_per_request'] / middle[case][rival]['cpu_us_per_request']:>16.2f}"
            print(line)


def arguments():
    parser = argparse.ArgumentParser(description="what TLS costs, beside HAProxy and nginx")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--proxies", default="weir,haproxy,nginx", help="which to measure")
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "tls.json"))
    options = parser.parse_args()
    options.cases, options.proxies = options.cases.split(","), options.proxies.split(",")
    if not set(options.cases) <= set(CASES) or not set(options.proxies) <= {"weir", "haproxy", "nginx"}:
        parser.error("no such case or proxy")
    if min(options.seconds, options.rounds) < 1 or options.connections < 2:
        parser.error("seconds and rounds are at least 1, connections at least 2 (one for each of wrk's threads)")
    return options


def main():
    options = arguments()
    ground.exit_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            os.chmod(folder, 0o755)                 # nginx's workers read the bulk there
            grounds = Ground(folder, options.bin)
            with grounds.origin():
                raw = run_rounds(grounds, options)
    except BenchError as error:
        print(f"bench/tls.py: {error}", file=sys.stderr)
        return 1
    middle = {case: {name: {key: statistics.median(result[key] for result in results)
                            for key in ("cpu_us_per_request", "requests_per_s")}
                     for name, results in names.items()} for case, names in raw.items()}
    print_table(middle, options)
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    with open(options.results, "w", encoding="utf-8") as file:
        json.dump({"cipher": CIPHER, "connections": options.connections, "seconds": options.seconds,
                   "rounds": options.rounds, "load_average": os.getloadavg(), "medians": middle, "rounds_raw": raw}, file, indent=1)
        file.write("\n")
    print(f"\nraw numbers: {os.path.relpath(options.results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
