// A plan in plain language: what the job takes of what there is, how long, what it changes of the
// picture; and if it does not fit, what would.

import { html } from "../vendor/htm-preact.js";
import * as icons from "./icons.js";
import { MemoryBar } from "./memory-bar.js";
import { about, bytes, capital, duration, modelName, phaseName } from "./words.js";

const SURE = {
  guess: "The time is a guess, and may be wrong by a factor of three.",
  catalogue: "The time comes from the card's published rates; a third more or less is well possible.",
};

export function PlanView({ state, devices, running, take }) {
  const { plan, near, isLooking, error, isBusy } = state;
  if (error) return html`<${Panel} busy=${isBusy}><${NoPlan} error=${error} /><//>`;
  if (!plan) return html`<${Panel} busy><p class="verdict hint">Planning…</p><div class="bar skeleton"></div><//>`;
  const device = devices?.find((one) => one.used && one.memory_bytes);
  return html`
    <${Panel} busy=${isBusy}>
      ${plan.fits ? html`<${Fits} plan=${plan} device=${device} />` : html`<${TooMuch} plan=${plan} near=${near} isLooking=${isLooking} take=${take} />`}
      <${MemoryBar} plan=${plan} device=${device} running=${running} />
      ${plan.fits && html`<${Picture} plan=${plan} />`}
      <${Details} plan=${plan} />
    <//>`;
}

function Panel({ busy, children }) {
  return html`<section class=${`plan${busy ? " busy" : ""}`} id="plan" tabindex="-1" aria-label="Plan" aria-busy=${String(Boolean(busy))}>${children}</section>`;
}

/** What the plan says in one sentence, also for the live region. */
export function verdict(plan, device) {
  if (!plan.fits) return `Does not fit: needs ${bytes(plan.peak_bytes)}, ${bytes(plan.budget_bytes)} may be used.`;
  const whole = device?.memory_bytes ?? plan.budget_bytes;
  return `${bytes(plan.peak_bytes)} of your ${bytes(whole)}, ${about(plan.seconds)}`;
}

/** The same, where there is no room for more. */
export function brief(plan) {
  return plan.fits ? `${bytes(plan.peak_bytes)}, ${about(plan.seconds)}` : "Does not fit";
}

function Fits({ plan, device }) {
  const whole = device?.memory_bytes ?? plan.budget_bytes;
  return html`
    <p class="verdict">
      <span class="state good">${icons.check}Fits</span>
      <span class="figures"><b>${bytes(plan.peak_bytes)}</b> of your ${bytes(whole)}, <b>${about(plan.seconds)}</b></span>
    </p>`;
}

function TooMuch({ plan, near, isLooking, take }) {
  return html`
    <p class="verdict">
      <span class="state bad">${icons.cross}Does not fit</span>
      <span class="figures">needs at least <b>${bytes(plan.peak_bytes)}</b>, <b>${bytes(plan.budget_bytes)}</b> may be used</span>
    </p>
    <div class="near" id="near">
      ${isLooking && html`<p class="hint">Looking for the nearest that fits…</p>`}
      ${!isLooking && near.length === 0 && html`<p class="hint">Nothing near it fits either. Try a smaller model.</p>`}
      ${near.length > 0 && html`
        ${!isLooking && html`<p class="hint">These would fit:</p>`}
        <ul>${near.map((one) => html`
          <li key=${one.what}><button type="button" class="offer" onClick=${() => take(one.fields)}>
            <b>${one.isModel ? modelName(one.what) : one.what}</b><span>${[bytes(one.peak_bytes), about(one.seconds), ...(one.changes ?? [])].join(", ")}</span>
          </button></li>`)}
        </ul>`}
    </div>`;
}

function Picture({ plan }) {
  const untiled = plan.rejected.find((other) => other.what.includes("without tiles"));
  if (plan.changes_picture.length === 0) return html`<p class="hint">The picture is made as asked.</p>`;
  return html`
    <div class="notice">${icons.warning}<div>
      <p><b>This changes the picture:</b> ${plan.changes_picture.join("; ")}.</p>
      ${untiled && html`<p class="hint">Without tiling: ${bytes(untiled.peak_bytes)}, more than may be used.</p>`}
    </div></div>`;
}

function Details({ plan }) {
  const { video } = plan;
  return html`
    <details class="phases">
      <summary>Phases and placement</summary>
      <div class="scroll" tabindex="0" role="region" aria-label="Phases of the plan"><table>
        <thead><tr><th scope="col">Phase</th><th scope="col">Memory</th><th scope="col">Time</th><th scope="col">Uploads</th></tr></thead>
        <tbody>${plan.phases.map((phase) => html`
          <tr key=${phase.name}><th scope="row">${phaseName(phase.name)}</th><td>${bytes(phase.peak_bytes)}</td><td>${duration(phase.seconds)}</td><td>${bytes(phase.uploaded_bytes)}</td></tr>`)}
        </tbody>
      </table></div>
      <ul class="facts">
        <li>${video.frames} frames of ${video.width}×${video.height}, ${video.steps} steps in ${video.dtype}</li>
        <li>${capital(weights(plan.placement))}</li>
        <li>RAM: ${bytes(plan.ram_peak_bytes)} of ${bytes(plan.ram_bytes)}</li>
        ${SURE[plan.certainty] && html`<li>${SURE[plan.certainty]}</li>`}
      </ul>
    </details>`;
}

function weights({ strategy, resident_percent, slots }) {
  if (strategy === "in place") return "weights are used where they lie";
  if (resident_percent >= 100) return "the transformer is whole on the device while it works";
  const streams = slots > 1 ? "copied while others compute" : "each when it is used";
  if (resident_percent < 1) return `the transformer streams through ${slots} ${slots === 1 ? "slot" : "slots"}, ${streams}`;
  return `${Math.round(resident_percent)} % of the transformer stays on the device, the rest streams, ${streams}`;
}

function NoPlan({ error }) {
  const said = error.param ? "Something in the form is not right yet; see the field." : error.message;
  return html`<p class="verdict"><span class="state bad">${icons.cross}No plan</span><span class="figures">${said}</span></p>`;
}
