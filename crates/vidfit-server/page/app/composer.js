// The form: what to make, its plan, and the button that starts it.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { useDrop } from "./drop.js";
import { fields, planned, randomSeed } from "./draft.js";
import { NumberField, SelectField, TextField } from "./fields.js";
import * as icons from "./icons.js";
import { usePlan } from "./plan.js";
import { PlanView, brief, verdict } from "./plan-view.js";
import { SizeField } from "./size-field.js";
import { fileOf, taskFor } from "./source.js";
import { SourceField } from "./source-field.js";
import { Tabs } from "./tabs.js";
import { bytes, count, modelName, number } from "./words.js";

/** The fields of the folded part: it opens when one of them is wrong. */
const FOLDED = ["guidance_scale", "fps", "negative_prompt", "lora"];
const SOURCES = ["input_reference", "video_reference", "source"];
const TASKS = ["t2v", "i2v", "v2v"];

export function Composer({ draft, setDraft, source, models, presets, devices, jobs, occasion, say }) {
  const form = useRef();
  const key = useRef(null);
  const [refused, setRefused] = useState(null);
  const [sourceError, setSourceError] = useState(null);
  const [isSending, setSending] = useState(false);
  const [isOpen, setOpen] = useState(FOLDED.some((name) => draft[name]));

  const tasks = TASKS.filter((task) => models.some((model) => model.tasks.includes(task)));
  // A link or an older draft may name what this server does not offer.
  const task = tasks.includes(draft.task) ? draft.task : tasks[0];
  const able = models.filter((model) => model.tasks.includes(task));
  const model = able.find((one) => one.id === draft.model) ?? able.find((one) => one.available) ?? able[0];
  const preset = presets.find((one) => one.name === draft.preset);
  // The default model is the server's to choose, unless it is no model for this task.
  const wantsDefault = !draft.model && model === models[0];
  const whole = { ...draft, task, model: wantsDefault ? "" : model?.id ?? "" };
  const plan = usePlan(planned(whole), models, occasion);
  const running = jobs.active.find((job) => job.status === "in_progress");
  const errors = problems(refused, plan.error, sourceError);

  const take = (changes) => {
    setRefused(null);
    key.current = null;
    setDraft((now) => ({ ...now, ...changes }));
  };
  const set = (name, value) => take({ [name]: value });
  const choose = (chosen) => {
    setSourceError(null);
    take({ task: chosen });
  };
  const refuse = (message) => {
    setRefused(null);
    key.current = null;
    setSourceError(message);
  };
  const isOver = useDrop((transfer) => {
    // Where text is all that is asked for, an image or a video says what is wanted.
    const to = task === "t2v" ? taskFor(transfer, tasks) : task;
    if (!to) return fail(new api.Refusal("A video cannot start from what was dropped here."));
    if (to !== task) choose(to);
    const file = fileOf(transfer, to);
    return file && refuse(source.choose(to, file));
  });
  useEffect(() => {
    if (FOLDED.some((name) => errors[name])) setOpen(true);
  }, [refused, plan.error]);
  useSaid(plan, devices, say);
  useEffect(() => setSourceError(null), [source.of(task)?.file]);
  const isSlow = useSlow(isSending);

  const fail = (error) => {
    setRefused(error);
    const id = SOURCES.includes(error.param) ? "source" : error.param;
    requestAnimationFrame(() => ((id && form.current?.querySelector(`#${CSS.escape(id)}`)) ?? form.current?.querySelector("#start"))?.focus());
  };
  const start = async (event) => {
    event?.preventDefault();
    if (isSending) return;
    const chosen = task === "t2v" ? null : source.of(task);
    if (!draft.prompt.trim()) return fail(new api.Refusal("Say what the video shows.", { param: "prompt" }));
    if (task !== "t2v" && !chosen) return fail(new api.Refusal(task === "i2v" ? "Choose the image to start from." : "Choose the video to start from.", { param: "source" }));
    if (plan.plan && !plan.plan.fits && !plan.isBusy) return fail(new api.Refusal("It does not fit into memory. Take one of the offers above, or make it smaller."));
    // A second try of the same after a lost answer is the same job, not another.
    key.current ??= Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
    setSending(true);
    try {
      jobs.put(await api.create(fields(whole), chosen, key.current));
      key.current = null;
      setRefused(null);
      say("Added to the queue");
    } catch (error) {
      fail(error);
    }
    setSending(false);
  };
  const accept = (changes) => {
    take(Object.fromEntries(Object.entries(changes).map(([name, value]) => [name, String(value)])));
    // The button that was pressed goes away, and the focus must not go with it.
    document.getElementById("plan")?.focus({ preventScroll: true });
  };
  const hotkey = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start(event);
  };

  const fps = Number(draft.fps) || model?.fps;
  const frames = Number(draft.num_frames) || model?.num_frames;
  const unavailable = model && !model.available ? `Not on this machine yet: vidfit models pull ${model.id}` : null;
  return html`
    <form class="composer" id="composer-form" ref=${form} onSubmit=${start} onKeyDown=${hotkey} noValidate aria-label="New video">
      ${tasks.length > 1 && html`<${Tabs} tasks=${tasks} chosen=${task} choose=${choose} />`}
      <div class="composer-body" id="composer" role=${tasks.length > 1 ? "tabpanel" : undefined} aria-labelledby=${tasks.length > 1 ? `tab-${task}` : undefined}>
        ${task !== "t2v" && html`<${SourceField} key=${task} task=${task} source=${source} isOver=${isOver} error=${errors.source} refuse=${refuse} />`}
        <${TextField} wide name="prompt" label="Prompt" rows=${4} value=${draft.prompt} set=${set} error=${errors.prompt} placeholder=${examples(model, task)} />
        <div class="grid">
          <${SelectField} name="model" label="Model" value=${model?.id ?? ""} set=${set} error=${errors.model} hint=${unavailable}
            options=${able.map((one) => [one.id, `${modelName(one.id)}${one.available ? "" : ", not downloaded"}`])} />
          <${SelectField} name="preset" label="Preset" value=${draft.preset} set=${set} error=${errors.preset}
            options=${[["", "None"], ...presets.map((one) => [one.name, `${one.name.replaceAll("_", " ")}: ${one.description}`])]} />
          <${SizeField} draft=${draft} model=${model} errors=${errors} take=${take} />
          <${NumberField} name="num_frames" label="Frames" min="1" step="8" value=${draft.num_frames} own=${model?.num_frames} set=${set} error=${errors.num_frames ?? errors.seconds}
            hint=${frames && fps ? `${number(frames / fps, 1)} s at ${number(fps)} fps` : null} />
          <${NumberField} name="num_inference_steps" label="Steps" min="1" step="1" value=${draft.num_inference_steps} own=${preset?.num_inference_steps ?? model?.num_inference_steps} set=${set} error=${errors.num_inference_steps} />
          <${NumberField} name="seed" label="Seed" min="0" step="1" value=${draft.seed} own="42" set=${set} error=${errors.seed}
            suffix=${html`<button type="button" class="dice" aria-label="Random seed" title="Random seed" onClick=${() => set("seed", randomSeed())}>${icons.dice}</button>`} />
        </div>
        ${task === "v2v" && html`<${Strength} value=${draft.strength} set=${set} error=${errors.strength} />`}
        <details class="folded" open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}>
          <summary>More settings</summary>
          <div class="grid">
            <${NumberField} name="guidance_scale" label="Guidance" min="0" step="0.5" value=${draft.guidance_scale} own=${preset?.guidance_scale ?? model?.guidance_scale} set=${set} error=${errors.guidance_scale} hint="How strongly the prompt is followed" />
            <${NumberField} name="fps" label="Frames per second" min="1" step="1" value=${draft.fps} own=${model?.fps} set=${set} error=${errors.fps} hint="Another rate than the model's makes things faster or slower" />
            <${TextField} wide name="negative_prompt" label="Negative prompt" rows=${2} value=${draft.negative_prompt} set=${set} error=${errors.negative_prompt} hint="What the video does not show" />
            <${TextField} wide name="lora" label="LoRA" value=${draft.lora} set=${set} error=${errors.lora} hint="One that the server offers; its scale may follow: name:0.5" />
          </div>
        </details>
        <${PlanView} state=${plan} devices=${devices} running=${running} take=${accept} />
      </div>
      <div class="actions">
        ${errors.form && html`<p class="error" role="alert">${icons.cross}<span>${errors.form}</span></p>`}
        <button type="submit" id="start" class="button primary" aria-disabled=${isSending ? "true" : undefined} aria-keyshortcuts="Control+Enter">${isSending ? "Sending…" : "Make video"}</button>
        <p class="brief" aria-hidden="true">${plan.plan ? brief(plan.plan) : ""}</p>
        ${isSlow && html`<p class="hint slow" role="status">${slow(task, source)}</p>`}
        <p class="hint">${jobs.active.length > 0 ? `${count(jobs.active.length, "job")} before it` : html`<kbd>Ctrl</kbd> <kbd>Enter</kbd>`}</p>
      </div>
    </form>`;
}

