// The users: what their edits cost, which arms are theirs, and forgetting one.

import { json, withQuery } from "./api.js";
import { confirmed } from "./dialog.js";
import { armName, count, empty, h, number, plural, problem, table, time } from "./dom.js";
import { addressed, bounds, periodControl, readPeriod } from "./period.js";

export const title = "Users";
export const needs = "admin";

const PAGE = 25;
const SORTS = {
  seen: { name: "Last seen", sort: "seen", order: "desc" },
  rounds: { name: "Most rounds", sort: "rounds", order: "desc" },
  high: { name: "Highest cost", sort: "cost", order: "desc" },
  low: { name: "Lowest cost", sort: "cost", order: "asc" },
  name: { name: "Name", sort: "name", order: "asc" },
};

export async function show(place, { parameters, signal }) {
  readPeriod(parameters);
  const sort = parameters.get("sort") ?? "";
  const asked = { q: parameters.get("q") ?? "", sort: Object.hasOwn(SORTS, sort) ? sort : "seen", offset: 0 };
  const list = h("div");
  const below = h("div", { class: "below pages" });
  const status = h("p", { class: "hint", role: "status" });
  const done = h("p", { class: "done", role: "status" });
  const period = { at: bounds("all") }; // fixed while pages are turned
  let current = 0;

  async function load(offset = 0) {
    const turn = (current += 1);
    asked.offset = offset;
    if (!offset) period.at = bounds("all");
    history.replaceState(null, "", withQuery("#users", { q: asked.q, sort: asked.sort === "seen" ? "" : asked.sort, ...addressed() }));
    const { since, until } = period.at;
    const { sort: by, order } = SORTS[asked.sort];
    try {
      const found = await json(withQuery("v1/users", { q: asked.q, since, until, sort: by, order, limit: PAGE, offset }), { signal });
      if (turn !== current) return;
      list.replaceChildren(found.data.length ? users(found.data, forget) : none(asked.q));
      status.replaceChildren(...about(found, offset));
      below.replaceChildren(...turns(found.total, offset, load));
    } catch (error) {
      if (error.name !== "AbortError" && turn === current) list.replaceChildren(problem(error));
    }
  }

  async function forget(user) {
    const sure = await confirmed({
      title: `Forget ${user}?`, verb: "Forget", danger: true,
      text: "All texts of this user are removed from the store: requests, drafts and edits. Their own arms are retired. What the "
        + "edits cost stays, without a name. This cannot be undone, and copies that you have exported are not reached.",
    });
    if (!sure) return;
    done.replaceChildren();
    try {
      const gone = await json(`v1/users/${encodeURIComponent(user)}`, { method: "DELETE", signal });
      done.textContent = `${user} is forgotten: the texts of ${plural(gone.removed, "round")} are removed.`
        + (gone.trained.length ? ` Promoted runs that have learned from them: ${gone.trained.join(", ")}.` : "");
      await load(asked.offset);
    } catch (error) {
      if (error.name !== "AbortError") done.replaceChildren(problem(error));
    }
    done.scrollIntoView({ block: "nearest" });
  }

  place.append(h("div", { class: "headline" }, h("h1", {}, title), periodControl("all", () => load())), search(asked, () => load()), done, status, list, below);
  await load();
}

function search(asked, changed) {
  const name = h("input", { type: "search", id: "user-name", value: asked.q, maxlength: 256, autocomplete: "off", spellcheck: "false" });
  const sort = h("select", { id: "user-sort" }, Object.entries(SORTS).map(([id, each]) => h("option", { value: id, selected: id === asked.sort }, each.name)));
  const take = () => {
    asked.q = name.value.trim();
    asked.sort = sort.value;
    changed();
  };
  const form = h("form", { class: "filters narrow", role: "search" },
    h("div", { class: "field" }, h("label", { for: name.id }, "Part of a name"), name),
    h("div", { class: "field" }, h("label", { for: sort.id }, "Sorted by"), sort), h("button", { type: "submit", class: "primary" }, "Search"));
  sort.addEventListener("change", take);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take();
  });
  return form;
}

function users(rows, forget) {
  const columns = [{ name: "User" }, { name: "Rounds", class: "number" }, { name: "Edits", class: "number" }, { name: "Mean cost", class: "number" },
    { name: "Scope" }, { name: "Last seen", class: "moment" }, { name: "Action", class: "action" }];
  return h("section", { class: "panel" }, table("Users", columns, rows.map((each) => ({
    cells: [
      h("a", { class: "name", dir: "auto", href: `#edits?${new URLSearchParams({ user: each.user })}` }, each.user),
      count(each.rounds), count(each.edits), number(each.cost),
      scope(each), time(each.last),
      h("button", { type: "button", class: "small danger", "aria-label": `Forget ${each.user}`, onclick: () => forget(each.user) }, "Forget"),
    ],
  }))));
}

function scope(each) {
  if (each.arms.length) return h("span", {}, "own arms: ", each.arms.map((arm, i) => [i ? ", " : "", armName(arm)]).flat());
  return h("span", { class: "moment" }, each.scope === "own" ? "own bandit" : "shared bandit");
}

function about(found, offset) {
  if (!found.data.length) return [];
  const range = `${count(offset + 1)} to ${count(offset + found.data.length)} of ${plural(found.total, "user")}.`;
  return found.since ? [`${range} There are too many rounds to count all: those since `, time(found.since), " are counted."] : [range];
}

function turns(total, offset, load) {
  const button = (name, to) => h("button", { type: "button", disabled: to < 0 || to >= total, onclick: () => load(to).then(() => scrollTo(0, 0)) }, name);
  return total > PAGE ? [button("Previous", offset - PAGE), button("Next", offset + PAGE)] : [];
}

function none(q) {
  return q ? empty("No such user", "The search looks for a part of the name, in upper or lower case.")
    : empty("No users in this period", "Users appear when requests name them: ", h("code", {}, 'user="ada"'), ".");
}
