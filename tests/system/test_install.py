"""What `make install` puts where, and that each piece of it says the truth about weir: pages, completion, unit, settings."""
import os
import re
import shutil
import subprocess

from harness import Weir

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '../..'))


def _make(t, *arguments, code=0):
    """make in weir's folder, without building: other tests run what is there. It is no part of the make that runs the tests."""
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith(('MAKE', 'MFLAGS', 'FLAVOUR', 'GNUMAKE'))}
    flavour = os.path.basename(t.bin) if os.path.basename(os.path.dirname(t.bin)) == 'build' else ''
    result = subprocess.run(['make', '-C', ROOT, '--no-print-directory', '-o', 'all', 'FLAVOUR=' + flavour, *arguments],
                            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=t.s(60),
                            check=False)
    assert result.returncode == code, f'make {arguments}: {result}'
    return result


def _tree(folder):
    """Everything in it, as paths from its top."""
    found = []
    for parent, folders, files in os.walk(folder):
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in folders + files]
    return sorted(found)


def _files(folder):
    return [path for path in _tree(folder) if not os.path.isdir(os.path.join(folder, path))]


def _read(*parts):
    with open(os.path.join(*parts), encoding='utf-8') as file:
        return file.read()


# The tree

def install_puts_each_thing_where_a_debian_looks_for_it(t):
    image = os.path.join(t.tmp, 'an image')      # a blank in it: DESTDIR is anywhere
    _make(t, 'install', 'PREFIX=/usr', 'DESTDIR=' + image)
    found = _files(image)
    for path in ('usr/bin/weir', 'usr/bin/weir-server-demo', 'usr/bin/weir-client-demo', 'usr/libexec/weir/server_demo',
                 'usr/libexec/weir/client_demo', 'usr/share/man/man1/weir.1', 'usr/share/man/man5/weir.ini.5',
                 'usr/share/man/man3/libweir.3', 'usr/include/weir.h', 'usr/lib/libweir.a', 'usr/lib/libweir.so.0',
                 'usr/lib/libweir.so', 'usr/lib/pkgconfig/weir.pc', 'usr/share/man/man1/server_demo.1', 'usr/share/man/man1/client_demo.1', 'etc/weir/weir.ini',
                 'usr/share/man/man1/weir-server-demo.1', 'usr/share/man/man1/weir-client-demo.1',
                 'usr/share/bash-completion/completions/weir', 'etc/logrotate.d/weir',
                 'usr/lib/systemd/system/weir.service', 'usr/lib/sysusers.d/weir.conf', 'usr/share/doc/weir/README.md'):
        t.check(path in found, f'{path} is not there: {found}')
    for path in found:      # links that lead nowhere, and modes that keep others out
        mode = os.stat(os.path.join(image, path)).st_mode & 0o777
        t.equal(mode, 0o755 if re.search(r'/bin/|/libexec/', path) else 0o644, path)
    for program in ('weir', 'weir-server-demo', 'weir-client-demo'):
        result = t.run_tool(os.path.join(image, 'usr/bin', program), '--version')
        t.check(result.code == 0 and result.out, f'{program}: {result}')
    t.check(image not in _read(image, 'usr/lib/systemd/system/weir.service'), 'DESTDIR is in the unit')
    # What is there belongs to the administrator.
    ini = os.path.join(image, 'etc/weir/weir.ini')
    with open(ini, 'a', encoding='ascii') as file:
        file.write('; mine\n')
    _make(t, 'install', 'PREFIX=/usr/', 'DESTDIR=' + image)     # the same place
    t.check(_read(ini).endswith('; mine\n'), 'the settings were written over')
    result = _make(t, 'uninstall', 'PREFIX=/usr', 'DESTDIR=' + image)
    t.equal(_tree(image), ['etc', 'etc/weir', 'etc/weir/weir.ini'])
    t.check('weir.ini' in result.stdout, f'it does not say what is left: {result.stdout}')


def uninstall_leaves_nothing_and_touches_nothing_else(t):
    image = os.path.join(t.tmp, 'image')
    os.makedirs(os.path.join(image, 'usr/local/bin'))
    t.file('image/usr/local/bin/other', 'somebody else')
    before = _tree(image)
    _make(t, 'install', 'DESTDIR=' + image)
    t.check(len(_files(image)) > 20, str(_files(image)))
    t.check('etc/weir/weir.ini' in _files(image), str(_files(image)))
    _make(t, 'uninstall', 'DESTDIR=' + image)
    t.equal(_tree(image), before)


