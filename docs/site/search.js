// The search: every word of the query must begin a word of a section; a section whose heading has it comes first.
(() => {
	'use strict';
	const up = document.currentScript.dataset.up;
	const field = document.querySelector('input[type=search]');
	const list = document.getElementById('found');
	const MOST = 20;

	// A page that was opened from a folder may not read files, but may ask for scripts.
	let index;
	const load = () => index ??= new Promise((resolve, reject) => {
		const script = document.createElement('script');
		script.src = up + 'index.js';
		script.onload = () => resolve(window.INDEX);
		script.onerror = reject;
		document.head.append(script);
	});

	const escaped = word => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
	const beginnings = query => query.toLowerCase().split(/\s+/).filter(Boolean)
		.map(word => new RegExp((/^\w/.test(word) ? '\\b' : '') + escaped(word), 'i'));

	const rank = (words, [, , title, heading, text]) => {
		let points = 0;
		for (const word of words) {
			const here = word.test(heading) ? 8 : word.test(title) ? 4 : word.test(text) ? 1 : 0;
			if (!here)
				return 0;
			points += here;
		}
		return points;
	};

	const around = (words, text) => {
		const at = Math.max(0, text.search(words[0]));
		const from = Math.max(0, text.lastIndexOf(' ', Math.max(0, at - 50)) + 1);
		return (from ? '… ' : '') + text.slice(from, at + 110) + (at + 110 < text.length ? ' …' : '');
	};

	const row = (words, [page, anchor, title, heading, text]) => {
		const link = document.createElement('a');
		link.href = up + page + (anchor ? '#' + anchor : '');
		const where = document.createElement('b');
		where.textContent = heading && heading !== title ? title + ': ' + heading : title;
		const what = document.createElement('span');
		what.textContent = around(words, text);
		link.append(where, what);
		const item = document.createElement('li');
		item.append(link);
		return item;
	};

	const show = async () => {
		const words = beginnings(field.value);
		const rows = words.length ? await load() : [];
		const found = rows.map(entry => [rank(words, entry), entry]).filter(([points]) => points).sort((a, b) => b[0] - a[0]);
		list.replaceChildren(...found.slice(0, MOST).map(([, entry]) => row(words, entry)));
		if (words.length && !found.length)
			list.append(Object.assign(document.createElement('li'), {textContent: 'Nothing found.'}));
		list.hidden = !words.length;
	};

	field.addEventListener('focus', () => load());
	field.addEventListener('input', show);
	field.form.addEventListener('submit', event => {
		event.preventDefault();
		list.querySelector('a')?.click();
	});
	list.addEventListener('click', () => { list.hidden = true; });
	document.addEventListener('keydown', event => {
		if (event.key === 'Escape')
			list.hidden = true;
		if (event.key === '/' && document.activeElement !== field) {
			event.preventDefault();
			field.focus();
		}
	});
})();
