#!/usr/bin/env python3
"""Plays the rows against weir, HAProxy and nginx, and writes the table of who does what.

    tests/system/conformance/page.py --bin DIR >docs/conformance.md

Every row is first played against weir as in the system tests; the page is written only if all come out as they must.
Then the others are played, each with as many services as there are lanes, configured as their manuals advise. Nobody
knows what they will say: their answers are read until the connection ends, or nothing comes for a while.
"""
import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))

import harness  # noqa: E402  pylint: disable=wrong-import-position
from conformance import play, tables  # noqa: E402  pylint: disable=wrong-import-position

LANES = 16
PATIENCE_S = 0.4        # without a byte: nothing more will come

HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    option http-keep-alive
    timeout connect 2s
    timeout client 2s
    timeout server 2s
    timeout http-request 2s
    timeout http-keep-alive 2s
    timeout tunnel 2s
"""
HAPROXY_LANE = """
frontend in{number}
    bind 127.0.0.1:{port}
    default_backend out{number}
backend out{number}
    server target {address}
"""
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
user {user};
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_header_timeout 2s;
    client_body_timeout 2s;
    keepalive_timeout 2s;
    proxy_read_timeout 2s;
    client_max_body_size 0;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
{lanes}
}}
"""
NGINX_LANE = """
    upstream out{number} {{ server {address} max_fails=0; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://out{number};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
"""


def _free_ports(count):
    """Free ports, all reserved until they are all known."""
    socks = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def _lanes(t):
    lanes = [play.Lane(t) for _ in range(LANES)]
    for lane, port in zip(lanes, _free_ports(LANES)):
        lane.port = port
    return lanes


def _await(t, lane):
    def answers():
        try:
            socket.create_connection(('127.0.0.1', lane.port), 1).close()
            return True
        except OSError:
            return False
    t.until(answers, 10, 'the proxy listens')


def start_haproxy(t):
    lanes = _lanes(t)
    parts = [HAPROXY_LANE.format(number=n, port=lane.port, address=lane.address) for n, lane in enumerate(lanes)]
    t.start_tool(t.tool('haproxy'), '-db', '-q', '-f', t.file('haproxy.cfg', HAPROXY + ''.join(parts)))
    _await(t, lanes[-1])
    return lanes


def start_nginx(t):
    lanes = _lanes(t)
    os.chmod(t.tmp, 0o755)
    parts = [NGINX_LANE.format(number=n, port=lane.port, address=lane.address) for n, lane in enumerate(lanes)]
    text = NGINX.format(folder=t.tmp, user='root' if os.geteuid() == 0 else 'nobody', lanes=''.join(parts))
    t.start_tool(t.tool('nginx'), '-p', t.tmp, '-e', t.tmp + '/nginx.log', '-c', t.file('nginx.conf', text))
    _await(t, lanes[-1])
    return lanes


# What is written

def _fields(message):
    """The fields of a request without regard to case and order, and without Connection, which is between neighbours."""
    pairs = [line.partition(':') for line in message.lines[1:]]
    return sorted((name.lower(), value.strip()) for name, _, value in pairs if name.lower() != 'connection')


def _difference(message, wanted):
    """How a forwarded request differs from the one that weir forwards, in few words; '' if it does not matter."""
    words = []
    if message.lines[0] != wanted.lines[0]:
        words.append(f'as {message.lines[0]}')
    ours, theirs = _fields(wanted), _fields(message)
    words += [f'without {name}: {value}' for name, value in ours if (name, value) not in theirs]
    words += [f'with {name}: {value}' for name, value in theirs if (name, value) not in ours]
    if message.body != wanted.body:
        words.append(f'a body of {len(message.body)}')
    return ', '.join(words)


def _count(messages, partial):
    if not messages:
        return 'begun, never whole' if partial else 'nothing'
    return f'{len(messages)} request{"s" if len(messages) > 1 else ""}' + (', one more begun' if partial else '')


def _squeezed(seen):
    """103 103 103 ... becomes 3 × 103."""
    return re.sub(r'\b(\d{3})(?: \1){3,}\b', lambda m: f'{len(m[0].split())} × {m[1]}', seen)


def told(row):
    """What weir does, as the row has it. Whether a request that is refused half-way had begun to be sent depends on how
    its bytes came."""
    what = _count(row.reaches, False) if row.reaches or not row.partial else 'nothing whole'
    return f'{_squeezed(row.sees)}; {what}'


def compared(row, lane, result):
    """What another proxy does: '=' where a client and a target see the same as of weir."""
    seen, messages, states, victim = result
    wanted = [message.with_address(lane.address) for message in row.reaches]
    words = []
    if str(seen) != row.sees:
        words.append(_squeezed(str(seen)))
    if len(messages) != len(wanted) or (('cut' in states) and not row.partial):
        words.append(_count(messages, 'cut' in states))
    words += [f'sent on {state}' for state in states if state.startswith('malformed')]
    words += [difference for difference in map(_difference, messages, wanted) if difference]
    finals = play.final_answers(seen)
    is_answered = row.body is not None and row.sees.startswith('200') and finals and finals[-1].status == 200
    if is_answered and finals[-1].body != row.body:
        words.append(f'another body of {len(finals[-1].body)}')
    if victim:
        words.append('the next client got ' + victim)
    return '; '.join(words).replace(lane.address, 'its address') or '='


