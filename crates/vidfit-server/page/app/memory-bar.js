// The card as a bar: what others hold, what the driver takes, what this job would, what stays free.
// While a job runs or weights are kept warm, another bar shows how it is now.
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
  const card = cardName(plan.device);
  const now = device?.held_bytes > 0 && device.free_bytes !== null && device.free_bytes !== undefined;
  return html`
    <div class="memory">
      ${now && html`<${Now} card=${card} device=${device} running=${running} />`}
      <${Bar} title=${now && "With this job"} of=${`Memory of ${card}, ${bytes(total)}`} parts=${parts} total=${total}>
        <li class="card-size">${card} <b>${bytes(total)}</b></li>
      <//>
    </div>`;
}

function Now({ card, device, running }) {
  const { memory_bytes: total, free_bytes: free, held_bytes: held } = device;
  const parts = [
    ["others", "In use otherwise", Math.max(0, total - free - held)],
    ["running", running ? "Running job" : "Warm weights", held],
    ["free", "Free", free],
  ].filter(([, , size]) => size > 0);
  return html`
    <${Bar} title="Now" of=${`Memory of ${card} now`} parts=${parts} total=${total} />
    <p class="hint">${running ? "The job that runs gives its memory back before this one starts." : "The weights are kept warm for the next job."}</p>`;
}

/** `parts` are `[kind, label, bytes]`. */
function Bar({ title, of, parts, total, children }) {
  const all = Math.max(total, parts.reduce((sum, [, , size]) => sum + size, 0));
  const says = parts.map(([, label, size]) => `${label.toLowerCase()} ${bytes(size)}`).join(", ");
  return html`
    ${title && html`<p class="bar-title" aria-hidden="true">${title}</p>`}
    <div class="bar" role="img" aria-label=${`${of}: ${says}`}>
      ${parts.map(([kind, , size]) => html`<span key=${kind} class=${`part of-${kind}`} style=${{ flexGrow: size / all }}></span>`)}
    </div>
    <ul class="legend" aria-hidden="true">
      ${parts.map(([kind, label, size]) => html`<li key=${kind}><span class=${`swatch part of-${kind}`}></span>${label} <b>${bytes(size)}</b></li>`)}
      ${children}
    </ul>`;
}
