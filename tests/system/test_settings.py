"""Flags, environment and file: one table, one order, and errors that say where and what."""
import os
import pwd
import re
import select
import signal
import socket

import contract
from harness import Weir

ONE_LINE = re.compile(r'[^\n]+\n?')


def _refuses(t, arguments, *mentions, code=2, environment=()):
    """weir leaves with this code, says one line on stderr with these words in it, and nothing on stdout."""
    result = t.run(*arguments, environment=environment)
    what = ' '.join(map(str, arguments))[:300]
    t.check(result.code == code, f'{what}: {result}')
    t.check(ONE_LINE.fullmatch(result.err), f'{what}: not one line on stderr: {result.err[:500]!r}')
    for word in mentions:
        t.check(word.lower() in result.err.lower(), f'{what}: {word!r} is not in {result.err!r}')
    t.equal(result.out, b'', f'{what}: stdout')
    return result.err


def _check(t, *arguments, environment=()):
    """What --check prints: {key: (value, origin)} of the last stanza and the globals."""
    result = t.run(*arguments, '--check', environment=environment)
    t.check(result.code == 0 and not result.err, f'--check: {result}')
    found = {}
    for line in result.out.decode().splitlines():
        match = re.fullmatch(r'(\S+) = (.*?)\s+# (.+)', line)
        if match:
            found[match[1]] = (match[2], match[3].replace(t.tmp + '/', ''))
    return found


# The command line

def help_and_version_go_to_stdout_and_leave_with_0(t):
    for flag in ('--help', '-help'):
        result = t.run(flag)
        t.check(result.code == 0 and not result.err and b'--endpoint' in result.out, f'{flag}: {result}')
    for flag in ('--version', '-version'):
        result = t.run(flag)
        t.check(result.code == 0 and not result.err and re.search(rb'\d+\.\d+', result.out), f'{flag}: {result}')
    for program in ('server_demo', 'client_demo'):
        for flag in ('--help', '--version'):
            result = t.run(flag, program=program)
            t.check(result.code == 0 and result.out and not result.err, f'{program} {flag}: {result}')


def help_names_every_setting(t):
    text = t.run('--help').out.decode()
    for key in contract.SETTINGS:
        t.check('--' + key.replace('_', '-') in text, f'--{key} is not in --help')


def an_unknown_option_is_refused_by_name(t):
    _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', '--no-such-thing', '5'], 'no-such-thing')
    _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', '--no-such-thing=5'], 'no-such-thing')
    _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', '-no-such-thing'], 'no-such-thing')
    _refuses(t, ['--no-such-thing'], 'no-such-thing')
    _refuses(t, ['backwards', '--port', '0'], 'backwards')
    _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', 'stray'], 'stray')
    for program in ('server_demo', 'client_demo'):
        result = t.run('--no-such-thing', program=program)
        t.check(result.code == 2 and 'no-such-thing' in result.err and ONE_LINE.fullmatch(result.err),
                f'{program}: {result}')


def nothing_at_all_is_refused(t):
    result = t.run()
    t.check(result.code == 2 and ONE_LINE.fullmatch(result.err), f'{result}')


def one_dash_or_two_and_both_forms_of_a_value_are_the_same(t):
    for form in (['--header-timeout', '7'], ['-header-timeout', '7'], ['--header-timeout=7'], ['-header-timeout=7'],
                 ['--header_timeout', '7'], ['-header_timeout=7']):
        settings = _check(t, 'reverse', '--endpoint', '127.0.0.1:1', *form)
        t.equal(settings['header_timeout'][0], '7', ' '.join(form))
        t.check('flag' in settings['header_timeout'][1], f'{form}: {settings["header_timeout"]}')


