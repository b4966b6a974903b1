"""The status page in a real browser: Debian's chromium. Skipped with a word where there is none (deploy/prerequisites.sh browser)."""
import json
import signal
import socket
import threading

import browser as chromium
from admin import Admin, Events
from client import request
from harness import takes

FRAMES = 'Number(document.body.dataset.frames || 0)'


def _open(t, url, **look):
    if not chromium.find():
        t.skip('chromium is not installed')
    page = chromium.Browser(t.tmp, seconds=t.s(30))
    t.cleanup(page.close)
    page.look(**look)
    page.open(url)
    page.wait(FRAMES + ' > 1', 'two frames')
    return page


def _tile(name):
    return f'document.querySelector(".tile[data-name={name}] b").textContent'


def _row(number):
    return f'[...document.querySelectorAll(".targets tbody tr")[{number}].cells].map(c => c.textContent)'


def _number(text):
    return int(text.replace('\u202f', ''))


@takes(90)
def the_pages_numbers_are_those_of_the_status(t):
    origins = t.origins(3)
    weir = t.weir(*origins, admin=0, threshold='40/m', backlog=0)
    admin = Admin(t, weir)
    for _ in range(45):
        t.get(weir)
    page = _open(t, f'http://127.0.0.1:{admin.port}/')
    service = admin.service()
    t.equal((service['requests_total'], service['started_total'], service['refused_total']), (45, 40, 5))
    for name, key in (('requests', 'requests_total'), ('started', 'started_total'), ('refused', 'refused_total'), ('waiting', 'waiting')):
        t.equal(_number(page.value(_tile(name))), service[key], name)
    t.equal(page.value(_tile('in')), '3 / 3')
    for i, target in enumerate(service['targets']):
        cells = page.value(_row(i))
        t.check(target['address'] in cells[0], f'{cells}')
        t.equal((cells[1], _number(cells[5]), _number(cells[6])), ('in', target['requests_total'], target['failures_total']))
    t.equal(page.value('document.querySelectorAll(".ring path.used").length'), 40)
    t.get(weir)
    page.wait(f'{_tile("requests")} === "46"', 'one more request')
    t.equal(page.console, [], 'the console')


@takes(90)
def a_target_that_is_killed_turns_within_two_seconds(t):
    origins = t.origins(2)
    weir = t.weir(*origins, admin=0, probe_interval='0.2')
    page = _open(t, f'http://127.0.0.1:{Admin(t, weir).port}/')
    page.seconds = t.s(2)
    origins[1].kill()
    stop = threading.Event()
    t.cleanup(stop.set)
    def load():
        while not stop.is_set():
            t.get(weir)
            stop.wait(0.05)
    thread = threading.Thread(target=load)
    thread.start()
    t.cleanup(thread.join)
    t.cleanup(stop.set)
    page.wait(f'{_row(1)}[1].startsWith("out, ")', 'the dead target is out, and when it is probed is said')
    t.equal(page.value('document.querySelectorAll(".wheel circle.out").length'), 1)
    page.wait('document.getElementById("events").textContent.includes("leaves the rotation")', 'the event')
    page.seconds = t.s(30)
    origins[1].revive()
    page.wait(f'{_row(1)}[1] === "in"', 'it is back')
    t.equal(page.console, [], 'the console')


@takes(90)
def what_a_client_sends_is_text_on_the_page(t):
    weir = t.weir(t.origin(), admin=0)
    admin = Admin(t, weir)
    page = _open(t, f'http://127.0.0.1:{admin.port}/')
    uri = '/<img/src=x/onerror=document.title=666>"\'&amp;'
    t.get(weir, uri)
    page.wait('document.querySelector(".trace tbody").textContent.includes("onerror")', 'the request')
    t.equal(page.value('document.querySelector(".trace tbody tr").cells[2].textContent'), 'GET ' + uri)
    t.equal(page.value('document.querySelectorAll("img").length'), 0)
    t.equal(page.value('document.title'), 'weir')
    # Even if a script did get in: the policy does not let it run.
    page.value('document.body.append(Object.assign(document.createElement("script"), {textContent: "document.title = 667"}))')
    t.equal(page.value('document.title'), 'weir')
    t.check(any('Content Security Policy' in line for line in page.console), f'{page.console}')


