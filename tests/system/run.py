#!/usr/bin/env python3
"""Runs the system tests: every function in tests/system/test_*.py whose name does not begin with an underscore.

    tests/system/run.py --bin DIR [--slow-factor X] [-k SUBSTRING[,SUBSTRING]] [-j N] [--stop] [--list]

DIR holds weir, server_demo and client_demo. Each test runs in a process of its own, in a process group of its own and
with a directory of its own, so that a test that hangs is ended with everything it started. The last line is "N
passed, N failed"; ", N skipped" follows when a client tool is not installed. Exit 0 only if a test ran and none
failed.

Many tests run at once and watch clocks, on machines that others use, too. So when at most MOST_AGAIN of them failed,
each gets one more try, alone; one that then passes is named "unsteady", with the report of its failure, and counts as
passed. Until it is known which of the two it is, a test that failed is told as "again", and its report at the end. What a sanitizer found, and a program that crashed, are never forgiven. With STRICT=1 in the environment nothing
is: that is for finding out what is unsteady.
"""
import argparse
import glob
import importlib
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)

import contract  # noqa: E402  pylint: disable=wrong-import-position
import harness  # noqa: E402  pylint: disable=wrong-import-position

EXIT = {'passed': 0, 'failed': 1, 'skipped': 77}
GRACE_S = 15    # for a test's own watchdog to speak before the runner ends it
MOST_AGAIN = 3
UNFORGIVEN = re.compile(contract.SANITIZER.pattern + '|a sanitizer spoke|ended by itself|left with -|exit -')


def collect(substrings):
    tests = []
    for path in sorted(glob.glob(os.path.join(HERE, 'test_*.py'))):
        name = os.path.basename(path)[:-3]
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            if callable(value) and not attribute.startswith('_') and getattr(value, '__module__', '') == name \
                    and not isinstance(value, type):
                full = f'{name}: {attribute}'
                if any(each in full or each in full.replace('_', ' ') for each in substrings):
                    tests.append((full, value))
    return tests


class Running:
    """A test in its child process."""

    def __init__(self, name, test, options, scratch):
        self.name, self.test = name, test
        self.tmp = tempfile.mkdtemp(dir=scratch)
        self.output = tempfile.TemporaryFile()
        self.started = time.monotonic()
        self.deadline = self.started + harness.limit_of(test) * options.slow_factor + GRACE_S
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(options)
        self.handle = os.pidfd_open(self.pid)

    def _child(self, options):
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(self.output.fileno(), 1)
        os.dup2(self.output.fileno(), 2)
        code = 1
        try:
            verdict, report = harness.run_case(self.test, options.bin, options.slow_factor, self.tmp)
            print(report, flush=True)
            code = EXIT[verdict]
        finally:
            sys.stdout.flush()
            os._exit(code)

    def end(self):
        """Ends the whole group (its leader is not reaped yet, so its number can't belong to anyone else)."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def verdict(self):
        self.end()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.handle)
        self.output.seek(0)
        report = self.output.read().decode('utf-8', 'backslashreplace').strip('\n')
        code = os.waitstatus_to_exitcode(status)
        shutil.rmtree(self.tmp, ignore_errors=True)
        return {0: 'passed', 77: 'skipped'}.get(code, 'failed'), report


def tell(child, verdict, report):
    seconds = time.monotonic() - child.started
    word = {'passed': 'ok     ', 'failed': 'again  ', 'skipped': 'skipped'}[verdict]
    print(f'{word} {seconds:6.2f} s  {child.name.replace("_", " ")}')
    if verdict == 'skipped':
        print(report)
    sys.stdout.flush()


def passes_alone(one, options, scratch):
    """The test's second try; its report is added to the first's."""
    name, test, _ = one
    child = Running(name, test, options, scratch)
    try:
        select.select([child.handle], [], [], max(0.0, child.deadline - time.monotonic()))
    finally:
        child.end()
    verdict, report = child.verdict()
    tell(child, verdict, report)
    if verdict != 'passed':
        one[2] += '\nand alone:\n' + report
    return verdict == 'passed'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bin', required=True, help='directory of the programs under test')
    parser.add_argument('--slow-factor', type=float, default=1.0, help='stretches every deadline (sanitizer builds)')
    parser.add_argument('-k', default='', metavar='SUBSTRING', help='only tests whose name contains this, or one of these')
    parser.add_argument('-j', type=int, default=2 * (os.cpu_count() or 1) + 2, metavar='N', help='tests at once')
    parser.add_argument('--stop', action='store_true', help='end at the first that fails')
    parser.add_argument('--list', action='store_true', help='print the names and leave')
    options = parser.parse_args()
    options.bin = os.path.abspath(options.bin)

    tests = collect(options.k.split(','))
    if options.list:
        for name, _ in tests:
            print(name.replace('_', ' '))
        return 0
    if not os.access(os.path.join(options.bin, 'weir'), os.X_OK):
        print(f'{options.bin}/weir is not there')
        print('0 passed, 0 failed')
        return 1

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    scratch = tempfile.mkdtemp(prefix='weir-system-')
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    failed, unsteady = [], []
    # The long ones first: the whole is then over sooner.
    waiting = sorted(tests, key=lambda pair: -harness.limit_of(pair[1]))
    running = {}
    try:
        while (waiting or running) and not (options.stop and failed):
            while waiting and len(running) < max(1, options.j):
                child = Running(*waiting.pop(0), options, scratch)
                running[child.handle] = child
            pause = max(0.0, min(child.deadline for child in running.values()) - time.monotonic())
            done = select.select(list(running), [], [], pause)[0]
            if not done:
                for child in running.values():
                    if time.monotonic() >= child.deadline:
                        child.end()
                continue
            for handle in done:
                child = running.pop(handle)
                verdict, report = child.verdict()
                counts[verdict] += 1
                tell(child, verdict, report)
                if verdict == 'failed':
                    failed.append([child.name, child.test, report])
        if len(failed) <= MOST_AGAIN and not options.stop and not os.environ.get('STRICT'):
            unsteady = [one for one in failed if not UNFORGIVEN.search(one[2]) and passes_alone(one, options, scratch)]
            failed = [one for one in failed if one not in unsteady]
            counts['failed'] -= len(unsteady)
            counts['passed'] += len(unsteady)
    finally:
        for child in running.values():
            child.end()
        shutil.rmtree(scratch, ignore_errors=True)
        for what, those in (('unsteady', unsteady), ('FAILED', failed)):
            for name, _, report in those:
                print(f'{what}: {name.replace("_", " ")}\n{report}')
    line = f'{counts["passed"]} passed, {counts["failed"]} failed'
    print(line + (f', {counts["skipped"]} skipped' if counts['skipped'] else ''))
    return 0 if counts['passed'] and not counts['failed'] else 1


if __name__ == '__main__':
    sys.exit(main())
