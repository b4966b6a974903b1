"""docs/cluster.md, "On the wire", is true: a node is made here from its tables alone, and takes part in a group of real ones. It asks
a master and is given starts, it takes a ring over, and as master it lets a request of the other node start.

A field that stood elsewhere than the page says would be read as another number, by us or by weir.
"""
import hashlib
import hmac
import os
import random
import re
import socket
import time

from harness import takes

PAGE = os.path.join(os.path.dirname(__file__), '../../docs/cluster.md')
SOURCE = os.path.join(os.path.dirname(__file__), '../../cluster_wire.c')
ITEMS = {'echoes[i].id': 'echo_id', 'echoes[i].challenge': 'echo_challenge', 'runs[i].in_us': 'run_in_us',
         'runs[i].count': 'run_starts', 'buckets[i]': 'bucket'}
KINDS = ('HEARTBEAT', 'LEAVE', 'DEMAND', 'GRANT', 'TAKEOVER', 'HANDOVER')
TAG_BYTES = 16
REPEATED = re.compile(r'(\w+) times, (\d+) bytes from one to the next')


class _Field:
    def __init__(self, at, size, name):
        self.at, self.size, self.name = at, size, name


class _Layout:
    """The fields of one table, and those that come several times."""

    def __init__(self, rows):
        self.fields, self.items, self.counter, self.step = [], [], None, 0
        for at, size, name, text in rows:
            match = REPEATED.search(text)
            if match:
                self.counter, self.step = match[1], int(match[2])
            (self.items if self.counter else self.fields).append(_Field(int(at), int(size), name))

    def end(self, count):
        if self.counter:
            return self.items[0].at + count * self.step
        return self.fields[-1].at + self.fields[-1].size if self.fields else 0

    def _put(self, out, field, shift, value):
        out[field.at + shift:field.at + shift + field.size] = value.to_bytes(field.size, 'big')

    def write(self, out, values, items=()):
        out.extend(bytes(max(0, self.end(len(items)) - len(out))))
        for field in self.fields:
            self._put(out, field, 0, len(items) if field.name == self.counter else values[field.name])
        for i, item in enumerate(items):
            for field, value in zip(self.items, item):
                self._put(out, field, i * self.step, value)

    def read(self, datagram):
        def get(field, shift=0):
            return int.from_bytes(datagram[field.at + shift:field.at + shift + field.size], 'big')
        values = {field.name: get(field) for field in self.fields}
        values['items'] = [tuple(get(field, i * self.step) for field in self.items)
                           for i in range(values.get(self.counter, 0))]
        return values


def _layouts():
    """{'': the head, 'HEARTBEAT': …} from the tables of the page, each under the last kind that was named above it."""
    rows, name, tables = {}, '', {}
    with open(PAGE, encoding='utf-8') as page:
        section = page.read().split('\n## On the wire\n')[1].split('\n## ')[0]
    for line in section.splitlines():
        named = re.findall(r'\b([A-Z]{5,})\b(?=:$| has nothing)', line)
        cells = [cell.strip() for cell in line.split('|')[1:-1]]
        if named and not cells:
            name = named[-1]
            for kind in named:
                rows[kind] = []
        elif len(cells) == 4 and cells[0].isdigit():
            rows.setdefault(name, []).append(cells)
    for kind, cells in rows.items():
        tables[kind] = _Layout(cells)
    return tables


def the_tables_of_the_page_leave_no_gap_and_name_every_kind(t):
    layouts = _layouts()
    t.equal(sorted(layouts), sorted(('', *KINDS)))
    for kind, layout in layouts.items():
        at = layouts[''].end(0) if kind else 0
        for field in layout.fields + layout.items:
            t.equal(field.at, at, f'{kind} {field.name}')
            at += field.size
        if layout.items:
            t.equal(layout.step, sum(field.size for field in layout.items), kind)


