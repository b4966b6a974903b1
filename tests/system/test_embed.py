"""The library in another program: examples/embed.c, built as a program of somebody else would be, against the build tree and against an
installation, with the static library and the shared one; and what both libraries show."""
import os
import re
import shlex
import shutil
import signal
import subprocess

from harness import Lines, takes

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = os.path.join(TOP, 'examples', 'embed.c')
STRICT = ['-std=c11', '-D_POSIX_C_SOURCE=200809L', '-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Wpedantic', '-Werror']
PUBLIC = re.compile(r'WEIR_API [^;]*?\*?\b(weir_[a-z_]+)\(')


def _compiler():
    return shlex.split(os.environ.get('CC', 'gcc'))


def _flavour(t):
    """The libraries of a sanitizer's flavour need that sanitizer in the program too."""
    name = os.path.basename(os.path.abspath(t.bin))
    return {'asan': ['-fsanitize=address,undefined'], 'tsan': ['-fsanitize=thread'], 'coverage': ['--coverage']}.get(name, [])


def _needs(*packages):
    flags = subprocess.run(['pkg-config', '--libs', *packages], check=True, capture_output=True, text=True).stdout
    return shlex.split(flags)


def _said(t, *arguments):
    return t.run_tool(*arguments).out.decode()


def _compile(t, output, *arguments, source=SOURCE):
    done = t.run_tool(*_compiler(), *STRICT, *_flavour(t), source, '-o', output, *arguments, seconds=t.s(60))
    t.equal(done.code, 0, done.err)
    return output


class _Embed:
    """The example, running."""

    def __init__(self, t, program, *arguments, libraries=None):
        environment = dict(os.environ, **({'LD_LIBRARY_PATH': libraries} if libraries else {}))
        self.process = subprocess.Popen([program, *arguments], env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        t.cleanup(self._end)
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)
        line = self.out.wait(lambda lines: next((x for x in lines if x.startswith('the proxy is at')), None), t.s(10))
        self.port = int(line.rsplit(':', 1)[1])

    def _end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self, t):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(t.s(20))


def _use(t, program, libraries=None):
    """One answer through it, one refusal at a limit of one connection, a clean end."""
    origin = t.origin()
    embed = _Embed(t, program, '5', f'127.0.0.1:{origin.port}=1', libraries=libraries)
    url = f'http://127.0.0.1:{origin.port}/'
    done = t.run_tool('curl', '-sS', '-x', f'http://127.0.0.1:{embed.port}', '-w', '%{http_code}', '-o', '/dev/null', url)
    t.equal((done.code, done.out), (0, b'200'), done.err)
    t.equal(embed.stop(t), 0, 'exit status of the example')
    t.check(any('info: forward: forward listens on' in line for line in embed.out.lines), f'log lines: {embed.out.lines}')
    t.equal(embed.err.lines, [], 'standard error')


@takes(120)
def the_example_is_built_against_the_build_tree_and_works(t):
    needs = _needs('inih', 'jansson', 'hiredis', 'libssl', 'libcrypto', 'libcrypt')
    static = _compile(t, os.path.join(t.tmp, 'static'), f'-I{TOP}', os.path.join(t.bin, 'libweir.a'), *needs, '-lm', '-pthread')
    _use(t, static)
    shared = _compile(t, os.path.join(t.tmp, 'shared'), f'-I{TOP}', f'-L{t.bin}', '-lweir', '-pthread')
    _use(t, shared, libraries=os.path.abspath(t.bin))


