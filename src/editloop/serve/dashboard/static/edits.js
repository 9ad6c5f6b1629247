// The edits: finding them, reading each as a redline, exporting them as a log.

import { exportLink, json, withQuery } from "./api.js";
import { armName, empty, h, number, plural, problem, time } from "./dom.js";
import { parts } from "./parts.js";
import { addressed, bounds, periodControl, readPeriod } from "./period.js";
import { reason } from "./reason.js";
import { diff, readsAsCode, redline } from "./redline.js";

export const title = "Edits";
export const needs = "admin";

const FILTERS = ["q", "user", "policy", "status"];
const STATUS = { edited: "Edited", accepted: "Kept", discarded: "Thrown away", pending: "Waiting", expired: "Expired" };
const PAGE = 25;

export async function show(place, { parameters, signal }) {
  readPeriod(parameters);
  const filters = Object.fromEntries(FILTERS.map((name) => [name, parameters.get(name) ?? ""]));
  const list = h("ol", { class: "edits-list" });
  const below = h("div", { class: "below" });
  const status = h("p", { class: "hint", role: "status" });
  const trouble = h("div");
  const failed = (error) => trouble.replaceChildren(problem(error));
  const exports = { ndjson: exportLink("Export as NDJSON", "edits.ndjson", failed), csv: exportLink("Export as CSV", "edits.csv", failed) };
  let current = 0;
  let period = null;

  async function load(before) {
    const turn = (current += before ? 0 : 1); // an answer for earlier filters may arrive after that for the present ones
    if (!before) period = bounds("all"); // further pages are of the same moment's period
    const shown = { ...filters, since: period.since, until: period.until };
    for (const [format, link] of Object.entries(exports)) link.href = withQuery("v1/edits", { ...shown, format });
    trouble.replaceChildren();
    try {
      const found = await json(withQuery("v1/edits", { ...shown, limit: PAGE, before }), { signal });
      if (turn !== current) return;
      if (!before) list.replaceChildren();
      list.append(...found.data.map((each) => row(each, signal)));
      const rows = list.childElementCount;
      status.textContent = rows ? `${plural(rows, "draft")} shown, the newest first${found.next ? "" : "; there are no more"}.` : "";
      below.replaceChildren(...(found.next ? [more(found.next)] : rows ? [] : [none({ ...filters, ...addressed() })]));
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

  const changed = () => {
    history.replaceState(null, "", withQuery("#edits", { ...filters, ...addressed() }));
    return load();
  };
  place.append(h("div", { class: "headline" }, h("h1", {}, title), periodControl("all", changed)), search(filters, changed),
    h("div", { class: "actions" }, exports.ndjson, exports.csv), trouble, status, list, below);
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
      h("span", { class: "text" }, (each.edit ?? each.response).slice(0, 300)),
      each.reason ? h("span", { class: "why-edited" }, `Why: ${each.reason.slice(0, 200)}`) : null),
    h("span", { class: "who" }, who.map((name) => h("span", {}, name))),
    h("span", { class: "when" }, time(each.time)));
  button.addEventListener("click", async () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    panel.hidden = !open;
    if (!open || panel.childElementCount) return; // loaded when it is opened for the first time
    try {
      panel.replaceChildren(...detail(await json(`v1/edits/${encodeURIComponent(each.id)}`, { signal }), signal));
    } catch (error) {
      if (error.name !== "AbortError") panel.replaceChildren(problem(error));
    }
  });
  return h("li", {}, button, panel);
}

function detail(found, signal) {
  const { revisions } = found;
  const body = h("div", { class: "column" });
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
  const cost = h("dd", {});
  const showRevision = (which) => {
    const one = revisions[which];
    cost.replaceChildren(one ? number(one.cost) : "not known yet");
    const draft = redline([["kept", found.response ?? ""]]);
    if (!one) body.replaceChildren(draft, h("p", { class: "hint" }, "No edit has come in yet."));
    else if (one.discarded) body.replaceChildren(draft, h("p", { class: "hint" }, "Thrown away."));
    else if (one.edit === found.response) body.replaceChildren(...views(one), h("p", { class: "hint" }, "Kept as it was."));
    else body.replaceChildren(...views(one), ...parts(one, found));
  };
  const facts = h("dl", { class: "facts" }, h("div", {}, h("dt", {}, "Cost"), cost), fact("User", found.user ?? "–"),
    fact("Policy", found.policy ? armName(found.policy) : "–"),
    found.propensity === null ? null : fact("Chance of being chosen", number(found.propensity, 2)),
    found.seconds === null ? null : fact("Time", `${number(found.seconds)} s`),
    found.completion_tokens === null ? null : fact("Tokens", `${number(found.completion_tokens, 0)} written`),
    fact("Response", h("code", {}, found.response_id)));
  const all = [facts];
  if (revisions.length > 1) all.push(chooser(revisions, showRevision));
  showRevision(revisions.length - 1);
  all.push(body, ...(revisions.length ? [reason(found, signal)] : []), context(found.context));
  return all;
}

/** A revision as a redline; code line by line, or with the units that the cost counts, as the reader chooses. */
function views(revision) {
  const counted = redline(revision.redline);
  if (!revision.lines) return [counted];
  const lines = diff(revision.lines);
  const name = `view-${Math.random().toString(36).slice(2)}`;
  counted.hidden = true;
  const choice = (label, isLines) => h("label", {}, h("input", { type: "radio", name, checked: isLines, onchange: () => {
    lines.hidden = !isLines;
    counted.hidden = isLines;
  } }), h("span", {}, label));
  return [h("fieldset", { class: "segments view" }, h("legend", { class: "unseen" }, "View"), choice("Line by line", true), choice("As the cost counts", false)), lines, counted];
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
