"""Plays rows against a proxy, and says what came of them.

    client ──raw bytes──► proxy ──► target: records every byte, answers as the row says
       │                              │
       └─ statuses, how it ended      └─ read_stream(): the bytes read again, strictly: how many messages, which

Rows are played in lanes. A lane is one service of the proxy with one target of its own, and plays one row after
another: whatever its target receives belongs to that row. All lanes are in one process.

After each row comes the victim: somebody else's plain request on another connection, through the same service, and most
often through the same connection to the target. If the row has left half a message there, or an answer too
many, the victim has it: this is how request smuggling is noticed that no status would show.
"""
import re
import threading
import time

import contract
from client import request
from harness import Weir
from origin import answer, request_of
from .row import AWAIT, FINISH, TARGET, Message
from wire import Cut, Late, Recorded

# What a lane has besides its port and its target.
SETTINGS = {
    'plain': ('mode = reverse', 'forwarded = off'),
    'small': ('mode = reverse', 'forwarded = off', 'max_body = 10', 'max_header = 1KiB'),
    'impatient': ('mode = reverse', 'forwarded = off',
                  *[f'{name}_timeout = {{patience_s:g}}' for name in ('response', 'header', 'idle')]),
    'forward': ('mode = forward', 'forwarded = off'),
}
PLAIN_LANES = 6
DATE = re.compile(r'(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} '
                  r'\d\d:\d\d:\d\d GMT')


def read_stream(data):
    """Reads bytes as a row of requests: (messages, 'whole' | 'cut' | 'malformed: why', whether it ends in a head
    whose body is not whole yet)."""
    reader, messages, has_head = Recorded(data), [], False
    try:
        while True:
            has_head = False
            lines = reader.head_lines('a request head')
            if lines is None:
                return messages, 'whole', False
            asked = request_of(lines)
            has_head = True
            kind, length = asked.framing
            body, trailers = b'', ()
            if kind == 'chunked':
                body, trailers = reader.chunked()
                trailers = [f'{name}: {value}' for name, value in trailers.lines]
            elif kind == 'length':
                body = reader.exactly(length)
            messages.append(Message([line.decode('latin-1') for line in lines], body, trailers))
    except Cut:
        return messages, 'cut', has_head
    except AssertionError as error:
        return messages, f'malformed: {error}', False


class Lane:
    """One service and its target."""

    def __init__(self, t, settings='plain'):
        self.t, self.settings = t, settings
        self.turn = threading.Condition()
        self.first = 0                          # the first of the target's connections that belong to this row
        self.replies, self.messages = [], []
        self.origin = t.origin(handler=self._serve)
        self.address = self.origin.address
        self.port = 0
        self.victim = None                      # the other client's connection

    # The target

    def _serve(self, conn):
        done, conn.switched_at = 0, None
        while True:
            messages, state, has_head = read_stream(conn.received)
            for message in messages[done:]:
                with self.turn:
                    self.messages.append(message)
                if not self._reply(conn, message, 'whole'):
                    return
            done = len(messages)
            if state.startswith('malformed'):
                return
            if has_head and not self._reply(conn, None, 'head'):
                return
            conn.buffer.clear()
            if not conn.fill(time.monotonic() + self.origin.seconds, 'more'):
                return

    def _reply(self, conn, message, at):
        """True if the connection goes on."""
        words = message.lines[0].split(' ') if message else ['', '']
        with self.turn:
            is_ours = words[1] in ('/tail', '/victim')
            reply = self.replies.pop(0) if self.replies and not is_ours and self.replies[0].at == at else None
        if reply is None:
            if message:
                echo = answer(words[1].encode('latin-1'))
                conn.send(echo[:echo.index(b'\r\n\r\n') + 4] if words[0] == 'HEAD' else echo)
            return True
        conn.send(reply.data)
        if reply.ends == 'tunnels':
            conn.switched_at = len(conn.received)
            while not conn.received.endswith(reply.up):
                conn.buffer.clear()
                if not conn.fill(time.monotonic() + self.origin.seconds, 'the tunnel'):
                    return False
            conn.send(reply.down)
        if reply.ends == 'resets':
            conn.abort()
        elif reply.ends == 'is silent':
            conn.hold()
        return reply.ends == 'stays'

    # One row

    def begin(self, row):
        with self.turn:
            self.first = len(self.origin.connections)
            self.messages = []
            self.replies = [reply for reply in row.replies]

    def received(self):
        """(whole messages in order, states of the connections that did not end between messages). Waits until a
        connection with half a message on it is closed: only then it will never be whole."""
        states = []
        for conn in list(self.origin.connections)[self.first:]:
            state = read_stream(conn.received[:conn.switched_at])[1]
            if state == 'cut':
                self.origin.wait(lambda c=conn: c not in self.origin.live, 10, 'the end of half a request')
                state = read_stream(conn.received[:conn.switched_at])[1]
            if state != 'whole':
                states.append(state)
        with self.turn:
            return list(self.messages), states

    def end(self):
        """All connections to the target are closed, so that the next row begins afresh."""
        for conn in list(self.origin.connections)[self.first:]:
            conn.hang_up()

    def ask(self, path):
        """The bytes of a plain request for path, and the message that must come of it."""
        if self.settings == 'forward':
            return request(target=f'http://{self.address}{path}', host=self.address)
        return request(target=path, host='a.test')


