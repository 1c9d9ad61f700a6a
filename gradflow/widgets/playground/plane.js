// The embedding plane: drag an input or an embedding; arrows, bars and sums come from the kernel.

const NAMES = ["anchor", "positive", "negative"];
const LOSSES = [["triplet", "triplet"], ["contrastive", "contrastive"], ["infonce", "InfoNCE"]];
const OPTIMIZERS = [["SGD", "SGD"], ["momentum", "SGD + momentum"], ["Adam", "Adam"]];
const KNOBS = { margin: ["margin m", { min: 0, max: 3, step: 0.05 }], temperature: ["temperature τ", { min: 0.05, max: 2, step: 0.05 }] };
const ROWS = [...NAMES, "sum", "update"];

function render({ model, el }) {
  const page = openPage(model, el, { label: "Embedding plane: three paths, one weight" });
  const looks = model.get("looks"), asker = asking(page), sayLater = hushed((words) => page.say(words));
  page.live.classList.add("gf-unseen");
  const controls = planeControls(asker);
  const again = () => show();
  const inputs = inputPlane(looks, asker, again), outputs = embeddingPlane(looks, asker, again), bars = barGrid(looks);
  const headline = make("p", { class: "gf-headline" }), formula = make("p", { class: "gf-formula" });
  const matrix = make("table", { class: "gf-matrix", "aria-label": "the encoder's matrix W" });
  page.root.classList.add("gf-playground");
  page.root.append(
    controls.box, headline, formula,
    make("div", { class: "gf-panels gf-three" },
      make("section", {}, make("h4", {}, "Inputs x"), inputs.plane.svg, make("div", { class: "gf-equals" }, "W = ", matrix), keyOfMarks()),
      make("section", {}, make("h4", {}, "Embeddings z = W x"), outputs.plane.svg, outputs.caption),
      make("section", {}, make("h4", {}, "What each path brings to each weight"), make("div", { class: "gf-beside" }, bars.svg, bars.caption))),
    page.live);
  const show = () => {
    const view = model.get("view"), settled = asker.isIdle;
    controls.show(view, settled);
    inputs.show(view, settled);
    outputs.show(view, settled);
    bars.show(view);
    headline.textContent = view.headline;
    formula.textContent = `loss = ${view.written}`;
    matrix.replaceChildren(...view.weight.map((row) => make("tr", {}, ...row.map((v) => make("td", {}, plain(v))))));
    sayLater(view.headline);
  };
  page.on("change:view", show);
  show();
  return page.close;
}

function plain(value) {
  return value.toFixed(2).replace("-", "−");
}

