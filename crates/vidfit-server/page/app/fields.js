// Fields: a label, what is typed, a hint, and the server's words where it refuses what was typed.

import { html } from "../vendor/htm-preact.js";
import * as icons from "./icons.js";

/** Wraps `control(attributes)` with its label, hint and error. */
export function Field({ name, label, hint, error, aside, wide, control }) {
  const described = [error && `${name}-error`, hint && `${name}-hint`].filter(Boolean).join(" ");
  const attributes = { id: name, name, "aria-describedby": described || undefined, "aria-invalid": error ? "true" : undefined };
  return html`
    <div class=${`field${wide ? " wide" : ""}${error ? " wrong" : ""}`}>
      <div class="field-head"><label for=${name}>${label}</label>${aside}</div>
      ${control(attributes)}
      ${error && html`<p class="error" id=${`${name}-error`}>${icons.cross}<span>${error}</span></p>`}
      ${hint && html`<p class="hint" id=${`${name}-hint`}>${hint}</p>`}
    </div>`;
}

/** A number that may be left to the model: its own stands there greyed. */
export function NumberField({ value, own, set, min, max, step = "any", suffix, ...field }) {
  return html`<${Field} ...${field} control=${(attributes) => html`
    <span class="number">
      <input ...${attributes} type="number" inputmode="decimal" autocomplete="off" min=${min} max=${max} step=${step} value=${value}
        placeholder=${own ?? ""} onInput=${(event) => set(field.name, event.target.value)} />
      ${suffix}
    </span>`} />`;
}

export function TextField({ value, set, placeholder, rows, ...field }) {
  return html`<${Field} ...${field} control=${(attributes) => (rows
    ? html`<textarea ...${attributes} dir="auto" rows=${rows} value=${value} placeholder=${placeholder} onInput=${(event) => set(field.name, event.target.value)}></textarea>`
    : html`<input ...${attributes} type="text" autocomplete="off" spellcheck=${false} value=${value} placeholder=${placeholder} onInput=${(event) => set(field.name, event.target.value)} />`)} />`;
}

/** `options` are `[value, words]`. */
export function SelectField({ value, set, options, ...field }) {
  return html`<${Field} ...${field} control=${(attributes) => html`
    <span class="select">
      <select ...${attributes} value=${value} onChange=${(event) => set(field.name, event.target.value)}>
        ${options.map(([option, words]) => html`<option key=${option} value=${option} selected=${option === value}>${words}</option>`)}
      </select>${icons.more}
    </span>`} />`;
}
