"""The page's style sheet and its script, both inside the file; the script only sorts, highlights and toggles."""

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--panel:#f4f6f8;--line:#d8dee4;--mark:#0b6b8a;
--hot:#b6450b}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--paper:#14171b;--panel:#1d2126;--line:#333a42;
--mark:#5cc1e0;--hot:#ff9a5c}}
*{box-sizing:border-box}body{margin:0 auto;max-width:74rem;padding:1.5rem 1rem 4rem;background:var(--paper);
color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:break-word}
h1{font-size:1.05rem;color:var(--soft);font-weight:500;margin:0}
h2{font-size:1.15rem;margin:2.4rem 0 .6rem;padding-top:.5rem;border-top:1px solid var(--line)}
h3{font-size:.95rem;margin:0 0 .3rem;color:var(--soft);font-weight:600}p{margin:.4rem 0}
.headline{font-size:1.3rem;line-height:1.35;font-weight:600;margin:.6rem 0 1rem}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.8rem}
.answers section{background:var(--panel);border-top:3px solid var(--mark);padding:.7rem .9rem;font-size:.93rem}
.wide{overflow-x:auto}.wide+.wide{margin-top:1rem}table{border-collapse:collapse;font-size:.8rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.22rem .45rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600;cursor:pointer;user-select:none}th[data-order=up]:after{content:" \\25b2"}
th[data-order=down]:after{content:" \\25bc"}
td.text,th.text{text-align:left}td.prose{white-space:normal;text-align:left;min-width:22rem}
table.wrap td,table.wrap th{white-space:normal}tr.tied td{background:var(--panel)}
tr.hot td{outline:1px solid var(--hot)}a{color:var(--mark)}td a{text-decoration:none}
td a:hover{text-decoration:underline}
figure{margin:1rem 0}figure svg{width:100%;max-width:58rem;height:auto;color:var(--soft)}
figure svg text{fill:currentColor}
figure.mask{display:inline-block;margin:.5rem 1rem .5rem 0;vertical-align:top}
figure.mask img{max-width:100%;height:auto;background:#fff;border-radius:3px}
svg .tip{cursor:pointer}svg.dim .tip:not(.hot){opacity:.15}svg .tip.hot{opacity:1}
figcaption,.soft{color:var(--soft);font-size:.86rem}
.switch{display:flex;gap:1rem;flex-wrap:wrap;font-size:.88rem;color:var(--soft)}
.switch~figure{display:none}#by-images:checked~figure.images,#by-hours:checked~figure.hours{display:block}
.hidden-input{position:absolute;opacity:0}label{cursor:pointer}
#by-images:checked~.switch label[for=by-images],#by-hours:checked~.switch label[for=by-hours]{color:var(--ink);
font-weight:600;border-bottom:2px solid var(--mark)}
#by-images:focus-visible~.switch label[for=by-images],#by-hours:focus-visible~.switch label[for=by-hours]{
outline:2px solid var(--mark)}
pre{background:var(--panel);padding:.7rem;overflow-x:auto;font-size:.8rem}summary{cursor:pointer;margin:.4rem 0}
@media(max-width:40rem){body{font-size:15px;padding:1rem .7rem 3rem}.headline{font-size:1.1rem}
.scroll{overflow-x:auto}.scroll svg{min-width:36rem}}
@media print{:root{--ink:#000;--soft:#444;--paper:#fff;--panel:#f4f4f4;--line:#bbb;--mark:#000}body{max-width:none;
font-size:11px}.switch{display:none}.switch~figure{display:block}pre{white-space:pre-wrap}
figure,.answers section,tr{break-inside:avoid}table{font-size:8px}th,td{padding:.1rem .2rem;white-space:normal}
.wide{overflow:visible}}
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const order = head.dataset.order === "down" ? "up" : "down";
    heads.forEach(other => delete other.dataset.order);
    head.dataset.order = order;
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)], [p, q] = [parseFloat(x), parseFloat(y)];
      if (isNaN(p) !== isNaN(q)) return isNaN(p) ? 1 : -1;
      const sign = isNaN(p) ? x.localeCompare(y) : p - q;
      return order === "down" ? -sign : sign;
    };
    const body = table.tBodies[0];
    [...body.rows].sort(compare).forEach(row => body.append(row));
  }));
}
const mark = (keys, on) => {
  for (const svg of document.querySelectorAll("figure svg")) {
    let found = false;
    for (const tip of svg.querySelectorAll("[data-key]")) {
      const hit = keys.includes(tip.dataset.key);
      tip.classList.toggle("hot", on && hit);
      found ||= hit;
    }
    svg.classList.toggle("dim", on && found);
  }
  for (const row of document.querySelectorAll("tr[data-keys]"))
    row.classList.toggle("hot", on && row.dataset.keys.split(" ").some(key => keys.includes(key)));
};
for (const row of document.querySelectorAll("tr[data-keys]")) {
  row.addEventListener("mouseenter", () => mark(row.dataset.keys.split(" "), true));
  row.addEventListener("mouseleave", () => mark([], false));
}
for (const tip of document.querySelectorAll("svg [data-key]")) {
  tip.addEventListener("mouseenter", () => mark([tip.dataset.key], true));
  tip.addEventListener("mouseleave", () => mark([], false));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));
"""
