// An edit as a redline: what was kept, deleted and inserted, word by word.

import { h } from "./dom.js";

const WORDS = /\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu;
const MOST = 4_000_000; // cells of the table in `middle`, which is made at each key press: 16 MB

/** Spans `[kind, text]` or `{kind, text}` as one block; a changed line end is marked, as it would be invisible. */
export function redline(spans) {
  const block = h("div", { class: "redline", dir: "auto" });
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

/**
 * The spans between two texts, for a redline that is shown while the reader types.
 *
 * What both texts begin and end with is set aside first. While somebody types, that is nearly everything, so the table
 * for the rest stays small.
 */
export function difference(before, after) {
  const a = before.match(WORDS) ?? [];
  const b = after.match(WORDS) ?? [];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const spans = [["kept", a.slice(0, start).join("")]];
  spans.push(...middle(a.slice(start, a.length - end), b.slice(start, b.length - end)));
  spans.push(["kept", a.slice(a.length - end).join("")]);
  return joined(spans);
}

/** The spans between two lists of words with the fewest changed words, by their longest common subsequence. */
function middle(a, b) {
  if (a.length * b.length > MOST) return [["deleted", a.join("")], ["inserted", b.join("")]];
  const width = b.length + 1;
  const common = new Uint32Array((a.length + 1) * width); // the length of that of a[i:] and b[j:], at i * width + j
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      common[at] = a[i] === b[j] ? common[at + width + 1] + 1 : Math.max(common[at + width], common[at + 1]);
    }
  }
  const spans = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const at = i * width + j;
    if (i < a.length && j < b.length && a[i] === b[j]) {
      spans.push(["kept", a[i]]);
      i += 1;
      j += 1;
    } else if (j === b.length || (i < a.length && common[at + width] >= common[at + 1])) {
      spans.push(["deleted", a[i]]);
      i += 1;
    } else {
      spans.push(["inserted", b[j]]);
      j += 1;
    }
  }
  return spans;
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
