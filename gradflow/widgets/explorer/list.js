// The list of parameters: sorted by a measure, narrowed by the search, one of them selected.

const MOST_LISTED = 300;
const MEASURES = [
  ["name", "parameter", "in the model's order"],
  ["total", "‖Σ‖", "norm of the sum of the contributions"],
  ["conflict", "conflict", "minus the smallest cosine of two branches, if that is negative"],
  ["cancellation", "cancels", "share of the contributions that the sum throws away"],
  ["delta", "‖Δ‖", "norm of the delta"],
];

class List {
  constructor(app) {
    this.app = app;
    this.lines = [];
    this.room = 24; // letters of a name that fit
    this.body = make("tbody", { onkeydown: (event) => this.key(event) });
    this.heads = new Map();
    const heads = MEASURES.map(([key, words, told]) => {
      const button = make("button", { title: told, onclick: () => this.sort(key) }, words);
      const cell = make("th", { scope: "col", role: "columnheader" }, button);
      this.heads.set(key, cell);
      return cell;
    });
    this.more = make("p", { class: "gf-note" });
    this.table = make("table", { role: "grid", "aria-label": "Parameters" }, make("thead", {}, make("tr", {}, ...heads)), this.body);
    this.root = make("div", { class: "gf-list" }, make("div", { class: "gf-list-scroll" }, this.table), this.more);
  }

  measure() { this.room = Math.max(14, Math.floor((0.4 * this.root.clientWidth - 16) / 6.6)); }

  sort(key) {
    const { sort, ascending } = this.app.state;
    this.app.choose({ sort: key, ascending: sort === key ? !ascending : key === "name" });
    const { ascending: up } = this.app.state;
    this.app.say(`sorted by ${MEASURES.find(([one]) => one === key)[1]}, ${up ? "smallest" : "largest"} first`);
  }

  value(row, key, table) {
    return key === "name" ? row.i : key === "conflict" ? table.conflict(row.i) : table.get(row.i, key);
  }

  show(table) {
    const { sort, ascending } = this.app.state, hits = this.app.hits && new Set(this.app.hits);
    const rows = this.app.overview.rows.filter((row) => row.isParameter && (!hits || hits.has(row.i)));
    const by = rows.map((row) => [row, this.value(row, sort, table)]);
    const turn = ascending ? 1 : -1;
    by.sort(([a, x], [b, y]) => (Number.isNaN(x) ? 1 : 0) - (Number.isNaN(y) ? 1 : 0) || turn * (x - y) || a.i - b.i);
    const shown = by.slice(0, MOST_LISTED).map(([row]) => row);
    while (this.lines.length < shown.length) this.lines.push(this.line());
    while (this.lines.length > shown.length) this.lines.pop().line.remove();
    const at = shown.findIndex((row) => row.place === this.app.state.place);
    shown.forEach((row, k) => this.fill(this.lines[k], row, table, k === Math.max(0, at)));
    this.more.textContent = rows.length > shown.length ? `${rows.length - shown.length} more; the search narrows the list` : hits && !rows.length ? "nothing found" : "";
    for (const [key, cell] of this.heads) cell.setAttribute("aria-sort", key !== sort ? "none" : ascending ? "ascending" : "descending");
  }

  line() {
    const cells = MEASURES.map(([key]) => make(key === "name" ? "th" : "td", { role: key === "name" ? "rowheader" : "gridcell", scope: key === "name" ? "row" : null }));
    const line = make("tr", { tabindex: -1, role: "row", onclick: () => this.app.reveal(line.dataset.place) }, ...cells);
    this.body.append(line);
    return { line, cells };
  }

  fill({ line, cells }, row, table, isEntry) {
    const chosen = row.place === this.app.state.place, conflict = table.conflict(row.i);
    line.dataset.place = row.place;
    line.setAttribute("aria-selected", String(chosen));
    line.setAttribute("tabindex", isEntry ? 0 : -1);
    const words = [shortened(row.place, this.room), number(table.get(row.i, "total")), Number.isNaN(conflict) ? "–" : conflict.toFixed(2),
      percent(table.get(row.i, "cancellation")), number(table.get(row.i, "delta"))];
    words.forEach((text, k) => { if (cells[k].textContent !== text) cells[k].textContent = text; });
    cells[0].title = row.place;
    cells[2].classList.toggle("gf-strong", conflict >= STRONG);
  }

  key(event) {
    const at = this.lines.findIndex(({ line }) => line === event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.lines.length - 1, PageDown: at + 10, PageUp: at - 10 }[event.key];
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.app.reveal(event.target.dataset.place); }
    if (to === undefined) return;
    event.preventDefault();
    const next = this.lines[Math.min(this.lines.length - 1, Math.max(0, to))].line;
    next.focus();
    this.app.choose({ place: next.dataset.place });
  }

  /** Show the selected one, without moving what is outside the list. */
  keepInView() {
    const line = this.lines.find((one) => one.line.getAttribute("aria-selected") === "true")?.line;
    const frame = this.table.parentElement;
    if (!line) return;
    const above = line.offsetTop - this.table.tHead.offsetHeight - frame.scrollTop;
    const below = line.offsetTop + line.offsetHeight - frame.scrollTop - frame.clientHeight;
    if (above < 0) frame.scrollTop += above;
    else if (below > 0) frame.scrollTop += below;
  }
}
