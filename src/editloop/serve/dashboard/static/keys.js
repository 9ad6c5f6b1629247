// The bearer keys: making one, which is shown once, and revoking one.

import { json, key as current, me } from "./api.js";
import { confirmed } from "./dialog.js";
import { empty, h, problem, table, time } from "./dom.js";

const ROLES = { app: "app: asks for drafts, sends edits", admin: "admin: may do everything" };

/** Show the keys in a place. `changed` is called after something was done. */
export async function keys(place, { signal }, changed) {
  const list = h("div");
  const done = h("div", { class: "done", role: "status" });

  async function load() {
    const [found, who] = await Promise.all([json("v1/keys", { signal }), me()]);
    list.replaceChildren(h("section", { class: "panel" }, h("h2", {}, "Keys"), found.data.length ? shown(found.data, who, revoke) : none(),
      creation(who, async (made) => {
        if (!who.key) current.set(made.key); // the server has asked for no key so far, and does from now on
        done.replaceChildren(once(made));
        await Promise.all([load(), changed()]);
      }, signal)));
  }

  async function revoke(name, who) {
    const mine = name === who.key ? " It is the key that you use now, so this page will ask for another one." : "";
    const sure = await confirmed({ title: `Revoke ${name}?`, verb: "Revoke", danger: true,
      text: `Requests with this key are refused from now on.${mine} A key that was revoked cannot be used again.` });
    if (!sure) return;
    done.replaceChildren();
    try {
      await json(`v1/keys/${encodeURIComponent(name)}`, { method: "DELETE", signal });
      done.textContent = `${name} is revoked.`;
      await Promise.all([load(), changed()]);
    } catch (error) {
      if (error.name !== "AbortError") done.replaceChildren(problem(error));
    }
    done.scrollIntoView({ block: "nearest" });
  }

  place.append(done, list);
  try {
    await load();
  } catch (error) {
    if (error.name !== "AbortError") list.replaceChildren(problem(error));
  }
}

function none() {
  return empty("No keys", "Without keys, only this machine may use the server. As soon as there is one, every request needs a key.");
}

function shown(found, who, revoke) {
  const columns = [{ name: "Name" }, { name: "Role" }, { name: "Made" }, { name: "Last used" }, { name: "Action", class: "action" }];
  const sorted = [...found].sort((a, b) => Number(a.revoked !== null) - Number(b.revoked !== null) || b.created - a.created);
  return table("Keys", columns, sorted.map((each) => ({
    class: each.revoked ? "retired" : null,
    cells: [
      [h("span", { class: "arm" }, each.name), each.name === who.key ? h("span", { class: "tag on" }, "yours") : null], each.role, time(each.created),
      each.last_used ? time(each.last_used) : "never",
      each.revoked ? h("span", {}, "revoked ", time(each.revoked))
        : h("button", { type: "button", class: "small danger", "aria-label": `Revoke ${each.name}`, onclick: () => revoke(each.name, who) }, "Revoke"),
    ],
  })));
}

function creation(who, made, signal) {
  const name = h("input", { id: "key-name", required: true, maxlength: 64, autocomplete: "off", spellcheck: "false" });
  // Without an admin key, nobody could make further ones, so the first one has that role.
  const roles = who.key ? Object.entries(ROLES) : [["admin", ROLES.admin]];
  const role = h("select", { id: "key-role" }, roles.map(([value, label]) => h("option", { value }, label)));
  const trouble = h("div");
  const button = h("button", { type: "submit", class: "primary" }, "Make a key");
  const form = h("form", { class: "filters narrow" }, h("div", { class: "field" }, h("label", { for: name.id }, "Name"), name),
    h("div", { class: "field" }, h("label", { for: role.id }, "Role"), role), button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    trouble.replaceChildren();
    try {
      const answer = await json("v1/keys", { method: "POST", body: { name: name.value.trim(), role: role.value }, signal });
      await made(answer);
    } catch (error) {
      if (error.name !== "AbortError") trouble.replaceChildren(problem(error));
    } finally {
      button.disabled = false;
    }
  });
  return h("div", { class: "column" }, form, trouble);
}

/** A new key, which nothing shows again. */
function once(made) {
  const field = h("input", { id: "new-key", readonly: true, value: made.key, spellcheck: "false", class: "mono" });
  const copy = h("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(made.key);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Copy the selected text"; // a page that came over plain HTTP may not use the clipboard
    }
  });
  return h("div", { class: "column" }, h("p", {}, h("strong", {}, `The key ${made.name}. `), "Copy it now: it is shown only this once."),
    h("div", { class: "field" }, h("label", { for: field.id }, "New key"), field), h("div", { class: "actions" }, copy));
}
