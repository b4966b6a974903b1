"""Puts a fault under each place of weir that a scenario reaches, one at a time, and looks at what comes of it.

    for each place, for each error that its call can have:
        the next call there fails ─► the step that reaches it: any proper answer will do, or a close (but after EINTR only
        the right one) ─► the same step, undisturbed, is answered as ever ─► descriptors, threads and blocks of memory are
        what they were

What grew is looked at again: the same fault three times more, and it is a leak if it grows each time.

Most places are deep in libraries (of 3,700, a TLS handshake has 1,700), and what weir does about them is the same for
many. So a part of the walk can be asked for: every n-th place of weir's own, and every m-th of its libraries, counted by
their keys, so that the same ones are walked each time.
"""
import collections
import errno
import signal
import time

from fault_scenario import CLOSED, RESET, SERVICES, Scenario
from harness import Weir

STEP_S = 0.25       # for a step to come by its place once more
SETTLE_S = 1
REPEATS = 3
OTHERS = ('get', 'admin')   # what must work after a fault besides the step itself, every now and then
OTHERS_EVERY = 25


class Walk:
    def __init__(self, t, own_every=1, library_every=1, part=0, say=lambda line: None, only='', rounds=3):
        """part: which of the parts; only: steps whose name contains this; rounds: how often
        each step is run to find its places."""
        self.t, self.every, self.part, self.say, self.only = t, (library_every, own_every), part, say, only
        self.rounds = rounds
        self.scenario = Scenario(t)
        self.faults = self.scenario.faults
        self.findings = []
        self.counts = collections.Counter()
        self.places = {}        # key -> (place, step)

    def whole_run(self):
        self.start()
        self.record()
        self.walk()

    # Finding the places

    def start(self):
        self.scenario.start()
        self.scenario.warm_up(self.rounds)

    def record(self):
        with self.faults.recording():
            for name in self.scenario.steps:
                for _ in range(self.rounds):
                    self.scenario.until_well(name)
                for key, place in self.faults.places().items():
                    self.places.setdefault(key, (place, name))

    def chosen(self):
        """Those of this part, by steps."""
        order = sorted(self.places.values(), key=lambda pair: (pair[1], pair[0].call, pair[0].key))
        return [(place, step) for place, step in order
                if place.key // 2 % self.every[place.is_own] == self.part % self.every[place.is_own] and self.only in step]

    # The walk

    def walk(self):
        baseline = self.scenario.held()
        for number, (place, step) in enumerate(self.chosen()):
            self.counts['places'] += 1
            for error in place.errors:
                try:
                    self._try(place, step, error)
                    if number % OTHERS_EVERY == 0:
                        for name in OTHERS:
                            self.scenario.until_well(name)
                    baseline = self._compare(place, step, error, baseline)
                except AssertionError as problem:
                    self._note(place, step, error, f'{problem}')
                    baseline = self._begin_again()
                if self.scenario.weir.process.poll() is not None:
                    self._note(place, step, error, f'the process ended: {self.scenario.weir.process.poll()}')
                    baseline = self._begin_again()

    def _try(self, place, step, error):
        """One fault. True when it happened."""
        self.faults.arm(place, error)
        end = time.monotonic() + self.t.s(STEP_S)
        outcome = None
        while self.faults.fired == 0 and time.monotonic() < end:
            outcome = self.scenario.outcome(step)
        fired = self.faults.fired > 0
        self.faults.disarm()
        self.counts['faults' if fired else 'not reached'] += 1
        if fired:
            self._judge(place, step, error, outcome)
            self.scenario.until_well(step)
        return fired

    def _judge(self, place, step, error, outcome):
        if error == errno.EINTR and not self._may_be_well(place, step, outcome):
            self._note(place, step, error, f'a signal that came between is noticed outside: {outcome}')
        for status in outcome:
            if status != 200:
                self.counts[f'{step}: {status}'[:60]] += 1
                if status in (CLOSED, RESET):
                    self.say(f'{status}: {step}: errno {error}: {self.faults.describe(place)}')

    def _may_be_well(self, place, step, outcome):
        """A cap may be full still with what the step before opened: only what goes wrong each time is the fault's."""
        for _ in range(REPEATS):
            if self.scenario.is_well(outcome):
                return True
            self.scenario.until_well(step)
            self.faults.arm(place, errno.EINTR)
            outcome = self.scenario.outcome(step)
            self.faults.disarm()
        return self.scenario.is_well(outcome)

    def _grown(self, baseline):
        held = self.scenario.held()
        return [count - before for count, before in zip(held, baseline)]

    def _has_settled(self, baseline):
        end = time.monotonic() + self.t.s(SETTLE_S)
        while any(grown > 0 for grown in self._grown(baseline)):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def _compare(self, place, step, error, baseline):
        """Has anything been left behind? Gives what is held now."""
        if self._has_settled(baseline):
            return baseline
        growth = []
        for _ in range(REPEATS):
            before = self.scenario.held()
            if not self._try(place, step, error):
                break
            self._has_settled(before)
            growth.append(self._grown(before))
        for index, what in enumerate(('descriptors', 'threads', 'blocks of memory')):
            if len(growth) == REPEATS and all(grown[index] > 0 for grown in growth):
                self._note(place, step, error, f'leaves {growth} {what} behind')
        return [max(pair) for pair in zip(self.scenario.held(), baseline)]

    def _note(self, place, step, error, what):
        self.findings.append(f'{step}: errno {error}: {self.faults.describe(place)}: {what}')
        self.say('FOUND ' + self.findings[-1])

    def _begin_again(self):
        """After a death, or something that does not come back."""
        self.faults.disarm()
        weir = self.scenario.weir
        if weir.process.poll() is None:
            weir.process.kill()
        weir.process.wait()
        weir.stopped = True
        self.start()
        return self.scenario.held()

    # The start

    def whole_start(self):
        """Each start either says in one line why it failed, or serves."""
        self.faults.set('recording', 1)
        self.scenario.start()
        self.faults.set('recording', 0)
        self.scenario.weir.stop()
        self.places = {key: (place, 'start') for key, place in self.faults.places().items()}
        for place, step in self.chosen():
            self.counts['places'] += 1
            for error in place.errors[:1]:
                self.faults.arm(place, error)
                problem = self._start_once()
                self.counts['faults' if self.faults.fired else 'not reached'] += 1
                self.faults.disarm()
                if problem:
                    self._note(place, step, error, problem)

    def _start_once(self):
        try:
            weir = Weir(self.t, self.scenario.arguments, self.faults.environment, services=0, start_s=0)
        except AssertionError as problem:
            return f'{problem}'
        weir.stopped = True     # its end is looked at here
        whole = len(SERVICES)
        lines = weir.log.wait(lambda lines: sum('listens on' in line for line in lines) >= whole and lines or None, self.t.s(10))
        code = weir.process.poll()
        if lines is None:
            try:
                code = weir.process.wait(self.t.s(5))
            except Exception:                       # pylint: disable=broad-except
                weir.process.kill()
                weir.process.wait()
                return f'neither serves nor ends: {weir.log.lines[-5:]}'
            errors = [line for line in weir.log.lines if line.startswith('weir: ')]
            self.counts[f'start: ended with {code}'] += 1
            return '' if code in (1, 2) and len(errors) == 1 else f'ended with {code}, {weir.log.lines[-5:]}'
        weir.signal(signal.SIGTERM)
        try:
            code = weir.process.wait(self.t.s(15))
        except Exception:                           # pylint: disable=broad-except
            weir.process.kill()
            weir.process.wait()
            return 'does not end on SIGTERM'
        # The console comes last: what it lacks is said when the services listen already.
        errors = [line for line in weir.log.lines if line.startswith('weir: ')]
        self.counts['start: serves' if code == 0 else f'start: ended with {code}'] += 1
        good = code == 0 and not errors or code == 1 and len(errors) == 1
        return '' if good else f'listened, and left with {code}, {weir.log.lines[-5:]}'
