#!/usr/bin/env python3
"""bench/limits.py: is the limit exact, and is it used? Thresholds against the largest window and the utilisation.

    wrk, 1 to 500 connections ──► weir --threshold N --backlog 1 ──► arrivals: the kernel's time stamp of each request

For each threshold and number of connections weir is loaded with more than it may pass on, for a few seconds. Then the
times at which requests came to the target are searched for the fullest window of one second, wherever it begins.

  most in 1 s   the largest number of arrivals in any [t, t + 1 s). More than the threshold: the benchmark fails.
  utilisation   of the threshold, from the end of the first window's worth of arrivals to the end of the last whole
                one. Under 99 %: the benchmark fails, if the service was saturated at all
  waited        requests that stood in line before they started, and the median of their waits
  refused       requests that were answered 429 because the line was full

Without a limit so many connections get so many requests a second through weir on this machine: that is measured first,
and where it is not MARGIN times the threshold the row says "not saturated" and its utilisation is not judged. Other
programs that take the processors make threads late and so take utilisation, never exactness: a row under 99 % is
measured again, up to three times, and a row over its threshold never.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import ground
from ground import BenchError, Program

WINDOW_NS = 1_000_000_000
LEAST_UTILISATION = 99.0
MARGIN = 1.25
TRIES = 3
FREE_RUN_SECONDS = 2


def fullest_window(times):
    """The largest number of times (sorted) in any window [t, t + 1 s)."""
    first = most = 0
    for last, moment in enumerate(times):
        while moment - times[first] >= WINDOW_NS:
            first += 1
        most = max(most, last - first + 1)
    return most


def utilisation(times, threshold):
    """In %; None when there were not even three windows' worth. Slots that come free together stay together, so only
    whole rounds of the threshold are counted: a cut elsewhere would count a part of a bunch."""
    whole = len(times) // threshold * threshold
    if whole < 3 * threshold:
        return None
    return 100 * (whole / threshold - 1) * WINDOW_NS / (times[whole - 1] - times[threshold - 1])


def read_access_log(path):
    """(waits of those that were served and had to wait, in seconds; number refused)"""
    waits, refused = [], 0
    with open(path, encoding="utf-8") as log:
        for line in log:
            status = line.split('" ', 1)[1][:3]
            if status == "429":
                refused += 1
            elif status == "200":
                wait = float(line.split(" wait=", 1)[1].split(" ", 1)[0])
                if wait > 0:
                    waits.append(wait)
            elif "client went away" not in line:            # wrk hangs up when its time is over
                raise BenchError(f"neither served nor refused: {line.strip()}")
    return waits, refused


def load(port, seconds, connections):
    command = ground.wrk_command("report.lua", port, seconds, connections)
    if connections == 1:
        command[command.index("-t2")] = "-t1"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"wrk: {error}") from None
    result = ground.wrk_result(done.stdout)
    broken = {kind: count for kind, count in result["errors"].items() if count and kind != "status"}
    if broken:
        raise BenchError(f"wrk met errors: {broken}")
    return result


def run(options, folder, threshold, connections, seconds):
    """One measurement: (arrival times, waits, refused, requests a second)."""
    times_path, log_path = os.path.join(folder, "times"), os.path.join(folder, "access.log")
    for path in (times_path, log_path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    target_port, port = ground.free_ports(2)
    target = Program("arrivals", [options.arrivals, str(target_port), times_path], target_port, folder)
    weir = Program("weir", [os.path.join(options.bin, "weir"), "reverse", "--port", str(port), "--endpoint",
                            f"127.0.0.1:{target_port}", "--threshold", str(threshold), "--backlog", "1",
                            "--access-log", log_path], port, folder)
    with target:
        with weir:
            result = load(port, seconds, connections)
    with open(times_path, encoding="ascii") as file:
        times = [int(line) for line in file]
    waits, refused = read_access_log(log_path)
    return times, waits, refused, result["requests"] / (result["duration_us"] / 1e6)


def measure(options, folder, threshold, connections, free_rate):
    """A row of the table. Each try counts for the largest window, the best one for the utilisation."""
    row = {"threshold": threshold, "connections": connections, "most": 0, "utilisation": None,
           "saturated": free_rate >= MARGIN * threshold, "tries": 0}
    while row["tries"] < TRIES:
        row["tries"] += 1
        times, waits, refused, _ = run(options, folder, threshold, connections, options.seconds)
        used = utilisation(times, threshold)
        row["most"] = max(row["most"], fullest_window(times))
        if row["utilisation"] is None or (used or 0) > row["utilisation"]:
            row.update(utilisation=used, arrivals=len(times), waited=len(waits), refused=refused,
                       median_wait_s=statistics.median(waits) if waits else 0)
        if row["most"] > threshold or not row["saturated"] or (used or 0) >= LEAST_UTILISATION:
            break
    row["exact"] = row["most"] <= threshold
    row["used"] = not row["saturated"] or (row["utilisation"] or 0) >= LEAST_UTILISATION
    return row


def print_row(row):
    used = f"{row['utilisation']:.2f} %" if row["utilisation"] is not None else "-"
    notes = [] if row["saturated"] else ["not saturated"]
    if not row["exact"]:
        notes.append("OVER THE THRESHOLD")
    if not row["used"]:
        notes.append(f"under {LEAST_UTILISATION:.0f} %")
    if row["tries"] > 1:
        notes.append(f"{row['tries']} tries")
    wait = f"{row['waited']} ({row['median_wait_s'] * 1000:.0f} ms)"
    print(f"{row['threshold']:>9}{row['connections']:>13}{row['arrivals']:>10}{row['most']:>13}{used:>13}{wait:>18}"
          f"{row['refused']:>10}  {', '.join(notes)}", flush=True)


def numbers(text):
    return [int(number) for number in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description="thresholds against the largest window seen and the utilisation")
    parser.add_argument("--bin", default=".", help="the folder of the weir program")
    parser.add_argument("--arrivals", default="build/bench/arrivals", help="the target that notes arrivals")
    parser.add_argument("--seconds", type=int, default=6, help="length of one measurement")
    parser.add_argument("--thresholds", type=numbers, default=[5, 50, 1000, 20000])
    parser.add_argument("--connections", type=numbers, default=[1, 8, 64, 500])
    parser.add_argument("--results", default=os.path.join(ground.FOLDER, "results", "limits.json"))
    options = parser.parse_args()
    if options.seconds < 4 or min(options.thresholds + options.connections) < 1:
        parser.error("a measurement takes at least 4 seconds, thresholds and connections are at least 1")
    return options


def main():
    options = arguments()
    ground.exit_on_signals()
    rows, free_rates = [], {}
    try:
        with tempfile.TemporaryDirectory(prefix="weir-limits-") as folder:
            for connections in options.connections:
                free_rates[connections] = run(options, folder, 0, connections, FREE_RUN_SECONDS)[3]
            free = ", ".join(f"{count} connections {rate:.0f}/s" for count, rate in free_rates.items())
            print(f"{os.cpu_count()} processors shared by wrk, weir and the target; "
                  f"load average {os.getloadavg()[0]:.2f}; without a limit: {free}\n")
            print(f"{'threshold':>9}{'connections':>13}{'arrivals':>10}{'most in 1 s':>13}{'utilisation':>13}"
                  f"{'waited (median)':>18}{'refused':>10}")
            for threshold in options.thresholds:
                for connections in options.connections:
                    rows.append(measure(options, folder, threshold, connections, free_rates[connections]))
                    print_row(rows[-1])
    except BenchError as error:
        print(f"bench/limits.py: {error}", file=sys.stderr)
        return 1
    os.makedirs(os.path.dirname(options.results), exist_ok=True)
    with open(options.results, "w", encoding="utf-8") as file:
        json.dump({"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "processors": os.cpu_count(),
                   "load_average": os.getloadavg(), "free_rates": free_rates, "rows": rows}, file, indent=1)
        file.write("\n")
    over = [row for row in rows if not row["exact"]]
    unused = [row for row in rows if not row["used"]]
    print(f"\n{len(rows)} rows: {len(over)} over the threshold, {len(unused)} of those saturated under "
          f"{LEAST_UTILISATION:.0f} %")
    return 1 if over or unused else 0


if __name__ == "__main__":
    sys.exit(main())