class Seen:
    """What a client saw."""

    def __init__(self):
        self.answers, self.words, self.left = [], [], b''
        self.stopped = False            # nothing more can be read

    def __str__(self):
        return ' '.join(self.words)


def read_one(client, method, seen):
    """Reads one answer, interim ones too; False when there will be no more."""
    try:
        head = client.head()
        if head is None:
            return False
        seen.words.append(str(head.status))
        seen.answers.append(head)
        if head.status == 101 or head.status >= 200:
            client.body_of(head, method)
        return True
    except Cut as cut:
        seen.words.append('cut')
        seen.left = cut.partial
    except Late:
        seen.words.append('silent')
    except AssertionError as error:
        seen.words.append('malformed')
        seen.left = str(error).encode()
    seen.stopped = True
    return False


def final_answers(seen):
    return [head for head in seen.answers if head.status == 101 or head.status >= 200]


def send(client, row, lane, seen):
    """Plays the client's part up to its last byte."""
    for step in row.send:
        if step is AWAIT:
            if not read_one(client, row.method(len(final_answers(seen))), seen):
                return
        else:
            try:
                if step is FINISH:
                    client.finish()
                else:
                    client.send(step.replace(TARGET, lane.address.encode()))
            except OSError:
                return                          # answered and closed already


def read_end(client, seen):
    """How the connection ended, which it must have."""
    try:
        seen.left = client.rest()
        seen.words.append('reset' if client.reset else 'closed')
    except Late:
        seen.words.append('silent')


def read_expected(client, row, lane, seen):
    """Reads as many answers as the row expects, and then whether the connection is as it expects."""
    while len(seen.answers) < row.count and read_one(client, row.method(len(final_answers(seen))), seen):
        pass
    if seen.stopped:
        return
    if row.end != 'open':
        if row.end == 'cut':
            read_one(client, row.method(len(final_answers(seen))), seen)
        else:
            read_end(client, seen)
        return
    if client.ended or len(seen.answers) < row.count:
        read_end(client, seen)
        return
    def ask():
        client.send(lane.ask('/tail'))
        response = client.response()
        return None if response.body == contract.ALL_OUT_BODY else response
    try:
        last = lane.t.until(ask, 20, 'the target is back in the rotation')
        seen.words.append('open' if (last.status, last.body) == (200, b'/tail') else f'out of step: {last}')
    except (Cut, OSError):
        seen.words.append('closed')
    except AssertionError as error:
        seen.words.append(f'out of step: {error}')


