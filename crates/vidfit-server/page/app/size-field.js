// The video's size: the model's own and what comes of it, or any.

import { html, useState } from "../vendor/htm-preact.js";
import { Field, SelectField } from "./fields.js";

const CUSTOM = "custom";

/** Sizes of the model's shape and of others, each of multiples of 16 pixels. */
function sizes({ width, height }) {
  const round = (pixels) => Math.max(16, Math.round(pixels / 16) * 16);
  const choices = [[round(width * 0.75), round(height * 0.75), "smaller"], [round(width / 2), round(height / 2), "half"]];
  if (width !== height) choices.push([height, width, width > height ? "upright" : "wide"], [Math.min(width, height), Math.min(width, height), "square"]);
  return choices;
}

export function SizeField({ draft, model, errors, take }) {
  const chosen = draft.width || draft.height ? `${draft.width}x${draft.height}` : "";
  const choices = model ? sizes(model).map(([w, h, word]) => [`${w}x${h}`, `${w}×${h}, ${word}`]) : [];
  const [wantsOwn, setWantsOwn] = useState(false);
  const isCustom = wantsOwn || (chosen !== "" && !choices.some(([value]) => value === chosen));
  const error = errors.size ?? errors.width ?? errors.height;
  const choose = (_, value) => {
    setWantsOwn(value === CUSTOM);
    if (value === CUSTOM) return take({ width: draft.width || String(model?.width ?? ""), height: draft.height || String(model?.height ?? "") });
    const [width = "", height = ""] = value.split("x");
    return take({ width, height });
  };
  const own = model ? `${model.width}×${model.height}` : "The model's";
  const options = [["", own], ...choices, [CUSTOM, "Other…"]];
  return html`
    <${SelectField} name="size" label="Size" value=${isCustom ? CUSTOM : chosen} set=${choose} options=${options} error=${isCustom ? null : error} />
    ${isCustom && html`<${Field} name="width" label="Width × height" hint="Multiples of 16 pixels" error=${error} control=${(attributes) => html`
      <span class="pair">
        <input ...${attributes} type="number" min="16" step="16" value=${draft.width} aria-label="Width in pixels" onInput=${(event) => take({ width: event.target.value })} />
        <span aria-hidden="true">×</span>
        <input ...${attributes} id="height" name="height" type="number" min="16" step="16" value=${draft.height} aria-label="Height in pixels" onInput=${(event) => take({ height: event.target.value })} />
      </span>`} />`}`;
}
