"""Containers, as far as the kernel is concerned: a service's own command line in namespaces of its own (network, processes, mounts,
host name), in the image's root, as the image's user, as process 1.

The network is tests/system/network.py's: one bridge. Names are lines of the image's /etc/hosts, each written when its service is
started, as an engine's name service knows a container from then on. IPv6 is switched off, as it is in an engine's networks.
"""
import os
import re
import signal
import subprocess

from harness import Lines, until
from network import NETWORK, Network

# $1 root, $2 read-only or not, then the user, and the command with its environment.
ENTER = '''
set -e
root=$1 mode=$2 user=$3
shift 3
hostname "$WEIR_CHECK_NAME"
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
[ "$mode" != read-only ] || mount -o remount,ro,bind "$root"
exec chroot "$root" /usr/bin/setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups --no-new-privs \\
	--inh-caps=-all --bounding-set=-all /usr/bin/env -i "$@"
'''


class Container:
    """One that runs."""

    def __init__(self, world, service, machine, extra=()):
        self.t, self.world, self.service, self.machine = world.t, world, service, machine
        self.address = machine.address
        if service.image == 'weir':
            arguments, environment = world.enter(service, [*self._command(), *extra])
        else:
            arguments, environment = service.command, dict(os.environ)      # the machine's own program of that name
        out, err = self._pipe(), self._pipe()
        self.process = subprocess.Popen([*machine.prefix, *arguments], stdin=subprocess.DEVNULL, stdout=out[1], stderr=err[1],
                                        env=environment, cwd='/')
        for _, end in (out, err):
            os.close(end)
        self.out, self.log = Lines(os.fdopen(out[0], 'rb')), Lines(os.fdopen(err[0], 'rb'))
        self.t.cleanup(self.kill)
        if service.image == 'weir':
            self.pid = self.t.until(self._first, 20, f'process 1 of {service.name}')
        else:
            self.pid = self.process.pid

    def _command(self):
        """An engine's rule: whoever sets an entrypoint leaves the image's command out."""
        image = self.world.image
        if self.service.entrypoint is not None:
            return self.service.entrypoint + self.service.command
        return image.entrypoint + (self.service.command or image.command)

    def _pipe(self):
        """/dev/stdout has to be somebody's who may open it again."""
        ends = os.pipe()
        os.fchown(ends[1], *map(int, self.world.image.user.split(':')))
        return ends

    def _first(self):
        """unshare's child, once it is the program itself."""
        with open(f'/proc/{self.process.pid}/task/{self.process.pid}/children', encoding='ascii') as file:
            children = file.read().split()
        if not children:
            assert self.process.poll() is None, f'{self.service.name} ended: {self.log.text()}'
            return 0
        with open(f'/proc/{children[0]}/comm', encoding='ascii') as file:
            return int(children[0]) if file.read().strip() in ('weir', 'server_demo') else 0

    def status(self):
        with open(f'/proc/{self.pid}/status', encoding='ascii') as file:
            return dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)

    def execute(self, command):
        """As an engine does it for a health check: one more process in there. Its exit status."""
        environment = self.world.environment(self.service)
        return self.t.run_tool('nsenter', '-t', self.pid, '-n', '-p', '-m', '-u', 'chroot', self.world.root, '/usr/bin/setpriv',
                               *self.world.rights(), '/usr/bin/env', '-i', *(f'{k}={v}' for k, v in environment.items()), *command)

    def health(self):
        return self.execute(self.service.health[1:] if self.service.health else self.world.image.health)

    def wait_log(self, pattern, seconds=20, after=0):
        found = self.log.wait(lambda lines: any(re.search(pattern, line) for line in lines[after:]), self.t.s(seconds))
        assert found, f'{self.service.name}: no {pattern!r} in the log:\n{self.log.text()[-3000:]}'

    def stop(self):
        """What an engine does: the image's signal, and the exit code within the time of grace."""
        if self.process.poll() is None:
            os.kill(self.pid, getattr(signal, self.world.image.stop_signal))
        return self.process.wait(self.t.s(self.service.grace_s))

    def kill(self):
        if self.process.poll() is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait(10)


class World:
    """A compose file's services, each with a machine; one more machine is the user's."""

    def __init__(self, t, image, root, services):
        self.t, self.image, self.root, self.services = t, image, root, services
        self.network = Network(t, len(services) + 1)
        for number, machine in enumerate(self.network.machines, 1):
            machine.address = f'{NETWORK}.{number}'
            self.network.ip('netns', 'exec', machine.name, 'sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6')
        self.places = dict(zip(services, self.network.machines))
        self.user = self.network.machines[-1]
        self.hosts = {}
        self._write_hosts()

    def _write_hosts(self):
        with open(f'{self.root}/etc/hosts', 'w', encoding='ascii') as file:
            file.writelines(f'{address} {name}\n' for name, address in {'localhost': '127.0.0.1', **self.hosts}.items())

    def environment(self, service):
        return {**self.image.environment, **service.environment, 'HOSTNAME': service.name}

    def rights(self):
        user, group = self.image.user.split(':')
        return (f'--reuid={user}', f'--regid={group}', '--clear-groups', '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all')

    def enter(self, service, command):
        mode = 'read-only' if service.read_only else 'writable'
        arguments = ['unshare', '--mount', '--pid', '--uts', '--fork', '--kill-child', 'sh', '-c', ENTER, 'sh', self.root, mode,
                     self.image.user, *(f'{k}={v}' for k, v in self.environment(service).items()), *command]
        return arguments, {**os.environ, 'WEIR_CHECK_NAME': service.name}

    def start(self, name, extra=()):
        """Its name resolves from now on."""
        self.hosts[name] = self.places[name].address
        self._write_hosts()
        return Container(self, self.services[name], self.places[name], extra)

    def secret(self, name, text):
        """What a compose file's secret becomes."""
        folder = f'{self.root}/run/secrets'
        os.makedirs(folder, exist_ok=True)
        with open(f'{folder}/{name}', 'w', encoding='ascii') as file:
            file.write(text)
        os.chmod(f'{folder}/{name}', 0o644)

    def in_time(self, predicate, seconds, what):
        return until(predicate, self.t.s(seconds), what)
