// What the page looks like. Text from the service goes in as text nodes only; nothing here parses markup.

const svgSpace = 'http://www.w3.org/2000/svg';

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children);
  return node;
}

// bare is the object without what all objects have: a metric may be called constructor.
export const bare = (o) => Object.assign(Object.create(null), o);

export const $ = (id) => document.getElementById(id);

const decimals = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

export function count(v) {
  if (v === null || v === undefined) return '–';
  if (Number.isInteger(v)) return whole.format(v);
  return Math.abs(v) >= 1000 ? whole.format(v) : decimals.format(v);
}

const perSecond = (v) => count(v || 0) + '/s';
const percent = (v) => (v === null || v === undefined ? '–' : decimals.format(v * 100) + ' %');

function duration(s) {
  if (s === null || s === undefined) return '–';
  if (s === 0) return '0 s';
  if (s < 0.001) return decimals.format(s * 1e6) + ' µs';
  if (s < 1) return decimals.format(s * 1000) + ' ms';
  if (s < 60) return decimals.format(s) + ' s';
  const two = (n, unit, rest, small) => n + ' ' + unit + (rest ? ` ${rest} ${small}` : '');
  if (s < 3600) return two(Math.floor(s / 60), 'min', Math.floor(s % 60), 's');
  return two(Math.floor(s / 3600), 'h', Math.floor((s % 3600) / 60), 'min');
}

// A metric's name without its labels, which stand behind it in braces.
const base = (name) => name.split('{', 1)[0];

// counts says whether a metric only grows.
export const counts = (name) => base(name).endsWith('_total');

// A metric as people read it: what its name ends in says what it is.
export function shown(name, value) {
  if (base(name).includes('seconds')) return duration(value);
  if (base(name).endsWith('ratio')) return percent(value);
  return count(value);
}

export const words = (name) => base(name).replace(/_total$/, '').replace(/_seconds$/, '').replaceAll('_', ' ');

// labelsOf are the labels of a metric by name, in their order.
function labelsOf(name) {
  const labels = new Map();
  for (const [, key, text] of name.slice(base(name).length).matchAll(/([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"/g)) labels.set(key, text.replace(/\\(["\\])/g, '$1'));
  return labels;
}

export const panels = [
  ['breakers', 'Breakers'], ['retries', 'Retries, timeouts, fallbacks'], ['limits', 'Bulkheads and rate limits'], ['caches', 'Caches'],
  ['subscriptions', 'Publish and subscribe'], ['outboxes', 'Outboxes'], ['sagas', 'Sagas'], ['others', 'Others'],
];

// The facts of a row: a label, a text, and whether it deserves a second look.
const m = (name, label) => (o) => o.metrics[name] === undefined ? null : [label || words(name), shown(name, o.metrics[name])];
const r = (name, label) => (o) => o.metrics[name] === undefined ? null : [label || words(name), perSecond(o.rates[name])];
const bad = (fact) => (o) => { const f = fact(o); return f && [f[0], f[1], f[1] !== '0' && f[1] !== '0/s']; };
const sum = (label, ...names) => (o) => [label, perSecond(names.reduce((all, name) => all + (o.rates[name] || 0), 0))];

