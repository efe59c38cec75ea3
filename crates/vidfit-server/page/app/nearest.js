// What would fit in place of a job that does not: the most frames, the largest picture of the same
// shape, and other models as they come. Found by asking for their plans; more frames or pixels
// never take less memory, so a search by halves finds the most in a few questions.

const SHARES = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3];
const MOST_MODELS = 2;

/** Calls `found` with `{ what, fields, peak_bytes, seconds, changes }` for each that fits. `ask` gives the plan of fields. */
export async function nearest(wanted, plan, models, ask, found) {
  const { frames, width, height } = plan.video;
  const fewer = [];
  for (let number = frames - 8; number >= 9; number -= 8) {
    fewer.push({ what: `${number} frames`, fields: { num_frames: number } });
  }
  const smaller = [];
  for (const share of SHARES) {
    const [w, h] = [sixteenth(width * share), sixteenth(height * share)];
    const isNew = w >= 64 && h >= 64 && (w !== width || h !== height) && w !== smaller.at(-1)?.fields.width;
    if (isNew) smaller.push({ what: `${w}×${h} pixels`, fields: { width: w, height: h } });
  }
  const others = models
    .filter((model) => model.tasks.includes(wanted.task) && model.available && model.id !== wanted.model && model.id !== plan.model)
    .map((model) => ({ what: model.id, isModel: true, fields: { model: model.id, width: "", height: "", num_frames: "" } }));

  for (const choices of [fewer, smaller]) {
    const fitting = await most(choices, wanted, ask);
    if (fitting) found(fitting);
  }
  let offered = 0;
  for (const other of others) {
    const fitting = await tried(other, wanted, ask);
    if (fitting) found(fitting);
    if (fitting && ++offered === MOST_MODELS) break;
  }
}

/** The first of `choices`, largest first, that fits. */
async function most(choices, wanted, ask) {
  let [from, to, best] = [0, choices.length, null];
  while (from < to) {
    const middle = Math.floor((from + to) / 2);
    const fitting = await tried(choices[middle], wanted, ask);
    if (fitting) [best, to] = [fitting, middle];
    else from = middle + 1;
  }
  return best;
}

async function tried(choice, wanted, ask) {
  const fields = { ...wanted, ...choice.fields };
  for (const name of Object.keys(fields)) if (fields[name] === "") delete fields[name];
  try {
    const plan = await ask(fields);
    return plan.fits ? { ...choice, peak_bytes: plan.peak_bytes, seconds: plan.seconds, changes: plan.changes_picture } : null;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null; // What cannot be made at all is no offer.
  }
}

const sixteenth = (pixels) => Math.round(pixels / 16) * 16;
