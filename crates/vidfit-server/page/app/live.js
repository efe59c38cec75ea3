// Every change of every job, as it happens: server-sent events, and while those do not come,
// the list every few seconds. Whoever was away (asleep, offline, the server restarted) asks for
// the list once on the way back, as events may have been missed.
//
// A stream holds a connection, and browsers open six to a server at most, for all tabs together. So
// a page that nobody looks at lets its stream go and asks for the list now and then (its title
// tells of progress), and one that was left does nothing, even if the browser keeps it for "back".

import * as api from "./api.js";

const POLL_MS = 2000;
const HIDDEN_POLL_MS = 10000;
const LONGEST_WAIT_MS = 15000;

/**
 * Calls `on.list`, `on.video`, `on.deleted` and `on.state` ("live", "polling", "failing", "lost"); returns
 * what stops it. Where a token is wanted it stops by itself: whoever gets one begins anew.
 */
export function follow(on) {
  let source = null;
  let isStopped = false;
  let isAway = false;
  let wait = 1000;
  let reconnecting = 0;
  let polling = 0;

  const isLive = () => source?.readyState === EventSource.OPEN;

  const fetchList = async () => {
    const since = performance.now();
    try {
      on.list(await api.videos(), since);
      if (!isStopped && !isAway && !source) on.state(document.hidden ? "live" : "polling");
    } catch (error) {
      if (error.status === 401) stop();
      else if (!isStopped && !isAway && !isLive()) on.state(error.status ? "failing" : "lost");
    }
  };

  const poll = async () => {
    clearTimeout(polling);
    await fetchList();
    clearTimeout(polling);
    if (!isStopped && !isAway && !isLive()) polling = setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
  };

  const hangUp = () => {
    clearTimeout(reconnecting);
    source?.close();
    source = null;
  };

  const connect = () => {
    hangUp();
    if (isStopped || isAway || document.hidden) return;
    source = new EventSource("/v1/events");
    source.onopen = () => {
      wait = 1000;
      clearTimeout(polling);
      on.state("live");
      fetchList();
    };
    source.addEventListener("video", (event) => on.video(JSON.parse(event.data)));
    source.addEventListener("deleted", (event) => on.deleted(JSON.parse(event.data).id));
    source.onerror = () => {
      // The browser's own retries are not relied on: it gives up after an answer that is no stream.
      hangUp();
      reconnecting = setTimeout(connect, wait);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      poll();
    };
  };

  const look = () => {
    if (document.hidden) {
      hangUp();
      poll();
    } else if (!isLive()) connect();
  };
  const leave = () => {
    isAway = true;
    clearTimeout(polling);
    hangUp();
  };
  const comeBack = () => {
    if (!isAway) return;
    isAway = false;
    fetchList();
    look();
  };
  const stop = () => {
    isStopped = true;
    clearTimeout(polling);
    hangUp();
    for (const [target, name, heard] of listening) target.removeEventListener(name, heard);
  };
  const listening = [
    [window, "online", look], [window, "pagehide", leave], [window, "pageshow", comeBack], [document, "visibilitychange", look],
  ];
  for (const [target, name, heard] of listening) target.addEventListener(name, heard);
  fetchList();
  look();
  return stop;
}
