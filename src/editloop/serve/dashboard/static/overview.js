// The overview: what edits cost over time, how many drafts are kept, and what each policy does.

import { json, withQuery } from "./api.js";
import { axisTop, chart, interval, share, span } from "./chart.js";
import { armName, count, empty, h, number, percent, plural, problem, table } from "./dom.js";
import { addressed, bounds, periodControl, readPeriod } from "./period.js";
import { sums, usage } from "./usage.js";

export const title = "Overview";
export const needs = "admin";

const REFRESH_INTERVAL = 60_000; // milliseconds

export async function show(place, { parameters, signal }) {
  readPeriod(parameters);
  const body = h("div", { "aria-live": "off" });
  const fresh = h("p", { class: "hint" });
  place.append(h("div", { class: "headline" }, h("h1", {}, title), periodControl("week", () => {
    history.replaceState(null, "", withQuery("#overview", addressed()));
    return load();
  })), body, fresh);

  let current = 0;
  let shown = new AbortController(); // its signal ends the charts that a refresh replaces

  async function load() {
    const turn = (current += 1); // a slow answer for another period must not replace that for the chosen one
    const { since, until, bins } = bounds("week");
    try {
      const found = await json(withQuery("v1/overview", { since, until, bins, trim: true }), { signal });
      if (turn !== current) return;
      shown.abort(); // each chart watches its width; without this, all charts of a page open for days would stay in memory
      shown = new AbortController();
      body.replaceChildren(...content(found, shown.signal));
      fresh.textContent = `As of ${new Date().toLocaleTimeString("en-GB")}; refreshed every minute.`;
    } catch (error) {
      if (error.name !== "AbortError" && turn === current) body.replaceChildren(problem(error));
    }
  }

  // The page is replaced as a whole. That would take the focus from a chart that is being read with the keyboard, so it
  // is left alone while it has the focus; and a hidden page asks the server for nothing.
  const timer = setInterval(() => {
    if (document.visibilityState === "visible" && !body.contains(document.activeElement)) load();
  }, REFRESH_INTERVAL);
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    shown.abort();
  });
  await load();
}

function content(found, signal) {
  const parts = [];
  if (found.down) parts.push(down(found.down));
  const { totals } = found;
  if (!totals) return parts;
  parts.push(figures(totals, found.cost_label));
  if (totals.responses) parts.push(sums(found.period, totals, signal));
  if (found.alarms.length) parts.push(alarms(found.alarms));
  if (totals.responses + totals.edited + totals.accepted + totals.discarded === 0) parts.push(nothing(totals, found.beliefs));
  else parts.push(charts(found, signal));
  if (found.arms.length) parts.push(arms(found));
  if (totals.responses) parts.push(usage(found.period, signal));
  return parts;
}

function down(reason) {
  return h("div", { class: "problem", role: "alert" }, h("p", {}, h("strong", {}, "The store is down. "), reason),
    h("p", {}, "Requests are still answered, and the responses kept in a file until it is back. Edits are refused until then."));
}

function alarms(found) {
  return h("div", { class: "problem", role: "alert" }, h("p", {}, h("strong", {}, "Drafts that are no answers. "),
    "A refusal or a question back is often kept as it is, and then costs nothing."),
    found.map((each) => h("p", {}, each)), h("p", { class: "hint" }, "--non-answer-cost gives them a price."));
}

function nothing(totals, beliefs) {
  if (!beliefs.arms.length) {
    return empty("No policy is served yet", "Promote a run under ", h("a", { href: "#policies" }, "Policies"),
      ", or start the server with one.");
  }
  return empty("No drafts in this period", "Choose a longer one, or ask for a draft under ", h("a", { href: "#try" }, "Try it"),
    totals.external ? `. ${plural(totals.external, "edit")} of texts from elsewhere came in; they are under Edits.` : ".");
}

function figures(totals, costLabel) {
  const reach = totals.interval ? `95% interval ${number(totals.interval[0])} to ${number(totals.interval[1])}` : "";
  const edits = totals.edited + totals.accepted + totals.discarded;
  const others = [totals.discarded ? `${count(totals.discarded)} thrown away` : null,
    totals.expired ? `${count(totals.expired)} expired` : null,
    totals.external ? `${count(totals.external)} from elsewhere` : null].filter(Boolean);
  const figure = (name, value, note) =>
    h("div", { class: "figure" }, h("dt", {}, name), h("dd", {}, h("span", { class: "value" }, value), h("span", { class: "note" }, note)));
  return h("dl", { class: "figures" },
    figure("Mean edit cost", number(totals.mean_cost), reach || costLabel),
    figure("Kept as they were", percent(totals.share_kept), edits ? `${count(totals.accepted)} of ${plural(edits, "draft")} that came back` : "of the drafts that came back"),
    figure("Drafts given", count(totals.responses), others.join(", ") || "in this period"),
    figure("Waiting for an edit", count(totals.pending), "of those given in this period"));
}

