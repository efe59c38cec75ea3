// Tabs as WAI-ARIA's pattern has them: one stop for the Tab key, arrows, Home and End go from one to the next.

import { html, useRef } from "../vendor/htm-preact.js";
import * as icons from "./icons.js";
import { taskName } from "./words.js";

const ICONS = { t2v: icons.text, i2v: icons.image, v2v: icons.film };
const SHORT = { t2v: "Text", i2v: "Image", v2v: "Video" };

export function Tabs({ tasks, chosen, choose }) {
  const list = useRef();
  const move = (event) => {
    const here = tasks.indexOf(chosen);
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: tasks.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const task = tasks[(to + tasks.length) % tasks.length];
    choose(task);
    list.current.querySelector(`#tab-${task}`).focus();
  };
  return html`
    <div class="tabs" role="tablist" aria-label="What the video starts from" ref=${list} onKeyDown=${move}>
      ${tasks.map((task) => html`
        <button key=${task} type="button" role="tab" id=${`tab-${task}`} aria-controls="composer" aria-label=${taskName(task)}
          aria-selected=${String(task === chosen)} tabindex=${task === chosen ? 0 : -1} onClick=${() => choose(task)}>
          ${ICONS[task]}<span>${SHORT[task]}<span class="tab-rest"> to video</span></span>
        </button>`)}
    </div>`;
}
