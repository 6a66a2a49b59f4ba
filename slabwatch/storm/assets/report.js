// Draws the two curves of a storm's report. All its data is in the page; without it the tables tell the same.
"use strict";
(() => {
  const page = document.documentElement;
  const MIB = 1024 * 1024;
  const PAPER_WIDTH = 690; // CSS pixels between the margins of A4 and Letter
  const ROW = 15; // height of a line of phase names
  const TITLE = 20; // of an axis
  const GAP = 10; // right of the plot

  // Whatever goes wrong is written where a reader, and a test, finds it.
  function trouble(what) {
    page.dataset.trouble = (page.dataset.trouble ? page.dataset.trouble + "; " : "") + what;
    document.getElementById("trouble")?.removeAttribute("hidden");
  }
  addEventListener("error", (event) => trouble(event.message));
  addEventListener("securitypolicyviolation", (event) => trouble(event.violatedDirective + " " + event.blockedURI));

  const data = JSON.parse(document.getElementById("data").textContent);
  const colour = (name) => getComputedStyle(page).getPropertyValue("--" + name).trim();
  const font = () => "12px " + getComputedStyle(document.body).fontFamily;
  const number = (value, digits) =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const signed = (value, digits) => (value > 0 ? "+" : "") + number(value, digits);

  function phaseAt(t) {
    const phase = data.phases.findLast((known) => known.start <= t);
    return phase ? phase.name : "";
  }

  // Memory is drawn as what was added since the load began, so that the curve shows whether it comes back to 0.
  const added = (name) => data[name].map((value) => (value === null ? null : (value - data.start[name]) / MIB));

  function memoryWords(name) {
    return (chart, value) => {
      if (value !== null && value !== undefined) {
        return signed(value, 1) + " MiB (" + number(value + data.start[name] / MIB, 1) + " in all)";
      }
      return "highest " + signed(highest(added(name)), 1) + " MiB";
    };
  }

  function countWords(name) {
    return (chart, value) => {
      if (value !== null && value !== undefined) {
        return number(value, 0);
      }
      return "highest " + number(highest(data[name]), 0);
    };
  }

  const known = (values) => values.filter((value) => value !== null);
  const highest = (values) => Math.max(...known(values));

  const CHARTS = [
    {
      id: "memory",
      title: "MiB added",
      tick: (value, digits) => signed(value, digits),
      least: 1,
      lines: ["sunreclaim_bytes", "slab_bytes"].filter((name) => data.start[name] !== null),
      values: added,
      words: memoryWords,
    },
    {
      id: "tasks",
      title: "tasks, objects",
      tick: (value, digits) => number(value, digits),
      least: 10,
      lines: ["task_struct_active", "live_tasks"],
      values: (name) => data[name],
      words: countWords,
    },
  ];
  const LINES = {
    sunreclaim_bytes: { label: "SUnreclaim", colour: "unreclaimable", width: 2.5 },
    slab_bytes: { label: "Slab", colour: "slab", width: 1.5, dash: [7, 4] },
    task_struct_active: { label: "task_struct objects", colour: "objects", width: 2.5 },
    live_tasks: { label: "live tasks", colour: "live", width: 1.5, dash: [7, 4] },
  };

  // Where each phase's name goes: in the first line in which it does not touch the name before it.
  function placeNames(width, xOf) {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = font();
    const ends = [];
    return data.phases.map((phase) => {
      const size = pen.measureText(phase.name).width;
      const x = Math.max(0, Math.min(xOf(phase.start) + 3, width - size));
      let row = ends.findIndex((end) => end + 6 <= x);
      row = row < 0 ? ends.length : row;
      ends[row] = x + size;
      return { name: phase.name, x, row };
    });
  }

  function phases() {
    function paint(chart) {
      const { ctx, bbox } = chart;
      const ratio = devicePixelRatio;
      const xOf = (t) => chart.valToPos(t, "x"); // CSS pixels inside the plot
      const width = bbox.width / ratio;
      ctx.save();
      ctx.scale(ratio, ratio);
      ctx.translate(bbox.left / ratio, 0);
      const top = bbox.top / ratio;
      const bottom = top + bbox.height / ratio;
      const names = placeNames(width, xOf);
      const rows = 1 + Math.max(-1, ...names.map((name) => name.row));
      ctx.font = font();
      ctx.textBaseline = "top";
      data.phases.forEach((phase, place) => {
        const from = Math.max(0, xOf(phase.start));
        const to = Math.min(width, xOf(phase.end));
        if (to < 0 || from > width) {
          return;
        }
        const above = top - (rows - names[place].row) * ROW;
        if (place % 2 === 0 && to > from) {
          ctx.fillStyle = colour("band");
          ctx.fillRect(from, above, to - from, bottom - above);
        }
        ctx.fillStyle = colour("line");
        ctx.fillRect(Math.round(from), above, 1, bottom - above);
        ctx.fillStyle = colour("quiet");
        ctx.fillText(phase.name, names[place].x, above + 1);
      });
      const zero = chart.valToPos(0, "y", true) / ratio;
      ctx.fillStyle = colour("quiet");
      ctx.fillRect(0, Math.round(zero), width, 1);
      ctx.restore();
    }
    return { hooks: { drawClear: [paint] } };
  }

  // Room for the numbers of the y axis.
  function room(definition) {
    const most = Math.max(definition.least, ...definition.lines.map((name) => highest(definition.values(name))));
    return 22 + 7 * definition.tick(most, most < 5 ? 1 : 0).length;
  }

  function draw(definition, width, numbers) {
    const end = data.seconds;
    const plot = width - numbers - TITLE - GAP;
    const rows = 1 + Math.max(0, ...placeNames(plot, (t) => (t / end) * plot).map((name) => name.row));
    const whole = (from, to) => from === data.t[0] && to === data.t[data.t.length - 1];
    const axis = () => ({
      stroke: colour("quiet"),
      grid: { stroke: colour("grid"), width: 1 },
      ticks: { stroke: colour("line"), width: 1 },
      font: font(),
      labelFont: font(),
    });
    const digitsOf = (splits) => (splits.length > 1 && splits[1] - splits[0] < 1 ? 1 : 0);
    const options = {
      width,
      height: (width > 600 ? 270 : 230) + rows * ROW,
      padding: [rows * ROW + 4, GAP, 0, 0],
      plugins: [phases()],
      cursor: { sync: { key: "storm" }, y: false, drag: { x: true, y: false } },
      legend: { markers: { width: 2, dash: (chart, line) => (chart.series[line].dash ? "dashed" : "solid") } },
      scales: {
        x: { time: false, range: (chart, from, to) => (whole(from, to) ? [0, end] : [from, to]) },
        y: { range: (chart, low, high) => uPlot.rangeNum(Math.min(0, low), Math.max(definition.least, high), 0.08, true) },
      },
      axes: [
        { ...axis(), label: "seconds since the start", labelSize: TITLE, size: 32 },
        {
          ...axis(),
          label: definition.title,
          labelSize: TITLE,
          size: numbers,
          values: (chart, splits) => splits.map((value) => definition.tick(value, digitsOf(splits))),
        },
      ],
      series: [
        {
          label: "shown",
          value: (chart, t) => (t === null || t === undefined ? "whole storm" : number(t, 1) + " s, " + phaseAt(t)),
        },
        ...definition.lines.map((name) => ({
          label: LINES[name].label,
          stroke: colour(LINES[name].colour),
          width: LINES[name].width,
          dash: LINES[name].dash,
          points: { show: false },
          value: definition.words(name),
        })),
      ],
    };
    const place = document.getElementById("chart-" + definition.id);
    return new uPlot(options, [data.t, ...definition.lines.map(definition.values)], place);
  }

  let charts = [];
  function drawAll(width) {
    charts.forEach((chart) => chart.destroy());
    const shown = CHARTS.filter((one) => one.lines.some((name) => known(data[name]).length));
    const numbers = Math.max(...shown.map(room)); // the same for all, so that moments stand below each other
    charts = shown.map((definition) =>
      draw(definition, width || document.getElementById("chart-" + definition.id).clientWidth, numbers));
    page.dataset.charts = charts.length;
  }
  page.dataset.charts = 0; // shows their places, so that these have a width
  drawAll();

  let drawnWidth = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== drawnWidth) { // a phone's address bar changes the height alone
      drawnWidth = innerWidth;
      drawAll();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
  addEventListener("beforeprint", () => {
    page.classList.add("printing"); // light colours
    drawAll(PAPER_WIDTH);
  });
  addEventListener("afterprint", () => {
    page.classList.remove("printing");
    drawAll();
  });
})();
