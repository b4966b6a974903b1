"""Pages of Markdown with blocks that are filled: the blocks found, and code cut out of the source for them.

A cut is named by what is in it (a function, a struct, its first and last line), never by line numbers: those would be wrong after the
next change and nobody would see it. A name that is gone, or that means two places, is a complaint with the page and the line.
"""
import difflib
import glob
import os
import re
import subprocess

LONGEST_CUT = 40
DIRECTIVE = re.compile(r'<!-- *(code|run)\b(?: *:)? *(.*?) *-->\s*$')
REGION = re.compile(r'<!-- *(chapters|next|links|reference|labs) *-->\s*$')
REGION_END = '<!-- end -->'
CHAPTER = re.compile(r'(\d\d)-[a-z-]+\.md$')
FENCE = re.compile(r'(```+)(\w*)\s*$')


class Wrong(Exception):
    """A block that cannot be filled."""


def page_names(root):
    return sorted(os.path.basename(path) for path in glob.glob(os.path.join(root, 'docs/*.md')))


def chapters(root):
    """[(file, title, the question that it begins with or '')] in their order. Titles begin with the number."""
    found = []
    for name in page_names(root):
        if CHAPTER.match(name):
            with open(os.path.join(root, 'docs', name), encoding='utf-8') as file:
                parts = re.match(r'# (.*)\n+((?:.+\n)*)', file.read())
            questions = re.findall(r'(?:^|(?<=[.?!:] ))[A-Z][^.?!:]*\?', ' '.join(parts[2].split('\n'))) if parts else []
            found.append((name, parts[1] if parts else name, questions[-1] if questions else ''))
    return found


def scenes(root):
    """{number of a chapter: [(number of the scene, its title)]}, as run_demo.sh lists them."""
    listed = subprocess.run([os.path.join(root, 'run_demo.sh'), '--list'], stdout=subprocess.PIPE, check=True, timeout=60).stdout.decode()
    found = {}
    for number, title, of in re.findall(r'^ *(\d+)  (.*) \(chapters? ([\d and]+)\)$', listed, re.M):
        for chapter in of.split(' and '):
            found.setdefault(int(chapter), []).append((number, title))
    return found


def labs(root):
    """{number of a chapter: [link to a lab]}, from the table of labs/README.md, if it is there: | N | [name](folder) | ... | [chapter](...) |"""
    path = os.path.join(root, 'labs/README.md')
    if not os.path.isfile(path):
        return {}
    with open(path, encoding='utf-8') as file:
        rows = re.findall(r'^\| *(\d+) *\| *\[(.*?)\]\((.*?)\)(.*)$', file.read(), re.M)
    found = {}
    for number, name, target, rest in rows:
        for chapter in re.findall(r'\[(\d+)\]\(\.\./docs/', rest):
            found.setdefault(int(chapter), []).append(f'- `make lab N={number}`: [{name}](../labs/{target})')
    return found


def other_pages(root):
    """[(file, title, its first sentence)] of what is no chapter and not the entry."""
    found = []
    for name in page_names(root):
        if not CHAPTER.match(name) and name != 'README.md':
            with open(os.path.join(root, 'docs', name), encoding='utf-8') as file:
                parts = re.match(r'# (.*)\n+((?:.+\n)*)', file.read())
            sentence = re.match(r'(.*?\.)(?:\s|$)', ' '.join(parts[2].split('\n'))) if parts else None
            found.append((name, parts[1] if parts else name, sentence[1] if sentence else ''))
    return found


def listed(entries, old):
    """A list of pages, a sentence with each: the one that stands there already, for somebody may have found a better one."""
    written = dict(re.findall(r'^- \*\*\[.*\]\((.*)\)\*\*\n  (.*)$', '\n'.join(old), re.M))
    lines = ['']
    for name, title, sentence in entries:
        lines.append(f'- **[{title}]({name})**')
        if written.get(name, sentence):
            lines.append('  ' + written.get(name, sentence))
    return [*lines, '']


