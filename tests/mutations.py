#!/usr/bin/env python3
"""mutations.py: change the ideas in one small place at a time, and see that a test notices.

    mutations.py --objects BUILD --compile "CC FLAGS" --link "CC FLAGS" --libs "..." [--every N] [--seed S] [--list] [FILE ...]

Coverage tells which lines the tests ran, not whether a test would have minded had they done something else. So each
comparison, constant, sign and connective of balancer.c, limiter.c and cluster.c is changed here, and each statement
taken away, one at a time:

    <  becomes <= and >=     ==  !=      &&  ||      +  -      *  /      ++  --      +=  -=      true  false
    n  becomes n + 1 and 0   if (x) becomes if (!(x))           !x becomes x                     f(x); and a = b; go

The mutant is compiled and linked with the file's own unit tests; for cluster.c a little of the simulation is run, too. A
mutant that compiles to the very same code as its original, or as another mutant, is no mutant. Those that no test
notices are survivors. Each must stand, with a reason, in mutations.txt beside this script: a change that is no fault (of two
equal ones it does not matter which), or one that only a person can judge. A survivor without a reason is a hole in the
tests, and then this ends with 1; so it does when a reason is there for a change that can't be made any more.

Locks are left alone: that one is missing is clang's to find (make lint). Tests that run many threads are left out, for what
they notice depends on the machine.

--every N tries each N-th only, beginning with the S-th. Deadlines are of processor time, by what the unchanged file takes.
"""
import argparse
import concurrent.futures
import hashlib
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REASONS = os.path.join(HERE, 'mutations.txt')

# file: what judges it, the quick first: (a unit test, UNIT_ONLY, UNIT_NOT), or the simulation.
SLOW_LIMITER = ('whenever_a_client_was_refused', 'changes_under_load', 'random_worlds', 'plain_model', 'saturated')
SLOW_CLUSTER = ('more_nodes_than_a_group', 'sixty_four_nodes')
SIMULATION = 'simulation'
JUDGES = {
    'balancer.c': [('test_balancer', '', 'many_threads')],
    'limiter.c': [('test_limiter', '', ','.join(SLOW_LIMITER + ('many_threads',))),
                  ('test_limiter_given', '', 'plain_model,many_threads'),
                  ('test_limiter_given', 'plain_model', ''),
                  ('test_limiter', ','.join(SLOW_LIMITER), '')],
    'cluster.c': [('test_cluster_memory', '', 'random_lives'),
                  ('test_cluster', '', ','.join(SLOW_CLUSTER)),
                  ('test_cluster_memory', 'random_lives', ''),
                  (SIMULATION, '', ''),
                  ('test_cluster', ','.join(SLOW_CLUSTER), '')],
}
SIMULATED = ['--hours', '1', '--seed', '1', '--jobs', '1']
MEMORY_BYTES = 2 << 30
WALL_S = 120            # for what neither ends nor works

SWAPS = {'<': ('<=', '>='), '<=': ('<', '>'), '>': ('>=', '<='), '>=': ('>', '<'), '==': ('!=',), '!=': ('==',),
         '&&': ('||',), '||': ('&&',), '+': ('-',), '-': ('+',), '*': ('/',), '/': ('*',), '%': ('*',),
         '++': ('--',), '--': ('++',), '+=': ('-=',), '-=': ('+=',), 'true': ('false',), 'false': ('true',),
         '<<': ('>>',), '>>': ('<<',), '|=': ('&=',), '&=': ('|=',)}
TOKEN = re.compile(r'''(?P<skip>/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])+')|(?P<word>[A-Za-z_]\w*)|'''
                   r'''(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)(?P<suffix>[uUlLfF]*)|'''
                   r'''(?P<sign><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%<>=!&|^~?:;,.(){}\[\]])''', re.S)
FUNCTION = re.compile(r'^[a-z][\w *]*?(\w+)\([^;{}]*\)\s*\n\{\n(.*?)^\}', re.S | re.M)
DEFINE = re.compile(r'^#define[ \t]+\w+[ \t]+(.*?)(?:/\*.*)?$', re.M)
STATEMENT = re.compile(r'^(\t+)((?:\*?\(?[a-z_][^;{}\n]*?(?: [-+|&]?= |\+\+|--|\()[^;{}\n]*|continue|break);)(?=[ \t]*(?:/\*.*)?$)', re.M)
DECLARATION = re.compile(r'(?:const |static |struct |enum |unsigned |uint|int|bool |size_t |double |char |void |return\b|if\b|for\b|while\b|'
                         r'else\b)')
LOCKS = re.compile(r'\w+_(?:un)?lock\(')


