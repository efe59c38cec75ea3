// A video of the gallery: loaded when it comes near, played while it is in sight, silent and in a loop.
// Who wants less motion gets a still picture until it is asked to play.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import * as api from "./api.js";
import * as icons from "./icons.js";
import { shorten } from "./words.js";

const wantsStill = matchMedia("(prefers-reduced-motion: reduce)");

export function Clip({ job, open }) {
  const video = useRef();
  const [isNear, setNear] = useState(false);
  const [isPlaying, setPlaying] = useState(false);
  const isPaused = useRef(wantsStill.matches);
  const isSeen = useRef(false);

  const run = () => {
    if (!isSeen.current) video.current?.pause();
    else if (!isPaused.current) video.current?.play().catch(() => {});
  };
  useEffect(run, [isNear]);
  useEffect(() => {
    const near = new IntersectionObserver(([entry]) => entry.isIntersecting && setNear(true), { rootMargin: "300px" });
    const seen = new IntersectionObserver(([entry]) => {
      isSeen.current = entry.isIntersecting;
      run();
    }, { threshold: 0.4 });
    near.observe(video.current);
    seen.observe(video.current);
    return () => {
      near.disconnect();
      seen.disconnect();
    };
  }, []);

  const toggle = () => {
    isPaused.current = isPlaying;
    if (isPlaying) video.current.pause();
    else video.current.play().catch(() => {});
  };
  const name = shorten(job.prompt);
  const shape = Math.min(16 / 9, Math.max(3 / 4, job.width / job.height)) || 1;
  return html`
    <div class="clip" style=${{ aspectRatio: String(shape) }}>
      <video ref=${video} loop muted playsinline preload="none" tabindex="-1" aria-hidden="true" poster=${isNear ? api.content(job, "thumbnail") : undefined} src=${isNear ? api.content(job) : undefined}
        onPlay=${() => setPlaying(true)} onPause=${() => setPlaying(false)}></video>
      <button type="button" class="open" aria-label=${`Show: ${name}`} onClick=${open}></button>
      <button type="button" class="toggle" aria-label=${`${isPlaying ? "Pause" : "Play"}: ${name}`} onClick=${toggle}>${isPlaying ? icons.pause : icons.play}</button>
    </div>`;
}
