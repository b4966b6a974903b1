#!/usr/bin/env python3
"""mutations.py: change the ideas in one small place at a time, and see that a test notices.

    mutations.py --objects BUILD --bin FOLDER --compile "CC FLAGS" --link "CC FLAGS" --libs "..." --weir "OBJECTS"
                 [--every N] [--seed S] [--functions NAME,NAME] [--quick] [--survivors] [--list] [FILE ...]

Coverage tells which lines the tests ran, not whether a test would have minded had they done something else. So each
comparison, constant, sign and connective of balancer.c, limiter.c, cluster.c and proxy.c is changed here, and each
statement taken away, one at a time:

    <  becomes <= and >=     ==  !=      &&  ||      +  -      *  /      ++  --      +=  -=      true  false
    n  becomes n + 1 and 0   if (x) becomes if (!(x))           !x becomes x                     f(x); and a = b; go

All mutants of a file are compiled into one program with the file's own unit tests: each function is there once for each of its
mutants, and the environment says which of them is called. For cluster.c a little of the simulation is run, too; proxy.c is judged
by system tests of a weir with its mutants in it. Those that nobody notices are survivors. Each must stand, with a reason, in
mutations.txt beside this script: a change that is no fault (of two equal ones it does not matter which), or one that only a person
can judge. A survivor without a reason is a hole in the tests, and then this ends with 1; so it does when a reason is there for a
change that can't be made any more.

Locks are left alone: that one is missing is clang's to find (make lint). Tests that run many threads are left out, for what
they notice depends on the machine.

--every N tries one of N, by a number made of the change itself, and S: the same ones as long as their lines are the same. --quick has
them judged by the quick tests only, and tells of more survivors. What has a reason is not tried, but for --survivors: those alone.
Deadlines are of processor time, by what the unchanged file takes.
"""
import argparse
import concurrent.futures
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
REASONS = os.path.join(HERE, 'mutations.txt')

# file: what judges it, the quick first: (a unit test, UNIT_ONLY, UNIT_NOT), or the simulation. Who gets that far is judged by the
# quick tests once more, under AddressSanitizer: it sees what was not freed. A test of memory that runs out has the file in it.
SLOW_LIMITER = 'plain_model,whenever_a_client_was_refused,changes_under_load,random_worlds'
SLOW_CLUSTER = 'more_nodes_than_a_group,sixty_four_nodes'
THREADS = 'many_threads'
SIMULATION = 'simulation'
ROAD = 'road'       # the system tests that mutations_road.txt names, of a weir with the mutant in it
SANITIZED = 'sanitized '
JUDGES = {
    'balancer.c': [('test_balancer', '', THREADS),
                   (SANITIZED + 'test_balancer', '', THREADS),
                   (SANITIZED + 'test_balancer_memory', '', '')],
    'limiter.c': [('test_limiter', '', f'{SLOW_LIMITER},{THREADS}'),
                  ('test_limiter_given', '', f'plain_model,{THREADS}'),
                  (SANITIZED + 'test_limiter', '', f'{SLOW_LIMITER},{THREADS}'),
                  (SANITIZED + 'test_limiter_given', '', f'plain_model,{THREADS}'),
                  (SANITIZED + 'test_limiter_memory', '', ''),
                  ('test_limiter_given', 'plain_model', ''),
                  ('test_limiter', 'plain_model', ''),
                  ('test_limiter', SLOW_LIMITER.replace('plain_model,', ''), '')],
    'cluster.c': [('test_cluster_edges', '', ''),
                  ('test_cluster', '', SLOW_CLUSTER),
                  (SANITIZED + 'test_cluster_memory', '', ''),
                  (SIMULATION, '', ''),
                  (SANITIZED + 'test_cluster_edges', '', ''),
                  (SANITIZED + 'test_cluster', '', SLOW_CLUSTER),
                  ('test_cluster', SLOW_CLUSTER, '')],
    'proxy.c': [(ROAD, '', '')],
}
ROAD_TESTS = os.path.join(HERE, 'mutations_road.txt')
ROAD_AT_ONCE = 8        # they mostly wait
ROAD_TRIES = 3          # they watch clocks, on machines that others use, too
SANITIZE = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-O1', '-fno-inline']
SIMULATED = ['--hours', '1', '--seed', '1', '--jobs', '1']
MEMORY_BYTES = 2 << 30
WALL_S = 120            # for what neither ends nor works
GRACE_S = 10

