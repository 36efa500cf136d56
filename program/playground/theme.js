// A classic script in the head, so that the chosen colours are there before the first paint.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("citeqa.theme");
  } catch {
    // Storage is blocked: the system's colours it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
