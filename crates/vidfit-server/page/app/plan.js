// The plan of what the form asks for, asked anew as it changes. Answers that come late are dropped.

import { useEffect, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { nearest } from "./nearest.js";

const PAUSE_MS = 250;
/** After a fault of the server's, or none of its answers: what is wrong with the form stays wrong. */
const AGAIN_MS = 3000;

/** `{ plan, near, isLooking, error, isBusy }` of `wanted`, the fields of a draft. `occasion` asks again: memory may have changed. */
export function usePlan(wanted, models, occasion) {
  const [state, setState] = useState({ plan: null, near: [], error: null, isBusy: true });
  const key = JSON.stringify(wanted);
  useEffect(() => {
    if (!models) return undefined;
    const stop = new AbortController();
    setState((was) => ({ ...was, isBusy: true }));
    let timer = 0;
    const look = async () => {
      try {
        const plan = await api.plan(wanted, stop.signal);
        if (stop.signal.aborted) return;
        setState({ plan, near: [], isLooking: !plan.fits, error: null, isBusy: false });
        if (plan.fits) return;
        const ask = (fields) => api.plan(fields, stop.signal);
        const found = (one) => stop.signal.aborted || setState((was) => ({ ...was, near: [...was.near, one] }));
        await nearest(wanted, plan, models, ask, found);
        if (!stop.signal.aborted) setState((was) => ({ ...was, isLooking: false }));
      } catch (error) {
        if (error.name === "AbortError" || stop.signal.aborted) return;
        setState({ plan: null, near: [], error, isBusy: false });
        if (!error.status || error.status >= 500) timer = setTimeout(look, AGAIN_MS);
      }
    };
    timer = setTimeout(look, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key, models, occasion]);
  return state;
}
