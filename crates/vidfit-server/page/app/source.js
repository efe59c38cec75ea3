// The image or video that a job starts from. The chosen file is kept in the browser (IndexedDB),
// as a reload would lose it otherwise.

import { useEffect, useRef, useState } from "../vendor/htm-preact.js";

const ACCEPTED = {
  i2v: { kinds: /^image\/(png|jpeg|webp)$/, accept: "image/png,image/jpeg,image/webp", what: "an image", formats: "PNG, JPEG or WebP", field: "input_reference" },
  v2v: { kinds: /^(video\/(mp4|webm|quicktime)|image\/(gif|webp))$/, accept: "video/mp4,video/webm,video/quicktime,image/gif,image/webp", what: "a video", formats: "MP4, GIF, WebM or WebP", field: "video_reference" },
};
export const accepted = (task) => ACCEPTED[task];

/** The sources of both tasks: `source.of(task)`, `source.choose(task, file)`, `source.clear(task)`. */
export function useSource() {
  const [files, setFiles] = useState({});
  const urls = useRef({});
  useEffect(() => {
    for (const task of Object.keys(ACCEPTED)) {
      load(task).then((file) => file && setFiles((now) => (now[task] ? now : { ...now, [task]: preview(task, file) })));
    }
  }, []);

  const preview = (task, file) => {
    if (urls.current[task]) URL.revokeObjectURL(urls.current[task]);
    urls.current[task] = URL.createObjectURL(file);
    return { file, url: urls.current[task], isVideo: file.type.startsWith("video/"), field: ACCEPTED[task].field };
  };
  const choose = (task, file) => {
    if (!ACCEPTED[task].kinds.test(file.type)) return `${file.name || "That"} is not ${ACCEPTED[task].what} that can be read: ${ACCEPTED[task].formats}.`;
    store(task, file);
    setFiles((now) => ({ ...now, [task]: preview(task, file) }));
    return null;
  };
  const clear = (task) => {
    store(task, null);
    setFiles((now) => ({ ...now, [task]: undefined }));
  };
  return { of: (task) => files[task], choose, clear };
}

/** The first file of a drop or a paste that the task takes, or the first of all. */
export function fileOf(transfer, task) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => ACCEPTED[task].kinds.test(file.type)) ?? files[0];
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
