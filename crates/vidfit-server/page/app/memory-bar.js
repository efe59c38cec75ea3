// The card as a bar: what others hold, what the driver takes, what this job would, what stays free.
// Each part differs in pattern and stands in the legend with its number, so colour is not needed to read it.

import { html } from "../vendor/htm-preact.js";
import { bytes, capital } from "./words.js";

/** `device` is one of /v1/gpus, if it is the one that the plan is for. */
export function MemoryBar({ plan, device, running }) {
  const total = device?.memory_bytes ?? plan.free_bytes;
  const held = Math.max(0, total - plan.free_bytes);
  const arena = Math.min(held, running?.plan?.peak_bytes ?? 0);
  const others = held - arena;
  const budget = plan.budget_bytes + plan.overhead_bytes;
  const kept = Math.max(0, plan.free_bytes - budget);
  const over = Math.max(0, plan.peak_bytes - plan.budget_bytes);
  const free = Math.max(0, plan.budget_bytes - plan.peak_bytes);
  const parts = [
    ["others", "Held by others", others],
    ["arena", "Held by the running job", arena],
    ["driver", "Driver", plan.overhead_bytes],
    ["job", "This job", plan.peak_bytes - over],
    ["over", "Too much", over],
    ["free", "Free", free],
    ["kept", "Kept free", kept],
  ].filter(([, , size]) => size > 0);
  const all = Math.max(total, parts.reduce((sum, [, , size]) => sum + size, 0));
  const says = parts.map(([, label, size]) => `${label.toLowerCase()} ${bytes(size)}`).join(", ");
  const card = capital((device?.name ?? plan.device).replace(/^the /, ""));
  return html`
    <div class="memory">
      <div class="bar" role="img" aria-label=${`Memory of ${card}, ${bytes(total)}: ${says}`}>
        ${parts.map(([kind, , size]) => html`<span key=${kind} class=${`part ${kind}`} style=${{ flexGrow: size / all }}></span>`)}
      </div>
      <ul class="legend" aria-hidden="true">
        ${parts.map(([kind, label, size]) => html`<li key=${kind}><span class=${`swatch part ${kind}`}></span>${label} <b>${bytes(size)}</b></li>`)}
        <li class="card-size">${card} <b>${bytes(total)}</b></li>
      </ul>
    </div>`;
}
