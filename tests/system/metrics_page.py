#!/usr/bin/env python3
"""docs/metrics.md, from a running weir.

    tests/system/metrics_page.py --bin DIR        writes the tables of the page anew, between its marks

A weir with a service of each mode is asked for /metrics after something has happened to each. What a family is called, its type and what it
means is what weir says there; its labels are those that its samples have. So the page has no list of its own that could be forgotten: a
family that no heading claims, one that has no sample, and a heading that has no family end this with an error.
"""
import argparse
import os
import re
import shutil
import socket
import sys
import tempfile

sys.dont_write_bytecode = True

import harness                  # noqa: E402  pylint: disable=wrong-import-position
from admin import Admin         # noqa: E402  pylint: disable=wrong-import-position
from client import request      # noqa: E402  pylint: disable=wrong-import-position

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../docs/metrics.md')
BEGIN, END = '<!-- families: written by make docs -->', '<!-- end -->'
HEADINGS = [
    ('Requests', r'weir_(requests|answered_here|connections_open)'),
    ('Limits', r'weir_(limit_|starts|refused|shadowed|queue_l|client_keys)'),
    ('Times', r'weir_(request|upstream)_duration|weir_queue_wait'),
    ('Targets', r'weir_target_'),
    ('Hosts of a forward proxy, and Redis', r'weir_(host|store)_'),
    ('Group', r'weir_cluster_'),
    ('The process', r'weir_(build|draining|config)|process_'),
]
SETTINGS = '''
[globals]
admin = 0
[web]
port = 0
endpoint = {origin}
id = 1
unicast = 127.255.255.255:{group}
threshold = 10
[out]
mode = forward
port = 0
connect_allow = *:*, 127.0.0.0/8:*
max_connections = 5
host_rate = 5
redis_addr = 127.0.0.1:{nobody}
redis_fail = open
[switch]
mode = packet
port = 0
'''


def scrape(t):
    """What /metrics says when each service has done something."""
    origin, server = t.origin(), socket.create_server(('127.0.0.1', 0))
    t.cleanup(server.close)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('127.0.0.1', 0))
        group = sock.getsockname()[1]
    weir, _ = t.weir_of_file(SETTINGS.format(origin=origin.address, group=group, nobody=t.free_port()), services=3)
    port = {name: int(weir.wait_log(rf'\b{name}: .*listens on .*port=(\d+)')[1]) for name in ('web', 'out', 'switch')}
    admin = Admin(t, weir)
    t.until(lambda: _ask(t, port['web'], request()) == 429, what='a refusal')           # a new group starts nothing at first
    t.until(lambda: _ask(t, port['out'], request(target=f'http://{origin.address}/', host=origin.address)) == 200, what='an answer')
    with socket.create_connection(('127.0.0.1', port['switch'])) as registration:
        registration.sendall(b'{"type": 1, "id": 1, "privPolyId": 111, "listenport": %d}' % server.getsockname()[1])
        t.until(lambda: len(admin.service('switch')['targets']) == 1, what='a server of the switch')
    return admin.ask('GET', '/metrics').body.decode()


def _ask(t, port, bytes_of_request):
    client = harness.Client(port, t.s(10))
    try:
        client.send(bytes_of_request)
        return client.response().status
    finally:
        client.close()


def families(text):
    """[(name, type, help, labels)] in the order in which weir says them."""
    helps = dict(re.findall(r'^# HELP (\S+) (.*)$', text, re.M))
    labels = {}
    for name, inside in re.findall(r'^([a-z_]+)(?:\{(.*)\})? \S+$', text, re.M):
        owner = name if name in helps else re.sub(r'_(bucket|sum|count)$', '', name)
        known = labels.setdefault(owner, [])
        known += [label for label in re.findall(r'([a-z]+)="(?:[^"\\]|\\.)*"', inside) if label not in known + ['le']]
    return [(name, kind, helps[name], labels.get(name)) for name, kind in re.findall(r'^# TYPE (\S+) (\S+)$', text, re.M)]


def tables(text):
    """The lines between the marks."""
    lines, left = [], families(text)
    without = [name for name, _, _, labels in left if labels is None]
    if without:
        raise ValueError(f'no sample of {", ".join(without)}: scrape() must make one happen')
    for title, pattern in HEADINGS:
        rows = [family for family in left if re.match(pattern, family[0])]
        left = [family for family in left if family not in rows]
        if not rows:
            raise ValueError(f'there is no family for the heading "{title}"')
        lines += ['', f'### {title}', '', '| metric | what it is |', '|---|---|']
        for name, kind, says, labels in rows:
            by = ' by ' + ' and '.join(f'`{label}`' for label in labels) if labels else ''
            lines.append(f'| `{name}` | *{kind}{by}:* {says} |')
    if left:
        raise ValueError(f'no heading claims {", ".join(family[0] for family in left)}')
    return lines + ['']


def filled(page, text):
    before, rest = page.split(BEGIN + '\n')
    return before + BEGIN + '\n' + '\n'.join(tables(text)) + '\n' + END + rest.split(END)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bin', required=True, help='directory of weir')
    options = parser.parse_args()
    tmp = tempfile.mkdtemp(prefix='weir-metrics-')
    t = harness.Case(os.path.abspath(options.bin), 1, tmp)
    try:
        with open(PAGE, encoding='utf-8') as file:
            old = file.read()
        new = filled(old, scrape(t))
        if new != old:
            with open(PAGE, 'w', encoding='utf-8') as file:
                file.write(new)
    finally:
        t.finish()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == '__main__':
    main()
