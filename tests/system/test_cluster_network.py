"""A group of nodes on machines of their own (network.py), joined by a network whose cables can be pulled. Each has a target
on its own loopback interface; the kernel stamps what reaches it, with one clock for all of them.
"""
import os
import shutil
import time

from arrivals import Arrivals, Load, fullest
from harness import Weir, takes
from network import NETWORK, Network

MASTER = r'node {} is the master of the group'
PORT = 7700


class _Fleet:
    """The same file on every machine."""

    def __init__(self, t, count, **settings):
        self.t = t
        self.network = Network(t, count)
        self.machines = self.network.machines
        self.targets = [Arrivals(t, machine) for machine in self.machines]
        common = ''.join(f'{key} = {value}\n' for key, value in settings.items())
        path = t.file('weir.ini', ''.join(
            f'[n{number}]\nid = {number}\nport = 8000\nbind = 127.0.0.1\nendpoint = {target.address}\n{common}'
            for number, target in enumerate(self.targets, 1)))
        self.nodes = [Weir(t, ['-c', path, '--node', f'n{number}'], prefix=machine.prefix)
                      for number, machine in enumerate(self.machines, 1)]
        self.loads = []

    def follow(self, number, nodes=None, seconds=20, after=None):
        """All (or those given, counted from 1) take it for the master; after: log lines seen before, by node."""
        for index in nodes or range(1, len(self.nodes) + 1):
            self.nodes[index - 1].wait_log(MASTER.format(number), seconds, after=after[index - 1] if after else 0)

    def seen(self):
        return [len(node.log.lines) for node in self.nodes]

    def load(self, connections):
        self.loads = [Load(self.t, [8000], connections, machine.enter) for machine in self.machines]

    def all_serve(self, more, nodes=None):
        for index in nodes or range(1, len(self.nodes) + 1):
            load = self.loads[index - 1]
            before = load.served()
            self.t.until(lambda load=load, before=before: load.served() >= before + more, 30, f'node {index} serves {more} more')

    def end(self):
        """The times of all arrivals, in order."""
        for load in self.loads:
            load.stop()
        for node in self.nodes:
            node.stop()
        return sorted(moment for target in self.targets for moment in target.times())


def _share_one_threshold(t, **settings):
    fleet = _Fleet(t, 3, threshold=60, backlog=2, **settings)
    fleet.follow(1)
    fleet.load(40)
    fleet.all_serve(30)
    times = fleet.end()
    t.check(fullest(times) <= 60, f'{fullest(times)} arrivals in a second, threshold 60')


@takes(40)
def machines_meet_by_broadcast_to_everybody(t):
    _share_one_threshold(t, unicast=f'255.255.255.255:{PORT}')


@takes(40)
def machines_meet_by_broadcast_to_their_subnet(t):
    _share_one_threshold(t, unicast=f'{NETWORK}.255:{PORT}', cluster_secret='hush')


@takes(40)
def machines_meet_by_multicast(t):
    _share_one_threshold(t, multicast=f'239.66.77.88:{PORT}')


@takes(40)
def machines_meet_by_multicast_of_ipv6(t):
    _share_one_threshold(t, multicast=f'[ff15::7788]:{PORT}')


@takes(40)
def machines_meet_by_a_list_of_peers(t):
    _share_one_threshold(t, peers=', '.join(f'{NETWORK}.{number}:{PORT}' for number in (1, 2, 3)))


@takes(60)
def a_strict_group_stays_under_its_threshold_while_a_cable_is_out(t):
    fleet = _Fleet(t, 3, threshold=90, backlog=3, partition='strict', unicast=f'{NETWORK}.255:{PORT}')
    fleet.follow(1)
    fleet.load(40)
    fleet.all_serve(30)
    seen = fleet.seen()
    fleet.network.cable(3, False)
    fleet.follow(3, [3])
    fleet.all_serve(30)                 # each part its share
    fleet.network.cable(3, True)
    fleet.follow(1, [3], after=seen)
    fleet.all_serve(30)
    times = fleet.end()
    t.check(fullest(times) <= 90, f'{fullest(times)} arrivals in a second, threshold 90')


