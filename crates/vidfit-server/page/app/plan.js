// The plan of what the form asks for, asked anew as it changes. Answers that come late are dropped.

import { useEffect, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { nearest } from "./nearest.js";

const PAUSE_MS = 250;

/** `{ plan, near, error, isBusy }` of `wanted`, the fields of a draft. `occasion` asks again: memory may have changed. */
export function usePlan(wanted, models, occasion) {
  const [state, setState] = useState({ plan: null, near: null, error: null, isBusy: true });
  const key = JSON.stringify(wanted);
  useEffect(() => {
    if (!models) return undefined;
    const stop = new AbortController();
    setState((was) => ({ ...was, isBusy: true }));
    const timer = setTimeout(async () => {
      try {
        const plan = await api.plan(wanted, stop.signal);
        if (stop.signal.aborted) return;
        setState({ plan, near: plan.nearest ?? null, error: null, isBusy: false });
        if (plan.fits || plan.nearest) return;
        const near = await nearest(wanted, plan, models, (fields) => api.plan(fields, stop.signal));
        if (!stop.signal.aborted) setState((was) => ({ ...was, near }));
      } catch (error) {
        if (error.name !== "AbortError" && !stop.signal.aborted) setState({ plan: null, near: null, error, isBusy: false });
      }
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key, models, occasion]);
  return state;
}
