"""The guide (docs/): its commands print what its pages show, and its site is whole, can be searched and is no wider than a phone."""
import glob
import html
import os
import re
import sys
from urllib.parse import unquote

import browser as chromium
from harness import takes

DOCS = os.path.realpath(os.path.join(os.path.dirname(__file__), '../../docs'))
sys.path.insert(0, os.path.join(DOCS, 'site'))

import cuts     # noqa: E402  pylint: disable=wrong-import-position
import play     # noqa: E402  pylint: disable=wrong-import-position

PHONE = 375


def _played(name):
    @takes(90)
    def test(t):
        t.tool('unshare')
        page = cuts.Page(os.path.dirname(DOCS), f'docs/{name}.md')
        try:
            play.allowed(t.bin, t.tmp)
        except play.NotAllowed as why:
            t.skip(str(why))
        play.fill_runs(page, t.bin, t.s(60), t.tmp)
        t.equal(page.complaints, [])
        t.equal(page.stale(), [], 'as docs/build.py fill writes it')
    test.__module__ = __name__
    return test


# One test for each page that has commands.
for _path in sorted(glob.glob(os.path.join(DOCS, '*.md'))):
    _name = os.path.basename(_path)[:-3]
    with open(_path, encoding='utf-8') as _file:
        if '\n<!-- run' in _file.read():
            globals()['the_commands_of_' + re.sub(r'\W', '_', _name)] = _played(_name)


def what_differs_from_run_to_run_is_no_difference_and_everything_else_is(t):
    def same(says, old, new):
        return play.Rules(says).same(old.split('\n'), new.split('\n'))
    line = '2026-11-21T18:02:35.874Z info  reverse: reverse listens on [::]:8080 port=8080'
    t.check(same('', line, line.replace('18:02:35.874', '09:00:00.000')), 'the time of a log line')
    t.check(not same('', line, line.replace('8080', '8081')), 'a port that was asked for')
    t.check(same('', 'peer 127.0.0.1:41234', 'peer 127.0.0.1:52345'), 'a port that the kernel chose')
    t.check(same('', 'in 1.018 s (7.9 a second)', 'in 2.2 s (3 a second)'), 'spans and rates')
    t.check(not same('', '8 answered, 0 failed', '7 answered, 1 failed'), 'a count')
    t.check(not same('', 'HTTP/1.1 200 OK', 'HTTP/1.1 500 Internal Server Error'), 'a status')
    t.check(not same('', 'a\nb', 'b\na'), 'the order')
    t.check(same('unordered', 'a\nb', 'b\na'), 'unordered')
    t.check(not same('unordered', 'a\nb', 'b\nb'), 'unordered, and another line')
    t.check(same('varies /id=\\w+/', 'id=12 x', 'id=ab x') and not same('varies /id=\\w+/', 'id=12 x', 'id=12 y'), 'varies')
    t.check(same('like /^\\d+$/', '12', '345\n6') and not same('like /^\\d+$/', '12a', '12'), 'like')
    t.equal(play.Rules('like /^\\d+$/').complaint('12a'), '"12a" is not like /^\\d+$/')


def a_cut_that_names_nothing_or_two_things_is_refused(t):
    root = os.path.dirname(DOCS)
    lines, number = cuts.cut(root, 'balancer.c balancer_any_in')
    t.equal((lines[0], lines[-1]), ('bool balancer_any_in(struct balancer *b)', '}'))
    with open(os.path.join(root, 'balancer.c'), encoding='utf-8') as file:
        t.equal(file.read().split('\n')[number - 1], lines[0])
    for says, why in (('balancer.c no_such_function', 'defined 0 times'), ('no_such.c f', 'no file'), ('balancer.c', 'say FILE'),
                      ('balancer.c /^static/ /^}/', 'must find one'), ('balancer.c /^struct balancer {/ /^static void bury/', 'lines; at most')):
        try:
            cuts.cut(root, says)
            t.check(False, f'{says}: was cut')
        except cuts.Wrong as wrong:
            t.check(why in str(wrong), f'{says}: {wrong}')


# ---- the site ----------------------------------------------------------------------------------------------------------------------------

def _site(t):
    """The folder of a new one."""
    if t.run_tool('/usr/bin/python3', '-c', 'import markdown, pygments').code != 0:
        t.skip('python3-markdown and python3-pygments are not installed (deploy/prerequisites.sh docs)')
    folder = os.path.join(t.tmp, 'site')
    made = t.run_tool(os.path.join(DOCS, 'build.py'), 'site', '--out', folder, seconds=120)
    t.check(made.code == 0, repr(made))
    return folder


