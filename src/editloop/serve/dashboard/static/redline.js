// An edit as a redline: what was kept, deleted and inserted, word by word, aligned as in the cost.

import { h } from "./dom.js";

const WORDS = /\s*\S+/gu; // a word with the white space before it
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
 * stays small.
 */
export function difference(before, after) {
  const a = before.match(WORDS) ?? [];
  const b = after.match(WORDS) ?? [];
  const x = a.map((word) => word.trimStart());
  const y = b.map((word) => word.trimStart());
  const shorter = Math.min(a.length, b.length);
  let start = 0;
  while (start < shorter && x[start] === y[start]) start += 1;
  let end = 0;
  while (end < shorter - start && x.at(-1 - end) === y.at(-1 - end)) end += 1;
  const steps = [];
  for (let i = 0; i < start; i += 1) steps.push([i, i]);
  for (const [i, j] of middle(x.slice(start, x.length - end), y.slice(start, y.length - end), shorter)) {
    steps.push([i === null ? null : i + start, j === null ? null : j + start]);
  }
  for (let i = end; i > 0; i -= 1) steps.push([a.length - i, b.length - i]);
  const spans = [];
  for (const [i, j] of steps) {
    if (i === null) spans.push(["inserted", b[j]]);
    else if (j === null) spans.push(["deleted", a[i]]);
    else spans.push(...paired(a[i], b[j], x[i], y[j]));
  }
  // White space after the last word is of no word.
  spans.push(...same(before.slice(a.join("").length), after.slice(b.join("").length)));
  return joined(spans);
}

/** The spans of a word that was kept or replaced, and of the white space before both. */
function paired(old, fresh, oldWord, freshWord) {
  const gap = same(old.slice(0, old.length - oldWord.length), fresh.slice(0, fresh.length - freshWord.length));
  return [...gap, ...same(oldWord, freshWord)];
}

function same(old, fresh) {
  return old === fresh ? [["kept", old]] : [["deleted", old], ["inserted", fresh]];
}

/** The steps `[place in a, place in b]` between two lists of words that take away least; null for no place. */
function middle(a, b, shorter) {
  if (a.length * b.length > MOST) return [...a.map((_, i) => [i, null]), ...b.map((_, j) => [null, j])];
  // An insertion weighs a quarter of the others. The total T that is least also has the least number of replacements S:
  // one number holds both, T * insertion + S.
  const insertion = shorter + 1;
  const deletion = INVERSE_WEIGHT * insertion;
  const width = b.length + 1;
  const table = new Float64Array((a.length + 1) * width); // the distance of a[:i] and b[:j], at i * width + j
  const replacement = (i, j) => (a[i - 1] === b[j - 1] ? 0 : deletion + 1);
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

/** Spans with neighbours of one kind joined. Blanks between two changes belong to both, so that phrases stay whole. */
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
  full.forEach(([kind, text], i) => {
    const last = found.at(-1);
    const changesOn = i + 1 < full.length && full[i + 1][0] !== "kept";
    if (kind === "deleted") deleted += text;
    else if (kind === "inserted") inserted += text;
    else if (!text.trim() && (deleted || inserted) && changesOn) {
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