def read_whatever(client, row, lane, seen, patience_s):
    """Reads what comes, when nobody knows what: until the end, or silence."""
    while not seen.stopped:
        if client.ended and not client.buffer:
            seen.words.append('reset' if client.reset else 'closed')
            return
        if client.silent(patience_s):
            break
        before = len(seen.answers)
        read_one(client, row.method(len(final_answers(seen))), seen)
        if before == len(seen.answers) and not seen.stopped:
            read_end(client, seen)
            return
        if seen.words[-1] == '101':
            read_end(client, seen)
            return
    if seen.stopped:
        return
    try:
        client.send(lane.ask('/tail'))
        if client.silent(patience_s):
            seen.words.append('waits')
            return
        last = client.response()
        seen.words.append('open' if (last.status, last.body) == (200, b'/tail') else 'out of step')
    except Cut:
        seen.words.append('closed')
    except (AssertionError, OSError):
        seen.words.append('out of step')


def play(t, lane, row, patience_s=None):
    """(what the client saw, whole messages, bad states, what the victim saw). patience_s: read whatever comes."""
    lane.begin(row)
    seen = Seen()
    client = t.client(lane.port)
    send(client, row, lane, seen)
    if patience_s:
        if not seen.stopped:
            read_whatever(client, row, lane, seen, patience_s)
    elif not seen.stopped:
        read_expected(client, row, lane, seen)
    client.close()
    victim = ask_as_victim(t, lane)
    messages, states = lane.received()
    lane.end()
    ours = ('GET /tail HTTP/1.1', 'GET /victim HTTP/1.1')
    return seen, [message for message in messages if message.lines[0] not in ours], states, victim


def ask_as_victim(t, lane):
    """'' when somebody else's request gets its own answer; else what it got. A target that a row took out of the
    rotation is waited for. The victim's connection stays open from row to row."""
    def ask():
        is_old = lane.victim is not None
        lane.victim = lane.victim or t.client(lane.port)
        try:
            lane.victim.send(lane.ask('/victim'))
            response = lane.victim.response()
        except (Cut, OSError):
            lane.victim = None
            if is_old:
                return ask()                    # it had been idle for too long
            raise
        return None if response.body == contract.ALL_OUT_BODY else response
    try:
        response = t.until(ask, 20, 'the target is back in the rotation')
        return '' if (response.status, response.body) == (200, b'/victim') else repr(response)
    except (Cut, OSError, AssertionError) as error:
        lane.victim = None
        return f'{type(error).__name__}: {error}'


# Verdicts

def complaints(row, lane, result):
    """What is wrong with a row's outcome, as sentences."""
    seen, messages, states, victim = result
    wanted = [message.with_address(lane.address) for message in row.reaches]
    wrong = []
    if str(seen) != row.sees:
        wrong.append(f'the client saw "{seen}", wanted "{row.sees}"')
    if seen.left != row.left and row.end in ('closed', 'reset'):
        wrong.append(f'bytes behind the last answer: {seen.left[:120]!r}, wanted {row.left!r}')
    if messages != wanted:
        wrong.append(f'the target received {messages}, wanted {wanted}')
    wrong += [f'the target received something {state}' for state in states if not (state == 'cut' and row.partial)]
    if victim:
        wrong.append(f'the victim got {victim}')
    finals = final_answers(seen)
    last = finals[-1] if finals else None
    if not row.replies and row.body is None:
        bodies = [head.body for head in finals if head.status == 200 and head.framing != 'none']
        targets = [message.lines[0].split(' ')[1].encode('latin-1') for message in messages
                   if not message.lines[0].startswith('HEAD ')]
        if row.settings != 'forward' and bodies != targets[:len(bodies)]:
            wrong.append(f'the answers are those of {bodies}, the requests were {targets}')
    wrong += breaches_of_every_answer(row, finals, str(seen))
    if row.body is not None and (last is None or last.body != row.body):
        wrong.append(f'the body was {last and last.body[:120]!r}, wanted {row.body!r}')
    if row.lines is not None:
        lines = last and [f'{name}: {value}' for name, value in last.fields.lines if name != 'Date' or row.keeps_date]
        if lines != list(row.lines):
            wrong.append(f'the fields of the answer were {lines}, wanted {list(row.lines)}')
    return wrong


