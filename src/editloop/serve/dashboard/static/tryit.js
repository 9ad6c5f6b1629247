// Try it: ask for a draft, edit it, and see what the bandit learns from that.

import { json, me, request, stream, withQuery } from "./api.js";
import { armName, count, h, number, problem, table } from "./dom.js";
import { difference, redline } from "./redline.js";

export const title = "Try it";

export async function show(place, { signal }) {
  const turn = { id: null, arm: null, draft: "", user: "", sent: null, before: null, alignment: null };
  const asked = h("textarea", { id: "ask", rows: 4, required: true, placeholder: "Write a short note to Ada: the demo moves to Friday, 14:00." });
  const user = h("input", { id: "ask-user", autocomplete: "off", spellcheck: "false", maxlength: 256, "aria-describedby": "ask-user-hint" });
  const ask = h("button", { type: "submit", class: "primary" }, "Ask");
  const stop = h("button", { type: "button", hidden: true }, "Stop");
  const trouble = h("div");
  const draft = draftPanel(turn, signal, onEdit);
  const side = h("section", { class: "panel beliefs", "aria-label": "Beliefs" });
  const form = h("form", { class: "panel ask" },
    h("div", { class: "field" }, h("label", { for: "ask" }, "What should be written?"), asked),
    h("div", { class: "field" }, h("label", { for: "ask-user" }, "User (optional)"), user,
      h("p", { class: "hint", id: "ask-user-hint" }, "The person who edits. What was learned from their edits counts in the choice.")),
    h("div", { class: "actions" }, ask, stop));
  place.append(h("div", { class: "headline" }, h("h1", {}, title)), h("div", { class: "two" },
    h("div", { class: "column" }, form, trouble, draft.panel), side));

  async function beliefs() {
    try {
      const who = await me();
      turn.alignment = who.alignment;
      if (!who.is_admin) return { needsAdmin: who };
      return await json(withQuery("v1/overview", { user: turn.user, since: Date.now() / 1000 - 60, bins: 1 }), { signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return { error };
    }
  }

  async function onEdit(cost) {
    const now = await beliefs();
    side.replaceChildren(...believed(turn, now, cost));
  }

  asked.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = asked.value.trim();
    if (!text || ask.disabled) return;
    const stopping = new AbortController();
    const leaving = () => stopping.abort();
    signal.addEventListener("abort", leaving);
    stop.onclick = leaving;
    trouble.replaceChildren();
    ask.disabled = true;
    stop.hidden = false;
    Object.assign(turn, { id: null, arm: null, draft: "", sent: null, user: user.value.trim() });
    try {
      turn.before = await beliefs();
      side.replaceChildren(...believed(turn, turn.before, null));
      draft.begin();
      await stream({ model: "editloop", messages: [{ role: "user", content: text }], ...(turn.user ? { user: turn.user } : {}) }, {
        signal: stopping.signal,
        begun: (id, arm) => { Object.assign(turn, { id, arm }); draft.from(); },
        more: (piece) => { turn.draft += piece; draft.grow(); },
      });
      draft.done();
    } catch (error) {
      draft.drop();
      if (signal.aborted) return;
      const message = error.name === "AbortError" ? new Error("Stopped. This draft is not learned from; ask again.") : error;
      trouble.replaceChildren(problem(message));
    } finally {
      ask.disabled = false;
      stop.hidden = true;
      signal.removeEventListener("abort", leaving);
    }
  });
  const start = await beliefs();
  if (!turn.before) side.replaceChildren(...believed(turn, start, null));
}

/**
 * A key for one submission. Without it, going back to an earlier wording would count as a late repetition.
 *
 * `crypto.randomUUID` would be shorter, but exists only on pages served over HTTPS or from this machine.
 */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const DONE = { accepted: "Kept as it was", edited: "Edit taken", discarded: "Thrown away" };

