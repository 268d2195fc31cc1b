"use strict";
// The model: E(z) = -b'z - z'Jz, p(x | z) and q(z | x) as dense layers; weights of half precision, sums of double.
const explorer = (() => {
  const held = JSON.parse(document.getElementById("held").textContent);
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
  const singles = text => Float64Array.from(new Float32Array(bytes(text)));
  const halves = text => Float32Array.from(new Uint16Array(bytes(text)), half => {
    const sign = half & 0x8000 ? -1 : 1, power = (half >> 10) & 31, rest = half & 1023;
    return sign * (power ? (1 + rest / 1024) * 2 ** (power - 15) : rest * 2 ** -24);
  });
  const layer = of => ({ weight: halves(of.weight), bias: singles(of.bias), tanh: of.tanh });
  const decoder = held.decoder.map(layer), encoder = held.encoder.map(level => level.map(layer));
  const bias = singles(held.bias), bits = bias.length, upper = halves(held.couplings);
  const couplings = new Float32Array(bits * bits);
  for (let i = 0; i < bits; i++)
    for (let j = 0; j < bits; j++) couplings[i * bits + j] = upper[i * bits + j] + upper[j * bits + i];
  const blocks = [];
  held.blocks.reduce((start, size) => (blocks.push([start, start + size]), start + size), 0);
  blocks.unshift(...blocks.splice(held.first, 1)); // the summed-out block begins a sweep
  const groups = [];
  held.groups.reduce((start, size) => (groups.push([start, start + size]), start + size), 0);

  const through = (layers, input) => layers.reduce((x, { weight, bias, tanh }) => {
    const y = Float64Array.from(bias), inputs = x.length;
    for (let i = 0, at = 0; i < y.length; i++) {
      let sum = y[i];
      for (let j = 0; j < inputs; j++, at++) sum += weight[at] * x[j];
      y[i] = tanh ? Math.tanh(sum) : sum;
    }
    return y;
  }, input);
  const sigmoid = logit => 1 / (1 + Math.exp(-logit));
  const softplus = logit => Math.max(logit, 0) + Math.log1p(Math.exp(-Math.abs(logit)));
  const logBernoulli = (values, logits) => values.reduce((sum, value, i) => sum + value * logits[i] - softplus(logits[i]), 0);

  const field = (z, i) => {
    let sum = bias[i];
    for (let j = 0, at = i * bits; j < bits; j++, at++) if (z[j]) sum += couplings[at];
    return sum;
  };
  const energy = z => -z.reduce((sum, bit, i) => (bit ? sum + bias[i] + (field(z, i) - bias[i]) / 2 : sum), 0);
  const sweep = (z, beta, clamped) => {
    for (const [start, stop] of blocks) {
      const logits = [];
      for (let i = start; i < stop; i++) logits.push(clamped[i] ? 0 : beta * field(z, i));
      for (let i = start; i < stop; i++) if (!clamped[i]) z[i] = Math.random() < sigmoid(logits[i - start]) ? 1 : 0;
    }
  };
  const logits = z => through(decoder, z);
  const decode = z => logits(z).map(sigmoid);
  const encode = (x, choose) => { // z group by group, and the logits that each bit was chosen by
    const z = new Uint8Array(bits), all = new Float64Array(bits);
    groups.forEach(([start, stop], place) => {
      through(encoder[place], [...x, ...z.subarray(0, start)]).forEach((logit, i) => {
        all[start + i] = logit;
        z[start + i] = choose(logit) ? 1 : 0;
      });
    });
    return { z, logits: all };
  };
  const posterior = (x, z) => { // logits of q(z_k | x, z_<k) at a given z
    const all = new Float64Array(bits);
    groups.forEach(([start], place) => all.set(through(encoder[place], [...x, ...z.subarray(0, start)]), start));
    return all;
  };
  const code = x => encode(x, logit => logit > 0);
  const drawn = x => encode(x, logit => Math.random() < sigmoid(logit));
  const logWeight = (x, z) => logBernoulli(x, logits(z)) - energy(z) - logBernoulli(z, posterior(x, z));
  const bernoulli = means => Uint8Array.from(means, mean => (Math.random() < mean ? 1 : 0));
  return { held, bits, blocks, groups, bytes, field, energy, sweep, logits, decode, encode, posterior, code, drawn, logWeight, bernoulli };
})();

