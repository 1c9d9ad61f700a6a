// The flow of the gradient: lanes of the branches, each row of the tree once, an arrow in from every branch, the sum,
// the delta. Rows fold and unfold; the picture can be panned and zoomed.

const LANE = 32, LABEL = 66, BOX = 196, SUM = 168, DELTA = 138, STAIR = 13, TOP = 34, EDGE = 14;
const STRONG = 0.5; // a conflict from which it is framed, as in the figures

class Flow {
  constructor(app) {
    this.app = app;
    this.picture = draw("g");
    this.svg = draw("svg", { class: "gf-flow", role: "tree", "aria-label": "Flow of the gradient into every module and parameter",
      onwheel: (event) => this.wheel(event), onpointerdown: (event) => this.grab(event),
      onpointermove: (event) => this.drag(event), onpointerup: () => this.release(), onpointercancel: () => this.release(),
      onkeydown: (event) => this.key(event) }, this.picture);
    this.root = make("div", { class: "gf-flow-frame" }, this.svg);
    this.drawn = "";
    this.parts = new Map();
    this.grip = null;
    this.wide = this.tall = 0; // of the picture on the screen; read once per change, as reading lays the page out
  }

  measure() { this.wide = this.svg.clientWidth; this.tall = this.svg.clientHeight; }

  get opened() { return new Set(this.app.state.opened ?? this.app.overview.opened); }

  /** Rows that are not inside a folded one, in order. */
  visible() {
    const { rows, kids } = this.app.overview, opened = this.opened, found = [], stack = rows.length ? [0] : [];
    while (stack.length) {
      const i = stack.pop();
      found.push(rows[i]);
      if (opened.has(rows[i].place)) stack.push(...kids[i].toReversed());
    }
    return found;
  }

  /** The contributors that add up to what the weight received; only these have a lane. */
  summing(contributors) { return contributors.filter((name) => !this.app.overview.beside.includes(name)); }

  canFold(row) { return this.app.overview.kids[row.i].length > 0; }

  show(table) {
    const rows = this.visible(), head = table.head;
    this.rows = rows;
    const plan = JSON.stringify([rows.map((row) => row.i), head.contributors, [...this.opened]]);
    if (plan !== this.drawn) this.build(rows, head.contributors);
    this.drawn = plan;
    const norms = rows.flatMap((row) => head.contributors.map((_, i) => table.norm(row.i, i)));
    const largest = Math.max(0, ...norms.filter(Number.isFinite)) || 1;
    for (const row of rows) this.fill(this.parts.get(row.i), row, table, largest);
    this.loss.textContent = this.app.scalarWords("loss") || "loss";
    this.mark();
    this.place();
  }

  /** Set out everything that does not depend on the step. */
  build(rows, contributors) {
    const focused = this.svg.contains(document.activeElement) && document.activeElement.dataset.i;
    const shown = this.summing(contributors);
    this.stair = shown.length > 8 ? 6 : STAIR;
    this.high = Math.max(46, this.stair * shown.length + 12);
    this.left = EDGE + LANE * shown.length + LABEL;
    this.size = [this.left + BOX + SUM + DELTA, TOP + this.high * rows.length + 44];
    this.picture.replaceChildren();
    this.parts.clear();
    const bottom = TOP + this.high * rows.length;
    shown.forEach((name, i) => this.lane(name, EDGE + LANE * (i + 0.5), bottom));
    const heads = [[this.left + 4, "shared weight"], [this.left + BOX + 26, "sum Σ"], [this.left + BOX + SUM + 4, "delta Δ"]];
    for (const [x, words] of heads) this.picture.append(draw("text", { x, y: 18, class: "gf-head" }, words));
    this.loss = draw("text", { x: EDGE + 6, y: bottom + 27, class: "gf-head" });
    this.picture.append(draw("rect", { x: EDGE - 4, y: bottom + 10, width: Math.max(96, LANE * shown.length + 8), height: 26, rx: 5,
      class: "gf-loss" }), this.loss);
    rows.forEach((row, k) => this.row(row, TOP + this.high * (k + 0.5), contributors));
    if (focused !== false && focused !== undefined) this.focus(this.parts.has(+focused) ? +focused : rows[0].i);
  }

  lane(name, x, bottom) {
    const look = this.app.overview.look(name), dash = look.dash.map((on) => 1.6 * on).join(" ");
    this.picture.append(
      draw("line", { x1: x, x2: x, y1: TOP - 6, y2: bottom + 10, stroke: look.colour, "stroke-width": 1.6, "stroke-dasharray": dash,
        "data-branch": name, class: "gf-lane" }),
      draw("text", { x, y: 18, "text-anchor": "middle", class: "gf-head", "data-branch": name },
        look.letter.length > 3 ? look.letter.slice(0, 3) + "…" : look.letter, draw("title", {}, name)),
    );
  }

