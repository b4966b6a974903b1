"""deploy/check_container.sh's other half: builds the image as image.py does it, and plays the compose files. The folder that is given
must be a mount of the caller's own, for what is mounted below it."""
import collections
import json
import os
import select
import signal
import sys
import time
import types

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path[:0] = [HERE, os.path.join(TOP, 'tests', 'system')]

import run as runner  # noqa: E402  pylint: disable=wrong-import-position
from arrivals import Load, fullest  # noqa: E402  pylint: disable=wrong-import-position
from client import Client, request  # noqa: E402  pylint: disable=wrong-import-position
from compose import Project  # noqa: E402  pylint: disable=wrong-import-position
from containers import World  # noqa: E402  pylint: disable=wrong-import-position
from harness import takes  # noqa: E402  pylint: disable=wrong-import-position
from image import Builder, say  # noqa: E402  pylint: disable=wrong-import-position

DOCKER = os.path.join(TOP, 'deploy', 'docker')
IMAGE = ROOT = None     # set by main()


def _service(name, command=(), **more):
    """What `docker run weir COMMAND` is."""
    return types.SimpleNamespace(**{'name': name, 'image': 'weir', 'command': list(command), 'entrypoint': None, 'environment': {},
                                    'health': None, 'read_only': True, 'grace_s': 15, 'secrets': [], **more})


def _project(t, name):
    project = Project(os.path.join(DOCKER, f'compose.{name}.yaml'))
    return World(t, IMAGE, ROOT, project.services)


def _client(world, container, port, place=None):
    """A connection from the user's machine."""
    def connect():
        client = Client(port, world.t.s(15), host=container.address)
        world.t.cleanup(client.close)
        return client
    return (place or world.user).inside(connect)


def _get(world, container, port, target='/', host='x'):
    client = _client(world, container, port)
    try:
        return client.ask('GET', target, host=host)
    finally:
        client.close()


# The image

def programs_find_their_libraries_and_no_compiler_came_along(t):
    for program in ('/usr/sbin/weir', '/usr/libexec/weir/server_demo', '/usr/libexec/weir/client_demo'):
        found = t.run_tool('chroot', ROOT, 'ldd', program)
        t.check(found.code == 0 and b'not found' not in found.out, f'{program}: {found}')
    for tool in ('gcc', 'make', 'curl'):
        t.check(t.run_tool('chroot', ROOT, 'sh', '-c', f'command -v {tool}').code != 0, f'{tool} is in the image')
    t.check(not os.path.exists(ROOT + '/src'), 'the sources are in the image')


def the_image_says_what_it_runs_as(t):
    user, group = IMAGE.user.split(':')
    t.check(int(user) > 0 and int(group) > 0, f'USER {IMAGE.user}')
    t.equal(IMAGE.stop_signal, 'SIGTERM')
    t.equal(sorted(IMAGE.exposed), ['2100', '8000', '8080'])


@takes(60)
def one_container_serves_is_healthy_and_drains_as_process_one(t):
    world = World(t, IMAGE, ROOT, {'web': _service('web', [], entrypoint=['/usr/libexec/weir/server_demo', '--http=9001', '--delay=1500']),
                                   'weir': _service('weir', ['reverse', '--port', '8000', '--endpoint', 'web:9001'])})
    world.start('web')
    weir = world.start('weir')
    weir.wait_log('listens on .*port=8000')
    status = weir.status()
    t.equal(status['NSpid'].split()[-1], '1', 'process 1')
    t.equal(set(status['Uid'].split()), {IMAGE.user.split(':')[0]}, 'its user')
    t.equal((int(status['CapEff'], 16), int(status['CapBnd'], 16), status['NoNewPrivs']), (0, 0, '1'))
    t.until(lambda: _get(world, weir, 8000).status == 200, 20, 'the target is in')
    t.equal(weir.health().code, 0, 'health')
    t.equal(weir.execute(['weir', '--healthcheck', 'http://127.0.0.1:8000/']).code, 0, 'health by a URL')
    t.equal(weir.execute(['weir', '--healthcheck', 'http://127.0.0.1:1/']).code, 1, 'health of nobody')
    # A request that is under way at SIGTERM is finished, and the exit code is 0.
    slow = _client(world, weir, 8000)
    slow.send(request('GET', '/', host='x'))
    weir_status = lambda: weir.execute(['weir', 'top', '--once']).out     # noqa: E731
    t.until(lambda: b'1 active' in weir_status() or b'active 1' in weir_status(), 20, 'the request is under way')
    os.kill(weir.pid, signal.SIGTERM)
    t.equal(slow.response().status, 200, 'the answer of a request that was under way')
    t.equal(weir.stop(), 0, 'exit code')


