#!/usr/bin/env python3
"""The black-box tests of lab 7: the message switch, built with the student's table, with real servers and clients.

What the exercise's own programs say is what counts: client_demo is given a message in a file, and checks that the hash which comes back is
that of its payload, and server_demo says which messages it received.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]
import blackbox


class Server:
    """A server_demo that has set itself up; received counts its messages."""

    def __init__(self, folder, weir, identity, policy):
        self.received = 0
        self._ready = threading.Event()
        self._last = ""
        self.process = subprocess.Popen(
            [os.path.join(folder, "server_demo"), "--id", str(identity), "--pp", str(policy), "--listen", "0", "--revproc", f"127.0.0.1:{weir.port}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(15):
            raise RuntimeError(f"server {identity} could not set itself up: {self._last}")

    def _read(self):
        for line in self.process.stdout:
            self._last = line.strip()
            self.received += line.startswith("Received a message")
            if line.startswith("Set up as"):
                self._ready.set()

    def kill(self):
        self.process.kill()
        self.process.wait()


def send(folder, weir, policy, payload="xyz"):
    """One message: (exit status, which server answered or None, everything that client_demo said)."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"type": 0, "srcid": 1, "privPoliId": policy, "payloadsize": len(payload), "payload": payload}, file)
        file.flush()
        client = subprocess.run([os.path.join(folder, "client_demo"), "--pkt", file.name, "--revproc", f"127.0.0.1:{weir.port}"],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=25, check=False)
    words = client.stdout.split("response from server id ")
    return client.returncode, int(words[1].split()[0]) if len(words) > 1 else None, (client.stdout + client.stderr).strip()


def switch(folder, *arguments):
    return blackbox.Program(folder, "weir", "packet", "--port", 0, "--bind", "127.0.0.1", *arguments)


@blackbox.test(5)
def four_servers_of_two_policies_serve_in_turn(folder):
    weir = switch(folder)
    servers = [Server(folder, weir, identity, policy) for identity, policy in ((100, 111), (101, 112), (102, 111), (103, 112))]
    del servers
    asked = [111, 112, 111, 111, 112, 112]
    right = [100, 101, 102, 100, 103, 101]
    got = []
    for policy in asked:
        status, server, said = send(folder, weir, policy)
        if not blackbox.check(status == 0, f"a message of policy {policy} came to nothing: {said}"):
            return
        got.append(server)
    blackbox.check(got == right, f"messages of the policies {asked} were answered by the servers {got}, and {right} is right")


@blackbox.test(4)
def a_killed_server_costs_no_message_and_comes_back(folder):
    weir = switch(folder, "--probe-interval", 60)
    first = Server(folder, weir, 100, 111)
    second = Server(folder, weir, 102, 111)
    first.kill()
    for i in range(4):
        status, server, said = send(folder, weir, 111)
        if not blackbox.check(status == 0 and server == 102, f"server 100 was killed; message {i + 1} was answered by {server}, status {status}: {said}"):
            return
    first = Server(folder, weir, 100, 111)
    got = [send(folder, weir, 111)[1] for _ in range(4)]
    blackbox.check(got.count(100) == 2, f"server 100 set itself up again; then the messages were answered by {got}, and two each is right")
    second.kill()


@blackbox.test(3)
def a_policy_that_nobody_serves_gets_an_error(folder):
    weir = switch(folder)
    server = Server(folder, weir, 100, 111)
    status, answered, said = send(folder, weir, 113)
    blackbox.check(status == 1 and answered is None and "no server for privacy policy 113" in said,
                   f"nobody serves policy 113, and client_demo says (status {status}): {said}")
    server.kill()


blackbox.main()