class Mutant:
    def __init__(self, file, function, text, start, end, put):
        line_start = text.rfind('\n', 0, start) + 1
        line_end = text.index('\n', end)
        self.file, self.function = file, function
        self.line = text.count('\n', 0, start) + 1
        self.before = text[line_start:line_end].strip()
        self.text = text[:start] + put + text[end:]
        self.after = (text[line_start:start] + put + text[end:line_end]).strip()
        self.again = 1 + text[text.rfind('\n{\n', 0, start):line_start].split('\n').count(text[line_start:line_end]) \
            if function else 1

    def key(self):
        return (self.file, self.function, self.again, self.before, self.after)

    def __str__(self):
        place = ' '.join([self.file, self.function or '#define', *([str(self.again)] if self.again > 1 else [])])
        return f'{place}\n- {self.before}\n+ {self.after}'


def mutants_of_piece(file, function, text, start, end):
    before = ''
    for match in TOKEN.finditer(text, start, end):
        token = match.group()
        if match['number']:
            value = float(match['number']) if '.' in match['number'] else int(match['number'], 0)
            for put in {f'{value + 1}', '0'} - {match['number']}:
                yield Mutant(file, function, text, match.start('number'), match.end('number'), put)
        elif token in SWAPS:
            # A sign or a star in front of an operand is no operator.
            if token not in '+-*&' or re.match(r'[\w)\]]', before[-1:] or '('):
                for put in SWAPS[token]:
                    yield Mutant(file, function, text, match.start(), match.end(), put)
        elif token == '!':
            yield Mutant(file, function, text, match.start(), match.end(), '')
        if not match['skip']:
            before = token


def closing(text, at):
    depth = 0
    while True:
        depth += {'(': 1, ')': -1}.get(text[at], 0)
        if depth == 0:
            return at
        at += 1


def mutants_of(file, text):
    for match in DEFINE.finditer(text):
        yield from mutants_of_piece(file, '', text, match.start(1), match.end(1))
    for match in FUNCTION.finditer(text):
        name, start, end = match[1], match.start(2), match.end(2)
        yield from mutants_of_piece(file, name, text, start, end)
        for condition in re.finditer(r'\b(?:if|while) (\()', text[start:end]):
            at = start + condition.start(1)
            last = closing(text, at)
            if not re.search(r'[<>]|[=!]=|&&|\|\||!', text[at:last].replace('->', '')):
                yield Mutant(file, name, text, at + 1, last, f'!({text[at + 1:last]})')
        for statement in STATEMENT.finditer(text, start, end):
            if not DECLARATION.match(statement[2]) and not LOCKS.match(statement[2]):
                yield Mutant(file, name, text, statement.start(2), statement.end(2), ';')


def read_reasons():
    """{key: reason}. A reason is a paragraph that begins with '# '; the changes that it is for follow it, as they are
    printed here."""
    reasons, reason, place, before, is_new = {}, '', None, '', True
    with open(REASONS) as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip('\n')
            if line.startswith('# '):
                reason = line[2:] if is_new else f'{reason} {line[2:]}'
                is_new = False
                continue
            is_new = True
            if line.startswith('- '):
                before = line[2:]
            elif line.startswith('+ '):
                if not reason or not place:
                    sys.exit(f'{REASONS}:{number}: a change without a place or a reason')
                key = (*place, before, line[2:])
                if key in reasons:
                    sys.exit(f'{REASONS}:{number}: stands there twice')
                reasons[key] = reason
            elif line:
                words = line.split()
                place = (words[0], '' if words[1] == '#define' else words[1], int(words[2]) if len(words) > 2 else 1)
    return reasons


