"""Markdown to pages of HTML, by python3-markdown and python3-pygments, and the site that they make together.

        docs/README.md          ──► index.html          the entry; the order of its links is the order of the guide
        docs/NAME.md            ──► NAME.html
        docs/pictures/*.svg     ──► pictures/
        a linked FILE           ──► source/FILE.html    so that the site is whole without a network and without the source

Nothing in a page is fetched from elsewhere, and every link is relative: it works from a folder (file://). A browser lets no page read a
file from there, so the search's index, which is JSON, is in a script that the page asks for when somebody begins to search.
"""
import html
import json
import os
import posixpath
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from urllib.parse import unquote

try:
    import markdown
    import pygments
    import pygments.formatters
    import pygments.lexers
    import pygments.util
    from markdown.extensions import Extension
    from markdown.treeprocessors import Treeprocessor
except ImportError as missing:
    sys.exit(f'{missing.name} is not there for {sys.executable}: deploy/prerequisites.sh docs, and then docs/build.py (it takes '
             'Debian\'s own Python, which Debian\'s packages are for)')

import cuts

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ENTRY = 'docs/README.md'
LARGEST_SOURCE = 400000
CUT_FROM = 'cut from'        # the words above code
ELSEWHERE = re.compile(r'[a-z][a-z0-9+.-]*:|//')


def slug(text, separator='-'):
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r'[^\w\- ]', '', text.strip().lower()).replace(' ', separator)


class Rendered:
    """One page: its HTML, its title, what it links to and which anchors it has."""

    def __init__(self, path):
        self.path = path
        self.links, self.pictures = [], []
        with open(os.path.join(ROOT, path), encoding='utf-8') as file:
            text = file.read()
        converter = markdown.Markdown(
            extensions=['tables', 'fenced_code', 'codehilite', 'toc', 'sane_lists', _Ours(self)],
            extension_configs={'codehilite': {'guess_lang': False}, 'toc': {'slugify': slug}})
        self.html = converter.convert(with_captions(path, text))
        reader = _Reader()
        reader.feed(self.html)
        self.sections, self.anchors, self.title = reader.sections, reader.anchors, reader.title or path


def with_captions(path, text):
    """A directive becomes a line that says where the code was cut; one for commands goes."""
    lines = []
    for line in text.split('\n'):
        found = cuts.DIRECTIVE.match(line)
        if not found:
            lines.append(line)
        elif found[1] == 'code':
            file = found[2].split()[0]
            try:
                number = cuts.cut(ROOT, found[2])[1]
            except cuts.Wrong:
                continue            # the check says so
            line = '' if file.endswith('.md') else f'#L-{number}'      # a page has headings, and no lines to go to
            lines += [f'*{CUT_FROM}* [{file}]({posixpath.relpath(file, posixpath.dirname(path) or ".")}{line})', '']
    return '\n'.join(lines)


class _Ours(Extension):
    def __init__(self, page):
        super().__init__()
        self.page = page

    def extendMarkdown(self, md):
        md.treeprocessors.register(_Walk(md, self.page), 'ours', 0)     # behind toc, which gives headings their anchors


class _Walk(Treeprocessor):
    """Gathers links, makes each lead to the page that its file becomes, and tells each cell of a table its column's name, which is
    shown instead of the head where the screen is narrow."""

    def __init__(self, md, page):
        super().__init__(md)
        self.page = page

    def run(self, root):
        pictures = []
        for element in root.iter():
            if element.tag == 'a' and element.get('href'):
                self.page.links.append(element.get('href'))
                element.set('href', site_link(self.page.path, element.get('href')))
            elif element.tag == 'img':
                self.page.pictures.append((element.get('src'), element.get('alt')))
                element.set('src', site_link(self.page.path, element.get('src')))
                pictures.append(element)
            elif element.tag == 'p' and len(element) == 2 and element[0].text == CUT_FROM:
                element.set('class', 'from')
            elif element.tag == 'table':
                names = [''.join(cell.itertext()) for cell in element.iter('th')]
                for row in element.iter('tr'):
                    for name, cell in zip(names, row.findall('td')):
                        cell.set('data-column', name)
        for picture in pictures:        # leads to itself, to be looked at as large as one likes
            attributes, tail = dict(picture.attrib), picture.tail
            picture.clear()
            picture.tag, picture.tail = 'a', tail
            picture.set('href', attributes['src'])
            ElementTree.SubElement(picture, 'img', attributes)


