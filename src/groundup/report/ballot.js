"use strict";
// Keys press the buttons of a ballot, and a ballot is sent once, by who has seen it.

const ballot = document.querySelector("form.ballot");
// A key that was still held when the answers came, or a key or button pressed twice, is no choice: nobody chooses what was not shown yet.
const READ_MILLISECONDS = 400, shown = performance.now();
let sent = false;

ballot?.addEventListener("submit", event => {
  if (sent || performance.now() - shown < READ_MILLISECONDS) return event.preventDefault();
  sent = true;
});
// Who comes back to a page that the browser has kept may choose again.
addEventListener("pageshow", () => { sent = false; });

addEventListener("keydown", event => {
  if (!ballot || event.repeat || event.altKey || event.ctrlKey || event.metaKey || performance.now() - shown < READ_MILLISECONDS) return;
  if (event.target.closest?.("input, textarea, select")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const pressed = [...ballot.querySelectorAll("button")].find(one => one.dataset.keys.split(" ").includes(key));
  if (!pressed) return;
  event.preventDefault();
  pressed.click();
});
