"""The message switch, weir packet: JSON messages from clients go to the servers of a privacy policy, in turn.

The peers here are of two kinds. _Server and _Talk say exactly what a test wants. The naive ones are written as the
exercise's own programs are: one recv(2048) for one message, no framing, a set-up connection that is closed at once,
numbers as texts.
"""
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import contract
from harness import Lines, Weir, clean_environment, takes
from wire import Cut, Wire

PACKETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'pktfiles')


def _sha1(payload):
    return hashlib.sha1(payload.encode('utf-8', 'surrogatepass')).hexdigest()


def _message(payload='xyz', policy=111, source=1, **more):
    return {'type': 0, 'srcid': source, 'privPoliId': policy, 'payload': payload, **more}


def _bytes(value, **more):
    return value if isinstance(value, bytes) else json.dumps(value, **more).encode()


class _Talk(Wire):
    """A client on one connection: sends bytes, reads one JSON object after the other."""

    def __init__(self, t, port, seconds=10, host='127.0.0.1'):
        sock = socket.create_connection((host, port), t.s(seconds))
        super().__init__(sock, t.s(seconds))
        t.cleanup(self.close)
        self.decoder = json.JSONDecoder()

    def answer(self, seconds=None):
        """The next object; Cut when the stream ends before it."""
        until = self._until(seconds)
        while True:
            text = bytes(self.buffer).decode('utf-8', 'replace').lstrip()
            if text:
                try:
                    value, end = self.decoder.raw_decode(text)
                    self.buffer[:] = text[end:].encode()
                    return value
                except json.JSONDecodeError:
                    pass
            if not self.fill(until, 'an answer'):
                raise Cut('an answer', self.reset, self.buffer)

    def closed(self, seconds=None):
        """Waits for the end of the stream; only the newline of the last answer may come before it."""
        left = self.rest(seconds)
        assert not left.strip(), f'bytes where the connection should have been closed: {left[:200]!r}'
        return True

    def ask(self, message, seconds=None):
        self.send(_bytes(message))
        return self.answer(seconds)


class _Server:
    """A server of the switch. reply(message) gives the object to answer with; handler(server, connection) takes over
    all of a connection. serial: one connection after the other, as many of this exercise are."""

    def __init__(self, t, weir=None, id=100, policy=111, reply=None, handler=None, serial=False, port=0, backlog=128,
                 host='127.0.0.1'):
        self.t, self.id, self.policy = t, id, policy
        self.reply = reply or (lambda message: self.hash_of(message))
        self.handler = handler
        self.changed = threading.Condition()
        self.messages = []      # parsed
        self.raw = []           # as they came
        self.connections = 0
        self.host = host
        self.listener = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(backlog)
        self.port = self.listener.getsockname()[1]
        self.serial = serial
        self.dead = False
        t.cleanup(self.die)
        threading.Thread(target=self._accept, daemon=True).start()
        if weir:
            self.set_up(weir)

    def hash_of(self, message):
        digest = _sha1(message['payload'])
        return {'type': '2', 'srcid': self.id, 'destid': message['srcid'], 'payloadsize': len(digest), 'payload': digest}

    def set_up(self, weir, **changes):
        _set_up(self.t, weir, **{'id': self.id, 'policy': self.policy, 'port': self.port, 'host': self.host, **changes})

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.changed:
                self.connections += 1
                self.changed.notify_all()
            if self.serial:
                self._serve(connection)
            else:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with connection:
                if self.handler:
                    self.handler(self, connection)
                else:
                    self._answer_one(connection)
        except OSError:
            pass

    def read_message(self, connection):
        data = b''
        while True:
            piece = connection.recv(65536)
            if not piece:
                return None
            data += piece
            try:
                message = json.loads(data) if piece.endswith(b'}') else None
            except ValueError:
                continue
            if message is None:
                continue
            with self.changed:
                self.messages.append(message)
                self.raw.append(data)
                self.changed.notify_all()
            return message

    def _answer_one(self, connection):
        message = self.read_message(connection)
        if message is not None:
            connection.sendall(_bytes(self.reply(message)))
            connection.recv(1)      # the switch closes

    def wait_messages(self, count, seconds=10):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.messages) >= count, self.t.s(seconds)), \
                f'{len(self.messages)} messages, {count} wanted'

    def die(self):
        """Nobody listens any more."""
        if not self.dead:
            self.dead = True
            try:
                self.listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.listener.close()


def _switch(t, *arguments, **settings):
    for key, value in settings.items():
        arguments += ('--' + key.replace('_', '-'), value)
    return Weir(t, ['packet', '--port', 0, '--bind', '127.0.0.1', *arguments])


def _set_up(t, weir, id=100, policy=111, port=0, raw=None, host='127.0.0.1'):
    """Sets a server up and waits until the switch has read it: it closes the connection after us."""
    talk = _Talk(t, weir.port, host=host)
    talk.send(raw if raw is not None else _bytes({'type': 1, 'id': id, 'privPolyId': policy, 'listenport': port}))
    talk.finish()
    talk.closed()


def _is_error(t, answer, pattern, what=''):
    good = isinstance(answer, dict) and str(answer.get('type')) == '3' and re.search(pattern, str(answer.get('error')))
    return t.check(good, f'{what}: {answer!r} is no type 3 error like {pattern!r}')


# The way of a message

def a_message_goes_to_a_server_of_its_policy_and_the_hash_comes_back(t):
    weir = _switch(t)
    here, there = _Server(t, weir, 100, 111), _Server(t, weir, 101, 112)
    answer = _Talk(t, weir.port).ask(_message('hello', 112, source=7))
    t.equal(answer, {'type': '2', 'srcid': 101, 'destid': 7, 'payloadsize': 40, 'payload': _sha1('hello')})
    t.equal((len(here.messages), len(there.messages)), (0, 1))
    for said in (r'received a setup message from server id 101 privacy policy 112 port \d+',
                 r'received a data message from client 7 .*privacy policy 112, payload of 5 bytes',
                 r'forwarding the data message of client 7 to server id 101 .*payload of 5 bytes',
                 r'received a data message from server id 101 for client 7, payload of 40 bytes'):
        weir.wait_log(said)


