"""What every system test is given: a Case, which starts weir on free ports, waits for events and cleans up behind
itself.

    def a_dead_target_is_skipped_within_the_same_request(t):
        dead, alive = t.refused(), t.origin(name='alive')
        weir = t.weir(dead, alive)
        t.equal(t.get(weir).body, b'alive')

A test fails by an exception, by a failed check (t.check and t.equal go on, so that a table shows all its bad rows),
when weir does not leave with exit code 0 on SIGTERM, when a sanitizer wrote to its stderr, or when an origin was sent
nonsense. No test sleeps: it waits for an event (a log line, a byte, the end of a stream, a counter at an origin) with
a deadline.
"""
import faulthandler
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import traceback

import contract
from client import Client
from origin import FullBacklog, Origin, Refused
from wire import Late, Unread

LOG_TAIL_LINES = 40


class Skip(Exception):
    """A client tool is not installed."""


def takes(seconds):
    """The time limit of a test that needs more than the usual one."""
    def mark(test):
        test.limit_s = seconds
        return test
    return mark


def until(predicate, seconds, what):
    """Polls predicate until it holds and returns its value; Late after so many seconds. For what gives no event:
    files, /proc, a rotation that must change."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= end:
            raise Late(f'{what}: not within {seconds:g} s')
        pause.wait(0.002)


def clean_environment(extra=()):
    kept = {key: value for key, value in os.environ.items() if not contract.ENVIRONMENT.search(key)}
    return {**kept, **dict(extra)}


class Lines:
    """The lines that a process writes to a pipe, as they come; any thread may wait for one."""

    def __init__(self, pipe):
        self.changed = threading.Condition()
        self.lines = []
        self.ended = False
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe):
        for raw in pipe:
            with self.changed:
                self.lines.append(raw.decode('utf-8', 'backslashreplace').rstrip('\n'))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def text(self):
        with self.changed:
            return '\n'.join(self.lines)

    def wait(self, predicate, seconds):
        """predicate(lines) truthy, or the value at the end of the stream or of the time."""
        with self.changed:
            self.changed.wait_for(lambda: predicate(self.lines) or self.ended, seconds)
            return predicate(self.lines)


class Weir:
    """One running weir."""

    def __init__(self, case, arguments, environment=(), services=1, start_s=10, prefix=()):
        """prefix: what starts the program elsewhere, and becomes it: ip netns exec NAME."""
        self.case = case
        self.arguments = [*prefix, os.path.join(case.bin, 'weir'), *map(str, arguments)]
        self.expected_exit = 0
        self.stopped = False
        self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=clean_environment(environment), cwd=case.tmp)
        case.programs.append(self)
        self.out, self.log = Lines(self.process.stdout), Lines(self.process.stderr)
        case.cleanup(self._finish)
        self.log.wait(lambda lines: len(self._listening(lines)) >= services, case.s(start_s))
        self.ports = list(self._listening(self.log.lines).values())
        if len(self.ports) < services:
            raise AssertionError(f'weir did not say that it listens: {" ".join(self.arguments)}\n'
                                 f'exit {self.process.poll()}\n{self.log.text()}')
        self.port = self.ports[0] if self.ports else 0

    @staticmethod
    def _listening(lines):
        """The ports in the log, each once, by the order in which they were announced."""
        found = {}
        for line in lines:
            match = contract.LISTENS.search(line)
            if match:
                found[int(match['port'])] = int(match['port'])
        return found

    @property
    def pid(self):
        return self.process.pid

    def wait_log(self, pattern, seconds=10, after=0):
        """The first match of pattern in the log lines from number after on. Counted from the start: a line that is
        counted from the end is another one as soon as the log grows."""
        assert after >= 0, f'from line {after} on?'
        seen, found = after, None

        def find(lines):        # is asked again at each new line, and looks at no line twice
            nonlocal seen, found
            while found is None and seen < len(lines):
                found = re.search(pattern, lines[seen])
                seen += 1
            return found
        match = self.log.wait(find, self.case.s(seconds))
        assert match, f'no {pattern!r} in the log, from line {after} of {len(self.log.lines)} on:\n' + \
            '\n'.join(self.log.lines[-5 * LOG_TAIL_LINES:])
        return match

    def signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, seconds=10):
        """The exit code (negative for a signal)."""
        try:
            code = self.process.wait(self.case.s(seconds))
        except subprocess.TimeoutExpired:
            raise Late(f'weir is still there after {self.case.s(seconds):g} s') from None
        self.stopped = True
        for stream in (self.log, self.out):
            stream.wait(lambda lines: False, self.case.s(5))
        return code

    def stop(self, seconds=15):
        """SIGTERM, and the exit code must be 0."""
        self.signal(signal.SIGTERM)
        code = self.wait_exit(seconds)
        assert code == 0, f'weir left with {code} on SIGTERM'

    def status(self, key):
        """A number from /proc/PID/status, such as VmRSS (in kB) or Threads."""
        with open(f'/proc/{self.pid}/status', encoding='ascii') as file:
            return int(re.search(rf'^{key}:\s+(\d+)', file.read(), re.M)[1])

    def _finish(self):
        if not self.stopped:
            if self.process.poll() is not None:
                code = self.wait_exit(1)
                self.case.complain(AssertionError(f'weir ended by itself, exit {code}'))
            else:
                try:
                    self.stop()
                except AssertionError as error:
                    self.case.complain(error)
                    self.process.kill()
                    self.wait_exit()
        if contract.SANITIZER.search(self.log.text()):
            self.case.complain(AssertionError('a sanitizer spoke:\n' + self.log.text()[-8000:]))


class Program:
    """The result of a program that ran to its end."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f'exit {self.code}, stdout {self.out[:2000]!r}, stderr {self.err[:2000]!r}'