class Bench:
    """Makes one file's mutants, and lets the tests judge them."""

    def __init__(self, file, arguments, scratch):
        self.file, self.arguments, self.scratch = file, arguments, scratch
        self.object = file.replace('.c', '.o')
        self.cpu_s = {}
        with open(file) as source:
            self.text = source.read()
        compiled = self.compile(self.text, os.path.join(scratch, 'whole'))
        if compiled is None:
            sys.exit(f'mutations.py: {file} does not compile')
        self.whole, folder = compiled
        for judge in JUDGES[file]:
            began = resource.getrusage(resource.RUSAGE_CHILDREN)
            word = self.judge(judge, folder, None)
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            if word:
                sys.exit(f'mutations.py: {file} as it is does not pass {judge}: {word}')
            self.cpu_s[judge] = int(3 * (ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)) + 2

    def compile(self, text, folder):
        """The hash of the object, and where it is; None if it does not compile."""
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        with open(os.path.join(folder, self.file), 'w') as file:
            file.write(text)
        command = [*shlex.split(self.arguments.compile), '-w', '-g0', '-c', '-o', os.path.join(folder, self.object), self.file]
        # The same name in the same place: else the object would tell where it was made.
        command[-1] = os.path.join(folder, self.file)
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode != 0:
            return None
        with open(os.path.join(folder, self.object), 'rb') as file:
            return hashlib.sha256(file.read()).digest(), folder

    def judge(self, judge, folder, cpu_s):
        """Why the mutant was noticed; '' if it was not."""
        name, only, left_out = judge
        own = os.path.join(self.arguments.objects, self.object)
        if name == SIMULATION:
            parts = os.path.join(self.arguments.objects, 'tests/sim')
            objects = [os.path.join(parts, each) for each in sorted(os.listdir(parts)) if each.endswith('.o')]
            objects += [os.path.join(self.arguments.objects, each) for each in ('cluster.o', 'limiter.o', 'cluster_wire.o')]
            run, libs = SIMULATED, self.arguments.libs
        else:
            unit = os.path.join(self.arguments.objects, 'tests/unit')
            objects = [os.path.join(unit, name + '.o'), os.path.join(unit, 'unit.o'), own]
            run, libs = [], '-lcunit ' + self.arguments.libs
        objects = [os.path.join(folder, self.object) if each == own else each for each in objects]
        program = os.path.join(folder, name)
        if not os.path.exists(program):
            subprocess.run([*shlex.split(self.arguments.link), '-o', program, *objects, *shlex.split(libs)], check=True)

        def limit():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            if cpu_s:
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        environment = {**os.environ, 'UNIT_STOP': '1', 'UNIT_NOT': left_out, 'UNIT_SECONDS': str(WALL_S)}
        if only:
            environment['UNIT_ONLY'] = only
        try:
            done = subprocess.run([program, *run], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=WALL_S, preexec_fn=limit)
        except subprocess.TimeoutExpired:
            return 'it hung'
        if done.returncode == 0:
            return ''
        told = re.search(rb'FAILED \S+: (\S+)|CRASHED: (\S+)|TOO LONG: (\S+)', done.stdout + done.stderr)
        return (told[0].decode() if told else f'{name} ended with {done.returncode}')

    def try_one(self, mutant):
        """('same' | 'broken' | 'noticed' | 'survived', more)"""
        folder = tempfile.mkdtemp(dir=self.scratch)
        try:
            compiled = self.compile(mutant.text, os.path.join(folder, 'it'))
            if compiled is None:
                return 'broken', ''
            if compiled[0] == self.whole:
                return 'same', ''
            for judge in JUDGES[self.file]:
                word = self.judge(judge, compiled[1], self.cpu_s[judge])
                if word:
                    return 'noticed', word
            return 'survived', ''
        finally:
            shutil.rmtree(folder)


def try_file(file, arguments, reasons, scratch):
    """How many survived without a reason."""
    began = time.monotonic()
    bench = Bench(file, arguments, scratch)
    every = list(mutants_of(file, bench.text))
    tried = every[arguments.seed % arguments.every::arguments.every]
    if arguments.survivors:
        tried = [each for each in tried if each.key() in reasons]
    counts = {'same': 0, 'broken': 0, 'noticed': 0, 'survived': 0}
    unexplained = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (verdict, word) in zip(tried, pool.map(bench.try_one, tried)):
            counts[verdict] += 1
            reason = reasons.get(mutant.key())
            if verdict == 'survived' and reason is None:
                unexplained += 1
                print(f'SURVIVED, line {mutant.line}:\n{mutant}\n', flush=True)
            if verdict != 'survived' and reason is not None:
                print(f'{verdict} ({word}), although there is a reason why not:\n{mutant}\n', flush=True)
            if arguments.verbose:
                print(f'{verdict} {word}\n{mutant}\n', flush=True)
    known = {mutant.key() for mutant in every}
    stale = [key for key in reasons if key[0] == file and key not in known]
    for key in stale:
        print(f'a reason for what can\'t be changed so any more: {key}')
    print(f'{file}: {len(tried)} of {len(every)} mutants: {counts["noticed"]} noticed, {counts["survived"]} survived '
          f'({unexplained} without a reason), {counts["same"]} the same code, {counts["broken"]} did not compile; '
          f'{time.monotonic() - began:.0f} s', flush=True)
    return unexplained + len(stale)


def main():
    parser = argparse.ArgumentParser()
    for name in ('--objects', '--compile', '--link', '--libs'):
        parser.add_argument(name, required=True)
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--list', action='store_true', help='print the mutants and leave')
    parser.add_argument('--survivors', action='store_true', help='only those that there is a reason for')
    parser.add_argument('--verbose', action='store_true', help='say of each what noticed it')
    parser.add_argument('files', nargs='*')
    arguments = parser.parse_args()
    files = arguments.files or list(JUDGES)
    if arguments.list:
        for file in files:
            with open(file) as source:
                for mutant in mutants_of(file, source.read()):
                    print(f'{mutant}\n')
        return 0
    reasons = read_reasons()
    scratch = tempfile.mkdtemp(prefix='weir-mutations-')
    try:
        return 1 if sum(try_file(file, arguments, reasons, scratch) for file in files) else 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


sys.exit(main())