class Block:
    """One directive and the lines of the fenced block that follows, or, of a region, the lines up to its end."""

    def __init__(self, kind, says, line, lines):
        self.kind, self.says, self.line, self.old = kind, says, line, lines
        self.new = lines


class Page:
    def __init__(self, root, path):
        self.root, self.path = root, path
        self.complaints = []
        with open(os.path.join(root, path), encoding='utf-8') as file:
            self.text = file.read()
        self._parse(self.text.split('\n'))

    def _parse(self, lines):
        """self.parts: lines and Blocks in their order. Directives inside of fenced blocks are text."""
        self.parts, self.blocks = [], []
        i = 0
        while i < len(lines):
            self.parts.append(lines[i])
            found = DIRECTIVE.match(lines[i])
            fence = FENCE.match(lines[i])
            region = REGION.match(lines[i])
            if region:
                end = i + 1
                while end < len(lines) and lines[end].strip() != REGION_END:
                    end += 1
                if end == len(lines):
                    self.complain(i + 1, f'ends nowhere: {REGION_END}')
                self.blocks.append(Block(region[1], '', i + 1, lines[i + 1:end]))
                self.parts.append(self.blocks[-1])
                i = end
                continue
            if found:
                fence = FENCE.match(lines[i + 1]) if i + 1 < len(lines) else None
                if not fence:
                    self.complain(i + 1, 'the next line must open the block: ```')
                    i += 1
                    continue
                i += 1
                self.parts.append(lines[i])
            if fence:
                end = i + 1
                while end < len(lines) and lines[end].rstrip() != fence[1]:
                    end += 1
                if end == len(lines):
                    self.complain(i + 1, 'a block that begins here does not end')
                if found:
                    self.blocks.append(Block(found[1], found[2], i, lines[i + 1:end]))
                    self.parts.append(self.blocks[-1])
                else:
                    self.parts += lines[i + 1:end]
                i = end - 1
                if end < len(lines):
                    self.parts.append(lines[end])
                    i = end
            i += 1

    def complain(self, line, what):
        self.complaints.append(f'{self.path}:{line}: {what}')

    def of_kind(self, kind):
        return [block for block in self.blocks if block.kind == kind]

    def fill_cuts(self):
        for block in self.of_kind('code'):
            try:
                block.new = cut(self.root, block.says)[0]
            except Wrong as wrong:
                self.complain(block.line, f'{block.says}: {wrong}')

    def fill_regions(self):
        """The contents, and the way on: from the chapters that are there."""
        all_of_them = chapters(self.root)
        by_hand = '\n'.join(part for part in self.parts if not isinstance(part, Block))
        for block in self.of_kind('chapters'):
            block.new = listed(all_of_them, block.old)
        for block in self.of_kind('reference'):
            block.new = listed([page for page in other_pages(self.root) if f']({page[0]})' not in by_hand], block.old)
        for block in self.of_kind('labs'):
            there = os.path.isfile(os.path.join(self.root, 'labs/README.md'))
            block.new = listed([('../labs/README.md', 'Labs', 'Parts of weir to write yourself, each graded by `make lab N=1`.')] if there else [],
                               block.old)
        mentioned = {int(number) for number in re.findall(r'\[chapter (\d+)\]', self.text, re.I)}
        for block in self.of_kind('links'):
            block.new = ['', *(f'[chapter {int(name[:2])}]: {name}' for name, _, _ in all_of_them if int(name[:2]) in mentioned), '']
        behind = [(name, title) for name, title, _ in all_of_them if name > os.path.basename(self.path)]
        for block in self.of_kind('next'):
            here = CHAPTER.match(os.path.basename(self.path))
            played = [f'- `./run_demo.sh --scene {number}`: {title}' for number, title in scenes(self.root).get(int(here[1]) if here else 0, [])]
            written = labs(self.root).get(int(here[1]) if here else 0, [])
            block.new = ['', *(['Played in the terminal:', '', *played, ''] if played else []),
                         *(['To write yourself:', '', *written, ''] if written else []),
                         f'Next: [{behind[0][1]}]({behind[0][0]})' if behind else 'Back to [the contents](README.md).', '']

    def stale(self):
        """What fill would change."""
        return [f'{self.path}:{block.line}: stale (make docs), {block.kind} {block.says}\n' +
                '\n'.join('    ' + line for line in difflib.unified_diff(block.old, block.new, 'page', 'truth', lineterm='', n=1))
                for block in self.blocks if block.new != block.old]

    def write(self):
        lines = []
        for part in self.parts:
            lines += part.new if isinstance(part, Block) else [part]
        text = '\n'.join(lines)
        if text != self.text:
            path = os.path.join(self.root, self.path)
            with open(path + '.new', 'w', encoding='utf-8') as file:
                file.write(text)
            os.replace(path + '.new', path)
            print(f'{self.path}: filled')


