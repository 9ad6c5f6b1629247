// The policies: which are played and what their fits measured; promoting a run, and retiring a policy.

import { json } from "./api.js";
import { confirmed } from "./dialog.js";
import { armName, count, empty, h, number, problem, table, time } from "./dom.js";

export const title = "Policies";
export const needs = "admin";

export async function show(place, { signal }) {
  const list = h("div");
  const status = h("p", { class: "done", role: "status" });
  const epoch = h("p", { class: "hint" });

  async function load() {
    const [found, models] = await Promise.all([json("v1/arms", { signal }), json("v1/models", { signal })]);
    const played = models.data.map((each) => each.id).slice(1);
    // Arms that an application has set by itself are in no run folder, so /v1/arms does not list them.
    const known = new Set(found.data.map((each) => each.arm));
    const strays = played.filter((arm) => !known.has(arm)).map((arm) => ({ arm, run: null, played: true, observed: 0, cost: null, validation: null }));
    epoch.textContent = `Epoch ${found.epoch}: ${played.length ? `${count(played.length)} played` : "none played yet"}.`;
    list.replaceChildren(...runs([...found.data, ...strays], retire));
  }

  async function retire(arm) {
    const text = "It writes no more drafts. What was learned of it stays, and it can be promoted again.";
    if (!(await confirmed({ title: ["Retire ", armName(arm), "?"], text, verb: "Retire", danger: true }))) return;
    status.replaceChildren();
    try {
      const done = await json(`v1/arms/${encodeURIComponent(arm)}`, { method: "DELETE", signal });
      status.textContent = `${arm} is retired; epoch ${done.epoch} plays ${done.arms.join(", ")}.`;
      await load();
    } catch (error) {
      if (error.name !== "AbortError") status.replaceChildren(problem(error));
    }
    status.scrollIntoView({ block: "nearest" });
  }

  place.append(h("div", { class: "headline" }, h("h1", {}, title), epoch), status, list,
    promotion(async (done) => {
      status.textContent = `Epoch ${done.epoch} plays ${done.arms.join(", ")}.`;
      await load();
    }, signal));
  try {
    await load();
  } catch (error) {
    if (error.name !== "AbortError") list.replaceChildren(problem(error));
  }
}

function runs(arms, retire) {
  if (!arms.length) {
    return [empty("No policies yet", "Train some with ", h("code", {}, "editloop fit LOG --base MODEL"), ", then promote the run below.")];
  }
  const byRun = new Map();
  for (const each of [...arms].reverse()) byRun.set(each.run, [...(byRun.get(each.run) ?? []), each]);
  const sections = [...byRun].map(([run, mine]) => {
    const sorted = mine.sort((a, b) => Number(b.played) - Number(a.played) || a.arm.localeCompare(b.arm));
    const any = sorted.some((each) => each.played || each.tried);
    return { any, section: h("section", { class: any ? "panel" : "panel past" },
      h("h2", { class: "run" }, run ?? "Without a run folder"),
      mine[0].promoted ? h("p", { class: "hint" }, "Promoted ", time(mine[0].promoted)) : null, policies(run, sorted, retire)) };
  });
  return sections.sort((a, b) => Number(b.any) - Number(a.any)).map((each) => each.section);
}

function policies(run, arms, retire) {
  const columns = [{ name: "Policy" }, { name: "State" }, { name: "Validation cost" }, { name: "Cost seen here" }, { name: "Alarms of the fit" },
    { name: "Action", class: "action" }];
  return table(`Policies of ${run ?? "no run"}`, columns, arms.map((each) => ({
    class: each.played || each.tried ? null : "retired",
    cells: [armName(each.arm), h("span", { class: each.played ? "tag on" : "tag" }, !each.played ? each.tried ?? "retired" : each.personal ? "for one user" : "played"),
      validation(each.validation), seen(each), alarms(each.validation),
      each.played ? h("button", { type: "button", class: "small", "aria-label": `Retire ${each.arm}`, onclick: () => retire(each.arm) }, "Retire") : "–"],
  })));
}

const within = (cost) => `${number(cost.mean)}${cost.se === null || cost.se === undefined ? "" : ` ± ${number(cost.se)}`}`;

/** The cost of a policy's responses to validation contexts, beside the base's. */
function validation(measured) {
  if (!measured?.cost) return "not measured";
  const { cost, base } = measured;
  const note = base ? h("span", { class: "note" }, `base ${within(base)}`) : null;
  return h("span", { class: "measure" }, h("span", { class: "value" }, within(cost)), note);
}

function seen(each) {
  if (!each.observed) return "no edits yet";
  return h("span", { class: "measure" }, h("span", { class: "value" }, number(each.cost)), h("span", { class: "note" }, `over ${count(each.observed)}`));
}

function alarms(measured) {
  const alarms = measured?.alarms ?? [];
  return alarms.length ? h("ul", { class: "alarms" }, alarms.map((each) => h("li", {}, String(each)))) : "none";
}

function promotion(done, signal) {
  const run = h("input", { id: "run", required: true, autocomplete: "off", spellcheck: "false", maxlength: 4096, "aria-describedby": "run-hint" });
  const names = h("input", { id: "names", autocomplete: "off", spellcheck: "false", "aria-describedby": "names-hint" });
  const replace = h("input", { type: "checkbox", id: "replace" });
  const force = h("input", { type: "checkbox", id: "force" });
  const button = h("button", { type: "submit", class: "primary" }, "Promote");
  const trouble = h("div");
  const check = (input, label) => h("div", { class: "check" }, input, h("label", { for: input.id }, label));
  const form = h("form", { class: "panel promote" }, h("h2", {}, "Promote a run"),
    h("div", { class: "field" }, h("label", { for: "run" }, "Run folder"), run,
      h("p", { class: "hint", id: "run-hint" }, "As the server sees it: what ", h("code", {}, "editloop fit"), " wrote.")),
    h("div", { class: "field" }, h("label", { for: "names" }, "Policies (optional)"), names,
      h("p", { class: "hint", id: "names-hint" }, "With commas between; by default all that were trained.")),
    check(replace, "Retire all other policies"), check(force, "Even if offline evaluation advises against it"),
    h("div", { class: "actions" }, button), trouble);

  async function send(forced) {
    button.disabled = true;
    trouble.replaceChildren(h("p", { class: "hint", role: "status" }, "Making the policies ready …"));
    const policies = names.value.split(",").map((name) => name.trim()).filter(Boolean);
    const body = { run: run.value.trim(), replace: replace.checked, force: forced, ...(policies.length ? { policies } : {}) };
    try {
      const epoch = await json("v1/arms", { method: "POST", body, signal });
      trouble.replaceChildren();
      form.reset();
      await done(epoch);
    } catch (error) {
      if (error.name === "AbortError") return;
      const again = h("button", { type: "button", class: "danger", onclick: () => send(true) }, "Promote all the same");
      trouble.replaceChildren(error.code === "evaluation_gate" ? problem(error, h("div", { class: "actions" }, again)) : problem(error));
    } finally {
      button.disabled = false;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(force.checked);
  });
  return form;
}
