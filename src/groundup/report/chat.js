// A conversation with the models of this server, with the probability of each generated token.

const LIKELIEST = 10; // most likely tokens shown for each position
const MOST_NATS = 8;
const ROOM = 3 / 4; // part of the context for the conversation; the rest is for the answer
const TEXT_TOKENS = 100; // tokens to continue a text by, unless set
const TIMED = 20; // fewest tokens for which the speed is shown
const NUMBERS = { temperature: "Temperature", top_p: "Top-p", max_tokens: "Most tokens", seed: "Seed" };
// The model sees the messages from `seen` on, and `note` is the element that says so. `tokens` and `letters` count the
// conversation up to the last complete answer. `asked` and `answered` are the elements of the last question and its
// answer, which can be regenerated; not after a failure, because then another question is the last on the page.
const nothingSaid = () => ({ messages: [], seen: 0, note: null, tokens: 0, letters: 0, asked: null, answered: null });
// `unsent` are the turns of a failed request, which stay on the page until the next message.
const state = { models: [], way: "chat", talk: nothingSaid(), unsent: [], running: null, loading: null, follows: true, key: sessionStorage.getItem("key") };
const model = () => state.models.find(one => one.id === byId("model").value);
const turns = (way = state.way) => byId(`turns-${way}`);

// The server.

const reached = promise => promise.catch(error => {
  throw error.name === "AbortError" ? error : new Error("the server does not answer; is it still running?");
});

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (state.key) headers.Authorization = `Bearer ${state.key}`;
  const method = body ? "POST" : "GET";
  const found = await reached(fetch(path, { method, headers, body: body && JSON.stringify(body), signal }));
  if (found.status === 401) {
    const given = prompt(state.key ? "That is not the key of this server. Its key:" : "This server asks for its key:")?.trim();
    // HTTP headers allow only these characters.
    state.key = /^[\x21-\x7e]+$/.test(given ?? "") ? given : null;
    sessionStorage.setItem("key", state.key ?? "");
    if (state.key) return ask(path, body, signal);
    throw new Error(given ? "the key has characters that are not ASCII; send again to give another" : "this server answers only with its key; send again to give it");
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
    const { value, done } = await reached(reader.read());
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

// Settings; empty fields are not sent, so the model's defaults apply.
function settings() {
  const found = { model: model().id, stream: true, stream_options: { include_usage: true } };
  for (const name of Object.keys(NUMBERS)) {
    const given = byId(name).value.trim();
    if (given) found[name] = Number(given);
  }
  return found;
}

// Streamed tokens: their bytes become text as soon as a character is complete.

function tokensOf(choice) {
  if (choice.delta) {
    return (choice.logprobs?.content ?? []).map(one => ({ ...one, best: one.top_logprobs.map(top => [top.token, top.logprob]) }));
  }
  const told = choice.logprobs;
  return (told?.tokens ?? []).map((token, i) => ({ token, logprob: told.token_logprobs[i], best: Object.entries(told.top_logprobs?.[i] ?? {}) }));
}

function drawToken(token, text) {
  const surprise = Math.min(1, -token.logprob / MOST_NATS).toFixed(3);
  const made = el("span", {
    class: "spoken", style: `--surprise: ${surprise}`, "data-chance": percent(Math.exp(token.logprob)), onclick: () => look(made, token),
    onkeydown: event => {
      const all = [...made.parentElement.querySelectorAll(".spoken")], next = all[all.indexOf(made) + { ArrowLeft: -1, ArrowRight: 1 }[event.key]];
      if (next) { for (const one of all) one.tabIndex = one === next ? 0 : -1; next.focus(); }
      else if (event.key === "Enter" || event.key === " ") look(made, token);
      else return;
      event.preventDefault();
    },
  }, text);
  return made;
}

// Tokens are buttons only while probabilities are shown, and each turn has one tab stop.
function lookable(token, i) {
  if (byId("look").checked) {
    token.tabIndex = i ? -1 : 0;
    token.setAttribute("role", "button");
    token.setAttribute("title", token.getAttribute("data-chance"));
    if (!token.textContent.trim()) token.setAttribute("aria-label", visible(token.textContent) || "part of a character");
  } else for (const name of ["tabindex", "role", "title", "aria-label", "aria-expanded"]) token.removeAttribute(name);
}

// Shows the alternatives to a token.
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
    el("p", {}, `The most likely tokens here, before temperature and top-p; framed is the sampled one (${percent(Math.exp(token.logprob))}, ${(-token.logprob).toFixed(2)} nats).`),
    ...rows.flatMap(([name, logprob]) => [
      chip(name, name === token.token ? "drawn" : ""),
      el("i", { style: `width: ${(100 * Math.exp(logprob) / most).toFixed(1)}%` }),
      el("span", { class: "number" }, percent(Math.exp(logprob)), ...(name === token.token ? [el("span", { class: "heard" }, ", drawn")] : [])),
    ])));
  said.scrollIntoView({ block: "nearest" });
}

