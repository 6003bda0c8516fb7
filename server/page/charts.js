// Small multiples of percentiles over the last minutes, in plain SVG. The arrow keys read a chart's points.

import { duration, rate, share, words } from "/page/words.js";

const SVG = "http://www.w3.org/2000/svg";
const PERCENTILES = ["p50", "p90", "p99"];
const HEIGHT = 76;
const TOP = 8;
const CHARTS = [
  { series: "time_to_first_token", word: "timeToFirstToken", format: duration, least: 0.01 },
  { series: "inter_token", word: "interToken", format: duration, least: 0.01 },
  { series: "characters_per_second", word: "charactersPerSecond", format: rate, least: 10, hint: "slower" },
  { series: "queue", word: "queue", format: duration, least: 0.01 },
  { series: "kv_cache", word: "kvCache", format: share, least: 0.01, most: 1 },
];

export class Charts {
  constructor(place) {
    this.charts = CHARTS.map((kind) => new Chart(kind));
    place.replaceChildren(...this.charts.map((chart) => chart.figure));
    new ResizeObserver(() => this.draw()).observe(place);
  }

  update(live) {
    this.live = live;
    this.draw();
  }

  draw() {
    if (this.live) for (const chart of this.charts) chart.draw(this.live);
  }
}

class Chart {
  constructor(kind) {
    this.kind = kind;
    this.cursor = null;
    this.figure = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.title = document.createElement("span");
    this.readout = document.createElement("output");
    this.caption.append(this.title, this.readout);
    this.svg = shape("svg", { role: "img", tabindex: 0, height: HEIGHT + 18 });
    this.figure.append(this.caption, this.svg);
    this.svg.addEventListener("keydown", (event) => this.step(event));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    this.svg.addEventListener("blur", () => this.read(null));
  }

  draw({ series, interval_s: interval, latest }) {
    if (this.cursor !== null) this.cursor = Math.max(0, this.cursor - (latest - this.number)); // the same moment
    this.number = latest;
    this.interval = interval;
    this.points = series[this.kind.series];
    this.count = this.points.p50.length;
    this.width = this.svg.clientWidth || 300;
    const values = PERCENTILES.flatMap((name) => this.points[name]).filter((value) => value !== null);
    this.limit = ceiling(Math.max(this.kind.least, ...values), this.kind.most);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT + 18}`);
    this.mark = shape("line", { class: "cursor", y1: TOP, y2: HEIGHT });
    const lines = PERCENTILES.flatMap((name) => [...this.line(name)]);
    this.svg.replaceChildren(...this.grid(), ...lines, this.mark, ...this.scale());
    this.read(this.cursor);
  }

  *grid() {
    for (const part of [0, 0.5, 1]) {
      const y = this.y(this.limit * part);
      yield shape("line", { class: "grid", x1: 0, x2: this.width, y1: y, y2: y });
    }
  }

  *scale() {
    for (const part of [0.5, 1]) {
      const value = this.limit * part;
      yield shape("text", { x: 2, y: this.y(value) + 11 }, this.kind.format(value));
    }
    const minutes = Math.round((this.count * this.interval) / 60);
    yield shape("text", { x: 2, y: HEIGHT + 14 }, words().ago(minutes));
    yield shape("text", { x: this.width - 2, y: HEIGHT + 14, "text-anchor": "end" }, words().now);
  }

  // Neighbouring points joined; a point without neighbours as a dot.
  *line(name) {
    const runs = [[]];
    this.points[name].forEach((value, index) => {
      if (value === null) runs.push([]);
      else runs.at(-1).push(`${this.x(index).toFixed(1)},${this.y(value).toFixed(1)}`);
    });
    for (const run of runs) {
      if (run.length > 1) yield shape("polyline", { class: name, points: run.join(" ") });
      if (run.length === 1) {
        const [cx, cy] = run[0].split(",");
        yield shape("circle", { class: name, cx, cy, r: 2 });
      }
    }
  }

  x(index) {
    return 2 + (index / (this.count - 1)) * (this.width - 4);
  }

  y(value) {
    return HEIGHT - (Math.min(value, this.limit) / this.limit) * (HEIGHT - TOP);
  }

  step(event) {
    if (!this.points) return;
    const from = this.cursor ?? this.latest() ?? this.count - 1;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: this.count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.read(Math.max(0, Math.min(this.count - 1, to)));
  }

  point(event) {
    if (!this.points) return;
    const place = event.offsetX / this.width;
    this.read(Math.max(0, Math.min(this.count - 1, Math.round(place * (this.count - 1)))));
  }

  latest() {
    const index = this.points.p50.findLastIndex((value) => value !== null);
    return index < 0 ? null : index;
  }

  // Says the values at `cursor`, or the latest there are.
  read(cursor) {
    if (!this.points) return;
    this.cursor = cursor;
    const index = cursor ?? this.latest();
    this.title.textContent = words()[this.kind.word];
    this.title.title = this.kind.hint ? words()[this.kind.hint] : "";
    this.readout.replaceChildren(...this.values(index));
    this.mark.style.visibility = cursor === null ? "hidden" : "visible";
    this.mark.setAttribute("x1", this.x(cursor ?? 0));
    this.mark.setAttribute("x2", this.x(cursor ?? 0));
    this.svg.setAttribute("aria-label", `${this.title.textContent}: ${this.readout.textContent}`);
  }

  *values(index) {
    if (index === null) {
      yield words().noSamples;
      return;
    }
    for (const name of PERCENTILES) {
      const value = this.points[name][index];
      const part = document.createElement("span");
      part.className = name;
      part.textContent = value === null ? words().none : this.kind.format(value);
      yield part;
      yield " ";
    }
    const isOld = index < this.count - 2;
    if (this.cursor !== null || isOld) yield words().ago((((this.count - 1 - index) * this.interval) / 60).toFixed(1));
  }
}

function shape(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  element.textContent = text;
  return element;
}

// The next of 1, 2, 5, 10, ...; no more than `most`.
function ceiling(value, most = Infinity) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((each) => each * power >= value * 0.999);
  return Math.min(most, step * power);
}
