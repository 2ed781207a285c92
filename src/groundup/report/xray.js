// One state and a function for each part of the page that draws it; no libraries.

const D = JSON.parse(document.getElementById("data").textContent);
const T = D.tokens.length;
// Two models with the same tokenizer may have different shapes.
const layersOf = view => view.scores[0].length, headsOf = view => view.scores[0][0].length;
const hasHead = (view, layer, head) => layer < layersOf(view) && head < headsOf(view);
const COLORS = ["var(--accent)", "var(--bad)", "var(--good)", "var(--open)"];

// The steps of the run in order, and its finished model after them.
const timeline = D.views.map((view, i) => i).filter(i => D.views[i].step !== null);
if (timeline.length) timeline.push(0);

const state = { view: 0, other: -1, place: Math.max(0, T - 1), layer: 0, head: 0, temperature: 1, top_k: 0, top_p: 1 };
const firstKnown = () => {
  for (const kind of [3, 0, 2, 1]) {
    let best = [0, 0, 0];
    D.views[0].scores[kind].forEach((row, l) => row.forEach((s, h) => { if (s > best[0]) best = [s, l, h]; }));
    if (best[0] >= D.threshold) return best.slice(1);
  }
  return [0, 0];
};
[state.layer, state.head] = firstKnown();
// With an ablated head or a second model, the page starts with the difference.
D.views.forEach((view, i) => { if (i && view.step === null && state.other < 0) { state.view = i; state.other = 0; } });
// A link can select what to show: #place=4&head=1.3&temperature=0.5. Values out of range are clamped.
const ENDS = {
  view: [0, D.views.length - 1], other: [-1, D.views.length - 1], place: [0, Math.max(0, T - 1)], layer: [0, Infinity], head: [0, Infinity],
  temperature: [0, 2, 10], top_k: [0, 50], top_p: [.05, 1, 20],
};
function ask(name, value) {
  const [low, high, steps = 1] = ENDS[name];
  if (!Number.isNaN(value)) state[name] = Math.min(high, Math.max(low, Math.round(value * steps) / steps));
}
new URLSearchParams(location.hash.slice(1)).forEach((value, name) => {
  if (name === "head") value.split(".").slice(0, 2).forEach((one, i) => ask(["layer", "head"][i], Number(one)));
  else if (Object.hasOwn(ENDS, name)) ask(name, Number(value));
});

const shown = () => D.views[state.view];
const other = () => state.other < 0 || state.other === state.view ? null : D.views[state.other];