// Turns.

function turn(role, ...children) {
  const words = el("div", { class: "words", dir: "auto" }, ...children);
  const who = role === "user" ? el("span", { class: "heard" }, "You said:") : el("span", { class: "who" }, model().id);
  const made = el("div", { class: `turn ${role}` }, who, words);
  turns().append(made);
  state.follows = true;
  follow();
  return made;
}

// The page scrolls along with an answer while its end is in view, until the user scrolls up.
let was = 0; // the scroll position after the last scrolling
function watch() {
  const last = turns().lastElementChild, end = Math.min(window.innerHeight, byId("foot").getBoundingClientRect().top);
  const inView = !last || last.getBoundingClientRect().bottom <= end;
  state.follows = inView || (state.follows && window.scrollY >= was);
  was = window.scrollY;
}
function follow() {
  if (!state.follows) return;
  turns().lastElementChild?.scrollIntoView({ block: "end" });
  was = window.scrollY; // the page's own scrolling does not count as the user's
}

const ENDS = { length: " … (cut: no more tokens)", content_filter: " (the guard's sentence)" };

// Streams an answer into a new turn; returns its text and the total tokens, or null if it failed or was stopped before
// it began. `shorter` returns a shorter request body for one that is too long, if possible.
async function answer(path, body, made, shorter = () => null) {
  const words = made.querySelector(".words"), text = new TextDecoder();
  const stop = state.running = new AbortController(), { guarded } = state.models.find(one => one.id === body.model);
  const tell = (id, told) => { if (made.isConnected) byId(id).textContent = told; };
  let said = "", all = 0, count = 0, pieces = 0, begun = null, failed = false;
  draw();
  try {
    for await (const chunk of chunks(await ask(path, body, stop.signal))) {
      const choice = chunk.choices[0];
      if (chunk.usage) all = chunk.usage.total_tokens;
      if (!choice) continue;
      const content = choice.delta ? choice.delta.content ?? "" : choice.text;
      said += content;
      const tokens = tokensOf(choice);
      if (tokens.length) { begun ??= performance.now(); pieces += 1; count += tokens.length; }
      // A chunk of several tokens (with a guard) or none is shown as plain text; the end token has no text.
      const ends = choice.finish_reason === "stop" && !content;
      if (tokens.length === 1 && !ends && !guarded) {
        const piece = tokens[0].bytes ? text.decode(Uint8Array.from(tokens[0].bytes), { stream: true }) : content;
        const first = !words.querySelector(".spoken"), drawn = drawToken(tokens[0], piece);
        words.append(drawn);
        lookable(drawn, first ? 0 : 1);
      } else if (content) words.append(content);
      if (choice.finish_reason in ENDS) made.append(el("span", { class: "end" }, ENDS[choice.finish_reason]));
      follow();
    }
  } catch (error) {
    const next = error.code === "context_length_exceeded" && shorter();
    if (next) return answer(path, next, made, shorter);
    const stopped = error.name === "AbortError";
    failed = !stopped || !said;
    made.append(stopped ? el("span", { class: "end" }, " … (stopped)") : el("p", { class: "wrong" }, error.message));
    tell("heard", stopped ? "stopped" : error.message);
  }
  words.append(text.decode()); // the rest of an incomplete character
  const seconds = pieces > 1 ? (performance.now() - begun) / 1000 : 0;
  const speed = count >= TIMED && seconds > 0 ? `, ${Math.round((count - 1) / seconds).toLocaleString()} tokens/s` : "";
  tell("speed", count ? `${count} token${count > 1 ? "s" : ""}${speed}` : "");
  if (!failed) tell("heard", said);
  state.running = null;
  follow();
  return failed ? null : { said, all };
}