function charts(found, signal) {
  const { since, until, bins } = found.period;
  const bin = (until - since) / bins;
  const frame = { since, until, signal };
  const readout = (point, text) => (point.n ? `${span(point, bin)}: ${text}, ${plural(point.n, "draft")}` : `${span(point, bin)}: no edits`);
  const cost = found.series.map((each) => ({
    time: each.time, n: each.n, value: each.mean, low: each.interval?.[0], high: each.interval?.[1],
  }));
  const kept = found.series.map((each) => ({ time: each.time, n: each.n, value: each.share_kept }));
  const reach = (p) => (p.high === undefined ? "" : ` (95% interval ${number(p.low)} to ${number(p.high)})`);
  return h("section", { class: "panel", "aria-label": "Over time" },
    chart({ ...frame, title: "Mean edit cost", unit: `${found.cost_label}; band: 95% interval`, points: cost, height: 250,
      hint: "Point at a chart, or use the arrow keys, to read a value.",
      describe: (p) => readout(p, `mean cost ${number(p.value)}${reach(p)}`) }),
    chart({ ...frame, title: "Kept as they were", unit: "share of the drafts that came back", points: kept, height: 130, max: 1,
      format: (value) => percent(value), describe: (p) => readout(p, `${percent(p.value)} kept`) }));
}

function arms(found) {
  const max = axisTop(found.arms.map((each) => each.lifetime.interval?.[1] ?? each.lifetime.mean ?? 0)).top;
  const columns = [{ name: "Policy" }, { name: "Mean edit cost" }, { name: "Since it was first played" }, { name: "Edits", class: "number" },
    { name: "Share of drafts" }, { name: "Waiting", class: "number" }];
  const rows = found.arms.map((each) => ({
    class: each.played || each.tried ? null : "retired",
    cells: [
      [armName(each.arm), each.played ? null : h("span", { class: "tag" }, each.tried ?? "retired"), unanswered(each.non_answers)],
      h("span", { class: "measure" }, h("span", { class: "value" }, number(each.mean)),
        h("span", { class: "note" }, each.interval ? `${number(each.interval[0])} to ${number(each.interval[1])}` : each.n ? (each.n > 1 ? `all equal (n = ${each.n})` : "no interval from one edit") : "no edits yet")),
      lifetime(each.lifetime, max),
      each.discarded ? h("span", {}, `${count(each.n)}, `, h("span", { class: "note" }, `${count(each.discarded)} thrown away`)) : count(each.n),
      h("span", { class: "measure" }, h("span", { class: "value" }, percent(each.share)), share(each.share)),
      count(each.pending),
    ],
  }));
  return h("section", { class: "panel" }, h("h2", {}, "Policies in this period"),
    table("What each policy's drafts cost in this period", columns, rows),
    h("p", { class: "hint" }, `Epoch ${found.epoch}. The 95% interval of a period is for one look at it. That since the first play `
      + `holds however often you look, so it may be acted on at any time; the bars share one scale, from 0 to ${number(max)}, and an arrow is a mean beyond it.`));
}

/** The share of an arm's drafts that are no answers, if there are any. */
function unanswered({ n, by_rule: byRule }) {
  const found = Object.values(byRule).reduce((sum, each) => sum + each, 0);
  const rules = Object.entries(byRule).map(([rule, each]) => `${rule} ${count(each)}`).join(", ");
  return found ? h("span", { class: "tag", title: rules }, `${percent(found / n)} no answers`) : null;
}

/** The mean cost of an arm over all of its drafts, with an interval that holds at all times. */
function lifetime(found, max) {
  if (!found.n) return h("span", { class: "note" }, "no edits yet");
  return h("span", { class: "measure" }, h("span", { class: "value" }, number(found.mean)),
    found.interval ? h("span", { class: "note" }, `${number(found.interval[0])} to ${number(found.interval[1])}`) : null,
    interval(found.mean, found.interval, max));
}
