"use strict";
// A chat: the answer is streamed over the POST itself, so that stopping is closing it. Markdown is made safe here.
(() => {
  // HTML in a message is text, not markup; DOMPurify has the last word.
  marked.use({ renderer: { html: (token) => token.text.replace(/&/g, "&amp;").replace(/</g, "&lt;") } });
  const show = (box, text) => { box.innerHTML = DOMPurify.sanitize(marked.parse(text), { FORBID_TAGS: ["style", "form", "input", "img", "iframe"], FORBID_ATTR: ["style"] }); };
  for (const one of document.querySelectorAll("[data-markdown]")) show(one, one.textContent);
  const doors = document.querySelector("[data-doors]");
  if (doors) {  // the models of the deployment that is chosen
    const models = doors.form.elements.model, all = [...models.options];
    const choose = () => models.replaceChildren(...all.filter((one) => one.dataset.door === doors.value));
    doors.addEventListener("change", choose);
    choose();
  }
  const form = document.getElementById("say");
  if (!form) return;
  const said = document.getElementById("said"), send = document.getElementById("send"), halt = document.getElementById("halt");
  const seconds = (s) => s == null ? "–" : s >= 1 ? `${s.toFixed(2)} s` : `${(s * 1000).toFixed(0)} ms`;
  const make = (id) => {
    said.append(document.getElementById(id).content.cloneNode(true));
    return said.lastElementChild;
  };
  let going = null;
  halt.addEventListener("click", () => going && going.abort());
  form.elements.text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (going) return;
    const text = form.elements.text.value;
    if (!text.trim()) return;
    make("question").querySelector(".text").textContent = text;
    const answer = make("answer"), body = answer.querySelector(".text"), foot = answer.querySelector("footer small");
    form.elements.text.value = "";
    going = new AbortController();
    send.disabled = true;
    halt.hidden = false;
    let whole = "", drawn = 0;
    try {
      const response = await fetch(form.action, { method: "POST", body: new URLSearchParams({ text }), signal: going.signal, headers: { "HX-Request": "true" } });
      if (!response.ok) throw new Error((new DOMParser().parseFromString(await response.text(), "text/html").body.textContent || "").trim());
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        rest += value;
        const events = rest.split(/\r?\n\r?\n/);
        rest = events.pop();
        for (const one of events) {
          const fields = Object.fromEntries(one.split(/\r?\n/).map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 1).trim()]));
          if (fields.event === "delta") {
            whole += JSON.parse(fields.data);
            if (performance.now() - drawn > 80) { drawn = performance.now(); show(body, whole); }
          } else if (fields.event === "answer") {
            const figures = JSON.parse(fields.data);
            show(body, figures.text);
            foot.textContent = figures.failure || [`${said.dataset.ttft} ${seconds(figures.ttft_s)}`, figures.tokens_per_s && `${figures.tokens_per_s.toFixed(0)} ${said.dataset.rate}`, figures.replica && `${said.dataset.replica} ${figures.replica}`, figures.stopped && said.dataset.stopped, figures.emulated && said.dataset.emulated].filter(Boolean).join(" · ");
            if (figures.failure) foot.className = "bad";
          }
        }
      }
    } catch (error) {
      show(body, whole);
      foot.textContent = error.name === "AbortError" ? said.dataset.stopped : error.message;
      if (error.name !== "AbortError") foot.className = "bad";
    } finally {
      going = null;
      send.disabled = false;
      halt.hidden = true;
      form.elements.text.focus();
    }
  });
})();
