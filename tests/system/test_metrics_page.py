"""docs/metrics.md says what a running weir says."""
import json
import re

import metrics_page


def _page():
    with open(metrics_page.PAGE, encoding='utf-8') as file:
        return file.read()


def the_page_of_metrics_has_the_families_of_a_running_weir(t):
    page = _page()
    t.equal(page.split(metrics_page.BEGIN)[1].split(metrics_page.END)[0].splitlines(),
            metrics_page.filled(page, metrics_page.scrape(t)).split(metrics_page.BEGIN)[1].split(metrics_page.END)[0].splitlines(),
            'make docs')


def a_family_that_no_heading_claims_or_without_a_sample_is_an_error(t):
    text = '# HELP weir_new_total New.\n# TYPE weir_new_total counter\n'
    for scraped, why in ((text, 'no sample of weir_new_total'), (text + 'weir_new_total 1\n', 'there is no family for the heading')):
        try:
            metrics_page.tables(scraped)
            t.check(False, f'taken: {scraped!r}')
        except ValueError as error:
            t.check(why in str(error), f'{error}')
    t.equal(metrics_page.families(text + 'weir_new_total{service="a\\"b",x="}"} 1\n'),
            [('weir_new_total', 'counter', 'New.', ['service', 'x'])])


def the_expressions_of_the_page_are_of_families_that_exist(t):
    promtool = t.tool('promtool')
    page = _page()
    known = set(re.findall(r'^\| `([a-z_]+)` \|', page, re.M))
    expressions = re.findall(r'^\| [^|`]+ \| `([^`]+)` \|$', page, re.M)
    t.check(len(expressions) > 10, f'{len(expressions)} expressions')
    for expression in expressions:
        names = {re.sub(r'_(bucket|sum|count)$', '', name) if name not in known else name
                 for name in re.findall(r'\b(?:weir|process)_[a-z_]+', expression)}
        t.check(names and names <= known, f'{names - known} in {expression}')
    rules = [{'record': f'weir:page:{i}', 'expr': expression} for i, expression in enumerate(expressions)]
    result = t.run_tool(promtool, 'check', 'rules', t.file('rules.yml', json.dumps({'groups': [{'name': 'page', 'rules': rules}]})))
    t.equal(result.code, 0, f'{result}')
