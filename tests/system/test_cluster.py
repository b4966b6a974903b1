"""A group of nodes on one machine: processes that find each other by a broadcast to 127.255.255.255, share one threshold,
and lose, pause and mistake each other. What reaches the target is stamped there by the kernel (bench/arrivals.c): however
the group fares, no window of one second may hold more than the threshold.

In namespaces of their own, on a network that breaks: test_cluster_network.py. Thousands of hours of it: tests/sim.
"""
import contextlib
import os
import random
import re
import signal
import socket
import struct
import threading
import time

from arrivals import WINDOW_NS, Arrivals, Load, fullest
from harness import Weir, takes

MASTER = r'node {} is the master of the group'
CAME = r'node {} came into the group'
GONE = r'node {} is gone from the group'
DROPPED = r'dropped \d+ datagrams of the group'


def _free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(('0.0.0.0', 0))
        return sock.getsockname()[1]


def _group():
    return f'127.255.255.255:{_free_udp_port()}'


def _nodes(t, target, ids, **settings):
    """One process each, in this order."""
    if not {'multicast', 'peers'} & set(settings):
        settings.setdefault('unicast', _group())
    return [t.weir(target, id=number, **settings) for number in ids]


def _all_follow(nodes, number, seconds=10):
    for node in nodes:
        node.wait_log(MASTER.format(number), seconds)


def _serves(t, *nodes):
    """A new group starts nothing for a window: it might have been there before."""
    for node in nodes:
        t.until(lambda node=node: t.get(node).status == 200, 20, 'a node of the group serves')


def _grows(t, load, by, seconds, what, index=None):
    before = load.served(index)
    t.until(lambda: load.served(index) >= before + by, seconds, what)


def _check_window(t, arrivals, threshold):
    times = arrivals.times()
    t.check(fullest(times) <= threshold, f'{fullest(times)} arrivals in a second, threshold {threshold}')
    return times


# Who is there

def nodes_find_each_other_and_the_lowest_id_is_the_master(t):
    nodes = _nodes(t, t.origin(), (3, 1, 2), threshold=50)
    _all_follow(nodes, 1)
    for node, others in zip(nodes, ((1, 2), (3, 2), (3, 1))):
        for other in others:
            node.wait_log(CAME.format(other))
    _serves(t, nodes[0])
    nodes[1].stop()     # it says goodbye: nobody has to find out
    for node in (nodes[0], nodes[2]):
        node.wait_log(GONE.format(1))
        node.wait_log(MASTER.format(2))
    _serves(t, nodes[0])


def nodes_find_each_other_by_multicast(t):
    nodes = _nodes(t, t.origin(), (2, 1), threshold=50, multicast=f'239.66.77.88:{_free_udp_port()}')
    _all_follow(nodes, 1)
    _serves(t, *nodes)


def peers_are_found_by_their_list(t):
    ports = _free_udp_port(), _free_udp_port()
    nodes = _nodes(t, t.origin(), (2, 1), threshold=50,
                   peers=f'127.0.0.1:{ports[0]}, localhost:{ports[1]}')
    _all_follow(nodes, 1)
    _serves(t, *nodes)


# One threshold

