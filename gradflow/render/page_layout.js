// Where the boxes of a graph stand: pure functions, no DOM. Lanes are columns, layers are rows, a parameter
// that several branches share stands in the middle, half a row below its users.

"use strict";

const GAP_X = 18, GAP_Y = 34, PAD = 12, HEADER = 24, ROOM = 54; // points

/** The outermost closed box around each leaf, given which boxes are open. */
function visibleOf(parents, isOpen) {
  const shown = new Int32Array(parents.length);
  for (let i = 0; i < parents.length; i++) {
    const outer = parents[i];
    const hidden = outer >= 0 && (shown[outer] !== outer || !isOpen.has(outer));
    shown[i] = hidden ? shown[outer] : i;
  }
  return shown;
}

/** The visible boxes and the edges between them, several between the same two drawn as one. */
function visibleGraph(data, isOpen) {
  const shown = visibleOf(data.parents, isOpen);
  const nodes = [];
  for (let i = 0; i < shown.length; i++) if (shown[i] === i && !(isOpen.has(i) && data.kids[i].length)) nodes.push(i);
  const found = new Map();
  for (const edge of data.edges) {
    const source = shown[edge.s], target = shown[edge.t];
    if (source === target) continue;
    const key = source + ">" + target;
    if (!found.has(key)) found.set(key, { s: source, t: target, parts: [] });
    found.get(key).parts.push(edge);
  }
  const edges = [...found.values()];
  for (const edge of edges) {
    const branches = new Set(edge.parts.map((part) => part.b));
    edge.b = branches.size === 1 ? edge.parts[0].b : -1;
    const into = data.boxes[edge.t], from = data.boxes[edge.s];
    if (!isLeafKind(into.kind)) edge.b = into.b >= 0 && into.b < data.counted ? into.b : from.b;
    edge.norm = jointNorm(edge, data);
  }
  return { nodes, edges };
}

function isLeafKind(kind) {
  return kind === "parameter" || kind === "input";
}

/** The norm of all gradients along an edge together; null where they add up in one place and were not summed. */
function jointNorm(edge, data) {
  let square = 0;
  const byTarget = new Map();
  for (const part of edge.parts) {
    if (!byTarget.has(part.t)) byTarget.set(part.t, []);
    byTarget.get(part.t).push(part);
  }
  for (const [target, parts] of byTarget) {
    const uses = parts.reduce((sum, part) => sum + part.n, 0);
    const sums = data.sums[target], branch = parts[0].b;
    let norm = parts.length === 1 && parts[0].norm !== null ? parts[0].norm : null;
    const isAll = parts.every((part) => part.b === branch) && uses === (data.uses[target + ":" + branch] || 0);
    if (sums && isAll && sums.c[branch] !== undefined) norm = sums.c[branch];
    if (norm === null) return null;
    square += norm * norm;
  }
  return Math.sqrt(square);
}

/** The row of each box: as far from the loss as the longest way there. Cycles (equal time steps) are cut. */
function rowsOf(nodes, edges, data) {
  const row = new Map(nodes.map((node) => [node, 0]));
  const below = new Map(nodes.map((node) => [node, []]));
  const waiting = new Map(nodes.map((node) => [node, 0]));
  for (const edge of edges) {
    if (isLeafKind(data.boxes[edge.t].kind)) continue;
    below.get(edge.s).push(edge.t);
    waiting.set(edge.t, waiting.get(edge.t) + 1);
  }
  const left = new Set(nodes.filter((node) => !isLeafKind(data.boxes[node].kind)));
  let ready = [...left].filter((node) => waiting.get(node) === 0);
  while (left.size) {
    if (!ready.length) ready = [left.values().next().value]; // a cycle: go on with the first that is left
    const node = ready.pop();
    if (!left.delete(node)) continue;
    for (const target of below.get(node)) {
      if (!left.has(target)) continue;
      row.set(target, Math.max(row.get(target), row.get(node) + 1));
      waiting.set(target, waiting.get(target) - 1);
      if (waiting.get(target) === 0) ready.push(target);
    }
  }
  return row;
}

/**
 * Places of the boxes that are visible when some are open.
 *
 * Gives the nodes and edges, the centre and size of each box (`at`), the frames of the lanes, and the points of
 * each edge (`routes`, in the order of `edges`). A parameter used in several lanes stands in the middle; every
 * other stands in the side column of its users, to the right of them (left of the first lane).
 */
