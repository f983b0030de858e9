(() => {
  "use strict";
  const figure = document.getElementById("picture");
  if (!figure) return;
  const data = JSON.parse(document.getElementById("drawn").textContent);
  const charts = [...figure.querySelectorAll("svg.chart")];
  const tools = figure.querySelector(".tools");
  const out = figure.querySelector(".read-out");
  const whole = [Number(charts[0].dataset.start), Number(charts[0].dataset.end)];
  let view = whole, tier = "all";
  const NS = "http://www.w3.org/2000/svg";

  // A title inside a drawing would pop up over the read-out; its words stay for those who listen.
  for (const chart of charts) {
    const title = chart.querySelector(":scope > title");
    chart.setAttribute("aria-label", title.textContent);
    chart.removeAttribute("aria-labelledby");
    title.remove();
  }

  const geometry = chart => ({
    left: Number(chart.dataset.left), right: Number(chart.dataset.right),
    axis: Number(chart.dataset.axis), ticks: Number(chart.dataset.ticks),
  });
  const toPx = (g, ms) => g.left + (ms - view[0]) / (view[1] - view[0]) * (g.right - g.left);

  // --- zoom ---
  const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  function clock(ms, step) {
    const text = new Date(ms).toISOString();
    return step < 1 ? text.slice(14, 21) : step < 60 ? text.slice(11, 19) : text.slice(11, 16);
  }
  function ticks(chart, g) {
    chart.querySelectorAll("g.time").forEach(node => node.remove());
    const utc = Number(chart.dataset.utc), span = (view[1] - view[0]) / 1000;
    const step = STEPS.find(size => span / size <= g.ticks) || 86400;
    const first = utc + view[0] - whole[0];
    const before = chart.querySelector("[class^=panel-]");
    for (let at = Math.ceil(first / (step * 1000)) * step * 1000; at <= first + span * 1000; at += step * 1000) {
      const group = document.createElementNS(NS, "g");
      group.setAttribute("class", "time");
      group.setAttribute("transform", `translate(${toPx(g, whole[0] + at - utc).toFixed(1)},0)`);
      const grid = document.createElementNS(NS, "path");
      grid.setAttribute("class", "grid");
      grid.setAttribute("d", `M0,20V${g.axis}`);
      const label = document.createElementNS(NS, "text");
      label.setAttribute("class", "tick mid");
      label.setAttribute("y", g.axis + 15);
      label.textContent = clock(at, step);
      group.append(grid, label);
      before.before(group);
    }
  }
  function show(from, to) {
    const least = 500;
    if (to - from < least) { const middle = (from + to) / 2; from = middle - least / 2; to = middle + least / 2; }
    view = [Math.max(whole[0], from), Math.min(whole[1], to)];
    for (const chart of charts) {
      const g = geometry(chart), factor = (whole[1] - whole[0]) / (view[1] - view[0]);
      const shift = toPx(g, whole[0]) - g.left * factor;
      for (const node of chart.querySelectorAll(".zx")) node.setAttribute("transform", `matrix(${factor} 0 0 1 ${shift} 0)`);
      for (const node of chart.querySelectorAll(".mv:not(.time)")) {
        let px = Number(node.dataset.x) * factor + shift;
        const until = node.dataset.until === undefined ? px : Number(node.dataset.until) * factor + shift;
        const seen = until >= g.left - 1 && px <= g.right + 1 && (until === px || (until > g.left + 20 && px < g.right - 20));
        if (until > px) px = Math.max(px, g.left);
        node.setAttribute("transform", `translate(${px.toFixed(1)},0)`);
        node.setAttribute("visibility", seen ? "visible" : "hidden");
      }
      ticks(chart, g);
    }
    for (const button of tools.querySelectorAll("button[data-from]"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.from) === view[0] && Number(button.dataset.to) === view[1]));
  }
  const zoom = tools.querySelector(".zoom");
  zoom.textContent = "";
  const button = (name, from, to) => {
    const made = document.createElement("button");
    made.type = "button"; made.textContent = name; made.dataset.from = from; made.dataset.to = to;
    made.addEventListener("click", () => show(from, to));
    zoom.append(made);
  };
  button("Whole run", ...whole);
  for (const [name, from, to] of data.phases || []) button({warmup: "warm-up", failback: "fail-back"}[name] || name, Math.max(from, whole[0]), Math.min(to, whole[1]));
  const nudge = (name, label, change) => {
    const made = document.createElement("button");
    made.type = "button"; made.textContent = name; made.setAttribute("aria-label", label);
    made.addEventListener("click", () => show(...change(view[0], view[1], view[1] - view[0])));
    zoom.append(made);
  };
  nudge("+", "Zoom in", (a, b, w) => [a + w / 4, b - w / 4]);
  nudge("−", "Zoom out", (a, b, w) => [a - w / 2, b + w / 2]);
  nudge("‹", "Earlier", (a, b, w) => { const d = Math.min(w / 2, a - whole[0]); return [a - d, b - d]; });
  nudge("›", "Later", (a, b, w) => { const d = Math.min(w / 2, whole[1] - b); return [a + d, b + d]; });

  // --- filter by tier ---
  function filter(chosen) {
    tier = chosen;
    for (const chart of charts) {
      for (const panel of chart.querySelectorAll("g[class^=panel-]")) {
        const own = panel.dataset.tier;
        panel.classList.toggle("dim", chosen !== "all" && own !== undefined && own !== chosen);
        if (own !== undefined) continue;
        const grouped = [...panel.querySelectorAll("[data-group]")];
        const has = grouped.some(node => node.dataset.group === chosen);
        for (const node of grouped) {
          const on = node.dataset.group === (has ? chosen : "all");
          node.classList.toggle("on", on);
          node.classList.toggle("off", !on);
        }
      }
    }
    for (const row of document.querySelectorAll("[data-row-tier]"))
      row.classList.toggle("dim", chosen !== "all" && row.dataset.rowTier !== chosen);
  }
  tools.addEventListener("change", event => { if (event.target.name === "tier") filter(event.target.value); });

  // --- read-out and zoom by dragging ---
  const between = (edges, at) => {
    for (let index = 0; index + 1 < edges.length; index++) if (at >= edges[index] && at < edges[index + 1]) return index;
    return -1;
  };
  const words = (value, unit, digits = 1) => value === null || value === undefined ? "–" : value.toFixed(digits) + unit;
  function tell(at) {
    const utc = Number(charts[0].dataset.utc) + at - whole[0];
    const phase = (data.phases || []).find(([, from, to]) => at >= from && at < to);
    const parts = [["", new Date(utc).toISOString().slice(11, 23) + " UTC" + (phase ? ", " + phase[0] : "")]];
    const group = data.groups && (data.groups[tier] || data.groups.all);
    if (group) {
      const here = between(data.edges, at), wide = between(data.wide, at);
      if (here >= 0) {
        parts.push([tier === "all" ? "all tiers" : data.label + " " + tier, group.n[here] + " requests"]);
        parts.push(["asked", words(group.asked[here], "/s")], ["sent", words(group.sent[here], "/s")], ["good", words(group.good[here], "/s")]);
        parts.push(["success", words(group.success[here], "%") + " [" + words(group.low[here], "") + ", " + words(group.high[here], "") + "]"]);
      }
      if (wide >= 0) for (const name of ["p50", "p95", "p99"]) parts.push([name, words(group[name][wide], " ms", 0)]);
    }
    for (const [name, points] of Object.entries(data.queue || {})) {
      let last = null;
      for (const [when, value] of points) { if (when > at) break; last = value; }
      parts.push(["queue " + name, words(last, "", 0)]);
    }
    out.textContent = "";
    for (const [name, value] of parts) {
      const bold = document.createElement("b");
      bold.textContent = name ? name + " " : "";
      out.append(bold, value + (name ? "   " : " · "));
    }
  }
  for (const chart of charts) {
    const g = geometry(chart), cross = chart.querySelector(".cross");
    let from = null, box = null;
    const place = event => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      return Math.min(g.right, Math.max(g.left, point.x));
    };
    const time = px => view[0] + (px - g.left) / (g.right - g.left) * (view[1] - view[0]);
    chart.addEventListener("pointermove", event => {
      const px = place(event);
      cross.setAttribute("x1", px); cross.setAttribute("x2", px); cross.setAttribute("visibility", "visible");
      tell(time(px));
      if (box) { box.setAttribute("x", Math.min(px, from)); box.setAttribute("width", Math.abs(px - from)); }
    });
    chart.addEventListener("pointerleave", () => cross.setAttribute("visibility", "hidden"));
    chart.addEventListener("pointerdown", event => {
      if (event.button !== 0 || event.pointerType === "touch" || event.target.closest("a")) return;
      from = place(event);
      box = document.createElementNS(NS, "rect");
      box.setAttribute("class", "zoombox");
      box.setAttribute("y", 14); box.setAttribute("height", g.axis - 14);
      chart.append(box);
      chart.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    const drop = event => {
      if (!box) return;
      const px = place(event), start = from;
      box.remove(); box = null; from = null;
      if (event.type === "pointerup" && Math.abs(px - start) > 6) show(time(Math.min(px, start)), time(Math.max(px, start)));
    };
    chart.addEventListener("pointerup", drop);
    chart.addEventListener("pointercancel", drop);
    chart.addEventListener("dblclick", () => show(...whole));
  }
  window.addEventListener("beforeprint", () => { show(...whole); filter("all"); });
  tools.hidden = false;
  out.hidden = false;
  out.textContent = "Point at the picture to read values; drag over it to zoom, double-click to see the whole run.";
  show(...whole);
})();