/** What filled, hollow and dashed marks mean. */
function keyOfMarks() {
  const meanings = [["pulls", "gets a gradient"], ["zero", "gets zeros (dead)"], ["absent", "absent (stopped)"]];
  return make("ul", { class: "gf-key" }, ...meanings.map(([condition, words]) => {
    const dot = draw("g", { class: "gf-mark", transform: "translate(8 8)", "data-condition": condition }, shape("o", 6));
    dot.firstChild.setAttribute("class", "gf-shape");
    dot.firstChild.style.setProperty("--gf-own", "var(--gf-muted)");
    return make("li", {}, draw("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, dot), words);
  }));
}

function planeControls({ ask }) {
  const change = (changes) => ask("change", changes, Object.keys(changes).join());
  const loss = chooser("loss", LOSSES, (value) => change({ loss: value }));
  const optimizer = chooser("optimizer", OPTIMIZERS, (value) => change({ optimizer: value }));
  let knob = "margin";
  const amount = slider(...KNOBS.margin, (value) => change({ [knob]: value }));
  const steps = make("output", { class: "gf-steps" });
  const stops = NAMES.map((name) => {
    const tick = make("input", { type: "checkbox", onchange: () => ask("stop", { branch: name, stopped: tick.checked }) });
    return { tick, name, box: make("label", {}, tick, name) };
  });
  const box = make("div", { class: "gf-controls" },
    make("div", { class: "gf-row" }, button("1 step", () => ask("step", { count: 1 })), button("20 steps", () => ask("step", { count: 20 })),
      button("reset", () => ask("reset")), steps, loss.box, amount.box),
    make("div", { class: "gf-row" }, optimizer.box,
      make("span", { class: "gf-row", role: "group", "aria-label": "stop-gradient" }, make("span", {}, "stop-gradient:"), ...stops.map((s) => s.box))));
  return {
    box,
    show(view, settled) {
      loss.put(view.loss);
      optimizer.put(view.optimizer);
      if (view.knob !== knob) amount.rename(...KNOBS[(knob = view.knob)]);
      amount.put(view.amount, settled);
      steps.textContent = `steps: ${view.steps}`;
      for (const { tick, name } of stops) tick.checked = view.stopped.includes(name);
    },
  };
}

function inputPlane(looks, { ask }, onrest) {
  const space = plane(220, "Inputs: drag a point, or focus it and press the arrow keys");
  const marks = NAMES.map((name) => {
    const group = mark(looks[name], 9);
    space.svg.append(group);
    return movable(group, space, `input of the ${name}`, (to) => ask("move", { branch: name, to }, `move ${name}`), onrest);
  });
  return {
    plane: space,
    show(view, settled) {
      space.room = view.rooms[0];
      NAMES.forEach((name, i) => marks[i].put(view.inputs[name], settled));
    },
  };
}

function embeddingPlane(looks, { ask }, onrest) {
  const space = plane(320, "Embeddings: drag a point, or focus it and press the arrow keys");
  const zone = deadZone(space), below = draw("g", {});
  const arrows = draw("g", {});
  space.svg.append(zone.group, below, arrows);
  const points = NAMES.map((name) => {
    const group = mark(looks[name], 11), tag = draw("text", { class: "gf-tag", "text-anchor": "middle", y: -17 });
    group.append(tag);
    space.svg.append(group);
    const handle = movable(group, space, `embedding of the ${name}`, (at) => ask("place", { branch: name, at }, `place ${name}`), onrest);
    return { name, group, tag, handle };
  });
  const caption = make("p", { class: "gf-caption" });
  return {
    plane: space, caption,
    show(view, settled) {
      space.room = view.rooms[1];
      zone.show(view);
      below.replaceChildren(...trails(view, space, looks), ...pairs(view, space));
      arrows.replaceChildren(...pulls(view, space, looks));
      for (const { name, group, tag, handle } of points) {
        handle.put(view.embeddings[name], settled);
        group.setAttribute("data-condition", view.conditions[name]);
        group.setAttribute("aria-disabled", !view.can_place);
        tag.textContent = { pulls: "", zero: "zero", absent: "absent" }[view.conditions[name]];
      }
      caption.textContent = view.can_place ? `Arrows: −gradient × ${view.arrow_scale}.`
        : "W is almost flat: few places can be reached, so move the inputs.";
    },
  };
}

function deadZone(space) {
  const id = `gf-hatch-${(pages += 1)}`;
  const hatch = draw("pattern", { id, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    draw("rect", { width: 7, height: 7, class: "gf-hatch-ground" }), draw("line", { y2: 7, class: "gf-hatch-line" }));
  const area = draw("path", { fill: `url(#${id})`, "fill-rule": "evenodd" });
  const edge = draw("circle", { class: "gf-zone-edge" });
  const words = draw("text", { class: "gf-zone-words", x: space.side - 6, y: 15, "text-anchor": "end" }, "dead zone");
  return {
    group: draw("g", { class: "gf-zone" }, draw("defs", {}, hatch), area, edge, words),
    show(view) {
      const there = view.radius !== null, [x, y] = space.at(view.embeddings.anchor);
      const r = there ? (view.radius / space.room) * (space.side / 2) : 0, s = space.side;
      area.setAttribute("d", there ? `M0 0 H${s} V${s} H0 Z M${x - r} ${y} a${r} ${r} 0 1 0 ${2 * r} 0 a${r} ${r} 0 1 0 ${-2 * r} 0 Z` : "");
      for (const [key, value] of Object.entries({ cx: x, cy: y, r })) edge.setAttribute(key, value);
      words.textContent = there && Math.hypot(x - s + 30, y - 12) > r ? "dead zone" : "";
    },
  };
}

function trails(view, space, looks) {
  return NAMES.filter((name) => view.trail[name].length).map((name) => {
    const d = [...view.trail[name], view.embeddings[name]].map((spot, i) => `${i ? "L" : "M"}${space.at(spot).join(" ")}`).join(" ");
    return draw("path", { class: "gf-trail", d, stroke: looks[name].colour });
  });
}

function pairs(view, space) {
  const [x, y] = space.at(view.embeddings.anchor);
  return ["positive", "negative"].map((name) => {
    const [u, v] = space.at(view.embeddings[name]);
    return draw("path", { class: "gf-pair", d: `M${x} ${y} L${u} ${v}` });
  });
}

function pulls(view, space, looks) {
  return Object.entries(view.pulls).map(([name, pull]) => {
    const from = view.embeddings[name], to = from.map((v, i) => v + view.arrow_scale * pull[i]);
    return draw("path", { class: "gf-arrow", d: arrowPath(space.at(from), space.at(to)), stroke: looks[name].colour, fill: looks[name].colour, "data-branch": name });
  });
}

/** For each entry of the matrix, at its place in the matrix: a bar for each branch, their sum, and the update. */
function barGrid(looks) {
  const W = 176, H = 108, zero = 70, reach = 50;
  const svg = draw("svg", { viewBox: `0 0 ${2 * W} ${2 * H}`, class: "gf-bars", role: "img" });
  const told = draw("title", {});
  svg.append(told);
  const cells = [0, 1, 2, 3].map((k) => {
    const cell = draw("g", { transform: `translate(${(k % 2) * W} ${Math.floor(k / 2) * H})` });
    const title = draw("text", { x: 2, y: 12, class: "gf-entry" });
    cell.append(title, draw("line", { x1: zero, x2: zero, y1: 17, y2: 100, class: "gf-axis" }));
    const rows = ROWS.map((name, i) => barRow(name, looks[name], { y: 18 + 16 * i + (i > 2 ? 2 : 0), zero, reach }));
    cell.append(...rows.map((row) => row.group));
    svg.append(cell);
    return { title, rows };
  });
  const caption = make("p", { class: "gf-caption" });
  return {
    svg, caption,
    show(view) {
      const sizes = (name) => view.entries.map((entry) => Math.abs(valueOf(entry, name) ?? 0));
      const most = Math.max(...ROWS.slice(0, 4).flatMap(sizes)), furthest = Math.max(...sizes("update"));
      view.entries.forEach((entry, k) => {
        cells[k].title.textContent = `${entry.name} = ${plain(view.weight[Math.floor(k / 2)][k % 2])}`;
        cells[k].rows.forEach((row) => row.show(valueOf(entry, row.name), row.name === "update" ? furthest : most, view.conditions[row.name]));
      });
      told.textContent = view.entries.map(spoken).join(" ");
      caption.replaceChildren(...sums(view));
    },
  };
}

function valueOf(entry, name) {
  return name in entry.parts ? entry.parts[name] : entry[name];
}

function barRow(name, look, { y, zero, reach }) {
  const bar = draw("rect", { class: `gf-bar gf-bar-${name}`, y: y + 2, height: 10, fill: look?.colour ?? null });
  const value = draw("text", { class: "gf-number", x: zero + reach + 52, y: y + 11, "text-anchor": "end", "data-row": name });
  const letter = { sum: "Σ", update: "Δ" }[name] ?? look.letter;
  const group = draw("g", { class: "gf-bar-row" }, draw("text", { x: 4, y: y + 11, class: "gf-row-letter" }, letter), bar, value);
  return {
    group, name,
    show(amount, most, condition) {
      const width = amount && most ? (Math.abs(amount) / most) * reach : 0;
      bar.setAttribute("x", amount < 0 ? zero - width : zero);
      bar.setAttribute("width", width);
      const gone = amount === null;
      value.textContent = gone ? (condition ? "absent" : "none") : amount === 0 ? "0" : signedNumber(amount);
      group.setAttribute("data-condition", gone ? "absent" : amount === 0 ? "zero" : "pulls");
    },
  };
}

function signedNumber(value) {
  return (value < 0 ? "−" : "+") + number(Math.abs(value));
}

function spoken(entry) {
  const parts = NAMES.map((name) => `${name} ${entry.parts[name] === null ? "absent" : number(entry.parts[name])}`);
  return `${entry.name}: ${parts.join(", ")}, sum ${number(entry.sum)}, update ${number(entry.update)}.`;
}

function sums(view) {
  if (view.residual === null) return ["No branch reaches W: there is no W.grad, and no step."];
  const exact = view.residual === 0 ? "to the last bit" : `to ${number(view.residual)} of it`;
  const shares = Object.entries(view.shares).map(([name, share]) => `${name} ${percent(share)}`).join(", ");
  const credit = shares ? `whose it is, by the optimizer's own rule: ${shares}.` : "nothing moves.";
  return [`Σ is W.grad: the paths add up ${exact}.`, make("br"), `Δ is the next update, on a scale of its own; ${credit}`];
}

export default { render };