function layOut(data, isOpen, sizeOf) {
  const { nodes, edges } = visibleGraph(data, isOpen);
  const row = rowsOf(nodes, edges, data);
  const users = new Map(nodes.map((node) => [node, []]));
  for (const edge of edges) users.get(edge.t).push(edge.s);
  const laneOf = (node) => data.lanes.indexOf(data.boxes[node].b);
  const plan = { data, nodes, edges, row, users, laneOf, sizeOf, cells: new Map(), middle: [], side: new Map() };
  for (const node of nodes) if (!isLeafKind(data.boxes[node].kind)) push(plan.cells, laneOf(node) + ":" + row.get(node), node);
  for (const node of nodes) if (isLeafKind(data.boxes[node].kind)) placeLeaf(plan, node);
  orderCells(plan.cells, edges);
  const across = columns(plan);
  const down = heights(plan);
  const at = new Map();
  for (const [key, cell] of plan.cells) {
    const [lane, level] = key.split(":").map(Number);
    let x = across.centre.get(lane) - widthOf(cell, sizeOf) / 2;
    for (const node of cell) {
      const size = sizeOf(node);
      at.set(node, { x: x + size.w / 2, y: down.top[level] + down.height[level] / 2, ...size });
      x += size.w + GAP_X;
    }
  }
  stack(plan.middle, down, sizeOf, at, () => across.middle);
  for (const [lane, list] of plan.side) stack(list, down, sizeOf, at, (size) => across.side(lane, size));
  const frames = framesOf(plan, at);
  return { nodes, edges, at, frames, routes: routesOf(plan, at, frames) };
}

function push(map, key, value) {
  if (!map.has(key)) map.set(key, []);
  map.get(key).push(value);
}

function widthOf(cell, sizeOf) {
  return cell.reduce((sum, node) => sum + sizeOf(node).w + GAP_X, -GAP_X);
}

/** Put a parameter in the middle, or in the side column of its users, at the mean of their rows. */
function placeLeaf(plan, node) {
  const using = plan.users.get(node);
  const lanes = new Set(using.map(plan.laneOf));
  const levels = using.map((user) => plan.row.get(user));
  const mean = levels.length ? levels.reduce((a, b) => a + b, 0) / levels.length : 0;
  if (lanes.size > 1) plan.middle.push({ node, level: mean + (levels.every((level) => level === levels[0]) ? 0.5 : 0) });
  else push(plan.side, using.length ? plan.laneOf(using[0]) : -1, { node, level: mean });
}

/** Where the columns are: lanes from left to right, each with its side column, the middle between them. */
function columns(plan) {
  const { data, sizeOf } = plan;
  const wide = new Map(), beside = new Map(), centre = new Map();
  for (const [key, cell] of plan.cells) {
    const lane = +key.split(":")[0];
    wide.set(lane, Math.max(wide.get(lane) || 0, widthOf(cell, sizeOf)));
  }
  for (const [lane, list] of plan.side) beside.set(lane, Math.max(...list.map(({ node }) => sizeOf(node).w)));
  const shared = Math.max(0, ...plan.middle.map(({ node }) => sizeOf(node).w));
  const half = Math.ceil(data.lanes.length / 2);
  let x = 0, middle = null;
  data.lanes.forEach((_, lane) => {
    if (lane === half && shared) { middle = x + ROOM + shared / 2 - GAP_X; x += shared + 2 * ROOM - GAP_X; }
    const own = Math.max(wide.get(lane) || 0, 70) + 2 * PAD, more = beside.has(lane) ? beside.get(lane) + ROOM : 0;
    centre.set(lane, x + own / 2 + (lane === 0 ? more : 0));
    x += own + more + GAP_X;
  });
  centre.set(-1, data.lanes.length ? (centre.get(0) + centre.get(data.lanes.length - 1)) / 2 : 0);
  const main = (lane) => Math.max(wide.get(lane) || 0, 70) / 2 + (lane < 0 ? 0 : PAD);
  const side = (lane, size) => {
    const ahead = lane === 0 ? -1 : 1;
    return centre.get(lane) + ahead * (main(lane) + ROOM + size.w / 2);
  };
  return { centre, side, middle: middle === null ? centre.get(-1) + main(-1) + ROOM + shared / 2 : middle };
}

/** Upper end and height of each row; rows stand so far apart that the parameters between them have room. */
function heights(plan) {
  const { cells, middle, side, sizeOf } = plan;
  const height = [], room = [];
  for (const [key, cell] of cells) {
    const level = +key.split(":")[1];
    height[level] = Math.max(height[level] || 0, ...cell.map((node) => sizeOf(node).h));
  }
  for (const list of [middle, ...side.values()]) {
    const sum = [];
    for (const { node, level } of list) sum[Math.floor(level)] = (sum[Math.floor(level)] || 0) + sizeOf(node).h + 8;
    sum.forEach((value, level) => { room[level] = Math.max(room[level] || 0, value); });
  }
  const inLanes = [...cells.keys()].filter((key) => !key.startsWith("-")).map((key) => +key.split(":")[1]);
  const first = inLanes.length ? Math.min(...inLanes) : -1;
  const top = [];
  let y = 0;
  for (let level = 0; level < height.length; level++) {
    height[level] = height[level] || 0;
    if (level === first) y += HEADER + (level ? 14 : 0);
    top[level] = y;
    y += Math.max(height[level] + GAP_Y, room[level] || 0);
  }
  return { top, height };
}

