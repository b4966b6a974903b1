"""run_demo.sh: what it claims it checks, so a claim that does not hold must end it with 1; and whatever ends it, nothing
that it started stays behind. It is run on programs of the build under test, most of the time without a terminal.

Each run carries a mark in its environment, which everything that it starts inherits, so that what is left is found
even if it has another parent by then.
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import uuid

from harness import clean_environment, takes

DEMO = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..', 'run_demo.sh'))


def _state(pid):
    with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
        return file.read().rsplit(')', 1)[1].split()[0]


class _Marked:
    """The processes of one run. Those that are left at the end of the test are ended, and are a failure."""

    def __init__(self, t):
        self.t = t
        self.mark = 'DEMO_RUN_' + uuid.uuid4().hex
        self.environment = {**clean_environment(), self.mark: 'yes', 'TMPDIR': t.tmp, 'TERM': 'xterm'}
        t.cleanup(self._end)

    def left(self):
        found = {}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/environ', 'rb') as file:
                    marked = self.mark.encode() in file.read()
                if marked and _state(pid) != 'Z':
                    with open(f'/proc/{pid}/cmdline', encoding='utf-8', errors='replace') as file:
                        found[int(pid)] = file.read().replace('\0', ' ').strip()
            except OSError:     # it has ended, or is somebody else's
                pass
        return found

    def _end(self):
        left = self.left()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.t.equal(left, {}, 'what run_demo.sh left behind')


# The shell that a person has: it is still there when the demo has ended. Without it the demo would lead the session, and
# at its end the kernel would send a SIGHUP to what it left behind, which nobody would then see.
SHELL = 'trap : INT; "$@"; echo "ended with $?"; read -r _'


class _OnATerminal(_Marked):
    """run_demo.sh with a terminal of its own, as if somebody sat there."""

    def __init__(self, t, *arguments):
        super().__init__(t)
        self.terminal, other = pty.openpty()
        self.shown = ''
        self.process = subprocess.Popen(['sh', '-c', SHELL, 'sh', DEMO, '--bin', t.bin, *arguments], stdin=other,
                                        stdout=other, stderr=other, env=self.environment, cwd=t.tmp,
                                        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(other)
        t.cleanup(self.hang_up)

    def hang_up(self):
        if self.terminal is not None:
            os.close(self.terminal)
        self.terminal = None

    def read_until(self, pattern, seconds=60):
        """Reads on until the pattern is there, from the start of the output on."""
        end = time.monotonic() + self.t.s(seconds)
        while not re.search(pattern, self.shown):
            assert select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0], \
                f'{pattern!r} is not shown: {self.shown[-1500:]}'
            self.shown += os.read(self.terminal, 65536).decode('utf-8', 'replace')

    def type(self, keys):
        os.write(self.terminal, keys)

    def wait(self):
        """The exit status of the demo, at whose end nothing but the shell may be there."""
        self.read_until(r'ended with \d+\r?\n')
        left = {pid: command for pid, command in self.left().items() if pid != self.process.pid}
        self.t.equal(left, {}, 'processes at the end')
        self.type(b'\n')
        self.process.wait(self.t.s(10))
        return int(re.search(r'ended with (\d+)', self.shown)[1])


def _demo(t, *arguments, programs=None, seconds=60):
    """A run without a terminal, to its end; what it leaves behind fails the test."""
    marked = _Marked(t)
    extra = {marked.mark: 'yes', 'TMPDIR': t.tmp}
    return t.run_tool(DEMO, '--bin', programs or t.bin, *arguments, environment=extra.items(), seconds=seconds)


def _programs(t, **instead):
    """A folder with the programs, some of which are scripts instead."""
    folder = os.path.join(t.tmp, 'programs')
    os.mkdir(folder)
    for name in ('weir', 'server_demo', 'client_demo'):
        path = os.path.join(folder, name)
        if name in instead:
            with open(path, 'w', encoding='utf-8') as file:
                file.write('#!/bin/sh\n' + instead[name].replace('REAL', os.path.join(t.bin, name)) + '\n')
            os.chmod(path, 0o755)
        else:
            os.symlink(os.path.join(t.bin, name), path)
    return folder


def list_names_every_scene_once(t):
    ran = _demo(t, '--list')
    lines = ran.out.decode().splitlines()
    t.equal(ran.code, 0)
    t.equal(_demo(t, '-list').out, ran.out, 'one dash does for two')
    t.equal([line.split()[0] for line in lines], [str(number + 1) for number in range(len(lines))])
    t.equal(len(lines), 18)


def every_chapter_of_the_guide_has_a_scene(t):
    lines = _demo(t, '--list').out.decode().splitlines()
    named = [re.search(r' \(chapters? ([0-9]+(?: and [0-9]+)*)\)$', line) for line in lines]
    t.check(all(named), lines)
    t.equal({int(number) for found in named for number in found[1].split(' and ')}, set(range(1, 15)))


def wrong_options_are_refused_with_what_is_allowed(t):
    for arguments, words in ((['--scene', '0'], 'allowed: 1 to'), (['--scene'], 'nothing follows'),
                             (['--terminals=x'], 'packet, reverse'), (['--terminals', '--keep'], 'do not go with'),
                             (['--nonsense'], 'allowed: --scene'), (['--slow'], 'no terminal')):
        ran = _demo(t, *arguments)
        t.equal((ran.code, ran.out), (2, b''), str(arguments))
        t.check(words in ran.err and ran.err.count('\n') == 1, (arguments, ran.err))


@takes(90)
def a_scene_without_a_terminal_is_plain_and_holds(t):
    ran = _demo(t, '--scene', '6')
    out = ran.out.decode()
    t.equal(ran.code, 0, out + ran.err)
    t.check('Scene 6. ' in out and 'Scene 7. ' not in out, out)
    t.check('$ client_demo -id 1 -revproc ' in out and 'everything was seen to be so' in out, out)
    t.check('FAILED' not in out and '\x1b' not in out, out)


@takes(90)
def a_weir_that_does_not_start_ends_the_demo_with_1(t):
    ran = _demo(t, '--scene', '6', programs=_programs(t, weir='echo "no, not today" >&2; exit 1'))
    t.equal(ran.code, 1)
    t.check('weir does not start' in ran.err and 'no, not today' in ran.err, ran.err)


@takes(90)
def a_claim_that_does_not_hold_ends_the_demo_with_1_and_the_others_are_still_checked(t):
    ran = _demo(t, '--scene', '6', programs=_programs(t, client_demo='REAL "$@"; exit 1'))
    out = ran.out.decode()
    t.equal(ran.code, 1)
    t.check('FAILED six clients, six correct hashes' in out and "ok    each policy's servers took turns" in out, out)
    t.check('1 checks failed' in out, out)


@takes(150)
def the_scenes_of_the_first_and_the_last_chapters_hold(t):
    scenes = ('11', '13', '14', '15', '18')
    ran = _demo(t, *(word for scene in scenes for word in ('--scene', scene)), seconds=120)
    out = ran.out.decode()
    t.equal(ran.code, 0, out + ran.err)
    t.check(all(f'Scene {scene}. ' in out for scene in scenes) and 'FAILED' not in out, out)


@takes(90)
def a_way_out_that_leads_everywhere_fails_the_scene_of_the_tunnels(t):
    weir = 'for word; do shift; case $word in 127.0.0.1:*) word="127.0.0.1:*";; esac; set -- "$@" "$word"; done; exec REAL "$@"'
    ran = _demo(t, '--scene', '14', programs=_programs(t, weir=weir))
    out = ran.out.decode()
    t.equal(ran.code, 1, out + ran.err)
    t.check('FAILED a way to another port of this machine is refused' in out and 'ok    a third is refused' in out, out)


@takes(120)
def a_group_that_passes_its_threshold_fails_the_scene_of_the_three_nodes(t):
    """The nodes are told more than the scene says: all goes well but for the one thing that it is about."""
    weir = 'for word; do shift; [ "$word" != 20 ] || word=30; set -- "$@" "$word"; done; exec REAL "$@"'
    ran = _demo(t, '--scene', '10', programs=_programs(t, weir=weir), seconds=100)
    out = ran.out.decode()
    t.equal((ran.code, out.count('FAILED')), (1, 1), out + ran.err)
    t.check('FAILED in no second, from first to last, did more than 20 start' in out, out)


def _is_interrupted(t, scene, after, keys):
    """^C, once or twice, when the scene has shown this; then it ends, soon and with all that it started."""
    run = _OnATerminal(t, '--scene', str(scene))
    run.read_until(after)
    for key in keys:
        run.type(key)
    t.equal(run.wait(), 130, f'scene {scene}, ^C after {after!r}: {run.shown[-1500:]}')


@takes(150)
def ctrl_c_at_any_point_leaves_no_process(t):
    for scene, after, keys in ((1, 'Scene 1', [b'\x03']), (2, 'client_demo', [b'\x03', b'\x03']),
                               (2, 'target3 was ended', [b'\x03']), (3, 'second 2', [b'\x03']),
                               (5, 'weir reverse', [b'\x03', b'\x03']), (6, r'-id 102', [b'\x03']),
                               (8, r'-id 104', [b'\x03', b'\x03']), (10, 'started', [b'\x03'])):
        _is_interrupted(t, scene, after, keys)
    t.equal(_folders_left(t), [], 'folders of the interrupted runs')


@takes(90)
def a_reader_that_leaves_ends_the_demo_and_leaves_no_process(t):
    marked = _Marked(t)
    process = subprocess.Popen([DEMO, '--bin', t.bin, '--scene', '2'], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=marked.environment, cwd=t.tmp)
    while b'before: 20' not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    t.check(process.wait(t.s(30)) != 0, 'exit status')
    t.equal(marked.left(), {})


@takes(90)
def keep_leaves_what_it_says_and_how_to_end_it(t):
    marked = _Marked(t)
    out = os.path.join(t.tmp, 'out')
    with open(out, 'wb') as file:
        code = subprocess.call([DEMO, '--bin', t.bin, '--scene', '6', '--keep'], stdout=file, stdin=subprocess.DEVNULL,
                               stderr=file, env=marked.environment, cwd=t.tmp, timeout=t.s(60))
    with open(out, encoding='utf-8') as file:
        shown = file.read()
    t.equal(code, 0, shown)
    said = {int(pid): int(port) for pid, port in re.findall(r'pid (\d+) +port (\d+)', shown)}
    t.equal(sorted(said), sorted(marked.left()), shown)
    port = re.search(r'weir +pid \d+ +port (\d+)', shown)[1]
    packet = os.path.join(os.path.dirname(DEMO), 'pktfiles', '1.json')
    t.equal(t.run('-revproc', port, '-pkt', packet, program='client_demo').code, 0, 'it still works')
    subprocess.check_call(['sh', '-c', re.search(r'to end them: (.*)', shown)[1]])
    t.until(lambda: not marked.left(), 20, 'what was kept has ended')


@takes(90)
def slow_goes_on_at_enter_and_not_before(t):
    run = _OnATerminal(t, '--scene', '6', '--slow')
    for command in ('weir packet', *(f'server_demo -id {number}' for number in range(100, 104)),
                    *(f'client_demo -id {number}' for number in range(1, 7))):
        run.read_until(rf'\$ {command} [^\n]*\n[^\n]*\[Enter\] $')
        t.check(not select.select([run.terminal], [], [], 0.1)[0], f'it waits after {command}')
        run.type(b'\n')
    t.equal(run.wait(), 0, run.shown[-1500:])


@takes(120)
def slow_can_be_interrupted_while_it_waits(t):
    """Several times: between the prompt and the reading there is a moment in which a ^C could be overlooked."""
    for _ in range(6):
        run = _OnATerminal(t, '--scene', '6', '--slow')
        run.read_until(r'\[Enter\] $')
        run.type(b'\n')
        run.read_until(r'server_demo [^\n]*\n[^\n]*\[Enter\] $')
        run.type(b'\x03')
        t.equal(run.wait(), 130)
    t.equal(_folders_left(t), [], 'folders of the interrupted runs')


def slow_goes_on_at_the_end_of_the_input_as_well(t):
    """^D instead of Enter."""
    run = _OnATerminal(t, '--scene', '7', '--slow')
    for _ in range(5):
        run.read_until(r'\[Enter\] $')
        run.shown = run.shown[-1:]
        run.type(b'\x04')
    t.equal(run.wait(), 0, run.shown[-1500:])


@takes(120)
def the_panes_of_terminals_show_what_they_should(t):
    t.tool('tmux')
    for form, checks in (('packet', 15), ('reverse', 10)):
        ran = _demo(t, f'--terminals={form}')
        out = ran.out.decode()
        t.equal((ran.code, out.count('  ok '), out.count('FAILED')), (0, checks, 0), out + ran.err)


class _Terminals(_OnATerminal):
    """--terminals, shown on a terminal large enough for all panes."""

    def __init__(self, t):
        t.tool('tmux')
        super().__init__(t, '--terminals')
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 64, 240, 0, 0))

    def of_demo(self):
        """The demo's own process: the one that the shell started."""
        with open(f'/proc/{self.process.pid}/task/{self.process.pid}/children', encoding='ascii') as file:
            return int(file.read().split()[0])


