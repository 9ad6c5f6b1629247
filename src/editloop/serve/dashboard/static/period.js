// The period that charts and tables show: one choice for all pages, kept in the address.

import { h } from "./dom.js";

const PERIODS = {
  day: { name: "24 hours", seconds: 86_400, bins: 24 },
  week: { name: "7 days", seconds: 7 * 86_400, bins: 28 },
  month: { name: "30 days", seconds: 30 * 86_400, bins: 30 },
  all: { name: "All", seconds: null, bins: 40 },
};
const DATES = "dates";

// Here and not in a page, so that the choice holds for the next page; null until the reader has chosen.
let chosen = null;

const seconds = (text) => (text ? new Date(text).getTime() / 1000 : NaN);

/** Take the period out of a page's address, if it names one. */
export function readPeriod(parameters) {
  const id = parameters.get("period");
  if (id && Object.hasOwn(PERIODS, id)) chosen = { id };
  const [from, to] = ["from", "to"].map((name) => parameters.get(name) ?? "");
  if (Number.isFinite(seconds(from)) || Number.isFinite(seconds(to))) chosen = { id: DATES, from, to };
}

/** The parameters of the address that name the chosen period; none while a page shows its own. */
export function addressed() {
  if (!chosen) return {};
  return chosen.id === DATES ? { from: chosen.from, to: chosen.to } : { period: chosen.id };
}

/** The period as the API takes it, with the number of bins of a chart: the reader's choice, or else the page's own. */
export function bounds(usual) {
  if (chosen?.id === DATES) {
    const [since, until] = [seconds(chosen.from), seconds(chosen.to)].map((each) => (Number.isFinite(each) ? Math.max(0, each) : null));
    return { since, until, bins: 40 };
  }
  const { seconds: length, bins } = PERIODS[chosen?.id ?? usual];
  return { since: length && Date.now() / 1000 - length, until: null, bins };
}

/** The control by which the period is chosen; `changed` is called after each choice. */
export function periodControl(usual, changed) {
  const now = chosen?.id ?? usual;
  const trouble = h("p", { class: "hint", role: "status" });
  const field = (name, label) => {
    const input = h("input", { type: "datetime-local", id: `period-${name}`, value: chosen?.[name] ?? "" });
    return [input, h("div", { class: "field" }, h("label", { for: input.id }, label), input)];
  };
  const [from, fromField] = field("from", "From");
  const [to, toField] = field("to", "Until");
  const dates = h("form", { class: "dates", hidden: now !== DATES }, fromField, toField, h("button", { type: "submit" }, "Show"), trouble);
  dates.addEventListener("submit", (event) => {
    event.preventDefault();
    const [since, until] = [seconds(from.value), seconds(to.value)];
    trouble.textContent = "";
    if (Number.isNaN(since) && Number.isNaN(until)) trouble.textContent = "Give one of the two times.";
    else if (since >= until) trouble.textContent = "The period must begin before it ends.";
    else {
      chosen = { id: DATES, from: from.value, to: to.value };
      changed();
    }
  });
  const choose = (id) => {
    dates.hidden = id !== DATES;
    if (id === DATES) return;
    chosen = { id };
    changed();
  };
  const choices = [...Object.entries(PERIODS).map(([id, { name }]) => [id, name]), [DATES, "Dates"]];
  return h("div", { class: "period" }, h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, "Period"),
    choices.map(([id, name]) => h("label", {},
      h("input", { type: "radio", name: "period", value: id, checked: id === now, onchange: () => choose(id) }), h("span", {}, name)))), dates);
}
