"use strict";
// A load test as it goes: history from the page, then one event a look. One stream for figures, one for words.
(() => {
  const words = document.getElementById("words");
  if (words && words.dataset.running === "yes") {
    const said = new EventSource(`${words.dataset.words}?after=${words.dataset.after}`);
    said.addEventListener("said", (event) => {
      const low = words.scrollTop + words.clientHeight >= words.scrollHeight - 8;
      words.append(`${JSON.parse(event.data)}\n`);
      if (low) words.scrollTop = words.scrollHeight;
    });
    said.addEventListener("reset", () => words.replaceChildren());
    said.addEventListener("over", () => { said.close(); document.body.dispatchEvent(new Event("over")); });
  }
  if (words) words.scrollTop = words.scrollHeight;

  const live = document.getElementById("live");
  if (!live) return;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const seconds = (s) => s == null ? "–" : s >= 10 ? `${s.toFixed(1)} s` : s >= 1 ? `${s.toFixed(2)} s` : s >= 0.1 ? `${(s * 1000).toFixed(0)} ms` : `${(s * 1000).toFixed(1)} ms`;
  const tick = (s) => s == null ? "" : s >= 1 ? `${+s.toFixed(2)} s` : `${+(s * 1000).toFixed(1)} ms`;
  const count = (n) => n == null ? "–" : Math.round(n).toLocaleString("en-US");
  const charts = [
    { id: "chart-ttft", keys: ["ttft_p50_s", "ttft_p95_s"], names: ["p50", "p95"], format: seconds },
    { id: "chart-rate", keys: ["chunks_per_s"], names: [live.dataset.rate], format: count },
    { id: "chart-itl", keys: ["itl_p50_s", "itl_p95_s"], names: ["p50", "p95"], format: seconds },
    { id: "chart-flight", keys: ["in_flight"], names: [live.dataset.flight], format: count },
  ];
  const strokes = [colour("--accent"), colour("--mind")];
  const times = [];
  for (const chart of charts) {
    chart.box = document.getElementById(chart.id);
    chart.data = [times, ...chart.keys.map(() => [])];
    chart.plot = new uPlot({
      width: chart.box.clientWidth || 400, height: 220, scales: { x: { time: false } }, legend: { show: chart.keys.length > 1, live: false },
      axes: [
        { stroke: colour("--faint"), grid: { stroke: colour("--grid"), width: 1 }, values: (_, ticks) => ticks.map((one) => `${one} s`) },
        { stroke: colour("--faint"), grid: { stroke: colour("--grid"), width: 1 }, size: 64, values: (_, ticks) => ticks.map(chart.format === seconds ? tick : chart.format) },
      ],
      series: [{ label: live.dataset.seconds }, ...chart.names.map((label, place) => ({ label, stroke: strokes[place], width: 1.6, value: (_, v) => chart.format(v) }))],
    }, chart.data, chart.box);
    new ResizeObserver(() => chart.plot.setSize({ width: chart.box.clientWidth, height: 220 })).observe(chart.box);
  }
  const push = (point) => {
    times.push(point.elapsed_s);
    for (const chart of charts) chart.keys.forEach((key, place) => chart.data[place + 1].push(point[key] ?? null));
  };
  const show = (point) => {
    for (const one of live.querySelectorAll("[data-figure]")) {
      const key = one.dataset.figure;
      one.textContent = key.endsWith("_s") && key !== "chunks_per_s" ? seconds(point[key]) : count(point[key]);
    }
    const table = document.getElementById("replicas");
    const rows = Object.entries(point.replicas || {});
    table.hidden = rows.length === 0;
    table.tBodies[0].replaceChildren(...rows.map(([name, one]) => {
      const row = document.createElement("tr");
      for (const [text, number] of [[name, false], [count(one.in_flight), true], [count(one.requests), true], [count(one.tokens_per_s), true]]) {
        const cell = document.createElement("td");
        cell.textContent = text;
        if (number) cell.className = "number";
        row.append(cell);
      }
      return row;
    }));
    document.getElementById("errors").replaceChildren(...Object.entries(point.errors || {}).map(([name, n]) => {
      const item = document.createElement("li");
      item.textContent = `${name}: ${n}`;
      return item;
    }));
  };
  const redraw = () => { for (const chart of charts) chart.plot.setData(chart.data); };
  const known = JSON.parse(document.getElementById("points").textContent);
  known.forEach(push);
  if (known.length) show(known[known.length - 1]);
  redraw();
  if (live.dataset.running !== "yes") return;
  const stream = new EventSource(`${live.dataset.live}?after=${live.dataset.after}`);
  let waiting = false;
  stream.addEventListener("point", (event) => {
    const point = JSON.parse(event.data);
    push(point);
    show(point);
    if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; redraw(); }); }
  });
  stream.addEventListener("reset", () => { times.length = 0; for (const chart of charts) chart.data.slice(1).forEach((one) => { one.length = 0; }); });
  stream.addEventListener("over", () => { stream.close(); document.body.dispatchEvent(new Event("over")); });
})();
