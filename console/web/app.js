// The page's state and where it comes from: a stream, or the same JSON asked for again and again where streams do not get through.
import { $, el, bare, panels, Row, eventLine, configTable, metricsTable, scale, counts, showStatus } from './view.js';

const objects = new Map(), rows = new Map(), sections = new Map();
let times = [], history = 120, interval = 500, lastEvent = 0, paused = false, keep = 200;
let source = null, poll = 0, watchdog = 0, heard = 0, tries = 0, fresh = false;

// ---- connection

function say(state, text) {
  const link = $('link');
  if (link.dataset.state !== state || link.textContent !== text) { link.dataset.state = state; link.textContent = text; }
}

function connect() {
  disconnect();
  if (paused || document.hidden) return;
  fresh = true;
  source = new EventSource('api/stream');
  source.addEventListener('snapshot', (e) => { fresh = false; hear('live'); snapshot(JSON.parse(e.data)); });
  source.addEventListener('delta', (e) => { if (!fresh) { hear('live'); delta(JSON.parse(e.data)); } });
  source.onerror = () => { if (source && source.readyState === EventSource.CLOSED) fallBack(); };
  heard = Date.now();
  watchdog = setInterval(() => { if (Date.now() - heard > 3000 + 3 * interval) fallBack(); }, 500);
}

function disconnect() {
  if (source) source.close();
  source = null;
  clearInterval(watchdog);
  clearTimeout(poll);
  poll = 0;
}

function hear(state) {
  heard = Date.now();
  say(state, state === 'live' ? 'live' : 'live, by asking');
}

// fallBack asks instead of listening: a proxy holds the stream back, or there are too many viewers. Now and then the stream is tried again.
function fallBack() {
  disconnect();
  tries = 0;
  ask();
}

