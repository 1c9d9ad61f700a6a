// The explorer put together: scrubber, search, flow, list and details are linked by one small state.

const NEWEST = -1, FRAME_MS = 60;

class App {
  constructor(page) {
    this.page = page;
    this.overview = new Overview(page.model.get("overview"), numbersOf(page.model.get("overview_numbers")));
    this.source = new Source(page, (overview) => this.grow(overview));
    this.table = null;
    this.before = {};
    this.hits = null;
    this.flow = new Flow(this);
    this.list = new List(this);
    this.detail = new Detail(this);
    page.root.classList.add("gf-explorer");
    page.root.addEventListener("keydown", (event) => this.key(event));
    page.root.append(this.controls(), this.legend(), make("div", { class: "gf-panes" }, this.flowPane(), this.list.root), this.detail.root, page.live);
    page.on("change:state", () => this.update());
    const sizes = new ResizeObserver(() => this.resize());
    sizes.observe(page.root);
    sizes.observe(this.flow.root); // it can be drawn larger
    this.flow.measure();
    this.list.measure();
    page.onClose(() => { sizes.disconnect(); clearInterval(this.timer); });
    this.update();
  }

  get state() { return this.page.state; }
  get position() { return this.overview.position(this.state.step); }
  get index() { return this.overview.steps ? this.overview.indices[this.position] : NEWEST; }
  get row() { return this.overview.rows[this.overview.at.get(this.state.place) ?? 0]; }
  choose(changes) { this.page.choose(changes); }
  say(words) { this.page.say(words); }

  controls() {
    this.play = make("button", { "aria-pressed": "false", onclick: () => this.choose({ playing: !this.state.playing }) }, "▶ play");
    this.range = make("input", { type: "range", min: 0, step: 1, class: "gf-scrubber", "aria-label": "training step",
      oninput: () => this.choose({ step: this.overview.indices[+this.range.value], playing: false }),
      onkeydown: (event) => { if (event.key === "End") { event.preventDefault(); this.choose({ step: NEWEST, playing: false }); } } });
    this.spark = draw("svg", { class: "gf-spark", "aria-hidden": "true", preserveAspectRatio: "none", viewBox: "0 0 100 20" });
    this.told = make("output", { class: "gf-step" });
    this.newest = make("button", { title: "follow the newest step", onclick: () => this.choose({ step: NEWEST, playing: false }) }, "newest");
    this.search = make("input", { type: "search", placeholder: "search parameters ( / )", "aria-label": "search parameters and modules",
      oninput: () => this.choose({ search: this.search.value }), onkeydown: (event) => { if (event.key === "Enter") this.go(); } });
    const step = (by) => () => this.choose({ step: this.overview.indices[Math.min(this.overview.last, Math.max(0, this.position + by))], playing: false });
    return make("div", { class: "gf-row gf-controls", role: "toolbar", "aria-label": "Steps and search" }, this.play,
      make("button", { "aria-label": "step back", onclick: step(-1) }, "‹"),
      make("div", { class: "gf-track" }, this.spark, this.range), make("button", { "aria-label": "step on", onclick: step(1) }, "›"),
      this.newest, this.told, this.search);
  }

  legend() {
    this.chips = make("div", { class: "gf-row gf-legend", role: "group", "aria-label": "Branches: press one to bring it out" });
    return this.chips;
  }

  fillLegend() {
    const names = this.overview.branches.concat((this.table?.head.contributors ?? []).filter((name) => !this.overview.branches.includes(name)));
    const plan = names.join("\n");
    if (plan !== this.legended) {
      this.legended = plan;
      this.chips.replaceChildren(...names.map((name) => {
        const look = this.overview.look(name);
        const line = draw("svg", { width: 22, height: 10, "aria-hidden": "true" }, draw("line", { x1: 0, x2: 22, y1: 5, y2: 5, stroke: look.colour,
          "stroke-width": 4, "stroke-dasharray": look.dash.map((on) => 2 * on).join(" ") }));
        return make("button", { class: "gf-branch", "data-name": name, onclick: () => this.choose({ branch: this.state.branch === name ? "" : name }) },
          line, look.letter === name ? name : `${name} (${look.letter})`);
      }));
    }
    for (const chip of this.chips.children) chip.setAttribute("aria-pressed", String(chip.dataset.name === this.state.branch));
  }

