"""What the labs' black-box graders (labs/NN-name/grade.py) have in common: the twin of grade.h for tests that run the real programs.

    import pathlib, sys
    sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]
    import blackbox

    @blackbox.test(6)
    def a_killed_target_costs_no_request(bin):
        ...
        blackbox.check(failed == 0, f"{failed} of {sent} requests failed")

    blackbox.main()

Each test runs in a process of its own, in a process group of its own, with a deadline (GRADE_SECONDS, 30 here): one that hangs costs its
own points, and whatever programs it started end with it.
"""

import argparse
import http.client
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

_tests = []
_lost = []  # in a test's process: (points left, text)
seed = 1


def test(points):
    """Marks a function of one argument, the folder with the programs, as a test. Its name, with blanks for underscores, is printed."""

    def mark(function):
        _tests.append((points, function))
        return function

    return mark


def fail(text):
    """This test gets no points."""
    _lost.append((0, text))


def partial(points, text):
    """This test gets no more than points."""
    _lost.append((points, text))


def check(holds, text):
    """fail(text) unless it holds. Returns holds."""
    if not holds:
        fail(text)
    return bool(holds)


class Program:
    """One of weir's programs, running. It is there when it has said on which ports it listens; at the end of the test it is killed."""

    def __init__(self, folder, name, *arguments, ports=1, seconds=10):
        self.name = name
        self._lines = []
        self._changed = threading.Condition()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WEIR_", "DPRL_"))}
        self.process = subprocess.Popen([os.path.join(folder, name), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=kept)
        threading.Thread(target=self._read, daemon=True).start()
        self.ports = self._wait(ports, seconds)
        self.port = self.ports[0]

    def _read(self):
        for raw in self.process.stdout:
            with self._changed:
                self._lines.append(raw.decode("utf-8", "backslashreplace").rstrip())
                self._changed.notify_all()
        with self._changed:
            self._lines.append(None)  # it has ended
            self._changed.notify_all()

    def _found(self):
        text = "\n".join(line for line in self._lines if line is not None)
        return [int(one or other) for one, other in re.findall(r"listens on (?:port |\S+:)(\d+)|API are at http://\S+:(\d+)/", text)]

    def _wait(self, ports, seconds):
        with self._changed:
            self._changed.wait_for(lambda: len(self._found()) >= ports or None in self._lines, seconds)
            if len(self._found()) < ports:
                raise RuntimeError(f"{self.name} did not start: " + " / ".join(str(line) for line in self._lines[-3:] if line))
            return self._found()

    def kill(self):
        self.process.kill()
        self.process.wait()


def get(port, path="/", seconds=10):
    """One request on a connection of its own: (status, X-Target or '', body as text)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Target") or "", answer.read().decode("utf-8", "backslashreplace")
    finally:
        connection.close()


def until(predicate, seconds):
    """Asks until it holds and returns its value; after so many seconds, whatever it says then."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        value = predicate()
        if value or time.monotonic() >= end:
            return value
        pause.wait(0.01)


class Load:
    """Clients that send requests without a pause, each on a connection that it keeps: answers is a list of (status or error, X-Target)."""

    def __init__(self, port, clients):
        self.answers = []
        self._changed = threading.Condition()
        self._is_over = False
        self._threads = [threading.Thread(target=self._ask, args=(port,), daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not self._is_over:
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                result = answer.status, answer.getheader("X-Target") or ""
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                result = type(error).__name__, ""
            with self._changed:
                self.answers.append(result)
                self._changed.notify_all()

    def wait(self, count, seconds=15):
        """Until there are so many more answers."""
        with self._changed:
            wanted = len(self.answers) + count
            if not self._changed.wait_for(lambda: len(self.answers) >= wanted, seconds):
                raise RuntimeError(f"no {count} answers within {seconds} s")

    def end(self):
        self._is_over = True
        for thread in self._threads:
            thread.join(15)
        return self.answers


def _run(function, folder, end):
    os.setpgid(0, 0)
    try:
        function(folder)
    except Exception as error:  # a test's own mistake, or a program that did not even start
        place = traceback.extract_tb(error.__traceback__)[-1]
        fail(f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})")
    end.send(_lost)


def _outcome(function, folder, seconds):
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_run, args=(function, folder, there))
    sys.stdout.flush()
    child.start()
    there.close()
    try:
        lost = here.recv() if here.poll(seconds) else [(0, f"no end after {seconds} s")]
    except EOFError:
        lost = [(0, "the test's process died")]
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
    child.join()
    return lost


def main():
    global seed
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default=".", help="the folder with weir, server_demo and client_demo")
    parser.add_argument("--list", action="store_true", help="print the tests and their points, run nothing")
    parser.add_argument("--only", default="", help="run the tests whose sentence has this in it")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    seed = arguments.seed
    seconds = int(os.environ.get("GRADE_SECONDS", "30"))
    score = full = 0
    for points, function in _tests:
        sentence = function.__name__.replace("_", " ")
        if arguments.only not in sentence:
            continue
        full += points
        if arguments.list:
            print(f"  {points}   {sentence}")
            continue
        lost = _outcome(function, arguments.bin, seconds)
        left = min([points] + [cap for cap, _ in lost])
        score += left
        print(f"  {left}/{points}   {sentence}")
        for _, text in lost:
            for line in text.splitlines():
                print(f"        {line}")
        sys.stdout.flush()
    if full == 0:
        print("no test")
        sys.exit(2)
    if not arguments.list:
        print(f"score {score}/{full}")
        sys.exit(0 if score == full else 1)
    sys.exit(0)
