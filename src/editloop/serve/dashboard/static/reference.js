// The API, as the server's OpenAPI document describes it.

import { json } from "./api.js";
import { h, table } from "./dom.js";

export const title = "API";

const GROUPS = { chat: "Responses", edits: "Edits", policies: "Policies", users: "Users", access: "Access", health: "The server" };

export async function show(place, { signal }) {
  place.append(
    h("div", { class: "headline" }, h("h1", {}, title), h("a", { href: "openapi.json" }, "openapi.json")),
    h("p", {}, "An OpenAI client talks to ", h("code", {}, `${location.origin}/v1`),
      "; each response’s id goes back with the edited text to ", h("code", {}, "POST /v1/edits"), "."));
  const document = await json("openapi.json", { signal });
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })));
  for (const [tag, name] of Object.entries(GROUPS)) {
    const mine = operations.filter((each) => each.tags?.includes(tag));
    if (mine.length) place.append(h("section", { class: "panel" }, h("h2", {}, name), mine.map(described)));
  }
}

function described(operation) {
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const fields = [
    ...(operation.parameters ?? []).map((each) => [each.name, each.schema, each.required, each.description]),
    ...Object.entries(schema?.properties ?? {}).map(([name, field]) =>
      [name, field, schema.required?.includes(name), field.description]),
  ];
  const rows = fields.map(([name, field, required, what]) => ({
    cells: [h("code", {}, name), required ? `${kind(field)}, required` : kind(field), what ?? field.description ?? ""],
  }));
  const columns = [{ name: "Field" }, { name: "Type" }, { name: "What it is" }];
  return h("details", {},
    h("summary", {}, h("code", {}, `${operation.method} ${operation.path}`), " ", operation.description ?? ""),
    rows.length ? table(`Fields of ${operation.path}`, columns, rows) : h("p", { class: "hint" }, "It takes no fields."));
}

/** A schema's type in words. */
function kind(schema) {
  if (schema.anyOf) return schema.anyOf.filter((each) => each.type !== "null").map(kind).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(", ");
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  return { string: "text", integer: "whole number", number: "number", boolean: "true or false", object: "object" }[schema.type] ?? "anything";
}
