// What numbers look like to people. GB are 2^30 bytes with one decimal, as card vendors count.

const GB = 2 ** 30;
const MB = 2 ** 20;

export function bytes(count) {
  if (count >= 0.1 * GB) return `${(count / GB).toFixed(1)} GB`;
  if (count >= MB) return `${Math.round(count / MB)} MB`;
  return `${Math.max(count > 0 ? 1 : 0, Math.round(count / 1024))} KB`;
}

/** A predicted time: no finer than it is known. */
export function about(seconds) {
  return `about ${rounded(seconds)}`;
}

function rounded(seconds) {
  if (seconds < 55) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.round(seconds / 3600);
  if (hours >= 48) return `${Math.round(hours / 24)} days`;
  if (hours >= 10) return `${hours} h`;
  const tens = Math.round((minutes % 60) / 10) * 10;
  return tens === 60 ? `${Math.floor(minutes / 60) + 1} h` : `${Math.floor(minutes / 60)} h${tens ? ` ${tens} min` : ""}`;
}

/** A time that runs down, or that was taken. */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function left(seconds) {
  if (seconds < 1) return "nearly done";
  return `${seconds < 60 ? `${Math.ceil(seconds)} s` : duration(seconds)} left`;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** 1st, 2nd, 3rd, 4th … */
export function ordinal(number) {
  const tens = number % 100;
  if (tens > 10 && tens < 14) return `${number}th`;
  return `${number}${["th", "st", "nd", "rd"][number % 10] ?? "th"}`;
}

export function number(value, digits = 2) {
  return String(Number(Number(value).toFixed(digits)));
}

/** The name of a model without its owner, which says nothing to most people. */
export function modelName(id) {
  return id === "demo" ? "Demo (built in)" : id.slice(id.lastIndexOf("/") + 1);
}

const TASKS = { t2v: "Text to video", i2v: "Image to video", v2v: "Video to video" };
export const taskName = (task) => TASKS[task] ?? task;

const PHASES = { text: "Text", encode: "Encode", denoise: "Denoise", decode: "Decode" };
export const phaseName = (phase) => PHASES[phase] ?? phase.charAt(0).toUpperCase() + phase.slice(1);

export function capital(text) {
  return text ? text.charAt(0).toUpperCase() + text.slice(1) : text;
}

export function shorten(text, most = 60) {
  return text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text;
}

export function when(unixSeconds) {
  const date = new Date(unixSeconds * 1000);
  const today = new Date().toDateString() === date.toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return today ? time : `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}