/** The panel with the draft, and what can be done with it. */
function draftPanel(turn, signal, onEdit) {
  const area = h("textarea", { id: "draft", rows: 8, readonly: true, dir: "auto", "aria-describedby": "draft-state" });
  const state = h("p", { class: "hint", id: "draft-state", role: "status" });
  const preview = h("div", { class: "preview" });
  const watch = h("input", { type: "checkbox", id: "watch", checked: true });
  const submit = h("button", { type: "button", class: "primary", disabled: true }, "Submit edit");
  const accept = h("button", { type: "button", disabled: true }, "Keep as it is");
  const discard = h("button", { type: "button", disabled: true }, "Throw it away");
  const trouble = h("div");
  const panel = h("section", { class: "panel draft", hidden: true, "aria-label": "Draft" },
    h("div", { class: "field" }, h("label", { for: "draft" }, "Draft, to be edited in place"), area), state,
    h("div", { class: "check" }, watch, h("label", { for: "watch" }, "Show changes as I type")), preview,
    h("div", { class: "actions" }, submit, accept, discard), trouble);

  function compare() {
    const changed = area.value !== turn.draft;
    preview.replaceChildren(...(watch.checked && changed && !area.readOnly ? [redline(difference(turn.draft, area.value, turn.alignment))] : []));
    submit.disabled = area.readOnly || !changed || area.value === turn.sent;
    accept.disabled = discard.disabled = area.readOnly;
  }

  async function send(what) {
    submit.disabled = accept.disabled = discard.disabled = true;
    trouble.replaceChildren();
    try {
      const done = await (await request("v1/edits", { method: "POST", body: { response_id: turn.id, key: newKey(), ...what }, signal })).json();
      if (done.status === "accepted") area.value = turn.draft;
      turn.sent = area.value;
      state.textContent = `${DONE[done.status]}: cost ${number(done.cost)}`
        + `${done.revision > 1 ? `, revision ${done.revision}` : ""}. You may edit it further.`;
      compare();
      await onEdit(done);
    } catch (error) {
      if (error.name !== "AbortError") trouble.replaceChildren(problem(error));
    }
    compare();
  }

  submit.addEventListener("click", () => send({ edit: area.value }));
  accept.addEventListener("click", () => send({ accepted: true }));
  discard.addEventListener("click", () => send({ discarded: true }));
  area.addEventListener("input", compare);
  watch.addEventListener("change", compare);
  const frozen = (yes) => { area.readOnly = yes; compare(); };
  return {
    panel,
    begin() {
      panel.hidden = false;
      area.value = "";
      state.textContent = "Waiting for the first word …";
      trouble.replaceChildren();
      frozen(true);
    },
    from() { state.textContent = `${turn.arm} is writing …`; },
    grow() {
      area.value = turn.draft;
      area.scrollTop = area.scrollHeight;
    },
    done() {
      state.textContent = `Written by ${turn.arm}. Change what you would change, then submit.`;
      frozen(false);
      area.focus({ preventScroll: true });
      area.setSelectionRange(0, 0);
    },
    drop() {
      panel.hidden = true;
      frozen(true);
    },
  };
}

/** What the bandit believes of each arm, beside what it believed before this draft. */
function believed(turn, now, done) {
  const whose = turn.user ? `For ${turn.user}` : "For requests without a user";
  const parts = [h("h2", {}, "What the bandit believes")];
  if (now.error) return [...parts, problem(now.error)];
  if (now.needsAdmin) {
    const { key, role } = now.needsAdmin;
    return [...parts, h("p", { class: "hint" }, `An admin key shows it. The key “${key}” has the role ${role}: drafts and edits work all the same.`)];
  }
  if (done) {
    parts.push(h("p", { class: "result" }, h("span", { class: "value" }, number(done.cost)),
      h("span", { class: "note" }, "cost of your edit, ", now.cost_label)));
  }
  const { arms, scope } = now.beliefs;
  if (!arms.length) return [...parts, h("p", { class: "hint" }, "No policy is served yet. Promote a run under ", h("a", { href: "#policies" }, "Policies"), ".")];
  const known = new Map((turn.before?.beliefs?.arms ?? []).map((each) => [each.arm, each]));
  const change = (before, after, format) => {
    const same = before === undefined || format(before) === format(after);
    return same ? format(after) : h("span", { class: "change" }, h("span", { class: "was" }, format(before)),
      h("span", { class: "unseen" }, " before, now "), h("span", { "aria-hidden": "true" }, " → "), h("strong", {}, format(after)));
  };
  const rows = arms.map((each) => {
    const old = done ? known.get(each.arm) : undefined;
    return {
      class: each.arm === turn.arm ? "chosen" : null,
      cells: [[armName(each.arm), each.arm === turn.arm ? h("span", { class: "tag" }, "wrote this") : null],
        change(old?.mean, each.mean, number), change(old?.observed, each.observed, count)],
    };
  });
  parts.push(h("p", { class: "hint" }, scope === "all" ? "One bandit for all users" : whose, done ? ", before and after your edit:" : ", now:"),
    table("Beliefs", [{ name: "Policy" }, { name: "Mean cost", class: "number" }, { name: "Edits", class: "number" }], rows),
    h("p", { class: "hint" }, "Edits is the number that a mean is based on; it includes the weight that other users' edits have. The next draft comes from a policy that may be the cheapest, as far as is known."));
  return parts;
}