def what_is_forwarded_is_what_came_in_one_connection_for_one_message(t):
    weir = _switch(t)
    server = _Server(t, weir)
    sent = b'{ "type" : "0",\n "srcid":"1" , "privPoliId": "111", "more": [1.10, 1e30, -0, "\\u00e9\\/"],\t"payload": "a  b\\u0000"}'
    talk = _Talk(t, weir.port)
    for _ in range(3):
        t.equal(talk.ask(sent)['payload'], _sha1('a  b\0'))
    t.equal(server.raw, [b'{"type":"0","srcid":"1","privPoliId":"111","more":[1.10,1e30,-0,"\\u00e9\\/"],"payload":"a  b\\u0000"}'] * 3)
    t.equal(server.connections, 3, 'connections: one for each message, and no probe of a server that is in')


def numbers_may_be_numbers_or_texts(t):
    weir = _switch(t)
    _set_up(t, weir, raw=_bytes({'type': '1', 'id': '100', 'privPolyId': '111', 'listenport': str(_Server(t).port)}))
    talk = _Talk(t, weir.port)
    for message in (_message(), _message(policy='111', source='1'), {**_message(), 'type': '0'},
                    {**_message(), 'payloadsize': '3'}, {**_message(), 'payloadsize': 3}):
        t.equal(talk.ask(message).get('payload'), _sha1('xyz'), str(message))


def any_framing_gives_the_same_answers_in_order(t):
    weir = _switch(t)
    _Server(t, weir)
    messages = [_message(text, source=n) for n, text in enumerate(['one', 'zwei {"}', 'trois \\ "', 'čtyři ]'])]
    wanted = [(n, _sha1(m['payload'])) for n, m in enumerate(messages)]
    plain, pretty = [_bytes(m) for m in messages], [_bytes(m, indent=3, ensure_ascii=False) for m in messages]
    streams = [b''.join(plain), b'\n'.join(plain), b'\r\n\r\n'.join(plain) + b'\n', b' \t '.join(pretty), b'\0'.join(plain) + b'\0',
               b'\n\n' + b''.join(pretty)]
    for number, stream in enumerate(streams):
        for cuts in ([], [1], [len(plain[0]) - 1], [len(plain[0])], [len(plain[0]) + 1, len(stream) - 1],
                     list(range(20, len(stream), 37))):
            talk = _Talk(t, weir.port)
            for start, end in zip([0, *cuts], [*cuts, len(stream)]):
                talk.send(stream[start:end])
                t.read_by_peer(talk)
            got = [talk.answer() for _ in messages]
            t.equal([(a.get('destid'), a.get('payload')) for a in got], wanted, f'stream {number} cut at {cuts}')
            talk.close()
    talk = _Talk(t, weir.port)
    for byte in plain[1]:
        talk.send(bytes([byte]))
    t.equal(talk.answer()['payload'], wanted[1][1], 'byte by byte')


def a_payload_of_a_mebibyte_passes_in_every_spelling(t):
    weir = _switch(t)
    server = _Server(t, weir)
    for payload, ascii_only in (('x' * 2**20, True), ('é' * 2**19, False), ('é' * 2**19, True), ('\x01' * 2**20, True)):
        answer = _Talk(t, weir.port).ask(_bytes(_message(payload), ensure_ascii=ascii_only))
        t.equal(answer.get('payload'), _sha1(payload), f'{payload[:1]!r} {ascii_only}')
        t.equal(server.messages[-1]['payload'] == payload, True)
    talk = _Talk(t, weir.port)
    _is_error(t, talk.ask(_message('x' * (2**20 + 1))), 'payload has 1048577 bytes')
    _is_error(t, talk.ask(_message('x' * 2**23)), 'too long')
    t.equal(talk.ask(_message())['payload'], _sha1('xyz'), 'the connection goes on')


def servers_take_turns_in_the_order_of_their_set_up_each_policy_by_itself(t):
    weir = _switch(t)
    ids = [(105, 111), (101, 112), (103, 111), (100, 112), (104, 111)]
    for id, policy in ids:
        _Server(t, weir, id, policy)
    talk = _Talk(t, weir.port)
    served = {111: [], 112: []}
    for turn in range(30):
        policy = 111 if turn % 3 else 112
        served[policy].append(talk.ask(_message(policy=policy))['srcid'])
    t.equal(served[111], [105, 103, 104] * 6 + [105, 103])
    t.equal(served[112], [101, 100] * 5)


# Setting up

def a_setup_is_not_answered_and_the_connection_goes_on(t):
    weir = _switch(t)
    server = _Server(t)
    talk = _Talk(t, weir.port)
    talk.send(_bytes({'type': 1, 'id': 100, 'privPolyId': 111, 'listenport': server.port}))
    weir.wait_log('setup message from server id 100')
    t.check(talk.silent(0.1), 'an answer to a set-up')
    t.equal(talk.ask(_message())['srcid'], 100)