SWAPS = {'<': ('<=', '>='), '<=': ('<', '>'), '>': ('>=', '<='), '>=': ('>', '<'), '==': ('!=',), '!=': ('==',),
         '&&': ('||',), '||': ('&&',), '+': ('-',), '-': ('+',), '*': ('/',), '/': ('*',), '%': ('*',),
         '++': ('--',), '--': ('++',), '+=': ('-=',), '-=': ('+=',), 'true': ('false',), 'false': ('true',),
         '<<': ('>>',), '>>': ('<<',), '|=': ('&=',), '&=': ('|=',)}
TOKEN = re.compile(r'''(?P<skip>/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])+')|(?P<word>[A-Za-z_]\w*)|'''
                   r'''(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)(?P<suffix>[uUlLfF]*)|'''
                   r'''(?P<sign><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%<>=!&|^~?:;,.(){}\[\]])''', re.S)
FUNCTION = re.compile(r'^[a-z][\w *]*?(\w+)\([^;{}]*\)\s*\n\{\n(.*?)^\}', re.S | re.M)
DEFINE = re.compile(r'^#define[ \t]+(\w+)[ \t]+(.*?)[ \t]*(?:/\*.*)?$', re.M)
STATEMENT = re.compile(r'^(\t+)((?:\*?\(?[a-z_][^;{}\n]*?(?: [-+|&]?= |\+\+|--|\()[^;{}\n]*|continue|break);)(?=[ \t]*(?:/\*.*)?$)', re.M)
DECLARATION = re.compile(r'(?:const |static |struct |enum |unsigned |uint|int|bool |size_t |double |char |void |return\b|if\b|for\b|while\b|'
                         r'else\b)')
LOCKS = re.compile(r'\w+_(?:un)?lock\(')


class Mutant:
    def __init__(self, file, function, text, start, end, put):
        line_start = text.rfind('\n', 0, start) + 1
        line_end = text.index('\n', end)
        self.file, self.function = file, function
        self.start, self.end, self.put = start, end, put
        self.line = text.count('\n', 0, start) + 1
        self.before = text[line_start:line_end].strip()
        self.after = (text[line_start:start] + put + text[end:line_end]).strip()
        above = text[text.rfind('\n{\n', 0, start):line_start].split('\n')
        self.again = 1 + [line.strip() for line in above].count(self.before) if function else 1

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
                    put += ' ' if put == '/' and text[match.end()] == '*' else '' # no comment begins here
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
        yield from mutants_of_piece(file, '', text, match.start(2), match.end(2))
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


def parameters_of(head):
    """The names of a function's parameters, from its first line up to the brace."""
    inside = head[head.index('(') + 1:closing(head, head.index('('))]
    names, depth, piece = [], 0, ''
    for character in inside + ',':
        if character == ',' and depth == 0:
            names += re.findall(r'\(\*(\w+)\)', piece)[:1] or re.findall(r'(\w+)(?:\[\w*\])?\s*$', piece)
            piece = ''
            continue
        depth += {'(': 1, ')': -1}.get(character, 0)
        piece += character
    return [] if names == ['void'] else names


SELECT = """
static int mutant_in_force;
__attribute__((constructor)) static void select_mutant(void)
{
	extern char *getenv(const char *);
	extern int atoi(const char *);
	const char *number = getenv("MUTANT");
	mutant_in_force = number != 0 ? atoi(number) : 0;
}
"""


def with_choices(text, end, mutants):
    """The text up to end, with each #define that has mutants as a choice between them."""
    pieces, at = [], 0
    for match in DEFINE.finditer(text, 0, end):
        own = [(number, mutant) for number, mutant in mutants.items() if match.start(2) <= mutant.start < match.end(2)]
        choices = ''.join(f'mutant_in_force == {number} ? ({text[match.start(2):mutant.start]}{mutant.put}{text[mutant.end:match.end(2)]}) : '
                          for number, mutant in own)
        if own:
            pieces.append(f'{text[at:match.start(2)]}({choices}({match[2]}))')
            at = match.end(2)
    return ''.join(pieces) + text[at:end]


