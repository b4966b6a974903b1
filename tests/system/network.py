"""Machines on one network, as far as the kernel is concerned: network namespaces, each with a loopback interface and an
eth0, which a cable (a veth pair) joins to a bridge in a namespace of its own.

        ┌ node 1 ┐   ┌ node 2 ┐   ┌ node 3 ┐
        │  eth0  │   │  eth0  │   │  eth0  │     198.18.7.1, .2, .3 of 198.18.7.0/24 (RFC 2544: for benchmarks alone)
        └───┬────┘   └───┬────┘   └───┬────┘
            p1           p2           p3         ┐ the hub: pulling a cable is setting its end here down
            └──────────── br0 ────────┘          ┘

Nothing of the machine's own network is touched, and everything is gone with the namespaces at the end of the test.
"""
import ctypes
import os
import subprocess
import threading

CLONE_NEWNET = 0x40000000
NETWORK = '198.18.7'


class Machine:
    """One namespace."""

    def __init__(self, network, name):
        self.network, self.name = network, name
        self.prefix = [network.ip_tool, 'netns', 'exec', name]

    def ip(self, *arguments):
        self.network.ip('-n', self.name, *arguments)

    def enter(self):
        """The calling thread's sockets are this machine's from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f'/run/netns/{self.name}', 'rb') as file:
            if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), 'setns')

    def inside(self, function):
        """What function gives when it runs here."""
        result = []

        def run():
            self.enter()
            result.append(function())
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
        return result[0]


class Network:
    def __init__(self, t, count):
        """Skips the test where namespaces are not allowed."""
        self.t, self.ip_tool = t, t.tool('ip')
        self.unique = f'weir{os.getpid()}'
        self.hub = self._add('hub')
        self.hub.ip('link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0')
        self.hub.ip('link', 'set', 'br0', 'up')
        self.machines = [self._add(f'n{number}') for number in range(1, count + 1)]
        for number in range(1, count + 1):
            self.plug_in(number)

    def ip(self, *arguments):
        subprocess.run([self.ip_tool, *arguments], check=True, capture_output=True, timeout=self.t.s(20))

    def _add(self, name):
        machine = Machine(self, f'{self.unique}-{name}')
        try:
            self.ip('netns', 'add', machine.name)
        except subprocess.CalledProcessError as error:
            self.t.skip(f'network namespaces are not allowed here: {error.stderr.decode().strip()}')
        self.t.cleanup(lambda: self.ip('netns', 'delete', machine.name))
        machine.ip('link', 'set', 'lo', 'up')
        return machine

    def plug_in(self, number):
        """A new network card, and its cable."""
        machine = self.machines[number - 1]
        self.ip('link', 'add', 'eth0', 'netns', machine.name, 'type', 'veth', 'peer', 'name', f'p{number}', 'netns',
                self.hub.name)
        self.hub.ip('link', 'set', f'p{number}', 'master', 'br0', 'up')
        machine.ip('address', 'add', f'{NETWORK}.{number}/24', 'brd', '+', 'dev', 'eth0')
        machine.ip('link', 'set', 'eth0', 'up')

    def pull_out(self, number):
        """The network card itself is gone."""
        self.machines[number - 1].ip('link', 'delete', 'eth0')

    def cable(self, number, is_in):
        self.hub.ip('link', 'set', f'p{number}', 'up' if is_in else 'down')
