"use strict";
// The plan's question: sliders beside their numbers, and an address that always holds what is asked.
(() => {
  const form = document.getElementById("question");
  if (!form) return;

  // A slider's 0 to 1000 is logarithmic between its low and its high; rounded as a person would say it.
  const place = (slider, value) => {
    const low = Math.log(Number(slider.dataset.low)), high = Math.log(Number(slider.dataset.high));
    return Math.round((1000 * (Math.log(Math.max(value, Number(slider.dataset.low))) - low)) / (high - low));
  };
  const said = (slider) => {
    const low = Math.log(Number(slider.dataset.low)), high = Math.log(Number(slider.dataset.high));
    return Number(Math.exp(low + (slider.value / 1000) * (high - low)).toPrecision(2));
  };
  for (const slider of form.querySelectorAll("[data-slides]")) {
    const number = form.elements[slider.dataset.slides];
    const follow = () => {
      slider.value = place(slider, Number(number.value) || 0);
      slider.setAttribute("aria-valuetext", number.value);
    };
    slider.addEventListener("input", () => {
      number.value = slider.dataset.slides === "rate" ? said(slider) : Math.round(said(slider));
      slider.setAttribute("aria-valuetext", number.value);
    });
    number.addEventListener("input", follow);
    follow();
  }

  const address = () => `/plan?${new URLSearchParams(new FormData(form))}`;
  // One step back for each change: the first movement of one makes the step, the others move it.
  let moving = null;
  form.addEventListener("input", (event) => {
    if (moving === event.target) history.replaceState(null, "", address());
    else history.pushState(null, "", address());
    moving = event.target;
  });
  form.addEventListener("change", () => { moving = null; });
  addEventListener("popstate", () => location.reload());
})();
