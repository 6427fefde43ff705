"use strict";
// Small manners of all pages: copy buttons, sortable tables. Everything else is HTML that the server sends.
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy], [data-copy-next]");
  if (copy) {
    const from = copy.dataset.copy ? document.querySelector(copy.dataset.copy) : copy.parentElement.nextElementSibling;
    const text = from ? from.textContent : "";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const before = copy.textContent;
    copy.textContent = copy.dataset.copied || before;
    setTimeout(() => { copy.textContent = before; }, 1500);
    return;
  }
  const sorter = event.target.closest("th[aria-sort] button");
  if (sorter) sortBy(sorter.closest("th"));
});

function sortBy(head) {
  const table = head.closest("table");
  const place = [...head.parentElement.children].indexOf(head);
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.children) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const value = (row) => {
    const cell = row.cells[place];
    const raw = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(raw);
    return raw !== "" && Number.isFinite(number) ? number : raw;
  };
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (typeof x === "number" && typeof y === "number") return x - y;
    if (typeof x === "number") return -1;
    if (typeof y === "number") return 1;
    return String(x).localeCompare(String(y));
  });
  if (down) rows.reverse();
  body.append(...rows);
}

// What scrolls sideways can be reached by the keyboard; what does not is no stop on the way.
function reachWhatScrolls() {
  for (const one of document.querySelectorAll(".scroll, .command code")) {
    if (one.scrollWidth > one.clientWidth + 1) one.tabIndex = 0;
    else one.removeAttribute("tabindex");
  }
}
addEventListener("resize", reachWhatScrolls);
document.addEventListener("htmx:after:swap", reachWhatScrolls);
reachWhatScrolls();

// A file that is too large is told of before it is sent: a server that cuts a long upload is not heard.
document.addEventListener("change", (event) => {
  const input = event.target.closest("input[type=file][data-most]");
  if (!input) return;
  const size = [...input.files].reduce((sum, file) => sum + file.size, 0);
  input.setCustomValidity(size > Number(input.dataset.most) ? input.dataset.tooLarge : "");
  input.reportValidity();
});

// A button with data-plain sends its form as a browser does, whatever the form does otherwise.
document.addEventListener("click", (event) => {
  const plain = event.target.closest("button[data-plain]");
  if (!plain || !plain.form) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const sent = document.createElement("form");
  sent.method = plain.formMethod;
  sent.action = plain.formAction;
  for (const [name, value] of new FormData(plain.form)) {
    const field = document.createElement("input");
    field.type = "hidden"; field.name = name; field.value = value;
    sent.append(field);
  }
  document.body.append(sent);
  sent.submit();
}, true);
