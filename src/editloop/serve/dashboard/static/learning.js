// Learning: where each policy stands between its fit and the champion, the cost by generation, and how to undo.

import { json } from "./api.js";
import { confirmed } from "./dialog.js";
import { armName, count, empty, h, number, problem, table, time } from "./dom.js";
import { generations } from "./generations.js";

export const title = "Learning";
export const needs = "admin";

const EVERY = 5000; // milliseconds between two looks
const PLAYED = new Set(["arm", "champion", "canary", "shadow"]);
const VERBS = {
  shadow: "Try it in the shadow", canary: "Try it in the canary", arm: "Make it an arm", champion: "Make it the champion",
  retired: "Retire it", "rolled back": "Roll it back", rejected: "Reject it",
};

export async function show(place, { signal }) {
  const status = h("p", { class: "done", role: "status" });
  const now = h("p", { class: "hint" });
  const pause = h("button", { type: "button" }, "Pause");
  const curve = h("div");
  const list = h("div");
  const past = h("div");
  let seen = "";
  let shown = new AbortController(); // its signal ends the chart that a newer one replaces

  async function load() {
    const found = await json("v1/stages", { signal });
    const text = JSON.stringify(found);
    if (text === seen) return; // an open detail, or a focus, stays while nothing changes
    seen = text;
    now.textContent = [found.champion ? `Champion: ${found.champion}.` : "No champion yet.", found.paused ? "The autopilot is paused." : ""].join(" ");
    pause.textContent = found.paused ? "Go on" : "Pause";
    pause.onclick = () => act(() => json("v1/autopilot", { method: "POST", body: { paused: !found.paused }, signal }), "");
    if (!found.history.length) {
      list.replaceChildren(empty("No policy has a stage yet", "An autopilot fits from the edits of this server, and tries what it fits: ", h("code", {}, "editloop serve --learn"), "."));
      return;
    }
    shown.abort();
    shown = new AbortController();
    curve.replaceChildren(generations(found.generations, PLAYED, shown.signal));
    list.replaceChildren(stages(found, move));
    past.replaceChildren(history(found, move));
  }

  async function act(work, said) {
    status.replaceChildren();
    try {
      await work();
      status.textContent = said;
      await load();
    } catch (error) {
      if (error.name !== "AbortError") status.replaceChildren(problem(error));
    }
    status.scrollIntoView({ block: "nearest" });
  }

  async function move(subject, stage, reason) {
    const verb = VERBS[stage] ?? stage;
    const text = [armName(subject), ` becomes: ${stage}. Users see the change with their next request, and it can be undone.`];
    if (!(await confirmed({ title: `${verb}?`, text, verb, danger: stage === "rolled back" || stage === "retired" }))) return;
    await act(() => json("v1/stages", { method: "POST", body: { subject, stage, reason }, signal }), `${subject} is now: ${stage}.`);
  }

  place.append(h("div", { class: "headline" }, h("div", {}, h("h1", {}, title), now), pause), status, curve, list, past);
  try {
    await load();
  } catch (error) {
    if (error.name !== "AbortError") list.replaceChildren(problem(error));
  }
  const timer = setInterval(() => load().catch(() => {}), EVERY);
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    shown.abort();
  });
}

function stages(found, move) {
  const costs = new Map(found.generations.map((row) => [row.arm, row]));
  const columns = [{ name: "Policy" }, { name: "Stage" }, { name: "Since" }, { name: "Cost seen here" }, { name: "Why" }, { name: "Action", class: "action" }];
  const rows = [...found.policies].reverse().filter((each) => !/^(generation|personal)-/.test(each.subject) || each.stage === "fitting");
  return h("section", { class: "panel" }, h("h2", {}, "Policies"), table("Policies and their stages", columns, rows.map((each) => {
    const cost = costs.get(each.subject);
    return {
      class: PLAYED.has(each.stage) || each.stage === "fitting" ? null : "retired",
      cells: [armName(each.subject), h("span", { class: PLAYED.has(each.stage) ? "tag on" : "tag" }, each.stage), time(each.since),
        cost ? h("span", { class: "measure" }, h("span", { class: "value" }, number(cost.cost)), h("span", { class: "note" }, `over ${count(cost.n)}`)) : "no edits yet",
        h("span", { class: "why" }, each.reason || "–"), actions(each, move)],
    };
  })));
}