  flowPane() {
    const button = (words, label, action) => make("button", { "aria-label": label, title: label, onclick: action }, words);
    const all = () => this.choose({ opened: this.overview.rows.filter((row) => this.overview.kids[row.i].length).map((row) => row.place) });
    const bar = make("div", { class: "gf-row gf-zoom", role: "toolbar", "aria-label": "Look of the flow" },
      button("+", "zoom in", () => this.flow.zoom(1.25)), button("−", "zoom out", () => this.flow.zoom(0.8)), button("fit", "fit the width", () => this.flow.fit()),
      button("unfold all", "unfold all modules", all), button("fold all", "fold all modules", () => this.choose({ opened: [""] })));
    return make("div", { class: "gf-flow-pane" }, bar, this.flow.root);
  }

  /** Bring everything in line with the state; only what changed is drawn anew. */
  update() {
    const { state, before } = this, changed = (key) => !same(before[key], state[key]);
    const isFirst = before.step === undefined;
    if (changed("search")) this.find();
    if (changed("playing")) this.turnPlaying();
    if (this.search.value !== state.search) this.search.value = state.search;
    this.range.max = Math.max(0, this.overview.last);
    this.range.value = this.position;
    this.tellStep();
    this.before = { ...state };
    if (!this.overview.steps) { this.say("No step was recorded yet."); return; }
    if (isFirst || changed("step") || this.shownIndex !== this.index) this.bring();
    else if (this.table && ["place", "branch", "opened", "sort", "ascending", "search"].some(changed)) this.show(changed("place") || changed("branch"));
    else if (this.table) this.flow.place();
    if (changed("place") && !isFirst) { this.list.keepInView(); this.flow.keepInView(this.flow.shownFor(this.row.i)); }
    if (isFirst || changed("place") || changed("branch") || this.pastStale) { this.pastStale = false; this.detail.showHistory(); }
  }

  tellStep() {
    const { overview, position } = this;
    if (!overview.steps) { this.told.textContent = "no step yet"; return; }
    const flags = overview.flags[position], words = [flags & 1 ? "incomplete" : "", flags & 2 ? "skipped" : "", flags & 4 ? "no gradient" : ""];
    const said = [`step ${overview.indices[position]} of ${overview.indices[0]} to ${overview.indices[overview.last]}`, ...words.filter(Boolean), this.scalarWords()];
    this.told.textContent = said.filter(Boolean).join(" · ");
    this.range.setAttribute("aria-valuetext", this.told.textContent);
    this.newest.setAttribute("aria-pressed", String(this.state.step === NEWEST));
  }

  scalarWords() {
    const { overview, position } = this;
    return overview.scalars.map((name, k) => [name, overview.values[k][position]]).filter(([, v]) => !Number.isNaN(v)).slice(0, 3)
      .map(([name, v]) => `${name} ${number(v)}`).join(", ");
  }

  /** Get the step that is wanted; while one is on its way, only the last one wanted comes next. */
  async bring() {
    if (this.isBringing) return;
    this.isBringing = true;
    let failed = "";
    while (this.shownIndex !== this.index && !failed) {
      const index = this.index, late = setTimeout(() => this.say("waiting for the kernel …"), 1500);
      try {
        const table = await this.source.step(index);
        this.table = table;
        this.shownIndex = index;
        this.show(true);
      } catch (error) { failed = error.message; }
      clearTimeout(late);
    }
    this.isBringing = false;
    if (failed) this.say(failed);
    else this.prefetch();
  }

  /** Ask for the steps that will be wanted next, if one goes on in the same direction. */
  prefetch() {
    const { position, overview, state } = this, direction = Math.sign(position - (this.positionBefore ?? position));
    this.positionBefore = position;
    const by = state.playing ? this.stride : direction, count = state.playing ? 3 : 1;
    clearTimeout(this.idle);
    this.idle = setTimeout(() => {
      for (let at = position + by, k = 0; by && k < count && at >= 0 && at <= overview.last; at += by, k++) {
        this.source.step(overview.indices[at]).catch(() => {});
      }
    }, state.playing ? 0 : 40);
  }

  show(isNew) {
    if (this.table.head.rows !== this.overview.rows.length) return; // the tree grew: the step is asked for again
    this.fillLegend();
    this.flow.show(this.table);
    this.list.show(this.table);
    this.detail.show(this.table);
    if (!isNew) return;
    this.detail.showMaps(this.shownIndex);
    if (!this.state.playing) this.say(`Step ${this.shownIndex}. ${this.rowWords(this.row, this.table)}`);
  }

