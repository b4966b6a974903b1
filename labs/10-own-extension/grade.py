#!/usr/bin/env python3
"""The black-box tests of lab 10: weir, built with the student's rules, between a client and a target that says what it was sent."""
import http.client
import http.server
import json
import os
import pathlib
import sys
import threading

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]
import blackbox


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with the fields that it was sent, as JSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        body = json.dumps({"fields": self.headers.items(), "body": sent}).encode()
        self.send_response(200)
        self.send_header("X-Inner", "secret")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ask(folder, request_rules, response_rules):
    """One POST through weir: (status, fields that the target saw, body that it saw, fields of the answer)."""
    os.environ["LAB_REQUEST_HEADERS"] = request_rules
    os.environ["LAB_RESPONSE_HEADERS"] = response_rules
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    weir = blackbox.Program(folder, "weir", "reverse", "--port", 0, "--bind", "127.0.0.1", "--endpoint", f"127.0.0.1:{server.server_port}")
    connection = http.client.HTTPConnection("127.0.0.1", weir.port, timeout=20)
    connection.request("POST", "/", body="hello", headers={"Cookie": "a=b", "X-Keep": "yes"})
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "backslashreplace")
    seen = json.loads(text) if answer.status == 200 else {"fields": [], "body": text}
    return answer.status, [tuple(field) for field in seen["fields"]], seen["body"], answer.getheaders()


@blackbox.test(4)
def the_target_gets_the_edited_head_and_the_whole_body(folder):
    status, fields, body, _ = ask(folder, "drop cookie | set X-Lab: 10", "")
    blackbox.check(status == 200 and body == "hello", f"status {status}, and the target read the body {body!r}")
    names = [name.lower() for name, _ in fields]
    blackbox.check("cookie" not in names, "the rules say drop cookie, and the target got one")
    blackbox.check(("X-Lab", "10") in fields and ("X-Keep", "yes") in fields, f"the rules say set X-Lab: 10, and the target got {fields}")


@blackbox.test(3)
def the_client_gets_the_edited_answer(folder):
    status, _, body, fields = ask(folder, "", "drop X-Inner | add X-Outer: fine")
    blackbox.check(status == 200 and body == "hello", f"status {status}, and the target read the body {body!r}")
    blackbox.check("x-inner" not in [name.lower() for name, _ in fields], "the rules say drop X-Inner, and the client got it")
    blackbox.check(("X-Outer", "fine") in fields, f"the rules say add X-Outer: fine, and the client got {fields}")


blackbox.main()
