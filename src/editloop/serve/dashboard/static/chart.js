// Charts as inline SVG: a line over time with its band, and an interval on a common scale.

import { h, moment, number, s } from "./dom.js";

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;
const STEPS = [1, 5, 15, 30, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 180 * DAY, 365 * DAY];
const EDGE = { top: 10, right: 14, bottom: 26, left: 46 };

/** Round numbers from 0 to at least `max`, about `n` of them, and the digits that they need. */
export function ticks(max, n) {
  // Each step is 1, 2, 2.5, 5 or 10 times a power of ten. The factors .999 absorb rounding errors.
  const rough = max / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= rough * 0.999);
  const found = [];
  for (let i = 0; i === 0 || found.at(-1) < max * 0.999; i += 1) found.push(i * step);
  return { values: found, digits: Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (step / power === 2.5 ? 1 : 0)) };
}

/** Moments at round local times, few enough that their labels have room. */
function moments(since, until, most) {
  const step = STEPS.find((each) => (until - since) / each <= most) ?? STEPS.at(-1);
  const shift = new Date(1000 * since).getTimezoneOffset() * MINUTE; // steps of hours and days begin at local midnight
  const found = [];
  for (let t = Math.ceil((since - shift) / step) * step + shift; t <= until; t += step) found.push(t);
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
  const clock = new Intl.DateTimeFormat("en-GB", {
    hour: "2-digit", minute: "2-digit", second: step < MINUTE ? "2-digit" : undefined,
  });
  const month = new Intl.DateTimeFormat("en-GB", { month: "short", year: "numeric" });
  return found.map((t) => {
    const date = new Date(1000 * t);
    const midnight = date.getHours() === 0 && date.getMinutes() === 0;
    const form = step >= 30 * DAY ? month : step >= DAY || midnight ? day : clock;
    return { t, label: form.format(date) };
  });
}

