#!/usr/bin/env python3
"""mutations.py: break the cluster's rules on purpose, one by one, and see that the simulation finds each.

    mutations.py --objects BUILD --compile "CC FLAGS" --link "CC FLAGS" --libs "..." [--hours H] [NAME ...]

A simulation that finds nothing proves nothing until it is known what it would have found. So each rule of the protocol
is taken away here by a change of one or two lines, the simulator is built with it, and random plans run until one
fails: on a window that is too full, or on a group that does not serve. The seed
that fails must pass with the rule in force. A rule whose loss nobody notices is either superfluous or untested,
and both are faults: then this ends with 1. It also does when a change no longer fits the source: then the rule is
written differently now, and the line here has to follow.
"""
import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import time

# name: (the rule that is broken, the file, [(what stands there once, what is put there)])
MUTATIONS = {
    "no-end": (
        "start not after S + L: a start may be used whenever somebody comes",
        "cluster.c",
        [("grant->asked_us + in_us + grant->late_us, grant->runs[i].count",
          "grant->asked_us + in_us + grant->late_us + 60000000, grant->runs[i].count")],
    ),
    "check-too-early": (
        "the end is looked at right before the send: here only when the start is taken from the list",
        "limiter.c",
        [("	is_late = ticket->state == GRANTED && now_us > ticket->until_us;", "	is_late = ticket->state != GRANTED;")],
    ),
    "no-late-in-round": (
        "a slot is given again at S + W + L: here at S + W",
        "cluster.c",
        [("	return c->options.window_us + c->late_us;", "	return c->options.window_us;")],
    ),
    "end-from-arrival": (
        "grants older than L by the member's own clock are dropped: here L counts from when the grant came",
        "cluster.c",
        [("grant->asked_us + in_us + grant->late_us, grant->runs[i].count", "now_us + in_us + grant->late_us, grant->runs[i].count")],
    ),
    "begin-from-question": (
        "start not before S: here d counts from when the member asked",
        "cluster.c",
        [("now_us + in_us, grant->asked_us + in_us + grant->late_us,", "grant->asked_us + in_us, grant->asked_us + in_us + grant->late_us,")],
    ),
    "no-quiet-time": (
        "quiet time: a new master gives at once",
        "cluster.c",
        [("	return c->options.window_us + AHEAD_US + LATE_MAX_US + (c->options.is_strict ? ALIVE_US : 0);",
          "	return c->options.window_us * 0;")],
    ),
    "quiet-from-last-heard": (
        "quiet time counts from when a death is noticed: here from when the dead was heard last",
        "cluster.c",
        [("			claim_ends(c, node, now_us); /*", "			claim_ends(c, node, node->heard_us); /*")],
    ),
    "unheard-master": (
        "quiet time is kept for a lower node that may have become master unheard, and for a master of which others tell",
        "cluster.c",
        [("			if (node->id < c->options.id)\n				node->claims = true;",
          "			if (node->id == 0)\n				node->claims = true;"),
         ("		c->unknown_us = later(c->unknown_us, now_us);\n	if ((beat->wants",
          "		c->unknown_us = later(c->unknown_us, 0);\n	if ((beat->wants")],
    ),
    "pause-is-nothing": (
        "a paused master starts again as a newcomer: here it goes on",
        "cluster.c",
        [("	if (slept_us <= PAUSE_US || c->role == GONE)", "	if (slept_us <= 1000000 * PAUSE_US || c->role == GONE)")],
    ),
    "no-epoch": (
        "who learns of a higher epoch is master no more, and takes no grants of a lower one: here epochs are not looked at",
        "cluster.c",
        [("	if (message->epoch > c->epoch) {", "	if (message->epoch > UINT64_MAX - 1) {"),
         (" || epoch < c->epoch || grant->asked_us > now_us)", " || epoch + 1 == 0 || grant->asked_us > now_us)")],
    ),
    "two-masters-around-one": (
        "who hears of a lower master stands back: here two masters around one member raise each other's epoch without end",
        "cluster.c",
        [(" || (node->said.master != 0 && node->said.master < c->options.id)))", "))")],
    ),
    "no-echo": (
        "alive is who echoes our challenge: here whoever is heard",
        "cluster.c",
        [("			node->proven_us = later(node->proven_us, issued_us(c, beat->echoes[i].challenge));",
          "			issued_us(c, beat->echoes[i].challenge);"),
         ("	bool is_proven = node->proven_us > 0 && since(now_us, node->proven_us) <= ALIVE_US;\n	if (beat->master",
          "	node->proven_us = now_us;\n	bool is_proven = node->proven_us > 0;\n	if (beat->master")],
    ),
    "relative-demand": (
        "a demand is absolute: here it adds to what was asked before",
        "cluster.c",
        [("	node->waiting = demand->waiting;", "	node->waiting += demand->waiting;"),
         ("		                           .waiting = waiting,", "		                           .waiting = waiting > c->demanded ? waiting - c->demanded : 0,")],
    ),
    "no-replay-window": (
        "a datagram is let in once: here as often as it comes",
        "cluster_wire.c",
        [("	return CLUSTER_WIRE_REPLAY;", "	return CLUSTER_WIRE_GOOD;")],
    ),
    "handover-forgets": (
        "a handover tells when each slot is free again: here that all are",
        "cluster.c",
        [("		uint64_t left_us = sooner(since(free_us(&c->ring, i), now_us), longest_us);",
          "		uint64_t left_us = 0 * longest_us;")],
    ),
    "strict-counts-who-is-heard": (
        "strict: a master's share is that of those who take it for master: here of all whom it hears",
        "cluster.c",
        [("takes_part(&c->nodes[i]) && c->nodes[i].said.master == c->options.id", "takes_part(&c->nodes[i])")],
    ),
}