  row(row, y, contributors) {
    const app = this.app, fold = this.canFold(row), x = this.left, inset = Math.min(6, row.depth) * 11;
    const item = draw("g", { role: "treeitem", "aria-level": row.depth + 1, class: "gf-flow-row", "data-i": row.i, tabindex: -1,
      "aria-expanded": fold ? String(this.opened.has(row.place)) : null,
      onclick: () => { if (!this.moved) app.choose({ place: row.place }); },
      ondblclick: () => fold && this.fold(row), onfocus: () => this.roam(row.i) });
    const high = this.high - 10;
    const body = draw("rect", { x: x + inset, y: y - high / 2, width: BOX - inset, height: high, rx: row.isParameter ? 3 : 8, class: "gf-box" });
    const words = app.overview.shortName(row), room = Math.floor((BOX - inset - (fold ? 34 : 16)) / 7);
    const title = draw("text", { x: x + inset + (fold ? 26 : 9), y: y - 2, class: "gf-name" }, shortened(words, room));
    const under = row.isParameter ? "parameter" : `${row.members} parameter${row.members === 1 ? "" : "s"}`;
    const sub = draw("text", { x: x + inset + (fold ? 26 : 9), y: y + 13, class: "gf-small" }, under);
    item.append(draw("rect", { x: 0, y: y - this.high / 2, width: this.size[0], height: this.high, class: "gf-hit" }), body, title, sub);
    if (fold) {
      item.append(draw("g", { class: "gf-fold", onclick: (event) => { event.stopPropagation(); this.fold(row); } },
        draw("rect", { x: x + inset + 2, y: y - 13, width: 22, height: 26, class: "gf-hit" }),
        draw("path", { d: this.opened.has(row.place) ? `M${x + inset + 7} ${y - 4}h10l-5 8z` : `M${x + inset + 9} ${y - 6}v12l8 -6z` })));
    }
    const shown = this.summing(contributors);
    const arrows = shown.map((name, i) => this.arrow(item, name, i, y + this.stair * (i - (shown.length - 1) / 2), contributors.indexOf(name)));
    const at = x + BOX + 22;
    const part = { item, arrows, y,
      sum: draw("path", { class: "gf-sum" }), total: draw("text", { x: at + 4, y: y - 8, class: "gf-number" }),
      lost: draw("text", { x: at + 4, y: y + 6, class: "gf-small" }), fight: draw("text", { x: at + 4, y: y + 19, class: "gf-small" }),
      moved: draw("text", { x: x + BOX + SUM + 4, y: y - 6, class: "gf-number" }), shares: draw("g", {}) };
    item.append(part.sum, part.total, part.lost, part.fight, part.moved, part.shares);
    this.parts.set(row.i, part);
    this.picture.append(item);
  }

  arrow(item, name, lane, y, column) {
    const look = this.app.overview.look(name), from = EDGE + LANE * (lane + 0.5), to = this.left - 2;
    const path = draw("path", { fill: look.colour, "data-branch": name });
    const line = draw("line", { x1: from, x2: to, y1: y, y2: y, stroke: look.colour, "data-branch": name, class: "gf-thin" });
    const back = draw("rect", { y: y - 5.5, height: 11, rx: 2, class: "gf-back" });
    const label = draw("text", { x: to - 34, y: y + 3.5, "text-anchor": "middle", class: "gf-on-arrow", "data-branch": name });
    item.append(draw("circle", { cx: from, cy: y, r: 2.4, fill: look.colour, "data-branch": name }), line, path, back, label);
    return { path, line, label, back, from, to, y, column };
  }

