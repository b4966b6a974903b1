"""The commands of a page, played in order by one shell, and what they print compared with what the page shows.

        page ──► unshare: a network and a process table of their own ──► bash ──► command, output, command, output, ...

The network is new and has a loopback interface only: port 8080 is free, whatever runs on the machine, and nothing gets out. The process
table is new, too: process ids are small, and everything that was started is gone with the shell, even if the player is killed. The
folder is new and holds weir, server_demo, client_demo, pktfiles and examples.

A command that ends in & stays until the end of the page. What it prints is not shown, for nobody knows when it comes: a page writes it
to a file (2>weir.log &) and shows that when it has waited for an event. Waiting is for events with a deadline, never for a time. One
comes by itself: when ./weir or ./server_demo was started, the player goes on as soon as somebody listens on each port that the command
names, as a person would who types the next command a second later. The other: a command that only looks at files (LOOKS) is given again for a
while if it shows something else than the page, for a program may write its log a moment after it has answered.

What differs from run to run is made equal before a comparison: see VARIES. An output that is equal then is left as it stands in the page.
"""
import fcntl
import os
import re
import resource
import select
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SECONDS = 60        # for one command
STARTS_SECONDS = 15 # for a server in the background to listen
STARTS = re.compile(r'\./(?:weir|server_demo)\b.*&', re.S)
PORT_FLAG = re.compile(r'--(?:port|http|admin|listen)[ =]')
LOOP = re.compile(r'\bfor \w+ in ([\w ]+);')
LOOKS = re.compile(r'(?:grep|cat|tail|head|sed|awk|cut|sort|uniq|wc|ls) (?!.*[>&])')
PROGRAMS = ('weir', 'server_demo', 'client_demo')
FOLDERS = ('pktfiles', 'examples')
SANITIZER = re.compile(r'ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|runtime error:')

# Dates, times of the clock, spans, process ids, ports that the kernel chose, weir's own random name in Via, and how wide columns are.
VARIES = [(re.compile(pattern), instead) for pattern, instead in (
    (r'\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?', '<time>'),
    (r'(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT', '<time>'),
    (r'\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}', '<time>'),
    (r'^(trace .* (?:read|send) +)\d+ bytes', r'\1<count> bytes'),      # how long a head is: clients say their version
    (r'[ ]\+\d+\.\d{6}\b', ' <span>'),
    (r'(?<![\w.])\d+(?:\.\d+)? ?(?:us|µs|ms|s|seconds?)\b', '<span>'),
    (r'(?<![\w.])\d+\.\d{3}(?![\w.])', '<span>'),
    (r'\(\d+(?:\.\d+)? a second\)', '(<rate>)'),
    (r'\bpid[ =]\d+', 'pid <number>'),
    (r'\b(127\.\d+\.\d+\.\d+|\[::1\]|localhost):(?:3[2-9]\d{3}|[45]\d{4}|6[0-5]\d{3})\b', r'\1:<port>'),
    (r'\bweir-[0-9a-f]{16}\b', 'weir-<name>'),
    (r'[ \t]+', ' '),
    (r'[ \t]+$', ''),
)]


OF_THE_MACHINE = re.compile(r'open files are limited to \d+')       # a line that another machine's weir does not print


class Broken(Exception):
    """A page that cannot be played."""


class NotAllowed(Broken):
    """This machine has no namespaces for us."""


# ---- blocks ------------------------------------------------------------------------------------------------------------------------------