@takes(120)
def a_weir_that_goes_is_missed_and_found_again(t):
    port = t.free_port()
    origin = t.origin()
    weir = t.weir(origin, admin=port)
    page = _open(t, f'http://127.0.0.1:{port}/')
    page.wait('document.getElementById("state").className === "live"', 'live')
    for _ in range(5):
        t.get(weir, '/first')
    page.wait('document.querySelectorAll(".trace tbody tr").length === 5', 'its requests')
    weir.stop()
    page.wait('document.getElementById("state").className === "lost" && document.body.classList.contains("stale")', 'lost')
    weir = t.weir(origin, admin=port)
    t.get(weir, '/second')
    page.wait(f'document.getElementById("state").className === "live" && {_tile("requests")} === "1"', 'live again')
    # The new one counts its events and requests from the beginning, and those were taken for old news.
    page.wait('document.getElementById("events").textContent.includes("started anew")', 'the event')
    page.wait(f'document.getElementById("events").textContent.includes("{weir.port}")', 'the new one\'s events')
    t.get(weir, '/third')
    page.wait('document.querySelector(".trace tbody").textContent.includes("/third")', 'the new one\'s requests')
    t.check('/first' not in page.value('document.querySelector(".trace tbody").textContent'), 'the old one\'s requests are still there')


@takes(120)
def a_weir_that_falls_silent_is_missed_though_its_connection_stays(t):
    weir = t.weir(t.origin(), admin=0)
    page = _open(t, f'http://127.0.0.1:{Admin(t, weir).port}/')
    page.wait('document.getElementById("state").className === "live"', 'live')
    weir.signal(signal.SIGSTOP)
    t.cleanup(lambda: weir.signal(signal.SIGCONT))
    page.wait('document.getElementById("state").className === "lost"', 'lost')
    page.value('document.getElementById("pause").click()')
    t.equal(page.value('document.getElementById("state").className'), 'lost', 'a click finds nobody again')
    page.value('document.getElementById("pause").click()')
    weir.signal(signal.SIGCONT)
    page.wait('document.getElementById("state").className === "live"', 'live again')


@takes(120)
def a_page_that_nobody_sees_holds_no_stream_and_one_too_many_still_gets_frames(t):
    weir = t.weir(t.origin(), admin=0)
    admin = Admin(t, weir)
    page = _open(t, f'http://127.0.0.1:{admin.port}/')
    asked = 'performance.getEntriesByType("resource").filter(e => e.name.endsWith("/api/view")).length'
    t.equal(page.value(asked), 0)
    page.value('Object.defineProperty(document, "hidden", {value: true, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))')
    page.wait(f'{asked} >= 2', 'it asks instead')
    watchers = [Events(admin) for _ in range(32)]
    t.equal([w.head.status for w in watchers], [200] * 32, 'the hidden page holds none of the places')
    t.equal(Events(admin).head.status, 503)
    page.value('delete document.hidden; document.dispatchEvent(new Event("visibilitychange"))')
    begun = page.value(FRAMES)
    page.wait(f'{FRAMES} >= {begun} + 2', 'frames, though all places are taken')
    t.equal(page.value('document.getElementById("state").className'), 'live')