@takes(40)
def three_nodes_share_one_threshold_however_the_load_lies(t):
    arrivals, threshold = Arrivals(t), 60
    nodes = _nodes(t, arrivals, (1, 2, 3), threshold=threshold, backlog=2)
    _all_follow(nodes, 1)
    for places in ([nodes[2]], nodes, [nodes[0], nodes[1]]):
        load = Load(t, [node.port for node in places], 40)
        for index in range(len(places)):
            _grows(t, load, threshold // 2, 20, 'each node that is asked serves', index)
        load.stop()
    for node in nodes:
        node.stop()
    times = _check_window(t, arrivals, threshold)
    t.check(len(times) >= threshold, 'the threshold was reached')


@takes(40)
def a_threshold_below_the_number_of_nodes_goes_round(t):
    arrivals, threshold = Arrivals(t), 2
    nodes = _nodes(t, arrivals, (1, 2, 3), threshold=threshold, backlog=20)
    _all_follow(nodes, 1)
    load = Load(t, [node.port for node in nodes], 5)
    t.until(lambda: min(load.served(i) for i in range(3)) >= 2, 20, 'each node serves some')
    load.stop()
    for node in nodes:
        node.stop()
    _check_window(t, arrivals, threshold)


def over_the_threshold_a_node_of_a_group_refuses_as_one_alone_does(t):
    nodes = _nodes(t, t.origin(), (1, 2), threshold='4/m', reject_status=503)
    _all_follow(nodes, 1)
    responses = [t.get(nodes[i % 2]) for i in range(6)]
    t.equal([response.status for response in responses], [503] * 6, 'who was there a minute ago, nobody knows')
    refused = responses
    t.check(refused and all(int(response.get('retry-after')) >= 1 for response in refused), 'Retry-After')
    t.check(b'overLimit' in refused[0].body, refused[0].body)


# Death and pause

@takes(40)
def the_group_stays_under_its_threshold_when_the_master_is_killed(t):
    arrivals, threshold = Arrivals(t), 100
    nodes = _nodes(t, arrivals, (1, 2, 3), threshold=threshold, backlog=2)
    _all_follow(nodes, 1)
    load = Load(t, [node.port for node in nodes], 60)
    _grows(t, load, threshold, 20, 'all serve')
    nodes[0].signal(signal.SIGKILL)
    nodes[0].wait_exit()
    killed = time.monotonic()
    _all_follow(nodes[1:], 2)
    t.check(time.monotonic() - killed < t.s(3), f'a new master after {time.monotonic() - killed:.1f} s')
    for index in (1, 2):
        _grows(t, load, threshold // 2, 20, 'the others go on', index)
    back = t.weir(arrivals, id=1, port=nodes[0].port, threshold=threshold, backlog=2,
                  unicast=nodes[0].arguments[nodes[0].arguments.index('--unicast') + 1])
    _all_follow([back], 1)      # with an empty memory
    for index in range(3):
        _grows(t, load, threshold // 4, 20, 'all go on', index)
    load.stop()
    for node in (back, *nodes[1:]):
        node.stop()
    _check_window(t, arrivals, threshold)


@takes(60)
def a_master_that_stood_still_does_no_harm_when_it_goes_on(t):
    arrivals, threshold = Arrivals(t), 100
    nodes = _nodes(t, arrivals, (1, 2, 3), threshold=threshold, backlog=2)
    _all_follow(nodes, 1)
    load = Load(t, [node.port for node in nodes], 60)
    _grows(t, load, threshold, 20, 'all serve')
    nodes[0].signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        _all_follow(nodes[1:], 2)
        _grows(t, load, threshold, 20, 'the others go on')
        t.until(lambda: time.monotonic() - stopped >= 3, 20, 'three seconds have passed')
    finally:
        nodes[0].signal(signal.SIGCONT)
    nodes[0].wait_log('stood still for')
    for node in nodes[1:]:
        node.wait_log(MASTER.format(1) + r'.*epoch=[^1]')
    for index in range(3):
        _grows(t, load, threshold // 4, 20, 'all go on', index)
    load.stop()
    for node in nodes:
        node.stop()
    _check_window(t, arrivals, threshold)


def those_in_line_are_served_when_their_node_is_told_to_stop(t):
    nodes = _nodes(t, t.origin(), (1, 2), threshold=10, burst=1, backlog=2)
    _all_follow(nodes, 1)
    _serves(t, nodes[0])
    clients = [t.client(nodes[0], seconds=30) for _ in range(12)]
    for client in clients:
        client.send(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    t.read_by_peer(*clients)
    nodes[0].signal(signal.SIGTERM)
    statuses = t.parallel([client.response for client in clients])
    t.equal([response.status for response in statuses], [200] * 12)
    t.equal(nodes[0].wait_exit(), 0)
    nodes[1].wait_log(GONE.format(1))
    nodes[1].wait_log(MASTER.format(2))


# Mistakes and malice

def two_nodes_with_one_id_say_so_and_the_younger_steps_aside(t):
    target, group = t.origin(), _group()
    elder = t.weir(target, id=4, unicast=group, threshold=50)
    _serves(t, elder)       # that is more than a second of age: who is closer to the other draws lots
    younger = t.weir(target, id=4, unicast=group, threshold=50)
    elder.wait_log('another node of the group has id 4 too')
    younger.wait_log('another node of the group has id 4 too')
    younger.wait_log('this one steps aside')
    _serves(t, elder)
    t.equal(t.get(younger).status, 429)
    elder.stop()
    younger.wait_log('takes part again')
    _serves(t, younger)


def nodes_with_another_secret_are_not_heard(t):
    group = _group()
    target = t.origin()
    path = t.file('secret', 'hush\n')
    one = t.weir(target, id=1, unicast=group, threshold=50, cluster_secret_file=path)
    two = t.weir(target, id=2, unicast=group, threshold=50, cluster_secret='hush')
    liar = t.weir(target, id=3, unicast=group, threshold=50, cluster_secret='push')
    for node in (one, two):
        node.wait_log(MASTER.format(1))
        node.wait_log(DROPPED + r'.*a wrong tag')
    liar.wait_log(MASTER.format(3))
    _serves(t, one, two, liar)
    t.check(not any(re.search(CAME.format(3), line) for line in one.log.lines + two.log.lines), 'nobody let it in')
    t.check('hush' not in one.log.text() + two.log.text(), 'the secret is in the log')


def _forgeries(port, count):
    """Datagrams that have a little more right in them each time."""
    chance = random.Random(7)
    head = struct.pack('>IBB', 0x77656972, 1, 1)
    for index in range(count):
        noise = chance.randbytes(chance.randrange(0, 1500))
        yield (noise, head + noise, head[:index % 7], b'', head[:5] + bytes([index % 9]) + noise)[index % 5]


@takes(30)
def garbage_does_not_disturb_a_group_nor_fill_its_log(t):
    target, group = t.origin(), _group()
    nodes = _nodes(t, target, (1, 2), unicast=group, threshold=1000, cluster_secret='hush')
    _all_follow(nodes, 1)
    _serves(t, nodes[1])
    port = int(group.partition(':')[2])
    before = [len(node.log.lines) for node in nodes]
    begun = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for index, forgery in enumerate(_forgeries(port, 4000)):
            sock.sendto(forgery, ('127.255.255.255', port))
            if index % 400 == 0:
                t.equal(t.get(nodes[1]).status, 200)
    for node in nodes:
        node.wait_log(DROPPED)
    t.equal([t.get(node).status for node in nodes], [200, 200])
    seconds = time.monotonic() - begun
    for node, start in zip(nodes, before):
        lines = [line for line in node.log.lines[start:] if 'datagrams' in line]
        t.check(len(lines) <= seconds + 2, f'{len(lines)} lines about datagrams in {seconds:.1f} s')


# One process, one file

@takes(30)
def groups_of_one_process_do_not_mix_and_two_nodes_of_one_process_can_be_one_group(t):
    arrivals = Arrivals(t)
    port = _free_udp_port()
    # [a] and [b] are one group, [c] is another on the same port
    text = ''.join(f'[{name}]\nid = {number}\nport = 0\nendpoint = {arrivals.address}\nthreshold = 20\nbacklog = 3\n'
                   f'unicast = {address}:{port}\n\n'
                   for name, number, address in (('a', 1, '127.255.255.255'), ('b', 2, '127.255.255.255'),
                                                 ('c', 2, '255.255.255.255')))
    weir, _ = t.weir_of_file(text, services=3)
    weir.wait_log(r' a: ' + MASTER.format(1))
    weir.wait_log(r' b: ' + MASTER.format(1))
    weir.wait_log(r' c: ' + MASTER.format(2))
    load = Load(t, weir.ports[:2], 30)
    for index in range(2):
        _grows(t, load, 25, 20, 'both serve', index)
    load.stop()
    t.equal(t.get(weir).status in (200, 429), True)
    weir.stop()
    _check_window(t, arrivals, 20)


@takes(40)
def a_reload_changes_the_threshold_of_a_group_and_refills_nothing(t):
    arrivals = Arrivals(t)
    group = _group()

    def text(threshold, number, secret):
        return (f'[n{number}]\nid = {number}\nport = 0\nendpoint = {arrivals.address}\nthreshold = {threshold}\n'
                f'backlog = 3\nunicast = {group}\ncluster_secret = {secret}\n')
    nodes = [t.weir_of_file(text(60, number, 'a'), '--node', f'n{number}', name=f'weir{number}.ini')
             for number in (1, 2)]
    _all_follow([weir for weir, _ in nodes], 1)
    load = Load(t, [weir.port for weir, _ in nodes], 50)
    _grows(t, load, 60, 20, 'both serve')
    for threshold, secret in ((30, 'a'), (60, 'b')):
        for number, (weir, path) in enumerate(nodes, 1):
            seen = len(weir.log.lines)
            with open(path, 'w', encoding='utf-8') as file:
                file.write(text(threshold, number, secret))
            weir.signal(signal.SIGHUP)
            weir.wait_log('settings are in force', after=seen)
        for index in range(2):
            _grows(t, load, 30, 20, f'both serve with {threshold}', index)
    load.stop()
    for weir, _ in nodes:
        weir.stop()
    _check_window(t, arrivals, 60)


@takes(40)
def a_reload_brings_a_service_into_a_group_and_out_of_it(t):
    arrivals = Arrivals(t)
    group = _group()
    alone = f'[n]\nport = 0\nendpoint = {arrivals.address}\nthreshold = 40\nbacklog = 3\n'
    weir, path = t.weir_of_file(alone)
    other = t.weir(arrivals, id=1, unicast=group, threshold=40)
    other.wait_log(MASTER.format(1))
    load = Load(t, [weir.port], 50)
    _grows(t, load, 40, 20, 'it serves alone')
    for text, wanted in ((alone + f'id = 2\nunicast = {group}\n', CAME.format(2)), (alone, GONE.format(2))):
        seen = len(weir.log.lines)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        weir.signal(signal.SIGHUP)
        weir.wait_log('settings are in force', after=seen)
        other.wait_log(wanted)
        _grows(t, load, 80, 30, 'it serves')
    load.stop()
    weir.stop()
    _check_window(t, arrivals, 40)


@takes(30)
def a_reload_whose_group_cannot_be_joined_changes_nothing(t):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, socket.create_server(('127.0.0.1', 0)) as host:
        taken.bind(('127.0.0.1', 0))
        name = f'127.0.0.1:{host.getsockname()[1]}'
        text = f'[f]\nmode = forward\nport = 0\nid = 1\nunicast = {_group()}\nconnect_allow = 127.0.0.1:*\n'
        node, path = t.weir_of_file(text + 'max_connections = 1\n')
        with open(path, 'w', encoding='utf-8') as file:
            peers = f'127.0.0.1:{taken.getsockname()[1]}'
            file.write(re.sub('unicast = .*', f'peers = {peers}', text) + 'max_connections = 5\n')
        node.signal(signal.SIGHUP)
        node.wait_log('is taken')
        statuses = []
        with contextlib.ExitStack() as open_ones:
            for _ in range(2):
                sock = open_ones.enter_context(socket.create_connection(('127.0.0.1', node.port), t.s(10)))
                sock.sendall(f'CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n'.encode())
                statuses.append(int(sock.recv(4096).split()[1]))
        t.equal(statuses[0], 200)
        t.check(statuses[1] != 200, 'the cap of the settings in force holds')


# The other modes

@takes(30)
def a_forward_proxy_in_a_group_shares_its_threshold(t):
    arrivals, group = Arrivals(t), _group()
    nodes = [Weir(t, ['forward', '--port', 0, '--id', number, '--unicast', group, '--threshold', '5',
                      '--connect-allow', '127.0.0.1:*']) for number in (1, 2)]
    _all_follow(nodes, 1)

    def ask(node, method):
        with socket.create_connection(('127.0.0.1', node.port), 10) as sock:
            target = f'http://{arrivals.address}/' if method == 'GET' else arrivals.address
            sock.sendall(f'{method} {target} HTTP/1.1\r\nHost: {arrivals.address}\r\n\r\n'.encode())
            return int(sock.recv(4096).split()[1])
    t.until(lambda: ask(nodes[1], 'GET') == 200, 20, 'the group starts')
    begun = time.monotonic()
    statuses = [ask(nodes[index % 2], 'CONNECT' if index % 3 else 'GET') for index in range(40)]
    seconds = time.monotonic() - begun
    t.check(statuses.count(200) <= 5 * (1 + seconds), f'{statuses.count(200)} of 40 in {seconds:.1f} s')
    t.check(statuses.count(429) == 40 - statuses.count(200), f'{statuses}')
    t.check(200 in statuses, 'some are let through')


def _switch(t, number, group, threshold):
    return Weir(t, ['packet', '--port', 0, '--id', number, '--unicast', group, '--threshold', threshold,
                    '--backlog', 5])


@takes(30)
def switches_of_a_group_share_one_threshold(t):
    group, sent = _group(), []
    nodes = [_switch(t, number, group, 10) for number in (1, 2)]
    _all_follow(nodes, 1)
    server = t.start_tool(os.path.join(t.bin, 'server_demo'), '-id', 100, '-pp', 111, '-listen', t.free_port(),
                          '-revproc', nodes[0].port)
    other = t.start_tool(os.path.join(t.bin, 'server_demo'), '-id', 101, '-pp', 111, '-listen', t.free_port(),
                         '-revproc', nodes[1].port)
    message = b'{"type":0,"srcid":1,"privPoliId":111,"payload":"xyz"}'

    def ask(node):
        with socket.create_connection(('127.0.0.1', node.port), t.s(20)) as sock:
            sock.sendall(message)
            answer = sock.recv(4096)
            sent.append(b'"type":"2"' in answer.replace(b' ', b''))
            return sent[-1]
    for node in nodes:
        t.until(lambda node=node: ask(node), 20, 'a server is there')
    begun = time.monotonic()
    t.parallel([lambda i=i: ask(nodes[i % 2]) for i in range(40)], 30)
    t.equal(sent[-40:], [True] * 40, 'all were answered in their turn')
    t.check(time.monotonic() - begun >= 2.9, f'40 messages at 10 a second took {time.monotonic() - begun:.1f} s')
    t.check(server.poll() is None and other.poll() is None, 'the servers are there')


class _Slow:
    """A target whose queue is full for a while: a connection to it is made when open() was called, by the second SYN. Then it
    answers all."""

    def __init__(self, t):
        self.full = t.full_backlog()
        self.address = self.full.address
        self.requests = 0
        t.cleanup(self.full.close)

    def knocking(self):
        """How many connections are being asked for, without an answer; the last filler is one."""
        state, wanted = '02', f':{self.full.port:04X}'      # SYN_SENT
        with open('/proc/net/tcp', encoding='ascii') as file:
            fields = [line.split() for line in file]
        return sum(1 for line in fields if line[2].endswith(wanted) and line[3] == state)

    def open(self):
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        for filler in self.full._fillers:
            filler.close()
        while True:
            try:
                connection, _ = self.full._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection:
            if connection.recv(4096):
                self.requests += 1
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')


def a_slot_that_died_while_a_connection_was_made_is_replaced(t):
    slow = _Slow(t)
    node = t.weir(slow, id=1, unicast=_group(), threshold=50, backlog=1, connect_timeout=10, extra=['--trace'])
    node.wait_log(MASTER.format(1))
    before = slow.knocking()
    client = t.client(node, seconds=30)
    client.send(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    t.until(lambda: slow.knocking() > before, 20, 'weir asks for a connection')
    slow.open()
    t.equal(client.response().status, 200)
    t.equal(slow.requests, 1)
    node.wait_log('send     ')
    text = node.log.text()
    connected, sent = text.index('connect  to'), text.index('send     ')
    t.check(' wait     ' in text[connected:sent], f'no second wait between these: {text[connected:sent]}')


def _late_us(node):
    """What a node that stopped says of how late its starts were, all together."""
    node.stop()
    return int(re.search(r'late_us=(\d+)', node.log.text()).group(1))


@takes(30)
def a_host_that_does_not_answer_a_connect_holds_no_group_back(t):
    """The host was asked when the first packet left: how long it takes to answer is not lateness, for which a master makes
    the whole group wait."""
    full = t.full_backlog()
    t.cleanup(full.close)
    node = Weir(t, ['forward', '--port', 0, '--id', 1, '--unicast', _group(), '--threshold', 50, '--backlog', 5,
                    '--connect-allow', '127.0.0.1:*', '--connect-timeout', 3])
    node.wait_log(MASTER.format(1))
    with socket.create_connection(('127.0.0.1', node.port), t.s(30)) as sock:
        sock.sendall(f'CONNECT {full.address} HTTP/1.1\r\nHost: {full.address}\r\n\r\n'.encode())
        t.check(b' 504 ' in sock.recv(4096), 'nobody is there')
    t.check(_late_us(node) < 1000000, f'the start counts from when it left: {node.log.text()[-300:]}')


def a_slot_that_died_while_a_parent_was_connected_to_is_replaced(t):
    slow = _Slow(t)
    node = Weir(t, ['forward', '--port', 0, '--id', 1, '--unicast', _group(), '--threshold', 50, '--backlog', 5,
                    '--parent', slow.address, '--connect-timeout', 10, '--trace'])
    node.wait_log(MASTER.format(1))
    before = slow.knocking()
    with socket.create_connection(('127.0.0.1', node.port), t.s(30)) as sock:
        sock.sendall(b'CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n')
        t.until(lambda: slow.knocking() > before, 20, 'weir asks for a connection')
        slow.open()
        t.check(b' 200 ' in sock.recv(4096), 'a tunnel')
    node.wait_log('end      200')
    text = node.log.text()
    connected, asked = text.index('connect  to'), text.index('parent   200')
    t.check(' wait     ' in text[connected:asked], f'no second wait between these: {text[connected:asked]}')


@takes(30)
def a_server_that_takes_a_message_slowly_holds_no_group_back(t):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        node = Weir(t, ['packet', '--port', 0, '--id', 1, '--unicast', _group(), '--threshold', 50, '--backlog', 5,
                        '--response-timeout', 3])
        node.wait_log(MASTER.format(1))
        with socket.create_connection(('127.0.0.1', node.port), t.s(30)) as sock:
            sock.sendall(b'{"type":1,"id":100,"privPoliId":111,"listenport":%d}' % listener.getsockname()[1])
            node.wait_log('received a setup message')
            payload = b'\\u0001' * 1000000      # more than sockets hold
            sock.sendall(b'{"type":0,"srcid":1,"privPoliId":111,"payload":"%s"}' % payload)
            t.check(b'"error"' in sock.recv(4096), 'the server read nothing of it')
    t.check(_late_us(node) < 1000000, f'the start counts from its first bytes: {node.log.text()[-300:]}')


@takes(40)
def who_stood_in_line_when_its_service_joined_a_group_uses_no_dead_slot(t):
    slow = _Slow(t)
    alone = f'[one]\nmode = reverse\nport = 0\nendpoint = {slow.address}\nthreshold = 1\nbacklog = 5\n' \
        'connect_timeout = 30\n'
    node, path = t.weir_of_file(alone, '--trace')
    before = slow.knocking()
    clients = [t.client(node, seconds=60) for _ in range(2)]
    clients[0].send(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')      # holds the only slot as long as it is not sent
    t.until(lambda: slow.knocking() > before, 20, 'weir asks for a connection')
    clients[1].send(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    t.until(lambda: node.log.text().count('read     ') == 2, 20, 'the second is read')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(f'{alone}unicast = {_group()}\nid = 1\n')
    node.signal(signal.SIGHUP)
    t.until(lambda: slow.knocking() > before + 1, 30, 'the second has a slot of the master')
    slow.open()
    t.equal([client.response().status for client in clients], [200, 200])
    node.stop()
    t.check(node.log.text().count(' wait     ') >= 2, f'its dead slot was not replaced: {node.log.text()}')