def bad_values_are_refused_with_what_is_allowed(t):
    rows = [('port', '65536'), ('port', '-1'), ('port', 'http'), ('port', ''), ('port', '80x'), ('threshold', '-5'),
            ('threshold', 'many'), ('threshold', '5/y'), ('backlog', 'x'), ('backlog', '-1'),
            ('header_timeout', 'soon'),
            ('header_timeout', '-1'), ('header_timeout', '1e400'), ('header_timeout', 'nan'),
            ('header_timeout', '0x10'),
            ('balance', 'dice'), ('hash_key', 'moon'), ('hash_key', 'header:'), ('hash_key', 'header:a b'),
            ('retries', '-1'),
            ('max_clients', '0'), ('max_header', '1'), ('max_body', '-1'), ('forwarded', 'maybe'),
            ('unavailable_status', '99'),
            ('unavailable_status', '1000'), ('reject_status', '200'), ('probe_rise', '0'), ('probe_fall', 'x'),
            ('probe_interval', 'x'), ('probe_path', 'no-slash'), ('log_level', 'loud'), ('log_format', 'xml'),
            ('endpoint', '127.0.0.1'), ('endpoint', '127.0.0.1:0'), ('endpoint', '127.0.0.1:99999'),
            ('endpoint', '127.0.0.1:80*0'),
            ('endpoint', '127.0.0.1:80*x'), ('endpoint', ':80'), ('endpoint', '[::1:80'),
            ('endpoint', '127.0.0.1:80,,127.0.0.1:81'),
            ('endpoint', ''), ('bind', 'not an address'), ('id', '0'), ('id', '65536')]
    for key, value in rows:
        more = [] if key == 'endpoint' else ['--endpoint', '127.0.0.1:1']
        flag = '--' + key.replace('_', '-')
        error = _refuses(t, ['reverse', *more, f'{flag}={value}', '--check'])
        t.check(flag in error or key in error, f'{flag}={value}: the option is not named in {error!r}')
        t.check('allowed' in error or not value, f'{flag}={value}: what is allowed is not in {error!r}')


def an_option_without_its_value_is_refused(t):
    _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', '--port'], 'port')


def a_reverse_proxy_without_endpoint_is_refused(t):
    _refuses(t, ['reverse', '--port', '0'], 'endpoint')


def every_setting_can_be_set_in_three_places_and_check_says_where(t):
    path = t.file('weir.ini', '[main]\nendpoint = 127.0.0.1:1\n' + ''.join(
        f'{key} = {value}\n' for key, value in contract.SETTINGS.items()))
    from_file = _check(t, '-c', path, '--node', 'main')
    by_flag = _check(t, 'reverse', '--endpoint', '127.0.0.1:1', *(
        part for key, value in contract.SETTINGS.items() for part in ('--' + key.replace('_', '-'), value)))
    by_environment = _check(t, 'reverse', '--endpoint', '127.0.0.1:1', environment={
        'WEIR_' + key.upper(): value for key, value in contract.SETTINGS.items()})
    defaults = _check(t, 'reverse', '--endpoint', '127.0.0.1:1')
    for line, (key, value) in enumerate(contract.SETTINGS.items(), 3):
        t.equal(from_file.get(key), (value, f'weir.ini:{line}'), f'{key} in the file')
        t.equal((by_flag.get(key) or '?')[0], value, f'{key} by flag')
        t.check('flag' in by_flag[key][1], f'{key} by flag: {by_flag[key]}')
        t.equal((by_environment.get(key) or '?')[0], value, f'{key} by environment')
        t.check('environment' in by_environment[key][1], f'{key} by environment: {by_environment[key]}')
        if key in defaults:
            t.check('default' in defaults[key][1] and defaults[key][0] != value, f'{key} by default: {defaults[key]}')


def a_flag_goes_before_the_environment_before_the_file_before_the_default(t):
    path = t.file('weir.ini', '[main]\nendpoint = 127.0.0.1:1\nthreshold = 3\nbacklog = 3\nretries = 3\n')
    environment = {'WEIR_THRESHOLD': '2', 'WEIR_BACKLOG': '2'}
    settings = _check(t, '-c', path, '--node', 'main', '--threshold', '1', environment=environment)
    t.equal([settings[key][0] for key in ('threshold', 'backlog', 'retries')], ['1', '2', '3'])
    t.equal([settings[key][1].split()[0] for key in ('threshold', 'backlog', 'retries')],
            ['flag', 'environment', 'weir.ini:5'])
    t.check('default' in settings['idle_timeout'][1], f'{settings["idle_timeout"]}')


