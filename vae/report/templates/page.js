"use strict";
// A group or run that is pointed at lights up wherever it is drawn, and says what it is.
const marks = JSON.parse(document.getElementById("marks").textContent);
const tip = document.getElementById("tip");
const group = mark => mark.split("-").slice(0, 2).join("-");
const marked = new Map();
for (const place of document.querySelectorAll("[data-mark]")) {
  const key = group(place.dataset.mark);
  if (!marked.has(key)) marked.set(key, []);
  marked.get(key).push(place);
}
let lit = null;
function light(key) {
  if (key === lit) return;
  for (const place of marked.get(lit) || []) place.classList.remove("on");
  for (const place of marked.get(key) || []) place.classList.add("on");
  document.body.classList.toggle("lit", key !== null);
  lit = key;
}
function nearest(svg, x, y) {
  // Lines are thin: the nearest drawing within a few pixels counts.
  for (const [dx, dy] of [[0, 0], [0, 4], [0, -4], [4, 0], [-4, 0], [0, 8], [0, -8], [8, 0], [-8, 0]]) {
    const place = document.elementFromPoint(x + dx, y + dy)?.closest("svg [data-mark]");
    if (place && svg.contains(place)) return place;
  }
  return null;
}
document.addEventListener("pointermove", event => {
  const svg = event.target.closest?.(".panel svg");
  const place = svg ? nearest(svg, event.clientX, event.clientY) : event.target.closest?.("[data-mark]");
  const known = place && (svg || place.matches("tr, li, .legend span"));
  light(known ? group(place.dataset.mark) : null);
  tip.hidden = !(svg && place);
  if (tip.hidden) return;
  const said = marks[place.dataset.mark];
  tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: said.name }), [said.fate, said.differs].filter(Boolean).join("; "));
  tip.style.left = `${Math.max(0, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18}px`;
});

// The table of measures sorts by the column that is clicked, and shows the rows that hold what is typed.
const table = document.getElementById("summary");
if (table) {
  const body = table.tBodies[0];
  const value = (row, i) => {
    const cell = row.cells[i];
    return "value" in cell.dataset ? parseFloat(cell.dataset.value) : cell.textContent.trim();
  };
  const order = new Intl.Collator(undefined, { numeric: true }).compare;
  for (const head of table.tHead.rows[0].cells) {
    head.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", i = head.cellIndex;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const sorted = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, i), value(b, i)];
        if (typeof x === "string") return order(x, y) * (up ? 1 : -1);
        return isNaN(x) - isNaN(y) || (x - y) * (up ? 1 : -1);
      });
      body.append(...sorted);
    });
  }
  document.getElementById("filter")?.addEventListener("input", event => {
    const wanted = event.target.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) row.hidden = !wanted.every(word => row.textContent.toLowerCase().includes(word));
  });
}

// All films show the same moment of the training.
const films = [...document.querySelectorAll(".film")], moment = document.getElementById("moment"), play = document.getElementById("play");
if (moment) {
  let timer = null;
  const show = () => {
    for (const film of films) {
      const last = film.dataset.frames - 1;
      film.style.backgroundPositionY = last ? `${Math.round(moment.value * last) / last * 100}%` : "0";
    }
  };
  // Its bar stays in view only while half of a film is, or a film fills half of the view: it would lie over what is read.
  const seen = new Set(), watch = new IntersectionObserver(changes => {
    for (const { target, intersectionRatio, intersectionRect } of changes) {
      intersectionRatio >= 0.5 || intersectionRect.height >= innerHeight / 2 ? seen.add(target) : seen.delete(target);
    }
    moment.closest(".player").classList.toggle("near", seen.size > 0);
  }, { rootMargin: "0px 0px -56px", threshold: Array.from({ length: 101 }, (_, i) => i / 100) });
  films.forEach(film => watch.observe(film));
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  moment.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (moment.value >= 1) moment.value = 0;
    play.textContent = "Stop";
    timer = setInterval(() => {
      moment.value = Math.min(1, +moment.value + 1 / 60);
      show();
      if (moment.value >= 1) stop();
    }, 130);
  });
}
