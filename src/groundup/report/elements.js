"use strict";
// Creates elements, with text always as text, and formats tokens and probabilities.

const byId = id => document.getElementById(id);
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
const fill = (id, ...children) => byId(id).replaceChildren(...children);
const visible = text => (/^ +$/.test(text) ? text.replace(/ /g, "␣") : text).replace(/\n/g, "↵").replace(/\t/g, "⇥");
const chip = (text, more = "") => el("span", { class: `token ${more}`, title: text.trim() }, visible(text) || "∅");
const percent = p => p >= .0995 ? `${(100 * p).toFixed(0)} %` : p >= .001 ? `${(100 * p).toFixed(1)} %` : p > 0 ? "< 0.1 %" : "0 %";
const wash = (color, share) => `background: color-mix(in srgb, ${color} ${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%, transparent)`;