def the_other_environment_names_work(t):
    settings = _check(t, 'reverse', '--endpoint', '127.0.0.1:1', environment={'DPRL_PORT': '8123', 'LOG_LEVEL': 'warn'})
    t.equal([settings['port'][0], settings['log_level'][0]], ['8123', 'warn'])
    environment = {'DPRL_MAX_CONNECTIONS': '25', 'REDIS_ADDR': 'redis:6380', 'REDIS_DB': '3', 'REDIS_PASSWORD': 'hush-hush'}
    settings = _check(t, 'reverse', '--endpoint', '127.0.0.1:1', environment=environment)
    t.equal([settings[key][0] for key in ('max_connections', 'redis_addr', 'redis_db')], ['25', 'redis:6380', '3'])
    t.equal(settings['max_connections'][1], 'environment DPRL_MAX_CONNECTIONS')
    path = t.file('weir.ini', '[main]\nendpoint = 127.0.0.1:1\nmax_connections = 1\n')
    settings = _check(t, '-c', path, '--node', 'main', '--max-connections', '2', environment=environment)
    t.equal(settings['max_connections'], ('2', 'flag --max-connections'))
    settings = _check(t, '-c', path, '--node', 'main', environment=environment)
    t.equal(settings['max_connections'][0], '25')
    settings = _check(t, '-c', path, '--node', 'main')
    t.equal(settings['max_connections'], ('1', 'weir.ini:3'))
    shown = t.run('reverse', '--endpoint', '127.0.0.1:1', '--check', environment=environment).out
    t.check(b'hush-hush' not in shown, f'the secret is shown: {shown!r}')


def a_file_that_holds_a_value_is_read_by_check(t):
    users = t.file('users', 'alice:secret\n')
    error = _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', '--auth-file', users, '--check'], users + ':1:', 'allowed')
    t.check('secret' not in error, f'the secret is shown: {error!r}')
    password = t.file('password', 'hush-hush\n')
    settings = _check(t, 'reverse', '--endpoint', '127.0.0.1:1', '--redis-password-file', password)
    t.equal(settings['redis_password_file'][0], str(password))
    _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', '--redis-password-file', '/nonexistent', '--check'],
             '/nonexistent', 'No such file', 'allowed')


def a_bad_value_in_the_environment_names_the_variable(t):
    _refuses(t, ['reverse', '--endpoint', '127.0.0.1:1', '--check'], 'WEIR_BACKLOG', 'allowed',
             environment={'WEIR_BACKLOG': 'x'})


def fractions_of_a_second_are_accepted(t):
    settings = _check(t, 'reverse', '--endpoint', '127.0.0.1:1', '--header-timeout', '0.5', '--probe-interval', '0.25')
    t.equal([settings['header_timeout'][0], settings['probe_interval'][0]], ['0.5', '0.25'])


def what_check_prints_can_be_read_again(t):
    printed = t.run('reverse', '--endpoint', '127.0.0.1:1,[::1]:2*3', '--threshold', '600/m', '--check').out
    path = t.file('again.ini', printed)
    again = _check(t, '-c', path, '--node', 'reverse')
    t.equal([again['endpoint'][0], again['threshold'][0]], ['127.0.0.1:1,[::1]:2*3', '600/m'])


# The file

PROXYPY = '''[node2]
id              = 2
hostname        = micro2
port            = 8090
endpoint        = localhost:80
threshold       = 5
backlog         = 4
ssl             = no
'''


def a_proxypy_file_is_read_as_it_stands(t):
    path = t.file('proxypy.ini', PROXYPY)
    settings = _check(t, '-c', path, '--node', 'node2')
    for line, (key, value) in enumerate((('id', '2'), ('hostname', 'micro2'), ('port', '8090'),
                                         ('endpoint', 'localhost:80'),
                                         ('threshold', '5'), ('backlog', '4')), 2):
        t.equal(settings.get(key), (value, f'proxypy.ini:{line}'), key)


def a_proxypy_file_runs(t):
    origin = t.origin(name='A')
    weir, _ = t.weir_of_file(PROXYPY.replace('8090', '0').replace('localhost:80', f'localhost:{origin.port}'), '--node',
                             'node2')
    t.equal(t.get(weir).body, b'A')


def the_stanza_of_this_machine_is_run_and_others_are_left(t):
    mine, other = t.origin(name='mine'), t.origin(name='other')
    text = f'''[other]
hostname = not-this-machine
endpoint = {other.address}
port = 0
tls_keyfile = /not/on/this/machine.key
tls_crtfile = /not/on/this/machine.crt

[mine]
hostname = {socket.gethostname()}
endpoint = {mine.address}
port = 0
'''
    weir, _ = t.weir_of_file(text)
    t.equal(t.get(weir).body, b'mine')


