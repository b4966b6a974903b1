"""What the benchmarks share: programs on free ports that never outlive the benchmark, their CPU time, and wrk.

Every program is started here, remembered by its process id and ended by it. Should the benchmark itself be killed, the
kernel tells each one to end (PR_SET_PDEATHSIG), so that a broken run leaves nothing behind that loads the next.
"""

import ctypes
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
START_SECONDS = 10
PR_SET_PDEATHSIG = 1
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None)


class BenchError(Exception):
    """Something that makes the numbers worthless: the benchmark ends and says what."""


def exit_on_signals():
    """SIGTERM ends the run as an exception, so that every `with` on the way out ends what it started."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_ports(count):
    """Different ones: all are held until the last is known."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Program:
    """A program that listens on a port, from `with` until the end of the block."""

    def __init__(self, name, command, port, folder):
        self.name = name
        self.command = command
        self.port = port
        self.log_path = os.path.join(folder, name + ".log")
        self.process = None

    def __enter__(self):
        # WEIR_PORT and the like would change what is measured.
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith(("WEIR_", "DPRL_", "LOG_LEVEL"))}
        with open(self.log_path, "ab") as log:
            try:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                    preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM))
            except OSError as error:
                raise BenchError(f"cannot start {self.name}: {error}") from None
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exception):
        self.end()

    def _wait_until_it_listens(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended at once, status {self.process.returncode}:\n{self.log()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"{self.name} does not listen on port {self.port}:\n{self.log()}") from None
                time.sleep(0.02)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()[-2000:]

    def kill(self):
        """As a crash would: no farewell to anybody."""
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def pids(self):
        """Its own process id and those of its children: nginx works in children of a master."""
        parents = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            fields = _stat_fields(int(entry))
            if fields:
                parents[int(entry)] = int(fields[1])
        found = [self.process.pid]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        return found

    def cpu_seconds(self):
        """User and system time of all its processes and threads, those that have ended too. In steps of 10 ms."""
        total = 0
        for pid in self.pids():
            fields = _stat_fields(pid)
            if fields:
                total += int(fields[11]) + int(fields[12])
        return total / TICKS_A_SECOND

    def peak_memory_kib(self):
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
                    total += int(re.search(r"^VmHWM:\s+(\d+)", status.read(), re.M).group(1))
            except (OSError, AttributeError):
                pass
        return total


def _stat_fields(pid):
    """The fields of /proc/PID/stat from the third on: the second, the name, may hold blanks and brackets."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()
    except OSError:
        return None


def get(port, path="/"):
    """One request on a connection of its own: (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"no answer from port {port}: {error!r}") from None
    finally:
        connection.close()


def wrk_command(script, port, seconds, connections, extra=(), scheme="http"):
    # Two threads for two processors; a request that takes longer than the timeout counts as an error.
    return ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", os.path.join(FOLDER, script),
            *extra, f"{scheme}://127.0.0.1:{port}/"]


def wrk_result(output):
    """What the script's done() printed: one line of JSON after wrk's own words."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[len("RESULT "):])
    raise BenchError(f"wrk said nothing that can be read:\n{output}")


def version(*command):
    """The first line with a number in it of what a program says about itself."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        return str(error)
    for line in (said.stdout + said.stderr).splitlines():
        if re.search(r"\d", line):
            return line.strip()
    return "unknown"
