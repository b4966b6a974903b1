#!/usr/bin/env python3
"""bench/failover.py: a target is killed under full load, and no client notices.

    wrk, 64 connections, 100,000 requests ──► weir ──► t1 t2 t3 t4 t5          when half are answered: kill -9 t3
                                                               x

wrk is a strict client: a connection that is reset or closed between requests is an error to it, and it repeats nothing.
What must hold, and is checked:
  - every request is answered, with 200; no connection is refused, broken or timed out
  - before the kill all five targets answer, in equal parts
  - after it the four that are left do, in equal parts; t3 answers nothing more once it is dead
  - started again, t3 is back in the rotation within seconds, without anybody's doing
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import ground
from ground import BenchError, Program

TARGETS = ["t1", "t2", "t3", "t4", "t5"]
VICTIM = "t3"
WRK_THREADS = 2
BACK_SECONDS = 30
UNEVEN = 0.05 # of a target's fair part: wrk's two threads reach their halves at slightly different moments


def target(binaries, name, port, folder):
    return Program(name, [os.path.join(binaries, "server_demo"), "--http", str(port), "--name", name], port, folder)


def read_progress(path, events):
    """Counts the words that wrk's threads write to the pipe. It is opened for writing too, so that it never ends."""
    with open(os.open(path, os.O_RDWR), encoding="ascii") as pipe:
        told = dict.fromkeys(events, 0)
        for line in pipe:
            told[line.strip()] += 1
            if told[line.strip()] == WRK_THREADS:
                events[line.strip()].set()
            if line.strip() == "done" and told["done"] == WRK_THREADS:
                return


def wait_for(event, process, deadline, what):
    while not event.wait(timeout=0.2):
        if process.poll() is not None:
            raise BenchError(f"wrk ended before {what}:\n{process.communicate()[0]}")
        if time.monotonic() > deadline:
            raise BenchError(f"{what} did not come in time")


def load_and_kill(options, weir, victim, folder):
    """Sends the requests, kills the victim when half are answered, and returns what wrk saw."""
    progress = os.path.join(folder, "progress")
    os.mkfifo(progress)
    events = {"half": threading.Event(), "done": threading.Event()}
    threading.Thread(target=read_progress, args=(progress, events), daemon=True).start()
    deadline = time.monotonic() + options.limit
    command = ground.wrk_command("failover.lua", weir.port, options.limit, options.connections)
    environment = dict(os.environ, PROGRESS=progress, REQUESTS=str(options.requests))
    started = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:
        try:
            wait_for(events["half"], process, deadline, "half of the answers")
            victim.kill()
            killed = time.monotonic()
            wait_for(events["done"], process, deadline, "the last answer")
            seconds = time.monotonic() - started
            process.send_signal(signal.SIGINT) # wrk sleeps until its time is over: this wakes it, and it prints
            output, _ = process.communicate(timeout=30)
        except BaseException:
            process.kill()
            raise
    print(f"{options.requests} requests in {seconds:.1f} s, {VICTIM} killed after {killed - started:.1f} s")
    return ground.wrk_result(output)


def check_even(counts, names, when, problems):
    fair = sum(counts.get(name, 0) for name in names) / len(names)
    for name in names:
        if abs(counts.get(name, 0) - fair) > fair * UNEVEN:
            problems.append(f"{when} the kill {name} answered {counts.get(name, 0)}, its part is {fair:.0f}")


def check(result, options):
    problems = []
    if result["answered"] < options.requests:
        problems.append(f"only {result['answered']} of {options.requests} requests were answered")
    if result["not_200"]:
        problems.append(f"{result['not_200']} answers were not 200")
    problems.extend(f"{count} {kind} errors" for kind, count in result["errors"].items() if count)
    check_even(result["before"], TARGETS, "before", problems)
    check_even(result["after"], [name for name in TARGETS if name != VICTIM], "after", problems)
    strangers = (set(result["before"]) | set(result["after"])) - set(TARGETS)
    problems.extend(f"answers from {name}" for name in sorted(strangers))
    return problems


def seconds_until_back(port):
    """Asks until the victim answers again."""
    started = time.monotonic()
    while time.monotonic() - started < BACK_SECONDS:
        status, headers, _ = ground.get(port)
        if status != 200:
            raise BenchError(f"an answer was {status} while {VICTIM} came back")
        if headers.get("X-Target") == VICTIM:
            return time.monotonic() - started
        time.sleep(0.02)
    raise BenchError(f"{VICTIM} was started again and got no request for {BACK_SECONDS} s")


def run(options, folder):
    ports = ground.free_ports(len(TARGETS) + 1)
    weir_port = ports.pop()
    with contextlib.ExitStack() as stack:
        targets = {name: stack.enter_context(target(options.bin, name, port, folder))
                   for name, port in zip(TARGETS, ports)}
        endpoints = ",".join(f"127.0.0.1:{port}" for port in ports)
        command = [os.path.join(options.bin, "weir"), "reverse", "--port", str(weir_port), "--endpoint", endpoints]
        weir = stack.enter_context(Program("weir", command, weir_port, folder))
        result = load_and_kill(options, weir, targets[VICTIM], folder)
        print(f"{'':14}" + "".join(f"{name:>9}" for name in TARGETS))
        for when in ("before", "after"):
            print(f"{when + ' the kill':14}" + "".join(f"{result[when].get(name, 0):>9}" for name in TARGETS))
        print(f"200: {result['answered'] - result['not_200']}, other answers: {result['not_200']}, "
              f"failed: {sum(result['errors'].values())} {result['errors']}")
        print(f"latency p50 {result['p50_us'] / 1000:.2f} ms, p99 {result['p99_us'] / 1000:.2f} ms, "
              f"worst {result['max_us'] / 1000:.2f} ms")
        problems = check(result, options)
        stack.enter_context(target(options.bin, VICTIM, targets[VICTIM].port, folder))
        print(f"{VICTIM} started again: back in the rotation after {seconds_until_back(weir_port):.1f} s")
    return problems


def main():
    parser = argparse.ArgumentParser(description="a target is killed under load")
    parser.add_argument("--bin", default=".", help="the folder of weir and server_demo")
    parser.add_argument("--requests", type=int, default=100000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--limit", type=int, default=120, help="seconds after which it is given up")
    options = parser.parse_args()
    ground.exit_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="weir-failover-") as folder:
            problems = run(options, folder)
    except BenchError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"bench/failover.py: {problem}", file=sys.stderr)
    print("failover: " + ("FAILED" if problems else "no client noticed"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