class Rules:
    """How the outputs of a block are compared."""

    def __init__(self, says):
        self.unordered, self.like, self.varies = False, [], []
        rest = says
        while rest:
            found = re.match(r'(unordered|like +/((?:[^/\\]|\\.)+)/|varies +/((?:[^/\\]|\\.)+)/)(?: *, *|$)', rest)
            if not found:
                raise Broken(f'"{rest}": say unordered, like /expression/ or varies /expression/')
            if found[2] is not None:
                self.like.append(re.compile(found[2].replace('\\/', '/')))
            elif found[3] is not None:
                self.varies.append(re.compile(found[3].replace('\\/', '/')))
            else:
                self.unordered = True
            rest = rest[found.end():]

    def _plain(self, lines):
        plain = []
        for line in lines:
            for pattern in self.varies:
                line = pattern.sub('<...>', line)
            for pattern, instead in VARIES:
                line = pattern.sub(instead, line)
            plain.append(line)
        return sorted(plain) if self.unordered else plain

    def complaint(self, line):
        """Why a line that was printed may not be, or None."""
        wrong = [pattern.pattern for pattern in self.like if not pattern.search(line)]
        return f'"{line}" is not like /{wrong[0]}/' if wrong else None

    def same(self, old, new):
        if self.like:
            return bool(old) == bool(new) and not any(self.complaint(line) for line in old)
        return self._plain(old) == self._plain(new)


def split(lines):
    """[(the lines of a command as shown, the lines of its output)] of a block."""
    commands = []
    for line in lines:
        if line.startswith('$ '):
            commands.append(([line], []))
        elif not commands:
            raise Broken('a block of commands begins with "$ "')
        elif line.startswith('> ') and not commands[-1][1]:
            commands[-1][0].append(line)
        else:
            commands[-1][1].append(line)
    return commands


def allowed(programs, scratch=None):
    """Raises NotAllowed where a page cannot be played."""
    with Session(programs, SECONDS, scratch):
        pass


def fill_runs(page, programs, seconds=SECONDS, scratch=None):
    """Plays a page; each block's new lines are what was printed, or what stood there if that is the same. scratch: where its folder
    is made."""
    blocks = page.of_kind('run')
    if not blocks:
        return
    block = blocks[0]
    try:
        with Session(programs, seconds, scratch) as session:
            for block in blocks:
                block.new = play_block(page, block, session)
            session.end()
    except Broken as broken:
        page.complain(block.line, str(broken))


def play_block(page, block, session):
    rules = Rules(block.says)
    new = []
    for shown, old in split(block.old):
        printed = session.look('\n'.join(line[2:] for line in shown), lambda lines, old=old: rules.same(old, lines), bool(old))
        for line in printed:
            wrong = rules.complaint(line)
            if wrong or line.startswith(('$ ', '> ', '```')):
                page.complain(block.line, wrong or f'"{line}" is printed: in a page it would look like something else')
        new += shown + (old if rules.same(old, printed) else printed)
    return new


# ---- the shell ---------------------------------------------------------------------------------------------------------------------------

