// A conversation with the models of this server, and how likely each token was that they said.

const LIKELIEST = 10; // tokens that are shown of each place
const MOST_NATS = 8;
const ROOM = 3 / 4; // of what a model sees at once is for what was said; the rest is for the answer
// Of all messages the model sees those from `seen` on; `tokens` are those of the last answer and all before it.
const state = { models: [], messages: [], seen: 0, tokens: 0, letters: 0, way: "chat", running: null, key: sessionStorage.getItem("key") };
const model = () => state.models.find(one => one.id === byId("model").value);

// The server.

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (state.key) headers.Authorization = `Bearer ${state.key}`;
  const method = body ? "POST" : "GET";
  const found = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  if (found.status === 401) {
    state.key = prompt("This server asks for its key.");
    if (!state.key) throw new Error("this server asks for its key; load the page again to give it");
    sessionStorage.setItem("key", state.key);
    return ask(path, body, signal);
  }
  if (found.ok) return found;
  const told = (await found.json().catch(() => null))?.error;
  throw Object.assign(new Error(told?.message ?? `the server answers ${found.status}`), { code: told?.code });
}

// The chunks of a stream of server-sent events.
async function* chunks(response) {
  const decoder = new TextDecoder();
  let held = "";
  for (const reader = response.body.getReader(); ;) {
    const { value, done } = await reader.read();
    held += decoder.decode(value ?? new Uint8Array(), { stream: !done });
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
    if (done) return;
  }
}

// Settings; what is left empty is not said, and then the model's own holds.
function settings() {
  const found = { model: model().id, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    const given = byId(name).value.trim();
    if (given) found[name] = Number(given);
  }
  return found;
}

// Tokens as they come: their bytes become text as soon as a character is whole.

function tokensOf(choice) {
  if (choice.delta) {
    return (choice.logprobs?.content ?? []).map(one => ({ ...one, best: one.top_logprobs.map(top => [top.token, top.logprob]) }));
  }
  const told = choice.logprobs;
  return (told?.tokens ?? []).map((token, i) => ({ token, logprob: told.token_logprobs[i], best: Object.entries(told.top_logprobs?.[i] ?? {}) }));
}

function drawToken(token, text) {
  const surprise = Math.min(1, -token.logprob / MOST_NATS).toFixed(3);
  const open = event => look(event.currentTarget, token);
  const made = el("span", {
    class: "spoken", role: "button", style: `--surprise: ${surprise}`, title: percent(Math.exp(token.logprob)), onclick: open,
    onkeydown: event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(event); } },
  }, text);
  lookable(made);
  return made;
}

// Tokens are buttons only while one looks at them: a reader's keyboard goes past them else.
function lookable(token) {
  const looks = byId("look").checked;
  token.tabIndex = looks ? 0 : -1;
  token.setAttribute("role", looks ? "button" : "presentation");
}

// What might have been said there.
function look(said, token) {
  if (!byId("look").checked) return;
  const turn = said.closest(".turn"), open = said.getAttribute("aria-expanded") === "true";
  turn.querySelectorAll(".chances").forEach(one => one.remove());
  turn.querySelectorAll("[aria-expanded=true]").forEach(one => one.setAttribute("aria-expanded", "false"));
  if (open) return;
  said.setAttribute("aria-expanded", "true");
  const rows = token.best.some(([name]) => name === token.token) ? token.best : [...token.best, [token.token, token.logprob]];
  const most = Math.exp(rows[0][1]);
  turn.append(el("div", { class: "chances" },
    el("p", {}, `The likeliest tokens here, before temperature and top-p; framed is the one that was drawn (${percent(Math.exp(token.logprob))}, ${(-token.logprob).toFixed(2)} nats).`),
    ...rows.flatMap(([name, logprob]) => [
      chip(name, name === token.token ? "drawn" : ""),
      el("i", { style: `width: ${(100 * Math.exp(logprob) / most).toFixed(1)}%` }),
      el("span", { class: "number" }, percent(Math.exp(logprob))),
    ])));
}

// Turns.

function turn(role, ...children) {
  const words = el("div", { class: "words" }, ...children);
  const made = el("div", { class: `turn ${role}` }, words);
  if (role !== "user") made.prepend(el("span", { class: "who" }, model().id));
  byId("talk").append(made);
  made.scrollIntoView({ block: "end" });
  return made;
}

const ENDS = { length: " … (cut: no more tokens)", content_filter: " (the guard's sentence)" };

// One answer, streamed into a turn of its own; returns its text, or null where it failed.
async function answer(path, body, made) {
  const words = made.querySelector(".words"), text = new TextDecoder();
  const stop = state.running = new AbortController();
  let said = "", count = 0, begun = null;
  draw();
  try {
    for await (const chunk of chunks(await ask(path, { ...settings(), ...body }, stop.signal))) {
      const choice = chunk.choices[0];
      if (chunk.usage) state.tokens = chunk.usage.total_tokens;
      if (!choice) continue;
      const content = choice.delta ? choice.delta.content ?? "" : choice.text;
      said += content;
      const tokens = tokensOf(choice);
      if (tokens.length) begun ??= performance.now();
      count += tokens.length;
      // Of several tokens in one piece (behind a guard), or none, the text stands as it is.
      if (tokens.length === 1) {
        const piece = tokens[0].bytes ? text.decode(Uint8Array.from(tokens[0].bytes), { stream: true }) : content;
        words.append(drawToken(tokens[0], piece));
      } else if (content) words.append(content);
      if (choice.finish_reason in ENDS) made.append(el("span", { class: "end" }, ENDS[choice.finish_reason]));
      if (nearEnd()) made.scrollIntoView({ block: "end" });
    }
  } catch (error) {
    if (error.code === "context_length_exceeded" && forget()) return answer(path, { ...body, messages: shownMessages() }, made);
    if (error.name !== "AbortError") {
      made.classList.add("failed");
      words.append(error.message);
      said = null;
    } else made.append(el("span", { class: "end" }, " … (stopped)"));
  }
  words.append(text.decode()); // the rest of a character that was cut
  const seconds = begun === null ? 0 : (performance.now() - begun) / 1000;
  byId("speed").textContent = count > 1 && seconds > 0 ? `${count} tokens, ${Math.round((count - 1) / seconds).toLocaleString()} tokens/s` : "";
  if (state.running === stop) state.running = null;
  draw();
  return said;
}
const nearEnd = () => window.innerHeight + window.scrollY > document.body.scrollHeight - 200;