# Rules that nothing depends on alone, as far as the simulation can tell: others stand behind them. Here not to be found is no
# fault.
DOUBLED = {
    "no-epoch": "a grant carries its own end, and quiet time outlasts every grant of an earlier master",
    "strict-counts-who-is-heard": "who hears of a lower master stands back, so that two masters around one member are rare",
}

# What a random plan seldom brings about has a scenario of its own.
SCENARIO = {"unheard-master": "short-reign-50x3"}


def mutate(name, objects):
    _, source, changes = MUTATIONS[name]
    with open(source) as file:
        text = file.read()
    for old, new in changes:
        if text.count(old) != 1:
            sys.exit(f"mutations.py: {name} does not fit {source} any more: {text.count(old)} times there is\n{old}")
        text = text.replace(old, new)
    folder = os.path.join(objects, "mutations", name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, source), "w") as file:
        file.write(text)
    return folder, source


def build(name, arguments):
    folder, source = mutate(name, arguments.objects)
    changed = os.path.join(folder, source.replace(".c", ".o"))
    compiled = f"{arguments.compile} -c -o {changed} {os.path.join(folder, source)}"
    objects = [os.path.join(arguments.objects, "tests/sim", each) for each in
               sorted(os.listdir(os.path.join(arguments.objects, "tests/sim"))) if each.endswith(".o")]
    objects += [os.path.join(arguments.objects, each) for each in ("cluster.o", "limiter.o", "cluster_wire.o")
                if each != source.replace(".c", ".o")]
    program = os.path.join(folder, "sim")
    linked = f"{arguments.link} -o {program} {' '.join(objects)} {changed} {arguments.libs}"
    for command in (compiled, linked):
        subprocess.run(command, shell=True, check=True)
    return program


def search(name, arguments):
    """Returns the name, whether the loss was found, and what to say about it."""
    program = build(name, arguments)
    began = time.monotonic()
    hours = arguments.hours / 5 if name in DOUBLED else arguments.hours
    scenario = ["--scenario", SCENARIO[name]] if name in SCENARIO else []
    run = subprocess.run([program, "--hours", str(hours), "--until-failure"] + scenario, capture_output=True, text=True)
    took_s = time.monotonic() - began
    found = re.search(r"^seed (\d+): .*$", run.stdout, re.MULTILINE)
    through = re.search(r"([\d.]+) simulated hours", run.stdout)
    if name in DOUBLED and through and not found:
        return name, True, f"not found in {hours:.0f} simulated hours, as expected: {DOUBLED[name]}"
    if run.returncode != 0 or not found or not through:
        return name, False, f"NOT FOUND in {hours:.0f} simulated hours\n{run.stdout}{run.stderr}"
    whole = subprocess.run([os.path.join(arguments.objects, "tests/sim/sim"), "--seed", found.group(1)] + scenario,
                           capture_output=True, text=True)
    if whole.returncode != 0:
        return name, False, f"seed {found.group(1)} fails with the rule in force too\n{whole.stdout}{whole.stderr}"
    return name, True, f"found after {through.group(1)} simulated hours, {took_s:.1f} s: {found.group(0)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", required=True)
    parser.add_argument("--compile", required=True)
    parser.add_argument("--link", required=True)
    parser.add_argument("--libs", required=True)
    parser.add_argument("--hours", type=float, default=100)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    names = arguments.names or list(MUTATIONS)
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, was_found, account in pool.map(lambda each: search(each, arguments), names):
            print(f"{name}: {MUTATIONS[name][0]}\n    {account}", flush=True)
            missed += not was_found
    print(f"{len(names) - missed} rules broken with the expected result, {missed} without")
    sys.exit(1 if missed else 0)


main()
