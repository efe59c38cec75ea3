// Every change of every job, as it happens: server-sent events, and while those do not come,
// the list every few seconds. Whoever was away (asleep, offline, the server restarted) asks for
// the list once on the way back, as events may have been missed. A server that a reader is too slow
// for ends the stream, or leaves events out: so the list is asked for now and then in any case,
// which also finds a line that is dead without having said so.
//
// A stream holds a connection, and browsers open six to a server at most, for all tabs together. So
// a page that nobody looks at lets its stream go and asks for the list now and then (its title
// tells of progress), and one that was left does nothing, even if the browser keeps it for "back".

const POLL_MS = 2000;
const HIDDEN_POLL_MS = 10000;
const LIVE_POLL_MS = 20000;
const PATIENCE_MS = 10000;
const LONGEST_WAIT_MS = 15000;

/**
 * Calls `on.list` with what `on.fetch` gets, `on.video`, `on.deleted` and `on.state` ("live", "polling",
 * "failing", "lost"); returns what stops it. Where a token is wanted it stops by itself: whoever gets one begins anew.
 */
export function follow(on) {
  let source = null;
  let isStopped = false;
  let isAway = false;
  let wait = 1000;
  let reconnecting = 0;
  let polling = 0;
  const stopped = new AbortController();

  const isLive = () => source?.readyState === EventSource.OPEN;

  const fetchList = async () => {
    const since = performance.now();
    try {
      const list = await on.fetch(AbortSignal.any([stopped.signal, AbortSignal.timeout(PATIENCE_MS)]));
      if (isStopped) return;
      on.list(list, since);
      if (isAway) return;
      if (isLive() || document.hidden) on.state("live");
      else if (!source) on.state("polling");
    } catch (error) {
      if (isStopped) return;
      if (error.status === 401) stop();
      else if (!isAway) {
        on.state(error.status ? "failing" : "lost");
        // A stream to a server that does not answer is dead, even if it does not know.
        if (!error.status && source) reconnect();
      }
    }
  };

  const pause = () => {
    if (document.hidden) return HIDDEN_POLL_MS;
    return isLive() ? LIVE_POLL_MS : POLL_MS;
  };
  const poll = async () => {
    clearTimeout(polling);
    await fetchList();
    clearTimeout(polling);
    if (!isStopped && !isAway) polling = setTimeout(poll, pause());
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
      on.state("live");
      poll();
    };
    source.addEventListener("video", (event) => on.video(JSON.parse(event.data)));
    source.addEventListener("deleted", (event) => on.deleted(JSON.parse(event.data).id));
    source.onerror = () => {
      reconnect();
      poll();
    };
  };
  /** The browser's own retries are not relied on: it gives up after an answer that is no stream. */
  const reconnect = () => {
    hangUp();
    reconnecting = setTimeout(connect, wait);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
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
    stopped.abort();
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