@takes(60)
def an_available_group_that_was_split_obeys_again_two_seconds_after_it_met(t):
    fleet = _Fleet(t, 3, threshold=90, backlog=3, unicast=f'255.255.255.255:{PORT}')
    fleet.follow(1)
    fleet.load(60)
    fleet.all_serve(30)
    split_ns = time.time_ns()
    seen = fleet.seen()
    fleet.machines[0].ip('link', 'set', 'eth0', 'down')
    fleet.follow(2, [2, 3])
    fleet.all_serve(60)                 # each part the whole threshold
    alone = [len(node.log.lines) for node in fleet.nodes]
    fleet.machines[0].ip('link', 'set', 'eth0', 'up')
    fleet.follow(1, [2, 3], after=alone)
    met_ns = time.time_ns()
    fleet.all_serve(90)
    times = fleet.end()
    before = [moment for moment in times if moment < split_ns]
    after = [moment for moment in times if moment >= met_ns + t.s(2) * 10 ** 9]
    t.check(fullest(before) <= 90, f'{fullest(before)} arrivals in a second before, threshold 90')
    t.check(fullest(after) <= 90, f'{fullest(after)} arrivals in a second afterwards, threshold 90')
    troubled = [line for line in fleet.nodes[0].log.lines[seen[0]:] if "can't be sent" in line]
    t.check(len(troubled) <= 5, f'{len(troubled)} lines about a cable')


@takes(60)
def a_network_card_that_is_replaced_is_joined_again(t):
    fleet = _Fleet(t, 2, threshold=90, backlog=3, multicast=f'239.66.77.88:{PORT}')
    fleet.follow(1)
    fleet.load(40)
    seen = fleet.seen()
    fleet.network.pull_out(2)
    fleet.follow(2, [2])
    fleet.network.plug_in(2)
    fleet.follow(1, [2], after=seen)
    fleet.all_serve(30)
    fleet.end()


@takes(60)
def a_peer_whose_name_resolves_only_once_it_runs_is_found_at_once(t):
    """As in a container network. The first node asks for names again after 10 s; who speaks to it is answered before that."""
    network = Network(t, 2)
    folders = [f'/etc/netns/{machine.name}' for machine in network.machines]

    def forget():
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if not os.listdir('/etc/netns'):
            os.rmdir('/etc/netns')
    for folder in folders:
        os.makedirs(folder)
    t.cleanup(forget)

    def resolve(**names):
        """ip netns exec lays this file over /etc/hosts."""
        for folder in folders:
            with open(f'{folder}/hosts', 'w', encoding='ascii') as file:
                file.writelines(f'{address} {name}\n' for name, address in {'localhost': '127.0.0.1', **names}.items())

    def node(number):
        return Weir(t, ['reverse', '--port', 8000, '--endpoint', '127.0.0.1:9', '--id', number, '--threshold', 60,
                        '--peers', f'one:{PORT}, two:{PORT}'], prefix=network.machines[number - 1].prefix)
    resolve(one=f'{NETWORK}.1')
    one = node(1)
    one.wait_log(MASTER.format(1))
    resolve(one=f'{NETWORK}.1', two=f'{NETWORK}.2')
    two = node(2)
    two.wait_log(MASTER.format(1), 8)
    # It comes back elsewhere.
    two.stop()
    network.machines[1].ip('address', 'delete', f'{NETWORK}.2/24', 'dev', 'eth0')
    network.machines[1].ip('address', 'add', f'{NETWORK}.22/24', 'brd', '+', 'dev', 'eth0')
    resolve(one=f'{NETWORK}.1', two=f'{NETWORK}.22')
    node(2).wait_log(MASTER.format(1), 8)