class Case:
    def __init__(self, bin_directory, slow, tmp):
        self.bin, self.slow, self.tmp = bin_directory, slow, tmp
        self.programs = []
        self.complaints = []
        self.checks = 0
        self._cleanups = []
        with open(os.path.join(bin_directory, 'weir'), 'rb') as file:
            image = file.read()
        self.sanitized = b'__asan_init' in image or b'__tsan_init' in image
        self.counted = b'__gcov_' in image      # and so not optimised

    # Verdicts

    def s(self, seconds):
        """A deadline, stretched when the program under test is a slow build."""
        return seconds * self.slow

    def complain(self, error):
        self.complaints.append(error)

    def check(self, condition, message):
        self.checks += 1
        if not condition:
            self.complain(AssertionError(message))
        return bool(condition)

    def equal(self, got, wanted, what=''):
        return self.check(got == wanted, f'{what + ": " if what else ""}got {got!r}, wanted {wanted!r}')

    @staticmethod
    def skip(why):
        raise Skip(why)

    # The cast

    def cleanup(self, function):
        """Called at the end, the newest first."""
        self._cleanups.append(function)

    def origin(self, reply=None, **more):
        return Origin(self, reply, **more)

    def origins(self, count, **more):
        return [Origin(self, name=chr(ord('A') + i), **more) for i in range(count)]

    def refused(self):
        return Refused(self)

    def full_backlog(self):
        return FullBacklog(self)

    def weir(self, *targets, environment=(), start_s=10, extra=(), **settings):
        """weir reverse on a free port in front of targets (origins or 'host:port[*weight]'); settings become flags."""
        arguments = ['reverse', '--port', settings.pop('port', 0)]
        if targets:
            arguments += ['--endpoint', ','.join(getattr(target, 'address', target) for target in targets)]
        for key, value in settings.items():
            arguments += ['--' + key.replace('_', '-'), value]
        return Weir(self, [*arguments, *extra], environment, start_s=start_s)

    def weir_of_file(self, text, *arguments, services=1, name='weir.ini', environment=()):
        """weir -c FILE; gives the running weir and the path."""
        path = self.file(name, text)
        return Weir(self, ['-c', path, *arguments], environment, services=services), path

    def run(self, *arguments, program='weir', environment=(), seconds=10, cwd=None):
        """Runs one of weir's programs to its end."""
        return self.run_tool(os.path.join(self.bin, program), *arguments, environment=environment, seconds=seconds,
                             cwd=cwd)

    def run_tool(self, *arguments, environment=(), seconds=20, cwd=None, stdin=None):
        process = subprocess.Popen(list(map(str, arguments)), stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment(environment),
                                   cwd=cwd or self.tmp)
        try:
            out, err = process.communicate(stdin, timeout=self.s(seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Late(f'{arguments} still runs after {self.s(seconds):g} s: {out[-500:]!r} {err[-500:]!r}') from None
        return Program(process.returncode, out, err.decode('utf-8', 'backslashreplace'))

    def start_tool(self, *arguments):
        """A helper process that lives until the end of the test."""
        process = subprocess.Popen(list(map(str, arguments)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, cwd=self.tmp, env=clean_environment())
        def end():
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.cleanup(end)
        return process

    @staticmethod
    def tool(name):
        """The path of a client tool; the test is skipped when it is not installed."""
        path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')
        if not path:
            raise Skip(f'{name} is not installed')
        return path

    def file(self, name, text):
        path = os.path.join(self.tmp, name)
        with open(path, 'w' if isinstance(text, str) else 'wb') as file:
            file.write(text)
        return path

    def client(self, weir, **more):
        client = Client(weir if isinstance(weir, int) else weir.port, self.s(more.pop('seconds', 10)), **more)
        self.cleanup(client.close)
        return client

    def get(self, weir, target='/', method='GET', tls=None, name=None, **more):
        """One request on a connection of its own."""
        client = self.client(weir, tls=tls, name=name)
        try:
            return client.ask(method, target, **more)
        finally:
            client.close()

    @staticmethod
    def free_port():
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            return sock.getsockname()[1]

    # Events

    def until(self, predicate, seconds=10, what='an event'):
        return until(predicate, self.s(seconds), what)

    def read_by_peer(self, *wires, seconds=10):
        """Waits until the other ends of these connections have read all that was sent to them."""
        unread = Unread()
        try:
            for wire in wires:
                self.until(lambda wire=wire: unread.of(wire) == 0, seconds, 'the other end has read everything')
        finally:
            unread.close()

    def parallel(self, functions, seconds=30):
        """Runs functions in threads and gives their results in order; the first exception is raised."""
        results, errors = [None] * len(functions), []
        def run(index, function):
            try:
                results[index] = function()
            except BaseException as error:          # pylint: disable=broad-except
                errors.append(error)
        threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(functions)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + self.s(seconds)
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))
            if thread.is_alive():
                raise errors[0] if errors else Late(f'a thread is still running after {self.s(seconds):g} s')
        if errors:
            raise errors[0]
        return results

    # The end

    def finish(self):
        while self._cleanups:
            try:
                self._cleanups.pop()()
            except BaseException as error:          # pylint: disable=broad-except
                self.complain(error)

    def tails(self):
        """The last log lines of the last two weirs, for the report of a failure."""
        parts = []
        for program in self.programs[-2:]:
            lines = program.log.lines[-LOG_TAIL_LINES:]
            parts.append('\n'.join(['    log of ' + ' '.join(program.arguments)[:500],
                                    *('    | ' + l[:500] for l in lines)]))
        return '\n'.join(parts)


def run_case(test, bin_directory, slow, tmp):
    """Runs one test here; ('passed' | 'failed' | 'skipped', report)."""
    case = Case(bin_directory, slow, tmp)
    _watch(test, case, slow)
    reason = ''
    try:
        test(case)
    except Skip as skip:
        reason = str(skip)
    except BaseException as error:                  # pylint: disable=broad-except
        case.complaints.insert(0, error)
    case.finish()
    if case.complaints:
        shown = [_explain(error) for error in case.complaints[:12]]
        if len(case.complaints) > 12:
            shown.append(f'    and {len(case.complaints) - 12} more')
        return 'failed', '\n'.join([*shown, case.tails()])
    return ('skipped', reason) if reason else ('passed', '')


def _explain(error):
    """The message, and where in the test it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.basename(f.filename).startswith('test_')]
    where = f' ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno}: {frames[-1].line})' if frames else ''
    return '    ' + f'{type(error).__name__}: {error}{where}'.replace('\n', '\n    ')


@functools.lru_cache(None)
def limit_of(test):
    return getattr(test, 'limit_s', 30)


def _watch(test, case, slow):
    """When the time is up: says where every thread stands and what weir logged last, and ends the process."""
    def ring():
        print(f'    still running after {limit_of(test) * slow:g} s', flush=True)
        for error in case.complaints[:5]:
            print(_explain(error))
        print(case.tails(), flush=True)
        faulthandler.dump_traceback(file=1, all_threads=True)
        os._exit(124)
    timer = threading.Timer(limit_of(test) * slow, ring)
    timer.daemon = True
    timer.start()
