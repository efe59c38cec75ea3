// Dialogs, as the browser's own <dialog>: it keeps the focus in, gives it back, and closes on Escape.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { Actions } from "./gallery.js";
import * as icons from "./icons.js";
import { Warnings } from "./queue.js";
import { bytes, duration, modelName, number, phaseName, shorten, taskName, when } from "./words.js";

function Dialog({ title, shut, wide, children }) {
  const dialog = useRef();
  useLayoutEffect(() => {
    dialog.current.showModal();
    return () => dialog.current?.close();
  }, []);
  // Browsers close it at the second Escape, whatever is done at the first.
  const closed = () => {
    if (!dialog.current) return;
    if (shut) shut();
    else dialog.current.showModal();
  };
  const outside = (event) => event.target === dialog.current && shut?.();
  return html`
    <dialog ref=${dialog} class=${wide ? "wide" : ""} aria-labelledby="dialog-title" onCancel=${(event) => { event.preventDefault(); shut?.(); }} onClose=${closed} onClick=${outside}>
      <div class="dialog-inside">
        <div class="dialog-head"><h2 id="dialog-title">${title}</h2>${shut && html`<button type="button" class="button icon-only quiet" aria-label="Close" onClick=${shut}>${icons.close}</button>`}</div>
        ${children}
      </div>
    </dialog>`;
}

/** `{ title, text, yes, no, act }`: `act` is done if one says yes. */
export function Confirm({ question, shut }) {
  const { title, text, yes, no, act } = question;
  return html`
    <${Dialog} title=${title} shut=${shut}>
      <p>${text}</p>
      <div class="dialog-actions">
        <button type="button" class="button" autofocus onClick=${shut}>${no}</button>
        <button type="button" class="button danger" onClick=${() => { shut(); act(); }}>${yes}</button>
      </div>
    <//>`;
}

export function Token({ done }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState(null);
  const input = useRef();
  useEffect(() => input.current.focus(), []);
  const send = async (event) => {
    event.preventDefault();
    try {
      await api.signIn(token.trim());
      done();
    } catch (refusal) {
      setError(refusal.status === 401 ? "That is not the token." : refusal.message);
      input.current.select();
    }
  };
  return html`
    <${Dialog} title="This server needs a token">
      <form onSubmit=${send}>
        <div class=${`field${error ? " wrong" : ""}`}>
          <div class="field-head"><label for="token">Token</label></div>
          <input ref=${input} id="token" autofocus type="password" autocomplete="current-password" value=${token} aria-describedby="token-hint" aria-invalid=${error ? "true" : undefined} onInput=${(event) => setToken(event.target.value)} />
          ${error && html`<p class="error" role="alert">${icons.cross}<span>${error}</span></p>`}
          <p class="hint" id="token-hint">Whoever started vidfit serve knows it. It stays in this browser until you sign out.</p>
        </div>
        <div class="dialog-actions"><button type="submit" class="button primary">Sign in</button></div>
      </form>
    <//>`;
}

export function Detail({ job, act, shut }) {
  const { report, plan } = job;
  const planned = report?.planned_peak_bytes ?? plan?.peak_bytes;
  const measured = report?.measured_peak_bytes;
  return html`
    <${Dialog} title=${taskName(job.task)} wide shut=${shut}>
      <div class="detail">
        <video class="detail-video" src=${api.content(job)} poster=${api.content(job, "thumbnail")} style=${{ aspectRatio: `${job.width} / ${job.height}` }} controls loop muted playsinline autoplay=${!matchMedia("(prefers-reduced-motion: reduce)").matches} aria-label=${shorten(job.prompt, 200)}></video>
        <div class="detail-facts">
          <${Prompt} job=${job} />
          <dl>
            <${Fact} name="Model" value=${modelName(job.model)} />
            <${Fact} name="Size" value=${`${job.width}×${job.height} pixels`} />
            <${Fact} name="Length" value=${`${job.num_frames} frames, ${number(job.num_frames / job.fps, 1)} s at ${number(job.fps)} fps`} />
            <${Fact} name="Steps" value=${`${job.num_inference_steps}${job.preset ? `, preset ${job.preset.replaceAll("_", " ")}` : ""}`} />
            <${Fact} name="Guidance" value=${number(job.guidance_scale)} />
            ${job.task === "v2v" && job.strength !== null && html`<${Fact} name="Strength" value=${number(job.strength)} />`}
            ${job.lora && html`<${Fact} name="LoRA" value=${[job.lora].flat().join(", ")} />`}
            <${Fact} name="Seed" value=${job.seed} />
            ${planned && html`<${Fact} name="Memory planned" value=${bytes(planned)} />`}
            ${measured && html`<${Fact} name="Memory used" value=${measured === planned ? `${bytes(measured)}, to the byte as planned` : bytes(measured)} />`}
            ${report?.seconds && html`<${Fact} name="Time" value=${times(report.seconds)} />`}
            <${Fact} name="Made" value=${when(job.completed_at ?? job.created_at)} />
          </dl>
          <${Warnings} job=${job} />
          <${Actions} job=${job} act=${act} />
        </div>
      </div>
    <//>`;
}

/** More than so many letters of a prompt are folded: a page of them would push all else out of sight. */
const LONG = 320;

function Prompt({ job }) {
  const [isWhole, setWhole] = useState(false);
  const isLong = job.prompt.length + (job.negative_prompt?.length ?? 0) > LONG;
  const clamp = isLong && !isWhole ? " clamped" : "";
  return html`
    <p class=${`detail-prompt${clamp}`} dir="auto">${job.prompt}</p>
    ${job.negative_prompt && html`<p class=${`hint${clamp}`}>Not: <bdi>${job.negative_prompt}</bdi></p>`}
    ${isLong && html`<button type="button" class="button small fold" aria-expanded=${String(isWhole)} onClick=${() => setWhole(!isWhole)}>${isWhole ? "Show less" : "Show the whole prompt"}</button>`}`;
}

function Fact({ name, value }) {
  return html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
}

const ORDER = ["text", "encode", "denoise", "decode"];

function times(seconds) {
  const names = Object.keys(seconds).sort((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b));
  const whole = names.reduce((sum, name) => sum + seconds[name], 0);
  return `${duration(whole)} (${names.map((name) => `${phaseName(name).toLowerCase()} ${duration(seconds[name])}`).join(", ")})`;
}
