// What was made, newest first; and what failed or was cancelled, until it is deleted.

import { html, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { Clip } from "./clip.js";
import * as icons from "./icons.js";
import { modelName, number, shorten, when } from "./words.js";

export function Gallery({ jobs, isLoaded, hasMore, more, act }) {
  return html`
    <section class="gallery" aria-labelledby="gallery-title" aria-busy=${String(!isLoaded)}>
      <h2 id="gallery-title" tabindex="-1">Videos ${jobs.length > 0 && html`<span class="tally">${jobs.length}${hasMore ? "+" : ""}</span>`}</h2>
      ${!isLoaded && html`<div class="tiles"><span class="unseen">Loading</span>${[1, 2, 3].map((n) => html`<div key=${n} class="tile ghost"><div class="clip skeleton"></div></div>`)}</div>`}
      ${isLoaded && jobs.length === 0 && html`<${Empty} />`}
      <ul class="tiles">${jobs.map((job) => html`<${Tile} key=${job.id} job=${job} act=${act} />`)}</ul>
      ${hasMore && html`<${More} more=${more} />`}
    </section>`;
}

function Empty() {
  return html`
    <div class="empty">
      <svg viewBox="0 0 120 72" aria-hidden="true"><rect x="2" y="2" width="116" height="68" rx="8" /><circle cx="22" cy="36" r="9" class="ghost-ball far" /><circle cx="50" cy="36" r="9" class="ghost-ball" /><circle cx="88" cy="36" r="11" class="ball" /></svg>
      <p><b>No videos yet</b></p>
      <p class="hint">Describe one, look at what it will take, and start it. It will be here when it is done, also after the page was closed.</p>
    </div>`;
}

function Tile({ job, act }) {
  const isDone = job.status === "completed";
  return html`
    <li class=${`tile ${job.status}`} data-id=${job.id}>
      ${isDone ? html`<${Clip} job=${job} open=${() => act.open(job)} />` : html`<${Stopped} job=${job} />`}
      <div class="tile-body">
        <p class="tile-prompt" dir="auto" title=${job.prompt}>${job.prompt}</p>
        <p class="hint">${settings(job)}</p>
        <p class="hint">${modelName(job.model)} · <time datetime=${new Date(job.created_at * 1000).toISOString()}>${when(job.created_at)}</time></p>
        <${Actions} job=${job} act=${act} />
      </div>
    </li>`;
}

function settings(job) {
  return `${job.width}×${job.height} · ${number(job.num_frames / job.fps, 1)} s · ${job.num_inference_steps} steps · seed ${job.seed}`;
}

function Stopped({ job }) {
  const isFailed = job.status === "failed";
  return html`
    <div class="stopped">
      <p class=${`state ${isFailed ? "bad" : "plain"}`}>${isFailed ? icons.warning : icons.cross}${isFailed ? "Failed" : "Cancelled"}${job.progress > 0 && ` at ${job.progress} %`}</p>
      ${job.error && html`<p class="stopped-why">${job.error.message}</p>`}
    </div>`;
}

export function Actions({ job, act }) {
  const name = shorten(job.prompt);
  return html`
    <div class="tile-actions">
      ${job.status === "completed" && html`
        <a class="button small" href=${api.content(job)} download=${`${fileName(job)}.mp4`} aria-label=${`Download MP4: ${name}`}>${icons.download}MP4</a>
        <a class="button small" href=${api.content(job, "gif")} download=${`${fileName(job)}.gif`} aria-label=${`Download GIF: ${name}`}>${icons.download}GIF</a>`}
      <button type="button" class="button small" aria-label=${`Reuse the settings of: ${name}`} title="Copies its settings into the form" onClick=${() => act.reuse(job)}>Reuse</button>
      <button type="button" class="button small quiet push" aria-label=${`Delete: ${name}`} title="Delete" onClick=${() => act.remove(job)}>${icons.trash}</button>
    </div>`;
}

function fileName(job) {
  const words = job.prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 48);
  return `${words || "video"}-${job.seed}`;
}

function More({ more }) {
  const [isBusy, setBusy] = useState(false);
  const load = async () => {
    setBusy(true);
    await more().catch(() => {});
    setBusy(false);
  };
  return html`<button type="button" class="button more" aria-disabled=${isBusy ? "true" : undefined} onClick=${load}>${isBusy ? "Loading…" : "Show older videos"}</button>`;
}
