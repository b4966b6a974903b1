#!/usr/bin/env python3
"""deploy/check_package.py [--packages DIR] [--root DIR]: do the Debian packages work on a machine that has nothing else?

    a copy of HEAD ──► dpkg-buildpackage ──► weir, libweir0, libweir-dev ──► lintian
    debootstrap ──► a clean root ──► apt installs weir there, with what it depends on
    in that root, in a network of its own:
        weir runs by the command line, the user and the capabilities of its unit ──► READY=1
        curl through it, its status page; a file that is wrong is refused by ExecReload's first command; a good one is in force
        logrotate moves its log away; SIGTERM ends it
    apt removes it: its settings stay; apt purges it: nothing of it is left but its user, as the policy says

There is no systemd in the root: what systemd would do with the unit is done here, by its own words. DIR with --packages has packages that
were built already. --root keeps the root there, and uses it again. Needs root and the packages of `deploy/prerequisites.sh
package`; takes three minutes, two of them to build and test. Where Debian is fetched from is what /etc/apt says. Ends with
"clean" and 0, or with what is wrong and 1.
"""
import argparse
import glob
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PATIENCE_S = 60
# What apt, dpkg and the making of a user leave behind, whoever the package was.
NOT_OURS = re.compile(r'var/(lib/(dpkg|apt|systemd)|cache|log/(apt|dpkg|alternatives))|etc/(passwd|group|g?shadow|ld\.so\.cache|subuid|subgid)|'
                      r'tmp|run|dev|proc|sys|root|packages')


def run(*command, **more):
    return subprocess.run(command, check=more.pop('check', True), text=True, **more)


def read(*command, **more):
    return run(*command, stdout=subprocess.PIPE, **more).stdout


def say(text):
    print('check_package:', text, flush=True)


def expect(condition, text):
    if not condition:
        sys.exit(f'check_package: WRONG: {text}')
    say(text)


# ---- before the root -----------------------------------------------------------------------------------------------------

def build(folder):
    """The packages of HEAD, from a copy that has nothing else in it."""
    source = os.path.join(folder, 'weir')
    os.makedirs(source)
    archive = subprocess.Popen(['git', '-C', TOP, 'archive', 'HEAD'], stdout=subprocess.PIPE)
    run('tar', '-x', '-C', source, stdin=archive.stdout)
    expect(archive.wait() == 0, 'a copy of HEAD')
    log = os.path.join(folder, 'build.log')
    with open(log, 'w', encoding='utf-8') as file:
        result = run('dpkg-buildpackage', '-us', '-uc', '-b', cwd=source, stdout=file, stderr=file, check=False)
    if result.returncode != 0:
        print(open(log, encoding='utf-8', errors='replace').read()[-5000:])
    expect(result.returncode == 0, 'dpkg-buildpackage -us -uc -b')
    lint = read('lintian', '--fail-on', 'error', '--allow-root', *glob.glob(folder + '/*.changes'), check=False)
    expect('E: ' not in lint, 'lintian finds no error' + (':\n' + lint if lint else ''))


def mirror():
    """Where this machine's apt has Debian from, and which one."""
    codename = re.search(r'VERSION_CODENAME=(\w+)', open('/etc/os-release', encoding='ascii').read())[1]
    for line in read('apt-get', 'indextargets', '--format', '$(REPO_URI)|$(CODENAME)|$(ORIGIN)|$(LABEL)|$(COMPONENT)',
                     'Created-By: Packages').splitlines():
        uri, its, origin, label, component = line.split('|')
        if (its, origin, label, component) == (codename, 'Debian', 'Debian', 'main'):
            return uri, codename
    sys.exit('check_package: /etc/apt names no source of Debian')


def make_root(root):
    uri, codename = mirror()
    run('debootstrap', '--variant=minbase', codename, root, uri, stdout=subprocess.DEVNULL)
    say('a clean root')


def inside(root, *command, **more):
    environment = {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'DEBIAN_FRONTEND': 'noninteractive',
                   'LC_ALL': 'C', **more.pop('environment', {})}
    return run('chroot', root, *command, env=environment, **more)


def files(root):
    found = set()
    for parent, folders, names in os.walk(root):
        inner = os.path.relpath(parent, root)
        folders[:] = [name for name in folders if not NOT_OURS.match(os.path.normpath(os.path.join(inner, name)))]
        found.update(os.path.normpath(os.path.join(inner, name)) for name in folders + names)
    return {path for path in found if not NOT_OURS.match(path)}