def the_command_of_the_image_alone_is_help(t):
    world = World(t, IMAGE, ROOT, {'weir': _service('weir')})
    arguments, environment = world.enter(world.services['weir'], IMAGE.entrypoint + IMAGE.command)
    done = t.run_tool(*arguments, environment=environment)
    t.check(done.code == 0 and b'weir: a rate-limited HTTP proxy' in done.out, f'{done}')


def a_file_is_mounted_and_its_stanza_found_by_the_containers_name(t):
    def write(status):
        os.makedirs(f'{ROOT}/etc/weir', exist_ok=True)
        with open(f'{ROOT}/etc/weir/weir.ini', 'w', encoding='ascii') as file:
            file.write('[one]\nhostname = gate\nport = 8000\nendpoint = 127.0.0.1:9\nunavailable_status = %d\n'
                       '[other]\nhostname = elsewhere\nport = 8001\nendpoint = 127.0.0.1:9\n' % status)
    write(503)
    world = World(t, IMAGE, ROOT, {'gate': _service('gate', ['-c', '/etc/weir/weir.ini'])})
    weir = world.start('gate')
    weir.wait_log('one: reverse listens on .*port=8000')
    t.check('elsewhere' not in weir.log.text() and '8001' not in weir.log.text(), 'the other stanza')
    t.equal(_get(world, weir, 8000).status, 503)
    write(504)
    os.kill(weir.pid, signal.SIGHUP)
    weir.wait_log('new settings are in force')
    t.equal(_get(world, weir, 8000).status, 504)
    t.equal((weir.health().code, weir.stop()), (0, 0), 'health, exit code')


# The compose files

@takes(90)
def five_targets_take_turns_and_one_may_stop(t):
    world = _project(t, 'targets')
    proxy = world.start('proxy')                    # before its targets: their names do not resolve yet
    proxy.wait_log('listens on .*port=8000')
    targets = {name: world.start(name) for name in world.services if name != 'proxy'}

    def names(count):
        client = _client(world, proxy, 8000)
        answers = [client.ask('GET', '/', host='x') for _ in range(count)]
        client.close()
        bad = [answer.status for answer in answers if answer.status != 200]
        return None if bad else [answer.get('x-target') for answer in answers]
    world.in_time(lambda: len(set(names(5) or ())) == 5, 30, 'five targets are in')
    round_trip = names(15)
    t.equal(sorted(set(round_trip)), sorted(targets), 'who answered')
    t.equal(round_trip, round_trip[:5] * 3, 'strict rotation')
    for container in (proxy, *targets.values()):
        t.equal(container.health().code, 0, f'health of {container.service.name}')
    t.equal(targets['target3'].stop(), 0, 'target3 stops')
    without = names(12)
    t.equal(sorted(set(without or ())), ['target1', 'target2', 'target4', 'target5'], 'without target3, and no request fails')
    world.start('target3')
    world.in_time(lambda: 'target3' in (names(5) or ()), 20, 'target3 is back')
    t.equal(_get(world, proxy, 9100, '/healthz', host='127.0.0.1:9100').status, 200, 'the status page from outside')
    t.equal(proxy.stop(), 0, 'the proxy stops')


@takes(120)
def three_forward_proxies_share_one_cap(t):
    world = _project(t, 'fleet')
    redis = world.start('redis')
    t.until(lambda: 'Ready to accept connections' in redis.out.text(), 20, 'Redis is ready')
    world.start('origin')
    proxies = [world.start(f'proxy{number}') for number in (1, 2, 3)]
    for proxy in proxies:
        proxy.wait_log('listens on .*port=8080')

    def tunnel(proxy):
        client = _client(world, proxy, 8080)
        client.send(request('CONNECT', 'origin:9001', host='origin:9001'))
        return client, client.head().status
    t.until(lambda: _close(tunnel(proxies[0])) == 200, 30, 'the origin can be reached')
    held = [tunnel(proxy) for _ in range(5) for proxy in proxies]
    statuses = collections.Counter(status for _, status in held)
    t.equal(statuses, {200: 5, 503: 10}, 'tunnels through three proxies')
    open_now = [client for client, status in held if status == 200]
    open_now.pop().close()
    t.until(lambda: _close(tunnel(proxies[2])) == 200, 20, 'a place that was given back is another proxy\'s')
    for client, _ in held:
        client.close()
    t.until(lambda: [_close(tunnel(proxy)) for proxy in proxies] == [200] * 3, 20, 'all places are free')

    # What the file says to try.
    t.until(lambda: _plain(t, world, proxies[0]) == 200, 30, 'a plain request')
    idle_s = time.monotonic()
    answers = t.parallel([lambda proxy=proxy: _plain(t, world, proxy) for proxy in proxies for _ in range(4)], seconds=60)
    t.equal(collections.Counter(answers), {200: 5, 503: 7}, f'twelve at once, {time.monotonic() - idle_s:.1f} s')
    for proxy in proxies:
        t.equal(proxy.health().code, 0, f'health of {proxy.service.name}')
    redis.kill()
    t.until(lambda: _close(tunnel(proxies[1])) == 503, 20, 'closed without Redis')
    for proxy in proxies:
        t.equal(proxy.stop(), 0, f'{proxy.service.name} stops')