def setting_up_again_under_an_id_replaces_the_entry_its_policy_included(t):
    weir = _switch(t)
    first, second, third = (_Server(t, weir, id) for id in (1, 2, 3))
    other = _Server(t, None, 2, 112)
    talk = _Talk(t, weir.port)
    ask = lambda policy=111: talk.ask(_message(policy=policy)).get('srcid')
    t.equal([ask() for _ in range(4)], [1, 2, 3, 1])
    first.set_up(weir)
    t.equal([ask() for _ in range(3)], [2, 3, 1], 'who comes again unchanged does not disturb the turns')
    moved = _Server(t, None, 2)
    moved.set_up(weir)
    t.equal([ask() for _ in range(6)].count(2), 2, 'at its new port it has its share')
    t.equal((len(second.messages), len(moved.messages)), (2, 2), 'and the old one gets nothing more')
    other.set_up(weir)
    t.equal([ask(112) for _ in range(3)], [2, 2, 2])
    t.equal(sorted(ask() for _ in range(4)), [1, 1, 3, 3], 'it has left the policy that it had')
    other.set_up(weir, policy=113)
    _is_error(t, talk.ask(_message(policy=112)), 'no server for privacy policy 112')
    t.equal(ask(113), 2)
    t.equal(third.messages[0]['privPoliId'], 111)


def a_setup_that_makes_no_sense_is_told_so(t):
    weir = _switch(t)
    talk = _Talk(t, weir.port)
    for setup, why in (({'id': 1, 'privPolyId': 1, 'listenport': 70000}, 'listenport'),
                       ({'id': 1, 'privPolyId': 1}, 'listenport is missing'), ({'privPolyId': 1, 'listenport': 1}, 'id is missing'),
                       ({'id': 1, 'listenport': 1}, 'privPolyId is missing'),
                       ({'id': 1, 'privPolyId': 1, 'listenport': weir.port}, "this switch's own")):
        _is_error(t, talk.ask({'type': 1, **setup}), why, str(setup))
    _is_error(t, talk.ask(_message(policy=1)), 'no server')


@takes(60)
def a_server_is_where_it_speaks_from_over_ipv6_too(t):
    weir = Weir(t, ['packet', '--port', 0, '--bind', '::1'])
    server = _Server(t, weir, host='::1')
    weir.wait_log(rf'received a setup message from server id 100 .*\(\[::1\]:{server.port}\)')
    t.equal(_Talk(t, weir.port, host='::1').ask(_message('six'))['payload'], _sha1('six'))
    talk = _Talk(t, weir.port, host='::1')
    _is_error(t, talk.ask({'type': 1, 'id': 101, 'privPolyId': 111, 'listenport': weir.port}), "this switch's own")


def a_server_that_speaks_over_a_unix_socket_listens_on_this_machine(t):
    path = os.path.join(t.tmp, 'switch')
    Weir(t, ['packet', '--bind', 'unix:' + path]).wait_log('listens on')
    server = _Server(t)

    def say(value):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(t.s(10))
            sock.connect(path)
            sock.sendall(_bytes(value))
            sock.shutdown(socket.SHUT_WR)
            return sock.makefile().read()
    t.equal(say({'type': 1, 'id': 100, 'privPolyId': 111, 'listenport': server.port}), '')
    t.equal(json.loads(say(_message('here')))['payload'], _sha1('here'))
    t.equal(len(server.messages), 1)


def the_number_of_servers_is_bounded(t):
    weir = _switch(t)
    talk = _Talk(t, weir.port)
    talk.send(b''.join(_bytes({'type': 1, 'id': n, 'privPolyId': n, 'listenport': 9}) for n in range(1001)))
    _is_error(t, talk.answer(30), '1000 servers already')
    _Server(t, weir, 7, 2001)
    t.equal(talk.ask(_message(policy=2001))['srcid'], 7, 'who is there may come again')


# Errors

def what_is_no_message_is_told_so_and_the_connection_goes_on(t):
    weir = _switch(t)
    _Server(t, weir)
    talk = _Talk(t, weir.port)
    good = _bytes(_message())
    table = [(b'hello\n', 'no JSON object'), (b'hello', 'no JSON object'), (b'}', 'no JSON object'), (b'42\n', 'no JSON object'),
             (b'[]', 'no JSON object'), (b'{bad json}', 'bad JSON'), (b'{"type":0,}', 'bad JSON'), (b'{"type":0]', 'bad JSON'),
             (b'{"type":0 "srcid":1}', 'bad JSON'), (b'{"a":"x\ty"}', 'bad JSON'), (b'{"a":"open\n', 'bad JSON'),
             (b'{"a":"\xff"}', 'bad JSON'), (b'{"type":0,"type":0}', 'bad JSON'), (b'{}', 'type is missing'),
             (b'{"type":7}', 'unknown type'), (b'{"type":"hello"}', 'unknown type'),
             (_bytes({'type': 2, 'srcid': 1, 'payload': ''}), 'type 2 is not for a switch'),
             (_bytes({'type': 3, 'error': 'x'}), 'type 3 is not for a switch'),
             (_bytes({'type': 0, 'srcid': 1, 'privPoliId': 111}), 'payload is missing'),
             (_bytes({**_message(), 'payload': 5}), 'payload is not understood'),
             (_bytes({**_message(), 'srcid': {}}), 'srcid'), (_bytes({**_message(), 'privPoliId': 'x' * 64}), 'privPoliId'),
             (b'[' * 2040 + b']' * 2040, 'nested too deeply'), (b'{"a":' * 100 + b'1' + b'}' * 100, 'nested too deeply'),
             (b'[' + b'0,' * 2000 + b'0]', 'too many values'), (_bytes(_message(policy=5)), 'no server for privacy policy 5')]
    for stream, why in table:
        _is_error(t, talk.ask(stream), why, repr(stream[:60]))
        t.equal(talk.ask(good).get('payload'), _sha1('xyz'), f'after {stream[:60]!r}')
    talk.send(b''.join(stream + good for stream, _ in table))
    got = [str(talk.answer()['type']) for _ in range(2 * len(table))]
    t.equal(got, ['3', '2'] * len(table), 'all of it at once')


def brackets_without_end_are_told_at_once(t):
    weir = _switch(t)
    talk = _Talk(t, weir.port)
    _is_error(t, talk.ask(b'{"a":' * 2040), 'nested too deeply')
    talk = _Talk(t, weir.port)
    _is_error(t, talk.ask(b'{"a":"' + b'x' * (7 * 2**20)), 'too long')