  /** Write the numbers of a step into a row. */
  fill(part, row, table, largest) {
    for (const arrow of part.arrows) {
      const norm = table.norm(row.i, arrow.column), flows = norm > 0;
      arrow.path.setAttribute("d", flows ? arrowPath(arrow, 0.9 + (this.stair - 4) * Math.sqrt(Math.min(1, norm / largest))) : "");
      arrow.line.setAttribute("visibility", flows ? "hidden" : "visible");
      arrow.line.setAttribute("x2", Number.isNaN(norm) ? arrow.to - 62 : arrow.to);
      arrow.label.textContent = this.stair < STAIR ? "" : Number.isNaN(norm) ? "absent ×" : norm === 0 ? "0 zeros" : number(norm);
      const wide = 6.4 * arrow.label.textContent.length;
      arrow.back.setAttribute("x", arrow.to - 34 - wide / 2);
      arrow.back.setAttribute("width", wide);
    }
    const total = table.get(row.i, "total"), x = this.left + BOX;
    part.sum.setAttribute("d", total > 0 ? arrowPath({ from: x + 1, to: x + 22, y: part.y }, 0.9 + 7 * Math.sqrt(Math.min(1, total / largest))) : "");
    part.total.textContent = Number.isNaN(total) ? "no gradient" : `‖Σ‖ ${number(total)}`;
    part.lost.textContent = Number.isNaN(total) ? "" : `${percent(table.get(row.i, "cancellation"))} cancels`;
    const least = table.get(row.i, "least"), pair = table.worst(row.i), strong = -least >= STRONG;
    const letters = pair && pair.map((name) => this.app.overview.look(name).letter).join("↔");
    part.fight.textContent = least < 0 && pair ? `${strong ? "▲ " : ""}${letters} cos ${signed(least)}` : "";
    part.fight.setAttribute("class", strong ? "gf-small gf-strong" : "gf-small");
    const delta = table.get(row.i, "delta");
    part.moved.textContent = Number.isNaN(delta) ? "" : `‖Δ‖ ${number(delta)}`;
    this.bar(part, row, table);
    part.item.setAttribute("aria-label", this.app.rowWords(row, table));
  }

  /** Shares of the delta, as pieces of one bar; those against the delta are half as high. */
  bar(part, row, table) {
    const shares = table.head.deltas.map((name, i) => [name, table.share(row.i, i)]).filter(([, share]) => Math.abs(share) > 0);
    const whole = shares.reduce((sum, [, share]) => sum + Math.abs(share), 0);
    let x = this.left + BOX + SUM + 4;
    const pieces = shares.map(([name, share]) => {
      const width = ((DELTA - 20) * Math.abs(share)) / whole, against = share < 0;
      const piece = draw("rect", { x, y: part.y + (against ? 7 : 3), width, height: against ? 4 : 9, fill: this.app.overview.look(name).colour,
        "data-branch": name, class: against ? "gf-against" : "" }, draw("title", {}, `${name} ${percent(share)} of Δ`));
      x += width;
      return piece;
    });
    part.shares.replaceChildren(...pieces);
  }

  /** Bring out what is selected, what the search finds and the branch that was chosen. */
  mark() {
    const { place, branch } = this.app.state, hits = this.app.hits;
    const roaming = this.parts.has(this.roaming) ? this.roaming : this.app.overview.at.get(place) ?? 0;
    for (const [i, part] of this.parts) {
      const row = this.app.overview.rows[i], chosen = row.place === place;
      part.item.setAttribute("aria-selected", String(chosen));
      part.item.classList.toggle("gf-holds", !chosen && this.isInside(this.app.row.i, i));
      part.item.setAttribute("tabindex", i === (this.parts.has(roaming) ? roaming : 0) ? 0 : -1);
      part.item.classList.toggle("gf-found", hits !== null && hits.some((hit) => hit === i || this.isInside(hit, i)));
    }
    for (const one of this.picture.querySelectorAll("[data-branch]")) one.classList.toggle("gf-dim", branch !== "" && one.dataset.branch !== branch);
  }

  /** Tell whether a row is hidden in a folded one. */
  isInside(i, outer) {
    const { rows } = this.app.overview;
    if (this.opened.has(rows[outer].place)) return false;
    for (let at = rows[i].parent; at >= 0; at = rows[at].parent) if (at === outer) return true;
    return false;
  }

  /** The row that shows another: itself, or the folded one it is hidden in. */
  shownFor(i) {
    for (let at = i; at >= 0; at = this.app.overview.rows[at].parent) if (this.parts.has(at)) return at;
    return 0;
  }

  fold(row, open = !this.opened.has(row.place)) {
    const opened = this.opened;
    if (open) opened.add(row.place); else opened.delete(row.place);
    this.app.choose({ opened: [...opened] });
    this.app.say(`${this.app.overview.nameOf(row)} is ${open ? "unfolded" : "folded"}: ${this.visible().length} rows`);
  }

  /** Unfold whatever hides a row. */
  reveal(i) {
    const opened = this.opened, { rows } = this.app.overview;
    for (let at = rows[i].parent; at >= 0; at = rows[at].parent) opened.add(rows[at].place);
    return [...opened];
  }

  roam(i) { this.roaming = i; this.keepInView(i); this.mark(); }

  focus(i) { this.parts.get(i)?.item.focus({ preventScroll: true }); }