@takes(180)
def the_example_is_built_against_an_installation_by_pkg_config_and_works(t):
    if _flavour(t):
        t.skip('a sanitizer\'s library is not installed')
    root = os.path.join(t.tmp, 'root')
    done = t.run_tool('make', '-C', TOP, 'install', f'DESTDIR={root}', 'PREFIX=/opt/weir', seconds=t.s(120))
    t.equal(done.code, 0, done.err)
    library = f'{root}/opt/weir/lib'
    for name, target in (('libweir.so', 'libweir.so.0'), ('libweir.so.0', 'libweir.so.0.1.0')):
        t.equal(os.readlink(f'{library}/{name}'), target, name)
    environment = dict(os.environ, PKG_CONFIG_PATH=f'{library}/pkgconfig', PKG_CONFIG_SYSROOT_DIR=root)

    def flags(*arguments):
        return shlex.split(subprocess.run(['pkg-config', *arguments, 'weir'], env=environment, check=True,
                                          capture_output=True, text=True).stdout)
    version = flags('--modversion')[0]
    t.check(f'"{version}"' in _read(f'{root}/opt/weir/include/weir.h'), f'weir.pc says {version}')
    _use(t, _compile(t, os.path.join(t.tmp, 'shared'), *flags('--cflags', '--libs')), libraries=library)
    # -lweir would take the shared one: a program that wants the other names it.
    static = ['-l:libweir.a' if flag == '-lweir' else flag for flag in flags('--static', '--cflags', '--libs')]
    program = _compile(t, os.path.join(t.tmp, 'static'), *static)
    t.check('libweir' not in _said(t, 'ldd', program), 'the static program needs no libweir')
    _use(t, program)
    done = t.run_tool('make', '-C', TOP, 'uninstall', f'DESTDIR={root}', 'PREFIX=/opt/weir', seconds=t.s(60))
    t.equal(done.code, 0, done.err)
    left = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    t.equal(left, [], 'files that uninstall leaves')


def _read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def both_libraries_show_what_the_header_declares_and_nothing_else(t):
    declared = sorted(PUBLIC.findall(_read(os.path.join(TOP, 'weir.h'))))
    t.check(len(declared) > 15, f'declared: {declared}')
    shared, static = os.path.join(t.bin, 'libweir.so'), os.path.join(t.bin, 'libweir.a')
    said = _said(t, 'nm', '-D', '--defined-only', '--format=posix', shared)
    names = [line.split()[0] for line in said.splitlines() if line and line.split()[1] != 'A']
    t.equal(sorted(name.split('@')[0] for name in names), declared, 'libweir.so')
    t.check(all(name.endswith('@@WEIR_0.1') for name in names if '@' in name), f'versions: {names}')
    t.check('Library soname: [libweir.so.0]' in _said(t, 'readelf', '-d', shared), 'the soname is libweir.so.0')
    if not _flavour(t):    # a sanitizer adds names of its own
        said = _said(t, 'nm', '-g', '--defined-only', '--format=posix', static)
        t.equal(sorted(line.split()[0] for line in said.splitlines() if ' ' in line), declared, 'libweir.a')


@takes(60)
def the_header_stands_alone_in_c_and_in_cplusplus(t):
    program = t.file('alone.c', '#include <weir.h>\nint main(void) { return weir_version()[0] == \'0\' + WEIR_VERSION_MAJOR ? 0 : 1; }\n')
    build = ['-fsyntax-only', f'-I{TOP}', program]
    for standard in ('c99', 'c11', 'c17'):
        done = t.run_tool(*_compiler(), f'-std={standard}', '-Wall', '-Wextra', '-Wpedantic', '-Werror', *build)
        t.equal(done.code, 0, f'{standard}: {done.err}')
    compiler = shutil.which('g++') or shutil.which('clang++')
    if compiler is None:
        t.skip('there is no C++ compiler')
    cplusplus = t.file('alone.cc', """#include <weir.h>
int main()
{
	weir *object = nullptr;         // no "struct" before its types, as is the custom there
	weir_limit limits[] = { { "a.example", 1 } };
	weir_host hosts[1];
	weir_logger *logger = [](void *, weir_log_level, const char *, const char *) {};
	weir_result result = weir_set_host_limits(object, limits, 1, nullptr, 0);
	return logger != nullptr && result == WEIR_NOTHING && weir_host_limits(object, hosts, 1) < 0 ? 0 : 1;
}
""")
    for source in (program, cplusplus):
        done = t.run_tool(compiler, '-x', 'c++', '-std=c++11', '-Wall', '-Wextra', '-Wpedantic', '-Werror', *build[:-1], source)
        t.equal(done.code, 0, f'c++: {done.err}')


@takes(60)
def what_the_example_is_told_wrong_is_said_in_one_line(t):
    program = _compile(t, os.path.join(t.tmp, 'shared'), f'-I{TOP}', f'-L{t.bin}', '-lweir', '-pthread',
                       f'-Wl,-rpath,{os.path.abspath(t.bin)}')
    for arguments, says in (([], 'usage: '), (['many'], 'max_connections: "many" was read'),
                            (['2', 'a b=1'], 'a b=1: not a host'), (['2', 'a'], '"a" was read; allowed: HOST=LIMIT')):
        done = t.run_tool(program, *arguments)
        t.equal(done.code, 2, str(arguments))
        t.check(says in done.err, f'{arguments}: {done.err}')
