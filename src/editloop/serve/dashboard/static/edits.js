// The edits: finding them, reading each as a redline, exporting them as a log.

import { json, key, save, withQuery } from "./api.js";
import { armName, empty, h, number, plural, problem, time } from "./dom.js";
import { diff, readsAsCode, redline } from "./redline.js";

export const title = "Edits";

const FILTERS = ["q", "user", "policy", "status"];
const STATUS = { edited: "Edited", accepted: "Kept", discarded: "Thrown away", pending: "Waiting", expired: "Expired" };
const PAGE = 25;

export async function show(place, { parameters, signal }) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) ?? ""]));
  const list = h("ol", { class: "edits-list" });
  const below = h("div", { class: "below" });
  const status = h("p", { class: "hint", role: "status" });
  const trouble = h("div");
  const exporting = h("a", { class: "button", download: "edits.ndjson" }, "Export as NDJSON");
  let current = 0;
  exporting.addEventListener("click", async (event) => {
    if (!key.get()) return; // without a key, the link itself works, and needs no memory for the file
    event.preventDefault();
    trouble.replaceChildren();
    try {
      await save(exporting.href, "edits.ndjson");
    } catch (error) {
      trouble.replaceChildren(problem(error));
    }
  });

  async function load(before) {
    const turn = (current += before ? 0 : 1); // an answer for earlier filters may arrive after that for the present ones
    exporting.href = withQuery("v1/edits", { ...filters, format: "ndjson" });
    trouble.replaceChildren();
    try {
      const found = await json(withQuery("v1/edits", { ...filters, limit: PAGE, before }), { signal });
      if (turn !== current) return;
      if (!before) list.replaceChildren();
      list.append(...found.data.map((each) => row(each, signal)));
      const shown = list.childElementCount;
      status.textContent = shown ? `${plural(shown, "draft")} shown, the newest first${found.next ? "" : "; there are no more"}.` : "";
      below.replaceChildren(...(found.next ? [more(found.next)] : shown ? [] : [none(filters)]));
    } catch (error) {
      if (error.name !== "AbortError" && turn === current) trouble.replaceChildren(problem(error));
    }
  }

  function more(next) {
    const button = h("button", { type: "button" }, "Show older ones");
    button.addEventListener("click", async () => {
      button.disabled = true;
      const last = list.lastElementChild;
      await load(next);
      button.disabled = false;
      last?.nextElementSibling?.querySelector("button")?.focus();
    });
    return button;
  }

  place.append(h("div", { class: "headline" }, h("h1", {}, title), exporting),
    search(filters, () => {
      history.replaceState(null, "", withQuery("#edits", filters));
      return load();
    }), trouble, status, list, below);
  await load();
}

function search(filters, changed) {
  const field = (name, label, input) => {
    input.id = `filter-${name}`;
    input.addEventListener("change", () => { filters[name] = input.value.trim(); changed(); });
    return h("div", { class: "field" }, h("label", { for: input.id }, label), input);
  };
  const text = (name, label, most) =>
    field(name, label, h("input", { type: "search", value: filters[name], maxlength: most, autocomplete: "off", spellcheck: "false" }));
  const choices = [["", "All"], ...Object.entries(STATUS)];
  const select = h("select", {}, choices.map(([value, name]) => h("option", { value, selected: value === filters.status }, name)));
  const form = h("form", { class: "filters", role: "search" }, text("q", "Words in a text", 200), text("user", "User", 256),
    text("policy", "Policy", 200), field("status", "Status", select), h("button", { type: "submit", class: "primary" }, "Search"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    for (const name of FILTERS) filters[name] = form.querySelector(`#filter-${name}`).value.trim();
    changed();
  });
  return form;
}

function none(filters) {
  if (Object.values(filters).some(Boolean)) {
    return empty("Nothing matches", "Fewer filters may find more. User and policy must be given in full, as in policy@12345678.");
  }
  return empty("No drafts yet", "Drafts appear here as soon as an application asks for them. ", h("a", { href: "#try" }, "Ask for one"), ".");
}

