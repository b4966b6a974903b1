"""What the labs' black-box graders (labs/NN-name/grade.py) have in common: the twin of grade.h for tests that run the real programs.

    import pathlib, sys
    sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]
    import blackbox

    @blackbox.test(6)
    def a_killed_target_costs_no_request(bin):
        ...
        blackbox.check(failed == 0, f"{failed} of {sent} requests failed")

    blackbox.main()

Each test runs in a process of its own, in a process group of its own, with a deadline (GRADE_SECONDS, 30 here): one that hangs costs its
own points, and whatever programs it started end with it.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import traceback

_tests = []
_lost = []  # in a test's process: (points left, text)
seed = 1


def test(points):
    """Marks a function of one argument, the folder with the programs, as a test. Its name, with blanks for underscores, is printed."""

    def mark(function):
        _tests.append((points, function))
        return function

    return mark


def fail(text):
    """This test gets no points."""
    _lost.append((0, text))


def partial(points, text):
    """This test gets no more than points."""
    _lost.append((points, text))


def check(holds, text):
    """fail(text) unless it holds. Returns holds."""
    if not holds:
        fail(text)
    return bool(holds)


def _run(function, folder, end):
    os.setpgid(0, 0)
    try:
        function(folder)
    except Exception as error:  # a test's own mistake, or a program that did not even start
        place = traceback.extract_tb(error.__traceback__)[-1]
        fail(f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}:{place.lineno})")
    end.send(_lost)


def _outcome(function, folder, seconds):
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_run, args=(function, folder, there))
    sys.stdout.flush()
    child.start()
    there.close()
    try:
        lost = here.recv() if here.poll(seconds) else [(0, f"no end after {seconds} s")]
    except EOFError:
        lost = [(0, "the test's process died")]
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
    child.join()
    return lost


def main():
    global seed
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default=".", help="the folder with weir, server_demo and client_demo")
    parser.add_argument("--list", action="store_true", help="print the tests and their points, run nothing")
    parser.add_argument("--only", default="", help="run the tests whose sentence has this in it")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    seed = arguments.seed
    seconds = int(os.environ.get("GRADE_SECONDS", "30"))
    score = full = 0
    for points, function in _tests:
        sentence = function.__name__.replace("_", " ")
        if arguments.only not in sentence:
            continue
        full += points
        if arguments.list:
            print(f"  {points}   {sentence}")
            continue
        lost = _outcome(function, arguments.bin, seconds)
        left = min([points] + [cap for cap, _ in lost])
        score += left
        print(f"  {left}/{points}   {sentence}")
        for _, text in lost:
            for line in text.splitlines():
                print(f"        {line}")
        sys.stdout.flush()
    if full == 0:
        print("no test")
        sys.exit(2)
    if not arguments.list:
        print(f"score {score}/{full}")
        sys.exit(0 if score == full else 1)
    sys.exit(0)
