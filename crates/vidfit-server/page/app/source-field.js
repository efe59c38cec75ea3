// Where an image or a video is dropped, pasted or chosen, and shown.

import { html, useEffect, useRef } from "../vendor/htm-preact.js";
import * as icons from "./icons.js";
import { accepted, fileOf } from "./source.js";
import { bytes } from "./words.js";

/** `isOver` says that files are dragged over the page. */
export function SourceField({ task, source, isOver, error, refuse }) {
  const input = useRef();
  const chosen = source.of(task);
  const note = source.note(task);
  const { accept, formats } = accepted(task);
  const noun = task === "i2v" ? "image" : "video";
  const take = (file) => file && refuse(source.choose(task, file));

  useEffect(() => {
    const paste = (event) => {
      const file = fileOf(event.clipboardData, task);
      if (!file) return;
      event.preventDefault();
      take(file);
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, [task]);

  const choose = (event) => {
    take(event.target.files[0]);
    // The same file may be chosen again, once it is another.
    event.target.value = "";
  };
  const clear = () => {
    source.clear(task);
    refuse(null);
    input.current.focus();
  };
  const describedBy = ["source-hint", error && "source-error"].filter(Boolean).join(" ");
  return html`
    <div class=${`field wide source-field${error ? " wrong" : ""}`}>
      <div class="field-head"><label for="source">${task === "i2v" ? "Image to start from" : "Video to start from"}</label></div>
      <div class=${`drop${isOver ? " over" : ""}${chosen ? " filled" : ""}`}>
        ${chosen ? html`<${Preview} chosen=${chosen} noun=${noun} />` : html`<span class="drop-icon">${task === "i2v" ? icons.image : icons.film}</span>`}
        <div class="drop-words">
          ${chosen
            ? html`<p class="file-name">${chosen.file.name || `Pasted ${noun}`}</p><p class="hint" id="source-hint">${bytes(chosen.file.size)}</p>`
            : html`<p>${note ?? `Drop or paste ${task === "i2v" ? "an" : "a"} ${noun}`}</p><p class="hint" id="source-hint">${formats}. It is stretched to the video's size.</p>`}
          <div class="row">
            <span class="button small file-button">${chosen ? "Choose another" : "Choose a file"}
              <input ref=${input} id="source" type="file" accept=${accept} aria-describedby=${describedBy} aria-invalid=${error ? "true" : undefined}
                onChange=${choose} />
            </span>
            ${chosen && html`<button type="button" class="button small quiet" onClick=${clear}>Remove</button>`}
          </div>
        </div>
      </div>
      ${error && html`<p class="error" id="source-error">${icons.cross}<span>${error}</span></p>`}
    </div>`;
}

function Preview({ chosen, noun }) {
  return chosen.isVideo
    ? html`<video class="preview" src=${chosen.url} muted playsinline controls preload="metadata" aria-label=${`Preview of the ${noun}`}></video>`
    : html`<img class="preview" src=${chosen.url} alt=${`Preview of the ${noun}`} />`;
}