def ours(root, before):
    """What is new, but for what other packages that came along have left."""
    return {path for path in files(root) - before if 'weir' in path}


def apt(root, *arguments):
    result = inside(root, 'apt-get', '-qq', '-y', '-o', 'Dpkg::Use-Pty=0', *arguments, check=False, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT)
    expect(result.returncode == 0, 'apt-get ' + ' '.join(arguments) + ('' if result.returncode == 0 else ':\n' + result.stdout))


# ---- in the root ---------------------------------------------------------------------------------------------------------

class Service:
    """weir, as its unit says it is to be run."""

    def __init__(self, root):
        self.root = root
        self.unit = {}
        for line in open(os.path.join(root, 'lib/systemd/system/weir.service'), encoding='utf-8'):
            if re.match(r'[A-Z]\w+=', line):
                key, value = line.rstrip('\n').split('=', 1)
                self.unit.setdefault(key, []).append(value)
        self.address = os.path.join(root, 'run/notify')
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        os.chmod(self.address, 0o777)
        self.socket.settimeout(PATIENCE_S)
        self.process = None

    def make_folders(self):
        user = self.unit['User'][0]
        for key, where in (('LogsDirectory', 'var/log'), ('StateDirectory', 'var/lib'), ('RuntimeDirectory', 'run')):
            path = os.path.join('/', where, self.unit[key][0])
            inside(self.root, 'install', '-d', '-o', user, '-g', self.unit['Group'][0], '-m', '0750', path)

    def start(self):
        capability = self.unit['AmbientCapabilities'][0].lower().removeprefix('cap_')
        user, group = self.unit['User'][0], self.unit['Group'][0]
        command = ['setpriv', '--reuid', user, '--regid', group, '--init-groups', '--no-new-privs', '--inh-caps',
                   '+' + capability, '--ambient-caps', '+' + capability, '--bounding-set', '-all,+' + capability,
                   *self.unit['ExecStart'][0].split()]
        self.process = subprocess.Popen(['chroot', self.root, *command],
                                        env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'NOTIFY_SOCKET': '/run/notify'})
        self.wait_for('READY')

    def wait_for(self, name):
        """The next message that has this name."""
        while True:
            message = dict(line.split('=', 1) for line in self.socket.recv(65536).decode().splitlines())
            if name in message:
                return message

    def reload(self):
        """ExecReload's commands in turn, up to one that fails, as systemd does it. The exit status."""
        for command in self.unit['ExecReload']:
            result = inside(self.root, *shlex.split(command), check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            environment={'MAINPID': str(self.process.pid)})
            if result.returncode != 0:
                say('reload says: ' + result.stdout.strip())
                return result.returncode
        return 0

    def stop(self):
        self.process.terminate()
        self.wait_for('STOPPING')
        return self.process.wait(PATIENCE_S)


def ask(url):
    """Status and body."""
    body = read('curl', '--silent', '--show-error', '--max-time', '20', '--write-out', '\n%{http_code}', url)
    return body.rsplit('\n', 1)[::-1]


def until(predicate):
    """Is it so, at the latest when patience ends?"""
    end = time.monotonic() + PATIENCE_S
    while not predicate() and time.monotonic() < end:
        time.sleep(0.05)
    return predicate()


def listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', port)) == 0


def has(path, text, count=1):
    with open(path, encoding='utf-8') as file:
        return file.read().count(text) >= count


def change(root, pattern, replacement):
    path = os.path.join(root, 'etc/weir/weir.ini')
    text = open(path, encoding='utf-8').read()
    changed, count = re.subn(pattern, replacement, text, flags=re.M)
    assert count == 1, pattern
    with open(path, 'w', encoding='utf-8') as file:
        file.write(changed)


def rotate(root, service):
    """The root has no systemctl: one that knows the two things that the rotation asks for."""
    path = os.path.join(root, 'usr/local/bin/systemctl')
    with open(path, 'w', encoding='ascii') as file:
        file.write('#!/bin/sh\ncase "$*" in\n"is-active --quiet weir.service") ;;\n'
                   f'"kill --kill-who=main --signal=USR1 weir.service") kill -USR1 {service.process.pid} ;;\n*) exit 1 ;;\nesac\n')
    os.chmod(path, 0o755)
    inside(root, 'logrotate', '--force', '/etc/logrotate.d/weir')
    os.unlink(path)


