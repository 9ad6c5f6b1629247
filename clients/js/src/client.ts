/**
 * Sends what a page's user makes of a draft to an EditLoop server.
 *
 * An edit is in an outbox, in the browser's storage, before it is sent, and leaves it when the server has answered. So
 * it survives a page that is closed and a server that is down. It always has the same idempotency key, so that it
 * counts once however often it is sent.
 */

/** The response whose edit is sent, and where to. */
export interface Target {
  /** Address of the server, without `/v1`. */
  server: string;
  responseId: string;
  /** Edit token of the response. */
  token?: string;
}

export interface Options extends Target {
  /** The text that the policy wrote. */
  draft: string;
  /**
   * What becomes of a changed text when the page goes away: it is sent, or kept for a reload. By default it is kept if
   * the element is in a form, whose submission sends it, and sent otherwise.
   */
  onLeave?: "send" | "keep";
  /** Where a text is kept over a reload; by default the session's storage, which ends with the tab. */
  storage?: Storage;
  onSent?: (receipt: Receipt) => void;
  onError?: (error: EditError) => void;
}

/** The server's answer. */
export interface Receipt {
  response_id: string;
  revision: number;
  status: "edited" | "accepted" | "discarded";
  cost: number | null;
  policy: string | null;
  /** Whether the server had the edit already. */
  repeated: boolean;
}

/** What `attach` returns. */
export interface Attached {
  /** Send the text as it is now: as accepted if it is the draft, else as edited. */
  submit(): Promise<Receipt>;
  /** Send that the user threw the draft away. */
  discard(): Promise<Receipt>;
  /** Stop watching the element, as if the page went away. */
  detach(): void;
}

/** An edit that the server has refused for good. */
export class EditError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code?: string,
  ) {
    super(message);
  }
}

type Outcome = { edit: string } | { accepted: true } | { discarded: true };
type Body = Outcome & { response_id: string; key: string; seconds?: number; token?: string };
type Letter = { server: string; time: number; body: Body };
type Kept = { text: string; seconds: number; sent?: string };

const OUTBOX = "editloop:send:";
const KEPT = "editloop:draft:";
const HOUR = 3_600_000;
/** The longest pause in milliseconds that still counts as work on a text. */
const PAUSE = 30_000;

// A storage may be switched off, when even its name throws, or full. Then nothing survives the page; the rest works.
const attempt = <T>(what: () => T): T | undefined => {
  try {
    return what();
  } catch {}
};
const load = <T>(storage: Storage, key: string): T | undefined =>
  attempt(() => JSON.parse(storage.getItem(key)!)) ?? undefined;

/** Edits that are being sent, by key; and of each response the last one. */
const sending = new Map<string, Promise<Receipt>>();
const last = new Map<string, Promise<unknown>>();

/** Send the user's text. `seconds` are those of work on it since the draft, or the last edit, was there. */
export const edited = (target: Target, edit: string, seconds?: number) => send(target, { edit }, seconds);

/** Send that the user left the draft as it was. */
export const accepted = (target: Target, seconds?: number) => send(target, { accepted: true }, seconds);

/** Send that the user threw the draft away, wrote a text of their own, or asked again. */
export const discarded = (target: Target, seconds?: number) => send(target, { discarded: true }, seconds);

/** Send what earlier pages left in the outbox. `attach` does it, too. */
export function resend(): void {
  attempt(() => {
    const letters = Object.keys(localStorage)
      .filter((key) => key.startsWith(OUTBOX))
      .map((key) => load<Letter>(localStorage, key)!);
    letters.sort((a, b) => a.time - b.time).forEach((letter) => deliver(letter).catch(() => {}));
  });
}

function send(target: Target, outcome: Outcome, seconds?: number): Promise<Receipt> {
  const random = crypto.getRandomValues(new Uint8Array(16)); // not randomUUID, which only https has
  const key = Array.from(random, (byte) => (byte + 256).toString(16).slice(1)).join("");
  const { server, responseId, token } = target;
  const body = { response_id: responseId, key, seconds, token, ...outcome };
  const letter = { server: server.replace(/\/+$/, ""), time: Date.now(), body };
  attempt(() => localStorage.setItem(OUTBOX + key, JSON.stringify(letter)));
  return deliver(letter);
}

/** Send a letter after those of the same response that are being sent. */
function deliver(letter: Letter): Promise<Receipt> {
  const { key, response_id } = letter.body;
  const before = last.get(response_id);
  let sent = sending.get(key);
  if (!sent) {
    // Without one before it at once: a page that is being closed runs nothing later.
    sent = before ? before.then(() => post(letter)) : post(letter);
    sending.set(key, sent);
    const end: Promise<unknown> = sent
      .catch(() => {})
      .then(() => {
        sending.delete(key);
        if (last.get(response_id) === end) last.delete(response_id);
      });
    last.set(response_id, end);
  }
  return sent;
}

