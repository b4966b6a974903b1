"""weir --healthcheck, and weir as process 1 of a container."""
import os
import signal
import socket
import threading

from admin import Admin
from client import request
from harness import Weir
from origin import answer


def _health(t, *arguments, **environment):
    return t.run('--healthcheck', *arguments, environment=environment.items())


def a_weir_that_answers_is_well(t):
    weir = t.weir(t.refused(), admin=0)         # no target: well all the same, but not ready
    port = Admin(t, weir).port
    for done in (_health(t, str(port)), _health(t, f'127.0.0.1:{port}'), _health(t, f'localhost:{port}'), _health(t, f'*:{port}'),
                 _health(t, f'0.0.0.0:{port}'), _health(t, f'http://127.0.0.1:{port}/healthz'), _health(t, WEIR_ADMIN=f'127.0.0.1:{port}'),
                 _health(t, f'HTTP://localhost:{port}/healthz?x=1'), t.run(f'-healthcheck=http://127.0.0.1:{port}/healthz')):
        t.check(done.code == 0 and not done.out and not done.err, f'{done}')
    t.get(weir)
    done = _health(t, f'http://127.0.0.1:{port}/readyz')
    t.check(done.code == 1 and done.err.rstrip().endswith(f'127.0.0.1:{port} answers /readyz with 503'), f'{done}')


def it_asks_a_unix_socket_and_both_families(t):
    path = os.path.join(t.tmp, 'admin.socket')
    weir = t.weir(t.origin(), admin=f'unix:{path}')
    weir.wait_log('the API are at')
    t.equal(_health(t, WEIR_ADMIN=f'unix:{path}').code, 0)
    other = t.weir(t.origin(), admin='[::1]:0')
    port = Admin(t, other).port
    for place in (f'[::1]:{port}', f'http://[::1]:{port}/healthz', f'*:{port}'):
        t.equal(_health(t, place).code, 0, place)


def who_does_not_answer_well_is_not(t):
    silent = socket.create_server(('127.0.0.1', 0))     # takes connections, and says nothing
    t.cleanup(silent.close)
    babble = t.origin(handler=lambda conn: conn.send(b'hello there\r\n\r\n'))
    closes = t.origin(handler=lambda conn: None)
    cases = [(t.refused().address, "can't be connected to"), (f'127.0.0.1:{silent.getsockname()[1]}', 'did not answer in time'),
             (babble.address, 'no HTTP'), (closes.address, 'closed the connection')]
    results = t.parallel([lambda place=place: _health(t, f'http://{place}/') for place, _ in cases])
    for (place, why), done in zip(cases, results):
        t.check(done.code == 1 and why in done.err and place in done.err and done.err.count('\n') == 1, f'{why}: {done}')


def an_answer_that_never_ends_is_an_answer(t):
    hold = threading.Event()
    t.cleanup(hold.set)

    def endless(conn):
        conn.head()
        conn.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n')
        hold.wait(t.s(20))
    t.equal(_health(t, f'http://{t.origin(handler=endless).address}/').code, 0)


def what_is_no_url_is_named(t):
    for text in ('', 'ftp://x/', 'http://', 'http://a@b/', 'http://127.0.0.1?x', 'a b', 'x\ny', '127.0.0.1:9100/healthz#x', 'http://' + 'x' * 300 + '/'):
        done = _health(t, text)
        t.check(done.code in (1, 2) and done.err.count('\n') == 1 and not done.out, f'{text!r}: {done}')
    t.equal([_health(t, text).code for text in ('', 'ftp://x/', 'http://', 'a b')], [2] * 4)
    for text in ('--help', 'localhost', 'http://[::1', 'http://[::1]9/', 'http://127.0.0.1:/', 'http://127.0.0.1:9x/', 'http://127.0.0.1:65536/',
                 'http://:9/', '127.0.0.1:-18446744073709551607', 'unix:'):
        done = _health(t, text)
        t.check(done.code == 2 and 'allowed: ' in done.err, f'{text!r}: {done}')
    t.equal(_health(t, 'http://127.0.0.1/', 'more').code, 2)
    t.equal(_health(t, WEIR_ADMIN='nonsense here').code, 2)
    done = t.run('reverse', '--healthcheck')
    t.check(done.code == 2 and 'did you mean' not in done.err and 'as the first argument' in done.err, str(done))
    t.check('--healthcheck' in t.run('--help').out.decode(), 'not in --help')


def as_process_one_it_drains_on_sigterm_and_reads_its_settings_again_on_sighup(t):
    unshare = t.tool('unshare')
    if t.run_tool(unshare, '--fork', '--pid', '--mount-proc', 'true').code != 0:
        t.skip('process namespaces are not allowed here')
    go = threading.Event()
    t.cleanup(go.set)

    def reply(req):
        if req.target == '/slow':
            go.wait(t.s(20))
        return answer(b'whole')
    origin = t.origin(reply)
    weir = Weir(t, ['reverse', '--port', '0', '--endpoint', origin.address], prefix=(unshare, '--fork', '--pid', '--mount-proc', '--kill-child'))
    with open(f'/proc/{weir.pid}/task/{weir.pid}/children', encoding='ascii') as file:
        pid = int(file.read())
    with open(f'/proc/{pid}/status', encoding='ascii') as file:
        t.check(any(line.startswith('NSpid:') and line.split()[-1] == '1' for line in file), 'it is not process 1')
    os.kill(pid, signal.SIGHUP)
    weir.wait_log('settings are in force')
    slow = t.client(weir)
    slow.send(request('GET', '/slow'))
    origin.wait_requests(1)
    os.kill(pid, signal.SIGTERM)
    weir.wait_log('SIGTERM: draining')
    go.set()
    t.equal(slow.response().body, b'whole', 'what was under way')
    t.equal(weir.wait_exit(), 0)


def the_commands_of_the_containers_page_say_what_it_says(t):
    with open(os.path.join(os.path.dirname(__file__), '../../docs/containers.md'), encoding='utf-8') as file:
        commands = [line.strip() for line in file if line.startswith('    ./weir --healthcheck')]
    t.equal(len(commands), 2)
    weir = t.weir(t.refused(), admin=0)
    port = Admin(t, weir).port
    t.get(weir)
    for command, said in zip(commands, ('well', 'not ready')):
        done = t.run_tool('bash', '-c', command.replace('9100', str(port)).replace('./weir', os.path.join(t.bin, 'weir')),
                          environment={'WEIR_ADMIN': str(port)})
        t.equal(done.out.decode().strip(), said, command)
