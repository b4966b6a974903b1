#!/usr/bin/env python3
"""bench/packets.py: servers of the message switch are killed and revived under load, and no client loses an answer.

    32 connections, 100,000 packets ──► weir packet ──┬──► policy 111: servers 100 101 102
                                                      └──► policy 112: servers 200 201 202
                                                                x      kill -9, start again, the next one ...

Each packet has a payload of its own, so that an answer to another one would be noticed. One server after the other is
killed, while it works, and revived: in turn one that sets itself up again, and one that says nothing and has to be
found by a probe.
What must hold, and is checked:
  - every packet is answered, by a server of its policy, to its sender, with the SHA-1 of its payload
  - at least as many servers were killed and came back as --kills says
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import socket
import sys
import tempfile
import threading
import time

import ground
from ground import BenchError, Program

POLICIES = {111: [100, 101, 102], 112: [200, 201, 202]}
SERVERS = {server: policy for policy, servers in POLICIES.items() for server in servers}
BACK_SECONDS = 20


class Score:
    """What the clients have seen. Written by the clients' thread, read by the killer's: whole numbers only grow."""

    def __init__(self):
        self.answers = dict.fromkeys(SERVERS, 0)
        self.done = 0
        self.problems = []      # lost or wrong answers
        self.took = []
        self.over = threading.Event()


async def ask(streams, number, policy, payload):
    """One packet; what is wrong with its answer, or None, and who gave it."""
    reader, writer = streams
    message = {"type": "0", "srcid": number, "privPoliId": policy, "payloadsize": len(payload), "payload": payload}
    writer.write(json.dumps(message).encode())
    line = await reader.readline()
    if not line.endswith(b"\n"):
        return f"packet {number}: the connection was closed", None
    answer = json.loads(line)
    server = int(answer.get("srcid", 0))
    if str(answer.get("type")) != "2" or answer.get("destid") != number or SERVERS.get(server) != policy \
            or answer.get("payload") != hashlib.sha1(payload.encode()).hexdigest():
        return f"packet {number}: {answer}", None
    return None, server


async def client(port, numbers, score):
    streams = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        policy = 111 + number % 2
        payload = f"packet {number} " + "x" * (number * 7919 % 1500)
        begun = time.monotonic()
        problem, server = await ask(streams, number, policy, payload)
        score.took.append(time.monotonic() - begun)
        score.done += 1
        if problem:
            score.problems.append(problem)
        else:
            score.answers[server] += 1
    streams[1].close()


async def load(options, port, score):
    numbers = iter(range(1, options.packets + 1))   # drawn by whichever connection is free
    await asyncio.wait_for(asyncio.gather(*(client(port, numbers, score) for _ in range(options.connections))),
                           options.limit)


def run_load(options, port, score):
    try:
        asyncio.run(load(options, port, score))
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        score.problems.append(f"after {score.done} packets: {error!r}")
    finally:
        score.over.set()


class Deaf:
    """Takes set-ups and forgets them: a server that is revived behind it has to be found by a probe."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                self.listener.accept()[0].close()
            except OSError:
                return


def server(options, number, port, proxy_port, folder):
    command = [os.path.join(options.bin, "server_demo"), "-id", str(number), "-pp", str(SERVERS[number]),
               "-listen", str(port), "-revproc", f"127.0.0.1:{proxy_port}"]
    # What it prints of each message would fill the disk.
    return Program(f"server-{number}", ["sh", "-c", 'exec "$@" >/dev/null', "sh", *command], port, folder)


def wait_for(what, predicate, score):
    """True; False when the load is over."""
    deadline = time.monotonic() + BACK_SECONDS
    while not predicate():
        if score.over.wait(0.005):
            return False
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {BACK_SECONDS} s")
    return True


def kill_and_revive(options, stack, servers, weir_port, deaf_port, folder, score):
    """One server after the other, until the load is over. Returns how many came back, by set-up and by probe."""
    back = {"set-up": 0, "probe": 0}
    turns = itertools.cycle(zip(*POLICIES.values()))
    victims = itertools.chain.from_iterable(turns)
    for victim, way in zip(victims, itertools.cycle(["set-up", "probe", "probe", "set-up"])):
        mark = score.done
        servers[victim].kill()
        if not wait_for("answers while one is dead", lambda mark=mark: score.done > mark + options.pause, score):
            break
        proxy_port = weir_port if way == "set-up" else deaf_port
        servers[victim] = stack.enter_context(server(options, victim, servers[victim].port, proxy_port, folder))
        seen = score.answers[victim]
        if not wait_for(f"server {victim}'s return by {way}", lambda s=seen, v=victim: score.answers[v] > s, score):
            break
        back[way] += 1
    return back


def report(options, score, back, seconds):
    took = sorted(score.took)
    at = lambda permille: took[min(len(took) - 1, len(took) * permille // 1000)] * 1000 if took else 0
    print(f"{score.done} packets in {seconds:.1f} s ({score.done / seconds:.0f} a second), {options.connections} connections")
    print("answers: " + ", ".join(f"{server}: {count}" for server, count in score.answers.items()))
    print(f"killed and back: {back['set-up']} by a set-up, {back['probe']} by a probe")
    print(f"latency p50 {at(500):.2f} ms, p99 {at(990):.2f} ms, worst {at(1000):.2f} ms")
    print(f"lost or wrong answers: {len(score.problems) + max(0, options.packets - score.done)}")


def run(options, folder):
    ports = ground.free_ports(len(SERVERS) + 1)
    weir_port = ports.pop()
    score = Score()
    deaf = Deaf()
    with contextlib.ExitStack() as stack:
        command = [os.path.join(options.bin, "weir"), "packet", "--port", str(weir_port), "--bind", "127.0.0.1",
                   "--probe-interval", "0.1", "--log-level", "warn"]
        stack.enter_context(Program("weir", command, weir_port, folder))
        servers = {number: stack.enter_context(server(options, number, port, weir_port, folder))
                   for number, port in zip(SERVERS, ports)}
        loader = threading.Thread(target=run_load, args=(options, weir_port, score), daemon=True)
        begun = time.monotonic()
        loader.start()
        back = kill_and_revive(options, stack, servers, weir_port, deaf.port, folder, score)
        loader.join(options.limit)
        seconds = time.monotonic() - begun
    report(options, score, back, seconds)
    problems = score.problems[:10]
    if score.done < options.packets:
        problems.append(f"only {score.done} of {options.packets} packets were answered")
    if min(back.values()) < options.kills:
        problems.append(f"too few servers were killed and came back: {back}")
    return problems


def main():
    parser = argparse.ArgumentParser(description="servers of the message switch are killed under load")
    parser.add_argument("--bin", default=".", help="the folder of weir and server_demo")
    parser.add_argument("--packets", type=int, default=100000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--pause", type=int, default=500, help="answers between a kill and a revival")
    parser.add_argument("--kills", type=int, default=5, help="of each kind that there must have been at least")
    parser.add_argument("--limit", type=int, default=240, help="seconds after which it is given up")
    options = parser.parse_args()
    ground.exit_on_signals()
    try:
        with tempfile.TemporaryDirectory(prefix="weir-packets-") as folder:
            problems = run(options, folder)
    except BenchError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"bench/packets.py: {problem}", file=sys.stderr)
    print("packets: " + ("FAILED" if problems else "none lost, none wrong"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
