// An edit as a redline: what was kept, deleted and inserted, unit by unit, aligned as in the cost.

import { h } from "./dom.js";

// The units of costs, by the patterns of `editloop.edits.cost.units`; what lies between them is white space.
const UNITS = { word: /\S+/gu, char: /[\s\S]/gu, code: /\n *|[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu };
const MOST = 4_000_000; // cells of the table in `middle`, which is made at each key press: 32 MB
const INVERSE_WEIGHT = 4; // how many inserted words weigh as much as one that was taken away

/** Spans `[kind, text]` or `{kind, text}` as one block; a changed line end is marked, as it would be invisible. */
export function redline(spans) {
  const whole = spans.map((span) => Array.isArray(span) ? span[1] : span.text).join("");
  const block = h("div", { class: readsAsCode(whole) ? "redline code" : "redline", dir: "auto" });
  for (const span of spans) {
    const [kind, text] = Array.isArray(span) ? span : [span.kind, span.text];
    if (kind === "kept") {
      block.append(text);
      continue;
    }
    const change = h(kind === "deleted" ? "del" : "ins");
    text.split("\n").forEach((line, i) => {
      if (i > 0) change.append(h("span", { class: "line-end" }), "\n");
      change.append(line);
    });
    block.append(change);
  }
  return block;
}

const CODE_LINE = /^(\s{2,}|\t)\S|[:;{}([,]\s*$|^\s*[)}\]]+[;,]?\s*$/u;

/** Whether a text reads as code, by the rule of `editloop.edits.code_diff`. */
export function readsAsCode(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  return lines.length > 1 && lines.filter((line) => CODE_LINE.test(line)).length > lines.length / 2;
}

/** Lines `[kind, spans]` of code, each with its mark; in a line that was changed, what is not in the other one. */
export function diff(lines) {
  return h("div", { class: "diff", dir: "ltr" }, lines.map(([kind, spans]) => h("div", { class: kind },
    spans.map(([piece, text]) => piece === "kept" ? text : h(piece === "deleted" ? "del" : "ins", {}, text)))));
}

/**
 * The spans between two texts, for a redline that is shown while the reader types.
 *
 * They are those of `editloop.edits.redline`, by the same rule where several alignments cost the same. What both texts
 * begin and end with is set aside first. While somebody types, that is nearly everything, so the table for the rest
 * stays small. `alignment` is that of `/v1/me`; without one, words are aligned as by the default cost.
 */
export function difference(before, after, alignment) {
  const unit = Object.hasOwn(UNITS, alignment?.unit ?? "") ? alignment.unit : "word";
  const [a, b] = [pieces(before, unit), pieces(after, unit)];
  const [x, y] = [a.units, b.units];
  const shorter = Math.min(x.length, y.length);
  let start = 0;
  while (start < shorter && x[start] === y[start]) start += 1;
  let end = 0;
  while (end < shorter - start && x.at(-1 - end) === y.at(-1 - end)) end += 1;
  const weights = (unit === alignment?.unit && alignment.weights) || takenAway(shorter);
  const steps = [];
  for (let i = 0; i < start; i += 1) steps.push([i, i]);
  for (const [i, j] of middle(x.slice(start, x.length - end), y.slice(start, y.length - end), weights)) {
    steps.push([i === null ? null : i + start, j === null ? null : j + start]);
  }
  for (let i = end; i > 0; i -= 1) steps.push([x.length - i, y.length - i]);
  const spans = [];
  for (const [i, j] of steps) {
    if (i === null) spans.push(["inserted", b.gaps[j] + y[j]]);
    else if (j === null) spans.push(["deleted", a.gaps[i] + x[i]]);
    else spans.push(...same(a.gaps[i], b.gaps[j], true), ...same(x[i], y[j], false));
  }
  return joined([...spans, ...same(a.end, b.end, true)]);
}

/** A text in units, with what comes before each, and what comes after the last. */
function pieces(text, unit) {
  const found = { gaps: [], units: [], end: "" };
  let at = 0;
  for (const match of text.matchAll(UNITS[unit])) {
    found.gaps.push(text.slice(at, match.index));
    found.units.push(match[0]);
    at = match.index + match[0].length;
  }
  return { ...found, end: text.slice(at) };
}

function same(old, fresh, isGap) {
  return old === fresh ? [["kept", old, isGap]] : [["deleted", old], ["inserted", fresh]];
}

/** The weights of the alignment cost in whole numbers, as in `editloop.edits.cost.steps`: insertion, deletion, replacement. */
function takenAway(shorter) {
  // An insertion weighs a quarter of the others. The total T that is least also has the least number of replacements S:
  // one number holds both, T * insertion + S.
  const insertion = shorter + 1;
  return [insertion, INVERSE_WEIGHT * insertion, INVERSE_WEIGHT * insertion + 1];
}

/** The steps `[place in a, place in b]` between two lists of units that weigh least; null for no place. */
function middle(a, b, [insertion, deletion, replaced]) {
  if (a.length * b.length > MOST) return [...a.map((_, i) => [i, null]), ...b.map((_, j) => [null, j])];
  const width = b.length + 1;
  const table = new Float64Array((a.length + 1) * width); // the distance of a[:i] and b[:j], at i * width + j
  const replacement = (i, j) => (a[i - 1] === b[j - 1] ? 0 : replaced);
  for (let i = 0; i <= a.length; i += 1) {
    for (let j = 0; j <= b.length; j += 1) {
      const at = i * width + j;
      if (i === 0 || j === 0) table[at] = i * deletion + j * insertion;
      else {
        table[at] = Math.min(table[at - width - 1] + replacement(i, j), table[at - width] + deletion, table[at - 1] + insertion);
      }
    }
  }
  const steps = [];
  let i = a.length;
  let j = b.length;
  while (i > 0 || j > 0) {
    const at = i * width + j;
    if (i > 0 && j > 0 && table[at] === table[at - width - 1] + replacement(i, j)) steps.push([(i -= 1), (j -= 1)]);
    else if (i > 0 && table[at] === table[at - width] + deletion) steps.push([(i -= 1), null]);
    else steps.push([null, (j -= 1)]);
  }
  return steps.reverse();
}

/** Spans with neighbours of one kind joined. A gap between two changes belongs to both, so that phrases stay whole. */
function joined(spans) {
  const found = [];
  let deleted = "";
  let inserted = "";
  const close = () => {
    if (deleted) found.push(["deleted", deleted]);
    if (inserted) found.push(["inserted", inserted]);
    deleted = inserted = "";
  };
  const full = spans.filter(([, text]) => text);
  full.forEach(([kind, text, isGap], i) => {
    const last = found.at(-1);
    const changesOn = i + 1 < full.length && full[i + 1][0] !== "kept";
    if (kind === "deleted") deleted += text;
    else if (kind === "inserted") inserted += text;
    else if (isGap && (deleted || inserted) && changesOn) {
      deleted += text;
      inserted += text;
    } else if (last?.[0] === "kept" && !deleted && !inserted) last[1] += text;
    else {
      close();
      found.push(["kept", text]);
    }
  });
  close();
  return found;
}
