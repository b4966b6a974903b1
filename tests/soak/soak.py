#!/usr/bin/env python3
"""A long day for weir in an hour: load, and meanwhile everything that can happen to it, again and again, from a seed.

    tests/soak/soak.py --bin DIR --traffic PROGRAM [--minutes N] [--rate N] [--seed N] [--slow-factor X]

                  ┌ clients ┐              ┌ main: solo (a threshold of its own), open (none), forward ┐            ┌ targets ┐
      traffic.c:  │ GET POST│ ───────────► │ node 1, node 2, node 3: one group, one threshold          │ ─────────► │ six     │
                  │ tunnels │              └ each a weir of its own                                    ┘            └─────────┘

    meanwhile     targets die (with resets or without) and come back; nodes 1 and 3 are killed, told to stop, stopped and let go on,
                  and started again; main and node 2, which live from the first minute to the last, read other settings (SIGHUP);
                  limits are changed by the API

What must hold, all the time:

    no request is lost that should not be     the rule is in clients.c, and one end of traffic.c knows what the other did
    nothing is mixed up                       each byte of each body follows from the number of its request, both ways
    no window is over its limit               of the group, and of solo under changing limits; by the kernel's stamps at the targets
    nothing grows                             at twenty moments the traffic rests: memory (PSS), descriptors and threads of main and node 2,
                                              the last fifth against the first
    nothing breaks                            no error in a log, exit code 0 on SIGTERM, no word from a sanitizer

A line every minute, then a summary; exit code 0 only if all of it held.
"""
import argparse
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'system'))

import contract  # noqa: E402  pylint: disable=wrong-import-position
from admin import Admin  # noqa: E402  pylint: disable=wrong-import-position
from harness import Case, Weir  # noqa: E402  pylint: disable=wrong-import-position

GROUP, SOLO, OPEN, FORWARD = range(4)
TARGETS = 6
FILLS = 6
CONNECTIONS = 100       # that clients have at one place, at most: CONNECTIONS_MAX in clients.c
RESTS = 20
SETTLED_S = 20          # a target that came back so long ago is in the rotation again, whatever its probes met
MEMORY_FACTOR, MEMORY_SLACK_KB = 1.10, 16384     # a leak of 4 bytes a request is more, in an hour
DESCRIPTOR_SLACK, THREAD_SLACK = 40, 24     # idle connections to targets, threads that wait: what a peak of the load leaves
CHURNING = (1, 3)       # nodes of the group that come and go