const facts = bare({
  'breaker': [
    sum('calls', 'successes_total', 'failures_total', 'rejected_total'),
    (o) => ['failing', o.metrics.window_calls > 0 ? percent(o.metrics.window_failures / o.metrics.window_calls) : '–'],
    bad(r('rejected_total', 'rejected')), m('opened_total', 'opened'), bad(m('overdue'))],
  'breaker.Set': [m('keys'), bad(m('open')), sum('calls', 'successes_total', 'failures_total', 'rejected_total'), bad(r('rejected_total', 'rejected')), m('opened_total', 'opened')],
  'retry': [r('calls_total', 'calls'), r('retries_total', 'retries'), m('recovered_total'), bad(m('gave_up_total'))],
  'retry budget': [m('balance', 'retries left'), r('spent_total', 'spent'), bad(m('refused_total'))],
  'hedge': [r('calls_total', 'calls'), r('hedged_total', 'hedged'), m('second_won_total'), m('denied_total'), m('delay_seconds')],
  'timeout': [r('calls_total', 'calls'), r('timed_out_total', 'timed out'), m('timed_out_total', 'timed out, all'), bad(m('abandoned'))],
  'fallback': [r('used_total', 'used'), m('used_total', 'used, all'), bad(m('failed_total'))],
  'bulkhead': [
    (o) => ['in flight', count(o.metrics.running) + (o.metrics.limit > 0 ? ' of ' + count(o.metrics.limit) : '')],
    m('waiting', 'queue'), m('keys'), bad(r('rejected_total', 'rejected')), m('rejected_total', 'rejected, all')],
  'ratelimit': [m('available'), m('keys'), m('waiting', 'queue'), bad(r('rejected_total', 'rejected')), m('rejected_total', 'rejected, all')],
  'cache': [m('hit_ratio', 'hits'), sum('lookups', 'hits_total', 'misses_total'), m('stale_served_total', 'stale served'), m('refreshes_total'), m('entries'), bad(m('pending_deletes')),
    m('pending', 'unwritten'), m('oldest_pending_seconds', 'oldest unwritten')],
  'pubsub.consumer': [r('handled_total', 'handled'), m('in_flight'), m('waiting'), m('held', 'leased'), bad(r('failed_total', 'failed')), bad(m('dead_lettered_total', 'dead letters')), m('lag')],
  'pubsub': [r('published_total', 'published'), m('pending'), (o) => m('lag')(o) || m('unread', 'lag')(o), bad(m('publish_failed_total', 'failed')), m('redelivered_total')],
  'requestreply': [r('calls_total', 'calls'), r('executed_total', 'executed'), m('outstanding'), bad(m('in_doubt_total')), bad(m('failed_total'))],
  'outbox': [r('stored_total', 'stored'), m('stored_total', 'stored, all')],
  'relay': [m('pending'), m('oldest_age_seconds', 'oldest'), r('published_total', 'published'), bad(m('parked')), bad(r('failed_total', 'failed')), m('buckets')],
  'inbox': [r('handled_total', 'handled'), m('duplicates_total')],
  'saga': [m('running'), m('waiting'), bad((o) => m('stuck_instances', 'stuck')(o) || m('stuck_total', 'stuck')(o)), m('active', 'under way here'), r('attempts_total', 'steps'),
    bad(r('failures_total', 'failures')), m('completed_total'), m('compensated_total')],
});

function factsOf(o) {
  const known = facts[o.kind] || facts[o.kind.split('.')[0]];
  if (known && o.panel !== 'others') {
    const found = known.map((fact) => fact(o)).filter(Boolean);
    if (found.length) return withLag(o, found);
  }
  const plain = Object.keys(o.metrics).filter((name) => !name.includes('{') && name !== 'lag');
  return withLag(o, plain.slice(0, 5).map((name) => (counts(name) ? r : m)(name)(o)));
}

// withLag adds how far an object is behind, where it knows.
const withLag = (o, found) => (o.metrics.lag === undefined || found.some(([label]) => label === 'lag') ? found : [...found, m('lag')(o)]);

// stepsOf is what the steps of sagas are doing: a text for each, and whether it deserves a second look. An undo is shown once there was one.
function stepsOf(o) {
  if (o.panel !== 'sagas') return [];
  return Object.keys(o.metrics).filter((name) => base(name) === 'step_attempts_total').map((name) => {
    const labels = labelsOf(name), undo = labels.get('direction') === 'undo';
    if (undo && !o.metrics[name]) return null;
    const failing = o.rates[name.replace('attempts', 'failures')] || 0;
    return [(undo ? 'undo ' : '') + labels.get('step') + ' ' + perSecond(o.rates[name]) + (failing ? ', failing ' + perSecond(failing) : ''), failing > 0];
  }).filter(Boolean);
}

const states = ['closed', 'open', 'half-open'];

function statusOf(o) {
  if (o.kind === 'breaker' && o.status === 'ok') return states[o.metrics.state] || 'closed';
  return o.status === 'ok' ? 'ok' : o.why || o.status;
}

// showStatus touches the node only where something is different.
export function showStatus(node, o) {
  const status = statusOf(o), alarm = o.kind === 'breaker' && o.metrics.state === 1;
  if (node.textContent !== status) node.textContent = node.title = status;
  node.dataset.level = o.status;
  if (alarm) node.dataset.alarm = ''; else delete node.dataset.alarm;
}

// svg draws a timeline: bands for the states of a breaker, else a line from 0 to the largest value. Where there was no look it is blank.
export function svg(kind, name, line, times) {
  const node = document.createElementNS(svgSpace, 'svg');
  node.setAttribute('class', 'spark');
  node.setAttribute('role', 'img');
  node.setAttribute('viewBox', '0 0 300 30');
  node.setAttribute('preserveAspectRatio', 'none');
  draw(node, kind, name, line, times);
  return node;
}