// The model sees no more of a conversation than it can: the oldest turns go first, and stay on the page.
function forget() {
  if (state.messages.length - state.seen < 3) return false;
  if (!state.seen) byId("talk").append(el("p", { class: "end" }, "From now on the model is not shown the oldest messages: it sees no more at once."));
  state.seen += 2;
  return true;
}

function shownMessages() {
  const system = byId("system").value.trim();
  const seen = state.messages.slice(state.seen);
  return system ? [{ role: "system", content: system }, ...seen] : seen;
}

const letters = () => shownMessages().reduce((sum, one) => sum + one.content.length, 0);
// About as many tokens as the model is to see have, by how many those before had.
const expected = () => state.tokens * letters() / Math.max(1, state.letters);

async function chat() {
  while (state.tokens && expected() > ROOM * model().max_model_len && forget());
  const own = state.messages, made = turn("assistant");
  const said = await answer("/v1/chat/completions", { messages: shownMessages(), logprobs: true, top_logprobs: LIKELIEST }, made);
  if (state.messages === own && said !== null) {  // or another conversation was begun meanwhile
    state.messages.push({ role: "assistant", content: said });
    state.letters = letters();
    byId("heard").textContent = said;
  } else if (state.messages === own) { // as if it had not been sent
    const last = state.messages.pop();
    byId("said").value ||= last.content;
    grow();
  }
  draw();
}

async function goOn(text) {
  const made = turn("text", el("strong", {}, text));
  const most = byId("max_tokens").value.trim() ? {} : { max_tokens: 100 };
  const said = await answer("/v1/completions", { prompt: text, logprobs: LIKELIEST, ...most }, made);
  if (said !== null) byId("heard").textContent = said;
}

function send(text) {
  if (state.running || !text.trim()) return;
  if (state.way === "text") { goOn(text); return; }
  state.messages.push({ role: "user", content: text });
  turn("user", text);
  chat();
}

// The page.

function draw() {
  const talks = state.way === "chat", busy = state.running !== null;
  byId("send").textContent = busy ? "Stop" : talks ? "Send" : "Continue";
  byId("said").placeholder = talks ? "Your message; Enter sends it, Shift+Enter begins a line" : "The beginning of a text";
  byId("again").disabled = busy || !talks || state.messages.at(-1)?.role !== "assistant";
  byId("save").disabled = busy || !state.messages.length;
  byId("new").disabled = !byId("talk").children.length;
  byId("chat").setAttribute("aria-pressed", talks);
  byId("text").setAttribute("aria-pressed", !talks);
  document.body.classList.toggle("looking", byId("look").checked);
  document.querySelectorAll(".spoken").forEach(lookable);
  document.querySelectorAll(".tries").forEach(one => { one.hidden = !talks; });
}

function about() {
  const one = model();
  const tries = (one.suggestions ?? []).map(text => el("button", { type: "button", onclick: () => send(text) }, text));
  fill("about", ...(one.about ?? []).map(text => el("p", {}, text)), el("div", { class: "tries" }, ...tries));
}

function grow() {
  const box = byId("said");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function begin() {
  state.running?.abort();
  Object.assign(state, { messages: [], seen: 0, tokens: 0, letters: 0 });
  fill("talk");
  byId("speed").textContent = "";
  draw();
}

byId("ask").addEventListener("submit", event => {
  event.preventDefault();
  if (state.running) { state.running.abort(); return; }
  send(byId("said").value);
  byId("said").value = "";
  grow();
});
byId("said").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!state.running) byId("ask").requestSubmit();
});
byId("said").addEventListener("input", grow);
byId("look").addEventListener("change", draw);
byId("model").addEventListener("change", () => { about(); begin(); });
for (const way of ["chat", "text"]) byId(way).addEventListener("click", () => { state.way = way; begin(); byId("said").focus(); });
byId("new").addEventListener("click", () => { begin(); byId("said").focus(); });
byId("again").addEventListener("click", () => {
  state.messages.pop();
  byId("talk").lastElementChild.remove();
  chat();
});
// A line that groundup sft trains on, as /save writes it.
byId("save").addEventListener("click", () => {
  const line = `${JSON.stringify({ messages: state.messages })}\n`;
  const link = el("a", { href: URL.createObjectURL(new Blob([line], { type: "application/jsonl" })), download: "talk.jsonl" });
  link.click();
  URL.revokeObjectURL(link.href);
});

ask("/v1/models").then(async found => {
  state.models = (await found.json()).data;
  fill("model", ...state.models.map(one => el("option", { value: one.id }, one.id)));
  about();
  draw();
}).catch(error => fill("about", el("p", {}, error.message)));
draw();
