// Icons of 16 units, drawn with the text's colour. They are decoration: what they stand beside says it in words.

import { html } from "../vendor/htm-preact.js";

const icon = (content) => html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">${content}</svg>`;
const path = (d) => icon(html`<path d=${d} />`);

export const download = path("M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11");
export const trash = path("M2.5 4.5h11M6 4V2.5h4V4M4 4.5l.6 9h6.8l.6-9M6.7 7v4M9.3 7v4");
export const play = path("M5 3v10l8-5z");
export const pause = path("M5.5 3v10M10.5 3v10");
export const close = path("M3.5 3.5l9 9M12.5 3.5l-9 9");
export const check = path("M3 8.5 6.5 12 13 4.5");
export const warning = path("M8 2 1.5 13.5h13zM8 6.5v3.5M8 11.6v.4");
export const cross = icon(html`<circle cx="8" cy="8" r="6.2" /><path d="M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4" />`);
export const dice = icon(html`<rect x="2.2" y="2.2" width="11.6" height="11.6" rx="2.5" /><path d="M5.5 5.5h.01M10.5 5.5h.01M8 8h.01M5.5 10.5h.01M10.5 10.5h.01" class="dots" />`);
export const text = path("M3 3.5h10M8 3.5v9.5");
export const image = icon(html`<rect x="2" y="3" width="12" height="10" rx="1.5" /><path d="M2.5 11.5 6 8l2.5 2.5L10.5 9l3 3M10.5 6h.01" />`);
export const film = icon(html`<rect x="2" y="3" width="12" height="10" rx="1.5" /><path d="M5 3v10M11 3v10M2 8h3M11 8h3" />`);
export const sun = icon(html`<circle cx="8" cy="8" r="3" /><path d="M8 1.2v1.6M8 13.2v1.6M1.2 8h1.6M13.2 8h1.6M3.2 3.2l1.1 1.1M11.7 11.7l1.1 1.1M12.8 3.2l-1.1 1.1M4.3 11.7l-1.1 1.1" />`);
export const moon = path("M13.5 9.8A6 6 0 0 1 6.2 2.5a6 6 0 1 0 7.3 7.3z");
export const half = icon(html`<circle cx="8" cy="8" r="6" /><path d="M8 2a6 6 0 0 1 0 12z" class="filled" />`);
export const clock = icon(html`<circle cx="8" cy="8" r="6" /><path d="M8 4.5V8l2.5 1.5" />`);
export const more = path("M4 6l4 4 4-4");
