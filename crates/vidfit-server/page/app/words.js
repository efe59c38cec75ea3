// What numbers look like to people. GB are 2^30 bytes with one decimal, as card vendors count.
// \u00a0 keeps a number and its unit on one line.

const GB = 2 ** 30;
const MB = 2 ** 20;

export function bytes(count) {
  if (count >= 0.1 * GB) return `${(count / GB).toFixed(1)}\u00a0GB`;
  if (count >= MB) return `${Math.round(count / MB)}\u00a0MB`;
  return `${Math.max(count > 0 ? 1 : 0, Math.round(count / 1024))}\u00a0KB`;
}

/** A predicted time: no finer than it is known. */
export function about(seconds) {
  return `about ${rounded(seconds)}`;
}

function rounded(seconds) {
  if (seconds < 55) return `${Math.max(1, Math.round(seconds))}\u00a0s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes}\u00a0min`;
  const hours = Math.round(seconds / 3600);
  if (hours >= 48) return `${Math.round(hours / 24)}\u00a0days`;
  if (hours >= 10) return `${hours}\u00a0h`;
  const tens = Math.round((minutes % 60) / 10) * 10;
  return tens === 60 ? `${Math.floor(minutes / 60) + 1}\u00a0h` : `${Math.floor(minutes / 60)}\u00a0h${tens ? ` ${tens}\u00a0min` : ""}`;
}

/** A time that runs down, or that was taken. */
export function duration(seconds) {
  if (seconds > 0 && seconds < 0.05) return "<0.1\u00a0s";
  if (seconds < 10) return `${seconds.toFixed(1)}\u00a0s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}\u00a0s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}\u00a0min ${whole % 60}\u00a0s`;
  return `${Math.floor(whole / 3600)}\u00a0h ${Math.floor((whole % 3600) / 60)}\u00a0min`;
}

export function left(seconds) {
  if (seconds < 1) return "nearly done";
  return `${seconds < 60 ? `${Math.ceil(seconds)}\u00a0s` : duration(seconds)} left`;
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
  return id === "demo" ? "Demo" : id.slice(id.lastIndexOf("/") + 1);
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
