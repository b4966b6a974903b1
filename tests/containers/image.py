"""Does what a Dockerfile says, without a container engine: each step in a chroot, on top of a fresh Debian.

        base (debootstrap) ◄── stage 1: an overlay on it ──┐ COPY --from
               └───────────── stage 2: another overlay ◄───┘  = the image

What is the same as in an engine: the steps, their order, their environment, what the context leaves out, that a stage sees
nothing of another but what it copies. What is not: layers and their cache, and the base, which is a minimal Debian from the
archive that this machine's apt is configured for; the slim image differs from it by the documentation it lacks.
"""
import os
import shutil
import subprocess
import time

import dockerfile

SUITES = {'debian:12': 'bookworm', 'debian:12-slim': 'bookworm'}
BARE = {'LANG': 'C.UTF-8', 'HOME': '/root'}


def say(text):
    print(text, flush=True)


def run(*arguments, **more):
    subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL, **more)


def _archive(suite):
    """The address of a suite, of what apt has for this machine."""
    listed = subprocess.run(['apt-get', 'indextargets', '--format', '$(CODENAME) $(COMPONENT) $(REPO_URI)', 'Created-By: Packages'],
                            check=True, capture_output=True, text=True).stdout
    found = [line.split()[2] for line in listed.splitlines() if line.startswith(f'{suite} main ')]
    if not found:
        raise SystemExit(f'check_container: apt here knows no suite {suite}: a Debian 12 is needed')
    return found[0]


class Builder:
    def __init__(self, context, path, scratch):
        self.context, self.scratch = context, scratch
        self.stages = dockerfile.read(path)
        self.is_ignored = dockerfile.ignored(path + '.dockerignore')
        self.bases, self.roots = {}, {}

    def _base(self, image):
        suite = SUITES[image]
        if suite not in self.bases:
            started = time.monotonic()
            root = os.path.join(self.scratch, suite)
            run('debootstrap', '--variant=minbase', suite, root, _archive(suite), stdout=subprocess.DEVNULL)
            for name in ('resolv.conf', 'hosts'):       # an engine gives a container these
                shutil.copy(f'/etc/{name}', f'{root}/etc/{name}')
            self.bases[suite] = root
            say(f'{time.monotonic() - started:6.1f} s  a fresh {suite}')
        return self.bases[suite]

    def _root(self, index, stage):
        root = os.path.join(self.scratch, f'stage{index}')
        parts = {part: f'{root}.{part}' for part in ('upper', 'work')}
        for folder in (root, *parts.values()):
            os.makedirs(folder)
        run('mount', '-t', 'overlay', 'overlay', '-o',
            f'lowerdir={self._base(stage.base)},upperdir={parts["upper"]},workdir={parts["work"]}', root)
        run('mount', '-t', 'proc', 'proc', f'{root}/proc')
        return root

    def _copy(self, root, folder, origin, paths):
        *sources, target = paths
        for source in sources:
            into = os.path.join(root, os.path.join(folder, target).lstrip('/'))
            if origin is not None:
                source = os.path.join(self.roots[origin], source.lstrip('/'))
            elif source == '.':
                self._copy_context(into)
                continue
            else:
                source = os.path.join(self.context, source)
            if target.endswith('/') or os.path.isdir(into):
                into = os.path.join(into, os.path.basename(source))
            os.makedirs(os.path.dirname(into), exist_ok=True)
            shutil.copy2(source, into)

    def _copy_context(self, into):
        def left_out(folder, names):
            return [name for name in names
                    if self.is_ignored(os.path.relpath(os.path.join(folder, name), self.context))]
        shutil.copytree(self.context, into, ignore=left_out, dirs_exist_ok=True, symlinks=True)

    def build(self):
        """Performs all stages; the last one and its folder."""
        for index, stage in enumerate(self.stages):
            root, folder = self._root(index, stage), '/'
            for word, arguments in stage.steps:
                started = time.monotonic()
                if word == 'WORKDIR':
                    folder = os.path.join(folder, arguments)
                    os.makedirs(root + folder, exist_ok=True)
                elif word == 'COPY':
                    self._copy(root, folder, *arguments)
                else:
                    log = os.path.join(self.scratch, 'step.log')
                    with open(log, 'wb') as out:
                        done = subprocess.run(['chroot', root, '/bin/sh', '-c', f'cd {folder} && {arguments}'], stdin=subprocess.DEVNULL,
                                              stdout=out, stderr=out, env={**BARE, **stage.environment}, check=False)
                    if done.returncode != 0:
                        with open(log, encoding='utf-8', errors='replace') as file:
                            raise SystemExit(f'{file.read()[-4000:]}\ncheck_container: exit {done.returncode}: RUN {arguments}')
                say(f'{time.monotonic() - started:6.1f} s  {word} {arguments if isinstance(arguments, str) else arguments[1]}')
            self.roots[stage.name] = root
        return stage, root
