// What admins did: who, when, and to what.

import { json, withQuery } from "./api.js";
import { empty, h, problem, table, time } from "./dom.js";
import { addressed, bounds, periodControl, readPeriod } from "./period.js";

const PAGE = 25;
const ACTIONS = {
  promote: "promoted", retire: "retired", move: "moved", pause: "paused", resume: "resumed", forget: "forgot the user",
  annotate: "annotated", "create key": "made the key", "revoke key": "revoked the key",
};

/** Build the list in a section; returns the function that loads it anew. */
export function audit(section, { parameters, signal }) {
  readPeriod(parameters);
  const list = h("div");
  const below = h("div", { class: "below" });
  const select = h("select", { id: "audit-action" }, h("option", { value: "" }, "Everything"), Object.keys(ACTIONS).map((each) => h("option", {}, each)));
  const by = h("input", { type: "search", id: "audit-by", maxlength: 64, autocomplete: "off", spellcheck: "false" });
  const filters = h("form", { class: "filters narrow", role: "search" },
    h("div", { class: "field" }, h("label", { for: select.id }, "What"), select), h("div", { class: "field" }, h("label", { for: by.id }, "By the key"), by),
    h("button", { type: "submit" }, "Search"));
  let rows = [];
  let current = 0;

  async function load(before) {
    const turn = (current += 1);
    const { since, until } = bounds("all");
    const query = { action: select.value, by: by.value.trim(), since, until, limit: PAGE, before };
    try {
      const found = await json(withQuery("v1/audit", query), { signal });
      if (turn !== current) return;
      rows = before ? [...rows, ...found.data] : found.data;
      list.replaceChildren(rows.length ? entries(rows) : empty("Nothing here", "What admins do is noted here: promotions, keys, users who are forgotten."));
      below.replaceChildren(...(found.next ? [h("button", { type: "button", onclick: () => load(found.next) }, "Show older ones")] : []));
    } catch (error) {
      if (error.name !== "AbortError" && turn === current) list.replaceChildren(problem(error));
    }
  }

  const changed = () => {
    history.replaceState(null, "", withQuery("#access", addressed()));
    return load();
  };
  select.addEventListener("change", () => load());
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  section.append(h("div", { class: "headline" }, h("h2", {}, "What admins did"), periodControl("all", changed)), filters, list, below);
  return () => load();
}

function entries(rows) {
  const columns = [{ name: "When" }, { name: "By" }, { name: "What" }, { name: "Details" }];
  return table("What admins did", columns, rows.map((each) => ({
    cells: [time(each.time), each.by || "this machine, without a key",
      h("span", { class: "deed" }, ACTIONS[each.action] ?? each.action, " ", h("code", {}, each.subject)), details(each.detail)],
  })));
}

function details(found) {
  const parts = Object.entries(found ?? {}).filter(([, value]) => value !== null && value !== false);
  return parts.length ? parts.map(([name, value]) => (value === true ? name : `${name}: ${[value].flat().join(", ")}`)).join("; ").replaceAll("_", " ") : "–";
}
