#!/usr/bin/env python3
"""The black-box tests of lab 3: weir, built with the student's balancer, before three servers, one of which is killed.

What a client sees is what counts here: that nothing failed, whom the answers came from, and what is said when nobody is left. How often the
dead server was tried is read from weir's own metrics.
"""
import pathlib
import re
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]
import blackbox

NAMES = "ABC"


def start(folder, probe_interval):
    servers = {name: blackbox.Program(folder, "server_demo", "--http", 0, "--name", name) for name in NAMES}
    endpoint = ",".join(f"127.0.0.1:{server.port}" for server in servers.values())
    weir = blackbox.Program(folder, "weir", "reverse", "--port", 0, "--bind", "127.0.0.1", "--endpoint", endpoint, "--admin",
                            "127.0.0.1:0", "--probe-interval", probe_interval, ports=2)
    return servers, weir


def start_again(folder, name, port):
    """On its old port, which somebody's outgoing connection may have for a moment."""

    def try_it():
        try:
            return blackbox.Program(folder, "server_demo", "--http", port, "--name", name)
        except RuntimeError:
            return None

    server = blackbox.until(try_it, 10)
    if server is None:
        raise RuntimeError(f"server {name} did not start again on port {port}")
    return server


def failures_at(weir, port):
    metrics = blackbox.get(weir.ports[1], "/metrics")[2]
    found = re.search(rf'^weir_target_failures_total\{{[^}}]*:{port}"[^}}]*\}} (\d+)', metrics, re.M)
    return int(found[1]) if found else 0


@blackbox.test(6)
def a_server_killed_under_load_costs_no_request(folder):
    servers, weir = start(folder, 60)
    load = blackbox.Load(weir.port, 4)
    load.wait(100)
    servers["B"].kill()
    load.wait(400)
    answers = load.end()
    bad = [answer for answer in answers if answer[0] != 200]
    blackbox.check(not bad, f"{len(bad)} of {len(answers)} requests failed, the first with {bad[0][0] if bad else ''}")
    tried = failures_at(weir, servers["B"].port)
    # Each of the four clients may have had a request there, or have been given a turn there at that moment.
    if tried > 12:
        blackbox.partial(3, f"B was killed, and weir tried it {tried} times more: it stayed in the rotation")


@blackbox.test(4)
def it_takes_its_turns_again_when_it_is_back(folder):
    servers, weir = start(folder, 0.1)
    port = servers["B"].port
    servers["B"].kill()
    for _ in range(6):
        status, name, _ = blackbox.get(weir.port)
        blackbox.check(status == 200 and name in "AC", f"B is gone, and a request was answered {status} by {name or 'weir'}")
    start_again(folder, "B", port)
    back = blackbox.until(lambda: blackbox.get(weir.port)[1] == "B", 15)
    blackbox.check(back, "B was started again, and 15 s later had no turn yet: who plans its probes?")
    names = "".join(blackbox.get(weir.port)[1] for _ in range(6))
    if back and names not in "ABC" * 3:
        blackbox.partial(2, f"B is back; then the answers came from {names}, which is no rotation of A B C")


@blackbox.test(4)
def when_all_are_gone_the_client_hears_so_and_the_first_to_return_serves(folder):
    servers, weir = start(folder, 0.1)
    port = servers["C"].port
    for server in servers.values():
        server.kill()
    status, _, body = blackbox.get(weir.port)
    blackbox.check(status == 500 and "All servers is off" in body, f"all three are gone, and weir answered {status} {body[:60]!r}")
    start_again(folder, "C", port)
    blackbox.check(blackbox.until(lambda: blackbox.get(weir.port)[0] == 200, 15), "C was started again, and 15 s later nobody served")


blackbox.main()
