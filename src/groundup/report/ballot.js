"use strict";
// Keys press the buttons of a ballot; each choice is sent once, and only after the page was visible for a moment.

const ballot = document.querySelector("form.ballot");
// Ignores a key still held when the page loads, and a second press of a key or button: nothing could be read yet.
const READ_MILLISECONDS = 400, shown = performance.now();
const isRead = () => performance.now() - shown >= READ_MILLISECONDS;
let sent = false;

addEventListener("click", event => { if (!isRead() && event.target.closest?.("a, button")) event.preventDefault(); }, true);
addEventListener("submit", event => {
  if (sent || !isRead()) return event.preventDefault();
  sent = true;
});
// A user who returns to a page from the browser's cache may choose again.
addEventListener("pageshow", () => { sent = false; });

addEventListener("keydown", event => {
  if (!ballot || event.repeat || event.altKey || event.ctrlKey || event.metaKey || !isRead()) return;
  if (event.target.closest?.("input, textarea, select")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const pressed = [...ballot.querySelectorAll("button")].find(one => one.dataset.keys.split(" ").includes(key));
  if (!pressed) return;
  event.preventDefault();
  pressed.click();
});