def is_size(text, mutant):
    """Does this #define say how large an array of a struct is? Then it has to be a constant."""
    name = re.match(r'#define\s+(\w+)', text[:mutant.start].rsplit('\n', 1)[-1])
    return re.search(rf'\[[^\]]*\b{name[1]}\b', text[:FUNCTION.search(text).start()])


def all_in_one(text, mutants):
    """One source with all of these in it: each function once for each of its mutants, and a switch in the function's place that calls
    the one that MUTANT in the environment says. {number: mutant}, with number 0 as it is. And which lines are whose."""
    pieces, owners, at, line = [], {}, 0, 1

    def add(piece, owner=None):
        nonlocal line
        pieces.append(piece)
        for _ in range(piece.count('\n')):
            owners[line] = owner
            line += 1

    first = True
    for match in FUNCTION.finditer(text):
        if first: # behind what the file includes
            cut = text.rindex('\n\n', 0, match.start())
            add(with_choices(text, cut, mutants) + SELECT)
            at, first = cut, False
        head = text[match.start():text.index('{', match.start())]
        add(text[at:match.start()])
        name = match[1]
        own = [(number, mutant) for number, mutant in mutants.items() if mutant.function == name]
        whole = text[match.start():match.end()]

        def renamed(body, number):
            return re.sub(rf'\b{name}\(', f'{name}__{number}(', body, count=1)

        def static(body):
            return body if body.startswith('static') else 'static ' + body
        add(head.rstrip() + ';\n')
        add(static(renamed(whole, 0)) + '\n')
        for number, mutant in own:
            start, end = mutant.start - match.start(), mutant.end - match.start()
            add(static(renamed(whole[:start] + mutant.put + whole[end:], number)) + '\n', number)
        names = ', '.join(parameters_of(head))
        is_void = re.match(r'(?:static )?void (?!\*)', head)

        def call(number, names=names, name=name, is_void=is_void):
            return f'{"" if is_void else "return "}{name}__{number}({names});{" return;" if is_void else ""}'
        cases = '\n'.join(f'case {number}: {call(number)}' for number, _ in own)
        add(f'{head}{{\nswitch (mutant_in_force) {{\n{cases}\ndefault: {call(0)}\n}}\n}}\n')
        at = match.end()
    add(text[at:])
    return ''.join(pieces), owners


