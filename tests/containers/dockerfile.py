"""Reads a Dockerfile, as far as ours goes: what is not known here is an error, so that no step is left out in silence."""
import fnmatch
import json
import os
import re
import shlex

KNOWN = {'FROM', 'WORKDIR', 'COPY', 'RUN', 'USER', 'ENV', 'EXPOSE', 'STOPSIGNAL', 'HEALTHCHECK', 'ENTRYPOINT', 'CMD'}


class Stage:
    def __init__(self, base, name):
        self.base, self.name = base, name
        self.steps = []         # WORKDIR, COPY, RUN in their order: (instruction, arguments)
        self.user = '0:0'
        self.environment = {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'}
        self.exposed, self.stop_signal = [], 'SIGTERM'
        self.health, self.health_options = None, {}
        self.entrypoint, self.command = [], []


def _instructions(text):
    """(instruction, the rest) of each; a comment is a line that begins with #, also within a continued one."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith('#')]
    for line in re.sub(r'\\\n\s*', ' ', '\n'.join(lines)).splitlines():
        word, _, rest = line.strip().partition(' ')
        if word not in KNOWN:
            raise ValueError(f'{word}: this reader does not know it; known: {", ".join(sorted(KNOWN))}')
        yield word, rest.strip()


def _options(rest):
    """--name=value words at the front, and what is behind them."""
    options = {}
    while rest.startswith('--'):
        word, _, rest = rest.partition(' ')
        name, _, options_value = word[2:].partition('=')
        options[name] = options_value
        rest = rest.strip()
    return options, rest


def _list(rest):
    """The exec form: a shell as process 1 would keep signals from the program."""
    words = json.loads(rest)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f'{rest}: not a JSON list of words')
    return words


def read(path):
    """The stages, in order; the last one is the image."""
    stages = []
    with open(path, encoding='utf-8') as file:
        for word, rest in _instructions(file.read()):
            if word == 'FROM':
                base, *name = re.split(r'\s+AS\s+', rest, flags=re.I)
                stages.append(Stage(base, name[0] if name else None))
                continue
            stage = stages[-1]
            options, behind = _options(rest)
            if word == 'WORKDIR' or word == 'RUN':
                stage.steps.append((word, rest))
            elif word == 'COPY':
                stage.steps.append((word, (options.get('from'), shlex.split(behind))))
            elif word == 'USER':
                stage.user = rest
            elif word == 'ENV':
                stage.environment.update(pair.split('=', 1) for pair in shlex.split(rest))
            elif word == 'EXPOSE':
                stage.exposed += rest.split()
            elif word == 'STOPSIGNAL':
                stage.stop_signal = rest
            elif word == 'ENTRYPOINT':
                stage.entrypoint = _list(rest)
            elif word == 'CMD':
                stage.command = _list(rest)
            else:
                kind, _, command = behind.partition(' ')
                if kind != 'CMD':
                    raise ValueError(f'HEALTHCHECK {rest}: no CMD')
                stage.health, stage.health_options = _list(command), options
    return stages


def ignored(path):
    """A function that says whether a file of the tree, by its path from the top, is left out of the context."""
    with open(path, encoding='utf-8') as file:
        patterns = [line.strip().rstrip('/') for line in file if line.strip() and not line.startswith('#')]
    for pattern in patterns:
        if pattern.startswith('!') or '**' in pattern:
            raise ValueError(f'{pattern}: this reader does not know such patterns')

    def is_ignored(name):
        parts = name.split(os.sep)
        return any(fnmatch.fnmatch('/'.join(parts[:count]), pattern)
                   for count in range(1, len(parts) + 1) for pattern in patterns)
    return is_ignored
