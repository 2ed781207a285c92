"use strict";
// The interactive pages of groundup learn: sliders above, canvases below, one function per page.

const data = JSON.parse(document.getElementById("data").textContent);
const said = document.getElementById("said");
const values = {};
const readers = {};

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function short(number, digits = 2) {
  if (!Number.isFinite(number)) return "∞";
  const size = Math.abs(number);
  if (size !== 0 && (size >= 1e5 || size < 10 ** -digits / 2)) return number.toExponential(1);
  return number.toFixed(digits).replace("-", "−");
}

// Sliders with labels; one of them can be animated by a button.

function slider(one) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const output = document.createElement("output");
  Object.assign(input, { type: "range", min: one.min, max: one.max, step: one.step });
  input.value = one.value;
  input.id = `slider-${one.name}`;
  const read = () => {
    values[one.name] = Number(input.value);
    output.textContent = one.labels ? one.labels[values[one.name]] : short(values[one.name], one.digits ?? 2);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  readers[one.name] = (value) => { input.value = value; read(); };
  input.addEventListener("input", () => { read(); draw(); });
  label.append(`${one.label} `, input, output);
  document.getElementById("sliders").append(label);
  read();
  if (one.plays) player(one);
}

function player(one) {
  const button = document.createElement("button");
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
  button.textContent = "Play";
  button.addEventListener("click", () => {
    if (timer !== null) { stop(); return; }
    if (values[one.name] >= one.max) readers[one.name](one.min);
    button.textContent = "Pause";
    timer = setInterval(() => {
      const next = values[one.name] + one.step * (one.stride ?? 1);
      readers[one.name](Math.min(next, one.max));
      draw();
      if (next >= one.max) stop();
    }, one.pause ?? 120);
  });
  document.getElementById("sliders").append(button);
}

// Canvases in mathematical coordinates, with y upwards.

const canvases = [];

function canvas(caption, { width = 520, height = 420 } = {}) {
  const figure = document.createElement("figure");
  const element = document.createElement("canvas");
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", caption);
  element.style.aspectRatio = `${width} / ${height}`;
  const text = document.createElement("figcaption");
  text.textContent = caption;
  figure.append(element, text);
  document.getElementById("canvases").append(figure);
  const one = { element, width, height, context: element.getContext("2d") };
  canvases.push(one);
  return one;
}

function cleared(one) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  one.element.width = one.width * ratio;
  one.element.height = one.height * ratio;
  const c = one.context;
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, one.width, one.height);
  c.font = "12px system-ui, sans-serif";
  c.lineWidth = 1;
  return c;
}

function scaled(one, [left, right, bottom, top], margin = 0) {
  const w = one.width - 2 * margin, h = one.height - 2 * margin;
  return ([x, y]) => [
    margin + (w * (x - left)) / (right - left),
    margin + h - (h * (y - bottom)) / (top - bottom),
  ];
}

function line(c, points, style, width = 1.5, dash = []) {
  c.beginPath();
  points.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.strokeStyle = style;
  c.lineWidth = width;
  c.setLineDash(dash);
  c.stroke();
  c.setLineDash([]);
}

function dot(c, [x, y], style, radius = 3.5) {
  c.beginPath();
  c.arc(x, y, radius, 0, 2 * Math.PI);
  c.fillStyle = style;
  c.fill();
}

function axes(one, c, window_, margin, xs, ys, at = scaled(one, window_, margin)) {
  const [left, right, bottom, top] = window_;
  c.fillStyle = color("soft");
  for (const [x, text] of xs) {
    line(c, [at([x, bottom]), at([x, top])], color("line"));
    c.textAlign = "center";
    c.fillText(text, at([x, bottom])[0], one.height - margin + 15);
  }
  for (const [y, text] of ys) {
    line(c, [at([left, y]), at([right, y])], color("line"));
    c.textAlign = "right";
    c.fillText(text, margin - 5, at([left, y])[1] + 4);
  }
  return at;
}

// Draws clipped to the frame, so that lines leave it at the edges.
function framed(one, c, margin, draw) {
  c.save();
  c.beginPath();
  c.rect(margin, margin, one.width - 2 * margin, one.height - 2 * margin);
  c.clip();
  draw();
  c.restore();
}

