"use strict";
// Looks again at a page that a server makes anew, and changes on it what has changed: where a reader has scrolled to,
// what has the focus, what is folded open and what is being written stay as they are.

const main = document.querySelector("main");
const trouble = document.createElement("p");
trouble.className = "note";
trouble.setAttribute("role", "status");
main.after(trouble);

function change(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const alike = old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && old.id === fresh.id;
  if (!alike) { old.replaceWith(fresh); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) { old.nodeValue = fresh.nodeValue; return; }
  if (old.matches("form")) return; // a reader writes in it
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  const [olds, news] = [[...old.childNodes], [...fresh.childNodes]];
  news.forEach((one, i) => i < olds.length ? change(olds[i], one) : old.append(one));
  olds.slice(news.length).forEach(one => one.remove());
}

async function lookAgain() {
  try {
    const found = await fetch(location.href, { cache: "no-store" });
    if (!found.ok) throw new Error(`the server answers ${found.status}`);
    const made = new DOMParser().parseFromString(await found.text(), "text/html");
    // A row that went elsewhere on the page takes the focus along.
    const focused = document.activeElement?.getAttribute("href");
    change(main, made.querySelector("main"));
    if (focused && document.activeElement?.getAttribute("href") !== focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    if (document.title !== made.title) document.title = made.title;
    trouble.textContent = "";
  } catch {
    trouble.textContent = "The server does not answer; what stands here is as it was. This page goes on asking.";
  }
  wait();
}

// What nobody sees need not be made.
function wait() {
  setTimeout(() => document.hidden ? document.addEventListener("visibilitychange", lookAgain, { once: true }) : lookAgain(), 1000 * main.dataset.seconds);
}
wait();
