// The explorer in a page without a kernel: what stands for the kernel answers from numbers in the page. Read-only.

function standIn(data) {
  const listeners = new Map();
  const fire = (event, ...given) => { for (const one of listeners.get(event) ?? []) one(...given); };
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const singles = (text) => Float64Array.from(new Float32Array(bytes(text)));
  const all = singles(data.tables), { columns, steps, rows } = data, width = all.length / (steps.length * rows || 1);
  const place = new Map(data.overview.rows.map(([name], i) => [name, i]));
  const answers = {
    step: ({ index }) => {
      const s = steps.indexOf(index);
      return [{ ...columns, steps: [index], rows }, all.slice(s * rows * width, (s + 1) * rows * width)];
    },
    history: (question) => {
      const row = place.get(question.place) ?? 0, found = new Float64Array(steps.length * width);
      steps.forEach((_, s) => found.set(all.subarray((s * rows + row) * width, (s * rows + row + 1) * width), s * width));
      return [{ ...columns, steps, every: data.every, place: question.place }, found];
    },
    maps: ({ index, place: name }) => {
      const kept = data.maps[`${index} ${name}`];
      return kept ? [kept.head, singles(kept.cells)] : [{ panels: [], why: data.why }, new Float64Array(0)];
    },
  };
  const values = { state: data.state, overview: data.overview, overview_numbers: new Float64Array(bytes(data.numbers)) };
  return {
    get: (key) => values[key],
    set: (key, value) => { values[key] = value; fire(`change:${key}`); },
    save_changes() {},
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off: (event, listener) => listeners.set(event, (listeners.get(event) ?? []).filter((one) => one !== listener)),
    send: (question) => queueMicrotask(() => {
      const [head, numbers] = answers[question.ask](question);
      fire("msg:custom", { id: question.id, head }, [numbers]);
    }),
  };
}

const el = document.getElementById("gf-explorer");
render({ model: standIn(JSON.parse(document.getElementById("gf-explorer-data").textContent)), el });
