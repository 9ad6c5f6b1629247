// A question to the reader, before something is done that others notice.

import { h } from "./dom.js";

/**
 * Whether the reader confirms.
 *
 * `title` and `text` are what is asked, `verb` what the button says that does it, and `danger` whether it takes
 * something away.
 */
export function confirmed({ title, text, verb, danger = false }) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "question" }, h("h2", { id: "question" }, title), h("p", {}, text),
      h("div", { class: "actions" },
        h("button", { type: "button", class: danger ? "danger" : "primary", onclick: () => dialog.close("yes") }, verb),
        h("button", { type: "button", autofocus: true, onclick: () => dialog.close("no") }, "Cancel")));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