class Bench:
    """Makes one file's mutants, all of them in one program, and lets the tests judge them."""

    def __init__(self, file, mutants, arguments, scratch):
        self.file, self.arguments, self.scratch = file, arguments, scratch
        self.object = file.replace('.c', '.o')
        self.lock = threading.Lock()
        self.cpu_s = {}
        self.broken = set()
        self.mutants = mutants
        with open(file) as source:
            self.text = source.read()
        self.folder = os.path.join(scratch, 'all')
        self.numbers = {number: mutant for number, mutant in enumerate(mutants, 1) if mutant.function or not is_size(self.text, mutant)}
        while not self.compile_all():
            pass
        self.judges = JUDGES[file][:3] if arguments.quick else JUDGES[file]
        for judge in self.judges:
            program = self.program_of(judge, self.folder)
            began = resource.getrusage(resource.RUSAGE_CHILDREN)
            word = self.judge(judge, program, 0, 0) or ''
            for _ in range(ROAD_TRIES - 1 if judge[0] == ROAD else 0):
                word = word and self.judge(judge, program, 0, 0)
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            if word:
                sys.exit(f'mutations.py: {file} as it is does not pass {judge}: {word}')
            self.cpu_s[judge] = int(3 * (ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)) + 1

    def compile(self, text, folder, *more):
        """Not inline: a thousand functions, each called in one place, would become one that takes minutes."""
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, self.file), 'w') as file:
            file.write(text)
        return subprocess.run([*shlex.split(self.arguments.compile), '-w', '-g0', '-O1', '-fno-inline', '-fmax-errors=0',
                               '-fdiagnostics-color=never', *more, '-c', '-o', os.path.join(folder, self.object), os.path.join(folder, self.file)],
                              capture_output=True, text=True)

    def compile_all(self):
        """False: those that do not compile have been left out, another time please."""
        text, owners = all_in_one(self.text, {number: mutant for number, mutant in self.numbers.items() if number not in self.broken})
        made = self.compile(text, self.folder, '-fsyntax-only')
        if made.returncode == 0:
            made = self.compile(text, self.folder)
        if made.returncode == 0:
            return True
        lines = re.findall(rf'{re.escape(self.file)}:(\d+):\d+: (?:fatal )?error', made.stderr)
        culprits = {owners.get(int(line)) for line in lines} - {None}
        if not culprits:
            sys.exit(f'mutations.py: {self.file} does not compile\n{made.stderr[:4000]}')
        self.broken |= culprits
        return False

    def run(self, command):
        subprocess.run(command, check=True)

    def link(self, program, objects, libs, more=()):
        self.run([*shlex.split(self.arguments.link), *more, '-o', program, *objects, *shlex.split(libs)])

    def sanitized_object(self, source):
        """The object of a file that is no mutant: made once."""
        made = os.path.join(self.scratch, os.path.basename(source).replace('.c', '.sanitized.o'))
        if not os.path.exists(made):
            self.run([*shlex.split(self.arguments.compile), '-w', *SANITIZE, '-c', '-o', made, source])
        return made

    def make_sanitized(self, name, folder, program):
        compiler = [*shlex.split(self.arguments.compile), '-w', *SANITIZE, '-c', '-o']
        unit = self.sanitized_object('tests/unit/unit.c')
        test = f'tests/unit/{name}.c'
        if name.endswith('_memory'):
            # It includes ../../FILE: that has to be the mutant, and all else as it is.
            copy = os.path.join(folder, test)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            for header in ['lib', *(each for each in os.listdir('.') if each.endswith('.h')),
                           *(os.path.join('tests/unit', each) for each in os.listdir('tests/unit') if each.endswith('.h'))]:
                if not os.path.exists(os.path.join(folder, header)):
                    os.symlink(os.path.abspath(header), os.path.join(folder, header))
            shutil.copy(test, copy)
            self.run([*compiler, program + '.o', copy])
            objects = [program + '.o', unit]
        else:
            own = os.path.join(folder, 'sanitized-' + self.object)
            if not os.path.exists(own):
                self.run([*compiler, own, os.path.join(folder, self.file)])
            objects = [self.sanitized_object(test), unit, own]
        self.link(program, objects, '-lcunit ' + self.arguments.libs, SANITIZE)

    def make_weir(self, folder, program, own):
        """What it needs of the library comes after the mutant, so the library's own is not taken."""
        self.link(os.path.join(folder, 'weir'), [own, *shlex.split(self.arguments.weir)], self.arguments.libs)
        for other in ('server_demo', 'client_demo'):
            os.symlink(os.path.abspath(os.path.join(self.arguments.bin, other)), os.path.join(folder, other))
        os.symlink(os.path.abspath(os.path.join(self.arguments.objects, 'tests')), os.path.join(folder, 'tests')) # faults.so
        with open(ROAD_TESTS) as file:
            names = [line.strip() for line in file if not line.startswith('#')]
        with open(program, 'w') as file:
            file.write(f'#!/bin/sh\nnames={shlex.quote(",".join(names))}\n'
                       f'exec {shlex.quote(sys.executable)} tests/system/run.py --bin {shlex.quote(folder)} --stop -j {ROAD_AT_ONCE} '
                       '-k "${1:-$names}"\n')
        os.chmod(program, 0o755)

    def program_of(self, judge, folder):
        name, objects, own = judge[0], self.arguments.objects, os.path.join(folder, self.object)
        program = os.path.join(folder, name.replace(' ', '-'))
        with self.lock:
            if os.path.exists(program):
                return program
            if name.startswith(SANITIZED):
                self.make_sanitized(name[len(SANITIZED):], folder, program)
            elif name == ROAD:
                self.make_weir(folder, program, own)
            elif name == SIMULATION:
                parts = os.path.join(objects, 'tests/sim')
                others = [os.path.join(parts, each) for each in sorted(os.listdir(parts)) if each.endswith('.o')]
                others += [os.path.join(objects, each) for each in ('cluster.o', 'limiter.o', 'cluster_wire.o') if each != self.object]
                self.link(program, [*others, own], self.arguments.libs)
            else:
                unit = os.path.join(objects, 'tests/unit')
                self.link(program, [os.path.join(unit, name + '.o'), os.path.join(unit, 'unit.o'), own],
                          '-lcunit ' + self.arguments.libs)
        return program

    def notices(self, judge, program, number):
        """As judge(). Of the road's tests the one that failed has to fail alone, too."""
        word = self.judge(judge, program, number, self.cpu_s[judge])
        for _ in range(ROAD_TRIES - 1 if judge[0] == ROAD else 0):
            failed = re.fullmatch(r'FAILED: (test \S.*)', word)
            if not failed or self.judge(judge, program, number, self.cpu_s[judge], failed[1]):
                break
            word = self.judge(judge, program, number, self.cpu_s[judge])
        return word

    def judge(self, judge, program, number, cpu_s, *more):
        """Why the mutant was noticed; '' if it was not."""
        name, only, left_out = judge
        limits = {resource.RLIMIT_CORE: 0}
        if cpu_s:
            limits[resource.RLIMIT_CPU] = cpu_s
        if not name.startswith(SANITIZED) and name != ROAD: # whose shadow is larger; and whose threads have a stack each
            limits[resource.RLIMIT_AS] = MEMORY_BYTES

        def limit():
            for which, most in limits.items():
                resource.setrlimit(which, (most, most))
        environment = {**os.environ, 'UNIT_STOP': '1', 'UNIT_NOT': left_out, 'UNIT_SECONDS': str(WALL_S), 'MUTANT': str(number)}
        if only:
            environment['UNIT_ONLY'] = only
        running = subprocess.Popen([program, *(SIMULATED if name == SIMULATION else []), *more], env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=limit)
        try:
            output, _ = running.communicate(timeout=WALL_S)
        except subprocess.TimeoutExpired:
            running.terminate() # not killed at once: it may have started others
            try:
                running.communicate(timeout=GRACE_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()
            return 'it hung'
        if running.returncode == 0:
            return ''
        told = re.search(rb'(?:FAILED(?: \S+)?|CRASHED|TOO LONG|ERROR|runtime error): .*', output)
        return told[0].decode() if told else f'it ended with {running.returncode}'

    def try_one(self, numbered):
        """('broken' | 'noticed' | 'survived', more)"""
        number, mutant = numbered
        folder = self.folder
        if number in self.broken:
            return 'broken', ''
        if number not in self.numbers: # a source of its own
            folder = os.path.join(self.scratch, str(number))
            if self.compile(self.text[:mutant.start] + mutant.put + self.text[mutant.end:], folder).returncode != 0:
                return 'broken', ''
        for judge in self.judges:
            try:
                program = self.program_of(judge, folder)
            except subprocess.CalledProcessError:
                return 'broken', ''
            word = self.notices(judge, program, number)
            if word:
                return 'noticed', f'{judge[0]}: {word}'
        return 'survived', ''


def try_file(file, arguments, reasons, scratch):
    """How many survived without a reason."""
    began = time.monotonic()
    with open(file) as source:
        every = list(mutants_of(file, source.read()))
    tried = [each for each in every if (each.key() in reasons) == arguments.survivors
             and (not arguments.functions or each.function in arguments.functions)]
    tried = [each for each in tried if zlib.crc32(repr(each.key()).encode()) % arguments.every == arguments.seed % arguments.every]
    bench = Bench(file, tried, arguments, scratch)
    counts = {'broken': 0, 'noticed': 0, 'survived': 0}
    unexplained = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (verdict, word) in zip(tried, pool.map(bench.try_one, enumerate(tried, 1))):
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
          f'({unexplained} without a reason), {counts["broken"]} did not compile; '
          f'{time.monotonic() - began:.0f} s', flush=True)
    return unexplained + len(stale)


def main():
    parser = argparse.ArgumentParser()
    for name in ('--objects', '--bin', '--compile', '--link', '--libs', '--weir'):
        parser.add_argument(name, required=True)
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--functions', type=lambda names: names.split(','), help='the mutants of these functions only')
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--list', action='store_true', help='print the mutants and leave')
    parser.add_argument('--survivors', action='store_true', help='those that there is a reason for, and no others')
    parser.add_argument('--quick', action='store_true', help='only the first of a file\'s judges: tells of more survivors')
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
        unexplained = 0
        for file in files:
            folder = os.path.join(scratch, file)
            os.makedirs(folder)
            unexplained += try_file(file, arguments, reasons, folder)
        return 1 if unexplained else 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


sys.exit(main())
