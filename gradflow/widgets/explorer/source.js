// Where the numbers of the explorer come from: questions to the kernel, or to what stands for it in a page without
// one, and the answers that are kept. What the numbers mean is in table.py and book.py.

const KEPT_STEPS = 400;

/** Measures of every row in one step, or of one row in every step. */
class Table {
  constructor(head, numbers, block = 0, rows = head.rows) {
    this.head = head;
    this.width = head.contributors.length + head.fixed.length + head.deltas.length + head.pairs.length;
    this.numbers = numbers.subarray(block * rows * this.width, (block + 1) * rows * this.width);
    this.fixedAt = Object.fromEntries(head.fixed.map((name, i) => [name, head.contributors.length + i]));
    this.sharesAt = head.contributors.length + head.fixed.length;
    this.pairAt = new Map(head.pairs.map(([i, j], k) => [`${i},${j}`, this.sharesAt + head.deltas.length + k]));
  }
  norm(row, i) { return this.numbers[row * this.width + i]; }
  get(row, name) { return this.numbers[row * this.width + this.fixedAt[name]]; }
  share(row, i) { return this.numbers[row * this.width + this.sharesAt + i]; }
  conflict(row) { return Math.max(0, -this.get(row, "least")); }
  /** The cosine of two contributors; undefined where there are too many to send them all. */
  cosine(row, i, j) {
    if (i === j) return this.norm(row, i) > 0 ? 1 : NaN;
    const at = this.pairAt.get(i < j ? `${i},${j}` : `${j},${i}`);
    return at === undefined ? undefined : this.numbers[row * this.width + at];
  }
  /** Names of the two branches that pull against each other most. */
  worst(row) {
    const which = this.get(row, "pair");
    if (Number.isNaN(which)) return null;
    const names = this.head.contributors;
    for (let i = 0, k = 0; i < names.length; i++) {
      for (let j = i + 1; j < names.length; j++, k++) if (k === which) return [names[i], names[j]];
    }
    return null;
  }
}

/** What is known of the recording as a whole: rows, steps, scalars, looks. */
class Overview {
  constructor(head, numbers) {
    Object.assign(this, head);
    this.rows = head.rows.map(([place, parent, isParameter, members], i) => ({ i, place, parent, isParameter, members }));
    this.at = new Map(this.rows.map((row) => [row.place, row.i]));
    this.kids = this.rows.map(() => []);
    for (const row of this.rows) if (row.parent >= 0) this.kids[row.parent].push(row.i);
    for (const row of this.rows) row.depth = row.parent < 0 ? 0 : this.rows[row.parent].depth + 1;
    const column = (k) => numbers.subarray(k * head.steps, (k + 1) * head.steps);
    this.indices = column(0);
    this.flags = column(1);
    this.values = head.scalars.map((_, k) => column(2 + k));
  }
  get last() { return this.steps - 1; }
  /** Position of the step with an index, or of the nearest one; -1 is the newest. */
  position(index) {
    if (index < 0) return this.last;
    let low = 0, high = this.last;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.indices[middle] < index) low = middle + 1; else high = middle;
    }
    return low > 0 && index - this.indices[low - 1] < this.indices[low] - index ? low - 1 : low;
  }
  nameOf(row) { return row.place || "the whole model"; }
  /** A name as it stands under its parent's. */
  shortName(row) {
    if (row.parent < 0) return "model";
    const above = this.rows[row.parent].place;
    return above ? row.place.slice(above.length + 1) : row.place;
  }
  look(name) { return this.looks[name] ?? { colour: "#8c8c8c", dash: [1, 1], letter: name }; }
}

/** Asks, and keeps what was answered. */
class Source {
  constructor(page, onGrown) {
    this.page = page;
    this.tag = Math.random().toString(36).slice(2); // several views of one widget hear all answers
    this.open = new Map();
    this.steps = new Map();
    this.others = new Map();
    this.count = 0;
    this.bytes = 0;
    page.on("msg:custom", (message, buffers) => {
      this.bytes += (buffers ?? []).reduce((sum, buffer) => sum + buffer.byteLength, 0);
      if (message.grown) { this.others.clear(); onGrown(new Overview(message.head, numbersOf(buffers[0]))); return; }
      const waiting = this.open.get(message.id);
      if (!waiting) return;
      this.open.delete(message.id);
      if (message.error) waiting.reject(new Error(message.error));
      else waiting.resolve({ head: message.head, numbers: numbersOf(buffers[0]) });
    });
  }
  ask(question) {
    const id = `${this.tag}:${this.count++}`;
    return new Promise((resolve, reject) => {
      this.open.set(id, { resolve, reject });
      this.page.model.send({ ...question, id });
    });
  }
  /** All measures of the step with an index, from the kernel or from what is kept. */
  async step(index) {
    if (!this.steps.has(index)) {
      const answer = this.ask({ ask: "step", index }).then(({ head, numbers }) => new Table(head, numbers));
      this.keep(this.steps, index, answer);
    }
    return this.steps.get(index);
  }
  async history(place) {
    const key = `history ${place}`;
    if (!this.others.has(key)) {
      const answer = this.ask({ ask: "history", place });
      this.keep(this.others, key, answer.then(({ head, numbers }) => new Table(head, numbers, 0, head.steps.length)));
    }
    return this.others.get(key);
  }
  async maps(index, place) {
    const key = `maps ${index} ${place}`;
    if (!this.others.has(key)) this.keep(this.others, key, this.ask({ ask: "maps", index, place }));
    return this.others.get(key);
  }
  keep(store, key, answer) {
    store.set(key, answer);
    answer.catch(() => store.delete(key)); // what failed may be asked again
    while (store.size > KEPT_STEPS) store.delete(store.keys().next().value);
  }
}

/** Float64 numbers from whatever a message carries them in. */
function numbersOf(buffer) {
  const view = ArrayBuffer.isView(buffer) ? buffer : new Uint8Array(buffer ?? 0);
  return new Float64Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}
