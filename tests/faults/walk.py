#!/usr/bin/env python3
"""The whole walk: a fault under each call of weir that the scenario reaches, at its start and while it serves.

    tests/faults/walk.py --bin DIR [--own-every N] [--library-every N] [--part N] [--step TEXT]
                         [--start-only | --run-only]

Prints how the disturbed requests ended, and what was found: a death, a leak, an answer that is wrong, a service that does
not work afterwards. Exit 0 when nothing was found. tests/system/test_faults.py runs a small part of it with every
`make test`.
"""
import argparse
import os
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'system'))

import fault_walk  # noqa: E402  pylint: disable=wrong-import-position
import harness  # noqa: E402  pylint: disable=wrong-import-position

LIMIT_S = 4 * 3600


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--bin', required=True, help='directory of the programs under test')
    parser.add_argument('--own-every', type=int, default=1, help="every n-th of weir's own calls")
    parser.add_argument('--library-every', dest='every_library', type=int, default=1, help="every n-th of its libraries' calls")
    parser.add_argument('--part', type=int, default=0, help='which of them')
    parser.add_argument('--step', default='', help='only the places that this step reaches')
    parser.add_argument('--start-only', action='store_true')
    parser.add_argument('--run-only', action='store_true')
    options = parser.parse_args()
    walked = []

    def walk(t, kind):
        began = time.monotonic()
        it = fault_walk.Walk(t, options.own_every, options.every_library, options.part, lambda line: print(line, flush=True),
                             options.step)
        it.whole_start() if kind == 'start' else it.whole_run()
        walked.append(it)
        print(f'{kind}: {time.monotonic() - began:.0f} s')
        for what, count in sorted(it.counts.items()):
            print(f'    {count:6}  {what}')
        for finding in it.findings:
            t.complain(AssertionError(finding))

    bad = 0
    for kind in ('start', 'run'):
        if options.start_only and kind == 'run' or options.run_only and kind == 'start':
            continue
        def test(t, kind=kind):
            walk(t, kind)
        test.limit_s = LIMIT_S
        with tempfile.TemporaryDirectory(prefix='weir-faults-') as folder:
            verdict, report = harness.run_case(test, os.path.abspath(options.bin), 1.0, folder)
        bad += verdict != 'passed'
        if verdict != 'passed':
            print(report)
    faults = sum(it.counts['faults'] for it in walked)
    print(f'faults: {faults} put under {sum(it.counts["places"] for it in walked)} places, '
          f'{sum(len(it.findings) for it in walked)} findings')
    return 0 if faults > 0 and not bad else 1


if __name__ == '__main__':
    sys.stdout.reconfigure(line_buffering=True)
    code = main()
    sys.stdout.flush()
    os._exit(code)      # threads of the cast may wait in accept() still