class Session:
    """One shell, and everything it starts."""

    def __init__(self, programs, seconds, scratch):
        self.seconds = seconds
        self.number = 0
        self.folder = tempfile.mkdtemp(prefix='weir-guide-', dir=scratch)
        for name in PROGRAMS:
            path = os.path.join(os.path.abspath(programs), name)
            if not os.path.exists(path):
                raise Broken(f'there is no {path}: make')
            os.symlink(path, os.path.join(self.folder, name))
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        for name in FOLDERS:
            os.symlink(os.path.join(root, name), os.path.join(self.folder, name))
        # What a shell of the reader's has is not ours to inherit: a proxy in the environment, settings of weir.
        environment = {key: value for key, value in os.environ.items()
                       if not key.lower().endswith('_proxy') and not key.startswith('WEIR')}
        environment.update(LC_ALL='C.UTF-8', TZ='UTC', HOME=self.folder, TERM='dumb', PATH='/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin')
        command = ['unshare', '--net', '--pid', '--fork', '--kill-child=KILL', '--mount-proc']
        if os.geteuid() != 0:
            command += ['--user', '--map-root-user']
        self.errors = open(os.path.join(self.folder, '.errors'), 'wb')     # pylint: disable=consider-using-with
        self.process = subprocess.Popen([*command, sys.executable, '-B', os.path.abspath(__file__)], cwd=self.folder, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)

    def __enter__(self):
        try:
            if self._hear(self.seconds) != 'ready':
                raise NotAllowed(f'namespaces are not allowed here: {self._file(".errors").strip()}')
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, name):
        with open(os.path.join(self.folder, name), encoding='utf-8', errors='backslashreplace') as file:
            return file.read()

    def _hear(self, seconds):
        """The next line from the shell, '' if it has ended."""
        said, deadline = b'', time.monotonic() + seconds
        while not said.endswith(b'\n'):
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Broken(f'still running after {seconds:g} s')
            byte = os.read(self.process.stdout.fileno(), 1)
            if not byte:
                break
            said += byte
        return said.decode().strip()

    def run(self, command):
        """The lines that a command prints, on either stream; none if it goes on in the background."""
        self.number += 1
        output = f'.output-{self.number}'
        listening = self._listening()
        self.process.stdin.write(f'eval {shlex.quote(command)} >{self.folder}/{output} 2>&1 </dev/null\necho {self.number}\n'.encode())
        self.process.stdin.flush()
        try:
            if self._hear(self.seconds) != str(self.number):
                raise Broken('the shell has ended')
        except Broken as broken:
            raise Broken(f'{command}: {broken}; it printed\n{self._file(output)}') from None
        if STARTS.search(command):
            loop = LOOP.search(command)
            self._wait_for(listening + len(PORT_FLAG.findall(command)) * (len(loop[1].split()) if loop else 1))
        if command.rstrip().endswith('&'):
            return []
        lines = [line.rstrip() for line in self._file(output).split('\n') if not OF_THE_MACHINE.search(line)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def look(self, command, is_right, is_known):
        """As run(). What only looks is given again until it is right, or, if nobody knows what is, stays the same for a second."""
        printed = self.run(command)
        if not LOOKS.match(command):
            return printed
        pause, deadline = threading.Event(), time.monotonic() + (self.seconds / 6 if is_known else 1)
        while not (is_known and is_right(printed)) and time.monotonic() < deadline:
            pause.wait(0.05)
            again = self.run(command)
            if again != printed and not is_known:
                deadline = time.monotonic() + 1
            printed = again
        return printed

    def _listening(self):
        """How many TCP sockets of the shell's network listen."""
        try:
            with open(f'/proc/{self.process.pid}/task/{self.process.pid}/children', encoding='ascii') as file:
                shell = file.read().split()[0]
            count = 0
            for name in ('tcp', 'tcp6'):
                with open(f'/proc/{shell}/net/{name}', encoding='ascii') as file:
                    count += sum(line.split()[3] == '0A' for line in file.read().split('\n')[1:] if line)
            return count
        except (OSError, IndexError):
            return 0

    def _wait_for(self, count):
        """Until so many sockets listen. A program that will not is for the commands that follow to show."""
        pause, deadline = threading.Event(), time.monotonic() + STARTS_SECONDS
        while self._listening() < count and time.monotonic() < deadline:
            pause.wait(0.01)

    def end(self):
        """Ends what is still running as a user would. A sanitizer that spoke in a file is a complaint."""
        self.run('for fd in /proc/$$/fd/*; do [ ! -S "$fd" ] || eval "exec ${fd##*/}>&-"; done')
        self.run('for job in $(jobs -p); do kill $job; done 2>/dev/null; wait')
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and SANITIZER.search(self._file(name)):
                raise Broken(f'a sanitizer spoke, in {name}:\n{self._file(name)[-6000:]}')


def inside():
    """In the new namespaces: the loopback interface up, as many open files as weir may want, and on as the shell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        siocsifflags, iff_up = 0x8914, 1
        fcntl.ioctl(sock, siocsifflags, struct.pack('16sh22x', b'lo', iff_up))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
    except (OSError, ValueError):
        pass                            # then weir says so: OF_THE_MACHINE
    os.write(1, b'ready\n')
    os.execvp('bash', ['bash', '--noprofile', '--norc', '-s'])


if __name__ == '__main__':
    inside()
