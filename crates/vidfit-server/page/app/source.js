// The image or video that a job starts from. The chosen file is kept in the browser (IndexedDB),
// as a reload would lose it otherwise.

import { useEffect, useRef, useState } from "../vendor/htm-preact.js";

const ACCEPTED = {
  i2v: { kinds: /^image\/(png|jpeg|webp)$/, names: /\.(png|jpe?g|webp)$/i, accept: "image/png,image/jpeg,image/webp,.png,.jpg,.jpeg,.webp", what: "an image", formats: "PNG, JPEG or WebP", field: "input_reference" },
  v2v: {
    kinds: /^(video\/(mp4|webm|quicktime)|image\/(gif|webp))$/, names: /\.(mp4|m4v|webm|mov|gif|webp)$/i,
    accept: "video/mp4,video/webm,video/quicktime,image/gif,image/webp,.mp4,.webm,.mov,.gif,.webp", what: "a video", formats: "MP4, GIF, WebM or WebP", field: "video_reference",
  },
};
export const accepted = (task) => ACCEPTED[task];

/** Some systems do not know a file's type. */
const hasType = (file) => file.type !== "" && file.type !== "application/octet-stream";
const isOfKind = (task, file) => (hasType(file) ? ACCEPTED[task].kinds.test(file.type) : ACCEPTED[task].names.test(file.name ?? ""));

/** Why a file cannot be what the task starts from. Of a file without a type the server says it, which looks inside. */
function fault(task, file) {
  if (file.size === 0) return `${file.name || "That file"} is empty.`;
  if (hasType(file) && !isOfKind(task, file)) return `${file.name || "That"} is not ${ACCEPTED[task].what} that can be read: ${ACCEPTED[task].formats}.`;
  return null;
}

/**
 * The sources of both tasks: `source.of(task)`, `source.choose(task, file)`, `source.clear(task)`.
 * `source.bring(task, file, without)` clears it until the promise `file` brings another; if it does not, the words
 * `without` stand in its place, which is `source.note(task)`.
 */
export function useSource() {
  const [files, setFiles] = useState({});
  const [notes, setNotes] = useState({});
  const urls = useRef({});
  // What is brought must not take the place of what was chosen while it came.
  const turns = useRef({ i2v: 0, v2v: 0 });
  useEffect(() => {
    for (const task of Object.keys(ACCEPTED)) {
      const turn = turns.current[task];
      load(task).then((file) => file && turns.current[task] === turn && setFiles((now) => ({ ...now, [task]: preview(task, file) })));
    }
  }, []);

  const preview = (task, file) => {
    if (urls.current[task]) URL.revokeObjectURL(urls.current[task]);
    urls.current[task] = URL.createObjectURL(file);
    const isVideo = hasType(file) ? file.type.startsWith("video/") : task === "v2v" && !/\.(gif|webp)$/i.test(file.name ?? "");
    return { file, url: urls.current[task], isVideo, field: ACCEPTED[task].field };
  };
  const set = (task, file, note) => {
    turns.current[task]++;
    store(task, file);
    setFiles((now) => ({ ...now, [task]: file ? preview(task, file) : undefined }));
    setNotes((now) => ({ ...now, [task]: note }));
  };
  const choose = (task, file) => {
    const why = fault(task, file);
    if (!why) set(task, file);
    return why;
  };
  const clear = (task) => set(task, null);
  const bring = async (task, coming, without) => {
    set(task, null, "Fetching it…");
    const turn = turns.current[task];
    const file = await coming;
    if (turns.current[task] !== turn) return;
    if (file && !fault(task, file)) set(task, file);
    else set(task, null, without);
  };
  return { of: (task) => files[task], note: (task) => notes[task], choose, clear, bring };
}

/** The first file of a drop or a paste that the task takes, or the first of all. */
export function fileOf(transfer, task) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => isOfKind(task, file)) ?? files[0];
}

/** The first of `tasks` that starts from a file of a drop. */
export function taskFor(transfer, tasks) {
  const files = [...(transfer?.files ?? [])];
  return tasks.find((task) => task in ACCEPTED && files.some((file) => isOfKind(task, file)));
}

const open = () => new Promise((resolve, reject) => {
  const request = indexedDB.open("vidfit", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("sources");
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

// Without storage the file is simply not there after a reload, which is no reason to fail now.
async function load(task) {
  try {
    const database = await open();
    return await new Promise((resolve, reject) => {
      const request = database.transaction("sources").objectStore("sources").get(task);
      request.onsuccess = () => resolve(request.result ?? null);
      request.onerror = () => reject(request.error);
    });
  } catch {
    return null;
  }
}

async function store(task, file) {
  try {
    const sources = (await open()).transaction("sources", "readwrite").objectStore("sources");
    if (file) sources.put(file, task);
    else sources.delete(task);
  } catch {
    // As above.
  }
}
