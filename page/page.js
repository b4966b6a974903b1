// page.js: the status page's moving part.
//
//      frames (server-sent events, ten a second; once a second where there are none, and while the page is hidden)
//                                                                            ──► take() keeps what the past is needed for
//                                                                            └─► paint() writes into the page what has changed
//
// The rule that keeps strangers out: what a request said (its URI, its client's name) reaches the page through textContent and
// attributes alone, never as markup. The policy that the page is served with would not run it anyway.
//
// What is drawn is also said: each picture has a sentence above it, and an aria-label. With reduced motion it changes once a second.
'use strict';

const SVG = 'http://www.w3.org/2000/svg';
const KEEP_MS = 61000, RECENT_MS = 10000, TRACE_ROWS = 60, EVENT_ROWS = 60, SLOTS_DRAWN = 120, DOTS_DRAWN = 120, SPOKES_DRAWN = 24;
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const base = location.pathname.replace(/\/+$/, '');
const streams = base === '';
const $ = id => document.getElementById(id);
const views = new Map();    // one for each service, by keyOf()
let frame = null, chosen = null, paused = false, painted = 0, lastEvent = 0;

// ---- small tools ---------------------------------------------------------------------------------------------------

function make(tag, className, text) {
	const element = document.createElement(tag);
	if (className) element.className = className;
	if (text !== undefined) element.textContent = text;
	return element;
}

function draw(tag, attributes, parent) {
	const element = document.createElementNS(SVG, tag);
	for (const name in attributes) element.setAttribute(name, attributes[name]);
	if (parent) parent.append(element);
	return element;
}

function say(element, text) {
	text = String(text);
	if (element.textContent !== text) element.textContent = text;
}

