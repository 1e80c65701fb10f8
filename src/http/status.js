// The status page. Everything from data becomes text nodes, never markup.
'use strict';

const EVERY_MS = 1000;
const LANES = 64;
const COLOURS = 6;
const SINKS = { kafka: 'Kafka', rabbitmq: 'RabbitMQ', stdout: 'standard output' };
const SVG = 'http://www.w3.org/2000/svg';
const $ = (id) => document.getElementById(id);

let last = null;    // the latest answer
let heardAt = 0;    // when it came
let lost = false;   // whether the relay stopped answering
const drawn = {};   // what each part was drawn from, so that what has not changed can be selected

// --- words ---

const count = (number) => Math.round(number).toLocaleString('en');
const many = (number, one, more = one + 's') => `${count(number)} ${number === 1 ? one : more}`;

function seconds(value) {
  if (value < 10) return `${Math.max(0, value).toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor(value % 3600 / 60)} min`;
  return `${Math.floor(value / 86400)} days`;
}

/** What a browser can render of a key or reason, control characters made visible. */
const visible = (text) => String(text ?? '').replace(/[\u0000-\u001f\u007f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');

function verdict(s) {
  const sink = SINKS[s.sink.name] ?? s.sink.name;
  const waits = 'Events stay in the table: none is lost.';
  if (lost) return ['bad', 'This relay does not answer', `For ${seconds((Date.now() - heardAt) / 1000)}. Below is how it stood then.`];
  if (!s.database.up) {
    return s.database.trouble
      ? ['bad', 'The database cannot be used', `${s.database.trouble}. ${waits} Nothing is published until it is back.`]
      : ['warn', 'Connecting to the database', ''];
  }
  if (s.sink.trouble === 'not asked yet') return ['warn', `Connecting to ${sink}`, ''];
  if (s.sink.trouble) return ['bad', `${sink} cannot be used`, `${s.sink.trouble}. ${waits} Nobody is charged an attempt.`];
  if (s.owing) return ['bad', 'Published events cannot be marked', 'The database refuses to mark what was sent: nothing more is published until it does. The log says why.'];
  if (s.sink.blocked) return ['warn', `${sink} asks publishers to wait`, 'It is short of memory or disk.'];
  if (s.paused.length) return ['warn', `${many(s.paused.length, 'destination')} paused`, `${s.paused.map(([name]) => name).join(', ')}: events wait and go on by themselves, nobody is charged an attempt.`];
  if (s.careful) return ['warn', 'Careful: one event at a time', 'This relay died several times within minutes.'];
  if (s.lag_seconds > 60) return ['warn', 'Falling behind', `The oldest event has been waiting for ${seconds(s.lag_seconds)}.`];
  if (s.dead_letters) return ['warn', `${many(s.dead_letters, 'dead letter')} to look at`, 'outboxd dead list shows all, dead retry sends one again, dead discard lets it go.'];
  if (s.held_keys) return ['warn', `${many(s.held_keys, 'key')} held back`, 'Their events wait behind one that failed and is tried again.'];
  if (s.pending_events) return ['ok', 'Publishing', `${many(s.pending_events, 'event')} on the way, the oldest for ${seconds(s.lag_seconds)}.`];
  return ['ok', 'All is published', 'Nothing waits.'];
}

// --- drawing ---

function el(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Draws a part anew if what it is drawn from has changed. */
function draw(id, from, children) {
  const text = JSON.stringify(from);
  if (drawn[id] === text) return;
  drawn[id] = text;
  $(id).replaceChildren(...children());
}

function chart(id, points, column, now, least, unit) {
  const figure = $(id), values = points.map((point) => point[column]);
  const span = points.length > 60 ? 300 : 60, top = Math.max(least, ...values);
  const at = (point) => [span - Math.min(point[0], span), 60 - 58 * point[column] / top];
  const line = points.filter((point) => point[0] <= span).map((point) => at(point).map((n) => n.toFixed(1)).join(' '));
  const picture = svg('svg', { viewBox: `0 0 ${span} 60`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `now ${now}, at most ${unit(Math.max(0, ...values))} in the last minutes` });
  picture.append(svg('line', { class: 'base', x1: 0, x2: span, y1: 60, y2: 60 }));
  if (line.length > 1) {
    const [first, end] = [line[0].split(' ')[0], line.at(-1).split(' ')[0]];
    picture.append(svg('path', { class: 'area', d: `M${first} 60L${line.join('L')}L${end} 60Z` }), svg('path', { class: 'line', d: `M${line.join('L')}` }));
  }
  figure.querySelector('b').textContent = now;
  figure.querySelectorAll('svg, .axis').forEach((old) => old.remove());
  const most = values.length ? `at most ${unit(Math.max(...values))}` : '';
  figure.append(picture, el('div', { class: 'axis' }, el('span', {}, `${span / 60} min ago`), el('span', {}, most), el('span', {}, 'now')));
}

function stop(state, name, text) {
  return el('div', { class: `stop ${state}` }, el('b', {}, name), el('span', { class: 'state' }, text));
}

function drawRoute(s) {
  const database = s.database.up ? ['ok', 'reachable'] : s.database.trouble ? ['bad', 'cannot be used'] : ['warn', 'connecting'];
  const sink = s.sink.trouble === 'not asked yet' ? ['warn', 'connecting'] : s.sink.trouble ? ['bad', 'cannot be used'] : s.sink.blocked ? ['warn', 'asks to wait'] : ['ok', 'reachable'];
  const relay = lost ? ['bad', 'does not answer'] : s.careful ? ['warn', 'one event at a time'] : ['ok', `${many(s.in_flight_events, 'event')} in flight`];
  draw('route', [database, relay, sink, s.table], () => [
    stop(database[0], `PostgreSQL · ${s.table}`, database[1]), el('div', { class: database[0] === 'bad' ? 'arrow cut' : 'arrow', 'aria-hidden': 'true' }, '→'),
    stop(relay[0], 'this relay', relay[1]), el('div', { class: sink[0] === 'bad' ? 'arrow cut' : 'arrow', 'aria-hidden': 'true' }, '→'),
    stop(sink[0], SINKS[s.sink.name] ?? s.sink.name, sink[1]),
  ]);
}

function drawCounts(s) {
  const ago = s.published_seconds === null ? 'not yet' : s.published_seconds < 2 ? 'now' : `${seconds(s.published_seconds)} ago`;
  const counts = [
    ['held keys', count(s.held_keys), s.held_keys && 'warn'], ['retrying', count(s.retrying_events), s.retrying_events && 'warn'],
    ['dead letters', count(s.dead_letters), s.dead_letters && 'bad'], ['published since its start', count(s.published_total)], ['last published', ago],
  ];
  draw('counts', counts, () => counts.map(([name, value, state]) => el('div', { class: state || '' }, el('b', {}, value), name)));
}

const relayName = (application) => visible(application.replace(/^outboxd\//, '') || 'a session');

function drawLanes(s) {
  const held = new Map((s.scene?.lanes ?? []).map(([lane, name]) => [lane, relayName(name)]));
  const relays = s.scene?.relays ?? [], waiting = new Set(s.lanes_waiting);
  const names = [...new Set([...relays.filter((relay) => relay.live).map((relay) => visible(relay.instance)), ...held.values()])].sort();
  const colour = (name) => (names.includes(name) ? `relay${names.indexOf(name) % COLOURS}` : '');
  const said = s.ordering === 'none' ? 'Not used with --ordering none.' : `${waiting.size} of ${LANES} with events that wait, ${held.size} being worked on at this moment.`;
  $('lanes-said').textContent = said;
  $('lanes').setAttribute('aria-label', said);
  draw('lanes', [[...held], [...waiting], names], () => Array.from({ length: LANES }, (_, lane) => {
    const holder = held.get(lane);
    const state = holder ? `held ${colour(holder)}` : waiting.has(lane) ? 'waiting' : '';
    return el('span', { class: state, title: `lane ${lane}: ${holder ? `worked on by ${holder}` : waiting.has(lane) ? 'waits' : 'empty'}` });
  }));
  const lanesOf = (name) => [...held.values()].filter((holder) => holder === name).length;
  draw('relays', [relays, [...held], s.scene_trouble], () => relays.length ? relays.map((relay) => {
    const name = visible(relay.instance), state = relay.live ? '' : relay.clean ? 'gone' : 'gone lost';
    const says = relay.live ? many(lanesOf(name), 'lane') : `${relay.clean ? 'stopped' : 'gone without a stop'}, seen ${seconds(relay.seen_seconds)} ago`;
    return el('li', { class: `${state} ${colour(name)}` }, el('b', {}, name), el('span', {}, `${visible(relay.version)}${relay.instance === s.instance ? ', this one' : ''}`), el('span', { class: 'right' }, says));
  }) : [el('li', {}, el('span', {}, s.scene_trouble ? visible(s.scene_trouble) : 'not looked yet'))]);
}

function event(failure, age) {
  const next = failure.retry_seconds === null ? '' : failure.retry_seconds - age > 0 ? `next try in ${seconds(failure.retry_seconds - age)} · ` : 'next try now · ';
  const key = failure.key === null ? [] : [' ', el('small', {}, 'key '), el('code', {}, visible(failure.key))];
  return el('li', {},
    el('span', { class: `badge ${failure.state === 'dead' ? 'dead' : ''}` }, failure.state === 'dead' ? 'dead' : 'retrying'),
    el('span', { class: 'what' }, el('b', {}, visible(failure.destination)), ...key),
    el('span', { class: 'when' }, `${next}${many(failure.attempts, 'attempt')} · ${seconds(failure.failed_seconds + age)} ago`),
    el('span', { class: 'why' }, visible(failure.reason), el('small', {}, `event ${visible(failure.event_id)}`)));
}

function drawEvents(s) {
  $('paused-card').hidden = !s.paused.length;
  draw('paused', s.paused, () => s.paused.map(([name, why]) => el('li', {}, el('span', { class: 'badge' }, 'paused'), el('span', { class: 'what' }, el('b', {}, visible(name))), el('span', { class: 'why' }, visible(why)))));
  const age = s.scene_seconds ?? 0;
  const list = (id, failures, none) => draw(id, [failures, s.scene_trouble], () => failures?.length
    ? failures.map((failure) => event(failure, age))
    : [el('li', { class: 'none' }, failures ? none : s.scene_trouble ? visible(s.scene_trouble) : 'not looked yet')]);
  list('held', s.scene?.held, 'None: no key waits behind a failed event.');
  list('failures', s.scene?.failures, 'None.');
}

function show() {
  const s = last;
  document.body.className = lost ? 'gone' : '';
  const [state, headline, text] = s ? verdict(s) : lost ? ['bad', 'This relay does not answer', ''] : ['', 'Asking the relay …', ''];
  const part = $('verdict');
  part.className = state;
  if (part.firstChild.textContent !== headline) part.firstChild.textContent = headline;
  part.lastChild.textContent = visible(text);
  $('fresh').textContent = lost ? 'no answer' : 'live';
  if (!s) return;
  document.title = `${headline} · ${visible(s.instance)}`;
  $('instance').textContent = visible(s.instance);
  drawRoute(s);
  const rates = s.history.slice(-5).map((point) => point[3]);
  const rate = rates.length ? rates.reduce((sum, one) => sum + one, 0) / rates.length : 0;
  const points = [...s.history, [0, s.lag_seconds, s.pending_events]];
  chart('lag', points, 1, seconds(s.lag_seconds), 1, seconds);
  chart('backlog', points, 2, count(s.pending_events), 10, count);
  chart('rate', s.history, 3, `${count(rate)}/s`, 10, (value) => `${count(value)}/s`);
  drawCounts(s);
  drawLanes(s);
  drawEvents(s);
  const age = s.scene_seconds === null ? '' : s.scene_seconds > 5 ? ` Lanes, relays and failures are ${seconds(s.scene_seconds)} old.` : '';
  $('about').textContent = `outboxd ${s.version}. Read-only: outboxd status and dead list show the same on a terminal.${age}`;
}

async function ask() {
  if (!document.hidden) {
    try {
      const answer = await fetch('status.json', { signal: AbortSignal.timeout(4000) });
      if (!answer.ok) throw new Error(answer.status);
      last = await answer.json();
      heardAt = Date.now();
      lost = false;
    } catch {
      lost = true;
    }
    show();
  }
  setTimeout(ask, EVERY_MS);
}

document.addEventListener('visibilitychange', show);
ask();