async function post(letter: Letter): Promise<Receipt> {
  const body = JSON.stringify(letter.body);
  // Browsers let a closed page go on sending 64 kB.
  const keepalive = new Blob([body]).size < 60_000;
  for (let wait = 1000; ; wait = Math.min(2 * wait, 60_000)) {
    let answer: Response | undefined;
    try {
      // A text and no header of its own, so that the browser need not ask for permission first.
      answer = await fetch(letter.server + "/v1/edits", { method: "POST", body, keepalive });
    } catch {} // no connection
    const status = answer?.status ?? 0;
    // Another replica may still have the response to itself, hence 404.
    const passes = !status || status === 404 || status === 408 || status === 429 || status > 499;
    if (answer?.ok || !passes || Date.now() - letter.time > (status === 404 ? HOUR : 24 * HOUR)) {
      attempt(() => localStorage.removeItem(OUTBOX + letter.body.key));
      const found = await answer?.json().catch(() => {});
      if (answer?.ok) return found;
      const { message, code } = found?.error ?? {};
      throw new EditError(message ?? `The server answered with status ${status}.`, status, code);
    }
    const asked = 1000 * Number(answer?.headers.get("Retry-After"));
    await new Promise<void>((resume) => {
      setTimeout(resume, Math.max(wait, asked || 0));
      addEventListener("online", () => resume(), { once: true });
    });
  }
}

/**
 * The text in an element that is edited. `innerText` would not do: browsers put each new line into a block of its own,
 * with a line break where it is empty, and it counts both.
 */
function textOf(element: Node): string {
  let text = "";
  let isBroken = false; // whether a line has ended, so that whatever follows begins another one
  element.childNodes.forEach((node) => {
    const isBlock = node instanceof Element && !/^(inline|contents)/.test(getComputedStyle(node).display);
    if (isBroken || (isBlock && node.previousSibling)) text += "\n";
    isBroken = isBlock;
    if (node.nodeName !== "BR") text += node instanceof Text ? node.data : textOf(node);
    else isBroken = !!node.nextSibling; // the last one only gives an empty line its height
  });
  return text;
}

/**
 * Put a draft into an element, watch what its user makes of it, and send that: when its form is submitted, when the
 * page goes away (see `onLeave`), or by the methods of what this returns. After a reload, the element has the text that
 * it had.
 *
 * The element is a textarea, an input, or any other with `contenteditable`.
 */
export function attach(element: HTMLElement, options: Options): Attached {
  const { responseId, draft } = options;
  const storage = options.storage ?? attempt(() => sessionStorage);
  const field = "value" in element ? (element as HTMLTextAreaElement) : undefined;
  const form = field?.form ?? element.closest("form");
  const sends = (options.onLeave ?? (form ? "keep" : "send")) === "send";
  const watched = new AbortController();
  const kept = storage && load<Kept>(storage, KEPT + responseId);

  const read = () => (field ? field.value : textOf(element));
  const write = (text: string) => {
    if (field) field.value = text;
    else element.innerText = text;
  };
  if (!field && !getComputedStyle(element).whiteSpace.startsWith("pre")) element.style.whiteSpace = "pre-wrap";
  write(draft);
  const shown = read(); // browsers change line breaks, which is no edit
  if (kept) write(kept.text);

  // The time of work: that between two signs of it, at most `PAUSE` each time, while the page is visible.
  let worked = (kept?.seconds ?? 0) * 1000;
  let seen = document.hidden ? undefined : performance.now();
  const work = () => {
    const now = performance.now();
    if (seen !== undefined) worked += Math.min(now - seen, PAUSE);
    seen = now;
  };

  let isOpen = true; // whether there may be something to keep for a reload
  let timer: ReturnType<typeof setTimeout> | undefined;
  let sent = kept?.sent; // the text as it was when something was sent last
  let lastOutcome: string | undefined, lastSending: Promise<Receipt> | undefined;
  const save = () => {
    clearTimeout(timer);
    timer = undefined;
    const value: Kept = { text: read(), seconds: worked / 1000, sent };
    if (isOpen) attempt(() => storage!.setItem(KEPT + responseId, JSON.stringify(value)));
  };
  const pass = (outcome: Outcome): Promise<Receipt> => {
    const same = JSON.stringify(outcome);
    if (lastSending && lastOutcome === same) return lastSending; // a form may be submitted twice at once
    work();
    lastSending = send(options, outcome, Math.round(worked / 100) / 10);
    lastSending.then(options.onSent, options.onError ?? ((error) => console.warn(`EditLoop: ${error.message}`)));
    lastOutcome = same;
    sent = read();
    worked = 0;
    return lastSending;
  };
  const finish = (outcome: Outcome) => {
    const sending = pass(outcome);
    clearTimeout(timer);
    timer = undefined;
    isOpen = false;
    attempt(() => storage!.removeItem(KEPT + responseId)); // it is in the outbox now
    return sending;
  };
  const outcome = (): Outcome => (read() === shown ? { accepted: true } : { edit: read() });
  const submit = () => finish(outcome());
  const leave = () => {
    if (sends && read() !== (sent ?? shown)) pass(outcome());
    save();
  };

  const listen = (target: EventTarget, types: string, handle: () => void) =>
    types.split(" ").forEach((type) => target.addEventListener(type, handle, { signal: watched.signal, passive: true }));
  listen(element, "keydown pointerdown pointermove wheel focus", work);
  listen(element, "input", () => {
    work();
    isOpen = true;
    timer ??= setTimeout(save, 300);
  });
  listen(document, "visibilitychange", () => {
    work();
    if (!document.hidden) return;
    seen = undefined;
    save();
  });
  listen(window, "pagehide", leave);
  if (form) listen(form, "submit", submit);
  resend();

  return {
    submit,
    discard: () => finish({ discarded: true }),
    detach: () => {
      leave();
      watched.abort();
    },
  };
}
