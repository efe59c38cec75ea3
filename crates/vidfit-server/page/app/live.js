// Every change of every job, as it happens: server-sent events, and while those do not come,
// the list every few seconds. Whoever was away (asleep, offline, the server restarted) asks for
// the list once on the way back, as events may have been missed.

import * as api from "./api.js";

const POLL_MS = 2000;
const LONGEST_WAIT_MS = 15000;

/**
 * Calls `on.list`, `on.video`, `on.deleted` and `on.state` ("live", "polling", "failing", "lost"); returns
 * what stops it. Where a token is wanted it stops by itself: whoever gets one begins anew.
 */
export function follow(on) {
  let source = null;
  let isStopped = false;
  let wait = 1000;
  let reconnecting = 0;
  let polling = 0;

  const fetchList = async () => {
    const since = performance.now();
    try {
      on.list(await api.videos(), since);
      return true;
    } catch (error) {
      if (error.status === 401) stop();
      else if (!isStopped && source?.readyState !== EventSource.OPEN) on.state(error.status ? "failing" : "lost");
      return false;
    }
  };

  const poll = async () => {
    clearTimeout(polling);
    if (isStopped) return;
    if ((await fetchList()) && source?.readyState !== EventSource.OPEN) on.state("polling");
    if (!isStopped && source?.readyState !== EventSource.OPEN) polling = setTimeout(poll, POLL_MS);
  };

  const connect = () => {
    if (isStopped) return;
    source?.close();
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
      if (isStopped) return;
      // The browser's own retries are not relied on: it gives up after an answer that is no stream.
      source.close();
      clearTimeout(reconnecting);
      reconnecting = setTimeout(connect, wait);
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      poll();
    };
  };

  const wake = () => {
    if (document.visibilityState === "visible" && source?.readyState === EventSource.CLOSED) {
      clearTimeout(reconnecting);
      connect();
    }
  };
  const stop = () => {
    isStopped = true;
    clearTimeout(polling);
    clearTimeout(reconnecting);
    source?.close();
    removeEventListener("online", wake);
    document.removeEventListener("visibilitychange", wake);
  };
  addEventListener("online", wake);
  document.addEventListener("visibilitychange", wake);
  fetchList();
  connect();

  return stop;
}