  /** A row of a step in words, for screen readers and for the live text. */
  rowWords(row, table) {
    const total = table.get(row.i, "total"), name = this.overview.nameOf(row);
    if (Number.isNaN(total)) return `${name}: no gradient`;
    const parts = table.head.contributors.map((one, i) => [one, table.norm(row.i, i)])
      .map(([one, norm]) => `${one} ${Number.isNaN(norm) ? "absent" : number(norm)}`);
    const least = table.get(row.i, "least"), pair = table.worst(row.i), delta = table.get(row.i, "delta");
    return [`${name}: ${parts.slice(0, 8).join(", ")}`, `sum ${number(total)}, ${percent(table.get(row.i, "cancellation"))} cancels`,
      least < 0 && pair ? `${pair.join(" against ")}, cosine ${signed(least)}` : "", Number.isNaN(delta) ? "" : `delta ${number(delta)}`].filter(Boolean).join("; ");
  }

  find() {
    const words = this.state.search.trim().toLowerCase();
    this.hits = words ? this.overview.rows.filter((row) => row.place.toLowerCase().includes(words)).map((row) => row.i) : null;
    if (!words) { if (this.before.search) this.say("search cleared"); return; }
    const found = this.hits.filter((i) => this.overview.rows[i].isParameter).length;
    this.say(`${found} of ${this.overview.rows[0].members} parameters found`);
  }

  /** Select what the search found first, and unfold what hides it. */
  go() {
    const first = (this.hits ?? []).find((i) => this.overview.rows[i].isParameter) ?? this.hits?.[0];
    if (first === undefined) return;
    this.reveal(this.overview.rows[first].place);
  }

  /** Select a row, and unfold what hides it. */
  reveal(place) { this.choose({ place, opened: this.flow.reveal(this.overview.at.get(place) ?? 0) }); }

  get stride() { return Math.max(1, Math.ceil(this.overview.steps / 300)); }

  turnPlaying() {
    const { playing } = this.state;
    this.play.textContent = playing ? "❚❚ pause" : "▶ play";
    this.play.setAttribute("aria-pressed", String(playing));
    clearInterval(this.timer);
    if (playing) this.timer = setInterval(() => this.advance(), Math.max(FRAME_MS, calm ? 250 : 0));
  }

  advance() {
    if (this.isBringing || this.shownIndex !== this.index) return; // it is not there yet
    const { overview } = this, isAtEnd = this.position >= overview.last;
    if (isAtEnd && this.state.step === NEWEST) { this.choose({ step: overview.indices[0] }); return; } // once more from the start
    if (isAtEnd) { this.choose({ playing: false }); return; }
    this.choose({ step: overview.indices[Math.min(overview.last, this.position + this.stride)] });
  }

  /** New steps came while training runs. */
  grow(overview) {
    if (!same(overview.rows.map((row) => row.place), this.overview.rows.map((row) => row.place))) { this.source.steps.clear(); this.shownIndex = undefined; }
    this.overview = overview;
    this.pastStale = this.state.step === NEWEST;
    this.drawSpark();
    this.update();
  }

  /** A line of the first scalar behind the scrubber. */
  drawSpark() {
    const values = this.overview.values[0] ?? [], known = [...values].filter(Number.isFinite);
    const least = known.reduce((a, b) => Math.min(a, b), Infinity), most = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const every = Math.max(1, Math.ceil(values.length / 500));
    let d = "";
    for (let i = 0; i < values.length; i += every) {
      if (Number.isFinite(values[i])) d += `${d ? "L" : "M"}${((100 * i) / Math.max(1, this.overview.last)).toFixed(2)} ${(18 - (16 * (values[i] - least)) / (most - least || 1)).toFixed(2)}`;
    }
    this.spark.replaceChildren(draw("path", { d, fill: "none", stroke: "var(--gf-muted)", "stroke-width": 1, "vector-effect": "non-scaling-stroke" }));
  }

  resize() {
    this.drawSpark();
    this.flow.measure();
    this.list.measure();
    if (this.table) { this.flow.place(); this.list.show(this.table); }
    const width = this.detail.past.clientWidth;
    if (this.detail.chart && width && Math.abs(width - this.detail.chart.width) > 8) this.detail.showHistory();
  }

  key(event) {
    if (event.key === "/" && event.target !== this.search) { event.preventDefault(); this.search.focus(); }
    if (event.key === "Escape" && event.target === this.search) this.choose({ search: "" });
  }
}

function render({ model, el }) {
  const page = openPage(model, el, { label: "Explorer of a recording" });
  new App(page);
  return page.close;
}
export default { render };