function set(element, name, value) {
	value = String(value);
	if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// As many children as there are items, each made once and filled again and again.
function fit(parent, count, create) {
	while (parent.children.length < count) parent.append(create(parent.children.length));
	while (parent.children.length > count) parent.lastElementChild.remove();
	return parent.children;
}

// Rows of a table body; a cell is a text or {badge}.
function fill(body, rows, numbersFrom) {
	const made = fit(body, rows.length, () => make('tr'));
	rows.forEach((row, i) => {
		const cells = fit(made[i], row.cells.length, n => make('td', n >= numbersFrom ? 'n' : ''));
		row.cells.forEach((cell, n) => {
			if (cell !== null && typeof cell === 'object') {
				let badge = cells[n].firstElementChild;
				if (!badge) cells[n].replaceChildren(badge = make('span'));
				set(badge, 'class', 'badge ' + cell.kind);
				say(badge, cell.badge);
			} else {
				say(cells[n], cell);
			}
		});
		set(made[i], 'class', row.kind || '');
	});
}

const whole = n => Math.round(n).toLocaleString('en').replace(/,/g, '\u202f');
const rate = n => n < 10 && n > 0 ? n.toFixed(1) : whole(n);
const many = (n, one, more) => whole(n) + ' ' + (n === 1 ? one : more || one + 's');

function time(s) {
	if (s === null || s === undefined || Number.isNaN(s)) return '–';
	if (s === 0) return '0';
	return s < 0.0005 ? Math.round(s * 1e6) + ' µs' : s < 1 ? (s * 1000).toFixed(s < 0.01 ? 1 : 0) + ' ms' : s.toFixed(2) + ' s';
}

const clock = ms => new Date(ms).toTimeString().slice(0, 8);

function span(s) {
	const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
	return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
}

// ---- what is remembered ----------------------------------------------------------------------------------------------

// The newest of the past frames that is at least so old; else the oldest there is.
function before(view, ms) {
	const now = view.past[view.past.length - 1].at;
	let i = view.past.length - 1;
	while (i > 0 && now - view.past[i].at < ms) i--;
	return view.past[i];
}

// A counter's growth in each second over the last ms.
function growth(view, ms, count) {
	const now = view.past[view.past.length - 1], then = before(view, ms);
	const s = (now.at - then.at) / 1000;
	return s > 0 ? Math.max(0, count(now) - count(then)) / s : 0;
}

// Starts of the last window. Where the slots are a group's, weir has a guess of its own alone: then the frames are better.
function startsInWindow(view, s) {
	const past = view.past, now = past[past.length - 1], window_ms = s.window_s * 1000 + 60;    // frames come a little late, rather than early
	if (!s.threshold) return 0;
	if (!s.group) return Math.max(0, s.in_window - s.outstanding);
	if (now.at - past[0].at < window_ms) return Math.min(s.in_window, now.started);
	let i = past.length - 1;
	while (i > 0 && now.at - past[i - 1].at <= window_ms) i--;
	return Math.min(s.threshold, now.started - past[i].started);
}

function startsInSecond(view, s, inWindow) {
	if (s.threshold && s.window_s === 1) return inWindow;
	const now = view.past[view.past.length - 1], then = before(view, 1000);
	return now.at - then.at < 1000 ? null : (now.started - then.started) * 1000 / (now.at - then.at);
}

function remember(view, service, at) {
	const targets = {}, nodes = {}, refusals = service.refusals;
	for (const node of service.group ? service.group.nodes : []) nodes[node.id] = node.started_total;
	for (const x of service.targets) targets[x.address + ' ' + (x.id || '')] = [x.requests_total, x.answers_total || 0, x.answers_s || 0];
	const now = { at, started: service.started_total, requests: service.requests_total, refused: service.refused_total, waiting: service.waiting,
		targets, nodes, refusals, times: service.times, server_errors: service.answers['5xx'] };
	view.past.push(now);
	now.inWindow = startsInWindow(view, service);
	now.inSecond = startsInSecond(view, service, now.inWindow);
	while (view.past.length > 2 && at - view.past[1].at > KEEP_MS) view.past.shift();
	for (const request of service.requests || []) {
		if (request.number <= view.seen) continue;
		view.seen = request.number;
		view.trace.unshift(request);
		if (request.refused_by) view.refused.push(request);
	}
	view.trace.length = Math.min(view.trace.length, TRACE_ROWS);
	view.refused = view.refused.filter(r => frame.time_ms - r.at_ms < 60000).slice(-2000);
}

// A service that is taken out of the settings and put back is another one: its numbers begin again.
const keyOf = service => service.name + ' ' + service.since_ms;

// Another weir at the same address: it counts from the beginning, and its clock may be another.
function startAnew() {
	for (const view of views.values()) view.root.remove();
	views.clear();
	if ($('events').firstChild) addEvent('info', frame.time_ms, 'weir was started anew');
	lastEvent = 0;
	painted = -Infinity;
}

function take(text) {
	const last = frame, next = JSON.parse(text);
	const isAnother = last && last.since_ms !== next.since_ms;
	if (last && !isAnother && next.at_ms <= last.at_ms) return;    // asked for before the last one came
	frame = next;
	if (isAnother) startAnew();
	for (const service of frame.services) {
		const key = keyOf(service);
		if (!views.has(key)) views.set(key, open(service));
		remember(views.get(key), service, service.at_ms);
	}
	for (const [key, view] of views) {
		if (frame.draining || frame.services.some(s => keyOf(s) === key)) continue;    // at the end, what was last known stays
		view.root.remove();
		views.delete(key);
	}
	const every = calm.matches ? 1000 : 0;
	if (!paused && frame.at_ms - painted >= every) {
		painted = frame.at_ms;
		paint();
	}
}

// ---- one service -------------------------------------------------------------------------------------------------------

function open(service) {
	const root = $('service-template').content.firstElementChild.cloneNode(true);
	const view = { root, past: [], trace: [], refused: [], seen: 0, ringSize: 0, $: selector => root.querySelector(selector) };
	const id = 'service-' + views.size;
	view.$('.title').id = id;
	root.setAttribute('aria-labelledby', id);
	$('services').append(root);
	return view;
}

function quantile(view, which, share) {
	const now = view.past[view.past.length - 1].times[which], then = before(view, RECENT_MS).times[which];
	const buckets = now.buckets.map((n, i) => n - then.buckets[i]);
	const count = buckets.reduce((a, b) => a + b, 0);
	let seen = 0;
	if (count <= 0) return null;
	for (let i = 0; i < frame.bounds_s.length; i++) {
		const from = i ? frame.bounds_s[i - 1] : 0;
		if (buckets[i] > 0 && seen + buckets[i] >= share * count)
			return from + (share * count - seen) / buckets[i] * (frame.bounds_s[i] - from);
		seen += buckets[i];
	}
	return frame.bounds_s[frame.bounds_s.length - 1];
}

function paintTiles(view, s) {
	const errors = growth(view, RECENT_MS, x => x.server_errors), refused = growth(view, RECENT_MS, x => x.refused);
	const out = s.targets.filter(x => x.state !== 'in').length;
	const tiles = [
		['requests', whole(s.requests_total), 'requests in all', ''],
		['rate', rate(growth(view, 1000, x => x.requests)), 'requests a second', ''],
		['started', whole(s.started_total), 'started upstream', ''],
		['waiting', whole(s.waiting), s.backlog_requests ? 'waiting, of ' + whole(s.backlog_requests) : 'waiting', s.backlog_requests && s.waiting >= s.backlog_requests ? 'warn' : ''],
		['refused', whole(s.refused_total), 'refused', refused > 0 ? 'warn' : ''],
		['errors', whole(s.answers['5xx']), 'server errors (5xx)', errors > 0 ? 'bad' : ''],
		['connections', whole(s.connections), 'connections', ''],
	];
	if (s.mode !== 'forward')
		tiles.push(['in', `${s.targets.length - out} / ${s.targets.length}`, 'targets in', out === 0 ? '' : out === s.targets.length ? 'bad' : 'warn']);
	const made = fit(view.$('.tiles'), tiles.length, () => {
		const tile = make('div', 'tile');
		tile.append(make('b'), make('span'));
		return tile;
	});
	tiles.forEach(([name, value, label, kind], i) => {
		set(made[i], 'class', 'tile ' + kind);
		set(made[i], 'data-name', name);
		say(made[i].children[0], value);
		say(made[i].children[1], label);
	});
}

function slice(from, to, inner, outer) {
	const at = (share, r) => `${(r * Math.sin(2 * Math.PI * share)).toFixed(2)} ${(-r * Math.cos(2 * Math.PI * share)).toFixed(2)}`;
	const large = to - from > 0.5 ? 1 : 0;
	return `M${at(from, outer)}A${outer} ${outer} 0 ${large} 1 ${at(to, outer)}L${at(to, inner)}A${inner} ${inner} 0 ${large} 0 ${at(from, inner)}Z`;
}

// The window is a ring of as many slots as the threshold has. A start fills the next one; it is free again when it is a window old.
function paintRing(view, s) {
	const ring = view.$('.ring'), panel = view.$('.window-panel');
	panel.hidden = !s.threshold;
	view.root.classList.toggle('unlimited', !s.threshold);
	if (!s.threshold) return;
	const drawn = Math.min(s.threshold, SLOTS_DRAWN), each = s.threshold / drawn;
	if (view.ringSize !== drawn) {
		ring.replaceChildren();
		const gap = drawn > 1 ? Math.min(0.12 / drawn, 0.004) : 0;
		for (let i = 0; i < drawn; i++) draw('path', { d: slice(i / drawn + gap, (i + 1) / drawn - gap - (drawn === 1 ? 0.0005 : 0), 66, 96) }, ring);
		draw('circle', { class: 'limit', r: 103 }, ring);
		draw('text', { class: 'big', y: 6 }, ring);
		draw('text', { class: 'small', y: 28 }, ring);
		view.ringSize = drawn;
	}
	const started = view.past[view.past.length - 1].inWindow, used = Math.min(s.threshold, started + s.outstanding);
	const head = s.started_total % s.threshold, shapes = ring.children;
	for (let i = 0; i < drawn; i++) {
		const behind = (head - 1 - Math.floor(i * each) + 2 * s.threshold) % s.threshold;
		const ahead = (Math.floor(i * each) - head + 2 * s.threshold) % s.threshold;
		set(shapes[i], 'class', behind < started ? 'used' : ahead < s.outstanding ? 'sending' : 'free');
	}
	say(shapes[drawn + 1], whole(used));
	say(shapes[drawn + 2], 'of ' + whole(s.threshold));
	const window = s.window_s === 1 ? 'second' : s.window_s === 60 ? 'minute' : s.window_s === 3600 ? 'hour' : s.window_s + ' s';
	const words = s.group ? `${whole(used)} of the group's ${many(s.threshold, 'start')} taken here in the last ${window}` :
		`${whole(used)} of ${many(s.threshold, 'start')} taken in the last ${window}`;
	say(panel.querySelector('.says'), words);
	set(ring, 'aria-label', words);
}

function paintRate(view, s) {
	const chart = view.$('.chart'), panel = view.$('.rate-panel');
	if (!chart.firstChild) for (const name of ['area', 'stroke', 'over']) draw('path', { class: name }, chart);
	if (chart.children.length < 4) draw('line', { class: 'limit', x1: 0, x2: 600 }, chart);
	const limit = s.threshold && s.window_s === 1 ? s.threshold : 0, past = view.past, points = [];
	const last = past[past.length - 1].at;
	let most = 0;
	for (const { at, inSecond } of past) {
		if (inSecond === null) continue;
		points.push([600 - (last - at) / 100, inSecond]);
		most = Math.max(most, inSecond);
	}
	const top = Math.max(most, limit, 1) * 1.12, y = value => (200 - value / top * 196).toFixed(1);
	const line = points.map(([x, value], i) => (i ? 'L' : 'M') + x.toFixed(1) + ' ' + y(value)).join('');
	const shapes = chart.children;
	set(shapes[0], 'd', points.length ? line + `L600 200L${points[0][0].toFixed(1)} 200Z` : '');
	set(shapes[1], 'd', line);
	set(shapes[3], 'y1', y(limit));
	set(shapes[3], 'y2', y(limit));
	set(shapes[3], 'visibility', limit ? 'visible' : 'hidden');
	const now = points.length ? points[points.length - 1][1] : 0;
	const words = `${rate(now)} now, at most ${rate(most)} in the last minute` +
		(limit ? `; the line is the ${s.group ? 'group\'s ' : ''}threshold, ${whole(limit)}` : '');
	say(panel.querySelector('.says'), words);
	set(chart, 'aria-label', 'Starts in each second: ' + words);
}

function paintQueue(view, s) {
	const panel = view.$('.queue-panel'), line = view.$('.line');
	const room = s.backlog_requests, drawn = Math.min(Math.max(room, s.waiting), DOTS_DRAWN), each = Math.max(room, s.waiting, 1) / Math.max(drawn, 1);
	line.hidden = !drawn;
	const dots = fit(line, drawn, () => make('i'));
	for (let i = 0; i < drawn; i++) set(dots[i], 'class', i * each < s.waiting ? '' : 'free');
	const pace = s.group ? growth(view, RECENT_MS, x => x.started) : s.threshold / s.window_s;    // of a group we get a part
	const held = s.hosts.reduce((sum, host) => sum + host.waiting, 0);
	let words = room || s.waiting ? `${whole(s.waiting)} of ${whole(room)} places taken` : 'nobody may wait for a start (backlog is 0)';
	if (s.waiting && pace > 0) words += `; the last in line waits about ${time(s.waiting / pace)}`;
	if (held) words += `; ${whole(held)} for a connection to a host`;
	say(panel.querySelector('.says'), words);
	set(line, 'aria-label', words);
	const under = s1 => s1 !== null && s1 <= frame.bounds_s[0] ? 'under ' + time(frame.bounds_s[0]) : time(s1);
	fill(panel.querySelector('tbody'), [['waited', 'wait'], ['target took', 'upstream'], ['whole request', 'total']].map(([name, which]) => (
		{ cells: [name, under(quantile(view, which, 0.5)), under(quantile(view, which, 0.95))] })), 3);
}

function targetNumbers(view, x) {
	const key = x.address + ' ' + (x.id || ''), then = before(view, RECENT_MS).targets[key] || [0, 0, 0];
	const answers = (x.answers_total || 0) - then[1];
	return { rate: growth(view, 1000, p => (p.targets[key] || [0])[0]), answer: answers > 0 ? (x.answers_s - then[2]) / answers : null };
}

function stateOf(x) {
	if (x.state === 'drain') return 'drained';
	if (x.state !== 'out') return x.state;
	return x.probing ? 'out, being probed' : x.next_probe_s === undefined ? 'out' : `out, probe in ${x.next_probe_s.toFixed(1)} s`;
}

// The rotation as a wheel: the hand points at who is next; who is out is a ring, not a disc.
function paintWheel(view, s) {
	const wheel = view.$('.wheel'), count = Math.min(s.targets.length, SPOKES_DRAWN);
	if (view.spokes !== count) {
		wheel.replaceChildren();
		const size = Math.max(7, Math.min(19, 130 / Math.max(count, 4)));
		for (let i = 0; i < count; i++) {
			const turn = 2 * Math.PI * i / count, x = (88 * Math.sin(turn)).toFixed(1), y = (-88 * Math.cos(turn)).toFixed(1);
			const group = draw('g', {}, wheel);
			draw('line', { class: 'spoke', x1: 0, y1: 0, x2: x, y2: y }, group);
			draw('circle', { class: 'halo', cx: x, cy: y, r: size + 6 }, group);
			draw('circle', { cx: x, cy: y, r: size }, group);
			const text = draw('text', { x, y: +y + 5 }, group);
			text.textContent = size > 9 ? i + 1 : '';
		}
		draw('line', { class: 'hand', x1: 0, y1: 0, x2: 0, y2: -52 }, wheel);
		draw('circle', { class: 'hub', r: 9 }, wheel);
		view.spokes = count;
	}
	let next = -1;
	for (let i = 0; i < count; i++) {
		const x = s.targets[i], parts = wheel.children[i].children;
		set(parts[2], 'class', x.state);
		set(parts[3], 'class', x.state);
		set(parts[1], 'class', x.probing ? 'probe' : 'halo');
		set(parts[1], 'visibility', x.next || x.probing ? 'visible' : 'hidden');
		if (x.next) next = i;
	}
	const hand = wheel.querySelector('.hand');
	set(hand, 'visibility', next < 0 || calm.matches ? 'hidden' : 'visible');
	if (next >= 0) {    // always forwards
		const was = view.turn || 0, wanted = next / count;
		view.turn = Math.floor(was) + wanted + (wanted < was % 1 - 1e-9 ? 1 : 0);
		hand.style.transform = `rotate(${(view.turn * 360).toFixed(1)}deg)`;
	}
	return next;
}

function paintTargets(view, s) {
	const panel = view.$('.targets-panel');
	panel.hidden = s.mode === 'forward';
	if (panel.hidden) return;
	const next = paintWheel(view, s), counts = { in: 0, out: 0, drain: 0 };
	for (const x of s.targets) counts[x.state]++;
	let words = s.targets.length ? `${counts.in} in` : 'no server has set itself up';
	if (counts.out) words += `, ${counts.out} out`;
	if (counts.drain) words += `, ${counts.drain} drained`;
	if (s.targets_more) words += `; ${s.targets_more} more are not shown`;
	set(view.$('.wheel'), 'aria-label', words + (next >= 0 ? `; next is ${s.targets[next].address}` : ''));
	say(panel.querySelector('.says'), words);
	fill(panel.querySelector('tbody'), s.targets.map((x, i) => {
		const numbers = targetNumbers(view, x);
		const name = (i < SPOKES_DRAWN ? `${i + 1}\u00a0\u00a0` : '') + x.address + (x.weight > 1 ? ` × ${x.weight}` : '') + (x.id ? ` ${x.id} (policy ${x.policy})` : '');
		return { cells: [name, { badge: stateOf(x), kind: x.state }, rate(numbers.rate), whole(x.active), time(numbers.answer), whole(x.requests_total), whole(x.failures_total)] };
	}), 2);
}

function paintRefusals(view, s) {
	const panel = view.$('.refusals-panel'), names = Object.keys(s.refusals);
	const refused = growth(view, RECENT_MS, x => x.refused);
	say(panel.querySelector('.says'), names.length ? `${rate(refused)} a second refused in the last ten seconds` : 'nobody was refused');
	const table = panel.querySelector('.refusals');
	table.hidden = !names.length;
	fill(table.tBodies[0], names.map(name => (
		{ cells: [name, rate(growth(view, RECENT_MS, x => x.refusals[name] || 0)), whole(s.refusals[name])] })), 1);
	const clients = new Map();
	for (const r of view.refused) {
		const key = r.client + '\n' + r.refused_by;
		clients.set(key, (clients.get(key) || 0) + 1);
	}
	const rows = [...clients].sort((a, b) => b[1] - a[1]).slice(0, 12);
	const shown = panel.querySelector('.clients');
	shown.hidden = !rows.length;
	fill(shown.tBodies[0], rows.map(([key, count]) => ({ cells: [...key.split('\n'), whole(count)] })), 2);
}

function paintHosts(view, s) {
	const panel = view.$('.hosts-panel');
	panel.hidden = s.mode !== 'forward';
	if (panel.hidden) return;
	const rows = fit(view.$('.hosts'), s.hosts.length, () => {
		const row = make('li');
		row.append(make('span', 'name'), make('meter'), make('span', 'n'));
		return row;
	});
	s.hosts.forEach((host, i) => {
		const [name, meter, numbers] = rows[i].children;
		say(name, host.host);
		set(name, 'title', host.host);
		set(meter, 'max', host.limit || Math.max(host.active, 1));
		set(meter, 'high', (host.limit || Infinity) === Infinity ? Math.max(host.active, 1) : host.limit - 0.5);
		set(meter, 'value', host.active);
		set(meter, 'aria-label', `connections to ${host.host}`);
		say(numbers, `${host.active} ${host.limit ? 'of ' + host.limit : '(no cap)'}` + (host.waiting ? `, ${host.waiting} wait` : ''));
	});
	say(panel.querySelector('.says'), s.hosts.length ? many(s.hosts.length, 'host') + (s.hosts_more ? ` and ${s.hosts_more} more` : '') : 'no connection to any host');
}

function paintGroup(view, s) {
	const panel = view.$('.group-panel'), group = s.group;
	panel.hidden = !group;
	if (!group) return;
	const then = before(view, RECENT_MS), now = view.past[view.past.length - 1], s10 = (now.at - then.at) / 1000;
	const paces = group.nodes.map(node => s10 > 0 && node.id in then.nodes ? Math.max(0, node.started_total - then.nodes[node.id]) / s10 : null);
	const all = paces.reduce((sum, pace) => sum + (pace || 0), 0);
	say(panel.querySelector('.says'), `${group.address}: this is node ${group.self}, the master is ${group.master || 'nobody yet'}, epoch ${group.epoch}; ` +
		`together ${rate(all)} starts a second in the last ten seconds`);
	const isMaster = group.self === group.master, known = node => node.id === group.self || node.state !== 'dead';
	fill(panel.querySelector('tbody'), group.nodes.map((node, i) => ({ cells: [node.id, (node.id === group.master ? 'master' : 'member') + (node.id === group.self ? ', this one' : ''),
		{ badge: node.state, kind: node.state }, node.id === group.self ? '–' : time(node.age_ms / 1000) + ' ago', known(node) ? whole(node.waiting) : '–',
		isMaster ? whole(node.granted) : '–', paces[i] === null ? '–' : rate(paces[i]), whole(node.started_total)] })), 3);
}

function paintTrace(view, s) {
	const panel = view.$('.trace-panel');
	panel.hidden = !s.requests;
	if (panel.hidden) return;
	say(panel.querySelector('.says'), view.trace.length ? 'the latest first; of many, only some are shown' : 'none since this page was opened');
	fill(panel.querySelector('tbody'), view.trace.map(r => ({
		kind: r.status >= 500 || r.status === 0 ? 'bad' : r.status >= 400 ? 'warn' : '',
		cells: [clock(r.at_ms), r.status || 'none', `${r.method} ${r.uri}`, r.client, r.target || '–', r.outcome === 'ok' ? '' : r.outcome, r.wait_s >= 0.0005 ? time(r.wait_s) : '–', time(r.total_s)],
	})), 6);
}

function paintService(view, s) {
	const words = [s.mode, s.port ? 'port ' + s.port : '', s.threshold ? `threshold ${whole(s.threshold)} in ${s.window_s} s` : 'no threshold', s.draining ? 'draining' : ''];
	const title = view.$('.title');
	if (!title.firstChild) title.append(document.createTextNode(s.name), make('small'));
	say(title.querySelector('small'), words.filter(Boolean).join(' · '));
	for (const part of [paintTiles, paintRing, paintRate, paintQueue, paintTargets, paintRefusals, paintHosts, paintGroup, paintTrace]) part(view, s);
}

// ---- the whole page ----------------------------------------------------------------------------------------------------

function paintTabs() {
	if (frame.draining && frame.services.length < views.size) return;
	const names = frame.services.length > 1 ? ['all services', ...frame.services.map(s => s.name)] : [];
	const buttons = fit($('tabs'), names.length, i => {
		const button = make('button');
		button.type = 'button';
		button.addEventListener('click', () => {
			chosen = i ? button.textContent : null;
			paint();
		});
		return button;
	});
	names.forEach((name, i) => {
		say(buttons[i], name);
		set(buttons[i], 'aria-pressed', i ? name === chosen : chosen === null);
	});
}

function addEvent(level, at_ms, text) {
	const row = make('li', level);
	row.append(make('time', '', clock(at_ms)), make('span', '', text));
	$('events').prepend(row);
}

function paintEvents() {
	const events = frame.events || [];
	$('events-panel').hidden = !frame.events;
	for (const event of events) {
		if (event.number <= lastEvent) continue;
		lastEvent = event.number;
		addEvent(event.level, event.at_ms, (event.service ? event.service + ': ' : '') + event.text);
	}
	while ($('events').children.length > EVENT_ROWS) $('events').lastElementChild.remove();
}

function paint() {
	if (!frame) return;
	if (chosen !== null && !frame.draining && !frame.services.some(s => s.name === chosen)) chosen = null;
	say($('facts'), `${frame.version}, up ${span(frame.uptime_s)}` + (frame.last_reload_good ? '' : ' · the last reload was refused'));
	paintTabs();
	for (const service of frame.services) {
		const view = views.get(keyOf(service));
		view.root.hidden = chosen !== null && chosen !== service.name;
		if (!view.root.hidden) paintService(view, service);
	}
	paintEvents();
	document.body.dataset.frames = Number(document.body.dataset.frames || 0) + 1;
}

// ---- hearing from weir -------------------------------------------------------------------------------------------------

// A page that hears nothing must say so: numbers that stand still look like numbers.
const SILENT_MS = 3000, STUCK_MS = 6000;
let heard = performance.now(), lostAt = null, source = null, timer = 0, turn = 0;

function tell() {
	const kind = lostAt ? 'lost' : !frame ? '' : frame.draining ? 'draining' : paused ? 'paused' : 'live';
	set($('state'), 'class', kind);
	say($('state-text'), lostAt ? `no connection since ${clock(lostAt)}; trying again` : kind || 'connecting');
	document.body.classList.toggle('stale', lostAt !== null);
}

function lose() {
	if (lostAt === null) lostAt = Date.now();
	tell();
}

function hear(text) {
	take(text);
	heard = performance.now();
	lostAt = null;
	tell();
}

// One connection of those that a browser has for a site (six) is ours while somebody looks, and none while the page is hidden.
function connect() {
	if (source) source.close();
	source = null;
	clearTimeout(timer);
	heard = performance.now();
	if (streams && !document.hidden) listen();
	else ask(++turn);
}

function listen() {
	turn++;
	source = new EventSource(base + '/api/live');
	source.onmessage = event => hear(event.data);
	source.onerror = () => {
		if (source.readyState === EventSource.CLOSED) ask(++turn);    // refused: too many look. A frame now and then is better than none
		else lose();
	};
}

async function ask(mine) {
	try {
		const answer = await fetch(base + '/api/view', { cache: 'no-store', signal: AbortSignal.timeout(STUCK_MS) });
		if (!answer.ok) throw new Error(answer.status);
		const text = await answer.text();
		if (mine !== turn) return;
		hear(text);
	} catch {
		if (mine !== turn) return;
		lose();
	}
	timer = setTimeout(connect, streams && !document.hidden ? 2000 : 1000);
}

setInterval(() => {
	const silent = performance.now() - heard;
	if (silent > SILENT_MS && !document.hidden) lose();
	if (silent > STUCK_MS && source) connect();    // one that has died without a word is believed to be there for a long time
}, 500);

$('pause').addEventListener('click', () => {
	paused = !paused;
	set($('pause'), 'aria-pressed', paused);
	tell();
	if (!paused) paint();
});

document.addEventListener('visibilitychange', connect);
connect();
