// Vercel's AI SDK, whose default provider for OpenAI asks the Responses API.

import { createOpenAI } from "@ai-sdk/openai";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { ASKED, URL_V1, check, checkText, editByKey, report } from "./report.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const openai = createOpenAI({ baseURL: URL_V1, apiKey: "none" });
const API = { chat: openai.chat("editloop"), responses: openai("editloop") };
const Invitation = z.object({ guest: z.string(), seats: z.number().int() });

const whole = (model) => async () => {
  const answer = await generateText({ model, system: "Be kind.", prompt: ASKED });
  checkText(answer.text);
  return answer.response.id;
};

const streamed = (model) => async () => {
  const answer = streamText({ model, prompt: ASKED });
  let text = "";
  for await (const part of answer.textStream) text += part;
  checkText(text);
  return (await answer.response).id;
};

const withTools = (model) => async () => {
  const cities = [];
  const weather = tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: ({ city }) => {
      cities.push(city);
      return "12 degrees";
    },
  });
  const answer = await generateText({ model, prompt: ASKED, tools: { weather }, stopWhen: stepCountIs(3) });
  checkText(answer.text);
  check(cities.join() === "Ada", `the tool was called for ${cities}`);
  return answer.response.id;
};

const structured = (model) => async () => {
  const output = Output.object({ schema: Invitation });
  const answer = await generateText({ model, prompt: ASKED, output });
  check(answer.output.guest === "Ada", "another value");
  return answer.response.id;
};

async function key() {
  const editloop_key = crypto.randomUUID();
  const providerOptions = { openai: { metadata: { editloop_key } } };
  await generateText({ model: API.responses, prompt: ASKED, providerOptions });
  return editByKey(editloop_key);
}

await report(
  "ai",
  {
    chat: whole(API.chat),
    streaming: streamed(API.chat),
    responses: whole(API.responses),
    "responses, streaming": streamed(API.responses),
    tools: withTools(API.chat),
    "responses, tools": withTools(API.responses),
    structured: structured(API.chat),
    "responses, structured": structured(API.responses),
    key,
  },
  "`result.response.id`",
);