class _Reader(HTMLParser):
    """The text of a page, by section: [[anchor, heading, text]]; its anchors; its first heading."""

    def __init__(self):
        super().__init__()
        self.sections, self.anchors, self.title = [['', '', '']], set(), ''
        self.heading = None

    def handle_starttag(self, tag, attrs):
        anchor = dict(attrs).get('id')
        if anchor:
            self.anchors.add(anchor)
        if tag in ('h1', 'h2', 'h3'):
            self.heading = tag
            self.sections.append([anchor or '', '', ''])
        elif tag in ('p', 'li', 'td', 'th', 'pre', 'br', 'tr', 'h4'):
            self.sections[-1][2] += ' '

    def handle_endtag(self, tag):
        if tag == self.heading:
            if tag == 'h1' and not self.title:
                self.title = self.sections[-1][1]
            self.heading = None

    def handle_data(self, data):
        self.sections[-1][1 if self.heading else 2] += data


# ---- where things are in the site --------------------------------------------------------------------------------------------------------

def target_of(page, link):
    """(the path in the source, the anchor) that a link of a page leads to; None for one that leads out of the project."""
    if ELSEWHERE.match(link):
        return None
    path, _, anchor = link.partition('#')
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(path))) if path else page
    return path, anchor


def place(path):
    """Where a file of the source is in the site."""
    if path == ENTRY:
        return 'index.html'
    if path.startswith('docs/') and path.endswith('.md') and path.count('/') == 1:
        return path[len('docs/'):-len('.md')] + '.html'
    if path.startswith('docs/') and path.endswith(('.svg', '.png')):
        return path[len('docs/'):]
    return 'source/' + (f'{path}/index.html' if os.path.isdir(os.path.join(ROOT, path)) else f'{path}.html')


def site_link(page, link):
    target = target_of(page, link)
    if not target:
        return link
    path, anchor = target
    way = posixpath.relpath(place(path), posixpath.dirname(place(page)) or '.') if path != page else ''
    return (way + ('#' + anchor if anchor else '')) or posixpath.basename(place(page))


# ---- the site ----------------------------------------------------------------------------------------------------------------------------

def guide():
    """The pages in the order in which the entry links to them: [(path, title)]."""
    entry = Rendered(ENTRY)
    order = [ENTRY]
    for link in entry.links:
        target = target_of(ENTRY, link)
        if target and target[0].startswith('docs/') and target[0].endswith('.md') and target[0] not in order \
                and os.path.isfile(os.path.join(ROOT, target[0])):
            order.append(target[0])
    return order


