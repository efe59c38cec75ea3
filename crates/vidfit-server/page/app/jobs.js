// The jobs that the page knows: a copy of the server's, which alone is right.

import { useCallback, useEffect, useMemo, useReducer, useRef, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { follow } from "./live.js";

const START = { byId: new Map(), heardAt: new Map(), hasMore: false, last: null, isLoaded: false };

function reduce(state, { type, value, since }) {
  const byId = new Map(state.byId);
  const { heardAt } = state;
  switch (type) {
    case "list": {
      // The first page is the truth about everything as new as its oldest job, but for what was
      // heard of after it was asked for: an answer may be older than an event that came before it.
      const isNewer = (id) => (heardAt.get(id) ?? 0) > since;
      const oldest = value.data.at(-1)?.created_at ?? 0;
      const known = new Set(value.data.map((job) => job.id));
      for (const job of byId.values()) {
        if (!known.has(job.id) && !isNewer(job.id) && (!value.has_more || job.created_at > oldest)) byId.delete(job.id);
      }
      for (const job of value.data) if (!isNewer(job.id)) byId.set(job.id, job);
      const isFirst = !state.isLoaded || !state.last;
      return { byId, heardAt, isLoaded: true, hasMore: isFirst ? value.has_more : state.hasMore, last: isFirst ? value.last_id : state.last };
    }
    case "more":
      for (const job of value.data) byId.set(job.id, job);
      return { ...state, byId, hasMore: value.has_more, last: value.last_id };
    case "video":
      heardAt.set(value.id, performance.now());
      byId.set(value.id, value);
      return { ...state, byId };
    case "deleted":
      heardAt.set(value, performance.now());
      byId.delete(value);
      return { ...state, byId };
    default:
      return START;
  }
}

export const isActive = (job) => job.status === "queued" || job.status === "in_progress";

/** The jobs, what to do with them, and how the line to the server is. `visit` starts it all anew. */
export function useJobs(visit, say) {
  const [state, dispatch] = useReducer(reduce, START);
  const [line, setLine] = useState("connecting");
  const put = useCallback((job) => dispatch({ type: "video", value: job }), []);
  const drop = useCallback((id) => dispatch({ type: "deleted", value: id }), []);
  useEffect(() => follow({
    list: (list, since) => dispatch({ type: "list", value: list, since }),
    video: put,
    deleted: drop,
    state: setLine,
  }), [visit]);
  useNews(state, say);
  const more = async () => dispatch({ type: "more", value: await api.videos(state.last) });
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
    const now = new Map([...state.byId.values()].map((job) => [job.id, job]));
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