def the_tables_of_the_page_have_the_fields_of_cluster_wire_in_their_order(t):
    """Two numbers of one size that changed places would be misread in silence."""
    with open(SOURCE, encoding='utf-8') as file:
        source = file.read()
    layouts = _layouts()
    for kind in KINDS:
        body = re.search(r'static bool pass_%s\(.*?\n}\n' % kind.lower(), source, re.S)
        text = body[0] if body else source[source.index(f'case CLUSTER_{kind}:'):].split('return')[0]
        passed = [(re.sub(r'^\w+->(is\.\w+\.)?', '', name), int(size))
                  for name, size in re.findall(r'pass_(?:number|small)\(c, &([^,]+), (\d)\)', text)]
        written = [(field.name, field.size) for field in layouts[kind].fields + layouts[kind].items]
        t.equal([(ITEMS.get(name, name), size) for name, size in passed], written, kind)


class _Peer:
    """A node of the page. Whoever waits for something calls hear() again and again; that also sends its heartbeats."""

    def __init__(self, t, number, port, secret=None):
        self.t, self.number, self.port, self.secret = t, number, port, secret
        self.group = f'127.255.255.255:{port}'
        self.layouts = _layouts()
        chance = random.Random(number)
        self.incarnation, self.sequence, self.epoch, self.master = chance.getrandbits(64) | 1, 0, 0, 0
        self.challenge, self.echoes, self.others, self.sent_s = chance.getrandbits(64), {}, {}, 0
        self.shared = self._open(port)
        self.own = self._open(0)

    def _open(self, port):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.t.cleanup(sock.close)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(('', port))
        sock.setblocking(False)
        return sock

    def now_us(self):
        return time.monotonic_ns() // 1000

    def _tag(self, datagram):
        return hmac.digest(self.secret, bytes(datagram), 'sha256')[:TAG_BYTES] if self.secret else b''

    def say(self, kind, values, items=(), to=None):
        """to: the number of a node that was heard, None: everybody."""
        self.sequence += 1
        datagram = bytearray()
        self.layouts[''].write(datagram, {
            'magic': int.from_bytes(b'weir', 'big'), 'version': 1, 'kind': KINDS.index(kind) + 1,
            'group': int.from_bytes(hashlib.sha256(self.group.encode()).digest()[:8], 'big'), 'id': self.number,
            'incarnation': self.incarnation, 'to': self.others[to][0] if to else 0, 'sequence': self.sequence,
            'epoch': self.epoch})
        self.layouts[kind].write(datagram, values, items)
        address = self.others[to][1] if to else ('127.255.255.255', self.port)
        self.own.sendto(bytes(datagram) + self._tag(datagram), address)

    def beat(self, **values):
        self.sent_s = time.monotonic()
        self.say('HEARTBEAT', {'uptime_us': self.now_us(), 'master': self.master, 'flags': 0, 'threshold': 50,
                               'window_us': 1000000, 'group_size': 0, 'started_total': 0, 'waiting': 0,
                               'challenge': self.challenge, **values}, sorted(self.echoes.items()))

    def _read(self, datagram, address):
        body = datagram[:len(datagram) - TAG_BYTES] if self.secret else datagram
        head = self.layouts[''].read(body)
        kind = KINDS[head['kind'] - 1]
        if head['incarnation'] == self.incarnation:
            return None
        self.t.equal(datagram[len(body):], self._tag(body), 'the tag')
        message = {**head, **self.layouts[kind].read(body), 'kind': kind}
        if kind != 'LEAVE':
            self.t.equal(len(body), self.layouts[kind].end(len(message['items'])), f'the length of a {kind}')
        self.others[head['id']] = (head['incarnation'], address)
        self.epoch = max(self.epoch, head['epoch'])
        if kind == 'HEARTBEAT':
            self.echoes[head['id']] = message['challenge']
        return message

    def hear(self):
        """What has come, as a list. Says that it is here, ten times a second."""
        heard = []
        if time.monotonic() - self.sent_s >= 0.1:
            self.beat()
        for sock in (self.shared, self.own):
            while True:
                try:
                    heard.append(self._read(*sock.recvfrom(2000)))
                except BlockingIOError:
                    break
        return [message for message in heard if message]

    def until(self, kind, fits=lambda message: True, each=lambda: None, seconds=20):
        """The first message of a kind that fits."""
        found = []

        def look():
            each()
            found.extend(message for message in self.hear() if message['kind'] == kind and fits(message))
            return found
        return self.t.until(look, seconds, f'a {kind}')[0]

    def until_said(self, weir, pattern):
        """The peer must be there while weir comes to say something."""
        self.t.until(lambda: (self.hear(), re.search(pattern, weir.log.text()))[1], 20, pattern)


