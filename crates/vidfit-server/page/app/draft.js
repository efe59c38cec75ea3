// The form's draft: what is typed, kept in the address (so that a reload, a bookmark or a shared
// link finds it) and in the browser's storage (so that a bare address finds it too). An empty
// field means "the model's own", and is not sent.

const EMPTY = {
  task: "t2v", prompt: "", negative_prompt: "", model: "", preset: "", width: "", height: "", num_frames: "",
  num_inference_steps: "", guidance_scale: "", seed: "", strength: "", fps: "", lora: "",
};
const NUMBERS = new Set(["width", "height", "num_frames", "num_inference_steps", "guidance_scale", "seed", "strength", "fps"]);
/** What a plan does not depend on. */
const WORDS = new Set(["prompt", "negative_prompt", "seed"]);
const STORED = "vidfit.draft";

export const blank = () => ({ ...EMPTY });

export function restore() {
  let text = location.hash.slice(1);
  try {
    text ||= localStorage.getItem(STORED) ?? "";
  } catch {
    // No storage: the address alone has to do.
  }
  const said = new URLSearchParams(text);
  const draft = { ...EMPTY };
  for (const name of Object.keys(EMPTY)) if (said.has(name)) draft[name] = said.get(name);
  return draft;
}

export function keep(draft) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(draft)) if (value !== EMPTY[name]) said.set(name, value);
  const text = said.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  try {
    localStorage.setItem(STORED, text);
  } catch {
    // As above.
  }
}

/** The fields that say something, as the server takes them. */
export function fields(draft) {
  const said = {};
  for (const [name, text] of Object.entries(draft)) {
    if (name === "task" || text.trim() === "") continue;
    if (name === "strength" && draft.task !== "v2v") continue;
    // What is no number is sent as it is: the server says best what is wrong with it.
    const isNumber = NUMBERS.has(name) && Number.isFinite(Number(text));
    said[name] = isNumber ? Number(text) : text;
  }
  return said;
}

/** What a plan depends on. */
export function planned(draft) {
  const said = { task: draft.task };
  for (const [name, value] of Object.entries(fields(draft))) if (!WORDS.has(name)) said[name] = value;
  return said;
}

/** A draft that asks for what a job was asked for. */
export function ofJob(job) {
  const draft = { ...EMPTY, task: job.task };
  for (const name of Object.keys(EMPTY)) {
    if (name !== "task" && job[name] !== null && job[name] !== undefined) draft[name] = text(job[name]);
  }
  return draft;
}

function text(value) {
  return Array.isArray(value) ? value.join(", ") : String(value);
}

export function randomSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}
