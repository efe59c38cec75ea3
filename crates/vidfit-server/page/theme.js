// Runs before the first paint, so that a page with a chosen theme never flashes in the other.
try {
  const theme = localStorage.getItem("vidfit.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // No storage (a private window): the system's theme is fine.
}