/** A context as one text: of a conversation, the user's last message. */
export function brief(context) {
  if (typeof context === "string") return context;
  const said = (context ?? []).filter((message) => message.role === "user").at(-1) ?? context?.at(-1);
  return said ? content(said) : "";
}

function content(message) {
  return typeof message.content === "string" ? message.content : JSON.stringify(message.content ?? message);
}

function row(each, signal) {
  const panel = h("div", { class: "opened", hidden: true });
  const id = `edit-${Math.random().toString(36).slice(2)}`;
  panel.id = id;
  const who = [each.user ?? "no user", each.policy ?? "no policy"];
  const button = h("button", { type: "button", class: "row", "aria-expanded": "false", "aria-controls": id },
    h("span", { class: `status ${each.status}` }, STATUS[each.status] ?? each.status),
    h("span", { class: "cost" }, each.cost === null ? "" : number(each.cost)),
    h("span", { class: "snippet" }, h("span", { class: "context" }, brief(each.context).slice(0, 200) || "no context"),
      h("span", { class: "text" }, (each.edit ?? each.response).slice(0, 300))),
    h("span", { class: "who" }, who.map((name) => h("span", {}, name))),
    h("span", { class: "when" }, time(each.time)));
  button.addEventListener("click", async () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    panel.hidden = !open;
    if (!open || panel.childElementCount) return; // loaded when it is opened for the first time
    try {
      panel.replaceChildren(...detail(await json(`v1/edits/${encodeURIComponent(each.id)}`, { signal })));
    } catch (error) {
      if (error.name !== "AbortError") panel.replaceChildren(problem(error));
    }
  });
  return h("li", {}, button, panel);
}

function detail(found) {
  const { revisions } = found;
  const body = h("div");
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
  const cost = h("dd", {});
  const showRevision = (which) => {
    const one = revisions[which];
    cost.replaceChildren(one ? number(one.cost) : "not known yet");
    if (!one) body.replaceChildren(redline([["kept", found.response ?? ""]]), h("p", { class: "hint" }, "No edit has come in yet."));
    else if (one.discarded) body.replaceChildren(redline([["kept", found.response ?? ""]]), h("p", { class: "hint" }, "Thrown away."));
    else if (one.edit === found.response) body.replaceChildren(shown(one), h("p", { class: "hint" }, "Kept as it was."));
    else body.replaceChildren(shown(one), h("p", { class: "hint" },
      `${one.changes}${one.cost === null ? "" : `; cost ${number(one.cost)}`}`));
  };
  const facts = h("dl", { class: "facts" }, h("div", {}, h("dt", {}, "Cost"), cost), fact("User", found.user ?? "–"),
    fact("Policy", found.policy ? armName(found.policy) : "–"),
    found.propensity === null ? null : fact("Chance of being chosen", number(found.propensity, 2)),
    fact("Response", h("code", {}, found.response_id)));
  const parts = [facts];
  if (revisions.length > 1) parts.push(chooser(revisions, showRevision));
  showRevision(revisions.length - 1);
  parts.push(body, context(found.context));
  return parts;
}

function shown(revision) {
  return revision.lines ? diff(revision.lines) : redline(revision.redline);
}

function chooser(revisions, changed) {
  const id = `revision-${Math.random().toString(36).slice(2)}`;
  const select = h("select", { id }, revisions.map((each, i) =>
    h("option", { value: i, selected: i === revisions.length - 1 },
      `${each.revision}${i === revisions.length - 1 ? ", the last" : ""}${each.cost === null ? "" : `, cost ${number(each.cost)}`}`)));
  select.addEventListener("change", () => changed(Number(select.value)));
  return h("div", { class: "field inline" }, h("label", { for: id }, `Revision (${revisions.length})`), select);
}

function prose(text) {
  const code = typeof text === "string" && readsAsCode(text);
  return h("p", { class: code ? "prose code" : "prose", dir: "auto" }, text);
}

function context(found) {
  const messages = typeof found === "string" ? [{ content: found }] : found ?? [];
  return h("details", { class: "asked", open: true }, h("summary", {}, "Context"),
    messages.map((message) => h("div", { class: "message" },
      message.role ? h("span", { class: "tag" }, message.role) : null, prose(content(message)))));
}