@takes(120)
def a_groups_page_counts_what_was_started_here(t):
    """It said "60 of 60 starts taken" for 40 that had started and 20 that waited."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(('127.0.0.1', 0))
        group = f'127.255.255.255:{probe.getsockname()[1]}'
    origin = t.origin()
    weirs = [t.weir(origin, admin=0, id=number, unicast=group, threshold=10, backlog=8, drain_timeout=1) for number in (3, 5)]
    admin = Admin(t, weirs[0])
    t.until(lambda: (group_ := admin.service().get('group')) and group_['giving'] and len(group_['nodes']) == 2, 30, 'the master gives')
    page = _open(t, f'http://127.0.0.1:{admin.port}/')
    clients = [t.client(weir, seconds=30) for weir in weirs for _ in range(40)]
    for client in clients:
        client.send(request())
    page.wait(f'Number({_tile("waiting")}) >= 20', 'many wait')
    seen = []      # no more are in the window than ever started here, however many wait
    numbers = f'[{_tile("waiting")}, document.querySelector(".ring .big").textContent, {_tile("started")}].map(Number)'
    while (shown := page.value(numbers))[0] >= 20:
        seen.append(tuple(shown[1:]))
    t.check(seen and all(in_window <= started for in_window, started in seen), f'{len(seen)} looks: {set(seen)}')
    t.equal([client.response().status for client in clients], [200] * 80)
    page.wait(f'{_tile("started")} === "40"', 'all have started')
    t.until(lambda: [n['started_total'] for n in admin.service()['group']['nodes']] == [40, 40], 10, 'the other says so')
    page.wait('[...document.querySelectorAll(".nodes tbody tr")].every(r => r.cells[7].textContent === "40" && r.cells[4].textContent === "0"'
              ' && /^[0-9]+$/.test(r.cells[5].textContent))', 'starts, waiting and grants of both')
    t.equal(page.value('document.querySelector(".nodes tbody tr").cells[1].textContent'), 'master, this one')
    t.equal(page.console, [], 'the console')


@takes(120)
def it_fits_a_phone_stands_still_when_asked_and_needs_no_mouse(t):
    weir = t.weir(*t.origins(3), admin=0, threshold=10, burst=1)
    admin = Admin(t, weir)
    page = _open(t, f'http://127.0.0.1:{admin.port}/', width=360, height=740, phone=True)
    t.equal(page.value('document.documentElement.scrollWidth'), 360)
    t.equal(page.value('document.querySelector(".ring .big").textContent'), '0', 'a burst of one is no full window')
    light = page.value('getComputedStyle(document.body).backgroundColor')
    page.look(dark=True, calm=True, width=360, height=740, phone=True)
    t.check(page.value('getComputedStyle(document.body).backgroundColor') != light, 'dark is no other than light')
    t.equal(page.value('getComputedStyle(document.querySelector(".wheel .hand")).transitionDuration'), '0s')
    begun = page.value(FRAMES)
    page.wait(f'{FRAMES} >= {begun} + 2', 'it still changes')
    for key in range(12):
        page.call('Input.dispatchKeyEvent', type='keyDown', key='Tab', code='Tab', windowsVirtualKeyCode=9)
        page.call('Input.dispatchKeyEvent', type='keyUp', key='Tab', code='Tab', windowsVirtualKeyCode=9)
        if page.value('document.activeElement.id') == 'pause':
            break
    t.equal(page.value('document.activeElement.id'), 'pause', f'after {key + 1} tabs')
    page.call('Input.dispatchKeyEvent', type='keyDown', key='Enter', code='Enter', windowsVirtualKeyCode=13, text='\r')
    page.call('Input.dispatchKeyEvent', type='keyUp', key='Enter', code='Enter', windowsVirtualKeyCode=13)
    t.equal(page.value('document.getElementById("pause").getAttribute("aria-pressed")'), 'true')
    unnamed = page.value('[...document.querySelectorAll("svg[role=img], [role=img], button, [tabindex=\'0\']")].filter(e => !e.closest("[hidden]")'
                         ' && !(e.getAttribute("aria-label") || e.textContent)).length')
    t.equal(unnamed, 0, 'pictures and buttons without a name')


@takes(90)
def the_page_on_the_services_port_asks_each_second(t):
    weir = t.weir(t.origin(), stats_path='/stats', threshold=10)
    page = _open(t, f'http://127.0.0.1:{weir.port}/stats')
    page.wait(FRAMES + ' > 2', 'three frames')
    t.check(page.value('document.querySelector(".trace-panel").hidden && document.getElementById("events-panel").hidden'),
            'what others do is shown')
    t.equal(page.value(_tile('started')), '0')
    t.equal(page.console, [], 'the console')


@takes(90)
def a_forward_proxys_hosts_stand_against_their_caps(t):
    from harness import Weir
    gate = threading.Event()
    t.cleanup(gate.set)
    origin = t.origin(reply=lambda request: gate.wait(60) and b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    weir = Weir(t, ['forward', '--port', 0, '--admin', 0, '--connect-allow', '127.0.0.0/8:*', '--max-connections', 3])
    admin = Admin(t, weir)
    client = t.client(weir, seconds=60)
    client.send(f'GET http://{origin.address}/ HTTP/1.1\r\nHost: {origin.address}\r\n\r\n'.encode())
    origin.wait_requests(1)
    page = _open(t, f'http://127.0.0.1:{admin.port}/')
    page.wait('document.querySelector(".hosts li")?.textContent.includes("1 of 3")', 'the host')
    t.equal(page.value('document.querySelector(".hosts meter").value'), 1)
    t.check(json.dumps(page.value('document.querySelector(".hosts .name").textContent')) == json.dumps(origin.address), 'its name')
    gate.set()