// A dot at mathematical [x, y]; outside the frame, an arrow at its edge with the value.
function marked(one, c, at, [, , bottom, top], [x, y], style, text, radius = 5) {
  if (y >= bottom && y <= top) { dot(c, at([x, y]), style, radius); return; }
  // The margin above the frame is free; below it are the numbers of the axis.
  const up = y > top, [px, edge] = at([x, up ? top : bottom]), py = up ? edge - 14 : edge, s = up ? 1 : -1;
  c.beginPath();
  [[0, 0], [-6, 10], [6, 10]].forEach(([dx, dy], i) => (i ? c.lineTo(px + dx, py + s * dy) : c.moveTo(px, py)));
  c.fillStyle = style;
  c.fill();
  const right = px > one.width / 2;
  c.textAlign = right ? "right" : "left";
  c.fillText(text, px + (right ? -10 : 10), py + (up ? 11 : -4));
}

// The pages.

const pages = {
  gradient_descent() {
    const one = canvas("The valley from above, its lines of equal height, and the walk from the upper left.");
    const two = canvas("The distance from the bottom, step by step, on a logarithmic scale; an arrow where it lies beyond the frame.");
    const [flat, steep] = data.curvatures;
    const { left, right, bottom, top } = data.window;
    return () => {
      const walk = data.walks[values.momentum][values.rate];
      const rate = data.rates[values.rate];
      const shown = walk.slice(0, values.step + 1);
      const c = cleared(one), at = scaled(one, [left, right, bottom, top]);
      for (const level of [0.1, 0.5, 1.5, 3.5, 7, 12, 20, 32]) {
        const ring = [];
        for (let i = 0; i <= 90; i++) {
          const t = (i / 45) * Math.PI;
          ring.push(at([Math.cos(t) * Math.sqrt((2 * level) / flat), Math.sin(t) * Math.sqrt((2 * level) / steep)]));
        }
        line(c, ring, color("line"));
      }
      dot(c, at([0, 0]), color("good"), 5);
      line(c, shown.map(at), color("accent"), 2);
      shown.forEach((p) => dot(c, at(p), color("accent"), 3));
      const distances = walk.map(([x, y]) => Math.hypot(x, y));
      const d = cleared(two), last = walk.length - 1;
      const frame = [0, data.steps, -6, 2];
      const here = axes(two, d, frame, 36,
        [[0, "0"], [10, "10"], [20, "20"], [30, "30"], [40, "40"]],
        [[-6, "1e-6"], [-4, "1e-4"], [-2, "0.01"], [0, "1"], [2, "100"]]);
      const logs = distances.map((x, i) => [i, Math.log10(Math.max(x, 1e-12))]);
      framed(two, d, 36, () => {
        line(d, logs.map(here), color("faint"), 1);
        line(d, logs.slice(0, values.step + 1).map(here), color("accent"), 2);
      });
      const now = Math.min(values.step, last);
      marked(two, d, here, frame, logs[now], color("accent"), short(distances[now]), 4);
      const grows = distances[last] > distances[0];
      said.textContent = values.momentum
        ? `η = ${short(rate, 3)} with momentum ${data.momentum}: after ${values.step} steps ${short(distances[Math.min(values.step, last)], 4)} from the bottom.`
        : `η = ${short(rate, 3)}. Each step multiplies the long direction by 1 − η·${flat} = ${short(1 - rate * flat, 2)} and the steep one by 1 − η·${steep} = ${short(1 - rate * steep, 2)}. ` +
          (grows ? "It diverges: η is beyond 2 / λ_max." : `After ${values.step} steps: ${short(distances[Math.min(values.step, last)], 4)} from the bottom.`);
    };
  },

  layer() {
    const one = canvas("The plane before, with a grid; the shaded part is what the network takes for the heap.");
    const two = canvas("The same plane behind tanh(W x + b), and the straight line by which the last neuron decides.");
    const bounds = [-2.2, 2.2, -2.2, 2.2];
    const lines = [];
    for (let k = -10; k <= 10; k++) {
      const across = [], up = [];
      for (let i = -40; i <= 40; i++) { across.push([i / 20, k / 5]); up.push([k / 5, i / 20]); }
      lines.push(across, up);
    }
    return () => {
      const { W, b, v, c: bias, loss, right } = data.snapshots[values.step];
      const t = values.bend;
      const bent = ([x, y]) => {
        const z = [W[0][0] * x + W[0][1] * y + b[0], W[1][0] * x + W[1][1] * y + b[1]];
        // First interpolate from the identity to the linear map, then apply the nonlinearity.
        const s = Math.min(1, 2 * t), r = Math.max(0, 2 * t - 1);
        const linear = [x + s * (z[0] - x), y + s * (z[1] - y)];
        return linear.map((q) => q + r * (Math.tanh(q) - q));
      };
      const a = cleared(one), before = scaled(one, bounds);
      lines.forEach((l) => line(a, l.map(before), color("line")));
      a.globalAlpha = 0.16;
      a.fillStyle = color("accent");
      // Where the network outputs one half: a bent line in the input plane.
      for (let i = -44; i < 44; i++) for (let j = -44; j < 44; j++) {
        const p = [i / 20, j / 20];
        const z = [0, 1].map((k) => Math.tanh(W[k][0] * p[0] + W[k][1] * p[1] + b[k]));
        if (v[0] * z[0] + v[1] * z[1] + bias > 0) {
          const [x, y] = before(p);
          a.fillRect(x, y - 4.8, 6, 4.8);
        }
      }
      a.globalAlpha = 1;
      const d = cleared(two), reach = 2.2 - 0.9 * Math.max(0, 2 * t - 1);
      const after = scaled(two, [-reach, reach, -reach, reach]);
      lines.forEach((l) => line(d, l.map(bent).map(after), color("line")));
      data.points.forEach(([x, y, kind]) => {
        const style = color(kind ? "accent" : "bad");
        dot(a, before([x, y]), style, 3);
        dot(d, after(bent([x, y])), style, 3);
      });
      if (t === 1) {
        const far = [-3, 3].map((q) => Math.abs(v[1]) > Math.abs(v[0]) ? [q, (-bias - v[0] * q) / v[1]] : [(-bias - v[1] * q) / v[0], q]);
        line(d, far.map(after), color("ink"), 2);
      }
      said.textContent = `Training step ${data.steps[values.step]}: loss ${short(loss, 3)}, ${short(100 * right, 0)} % of the points on their side. ` +
        (t === 1 ? "Behind the bend, one straight line parts them." : t > 0.5 ? "The tanh presses everything into a square." : "So far the plane is only turned, stretched and moved: no straight line gets better by that.");
    };
  },

  likelihood() {
    const one = canvas("The softmax of five logits: the probability of each token.");
    return () => {
      const z = data.tokens.map((token, i) => (i ? data.logits[i] : values.first));
      const T = data.temperatures[values.temperature];
      const most = Math.max(...z);
      const e = z.map((x) => Math.exp((x - most) / T));
      const sum = e.reduce((x, y) => x + y, 0);
      const p = e.map((x) => x / sum);
      const c = cleared(one), row = one.height / p.length;
      p.forEach((x, i) => {
        const y = i * row + row / 2;
        c.fillStyle = color("ink");
        c.textAlign = "right";
        c.font = "15px ui-monospace, monospace";
        c.fillText(data.tokens[i], 80, y + 5);
        c.fillStyle = color(i ? "accent" : "good");
        c.fillRect(92, y - 14, Math.max(1, x * (one.width - 240)), 28);
        c.fillStyle = color("soft");
        c.textAlign = "left";
        c.font = "13px system-ui, sans-serif";
        c.fillText(`${short(100 * x, 1)} %   (z = ${short(z[i], 1)})`, 98 + x * (one.width - 240), y + 5);
      });
      const entropy = -p.reduce((x, q) => x + (q > 0 ? q * Math.log(q) : 0), 0);
      said.textContent = `Temperature ${short(T, 2)}: entropy ${short(entropy, 2)} nats, as if choosing among ${short(Math.exp(entropy), 2)} equally likely tokens. ` +
        `If “${data.tokens[0]}” comes, the loss is ${short(-Math.log(p[0]), 2)} nats.`;
    };
  },

  low_rank() {
    const { u, s, vt } = data, n = s.length;
    const one = canvas("The picture, as the sum of its first terms.", { width: 420, height: 420 });
    const two = canvas("The singular values; those that are kept are filled.", { width: 420, height: 420 });
    const total = s.reduce((x, y) => x + y * y, 0);
    return () => {
      const r = values.rank, c = cleared(one), cell = one.width / n;
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
        let x = 0;
        for (let k = 0; k < r; k++) x += s[k] * u[i][k] * vt[k][j];
        const gray = Math.max(0, Math.min(255, Math.round(255 * x)));
        c.fillStyle = `rgb(${gray}, ${gray}, ${gray})`;
        c.fillRect(j * cell, i * cell, cell + 0.6, cell + 0.6);
      }
      const d = cleared(two), top = Math.log10(s[0]) + 0.2;
      const at = axes(two, d, [0, n, -2, top], 36, [[0, "1"], [n / 2, String(n / 2)], [n, String(n)]],
        [[-2, "0.01"], [-1, "0.1"], [0, "1"], [1, "10"]].filter(([y]) => y <= top));
      s.forEach((x, k) => {
        const [left, up] = at([k + 0.15, Math.max(-2, Math.log10(Math.max(x, 1e-9)))]);
        const [right, down] = at([k + 0.85, -2]);
        d.fillStyle = color(k < r ? "accent" : "line");
        d.fillRect(left, up, right - left, down - up);
      });
      const kept = s.slice(0, r).reduce((x, y) => x + y * y, 0);
      said.textContent = `Rank ${r}: ${(2 * r * n).toLocaleString("en")} numbers instead of ${(n * n).toLocaleString("en")}, ` +
        `${short((100 * kept) / total, 2)} % of the sum of squares, an error of ${short(Math.sqrt(Math.max(0, total - kept)), 3)} (|A| is ${short(Math.sqrt(total), 1)}).`;
    };
  },

  regularization() {
    const one = canvas("Sixteen noisy points (filled), new ones from the same source (rings), and the polynomial that was fitted to the filled ones.");
    const two = canvas("The error on both, by degree, on a logarithmic scale; an arrow where it lies beyond the frame.");
    const bounds = [-1, 1, -2.1, 2.1];
    return () => {
      const fit = data.fits[values.penalty][values.degree];
      const c = cleared(one), at = scaled(one, bounds);
      line(c, data.x.map((x, i) => at([x, data.truth[i]])), color("faint"), 1.5, [4, 4]);
      line(c, data.x.map((x, i) => at([x, fit.curve[i]])), color("accent"), 2.5);
      data.heldout.forEach((p) => {
        c.beginPath();
        c.arc(...at(p), 3.5, 0, 2 * Math.PI);
        c.strokeStyle = color("bad");
        c.lineWidth = 1.2;
        c.stroke();
      });
      data.train.forEach((p) => dot(c, at(p), color("ink"), 4));
      const d = cleared(two), fits = data.fits[values.penalty];
      const frame = [0, fits.length - 1, -2.2, 1];
      const here = axes(two, d, frame, 36,
        fits.map((_, i) => [i, i % 3 ? "" : String(i)]), [[-2, "0.01"], [-1, "0.1"], [0, "1"], [1, "10"]]);
      for (const [name, style] of [["train", "ink"], ["heldout", "bad"]]) {
        const points = fits.map((f, i) => [i, Math.log10(Math.max(f[name], 1e-12))]);
        framed(two, d, 36, () => line(d, points.map(here), color(style), 2));
        marked(two, d, here, frame, points[values.degree], color(style), short(fit[name]));
        d.fillStyle = color(style);
        d.textAlign = "left";
        d.fillText(name === "train" ? "the points it has seen" : "new points", 46, name === "train" ? one.height - 52 : 52);
      }
      const best = fits.reduce((b, f, i) => (f.heldout < fits[b].heldout ? i : b), 0);
      said.textContent = `Degree ${values.degree}: mean squared error ${short(fit.train, 3)} on the points it has seen, ${short(fit.heldout, 3)} on new ones. ` +
        (values.degree === best ? "No other degree does better on new points." : values.degree < best ? "Too stiff: it could still learn more (underfitting)." : "It learns the noise by heart (overfitting).");
    };
  },
};

data.sliders.forEach(slider);
const draw = pages[data.kind]();
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