// What is seen and pressed.
(() => {
  const { held, bits, groups } = explorer, [height, width] = held.shape, pixels = height * width;
  const examples = new Uint8Array(explorer.bytes(held.examples));
  const element = name => document.getElementById(name);
  const chosen = name => document.querySelector(`input[name=${name}]:checked`).value;
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let z = new Uint8Array(bits), clamped = new Uint8Array(bits);
  let x = new Uint8Array(pixels), hidden = new Uint8Array(pixels), filled = null;
  let playing = false, completing = null, sweeps = 0, since = performance.now(), next = 0;

  const image = (canvas, value) => {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), shown = context.createImageData(width, height);
    for (let i = 0; i < pixels; i++) shown.data.set([...value(i), 255], 4 * i);
    context.putImageData(shown, 0, 0);
  };
  const grey = value => Array(3).fill(Math.round(255 * value));
  const columns = Math.ceil(Math.sqrt(Math.max(...groups.map(([start, stop]) => stop - start)) * groups.length));
  const places = []; // of each bit in the grid; a new group begins a new row
  let rows = 0;
  for (const [start, stop] of groups) {
    for (let i = start; i < stop; i++) places.push([rows + Math.floor((i - start) / columns), (i - start) % columns]);
    rows += Math.ceil((stop - start) / columns) + 0.5;
  }
  const cell = 16;
  const showBits = () => {
    const canvas = element("bits"), context = canvas.getContext("2d");
    canvas.width = columns * cell;
    canvas.height = Math.ceil((rows - 0.5) * cell);
    places.forEach(([row, column], i) => {
      context.fillStyle = z[i] ? colour("--one") : colour("--panel");
      context.fillRect(column * cell + 1, row * cell + 1, cell - 2, cell - 2);
      if (!clamped[i]) return;
      context.strokeStyle = colour("--two");
      context.lineWidth = 3;
      context.strokeRect(column * cell + 2.5, row * cell + 2.5, cell - 5, cell - 5);
    });
  };
  const show = () => {
    const mean = explorer.decode(z), energy = explorer.energy(z);
    image(element("mean"), i => grey(mean[i]));
    showBits();
    element("energy").textContent = energy.toFixed(2);
    element("logp").textContent = (-energy - held.logZ).toFixed(2);
    element("ones").textContent = `${z.reduce((sum, bit) => sum + bit, 0)} of ${bits}`;
  };
  const showDrawing = () => image(element("drawing"), i => {
    if (!hidden[i]) return grey(x[i]);
    const value = filled ? filled[i] : 0;
    return [60 + 195 * value, 40 + 180 * value, 20 + 120 * value];
  });
  const coded = () => {
    filled = null;
    completing = null;
    element("accepted").textContent = "";
    z = explorer.code(x.map((value, i) => (hidden[i] ? 0 : value))).z;
    showDrawing();
    show();
  };

  // Metropolis within Gibbs (evaluation/completion.py): z' ~ q(z | x), accepted by w(z') / w(z), then x_missing ~ p(x | z).
  const begin = () => {
    const state = Uint8Array.from(bits ? z : []);
    explorer.sweep(state, 1, new Uint8Array(bits));
    const start = explorer.bernoulli(explorer.decode(state));
    const whole = x.map((value, i) => (hidden[i] ? start[i] : value));
    completing = { whole, z: explorer.drawn(whole).z, steps: 0, accepted: 0, total: new Float64Array(pixels) };
  };
  const advance = () => {
    const { whole } = completing, proposed = explorer.drawn(whole).z;
    const ratio = explorer.logWeight(whole, proposed) - explorer.logWeight(whole, completing.z);
    completing.steps++;
    if (Math.log(Math.random()) < ratio) {
      completing.z = proposed;
      completing.accepted++;
    }
    const mean = explorer.decode(completing.z), drawn = explorer.bernoulli(mean);
    for (let i = 0; i < pixels; i++) {
      completing.total[i] += mean[i];
      if (hidden[i]) whole[i] = drawn[i];
    }
  };

  const tick = () => {
    if (playing) {
      const beta = 1 / Number(element("temperature").value);
      explorer.sweep(z, beta, clamped);
      sweeps++;
      show();
    }
    if (completing) {
      for (let i = 0; i < 4; i++) advance();
      filled = completing.total.map(sum => sum / completing.steps);
      z = completing.z;
      element("accepted").textContent = `${completing.steps} proposals, ${completing.accepted} accepted`;
      showDrawing();
      show();
      if (completing.steps >= 400) completing = null;
    }
    const now = performance.now();
    if (now - since > 1000) {
      element("rate").textContent = Math.round((1000 * sweeps) / (now - since));
      sweeps = 0;
      since = now;
    }
    requestAnimationFrame(tick);
  };

  const at = (event, canvas, across, down) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientY - box.top) / box.height) * down, ((event.clientX - box.left) / box.width) * across];
  };
  element("bits").addEventListener("pointerdown", event => {
    const [row, column] = at(event, element("bits"), columns, rows - 0.5);
    const i = places.findIndex(([r, c]) => row >= r && row < r + 1 && column >= c && column < c + 1);
    if (i < 0) return;
    completing = null;
    if (chosen("press") === "flip") z[i] = 1 - z[i];
    else clamped[i] = 1 - clamped[i];
    show();
  });
  const paint = event => {
    const [row, column] = at(event, element("drawing"), width, height).map(Math.floor), tool = chosen("tool");
    for (const [r, c] of [[row, column], [row + 1, column], [row, column + 1], [row + 1, column + 1]]) {
      if (r < 0 || c < 0 || r >= height || c >= width) continue;
      const i = r * width + c;
      if (tool === "hide") hidden[i] = 1;
      else {
        hidden[i] = 0;
        x[i] = tool === "pen" ? 1 : 0;
      }
    }
    coded();
  };
  element("drawing").addEventListener("pointerdown", event => {
    element("drawing").setPointerCapture(event.pointerId);
    paint(event);
  });
  element("drawing").addEventListener("pointermove", event => event.buttons && paint(event));
  const press = (name, action) => element(name).addEventListener("click", action);
  press("play", () => {
    playing = !playing;
    completing = null;
    element("play").textContent = playing ? "Pause" : "Play";
  });
  press("step", () => {
    explorer.sweep(z, 1 / Number(element("temperature").value), clamped);
    show();
  });
  press("shuffle", () => {
    z = z.map((bit, i) => (clamped[i] ? bit : Math.random() < 0.5 ? 1 : 0));
    show();
  });
  press("release", () => {
    clamped.fill(0);
    show();
  });
  press("example", () => {
    x = examples.slice(next * pixels, (next + 1) * pixels);
    next = (next + 1) % Math.floor(examples.length / pixels);
    hidden.fill(0);
    coded();
  });
  press("sample", () => {
    x = explorer.bernoulli(explorer.decode(z));
    hidden.fill(0);
    coded();
  });
  press("clear", () => {
    x.fill(0);
    hidden.fill(0);
    coded();
  });
  press("half", () => {
    hidden = hidden.map((_, i) => (i >= pixels / 2 ? 1 : 0));
    coded();
  });
  press("show", () => {
    hidden.fill(0);
    coded();
  });
  press("complete", () => begin());
  element("temperature").addEventListener("input", () => {
    element("degrees").textContent = Number(element("temperature").value).toFixed(2);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);

  x = examples.slice(0, pixels);
  next = 1;
  coded();
  requestAnimationFrame(tick);
})();