  key(event) {
    const at = this.rows.findIndex((row) => row.i === +event.target.dataset.i), row = this.rows[at];
    const { parent } = row ?? {}, fold = row && this.canFold(row), open = row && this.opened.has(row.place);
    const step = 60 * this.unit;
    const moves = { ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step), ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0) };
    const goes = {
      ArrowUp: () => this.focus(this.rows[Math.max(0, at - 1)].i), ArrowDown: () => this.focus(this.rows[Math.min(this.rows.length - 1, at + 1)].i),
      ArrowRight: () => (fold && !open ? this.fold(row, true) : this.focus(this.rows[Math.min(this.rows.length - 1, at + 1)].i)),
      ArrowLeft: () => (fold && open ? this.fold(row, false) : parent >= 0 && this.focus(parent)),
      Home: () => this.focus(this.rows[0].i), End: () => this.focus(this.rows.at(-1).i),
      Enter: () => this.app.choose({ place: row.place }), " ": () => this.app.choose({ place: row.place }),
    };
    const zooms = { "+": () => this.zoom(1.25), "=": () => this.zoom(1.25), "-": () => this.zoom(0.8), 0: () => this.fit() };
    const action = event.ctrlKey || event.metaKey || event.altKey ? null : event.shiftKey && moves[event.key] ? moves[event.key] : zooms[event.key] ?? (row && goes[event.key]);
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** Pixels of the picture's own per pixel of the screen, before zooming. */
  get unit() { return Math.max(this.size[0] / Math.max(1, this.wide), 0.87); }

  place() {
    const [x, y, k] = this.app.state.view, wide = this.wide * this.unit, tall = this.tall * this.unit;
    const frame = `0 0 ${wide} ${tall}`, turn = `translate(${x} ${y}) scale(${k})`;
    if (frame !== this.svg.getAttribute("viewBox")) this.svg.setAttribute("viewBox", frame); // else all text is laid out anew
    if (turn !== this.picture.getAttribute("transform")) this.picture.setAttribute("transform", turn);
  }

  look(x, y, k) {
    const tall = this.tall * this.unit, wide = this.wide * this.unit;
    const within = (v, least, most) => Math.min(Math.max(v, Math.min(least, most)), Math.max(least, most));
    const round = (v) => Math.round(100 * v) / 100;
    this.app.choose({ view: [round(within(x, 0, wide - this.size[0] * k)), round(within(y, 0, tall - this.size[1] * k)), Math.round(1e4 * k) / 1e4] });
    this.place();
  }

  pan(dx, dy) { const [x, y, k] = this.app.state.view; this.look(x + dx, y + dy, k); }

  zoom(factor, px = (this.wide * this.unit) / 2, py = (this.tall * this.unit) / 2) {
    const [x, y, k] = this.app.state.view, next = Math.min(4, Math.max(0.15, k * factor));
    this.look(px - ((px - x) * next) / k, py - ((py - y) * next) / k, next);
  }

  fit() { this.look(0, 0, 1); }

  keepInView(i) {
    const part = this.parts.get(i), [x, y, k] = this.app.state.view, tall = this.tall * this.unit;
    if (!part) return;
    const top = y + (part.y - this.high / 2 - TOP) * k, bottom = y + (part.y + this.high / 2 + 8) * k;
    if (top < 0) this.look(x, y - top, k);
    else if (bottom > tall) this.look(x, y - (bottom - tall), k);
  }

  wheel(event) {
    const unit = this.unit, [x, y, k] = this.app.state.view, box = this.svg.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.002), (event.clientX - box.left) * unit, (event.clientY - box.top) * unit);
      return;
    }
    this.look(x - event.deltaX * unit, y - event.deltaY * unit, k);
    const [nx, ny] = this.app.state.view;
    if (nx !== x || ny !== y) event.preventDefault(); // at an end, the notebook scrolls on
  }

  grab(event) { this.grip = [event.clientX, event.clientY, ...this.app.state.view]; this.moved = false; }

  drag(event) {
    if (!this.grip || !(event.buttons & 1)) return;
    const [sx, sy, x, y, k] = this.grip, dx = event.clientX - sx, dy = event.clientY - sy;
    if (!this.moved && Math.hypot(dx, dy) < 4) return;
    if (!this.moved) this.svg.setPointerCapture(event.pointerId);
    this.moved = true;
    this.look(x + dx * this.unit, y + dy * this.unit, k);
  }

  release() { this.grip = null; setTimeout(() => { this.moved = false; }); }
}

function arrowPath({ from, to, y }, width) {
  const head = Math.min(9, 5 + width / 2), half = width / 2, wing = half + 3;
  return `M${from} ${y - half}H${to - head}V${y - wing}L${to} ${y}L${to - head} ${y + wing}V${y + half}H${from}Z`;
}

/** Keep the end of a name, which tells parameters apart. */
function shortened(name, most) {
  if (name.length <= most) return name;
  const head = Math.max(1, Math.floor((most - 1) / 4));
  return `${name.slice(0, head)}…${name.slice(name.length - (most - 1 - head))}`;
}