def cut(root, says):
    """(the lines, the number of the first) of what a directive names."""
    words = re.match(r'(\S+)\s+(?:/(.+)/\s+/(.+)/|((?:struct|enum|union)\s+)?(\w+))$', says)
    if not words:
        raise Wrong('say FILE FUNCTION, FILE struct NAME or FILE /first line/ /last line/')
    path = os.path.join(root, words[1])
    if not os.path.isfile(path):
        raise Wrong(f'there is no file {words[1]}')
    with open(path, encoding='utf-8') as file:
        lines = file.read().split('\n')
    if words[2]:
        first, last = between(lines, words[2], words[3])
    elif words[4]:
        first, last = defined(lines, re.compile(words[4].strip() + r'\s+' + words[5] + r'\s*\{?$'), words[5])
    else:
        first, last = defined(lines, re.compile(r'[A-Za-z_].*\b' + words[5] + r'\('), words[5])
    if last + 1 - first > LONGEST_CUT:
        raise Wrong(f'{last + 1 - first} lines; at most {LONGEST_CUT} are shown at once')
    return dedent(lines[first:last + 1]), first + 1


def between(lines, first, last):
    try:
        begins = [i for i, line in enumerate(lines) if re.search(first, line)]
        if len(begins) != 1:
            raise Wrong(f'/{first}/ finds {len(begins)} lines, must find one')
        ends = [i for i in range(begins[0], len(lines)) if re.search(last, lines[i])]
    except re.error as error:
        raise Wrong(f'no regular expression: {error}') from None
    if not ends:
        raise Wrong(f'/{last}/ finds no line behind the first')
    return begins[0], ends[0]


def defined(lines, head, name):
    """First and last line of a definition in C: its head stands in the first column, and a line that begins with } ends it."""
    found = []
    for i, line in enumerate(lines):
        if not head.match(line) or line.startswith(('#', '*', '/')):
            continue
        j = i       # where the braces open
        while not line.endswith('{') and j < len(lines) - 1 and not lines[j].startswith(('{', '}')) and not lines[j].rstrip().endswith(';'):
            j += 1
        if lines[j].rstrip() == '{' or line.endswith('{'):
            end = next((k for k in range(j, len(lines)) if lines[k].startswith('}')), None)
            if end is not None:
                found.append((i, end))
    if len(found) != 1:
        raise Wrong(f'{name} is defined {len(found)} times in this file')
    first, last = found[0]
    if first > 0 and lines[first - 1].rstrip().endswith('*/'):
        first -= 1
        while not lines[first].startswith('/*'):
            first -= 1
    return first, last


def dedent(lines):
    """Without the tabs that all lines begin with."""
    tabs = min((len(line) - len(line.lstrip('\t')) for line in lines if line.strip()), default=0)
    return [line[tabs:].rstrip() for line in lines]
