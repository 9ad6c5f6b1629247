// The curve of learning: what each generation's policies cost while users had them.

import { axisTop, cutNote, fitted, ticks, withoutOverlap } from "./chart.js";
import { count, h, number, s } from "./dom.js";

const EDGE = { left: 46, right: 16, top: 12, bottom: 40 };
const HEIGHT = 220;

/** A figure with a dot for each policy, and a line through the best of each generation. `played` are the stages of those in use. */
export function generations(rows, played, signal) {
  if (!rows.length) return h("div");
  const best = new Map();
  for (const row of rows) {
    const before = best.get(row.generation);
    if (!before || row.cost < before.cost) best.set(row.generation, row);
  }
  const line = [...best.values()].sort((a, b) => a.generation - b.generation);
  const last = line.at(-1);
  const axis = axisTop(rows.map((row) => row.cost));
  const drawing = h("div", { class: "drawing" });

  function draw(width) {
    const grid = ticks(axis.top, 3);
    const top = grid.values.at(-1);
    const numbers = Math.max(1, last.generation);
    const x = (generation) => EDGE.left + ((width - EDGE.left - EDGE.right) * generation) / numbers;
    const y = (cost) => EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * (1 - Math.min(cost, top) / top);
    const spoken = line.map((row) => `${row.generation}: ${number(row.cost)}`).join(", ");
    const svg = s("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `Cost by generation: ${spoken}` });
    for (const value of grid.values) {
      svg.append(s("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
        s("text", { class: "tick", x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, number(value, grid.digits)));
    }
    for (let each = 0; each <= numbers; each += 1) {
      svg.append(s("text", { class: "tick along", x: x(each), y: HEIGHT - 20, "text-anchor": "middle" }, each ? String(each) : "first"));
    }
    svg.append(s("text", { class: "tick", x: (EDGE.left + width - EDGE.right) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "generation"));
    svg.append(s("path", { class: "line", d: line.map((row, i) => `${i ? "L" : "M"}${x(row.generation).toFixed(1)} ${y(row.cost).toFixed(1)}`).join("") }));
    for (const row of rows) {
      const said = s("title", {}, `${row.arm}: ${number(row.cost)} over ${count(row.n)} edits (${row.stage})`);
      const kind = played.has(row.stage) ? "dot" : "dot past";
      svg.append(row.cost > top ? s("path", { class: `${kind} cut`, d: `M${x(row.generation) - 5} ${EDGE.top + 6}h10l-5 -8z` }, said)
        : s("circle", { class: kind, cx: x(row.generation), cy: y(row.cost), r: 4 }, said));
    }
    drawing.replaceChildren(svg);
    withoutOverlap(svg);
  }

  fitted(drawing, draw, signal);
  return h("section", { class: "panel" },
    h("figure", { class: "chart" }, h("figcaption", {}, h("span", { class: "chart-title" }, "Cost by generation"),
      h("span", { class: "unit" }, "mean cost of an edit while users had the policy"), cutNote(axis)), drawing,
    h("p", { class: "readout" }, `Generation ${last.generation ? last.generation : "0, the first policies"}: ${number(last.cost)} over ${count(last.n)} edits. Pale dots are policies that are out again.`)));
}