// After a failure the text is put back into the box, unless the user has typed something new.
function unsend(text, ...failed) {
  state.unsent.push(...failed);
  byId("said").value ||= text;
}

// Drops the oldest turns from the model's context when the conversation is too long; they stay on the page.
function forget(talk) {
  if (talk.messages.length - talk.seen < 3) return false;
  if (!talk.note) {
    talk.note = el("p", { class: "end" }, "From now on the model does not see the oldest messages: the conversation is longer than its context.");
    talk.asked.before(talk.note);
  }
  talk.seen += 2;
  return true;
}

function withSystem(messages) {
  const content = byId("system").value.trim();
  return content ? [{ role: "system", content }, ...messages] : messages;
}
const shown = talk => withSystem(talk.messages.slice(talk.seen));
const letters = talk => shown(talk).reduce((sum, one) => sum + one.content.length, 0);
// Estimates the tokens of the visible messages from the tokens per letter so far.
const expected = talk => talk.tokens * letters(talk) / Math.max(1, talk.letters);

// Lets the model answer the last message; on a failure restores the `earlier` state.
async function chat(earlier) {
  const { talk } = state, made = turn("assistant");
  while (talk.tokens && expected(talk) > ROOM * model().max_model_len && forget(talk));
  const body = { ...settings(), logprobs: true, top_logprobs: LIKELIEST };
  const shorter = () => forget(talk) && { ...body, messages: shown(talk) };
  const found = await answer("/v1/chat/completions", { ...body, messages: shown(talk) }, made, shorter);
  if (state.talk !== talk) { draw(); return; } // another conversation was begun meanwhile
  const { asked, messages, note } = talk, repeats = asked === earlier.asked;
  if (found) {
    if (repeats) earlier.answered.remove();
    talk.messages = [...messages, { role: "assistant", content: found.said }];
    talk.answered = made;
    if (found.all) Object.assign(talk, { letters: letters(talk), tokens: found.all });
  } else {
    if (note !== earlier.note) note.remove();
    Object.assign(talk, earlier);
    if (repeats) { earlier.answered.hidden = false; unsend("", made); }
    else { talk.answered = null; unsend(messages.at(-1).content, asked, made); }
  }
  draw();
}

function again() {
  if (!ready()) return;
  const { talk } = state, earlier = { ...talk };
  talk.answered.hidden = true;
  talk.messages = talk.messages.slice(0, -1);
  chat(earlier);
  byId("said").focus();
}

async function goOn(text) {
  const made = turn("text", el("strong", {}, text));
  const found = await answer("/v1/completions", { max_tokens: TEXT_TOKENS, ...settings(), prompt: text, logprobs: LIKELIEST }, made);
  if (!found && made.isConnected) unsend(text, made);
  draw();
}

// Returns whether a request can be sent now; otherwise the page shows the reason.
function ready() {
  if (state.running || !model()) return false;
  const unread = Object.keys(NUMBERS).find(name => byId(name).validity.badInput);
  byId("trouble").textContent = unread ? `${NUMBERS[unread]} is not a number; correct it or leave it empty` : "";
  if (unread) { byId("settings").open = true; return false; }
  state.unsent.forEach(one => one.remove());
  state.unsent = [];
  return true;
}

// Sends a message; returns whether it was sent.
function send(text) {
  if (!text.trim() || !ready()) return false;
  if (state.way === "text") goOn(text);
  else {
    const { talk } = state, earlier = { ...talk };
    talk.asked = turn("user", text);
    talk.messages = [...talk.messages, { role: "user", content: text }];
    chat(earlier);
  }
  return true;
}

// The messages that groundup sft can train on: it refuses data with empty answers.
const learnable = () => state.talk.messages.filter((one, i, all) => all[i | 1]?.content.trim());

// The page.