const shape = (tag, attributes) => {
  const node = document.createElementNS(svgSpace, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

export function draw(node, kind, name, line, times) {
  const end = times[times.length - 1], begin = end - span;
  const x = (t) => ((t - begin) / span * 300).toFixed(1);
  node.replaceChildren();
  const last = line[line.length - 1];
  if (kind === 'breaker' && name === 'state') {
    for (let i = 0; i < line.length;) {
      let j = i;
      while (j + 1 < line.length && line[j + 1] === line[i] && times[j + 1] - times[j] <= gap) j++;
      const from = Math.max(times[i], begin), to = Math.min(j + 1 < line.length ? Math.min(times[j + 1], times[j] + gap) : end, end);
      if (line[i] !== null && to >= from) {
        const tall = [10, 30, 20][line[i]] || 10;
        node.append(shape('rect', { class: 's' + line[i], x: x(from), y: 30 - tall, width: Math.max(1, x(to) - x(from)), height: tall }));
      }
      i = j + 1;
    }
    node.setAttribute('aria-label', 'State over the latest ' + duration(span / 1000) + ', now ' + (states[last] || 'unknown'));
    return;
  }
  const largest = Math.max(1e-9, ...line.filter((v) => v !== null));
  let path = '', area = '', start = null, before = null;
  const close = (t) => { if (start !== null) area += `L${x(t)} 30L${x(start)} 30Z`; start = null; };
  line.forEach((v, i) => {
    const t = times[i];
    // In the middle of a flat stretch there is nothing to draw.
    if (v !== null && start !== null && t - before <= gap && v === line[i - 1] && v === line[i + 1] && times[i + 1] - t <= gap) { before = t; return; }
    if (v === null || t < begin) { close(before); before = t; return; }
    const at = `${x(t)} ${(28 - v / largest * 25).toFixed(1)}`;
    if (start === null || t - before > gap) { close(before); start = t; path += 'M' + at; area += 'M' + at; } else { path += 'L' + at; area += 'L' + at; }
    before = t;
  });
  close(before);
  node.append(shape('path', { class: 'area', d: area }), shape('path', { class: 'stroke', d: path }));
  node.setAttribute('aria-label', words(name) + (counts(name) ? ' per second' : '') + ' over the latest ' + duration(span / 1000) + ', now ' + count(last) + ', highest ' + count(largest < 1e-6 ? 0 : largest));
}

// How much time a timeline shows, and after how long without a look it is blank, in milliseconds.
let span = 60000, gap = 2000;

export function scale(interval, history) {
  span = interval * history;
  gap = interval * 4;
}

const caption = (o) => words(o.chart || '') + (counts(o.chart || '') ? ' per second' : '') + ', latest ' + duration(span / 1000);

// Row is an object in its panel. update touches only what is different.
export class Row {
  constructor(o, open) {
    this.button = el('button', { type: 'button', 'aria-haspopup': 'dialog' }, o.name || '(no name)');
    this.button.title = o.name;
    this.button.dir = 'auto';
    this.button.addEventListener('click', () => open(o.id, this.button));
    this.status = el('p', { class: 'status' });
    this.facts = el('dl', { class: 'facts' });
    this.figure = el('figure');
    this.node = el('li', { class: 'row', 'data-id': o.id, 'data-kind': o.kind },
      el('div', { class: 'who' }, this.button, el('p', { class: 'kind' }, o.kind)), this.status, this.facts, this.figure);
    this.cells = [];
  }

  update(o, times, redraw) {
    showStatus(this.status, o);
    this.showSteps(stepsOf(o));
    const list = factsOf(o);
    if (list.length !== this.cells.length) {
      this.cells = list.map(() => ({ k: el('dt'), v: el('dd') }));
      this.facts.replaceChildren(...this.cells.map((c) => el('div', {}, c.k, c.v)));
    }
    list.forEach(([k, v, note], i) => {
      const c = this.cells[i];
      if (c.key !== k) c.k.textContent = c.key = k;
      if (c.value !== v) c.v.textContent = c.value = v;
      if (c.note !== !!note) { c.note = !!note; if (note) c.v.dataset.note = ''; else delete c.v.dataset.note; }
    });
    if (!o.line || !times.length) return;
    if (!this.spark) {
      this.spark = svg(o.kind, o.chart, o.line, times);
      this.figure.replaceChildren(this.spark, el('figcaption', { 'aria-hidden': 'true' }, caption(o)));
    } else if (redraw) {
      draw(this.spark, o.kind, o.chart, o.line, times);
    }
  }

  // showSteps has a line of its own below the facts, where there are steps.
  showSteps(steps) {
    const key = steps.join();
    if (this.steps === key || (!steps.length && !this.stepList)) return;
    this.steps = key;
    if (!this.stepList) this.node.append(this.stepList = el('ul', { class: 'steps', 'aria-label': 'Steps' }));
    this.stepList.replaceChildren(...steps.map(([text, failing]) => el('li', { 'data-note': failing }, text)));
  }
}

export function eventLine(e) {
  const time = new Date(e.t);
  return el('li', { 'data-level': e.level, 'data-seq': e.seq },
    el('time', { datetime: time.toISOString() }, time.toLocaleTimeString('en-GB')), el('span', { class: 'level' }, e.level),
    el('span', { class: 'of' }, (e.kind + ' ' + e.name).trim() || '–'), el('span', { class: 'what' }, e.text));
}

function flat(value, path, rows) {
  if (value !== null && typeof value === 'object') {
    const keys = Object.keys(value);
    keys.forEach((key) => flat(value[key], path ? path + '.' + key : key, rows));
    if (!keys.length && path) rows.push([path, Array.isArray(value) ? '[]' : '{}']);
  } else {
    rows.push([path || 'value', typeof value === 'string' ? value : String(value)]);
  }
  return rows;
}

export function configTable(config) {
  const rows = flat(config, '', []);
  if (!rows.length) return el('p', { class: 'empty' }, 'It has none.');
  return el('table', { class: 'config' }, el('tbody', {}, ...rows.map(([k, v]) => el('tr', {}, el('th', { scope: 'row' }, k), el('td', { class: 'text' }, v)))));
}

export function metricsTable(o) {
  const names = Object.keys(o.metrics);
  if (!names.length) return el('p', { class: 'empty' }, o.why || 'It has none.');
  const history = (name) => {
    const line = o.series[name] || [];
    return line.some((v) => v !== line[0]) || name === o.chart ? svg(o.kind, name, line, o.times) : '';
  };
  const rows = names.filter((name) => !name.includes('{')).map((name) =>
    el('tr', {}, el('th', { scope: 'row' }, words(name)), el('td', {}, o.kind === 'breaker' && name === 'state' ? states[o.metrics[name]] || count(o.metrics[name]) : shown(name, o.metrics[name])),
      el('td', {}, counts(name) ? perSecond(o.rates[name]) : ''), el('td', { class: 'history' }, history(name))));
  const plain = table('plain', ['Number', 'Now', 'Rate', 'Latest ' + duration(span / 1000)], rows);
  return el('div', {}, ...(rows.length ? [plain] : []), ...labelledTables(o, names.filter((name) => name.includes('{')), history));
}

const table = (kind, head, rows) => el('table', { class: kind }, el('thead', {}, el('tr', {}, ...head.map((text) => el('th', { scope: 'col' }, text)))), el('tbody', {}, ...rows));

// labelledTables has a table for each set of labels: a row for their values, a column for each metric, and the history of the first.
function labelledTables(o, names, history) {
  const groups = new Map();
  for (const name of names) {
    const labels = labelsOf(name), keys = [...labels.keys()].join(), values = [...labels.values()];
    if (!groups.has(keys)) groups.set(keys, { keys: [...labels.keys()], bases: new Set(), rows: new Map() });
    const group = groups.get(keys), at = JSON.stringify(values);
    group.bases.add(base(name));
    if (!group.rows.has(at)) group.rows.set(at, { values, names: new Map() });
    group.rows.get(at).names.set(base(name), name);
  }
  return [...groups.values()].map(({ keys, bases, rows }) => table('labelled', [...keys, ...[...bases].map(words), 'Latest ' + duration(span / 1000)],
    [...rows.values()].map((row) => {
      const first = row.names.get([...bases][0]);
      return el('tr', {}, ...row.values.map((value) => el('th', { scope: 'row' }, value)),
        ...[...bases].map((b) => {
          const name = row.names.get(b), rate = name && counts(name) && !b.includes('seconds') && o.rates[name];
          return el('td', {}, name ? shown(name, o.metrics[name]) : '–', rate ? el('small', {}, ' ' + perSecond(rate)) : '');
        }), el('td', { class: 'history' }, first ? history(first) : ''));
    })));
}