def _free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('0.0.0.0', 0))
        return sock.getsockname()[1]


@takes(60)
def a_node_made_from_the_page_is_given_starts(t):
    port = _free_udp_port()
    weir = t.weir(t.origin(), id=1, unicast=f'127.255.255.255:{port}', threshold=50)
    peer = _Peer(t, 7, port)
    peer.until_said(weir, 'node 7 came into the group')
    beat = peer.until('HEARTBEAT', lambda message: message['master'] == 1)
    t.equal((beat['id'], beat['threshold'], beat['window_us'], beat['flags'] & 1), (1, 50, 1000000, 0))
    t.check(0 < beat['uptime_us'] < 600e6, f'uptime {beat["uptime_us"]}')
    peer.until('HEARTBEAT', lambda message: message['items'] == [(7, peer.challenge)])
    given = 0
    asked = []

    def ask():
        if not asked or peer.now_us() - asked[-1] > 20000:
            asked.append(peer.now_us())
            peer.say('DEMAND', {'asked_us': asked[-1], 'last_grant': 0, 'waiting': 5 - given, 'used_total': 0, 'died_total': 0,
                                'late_us_total': 0, 'late_seen_us_total': 0, 'round_trip_us': 0}, to=1)
    grant = peer.until('GRANT', lambda message: message['items'], ask)
    t.check(grant['asked_us'] in asked, 'a grant says which demand it answers')
    t.check(6000 <= grant['late_us'] <= 100000 and grant['number'] >= 1, f'{grant}')
    given = sum(starts for _, starts in grant['items'])
    t.check(1 <= given <= 5, f'{given} starts for 5 that wait')
    t.check(all(in_us <= 50000 for in_us, _ in grant['items']), f'{grant["items"]}')
    peer.say('LEAVE', {})
    weir.wait_log('node 7 is gone from the group')


@takes(60)
def a_node_made_from_the_page_takes_over_and_gives(t):
    port, secret = _free_udp_port(), 'hush'
    weir = t.weir(t.origin(), id=5, unicast=f'127.255.255.255:{port}', threshold=50, backlog=10, cluster_secret=secret)
    weir.wait_log('node 5 is the master of the group')
    peer = _Peer(t, 1, port, secret.encode())
    peer.until_said(weir, 'node 1 came into the group')
    handover = peer.until('HANDOVER', each=lambda: peer.say('TAKEOVER', {'nonce': 77}, to=5))
    t.equal(handover['nonce'], 77)
    t.equal(sum(slots for slots, in handover['items']), 50, 'slots that are told of')
    t.check(handover['bucket_us'] >= 10000, f'buckets of {handover["bucket_us"]} us')
    peer.master = 1
    peer.epoch += 1
    peer.beat()
    peer.until_said(weir, 'node 1 is the master of the group')
    number, answers = 0, []
    client = t.client(weir)
    client.send(b'GET / HTTP/1.1\r\nHost: page\r\nConnection: close\r\n\r\n')

    def give():
        nonlocal number
        has_started = False
        for message in peer.hear():
            if message['kind'] == 'DEMAND':
                answers.append(message['waiting'])
                number += 1
                peer.say('GRANT', {'asked_us': message['asked_us'], 'number': number, 'late_us': 90000}, [(0, 1)], to=5)
            has_started |= message['kind'] == 'HEARTBEAT' and message['started_total'] >= 1
        return has_started
    t.until(give, 20, 'the request starts')
    t.equal(answers[0], 1, 'one request stands in line')
    t.equal(client.response().status, 200)


def a_node_that_finds_a_full_group_says_so_and_is_no_master_beside_it(t):
    port = _free_udp_port()
    peers = [_Peer(t, number, port) for number in range(1, 65)]
    weir = t.weir(t.origin(), id=100, unicast=f'127.255.255.255:{port}', threshold=50)

    def is_told():
        for peer in peers:
            if time.monotonic() - peer.sent_s >= 0.1:
                peer.beat()
        return 'node 100 is not let in: a group has at most 64 nodes' in weir.log.text()
    t.until(is_told, 20, 'it says that it is not let in')
    t.check('is the master' not in weir.log.text(), 'it is no master')
