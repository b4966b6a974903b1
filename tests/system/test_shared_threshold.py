"""A threshold that several workers share through Redis, measured at the target by the kernel's stamps."""
import signal
import threading

from client import request
from harness import takes
from test_forward import _Redis


def _storm(t, weirs, requests_each):
    """Many clients at once on each of the workers; the statuses."""
    statuses, lock = [], threading.Lock()

    def ask(weir):
        status = t.get(weir).status
        with lock:
            statuses.append(status)
    t.parallel([lambda weir=weir: ask(weir) for weir in weirs for _ in range(requests_each)], seconds=40)
    return statuses


def _fullest(moments):
    """The most starts in any window of one second."""
    moments = sorted(moments)
    return max(sum(1 for other in moments if 0 <= other - first < 1) for first in moments)


@takes(60)
def the_threshold_holds_over_all_workers(t):
    redis = _Redis(t)
    origin = t.origin(stamped=True)
    weirs = [t.weir(origin, threshold=5, backlog=2, redis_addr=redis.address) for _ in range(3)]
    for _ in range(3):
        statuses = _storm(t, weirs, 12)
        if 503 not in statuses:     # a machine that stood still for so long takes Redis for lost: then once more
            break
    served = statuses.count(200)
    t.equal(set(statuses), {200, 429})
    t.check(served >= 10, f'{served} of {len(statuses)} served')
    t.check(_fullest([req.arrived for req in origin.requests]) <= 5, 'more than 5 in a second')


@takes(60)
def without_redis_it_is_closed_open_or_local_as_set(t):
    redis = _Redis(t)
    for fail, statuses in (('closed', {503}), ('open', {200})):
        weir = t.weir(t.origin(name='A'), threshold=50, redis_addr=redis.address, redis_fail=fail)
        t.equal(t.get(weir).status, 200)
        redis.stop()
        t.until(lambda: t.get(weir).status in statuses, 10, f'redis_fail = {fail}')
        t.equal({t.get(weir).status for _ in range(5)}, statuses)
        weir.wait_log("Redis can't be reached")
        redis.start()
        t.until(lambda: t.get(weir).status == 200, 15, 'Redis is used again')


@takes(60)
def a_share_stays_a_share_when_settings_are_read_again_without_redis(t):
    redis = _Redis(t)
    origin = t.origin()
    weirs = [t.weir(origin, threshold='20/m', redis_addr=redis.address, redis_fail='local') for _ in range(2)]
    # Redis says with each answer how many workers there are: the first, asked again, has heard of the second.
    t.equal([t.get(weir).status for weir in (*weirs, weirs[0])], [200] * 3)
    redis.stop()
    for weir in weirs:
        weir.wait_log("Redis can't be reached", 20)
    one = weirs[0]
    served = [t.get(one).status for _ in range(15)].count(200)
    t.check(8 <= served <= 10, f'{served} served of a share of 10')
    one.signal(signal.SIGHUP)
    one.wait_log('new settings are in force')
    t.equal([t.get(one).status for _ in range(5)], [429] * 5, 'after the reload')


@takes(60)
def a_client_that_hangs_up_while_the_fleet_has_no_start_left_is_let_go(t):
    redis = _Redis(t)
    origin = t.origin()
    one, two = [t.weir(origin, threshold='1/h', backlog=86400, redis_addr=redis.address, access_log='-') for _ in range(2)]
    t.equal(t.get(one).status, 200)
    client = t.client(two)
    client.send(request())      # its own worker has a start for it, the fleet has none for an hour
    client.close()
    t.check(two.out.wait(lambda lines: any('client went away while it waited' in line for line in lines), t.s(10)),
            two.out.text())
    t.equal(len(origin.requests), 1)


@takes(60)
def a_start_that_was_not_made_goes_back_to_the_fleet(t):
    redis = _Redis(t)
    origin = t.origin()
    settings = {'threshold': '1/h', 'redis_addr': redis.address}
    broken, good = t.weir(t.refused(), **settings), t.weir(origin, **settings)
    t.equal({t.get(broken).status for _ in range(3)}, {500})
    t.until(lambda: t.get(good).status == 200, 10, 'the one start of this hour')
    t.equal([t.get(good).status for _ in range(2)], [429] * 2)
    t.equal(len(origin.requests), 1)
