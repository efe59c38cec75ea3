// The jobs that the page knows: a copy of the server's, which alone is right.

import { useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { follow } from "./live.js";

const START = { byId: new Map(), heardAt: new Map(), listedAt: 0, hasMore: false, last: null, isLoaded: false };
/** A list is read no further than this, in pages of 100. */
const MOST_PAGES = 30;
const HIDDEN_FRAME_MS = 300;

/** All that came since the last frame is taken in at once: hundreds of jobs may move at a time. */
function reduce(state, changes) {
  const byId = new Map(state.byId);
  return changes.reduce((now, change) => changed(now, change), { ...state, byId });
}

/** `state` after one change; its maps are its own to write to. */
function changed(state, { type, value, since, at }) {
  const { byId, heardAt } = state;
  switch (type) {
    case "list": {
      // Lists may overtake each other.
      if (since < state.listedAt) return state;
      // The list is the truth about everything as new as its oldest job, but for what was
      // heard of after it was asked for: an answer may be older than an event that came before it.
      const isNewer = (id) => (heardAt.get(id) ?? 0) > since;
      const oldest = value.data.at(-1)?.created_at ?? 0;
      const known = new Set(value.data.map((job) => job.id));
      for (const job of byId.values()) {
        if (!known.has(job.id) && !isNewer(job.id) && (!value.has_more || job.created_at > oldest)) byId.delete(job.id);
      }
      for (const job of value.data) if (!isNewer(job.id)) byId.set(job.id, job);
      for (const [id, when] of heardAt) if (when <= since) heardAt.delete(id);
      // What was read further is read still, unless its last job is gone: no page goes on from there.
      const goesOn = state.isLoaded && state.last && byId.has(state.last) && (byId.get(state.last).created_at < oldest || !value.has_more);
      const { hasMore, last } = goesOn && value.has_more ? state : { hasMore: value.has_more, last: value.last_id };
      return { ...state, listedAt: since, isLoaded: true, hasMore, last };
    }
    case "more":
      for (const job of value.data) byId.set(job.id, job);
      return { ...state, hasMore: value.has_more, last: value.last_id ?? state.last };
    case "video":
      heardAt.set(value.id, at);
      // News of a place in the queue leave the plan out.
      byId.set(value.id, { ...byId.get(value.id), ...value });
      return state;
    case "deleted": {
      heardAt.set(value, at);
      const last = value === state.last ? beforeIt(byId, value) : state.last;
      byId.delete(value);
      return { ...state, last };
    }
    default:
      return { ...START, byId: new Map(), heardAt: new Map(), listedAt: since };
  }
}

/** A job that stands before this one in the list: older pages go on from there once this one is gone. */
function beforeIt(byId, id) {
  const from = byId.get(id)?.created_at ?? 0;
  return [...byId.values()].sort(byAge).findLast((job) => job.created_at > from)?.id ?? null;
}

export const isActive = (job) => job.status === "queued" || job.status === "in_progress";

/** The list as far back as the oldest job of `known` that is thought to wait or run: those may have ended unheard. */
async function listBackTo(known, signal) {
  const list = await api.videos(null, { signal });
  const named = new Set(list.data.map((job) => job.id));
  const awaited = known.filter((job) => isActive(job) && !named.has(job.id));
  for (let pages = 1; list.has_more && pages < MOST_PAGES; pages++) {
    const oldest = list.data.at(-1).created_at;
    if (!awaited.some((job) => !named.has(job.id) && job.created_at <= oldest)) break;
    const next = await api.videos(list.last_id, { signal });
    for (const job of next.data) named.add(job.id);
    list.data.push(...next.data);
    Object.assign(list, { has_more: next.has_more, last_id: next.last_id ?? list.last_id });
    if (next.data.length === 0) break;
  }
  return list;
}

/** Gathers changes, and gives them on together once a frame; or a bit later, where no frames are drawn. */
function useGathered(dispatch) {
  const gathered = useRef([]);
  return useCallback((change) => {
    gathered.current.push({ ...change, at: performance.now() });
    if (gathered.current.length > 1) return;
    const give = () => {
      cancelAnimationFrame(frame);
      clearTimeout(timer);
      const changes = gathered.current;
      gathered.current = [];
      dispatch(changes);
    };
    const frame = requestAnimationFrame(give);
    const timer = setTimeout(give, HIDDEN_FRAME_MS);
  }, []);
}

/** The jobs, what to do with them, and how the line to the server is. `visit` starts it all anew. */
export function useJobs(visit, say) {
  const [state, dispatch] = useReducer(reduce, START);
  const [line, setLine] = useState("connecting");
  const known = useRef(START);
  useLayoutEffect(() => {
    known.current = state;
  }, [state]);
  const change = useGathered(dispatch);
  const put = useCallback((job) => change({ type: "video", value: job }), []);
  const drop = useCallback((id) => change({ type: "deleted", value: id }), []);
  useEffect(() => {
    // Another visit may be another person's.
    change({ type: "forget", since: performance.now() });
    return follow({
      fetch: (signal) => listBackTo([...known.current.byId.values()], signal),
      list: (list, since) => change({ type: "list", value: list, since }),
      video: put,
      deleted: drop,
      state: setLine,
    });
  }, [visit]);
  useNews(state, say);
  const more = async () => change({ type: "more", value: await api.videos(state.last) });
  const active = useMemo(() => [...state.byId.values()].filter(isActive).sort(byTurn), [state]);
  const over = useMemo(() => [...state.byId.values()].filter((job) => !isActive(job)).sort(byAge), [state]);
  return { ...state, active, over, line, put, drop, more };
}

function byTurn(a, b) {
  if (a.status !== b.status) return a.status === "in_progress" ? -1 : 1;
  return (a.position ?? Infinity) - (b.position ?? Infinity) || a.created_at - b.created_at;
}

const byAge = (a, b) => b.created_at - a.created_at || (a.id < b.id ? 1 : -1);

/** Says what happened to jobs that were seen before: changes of phase and the end, not each step. */
function useNews(state, say) {
  const before = useRef(new Map());
  useEffect(() => {
    const now = state.byId;
    for (const job of now.values()) {
      const was = before.current.get(job.id);
      if (was && (was.status !== job.status || was.phase !== job.phase)) say(news(was, job), job);
    }
    before.current = now;
  }, [state]);
}

function news(was, job) {
  if (job.status === "completed") return "Video done";
  if (job.status === "failed") return `Failed: ${job.error?.message ?? "no reason given"}`;
  if (job.status === "cancelled") return "Cancelled";
  if (job.status === "queued") return "Waiting in the queue";
  return was.status === "queued" ? "Started" : { text: "Reading the prompt", encode: "Encoding", denoise: "Denoising", decode: "Decoding" }[job.phase] ?? job.phase ?? "Started";
}
