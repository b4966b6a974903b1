"""Reads our compose files: what is not known here is an error, so that nothing in them goes unchecked."""
import os
import re

import yaml

TOP = {'name', 'services', 'secrets'}
KNOWN = {'image', 'build', 'command', 'entrypoint', 'environment', 'ports', 'healthcheck', 'read_only', 'cap_drop', 'security_opt',
         'stop_grace_period', 'secrets'}
PORT = re.compile(r'127\.0\.0\.1:(\d+):(\d+)')


def _words(value, what):
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f'{what}: {value!r} is not a list of texts')
    return value


class Service:
    def __init__(self, name, value, folder):
        unknown = set(value) - KNOWN
        if unknown:
            raise ValueError(f'{name}: {unknown}: this reader does not know it')
        self.name, self.image = name, value['image']
        self.command = _words(value.get('command', []), f'{name}: command')
        self.entrypoint = _words(value['entrypoint'], f'{name}: entrypoint') if 'entrypoint' in value else None
        self.environment = value.get('environment', {})
        if not all(isinstance(text, str) for text in self.environment.values()):
            raise ValueError(f'{name}: environment: {self.environment}: a value is no text')
        self.ports = []
        for text in value.get('ports', []):
            match = PORT.fullmatch(text)
            if not match:
                raise ValueError(f'{name}: ports: {text}: not 127.0.0.1:PORT:PORT')
            self.ports.append((int(match[1]), int(match[2])))
        self.health = value.get('healthcheck', {}).get('test')
        if self.health and self.health[0] != 'CMD':
            raise ValueError(f'{name}: healthcheck: {self.health}: not CMD')
        self.secrets = value.get('secrets', [])
        self.read_only = value.get('read_only', False)
        self.no_capabilities = value.get('cap_drop') == ['ALL']
        self.no_new_privileges = 'no-new-privileges:true' in value.get('security_opt', [])
        self.grace_s = int(value.get('stop_grace_period', '10s').rstrip('s'))
        build = value.get('build')
        self.dockerfile = build and os.path.normpath(os.path.join(folder, build['context'], build['dockerfile']))


class Project:
    def __init__(self, path):
        with open(path, encoding='utf-8') as file:
            value = yaml.safe_load(file)
        unknown = {key for key in value if key not in TOP and not key.startswith('x-')}
        if unknown:
            raise ValueError(f'{path}: {unknown}: this reader does not know it')
        folder = os.path.dirname(os.path.abspath(path))
        self.name = value['name']
        self.services = {name: Service(name, more, folder) for name, more in value['services'].items()}
        self.secrets = value.get('secrets', {})
        for service in self.services.values():
            for secret in service.secrets:
                if secret not in self.secrets:
                    raise ValueError(f'{service.name}: secret {secret} is not among {list(self.secrets)}')
