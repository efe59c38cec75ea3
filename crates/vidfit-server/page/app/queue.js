// Jobs that wait or run: how far, what phase, how long still.

import { html, useState } from "../vendor/htm-preact.js";
import * as icons from "./icons.js";
import { about, bytes, capital, count, left, modelName, ordinal, phaseName, shorten } from "./words.js";

/** More than so many would push the videos out of sight. */
const SHOWN = 5;

export function Queue({ jobs, stopping, cancel }) {
  const [isWhole, setWhole] = useState(false);
  if (jobs.length === 0) return null;
  const shown = isWhole ? jobs : jobs.slice(0, SHOWN);
  return html`
    <section class="queue" aria-labelledby="queue-title">
      <h2 id="queue-title" tabindex="-1">Queue <span class="tally">${jobs.length}</span></h2>
      <ul class="queue-list">${shown.map((job) => html`<${Job} key=${job.id} job=${job} isStopping=${stopping.has(job.id)} cancel=${cancel} />`)}</ul>
      ${jobs.length > SHOWN && html`
        <button type="button" class="button small more" aria-expanded=${String(isWhole)} onClick=${() => setWhole(!isWhole)}>
          ${isWhole ? "Show fewer" : `Show ${count(jobs.length - SHOWN, "more job")}`}
        </button>`}
    </section>`;
}

function Job({ job, isStopping, cancel }) {
  const isRunning = job.status === "in_progress";
  return html`
    <li class=${`job ${job.status}`} data-id=${job.id}>
      <div class="job-head">
        <p class="job-prompt" dir="auto" title=${job.prompt}>${job.prompt}</p>
        <button type="button" class="button small" aria-disabled=${isStopping ? "true" : undefined}
          aria-label=${`${isStopping ? "Cancelling" : "Cancel"}: ${shorten(job.prompt)}`} onClick=${() => isStopping || cancel(job)}>${isStopping ? "Cancelling…" : "Cancel"}</button>
      </div>
      ${isRunning ? html`<${Progress} job=${job} />` : html`
        <p class="job-state">${icons.clock}<span>${place(job)}</span><span class="hint">${job.plan ? `${bytes(job.plan.peak_bytes)}, ${about(job.plan.seconds)}` : ""}</span></p>`}
      <p class="hint">${modelName(job.model)} · ${job.width}×${job.height} · ${job.num_frames} frames · ${job.num_inference_steps} steps · seed ${job.seed}</p>
      <${Warnings} job=${job} />
    </li>`;
}

export function Warnings({ job }) {
  // Why a job waits for the machine may stand among its warnings, too.
  const warnings = [...new Set([...(job.status === "queued" && job.waiting ? [job.waiting] : []), ...(job.warnings ?? [])])];
  return warnings.length > 0 && html`
    <ul class="warnings">${warnings.map((warning) => html`<li key=${warning}>${icons.warning}<span title=${warning}>${capital(warning)}</span></li>`)}</ul>`;
}

function place(job) {
  if (!job.position) return "Waiting";
  return job.position === 1 ? "Next in the queue" : `${ordinal(job.position)} in the queue`;
}

/** One bar for each phase, as wide as its share of the planned time (but never too narrow to see). */
function Progress({ job }) {
  const phases = phasesOf(job);
  const here = phases.findIndex((phase) => phase.name === job.phase);
  const state = job.phase ? phaseName(job.phase) : "Starting";
  const step = job.steps ? `step ${job.step ?? 0} of ${job.steps}` : "";
  const time = job.seconds_left === null || job.seconds_left === undefined ? "" : left(job.seconds_left);
  const says = [state, step, `${job.progress} %`, time].filter(Boolean).join(", ");
  return html`
    <div class="progress" role="progressbar" aria-label=${`Progress: ${shorten(job.prompt)}`} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${job.progress} aria-valuetext=${says}>
      ${phases.map((phase, index) => html`
        <span key=${phase.name} class=${`step ${index < here ? "past" : index === here ? "now" : "next"}`} style=${{ flexGrow: phase.share }}>
          <span class="track"><span class=${`fill${index === here && !job.steps ? " going" : ""}`} style=${{ transform: `scaleX(${index < here ? 1 : index === here ? within(job) : 0})` }}></span></span>
          <span class="step-name" aria-hidden="true">${phaseName(phase.name)}</span>
        </span>`)}
    </div>
    <p class="job-state"><b>${state}</b>${step && html`<span>${step}</span>`}<span>${job.progress} %</span><span class="time-left">${time}</span></p>`;
}

function phasesOf(job) {
  const planned = job.plan?.phases;
  if (!planned?.length) {
    const names = job.task === "t2v" ? ["text", "denoise", "decode"] : ["text", "encode", "denoise", "decode"];
    return names.map((name) => ({ name, share: name === "denoise" ? 6 : 1 }));
  }
  const whole = planned.reduce((sum, phase) => sum + phase.seconds, 0) || 1;
  return planned.map((phase) => ({ name: phase.name, share: Math.max(0.12, phase.seconds / whole) }));
}

/** How far the phase is that runs, where it counts steps. */
function within(job) {
  return job.steps ? Math.min(1, (job.step ?? 0) / job.steps) : 1;
}