async function ask() {
  clearTimeout(poll);
  if (paused || document.hidden) return;
  const round = poll = -1;
  try {
    const answer = await fetch('api', { cache: 'no-store', signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const all = await answer.json();
    if (poll !== round || paused) return;
    snapshot(all);
    say('live', 'live, by asking');
  } catch {
    if (poll !== round || paused) return;
    say('away', 'no answer, trying again');
  }
  if (++tries > 60) connect(); else poll = setTimeout(ask, Math.max(1000, interval));
}

// ---- state

function snapshot(s) {
  history = s.history; interval = s.interval_ms; times = s.times;
  scale(interval, history);
  document.title = s.title + ' · console';
  $('title').textContent = s.title;
  const there = new Set(s.objects.map((o) => o.id));
  for (const id of [...objects.keys()]) if (!there.has(id)) remove(id);
  s.objects.forEach(put);
  if (s.events.length && s.events.at(-1).seq < lastEvent) { lastEvent = 0; $('events').replaceChildren(); } // the service began anew
  tell(s.events);
  arrange();
  render(true);
}

function delta(d) {
  const gone = times.length ? (d.t - times.at(-1)) / 1000 : 0;
  times.push(d.t);
  if (times.length > history) times.shift();
  for (const [id, o] of objects) {
    const change = d.set && d.set[id];
    const was = o.metrics[o.chart];
    if (change) {
      if (change.metrics) Object.assign(o.metrics, change.metrics);
      if (change.rates) Object.assign(o.rates, change.rates);
      if (change.status) { o.status = change.status; o.why = change.why; }
    }
    if (!o.line) continue;
    const now = o.metrics[o.chart];
    o.line.push(counts(o.chart) ? (gone > 0 ? Math.max(0, now - was) / gone : 0) : now);
    while (o.line.length > times.length) o.line.shift();
  }
  let arranged = true;
  (d.gone || []).forEach((id) => { remove(id); arranged = false; });
  (d.add || []).forEach((o) => { put(o); arranged = false; });
  tell(d.events || []);
  if (!arranged) arrange();
  render(false, d.set || {});
}

function put(o) {
  o.metrics = bare(o.metrics);
  o.rates = bare(o.rates);
  if (!objects.has(o.id)) rows.set(o.id, new Row(o, open));
  objects.set(o.id, o);
}

function remove(id) {
  objects.delete(id);
  const row = rows.get(id);
  if (row) row.node.remove();
  rows.delete(id);
}

function tell(events) {
  const list = $('events');
  for (const e of events) {
    if (e.seq <= lastEvent) continue;
    lastEvent = e.seq;
    list.prepend(eventLine(e));
  }
  while (list.children.length > keep) list.lastChild.remove();
  $('no-events').hidden = list.children.length > 0;
}

// ---- page

const byName = new Intl.Collator('en', { numeric: true });

// arrange makes the panels that are needed and puts the rows in order.
function arrange() {
  for (const [key, title] of panels) {
    const list = [...objects.values()].filter((o) => o.panel === key)
      .sort((a, b) => byName.compare(a.kind, b.kind) || byName.compare(a.name, b.name) || a.id - b.id);
    let section = sections.get(key);
    if (!list.length) {
      if (section) { section.node.remove(); section.chip.remove(); sections.delete(key); }
      continue;
    }
    if (!section) {
      section = { list: el('ul'), tally: el('small') };
      section.node = el('section', { class: 'panel', id: 'panel-' + key, 'aria-labelledby': 'title-' + key },
        el('h2', { id: 'title-' + key }, title, section.tally), section.list);
      section.link = el('a', { href: '#panel-' + key });
      section.chip = el('li', {}, section.link);
      section.title = title;
      sections.set(key, section);
    }
    list.forEach((o, i) => {
      const node = rows.get(o.id).node;
      if (section.list.children[i] !== node) section.list.insertBefore(node, section.list.children[i] || null);
    });
  }
  const ordered = panels.map(([key]) => sections.get(key)).filter(Boolean);
  ordered.forEach((s, i) => {
    if ($('panels').children[i] !== s.node) $('panels').insertBefore(s.node, $('panels').children[i] || null);
    if ($('chips').children[i] !== s.chip) $('chips').insertBefore(s.chip, $('chips').children[i] || null);
  });
  filter();
}

const moved = (line) => line && line.some((v) => v !== line[0]);

let rendered = 0;

function render(all, set = {}) {
  all = all || ++rendered % (objects.size > 100 ? 20 : 2) === 0; // flat timelines move on too
  for (const [id, o] of objects) {
    const lively = moved(o.line);
    if (all || set[id] || lively || o.lively || !rows.get(id).spark) rows.get(id).update(o, times, all || lively || o.lively !== lively);
    o.lively = lively;
  }
  health();
}

function text(node, value) { if (node.textContent !== value) node.textContent = value; }

function health() {
  const ailing = [...objects.values()].filter((o) => o.status !== 'ok');
  const n = objects.size;
  $('summary').dataset.level = !n ? 'waiting' : ailing.length ? 'degraded' : 'ok';
  text($('summary'), !n ? 'Nothing is registered with this console yet.' :
    ailing.length ? `${ailing.length} of ${n} ${n === 1 ? 'object' : 'objects'} ${ailing.length === 1 ? 'needs' : 'need'} a look` : n === 1 ? 'The one object is well' : `All ${n} objects are well`);
  const few = ailing.slice(0, 12), key = few.map((o) => o.id + o.why).join();
  if ($('ailing').dataset.key !== key) {
    $('ailing').dataset.key = key;
    const held = document.activeElement && document.activeElement.dataset.ailing;
    $('ailing').replaceChildren(...few.map((o) => {
      const button = el('button', { type: 'button', 'data-ailing': o.id, dir: 'auto' }, `${o.kind} ${o.name}: ${o.why}`);
      button.addEventListener('click', () => open(o.id, button));
      return el('li', {}, button);
    }));
    if (held) $('ailing').querySelector(`[data-ailing="${Number(held)}"]`)?.focus();
  }
  for (const [key, section] of sections) {
    const mine = [...objects.values()].filter((o) => o.panel === key);
    const bad = mine.filter((o) => o.status !== 'ok').length;
    const tally = mine.length + (bad ? ` · ${bad} ▲` : '');
    text(section.tally, tally);
    text(section.link, `${section.title} ${tally}`);
    section.link.dataset.level = bad ? 'degraded' : 'ok';
  }
}

function filter() {
  const wanted = $('filter').value.trim().toLowerCase();
  for (const [id, row] of rows) {
    const o = objects.get(id);
    row.node.hidden = wanted !== '' && !(o.name + ' ' + o.kind).toLowerCase().includes(wanted);
  }
  for (const section of sections.values()) section.node.hidden = [...section.list.children].every((node) => node.hidden);
  $('no-match').hidden = wanted === '' || [...sections.values()].some((section) => !section.node.hidden);
}

// ---- one object

let shownID = 0, opener = null, detailTimer = 0;

function open(id, from) {
  shownID = id;
  opener = from;
  $('detail-actions').replaceChildren();
  $('detail-metrics').replaceChildren();
  $('detail-config').replaceChildren();
  const o = objects.get(id);
  $('detail-kind').textContent = o.kind;
  $('detail-name').textContent = o.name || '(no name)';
  $('detail-status').textContent = '';
  $('detail').showModal();
  $('detail-close').focus();
  refresh(true);
}

async function refresh(first) {
  clearTimeout(detailTimer);
  const id = shownID;
  try {
    const answer = await fetch('api/objects/' + id, { cache: 'no-store' });
    const o = await answer.json();
    if (id !== shownID || !$('detail').open) return;
    if (!answer.ok) throw new Error(o.error);
    o.rates = bare(o.rates);
    o.series = bare(o.series);
    o.metrics = bare(o.metrics);
    showStatus($('detail-status'), o);
    const at = $('detail-metrics').scrollTop;
    $('detail-metrics').replaceChildren(metricsTable(o));
    $('detail-metrics').scrollTop = at;
    if (first || $('detail-config').dataset.text !== JSON.stringify(o.config)) {
      $('detail-config').dataset.text = JSON.stringify(o.config);
      $('detail-config').replaceChildren(configTable(o.config));
    }
    if (first) $('detail-actions').replaceChildren(...o.actions.map((a) => actionButton(o, a)));
  } catch (err) {
    $('detail-status').dataset.level = 'failed';
    $('detail-status').textContent = err.message || 'no answer';
  }
  if ($('detail').open && !paused) detailTimer = setTimeout(refresh, 1000);
}

function actionButton(o, a) {
  const button = el('button', { type: 'button', 'data-action': a.name }, a.label);
  button.addEventListener('click', () => {
    const input = a.input ? el('input', { 'aria-label': a.input, placeholder: a.input, required: true, maxlength: 1000 }) : null;
    const no = el('button', { type: 'button' }, 'Cancel');
    const form = el('form', {}, el('span', {}, `${a.label}: ${o.kind} ${o.name}?`), ...(input ? [input] : []), el('button', { class: 'do' }, 'Yes, do it'), no);
    const end = (said) => { form.replaceWith(...(said ? [el('p', { class: 'said', role: 'status' }, said)] : [])); button.focus(); };
    no.addEventListener('click', () => end(''));
    form.addEventListener('submit', async (e) => { e.preventDefault(); end(await act(o.id, a, input ? input.value : '')); refresh(false); });
    $('detail-actions').querySelectorAll('form, .said').forEach((old) => old.remove());
    $('detail-actions').append(form);
    (input || no).focus();
  });
  return button;
}

async function act(id, a, input) {
  try {
    const answer = await fetch(`api/objects/${id}/actions/${a.name}`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Backstay-Action': '1' }, body: JSON.stringify({ input }),
    });
    const said = await answer.json();
    return answer.ok ? `Done: ${a.label}.` : `Not done: ${said.error}`;
  } catch {
    return 'No answer: it may have been done or not.';
  }
}

// ---- controls

function pause() {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', paused);
  $('pause').textContent = paused ? 'Resume' : 'Pause';
  if (paused) { disconnect(); clearTimeout(detailTimer); say('paused', 'paused'); return; }
  say('waiting', 'connecting');
  connect();
  if ($('detail').open) refresh(false);
}

$('pause').addEventListener('click', pause);
$('filter').addEventListener('input', filter);
$('detail-close').addEventListener('click', () => $('detail').close());
$('detail').addEventListener('click', (e) => { if (e.target === $('detail')) $('detail').close(); });
$('detail').addEventListener('close', () => { if ($('detail').open) return; clearTimeout(detailTimer); shownID = 0; if (opener && opener.isConnected) opener.focus(); });
document.addEventListener('visibilitychange', () => { if (document.hidden) disconnect(); else if (!paused) connect(); });
document.addEventListener('keydown', (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || $('detail').open || e.target.closest('input')) return;
  if (e.key === 'p') pause();
  if (e.key === '/') { e.preventDefault(); $('filter').focus(); }
});
connect();
