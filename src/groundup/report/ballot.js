"use strict";
// Keys press the buttons of a ballot; what is pressed on its pages is sent once, by who has seen them.

const ballot = document.querySelector("form.ballot");
// A key that was still held when a page came, or a key or button pressed twice, is no choice: nobody chooses what was not shown yet.
const READ_MILLISECONDS = 400, shown = performance.now();
const isRead = () => performance.now() - shown >= READ_MILLISECONDS;
let sent = false;

addEventListener("click", event => { if (!isRead() && event.target.closest?.("a, button")) event.preventDefault(); }, true);
addEventListener("submit", event => {
  if (sent || !isRead()) return event.preventDefault();
  sent = true;
});
// Who comes back to a page that the browser has kept may choose again.
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
