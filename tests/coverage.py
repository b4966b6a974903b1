#!/usr/bin/env python3
"""coverage.py: what the tests have run, as gcov counted it, and what of that has to be more.

    coverage.py --objects BUILD [--page docs/coverage.md]

Prints lines and branches for each file, worst first, and writes a page with the lines and branches of the road that no
test has run. The claims:

    the ideas (balancer.c, limiter.c, cluster.c, proxy.c)   every line and branch that can be reached
    the rest of a request's road                            90 % of the lines

What is left out stands in coverage.txt beside this script, with a reason: of an idea a line that no test runs, or runs one way
only, and that has no reason there ends this with 1, as does another file below 90 %. The lines of the others that no test runs are
on the page too, with their reason or as what has no test yet. A reason for what is run now is named. A file that is
compiled twice (into a test, with a calloc() that fails) counts as one.

gcov sees a branch in each condition, and in each part of one. A line is what stands between two newlines.
"""
import argparse
import collections
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REASONS = os.path.join(HERE, 'coverage.txt')

IDEAS = ('balancer.c', 'limiter.c', 'cluster.c', 'proxy.c')
ROAD = ('entrance.c', 'admit.c', 'stats.c', 'line.c', 'attempt.c', 'reverse.c', 'forward.c', 'parent.c', 'host_rates.c', 'service.c',
        'group.c', 'switch.c', 'switch_table.c', 'cluster_wire.c',
        'lib/access.c', 'lib/address.c', 'lib/admission.c', 'lib/answer.c', 'lib/auth.c', 'lib/body.c', 'lib/client_counts.c',
        'lib/client_limits.c', 'lib/conn.c', 'lib/crew.c', 'lib/cut.c', 'lib/destination.c', 'lib/exchange.c', 'lib/gossip.c',
        'lib/hosts.c', 'lib/hosts_limits.c', 'lib/hosts_name.c', 'lib/http.c', 'lib/http_date.c', 'lib/http_fields.c',
        'lib/http_target.c', 'lib/http_text.c', 'lib/listener.c', 'lib/log.c', 'lib/lookup.c', 'lib/network.c', 'lib/packet.c',
        'lib/probe.c', 'lib/proxy_header.c', 'lib/ratelimit.c', 'lib/redis_calls.c', 'lib/redis_keeper.c', 'lib/redis_line.c',
        'lib/redis_starts.c', 'lib/redis_store.c', 'lib/relay.c', 'lib/resolver.c', 'lib/rewrite.c',
        'lib/rules.c', 'lib/siphash.c', 'lib/tls.c', 'lib/tls_stream.c', 'lib/tunnel.c', 'lib/upstream.c', 'lib/wire.c')
ROAD_LINES = 90.0


class File:
    def __init__(self):
        self.lines = collections.Counter()      # number: how often
        self.branches = {}                      # number: how often each
        self.function = {}                      # number: in which

    def add(self, record):
        for line in record['lines']:
            number = line['line_number']
            self.lines[number] += line['count']
            self.function[number] = line.get('function_name', '')
            counts = [branch['count'] for branch in line['branches']]
            before = self.branches.get(number, [])
            if counts and len(counts) == len(before):
                counts = [a + b for a, b in zip(counts, before)]
            self.branches[number] = counts or before

    def run_lines(self):
        return sum(1 for count in self.lines.values() if count), len(self.lines)

    def run_branches(self):
        every = [count for counts in self.branches.values() for count in counts]
        return sum(1 for count in every if count), len(every)


def read_counters(objects):
    """{source: File}"""
    files = collections.defaultdict(File)
    found = [os.path.join(folder, name) for folder, _, names in os.walk(objects) for name in sorted(names) if name.endswith('.gcno')]
    for notes in found:
        told = subprocess.run(['gcov', '--json-format', '--stdout', '--branch-probabilities', notes], capture_output=True, text=True)
        for record in (json.loads(text) for text in told.stdout.splitlines() if text.startswith('{')):
            for file in record['files']:
                # By a path from the top, however the compiler was told of it.
                name = os.path.relpath(os.path.normpath(file['file']))
                if os.path.exists(name) and name.endswith('.c') and not name.startswith(('..', '/', 'tests/')):
                    files[name].add(file)
    return files


def read_reasons():
    """{(file, function, line): reason}. A reason is a paragraph that begins with '# '; the lines that it is for follow it."""
    reasons, reason, is_new = {}, '', True
    with open(REASONS) as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip('\n')
            if line.startswith('# '):
                reason, is_new = (line[2:] if is_new else f'{reason} {line[2:]}'), False
            elif line:
                is_new = True
                place, colon, text = line.partition(': ')
                if not reason or not colon or len(place.split()) != 2:
                    sys.exit(f'{REASONS}:{number}: "FILE FUNCTION: LINE" with a reason above it')
                reasons[(*place.split(), text)] = reason
    return reasons


def percent(run, of):
    return 100.0 * run / of if of else 100.0


