"""Faults on order in a running weir: the other side of tests/faults/faults.c.

    faults = Faults(t)
    weir = t.weir(origin, environment=faults.environment)
    with faults.recording():
        t.get(weir)
    for place in faults.places():
        faults.arm(place, errno.ENOMEM)         # the next time that this place is reached, it fails
        ...
    faults.always('accept', errno.EMFILE)       # every call of the kind, until always('accept', 0)
"""
import contextlib
import errno
import functools
import mmap
import os
import shutil
import struct
import subprocess

# In the order of enum call.
CALLS = ('malloc', 'calloc', 'realloc', 'accept', 'socket', 'connect', 'send', 'receive', 'read', 'write', 'poll',
         'eventfd', 'pipe', 'open', 'splice', 'names', 'thread', 'option', 'bind', 'random', 'wake')

# What each may fail with, as its manual page says, as far as it is worth trying. No signal comes between an open() of a file or a
# connect() that does not wait.
ERRORS = {
    'malloc': ('ENOMEM',), 'calloc': ('ENOMEM',), 'realloc': ('ENOMEM',),
    'accept': ('EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EINTR', 'ECONNABORTED'),
    'socket': ('EMFILE', 'ENOBUFS', 'ENOMEM'),
    'connect': ('EADDRNOTAVAIL', 'ENETUNREACH'),
    'send': ('EINTR', 'ENOBUFS', 'ENOMEM', 'ECONNRESET'),
    'receive': ('EINTR', 'ENOMEM', 'ECONNRESET'),
    'read': ('EINTR', 'EIO'), 'write': ('EINTR', 'ENOSPC', 'EIO'),
    'poll': ('EINTR', 'ENOMEM'),
    'eventfd': ('EMFILE', 'ENOMEM'), 'pipe': ('EMFILE',), 'open': ('EMFILE', 'EACCES'),
    'splice': ('EINTR', 'ENOMEM'), 'names': ('EAGAIN', 'ENOMEM', 'EMFILE'), 'thread': ('EAGAIN',),
    'option': ('ENOBUFS',), 'bind': ('EADDRINUSE',), 'random': ('EAGAIN',), 'wake': ('EINTR',)}

HANG = -1       # for names: no answer as long as it stands

# struct shared and struct place
HEAD = struct.Struct(f'=3Ii Qi I qqq {len(CALLS)}i {len(CALLS)}I')
PLACE = struct.Struct('=QIIII 6Q')
PLACES_MAX = 16384
FIELDS = {'magic': (0, 'I'), 'count': (4, 'I'), 'recording': (8, 'I'), 'error': (12, 'i'), 'key': (16, 'Q'),
          'left': (24, 'i'), 'fired': (28, 'I'), 'blocks': (32, 'q'), 'bytes': (40, 'q'), 'wall_shift_ns': (48, 'q')}
ALWAYS_AT = 56
ALWAYS_FIRED_AT = ALWAYS_AT + 4 * len(CALLS)


class Place:
    def __init__(self, key, hits, call, frames):
        self.key, self.hits, self.call, self.frames = key, hits, CALLS[call], frames

    @property
    def is_own(self):
        """weir's own call, and not one of a library on its behalf."""
        return bool(self.frames) and self.frames[0][1]

    @property
    def errors(self):
        return [getattr(errno, name) for name in ERRORS[self.call]]


class Faults:
    def __init__(self, t):
        self.t = t
        self.path = os.path.join(t.tmp, 'faults')
        with open(self.path, 'wb') as file:
            file.truncate(HEAD.size + PLACES_MAX * PLACE.size)
        with open(self.path, 'r+b') as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        preload = [self._library()]
        self.environment = {'LD_PRELOAD': ' '.join(preload), 'FAULTS_FILE': self.path}

    def _library(self):
        for folder in ('tests/faults', 'build/tests/faults'):
            path = os.path.join(self.t.bin, folder, 'faults.so')
            if os.access(path, os.R_OK):
                return path
        self.t.skip('faults are not put under sanitizers, which bring their own malloc()')
        return None

    def get(self, field):
        at, form = FIELDS[field]
        return struct.unpack_from('=' + form, self.memory, at)[0]

    def set(self, field, value):
        at, form = FIELDS[field]
        struct.pack_into('=' + form, self.memory, at, value)

    @contextlib.contextmanager
    def recording(self):
        self.set('recording', 1)
        try:
            yield
        finally:
            self.set('recording', 0)

    def places(self):
        """All that have been seen, with how often."""
        found = {}
        for i in range(PLACES_MAX):
            key, hits, call, count, in_weir, *frames = PLACE.unpack_from(self.memory, HEAD.size + i * PLACE.size)
            if key:
                found[key] = Place(key, hits, call,
                                   [(frame, bool(in_weir >> n & 1)) for n, frame in enumerate(frames[:count])])
        return found

    def arm(self, place, error, times=1):
        """Fails the next times calls from place."""
        self.disarm()
        self.set('error', error)
        self.set('fired', 0)
        self.set('key', place.key)
        self.set('left', times)

    def disarm(self):
        self.set('left', 0)
        self.set('key', 0)

    @property
    def fired(self):
        return self.get('fired')

    def always(self, call, error):
        struct.pack_into('=i', self.memory, ALWAYS_AT + 4 * CALLS.index(call), error)

    def always_fired(self, call):
        return struct.unpack_from('=I', self.memory, ALWAYS_FIRED_AT + 4 * CALLS.index(call))[0]

    def shift_wall_clock(self, seconds):
        self.set('wall_shift_ns', int(seconds * 1e9))

    def describe(self, place):
        """call in function (file:line), called by ..."""
        return f'{place.call} at ' + ' < '.join(self._where(frame) for frame, in_weir in place.frames if in_weir)

    @functools.lru_cache(None)
    def _where(self, frame):
        tool = shutil.which('addr2line')
        if not tool:
            return hex(frame)
        out = subprocess.run([tool, '-f', '-e', os.path.join(self.t.bin, 'weir'), hex(frame - 1)], check=True,
                             stdout=subprocess.PIPE).stdout.decode().split('\n')
        return f'{out[0]} ({os.path.basename(out[1]).split(" ")[0]})'
