"""What the docs show is what happens."""
import os
import re

from admin import Admin

DOCS = os.path.join(os.path.dirname(__file__), '../../docs')


def _examples(name):
    """The "$ command" lines of a page, each with the output that stands below it."""
    with open(os.path.join(DOCS, name), encoding='utf-8') as file:
        lines = [line[4:].rstrip('\n') if line.startswith('    ') else None for line in file]
    for i, line in enumerate(lines):
        if line and line.startswith('$ '):
            end = i + 1
            while end < len(lines) and lines[end] is not None:
                end += 1
            yield line[2:], '\n'.join(lines[i + 1:end])


def every_example_of_the_api_page_shows_what_it_shows(t):
    t.tool('curl')
    one, two = t.origins(2)
    weir = t.weir(one, two, threshold=100, backlog=2, admin=0, stats_path='/stats')
    admin = Admin(t, weir)
    ports = {'9100': admin.port, '8000': weir.port, '9001': one.port, '9002': two.port}

    def with_ports(text):
        return re.sub(r'(?<=127\.0\.0\.1:)(9100|8000|9001|9002)', lambda m: str(ports[m[1]]), text)
    examples = list(_examples('api.md'))
    t.check(len(examples) >= 7, f'{len(examples)} examples')
    for command, wanted in examples:
        result = t.run_tool('bash', '-c', with_ports(command))
        t.equal(result.out.decode().strip(), with_ports(wanted).strip(), command)
