// Shows the page that the address names, and asks for the key that the server may need.

import * as access from "./access.js";
import { askedBy, key, me } from "./api.js";
import { h, problem } from "./dom.js";
import * as edits from "./edits.js";
import * as learning from "./learning.js";
import * as overview from "./overview.js";
import * as policies from "./policies.js";
import * as api from "./reference.js";
import * as tryit from "./tryit.js";
import * as users from "./users.js";

const PAGES = { overview, edits, users, try: tryit, policies, learning, access, api };
const main = document.getElementById("main");
let leave = () => {};
let first = true;

/** The page and its parameters in the address: `#edits?status=edited`. */
function address() {
  const [name, query] = location.hash.slice(1).split("?");
  return [Object.hasOwn(PAGES, name) ? name : "overview", new URLSearchParams(query)];
}

function show() {
  const [name, parameters] = address();
  leave();
  for (const link of document.querySelectorAll("#pages a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const page = PAGES[name];
  document.title = `${page.title} · EditLoop`;
  const place = h("div", { class: `page ${name}` });
  main.replaceChildren(place);
  const alive = new AbortController(); // its signal ends the requests and timers of a page that is left
  leave = () => alive.abort();
  fill(page, place, { parameters, signal: alive.signal }).catch((error) => {
    if (error.name !== "AbortError" && !alive.signal.aborted) place.append(problem(error));
  });
  // The focus moves to the new page, where screen readers go on. On the first page, the browser has placed it.
  if (!first) main.focus({ preventScroll: true });
  if (!first) scrollTo(0, 0);
  first = false;
}

/** Show a page in its place; or what the key may do, if that is not what this page needs. */
async function fill(page, place, options) {
  if (page.needs === "admin") {
    const who = await me();
    if (options.signal.aborted) return;
    if (!who.is_admin) {
      place.append(h("div", { class: "headline" }, h("h1", {}, page.title)), notAllowed(who));
      return;
    }
  }
  await page.show(place, options);
}

function notAllowed(who) {
  return h("div", { class: "problem" },
    h("p", {}, h("strong", {}, "This page needs an admin key. "), `The key “${who.key}” has the role ${who.role}, and this key may not do that.`),
    h("p", {}, "It may ask for drafts and send edits: ", h("a", { href: "#try" }, "Try it"), " does both, and ", h("a", { href: "#api" }, "API"), " describes it."),
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => document.getElementById("forget").click() }, "Use another key")));
}

function keyDialog() {
  const dialog = document.getElementById("key-dialog");
  const field = document.getElementById("key");
  const forget = document.getElementById("forget");
  let answer = () => {};
  document.getElementById("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = field.value.trim();
    if (!value) return;
    key.set(value);
    answer(value);
    dialog.close();
  });
  document.getElementById("key-cancel").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    field.value = "";
    answer(null); // without effect if a key was submitted: a promise is resolved once
  });
  askedBy((reason) => new Promise((resolve) => {
    answer = resolve;
    document.getElementById("key-reason").textContent = reason ? `The last key was refused: ${reason}` : "";
    dialog.showModal();
    field.focus();
  }));
  const tell = () => { forget.hidden = !key.get(); };
  document.addEventListener("key", tell);
  forget.addEventListener("click", () => { key.forget(); show(); });
  tell();
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
keyDialog();
show();
