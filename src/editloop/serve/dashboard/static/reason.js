// Why a draft was edited, in the words of the application or of an admin.

import { json } from "./api.js";
import { h, problem } from "./dom.js";

/** The form with the last reason that was given for a response, which may be changed. */
export function reason(found, signal) {
  const known = found.revisions.findLast((each) => each.reason !== null)?.reason ?? "";
  const id = `reason-${Math.random().toString(36).slice(2)}`;
  const field = h("input", { id, value: known, maxlength: 1000, autocomplete: "off", placeholder: "too long, #tone" });
  const button = h("button", { type: "submit" }, "Save");
  const status = h("p", { class: "hint", role: "status" });
  const form = h("form", { class: "reason" }, h("div", { class: "field" }, h("label", { for: id }, "Why it was edited"), field), button, status);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    status.replaceChildren();
    try {
      const path = `v1/edits/${encodeURIComponent(found.response_id)}/reason`;
      await json(path, { method: "PUT", body: { reason: field.value.trim() || null }, signal });
      status.textContent = "Saved. It is searched with the texts, and exported with the edit.";
    } catch (error) {
      if (error.name !== "AbortError") status.replaceChildren(problem(error));
    } finally {
      button.disabled = false;
    }
  });
  return form;
}
