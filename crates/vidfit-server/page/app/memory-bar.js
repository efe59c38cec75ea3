// The card as a bar: what others hold, what the driver takes, what this job would, what stays free.
// Each part differs in pattern and stands in the legend with its number, so colour is not needed to read it.

import { html } from "../vendor/htm-preact.js";
import { bytes, capital } from "./words.js";

function cardName(device) {
  if (device === "the CPU") return "RAM";
  return device.startsWith("sim:") ? "Simulated card" : capital(device);
}

/** `device` is the one of /v1/gpus that jobs run on. A plan counts what a running job gives back as free. */
export function MemoryBar({ plan, device, running }) {
  const total = device?.memory_bytes ?? plan.free_bytes;
  const others = Math.max(0, total - plan.free_bytes);
  const budget = plan.budget_bytes + plan.overhead_bytes;
  const kept = Math.max(0, plan.free_bytes - budget);
  const over = Math.max(0, plan.peak_bytes - plan.budget_bytes);
  const free = Math.max(0, plan.budget_bytes - plan.peak_bytes);
  const parts = [
    ["others", "Held by others", others],
    ["driver", "Driver", plan.overhead_bytes],
    ["job", "This job", plan.peak_bytes - over],
    ["over", "Too much", over],
    ["free", "Free", free],
    ["kept", "Kept free", kept],
  ].filter(([, , size]) => size > 0);
  const all = Math.max(total, parts.reduce((sum, [, , size]) => sum + size, 0));
  const says = parts.map(([, label, size]) => `${label.toLowerCase()} ${bytes(size)}`).join(", ");
  const card = cardName(plan.device);
  return html`
    <div class="memory">
      <div class="bar" role="img" aria-label=${`Memory of ${card}, ${bytes(total)}: ${says}`}>
        ${parts.map(([kind, , size]) => html`<span key=${kind} class=${`part of-${kind}`} style=${{ flexGrow: size / all }}></span>`)}
      </div>
      <ul class="legend" aria-hidden="true">
        ${parts.map(([kind, label, size]) => html`<li key=${kind}><span class=${`swatch part of-${kind}`}></span>${label} <b>${bytes(size)}</b></li>`)}
        <li class="card-size">${card} <b>${bytes(total)}</b></li>
      </ul>
      ${device?.held_bytes > 0 && html`<p class="hint">${running ? `The job that runs holds ${bytes(device.held_bytes)} and gives it back before this one starts.` : `${bytes(device.held_bytes)} of weights are kept warm.`}</p>`}
    </div>`;
}