def several_stanzas_run_in_one_process(t):
    a, b = t.origins(2)
    text = ''.join(f'[{o.name}]\nendpoint = {o.address}\nport = 0\n\n' for o in (a, b))
    weir, _ = t.weir_of_file(text, '--node', 'A', '--node', 'B', services=2)
    t.equal(sorted(t.get(port).body for port in weir.ports), [b'A', b'B'])


def no_stanza_for_this_machine_is_an_error(t):
    path = t.file('weir.ini', PROXYPY)
    _refuses(t, ['-c', path, '--check'], 'weir.ini')
    _refuses(t, ['-c', path, '--node', 'node3', '--check'], 'node3')


def a_missing_file_is_an_error(t):
    _refuses(t, ['-c', t.tmp + '/none.ini', '--check'], 'none.ini')
    _refuses(t, ['-c', t.tmp, '--check'])


def mistakes_in_a_file_are_named_by_file_and_line(t):
    rows = [
        ('an unknown key', 'treshold = 5\n', 'weir.ini:3', 'treshold'),
        ('a repeated key', 'port = 0\nport = 1\n', 'weir.ini:4', 'port'),
        ('a bad value', '# a comment\n\nport = many\n', 'weir.ini:5', 'many'),
        ('no equals sign', 'port 80\n', 'weir.ini:3', ''),
        ('no end of a section', '[other\n', 'weir.ini:3', ''),
        ('an empty key', '= 5\n', 'weir.ini:3', ''),
        ('a global key in a stanza', 'log_level = info\n', 'weir.ini:3', 'log_level'),
        ('a stanza twice', '[other]\nendpoint = a:1\n[main]\nendpoint = a:1\n', 'weir.ini:5', 'main'),
        ('a NUL', 'port = 8\0\n', 'weir.ini:3', ''),
    ]
    for name, text, place, word in rows:
        path = t.file('weir.ini', '[main]\nendpoint = 127.0.0.1:1\n' + text)
        error = _refuses(t, ['-c', path, '--node', 'main', '--check'], place, word)
        del error, name
    path = t.file('weir.ini', 'port = 80\n[main]\nendpoint = 127.0.0.1:1\n')
    _refuses(t, ['-c', path, '--node', 'main', '--check'], 'weir.ini:1')
    path = t.file('weir.ini', '[globals]\nthreshold = 80\n[main]\nendpoint = 127.0.0.1:1\n')
    _refuses(t, ['-c', path, '--node', 'main', '--check'], 'weir.ini:2', 'threshold')


def mistakes_in_other_machines_stanzas_are_found_too(t):
    path = t.file('weir.ini', '[main]\nendpoint = 127.0.0.1:1\n[far]\nhostname = far-away\ntreshold = 5\n')
    _refuses(t, ['-c', path, '--node', 'main', '--check'], 'weir.ini:5', 'treshold')


def two_nodes_of_one_group_with_the_same_id_are_an_error(t):
    node = '[{name}]\nid = {id}\nhostname = {name}\nendpoint = 127.0.0.1:1\nunicast = 192.168.1.255:7788\n'
    path = t.file('weir.ini', node.format(name='one', id=7) + node.format(name='two', id=7))
    error = _refuses(t, ['-c', path, '--node', 'one', '--check'], 'weir.ini:')
    t.check('7' in error and 'id' in error, f'{error!r}')


def comments_and_blanks_are_as_documented(t):
    text = ('; a comment\n# another\n\n  [main]   \n  endpoint = 127.0.0.1:1   ; where\n'
            '\tthreshold=5 # five\nprobe_path = /a;b\n'
            'backlog   =   2\r\n')
    settings = _check(t, '-c', t.file('weir.ini', text), '--node', 'main')
    t.equal([settings[key][0] for key in ('endpoint', 'threshold', 'probe_path', 'backlog')],
            ['127.0.0.1:1', '5', '/a;b', '2'])


def values_of_ten_kibibytes_arrive_whole(t):
    endpoints = ','.join(f'127.0.0.1:{port}*{port % 9 + 1}' for port in range(10000, 10700))
    t.check(len(endpoints) > 10240, 'the value is long enough')
    path = t.file('weir.ini', f'[{"n" * 200}]\nendpoint = {endpoints}\nthreshold = 5\n')
    settings = _check(t, '-c', path, '--node', 'n' * 200)
    t.equal(settings['endpoint'], (endpoints, 'weir.ini:2'))
    t.equal(settings['threshold'], ('5', 'weir.ini:3'))