/** Runs of neighbouring bins that have a value. Each is a line of its own, so that gaps stay visible. */
function stretches(points) {
  const found = [];
  points.forEach((point, i) => {
    if (point.value === null) return;
    if (i === 0 || points[i - 1].value === null) found.push([]);
    found.at(-1).push(point);
  });
  return found;
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/**
 * A figure with a chart that fits its width.
 *
 * `points` are `{time, value, low, high, n}`, one for each of equal bins between `since` and `until`. `describe` puts a
 * point into words, and `hint` is shown in its place while no point is chosen. `signal` ends the watching of the width.
 */
export function chart({ title, unit, points, since, until, height, max, format = number, describe, hint = "", signal }) {
  const drawing = h("div", { class: "drawing" });
  const readout = h("p", { class: "readout", role: "status" });
  const known = points.filter((point) => point.value !== null);
  const axis = max ? { top: max, cut: 0 } : scale(known);
  const figure = h("figure", { class: "chart" },
    h("figcaption", {}, h("span", { class: "chart-title" }, title), h("span", { class: "unit" }, unit), cutNote(axis, format)), drawing, readout);
  let chosen = null;
  let mark = () => {};

  function choose(i) {
    chosen = i;
    readout.textContent = i === null ? hint : describe(points[i]);
    mark(i);
  }

  function draw(width) {
    const inner = { w: width - EDGE.left - EDGE.right, h: height - EDGE.top - EDGE.bottom };
    const bin = (until - since) / points.length;
    const x = (t) => EDGE.left + ((t - since) / (until - since)) * inner.w;
    const grid = ticks(axis.top, height > 160 ? 4 : 2);
    const last = max ?? grid.values.at(-1);
    const y = (value) => EDGE.top + inner.h * (1 - Math.min(value, last) / last);
    const middle = (point) => x(point.time + bin / 2);
    const svg = s("svg", {
      width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
      "aria-label": `${title}, ${unit}. ${known.length ? describe(known.at(-1)) : "No values."}`,
    });
    for (const value of grid.values.filter((each) => each <= last * 1.001)) {
      svg.append(s("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }));
      svg.append(s("text", { class: "tick", x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, format(value, grid.digits)));
    }
    for (const { t, label } of moments(since, until, inner.w / 62)) {
      svg.append(s("line", { class: "notch", x1: x(t), x2: x(t), y1: height - EDGE.bottom, y2: height - EDGE.bottom + 5 }));
      const near = x(t) < EDGE.left + 18 ? "start" : x(t) > width - EDGE.right - 22 ? "end" : "middle";
      svg.append(s("text", { class: "tick along", x: x(t), y: height - 7, "text-anchor": near }, label));
    }
    for (const stretch of stretches(points)) {
      const banded = stretch.map((p) => ({ ...p, low: p.low ?? p.value, high: p.high ?? p.value }));
      const above = banded.map((p) => [middle(p), y(p.high)]);
      const below = banded.map((p) => [middle(p), y(p.low)]);
      if (stretch.length > 1) svg.append(s("path", { class: "band", d: `${path([...above, ...below.reverse()])}Z` }));
      else svg.append(s("line", { class: "whisker", x1: above[0][0], x2: above[0][0], y1: above[0][1], y2: below[0][1] }));
      svg.append(s("path", { class: "line", d: path(stretch.map((p) => [middle(p), y(p.value)])) }));
    }
    for (const point of known) {
      // A value beyond the axis is an arrow at its top.
      svg.append(point.value > last * 1.001 ? s("path", { class: "dot cut", d: `M${middle(point) - 5} ${EDGE.top + 6}h10l-5 -8z` })
        : s("circle", { class: "dot", cx: middle(point), cy: y(point.value), r: 2.6 }));
    }
    const cursor = s("line", { class: "cursor", y1: EDGE.top, y2: height - EDGE.bottom, visibility: "hidden" });
    const ring = s("circle", { class: "ring", r: 5, visibility: "hidden" });
    svg.append(cursor, ring);
    mark = (i) => {
      for (const each of [cursor, ring]) each.setAttribute("visibility", i === null ? "hidden" : "visible");
      if (i === null) return;
      for (const name of ["x1", "x2"]) cursor.setAttribute(name, middle(points[i]));
      ring.setAttribute("cx", middle(points[i]));
      ring.setAttribute("cy", y(points[i].value ?? 0));
      if (points[i].value === null) ring.setAttribute("visibility", "hidden");
    };
    svg.addEventListener("pointermove", (event) => {
      const place = (event.clientX - svg.getBoundingClientRect().left - EDGE.left) / inner.w;
      choose(Math.min(points.length - 1, Math.max(0, Math.floor(place * points.length))));
    });
    svg.addEventListener("pointerleave", () => choose(null));
    svg.addEventListener("blur", () => choose(null));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const from = chosen ?? (step > 0 ? -1 : points.length);
      choose(Math.min(points.length - 1, Math.max(0, from + step)));
    });
    drawing.replaceChildren(svg);
    withoutOverlap(svg);
    choose(null);
  }

  fitted(drawing, draw, signal);
  return figure;
}

/**
 * The top of an axis from 0 for these values, and which of them are beyond it: `{top, cut, highest}`.
 *
 * A few values that are more than three times the next lower one, at most a tenth of all, are cut, so that the others
 * still differ visibly. The chart has to say so (`cutNote`).
 */
export function axisTop(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const n = sorted.length;
  for (let cut = n < 3 ? 0 : Math.max(1, Math.floor(n / 10)); cut > 0; cut -= 1) {
    const next = sorted[n - cut - 1];
    if (next > 0 && sorted[n - cut] > 3 * next) return { top: next, cut, highest: sorted[n - 1] };
  }
  return { top: sorted[n - 1] || 1, cut: 0, highest: sorted[n - 1] ?? 0 };
}

/** What is said beside a chart some of whose values are beyond its axis. */
export function cutNote({ cut, highest }, format = number) {
  return cut ? h("span", { class: "cut-note" }, `${cut} ${cut === 1 ? "value is" : "values are"} above the axis, up to ${format(highest)}`) : null;
}

/** The axis of points with bands. A band that is wide because there are few edits must not flatten the line. */
function scale(points) {
  const axis = axisTop(points.map((point) => point.value));
  const high = Math.max(0, ...points.filter((point) => point.value <= axis.top).map((point) => Math.min(point.high ?? 0, 2 * axis.top)));
  return { ...axis, top: Math.max(axis.top, high) };
}

/** Call `draw` with the width of a place, at once and whenever it changes, until `signal` ends that. */
export function fitted(place, draw, signal) {
  let drawn = 0;
  // Drawn anew at each width, not scaled, so that text and lines keep their size.
  const watch = new ResizeObserver(() => {
    if (place.clientWidth === drawn) return; // the drawing itself changes the height, which must not draw again
    drawn = place.clientWidth;
    requestAnimationFrame(() => draw(Math.max(drawn, 240)));
  });
  watch.observe(place);
  signal?.addEventListener("abort", () => watch.disconnect());
}

/** Remove labels along the axis that would touch the one before; the drawing has to be in the page. */
export function withoutOverlap(svg) {
  let end = -Infinity;
  for (const label of svg.querySelectorAll("text.along")) {
    const { x, width } = label.getBBox();
    if (x < end + 8) label.remove();
    else end = x + width;
  }
}

/** A mean and its interval as a dot and a line, on a scale from 0 to `max`; an arrow if the mean is beyond it. */
export function interval(mean, reach, max) {
  const x = (value) => 4 + 152 * Math.min(value / max, 1);
  const svg = s("svg", { class: "interval", viewBox: "0 0 160 16", width: 160, height: 16, "aria-hidden": "true" },
    s("line", { class: "grid", x1: 4, x2: 156, y1: 8, y2: 8 }));
  if (mean === null) return svg;
  if (reach) svg.append(s("line", { class: "reach", x1: x(reach[0]), x2: x(reach[1]), y1: 8, y2: 8 }));
  if (mean > max * 1.001) svg.append(s("path", { class: "dot", d: "M150 3v10l8 -5z" }));
  else svg.append(s("circle", { class: "dot", cx: x(mean), cy: 8, r: 4 }));
  return svg;
}

/** A share as a bar. */
export function share(value) {
  return s("svg", { class: "share", viewBox: "0 0 100 8", preserveAspectRatio: "none", width: 90, height: 8, "aria-hidden": "true" },
    s("rect", { class: "share-all", width: 100, height: 8 }), s("rect", { class: "share-part", width: 100 * (value ?? 0), height: 8 }));
}

/** The period of a bin, in words. */
export function span(point, bin) {
  return `${moment(point.time)} to ${moment(point.time + bin)}`;
}