def _cell(text):
    """Text in a cell of a table: printable, bounded, and nothing that Markdown would take for its own."""
    text = ''.join(c if c.isprintable() else '\\x%02x' % ord(c) for c in text)
    text = text if len(text) <= 130 else text[:127] + '...'
    for char in '\\`*_|<>[]~#$&':
        text = text.replace(char, '\\' + char)
    return text


def _version(tool):
    ran = subprocess.run([tool, '-v'], capture_output=True, text=True, check=False)
    return re.search(r'\d+\.\d+\.\d+\S*', ran.stdout + ran.stderr)[0]


def _play_others(t, start):
    """{(title, name): cell} of one of the others."""
    found = {}
    lanes = start(t)
    for title, rows in tables.TABLES:
        plain = [row for row in rows if row.settings == 'plain']

        def verdict(row, lane, title=title):
            found[title, row.name] = compared(row, lane, play.play(t, lane, row, PATIENCE_S))
        play.play_all(t, plain, lanes, verdict, seconds=600)
    return found


HEAD = """# Who does what with raw bytes

Written by `make conformance`; `make test` plays the same rows against weir, and checks that this page has them all.

{count} rows, each a few raw bytes that a client or a target sends, played against weir {weir}, HAProxy {haproxy} and
nginx {nginx} (the Debian packages), each in front of a target that records every byte. After each row another client
sends a plain request through the same service: if the row had left half a message behind, that client would have it.

weir's column is the rule: it is what the tests demand. It tells what the client sees (the statuses, and whether its
connection then is *open* or *closed*, or the answer *cut* short), and how many requests reached the target. `=` in
another column: the same there. Else what differs there: *waits* is a connection that stays open in silence, *out of
step* one on which the next request does not get its own answer, *with* and *without* are fields of the request that
was sent on, *sent on malformed* is what a strict reader at the target refuses. A dash: the row is about weir's own
settings, or its forward mode.

To differ is not to be wrong. nginx collects a whole body before it passes it on: it says 100 itself, and sends a
length where chunks came. Both let pass what the RFC permits to let pass, and HAProxy what it leaves to rules of the
user's. Where the RFC leaves a choice, the last column says what weir has chosen. How the two are configured stands in
`tests/system/conformance/page.py`.

## In sum

| table | rows | HAProxy does the same | nginx does the same |
|---|---|---|---|
"""


RFCS = 'RFC 9110 (semantics), 9112 (HTTP/1.1), 9113 (HTTP/2), 3986 (URIs), 6585, 6943, 8297, 9931, 1945; CVE ' \
       'entries by their number; and'


def page(weir_version, cells):
    lines = [HEAD.format(count=sum(len(rows) for _, rows in tables.TABLES), weir=weir_version,
        haproxy=_version('haproxy'),
                         nginx=_version(harness.Case.tool('nginx'))).rstrip('\n')]
    for title, rows in tables.TABLES:
        same = [sum(cells[name].get((title, row.name)) == '=' for row in rows) for name in ('haproxy', 'nginx')]
        played = sum(row.settings == 'plain' for row in rows)
        lines.append(f'| {title} | {len(rows)} | ' + ' | '.join(f'{n} of {played}' if played else '–'
            for n in same) + ' |')
    for title, rows in tables.TABLES:
        lines += ['', f'## {title}', '', '| row | weir | HAProxy | nginx | source, and choices |',
            '|---|---|---|---|---|']
        lines += [row_line(title, row, cells) for row in rows]
    lines += ['', '## Sources', '', RFCS, '']
    lines += [f'- {name}: {text}' for name, text in tables.SOURCES.items()]
    return '\n'.join(lines) + '\n'


def row_line(title, row, cells):
    others = [_cell(cells[name].get((title, row.name), '–')) for name in ('haproxy', 'nginx')]
    return '| ' + ' | '.join([own_cells(row), *others,
        _cell(row.source + (f': {row.note}' if row.note else ''))]) + ' |'


def own_cells(row):
    """The row's name and what weir does, as they stand in the page."""
    return f'{_cell(row.name)} | {_cell(told(row))}'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bin', required=True, help='directory of weir')
    options = parser.parse_args()
    tmp = tempfile.mkdtemp(prefix='weir-conformance-')
    t = harness.Case(os.path.abspath(options.bin), 1, tmp)
    try:
        for _, rows in tables.TABLES:
            play.check(t, rows)
        if t.complaints:
            sys.exit('weir does not do what the tables say:\n' + '\n'.join(map(str, t.complaints)))
        weir = t.run('--version').out.decode().split()[-1]
        cells = {'haproxy': _play_others(t, start_haproxy), 'nginx': _play_others(t, start_nginx)}
        sys.stdout.write(page(weir, cells))
    finally:
        t.finish()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == '__main__':
    main()
