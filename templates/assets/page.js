"use strict";
(() => {
  const number = (text) => {
    const value = parseFloat(text.replace(/,/g, ""));
    return Number.isNaN(value) ? null : value;
  };
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x === null ? 1 : -1;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  const text = (row, column) => (row.cells[column] ? row.cells[column].textContent.trim() : "");

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] || "ascending";
        for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
        const rows = [...original];
        if (next !== "none") {
          head.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          rows.sort((a, b) => sign * compare(text(a, column), text(b, column)));
        }
        body.append(...rows);
      });
    });
  }

  for (const tools of document.querySelectorAll("[data-filter]")) {
    const rows = [...document.getElementById(tools.dataset.filter).tBodies[0].rows];
    const [words, bad] = tools.querySelectorAll("input");
    const output = tools.querySelector("output");
    const apply = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const content = row.textContent.toLowerCase();
        row.hidden = !(wanted.every((word) => content.includes(word)) && (!bad.checked || row.classList.contains("bad")));
        shown += row.hidden ? 0 : 1;
      }
      output.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
    };
    words.addEventListener("input", apply);
    bad.addEventListener("change", apply);
    tools.hidden = false;
  }

  const copy = async (content) => {
    try {
      await navigator.clipboard.writeText(content);
    } catch {
      const area = document.createElement("textarea");
      area.value = content;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  for (const button of document.querySelectorAll("button.copy")) {
    const label = button.textContent;
    const source = button.dataset.copyFrom ? document.getElementById(button.dataset.copyFrom) : button.parentNode.querySelector("pre");
    button.hidden = false;
    button.addEventListener("click", async () => {
      await copy(source.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }

  const reveal = () => {
    let target = null;
    try { target = document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { return; }
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details.cause")) part.open = true;
  });
})();
