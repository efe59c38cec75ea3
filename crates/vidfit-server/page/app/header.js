// The page's head: what this is, what it computes on, how the line to the server is, and the theme.

import { html, useState } from "../vendor/htm-preact.js";
import * as icons from "./icons.js";
import { bytes, capital } from "./words.js";

const LINES = {
  connecting: "Connecting…",
  polling: "No live updates; asking every 2 s",
  failing: "The server reports a fault; trying again",
  lost: "The server does not answer; trying again",
};

export function Header({ devices, line, isSignedIn, signOut }) {
  const device = devices?.find((one) => one.used);
  return html`
    <header class="head">
      <a class="brand" href="./" aria-label="vidfit, new start">
        <svg viewBox="0 0 32 32" aria-hidden="true"><rect x="2.5" y="5.5" width="27" height="21" rx="4.5" /><circle cx="20" cy="16" r="6" /></svg>
        <h1>vidfit</h1>
      </a>
      <p class="device">${device && html`<b>${capital(device.name.replace(/^the /, ""))}</b><span class="hint">${free(device)}</span>`}</p>
      <p class="line" role="status">${LINES[line] && html`${icons.warning}<span>${LINES[line]}</span>`}</p>
      <nav class="head-links" aria-label="More">
        <a href="/docs/">API</a>
        ${isSignedIn && html`<button type="button" class="button small quiet" onClick=${signOut}>Sign out</button>`}
        <${Theme} />
      </nav>
    </header>`;
}

function free({ memory_bytes: all, free_bytes: now }) {
  if (!all) return "";
  return now === null || now === undefined ? bytes(all) : `${bytes(now)} of ${bytes(all)} free`;
}

const THEMES = ["", "light", "dark"];
const NAMES = { "": "the system's", light: "light", dark: "dark" };
const ICONS = { "": icons.half, light: icons.sun, dark: icons.moon };

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "");
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const change = () => {
    setTheme(next);
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("vidfit.theme", next);
    } catch {
      // It lasts until the page is closed, then.
    }
  };
  return html`<button type="button" class="button icon-only quiet" aria-label=${`Theme: ${NAMES[theme]}. Change to ${NAMES[next]}`} title=${`Theme: ${NAMES[theme]}`} onClick=${change}>${ICONS[theme]}</button>`;
}