function draw() {
  const talks = state.way === "chat", busy = state.running !== null, looks = byId("look").checked;
  byId("send").textContent = busy ? "Stop" : talks ? "Send" : "Continue";
  byId("said").placeholder = talks ? "Your message; Enter sends it, Shift+Enter begins a line" : "The beginning of a text";
  byId("max_tokens").placeholder = talks ? "as many as fit" : TEXT_TOKENS;
  byId("again").disabled = busy || !talks || !state.talk.answered;
  byId("save").disabled = busy || !talks || !learnable().length;
  byId("new").disabled = !turns().children.length;
  for (const way of ["chat", "text"]) {
    byId(way).setAttribute("aria-pressed", way === state.way);
    turns(way).hidden = way !== state.way;
  }
  byId("suggestions").hidden = !talks;
  byId("legend").hidden = !looks;
  document.body.classList.toggle("looking", looks);
  document.querySelectorAll(".words").forEach(words => words.querySelectorAll(".spoken").forEach(lookable));
  if (!looks) document.querySelectorAll(".chances").forEach(one => one.remove());
  grow();
}

const GUARD = "A guard is on: it checks each message and each answer, so answers appear as a whole, without token probabilities.";
async function about() {
  const one = model();
  if (one && !one.about) { // not loaded yet
    fill("about", el("p", {}, `Loading ${one.id} …`));
    fill("suggestions");
    const found = await ask(`/v1/models/${one.id.split("/").map(encodeURIComponent).join("/")}`);
    Object.assign(one, await found.json());
  }
  if (one !== model()) return; // another one was chosen meanwhile
  const { about = [], suggestions = [], guarded } = one ?? {};
  fill("about", ...[...about, ...(guarded ? [GUARD] : [])].map(text => el("p", {}, text)));
  fill("suggestions", ...suggestions.map(text => el("button", { type: "button", onclick: () => send(text) }, text)));
}

function grow() {
  const box = byId("said");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function begin() {
  state.running?.abort();
  if (state.way === "chat") state.talk = nothingSaid();
  turns().replaceChildren();
  for (const id of ["heard", "trouble", "speed"]) fill(id);
  draw();
  byId("said").focus();
}

function load(more = "") {
  fill("about", el("p", {}, `Loading the list of models … ${more}`));
  return state.loading ??= listed().finally(() => { state.loading = null; });
}

async function listed() {
  byId("trouble").textContent = "";
  try {
    const found = await ask("/v1/models");
    state.models = (await found.json()).data;
    if (!state.models.length) throw new Error("none is finished that could be talked to");
    fill("model", ...state.models.map(one => el("option", { value: one.id }, one.id)));
    const wanted = new URLSearchParams(location.search).get("model"), known = state.models.some(one => one.id === wanted);
    if (known) byId("model").value = wanted;
    chosen(known || !wanted ? "" : `There is no model “${wanted}” here; this is ${model().id}.`);
  } catch (error) {
    fill("about");
    byId("trouble").textContent = `There is no model yet: ${error.message}`;
  }
}

// Shows the description of the chosen model, or why it cannot be loaded.
async function chosen(trouble = "") {
  byId("trouble").textContent = trouble;
  try {
    await about();
  } catch (error) {
    fill("about");
    byId("trouble").textContent = error.message;
  }
}

byId("ask").addEventListener("submit", async event => {
  event.preventDefault();
  if (state.running) { state.running.abort(); return; }
  if (!model()) await load("Your message is sent when they are there.");
  if (send(byId("said").value)) byId("said").value = "";
  grow();
});
byId("said").addEventListener("keydown", event => {
  // Safari ends a composition before the Enter that selects a word; that Enter has key code 229.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  if (!state.running) byId("ask").requestSubmit();
});
byId("said").addEventListener("input", grow);
byId("look").addEventListener("change", draw);
byId("model").addEventListener("change", () => {
  history.replaceState(null, "", `?${new URLSearchParams({ model: model().id })}`);
  chosen();
});
for (const way of ["chat", "text"]) {
  byId(way).addEventListener("click", () => {
    Object.assign(state, { way, follows: true });
    draw();
    follow();
    byId("said").focus();
  });
}
byId("new").addEventListener("click", begin);
byId("again").addEventListener("click", again);
// Saves the conversation as a line of data, like /save.
byId("save").addEventListener("click", () => {
  const line = `${JSON.stringify({ messages: withSystem(learnable()) })}\n`;
  const link = el("a", { href: URL.createObjectURL(new Blob([line], { type: "application/jsonl" })), download: "talk.jsonl" });
  link.click();
  URL.revokeObjectURL(link.href);
});
window.addEventListener("scroll", watch, { passive: true });
window.addEventListener("resize", grow);
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--foot", `${byId("foot").offsetHeight}px`);
  follow();
}).observe(byId("foot"));

load();
draw();