class _Links:
    """Of one page, which is of our own making: quotes in its text are written otherwise."""

    def __init__(self, path):
        with open(path, encoding='utf-8') as file:
            text = file.read()
        self.links = [html.unescape(link) for link in re.findall(r' (?:href|src)="([^"]+)"', text)]
        self.anchors = {html.unescape(name) for name in re.findall(r' (?:id|name)="([^"]+)"', text)}


def _check_links(t, folder):
    pages = {path: _Links(path) for path in glob.glob(folder + '/**/*.html', recursive=True)}
    t.check(len(pages) > 10, f'{len(pages)} pages')
    for path, page in pages.items():
        for link in page.links:
            if re.match(r'[a-z]+:', link):
                continue                    # to read on, and never something that the page needs: the browser sees that
            name, _, anchor = link.partition('#')
            file = os.path.normpath(os.path.join(os.path.dirname(path), unquote(name))) if name else path
            where = f'{os.path.relpath(path, folder)}: {link}'
            if t.check(os.path.isfile(file), where + ' leads nowhere') and anchor and file in pages:
                t.check(anchor in pages[file].anchors, where + ' has no such anchor')


# Nothing wider than the screen, and nothing that scrolls sideways but code.
TOO_WIDE = '''[...document.querySelectorAll("body *")].filter(e => getComputedStyle(e).overflowX !== "visible" && e.tagName !== "PRE" &&
    e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 || !e.closest("pre, .skip") && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + "." + e.className + ": " + e.textContent.slice(0, 60))'''


def _look_at(t, browser, folder, name):
    url = f'file://{folder}/{name}'
    browser.open(url)
    browser.wait(f'location.href === {url!r} && document.readyState === "complete"', name)
    t.check(browser.value('document.documentElement.scrollWidth') <= PHONE, f'{name} is wider than a phone')
    t.equal(browser.value(TOO_WIDE), [], name)
    t.equal(browser.value('[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)'), [], name)
    t.equal(browser.value('performance.getEntriesByType("resource").map(r => r.name).filter(n => !/^(file|data):/.test(n))'), [], name)


def _search(t, browser, folder):
    """From the glossary to the chapter."""
    browser.open(f'file://{folder}/glossary.html')
    browser.wait('location.href.endsWith("glossary.html") && document.readyState === "complete"', 'the page')

    def search(words):
        browser.value(f'(f => {{ f.focus(); f.value = {words!r}; f.dispatchEvent(new Event("input")) }})(document.querySelector("input"))')
    search('rendezvous hash')
    browser.wait('document.querySelectorAll("#found a").length > 0', 'something is found')
    links = browser.value('[...document.querySelectorAll("#found a")].map(a => a.getAttribute("href"))')
    t.check(any('04-whose-turn' in link for link in links), f'{links}')
    t.check(all(os.path.isfile(os.path.join(folder, link.split('#')[0])) for link in links), f'{links}')
    t.check(browser.value('document.documentElement.scrollWidth') <= PHONE, 'what was found is wider than a phone')
    search('zyzzyva')
    browser.wait('document.getElementById("found").textContent === "Nothing found."', 'nothing is found')
    search('leastconn')
    browser.wait('document.querySelectorAll("#found a").length > 0', 'something is found again')
    browser.value('[...document.querySelectorAll("#found a")].find(a => a.href.includes("04-whose-turn")).click()')
    browser.wait('location.href.includes("04-whose-turn")', 'the way there')


@takes(240)
def the_site_is_whole_fits_a_phone_and_is_searched_without_a_server(t):
    if t.sanitized:
        t.skip('looked at with the plain build: nothing of the site is compiled')
    folder = _site(t)
    _check_links(t, folder)
    if not chromium.find():
        t.skip('its links are good; chromium is not installed')
    browser = chromium.Browser(t.tmp, seconds=t.s(60))
    t.cleanup(browser.close)
    browser.look(width=PHONE, height=700, phone=True)
    for path in sorted(glob.glob(folder + '/*.html')):
        _look_at(t, browser, folder, os.path.basename(path))
    _look_at(t, browser, folder, 'source/lib/ts.h.html')
    _search(t, browser, folder)
    t.equal(browser.console, [], 'the console')
