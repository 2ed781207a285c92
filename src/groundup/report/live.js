"use strict";
// Looks again at a page that a server makes anew, and changes on it what has changed: where a reader has scrolled to,
// what has the focus, what is folded open and what is being written stay as they are.

const main = document.querySelector("main");
const trouble = document.createElement("p");
trouble.className = "note";
trouble.setAttribute("role", "status");
main.after(trouble);

// By what a part of a page is known again when others come and go above it; those of one name by their order.
const name = one => [
  one.nodeName, one.id, one.getAttribute("aria-label"), one.matches("tr, li") && one.querySelector("a")?.getAttribute("href"),
  one.matches("details") && one.querySelector("summary").textContent,
].join(" ");

function change(old, fresh) {
  if (old.isEqualNode(fresh) || old.matches("form")) return; // a reader writes in it
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  const known = new Map(), kept = new Map();
  for (const one of old.children) known.set(name(one), [...known.get(name(one)) ?? [], one]);
  for (const one of fresh.children) kept.set(one, known.get(name(one))?.shift());
  // Text is new. What is moved loses the focus: first goes what has gone, so that the rest stays in its place.
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
    // A row that went elsewhere on the page takes the focus along.
    const focused = document.activeElement?.getAttribute("href");
    change(main, made.querySelector("main"));
    if (focused && document.activeElement?.getAttribute("href") !== focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    if (document.title !== made.title) document.title = made.title;
    trouble.textContent = "";
  } catch (error) {
    trouble.textContent = `${error.message} What stands here is as it was; this page goes on asking.`;
  }
  wait();
}

// What nobody sees need not be made.
function wait() {
  setTimeout(() => document.hidden ? document.addEventListener("visibilitychange", lookAgain, { once: true }) : lookAgain(), 1000 * main.dataset.seconds);
}
wait();
