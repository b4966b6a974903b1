"""threshold and backlog: never too many starts in any window of a second, a bounded line, and a refusal that says when
to come again."""
import json
import signal
import threading
import time

from client import request
from harness import takes
from origin import answer

CLOCK_SLACK_S = 0.002       # the origin's stamps are the kernel's real time, weir counts monotonic time


def _windows_hold(t, origin, threshold):
    """Between a start and the threshold-th after it lies a second, measured where the kernel received them."""
    starts = sorted(req.arrived for req in origin.requests)
    for first, last in zip(starts, starts[threshold:]):
        t.check(last - first >= 1 - CLOCK_SLACK_S, f'{threshold + 1} starts within {last - first:.4f} s')
    return starts


@takes(40)
def of_thirty_at_once_threshold_5_backlog_2_serves_fifteen(t):
    origin = t.origin(stamped=True)
    weir = t.weir(origin, threshold=5, backlog=2)
    clients = [t.client(weir, seconds=20) for _ in range(30)]
    for client in clients:
        client.send(request())
    responses = t.parallel([client.response for client in clients])
    statuses = [response.status for response in responses]
    t.equal([statuses.count(200), statuses.count(429)], [15, 15], 'served and refused')
    for response in responses:
        if response.status == 429:
            after = response.get('retry-after') or ''
            t.check(after.isdigit() and int(after) >= 1, f'Retry-After: {after!r}')
            body = json.loads(response.body)
            t.equal(body['overLimit']['code'], 429)
            t.check(isinstance(body['overLimit']['message'], str) and body['overLimit']['message'], f'{body}')
            t.check('json' in (response.get('content-type') or ''), f'Content-Type: {response.get("content-type")}')
    starts = _windows_hold(t, origin, 5)
    t.check(starts[-1] - starts[0] < t.s(3.5), f'the line took {starts[-1] - starts[0]:.2f} s')


def refusals_come_at_once(t):
    origin = t.origin()
    weir = t.weir(origin, threshold=1, backlog=0)
    t.equal(t.get(weir).status, 200)
    started = time.monotonic()
    t.equal(t.get(weir).status, 429)
    t.check(time.monotonic() - started < t.s(0.9), f'refused after {time.monotonic() - started:.2f} s')
    t.equal(len(origin.requests), 1)


def a_refusal_does_not_close_the_connection_of_a_simple_get(t):
    weir = t.weir(t.origin(), threshold=1)
    client = t.client(weir)
    t.equal(client.ask().status, 200)
    t.equal(client.ask().status, 429)
    t.until(lambda: client.ask().status == 200, 5, 'a turn on the same connection')


def reject_status_is_what_was_set(t):
    weir = t.weir(t.origin(), threshold=1, reject_status=503)
    client = t.client(weir)
    t.equal([client.ask().status, client.ask().status], [200, 503])


@takes(40)
def a_steady_overload_never_passes_the_threshold_and_uses_nearly_all_of_it(t):
    origin = t.origin(stamped=True)
    weir = t.weir(origin, threshold=50, backlog=1)
    stop = threading.Event()

    def load():
        client = t.client(weir, seconds=20)
        while not stop.is_set():
            client.ask()

    def clock():
        stop.wait(4)
        stop.set()
    t.parallel([clock] + [load] * 20)
    starts = _windows_hold(t, origin, 50)
    t.check(len(starts) >= 195 * (1 if t.slow <= 1 else 0.8), f'{len(starts)} starts in 4 s')


def those_that_wait_are_served_first_come_first_served(t):
    origin = t.origin(stamped=True)
    weir = t.weir(origin, threshold=4, backlog=3)
    clients = []
    for i in range(12):
        client = t.client(weir, seconds=20)
        client.send(request(target=f'/{i}'))
        # Read by weir, and then it needs a moment to stand in line: the next one is sent when that is sure.
        t.read_by_peer(client)
        clients.append(client)
        client.silent(t.s(0.03))
    for client in clients:
        t.equal(client.response().status, 200)
    order = [int(req.target[1:]) for req in sorted(origin.requests, key=lambda req: req.arrived)]
    # Four start at one moment, from four threads: their order among themselves is nobody's.
    t.equal([sorted(order[i:i + 4]) for i in (0, 4, 8)], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])