def every_folder_can_be_chosen(t):
    image = os.path.join(t.tmp, 'image')
    folders = {'bindir': '/b', 'libdir': '/l', 'libexecdir': '/x', 'mandir': '/m', 'docdir': '/d', 'sysconfdir': '/c',
               'unitdir': '/u', 'sysusersdir': '/s', 'completiondir': '/k', 'includedir': '/i', 'datadir': '/a'}
    _make(t, 'install', 'PREFIX=/nowhere', 'DESTDIR=' + image, *(f'{key}={value}' for key, value in folders.items()))
    found = _files(image)
    for path in ('b/weir', 'x/weir/server_demo', 'm/man1/weir.1', 'd/README.md', 'c/weir/weir.ini', 'u/weir.service',
                 's/weir.conf', 'k/weir', 'l/libweir.so.0', 'l/pkgconfig/weir.pc', 'i/weir.h', 'm/man3/libweir.3'):
        t.check(path in found, f'{path} is not there: {found}')
    t.equal([path for path in found if path.startswith('nowhere')], [])
    unit = _read(image, 'u/weir.service')
    t.check('ExecStart=/b/weir -c /c/weir/weir.ini\n' in unit and 'dir@' not in unit, unit)


# The pages

def _prose(text):
    """Without blocks of code and comments, in which brackets mean other things."""
    return re.sub(r'(?ms)^(```+).*?^\1$|<!--.*?-->', '', text)


def every_link_of_an_installed_page_leads_somewhere(t):
    """Also where the source is not at hand."""
    image = os.path.join(t.tmp, 'image')
    _make(t, 'install', 'PREFIX=/usr', 'DESTDIR=' + image)
    installed = os.path.join(image, 'usr/share/doc/weir')
    for folder, suffix in ((installed, ''), (installed, 'docs'), (ROOT, ''), (ROOT, 'docs')):
        pages = [name for name in os.listdir(os.path.join(folder, suffix)) if name.endswith('.md')]
        links = [(page, link) for page in pages
                 for link in re.findall(r']\((?!https?:)([^)#]+)', _prose(_read(folder, suffix, page)))]
        t.check(len(links) >= 3, f'{folder}/{suffix}: {links}')
        t.equal([link for link in links if not os.path.exists(os.path.join(folder, suffix, link[1]))], [])


def every_option_of_help_is_in_the_man_page(t):
    t.tool('mandoc')
    for program, page in (('weir', 'weir.1'), ('server_demo', 'server_demo.1'), ('client_demo', 'client_demo.1')):
        helps = [t.run('--help', program=program).out.decode()]
        if program == 'weir':
            helps.append(t.run('top', '--help').out.decode())
        path = os.path.join(ROOT, 'docs/man', page)
        text = t.run_tool('mandoc', '-Tascii', '-Owidth=200', path).out.decode()
        text = re.sub('.\b', '', text)
        known = {word for one in helps for word in re.findall(r'(?<![\w-])--?[a-z][\w-]*(?:\.NAME)?', one)} - {'--key'}
        t.check(len(known) >= 10, f'{program}: {known}')
        for option in sorted(known):
            t.check(re.search(rf'(?m)^ +(?:-\S+(?: \S+)?, )*{re.escape(option)}(?![\w-])', text), f'{option} is not in {page}')


def every_setting_is_in_both_man_pages(t):
    """With its words: a change of the table that `make docs` was not called for is found without a compiler of pages."""
    for option, page in (('--manual-flags', 'weir.1'), ('--manual-keys', 'weir.ini.5')):
        written = t.run(option).out.decode()
        t.check(written.count('\n.It ') > 50, f'{option}: {written[:500]}')
        t.check(f'settings: begin\n{written}.\\" settings: end\n' in _read(ROOT, 'docs/man', page),
                f'docs/man/{page} has not what weir {option} prints: make docs')


def the_library_page_declares_what_the_header_declares(t):
    """Every function, with its arguments as they are called there."""
    header = re.sub(r'/\*.*?\*/', '', _read(ROOT, 'weir.h'), flags=re.S)
    declared = {}
    for name, arguments in re.findall(r'WEIR_API[^;(]*?\b(weir_\w+)\(([^;]*)\);', header):
        declared[name] = re.sub(r'\s+', ' ', arguments).split(', ')
    page = _read(ROOT, 'docs/man/libweir.3').split('.Sh DESCRIPTION')[0]
    written = {name: re.findall(r'"([^"]+)"', rest) for name, rest in re.findall(r'^\.Fn (\w+)(.*)$', page, re.M)}
    for name, body in re.findall(r'^\.Fo (\w+)\n(.*?)\.Fc', page, re.M | re.S):
        written[name] = re.findall(r'"([^"]+)"', body)
    del written['weir_logger']
    t.check(len(declared) > 20, str(declared))
    t.equal(written, declared)


