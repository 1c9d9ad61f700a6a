// The details of what is selected: its equation as heat-maps, how its contributors lie to one another, its history.

const MAP = 124, NUMBERED = 8;
const BLUE_TO_RED = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"]
  .map((colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)));

/** The colour of a value between -1 and 1. */
function diverging(value) {
  const at = Math.min(9.999, Math.max(0, (value + 1) * 5)), i = Math.floor(at), part = at - i;
  return BLUE_TO_RED[i].map((c, k) => Math.round(c + (BLUE_TO_RED[i + 1][k] - c) * part));
}

function inkOn([red, green, blue]) { return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff"; }

class Detail {
  constructor(app) {
    this.app = app;
    this.title = make("h3", { class: "gf-title" });
    this.equation = make("div", { class: "gf-equation" });
    this.angles = make("div", { class: "gf-angles" });
    this.past = make("div", { class: "gf-past" });
    this.root = make("section", { class: "gf-detail", "aria-label": "Details of what is selected" }, this.title,
      make("div", { class: "gf-halves" }, make("div", {}, make("h4", {}, "Contributions, their angles and their shares"), this.angles),
        make("div", {}, make("h4", {}, "Step by step"), this.past)),
      make("h4", {}, "The equation"), this.equation);
    this.turn = 0;
  }

  show(table) {
    const { overview, row } = this.app;
    this.title.textContent = overview.nameOf(row) + (row.isParameter ? "" : `, ${row.members} parameters`);
    this.matrix(row, table);
    this.moveCursor();
  }

  /** Norms, shares of the delta and cosines: a table, coloured like the heat-maps. */
  matrix(row, table) {
    const { contributors, deltas } = table.head, look = (name) => this.app.overview.look(name);
    const names = contributors.concat(deltas.filter((name) => !contributors.includes(name)));
    const few = contributors.length <= 12 && (contributors.length < 2 || table.cosine(0, 0, 1) !== undefined);
    const across = few ? contributors : [];
    const head = make("tr", {}, make("th", { scope: "col" }, "contributor"), make("th", { scope: "col" }, "norm"),
      ...(deltas.length ? [make("th", { scope: "col" }, "share of Δ")] : []),
      ...across.map((name) => make("th", { scope: "col", title: name }, `cos ${look(name).letter}`)));
    const lines = names.map((name) => {
      const i = contributors.indexOf(name), d = deltas.indexOf(name), norm = i < 0 ? null : table.norm(row.i, i);
      const cells = [make("td", {}, i < 0 ? "" : Number.isNaN(norm) ? "absent" : norm === 0 ? "0 (zeros)" : number(norm))];
      if (deltas.length) cells.push(make("td", {}, d < 0 ? "" : percent(table.share(row.i, d))));
      for (let j = 0; j < across.length; j++) cells.push(i < 0 ? make("td") : this.cosine(table, row.i, i, j));
      const chip = make("span", { class: "gf-chip", style: `background:${look(name).colour}`, "aria-hidden": "true" });
      const dim = this.app.state.branch !== "" && this.app.state.branch !== name;
      return make("tr", { class: dim ? "gf-dim" : null }, make("th", { scope: "row" }, chip, `${name}${look(name).letter === name ? "" : ` (${look(name).letter})`}`), ...cells);
    });
    const total = table.get(row.i, "total"), delta = table.get(row.i, "delta"), residual = table.get(row.i, "residual");
    const facts = Number.isNaN(total) ? ["no gradient in this step"] : [
      `‖Σ‖ ${number(total)}, ${percent(table.get(row.i, "cancellation"))} of the contributions cancels`,
      residual === 0 ? "the arrivals add up to Σ bitwise" : `largest residual ${number(residual)}`,
      ...(Number.isNaN(delta) ? [] : [`‖Δ‖ ${number(delta)}, ${percent(table.get(row.i, "relative"))} of the weight's norm`])];
    const notes = [facts.map((words) => words[0].toUpperCase() + words.slice(1)).join(". ") + ".", ...(few ? [] : ["There are too many contributors to show all their cosines here."]),
      ...(deltas.length ? [this.app.overview.accounting] : [])];
    this.angles.replaceChildren(make("div", { class: "gf-scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines))),
      ...notes.map((words) => make("p", { class: "gf-note" }, words)));
  }

  cosine(table, row, i, j) {
    const value = table.cosine(row, i, j);
    if (!Number.isFinite(value)) return make("td", {}, "–");
    const hue = value < 0 ? "#2166ac" : "#b2182b", part = Math.round(100 * Math.abs(value)); // as in the heat-maps, on paper
    const style = i === j ? null : `background:color-mix(in srgb, ${hue} ${part}%, var(--gf-paper))${part > 55 ? ";color:#ffffff" : ""}`;
    return make("td", { style, class: i !== j && value <= -STRONG ? "gf-clash" : null }, i === j ? "1" : signed(value));
  }

  /** The heat-maps of a parameter whose tensors were kept. */
  async showMaps(index) {
    const { row } = this.app, turn = ++this.turn;
    if (!row.isParameter) { this.equation.replaceChildren(make("p", { class: "gf-note" }, "Select a parameter to see its equation.")); return; }
    let answer;
    try { answer = await this.app.source.maps(index, row.place); } catch (error) { answer = { head: { panels: [], why: error.message } }; }
    if (turn !== this.turn) return; // something else is selected by now
    const { head, numbers } = answer;
    if (!head.panels.length) {
      const how = 'Only inner products were kept here. To see the tensors, record with gradflow.watch(..., keep="tensors"), or keep=["conv1.*"] for a few.';
      this.equation.replaceChildren(make("p", { class: "gf-note" }, head.why ?? how));
      return;
    }
    const cells = head.rows * head.columns;
    let filled = 0;
    const parts = head.panels.map((panel) => this.map(panel, head, panel.filled ? numbers.subarray(cells * filled, cells * ++filled) : null));
    const limits = [`Contributions and Σ: from −${number(head.panels[0].limit)} (blue) to ${number(head.panels[0].limit)} (red), in gradient units`];
    const last = head.panels.at(-1);
    if (last.sign === "→" && last.filled) limits.push(`Δ: from −${number(last.limit)} to ${number(last.limit)}, in units of the weight`);
    const notes = [limits.join(". ") + ".", head.sentence && head.sentence[0].toUpperCase() + head.sentence.slice(1) + "."];
    this.equation.replaceChildren(make("div", { class: "gf-terms" }, ...parts), ...notes.filter(Boolean).map((words) => make("p", { class: "gf-note" }, words)));
  }

  map(panel, { rows, columns, kernel, shape }, cells) {
    const look = panel.branch ? this.app.overview.look(panel.branch) : null, frame = look ? look.colour : "var(--gf-ink)";
    const dim = this.app.state.branch !== "" && panel.branch !== this.app.state.branch;
    const box = cells ? make("canvas", { role: "img", "aria-label": `${panel.name}: ${panel.under}, ${shape.join("×") || "scalar"}` }) : make("div", { class: "gf-empty" }, panel.empty || "not kept");
    box.style.border = `2px ${look && look.dash.length ? "dashed" : "solid"} ${frame}`;
    if (cells) paint(box, cells, rows, columns, panel.limit, kernel);
    return make("figure", { class: dim ? "gf-term gf-dim" : "gf-term" }, make("span", { class: "gf-sign", "aria-hidden": "true" }, panel.sign),
      make("div", {}, make("figcaption", {}, panel.name), box, make("div", { class: "gf-under" }, panel.under)));
  }

  /** Lines of the norms and of the cosines over the steps. */
  async showHistory() {
    const { row } = this.app;
    let table;
    try { table = await this.app.source.history(row.place); } catch (error) { this.past.replaceChildren(make("p", { class: "gf-note" }, error.message)); return; }
    if (row !== this.app.row) return;
    this.chart = new Chart(this.app, table, this.past.clientWidth || 420);
    const every = table.head.every > 1 ? `One step in ${table.head.every} is drawn. ` : "";
    this.past.replaceChildren(this.chart.svg, make("p", { class: "gf-note" }, `${every}Norms above, the smallest cosine between two branches below. A click goes to the step.`));
    this.moveCursor();
  }

  moveCursor() { this.chart?.moveCursor(this.app.index); }
}

/** Colour the cells of one term; small ones carry their numbers. */
function paint(canvas, cells, rows, columns, limit, kernel) {
  const scale = 2, wide = MAP * scale, pen = canvas.getContext("2d");
  canvas.width = canvas.height = wide;
  canvas.style.width = canvas.style.height = `${MAP}px`;
  const x = (c) => Math.round((c * wide) / columns), y = (r) => Math.round((r * wide) / rows);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const value = cells[r * columns + c];
      if (Number.isNaN(value)) continue;
      const colour = diverging(value / limit);
      pen.fillStyle = `rgb(${colour})`;
      pen.fillRect(x(c), y(r), x(c + 1) - x(c), y(r + 1) - y(r));
      if (Math.max(rows, columns) > NUMBERED || columns > 4) continue;
      pen.fillStyle = inkOn(colour);
      pen.font = `${Math.min(24, (wide / columns) * 0.2, (wide / rows) * 0.6)}px system-ui, sans-serif`;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(number(value).replace("-", "−"), (x(c) + x(c + 1)) / 2, (y(r) + y(r + 1)) / 2);
    }
  }
  pen.fillStyle = "#ffffff";
  if (kernel[0]) {
    for (let r = kernel[0]; r < rows; r += kernel[0]) pen.fillRect(0, y(r) - 1, wide, 2);
    for (let c = kernel[1]; c < columns; c += kernel[1]) pen.fillRect(x(c) - 1, 0, 2, wide);
  }
}

/** Norms and cosines of one row over the steps, with a cursor. */
class Chart {
  constructor(app, table, width) {
    this.app = app;
    this.steps = table.head.steps;
    Object.assign(this, { width, left: 54, right: width - 8, top: 8, middle: 128, floor: 142, bottom: 200 });
    this.first = this.steps[0] ?? 0;
    this.span = (this.steps.at(-1) ?? 0) - this.first || 1;
    const { contributors } = table.head, columns = contributors.map((_, i) => this.steps.map((_, s) => table.norm(s, i)));
    const total = this.steps.map((_, s) => table.get(s, "total")), least = this.steps.map((_, s) => table.get(s, "least"));
    const known = [...columns.flat(), ...total].filter((v) => v > 0);
    this.most = known.reduce((a, b) => Math.max(a, b), 0) || 1;
    const smallest = known.reduce((a, b) => Math.min(a, b), this.most);
    this.isLog = this.most / smallest > 30;
    this.least = this.isLog ? Math.max(smallest, this.most * 1e-6) : 0;
    const words = `History of ${app.overview.nameOf(app.row)}: the sum goes from ${number(total.find(Number.isFinite))} to ${number(total.findLast(Number.isFinite))}`;
    this.svg = draw("svg", { class: "gf-chart", viewBox: `0 0 ${width} 218`, width, height: 218, role: "img", "aria-label": words,
      onclick: (event) => this.go(event) });
    this.axes();
    columns.forEach((values, i) => this.line(values, (v) => this.y(v), app.overview.look(contributors[i]), contributors[i]));
    this.line(total, (v) => this.y(v), { colour: "var(--gf-ink)", dash: [] }, "Σ");
    this.line(least, (v) => this.angle(v), { colour: "var(--gf-ink)", dash: [] }, "smallest cosine", 1.2);
    this.cursor = draw("line", { y1: this.top - 4, y2: this.bottom, class: "gf-cursor" });
    this.svg.append(this.cursor);
  }

  x(index) { return this.left + ((this.right - this.left) * (index - this.first)) / this.span; }
  y(value) {
    const part = this.isLog ? Math.log(Math.max(value, this.least) / this.least) / Math.log(this.most / this.least) : value / this.most;
    return this.middle - (this.middle - this.top) * part;
  }
  angle(cosine) { return (this.floor + this.bottom) / 2 - (cosine * (this.bottom - this.floor)) / 2; }

  axes() {
    const words = (x, y, text, anchor = "end") => this.svg.append(draw("text", { x, y, "text-anchor": anchor, class: "gf-small" }, text));
    this.svg.append(draw("rect", { x: this.left, y: this.angle(0), width: this.right - this.left, height: this.bottom - this.angle(0), class: "gf-against-zone" }));
    for (const y of [this.top, this.middle, this.angle(0)]) this.svg.append(draw("line", { x1: this.left, x2: this.right, y1: y, y2: y, class: "gf-grid" }));
    words(this.left - 4, this.top + 8, number(this.most));
    words(this.left - 4, this.middle, this.isLog ? number(this.least) : "0");
    words(this.left - 4, (this.top + this.middle) / 2 + 4, this.isLog ? "log" : "");
    words(this.left - 4, this.floor + 6, "+1");
    words(this.left - 4, this.angle(0) + 4, "cos 0");
    words(this.left - 4, this.bottom + 1, "−1");
    words(this.left, this.bottom + 15, `step ${this.first}`, "start");
    words(this.right, this.bottom + 15, String(this.steps.at(-1) ?? ""));
  }

  line(values, place, look, name, width = 1.5) {
    let d = "", open = false;
    values.forEach((value, s) => {
      if (!Number.isFinite(value)) { open = false; return; }
      const x = this.x(this.steps[s]).toFixed(1), y = place(value).toFixed(1);
      d += open ? `L${x} ${y}` : `M${x} ${y}h0.01`;
      open = true;
    });
    const chosen = this.app.state.branch, dim = chosen !== "" && name !== chosen && this.app.overview.looks[name];
    this.svg.append(draw("path", { d, fill: "none", stroke: look.colour, "stroke-width": (name === "Σ" ? 2.2 : width) * (this.steps.length > 300 ? 0.4 : 1), "stroke-linecap": "round",
      "stroke-dasharray": look.dash.map((on) => on * 2).join(" "), "data-branch": name, class: dim ? "gf-dim" : "" }, draw("title", {}, name)));
  }

  moveCursor(index) {
    const x = this.x(Math.min(Math.max(index, this.first), this.first + this.span));
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
  }

  go(event) {
    const box = this.svg.getBoundingClientRect(), x = ((event.clientX - box.left) * this.width) / box.width;
    const wanted = this.first + (this.span * (x - this.left)) / (this.right - this.left);
    const nearest = this.steps.reduce((best, index) => (Math.abs(index - wanted) < Math.abs(best - wanted) ? index : best), this.first);
    this.app.choose({ step: nearest });
  }
}