def a_client_that_hangs_up_gives_its_place_back(t):
    origin = t.origin()
    weir = t.weir(origin, threshold=2, backlog=2)
    client = t.client(weir)
    t.equal([client.ask().status, client.ask().status], [200, 200])
    waiting = []
    for _ in range(4):
        late = t.client(weir)
        late.send(request(target='/left'))
        t.read_by_peer(late)
        waiting.append(late)
    t.until(lambda: t.get(weir, '/full').status == 429, 5, 'a full line')
    for late in waiting:
        late.abort()
    # All four places are free again: another client is let in and served in its turn.
    fresh = t.client(weir, seconds=20)
    def let_in():
        return fresh.ask(target='/fresh').status == 200
    t.until(let_in, 5, 'a place')
    left = origin.targets().count('/left')
    t.check(left <= 2, f'{left} requests of clients that had left were sent')


def a_retry_counts_as_a_start_of_its_own(t):
    def resets(conn):
        if conn.request() is not None:
            conn.abort()
    bad, good = t.origin(handler=resets, stamped=True), t.origin(stamped=True, name='good')
    weir = t.weir(bad, good, threshold=2, backlog=5, probe_interval=30)
    client = t.client(weir, seconds=20)
    for _ in range(5):
        t.equal(client.ask().status, 200)
    starts = sorted(req.arrived for req in bad.requests + good.requests)
    t.equal(len(starts), 6, 'starts')
    for first, last in zip(starts, starts[2:]):
        t.check(last - first >= 1 - CLOCK_SLACK_S, f'3 starts within {last - first:.4f} s')


def threshold_0_is_no_limit(t):
    weir = t.weir(t.origin(), threshold=0)
    client = t.client(weir)
    t.equal({client.ask().status for _ in range(200)}, {200})


def a_threshold_in_minutes_is_a_window_of_a_minute(t):
    weir = t.weir(t.origin(), threshold='3/m')
    client = t.client(weir)
    responses = [client.ask() for _ in range(5)]
    t.equal([response.status for response in responses], [200, 200, 200, 429, 429])
    after = int(responses[3].get('retry-after'))
    t.check(50 <= after <= 61, f'Retry-After: {after}')


def burst_1_spaces_the_starts_evenly(t):
    origin = t.origin(stamped=True)
    weir = t.weir(origin, threshold=20, backlog=1, burst=1)
    clients = [t.client(weir, seconds=20) for _ in range(12)]
    for client in clients:
        client.send(request())
    t.equal([client.response().status for client in clients], [200] * 12)
    # 50 ms apart. A request that a busy machine holds up on its way comes closer to its successor; but eleven such gaps
    # can't have shrunk much in all, nor most of them.
    starts = sorted(req.arrived for req in origin.requests)
    gaps = [second - first for first, second in zip(starts, starts[1:])]
    t.check(sum(gap >= 0.04 for gap in gaps) >= 8 and sum(gaps) >= 0.4, f'between the starts: {gaps}')


def those_that_wait_are_still_served_on_sigterm(t):
    origin = t.origin(lambda req: answer(b'served'))
    weir = t.weir(origin, threshold=2, backlog=2, drain_timeout=15)
    clients = [t.client(weir, seconds=20) for _ in range(6)]
    for client in clients:
        client.send(request())
    origin.wait_requests(2)
    t.read_by_peer(*clients)
    weir.signal(signal.SIGTERM)
    t.equal([client.response().status for client in clients], [200] * 6)
    t.equal(weir.wait_exit(), 0)
