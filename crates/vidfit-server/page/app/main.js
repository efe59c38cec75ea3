// The page as a whole: what it knows of the server, and what can be done.

import { html, render, useCallback, useEffect, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import { Composer } from "./composer.js";
import { Confirm, Detail, Token } from "./dialogs.js";
import * as drafts from "./draft.js";
import { keepDropsHere } from "./drop.js";
import { Gallery } from "./gallery.js";
import { Header } from "./header.js";
import * as icons from "./icons.js";
import { useJobs } from "./jobs.js";
import { Queue } from "./queue.js";
import { useSource } from "./source.js";
import { shorten } from "./words.js";

const MEMORY_MS = 5000;
const NOTHING = { models: null, presets: [], devices: null, error: null };

/** What the server has: models, presets, devices. `visit` starts anew, `comebacks` asks anew; `error` says why there is nothing. */
function useServer(visit, comebacks, running) {
  const [state, setState] = useState(NOTHING);
  useEffect(() => setState(NOTHING), [visit]);
  useEffect(() => {
    let isOver = false;
    let timer = 0;
    const load = async () => {
      try {
        const [models, presets] = await Promise.all([api.models(), api.presets()]);
        if (!isOver) setState((was) => ({ ...was, models, presets, error: null }));
        if (!isOver && models.length === 0) timer = setTimeout(load, 3000);
      } catch (error) {
        if (isOver || error.status === 401) return;
        setState((was) => ({ ...was, error }));
        timer = setTimeout(load, 3000);
      }
    };
    load();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [visit, comebacks]);
  useEffect(() => {
    let isOver = false;
    let isAsking = false;
    const ask = async () => {
      if (isAsking || document.hidden) return;
      isAsking = true;
      const devices = await api.memory().then((list) => list.data ?? [], () => null);
      isAsking = false;
      if (devices && !isOver) setState((was) => (JSON.stringify(was.devices) === JSON.stringify(devices) ? was : { ...was, devices }));
    };
    // Without a token there is nothing to ask for again and again.
    const timer = state.models ? setInterval(ask, MEMORY_MS) : 0;
    document.addEventListener("visibilitychange", ask);
    ask();
    return () => {
      isOver = true;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", ask);
    };
  }, [visit, comebacks, running?.id, Boolean(state.models)]);
  return state;
}

/** Changes when a plan may: a job began or ended, or others hold noticeably more or less memory than before. */
function occasionOf(running, devices) {
  const device = devices?.find((one) => one.used && one.memory_bytes);
  const others = device ? device.memory_bytes - (device.free_bytes ?? 0) - (device.held_bytes ?? 0) : 0;
  return `${running?.id ?? "idle"} ${device ? Math.round((others / device.memory_bytes) * 50) : ""}`;
}

/** How often the server was lost and came back: it may be another by then, with other models. */
function useComebacks(line) {
  const [comebacks, setComebacks] = useState(0);
  const isLost = useRef(false);
  useEffect(() => {
    if (line === "lost") isLost.current = true;
    if (!isLost.current || (line !== "live" && line !== "polling")) return;
    isLost.current = false;
    setComebacks((now) => now + 1);
  }, [line]);
  return comebacks;
}

/** The focus of a job that leaves the queue goes to a heading; it would be lost with the button that had it. */
function useFocusKept(...changes) {
  const id = useRef(null);
  useEffect(() => {
    const note = ({ target }) => {
      if (!target.closest("dialog")) id.current = target.closest(".job")?.dataset.id ?? null;
    };
    const listening = ["focusin", "pointerdown"];
    for (const name of listening) document.addEventListener(name, note);
    return () => {
      for (const name of listening) document.removeEventListener(name, note);
    };
  }, []);
  useLayoutEffect(() => {
    if (!id.current || document.activeElement !== document.body || document.querySelector(`.job[data-id="${CSS.escape(id.current)}"]`)) return;
    id.current = null;
    (document.getElementById("queue-title") ?? document.getElementById("gallery-title"))?.focus({ preventScroll: true });
  }, changes);
}

/** Words for screen readers. Repeated words are said again, as each stands in an element of its own. */
function useAnnouncer() {
  const [said, setSaid] = useState([]);
  const count = useRef(0);
  const say = useCallback((words, job) => {
    const text = job ? `${words}: ${shorten(job.prompt, 40)}` : words;
    setSaid((now) => [...now.slice(-4), { key: count.current++, text }]);
  }, []);
  const hush = useCallback(() => setSaid([]), []);
  return [html`<div class="unseen" role="log" aria-live="polite" aria-label="News">${said.map(({ key, text }) => html`<p key=${key}>${text}</p>`)}</div>`, say, hush];
}

const SIGNED_IN = "vidfit.signed-in";

function signedIn(now) {
  try {
    if (now === undefined) return localStorage.getItem(SIGNED_IN) === "yes";
    if (now) localStorage.setItem(SIGNED_IN, "yes");
    else localStorage.removeItem(SIGNED_IN);
  } catch {
    // Then the page does not offer to sign out.
  }
  return now;
}

function App() {
  const [visit, setVisit] = useState(0);
  const [needsToken, setNeedsToken] = useState(false);
  const [draft, setDraft] = useState(drafts.restore);
  const [question, setQuestion] = useState(null);
  const [shownId, setShownId] = useState(null);
  const [stopping, setStopping] = useState(() => new Set());
  const [mishap, setMishap] = useState(null);
  const [reuses, setReuses] = useState(0);
  const [log, say, hush] = useAnnouncer();
  const source = useSource();
  const jobs = useJobs(visit, say);
  const running = jobs.active.find((job) => job.status === "in_progress");
  const server = useServer(visit, useComebacks(jobs.line), running);
  const occasion = occasionOf(running, server.devices);
  useFocusKept(jobs.active, question);

  useEffect(() => {
    const need = () => setNeedsToken(true);
    api.session.addEventListener("needed", need);
    return () => api.session.removeEventListener("needed", need);
  }, []);
  useEffect(() => {
    const timer = setTimeout(() => drafts.keep(draft), 200);
    return () => clearTimeout(timer);
  }, [draft]);
  useEffect(() => {
    document.title = running ? `${running.progress} % · vidfit` : "vidfit";
  }, [running?.progress]);
  useEffect(() => {
    const follow = () => setDraft(drafts.restore());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);

  const attempt = async (doing) => {
    setMishap(null);
    try {
      await doing();
    } catch (error) {
      setMishap(error.message);
    }
  };
  const cancel = (job) => {
    const act = () => attempt(async () => {
      // A job that runs stops after its unit of work, not at once.
      setStopping((now) => new Set(now).add(job.id));
      try {
        jobs.put(await api.cancel(job.id));
      } catch (error) {
        setStopping((now) => new Set([...now].filter((id) => id !== job.id)));
        throw error;
      }
    });
    // Nothing is lost with a job that has not begun, so nothing is asked.
    if (job.status === "queued" || job.progress === 0) return act();
    setQuestion({
      title: "Cancel this job?", yes: "Cancel the job", no: "Let it go on", act,
      text: `It is ${job.progress} % done${job.steps && job.step ? ` (${job.step} of ${job.steps} steps)` : ""}. That work would be lost.`,
    });
  };
  const act = {
    open: (job) => setShownId(job.id),
    reuse: (job) => {
      setShownId(null);
      setDraft(drafts.ofJob(job));
      // What was refused before has nothing to do with these.
      setReuses((now) => now + 1);
      say("Settings copied into the form");
      if (job.task !== "t2v") {
        const noun = job.task === "i2v" ? "image" : "video";
        source.bring(job.task, api.input(job), `The server does not give back the ${noun} that this started from. Choose it again.`);
      }
      requestAnimationFrame(() => {
        const prompt = document.getElementById("prompt");
        prompt?.focus({ preventScroll: true });
        prompt?.scrollIntoView({ block: "center" });
      });
    },
    remove: (job) => {
      const drop = () => attempt(async () => {
        await api.remove(job.id);
        jobs.drop(job.id);
        setShownId(null);
        say("Deleted");
        document.getElementById("gallery-title")?.focus();
      });
      if (job.status !== "completed") return drop();
      setQuestion({ title: "Delete this video?", text: "It cannot be brought back.", yes: "Delete", no: "Keep it", act: drop });
    },
  };
  const enter = () => {
    signedIn(true);
    setNeedsToken(false);
    setVisit((now) => now + 1);
  };
  /** Whoever comes next at this browser sees nothing of what was here. */
  const forget = () => {
    const blank = drafts.blank();
    drafts.keep(blank);
    setDraft(blank);
    for (const task of ["i2v", "v2v"]) source.clear(task);
    setShownId(null);
    setQuestion(null);
    setStopping(new Set());
    hush();
    setVisit((now) => now + 1);
  };
  useEffect(() => {
    // Another tab signed out.
    const heard = ({ key, newValue }) => key === SIGNED_IN && newValue === null && forget();
    addEventListener("storage", heard);
    return () => removeEventListener("storage", heard);
  }, []);
  const leave = () => attempt(async () => {
    await api.signOut();
    signedIn(false);
    forget();
  });

  const shown = shownId && jobs.byId.get(shownId);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the form</a>
    <${Header} devices=${server.devices} line=${jobs.line} isSignedIn=${signedIn()} signOut=${leave} />
    ${mishap && html`<div class="mishap" role="alert">${icons.warning}<p>${mishap}</p><button type="button" class="button small quiet" onClick=${() => setMishap(null)}>Dismiss</button></div>`}
    <main id="main" tabindex="-1">
      <div class="left">
        ${server.models?.length > 0
          ? html`<${Composer} key=${reuses} draft=${draft} setDraft=${setDraft} source=${source} models=${server.models} presets=${server.presets} devices=${server.devices} jobs=${jobs} occasion=${occasion} say=${say} />`
          : html`<${Waiting} error=${server.error ?? (server.models && new Error("It offers no model."))} />`}
      </div>
      <div class="right">
        <${Queue} jobs=${jobs.active} stopping=${stopping} cancel=${cancel} />
        <${Gallery} jobs=${jobs.over} isLoaded=${jobs.isLoaded} hasMore=${jobs.hasMore} more=${jobs.more} act=${act} />
      </div>
    </main>
    ${shown && html`<${Detail} job=${shown} act=${act} shut=${() => setShownId(null)} />`}
    ${question && html`<${Confirm} question=${question} shut=${() => setQuestion(null)} />`}
    ${needsToken && html`<${Token} done=${enter} />`}
    ${log}`;
}

/** To the first field; without changing the address, which holds the draft. */
function skip(event) {
  event.preventDefault();
  (document.getElementById("prompt") ?? document.getElementById("main")).focus();
}

function Waiting({ error }) {
  return html`
    <div class="composer waiting" aria-busy=${String(!error)}>
      ${error
        ? html`<p class="state bad">${icons.warning}Not ready</p><p role="alert">${error.message}</p><p class="hint">Trying again every 3 s.</p>`
        : html`<div class="skeleton block"></div><div class="skeleton block tall"></div><div class="skeleton block"></div><p class="unseen">Loading</p>`}
    </div>`;
}

keepDropsHere();
render(html`<${App} />`, document.getElementById("page"));