# Starting

def a_port_that_is_taken_is_a_run_time_failure(t):
    origin = t.origin()
    with socket.socket() as taken:
        taken.bind(('0.0.0.0', 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = _refuses(t, ['reverse', '--port', port, '--endpoint', origin.address, '--max-clients', 50], str(port),
                         code=1)
        t.check('use' in error.lower() or 'taken' in error.lower(), f'{error!r}')


def port_0_picks_a_free_one_and_the_log_says_which(t):
    weir = t.weir(t.origin(name='A'))
    t.check(weir.port > 0, f'{weir.port}')
    t.equal(t.get(weir).body, b'A')


def bind_decides_the_address(t):
    origin = t.origin(name='A')
    weir = Weir(t, ['reverse', '--port', '0', '--bind', '127.0.0.3', '--endpoint', origin.address])
    t.equal(t.client(weir, host='127.0.0.3').ask().body, b'A')
    try:
        t.client(weir, host='127.0.0.1')
        t.check(False, 'it listens elsewhere too')
    except ConnectionRefusedError:
        pass


def a_pidfile_holds_the_process_id_and_goes_away(t):
    path = t.tmp + '/weir.pid'
    weir = t.weir(t.origin(), pidfile=path)
    t.until(lambda: os.path.exists(path) and os.path.getsize(path), 10, 'a pidfile')
    with open(path, encoding='ascii') as file:
        t.equal(int(file.read()), weir.pid)
    weir.stop()
    t.check(not os.path.exists(path), 'the pidfile is still there')


def a_log_file_that_cannot_be_opened_is_an_error(t):
    result = t.run('reverse', '--endpoint', '127.0.0.1:1', '--port', '0', '--logfile', '/nonexistent/weir.log')
    t.check(result.code in (1, 2) and '/nonexistent/weir.log' in result.err and ONE_LINE.fullmatch(result.err),
            f'{result}')


def daemon_goes_to_the_background_and_sigterm_ends_it(t):
    origin, port = t.origin(name='A'), t.free_port()
    pidfile, log = t.tmp + '/weir.pid', t.tmp + '/weir.log'
    path = t.file('weir.ini', f'[globals]\nlogfile = {log}\n[main]\nport = {port}\nendpoint = {origin.address}\n')
    result = t.run('-c', path, '--node', 'main', '--daemon', '--pidfile', pidfile)
    t.check(result.code == 0 and not result.err, f'{result}')
    t.until(lambda: os.path.exists(pidfile) and os.path.getsize(pidfile), 10, 'a pidfile')
    with open(pidfile, encoding='ascii') as file:
        pid = int(file.read())
    handle = os.pidfd_open(pid)         # names this process for good, even when its number is given to another
    try:
        t.equal(t.get(port).body, b'A')
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        t.check(select.select([handle], [], [], t.s(10))[0], 'it ends')
        t.check(not os.path.exists(pidfile), 'the pidfile is still there')
    finally:
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(handle)


def a_user_that_nobody_knows_is_named_and_weir_ends(t):
    result = t.run('reverse', '--endpoint', '127.0.0.1:1', '--port', '0', '--user', 'no-such-user')
    t.equal(result.err, 'weir: user: "no-such-user" was read; allowed: a user that this machine knows\n')
    t.equal(result.code, 1)


def user_is_who_weir_becomes(t):
    if os.getuid() != 0:
        t.skip('only root can become another user')
    weir = t.weir(t.origin(name='A'), user='nobody')
    t.equal(t.get(weir).body, b'A')
    nobody = pwd.getpwnam('nobody')
    with open(f'/proc/{weir.pid}/status', encoding='ascii') as file:
        status = file.read()
    t.check(re.search(rf'^Uid:(\t{nobody.pw_uid}){{4}}$', status, re.M), 'user ids')
    t.check(re.search(rf'^Gid:(\t{nobody.pw_gid}){{4}}$', status, re.M), 'group ids')
    t.check(not re.search(r'^Groups:.*\b0\b', status, re.M), 'the groups of root')