function Strength({ value, set, error }) {
  const share = value === "" ? 0.8 : Number(value);
  return html`
    <div class=${`field wide${error ? " wrong" : ""}`}>
      <div class="field-head"><label for="strength">Strength</label><output for="strength">${number(share)}</output></div>
      <input id="strength" name="strength" type="range" min="0.05" max="1" step="0.05" value=${share} aria-describedby="strength-hint" onInput=${(event) => set("strength", event.target.value)} />
      ${error && html`<p class="error">${icons.cross}<span>${error}</span></p>`}
      <p class="hint" id="strength-hint">How much of the video is made anew</p>
    </div>`;
}

/** Whose fault is what: errors by field, and `form` for the rest. What sending said goes before what the plan says. */
function problems(refused, planError, sourceError) {
  const found = {};
  for (const error of [planError, refused]) {
    if (!error) continue;
    const param = SOURCES.includes(error.param) ? "source" : error.param;
    if (param) found[param] = error.message.replace(`${error.param}: `, "");
    else if (error === refused) found.form = error.message;
  }
  if (sourceError) found.source = sourceError;
  const known = ["prompt", "model", "preset", "size", "width", "height", "num_frames", "seconds", "num_inference_steps", "seed", "strength", "source", ...FOLDED];
  // A field that is not in the form must not swallow its message.
  for (const name of Object.keys(found)) if (name !== "form" && !known.includes(name)) found.form ??= found[name];
  return found;
}

