// Elements, and numbers in readable form. Texts become text nodes only: nothing here parses HTML, so no text of a user
// or a model can become markup.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An HTML element. Attributes that begin with `on` are event handlers; strings among the children are text. */
export function h(name, attributes, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** An SVG element; see `h`. */
export function s(name, attributes, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

/** A number with about three digits, or as many decimals as given; a dash if it is not known. */
export function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const places = digits ?? (size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

/** A count. It may have a fraction, because a discounted bandit counts weights. */
export function count(value) {
  return number(value, Number.isInteger(value) ? 0 : 1);
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${number(100 * share, share > 0 && share < 0.1 ? 1 : 0)}%`;
}

/** “1 edit”, “2 edits”. */
export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

const MOMENT = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
});

/** A time, given in seconds since 1970, in the reader's time zone. */
export function moment(seconds) {
  return MOMENT.format(new Date(1000 * seconds));
}

export function time(seconds) {
  return h("time", { datetime: new Date(1000 * seconds).toISOString() }, moment(seconds));
}

/** An arm's name, with its hash in the background. */
export function armName(arm) {
  const at = arm.lastIndexOf("@");
  if (at < 1) return h("span", { class: "arm" }, arm);
  return h("span", { class: "arm" }, arm.slice(0, at), h("span", { class: "hash" }, arm.slice(at)));
}

/** A table whose cells know their column, so that a narrow screen can show each row as a card. */
export function table(caption, columns, rows) {
  const head = h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.class }, column.name)));
  const body = rows.map((row) =>
    h("tr", { class: row.class }, row.cells.map((cell, i) => {
      const name = i === 0 ? "th" : "td";
      const attributes = { class: columns[i].class, "data-name": columns[i].name };
      return h(name, i === 0 ? { scope: "row", ...attributes } : attributes, cell);
    })));
  return h("table", { class: "cards" }, h("caption", { class: "unseen" }, caption), h("thead", {}, head), h("tbody", {}, body));
}

/** A notice in a place where there is nothing to show yet. */
export function empty(title, ...help) {
  return h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), h("p", {}, ...help));
}

/** An error in the page. If another key would help, it has a button to enter one. */
export function problem(error, ...more) {
  const retry = () => dispatchEvent(new Event("hashchange"));
  const other = () => document.getElementById("forget").click();
  const [name, onclick] = error.status === 401 ? ["Enter a key", retry] : error.code === "permission_denied" ? ["Use another key", other] : [];
  return h("div", { class: "problem", role: "alert" }, h("p", {}, error.message || String(error)), ...more,
    name ? h("div", { class: "actions" }, h("button", { type: "button", onclick }, name)) : null);
}
