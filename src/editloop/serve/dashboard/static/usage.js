// The totals of a period, what was saved against the base, and how long drafts take and how many tokens they are.

import { json, withQuery } from "./api.js";
import { armName, count, h, number, plural, problem, table } from "./dom.js";

/** The totals of a period, and the saving, which is filled in as soon as it is there. */
export function sums(period, totals, signal) {
  const saved = h("dd", {}, h("span", { class: "value" }, "…"));
  const figure = (name, value) => h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, h("span", { class: "value" }, count(value))));
  fill(saved, "v1/saving", period, signal, saving);
  return h("dl", { class: "totals" }, figure("Drafts", totals.responses), figure("Edited", totals.edited), figure("Accepted", totals.accepted),
    figure("Thrown away", totals.discarded), h("div", { class: "figure" }, h("dt", {}, "Saved against the base"), saved));
}

/** How long drafts take and how many tokens they are; the section is empty until that is there. */
export function usage(period, signal) {
  const section = h("section", { class: "sheet", "aria-label": "Time and tokens" });
  fill(section, "v1/usage", period, signal, (found) => (found.data.length ? figures(found) : []));
  return section;
}

async function fill(place, path, { since, until }, signal, content) {
  try {
    const found = await json(withQuery(path, { since, until }), { signal });
    place.replaceChildren(...content(found));
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(problem(error));
  }
}

function saving(found) {
  const value = (text, ...note) => [h("span", { class: "value" }, text), h("span", { class: "note" }, ...note)];
  if (found.mean === null) return value("–", `not known: ${found.reason}`);
  const of = [`a draft, of ${plural(found.drafts, "draft")}, against `, armName(found.base)];
  if (!found.interval) return value(number(found.mean), ...of, "; no interval");
  const [low, high] = found.interval;
  const reach = `; 95% interval ${number(low)} to ${number(high)}`;
  if (low <= 0 && high >= 0) return value("–", "no difference beyond chance ", ...of, reach);
  return value(number(found.mean), ...of, reach);
}

function figures(found) {
  const columns = [{ name: "Policy" }, { name: "Drafts", class: "number" }, { name: "Median time", class: "number" }, { name: "95% within", class: "number" },
    { name: "Tokens asked", class: "number" }, { name: "Tokens written", class: "number" }];
  const seconds = (value) => (value === null ? "–" : `${number(value)} s`);
  const rows = found.data.map((each) => ({
    cells: [armName(each.arm), count(each.drafts), seconds(each.seconds_median), seconds(each.seconds_95),
      tokens(each.prompt_tokens, each.prompt_tokens_drafts), tokens(each.completion_tokens, each.completion_tokens_drafts)],
  }));
  return [h("h2", {}, "Time and tokens"), table("How long drafts take, and how many tokens they are", columns, rows),
    h("p", { class: "hint" }, `${found.cut ? `Of the newest ${count(found.drafts)} drafts of this period. ` : ""}The time is the policy’s, of a stream until its `
      + "last part. Tokens are those that the backend counts: all of them, and below the mean of a draft.")];
}

function tokens(sum, drafts) {
  return drafts ? h("span", { class: "stack" }, h("span", {}, count(sum)), h("span", { class: "note" }, `${number(sum / drafts)} a draft`)) : "–";
}