/** Whether something takes longer than one waits without wondering. */
function useSlow(isBusy) {
  const [isSlow, setSlow] = useState(false);
  useEffect(() => {
    setSlow(false);
    if (!isBusy) return undefined;
    const timer = setTimeout(() => setSlow(true), 4000);
    return () => clearTimeout(timer);
  }, [isBusy]);
  return isSlow;
}

function slow(task, source) {
  const file = task === "t2v" ? null : source.of(task)?.file;
  return file?.size > 2 ** 20 ? `Still sending ${bytes(file.size)}, or waiting for an answer.` : "The server has not answered yet. Still waiting.";
}

/** Says the verdict once it has stood for a moment; typing must not make it chatter. */
function useSaid({ plan, isBusy }, devices, say) {
  const words = plan && !isBusy ? verdict(plan, devices?.find((one) => one.used && one.memory_bytes)) : "";
  const last = useRef("");
  useEffect(() => {
    if (!words || words === last.current) return undefined;
    const timer = setTimeout(() => {
      if (last.current) say(`Plan: ${words}`);
      last.current = words;
    }, 1200);
    return () => clearTimeout(timer);
  }, [words]);
}

function examples(model, task) {
  if (task === "v2v") return "The same, in winter";
  if (task === "i2v") return "She turns her head and smiles";
  return model?.id === "demo" ? "A red ball moving right" : "A panda plays the guitar in a bamboo forest";
}