def use(root):
    """Everything that needs the network of its own in which this is called."""
    service = Service(root)
    service.make_folders()
    target = subprocess.Popen(['chroot', root, '/usr/bin/weir-server-demo', '--http', '9001'])
    try:
        expect(until(lambda: listens(9001)), 'a target')
        service.start()
        expect(True, 'it says READY=1, run by its unit: ' + service.unit['ExecStart'][0])
        status = open(f'/proc/{service.process.pid}/status', encoding='ascii').read()
        expect(re.search(r'^Uid:\t([1-9]\d*)\t\1\t\1', status, re.M), 'it is not root')
        expect(ask('http://127.0.0.1:8000/') == ['200', 'Hello, world!'], 'curl through it')
        expect(ask('http://127.0.0.1:9100/healthz')[0] == '200', 'the admin address answers')

        change(root, r'^threshold = 100$', 'treshold = 100')
        expect(service.reload() == 2 and ask('http://127.0.0.1:8000/')[0] == '200', 'a bad file is refused, and it goes on')
        change(root, r'^treshold = 100$', 'threshold = 2/m')
        change(root, r'^backlog   = 2$', 'backlog = 0')
        change(root, r'^;access_log', 'access_log')
        expect(service.reload() == 0, 'ExecReload')
        service.wait_for('RELOADING')
        service.wait_for('READY')
        answers = [ask('http://127.0.0.1:8000/')[0] for _ in range(4)]
        expect(answers[-1] == '429', f'the new threshold is in force: {answers}')

        log = os.path.join(root, 'var/log/weir/access.log')
        expect(until(lambda: has(log, '"GET / ', 4)), 'the requests are in the access log')
        rotate(root, service)
        expect(until(lambda: ask('http://127.0.0.1:8000/rotated') and has(log, '"GET /rotated ')) and has(log + '.1', '"GET / ', 4),
               'after logrotate it writes to the new file')
        expect(service.stop() == 0, 'SIGTERM ends it with 0')
    finally:
        for process in (target, service.process):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        service.socket.close()
        os.unlink(service.address)


# ---- all of it -----------------------------------------------------------------------------------------------------------

def check(root, packages):
    os.makedirs(os.path.join(root, 'packages'), exist_ok=True)
    for package in glob.glob(packages + '/weir_*.deb'):
        shutil.copy(package, os.path.join(root, 'packages'))
    names = ['/packages/' + name for name in os.listdir(os.path.join(root, 'packages'))]
    expect(len(names) == 1, 'one package of the name weir')
    apt(root, 'install', '--no-install-recommends', 'logrotate')
    before = files(root)
    apt(root, 'install', '--no-install-recommends', *names)
    script = 'ip link set lo up && exec "$0" "$@"'
    run('unshare', '--net', 'sh', '-c', script, sys.executable, os.path.abspath(__file__), '--use', root)
    # Of removing: what is installed for it alone goes as well.
    apt(root, 'remove', '--autoremove', 'weir')
    left = ours(root, before)
    settings = {'etc/weir', 'etc/weir/weir.ini', 'etc/logrotate.d/weir'}
    written = {'var/lib/weir', 'var/log/weir', 'var/log/weir/access.log', 'var/log/weir/access.log.1'}
    enabled = {'etc/systemd/system/multi-user.target.wants/weir.service'} # so that it is again when it is installed again
    expect(settings <= left and left <= settings | written | enabled, f'removed; its settings and logs stay: {sorted(left)}')
    apt(root, 'purge', '--autoremove', 'weir')
    left = ours(root, before)
    expect(not left, f'purged; what is left of it: {sorted(left)}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--packages', help='a folder with packages that were built already')
    parser.add_argument('--root', help='a root to use, or to make and keep')
    parser.add_argument('--use', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.use:
        return use(options.use)
    if os.geteuid() != 0:
        sys.exit('check_package: only root may make a root')
    folder = tempfile.mkdtemp(prefix='weir-package-')
    os.chmod(folder, 0o755)     # the user in the root has to come through
    try:
        if not options.packages:
            build(folder)
        root = options.root or os.path.join(folder, 'root')
        if not os.path.exists(os.path.join(root, 'var/lib/dpkg/status')):
            make_root(root)
        check(root, options.packages or folder)
        say('clean')
    finally:
        shutil.rmtree(folder)
    return None


if __name__ == '__main__':
    main()
