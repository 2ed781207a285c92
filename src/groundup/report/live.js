"use strict";
// Fetches a page that the server renders again, and updates only what has changed. The scroll position, the focus, open
// folds and text being typed are kept.

const main = document.querySelector("main");
const trouble = document.createElement("p");
trouble.className = "note";
trouble.setAttribute("role", "status");
main.after(trouble);

// The key that identifies an element when others appear or disappear above it; equal keys are matched in order.
const name = one => [
  one.nodeName, one.id, one.getAttribute("aria-label"), one.matches("tr, li") && one.querySelector("a")?.getAttribute("href"),
  one.matches("details") && one.querySelector("summary").textContent,
].join(" ");

function change(old, fresh) {
  if (old.isEqualNode(fresh) || old.matches("form")) return; // the user may be typing in a form
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  const known = new Map(), kept = new Map();
  for (const one of old.children) known.set(name(one), [...known.get(name(one)) ?? [], one]);
  for (const one of fresh.children) kept.set(one, known.get(name(one))?.shift());
  // Text nodes are replaced. A moved element loses the focus, so removed ones go first and the others need not move.
  const stays = new Set(kept.values());
  for (const one of [...old.childNodes]) if (!stays.has(one)) one.remove();
  let next = old.firstChild;
  for (const one of [...fresh.childNodes]) {
    const same = kept.get(one);
    if (same && same === next) next = next.nextSibling;
    else old.insertBefore(same ?? one, next);
    if (same) change(same, one);
  }
}

async function lookAgain() {
  try {
    const found = await fetch(location.href, { cache: "no-store" }).catch(() => { throw new Error("The server does not answer."); });
    const made = new DOMParser().parseFromString(await found.text(), "text/html");
    if (!found.ok) throw new Error(made.querySelector(".honest")?.textContent.trim() ?? `The server answers ${found.status}.`);
    // A row that moved elsewhere on the page keeps the focus.
    const focused = document.activeElement?.getAttribute("href");
    change(main, made.querySelector("main"));
    if (focused && document.activeElement?.getAttribute("href") !== focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    if (document.title !== made.title) document.title = made.title;
    trouble.textContent = "";
  } catch (error) {
    trouble.textContent = `${error.message} The page shows the last known state and keeps trying.`;
  }
  wait();
}

// A hidden page is not refreshed.
function wait() {
  setTimeout(() => document.hidden ? document.addEventListener("visibilitychange", lookAgain, { once: true }) : lookAgain(), 1000 * main.dataset.seconds);
}
wait();