function actions(each, move) {
  if (!each.next.length) return "–";
  const choice = h("select", { "aria-label": `Move ${each.subject} to` }, each.next.map((stage) => h("option", { value: stage }, VERBS[stage] ?? stage)));
  const out = each.next.includes("rolled back") ? "rolled back" : each.next.includes("arm") ? "arm" : each.next[0];
  choice.value = out;
  return h("span", { class: "moves" }, choice, h("button", { type: "button", class: "small", onclick: () => move(each.subject, choice.value, "by hand, on the dashboard") }, "Do it"));
}

function history(found, move) {
  const policies = new Map(found.policies.map((each) => [each.subject, each]));
  const undone = new Set();
  const items = [...found.history].reverse().map((each) => {
    // Only the last transition of a policy can be undone.
    const isLast = !undone.has(each.subject);
    undone.add(each.subject);
    const canUndo = isLast && each.before && policies.get(each.subject)?.next.includes(each.before);
    const facts = evidence(each.evidence);
    return h("li", {}, h("div", { class: "step" },
      h("span", {}, time(each.time), " · ", armName(each.subject), ` ${each.before ?? "new"} → `, h("strong", {}, each.stage), each.by === "autopilot" ? "" : ` by ${each.by}`),
      canUndo ? h("button", { type: "button", class: "small", "aria-label": `Undo: ${each.subject} back to ${each.before}`, onclick: () => move(each.subject, each.before, "undone on the dashboard") }, "Undo") : null),
    each.reason ? h("p", { class: "hint" }, each.reason) : null,
    facts.length || each.lineage ? h("details", {}, h("summary", {}, "Evidence"), h("dl", { class: "evidence" }, [...facts, ...lineage(each.lineage)].flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))) : null);
  });
  return h("section", { class: "panel" }, h("h2", {}, "What happened"), h("ol", { class: "history" }, items));
}

/** Figures as pairs of a name and a text; a comparison is one sentence. */
function evidence(found, prefix = "") {
  return Object.entries(found ?? {}).flatMap(([name, value]) => {
    const label = prefix ? `${prefix}, ${name}` : name;
    // Stores of an earlier version have the examples of an evaluation in them.
    if (value === null || value === undefined || name === "examples") return [];
    if (Array.isArray(value)) return value.length ? [[label, value.map(shown).join(", ")]] : [];
    if (typeof value !== "object") return [[label, shown(value)]];
    if ("mean" in value && "rounds" in value) return [[label, comparison(value)]];
    if ("mean" in value && "se" in value) return [[label, `${number(value.mean)} ± ${number(value.se)} over ${count(value.n)}`]];
    return evidence(value, label);
  });
}

const shown = (value) => (typeof value === "number" ? number(value) : String(value));

function comparison(value) {
  const reach = value.interval ? ` (${number(value.interval[0])} to ${number(value.interval[1])})` : "";
  const n = `${count(value.rounds)} and ${count(value.other_rounds)}`;
  const of = value.units === value.rounds ? `${n} requests` : `${n} costs of ${count(value.units)} and ${count(value.other_units)} users`;
  return `${value.mean > 0 ? "+" : ""}${number(value.mean)}${reach}, ${of}`;
}

function lineage(found) {
  if (!found) return [];
  return [["generation", count(found.generation)], ["parents", found.parents.join(", ") || "none"], ["began at", found.start || "not known"], ["rows", found.rows ? count(found.rows) : "not known"],
    ["fit", found.minutes ? `${number(found.minutes)} minutes` : "under way"], ["run folder", found.run],
    ...(found.owner ? [["for", "one user alone"]] : [])];
}
