// The way to the server. Every failure becomes a `Refusal` with the server's own words.

export class Refusal extends Error {
  constructor(message, { status = 0, param = null, code = null } = {}) {
    super(message);
    this.status = status;
    this.param = param;
    this.code = code;
  }
}

/** Told when the server wants a token; the page then asks for one. */
export const session = new EventTarget();

export async function call(method, path, body, { signal, headers = {} } = {}) {
  const isForm = body instanceof FormData;
  let answer;
  let text;
  try {
    answer = await fetch(path, {
      method,
      signal,
      credentials: "same-origin",
      headers: body === undefined || isForm ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined || isForm ? body : JSON.stringify(body),
    });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Is vidfit serve still running?");
  }
  if (answer.ok) return text ? JSON.parse(text) : null;
  throw refusal(answer, text);
}

function refusal(answer, text) {
  if (answer.status === 401) session.dispatchEvent(new Event("needed"));
  let said = {};
  try {
    said = JSON.parse(text).error ?? {};
  } catch {
    // Not the server's form: something between it and here answered.
  }
  let message = said.message ?? `The server answered ${answer.status} ${answer.statusText}`.trim();
  const wait = answer.headers.get("Retry-After");
  if (answer.status === 429 && wait && !said.message) message = `The queue is full. Try again in ${wait} s.`;
  return new Refusal(message, { status: answer.status, param: said.param, code: said.code });
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body, options) => call("POST", path, body, options);

export const models = () => get("/v1/models").then((list) => list.data ?? list);
export const presets = () => get("/v1/presets").then(named);
export const memory = () => get("/v1/gpus");
export const plan = (body, signal) => post("/v1/plan", body, { signal });
export const cancel = (id) => post(`/v1/videos/${id}/cancel`);
export const remove = (id) => call("DELETE", `/v1/videos/${id}`);
export const signIn = (token) => post("/session", { token });
export const signOut = () => call("DELETE", "/session");

export function videos(after, options) {
  const from = after ? `&after=${encodeURIComponent(after)}` : "";
  return get(`/v1/videos?order=desc&limit=100${from}`, options);
}

/** What a job started from, as a file; nothing where the server does not give it (any more). */
export async function input(job) {
  const answer = await fetch(content(job, "input"), { credentials: "same-origin" }).catch(() => null);
  if (answer?.status !== 200) return null;
  const data = await answer.blob().catch(() => null);
  if (!data?.size) return null;
  const [, ending] = data.type.match(/^(?:image|video)\/(\w+)/) ?? [];
  return new File([data], `input${ending ? `.${ending.replace("quicktime", "mov")}` : ""}`, { type: data.type });
}

export function create(fields, source, key) {
  const headers = { "Idempotency-Key": key };
  if (!source) return post("/v1/videos", fields, { headers });
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append(source.field, source.file, source.file.name || "input");
  return post("/v1/videos", form, { headers });
}

export function content(job, variant = "video") {
  return `/v1/videos/${job.id}/content?variant=${variant}`;
}

/** Presets come as a list or as an object by name; the page wants a list. */
function named(answer) {
  const list = answer.data ?? answer.presets ?? answer;
  if (Array.isArray(list)) return list.map((preset) => ({ ...preset, name: preset.name ?? preset.id }));
  return Object.entries(list).map(([name, preset]) => ({ name, ...preset }));
}