def _close(pair):
    pair[0].close()
    return pair[1]


def _plain(t, world, proxy):
    client = _client(world, proxy, 8080)
    try:
        return client.ask('GET', 'http://origin:9001/', host='origin:9001').status
    finally:
        client.close()


@takes(120)
def three_nodes_share_one_threshold(t):
    world = _project(t, 'cluster')
    world.secret('cluster_secret', 'a secret for this check alone\n')
    target = world.start('target', ['--log=/dev/stdout'])       # it notes when requests come
    nodes = []
    for number in (1, 2, 3):                        # one after the other: of the first two, not all names resolve at first
        nodes.append(world.start(f'node{number}'))
        nodes[-1].wait_log('listens on .*port=8000')
    for node in nodes:
        node.wait_log('node 1 is the master of the group', 30)
    world.in_time(lambda: all(_alive(world, node) == {1, 2, 3} for node in nodes), 60, 'each knows all three')
    known_ns = time.time_ns()
    load = Load(t, [(node.address, 8000) for node in nodes], 15, world.user.enter)
    for index in range(3):
        t.until(lambda index=index: load.served(index) >= 20, 60, f'node {index + 1} serves')
    seen = [len(node.log.lines) for node in nodes]
    nodes[0].kill()
    nodes[1].wait_log('node 2 is the master of the group', 20, seen[1])
    before = load.served()
    t.until(lambda: load.served() >= before + 60, 60, 'they go on')
    load.stop()
    for node in nodes[1:]:
        t.equal(node.health().code, 0, f'health of {node.service.name}')
        t.equal(node.stop(), 0, f'{node.service.name} stops')
    target.stop()
    lines = [line for line in target.out.lines if ' target GET / ' in line]
    times = sorted(int(float(line.split()[0]) * 1e6) * 1000 for line in lines)
    after = [moment for moment in times if moment >= known_ns]
    t.check(len(after) >= 100, f'{len(after)} arrivals')
    t.check(fullest(after) <= 20, f'{fullest(after)} arrivals in a second, threshold 20')


def _alive(world, node):
    """The nodes that it takes for alive, itself among them, by its own status page: that is on its loopback address."""
    def ask():
        client = Client(9100, world.t.s(15), host='127.0.0.1')
        try:
            return client.ask('GET', '/api/status', host='127.0.0.1:9100')
        finally:
            client.close()
    group = json.loads(node.machine.inside(ask).body)['services'][0]['group']
    return {other['id'] for other in group['nodes'] if other['state'] == 'alive'}


CASES = [programs_find_their_libraries_and_no_compiler_came_along, the_image_says_what_it_runs_as, the_command_of_the_image_alone_is_help,
         one_container_serves_is_healthy_and_drains_as_process_one, a_file_is_mounted_and_its_stanza_found_by_the_containers_name,
         five_targets_take_turns_and_one_may_stop, three_forward_proxies_share_one_cap,
         three_nodes_share_one_threshold]


def main():
    global IMAGE, ROOT      # pylint: disable=global-statement
    scratch = sys.argv[1]
    started = time.monotonic()
    IMAGE, ROOT = Builder(TOP, os.path.join(DOCKER, 'Dockerfile'), scratch).build()
    size = sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(ROOT + '.upper') for name in names
               if '/var/cache/apt' not in folder)      # an engine's base image empties that by itself
    say(f'{time.monotonic() - started:6.1f} s  in all; the image is {size >> 20} MiB above a minimal Debian')
    options = types.SimpleNamespace(bin=os.path.join(ROOT, 'usr', 'sbin'), slow_factor=1.0)
    counts = collections.Counter()
    for case in CASES:
        child = runner.Running(case.__name__, case, options, scratch)
        verdict, report = _outcome(child)
        counts[verdict] += 1
        say(f'{verdict:7} {time.monotonic() - child.started:6.2f} s  {case.__name__.replace("_", " ")}')
        if report:
            say(report)
    say(f'{counts["passed"]} passed, {counts["failed"] + counts["skipped"]} failed')
    return 0 if counts['passed'] == len(CASES) else 1


def _outcome(child):
    select.select([child.handle], [], [], max(0.0, child.deadline - time.monotonic()))
    return child.verdict()


if __name__ == '__main__':
    sys.exit(main())
