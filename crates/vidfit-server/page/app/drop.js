// Files dropped on the page, wherever that is: a browser opens what a page does not take, and the
// page with all that was typed is gone. Text that is dragged is left to the browser.

import { useEffect, useRef, useState } from "../vendor/htm-preact.js";

const hasFiles = (event) => Boolean(event.dataTransfer?.types.includes("Files"));

/** Keeps the browser from opening what is dropped, also while nothing here takes it. */
export function keepDropsHere() {
  for (const name of ["dragover", "drop"]) {
    addEventListener(name, (event) => hasFiles(event) && event.preventDefault());
  }
}

/** Calls `take` with what is dropped (a DataTransfer), unless a dialog is open; gives whether files are over the page. */
export function useDrop(take) {
  const [isOver, setOver] = useState(false);
  const taker = useRef();
  taker.current = take;
  useEffect(() => {
    const isFree = () => !document.querySelector("dialog[open]");
    const over = (event) => hasFiles(event) && setOver(isFree());
    // Out of the window, not merely from one element to the next.
    const leave = (event) => event.relatedTarget === null && setOver(false);
    const drop = (event) => {
      setOver(false);
      if (hasFiles(event) && isFree()) taker.current(event.dataTransfer);
    };
    const listening = [["dragover", over], ["dragleave", leave], ["drop", drop]];
    for (const [name, heard] of listening) document.addEventListener(name, heard);
    return () => {
      for (const [name, heard] of listening) document.removeEventListener(name, heard);
    };
  }, []);
  return isOver;
}