def a_message_that_is_cut_off_or_never_ends_is_told_so(t):
    weir = _switch(t, idle_timeout=0.5)
    talk = _Talk(t, weir.port)
    talk.send(_bytes(_message())[:-5])
    talk.finish()
    _is_error(t, talk.answer(), 'ended in the middle')
    t.check(talk.closed(), 'closed')
    talk = _Talk(t, weir.port)
    talk.send(b'{"type":')
    _is_error(t, talk.answer(), 'idle_timeout')
    t.check(talk.closed(), 'closed')
    t.check(_Talk(t, weir.port).closed(), 'one that says nothing is closed')


def a_message_whose_client_hangs_up_in_the_middle_is_nobodys(t):
    """There is nobody to be told; it is no message, and is not counted as one."""
    weir = _switch(t)
    _Server(t, weir)
    talk = _Talk(t, weir.port)
    t.equal(talk.ask(_message())['type'], '2')
    talk.send(b'{"type":')
    t.read_by_peer(talk)
    talk.abort()
    t.equal(_Talk(t, weir.port).ask(_message())['type'], '2')
    weir.stop()
    weir.wait_log('requests=3 answered_here=0 ')
    t.check('sending an error' not in weir.log.text(), weir.log.text())


def a_client_that_has_finished_sending_gets_its_answers(t):
    weir = _switch(t)
    _Server(t, weir)
    talk = _Talk(t, weir.port)
    talk.send(_bytes(_message()) * 3)
    talk.finish()
    t.equal([talk.answer()['type'] for _ in range(3)], ['2'] * 3)
    talk.closed()


# Servers that fail

def _dies_after_reading(server, connection):
    server.read_message(connection)


