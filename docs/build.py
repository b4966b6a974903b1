#!/usr/bin/python3
"""docs/build.py fill|check|site: the guide, from its Markdown, the source and the programs themselves.

        docs/*.md ──► fill ──► docs/*.md        code cut from the source, output of commands that were really run
                 └──► check                     is all of that as it should be? do the links lead somewhere?
                 └──► site ──► build/site       pages to read without a network: index.html, a search, the linked sources

A page that shows code, or what a command prints, is wrong soon after it was written, unless something compares. So a page names what it
wants, in a comment, and a block follows:

        <!-- code: limiter.c limiter_reserve -->            a function with the comment above it; "struct slot" and "enum ..." work, too
        <!-- code: proxy.c /first line/ /last line/ -->     from the one line that the first expression finds, to the next of the second
        <!-- run -->                                        commands after "$ ", lines that go on after "> ", what they print below
        <!-- run: unordered -->                             the lines may come in any order
        <!-- run: like /expression/ -->                     each line must match it
        <!-- run: varies /expression/ -->                   what it finds differs from run to run (several of these: with commas)
        <!-- chapters --> ... <!-- end -->                  the list of the chapters that are there
        <!-- reference --> ... <!-- end -->                 a list of all other pages that this one does not link to by itself
        <!-- labs --> ... <!-- end -->                      a link to the labs, if there are any
        <!-- next --> ... <!-- end -->                      the scenes and labs that go with this chapter, and the chapter behind it
        <!-- links --> ... <!-- end -->                     where each [chapter N] of the page leads

How cuts are made is told in site/cuts.py, how commands are run and compared in site/play.py, how pages are made in site/pages.py.

    docs/build.py fill [--bin DIR] [--no-runs] [PAGE...]    writes what is stale into the pages (or those named: 04-whose-turn)
    docs/build.py check [--bin DIR] [--no-runs] [PAGE...]   names file and line of everything that is wrong; exit 1 if anything is
    docs/build.py site [--out DIR]                          build/site
"""
import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(HERE, 'site'))

import cuts     # noqa: E402  pylint: disable=wrong-import-position
import play     # noqa: E402  pylint: disable=wrong-import-position

ROOT = os.path.dirname(HERE)


def main():
    parser = argparse.ArgumentParser(description='The guide: fill its pages, check them, make the site.')
    parser.add_argument('what', choices=('fill', 'check', 'site'))
    parser.add_argument('pages', nargs='*', metavar='PAGE', help='only these: 04, 04-whose-turn or docs/04-whose-turn.md')
    parser.add_argument('--bin', default=ROOT, help='the folder of weir, server_demo and client_demo')
    parser.add_argument('--no-runs', action='store_true', help='leave the commands alone')
    parser.add_argument('--out', default=os.path.join(ROOT, 'build/site'), help='where the site goes')
    options = parser.parse_args()
    if options.what == 'site':
        import pages            # pylint: disable=import-outside-toplevel
        pages.write_site(options.out)
        return 0
    names = [name for name in cuts.page_names(ROOT) if not options.pages or
             any(name.startswith(os.path.basename(page)) for page in options.pages)]
    if not names:
        parser.error('there is no such page')
    complaints = []
    for name in names:
        page = cuts.Page(ROOT, os.path.join('docs', name))
        page.fill_cuts()
        page.fill_regions()
        if not options.no_runs:
            play.fill_runs(page, options.bin)
        if options.what == 'fill':
            page.write()
        else:
            complaints += page.stale()
        complaints += page.complaints
    if options.what == 'check':
        import links            # pylint: disable=import-outside-toplevel
        complaints += links.complaints(ROOT, names if options.pages else None)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == '__main__':
    sys.exit(main())