// The text as buttons; line breaks follow a button, because a break inside it would misalign it.
const strip = attributes => D.tokens.flatMap((token, i) => [
  el("button", { type: "button", "aria-pressed": i === state.place, onclick: () => choose({ place: i }), ...attributes(i) }, token.replace(/\n/g, "↵") || "∅"),
  token.replace(/[^\n]/g, ""),
]);
const name = id => D.vocabulary[id];
const signed = (x, digits = 2) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(digits)}`;
const diverging = (x, most) => wash(x < 0 ? "var(--heat-bad)" : "var(--heat-accent)", Math.abs(x) / (most || 1));
const scale = (id, color) => { byId(id).style.background = `linear-gradient(to right, transparent, ${color})`; };
// Redrawing keeps the keyboard focus on the element at the same position of its part.
function keepingFocus(draw) {
  const had = document.activeElement, part = had?.parentElement?.closest("[id]")?.id;
  const all = () => part === undefined ? [] : [...byId(part).querySelectorAll(had.tagName)];
  const at = all().indexOf(had);
  draw();
  if (at >= 0 && !had.isConnected) all()[at]?.focus({ preventScroll: true });
}
const choose = changes => {
  Object.assign(state, changes);
  state.layer = Math.min(state.layer, layersOf(shown()) - 1);
  state.head = Math.min(state.head, headsOf(shown()) - 1);
  keepingFocus(draw);
};

// Attention: a byte for each visible pair, row by row for each head.
const decoded = new Map();
function attention(view, layer, head) {
  if (!decoded.has(view)) decoded.set(view, Uint8Array.from(atob(view.attention), c => c.charCodeAt(0)));
  const size = T * (T + 1) / 2, start = (layer * headsOf(view) + head) * size;
  return decoded.get(view).subarray(start, start + size);
}
const weight = (pattern, query, key) => key > query ? 0 : pattern[query * (query + 1) / 2 + key] / 255;
const shade = w => Math.sqrt(w); // small weights shall be seen; the legend is shaded alike
function ink() {
  const probe = el("i", { style: "color: var(--accent)" });
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}

function drawControls() {
  const options = [];
  D.views.forEach((view, i) => { if (view.step === null) options.push([i, view.name]); });
  const now = D.views[state.view].step === null ? [] : [[state.view, shown().name]];
  fill("view", ...[...options, ...now].map(([i, text]) => el("option", { value: i }, text)));
  byId("view").value = state.view;
  fill("other", el("option", { value: -1 }, "nothing"), ...D.views.map((view, i) => el("option", { value: i }, view.name)));
  byId("other").value = state.other;
  if (timeline.length) {
    const at = timeline.indexOf(state.view);
    byId("time").max = timeline.length - 1;
    byId("time").value = at < 0 ? timeline.length - 1 : at;
    byId("step").textContent = at < 0 ? "–" : shown().step === null ? "the end" : shown().step;
  }
}

const MOST_NATS = 8;
function drawStrip() {
  const view = shown(), beside = other();
  const change = beside ? view.losses.map((loss, i) => loss === null ? null : loss - beside.losses[i]) : null;
  const most = change ? Math.max(.1, ...change.map(c => Math.abs(c ?? 0))) : MOST_NATS;
  let sentence = view.loss === null ? "A single token has no loss: nothing stands before it." : `${view.name}: ${view.loss.toFixed(3)} nats a token, perplexity ${Math.exp(view.loss).toFixed(1)}.`;
  if (beside && view.loss !== null) sentence += ` ${beside.name}: ${beside.loss.toFixed(3)} nats (${signed(view.loss - beside.loss, 3)} from there to here).`;
  byId("loss").textContent = sentence;
  fill("strip", ...strip(i => {
    const loss = view.losses[i];
    const color = loss === null ? "" : change ? diverging(-change[i], most) : wash("var(--heat-bad)", loss / MOST_NATS);
    const best = i ? view.next.ids[i - 1].slice(0, 3).map((id, n) => `${visible(name(id))} ${percent(Math.exp(view.next.logprobs[i - 1][n]))}`).join(", ") : "";
    const title = loss === null ? "the first token: nothing stands before it" : `loss ${loss.toFixed(2)} nats (${percent(Math.exp(-loss))})${change ? `, ${signed(change[i])} against ${beside.name}` : ""}; most likely: ${best}`;
    return { style: color, title };
  }));
  const mid = el("i");
  if (change) {
    mid.style.background = "linear-gradient(to right, var(--heat-accent), transparent, var(--heat-bad))";
    fill("strip-legend", el("span", {}, `loss −${most.toFixed(1)}`, mid, `+${most.toFixed(1)} nats against ${beside.name}`));
  } else {
    mid.style.background = "linear-gradient(to right, transparent, var(--heat-bad))";
    fill("strip-legend", el("span", {}, "loss 0", mid, `${MOST_NATS} nats and more`));
  }
}

// The distribution after temperature, then top-k, then top-p, in the order of Hugging Face's.
function chances(view, place) {
  const { logprobs, tails } = view.next, lines = logprobs[place], { temperature, top_k, top_p } = state;
  if (temperature === 0) return { named: lines.map((_, i) => i ? 0 : 1), others: 0 };
  let named = lines.map(l => Math.exp((l - lines[0]) / temperature));
  let others = tails[place] ? Math.exp(tails[place][Math.round(temperature * 10) - 1] - lines[0] / temperature) : 0;
  const normalize = () => { const sum = named.reduce((a, b) => a + b, others); named = named.map(p => p / sum); others /= sum; };
  normalize();
  if (top_k > 0) { named = named.map((p, i) => i < top_k ? p : 0); if (top_k <= named.length) others = 0; normalize(); }
  if (top_p < 1) {
    let mass = 0;
    named = named.map(p => { const kept = mass < top_p ? p : 0; mass += p; return kept; });
    others = Math.max(0, Math.min(others, top_p - mass));
    normalize();
  }
  return { named, others };
}

const BARS = 12;
function drawNext() {
  const view = shown(), beside = other(), { place } = state;
  const ids = view.next.ids[place], { named, others } = chances(view, place);
  const theirs = beside && chances(beside, place);
  const ofOther = id => { const at = beside.next.ids[place].indexOf(id); return at < 0 ? 0 : theirs.named[at]; };
  const follows = place + 1 < T ? view.answers[place] : null;
  fill("after", "After ", chip(D.tokens[place]), place + 1 < T ? " the text goes on with " : ", the last token, anything may follow.");
  if (follows !== null) byId("after").append(chip(D.tokens[place + 1]), `: rank ${rank(view, place)}, ${percent(Math.exp(-view.losses[place + 1]))} at temperature 1.`);
  for (const id of ["temperature", "top_k", "top_p"]) {
    byId(id).value = state[id];
    byId(id).nextElementSibling.textContent = id === "top_k" ? state.top_k || "all" : state[id].toFixed(id === "top_p" ? 2 : 1);
  }
  const rows = [], shownCount = Math.min(BARS, ids.length);
  const bar = (p, more = "") => el("i", { class: more, style: p > 0 ? `width: ${100 * p}%` : "visibility: hidden" });
  const line = (p, q) => el("div", { class: "lines" }, bar(p), ...(q === null ? [] : [bar(q, "other")]));
  for (let i = 0; i < shownCount; i++) {
    const more = `${ids[i] === follows ? "is-next" : ""} ${named[i] === 0 ? "left-out" : ""}`;
    rows.push(chip(name(ids[i]), more), line(named[i], beside ? ofOther(ids[i]) : null), el("span", { class: "number" }, percent(named[i])));
  }
  const rest = named.slice(shownCount).reduce((a, b) => a + b, others);
  const theirRest = beside ? Math.max(0, 1 - ids.slice(0, shownCount).reduce((a, id) => a + ofOther(id), 0)) : null;
  rows.push(el("span", { style: "justify-self: end; color: var(--soft)" }, "all others"), line(rest, theirRest), el("span", { class: "number" }, percent(rest)));
  fill("chances", ...rows);
  const kept = named.filter(p => p > 0).length;
  byId("chances-note").textContent = `${others > 0 ? "More than " + kept : kept} ${kept === 1 && !others ? "token" : "tokens"} can be drawn.${follows !== null ? " Framed: the token that follows in the text." : ""}${beside ? ` Thin bars: ${beside.name}.` : ""}`;
}
function rank(view, place) {
  const at = view.next.ids[place].indexOf(view.answers[place]);
  return at < 0 ? `below ${view.next.ids[place].length}` : at + 1;
}

const highest = scores => scores[0][0] === null ? null : Math.max(...scores.flat());
const scored = s => s === null ? "not measured" : s.toFixed(2);
const LETTERS = ["P", "F", "D", "I"];
const kindsOf = (view, layer, head) => D.kinds.map((kind, k) => k).filter(k => view.scores[k][layer][head] >= D.threshold);
function drawHeads() {
  const view = shown(), color = ink(), cells = [], LAYERS = layersOf(view), HEADS = headsOf(view);
  cells.push(el("span", { class: "at" }), ...Array.from({ length: HEADS }, (_, h) => el("span", { class: "at", style: "text-align: center" }, h)));
  for (let layer = 0; layer < LAYERS; layer++) {
    cells.push(el("span", { class: "at" }, layer));
    for (let head = 0; head < HEADS; head++) {
      const canvas = el("canvas", { width: T, height: T }), pattern = attention(view, layer, head);
      const context = canvas.getContext("2d"), image = context.createImageData(T, T);
      for (let q = 0; q < T; q++) for (let k = 0; k <= q; k++) {
        image.data.set([...color, 255 * shade(weight(pattern, q, k))], 4 * (q * T + k));
      }
      context.putImageData(image, 0, 0);
      const kinds = kindsOf(view, layer, head), pressed = layer === state.layer && head === state.head;
      const title = [`${layer}.${head}`, kinds.map(k => D.kinds[k]).join(", ")].filter(Boolean).join(" ");
      cells.push(el("button", { type: "button", class: kinds.length ? "known" : "", "aria-pressed": pressed, title, "aria-label": `head ${title}`, onclick: () => choose({ layer, head }) },
        canvas, ...(kinds.length ? [el("span", { class: "badge" }, kinds.map(k => LETTERS[k]).join(""))] : [])));
    }
  }
  byId("heads").style.setProperty("--heads", HEADS);
  byId("heads").style.setProperty("--widest", `${HEADS > 6 ? 4.6 : 7}rem`);
  fill("heads", ...cells);
}

function drawLarge() {
  const { layer, head, place } = state, beside = other() && hasHead(other(), layer, head) ? other() : null, pair = el("div", { class: "pair" });
  const readout = el("p", { class: "readout" });
  const say = (query, key) => {
    const said = [shown(), ...(beside ? [beside] : [])].map(v => weight(attention(v, layer, head), query, key).toFixed(2)).join(" and ");
    readout.replaceChildren(chip(D.tokens[query]), ` (${query}) asks, `, chip(D.tokens[key]), ` (${key}) answers: ${said}`);
  };
  const about = D.kinds.map((kind, k) => `${kind} ${scored(shown().scores[k][layer][head])}`).join(" · ");
  for (const view of [shown(), ...(beside ? [beside] : [])]) {
    const canvas = el("canvas", { role: "img", "aria-label": `attention of head ${layer}.${head}` });
    pair.append(el("figure", {}, canvas, el("figcaption", {}, beside ? view.name : "")));
    requestAnimationFrame(() => pattern(canvas, attention(view, layer, head), say));
  }
  const mix = strip(k => {
    const share = weight(attention(shown(), layer, head), place, k);
    return { style: wash("var(--heat-accent)", shade(share)), title: share.toFixed(2) };
  });
  fill("large", el("h3", { style: "margin-top: 0" }, `Head ${layer}.${head}`), el("p", { class: "note" }, about), pair, readout, el("p", { class: "note" }, "From ", chip(D.tokens[place]), " it goes to:"), el("div", { class: "strip", style: "font-size: .82rem" }, ...mix));
  const row = attention(shown(), layer, head);
  let best = 0;
  for (let k = 0; k <= place; k++) if (weight(row, place, k) > weight(row, place, best)) best = k;
  say(place, best);
}

// One head with token labels on two sides, as many as fit.
function pattern(canvas, bytes, say) {
  const style = getComputedStyle(document.documentElement), ratio = devicePixelRatio || 1;
  const width = Math.max(120, canvas.clientWidth), margin = Math.min(84, width / 4);
  const cell = (width - margin) / T, every = Math.ceil(11 / cell), color = ink();
  canvas.width = canvas.height = width * ratio;
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  c.font = "10px ui-monospace, Menlo, Consolas, monospace";
  const room = text => c.measureText(text).width <= margin - 6;
  // Cut at whole characters, not at surrogate halves, and marked as cut.
  const fit = text => {
    const whole = visible(text).trim() || "␣", letters = [...whole];
    if (room(whole)) return whole;
    while (letters.length > 1 && !room(`${letters.join("")}…`)) letters.pop();
    return `${letters.join("")}…`;
  };
  c.fillStyle = style.getPropertyValue("--wash");
  c.fillRect(margin, margin, width - margin, width - margin);
  for (let q = 0; q < T; q++) for (let k = 0; k <= q; k++) {
    c.fillStyle = `rgb(${color.join(" ")} / ${shade(weight(bytes, q, k))})`;
    c.fillRect(margin + k * cell, margin + q * cell, cell + .2, cell + .2);
  }
  c.strokeStyle = style.getPropertyValue("--ink");
  c.strokeRect(margin, margin + state.place * cell, (state.place + 1) * cell, cell);
  for (let i = 0; i < T; i += every) {
    c.fillStyle = style.getPropertyValue(i === state.place ? "--ink" : "--soft");
    c.textAlign = "right"; c.textBaseline = "middle";
    c.fillText(fit(D.tokens[i]), margin - 4, margin + (i + .5) * cell);
    c.save(); c.translate(margin + (i + .5) * cell, margin - 4); c.rotate(-Math.PI / 2);
    c.textAlign = "left"; c.fillText(fit(D.tokens[i]), 0, 0); c.restore();
  }
  const at = event => [event.offsetY, event.offsetX].map(x => Math.floor((x - margin) / cell));
  canvas.onpointermove = event => { const [q, k] = at(event); if (q >= 0 && q < T && k >= 0 && k <= q) say(q, k); };
  canvas.onclick = event => { const [q] = at(event); if (q >= 0 && q < T) choose({ place: q }); };
}

// A grid of small squares: a row per layer, a column per head, and additional columns if any.
function map(view, more, title, style, known) {
  const HEADS = headsOf(view), columns = [...Array.from({ length: HEADS }, (_, h) => h), ...more];
  const cells = [el("span"), ...columns.map(text => el("span", {}, text))];
  for (let layer = 0; layer < layersOf(view); layer++) {
    cells.push(el("span", {}, layer));
    columns.forEach((_, h) => cells.push(el("button", { type: "button", style: style(layer, h), title: title(layer, h), "aria-label": title(layer, h), class: known(layer, h) ? "known" : "", "aria-pressed": h < HEADS && layer === state.layer && h === state.head, onclick: () => h < HEADS && choose({ layer, head: h }) })));
  }
  return cells;
}
// With many layers the cells are flat, so that all are visible.
if (layersOf(D.views[0]) > 12) document.documentElement.style.setProperty("--cell", 2.2);
function drawKinds() {
  const view = shown(), beside = other();
  fill("maps", ...D.kinds.map((kind, k) => {
    const scores = view.scores[k], found = [];
    scores.forEach((row, l) => row.forEach((s, h) => { if (s >= D.threshold) found.push([s, `${l}.${h}`, l, h]); }));
    found.sort((a, b) => b[0] - a[0]);
    const most = highest(scores);
    // The other model's score if it differs clearly.
    const theirs = (s, l, h) => beside && hasHead(beside, l, h) && Math.abs(s - beside.scores[k][l][h]) >= .05 ? `, ${scored(beside.scores[k][l][h])} in ${beside.name}` : "";
    const list = found.slice(0, 8).map(([s, n, l, h]) => `${n} (${s.toFixed(2)}${theirs(s, l, h)})`).join(", ");
    const left = found.length > 8 ? ` and ${found.length - 8} more` : "";
    const grid = el("div", { class: "map many", style: `--columns: ${headsOf(view)}` }, ...map(view, [], (l, h) => `${l}.${h}: ${scored(scores[l][h])}`, (l, h) => wash("var(--heat-accent)", scores[l][h]), (l, h) => scores[l][h] >= D.threshold));
    return el("div", {}, el("h3", {}, `${kind[0].toUpperCase()}${kind.slice(1)}`), grid, el("p", {}, found.length ? list + left : most === null ? "not measured" : `none; the highest score is ${scored(most)}`));
  }));
}

function drawLens() {
  const { lens, answers } = shown(), rows = [], LAYERS = layersOf(shown());
  for (let l = LAYERS; l >= 0; l--) {
    rows.push(el("tr", {}, el("th", {}, l ? `${l - 1}` : "embedding"), ...D.tokens.map((_, i) => {
      const id = lens.ids[l][i][0], p = lens.probabilities[l][i][0];
      const more = lens.ids[l][i].map((one, n) => `${visible(name(one))} ${percent(lens.probabilities[l][i][n])}`).join(", ");
      return el("td", { class: `${id === answers[i] && i + 1 < T ? "right" : ""}`, style: wash("var(--heat-accent)", p), title: `after ${l} layers: ${more}; what follows: ${percent(lens.answers[l][i])}`, onclick: () => choose({ place: i }) }, visible(name(id)) || "∅");
    })));
  }
  const line = texts => el("tr", {}, el("th", {}, texts[0]), ...texts.slice(1).map((text, i) => el("th", { class: i === state.place ? "chosen" : "" }, text)));
  fill("lens-table", el("thead", {}, line(["reads", ...D.tokens.map(visible)])), el("tbody", {}, ...rows), el("tfoot", {}, line(["follows", ...D.tokens.slice(1).map(visible), "?"])));
}

function drawAttribution() {
  const view = shown(), beside = other(), { place } = state;
  const partsOf = one => {
    const c = one.contributions, parts = [["embedding", c.embedding[place]]];
    if (c.bias.some(b => Math.abs(b) >= .005)) parts.push(["biases", c.bias[place]]);
    c.heads.forEach((row, l) => row.forEach((head, h) => parts.push([`head ${l}.${h}`, head[place]])));
    c.mlps.forEach((mlp, l) => parts.push([`MLP ${l}`, mlp[place]]));
    return parts;
  };
  const parts = partsOf(view), sum = view.contributions.sum[place], most = Math.max(...parts.map(([, x]) => Math.abs(x)));
  const theirs = beside && new Map(partsOf(beside));
  fill("answer", "After ", chip(D.tokens[place]), " the logit of ", chip(name(view.answers[place])), place + 1 < T ? " (what follows)" : ` (the most likely${D.views.length > 1 ? ` of ${D.views[0].name}` : ""})`, ` is ${sum.toFixed(2)}.`);
  const HEADS = headsOf(view);
  byId("attribution-map").style.setProperty("--columns", HEADS + 1);
  const value = (l, h) => h < HEADS ? view.contributions.heads[l][h][place] : view.contributions.mlps[l][place];
  fill("attribution-map", ...map(view, ["MLP"], (l, h) => `${h < HEADS ? `head ${l}.${h}` : `MLP ${l}`}: ${signed(value(l, h))}`, (l, h) => diverging(value(l, h), most), () => false));
  const bar = el("i"); bar.style.background = "linear-gradient(to right, var(--heat-bad), transparent, var(--heat-accent))";
  fill("attribution-range", `against it −${most.toFixed(1)}`, bar, `+${most.toFixed(1)} for it`);
  const largest = [...parts].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 12);
  const rest = sum - largest.reduce((a, [, x]) => a + x, 0), widest = Math.max(most, Math.abs(rest));
  const line = (text, x, more = "") => {
    const width = 50 * Math.abs(x) / widest;
    const i = el("i", { style: `left: ${x < 0 ? 50 - width : 50}%; width: ${width}%; background: ${x < 0 ? "var(--bad)" : "var(--accent)"}` });
    const before = theirs && theirs.has(text) ? ` (${signed(theirs.get(text))} in ${beside.name})` : "";
    return [el("span", { title: text + before }, text), el("div", { class: "line" }, i), el("span", { class: `number ${more}` }, signed(x))];
  };
  const lines = largest.flatMap(([text, x]) => line(text, x));
  if (parts.length > largest.length) lines.push(...line(`${parts.length - largest.length} other${parts.length - largest.length === 1 ? "" : "s"}`, rest));
  fill("parts", ...lines, el("span", { class: "sum" }, "logit"), el("span", { class: "sum" }, " "), el("span", { class: "number sum" }, sum.toFixed(2)));
}

// Ticks at steps of 1, 2 and 5 within the range; on a logarithmic axis at powers of ten, if any.
function ticksOf(low, high, log) {
  const within = x => x >= low * (1 - 1e-9) && x <= high * (1 + 1e-9);
  if (log) {
    const powers = Array.from({ length: Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 }, (_, i) => Number(`1e${i + Math.floor(Math.log10(low))}`));
    const tens = powers.filter(within), all = powers.flatMap(p => [p, 2 * p, 5 * p]).filter(within);
    const found = tens.length >= 3 ? tens : all, every = Math.ceil(found.length / 6);
    if (found.length >= 2) return found.filter((_, i) => i % every === 0);
  }
  const power = 10 ** Math.floor(Math.log10((high - low) / 3));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => (high - low) / s <= 6);
  return Array.from({ length: Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1 }, (_, i) => (i + Math.ceil(low / step - 1e-9)) * step);
}
// A line chart of series {name, values, color, dashed} over `xs`; either axis can be logarithmic.
// The lines of a model differ in their dashes, and those of the other model are paler.
const DASHES = ["", "7 3", "2 3", "8 2 2 2"];
const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
const short = x => x === 0 ? "0" : Math.abs(x) >= 1e4 ? x.toExponential(0) : Math.abs(x) >= 10 ? String(Math.round(x)) : Math.abs(x) >= .0001 ? String(+x.toPrecision(2)) : x.toExponential(0);
function chart(title, xLabel, xs, series, { logX = false, logY = false, from = null, to = null, ticks = null, now = null } = {}) {
  const W = 400, H = 210, left = 42, right = 10, top = 8, bottom = 34;
  const fx = x => logX ? Math.log(x) : x, fy = y => logY ? Math.log(y) : y;
  const known = series.flatMap(s => s.values).filter(v => v !== null && (!logY || v > 0));
  if (!known.length) return el("div");
  let low = from ?? Math.min(...known), high = to ?? Math.max(...known);
  if (low === high) high = logY ? low * 2 : low + 1;
  const x0 = fx(xs[0]), x1 = fx(xs[xs.length - 1]);
  const px = x => left + (x1 === x0 ? .5 : (fx(x) - x0) / (x1 - x0)) * (W - left - right);
  const py = y => H - bottom - (fy(y) - fy(low)) / (fy(high) - fy(low)) * (H - top - bottom);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  for (const y of ticksOf(low, high, logY)) {
    root.append(svg("line", { class: "grid", x1: left, x2: W - right, y1: py(y), y2: py(y) }), svg("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, short(y)));
  }
  const labels = ticks ?? xs, every = Math.ceil(labels.length / 7), last = labels.length - 1;
  // The last tick is always labeled, and none so close to it that they would overlap.
  labels.forEach((text, i) => { if (i === last || (i % every === 0 && last - i >= every)) root.append(svg("text", { x: px(xs[i]), y: H - bottom + 15, "text-anchor": "middle" }, text)); });
  root.append(svg("text", { x: (left + W - right) / 2, y: H - 4, "text-anchor": "middle" }, logX ? `${xLabel} (log scale)` : xLabel));
  if (now !== null) root.append(svg("line", { class: "now", x1: px(now), x2: px(now), y1: top, y2: H - bottom }));
  for (const { values, color, dashed } of series) {
    const dashes = DASHES[COLORS.indexOf(color)];
    const points = values.map((v, i) => v === null || (logY && v <= 0) ? null : [px(xs[i]), py(v)]).filter(Boolean);
    root.append(svg("polyline", { points: points.map(p => p.map(n => n.toFixed(1)).join(",")).join(" "), fill: "none", "stroke-width": 2, style: `stroke: ${color}`, "stroke-dasharray": dashes, "stroke-opacity": dashed ? .55 : 1 }));
    if (!dashed) points.forEach(([x, y]) => root.append(svg("circle", { cx: x, cy: y, r: 2.4, style: `fill: ${color}` })));
  }
  const key = s => {
    const drawn = svg("svg", { class: "key", viewBox: "0 0 28 6", "aria-hidden": "true" });
    drawn.append(svg("line", { x1: 0, x2: 28, y1: 3, y2: 3, "stroke-width": 3, style: `stroke: ${s.color}`, "stroke-dasharray": DASHES[COLORS.indexOf(s.color)], "stroke-opacity": s.dashed ? .55 : 1 }));
    return drawn;
  };
  const legend = el("div", { class: "legend" }, ...series.map(s => el("span", {}, key(s), s.name)));
  // The same numbers for screen readers.
  const heads = el("tr", {}, el("th", { scope: "col" }, xLabel), ...labels.map(text => el("th", { scope: "col" }, text)));
  const rows = series.map(s => el("tr", {}, el("th", { scope: "row" }, s.name), ...s.values.map(v => el("td", {}, v === null ? "–" : short(v)))));
  const table = el("div", { class: "heard" }, el("table", {}, el("caption", {}, title), el("thead", {}, heads), el("tbody", {}, ...rows)));
  return el("div", {}, el("h3", {}, logY ? `${title} (log scale)` : title), root, legend, table);
}

const mean = row => row.reduce((a, b) => a + b, 0) / row.length;
function drawLayers() {
  const { place } = state, views = [shown(), ...(other() ? [other()] : [])];
  const most = Math.max(...views.map(layersOf)), states = Array.from({ length: most + 1 }, (_, i) => i), layers = states.slice(0, most);
  const both = make => views.flatMap((view, i) => make(view).map(s => ({ ...s, dashed: i > 0, name: i ? `${s.name}, ${view.name}` : s.name })));
  const states_ = "layers that came before";
  const series = [
    chart("Length of the residual stream", states_, states, both(v => [
      { name: "mean", values: v.norms.map(mean), color: COLORS[0] }, { name: "chosen token", values: v.norms.map(n => n[place]), color: COLORS[1] }]), { logY: true }),
    chart("Probability of what follows the chosen token", states_, states, both(v => [{ name: "logit lens", values: v.lens.answers.map(a => a[place]), color: COLORS[0] }]), { from: 0, to: 1 }),
    chart("Gradient at the residual stream", states_, states, both(v => [{ name: "mean over tokens", values: v.gradients.map(mean), color: COLORS[0] }]), { logY: true }),
    chart("Gradient at the weights", "layer", layers, both(v => [
      { name: "attention", values: v.weights.map(w => w[0]), color: COLORS[0] }, { name: "MLP", values: v.weights.map(w => w[1]), color: COLORS[1] }]), { logY: true }),
  ];
  fill("by-layer", ...series);
}

function drawTime() {
  if (!timeline.length) return;
  const views = timeline.map(i => D.views[i]), { place } = state, known = views.map(v => v.step).filter(Boolean);
  // The finished model is placed where the next snapshot would be, wherever the run ended.
  const last = known[known.length - 1], end = known.length > 1 ? last * last / known[known.length - 2] : 2 * last;
  const xs = views.map(v => v.step ?? end), ticks = views.map(v => v.step ?? "end");
  const options = { logX: true, ticks, now: state.view === 0 || shown().step !== null ? xs[timeline.indexOf(state.view)] : null };
  const answer = view => view.lens.answers[layersOf(view)][place];
  const { layer, head } = state;
  // Previous-token heads at the first snapshot were initialized, not learned.
  const back = D.kinds.indexOf("previous token"), begun = back >= 0 && views[0].step === 1 ? views[0].scores[back][0].flatMap((s, h) => s >= .9 ? [`0.${h}`] : []) : [];
  fill("from-the-start", begun.length ? `Head${begun.length > 1 ? "s" : ""} ${begun.join(", ")} looked at the token before from the start: pre-training initializes heads of the first layer so (--previous-token-heads), and no step has taught it.` : "");
  fill("by-step",
    chart("Loss in nats a token", "step", xs, [{ name: "this text", values: views.map(v => v.loss), color: COLORS[0] }], options),
    chart("Highest score of each kind of head", "step", xs, D.kinds.map((kind, k) => ({ name: kind, values: views.map(v => highest(v.scores[k])), color: COLORS[k] })), { ...options, from: 0, to: 1 }),
    chart(`Scores of head ${layer}.${head}`, "step", xs, D.kinds.map((kind, k) => ({ name: kind, values: views.map(v => hasHead(v, layer, head) ? v.scores[k][layer][head] : null), color: COLORS[k] })), { ...options, from: 0, to: 1 }),
    chart(`Probability after “${visible(D.tokens[place]).trim()}”`, "step", xs, [{ name: `“${visible(name(D.views[0].answers[place])).trim()}”`, values: views.map(answer), color: COLORS[0] }], { ...options, from: 0, to: 1 }),
  );
}

function draw() {
  drawControls(); drawStrip(); drawNext(); drawHeads(); drawLarge(); drawKinds(); drawLens(); drawAttribution(); drawLayers(); drawTime();
}

byId("view").onchange = event => choose({ view: Number(event.target.value) });
byId("other").onchange = event => choose({ other: Number(event.target.value) });
if (timeline.length) byId("time").oninput = event => choose({ view: timeline[Number(event.target.value)] });
for (const id of ["temperature", "top_k", "top_p"]) {
  byId(id).oninput = event => { state[id] = Number(event.target.value); drawNext(); };
}
byId("attention-scale").style.background = `linear-gradient(to right, ${[0, .1, .25, .5, .75, 1].map(w => `color-mix(in srgb, var(--accent) ${100 * shade(w)}%, transparent) ${100 * w}%`).join(", ")})`;
scale("lens-scale", "var(--heat-accent)");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawLarge(); } });
choose({});