/** Place parameters of one column at the heights they want, pushed down where they would overlap. */
function stack(list, { top, height }, sizeOf, at, across) {
  const wanted = list.map(({ node, level }) => {
    const low = Math.min(Math.floor(level), top.length - 1);
    const here = top[low] + height[low] / 2;
    const next = low + 1 < top.length ? top[low + 1] + height[low + 1] / 2 : here + height[low] + GAP_Y;
    return { node, y: here + (next - here) * (level - low) };
  });
  wanted.sort((a, b) => a.y - b.y);
  let free = -Infinity;
  for (let i = 0; i < wanted.length; ) {
    let last = i, tall = 0;
    while (last < wanted.length && wanted[last].y === wanted[i].y) tall += sizeOf(wanted[last++].node).h + 8;
    let y = Math.max(free, wanted[i].y - (tall - 8) / 2);
    for (; i < last; i++) {
      const size = sizeOf(wanted[i].node);
      at.set(wanted[i].node, { x: across(size), y: y + size.h / 2, ...size });
      y += size.h + 8;
    }
    free = y;
  }
}

/** Order the boxes of each cell by where what leads to them stands, so that few arrows cross. */
function orderCells(cells, edges) {
  const index = new Map(), sources = new Map();
  for (const edge of edges) push(sources, edge.t, edge.s);
  const keys = [...cells.keys()].sort((a, b) => a.split(":")[1] - b.split(":")[1]);
  for (const key of keys) {
    const ranked = cells.get(key).map((node, i) => {
      const known = (sources.get(node) || []).filter((source) => index.has(source));
      const mean = known.reduce((sum, source) => sum + index.get(source), 0) / known.length;
      return { node, i, mean: known.length ? mean : 1e9 };
    });
    ranked.sort((a, b) => a.mean - b.mean || a.i - b.i);
    cells.set(key, ranked.map(({ node }) => node));
    ranked.forEach(({ node }, i) => index.set(node, i));
  }
}

function framesOf(plan, at) {
  return plan.data.lanes.map((branch, lane) => {
    const inside = plan.nodes.filter((node) => plan.laneOf(node) === lane && !isLeafKind(plan.data.boxes[node].kind));
    if (!inside.length) return null;
    const places = inside.map((node) => at.get(node));
    const left = Math.min(...places.map((box) => box.x - box.w / 2)) - PAD;
    const right = Math.max(...places.map((box) => box.x + box.w / 2)) + PAD;
    const top = Math.min(...places.map((box) => box.y - box.h / 2)) - HEADER;
    const bottom = Math.max(...places.map((box) => box.y + box.h / 2)) + PAD;
    return { branch, lane, x: left, y: top, w: right - left, h: bottom - top };
  }).filter(Boolean);
}

/** The points of each arrow: start, then three for each curve. Into a parameter it runs sideways, else down. */
function routesOf(plan, at, frames) {
  const entries = new Map(); // where arrows enter a parameter: side by side in the order of their rows and lanes
  plan.edges.forEach((edge, i) => {
    if (!isLeafKind(plan.data.boxes[edge.t].kind)) return;
    const from = at.get(edge.s), to = at.get(edge.t);
    push(entries, edge.t + (from.x < to.x ? "l" : "r"), { i, y: from.y, far: Math.abs(from.x - to.x) });
  });
  const offset = new Map();
  for (const [key, list] of entries) {
    const tall = at.get(+key.slice(0, -1)).h;
    const step = Math.min(16, (tall - 10) / list.length);
    list.sort((a, b) => a.y - b.y || a.far - b.far);
    list.forEach(({ i }, k) => offset.set(i, (k - (list.length - 1) / 2) * step));
  }
  return plan.edges.map((edge, i) => {
    const from = at.get(edge.s), to = at.get(edge.t);
    if (!offset.has(i)) return downwards(from, to);
    return sideways(from, to, to.y + offset.get(i), between(plan.laneOf(edge.s), from, to, frames));
  });
}

/** The frames of other lanes that an arrow has to pass, in the order it meets them. */
function between(lane, from, to, frames) {
  const passed = frames.filter((frame) => frame.lane !== lane && (frame.x + frame.w / 2 - from.x) * (frame.x + frame.w / 2 - to.x) < 0);
  return passed.sort((a, b) => (a.x - b.x) * (to.x > from.x ? 1 : -1));
}

function sideways(from, to, y, passed) {
  const ahead = to.x > from.x ? 1 : -1;
  const start = [from.x + (ahead * from.w) / 2, from.y], end = [to.x - (ahead * to.w) / 2, y];
  const points = [start];
  let here = start;
  const bend = (there) => {
    const middle = (here[0] + there[0]) / 2;
    points.push([middle, here[1]], [middle, there[1]], there);
    here = there;
  };
  if (passed.length) {
    const first = passed[0], last = passed[passed.length - 1];
    bend([ahead > 0 ? first.x : first.x + first.w, y]);
    bend([ahead > 0 ? last.x + last.w : last.x, y]);
  }
  bend(end);
  return { points, ahead: [ahead, 0] };
}

function downwards(from, to) {
  const down = to.y >= from.y ? 1 : -1;
  const start = [from.x, from.y + (down * from.h) / 2], end = [to.x, to.y - (down * to.h) / 2];
  const middle = (start[1] + end[1]) / 2;
  return { points: [start, [start[0], middle], [end[0], middle], end], ahead: [0, down] };
}

if (typeof module !== "undefined") module.exports = { visibleOf, visibleGraph, rowsOf, layOut };