def gaps_of(name, file, lines_alone=False):
    """Lines that were not run, and those with a branch that was not: [(number, function, text, what)]. With lines_alone the first
    only, and a function of which nothing was run is one line: "all of it"."""
    with open(name) as source:
        texts = [''] + [line.strip() for line in source]
    gaps, entered = [], {file.function[number] for number, count in file.lines.items() if count}
    for number in sorted(file.lines):
        if lines_alone and file.function[number] not in entered:
            gap = (number, file.function[number], 'all of it', 'not run')
            gaps += [] if gaps and gaps[-1][1:] == gap[1:] else [gap]
            continue
        branches = file.branches[number]
        if not file.lines[number]:
            gaps.append((number, file.function[number], texts[number], 'not run'))
        elif not all(branches) and not lines_alone:
            gaps.append((number, file.function[number], texts[number], f'{branches.count(0)} of {len(branches)} branches not taken'))
    return gaps


def table_of(name, gaps, reasons, heading):
    """The gaps of a file; one that stands in a function several times is told once."""
    rows = []
    for _, function, text, _ in gaps:
        reason = reasons.get((name, function, text), 'has no test yet')
        row = f'| `{function}` | `{text.replace("|", chr(92) + "|")}` | {reason} |'
        rows += [] if row in rows else [row]
    return [f'| In | the line | {heading} |', '|---|---|---|', *rows, ''] if rows else ['Nothing is left out.', '']


def write_page(path, gaps, below, reasons):
    """The page has no figures that change from run to run: those are what the program prints."""
    out = ['# What the tests do not run', '',
           'Written by `make coverage`, which builds weir with gcov\'s counters and runs the unit tests and the system tests on it. Four files are the',
           'ideas of weir: `balancer.c`, `limiter.c`, `cluster.c` and `proxy.c`. Of these every line and every branch is to be run; those that are not stand',
           f'here, each with a reason (`tests/coverage.txt`) or as what has no test yet. Of each other file on the road of a request {ROAD_LINES:.0f} % of the lines',
           'are to be run; the lines that are not stand here in the same way. Some of them are a matter of who comes first: they are run on one day and not',
           'on another. And many are for want of memory, of descriptors or of threads: `make faults`, which is not counted here, lets each call of weir\'s',
           'fail that its scenario reaches.', '']
    for name in IDEAS:
        out += [f'## {name}', '', *table_of(name, gaps[name], reasons, 'is not run, or not both ways')]
    out += ['## The rest of the road', '', f'Below {ROAD_LINES:.0f} %: ' + ', '.join(f'`{name}`' for name in sorted(below)) + '.' if below
            else f'No file is below {ROAD_LINES:.0f} %.', '']
    whole = [f'`{name}`' for name in ROAD if not gaps[name]]
    out += ['Of these every line is run: ' + ', '.join(whole) + '.', ''] if whole else []
    for name in ROAD:
        out += [f'### {name}', '', *table_of(name, gaps[name], reasons, 'is not run')] if gaps[name] else []
    with open(path + '.new', 'w') as page:
        page.write('\n'.join(out))
    os.replace(path + '.new', path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--objects', required=True)
    parser.add_argument('--page', default='docs/coverage.md')
    parser.add_argument('--gaps', action='append', default=[], metavar='FILE', help='show what of this file was not run, too')
    arguments = parser.parse_args()
    files, reasons = read_counters(arguments.objects), read_reasons()
    below = []
    breaches = [f'{name} was not counted at all' for name in (*IDEAS, *ROAD) if name not in files]
    for name, file in sorted(files.items(), key=lambda item: (percent(*item[1].run_lines()), item[0])):
        lines, branches = file.run_lines(), file.run_branches()
        kind = 'idea' if name in IDEAS else 'road' if name in ROAD else ''
        print(f'{percent(*lines):6.1f} % of {lines[1]:4} lines  {percent(*branches):6.1f} % of {branches[1]:4} branches  {name} {kind}')
        if kind == 'road' and percent(*lines) < ROAD_LINES:
            below.append(name)
            breaches.append(f'{name}: {percent(*lines):.1f} % of the lines, and not {ROAD_LINES:.0f} %')
        if name in arguments.gaps:
            for number, function, text, what in gaps_of(name, file):
                print(f'    {name}:{number}: {function}: {what}: {text}')
    used = set()
    gaps = {name: gaps_of(name, files[name], name in ROAD) if name in files else [] for name in (*IDEAS, *ROAD)}
    for name in (*IDEAS, *ROAD):
        for number, function, text, what in gaps[name]:
            key = (name, function, text)
            used.add(key)
            if key not in reasons and name in IDEAS:
                breaches.append(f'{name}:{number}: {what}, and no reason why: {name} {function}: {text}')
    for key in reasons:
        if key not in used:
            print(f'is run now, or has gone, and may leave coverage.txt: {key[0]} {key[1]}: {key[2]}')
    write_page(arguments.page, gaps, below, reasons)
    for breach in breaches:
        print(f'coverage: {breach}')
    return 1 if breaches else 0


sys.exit(main())