def a_server_that_does_not_answer_leaves_and_the_message_goes_to_the_next(t):
    def resets(server, connection):
        server.read_message(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')

    def babbles(server, connection):
        server.read_message(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
        connection.recv(1)

    def half(server, connection):
        message = server.read_message(connection)
        connection.sendall(_bytes(server.hash_of(message))[:-3])

    def echoes(server, connection):
        connection.sendall(_bytes(server.read_message(connection)))
        connection.recv(1)
    for handler in (_dies_after_reading, resets, babbles, half, echoes):
        weir = _switch(t, probe_interval=3600)
        bad, good = _Server(t, weir, 1, handler=handler), _Server(t, weir, 2)
        talk = _Talk(t, weir.port)
        t.equal([talk.ask(_message())['srcid'] for _ in range(4)], [2] * 4, handler.__name__)
        t.equal((bad.connections, len(good.messages)), (1, 4), handler.__name__)
        weir.wait_log(r'server id 1 .*leaves the rotation')


def a_silent_server_costs_one_message_its_patience(t):
    weir = _switch(t, response_timeout=0.3, probe_interval=3600)
    silent, good = _Server(t, weir, 1, handler=lambda server, c: (server.read_message(c), c.recv(1))), _Server(t, weir, 2)
    talk = _Talk(t, weir.port)
    t.equal([talk.ask(_message())['srcid'] for _ in range(4)], [2] * 4)
    t.equal((len(silent.messages), len(good.messages)), (1, 4))
    weir.wait_log('silent for response_timeout')


def a_probe_brings_a_server_back_and_it_keeps_its_place(t):
    weir = _switch(t, probe_interval=0.05)
    first, second, third = (_Server(t, weir, id) for id in (1, 2, 3))
    talk = _Talk(t, weir.port)
    ask = lambda: talk.ask(_message())['srcid']
    t.equal([ask() for _ in range(3)], [1, 2, 3])
    second.die()
    t.equal([ask() for _ in range(4)], [1, 3, 1, 3])
    again = _Server(t, None, 2, port=second.port)
    weir.wait_log(r'server 2 .*is back in the rotation')
    t.until(lambda: ask() == 3, what='the end of a round')
    t.equal([ask() for _ in range(6)], [1, 2, 3, 1, 2, 3])
    t.check(len(again.messages) >= 2, 'messages to the one that came back')
    t.equal((first.connections, third.connections), (len(first.messages), len(third.messages)), 'no probe of those that are in')


def each_probe_is_in_the_debug_log(t):
    weir = _switch(t, probe_interval=0.05, probe_rise=2, log_level='debug')
    server = _Server(t, weir)
    server.die()
    _is_error(t, _Talk(t, weir.port).ask(_message()), 'all servers for privacy policy 111 are off')
    weir.wait_log(r'debug .*probe of server 100 .*: (?!good).*refused')
    _Server(t, port=server.port)
    weir.wait_log('is back in the rotation')
    lines = [line for line in weir.log.lines if 'probe of server' in line or 'back in the rotation' in line]
    t.check(re.search('probe of server 100 .*: good$', lines[-2]) and 'back' in lines[-1], f'{lines[-3:]}')


def setting_up_again_brings_a_server_back_at_once(t):
    weir = _switch(t, probe_interval=3600)
    server = _Server(t, weir)
    talk = _Talk(t, weir.port)
    server.die()
    _is_error(t, talk.ask(_message()), 'all servers for privacy policy 111 are off')
    _Server(t, weir, port=server.port)
    t.equal(talk.ask(_message())['srcid'], 100)


def when_all_servers_are_off_the_client_is_told_and_the_connection_goes_on(t):
    weir = _switch(t, probe_interval=3600)
    for id in (1, 2):
        _Server(t, weir, id).die()
    _Server(t, weir, 3, 112)
    talk = _Talk(t, weir.port)
    for _ in range(3):
        _is_error(t, talk.ask(_message()), 'all servers for privacy policy 111 are off')
    t.equal(talk.ask(_message(policy=112))['srcid'], 3)


def a_servers_own_error_is_passed_on(t):
    weir = _switch(t)
    _Server(t, weir, reply=lambda message: {'type': '3', 'error': 'not today'})
    talk = _Talk(t, weir.port)
    t.equal([talk.ask(_message()) for _ in range(2)], [{'type': '3', 'error': 'not today'}] * 2)


# Limits

def over_the_threshold_a_message_is_refused_with_the_reason(t):
    weir = _switch(t, threshold='3/m')
    server = _Server(t, weir)
    talk = _Talk(t, weir.port)
    t.equal([talk.ask(_message())['type'] for _ in range(3)], ['2'] * 3)
    for _ in range(2):
        answer = talk.ask(_message())
        _is_error(t, answer, 'over threshold')
        limit = answer.get('overLimit', {})
        t.equal((limit.get('code'), limit.get('message')), (429, 'over threshold'))
        t.check(1 <= limit.get('retryAfter', 0) <= 120, str(answer))
    t.equal(len(server.messages), 3)


def within_the_backlog_messages_wait_and_a_hang_up_gives_its_place_back(t):
    weir = _switch(t, threshold='2/s', backlog=1)
    server = _Server(t, weir)
    begun = time.monotonic()
    talks = [_Talk(t, weir.port) for _ in range(4)]
    for talk in talks:
        talk.send(_bytes(_message()))
    t.equal([talk.answer()['type'] for talk in talks], ['2'] * 4)
    t.check(time.monotonic() - begun >= 0.9, 'two of the four waited a second')
    t.equal(len(server.messages), 4)
    # The window is full again: two wait, one of them goes away, and its place is free.
    waiting = [_Talk(t, weir.port) for _ in range(2)]
    for talk in waiting:
        talk.send(_bytes(_message()))
    t.read_by_peer(*waiting)
    waiting[0].close()
    weir.wait_log('the connection ended while the message waited')
    waiting.append(_Talk(t, weir.port))
    waiting[2].send(_bytes(_message()))
    t.equal([talk.answer()['type'] for talk in waiting[1:]], ['2'] * 2)
    t.equal(len(server.messages), 6)


def a_try_that_was_sent_takes_a_slot_of_its_own(t):
    weir = _switch(t, threshold='3/m', probe_interval=3600)
    bad, good = _Server(t, weir, 1, handler=_dies_after_reading), _Server(t, weir, 2)
    talk = _Talk(t, weir.port)
    t.equal([talk.ask(_message())['type'] for _ in range(3)], ['2', '2', '3'])
    t.equal((len(bad.messages), len(good.messages)), (1, 2))


def a_second_try_that_is_over_the_threshold_is_refused_as_such(t):
    weir = _switch(t, threshold='1/h', probe_interval=3600)
    bad, good = _Server(t, weir, 1, handler=_dies_after_reading), _Server(t, weir, 2)
    talk = _Talk(t, weir.port)
    answer = talk.ask(_message())
    _is_error(t, answer, 'over threshold')
    t.equal(answer.get('overLimit', {}).get('code'), 429)
    t.equal((len(bad.messages), len(good.messages)), (1, 0))
    _is_error(t, talk.ask(b'{}'), 'type is missing', 'the connection goes on')


def clients_have_limits_of_their_own_and_may_be_kept_out(t):
    weir = _switch(t, client_rate='2/m')
    _Server(t, weir)            # its set-up counts
    talk = _Talk(t, weir.port)
    t.equal(talk.ask(_message())['type'], '2')
    _is_error(t, talk.ask(_message()), 'over client_rate')
    weir = _switch(t, deny='127.0.0.0/8')
    talk = _Talk(t, weir.port)
    _is_error(t, talk.ask(_message()), 'may not come in')
    talk.closed()
    weir = _switch(t, client_connections=1)
    first = _Talk(t, weir.port)
    _is_error(t, first.ask(b'{}'), 'type is missing')
    second = _Talk(t, weir.port)
    _is_error(t, second.answer(), 'over client_connections')
    second.closed()


# Life

def a_drain_finishes_what_is_in_flight(t):
    weir = _switch(t)
    release = threading.Event()
    t.cleanup(release.set)
    server = _Server(t, weir)
    server.reply = lambda message: (release.wait(t.s(10)), server.hash_of(message))[1]
    busy, idle = _Talk(t, weir.port), _Talk(t, weir.port)
    busy.send(_bytes(_message()) * 2)
    _is_error(t, idle.ask(b'{}'), 'type is missing')
    server.wait_messages(1)
    weir.signal(signal.SIGTERM)
    weir.wait_log('SIGTERM')
    idle.closed()
    release.set()
    t.equal([busy.answer()['type'] for _ in range(2)], ['2'] * 2)
    busy.closed()
    t.equal(weir.wait_exit(), 0)


def a_reload_keeps_servers_and_turns(t):
    weir, path = t.weir_of_file('[switch]\nmode = packet\nbind = 127.0.0.1\nport = 0\n', '--node', 'switch')
    for id in (1, 2, 3):
        _Server(t, weir, id)
    talk = _Talk(t, weir.port)
    t.equal(talk.ask(_message())['srcid'], 1)
    with open(path, 'a', encoding='ascii') as file:
        file.write('idle_timeout = 5\n')
    weir.signal(signal.SIGHUP)
    weir.wait_log('settings are in force')
    t.equal([talk.ask(_message()).get('srcid') for _ in range(4)], [2, 3, 1, 2])
    with open(path, 'w', encoding='ascii') as file:
        file.write('[switch]\nmode = reverse\nbind = 127.0.0.1\nport = 0\nendpoint = 127.0.0.1:9\n')
    weir.signal(signal.SIGHUP)
    weir.wait_log("mode of a service can't change")


def the_port_is_2100_unless_told_otherwise_and_one_dash_will_do(t):
    ran = t.run('packet', '--check')
    t.equal(ran.code, 0, str(ran))
    t.check(re.search(rb'port = 2100\b', ran.out), str(ran))
    port = t.free_port()
    weir = Weir(t, ['packet', '-port', port, '-bind', '127.0.0.1'])
    t.equal(weir.port, port)


def what_a_switch_has_no_use_for_is_said(t):
    """And it is not used: an endpoint does not become a target."""
    weir = _switch(t, endpoint='127.0.0.1:1', redis_addr='127.0.0.1:1', forwarded='off', retries=2)
    for key in ('endpoint', 'redis_addr', 'forwarded'):
        weir.wait_log(rf'warn .*--{key.replace("_", "-")}: {key} does nothing in mode packet, only in reverse')
    _Server(t, weir)
    t.equal(_Talk(t, weir.port).ask(_message())['type'], '2')
    weir.stop()
    t.equal([line for line in weir.log.lines if 'retries' in line or ' target ' in line], [])
    ran = t.run('packet', '--endpoint', '127.0.0.1:1', '--check', environment={'REDIS_ADDR': '127.0.0.1:1'}.items())
    t.equal((ran.code, ran.err), (0, ''))
    t.equal(re.findall(r'# .*does nothing.*', ran.out.decode()),
            ['# --endpoint: endpoint does nothing in mode packet, only in reverse'])


def each_message_has_a_line_in_the_access_log(t):
    path = os.path.join(t.tmp, 'access')
    weir = _switch(t, access_log=path, threshold='2/m', probe_interval=3600)
    dead, server = _Server(t, weir, 1), _Server(t, weir, 2)
    dead.die()
    talk = _Talk(t, weir.port)
    talk.ask(_message('xyz', source='7 "x"'))
    for message in (_message(), _message(), _message(policy=5), b'rubbish\n'):
        talk.ask(message)
    talk.send(_bytes(_message())[:-5])
    talk.finish()
    talk.answer()
    talk.closed()

    def lines():
        with open(path, encoding='ascii') as file:
            return file.read().splitlines()
    t.until(lambda: len(lines()) >= 8, what='eight lines')
    found = [contract.ACCESS_TEXT.fullmatch(line) for line in lines()]
    t.check(all(found), lines())
    columns = ('method', 'uri', 'protocol', 'status', 'user_agent', 'target', 'tries', 'outcome')
    here = f'127.0.0.1:{server.port}'
    t.equal([match.group(*columns) for match in found if match], [
        ('SETUP', '111', 'PACKET', '200', '1', '-', '0', 'ok'),
        ('SETUP', '111', 'PACKET', '200', '2', '-', '0', 'ok'),
        ('MESSAGE', '111', 'PACKET', '200', '7 \\"x\\"', here, '2', 'ok'),
        ('MESSAGE', '111', 'PACKET', '200', '1', here, '1', 'ok'),
        ('MESSAGE', '111', 'PACKET', '429', '1', '-', '0', 'over threshold'),
        ('MESSAGE', '5', 'PACKET', '503', '1', '-', '0', 'no server for privacy policy 5'),
        ('-', '-', 'PACKET', '400', '-', '-', '0', 'this is no JSON object'),
        ('-', '-', 'PACKET', '400', '-', '-', '0', 'the connection ended in the middle of a message')])
    without_blanks = [len(json.dumps(value, separators=(',', ':'))) for value in (_message(), server.hash_of(_message()))]
    t.equal([int(found[3][column]) for column in ('bytes_in', 'bytes_out')], without_blanks)
    weir.stop()
    weir.wait_log('requests=8 answered_here=4 started=2 refused=1')
    json_weir = _switch(t, access_log='-', log_format='json')
    _Server(t, json_weir, policy='a"\\')
    json_weir.out.wait(lambda lines: lines, t.s(10))
    entry = json.loads(json_weir.out.text())
    t.equal([entry[key] for key in ('method', 'uri', 'protocol', 'status', 'user_agent', 'outcome')],
            ['SETUP', 'a"\\', 'PACKET', 200, '100', 'ok'])


# Many at once

@takes(90)
def five_hundred_clients_at_once_lose_nothing(t):
    weir = _switch(t)
    for id in range(4):
        _Demo(t, weir, id, 111 + id % 2)
    ready = threading.Barrier(500)

    def client(number):
        payload = f'payload of client {number}'
        talk = _Talk(t, weir.port, seconds=60)
        ready.wait(t.s(60))
        answer = talk.ask(_message(payload, 111 + number % 2, source=number))
        return (str(answer['type']), answer.get('destid'), answer.get('payload')) == ('2', number, _sha1(payload)) or answer
    results = t.parallel([lambda n=n: client(n) for n in range(500)], seconds=80)
    t.equal([r for r in results if r is not True], [], 'lost or wrong answers')


@takes(90)
def servers_that_are_killed_and_revived_under_load_cost_nobody_an_answer(t):
    """Three of four servers are killed and revived in turn. The fourth lives on: whatever befalls the others while a
    message is on its way, and however long a slow machine makes that way, there is always one that can answer it."""
    weir = _switch(t, probe_interval=0.05)
    servers = [_Demo(t, weir, id, 111) for id in range(4)]
    stop, answered = threading.Event(), [0] * 8

    def client(number):
        talk, wrong = _Talk(t, weir.port, seconds=60), []
        while not stop.is_set():
            payload = f'{number}.{answered[number]}'
            answer = talk.ask(_message(payload, source=number))
            answered[number] += 1
            if (answer.get('destid'), answer.get('payload')) != (number, _sha1(payload)):
                wrong.append(answer)
        return wrong

    def killer():
        try:
            for turn in range(8):
                victim = servers[turn % 3]
                mark, before = len(weir.log.lines), list(answered)
                victim.kill()
                weir.wait_log(rf'server id {victim.id} .*leaves the rotation', 30, after=mark)
                victim.start(victim.port)
                victim.said('Received a message from client', 30)
                t.until(lambda before=before: all(count >= then + 5 for count, then in zip(answered, before)), 30,
                        'each client has got five answers more')
        finally:
            stop.set()
    wrong = t.parallel([killer, *(lambda n=n: client(n) for n in range(8))], seconds=80)[1:]
    t.equal(sum(wrong, []), [], 'lost or wrong answers')


# The demo programs, and those of others

class _Demo:
    """A running server_demo of the switch."""

    def __init__(self, t, weir, id, policy=111, port=0, *options):
        self.t, self.proxy_port, self.id, self.policy, self.options = t, getattr(weir, 'port', weir), id, policy, options
        self.process = None
        t.cleanup(self.kill)
        self.start(port)

    def start(self, port=0):
        self.process = subprocess.Popen(
            [os.path.join(self.t.bin, 'server_demo'), '-id', str(self.id), '-pp', str(self.policy), '-listen', str(port),
             '-revproc', str(self.proxy_port), *map(str, self.options)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)
        self.said(r'Set up as server id')
        self.port = int(self.said(r'Listening on port (\d+)')[1])

    def said(self, pattern, seconds=10):
        find = lambda lines: next((m for m in (re.search(pattern, line) for line in lines) if m), None)
        match = self.out.wait(find, self.t.s(seconds))
        assert match, f'no {pattern!r}: {self.out.text()} {self.err.text()}'
        return match

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()


def _client(t, port, *options, packet=None, code=0):
    ran = t.run('-revproc', port, '-pkt', packet or os.path.join(PACKETS, '1.json'), *options, program='client_demo')
    t.equal(ran.code, code, str(ran))
    return ran


def every_packet_file_comes_back_with_the_right_hash(t):
    weir = _switch(t)
    servers = {111: _Demo(t, weir, 100, 111), 112: _Demo(t, weir, 101, 112)}
    policies = []
    for number in range(1, 16):
        path = os.path.join(PACKETS, f'{number}.json')
        with open(path, encoding='utf-8') as file:
            packet = json.load(file)
        policies.append(int(packet['privPoliId']))
        ran = _client(t, weir.port, '-id', number, packet=path)
        t.check(b'Hash of payload is correct' in ran.out and ran.err == '', str(ran))
        t.check(_sha1(packet['payload']).encode() in ran.out, f'{number}: {ran}')
        servers[policies[-1]].said(f'Received a message from client {number} payload')
        servers[policies[-1]].said(f'Sending a response to client {number} payload: {_sha1(packet["payload"])}')
    t.equal((len(os.listdir(PACKETS)), set(policies)), (15, {111, 112}))


def the_demo_client_notices_what_is_wrong(t):
    wrong_hash = lambda message: {'type': 2, 'srcid': 9, 'destid': message['srcid'], 'payloadsize': 40, 'payload': '0' * 40}
    other_client = lambda message: {'type': 2, 'srcid': 9, 'destid': 77, 'payload': _sha1(message['payload'])}
    no_answer = lambda message: {'type': 1, 'id': 1, 'privPolyId': 1, 'listenport': 1}
    for reply, said in ((wrong_hash, 'not correct'), (other_client, 'for client 77'), (no_answer, 'no answer'),
                        (lambda message: b'hello\n', 'no answer'), (lambda message: {'type': 3, 'error': 'so there'}, 'so there')):
        ran = _client(t, _Server(t, reply=reply).port, code=1)      # a server may be asked without a switch
        t.check(said in ran.out.decode() + ran.err, f'{said}: {ran}')
    ran = _client(t, _Server(t, handler=_dies_after_reading).port, code=1)
    t.check('closed the connection' in ran.err, str(ran))
    ran = _client(t, _Server(t, handler=lambda s, c: (s.read_message(c), c.recv(1))).port, '--timeout', 0.2, code=1)
    t.check('in time' in ran.err, str(ran))
    _client(t, t.refused().port, code=1)
    for text in (b'', b'{', b'{}', b'[]', b'{"type":1}', _bytes(_message()) * 2, b'x' + _bytes(_message())):
        ran = _client(t, 1, packet=t.file('p.json', text), code=2)
        t.check(ran.err.count('\n') == 1 and 'p.json' in ran.err, str(ran))
    _client(t, 1, packet='/nonexistent', code=2)


def the_demo_programs_say_which_options_are_wrong(t):
    table = [('server_demo', ['-id', '1', '-pp', '1', '-listen', '0'], '--revproc'),
             ('server_demo', ['-id', '1', '-pp', '1', '-listen', '0', '-revproc', '0'], '--revproc'),
             ('server_demo', ['-id', '1', '-pp', '1', '-listen', '65536', '-revproc', '1'], '--listen'),
             ('server_demo', ['-id', 'x' * 64, '-pp', '1', '-listen', '0', '-revproc', '1'], '--id'),
             ('server_demo', ['-id', '1', '-pp', '1', '-listen', '0', '-revproc', '1', '--http', '0'], '--http'),
             ('client_demo', ['-revproc', '1'], '--pkt'), ('client_demo', ['-id', '1'], '--pkt'),
             ('client_demo', ['-pkt', 'p', '-revproc', 'a:b:1'], '--revproc'), ('client_demo', ['-pkt', 'p', '-revproc', ':1'], '--revproc'),
             ('client_demo', ['-pkt', 'p', '-revproc', '1', '--url', 'http://a/'], '--url'),
             ('client_demo', ['-pkt', 'p', '-revproc', '1', '-id', 'a b'], '--id')]
    for program, options, named in table:
        ran = t.run(*options, program=program)
        what = f'{program} {options}: {ran}'
        t.check(ran.code == 2 and ran.out == b'' and ran.err.count('\n') == 1, what)
        t.check(named in ran.err and 'allowed' in ran.err, what)


def a_demo_server_waits_for_its_proxy_and_says_when_none_comes(t):
    port = t.free_port()
    ran = t.run('-id', 1, '-pp', 1, '-listen', 0, '-revproc', port, '-patience', 0.3, program='server_demo')
    t.check(ran.code == 1 and 'no reverse proxy' in ran.err, str(ran))
    demo = []
    starting = threading.Thread(target=lambda: demo.append(_Demo(t, port, 5)))
    starting.start()
    weir = Weir(t, ['packet', '--port', port, '--bind', '127.0.0.1'])
    starting.join(t.s(15))
    t.equal(_Talk(t, weir.port).ask(_message())['srcid'], '5')
    refused = t.run('-id', 5, '-pp', 1, '-listen', 0, '-revproc', _refusing_proxy(t), program='server_demo')
    t.check(refused.code == 1 and 'full' in refused.err, str(refused))


def _refusing_proxy(t):
    return _Server(t, reply=lambda message: {'type': 3, 'error': 'full'}).port


def the_demo_server_reads_any_framing_and_answers_in_order(t):
    weir = _switch(t)
    demo = _Demo(t, weir, 100)
    talk = _Talk(t, demo.port)
    stream = b'\n'.join(_bytes(_message(str(n), source=f'client {n}'), indent=n) for n in range(5)) + b'{"type":1}' + b'rubbish\n'
    for at in range(0, len(stream), 50):
        talk.send(stream[at:at + 50])
    for n in range(5):
        t.equal(talk.answer(), {'type': '2', 'srcid': '100', 'destid': f'client {n}', 'payloadsize': 40, 'payload': _sha1(str(n))})
    _is_error(t, talk.answer(), 'id is missing')
    _is_error(t, talk.answer(), 'no JSON')
    t.equal(talk.ask(_message('x' * 2**20))['payload'], _sha1('x' * 2**20))


def _naive_server(server, connection):
    """As the exercise's servers do it: one recv() is one message, until there is none."""
    while True:
        data = connection.recv(2048)
        if not data:
            return
        message = json.loads(data.decode())
        with server.changed:
            server.messages.append(message)
        digest = hashlib.sha1(message['payload'].encode()).hexdigest()
        connection.send(json.dumps({'type': '2', 'srcid': str(server.id), 'destid': message['srcid'], 'payloadsize': len(digest),
                                    'payload': digest}).encode())


def _naive_setup(weir, server):
    with socket.create_connection(('127.0.0.1', weir.port)) as sock:
        sock.send(json.dumps({'type': '1', 'id': str(server.id), 'privPolyId': str(server.policy),
                              'listenport': str(server.port)}).encode())


def _naive_client(port, message):
    with socket.create_connection(('127.0.0.1', port), 20) as sock:
        sock.send(json.dumps(message).encode())
        return json.loads(sock.recv(2048).decode())


@takes(60)
def naive_servers_and_clients_work_with_the_switch(t):
    """Servers that serve one connection at a time, with a short queue; clients that take one recv() for the answer."""
    weir = _switch(t)
    servers = [_Server(t, None, id, 111 + id % 2, handler=_naive_server, serial=True, backlog=10) for id in range(4)]
    for server in servers:
        _naive_setup(weir, server)
        weir.wait_log(f'setup message from server id {server.id} ')

    def client(number):
        payload = f'naïve {number}'
        answer = _naive_client(weir.port, {**_message(payload, str(111 + number % 2), source=str(number)), 'type': '0'})
        return answer['destid'] == str(number) and answer['payload'] == _sha1(payload)
    t.equal(t.parallel([lambda n=n: client(n) for n in range(24)], seconds=40), [True] * 24)
    t.equal([len(server.messages) for server in servers], [6] * 4)
    for number in range(1, 16):
        _client(t, weir.port, packet=os.path.join(PACKETS, f'{number}.json'))


def a_probe_does_not_end_a_naive_server(t):
    """It sees a connection without a message, its recv() is empty, and it goes on."""
    weir = _switch(t, probe_interval=0.05)
    server = _Server(t, None, handler=_naive_server, serial=True)
    _naive_setup(weir, server)
    weir.wait_log('setup message')
    server.die()
    _is_error(t, _naive_client(weir.port, _message()), 'all servers')
    again = _Server(t, None, handler=_naive_server, serial=True, port=server.port)
    weir.wait_log('is back in the rotation')
    t.equal([_naive_client(weir.port, _message())['payload'] for _ in range(3)], [_sha1('xyz')] * 3)
    t.check(again.connections >= 4, 'a probe and three messages')


def our_programs_work_with_a_naive_proxy(t):
    """A switch as the exercise's own is: one recv() for a message, texts compared with texts."""
    table, known = {}, threading.Condition()
    listener = socket.create_server(('127.0.0.1', 0), backlog=100)
    t.cleanup(listener.close)

    def serve(connection):
        with connection:
            while True:
                data = connection.recv(2048)
                if not data:
                    return
                message = json.loads(data.decode())
                if message['type'] == '1':
                    with known:
                        table[message['privPolyId']] = int(message['listenport'])
                        known.notify_all()
                elif message['type'] == '0':
                    with socket.create_connection(('127.0.0.1', table[message['privPoliId']])) as server:
                        server.send(json.dumps(message).encode())
                        answer = json.loads(server.recv(2048).decode())
                    connection.send(json.dumps(answer).encode())

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    port = listener.getsockname()[1]
    _Demo(t, port, 100, 111)
    _Demo(t, port, 101, 112)
    with known:
        t.check(known.wait_for(lambda: len(table) == 2, t.s(10)), f'set up: {table}')
    for number in (1, 2, 7):
        ran = _client(t, port, '-id', number, packet=os.path.join(PACKETS, f'{number}.json'))
        t.check(b'Hash of payload is correct' in ran.out, str(ran))
