// What the scripts here share: as `clients/python/report.py`.

import { readFileSync } from "node:fs";

export const SERVER = process.env.EDITLOOP_SERVER ?? "http://127.0.0.1:8040";
export const URL_V1 = `${SERVER}/v1`;
export const ASKED = "Invite Ada to the demo on Friday.";

export async function post(path, body) {
  const answer = await fetch(SERVER + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const found = await answer.json();
  check(answer.ok, JSON.stringify(found));
  return found;
}

export async function editByKey(key) {
  const body = { metadata: { editloop_key: key }, edit: "Dear Ada,", key: crypto.randomUUID() };
  return (await post("/v1/edits", body)).response_id;
}

export function check(condition, what) {
  if (!condition) throw new Error(what);
}

export function checkText(text) {
  check(text?.startsWith("Dear Ada,") && text.trimEnd().endsWith("Bob"), `text: ${text}`);
}

async function run(feature) {
  try {
    const id = await feature();
    if (id !== undefined) {
      const edited = await post("/v1/edits", { response_id: id, edit: "Dear Ada,", key: crypto.randomUUID() });
      check(edited.cost > 0, `the edit costs nothing: ${JSON.stringify(edited)}`);
    }
    return "ok";
  } catch (error) {
    return `${error.name}: ${String(error.message).split("\n")[0].slice(0, 200)}`;
  }
}

export async function report(name, features, id) {
  const found = {};
  for (const [feature, work] of Object.entries(features)) found[feature] = await run(work);
  const folder = new URL(`node_modules/${name}/package.json`, import.meta.url);
  const { version } = JSON.parse(readFileSync(folder, "utf8"));
  console.log(JSON.stringify({ client: `${name} (JS)`, version, id, features: found }));
}