@takes(120)
def terminals_are_attached_to_a_terminal_and_all_ends_with_ctrl_b_d(t):
    run = _Terminals(t)
    run.read_until('Hash of payload is correct')
    run.type(b'\x03')       # goes to the program in the pane, not to the demo
    run.type(b'\x02d')
    t.equal(run.wait(), 0, run.shown[-1500:])
    t.equal(_folders_left(t), [], 'folders of the run')


def _folders_left(t):
    """ThreadSanitizer's runtime makes a file for a moment at each start, and a signal may come in that moment."""
    return [name for name in os.listdir(t.tmp) if not name.startswith('tsan.rodata.')]


@takes(150)
def terminals_that_are_interrupted_leave_no_process(t):
    """While the panes are opened, while programs are started in them, and when they are shown: by ^C as long as tmux has
    not got the terminal, by a signal to the demo, and because the terminal is gone."""
    for after, keys in (('In terminals', b'\x03'), ('weir: it listens', b'\x03\x03'), ('server102: it is set up', b'\x03')):
        run = _Terminals(t)
        run.read_until(after)
        run.type(keys)
        t.equal(run.wait(), 130, after)
    run = _Terminals(t)
    run.read_until('Hash of payload is correct')
    os.kill(run.of_demo(), signal.SIGTERM)
    t.equal(run.wait(), 143, 'SIGTERM')
    run = _Terminals(t)
    run.read_until('Hash of payload is correct')
    run.hang_up()
    t.until(lambda: not run.left(), 30, 'all has ended without a terminal')
    t.equal(_folders_left(t), [], 'folders of the interrupted runs')


@takes(90)
def keep_that_is_interrupted_keeps_nothing(t):
    run = _OnATerminal(t, '--scene', '6', '--keep')
    run.read_until('-id 102')
    run.type(b'\x03')
    t.equal(run.wait(), 130, run.shown[-1500:])
    t.equal(_folders_left(t), [], 'folders of the interrupted run')