class Traffic:
    """The program that is both ends."""

    def __init__(self, program, seed, deadline_s):
        self.deadline_s = deadline_s
        self.process = subprocess.Popen([program, str(seed), str(TARGETS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=None)
        self.ports = [int(port) for port in self._line().split()[1:]]

    def _line(self):
        if not select.select([self.process.stdout], [], [], self.deadline_s)[0]:
            raise AssertionError(f'the traffic said nothing for {self.deadline_s:g} s')
        return self.process.stdout.readline().decode().strip()

    def say(self, *words):
        self.process.stdin.write((' '.join(map(str, words)) + '\n').encode())
        self.process.stdin.flush()
        answer = self._line()
        assert answer.startswith('ok'), f'{words}: {answer!r}'
        return answer

    def report(self):
        counts = {}
        for word in self.say('report').split()[1:]:
            key, value = word.split('=')
            answered, _, asked = value.partition('/')
            counts[key] = int(answered)
            if asked:
                counts[key + '_asked'] = int(asked)
        return counts


class Soak:
    def __init__(self, t, options):
        self.t, self.options = t, options
        self.random = random.Random(options.seed)
        self.traffic = Traffic(options.traffic, options.seed, t.s(150))
        self.rate = options.rate
        self.threshold = max(20, int(self.rate * 0.3))
        self.group = f'127.255.255.255:{self._free_udp_port()}'
        self.dead = {}              # target -> when it comes back
        self.up_since = [time.monotonic() - SETTLED_S] * TARGETS
        self.nodes = {}             # id -> Weir
        self.absent = {}            # id -> when it starts again
        self.paused = {}            # id -> when it goes on
        self.limit = self.rate      # of solo, now
        self.fates = []             # of the nodes that come and go, until all have been had
        self.events = {}
        self.samples = []           # of main and node 2, at each rest
        self.problems = []

    @staticmethod
    def _free_udp_port():
        import socket
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(('0.0.0.0', 0))
            return sock.getsockname()[1]

    def count(self, event):
        self.events[event] = self.events.get(event, 0) + 1

    # Settings, one of many that are right

    def endpoints(self):
        """In some order, with some weights; sometimes one target is left out."""
        targets = [f'127.0.0.1:{port}' for port in self.traffic.ports]
        self.random.shuffle(targets)
        if self.random.random() < 0.4:
            targets.pop()
        return ','.join(target + self.random.choice(['', '', '*2']) for target in targets)

    def common(self):
        pick = self.random.choice
        return (f'endpoint = {self.endpoints()}\nqueue = {pick(["fifo", "fair"])}\nbalance = {pick(["roundrobin", "leastconn"])}\n'
                f'max_header = {pick([32768, 65536])}\nforwarded = {pick(["append", "off"])}\n')

    def main_file(self):
        rest = 'reject_status = 429\nidle_timeout = 30\ndrain_timeout = 30\nport = 0\nbind = 127.0.0.1\n'
        return (f'[globals]\nadmin = 0\nlog_level = {self.random.choice(["info", "warn"]) if self.nodes else "info"}\n'
                f'[solo]\nhostname = soak\n{rest}{self.common()}threshold = {self.rate}\nbacklog = {self.random.choice([0, 0.1])}\n'
                f'[open]\nhostname = soak\n{rest}{self.common()}'
                f'[forward]\nhostname = soak\nmode = forward\n{rest}connect_allow = 127.0.0.0/8:*\nmax_connections = 200\n')

    def node_file(self, number):
        return (f'[globals]\nadmin = 0\n[group]\nid = {number}\nunicast = {self.group}\nthreshold = {self.threshold}\nbacklog = 0.2\n'
                f'reject_status = 429\nidle_timeout = 30\ndrain_timeout = 30\nport = 0\nbind = 127.0.0.1\ncluster_secret = hush\n'
                f'{self.common()}')

    # The cast

    def start_main(self):
        path = self.t.file('main.ini', self.main_file())
        self.main = Weir(self.t, ['-c', path, '--node', 'solo', '--node', 'open', '--node', 'forward'], services=3, start_s=30)
        self.admin = Admin(self.t, self.main)
        ports = {service['name']: service['port'] for service in self.admin.status()['services']}
        self.traffic.say('limit', SOLO, self.rate)
        for index, name in ((SOLO, 'solo'), (OPEN, 'open'), (FORWARD, 'forward')):
            self.traffic.say('place', 4 + index, index, ports[name])

    def start_node(self, number):
        path = self.t.file(f'node{number}.ini', self.node_file(number))
        self.nodes[number] = Weir(self.t, ['-c', path, '--node', 'group'], start_s=30)
        self.traffic.say('place', number, GROUP, self.nodes[number].port)

    def start(self):
        self.traffic.say('limit', GROUP, self.threshold)
        self.start_main()
        for number in (1, 2, 3):
            self.start_node(number)
        for service, share in ((GROUP, 0.33), (SOLO, 0.25), (OPEN, 0.3), (FORWARD, 0.12)):
            self.traffic.say('rate', service, int(self.rate * share))

    def fill(self):
        """Every connection that the traffic may have is busy at once, with large bodies, under each max_header: what such a peak leaves
        behind (threads that wait, memory of requests that is kept) is there from the start, and no growth."""
        self.traffic.say('large', 1)
        for _ in range(FILLS):
            for weir, places in ((self.main, (5, 6, 7)), (self.nodes[2], (2,))):
                weir.signal(signal.SIGSTOP)
                self.t.until(lambda p=places: self.are_busy(p), 60, 'all connections are busy')
                weir.signal(signal.SIGCONT)
                self.reload(weir)
        self.traffic.say('large', 0)

    def are_busy(self, places):
        report = self.traffic.report()
        return all(report[f'busy{place}'] >= CONNECTIONS for place in places)

    # What happens

    def kill_target(self):
        """Only while two others are settled: one may be out of the settings."""
        now = time.monotonic()
        alive = [i for i in range(TARGETS) if i not in self.dead]
        settled = [i for i in alive if now - self.up_since[i] >= SETTLED_S]
        victim = self.random.choice(alive)
        if len([i for i in settled if i != victim]) < 2:
            return
        self.traffic.say('kill', victim, self.random.choice(['hard', 'soft']))
        self.dead[victim] = now + self.random.uniform(0.2, 6)
        self.count('targets killed')

    def change_limits(self):
        if self.random.random() < 0.4:
            limit = self.random.choice([30, 60, 200])
            self.put({'service': 'forward', 'hosts': {f'127.0.0.1:{self.random.choice(self.traffic.ports)}': limit}})
            return
        limit = self.random.choice([self.rate // 10, self.rate // 5, self.rate, self.rate])
        if limit >= self.limit:
            self.traffic.say('limit', SOLO, limit)
        self.put({'service': 'solo', 'threshold': limit})
        if limit < self.limit:
            self.traffic.say('limit', SOLO, limit)
        self.limit = limit

    def put(self, value):
        response = self.admin.put('/api/limits', value)
        if response.status != 200:
            self.problems.append(f'PUT {value}: {response}')
        self.count('limits changed by the API')

    def reload(self, weir=None):
        weir = weir or self.random.choice([self.main, *(node for number, node in self.nodes.items() if number not in self.paused)])
        if weir is self.main:
            self.t.file('main.ini', self.main_file())
            self.traffic.say('limit', SOLO, self.rate)      # the file rules again
            self.limit = self.rate
        else:
            number = next(number for number, node in self.nodes.items() if node is weir)
            self.t.file(f'node{number}.ini', self.node_file(number))
        weir.signal(signal.SIGHUP)
        self.count('reloads')

    def churn(self):
        free = [n for n in CHURNING if n in self.nodes and n not in self.paused]
        if not free:
            return
        if not self.fates:
            self.fates = self.random.sample(['kill', 'stop', 'pause'], 3)
        number, how = self.random.choice(free), self.fates.pop()
        node = self.nodes[number]
        if how == 'pause':
            node.signal(signal.SIGSTOP)
            self.paused[number] = time.monotonic() + self.random.uniform(0.2, 3)
            self.count('nodes paused')
            return
        del self.nodes[number]
        if how == 'kill':
            self.traffic.say('killed', number)
            node.signal(signal.SIGKILL)
            node.wait_exit()
            self.count('nodes killed')
        else:
            self.traffic.say('draining', number)
            node.stop(60)
            self.count('nodes stopped')
        self.look_at_log(node)
        self.t.programs.remove(node)
        self.absent[number] = time.monotonic() + self.random.uniform(0.2, 6)

    def change_pace(self):
        """The group is asked for less than its threshold, and for more."""
        self.traffic.say('rate', GROUP, int(self.rate * self.random.uniform(0.2, 0.4)))

    def due(self):
        """What was put off."""
        now = time.monotonic()
        for target in [i for i, when in self.dead.items() if when <= now]:
            del self.dead[target]
            self.up_since[target] = now
            self.traffic.say('revive', target)
        for number in [n for n, when in self.paused.items() if when <= now]:
            del self.paused[number]
            self.nodes[number].signal(signal.SIGCONT)
        for number in [n for n, when in self.absent.items() if when <= now]:
            del self.absent[number]
            self.start_node(number)

    def look_at_log(self, weir):
        for line in weir.log.lines:
            if re.search(r'^\S+ \S*\s*error ', line):
                self.problems.append(f'an error in a log: {line[:300]}')
        if contract.SANITIZER.search(weir.log.text()):
            self.problems.append('a sanitizer spoke')

    # Rest

    def sample(self, weir):
        with open(f'/proc/{weir.pid}/smaps_rollup', encoding='ascii') as file:
            memory = dict(re.findall(r'^(Rss|Pss):\s+(\d+)', file.read(), re.M))
        return {'pss_kb': int(memory['Pss']), 'rss_kb': int(memory['Rss']), 'threads': weir.status('Threads'),
                'descriptors': len(os.listdir(f'/proc/{weir.pid}/fd'))}

    def rest(self):
        """All clients gone, then until nothing changes any more."""
        for number in list(self.paused):
            self.paused[number] = 0
        self.due()
        self.traffic.say('rest')
        before, end = None, time.monotonic() + self.t.s(6)
        while time.monotonic() < end:
            time.sleep(0.5)         # there is no event for "nothing more happens"
            now = [self.sample(weir) for weir in (self.main, self.nodes[2])]
            counts = [(s['threads'], s['descriptors']) for s in now]
            if before == counts:
                break
            before = counts
        self.samples.append(now)
        self.traffic.say('go')

    # The run

    def run(self):
        if not self.t.sanitized:
            self.fill()
        begun = time.monotonic()
        end = begun + self.options.minutes * 60
        rest_every = max(15 if self.t.sanitized else 0, self.options.minutes * 60 / RESTS)
        next_rest, next_line, next_event = begun + rest_every, begun + 60, begun + 1
        happenings = [self.kill_target] * 6 + [self.change_limits] * 3 + [self.reload] * 2 + [self.churn] * 3 + [self.change_pace]
        deck = []                   # a hand of each kind, shuffled; then the next
        while time.monotonic() < end:
            self.due()
            now = time.monotonic()
            if now >= next_event:
                deck = deck or self.random.sample(happenings, len(happenings))
                deck.pop()()
                next_event = now + self.random.uniform(0.2, 1.8)
            if now >= next_rest:
                self.rest()
                next_rest = time.monotonic() + rest_every
            if now >= next_line:
                self.tell(f'minute {round((now - begun) / 60)}')
                next_line += 60
            time.sleep(0.02)        # this is the timetable: it waits for moments, not for events

    def tell(self, when):
        c = self.traffic.report()
        latest = self.samples[-1] if self.samples else [self.sample(self.main), self.sample(self.nodes[2])]
        figures = ', '.join(f'{name} {s["pss_kb"] / 1024:.1f} MB {s["threads"]} threads {s["descriptors"]} fds'
                            for name, s in zip(('main', 'node 2'), latest))
        print(f'{when}: GET {c["get"]}/{c["get_asked"]} POST {c["post"]}/{c["post_asked"]} tunnels {c["tunnel"]}/{c["tunnel_asked"]} '
              f'refused {c["refused"]} cut {c["cut"]} failed {c["failed"]} gone {c["gone"]} moved {c["moved"]} skipped {c["skipped"]} '
              f'LOST {c["lost"]} WRONG {c["wrong"]} | fullest window of the group {c["group_fullest"]} of {self.threshold} | '
              f'at rest: {figures}', flush=True)
        return c

    def judge_growth(self):
        """What has grown for good is in every sample of the last fifth; a peak of the load just before one is not."""
        fifth = max(1, len(self.samples) // 5)
        for index, name in ((0, 'main'), (1, 'node 2')):
            first, last = ([s[index] for s in part] for part in (self.samples[:fifth], self.samples[-fifth:]))
            for key, allowed in (('pss_kb', lambda x: x * MEMORY_FACTOR + MEMORY_SLACK_KB), ('rss_kb', None),
                                 ('descriptors', lambda x: x + DESCRIPTOR_SLACK), ('threads', lambda x: x + THREAD_SLACK)):
                was, became = max(s[key] for s in first), min(s[key] for s in last)
                print(f'  {name:6} {key:11} first fifth {min(s[key] for s in first)} to {was}, '
                      f'last fifth {became} to {max(s[key] for s in last)}')
                if allowed and became > allowed(was) and not self.t.sanitized:     # a sanitizer has its own idea of memory, and of time
                    self.problems.append(f'{name}: {key} grew from {was} to {became}')

    def judge(self):
        print(f'soak: {self.options.minutes:g} minutes, {self.rate} requests/s, seed {self.options.seed}; '
              + ', '.join(f'{what}: {number}' for what, number in sorted(self.events.items())))
        c = self.tell('in all')
        for key in ('lost', 'wrong', 'group_breaches', 'solo_breaches'):
            if c[key]:
                self.problems.append(f'{key}: {c[key]}')
        if self.options.minutes >= 1:
            happened = ('targets killed', 'reloads', 'limits changed by the API', 'nodes killed', 'nodes stopped', 'nodes paused')
            self.problems += [f'never happened: {what}' for what in happened if not self.events.get(what)]
        for kind in ('get', 'post', 'tunnel'):
            if c[kind] < 0.5 * c[kind + '_asked']:
                self.problems.append(f'less than half of each {kind} was answered')
        self.judge_growth()

    def stop(self):
        self.traffic.say('rest')
        for number in list(self.paused):
            self.nodes[number].signal(signal.SIGCONT)
        for weir in (self.main, *self.nodes.values()):
            weir.stop(60)
            self.look_at_log(weir)
        self.traffic.say('quit')
        if self.traffic.process.wait(self.t.s(10)) != 0:
            self.problems.append('the traffic has something to complain of: see above')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bin', required=True)
    parser.add_argument('--traffic', required=True)
    parser.add_argument('--minutes', type=float, default=5)
    parser.add_argument('--rate', type=int, default=1000, help='requests a second, over all')
    parser.add_argument('--seed', type=int, default=None)
    parser.add_argument('--slow-factor', type=float, default=1.0)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 31)
    print(f'soak: seed {options.seed}', flush=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tmp = tempfile.mkdtemp(prefix='weir-soak-')
    t = Case(os.path.abspath(options.bin), options.slow_factor, tmp)
    soak = Soak(t, options)
    try:
        soak.start()
        soak.run()
        soak.rest()
        soak.judge()
        soak.stop()
    except Exception as error:      # pylint: disable=broad-except
        soak.problems.append(repr(error))
    finally:
        soak.traffic.process.kill()
        t.finish()
        shutil.rmtree(tmp, ignore_errors=True)
    soak.problems += [str(complaint) for complaint in t.complaints]
    for problem in soak.problems:
        print(f'soak: {problem}')
    print('soak: ' + ('FAILED' if soak.problems else 'all of it held'))
    return 1 if soak.problems else 0


if __name__ == '__main__':
    sys.exit(main())
