"""deploy/docker without a container engine: the files' form, and that weir takes their command lines. What they do is tried by
deploy/check_container.sh, which takes two minutes."""
import os
import re
import sys

TOP = os.path.normpath(os.path.join(os.path.dirname(__file__), '..', '..'))
DOCKER = os.path.join(TOP, 'deploy', 'docker')
sys.path.append(os.path.join(TOP, 'tests', 'containers'))

NAMES = ('cluster', 'fleet', 'targets')


def _readers(t):
    try:
        import compose      # pylint: disable=import-outside-toplevel
        import dockerfile   # pylint: disable=import-outside-toplevel
    except ModuleNotFoundError as missing:
        t.skip(f'{missing.name} is not installed')
    return dockerfile, compose


def the_image_is_made_in_two_stages_and_runs_as_nobody(t):
    dockerfile, _ = _readers(t)
    build, image = dockerfile.read(os.path.join(DOCKER, 'Dockerfile'))
    t.equal((build.base, image.base), ('debian:12', 'debian:12-slim'))
    t.check(re.fullmatch(r'[1-9]\d+:[1-9]\d+', image.user), f'USER {image.user}')
    t.equal((image.entrypoint, image.command, image.stop_signal), (['weir'], ['--help'], 'SIGTERM'))
    t.equal(image.health, ['weir', '--healthcheck'])
    t.check(float(image.health_options['timeout'].rstrip('s')) > 5, "the engine's patience is shorter than the check's own")
    t.check('gcc' not in ' '.join(map(str, image.steps)), 'a compiler in the image')
    for origin, paths in (step for word, step in build.steps + image.steps if word == 'COPY'):
        if origin is None and paths[0] != '.':
            t.check(os.path.exists(os.path.join(TOP, paths[0])), f'COPY {paths[0]}')
    is_ignored = dockerfile.ignored(os.path.join(DOCKER, 'Dockerfile.dockerignore'))
    t.equal([is_ignored(name) for name in ('.git/config', 'build/x.o', 'weir', 'weir.c', 'page/page.js', 'lib/conn.c')],
            [True, True, True, False, False, False])


def weir_takes_the_command_lines_of_the_compose_files(t):
    dockerfile, compose = _readers(t)
    image = dockerfile.read(os.path.join(DOCKER, 'Dockerfile'))[-1]
    secret = t.file('secret', 'a secret\n')
    found = sorted(name[8:-5] for name in os.listdir(DOCKER) if name.startswith('compose.'))
    t.equal(found, sorted(NAMES))
    for name in NAMES:
        project = compose.Project(os.path.join(DOCKER, f'compose.{name}.yaml'))
        ports = [outside for service in project.services.values() for outside, _ in service.ports]
        t.equal(len(ports), len(set(ports)), f'{name}: a port published twice')
        for service in project.services.values():
            what = f'{name}: {service.name}'
            if service.image != 'weir':
                continue
            t.check(service.dockerfile == os.path.join(DOCKER, 'Dockerfile'), f'{what}: {service.dockerfile}')
            t.check(service.read_only and service.no_capabilities and service.no_new_privileges, f'{what}: rights that it can do without')
            t.check(service.grace_s > 10, f'{what}: killed while it drains')
            environment = {**image.environment, **service.environment}
            for key, value in environment.items():
                if value.startswith('/run/secrets/'):
                    t.check(value[len('/run/secrets/'):] in service.secrets, f'{what}: {value}')
                    environment[key] = secret
            if service.entrypoint is None:
                done = t.run(*service.command, '--check', environment=environment)
                t.check(done.code == 0 and not done.err and b'does nothing' not in done.out, f'{what}: {done}')
            else:
                t.equal(service.entrypoint, ['/usr/libexec/weir/server_demo'], what)
                t.equal(t.run('--help', program='server_demo').code, 0)
                known = t.run('--help', program='server_demo').out.decode()
                for word in service.command:
                    t.check(word.split('=')[0] + ' ' in known, f'{what}: {word}')
            for word in service.command:
                if re.match('--(endpoint|peers|redis-addr)=', word):
                    for place in word.split('=')[1].split(','):
                        t.check(place.split(':')[0] in project.services, f'{what}: {place} is no service')
