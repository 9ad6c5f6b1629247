// OpenAI's own client for JavaScript.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { ASKED, URL_V1, check, checkText, editByKey, report } from "./report.mjs";

const client = new OpenAI({ baseURL: URL_V1, apiKey: "none" });
const messages = [{ role: "user", content: ASKED }];
const model = "editloop";
const Invitation = z.object({ guest: z.string(), seats: z.number().int() });
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

async function chat() {
  const answer = await client.chat.completions.create({ model, messages, user: "ada" });
  checkText(answer.choices[0].message.content);
  return answer.id;
}

async function streaming() {
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  let text = "";
  let id;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    id = chunk.id;
  }
  checkText(text);
  return id;
}

async function responses() {
  const answer = await client.responses.create({ model, input: ASKED, instructions: "Be kind." });
  checkText(answer.output_text);
  return answer.id;
}

async function responsesStreaming() {
  const stream = client.responses.stream({ model, input: ASKED });
  const answer = await stream.finalResponse();
  checkText(answer.output_text);
  return answer.id;
}

async function models() {
  const names = [];
  for await (const each of client.models.list()) names.push(each.id);
  check(names.includes("editloop"), `the models are ${names}`);
  check((await client.models.retrieve(names[1])).id === names[1], "another model");
  const error = await client.models.retrieve("nobody").catch((each) => each);
  check(error instanceof OpenAI.NotFoundError, `the error is ${error}`);
}

async function tools() {
  const asked = { model, tools: [{ type: "function", function: { name: "weather", parameters } }] };
  const call = (await client.chat.completions.create({ ...asked, messages })).choices[0].message;
  const result = { role: "tool", tool_call_id: call.tool_calls[0].id, content: "12 degrees" };
  const answer = await client.chat.completions.create({ ...asked, messages: [...messages, call, result] });
  checkText(answer.choices[0].message.content);
  return answer.id;
}

async function responsesTools() {
  const asked = { model, tools: [{ type: "function", name: "weather", parameters, strict: true }] };
  const first = await client.responses.stream({ ...asked, input: ASKED }).finalResponse();
  const result = { type: "function_call_output", call_id: first.output[0].call_id, output: "12 degrees" };
  const answer = await client.responses.create({ ...asked, input: [result], previous_response_id: first.id });
  checkText(answer.output_text);
  return answer.id;
}

async function structured() {
  const response_format = zodResponseFormat(Invitation, "invitation");
  const answer = await client.chat.completions.parse({ model, messages, response_format });
  check(answer.choices[0].message.parsed.guest === "Ada", "another value");
  return answer.id;
}

async function responsesStructured() {
  const text = { format: zodTextFormat(Invitation, "invitation") };
  const answer = await client.responses.parse({ model, input: ASKED, text });
  check(answer.output_parsed.guest === "Ada", "another value");
  return answer.id;
}

async function choices() {
  const answer = await client.chat.completions.create({ model, messages, n: 3 });
  check(new Set(answer.choices.map((each) => each.response_id)).size === 3, "the choices share an id");
  return answer.choices[2].response_id;
}

async function key() {
  const editloop_key = crypto.randomUUID();
  await client.chat.completions.create({ model, messages, metadata: { editloop_key } });
  return editByKey(editloop_key);
}

await report(
  "openai",
  {
    chat,
    streaming,
    responses,
    "responses, streaming": responsesStreaming,
    models,
    tools,
    "responses, tools": responsesTools,
    structured,
    "responses, structured": responsesStructured,
    choices,
    key,
  },
  "`answer.id`",
);