class Site:
    def __init__(self, out):
        self.out = out
        self.rendered = {}          # path in the source: Rendered
        self.order = guide()
        with open(os.path.join(HERE, 'page.html'), encoding='utf-8') as file:
            self.form = file.read()

    def write(self):
        shutil.rmtree(self.out, ignore_errors=True)
        waiting, seen = list(self.order), set(self.order)
        others = []
        while waiting:
            path = waiting.pop(0)
            page = self.rendered[path] = Rendered(path)
            for link in page.links + [source for source, _ in page.pictures]:
                target = target_of(path, link)
                if not target or target[0] in seen or not os.path.exists(os.path.join(ROOT, target[0])):
                    continue
                seen.add(target[0])
                (waiting if target[0].endswith('.md') else others).append(target[0])
        for path, page in self.rendered.items():
            self._save(path, page.title, page.html)
        for path in others:
            self._write_other(path)
        for name in ('style.css', 'search.js'):
            self._copy(os.path.join(HERE, name), name)
        with open(os.path.join(self.out, 'style.css'), 'a', encoding='utf-8') as file:
            file.write(_colours())
        self._write_index()
        print(f'{self.out}: {len(self.rendered)} pages, {len(others)} files, begin at index.html')

    def _copy(self, path, name):
        os.makedirs(os.path.dirname(os.path.join(self.out, name)), exist_ok=True)
        shutil.copyfile(path, os.path.join(self.out, name))

    def _write_other(self, path):
        full = os.path.join(ROOT, path)
        if os.path.isdir(full):
            names = sorted(name + ('/' if os.path.isdir(os.path.join(full, name)) else '') for name in os.listdir(full)
                           if not name.startswith(('.', '_')))
            self._save(path, path, f'<h1>{html.escape(path)}/</h1><ul>' + ''.join(f'<li>{html.escape(name)}</li>' for name in names) + '</ul>')
        elif not place(path).endswith('.html'):
            self._copy(full, place(path))
        elif os.path.getsize(full) <= LARGEST_SOURCE:
            self._save(path, path, f'<h1>{html.escape(path)}</h1>' + _source(full))

    def _save(self, path, title, body):
        name = place(path)
        up = '../' * name.count('/')
        fill = {'title': html.escape(title), 'up': up, 'body': body, 'contents': self._contents(path, up), 'turn': self._turn(path, up)}
        file = os.path.join(self.out, name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, 'w', encoding='utf-8') as stream:
            stream.write(re.sub(r'@(\w+)@', lambda found: fill.get(found[1], found[0]), self.form))

    def _contents(self, here, up):
        return ''.join('<li><a {}href="{}">{}</a></li>'.format('aria-current="page" ' if path == here else '', up + place(path),
                                                             html.escape(self.rendered[path].title)) for path in self.order)

    def _turn(self, path, up):
        """To the page before and the one behind."""
        if path not in self.order:
            return ''
        i = self.order.index(path)
        links = [(word, mark, self.order[j]) for word, mark, j in (('prev', '←', i - 1), ('next', '→', i + 1)) if 0 <= j < len(self.order)]
        return ''.join(f'<a rel="{word}" href="{up}{place(to)}">' + html.escape(
            f'{mark} {self.rendered[to].title}' if word == 'prev' else f'{self.rendered[to].title} {mark}') + '</a>'
            for word, mark, to in links)

    def _write_index(self):
        """Each section: the page, the anchor, the page's title, the heading, the words."""
        rows = [[place(path), anchor, page.title, heading, ' '.join(text.split())]
                for path, page in self.rendered.items() for anchor, heading, text in page.sections if (heading + text).strip()]
        with open(os.path.join(self.out, 'index.js'), 'w', encoding='utf-8') as file:
            file.write('window.INDEX = ' + json.dumps(rows, ensure_ascii=False, separators=(',', ':')) + ';\n')


def _source(path):
    with open(path, encoding='utf-8', errors='replace') as file:
        text = file.read()
    try:
        lexer = pygments.lexers.get_lexer_for_filename(path)
    except pygments.util.ClassNotFound:
        lexer = pygments.lexers.get_lexer_by_name('c' if path.endswith('.def') else 'text')
    return pygments.highlight(text, lexer, pygments.formatters.HtmlFormatter(  # pylint: disable=no-member
        linenos='inline', lineanchors='L', cssclass='codehilite source', tabsize=4))


def _colours():
    """Pygments' colours, light and dark."""
    light, dark = (pygments.formatters.HtmlFormatter(style=style).get_style_defs('.codehilite')  # pylint: disable=no-member
                   for style in ('friendly', 'github-dark'))
    return f'{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n@media screen {{ .codehilite {{ background: var(--code); }} }}\n'


def write_site(out):
    Site(out).write()
