// The server's API: requests, with the key if there is one, and errors with the API's own messages.

const NAME = "editloop-key";

let asking = null; // the dialog that is open, as a promise: requests that fail together share one
let ask = async () => null;

export const key = {
  get: () => sessionStorage.getItem(NAME),
  forget() {
    sessionStorage.removeItem(NAME);
    document.dispatchEvent(new Event("key"));
  },
  set(value) {
    sessionStorage.setItem(NAME, value);
    document.dispatchEvent(new Event("key"));
  },
};

/** Set the function that asks the reader for a key: it takes the reason, and returns the key or null. */
export function askedBy(how) {
  ask = how;
}

export class ApiError extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function errorOf(response) {
  let found = {};
  try {
    found = (await response.json()).error ?? {};
  } catch {
    // The body is not this server's, but a proxy's for example. Only the status is known then.
  }
  return new ApiError(found.message ?? `The server answered with status ${response.status}.`, response.status, found.code);
}

async function newKey(reason) {
  asking ??= ask(reason).finally(() => { asking = null; });
  return asking;
}

/** A response with a good status. If a key is missing or refused, the reader is asked for one. */
export async function request(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const headers = {};
    const used = key.get();
    if (used) headers.Authorization = `Bearer ${used}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. Is it still running?", 0, "unreachable");
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401) throw error;
    // If the key has changed since this request was sent, the new one is tried before the reader is asked.
    if (key.get() === used && !(await newKey(used ? error.message : ""))) {
      throw new ApiError("This server shows this only with a key.", 401, error.code);
    }
  }
}

export async function json(path, options) {
  return (await request(path, options)).json();
}

let who = null; // what the key may do, as a promise that all pages share

document.addEventListener("key", () => { who = null; });

/** What the key in use may do, and the cost of edits: `{key, role, is_admin, routes, cost, cost_label, alignment}`. */
export function me() {
  who ??= json("v1/me").catch((error) => {
    who = null;
    throw error;
  });
  return who;
}

/** A path with a query of those parameters that have a value. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined) query.set(name, value);
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** A link that saves what a path returns as a file, with the key if there is one; `failed` is called with an error. */
export function exportLink(label, name, failed) {
  const link = document.createElement("a");
  Object.assign(link, { className: "button", download: name, textContent: label });
  link.addEventListener("click", async (event) => {
    if (!key.get()) return; // without a key, the link itself works, and needs no memory for the file
    event.preventDefault();
    try {
      await save(link.href, name);
    } catch (error) {
      failed(error);
    }
  });
  return link;
}

/** Save what a path returns as a file. It goes through a blob, because a link could not send the key. */
async function save(path, name) {
  const address = URL.createObjectURL(await (await request(path)).blob());
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000); // at once would be too early: the browser still reads it
}

/** A completion as a stream: `begun` is called with its id and policy, `more` with each piece of text. */
export async function stream(body, { begun, more, signal }) {
  const response = await request("v1/chat/completions", { method: "POST", body: { ...body, stream: true }, signal });
  begun(response.headers.get("X-EditLoop-Response-Id"), response.headers.get("X-EditLoop-Policy"));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let ended = false;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop(); // an event that is not complete yet; it may be cut off anywhere
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") { ended = true; continue; }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, 502, chunk.error.code);
      const text = chunk.choices?.[0]?.delta?.content;
      if (text) more(text);
    }
  }
  // A connection that is lost can look like the end of a body. Only [DONE] shows that the response is whole.
  if (!ended) throw new ApiError("The response broke off.", 502, "broken_off");
}
