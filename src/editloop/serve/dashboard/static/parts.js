// What a cost is the sum of: the units that an edit replaced, deleted and inserted, by the alignment of the redline.

import { h, number } from "./dom.js";

/** What is said below the redline of a revision: the counts, and what they cost. */
export function parts(revision, found) {
  const line = h("p", { class: "hint" }, `${revision.changes}${revision.cost === null ? "" : `; cost ${number(revision.cost)}`}`);
  if (!revision.parts) {
    return [line, h("p", { class: "hint" }, `Not the sum of these words: ${found.cost} is no sum over an alignment, or the texts are too long for one.`)];
  }
  const terms = revision.parts.map((each, i) => h("span", { class: "term" }, i ? "+ " : "", `${each.n} ${each.kind} `, h("span", { class: "value" }, number(each.cost))));
  const sum = h("p", { class: "sum" }, terms, h("span", { class: "term" }, "= ", h("strong", {}, number(revision.sum))));
  return [line, sum, ...remark(revision, found)];
}

/** Why an edit counts with another cost than the sum of its parts, where that is so. */
function remark(revision, found) {
  if (revision.cost === null || Math.abs(revision.cost - revision.sum) < 5e-7 * Math.max(1, revision.sum)) return [];
  const why = found.non_answer ? `the draft is no answer (${found.non_answer})` : "it was measured when it came in, in another way";
  return [h("p", { class: "hint" }, `It counts as ${number(revision.cost)}, because ${why}.`)];
}