def breaches_of_every_answer(row, finals, seen):
    """What holds of every final answer, whatever the row is about: one Date, in its form (RFC 9110 §6.6.1), and the
    client is told when the connection ends, and only then (RFC 9112 §9.6)."""
    wrong = []
    for head in finals:
        dates = head.fields.all('date')
        needs_date = head.status != 101 and not row.send[0].startswith(b'CONNECT')
        if needs_date and not (len(dates) == 1 and DATE.fullmatch(dates[0])):
            wrong.append(f'not one well-formed Date in {head}')
    closes = [(head.get('connection') or '').lower() == 'close' for head in finals]
    if seen.endswith('open') and any(closes):
        wrong.append('an answer says close, and the connection goes on')
    if seen.endswith('closed') and finals and finals[-1].status != 101 and not row.left and FINISH not in row.send \
            and closes != [False] * (len(finals) - 1) + [True]:
        wrong.append(f'the connection was closed, and the answers said {closes}')
    return wrong


def sent_bytes(row):
    return b' ... '.join(step for step in row.send if isinstance(step, bytes))


def play_all(t, rows, lanes, verdict, seconds=60):
    """Plays every row on a lane with its settings, lanes at once; verdict(row, lane, result) is told what came."""
    waiting = {name: [row for row in rows if row.settings == name][::-1] for name in {row.settings for row in rows}}

    def work(lane):
        queue = waiting[lane.settings]
        while queue:
            try:
                row = queue.pop()
            except IndexError:
                return
            verdict(row, lane)
    t.parallel([lambda lane=lane: work(lane) for lane in lanes if lane.settings in waiting], seconds=seconds)


def lanes_for(kind, rows):
    """Rows that wait for a deadline wait all at once."""
    return {'plain': PLAIN_LANES, 'impatient': len([row for row in rows if row.settings == kind])}.get(kind, 1)


def start_weir(t, rows):
    """weir with a lane for each kind of settings that the rows need, and more for the plain ones."""
    kinds = sorted({row.settings for row in rows})
    lanes = [Lane(t, kind) for kind in kinds for _ in range(lanes_for(kind, rows))]
    stanzas = []
    for number, lane in enumerate(lanes):
        to_target = 'connect_allow' if lane.settings == 'forward' else 'endpoint'
        stanzas.append('\n'.join([f'[lane{number}]', 'port = 0', 'bind = 127.0.0.1', f'{to_target} = {lane.address}',
                                  *([] if lane.settings == 'forward' else ['probe_interval = 0.05']),
                                  *SETTINGS[lane.settings], '']).format(patience_s=t.s(2)))
    weir = Weir(t, ['-c', t.file('weir.ini', '\n'.join(stanzas))], services=len(lanes), start_s=20)
    ports = {match[1]: int(match[2]) for match in re.finditer(r'(lane\d+): \w+ listens on .*port=(\d+)',
        weir.log.text())}
    for number, lane in enumerate(lanes):
        lane.port = ports[f'lane{number}']
    return lanes


def check(t, rows):
    """Plays the rows against weir; each that does not come out as it must names itself and shows its bytes."""
    def verdict(row, lane):
        for wrong in complaints(row, lane, play(t, lane, row)):
            t.check(False, f'{row.name} ({row.source}): {wrong}; sent {sent_bytes(row)[:300]!r}')
    lanes = start_weir(t, rows)
    play_all(t, rows, lanes, verdict)