def the_man_pages_are_well_formed(t):
    t.tool('mandoc')
    pages = [os.path.join(ROOT, 'docs/man', name) for name in os.listdir(os.path.join(ROOT, 'docs/man')) if name[-1] in '135']
    t.check(len(pages) >= 4, str(pages))
    result = t.run_tool('mandoc', '-Tlint', *pages)
    # Which other pages this machine has is no fault of ours.
    said = [line for line in (result.out.decode() + result.err).splitlines()
            if 'referenced manual not found' not in line and 'mandoc.db' not in line]
    t.equal(said, [])


# Completion

def _complete(t, *words):
    """What bash offers for the last of these words, asked as bash asks: through the function that `complete` names."""
    script = ('source "$1"; shift; [[ $(complete -p weir) == *"-F _weir weir" ]] || exit 3; '
              'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _weir weir "${COMP_WORDS[COMP_CWORD]}" ""; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    result = t.run_tool('bash', '--norc', '-c', script, 'bash', os.path.join(ROOT, 'deploy/completion/weir.bash'), *words)
    t.equal((result.code, result.err), (0, ''), ' '.join(words))
    return result.out.decode().split()


def bash_completes_modes_options_and_values(t):
    t.equal(_complete(t, 'weir', ''), ['reverse', 'packet', 'forward', 'top'])
    t.equal(_complete(t, 'weir', 're'), ['reverse'])
    t.equal(_complete(t, 'weir', 'reverse', '--thr'), ['--threshold'])
    t.equal(_complete(t, 'weir', 'reverse', '--balance', ''), ['roundrobin', 'leastconn', 'hash'])
    t.equal(_complete(t, 'weir', 'reverse', '-log_level', 'd'), ['debug'])
    for words in (('--balance', '=', 'le'), ('--balance', 'le')):
        t.equal(_complete(t, 'weir', 'reverse', *words), ['leastconn'])
    t.equal(_complete(t, 'weir', 'reverse', '--balance', '='), ['roundrobin', 'leastconn', 'hash'])
    t.equal(_complete(t, 'weir', 'reverse', '--port', ''), [])
    t.equal(_complete(t, 'weir', 'reverse', '--trace', '--q'), ['--quiet', '--queue'])
    # What does nothing in a mode is not offered there.
    t.equal(_complete(t, 'weir', 'forward', '--endp'), [])
    t.equal(_complete(t, 'weir', 'packet', '--max-conn'), [])
    t.equal(_complete(t, 'weir', 'forward', '--max-conn'), ['--max-connections'])
    t.equal(_complete(t, 'weir', 'top', '--o'), ['--once'])
    t.equal(_complete(t, 'weir', '--completion', ''), ['bash'])


def bash_completes_files_and_the_stanzas_in_them(t):
    evil = os.path.join(t.tmp, 'evil')
    path = t.file('a.ini', f'[globals]\n[one]\nport=1\n[other one]\n[$(touch {evil})]\n[two]\n')
    t.equal(_complete(t, 'weir', '-c', os.path.join(t.tmp, 'a.')), [path])
    t.equal(_complete(t, 'weir', '-c', path, '--node', 't'), ['two'])
    t.equal(_complete(t, 'weir', '--config', '=', path, '--node', 'other'), ['other\\', 'one'])
    t.check('globals' not in _complete(t, 'weir', '-c', path, '--node', ''), 'globals is no stanza to run')
    t.check(not os.path.exists(evil), 'a name in a file was run as a command')


def the_completion_knows_every_option_of_help_and_no_other(t):
    text = t.run('--help').out.decode() + t.run('top', '--help').out.decode()
    known = set(re.findall(r'(?<![\w-])--[a-z][\w-]*', text)) - {'--manual-flags', '--manual-keys', '--limit', '--key'}
    offered = set(_complete(t, 'weir', '-')) | set(_complete(t, 'weir', 'top', '-'))
    t.equal(sorted(known ^ (offered - {'-c'})), [], 'in one of the two only')
    t.equal(t.run('--completion', 'bash').out.decode(), _read(ROOT, 'deploy/completion/weir.bash'), 'make docs')
    for arguments in (('--completion',), ('--completion', 'fish')):
        result = t.run(*arguments)
        t.check(result.code == 2 and 'allowed: bash' in result.err, f'{arguments}: {result}')


# What the service runs

def _unit(t):
    return dict(line.split('=', 1) for line in _read(ROOT, 'deploy/systemd/weir.service.in').splitlines()
                if re.match(r'[A-Z]\w+=', line))


def the_units_limits_are_above_what_the_defaults_need(t):
    unit = _unit(t)
    clients = int(re.search(r'--max-clients .*\((\d+)\)', t.run('--help').out.decode())[1])
    t.check(int(unit['TasksMax']) > clients + 100, unit['TasksMax'])
    t.check(int(unit['LimitNOFILE']) > 7 * clients + 256, unit['LimitNOFILE'])
    # By weir's own account as well, where it may not raise the limit by itself and so says what it needs.
    weir = Weir(t, ['forward', '--port', 0], prefix=[t.tool('prlimit'), '--nofile=1000:1000'])
    weir.stop()
    needed = re.search(r'max_clients needs (\d+)', weir.log.text())
    t.check(not needed or clients < int(needed[1]) < int(unit['LimitNOFILE']), weir.log.text())


def the_units_commands_and_the_shipped_settings_work(t):
    unit, text = _unit(t), _read(ROOT, 'deploy/systemd/weir.service.in')
    reloads = re.findall(r'^ExecReload=(.*)$', text, re.M)
    t.equal((unit['Type'], len(reloads)), ('notify', 2))
    t.equal(unit['ExecStart'], '@bindir@/weir -c @sysconfdir@/weir/weir.ini')
    # The check comes first: systemd sends no signal when it fails.
    arguments = reloads[0].replace('@sysconfdir@/weir/weir.ini', os.path.join(ROOT, 'deploy/weir.ini')).split()[1:]
    t.equal(reloads[1], "/bin/sh -c 'kill -HUP $MAINPID'")
    result = t.run(*arguments)
    t.equal((result.code, result.out, result.err), (0, b'', ''))
    wrong = t.file('weir.ini', '[a]\ntreshold = 1\n')
    result = t.run('-c', wrong, '--check', '--quiet')
    t.check(result.code == 2 and result.out == b'' and 'treshold' in result.err, str(result))
    odd = t.file('weir.ini', '[a]\nmode = packet\nendpoint = 127.0.0.1:1\n')
    result = t.run('-c', odd, '--check', '--quiet')
    t.check(result.code == 0 and result.out == b'', str(result))
    result = t.run('-c', odd, '--quiet')
    t.check(result.code == 2 and '--check' in result.err, str(result))
    # What stands commented in the shipped file is right as well.
    everything = re.sub(r'(?m)^;(?=\[|\w+ *=)', '', _read(ROOT, 'deploy/weir.ini'))
    everything = re.sub(r'(?m)^tls_.*\n', '', everything)
    result = t.run('-c', t.file('weir.ini', everything), '--check')
    t.check(result.code == 0 and b'[egress]' in result.out and b'json' in result.out, str(result))


def systemd_and_logrotate_have_nothing_to_say(t):
    analyze = shutil.which('systemd-analyze')
    if analyze:
        _make(t, 'install', 'PREFIX=' + t.tmp, 'sysconfdir=' + t.tmp)
        unit = os.path.join(t.tmp, 'lib/systemd/system/weir.service')
        result = t.run_tool(analyze, 'verify', '--man=no', unit)
        t.equal((result.code, result.out, result.err), (0, b'', ''))
        result = t.run_tool(analyze, 'security', '--offline=true', '--no-pager', unit)
        level = re.search(r'exposure level for \S+: ([\d.]+)', result.out.decode())
        t.check(level and float(level[1]) < 2.0, str(result))
    logrotate = shutil.which('logrotate') or shutil.which('logrotate', path='/usr/sbin')
    if logrotate and os.geteuid() == 0:
        text = _read(ROOT, 'deploy/weir.logrotate').replace('su weir weir', 'su root root').replace(' weir weir', ' root root')
        result = t.run_tool(logrotate, '--debug', t.file('weir.logrotate', text))
        t.check(result.code == 0 and 'error' not in result.err, str(result))
    if not analyze and not logrotate:
        t.skip('neither systemd nor logrotate is installed')
