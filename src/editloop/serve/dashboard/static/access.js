// Who may use the server, and what admins did.

import { audit } from "./audit.js";
import { h } from "./dom.js";
import { keys } from "./keys.js";

export const title = "Access";
export const needs = "admin";

export async function show(place, options) {
  const log = h("section", { class: "panel", "aria-label": "What admins did" });
  const list = h("div");
  place.append(h("div", { class: "headline" }, h("h1", {}, title)), list, log);
  const again = audit(log, options);
  await keys(list, options, again);
  await again();
}
